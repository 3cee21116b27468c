"""wxfake alone: GET /fake/events, which the page draws, and what it tells of Redis."""
import contextlib
import http.client
import json
import socket
import time

import pytest

from conftest import SECRET, poll
from wxfake_client import (
    Events, access_token, check, login, phone, plain_token, raw_login, refused, sign, sns,
)


def test_events(wxfake):
    with Events(wxfake) as one, Events(wxfake) as two:
        head = one.text.partition(b"\r\n\r\n")[0]
        assert (
            head.startswith(b"HTTP/1.1 200 ")
            and b"Content-Type: text/event-stream" in head
            and b"Cache-Control: no-store" in head
        )
        # what a developer's Redis is told is not every web page's to read
        assert b"Access-Control-Allow-Origin" not in head
        user = login(wxfake)
        code, button = wxfake.codes[-1], wxfake.code(kind="phone")
        refused(sns(wxfake, code), 40163, True)
        refused(sns(wxfake, "x", secret="not-the-secret"), 40125, True)
        plain, stable = plain_token(wxfake).json["access_token"], access_token(wxfake)
        assert (
            check(wxfake, user, stable).json["errcode"]
            == phone(wxfake, button, stable).json["errcode"]
            == 0
        )
        wxfake.fault(mode="500")
        sns(wxfake, "y")
        wxfake.fault(mode="errcode", errcode=45011)
        sns(wxfake, "z")
        wxfake.call("GET", "/nope")
        for e in (one, two):
            e.until(lambda: len(e.seen("wechat")) == 10, "ten events")
            seen = e.seen("wechat")
            assert [(s["api"], s["errcode"], s["status"], s["fault"]) for s in seen] == [
                ("jscode2session", 0, 200, ""),
                ("jscode2session", 40163, 200, ""),
                ("jscode2session", 40125, 200, ""),
                ("token", 0, 200, ""),
                ("stable_token", 0, 200, ""),
                ("checksession", 0, 200, ""),
                ("getuserphonenumber", 0, 200, ""),
                ("jscode2session", 0, 500, "500"),
                ("jscode2session", 45011, 200, "errcode"),
                ("other", 40066, 200, ""),
            ]
            assert seen[0]["code"] == code[:4] and seen[6]["code"] == button[:4]
            assert all(abs(s["at"] / 1000 - time.time()) < 30 for s in seen)
            e.until(lambda: len(e.seen("wechat_end")) == 10, "ten ends")
            ends = {s["id"]: s["at"] for s in e.seen("wechat_end")}
            assert len(ends) == 10 and all(ends[s["id"]] >= s["at"] for s in seen)
            text = e.text.decode()
            for secret in (
                code, button, SECRET, "not-the-secret", user["session_key"], plain, stable,
                sign(user["session_key"]),
            ):
                assert (
                    secret not in text and json.dumps(secret).replace("/", "\\/")[1:-1] not in text
                )


def test_events_come_as_they_happen(wxfake):
    with Events(wxfake) as e:
        wxfake.fault(mode="hang")
        with pytest.raises(TimeoutError):
            raw_login(wxfake, wxfake.code(), timeout=0.3)
        e.until(lambda: e.seen("wechat"), "the event of a call that hangs")
        assert e.seen("wechat")[0]["fault"] == "hang" and not e.seen("wechat_end")
        # within five seconds, to keep proxies awake
        e.until(lambda: b"\n\n: " in e.text.partition(b"\r\n\r\n")[2], "a beat")


def test_a_place_for_sixteen_listeners(wxfake):
    with contextlib.ExitStack() as held:
        many = [held.enter_context(Events(wxfake)) for _ in range(16)]
        assert wxfake.call("GET", "/fake/events").status == 503
        many[3].sock.close()

        def taken():
            with socket.create_connection(("127.0.0.1", wxfake.port), timeout=5) as s:
                s.sendall(b"GET /fake/events HTTP/1.1\r\nHost: x\r\n\r\n")
                return s.recv(12)
        # who is gone is noticed at the next event
        poll(lambda: login(wxfake) and taken() == b"HTTP/1.1 200", what="a free place")


def test_a_listener_who_does_not_read(wxfake):
    with Events(wxfake):
        conn = http.client.HTTPConnection("127.0.0.1", wxfake.port, timeout=20)
        with contextlib.closing(conn):
            for _ in range(2000):
                conn.request("GET", "/nope")
                conn.getresponse().read()
    assert login(wxfake)


