"""What a hostile or an unusual caller sends through the recipes of docs/forward-auth. Whatever
reaches the backend has the three genuine headers, and no other that any reading of names takes
for one of them. The check never fails for what proxy and backend accept."""
import base64
import contextlib
import hashlib
import http.client
import os
import re
import socket
import threading
import time

import pytest

from conftest import SANITIZED, poll
from test_proxies import (  # noqa: F401: fixtures among them
    MANAGER,
    backend,
    is_401,
    is_503,
    kind,
    proxies,
    proxy,
    recorder,
    wx_expected,
    wx_headers,
)

# of a header's name, RFC 9110 5.6.2: whatever a backend makes an underscore of is among them
SPECIALS = "!#$%&'*+-.^_`|~"
OPENID = "oTheGenuineOne"
REFUSED = (400, 414, 431, 494)  # by the proxy or the backend, for its own reasons
ALL = {
    "nginx": 8100,
    "nginx-headers-more": 8100,
    "nginx-fastcgi": 8100,
    MANAGER: 8100,
    "haproxy": 14000,
    "caddy": 60000,
}  # bytes that certainly pass

DUMP = """<?php
$headers = [];
foreach ($_SERVER as $name => $value)
	if (str_starts_with($name, "HTTP_"))
		$headers[] = [$name, $value];
echo json_encode(["headers" => $headers, "method" => $_SERVER["REQUEST_METHOD"]],
	JSON_INVALID_UTF8_SUBSTITUTE);
"""


@pytest.fixture
def teller(kind, recorder, backend, tmp_path):  # noqa: F811
    """A backend without bounds of its own, and without an opinion: it says which headers came, with
    or without a caller among them."""
    script = tmp_path / "dump.php"
    script.write_text(DUMP)
    recorder.body = None
    return {"backend": backend.port if kind == "nginx-fastcgi" else recorder.port, "script": script}


@pytest.fixture
def front(proxies, server, teller):  # noqa: F811
    return proxies(auth=server.internal, login=server.port, **teller)


@pytest.fixture
def token(server, wxfake):
    return server.login(wxfake.code(openid=OPENID, unionid="oTheGenuineUnion")).token


def genuine(a):
    return a.status in REFUSED or (
        a.status == 200
        and wx_headers(a) == wx_expected(OPENID, "oTheGenuineUnion")
        and b"forged" not in a.body
    )


@pytest.mark.skipif(
    SANITIZED, reason="tries the proxy for long, and wxlogind no further than the others"
)
def test_every_spelling_of_every_name(front, token):
    names = [
        "Openid",
        "Appid",
        "Unionid",
        "From-Openid",
        "From-Appid",
        "From-Unionid",
        "Source",
        "Sources",
        "Env",
        "Expires-In",
        "Reason",
    ]
    if front.kind not in (
        "nginx",
        "nginx-fastcgi",
        MANAGER,
    ):  # these know the names of WeChat's cloud hosting only
        names += ["Open-Id", "Anything", ""]
    forged = [f"X-Wx-{n}" for n in names]
    forged += [
        f"X{a}Wx{b}{n}"
        for a in SPECIALS
        for b in SPECIALS
        for n in ("Openid", "From_Openid")
        if (a, b) != ("-", "-")
    ]
    spells = (str, str.upper, str.lower, str.swapcase)
    # the same lines, in the same nginx
    for spell in spells[:1] if front.kind == MANAGER else spells:
        for name in forged:
            a = front.call("GET", "/", token=token, headers={spell(name): "forged"})
            assert genuine(a), (spell(name), a)
    for first in range(0, len(forged), 60):  # none hides another
        a = front.call(
            "GET", "/", token=token, headers={n: "forged" for n in forged[first : first + 60]}
        )
        assert genuine(a), a
    twice = {
        "X-Wx-Openid": "forged",
        "x-wx-openid": "forged",
        "X_WX_OPENID": "forged",
        "x.Wx.openid": "forged",
    }
    assert genuine(front.call("GET", "/", token=token, headers=twice))
    for name in ("X-Wx-Openid", "X_Wx_Openid", "X.Wx.Openid", "X-WX-FROM-OPENID"):
        is_401(
            front.call("GET", "/", headers={name: "forged", "X-Wx-Source": "wx_client"}), "missing"
        )


