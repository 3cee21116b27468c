"""Profiles: what may be kept and what not, through each database; that nothing acknowledged is
lost; and what a login says of it."""
import concurrent.futures
import json
import os
import signal
import sqlite3
import subprocess
import threading

import pytest

from conftest import APPID, BUILD, SECRET, poll

NOTHING = {
    "nickName": None, "avatarUrl": None, "province": None, "city": None, "country": None,
    "language": None, "gender": None,
}
BAND = {
    "nickName": "Band", "gender": 1, "language": "zh_CN", "city": "Guangzhou",
    "province": "Guangdong", "country": "CN",
    "avatarUrl": "http://wx.qlogo.cn/mmopen/vi_32/1vZvI39NWFQ9XM4LtQpFrQ/0",
}


@pytest.fixture(params=["sqlite", "mysql"])
def users_url(request, stack):
    if request.param == "sqlite":
        return f"sqlite://{stack.dir}/users.db"
    return request.getfixturevalue("shared_mariadb").database()


@pytest.fixture
def plain(stack, redis, wxfake):
    """For what is decided before any database is asked."""
    return stack.server(redis, wxfake, users__url=f"sqlite://{stack.dir}/users.db")


@pytest.fixture
def server(stack, redis, wxfake, users_url):
    return stack.server(redis, wxfake, users__url=users_url)


def login(server, wxfake, openid="oTestUser0000000000000000001", **kw):
    return server.login(wxfake.code(openid=openid, **kw)).token


def profile(server, token, body=None, **kw):
    return server.call(
        "GET" if body is None else "PUT", "/v1/user", body,
        {"Authorization": f"Bearer {token}"},
        **kw,
    )


def inside(server, openid="oTestUser0000000000000000001"):
    return server.inside("GET", f"/internal/apps/{APPID}/users/{openid}")


def test_a_profile(server, wxfake):
    token = login(server, wxfake)
    assert profile(server, token).json == NOTHING
    a = profile(server, token, BAND)
    assert a.status == 200 and a.json == BAND and a.headers["Cache-Control"] == "no-store"
    assert profile(server, token, {"city": "北京", "nickName": "小明🐼"}).json == {
        **BAND, "city": "北京", "nickName": "小明🐼",
    }
    assert profile(server, token, {"city": None, "gender": None, "country": ""}).json == {
        **BAND, "city": None, "nickName": "小明🐼", "gender": None, "country": "",
    }
    assert profile(server, token, {}).json == profile(server, token).json
    other = login(server, wxfake, "oTestUser0000000000000000002")
    assert profile(server, other).json == NOTHING
    again = login(server, wxfake)  # another session of the same user
    assert profile(server, again).json["nickName"] == "小明🐼"


@pytest.mark.parametrize(
    "body",
    [
        {"nickName": "n" * 128},
        {"nickName": "🐼" * 128},
        {"avatarUrl": "https://e.org/" + "a" * 1010},
        {"avatarUrl": ""},
        {"province": "省" * 64},
        {"language": "l" * 16},
        {"gender": 0},
        {"gender": 2},
        {"gender": 1.0},
        {"nickName": "'; DROP TABLE users; --\\\"%"},
        {"nickName": "\t\n\u007f"},
        {"avatarUrl": "http://[::1]:8080/a?b#c"},
        {"avatarUrl": "https://cdn/a.png"},
        {"avatarUrl": "HTTPS://cdn.example.com/a.png"},
    ],
)
def test_what_may_be_kept(server, wxfake, body):
    token = login(server, wxfake)
    a = profile(server, token, body)
    assert a.status == 200 and a.json == {**NOTHING, **body}
    assert profile(server, token).json == {**NOTHING, **body}


