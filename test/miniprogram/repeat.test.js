/** request() and login: servers that are busy, networks that are gone, and what is asked again. */
"use strict";
const assert = require("node:assert/strict");
const { after, before, test } = require("node:test");
const { OLD, inTurn, ok, phones } = require("./meets.js");
const { Stack, poll } = require("./stack.js");

let stack;
before(async () => {
  stack = await Stack.start({ session: { max_per_user: 1 } });
});
after(() => stack.stop());

const { newPhone, phoneThatMeets } = phones(() => stack);

test("Redis away: 503, repeats as the server asks, and the session is kept", async () => {
  const phone = newPhone();
  const { third_session: session } = await phone.common.userLogin();
  stack.redis.kill("SIGSTOP");
  try {
    await assert.rejects(
      phone.common.request({ url: "/v1/session" }),
      (e) => e.code === "store_unavailable" && e.statusCode === 503,
    );
  } finally {
    stack.redis.kill("SIGCONT");
  }
  assert.equal(phone.session, session);
  assert.deepEqual(
    phone.waits.map((ms) => ms >= 1000 && ms <= 1500),
    [true, true],
  );
  await poll(async () => (await fetch(`${stack.internal}/readyz`)).ok, "Redis is back");
  assert.equal((await phone.common.request({ url: "/v1/session" })).statusCode, 200);
  assert.equal(phone.calls.login, 1);
});

const busy = (after, statusCode = 503) => ({
  statusCode,
  header: after === undefined ? {} : { "retry-after": after },
  data: { error: "overloaded" },
});

test("429 is repeated like 503, also for a login; a POST is not repeated", async () => {
  const phone = phoneThatMeets(inTurn(busy("7", 429), ok("fine")));
  assert.equal((await phone.common.request({ url: "/x" })).data, "fine");
  assert.ok(phone.waits[0] >= 7000 && phone.waits[0] <= 10500, String(phone.waits[0]));

  const login = newPhone();
  let refused = 0;
  login.transport = (options, send) => (refused++ ? send(options) : busy("2", 429));
  await login.common.userLogin();
  assert.equal(login.calls.login, 1, "the same code");
  assert.ok(login.waits[0] >= 2000);

  const long = phoneThatMeets(() => busy("60", 429));
  await assert.rejects(long.common.request({ url: "/x" }), {
    statusCode: 429,
    retryAfterMs: 60000,
  });
  const post = phoneThatMeets(() => busy("1", 429));
  await assert.rejects(post.common.request({ url: "/x", method: "POST" }), { statusCode: 429 });
  assert.deepEqual([...long.waits, ...post.waits], []);
});

for (const statusCode of [502, 504])
  test(`a gateway's ${statusCode} to a login: repeated with the same code and nonce`, async () => {
    const phone = newPhone();
    let lost;
    phone.transport = async (options, send) => {
      const res = await send(options);
      if (lost) {
        return res;
      }
      lost = res.data.third_session;
      return {
        statusCode,
        header: { "content-type": "text/html" },
        data: "<html>Bad Gateway</html>",
      };
    };
    assert.equal(
      (await phone.common.userLogin()).third_session,
      lost,
      "the session that the first answer held",
    );
    assert.equal(phone.calls.login, 1);
    assert.deepEqual(phone.logins[0].data, phone.logins[1].data);
  });

test("a login is not repeated when the server's configuration is wrong", async () => {
  const phone = newPhone();
  phone.transport = () => ({ statusCode: 502, header: {}, data: { error: "wechat_config" } });
  await assert.rejects(phone.common.userLogin(), { code: "wechat_config" });
  assert.equal(phone.logins.length, 1);
});

test("only GET, HEAD, PUT and DELETE are repeated after 503 or a network fault", async () => {
  for (const [method, times] of [
    ["GET", 3],
    ["HEAD", 3],
    ["PUT", 3],
    ["DELETE", 3],
    ["POST", 1],
    ["OPTIONS", 1],
  ]) {
    const phone = phoneThatMeets(() => busy());
    await assert.rejects(phone.common.request({ url: "/x", method }), { code: "overloaded" });
    assert.equal(phone.requests.length, times, method);
    phone.requests.length = 0;
    phone.transport = () => {
      throw new Error("reset");
    };
    await assert.rejects(phone.common.request({ url: "/x", method }), { code: "network" });
    assert.equal(phone.requests.length, times, method);
    assert.equal(phone.session, OLD);
  }
});

test("the caller sees only the repeat; 500, 502 and 504 are not repeated", async () => {
  const phone = phoneThatMeets(inTurn(busy(), ok("fine")));
  assert.equal((await phone.common.request({ url: "/x" })).data, "fine");
  for (const statusCode of [500, 502, 504]) {
    const other = phoneThatMeets(() => ({
      statusCode,
      header: { "x-request-id": "abc" },
      data: { error: "odd", detail: 7 },
    }));
    await assert.rejects(other.common.request({ url: "/x" }), {
      code: "odd",
      statusCode,
      requestId: "abc",
      data: { error: "odd", detail: 7 },
    });
    assert.equal(other.requests.length, 1);
  }
});

test("Retry-After: seconds or a date, never early; a long wait goes to the caller", async () => {
  const seconds = phoneThatMeets(inTurn(busy("3"), ok()));
  await seconds.common.request({ url: "/x" });
  assert.ok(seconds.waits[0] >= 3000 && seconds.waits[0] <= 4500);

  const date = phoneThatMeets(inTurn(busy(new Date(Date.now() + 5000).toUTCString()), ok()));
  await date.common.request({ url: "/x" });
  assert.ok(date.waits[0] >= 3000 && date.waits[0] <= 7500, String(date.waits[0]));

  const nonsense = phoneThatMeets(inTurn(busy("soon"), ok()));
  await nonsense.common.request({ url: "/x" });
  assert.ok(nonsense.waits[0] >= 500 && nonsense.waits[0] <= 750);

  const long = phoneThatMeets(() => busy("3600"));
  await assert.rejects(long.common.request({ url: "/x" }), {
    statusCode: 503,
    retryAfterMs: 3600000,
  });
  assert.deepEqual(long.waits, []);
});

test("retries: 0 repeats nothing", async () => {
  const phone = phoneThatMeets(() => busy("1"), { retries: 0 });
  await assert.rejects(phone.common.request({ url: "/x" }), { statusCode: 503 });
  assert.equal(phone.requests.length, 1);
});
