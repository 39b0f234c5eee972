// Draws the figures that a report holds.
"use strict";

(() => {
  const held = JSON.parse(document.getElementById("held").textContent);
  sqlbufferCharts.setDarkColors(held.dark);
  for (const [kind, figure] of Object.entries(held.figures)) {
    const place = document.getElementById(`chart-${kind}`);
    if (place) sqlbufferCharts.draw(place, figure); // else there is a sentence in its place
  }
})();
