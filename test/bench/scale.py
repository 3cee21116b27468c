"""How the cost of a request changes with the number of connections, with one worker and with two,
and what memory a wave leaves."""
import os
import time

import race
from stack import CORES, SERVER_CORE, Stack, rss_mb, say, tokens

SIZES = [int(n) for n in os.environ.get("BENCH_SIZES", "1 8 64 256 1000 5000").split()]
SECONDS = race.SECONDS
KINDS = {
    "auth, from memory": {}, "auth, through Redis": {"session__cache_entries": 0},
    "login, WeChat over TLS": {},
}


def scale(report):
    for workers in (1, 2):
        cores = SERVER_CORE if workers == 1 else set(CORES[:2])
        with Stack() as s:
            redis, wechat = s.redis(), s.wechat(tls=True)
            found = {
                kind: measure(s, kind, redis, wechat, cores, workers, more)
                for kind, more in KINDS.items()
            }
        report.section(f"scale: workers = {workers}, {len(cores)} core{'s' * (len(cores) > 1)}")
        report.table(
            ("CPU µs for each request, by connections", *(f"{n:,}" for n in SIZES)),
            [(kind, *cells) for kind, (cells, _) in found.items()],
        )
        report.table(
            ("RSS MB", "before", f"with {SIZES[-1]:,} connections", "after they have closed"),
            [(kind, *(f"{mb:.0f}" for mb in memory)) for kind, (_, memory) in found.items()],
        )
        report.record(
            f"scale-{workers}",
            {
                kind: {"sizes": SIZES, "cells": cells, "rss_mb": memory}
                for kind, (cells, memory) in found.items()
            },
        )
    report.note(
        "In brackets: the share of requests that were not answered 200. Beyond `login_queue` "
        "logins are told 503 `overloaded`, as configured."
    )


def measure(stack, kind, redis, wechat, cores, workers, more):
    """A cell for each number of connections, and the server's memory before, at most and after."""
    server = stack.server(redis, wechat, cores=cores, server__workers=workers, **more)
    runner = race.Runner(kind, server, "login.lua", server.port, redis)
    if kind.startswith("auth"):
        runner = race.auth_runner(stack, kind, server, redis)
    runner.load(1, SIZES[0])
    before = most = rss_mb(server.pid)
    cells = []
    for n in SIZES:
        say(f"==> scale, workers = {workers}: {kind}: {n} connections")
        r = runner.load(SECONDS, n)
        most = max(most, rss_mb(server.pid))
        cells.append(
            f"{r['cpu_us']:.1f}"
            + (f" ({r['errors'] / max(r['requests'], 1):.0%})" if r["errors"] else "")
        )
    return cells, (before, most, calm(server))


def calm(server):
    """Its memory once it has given back what it gives back, which it looks at every five
    seconds."""
    time.sleep(6)
    return rss_mb(server.pid)
