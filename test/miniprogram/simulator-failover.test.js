/**
 * wxfake's page with the Redis of the local stack's profile "sentinel" behind it: the master dies.
 */
"use strict";
const assert = require("node:assert/strict");
const { execFile } = require("node:child_process");
const path = require("node:path");
const { test } = require("node:test");
const { acts, open, phone, picture, press, settled, sim, useSimulator } = require("./simulator.js");
const { Stack, poll } = require("./stack.js");

const COMPOSE = path.resolve(__dirname, "../compose");
const PASSWORD = path.join(COMPOSE, "redis_password");
const SCRIPT = path.join(COMPOSE, "redis-group.sh");

class GroupStack extends Stack {
  /** Its ports are fixed, so it has an address of its own. */
  async startRedis() {
    const { pid } = process;
    const address = `127.${210 + ((pid >> 16) & 31)}.${(pid >> 8) & 255}.${(pid & 255) || 1}`;
    const env = {
      REDIS_GROUP_ADDRESS: address,
      REDIS_GROUP_DOWN_MS: "1000",
      TMPDIR: this.dir,
    };
    const group = this.spawn("redis", "sh", [SCRIPT, "sentinel", PASSWORD], env);
    // it must have the time to end its servers
    group.kill = () => Object.getPrototypeOf(group).kill.call(group, "SIGTERM");
    const healthy = () =>
      new Promise((resolve) =>
        execFile(
          "sh",
          [SCRIPT, "healthy", "sentinel", PASSWORD],
          { env: { ...process.env, ...env } },
          (error) => resolve(!error),
        ),
      );
    await poll(healthy, "the group is healthy", 60000);
    const sentinels = [26379, 26380, 26381].map((port) => `${address}:${port}`).join(",");
    this.redisUrl = `sentinel://${sentinels}/mymaster`;
    const watched = `redis://:local-stack-only@${address}:6379-6381`;
    this.watch = ["--watch-redis", watched, "--kill-redis"];
  }
}

useSimulator(() =>
  GroupStack.start({ session: { max_per_user: 1 }, redis: { password: "local-stack-only" } }),
);

test("with the servers shown nothing sticks out, and the page does not scroll", async () => {
  const beyond = () =>
    sim.page.evaluate(() => ({
      across: document.documentElement.scrollWidth - document.documentElement.clientWidth,
      down: document.documentElement.scrollHeight - innerHeight,
    }));
  await open({ width: 1280, height: 800 });
  assert.deepEqual(await beyond(), { across: 0, down: 0 });
  await sim.context.close();
  await open({ width: 360, height: 740, hasTouch: true });
  assert.equal((await beyond()).across, 0);
  assert.ok(await sim.page.locator("#kill").isVisible());
});

const servers = () => sim.page.locator("#servers li").allInnerTexts();

test("the master dies: 503 until another is elected, and nobody logs in anew", async () => {
  await open();
  await phone("Logged in").waitFor();
  assert.deepEqual(await servers(), ["6379 master", "6380 replica", "6381 replica"]);
  const before = await sim.stack.exchanges();
  const limit = { timeout: 60000 };
  const shown = (words) => sim.page.getByText(words).waitFor(limit);
  try {
    await Promise.all([
      shown("6379 down"),
      shown("was master, and calls succeeded again"),
      press("kill"),
    ]);
  } catch (e) {
    e.message += `\n${await sim.page.locator("#hint").innerText()} ${await servers()}`;
    e.message += `\n${sim.stack.log("redis").slice(-6000)}`;
    throw e;
  }
  await settled();
  const hint = await sim.page.locator("#hint").innerText();
  assert.match(hint, /^6379 died\. [\d.]+ s later 638[01] was master/);
  assert.match(hint, /503 answers: [1-9]/);
  assert.equal((await servers()).filter((words) => words.endsWith(" master")).length, 1);
  const happened = await acts();
  assert.ok(happened.indexOf("kill") < happened.indexOf("elected"), happened.join());
  const all = await sim.page.locator("#rows .label").allInnerTexts();
  assert.ok(all.some((label) => label === "503 store_unavailable"), all.join("\n"));
  assert.ok((await picture()).includes("wxlogind>phone 200"));
  assert.equal(await sim.stack.exchanges(), before, "the session was not lost");
  assert.match(await sim.page.locator("#login").getAttribute("class"), /next/);
  await press("login");
  await settled();
  await phone("Logged in").waitFor();
  const told = await sim.page.locator('#rows [data-to="redis"] .detail').last().textContent();
  assert.match(told, /^638[01]\b/, "the row of Redis says which server");
});
