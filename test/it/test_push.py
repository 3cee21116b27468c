"""Messages from WeChat: proved, obeyed once, sent on to the company's backend."""
import contextlib
import http.server
import json
import os
import socketserver
import threading
import time

import pytest

from conftest import APPID, poll

TOKEN, AES_KEY = "fakepushtoken", "fakepushkeyfakepushkeyfakepushkeyfakepushke"  # wxfake's own
APP = f"app_{APPID}__push_"
SETTINGS = {APP + "token": TOKEN, APP + "aes_key": AES_KEY}
BEARER = "the-backends-token"


class Backend:
    """Keeps what it is sent; answers what it is told to."""

    def __init__(self, path=None):
        self.seen, self.status, self.body, self.kind, self.gate = (
            [], 200,
            b"success", "text/plain", threading.Event(),
        )
        self.gate.set()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.seen.append((self.path, dict(self.headers), body))
                outer.gate.wait(20)
                with contextlib.suppress(OSError):
                    self.send_response(outer.status)
                    self.send_header("Content-Type", outer.kind)
                    self.send_header("Content-Length", str(len(outer.body)))
                    self.end_headers()
                    self.wfile.write(outer.body)

            def address_string(self):
                return "unix"

            def log_message(self, *_):
                pass

        class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
            daemon_threads = True
        self.server = (
            UnixServer(path, Handler)
            if path
            else http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        )
        self.url = (
            f"unix:{path}:/hook" if path else f"http://127.0.0.1:{self.server.server_port}/hook"
        )
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()

    def messages(self):
        return [json.loads(b) for _, _, b in self.seen]

    def stop(self):
        self.gate.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def backend():
    b = Backend()
    yield b
    b.stop()


@pytest.fixture
def world(stack, backend, tmp_path):
    class World:
        redis, wxfake = stack.redis(), stack.wxfake()
        users = f"sqlite://{tmp_path}/users.db"

        def server(self, **config):
            return stack.server(
                self.redis, self.wxfake,
                **{
                    "users__url": self.users, **SETTINGS, APP + "forward": backend.url,
                    APP + "forward_token": BEARER, **config,
                },
            )

        def push(self, server, **kw):
            a = self.wxfake.call(
                "POST", "/fake/push",
                {"url": f"http://127.0.0.1:{server.port}/v1/push/{APPID}", **kw},
            )
            assert a.status == 200, a
            return a.json

        def user(self, server, openid):
            token = server.login(self.wxfake.code(openid=openid)).token
            bearer = {"Authorization": f"Bearer {token}"}
            assert (
                server.call(
                    "PUT", "/v1/user",
                    {"nickName": "N", "avatarUrl": "https://img.example.com/b", "city": "C"},
                    bearer,
                ).status == 200
            )
            code = self.wxfake.code(kind="phone", openid=openid)
            assert server.call("POST", "/v1/user/phone", {"code": code}, bearer).status == 200
            return token

        def row(self, server, openid):
            return server.inside("GET", f"/internal/apps/{APPID}/users/{openid}").json
    return World()


def event(name, openid, revoke=None, at=None, **more):
    return {
        "ToUserName": "gh_1", "FromUserName": openid, "CreateTime": at or int(time.time()),
        "MsgType": "event", "Event": name, "OpenID": openid, "AppID": APPID,
        **({"RevokeInfo": revoke} if revoke else {}), **more,
    }


# ---- the address ----

def test_wechat_proves_the_address(stack, redis, wxfake):
    server = stack.server(redis, wxfake, **{APP + "token": "AAAAA"})
    path = (
        f"/v1/push/{APPID}?signature=f464b24fc39322e44b38aa78f5edd27bd1441696&"
        "timestamp=1714036504&nonce=1514711492"
        "&echostr=4375120948345356249"
    )  # WeChat's own example; its age does not matter
    a = server.call("GET", path)
    assert (a.status, a.body, a.headers["Content-Type"].split(";")[0]) == (
        200, b"4375120948345356249", "text/plain",
    )
    for bad in (
        path.replace("f464", "f465"), path.replace("1714036504", "1714036505"),
        path.partition("&nonce")[0], path.replace("signature", "sig"), f"/v1/push/{APPID}",
    ):
        a = server.call("GET", bad)
        assert (a.status, a.error) == (403, "bad_signature"), bad


