// Draws the report's charts once the text is on screen, and makes its lists searchable. Everything it needs is in the page.
"use strict";
(function () {
  const $ = (id) => document.getElementById(id);
  const root = document.documentElement;
  const figures = JSON.parse($("chart-data").textContent);
  const narrow = window.matchMedia("(max-width: 600px)");
  const touch = window.matchMedia("(hover: none), (pointer: coarse)").matches;
  const config = {
    responsive: true, displaylogo: false, showTips: false, displayModeBar: touch ? false : "hover",
    // The data stay on this machine: no button that uploads a chart.
    showSendToCloud: false, showLink: false, plotlyServerURL: "",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "toggleSpikelines"],
  };
  let style = getComputedStyle(root);

  // Colours are written "@name" and stand for the style sheet's variables, so that light and dark have one source.
  const colour = (name) => style.getPropertyValue("--" + name.slice(1)).trim();
  function themed(value, key) {
    if (Array.isArray(value)) return value.map((item) => themed(item, key));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, themed(item, name)]));
    }
    return typeof value === "string" && /color$/i.test(key || "") && value.startsWith("@") ? colour(value) : value;
  }

  function template() {
    const axis = {
      gridcolor: colour("@grid"), linecolor: colour("@line"), zerolinecolor: colour("@line"), automargin: true,
      exponentformat: "e",
      title: { standoff: 8, font: { size: 13 } }, tickfont: { size: 12 },
    };
    const scene = { ...axis, backgroundcolor: "rgba(0,0,0,0)" };
    return {
      layout: {
        font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("@ink") },
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
        colorway: Array.from({ length: 12 }, (_, place) => colour("@c" + place)),
        margin: { l: 48, r: 16, t: 16, b: 44 }, xaxis: axis, yaxis: axis,
        scene: { xaxis: scene, yaxis: scene, zaxis: scene },
        hoverlabel: { bgcolor: colour("@card"), bordercolor: colour("@soft"), font: { color: colour("@ink"), size: 13 }, align: "left" },
        legend: { orientation: "h", x: 0, y: 1.02, xanchor: "left", yanchor: "bottom", font: { size: 12 } },
        modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("@soft"), activecolor: colour("@accent") },
        dragmode: touch ? false : "zoom",
      },
    };
  }

  let gl = null;
  function hasWebGL() {
    if (gl === null) {
      try {
        const context = document.createElement("canvas").getContext("webgl");
        gl = Boolean(context);
        const lose = context && context.getExtension("WEBGL_lose_context");
        if (lose) lose.loseContext();
      } catch (error) { gl = false; }
    }
    return gl;
  }

  const hidden = new Set();
  let method = null;
  function mapFigure(spec) {
    method = method || Object.keys(spec.methods)[0];
    const points = spec.methods[method];
    const data = spec.groups.map((group, place) => ({
      type: hasWebGL() ? "scattergl" : "scatter", mode: "markers", name: group.name, hoverinfo: "text",
      x: points.x.slice(group.start, group.end), y: points.y.slice(group.start, group.end),
      hovertext: spec.hover.slice(group.start, group.end), visible: !hidden.has(place),
      marker: spec.values
        ? { size: spec.size, color: spec.values, colorscale: "Viridis", showscale: true,
            colorbar: { title: { text: spec.label }, thickness: 12, outlinewidth: 0 } }
        : { size: spec.size, color: group.color, symbol: group.symbol, opacity: 0.8 },
    }));
    const axis = { showticklabels: false, ticks: "", zeroline: false, title: { text: "" } };
    const layout = {
      height: narrow.matches ? 360 : Math.min(560, Math.max(360, window.innerHeight * 0.7)), showlegend: false,
      dragmode: "pan", hovermode: "closest", margin: { l: 8, r: 8, t: 8, b: 8 },
      // The view is kept while groups are switched, and starts anew with another projection.
      uirevision: method,
      xaxis: axis, yaxis: { ...axis, scaleanchor: method === "PCA" ? "x" : undefined },
    };
    return { data, layout, config: { ...config, scrollZoom: true, displayModeBar: true } };
  }

  function resolved(spec) {
    const figure = spec.methods ? mapFigure(spec) : { data: spec.data, layout: { height: 420, ...spec.layout }, config };
    if (spec.plain) {
      figure.layout.dragmode = false;
      figure.config = { ...config, displayModeBar: false };
    }
    const layout = { ...themed(figure.layout), template: template(), autosize: true };
    delete layout.width;
    return { data: themed(figure.data), layout, config: figure.config };
  }

  function draw(box) {
    const { data, layout, config: options } = resolved(figures[box.id]);
    return window.Plotly.react(box, data, layout, options).then(() => box.classList.remove("waiting"));
  }
  const safely = (box) => draw(box).catch((error) => {
    box.classList.replace("waiting", "failed");
    console.error(error);
  });

  function mapControls(box) {
    const wheelBox = box.parentElement;
    // The wheel scrolls the page until the map was clicked; then it zooms until the pointer leaves.
    let active = false;
    wheelBox.addEventListener("pointerdown", () => { active = true; });
    wheelBox.addEventListener("pointerleave", () => { active = false; });
    wheelBox.addEventListener("wheel", (event) => { if (!active) event.stopPropagation(); }, { capture: true, passive: true });
    const methods = document.querySelectorAll("[data-method]");
    methods.forEach((button) => button.addEventListener("click", () => {
      method = button.dataset.method;
      methods.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
      safely(box);
    }));
    const groups = document.querySelectorAll("[data-group]");
    const show = () => {
      groups.forEach((button) => button.setAttribute("aria-pressed", String(!hidden.has(Number(button.dataset.group)))));
      safely(box);
    };
    groups.forEach((button) => button.addEventListener("click", () => {
      const place = Number(button.dataset.group);
      if (hidden.has(place)) hidden.delete(place); else hidden.add(place);
      show();
    }));
    const all = $("map-all");
    if (all) all.addEventListener("click", () => {
      if (hidden.size) hidden.clear(); else groups.forEach((button) => hidden.add(Number(button.dataset.group)));
      show();
    });
  }

  function search() {
    const field = $("config-search");
    if (!field) return;
    const rows = Array.from(document.querySelectorAll("#config-all tbody tr"));
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row) => {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        shown += row.hidden ? 0 : 1;
      });
      $("config-found").textContent = words.length ? shown + " of " + rows.length + " options" : "";
    });
  }

  function copying() {
    const button = $("copy-command");
    if (!button) return;
    button.addEventListener("click", () => {
      const range = document.createRange();
      range.selectNodeContents($("command"));
      const selection = window.getSelection();
      selection.removeAllRanges();
      selection.addRange(range);
      button.textContent = document.execCommand("copy") ? "Copied" : "Selected: press Ctrl+C";
    });
  }

  async function start() {
    const code = document.createElement("script");
    code.textContent = $("plotly-source").textContent;
    document.head.append(code);
    const boxes = Array.from(document.querySelectorAll(".chart"));
    for (const box of boxes) {
      await safely(box);
      if (figures[box.id].methods) mapControls(box);
      await new Promise((next) => setTimeout(next, 0));
    }
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      style = getComputedStyle(root);
      boxes.forEach(safely);
    });
    root.dataset.ready = "yes";
  }

  root.classList.add("scripted");
  search();
  copying();
  // Two frames: the text is painted before the charts' 5 MB of code are parsed.
  requestAnimationFrame(() => requestAnimationFrame(start));
})();
