/**
 * The platform at its worst. In each run every call of the platform succeeds, fails, throws, calls
 * back twice or never, at once or late, by callbacks or by Promises; the server answers what
 * servers and gateways answer; and the mini program calls what it likes, aborts, logs out. Whatever
 * happens: every call ends in time, one login runs at a time, none begins after a logout, and no
 * session goes to another origin.
 *
 * $FUZZ_RUNS and $FUZZ_SEED: how many runs, and which is the first.
 */
"use strict";
const assert = require("node:assert/strict");
const fs = require("node:fs");
const path = require("node:path");
const { test } = require("node:test");
const vm = require("node:vm");
const { MINIPROGRAM } = require("./phone.js");

const RUNS = Number(process.env.FUZZ_RUNS || 10000);
const SEED = Number(process.env.FUZZ_SEED || 1);

const TIMEOUT = 1000;
const RETRIES = 2;
const LIMIT = TIMEOUT * 1.1; // of one network call
/**
 * One call with all its repeats: the server here never asks for more than 3 s, and half as much
 * comes on top.
 */
const PATIENTLY = (RETRIES + 1) * LIMIT + RETRIES * 4500;
/**
 * A login: wx.login, the phone's name, its exchange; all of it for a second code; then the storage.
 */
const LOGIN = 2 * (LIMIT + 2 * TIMEOUT + PATIENTLY) + TIMEOUT;
/**
 * Any call: somebody else's login, a logout, its own login, two calls, and the storage before,
 * between and after.
 */
const LONGEST = 3 * LOGIN + 3 * PATIENTLY + 10 * TIMEOUT;

const HOME = "https://login.example.com/wx";
const ALLOWED = [
  "https://login.example.com",
  "wss://login.example.com",
  "https://api.example.com:8443",
  "wss://api.example.com:8443",
];
const URLS = ["/v1/session", "/x", "https://api.example.com:8443/y", "https://login.example.com/z"];
const EVIL = [
  "https://evil.example/",
  "https://login.example.com.evil.example/",
  "https://login.example.com@evil.example/",
  "http://login.example.com/",
  "wss://evil.example/",
];

