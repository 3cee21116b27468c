"""sentinel://: whoever the majority of the sentinels names is asked, and nobody else is
believed."""
import signal
import time

import pytest

from conftest import call, poll
from redis_groups import SentinelGroup


@pytest.fixture
def group(tmp_path):
    made = []

    def make(**kw):
        made.append(SentinelGroup(tmp_path / f"group{len(made)}", **kw))
        return made[-1]
    yield make
    for g in made:
        g.stop()


def good(server, token):
    return server.auth(token).status == 200


def test_login_check_memory_and_end(stack, group, wxfake):
    g = group()
    a, b = (stack.server(None, wxfake, redis__url=g.url()) for _ in range(2))
    [token] = a.logged_in(wxfake)
    poll(
        lambda: good(b, token) and b.metric("wxlogind_session_cache_total", result="hit"),
        what="answered from memory",
    )
    a.end(token)
    poll(lambda: b.auth(token).status == 401, 0.5, "ended on B")


def test_passwords_and_database(stack, group, wxfake):
    g = group(password="redis-pw", sentinel_password="sentinel-pw")
    server = stack.server(
        None, wxfake, redis__url=g.url(login=":redis-pw@", db="/3"),
        redis__sentinel_password="sentinel-pw",
    )
    assert server.login(wxfake.code()).status == 200
    assert "db3" in g.master().cli("INFO", "keyspace")
    wrong = stack.server(
        None, wxfake, wait=False, redis__url=g.url(login=":redis-pw@"),
        redis__sentinel_password="no-pw",
    )
    poll(lambda: "WRONGPASS" in wrong.process.text(), what="the sentinels' word")
    assert "0 of 3 sentinels answer" in wrong.inside("GET", "/readyz").json["message"]
    assert not [
        w
        for w in ("redis-pw", "no-pw", "sentinel-pw")
        if w in wrong.process.text() + server.process.text()
    ]


@pytest.mark.parametrize("fault", ["kill", "freeze", "planned"])
def test_failover(stack, group, wxfake, fault):
    """503 meanwhile, never a 401; back after the election (the drills measure how soon); nothing of
    the old master's word is believed after it."""
    g = group()
    reader, other = (stack.server(None, wxfake, redis__url=g.url()) for _ in range(2))
    tokens = reader.logged_in(wxfake, 8)
    old = g.master()
    poll(
        lambda: all(r.cli("DBSIZE") == old.cli("DBSIZE") for r in g.replicas()),
        what="the replicas have it all",
    )
    if fault == "planned":
        g.fail_over()
    else:
        old.kill() if fault == "kill" else old.signal(signal.SIGSTOP)
        seen = set()
        poll(
            lambda: seen.add(reader.auth(tokens[0]).status) or g.master() not in (None, old), 20,
            "an election",
        )
        assert seen <= {200, 503}
    elected = time.monotonic()
    poll(lambda: good(reader, tokens[0]) and good(other, tokens[0]), 10, "back after the election")
    poll(lambda: other.session(tokens[1], "DELETE").status == 204, 20, "ended at the new master")
    ended = time.monotonic()
    if fault == "freeze":
        old.signal(signal.SIGCONT)  # for ten seconds it answers as a master does
    while time.monotonic() < elected + 3:
        asked = time.monotonic()
        status = reader.auth(tokens[1]).status
        assert (
            status in (401, 503) or asked < ended + 0.7
        ), f"{status} {asked - ended:.2f} s after the end"
        assert reader.auth(tokens[2]).status in (200, 503)
        time.sleep(0.002)
    assert [reader.auth(t).status for t in tokens[2:]] == [200] * 6
    assert reader.login(wxfake.code()).status == 200


def test_sentinels_out_of_reach(stack, group, wxfake):
    """No majority: nobody is believed, and all is well again by itself. With ?proof=master the
    master's own word is enough."""
    g = group()
    strict = stack.server(None, wxfake, redis__url=g.url())
    lenient = stack.server(None, wxfake, redis__url=g.url(query="?proof=master"))
    assert "?proof=master" in lenient.process.text()
    [token] = strict.logged_in(wxfake)
    g.sentinels[0].signal(signal.SIGSTOP)
    for _ in range(50):
        assert good(strict, token)  # two of three are a majority
    g.sentinels[1].signal(signal.SIGSTOP)
    began = time.monotonic()
    poll(lambda: strict.auth(token).status == 503, 1.5, "503 without a majority")
    assert time.monotonic() - began < 1.5
    assert call(strict.internal, "GET", "/readyz").status == 503 or poll(
        lambda: not strict.ready(), 2
    )
    for _ in range(20):
        assert strict.auth(token).status == 503 and good(lenient, token)
    for s in g.sentinels[:2]:
        s.signal(signal.SIGCONT)
    poll(lambda: good(strict, token) and strict.ready(), 3, "back")


