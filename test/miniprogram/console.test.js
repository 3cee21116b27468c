/**
 * The operators' page, in a real browser, with the real servers behind it. With SHOTS=DIRECTORY the
 * pictures of docs/console.md are written there.
 */
"use strict";
const assert = require("node:assert/strict");
const path = require("node:path");
const { after, afterEach, before, beforeEach, test } = require("node:test");
const { chromium } = require("playwright-core");
const { APPID, Stack, poll } = require("./stack.js");

const BROWSER = process.env.CHROMIUM || "/usr/bin/chromium";
const AXE = require.resolve("axe-core/axe.min.js");
const TOKEN = "the-internal-token";
const EVIL = '<img src=x onerror="window.evil=1">';
const OPENID = "oConsole0001";
const USER = `/internal/apps/${APPID}/users/${OPENID}`;

let stack, browser, context, page, asked, violations;

async function login(openid, agent) {
  const { code } = await stack.askFake("POST", "/fake/code", { appid: APPID, openid });
  const res = await fetch(`${stack.url}/v1/login`, {
    method: "POST",
    headers: { "User-Agent": agent || "test" },
    body: JSON.stringify({ code, appid: APPID }),
  });
  assert.equal(res.status, 200);
  return (await res.json()).third_session;
}

const living = async () => {
  const res = await fetch(`${stack.internal}${USER}/sessions`, {
    headers: { "X-Internal-Token": TOKEN },
  });
  return (await res.json()).sessions.length;
};

before(async () => {
  stack = await Stack.start({ server: { internal_token: TOKEN } });
  browser = await chromium.launch({
    executablePath: BROWSER,
    args: ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"],
  });
});

after(async () => {
  await browser?.close();
  await stack.stop();
});

beforeEach(() => {
  asked = [];
  violations = [];
});

afterEach(async () => {
  const origin = new URL(stack.internal).origin;
  const elsewhere = asked.filter((url) => !url.startsWith("blob:") && !url.startsWith(`${origin}/`));
  try {
    assert.deepEqual(elsewhere, [], "no other origin is asked");
    assert.ok(!asked.some((url) => url.includes(TOKEN)), "the token is in no address");
    assert.deepEqual(violations, [], "the page keeps to its Content-Security-Policy");
    assert.equal(await page.evaluate(() => window.evil), undefined, "text is no markup");
    assert.deepEqual(
      await page.evaluate(() => [localStorage.length, sessionStorage.length, document.cookie]),
      [0, 0, ""],
    );
  } finally {
    await context.close();
  }
});

async function open({ width = 1280, locale = "en-US" } = {}) {
  context = await browser.newContext({
    locale,
    viewport: { width, height: 900 },
    acceptDownloads: true,
  });
  page = await context.newPage();
  page.setDefaultTimeout(Number(process.env.PATIENCE_MS) || 20000);
  page.on("request", (request) => asked.push(request.url()));
  page.on("pageerror", (error) => violations.push(error.stack));
  page.on("console", (message) => {
    if (/Content Security Policy|TrustedScript|TrustedHTML/.test(message.text())) {
      violations.push(message.text());
    }
  });
  const answer = await page.goto(`${stack.internal}/internal/console`);
  await page.waitForSelector("html[data-ready]", { state: "attached" });
  return answer;
}

async function enter(token = TOKEN) {
  await page.fill("#token", token);
  await page.click("#enter button");
}

async function find(value, by = "openid") {
  await page.fill("#appid", APPID);
  await page.selectOption("#by", by);
  await page.fill("#value", value);
  await page.click("#find button");
}

/** Faults that axe-core finds, as "rule: element". It is run from outside, past the page's policy. */
async function faults() {
  await page.evaluate(require("node:fs").readFileSync(AXE, "utf8"));
  const { violations: found } = await page.evaluate(() => window.axe.run(document));
  return found.flatMap((rule) => rule.nodes.map((node) => `${rule.id}: ${node.html}`));
}

