"""cluster://: each session is asked for where its slot is; who loses a slot is believed no
longer."""
import re
import signal
import time

import pytest

from conftest import APPID, ROOT, poll
from redis_groups import Cluster


@pytest.fixture
def cluster(tmp_path):
    made = []

    def make(**kw):
        made.append(Cluster(tmp_path / f"cluster{len(made)}", **kw))
        return made[-1]
    yield make
    for c in made:
        c.stop()


def good(server, token):
    return server.auth(token).status == 200


tag_of = Cluster.tag_of


def test_login_check_memory_and_end(stack, cluster, wxfake):
    c = cluster()
    a, b = (stack.server(None, wxfake, redis__url=c.url(), redis__timeout="5s") for _ in range(2))
    tokens = a.logged_in(wxfake, 40)  # so many that each master has some
    owners = {c.owner("{" + tag_of(t) + "}").host for t in tokens}
    assert len(owners) == 3
    for t in tokens:
        poll(
            lambda: good(b, t) and b.metric("wxlogind_session_cache_total", result="hit"),
            what="answered",
        )
    hits = b.metric("wxlogind_session_cache_total", result="hit")
    poll(
        lambda: all(good(b, t) for t in tokens)
        and b.metric("wxlogind_session_cache_total", result="hit") >= hits + 30,
        30, "from memory",
    )
    for t in tokens[:6]:
        a.end(t)
        poll(lambda: b.auth(t).status == 401, 3, "ended on B")
        assert b.auth(t).json["reason"] == "logged_out"
    assert a.metric("wxlogind_redis_nodes", state="ready") == 3


@pytest.mark.parametrize("fault", ["kill", "freeze", "planned"])
def test_failover(stack, cluster, wxfake, fault):
    c = cluster()
    reader, other = (stack.server(None, wxfake, redis__url=c.url()) for _ in range(2))
    tokens = reader.logged_in(wxfake, 24)
    old = c.owner("{" + tag_of(tokens[0]) + "}")
    mine = [t for t in tokens if c.owner("{" + tag_of(t) + "}") is old]
    others = [t for t in tokens if t not in mine]
    new = c.replicas_of(old)[0]
    if fault == "planned":
        assert "OK" in new.cli("CLUSTER", "FAILOVER")
    else:
        old.kill() if fault == "kill" else old.signal(signal.SIGSTOP)

    def elected():
        assert reader.auth(mine[0]).status in (200, 503)
        assert reader.auth(others[0]).status == 200, "another master's slots are untouched"
        return "master" in new.role()
    poll(elected, 20, "an election")
    at = time.monotonic()
    poll(lambda: good(reader, mine[0]) and good(other, mine[0]), 10, "back after the election")
    other.file.write_text(other.file.read_text().replace("[redis]", "[redis]\nreplicas = 0"))
    other.process.signal(signal.SIGHUP)
    if fault == "freeze":
        old.signal(signal.SIGCONT)
    victim = mine[1] if len(mine) > 1 else mine[0]
    poll(lambda: other.session(victim, "DELETE").status == 204, 10, "ended at the new master")
    ended = time.monotonic()
    while time.monotonic() < at + 3:
        asked = time.monotonic()
        assert reader.auth(victim).status in (401, 503) or asked < ended + 0.7
        time.sleep(0.002)
    poll(
        lambda: all(good(reader, t) for t in others + [t for t in mine if t != victim]), 20,
        "nothing else is lost",
    )


def test_the_map_is_asked_for_again_after_a_new_epoch(stack, cluster, wxfake):
    """The first map after it may be of the time before the election was over; the next one came ten
    seconds later."""
    c = cluster()
    stack.server(None, wxfake, redis__url=c.url())

    def asked():
        calls = (
            re.search(r"cmdstat_cluster\|slots:calls=(\d+)", s.cli("INFO", "commandstats"))
            for s in c.servers
        )
        return sum(int(m[1]) for m in calls if m)
    before = asked()
    poll(lambda: asked() >= before + 6, 7, "six more maps")


