/** A phone with the sample of miniprogram/ on it, and its pages. */
"use strict";
const { Phone } = require("./phone.js");
const { poll } = require("./stack.js");

/** A phone with the sample on it. `user` are calls that wxlogind answers otherwise: by path. */
class SamplePhone extends Phone {
  constructor(stack, { answers = {}, origins = [] } = {}) {
    super({ fake: stack.fake });
    const configure = this.common.configure;
    this.common.configure = (options) => configure({ ...options, baseUrl: stack.url, origins });
    this.answers = answers;
    this.transport = (options, send) => {
      const answer = this.answers[`${options.method} ${options.url.slice(stack.url.length)}`];
      return answer ? answer(options) : send(options);
    };
    this.getApp = () => this.app;
    this.load("app.js", {
      App: (definition) => {
        this.app = definition;
      },
    });
  }

  launch() {
    this.app.onLaunch();
    return this;
  }

  open(page) {
    let instance;
    this.load(`${page}.js`, {
      getApp: this.getApp,
      Page: (definition) => {
        instance = { ...definition, data: structuredClone(definition.data) };
        instance.setData = (change) => {
          for (const [key, value] of Object.entries(change)) {
            const [outer, inner] = key.split(".");
            if (inner) {
              instance.data[outer][inner] = value;
            } else {
              instance.data[key] = value;
            }
          }
        };
      },
    });
    if (instance.onLoad) {
      instance.onLoad();
    }
    if (instance.onShow) {
      instance.onShow();
    }
    return instance;
  }
}

const INDEX = "pages/index/index";
const PROFILE = "pages/profile/profile";
const PAY = "pages/pay/pay";
const profileIs = (profile) => ({
  "GET /v1/user": () => ({ statusCode: 200, header: {}, data: profile }),
});
const shows = (page, check, what) => poll(() => check(page.data), what);

module.exports = { INDEX, PAY, PROFILE, SamplePhone, profileIs, shows };
