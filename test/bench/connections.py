"""Many connections, more work than there is room for, slow clients, and very many addresses."""
import json
import os
import resource
import subprocess
import threading
import time

import peers
import race
from crowd import Crowd
from stack import CORES, OTHER_CORES, Stack, metric, percentile, rss_mb, say, tokens, wrk

# wxlogind keeps half of its descriptors for its other side
BEARABLE = (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 500) // 2
IDLE = min(int(os.environ.get("BENCH_IDLE", "10000")), BEARABLE)
ACTIVE = int(os.environ.get("BENCH_ACTIVE", "5000"))
KEEPALIVE = (peers.MEMORY, peers.CEILING, peers.NGINX, peers.NODE)


def get(path, token):
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


def post_login(code, more=""):
    body = json.dumps({"code": code})
    return (
        f"POST /v1/login HTTP/1.1\r\nHost: bench\r\n{more}Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def ms(seconds, p):
    return f"{percentile(seconds, p) * 1000:.1f}" if seconds else "-"


def connections(report):
    idle_and_burst(report)
    with Stack() as s:
        redis, fake = s.redis(), s.wxfake()
        runners = [race.auth_runner(s, n, peers.AUTH[n](s, redis, fake), redis) for n in KEEPALIVE]
        race.race(
            report, "auth-active", "auth", runners, seconds=max(5, race.SECONDS), connections=ACTIVE
        )
    workers(report)


def idle_and_burst(report):
    rows, bursts = [], []
    for name in KEEPALIVE:
        with Stack() as s:
            p = peers.AUTH[name](s, s.redis(), s.wxfake())
            request = get(p.auth_path, tokens(s, p, 1).read_text().split()[0])
            say(f"==> connections: {IDLE} idle: {name}")
            before = rss_mb(p.pid)
            with Crowd(p.internal, IDLE) as crowd:
                fresh = rss_mb(p.pid)
                crowd.ask_in_turn(request, 60)
                served, after = len(crowd.said(200)), rss_mb(p.pid)
            rows.append(
                (
                    name, f"{IDLE}", served, f"{before:.0f}",
                    f"{(fresh - before) * 1024 / IDLE:.1f}",
                    f"{(after - before) * 1024 / IDLE:.1f}",
                )
            )
            say(f"==> connections: a burst of {ACTIVE}: {name}")
            begun = time.monotonic()
            with Crowd(p.internal, ACTIVE) as crowd:
                crowd.ask(request)
                crowd.read(60)
                took, seconds = time.monotonic() - begun, crowd.said(200)
            bursts.append(
                (
                    name, ACTIVE, len(seconds), f"{took * 1000:.0f}", ms(seconds, 50),
                    ms(seconds, 99), f"{rss_mb(p.pid):.0f}",
                )
            )
    report.section("idle keep-alive connections")
    report.table(
        (
            "what", "connections", "answered 200", "RSS MB before", "KiB each, fresh",
            "KiB each, after a request",
        ),
        rows,
    )
    report.section("a burst of new connections, each with one request")
    report.table(
        ("what", "connections", "answered 200", "all done after ms", "p50 ms", "p99 ms", "RSS MB"),
        bursts,
    )


def workers(report):
    """The same cores for both, so that only the number of processes differs."""
    cores = set(CORES[:2])
    with Stack() as s:
        redis, fake = s.redis(), s.wxfake()
        runners = [
            race.auth_runner(
                s, f"wxlogind, workers = {n}",
                s.server(redis, fake, cores=cores, server__workers=n), redis,
            )
            for n in (1, 2)
        ]
        race.race(
            report, "workers", "auth, one and two workers on two cores", runners, connections=256
        )


class Meanwhile(threading.Thread):
    """wrk on the internal side while something else goes on."""

    def __init__(self, stack, server, seconds, connections=16):
        super().__init__()
        env = {"TOKENS": str(tokens(stack, server, 100))}
        self.run = lambda: setattr(
            self, "result",
            wrk("auth.lua", f"http://127.0.0.1:{server.internal}", seconds, connections, env),
        )


def overload(report):
    """WeChat takes 2 s, and thousands want to log in."""
    with Stack() as s:
        server = s.server(s.redis(), fake := s.wxfake())
        quiet = Meanwhile(s, server, 3)
        say("==> overload: auth alone")
        quiet.run()
        busy, waiting = Meanwhile(s, server, 5), Meanwhile(s, server, 2)
        subprocess.run(
            [
                "curl", "-s", "-o", "/dev/null", f"{fake.url}/fake/fault", "-d",
                '{"api":"jscode2session","mode":"slow","ms":2000,"count":1000000}',
            ],
            check=True,
        )
        before = peak = rss_mb(server.pid)

        def done():
            nonlocal peak
            peak = max(peak, rss_mb(server.pid))
            return all(c.status or c.closed for c in crowd.clients.values())
        with Crowd(server.port, ACTIVE) as crowd:
            say(f"==> overload: {ACTIVE} logins while WeChat takes 2 s")
            busy.start()
            crowd.ask(lambda i: post_login(f"overload-{i}"))
            crowd.read(0.5, done)
            waiting.start()  # all have come, none has gone
            crowd.read(20, done)
            waiting.join()
            busy.join()
            kinds = [
                (200, b""),
                (503, b'"overloaded"'),
                (503, b'"wechat_unavailable"'),
                (503, b'"store_unavailable"'),
            ]
            said = [
                (f"{status} {text.decode().strip(chr(34))}".strip(), crowd.said(status, text))
                for status, text in kinds
            ]
            other = ACTIVE - sum(len(seconds) for _, seconds in said)
    report.section(f"overload: {ACTIVE} logins at once while WeChat takes 2 s")
    report.table(
        ("answer", "logins", "p50 ms", "p99 ms", "slowest ms"),
        [
            *((what, len(x), ms(x, 50), ms(x, 99), ms(x, 100)) for what, x in said),
            ("anything else, or none", other, "-", "-", "-"),
        ],
    )
    report.table(
        ("auth meanwhile, 16 connections", "requests/s", "p50 ms", "p99 ms", "errors"),
        [
            (
                what, f"{r['requests'] / r['seconds']:.0f}", f"{r['p50_us'] / 1000:.2f}",
                f"{r['p99_us'] / 1000:.2f}", r["errors"],
            )
            for what, r in (
                ("before", quiet.result),
                ("while they wait", waiting.result),
                ("all the time: their coming and going, too", busy.result),
            )
        ],
    )
    report.note(
        f"RSS: {before:.1f} MB before, {peak:.1f} MB at most: "
        f"{(peak - before) * 1024 / ACTIVE:.1f} KiB for each waiting login, its connection "
        "included."
    )


def slow(report):
    """Clients that send a byte a second, against client_timeout."""
    n, limit = int(os.environ.get("BENCH_SLOW", "1000")), 5
    with Stack() as s:
        server = s.server(s.redis(), s.wxfake(), server__client_timeout=f"{limit}s")
        quiet, busy = Meanwhile(s, server, 3), Meanwhile(s, server, limit)
        say("==> slow: auth alone")
        quiet.run()
        message = post_login("never")
        say(f"==> slow: {n} clients, a byte a second")
        with Crowd(server.internal, n) as crowd:
            busy.start()
            begun, cut_at = time.monotonic(), {}
            for i in range(3 * limit):
                for fd, c in crowd.clients.items():
                    if fd not in cut_at:
                        c.asked_at = c.asked_at or begun
                        try:
                            c.sock.send(message[i:i + 1])
                        except OSError:
                            cut_at[fd] = time.monotonic() - begun
                crowd.read(1, lambda: False)
                for fd, c in crowd.clients.items():
                    if (c.status or c.closed) and fd not in cut_at:
                        cut_at[fd] = c.seconds
                if len(cut_at) == n:
                    break
            told = len(crowd.said(408))
            busy.join()
    cut = sorted(cut_at.values())
    report.section(f"slow: {n} clients that send a byte a second, client_timeout = {limit}s")
    report.note(
        f"{len(cut)} of {n} were cut, {told} of them told 408; the first after {cut[0]:.2f} s, the "
        f"last after {cut[-1]:.2f} s."
    )
    report.table(
        ("auth meanwhile, 16 connections", "requests/s", "p50 ms", "p99 ms", "errors"),
        [
            (
                what, f"{r['requests'] / r['seconds']:.0f}", f"{r['p50_us'] / 1000:.2f}",
                f"{r['p99_us'] / 1000:.2f}", r["errors"],
            )
            for what, r in (("before", quiet.result), ("during", busy.result))
        ],
    )


def limit(report):
    """Thousands of addresses that ask too much, and some that do not."""
    addresses, honest, turns, seconds = 10000, 200, 3, 10
    with Stack() as s:
        server = s.server(
            s.redis(), s.wxfake(), server__trusted_proxies="127.0.0.0/8", limit__login_per_ip="1/1m"
        )
        before = rss_mb(server.pid)
        say(f"==> limit: {addresses} addresses for {seconds} s")
        load = threading.Thread(
            target=lambda: wrk(
                "limit.lua", f"http://127.0.0.1:{server.port}", seconds, 64,
                {"ADDRESSES": str(addresses)},
            )
        )
        with Crowd(server.port, honest) as crowd:
            load.start()
            answers = []
            for turn in range(turns):
                crowd.ask(
                    lambda i: post_login(
                        f"honest-{turn}-{i}", f"X-Forwarded-For: 198.51.{turn}.{i}\r\n"
                    )
                )
                crowd.read(20)
                answers += [c.status for c in crowd.clients.values()]
                time.sleep(seconds / turns)
            load.join()
        let_in, refused = (
            metric(server, f'wxlogind_logins_total{{outcome="{o}"}}')
            for o in ("ok", "rate_limited")
        )
        after = rss_mb(server.pid)
    report.section(
        f"limit: {addresses} addresses ask for {seconds} s, one login a minute allowed to each"
    )
    report.note(
        f"logins let in {let_in:.0f}, refused with 429 {refused:.0f}; of {len(answers)} addresses "
        f"that asked once meanwhile {answers.count(200)} "
        f"were served; RSS {before:.1f} MB before, {after:.1f} MB after."
    )