const shot = async (name) => {
  if (process.env.SHOTS) {
    await page.screenshot({ fullPage: true, path: path.resolve(process.env.SHOTS, `${name}.png`) });
  }
};

const wide = () =>
  page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);

/** The calls that a server may not have yet: one user that is held here. */
async function stub(state) {
  const json = (route, status, body) =>
    route.fulfill({
      status,
      contentType: "application/json",
      body: body ? JSON.stringify(body) : "",
    });
  await page.route(`**/internal/apps/${APPID}/users**`, async (route) => {
    const request = route.request();
    const { pathname, search } = new URL(request.url());
    const call = `${request.method()} ${pathname.replace(/.*\/users/, "")}${search}`;
    state.calls.push([call, request.postDataJSON(), request.headers()["x-wx-actor"]]);
    if (call.startsWith("GET ?")) {
      return json(route, 200, { users: state.user ? [state.user] : [], next: null });
    } else if (call.endsWith("/sessions")) {
      return json(route, 200, { sessions: state.sessions });
    } else if (call.endsWith("/export")) {
      return json(route, 200, { user: state.user });
    } else if (call.startsWith("GET ")) {
      return state.user
        ? json(route, 200, state.user)
        : json(route, 404, { error: "not_found", message: "No such user." });
    } else if (call.endsWith("/block")) {
      state.user.blocked = call.startsWith("PUT")
        ? { since: 1790000000, until: null, ...request.postDataJSON() }
        : null;
    } else {
      state.user = null;
    }
    return json(route, 204);
  });
}

const held = () => ({
  calls: [],
  sessions: [
    {
      id: "A".repeat(20),
      created_at: 1790000000,
      expires_in: 600,
      last_seen_at: 1790000100,
      ip: "192.0.2.7",
      user_agent: EVIL,
    },
  ],
  user: {
    appid: APPID,
    openid: OPENID,
    unionid: "uConsole",
    phoneNumber: "138****5678",
    nickName: EVIL,
    created_at: 1790000000,
    blocked: { since: 1790000000, until: 1890000000, note: EVIL },
  },
});

test("the page and its files come without the token, under a strict policy", async () => {
  const headers = (await open()).headers();
  const policy = headers["content-security-policy"];
  assert.match(policy, /default-src 'none'; script-src 'self'; style-src 'self'/);
  assert.match(policy, /frame-ancestors 'none'/);
  assert.doesNotMatch(policy, /unsafe|\*|http/);
  assert.equal(headers["x-frame-options"], "DENY");
  assert.equal(headers["cache-control"], "no-store");
  assert.match(await page.title(), /wxlogind/);
  assert.equal((await fetch(`${stack.internal}/internal/console/none.js`)).status, 404);
  assert.equal((await fetch(`${stack.internal}/internal/console/main.js/x`)).status, 404);
  assert.equal((await fetch(`${stack.internal}/metrics`)).status, 401);
});

for (const width of [1280, 390]) {
  for (const locale of ["en-US", "zh-CN"]) {
    test(`picture: ${width} px, ${locale}: nothing sticks out, axe-core finds nothing`, async () => {
      const name = `${locale.slice(0, 2)}-${width}`;
      await login(OPENID, "MicroMessenger/8.0.50");
      await open({ width, locale });
      assert.equal(await page.getAttribute("html", "lang"), locale === "zh-CN" ? "zh-CN" : "en");
      assert.deepEqual(await faults(), []);
      await enter();
      await page.waitForSelector("#health .good");
      const sample = held();
      sample.user.nickName = sample.user.blocked.note = sample.sessions[0].user_agent = "小明";
      await stub(sample);
      await find(OPENID);
      await page.waitForSelector("#sessions li");
      await poll(() => page.evaluate(() => document.querySelector("polyline").points.length > 2), "plots");
      assert.equal(await wide(), 0);
      assert.deepEqual(await faults(), []);
      await shot(name);
      await page.click("#erase");
      assert.deepEqual(await faults(), []);
      assert.equal(await wide(), 0);
      await page.keyboard.press("Escape");
      await page.click("#block");
      assert.deepEqual(await faults(), []);
      await page.keyboard.press("Escape");
      const words = await page.evaluate(() => document.body.innerText);
      assert.equal(/刷新/.test(words), locale === "zh-CN");
      await page.click("#language");
      assert.equal(/刷新/.test(await page.evaluate(() => document.body.innerText)), locale !== "zh-CN");
      assert.doesNotMatch(await page.evaluate(() => document.body.innerText), /undefined/);
    });
  }
}