def raw(port, head, body=b""):
    """One request as it stands, and its answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as s:
        s.sendall("\r\n".join([*head, "", ""]).encode("latin-1") + body)
        r = http.client.HTTPResponse(s, method=head[0].split()[0])
        r.begin()
        return f"{r.status} {r.headers}".encode() + (r.read() if r.status != 101 else b"")


HOP_BY_HOP = (
    ["Connection: close, X-Wx-Openid"],
    ["Connection: X-Wx-Openid, X-Wx-Appid, X-Wx-Unionid, X-Wx-Source, close"],
    ["Connection: close", "Connection: x-wx-openid"],
    ["Connection: close,x_wx_openid , x.wx.openid", "X_Wx_Openid: forged"],
    ["Connection: close, Authorization, X-Request-Id"],
    ["Connection: close, X-Wx-Openid", "X-Wx-Openid: forged"],
    [
        "Connection: close, Upgrade, X-Wx-Openid",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Upgrade: websocket",
    ],
    [
        "Connection: close, Upgrade, HTTP2-Settings, X-Wx-Openid",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABkAAQAAP__",
    ],
    ["Connection: close", "Proxy-Connection: X-Wx-Openid", "Keep-Alive: X-Wx-Openid"],
    ["Connection: close, TE", "TE: trailers, X-Wx-Openid", "Trailer: X-Wx-Openid"],
)


@pytest.mark.parametrize("extra", HOP_BY_HOP, ids=lambda lines: lines[-1])
def test_hop_by_hop(front, token, extra, recorder):  # noqa: F811
    """A header that Connection names is dropped on the way: the genuine ones must not be."""
    got = raw(front.port, ["GET / HTTP/1.1", "Host: x", f"Authorization: Bearer {token}", *extra])
    assert (
        got.startswith(b"200 ")
        and OPENID.encode() in got
        and b"oTheGenuineUnion" in got
        and b"forged" not in got
    ), got
    for r in recorder.asked:
        assert "wx" not in str(r.headers.get_all("Connection")).lower(), r.headers
        assert r.headers.get("Upgrade", "websocket").lower() == "websocket", r.headers


def test_trailers_are_no_headers(front, token):
    chunks = (
        b"3\r\nabc\r\n0\r\nX-Wx-Openid: forged\r\nX_Wx_Openid: forged\r\n"
        b"X-Wx-From-Openid: forged\r\n\r\n"
    )
    head = [
        "POST / HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {token}",
        "Transfer-Encoding: chunked",
        "Trailer: X-Wx-Openid",
        "Connection: close",
    ]
    if front.kind == "nginx-fastcgi" or front.kind.startswith(
        "nginx"
    ):  # they send the body with its length
        got = raw(front.port, head, chunks)
        assert got.startswith(b"200 ") and OPENID.encode() in got and b"forged" not in got, got
    # the body goes on in chunks, which the recorder does not read: what counts are the headers
    else:
        got = raw(front.port, head, chunks)
        assert b"forged" not in got, got


SIZES = (
    1000,
    4096,
    7900,
    8100,
    8150,
    8176,
    8180,
    8191,
    8192,
    8200,
    9000,
    12000,
    14000,
    15000,
    15900,
    16300,
    20000,
    32000,
    33000,
    60000,
)


def asked_for(front, size, **kw):
    a = front.call("GET", **{"path": "/", **kw})
    assert genuine(a), (size, a)
    assert size > ALL[front.kind] or a.status == 200, (size, a)


@pytest.mark.parametrize("how", ["address", "query", "header", "cookie", "agent"])
def test_long_ones(front, token, how):
    for size in SIZES:
        long = "a" * size
        what = {
            "address": {"path": "/" + long},
            "query": {"path": "/?q=" + long},
            "header": {"headers": {"X-Long": long}},
            "cookie": {"headers": {"Cookie": "c=" + long}},
            "agent": {"headers": {"User-Agent": long}},
        }[how]
        asked_for(front, size, token=token, **what)


def test_many_headers(front, token):
    for count in (50, 90, 95, 98, 99, 100, 101, 102, 120, 200, 900):
        a = front.call(
            "GET", "/", token=token, headers={f"X-Header-{i}": "v" for i in range(count)}
        )
        assert genuine(a), (count, a)
        assert a.status == 200 or (front.kind == "haproxy" and count > 90), (
            count,
            a,
        )  # tune.http.maxhdr


def test_long_credentials(front, server, token):
    """What cannot be a session is none, however long it is; and what is for somebody else is no
    obstacle."""
    for size in (200, 251, 257, 1000, 4096, 7000, 8000, 8180, 9000, 14000, 60000):
        for name, value, also in (
            ("Authorization", "Bearer " + "A" * size, {}),
            ("X-Third-Session", "A" * size, {}),
            ("Authorization", "Bearer " + "A" * size, {"X-Third-Session": token}),
        ):
            a = front.call("GET", "/", headers={name: value, **also})
            assert a.status in REFUSED or is_401(a, "malformed") is None, a
            assert size + 20 > ALL[front.kind] or a.status == 401, (size, a)
        a = front.call(
            "GET",
            "/",
            headers={"Authorization": "Negotiate " + "A" * size, "X-Third-Session": token},
        )
        assert genuine(a) and (size + 100 > ALL[front.kind] or a.status == 200), (size, a)


@pytest.mark.parametrize("byte", ["\x01", "\x09", "\x1f", "\x7f", "\x80", "\xff"], ids=ascii)
def test_odd_bytes(front, token, byte):
    """In any header that is sent on to wxlogind, and in some that are not."""
    for headers in (
        {"X-Request-Id": f"a{byte}b"},
        {"Cookie": f"a{byte}b"},
        {"User-Agent": f"a{byte}b"},
        {"X-Forwarded-For": f"a{byte}b"},
        {"X-Third-Session": f"a{byte}b"},
    ):
        a = front.call("GET", "/", token=token, headers=headers)
        assert genuine(a), (headers, a)
    for headers in (
        {"Authorization": f"Bearer {'A' * 20}{byte}{'A' * 22}"},
        {"X-Third-Session": f"{'A' * 20}{byte}{'A' * 22}"},
    ):
        a = front.call("GET", "/", headers=headers)
        assert a.status in REFUSED or is_401(a, "malformed") is None, (headers, a)


def test_twice(front, token):
    """Two sessions in one request: 401, or the first of them; never a fault of the check."""
    other = "B" * 43
    for lines in (
        [f"Authorization: Bearer {token}", f"Authorization: Bearer {other}"],
        [f"X-Third-Session: {token}", f"X-Third-Session: {other}"],
        [f"Authorization: Bearer {token}"] * 100,
        [f"X-Third-Session: {token}"] * 100,
        [f"X-Request-Id: {i}" for i in range(90)],
        ["Host: y"],
    ):
        got = raw(front.port, ["GET / HTTP/1.1", "Host: x", "Connection: close", *lines])
        status = int(got.split()[0])
        assert status in (200, 401, *REFUSED), got
        assert status != 200 or OPENID.encode() in got, got


# ---- what is no plain request ----

WEBSOCKET = [
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
]


class Echo:
    """Answers a websocket's handshake, then gives back every byte."""

    def __init__(self):
        self.listener, self.heads = socket.create_server(("127.0.0.1", 0)), []
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(
                    target=self.serve, args=(self.listener.accept()[0],), daemon=True
                ).start()

    def serve(self, s):
        head = b""
        with s, contextlib.suppress(OSError):
            while b"\r\n\r\n" not in head:
                piece = s.recv(65536)
                if not piece:
                    return
                head += piece
            self.heads.append(head.decode())
            if "upgrade: websocket" not in head.decode().lower():
                s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nplain")
                return
            accept = base64.b64encode(
                hashlib.sha1(
                    b"dGhlIHNhbXBsZSBub25jZQ==258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
                ).digest()
            )
            s.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: "
                + accept
                + b"\r\n\r\n"
            )
            while piece := s.recv(65536):
                s.sendall(piece)


