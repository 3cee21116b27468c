/**
 * A platform that never calls back, that fails, that throws; bad arguments; calls that are ended
 * from outside.
 */
"use strict";
const assert = require("node:assert/strict");
const { after, before, test } = require("node:test");
const { Phone } = require("./phone.js");
const { Stack, poll } = require("./stack.js");

let stack;
before(async () => {
  stack = await Stack.start();
});
after(() => stack.stop());

const newPhone = (more) => new Phone({ fake: stack.fake, baseUrl: stack.url, ...more });
const ok = (data = {}) => ({ statusCode: 200, header: {}, data });

/** A phone that is logged in, if `session` is true. */
async function phoneWith(session, more) {
  const phone = newPhone(more);
  if (session) {
    await phone.common.userLogin();
  }
  return phone;
}

/* ---- nothing hangs ---- */

for (const [api, name, session] of [
  ["getStorage", "userLogin", true],
  ["getStorage", "request", true],
  ["getStorage", "checkLogin", true],
  ["checkSession", "userLogin", true],
  ["login", "userLogin", false],
  ["login", "onLogin", true],
  ["login", "request", false],
  ["request", "userLogin", false],
  ["request", "request", true],
  ["request", "checkLogin", true],
  ["setStorage", "userLogin", false],
]) {
  test(`${api} never calls back: ${name} ends with \`timeout\`, then works again`, async () => {
    const phone = await phoneWith(session, { timeout: 7000, retries: 1 });
    const began = phone.now;
    phone.hung.add(api);
    await assert.rejects(phone.common[name]({ url: "/v1/session" }), {
      name: "Error",
      code: "timeout",
    });
    // At most: the storage, wx.login, two attempts with the wait between them, the storage.
    assert.ok(
      phone.now - began >= 7000 && phone.now - began < 5 * 7700 + 750,
      String(phone.now - began),
    );
    phone.hung.clear();
    await phone.common.userLogin();
    assert.equal((await phone.common.request({ url: "/v1/session" })).statusCode, 200);
  });
}

test("logout ends too where nothing calls back, and nobody is logged in", async () => {
  const phone = await phoneWith(true);
  ["getStorage", "removeStorage", "request"].forEach((api) => phone.hung.add(api));
  assert.deepEqual(await phone.common.logout(), { ended: false });
  await assert.rejects(phone.common.request({ url: "/x" }), (e) =>
    ["logged_out", "timeout"].includes(e.code),
  );
  phone.hung.clear();
  await assert.rejects(phone.common.request({ url: "/x" }), { code: "logged_out" });
});

test("a late answer changes nothing; a second callback is ignored", async () => {
  const phone = newPhone();
  const login = phone.wx.login;
  let late;
  phone.wx.login = (options) => {
    late = options;
  };
  await assert.rejects(phone.common.onLogin(), { code: "timeout" });
  phone.wx.login = login;
  const { third_session: session } = await phone.common.onLogin();
  late.success({ code: "late" });
  late.fail({ errMsg: "login:fail" });
  await new Promise(setImmediate);
  assert.equal(phone.session, session);
  assert.equal(phone.logins.length, 1);

  const setStorage = phone.wx.setStorage;
  phone.wx.setStorage = (options) =>
    setStorage({
      ...options,
      success: (res) => {
        options.success(res);
        options.success(res);
        options.fail({});
      },
    });
  await phone.common.onLogin();
  assert.equal((await phone.common.request({ url: "/v1/session" })).statusCode, 200);
});

test("a call's own timeout counts; the platform's request is then aborted", async () => {
  const phone = await phoneWith(true, { retries: 0 });
  let aborted = false;
  phone.wx.request = (options) => {
    assert.equal(options.timeout, 1234);
    return {
      abort: () => {
        aborted = true;
      },
    };
  };
  const began = phone.now;
  await assert.rejects(phone.common.request({ url: "/x", timeout: 1234 }), { code: "timeout" });
  assert.ok(phone.now - began >= 1234 && phone.now - began <= 1400);
  assert.equal(aborted, Boolean(phone.platform.tasks));
});

/* ---- what fails, and what throws ---- */

const breakings = {
  fails: (phone, api) => {
    phone.wx[api] = (options) => options.fail({ errMsg: `${api}:fail disk is full` });
  },
  throws: (phone, api) => {
    phone.wx[api] = () => {
      throw new Error("disk is full");
    };
  },
  "throws what is no Error": (phone, api) => {
    phone.wx[api] = () => {
      throw "disk is full";
    };
  },
  "fails without a word": (phone, api) => {
    phone.wx[api] = (options) => options.fail();
  },
};

