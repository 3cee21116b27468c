/**
 * The pictures of the README: the page that wxfake serves, after a login, in each language and
 * colour scheme. Run by scripts/pictures DIRECTORY.
 */
"use strict";
const path = require("node:path");
const { chromium } = require("playwright-core");
const { Stack } = require("./stack.js");

const BROWSER = process.env.CHROMIUM || "/usr/bin/chromium";
const SIZE = { width: 1280, height: 1000 };

async function picture(browser, url, locale, colorScheme, file) {
  const context = await browser.newContext({
    locale,
    colorScheme,
    viewport: SIZE,
    reducedMotion: "reduce",
  });
  const page = await context.newPage();
  page.setDefaultTimeout(30000);
  await page.goto(url);
  await page.waitForSelector("html[data-ready]", { state: "attached" });
  // The first call with the new session has its response: the login is over.
  await page.waitForFunction(() => {
    const rows = [...document.querySelectorAll("#rows > li")];
    const call = rows.findIndex((row) => row.textContent.includes("GET /v1/session"));
    return call >= 0 && rows.slice(call).some((row) => row.dataset.to === "phone");
  });
  await page.evaluate(() => (document.querySelector("#scroller").scrollTop = 0));
  await page.screenshot({ path: file });
  await context.close();
}

async function main(directory) {
  const stack = await Stack.start();
  const browser = await chromium.launch({
    executablePath: BROWSER,
    args: ["--no-sandbox", "--disable-gpu"],
  });
  try {
    for (const [name, locale] of [
      ["en", "en-US"],
      ["zh", "zh-CN"],
    ]) {
      for (const scheme of ["light", "dark"]) {
        const file = path.join(directory, `login-${name}-${scheme}.png`);
        await picture(browser, stack.fake, locale, scheme, file);
        console.log(file);
      }
    }
  } finally {
    await browser.close();
    await stack.stop();
  }
}

main(process.argv[2]);
