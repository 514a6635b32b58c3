// The two calls to the server: which model it has, and an answer as it is decoded. Addresses are relative, so the
// page works behind a path too. A failure is a ServerError with one sentence to show.

export class ServerError extends Error {
  /** `again`: milliseconds after which it is worth another try, or null. */
  constructor(message, again = null) {
    super(message);
    this.again = again;
  }
}

const BROKEN = "The connection broke off before the answer was whole.";
const AWAY = "The server cannot be reached; is adacd serve still running?";

/** The first model of v1/models: {id, adacd: {settings, …}}. */
export async function fetchModel() {
  const response = await call("v1/models", {});
  const { data } = await response.json().catch(() => ({}));
  if (!data?.[0]?.id) throw new ServerError("The server names no model at v1/models.");
  return data[0];
}

/** The chunks of one streamed chat completion, each parsed; it ends after the one with a finish_reason. */
export async function* streamAnswer(body, signal) {
  const response = await call("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  let isWhole = false;
  for await (const line of lines(response.body)) {
    if (!line.startsWith("data:")) continue;
    const data = line.slice(5).trim();
    if (data === "[DONE]") break;
    const chunk = parse(data);
    if (chunk.error) throw new ServerError(sentence(chunk.error, "The server ended the answer with an error."));
    yield chunk;
    isWhole ||= Boolean(chunk.choices?.[0]?.finish_reason);
  }
  if (!isWhole) throw new ServerError(BROKEN);
}

/** Waits, or throws an AbortError as soon as the signal says so. */
export function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

async function call(address, options) {
  let response;
  try {
    response = await fetch(address, { ...options, cache: "no-store" });
  } catch (error) {
    throw error.name === "AbortError" ? error : new ServerError(AWAY);
  }
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({}));
  const said = sentence(error, `The server answered ${response.status} ${response.statusText}`.trim() + ".");
  throw new ServerError(said, delay(response));
}

// a full queue and a model that is being loaded are worth another try; the server says after how many seconds
function delay(response) {
  const seconds = Number(response.headers.get("Retry-After") || NaN);
  if (![429, 503].includes(response.status) || Number.isNaN(seconds)) return null;
  return 1000 * Math.min(Math.max(seconds, 0.2), 10);
}

function sentence(error, otherwise) {
  const message = typeof error === "string" ? error : error?.message;
  return typeof message === "string" && message.trim() ? message.trim().slice(0, 1000) : otherwise;
}

function parse(data) {
  try {
    return JSON.parse(data);
  } catch {
    throw new ServerError("The server sent something that is not a piece of an answer.");
  }
}

async function* lines(stream) {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      const pieces = (rest + (done ? decoder.decode() : decoder.decode(value, { stream: true }))).split(/\r?\n/);
      rest = done ? "" : pieces.pop();
      yield* pieces;
      if (done) return;
    }
  } catch (error) {
    throw error instanceof TypeError ? new ServerError(BROKEN) : error;
  } finally {
    // an answer that is not read to its end is given up, so that the server frees its row
    reader.cancel().catch(() => {});
  }
}
