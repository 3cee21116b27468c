/*!
 * wxlogind-miniprogram: login and sessions for WeChat mini programs, with a wxlogind server.
 * Licence: Apache-2.0. https://www.apache.org/licenses/LICENSE-2.0
 *
 * This file is the source. common.mjs is the same code as an ES module: `npm run build` makes it.
 *
 * Lowest base library: 2.10.0, the first whose wx.request takes `timeout`. The syntax and the
 * built-in objects are those of ES2015.
 *
 * Nothing here writes to the console: the session, the code and the answers are secrets.
 */
"use strict";

/** Methods that may be sent again after a lost answer: a second time changes nothing more. */
const REPEATABLE = { GET: true, HEAD: true, PUT: true, DELETE: true };

/** Statuses after which a call may be sent again. A login is sent again after more of them. */
const BUSY = { 429: true, 503: true };
const BUSY_LOGIN = { 429: true, 502: true, 503: true, 504: true };

/** Reasons of a session that was ended on purpose: a new login by this module would undo it. */
const ENDED_ON_PURPOSE = { replaced: true, revoked: true, blocked: true };

const BACKOFF_MS = 500;
/** A server that asks for a longer wait than this gets no repeat: the user should know first. */
const LONGEST_WAIT_MS = 30000;
/** We wait a little longer than the `timeout` that the platform was given: its own message is
 * better than ours. */
const GRACE = 1.1;
const LONGEST_TIMEOUT_MS = 600000;

const PROFILE_FIELDS =
  ["nickName", "avatarUrl", "gender", "province", "city", "country", "language"];

/** The code that WeChat's developer tools give where the project has no AppID (touristappid). */
const MOCK_CODE = "the code is a mock one";

/** What configure() was given, with defaults. Its `origins` begin with that of baseUrl. */
let config = null;

/** The login in flight, which every caller shares, and what stops its repeats. */
let loginInFlight = null;
let loginControl = null;
let userLoginInFlight = null;

/** The logout that still removes the stored session, or null. Logins wait for it. */
let leaving = null;

/** Counts logouts. Work that began before a logout must not log in after it. */
let logouts = 0;

/** Counts changes of the stored session. A read that began before a change is repeated. */
let writes = 0;

/** The session that the storage would not take. It is used until the mini program ends. */
let unsaved = "";
/** The session that was last stored, for a storage that takes sessions and cannot be read. */
let lastSaved = "";
/** A session that is over although the storage would not let go of it. */
let buried = "";

/** The Error that every call rejects with until userLogin() or onLogin(): after logout(), or after
 * a session that was ended on purpose. */
let endedBy = null;

/** Since the last login a closeAccount() was sent whose answer was lost. */
let closing = false;

/** Identifies this phone to a fake WeChat, where the storage would not keep it. */
let mockDevice = "";

/* ---- errors ---- */

function makeError(code, message, more) {
  return Object.assign(new Error(message), { code: code }, more);
}

function invalidArgument(message) {
  return makeError("invalid_argument", message);
}

/** What a failed call of the platform becomes. It gives {errMsg, errno?}, an Error or a text. */
function platformError(code, failure) {
  const message = failure && (failure.errMsg || failure.message || failure);
  const more = failure && failure.errno !== undefined ? { errno: failure.errno } : undefined;
  return makeError(code, typeof message === "string" ? message : code, more);
}

function isObject(value) {
  return value !== null && typeof value === "object";
}

/** Header names differ in case from platform to platform. */
function header(res, name) {
  const headers = isObject(res.header) ? res.header : {};
  const key = Object.keys(headers).filter(function (k) { return k.toLowerCase() === name; })[0];
  return key === undefined ? "" : String(headers[key]);
}

/** The body as an object, also where the platform gave it as a text. */
function jsonBody(res) {
  let body = res.data;
  if (typeof body === "string") {
    try {
      body = JSON.parse(body);
    } catch (e) {
      body = null;
    }
  }
  return isObject(body) ? body : {};
}

/** The Retry-After header in milliseconds, or undefined. It is seconds or a date (RFC 9110). */
function retryAfterMs(res) {
  const value = header(res, "retry-after");
  const ms = /^[0-9]+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return isNaN(ms) ? undefined : Math.max(ms, 0);
}

/** What an answer that is not 2xx means. */
function answerError(res) {
  const body = jsonBody(res);
  const challenge = header(res, "www-authenticate");
  // A proxy's forward-auth drops the server's body and keeps this header (RFC 6750).
  const refused = res.statusCode === 401 && /\berror\s*=\s*"?invalid_token\b/i.test(challenge);
  const description = /\berror_description\s*=\s*"([^"]*)"/i.exec(challenge);
  const own = typeof body.error === "string" ? body.error : "http_error";
  const message = typeof body.message === "string" ? body.message : "HTTP status " + res.statusCode;
  return makeError(refused ? "invalid_session" : own, message, {
    statusCode: res.statusCode,
    reason: body.reason || (refused && description ? description[1] : undefined),
    requestId: body.request_id || header(res, "x-request-id") || undefined,
    retryAfterMs: retryAfterMs(res),
    data: res.data,
  });
}

