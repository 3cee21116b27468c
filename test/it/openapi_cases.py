"""What provokes each answer that docs/openapi.yaml documents: CASES, which test_openapi.py
tries."""
import base64
import contextlib
import hashlib
import json
import re
import socket
import subprocess
import time
import urllib.parse

from conftest import APPID, SECRET, call, poll
from openapi_doc import OPERATIONS, fits

TOKEN = "the-internal-token"
OTHER, OTHER_SECRET = "wx00000000000other", "another secret"


class World:
    """A Redis, a wxfake of two apps, a server that serves both, and one that knows the first
    alone."""

    def __init__(self, stack, **config):
        self.stack, self.config = stack, config
        self.redis = stack.redis()
        self.wxfake = stack.wxfake("--app", f"{APPID}:{SECRET}", "--app", f"{OTHER}:{OTHER_SECRET}")
        self.server = self.another(**{f"app_{OTHER}__secret": OTHER_SECRET}, **config)

    def another(self, **config):
        self.users = self.stack.dir / f"users{len(self.stack.made['server'])}.db"
        return self.stack.server(
            self.redis, self.wxfake,
            **{
                "server__internal_token": TOKEN, f"app_{APPID}__push_token": "AAAAA",
                "users__url": f"sqlite://{self.users}", **config,
            },
        )

    def code(self, **kw):
        return self.wxfake.code(**{"appid": APPID, **kw})

    def token(self, server=None, **kw):
        appid = kw.get("appid", APPID)
        return (server or self.server).login(self.code(**kw), appid=appid).token

    def bearer(self, token=None):
        return {"Authorization": f"Bearer {token or self.token()}"}

    def data(self, openid="oOpenData", **kw):
        self.wxfake.call("POST", "/fake/user", {"appid": APPID, "openid": openid})
        return self.wxfake.call(
            "POST", "/fake/encrypt",
            {"appid": APPID, "openid": openid, "data": {"nickName": "好"}, **kw},
        ).json

    def ask(self, request, server=None, **change):
        method, path, body, headers = request
        server = server or self.server
        method, path, body, headers = (
            change.get("method", method), change.get("path", path), change.get("body", body),
            change.get("headers", headers),
        )
        return call(
            server.internal
            if path.startswith(("/internal", "/metrics", "/healthz", "/readyz"))
            else server.port,
            method, path, body, headers,
        )


def inside(method, path, body=None, **headers):
    return lambda w: (method, path, body, {"X-Internal-Token": TOKEN, **headers})


USER = f"/internal/apps/{APPID}/users/oOpenapi"
def pushed(w, method, body=None, **more):
    """Signed for the token AAAAA, as a plain message is."""
    now, nonce = str(int(time.time())), "77"
    signature = hashlib.sha1("".join(sorted(["AAAAA", now, nonce])).encode()).hexdigest()
    query = urllib.parse.urlencode(
        {"signature": signature, "timestamp": now, "nonce": nonce, **more}
    )
    return method, f"/v1/push/{APPID}?{query}", body, {}


