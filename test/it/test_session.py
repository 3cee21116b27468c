"""The session a login gave: asked about, renewed, ended."""
import base64

import pytest

from conftest import APPID, leaks, poll


def test_get_and_delete(server, wxfake):
    token = server.login(wxfake.code()).token
    a = server.session(token)
    assert (
        a.status == 200
        and a.json["appid"] == APPID
        and set(a.json) == {"appid", "expires_in", "created_at"}
    )
    assert server.call("GET", "/v1/session", headers={"X-Third-Session": token}).status == 200
    assert server.call("HEAD", "/v1/session", headers={"X-Third-Session": token}).status == 200
    assert server.session(token, "DELETE").status == 204
    for a in (server.session(token), server.auth(token)):
        assert (a.status, a.error, a.json["reason"]) == (401, "invalid_session", "logged_out")
        assert (
            a.headers["WWW-Authenticate"]
            == 'Bearer error="invalid_token", error_description="logged_out"'
        )
    assert server.session(token, "DELETE").status == 204
    assert server.call("DELETE", "/v1/session").status == 204


@pytest.mark.parametrize(
    "headers, reason",
    [
        ({}, "missing"),
        ({"Authorization": "Basic eDp5"}, "missing"),
        ({"Authorization": "Bearer"}, "missing"),
        ({"Authorization": "Bearer x"}, "malformed"),
        ({"Authorization": "Bearer " + "A" * 44}, "malformed"),
        ({"Authorization": "Bearer " + "A" * 42 + "B"}, "malformed"),
        ({"X-Third-Session": "!" * 43}, "malformed"),
        ({"Authorization": "bearer " + "A" * 43}, "unknown"),
        ({"X-Third-Session": "A" * 43}, "unknown"),
    ],
)
def test_why_not(server, headers, reason):
    for a in (
        server.call("GET", "/v1/session", headers=headers),
        server.inside("POST", "/internal/auth/some/path?x=1", "body", headers),
    ):
        assert (a.status, a.json["reason"]) == (401, reason), a


def test_any_method_asks(server, wxfake):
    token = server.login(wxfake.code()).token
    for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "REPORT"):
        assert (
            server.inside(
                method, "/internal/auth/x", headers={"Authorization": f"Bearer {token}"}
            ).status == 200
        ), method
    assert (
        server.inside("GET", "/internal/authx", headers={"Authorization": f"Bearer {token}"}).status
        == 404
    )


def test_unionid_of_the_newest_login(stack, redis, wxfake):
    """An account that is bound later: sessions made before tell its unionid too, on every process,
    from memory or not."""
    a, b = (stack.server(redis, wxfake) for _ in range(2))
    login = lambda unionid: a.login(wxfake.code(openid="oTestUnionidLater", unionid=unionid)).token
    said = lambda server, token: server.auth(token).headers["X-Wx-Unionid"]
    first = login("")
    for server in (a, b):
        for _ in range(2):
            assert said(server, first) == ""
    for unionid, told in (("uOne", "uOne"), ("", "uOne"), ("uTwo", "uTwo")):
        token = login(unionid)
        assert said(a, token) == told == said(a, first)
        poll(lambda: said(b, first) == told, seconds=0.5, what="heard by the other process")
        assert said(b, token) == told


def test_it_ends_unused(stack, redis, wxfake):
    server = stack.server(redis, wxfake, session__ttl="1s")
    token = server.login(wxfake.code()).token
    assert server.auth(token).status == 200
    poll(lambda: server.auth(token, "?renew=0").status == 401, 5, "its end")
    assert server.auth(token).json["reason"] == "unknown"


def test_internal_token(stack, redis, wxfake):
    server = stack.server(redis, wxfake, server__internal_token="open-sesame")
    token = server.login(wxfake.code()).token
    assert server.auth(token).error == "unauthorized"
    assert server.auth(token, headers={"X-Internal-Token": "open sesamf"}).error == "unauthorized"
    assert server.auth(token, headers={"X-Internal-Token": "open-sesame"}).status == 200
    assert server.inside("GET", "/metrics").status == 401
    assert (
        server.inside("GET", "/metrics", headers={"Authorization": "Bearer open-sesame"}).status
        == 200
    )
    assert (
        server.inside("GET", "/healthz").status == 200
        and server.inside("GET", "/readyz").status == 200
    )


def test_sides_and_methods(server):
    assert server.call("GET", "/internal/auth").status == 404
    assert server.inside("POST", "/v1/login", {}).status == 404
    a = server.call("GET", "/v1/login")
    assert (a.status, a.error, a.headers["Allow"]) == (405, "method_not_allowed", "POST")
    a = server.call("PUT", "/v1/session")
    assert (
        a.status == 405
        and a.headers["Allow"] == "GET, HEAD, DELETE"
        or a.headers["Allow"] == "GET, DELETE, HEAD"
    )
    assert server.call("GET", "/v1/login/").status == 404


def test_request_ids(server):
    assert (
        server.call("GET", "/x", headers={"X-Request-Id": "mine-1"}).headers["X-Request-Id"]
        == "mine-1"
    )
    for bad in ("a b", "x" * 65, "<script>"):
        assert (
            server.call("GET", "/x", headers={"X-Request-Id": bad}).headers["X-Request-Id"] != bad
        )


def test_the_search_for_leaks_finds_what_is_there(stack, redis, wxfake):
    """The teardown of every test looks for secrets: this one sees that it can find them."""
    server = stack.server(redis, wxfake, session__encryption_key="")
    token = server.login(wxfake.code()).token
    assert leaks(stack.made) == []
    server.sealed = True  # as if its session_keys were meant to be sealed
    assert len(leaks(stack.made)) == 1
    server.sealed = False
    redis.cli("SET", "oops", token)
    assert len(leaks(stack.made)) == 1
    server.tokens.clear()


def test_what_stands_in_a_path_is_not_logged(server, wxfake):
    token = server.login(wxfake.code()).token
    [openid] = wxfake.openids
    server.call("GET", f"/v1/session/{token}")
    server.inside("GET", f"/internal/apps/{APPID}/users/{openid}/sessions")
    server.inside("GET", f"/internal/auth/{token}")
    server.raw(f"{token} / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    log = poll(lambda: (text := server.process.text()) and "method=" + token[:16] in text and text)
    assert (
        f"path=/v1/session/{token[:16]}~" in log
        and "route=/internal/apps/{appid}/users/{openid}/sessions" in log
    )
    # the teardown looks for the token and the openid


def test_session_key_is_sealed_in_redis(server, redis, wxfake):
    assert server.login(wxfake.code()).status == 200
    [key] = wxfake.session_keys()
    written = redis.written()
    assert (
        len(key) == 24
        and key not in written
        and base64.b64decode(key).decode("latin-1") not in written
        and "|4~" in written
    )