def test_reshard(stack, cluster, wxfake):
    """Slots move under way: nobody notices, nothing is lost."""
    import subprocess
    c = cluster(replicas=0)
    server = stack.server(
        None, wxfake, redis__url=c.url(), redis__replicas="0", session__cache_entries="0",
        redis__timeout="2s",
    )
    tokens = server.logged_in(wxfake, 60)
    ids = {n[0].host: n[3] for n in c.nodes()}
    src, dst = c.servers[0], c.servers[1]
    p = subprocess.Popen(
        [
            "redis-cli", "--cluster", "reshard", f"{src.host}:{src.port}", "--cluster-from",
            ids[src.host], "--cluster-to", ids[dst.host], "--cluster-slots", "1500",
            "--cluster-yes",
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    bad, n = {}, 0
    while p.poll() is None:
        for t in tokens[:50]:
            s = server.auth(t).status
            n += 1
            bad[s] = bad.get(s, 0) + 1
        s = server.login(wxfake.code()).status
        bad[f"login {s}"] = bad.get(f"login {s}", 0) + 1
    assert set(bad) == {200, "login 200"}, bad
    assert server.metric("wxlogind_redis_redirections_total") > 0
    for t in tokens:
        assert good(server, t)
    for t in tokens[:30]:
        server.end(t)
        assert server.auth(t).status == 401


def test_a_slot_held_half_moved(stack, cluster, wxfake):
    """A script is never sent to a node that does not have the slot yet: an end that is acknowledged
    is one, and nothing leaves the index."""
    c = cluster(replicas=0)
    server = stack.server(
        None, wxfake, redis__url=c.url(), redis__replicas="0", session__cache_entries="0"
    )
    for first in ("index", "sessions", "nothing"):
        user, sessions = f"o-{first}", f"/internal/apps/{APPID}/users/o-{first}/sessions"

        def logged_in():  # the nodes may not agree yet on the slot that moved before
            a = server.login(wxfake.code(openid=user))
            return a.status == 200 and a.token
        tokens = [poll(logged_in, 5, "a login") for _ in range(5)]
        src, dst, slot, ids = half_move(c, tokens[0])
        keys = src.cli("CLUSTER", "GETKEYSINSLOT", slot, 100).split()
        index = next(k for k in keys if ":u:" in k)
        members, rest = int(src.cli("ZCARD", index)), [k for k in keys if k != index]
        for moved in {
            "index": ([index], rest), "sessions": (rest[:2], rest[2:]), "nothing": ([], [index]),
        }[first]:
            if moved:
                assert "OK" in src.cli("MIGRATE", dst.host, dst.port, "", 0, 5000, "KEYS", *moved)
            for a in (
                server.session(tokens[0], "DELETE"), server.inside("DELETE", sessions),
                server.login(wxfake.code(openid=user)),
            ):
                assert a.status == 503 and a.seconds < 0.5 * 1.1 + 0.5, a
            listed = server.inside("GET", sessions)
            assert listed.status == 503 or (
                first == "nothing" and len(listed.json["sessions"]) == 5
            ), listed
            assert [server.auth(t).status for t in tokens] == [200] * 5
        assert (
            server.metric("wxlogind_redis_redirections_total", kind="ask") > 0 or first == "index"
        )
        left = src.cli("CLUSTER", "GETKEYSINSLOT", slot, 100).split()
        assert not left or "OK" in src.cli(
            "MIGRATE", dst.host, dst.port, "", 0, 5000, "KEYS", *left
        )
        for s in (dst, src):
            s.cli("CLUSTER", "SETSLOT", slot, "NODE", ids[dst.host])
        poll(lambda: server.login(wxfake.code(openid=user)).status == 200, 5, "logins again")
        assert int(dst.cli("ZCARD", index)) >= members + 1, "members of the index are lost"
        server.end(tokens[0])
        assert [server.auth(t).status for t in tokens] == [401, 200, 200, 200, 200]
        assert server.inside("DELETE", sessions).status == 204
        assert [server.auth(t).status for t in tokens] == [401] * 5


def half_move(c, token):
    """The slot of a session stands open, and nothing has moved. Source, target, slot, ids."""
    src = c.owner("{" + tag_of(token) + "}")
    dst = next(s for s in c.servers if s is not src)
    ids = {n[0].host: n[3] for n in c.nodes()}
    slot = c.slot(token)
    dst.cli("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[src.host])
    src.cli("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[dst.host])
    return src, dst, slot, ids


def calls(node, name):
    line = next(
        (x for x in node.cli("INFO", "commandstats").split() if x.startswith(f"cmdstat_{name}:")),
        "calls=0,",
    )
    return int(line.split("calls=")[1].split(",")[0])


def test_one_node_forgets_its_scripts(stack, cluster, wxfake):
    """Nobody notices, and each text travels once."""
    c = cluster(replicas=0)
    server = stack.server(
        None, wxfake, redis__url=c.url(), redis__replicas="0", session__cache_entries="0",
        redis__timeout="2s",
    )
    for _ in range(60):
        assert server.login(wxfake.code()).status == 200
    forgetful = c.servers[0]
    for s in c.servers:
        s.cli("CONFIG", "RESETSTAT")
    forgetful.cli("SCRIPT", "FLUSH")
    for _ in range(200):
        assert server.login(wxfake.code()).status == 200
    assert [calls(s, "eval") > 0 for s in c.servers] == [True, False, False]
    assert calls(forgetful, "eval") <= 6 and sum(calls(s, "evalsha") for s in c.servers) >= 200


def test_rights_that_the_documents_name(stack, cluster, wxfake):
    """The Redis user of docs/operations.md may do all that a cluster takes: its map, WAIT,
    ASKING."""
    line = re.search(r"^user wxlogind (.*)$", (ROOT / "docs" / "operations.md").read_text(), re.M)[
        1
    ]
    c = cluster(args=["--user", "wxlogind", *line.split()])
    server = stack.server(None, wxfake, redis__url=c.url("wxlogind:password@"))
    tokens = [server.login(wxfake.code()).token for _ in range(8)]
    poll(
        lambda: all(server.auth(t).status == 200 for t in tokens)
        and server.metric("wxlogind_session_cache_total", result="hit"),
        what="from memory",
    )
    server.end(tokens[0])  # WAIT
    reader = stack.server(
        None, wxfake, redis__url=c.url("wxlogind:password@"), session__cache_entries="0"
    )
    src, dst, slot, _ = half_move(c, tokens[1])
    moved = [k for k in src.cli("CLUSTER", "GETKEYSINSLOT", slot, 100).split() if ":s:" in k]
    assert "OK" in src.cli("MIGRATE", dst.host, dst.port, "", 0, 5000, "KEYS", *moved)
    # ASKING
    assert (
        reader.auth(tokens[1]).status == 200
        and reader.metric("wxlogind_redis_redirections_total", kind="ask") > 0
    )
    assert (
        not [s.host for s in c.servers if "NOPERM" in s.cli("INFO", "errorstats")]
        and server.ready()
    )
