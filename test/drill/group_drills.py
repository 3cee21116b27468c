"""Several Redis servers as one store: failovers, cuts by a packet filter, slots that move. Each
needs a network of its own (run.py)."""
import os
import signal
import subprocess
import threading
import time

from drill import drill, now, poll  # also the way to test/it
from redis_groups import Cluster, SentinelGroup

TIMEOUT_S = 0.5  # redis.timeout
CONFIG = {"redis__timeout": "500ms"}
# where a busy machine that keeps a server waiting is none of the drill's business
PATIENT = {"redis__timeout": "2s"}


class Cut:
    """Between one server and all the others: what is sent is dropped, and nobody is told."""

    def __init__(self, one, others):
        self.rules = [("-s", a.host, "-d", b.host) for x in others for a, b in ((one, x), (x, one))]
        for r in self.rules:
            subprocess.run(["iptables", "-A", "INPUT", *r, "-j", "DROP"], check=True)

    def heal(self):
        for r in self.rules:
            subprocess.run(["iptables", "-D", "INPUT", *r, "-j", "DROP"], check=True)
        self.rules = []


OURS_GID, OURS_MARK = 54321, 7


class Aside:
    """One process of ours, which may be cut off from some of the servers: its connections are known
    by its group."""

    def __init__(self):
        self.rules = []
        self.add(
            "OUTPUT", "-m", "owner", "--gid-owner", str(OURS_GID), "-j", "CONNMARK", "--set-mark",
            str(OURS_MARK),
        )

    @staticmethod
    def join():
        """In the process, before it starts."""
        os.setgid(OURS_GID)

    def add(self, *rule):
        subprocess.run(["iptables", "-A", *rule], check=True)
        self.rules.append(rule)

    def cut(self, servers):
        for s in servers:
            for chain, way in (("OUTPUT", "-d"), ("INPUT", "-s")):
                self.add(
                    chain, "-m", "connmark", "--mark", str(OURS_MARK), way, s.host, "-j", "DROP"
                )

    def heal(self):
        while self.rules:
            subprocess.run(["iptables", "-D", *self.rules.pop()], check=True)


def group_of(d, cls, **kw):
    g = cls(d.dir / "group", **kw)
    d.closing.callback(g.stop)
    return g


class Watch:
    """Asks one process for every session, over and over, and notes who is answered 200 how long
    after its end was acknowledged."""

    def __init__(self, server, tokens):
        self.server, self.tokens, self.ended, self.stop, self.statuses = (
            server, tokens, {}, False, {},
        )
        self.latest, self.unpromised = 0.0, 0
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stop:
            for t in self.tokens:
                asked, when = now(), self.ended.get(t)
                status = self.server.auth(t).status
                self.statuses[status] = self.statuses.get(status, 0) + 1
                if when is not None and status == 200:
                    self.latest = max(self.latest, asked - when)
                if when is None and status == 401 and t not in self.ended:
                    self.unpromised += 1

    def end(self):
        self.stop = True
        self.thread.join(30)


def end_some(server, tokens, watch):
    """204 counts; anything else promises nothing. How many were acknowledged."""
    n = 0
    for t in tokens:
        watch.ended.setdefault(t, None)
        a = server.session(t, "DELETE")
        if a.status == 204:
            watch.ended[t] = now()
            n += 1
        else:
            assert a.status == 503, a
    return n


def judge(d, watch, a):
    d.figure(f"latest 200 {max(0.0, watch.latest) * 1000:.0f} ms after an acknowledged end")
    d.must(watch.latest <= TIMEOUT_S, f"a 200 {watch.latest:.3f} s after an acknowledged end")
    d.must(not watch.unpromised, f"{watch.unpromised} answers 401 for sessions that nobody ended")
    alive = [t for t, when in watch.ended.items() if when is not None and a.auth(t).status == 200]
    d.must(not alive, f"{len(alive)} acknowledged ends were undone")
    d.figure(f"{len([w for w in watch.ended.values() if w])} acknowledged, undone {len(alive)}")


