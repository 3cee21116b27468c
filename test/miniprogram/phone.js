/**
 * A phone: a `wx` made of Node's fetch and a Map, and a common.js of its own. wx calls back later,
 * never at once; wx.request calls `success` for any status; a redirect that is not followed is told
 * to onHeadersReceived only.
 *
 * The phone has a clock of its own. It stands still while a call of the platform is being answered,
 * and else jumps to the next timer: nobody waits, and what never calls back costs no time.
 *
 * $MP_PLATFORM says by what name and in what manners common.js finds the platform (PLATFORMS).
 */
"use strict";
const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");
const vm = require("node:vm");

const MINIPROGRAM = path.resolve(__dirname, "../../miniprogram");

/** A platform's function that answers by a Promise and knows no callbacks. */
const promised = (phone, name, shape) => (options) =>
  shape(
    new Promise((success, fail) =>
      phone.wx[name]({ ...options, success, fail, complete: undefined }),
    ),
  );

/** A function of @tarojs/taro: it calls back, and returns a Promise that is a task as well. */
const taro = (phone, name) => (options) => {
  let task;
  const promise = new Promise((resolve, reject) => {
    const success = (res) => {
      options.success?.(res);
      resolve(res);
    };
    const fail = (e) => {
      options.fail?.(e);
      reject(e);
    };
    task = phone.wx[name]({ ...options, success, fail });
  });
  if (name === "connectSocket") {
    return promise.then(() => task);
  }
  return task ? Object.assign(promise, task) : promise;
};

const socketOrPromise = (phone, name, shape) =>
  name === "connectSocket"
    ? (options) => {
        const task = phone.wx.connectSocket(options);
        return shape(Promise.resolve(task));
      }
    : promised(phone, name, shape);

/** Each makes one function of the platform. `global`: where common.js finds it by itself. Without
 * `tasks` a Promise is all that a call gives. */
const PLATFORMS = {
  wx: { global: "wx", tasks: true, make: (phone, name) => (options) => phone.wx[name](options) },
  uni: { global: "uni", tasks: true, make: (phone, name) => (options) => phone.wx[name](options) },
  taro: { global: "Taro", tasks: true, make: taro },
  vue2: {
    make: (phone, name) =>
      socketOrPromise(phone, name, (p) =>
        p.then(
          (res) => [null, res],
          (e) => [e],
        ),
      ),
  },
  vue3: { make: (phone, name) => socketOrPromise(phone, name, (p) => p) },
};

