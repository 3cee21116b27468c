/*!
 * wxlogind-miniprogram: login and sessions for WeChat mini programs, with a wxlogind server.
 * Licence: Apache-2.0. https://www.apache.org/licenses/LICENSE-2.0
 *
 * Lowest base library: 2.10.0, the first whose wx.request takes `timeout`; all else used here is older. The syntax and the built-in
 * objects are those of ES2015, and wx functions are called with callbacks, because their Promises came with 2.10.2 only.
 *
 * Nothing here writes to the console: the session, the code and the answers are secrets.
 */
"use strict";

/** How often a call that WeChat or the network lost may be sent again: these change nothing more the second time. */
const REPEATABLE = { GET: true, HEAD: true, PUT: true, DELETE: true };

/** A session that ended for these reasons was ended on purpose: logging in by oneself would undo it. */
const ENDED_ON_PURPOSE = { replaced: true, revoked: true };

const BACKOFF_MS = 500;
/** A server that asks for a longer wait than this gets no repeat: the user should hear of it first. */
const LONGEST_WAIT_MS = 30000;

const PROFILE_FIELDS = ["nickName", "avatarUrl", "gender", "province", "city", "country", "language"];

/** What configure() was given, defaults filled in; its `origins` begin with baseUrl's. */
let config = null;

/** The login under way, which every caller shares. */
let loginUnderWay = null;
let userLoginUnderWay = null;

/** Counts what this module wrote to the storage, so that who reads at the same time knows that it read too early. */
let writes = 0;

/** The refusal (an Error) that ended the last session on purpose. Until somebody logs in again, request() rejects with it. */
let endedBy = null;

/* ---- configuration and addresses ---- */

/**
 * The origin of an absolute http(s) URL, or "" for anything that is not plainly one. Stricter than URL parsers, which forgive
 * backslashes, tabs and user:password@: what they might read in another way than this does is no origin at all.
 */