class Watched:
    """Events of a wxfake that watches a Redis, from the moment on when it does."""

    def __init__(self, events, redis):
        self.events, self.redis = events, redis
        self.number = 0
        poll(self.is_heard, what="Redis is watched")

    def seen(self):
        """Each command as one line, those of a script marked."""
        return [
            " ".join(["lua"] * s["script"] + [s["command"], *s["args"]])
            for s in self.events.seen("redis")
        ]

    def is_heard(self):
        self.number += 1
        # only what wxlogind says is told: all on this unix socket pass for it now
        self.redis.cli("CLIENT", "SETNAME", "wxlogind-test")
        self.redis.cli("SET", "ping", self.number)
        with contextlib.suppress(TimeoutError):
            self.events.text += self.events.sock.recv(65536)
        return f"SET ping {self.number}" in self.seen()

    def of(self, *command):
        """What is told of one command."""
        before = len(self.seen())
        self.redis.cli(*command)
        self.redis.cli("SET", "end", 1)
        self.events.until(lambda: self.seen()[-1] == "SET end 1", "the last command")
        return self.seen()[before:-1]


@pytest.mark.parametrize("late, unix", [(False, False), (True, False), (False, True), (True, True)])
def test_watch_redis(stack, late, unix):
    redis = stack.redis()
    if late:  # it need not be there at start
        redis.kill()
    w = stack.wxfake(
        "--watch-redis", f"unix://{redis.socket}" if unix else f"redis://127.0.0.1:{redis.port}"
    )
    with Events(w) as e:
        if late:
            redis.start()
        watched = Watched(e, redis)
        found = e.seen("redis")[-1]
        assert (
            set(found) == {"at", "server", "script", "command", "args"}
            and found["server"] == (redis.socket if unix else f"127.0.0.1:{redis.port}")
            and abs(found["at"] / 1000 - time.time()) < 30
        )
        redis.cli("SET", "said", "PING")  # was wrong: not shown, because of the word in it
        # a line too long to be kept
        assert watched.of("SET", "long", "x" * 100000) in ([], ["SET said PING"])
        assert watched.of("PING") == []
        # was wrong: of a cluster these were shown, sixty a second
        assert watched.of("CLUSTER", "INFO") == watched.of("GET", "wxlogin:h:{AAA}") == []
        assert watched.of("EVAL", "return redis.call('GET', KEYS[1])", 1, "greeting", "x") == [
            "EVAL (33 B) 1 (8 B) (1 B)", "lua GET greeting",
        ]
        assert not e.seen("wechat") and login(w)
        e.until(lambda: e.seen("wechat"), "the login")
        redis.kill()
        redis.start()
        Watched(e, redis)


@pytest.mark.parametrize(
    "url", ["redis://:p%40ss%20word@localhost:{}", "redis://default:p%40ss%20word@127.0.0.1:{}/3"]
)
def test_watch_redis_with_a_password(stack, url):
    """As in the containers: by name, and Redis asks for a password."""
    redis = stack.redis("--requirepass", "p@ss word")
    w = stack.wxfake("--watch-redis", url.format(redis.port))
    with Events(w) as e:
        def told():
            redis.cli("-a", "p@ss word", "CLIENT", "SETNAME", "wxlogind-test")
            redis.cli("-a", "p@ss word", "SET", "greeting", "hello")
            with contextlib.suppress(TimeoutError):
                e.text += e.sock.recv(65536)
            return any("greeting" in s["args"] for s in e.seen("redis"))
        poll(told, what="the SET")
        assert b"p@ss word" not in e.text and "refuses" not in w.process.text()


def test_watch_redis_that_is_loading(stack):
    """It refuses MONITOR until it has read its file. The wxfake of a stack that is started again
    did not watch it for good."""
    listener = socket.create_server(("127.0.0.1", 0))
    w = stack.wxfake("--watch-redis", f"redis://127.0.0.1:{listener.getsockname()[1]}")
    listener.settimeout(10)
    for _ in range(3):
        with listener.accept()[0] as s:
            s.settimeout(10)
            assert s.recv(100).endswith(b"MONITOR\r\n")
            s.sendall(b"-LOADING Redis is loading the dataset in memory\r\n-LOADING\r\n")
            assert s.recv(100) == b""
    with Events(w) as e, listener.accept()[0] as s:
        s.recv(100)
        s.sendall(
            b'$50\r\nid=3 addr=127.0.0.1:7 laddr=x fd=8 name=wxlogind \n\r\n+OK\r\n'
            b'+1795734860.581287 [0 127.0.0.1:7] "GET" "a"\r\n'
        )
        e.until(lambda: e.seen("redis"), "the first command")
    assert "refuses" not in w.process.text()
    listener.close()


