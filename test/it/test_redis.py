"""Redis goes away: 503, never a hang, never "not logged in"; and is back by itself."""
import re
import signal

import sys
import time

import pytest

from conftest import APPID, ROOT, free_port, poll

sys.path.insert(0, str(ROOT / "test" / "drill"))
from proxy import Proxy  # noqa: E402


def test_killed_and_back(server, redis, wxfake):
    token = server.login(wxfake.code()).token
    redis.kill()
    poll(lambda: not server.ready(), 2, "not ready")
    for a in (
        server.auth(token), server.session(token), server.login(wxfake.code()),
        server.session(token, "DELETE"),
    ):
        assert (
            (a.status, a.error) == (503, "store_unavailable")
            and a.seconds < 0.8
            and a.headers["Retry-After"] == "1"
        ), a
    assert wxfake.calls() == 1  # no code is spent on a login that cannot be kept
    redis.start()
    poll(server.ready, 2, "ready again")
    assert server.auth(token).status == 200
    assert server.login(wxfake.code()).status == 200


def test_frozen(server, redis, wxfake):
    token = server.login(wxfake.code()).token
    redis.signal(signal.SIGSTOP)
    a = server.auth(token)
    assert (a.status, a.error) == (503, "store_unavailable") and a.seconds < 1.5, a
    poll(lambda: not server.ready(), 2, "not ready")
    redis.signal(signal.SIGCONT)
    poll(server.ready, 3, "ready again")
    assert server.auth(token).status == 200


def test_away_at_start(stack, redis, wxfake):
    redis.kill()
    server = stack.server(redis, wxfake, wait=False)
    assert server.inside("GET", "/readyz").status == 503
    assert server.login(wxfake.code()).error == "store_unavailable"
    redis.start()
    poll(server.ready, 3, "ready")
    assert server.login(wxfake.code()).status == 200


def test_password_user_db_and_socket(stack, wxfake):
    redis = stack.redis(
        "--requirepass", "p@ss/w%rd", "--user", "app", "on", ">apppass", "~*", "&*", "+@all"
    )
    for url in (
        f"redis://:p%40ss%2Fw%25rd@127.0.0.1:{redis.port}/3",
        f"redis://app:apppass@127.0.0.1:{redis.port}",
    ):
        server = stack.server(redis, wxfake, redis__url=url, redis__timeout="5s")
        assert server.login(wxfake.code()).status == 200
    server = stack.server(
        redis, wxfake, redis__url=f"unix://{redis.socket}?db=2", redis__password="p@ss/w%rd",
        redis__timeout="5s",
    )
    assert server.login(wxfake.code()).status == 200
    wrong = stack.server(
        redis, wxfake, wait=False, redis__url=f"redis://:secret-nope@127.0.0.1:{redis.port}"
    )
    assert wrong.login(wxfake.code()).error == "store_unavailable"
    assert "secret-nope" not in wrong.process.text()


def test_rights_that_the_documents_name(stack, wxfake):
    """The Redis user of docs/operations.md may do all that wxlogind asks, and nothing is
    refused."""
    line = re.search(r"^user wxlogind (.*)$", (ROOT / "docs" / "operations.md").read_text(), re.M)[
        1
    ]
    redis = stack.redis("--user", "wxlogind", *line.split())
    server = stack.server(
        redis, wxfake, redis__url=f"redis://wxlogind:password@127.0.0.1:{redis.port}",
        session__ttl="3s", session__max_per_user="2",
    )
    token = [server.login(wxfake.code(openid="oTheSame")).token for _ in range(3)][2]
    poll(
        lambda: server.auth(token).status == 200
        and server.metric("wxlogind_session_cache_total", result="hit"),
        3, "an answer from memory",
    )
    poll(
        lambda: server.session(token).status == 200
        and re.search(r"\d\|\d+\|\d*\|wx", redis.written()),
        3, "a renewal",
    )
    assert (
        server.session(token, "DELETE").status == 204
        and server.auth(token).json["reason"] == "logged_out"
    )
    assert server.inside("DELETE", f"/internal/apps/{APPID}/users/oTheSame/sessions").status == 204
    assert "NOPERM" not in redis.cli("INFO", "errorstats") and server.ready()


