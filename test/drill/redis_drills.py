"""Redis dies, stands still, forgets, is full, is slow, is something else."""
import signal
import time

from drill import call, descriptors, drill, now, poll, rss_mb
from proxy import NonsenseRedis, Proxy

TIMEOUT = {"redis__timeout": "500ms"}
LIMIT_S = 1.1       # twice that: this machine has other work
LEASE_S = 0.2 + 0.1  # how old memory may be, and what a request may take on its way
SLACK_S = 0.05


def away(d, s, load, begin, end):
    """While Redis was away: 503 in time, never a 401 (the ledger sees those), nothing from memory
    past its lease."""
    load_slow = load.between(begin, end)
    hits = [
        a
        for a in load.between(begin + LEASE_S, end - SLACK_S)
        if a.kind == "verify" and a.status == 200 and a.took < 0.4
    ]
    odd = {k: n for k, n in load.bad(begin + LEASE_S, end).items() if " 503" not in k}
    d.figure(f"{len([a for a in load_slow if a.status == 503])} answers 503")
    d.must(
        not hits,
        f"{len(hits)} sessions answered from memory "
        f"{max((a.sent - begin for a in hits), default=0):.2f} s after Redis was gone",
    )
    d.must(not odd, f"other answers than 503: {odd}")
    d.slowest(load, begin, end, LIMIT_S)


@drill("redis-kill", "Redis: kill -9, restart after 4 s (AOF everysec)")
def redis_kill(d):
    r, w = d.redis(), d.wxfake()
    s = d.server(r, w, **TIMEOUT)
    load = d.load(s, stale_s=LEASE_S)
    killed = now()
    r.kill()
    poll(lambda: not s.ready(), 2, "not ready in 2 s")
    d.figure(f"readyz 503 after {now() - killed:.2f} s")
    time.sleep(4)
    began = now()
    r.start()
    up = now()
    poll(s.ready, 4, "ready in 4 s")
    d.figure(f"readyz 200 {now() - began:.2f} s after its start")
    time.sleep(max(0, up + 2 - now()))
    since = now()
    time.sleep(4)
    away(d, s, load, killed, began)
    d.good_again(load, since)
    d.end_load(load)


@drill("redis-freeze", "Redis: SIGSTOP 10 s")
def redis_freeze(d):
    r, w = d.redis(), d.wxfake()
    s = d.server(r, w, **TIMEOUT)
    load = d.load(s, stale_s=LEASE_S)
    before = rss_mb(s.process.pid)
    stopped = now()
    r.signal(signal.SIGSTOP)
    time.sleep(10)
    growth = rss_mb(s.process.pid) - before
    thawed = now()
    r.signal(signal.SIGCONT)
    poll(s.ready, 4, "ready in 4 s")
    d.figure(f"readyz 200 after {now() - thawed:.2f} s, grew {growth:.1f} MB")
    d.must_not_grow(growth, 10)
    time.sleep(max(0, thawed + 2 - now()))
    since = now()
    time.sleep(4)
    away(d, s, load, stopped, thawed - 0.6)
    d.good_again(load, since)
    d.end_load(load)


@drill("redis-blinks", "Redis: SIGSTOP of one second, ten times")
def redis_blinks(d):
    r, w = d.redis(), d.wxfake()
    s = d.server(r, w, **TIMEOUT)
    load, backs = d.load(s, stale_s=LEASE_S), []
    for _ in range(10):
        r.signal(signal.SIGSTOP)
        time.sleep(1)
        r.signal(signal.SIGCONT)
        thawed = now()
        poll(s.ready, 3, "ready again in 3 s")
        backs.append(now() - thawed)
        time.sleep(1)
    d.figure(f"back after {max(backs):.2f} s at most")
    since = now()
    time.sleep(2)
    d.slowest(load, load.began, since, LIMIT_S)
    d.good_again(load, since)
    d.end_load(load)


