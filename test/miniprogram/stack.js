/**
 * A Redis, a wxfake and a wxlogind for one test file, on ports and in a directory of their own.
 * Ready means: it answers.
 */
"use strict";
const { spawn } = require("node:child_process");
const { once } = require("node:events");
const fs = require("node:fs");
const http = require("node:http");
const net = require("node:net");
const os = require("node:os");
const path = require("node:path");

const ROOT = path.resolve(__dirname, "../..");
const BUILD = path.join(ROOT, process.env.WXLOGIND_BUILD || "build");
const APPID = "wxfa4efa4efa4efa4e";
const SECRET = "fa4efa4efa4efa4efa4efa4efa4efa4e";

async function poll(check, what, limit = 20000) {
  const end = Date.now() + limit;
  for (;;) {
    const value = await check();
    if (value) {
      return value;
    }
    if (Date.now() > end) {
      throw new Error(`${what} did not come true`);
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

async function freePort() {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/**
 * Whether `url` answers 200. A connection of its own: none is left behind to a process that is
 * about to end.
 */
function answers(url) {
  return new Promise((resolve) => {
    http
      .get(url, { agent: false }, (res) => {
        res.resume();
        resolve(res.statusCode === 200);
      })
      .on("error", () => resolve(false));
  });
}

class Stack {
  /**
   * Between finding a free port and listening on it somebody else may take it: then again, with
   * others.
   * @param {object} settings sections of wxlogind's configuration: { session: { max_per_user: 1 } }
   */
  static async start(settings = {}) {
    for (let tries = 1; ; tries++) {
      const stack = new this();
      try {
        await stack.startAll(settings);
        return stack;
      } catch (e) {
        await stack.stop();
        if (tries === 3) {
          throw e;
        }
      }
    }
  }

  constructor() {
    this.dir = fs.mkdtempSync(path.join(os.tmpdir(), "wxlogind-mp-"));
    this.children = [];
    this.killAll = () => this.children.forEach((child) => child.kill("SIGKILL"));
    process.once("exit", this.killAll); // also where a test crashes, or is told to end
    process.once("SIGTERM", () => process.exit(1));
  }

  /** Sets `redisUrl`, and `watch`, what wxfake is told of it. */
  async startRedis() {
    const socket = path.join(this.dir, "redis.sock");
    const args = ["--port", "0", "--unixsocket", socket, "--dir", this.dir, "--save", ""];
    this.redis = this.spawn("redis", "redis-server", args);
    // wxfake watches it from its first command on
    await poll(() => fs.existsSync(socket), "redis listens");
    this.redisUrl = `unix://${socket}`;
    this.watch = ["--watch-redis", this.redisUrl];
  }

  async startAll(settings) {
    const [fake, port, internal] = [await freePort(), await freePort(), await freePort()];
    this.fake = `http://127.0.0.1:${fake}`;
    this.url = `http://127.0.0.1:${port}`;
    this.internal = `http://127.0.0.1:${internal}`;
    await this.startRedis();
    await this.startFake();

    const sections = {
      server: {
        listen: `127.0.0.1:${port}`,
        internal_listen: `127.0.0.1:${internal}`,
        cors_origins: this.fake,
      },
      redis: { url: this.redisUrl },
      wechat: { base_url: this.fake, fallback_urls: "" },
      users: { url: `sqlite://${path.join(this.dir, "users.db")}` },
      [`app ${APPID}`]: { secret: SECRET },
    };
    for (const [name, keys] of Object.entries(settings)) {
      sections[name] = { ...sections[name], ...keys };
    }
    const lines = Object.entries(sections).map(([name, keys]) =>
      [`[${name}]`, ...Object.entries(keys).map(([key, value]) => `${key} = ${value}`)].join("\n"),
    );
    const file = path.join(this.dir, "wxlogind.ini");
    fs.writeFileSync(file, lines.join("\n") + "\n");
    await this.startReady("wxlogind", ["-c", file], `${this.internal}/readyz`);
  }

  startFake(...more) {
    const watch = [...this.watch, "--wxlogind", this.url, "--internal", this.internal];
    return this.startReady(
      "wxfake",
      ["--listen", this.fake.slice("http://".length), ...watch, ...more],
      `${this.fake}/fake/stats`,
    );
  }

  spawn(name, program, args, more = {}) {
    const log = fs.openSync(path.join(this.dir, `${name}.log`), "a");
    const env = Object.fromEntries(
      Object.entries(process.env).filter(([key]) => !key.startsWith("WXLOGIND_")),
    );
    const options = { stdio: ["ignore", log, log], env: { ...env, ...more } };
    const child = spawn(program, args, options);
    fs.closeSync(log);
    child.ended = new Promise((resolve) => child.once("exit", resolve).once("error", resolve));
    this.children.push(child);
    return child;
  }

  async startReady(name, args, ready) {
    const child = this.spawn(name, path.join(BUILD, name), args);
    let ended = false;
    child.ended.then(() => (ended = true));
    await poll(async () => ended || (await answers(ready)), `${name} answers`);
    if (ended) {
      throw new Error(`${name} does not start:\n${this.log(name)}`);
    }
    this[name] = child;
  }

  log(name) {
    return fs.readFileSync(path.join(this.dir, `${name}.log`), "utf8");
  }

  async askFake(method, url, body) {
    const res = await fetch(this.fake + url, { method, body: body && JSON.stringify(body) });
    const text = await res.text();
    return text ? JSON.parse(text) : null;
  }

  fault(fault) {
    return this.askFake("POST", "/fake/fault", { api: "jscode2session", ...fault });
  }

  /** How many logins WeChat saw. */
  async exchanges() {
    return (await this.askFake("GET", "/fake/stats")).calls.jscode2session;
  }

  async stop() {
    for (const child of this.children.reverse()) {
      child.kill("SIGCONT");
      child.kill("SIGTERM");
      await child.ended;
    }
    process.removeListener("exit", this.killAll);
    fs.rmSync(this.dir, { recursive: true, force: true });
  }
}

/**
 * A backend of the team's own. `answer(req)` gives { status, headers, body }; `seen` are the
 * requests that came.
 */
async function startBackend(answer) {
  const seen = [];
  const server = http.createServer(async (req, res) => {
    const bytes = Buffer.concat(await req.toArray());
    const got = {
      method: req.method,
      url: req.url,
      headers: req.headers,
      bytes,
      body: bytes.toString(),
    };
    seen.push(got);
    const { status = 200, headers = {}, body: out = "" } = await answer(got);
    res
      .writeHead(status, headers)
      .end(typeof out === "string" || Buffer.isBuffer(out) ? out : JSON.stringify(out));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    seen,
    stop() {
      server.close();
      server.closeAllConnections();
    },
  };
}

module.exports = { APPID, Stack, freePort, poll, startBackend };
