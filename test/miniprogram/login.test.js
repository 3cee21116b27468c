/** userLogin, onLogin, checkLogin and logout against the real server and the fake WeChat. */
"use strict";
const assert = require("node:assert/strict");
const { after, before, test } = require("node:test");
const { Phone } = require("./phone.js");
const { APPID, Stack } = require("./stack.js");

let stack;
before(async () => {
  stack = await Stack.start();
});
after(() => stack.stop());

const newPhone = (more) => new Phone({ fake: stack.fake, baseUrl: stack.url, ...more });
const bearer = (session) => ({ headers: { Authorization: `Bearer ${session}` } });

test("a first login is stored; a second one has nothing to do", async () => {
  const phone = newPhone();
  const login = await phone.common.userLogin();
  assert.match(login.third_session, /^[A-Za-z0-9_-]{43}$/);
  assert.equal(login.expires_in, 7 * 24 * 3600);
  assert.equal(phone.session, login.third_session);
  assert.deepEqual(await phone.common.userLogin(), { third_session: login.third_session });
  assert.deepEqual(phone.calls, { login: 1, checkSession: 1 });
  assert.equal(phone.requests.length, 1);
});

test("an emptied storage means a new login; another session in it is used", async () => {
  const [phone, other] = [newPhone(), newPhone()];
  await phone.common.userLogin();
  phone.store.clear();
  await phone.common.userLogin();
  assert.equal(phone.calls.login, 2);
  phone.session = (await other.common.userLogin()).third_session;
  assert.equal((await phone.common.userLogin()).third_session, other.session);
  await phone.common.request({ url: "/v1/session" });
  assert.equal(phone.calls.login, 2);
});

test("a session_key that died at WeChat means a new login", async () => {
  const phone = newPhone();
  const first = await phone.common.userLogin();
  phone.sessionKeyLives = false;
  const second = await phone.common.userLogin();
  assert.notEqual(second.third_session, first.third_session);
  assert.equal(phone.session, second.third_session);
});

test("50 calls at once on a cold start: one login, all 50 succeed", async () => {
  const phone = newPhone();
  const results = await Promise.all(
    Array.from({ length: 50 }, () => phone.common.request({ url: "/v1/session" })),
  );
  assert.ok(results.every((res) => res.statusCode === 200 && res.data.appid === APPID));
  assert.equal(phone.calls.login, 1);
  assert.equal(phone.logins.length, 1);
});

test("callers of every kind share one login", async () => {
  const phone = newPhone();
  const { userLogin, onLogin, request, checkLogin } = phone.common;
  await Promise.all([
    onLogin(),
    userLogin(),
    request({ url: "/v1/session" }),
    onLogin(),
    checkLogin(),
    userLogin(),
  ]);
  assert.equal(phone.calls.login, 1);
  assert.equal(phone.logins.length, 1);
});

test("callers of userLogin share one wx.checkSession, of which WeChat bears few", async () => {
  const phone = newPhone();
  await phone.common.userLogin();
  await Promise.all(Array.from({ length: 20 }, () => phone.common.userLogin()));
  assert.equal(phone.calls.checkSession, 1);
});

test("a storage that answers late does not cause a second login", async () => {
  const phone = newPhone();
  const getStorage = phone.wx.getStorage;
  let held;
  phone.wx.getStorage = (options) =>
    getStorage({
      ...options,
      fail: (e) => {
        phone.busy++;
        held = () => options.fail(e);
      },
    });
  const late = phone.common.request({ url: "/v1/session" });
  await new Promise((resolve) => getStorage({ key: "none", complete: resolve }));
  await new Promise(setImmediate);
  phone.wx.getStorage = getStorage;
  await phone.common.onLogin();
  phone.busy--;
  held();
  await late;
  assert.equal(phone.calls.login, 1);
});

test("a lost answer: the same code and nonce bring the same session", async () => {
  const phone = newPhone();
  const before = await stack.exchanges();
  let lost;
  phone.transport = async (options, send) => {
    const res = await send(options);
    if (!lost) {
      lost = res.data.third_session;
      throw new Error("timeout");
    }
    return res;
  };
  const login = await phone.common.userLogin();
  assert.equal(login.third_session, lost);
  assert.equal(phone.calls.login, 1);
  assert.equal(phone.logins.length, 2);
  assert.deepEqual(phone.logins[0].data, phone.logins[1].data);
  assert.match(phone.logins[0].data.nonce, /^[a-z0-9]{32}$/);
  assert.equal(await stack.exchanges(), before + 1);
});

