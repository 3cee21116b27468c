/**
 * The page that wxfake serves, in a real browser, with the real servers behind it: what the
 * simulator*.test.js have in common.
 */
"use strict";
const assert = require("node:assert/strict");
const { after, afterEach, before, beforeEach } = require("node:test");
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

/** What a test file has: its servers, its browser, and the page of the test that runs. */
const sim = { stack: null, browser: null, context: null, page: null, troubles: [] };

/**
 * For a whole test file: `start` gives its servers. A test's page must leave the browser's console
 * silent.
 */
function useSimulator(start = startStack) {
  before(async () => {
    sim.stack = await start();
    // with a user-data-dir of its own, that ends with it
    sim.browser = await chromium.launch({ executablePath: BROWSER, args: FLAGS });
  });

  after(async () => {
    await sim.browser?.close();
    await sim.stack?.stop();
  });

  beforeEach(() => {
    sim.troubles = [];
  });

  afterEach(async () => {
    try {
      assert.deepEqual(sim.troubles, [], "the console is silent");
      assert.deepEqual(
        sim.page ? await sim.page.evaluate(() => window.violations) : [],
        [],
        "no violation of the Content-Security-Policy",
      );
    } finally {
      await sim.context.close();
      await sim.stack.askFake("DELETE", "/fake/fault");
    }
  });
}

function startStack() {
  const push = {
    push_token: "fakepushtoken",
    push_aes_key: "fakepushkeyfakepushkeyfakepushkeyfakepushke",
  };
  return Stack.start({ session: { max_per_user: 1 }, [`app ${APPID}`]: push });
}

/** A page with nothing stored yet. */
async function open({ locale = "en-US", width = 1380, height = 900, ...more } = {}) {
  sim.context = await sim.browser.newContext({
    locale,
    viewport: { width, height },
    reducedMotion: "reduce",
    ...more,
  });
  sim.page = await sim.context.newPage();
  sim.page.setDefaultTimeout(20000);
  sim.page.on("console", (message) => {
    // A browser says so of every answer from 400 on, also where the page awaits it.
    const answered =
      message.text().startsWith("Failed to load resource: the server responded with a status of") &&
      [sim.stack.url, `${sim.stack.fake}/fake/backend`].some((url) =>
        message.location().url.startsWith(url),
      );
    if (!answered && ["error", "warning"].includes(message.type())) {
      sim.troubles.push(`${message.type()}: ${message.text()}`);
    }
  });
  sim.page.on("pageerror", (error) => sim.troubles.push(error.stack));
  await sim.page.addInitScript(() => {
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (event) =>
      window.violations.push(`${event.violatedDirective} ${event.blockedURI}`),
    );
  });
  await sim.page.goto(`${sim.stack.fake}/`);
  await ready();
}

const ready = () => sim.page.waitForSelector("html[data-ready]", { state: "attached" });

/** What the diagram shows since the last act: ["phone>wxlogind POST /v1/login", ...]. */
const picture = () =>
  sim.page.evaluate(() => {
    const rows = [...document.querySelectorAll("#rows > li")];
    const from = rows.map((row) => row.className.includes("act")).lastIndexOf(true);
    return rows
      .slice(from + 1)
      .map(
        (row) => `${row.dataset.from}>${row.dataset.to} ${row.querySelector(".label").textContent}`,
      );
  });

const acts = () =>
  sim.page.evaluate(() =>
    [...document.querySelectorAll("#rows > .act")].map((row) => row.dataset.act),
  );

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

const phone = (words) => sim.page.locator("#screen").getByText(words, { exact: true });
const press = (id) => sim.page.click(`#${id}`);
const settled = () =>
  poll(async () => (await sim.page.locator("[aria-busy]").count()) === 0, "the button is done");

const LOGIN = [
  "phone>wechat wx.login",
  /^wechat>phone code .{4}…$/,
  "phone>wxlogind POST /v1/login",
  "wxlogind>wechat GET /sns/jscode2session",
  "wechat>wxlogind 200 openid, session_key",
  "wxlogind>phone 200",
];
const CALL = ["phone>wxlogind GET /v1/session", "wxlogind>phone 200"];

module.exports = {
  CALL,
  LOGIN,
  acts,
  open,
  phone,
  picture,
  press,
  ready,
  settled,
  shows,
  sim,
  useSimulator,
};
