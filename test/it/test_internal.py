"""Who may ask the internal side, and for what."""
import base64
import socket

import pytest

from conftest import APPID, BUILD, Process, free_port, poll

TOKEN = "an-internal-token"
USERS = f"/internal/apps/{APPID}/users/oSomebody/sessions"


@pytest.fixture
def guarded(stack, redis, wxfake):
    return stack.server(redis, wxfake, server__internal_token=TOKEN)


@pytest.mark.parametrize(
    "host, origin, status",
    [
        ("127.0.0.1", None, 200),
        ("127.0.0.1:8081", None, 200),
        ("[::1]:8081", None, 200),
        ("LocalHost:1", None, 200),
        ("", None, 200),
        ("127.0.0.1:8081", "http://127.0.0.1:8081", 200),
        ("localhost", "http://localhost", 200),
        ("evil.example", None, 403),
        ("evil.example:8081", "http://evil.example:8081", 403),
        ("localhost.evil.example", None, 403),
        ("127.0.0.1.evil.example", None, 403),
        ("127.0.0.1", "http://evil.example", 403),
        ("127.0.0.1:1", "http://127.0.0.1:2", 403),
        ("127.0.0.1", "null", 403),
        ("", "http://evil.example", 403),
        ("2130706433", None, 403),
    ],
)
def test_without_a_token_the_host_is_looked_at(server, host, origin, status):
    """A page of another site that a browser beside us shows has that site's name as Host, or as
    Origin (DNS rebinding)."""
    headers = {"Host": host, **({"Origin": origin} if origin else {})}
    a = server.inside("GET", USERS, headers=headers)
    assert (a.status, a.error) == (status, "forbidden" if status == 403 else None)
    assert server.inside("GET", "/metrics", headers=headers).status == status
    for path, answer in (
        ("/healthz", 200),
        ("/readyz", 200),
        ("/internal/auth", 401),
        ("/internal/auth/below", 401),
    ):
        # proxies pass their caller's Host on
        assert server.inside("GET", path, headers=headers).status == answer


def test_no_host_at_all(server):
    assert server.raw(f"GET {USERS} HTTP/1.0\r\n\r\n".encode(), internal=True).startswith(
        b"HTTP/1.1 200"
    )
    out = server.raw(
        f"GET http://evil.example{USERS} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        "Connection: close\r\n\r\n".encode(),
        internal=True,
    )
    assert out.startswith(b"HTTP/1.1 403")  # the target's own counts (RFC 9112 section 3.2.2)


def test_a_unix_socket_is_no_browsers(stack, redis, wxfake):
    path = stack.dir / "s"
    server = stack.server(redis, wxfake)
    text = server.file.read_text().replace(
        f"internal_listen = 127.0.0.1:{server.internal}", f"internal_listen = unix:{path}"
    )
    (stack.dir / "unix.ini").write_text(text.replace(f":{server.port}", f":{free_port()}"))
    process = Process([BUILD / "wxlogind", "-c", stack.dir / "unix.ini"], stack.dir / "unix.log")
    try:
        poll(path.exists, what="the socket")
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(str(path))
            s.sendall(b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
            assert s.recv(4096).startswith(b"HTTP/1.1 200")
    finally:
        process.stop()


def basic(password, user="any"):
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_basic_on_introspection_alone(guarded):
    ask = lambda path, headers, body=None: guarded.inside(
        "POST" if body else "GET", path, body, headers
    )
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for headers in (
        basic(TOKEN), basic(TOKEN, user=""),
        {"Authorization": f"Bearer {TOKEN}"},
        {"X-Internal-Token": TOKEN},
    ):
        assert ask("/internal/introspect", {**form, **headers}, "token=x").json == {"active": False}
    for headers in (
        basic("wrong"), basic(TOKEN + "x"),
        {"Authorization": "Basic !"},
        {"Authorization": "Basic"},
        basic(""),
    ):
        a = ask("/internal/introspect", {**form, **headers}, "token=x")
        # no answer asks for Basic
        assert (a.status, a.headers["WWW-Authenticate"]) == (401, "Bearer")
    for path in (USERS, "/metrics", f"/internal/apps/{APPID}/access-token"):
        assert ask(path, basic(TOKEN)).status == 401
    assert ask("/internal/auth", {**basic(TOKEN)}).status == 401


def test_a_token_makes_the_host_no_matter(guarded):
    assert (
        guarded.inside(
            "GET", USERS,
            headers={"Host": "backend.example", "Origin": "http://x", "X-Internal-Token": TOKEN},
        ).status == 200
    )


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_calls_to_wechat_are_get_and_post(guarded, method):
    a = guarded.inside(
        method, f"/internal/apps/{APPID}/wechat/wxa/x", "body",
        {"X-Internal-Token": TOKEN},
        timeout=5,
    )
    assert (a.status, a.headers["Allow"]) == (405, "GET, POST")


def test_probes_on_the_public_side(stack, redis, wxfake):
    server = stack.server(redis, wxfake)
    assert server.call("GET", "/healthz").json == {"status": "ok"} and server.call(
        "GET", "/readyz"
    ).json == {"status": "ready"}
    redis.kill()
    poll(lambda: server.call("GET", "/readyz").status == 503, what="not ready")
    a = server.call("GET", "/readyz")
    assert a.error == "overloaded" and "edis" not in a.body.decode()
    assert server.call("HEAD", "/healthz").status == 200
