"use strict";
// Every table gets a button in each heading that sorts by it, and long ones a field that filters. The first two columns
// stay in view where they leave room for others; else the first alone does.
(() => {
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  const say = (text) => { document.getElementById("status").textContent = text; };

  const keyOf = (row, column) => {
    const cell = row.cells[column];
    return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent.trim();
  };

  // numbers before texts; what was not measured always stands last
  const compare = (one, other, sign) => {
    const empty = (key) => key === "–" || key === "";
    if (empty(one) || empty(other)) return Number(empty(one)) - Number(empty(other));
    if (typeof one !== typeof other) return typeof one === "number" ? -1 : 1;
    return sign * (typeof one === "number" ? one - other : collator.compare(one, other));
  };

  const sort = (table, column, heading) => {
    const ascending = heading.getAttribute("aria-sort") !== "ascending";
    for (const other of table.tHead.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const body = table.tBodies[0];
    const keyed = [...body.rows].map((row) => [keyOf(row, column), row]);
    keyed.sort((one, other) => compare(one[0], other[0], ascending ? 1 : -1));
    body.append(...keyed.map((pair) => pair[1]));
    say(`Sorted by ${heading.textContent.trim()}, ${ascending ? "ascending" : "descending"}.`);
  };

  const addFilter = (table, name) => {
    const tools = document.createElement("div");
    tools.className = "tools";
    const label = document.createElement("label");
    label.append("Filter rows");
    const input = document.createElement("input");
    input.type = "search";
    input.setAttribute("aria-label", `Filter rows of: ${name}`);
    const output = document.createElement("output");
    const rows = [...table.tBodies[0].rows];
    const show = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        shown += row.hidden ? 0 : 1;
      }
      output.textContent = `${shown} of ${rows.length} rows`;
    };
    input.addEventListener("input", show);
    show();
    label.append(input);
    tools.append(label, output);
    table.closest(".scroll").before(tools);
  };

  const hold = (table) => {
    const [one, other] = [...table.tHead.querySelector(".titles").cells].map((cell) => cell.offsetWidth);
    const room = table.closest(".scroll").clientWidth;
    table.style.setProperty("--first", one + other <= 0.7 * room ? `${one}px` : "auto");
  };
  const observer = new ResizeObserver((entries) => { for (const entry of entries) hold(entry.target); });

  for (const table of document.querySelectorAll("table[data-sheet]")) {
    const name = document.getElementById(table.getAttribute("aria-labelledby")).textContent;
    [...table.tHead.querySelector(".titles").cells].forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => sort(table, column, heading));
    });
    if (table.tBodies[0].rows.length > 8) addFilter(table, name);
    if (table.rows.length && table.closest("#claims-table") === null) observer.observe(table);
  }
})();