@pytest.mark.parametrize("late", [False, True])
def test_only_what_wxlogind_says_is_told(stack, late):
    """Not what others ask of the same Redis, such as a health check's AUTH."""
    redis = stack.redis()
    w, server = None, None
    if late:
        w = stack.wxfake("--watch-redis", f"redis://127.0.0.1:{redis.port}")
    server = stack.server(redis, w or stack.wxfake())
    w = w or stack.wxfake("--watch-redis", f"redis://127.0.0.1:{redis.port}")
    with Events(w) as e:
        def told(token="A" * 43):
            redis.cli("AUTH", "default", "stranger")
            redis.cli("EVAL", "return redis.call('GET', 'stranger')", 0)
            server.session(token)
            redis.cli("SET", "stranger", 1)
            with contextlib.suppress(TimeoutError):
                e.text += e.sock.recv(65536)
            return len(e.seen("redis")) >= 3
        poll(told, what="three questions of wxlogind")
        seen = [s["command"].upper() for s in e.seen("redis")]
        assert not {"SET", "AUTH", "PING", "ROLE", "INFO", "SUBSCRIBE"} & set(
            seen
        ) and "stranger" not in str(e.seen("redis")), e.seen("redis")


def test_watch_redis_with_a_wrong_password(stack):
    redis = stack.redis("--requirepass", "right")
    w = stack.wxfake("--watch-redis", f"redis://:wrong@localhost:{redis.port}")
    poll(lambda: "Redis refuses to be watched" in w.process.text(), what="a word about it")


@pytest.mark.parametrize(
    "command, told",
    [
        (("GET", "wxlogin:s:{abc}:0123456789abcdef"), "GET wxlogin:s:{abc}:0123\u2026"),
        (("GET", "wxlogin:t:{wxfa4efa4efa4efa4e}:lock"), "GET wxlogin:t:{wxfa\u2026}:lock"),
        (
            (
                "SET", "wxlogin:s:a", "1795|||wx1|oHIDDEN|uHIDDEN|1.2.3.4|ua|\x07=HIDDEN", "PX",
                604800000,
            ),
            "SET wxlogin:s:a (46 B) PX 604800000",
        ),
        (("SET", "a", "oHIDDENoHIDDENoHIDDENoHIDDEN"), "SET a (28 B)"),
        (("SET", "a", "HIDDEN hidden"), "SET a (13 B)"),
        (("SET", "a", "!revoked", "KEEPTTL"), "SET a !revoked KEEPTTL"),
        (("SET", "a", "!Revoked HIDDEN"), "SET a (15 B)"),
        (("SET", "a", 'quo"te ] \\ \n \x01 HIDDEN'), "SET a (21 B)"),
        (("SET", "a", ""), "SET a (0 B)"),
        (("ZADD", "wxlogin:u:{abc}", 0, "~\x80HIDDEN"), "ZADD wxlogin:u:{abc} 0 (9 B)"),
        (
            ("ZREVRANGEBYLEX", "wxlogin:u:{abc}", "(0123HIDDEN:", "[0123HIDDEN", "LIMIT", 0, 10),
            "ZREVRANGEBYLEX wxlogin:u:{abc} (12 B) (11 B) LIMIT 0 10",
        ),
    ],
)
def test_redis_events_hold_no_secret(stack, command, told):
    redis = stack.redis()
    w = stack.wxfake("--watch-redis", f"redis://127.0.0.1:{redis.port}")
    with Events(w) as e:
        assert Watched(e, redis).of(*command) == [told]
        assert b"HIDDEN" not in e.text


def test_a_login_in_events(stack):
    """The whole of it with the real server, without encryption at rest: then Redis is told openid
    and session_key as they are."""
    redis = stack.redis()
    w = stack.wxfake("--watch-redis", f"unix://{redis.socket}")
    server = stack.server(redis, w, session__encryption_key="")
    with Events(w) as e:
        watched = Watched(e, redis)
        code = w.code(openid="oNobodyShouldReadThis")
        token = server.login(code).json["third_session"]
        assert server.session(token).status == 200 and server.session(token, "DELETE").status == 204
        watched.of("GET", "x")
        told = watched.seen()
        assert len([s for s in told if s.startswith("EVAL ")]) >= 2 and any(
            "wxlogin:s:" in s for s in told
        )
        assert not any("SUBSCRIBE" in s for s in told)
        key = login(w, openid="oNobodyShouldReadThis")["session_key"]
        for secret in (code, token, token[8:], "oNobody", key, SECRET):
            assert secret not in e.text.decode(), secret
