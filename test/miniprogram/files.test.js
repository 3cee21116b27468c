/** uploadFile, downloadFile, connectSocket, getSession, authHeader, openData and closeAccount. */
"use strict";
const assert = require("node:assert/strict");
const http = require("node:http");
const { once } = require("node:events");
const { after, before, test } = require("node:test");
const { Phone } = require("./phone.js");
const { Stack, poll, startBackend } = require("./stack.js");

const OLD = "A".repeat(43);
const EVIL = "https://evil.example/x";

let stack;
before(async () => {
  stack = await Stack.start();
});
after(() => stack.stop());

const newPhone = (more) => new Phone({ fake: stack.fake, baseUrl: stack.url, ...more });
const isLogin = (options) => options.url.endsWith("/v1/login");
const refusal = (reason) => ({
  statusCode: 401,
  header: {},
  data: { error: "invalid_session", reason },
});

/**
 * A backend that asks wxlogind who is calling, as a proxy would. `drop`: whether it drops the body
 * of a 401.
 */
function backendBehindAuth(answer = () => ({ body: "fine" }), drop = false) {
  return startBackend(async (req) => {
    const auth = await fetch(`${stack.internal}/internal/auth`, {
      headers: { authorization: req.headers.authorization || "" },
    });
    if (auth.status === 200) {
      return answer({ ...req, openid: auth.headers.get("x-wx-openid") });
    }
    const headers = { "www-authenticate": auth.headers.get("www-authenticate") };
    return drop
      ? { status: 401, body: "<html>" }
      : {
          status: 401,
          headers,
          body: { error: "invalid_session", reason: auth.headers.get("x-wx-reason") },
        };
  });
}

test("uploadFile: the file arrives with the session; a dead session is renewed once", async () => {
  const backend = await backendBehindAuth(({ body, headers }) => ({
    body: { length: body.length, type: headers["content-type"] },
  }));
  try {
    const phone = newPhone({ origins: [backend.url] });
    phone.session = OLD;
    const call = phone.common.uploadFile({
      url: `${backend.url}/avatar`,
      filePath: "wxfile://tmp_a.png",
      formData: { kind: "avatar" },
    });
    const progress = [];
    call.onProgressUpdate((p) => progress.push(p));
    const res = await call;
    assert.match(JSON.parse(res.data).type, /^multipart\/form-data/);
    assert.match(
      backend.seen[1].body,
      new RegExp(
        'name="kind"\\r\\n\\r\\navatar[^]*name="file"; filename="tmp_a.png"' +
          "[^]*contents of wxfile://tmp_a.png",
      ),
    );
    assert.equal(phone.calls.login, 1);
    assert.equal(backend.seen.length, 2);
    assert.equal(progress.length > 0, Boolean(phone.platform.tasks));
  } finally {
    backend.stop();
  }
});

test("uploadFile: 503, 413 and a lost answer reject; the session is kept", async () => {
  for (const answer of [
    () => ({ statusCode: 503, data: "" }),
    () => {
      throw new Error("reset");
    },
    () => ({ statusCode: 413, data: '{"error":"too_large"}' }),
  ]) {
    const phone = newPhone();
    phone.session = OLD;
    phone.transport = answer;
    await assert.rejects(phone.common.uploadFile({ url: "/avatar", filePath: "f" }), (e) =>
      ["http_error", "network", "too_large"].includes(e.code),
    );
    assert.equal(phone.requests.length, 1);
    assert.equal(phone.session, OLD);
  }
});

test("downloadFile: sends the session; understands a 401 whose body is in the file", async () => {
  for (const drop of [false, true]) {
    const backend = await backendBehindAuth(undefined, drop);
    try {
      const phone = newPhone({ origins: [backend.url] });
      phone.session = OLD;
      const res = await phone.common.downloadFile({ url: `${backend.url}/report.pdf` });
      assert.equal(res.tempFilePath, "wxfile://tmp_4");
      assert.equal(phone.calls.login, 1);
    } finally {
      backend.stop();
    }
  }
});

test("downloadFile: another 401 goes to the caller; a replaced session ends", async () => {
  const phone = newPhone();
  await phone.common.userLogin();
  const { session } = phone;
  phone.transport = (options, send) =>
    options.api === "downloadFile" || options.url.endsWith("/file")
      ? { statusCode: 401 }
      : send(options);
  await assert.rejects(phone.common.downloadFile({ url: "/file" }), {
    statusCode: 401,
    code: "http_error",
  });
  assert.equal(phone.session, session);
  phone.transport = (options, send) =>
    options.url.endsWith("/file")
      ? { statusCode: 401 }
      : isLogin(options)
        ? send(options)
        : refusal("replaced");
  await assert.rejects(phone.common.downloadFile({ url: "/file" }), { reason: "replaced" });
  assert.equal(phone.session, undefined);
  assert.equal(phone.calls.login, 1);
});

