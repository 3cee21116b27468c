"""wxfake alone: its HTTP, and the files of the page."""
import contextlib
import http.client
import json
import re
import socket
import time

import pytest

from conftest import ROOT
from wxfake_client import is_json_type, login


@pytest.mark.parametrize(
    "method, path",
    [
        ("GET", "/fake/nope"),
        ("POST", "/fake/nope"),
        ("DELETE", "/fake/nope"),
        ("GET", "/fake/"),
        ("POST", "/fake/code/"),
        ("GET", "/fake/Stats"),
    ],
)
def test_not_found(wxfake, method, path):
    a = wxfake.call(method, path)
    assert (
        (a.status, a.error) == (404, "not_found")
        and is_json_type(a)
        and a.json["request_id"] == a.headers["X-Request-Id"]
    ), a


@pytest.mark.parametrize(
    "method, path, allow",
    [
        ("GET", "/fake/code", "POST, OPTIONS"),
        ("PUT", "/fake/code", "POST, OPTIONS"),
        ("HEAD", "/fake/expire", "POST, OPTIONS"),
        ("DELETE", "/fake/encrypt", "POST, OPTIONS"),
        ("GET", "/fake/fault", "POST, DELETE, OPTIONS"),
        ("PATCH", "/fake/fault", "POST, DELETE, OPTIONS"),
        ("POST", "/fake/stats", "GET, HEAD, OPTIONS"),
        ("DELETE", "/fake/events", "GET, HEAD, OPTIONS"),
        ("POST", "/", "GET, HEAD"),
        ("DELETE", "/", "GET, HEAD"),
    ],
)
def test_method_not_allowed(wxfake, method, path, allow):
    """Was wrong: a 404, and / took every method."""
    a = wxfake.call(method, path, "{}" if method == "POST" else None)
    assert a.status == 405 and a.headers["Allow"] == allow, a
    assert method == "HEAD" or (a.error == "method_not_allowed" and is_json_type(a))


def test_head(wxfake):
    """Was wrong: 404 for /fake/stats."""
    for path in ("/", "/fake/stats", "/fake/events"):
        a = wxfake.call("HEAD", path)
        assert (a.status, a.body) == (200, b""), path


def test_the_page_at_the_root(wxfake):
    a = wxfake.call("GET", "/")
    assert a.status == 200 and a.headers["Content-Type"] == "text/html; charset=utf-8"
    assert a.body == (ROOT / "test/wxfake/page/index.html").read_bytes()


def policy(a):
    return dict(
        part.strip().partition(" ")[::2] for part in a.headers["Content-Security-Policy"].split(";")
    )


def test_the_page_and_what_it_names_may_do_little(wxfake):
    html = wxfake.call("GET", "/").body.decode()
    named = re.findall(r'(?:src|href)="([^"]+)"', html)
    assert len(named) > 8
    for path in ["/", *named]:
        a = wxfake.call("GET", path)
        assert a.status == 200 and a.body and a.headers["X-Content-Type-Options"] == "nosniff", path
        p = policy(a)
        assert (
            p["default-src"] == "'none'"
            and p["script-src"] == p["style-src"] == "'self'"
            and "unsafe" not in str(p)
        ), path
        assert (
            p["connect-src"] == "'self' http://127.0.0.1:8080"
            and p["frame-ancestors"] == p["base-uri"] == p["form-action"] == "'none'"
        )
    assert not re.search(r"<style|<script>|\son\w+=|\sstyle=|https?://", html)


def test_files_of_the_page_are_what_they_were(wxfake):
    for folder, url in (
        ("test/wxfake/page", "/fake/page"),
        ("miniprogram", "/fake/page/miniprogram"),
    ):
        files = [
            f
            for f in (ROOT / folder).rglob("*")
            if f.is_file()
            and f.suffix in (".js", ".css", ".svg", ".wxml", ".wxss")
            and f.name != "common.d.ts"
            and not {"node_modules", "miniprogram_dist"} & set(f.parts)
        ]
        assert files
        for f in files:
            a = wxfake.call("GET", f"{url}/{f.relative_to(ROOT / folder)}")
            assert a.status == 200, f
            body = a.body
            # each in a scope of its own, as WeChat's tools do it
            if folder == "miniprogram" and f.suffix == ".js":
                head = (
                    f'define("{f.relative_to(ROOT / folder)}", function (require, module, exports, '
                    f'wx, App, Page, getApp) {{'
                ).encode()
                assert body.startswith(head) and body.endswith(b"});\n"), f
                body = body[len(head):-4]
            assert body == f.read_bytes(), f
    assert (
        wxfake.call("GET", "/fake/page/../main.c").status
        == wxfake.call("GET", "/fake/page/").status
        == 404
    )
    assert wxfake.call("GET", "/fake/stats").json["calls"]["other"] == 0


