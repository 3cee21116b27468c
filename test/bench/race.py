"""Contenders side by side: all are up, pinned to the server's core, and take turns in short rounds,
so that whatever else the machine does hits all alike. Who is first changes with each round. A
contender's figure is the median of its rounds; a ratio is the median of the ratios in each
round. A round with an error is void: an error is cheaper than an answer."""
import os
import statistics
import time

import goals
import peers
from stack import Stack, cpu_seconds, rss_mb, say, tokens, wrk

SECONDS = float(os.environ.get("BENCH_SECONDS", "2"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
LEAST_ROUNDS = 2
KEPT = ("cpu_us", "redis_us", "busy")
CONNECTIONS = int(os.environ.get("BENCH_CONNECTIONS", "64"))
HEADER = (
    "what", "requests/s", "p50 µs", "p99 µs", "CPU µs/request", "its core busy",
    "Redis' CPU µs/request", "RSS MB", "errors", "void rounds",
)


class Runner:
    """One contender, and what its rounds gave: None for one that is void."""

    def __init__(self, name, process, script, port, redis, env=None):
        self.name, self.process, self.script, self.url, self.env = (
            name, process, script, f"http://127.0.0.1:{port}", env or {},
        )
        self.redis, self.rounds, self.errors = redis, [], 0

    def load(self, seconds, connections):
        """What wrk says, and what the server and Redis used meanwhile."""
        begun, *before = (
            time.monotonic(), cpu_seconds(self.process.pid), cpu_seconds(self.redis.pid),
        )
        r = wrk(self.script, self.url, seconds, connections, self.env)
        ours, redis = (
            cpu_seconds(self.process.pid) - before[0], cpu_seconds(self.redis.pid) - before[1],
        )
        n = max(r["requests"], 1)
        return {
            **r, "cpu_us": ours * 1e6 / n, "redis_us": redis * 1e6 / n,
            "busy": ours / (time.monotonic() - begun),
        }

    def round(self, seconds=SECONDS, connections=CONNECTIONS):
        r = self.load(seconds, connections)
        self.errors += r["errors"]
        self.rounds.append(None if r["errors"] else r)

    def valid(self):
        return [r for r in self.rounds if r]

    def median(self, key):
        return statistics.median(r[key] for r in self.valid())

    def row(self):
        valid, void = self.valid(), self.rounds.count(None)
        if not valid:
            return (self.name, *["-"] * (len(HEADER) - 3), self.errors, void)
        rate = sum(r["requests"] for r in valid) / sum(r["seconds"] for r in valid)
        return (
            self.name, f"{rate:.0f}", f"{self.median('p50_us'):.0f}",
            f"{self.median('p99_us'):.0f}", f"{self.median('cpu_us'):.1f}",
            f"{self.median('busy'):.0%}", f"{self.median('redis_us'):.1f}",
            f"{rss_mb(self.process.pid):.0f}", self.errors, void,
        )


def race(report, name, title, runners, rounds=ROUNDS, seconds=SECONDS, connections=CONNECTIONS):
    """Prints the table of all, and records the rounds under the name."""
    for r in runners:
        r.load(seconds, connections)  # warm: LuaJIT and V8 compile what is called often
    for i in range(rounds):
        if i >= LEAST_ROUNDS and report.until and time.monotonic() > report.until:
            break
        for r in runners[i % len(runners):] + runners[:i % len(runners)]:
            say(f"==> {title}: round {i + 1} of {rounds}: {r.name}")
            r.round(seconds, connections)
    report.section(f"{title}, {connections} connections")
    report.table(HEADER, [r.row() for r in runners])
    report.record(
        name, {r.name: [x and {k: round(x[k], 2) for k in KEPT} for x in r.rounds] for r in runners}
    )
    report.plot(
        title,
        [(r.name, r.median("cpu_us"), r.name.startswith("wxlogind")) for r in runners if r.valid()],
    )
    for goal in goals.RATIOS:
        if goal.race == name:
            report.note(goals.sentence(goal, report.found[name]))


def auth(report):
    with Stack() as s:
        redis, fake = s.redis(), s.wxfake()
        runners = [
            auth_runner(s, name, p, redis)
            for name, p in peers.start_all(report, peers.AUTH, s, redis, fake)
        ]
        race(report, "auth", "auth", runners)


def auth_runner(stack, name, process, redis):
    env = {"TOKENS": str(tokens(stack, process, 1000)), "AUTH_PATH": process.auth_path}
    return Runner(name, process, "auth.lua", process.internal, redis, env)


def login(report):
    for tls in (False, True):
        with Stack() as s:
            redis, wechat = s.redis(), s.wechat(tls)
            started = peers.start_all(report, peers.LOGIN, s, redis, wechat)
            runners = [Runner(name, p, "login.lua", p.port, redis) for name, p in started]
            race(
                report, f"login-{'tls' if tls else 'http'}",
                f"login, WeChat over {'TLS' if tls else 'HTTP'}", runners,
            )


def mixed(report):
    with Stack() as s:
        redis = s.redis()
        server = s.server(redis, s.wxfake())
        race(
            report, "mixed", "1 login to 100 checks",
            [
                Runner(
                    "wxlogind", server, "mixed.lua", server.port, redis,
                    {"TOKENS": str(tokens(s, server, 1000))},
                )
            ],
        )
