/**
 * The page that wxfake serves, in a real browser, with the real servers behind it: each button, and
 * the picture that it leaves.
 */
"use strict";
const assert = require("node:assert/strict");
const { after, afterEach, before, beforeEach, test } = require("node:test");
const { chromium } = require("playwright-core");
const { APPID, Stack, poll } = require("./stack.js");

const BROWSER = process.env.CHROMIUM || "/usr/bin/chromium";
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

let stack, browser, context, page, troubles;

before(async () => {
  const push = {
    push_token: "fakepushtoken",
    push_aes_key: "fakepushkeyfakepushkeyfakepushkeyfakepushke",
  };
  stack = await Stack.start({ session: { max_per_user: 1 }, [`app ${APPID}`]: push });
  // with a user-data-dir of its own, that ends with it
  browser = await chromium.launch({ executablePath: BROWSER, args: FLAGS });
});

after(async () => {
  await browser?.close();
  await stack.stop();
});

/** A page with nothing stored yet. */
async function open({ locale = "en-US", width = 1380, height = 900, ...more } = {}) {
  context = await browser.newContext({
    locale,
    viewport: { width, height },
    reducedMotion: "reduce",
    ...more,
  });
  page = await context.newPage();
  page.setDefaultTimeout(20000);
  page.on("console", (message) => {
    // A browser says so of every answer from 400 on, also where the page awaits it.
    const answered =
      message.text().startsWith("Failed to load resource: the server responded with a status of") &&
      [stack.url, `${stack.fake}/fake/backend`].some((url) =>
        message.location().url.startsWith(url),
      );
    if (!answered && ["error", "warning"].includes(message.type())) {
      troubles.push(`${message.type()}: ${message.text()}`);
    }
  });
  page.on("pageerror", (error) => troubles.push(error.stack));
  await page.addInitScript(() => {
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (event) =>
      window.violations.push(`${event.violatedDirective} ${event.blockedURI}`),
    );
  });
  await page.goto(`${stack.fake}/`);
  await ready();
}

const ready = () => page.waitForSelector("html[data-ready]", { state: "attached" });

beforeEach(() => {
  troubles = [];
});

afterEach(async () => {
  try {
    assert.deepEqual(troubles, [], "the console is silent");
    assert.deepEqual(
      page ? await page.evaluate(() => window.violations) : [],
      [],
      "no violation of the Content-Security-Policy",
    );
  } finally {
    await context.close();
    await stack.askFake("DELETE", "/fake/fault");
  }
});

/** What the diagram shows since the last act: ["phone>wxlogind POST /v1/login", ...]. */
const picture = () =>
  page.evaluate(() => {
    const rows = [...document.querySelectorAll("#rows > li")];
    const from = rows.map((row) => row.className.includes("act")).lastIndexOf(true);
    return rows
      .slice(from + 1)
      .map(
        (row) => `${row.dataset.from}>${row.dataset.to} ${row.querySelector(".label").textContent}`,
      );
  });

const acts = () =>
  page.evaluate(() => [...document.querySelectorAll("#rows > .act")].map((row) => row.dataset.act));

/**
 * Waits until the messages since the last act, those to Redis and the user database left out, are
 * these: strings or patterns.
 */
async function shows(wanted) {
  let seen;
  const fits = (rows) =>
    rows.length === wanted.length &&
    wanted.every((w, i) => (typeof w === "string" ? rows[i] === w : w.test(rows[i])));
  try {
    await poll(
      async () => fits((seen = (await picture()).filter((row) => !/redis|users/.test(row)))),
      "the picture",
    );
  } catch (e) {
    e.message += `\nit is ${JSON.stringify(seen, null, 1)}`;
    throw e;
  }
  return picture();
}

const phone = (words) => page.locator("#screen").getByText(words, { exact: true });
const press = (id) => page.click(`#${id}`);
const settled = () =>
  poll(async () => (await page.locator("[aria-busy]").count()) === 0, "the button is done");

