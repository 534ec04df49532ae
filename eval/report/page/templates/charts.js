"use strict";
// Draws every chart from its specification; on paper they keep the size they have on the screen.
(() => {
  const options = {
    displaylogo: false, responsive: true, showTips: false, plotlyServerURL: "",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "sendDataToCloud"],
  };
  for (const place of document.querySelectorAll(".plot")) {
    const spec = JSON.parse(document.getElementById(place.dataset.plot).textContent);
    if (window.innerWidth < 600) {
      // the legend needs a line for each entry there
      spec.layout.height += 16 * spec.data.length;
      spec.layout.margin = { ...spec.layout.margin, l: 40, r: 5 };
      spec.layout.font = { ...spec.layout.font, size: 10 };
      place.style.height = `${spec.layout.height}px`;
    }
    Plotly.newPlot(place, spec.data, spec.layout, options);
  }
})();
