/** The sample's pages of the profile and of a payment, against the real server. */
"use strict";
const assert = require("node:assert/strict");
const fs = require("node:fs");
const path = require("node:path");
const os = require("node:os");
const { spawn } = require("node:child_process");
const { once } = require("node:events");
const { after, before, test } = require("node:test");
const { MINIPROGRAM } = require("./phone.js");
const { INDEX, PAY, PROFILE, SamplePhone, profileIs, shows } = require("./sample-phone.js");
const { APPID, Stack, freePort, poll, startBackend } = require("./stack.js");

let stack;
before(async () => {
  stack = await Stack.start();
});
after(() => stack.stop());

test("profile: shows what the server keeps", async () => {
  const page = new SamplePhone(stack, {
    answers: profileIs({ nickName: "Ming", avatarUrl: "https://x.example/a.png" }),
  })
    .launch()
    .open(PROFILE);
  await shows(
    page,
    (d) => d.nickName === "Ming" && d.avatarUrl === "https://x.example/a.png",
    "the profile",
  );
  assert.equal(page.data.notes.profile, "");
});

test("profile: no profiles on the server, or a failed login: the page can retry", async () => {
  const phone = new SamplePhone(stack, {
    answers: {
      "GET /v1/user": () => ({ statusCode: 404, header: {}, data: { error: "not_found" } }),
    },
  });
  const page = phone.launch().open(PROFILE);
  await shows(page, (d) => /keeps no profile/.test(d.notes.profile), "the note");
  assert.equal(page.data.retry, false, "asking again would not help");
  phone.answers["PUT /v1/user"] = phone.answers["POST /v1/user/phone"] =
    phone.answers["GET /v1/user"];
  page.onNicknameSubmit({ detail: { value: { nickname: "Ming" } } });
  page.onPhone({ detail: { code: "abc", errMsg: "getPhoneNumber:ok" } });
  await shows(
    page,
    (d) => /keeps no profile/.test(d.notes.nickname) && /does not give numbers/.test(d.notes.phone),
    "the notes",
  );

  const other = new SamplePhone(stack, { answers: profileIs({ nickName: "Ming" }) });
  const { login } = other;
  other.login = () => ({});
  const otherPage = other.launch().open(PROFILE);
  await shows(otherPage, (d) => /cannot be read/.test(d.notes.profile) && d.retry, "the note");
  other.login = login;
  otherPage.onLoadTap();
  await shows(otherPage, (d) => d.nickName === "Ming" && !d.notes.profile, "the profile");
});

/** docs/examples/avatar, behind a proxy that asks wxlogind who is calling. */
async function startAvatars() {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), "wxlogind-avatars-"));
  const port = await freePort();
  const server = spawn(
    "python3",
    [path.join(MINIPROGRAM, "../docs/examples/avatar/avatar.py"), `127.0.0.1:${port}`],
    {
      stdio: "inherit",
      env: { ...process.env, AVATAR_DIR: dir, AVATAR_URL: "https://cdn.example.com" },
    },
  );
  const proxy = await startBackend(async ({ method, url, headers, bytes }) => {
    const auth = await fetch(`${stack.internal}/internal/auth`, {
      headers: { authorization: headers.authorization || "" },
    });
    if (method === "POST" && auth.status !== 200) {
      return { status: 401, body: { error: "invalid_session" } };
    }
    const who =
      method === "GET"
        ? {}
        : {
            "X-Wx-Appid": auth.headers.get("x-wx-appid"),
            "X-Wx-Openid": auth.headers.get("x-wx-openid"),
          };
    const res = await fetch(`http://127.0.0.1:${port}${url}`, {
      method,
      headers: { ...who, "content-type": headers["content-type"] || "" },
      body: method === "GET" ? undefined : bytes,
    });
    return {
      status: res.status,
      headers: { "content-type": res.headers.get("content-type") },
      body: Buffer.from(await res.arrayBuffer()),
    };
  });
  await poll(
    () =>
      fetch(`http://127.0.0.1:${port}/`).then(
        () => true,
        () => false,
      ),
    "the avatar server answers",
  );
  return {
    url: proxy.url,
    files: () => fs.readdirSync(dir).filter((name) => !name.startsWith(".")),
    direct: (options) => fetch(`http://127.0.0.1:${port}/avatar`, options),
    async stop() {
      proxy.stop();
      server.kill();
      await once(server, "exit");
      fs.rmSync(dir, { recursive: true, force: true });
    },
  };
}