function isInvalidSession(error) {
  return error.statusCode === 401 && error.code === "invalid_session";
}

function isLost(error) {
  return error.code === "network" || error.code === "timeout";
}

/* ---- configuration and addresses ---- */

/**
 * The origin of an absolute http(s) URL, or "" for anything that is not plainly one. Stricter than
 * URL parsers, which forgive backslashes, tabs and user:password@: what they might read in another
 * way than this does is no origin at all.
 */
function originOf(url) {
  const parts =
    /^(https?):\/\/([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?(?=[/?#]|$)/i.exec(url);
  if (!parts) {
    return "";
  }
  const scheme = parts[1].toLowerCase();
  const port = parts[3] === undefined ? (scheme === "https" ? 443 : 80) : Number(parts[3]);
  return port > 65535 ? "" : scheme + "://" + parts[2].toLowerCase() + ":" + port;
}

function isTimeout(ms) {
  return typeof ms === "number" && ms > 0 && ms <= LONGEST_TIMEOUT_MS;
}

function checkOptions(wanted) {
  if (!isTimeout(wanted.timeout)) {
    throw invalidArgument("configure: timeout must be 1 to " + LONGEST_TIMEOUT_MS + " ms");
  }
  if (!(wanted.retries >= 0 && wanted.retries <= 10) || wanted.retries % 1 !== 0) {
    throw invalidArgument("configure: retries must be a whole number from 0 to 10");
  }
  if (typeof wanted.storageKey !== "string" || !wanted.storageKey) {
    throw invalidArgument("configure: storageKey must be a text");
  }
  if (typeof wanted.appid !== "string" || !Array.isArray(wanted.origins)) {
    throw invalidArgument("configure: appid must be a text, origins a list");
  }
  if (wanted.adapter) {
    ["login", "request", "getStorage", "setStorage", "removeStorage"].forEach(function (name) {
      if (typeof wanted.adapter[name] !== "function") {
        throw invalidArgument("configure: the adapter has no function " + name);
      }
    });
  }
}

/**
 * @param {object} options
 * @param {string} options.baseUrl where wxlogind's public side is, as https://login.example.com
 * @param {string[]} [options.origins] other servers that may get the session
 * @param {string} [options.appid] needed where the server serves several apps and sees no Referer
 * @param {string} [options.storageKey] where the platform's storage keeps the session
 * @param {number} [options.timeout] of one call, in milliseconds
 * @param {number} [options.retries] how many times a call that may be repeated is repeated
 * @param {object} [options.adapter] the platform, where it is none of wx, uni and Taro
 */
function configure(options) {
  const wanted = {
    baseUrl: "", origins: [], appid: "", storageKey: "third_Session",
    timeout: 10000, retries: 2, adapter: null,
  };
  Object.keys(Object(options)).forEach(function (name) {
    if (options[name] !== undefined) {
      wanted[name] = options[name];
    }
  });
  checkOptions(wanted);
  const baseUrl = String(wanted.baseUrl).replace(/\/+$/, "");
  if (!originOf(baseUrl) || /[?#]/.test(baseUrl)) {
    throw invalidArgument("configure: baseUrl must be an http(s) URL without user, query and " +
      "fragment, as https://login.example.com");
  }
  const origins = [baseUrl].concat(wanted.origins).map(function (url, i) {
    const origin = originOf(url);
    if (!origin || (i > 0 && !/^[^/]+\/\/[^/?#]+\/?$/.test(url))) {
      throw invalidArgument("configure: each of origins must be scheme, host and port only, " +
        "as https://api.example.com");
    }
    return origin;
  });
  config = Object.assign(wanted, { baseUrl: baseUrl, origins: origins });
}

/** The absolute URL of what a caller gave. Throws where the session must not go. */
function resolveUrl(url) {
  if (typeof url === "string" && url[0] === "/") {
    return config.baseUrl + url;
  }
  if (typeof url !== "string" || config.origins.indexOf(originOf(url)) < 0) {
    throw makeError("origin", "The url must be a path that begins with /, or of the origin of " +
      "baseUrl or one of `origins`");
  }
  return url;
}

/** The same for a web socket: wss://host counts as https://host, ws://host as http://host. */
function resolveSocketUrl(url) {
  const asHttp = typeof url === "string" ? url.replace(/^ws(?=s?:)/i, "http") : url;
  return resolveUrl(asHttp).replace(/^http(s?)/i, function (all, s) {
    return "ws" + s.toLowerCase();
  });
}

/* ---- the platform ---- */

function findPlatform() {
  const found = [
    typeof wx === "undefined" ? null : wx,
    typeof uni === "undefined" ? null : uni,
    typeof Taro === "undefined" ? null : Taro,
  ].filter(function (p) {
    return p && typeof p.request === "function" && typeof p.login === "function";
  });
  return found[0];
}

function platform() {
  const found = config.adapter || findPlatform();
  if (!found) {
    throw makeError("not_configured",
      "There is no wx, uni or Taro here: give configure() an adapter");
  }
  return found;
}

function isThenable(value) {
  return isObject(value) && typeof value.then === "function";
}

/** What a Promise of the platform brought: the result, or [error, result] as in uni-app's Vue 2. */
function settleResult(value, succeed, fail) {
  if (!Array.isArray(value)) {
    succeed(value);
  } else if (value[0] || value.length < 2) {
    fail(value[0]);
  } else {
    succeed(value[1]);
  }
}

/**
 * One call of the platform, as a Promise that always ends: with the result, with an error of `code`
 * where the platform says that it failed or throws, or with `timeout` after `limitMs`. It takes the
 * answer from whichever the platform uses first, callbacks or a Promise.
 * @param {function} [onTask] gets what the platform returned, and what ends the call early
 */
function ask(name, code, options, limitMs, onTask) {
  return new Promise(function (resolve, reject) {
    let task;
    const timer = setTimeout(function () {
      const ms = Math.round(limitMs);
      reject(makeError("timeout", name + " did not call back within " + ms + " ms"));
      abortTask(task);
    }, limitMs);
    function succeed(result) {
      clearTimeout(timer);
      resolve(result);
    }
    function fail(failure) {
      clearTimeout(timer);
      reject(failure && failure.code === "not_configured" ? failure : platformError(code, failure));
    }
    // A socket's success is that it opens, of which its task tells.
    const answered = name === "connectSocket" ? function () {} : succeed;
    try {
      const callbacks = { success: answered, fail: fail, complete: undefined };
      task = platform()[name](Object.assign({}, options, callbacks));
      if (isThenable(task)) {
        task.then(function (value) {
          // An adapter may be an async function that answers by callbacks: then this says nothing.
          if (value !== undefined || name === "setStorage" || name === "removeStorage") {
            settleResult(value, answered, fail);
          }
        }, fail);
      }
      if (onTask) {
        onTask(task, succeed, fail);
      }
    } catch (e) {
      fail(e);
    }
  });
}

function abortTask(task) {
  try {
    if (task && typeof task.abort === "function") {
      task.abort();
    }
  } catch (e) {
    // It is over already.
  }
}

/* ---- what ends a call from outside: abort(), or a logout while a login waits ---- */

function makeControl() {
  /** @type {any} */
  const control = { stopped: null, noRepeats: false, task: null, onStop: [], progress: [] };
  /** What is in flight may end, but there is no further attempt and no wait. */
  control.endRepeats = function () {
    control.noRepeats = true;
    control.onStop.splice(0).forEach(function (tell) { tell(); });
  };
  /** Nothing is sent any more. */
  control.stop = function (error) {
    control.stopped = control.stopped || error;
    control.endRepeats();
  };
  return control;
}

/** Resolves after `ms`, or as soon as no repeat is wanted. */
function pause(ms, control) {
  return new Promise(function (resolve) {
    const wake = function () {
      clearTimeout(timer);
      resolve(null);
    };
    const timer = setTimeout(wake, ms);
    control.onStop.push(wake);
  });
}

/* ---- storage: the truth about the session ---- */

function missingKey(error) {
  return error.code === "storage" && /not (found|exist)|no such/i.test(error.message);
}

/** @returns {Promise<string>} the session, or "" */
function readSession() {
  if (unsaved) {
    return Promise.resolve(unsaved);
  }
  return ask("getStorage", "storage", { key: config.storageKey }, config.timeout).then(
    function (res) { return isObject(res) && typeof res.data === "string" ? res.data : ""; },
    function (error) {
      if (error.code !== "storage") {
        throw error;
      }
      return missingKey(error) ? "" : lastSaved;
    }
  ).then(function (found) { return found === buried ? "" : found; });
}

/** @returns {Promise<Error | null>} what the storage said where it did not take the session */
function writeSession(session) {
  const entry = { key: config.storageKey, data: session };
  function kept(problem) {
    writes++;
    unsaved = problem ? session : "";
    lastSaved = session;
    closing = false;
    if (endedBy && endedBy.code !== "logged_out") {
      endedBy = null;
    }
    return problem;
  }
  return ask("setStorage", "storage", entry, config.timeout)
    .then(function () { return kept(null); }, kept);
}

/** Removes the session from the storage. Where the storage fails, it is not used again either. */
function removeSession(session) {
  function removed() {
    writes++;
    unsaved = lastSaved = "";
  }
  buried = session || buried;
  return ask("removeStorage", "storage", { key: config.storageKey }, config.timeout)
    .then(removed, removed);
}

/** Removes `session` only: resolves with false where a newer one is stored or on its way. */
function forget(session) {
  const before = writes;
  return readSession().then(function (found) {
    if (loginInFlight || writes !== before || (found && found !== session)) {
      return false;
    }
    return removeSession(session).then(function () { return true; });
  });
}

/* ---- calls ---- */

/**
 * One attempt: resolves with the platform's result for 2xx, rejects for everything else.
 * @param {string} name `request`, `uploadFile` or `downloadFile`
 */
function call(name, options, control) {
  if (control.stopped) {
    return Promise.reject(control.stopped);
  }
  const limitMs = (options.timeout || config.timeout) * GRACE;
  // A redirect that is followed takes the session along, wherever it leads. (Base libraries before
  // 3.2.2 follow all the same.) The caller's `complete` is for the end, not for each attempt.
  const sent = Object.assign({ timeout: config.timeout }, options, { redirect: "manual" });
  let headers = {};
  return ask(name, "network", sent, limitMs, function (task, succeed) {
    control.task = task;
    control.progress.forEach(function (listener) { listenTo(task, listener); });
    // WeChat tells here of a redirect that was not followed; it does not promise `success`. Where
    // a file is downloaded this is also the only place that surely has the headers.
    if (task && typeof task.onHeadersReceived === "function") {
      task.onHeadersReceived(function (res) {
        headers = isObject(res) ? res.header : {};
        if (isObject(res) && res.statusCode >= 300 && res.statusCode < 400) {
          succeed(res);
        }
      });
    }
  }).then(function (res) {
    control.task = null;
    const status = isObject(res) ? Number(res.statusCode) : 0;
    if (!(status >= 100)) {
      throw makeError("network", name + ": an answer without a status");
    }
    if (status >= 200 && status < 300) {
      return res;
    }
    const seen = { statusCode: status, header: res.header || headers };
    throw answerError(Object.assign({}, res, seen));
  });
}

function listenTo(task, listener) {
  if (task && typeof task.onProgressUpdate === "function") {
    task.onProgressUpdate(listener);
  }
}

/**
 * Repeats a call, up to `retries` times, where the answer was lost or the server is busy: after as
 * long as the server asks, else after twice as long each time; and up to half as long again, so
 * that phones do not come back all at once.
 * @param {object} busy statuses after which the call is repeated
 * @param {function} [onUnsure] hears of an attempt that may have worked although it failed
 */
function callPatiently(name, options, control, busy, onUnsure) {
  function attempt(repeats) {
    return call(name, options, control).catch(function (error) {
      const unsure = isLost(error) || error.statusCode >= 500;
      if (unsure && onUnsure) {
        onUnsure();
      }
      const asked = error.retryAfterMs;
      const ms = asked === undefined ? BACKOFF_MS * Math.pow(2, repeats) : asked;
      const helps = isLost(error) || (busy[error.statusCode] && error.code !== "wechat_config");
      if (!helps || repeats >= config.retries || ms > LONGEST_WAIT_MS || control.noRepeats) {
        throw error;
      }
      const jitter = Math.random() * Math.max(ms, BACKOFF_MS) / 2;
      return pause(ms + jitter, control).then(function () {
        return control.noRepeats ? Promise.reject(error) : attempt(repeats + 1);
      });
    });
  }
  return attempt(0);
}

function withAuthorization(options, session) {
  const headers = {};
  Object.keys(options.header || {}).forEach(function (name) {
    if (name.toLowerCase() !== "authorization") {
      headers[name] = options.header[name];
    }
  });
  headers.Authorization = "Bearer " + session;
  return Object.assign({}, options, { header: headers });
}

/** A call with a session. `options.method` says whether it may be repeated. */
function callWithSession(name, options, session, control, onUnsure) {
  const sent = withAuthorization(options, session);
  return REPEATABLE[options.method]
    ? callPatiently(name, sent, control, BUSY, onUnsure)
    : call(name, sent, control);
}

/* ---- login ---- */

function randomText() {
  let text = "";
  while (text.length < 32) {
    text += Math.random().toString(36).slice(2);
  }
  return text.slice(0, 32);
}

/**
 * The developer tools give every phone the same code where the project has no AppID. A fake WeChat
 * tells phones apart by what is added here: who it is, and ~ which login of theirs. WeChat itself
 * refuses the code, with or without it.
 */
function mockCode() {
  const key = config.storageKey + "_mock_device";
  return ask("getStorage", "storage", { key: key }, config.timeout).then(
    function (res) { return isObject(res) && typeof res.data === "string" ? res.data : ""; },
    function () { return mockDevice; }
  ).then(function (device) {
    mockDevice = device || mockDevice || randomText().slice(0, 16);
    const code = MOCK_CODE + " " + mockDevice + "~" + randomText().slice(0, 16);
    const entry = { key: key, data: mockDevice };
    const give = function () { return code; };
    return device ? code : ask("setStorage", "storage", entry, config.timeout).then(give, give);
  });
}

function platformLogin() {
  return ask("login", "wx_login", { timeout: config.timeout }, config.timeout * GRACE)
    .then(function (res) {
      if (!isObject(res) || typeof res.code !== "string" || !res.code) {
        throw platformError("wx_login", res);
      }
      return res.code === MOCK_CODE ? mockCode() : res.code;
    });
}

/**
 * The login of one code. All repeats carry the same code and nonce: where only the answer was lost,
 * they get the same session. The nonce is no key. It only has to be unknown, for a minute, to
 * somebody who got hold of the code, so Math.random does.
 */
function loginOnce(control) {
  return platformLogin().then(function (code) {
    const body = { code: code, nonce: randomText() };
    if (config.appid) {
      body.appid = config.appid;
    }
    const options = { url: config.baseUrl + "/v1/login", method: "POST", data: body };
    return callPatiently("request", options, control, BUSY_LOGIN);
  });
}

function loginAndKeep(control) {
  return loginOnce(control)
    .catch(function (error) {
      if (error.code !== "invalid_code" || control.noRepeats) {
        throw error;
      }
      return loginOnce(control); // the code was too old, or spent: one fresh code, and no more
    })
    .then(function (res) {
      const answer = jsonBody(res);
      if (typeof answer.third_session !== "string" || !answer.third_session) {
        throw makeError("http_error",
          "The login's answer holds no third_session: is baseUrl wxlogind's?",
          { statusCode: res.statusCode });
      }
      return writeSession(answer.third_session).then(function (problem) {
        return { answer: answer, problem: problem };
      });
    });
}

/** The login in flight, or a new one. Brings the server's answer, and the storage's problem. */
function login() {
  if (!loginInFlight) {
    const control = makeControl();
    loginControl = control;
    loginInFlight = loginAndKeep(control);
    const done = function () { loginInFlight = loginControl = null; };
    loginInFlight.then(done, done);
  }
  return loginInFlight;
}

/** Resolves when no login is in flight, however it ended. */
function loginSettled() {
  return loginInFlight ? loginInFlight.catch(function () {}) : Promise.resolve();
}

/** For callers that asked for a login: they are told where the session could not be stored. */
function loginAndTell() {
  return login().then(function (result) {
    if (result.problem) {
      throw result.problem;
    }
    return result.answer;
  });
}

function loginForSession() {
  return login().then(function (result) { return result.answer.third_session; });
}

function refuseAfterLogout() {
  if (endedBy && endedBy.code === "logged_out") {
    throw endedBy;
  }
}

/**
 * The stored session, or that of a new login where none is stored.
 * @param {string} [used] a session that the server refused: a stored one helps only if it differs
 * @param {Error & {reason?: string}} [refusal] what the server said to it
 */
function sessionFor(used, refusal) {
  const before = writes;
  return readSession().then(function (found) {
    refuseAfterLogout();
    if (found && found !== used) {
      return found; // of a login that ended while `used` was on its way
    }
    if (loginInFlight) {
      return loginForSession();
    }
    if (writes !== before) {
      return sessionFor(used, refusal); // a login ended while we read
    }
    if (refusal && ENDED_ON_PURPOSE[refusal.reason]) {
      return giveUp(used, refusal);
    }
    if (!found && endedBy) {
      throw endedBy;
    }
    return loginForSession();
  });
}

/** The session is dead and no login shall follow: forgets it and rejects. */
function giveUp(session, refusal) {
  return forget(session).then(function (forgotten) {
    if (forgotten && ENDED_ON_PURPOSE[refusal.reason]) {
      endedBy = endedBy || refusal;
    }
    throw refusal;
  }, function () { throw refusal; });
}

/** Does `work(session)`, and once more with a new session where the server refuses the first. */
function withSession(work) {
  return sessionFor().then(function (first) {
    return work(first).catch(function (refusal) {
      if (!isInvalidSession(refusal)) {
        throw refusal;
      }
      return sessionFor(first, refusal).then(function (second) {
        return work(second).catch(function (error) {
          return isInvalidSession(error) ? giveUp(second, error) : Promise.reject(error);
        });
      });
    });
  });
}

/* ---- what the mini program calls ---- */

/** Gives a function that passes a value on, unless logout() is called meanwhile: then it throws. */
function unlessLoggedOut() {
  const before = logouts;
  return function (value) {
    if (logouts !== before) {
      throw makeError("logged_out", "logout() was called meanwhile.");
    }
    return value;
  };
}

/** Somebody asks for a login: what kept others from it ends, once a logout has done its work. */
function afterLogout(work) {
  if (leaving) {
    return leaving.then(unlessLoggedOut()).then(function () { return afterLogout(work); });
  }
  endedBy = null;
  return work();
}

/** Whether the platform says that the session_key lives. One that cannot tell counts as yes. */
function sessionKeyLives() {
  if (typeof platform().checkSession !== "function") {
    return Promise.resolve(true);
  }
  return ask("checkSession", "session_key", {}, config.timeout).then(
    function () { return true; },
    function (error) { return error.code === "session_key" ? false : Promise.reject(error); }
  );
}

function startUserLogin() {
  const check = unlessLoggedOut();
  return readSession().then(check).then(function (found) {
    return found && sessionKeyLives().then(check).then(function (lives) {
      return lives ? found : "";
    });
  }).then(function (found) { return found ? { third_session: found } : loginAndTell(); });
}

/**
 * Logs in where it has to: no stored session, or wx.checkSession says that the session_key died.
 * @returns {Promise<{third_session: string, expires_in?: number, new_user?: boolean}>} what is
 *   known
 */
function userLogin() {
  if (!userLoginInFlight) {
    const mine = afterLogout(startUserLogin);
    userLoginInFlight = mine;
    const done = function () {
      if (userLoginInFlight === mine) {
        userLoginInFlight = null;
      }
    };
    mine.then(done, done);
  }
  return userLoginInFlight;
}

/**
 * Logs in, whatever is stored. All callers share one login.
 * @returns {Promise<{third_session: string, expires_in: number, new_user?: boolean}>}
 */
function onLogin() {
  return afterLogout(loginAndTell);
}

/** Checks what request, uploadFile and downloadFile have in common. */
function checkCall(name, options) {
  if (!isObject(options)) {
    throw invalidArgument(name + ": the first argument must be an object with a url");
  }
  if (options.header !== undefined && !isObject(options.header)) {
    throw invalidArgument(name + ": header must be an object");
  }
  if (options.timeout !== undefined && !isTimeout(options.timeout)) {
    throw invalidArgument(name + ": timeout must be 1 to " + LONGEST_TIMEOUT_MS + " ms");
  }
}

/**
 * wx.request with the session. Logs in first where there is none, and once more where the server
 * no longer knows it.
 * @param {object} options as wx.request's; `url` may be a path under baseUrl
 * @param {object} control
 * @param {function} [onUnsure] hears of an attempt that may have worked although it failed
 * @returns {Promise<object>} wx.request's result, for 2xx
 */
function request(options, control, onUnsure) {
  checkCall("request", options);
  const method = options.method === undefined ? "GET" : options.method;
  if (typeof method !== "string") {
    throw invalidArgument("request: method must be a text");
  }
  const more = { url: resolveUrl(options.url), method: method.toUpperCase() };
  const sent = Object.assign({}, options, more);
  return withSession(function (session) {
    return callWithSession("request", sent, session, control, onUnsure);
  });
}

/**
 * wx.uploadFile with the session. It is not repeated, but for a session that the server refuses.
 * @param {object} options as wx.uploadFile's; `url` may be a path under baseUrl
 * @returns {Promise<object>} wx.uploadFile's result, for 2xx
 */
function uploadFile(options, control) {
  checkCall("uploadFile", options);
  if (typeof options.filePath !== "string" && !options.file && !options.files) {
    throw invalidArgument("uploadFile: filePath is missing");
  }
  const sent = Object.assign({ name: "file" }, options, { url: resolveUrl(options.url) });
  return withSession(function (session) {
    return call("uploadFile", withAuthorization(sent, session), control);
  });
}

/**
 * wx.downloadFile with the session.
 * @param {object} options as wx.downloadFile's; `url` may be a path under baseUrl
 * @returns {Promise<object>} wx.downloadFile's result, for 2xx
 */
function downloadFile(options, control) {
  checkCall("downloadFile", options);
  const sent = Object.assign({}, options, { url: resolveUrl(options.url) });
  return withSession(function (session) {
    const authorized = withAuthorization(sent, session);
    return callPatiently("downloadFile", authorized, control, BUSY).catch(function (error) {
      // The body is in a file, and some platforms tell no headers: wxlogind says what it was.
      if (error.statusCode !== 401 || error.code !== "http_error") {
        throw error;
      }
      return askSession(session, control).then(function () { throw error; });
    });
  });
}

function askSession(session, control) {
  const options = { url: config.baseUrl + "/v1/session", method: "GET" };
  return callWithSession("request", options, session, control);
}

/** Resolves with the open socket; rejects where it does not open. */
function openSocket(options, control) {
  let socket = null;
  control.onStop.push(function () { closeSocket(socket); });
  return ask("connectSocket", "network", options, options.timeout || config.timeout,
    function (task, succeed, fail) {
      const withTask = function (found) {
        socket = found;
        if (control.stopped) {
          closeSocket(socket);
        }
        socket.onOpen(function () { succeed(socket); });
        socket.onError(fail);
        socket.onClose(fail);
      };
      if (isThenable(task)) {
        task.then(function (value) { settleResult(value, withTask, fail); }).catch(fail);
      } else {
        withTask(task);
      }
    }
  ).catch(function (error) {
    closeSocket(socket);
    throw error;
  });
}

function closeSocket(socket) {
  try {
    if (socket) {
      socket.close({});
    }
  } catch (e) {
    // It is closed already.
  }
}

/**
 * wx.connectSocket with the session.
 * @param {object} options as wx.connectSocket's; `url` may be a path under baseUrl
 * @returns {Promise<object>} the SocketTask, once it is open. A refused handshake rejects with
 *   `network`: the platform does not tell the status
 */
function connectSocket(options, control) {
  checkCall("connectSocket", options);
  const sent = Object.assign({}, options, { url: resolveSocketUrl(options.url) });
  return sessionFor().then(function (session) {
    if (control.stopped) {
      throw control.stopped;
    }
    return openSocket(withAuthorization(sent, session), control);
  });
}

/**
 * The session, logging in where there is none.
 * @returns {Promise<string>}
 */
function getSession() {
  return sessionFor();
}

/**
 * The same as a header, for a request function of one's own.
 * @returns {Promise<{Authorization: string}>}
 */
function authHeader() {
  return sessionFor().then(function (session) { return { Authorization: "Bearer " + session }; });
}

function requestBody(options, control) {
  return request(options, control).then(function (res) { return res.data; });
}

/** @returns {Promise<object>} the profile that the server keeps of this user */
function getUserInfo(options, control) {
  return requestBody({ url: "/v1/user" }, control);
}

/** Temporary files have names such as http://tmp/x.jpeg and wxfile://x, on one phone only. */
function isPublicUrl(url) {
  return url === null || url === "" || /^(https:\/\/[^/?#]|http:\/\/[^/?#]*[.:])/i.test(url);
}

/**
 * @param {object} userInfo any of WeChat's userInfo fields: one left out stays, null clears it
 * @returns {Promise<object>} the profile as it then stands
 */
function setUserInfo(userInfo, control) {
  if (!isObject(userInfo)) {
    throw invalidArgument("setUserInfo: the first argument must be an object");
  }
  const profile = {};
  PROFILE_FIELDS.forEach(function (name) {
    if (userInfo[name] !== undefined) {
      profile[name] = userInfo[name];
    }
  });
  if (profile.avatarUrl !== undefined && !isPublicUrl(profile.avatarUrl)) {
    throw invalidArgument("setUserInfo: avatarUrl is a file on this phone. Send it to a server " +
      "of yours with uploadFile, and give the https address that it got");
  }
  return requestBody({ url: "/v1/user", method: "PUT", data: profile }, control);
}

/**
 * @param {object} e the event of a button with open-type getPhoneNumber or getRealtimePhoneNumber
 * @returns {Promise<{phoneNumber: string, purePhoneNumber: string, countryCode: string}>} rejects
 *   with code "wx_phone" where the user declined
 */
function getPhoneNumber(e, control) {
  if (!isObject(e) || !isObject(e.detail)) {
    throw invalidArgument("getPhoneNumber: the first argument must be the button's event");
  }
  if (typeof e.detail.code !== "string" || !e.detail.code) {
    throw platformError("wx_phone", e.detail);
  }
  const data = { code: e.detail.code };
  return requestBody({ url: "/v1/user/phone", method: "POST", data: data }, control);
}

/**
 * Has the server open or check what WeChat gave under the session_key.
 * @param {object} sealed {encryptedData, iv} and/or {rawData, signature}
 * @returns {Promise<{data: object}>}
 */
function openData(sealed, control) {
  const given = isObject(sealed) ? sealed : {};
  const body = {};
  [["encryptedData", "iv"], ["rawData", "signature"]].forEach(function (pair) {
    if (typeof given[pair[0]] === "string" && typeof given[pair[1]] === "string") {
      body[pair[0]] = given[pair[0]];
      body[pair[1]] = given[pair[1]];
    }
  });
  if (!body.iv && !body.signature) {
    throw invalidArgument("openData: give encryptedData and iv, or rawData and signature");
  }
  return requestBody({ url: "/v1/open-data", method: "POST", data: body }, control);
}

/**
 * Asks the server about the stored session. Does not log in. A session that the server refuses is
 * forgotten.
 * @returns {Promise<{appid: string, expires_in: number, created_at: number}>}
 */
function checkLogin(options, control) {
  return loginSettled().then(readSession).then(function (session) {
    refuseAfterLogout();
    if (!session) {
      throw endedBy || makeError("invalid_session", "No session is stored.", { reason: "missing" });
    }
    return askSession(session, control).then(
      function (res) { return res.data; },
      function (error) {
        return isInvalidSession(error) ? giveUp(session, error) : Promise.reject(error);
      }
    );
  });
}

/** Ends the login on this phone. @returns {Promise<string>} the session that was stored */
function leave() {
  logouts++;
  endedBy = makeError("logged_out", "Logged out. userLogin() logs in again.");
  userLoginInFlight = null;
  if (loginControl) {
    loginControl.endRepeats();
  }
  const mine = loginSettled().then(readSession).catch(function () { return lastSaved; })
    .then(function (found) {
      return removeSession(found).then(function () {
        if (leaving === mine) {
          leaving = null;
        }
        return found;
      });
    });
  leaving = mine;
  return mine;
}

/**
 * Forgets the session, then tells the server. Nobody is logged in again until userLogin or onLogin.
 * @returns {Promise<{ended: boolean}>} false: the server could not be told, so there the session
 *   ends only with time
 */
function logout(options, control) {
  return leave().then(function (session) {
    if (!session) {
      return { ended: true };
    }
    const sent = { url: config.baseUrl + "/v1/session", method: "DELETE" };
    return callWithSession("request", sent, session, control).then(
      function () { return { ended: true }; },
      function () { return { ended: false }; }
    );
  });
}

/**
 * The user closes the account: the server erases the user, and then this is as after logout().
 * @returns {Promise<{closed: boolean}>}
 */
function closeAccount(options, control) {
  const onUnsure = function () { closing = true; };
  return request({ url: "/v1/user", method: "DELETE" }, control, onUnsure).catch(function (error) {
    if (!closing || !isInvalidSession(error) || error.reason !== "revoked") {
      throw error;
    }
    return null; // an earlier attempt did it, and its answer was lost
  }).then(leave).then(function () { return { closed: true }; });
}

/* ---- {success, fail, complete}, or a Promise ---- */

function hasCallbacks(options) {
  return Boolean(options) && ["success", "fail", "complete"].some(function (name) {
    return typeof options[name] === "function";
  });
}

/** What a callback throws reaches App.onError, as from any wx function. */
function tell(callback, result) {
  try {
    if (typeof callback === "function") {
      callback(result);
    }
  } catch (e) {
    setTimeout(function () { throw e; }, 0);
  }
}

/** Starts `work`, in a Promise that abort() can end. */
function start(work, first, control) {
  return new Promise(function (resolve, reject) {
    if (!config) {
      throw makeError("not_configured", "Call configure({baseUrl}) first, in app.js.");
    }
    control.onStop.push(function () { reject(control.stopped); });
    Promise.resolve(work(first, control)).then(resolve, reject);
  });
}

/** What can be done to a call that runs, as to a task of the platform. */
function handles(control) {
  return {
    abort: function () {
      control.stop(makeError("aborted", "abort() was called."));
      abortTask(control.task);
    },
    onProgressUpdate: function (listener) {
      control.progress.push(listener);
      listenTo(control.task, listener);
    },
  };
}

/**
 * Gives a function that returns a Promise the manners of wx functions. The callbacks are in its
 * first argument or in its last, as in request({url, success}), userLogin({success}) and
 * getPhoneNumber(e, {success}).
 * @param {function} work gets the first argument and a control
 * @param {boolean} [isTask] whether the platform's function of this name returns a task
 */
function withCallbacks(work, isTask) {
  return function (first, last) {
    const control = makeControl();
    const promise = start(work, first, control);
    const callbacks = hasCallbacks(last) ? last : first;
    if (!hasCallbacks(callbacks)) {
      return isTask ? Object.assign(promise, handles(control)) : promise;
    }
    const end = function (name) {
      return function (result) {
        tell(callbacks[name], result);
        tell(callbacks.complete, result);
      };
    };
    promise.then(end("success"), end("fail"));
    return isTask ? handles(control) : undefined;
  };
}

module.exports = {
  configure: configure,
  userLogin: withCallbacks(userLogin),
  onLogin: withCallbacks(onLogin),
  request: withCallbacks(request, true),
  uploadFile: withCallbacks(uploadFile, true),
  downloadFile: withCallbacks(downloadFile, true),
  connectSocket: withCallbacks(connectSocket, true),
  getSession: withCallbacks(getSession),
  authHeader: withCallbacks(authHeader),
  getUserInfo: withCallbacks(getUserInfo),
  setUserInfo: withCallbacks(setUserInfo),
  getPhoneNumber: withCallbacks(getPhoneNumber),
  openData: withCallbacks(openData),
  checkLogin: withCallbacks(checkLogin),
  logout: withCallbacks(logout),
  closeAccount: withCallbacks(closeAccount),
};
