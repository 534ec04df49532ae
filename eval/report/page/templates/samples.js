"use strict";
// The sample browser: pages of rows made from the data on demand, as text only, so that thousands stay quick.
(() => {
  const root = document.getElementById("browser");
  const sets = JSON.parse(document.getElementById("browser-data").textContent);
  // a set that asked what an earlier one asked holds the number of that one
  for (const set of sets) if (typeof set.questions === "number") set.questions = sets[set.questions].questions;
  const collator = new Intl.Collator("en", { numeric: true });
  const SIZE = 50;
  const MARKS = { r: ["✓", "right"], w: ["✗", "wrong"], u: ["?", "unknown"] };
  const FIELDS = { id: 0, task: 1, video: 2, text: 3, options: 4, target: 5 };
  let state;

  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const labelled = (text, control) => make("label", {}, text, control);
  const count = (run, key, place) => (Array.isArray(run[key]) ? run[key][place] : run[key]);

  // some methods to begin with: all tokens, HoliTom with and without its inner stage, and a last one
  const first = (names) => {
    const found = ["vanilla", "holitom_r", "holitom_without"].map((start) => names.find((name) => name.startsWith(start)));
    return new Set([...found, names[names.length - 1]].filter((name) => name !== undefined));
  };

  const choose = (number) => {
    const set = sets[number];
    const names = Object.keys(set.runs);
    state = { set, names, chosen: first(names), words: [], task: "", outcome: "", page: 0, sort: "", ascending: true };
    state.haystack = set.questions.map((question) => question.flat().join(" ").toLowerCase());
    build(number);
    update();
  };

  const OUTCOMES = {
    "": "all answers",
    differ: "chosen methods differ",
    allRight: "all chosen right",
    allWrong: "all chosen wrong",
    lost: "first chosen right, another wrong",
    won: "first chosen wrong, another right",
  };
  const keeps = (place) => {
    if (!state.outcome) return true;
    const marks = state.names.filter((name) => state.chosen.has(name)).map((name) => state.set.runs[name].right[place]);
    if (state.outcome === "allRight") return marks.every((mark) => mark === "r");
    if (state.outcome === "allWrong") return marks.every((mark) => mark === "w");
    if (state.outcome === "differ") return new Set(marks).size > 1;
    const [from, to] = state.outcome === "lost" ? ["r", "w"] : ["w", "r"];
    return marks[0] === from && marks.slice(1).includes(to);
  };

  const key = (place) => {
    const [kind, name] = state.sort;
    if (kind === "field") return String(state.set.questions[place][FIELDS[name]]);
    const run = state.set.runs[name];
    return `${"wur".indexOf(run.right[place])} ${run.text[place]}`;
  };

  const selected = () => {
    const places = [];
    state.set.questions.forEach((question, place) => {
      const hit = state.words.every((word) => state.haystack[place].includes(word));
      if (hit && (!state.task || question[FIELDS.task] === state.task) && keeps(place)) places.push(place);
    });
    if (state.sort) {
      const keyed = places.map((place) => [key(place), place]);
      const sign = state.ascending ? 1 : -1;
      keyed.sort((one, other) => sign * collator.compare(one[0], other[0]) || one[1] - other[1]);
      return keyed.map((pair) => pair[1]);
    }
    return places;
  };

  const heading = (title, kind, name) => {
    const cell = make("th", { scope: "col" });
    const button = make("button", { type: "button" }, title);
    const mine = state.sort && state.sort[0] === kind && state.sort[1] === name;
    if (mine) cell.setAttribute("aria-sort", state.ascending ? "ascending" : "descending");
    button.addEventListener("click", () => {
      state.ascending = mine ? !state.ascending : true;
      state.sort = [kind, name];
      state.page = 0;
      update();
      [...root.querySelectorAll("thead button")].find((other) => other.textContent === title).focus();
    });
    cell.append(button);
    return cell;
  };

  const answer = (name, place) => {
    const run = state.set.runs[name];
    const [sign, word] = MARKS[run.right[place]];
    const said = run.text[place] === null ? "video not read" : run.text[place];
    const mark = make("span", { className: `mark ${word}` }, sign, make("span", { className: "hidden" }, ` ${word} `));
    const cell = make("td", { className: "answer" }, mark, ` ${said}`);
    const [before, inside] = [count(run, "before_llm", place), count(run, "inside_llm", place)];
    if (before !== null) cell.append(make("small", {}, inside === before ? `${before} tokens` : `${before} → ${inside} tokens`));
    const map = run.maps && run.maps[place];
    if (map && /^map-\d+$/.test(map)) cell.append(make("small", {}, make("a", { href: `#${map}` }, "token map")));
    return cell;
  };

  const row = (place) => {
    const question = state.set.questions[place];
    const text = make("td", { className: "question" }, question[FIELDS.text]);
    if (question[FIELDS.options]) {
      const options = question[FIELDS.options].map((option, at) => {
        const right = question[FIELDS.target] === "ABCDEFGH"[at];
        return make("li", { className: right ? "target" : "" }, option, right ? " (right)" : "");
      });
      text.append(make("ol", {}, ...options));
    } else if (question[FIELDS.target] !== null) {
      text.append(make("small", {}, `right: ${question[FIELDS.target]}`));
    }
    const head = make("th", { scope: "row" }, question[FIELDS.id], make("small", {}, question[FIELDS.video]));
    const shown = state.names.filter((name) => state.chosen.has(name));
    return make("tr", {}, head, make("td", {}, question[FIELDS.task]), text, ...shown.map((name) => answer(name, place)));
  };

  const update = () => {
    const places = selected();
    const pages = Math.max(1, Math.ceil(places.length / SIZE));
    state.page = Math.min(state.page, pages - 1);
    const from = state.page * SIZE;
    const shown = state.names.filter((name) => state.chosen.has(name));
    const heads = [heading("question", "field", "id"), heading("kind", "field", "task"), heading("text", "field", "text")];
    for (const name of shown) heads.push(heading(name, "run", name));
    root.querySelector("thead").replaceChildren(make("tr", { className: "titles" }, ...heads));
    root.querySelector("tbody").replaceChildren(...places.slice(from, from + SIZE).map(row));
    const range = places.length ? `${from + 1} to ${Math.min(from + SIZE, places.length)} of ${places.length}` : "no";
    root.querySelector("output").textContent = `${range} questions`;
    const shares = shown.map((name) => {
      const marks = places.map((place) => state.set.runs[name].right[place]).filter((mark) => mark !== "u");
      const right = marks.filter((mark) => mark === "r").length;
      return `${name} ${right} of ${marks.length}`;
    });
    root.querySelector(".shares").textContent = shares.length ? `Right among them: ${shares.join(", ")}.` : "";
    root.querySelector(".back").disabled = state.page === 0;
    root.querySelector(".on").disabled = state.page >= pages - 1;
  };

  const select = (options, value, change) => {
    const control = make("select");
    for (const [name, title] of options) control.append(make("option", { value: name }, title));
    control.value = value;
    control.addEventListener("change", () => { change(control.value); });
    return control;
  };
  const changed = (change) => (value) => { change(value); state.page = 0; update(); };

  const build = (number) => {
    const { set, names } = state;
    const tasks = [...new Set(set.questions.map((question) => question[FIELDS.task]))];
    const search = make("input", { type: "search" });
    search.addEventListener("input", () => {
      changed(() => { state.words = search.value.toLowerCase().split(/\s+/).filter(Boolean); })();
    });
    const tools = make("div", { className: "tools" },
      labelled("Questions of", select(sets.map((other, at) => [String(at), other.title]), String(number), (value) => choose(Number(value)))),
      labelled("Search", search),
      labelled("Kind", select([["", "all kinds"], ...tasks.map((task) => [task, task])], "", changed((value) => { state.task = value; }))),
      labelled("Outcome", select(Object.entries(OUTCOMES), "", changed((value) => { state.outcome = value; }))));
    const boxes = names.map((name) => {
      const box = make("input", { type: "checkbox", checked: state.chosen.has(name), value: name });
      box.addEventListener("change", () => {
        if (box.checked) state.chosen.add(name); else state.chosen.delete(name);
        state.page = 0;
        update();
      });
      return make("label", {}, box, name);
    });
    const methods = make("fieldset", {}, make("legend", {}, "Methods shown"), make("div", {}, ...boxes));
    const back = make("button", { type: "button", className: "plain back" }, "Back");
    const on = make("button", { type: "button", className: "plain on" }, "Next");
    back.addEventListener("click", () => { state.page -= 1; update(); });
    on.addEventListener("click", () => { state.page += 1; update(); });
    const scroll = make("div", { className: "scroll", tabIndex: 0 }, make("table", {}, make("thead"), make("tbody")));
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", "Questions and answers");
    const output = make("output");
    output.setAttribute("aria-live", "polite");
    root.replaceChildren(
      ...(set.notice ? [make("p", { className: "notice instrument" }, set.notice)] : []),
      tools, methods, make("div", { className: "tools" }, back, on, output), make("p", { className: "notes shares" }), scroll);
  };

  choose(0);
})();