EXAMPLES = {  # one good request of each operation
    "login": lambda w: ("POST", "/v1/login", {"code": w.code(), "appid": APPID}, {}),
    "getSession": lambda w: ("GET", "/v1/session", None, w.bearer()),
    "deleteSession": lambda w: ("DELETE", "/v1/session", None, w.bearer()),
    "getUser": lambda w: ("GET", "/v1/user", None, w.bearer()),
    "putUser": lambda w: (
        "PUT", "/v1/user",
        {"nickName": "好", "gender": 1, "city": None},
        w.bearer(),
    ),
    "deleteUser": lambda w: ("DELETE", "/v1/user", None, w.bearer()),
    "getPhone": lambda w: (
        "POST", "/v1/user/phone",
        {"code": w.code(kind="phone", openid="oOpenapi")},
        w.bearer(w.token(openid="oOpenapi")),
    ),
    "openData": lambda w: (
        "POST", "/v1/open-data", w.data(), w.bearer(w.token(openid="oOpenData")),
    ),
    "provePush": lambda w: pushed(w, "GET", echostr="echo4375"),
    "push": lambda w: pushed(w, "POST", {"MsgType": "text"}),
    "auth": lambda w: ("GET", "/internal/auth", None, {**w.bearer(), "X-Internal-Token": TOKEN}),
    "introspect": lambda w: (
        "POST", "/internal/introspect", f"token={w.token()}",
        {"Content-Type": "application/x-www-form-urlencoded", "X-Internal-Token": TOKEN},
    ),
    "getAccessToken": inside("GET", f"/internal/apps/{APPID}/access-token"),
    "callWechat": inside(
        "POST", f"/internal/apps/{APPID}/wechat/wxa/msg_sec_check", {"content": "text"}
    ),
    "getUserInside": lambda w: w.token(openid="oOpenapi") and inside("GET", USER)(w),
    "sign": lambda w: w.token(openid="oOpenapi") and inside("POST", USER + "/sign", "text")(w),
    "getEncryptKeys": lambda w: w.token(openid="oOpenapi")
    and inside("GET", USER + "/encrypt-keys")(w),
    "listUsers": lambda w: w.token(openid="oOpenapi")
    and inside("GET", f"/internal/apps/{APPID}/users")(w),
    "importUser": inside(
        "PUT", USER,
        {"created_at": 1600000000, "unionid": "u", "phoneNumber": "13812345678", "nickName": "好"},
    ),
    "eraseUser": inside("DELETE", USER),
    "exportUser": lambda w: w.token(openid="oOpenapi") and inside("GET", USER + "/export")(w),
    "blockUser": inside("PUT", USER + "/block", {"note": "好", "until": 1 << 33}),
    "unblockUser": inside("DELETE", USER + "/block"),
    "listSessions": lambda w: w.token(openid="oOpenapi") and inside("GET", USER + "/sessions")(w),
    "deleteSessions": inside("DELETE", USER + "/sessions"),
    "deleteSessionById": inside("DELETE", USER + "/sessions/" + "A" * 20),
    "console": lambda w: ("GET", "/internal/console", None, {}),
    "metrics": inside("GET", "/metrics"), "healthz": inside("GET", "/healthz"),
    "readyz": inside("GET", "/readyz"),
}
CASES = {}  # operation -> [(status, error, what provokes it)]


def case(operations, status, error=None):
    def keep(how):
        for operation in operations.split():
            CASES.setdefault(operation, []).append((status, error, how))
        return how
    return keep


def example(w, operation):
    return EXAMPLES[operation](w)


@case(
    "provePush push login getSession getUser putUser getPhone openData auth introspect "
    "getAccessToken callWechat getUserInside sign getEncryptKeys listSessions console metrics "
    "healthz readyz listUsers importUser exportUser",
    200,
)
@case(
    "deleteSession deleteSessions deleteSessionById deleteUser eraseUser blockUser unblockUser", 204
)
def good(w, operation):
    return w.ask(example(w, operation))


@case("auth", 200)
def unionid_unknown(w, operation):
    a = w.ask(
        (
            "GET", "/internal/auth", None,
            {**w.bearer(w.token(openid="oAlone", unionid="")), "X-Internal-Token": TOKEN},
        )
    )
    assert a.headers["X-Wx-Unionid"] == ""
    return a


@case("auth", 200)
def every_method_and_below(w, operation):
    for method in ("POST", "PUT", "PATCH", "OPTIONS"):
        a = w.ask(example(w, operation), method=method, path="/internal/auth/some/path?x=1")
    return a


@case("introspect", 200)
def inactive(w, operation):
    return w.ask(example(w, operation), body="token=" + "A" * 43)


@case("getSession", 200)
def asks_wechat(w, operation):
    a = w.ask(example(w, operation), path="/v1/session?check=wechat")
    assert a.json["session_key_valid"] is True
    return a


@case("listSessions", 200)
def none(w, operation):
    a = w.ask(example(w, operation), path=USER + "Nobody/sessions")
    assert a.json == {"sessions": []}
    return a


@case("deleteSessionById", 204)
def one_of_them(w, operation):
    for _ in range(2):
        w.token(openid="oOpenapi")
    sessions = w.ask(example(w, "listSessions")).json["sessions"]
    a = w.ask(example(w, operation), path=f"{USER}/sessions/{sessions[0]['id']}")
    assert len(w.ask(inside("GET", USER + "/sessions")(w)).json["sessions"]) == len(sessions) - 1
    return a


# what is wrong with the request

@case("login", 400, "invalid_request")
@case("putUser getPhone openData importUser blockUser", 400, "invalid_request")
@case("introspect", 400, "invalid_request")
def bad_body(w, operation):
    return w.ask(example(w, operation), body="nothing of the kind")