def test_an_app_without_a_token_has_no_address(stack, redis, wxfake):
    server = stack.server(redis, wxfake)
    for method, appid in (("GET", APPID), ("POST", APPID), ("GET", "wx0000000000000000")):
        assert (
            server.call(
                method, f"/v1/push/{appid}?signature=x&timestamp=1&nonce=1",
                "{}" if method == "POST" else None,
            ).status == 404
        )
    assert server.call("PUT", f"/v1/push/{APPID}").status == 405
    assert server.inside("GET", f"/v1/push/{APPID}").status == 404


def test_what_is_not_signed_is_refused(world, backend):
    server = world.server()
    token = world.user(server, "oRefused")
    withdrawn = {"event": "user_authorization_cancellation", "openid": "oRefused"}
    now = int(time.time())
    for bad in (
        {"token": "another"},
        {"aes_key": "A" * 43},
        {"mode": "plain"},
        {"timestamp": now - 700},
        {"timestamp": now + 700},
        {"appid": APPID, "timestamp": 0},
    ):
        for shape in ("json", "xml"):
            got = world.push(server, format=shape, **withdrawn, **bad)
            assert got["status"] == 403 and json.loads(got["body"])["error"] == "bad_signature", (
                bad, got,
            )
    path = f"/v1/push/{APPID}?signature=x&timestamp={now}&nonce=1&msg_signature=y"
    for body in (
        "", "{}", "{", "<xml>", '{"Encrypt":1}', "<!DOCTYPE a><xml></xml>", '{"Encrypt":"%%"}',
        "\0", "x" * 60000,
    ):
        assert server.call("POST", path, body).status == 403
    assert (
        not backend.seen
        and server.session(token).status == 200
        and world.row(server, "oRefused")["phoneNumber"]
    )


# ---- whom a message names ----

@pytest.mark.parametrize("shape", ["json", "xml"])
def test_who_wrote_a_message(world, backend, shape):
    """Of an event the backend is told OpenID alone: FromUserName may be WeChat itself."""
    server = world.server()
    text = {"ToUserName": "gh_1", "FromUserName": "oWriter", "MsgType": "text", "Content": "hi"}
    for message, named in (
        (text, "oWriter"),
        ({**text, "OpenID": "oOther"}, "oOther"),
        ({**text, "FromUserName": "o\r\nX-Evil: 1"}, None),
        ({**text, "MsgType": "event", "Event": "debug_demo"}, None),
    ):
        assert world.push(server, message=message, format=shape)["body"] == "success"
        headers = backend.seen[-1][1]
        assert headers.get("X-Wx-Openid") == named and "X-Evil" not in headers, message


# ---- what is obeyed ----

@pytest.mark.parametrize("shape", ["json", "xml"])
@pytest.mark.parametrize("mode", ["safe", "compatible"])
def test_withdrawals_are_obeyed_before_they_go_on(world, backend, mode, shape):
    server = world.server()
    backend.gate.clear()
    for openid, name, revoke, phone, nick in (
        ("oPhone", "user_authorization_revoke", "8", None, "N"),
        ("oName", "user_authorization_revoke", "6", 1, None),
        ("oKeyboard", "user_authorization_revoke", "19", 1, None),
        ("oAvatar", "user_authorization_revoke", "20", 1, None),
        ("oBoth", "user_authorization_revoke", "13,6, 8", None, None),
        ("oOther", "user_authorization_revoke", "13", 1, "N"),
        ("oUnknown", "user_authorization_revoke", "nonsense", 1, "N"),
        ("oModified", "user_info_modified", None, 1, None),
        ("oElse", "wxa_punish_event", None, 1, "N"),
    ):
        world.user(server, openid)
        before = len(backend.seen)
        t = threading.Thread(
            target=lambda: got.append(
                world.push(server, mode=mode, format=shape, message=event(name, openid, revoke))
            )
        )
        got = []
        t.start()
        poll(lambda: len(backend.seen) > before, what="forwarded")
        row = world.row(server, openid)  # while the backend has not answered yet
        assert (
            bool(row["phoneNumber"]) == bool(phone)
            and row["nickName"] == nick
            and bool(row["avatarUrl"]) == bool(nick)
        ), openid
        assert row["city"] == "C"
        backend.gate.set()
        t.join()
        backend.gate.clear()
        assert got[0] == {"status": 200, "body": "success", "clear": None}
    path, headers, body = backend.seen[0]
    assert path == "/hook" and headers["X-Wx-Appid"] == APPID and headers["X-Wx-Openid"] == "oPhone"
    assert headers["Authorization"] == f"Bearer {BEARER}"
    assert headers["Content-Type"] == ("application/json" if shape == "json" else "text/xml")
    assert b"Encrypt" not in body and b"user_authorization_revoke" in body and b"oPhone" in body


