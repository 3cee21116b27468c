"""wxfake alone: jscode2session and the life of a session_key, held against what is known of WeChat
and docs/wxfake.md."""
import base64
import concurrent.futures
import hashlib
import hmac
import re
import time

import pytest

from conftest import APPID, SECRET
from wxfake_client import (
    LOGIN_BODY, OPENID, OTHER, OTHER_SECRET, TWO_APPS, access_token, check, decrypt, is_json_type,
    login, phone, plain_token, query, refused, sign, sns,
)
from wxfake_client import later  # noqa: F401  a fixture


# ---- jscode2session ----

def test_success_has_wechats_shape(wxfake):
    given = wxfake.call("POST", "/fake/code").json  # no body at all: the only app, a new user
    wxfake.codes.append(given["code"])
    assert re.fullmatch("0[0-9A-Za-z]{31}", given["code"]) and re.fullmatch(OPENID, given["openid"])
    a = sns(wxfake, given["code"])
    assert (
        a.status == 200
        and a.headers["Content-Type"] == "text/plain"
        and LOGIN_BODY.fullmatch(a.body.decode())
    ), a
    assert (
        a.json["openid"] == given["openid"] and len(base64.b64decode(a.json["session_key"])) == 16
    )


def test_slashes_are_escaped(wxfake):
    seen = 0
    for _ in range(60):
        a = sns(wxfake, wxfake.code())
        assert LOGIN_BODY.fullmatch(a.body.decode()), a
        seen += "/" in a.json["session_key"]
        assert a.body.count(b"/") == a.body.count(b"\\/") == a.json["session_key"].count("/")
    assert 1 <= seen < 60  # about 28 %


def test_who_has_a_unionid(wxfake):
    assert login(wxfake, openid="oFirst", unionid="oUnion")["unionid"] == "oUnion"
    assert "unionid" not in login(wxfake, openid="oSecond", unionid="")
    assert "unionid" not in login(wxfake, openid="oSecond")
    assert (
        wxfake.call("POST", "/fake/user", {"openid": "oSecond", "unionid": "oThird"}).status == 204
    )
    assert login(wxfake, openid="oSecond")["unionid"] == "oThird"


def test_a_code_is_good_once(wxfake):
    code = wxfake.code()
    first = sns(wxfake, code)
    assert first.json["openid"]
    for _ in range(3):
        refused(sns(wxfake, code), 40163, True)
    again = sns(wxfake, wxfake.code(openid=first.json["openid"])).json
    assert again["openid"] == first.json["openid"] and again["unionid"] == first.json["unionid"]


def test_one_of_twenty_at_once(wxfake):
    code = wxfake.code()
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: sns(wxfake, code).json.get("errcode", 0), range(20)))
    assert sorted(answers) == [0] + [40163] * 19


def test_a_code_lives_five_minutes(later):
    young, old, used = later.code(appid=APPID), later.code(appid=APPID), later.code(appid=APPID)
    assert "openid" in sns(later, used).json
    later.later(298)
    assert "openid" in sns(later, young).json
    later.later(3)
    refused(sns(later, old), 40029, True)
    refused(sns(later, used), 40163, True)
    assert "openid" in sns(later, later.code(appid=APPID)).json


@pytest.mark.parametrize(
    "code",
    [
        "nobody-made-this", "the code is a mock onee", "0" * 32, "a" * 256, "a&b=c/d?e#f+g",
        "你好", "%",
    ],
)
def test_unknown_codes(wxfake, code):
    refused(sns(wxfake, code), 40029, True)

MOCK = "the code is a mock one"  # what the developer tools give for each wx.login of touristappid


def test_the_mock_code_logs_in_as_often_as_one_likes(wxfake):
    bare = {sns(wxfake, MOCK).json["openid"] for _ in range(150)}  # and no rate
    one = {sns(wxfake, f"{MOCK} phone1~{i}").json["openid"] for i in range(3)}
    two = {sns(wxfake, f"{MOCK} phone2~{i}").json["openid"] for i in range(3)}
    assert len(bare) == len(one) == len(two) == 1 and len(bare | one | two) == 3
    user = sns(wxfake, f"{MOCK} phone1~9").json
    assert check(wxfake, user, access_token(wxfake)).json["errcode"] == 0  # a user as any other
    wxfake.call("POST", "/fake/user", {"openid": user["openid"], "blocked": True})
    refused(sns(wxfake, f"{MOCK} phone1~10"), 40226, True)
    refused(phone(wxfake, MOCK, access_token(wxfake)), 40029)


def test_rid_begins_with_the_time(wxfake):
    assert abs(refused(sns(wxfake, "x"), 40029, True) - time.time()) < 5
    assert abs(refused(plain_token(wxfake, appid="x"), 40013) - time.time()) < 5