@pytest.fixture
def pair(stack):
    """A master and its replica behind one name: connections that are made from now on go to
    `target`, the old ones stay where they are."""
    class Pair(Proxy):
        def __init__(self):
            self.old, self.new = (stack.redis("--repl-diskless-sync-delay", "0") for _ in range(2))
            self.new.cli("REPLICAOF", "127.0.0.1", self.old.port)
            poll(
                lambda: "master_link_status:up" in self.new.cli("INFO", "replication"),
                what="the replica follows",
            )
            super().__init__(self.old.port)
            self.url = f"redis://127.0.0.1:{self.port}/0"

        def caught_up(self):
            poll(
                lambda: self.new.cli("DBSIZE") == self.old.cli("DBSIZE"),
                what="the replica has it all",
            )

        def fail_over(self):
            """As a planned failover does it; but the old master does not reach the new one, and so
            keeps its data as it is. The moment the old master was one no longer."""
            self.caught_up()
            self.new.cli("REPLICAOF", "NO", "ONE")
            self.target = self.new.port
            self.old.cli("REPLICAOF", "127.0.0.1", 1)
            return time.monotonic()

    p = Pair()
    yield p
    p.close()


@pytest.mark.parametrize("entries", ["0", "1000"])
def test_planned_failover_behind_a_name(stack, pair, wxfake, entries):
    """A process that only reads leaves the demoted master, whether it asks Redis or its memory:
    within 1.5 s of the demotion."""
    reader = stack.server(None, wxfake, redis__url=pair.url, session__cache_entries=entries)
    tokens = [reader.login(wxfake.code()).token for _ in range(4)]
    if entries != "0":
        poll(
            lambda: reader.auth(tokens[0]).status == 200
            and reader.metric("wxlogind_session_cache_total", result="hit"),
            what="memory in use",
        )
    demoted = pair.fail_over()
    writer = stack.server(pair.new, wxfake, session__cache_entries="0")
    for token in tokens[1:]:
        assert writer.session(token, "DELETE").status == 204
    while time.monotonic() < demoted + 3:
        asked = time.monotonic()
        for token in tokens[1:]:
            status = reader.auth(token).status
            assert (
                status in (401, 503) or asked < demoted + 1.5
            ), f"{status} {asked - demoted:.2f} s after the demotion"
    poll(reader.ready, 3, "ready at the new master")
    assert reader.auth(tokens[0]).status == 200 and reader.auth(tokens[1]).status == 401


def connection_ids(redis, name):
    return [
        line.split()[0][3:]
        for line in redis.cli("CLIENT", "LIST").splitlines()
        if f"name={name} " in line
    ]


def test_both_connections_are_to_one_server(stack, pair, wxfake):
    """The commands connection moves to another master: the invalidation connection follows, or
    memory would believe the wrong one."""
    pair.new.cli("REPLICAOF", "NO", "ONE")
    server = stack.server(None, wxfake, redis__url=pair.url)
    assert poll(lambda: connection_ids(pair.old, "wxlogind-invalidation"))
    pair.target = pair.new.port
    pair.old.cli("CLIENT", "KILL", "ID", connection_ids(pair.old, "wxlogind")[0])
    poll(
        lambda: connection_ids(pair.new, "wxlogind")
        and connection_ids(pair.new, "wxlogind-invalidation"),
        what="both at the new one",
    )
    poll(lambda: not connection_ids(pair.old, "wxlogind-invalidation"), what="none left behind")
    pair.target = pair.old.port  # and the other way about
    pair.new.cli("CLIENT", "KILL", "ID", connection_ids(pair.new, "wxlogind-invalidation")[0])
    poll(
        lambda: connection_ids(pair.old, "wxlogind")
        and connection_ids(pair.old, "wxlogind-invalidation"),
        what="both back",
    )
    poll(server.ready)


