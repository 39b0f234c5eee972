// Draws figures that `sqlbuffer.plots` describes, with the colours of the page's theme.
// It needs Plotly, and asks no other host.
"use strict";

const sqlbufferCharts = (() => {
  const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
  const drawn = new Map(); // element -> the figure as it was described, in light colours
  let darkOf = {};

  const hex = (channels) =>
    "#" + channels.map((each) => Number(each).toString(16).padStart(2, "0")).join("");

  const channels = (color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));

  function painted(value) {
    if (Array.isArray(value)) return value.map(painted);
    if (value !== null && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, painted(each)]));
    }
    if (typeof value !== "string") return value;
    if (Object.hasOwn(darkOf, value)) return darkOf[value];
    const faded = /^rgba\((\d+),(\d+),(\d+),([\d.]+)\)$/.exec(value);
    const solid = faded && hex(faded.slice(1, 4));
    return solid && Object.hasOwn(darkOf, solid)
      ? `rgba(${channels(darkOf[solid]).join(",")},${faded[4]})`
      : value;
  }

  function show(element, figure) {
    const { data, layout } = prefersDark.matches ? painted(figure) : figure;
    // Plotly writes into what it is given.
    const own = structuredClone(data);
    const stacked = element.clientWidth < 560 ? sqlbufferCharts.stacked(layout) : layout;
    return Plotly.react(element, own, structuredClone(stacked), {
      displaylogo: false,
      responsive: true,
      displayModeBar: false,
      showSendToCloud: false,
    });
  }

  function showAll() {
    for (const [element, figure] of drawn) show(element, figure);
  }

  prefersDark.addEventListener("change", showAll);
  let timer = null;
  window.addEventListener("resize", () => {
    clearTimeout(timer);
    timer = setTimeout(showAll, 200);
  });

  return {
    // Set the colours of a dark page: `sqlbuffer.plots.palette.dark_of()`.
    setDarkColors(colors) {
      darkOf = colors;
    },
    // Draw a figure into an element, or draw it again with other data.
    draw(element, figure) {
      drawn.set(element, figure);
      return show(element, figure);
    },
    // Return a layout whose panels stand below each other, for narrow pages.
    stacked(layout) {
      const names = Object.keys(layout).filter((name) => /^xaxis\d*$/.test(name));
      const n = names.length;
      if (n < 2) return layout;
      const gap = 0.28 / n;
      const height = (1 - gap * (n - 1)) / n;
      const changed = { ...layout, height: 320 * n };
      names.forEach((name, place) => {
        const top = 1 - place * (height + gap);
        const y = name.replace("xaxis", "yaxis");
        const legend = name.replace("xaxis", "legend");
        changed[name] = { ...layout[name], domain: [0, 1] };
        changed[y] = { ...layout[y], domain: [Math.max(top - height, 0), top] };
        changed[legend] = { ...layout[legend], x: 0, y: top };
      });
      return changed;
    },
  };
})();
