"""Users for those who run the service: erase, block, find, import, export; and phone numbers at
rest. Through each database."""
import concurrent.futures
import json
import pathlib
import sqlite3
import time

import pytest

from conftest import APPID, KEY, poll
from test_user import users_url  # noqa: F401  a fixture

OTHER_KEY = "ff" * 32
OPENID = "oTestPeople00000000000000001"


@pytest.fixture
def server(stack, redis, wxfake, users_url):  # noqa: F811
    return stack.server(redis, wxfake, users__url=users_url)


def path(openid=OPENID, more=""):
    return f"/internal/apps/{APPID}/users/{openid}{more}"


def user(server, openid=OPENID, **kw):
    return server.inside("GET", path(openid), **kw)


def login(server, wxfake, openid=OPENID, **kw):
    return server.login(wxfake.code(openid=openid, **kw))


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def reason(server, token):
    return server.auth(token).headers.get("X-Wx-Reason")


def phone(server, wxfake, token, openid=OPENID):
    a = server.call(
        "POST", "/v1/user/phone", {"code": wxfake.code(kind="phone", openid=openid)}, bearer(token)
    )
    assert a.status == 200, a
    return a.json


def find(server, **query):
    a = server.inside(
        "GET", f"/internal/apps/{APPID}/users?" + "&".join(f"{k}={v}" for k, v in query.items())
    )
    assert a.status == 200, a
    return a.json


def new_user(server, wxfake, openid=OPENID):
    return login(server, wxfake, openid).json.get("new_user")


# ---- erase ----

@pytest.mark.parametrize("who", ["backend", "user"])
def test_erase(server, redis, wxfake, who):
    tokens = [login(server, wxfake, unionid="uTest").token for _ in range(3)]
    other = login(server, wxfake, "oTestSomebodyElse").token
    phone(server, wxfake, tokens[0])
    for _ in range(2 if who == "backend" else 1):
        a = (
            server.inside("DELETE", path())
            if who == "backend"
            else server.call("DELETE", "/v1/user", headers=bearer(tokens[1]))
        )
        assert (a.status, a.body) == (204, b"")
    assert [reason(server, t) for t in tokens] == ["revoked"] * 3 and server.auth(
        other
    ).status == 200
    assert user(server).status == 404 and server.inside("GET", path(more="/sessions")).json == {
        "sessions": []
    }
    assert not [k for k in redis.keys() if ":m:" in k]
    assert server.inside("GET", path(more="/export")).status == 404
    assert (
        poll(lambda: new_user(server, wxfake) is not None)
        and user(server).json["unionid"] is not None
    )
    assert user(server).json["phoneNumber"] is None


def test_a_late_write_does_not_bring_the_user_back(server, wxfake):
    """A profile whose session was made before the erasure; here it comes after all of it. One of a
    later session is kept."""
    token = login(server, wxfake).token
    assert server.inside("DELETE", path()).status == 204
    assert server.call("PUT", "/v1/user", {"city": "late"}, bearer(token)).status == 401
    assert user(server).status == 404
    again = login(server, wxfake).token
    assert server.call("PUT", "/v1/user", {"city": "new"}, bearer(again)).status == 200
    assert user(server).json["city"] == "new"


def test_logins_and_writes_that_race_with_erasures(server, wxfake):
    """In the end there is no user, or a whole new one: whoever has a living session can be found by
    a backend."""
    stop = time.monotonic() + 3

    def person(i):
        while time.monotonic() < stop:
            a = login(server, wxfake)
            assert a.status in (200, 401, 429, 503), a
            if a.status == 200:
                assert server.call(
                    "PUT", "/v1/user", {"city": f"c{i}"}, bearer(a.token)
                ).status in (200, 401)

    def eraser():
        n = 0
        while time.monotonic() < stop:
            assert server.inside("DELETE", path()).status == 204
            n += 1
        return n
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        erased = pool.submit(eraser)
        for f in [pool.submit(person, i) for i in range(4)]:
            f.result()
        assert erased.result() > 3
    sessions = server.inside("GET", path(more="/sessions")).json["sessions"]
    poll(
        lambda: (user(server).status == 200) == bool(sessions) or not sessions,
        what="a user for the sessions",
    )
    assert server.inside("DELETE", path()).status == 204
    assert user(server).status == 404