class Phone {
  /**
   * @param {object} options `fake`: wxfake's URL, for wx.login; `openid`: whose phone it is; the
   * rest goes to configure()
   */
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
    /**
     * Stands between wx.request and the network: replace it to lose, delay or invent answers.
     * Throwing is wx.request's `fail`.
     */
    this.transport = (options, send) => send(options);
    /** What is in a file of this phone. */
    this.files = (file) => `contents of ${file}`;
    /** Names of functions that never call back. */
    this.hung = new Set();
    this.now = 0;
    this.timers = new Set();
    this.busy = 0;
    this.wx = this.makeWx();
    this.platform = PLATFORMS[process.env.MP_PLATFORM || "wx"];
    this.adapter = Object.fromEntries(
      Object.keys(this.wx).map((name) => [name, this.platform.make(this, name)]),
    );
    this.common = this.load("common/common.js");
    if (configuration.baseUrl) {
      this.configure(this.common, configuration);
    }
  }

  configure(common, configuration) {
    common.configure({
      ...(this.platform.global ? {} : { adapter: this.adapter }),
      ...configuration,
    });
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
    const scope = {
      wx: undefined,
      uni: undefined,
      Taro: undefined,
      [this.platform.global || "none"]: this.adapter,
      setTimeout: this.setTimeout.bind(this),
      clearTimeout: (timer) => this.timers.delete(timer),
      console: this.makeConsole(),
      ...(file.startsWith("common/") ? {} : { wx: this.wx }), // the sample is a native one
      ...globals,
    };
    const module = { exports: {} };
    const names = ["module", "exports", "require", ...Object.keys(scope)];
    const filename = path.join(MINIPROGRAM, file);
    const require = (wanted) => {
      if (path.join(path.dirname(file), wanted) !== "common/common.js") {
        throw new Error(`${file} requires ${wanted}`);
      }
      return this.common;
    };
    vm.compileFunction(fs.readFileSync(filename, "utf8"), names, { filename })(
      module,
      module.exports,
      require,
      ...Object.values(scope),
    );
    return module.exports;
  }

  /* ---- the clock ---- */

  setTimeout(work, ms = 0) {
    const timer = { work, at: this.now + ms, ms };
    this.timers.add(timer);
    this.tick();
    return timer;
  }

  tick() {
    setImmediate(() => {
      const [next] = [...this.timers].sort((a, b) => a.at - b.at);
      if (!next || (this.busy && next.at > this.now)) {
        return;
      }
      this.timers.delete(next);
      if (next.ms > 0) {
        this.now = Math.max(this.now, next.at);
        this.waits.push(next.ms);
      }
      try {
        next.work();
      } catch (e) {
        this.thrown.push(e);
      }
      this.tick();
    });
  }

  makeConsole() {
    return new Proxy(
      {},
      {
        get:
          (_, method) =>
          (...args) =>
            this.console.push([method, ...args]),
      },
    );
  }

  /** Answers a call of `wx`: the clock stands still until it has called back. */
  answer(options, api, work) {
    if (this.hung.has(api)) {
      return;
    }
    this.busy++;
    const end = (name, result) =>
      setImmediate(() => {
        this.busy--;
        [options[name], options.complete].forEach((f) => f && f(result));
        this.tick();
      });
    Promise.resolve()
      .then(work)
      .then(
        (res) => (res === HANG ? this.busy-- : end("success", { errMsg: `${api}:ok`, ...res })),
        (e) => end("fail", { errMsg: `${api}:fail ${e.message}` }),
      );
  }

  makeWx() {
    const answer = this.answer.bind(this);
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
      setStorage: (options) =>
        answer(options, "setStorage", () => void this.store.set(options.key, options.data)),
      removeStorage: (options) =>
        answer(options, "removeStorage", () => void this.store.delete(options.key)),
      request: (options) => this.exchange("request", options, send),
      uploadFile: (options) =>
        this.exchange("uploadFile", options, (sent) => upload(sent, this.files(sent.filePath))),
      downloadFile: (options) => this.exchange("downloadFile", options, download),
      connectSocket: (options) => this.connect(options),
    };
  }

  exchange(api, options, sender) {
    this.requests.push({ api, method: "GET", header: {}, ...options });
    const listeners = [];
    const control = new AbortController();
    this.answer(options, api, async () => {
      const aborted = new Promise((_, reject) =>
        control.signal.addEventListener("abort", () => reject(new Error("abort"))),
      );
      const res = await Promise.race([this.transport(options, sender), aborted]);
      listeners.forEach((f) => f(res));
      return this.platform.tasks &&
        options.redirect === "manual" &&
        res.statusCode >= 300 &&
        res.statusCode < 400
        ? HANG
        : res;
    });
    return {
      abort: () => control.abort(),
      onHeadersReceived: (f) => listeners.push(f),
      onProgressUpdate: (f) => setImmediate(() => f({ progress: 100 })),
    };
  }

  /** A web socket: as much of it as a handshake. */
  connect(options) {
    const on = { open: [], error: [], close: [] };
    const tell = (name, what) => setImmediate(() => on[name].forEach((f) => f(what)));
    let request, socket;
    this.requests.push({ api: "connectSocket", header: {}, ...options });
    this.answer(options, "connectSocket", () => {});
    if (!this.hung.has("onOpen")) {
      const headers = {
        Connection: "Upgrade",
        Upgrade: "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
      };
      this.busy++;
      const done = (name, what) => {
        this.busy--;
        tell(name, what);
        this.tick();
      };
      request = http.request(options.url.replace(/^ws/, "http"), {
        headers: { ...headers, ...options.header },
      });
      request.on("upgrade", (_, opened) => {
        socket = opened;
        done("open", { header: {} });
      });
      request.on("response", (res) => {
        res.resume();
        done("error", { errMsg: `Unexpected response code: ${res.statusCode}` });
      });
      request.on("error", (e) => done("error", { errMsg: e.message }));
      request.end();
    }
    return {
      onOpen: (f) => on.open.push(f),
      onError: (f) => on.error.push(f),
      onClose: (f) => on.close.push(f),
      close: () => {
        this.socketsClosed = (this.socketsClosed || 0) + 1;
        (socket || request)?.destroy();
      },
    };
  }

  /** What wx.login answers; replace it for codes that are old, or none. */
  async login() {
    const res = await fetch(`${this.fake}/fake/code`, {
      method: "POST",
      body: JSON.stringify({ openid: this.openid }),
    });
    const { code } = await res.json();
    this.codes.push(code);
    return { code };
  }
}

/** What work of answer() brings where no callback shall come. */
const HANG = Symbol("hang");

/** As wx.uploadFile sends. The result has no header, as on some phones. */
async function upload({ url, filePath, name, formData = {}, header = {} }, contents) {
  const body = new FormData();
  Object.entries(formData).forEach(([key, value]) => body.append(key, value));
  body.append(name, new Blob([Buffer.from(contents, "latin1")]), path.basename(filePath));
  const res = await fetch(url, { method: "POST", body, redirect: "manual", headers: header });
  return { statusCode: res.status, data: await res.text() };
}

/** As wx.downloadFile does: whatever the status, the body goes into a file. */
async function download({ url, header = {} }) {
  const res = await fetch(url, { redirect: "manual", headers: header });
  return { statusCode: res.status, tempFilePath: `wxfile://tmp_${(await res.text()).length}` };
}

/** As wx.request sends. */
async function send({
  url,
  method = "GET",
  data,
  header = {},
  timeout,
  redirect,
  dataType = "json",
}) {
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

module.exports = { MINIPROGRAM, PLATFORMS, Phone };