@case("listUsers", 400, "invalid_request")
def bad_limit(w, operation):
    return w.ask(example(w, operation), path=f"/internal/apps/{APPID}/users?limit=0")


@case("getSession", 400, "invalid_request")
def bad_query(w, operation):
    return w.ask(example(w, operation), path="/v1/session?check=nobody")


@case(
    "getUserInside sign getEncryptKeys listSessions deleteSessions deleteSessionById eraseUser "
    "exportUser unblockUser",
    400, "invalid_request",
)
def bad_openid(w, operation):
    request = example(w, operation)
    return w.ask(request, path=request[1].replace("oOpenapi", "o" * 129))


@case("callWechat", 400, "invalid_request")
def refused_path(w, operation):
    return w.ask(example(w, operation), path=f"/internal/apps/{APPID}/wechat/cgi-bin/token")


@case("login", 400, "unknown_app")
def unknown_app_in_the_body(w, operation):
    return w.ask(example(w, operation), body={"code": w.code(), "appid": "wxnobody"})


@case("getSession getPhone", 400, "unknown_app")
def an_app_that_is_gone(w, operation):
    token, server, request = w.token(appid=OTHER), w.another(), example(w, operation)

    def from_memory():
        w.ask(request, headers=w.bearer(token), server=server)
        return re.search(
            r'session_cache_total\{result="hit"\} [1-9]',
            w.ask(inside("GET", "/metrics")(w), server=server).body.decode(),
        )
    poll(from_memory, what="an answer from memory")
    return w.ask(request, headers=w.bearer(token), server=server)


@case(
    "getAccessToken callWechat getUserInside sign getEncryptKeys listSessions listUsers "
    "importUser exportUser blockUser unblockUser",
    400, "unknown_app",
)
def unknown_app_in_the_path(w, operation):
    request = example(w, operation)
    return w.ask(request, path=request[1].replace(APPID, "wxnobody"))


@case("openData", 400, "decrypt_failed")
def another_apps_data(w, operation):
    method, path, body, headers = example(w, operation)
    other = w.data(data={"watermark": {"appid": "wxnobody", "timestamp": 1}})
    return w.ask(
        (method, path, {"encryptedData": other["encryptedData"], "iv": other["iv"]}, headers)
    )


@case("openData", 400, "signature_mismatch")
def forged_signature(w, operation):
    method, path, body, headers = example(w, operation)
    return w.ask((method, path, {**body, "signature": "0" * 40}, headers))


# who is asking

@case("login", 401, "invalid_code")
def bad_code(w, operation):
    a = w.ask(example(w, operation), body={"code": "no such code", "appid": APPID})
    assert a.json["errcode"] == 40029
    return a


@case("getPhone", 401, "invalid_code")
def bad_button(w, operation):
    return w.ask(example(w, operation), body={"code": "no such code"})


@case("login", 403, "user_blocked")
def blocked(w, operation):
    code = w.code(openid="oBlocked")
    assert (
        w.wxfake.call(
            "POST", "/fake/user", {"appid": APPID, "openid": "oBlocked", "blocked": True}
        ).status == 204
    )
    return w.ask(example(w, operation), body={"code": code, "appid": APPID})


@case("getSession getUser putUser deleteUser getPhone openData auth", 401, "invalid_session")
def no_session(w, operation):
    request = example(w, operation)
    rest = {k: v for k, v in request[3].items() if k != "Authorization"}
    reasons = [
        w.ask(request, headers={**rest, **h}).json["reason"]
        for h in ({}, {"Authorization": "Bearer x"}, {"X-Third-Session": "A" * 43})
    ]
    assert reasons == ["missing", "malformed", "unknown"]
    token = w.token()
    assert w.server.session(token, "DELETE").status == 204
    a = w.ask(request, headers={**rest, **w.bearer(token)})
    assert a.json["reason"] == "logged_out"
    return a


@case(
    "auth introspect getAccessToken callWechat getUserInside sign getEncryptKeys listSessions "
    "deleteSessions deleteSessionById metrics listUsers importUser eraseUser exportUser blockUser "
    "unblockUser",
    401, "unauthorized",
)
def no_internal_token(w, operation):
    request = example(w, operation)
    return w.ask(request, headers={k: v for k, v in request[3].items() if k != "X-Internal-Token"})


