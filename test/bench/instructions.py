"""Instructions of the server for each request, by callgrind, which hardly vary where times do, and
system calls, by strace. The instructions are held against the last recorded ones
(instructions.json beside this file): three in a hundred more fails. BENCH_RECORD=1 records."""
import asyncio
import json
import os
import pathlib
import re
import signal
import subprocess
import time

import race
from stack import HERE, Stack, call, family, redis_cli, say

RECORDED = HERE / "instructions.json"
REQUESTS = int(os.environ.get("BENCH_REQUESTS", 1000))
AT_ONCE = 64
CALLS_S = 2
CLUSTER = "login through a cluster of three, WeChat over HTTP"
MORE_ALLOWED = 0.03
CLUSTER_ALLOWED = 0.05  # more than through one server
IDLE_S = 4
PATIENT = {
    "wechat__connect_timeout": "30s", "wechat__timeout": "50s", "redis__timeout": "30s",
    "server__client_timeout": "5m",
}


async def ask(port, requests):
    """AT_ONCE connections share an iterator of requests, each a pair of head and body; every answer
    must be 200."""
    async def caller():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for request in requests:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"bench: {head.decode()}")
            await reader.readexactly(int(re.search(rb"Content-Length: (\d+)", head)[1]))
        writer.close()
    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))


def fields(*lines):
    """What a proxy in front sends, beside what a request needs."""
    return "".join(
        f"{line}\r\n"
        for line in (
            "Host: login.example.com", "User-Agent: Mozilla/5.0 (iPhone) MicroMessenger/8.0.50",
            "X-Forwarded-For: 203.0.113.7", "X-Request-Id: 0123456789abcdef", "Accept: */*", *lines,
        )
    )


def checks(tokens, n):
    for i in range(n):
        yield (
            "GET /internal/auth "
            f"HTTP/1.1\r\n{fields(f'Authorization: Bearer {tokens[i % len(tokens)]}')}\r\n"
        ).encode()


def logins(name, n):
    for i in range(n):
        body = json.dumps({"code": f"{name}{i:028d}"})
        yield (
            "POST /v1/login "
            "HTTP/1.1\r\n"
            f"{fields('Content-Type: application/json', f'Content-Length: {len(body)}')}\r\n{body}"
        ).encode()


def control(server, *what):
    subprocess.run(["callgrind_control", *what, str(server.pid)], check=True, capture_output=True)


def measure(stack, port, server, make, redis=None):
    """make(name, n) gives n requests. Warm first: what happens once is no request's. The least of
    three rounds: a server that valgrind makes slow cannot always prove its memory fresh, and
    then asks Redis."""
    asyncio.run(ask(port, make("w", 4 * AT_ONCE)))
    control(server, "-i", "on")
    asyncio.run(ask(port, make("i", 4 * AT_ONCE)))
    each = per_beat(stack, server, redis) if redis else 0
    return min(
        measure_once(stack, port, server, make(f"m{i}", REQUESTS), redis, each) for i in range(3)
    )


def measure_once(stack, port, server, requests, redis, each_beat):
    control(server, "-z")
    before = beats(redis) if redis else 0
    asyncio.run(ask(port, requests))
    own = (beats(redis) - before) * each_beat if redis else 0
    return (total(stack, server) - own) / REQUESTS


def auth(stack, redis, fake, entries):
    server = stack.server(
        redis, fake, valgrind=stack.dir / f"callgrind.auth{entries}", at_start=False,
        session__cache_entries=entries, **PATIENT,
    )
    tokens = [
        json.loads(
            call(
                server.port, "POST", "/v1/login",
                {"code": f"t{entries}-{i}"},
                {"Content-Type": "application/json"},
            )[1]
        )["third_session"]
        for i in range(100)
    ]  # each is met while it is warmed up
    return measure(stack, server.internal, server, lambda name, n: checks(tokens, n))


def login(stack, redis, fake):
    kind = "cluster" if isinstance(redis, list) else "tls" if fake.ca else "http"
    server = stack.server(
        redis, fake, valgrind=stack.dir / f"callgrind.login-{kind}", at_start=False, **PATIENT
    )
    return measure(stack, server.port, server, lambda name, n: logins(kind[0] + name, n), redis)


