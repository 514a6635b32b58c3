"use strict";
(() => {
  const trace = JSON.parse(document.getElementById("trace").textContent);
  const steps = trace.steps;
  const byId = (id) => document.getElementById(id);
  const tip = byId("tip");
  const tokens = [];
  let selected = -1;

  // every text of the model goes through here: textContent, never markup
  const make = (tag, className, text, ...children) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined && text !== null) element.textContent = text;
    element.append(...children);
    return element;
  };
  const number = (value) => (value === null ? "–" : value.toFixed(3));
  const percent = (value) => `${Math.max(0, Math.min(1, value ?? 0)) * 100}%`;
  const decisionOf = (step) => `${step.mark} ${step.decision}`;

  function sayNumbers(step) {
    const lines = [`step ${step.index} · ${step.label} · ${decisionOf(step)}`];
    if (step.agreement === null) lines.push(`c ${number(step.confidence)}`);
    else {
      lines.push(`agr ${number(step.agreement)} (rank ${step.rank} for ${step.top})`);
      lines.push(`c ${number(step.confidence)} · c* ${number(step.prompted)}`);
    }
    if (step.changed) lines.push(`Default: ${step.plain}`);
    return lines.join("\n");
  }

  function drawTokens() {
    const places = { true: byId("thinking"), false: byId("answer") };
    for (const place of Object.values(places)) place.replaceChildren();
    const pieces = { true: document.createDocumentFragment(), false: document.createDocumentFragment() };
    steps.forEach((step, place) => {
      const kinds = ["token", step.agreement === null ? "outside" : step.decision];
      if (step.changed) kinds.push("changed");
      if (!step.text) kinds.push("named");
      if (step.text.startsWith("\n")) kinds.push("break");
      const token = make("span", kinds.join(" "), step.text || step.label);
      token.tabIndex = -1;
      token.setAttribute("role", "option");
      token.setAttribute("aria-selected", "false");
      token.setAttribute("aria-label", sayNumbers(step).replaceAll("\n", ", "));
      token.dataset.place = place;
      tokens.push(token);
      pieces[step.thinking].append(token);
    });
    for (const thinking of [true, false]) places[thinking].append(pieces[thinking]);
  }

  function bar(kind, value, tick) {
    const fill = make("i");
    fill.style.width = percent(value);
    const drawn = make("div", `bar ${kind}`, null, fill);
    if (tick !== undefined) {
      const line = make("b");
      line.style.left = percent(tick);
      line.title = "λ × c*";
      drawn.append(line);
    }
    return drawn;
  }

  function confidenceBars(step) {
    const bars = make("div", "bars");
    bars.append(make("span", "head key-unprompted", "plain c"));
    bars.append(bar("unprompted", step.confidence, step.test ? trace.threshold * step.prompted : undefined));
    bars.append(make("span", "note", number(step.confidence)));
    if (step.prompted !== null) {
      bars.append(make("span", "head key-prompted", "prompted c*"), bar("prompted", step.prompted));
      bars.append(make("span", "note", number(step.prompted)));
    }
    return bars;
  }

  function candidateBars(step) {
    const bars = make("div", "bars candidates");
    const head = make("span", "head", null, make("span", "key-unprompted", "P"), " ", make("span", "key-prompted", "P*"));
    bars.append(make("span", "head", "candidate"), head, make("span", "note", "score"));
    for (const candidate of step.candidates) {
      const state = candidate.kept ? (candidate.chosen ? " chosen" : "") : " masked";
      const pair = make("div", "pair", null, bar("unprompted", candidate.unprompted));
      pair.title = `P ${number(candidate.unprompted)}, P* ${number(candidate.prompted)}`;
      if (candidate.prompted !== null) pair.append(bar("prompted", candidate.prompted));
      bars.append(make("span", `name${state}`, candidate.label), pair);
      bars.append(make("span", "note", candidate.kept ? candidate.score.toFixed(2) : "masked"));
    }
    return bars;
  }

  // where the switch's value lies between harmless and harmful; its place and the ticks are shares of the line
  function switchScale({ numbers, scale: [value, ticks] }) {
    const line = make("div", "scale");
    line.setAttribute("role", "img");
    line.setAttribute("aria-label", `From harmless to harmful: ${numbers}`);
    for (const [tag, place] of [...ticks.map((tick) => ["b", tick]), ["i", value]]) {
      const mark = make(tag);
      mark.style.left = percent(place);
      line.append(mark);
    }
    const shown = make("div", "switch", null, make("span", "", "harmless"), line, make("span", "", "harmful"));
    shown.append(make("span", "note", numbers));
    return shown;
  }

  function fact(list, name, value) {
    list.append(make("dt", "", name), make("dd", "", null, value));
  }

  function drawPanel(step, place) {
    const chip = make("span", `chip ${step.decision}`, decisionOf(step));
    const facts = make("dl");
    fact(facts, "Default would take", make("code", step.changed ? "changed" : "", step.plain));
    if (step.agreement !== null) {
      fact(facts, "prompted top token", make("code", "", step.top));
      fact(facts, "its rank in the plain stream", String(step.rank));
      const sign = step.agreement >= trace.threshold ? "≥" : "<";
      const test = trace.threshold === null ? "" : ` ${sign} λ ${trace.threshold}`;
      fact(facts, "agr(n) = 1 / rank", number(step.agreement) + test);
      if (step.test) fact(facts, "confidence test", step.test);
      fact(facts, "plausible tokens", String(step.plausible));
    }
    for (const [name, value] of Object.entries(step.named)) fact(facts, name, number(value));
    byId("position").textContent = `step ${step.index} of ${steps.length - 1}`;
    byId("previous").disabled = place === 0;
    byId("next").disabled = place === steps.length - 1;
    byId("turn").hidden = trace.turn === null;
    byId("detail").replaceChildren(make("h3", "", null, make("code", "", step.label), chip),
      make("p", "why", step.reason), ...(step.switch ? [switchScale(step.switch)] : []), facts, confidenceBars(step));
    if (step.candidates.length) byId("detail").append(candidateBars(step));
    byId("panel").hidden = false;
  }

  function select(place, focus = false) {
    if (place < 0 || place >= steps.length) return;
    if (selected >= 0) {
      tokens[selected].tabIndex = -1;
      tokens[selected].setAttribute("aria-selected", "false");
    }
    selected = place;
    tokens[place].tabIndex = 0;
    tokens[place].setAttribute("aria-selected", "true");
    if (focus) tokens[place].focus();
    drawPanel(steps[place], place);
  }

  function visit(place, focus) {
    select(place, focus);
    if (selected >= 0) history.replaceState(null, "", `#step-${steps[selected].index}`);
  }

  function nearestChanged(direction) {
    for (let place = selected + direction; place >= 0 && place < steps.length; place += direction)
      if (steps[place].changed) return place;
    return selected;
  }

  function onKey(event) {
    if (!steps.length || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("button, summary, #panel")) return;
    const targets = {
      ArrowRight: () => selected + 1,
      ArrowLeft: () => selected - 1,
      ArrowDown: () => nearestChanged(1),
      ArrowUp: () => nearestChanged(-1),
      Home: () => 0,
      End: () => steps.length - 1,
    };
    if (!targets[event.key]) return;
    event.preventDefault();
    visit(targets[event.key](), true);
  }

  function onHover(event) {
    const token = event.target.closest(".token");
    tip.hidden = !token;
    if (!token) return;
    tip.textContent = sayNumbers(steps[token.dataset.place]);
    const box = token.getClientRects()[0];
    const below = box.top < tip.offsetHeight + 12;
    tip.style.left = `${Math.min(box.left, Math.max(8, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${below ? box.bottom + 8 : box.top - tip.offsetHeight - 8}px`;
  }

  function onTheme() {
    const root = document.documentElement;
    const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = isDark ? "light" : "dark";
  }

  drawTokens();
  document.addEventListener("keydown", onKey);
  document.addEventListener("mouseover", onHover);
  byId("theme").addEventListener("click", onTheme);
  byId("previous").addEventListener("click", () => visit(selected - 1, false));
  byId("next").addEventListener("click", () => visit(selected + 1, false));
  byId("turn").addEventListener("click", () => visit(trace.turn, false));
  document.querySelector("main").addEventListener("click", (event) => {
    const token = event.target.closest(".token");
    if (token) visit(Number(token.dataset.place), true);
  });
  const fromAddress = steps.findIndex((step) => `#step-${step.index}` === location.hash);
  select(fromAddress >= 0 ? fromAddress : trace.turn ?? 0);
  if (fromAddress >= 0) tokens[fromAddress].scrollIntoView({ block: "center" });
})();