const LOGIN = [
  "phone>wechat wx.login",
  /^wechat>phone code .{4}…$/,
  "phone>wxlogind POST /v1/login",
  "wxlogind>wechat GET /sns/jscode2session",
  "wechat>wxlogind 200 openid, session_key",
  "wxlogind>phone 200",
];
const CALL = ["phone>wxlogind GET /v1/session", "wxlogind>phone 200"];

/**
 * The messages without those of Redis, and where Redis' stand: before and after which of the
 * others.
 */
function redisIsBetween(rows, first, last) {
  const from = rows.indexOf(first);
  const to = rows.lastIndexOf(last);
  return rows.slice(from, to).some((row) => row.startsWith("wxlogind>redis"));
}

test("opened: the mini program logs in; every message is drawn in order", async () => {
  await open();
  const rows = await shows([...LOGIN, ...CALL]);
  assert.ok(
    redisIsBetween(
      rows,
      "phone>wxlogind POST /v1/login",
      "wxlogind>wechat GET /sns/jscode2session",
    ),
    "the code is claimed before WeChat is asked",
  );
  assert.ok(
    redisIsBetween(rows, "wechat>wxlogind 200 openid, session_key", "wxlogind>phone 200"),
    "the session is stored before the phone has it",
  );
  assert.ok(
    redisIsBetween(rows, "phone>wxlogind GET /v1/session", "wxlogind>phone 200"),
    "the first call with it asks Redis",
  );
  await phone("Logged in").waitFor();
  assert.match(await page.locator("#screen .card").first().innerText(), new RegExp(APPID));
  assert.equal(await page.locator("#live").innerText(), "live");
});

test("a late message is put at its time, and the clocks are told apart", async () => {
  await open();
  const seen = await page.evaluate(async () => {
    const { Diagram, calibrate, now, reading } = await import("/fake/page/diagram.js");
    const list = document.createElement("ol");
    const diagram = new Diagram({
      list,
      scroller: document.createElement("div"),
      empty: document.createElement("p"),
    });
    diagram.message({ at: 10, from: "phone", to: "wxlogind", label: "sent" });
    diagram.message({ at: 30, from: "wxlogind", to: "phone", label: "answered" });
    diagram.redis({ at: 20, script: false, command: "EVAL", args: ["(9 B)", "1", "x:c:1"] });
    diagram.redis({ at: 20, script: true, command: "GET", args: ["x:c:1"] });
    diagram.wechat({
      at: 21,
      id: 1,
      api: "jscode2session",
      status: 200,
      errcode: 40029,
      code: "abcd",
      fault: "",
    });
    diagram.wechatEnd({ at: 22, id: 1 });
    diagram.wechatEnd({ at: 23, id: 2 });
    for (const error of [2, 0.5]) {
      // wxfake's clock is a minute ahead
      calibrate(reading() - error, reading() + 60000, reading() + error);
    }
    return {
      rows: [...list.querySelectorAll(".label")].map((label) => label.textContent),
      within: list.querySelectorAll(".within li").length,
      ahead: now() - reading(),
    };
  });
  assert.deepEqual(seen.rows, [
    "sent",
    "EVAL",
    "GET /sns/jscode2session",
    "200 errcode 40029",
    "answered",
  ]);
  assert.equal(seen.within, 1);
  assert.ok(Math.abs(seen.ahead - 60000) < 1, String(seen.ahead));
});

