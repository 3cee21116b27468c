/**
 * The operators' page, in a real browser, with the real servers behind it. With SHOTS=DIRECTORY the
 * pictures of docs/console.md are written there.
 */
"use strict";
const assert = require("node:assert/strict");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { after, afterEach, before, beforeEach, test } = require("node:test");
const { chromium } = require("playwright-core");
const { APPID, Stack, poll } = require("./stack.js");

const BROWSER = process.env.CHROMIUM || "/usr/bin/chromium";
const AXE = require.resolve("axe-core/axe.min.js");
const TOKEN = "the-internal-token";
const EVIL = '<img src=x onerror="window.evil=1">';
const OPENID = "oConsole0001";
const DIR = fs.mkdtempSync(path.join(os.tmpdir(), "wxlogind-console-"));
const AUDIT = path.join(DIR, "audit.log");
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
  stack = await Stack.start({
    server: { internal_token: TOKEN },
    audit: { file: AUDIT, openid: "clear" },
  });
  browser = await chromium.launch({
    executablePath: BROWSER,
    args: ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"],
  });
});

after(async () => {
  await browser?.close();
  await stack.stop();
  fs.rmSync(DIR, { recursive: true, force: true });
});

beforeEach(() => {
  asked = [];
  violations = [];
});

afterEach(async () => {
  const origin = new URL(stack.internal).origin;
  const elsewhere = asked.filter(
    (url) => !url.startsWith("blob:") && !url.startsWith(`${origin}/`),
  );
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

/**
 * Faults that axe-core finds, as "rule: element". It is run from outside, past the page's policy.
 */
async function faults() {
  await page.evaluate(fs.readFileSync(AXE, "utf8"));
  const { violations: found } = await page.evaluate(() => window.axe.run(document));
  return found.flatMap((rule) => rule.nodes.map((node) => `${rule.id}: ${node.html}`));
}

const wide = () =>
  page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);

/** A call of a backend's own, beside the page. */
async function inside(method, where, body) {
  const res = await fetch(`${stack.internal}/internal/apps/${APPID}/users${where}`, {
    method,
    headers: { "X-Internal-Token": TOKEN },
    body: body && JSON.stringify(body),
  });
  const text = await res.text();
  assert.ok([200, 204, 404].includes(res.status), `${method} ${where}: ${res.status} ${text}`);
  return text ? JSON.parse(text) : null;
}

/** A user who wrote markup wherever a user can write, and one session of theirs. */
async function someone(words = EVIL, agent = EVIL) {
  await inside("DELETE", `/${OPENID}`);
  await inside("DELETE", `/${OPENID}/block`);
  await login(OPENID, agent); // WeChat has a unionid of its own for them
  await inside("PUT", `/${OPENID}`, {
    nickName: words,
    unionid: "uConsole",
    phoneNumber: "+8613812345678",
  });
}

const audited = () =>
  fs
    .readFileSync(AUDIT, "utf8")
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line));

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
    test(`${width} px, ${locale}: nothing sticks out, axe-core finds nothing`, async () => {
      await someone("小明", "MicroMessenger/8.0.50");
      await open({ width, locale });
      assert.equal(await page.getAttribute("html", "lang"), locale === "zh-CN" ? "zh-CN" : "en");
      assert.deepEqual(await faults(), []);
      await enter();
      await page.waitForSelector("#health .good");
      await find(OPENID);
      await page.waitForSelector("#sessions li");
      await poll(
        () => page.evaluate(() => document.querySelector("polyline").points.length > 2),
        "plots",
      );
      assert.equal(await wide(), 0);
      assert.deepEqual(await faults(), []);
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
      assert.equal(
        /刷新/.test(await page.evaluate(() => document.body.innerText)),
        locale !== "zh-CN",
      );
      assert.doesNotMatch(await page.evaluate(() => document.body.innerText), /undefined/);
    });
  }
}