test("each code has its own nonce; a configured appid is sent", async () => {
  const phone = newPhone({ appid: APPID });
  await phone.common.onLogin();
  await phone.common.onLogin();
  const [first, second] = phone.logins.map((r) => r.data);
  assert.notEqual(first.nonce, second.nonce);
  assert.equal(first.appid, APPID);
  assert.equal(
    "appid" in
      (await (async () => {
        const plain = newPhone();
        await plain.common.onLogin();
        return plain.logins[0].data;
      })()),
    false,
  );
});

test("a refused code gets one fresh code", async () => {
  const phone = newPhone();
  const login = phone.login.bind(phone);
  phone.login = () => {
    phone.login = login;
    return { code: "never given" };
  };
  await phone.common.userLogin();
  assert.equal(phone.calls.login, 2);
  assert.equal(phone.logins.length, 2);
});

test("codes that are always refused end it after the second: no loop", async () => {
  const phone = newPhone();
  phone.login = () => ({ code: `never given ${phone.calls.login}` });
  await assert.rejects(phone.common.userLogin(), (e) => {
    assert.ok(e instanceof Error);
    assert.equal(e.code, "invalid_code");
    assert.equal(e.statusCode, 401);
    assert.ok(e.message && e.requestId);
    return true;
  });
  assert.equal(phone.calls.login, 2);
  assert.equal(phone.logins.length, 2);
  assert.equal(phone.session, undefined);
});

test("WeChat's answer is lost and the code is spent: one fresh code is used", async () => {
  const phone = newPhone();
  await stack.fault({ mode: "reset", count: 1 });
  await phone.common.userLogin();
  assert.equal(phone.calls.login, 2);
  assert.ok(phone.waits[0] >= 1000, "the server's Retry-After is kept");
});

test("while WeChat is busy the same code is tried again, up to `retries` times", async () => {
  const phone = newPhone({ retries: 1 });
  phone.transport = (options) => ({
    statusCode: 503,
    header: {},
    data: { error: "wechat_unavailable" },
  });
  await assert.rejects(phone.common.userLogin(), { code: "wechat_unavailable", statusCode: 503 });
  assert.equal(phone.calls.login, 1);
  assert.equal(phone.logins.length, 2);
});

test("a user whom WeChat blocks is told so, once", async () => {
  const { openid } = await stack.askFake("POST", "/fake/code", {});
  await stack.askFake("POST", "/fake/user", { openid, blocked: true });
  const phone = newPhone({ openid });
  await assert.rejects(phone.common.userLogin(), { code: "user_blocked", statusCode: 403 });
  assert.equal(phone.logins.length, 1);
});

test("an appid that the server does not know is told so, once", async () => {
  const phone = newPhone({ appid: "wx0000000000000000" });
  await assert.rejects(phone.common.userLogin(), { code: "unknown_app", statusCode: 400 });
  assert.equal(phone.logins.length, 1);
});

test("no code from wx.login: it failed, or it gave none", async () => {
  const phone = newPhone();
  phone.login = () => {
    throw new Error("interrupted");
  };
  await assert.rejects(phone.common.userLogin(), {
    code: "wx_login",
    message: "login:fail interrupted",
  });
  phone.login = () => ({});
  await assert.rejects(phone.common.userLogin(), { code: "wx_login" });
  assert.equal(phone.requests.length, 0);
});

test("no network: repeats with longer waits, then `network`; the next login works", async () => {
  const phone = newPhone({ retries: 3 });
  phone.transport = () => {
    throw new Error("ERR_INTERNET_DISCONNECTED");
  };
  await assert.rejects(phone.common.userLogin(), {
    code: "network",
    message: "request:fail ERR_INTERNET_DISCONNECTED",
  });
  assert.equal(phone.logins.length, 4);
  assert.equal(phone.waits.length, 3);
  phone.waits.forEach((ms, i) =>
    assert.ok(ms >= 500 * 2 ** i && ms <= 750 * 2 ** i, `wait ${i} is ${ms}`),
  );
  phone.transport = (options, send) => send(options);
  await phone.common.userLogin();
});

test("a login that fails leaves the stored session as it is", async () => {
  const phone = newPhone();
  const { third_session: session } = await phone.common.userLogin();
  phone.sessionKeyLives = false;
  phone.login = () => {
    throw new Error("no");
  };
  await assert.rejects(phone.common.userLogin(), { code: "wx_login" });
  assert.equal(phone.session, session);
  await phone.common.request({ url: "/v1/session" });
});