def test_a_replica_is_steadily_not_ready(stack, pair, wxfake):
    server = stack.server(pair.new, wxfake, wait=False)
    poll(lambda: "replica" in server.inside("GET", "/readyz").json["message"], what="it says why")
    for _ in range(100):
        a = server.inside("GET", "/readyz")
        assert a.status == 503 and "this is a replica, of 127.0.0.1" in a.json["message"], a
    assert server.login(wxfake.code()).error == "store_unavailable" and wxfake.calls() == 0


def test_redis_cannot_save(stack, wxfake):
    """MISCONF: reads go on, writes are refused, and the log says why; also for a process that
    connects then."""
    redis = stack.redis("--dbfilename", "taken")
    first = stack.server(redis, wxfake, session__cache_entries="0")
    token = first.login(wxfake.code()).token
    (redis.dir / "taken").mkdir()
    redis.cli("CONFIG", "SET", "save", "3600 1")
    redis.cli("BGSAVE")
    poll(lambda: "MISCONF" in redis.cli("SET", "x", "y"), what="writes are refused")
    second = stack.server(redis, wxfake, session__cache_entries="0")
    for server in (first, second):
        for _ in range(20):
            assert server.auth(token).status == 200 and server.ready()
        assert server.login(wxfake.code()).error == "store_unavailable"
        assert "MISCONF" in server.process.text()
    redis.cli("CONFIG", "SET", "save", "")
    assert poll(lambda: first.login(wxfake.code()).status == 200)


def test_words_at_the_door(stack, wxfake):
    redis = stack.redis("--maxclients", "2")
    server = stack.server(
        redis, wxfake, wait=False, redis__url=f"redis://127.0.0.1:{redis.port}/0",
        session__cache_entries="0",
    )
    poll(server.ready)
    crowded = stack.redis("--maxclients", "1")
    late = stack.server(
        crowded, wxfake, wait=False, redis__url=f"unix://{crowded.socket}",
        session__cache_entries="10",
    )
    poll(lambda: "max number of clients reached" in late.process.text(), what="in Redis' words")
    for url, words in ((f"redis://127.0.0.1:{redis.port}/99", "DB index is out of range"),
                       (f"redis://:secret-nope@127.0.0.1:{redis.port}/0", "without any password")):
        redis.cli("CONFIG", "SET", "maxclients", "100")
        refused = stack.server(redis, wxfake, wait=False, redis__url=url)
        poll(lambda: words in refused.inside("GET", "/readyz").json["message"], what=words)
        assert words in refused.process.text() and "secret-nope" not in refused.process.text()


def test_a_node_of_a_cluster_is_no_redis(stack, wxfake):
    node = stack.redis("--cluster-enabled", "yes", "--cluster-port", free_port())
    node.cli("CLUSTER", "ADDSLOTSRANGE", "0", "8000")
    node.cli("CONFIG", "SET", "cluster-require-full-coverage", "no")
    poll(lambda: "cluster_state:ok" in node.cli("CLUSTER", "INFO"))
    server = stack.server(node, wxfake, wait=False)
    poll(
        lambda: "cluster://" in server.inside("GET", "/readyz").json["message"],
        what="it says what to write",
    )
    assert server.login(wxfake.code()).error == "store_unavailable" and wxfake.calls() == 0


def test_an_invalidation_of_many_keys(stack, redis, wxfake):
    """A message longer than we care to read empties the memory and no more."""
    server = stack.server(redis, wxfake, redis__timeout="5s")
    token = server.login(wxfake.code()).token
    poll(
        lambda: server.auth(token).status == 200
        and server.metric("wxlogind_session_cache_total", result="hit"),
        what="memory in use",
    )
    ids = connection_ids(redis, "wxlogind-invalidation")
    redis.cli(
        "EVAL", "for i = 1, 20000 do redis.call('SET', 'wxlogin:s:{AAA}:' .. i, '', 'EX', 100) end",
        "0",
    )
    hits = server.metric("wxlogind_session_cache_total", result="hit")
    poll(
        lambda: server.auth(token).status == 200
        and server.metric("wxlogind_session_cache_total", result="hit") > hits,
        what="memory in use again",
    )
    assert connection_ids(redis, "wxlogind-invalidation") == ids
    assert "redis connection lost" not in server.process.text()