test("a wrong token is refused; a reload and Leave forget the right one", async () => {
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
  await page.getByText("(1000: the newest; there may be older ones)").waitFor();
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

test("found by phone, unionid and openid; markup stays text", async () => {
  await someone();
  await open();
  await enter();
  for (const [by, value] of [
    ["phone", "+8613812345678"],
    ["unionid", "uConsole"],
  ]) {
    await find(value, by);
    await page.getByText("Found: 1", { exact: true }).waitFor();
    assert.equal(await page.textContent("#found span"), `${OPENID} · +86138****5678 · ${EVIL}`);
  }
  await find("+8613800000000", "phone");
  await page.getByText("Found: 0", { exact: true }).waitFor();
  await find("uConsole", "unionid");
  await page.locator("#found button").click();
  await page.waitForSelector("#sessions li");
  assert.equal(await page.evaluate(() => document.activeElement.id), "person-name");
  assert.equal(await page.textContent("#person-name"), OPENID);
  const facts = await page.textContent("#facts");
  for (const words of [`nickName${EVIL}`, "phoneNumber+8613812345678", "unioniduConsole"]) {
    assert.ok(facts.includes(words), words);
  }
  assert.ok((await page.textContent("#sessions")).includes(EVIL), "the user agent");
  await find("oNobody");
  await page.getByText("does not know this user").waitFor();
  assert.ok(!(await page.isVisible("#unblock")));
});

test("a user is blocked with a note and a time, then unblocked; both are audited", async () => {
  await someone();
  await open();
  await page.fill("#actor", "zhang");
  await enter();
  await find(OPENID);
  assert.ok(!(await page.isVisible("#unblock")));
  await page.click("#block");
  await page.fill("#note", EVIL);
  await page.fill("#until", "2020-01-02T03:04");
  await page.click("#block-dialog .hard");
  await page.getByText("until must be a time in Unix seconds, in the future.").waitFor();
  await page.click("#block");
  await page.fill("#note", EVIL);
  await page.fill("#until", "2038-01-02T03:04");
  await page.click("#block-dialog .hard");
  await page.getByText("Blocked: no session").waitFor();
  const until = await page.evaluate(() => new Date("2038-01-02T03:04").getTime() / 1000);
  const { blocked } = await inside("GET", `/${OPENID}`);
  assert.deepEqual([blocked.note, blocked.until], [EVIL, until]);
  assert.ok((await page.textContent("#facts")).includes(`· ${EVIL}`), "the note is text");
  assert.equal(await living(), 0);

  await page.selectOption("#by", "blocked");
  assert.ok(!(await page.isVisible("#value")));
  await page.click("#find button");
  await page.getByText("Found: 1", { exact: true }).waitFor();
  assert.match(await page.textContent("#found span"), /oConsole0001 · .* · blocked · /);
  await page.locator("#found button").click();
  await page.click("#unblock");
  await page.getByText("Unblocked.").waitFor();
  assert.ok(!(await page.isVisible("#unblock")));
  assert.equal((await inside("GET", `/${OPENID}`)).blocked, null);
  const events = await poll(() => {
    const mine = audited().filter((line) => line.actor === "zhang");
    return mine.some((line) => line.event === "user_unblocked") && mine;
  }, "the audit log");
  assert.ok(events.some((line) => line.event === "user_blocked" && line.by === "backend"));
});

test("exported and erased: the file, and what is left", async () => {
  await someone();
  await open();
  await enter();
  await find(OPENID);
  await page.waitForSelector("#sessions li");
  const saved = page.waitForEvent("download");
  await page.click("#export");
  const file = await saved;
  assert.equal(file.suggestedFilename(), `user-${OPENID}.json`);
  const held = JSON.parse(fs.readFileSync(await file.path(), "utf8"));
  assert.deepEqual(
    [held.user.nickName, held.user.phoneNumber, held.sessions[0].user_agent],
    [EVIL, "+8613812345678", EVIL],
  );

  await page.click("#erase");
  assert.ok(await page.isDisabled("#erase-yes"));
  await page.fill("#erase-typed", OPENID.slice(1));
  assert.ok(await page.isDisabled("#erase-yes"));
  await page.keyboard.press("Enter");
  assert.ok(await inside("GET", `/${OPENID}`), "Enter does not pass a wrong confirmation");
  if (!(await page.isVisible("#erase-dialog"))) {
    await page.click("#erase");
  }
  await page.fill("#erase-typed", OPENID);
  await page.click("#erase-yes");
  await page.getByText("Erased.").waitFor();
  assert.equal((await inside("GET", `/${OPENID}`)).error, "not_found");
  assert.equal(await living(), 0);
  assert.ok(!(await page.textContent("main")).includes(EVIL), "the page forgets, too");
});

test("all users, 100 at a time, by what the server names as next", async () => {
  const { users } = await inside("GET", "?limit=1000");
  const names = Array.from(
    { length: 250 - users.length },
    (_, i) => `oPage${String(i).padStart(3, "0")}`,
  );
  for (let i = 0; i < names.length; i += 25) {
    await Promise.all(
      names
        .slice(i, i + 25)
        .map((name) => inside("PUT", `/${name}`, { nickName: `\u202e${EVIL}` })),
    );
  }
  await open({ width: 390 });
  await enter();
  await page.selectOption("#by", "every");
  await page.click("#find button");
  for (const [shown, words] of [
    [100, "Found: 100, and more"],
    [200, "Found: 200, and more"],
    [250, "Found: 250"],
  ]) {
    await page.getByText(words, { exact: true }).waitFor();
    assert.equal(await page.locator("#found li").count(), shown);
    if (shown < 250) {
      await page.click("#next");
    }
  }
  assert.ok(!(await page.isVisible("#next")));
  const shown = await page.locator("#found bdi:first-child").allTextContents();
  assert.equal(new Set(shown).size, 250);
  await page.click("#language");
  assert.equal(await page.locator("#found li").count(), 250);
  assert.equal(await page.locator("#found button").first().textContent(), "查看");
  assert.equal(await wide(), 0);
  await Promise.all(names.map((name) => inside("DELETE", `/${name}`)));
});

test("a name that would be another path is none", async () => {
  await open();
  await enter();
  await page.waitForSelector("#health .good");
  for (const [appid, value] of [
    [APPID, ".."],
    [APPID, "."],
    ["..", OPENID],
  ]) {
    const before = asked.filter(
      (url) => url.includes("/internal/apps") || url.includes("/users"),
    ).length;
    await page.fill("#appid", appid);
    await page.selectOption("#by", "openid");
    await page.fill("#value", value);
    await page.click("#find button");
    await page.getByText("That cannot be an appid or an openid.").waitFor();
    const after = asked.filter(
      (url) => url.includes("/internal/apps") || url.includes("/users"),
    ).length;
    assert.equal(after, before);
    await find("oNobody");
    await page.getByText("does not know this user").waitFor();
  }
});

test("WeChat's hosts and each app's access_token: well, and not", async () => {
  await open();
  await enter();
  const health = (words) => page.locator("#health li", { hasText: words });
  await health(`${stack.fake}: answers.`).waitFor();
  await health(`access_token ${APPID}: none now`).waitFor();
  assert.equal(await page.inputValue("#appid"), APPID, "the only app is filled in");
  const url = `${stack.internal}/internal/apps/${APPID}/access-token`;
  const token = async () => (await fetch(url, { headers: { "X-Internal-Token": TOKEN } })).json();
  await stack.fault({ api: "stable_token", mode: "errcode", errcode: 40125, count: 100 });
  assert.equal((await token()).error, "wechat_config");
  await health("failed renewals: 1 (wechat_config)").waitFor();
  assert.match(await health("failed renewals").getAttribute("class"), /bad/);
  await stack.askFake("DELETE", "/fake/fault");
  const { access_token } = await poll(async () => {
    const answer = await token();
    return answer.access_token && answer;
  }, "a token");
  await health("ends in 119 min").waitFor();
  assert.ok(!(await page.content()).includes(access_token), "never the token");

  stack.wxfake.kill("SIGTERM");
  await stack.wxfake.ended;
  for (let i = 0; i < 12; i++) {
    const body = JSON.stringify({ code: `none${i}`, appid: APPID });
    await fetch(`${stack.url}/v1/login`, { method: "POST", body });
  }
  await health(`${stack.fake}: away. It is skipped`).waitFor();
  await stack.startFake();
  await health(`${stack.fake}: answers.`).waitFor();
});

test("an unknown call and an unknown app are told in a sentence", async () => {
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

/**
 * What a busy server sees: logins, checks, phone numbers, codes that are refused; more and less of
 * it in waves.
 */
async function load(state) {
  const inside = { "X-Internal-Token": TOKEN };
  for (let n = 0; state.going; n++) {
    const openid = `oLoad${n % 40}`;
    const token = await login(openid, "MicroMessenger/8.0.50 (iPhone)").catch(() => null);
    const Authorization = `Bearer ${token}`;
    for (let i = 0; i < 6 + 4 * Math.sin(n / 40); i++) {
      await fetch(`${stack.internal}/internal/auth`, { headers: { ...inside, Authorization } });
    }
    if (n % 10 === 0) {
      const wanted = { appid: APPID, openid, kind: "phone" };
      const { code } = await stack.askFake("POST", "/fake/code", wanted);
      const phone = { method: "POST", headers: { Authorization }, body: JSON.stringify({ code }) };
      await fetch(`${stack.url}/v1/user/phone`, phone);
      const wrong = JSON.stringify({ code: "none of WeChat's", appid: APPID });
      await fetch(`${stack.url}/v1/login`, { method: "POST", body: wrong });
    }
    await new Promise((resolve) => setTimeout(resolve, 60 + 50 * Math.sin(n / 40)));
  }
}

/* Only for scripts/console-shots: the plots are of five minutes. */
async function pictures() {
  await someone("小明", "MicroMessenger/8.0.50 (iPhone)");
  const pages = [];
  for (const [locale, width] of [
    ["en-US", 1280],
    ["en-US", 390],
    ["zh-CN", 1280],
    ["zh-CN", 390],
  ]) {
    await open({ locale, width });
    await enter();
    pages.push([context, page, `${locale.slice(0, 2)}-${width}.png`]);
  }
  const state = { going: true };
  const loading = load(state);
  const ms = 1000 * (Number(process.env.SECONDS_OF_LOAD) || 300);
  await new Promise((resolve) => setTimeout(resolve, ms));
  for ([context, page] of pages) {
    await find(OPENID);
    await page.waitForSelector("#sessions li");
  }
  for (const [, shown, name] of pages) {
    await shown.screenshot({ fullPage: true, path: path.resolve(process.env.SHOTS, name) });
  }
  state.going = false;
  await loading;
  await Promise.all(pages.slice(0, -1).map(([opened]) => opened.close()));
}

if (process.env.SHOTS) {
  test("pictures", pictures);
}
