// What a step's numbers mean, in the words of `adacd explain`: render/safe.py, reasons.py and text.py say the
// same in Python, and tests/integration/test_page.py holds the two together. Nothing here touches the document.

export const MARKS = { add: "+", subtract: "−", plain: "·" };

const WHITE = { " ": "␣", "\n": "⏎", "\t": "⇥", "\r": "\\r" };
const hex = (character, width) => character.codePointAt(0).toString(16).padStart(width, "0");

/** The text with control characters and turns of the writing direction made visible; newline and tab stay. */
export function printable(text) {
  return text
    .replace(/[\0-\x08\x0b-\x1f]/g, (character) => String.fromCodePoint(0x2400 + character.codePointAt(0)))
    .replace(/\x7f/g, "␡")
    .replace(/[\x80-\x9f]/g, (character) => `\\x${hex(character, 2)}`)
    .replace(/[\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, (character) => `\\u${hex(character, 4)}`);
}

/** A token's text on one line with nothing invisible. */
export function label(text) {
  if (!text) return "''";
  const shown = text.replace(/[\p{C}\p{Z}]/gu, (character) => WHITE[character] ?? escaped(character));
  // a lone combining mark would settle on whatever stands before it
  return /^\p{M}/u.test(text) ? `◌${shown}` : shown;
}

function escaped(character) {
  const code = character.codePointAt(0);
  if (code < 0x100) return `\\x${hex(character, 2)}`;
  return code < 0x10000 ? `\\u${hex(character, 4)}` : `\\U${hex(character, 8)}`;
}

/** A token in a sentence: quoted, without the spaces around its word. */
export const spoken = (text) => `“${label(text.replace(/^ +| +$/g, "") || text)}”`;

/** A number with so many digits after the point; a tie goes to the even digit, as Python rounds. */
export function fixed(value, digits) {
  const halves = value * 2 ** (digits + 1);
  if (Number.isInteger(halves) && halves % 2) {
    const below = Math.floor(value * 10 ** digits);
    return ((below + (below % 2)) / 10 ** digits).toFixed(digits);
  }
  return value.toFixed(digits);
}

/** A number with at most so many digits that count, and no zeros after them. */
export const short = (value, digits = 6) => String(Number(value.toPrecision(digits)));

/** A log-probability in nats as a probability. */
export function probability(logprob) {
  if (logprob === null || logprob === undefined) return "–";
  const value = Math.exp(logprob);
  return value >= 0.0005 ? fixed(value, 3) : value.toExponential(0).replace(/-(\d)$/, "-0$1");
}

const ordinal = (number) => {
  const ending = { 1: "st", 2: "nd", 3: "rd" }[number % 10] ?? "th";
  return `${number}${[11, 12, 13].includes(number % 100) ? "th" : ending}`;
};

// by the decision itself where it depended on it: the engine compared in float32
function isConfident(step, threshold) {
  if (step.decision !== "plain" && (step.agreement ?? 0) >= threshold) return step.decision === "add";
  return step.confidence >= threshold * (step.prompted_confidence ?? 0);
}

/** `0.66 < 0.9×0.99`: c against λ·c*; a third digit where two would contradict the sign; "" without a c*. */
export function confidenceTest(step, threshold) {
  const { confidence, prompted_confidence: prompted } = step;
  if (threshold === null || isNone(prompted) || isNone(step.agreement)) return "";
  const passed = isConfident(step, threshold);
  let digits = 2;
  if (Number(fixed(confidence, 2)) >= threshold * Number(fixed(prompted, 2)) !== passed) digits = 3;
  return `${fixed(confidence, digits)} ${passed ? "≥" : "<"} ${short(threshold, 3)}×${fixed(prompted, digits)}`;
}

export const isNone = (value) => value === null || value === undefined;

/** λ of a run, in [0, 1]; null where a switch decides once, at the first token, or nothing is contrasted. */
export function thresholdOf({ method, settings }) {
  return method === "default" || decidesOnce(settings) ? null : (settings.agreement_threshold ?? 0);
}

const decidesOnce = (settings) => !["agreement", undefined].includes(settings.switch);

/**
 * What a switch saw at this step: {numbers, zone, looks, at, ticks}, the last two its value's and thresholds' places
 * on a line from 0 (harmless) to 1 (harmful); null where it decided nothing here. As render/switch.py.
 */
export function switchReading(step) {
  const { switch_value: value, switch_high: high, switch_low: low = high } = step;
  if (isNone(value)) return null;
  const learned = !isNone(step.switch_low);
  const zoneOf = (v, l, h) => (v >= h ? "add" : v < l ? "subtract" : "plain");
  const zone = zoneOf(value, low, high);
  const signed = (number, digits) => {
    const text = fixed(Math.abs(number), digits);
    return number < 0 && Number(text) ? `−${text}` : text;
  };
  const told = (digits) => [value, low, high].map((number) => signed(number, digits));
  const isTrue = (digits) => zoneOf(...told(digits).map((text) => Number(text.replace("−", "-")))) === zone;
  const [v, l, h] = told([1, 2, 3].find(isTrue) ?? 4);
  const ticks = low === high ? [0.5] : [0.35, 0.65];
  const beyond = (distance) => 1 - 1 / (1 + distance);
  const at = {
    add: () => ticks.at(-1) + (1 - ticks.at(-1)) * beyond(value - high),
    subtract: () => ticks[0] * (1 - beyond(low - value)),
    plain: () => ticks[0] + ((ticks[1] - ticks[0]) * (value - low)) / (high - low),
  }[zone]();
  const [kind, test] = zone === "add" ? ["harmful", `q = ${v} ≥ τ_high = ${h}`] : ["harmless", `q = ${v} < τ_low = ${l}`];
  let numbers = `q = ${v}, ${low === high ? `τ_low = τ_high = ${l}` : `τ_low = ${l}, τ_high = ${h}`}`;
  let looks = `The first token's distribution looks like that of a ${kind} question (${test})`;
  if (!learned) {
    const [much, sign] = zone === "add" ? ["little", "≥"] : ["much", "<"];
    numbers = `logit R − logit R* = ${v}, μ = ${h}`;
    looks = `The contrast prompt makes a refusal so ${much} more likely that the question looks ${kind} (logit R − logit R* = ${v} ${sign} μ = ${h})`;
  } else if (zone === "plain")
    looks = `The first token's distribution lies between those of harmless and harmful questions (τ_low = ${l} ≤ q = ${v} < τ_high = ${h})`;
  return { numbers, zone, looks, at, ticks };
}

function switchReason(step, { zone, looks }) {
  const then = { subtract: "so the refusal was pushed away", add: "so the answer was turned towards a refusal" };
  if (then[step.decision]) return `${looks}, ${then[step.decision]}.`;
  if (!isNone(step.agreement)) {
    const apart = `the refusal-prompted stream wants ${spoken(step.prompted_top ?? "")}, which the plain stream ranks only ${ordinal(step.prompted_top_rank)}`;
    return `${looks}, but ${apart}: no refusal is near, and plain decoding took over.`;
  }
  const stays = {
    add: "and the model was about to refuse, so the refusal stays in its own words",
    subtract: "and the model was about to answer, so the answer stays its own",
    plain: "so the model's own words stay",
  };
  return `${looks}, ${stays[zone]}.`;
}

/** One or two sentences on why the step added, subtracted or did neither. */
export function reason(step, threshold) {
  const seen = switchReading(step);
  if (seen) return switchReason(step, seen);
  const rank = step.prompted_top_rank;
  if (isNone(rank) || isNone(step.agreement)) return "Plain decoding: only the plain stream was used.";
  const top = spoken(step.prompted_top ?? "");
  const agreement = rank < 100 ? `agr ${fixed(step.agreement, 2)}` : `agr 1/${rank}`;
  const wants = `The refusal-prompted stream wants ${top}, which the plain stream ranks only ${ordinal(rank)}`;
  if (step.decision === "plain") return `${wants}: no refusal is near, and plain decoding took over.`;
  if (threshold === null) {
    const still =
      step.decision === "subtract"
        ? `Both streams still have the same top token, ${top}, and the answer is pushed away from it`
        : `The prompted stream wants ${top}, and the answer leans towards it`;
    return `${still}, as decided at the first token.`;
  }
  const limit = `λ = ${short(threshold, 3)}`;
  if (step.agreement < threshold)
    return `${wants} (${agreement} < ${limit}). The two do not agree on refusing, so the refusal direction was subtracted.`;
  const both =
    rank > 1
      ? `The plain stream ranks the prompted stream's ${top} ${ordinal(rank)} (${agreement} ≥ ${limit})`
      : `Both streams have the same top token, ${top}`;
  const test = confidenceTest(step, threshold);
  if (step.decision === "add")
    return `${both}, and the plain one is sure enough of it (${test}), so the refusal direction was added.`;
  return `${both}, but the plain one is less sure of its own (${test}). Agreement that weak does not count, so the refusal direction was subtracted.`;
}

const SYMBOLS = { alpha: "α", agreement_threshold: "λ", plausibility: "β", contrast_steps: "k" };

/** Method and the settings that decide, on one line. */
export function describeRun({ method, settings, seed, profile }) {
  const symbols = method === "default" ? {} : SYMBOLS;
  const parts = [method];
  if (profile) parts.push(`profile ${profile}`);
  for (const [name, symbol] of Object.entries(symbols))
    if (name === "agreement_threshold" && decidesOnce(settings)) parts.push(`${settings.switch} switch`);
    else if (!isNone(settings[name])) parts.push(`${symbol} ${short(settings[name])}`);
  parts.push(settings.temperature ? `temperature ${short(settings.temperature)}, seed ${seed}` : "greedy");
  return parts.join(" · ");
}

/** One line: tokens, decisions where there are any, speed where it is known, and how the answer ended. */
export function statistics({ tokens, added, subtracted, speed, ending }) {
  const parts = [`${tokens} token${tokens === 1 ? "" : "s"}`];
  if (added + subtracted) parts.push(`${added} added`, `${subtracted} subtracted`);
  if (speed) parts.push(`${fixed(speed, 1)} tokens/s`);
  if (ending) parts.push(ending);
  return parts.join(" · ");
}

/** Where the two answers part and why: {sentence, step}; step is AdaCD's there, or null. */
export function parting(first, second, threshold, isWhole) {
  const decided = second.find((step) => switchReading(step));
  const why = (index) => (decided && decided.index !== index ? ` ${reason(decided, threshold)}` : "");
  let index = 0;
  while (index < first.length && index < second.length && first[index].token_id === second[index].token_id) index += 1;
  if (index < first.length && index < second.length) {
    const [one, other] = [first[index], second[index]];
    const taken = `Default takes ${spoken(one.token)}, AdaCD ${spoken(other.token)}`;
    return { sentence: `They part at step ${index}: ${taken}. ${reason(other, threshold)}${why(index)}`, step: index };
  }
  if (index < first.length || index < second.length) {
    const what = isWhole ? "ended" : "was stopped";
    return { sentence: `The answers are the same up to step ${index}, where one of them ${what}.${why()}`, step: null };
  }
  return { sentence: isWhole ? `Both answers are the same, token for token.${why()}` : "", step: null };
}
