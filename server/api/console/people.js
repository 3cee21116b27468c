/*
 * Users: found, seen, blocked, erased, exported; their sessions seen and ended. What they wrote is
 * shown as text, whatever it is.
 */
import { Trouble, ask, call, element } from "./call.js";
import { text } from "./texts.js";

const PAGE = 100; // sessions that are shown, and users that are asked for, at a time
const SESSIONS_MAX = 1000; // the server lists no more
const $ = (id) => document.getElementById(id);
const PROFILE = [
  "appid",
  "openid",
  "unionid",
  "phoneNumber",
  "nickName",
  "avatarUrl",
  "gender",
  "country",
  "province",
  "city",
  "language",
  "audit_user",
];
const TIMES = ["created_at", "last_login_at", "updated_at"];

let who = null; // { appid, openid, user: null where the database has none }
let sessions = [];
let shown = 0;
let question = null; // { appid, filter, next, users } that are listed
let turn = 0; // an answer that comes after another question is dropped

/** A name as a part of a path. A browser would take dots for another path. */
function segment(name) {
  if (/^\.{0,2}$/.test(name)) {
    throw new Trouble(400, text("bad_name"));
  }
  return encodeURIComponent(name);
}

const app = (appid) => `/internal/apps/${segment(appid)}`;
const path = (of, below = "") => `${app(of.appid)}/users/${segment(of.openid)}${below}`;
const time = (seconds) =>
  Number.isFinite(seconds)
    ? new Date(seconds * 1000).toLocaleString(document.documentElement.lang)
    : "–";

function say(words = "") {
  $("people-said").textContent = words;
}

/** Does `work` with its button switched off; what goes wrong is shown as a sentence. */
async function doing(button, work) {
  button.disabled = true;
  $("people-trouble").textContent = "";
  say();
  try {
    await work();
  } catch (e) {
    $("people-trouble").textContent = e.message;
  }
  button.disabled = false;
}

// ---- one user ----

function facts() {
  const rows = [];
  const user = who.user || {};
  for (const key of PROFILE) {
    if (user[key] !== undefined && user[key] !== null && user[key] !== "") {
      rows.push([key, String(user[key])]);
    }
  }
  TIMES.forEach((key) => user[key] && rows.push([text(key), time(user[key])]));
  if (user.blocked) {
    const until = user.blocked.until
      ? `${text("until")} ${time(user.blocked.until)}`
      : text("for_good");
    const note = user.blocked.note ? ` · ${user.blocked.note}` : "";
    rows.push([text("blocked"), `${time(user.blocked.since)} · ${until}${note}`]);
  }
  $("facts").replaceChildren(
    ...rows.flatMap(([key, words]) => [element("dt", key), element("dd", words)]),
  );
}

function addSessions() {
  for (const session of sessions.slice(shown, shown + PAGE)) {
    const row = element("li");
    const said = element("div");
    said.append(
      element("div", `${time(session.created_at)} · ${session.ip}`),
      element("div", `${text("last_seen")} ${time(session.last_seen_at)}`, { class: "soft" }),
      element("div", String(session.user_agent), { class: "soft" }),
    );
    const end = element("button", text("end"), {
      type: "button",
      "aria-label": `${text("end")} ${session.id}`,
    });
    end.addEventListener("click", () => endOne(end, session.id));
    row.append(said, end);
    $("sessions").append(row);
  }
  shown = Math.min(sessions.length, shown + PAGE);
  $("more").hidden = shown >= sessions.length;
}

function draw() {
  $("person").hidden = !who;
  if (!who) {
    return;
  }
  $("person-name").textContent = who.openid; // what a user cannot choose
  $("unblock").hidden = !who.user?.blocked;
  facts();
  $("session-count").textContent =
    `(${sessions.length}${sessions.length < SESSIONS_MAX ? "" : `: ${text("newest")}`})`;
  $("end-all").disabled = !sessions.length;
  $("sessions").replaceChildren();
  const want = Math.max(shown, PAGE);
  shown = 0;
  while (shown < Math.min(want, sessions.length)) {
    addSessions();
  }
  $("more").hidden = shown >= sessions.length;
}

/**
 * The user and the sessions as they are now. A user whom the database does not know may have
 * sessions.
 */
async function load(of) {
  const mine = ++turn;
  let missing = "";
  const user = await ask(path(of)).catch((e) => {
    if (e.status !== 404) {
      throw e;
    }
    missing = text("no_user");
    return null;
  });
  const list = (await ask(path(of, "/sessions"))).sessions;
  if (mine !== turn) {
    return;
  }
  who = { ...of, user };
  sessions = list;
  shown = 0;
  draw();
  say(missing);
}

async function act(button, method, below, done, body) {
  await doing(button, async () => {
    const of = who;
    await call(method, path(of, below), body);
    await load(of);
    say(text(done));
  });
}

