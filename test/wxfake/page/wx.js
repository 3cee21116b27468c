/**
 * `wx` made of browser parts: storage is localStorage, wx.request is fetch, and wxfake plays
 * WeChat. As on a phone, callbacks come later and never at once, and wx.request calls `success` for
 * any status. Every call is recorded as it goes out and as its answer comes.
 */

const SECRETS = new RegExp(
  "^(code|nonce|third_session|session_key|openid|unionid|encryptedData|iv|signature|" +
    "phoneNumber|purePhoneNumber)$",
  "i",
);
const SHOWN = 4;

export function shorten(secret) {
  return secret.length > SHOWN ? `${secret.slice(0, SHOWN)}…` : "…";
}

/** An object as one line, its secrets cut. */
function summary(value) {
  if (value === null || typeof value !== "object") {
    return String(value).slice(0, 80);
  }
  return Object.entries(value)
    .filter(([, v]) => v !== null) // what a profile does not hold
    .map(([name, v]) => {
      if (SECRETS.test(name)) return `${name}: ${shorten(String(v))}`;
      const shown = typeof v === "object" && v ? `{ ${summary(v)} }` : String(v).slice(0, 60);
      return `${name}: ${shown}`;
    })
    .join(", ");
}

function answerLabel(status, data) {
  const reason =
    data && data.error ? ` ${data.error}${data.reason ? ` · ${data.reason}` : ""}` : "";
  return `${status}${reason}`;
}

function tone(status) {
  return status < 400 ? "good" : status < 500 ? "warn" : "bad";
}

/** Calls success or fail, then complete; but never before the call has returned. */
function answer(options, api, work) {
  const later = (names, result) =>
    setTimeout(() => names.forEach((name) => options[name] && options[name](result)), 0);
  Promise.resolve()
    .then(work)
    .then(
      (result) => later(["success", "complete"], { errMsg: `${api}:ok`, ...result }),
      (error) =>
        later(["fail", "complete"], { ...error.detail, errMsg: `${api}:fail ${error.message}` }),
    );
}

export class Phone {
  /**
   * @param {object} options
   * @param {{wxlogind: string, apps: string[]}} options.about what wxfake says of the stack
   * @param {(event: object) => void} options.record tells the diagram
   * @param {(reached: boolean) => void} options.network hears whether wxlogind can be reached
   * @param {object} options.sheets what WeChat itself asks the user
   */
  constructor({ about, record, network, sheets }) {
    this.about = about;
    this.appid = about.apps[0];
    this.record = record;
    this.network = network;
    this.sheets = sheets;
    /** The next answer of wxlogind does not reach the phone. */
    this.losing = false;
    this.onLost = () => {};
    this.wx = this.makeWx();
  }

  /** Whose phone this is. WeChat knows; the mini program is never told. */
  get openid() {
    return localStorage.getItem("simulator:openid") || undefined;
  }

  get session() {
    const stored = localStorage.getItem("wx:third_Session");
    return stored ? JSON.parse(stored) : "";
  }

  /**
   * wxfake's side of the stack: what plays WeChat and the world, and is no traffic of the product.
   */
  async fake(path, body) {
    const res = await fetch(`/fake/${path}`, {
      method: "POST",
      body: JSON.stringify({ appid: this.appid, ...body }),
    });
    if (!res.ok) {
      throw new Error(`${path}: ${res.status}`);
    }
    return res.status === 204 ? null : res.json();
  }

  /** A call between this phone and WeChat. */
  async askWechat(label, work) {
    this.record({ from: "phone", to: "wechat", label });
    const { shown, note, tone: how = "good", result } = await work();
    this.record({ from: "wechat", to: "phone", label: shown, note, tone: how });
    return result;
  }

  code(kind, label = "wx.login") {
    return this.askWechat(label, async () => {
      const given = await this.fake("code", { openid: this.openid, kind });
      localStorage.setItem("simulator:openid", given.openid);
      return { shown: `code ${shorten(given.code)}`, note: "note.code", result: given.code };
    });
  }

  checkSession() {
    return this.askWechat("wx.checkSession", async () => {
      const { alive } = this.openid
        ? await this.fake("check-session", { openid: this.openid })
        : { alive: false };
      return {
        shown: alive ? "ok" : "fail",
        note: alive ? "note.alive" : "note.dead",
        tone: alive ? "good" : "warn",
        result: alive,
      };
    });
  }

