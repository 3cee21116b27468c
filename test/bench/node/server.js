// A login and a check as one writes them for Node: fastify, undici's pool towards WeChat, ioredis
// with pipelining. Like the nginx peer it does less than wxlogind: no claim on the code, no index
// of a user's sessions, session_key as it came.
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import fastify from "fastify";
import Redis from "ioredis";
import { Pool } from "undici";

const { PORT, WECHAT, CA, REDIS, APPID, SECRET } = process.env;
const TTL = 604800;
const redis = new Redis(REDIS, { enableAutoPipelining: true });
const wechat = new Pool(WECHAT, {
  connections: 64,
  pipelining: 1,
  connect: CA ? { ca: readFileSync(CA) } : undefined,
});
const app = fastify({ logger: false, keepAliveTimeout: 60000 });

const loginSchema = {
  body: { type: "object", required: ["code"], properties: { code: { type: "string" } } },
  response: {
    200: {
      type: "object",
      properties: { third_session: { type: "string" }, expires_in: { type: "integer" } },
    },
  },
};

app.post("/v1/login", { schema: loginSchema }, async (request, reply) => {
  const query = new URLSearchParams({
    appid: APPID,
    secret: SECRET,
    js_code: request.body.code,
    grant_type: "authorization_code",
  });
  const { body } = await wechat.request({ method: "GET", path: `/sns/jscode2session?${query}` });
  const user = await body.json();
  if (!user.openid) return reply.code(401).send({ error: "invalid_code", errcode: user.errcode });
  const token = randomBytes(32).toString("base64url");
  const session = {
    appid: APPID,
    openid: user.openid,
    unionid: user.unionid ?? "",
    session_key: user.session_key,
  };
  await redis.set(`s:${token}`, JSON.stringify(session), "EX", TTL);
  return { third_session: token, expires_in: TTL };
});

app.get("/internal/auth", async (request, reply) => {
  const token = /^Bearer ([\w-]+)$/.exec(request.headers.authorization)?.[1];
  const value = token && (await redis.get(`s:${token}`));
  if (!value) return reply.code(401).send();
  const session = JSON.parse(value);
  reply
    .header("x-wx-appid", session.appid)
    .header("x-wx-openid", session.openid)
    .header("x-wx-unionid", session.unionid)
    .send();
});

await app.listen({ host: "127.0.0.1", port: Number(PORT) });
