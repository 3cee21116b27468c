/**
 * What the toolchains of uni-app and Taro built of docs/examples, on a phone, against the real
 * server and the fake WeChat. scripts/miniprogram-samples builds them and names the outputs in
 * $UNI_DIST and $TARO_DIST.
 */
"use strict";
const assert = require("node:assert/strict");
const fs = require("node:fs");
const path = require("node:path");
const { after, before, test } = require("node:test");
const vm = require("node:vm");
const ts = require("typescript");
const { Phone } = require("./phone.js");
const { APPID, Stack, poll } = require("./stack.js");

let stack;
before(async () => {
  stack = await Stack.start();
});
after(() => stack.stop());

const DEVICE = {
  SDKVersion: "3.8.0",
  version: "8.0.50",
  platform: "devtools",
  system: "iOS 16",
  brand: "devtools",
  model: "iPhone",
  language: "zh_CN",
  theme: "light",
  pixelRatio: 2,
  screenWidth: 375,
  screenHeight: 667,
  windowWidth: 375,
  windowHeight: 600,
  statusBarHeight: 20,
  safeArea: { left: 0, top: 20, right: 375, bottom: 667, width: 375, height: 647 },
};

/**
 * A mini program that runs from a directory, as WeChat would run it: only as much as the two
 * frameworks ask for.
 */
class MiniProgram {
  constructor(dir) {
    this.dir = dir;
    this.modules = new Map();
    this.phone = new Phone({ fake: stack.fake });
    this.phone.login = () => {
      this.phone.codes.push("mock");
      // as the developer tools give it: the samples are touristappid's
      return { code: "the code is a mock one" };
    };
    this.phone.transport = (options, send) =>
      send({
        ...options,
        url: options.url.replace(
          /^http:\/\/127\.0\.0\.1:8080|^https:\/\/login\.example\.com/,
          stack.url,
        ),
      });
    this.wx = this.makeWx();
  }

  makeWx() {
    const known = {
      ...this.phone.wx,
      env: { USER_DATA_PATH: "wxfile://usr" },
      canIUse: () => true,
      getLaunchOptionsSync: () => ({
        path: "pages/index/index",
        query: {},
        scene: 1001,
        referrerInfo: {},
      }),
      getEnterOptionsSync: () => ({
        path: "pages/index/index",
        query: {},
        scene: 1001,
        referrerInfo: {},
      }),
      getAccountInfoSync: () => ({
        miniProgram: { appId: "touristappid", envVersion: "develop", version: "" },
      }),
      getStorageSync: () => "",
      nextTick: (work) => setImmediate(work),
    };
    ["getSystemInfoSync", "getWindowInfo", "getDeviceInfo", "getAppBaseInfo"].forEach((name) => {
      known[name] = () => DEVICE;
    });
    return new Proxy(known, {
      get: (target, name) =>
        name in target || typeof name !== "string"
          ? target[name]
          : /^on|^off|^set|^create|^get/.test(name)
            ? () => ({})
            : undefined,
    });
  }

  run(file, globals = {}) {
    if (!this.modules.has(file)) {
      const module = { exports: {} };
      this.modules.set(file, module);
      const scope = {
        wx: this.wx,
        App: (definition) => {
          this.app = definition;
        },
        Page: (definition) => {
          this.definition = definition;
        },
        Component: (definition) => {
          this.definition = definition;
        },
        getApp: () => this.app,
        getCurrentPages: () => (this.page ? [this.page] : []),
        Behavior: (definition) => definition,
        global: {},
        require: (wanted) =>
          this.run(path.posix.join(path.posix.dirname(file), wanted.replace(/(\.js)?$/, ".js"))),
        module,
        exports: module.exports,
        ...globals,
      };
      const source = fs.readFileSync(path.join(this.dir, file), "utf8");
      vm.compileFunction(source, Object.keys(scope), { filename: path.join(this.dir, file) })(
        ...Object.values(scope),
      );
    }
    return this.modules.get(file).exports;
  }

  launch() {
    this.run("app.js");
    const options = this.wx.getLaunchOptionsSync();
    this.app.onLaunch && this.app.onLaunch(options);
    this.app.onShow && this.app.onShow(options);
  }