def test_a_closed_account_is_erased_but_not_one_that_came_back(world, backend):
    server = world.server()
    token = world.user(server, "oGone")
    old = event("user_authorization_cancellation", "oGone", at=int(time.time()) - 100)
    assert world.push(server, message=old)["body"] == "success"
    assert server.session(token).status == 200 and world.row(server, "oGone")["phoneNumber"]
    assert (
        world.push(server, message=event("user_authorization_cancellation", "oGone"))["body"]
        == "success"
    )
    row = world.row(server, "oGone")
    assert not row.get("phoneNumber") and not row.get("nickName")
    assert server.session(token).json["reason"] == "revoked"
    assert len(backend.seen) == 2


def test_only_that_app_and_that_user(world, backend):
    server = world.server()
    world.user(server, "oMine")
    for message in (
        event("user_authorization_revoke", "oMine", "8", AppID="wx0000000000000000"),
        {**event("user_authorization_revoke", "oMine", "8"), "MsgType": "text"},
        {
            k: v
            for k, v in event("user_authorization_revoke", "oMine", "8").items()
            if k != "OpenID"
        },
        event("user_authorization_revoke", "o' OR 1=1", "8"),
        event("user_authorization_revoke", "o\r\nX-Evil: 1", "8"),
    ):
        assert world.push(server, message=message)["body"] == "success"
    assert world.row(server, "oMine")["phoneNumber"] and len(backend.seen) == 5
    assert (
        not any("X-Evil" in h for _, h, _ in backend.seen)
        and "X-Wx-Openid" not in backend.seen[-1][1]
    )


def test_a_plain_message_goes_on_and_is_not_obeyed(world, backend):
    server = world.server(**{APP + "aes_key": ""})
    token = world.user(server, "oPlain")
    for name in ("user_authorization_revoke", "user_authorization_cancellation"):
        for shape in ("json", "xml"):
            assert (
                world.push(
                    server, mode="plain", format=shape, event=name, openid="oPlain", revoke="8"
                )["body"] == "success"
            )
    assert world.push(server, mode="plain", event="x", openid="o", token="another")["status"] == 403
    assert (
        world.push(server, mode="plain", event="x", openid="o", timestamp=int(time.time()) - 700)[
            "status"
        ] == 403
    )
    assert (
        len(backend.seen) == 4
        and world.row(server, "oPlain")["phoneNumber"]
        and server.session(token).status == 200
    )


def test_three_deliveries_to_three_processes(world, backend, tmp_path):
    audit = tmp_path / "audit.log"
    servers = [world.server(audit__file=audit, audit__openid="clear") for _ in range(3)]
    for round_ in range(5):
        openid = f"oThrice{round_}"
        token = world.user(servers[0], openid)
        message = event("user_authorization_revoke", openid, "8")
        got, before = [], len(backend.seen)
        threads = [
            threading.Thread(target=lambda s=s: got.append(world.push(s, message=message)))
            for s in servers
        ]
        [t.start() for t in threads]
        [t.join() for t in threads]
        assert (
            got == [{"status": 200, "body": "success", "clear": None}] * 3
            and len(backend.seen) == before + 3
        )
        assert world.row(servers[1], openid)["phoneNumber"] is None
        # given anew, and the same message comes a fourth time: it was obeyed already
        code = world.wxfake.code(kind="phone", openid=openid)
        assert (
            servers[0]
            .call("POST", "/v1/user/phone", {"code": code}, {"Authorization": f"Bearer {token}"})
            .status
            == 200
        )
        assert world.push(servers[2], message=message)["body"] == "success"
        assert world.row(servers[1], openid)["phoneNumber"] and len(backend.seen) == before + 4
    lines = lambda: [
        e
        for e in map(json.loads, audit.read_text().splitlines())
        if e["event"] == "consent_withdrawn"
    ]
    poll(lambda: len(lines()) == 5)
    assert {(e["by"], e["detail"], e["result"]) for e in lines()} == {("wechat", "8", "ok")}
    marks = [k for k in world.redis.keys() if k.startswith("wxlogin:p:")]
    assert len(marks) == 5 and all(int(world.redis.cli("PTTL", k)) > 20 * 60000 for k in marks)