  /** One HTTP call from a phone, as the diagram shows it. Throws where no answer comes. */
  async send({
    url,
    method = "GET",
    data,
    header = {},
    timeout = 60000,
    redirect,
    dataType = "json",
    signal,
    elsewhere = false,
  }) {
    const server = url.startsWith(`${location.origin}/fake/`) ? "backend" : "wxlogind";
    const base = server === "backend" ? location.origin : this.about.wxlogind;
    const path = url.startsWith(base) ? url.slice(base.length) : url;
    const note = elsewhere ? "note.elsewhere" : undefined;
    const authorization = Object.entries(header).find(
      ([name]) => name.toLowerCase() === "authorization",
    );
    const detail = [
      authorization && `Bearer ${shorten(authorization[1].replace("Bearer ", ""))}`,
      data && summary(data),
    ].filter(Boolean);
    let body;
    if (data !== undefined && method === "GET") {
      url += (url.includes("?") ? "&" : "?") + new URLSearchParams(data);
    } else if (data !== undefined) {
      body = typeof data === "string" ? data : JSON.stringify(data);
    }
    this.record({
      from: "phone",
      to: server,
      label: `${method} ${path.split("?")[0]}`,
      note,
      detail: detail.join(" · "),
      elsewhere,
    });
    let res, text;
    try {
      const limits = [AbortSignal.timeout(timeout), signal].filter(Boolean);
      const signals = { signal: AbortSignal.any ? AbortSignal.any(limits) : limits[0] };
      const headers = { "content-type": "application/json", ...header };
      res = await fetch(url, {
        method,
        body,
        headers,
        redirect,
        credentials: "omit",
        referrerPolicy: "no-referrer",
        cache: "no-store",
        ...signals,
      });
      text = await res.text();
      if (server === "wxlogind") {
        this.network(true);
      }
    } catch (error) {
      this.record({
        from: server,
        to: "phone",
        label: "✗",
        note: "note.no_network",
        tone: "bad",
        lost: true,
        elsewhere,
      });
      if (server === "wxlogind") {
        this.network(false);
      }
      throw error;
    }
    let parsed = text;
    if (dataType === "json") {
      try {
        parsed = JSON.parse(text);
      } catch {
        // then wx.request gives the text
      }
    }
    if (this.losing && !elsewhere) {
      this.losing = false;
      this.record({
        from: server,
        to: "phone",
        label: answerLabel(res.status, parsed),
        note: "note.lost",
        tone: "bad",
        lost: true,
      });
      this.onLost();
      throw new Error("answer lost");
    }
    const shown = res.ok && parsed && typeof parsed === "object" ? summary(parsed) : "";
    this.record({
      from: server,
      to: "phone",
      label: answerLabel(res.status, parsed),
      detail: shown,
      tone: tone(res.status),
      note,
      elsewhere,
    });
    return { statusCode: res.status, header: Object.fromEntries(res.headers), data: parsed };
  }

  /** Another phone of the same user: it logs in by itself, with no part in what this one stores. */
  async loginElsewhere() {
    this.record({
      from: "phone",
      to: "wechat",
      label: "wx.login",
      note: "note.elsewhere",
      elsewhere: true,
    });
    const given = await this.fake("code", { openid: this.openid });
    localStorage.setItem("simulator:openid", given.openid);
    this.record({
      from: "wechat",
      to: "phone",
      label: `code ${shorten(given.code)}`,
      note: "note.elsewhere",
      tone: "good",
      elsewhere: true,
    });
    const data = { code: given.code, ...(this.about.apps.length > 1 && { appid: this.appid }) };
    await this.send({
      url: `${this.about.wxlogind}/v1/login`,
      method: "POST",
      data,
      elsewhere: true,
    });
  }

  endElsewhere() {
    const header = { Authorization: `Bearer ${this.session}` };
    return this.send({
      url: `${this.about.wxlogind}/v1/session`,
      method: "DELETE",
      header,
      elsewhere: true,
    });
  }

  makeWx() {
    return {
      login: (options) =>
        answer(options, "login", async () => ({ code: await this.code("login") })),
      checkSession: (options) =>
        answer(options, "checkSession", async () => {
          if (!(await this.checkSession())) {
            throw new Error("session time out..need relogin");
          }
        }),
      getStorage: (options) =>
        answer(options, "getStorage", () => {
          const stored = localStorage.getItem(`wx:${options.key}`);
          if (stored === null) {
            throw new Error("data not found");
          }
          return { data: JSON.parse(stored) };
        }),
      setStorage: (options) =>
        answer(options, "setStorage", () =>
          localStorage.setItem(`wx:${options.key}`, JSON.stringify(options.data)),
        ),
      removeStorage: (options) =>
        answer(options, "removeStorage", () => localStorage.removeItem(`wx:${options.key}`)),
      request: (options) => {
        const control = new AbortController();
        answer(options, "request", () => this.send({ ...options, signal: control.signal }));
        // fetch fails where a redirect is not followed
        return { abort: () => control.abort(), onHeadersReceived() {} };
      },
      getPrivacySetting: (options) =>
        answer(options, "getPrivacySetting", () => ({
          needAuthorization: !this.privacy,
          privacyContractName: "《小程序用户隐私保护指引》",
        })),
      showModal: (options) =>
        answer(options, "showModal", async () => {
          const confirm = await this.sheets.modal(options.title, options.content);
          return { confirm, cancel: !confirm };
        }),
      openPrivacyContract: (options) =>
        answer(options, "openPrivacyContract", () => this.sheets.contract()),
    };
  }

  /* ---- what buttons with an open-type do ---- */

  get privacy() {
    return localStorage.getItem("simulator:privacy") === "agreed";
  }

  agreePrivacy() {
    localStorage.setItem("simulator:privacy", "agreed");
  }

  /** Where the user has not agreed yet, WeChat asks before such a button does its work. */
  async askedPrivacy() {
    if (!this.privacy && (await this.sheets.privacy())) {
      this.agreePrivacy();
    }
    return this.privacy;
  }

  async chooseAvatar() {
    if (!(await this.askedPrivacy())) {
      return { errno: 104, errMsg: "chooseAvatar:fail privacy permission is not authorized" };
    }
    const avatarUrl = await this.sheets.avatar();
    return avatarUrl ? { avatarUrl } : { errMsg: "chooseAvatar:fail cancel" };
  }

  /** @param {string} openType `getPhoneNumber` or `getRealtimePhoneNumber` */
  async getPhoneNumber(openType) {
    if (!(await this.askedPrivacy())) {
      return { errno: 104, errMsg: `${openType}:fail privacy permission is not authorized` };
    }
    if (!(await this.sheets.phone())) {
      return { errMsg: `${openType}:fail user deny` };
    }
    return { code: await this.code("phone", openType), errMsg: `${openType}:ok` };
  }
}
