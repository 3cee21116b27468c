"""Contenders side by side: all are up, pinned to the server's core, and take turns in short rounds, so that whatever else the machine does
hits all alike. A contender's figure is the median of its rounds; a ratio is the median of the ratios in each round."""
import os
import statistics

import peers
from stack import Stack, cpu_seconds, rss_mb, say, tokens, wrk

SECONDS = float(os.environ.get("BENCH_SECONDS", "3"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
CONNECTIONS = int(os.environ.get("BENCH_CONNECTIONS", "64"))
HEADER = ("what", "requests/s", "p50 µs", "p99 µs", "p99.9 µs", "CPU µs/request", "RSS MB", "errors")


class Runner:
    """One contender, and what its rounds gave."""

    def __init__(self, name, process, script, port, env=None):
        self.name, self.process, self.script, self.url, self.env = name, process, script, f"http://127.0.0.1:{port}", env or {}
        self.rounds = []

    def round(self, seconds=SECONDS, connections=CONNECTIONS):
        before = cpu_seconds(self.process.pid)
        r = wrk(self.script, self.url, seconds, connections, self.env)
        r["cpu_us"] = (cpu_seconds(self.process.pid) - before) * 1e6 / max(r["requests"], 1)
        self.rounds.append(r)

    def median(self, key):
        return statistics.median(r[key] for r in self.rounds)

    def row(self):
        rate = sum(r["requests"] for r in self.rounds) / sum(r["seconds"] for r in self.rounds)
        return (self.name, f"{rate:.0f}", *(self.median(k) for k in ("p50_us", "p99_us", "p999_us")), f"{self.median('cpu_us'):.1f}",
                f"{rss_mb(self.process.pid):.0f}", sum(r["errors"] for r in self.rounds))


def race(report, title, runners, rounds=ROUNDS, seconds=SECONDS, connections=CONNECTIONS):
    """Prints the table of all."""
    for r in runners:
        r.round(1, connections)  # warm
        r.rounds.clear()
    for i in range(rounds):
        for r in runners:
            say(f"==> {title}: round {i + 1} of {rounds}: {r.name}")
            r.round(seconds, connections)
    report.section(f"{title}, {connections} connections")
    report.table(HEADER, [r.row() for r in runners])
    report.plot(title, [(r.name, r.median("cpu_us"), r.name.startswith("wxlogind")) for r in runners])


def goal(report, runners, ours, theirs, most):
    """The ratio of CPU for each request, and how it stands to the goal."""
    a, b = (next(r for r in runners if r.name == n) for n in (ours, theirs))
    ratios = sorted(x["cpu_us"] / y["cpu_us"] for x, y in zip(a.rounds, b.rounds))
    ratio = statistics.median(ratios)
    report.note(f"{ours} : {theirs} = **{ratio:.2f}** of the CPU ({ratios[0]:.2f} to {ratios[-1]:.2f} over the rounds); "
                f"goal at most {most}: {'reached' if ratio <= most else 'missed'}.")


def auth(report):
    with Stack() as s:
        redis, fake = s.redis(), s.wxfake()
        runners = []
        for name, start in peers.AUTH.items():
            p = start(s, redis, fake)
            runners.append(Runner(name, p, "auth.lua", p.internal, {"TOKENS": str(tokens(s, p, 1000)), "AUTH_PATH": p.auth_path}))
        race(report, "auth", runners)
        goal(report, runners, peers.MEMORY, peers.CEILING, 0.9)
        goal(report, runners, peers.REDIS, peers.WEBDIS, 0.6)


def login(report):
    for tls in (False, True):
        with Stack() as s:
            redis, fake = s.redis(), s.wxfake(tls=tls)
            started = [(name, start(s, redis, fake)) for name, start in peers.LOGIN.items()]
            runners = [Runner(name, p, "login.lua", p.port) for name, p in started]
            race(report, f"login, WeChat over {'TLS' if tls else 'HTTP'}", runners)
            goal(report, runners, "wxlogind", peers.NGINX, 0.75)


def mixed(report):
    with Stack() as s:
        server = s.server(s.redis(), s.wxfake())
        race(report, "1 login to 100 checks", [Runner("wxlogind", server, "mixed.lua", server.port, {"TOKENS": str(tokens(s, server, 1000))})])