def test_an_unfinished_erasure_keeps_logins_away_and_a_repeat_finishes(server, redis, wxfake):
    token = login(server, wxfake).token
    base = server.inside("GET", path(more="/sessions")).json["sessions"][0]["id"]
    key = next(k for k in redis.keys() if k.endswith(base))
    tag = key[key.index("{"):key.index("}") + 1]
    name = redis.cli(
        "EVAL", "return string.sub(redis.sha1hex(ARGV[1]), 1, 16)", 0, f"{APPID}:{OPENID}"
    ).strip()
    # as a process that was killed leaves it
    redis.cli("SET", f"wxlogin:m:{tag}:{name}", 1, "PX", 60000)
    a = login(server, wxfake)
    assert (a.status, a.error) == (503, "store_unavailable") and a.headers["Retry-After"]
    assert server.inside("DELETE", path()).status == 204
    assert reason(server, token) == "revoked" and login(server, wxfake).status == 200


def test_erase_where_users_are_none(stack, redis, wxfake):
    server = stack.server(redis, wxfake)
    token = login(server, wxfake).token
    assert server.inside("DELETE", path()).status == 204 and reason(server, token) == "revoked"
    assert login(server, wxfake).status == 200
    for method, more in (("PUT", "/block"), ("DELETE", "/block"), ("PUT", "")):
        assert server.inside(method, path(more=more), {}).status == 404
    assert server.inside("GET", f"/internal/apps/{APPID}/users").status == 404


# ---- block ----

def test_block(stack, server, redis, wxfake, users_url):  # noqa: F811
    other = stack.server(redis, wxfake, users__url=users_url)
    tokens = [login(s, wxfake).token for s in (server, other)]
    assert user(server).json["blocked"] is None
    assert (
        server.inside(
            "PUT", path(more="/block"), {"note": "垃圾", "until": int(time.time()) + 5000}
        ).status == 204
    )
    assert [reason(s, t) for s in (server, other) for t in tokens] == ["blocked"] * 4
    for s in (server, other):
        a = login(s, wxfake)
        assert (a.status, a.error, a.json["message"]) == (
            403, "user_blocked", "This user is blocked.",
        )
    blocked = user(server).json["blocked"]
    assert blocked["note"] == "垃圾" and blocked["until"] > blocked["since"]
    assert [u["openid"] for u in find(server, blocked=1)["users"]] == [OPENID]
    assert server.inside("DELETE", path()).status == 204
    # a block stays
    assert user(server).json["blocked"] == blocked and user(server).json["created_at"] is None
    assert login(server, wxfake).status == 403
    for _ in range(2):
        assert server.inside("DELETE", path(more="/block")).status == 204
    assert find(server, blocked=1)["users"] == [] and login(other, wxfake).status == 200
    assert user(server).json["blocked"] is None


def test_a_block_that_is_over(server, wxfake):
    assert server.inside("PUT", path(more="/block"), {"until": int(time.time()) + 2}).status == 204
    assert login(server, wxfake).status == 403
    poll(lambda: user(server).status == 404, what="over")
    assert find(server, blocked=1)["users"] == [] and login(server, wxfake).status == 200


@pytest.mark.parametrize(
    "body", [{"until": 1}, {"until": "soon"}, {"note": 1}, {"note": "n" * 201}, [], "text"]
)
def test_blocks_that_are_none(server, wxfake, body):
    assert (
        server.inside(
            "PUT", path(more="/block"), body if isinstance(body, (dict, list)) else body.encode()
        ).status == 400
    )
    assert login(server, wxfake).status == 200


# noqa: F811
def test_a_redis_that_was_emptied_learns_the_blocks(stack, server, redis, wxfake, users_url):
    assert server.inside("PUT", path(more="/block")).status == 204
    redis.cli("FLUSHALL")
    a = poll(lambda: (a := login(server, wxfake)).status != 200 and a)  # SQL knows
    assert (a.status, a.error) == (403, "user_blocked")
    redis.cli("FLUSHALL")
    redis.kill()
    redis.start()
    poll(lambda: [k for k in redis.keys() if ":b:" in k], what="the block, told again")


# noqa: F811
def test_a_login_while_both_were_away_is_ended(stack, server, redis, wxfake, users_url):
    """Redis is emptied, and the user database does not answer: the login passes. Then a process
    sees both again."""
    blind = stack.server(redis, wxfake, users__url="mysql://nobody@127.0.0.1:1/nowhere")
    assert server.inside("PUT", path(more="/block")).status == 204
    redis.cli("FLUSHALL")
    a = login(blind, wxfake)
    assert a.status == 200
    redis.cli("DEL", "wxlogin:blocks")
    stack.server(redis, wxfake, users__url=users_url)  # begins
    poll(lambda: reason(blind, a.token) == "blocked", what="ended")


# ---- find, import, export ----