def test_a_name_nobody_knows_and_a_sentinel_that_lies(stack, group, wxfake):
    g = group()
    unknown = stack.server(
        None, wxfake, wait=False, redis__url=g.url().replace("/mymaster", "/another")
    )
    poll(
        lambda: "know no master of the name another"
        in unknown.inside("GET", "/readyz").json["message"], what="it says so",
    )
    assert "a sentinel knows no master of that name" in unknown.process.text()
    liar = g.sentinels[2]  # says for good that a replica is the master
    replica = g.replicas()[0]
    server = stack.server(None, wxfake, redis__url=g.url(), redis__timeout="2s")
    [token] = server.logged_in(wxfake)
    liar.cli("SENTINEL", "REMOVE", g.NAME)
    liar.cli("SENTINEL", "MONITOR", g.NAME, replica.host, replica.port, 3)
    end = time.monotonic() + 2
    while time.monotonic() < end:
        assert good(server, token)
    assert "wxlogind" not in replica.cli("CLIENT", "LIST")


def test_a_new_master_has_no_scripts(stack, group, wxfake):
    g = group()
    server = stack.server(None, wxfake, redis__url=g.url())
    assert server.login(wxfake.code()).status == 200
    g.master().cli("SCRIPT", "FLUSH")
    assert server.login(wxfake.code()).status == 200
    new = g.fail_over()
    poll(
        lambda: server.login(wxfake.code()).status == 200
        and "cmdstat_eval:" in new.cli("INFO", "commandstats"),
        10, "logins at the new master",
    )


def test_without_tracking_setname_and_role(stack, group, wxfake):
    """What some clouds do not sell: the server starts, says so once, and asks Redis each time."""
    rules = [
        "--user", "default", "on", "nopass", "~*", "&*", "+@all", "-client|tracking",
        "-client|setname", "-role",
    ]
    redis = stack.redis(*rules)
    server = stack.server(redis, wxfake)
    [token] = server.logged_in(wxfake)
    for _ in range(5):
        assert good(server, token)
    server.end(token)
    assert server.auth(token).status == 401
    text = server.process.text()
    assert (
        text.count("redis has no client tracking") == 1
        and text.count("redis does not say whether it is a master") == 1
    )
    assert server.metric("wxlogind_session_cache_total", result="hit") == 0


def end(server, token):
    a = server.session(token, "DELETE")
    assert a.status == 204 or (
        a.status == 503 and a.error == "store_unavailable" and a.headers["Retry-After"]
    ), a
    return a.status


def test_an_end_waits_for_a_replica(stack, group, wxfake):
    """Not confirmed: 503, from whichever process it is asked again; logins and checks go on
    meanwhile."""
    g = group()
    a, b = (stack.server(None, wxfake, redis__url=g.url()) for _ in range(2))
    tokens = a.logged_in(wxfake, 4)
    assert end(a, tokens[0]) == 204
    for r in g.replicas():
        r.signal(signal.SIGSTOP)
    for server in (a, b, a, b):
        began = time.monotonic()
        # by now it is ended at the master, and there is nothing left to write
        assert end(server, tokens[1]) == 503
        assert time.monotonic() - began < 2
    assert good(b, tokens[2]) and a.login(wxfake.code()).status == 200
    assert (
        a.metric("wxlogind_redis_unconfirmed_ends_total") >= 2
        and b.metric("wxlogind_redis_unconfirmed_ends_total") >= 2
    )
    for r in g.replicas():
        r.signal(signal.SIGCONT)
    poll(lambda: end(b, tokens[1]) == 204, 10, "confirmed")
    assert b.auth(tokens[1]).json["reason"] == "logged_out"


def test_how_many_replicas(stack, group, wxfake):
    g = group(replicas=1)
    server = stack.server(None, wxfake, redis__url=g.url(), redis__replicas="2")
    [token] = server.logged_in(wxfake)
    assert end(server, token) == 503
    server.file.write_text(server.file.read_text().replace("replicas = 2", "replicas = 0"))
    server.process.signal(signal.SIGHUP)
    poll(lambda: end(server, token) == 204, 3, "acknowledged without a replica after a reload")
    one = stack.server(None, wxfake, redis__url=g.url())
    tokens = one.logged_in(wxfake, 30)
    assert [end(one, t) for t in tokens] == [204] * 30
    g.master().cli("SCRIPT", "FLUSH")
    assert end(one, one.login(wxfake.code()).token) == 204


def test_without_wait(stack, wxfake):
    redis = stack.redis("--user", "default", "on", "nopass", "~*", "&*", "+@all", "-wait")
    server = stack.server(redis, wxfake, redis__replicas="1")
    for _ in range(2):
        assert end(server, server.login(wxfake.code()).token) == 204
    assert server.process.text().count("redis does not allow WAIT") == 1