test("the page shows no secret: no code, token, openid or session_key in full", async () => {
  await open();
  await phone("Logged in").waitFor();
  await press("other");
  await settled();
  await page.evaluate(() =>
    document.querySelectorAll("details").forEach((box) => (box.open = true)),
  );
  const words = await page.evaluate(
    () => document.body.innerText + document.getElementById("screen").shadowRoot.textContent,
  );
  const stored = await page.evaluate(() =>
    Object.values(localStorage).map((value) => value.replace(/"/g, "")),
  );
  assert.equal(stored.length, 2, "a session and an openid");
  stored.forEach((secret) => assert.ok(!words.includes(secret)));
  assert.doesNotMatch(words.replaceAll(APPID, ""), /[\w-]{20,}/, "nothing that looks like one");
});

test("log in: always a new login, and the phone shows its session", async () => {
  await open();
  await press("login");
  await settled();
  await shows([...LOGIN, ...CALL]);
  assert.match(await page.locator("#hint").innerText(), /gets only a third_session/);
});

test("call with session: wxlogind answers, WeChat is not asked", async () => {
  await open();
  await press("call");
  await settled();
  await shows(CALL);
  assert.match(await page.locator("#hint").innerText(), /without asking WeChat/);
});

test("call your backend: the proxy asks wxlogind who calls and tells the backend", async () => {
  await open();
  await press("backend");
  await settled();
  const rows = [
    "phone>backend GET /fake/backend",
    "backend>wxlogind GET /internal/auth",
    "wxlogind>backend 200",
    "backend>phone 200",
  ];
  await shows(rows);
  assert.match(
    await page.locator('#rows [data-from="wxlogind"][data-to="backend"] .detail').innerText(),
    /^X-Wx-Openid: o.{3}…$/,
  );
  await press("end");
  await settled();
  await press("backend");
  await settled();
  await shows([
    ...rows.slice(0, 2),
    "wxlogind>backend 401 logged_out",
    "backend>phone 401 invalid_session · logged_out",
    ...LOGIN,
    ...rows,
  ]);
});

test("the user database: its calls stand before the answer that needed them", async () => {
  await open();
  await press("login");
  await settled();
  const seen = await poll(async () => {
    const rows = await picture();
    return rows.includes("wxlogind>users seen") && rows;
  }, "the login is noted");
  assert.ok(
    seen.indexOf("wxlogind>users seen") < seen.indexOf("wxlogind>phone 200"),
    seen.join("\n"),
  );
  assert.ok(seen.indexOf("wxlogind>users seen") > seen.indexOf("phone>wxlogind POST /v1/login"));
  await page.locator("#screen").getByText("Name, picture, phone").click();
  await poll(async () => (await picture()).includes("wxlogind>users get"), "the profile is read");
});

test("the steps are numbered and named; what Redis is told within one is one row", async () => {
  await open();
  await press("login");
  await settled();
  await shows([...LOGIN, ...CALL]);
  const steps = await page.evaluate(() => {
    const rows = [...document.querySelectorAll("#rows > li")];
    const act = rows.slice(rows.map((row) => row.className.includes("act")).lastIndexOf(true) + 1);
    return {
      steps: act
        .filter((row) => row.querySelector(".step").textContent)
        .map(
          (row) =>
            `${row.querySelector(".step").textContent}: ${row.dataset.from}>${row.dataset.to}`,
        ),
      shown: act.filter((row) => !row.classList.contains("folded")).map((row) => row.dataset.to),
    };
  });
  assert.deepEqual(steps.steps, [
    "1 code: phone>wechat",
    "2 openid: wxlogind>wechat",
    "3 session: wxlogind>redis",
    "4 third_session: wxlogind>phone",
    "5 who is calling: phone>wxlogind",
  ]);
  assert.ok(
    steps.shown.every((to, i) => to !== "redis" || steps.shown[i - 1] !== "redis"),
    steps.shown.join(" "),
  );
  const more = page.locator("#rows .more:visible").first();
  assert.match(await more.innerText(), /^\d+ more$/);
  const folded = await page.locator("#rows .folded").count();
  assert.ok(folded > 0);
  await more.click();
  assert.ok((await page.locator("#rows .folded").count()) < folded);
  await page.locator("#rows .more:visible").first().click();
  assert.equal(await page.locator("#rows .folded").count(), folded);
});

for (const colorScheme of ["light", "dark"])
  test(`at 1280 x 800 the act's head is visible, contrast is 4.5:1: ${colorScheme}`, async () => {
    await open({ width: 1280, height: 800, colorScheme });
    await press("login");
    await settled();
    await shows([...LOGIN, ...CALL]);
    const seen = await page.evaluate(() => {
      const box = (element) => element.getBoundingClientRect();
      const act = [...document.querySelectorAll("#rows .act")].pop();
      const lanes = box(document.querySelector(".lanes"));
      return {
        page: document.documentElement.scrollHeight - innerHeight,
        below: box(act).top - lanes.bottom,
        bottom: box(act.nextSibling).bottom - innerHeight,
      };
    });
    assert.ok(seen.page <= 0, "nothing to scroll");
    assert.ok(
      seen.below >= 0 && seen.below < 30,
      `the act's head is ${seen.below} px below the lanes`,
    );
    assert.ok(seen.bottom < 0, "its first step is in sight");
    await press("lose"); // a pressed button
    await page.locator("#screen").getByRole("button", { name: "Log out" }).click();
    await phone("Not logged in").waitFor();
    const faint = await page.evaluate(() => {
      const channels = (colour) => {
        const found = /^color\(srgb ([\d.]+) ([\d.]+) ([\d.]+)(?: \/ ([\d.]+))?\)$/.exec(colour);
        const n = found
          ? [...found.slice(1, 4).map((c) => c * 255), Number(found[4] ?? 1)]
          : colour.match(/[\d.]+/g).map(Number);
        return [...n.slice(0, 3), n[3] ?? 1];
      };
      const luminance = ([r, g, b]) =>
        [r, g, b]
          .map((c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4))
          .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
      const parent = (element) => element.parentElement || element.getRootNode().host || null;
      const behind = (element) => {
        for (let e = element; e; e = parent(e)) {
          const c = channels(getComputedStyle(e).backgroundColor);
          if (c[3] === 1) {
            return c;
          }
        }
        return [255, 255, 255, 1];
      };
      const out = [];
      for (const root of [document, document.getElementById("screen").shadowRoot]) {
        for (const element of root.querySelectorAll("*")) {
          const own = [...element.childNodes].some(
            (node) => node.nodeType === 3 && node.textContent.trim(),
          );
          if (
            own &&
            element.checkVisibility({ visibilityProperty: true }) &&
            !["STYLE", "SCRIPT"].includes(element.tagName)
          ) {
            const [a, b] = [
              luminance(channels(getComputedStyle(element).color)),
              luminance(behind(element)),
            ].sort((x, y) => y - x);
            if ((a + 0.05) / (b + 0.05) < 4.5) {
              out.push(
                `${element.tagName}.${element.className} ${element.textContent.slice(0, 30)}: ` +
                  `${((a + 0.05) / (b + 0.05)).toFixed(2)}`,
              );
            }
          }
        }
      }
      return out;
    });
    assert.deepEqual(faint, []);
  });

test("restart: a session and a living session_key are enough", async () => {
  await open();
  await press("restart");
  await settled();
  await shows(["phone>wechat wx.checkSession", "wechat>phone ok", ...CALL]);
});

test("expire the session_key: wx.checkSession notices, one login", async () => {
  await open();
  await press("expire");
  await settled();
  assert.deepEqual(await picture(), []);
  assert.match(
    await page.locator("#restart").getAttribute("class"),
    /next/,
    "what to press now is marked",
  );
  await press("restart");
  await settled();
  await shows(["phone>wechat wx.checkSession", "wechat>phone fail", ...LOGIN, ...CALL]);
});

test("end the session elsewhere: the next call logs in once and is repeated", async () => {
  await open();
  await press("end");
  await settled();
  await shows(["phone>wxlogind DELETE /v1/session", "wxlogind>phone 204"]);
  assert.equal(await page.locator("#rows .elsewhere").count(), 2);
  await press("call");
  await settled();
  await shows([
    "phone>wxlogind GET /v1/session",
    "wxlogind>phone 401 invalid_session · logged_out",
    ...LOGIN,
    ...CALL,
  ]);
  await phone("Logged in").waitFor();
});

test("log in on another phone: this one is told, and logs in when the user wants", async () => {
  await open();
  await press("other");
  await settled();
  await shows(LOGIN);
  await press("call");
  await settled();
  await shows(["phone>wxlogind GET /v1/session", "wxlogind>phone 401 invalid_session · replaced"]);
  await phone("Logged in on another device").waitFor();
  await page.locator("#screen").getByRole("button", { name: "Log in" }).click();
  await shows([...LOGIN, ...CALL]);
});

test("lose an answer: the same code brings the same session; WeChat sees one login", async () => {
  await open();
  const before = await stack.exchanges();
  await press("lose");
  assert.equal(await page.locator("#lose").getAttribute("aria-pressed"), "true");
  await press("login");
  await settled();
  const again = ["phone>wxlogind POST /v1/login", "wxlogind>phone 200"];
  await shows([...LOGIN, ...again, ...CALL]);
  assert.equal(await stack.exchanges(), before + 1);
  assert.equal(await page.locator("#rows .lost").count(), 1);
  const bodies = await page.evaluate(() =>
    [...document.querySelectorAll('[data-from="phone"][data-to="wxlogind"] .detail')]
      .map((d) => d.textContent)
      .filter((t) => /nonce/.test(t)),
  );
  assert.equal(bodies[bodies.length - 1], bodies[bodies.length - 2], "the same code and nonce");
  assert.equal(await page.locator("#lose").getAttribute("aria-pressed"), "false");
  await press("lose");
  await press("lose");
  assert.deepEqual((await acts()).slice(-2), ["lose", "unlose"]);
});

test("stop WeChat: a login is retried, calls with a session work; then it succeeds", async () => {
  await open();
  await press("stop");
  await poll(async () => (await page.locator("#stop").innerText()) === "Resume WeChat", "stopped");
  await press("call");
  await settled();
  await shows(CALL);
  await press("login");
  await settled();
  await phone("WeChat does not answer just now").waitFor();
  const rows = await picture();
  assert.ok(
    rows.filter((row) => row === "wxlogind>phone 503 wechat_unavailable").length === 3,
    rows.join("\n"),
  );
  assert.ok(rows.includes("wechat>wxlogind ✗ reset"));
  await page.reload(); // it is still stopped, and the page knows
  await ready();
  assert.equal(await page.locator("#stop").innerText(), "Resume WeChat");
  await press("stop");
  await poll(async () => (await page.locator("#stop").innerText()) === "Stop WeChat", "resumed");
  assert.deepEqual((await stack.askFake("GET", "/fake/stats")).faults, []);
  await press("login");
  await settled();
  await phone("Logged in").waitFor();
});

test("log out in the mini program, and clear the diagram", async () => {
  await open();
  await page.locator("#screen").getByRole("button", { name: "Log out" }).click();
  await phone("Not logged in").waitFor();
  await shows(["phone>wxlogind DELETE /v1/session", "wxlogind>phone 204"]);
  await press("end");
  assert.match(await page.locator("#hint").innerText(), /no session yet/);
  await press("clear");
  assert.equal(await page.locator("#rows li").count(), 0);
  assert.ok(await page.locator("#empty").isVisible());
});

test("the commands of a script are within its row", async () => {
  await open();
  const box = page.locator('#rows [data-to="redis"] details').first();
  await box.locator("summary").click();
  assert.match(await box.innerText(), /\d+ commands within the script/);
  const commands = await box.locator("li").allInnerTexts();
  assert.equal(commands[0], "TIME");
  assert.ok(
    commands.some((command) => /^SET wxlogin:s:/.test(command)),
    commands.join("\n"),
  );
});

test("the profile page: privacy declined and agreed to, picture, back and forth", async () => {
  await open();
  await page.locator("#screen").getByText("Name, picture, phone").click();
  await page.locator("#screen").getByText("Privacy", { exact: true }).waitFor();
  await page.locator("#screen").getByRole("button", { name: "Choose a picture" }).click();
  await page.locator("#sheet").getByRole("button", { name: "Decline" }).click();
  await phone("Privacy notice not accepted: you can go on without").waitFor();
  await page.locator("#screen").getByRole("button", { name: "Agree" }).click();
  await poll(
    async () => (await page.locator("#screen").getByText("Privacy", { exact: true }).count()) === 0,
    "agreed",
  );
  await page.locator("#screen").getByRole("button", { name: "Choose a picture" }).click();
  await page.locator("#sheet").getByRole("button", { name: "Cancel" }).click();
  await phone("No picture chosen: you can choose one at any time").waitFor();
  await page.locator("#screen").getByRole("button", { name: "Choose a picture" }).click();
  await page.locator("#sheet").getByRole("button", { name: "face-2" }).click();
  assert.match(await page.locator("#screen img").getAttribute("src"), /face-2\.svg$/);
  assert.ok(
    await page
      .locator("#screen img")
      .evaluate((img) => img.decode().then(() => img.naturalWidth > 0)),
  );
  await page.locator("#screen").getByRole("button", { name: "Give the number" }).click();
  await page.locator("#sheet").getByRole("button", { name: "Decline" }).click();
  await phone("No number given: you can give it at any time").waitFor();
  await page.locator("#screen").getByRole("button", { name: "Save" }).click();
  await phone("No name given: you can enter one at any time").waitFor();
  await press("back");
  await phone("Logged in").waitFor();
});

test("the profile page: closing the account asks first", async () => {
  await open();
  await page.locator("#screen").getByText("Name, picture, phone").click();
  await page.locator("#screen").getByRole("button", { name: "Close the account" }).click();
  await page.locator("#sheet").getByText("deleted for good").waitFor();
  await page.locator("#sheet").getByRole("button", { name: "No" }).click();
  assert.ok(!(await page.locator("#sheet").isVisible()));
  assert.deepEqual((await acts()).slice(-1), ["close"]);
});

test("the profile page: one tap agrees to the privacy notice and gives the number", async () => {
  await open();
  await page.locator("#screen").getByText("Name, picture, phone").click();
  await page
    .locator("#screen")
    .getByRole("button", { name: "Accept the notice and give the number" })
    .click();
  await page.locator("#sheet").getByRole("button", { name: "Allow" }).click();
  await page
    .locator("#screen")
    .getByText(/^138\d{8}$/)
    .waitFor();
  assert.equal(await page.locator("#screen").getByText("Privacy", { exact: true }).count(), 0);
});

test("the profile page: the name is saved, the number comes, the name is kept", async () => {
  await open();
  await page.locator("#screen").getByText("Name, picture, phone").click();
  await shows(["phone>wxlogind GET /v1/user", "wxlogind>phone 200"]);
  await page.locator("#screen").getByRole("button", { name: "Agree" }).click();
  await page.locator("#screen input").fill("小明");
  await page.locator("#screen").getByRole("button", { name: "Save" }).click();
  await phone("Saved").waitFor();
  await shows(["phone>wxlogind PUT /v1/user", "wxlogind>phone 200"]);
  await page.locator("#screen").getByRole("button", { name: "Give the number" }).click();
  await page.locator("#sheet").getByRole("button", { name: "Allow" }).click();
  await page
    .locator("#screen")
    .getByText(/^138\d{8}$/)
    .waitFor();
  const rows = (await picture()).filter((row) => !/redis|users/.test(row));
  assert.deepEqual(
    rows.filter((row) => row.startsWith("phone")),
    ["phone>wechat getPhoneNumber", "phone>wxlogind POST /v1/user/phone"],
  );
  assert.ok(
    rows.includes("wxlogind>wechat POST /wxa/business/getuserphonenumber"),
    rows.join("\n"),
  );
  assert.doesNotMatch(
    await page.locator("#rows").innerText(),
    /138\d{8}/,
    "the diagram has no number in full",
  );
  await page.locator("#screen").getByRole("button", { name: "Verify the number now" }).click();
  await page.locator("#sheet").getByRole("button", { name: "Allow" }).click();
  await poll(
    async () => (await picture()).includes("phone>wechat getRealtimePhoneNumber"),
    "the real-time button asks WeChat",
  );
  await press("restart");
  await settled();
  await page.locator("#screen").getByText("Name, picture, phone").click();
  await poll(async () => (await page.locator("#screen input").inputValue()) === "小明", "the name");
});

test("the user withdraws the phone number: WeChat tells wxlogind, which clears it", async () => {
  const withPhone = async () => {
    const answer = await fetch(`${stack.internal}/internal/apps/${APPID}/users`);
    return (await answer.json()).users.filter((user) => user.phoneNumber).length;
  };
  await open();
  await phone("Logged in").waitFor();
  const before = await withPhone();
  await page.locator("#screen").getByText("Name, picture, phone").click();
  await page.locator("#screen").getByRole("button", { name: "Agree" }).click();
  await page.locator("#screen").getByRole("button", { name: "Give the number" }).click();
  await page.locator("#sheet").getByRole("button", { name: "Allow" }).click();
  await poll(async () => (await withPhone()) === before + 1, "the number is kept");
  await press("withdraw");
  await settled();
  assert.equal((await acts()).at(-1), "withdraw");
  await page.getByText("wxlogind has cleared it").waitFor();
  assert.equal(await withPhone(), before);
});

test("both languages: the browser's first; the switch is remembered", async () => {
  await open({ locale: "zh-CN" });
  await phone("已登录").waitFor();
  assert.equal(await page.locator("html").getAttribute("lang"), "zh-CN");
  assert.equal(await page.locator("#login").innerText(), "登录");
  assert.equal(await page.locator(".act-name").first().innerText(), "小程序启动");
  const chinese = await page.evaluate(() => document.body.innerText);
  await page.getByRole("button", { name: "English" }).click();
  await phone("Logged in").waitFor();
  assert.equal(await page.locator("#login").innerText(), "Log in");
  assert.equal(await page.locator(".act-name").first().innerText(), "The mini program starts");
  const english = await page.evaluate(
    () => document.body.innerText + document.getElementById("screen").shadowRoot.textContent,
  );
  assert.doesNotMatch(english.replace("中文", ""), /\p{Script=Han}/u, "no Chinese is left");
  assert.match(chinese, /\p{Script=Han}/u);
  await page.reload();
  await ready();
  assert.equal(await page.locator("#login").innerText(), "Log in");
});

for (const locale of ["zh-CN", "en-US"])
  test(`at a phone's width nothing sticks out, lanes are readable: ${locale}`, async () => {
    await open({ locale, width: 360, height: 740, hasTouch: true });
    await page.locator("#login").tap();
    await settled();
    await poll(async () => (await page.locator("#rows .message").count()) > 20, "two logins");
    const out = await page.evaluate(() => ({
      page: document.documentElement.scrollWidth - document.documentElement.clientWidth,
      rows:
        document.getElementById("scroller").scrollWidth -
        document.getElementById("scroller").clientWidth,
      lanes: [...document.querySelectorAll(".lane")]
        .map((lane) => lane.getBoundingClientRect())
        .every((box, i, all) => !i || all[i - 1].right < box.left),
      arrows: [...document.querySelectorAll("#rows .message")].every((row) => {
        const lane = (name) => document.querySelector(`.${name}-lane`).getBoundingClientRect();
        const middle = (box) => (box.left + box.right) / 2;
        const arrow = row.querySelector(".arrow").getBoundingClientRect();
        const ends = [middle(lane(row.dataset.from)), middle(lane(row.dataset.to))].sort(
          (a, b) => a - b,
        );
        return Math.abs(arrow.left - ends[0]) < 3 && Math.abs(arrow.right - ends[1]) < 3;
      }),
      smallest: Math.min(
        ...[...document.querySelectorAll("#rows .label")].map((label) =>
          parseFloat(getComputedStyle(label).fontSize),
        ),
      ),
    }));
    assert.deepEqual(
      { ...out, smallest: out.smallest >= 11 },
      { page: 0, rows: 0, lanes: true, arrows: true, smallest: true },
    );
  });

test("a wxlogind that cannot be reached: the page says what to look at", async () => {
  await open();
  await page.route(`${stack.url}/**`, (route) => route.abort("connectionrefused"));
  await press("call");
  await page.locator("#trouble").waitFor();
  assert.match(
    await page.locator("#trouble").innerText(),
    new RegExp(`${stack.url} does not answer.*is ${stack.fake} in its cors_origins`),
  );
  await settled();
  await phone("No network").waitFor();
  await page.unroute(`${stack.url}/**`);
  await press("login");
  await settled();
  await phone("Logged in").waitFor();
  assert.ok(!(await page.locator("#trouble").isVisible()));
  assert.ok(
    troubles.length > 0 && troubles.every((text) => /ERR_CONNECTION_REFUSED/.test(text)),
    troubles.join("\n"),
  );
  troubles = [];
});