  /** Opens the first page: a Page, or a Component that stands for one. */
  open() {
    this.run("pages/index/index.js");
    const { methods = {}, lifetimes = {}, ...rest } = this.definition;
    const page = {
      ...rest,
      ...methods,
      data: { ...rest.data },
      properties: {},
      route: "pages/index/index",
      options: {},
      is: "pages/index/index",
      __wxExparserNodeId__: "1",
      getPageId: () => "1",
    };
    page.setData = (change, done) => {
      Object.entries(change).forEach(([key, value]) => {
        const names = key.split(/[.[\]]+/).filter(Boolean); // a.b[0] and a.b.[0]
        const last = names.pop();
        names.reduce((object, name) => (object[name] = object[name] || {}), page.data)[last] =
          value;
      });
      done && done();
    };
    page.selectComponent = page.selectAllComponents = () => [];
    page.createSelectorQuery = () => ({});
    page.triggerEvent = () => {};
    this.page = page;
    for (const name of ["created", "attached"]) {
      const work = lifetimes[name] || rest[name];
      work && work.call(page);
    }
    for (const name of ["onLoad", "onShow", "onReady"]) {
      page[name] && page[name]({});
    }
    const ready = lifetimes.ready || rest.ready;
    ready && ready.call(page);
    return page;
  }

  shows(words) {
    return poll(
      () => JSON.stringify(this.page.data).includes(words),
      `the page shows ${words}: ${JSON.stringify(this.page.data)}`,
    );
  }
}

async function loginOn(dir) {
  const program = new MiniProgram(dir);
  program.launch();
  const page = program.open();
  await program.shows(`已登录 ${APPID}`);
  const { phone } = program;
  assert.match(phone.session, /^[\w-]{43}$/);
  assert.equal(phone.logins.length, 1);
  const res = await fetch(`${stack.url}/v1/session`, {
    headers: { Authorization: `Bearer ${phone.session}` },
  });
  assert.equal(res.status, 200);
  return { program, page, phone };
}

test(
  "uni-app: what its toolchain built logs in, and out",
  { skip: !process.env.UNI_DIST && "no $UNI_DIST" },
  async () => {
    const { program, page, phone } = await loginOn(process.env.UNI_DIST);
    const handler = (words) =>
      new RegExp(`bindtap="{{(\\w+)}}"[^>]*>${words}`).exec(
        fs.readFileSync(path.join(process.env.UNI_DIST, "pages/index/index.wxml"), "utf8"),
      )[1];
    const tap = (words) =>
      page[page.data[handler(words)]]({
        type: "tap",
        target: { dataset: {} },
        currentTarget: { dataset: {} },
        detail: {},
      });
    tap("退出");
    await program.shows('"未登录"');
    assert.equal(phone.session, undefined);
    tap("登录");
    await program.shows(`已登录 ${APPID}`);
    assert.equal(phone.logins.length, 2);
  },
);

test(
  "the types fit beside those of uni-app and of Taro",
  { skip: !process.env.SAMPLES && "no $SAMPLES" },
  () => {
    const uses = {
      "uni-app": 'configure({ baseUrl: "https://x.example", adapter: uni });\n',
      taro:
        'import Taro from "@tarojs/taro";\nconfigure({ baseUrl: "https://x.example", adapter: ' +
        "Taro });\n",
    };
    for (const [name, use] of Object.entries(uses)) {
      const dir = path.join(process.env.SAMPLES, name);
      const file = path.join(dir, "use.ts");
      fs.writeFileSync(
        file,
        `import { configure, request } from "wxlogind-miniprogram";\n${use}export const a: ` +
          `Promise<{ data: number }> = request<number>({ url: "/x" });\n`,
      );
      const program = ts.createProgram([file], {
        target: ts.ScriptTarget.ES2020,
        module: ts.ModuleKind.ESNext,
        moduleResolution: ts.ModuleResolutionKind.Bundler,
        strict: true,
        noEmit: true,
        skipLibCheck: true,
        types: name === "taro" ? [] : ["@dcloudio/types"],
        typeRoots: [path.join(dir, "node_modules")],
      });
      assert.deepEqual(
        ts
          .getPreEmitDiagnostics(program)
          .map((d) => ts.flattenDiagnosticMessageText(d.messageText, "\n")),
        [],
        name,
      );
    }
  },
);

test(
  "the READMEs' code for uni-app and Taro logs in",
  { skip: !process.env.README_UNI_DIST && "no $README_UNI_DIST" },
  async () => {
    for (const dir of [process.env.README_UNI_DIST, process.env.README_TARO_DIST]) {
      const program = new MiniProgram(dir);
      program.launch();
      program.open();
      await program.shows(`"${APPID}"`);
    }
  },
);

test(
  "Taro: what its toolchain built logs in",
  { skip: !process.env.TARO_DIST && "no $TARO_DIST" },
  async () => {
    await loginOn(process.env.TARO_DIST);
  },
);
