"""A MySQL server that is frozen, killed, or never was there: logins keep their pace, profiles say
so in time, and all is back by itself."""
import socket
import asyncio
import json
import os
import resource
import signal
import statistics
import subprocess
import threading
import time

import pytest

from conftest import APPID, BUILD, SANITIZED, SECRET, Mariadb, poll


def profile(server, token, body=None):
    return server.call(
        "GET" if body is None else "PUT", "/v1/user", body, {"Authorization": f"Bearer {token}"}
    )


@pytest.fixture
def server(stack, redis, wxfake, mariadb):
    # thousands of connections are made one after the other, on a busy machine for long
    s = stack.server(redis, wxfake, users__url=mariadb.database(), server__client_timeout="2m")
    yield s
    mariadb.signal(signal.SIGCONT) if mariadb.process.proc.poll() is None else None


class Load:
    """Profiles written all the while, by eight phones; what was acknowledged is noted."""

    def __init__(self, server, wxfake):
        self.server, self.ending, self.answers, self.kept = server, False, [], {}
        self.tokens = {
            f"oTestLoad{i}": server.login(wxfake.code(openid=f"oTestLoad{i}")).token
            for i in range(8)
        }
        self.threads = [
            threading.Thread(target=self.write, args=item) for item in self.tokens.items()
        ]
        for t in self.threads:
            t.start()

    def write(self, openid, token):
        n = 0
        while not self.ending:
            n += 1
            a = profile(self.server, token, {"nickName": str(n)})
            self.answers.append(a)
            if a.status == 200:
                self.kept[openid] = n
            else:
                threading.Event().wait(0.05)  # as Retry-After asks, only sooner

    def end(self):
        self.ending = True
        for t in self.threads:
            t.join()

    def nothing_is_lost(self):
        for openid, n in self.kept.items():
            there = self.server.inside("GET", f"/internal/apps/{APPID}/users/{openid}").json
            assert int(there["nickName"]) >= n


def logins(server, wxfake, n=20):
    return [server.login(wxfake.code()) for _ in range(n)]


@pytest.mark.parametrize("how", ["frozen", "killed"])
def test_away_under_load(server, wxfake, mariadb, how):
    load = Load(server, wxfake)
    before = logins(server, wxfake)
    # a busy machine may leave some out
    said = [a.json["new_user"] for a in before if "new_user" in a.json]
    assert said and all(said)
    mariadb.signal(signal.SIGSTOP) if how == "frozen" else mariadb.kill()
    mark = len(load.answers)
    first = server.login(wxfake.code())
    assert first.status == 200 and first.seconds < 2  # waits its 200 ms, and no longer
    poll(lambda: "new_user" not in server.login(wxfake.code()).json, what="known to be away")
    during = logins(server, wxfake)
    assert all(a.status == 200 and "new_user" not in a.json for a in during)
    assert (
        statistics.median(a.seconds for a in during)
        < statistics.median(a.seconds for a in before) + 0.1
    )
    poll(lambda: any(a.status == 503 for a in load.answers[mark:]), what="a profile that says so")
    assert server.metric("wxlogind_users_up") == 0 or poll(
        lambda: server.metric("wxlogind_users_up") == 0, what="the metric"
    )
    assert server.ready()  # logins are what it is there for
    a = server.call(
        "POST", "/v1/user/phone", {"code": "c"}, {"Authorization": f"Bearer {first.token}"}
    )
    assert (a.status, a.error) == (503, "store_unavailable")
    # the code is not spent
    assert wxfake.call("GET", "/fake/stats").json["calls"].get("getuserphonenumber", 0) == 0
    mariadb.signal(signal.SIGCONT) if how == "frozen" else mariadb.start()
    poll(lambda: "new_user" in server.login(wxfake.code()).json, seconds=20, what="back by itself")
    mark = len(load.answers)
    poll(
        lambda: sum(a.status == 200 for a in load.answers[mark:]) > 20, seconds=20,
        what="profiles are written again",
    )
    load.end()
    for a in load.answers:
        assert a.status == 200 or (a.status, a.error, a.headers["Retry-After"]) == (
            503, "store_unavailable", "1",
        )
        assert a.seconds < 5
    load.nothing_is_lost()
    assert Mariadb.PASSWORD not in server.process.text()
    # once for each time, not for each call
    assert server.process.text().count("user database cannot be reached") <= 3