test("a wrong token is said, and stays outside; a reload and Leave forget the right one", async () => {
  await open();
  await enter("wrong");
  await page.getByText("The token is not right.").waitFor();
  await enter("密");
  await page.getByText("The token is not right.").waitFor();
  assert.ok(!(await page.isVisible("#inside")));
  await enter();
  await page.waitForSelector("#health .good");
  assert.equal(await page.inputValue("#token"), "");
  await page.click("#leave");
  assert.ok(!(await page.isVisible("#inside")));
  await enter();
  await page.waitForSelector("#health .good");
  await page.reload();
  await page.waitForSelector("html[data-ready]", { state: "attached" });
  assert.ok(!(await page.isVisible("#inside")));
});

test("a token that is refused later leads back to the door", async () => {
  await open();
  await enter();
  await page.waitForSelector("#health .good");
  await page.route("**/metrics", (route) =>
    route.fulfill({ status: 401, body: '{"error":"unauthorized"}' }),
  );
  await page.getByText("The token is not right.").waitFor();
  assert.ok(!(await page.isVisible("#inside")));
});

test("keyboard only: enter, find, end a session, and close a dialog", async () => {
  await login("oKeys", EVIL);
  await open();
  await page.keyboard.type(TOKEN); // the field has the focus
  await page.keyboard.press("Enter");
  await page.waitForSelector("#health .good");
  await page.keyboard.type(APPID);
  await page.keyboard.press("Tab");
  await page.keyboard.press("Tab");
  await page.keyboard.type("oKeys");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#sessions li");
  assert.ok(await page.getByText(EVIL).count(), "a user agent is text");
  const reach = async (id) => {
    for (let i = 0; i < 40; i++) {
      if (await page.evaluate((want) => document.activeElement.id === want, id)) {
        return;
      }
      await page.keyboard.press("Tab");
    }
    assert.fail(`${id} is not reached`);
  };
  await reach("erase");
  await page.keyboard.press("Enter");
  assert.ok(await page.isVisible("#erase-dialog"));
  await page.keyboard.press("Escape");
  await reach("end-all");
  await page.keyboard.press("Enter");
  await page.keyboard.press("Enter");
  await page.getByText("Ended.").waitFor();
  assert.equal(await page.locator("#sessions li").count(), 0);
});

test("1,000 sessions of one user: all are told, 100 at a time; one ends, then all", async () => {
  stack.wxfake.kill("SIGTERM");
  await stack.wxfake.ended;
  await stack.startFake("--any-code"); // without WeChat's limit on one user's logins
  for (let i = 0; i < 50; i++) {
    await Promise.all(Array.from({ length: 20 }, () => login(OPENID)));
  }
  assert.equal(await living(), 1000);
  await open({ width: 390 });
  await enter();
  await find(OPENID);
  await page.getByText("(1000)").waitFor();
  for (let n = 100; n < 1000; n += 100) {
    assert.equal(await page.locator("#sessions li").count(), n);
    await page.click("#more");
  }
  assert.equal(await page.locator("#sessions li").count(), 1000);
  assert.ok(!(await page.isVisible("#more")));
  assert.equal(await wide(), 0);
  await page.locator("#sessions button").first().click();
  await page.getByText("(999)").waitFor();
  assert.equal(await living(), 999);
  await page.click("#end-all");
  await page.click("#end-dialog .hard");
  await page.getByText("(0)").waitFor();
  assert.equal(await living(), 0);
});

