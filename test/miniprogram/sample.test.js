/**
 * The sample: its files fit together, and each step of its first page that can fail leaves a page
 * that says so and offers it again. sample-profile.test.js has the other pages.
 */
"use strict";
const assert = require("node:assert/strict");
const fs = require("node:fs");
const path = require("node:path");
const { after, before, test } = require("node:test");
const vm = require("node:vm");
const { MINIPROGRAM, Phone } = require("./phone.js");
const { INDEX, PROFILE, SamplePhone, shows } = require("./sample-phone.js");
const { APPID, Stack, poll } = require("./stack.js");

const read = (file) => fs.readFileSync(path.join(MINIPROGRAM, file), "utf8");
const { pages, sitemapLocation } = JSON.parse(read("app.json"));

/* ---- structure ---- */

/** What Page({...}) was given. */
function definitionOf(page, globals) {
  let definition;
  new Phone().load(`${page}.js`, {
    Page: (d) => {
      definition = d;
    },
    ...globals,
  });
  return definition;
}

test("every page in app.json has its files, every folder of pages is in app.json", () => {
  for (const page of pages) {
    for (const end of ["js", "json", "wxml"]) {
      assert.ok(fs.existsSync(path.join(MINIPROGRAM, `${page}.${end}`)), `${page}.${end}`);
    }
    JSON.parse(read(`${page}.json`));
  }
  assert.deepEqual(
    fs.readdirSync(path.join(MINIPROGRAM, "pages")).sort(),
    pages.map((page) => page.split("/")[1]).sort(),
  );
  ["sitemap.json", "project.config.json"].forEach((file) => JSON.parse(read(file)));
  assert.equal(sitemapLocation, "sitemap.json");
});

for (const page of pages) {
  const wxml = read(`${page}.wxml`);

  test(`${page}: the handlers in wxml are those that are defined`, () => {
    const definition = definitionOf(page);
    const named = [...wxml.matchAll(/\b(?:capture-)?(?:bind|catch):?[a-z]+="([^"]*)"/g)].map(
      (m) => m[1],
    );
    const lifeCycle = ["onLoad", "onShow"];
    assert.ok(named.length > 0);
    named.forEach((name) => assert.equal(typeof definition[name], "function", name));
    assert.deepEqual(
      Object.keys(definition)
        .filter((name) => /^on[A-Z]/.test(name) && !lifeCycle.includes(name))
        .sort(),
      [...new Set(named)].sort(),
    );
  });

  test(`${page}: every {{name}} in wxml is in data, every link leads to a page`, () => {
    const { data } = definitionOf(page);
    for (const [, expression] of wxml.matchAll(/{{(.*?)}}/g)) {
      for (const [name] of expression.replace(/'[^']*'/g, "").matchAll(/(?<![.\w])[a-zA-Z]\w*/g)) {
        assert.ok(name in data, name);
      }
    }
    for (const [, url] of wxml.matchAll(/\burl="\/([^"]*)"/g)) {
      assert.ok(pages.includes(url), url);
    }
  });

  test(`${page}: the tags of wxml are closed in order`, () => {
    const open = [];
    for (const [, close, name, self] of wxml.matchAll(/<(\/?)([a-z]+)(?:"[^"]*"|[^">])*?(\/?)>/g)) {
      if (close) {
        assert.equal(open.pop(), name);
      } else if (!self && name !== "input") {
        open.push(name);
      } else {
        assert.ok(self, `<${name}> closes itself`);
      }
    }
    assert.deepEqual(open, []);
  });
}

