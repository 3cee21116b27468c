/**
 * What wxfake's page looks like: sizes, contrast, languages.
 */
"use strict";
const assert = require("node:assert/strict");
const { test } = require("node:test");
const {
  CALL,
  LOGIN,
  open,
  phone,
  press,
  ready,
  settled,
  shows,
  sim,
  useSimulator,
} = require("./simulator.js");
const { poll } = require("./stack.js");

useSimulator();

for (const colorScheme of ["light", "dark"])
  test(`at 1280 x 800 the act's head is visible, contrast is 4.5:1: ${colorScheme}`, async () => {
    await open({ width: 1280, height: 800, colorScheme });
    await press("login");
    await settled();
    await shows([...LOGIN, ...CALL]);
    const seen = await sim.page.evaluate(() => {
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
    await sim.page.locator("#screen").getByRole("button", { name: "Log out" }).click();
    await phone("Not logged in").waitFor();
    const faint = await sim.page.evaluate(() => {
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

test("both languages: the browser's first; the switch is remembered", async () => {
  await open({ locale: "zh-CN" });
  await phone("已登录").waitFor();
  assert.equal(await sim.page.locator("html").getAttribute("lang"), "zh-CN");
  assert.equal(await sim.page.locator("#login").innerText(), "登录");
  assert.equal(await sim.page.locator(".act-name").first().innerText(), "小程序启动");
  const chinese = await sim.page.evaluate(() => document.body.innerText);
  await sim.page.getByRole("button", { name: "English" }).click();
  await phone("Logged in").waitFor();
  assert.equal(await sim.page.locator("#login").innerText(), "Log in");
  assert.equal(await sim.page.locator(".act-name").first().innerText(), "The mini program starts");
  const english = await sim.page.evaluate(
    () => document.body.innerText + document.getElementById("screen").shadowRoot.textContent,
  );
  assert.doesNotMatch(english.replace("中文", ""), /\p{Script=Han}/u, "no Chinese is left");
  assert.match(chinese, /\p{Script=Han}/u);
  await sim.page.reload();
  await ready();
  assert.equal(await sim.page.locator("#login").innerText(), "Log in");
});

for (const locale of ["zh-CN", "en-US"])
  test(`at a phone's width nothing sticks out, lanes are readable: ${locale}`, async () => {
    await open({ locale, width: 360, height: 740, hasTouch: true });
    await sim.page.locator("#login").tap();
    await settled();
    await poll(async () => (await sim.page.locator("#rows .message").count()) > 20, "two logins");
    const out = await sim.page.evaluate(() => ({
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
