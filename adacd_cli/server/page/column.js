// One answer as it comes: a span a token, coloured and marked by decision, and one line of figures below. The arrow
// keys walk over its tokens (one of them is in the tab order at a time); `onOpen(column, place)` shows a token.

import { MARKS, describeRun, fixed, isNone, label, printable, statistics, thresholdOf } from "./words.js";

export class Column {
  constructor(section, onOpen, onWalk) {
    this.section = section;
    this.name = section.querySelector("h2").textContent;
    this.places = { true: section.querySelector(".thinking"), false: section.querySelector(".answer") };
    this.error = section.querySelector(".error");
    this.numbers = section.querySelector(".numbers");
    this.run = section.querySelector(".run");
    this.about = this.run.textContent;
    const list = section.querySelector(".tokens");
    list.addEventListener("click", (event) => this.#onClick(event, onOpen));
    list.addEventListener("keydown", (event) => this.#onKey(event, onOpen, onWalk));
    list.addEventListener("focusin", (event) => this.select(Number(event.target.dataset.place)));
    this.clear();
  }

  clear() {
    this.steps = [];
    this.tokens = [];
    this.selected = 0;
    this.added = 0;
    this.subtracted = 0;
    this.threshold = 0;
    this.longest = Infinity;
    this.ending = "";
    this.run.textContent = this.about;
    this.numbers.textContent = "";
    this.error.hidden = true;
    this.error.textContent = "";
    for (const place of Object.values(this.places)) place.replaceChildren();
  }

  /** The request is under way; `note` says what is waited for. */
  wait(note = "waiting for the first token") {
    this.since = performance.now();
    this.#setRunning("answer");
    this.numbers.textContent = note;
  }

  begin(started) {
    this.since = performance.now();
    this.run.textContent = describeRun(started);
    this.threshold = thresholdOf(started);
    this.longest = started.settings.max_new_tokens ?? Infinity;
  }

  add(step) {
    this.now = performance.now();
    this.steps.push(step);
    this.added += step.decision === "add";
    this.subtracted += step.decision === "subtract";
    const token = this.#draw(step, this.tokens.length);
    this.tokens.push(token);
    this.places[Boolean(step.thinking)].append(token);
    this.#setRunning(step.thinking ? "thinking" : "answer");
    this.#count();
  }

  finish(reason, { added = this.added, subtracted = this.subtracted } = {}) {
    Object.assign(this, { added, subtracted });
    const early = this.steps.length < this.longest;
    const cut = early ? "cut off by the context or the server's time limit" : "stopped at max tokens";
    this.#end({ stop: "ended by itself", length: cut }[reason] ?? `ended: ${reason}`);
  }

  stop() {
    this.#end("stopped");
  }

  fail(sentence) {
    this.error.textContent = sentence;
    this.error.hidden = false;
    this.#end(this.steps.length ? "broke off" : "");
  }

  get text() {
    return this.places[false].textContent;
  }

  /** Makes one token the one in the tab order. */
  select(place, { focus = false } = {}) {
    if (!this.tokens[place]) return;
    const before = this.tokens[this.selected];
    before.tabIndex = -1;
    this.selected = place;
    const token = this.tokens[place];
    token.tabIndex = 0;
    if (focus) token.focus();
  }

  /** Marks the token whose numbers are shown; none for -1. */
  mark(place) {
    this.section.querySelector('[aria-selected="true"]')?.setAttribute("aria-selected", "false");
    this.tokens[place]?.setAttribute("aria-selected", "true");
  }

  #draw(step, place) {
    const token = document.createElement("span");
    token.className = `token ${step.decision in MARKS ? step.decision : "plain"}`;
    token.classList.toggle("changed", step.token_id !== step.plain_token_id);
    token.classList.toggle("break", /^\s*\n/.test(step.text));
    // text of the model: only ever textContent and attributes that the style sheet prints
    const [, space, rest] = /^(\s*)([^]*)$/.exec(printable(step.text));
    const word = document.createElement("span");
    word.className = rest || !space ? "word" : "word blank";
    word.textContent = rest || space;
    if (!step.text) word.dataset.label = label(step.token);
    token.append(rest ? space : "", word);
    token.dataset.place = place;
    token.tabIndex = place === 0 ? 0 : -1;
    token.setAttribute("role", "option");
    token.setAttribute("aria-selected", "false");
    const agreement = isNone(step.agreement) ? "" : `, agr ${fixed(step.agreement, 2)}`;
    const other = step.token_id === step.plain_token_id ? "" : `, Default: ${label(step.plain_token)}`;
    token.setAttribute("aria-label", `${label(step.token)}, ${step.decision}${agreement}${other}`);
    return token;
  }

  #count() {
    const seconds = (this.now - this.since) / 1000;
    const speed = seconds > 0 ? this.steps.length / seconds : 0;
    this.numbers.textContent = statistics({ ...this, tokens: this.steps.length, speed });
  }

  #end(how) {
    this.ending = how;
    this.#setRunning("");
    if (this.steps.length) this.#count();
    else this.numbers.textContent = how;
  }

  #setRunning(where) {
    this.section.dataset.running = where;
  }

  #onClick(event, onOpen) {
    const token = event.target.closest(".token");
    if (!token) return;
    this.select(Number(token.dataset.place), { focus: true });
    onOpen(this, this.selected);
  }

  #onKey(event, onOpen, onWalk) {
    if (event.ctrlKey || event.metaKey || event.altKey || !event.target.closest(".token")) return;
    const targets = {
      ArrowRight: () => this.selected + 1,
      ArrowLeft: () => this.selected - 1,
      ArrowDown: () => this.#nearestChanged(1),
      ArrowUp: () => this.#nearestChanged(-1),
      Home: () => 0,
      End: () => this.tokens.length - 1,
    };
    if (targets[event.key]) {
      this.select(targets[event.key](), { focus: true });
      onWalk(this, this.selected);
    } else if (event.key === "Enter" || event.key === " ") onOpen(this, this.selected);
    else return;
    event.preventDefault();
  }

  #nearestChanged(direction) {
    for (let place = this.selected + direction; this.tokens[place]; place += direction)
      if (this.tokens[place].classList.contains("changed")) return place;
    return this.selected;
  }
}
