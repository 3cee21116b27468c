"""What operators and backends ask: introspection, a user's sessions, the internal token."""
import signal
import threading

import pytest

from conftest import APPID, call, poll


def openid_of(server, token):
    return server.auth(token).headers["X-Wx-Openid"]


def sessions(server, openid, appid=APPID):
    return server.inside("GET", f"/internal/apps/{appid}/users/{openid}/sessions")


def introspect(server, token, **kw):
    return server.inside(
        "POST", "/internal/introspect", f"token={token}",
        {"Content-Type": "application/x-www-form-urlencoded"},
        **kw,
    )


def test_introspection(server, wxfake):
    token = server.login(wxfake.code()).token
    for _ in range(2):  # from Redis, then from memory
        a = introspect(server, token)
        assert (
            a.status == 200
            and a.json["active"] is True
            and a.json["client_id"] == APPID
            and a.json["token_type"] == "Bearer"
        )
        assert a.json["sub"] == openid_of(server, token) and a.json["exp"] - a.json["iat"] in range(
            7 * 86400 - 3, 7 * 86400 + 3
        )
        assert a.headers["Cache-Control"] == "no-store"
    server.session(token, "DELETE")
    for dead in (token, "A" * 43, "malformed", ""):
        a = introspect(server, dead)
        assert (a.status, a.json) == (200, {"active": False})
    a = server.inside(
        "POST", "/internal/introspect", "x=y", {"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert (a.status, a.error) == (400, "invalid_request")
    assert server.inside("GET", "/internal/introspect").headers["Allow"] == "POST"


def test_list_and_end(server, wxfake):
    openid = "oTestOperatorListAndEnd"
    tokens = [
        server.login(wxfake.code(openid=openid), headers={"User-Agent": f'agent "{i}" | \\'}).token
        for i in range(3)
    ]
    other = server.login(wxfake.code()).token
    got = sessions(server, openid)
    assert got.status == 200
    rows = got.json["sessions"]
    assert len(rows) == 3 and all(
        set(s) == {"id", "created_at", "expires_in", "last_seen_at", "ip", "user_agent"}
        for s in rows
    )
    assert {s["user_agent"] for s in rows} == {f'agent "{i}"   \\' for i in range(3)} and {
        s["ip"] for s in rows
    } == {"127.0.0.1"}
    assert not [t for t in tokens if t in got.body.decode()] and all(
        len(s["id"]) == 20 for s in rows
    )
    assert server.auth(tokens[0]).status == 200
    path = f"/internal/apps/{APPID}/users/{openid}/sessions"
    for _ in range(2):  # ended, and ended again
        assert server.inside("DELETE", f"{path}/{rows[0]['id']}").status == 204
    assert len(sessions(server, openid).json["sessions"]) == 2
    assert sorted(server.auth(t).status for t in tokens) == [200, 200, 401]
    assert server.inside("DELETE", path).status == 204
    assert [server.auth(t).json["reason"] for t in tokens] == ["revoked"] * 3
    assert sessions(server, openid).json == {"sessions": []} == sessions(server, "nobody").json
    assert server.auth(other).status == 200
    assert (
        server.inside(
            "DELETE",
            f"/internal/apps/{APPID}/users/{openid_of(server, other)}/sessions/{rows[1]['id']}",
        ).status == 204
    )
    assert server.auth(other).status == 200
    # the wrong user's path does not end it
    theirs = sessions(server, openid_of(server, other)).json["sessions"][0]["id"]
    assert server.inside("DELETE", f"{path}/{theirs}").status == 204
    assert server.auth(other).status == 200


def test_an_app_that_is_configured_no_more(stack, redis, wxfake):
    """Its sessions go on, and can be ended."""
    server = stack.server(redis, wxfake)
    tokens = [server.login(wxfake.code(openid="oTestNoMoreApp")).token for _ in range(3)]
    [first, *_] = sessions(server, "oTestNoMoreApp").json["sessions"]
    server.file.write_text(
        server.file.read_text().replace(f"[app {APPID}]", "[app wx0000000000000001]")
    )
    server.process.signal(signal.SIGHUP)
    poll(lambda: sessions(server, "oTestNoMoreApp").error == "unknown_app", what="reloaded")
    assert [server.auth(t).status for t in tokens] == [200] * 3
    path = f"/internal/apps/{APPID}/users/oTestNoMoreApp/sessions"
    assert server.inside("DELETE", f"{path}/{first['id']}").status == 204
    assert sorted(server.auth(t).status for t in tokens) == [200, 200, 401]
    assert server.inside("DELETE", path).status == 204
    assert [server.auth(t).status for t in tokens] == [401] * 3
    assert server.inside("DELETE", path.replace(APPID, "w" * 65)).error == "invalid_request"


@pytest.mark.parametrize("method, path, status, error", [
    ("GET", "/internal/apps/wxunknown/users/o/sessions", 400, "unknown_app"),
    ("GET", f"/internal/apps/{APPID}/users/%zz/sessions", 400, "invalid_request"),
    ("GET", f"/internal/apps/{APPID}/users/{'x' * 129}/sessions", 400, "invalid_request"),
    ("DELETE", f"/internal/apps/{APPID}/users/o/sessions/short", 400, "invalid_request"),
    ("DELETE", f"/internal/apps/{APPID}/users/o/sessions/{'A' * 19}!", 400, "invalid_request"),
    ("GET", f"/internal/apps/{APPID}/users//sessions", 404, "not_found"),
    ("GET", f"/internal/apps/{APPID}/users/o/sessions/", 404, "not_found"),
    ("GET", f"/internal/apps/{APPID}/users/o/sessions/x/y", 404, "not_found"),
    ("POST", f"/internal/apps/{APPID}/users/o/sessions", 405, "method_not_allowed"),
    ("GET", f"/internal/apps/{APPID}/users/o/sessions/{'A' * 20}", 405, "method_not_allowed"),
])
def test_wrong_paths(server, method, path, status, error):
    a = server.inside(method, path)
    assert (a.status, a.error) == (status, error)
    if status == 405:
        assert a.headers["Allow"] == (
            "GET, HEAD, DELETE" if path.endswith("sessions") else "DELETE"
        )


def test_public_side_has_none_of_it(server):
    for path in (
        f"/internal/apps/{APPID}/users/o/sessions", "/internal/introspect", "/internal/auth",
        "/metrics",
    ):
        assert server.call("GET", path).status == 404


def test_one_device(stack, redis, wxfake):
    """Logins of one user at once on two processes, one session allowed: one is left, the others say
    why."""
    a, b = (stack.server(redis, wxfake, session__max_per_user="1") for _ in range(2))
    for _ in range(5):
        codes = [wxfake.code(openid="oTestOneDevice") for _ in range(12)]
        tokens = []
        threads = [
            threading.Thread(target=lambda s=s, c=c: tokens.append(s.login(c).token))
            for s, c in zip([a, b] * 6, codes)
        ]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        answers = [a.auth(t) for t in tokens]
        assert sorted(x.status for x in answers) == [200] + [401] * 11
        assert {x.json["reason"] for x in answers if x.status == 401} == {"replaced"}
        assert len(sessions(b, "oTestOneDevice").json["sessions"]) == 1


def test_oldest_first(stack, redis, wxfake):
    server = stack.server(redis, wxfake, session__max_per_user="2")
    tokens = [server.login(wxfake.code(openid="oTestOldestFirst")).token for _ in range(4)]
    assert [server.auth(t).status for t in tokens] == [401, 401, 200, 200]


def test_internal_token(stack, redis, wxfake):
    server = stack.server(
        redis, wxfake, wait=False, server__internal_token="a-token-of-the-internal-side"
    )
    good, bearer = {"X-Internal-Token": "a-token-of-the-internal-side"}, {
        "Authorization": "Bearer a-token-of-the-internal-side"
    }
    poll(lambda: server.inside("GET", "/readyz").status == 200, what="ready")
    token = server.login(wxfake.code()).token
    for path in ("/metrics", f"/internal/apps/{APPID}/users/o/sessions"):
        for headers in (None, {"X-Internal-Token": "wrong"}, {"Authorization": "Bearer wrong"}):
            a = server.inside("GET", path, headers=headers)
            assert (a.status, a.error) == (
                401, "unauthorized",
            ) and "invalid_session" not in a.body.decode()
        assert (
            server.inside("GET", path, headers=good).status
            == 200
            == server.inside("GET", path, headers=bearer).status
        )
    assert server.auth(token).error == "unauthorized"
    assert server.auth(token, headers=good).status == 200
    # there Authorization is the user's
    assert server.inside("GET", "/internal/auth", headers=bearer).error == "unauthorized"
    a = call(
        server.internal, "POST", "/internal/introspect", f"token={token}",
        {**bearer, "Content-Type": "application/x-www-form-urlencoded"},
    )
    assert a.json["active"] is True