def test_one_that_cannot_be_obeyed_is_sent_again(world, backend):
    server = world.server(users__url="mysql://nobody@127.0.0.1:1/nowhere")
    message = event("user_authorization_revoke", "oLater", "8")
    got = world.push(server, message=message)
    assert (
        got["status"] == 503
        and json.loads(got["body"])["error"] == "store_unavailable"
        and not backend.seen
    )
    other = world.server()
    world.user(other, "oLater")
    assert (
        world.push(other, message=message)["body"] == "success"
        and world.row(other, "oLater")["phoneNumber"] is None
    )
    world.redis.kill()
    got = world.push(other, message=event("user_authorization_revoke", "oLater", "6"))
    # needs nobody
    assert got["status"] == 503 and world.push(other, event="x", openid="o")["body"] == "success"


def test_a_claim_whose_holder_died_ends(world, backend):
    server = world.server()
    world.user(server, "oDied")
    message = event("user_authorization_revoke", "oDied", "8")
    assert world.push(server, message=message)["body"] == "success"
    [mark] = [k for k in world.redis.keys() if k.startswith("wxlogin:p:")]
    world.redis.cli("SET", mark, "wsomebodyelse", "PX", 700)
    assert world.push(server, message=message)["body"] == "success"
    assert poll(lambda: world.redis.cli("GET", mark) == "d\n")


# ---- the backend's answer ----

@pytest.mark.parametrize("shape", ["json", "xml"])
def test_its_answer_is_encrypted_as_the_message_was(world, backend, shape):
    server = world.server()
    backend.body, backend.kind = '{"demo_resp":"好"}'.encode(), "application/json"
    got = world.push(server, format=shape, event="debug_demo", openid="o1")
    assert (
        got["status"] == 200
        and got["clear"] == '{"demo_resp":"好"}'
        and "demo_resp" not in got["body"]
    )
    assert (
        got["body"].startswith("{" if shape == "json" else "<xml>")
        and "MsgSignature" in got["body"]
    )
    backend.body = b""
    assert world.push(server, format=shape, event="debug_demo", openid="o1") == {
        "status": 200, "body": "", "clear": None,
    }
    backend.body = b"success"
    assert world.push(server, format=shape, event="debug_demo", openid="o1")["body"] == "success"
    plain = world.server(**{APP + "aes_key": ""})
    backend.body = b"<xml>hello</xml>"
    assert (
        world.push(plain, mode="plain", format=shape, event="debug_demo", openid="o1")["body"]
        == "<xml>hello</xml>"
    )


def test_when_it_fails_wechat_is_to_send_again(world, backend):
    server = world.server()
    for status in (500, 404, 302):
        backend.status = status
        got = world.push(server, event="x", openid="o1")
        assert got["status"] == 503 and json.loads(got["body"])["error"] == "backend_unavailable"
    backend.status, backend.body = 200, b"x" * 65536
    assert world.push(server, event="x", openid="o1")["status"] == 200
    backend.body = b"x" * 65537
    assert world.push(server, event="x", openid="o1")["status"] == 503
    backend.gate.clear()
    began = time.monotonic()
    assert world.push(server, event="x", openid="o1")["status"] == 503
    assert 3.5 < time.monotonic() - began < 5  # WeChat waits for five
    nobody = world.server(**{APP + "forward": "http://127.0.0.1:1/"})
    assert world.push(nobody, event="x", openid="o1")["status"] == 503
    none = world.server(**{APP + "forward": ""})
    assert world.push(none, event="x", openid="o1")["body"] == "success"


def test_a_backend_on_a_unix_socket(world, tmp_path):
    b = Backend(str(tmp_path / "b.sock"))
    try:
        server = world.server(**{APP + "forward": b.url})
        for _ in range(3):
            assert world.push(server, event="x", openid="o1")["body"] == "success"
        assert [p for p, _, _ in b.seen] == ["/hook"] * 3
        root = world.server(**{APP + "forward": b.url.removesuffix(":/hook")})
        assert (
            world.push(root, event="x", openid="o1")["body"] == "success" and b.seen[-1][0] == "/"
        )
    finally:
        b.stop()