def test_import_and_find(server, wxfake):
    a = server.inside(
        "PUT", path(),
        {
            "created_at": 1600000000, "unionid": "uImported", "phoneNumber": "13812345678",
            "nickName": "好", "gender": 1,
        },
    )
    assert a.status == 200 and (
        a.json["created_at"], a.json["phoneNumber"], a.json["last_login_at"],
    ) == (1600000000, "13812345678", None), a
    for query in ({"phone": "13812345678"}, {"unionid": "uImported"}, {}):
        [row] = find(server, **query)["users"]
        assert row == {**a.json, "phoneNumber": "138****5678"}
    assert (
        find(server, phone="13812345679")["users"] == []
        and find(server, unionid="u")["users"] == []
    )
    assert poll(lambda: (n := new_user(server, wxfake)) is not None and [n]) == [False]
    assert server.inside("PUT", path(), {"phoneNumber": None}).json["phoneNumber"] is None
    assert find(server, phone="13812345678")["users"] == []


@pytest.mark.parametrize(
    "body",
    [
        {"created_at": 1 << 40},
        {"created_at": "1"},
        {"unionid": ""},
        {"phoneNumber": "x9"},
        {"openid": "o"},
        {"gender": 7},
        [],
    ],
)
def test_imports_that_are_none(server, body):
    assert server.inside("PUT", path(), body).status == 400 and user(server).status == 404


def test_pages(server):
    openids = sorted(f"oTestPage{i:03d}" for i in range(25))
    for o in openids:
        assert server.inside("PUT", path(o), {}).status == 200
    seen, after = [], ""
    while after is not None:
        page = find(server, limit=10, **({"after": after} if after else {}))
        seen, after = seen + [u["openid"] for u in page["users"]], page["next"]
    assert seen == openids
    assert find(server)["next"] is None
    for query in ("limit=0", "limit=1001", "limit=x", "blocked=2", "phone=1&unionid=2"):
        assert server.inside("GET", f"/internal/apps/{APPID}/users?{query}").status == 400


def test_find_by_either_number(server, wxfake):
    got = phone(server, wxfake, login(server, wxfake).token)
    for number in (got["phoneNumber"], got["purePhoneNumber"]):
        assert [u["openid"] for u in find(server, phone=number.replace("+", "%2B"))["users"]] == [
            OPENID
        ]
    assert server.inside("PUT", path(), {"phoneNumber": "+85291234567"}).status == 200
    for written in ("+85291234567", "%2B85291234567"):
        assert [u["openid"] for u in find(server, phone=written)["users"]] == [OPENID]
    assert find(server, phone="85291234567")["users"] == []


def test_export(server, wxfake):
    token = login(server, wxfake).token
    got = phone(server, wxfake, token)
    a = server.inside("GET", path(more="/export"))
    assert a.status == 200 and set(a.json) == {"user", "sessions", "exported_at"}
    assert (
        a.json["user"] == user(server).json and a.json["user"]["phoneNumber"] == got["phoneNumber"]
    )
    assert len(a.json["sessions"]) == 1


# ---- phone numbers at rest ----

def files(stack):
    return b"".join(
        f.read_bytes() for f in stack.dir.glob("users.db*") if not f.name.endswith("-shm")
    )


def test_numbers_are_sealed_in_batches_and_anew(stack, redis, wxfake):
    """In clear, then under a key, then under another: no plain number is left in any file, and each
    is found all the while."""
    url, numbers = f"sqlite://{stack.dir}/users.db", [
        f"139{i:08d}" for i in range(70000000, 70000150)
    ]
    server = stack.server(redis, wxfake, users__url=url, session__encryption_key="")
    for i, n in enumerate(numbers):
        assert server.inside("PUT", path(f"oTestSealed{i}"), {"phoneNumber": n}).status == 200
    assert numbers[0].encode() in files(stack)
    server.process.stop()
    before = None
    for keys, change in ((KEY, True), (f"{OTHER_KEY},{KEY}", True), (OTHER_KEY, False)):
        server = stack.server(redis, wxfake, users__url=url, session__encryption_key=keys)
        poll(lambda: not [n for n in numbers if n.encode() in files(stack)], what="sealed")
        for i in (0, 77, 149):
            assert [u["openid"] for u in find(server, phone=numbers[i])["users"]] == [
                f"oTestSealed{i}"
            ]
            assert user(server, f"oTestSealed{i}").json["phoneNumber"] == numbers[i]
        with sqlite3.connect(stack.dir / "users.db") as db:
            def under():
                return db.execute("SELECT DISTINCT hex(key_id) FROM phones").fetchall()
            poll(
                lambda: len(under()) == 1 and (under() != before) == change,
                what="all under the first key",
            )
            before = under()
        assert "key that is not configured" not in server.process.text()
        server.process.stop()