test("touristappid: the tools' code can be used again; each phone has one user", async () => {
  const openidOf = async (phone) =>
    (await fetch(`${stack.internal}/internal/auth`, bearer(phone.session))).headers.get(
      "x-wx-openid",
    );
  const phones = [newPhone(), newPhone()];
  const users = [];
  for (const phone of phones) {
    phone.login = () => ({ code: "the code is a mock one" });
    phone.transport = (options, send) =>
      send({
        ...options,
        header: {
          ...options.header,
          referer: "https://servicewechat.com/touristappid/devtools/page-frame.html",
        },
      });
    await phone.common.userLogin();
    const first = phone.session;
    users.push(await openidOf(phone));
    for (let i = 0; i < 5; i++) {
      await phone.common.onLogin();
    }
    assert.notEqual(phone.session, first, "each login is one of its own");
    assert.equal(await openidOf(phone), users[users.length - 1], "and the user stays");
    assert.equal(phone.calls.login, 6, "no code was refused");
    assert.ok(
      phone.logins.every(
        (r) => r.data.code.startsWith("the code is a mock one ") && r.data.code.length < 100,
      ),
    );
    assert.deepEqual([...phone.store.keys()].sort(), [
      "third_Session",
      "third_Session_mock_device",
    ]);
  }
  assert.notEqual(users[0], users[1]);
});

test("touristappid: a phone whose storage fails is still one user; WeChat refuses", async () => {
  const phone = newPhone();
  phone.login = () => ({ code: "the code is a mock one" });
  phone.wx.setStorage = (options) => options.fail({ errMsg: "setStorage:fail" });
  await assert.rejects(phone.common.onLogin(), { code: "storage" });
  await assert.rejects(phone.common.onLogin(), { code: "storage" });
  const [one, two] = phone.logins.map((r) => r.data.code.split("~"));
  assert.equal(one[0], two[0]);
  assert.notEqual(one[1], two[1]);
  await stack.fault({ mode: "errcode", errcode: 40029, count: 2 });
  await assert.rejects(phone.common.onLogin(), { code: "invalid_code", statusCode: 401 });
});

test("an answer that is not wxlogind's is an error, not a session", async () => {
  const phone = newPhone();
  phone.transport = () => ({
    statusCode: 200,
    header: {},
    data: "<html>welcome to the hotel</html>",
  });
  await assert.rejects(phone.common.userLogin(), { code: "http_error" });
  assert.equal(phone.session, undefined);
});

test("storageKey says where the session is kept", async () => {
  const phone = newPhone({ storageKey: "mine" });
  const { third_session: session } = await phone.common.userLogin();
  assert.deepEqual([...phone.store], [["mine", session]]);
});

test("checkLogin asks the server and never logs in; a refused session is forgotten", async () => {
  const phone = newPhone();
  await assert.rejects(phone.common.checkLogin(), { code: "invalid_session", reason: "missing" });
  assert.equal(phone.requests.length, 0);
  await phone.common.userLogin();
  const session = await phone.common.checkLogin();
  assert.equal(session.appid, APPID);
  assert.ok(session.expires_in > 0 && session.created_at > 1.7e9);
  await fetch(`${stack.url}/v1/session`, { method: "DELETE", ...bearer(phone.session) });
  await assert.rejects(phone.common.checkLogin(), {
    code: "invalid_session",
    statusCode: 401,
    reason: "logged_out",
  });
  assert.equal(phone.session, undefined);
  assert.equal(phone.calls.login, 1);
});

test("logout ends the session here and there", async () => {
  const phone = newPhone();
  const { third_session: session } = await phone.common.userLogin();
  assert.deepEqual(await phone.common.logout(), { ended: true });
  assert.equal(phone.session, undefined);
  assert.equal((await fetch(`${stack.url}/v1/session`, bearer(session))).status, 401);
  assert.deepEqual(await phone.common.logout(), { ended: true });
  assert.equal(phone.requests.length, 2);
});

test("logout always forgets the session, and says whether the server was told", async () => {
  const phone = newPhone();
  await phone.common.userLogin();
  phone.transport = () => {
    throw new Error("no network");
  };
  assert.deepEqual(await phone.common.logout(), { ended: false });
  assert.equal(phone.session, undefined);
});

test("logout during a login ends that login's session", async () => {
  const phone = newPhone();
  const [{ third_session: session }] = await Promise.all([
    phone.common.onLogin(),
    phone.common.logout(),
  ]);
  assert.equal(phone.session, undefined);
  assert.equal((await fetch(`${stack.url}/v1/session`, bearer(session))).status, 401);
});

test("nothing is written to the console, and the server's log holds no secret", async () => {
  const phone = newPhone();
  await phone.common.userLogin();
  await phone.common.request({ url: "/v1/session" });
  phone.login = () => ({ code: "never given" });
  await assert.rejects(phone.common.onLogin());
  assert.deepEqual(phone.console, []);
  const log = stack.log("wxlogind");
  [...phone.codes, phone.session].forEach((secret) => assert.ok(!log.includes(secret)));
});