@drill(
    "redis-invalidation", "the invalidation connection killed 100 times; logout on A, verify on B"
)
def redis_invalidation(d):
    r, w = d.redis(), d.wxfake()
    a, b = d.server(r, w), d.server(r, w)
    load, kills = d.load(a, b, stale_s=LEASE_S, logins=15, logouts=10, codes=1200), 0
    while kills < 100:
        for line in r.cli("CLIENT", "LIST").splitlines():
            if "name=wxlogind-invalidation" in line:
                r.cli("CLIENT", "KILL", "ID", line.split()[0][3:])
                kills += 1
        time.sleep(0.1)
    ended = now()

    def hits():
        return b.metric("wxlogind_session_cache_total", result="hit")
    first = hits()
    poll(lambda: hits() > first, 3, "answered from memory again in 3 s")
    d.figure(f"{kills} kills, memory answers again after {now() - ended:.2f} s")
    time.sleep(1.5)
    d.must(load.good(load.began) > 0.9999, f"not all good: {load.bad(load.began)}")
    late = max(load.ledger.stale, default=0.0)
    d.figure(f"latest 200 after a 204 {late * 1000:.0f} ms")
    d.end_load(load)


@drill("redis-flush", "Redis: FLUSHALL")
def redis_flush(d):
    r, w = d.redis(), d.wxfake()
    a, b = d.server(r, w), d.server(r, w)
    load = d.load(a, b, stale_s=0.4, logouts=0)
    tokens = list(load.ledger.live)[:20]
    flushed = load.ledger.flush(lambda: r.cli("FLUSHALL"))
    time.sleep(0.4)
    for token in tokens:
        for s in (a, b):
            x = s.auth(token)
            d.must(
                (x.status, x.json and x.json.get("reason")) == (401, "unknown"),
                f"after FLUSHALL: {x}",
            )
    time.sleep(3)
    late = max(load.ledger.stale, default=0.0)
    d.figure(f"latest 200 after it {late * 1000:.0f} ms")
    d.good_again(load, flushed + 0.4)
    d.end_load(load)


@drill("redis-full", "Redis: full (noeviction)")
def redis_full(d):
    r, w = d.redis(), d.wxfake()
    s = d.server(r, w, session__cache_entries=0)
    load = d.load(s, logins=20)
    r.cli("CONFIG", "SET", "maxmemory-policy", "noeviction")
    r.cli("CONFIG", "SET", "maxmemory", "1mb")
    full = now()
    time.sleep(4)
    freed = now()
    r.cli("CONFIG", "SET", "maxmemory", "0")
    since = now()
    time.sleep(2)
    for kind in ("verify", "logout"):
        got = load.good(full + 0.1, freed - 0.1, kind)
        d.figure(f"{kind} good {got:.2%}")
        d.must(got >= 0.9999, f"{kind} while full: {load.bad(full + 0.1, freed - 0.1)}")
    logins = load.between(full + 0.1, freed - 0.1, "login")
    d.figure(f"{len(logins)} logins refused")
    d.must(
        logins and all(a.status == 503 and a.error == "store_unavailable" for a in logins),
        f"logins: {load.bad(full, freed)}",
    )
    d.good_again(load, since)
    d.end_load(load)


@drill("redis-slow", "50 ms added to each of Redis' replies, memory off")
def redis_slow(d):
    r, w = d.redis(), d.wxfake()
    p = Proxy(r.port)
    d.closing.callback(p.close)
    s = d.server(r, w, redis__url=f"redis://127.0.0.1:{p.port}/0", session__cache_entries=0)
    load = d.load(s, connections=40)
    p.delay = 0.05
    time.sleep(0.5)
    since = now()
    time.sleep(5)
    until = now()
    p99 = load.percentile(0.99, since, until, "verify")
    p50, p95 = (load.percentile(p, since, until, "verify") for p in (0.5, 0.95))
    d.figure(f"verify p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms")
    d.must(p50 >= 50 and p95 <= 240, f"verify p50 {p50:.0f} ms, p95 {p95:.0f} ms")
    d.good_again(load, since, 1.0)
    p.delay = 0
    time.sleep(0.5)
    d.end_load(load)


NONSENSE = [
    ("an unasked reply", b":1\r\n:2\r\n:3\r\n:4\r\n:5\r\n"),
    ("garbage", b"\x00\xff\x00HTTP/1.1 400 Bad Request\r\n\r\n"),
    ("half a reply", b"$100\r\nabc"),
    ("an array without end", b"*2147483647\r\n"),
    ("an endless bulk", b"endless"),
    ("the wrong type", b"*3\r\n:1\r\n*-1\r\n$-1\r\n"),
    ("-LOADING", b"-LOADING Redis is loading\r\n"),
    ("-NOAUTH", b"-NOAUTH Authentication required.\r\n"),
]


