// The form's numbers: the server's defaults go in, the bodies of two requests come out. A number beside a slider is
// the truth and may be any number; the slider follows it as far as it reaches.

const byId = (id) => document.getElementById(id);
const dials = [...document.querySelectorAll("[data-range]")];

let fitted = false;

/** Shows the server's defaults, and lets the settings be changed from then on. */
export function fill(settings) {
  byId("alpha").value = settings.alpha ?? 4.5;
  byId("lambda").value = settings.agreement_threshold ?? 0.9;
  byId("steps").value = settings.contrast_steps ?? 10;
  byId("placement").value = settings.contrast_placement ?? "system";
  byId("longest").defaultValue = settings.max_new_tokens || 512;
  byId("gate").checked = Boolean(settings.gate) || settings.method === "adacd-gated";
  // what a profile found is decoded as it is but for the numbers of the form, so there is nothing to gate
  fitted = settings.method === "fitted";
  byId("gate").disabled = fitted;
  const decidesOnce = !["agreement", undefined].includes(settings.switch);
  for (const id of ["lambda", byId("lambda").dataset.range]) byId(id).disabled = decidesOnce;
  for (const dial of dials) byId(dial.dataset.range).value = dial.value;
  byId("settings").disabled = false;
}

/** The two requests that the form asks for: Default's and AdaCD's, alike but for the method and its numbers. */
export function bodies({ id }) {
  const messages = [{ role: "user", content: byId("prompt").value }];
  if (byId("system").value.trim()) messages.unshift({ role: "system", content: byId("system").value });
  const shared = { model: id, messages, stream: true };
  const longest = byId("longest");
  // left alone it is the server's own, which knows what it allows
  if (longest.value !== longest.defaultValue) shared.max_tokens = Number(longest.value);
  const trace = { trace: true, candidates: 5 };
  const contrast = {
    ...(fitted ? { method: "fitted" } : { method: "adacd", gate: byId("gate").checked }),
    alpha: Number(byId("alpha").value),
    agreement_threshold: Number(byId("lambda").value),
    contrast_steps: Number(byId("steps").value),
    contrast_placement: byId("placement").value,
  };
  return [
    { ...shared, adacd: { method: "default", ...trace } },
    { ...shared, adacd: { ...contrast, ...trace } },
  ];
}

for (const dial of dials) {
  const range = byId(dial.dataset.range);
  range.addEventListener("input", () => (dial.value = range.value));
  dial.addEventListener("input", () => (range.value = dial.value));
  // any number may be typed, so its arrow keys borrow the slider's step
  dial.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowUp" && event.key !== "ArrowDown") return;
    event.preventDefault();
    const next = Number(dial.value) + (event.key === "ArrowUp" ? 1 : -1) * range.step;
    dial.value = Number(Math.min(Math.max(next, dial.min), dial.max).toFixed(6));
    range.value = dial.value;
  });
}