@pytest.mark.parametrize("what", ["erase", "phone"])
def test_a_slow_moment_is_waited_for(server, wxfake, mariadb, what):
    """Silent for longer than a login waits, but not away."""
    for i in range(20):  # a busy machine may make it so long that it counts as away
        openid = f"oTestMoment{i}"
        token = server.login(wxfake.code(openid=openid)).token
        path, body = (
            ("/v1/user/phone", {"code": wxfake.code(kind="phone", openid=openid)})
            if what == "phone"
            else ("/v1/user", None)
        )
        answers = []
        calls = [
            threading.Thread(target=lambda: profile(server, token)),
            threading.Thread(
                target=lambda: answers.append(
                    server.call(
                        "POST" if body else "DELETE", path, body,
                        {"Authorization": f"Bearer {token}"},
                    )
                )
            ),
        ]
        poll(lambda: server.metric("wxlogind_users_up") == 1, what="good")
        mariadb.signal(signal.SIGSTOP)
        try:
            calls[0].start()
            poll(lambda: server.metric("wxlogind_users_up") == 0, what="silent")
            calls[1].start()
            poll(
                lambda: server.metric("wxlogind_connections", listener="public") > 1 or answers,
                what="asked",
            )
        finally:
            mariadb.signal(signal.SIGCONT)
        for c in calls:
            c.join()
        if answers[0].status < 300:
            return
    raise AssertionError(answers)


@pytest.mark.parametrize("body", [None, {"city": "x"}])
def test_what_waited_is_not_told_to_an_ended_session(server, wxfake, mariadb, body):
    token = server.login(wxfake.code()).token
    assert profile(server, token, body).status == 200
    answers = []
    ask = threading.Thread(target=lambda: answers.append(profile(server, token, body)))
    mariadb.signal(signal.SIGSTOP)
    try:
        ask.start()
        poll(lambda: server.metric("wxlogind_connections", listener="public") > 0, what="asked")
        assert server.session(token, "DELETE").status == 204
        threading.Event().wait(0.3)
    finally:
        mariadb.signal(signal.SIGCONT)
    ask.join()
    assert (answers[0].status, answers[0].json.get("reason")) == (401, "logged_out"), answers


def test_a_login_that_waited_does_not_give_an_ended_session(stack, redis, wxfake, mariadb):
    """The user database is waited for, for 200 ms, which here is longer than redis.timeout; an
    operator ends the session meanwhile."""
    server = stack.server(redis, wxfake, users__url=mariadb.database(), redis__timeout="150ms")
    path, outcomes = f"/internal/apps/{APPID}/users/oTestWaited/sessions", set()
    for _ in range(20):  # on a busy machine the end may come too late to be seen
        poll(lambda: "new_user" in server.login(wxfake.code()).json, what="the database")
        code, answers = wxfake.code(openid="oTestWaited"), []
        ask = threading.Thread(
            target=lambda: answers.append((server.login(code), time.monotonic()))
        )
        mariadb.signal(signal.SIGSTOP)
        try:
            ask.start()
            poll(lambda: server.inside("GET", path).json["sessions"] or answers, what="the session")
            assert server.inside("DELETE", path).status == 204
            ended = time.monotonic()
            ask.join()
        finally:
            mariadb.signal(signal.SIGCONT)
        [(a, at)] = answers
        assert a.error == "invalid_code" or at - ended < 0.15, (a, at - ended)
        outcomes.add(a.status)
        if 401 in outcomes:
            break
    assert 401 in outcomes


def test_away_at_start(stack, redis, wxfake, mariadb):
    url = mariadb.database()
    mariadb.kill()
    server = stack.server(redis, wxfake, users__url=url)  # ready all the same
    a = server.login(wxfake.code(openid="oTestStart"))
    assert a.status == 200 and "new_user" not in a.json
    b = profile(server, a.token)
    assert (b.status, b.error, b.headers["Retry-After"]) == (
        503, "store_unavailable", "1",
    ) and b.seconds < 1
    mariadb.start()
    poll(lambda: profile(server, a.token).status == 200, seconds=20, what="found by itself")
    # though the login left no row
    assert profile(server, a.token, {"city": "x"}).json["city"] == "x"
    poll(
        lambda: server.login(wxfake.code(openid="oTestStart")).json.get("new_user") is False,
        what="known",
    )


