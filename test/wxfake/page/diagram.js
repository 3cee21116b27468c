/**
 * The sequence diagram: a row for each message, in the order of their times. The phone's come from
 * wx.js, those of WeChat and Redis from wxfake's events, a little later than they happened; so a
 * row is put where its time belongs.
 */
import { text } from "./texts.js";

/** From left to right. The page leaves out those of which it hears nothing. */
export const LANES = ["phone", "backend", "wxlogind", "users", "redis", "wechat"];
const ROWS_MAX = 400;

const WECHAT_CALLS = {
  jscode2session: "GET /sns/jscode2session",
  token: "GET /cgi-bin/token",
  stable_token: "POST /cgi-bin/stable_token",
  checksession: "GET /wxa/checksession",
  resetusersessionkey: "GET /wxa/resetusersessionkey",
  getuserphonenumber: "POST /wxa/business/getuserphonenumber",
  getuserencryptkey: "POST /wxa/business/getuserencryptkey",
  query_user_balance: "POST /xpay/query_user_balance",
  currency_pay: "POST /xpay/currency_pay",
  cancel_currency_pay: "POST /xpay/cancel_currency_pay",
  other: "?",
};
/** Faults after which the caller got no answer. */
const UNANSWERED = ["hang", "reset", "close", "drip"];

/* ---- time: of this browser, told in wxfake's clock ---- */

let offset = { low: -Infinity, high: Infinity };

export function now() {
  const both = (offset.low + offset.high) / 2;
  return performance.timeOrigin + performance.now() + (Number.isFinite(both) ? both : 0);
}

/**
 * wxfake's clock stood at `at` somewhere between two readings of ours: each such triple narrows by
 * how much the two differ.
 */
export function calibrate(before, at, after) {
  const seen = { low: at - after, high: at - before };
  const both = { low: Math.max(offset.low, seen.low), high: Math.min(offset.high, seen.high) };
  offset = both.low <= both.high ? both : seen; // a clock was set
}

export function reading() {
  return performance.timeOrigin + performance.now();
}

/* ---- rows ---- */

function element(tag, className, words) {
  const made = document.createElement(tag);
  made.className = className;
  if (words !== undefined) {
    made.textContent = words;
  }
  return made;
}

/** The five steps of a login and of a call with it, by what is in a row and before it. */
function stepOf({ from, to, label, detail = "", lost }, seen) {
  const way = `${from}>${to}`;
  if (way === "phone>wechat" && label === "wx.login") {
    return 1;
  }
  if (way === "wxlogind>wechat" && label === WECHAT_CALLS.jscode2session) {
    return 2;
  }
  if (way === "wechat>wxlogind" && label.startsWith("200 openid")) {
    seen.openid = true;
  }
  if (way === "wxlogind>redis" && seen.openid) {
    seen.openid = false;
    return 3;
  }
  if (way === "wxlogind>phone" && !lost && detail.includes("third_session:")) {
    return 4;
  }
  return way === "backend>wxlogind" || (way === "phone>wxlogind" && label === "GET /v1/session")
    ? 5
    : 0;
}

function number(rows) {
  const seen = { openid: false };
  rows.filter((row) => !row.isAct).forEach((row) => (row.step = stepOf(row.message, seen)));
}

/** Rows of Redis that follow one another are one, which says how many more there are. */
function fold(rows) {
  let first = null;
  for (const row of rows) {
    const isRedis = !row.isAct && row.message.to === "redis";
    if (isRedis) {
      row.folds = 0;
    }
    if (!isRedis || !first || row.step) {
      first = isRedis ? row : null;
      row.element.classList.remove("folded");
    } else {
      first.folds++;
      row.open = false;
      row.element.classList.toggle("folded", !first.open);
    }
  }
}

export class Diagram {
  constructor({ list, scroller, empty, lanes = LANES }) {
    this.list = list;
    this.lanes = lanes;
    this.scroller = scroller;
    this.empty = empty;
    this.rows = []; // { at, element, translate }, by time
    this.calls = new Map(); // WeChat's calls that have not ended: id -> what was asked
    this.script = null; // the latest EVAL, to which the commands within belong
    this.questions = new Map(); // of the backend to wxlogind that have no answer
    this.head = null; // of the latest act: it stays at the top until the user scrolls
    for (const name of ["wheel", "touchmove", "keydown"]) {
      scroller.addEventListener(name, () => (this.head = null), { passive: true });
    }
  }

  /** Something was done: the messages after it are its consequence. */
  act(key) {
    this.head = this.happened(key);
    this.keepHead();
  }

