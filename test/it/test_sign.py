"""What only the holder of a session_key can do: sign, and the keys that encrypt requests."""
import contextlib
import hashlib
import hmac
import json
import threading

import pytest

from conftest import APPID, ROOT, Process, call, free_port, poll

VECTOR_KEY = "9hAb/NEYUlkaMBEsmFgzig=="
VECTOR_BODY = '{"openid":"xxx","env":0,"user_ip":"127.0.0.1"}'
VECTOR_SIGNATURE = "e690cc22b6378ca9d70fe61727fabf65f0273d436813447816951989867a134c"
USER = f"/internal/apps/{APPID}/users/"


def signature(key, body):
    return hmac.new(key.encode(), body.encode(), hashlib.sha256).hexdigest()


@pytest.fixture
def world(stack):
    class World:
        redis, wxfake = stack.redis(), stack.wxfake()

        def server(self, **config):
            return stack.server(self.redis, self.wxfake, **config)

        def key(self, openid, key):
            return self.wxfake.call("POST", "/fake/user", {"openid": openid, "session_key": key})

        def login(self, server, openid="oSign"):
            a = server.login(self.wxfake.code(openid=openid))
            assert a.status == 200, a
            return a.token
    return World()


def test_wechats_vector(world):
    server = world.server()
    world.key("oSign", VECTOR_KEY)
    world.login(server)
    for kind in ("application/json", "application/x-www-form-urlencoded", "text/plain"):
        a = server.inside("POST", USER + "oSign/sign", VECTOR_BODY, {"Content-Type": kind})
        assert a.status == 200 and a.json == {"signature": VECTOR_SIGNATURE}
    assert VECTOR_KEY not in server.process.text() and VECTOR_SIGNATURE not in server.process.text()


def test_any_bytes_are_signed_with_the_newest_key(world):
    server = world.server(server__max_body="1m")
    world.key("oSign", VECTOR_KEY)
    world.login(server)
    newer = "AAAAAAAAAAAAAAAAAAAAAA=="
    world.key("oSign", newer)
    world.login(server)
    for body in (b"\0", "你好".encode(), bytes(range(256)) * 4096):
        a = server.inside("POST", USER + "oSign/sign", body)
        assert a.json["signature"] == hmac.new(newer.encode(), body, hashlib.sha256).hexdigest()


def test_an_empty_body_is_never_signed(world):
    server = world.server()
    world.login(server)
    a = server.inside("POST", USER + "oSign/sign", b"")
    assert a.status == 400 and a.error == "invalid_request"
    empty = server.inside("POST", USER + "oSign/sign")
    chunked = server.raw(
        f"POST {USER}oSign/sign HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n".encode(), internal=True,
    )
    assert empty.status == 400 and b" 400 " in chunked.split(b"\r\n")[0]


def test_who_cannot_be_signed_for(world):
    server = world.server(server__internal_token="t" * 20)
    token = world.login(server)
    ask = lambda user, **h: server.inside(
        "POST", user + "/sign", "x", {"X-Internal-Token": "t" * 20, **h}
    )
    assert ask(USER + "oSign").status == 200
    assert server.inside("POST", USER + "oSign/sign", "x").error == "unauthorized"
    assert ask(USER + "oNobody").error == "not_found"
    assert ask("/internal/apps/wx0000000000000000/users/oSign").error == "unknown_app"
    assert ask(USER + "o" * 129).error == "invalid_request"
    assert server.session(token, "DELETE").status == 204
    assert ask(USER + "oSign").error == "not_found"
    assert server.call("POST", USER + "oX/sign", "x").status == 404  # not on the public side


def test_signing_leaves_a_line_in_the_audit_log(world, tmp_path):
    file = tmp_path / "audit.log"
    server = world.server(audit__file=file, audit__openid="clear")
    world.login(server)
    a = server.inside("POST", USER + "oSign/sign", "x", {"X-Wx-Actor": "alice"})
    assert a.status == 200
    server.inside("POST", USER + "oNobody/sign", "x")
    lines = poll(
        lambda: [
            e for e in map(json.loads, file.read_text().splitlines()) if e["event"] == "signed"
        ]
    )
    assert [(e["user"], e["by"], e["actor"], e["result"]) for e in lines] == [
        ("oSign", "backend", "alice", "ok")
    ]
    assert a.json["signature"] not in file.read_text()


RESET = (
    "wxa/resetusersessionkey", "WXA/ResetUserSessionKey", "wxa/resetusersessionkey/",
    "wxa//resetusersessionkey", "/wxa/resetusersessionkey", "wxa/./resetusersessionkey",
    "wxa/x/../resetusersessionkey", "wxa%2fresetusersessionkey", "wxa/%72esetusersessionkey",
    "wxa/resetusersessionkey;x", "wxa/resetusersessionkey%00", "wxa/resetusersessionkey/x",
    "wxa\\resetusersessionkey", "wxa/resetusersessionkey%3fx",
)


