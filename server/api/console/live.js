/* Rates, latencies and health, from /metrics and /readyz every two seconds. */
import { Trouble, call, element } from "./call.js";
import { text } from "./texts.js";

const EVERY_MS = 2000;
const POINTS = 150; // five minutes
const LINE = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/;
const LABEL = /([a-z_]+)="((?:[^"\\]|\\.)*)"/g;

/** [{ name, labels, value }] of Prometheus' text. */
function parse(page) {
  const rows = [];
  for (const line of page.split("\n")) {
    const found = LINE.exec(line);
    if (found) {
      const labels = Object.fromEntries(
        [...(found[2] || "").matchAll(LABEL)].map((m) => [m[1], m[2]]),
      );
      rows.push({ name: found[1], labels, value: Number(found[3]) });
    }
  }
  return rows;
}

const sum = (rows, name, fits = () => true) =>
  rows.reduce((n, row) => (row.name === name && fits(row.labels) ? n + row.value : n), 0);
const value = (rows, name) => rows.find((row) => row.name === name)?.value;

/** Where a share of what came between two looks was answered, in ms; null when nothing came. */
function quantile(before, now, name, share) {
  const bounds = new Map();
  const count = (rows, sign) => {
    for (const row of rows) {
      if (row.name === `${name}_bucket`) {
        const at = row.labels.le === "+Inf" ? Infinity : Number(row.labels.le);
        bounds.set(at, (bounds.get(at) || 0) + sign * row.value);
      }
    }
  };
  count(now, 1);
  count(before, -1);
  const sorted = [...bounds].sort((a, b) => a[0] - b[0]);
  const total = sorted.length ? sorted[sorted.length - 1][1] : 0;
  if (total <= 0) {
    return null;
  }
  let low = 0;
  let below = 0;
  for (const [at, n] of sorted) {
    if (n >= share * total) {
      const part = n > below ? (share * total - below) / (n - below) : 1;
      return 1000 * (at === Infinity ? low : low + (at - low) * part);
    }
    [low, below] = [at, n];
  }
  return 1000 * low;
}

const rate = (name, fits) => (before, now, seconds) =>
  Math.max(0, (sum(now, name, fits) - sum(before, name, fits)) / seconds);
const latency = (name, share) => (before, now) => quantile(before, now, name, share);
const HTTP = "wxlogind_http_requests_total";
const PLOTS = [
  { id: "requests", unit: "/s", of: rate(HTTP) },
  { id: "logins", unit: "/s", of: rate("wxlogind_logins_total") },
  { id: "errors", unit: "/s", of: rate(HTTP, (labels) => labels.status >= "500") },
  { id: "http_p50", unit: "ms", of: latency("wxlogind_http_request_seconds", 0.5) },
  { id: "http_p99", unit: "ms", of: latency("wxlogind_http_request_seconds", 0.99) },
  { id: "wechat_p99", unit: "ms", of: latency("wxlogind_wechat_request_seconds", 0.99) },
];

const SVG = "http://www.w3.org/2000/svg";
const figures = new Map();
let timer = 0;
let run = 0;
let last = null;
let ready = null;
let recent = []; // what /metrics said, the oldest first

function draw(plot) {
  const { line, number, svg, points } = figures.get(plot.id);
  const top = Math.max(1, ...points.map((p) => p ?? 0));
  const at = points.map(
    (p, i) =>
      `${((POINTS - points.length + i) * 300) / (POINTS - 1)},${54 - ((p ?? 0) * 50) / top}`,
  );
  const newest = points.length ? points[points.length - 1] : null;
  const words = newest === null ? "–" : `${newest.toFixed(newest < 10 ? 1 : 0)} ${plot.unit}`;
  line.setAttribute("points", at.join(" "));
  number.textContent = words;
  svg.setAttribute("aria-label", `${text(plot.id)}: ${words}`);
}

function build() {
  for (const plot of PLOTS) {
    const figure = element("figure");
    const caption = element("figcaption");
    const number = element("b", "–");
    const svg = document.createElementNS(SVG, "svg");
    const line = document.createElementNS(SVG, "polyline");
    svg.setAttribute("viewBox", "0 0 300 56");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", text(plot.id));
    svg.append(line);
    caption.append(element("span", "", { "data-text": plot.id }), number);
    figure.append(caption, svg);
    document.getElementById("plots").append(figure);
    figures.set(plot.id, { line, number, svg, points: [] });
  }
}

build();

const CALLS = "wxlogind_wechat_requests_total";
const HOST_UP = "wxlogind_wechat_host_up";
const RENEWALS = "wxlogind_access_token_renewals_total";
const TOKEN_END = "wxlogind_access_token_end_timestamp_seconds";
const named = (rows, name, label) => [
  ...new Set(rows.filter((row) => row.name === name).map((row) => row.labels[label])),
];

/**
 * What a counter gained in the last five minutes: { ok, failed, why: the outcomes of those that
 * failed }.
 */
