/** Puts the page together: the phone, the buttons, the diagram, the two languages. */
import { calibrate, Diagram, LANES, now, reading } from "./diagram.js";
import { Screen, Sheets } from "./screen.js";
import { has, language, setLanguage, text } from "./texts.js";
import { Phone } from "./wx.js";

const $ = (id) => document.getElementById(id);
const WECHAT_APIS = [
  "jscode2session",
  "token",
  "stable_token",
  "checksession",
  "resetusersessionkey",
  "getuserphonenumber",
  "getuserencryptkey",
];

let about, diagram, phone, screen;
let hint = ["hint.start", null, {}];
let live = false;
let trouble = null;
let stopped = false;
/** The Redis servers, where wxfake may end them: [{ server, role }]. */
let servers = [];
/** How many answers of wxlogind were 503. */
let refusals = 0;

/* ---- words ---- */

function translate() {
  document.documentElement.lang = language() === "zh" ? "zh-CN" : "en";
  document.title = text("page.title");
  document
    .querySelectorAll("[data-text]")
    .forEach((element) => (element.textContent = text(element.dataset.text)));
  document
    .querySelectorAll("[data-label]")
    .forEach((element) => element.setAttribute("aria-label", text(element.dataset.label)));
  document
    .querySelectorAll("[data-lang]")
    .forEach((button) =>
      button.setAttribute("aria-pressed", String(button.dataset.lang === language())),
    );
  if (about && !about.redis) {
    $("legend").textContent += text("traffic.no_redis");
  }
  showHint(...hint);
  showLive();
  showTrouble();
  showStopped();
  showServers();
  if (diagram) {
    diagram.translate();
  }
  if (screen) {
    screen.draw();
  }
}

/** What was to be seen, and which button goes on from here. */
function showHint(key, next, values = {}) {
  hint = [key, next, values];
  $("hint").textContent = text(key, values);
  document
    .querySelectorAll(".controls button")
    .forEach((button) => button.classList.toggle("next", button.id === next));
}

function showLive() {
  $("live").textContent = text(live ? "live.on" : "live.off");
  $("live").classList.toggle("on", live);
}

function showTrouble() {
  $("trouble").hidden = !trouble;
  $("trouble").textContent = trouble ? text(trouble.key, trouble.values) : "";
}

function showStopped() {
  $("stop").textContent = text(stopped ? "happen.resume" : "happen.stop");
  $("stop").setAttribute("aria-pressed", String(stopped));
}

/** A server's port tells it from its neighbours on the same host. */
function nameOf(server) {
  const host = (name) => name.slice(0, name.lastIndexOf(":"));
  const same = servers.every((other) => host(other.server) === host(server));
  return same ? server.slice(server.lastIndexOf(":") + 1) : server;
}

function showServers() {
  $("servers").hidden = servers.length === 0;
  $("servers").replaceChildren(
    ...servers.map(({ server, role }) => {
      const item = document.createElement("li");
      item.className = role;
      item.textContent = text(`server.${role}`, { name: nameOf(server) });
      return item;
    }),
  );
}

function showLosing() {
  $("lose").setAttribute("aria-pressed", String(phone.losing));
}

function network(reached) {
  trouble = reached
    ? null
    : { key: "trouble.wxlogind", values: { server: about.wxlogind, origin: location.origin } };
  showTrouble();
}

/* ---- the buttons ---- */

/** Whether it went well, and whether a login was part of it. */
async function watched(work) {
  const before = phone.session;
  try {
    await work();
    return { ok: true, loggedIn: phone.session !== before };
  } catch {
    return { ok: false, loggedIn: false };
  }
}

/** The page that shows the session is in front, and shows what comes of `login`. */
function showLogin(login) {
  screen.home();
  screen.app.setLogin(login);
  screen.page.onShow();
  return login;
}

async function launch() {
  diagram.act("launch");
  const { ok, loggedIn } = await watched(() => {
    screen.launch();
    return screen.app.loginReady;
  });
  return ok ? (loggedIn ? "hint.restart_login" : "hint.restart") : "hint.login_failed";
}