function random(seed) {
  // mulberry32
  let a = seed;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const names = ["module", "exports", "wx", "uni", "Taro", "setTimeout", "clearTimeout", "Math"];
const filename = path.join(MINIPROGRAM, "common/common.js");
const factory = vm.compileFunction(fs.readFileSync(filename, "utf8"), names, { filename });

class Run {
  constructor(seed) {
    this.random = random(seed);
    this.now = 0;
    this.events = [];
    this.healthy = false;
    this.store = new Map();
    this.sessions = new Map(); // session -> "" or the reason why it ended
    this.given = new Map(); // code -> what its login gave
    this.logins = []; // calls that belong to a login: { name, ends }
    this.calls = 0;
    this.asked = 0; // how often the mini program asked for a login
    // what was broken within a call of the platform, where an exception is only a failed call
    this.wrong = [];
    this.faults = this.random() < 0.3 ? 0.6 : this.random() < 0.5 ? 0.15 : 0.02;
    this.manners = this.pick(["callbacks", "promise", "both", "vue2"]);
    this.mock = this.random() < 0.1;
    const wx = Object.fromEntries(
      [
        "login",
        "checkSession",
        "request",
        "getStorage",
        "setStorage",
        "removeStorage",
        "uploadFile",
        "downloadFile",
        "connectSocket",
      ].map((name) => [name, (options) => this.called(name, options)]),
    );
    const module = { exports: {} };
    const globals =
      this.manners === "callbacks"
        ? [wx, undefined, undefined]
        : this.manners === "vue2"
          ? [undefined, wx, undefined]
          : [undefined, undefined, wx];
    const math = {
      ...Object.fromEntries(Object.getOwnPropertyNames(Math).map((n) => [n, Math[n]])),
      random: this.random,
    };
    factory(
      module,
      module.exports,
      ...globals,
      (work, ms) => this.at(ms, work),
      (event) => {
        if (event) {
          event.work = () => {};
        }
      },
      math,
    );
    this.common = module.exports;
    this.common.configure({
      baseUrl: HOME,
      origins: ["https://api.example.com:8443"],
      timeout: TIMEOUT,
      retries: RETRIES,
    });
  }

  pick(list) {
    return list[Math.floor(this.random() * list.length)];
  }

  must(holds, what) {
    if (!holds) {
      this.wrong.push(what);
    }
  }

  /* ---- time ---- */

  at(ms, work) {
    const event = { at: this.now + ms, work };
    this.events.push(event);
    return event;
  }

  /** Until nothing is left to happen. */
  async drive() {
    for (;;) {
      await new Promise(setImmediate);
      if (this.events.length === 0) {
        return;
      }
      let first = 0;
      this.events.forEach((event, i) => {
        first = event.at < this.events[first].at ? i : first;
      });
      const [event] = this.events.splice(first, 1);
      this.now = Math.max(this.now, event.at);
      event.work();
    }
  }

  /* ---- the platform ---- */

  called(name, options) {
    this.calls++;
    const url = String(options.url || "");
    const isLogin = name === "login" || (name === "request" && url.endsWith("/v1/login"));
    const record = { name, ends: this.now + LIMIT };
    if (isLogin) {
      const other = this.logins.find((l) => l.ends > this.now);
      this.must(!other, `${name} while ${other && other.name} of another login runs`);
      this.logins.push(record);
      this.must(name !== "login" || !this.loggedOut, "nobody is logged in after logout()");
    }
    if (options.header && options.header.Authorization) {
      const origin = /^[a-z]+:\/\/[^/]*/.exec(url)[0];
      this.must(ALLOWED.includes(origin), `the session went to ${url}`);
    }
    const fault =
      !this.healthy && this.random() < this.faults
        ? this.pick(["fail", "throw", "twice", "failTwice", "both", "never"])
        : "";
    if (fault === "throw") {
      record.ends = this.now;
      throw this.pick([new Error("thrown"), "thrown", null]);
    }
    let settle;
    const promise = new Promise((resolve, reject) => {
      settle = { resolve, reject };
    });
    promise.catch(() => {});
    const tell = (ok) => {
      record.ends = Math.min(record.ends, this.now);
      const result = ok
        ? this.result(name, options)
        : this.pick([{ errMsg: `${name}:fail` }, new Error("no"), undefined]);
      const failed = !ok || (result && result.missing);
      if (this.manners === "callbacks" || this.manners === "both") {
        (failed ? options.fail : options.success)(result);
      }
      if (this.manners === "vue2") {
        settle.resolve(failed ? [result] : [null, result]);
      } else {
        (failed ? settle.reject : settle.resolve)(result);
      }
    };
    const later = (ok) => {
      const ms = this.healthy ? 1 : this.pick([0, 1, 50, 400, TIMEOUT - 1, TIMEOUT + 600]);
      if (ms === 0 && this.random() < 0.3) {
        tell(ok);
      } else {
        this.at(ms, () => tell(ok));
      }
    };
    if (fault !== "never") {
      later(fault !== "fail" && fault !== "failTwice");
    }
    if (fault === "twice" || fault === "both") {
      later(fault === "twice");
    } else if (fault === "failTwice") {
      later(false);
    }
    const task =
      name === "connectSocket"
        ? this.socket()
        : { abort() {}, onHeadersReceived() {}, onProgressUpdate() {} };
    if (name === "connectSocket") {
      return this.manners === "callbacks"
        ? task
        : this.manners === "vue2"
          ? Promise.resolve([null, task])
          : Promise.resolve(task);
    }
    return this.manners === "callbacks" ? task : promise;
  }

  socket() {
    const on = {};
    const happens = this.healthy ? "open" : this.pick(["open", "error", "close", "never", "all"]);
    Object.entries({ open: "onOpen", error: "onError", close: "onClose" }).forEach(([name]) => {
      if (happens === name || happens === "all") {
        this.at(this.pick([1, 300]), () => on[name] && on[name]({}));
      }
    });
    return {
      onOpen: (f) => {
        on.open = f;
      },
      onError: (f) => {
        on.error = f;
      },
      onClose: (f) => {
        on.close = f;
      },
      close() {},
    };
  }

  result(name, options) {
    switch (name) {
      case "login":
        return this.healthy || this.random() < 0.9
          ? { code: this.mock ? "the code is a mock one" : `code${this.calls}` }
          : {};
      case "getStorage":
        return this.store.has(options.key)
          ? { data: this.store.get(options.key) }
          : { missing: true, errMsg: "getStorage:fail data not found" };
      case "setStorage":
        return void this.store.set(options.key, options.data) || {};
      case "removeStorage":
        return void this.store.delete(options.key) || {};
      case "request":
      case "uploadFile":
      case "downloadFile":
        return this.server(options);
      default:
        return {};
    }
  }

  /* ---- the server, and the gateways before it ---- */

  server({ url, method, header, data }) {
    if (!this.healthy && this.random() < this.faults) {
      const statusCode = this.pick([429, 500, 502, 503, 504, 302, 404, 0, 401, "?"]);
      return this.pick([
        { statusCode, header: {}, data: "<html>" },
        { statusCode, header: { "Retry-After": "3" }, data: { error: "busy" } },
        { statusCode },
        null,
        "x",
      ]);
    }
    if (url === `${HOME}/v1/login`) {
      this.must(!header, "a login carries no session");
      const known = this.given.get(data.code);
      if (known && known.nonce !== data.nonce) {
        return { statusCode: 401, header: {}, data: { error: "invalid_code" } };
      }
      if (!known) {
        this.given.set(data.code, { nonce: data.nonce, session: `s${this.calls}`.padEnd(43, "x") });
      }
      const { session } = this.given.get(data.code);
      this.sessions.set(session, "");
      return {
        statusCode: 200,
        header: {},
        data: { third_session: session, expires_in: 604800, new_user: true },
      };
    }
    const session = header.Authorization.slice("Bearer ".length);
    this.must(this.sessions.has(session), "a session that the server gave");
    if (!this.healthy && this.random() < 0.1) {
      this.sessions.set(
        session,
        this.pick(["unknown", "expired", "revoked", "replaced", "blocked", "logged_out"]),
      );
    }
    const ended = this.sessions.get(session);
    if (ended) {
      return this.random() < 0.5
        ? { statusCode: 401, header: {}, data: { error: "invalid_session", reason: ended } }
        : {
            statusCode: 401,
            header: {
              "www-authenticate": `Bearer error="invalid_token", error_description="${ended}"`,
            },
            data: "",
          };
    }
    if (method === "DELETE") {
      this.sessions.set(session, url.endsWith("/v1/user") ? "revoked" : "logged_out");
      return { statusCode: 204, header: {}, data: "" };
    }
    return { statusCode: 200, header: {}, data: { fine: true }, tempFilePath: "x" };
  }

  /* ---- the mini program ---- */

  start() {
    const url = this.random() < 0.15 ? this.pick(EVIL) : this.pick(URLS);
    const method = this.pick(["GET", "POST", "PUT", "DELETE", undefined]);
    const name = this.pick([
      "userLogin",
      "userLogin",
      "onLogin",
      "request",
      "request",
      "request",
      "getUserInfo",
      "setUserInfo",
      "checkLogin",
      "logout",
      "uploadFile",
      "downloadFile",
      "connectSocket",
      "getSession",
      "authHeader",
      "openData",
      "getPhoneNumber",
      "closeAccount",
    ]);
    const argument =
      this.random() < 0.05
        ? this.pick([undefined, null, 7, "x", {}])
        : {
            request: { url, method, header: this.pick([undefined, { a: 1 }]) },
            uploadFile: { url, filePath: "f" },
            downloadFile: { url },
            connectSocket: { url },
            openData: { rawData: "x", signature: "y" },
            getPhoneNumber: { detail: { code: "c" } },
            setUserInfo: { nickName: "n" },
          }[name];
    const began = this.now;
    const asked = this.asked;
    const key = { name };
    this.open.add(key);
    const end = (value) => {
      if (name === "closeAccount" && value && value.closed && asked === this.asked) {
        this.loggedOut = true;
      }
      this.open.delete(key);
      assert.ok(this.now - began <= LONGEST, `${name} took ${this.now - began} ms`);
      return value;
    };
    if (name === "logout") {
      this.loggedOut = true;
    } else if (name === "userLogin" || name === "onLogin") {
      this.loggedOut = false;
      this.asked++;
    }

    const byCallback = this.random() < 0.2 && argument && typeof argument === "object";
    const check = (error) => {
      end();
      assert.ok(
        error instanceof Error && typeof error.code === "string",
        `${name}: ${error && error.stack}`,
      );
    };
    let task;
    if (byCallback) {
      const outcome = new Promise((success, fail) => {
        task = this.common[name](argument, { success, fail });
      });
      this.promises.push(outcome.then(end, check));
    } else {
      task = this.common[name](argument);
      this.promises.push(task.then(end, check));
    }
    if (task && task.abort && this.random() < 0.15) {
      this.at(this.pick([0, 10, 700]), () => task.abort());
    }
  }

  async play() {
    this.open = new Set();
    this.promises = [];
    for (let i = Math.ceil(this.random() * 6); i > 0; i--) {
      this.at(this.pick([0, 0, 5, 300, 2000]), () => this.start());
    }
    await this.drive();
    assert.deepEqual([...this.open], [], "these never ended");
    await Promise.all(this.promises);

    // And whatever happened, the user can log in again.
    this.healthy = true;
    this.loggedOut = false;
    this.sessions.forEach((_, session) => this.sessions.set(session, ""));
    let worked;
    this.common
      .userLogin()
      .then(() => this.common.request({ url: "/v1/session" }))
      .then(
        (res) => {
          worked = res.data.fine;
        },
        (e) => {
          worked = e;
        },
      );
    await this.drive();
    assert.equal(worked, true);
    assert.deepEqual(this.wrong, []);
  }
}

test(`${RUNS} runs of a platform at its worst`, async () => {
  let calls = 0;
  for (let seed = SEED; seed < SEED + RUNS; seed++) {
    const run = new Run(seed);
    try {
      await run.play();
    } catch (e) {
      e.message = `FUZZ_SEED=${seed} FUZZ_RUNS=1: ${e.message}`;
      throw e;
    }
    calls += run.calls;
  }
  assert.ok(calls > RUNS, `${calls} calls of the platform`);
});