@pytest.mark.parametrize("path", RESET)
def test_the_pass_through_does_not_reset_a_session_key(world, path):
    server = world.server(server__internal_token="t" * 20)
    for method in ("GET", "POST"):
        a = server.inside(
            method, f"/internal/apps/{APPID}/wechat/{path}?openid=oSign&sig_method=hmac_sha256",
            "{}",
            {"X-Internal-Token": "t" * 20},
        )
        assert a.status == 400, a
    calls = world.wxfake.call("GET", "/fake/stats").json["calls"]
    assert calls["resetusersessionkey"] == calls["other"] == 0


# ---- encrypt-keys ----

def keys(server, openid="oSign", query=""):
    return server.inside("GET", USER + openid + "/encrypt-keys" + query)


def test_encrypt_keys_are_kept_sealed(world):
    first, second = world.server(), world.server()
    world.login(first)
    a = keys(first)
    assert a.status == 200, a
    for k in a.json["keys"]:
        assert set(k) == {"version", "encrypt_key", "iv", "expires_in", "created_at"}
    newest = max(a.json["keys"], key=lambda k: k["version"])
    assert 3500 <= newest["expires_in"] <= 3600 and len(newest["iv"]) == 16
    for server in (first, second):
        b = keys(server)
        assert [k["encrypt_key"] for k in b.json["keys"]] == [
            k["encrypt_key"] for k in a.json["keys"]
        ]
    assert world.wxfake.calls("getuserencryptkey") == 1
    [name] = [k for k in world.redis.keys() if k.startswith("wxlogin:e:{")]
    session = next(k for k in world.redis.keys() if k.startswith("wxlogin:s:{"))
    assert name.split("{")[1][:3] == session.split("{")[1][:3]  # the user's slot
    assert 3400_000 < int(world.redis.cli("PTTL", name)) <= newest["expires_in"] * 1000
    assert newest["encrypt_key"] not in world.redis.written()


def test_a_newer_version_is_asked_for(world):
    server = world.server()
    world.login(server)
    version = max(k["version"] for k in keys(server).json["keys"])
    assert (
        keys(server, query=f"?version={version}").status == 200
        and world.wxfake.calls("getuserencryptkey") == 1
    )
    assert (
        keys(server, query=f"?version={version + 1}").status == 200
        and world.wxfake.calls("getuserencryptkey") == 2
    )
    for bad in ("x", "-1", "", "1" * 16, "1.5"):
        assert keys(server, query=f"?version={bad}").error == "invalid_request"


def test_their_age_is_counted(world):
    server = world.server()
    world.login(server)
    keys(server)
    [name] = [k for k in world.redis.keys() if k.startswith("wxlogin:e:{")]
    world.redis.cli("PEXPIRE", name, 1000_000)
    [newest] = [k for k in keys(server).json["keys"] if k["expires_in"]]
    assert 990 <= newest["expires_in"] <= 1001
    world.redis.cli("DEL", name)
    keys(server)
    assert world.wxfake.calls("getuserencryptkey") == 2


@pytest.mark.parametrize("errcode", [87007, 87009])
def test_a_dead_session_key_is_409(world, errcode):
    server = world.server()
    world.login(server)
    world.wxfake.fault("getuserencryptkey", mode="errcode", errcode=errcode, count=1)
    a = keys(server)
    assert (a.status, a.error, a.json["errcode"]) == (409, "session_key_expired", errcode)
    assert keys(server).status == 200


def test_a_key_that_died_at_wechat_is_409_until_the_next_login(world):
    server = world.server()
    world.login(server)
    world.wxfake.call("POST", "/fake/expire", {"openid": "oSign"})
    a = keys(server)
    assert (a.status, a.error, a.json["errcode"]) == (409, "session_key_expired", 87007)
    world.login(server)
    assert keys(server).status == 200


def test_the_older_of_two_keys_is_tried_too(world):
    server = world.server()
    world.key("oSign", VECTOR_KEY)
    world.login(server)
    world.key("oSign", "AAAAAAAAAAAAAAAAAAAAAA==")
    world.login(server)
    world.key("oSign", VECTOR_KEY)  # two logins crossed: WeChat's newest is our older
    assert keys(server).status == 200 and world.wxfake.calls("getuserencryptkey") == 2


def test_nothing_is_kept_of_a_user_without_a_session(world):
    server = world.server()
    assert keys(server).error == "not_found"
    token = world.login(server)
    world.wxfake.fault("getuserencryptkey", mode="slow", count=1, delay_ms=500)
    got = []
    t = threading.Thread(target=lambda: got.append(keys(server)))
    t.start()
    poll(lambda: world.wxfake.calls("getuserencryptkey") == 1)
    assert server.session(token, "DELETE").status == 204
    t.join()
    assert got[0].status in (200, 503)
    assert not [k for k in world.redis.keys() if k.startswith("wxlogin:e:{")]


