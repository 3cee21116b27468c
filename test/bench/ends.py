"""Ends of sessions that two replicas must have (WAIT 2): how many a second, and how soon each is
acknowledged."""
import os

from stack import OTHER_CORES, Stack, cpu_seconds, free_port, metric, poll, redis_cli, say, wrk

LOGIN_SECONDS = float(os.environ.get("BENCH_SECONDS", "12"))
CONNECTIONS = (16, 32)


def group(stack):
    """A master and two replicas, which follow."""
    port = free_port()
    master = stack.redis("--port", port)
    for _ in range(2):
        stack.redis("--port", free_port(), "--replicaof", "127.0.0.1", port)
    poll(lambda: redis_cli(master, "WAIT", 2, 100).strip() == "2", what="the replicas")
    return master


def ends(report):
    rows = []
    with Stack() as s:
        master, fake = group(s), s.wechat()
        server = s.server(master, fake, redis__replicas="2", redis__timeout="2s")
        file = s.dir / "ended"
        url, first = f"http://127.0.0.1:{server.port}", 0

        def run(seconds, connections, **env):
            return wrk("ends.lua", url, seconds, connections, {"TOKENS": str(file), **env})
        for connections in CONNECTIONS:
            say(f"==> ends: logins for {connections} connections")
            run(LOGIN_SECONDS, 64, LOGIN="yes")
            made = len(file.read_text().splitlines())
            warm = run(1, connections, FIRST=str(first))  # tells how long the others last
            first += warm["requests"] + connections
            seconds = max(1, int((made - first) / (1.5 * warm["requests"] / warm["seconds"])))
            say(f"==> ends: {connections} connections, {seconds} s")
            own, redis = cpu_seconds(server.pid), cpu_seconds(master.pid)
            r = run(seconds, connections, FIRST=str(first))
            n = max(r["requests"], 1)
            first += r["requests"] + connections
            if first > made:
                report.failed.append("ends: fewer sessions than ends")
            first = made
            rows.append((
                connections, f"{n / r['seconds']:.0f}", n, f"{r['p50_us'] / 1000:.2f}",
                f"{r['p99_us'] / 1000:.2f}", f"{r['max_us'] / 1000:.1f}", r["errors"],
                f"{(cpu_seconds(server.pid) - own) * 1e6 / n:.1f}",
                f"{(cpu_seconds(master.pid) - redis) * 1e6 / n:.1f}",
            ))
        unconfirmed = metric(server, "wxlogind_redis_unconfirmed_ends_total")
    report.section(f"ends: WAIT 2, all but the server on {len(OTHER_CORES)} core(s)")
    report.table(
        (
            "connections", "ends/s", "ends", "p50 ms", "p99 ms", "longest ms", "errors",
            "wxlogind's CPU µs", "the master's CPU µs",
        ),
        rows,
    )
    report.note(f"{unconfirmed:.0f} ends that the replicas did not confirm.")