@pytest.mark.parametrize(
    "body",
    [
        {"nickName": "n" * 129},
        {"nickName": "🐼" * 129},
        {"nickName": 1},
        {"nickName": ["a"]},
        {"nickName": True},
        {"avatarUrl": "https://e.org/" + "a" * 1011},
        {"avatarUrl": "http://tmp/x.jpeg"},
        {"avatarUrl": "wxfile://tmp_1.png"},
        {"avatarUrl": "http://usr/a.b"},
        {"avatarUrl": "http://store?a.b"},
        {"avatarUrl": "ftp://e.org/"},
        {"avatarUrl": "javascript:alert(1)"},
        {"avatarUrl": "//e.org/a"},
        {"avatarUrl": "https:///a"},
        {"avatarUrl": "https://"},
        {"avatarUrl": "https://e.org/a b"},
        {"avatarUrl": "https://e.org/\r\nX: y"},
        {"avatarUrl": "HTTPS"},
        {"province": "p" * 65},
        {"city": "c" * 65},
        {"country": "c" * 65},
        {"language": "l" * 17},
        {"gender": 3},
        {"gender": -1},
        {"gender": "1"},
        {"gender": 1.5},
        {"gender": True},
        {"nickname": "x"},
        {"openid": "oTestUser"},
        {"unionid": "u"},
        {"phoneNumber": "1"},
        {"city": "x", "more": 1},
        [], "text",
        1, None,
    ],
)
def test_what_may_not(plain, wxfake, body):
    server = plain
    token = login(server, wxfake)
    profile(server, token, {"city": "before"})
    a = profile(server, token, json.dumps(body).encode())
    assert (a.status, a.error) == (400, "invalid_request"), a
    assert profile(server, token).json == {**NOTHING, "city": "before"}


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{", b'{"city":"a","city":"b"}', b'{"city":"\xff"}', b'{"city":"a\\u0000"}',
        b'{"city":"\\ud800"}',
    ],
)
def test_bodies_that_are_no_json(plain, wxfake, raw):
    server = plain
    token = login(server, wxfake)
    assert profile(server, token, raw).error == "invalid_request"


def test_who_asks(plain):
    server = plain
    for method in ("GET", "PUT", "DELETE"):
        a = server.call(method, "/v1/user", {} if method == "PUT" else None)
        assert (a.status, a.error, a.json["reason"]) == (401, "invalid_session", "missing")
        assert (
            profile(server, "A" * 43, {} if method == "PUT" else None).json["reason"] == "unknown"
        )
    a = server.call("POST", "/v1/user")
    assert a.status == 405 and a.headers["Allow"] == "GET, HEAD, PUT, DELETE"


def test_the_whole_for_backends(server, wxfake):
    openid = "oTestUser0000000000000000001"
    a = inside(server)
    assert (a.status, a.error) == (404, "not_found")
    token = login(server, wxfake, unionid="uTestUnion")
    first = inside(server).json
    assert first == {
        "appid": APPID, "openid": openid, "unionid": "uTestUnion", "phoneNumber": None, **NOTHING,
        "created_at": first["created_at"], "last_login_at": first["created_at"], "updated_at": None,
        "blocked": None, "audit_user": None,
    }
    assert profile(server, token, BAND).status == 200
    a = inside(server)
    assert (
        a.json == {**first, **BAND, "updated_at": a.json["updated_at"]}
        and a.json["updated_at"] >= first["created_at"]
    )
    assert a.headers["Cache-Control"] == "no-store"
    assert server.inside("GET", f"/internal/apps/wxnobody/users/{openid}").error == "unknown_app"
    assert (
        server.inside("GET", f"/internal/apps/{APPID}/users/{'o' * 129}").error == "invalid_request"
    )
    assert server.inside("GET", f"/internal/apps/{APPID}/users/{openid}%20").status == 404
    assert server.inside("GET", f"/internal/apps/{APPID}/users/{openid.lower()}").status == 404
    for public in (profile(server, token), profile(server, token, {})):
        assert openid not in public.body.decode() and "uTestUnion" not in public.body.decode()


def test_new_user(server, wxfake):
    # on a busy machine the database may take its 200 ms and more: then another user
    for i in range(10):
        openid = f"oTestNewUser{i}"
        code = wxfake.code(openid=openid)
        if "new_user" in (first := server.login(code, nonce="n").json):
            break
    assert first["new_user"] is True
    again = lambda code, **kw: poll(
        lambda: "new_user" in (a := server.login(code, **kw).json) and a, what="new_user"
    )["new_user"]
    assert again(code, nonce="n") is True  # the answer was lost: it is the same login
    code = wxfake.code(openid=openid)
    assert again(code) is False
    assert again(code) is False
    assert server.metric("wxlogind_logins_total", outcome="replayed") >= 2
    poll(lambda: server.metric("wxlogind_users_up") == 1, what="the metric")
    assert server.metric("wxlogind_user_requests_total", call="seen", outcome="ok") >= 2