@drill(
    "redis-nonsense",
    "a fake Redis: unasked replies, garbage, half a reply, endless bulk, -LOADING, -NOAUTH",
)
def redis_nonsense(d):
    w = d.wxfake()
    fake = NonsenseRedis()
    d.closing.callback(fake.close)
    s = d.server(None, w, wait=False, redis__url=f"redis://127.0.0.1:{fake.port}/0", **TIMEOUT)
    token, before, most, slowest = "A" * 43, rss_mb(s.process.pid), 0.0, 0.0
    for name, says in NONSENSE:
        fake.says, fake.refuses_hello = says, says if says.startswith(b"-") else None
        end, statuses = now() + 3.5, []
        while now() < end:
            a = s.auth(token)
            statuses.append(a.status)
            slowest = max(slowest, a.seconds)
            if a.status == 200 or (
                a.status == 401 and name not in ("the wrong type", "an unasked reply")
            ):
                d.failures.append(f"{name}: {a}")
                break
            time.sleep(0.01)
        # two connections, in the last two seconds
        rate = len([t for t in fake.accepted if t > now() - 2]) / 2 / 2
        most = max(most, rate)
        d.must(rate <= 2, f"{name}: {rate:.1f} connects a second on each of two connections")
    growth = rss_mb(s.process.pid) - before
    d.figure(
        f"{len(NONSENSE)} kinds, at most {most:.1f} connects/s per connection, slowest answer "
        f"{slowest:.2f} s, grew {growth:.1f} MB"
    )
    d.must(slowest <= LIMIT_S, f"an answer took {slowest:.2f} s")
    d.must_not_grow(growth, 10)
    assert call(s.internal, "GET", "/healthz").status == 200 and descriptors(s.process.pid) < 60


@drill(
    "redis-planned",
    "a planned failover behind a name; A only reads and its connections stay, B ends sessions at "
    "the new master",
)
def redis_planned(d):
    old, new, w = d.redis(), d.redis(), d.wxfake()
    new.cli("REPLICAOF", "127.0.0.1", old.port)
    poll(
        lambda: "master_link_status:up" in new.cli("INFO", "replication"), 10, "the replica follows"
    )
    name = Proxy(old.port)
    d.closing.callback(name.close)
    url, latest, stale, ended_count = f"redis://127.0.0.1:{name.port}/0", 0.0, 0, 0
    for entries in ("0", "1000"):  # from Redis, and from memory
        a = d.server(None, w, redis__url=url, session__cache_entries=entries)
        tokens = [a.login(w.code()).token for _ in range(40)]
        poll(
            lambda: all(a.auth(t).status == 200 for t in tokens)
            and new.cli("DBSIZE") == old.cli("DBSIZE"),
            10, "all there",
        )
        new.cli("REPLICAOF", "NO", "ONE")
        name.target = new.port
        # it does not reach the new one, and so keeps its data as it is
        old.cli("REPLICAOF", "127.0.0.1", 1)
        demoted, ended = now(), {}
        b = d.server(new, w, session__cache_entries="0")
        for token in tokens[:30]:
            d.must(b.session(token, "DELETE").status == 204, "not ended")
            ended[token] = now()
        while now() < demoted + 4:
            for token in tokens[:30]:
                asked = now()
                if a.auth(token).status == 200:
                    latest = max(latest, asked - demoted)
                    stale += asked > max(ended[token], demoted + 1.5)
        poll(a.ready, 4, "ready at the new master")
        d.must(all(a.auth(t).status == 200 for t in tokens[30:]), "lost")
        ended_count += len(ended)
        old, new = new, old
        new.cli("REPLICAOF", "127.0.0.1", old.port)
        poll(
            lambda: "master_link_status:up" in new.cli("INFO", "replication"), 10,
            "the other follows",
        )
    d.figure(
        f"{ended_count} ended at the new master; latest 200 {latest:.2f} s after the demotion; "
        f"stale later than 1.5 s: {stale}"
    )
    d.must(stale == 0, f"{stale} answers 200 later than 1.5 s after the demotion")