const actions = {
  async login() {
    diagram.act("login");
    const { ok } = await watched(() => showLogin(screen.common.onLogin()));
    return ok ? ["hint.login", "call"] : ["hint.login_failed", stopped ? "stop" : null];
  },
  async call() {
    diagram.act("call");
    screen.home();
    const before = phone.session;
    screen.page.onCheckTap();
    await screen.until((page) => page.data.state !== "working");
    if (screen.page.data.state !== "in") {
      return ["hint.call_failed", "login"];
    }
    return [
      !before ? "hint.login" : phone.session === before ? "hint.call" : "hint.call_relogin",
      null,
    ];
  },
  async backend() {
    diagram.act("backend");
    screen.home();
    const before = phone.session;
    const { ok } = await watched(() =>
      screen.common.request({ url: `${location.origin}/fake/backend` }),
    );
    return ok
      ? [phone.session === before ? "hint.backend" : "hint.call_relogin", null]
      : ["hint.call_failed", "login"];
  },
  async restart() {
    return [await launch(), null];
  },
  async expire() {
    if (!phone.openid) {
      return ["hint.none", "login"];
    }
    diagram.act("expire");
    await phone.fake("expire", { openid: phone.openid });
    return ["hint.expire", "restart"];
  },
  async withdraw() {
    if (!phone.openid) {
      return ["hint.none", "login"];
    }
    diagram.act("withdraw");
    const { status } = await phone.fake("push", {
      event: "user_authorization_revoke",
      openid: phone.openid,
      revoke: "8",
    });
    return [status === 200 ? "hint.withdraw" : "hint.withdraw_refused", null];
  },
  async end() {
    if (!phone.session) {
      return ["hint.none", "login"];
    }
    diagram.act("end");
    await phone.endElsewhere();
    return ["hint.end", "call"];
  },
  async other() {
    diagram.act("other");
    await phone.loginElsewhere();
    return ["hint.other", "call"];
  },
  async lose() {
    phone.losing = !phone.losing;
    showLosing();
    diagram.act(phone.losing ? "lose" : "unlose");
    return phone.losing ? ["hint.lose", "login"] : ["hint.unlose", null];
  },
  async stop() {
    if (stopped) {
      await Promise.all(
        WECHAT_APIS.map((api) => fetch(`/fake/fault?api=${api}`, { method: "DELETE" })),
      );
    } else {
      await Promise.all(
        WECHAT_APIS.map((api) => phone.fake("fault", { api, mode: "reset", count: 1000000 })),
      );
    }
    stopped = !stopped;
    showStopped();
    diagram.act(stopped ? "stop" : "resume");
    return stopped ? ["hint.stop", "login"] : ["hint.resume", "login"];
  },
};

/* ---- the death of a Redis master ---- */

const KILL_MS = 60000;

const masters = () => servers.filter(({ role }) => role === "master").map(({ server }) => server);

/** News of the servers: who was elected, and who is back, stands in the diagram. */
function onServers({ at, servers: told }) {
  const before = new Map(servers.map(({ server, role }) => [server, role]));
  servers = told;
  showServers();
  for (const { server, role } of told) {
    const was = before.get(server);
    if (role === "master" && was !== role) {
      diagram.happened("elected", { name: nameOf(server) }, at);
    } else if (role === "replica" && was === "away") {
      diagram.happened("back", { name: nameOf(server) }, at);
    }
  }
}