def total(stack, server):
    control(server, "-d")
    dump = max(stack.dir.glob("callgrind.*.[0-9]*"), key=lambda p: p.stat().st_mtime)
    return int(re.search(r"^(?:summary|totals): (\d+)", dump.read_text(), re.M)[1])


def beats(redis):
    """How often the server asked its Redis whether it is well, and whether it is the master
    still."""
    nodes = redis if isinstance(redis, list) else [redis]
    stats = "".join(redis_cli(p, "INFO", "commandstats") for p in nodes)
    return sum(map(int, re.findall(r"cmdstat_(?:subscribe|role|cluster\|info):calls=(\d+)", stats)))


def per_beat(stack, server, redis):
    """Instructions. A server that valgrind makes slow does that often while it answers one login,
    which is none of the login's business."""
    control(server, "-i", "on")
    control(server, "-z")
    before = beats(redis)
    time.sleep(IDLE_S)
    asked = beats(redis) - before
    return total(stack, server) / asked


def calls_of(stack, server, runner):
    """System calls for each request, of the server alone in its process."""
    runner.load(1, AT_ONCE)
    counted = stack.dir / f"calls{server.pid}"
    strace = subprocess.Popen(
        [
            "strace", "-f", "-c", "-U", "name,calls", "-o", counted,
            *(f"-p{p}" for p in family(server.pid)),
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        r = runner.load(CALLS_S, AT_ONCE)
    finally:
        strace.send_signal(signal.SIGINT)
        strace.wait()
    return (
        int(re.search(r"^total +(\d+)|^ *(\d+) total", counted.read_text(), re.M).expand(r"\1\2"))
        / r["requests"]
    )


def calls(stack, redis, tls):
    """Of the kinds that have a goal, at what speed strace leaves the server."""
    server = stack.server(redis, tls)
    yield "auth from memory", calls_of(
        stack, server, race.auth_runner(stack, "auth", server, redis)
    )
    yield "login, WeChat over TLS", calls_of(
        stack, server, race.Runner("login", server, "login.lua", server.port, redis)
    )


def instructions(report):
    with Stack() as s:
        redis, fake, tls = s.redis(), s.wechat(), s.wechat(tls=True)
        say(
            f"==> instructions: three times {REQUESTS} requests of each kind under callgrind, "
            f"{AT_ONCE} at once"
        )
        found = {
            "auth from memory": auth(s, redis, fake, 100000),
            "auth through Redis": auth(s, redis, fake, 0),
            "login, WeChat over HTTP": login(s, redis, fake),
            "login, WeChat over TLS": login(s, redis, tls),
            CLUSTER: login(s, s.cluster(3), fake),
        }
        more = found[CLUSTER] / found["login, WeChat over HTTP"] - 1
        found = {name: int(round(n, -1)) for name, n in found.items()}
        counted = {name: round(n, 1) for name, n in calls(s, redis, tls)}
    recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    report.record(
        "instructions",
        {name: {"instructions": n, "calls": counted.get(name)} for name, n in found.items()},
    )
    report.section("Instructions and system calls for each request")
    report.table(
        ("", "instructions", "recorded", "change", "system calls"),
        [
            (
                name, f"{n:,.0f}", f"{recorded.get(name, 0):,.0f}",
                f"{n / recorded[name] - 1:+.1%}" if name in recorded else "new",
                counted.get(name, "-"),
            )
            for name, n in found.items()
        ],
    )
    report.note(
        f"Through the cluster a login takes {more:+.1%}; what a server does for itself meanwhile "
        "is taken off."
    )
    if more > CLUSTER_ALLOWED:
        report.fail(
            f"a login through a cluster takes {more:.1%} more instructions than through one server"
        )
    if os.environ.get("BENCH_RECORD"):
        pathlib.Path(RECORDED).write_text(json.dumps(found, indent=1) + "\n")
        return
    worse = [name for name, n in found.items() if n > (1 + MORE_ALLOWED) * recorded.get(name, n)]
    if worse:
        report.fail(f"more instructions than recorded: {', '.join(worse)}")
