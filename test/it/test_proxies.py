"""The forward-auth recipes of docs/forward-auth, each in its real proxy, before the example
backend. test_proxy_attacks.py has what a hostile caller tries."""
import collections
import contextlib
import hashlib
import http.client
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading

import pytest

from conftest import APPID, ROOT, SANITIZED, Process, call, free_port, poll

RECIPES = ROOT / "docs" / "forward-auth"
MANAGER = "nginx-proxy-manager"
KINDS = ("nginx", "nginx-headers-more", "nginx-fastcgi", MANAGER, "caddy", "haproxy")
# What Nginx Proxy Manager puts around its users' own lines, as far as it could get into a recipe's
# way: headers, limits and locations of its own. HTTP_TOP is its /data/nginx/custom/http_top.conf,
# ADVANCED the box of a proxy host with websockets switched on.
AROUND = """events {}
http {
	keepalive_timeout 90s;
	proxy_connect_timeout 90s;
	proxy_send_timeout 90s;
	proxy_read_timeout 90s;
	client_max_body_size 2000m;
	proxy_http_version 1.1;
	proxy_set_header X-Forwarded-Scheme $scheme;
	proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
	proxy_set_header Accept-Encoding "";
	HTTP_TOP
	server {
		set $forward_scheme http;
		set $server 127.0.0.1;
		set $port 3000;
		listen 8000;
		server_name localhost 127.0.0.1;
		proxy_set_header Upgrade $http_upgrade;
		proxy_set_header Connection $http_connection;
		ADVANCED
		location ~ ^/.well-known/acme-challenge/ {
			auth_request off;
			root /nonexistent;
		}
	}
}
"""
TOKEN = "an-internal-token-of-the-tests"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
Asked = collections.namedtuple("Asked", "connection method path headers body")


def end(process):
    if process.proc.poll() is None:
        process.proc.terminate()
    try:
        process.proc.wait(10)
    except subprocess.TimeoutExpired:
        process.proc.kill()
        process.proc.wait()


