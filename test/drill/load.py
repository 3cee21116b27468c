"""A standing load over keep-alive connections, and the ledger of what was answered.

Kinds of request: verify (of a session that lives, or of one that was ended), login, logout. The
ledger knows what each answer obliges the server to: a login answered 200 must verify 200 as its
own user until its logout was sent; a logout answered 204 must verify 401 from then on. What was
not answered, or with a 503, obliges to nothing: its session is dropped from the ledger."""
import asyncio
import collections
import contextlib
import http.client
import json
import random
import threading
import time

Answer = collections.namedtuple("Answer", "sent took kind status error good")
CLIENT_TIMEOUT = 6.0
now = time.monotonic


class Ledger:
    def __init__(self):
        self.live, self.place = [], {}         # tokens, and where in the list each is
        self.openid = {}                       # of each that lives
        self.ended = collections.OrderedDict()  # token: when that was acknowledged
        self.lost, self.wrong, self.stale = [], [], []
        # how late a 200 for an ended session may be asked for
        self.stale_s = 0.0
        self.logins = self.logouts = 0
        self.sure_from = 0.0                   # a login that was sent before promises nothing

    def born(self, token, openid, sent):
        if sent < self.sure_from:
            return
        self.place[token] = len(self.live)
        self.live.append(token)
        self.openid[token] = openid
        self.logins += 1

    def drop(self, token):
        """From here on it may or may not live."""
        at = self.place.pop(token, None)
        if at is None:
            return
        last = self.live.pop()
        if last != token:
            self.live[at] = last
            self.place[last] = at

    def end(self, token, when):
        self.ended[token] = when
        self.logouts += 1

    def flush(self, empty_the_store):
        """Whatever lives when the store is emptied ends; what is under way meanwhile promises
        nothing. The moment it was over."""
        tokens, self.sure_from = list(self.live), float("inf")
        for token in tokens:
            self.drop(token)
        empty_the_store()
        self.sure_from = now()
        self.ended.update((token, self.sure_from) for token in tokens)
        return self.sure_from

    def check(self, token, ended_at, sent, status, openid):
        """Judges a verify; ended_at is what the ledger said when it was sent."""
        if status == 200 and openid != self.openid.get(token):
            self.wrong.append(f"verified as {openid}, is {self.openid.get(token)}")
        if ended_at is None and status == 401 and token in self.place:
            self.lost.append(f"at {sent:.3f}: a session that was promised is not known")
        if ended_at is not None and status == 200:
            self.stale.append(sent - ended_at)
            return sent - ended_at <= self.stale_s
        if ended_at is None and status == 401:
            return token not in self.place  # it was being ended meanwhile
        return status == (200 if ended_at is None else 401)


class Wire:
    """One keep-alive connection, opened when it is needed."""

    def __init__(self, port):
        self.port, self.reader, self.writer = port, None, None

    def close(self):
        if self.writer:
            self.writer.close()
        self.reader = self.writer = None

    async def ask(self, head, body=b""):
        # closed while nobody was asking: no answer was owed
        if self.writer and self.reader.at_eof():
            self.close()
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writer.write(
            head + b"Content-Length: %d\r\n\r\n" % len(body) + body if body else head + b"\r\n"
        )
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin1").split("\r\n")
        fields = dict(
            line.lower().split(": ", 1)
            if not line.startswith("X-Wx-Openid")
            else ("openid", line[13:])
            for line in lines[1:]
            if line
        )
        text = await self.reader.readexactly(int(fields.get("content-length", 0)))
        if fields.get("connection") == "close":
            self.close()
        return int(lines[0][9:12]), fields, text


