/** request(): calls with the session, and sessions that die. */
"use strict";
const assert = require("node:assert/strict");
const { after, before, test } = require("node:test");
const { OLD, inTurn, ok, phones } = require("./meets.js");
const { Phone } = require("./phone.js");
const { Stack, poll, startBackend } = require("./stack.js");

let stack;
before(async () => {
  stack = await Stack.start({ session: { max_per_user: 1 } });
});
after(() => stack.stop());

const { newPhone, phoneThatMeets } = phones(() => stack);
const refusal = (reason) => ({
  statusCode: 401,
  header: {},
  data: { error: "invalid_session", reason },
});

test("a call travels as wx.request's, with the session and nothing else changed", async () => {
  const phone = phoneThatMeets((options) => ok(options));
  const res = await phone.common.request({
    url: "/orders?page=2",
    method: "post",
    data: { a: 1 },
    header: { "X-Mine": "1", authorization: "Basic of the caller" },
    dataType: "text",
    timeout: 1234,
  });
  const { url, method, data, header, dataType, timeout, redirect } = res.data;
  assert.deepEqual(
    { url, method, data, header, dataType, timeout, redirect },
    {
      url: `${stack.url}/orders?page=2`,
      method: "POST",
      data: { a: 1 },
      header: { "X-Mine": "1", Authorization: `Bearer ${OLD}` },
      dataType: "text",
      timeout: 1234,
      redirect: "manual",
    },
  );
});

test("a path in baseUrl stays in front", async () => {
  const phone = phoneThatMeets((options) => ok(options.url), { baseUrl: "https://x.example/wx/" });
  assert.equal(
    (await phone.common.request({ url: "/v1/session" })).data,
    "https://x.example/wx/v1/session",
  );
});

test("a session that the server does not know: one new login, one repeat", async () => {
  for (const dead of [OLD, "not a session"]) {
    const phone = newPhone();
    phone.session = dead;
    const res = await phone.common.request({ url: "/v1/session" });
    assert.equal(res.statusCode, 200);
    assert.equal(phone.calls.login, 1);
    assert.notEqual(phone.session, dead);
  }
});

test("50 calls that all meet a 401 make one new login, and all succeed", async () => {
  const phone = newPhone();
  phone.session = OLD;
  const results = await Promise.all(
    Array.from({ length: 50 }, () => phone.common.request({ url: "/v1/session" })),
  );
  assert.ok(results.every((res) => res.statusCode === 200));
  assert.equal(phone.calls.login, 1);
  assert.equal(phone.logins.length, 1);
});

test("a 401 that comes after a new login is repeated with its session", async () => {
  const phone = newPhone();
  phone.session = OLD;
  const held = [];
  phone.transport = async (options, send) => {
    const res = await send(options);
    if (options.url.endsWith("?late")) {
      await new Promise((resolve) => held.push(resolve));
    }
    return res;
  };
  const late = Array.from({ length: 10 }, () => phone.common.request({ url: "/v1/session?late" }));
  await phone.common.request({ url: "/v1/session" });
  assert.equal(phone.calls.login, 1);
  phone.transport = (options, send) => send(options);
  held.forEach((letGo) => letGo());
  assert.ok((await Promise.all(late)).every((res) => res.statusCode === 200));
  assert.equal(phone.calls.login, 1);
});

test("a second copy of common.js on the same phone uses the login of the first", async () => {
  const phone = newPhone();
  phone.session = OLD;
  const second = phone.load("common/common.js");
  phone.configure(second, { baseUrl: stack.url });
  let letGo;
  phone.transport = async (options, send) => {
    const res = await send(options);
    if (options.url.endsWith("?late")) {
      await new Promise((resolve) => {
        letGo = resolve;
      });
    }
    return res;
  };
  const late = second.request({ url: "/v1/session?late" });
  await phone.common.request({ url: "/v1/session" });
  phone.transport = (options, send) => send(options);
  letGo();
  assert.equal((await late).statusCode, 200);
  assert.equal(phone.calls.login, 1);
});