function gained(rows, name, label, value) {
  const from = recent[0] || [];
  const outcomes = { ok: 0, failed: 0, why: [] };
  for (const row of rows.filter((row) => row.name === name && row.labels[label] === value)) {
    const { outcome } = row.labels;
    const n = row.value - sum(from, name, (old) => old[label] === value && old.outcome === outcome);
    if (outcome === "ok") {
      outcomes.ok = Math.max(0, n);
    } else if (n > 0) {
      outcomes.failed += n;
      outcomes.why.push(outcome);
    }
  }
  return outcomes;
}

/** Each of WeChat's hosts, and each call to it. */
function wechat(rows) {
  const hosts = rows
    .filter((row) => row.name === HOST_UP)
    .map(({ labels, value: up }) => [
      up ? "good" : "bad",
      `${labels.host}: ${text(up ? "host_up" : "host_away")}`,
    ]);
  const calls = named(rows, CALLS, "api").map((api) => {
    const { ok, failed, why } = gained(rows, CALLS, "api", api);
    const words = `WeChat ${api}: ${ok} ${text("went_well")}, ${failed} ${text("failed")}`;
    const ill = why.some((outcome) => outcome !== "invalid_code"); // that one is the caller's
    return [ill ? "bad" : ok ? "good" : "", failed ? `${words} (${why.join(", ")})` : words];
  });
  return [...hosts, ...calls];
}

/** Each app's access_token: how long it lives, and whether its renewal fails. */
function tokens(rows) {
  return rows
    .filter((row) => row.name === TOKEN_END)
    .map(({ labels, value: end }) => {
      const minutes = Math.floor((end - Date.now() / 1000) / 60);
      const lives = minutes > 0 ? `${text("token_ends")} ${minutes} min` : text("token_none");
      const { failed, why } = gained(rows, RENEWALS, "appid", labels.appid);
      const words = `access_token ${labels.appid}: ${lives}`;
      return failed
        ? ["bad", `${words}, ${text("token_fails")} ${failed} (${why.join(", ")})`]
        : [minutes > 0 ? "good" : "", words];
    });
}

function health(rows) {
  const up = (n, good, bad) => (n ? ["good", text(good)] : ["bad", text(bad)]);
  const lines = [];
  if (ready instanceof Trouble) {
    lines.push(["bad", `${text("not_ready")} ${ready.message_of_server || ready.message}`]);
  } else {
    lines.push(["good", text("is_ready")]);
  }
  lines.push(up(value(rows, "wxlogind_redis_connected"), "redis_up", "redis_away"));
  const users = value(rows, "wxlogind_users_up");
  lines.push(users === undefined ? ["", text("users_none")] : up(users, "users_up", "users_away"));
  lines.push(...wechat(rows), ...tokens(rows));
  const hits = sum(rows, "wxlogind_session_cache_total", (labels) => labels.result === "hit");
  const all = sum(rows, "wxlogind_session_cache_total");
  lines.push(["", `${text("cache")}: ${all ? Math.round((100 * hits) / all) : 0} %`]);
  lines.push(["", `${text("connections")}: ${sum(rows, "wxlogind_connections")}`]);
  document
    .getElementById("health")
    .replaceChildren(
      ...lines.map(([kind, words]) => element("li", words, kind ? { class: kind } : {})),
    );
  const build = rows.find((row) => row.name === "wxlogind_build_info");
  document.getElementById("version").textContent = build ? build.labels.version : "";
}

/** The apps that the server has, for who looks for a user; the only one is filled in. */
function offerApps(rows) {
  const apps = named(rows, TOKEN_END, "appid");
  const field = document.getElementById("appid");
  document
    .getElementById("appids")
    .replaceChildren(...apps.map((appid) => element("option", "", { value: appid })));
  if (apps.length === 1 && !field.value) {
    field.value = apps[0];
    if (document.activeElement === field) {
      field.select();
    }
  }
}

/** The words anew, after the language was switched. */
export function redraw() {
  PLOTS.forEach(draw);
  if (last) {
    health(last.rows);
  }
}

function take(rows) {
  const now = performance.now();
  if (!last) {
    offerApps(rows);
  }
  if (last) {
    for (const plot of PLOTS) {
      const { points } = figures.get(plot.id);
      points.push(plot.of(last.rows, rows, (now - last.at) / 1000));
      points.splice(0, points.length - POINTS);
    }
  }
  last = { rows, at: now };
  recent.push(rows);
  recent.splice(0, recent.length - POINTS);
  redraw();
}

async function look(mine) {
  let trouble = "";
  try {
    ready = await call("GET", "/readyz").catch((e) => e);
    const rows = parse(await call("GET", "/metrics"));
    if (mine === run) {
      take(rows);
    }
  } catch (e) {
    trouble = e.message;
  }
  if (mine === run) {
    document.getElementById("live-trouble").textContent = trouble;
    timer = setTimeout(look, EVERY_MS, mine);
  }
}

export function start() {
  look(++run);
}

export function stop() {
  run++;
  clearTimeout(timer);
  last = null;
  recent = [];
  figures.forEach((figure) => (figure.points.length = 0));
}
