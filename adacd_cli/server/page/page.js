// The page: a form, two answers streamed at the same time, and a panel with one token's numbers. It keeps nothing and
// asks nobody but the server it came from.

import { Column } from "./column.js";
import { Panel } from "./numbers.js";
import { bodies, fill } from "./settings.js";
import { ServerError, fetchModel, pause, streamAnswer } from "./stream.js";
import { isNone, parting, reason } from "./words.js";

const byId = (id) => document.getElementById(id);
const say = (text) => (byId("status").textContent = text);
const form = byId("form");
const prompt = byId("prompt");
const panel = new Panel(byId("panel"), walk, close);
const columns = [new Column(byId("default"), open, walk), new Column(byId("adacd"), open, walk)];
let running = null;
let known = null;

// the numbers of a token

function open(column, place) {
  panel.show(column, place);
  column.tokens[place].scrollIntoView({ block: "nearest" });
  byId("spoken").textContent = reason(column.steps[place], column.threshold);
}

function walk(column, place) {
  column.select(place);
  if (panel.isOpen) panel.show(column, place);
}

function close(column) {
  panel.close();
  column?.tokens[column.selected]?.focus();
}

// the model and its defaults

// asked for once; after a failure that no waiting mends, the next question asks again
function model() {
  known ??= load().catch((error) => {
    known = null;
    say("");
    byId("trouble").textContent = error.message;
    byId("trouble").hidden = false;
    throw error;
  });
  return known;
}

async function load() {
  say("Asking the server for its model…");
  byId("trouble").hidden = true;
  for (;;) {
    try {
      const found = await fetchModel();
      fill(found.adacd?.settings ?? {});
      byId("model").textContent = `Model ${found.id}`;
      say("");
      return found;
    } catch (error) {
      if (isNone(error.again)) throw error;
      say(`${error.message} Trying again…`);
      await pause(error.again);
    }
  }
}

// the two answers

async function ask() {
  if (!prompt.value.trim()) {
    say("Type a prompt first.");
    prompt.focus();
    return;
  }
  stop();
  const run = new AbortController();
  running = run;
  panel.close();
  byId("verdict").hidden = true;
  byId("spoken").textContent = "";
  for (const column of columns) {
    column.clear();
    column.wait("waiting for the model");
  }
  byId("stop").setAttribute("aria-disabled", "false");
  let served;
  try {
    served = await model();
  } catch {
    if (running === run) stop();
    return;
  }
  if (running !== run) return;
  say("Answering…");
  if (columns[0].section.getBoundingClientRect().top > 0.8 * innerHeight) byId("status").scrollIntoView();
  const ended = await Promise.all(bodies(served).map((body, place) => answer(columns[place], body, run.signal)));
  if (running !== run) return;
  running = null;
  byId("stop").setAttribute("aria-disabled", "true");
  conclude(ended.every(Boolean));
}

/** Streams one answer into its column; whether it came whole. */
async function answer(column, body, signal) {
  for (;;) {
    try {
      column.wait();
      for await (const chunk of streamAnswer(body, signal)) {
        if (signal.aborted) return false;
        take(column, chunk);
      }
      byId("spoken").textContent = `${column.name} has answered, ${column.numbers.textContent}: ${column.text}`;
      return true;
    } catch (error) {
      if (signal.aborted) return false;
      if (isNone(error.again) || column.steps.length) {
        if (!(error instanceof ServerError)) console.error(error);
        column.fail(error instanceof ServerError ? error.message : "The page failed to read the answer.");
        return false;
      }
      column.wait(`${error.message} Trying again…`);
      try {
        await pause(error.again, signal);
      } catch {
        return false;
      }
    }
  }
}

function take(column, { adacd = {}, choices = [] }) {
  if (adacd.started) column.begin(adacd.started);
  if (adacd.step) column.add(adacd.step);
  if (choices[0]?.finish_reason) column.finish(choices[0].finish_reason, adacd);
}

function conclude(isWhole) {
  const [first, second] = columns;
  const found = isWhole || (first.steps.length && second.steps.length)
    ? parting(first.steps, second.steps, second.threshold, isWhole)
    : { sentence: "", step: null };
  say(isWhole ? "Both have answered." : "");
  const verdict = byId("verdict");
  verdict.replaceChildren(found.sentence, " ");
  verdict.hidden = !found.sentence;
  if (found.step === null) return;
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Show the numbers there";
  button.addEventListener("click", () => {
    second.select(found.step, { focus: true });
    open(second, found.step);
  });
  verdict.append(button);
}

function stop() {
  if (!running) return;
  const run = running;
  running = null;
  run.abort();
  for (const column of columns) if (column.section.dataset.running) column.stop();
  byId("stop").setAttribute("aria-disabled", "true");
  conclude(false);
  say("Stopped.");
}

// the form

form.addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
prompt.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  form.requestSubmit();
});
byId("stop").addEventListener("click", stop);
byId("examples").addEventListener("click", (event) => {
  if (event.target.tagName !== "BUTTON") return;
  prompt.value = event.target.textContent;
  form.requestSubmit();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing) return;
  const isAmongTokens = event.target.closest?.(".tokens, #panel");
  if (panel.isOpen && (isAmongTokens || !running)) close(panel.column);
  else stop();
});
model().catch(() => {});
