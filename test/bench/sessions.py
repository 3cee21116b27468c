"""How soon an ended session is ended everywhere, and what sessions cost in memory."""
import contextlib
import http.client
import json
import os
import statistics
import time

from stack import Stack, call, metric, redis_cli, rss_mb, say, tokens, wrk


def revoke(report):
    """Login, check on B until it answers from memory, DELETE on A; then how long B still says
    200."""
    rounds = int(os.environ.get("BENCH_REVOCATIONS", "10000"))
    with Stack() as s:
        redis, fake = s.redis(), s.wxfake()
        a, b = s.server(redis, fake), s.server(redis, fake)
        stale_ms, first_ms = [], []
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", a.port)) as to_a, \
                contextlib.closing(http.client.HTTPConnection("127.0.0.1", b.internal)) as to_b:

            def ask(conn, method, path, body=None, token=None):
                conn.request(
                    method, path, body,
                    {"Authorization": f"Bearer {token}"}
                    if token
                    else {"Content-Type": "application/json"},
                )
                r = conn.getresponse()
                return r.status, r.read()
            for i in range(rounds):
                token = json.loads(
                    ask(to_a, "POST", "/v1/login", json.dumps({"code": f"revoke-{i}"}))[1]
                )["third_session"]
                for _ in range(2):
                    assert ask(to_b, "GET", "/internal/auth", token=token)[0] == 200
                assert ask(to_a, "DELETE", "/v1/session", token=token)[0] == 204
                ended = asked = time.monotonic()
                last = None
                while ask(to_b, "GET", "/internal/auth", token=token)[0] == 200:
                    last, asked = asked, time.monotonic()
                stale_ms.append(0 if last is None else (last - ended) * 1000)
                first_ms.append((time.monotonic() - ended) * 1000)
                if i % (rounds // 10 or 1) == 0:
                    say(f"==> revoke: round {i} of {rounds}")
        hits = metric(b, 'wxlogind_session_cache_total{result="hit"}')
        report.section("revoke: login, check twice on process B, DELETE on process A, check on B")
        report.table(
            ("", "median ms", "p99 ms", "longest ms"),
            [
                (
                    what,
                    *(
                        f"{x:.3f}"
                        for x in (statistics.median(ms), sorted(ms)[int(len(ms) * 0.99)], max(ms))
                    ),
                )
                for what, ms in (
                    ("asked after the DELETE was answered, and still got 200", stale_ms),
                    ("first 401, after the DELETE was answered", first_ms),
                )
            ],
        )
        report.note(
            f"{rounds} rounds; B answered {hits:.0f} checks from memory; a 200 that was asked for "
            "after the DELETE's answer: in "
            f"{sum(x > 0 for x in stale_ms)} rounds."
        )


def forget_codes(redis):
    """Takes the codes' claims out, which end by themselves after some minutes."""
    script = (
        "local c, n = ARGV[1], 0 repeat local r = redis.call('SCAN', c, 'MATCH', 'wxlogin:c:*', "
        "'COUNT', 1000) c = r[1] "
        "for _, k in ipairs(r[2]) do redis.call('DEL', k) end n = n + 1 until c == '0' or n == 200 "
        "return c"
    )
    cursor = "0"
    while (cursor := redis_cli(redis, "EVAL", script, 0, cursor).strip()) != "0":
        pass


WECHAT_AGENT = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like "
    "Gecko) Mobile/15E148 "
    "MicroMessenger/8.0.49(0x18003137) NetType/WIFI Language/zh_CN"
)


def used_memory(redis):
    return int(
        next(
            line.split(":")[1]
            for line in redis_cli(redis, "INFO", "memory").splitlines()
            if line.startswith("used_memory:")
        )
    )


def memory(report):
    """What Redis needs for a session, of a million: one for each user, with session_key as it came
    and sealed, of users with two and five, and with the User-Agent that a phone sends. And what
    a process needs to remember one."""
    n, rows = int(os.environ.get("BENCH_SESSIONS", "1000000")), []
    for per_user, key, agent in (
        (1, "", ""),
        (1, "00112233445566778899aabbccddeeff" * 2, ""),
        (2, "", ""),
        (5, "", ""),
        (1, "", WECHAT_AGENT),
    ):
        with Stack() as s:
            redis, fake = s.redis(), s.wxfake()
            server = s.server(redis, fake, session__encryption_key=key, session__replay_window="0")
            empty = used_memory(redis)
            while (made := metric(server, 'wxlogind_logins_total{outcome="ok"}')) < n:
                say(
                    f"==> memory: {made:.0f} of {n} sessions, {per_user} for each "
                    f"user{', encrypted' if key else ''}{', with User-Agent' if agent else ''}"
                )
                wrk(
                    "login.lua", f"http://127.0.0.1:{server.port}", 10 if n - made > 200000 else 1,
                    64,
                    {"LOGINS_PER_USER": str(per_user), "USER_AGENT": agent},
                )
            forget_codes(redis)
            now = used_memory(redis) - empty
            rows.append(
                (
                    per_user, "yes" if key else "no", len(agent), f"{made:.0f}", now,
                    f"{now / made:.0f}",
                )
            )
    report.section("memory in Redis: used_memory for each session")
    report.table(
        (
            "sessions of a user", "session_key encrypted", "User-Agent B", "sessions",
            "used_memory B", "B per session",
        ),
        rows, text=0,
    )
    remembered(report)


def remembered(report):
    """RSS of a process that answers for so many sessions."""
    n = int(os.environ.get("BENCH_REMEMBERED", "20000"))
    with Stack() as s:
        redis, fake = s.redis(), s.wxfake()
        maker, server = s.server(redis, fake), s.server(redis, fake)
        say(f"==> memory: {n} sessions remembered")
        file = tokens(s, maker, n)
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.internal)) as c:
            before = None
            for i, token in enumerate(file.read_text().split()):
                c.request("GET", "/internal/auth", headers={"Authorization": f"Bearer {token}"})
                assert c.getresponse().read() == b""
                if i == 100:  # its buffers have grown
                    before = rss_mb(server.pid)
        grown = (rss_mb(server.pid) - before) * 2**20
    report.section("memory of a process: RSS for each session it answers for")
    report.note(f"{n - 101} more sessions remembered: {grown / (n - 101):.0f} B each.")