test("a server that refuses new sessions too: one login, two calls, then rejects", async () => {
  const phone = phoneThatMeets(() => refusal("unknown"));
  await assert.rejects(phone.common.request({ url: "/x" }), {
    code: "invalid_session",
    reason: "unknown",
    statusCode: 401,
  });
  assert.equal(phone.calls.login, 1);
  assert.equal(phone.requests.length - phone.logins.length, 2);
});

test("a new login that fails is what the caller hears; the stored session stays", async () => {
  const phone = phoneThatMeets(() => refusal("unknown"));
  phone.login = () => {
    throw new Error("no");
  };
  await assert.rejects(phone.common.request({ url: "/x" }), { code: "wx_login" });
  assert.equal(phone.session, OLD);
});

test("a 401 that is not about the session is the caller's", async () => {
  for (const answer of [
    { statusCode: 401, header: {}, data: { error: "password_wrong", message: "No." } },
    { statusCode: 401, header: { "WWW-Authenticate": 'Bearer realm="x"' }, data: "" },
    { statusCode: 403, header: {}, data: { error: "invalid_session" } },
  ]) {
    const phone = phoneThatMeets(() => answer);
    await assert.rejects(phone.common.request({ url: "/x" }), {
      statusCode: answer.statusCode,
      code: answer.data.error || "http_error",
    });
    assert.equal(phone.calls.login, 0);
    assert.equal(phone.session, OLD);
  }
});

test("a proxy's 401 without a body is known by WWW-Authenticate, in any case", async () => {
  for (const name of ["WWW-Authenticate", "www-authenticate", "Www-Authenticate"]) {
    const phone = phoneThatMeets(
      inTurn(
        {
          statusCode: 401,
          header: { [name]: 'Bearer error="invalid_token", error_description="expired"' },
          data: "",
        },
        ok(),
      ),
    );
    await phone.common.request({ url: "/x" });
    assert.equal(phone.calls.login, 1);
  }
  const phone = phoneThatMeets(() => ({
    statusCode: 401,
    header: { "www-authenticate": 'Bearer error="invalid_token", error_description="revoked"' },
    data: "<html>",
  }));
  await assert.rejects(phone.common.request({ url: "/x" }), {
    code: "invalid_session",
    reason: "revoked",
  });
  assert.equal(phone.session, undefined);
});

test("the body is read also where the caller asked for text", async () => {
  const phone = phoneThatMeets(
    inTurn(
      { statusCode: 401, header: {}, data: '{"error":"invalid_session","reason":"expired"}' },
      ok("fine"),
    ),
  );
  assert.equal((await phone.common.request({ url: "/x", dataType: "text" })).data, "fine");
  assert.equal(phone.calls.login, 1);
});

test("a backend on another origin, behind forward-auth that drops the body", async () => {
  const backend = await startBackend(async ({ headers }) => {
    const auth = await fetch(`${stack.internal}/internal/auth`, {
      headers: { authorization: headers.authorization },
    });
    return auth.status === 200
      ? {
          headers: { "content-type": "application/json" },
          body: { openid: auth.headers.get("x-wx-openid") },
        }
      : {
          status: auth.status,
          headers: { "www-authenticate": auth.headers.get("www-authenticate") },
          body: "<html>401</html>",
        };
  });
  try {
    const phone = newPhone({ origins: [backend.url] });
    phone.session = OLD;
    const res = await phone.common.request({ url: `${backend.url}/orders` });
    assert.match(res.data.openid, /^o/);
    assert.equal(phone.calls.login, 1);
    assert.equal(backend.seen.length, 2);
  } finally {
    backend.stop();
  }
});

test("one device: the replaced phone is told and does not log the other out", async () => {
  const { openid } = await stack.askFake("POST", "/fake/code", {});
  const [one, two] = [newPhone({ openid }), newPhone({ openid })];
  await one.common.userLogin();
  await two.common.userLogin();
  await assert.rejects(one.common.request({ url: "/v1/session" }), {
    code: "invalid_session",
    reason: "replaced",
  });
  assert.equal(one.session, undefined);
  assert.equal(one.calls.login, 1);
  assert.equal((await two.common.request({ url: "/v1/session" })).statusCode, 200);
  assert.equal(two.calls.login, 1);
  // Calls that the app makes by itself do not log in behind the user's back; the user does, with
  // userLogin.
  const calls = one.requests.length;
  await assert.rejects(one.common.request({ url: "/v1/session" }), {
    code: "invalid_session",
    reason: "replaced",
  });
  await assert.rejects(one.common.checkLogin(), { reason: "replaced" });
  assert.equal(one.requests.length, calls);
  await one.common.userLogin();
  assert.equal((await one.common.request({ url: "/v1/session" })).statusCode, 200);
  assert.equal(one.calls.login, 2);
});

