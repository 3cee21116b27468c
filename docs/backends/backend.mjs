// A backend that asks wxlogind itself who is calling. Node 18 or newer, nothing else.
import { createServer } from "node:http";

async function openid(request) {
  const token = (request.headers.authorization ?? "").replace(/^Bearer +/i, "");
  const answer = await fetch(`${process.env.WXLOGIND}/internal/introspect`, {
    method: "POST",
    headers: { "X-Internal-Token": process.env.WX_INTERNAL_TOKEN },
    body: new URLSearchParams({ token }),
    signal: AbortSignal.timeout(2000),
  });
  if (!answer.ok) throw new Error(`wxlogind: ${answer.status}`);
  const session = await answer.json();
  return session.active ? session.sub : null;
}

createServer(async (request, response) => {
  const who = await openid(request).catch(() => undefined);
  response.statusCode = who ? 200 : who === null ? 401 : 503;
  response.end(who || "");
}).listen(process.env.PORT ?? 3000, "127.0.0.1");
