"""scripts/soak's other half: half load for minutes, a small harm every half minute, and a look at
what the server has grown to; or a store of several servers, with a failover every minute."""
import contextlib
import signal
import sys
import time

# also the way to test/it
from drill import DRILLS, descriptors, drill, median, now, poll, rss_mb, run
from redis_groups import Cluster, SentinelGroup

MINUTES = float(sys.argv[1]) if len(sys.argv) > 1 else 5
KIND = sys.argv[2] if len(sys.argv) > 2 else "soak"
FAILOVER_EVERY_S, FAILOVER_SLOPE_MB_H = 60, 1.0
HARM_EVERY_S, LOOK_EVERY_S, GROWTH_MB = 30, 5, 1.5


def blink(r, w, s, load):
    r.signal(signal.SIGSTOP)
    time.sleep(1)
    r.signal(signal.SIGCONT)


def cut_all(r, w, s, load):
    r.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def cut_invalidation(r, w, s, load):
    r.cli("CLIENT", "KILL", "TYPE", "pubsub")


def wechat_resets(r, w, s, load):
    w.fault(mode="reset", count=5)


def wechat_hangs(r, w, s, load):
    w.fault(mode="hang", count=3)


def reload(r, w, s, load):
    s.process.signal(signal.SIGHUP)


def leave(r, w, s, load):
    """Callers that hang up midway."""
    import caller_drills
    for at in range(len(caller_drills.GET)):
        c = caller_drills.connect(s.port)
        c.sendall(caller_drills.GET[:at])
        caller_drills.hang_up(c, at % 2)


HARMS = [blink, cut_invalidation, wechat_resets, reload, leave, cut_all, wechat_hangs]