def test_a_full_queue(server, wxfake, mariadb):
    """More ask than may wait: 503 at once for those beyond, and a login that knows of no user
    database."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16384), hard))
    token = server.login(wxfake.code()).token
    ask = f"GET /v1/user HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()

    async def everybody():
        streams = []
        for i in range(0, 4500, 100):
            streams += await asyncio.gather(
                *[asyncio.open_connection("127.0.0.1", server.port) for _ in range(100)]
            )
        mariadb.signal(signal.SIGSTOP)
        for _, w in streams:
            w.write(ask)

        async def answer(r, w):
            head = await r.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            body = json.loads(await r.readexactly(length))
            w.close()
            return int(head.split()[1]), body.get("error")
        return await asyncio.gather(*[answer(r, w) for r, w in streams])
    # a machine that is busy elsewhere may not get them all there before the first are late
    for _ in range(3):
        answers = asyncio.run(everybody())
        assert {s for s, _ in answers} <= {200, 503}
        assert {e for s, e in answers if s == 503} <= {"overloaded", "store_unavailable"}
        a = server.login(wxfake.code())
        assert a.status == 200 and "new_user" not in a.json
        mariadb.signal(signal.SIGCONT)
        poll(lambda: profile(server, token).status == 200, seconds=20, what="good again")
        if full := sum(e == "overloaded" for _, e in answers):
            break
    # under sanitizers requests are slower than lateness; the unit test counts there
    assert full > 0 or SANITIZED
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def limited(mariadb, require=""):
    """A URL for a user who, unlike one with all rights, may not write where the server is
    read-only."""
    name = mariadb.database().rsplit("/", 1)[1]
    mariadb.sql(
        f"CREATE USER app@'127.0.0.1' IDENTIFIED BY 'p' {require}; GRANT ALL ON {name}.* TO "
        "app@'127.0.0.1';"
        f"CREATE USER app@localhost IDENTIFIED BY 'p' {require}; GRANT ALL ON {name}.* TO "
        "app@localhost"
    )
    return f"mysql://app:p@127.0.0.1:{mariadb.port}/{name}"


def test_read_only(stack, redis, wxfake, mariadb):
    """What every planned failover does: the old master goes on, and takes no writes. It is left,
    and looked for again by its name."""
    server = stack.server(redis, wxfake, users__url=limited(mariadb))
    token = server.login(wxfake.code()).token
    assert profile(server, token, {"city": "before"}).status == 200
    connections = lambda: int(mariadb.sql("SHOW STATUS LIKE 'Connections'").split()[1])
    mariadb.sql("SET GLOBAL read_only = 1")
    assert profile(server, token, {"city": "during"}).status == 503
    poll(lambda: server.metric("wxlogind_users_up") == 0, what="the metric")
    before = connections()
    poll(lambda: connections() > before + 3, what="looked for again, and again")
    for _ in range(20):
        assert profile(server, token, {"city": "during"}).status == 503
        assert server.login(wxfake.code()).status == 200
    assert server.metric("wxlogind_users_up") == 0
    log = server.process.text()
    assert (
        log.count("the user database cannot be reached") == 1
        and "works again" not in log
        and "read-only" in log
    )
    mariadb.sql("SET GLOBAL read_only = 0")
    poll(lambda: profile(server, token, {"city": "after"}).status == 200, what="written again")
    poll(lambda: server.metric("wxlogind_users_up") == 1, what="the metric")
    assert server.process.text().count("works again") == 1


@pytest.fixture
def tls_mariadb(empty_mariadb, stack):
    tls = stack.tls()
    (stack.dir / "tls-mariadb").mkdir()
    m = Mariadb(
        stack.dir / "tls-mariadb", empty_mariadb, f"--ssl-cert={tls.cert}", f"--ssl-key={tls.key}",
        f"--ssl-ca={tls.ca}",
    )
    m.tls = tls
    yield m
    m.stop()


def test_tls_that_the_server_demands(stack, redis, wxfake, tls_mariadb):
    url = limited(tls_mariadb, "REQUIRE SSL")
    for query, users in (
        ("", {}),
        ("?tls=on", {}),
        ("?tls=verify", {"users__ca_file": tls_mariadb.tls.ca}),
    ):
        server = stack.server(redis, wxfake, users__url=url + query, **users)
        assert "new_user" in poll(
            lambda: (a := server.login(wxfake.code()).json) and "new_user" in a and a, what=query
        )
    r = start(stack, url=url + "?tls=off")
    assert r.returncode == 1 and "Access denied for user 'app'" in r.stderr


@pytest.mark.parametrize(
    "query, why", [("?tls=verify", "certificate"), ("?tls=on", "the server offers no TLS")]
)
def test_tls_that_is_not_as_wanted(stack, redis, wxfake, mariadb, tls_mariadb, query, why):
    """A certificate of somebody else's, or no TLS at all: nothing is sent there, and it is tried
    again."""
    m = tls_mariadb if "verify" in query else mariadb
    server = stack.server(
        redis, wxfake, users__url=m.database() + query, users__ca_file=stack.tls().ca
    )
    token = server.login(wxfake.code()).token
    assert profile(server, token).status == 503
    assert why in server.process.text() and server.metric("wxlogind_users_up") == 0


def test_localhost_with_a_port_is_tcp(stack, redis, wxfake, shared_mariadb):
    """To the library localhost is a socket, /run/mysqld's, and the port nothing."""
    server = stack.server(
        redis, wxfake, users__url=shared_mariadb.database().replace("127.0.0.1", "localhost")
    )
    assert poll(lambda: server.login(wxfake.code()).json.get("new_user"), what="new_user")
    assert server.metric("wxlogind_users_up") == 1