async function endOne(button, id) {
  await act(button, "DELETE", `/sessions/${encodeURIComponent(id)}`, "ended");
  $("reload").focus(); // the button that had it is gone
}

/** Whether the dialog was answered with yes. */
function confirmed(dialog) {
  return new Promise((resolve) => {
    dialog.returnValue = "";
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
    dialog.showModal();
  });
}

async function endAll() {
  if (await confirmed($("end-dialog"))) {
    await act($("end-all"), "DELETE", "/sessions", "ended");
  }
}

async function block() {
  $("note").value = "";
  $("until").value = "";
  if (!(await confirmed($("block-dialog")))) {
    return;
  }
  const body = {};
  if ($("note").value) {
    body.note = $("note").value;
  }
  if ($("until").value) {
    body.until = Math.floor(new Date($("until").value).getTime() / 1000);
  }
  await act($("block"), "PUT", "/block", "is_blocked", body);
}

async function erase() {
  $("erase-typed").value = "";
  $("erase-yes").disabled = true;
  $("erase-openid").textContent = who.openid;
  if ((await confirmed($("erase-dialog"))) && $("erase-typed").value === who.openid) {
    await act($("erase"), "DELETE", "", "is_erased");
  }
}

async function download() {
  await doing($("export"), async () => {
    const of = who;
    const url = URL.createObjectURL(
      new Blob([await call("GET", path(of, "/export"))], { type: "application/json" }),
    );
    const link = element("a", "", {
      href: url,
      download: `user-${of.openid.replace(/[^\w-]/g, "_")}.json`,
    });
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
    say(text("is_exported"));
  });
}

// ---- finding one ----

function offer(appid, user) {
  const row = element("li");
  const words = element("span");
  [user.openid, user.phoneNumber, user.blocked && text("blocked"), user.nickName]
    .filter(Boolean)
    .forEach((part, i) => words.append(i ? " · " : "", element("bdi", part)));
  const open = element("button", text("open"), {
    type: "button",
    "aria-label": `${text("open")} ${user.openid}`,
  });
  open.addEventListener("click", () =>
    doing(open, async () => {
      await load({ appid, openid: user.openid });
      $("person-name").focus();
    }),
  );
  row.append(words, open);
  $("found").append(row);
}

/** The next users of a question, behind those that stand there. */
async function page() {
  const mine = turn;
  const after = question.next ? { after: question.next } : {};
  const query = new URLSearchParams({ ...question.filter, ...after, limit: PAGE });
  const { users, next } = await ask(`${app(question.appid)}/users?${query}`);
  if (mine !== turn) {
    return;
  }
  users.forEach((user) => offer(question.appid, user));
  question.next = next;
  question.users.push(...users);
  $("next").hidden = !next;
  say(`${text("found")}: ${question.users.length}${next ? `, ${text("found_more")}` : ""}`);
}

export function forget() {
  turn++;
  who = null;
  sessions = [];
  question = null;
  $("next").hidden = true;
  $("found").replaceChildren();
  $("facts").replaceChildren();
  $("sessions").replaceChildren();
  $("value").value = "";
  $("people-trouble").textContent = "";
  say();
  document.querySelectorAll("dialog[open]").forEach((dialog) => dialog.close());
  draw();
}

async function find(event) {
  event.preventDefault();
  const [appid, by, value] = [$("appid").value.trim(), $("by").value, $("value").value.trim()];
  await doing(event.submitter || $("find").querySelector("button"), async () => {
    forget();
    $("value").value = value;
    if (by === "openid") {
      await load({ appid, openid: value });
      return;
    }
    const filter = by === "every" ? {} : { [by]: by === "blocked" ? "1" : value };
    question = { appid, filter, next: null, users: [] };
    await page();
  });
}

/** Some questions need no value. */
function chooseBy() {
  const needs = !["every", "blocked"].includes($("by").value);
  $("value-label").hidden = !needs;
  $("value").required = needs;
}

/** The words anew, after the language was switched. */
export function redraw() {
  draw();
  $("found").replaceChildren();
  question?.users.forEach((user) => offer(question.appid, user));
}

export function start() {
  $("find").addEventListener("submit", find);
  $("by").addEventListener("change", chooseBy);
  $("next").addEventListener("click", () => doing($("next"), page));
  $("more").addEventListener("click", addSessions);
  $("reload").addEventListener("click", () => doing($("reload"), () => load(who)));
  $("end-all").addEventListener("click", endAll);
  $("block").addEventListener("click", block);
  $("unblock").addEventListener("click", () =>
    act($("unblock"), "DELETE", "/block", "is_unblocked"),
  );
  $("erase").addEventListener("click", erase);
  $("erase-typed").addEventListener("input", () => {
    $("erase-yes").disabled = $("erase-typed").value !== who?.openid;
  });
  $("export").addEventListener("click", download);
}
