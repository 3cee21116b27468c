/** The session goes to baseUrl's origin and to those of `origins`, and nowhere else. */
"use strict";
const assert = require("node:assert/strict");
const { test } = require("node:test");
const { Phone } = require("./phone.js");
const { startBackend } = require("./stack.js");

const SESSION = "S".repeat(43);
const FORMS = {
  baseUrl: "https://login.example.com",
  origins: ["https://api.example.com:8443", "http://[2001:db8::1]:80/"],
};

function newPhone(configuration) {
  const phone = new Phone(configuration);
  phone.session = SESSION;
  return phone;
}

const GOOD = [
  "/v1/session",
  "//evil.com/is a path under baseUrl",
  "/\\evil.com",
  "https://login.example.com",
  "https://login.example.com/",
  "https://login.example.com:443/x",
  "HTTPS://LOGIN.EXAMPLE.COM/x",
  "https://login.example.com?x=@evil.com",
  "https://login.example.com#x",
  "https://api.example.com:8443/x",
  "http://[2001:DB8::1]/x",
];

const BAD = [
  "https://evil.com/",
  "http://login.example.com/",
  "https://login.example.com:444/",
  "https://login.example.com:0/",
  "https://login.example.com:65979/", // 443 + 65536
  "https://login.example.com:/",
  "https://login.example.com.evil.com/",
  "https://login.example.com.",
  "https://login.example.comevil",
  "https://evil-login.example.com/",
  "https://sub.login.example.com/",
  "https://login.example.com@evil.com/",
  "https://login.example.com:443@evil.com/",
  "https://login.example.com%40evil.com/",
  "https://evil.com@login.example.com/",
  "https://user:password@login.example.com/",
  "https://login.example.com\\@evil.com/",
  "https://login.example.com\\.evil.com/",
  "https:\\\\login.example.com/",
  "https:/login.example.com/",
  "https:login.example.com/",
  "https:///login.example.com/",
  "https://\tlogin.example.com/",
  "https://login.example.com\t.evil.com/",
  "https://login.example.com\n@evil.com/",
  "https://login.example.com .evil.com/",
  "https://login。example。com/",
  "https://%6cogin.example.com/",
  " https://login.example.com/",
  "\nhttps://login.example.com/",
  "x\nhttps://login.example.com/",
  "ftp://login.example.com/",
  "javascript:https://login.example.com/",
  "https://api.example.com/",
  "https://api.example.com:443/",
  "https://[2001:db8::2]/",
  "v1/session",
  "@evil.com/",
  ".evil.com/",
  "",
  undefined,
  null,
  { toString: () => "https://login.example.com/" },
];

for (const url of GOOD) {
  test(`gets the session: ${JSON.stringify(url)}`, async () => {
    const phone = newPhone(FORMS);
    phone.transport = () => ({ statusCode: 200, header: {}, data: {} });
    await phone.common.request({ url });
    const [sent] = phone.requests;
    assert.equal(sent.header.Authorization, `Bearer ${SESSION}`);
    // A parser of the platform's own kind agrees about where it went.
    const origins = [FORMS.baseUrl, ...FORMS.origins].map((origin) => new URL(origin).origin);
    assert.ok(origins.includes(new URL(sent.url).origin));
  });
}

for (const url of BAD) {
  test(`gets nothing: ${JSON.stringify(url)}`, async () => {
    const phone = newPhone(FORMS);
    await assert.rejects(phone.common.request({ url }), { code: "origin" });
    assert.equal(phone.requests.length, 0);
    assert.equal(phone.calls.login, 0);
  });
}

test("configure refuses what is no address", () => {
  const { configure } = new Phone().common;
  for (const baseUrl of [
    undefined,
    "",
    "login.example.com",
    "https://u@login.example.com",
    "https://x.example\\y",
    "https://x.example?a",
    "ftp://x.example",
  ]) {
    assert.throws(() => configure({ baseUrl }), /baseUrl/);
  }
  assert.throws(() => configure(), /baseUrl/);
  for (const origin of [
    "",
    "*",
    "https://*.example.com",
    "api.example.com",
    "https://api.example.com/path",
    "https://api.example.com?",
    "https://a@b.example",
    null,
  ]) {
    assert.throws(() => configure({ baseUrl: "https://x.example", origins: [origin] }), /origins/);
  }
});

test("a redirect is not followed: the session does not come along to where it leads", async () => {
  const evil = await startBackend(() => ({ body: "thank you" }));
  const home = await startBackend(() => ({ status: 302, headers: { location: `${evil.url}/` } }));
  try {
    const phone = newPhone({ baseUrl: home.url });
    await assert.rejects(phone.common.request({ url: "/" }), {
      statusCode: 302,
      code: "http_error",
    });
    assert.equal(home.seen.length, 1);
    assert.equal(evil.seen.length, 0);
  } finally {
    home.stop();
    evil.stop();
  }
});