test("profile: the picture is uploaded; its https address is the user's avatar", async () => {
  const avatars = await startAvatars();
  try {
    const phone = new SamplePhone(stack, { origins: [avatars.url] });
    phone.files = (file) => `\x89PNG\r\n\x1a\n ${file}`;
    phone.app.avatarUpload = `${avatars.url}/avatar`;
    const page = phone.launch().open(PROFILE);
    const choose = async (file) => {
      page.onChooseAvatar({ detail: { avatarUrl: file } });
      assert.equal(page.data.avatarUrl, file, "shown at once");
      await shows(page, (d) => /Saved|Not saved/.test(d.notes.avatar), "the note");
    };
    await choose("http://tmp/a.png");
    const first = page.data.avatarUrl;
    assert.match(first, /^https:\/\/cdn\.example\.com\/avatar\/[0-9a-f]{32}-[0-9a-f]{8}\.png$/);
    assert.equal((await phone.common.getUserInfo()).avatarUrl, first);
    const picture = await fetch(first.replace("https://cdn.example.com", avatars.url));
    assert.equal(picture.headers.get("content-type"), "image/png");
    await choose("http://tmp/b.png");
    assert.notEqual(page.data.avatarUrl, first, "another picture has another address");
    assert.equal(avatars.files().length, 1, "and the older one is gone");
    phone.files = () => "<svg onload=alert(1)>";
    await choose("http://tmp/c.svg");
    assert.match(page.data.notes.avatar, /Not saved/);
    assert.equal(avatars.files().length, 1);
    const form = () => {
      const body = new FormData();
      body.append("avatar", new Blob(["\x89PNG\r\n\x1a\n"]), "a.png");
      return body;
    };
    assert.equal(
      (await avatars.direct({ method: "POST", body: form() })).status,
      401,
      "not without the proxy's headers",
    );
    const who = { "X-Wx-Appid": APPID, "X-Wx-Openid": "o" };
    assert.equal(
      (await avatars.direct({ method: "POST", body: "x".repeat(2 << 20), headers: who })).status,
      413,
    );
    assert.equal((await avatars.direct({ method: "POST", body: "x", headers: who })).status, 400);
  } finally {
    await avatars.stop();
  }
});

test("profile: picture chosen, and not chosen", () => {
  const page = new SamplePhone(stack, { answers: profileIs({}) }).launch().open(PROFILE);
  page.onChooseAvatar({ detail: { errMsg: "chooseAvatar:fail cancel" } });
  assert.match(page.data.notes.avatar, /No picture chosen/);
  page.onChooseAvatar({ detail: { avatarUrl: "wxfile://tmp/1.png" } });
  assert.equal(page.data.avatarUrl, "wxfile://tmp/1.png");
});

test("profile: a name, no name, WeChat's placeholder, and a failed save", async () => {
  const phone = new SamplePhone(stack, { answers: profileIs({}) });
  const page = phone.launch().open(PROFILE);
  const submit = (nickname) => page.onNicknameSubmit({ detail: { value: { nickname } } });
  for (const nobody of ["", "  ", "微信用户"]) {
    page.data.notes.nickname = "";
    submit(nobody);
    assert.match(page.data.notes.nickname, /No name given/);
  }
  assert.equal(phone.requests.filter((r) => r.method === "PUT").length, 0);
  phone.answers["PUT /v1/user"] = () => ({ statusCode: 500, header: {}, data: {} });
  submit("Ming");
  await shows(page, (d) => /Not saved/.test(d.notes.nickname), "the note");
  phone.answers["PUT /v1/user"] = ({ data }) => ({ statusCode: 200, header: {}, data });
  submit(" Ming ");
  await shows(page, (d) => /Saved/.test(d.notes.nickname), "the note");
  assert.equal(page.data.nickName, "Ming");
});

