// The panel with one token's numbers: what was chosen, why, and the candidates it was chosen from. Every text goes
// into the document as text; the bars' widths are the only styles set here.

import { MARKS, confidenceTest, fixed, isNone, label, probability, reason, short, switchReading } from "./words.js";

export class Panel {
  /** `onMove(column, place)` and `onClose(column)` are told what its buttons ask for. */
  constructor(element, onMove, onClose) {
    this.element = element;
    this.onMove = onMove;
    this.onClose = onClose;
    this.column = null;
  }

  get isOpen() {
    return !this.element.hidden;
  }

  close() {
    this.column?.mark(-1);
    this.column = null;
    this.element.hidden = true;
    this.element.replaceChildren();
  }

  show(column, place) {
    if (this.column !== column) this.column?.mark(-1);
    this.column = column;
    column.mark(place);
    const step = column.steps[place];
    const held = this.element.contains(document.activeElement) ? document.activeElement.dataset.does : null;
    const seen = switchReading(step);
    const why = [make("p", "why", reason(step, column.threshold)), ...(seen ? [scale(seen)] : [])];
    const left = make("div", "", ...why, facts(step, column.threshold));
    const right = step.candidates?.length ? [candidates(step)] : [];
    this.element.replaceChildren(this.#head(column, place), make("div", "body", left, ...right));
    this.element.hidden = false;
    if (held) this.element.querySelector(`[data-does="${held}"]`)?.focus();
  }

  #head(column, place) {
    const step = column.steps[place];
    const button = (does, text, name, action, off = false) => {
      const made = make("button", "", text);
      made.type = "button";
      made.dataset.does = does;
      made.setAttribute("aria-label", name);
      made.setAttribute("aria-disabled", String(off));
      if (!off) made.addEventListener("click", action);
      return made;
    };
    const last = place === column.steps.length - 1;
    const where = `${column.name} · step ${step.index}${step.thinking ? " · thinking" : ""}`;
    const mark = make("span", `mark ${step.decision}`, decisionOf(step));
    return make(
      "div",
      "head",
      make("h3", "", make("code", "", label(step.token)), " ", mark, " ", make("span", "soft", where)),
      make(
        "div",
        "steps",
        button("previous", "←", "Previous token", () => this.onMove(column, place - 1), place === 0),
        button("next", "→", "Next token", () => this.onMove(column, place + 1), last),
        button("close", "✕", "Close", () => this.onClose(column)),
      ),
    );
  }
}

function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

const decisionOf = (step) => `${MARKS[step.decision] ?? ""} ${step.decision}`;
const named = (text, id) => (isNone(id) ? [make("code", "", label(text))] : [make("code", "", label(text)), ` id ${id}`]);

// where the switch's value lies between harmless and harmful
function scale({ numbers, at, ticks }) {
  const line = make("div", "scale");
  line.setAttribute("role", "img");
  line.setAttribute("aria-label", `From harmless to harmful: ${numbers}`);
  for (const [tag, place] of [...ticks.map((tick) => ["b", tick]), ["i", at]]) {
    const mark = make(tag, "");
    mark.style.left = `${100 * place}%`;
    line.append(mark);
  }
  const ends = [make("span", "", "harmless"), line, make("span", "", "harmful")];
  return make("div", "switch", ...ends, make("span", "note", numbers));
}

function facts(step, threshold) {
  const list = make("dl", "");
  const put = (name, ...value) => list.append(make("dt", "", name), make("dd", "", ...value));
  put("token", ...named(step.token, step.token_id));
  const plain = make("span", step.token_id === step.plain_token_id ? "" : "changed");
  plain.append(...named(step.plain_token, step.plain_token_id));
  put("Default would take", plain);
  if (!isNone(step.agreement)) {
    put("prompted top token", ...named(step.prompted_top ?? "", step.prompted_top_id));
    put("its rank in the plain stream", String(step.prompted_top_rank));
    const sign = step.agreement >= threshold ? "≥" : "<";
    const test = threshold === null ? "" : ` ${sign} λ ${short(threshold, 3)}`;
    put("agr = 1 / rank", fixed(step.agreement, 3) + test);
  }
  put("c, the plain stream's top", fixed(step.confidence, 3));
  if (!isNone(step.prompted_confidence)) {
    put("c*, the prompted stream's top", fixed(step.prompted_confidence, 3));
    if (threshold !== null) put("c ≥ λ×c*", confidenceTest(step, threshold));
  }
  if (!isNone(step.plausible_count)) put("plausible tokens", String(step.plausible_count));
  if (step.exact === false) put("exact", "no: the served model left out a plausible token's value");
  return list;
}

function candidates(step) {
  const both = step.candidates.some((candidate) => !isNone(candidate.prompted_logprob));
  const names = ["candidate", "P", "log P", ...(both ? ["P*", "log P*"] : []), "score", "kept"];
  const head = make("tr", "", ...names.map((name) => make("th", "", name)));
  for (const cell of head.children) cell.scope = "col";
  const rows = step.candidates.map((candidate) => row(candidate, both, candidate.token_id === step.token_id));
  const caption = make("caption", "", both ? "P of the plain stream, P* of the prompted one; log in nats" : "log in nats");
  return make("div", "wide", make("table", "", caption, make("thead", "", head), make("tbody", "", ...rows)));
}

function row(candidate, both, isChosen) {
  const { token_id: id, text, unprompted_logprob: plain, prompted_logprob: prompted, score, kept } = candidate;
  const name = make("th", "", make("code", "", label(text)), make("span", "soft", ` ${id}`));
  name.scope = "row";
  const cells = [name, ...pair(plain, "bar"), ...(both ? pair(prompted, "bar second") : [])];
  cells.push(make("td", "", isNone(score) ? "–" : fixed(score, 2)), make("td", "", kept ? "yes" : "no"));
  return make("tr", isChosen ? "chosen" : kept ? "" : "masked", ...cells);
}

function pair(logprob, kind) {
  const bar = make("i", kind);
  bar.style.width = `${isNone(logprob) ? 0 : 100 * Math.min(1, Math.exp(logprob))}%`;
  return [make("td", "", probability(logprob), bar), make("td", "", isNone(logprob) ? "–" : fixed(logprob, 3))];
}