@pytest.mark.parametrize(
    "change, errcode",
    [
        ({"appid": None}, 41002),
        ({"appid": ""}, 41002),
        ({"appid": OTHER}, 40013),
        ({"appid": APPID.upper()}, 40013),
        ({"appid": APPID + " "}, 40013),
        ({"secret": None}, 41004),
        ({"secret": ""}, 41004),
        ({"secret": SECRET[:-1]}, 40125),
        ({"secret": SECRET + "0"}, 40125),
        ({"secret": SECRET.upper()}, 40125),
        ({"grant_type": None}, 40002),
        ({"grant_type": "client_credential"}, 40002),
        ({"grant_type": "authorization_code;"}, 40002),
        ({"code": None}, 41008),
        ({"code": ""}, 41008),
        # two at once: in the order that the page gives
        ({"appid": None, "secret": None, "code": None}, 41002),
        ({"appid": OTHER, "secret": None}, 40013),
        ({"secret": "x", "grant_type": "x"}, 40125),
        ({"grant_type": None, "code": None}, 40002),
        ({"secret": None, "grant_type": None, "code": None}, 41004),
    ],
)
def test_parameters_missing_or_wrong(wxfake, change, errcode):
    code = wxfake.code()
    refused(sns(wxfake, **{"code": code, **change}), errcode, True)
    assert "openid" in sns(wxfake, code).json  # and the code was not spent


def test_more_parameters_do_no_harm(wxfake):
    assert "openid" in sns(wxfake, wxfake.code(), access_token="x", connect_redirect="1").json


def test_a_code_of_another_app(stack):
    w = stack.wxfake(*TWO_APPS)
    code = w.code(appid=OTHER)
    refused(sns(w, code), 40029, True)
    refused(sns(w, code, OTHER, SECRET), 40125, True)
    assert "openid" in sns(w, code, OTHER, OTHER_SECRET).json
    refused(sns(w, code), 40029, True)


def test_a_blocked_user(wxfake):
    openid = login(wxfake)["openid"]
    assert wxfake.call("POST", "/fake/user", {"openid": openid, "blocked": True}).status == 204
    code = wxfake.code(openid=openid)
    refused(sns(wxfake, code), 40226, True)
    refused(sns(wxfake, code), 40163, True)
    assert wxfake.call("POST", "/fake/user", {"openid": openid, "blocked": False}).status == 204
    assert login(wxfake, openid=openid)["openid"] == openid


def test_a_hundred_logins_a_minute(later):
    to_the_minute = lambda: later.later(60 - int(time.monotonic() + later.ahead[0]) % 60)
    to_the_minute()
    begun = time.monotonic()
    for _ in range(100):
        login(later, appid=APPID, openid="oBusy")
    spare = later.code(appid=APPID, openid="oBusy")
    refused(sns(later, spare), 45011, True)
    assert login(later, appid=APPID, openid="oIdle") and login(later, appid=OTHER, openid="oBusy")
    assert time.monotonic() - begun < 58
    to_the_minute()
    assert "openid" in sns(later, spare).json  # the refusal did not spend it


@pytest.mark.parametrize(
    "method, path, errcode",
    [
        ("POST", "/sns/jscode2session", 43001),
        ("PUT", "/sns/jscode2session", 43001),
        ("GET", "/sns/jsCode2Session", 40066),
        ("GET", "/sns/jscode2session/", 40066),
        ("GET", "/nope", 40066),
        ("POST", "/cgi-bin/token", 43001),
        ("GET", "/cgi-bin/stable_token", 43002),
        ("POST", "/wxa/checksession", 43001),
        ("GET", "/wxa/business/getuserphonenumber", 43002),
        ("POST", "/nope", 40066),
        ("GET", "/fake", 40066),
    ],
)
def test_wrong_method_or_path(wxfake, method, path, errcode):
    refused(
        wxfake.call(method, path + query(appid=APPID, secret=SECRET)), errcode,
        path.startswith("/sns/"),
    )


# ---- session_key ----

def test_checksession(wxfake):
    user, other = login(wxfake), login(wxfake)
    a = check(wxfake, user)
    assert a.status == 200 and a.body == b'{"errcode":0,"errmsg":"ok"}' and is_json_type(a), a
    decoded = hmac.new(base64.b64decode(user["session_key"]), b"", hashlib.sha256).hexdigest()
    swapped = hmac.new(b"", user["session_key"].encode(), hashlib.sha256).hexdigest()
    for wrong in (
        sign(other["session_key"]), sign(user["session_key"]).upper(), decoded, swapped,
        hashlib.sha1(b"").hexdigest(), "", None,
    ):
        refused(check(wxfake, user, signature=wrong), 87009)
    for wrong in ("hmac_sha1", "", None):
        refused(check(wxfake, user, sig_method=wrong), 87008)
    for wrong in ("oNobody", "", "a b", None):
        assert check(wxfake, user, openid=wrong).json["errcode"] == 40003
    refused(wxfake.call("GET", "/wxa/checksession" + query(openid=user["openid"])), 41001)
    refused(check(wxfake, user, "no-such-token"), 40001)