/** Calls with the session until there are as many masters as before, and a call went well. */
async function callUntilElected(dead, before) {
  const end = now() + KILL_MS;
  while (now() < end) {
    const elected = masters().filter((server) => !before.includes(server));
    const { ok } = await watched(() => screen.common.request({ url: "/v1/session" }));
    if (ok && elected.length && masters().length === before.length) {
      return elected[0];
    }
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
  return null;
}

actions.kill = async () => {
  const before = masters();
  if (!before.length) {
    return ["hint.kill_waits", null];
  }
  diagram.act("kill");
  screen.home();
  const [session, began, refused] = [phone.session, now(), refusals];
  const { server: dead } = await phone.fake("kill-redis");
  showHint("hint.kill", null);
  const master = await callUntilElected(dead, before);
  const values = {
    dead: nameOf(dead),
    master: master && nameOf(master),
    seconds: ((now() - began) / 1000).toFixed(1),
    n: refusals - refused,
  };
  if (!master) {
    return ["hint.kill_late", null];
  }
  return [session === phone.session ? "hint.killed" : "hint.killed_login", "login", values];
};

async function press(name) {
  const button = $(name);
  button.classList.add("busy");
  button.setAttribute("aria-busy", "true");
  $("scroller").scrollIntoView({ block: "nearest", behavior: "smooth" }); // below, on a narrow page
  try {
    showHint(...(await actions[name]()));
  } catch {
    // wxfake or wxlogind is away: the banner, or the live sign, says so
    showHint("hint.call_failed", null);
  } finally {
    button.classList.remove("busy");
    button.removeAttribute("aria-busy");
  }
}

/** What was tapped in the mini program itself, as an act of the diagram. */
const TAPS = {
  onLoginTap: "login",
  onCheckTap: "call",
  onLogoutTap: "logout",
  onLoadTap: "login",
  onNicknameSubmit: "name",
  onCloseTap: "close",
  profile: "profile",
  avatar: "avatar",
  phone: "phone",
  page: "page",
};

function onAct(name) {
  if (TAPS[name]) {
    diagram.act(TAPS[name]);
  }
  if (name === "profile") {
    showHint("hint.profile", null);
  }
}

/* ---- the stack ---- */

async function ask() {
  const before = reading();
  const res = await fetch("/fake/about");
  const answer = await res.json();
  calibrate(before, answer.at, reading());
  return answer;
}

/* ---- the user database: wxlogind counts what it asks of it ---- */

let counted = null;

async function readUsers() {
  const rows = await (await fetch("/fake/users")).json();
  return new Map(rows.map(({ call, outcome, n }) => [`${call} ${outcome}`, n]));
}

/** After an answer of wxlogind: what it asked of the user database meanwhile. */
async function countUsers(at) {
  const before = counted;
  const after = await readUsers();
  if (before !== counted) {
    return; // a later answer was quicker, and told of it
  }
  counted = after;
  after.forEach((n, key) => {
    const [call, outcome] = key.split(" ");
    for (let i = before.get(key) || 0; i < n; i++) {
      const label = outcome === "ok" ? call : `${call} ✗ ${outcome}`;
      diagram.message({
        at: at - 0.05,
        from: "wxlogind",
        to: "users",
        label,
        note: has(`note.users_${call}`) ? `note.users_${call}` : undefined,
        tone: outcome === "ok" ? "" : "bad",
      });
    }
  });
}

function record(message) {
  const at = now();
  diagram.message({ at, ...message });
  if (message.from === "wxlogind" && message.label.startsWith("503")) {
    refusals++;
  }
  if (about.internal && message.from === "wxlogind" && message.to === "phone") {
    countUsers(at).catch(() => {}); // wxlogind is away: the banner says so
  }
}

/** Resolves when wxfake is listening to. */
function listen() {
  const events = new EventSource("/fake/events");
  const tell = (name, work) =>
    events.addEventListener(name, (event) => work(JSON.parse(event.data)));
  tell("wechat", (event) => diagram.wechat(event));
  tell("wechat_end", (event) => diagram.wechatEnd(event));
  tell("redis", ({ server, ...event }) =>
    diagram.redis({ ...event, server: servers.length > 1 ? nameOf(server) : "" }),
  );
  tell("servers", onServers);
  tell("auth", (event) => diagram.auth(event));
  tell("auth_end", (event) => diagram.authEnd(event));
  events.addEventListener("error", () => {
    live = false;
    showLive();
  });
  return new Promise((resolve) =>
    events.addEventListener("open", async () => {
      live = true;
      showLive();
      if (about.kill_redis) {
        servers = await (await fetch("/fake/redis")).json();
        showServers();
      }
      resolve();
    }),
  );
}

function showClock() {
  $("clock").textContent = new Date().toLocaleTimeString([], {
    hour: "2-digit",
    minute: "2-digit",
    hour12: false,
  });
}

async function start() {
  const chosen = localStorage.getItem("simulator:language");
  setLanguage(chosen || (/^zh\b/i.test(navigator.language) ? "zh" : "en"));
  document.querySelectorAll("[data-lang]").forEach((button) =>
    button.addEventListener("click", () => {
      setLanguage(button.dataset.lang);
      localStorage.setItem("simulator:language", button.dataset.lang);
      translate();
    }),
  );
  translate();
  showClock();
  setInterval(showClock, 10000);

  for (let i = 0; i < 5; i++) {
    about = await ask();
  }
  const lanes = LANES.filter((lane) => about.internal || (lane !== "backend" && lane !== "users"));
  LANES.forEach((lane) => {
    const element = document.querySelector(`.${lane}-lane`);
    element.hidden = false;
    if (!lanes.includes(lane)) {
      element.remove();
    }
  });
  $("backend").hidden = !about.internal;
  $("kill").hidden = !about.kill_redis;
  document.querySelector(".traffic").classList.toggle("six", lanes.length === 6);
  diagram = new Diagram({ list: $("rows"), scroller: $("scroller"), empty: $("empty"), lanes });
  counted = about.internal ? await readUsers().catch(() => new Map()) : null;
  const { faults } = await (await fetch("/fake/stats")).json();
  // by this page, before it was loaded anew
  stopped = faults.some((fault) => fault.mode === "reset" && fault.count > 1000);
  phone = new Phone({ about, network, sheets: new Sheets($("sheet")), record });
  phone.onLost = showLosing;
  screen = new Screen({ root: $("screen"), title: $("title"), back: $("back"), phone, onAct });
  await screen.load();
  await listen();
  translate();
  Object.keys(actions).forEach((name) => $(name).addEventListener("click", () => press(name)));
  $("clear").addEventListener("click", () => diagram.clear());
  const key = await launch();
  showHint(key === "hint.login_failed" ? key : "hint.start", null);
  document.documentElement.dataset.ready = "yes";
}

start().catch((error) => {
  trouble = { key: "trouble.start", values: { error: error.message } };
  showTrouble();
});