for (const [how, spoil] of Object.entries(breakings)) {
  test(`setStorage ${how}: the caller is told; the session is used from memory`, async () => {
    const phone = newPhone();
    spoil(phone, "setStorage");
    await assert.rejects(
      phone.common.userLogin(),
      (e) => e instanceof Error && e.code === "storage",
    );
    for (let i = 0; i < 3; i++) {
      assert.equal((await phone.common.request({ url: "/v1/session" })).statusCode, 200);
    }
    assert.match((await phone.common.userLogin()).third_session, /^[\w-]{43}$/);
    assert.equal(phone.calls.login, 1, "no login more");
    const header = await phone.common.authHeader();
    assert.deepEqual(await phone.common.logout(), { ended: true });
    assert.equal((await fetch(`${stack.url}/v1/session`, { headers: header })).status, 401);
  });

  test(`setStorage ${how} on a cold start: one login, and the request succeeds`, async () => {
    const phone = newPhone();
    spoil(phone, "setStorage");
    const all = await Promise.all(
      [1, 2, 3].map(() => phone.common.request({ url: "/v1/session" })),
    );
    assert.ok(all.every((res) => res.statusCode === 200));
    assert.equal(phone.calls.login, 1);
  });

  test(`getStorage ${how} after a login: no login more`, async () => {
    const phone = await phoneWith(true);
    spoil(phone, "getStorage");
    assert.equal((await phone.common.request({ url: "/v1/session" })).statusCode, 200);
    assert.equal((await phone.common.request({ url: "/v1/session" })).statusCode, 200);
    assert.equal(phone.calls.login, 1);
  });

  test(`removeStorage ${how}: after logout the stored session is not used again`, async () => {
    const phone = await phoneWith(true);
    const old = phone.session;
    spoil(phone, "removeStorage");
    assert.deepEqual(await phone.common.logout(), { ended: true });
    assert.equal(phone.session, old, "it is still there");
    assert.notEqual((await phone.common.userLogin()).third_session, old);
    assert.equal(phone.calls.login, 2);
  });

  test(`login ${how}: an Error with code wx_login`, async () => {
    const phone = newPhone();
    spoil(phone, "login");
    await assert.rejects(
      phone.common.userLogin(),
      (e) => e instanceof Error && e.code === "wx_login",
    );
  });

  test(`checkSession ${how}: a new login`, async () => {
    const phone = await phoneWith(true);
    const old = phone.session;
    spoil(phone, "checkSession");
    assert.notEqual((await phone.common.userLogin()).third_session, old);
  });

  test(`request ${how}: repeats, then rejects with network; the session is kept`, async () => {
    const phone = await phoneWith(true);
    const old = phone.session;
    spoil(phone, "request");
    await assert.rejects(
      phone.common.request({ url: "/x" }),
      (e) => e instanceof Error && e.code === "network",
    );
    assert.equal(phone.waits.length, 2);
    assert.equal(phone.session, old);
  });
}

test("an answer without a status is no answer", async () => {
  const phone = await phoneWith(true);
  for (const answer of [null, "x", {}, { statusCode: 0 }, { statusCode: "?" }]) {
    phone.wx.request = (options) => options.success(answer);
    await assert.rejects(phone.common.request({ url: "/x" }), { code: "network" });
  }
  phone.wx.request = (options) => options.success({ statusCode: "200", data: "fine" });
  assert.equal((await phone.common.request({ url: "/x" })).data, "fine");
});

test("a platform without checkSession: a stored session is enough", async () => {
  const phone = await phoneWith(true);
  delete phone.adapter.checkSession;
  assert.deepEqual(await phone.common.userLogin(), { third_session: phone.session });
});

test("no platform at all is an error that says what to do", async () => {
  const { common } = new Phone();
  const alone = new Phone().load("common/common.js", {
    wx: undefined,
    uni: { request() {} },
    Taro: undefined,
  });
  alone.configure({ baseUrl: stack.url });
  await assert.rejects(alone.userLogin(), { code: "not_configured", message: /adapter/ });
  assert.throws(() => common.configure({ baseUrl: stack.url, adapter: { login() {} } }), {
    code: "invalid_argument",
    message: /request/,
  });
});

/* ---- bad arguments ---- */