test("downloadFile: 503 and lost answers are repeated", async () => {
  const phone = newPhone();
  phone.session = OLD;
  let n = 0;
  phone.transport = () => {
    n++;
    if (n === 1) {
      throw new Error("reset");
    }
    return n === 2 ? { statusCode: 503 } : { statusCode: 200, tempFilePath: "x" };
  };
  assert.equal((await phone.common.downloadFile({ url: "/file" })).tempFilePath, "x");
  assert.equal(n, 3);
});

for (const name of ["uploadFile", "downloadFile", "connectSocket"]) {
  test(`${name}: other origins get no session; the caller's Authorization is ignored`, async () => {
    const phone = newPhone({
      baseUrl: "https://login.example.com",
      origins: ["https://api.example.com:8443"],
    });
    phone.session = OLD;
    phone.hung.add("onOpen");
    phone.transport = () => ({ statusCode: 200, data: "" });
    const call = (url) =>
      phone.common[name]({
        url,
        filePath: "f",
        header: { authorization: "Basic x", "X-Mine": "1" },
        timeout: 5,
      });
    const scheme = name === "connectSocket" ? "wss" : "https";
    for (const url of [
      EVIL,
      "wss://evil.example",
      "ws://login.example.com/",
      "wss://login.example.com:444/",
      "wss://login.example.com@evil.example/",
      "wss:/x",
      "",
      undefined,
    ]) {
      await assert.rejects(call(url), { code: "origin" }, url);
    }
    assert.equal(phone.requests.length, 0);
    for (const url of [
      "/x",
      `${scheme}://login.example.com/x`,
      `${scheme.toUpperCase()}://api.example.com:8443/x`,
    ]) {
      await call(url).catch((e) => assert.equal(e.code, "timeout"));
      const sent = phone.requests[phone.requests.length - 1];
      assert.deepEqual(sent.header, { "X-Mine": "1", Authorization: `Bearer ${OLD}` });
      assert.match(sent.url, new RegExp(`^${scheme}:`, name === "connectSocket" ? "" : "i"));
    }
  });
}