@case(
    "introspect getAccessToken callWechat getUserInside sign getEncryptKeys listSessions "
    "deleteSessions deleteSessionById console metrics listUsers importUser eraseUser exportUser "
    "blockUser unblockUser",
    403, "forbidden",
)
def from_another_site(w, operation):
    method, path, body, headers = example(w, operation)
    return w.ask(
        (method, path, body, {**headers, "Host": "evil.example"}),
        server=w.another(server__internal_token=""),
    )


@case("console", 404, "not_found")
def no_such_file(w, operation):
    return w.ask(("GET", "/internal/console/none.js", None, {}))


@case("callWechat", 404, "not_found")
def without_internal_token(w, operation):
    return w.ask(example(w, operation), server=w.another(server__internal_token=""))


@case(
    "getUser putUser getUserInside listUsers importUser exportUser blockUser unblockUser", 404,
    "not_found",
)
def without_users(w, operation):
    return w.ask(example(w, operation), server=w.another(users__url="none"))


@case("getUserInside", 404, "not_found")
def no_such_user(w, operation):
    return w.ask(example(w, operation), path=USER + "Nobody")


@case("sign getEncryptKeys", 404, "not_found")
def no_session_lives(w, operation):
    request = example(w, operation)
    return w.ask(request, path=request[1].replace("oOpenapi", "oNobody"))


@case("getEncryptKeys", 409, "session_key_expired")
def a_dead_session_key(w, operation):
    request = example(w, operation)
    w.redis.cli(
        "EVAL", "for _, k in ipairs(redis.call('KEYS', '*:e:*')) do redis.call('DEL', k) end", 0
    )
    w.wxfake.fault("getuserencryptkey", mode="errcode", errcode=87007)
    return w.ask(request)


@case("provePush push", 403, "bad_signature")
def not_signed(w, operation):
    request = example(w, operation)
    return w.ask(request, path=request[1].replace("signature=", "signature=0"))


@case("provePush push", 404, "not_found")
def no_push_token(w, operation):
    return w.ask(example(w, operation), server=w.another(**{f"app_{APPID}__push_token": ""}))


@case("push", 503, "backend_unavailable")
def nobody_at_push_forward(w, operation):
    return w.ask(
        example(w, operation),
        server=w.another(**{f"app_{APPID}__push_forward": "http://127.0.0.1:1/"}),
    )


def sealed(text, aes_key):
    key = base64.b64decode(aes_key + "=")
    plain = b"r" * 16 + len(text).to_bytes(4, "big") + text.encode() + APPID.encode()
    pad = 32 - len(plain) % 32
    return base64.b64encode(
        subprocess.run(
            ["openssl", "enc", "-aes-256-cbc", "-nopad", "-K", key.hex(), "-iv", key[:16].hex()],
            input=plain + bytes([pad]) * pad, capture_output=True, check=True,
        ).stdout
    ).decode()


@case("push", 503, "store_unavailable")
def redis_cannot_say_whether_it_was_obeyed(w, operation):
    aes_key = "fakepushkeyfakepushkeyfakepushkeyfakepushke"
    server = w.another(**{f"app_{APPID}__push_aes_key": aes_key})
    message = {
        "MsgType": "event", "Event": "user_info_modified", "OpenID": "o1",
        "CreateTime": int(time.time()),
    }
    encrypt, now = sealed(json.dumps(message), aes_key), str(int(time.time()))
    signature = hashlib.sha1("".join(sorted(["AAAAA", now, "77", encrypt])).encode()).hexdigest()
    request = (
        "POST", f"/v1/push/{APPID}?msg_signature={signature}&timestamp={now}&nonce=77",
        {"Encrypt": encrypt},
        {},
    )
    w.redis.kill()
    a = w.ask(request, server=server)
    w.redis.start()
    assert poll(lambda: (b := w.ask(request, server=server)).status == 200 and b).body == b"success"
    return a


@case("login", 200)
def without_new_user(w, operation):
    a = w.ask(example(w, operation), server=w.another(users__url="none"))
    assert "new_user" not in a.json
    return a


@case("login", 403, "user_blocked")
def blocked_by_us(w, operation):
    assert w.ask(example(w, "blockUser")).status == 204
    w.ask(example(w, operation), body={"code": w.code(openid="oOpenapi"), "appid": APPID})
    a = w.ask(inside("GET", f"/internal/apps/{APPID}/users?blocked=1")(w))
    fits(a, OPERATIONS["listUsers"][3]["responses"]["200"])
    assert a.json["users"][0]["blocked"]["note"] == "好"
    return w.ask(example(w, operation), body={"code": w.code(openid="oOpenapi"), "appid": APPID})