class Proxy:
    """A recipe with its documented addresses replaced, and with internal_token where one is
    given."""

    def __init__(
        self, directory, kind, auth, login, backend, internal_token=None,
        script=RECIPES / "backend.php",
    ):
        self.kind, self.port, self.script = kind, free_port(), script
        self.env = {
            "HOME": str(directory), "XDG_DATA_HOME": str(directory),
            "XDG_CONFIG_HOME": str(directory),
        }
        self.changes = {
            "127.0.0.1:8081": f"127.0.0.1:{auth}", "127.0.0.1:8080": f"127.0.0.1:{login}",
            "127.0.0.1:3000": f"127.0.0.1:{backend}",
        }
        if internal_token:
            self.changes.update(
                {
                    "#proxy_set_header X-Int": "proxy_set_header X-Int",
                    "#header_up X-Int": "header_up X-Int",
                    "#setenv": "setenv",
                    "change me": internal_token,
                }
            )
        directory.mkdir()
        argv = getattr(self, kind.split("-")[0])(directory)
        self.process = Process(argv, directory / "log", env=self.env)
        try:
            poll(self.is_up, what=kind)
        except BaseException:
            end(self.process)
            raise

    def recipe(self, directory, name, changes):
        text = (RECIPES / name).read_text()
        changes = {**self.changes, **changes}
        for literal in changes:
            assert literal in text or literal in self.changes, f"{name} does not hold {literal}"
        text = re.sub("|".join(map(re.escape, changes)), lambda m: changes[m[0]], text)
        (directory / name).write_text(text)
        return directory / name

    def manager_config(self, d, changes):
        """nginx.conf in the two parts that docs/gateways.md makes of it for Nginx Proxy Manager."""
        text = (RECIPES / "nginx.conf").read_text()
        top, server = re.search(
            r"http \{\n(.*)\n\tserver \{\n(.*)\n\t\}\n\}\n", text, re.S
        ).groups()
        server = server.replace("\t\tlisten 8000;\n", "")
        server = server.replace("http://127.0.0.1:3000;", "$forward_scheme://$server:$port;")
        assert "listen" not in server and "127.0.0.1" not in server
        config = AROUND.replace("HTTP_TOP", top).replace("ADVANCED", server)
        backend = self.changes["127.0.0.1:3000"].split(":")[1]
        changes = {**self.changes, **changes, "set $port 3000": f"set $port {backend}"}
        (d / "nginx.conf").write_text(
            re.sub("|".join(map(re.escape, changes)), lambda m: changes[m[0]], config)
        )
        return d / "nginx.conf"

    def nginx(self, d):
        temp = "".join(
            f"{what}_temp_path {d}/{what};"
            for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        changes = {
            "listen 8000": f"listen 127.0.0.1:{self.port}",
            "http {": "http { access_log off; " + temp,
        }
        if self.kind == "nginx-headers-more":
            changes.update({"#load_module": "load_module", "#more_clear": "more_clear"})
        name = "nginx.conf"
        if self.kind == "nginx-fastcgi":
            name = "nginx-fastcgi.conf"
            changes["/var/www/app/index.php"] = str(self.script)
        user = "user root; " if os.geteuid() == 0 else ""
        made = (
            self.manager_config(d, changes)
            if self.kind == MANAGER
            else self.recipe(d, name, changes)
        )
        return ["nginx", "-p", d, "-c", made, "-e", "stderr",
                "-g", f"{user}daemon off; pid {d}/pid; error_log stderr info;"]

    def caddy(self, d):
        self.env["CADDY_ADMIN"] = f"127.0.0.1:{free_port()}"
        return ["caddy", "run", "--adapter", "caddyfile", "--config",
                self.recipe(d, "Caddyfile", {":8000 {": f":{self.port} {{\n\tbind 127.0.0.1"})]

    def haproxy(self, d):
        own = {"abns@wx_auth": f"abns@wx_auth_{self.port}"}
        lua = self.recipe(d, "wxlogind.lua", own)
        return [
            "haproxy", "-f",
            self.recipe(
                d, "haproxy.cfg",
                {
                    **own, "bind :8000": f"bind 127.0.0.1:{self.port}",
                    "/etc/haproxy/wxlogind.lua": str(lua),
                },
            ),
        ]

    def is_up(self):
        assert self.process.proc.poll() is None, self.process.text()
        with contextlib.suppress(OSError):
            return self.call("GET", "/are-you-up").status

    def call(self, method, path, body=None, headers=None, token=None, **kw):
        return call(
            self.port, method, path, body,
            {**({"Authorization": f"Bearer {token}"} if token else {}), **(headers or {})},
            **kw,
        )


http.client._MAXHEADERS = 10000  # also of what http.server takes: here the proxies set the limits


class Recorder:
    """A server that keeps what it was asked, and answers as told: with body, or with what
    backend.py says of the request."""

    def __init__(self, body=b""):
        self.asked, self.status, self.headers, self.body, connections = [], 200, {}, body, []
        recorder = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1

            def setup(self):
                super().setup()
                connections.append(self)
                self.number = len(connections)

            def any(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                told = (
                    json.dumps({"headers": self.headers.items()}).encode()
                    if recorder.body is None
                    else recorder.body
                )
                recorder.asked.append(
                    Asked(self.number, self.command, self.path, self.headers, body)
                )
                self.send_response(recorder.status)
                for name, value in {**recorder.headers, "Content-Length": str(len(told))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(told)

            do_GET = do_POST = do_PUT = do_DELETE = do_OPTIONS = any

            def log_message(self, *args):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.port = self.http.server_address[1]
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,))
        self.thread.start()

    def stop(self):
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture(params=KINDS)
def kind(request):
    if request.param == MANAGER and SANITIZED:
        pytest.skip("nginx.conf in another frame: wxlogind is tried no further than by nginx")
    assert shutil.which(
        request.param.split("-")[0], path=os.environ["PATH"] + ":/usr/sbin"
    ), f"{request.param} is not installed"
    return request.param


def php(port, log):
    return Process(
        ["php-cgi", "-d", "post_max_size=0", "-b", f"127.0.0.1:{port}"],
        log, env={"PHP_FCGI_CHILDREN": "3"},
    )


@pytest.fixture
def backend(tmp_path, kind):
    port = free_port()
    if kind == "nginx-fastcgi":
        p = php(port, tmp_path / "backend.log")
    else:
        p = Process([sys.executable, RECIPES / "backend.py", port], tmp_path / "backend.log")

    def is_up():
        with contextlib.suppress(OSError):
            if kind == "nginx-fastcgi":
                return not socket.create_connection(("127.0.0.1", port), 1).close()
            return call(port, "GET", "/are-you-up").status == 403

    try:
        poll(is_up, what="backend")
        p.port = port
        yield p
    finally:
        end(p)


@pytest.fixture
def recorder():
    r = Recorder()
    yield r
    r.stop()


@pytest.fixture
def proxies(tmp_path, kind):
    made = []

    def make(**kw):
        made.append(Proxy(tmp_path / f"proxy{len(made)}", kind, **kw))
        return made[-1]

    yield make
    for p in made:
        end(p.process)


@pytest.fixture
def proxy(proxies, server, backend):
    return proxies(auth=server.internal, login=server.port, backend=backend.port)


def is_401(a, reason):
    assert (a.status, a.error) == (401, "invalid_session"), a
    assert a.json["reason"] == reason and a.json["message"] and a.json["request_id"]
    assert a.headers["Content-Type"] == "application/json"
    assert a.headers.get_all("WWW-Authenticate") == [
        f'Bearer error="invalid_token", error_description="{reason}"'
    ]
    assert a.headers["X-Wx-Reason"] == reason and a.headers["Cache-Control"] == "no-store"


def is_503(a):
    assert (a.status, a.error) == (503, "store_unavailable"), a
    assert (
        a.json["message"]
        and int(a.headers["Retry-After"]) >= 1
        and a.headers["Cache-Control"] == "no-store"
    )
    assert a.headers["Content-Type"] == "application/json"
    return True


def wx_headers(a):
    """What the backend got that any reading of names takes for X-Wx-*, as CGI would name it."""
    names = [
        (re.sub("[^A-Z0-9]", "_", n.upper()).removeprefix("HTTP_"), v) for n, v in a.json["headers"]
    ]
    return sorted((n, v) for n, v in names if n.startswith("X_WX") and v)


def wx_expected(openid, unionid=""):
    unionid = [("X_WX_UNIONID", unionid)] if unionid else []
    return sorted(
        [("X_WX_APPID", APPID), ("X_WX_OPENID", openid), ("X_WX_SOURCE", "wx_client"), *unionid]
    )


def test_the_backend_knows_the_caller(proxy, server, wxfake):
    for unionid in ("oUnionidOfTheProxyTest", ""):
        openid = f"oProxyTest{len(unionid)}"
        a = proxy.call("POST", "/v1/login", {"code": wxfake.code(openid=openid, unionid=unionid)})
        assert a.status == 200, a
        server.tokens.append(a.token)
        assert proxy.call("GET", "/api/wx_openid", token=a.token).body.decode() == openid
        b = proxy.call("GET", "/some/path?a=1&b=%20", token=a.token)
        assert (b.status, b.json["openid"], b.json["appid"], b.json["unionid"]) == (
            200, openid, APPID, unionid or None,
        )
        assert (b.json["method"], b.json["path"]) == ("GET", "/some/path?a=1&b=%20") and wx_headers(
            b
        ) == wx_expected(openid, unionid)
        b = proxy.call("GET", "/", headers={"X-Third-Session": a.token})
        assert (b.status, b.json["openid"]) == (200, openid)
        assert not [n for n in b.headers if n.lower().startswith("x-wx-")]  # the caller is not told
    assert proxy.call("GET", "/v1/session", token=a.token).json["appid"] == APPID
    assert proxy.call("DELETE", "/v1/session", token=a.token).status == 204
    is_401(proxy.call("GET", "/", token=a.token), "logged_out")


def test_who_has_no_session(proxy, server, wxfake, backend):
    ended = server.login(wxfake.code()).token
    assert server.session(ended, "DELETE").status == 204
    for headers, reason in (
        ({}, "missing"),
        ({"Authorization": "Bearer nonsense"}, "malformed"),
        ({"X-Third-Session": "A" * 42}, "malformed"),
        ({"Authorization": "Bearer " + "A" * 43}, "unknown"),
        ({"Authorization": "Bearer " + ended}, "logged_out"),
    ):
        for method, body in (
            ("GET", None),
            ("POST", b"x" * 100),
            ("PUT", b"x" * 200000),
            ("DELETE", None),
        ):
            is_401(
                proxy.call(method, "/refused?renew=0", body, {**headers, "X-Wx-Reason": "forged"}),
                reason,
            )
    a = proxy.call("HEAD", "/refused")
    assert (a.status, a.body) == (401, b"") and 'error_description="missing"' in a.headers[
        "WWW-Authenticate"
    ]
    assert (
        proxy.call("GET", "/", headers={"X-Request-Id": "of.the-caller_1"}).json["request_id"]
        == "of.the-caller_1"
    )
    is_401(proxy.call("GET", "/", headers={"X-Request-Id": 'a"b'}), "missing")
    assert proxy.call("GET", "/_wx_auth").status in (401, 404)
    assert "/refused" not in backend.text()


def test_redis_away(proxy, server, wxfake, redis, backend):
    token = server.login(wxfake.code()).token
    redis.signal(signal.SIGSTOP)
    is_503(proxy.call("GET", "/away", token="A" * 43))
    poll(
        lambda: proxy.call("POST", "/from-memory", b"body", token=token).status == 503,
        what="memory out of date",
    )
    is_503(proxy.call("POST", "/away", b"x" * 100000, token=token))
    redis.signal(signal.SIGCONT)
    poll(lambda: proxy.call("GET", "/", token=token).status == 200, what="back")
    redis.kill()
    poll(
        lambda: proxy.call("GET", "/from-memory", token=token).status == 503,
        what="memory out of date",
    )
    is_503(proxy.call("GET", "/away", token=token))
    is_503(proxy.call("GET", "/away", token="A" * 43))
    is_401(proxy.call("GET", "/away"), "missing")  # takes no Redis
    assert "/away" not in backend.text()


def test_wxlogind_hangs(proxy, server, wxfake, backend):
    token = server.login(wxfake.code()).token
    assert proxy.call("GET", "/", token=token).status == 200
    server.process.signal(signal.SIGSTOP)
    a = proxy.call("POST", "/hangs", b"body", token=token)
    assert is_503(a) and a.seconds < 8, a
    server.process.signal(signal.SIGCONT)
    poll(lambda: proxy.call("GET", "/", token=token).status == 200, what="back")
    assert "/hangs" not in backend.text()


def test_wxlogind_dead(proxy, server, wxfake, backend):
    token = server.login(wxfake.code()).token
    assert proxy.call("GET", "/", token=token).status == 200
    server.process.stop()
    for method, body in (("GET", None), ("POST", b"x" * 100000)):
        for headers in (
            {"Authorization": f"Bearer {token}"},
            {},
            {"X-Wx-Openid": "forged", "X-Wx-Source": "wx_client"},
        ):
            is_503(proxy.call(method, "/dead", body, headers))
    assert "/dead" not in backend.text()


def test_bodies_survive(proxy, server, wxfake):
    token = server.login(wxfake.code()).token
    pieces = [os.urandom(100_000) for _ in range(100)]
    whole = b"".join(pieces)  # 10 MB
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        for body in (b"", b"a=1&b=2", whole):
            a = proxy.call(method, "/bodies", body, token=token)
            assert (a.status, a.json["method"], a.json["path"]) == (200, method, "/bodies"), a
            assert a.json["body"] == {
                "length": len(body), "sha256": hashlib.sha256(body).hexdigest(),
            }
    a = proxy.call("POST", "/bodies", iter(pieces), token=token)  # chunked
    assert a.status == 200 and a.json["body"]["sha256"] == hashlib.sha256(whole).hexdigest()
    a = proxy.call("POST", "/bodies", {"key": "值"}, token=token)
    assert ["content_type", "application/json"] in [
        [n.lower().replace("-", "_"), v] for n, v in a.json["headers"]
    ]


def test_what_the_auth_call_holds(proxies, recorder, backend):
    recorder.headers = {
        "X-Wx-Appid": APPID, "X-Wx-Openid": "oRecorded", "X-Wx-Unionid": "",
        "X-Wx-Expires-In": "60",
    }
    proxy = proxies(auth=recorder.port, login=recorder.port, backend=backend.port)
    recorder.asked.clear()
    for _ in range(20):
        for method, body in (("GET", None), ("POST", b"the body")):
            a = proxy.call(
                method, "/a/b?renew=0&x=1", body, token="T" * 43,
                headers={
                    "X-Wx-Openid": "forged", "X_Wx_Openid": "forged", "Cookie": "c=1",
                    "X-Request-Id": "id-1", "traceparent": TRACEPARENT,
                },
            )
            assert (a.status, a.json["openid"], a.json["path"]) == (
                200, "oRecorded", "/a/b?renew=0&x=1",
            ), a
    asked = recorder.asked
    assert len(asked) == 40
    for r in asked:
        assert r.method == "GET" and r.path.rstrip("?") == "/internal/auth" and r.body == b"", r
        assert (
            r.headers.get("Content-Length") in (None, "0")
            and "Transfer-Encoding" not in r.headers
            and "Cookie" not in r.headers
        ), r
        assert "X-Internal-Token" not in r.headers and not re.search("forged", str(r.headers)), r
        assert (
            r.headers.get_all("Authorization") == ["Bearer " + "T" * 43]
            and r.headers["X-Request-Id"] == "id-1"
        )
        assert (
            r.headers["X-Forwarded-For"] == "127.0.0.1" and r.headers["traceparent"] == TRACEPARENT
        )
        assert {h.lower() for h in r.headers} <= {
            "host", "authorization", "x-third-session", "x-request-id", "traceparent",
            "x-forwarded-for", "user-agent", "accept", "accept-encoding", "content-length",
        }, r
    assert len({r.connection for r in asked}) <= 4  # kept, not one each


def test_an_auth_server_that_answers_nonsense(proxies, recorder, backend):
    """Whatever it says but 2xx, nothing reaches the backend, and nobody is told to log in again for
    a fault of ours."""
    proxy = proxies(auth=recorder.port, login=recorder.port, backend=backend.port)
    recorder.headers = {"X-Wx-Appid": APPID, "X-Wx-Openid": "oNobody", "X-Wx-Unionid": ""}
    for recorder.status in (400, 404, 413, 429, 431, 500, 501, 502, 504, 302, 401):
        is_503(proxy.call("POST", "/nonsense", b"body", token="T" * 43))
    recorder.status = 403
    assert proxy.call("GET", "/nonsense", token="T" * 43).status in (403, 503)
    assert "/nonsense" not in backend.text()


def test_internal_token(proxies, stack, redis, wxfake, backend):
    server = stack.server(redis, wxfake, server__internal_token=TOKEN)
    token = server.login(wxfake.code(openid="oInternalToken")).token
    knows = proxies(
        auth=server.internal, login=server.port, backend=backend.port, internal_token=TOKEN
    )
    a = knows.call("GET", "/", token=token)
    assert (a.status, a.json["openid"]) == (200, "oInternalToken") and TOKEN not in str(
        a.json["headers"]
    ), a
    is_401(knows.call("GET", "/", headers={"X-Internal-Token": "forged"}), "missing")
    for wrong in (None, "another"):
        a = proxies(
            auth=server.internal, login=server.port, backend=backend.port, internal_token=wrong
        ).call("GET", "/no", token=token)
        is_503(a)
    assert "/no" not in backend.text()


def test_the_backends_own_errors_stay(proxies, server, wxfake, recorder, backend, kind, tmp_path):
    token, script, body = (
        server.login(wxfake.code()).token, tmp_path / "own.php", b'{"error":"of the backend"}',
    )
    proxy = proxies(
        auth=server.internal, login=server.port,
        backend=backend.port if kind == "nginx-fastcgi" else recorder.port, script=script,
    )
    recorder.body, recorder.headers = body, {
        "Content-Type": "application/json", "WWW-Authenticate": "Other",
    }
    for recorder.status in (401, 403, 404, 500, 502, 503):
        script.write_text(
            '<?php header("Content-Type: application/json"); header("WWW-Authenticate: Other"); '
            f'http_response_code({recorder.status});'
            f"echo '{body.decode()}';"
        )
        a = proxy.call("POST", "/", b"x", token=token)
        assert (a.status, a.body, a.headers["WWW-Authenticate"]) == (
            recorder.status, body, "Other",
        ), a
        assert "Retry-After" not in a.headers
    gone = proxies(auth=server.internal, login=server.port, backend=free_port()).call(
        "GET", "/", token=token
    )
    assert (
        gone.status in (502, 503) and gone.error is None and "Retry-After" not in gone.headers
    ), gone


def test_the_fastcgi_recipe_is_the_other_one():
    """But for how it hands a request to the backend."""
    own = re.compile(
        r"^.*(?:\bfastcgi_|proxy_set_header X-Wx|client_max_body_size|more_clear).*\n"
        r"|^\t\t\tproxy_pass http://127.*\n(?:.*\n)*?(?=\t\t\})"
        r"|^.*(?:would do nothing here|fastcgi_params).*\n|^\t# Websockets pass(?:.*\n)*?(?=\n"
        r")|\A(?:#.*\n|\n)*",
        re.M,
    )
    rest = [
        re.sub(r"\n{2,}", "\n", own.sub("", (RECIPES / name).read_text()))
        for name in ("nginx.conf", "nginx-fastcgi.conf")
    ]
    assert rest[0] == rest[1] and "auth_request /_wx_auth" in rest[0] and "@wx_503" in rest[0]


def test_the_document_quotes_the_files():
    flat = lambda text: "\n".join(
        line.strip() for line in textwrap.dedent(text).strip().splitlines()
    )
    files = [flat(f.read_text()) for f in RECIPES.iterdir() if f.is_file()]
    blocks = re.findall(
        r"^```\w*\n(.*?)^```", (ROOT / "docs" / "forward-auth.md").read_text(), re.M | re.S
    )
    assert len(blocks) >= 6
    for b in blocks:
        for part in re.split(r"^\s*(?:#|--)? ?…\n", b, flags=re.M):
            assert any(flat(part) in f for f in files), part
