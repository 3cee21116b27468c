/**
 * A phone: a `wx` made of Node's fetch and a Map, and a common.js of its own. wx calls back later, never at once; wx.request calls
 * `success` for any status; a redirect that is not followed is told to onHeadersReceived only.
 */
"use strict";
const fs = require("node:fs");
const path = require("node:path");
const vm = require("node:vm");

const MINIPROGRAM = path.resolve(__dirname, "../../miniprogram");

class Phone {
  /** @param {object} options `fake`: wxfake's URL, for wx.login; `openid`: whose phone it is; the rest goes to configure() */
  constructor({ fake, openid, ...configuration } = {}) {
    this.fake = fake;
    this.openid = openid;
    this.store = new Map();
    this.sessionKeyLives = true;
    this.calls = { login: 0, checkSession: 0 };
    this.codes = [];
    /** Every wx.request. */
    this.requests = [];
    /** What common.js waited for before a repeat, in milliseconds; here nobody waits. */
    this.waits = [];
    /** What a caller's callback threw. */
    this.thrown = [];
    this.console = [];
    /** Stands between wx.request and the network: replace it to lose, delay or invent answers. Throwing is wx.request's `fail`. */
    this.transport = (options, send) => send(options);
    this.wx = this.makeWx();
    this.common = this.load("common/common.js");
    if (configuration.baseUrl) {
      this.common.configure(configuration);
    }
  }

  get session() {
    return this.store.get("third_Session");
  }

  set session(value) {
    this.store.set("third_Session", value);
  }

  /** The logins that went out. */
  get logins() {
    return this.requests.filter((r) => r.method === "POST" && r.url.endsWith("/v1/login"));
  }

  /** Another copy of a file of the mini program, on this phone. */
  load(file, globals = {}) {
    const scope = { wx: this.wx, setTimeout: this.setTimeout.bind(this), console: this.makeConsole(), ...globals };
    const module = { exports: {} };
    const names = ["module", "exports", "require", ...Object.keys(scope)];
    const filename = path.join(MINIPROGRAM, file);
    const require = (wanted) => {
      if (path.join(path.dirname(file), wanted) !== "common/common.js") {
        throw new Error(`${file} requires ${wanted}`);
      }
      return this.common;
    };
    vm.compileFunction(fs.readFileSync(filename, "utf8"), names, { filename })(module, module.exports, require, ...Object.values(scope));
    return module.exports;
  }

  setTimeout(work, ms) {
    if (ms > 0) {
      this.waits.push(ms);
    }
    setImmediate(() => {
      try {
        work();
      } catch (e) {
        this.thrown.push(e);
      }
    });
  }

  makeConsole() {
    return new Proxy({}, { get: (_, method) => (...args) => this.console.push([method, ...args]) });
  }

  makeWx() {
    const answer = (options, api, work) => {
      Promise.resolve()
        .then(work)
        .then(
          (res) => {
            const all = { errMsg: `${api}:ok`, ...res };
            setImmediate(() => [options.success, options.complete].forEach((f) => f && f(all)));
          },
          (e) => {
            const all = { errMsg: `${api}:fail ${e.message}` };
            setImmediate(() => [options.fail, options.complete].forEach((f) => f && f(all)));
          }
        );
    };
    return {
      login: (options) => {
        this.calls.login++;
        answer(options, "login", () => this.login());
      },
      checkSession: (options) => {
        this.calls.checkSession++;
        answer(options, "checkSession", () => {
          if (!this.sessionKeyLives) {
            throw new Error("session time out..need relogin");
          }
        });
      },
      getStorage: (options) =>
        answer(options, "getStorage", () => {
          if (!this.store.has(options.key)) {
            throw new Error("data not found");
          }
          return { data: this.store.get(options.key) };
        }),
      setStorage: (options) => answer(options, "setStorage", () => void this.store.set(options.key, options.data)),
      removeStorage: (options) => answer(options, "removeStorage", () => void this.store.delete(options.key)),
      request: (options) => {
        this.requests.push({ method: "GET", header: {}, ...options });
        const listeners = [];
        answer(options, "request", async () => {
          const res = await this.transport(options, send);
          listeners.forEach((f) => f(res));
          if (options.redirect === "manual" && res.statusCode >= 300 && res.statusCode < 400) {
            await new Promise(() => {});
          }
          return res;
        });
        return { abort() {}, onHeadersReceived: (f) => listeners.push(f) };
      },
    };
  }

  /** What wx.login answers; replace it for codes that are old, or none. */
  async login() {
    const res = await fetch(`${this.fake}/fake/code`, { method: "POST", body: JSON.stringify({ openid: this.openid }) });
    const { code } = await res.json();
    this.codes.push(code);
    return { code };
  }
}

/** As wx.request sends. */
async function send({ url, method = "GET", data, header = {}, timeout, redirect, dataType = "json" }) {
  let body;
  if (data !== undefined && method === "GET") {
    url += (url.includes("?") ? "&" : "?") + new URLSearchParams(data);
  } else if (data !== undefined) {
    body = typeof data === "string" ? data : JSON.stringify(data);
  }
  const res = await fetch(url, {
    method,
    body,
    redirect,
    headers: { "content-type": "application/json", ...header },
    signal: AbortSignal.timeout(timeout),
  });
  const text = await res.text();
  let parsed = text;
  if (dataType === "json") {
    try {
      parsed = JSON.parse(text);
    } catch {
      // then wx.request gives the text
    }
  }
  return { statusCode: res.status, header: Object.fromEntries(res.headers), data: parsed };
}

module.exports = { MINIPROGRAM, Phone };