test("profile: a number given, declined, and lost on the way", async () => {
  const phone = new SamplePhone(stack, { answers: profileIs({}) });
  const page = phone.launch().open(PROFILE);
  const give = () => page.onPhone({ detail: { code: "abc", errMsg: "getPhoneNumber:ok" } });
  page.onPhone({ detail: { errno: 1400001, errMsg: "getPhoneNumber:fail" } });
  await shows(page, (d) => /quota/.test(d.notes.phone), "the note");
  page.onPhone({ detail: { errMsg: "getPhoneNumber:fail user deny" } });
  await shows(page, (d) => /No number given/.test(d.notes.phone), "the note");
  phone.answers["POST /v1/user/phone"] = () => {
    throw new Error("no network");
  };
  give();
  await shows(page, (d) => /did not come/.test(d.notes.phone), "the note");
  phone.answers["POST /v1/user/phone"] = () => ({
    statusCode: 200,
    header: {},
    data: { phoneNumber: "+8613800138000" },
  });
  give();
  await shows(page, (d) => d.phoneNumber === "+8613800138000" && !d.notes.phone, "the number");
});

test("profile: the privacy notice is asked for, declined, offered again, agreed to", () => {
  const phone = new SamplePhone(stack, { answers: profileIs({}) });
  phone.wx.getPrivacySetting = ({ success }) =>
    success({ needAuthorization: true, privacyContractName: "《隐私保护指引》" });
  const page = phone.launch().open(PROFILE);
  assert.equal(page.data.privacyNeeded, true);
  assert.equal(page.data.contractName, "《隐私保护指引》");
  page.onPrivacyDecline();
  assert.match(page.data.notes.privacy, /go on without/);
  assert.equal(page.data.privacyNeeded, true, "offered again");
  phone.wx.openPrivacyContract = ({ fail }) => fail({});
  page.onContractTap();
  assert.match(page.data.notes.privacy, /cannot be opened/);
  page.onPrivacyAgree();
  assert.equal(page.data.privacyNeeded, false);
  assert.equal(page.data.notes.privacy, "");
});

test("profile: errno 103, 104 and 112 show a sentence; nothing is repeated", async () => {
  for (const [errno, text, needed] of [
    [103, /go on without/, true],
    [104, /go on without/, true],
    [112, /has not declared/, false],
  ]) {
    const phone = new SamplePhone(stack, { answers: profileIs({}) });
    let asked = 0;
    phone.wx.getPrivacySetting = ({ success }) => {
      asked++;
      success({ needAuthorization: false, privacyContractName: "" });
    };
    const page = phone.launch().open(PROFILE);
    page.onPhone({ detail: { errno, errMsg: "getPhoneNumber:fail" } });
    await shows(page, (d) => text.test(d.notes.privacy), "the sentence");
    assert.equal(page.data.privacyNeeded, needed);
    page.data.notes.privacy = "";
    page.onChooseAvatar({ detail: { errno, errMsg: "chooseAvatar:fail" } });
    assert.match(page.data.notes.privacy, text);
    assert.equal(asked, 1);
    assert.equal(phone.requests.filter((r) => r.url.endsWith("/phone")).length, 0);
  }
});

test("profile: phone buttons, with the privacy notice before consent and without it", () => {
  const wxml = fs.readFileSync(path.join(MINIPROGRAM, `${PROFILE}.wxml`), "utf8");
  const [, joined, plain] = new RegExp(
    'wx:if="{{privacyNeeded}}">\\s*(<button open-type="getPhoneNumber[^]*?)</block>' +
      "\\s*<block wx:else>([^]*?)</block>",
  ).exec(wxml);
  const buttons = (block) => [...block.matchAll(/<button (.*?)>/g)].map((found) => found[1]);
  assert.deepEqual(buttons(joined), [
    'open-type="getPhoneNumber|agreePrivacyAuthorization" ' +
      'bindgetphonenumber="onPhone" bindagreeprivacyauthorization="onPrivacyAgree"',
  ]);
  assert.deepEqual(buttons(plain), [
    'open-type="getPhoneNumber" bindgetphonenumber="onPhone"',
    'open-type="getRealtimePhoneNumber" bindgetrealtimephonenumber="onPhone"',
  ]);
});