@case("getUserInside", 200)
def all_that_is_kept(w, operation):
    token = w.token(openid="oOpenapi")
    assert w.ask(("PUT", "/v1/user", {"nickName": "好", "gender": 2}, w.bearer(token))).status == 200
    phone = w.ask(
        (
            "POST", "/v1/user/phone",
            {"code": w.code(kind="phone", openid="oOpenapi")},
            w.bearer(token),
        )
    )
    a = w.ask(inside("GET", USER)(w))
    assert (
        a.json["phoneNumber"] == phone.json["phoneNumber"]
        and a.json["nickName"] == "好"
        and a.json["unionid"]
    )
    return a


# WeChat

@case("login", 429, "rate_limited")
def our_limit(w, operation):
    server = w.another(limit__login_per_app="1/1m")
    assert w.ask(example(w, operation), server=server).status == 200
    return w.ask(example(w, operation), server=server)


def with_fault(w, operation, api, **fault):
    request = example(w, operation)
    if operation == "getSession":
        request = (request[0], "/v1/session?check=wechat", *request[2:])
    # no access_token that is left, no key of a user's
    w.redis.cli(
        "EVAL",
        "for _, p in ipairs({'*:t:*', '*:e:*'}) do for _, k in ipairs(redis.call('KEYS', p)) do "
        "redis.call('DEL', k) end end", 0,
    )
    w.wxfake.fault(api, **fault)
    try:
        return w.ask(request, server=w.another())  # one that holds none either, nor a grudge
    finally:
        w.wxfake.clear()


def api_of(operation):
    return "jscode2session" if operation == "login" else "stable_token"


ASKING_WECHAT = "login getSession getPhone getAccessToken callWechat getEncryptKeys"


@case("openData", 429, "rate_limited")
def more_open_data_than_a_users_share(w, operation):
    server = w.another(limit__open_data_per_user="1/1m")
    w.ask(example(w, operation), server=server)
    return w.ask(example(w, operation), server=server)


@case(ASKING_WECHAT, 429, "rate_limited")
def wechats_limit(w, operation):
    return with_fault(w, operation, api_of(operation), mode="errcode", errcode=45009, count=9)


@case(ASKING_WECHAT, 502, "wechat_error")
def wechat_talks_nonsense(w, operation):
    return with_fault(w, operation, api_of(operation), mode="not_json", count=9)


@case(ASKING_WECHAT, 502, "wechat_config")
def wechat_refuses_the_app(w, operation):
    return with_fault(w, operation, api_of(operation), mode="errcode", errcode=40125, count=9)


@case(ASKING_WECHAT, 503, "wechat_unavailable")
def wechat_is_busy(w, operation):
    return with_fault(w, operation, api_of(operation), mode="errcode", errcode=-1, count=99)


# us

@case(" ".join(EXAMPLES), 503, "overloaded")
def full(w, operation):
    request = example(w, operation)
    server = w.another(server__max_connections=1)
    with contextlib.ExitStack() as held:
        for port in (server.port, server.internal):
            s = held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            def taken():  # the health check's own connection goes first
                s.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                return s.recv(4096)
            assert taken()
            s.sendall(b"GET /")  # the next has begun: who is idle would make room
            poll(
                lambda: server.raw(
                    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", internal=port == server.internal
                ).startswith(b"HTTP/1.1 503")
            )
        return w.ask(request, server=server)


@case(
    "getUser putUser deleteUser getPhone getUserInside listUsers importUser eraseUser exportUser "
    "blockUser unblockUser",
    503, "store_unavailable",
)
def users_are_away(w, operation):
    return w.ask(
        example(w, operation), server=w.another(users__url="mysql://nobody@127.0.0.1:1/nowhere")
    )


@case(
    "login getSession deleteSession getUser putUser getPhone openData auth introspect "
    "getAccessToken callWechat sign getEncryptKeys listSessions deleteSessions deleteSessionById "
    "readyz deleteUser",
    503, "store_unavailable",
)
def redis_is_gone(w, operation):  # the last case: Redis stays away
    request = example(w, operation)
    w.redis.kill()
    return poll(lambda: (a := w.ask(request)).status == 503 and a, what="503")