@pytest.mark.parametrize(
    "fault, error",
    [
        ({"mode": "errcode", "errcode": 45011}, "rate_limited"),
        ({"mode": "not_json"}, "wechat_error"),
        ({"mode": "errcode", "errcode": 48001}, "wechat_config"),
        ({"mode": "errcode", "errcode": -1}, "wechat_unavailable"),
    ],
)
def test_other_answers_of_wechats(world, fault, error):
    server = world.server()
    world.login(server)
    world.wxfake.fault("getuserencryptkey", count=9, **fault)
    assert keys(server).error == error


def test_without_redis(world):
    server = world.server()
    world.login(server)
    world.redis.kill()
    assert keys(server).error == "store_unavailable"
    assert server.inside("POST", USER + "oSign/sign", "x").error == "store_unavailable"


# ---- virtual payment: wxfake checks both signatures; docs/examples makes them ----

APP_KEY, TOKEN = "the AppKey", "the-internal-token"
XPAY_VECTOR = "fb4703e6b7da545a7f43428f02f2a9fa42e895704c6319d01a0aa859cf63253c"


def test_wxfake_checks_wechats_vector(stack):
    wxfake = stack.wxfake("--app-key", "12345")
    wxfake.call("POST", "/fake/user", {"openid": "xxx", "session_key": VECTOR_KEY})
    token = wxfake.call(
        "POST", "/cgi-bin/stable_token",
        {"grant_type": "client_credential", "appid": APPID, "secret": "fa4efa4e" * 4},
    ).json["access_token"]

    def balance(signature=VECTOR_SIGNATURE, pay_sig=XPAY_VECTOR, body=VECTOR_BODY):
        return wxfake.call(
            "POST",
            f"/xpay/query_user_balance?access_token={token}&"
            f"signature={signature}&pay_sig={pay_sig}",
            body,
        ).json
    assert balance()["balance"] == 1000 and balance()["errcode"] == 0
    assert balance(signature="0" * 64)["errcode"] == 87009
    assert balance(pay_sig="0" * 64)["errcode"] == 268490003
    assert balance(body=VECTOR_BODY + " ")["errcode"] == 268490003


@pytest.fixture
def shop(stack, tmp_path):
    redis, wxfake = stack.redis(), stack.wxfake("--app-key", APP_KEY)
    server = stack.server(redis, wxfake, server__internal_token=TOKEN)
    port = free_port()
    backend = Process(
        ["python3", ROOT / "docs/examples/virtual-payment/backend.py"],
        tmp_path / "backend.log",
        env={
            "WXLOGIND": f"http://127.0.0.1:{server.internal}", "WX_INTERNAL_TOKEN": TOKEN,
            "WX_APPID": APPID, "WX_OFFER_ID": "1450000000", "WX_APP_KEY": APP_KEY,
            "PORT": str(port),
        },
    )

    def ask(path, token, **asked):
        return call(port, "POST", path, asked, {"Authorization": f"Bearer {token}"})

    def is_up():
        with contextlib.suppress(OSError):
            return ask("/", "").status == 404
    poll(is_up, what="the backend")
    yield server, wxfake, ask
    backend.proc.kill()
    backend.proc.wait()


def test_the_example_makes_a_whole_virtual_payment(shop):
    server, wxfake, ask = shop
    wxfake.call("POST", "/fake/user", {"openid": "oBuyer", "session_key": VECTOR_KEY})
    token = server.login(wxfake.code(openid="oBuyer")).token
    a = ask("/order", token, coins=60)
    assert a.status == 200, a
    data = a.json["signData"]
    assert json.loads(data)["buyQuantity"] == 60 and a.json["mode"] == "short_series_coin"
    assert a.json["signature"] == signature(VECTOR_KEY, data)
    assert a.json["paySig"] == signature(APP_KEY, "requestVirtualPayment&" + data)
    assert ask("/balance", token).json["balance"] == 1000
    assert ask("/spend", token, coins=300, order="o1").json == {
        "errcode": 0, "errmsg": "ok", "order_id": "o1", "balance": 700,
    }
    assert ask("/spend", token, coins=300, order="o1").json["errcode"] == 268490004
    assert ask("/spend", token, coins=701, order="o2").json["errcode"] == 268490006
    assert ask("/give-back", token, coins=300, order="o1").json["errcode"] == 0
    assert ask("/give-back", token, coins=300, order="o1").json["errcode"] == 268490005
    assert ask("/balance", token).json["balance"] == 1000
    assert ask("/balance", "A" * 43).status == 401 and ask("/spend", token).status == 400
    wxfake.call("POST", "/fake/expire", {"openid": "oBuyer"})
    assert ask("/balance", token).json["errcode"] == 87009
    token = server.login(wxfake.code(openid="oBuyer")).token
    assert ask("/balance", token).json["balance"] == 1000
