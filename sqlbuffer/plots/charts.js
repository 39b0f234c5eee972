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

  // Rows of a horizontal legend: Plotly puts the entries into columns if one row cannot hold them.
  function legendRows(data, legend, width) {
    const widths = data
      .filter((trace) => trace.legend === legend && trace.showlegend)
      .map((trace) => 46 + 6.6 * trace.name.length);
    if (widths.length === 0) return 0;
    if (widths.reduce((sum, each) => sum + each, 0) <= width) return 1;
    return Math.ceil(widths.length / Math.max(Math.floor(width / Math.max(...widths)), 1));
  }

  // The layout for an element: room above each panel for its title and legend, and panels below
  // each other in a narrow element.
  function fitted({ data, layout }, width) {
    const suffixes = Object.keys(layout)
      .filter((name) => /^xaxis\d*$/.test(name))
      .map((name) => name.slice(5));
    const isStacked = suffixes.length > (width < 640 ? 1 : 2);
    const inner = width - layout.margin.l - layout.margin.r;
    const titleOf = (suffix) =>
      layout.annotations.findIndex(
        (each) => each.yanchor === "bottom" && each.xref === `x${suffix} domain`,
      );
    const changed = { ...layout, annotations: layout.annotations.map((each) => ({ ...each })) };
    const heads = suffixes.map((suffix) => {
      const own = isStacked ? inner : inner / suffixes.length - 20;
      const rows = 19 * legendRows(data, `legend${suffix}`, own);
      const title = titleOf(suffix);
      if (title >= 0) changed.annotations[title].yshift = rows + 6;
      return rows + (title >= 0 ? 26 : 4);
    });
    changed.margin = { ...layout.margin, t: isStacked ? heads[0] : Math.max(...heads) };
    if (!isStacked) return changed;
    const [plot, foot] = [210, 56];
    const total = heads.slice(1).reduce((sum, head) => sum + plot + foot + head, plot);
    changed.height = total + changed.margin.t + layout.margin.b;
    let top = total;
    suffixes.forEach((suffix, place) => {
      if (place > 0) top -= plot + foot + heads[place];
      const domain = [Math.max(top - plot, 0) / total, top / total];
      changed[`xaxis${suffix}`] = { ...layout[`xaxis${suffix}`], domain: [0, 1] };
      const y = layout[`yaxis${suffix}`];
      const isHidden = y.showticklabels === false && y.tickmode !== "array";
      changed[`yaxis${suffix}`] = { ...y, domain, showticklabels: !isHidden };
      changed[`legend${suffix}`] = { ...layout[`legend${suffix}`], x: 0, y: domain[1] };
    });
    return changed;
  }

  function show(element, figure) {
    const described = { data: figure.data, layout: figure.layout };
    // Plotly writes into what it is given.
    const { data, layout } = structuredClone(prefersDark.matches ? painted(described) : described);
    const own = fitted({ data, layout }, element.clientWidth);
    element.style.height = own.height === undefined ? "" : `${own.height}px`;
    return Plotly.react(element, data, own, {
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
  };
})();