test("bad arguments are Errors with a code, and nothing is sent", async () => {
  const phone = await phoneWith(true);
  phone.requests.length = 0;
  const bad = {
    request: [
      undefined,
      null,
      "https://x.example",
      7,
      { url: "/x", method: 1 },
      { url: "/x", header: "no" },
      { url: "/x", timeout: -1 },
      { url: "/x", timeout: "soon" },
      { url: "/x", timeout: Infinity },
      { url: "/x", header: null },
    ],
    setUserInfo: [
      undefined,
      null,
      "Ming",
      { avatarUrl: "http://tmp/x.jpeg" },
      { avatarUrl: "wxfile://tmp_1.png" },
      { avatarUrl: "http://usr/a.png" },
      { avatarUrl: "https:///a.png" },
      { avatarUrl: "blob:https://x.example/1" },
      { avatarUrl: "/a.png" },
      { avatarUrl: "data:image/png;base64,AAAA" },
      { avatarUrl: 7 },
    ],
    getPhoneNumber: [undefined, null, {}, { detail: null }, { detail: "code" }, "x"],
    openData: [
      undefined,
      {},
      { encryptedData: "x" },
      { iv: "x", rawData: "y" },
      { rawData: "y", signature: 1 },
    ],
    uploadFile: [undefined, {}, { url: "/x" }, { url: "/x", filePath: 1 }],
    downloadFile: [undefined, { url: "/x", timeout: 0 }],
    connectSocket: [undefined, { url: "/x", header: "x" }],
  };
  for (const [name, cases] of Object.entries(bad)) {
    for (const argument of cases) {
      await assert.rejects(
        phone.common[name](argument),
        (e) => e instanceof Error && e.code === "invalid_argument",
        `${name} ${JSON.stringify(argument)}`,
      );
    }
  }
  await assert.rejects(
    phone.common.getPhoneNumber({ detail: { errno: 1400001, errMsg: "getPhoneNumber:fail" } }),
    { code: "wx_phone", errno: 1400001 },
  );
  assert.equal(phone.requests.length, 0);
});

test("an avatar's address: https, and http of a real host", async () => {
  const phone = await phoneWith(true);
  phone.transport = (options) => ok(options.data);
  for (const avatarUrl of [
    "https://cdn.example.com/a.png",
    "http://127.0.0.1:3000/a.png",
    "http://[::1]/a.png",
    "https://localhost:8443/a",
    "https://cdn/a.png",
    "HTTPS://cdn.example.com/a.png",
    "",
    null,
  ]) {
    assert.deepEqual(await phone.common.setUserInfo({ avatarUrl }), { avatarUrl });
  }
});

test("configure refuses what cannot be meant", () => {
  const { configure } = new Phone().common;
  for (const more of [
    { timeout: 0 },
    { timeout: "5s" },
    { timeout: NaN },
    { timeout: 1e9 },
    { retries: -1 },
    { retries: 1.5 },
    { retries: 1000 },
    { storageKey: "" },
    { storageKey: 7 },
    { appid: 7 },
    { origins: "https://x.example" },
    { adapter: {} },
  ]) {
    assert.throws(
      () => configure({ baseUrl: "https://x.example", ...more }),
      { code: "invalid_argument" },
      JSON.stringify(more),
    );
  }
  configure({ baseUrl: "https://x.example", timeout: undefined, origins: undefined, retries: 0 });
});

/* ---- abort ---- */

test("an aborted call rejects at once, is ended on the platform, and is not repeated", async () => {
  const phone = await phoneWith(true);
  let out = 0;
  phone.transport = () => {
    out++;
    return new Promise(() => {});
  };
  const call = phone.common.request({ url: "/x" });
  await poll(() => out === 1, "the call is out");
  call.abort();
  await assert.rejects(call, { name: "Error", code: "aborted" });
  call.abort();
  if (phone.platform.tasks) {
    await poll(() => phone.busy === 0, "the platform's call has ended");
  }
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(out, 1);
  assert.equal(phone.waits.length, 0);
});

test("aborted before it is sent, or before a repeat: nothing more is sent", async () => {
  const phone = await phoneWith(true);
  phone.requests.length = 0;
  const early = phone.common.request({ url: "/x" });
  early.abort();
  await assert.rejects(early, { code: "aborted" });
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(phone.requests.length, 0);

  phone.transport = () => {
    phone.busy++; // the clock stands still
    return { statusCode: 503, header: {}, data: {} };
  };
  const waiting = phone.common.request({ url: "/x" });
  await poll(() => [...phone.timers].some((timer) => timer.ms < 1000), "it waits");
  waiting.abort();
  await assert.rejects(waiting, { code: "aborted" });
  phone.busy--;
  phone.tick();
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(phone.requests.length, 1);
  assert.equal(phone.timers.size, 0);
});

test("the task of a call with callbacks aborts that call only, not a shared login", async () => {
  const phone = newPhone();
  const told = [];
  const task = phone.common.request({
    url: "/v1/session",
    success: () => told.push("success"),
    fail: (e) => told.push(e.code),
    complete: () => told.push("complete"),
  });
  const other = phone.common.request({ url: "/v1/session" });
  task.abort();
  assert.equal((await other).statusCode, 200);
  assert.deepEqual(told, ["aborted", "complete"]);
  assert.equal(phone.logins.length, 1);
});
