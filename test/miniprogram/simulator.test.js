/**
 * The page that wxfake serves: each button, and the picture that it leaves.
 */
"use strict";
const assert = require("node:assert/strict");
const { test } = require("node:test");
const {
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
} = require("./simulator.js");
const { APPID, poll } = require("./stack.js");

useSimulator();

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
  assert.match(await sim.page.locator("#screen .card").first().innerText(), new RegExp(APPID));
  assert.equal(await sim.page.locator("#live").innerText(), "live");
});

test("a late message is put at its time, and the clocks are told apart", async () => {
  await open();
  const seen = await sim.page.evaluate(async () => {
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
  await sim.page.evaluate(() =>
    document.querySelectorAll("details").forEach((box) => (box.open = true)),
  );
  const words = await sim.page.evaluate(
    () => document.body.innerText + document.getElementById("screen").shadowRoot.textContent,
  );
  const stored = await sim.page.evaluate(() =>
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
  assert.match(await sim.page.locator("#hint").innerText(), /gets only a third_session/);
});

test("call with session: wxlogind answers, WeChat is not asked", async () => {
  await open();
  await press("call");
  await settled();
  await shows(CALL);
  assert.match(await sim.page.locator("#hint").innerText(), /without asking WeChat/);
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
    await sim.page.locator('#rows [data-from="wxlogind"][data-to="backend"] .detail').innerText(),
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
  await sim.page.locator("#screen").getByText("Name, picture, phone").click();
  await poll(async () => (await picture()).includes("wxlogind>users get"), "the profile is read");
});

test("the steps are numbered and named; what Redis is told within one is one row", async () => {
  await open();
  await press("login");
  await settled();
  await shows([...LOGIN, ...CALL]);
  const steps = await sim.page.evaluate(() => {
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
  const more = sim.page.locator("#rows .more:visible").first();
  assert.match(await more.innerText(), /^\d+ more$/);
  const folded = await sim.page.locator("#rows .folded").count();
  assert.ok(folded > 0);
  await more.click();
  assert.ok((await sim.page.locator("#rows .folded").count()) < folded);
  await sim.page.locator("#rows .more:visible").first().click();
  assert.equal(await sim.page.locator("#rows .folded").count(), folded);
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
    await sim.page.locator("#restart").getAttribute("class"),
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
  assert.equal(await sim.page.locator("#rows .elsewhere").count(), 2);
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
  await sim.page.locator("#screen").getByRole("button", { name: "Log in" }).click();
  await shows([...LOGIN, ...CALL]);
});

test("lose an answer: the same code brings the same session; WeChat sees one login", async () => {
  await open();
  const before = await sim.stack.exchanges();
  await press("lose");
  assert.equal(await sim.page.locator("#lose").getAttribute("aria-pressed"), "true");
  await press("login");
  await settled();
  const again = ["phone>wxlogind POST /v1/login", "wxlogind>phone 200"];
  await shows([...LOGIN, ...again, ...CALL]);
  assert.equal(await sim.stack.exchanges(), before + 1);
  assert.equal(await sim.page.locator("#rows .lost").count(), 1);
  const bodies = await sim.page.evaluate(() =>
    [...document.querySelectorAll('[data-from="phone"][data-to="wxlogind"] .detail')]
      .map((d) => d.textContent)
      .filter((t) => /nonce/.test(t)),
  );
  assert.equal(bodies[bodies.length - 1], bodies[bodies.length - 2], "the same code and nonce");
  assert.equal(await sim.page.locator("#lose").getAttribute("aria-pressed"), "false");
  await press("lose");
  await press("lose");
  assert.deepEqual((await acts()).slice(-2), ["lose", "unlose"]);
});

test("stop WeChat: a login is retried, calls with a session work; then it succeeds", async () => {
  const says = (words) => async () => (await sim.page.locator("#stop").innerText()) === words;
  await open();
  await press("stop");
  await poll(says("Resume WeChat"), "stopped");
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
  await sim.page.reload(); // it is still stopped, and the page knows
  await ready();
  assert.equal(await sim.page.locator("#stop").innerText(), "Resume WeChat");
  await press("stop");
  await poll(says("Stop WeChat"), "resumed");
  assert.deepEqual((await sim.stack.askFake("GET", "/fake/stats")).faults, []);
  await press("login");
  await settled();
  await phone("Logged in").waitFor();
});

test("log out in the mini program, and clear the diagram", async () => {
  await open();
  await sim.page.locator("#screen").getByRole("button", { name: "Log out" }).click();
  await phone("Not logged in").waitFor();
  await shows(["phone>wxlogind DELETE /v1/session", "wxlogind>phone 204"]);
  await press("end");
  assert.match(await sim.page.locator("#hint").innerText(), /no session yet/);
  await press("clear");
  assert.equal(await sim.page.locator("#rows li").count(), 0);
  assert.ok(await sim.page.locator("#empty").isVisible());
});

test("the commands of a script are within its row", async () => {
  await open();
  const box = sim.page.locator('#rows [data-to="redis"] details').first();
  await box.locator("summary").click();
  assert.match(await box.innerText(), /\d+ commands within the script/);
  const commands = await box.locator("li").allInnerTexts();
  assert.equal(commands[0], "TIME");
  assert.ok(
    commands.some((command) => /^SET wxlogin:s:/.test(command)),
    commands.join("\n"),
  );
});

test("a wxlogind that cannot be reached: the page says what to look at", async () => {
  await open();
  await sim.page.route(`${sim.stack.url}/**`, (route) => route.abort("connectionrefused"));
  await press("call");
  await sim.page.locator("#trouble").waitFor();
  assert.match(
    await sim.page.locator("#trouble").innerText(),
    new RegExp(`${sim.stack.url} does not answer.*is ${sim.stack.fake} in its cors_origins`),
  );
  await settled();
  await phone("No network").waitFor();
  await sim.page.unroute(`${sim.stack.url}/**`);
  await press("login");
  await settled();
  await phone("Logged in").waitFor();
  assert.ok(!(await sim.page.locator("#trouble").isVisible()));
  assert.ok(
    sim.troubles.length > 0 && sim.troubles.every((text) => /ERR_CONNECTION_REFUSED/.test(text)),
    sim.troubles.join("\n"),
  );
  sim.troubles = [];
});