@pytest.mark.parametrize(
    "host, server",
    [
        ("127.0.0.1:9090", "http://127.0.0.1:8080"),
        ("localhost", "http://localhost:8080"),
        ("[::1]:9090", "http://[::1]:8080"),
        ("fake.lan:1", "http://fake.lan:8080"),
        ("a;script-src *", None),
        ("x' https://evil", None),
        ("[::1", None),
        ("a,b", None),
    ],
)
def test_where_wxlogind_is(wxfake, host, server):
    for path in ("/", "/fake/about"):
        with contextlib.closing(
            socket.create_connection(("127.0.0.1", wxfake.port), timeout=10)
        ) as s:
            s.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            head, _, body = (
                b"".join(iter(lambda: s.recv(65536), b"")).decode().partition("\r\n\r\n")
            )
        if server is None and head.startswith("HTTP/1.1 400"):
            continue  # no Host at all, by RFC 9112
        server = server or "http://127.0.0.1:8080"
        if path == "/":
            assert f"connect-src 'self' {server};" in head, head
        else:
            assert json.loads(body)["wxlogind"] == server


def test_where_wxlogind_is_said_to_be(stack):
    w = stack.wxfake(
        "--wxlogind", "https://login.example:8443/at/path", "--app", "wx1:s1", "--app", "wx2:s2"
    )
    about = w.call("GET", "/fake/about").json
    assert (
        about["wxlogind"] == "https://login.example:8443/at/path"
        and about["apps"] == ["wx1", "wx2"]
        and about["redis"] is False
    )
    assert abs(about["at"] / 1000 - time.time()) < 30
    assert policy(w.call("GET", "/"))["connect-src"] == "'self' https://login.example:8443"


def test_what_check_session_says(wxfake):
    def alive():
        return wxfake.call("POST", "/fake/check-session", {"openid": "oMe"}).json["alive"]
    assert alive() is False  # nobody has logged in
    wxfake.code(openid="oMe", kind="phone")
    assert alive() is False
    wxfake.code(openid="oMe")
    assert alive() is True  # WeChat knows the newest wx.login, exchanged or not
    assert wxfake.call("POST", "/fake/expire", {"openid": "oMe"}).status == 204
    assert alive() is False
    login(wxfake, openid="oMe")
    assert alive() is True
    assert wxfake.call("POST", "/fake/check-session", {}).status == 400
    assert (
        wxfake.call("POST", "/fake/check-session", {"openid": "oMe", "appid": "wxno"}).status == 400
    )


def test_web_pages_may_call(wxfake):
    a = wxfake.call("OPTIONS", "/fake/code")
    assert (
        a.status == 204
        and a.headers["Access-Control-Allow-Origin"] == "*"
        and "Content-Type" in a.headers["Access-Control-Allow-Headers"]
    )
    assert {"GET", "POST", "DELETE"} <= set(a.headers["Access-Control-Allow-Methods"].split(", "))
    for a in (
        wxfake.call("POST", "/fake/code"), wxfake.call("GET", "/fake/stats"),
        wxfake.call("GET", "/fake/nope"), wxfake.call("GET", "/fake/code"),
    ):
        assert a.headers["Access-Control-Allow-Origin"] == "*"


def test_one_connection_for_all(wxfake):
    conn = http.client.HTTPConnection("127.0.0.1", wxfake.port, timeout=10)
    with contextlib.closing(conn):
        conn.connect()
        sock = conn.sock
        for path in (
            "/sns/jscode2session?js_code=x", "/nope", "/fake/stats", "/fake/nope", "/",
            "/cgi-bin/token",
        ):
            conn.request("GET", path)
            r = conn.getresponse()
            assert int(r.headers["Content-Length"]) == len(r.read()) and conn.sock is sock


def test_a_body_too_large(wxfake):
    with contextlib.suppress(ConnectionError):
        assert wxfake.call("POST", "/fake/code", "x" * (2 << 20)).status == 413
    assert login(wxfake)