def test_signature_vectors():
    """WeChat's own, and those computed for the page: this file signs and decrypts as WeChat
    does."""
    assert (
        sign("o0q0otL8aEzpcZL/FT9WsQ==", b'{"foo":"bar"}')
        == "654571f79995b2ce1e149e53c0a33dc39c0a74090db514261454e8dbe432aa0b"
    )
    assert (
        sign("tiihtNczf5v6AKRyjwEUhQ==")
        == "7154f9f8b4b76b92f541cbf0e37d48840fa06e5e42da92a6f80168a1516a4735"
    )
    raw = (
        '{"nickName":"小明🐼","gender":0,"language":"zh_CN","city":"","province":"","country":"","avat'
        'arUrl":""}'
    )
    assert (
        hashlib.sha1((raw + "HyVFkGl5F5OQWJZZaNzBBg==").encode()).hexdigest()
        == "95a652c9e116c1f84a7a2f1370e6277b077ac23b"
    )
    plain = decrypt(
        "HyVFkGl5F5OQWJZZaNzBBg==", "AAECAwQFBgcICQoLDA0ODw==",
        "ntxbJ342ENErI48OuOK8l9HYBNnE3t/ypgGqoD7dflMyGVLYSP4nSF7TgT4IiXzS4viN7MEz3l8wC2a8vSNMOsCjV5"
        "pcewWDVPK+69xy+6VzHwSKTksv"
        "WqrCQkIWcFSnconVDFuAT/oY3t0SW9lpcg==",
    )
    assert (
        plain
        == (
            b'{"openGId":"tGid","watermark":{"timestamp":1700000000,"appid":"wx4f4bc4dec97d474b"},"'
            b'pad":"xxx"}'
        )
    )


def test_the_key_stays_or_a_login_replaces_it(stack):
    steady, rotating = stack.wxfake(), stack.wxfake("--rotate")
    first = login(steady, openid="oU")
    assert login(steady, openid="oU") == first
    first = login(rotating, openid="oU")
    assert check(rotating, first).json["errcode"] == 0
    rotating.code(openid="oU")  # got and never sent: the page lets this be either
    second = login(rotating, openid="oU")
    assert second["session_key"] != first["session_key"]
    refused(check(rotating, first), 87009)
    assert check(rotating, second).json["errcode"] == 0


def test_expire(wxfake):
    user, other = login(wxfake), login(wxfake)
    assert wxfake.call("POST", "/fake/expire", {"openid": user["openid"]}).status == 204
    refused(check(wxfake, user), 87009)
    assert check(wxfake, other).json["errcode"] == 0
    fresh = login(wxfake, openid=user["openid"])
    assert fresh["session_key"] != user["session_key"] and check(wxfake, fresh).json["errcode"] == 0


def test_reset_session_key(wxfake):
    user = login(wxfake)
    path = "/wxa/resetusersessionkey"
    refused(check(wxfake, user, path=path, signature="0" * 64), 87009)
    refused(check(wxfake, user, path=path, sig_method="md5"), 87008)
    a = check(wxfake, user, path=path)
    assert list(a.json) == ["errcode", "errmsg", "openid", "session_key"] and (
        a.json["errcode"], a.json["openid"],
    ) == (0, user["openid"])
    assert a.json["session_key"] != user["session_key"]
    refused(check(wxfake, user), 87009)
    assert check(wxfake, a.json).json["errcode"] == 0
    assert login(wxfake, openid=user["openid"])["session_key"] == a.json["session_key"]


def test_every_app_has_its_users(stack):
    w = stack.wxfake(*TWO_APPS)
    one, two = login(w, appid=APPID, openid="oSame"), login(w, appid=OTHER, openid="oSame")
    assert one["session_key"] != two["session_key"]
    for user, appid, secret in ((one, APPID, SECRET), (two, OTHER, OTHER_SECRET)):
        assert check(w, user, access_token(w, appid=appid, secret=secret)).json["errcode"] == 0
    refused(check(w, one, access_token(w, appid=OTHER, secret=OTHER_SECRET)), 87009)
    only = login(w, appid=OTHER)
    assert check(w, only, access_token(w)).json["errcode"] == 40003
    assert w.call("POST", "/fake/expire", {"appid": APPID, "openid": "oSame"}).status == 204
    assert check(w, two, access_token(w, appid=OTHER, secret=OTHER_SECRET)).json["errcode"] == 0
