"""HTTP as hostile clients and odd proxies send it. Raw sockets: what arrives is what is written
here."""
import concurrent.futures
import contextlib
import json
import socket

import pytest

from conftest import poll

GET = b"GET /v1/session HTTP/1.1\r\nHost: x\r\n"
CLOSE = b"Connection: close\r\n"


def statuses(out):
    """The status of each answer in a row of them; every one must be whole."""
    found = []
    while out:
        head, _, rest = out.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        assert lines[0].startswith(b"HTTP/1.1 "), out[:200]
        fields = {
            k.strip().lower(): v.strip() for k, _, v in (line.partition(b":") for line in lines[1:])
        }
        length = int(fields.get(b"content-length", 0))
        assert len(rest) >= length
        found.append(int(lines[0].split()[1]))
        out = rest[length:]
    return found


def login_bytes(code, extra=b""):
    body = json.dumps({"code": code}).encode()
    return (
        b"POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n%s\r\n%s"
        % (len(body), extra, body)
    )


def test_what_is_refused_keeps_its_id(server):
    """As far as its head had come."""
    for rest in (
        b"Content-Length: 65537\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n10001\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nx\r\n",
    ):
        out = server.raw(
            b"POST /v1/login HTTP/1.1\r\nHost: x\r\nX-Request-Id: the-callers-own\r\n" + rest
        )
        assert statuses(out)[0] in (400, 413)
        assert b"\r\nX-Request-Id: the-callers-own\r\n" in out and out.endswith(
            b'"request_id":"the-callers-own"}'
        )


def test_cut_at_every_byte(server):
    request = GET.replace(b"/v1/session", b"/v1/session?a=b") + CLOSE + b"\r\n"
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        def cut(i):
            with socket.create_connection(("127.0.0.1", server.port), timeout=10) as s:
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                s.sendall(request[:i])
                # the loop has turned: the two halves are two reads
                assert server.inside("GET", "/healthz").status == 200
                s.sendall(request[i:])
                out = b""
                while piece := s.recv(4096):
                    out += piece
                return statuses(out)
        assert list(pool.map(cut, range(1, len(request)))) == [[401]] * (len(request) - 1)
    assert (
        server.metric("wxlogind_http_requests_total", route="/v1/session", status="401")
        == len(request) - 1
    )


def test_a_login_byte_by_byte(server, wxfake):
    request = login_bytes(wxfake.code(), CLOSE)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(len(request)):
            s.sendall(request[i:i + 1])
        assert statuses(b"".join(iter(lambda: s.recv(4096), b""))) == [200]


@pytest.mark.parametrize(
    "n, status",
    [(1000, 404), (5000, 404), (8100, 404), (8191 - 13, 404), (8191 - 12, 414), (70000, 414)],
)
def test_long_uris(server, n, status):
    assert statuses(
        server.raw(b"GET /" + b"a" * (n - 1) + b" HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n")
    ) == [status]


def test_pipelined_in_order(server, wxfake):
    a, b = wxfake.code(), wxfake.code()
    wxfake.fault(mode="slow", delay_ms=200)
    out = server.raw(
        login_bytes(a)
        + GET
        + b"\r\n"
        + login_bytes(b)
        + b"GET /nope HTTP/1.1\r\nHost: x\r\n"
        + CLOSE
        + b"\r\n"
    )
    assert statuses(out) == [200, 401, 200, 404]


def test_a_hundred_in_one_packet(server):
    assert statuses(server.raw((GET + b"\r\n") * 99 + GET + CLOSE + b"\r\n")) == [401] * 100


def test_empty_lines_between(server):
    assert statuses(server.raw(b"\r\n" + GET + b"\r\n\r\n\r\n" + GET + CLOSE + b"\r\n")) == [
        401, 401,
    ]


SECOND = b"GET /v1/login HTTP/1.1\r\nHost: x\r\n\r\n"  # a 405, were it ever answered