def start(stack, **users):
    file = stack.dir / "refused.ini"
    file.write_text(
        f"[server]\nlisten = unix:{stack.dir}/a.sock\ninternal_listen = unix:{stack.dir}/b.sock\n"
        "[redis]\nurl = redis://127.0.0.1:1/0\n"
        "[users]\n"
        + "".join(f"{k} = {v}\n" for k, v in users.items())
        + f"[app {APPID}]\nsecret = {SECRET}\n"
    )
    return subprocess.run(
        [BUILD / "wxlogind", "-c", file],
        capture_output=True, text=True, timeout=30,
        env={k: v for k, v in os.environ.items() if not k.startswith("WXLOGIND_")},
    )


def test_a_server_that_refuses(stack, shared_mariadb):
    url = shared_mariadb.database()
    r = start(stack, url=url, password="not-the-password")  # the key counts, not what the URL says
    assert (
        r.returncode == 1
        and "Access denied for user 'wxl'" in r.stderr
        and "not-the-password" not in r.stderr
    )
    r = start(stack, url=url.rsplit("/", 1)[0] + "/nowhere")
    assert r.returncode == 1 and "nowhere" in r.stderr
    shared_mariadb.sql(
        f"CREATE TABLE {url.rsplit('/', 1)[1]}.wxlogind_schema (one TINYINT PRIMARY KEY, version "
        "INT NOT NULL);"
        f"INSERT INTO {url.rsplit('/', 1)[1]}.wxlogind_schema VALUES (1, 9)"
    )
    r = start(stack, url=url)
    assert (
        r.returncode == 1
        and (
            "its schema is version 9, and this wxlogind knows no newer than 1: run the newer "
            "wxlogind"
        )
        in r.stderr
    )
    assert Mariadb.PASSWORD not in r.stderr


def test_a_unix_socket_and_a_password_file(stack, redis, wxfake, shared_mariadb):
    name = shared_mariadb.database().rsplit("/", 1)[1]
    (stack.dir / "password").write_text(Mariadb.PASSWORD + "\n")
    server = stack.server(
        redis, wxfake, users__url=f"mysql://wxl@/{name}?socket={shared_mariadb.socket}",
        users__password_file=stack.dir / "password",
    )
    poll(lambda: server.login(wxfake.code()).json.get("new_user"), what="new_user")


def test_a_silent_server_does_not_keep_the_start(stack, redis, wxfake):
    """Nor a name server that is silent: connecting is the helper thread's, and meanwhile everything
    else is served."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = stack.server(
            redis, wxfake, wait=False,
            users__url=f"mysql://u:p@127.0.0.1:{silent.getsockname()[1]}/db",
        )
        poll(server.ready, what="ready")
        assert server.login(wxfake.code()).status == 200
        text = poll(
            lambda: "the user database cannot be reached" in server.process.text()
            and server.process.text(),
            seconds=30, what="away",
        )
        assert text.index("wxlogind is up") < text.index("the user database cannot be reached")
