/* The calls to our own server. The token lives in this variable, and nowhere else. */
import { text } from "./texts.js";

const TIMEOUT_MS = 10000;
let token = "";
let actor = "";
export let onRefused = () => {};

export function carry(newToken, newActor, refused) {
  token = newToken;
  actor = newActor;
  onRefused = refused;
}

/** What went wrong, as a sentence; `fits` says whether the token did. */
export class Trouble extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

function sentence(status, said) {
  const known = said?.error && text(`error_${said.error}`);
  const line = known || text(`error_${status}`) || text("error_other");
  const more = [said?.message, said?.request_id].filter((part) => typeof part === "string");
  return more.length ? `${line} (${status}: ${more.join(" ")})` : `${line} (${status})`;
}

/** The answer's text. Rejects with a Trouble for what is not 2xx. */
export async function call(method, path, body) {
  const headers = {};
  if (token) {
    headers["X-Internal-Token"] = token;
  }
  if (actor) {
    headers["X-Wx-Actor"] = actor;
  }
  if (body) {
    headers["Content-Type"] = "application/json";
  }
  let answer, out;
  try {
    answer = await fetch(path, {
      method,
      headers,
      body: body && JSON.stringify(body),
      cache: "no-store",
      credentials: "omit",
      mode: "same-origin",
      redirect: "error",
      referrerPolicy: "no-referrer",
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    out = await answer.text();
  } catch {
    throw new Trouble(0, text("error_network"));
  }
  if (answer.ok) {
    return out;
  }
  let said;
  try {
    said = JSON.parse(out);
  } catch {
    said = null;
  }
  const trouble = new Trouble(answer.status, sentence(answer.status, said));
  trouble.message_of_server = typeof said?.message === "string" ? said.message : "";
  if (answer.status === 401) {
    onRefused(trouble);
  }
  throw trouble;
}

/** The same for answers in JSON. */
export async function ask(path) {
  const out = await call("GET", path);
  try {
    return JSON.parse(out);
  } catch {
    throw new Trouble(200, text("error_other"));
  }
}

/** An element with this text, and with attributes. Text is never markup. */
export function element(name, words = "", attributes = {}) {
  const made = document.createElement(name);
  made.textContent = words;
  for (const [key, value] of Object.entries(attributes)) {
    made.setAttribute(key, value);
  }
  return made;
}