  /** Something happened by itself. `values` are the text's. */
  happened(key, values, at = now()) {
    const row = element("li", "act");
    const name = element("span", "act-name");
    const time = element("time", "act-time", new Date().toLocaleTimeString([], { hour12: false }));
    row.dataset.act = key;
    row.append(name, time);
    this.insert({
      at,
      isAct: true,
      element: row,
      translate: () => (name.textContent = text(`act.${key}`, values)),
    });
    return row;
  }

  /**
   * @param {{at?: number, from: string, to: string, label: string, note?: string, detail?: string,
   * tone?: string, lost?: boolean, elsewhere?: boolean}} message `note` is the key of a text
   */
  message(message) {
    const { from, to, label, note, detail, tone = "", lost = false, elsewhere = false } = message;
    const [a, b] = [this.lanes.indexOf(from), this.lanes.indexOf(to)];
    const row = element(
      "li",
      `message ${a < b ? "rightwards" : "leftwards"} of-${a < b ? to : from} ${tone}`,
    );
    row.classList.toggle("lost", lost);
    row.classList.toggle("elsewhere", elsewhere);
    row.classList.toggle(
      "is-answer",
      to === "phone" ||
        (from === "wechat" && to === "wxlogind") ||
        (from === "wxlogind" && to === "backend"),
    );
    Object.assign(row.dataset, { from, to });
    row.style.setProperty("--first", Math.min(a, b));
    row.style.setProperty("--span", Math.abs(a - b));
    row.style.setProperty("--middle", (a + b + 1) / 2 / this.lanes.length);

    const words = element("div", "words");
    const line = element("div", "line");
    const noteElement = element("span", "note");
    const step = element("span", "step");
    const more = element("button", "more");
    more.type = "button";
    more.hidden = true;
    line.append(step, " ", element("code", "label", label), " ", noteElement, " ", more);
    const body = element("div", "body");
    body.append(line);
    if (detail) {
      body.append(element("div", "detail", detail));
    }
    const after = element("span", "elapsed");
    words.append(element("span", "before"), body, element("span", "after"));
    row.append(words, element("div", "arrow"), after);
    const entry = {
      at: message.at || now(),
      message,
      step: 0,
      folds: 0, // how many rows of Redis after this one are folded into it
      open: false, // they are shown all the same
      element: row,
      body,
      elapsed: after,
      within: [],
      translate() {
        noteElement.textContent = note ? text(note) : "";
        step.textContent = entry.step ? text(`step.${entry.step}`) : "";
        more.hidden = entry.folds === 0;
        more.textContent = text(entry.open ? "fold.less" : "fold.more", { n: entry.folds });
        more.setAttribute("aria-expanded", String(entry.open));
        if (entry.summary) {
          entry.summary.textContent = text("note.within", { n: entry.within.length });
        }
      },
    };
    more.addEventListener("click", () => {
      entry.open = !entry.open;
      this.arrange(this.rows.indexOf(entry));
    });
    this.insert(entry);
    return entry;
  }

  insert(entry) {
    let i = this.rows.length;
    while (i > 0 && this.rows[i - 1].at > entry.at) {
      i--;
    }
    this.list.insertBefore(entry.element, i < this.rows.length ? this.rows[i].element : null);
    this.rows.splice(i, 0, entry);
    entry.translate();
    if (this.rows.length > ROWS_MAX) {
      this.rows.shift().element.remove();
      i--;
    }
    this.time(Math.max(0, i));
    this.arrange(Math.max(0, i));
    this.empty.hidden = true;
    this.keepHead();
  }

  /** The head of the latest act is what one sees first, with its steps below. */
  keepHead() {
    if (!this.head || !this.head.isConnected) {
      return;
    }
    const top = this.list.offsetTop; // the lanes' names stand before it, and stay
    const room = this.scroller.clientHeight - top - this.head.offsetHeight - 24;
    this.list.style.setProperty("--room", `${Math.max(24, room)}px`);
    this.scroller.scrollTop = this.head.offsetTop - top + 6;
  }

  /** Numbers the steps of the act around row i, and folds what Redis is told within one of them. */
  arrange(i) {
    let from = i;
    while (from > 0 && !this.rows[from].isAct) {
      from--;
    }
    const act = this.rows.slice(from, this.rows.findIndex((row, j) => j > from && row.isAct) >>> 0);
    number(act);
    fold(act);
    act.forEach((row) => row.translate());
  }

