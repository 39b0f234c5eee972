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
    const isNarrow = element.clientWidth < 560;
    // Plotly writes into what it is given.
    const own = structuredClone(data);
    const room = isNarrow ? sqlbufferCharts.stacked({ data, layout }) : layout;
    element.style.height = room.height === undefined ? "" : `${room.height}px`;
    return Plotly.react(element, own, structuredClone(room), {
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
    // Return a layout whose panels stand below each other, for narrow pages; each legend has an
    // entry a line.
    stacked({ data, layout }) {
      const names = Object.keys(layout).filter((name) => /^xaxis\d*$/.test(name));
      if (names.length < 2) return layout;
      const [panel, below, entry, title, end] = [220, 64, 27, 26, 12]; // pixels
      const entries = names.map((name) => {
        const own = name.replace("axis", "");
        return data.filter((each) => each.xaxis === own && each.showlegend !== false).length;
      });
      const inner = entries.reduce((sum, n) => sum + n * entry + title + panel, 0);
      const height = inner + below * (names.length - 1);
      const margin = { ...layout.margin, t: end, b: below };
      const changed = { ...layout, margin, height: height + end + below };
      const titles = new Map();
      let from = height; // pixels above the lowest panel
      names.forEach((name, place) => {
        const room = entries[place] * entry;
        const top = (from - room - title) / height;
        const bottom = (from - room - title - panel) / height;
        const legend = name.replace("xaxis", "legend");
        changed[name] = { ...layout[name], domain: [0, 1] };
        const y = name.replace("xaxis", "yaxis");
        changed[y] = { ...layout[y], domain: [Math.max(bottom, 0), Math.min(top, 1)] };
        changed[legend] = { ...layout[legend], orientation: "v", x: 0, y: top };
        titles.set(`${name.replace("axis", "")} domain`, room + 2);
        from = bottom * height - below;
      });
      changed.annotations = (layout.annotations ?? []).map((each) =>
        each.yshift === undefined ? each : { ...each, yshift: titles.get(each.xref) },
      );
      return changed;
    },
  };
})();
