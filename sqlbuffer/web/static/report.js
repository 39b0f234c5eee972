// Draws the figures that a report holds.
"use strict";

(() => {
  const held = JSON.parse(document.getElementById("held").textContent);
  sqlbufferCharts.setDarkColors(held.dark);
  for (const [kind, figure] of Object.entries(held.figures)) {
    sqlbufferCharts.draw(document.getElementById(`chart-${kind}`), figure);
  }
})();