test("50 calls with a revoked session: all reject, nobody logs in", async () => {
  const phone = phoneThatMeets(() => refusal("revoked"));
  const results = await Promise.allSettled(
    Array.from({ length: 50 }, () => phone.common.request({ url: "/x" })),
  );
  assert.ok(
    results.every((r) => r.reason.code === "invalid_session" && r.reason.reason === "revoked"),
  );
  assert.equal(phone.calls.login, 0);
  assert.equal(phone.session, undefined);
});

test("a session that this phone replaced during the call: repeated with the new one", async () => {
  const { openid } = await stack.askFake("POST", "/fake/code", {});
  const phone = newPhone({ openid });
  await phone.common.userLogin();
  let arrived;
  phone.transport = async (options, send) => {
    if (options.url.endsWith("?slow") && !arrived) {
      arrived = true;
      await phone.common.onLogin();
    }
    return send(options);
  };
  assert.equal((await phone.common.request({ url: "/v1/session?slow" })).statusCode, 200);
  assert.equal(phone.calls.login, 2);
});

test("a session refused during a login: the call waits for that login", async () => {
  let letGo;
  const phone = phoneThatMeets((options) =>
    options.header.Authorization.endsWith(OLD) ? refusal("replaced") : ok("fine"),
  );
  const login = phone.login.bind(phone);
  phone.login = () =>
    new Promise((resolve) => {
      letGo = () => resolve(login());
    });
  const loggedIn = phone.common.onLogin();
  const call = phone.common.request({ url: "/x" });
  await poll(() => phone.requests.length === 1 && letGo, "the call is out, the login under way");
  await new Promise((resolve) =>
    phone.wx.getStorage({ key: "none", complete: () => setImmediate(resolve) }),
  );
  letGo();
  assert.equal((await call).data, "fine");
  await loggedIn;
  assert.equal(phone.calls.login, 1);
});

test("a session that was ended on purpose is history after a login", async () => {
  const phone = phoneThatMeets(inTurn(refusal("revoked"), ok("fine")));
  await assert.rejects(phone.common.request({ url: "/x" }), { reason: "revoked" });
  await phone.common.onLogin();
  phone.store.clear(); // as when the system cleans up
  assert.equal((await phone.common.request({ url: "/x" })).data, "fine");
});

test("a user who was blocked stays out, as one whose session was revoked", async () => {
  const phone = phoneThatMeets(inTurn(refusal("blocked"), ok("fine")));
  await assert.rejects(phone.common.request({ url: "/x" }), { reason: "blocked" });
  await assert.rejects(phone.common.request({ url: "/x" }), { reason: "blocked" });
  assert.equal(phone.session, undefined);
  assert.equal(phone.calls.login, 0);
});

test("the new session revoked at once: rejects and is forgotten", async () => {
  const phone = phoneThatMeets(inTurn(refusal("unknown"), refusal("revoked")));
  await assert.rejects(phone.common.request({ url: "/x" }), { reason: "revoked" });
  assert.equal(phone.session, undefined);
  assert.equal(phone.calls.login, 1);
});

test("a late refusal of an old session leaves the newer one alone", async () => {
  const phone = phoneThatMeets(async (options, send) => {
    await phone.common.onLogin();
    return refusal("revoked");
  });
  await assert.rejects(phone.common.checkLogin(), { reason: "revoked" });
  assert.match(phone.session, /^[A-Za-z0-9_-]{43}$/);
  assert.notEqual(phone.session, OLD);
  phone.transport = (options, send) => send(options);
  assert.equal((await phone.common.request({ url: "/v1/session" })).statusCode, 200);
  assert.equal(phone.calls.login, 1);
  phone.store.clear();
  assert.equal(
    (await phone.common.request({ url: "/v1/session" })).statusCode,
    200,
    "and ends nothing for the calls that follow",
  );
});