def test_a_silent_backend_slows_no_login(world, backend):
    server = world.server()
    backend.gate.clear()
    threads = [
        threading.Thread(target=lambda: world.push(server, event="x", openid="o1"))
        for _ in range(30)
    ]
    [t.start() for t in threads]
    poll(lambda: len(backend.seen) >= 8)
    a = server.login(world.wxfake.code())
    assert a.status == 200 and a.seconds < 1
    backend.gate.set()
    [t.join() for t in threads]


def test_the_trace_goes_on(world, backend):
    """A proxy before wxlogind may add one."""
    server = world.server(**{APP + "aes_key": "", APP + "token": "AAAAA"})
    import hashlib
    now = str(int(time.time()))
    signature = hashlib.sha1("".join(sorted(["AAAAA", now, "77"])).encode()).hexdigest()
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    a = server.call(
        "POST", f"/v1/push/{APPID}?signature={signature}&timestamp={now}&nonce=77",
        {"MsgType": "text"},
        {"traceparent": trace},
    )
    assert a.status == 200 and backend.seen[0][1]["traceparent"] == trace
    assert "X-Wx-Openid" not in backend.seen[0][1]


# ---- the configuration ----

def test_check_says_what_is_wrong(stack, tmp_path):
    import subprocess
    from conftest import BUILD, SECRET

    def check(env=None, **keys):
        file = tmp_path / "c.ini"
        file.write_text(
            "".join(
                [f"[app {APPID}]\nsecret = {SECRET}\n", *(f"{k} = {v}\n" for k, v in keys.items())]
            )
        )
        out = subprocess.run(
            [BUILD / "wxlogind", "--check", "-c", file],
            capture_output=True, text=True, env={**os.environ, **(env or {})},
        )
        return out.returncode, out.stdout + out.stderr
    status, text = check(push_token=TOKEN)
    assert status == 0 and "push_aes_key is empty" in text
    status, text = check(push_token=TOKEN, push_aes_key=AES_KEY)
    assert status == 0 and "push_aes_key is empty" not in text
    for keys, said in (
        ({"push_token": TOKEN, "push_aes_key": "short"}, "push_aes_key"),
        ({"push_aes_key": AES_KEY}, "needs push_token"),
        ({"push_forward": "ftp://x"}, "push_forward"),
        ({"push_forward": "unix:relative"}, "push_forward"),
        ({"push_forward_token": "a b"}, "push_forward_token"),
    ):
        status, text = check(**keys)
        assert status == 1 and said in text, text
    secret = tmp_path / "key"
    secret.write_text(AES_KEY + "\n")
    env = {
        "WXLOGIND_APPID": APPID, "WXLOGIND_PUSH_TOKEN": TOKEN,
        "WXLOGIND_PUSH_AES_KEY_FILE": str(secret), "WXLOGIND_PUSH_FORWARD": "http://127.0.0.1:3000",
        "WXLOGIND_PUSH_FORWARD_TOKEN": "t",
    }
    status, text = check(env)
    assert status == 0 and "push" not in text, text


# ---- what the backend is told of an account that its owner closes ----

@pytest.mark.parametrize("failures", [0, 2])
def test_a_closed_account_is_told_to_the_backend(world, backend, failures):
    server = world.server()
    token = world.user(server, "oClosed")
    backend.status = 503 if failures else 200
    assert (
        server.call("DELETE", "/v1/user", headers={"Authorization": f"Bearer {token}"}).status
        == 204
    )
    poll(lambda: len(backend.seen) >= max(1, failures), what="told")
    backend.status = 200
    poll(lambda: len(backend.seen) > failures, what="told again")
    path, headers, body = backend.seen[-1]
    assert (headers["X-Wx-Appid"], headers["X-Wx-Openid"], headers["Authorization"]) == (
        APPID, "oClosed", f"Bearer {BEARER}",
    )
    told = json.loads(body)
    assert (told["Event"], told["OpenID"], told["AppID"]) == (
        "wxlogind_user_erased", "oClosed", APPID,
    )