def test_websockets(proxies, server, token, kind):  # noqa: F811
    if kind == "nginx-fastcgi":
        pytest.skip("FastCGI has none")
    echo = Echo()
    front = proxies(auth=server.internal, login=server.port, backend=echo.port)
    echo.heads.clear()
    with socket.create_connection(("127.0.0.1", front.port), timeout=10) as s:
        s.sendall(
            "\r\n".join(
                [
                    "GET /chat HTTP/1.1",
                    "Host: x",
                    f"Authorization: Bearer {token}",
                    "X-Wx-Openid: forged",
                    *WEBSOCKET,
                    "",
                    "",
                ]
            ).encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            head += s.recv(4096)
        assert head.startswith(b"HTTP/1.1 101 ") and b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head, head
        s.sendall(b"\x81\x85\x00\x00\x00\x00hello")
        assert s.recv(100) == b"\x81\x85\x00\x00\x00\x00hello"
    assert (
        f"x-wx-openid: {OPENID}" in echo.heads[0].lower().replace(OPENID.lower(), OPENID)
        and "forged" not in echo.heads[0]
    )
    echo.heads.clear()
    refused = raw(front.port, ["GET /chat HTTP/1.1", "Host: x", *WEBSOCKET])
    assert refused.startswith(b"401 ") and not echo.heads
    # no other protocol, not even beside it: a tunnel that the check would not see into
    others = (
        ["h2c"],
        ["TLS/1.0"],
        ["websocket, h2c"],
        ["h2c, websocket"],
        ["websocket", "h2c"],
        ["h2c", "websocket"],
    )
    for other in others:
        for keys in ([], WEBSOCKET[2:]):
            lines = [f"Upgrade: {o}" for o in other] + keys
            head = [
                "GET / HTTP/1.1", "Host: x", f"Authorization: Bearer {token}",
                "Connection: Upgrade",
            ]
            raw(front.port, [*head, *lines])
    reached = [re.findall(r"^upgrade: *(.*?)\r$", h, re.M | re.I) for h in echo.heads]
    assert all([u.lower() for u in found] in ([], ["websocket"]) for found in reached), echo.heads
    echo.listener.close()


PREFLIGHT = {
    "Origin": "https://h5.example.com",
    "Access-Control-Request-Method": "PUT",
    "Access-Control-Request-Headers": "authorization",
}


def test_preflights_reach_the_backend(front, token, server):
    """A browser sends no session with them. They get no X-Wx-* header either, whatever the caller
    forged; and nothing else gets through so."""
    forged = {
        "X-Wx-Openid": "forged",
        "X_Wx_Openid": "forged",
        "X-Wx-Source": "forged",
        "X-Wx-From-Openid": "forged",
    }
    for headers in (
        PREFLIGHT,
        {**PREFLIGHT, **forged},
        {**PREFLIGHT, "Connection": "close, X-Wx-Openid"},
    ):
        a = front.call("OPTIONS", "/api/anything?x=1", headers=headers)
        assert a.status == 200 and wx_headers(a) == [] and b"forged" not in a.body, a
    for method, headers in (
        ("GET", PREFLIGHT),
        ("POST", PREFLIGHT),
        ("OPTIONS", {"Origin": "https://h5.example.com"}),
        ("OPTIONS", {}),
        ("OPTIONS", {"Access-Control-Request-Method": "PUT"}),
        ("GET", {**PREFLIGHT, "X-HTTP-Method-Override": "OPTIONS"}),
    ):
        is_401(front.call(method, "/", headers=headers), "missing")
    a = front.call("OPTIONS", "/", headers={"Origin": "https://h5.example.com"}, token=token)
    assert genuine(a) and a.status == 200
    server.process.stop()
    assert front.call("OPTIONS", "/", headers=PREFLIGHT).status == 200
    is_503(front.call("OPTIONS", "/", headers={"Origin": "https://h5.example.com"}))


def test_large_uploads_without_a_session(front, recorder):  # noqa: F811
    body, before = os.urandom(10_000_000), len(recorder.asked)
    with contextlib.suppress(
        BrokenPipeError, ConnectionResetError
    ):  # the answer may come before the body has been read
        is_401(front.call("POST", "/upload", body), "missing")
    assert len(recorder.asked) == before


# ---- idle connections ----


class Keeper:
    """Answers every request at once, keeps the connection, and notes how long each stood idle until
    the other side closed it."""

    def __init__(self):
        self.listener, self.idle, self.open = socket.create_server(("127.0.0.1", 0)), [], 0
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(
                    target=self.serve, args=(self.listener.accept()[0],), daemon=True
                ).start()

    def serve(self, s):
        self.open += 1
        last = None
        with s, contextlib.suppress(OSError):
            while s.recv(65536):
                s.sendall(
                    b"HTTP/1.1 200 OK\r\nX-Wx-Openid: o\r\nX-Wx-Appid: a\r\nX-Wx-Unionid: \r\n"
                    b"Content-Length: 0\r\n\r\n"
                )
                last = time.monotonic()
        if last:
            self.idle.append(time.monotonic() - last)
        self.open -= 1


@pytest.mark.skipif(
    SANITIZED, reason="tries the proxy for long, and wxlogind no further than the others"
)
def test_the_proxy_closes_idle_connections_first(proxies, backend):  # noqa: F811
    """Before client_timeout (15 s) does, which would cut a request that is just being sent."""
    wxlogind = Keeper()
    front = proxies(auth=wxlogind.port, login=wxlogind.port, backend=backend.port)
    threads = [
        threading.Thread(target=front.call, args=(m, p, b"x" if m == "POST" else None))
        for m, p in (("GET", "/"), ("POST", "/v1/login"), ("GET", "/v1/session")) * 10
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    poll(lambda: wxlogind.open == 0, seconds=40, what="all closed")
    assert wxlogind.idle and max(wxlogind.idle) < 14, wxlogind.idle
    wxlogind.listener.close()