for (const back of ["userLogin", "onLogin"])
  test(`after logout nobody is logged in again, until ${back}`, async () => {
    const phone = newPhone();
    await phone.common.userLogin();
    await phone.common.logout();
    const calls = phone.requests.length;
    for (const name of ["request", "getUserInfo", "checkLogin", "getSession", "authHeader"]) {
      await assert.rejects(
        phone.common[name]({ url: "/v1/session" }),
        { code: "logged_out" },
        name,
      );
    }
    assert.deepEqual(await phone.common.logout(), { ended: true });
    assert.equal(phone.requests.length, calls);
    phone.session = OLD; // stored by somebody else: another copy of common.js, say
    await assert.rejects(phone.common.request({ url: "/x" }), { code: "logged_out" });
    phone.store.clear();
    assert.equal(phone.calls.login, 1);
    await phone.common[back]();
    assert.equal((await phone.common.request({ url: "/v1/session" })).statusCode, 200);
    assert.equal(phone.calls.login, 2);
  });

test("a call that is out when the user logs out does not log in again", async () => {
  let letGo;
  const phone = newPhone();
  await phone.common.userLogin();
  phone.transport = async (options, send) => {
    if (options.url.endsWith("?slow")) {
      await new Promise((resolve) => {
        letGo = resolve;
      });
    }
    return send(options);
  };
  const late = phone.common.request({ url: "/v1/session?slow" });
  await poll(() => letGo, "the call is out");
  await phone.common.logout();
  letGo();
  await assert.rejects(late, { code: "logged_out" });
  assert.equal(phone.calls.login, 1);
});

test("userLogin right after logout waits for it, and logs in", async () => {
  const phone = newPhone();
  const { third_session: first } = await phone.common.userLogin();
  const [out, login] = await Promise.all([phone.common.logout(), phone.common.userLogin()]);
  assert.deepEqual(out, { ended: true });
  assert.notEqual(login.third_session, first);
  assert.equal(phone.session, login.third_session);
  assert.equal((await phone.common.request({ url: "/v1/session" })).statusCode, 200);
});

test("logout, userLogin, logout: the last word counts", async () => {
  const phone = newPhone();
  await phone.common.userLogin();
  const first = phone.common.logout();
  const login = assert.rejects(phone.common.userLogin(), { code: "logged_out" });
  const last = phone.common.logout();
  await Promise.all([first, login, last]);
  assert.equal(phone.session, undefined);
  assert.equal(phone.calls.login, 1);
  await assert.rejects(phone.common.request({ url: "/x" }), { code: "logged_out" });
});

test("userLogin does not log in when the user logs out during wx.checkSession", async () => {
  const phone = newPhone();
  await phone.common.userLogin();
  let answer;
  phone.wx.checkSession = (options) => {
    phone.busy++;
    answer = () => {
      phone.busy--;
      options.fail({});
    };
  };
  const asked = phone.common.userLogin();
  await poll(() => answer, "wx.checkSession is asked");
  await phone.common.logout();
  answer();
  await assert.rejects(asked, { code: "logged_out" });
  assert.equal(phone.calls.login, 1);
});

test("logout while a login waits for its next attempt does not wait with it", async () => {
  const phone = newPhone();
  phone.transport = () => {
    phone.busy++; // the clock stands still
    return { statusCode: 503, header: { "retry-after": "20" }, data: {} };
  };
  const login = assert.rejects(phone.common.onLogin(), { statusCode: 503 });
  await poll(() => [...phone.timers].some((timer) => timer.ms >= 20000), "the login waits");
  await phone.common.logout();
  await login;
  assert.equal(phone.logins.length, 1);
});

