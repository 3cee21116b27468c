"""scripts/bench WORK: see there. Prints a Markdown table; progress goes to standard error."""
import contextlib
import http.client
import json
import os
import pathlib
import statistics
import sys
import time

from allocations import allocations
from stack import OTHER_CORES, ROOT, SERVER_CORE, Stack, call, cpu_seconds, poll, redis_cli, rss_mb, say, tokens, wrk

SECONDS = int(os.environ.get("BENCH_SECONDS", "5"))
CONNECTIONS = int(os.environ.get("BENCH_CONNECTIONS", "64"))


def measure(name, process, script, url, env=None, seconds=SECONDS, connections=CONNECTIONS):
    """One row: what wrk saw, and what it cost the process."""
    wrk(script, url, 1, connections, env)  # warm
    say(f"==> {name}: {seconds} s, {connections} connections")
    before = cpu_seconds(process.pid)
    r = wrk(script, url, seconds, connections, env)
    used = cpu_seconds(process.pid) - before
    return {"what": name, "rate": r["requests"] / r["seconds"], "p50": r["p50_us"], "p99": r["p99_us"], "p999": r["p999_us"],
            "cpu_us": used * 1e6 / max(r["requests"], 1), "rss": rss_mb(process.pid), "errors": r["errors"]}


def table(rows):
    print("| what | requests/s | p50 µs | p99 µs | p99.9 µs | CPU µs/request | RSS MB | errors |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for r in rows:
        print(f"| {r['what']} | {r['rate']:.0f} | {r['p50']} | {r['p99']} | {r['p999']} | {r['cpu_us']:.1f} | {r['rss']:.0f} | {r['errors']} |")


def auth():
    with Stack() as s:
        redis, fake = s.redis(), s.wxfake()
        rows = []
        for name, entries in (("auth from memory", 100000), ("auth through Redis", 0)):
            server = s.server(redis, fake, session__cache_entries=entries)
            rows.append(measure(name, server, "auth.lua", f"http://127.0.0.1:{server.internal}", {"TOKENS": str(tokens(s, server, 1000))}))
        table(rows)


def login():
    with Stack() as s:
        server = s.server(s.redis(), s.wxfake())
        table([measure("login", server, "login.lua", f"http://127.0.0.1:{server.port}")])


def mixed():
    with Stack() as s:
        server = s.server(s.redis(), s.wxfake())
        table([measure("1 login to 100 checks", server, "mixed.lua", f"http://127.0.0.1:{server.port}", {"TOKENS": str(tokens(s, server, 1000))})])


def revoke():
    """Login, check on B until it answers from memory, DELETE on A; then how long B still says 200."""
    rounds = int(os.environ.get("BENCH_ROUNDS", "10000"))
    with Stack() as s:
        redis, fake = s.redis(), s.wxfake()
        a, b = s.server(redis, fake), s.server(redis, fake)
        stale_ms, first_ms = [], []
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", a.port)) as to_a, \
                contextlib.closing(http.client.HTTPConnection("127.0.0.1", b.internal)) as to_b:

            def ask(conn, method, path, body=None, token=None):
                conn.request(method, path, body, {"Authorization": f"Bearer {token}"} if token else {"Content-Type": "application/json"})
                r = conn.getresponse()
                return r.status, r.read()
            for i in range(rounds):
                token = json.loads(ask(to_a, "POST", "/v1/login", json.dumps({"code": f"revoke-{i}"}))[1])["third_session"]
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
                    say(f"    round {i} of {rounds}")
        hits = [line for line in call(b.internal, "GET", "/metrics")[1].decode().splitlines() if 'cache_total{result="hit"}' in line]
        stale = [x for x in stale_ms if x > 0]
        print(f"rounds {rounds}, answered from memory on B: {hits[0].split()[-1]}")
        print(f"a 200 that was asked for after the DELETE was answered: in {len(stale)} rounds")
        print(f"staleness ms: median {statistics.median(stale_ms):.3f}, longest {max(stale_ms):.3f}")
        print(f"first 401 after the DELETE's answer, ms: median {statistics.median(first_ms):.3f}, longest {max(first_ms):.3f}")


def forget_codes(redis):
    """Takes the codes' claims out, which end by themselves after some minutes."""
    script = ("local c, n = ARGV[1], 0 repeat local r = redis.call('SCAN', c, 'MATCH', 'wxlogin:c:*', 'COUNT', 1000) c = r[1] "
              "for _, k in ipairs(r[2]) do redis.call('DEL', k) end n = n + 1 until c == '0' or n == 200 return c")
    cursor = "0"
    while (cursor := redis_cli(redis, "EVAL", script, 0, cursor).strip()) != "0":
        pass


def memory():
    """What Redis needs for a session: a million of them, of users with one, two and five each."""
    n = int(os.environ.get("BENCH_SESSIONS", "1000000"))
    print("| sessions of a user | encryption | sessions | used_memory B | B per session |")
    print("| ---: | --- | ---: | ---: | ---: |")
    for per_user, key in ((1, ""), (2, ""), (5, ""), (1, "00112233445566778899aabbccddeeff" * 2)):
        with Stack() as s:
            redis, fake = s.redis(), s.wxfake()
            server = s.server(redis, fake, session__encryption_key=key, session__replay_window="0")

            def used():
                return int(next(line.split(":")[1] for line in redis_cli(redis, "INFO", "memory").splitlines() if line.startswith("used_memory:")))

            def sessions():
                return sum(int(line.split()[-1]) for line in call(server.internal, "GET", "/metrics")[1].decode().splitlines()
                           if line.startswith('wxlogind_logins_total{outcome="ok"}'))
            empty = used()
            while (have := sessions()) < n:
                say(f"    {have} of {n} sessions, {per_user} for each user")
                wrk("login.lua", f"http://127.0.0.1:{server.port}", 10 if n - have > 200000 else 1, 64, {"LOGINS_PER_USER": str(per_user)})
                forget_codes(redis)  # as many as here, a site has only in its busiest minutes
            made = sessions()
            now = used() - empty
            print(f"| {per_user} | {'yes' if key else 'no'} | {made} | {now} | {now / made:.0f} |", flush=True)


WORKS = {"auth": auth, "login": login, "mixed": mixed, "revoke": revoke, "memory": memory, "allocations": allocations}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in WORKS:
        raise SystemExit(f"usage: scripts/bench {'|'.join(WORKS)}")
    WORKS[sys.argv[1]]()
