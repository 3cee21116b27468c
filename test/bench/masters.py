"""Sessions on 1, 3 and 6 masters of a cluster: what a login and a check cost each Redis, and what
one core of wxlogind drives."""
import os
import time

from stack import OTHER_CORES, Stack, cpu_seconds, say, tokens, wrk

SECONDS = float(os.environ.get("BENCH_SECONDS", "5"))
CONNECTIONS = int(os.environ.get("BENCH_CONNECTIONS", "64"))
MASTERS = (1, 3, 6)


def masters(report):
    rows = []
    with Stack() as s:
        fake = s.wxfake()
        for count in MASTERS:
            nodes = s.cluster(count)
            rows.append((f"{count}: no wxlogind", "", *cpu(per_second(nodes, 3))))
            remembers, asks = (
                s.server(nodes, fake, session__cache_entries=n, redis__timeout="5s")
                for n in (100000, 0)
            )
            idle = per_second(nodes, 3)
            rows.append((f"{count}: nobody asks (two processes)", "", *cpu(idle)))
            for what, server, script, port, env in (
                ("a login", asks, "login.lua", asks.port, {}),
                (
                    "a check through Redis", asks, "auth.lua", asks.internal,
                    {"TOKENS": str(tokens(s, asks, 1000))},
                ),
                (
                    "a check from memory", remembers, "auth.lua", remembers.internal,
                    {"TOKENS": str(tokens(s, remembers, 1000))},
                ),
            ):
                say(f"==> masters: {count} masters, {what}")
                rows.append((f"{count}: {what}", *one(nodes, server, script, port, env, idle)))
            for p in [remembers, asks, *nodes]:
                p.terminate()
                p.wait(20)
                s.processes.remove(p)
    report.section(
        f"masters of a cluster, {CONNECTIONS} connections, all else on {len(OTHER_CORES)} core(s)"
    )
    report.table(
        (
            "masters: what", "requests/s", "Redis' CPU µs, all nodes", "the busiest node",
            "the least busy", "wxlogind's CPU µs", "requests/s of one core",
        ),
        [(*r, *[""] * (7 - len(r))) for r in rows],
    )
    report.note("Of nobody asking: µs in each second. Of a request: what it adds to that.")


def per_second(nodes, seconds):
    before = [cpu_seconds(p.pid) for p in nodes]
    time.sleep(seconds)
    return [(cpu_seconds(p.pid) - b) * 1e6 / seconds for p, b in zip(nodes, before)]


def cpu(each):
    return f"{sum(each):.1f}", f"{max(each):.1f}", f"{min(each):.1f}"


def one(nodes, server, script, port, env, idle):
    wrk(script, f"http://127.0.0.1:{port}", 1, CONNECTIONS, env)  # warm
    before, own = [cpu_seconds(p.pid) for p in nodes], cpu_seconds(server.pid)
    r = wrk(script, f"http://127.0.0.1:{port}", SECONDS, CONNECTIONS, env)
    n = max(r["requests"], 1)
    each = [
        ((cpu_seconds(p.pid) - b) * 1e6 - i * r["seconds"]) / n
        for p, b, i in zip(nodes, before, idle)
    ]
    own = (cpu_seconds(server.pid) - own) * 1e6 / n
    if r["errors"]:
        say(f"==> {r['errors']} errors")
    return f"{n / r['seconds']:.0f}", *cpu(each), f"{own:.1f}", f"{1e6 / own:.0f}"