class Load:
    """verifies, logins, logouts: a second. servers share them: each request goes to any of them (a
    logout and the verify after it too)."""

    def __init__(
        self, servers, wxfake, verifies=250, logins=8, logouts=4, connections=24, codes=500
    ):
        self.servers, self.rates, self.connections = (
            servers,
            {"verify": verifies, "login": logins, "logout": logouts},
            connections,
        )
        self.ledger, self.answers, self.skipped = Ledger(), [], 0
        self.codes = collections.deque(self.fetch_codes(wxfake, codes))
        self.used_codes = [c for c, _ in self.codes]
        self.ending, self.thread = False, None

    @staticmethod
    def fetch_codes(wxfake, n):
        """Ahead, so that a WeChat that stands still later does not keep phones from having one."""
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", wxfake.port, timeout=10)
        ) as c:
            for _ in range(n):
                c.request("POST", "/fake/code", "{}")
                got = json.loads(c.getresponse().read())
                yield got["code"], got["openid"]

    # --- requests ---

    async def verify(self, wires):
        led, ended_at = self.ledger, None
        if led.ended and (random.random() < 0.1 or not led.live):
            token = (
                next(reversed(led.ended))
                if random.random() < 0.5
                else random.choice(list(led.ended)[-200:])
            )
            ended_at = led.ended[token]
        elif led.live:
            token = random.choice(led.live)
        else:
            return None
        sent = now()
        status, fields, _ = await wires[1].ask(
            b"GET /internal/auth HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
            + token.encode()
            + b"\r\n"
        )
        return status, "", led.check(token, ended_at, sent, status, fields.get("openid"))

    async def login(self, wires):
        if not self.codes:
            return None
        code, openid = self.codes.popleft()
        sent = now()
        status, _, text = await wires[0].ask(
            b"POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n",
            json.dumps({"code": code}).encode(),
        )
        got = json.loads(text)
        if status == 200:
            self.ledger.born(got["third_session"], openid, sent)
        return status, got.get("error", ""), status == 200

    async def logout(self, wires):
        if len(self.ledger.live) < 5:
            return None
        token = random.choice(self.ledger.live)
        self.ledger.drop(token)
        status, _, _ = await wires[0].ask(
            b"DELETE /v1/session HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
            + token.encode()
            + b"\r\n"
        )
        if status == 204:
            self.ledger.end(token, now())
        return status, "", status == 204

    async def one(self, kind, wires):
        sent = now()
        try:
            got = await asyncio.wait_for(getattr(self, kind)(wires), CLIENT_TIMEOUT)
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError) as e:
            for w in wires:
                w.close()
            got = 0, type(e).__name__, False
            if isinstance(e, ConnectionRefusedError):
                await asyncio.sleep(0.05)
        if got:
            self.answers.append(Answer(sent, now() - sent, kind, *got))

    # --- the loop ---

    async def worker(self, queue, i):
        wires = [[Wire(s.port), Wire(s.internal)] for s in self.servers]
        while (kind := await queue.get()) is not None:
            await self.one(kind, random.choice(wires))
        for pair in wires:
            for w in pair:
                w.close()

    async def run(self):
        queue = asyncio.Queue()
        workers = [asyncio.create_task(self.worker(queue, i)) for i in range(self.connections)]
        due = {kind: now() for kind in self.rates}
        while not self.ending:
            for kind, rate in self.rates.items():
                while rate and due[kind] <= now():
                    due[kind] += 1 / rate
                    if queue.qsize() < self.connections:
                        queue.put_nowait(kind)
                    else:
                        # a standing load does not pile up behind a server that stands still
                        self.skipped += 1
            await asyncio.sleep(0.004)
        for _ in workers:
            queue.put_nowait(None)
        await asyncio.wait_for(asyncio.gather(*workers), 30)

    def start(self):
        self.thread = threading.Thread(target=lambda: asyncio.run(self.run()), daemon=True)
        self.thread.start()
        return self

    def stop(self):
        self.ending = True
        self.thread.join(60)
        assert not self.thread.is_alive(), "the load did not end"

    # --- what it saw ---

    def between(self, begin, end=float("inf"), kind=None):
        return [a for a in list(self.answers) if begin <= a.sent < end and kind in (None, a.kind)]

    def good(self, begin, end=float("inf"), kind=None):
        """The share of good answers, of those asked for in that time."""
        some = self.between(begin, end, kind)
        return sum(a.good for a in some) / len(some) if some else 0.0

    def percentile(self, p, begin, end=float("inf"), kind=None):
        """In milliseconds."""
        took = sorted(a.took for a in self.between(begin, end, kind))
        return took[min(len(took) - 1, int(len(took) * p))] * 1000 if took else 0.0

    def bad(self, begin, end=float("inf")):
        """What was not good, counted."""
        return dict(
            collections.Counter(
                f"{a.kind} {a.status} {a.error}".strip()
                for a in self.between(begin, end)
                if not a.good
            )
        )

    def settle(self):
        """Afterwards, one by one: everything promised is there, everything ended is gone."""
        led = self.ledger
        ended = list(led.ended.items())
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", self.servers[0].internal, timeout=10)
        ) as c:
            for token, ended_at in [(t, None) for t in list(led.live)] + ended:
                c.request(
                    "GET", "/internal/auth?renew=0", headers={"Authorization": f"Bearer {token}"}
                )
                r = c.getresponse()
                r.read()
                sent = now()
                if not led.check(
                    token, ended_at, sent, r.status, r.headers.get("X-Wx-Openid")
                ) and r.status not in (200, 401):
                    led.lost.append(
                        f"afterwards {'an ended' if ended_at else 'a living'} session answers "
                        f"{r.status}"
                    )
        return len(led.live), len(ended)