@drill("soak", f"{MINUTES:g} minutes at half load, a small harm every {HARM_EVERY_S} s")
def soak(d):
    r, w = d.redis(), d.wxfake()
    s = d.server(r, w, session__cache_entries=200, redis__timeout="500ms")
    load = d.load(
        s, verifies=120, logins=4, logouts=2, stale_s=0.3, codes=int(MINUTES * 60 * 4) + 100,
        connections=16,
    )
    pid, begin, looks, next_harm, harms = s.process.pid, now(), [], now() + HARM_EVERY_S / 2, 0
    while now() < begin + MINUTES * 60:
        looks.append((now() - begin, rss_mb(pid), descriptors(pid)))
        print(
            f"{looks[-1][0]:6.0f} s  {looks[-1][1]:6.2f} MB  {looks[-1][2]:4d} descriptors  "
            f"{len(load.answers):7d} answers",
            flush=True,
        )
        if now() >= next_harm and now() < begin + MINUTES * 60 - 6:
            next_harm += HARM_EVERY_S
            harm = HARMS[harms % len(HARMS)]
            harms += 1
            print(f"          {harm.__name__}", flush=True)
            harm(r, w, s, load)
        time.sleep(LOOK_EVERY_S)
    warm = [x for x in looks if x[0] >= looks[-1][0] / 3]  # the first third is warming up
    early, late = warm[:len(warm) // 2], warm[len(warm) // 2:]
    growth = median([x[1] for x in late]) - median([x[1] for x in early])
    more = median([x[2] for x in late]) - median([x[2] for x in early])
    slope = slope_per_hour([(x[0], x[1]) for x in late])
    d.figure(
        f"{harms} harms; RSS {looks[0][1]:.2f} to {looks[-1][1]:.2f} MB, after warming up "
        f"{growth:+.2f} MB (slope of the last third {slope:+.1f} MB/h); descriptors {more:+.0f}"
    )
    d.must_not_grow(growth, GROWTH_MB)
    d.must(more <= 2, f"{more:.0f} descriptors more after warming up")
    d.must(load.good(load.began) > 0.97, f"too little was good: {load.bad(load.began)}")
    poll(s.ready, 5, "ready at the end")
    d.end_load(load)


# ---- a failover every minute: planned, and by the death of the master; what was killed comes back
# as a replica ----

def fail_over_planned(g):
    """Asked for again when it was not carried through: they refuse one soon after another, and give
    up when a replica is not ready."""
    if isinstance(g, SentinelGroup):
        g.fail_over()
        return
    old = max(g.masters(), key=lambda s: len(g.replicas_of(s)))
    replicas = g.replicas_of(old)
    for _ in range(4):
        replicas[0].cli("CLUSTER", "FAILOVER")
        with contextlib.suppress(AssertionError):
            poll(lambda: any("master" in r.role() for r in replicas), 10, "a planned failover")
            break


def fail_over_by_death(g):
    victim = (
        g.master()
        if isinstance(g, SentinelGroup)
        else max(g.masters(), key=lambda s: len(g.replicas_of(s)))
    )
    replicas = g.replicas() if isinstance(g, SentinelGroup) else g.replicas_of(victim)
    victim.kill()
    poll(lambda: any("master" in r.role() for r in replicas), 40, "an election")
    return victim


def failovers(d, g):
    d.closing.callback(g.stop)
    w = d.wxfake()
    s = d.server(None, w, redis__url=g.url(), redis__replicas="2", session__cache_entries=200)
    load = d.load(s, verifies=60, logins=2, logouts=1.5, stale_s=0.5, codes=200, connections=8)
    pid, begin, looks, turn, next_failover = s.process.pid, now(), [], 0, now() + 10
    while now() < begin + MINUTES * 60:
        looks.append((now() - begin, rss_mb(pid), descriptors(pid)))
        if now() >= next_failover and now() < begin + MINUTES * 60 - 30:
            next_failover += FAILOVER_EVERY_S
            print(
                f"{looks[-1][0]:6.0f} s  {looks[-1][1]:6.2f} MB  {looks[-1][2]:4d} descriptors  "
                f"{len(load.answers):7d} answers",
                flush=True,
            )
            load.codes.clear()  # a code lives for five minutes
            load.codes.extend(load.fetch_codes(w, 3 * FAILOVER_EVERY_S))
            dead = (fail_over_planned, fail_over_by_death)[turn % 2](g)
            turn += 1
            next_failover = max(next_failover, now() + FAILOVER_EVERY_S / 3)
            if dead:
                time.sleep(10)
                dead.start()
        time.sleep(2)
    since = now()
    warm = [x for x in looks if x[0] >= looks[-1][0] / 3]  # the first third is warming up
    slope = slope_per_hour([(x[0], x[1]) for x in warm])
    early, late = warm[:len(warm) // 2], warm[len(warm) // 2:]
    more = median([x[2] for x in late]) - median([x[2] for x in early])
    d.figure(
        f"{turn} failovers; RSS {looks[0][1]:.2f} MB, after the first third {warm[0][1]:.2f} to "
        f"{warm[-1][1]:.2f} MB: {slope:+.2f} MB/h; "
        f"descriptors {min(x[2] for x in warm)} to {max(x[2] for x in warm)}, median {more:+.0f}"
    )
    if MINUTES >= 20:  # a slope of a few minutes says nothing
        d.must(slope < FAILOVER_SLOPE_MB_H, f"grows by {slope:.2f} MB/h")
    d.must(abs(more) <= 2, f"{more:.0f} descriptors more after warming up")
    lost = "verify 401" if isinstance(g, SentinelGroup) else "nothing"  # see below
    odd = {k: n for k, n in load.bad(begin).items() if " 503" not in k and not k.startswith(lost)}
    d.must(not odd, f"other answers than 503: {odd}")
    d.figure(f"good {load.good(begin):.2%}, else 503")
    time.sleep(3)
    again = {k: n for k, n in load.bad(since).items() if not k.startswith(lost)}
    d.must(not again, f"not good again: {again}")
    # the newest logins are lost in each: the old master takes them for a second after the new one
    # is one
    if isinstance(g, SentinelGroup):
        load.stop()
        load.settle()
        d.figure(f"{len(load.ledger.lost)} checks of logins that were lost in a failover")
        d.must(
            not [x for x in load.ledger.stale if x > load.ledger.stale_s],
            f"an acknowledged end was undone: {load.ledger.stale[:5]}",
        )
        return
    d.end_load(load)


@drill("cluster", f"{MINUTES:g} minutes of a Redis Cluster with a failover every minute")
def cluster(d):
    failovers(d, Cluster(d.dir / "group", replicas=2))


@drill("sentinel", f"{MINUTES:g} minutes of Sentinel with a failover every minute")
def sentinel(d):
    failovers(d, SentinelGroup(d.dir / "group", down_after_ms=2000))


def slope_per_hour(points):
    n, mx, my = (
        len(points), sum(x for x, _ in points) / len(points),
        sum(y for _, y in points) / len(points),
    )
    below = sum((x - mx) ** 2 for x, _ in points)
    return sum((x - mx) * (y - my) for x, y in points) / below * 3600 if below and n > 1 else 0.0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    failures, figures = run(KIND)
    for f in failures:
        print(f"    {f}")
    print(f"{'FAILED' if failures else 'ok'} {DRILLS[KIND][0]}: {'; '.join(figures)}")
    print(f"{int(not failures)} passed, {int(bool(failures))} failed")
    sys.exit(bool(failures))