/** A server whose handshake needs the session. */
async function startSocketServer() {
  const server = http.createServer((req, res) => res.writeHead(404).end());
  const sockets = [];
  server.on("upgrade", async (req, socket) => {
    const auth = await fetch(`${stack.internal}/internal/auth`, {
      headers: { authorization: req.headers.authorization },
    });
    const status =
      auth.status === 200
        ? "101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade"
        : "401 Unauthorized\r\nConnection: close";
    sockets.push(socket);
    socket.write(`HTTP/1.1 ${status}\r\n\r\n`);
    if (auth.status !== 200) {
      socket.end();
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const stop = () => {
    sockets.forEach((s) => s.destroy());
    server.close();
  };
  return { origin: `http://127.0.0.1:${server.address().port}`, stop };
}

test("connectSocket: brings an open socket; a refused handshake is `network`", async () => {
  const server = await startSocketServer();
  try {
    const phone = newPhone({ origins: [server.origin] });
    const url = server.origin.replace("http", "ws") + "/chat";
    const socket = await phone.common.connectSocket({ url }); // logs in first
    assert.equal(phone.calls.login, 1);
    assert.equal(typeof socket.onClose, "function");
    socket.close({});
    const byCallback = await new Promise((success, fail) =>
      phone.common.connectSocket({ url, success, fail }),
    );
    byCallback.close({});
    phone.session = OLD;
    await assert.rejects(phone.common.connectSocket({ url }), { code: "network", message: /401/ });
    assert.equal(phone.session, OLD, "whether it was the session is not known");
  } finally {
    server.stop();
  }
});

test("connectSocket: an unanswered handshake is `timeout`; an aborted one is closed", async () => {
  const phone = newPhone();
  await phone.common.userLogin();
  phone.hung.add("onOpen");
  await assert.rejects(phone.common.connectSocket({ url: "/ws", timeout: 3000 }), {
    code: "timeout",
  });
  assert.equal(phone.socketsClosed, 1);
  phone.busy++; // the clock stands still
  const call = phone.common.connectSocket({ url: "/ws" });
  await poll(
    () => phone.requests.filter((r) => r.api === "connectSocket").length === 2,
    "it is out",
  );
  call.abort();
  await assert.rejects(call, { code: "aborted" });
  assert.equal(phone.socketsClosed, 2);
});

test("getSession and authHeader log in when there is no session, once for both", async () => {
  const phone = newPhone();
  const [session, header] = await Promise.all([
    phone.common.getSession(),
    phone.common.authHeader(),
  ]);
  assert.deepEqual(header, { Authorization: `Bearer ${session}` });
  assert.equal(phone.session, session);
  assert.equal(phone.calls.login, 1);
  assert.equal(await phone.common.getSession(), session);
});

test("openData: encryptedData and rawData, opened by the real server", async () => {
  const { openid } = await stack.askFake("POST", "/fake/code", {});
  const phone = newPhone({ openid });
  await phone.common.userLogin();
  const sealed = await stack.askFake("POST", "/fake/encrypt", {
    openid,
    data: { nickName: "小明" },
  });
  assert.equal((await phone.common.openData(sealed)).data.nickName, "小明");
  const { rawData, signature } = sealed;
  assert.equal((await phone.common.openData({ rawData, signature })).data.nickName, "小明");
  await assert.rejects(phone.common.openData({ rawData, signature: "0".repeat(40) }), {
    code: "signature_mismatch",
  });
});

/* ---- closeAccount: first against the server, then with the server's half played here ---- */

test("closeAccount: the user and the session are gone; the next login is new", async () => {
  const phone = newPhone();
  await phone.common.userLogin();
  await phone.common.setUserInfo({ nickName: "Li" });
  const closed = phone.session;
  assert.deepEqual(await phone.common.closeAccount(), { closed: true });
  assert.equal(phone.session, undefined);
  const answer = await fetch(`${stack.url}/v1/session`, {
    headers: { authorization: `Bearer ${closed}` },
  });
  assert.equal(answer.status, 401);
  assert.equal((await answer.json()).reason, "revoked");
  assert.equal((await phone.common.userLogin()).new_user, true);
  assert.equal((await phone.common.getUserInfo()).nickName, null);
});

/** A phone whose DELETE /v1/user gets these answers, one after the other. */
async function phoneThatCloses(...answers) {
  const phone = newPhone();
  await phone.common.userLogin();
  phone.closings = [];
  phone.transport = (options, send) => {
    if (options.method !== "DELETE" || !options.url.endsWith("/v1/user")) {
      return send(options);
    }
    phone.closings.push(options.header.Authorization);
    return (answers.length > 1 ? answers.shift() : answers[0])();
  };
  return phone;
}

const erased = () => ({ statusCode: 204, header: {}, data: "" });
const lost = () => {
  throw new Error("reset");
};

test("closeAccount: afterwards nobody is logged in, until the user logs in again", async () => {
  const phone = await phoneThatCloses(erased);
  assert.deepEqual(await phone.common.closeAccount(), { closed: true });
  assert.equal(phone.session, undefined);
  await assert.rejects(phone.common.request({ url: "/v1/session" }), { code: "logged_out" });
  await assert.rejects(phone.common.closeAccount(), { code: "logged_out" });
  await phone.common.userLogin();
  assert.equal(phone.calls.login, 2);
});

test("closeAccount: 401 `revoked` to a repeat means that the first attempt did it", async () => {
  const phone = await phoneThatCloses(lost, () => refusal("revoked"));
  assert.deepEqual(await phone.common.closeAccount(), { closed: true });
  assert.equal(phone.closings.length, 2);
  await assert.rejects(phone.common.request({ url: "/x" }), { code: "logged_out" });
});

test("closeAccount: rejects when all answers are lost; later `revoked` means success", async () => {
  for (const between of [false, true]) {
    const phone = await phoneThatCloses(lost, lost, lost, () => refusal("revoked"));
    await assert.rejects(phone.common.closeAccount(), { code: "network" });
    if (between) {
      const { transport } = phone;
      phone.transport = () => refusal("revoked");
      await assert.rejects(phone.common.request({ url: "/x" }), { reason: "revoked" });
      phone.transport = transport;
    }
    assert.deepEqual(await phone.common.closeAccount(), { closed: true });
    await assert.rejects(phone.common.request({ url: "/x" }), { code: "logged_out" });
  }
});

test("closeAccount: `revoked` at the first attempt: logs in and asks again", async () => {
  const phone = await phoneThatCloses(() => refusal("revoked"), erased);
  await assert.rejects(phone.common.closeAccount(), { reason: "revoked" });
  await phone.common.userLogin();
  await phone.common.closeAccount();
  assert.equal(phone.closings.length, 2);
  assert.notEqual(phone.closings[0], phone.closings[1]);
});

test("closeAccount: an expired session logs in, and closes that user's account", async () => {
  const phone = await phoneThatCloses(() => refusal("expired"), erased);
  assert.deepEqual(await phone.common.closeAccount(), { closed: true });
  assert.equal(phone.calls.login, 2);
});
