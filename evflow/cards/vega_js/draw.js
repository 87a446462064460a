(() => {
  "use strict";
  // Colours that follow the page, light or dark; what a specification says of its own goes before them.
  const font = getComputedStyle(document.body).fontFamily;
  const words = { labelColor: "currentColor", titleColor: "currentColor", labelFont: font, titleFont: font };
  const config = {
    background: null,
    font,
    axis: { ...words, domainColor: "currentColor", tickColor: "currentColor", gridColor: "currentColor", gridOpacity: 0.14, domainOpacity: 0.4, tickOpacity: 0.4, labelFontSize: 11, titleFontSize: 12, titleFontWeight: 600, titlePadding: 10 },
    legend: { ...words, labelFontSize: 11, titleFontSize: 12, titleFontWeight: 600 },
    header: words,
    title: { color: "currentColor", subtitleColor: "currentColor", font, subtitleFont: font, fontSize: 15, fontWeight: 600, anchor: "start", offset: 12 },
    style: { "guide-label": { fill: "currentColor", font }, "guide-title": { fill: "currentColor", font }, cell: { stroke: "transparent" } },
    view: { stroke: "transparent" },
    range: { category: ["#3b82c4", "#e08a3c", "#3fa37a", "#c2577b", "#8a6fd1", "#b39a2b", "#4aa3b8", "#8c8c8c"] },
    bar: { color: "#3b82c4" }, line: { color: "#3b82c4", strokeWidth: 2 }, point: { color: "#3b82c4" }, area: { color: "#3b82c4" }, rect: { color: "#3b82c4" }, circle: { color: "#3b82c4" },
    text: { color: "currentColor" }, rule: { color: "currentColor" },
  };
  for (const chart of document.querySelectorAll("div.chart[role=figure]")) {
    const place = chart.querySelector(".drawn");
    if (!place) continue; // somebody's own element of that name
    const fail = (error) => { place.textContent = "This chart cannot be drawn. " + error; place.className = "problem"; };
    try {
      const spec = JSON.parse(chart.querySelector("script").textContent);
      const plain = /\/schema\/vega\//.test(spec.$schema || "");
      const whole = plain ? spec : vegaLite.compile(spec, { config, logger: vega.logger(vega.Error) }).spec;
      place.textContent = "";
      const parsed = vega.parse(whole, plain ? config : undefined, { ast: true });
      const view = new vega.View(parsed, { renderer: "svg", container: place, hover: true, expr: vegaInterpreter.expressionInterpreter });
      view.runAsync().then(() => chart.setAttribute("data-drawn", "")).catch(fail);
      const button = chart.querySelector("button");
      if (button) button.addEventListener("click", () => view.toSVG().then((svg) => {
        const link = document.createElement("a");
        link.href = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(svg);
        link.download = "chart.svg";
        link.click();
      }));
    } catch (error) { fail(error); }
  }
})();