@pytest.mark.parametrize(
    "request_bytes, status",
    [
        (
            b"POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            b"POST /v1/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
            b"Content-Length: 5\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            b"POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n",
            400,
        ),
        (
            b"POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            400,
        ),
        (b"POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\n", 400),
        (b"POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: 0x5\r\n\r\n", 400),
        (b"POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\n", 400),
        (b"POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n", 400),
        (
            b"POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551616\r\n\r\n",
            413,
        ),
        (b"POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: 65537\r\n\r\n", 413),
        (b"POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n\r\n", 400),
        (b"POST /v1/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"POST /v1/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n", 501),
        (
            b"POST /v1/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"POST /v1/login HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (
            b"POST /v1/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"10000000000000003\r\nabc\r\n0\r\n\r\n",
            413,
        ),
        (
            b"POST /v1/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\xb03\r\n"
            b"abc\r\n0\r\n\r\n",
            400,
        ),
        (
            b"POST /v1/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n"
            b"0\r\n\r\n",
            400,
        ),
        (
            b"POST /v1/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n"
            b"abcd\r\n0\r\n\r\n",
            400,
        ),
        (b"GET /v1/session HTTP/1.1\nHost: x\n\n", 400),
        (b"GET /v1/session HTTP/1.1\r\nHost: x\nX: y\r\n\r\n", 400),
        (b"GET /v1/session HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n", 400),
        (b"GET /v1/session HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n", 400),
        (b"GET /v1/session HTTP/1.1\r\nHost: x\r\n\tfolded\r\n\r\n", 400),
        (b"GET /v1/session HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", 400),
        (b"GET /v1/session HTTP/1.1\r\nHost: x\r\n: no name\r\n\r\n", 400),
        (b"GET /v1/session HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n", 400),
        (b"GET /v1/session\x00/x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /v1/session#x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /v1/\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /v1/session HTTP/1.1\r\n\r\n", 400),
        (b"GET /v1/session HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET /v1/session HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"GET /v1/session HTTP/99.99\r\nHost: x\r\n\r\n", 400),
        (b"GET /v1/session\r\n\r\n", 400),
        (b"GET  /v1/session HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"G@T /v1/session HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET v1/session HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /v1/session HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 100 + b"\r\n", 431),
        (b"GET /v1/session HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 8190 + b"\r\n\r\n", 431),
        (
            b"GET /v1/session HTTP/1.1\r\nHost: x\r\n"
            + (b"X: " + b"y" * 4000 + b"\r\n") * 12
            + b"\r\n",
            431,
        ),
    ],
)
def test_one_answer_and_closed(server, wxfake, request_bytes, status):
    out = server.raw(request_bytes + SECOND)
    assert statuses(out) == [status], out
    body = json.loads(out.partition(b"\r\n\r\n")[2])
    assert set(body) >= {"error", "message", "request_id"} and b"Connection: close" in out
    assert wxfake.calls() == 0
    assert server.call("GET", "/v1/session").status == 401


@pytest.mark.parametrize(
    "host, status",
    [
        ("x", 401),
        ("", 401),
        ("a_b.example:8080", 401),
        ("127.0.0.1", 401),
        ("[::1]:80", 401),
        ("x:", 401),
        ("%41b", 401),
        ("a,b", 401),
        ("a b", 400),
        ("a/b", 400),
        ("a@b", 400),
        ("a?b", 400),
        ("[::1", 400),
        ("[]", 400),
        ("::1", 400),
        ("x:80a", 400),
        ("x:80:80", 400),
        ("%4", 400),
        ("a\"b", 400),
        ("\xc3\xa9", 400),
        ("[::1]x", 400),
        ("x:123456", 400),
    ],
)
def test_hosts(server, host, status):
    """RFC 9112 section 3.2: a Host that is none is 400, and so is that of an absolute target."""
    host = host.encode("latin-1")
    assert statuses(
        server.raw(b"GET /v1/session HTTP/1.1\r\nHost: " + host + b"\r\n" + CLOSE + b"\r\n")
    ) == [status]
    if host and host[:1] != b"/" and not set(b" /?") & set(host):
        assert statuses(
            server.raw(
                b"GET http://" + host + b"/v1/session HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n"
            )
        ) == [status]


REFUSALS = [  # what is refused before it is a request, and with what
    (b"GET /v1/session\r\n\r\n", 400),
    (b"GET /v1/session HTTP/1.1\r\nHost: x\r\nOrigin: http://h5.example\r\nno colon\r\n\r\n", 400),
    (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    (
        b"POST /v1/login HTTP/1.1\r\nHost: x\r\nOrigin: http://h5.example\r\n"
        b"Content-Length: 70000\r\n\r\n",
        413,
    ),
    (
        b"GET /v1/session HTTP/1.1\r\nHost: x\r\nOrigin: http://h5.example\r\nX: "
        + b"y" * 8190
        + b"\r\n\r\n",
        431,
    ),
    (b"GET /v1/session HTTP/1.1\r\nHost: x\r\nOrigin: http://h5.example\r\nX: y", 408),
    (
        b"POST /v1/login HTTP/1.1\r\nHost: x\r\nOrigin: http://h5.example\r\n"
        b"Content-Length: 10\r\n\r\n{",
        408,
    ),
    (
        b"POST /v1/login HTTP/1.1\r\nHost: x\r\nOrigin: http://h5.example\r\n"
        b"Transfer-Encoding: gzip\r\n\r\n",
        501,
    ),
    (b"GET /v1/session HTTP/3.0\r\n\r\n", 505),
]


def test_refusals_are_answers_like_others(stack, redis, wxfake):
    """They are not kept by caches, have an id, are readable for pages of allowed origins, and leave
    a line in the log."""
    server = stack.server(
        redis, wxfake, server__cors_origins="http://h5.example", server__client_timeout="1s"
    )
    with concurrent.futures.ThreadPoolExecutor(len(REFUSALS)) as pool:
        answers = list(pool.map(lambda refusal: server.raw(refusal[0]), REFUSALS))
    for out, (request, status) in zip(answers, REFUSALS):
        assert statuses(out) == [status]
        assert b"\r\nCache-Control: no-store\r\n" in out and b"\r\nX-Request-Id: " in out
        assert (b"\r\nAccess-Control-Allow-Origin: http://h5.example\r\n" in out) == (
            b"Origin" in request
        ), out
        assert (
            server.metric(
                "wxlogind_http_requests_total", listener="public", route="none", status=str(status)
            ) >= 1
        )
    lines = [line for line in server.process.text().splitlines() if "request refused" in line]
    assert len(lines) == len(REFUSALS) and all(
        f"status={status}" in "".join(lines) for _, status in REFUSALS
    )


def test_web_pages(stack, redis, wxfake):
    """Who is listed may read answers; an origin's letters have no case; others are told nothing."""
    origins = "https://H5.example, http://localhost:5173"
    server = stack.server(redis, wxfake, server__cors_origins=origins)
    ask = {
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "authorization, content-type",
    }
    allowed = "Access-Control-Allow-Origin"
    for origin in ("https://h5.example", "http://localhost:5173"):
        a = server.call("GET", "/v1/session", headers={"Origin": origin})
        assert (a.status, a.headers[allowed], a.headers["Vary"]) == (401, origin, "Origin")
        a = server.call("OPTIONS", "/v1/user", headers={"Origin": origin, **ask})
        assert (a.status, a.headers[allowed]) == (204, origin), a
        assert "PUT" in a.headers["Access-Control-Allow-Methods"]
        assert "Authorization" in a.headers["Access-Control-Allow-Headers"]
    for origin in ("http://h5.example", "https://h5.example.evil", "null", None):
        headers = {**ask, **({"Origin": origin} if origin else {})}
        for method, status in (("GET", 401), ("OPTIONS", 405)):
            a = server.call(method, "/v1/user", headers=headers)
            assert (a.status, a.headers[allowed], a.headers["Vary"]) == (status, None, "Origin")
    inside = server.inside("GET", "/internal/auth", headers={"Origin": "https://h5.example"})
    assert inside.status == 401 and inside.headers[allowed] is None


@pytest.mark.parametrize("over", [0, 1])
def test_all_header_lines_up_to_the_bound(server, over):
    lines = [b"Host: x\r\n", b"Connection: close\r\n"]
    left = 32 * 1024 + over - sum(map(len, lines))
    for n in (7000, 7000, 7000, 7000, left - 28000):
        lines.append(b"X-Fill: ".ljust(n - 2, b"a") + b"\r\n")
    assert sum(map(len, lines)) == 32 * 1024 + over
    out = server.raw(b"GET /healthz HTTP/1.1\r\n" + b"".join(lines) + b"\r\n")
    assert out.startswith(b"HTTP/1.1 431 " if over else b"HTTP/1.1 200 "), out[:200]


def test_refusals_do_not_fill_the_log(server):
    secret = "A" * 43
    for _ in range(100):
        server.raw(f"GET /v1/{secret} HTTP/1.1\r\nAuthorization: Bearer {secret}\r\n\r\n".encode())
    poll(lambda: "unlogged=" in server.process.text(), what="the rest is counted")
    lines = [line for line in server.process.text().splitlines() if "request refused" in line]
    told = sum(
        int(line.rpartition("unlogged=")[2])
        for line in server.process.text().splitlines()
        if "unlogged=" in line
    )
    assert len(lines) < 60 and len(lines) + told == 100
    assert (
        secret not in server.process.text()
        and 'error=invalid_request' in lines[0]
        and "client=127.0.0.1" in lines[0]
    )


@pytest.mark.parametrize("method", ["FOO", "PATCH", "CONNECT", "get"])
def test_methods_that_nobody_asked_for(server, method):
    """A known address takes the methods it takes, and names them; the connection goes on."""
    out = server.raw(
        method.encode() + b" /v1/login HTTP/1.1\r\nHost: x\r\n\r\n" + GET + CLOSE + b"\r\n"
    )
    assert statuses(out) == [405, 401] and b"Allow: POST\r\n" in out


def test_head_is_get_without_the_body(server, wxfake):
    token = server.login(wxfake.code()).token
    head = (
        b" /v1/session HTTP/1.1\r\nHost: x\r\nX-Third-Session: "
        + token.encode()
        + b"\r\n"
        + CLOSE
        + b"\r\n"
    )
    got, headed = server.raw(b"GET" + head), server.raw(b"HEAD" + head)
    fields = lambda out: {
        line.partition(b":")[0]: line for line in out.partition(b"\r\n\r\n")[0].split(b"\r\n")
    }
    assert (
        headed.endswith(b"\r\n\r\n")
        and fields(got)[b"Content-Length"]
        == fields(headed)[b"Content-Length"]
        != b"Content-Length: 0"
    )
    assert fields(got).keys() == fields(headed).keys()


def test_chunked_bodies(server, wxfake):
    body = json.dumps({"code": wxfake.code()}).encode()
    head = (
        b"POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: CHUNKED\r\n"
        + CLOSE
        + b"\r\n"
    )
    pieces = b"".join(b"1;ext=\"v\"\r\n" + bytes([b]) + b"\r\n" for b in body)
    assert statuses(server.raw(head + pieces + b"0\r\nTrailer: x\r\n\r\n")) == [200]


def test_large_forms_and_bodies(server):
    body = b"code=" + b"a" * 65000
    out = server.raw(
        b"POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        b"Content-Length: %d\r\n"
        % len(body)
        + CLOSE
        + b"\r\n"
        + body
    )
    assert statuses(out) == [400]
    with contextlib.suppress(ConnectionError):  # refused by its length, before it was sent
        out = server.raw(
            b"POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n" + b"a" * 100000
        )
        assert statuses(out) == [413]
    assert server.call("GET", "/v1/session").status == 401


def test_expect_100(server, wxfake):
    body = json.dumps({"code": wxfake.code()}).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as s:
        s.sendall(
            b"POST /v1/login HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n"
            % len(body)
            + CLOSE
            + b"\r\n"
        )
        assert s.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        s.sendall(body)
        assert statuses(b"".join(iter(lambda: s.recv(4096), b""))) == [200]


def test_http_1_0(server):
    out = server.raw(b"GET /v1/session HTTP/1.0\r\n\r\n")
    assert statuses(out) == [401] and b"Connection: close" in out
    out = server.raw(
        b"GET /v1/session HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
        b"GET /v1/session HTTP/1.0\r\n\r\n"
    )
    assert statuses(out) == [401, 401]


def test_absolute_form_and_multipart(server):
    assert statuses(
        server.raw(
            b"GET http://x/v1/session?a=1 HTTP/1.1\r\nHost: x\r\nContent-Type: multipart\r\n"
            + CLOSE
            + b"\r\n"
        )
    ) == [401]


def test_a_half_close_still_gets_its_answer(server, wxfake):
    wxfake.fault(mode="slow", delay_ms=300)
    assert statuses(server.raw(login_bytes(wxfake.code()), half_close=True)) == [200]