test("the APIs that give no names and pictures any more are not used", () => {
  const files = [
    "app.js",
    "common/common.js",
    ...pages.flatMap((page) => [`${page}.js`, `${page}.wxml`]),
  ];
  files.forEach((file) =>
    assert.doesNotMatch(
      read(file),
      /wx\.getUserInfo|getUserProfile|<open-data|open-type="getUserInfo"|Sync\(/,
      file,
    ),
  );
});

/* ---- behaviour: the sample on a phone, against the real server ---- */

let stack;
before(async () => {
  stack = await Stack.start();
});
after(() => stack.stop());

test("the READMEs' own code: from nothing to logged in, in ten lines", async () => {
  const [app, page] = [...read("README.md").matchAll(/```js\n([\s\S]*?)```/g)].map((m) => m[1]);
  const lines = (app + page).split("\n").filter((line) => line.trim());
  assert.ok(lines.length <= 10, `${lines.length} lines`);
  const phone = new Phone({ fake: stack.fake });
  phone.transport = (options, send) =>
    send({ ...options, url: options.url.replace("https://login.example.com", stack.url) });
  vm.compileFunction(app, ["require", "App"])(
    () => phone.common,
    (definition) => {
      definition.onLaunch();
    },
  );
  const shown = {};
  vm.compileFunction(page, ["common"]).call(
    { setData: (data) => Object.assign(shown, data) },
    phone.common,
  );
  await poll(() => shown.session || shown.problem, "an answer");
  assert.equal(shown.session.appid, APPID);
  assert.equal(phone.calls.login, 1);
});

test("index: opened before the login ends, it shows the session when it has", async () => {
  const page = new SamplePhone(stack).launch().open(INDEX);
  assert.equal(page.data.state, "working");
  await shows(page, (d) => d.state === "in", "logged in");
  assert.equal(page.data.session.appid, APPID);
  assert.equal(page.data.problem, "");
});

for (const [what, spoil, text] of [
  [
    "wx.login gives no code",
    (phone) => {
      phone.login = () => ({});
    },
    /gave no code/,
  ],
  [
    "the code is refused",
    (phone) => {
      phone.login = () => ({ code: "spent" });
    },
    /refused the code/,
  ],
  [
    "there is no network",
    (phone) => {
      phone.transport = () => {
        throw new Error("no network");
      };
    },
    /No network/,
  ],
  [
    "the server is away",
    (phone) => {
      phone.transport = () => ({ statusCode: 502, header: {}, data: "<html>" });
    },
    /not available/,
  ],
]) {
  test(`index: ${what}: the page says so, goes on, and offers the login again`, async () => {
    const phone = new SamplePhone(stack);
    const { login, transport } = phone;
    spoil(phone);
    const page = phone.launch().open(INDEX);
    await shows(page, (d) => d.state === "out", "not logged in");
    assert.match(page.data.problem, text);
    Object.assign(phone, { login, transport });
    page.onLoginTap();
    await shows(page, (d) => d.state === "in", "logged in");
    assert.equal(page.data.problem, "");
  });
}

test("index: a call with the session heals a session that ended", async () => {
  const phone = new SamplePhone(stack).launch();
  const page = phone.open(INDEX);
  await shows(page, (d) => d.state === "in", "logged in");
  phone.session = "A".repeat(43);
  page.onCheckTap();
  await shows(page, (d) => d.state === "in", "logged in");
  assert.equal(phone.calls.login, 2);
});

test("index: after revocation the page says so, and the user can log in again", async () => {
  const phone = new SamplePhone(stack).launch();
  const page = phone.open(INDEX);
  await shows(page, (d) => d.state === "in", "logged in");
  phone.answers["GET /v1/session"] = () => ({
    statusCode: 401,
    header: {},
    data: { error: "invalid_session", reason: "revoked" },
  });
  page.onCheckTap();
  await shows(page, (d) => d.state === "out", "logged out");
  assert.match(page.data.problem, /was ended/);
  phone.answers = {};
  page.onLoginTap();
  await shows(page, (d) => d.state === "in", "logged in");
});

test("index: after logging out no page logs in by itself", async () => {
  const phone = new SamplePhone(stack).launch();
  const page = phone.open(INDEX);
  await shows(page, (d) => d.state === "in", "logged in");
  page.onLogoutTap();
  await shows(page, (d) => d.state === "out", "logged out");
  const profile = phone.open(PROFILE);
  await shows(profile, (d) => d.notes.profile, "the note");
  page.onShow();
  await shows(page, (d) => d.state === "out", "logged out");
  assert.equal(page.data.problem, "");
  assert.equal(phone.calls.login, 1);
  page.onLoginTap();
  await shows(page, (d) => d.state === "in", "logged in");
});

test("index: logged out without network: the page says that the server was not told", async () => {
  const phone = new SamplePhone(stack).launch();
  const page = phone.open(INDEX);
  await shows(page, (d) => d.state === "in", "logged in");
  phone.transport = () => {
    throw new Error("no network");
  };
  page.onLogoutTap();
  await shows(page, (d) => d.state === "out", "logged out");
  assert.match(page.data.problem, /could not be told/);
});

test("index: a phone that cannot store the session is logged in all the same", async () => {
  const phone = new SamplePhone(stack);
  phone.wx.setStorage = (options) => options.fail({ errMsg: "setStorage:fail" });
  const page = phone.launch().open(INDEX);
  await shows(page, (d) => d.state === "in", "logged in");
  assert.equal(phone.calls.login, 1);
});