def test_numbers_under_a_key_that_is_gone(stack, redis, wxfake):
    url = f"sqlite://{stack.dir}/users.db"
    server = stack.server(redis, wxfake, users__url=url)
    server.inside("PUT", path(), {"phoneNumber": "13900000000"})
    server.process.stop()
    server = stack.server(redis, wxfake, users__url=url, session__encryption_key=OTHER_KEY)
    poll(
        lambda: "phone numbers are encrypted under a key that is not configured"
        in server.process.text(), what="said",
    )
    assert user(server).json["phoneNumber"] is None
    assert server.inside("PUT", path(), {"city": "kept"}).status == 200
    server.process.stop()
    server = stack.server(redis, wxfake, users__url=url)
    assert user(server).json["phoneNumber"] == "13900000000"  # it was not lost


# ---- audit ----

def test_the_audit_log(stack, redis, wxfake):
    file = stack.dir / "audit.log"
    server = stack.server(
        redis, wxfake, users__url=f"sqlite://{stack.dir}/users.db", audit__file=str(file)
    )
    token = login(server, wxfake).token
    phone(server, wxfake, token)
    actor = {"X-Wx-Actor": "alice"}
    name = user(server).json["audit_user"]
    for method, more in (
        ("PUT", ""),
        ("PUT", "/block"),
        ("DELETE", "/block"),
        ("GET", "/export"),
        ("DELETE", ""),
    ):
        assert (
            server.inside(
                method, path(more=more), {} if more == "" and method == "PUT" else None, actor
            ).status < 300
        )
    token = login(server, wxfake).token
    assert server.session(token, "DELETE").status == 204
    last = login(server, wxfake).token
    assert server.call("DELETE", "/v1/user", headers=bearer(last)).status == 204

    def lines():
        return [json.loads(x) for x in pathlib.Path(file).read_text().splitlines()]
    poll(
        lambda: [x for x in lines() if x["event"] == "user_erased" and x["by"] == "user"],
        what="the last line",
    )
    told = [(x["event"], x["by"], x.get("actor")) for x in lines() if x.get("user") == name]
    for event in (
        "user_imported", "user_blocked", "user_unblocked", "user_exported", "user_erased",
    ):
        assert (event, "backend", "alice") in told, told
    assert ("phone_read", "backend", None) in told and ("phone_read", "backend", "alice") in told
    assert ("logout", "user", None) in told and ("user_erased", "user", None) in told


# ---- the program before ----

# noqa: F811
def test_the_schema_that_the_program_before_knows(stack, redis, wxfake, users_url, request):
    """Neither a column nor the version that it checks may change: it goes on to work on the same
    database. What came later are tables and indexes of their own."""
    stack.server(redis, wxfake, users__url=users_url)
    columns = (
        "appid openid unionid phone nickname avatar_url province city country language gender "
        "created_at last_login_at "
        "updated_at"
    ).split()
    if users_url.startswith("sqlite"):
        with sqlite3.connect(stack.dir / "users.db") as db:
            assert db.execute("PRAGMA user_version").fetchone() == (1,)
            assert [c[1] for c in db.execute("PRAGMA table_info(users)")] == columns
    else:
        sql, name = request.getfixturevalue("shared_mariadb").sql, users_url.rpartition("/")[2]
        assert sql(f"SELECT version FROM {name}.wxlogind_schema").split() == ["1"]
        assert [
            line.split("\t")[0]
            for line in sql(f"SHOW COLUMNS FROM {name}.wxlogind_users").splitlines()
        ] == columns


def test_what_the_program_before_writes(stack, redis, wxfake):
    """It writes the row anew as it knows it, and a number in clear: the first loses nothing, the
    second is sealed."""
    server = stack.server(redis, wxfake, users__url=f"sqlite://{stack.dir}/users.db")
    server.inside("PUT", path(), {"phoneNumber": "13900000000"})
    with sqlite3.connect(stack.dir / "users.db") as db:
        row = db.execute("SELECT * FROM users").fetchone()
        assert row[3] is None
        db.execute(f"INSERT OR REPLACE INTO users VALUES ({','.join('?' * len(row))})", row)
    assert user(server).json["phoneNumber"] == "13900000000"
    with sqlite3.connect(stack.dir / "users.db") as db:
        db.execute("UPDATE users SET phone = '13911111111'")
    assert user(server).json["phoneNumber"] == "13911111111"
    assert server.inside("PUT", path(), {"city": "x"}).json["phoneNumber"] == "13911111111"
    with sqlite3.connect(stack.dir / "users.db") as db:
        assert db.execute("SELECT phone FROM users").fetchone() == (None,)
    assert user(server).json["phoneNumber"] == "13911111111"