test("profile and phone number: the calls and what they resolve with", async () => {
  const phone = phoneThatMeets((options) =>
    ok({ method: options.method, path: options.url.slice(stack.url.length), data: options.data }),
  );
  assert.deepEqual(await phone.common.getUserInfo(), {
    method: "GET",
    path: "/v1/user",
    data: undefined,
  });
  assert.deepEqual(
    await phone.common.setUserInfo({
      nickName: "Ming",
      avatarUrl: null,
      openId: "not the server's to learn from here",
    }),
    { method: "PUT", path: "/v1/user", data: { nickName: "Ming", avatarUrl: null } },
  );
  assert.deepEqual(
    await phone.common.getPhoneNumber({ detail: { code: "abc", errMsg: "getPhoneNumber:ok" } }),
    { method: "POST", path: "/v1/user/phone", data: { code: "abc" } },
  );
});

test("a phone number that the user does not give makes no call", async () => {
  const phone = phoneThatMeets(() => ok());
  await assert.rejects(
    phone.common.getPhoneNumber({ detail: { errMsg: "getPhoneNumber:fail user deny" } }),
    { code: "wx_phone", message: "getPhoneNumber:fail user deny" },
  );
  assert.equal(phone.requests.length, 0);
});

test("before configure(), every function says what is missing", async () => {
  const { common } = new Phone();
  for (const name of Object.keys(common).filter((n) => n !== "configure")) {
    await assert.rejects(common[name]({ url: "/" }), { code: "not_configured" });
  }
});

test("callbacks: success or fail, then complete, and no Promise", async () => {
  const phone = phoneThatMeets((options) =>
    options.url.endsWith("/good") ? ok("data") : { statusCode: 404, header: {}, data: {} },
  );
  const told = [];
  const run = (start, isTask = false) =>
    new Promise((resolve) => {
      const returned = start({
        success: (r) => told.push(["success", r.data]),
        fail: (e) => told.push(["fail", e.statusCode || e.code]),
        complete: (r) => {
          told.push(["complete", r.data === "data" || r instanceof Error]);
          resolve();
        },
      });
      assert.equal(typeof returned?.abort, isTask ? "function" : "undefined");
      assert.equal(returned?.then, undefined);
    });
  await run((callbacks) => phone.common.request({ url: "/good", ...callbacks }), true);
  await run((callbacks) => phone.common.request({ url: "/bad", ...callbacks }), true);
  await run((callbacks) => phone.common.setUserInfo({ nickName: "x" }, callbacks));
  await run((callbacks) => phone.common.getPhoneNumber({ detail: {} }, callbacks));
  await run(
    (callbacks) => phone.common.request({ url: "https://elsewhere.example/", ...callbacks }),
    true,
  );
  assert.deepEqual(told, [
    ["success", "data"],
    ["complete", true],
    ["fail", 404],
    ["complete", true],
    ["fail", 404],
    ["complete", true],
    ["fail", "wx_phone"],
    ["complete", true],
    ["fail", "origin"],
    ["complete", true],
  ]);
});

test("one callback is enough; no unhandled rejection without a fail callback", async () => {
  const unhandled = [];
  const note = (e) => unhandled.push(e);
  process.on("unhandledRejection", note);
  const phone = phoneThatMeets(() => ({ statusCode: 500, header: {}, data: {} }));
  phone.login = () => {
    throw new Error("no");
  };
  const { common } = phone;
  common.request({ url: "/x", success() {} });
  common.onLogin({ success() {} });
  common.checkLogin({ success() {} });
  common.getUserInfo({ success() {} });
  await new Promise((resolve) => common.userLogin({ complete: resolve }));
  phone.store.clear();
  await new Promise((resolve) => common.userLogin({ complete: resolve }));
  await new Promise((resolve) => common.logout({ complete: resolve }));
  await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
  process.removeListener("unhandledRejection", note);
  assert.deepEqual(unhandled, []);
});

test("an error thrown in a callback reaches the app; complete is still called", async () => {
  const phone = phoneThatMeets(() => ok());
  await new Promise((resolve) =>
    phone.common.request({
      url: "/x",
      success: () => {
        throw new Error("the app's own");
      },
      complete: resolve,
    }),
  );
  await new Promise(setImmediate);
  assert.deepEqual(
    phone.thrown.map((e) => e.message),
    ["the app's own"],
  );
});