def test_a_write_that_waited_is_not_told_to_an_ended_session(stack, redis, wxfake):
    server = stack.server(redis, wxfake, users__url=f"sqlite://{stack.dir}/users.db")
    token, answers = login(server, wxfake), []
    assert profile(server, token, {"city": "before"}).status == 200
    ask = threading.Thread(target=lambda: answers.append(profile(server, token, {"city": "after"})))
    with sqlite3.connect(stack.dir / "users.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        ask.start()
        poll(lambda: server.metric("wxlogind_connections", listener="public") > 0, what="asked")
        assert server.session(token, "DELETE").status == 204
        threading.Event().wait(0.3)
        other.execute("COMMIT")
    ask.join()
    assert (answers[0].status, answers[0].json.get("reason")) == (401, "logged_out"), answers
    assert inside(server).json["city"] == "after"


def test_none(stack, redis, wxfake):
    server = stack.server(redis, wxfake)
    a = server.login(wxfake.code(openid="oTestNone"))
    assert "new_user" not in a.json
    for b in (
        profile(server, a.token), profile(server, a.token, {"city": "x"}),
        inside(server, "oTestNone"),
    ):
        assert (b.status, b.error) == (404, "not_found")


def kill(process):
    process.proc.kill()
    process.proc.wait()


def killable(stack, redis, wxfake, users_url, **config):
    """A server that a test may kill: stack does not see to its end."""
    server = stack.server(redis, wxfake, users__url=users_url, **config)
    stack.made["server"].remove(server)
    return server


def test_nothing_acknowledged_is_lost(stack, redis, wxfake, users_url):
    """kill -9 in the middle of writes, again and again: what was answered 200 is there."""
    kept, lock = {}, threading.Lock()
    for round_ in range(4):
        server = killable(stack, redis, wxfake, users_url)
        tokens = {f"oTestKilled{i}": login(server, wxfake, f"oTestKilled{i}") for i in range(8)}

        def write(openid, token):
            for n in range(100000):
                try:
                    a = profile(server, token, {"nickName": f"{round_}-{n}"})
                except OSError:
                    return
                except Exception:  # cut in the middle of the answer
                    return
                with lock:
                    if a.status == 200:
                        kept[openid] = (round_, n)
        threads = [threading.Thread(target=write, args=item) for item in tokens.items()]
        for t in threads:
            t.start()
        poll(
            lambda: len(kept) == 8 and all(v[0] == round_ and v[1] > 5 for v in kept.values()),
            what="writes",
        )
        kill(server.process)
        for t in threads:
            t.join()
        server = stack.server(redis, wxfake, users__url=users_url)
        for openid, (r, n) in kept.items():
            there = tuple(int(x) for x in inside(server, openid).json["nickName"].split("-"))
            # one that was not answered may have been made all the same
            assert there >= (r, n), (openid, there, (r, n))
        server.process.stop()


def test_eight_workers(stack, redis, wxfake, users_url):
    """Eight processes make the schema at once, and write to one database."""
    server = stack.server(redis, wxfake, users__url=users_url, server__workers="8")
    openids = [f"oTestWorkers{i}" for i in range(16)]
    tokens = {o: login(server, wxfake, o) for o in openids}

    def write(item):
        openid, token = item
        return [profile(server, token, {"nickName": f"{openid}-{n}"}).status for n in range(20)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for statuses in pool.map(write, tokens.items()):
            assert statuses == [200] * 20
    for o in openids:
        assert inside(server, o).json["nickName"] == f"{o}-19"
    # one user, from all sides: one of them was first
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        codes = [wxfake.code(openid="oTestWorkersSame") for _ in range(16)]
        # a busy machine may leave it out
        said = [a.json.get("new_user") for a in pool.map(server.login, codes)]
        assert said.count(True) <= 1
    poll(
        lambda: server.login(wxfake.code(openid="oTestWorkersSame")).json.get("new_user") is False,
        what="known",
    )
    assert server.process.text().count("schema was made") == 1


# ---- SQLite alone ----


def test_its_directory_is_made(stack, redis, wxfake):
    """For the server's user alone; only the last of the path."""
    server = stack.server(redis, wxfake, users__url=f"sqlite://{stack.dir}/new/users.db")
    login(server, wxfake, "oTestDirectory")
    poll(lambda: inside(server, "oTestDirectory").status == 200, what="kept")
    assert (stack.dir / "new").stat().st_mode & 0o777 == 0o700


def refused(stack, url, status=1):
    port = 1
    file = stack.dir / "refused.ini"
    file.write_text(
        f"[server]\nlisten = unix:{stack.dir}/a.sock\ninternal_listen = unix:{stack.dir}/b.sock\n"
        f"[redis]\nurl = redis://127.0.0.1:{port}/0\n"
        f"[users]\nurl = {url}\n[app {APPID}]\nsecret = {SECRET}\n"
    )
    r = subprocess.run([BUILD / "wxlogind", "-c", file], capture_output=True, text=True, timeout=30,
                       env={k: v for k, v in os.environ.items() if not k.startswith("WXLOGIND_")})
    assert r.returncode == status, r.stderr
    return r.stderr


def test_a_file_that_cannot_be_opened(stack):
    assert "No such file or directory" in refused(stack, f"sqlite://{stack.dir}/no/where/users.db")
    (stack.dir / "text").write_text("this is no database\n" * 100)
    assert "file is not a database" in refused(stack, f"sqlite://{stack.dir}/text")


def test_a_schema_of_tomorrow(stack):
    with sqlite3.connect(stack.dir / "newer.db") as db:
        db.execute("PRAGMA user_version = 7")
    assert (
        "its schema is version 7, and this wxlogind knows no newer than 1: run the newer wxlogind"
        in refused(stack, f"sqlite://{stack.dir}/newer.db")
    )


def test_workers_without_a_database_all_end(stack):
    file = stack.dir / "workers.ini"
    file.write_text(
        f"[server]\nworkers = 3\nlisten = unix:{stack.dir}/a.sock\n"
        f"internal_listen = unix:{stack.dir}/b.sock\n"
        f"[users]\nurl = sqlite://{stack.dir}/no/where/users.db\n[app {APPID}]\nsecret = {SECRET}\n"
    )
    r = subprocess.run([BUILD / "wxlogind", "-c", file], capture_output=True, text=True, timeout=60,
                       env={k: v for k, v in os.environ.items() if not k.startswith("WXLOGIND_")})
    assert r.returncode == 1 and "cannot open the user database" in r.stderr


def test_a_full_disk(stack, redis, wxfake):
    """The file may not grow (a limit on file size stands in for a full disk): 503 for writes,
    logins go on, and good again without a restart."""
    import resource
    limit = lambda: (
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
        resource.setrlimit(resource.RLIMIT_FSIZE, (512 * 1024, resource.RLIM_INFINITY)),
    )
    server = stack.server(
        redis, wxfake, users__url=f"sqlite://{stack.dir}/users.db", preexec=limit,
        log__level="error",
    )
    token = login(server, wxfake)

    def write(i):
        return profile(
            server, token, {"avatarUrl": f"https://e.org/{i}-" + "a" * 1000, "nickName": "n" * 128}
        ).status
    # whose eyes keep the log from starting anew
    with sqlite3.connect(stack.dir / "users.db", isolation_level=None) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM users").fetchall()
        for i in range(400):
            if write(i) == 503:
                break
        else:
            raise AssertionError("the disk did not become full")
        assert profile(server, token).status == 200
        assert server.login(wxfake.code(openid="oTestFullDisk")).status == 200
        reader.execute("COMMIT")
    poll(lambda: write(1000) == 200, what="written again")
    with sqlite3.connect(stack.dir / "users.db") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