function originOf(url) {
  const parts = /^(https?):\/\/([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?(?=[/?#]|$)/i.exec(url);
  if (!parts) {
    return "";
  }
  const scheme = parts[1].toLowerCase();
  const port = parts[3] === undefined ? (scheme === "https" ? 443 : 80) : Number(parts[3]);
  return port > 65535 ? "" : scheme + "://" + parts[2].toLowerCase() + ":" + port;
}

/**
 * @param {object} options
 * @param {string} options.baseUrl where wxlogind's public side is, as https://login.example.com
 * @param {string[]} [options.origins] other servers that may get the session, as https://api.example.com
 * @param {string} [options.appid] needed where the server serves several mini programs and sees no Referer
 * @param {string} [options.storageKey] where wx.setStorage keeps the session
 * @param {number} [options.timeout] of one call, in milliseconds
 * @param {number} [options.retries] how many times a call that may be repeated is repeated
 */
function configure(options) {
  const wanted = Object.assign({ origins: [], appid: "", storageKey: "third_Session", timeout: 10000, retries: 2 }, options);
  const baseUrl = String(wanted.baseUrl || "").replace(/\/+$/, "");
  if (!originOf(baseUrl) || /[?#]/.test(baseUrl)) {
    throw new Error("configure: baseUrl must be an http(s) URL without user, query and fragment, as https://login.example.com");
  }
  const origins = [baseUrl].concat(wanted.origins).map(function (url, i) {
    const origin = originOf(url);
    if (!origin || (i > 0 && !/^[^/]+\/\/[^/?#]+\/?$/.test(url))) {
      throw new Error("configure: each of origins must be scheme, host and port only, as https://api.example.com");
    }
    return origin;
  });
  config = {
    baseUrl: baseUrl,
    origins: origins,
    appid: wanted.appid,
    storageKey: wanted.storageKey,
    timeout: wanted.timeout,
    retries: wanted.retries,
  };
}

/** The absolute URL of what request() was given; throws where the session must not go. */
function resolveUrl(url) {
  if (typeof url === "string" && url[0] === "/") {
    return config.baseUrl + url;
  }
  if (typeof url !== "string" || config.origins.indexOf(originOf(url)) < 0) {
    throw makeError("origin", "request: the url is neither a path that begins with / nor of baseUrl's origin or one of `origins`");
  }
  return url;
}

/* ---- errors ---- */

function makeError(code, message, more) {
  return Object.assign(new Error(message), { code: code }, more);
}

function platformError(code, failure) {
  return makeError(code, (failure && failure.errMsg) || code);
}

/** A header's value. The case of names differs from platform to platform. */
function header(res, name) {
  const key = Object.keys(res.header || {}).filter(function (k) { return k.toLowerCase() === name; })[0];
  return key === undefined ? "" : String(res.header[key]);
}

/** The body as an object, also where the caller asked wx.request not to parse it. */
function jsonBody(res) {
  let body = res.data;
  if (typeof body === "string") {
    try {
      body = JSON.parse(body);
    } catch (e) {
      body = null;
    }
  }
  return body && typeof body === "object" ? body : {};
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
  const code = refused ? "invalid_session" : typeof body.error === "string" ? body.error : "http_error";
  return makeError(code, typeof body.message === "string" ? body.message : "HTTP status " + res.statusCode, {
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

/* ---- storage: the truth about the session ---- */

function readSession() {
  return new Promise(function (resolve) {
    wx.getStorage({
      key: config.storageKey,
      success: function (res) { resolve(typeof res.data === "string" ? res.data : ""); },
      fail: function () { resolve(""); }, // also what a missing key gives
    });
  });
}

/** @returns {Promise<void>} */
function writeSession(session) {
  return new Promise(function (resolve, reject) {
    wx.setStorage({
      key: config.storageKey,
      data: session,
      success: function () {
        writes++;
        endedBy = null;
        resolve();
      },
      fail: function (failure) { reject(platformError("storage", failure)); },
    });
  });
}

/** Takes `session` out of the storage. Resolves with false where a newer one is there already or on its way: that one stays. */
function forget(session) {
  const before = writes;
  return readSession().then(function (found) {
    if (loginUnderWay || writes !== before || (found && found !== session)) {
      return false;
    }
    return new Promise(function (resolve) {
      wx.removeStorage({
        key: config.storageKey,
        complete: function () {
          writes++;
          resolve(true);
        },
      });
    });
  });
}

/* ---- calls ---- */

/** wx.request as a Promise: resolves with its result for 2xx, rejects for everything else. */
function call(options) {
  return new Promise(function (resolve, reject) {
    function answered(res) {
      if (res.statusCode >= 200 && res.statusCode < 300) {
        resolve(res);
      } else {
        reject(answerError(res));
      }
    }
    // A followed redirect would take the session along, wherever it leads. (Base libraries before 3.2.2 follow all the same.)
    const task = wx.request(Object.assign({ timeout: config.timeout }, options, {
      redirect: "manual",
      success: answered,
      fail: function (failure) { reject(platformError("network", failure)); },
      complete: undefined, // the caller's is for the end, not for each attempt
    }));
    // WeChat documents this as the place that hears of a redirect which was not followed; it does not promise `success`.
    if (task && task.onHeadersReceived) {
      task.onHeadersReceived(function (res) {
        if (res.statusCode >= 300 && res.statusCode < 400) {
          answered(res);
        }
      });
    }
  });
}

/**
 * Sends again, up to `retries` times, what met a 503 or no network: after as long as the server asks, else after twice as long each
 * time, and up to half as long again, so that the phones do not come back all at once.
 */
function callPatiently(options) {
  function attempt(repeats) {
    return call(options).catch(function (error) {
      const ms = error.retryAfterMs === undefined ? BACKOFF_MS * Math.pow(2, repeats) : error.retryAfterMs;
      if ((error.code !== "network" && error.statusCode !== 503) || repeats >= config.retries || ms > LONGEST_WAIT_MS) {
        throw error;
      }
      const jitter = Math.random() * Math.max(ms, BACKOFF_MS) / 2;
      return new Promise(function (resolve) { setTimeout(resolve, ms + jitter); }).then(function () { return attempt(repeats + 1); });
    });
  }
  return attempt(0);
}

function callWithSession(options, session) {
  const headers = {};
  Object.keys(options.header || {}).forEach(function (name) {
    if (name.toLowerCase() !== "authorization") {
      headers[name] = options.header[name];
    }
  });
  headers.Authorization = "Bearer " + session;
  const sent = Object.assign({}, options, { header: headers });
  return REPEATABLE[options.method] ? callPatiently(sent) : call(sent);
}

/* ---- login ---- */

function wxLogin() {
  return new Promise(function (resolve, reject) {
    wx.login({
      timeout: config.timeout,
      success: function (res) {
        if (res.code) {
          resolve(res.code);
        } else {
          reject(platformError("wx_login", res));
        }
      },
      fail: function (failure) { reject(platformError("wx_login", failure)); },
    });
  });
}

/**
 * Ties a repeat of a code to who sent it first. Not a key: it only has to be unknown, for a minute, to somebody who got hold of the
 * code, so Math.random does.
 */
function makeNonce() {
  let nonce = "";
  while (nonce.length < 32) {
    nonce += Math.random().toString(36).slice(2);
  }
  return nonce.slice(0, 32);
}

/** One code's login. All repeats carry the same code and nonce: where only the answer was lost, they get the same session. */
function loginOnce() {
  return wxLogin().then(function (code) {
    const body = { code: code, nonce: makeNonce() };
    if (config.appid) {
      body.appid = config.appid;
    }
    return callPatiently({ url: config.baseUrl + "/v1/login", method: "POST", data: body });
  });
}

function login() {
  if (!loginUnderWay) {
    loginUnderWay = loginOnce()
      .catch(function (error) {
        if (error.code !== "invalid_code") {
          throw error;
        }
        return loginOnce(); // the code was too old, or spent: one fresh code, and no more
      })
      .then(function (res) {
        const answer = jsonBody(res);
        if (typeof answer.third_session !== "string" || !answer.third_session) {
          throw makeError("http_error", "The login's answer holds no third_session: is baseUrl wxlogind's?", { statusCode: res.statusCode });
        }
        return writeSession(answer.third_session).then(function () { return answer; });
      });
    const done = function () { loginUnderWay = null; };
    loginUnderWay.then(done, done);
  }
  return loginUnderWay;
}

/** Resolves when no login is under way, however it ended. */
function loginSettled() {
  return loginUnderWay ? loginUnderWay.catch(function () {}) : Promise.resolve();
}

function loginForSession() {
  return login().then(function (answer) { return answer.third_session; });
}

/**
 * The stored session, or that of a new login where none is stored.
 * @param {string} [used] a session that the server refused: a stored one helps only if it is another
 * @param {Error & {reason?: string}} [refusal] what the server said to it
 */
function getSession(used, refusal) {
  const before = writes;
  return readSession().then(function (found) {
    if (found && found !== used) {
      return found; // of a login that ended while `used` was on its way
    }
    if (loginUnderWay) {
      return loginForSession();
    }
    if (writes !== before) {
      return getSession(used, refusal); // a login ended while we read
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
      endedBy = refusal;
    }
    throw refusal;
  });
}

/* ---- what the mini program calls ---- */

/**
 * Logs in where it has to: no stored session, or wx.checkSession says that WeChat's session_key died.
 * @returns {Promise<{third_session: string, expires_in?: number, new_user?: boolean}>} what is known
 */
function userLogin() {
  if (!userLoginUnderWay) {
    userLoginUnderWay = readSession().then(function (found) {
      if (!found) {
        return login();
      }
      return new Promise(function (resolve) {
        wx.checkSession({
          success: function () { resolve({ third_session: found }); },
          fail: function () { resolve(login()); },
        });
      });
    });
    const done = function () { userLoginUnderWay = null; };
    userLoginUnderWay.then(done, done);
  }
  return userLoginUnderWay;
}

/**
 * Logs in, whatever is stored. All callers share one login.
 * @returns {Promise<{third_session: string, expires_in: number, new_user?: boolean}>}
 */
function onLogin() {
  return login();
}

/**
 * wx.request with the session. Logs in first where there is none, and once more where the server no longer knows it.
 * @param {object} options as wx.request's; `url` may be a path under baseUrl
 * @returns {Promise<object>} wx.request's result, for 2xx
 */
function request(options) {
  const sent = Object.assign({}, options, { url: resolveUrl(options.url), method: String(options.method || "GET").toUpperCase() });
  return getSession().then(function (first) {
    return callWithSession(sent, first).catch(function (refusal) {
      if (!isInvalidSession(refusal)) {
        throw refusal;
      }
      return getSession(first, refusal).then(function (second) {
        return callWithSession(sent, second).catch(function (error) {
          return isInvalidSession(error) ? giveUp(second, error) : Promise.reject(error);
        });
      });
    });
  });
}

function requestBody(options) {
  return request(options).then(function (res) { return res.data; });
}

/** @returns {Promise<object>} the profile that the server keeps of this user */
function getUserInfo() {
  return requestBody({ url: "/v1/user" });
}

/**
 * @param {object} userInfo any of WeChat's userInfo fields: one left out stays as it was, null clears it
 * @returns {Promise<object>} the profile as it then stands
 */
function setUserInfo(userInfo) {
  const profile = {};
  PROFILE_FIELDS.forEach(function (name) {
    if (userInfo[name] !== undefined) {
      profile[name] = userInfo[name];
    }
  });
  return requestBody({ url: "/v1/user", method: "PUT", data: profile });
}

/**
 * @param {object} e the event of <button open-type="getPhoneNumber">
 * @returns {Promise<{phoneNumber: string, purePhoneNumber: string, countryCode: string}>} rejects with code "wx_phone" where the user declined
 */
function getPhoneNumber(e) {
  if (!e.detail.code) {
    return Promise.reject(platformError("wx_phone", e.detail));
  }
  return requestBody({ url: "/v1/user/phone", method: "POST", data: { code: e.detail.code } });
}

/**
 * Asks the server about the stored session. Does not log in; a session that the server refuses is forgotten.
 * @returns {Promise<{appid: string, expires_in: number, created_at: number}>}
 */
function checkLogin() {
  return loginSettled().then(readSession).then(function (session) {
    if (!session) {
      throw endedBy || makeError("invalid_session", "No session is stored.", { reason: "missing" });
    }
    return callWithSession({ url: config.baseUrl + "/v1/session", method: "GET" }, session).then(
      function (res) { return res.data; },
      function (error) { return isInvalidSession(error) ? giveUp(session, error) : Promise.reject(error); }
    );
  });
}

/**
 * Forgets the session, then tells the server.
 * @returns {Promise<{ended: boolean}>} false: the server could not be told, so there the session ends only with time
 */
function logout() {
  return loginSettled().then(readSession).then(function (session) {
    endedBy = null;
    if (!session) {
      return { ended: true };
    }
    return forget(session)
      .then(function () { return callWithSession({ url: config.baseUrl + "/v1/session", method: "DELETE" }, session); })
      .then(function () { return { ended: true }; }, function () { return { ended: false }; });
  });
}

/* ---- {success, fail, complete}, or a Promise ---- */

function hasCallbacks(options) {
  return Boolean(options) && ["success", "fail", "complete"].some(function (name) { return typeof options[name] === "function"; });
}

/**
 * Gives a function that returns a Promise the manners of wx functions. The callbacks are in its first argument or in its last, as in
 * request({url, success}), userLogin({success}) and getPhoneNumber(e, {success}).
 */
function withCallbacks(work) {
  return function (first, last) {
    const promise = new Promise(function (resolve) {
      if (!config) {
        throw makeError("not_configured", "Call configure({baseUrl}) first, in app.js.");
      }
      resolve(work(first));
    });
    const callbacks = hasCallbacks(last) ? last : first;
    if (!hasCallbacks(callbacks)) {
      return promise;
    }
    // Out of the Promise: what a callback throws reaches App.onError, as from any wx function.
    const tell = function (name) {
      return function (result) {
        setTimeout(function () {
          try {
            if (callbacks[name]) {
              callbacks[name](result);
            }
          } finally {
            if (callbacks.complete) {
              callbacks.complete(result);
            }
          }
        }, 0);
      };
    };
    promise.then(tell("success"), tell("fail"));
    return undefined;
  };
}

module.exports = {
  configure: configure,
  userLogin: withCallbacks(userLogin),
  onLogin: withCallbacks(onLogin),
  request: withCallbacks(request),
  getUserInfo: withCallbacks(getUserInfo),
  setUserInfo: withCallbacks(setUserInfo),
  getPhoneNumber: withCallbacks(getPhoneNumber),
  checkLogin: withCallbacks(checkLogin),
  logout: withCallbacks(logout),
};