  /**
   * Each message says how long after its act it came. A row put in between moves those after it to
   * another act at most.
   */
  time(from) {
    let start = null;
    for (let i = Math.min(from, this.rows.length - 1); i >= 0 && start === null; i--) {
      start = this.rows[i].isAct ? this.rows[i].at : null;
    }
    for (const row of this.rows.slice(from)) {
      if (row.isAct) {
        start = row.at;
      } else if (start !== null) {
        const ms = Math.max(0, row.at - start);
        row.elapsed.textContent =
          ms < 9950 ? `${ms.toFixed(ms < 100 ? 1 : 0)} ms` : `${(ms / 1000).toFixed(1)} s`;
      }
    }
  }

  /* ---- wxfake's events ---- */

  wechat({ at, id, api, status, errcode, code, fault }) {
    this.calls.set(id, { status, errcode, fault, api });
    this.message({
      at,
      from: "wxlogind",
      to: "wechat",
      label: WECHAT_CALLS[api],
      detail: code ? `code: ${code}…` : "",
    });
  }

  wechatEnd({ at, id }) {
    const call = this.calls.get(id);
    if (!call) {
      return; // it began before this page listened
    }
    this.calls.delete(id);
    const { status, errcode, fault, api } = call;
    const answer = { at, from: "wechat", to: "wxlogind" };
    if (UNANSWERED.includes(fault)) {
      this.message({
        ...answer,
        label: `✗ ${fault}`,
        note: "note.wechat_lost",
        tone: "bad",
        lost: true,
      });
    } else if (status !== 200 || errcode !== 0) {
      const label = status !== 200 ? String(status) : `${status} errcode ${errcode}`;
      this.message({
        ...answer,
        label,
        note: errcode === 40163 ? "note.used" : undefined,
        tone: status === 200 ? "warn" : "bad",
      });
    } else {
      const secret = api === "jscode2session";
      this.message({
        ...answer,
        label: secret ? "200 openid, session_key" : "200 ok",
        note: secret ? "note.secrets" : undefined,
        tone: "good",
      });
    }
  }

  /** `server` is told where there are several. */
  redis({ at, server, script, command, args }) {
    const line = [
      command,
      ...args.map((arg) => (/^\(\d+ B\)$/.test(arg) ? `⟨${arg.slice(1, -1)}⟩` : arg)),
    ].join(" ");
    if (script && this.script) {
      this.withinScript(line);
      return;
    }
    const evaluated = /^EVAL/i.test(command);
    const keys = evaluated ? args.slice(2, 2 + Number(args[1])) : args.slice(0, 1);
    const kinds = keys.map((key) => /:([csut]):/.exec(key)).filter(Boolean);
    const kind = kinds.length ? kinds[kinds.length - 1][1] : "";
    const label = evaluated
      ? command
      : `${command} ${args
          .slice(0, 1)
          .map((arg) => arg.slice(0, 60))
          .join(" ")}`;
    const detail = [server, ...(evaluated ? keys : [])].filter(Boolean).join("  ");
    const entry = this.message({
      at,
      from: "wxlogind",
      to: "redis",
      label,
      detail,
      note: kind ? `note.redis_${kind}` : undefined,
    });
    this.script = evaluated ? entry : null;
  }

  withinScript(line) {
    const entry = this.script;
    if (!entry.summary) {
      const box = element("details", "within");
      entry.summary = element("summary", "");
      entry.commands = element("ol", "");
      box.append(entry.summary, entry.commands);
      entry.body.append(box);
    }
    entry.within.push(line);
    entry.commands.append(element("li", "", line));
    entry.translate();
  }

  /** The proxy before the backend asks who is calling. */
  auth({ at, id }) {
    this.questions.set(id, true);
    this.message({ at, from: "backend", to: "wxlogind", label: "GET /internal/auth" });
  }

  authEnd({ at, id, status, openid, reason }) {
    if (!this.questions.delete(id)) {
      return; // it began before this page listened
    }
    const answer = { at, from: "wxlogind", to: "backend" };
    if (status === 200) {
      this.message({
        ...answer,
        label: "200",
        detail: `X-Wx-Openid: ${openid}…`,
        note: "note.openid",
        tone: "good",
      });
    } else {
      this.message({
        ...answer,
        label: status ? `${status}${reason ? ` ${reason}` : ""}` : "✗",
        tone: status === 401 ? "warn" : "bad",
      });
    }
  }

  clear() {
    this.rows = [];
    this.script = null;
    this.list.replaceChildren();
    this.empty.hidden = false;
  }

  translate() {
    this.rows.forEach((row) => row.translate());
  }
}