test("find, block, unblock, export, erase: what is asked, and HTML stays text", async () => {
  const state = held();
  await open();
  await page.fill("#actor", "zhang");
  await enter();
  await stub(state);
  for (const [by, value] of [["phone", "+8613812345678"], ["unionid", "uConsole"]]) {
    await find(value, by);
    await page.getByText("Found: 1").waitFor();
    assert.equal(state.calls.at(-1)[0], `GET ?${by}=${encodeURIComponent(value)}`);
    assert.equal(state.calls.at(-1)[2], "zhang");
  }
  await page.locator("#found button").click();
  await page.waitForSelector("#sessions li");
  assert.equal(await page.textContent("#person-name"), EVIL);
  assert.ok((await page.textContent("#facts")).includes(`· ${EVIL}`), "the note");
  assert.ok((await page.textContent("#sessions")).includes(EVIL), "the user agent");
  assert.equal(await page.locator("main img").count(), 0);

  await page.click("#unblock");
  await page.getByText("Unblocked.").waitFor();
  assert.ok(!(await page.isVisible("#unblock")));
  await page.click("#block");
  await page.fill("#note", EVIL);
  await page.fill("#until", "2030-01-02T03:04");
  await page.click("#block-dialog .hard");
  await page.getByText("Blocked: no session").waitFor();
  const until = await page.evaluate(() => new Date("2030-01-02T03:04").getTime() / 1000);
  const put = state.calls.find(([call]) => call.startsWith("PUT"));
  assert.deepEqual(put.slice(0, 2), [`PUT /${OPENID}/block`, { note: EVIL, until }]);

  const saved = page.waitForEvent("download");
  await page.click("#export");
  const file = await saved;
  assert.equal(file.suggestedFilename(), `user-${OPENID}.json`);
  assert.match(require("node:fs").readFileSync(await file.path(), "utf8"), /uConsole/);

  await page.click("#erase");
  assert.ok(await page.isDisabled("#erase-yes"));
  await page.fill("#erase-typed", OPENID.slice(1));
  assert.ok(await page.isDisabled("#erase-yes"));
  await page.keyboard.press("Enter");
  assert.ok(state.user, "Enter does not pass a wrong confirmation");
  if (!(await page.isVisible("#erase-dialog"))) {
    await page.click("#erase");
  }
  await page.fill("#erase-typed", OPENID);
  await page.click("#erase-yes");
  await page.getByText("Erased.").waitFor();
  assert.equal(state.user, null);
});

test("a call that the server does not have, and an app that is not configured, are sentences", async () => {
  await open();
  await enter();
  for (const [status, error, words] of [
    [404, "not_found", "this server does not have the call"],
    [405, "method_not_allowed", "This server does not have the call"],
  ]) {
    await page.route("**/users?*", (route) =>
      route.fulfill({ status, body: JSON.stringify({ error, message: EVIL }) }),
    );
    await find("138", "phone");
    await page.getByText(words).waitFor();
    assert.ok((await page.textContent("#people-trouble")).includes(EVIL));
    await page.unroute("**/users?*");
  }
  await page.fill("#appid", "wx/../../metrics");
  await page.selectOption("#by", "openid");
  await page.click("#find button");
  await page.getByText("No such app is configured.").waitFor();
});

test("Redis away: the page says so, and goes on when it is back", async () => {
  await open();
  await enter();
  await page.waitForSelector("#health .good");
  stack.redis.kill("SIGSTOP");
  try {
    await page.getByText("Redis does not answer.", { exact: true }).waitFor();
    assert.match(await page.textContent("#health .bad"), /Not ready\./);
    await find(OPENID);
    await page.getByText("Redis or the user database does not answer. Try again").waitFor();
  } finally {
    stack.redis.kill("SIGCONT");
  }
  await page.getByText("Redis answers.").waitFor();
});