test("profile: the privacy notice declined in WeChat's own dialog", async () => {
  const phone = new SamplePhone(stack, { answers: profileIs({}) });
  phone.wx.getPrivacySetting = ({ fail }) => fail({ errMsg: "getPrivacySetting:fail" });
  const page = phone.launch().open(PROFILE);
  assert.equal(page.data.privacyNeeded, false);
  page.onChooseAvatar({
    detail: { errno: 104, errMsg: "chooseAvatar:fail privacy permission is not authorized" },
  });
  assert.equal(page.data.privacyNeeded, true);
  page.onPrivacyAgree();
  page.onPhone({ detail: { errMsg: "getPhoneNumber:fail privacy permission is not authorized" } });
  await shows(page, (d) => d.privacyNeeded && /go on without/.test(d.notes.privacy), "the notice");
});

test("profile: the user closes the account, and is not logged in again by itself", async () => {
  const phone = new SamplePhone(stack, { answers: profileIs({ nickName: "Ming" }) });
  const page = phone.launch().open(PROFILE);
  await shows(page, (d) => d.nickName === "Ming", "the profile");
  const answer = (confirm) => {
    phone.wx.showModal = ({ success }) => success({ confirm, cancel: !confirm });
    page.onCloseTap();
  };
  const closings = () => phone.requests.filter((r) => r.method === "DELETE").length;
  answer(false);
  assert.equal(closings(), 0);
  for (const [statusCode, text] of [
    [404, /does not offer/],
    [500, /Not closed/],
  ]) {
    phone.answers["DELETE /v1/user"] = () => ({ statusCode, header: {}, data: {} });
    answer(true);
    await shows(page, (d) => text.test(d.notes.account), "the note");
    assert.equal(page.data.nickName, "Ming");
  }
  phone.answers["DELETE /v1/user"] = () => ({ statusCode: 204, header: {}, data: "" });
  answer(true);
  await shows(page, (d) => /is closed/.test(d.notes.account) && !d.nickName, "closed");
  const index = phone.open(INDEX);
  await shows(index, (d) => d.state === "out" && !d.problem, "logged out");
  assert.equal(phone.calls.login, 1);
});

test("pay: the backend's order goes to WeChat as it came; what WeChat says is shown", async () => {
  const order = { mode: "short_series_coin", signData: '{"a":1}', paySig: "p", signature: "s" };
  const backend = await startBackend(async ({ url, headers }) =>
    url === "/order" && /^Bearer .{43}$/.test(headers.authorization || "")
      ? { status: 200, body: order }
      : { status: 401, body: { error: "invalid_session" } },
  );
  try {
    const phone = new SamplePhone(stack, { origins: [backend.url] }).launch();
    await phone.app.loginReady;
    const page = phone.open(PAY);
    page.onPayTap();
    assert.match(page.data.problem, /not set up/);
    phone.app.payBackend = backend.url;
    const asked = [];
    let answer = (options) => options.success({});
    phone.wx.requestVirtualPayment = (options) => {
      asked.push(options);
      answer(options);
    };
    page.onPayTap();
    await shows(page, (d) => d.state === "paid" && !d.problem, "paid");
    const { mode, signData, paySig, signature } = asked[0];
    assert.deepEqual({ mode, signData, paySig, signature }, order);
    answer = (options) =>
      options.fail({ errCode: -2, errMsg: "requestVirtualPayment:fail cancel" });
    page.onPayTap();
    await shows(page, (d) => d.state === "idle" && /Cancelled/.test(d.problem), "cancelled");
    answer = (options) => options.fail({ errCode: -15009, errMsg: "requestVirtualPayment:fail" });
    page.onPayTap();
    await shows(page, (d) => d.state === "idle" && /did not succeed/.test(d.problem), "failed");
  } finally {
    backend.stop();
  }
});
