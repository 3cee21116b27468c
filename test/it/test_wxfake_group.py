"""wxfake alone: several Redis servers that are watched, and --kill-redis, which ends a master."""
import re
import signal

from conftest import poll
from wxfake_client import Events, login


def roles(w):
    return {s["server"]: s["role"] for s in w.call("GET", "/fake/redis").json}


def name(redis):
    return f"127.0.0.1:{redis.port}"


def test_without_the_option_nothing_is_ended(stack):
    redis = stack.redis()
    for w in (stack.wxfake(), stack.wxfake("--watch-redis", f"redis://{name(redis)}")):
        for a in (w.call("GET", "/fake/redis"), w.call("POST", "/fake/kill-redis")):
            assert a.status == 404 and "--kill-redis" in a.json["message"], a
        assert not w.call("GET", "/fake/about").json["kill_redis"]
    assert "PONG" in redis.cli("PING")


def test_the_master_dies(stack):
    master = stack.redis("--requirepass", "p@ss")
    replica = stack.redis("--replicaof", "127.0.0.1", master.port, "--masterauth", "p@ss")
    w = stack.wxfake(
        "--watch-redis", f"redis://:p%40ss@{name(master)}",
        "--watch-redis", f"redis://{name(replica)}", "--kill-redis",
    )
    assert w.call("GET", "/fake/about").json["kill_redis"]
    poll(lambda: roles(w) == {name(master): "master", name(replica): "replica"}, what="roles")
    with Events(w) as e:
        assert w.call("POST", "/fake/kill-redis").json == {"server": name(master)}
        assert master.process.proc.wait(10) == 0
        e.until(lambda: e.seen("servers"), "the servers' news")
        assert e.seen("servers")[-1]["servers"] == [
            {"server": name(master), "role": "away"}, {"server": name(replica), "role": "replica"},
        ]
        again = w.call("POST", "/fake/kill-redis")
        assert again.status == 503 and "election" in again.json["message"]
        replica.cli("REPLICAOF", "NO", "ONE")  # an election, as it were
        e.until(lambda: e.seen("servers")[-1]["servers"][1]["role"] == "master", "the next")
        master.start()
        e.until(lambda: e.seen("servers")[-1]["servers"][0]["role"] == "master", "it is back")
    assert "p@ss" not in w.process.text()


def test_of_several_masters_the_one_that_was_used_last(stack):
    one, two = stack.redis(), stack.redis()
    w = stack.wxfake(
        "--watch-redis", f"redis://{name(one)}", "--watch-redis", f"redis://{name(two)}",
        "--kill-redis",
    )
    poll(lambda: list(roles(w).values()) == ["master", "master"], what="roles")
    with Events(w) as e:
        for redis in (one, two):
            def told():
                redis.cli("-h", "127.0.0.1", "-p", redis.port, "EVAL", "return 0", 0)
                redis.cli("CLIENT", "SETNAME", "wxlogind-test")
                return any(s["server"] == name(redis) for s in e.seen("redis"))
            server = stack.server(redis, w)
            e.until(lambda: server.session("A" * 43).status == 401 and told(), "a command")
    assert w.call("POST", "/fake/kill-redis").json == {"server": name(two)}
    assert one.process.proc.poll() is None


def test_a_server_that_stands_still_is_away(stack):
    redis = stack.redis()
    w = stack.wxfake("--watch-redis", f"unix://{redis.socket}", "--kill-redis")
    poll(lambda: roles(w) == {redis.socket: "master"}, what="a master")
    redis.signal(signal.SIGSTOP)
    poll(lambda: roles(w) == {redis.socket: "away"}, what="away")
    redis.signal(signal.SIGCONT)
    poll(lambda: roles(w) == {redis.socket: "master"}, what="back")


def test_a_connection_that_is_cut_is_no_death(stack):
    """Was wrong: sentinels cut a replica's connections when its master changes; it was said to be
    away, and back."""
    redis = stack.redis()
    w = stack.wxfake("--watch-redis", f"redis://{name(redis)}", "--kill-redis")
    poll(lambda: roles(w) == {name(redis): "master"}, what="a master")
    with Events(w) as e:
        assert "name=wxlogind-wxfake" in redis.cli("CLIENT", "LIST")
        redis.cli("CLIENT", "KILL", "TYPE", "normal")
        poll(lambda: "name=wxlogind-wxfake" in redis.cli("CLIENT", "LIST"), what="connected anew")
        login(w)
        e.until(lambda: e.seen("wechat"), "what comes after it")
        assert not e.seen("servers") and roles(w) == {name(redis): "master"}


def test_its_own_questions_are_no_traffic_of_wxlogind(stack):
    redis = stack.redis()
    w = stack.wxfake("--watch-redis", f"redis://{name(redis)}", "--kill-redis")
    poll(lambda: roles(w) == {name(redis): "master"}, what="a master")
    with Events(w) as e:
        server = stack.server(redis, w)
        e.until(lambda: server.session("A" * 43).status == 401 and e.seen("redis"), "a command")
        own = re.compile(r"^id=(\d+) .* name=wxlogind-wxfake ", re.M)
        before = own.search(redis.cli("CLIENT", "LIST"))[1]
        redis.cli("CLIENT", "KILL", "ID", before)  # it greets anew
        poll(lambda: own.findall(redis.cli("CLIENT", "LIST")) not in ([], [before]), what="anew")
        login(w)
        e.until(lambda: e.seen("wechat"), "what comes after it")
        named = [s["args"] for s in e.seen("redis") if s["command"] == "CLIENT"]
        assert ["SETNAME", f"({len('wxlogind-wxfake')} B)"] not in named, named


def test_ports_in_a_row(stack):
    """Each is a server; those that are not there are away."""
    w = stack.wxfake("--watch-redis", "redis://127.0.0.250:1-3", "--kill-redis")
    assert roles(w) == {f"127.0.0.250:{port}": "away" for port in (1, 2, 3)}
