/**
 * The phone's screen: runs the sample's app.js and pages as they are, and draws their wxml. Only as
 * much of WXML as the sample needs; what is not understood is an error, not a guess.
 */
import { half, text } from "./texts.js";

const FILES = "/fake/page/miniprogram/";

/* ---- WXML ---- */

const TAG = /<!--[^]*?-->|<\/([a-z]+)>|<([a-z]+)((?:\s+[a-z:-]+(?:="[^"]*")?)*)\s*(\/?)>|([^<]+)/g;

function parse(wxml) {
  const root = { tag: "page", attrs: {}, children: [] };
  const open = [root];
  if (wxml.replace(TAG, "")) {
    throw new Error(`wxml: ${wxml.replace(TAG, "")} is more than the simulator understands`);
  }
  for (const [, close, tag, attrs, self, chars] of wxml.matchAll(TAG)) {
    const parent = open[open.length - 1];
    if (close) {
      open.pop();
    } else if (tag) {
      const node = {
        tag,
        attrs: Object.fromEntries(
          [...attrs.matchAll(/([a-z:-]+)(?:="([^"]*)")?/g)].map((m) => [m[1], m[2] ?? ""]),
        ),
        children: [],
      };
      parent.children.push(node);
      if (!self) {
        open.push(node);
      }
    } else if (chars && chars.trim()) {
      parent.children.push({ chars: chars.replace(/\s*\n\s*/g, "") });
    }
  }
  return root;
}

function evaluate(expression, data) {
  const compared = /^([\w.]+) ([!=])== '([^']*)'$/.exec(expression);
  const path = compared ? compared[1] : expression;
  if (!/^\w+(\.\w+)*$/.test(path)) {
    throw new Error(`wxml: {{${expression}}} is more than the simulator understands`);
  }
  const value = path
    .split(".")
    .reduce(
      (object, name) => (object === undefined || object === null ? undefined : object[name]),
      data,
    );
  return compared ? (value === compared[3]) === (compared[2] === "=") : value;
}

/** A text or an attribute with its {{...}}; one that is nothing else keeps its type. */
function fill(template, data) {
  const whole = /^{{([^{}]*)}}$/.exec(template);
  if (whole) {
    return evaluate(whole[1].trim(), data);
  }
  return template.replace(
    /{{([^{}]*)}}/g,
    (_, expression) => evaluate(expression.trim(), data) ?? "",
  );
}

/** The children that are there: wx:if, wx:elif and wx:else decided, blocks opened. */
function present(nodes, data) {
  const out = [];
  let taken = true;
  for (const node of nodes) {
    const attrs = node.attrs || {};
    const wanted =
      "wx:if" in attrs
        ? Boolean(fill(attrs["wx:if"], data))
        : "wx:elif" in attrs
          ? !taken && Boolean(fill(attrs["wx:elif"], data))
          : "wx:else" in attrs
            ? !taken
            : true;
    if ("wx:if" in attrs) {
      taken = wanted;
    } else if ("wx:elif" in attrs) {
      taken = taken || wanted;
    }
    if (wanted && node.tag === "block") {
      out.push(...present(node.children, data));
    } else if (wanted) {
      out.push(node);
    }
  }
  return out;
}

const ELEMENTS = {
  view: "div",
  text: "span",
  button: "button",
  image: "img",
  input: "input",
  form: "form",
  navigator: "div",
};

export class Screen {
  /**
   * @param {{root: HTMLElement, title: HTMLElement, back: HTMLElement, phone:
   * import("./wx.js").Phone, onAct: (name: string) => void}} options
   */
  constructor({ root, title, back, phone, onAct }) {
    this.shadow = root.attachShadow({ mode: "open" });
    this.title = title;
    this.back = back;
    this.phone = phone;
    this.onAct = onAct;
    this.stack = [];
    this.waiting = []; // of until(): each says whether it is done
    this.drawn = new Map(); // template node -> its element, of the page on top
    this.back.addEventListener("click", () => this.navigateBack());
  }

  async load() {
    const read = async (file) => (await fetch(FILES + file)).text();
    this.config = JSON.parse(await read("app.json"));
    this.pages = new Map();
    const styles = await Promise.all(
      [...document.querySelectorAll('link[rel="wxss"]')].map(async (link) =>
        (await fetch(link.href)).text(),
      ),
    );
    for (const page of this.config.pages) {
      const template = parse(await read(`${page}.wxml`));
      this.pages.set(page, { template, config: JSON.parse(await read(`${page}.json`)) });
    }
    const own = document.createElement("link");
    own.rel = "stylesheet";
    own.href = "/fake/page/screen.css";
    const loaded = new Promise((resolve) => own.addEventListener("load", resolve));
    this.body = document.createElement("div");
    this.body.className = "page";
    this.shadow.append(own, this.body);
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(
      styles
        .join("\n")
        .replace(/([\d.]+)rpx/g, "calc($1 * var(--rpx))")
        .replace(/^page\b/gm, ".page"),
    );
    this.shadow.adoptedStyleSheets = [sheet];
    await loaded;
  }

  /** A cold start: every file runs anew, only the storage is as it was. */
  launch() {
    const loaded = new Map();
    const require = (from) => (wanted) => {
      const parts = from.split("/").slice(0, -1);
      wanted
        .split("/")
        .forEach((part) => (part === ".." ? parts.pop() : part !== "." && parts.push(part)));
      return run(parts.join("/"));
    };
    const run = (file) => {
      if (!loaded.has(file)) {
        const module = { exports: {} };
        loaded.set(file, module);
        const page = (definition) =>
          (this.pages.get(file.replace(/\.js$/, "")).definition = definition);
        const app = (definition) => (this.app = definition);
        window.miniprogramModules.get(file)(
          require(file),
          module,
          module.exports,
          this.phone.wx,
          app,
          page,
          () => this.app,
        );
        if (file === "common/common.js") {
          this.common = this.settled(module.exports);
          module.exports = this.common;
        }
      }
      return loaded.get(file).exports;
    };
    run("app.js");
    this.config.pages.forEach((page) => run(`${page}.js`));
    this.stack = [];
    this.app.onLaunch({});
    this.navigateTo(this.config.pages[0]);
  }

  /** The sample names a server of its own; here it is the one that wxfake knows of. */
  settled(common) {
    const { wxlogind, apps } = this.phone.about;
    const appid = apps.length > 1 ? { appid: this.phone.appid } : {};
    const origins = [location.origin]; // the backend's
    return {
      ...common,
      configure: (options) =>
        common.configure({ ...options, baseUrl: wxlogind, origins, ...appid }),
    };
  }

  get page() {
    return this.stack[this.stack.length - 1];
  }

  navigateTo(route) {
    const { definition } = this.pages.get(route);
    const page = { ...definition, route, data: structuredClone(definition.data) };
    page.setData = (change) => {
      for (const [path, value] of Object.entries(change)) {
        const names = path.split(".");
        const last = names.pop();
        names.reduce((object, name) => object[name], page.data)[last] = value;
      }
      if (page === this.page) {
        this.draw();
      }
      this.waiting = this.waiting.filter((check) => !check());
    };
    this.stack.push(page);
    if (this.stack.length > 1) {
      this.onAct(route.split("/").pop());
    }
    this.appear("onLoad", "onShow");
  }

  navigateBack() {
    if (this.stack.length > 1) {
      this.stack.pop();
      this.onAct("page");
      this.appear("onShow");
    }
  }

  /** Back to the first page, as it is. */
  home() {
    if (this.stack.length > 1) {
      this.stack.length = 1;
      this.appear();
    }
  }

  /** Resolves when the page in front is as `is` wants it. */
  until(is) {
    return new Promise((resolve) => {
      const check = () => {
        const so = is(this.page);
        if (so) {
          resolve();
        }
        return so;
      };
      if (!check()) {
        this.waiting.push(check);
      }
    });
  }

  appear(...lifeCycle) {
    this.drawn = new Map();
    this.body.replaceChildren();
    lifeCycle.forEach((name) => this.page[name] && this.page[name]({}));
    this.draw();
    this.body.scrollTop = 0;
  }

  /*
   * ---- drawing: an element stays the same as long as its node is there, so that what is typed and
   * focused stays too ----
   */

  draw() {
    if (!this.page) {
      return;
    }
    const { template, config } = this.pages.get(this.page.route);
    this.title.textContent = half(
      config.navigationBarTitleText || this.config.window.navigationBarTitleText,
    );
    this.back.hidden = this.stack.length < 2;
    this.fillElement(this.body, template.children);
  }

  fillElement(element, nodes) {
    const wanted = present(nodes, this.page.data).map((node) => this.drawNode(node));
    wanted.forEach((child, i) => {
      if (element.childNodes[i] !== child) {
        element.insertBefore(child, element.childNodes[i] || null);
      }
    });
    while (element.childNodes.length > wanted.length) {
      element.lastChild.remove();
    }
  }

  drawNode(node) {
    if (node.chars !== undefined) {
      const drawn = this.drawn.get(node) || document.createTextNode("");
      this.drawn.set(node, drawn);
      const words = half(String(fill(node.chars, this.page.data) ?? ""));
      if (drawn.data !== words) {
        drawn.data = words;
      }
      return drawn;
    }
    const element = this.drawn.get(node) || this.makeElement(node);
    this.drawn.set(node, element);
    this.setAttributes(node, element);
    this.fillElement(element, node.children);
    return element;
  }

  makeElement({ tag, attrs }) {
    if (!(tag in ELEMENTS)) {
      throw new Error(`wxml: <${tag}> is more than the simulator understands`);
    }
    const element = document.createElement(ELEMENTS[tag]);
    element.className = `wx-${tag} ${attrs.class || ""}`.trim();
    if (tag === "button") {
      element.type = attrs["form-type"] === "submit" ? "submit" : "button";
      element.classList.toggle("is-primary", attrs.type === "primary");
    }
    if (tag === "input") {
      element.name = attrs.name;
      element.autocomplete = "off";
      element.maxLength = 32;
    }
    if (tag === "image") {
      element.alt = "";
    }
    if (tag === "form") {
      element.addEventListener("submit", (event) => {
        event.preventDefault();
        this.onAct(attrs.bindsubmit);
        this.fire(attrs.bindsubmit, { value: Object.fromEntries(new FormData(element)) });
      });
    }
    if (tag === "navigator") {
      element.tabIndex = 0;
      element.setAttribute("role", "link");
    }
    const tapped = () => this.tapped(tag, attrs);
    if (tag === "navigator" || attrs.bindtap || attrs["open-type"]) {
      element.addEventListener("click", tapped);
      if (tag !== "button") {
        element.classList.add("tappable");
        element.addEventListener("keydown", (event) => event.key === "Enter" && tapped());
      }
    }
    return element;
  }

  setAttributes({ tag, attrs }, element) {
    for (const name of ["src", "value", "placeholder"]) {
      if (!(name in attrs)) {
        continue;
      }
      const value = half(String(fill(attrs[name], this.page.data) ?? ""));
      const shown = tag === "input" && name === "value" ? "data-value" : name;
      if (element.getAttribute(shown) !== value) {
        // what the user typed is not undone
        element.setAttribute(shown, value);
        element[name] = value;
      }
    }
  }

  /* ---- what the user does ---- */

  async tapped(tag, attrs) {
    const openTypes = (attrs["open-type"] || "").split("|").filter(Boolean);
    if (tag === "navigator") {
      this.navigateTo(attrs.url.slice(1));
    }
    if (openTypes.includes("agreePrivacyAuthorization")) {
      // first, where it is joined to another
      this.phone.agreePrivacy();
      this.fire(attrs.bindagreeprivacyauthorization, {});
    }
    for (const openType of openTypes.filter((type) => type !== "agreePrivacyAuthorization")) {
      if (openType === "chooseAvatar") {
        this.onAct("avatar");
        this.fire(attrs.bindchooseavatar, await this.phone.chooseAvatar());
      } else if (openType === "getPhoneNumber" || openType === "getRealtimePhoneNumber") {
        this.onAct("phone");
        this.fire(
          attrs[`bind${openType.toLowerCase()}`],
          await this.phone.getPhoneNumber(openType),
        );
      } else {
        throw new Error(`wxml: open-type="${openType}" is more than the simulator understands`);
      }
    }
    if (attrs.bindtap) {
      this.onAct(attrs.bindtap);
      this.fire(attrs.bindtap, {});
    }
  }

  fire(handler, detail) {
    this.page[handler]({ detail });
  }
}

/** What WeChat itself asks, from below. */
export class Sheets {
  constructor(element) {
    this.element = element;
  }

  /** Resolves with the value of what was tapped. */
  ask(words, choices) {
    return new Promise((resolve) => {
      const panel = document.createElement("div");
      panel.className = "panel";
      panel.setAttribute("role", "dialog");
      const heading = document.createElement("p");
      heading.textContent = words;
      const row = document.createElement("div");
      row.className = choices.some((choice) => choice.image) ? "faces" : "choices";
      panel.append(heading, row);
      choices.forEach(({ label, image, value, strong }) => {
        const button = document.createElement("button");
        button.type = "button";
        if (image) {
          const picture = document.createElement("img");
          picture.src = image;
          picture.alt = image.replace(/.*\/|\.svg/g, "");
          button.append(picture);
        } else {
          button.textContent = text(label);
          button.className = strong ? "strong" : "plain";
        }
        button.addEventListener("click", () => {
          this.element.hidden = true;
          this.element.replaceChildren();
          resolve(value);
        });
        (image ? row : label === "sheet.cancel" ? panel : row).append(button);
      });
      this.element.replaceChildren(panel);
      this.element.hidden = false;
      panel.querySelector("button").focus();
    });
  }

  avatar() {
    const faces = [1, 2, 3]
      .map((n) => `/fake/page/face-${n}.svg`)
      .map((url) => ({ image: url, value: url }));
    return this.ask(text("sheet.avatar"), [...faces, { label: "sheet.cancel", value: "" }]);
  }

  phone() {
    return this.ask(text("sheet.phone"), [
      { label: "sheet.decline", value: false },
      { label: "sheet.allow", value: true, strong: true },
    ]);
  }

  privacy() {
    return this.ask(text("sheet.privacy"), [
      { label: "sheet.decline", value: false },
      { label: "sheet.agree", value: true, strong: true },
    ]);
  }

  /** What the mini program asks by wx.showModal. Resolves with whether the user agrees. */
  modal(title, content) {
    return this.ask(`${half(title)}: ${half(content)}`, [
      { label: "sheet.no", value: false },
      { label: "sheet.yes", value: true, strong: true },
    ]);
  }

  contract() {
    return this.ask(text("sheet.contract"), [{ label: "sheet.close", value: true, strong: true }]);
  }
}
