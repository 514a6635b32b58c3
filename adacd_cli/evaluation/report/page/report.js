"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const PER_PAGE = 20;
  const EMPTY = { show: "all", q: "", set: "", prompts: "", method: "", label: "", page: 1 };
  // each looks at one answer; a sample is shown for any answer that passes
  const SHOW = {
    all: ["All", () => true],
    fixed: ["✓ Fixed", (answer) => answer.change === "fixed"],
    broken: ["✕ Broken", (answer) => answer.change === "broken"],
    differ: ["≠ Judges differ", (answer) => answer.differ === true],
    degenerate: ["Degenerate", (answer) => labelOf(answer) === "degenerate"],
    failed: ["Failed", (answer) => answer.error !== undefined],
  };
  const state = { ...EMPTY };
  let matching = [];
  let pattern = null;
  let hits = null; // of data.texts, for the query
  let searching = 0;

  // every text of a model or a user goes through here: textContent, never markup
  const make = (tag, className, text, ...children) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined && text !== null) element.textContent = text;
    element.append(...children);
    return element;
  };
  const count = (number) => number.toLocaleString("en");

  function labelOf(answer) {
    if (answer.error !== undefined) return "failed";
    return answer.labels[0] ?? "not judged";
  }

  function marked(element, text) {
    let last = 0;
    if (pattern)
      for (const match of text.matchAll(pattern)) {
        element.append(text.slice(last, match.index), make("mark", "", match[0]));
        last = match.index + match[0].length;
      }
    element.append(text.slice(last));
    return element;
  }

  // ---- which samples

  function search(query) {
    const words = query.trim().replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&").replace(/\s+/g, "\\s+");
    pattern = words ? new RegExp(words, "giu") : null;
    hits = pattern ? data.texts.map(found) : null;
  }

  function found(text) {
    pattern.lastIndex = 0;
    return pattern.test(text);
  }

  const looksAt = (place) => !state.method || data.methods[place] === state.method;
  const draws = (place) => looksAt(place) || data.methods[place] === "default";

  function inQuery(sample) {
    if (!pattern) return true;
    const own = (answer, place) => answer && draws(place) && hits[answer.text ?? answer.error];
    return hits[sample.prompt] || sample.answers.some(own) || found(sample.id) || found(sample.category);
  }

  function passes(sample, test) {
    return sample.answers.some(
      (answer, place) => answer && looksAt(place) && test(answer) && (!state.label || labelOf(answer) === state.label));
  }

  function refresh() {
    const among = data.samples.filter((sample) =>
      (!state.set || sample.set === state.set) && (!state.prompts || sample.label === state.prompts) && inQuery(sample));
    for (const [name, [, test]] of Object.entries(SHOW)) {
      const passed = among.filter((sample) => passes(sample, test));
      byId(`count-${name}`).textContent = count(passed.length);
      if (name === state.show) matching = passed;
    }
    draw();
  }

  // ---- one page of them

  function chips(answer) {
    const drawn = make("p", "chips");
    const add = (kind, text) => drawn.append(make("span", `chip ${kind}`, text), " ");
    if (answer.change) add(answer.change, answer.change === "fixed" ? "✓ fixed" : "✕ broken");
    if (answer.error !== undefined) add("failed", "failed");
    else
      data.judges.forEach((judge, place) => {
        const label = answer.labels[place] ?? "not judged";
        add(label.replace(" ", "-"), data.judges.length > 1 ? `${judge}: ${label}` : label);
      });
    if (answer.differ) add("differ", "≠ judges differ");
    if (answer.cut) add("cut", `cut at ${count(answer.tokens)} tokens`);
    return drawn;
  }

  function drawAnswer(answer, place) {
    const drawn = make("section", "answer", null, make("h4", "", data.methods[place]));
    if (!answer) {
      drawn.append(make("p", "remark", "not asked yet"));
      return drawn;
    }
    drawn.classList.add(answer.change || "even");
    drawn.append(chips(answer));
    const text = data.texts[answer.text ?? answer.error];
    if (answer.same) drawn.append(make("p", "remark", "equal to Default's answer"));
    else if (!text) drawn.append(make("p", "remark", "empty"));
    else drawn.append(marked(make("div", "text"), text));
    return drawn;
  }

  function drawSample(sample, number) {
    const head = make("p", "head", null, make("span", "set", sample.set), " ", make("span", `kind ${sample.label}`, sample.label), " ",
      marked(make("span", "id"), sample.id));
    if (sample.category) head.append(" · ", marked(make("span"), sample.category));
    const prompt = marked(make("div", "prompt text"), data.texts[sample.prompt]);
    const answers = make("div", "answers");
    sample.answers.forEach((answer, place) => {
      if (draws(place)) answers.append(drawAnswer(answer, place));
    });
    const more = make("button", "more", "Show whole texts");
    more.type = "button";
    more.setAttribute("aria-expanded", "false");
    const drawn = make("article", "sample", null, head, prompt, answers, more);
    drawn.tabIndex = number ? -1 : 0;
    drawn.setAttribute("aria-label", `${sample.set} ${sample.id}`);
    return drawn;
  }

  function draw() {
    const pages = Math.max(1, Math.ceil(matching.length / PER_PAGE));
    state.page = Math.min(Math.max(1, state.page), pages);
    const start = (state.page - 1) * PER_PAGE;
    const rows = matching.slice(start, start + PER_PAGE);
    byId("list").replaceChildren(...rows.map(drawSample));
    if (!rows.length) byId("list").append(make("p", "none", data.samples.length ? "No sample passes these filters." : "There are no samples."));
    // all is measured before anything is changed, so that the page is laid out once
    const texts = [...document.querySelectorAll(".sample .text")];
    const long = texts.filter((text) => text.scrollHeight > text.clientHeight + 1);
    for (const text of long) text.classList.add("clipped");
    for (const button of document.querySelectorAll(".more")) button.hidden = !button.parentElement.querySelector(".clipped");
    byId("position").textContent = rows.length
      ? `samples ${count(start + 1)}–${count(start + rows.length)} of ${count(matching.length)}` : "no samples";
    byId("below").hidden = pages === 1;
    for (const place of ["", "-below"]) {
      byId(`previous${place}`).disabled = state.page === 1;
      byId(`next${place}`).disabled = state.page === pages;
    }
  }

  function open(sample) {
    const isOpen = sample.classList.toggle("open");
    const button = sample.querySelector(".more");
    button.setAttribute("aria-expanded", String(isOpen));
    button.textContent = isOpen ? "Show less" : "Show whole texts";
  }

  // ---- filters, the address and keys

  function remember() {
    const changed = Object.entries(state).filter(([name, value]) => value !== EMPTY[name]);
    const address = changed.length ? `#${new URLSearchParams(changed)}` : location.pathname + location.search;
    history.replaceState(null, "", address);
  }

  function recall() {
    const asked = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
    Object.assign(state, EMPTY, Object.fromEntries([...asked].filter(([name]) => Object.hasOwn(EMPTY, name))));
    state.page = Number.parseInt(state.page, 10) || 1;
    if (!Object.hasOwn(SHOW, state.show)) state.show = "all";
    byId("query").value = state.q;
    for (const name of ["set", "prompts", "method", "label"]) {
      byId(name).value = state[name];
      if (byId(name).selectedIndex < 0) byId(name).value = state[name] = "";
    }
    byId(`show-${state.show}`).checked = true;
    search(state.q);
    refresh();
    return location.hash.includes("=");
  }

  function change(name, value) {
    state[name] = value;
    state.page = 1;
    if (name === "q") search(value);
    refresh();
    remember();
  }

  function turn(step, focus) {
    const before = state.page;
    state.page += step;
    draw();
    if (state.page === before) return;
    remember();
    byId("filters").querySelector(".pages").scrollIntoView({ block: "start" });
    if (focus) document.querySelector(".sample")?.focus({ preventScroll: true });
  }

  function visit(sample) {
    if (!sample) return;
    for (const other of document.querySelectorAll('.sample[tabindex="0"]')) other.tabIndex = -1;
    sample.tabIndex = 0;
    sample.focus();
  }

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
    if (event.key === "/") {
      event.preventDefault();
      byId("query").focus();
      return;
    }
    const sample = event.target.closest(".sample");
    if (!sample) return;
    const actions = {
      ArrowDown: () => visit(sample.nextElementSibling),
      ArrowUp: () => visit(sample.previousElementSibling),
      ArrowRight: () => turn(1, true),
      ArrowLeft: () => turn(-1, true),
    };
    if (event.target === sample) actions.Enter = () => open(sample);
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  }

  function onTheme() {
    const root = document.documentElement;
    const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = isDark ? "light" : "dark";
  }

  function choices(id, first, values) {
    byId(id).append(new Option(first, ""), ...values.map((value) => new Option(value, value)));
    byId(id).addEventListener("change", (event) => change(id, event.target.value));
  }

  for (const [name, [title]] of Object.entries(SHOW)) {
    const input = make("input");
    Object.assign(input, { type: "radio", name: "show", id: `show-${name}`, value: name });
    input.addEventListener("change", () => change("show", name));
    const number = make("span", "count");
    number.id = `count-${name}`;
    byId("show").append(make("label", `choice ${name}`, null, input, make("span", "", title), " ", number));
  }
  choices("set", "all sets", data.sets);
  choices("prompts", "safe and unsafe", ["safe", "unsafe"]);
  choices("method", "all methods", data.methods);
  choices("label", "any label", [...data.labels, "not judged", "failed"]);
  byId("query").addEventListener("input", (event) => {
    clearTimeout(searching);
    searching = setTimeout(() => change("q", event.target.value), 200);
  });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("clear").addEventListener("click", () => {
    clearTimeout(searching);
    history.replaceState(null, "", location.pathname + location.search);
    recall();
  });
  for (const [id, step] of [["previous", -1], ["next", 1], ["previous-below", -1], ["next-below", 1]])
    byId(id).addEventListener("click", () => turn(step, false));
  byId("list").addEventListener("click", (event) => {
    const button = event.target.closest(".more");
    if (button) open(button.closest(".sample"));
  });
  byId("theme").addEventListener("click", onTheme);
  document.addEventListener("keydown", onKey);
  addEventListener("hashchange", () => {
    if (location.hash.includes("=") && recall()) byId("samples").scrollIntoView();
  });
  byId("filters").hidden = false;
  if (recall()) byId("samples").scrollIntoView();
})();