def start(d, g, tokens=60, join=None, **kw):
    """a: who is watched; join: what it does before it starts."""
    w = d.wxfake()
    a, b = (
        d.server(None, w, preexec=fn, redis__url=g.url(), **CONFIG, **kw) for fn in (join, None)
    )
    sessions = [a.login(w.code()).token for _ in range(tokens)]
    for t in sessions:
        poll(lambda: a.auth(t).status == 200, 5, "remembered")
    time.sleep(0.5)
    return w, a, b, sessions


def play_cut(d, g, old, elected, mine, a, b, w, seconds):
    """Ends at the old master while it is cut off and at the new one after the election; then it
    heals."""
    watch = Watch(a, mine)
    others = [s for s in g.everybody() if s is not old]
    cut, at = Cut(old, others), now()
    d.closing.callback(lambda: cut.heal())
    time.sleep(0.3)
    if isinstance(g, Cluster):  # what makes it throw its data away when it is back
        tag = g.tag_of(mine[0])
        old.cli(
            "EVAL", "for i = 1, 50 do redis.call('SET', KEYS[1] .. i, 'x') end", 1,
            f"lost:{{{tag}}}:",
        )
        d.must(
            old.cli("GET", f"lost:{{{tag}}}:50").strip() == "x",
            "the old master did not take what it was written",
        )
    early = end_some(b, mine[:3], watch)
    d.figure(f"{early} of 3 ends acknowledged while it was cut off")
    poll(elected, 40, "an election")
    d.figure(f"elected after {now() - at:.1f} s")
    poll(lambda: a.auth(mine[-1]).status == 200, 5, "back")
    d.figure(f"back {now() - at:.1f} s after the cut")
    end_some(b, mine[3:len(mine) // 2], watch)
    time.sleep(max(0.0, at + seconds - now()))
    cut.heal()
    healed = now()
    while now() < healed + 13:
        time.sleep(0.5)
    watch.end()
    if isinstance(g, Cluster):
        d.must(
            "master_link_status:up" in old.cli("INFO", "replication"),
            "the old master does not follow",
        )
        d.must(
            "lost:" not in old.cli("KEYS", "*"),
            "the old master kept what it was written while it was cut off: no full resync",
        )
    d.figure(f"answers {dict(sorted(watch.statuses.items()))}")
    judge(d, watch, a)
    d.must(all(a.auth(t).status == 200 for t in mine[len(mine) // 2:]), "a session is lost")


@drill(
    "sentinel-cut",
    "Sentinel: the master cut off from all but us; ends at the old and at the new one; healed "
    "after 12 s",
)
def sentinel_cut(d):
    g = group_of(d, SentinelGroup, down_after_ms=2000)
    w, a, b, tokens = start(d, g)
    old = g.master()
    play_cut(d, g, old, lambda: g.master() not in (None, old), tokens, a, b, w, 12)


def calls(server):
    """Of the commands by which sessions are asked for and ended. A replica that follows runs none
    of them."""
    stats = server.cli("INFO", "commandstats").split()
    return sum(
        int(line.split("calls=")[1].split(",")[0])
        for line in stats
        if line.split(":")[0] in ("cmdstat_mget", "cmdstat_get", "cmdstat_eval", "cmdstat_evalsha")
    )


@drill(
    "sentinel-planned",
    "Sentinel: a planned failover; the old master goes on answering for ten seconds",
)
def sentinel_planned(d):
    g = group_of(d, SentinelGroup, down_after_ms=2000)
    w, a, b, tokens = start(d, g)
    watch, old = Watch(a, tokens), g.master()
    at = now()
    g.fail_over()
    d.figure(f"named by a majority after {now() - at:.1f} s")
    poll(lambda: end_some(b, tokens[:1], watch) == 1, 10, "an end at the new master")
    end_some(b, tokens[1:30], watch)
    old_knows = calls(old)
    time.sleep(12)
    d.must(
        calls(old) == old_knows,
        f"{calls(old) - old_knows} scripts and reads of ours at the old master after the majority "
        "named the new one",
    )
    watch.end()
    d.figure(f"answers {dict(sorted(watch.statuses.items()))}")
    judge(d, watch, a)


def sentinel_planned_ends(d, replicas):
    """The old master takes ends for a second after the new one is one, and the replica that was not
    promoted confirms them: that must not be enough, whatever is set."""
    g = group_of(d, SentinelGroup, down_after_ms=2000)
    w, a, b, tokens = start(d, g, tokens=200, redis__replicas=str(replicas))
    watch, left, over = Watch(a, tokens), iter(tokens[:190]), []

    def fail_over():
        g.fail_over()
        over.append(now())
    thread = threading.Thread(target=fail_over, daemon=True)
    thread.start()
    while not over or now() < over[0] + 1:
        t = next(left, None)
        if t is None:
            break
        end_some(b, [t], watch)
        time.sleep(0.01)
    thread.join()
    time.sleep(3)
    watch.end()
    acknowledged = [t for t, when in watch.ended.items() if when]
    poll(lambda: a.auth(tokens[-1]).status == 200, 10, "back")
    undone = sum(a.auth(t).status == 200 for t in acknowledged)
    d.figure(
        f"replicas = {replicas}: {len(acknowledged)} of {len(watch.ended)} ends acknowledged, "
        f"{undone} undone"
    )
    d.must(acknowledged, "no end was acknowledged: this drill shows nothing")
    d.must(undone == 0, f"{undone} acknowledged ends were undone")


@drill(
    "sentinel-planned-ends",
    "Sentinel: ends all through a planned failover, which both replicas must have",
)
def sentinel_planned_ends_of_each(d):
    sentinel_planned_ends(d, 2)


@drill("sentinel-planned-ends-1", "the same with replicas = 1")
def sentinel_planned_ends_of_one(d):
    sentinel_planned_ends(d, 1)


def owned_by(g, server, tokens):
    nodes = {(n[0].host): n for n in g.nodes()}
    ranges = [tuple(map(int, (r.split("-") * 2)[:2])) for r in nodes[server.host][4]]
    return [t for t in tokens if any(a <= g.slot(t) <= b for a, b in ranges)]


def cluster_cut(d, node_timeout_ms, seconds):
    g = group_of(d, Cluster, replicas=2, node_timeout_ms=node_timeout_ms)
    w, a, b, tokens = start(d, g, tokens=120)
    old = g.servers[0]
    mine = owned_by(g, old, tokens)
    replicas = g.replicas_of(old)
    play_cut(d, g, old, lambda: any("master" in r.role() for r in replicas), mine, a, b, w, seconds)


@drill(
    "cluster-cut",
    "Cluster, node-timeout 2 s: a master cut off from all but us; ends at the old and at the new "
    "one; healed after 12 s",
)
def cluster_cut_2(d):
    cluster_cut(d, 2000, 12)


@drill("cluster-cut-15", "the same with node-timeout 15 s, healed after 40 s")
def cluster_cut_15(d):
    cluster_cut(d, 15000, 40)


@drill("cluster-planned", "Cluster: CLUSTER FAILOVER twenty times under load")
def cluster_planned(d):
    g = group_of(d, Cluster, replicas=1)
    w = d.wxfake()
    s = d.server(None, w, redis__url=g.url(), **PATIENT, redis__replicas="0")
    load = d.load(s, stale_s=0.2)
    since = now()
    for i in range(20):
        master = g.masters()[i % 3]
        d.must("OK" in g.replicas_of(master)[0].cli("CLUSTER", "FAILOVER"), "no failover")
        time.sleep(4.5)
    d.good_again(load, since, 1.0)
    d.end_load(load)


def play_death(d, g, old, elected, freeze):
    """Under load; back two seconds after the election. A frozen one is thawed after 12 s: it must
    not be written to, nor believed."""
    w = d.wxfake()
    s = d.server(None, w, redis__url=g.url(), **PATIENT)
    load = d.load(s, stale_s=0.2, codes=1500)
    at = now()
    old.signal(signal.SIGSTOP) if freeze else old.kill()
    poll(elected, 20, "an election")
    seen = now()
    poll(s.ready, 3, "ready")
    d.figure(f"elected after {seen - at:.1f} s, ready {now() - seen:.1f} s later")
    time.sleep(max(0.0, seen + 2 - now()))
    since = now()
    time.sleep(max(5.0, at + 12 - now() if freeze else 0))
    if freeze:
        old.signal(signal.SIGCONT)
        time.sleep(0.5)
        before = calls(old) if "master" in old.role() else 0
        time.sleep(4)
        d.must("master" not in old.role() or calls(old) == before, "the thawed master is spoken to")
    odd = {k: n for k, n in load.bad(at).items() if " 503" not in k}
    d.figure(f"{sum(load.bad(at, since).values())} answers 503 of {len(load.between(at, since))}")
    d.must(not odd, f"other answers than 503: {odd}")
    d.good_again(load, since)
    d.end_load(load)


def cluster_death(d, freeze):
    g = group_of(d, Cluster, replicas=2)
    # the node that is asked may not have heard of both yet
    poll(lambda: len(g.replicas_of(g.servers[0])) == 2, 20, "both replicas")
    replicas = g.replicas_of(g.servers[0])
    play_death(d, g, g.servers[0], lambda: any("master" in r.role() for r in replicas), freeze)


@drill("cluster-kill", "Cluster, node-timeout 2 s: a master killed, under load")
def cluster_kill(d):
    cluster_death(d, False)


@drill("cluster-freeze", "Cluster, node-timeout 2 s: a master stands still for 12 s, under load")
def cluster_freeze(d):
    cluster_death(d, True)


@drill("cluster-reshard", "Cluster: 3,000 slots move under load")
def cluster_reshard(d):
    g = group_of(d, Cluster, replicas=0)
    w = d.wxfake()
    s = d.server(
        None, w, redis__url=g.url(), **PATIENT, redis__replicas="0", session__cache_entries="0"
    )
    load = d.load(s, stale_s=0.2, codes=3000)
    ids = {n[0].host: n[3] for n in g.nodes()}
    since = now()
    one, two = g.servers[:2]
    out = subprocess.run(
        [
            "redis-cli", "--cluster", "reshard", f"{one.host}:{one.port}", "--cluster-from",
            ids[one.host], "--cluster-to", ids[two.host], "--cluster-slots", "3000",
            "--cluster-yes",
        ],
        capture_output=True, text=True,
    )
    d.must(out.returncode == 0, out.stdout[-300:])
    d.figure(
        f"{now() - since:.1f} s, verify p99 {load.percentile(0.99, since, kind='verify'):.1f} ms, "
        f"{s.metric('wxlogind_redis_redirections_total'):.0f} redirections"
    )
    d.good_again(load, since, 1.0)
    d.end_load(load)


def sentinel_death(d, freeze):
    g = group_of(d, SentinelGroup, down_after_ms=2000)
    old = g.master()
    play_death(d, g, old, lambda: g.master() not in (None, old), freeze)


@drill("sentinel-kill", "Sentinel, down-after 2 s: the master killed, under load")
def sentinel_kill(d):
    sentinel_death(d, False)


@drill("sentinel-freeze", "Sentinel, down-after 2 s: the master stands still for 12 s, under load")
def sentinel_freeze(d):
    sentinel_death(d, True)


def play_old_side(d, g, old, elected, mine, a, b, aside, seconds):
    """We are cut off with the old master; another process of ours is not, and ends sessions at the
    new one."""
    watch = Watch(a, mine)
    others = [s for s in g.everybody() if s is not old]
    at = now()
    cut = Cut(old, others)
    aside.cut(others)
    d.closing.callback(lambda: cut.heal())
    poll(elected, 60, "an election")
    d.figure(f"elected after {now() - at:.1f} s")
    poll(lambda: end_some(b, mine[:1], watch) == 1, 10, "an end at the new master")
    end_some(b, mine[1:len(mine) // 2], watch)
    time.sleep(max(0.0, at + seconds - now()))
    cut.heal()
    aside.heal()
    poll(lambda: a.auth(mine[-1]).status == 200, 20, "back")
    time.sleep(12)
    watch.end()
    d.figure(f"answers {dict(sorted(watch.statuses.items()))}")
    judge(d, watch, a)
    d.must(all(a.auth(t).status == 200 for t in mine[len(mine) // 2:]), "a session is lost")


def cluster_old_side(d, node_timeout_ms, seconds):
    g, aside = group_of(d, Cluster, replicas=2, node_timeout_ms=node_timeout_ms), Aside()
    d.closing.callback(aside.heal)
    w, a, b, tokens = start(d, g, tokens=120, join=aside.join)
    old = g.servers[0]
    replicas = g.replicas_of(old)
    play_old_side(
        d, g, old, lambda: any("master" in r.role() for r in replicas), owned_by(g, old, tokens), a,
        b, aside, seconds,
    )


@drill(
    "cluster-old-side",
    "Cluster, node-timeout 2 s: a master cut off, and we with it; healed after 12 s",
)
def cluster_old_side_2(d):
    cluster_old_side(d, 2000, 12)


@drill("cluster-old-side-15", "the same with node-timeout 15 s, healed after 40 s")
def cluster_old_side_15(d):
    cluster_old_side(d, 15000, 40)


@drill("sentinel-old-side", "Sentinel: the master cut off, and we with it; healed after 12 s")
def sentinel_old_side(d):
    g, aside = group_of(d, SentinelGroup, down_after_ms=2000), Aside()
    d.closing.callback(aside.heal)
    w, a, b, tokens = start(d, g, join=aside.join)
    old = g.master()
    play_old_side(
        d, g, old, lambda: any("master" in s.role() for s in g.servers if s is not old), tokens, a,
        b, aside, 12,
    )


@drill("cluster-force", "Cluster: CLUSTER FAILOVER FORCE six times, under logins and ends")
def cluster_force(d):
    g = group_of(d, Cluster, replicas=2)
    w, a, b, tokens = start(d, g, tokens=150)
    watch, born, stop = Watch(a, tokens), [], False

    def log_in():
        while not stop:
            x = b.login(w.code())
            born.extend([x.token] if x.status == 200 else [])
            time.sleep(0.01)  # each of them is asked for at the end
    phone = threading.Thread(target=log_in, daemon=True)
    phone.start()
    left, acknowledged = iter(tokens), 0
    for i in range(6):
        master = g.masters()[i % 3]
        replica = g.replicas_of(master)[0]
        forcing = threading.Thread(
            target=lambda: replica.cli("CLUSTER", "FAILOVER", "FORCE"), daemon=True
        )
        forcing.start()
        for t in [next(left) for _ in range(20)]:  # before, in and after it
            acknowledged += end_some(b, [t], watch)
        forcing.join()
        poll(lambda: "master" in replica.role(), 10, "a new master")
        time.sleep(4.5)
    stop = True
    phone.join(20)
    watch.end()
    lost = sum(a.auth(t).status == 401 for t in born)
    d.figure(
        f"{acknowledged} of 120 ends acknowledged; {lost} of {len(born)} logins lost, which nobody "
        "confirmed"
    )
    judge(d, watch, a)


@drill("cluster-taken", "Cluster: slots are given to another master while their keys stay behind")
def cluster_taken(d):
    g = group_of(d, Cluster, replicas=1)
    w, a, b, tokens = start(d, g, tokens=60)
    ids = {n[0].host: n[3] for n in g.nodes()}
    mine = owned_by(g, g.servers[0], tokens)[:10]
    taker, when = g.servers[1], {}
    slots = {t: g.slot(t) for t in tokens}
    taken = {slots[t] for t in mine}
    for t in mine:
        slot = slots[t]
        taker.cli("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[g.servers[0].host])
        d.must("OK" in taker.cli("CLUSTER", "SETSLOT", slot, "NODE", ids[taker.host]), "not taken")
        when[t] = now()
    latest = 0.0
    while now() < max(when.values()) + 14:
        for t in mine:
            asked = now()
            if a.auth(t).status == 200:
                latest = max(latest, asked - when[t])
    d.figure(f"{len(mine)} sessions whose slot was taken: latest 200 after {latest * 1000:.0f} ms")
    d.must(latest <= 12.5, f"a 200 {latest:.1f} s after the slot was taken")
    d.must(all(a.auth(t).status == 401 for t in mine), "a session that is nowhere is answered")
    d.must(
        all(a.auth(t).status == 200 for t in tokens if slots[t] not in taken),
        "another session is lost",
    )
