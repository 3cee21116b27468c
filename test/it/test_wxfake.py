"""wxfake alone, held against what is known of WeChat, against the contract (section 4) and against docs/wxfake.md.

Where a test says "was wrong:", wxfake once disagreed with those pages."""
import base64
import concurrent.futures
import contextlib
import hashlib
import hmac
import http.client
import json
import mmap
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import time
import urllib.parse

import pytest

from conftest import APPID, BUILD, ROOT, SANITIZED, SECRET, call, free_port, poll

OTHER, OTHER_SECRET = "wx0123456789abcdef", "0123456789abcdef0123456789abcdef"
TWO_APPS = ("--app", f"{APPID}:{SECRET}", "--app", f"{OTHER}:{OTHER_SECRET}")
TEXTS = {
    -1: "system error", 40002: "invalid grant_type", 40013: "invalid appid", 40014: "invalid access_token", 40029: "invalid code",
    40066: "invalid url", 40125: "invalid appsecret", 40163: "code been used", 40226: "code blocked", 41001: "access_token missing",
    40001: "invalid credential, access_token is invalid or not latest, could get access_token by getStableAccessToken, "
           "more details at https://mmbizurl.cn/s/JtxxFh33r",
    40164: "invalid ip 127.0.0.1 ipv6 ::ffff:127.0.0.1, not in whitelist", 41002: "appid missing", 41004: "appsecret missing",
    41008: "missing code", 42001: "access_token expired", 43001: "require GET method", 43002: "require POST method",
    45009: "reach max api daily quota limit", 45011: "api minute-quota reach limit  mustslower  retry next minute",
    87008: "invalid sig_method", 87009: "invalid signature",
}
TICK = 0.02  # a timer may fire a little early
RID = r" rid: ([0-9a-f]{8})-[0-9a-f]{8}-[0-9a-f]{8}"
OPENID, SESSION_KEY = r"o[A-Za-z0-9_-]{27}", r"(?:[A-Za-z0-9+]|\\/){22}=="
LOGIN_BODY = re.compile(rf'{{"session_key":"{SESSION_KEY}","openid":"{OPENID}","unionid":"{OPENID}"}}')


# ---- what a client of WeChat does ----

def query(**kw):
    return "?" + urllib.parse.urlencode({k: v for k, v in kw.items() if v is not None})


def sns(w, code, appid=APPID, secret=SECRET, grant_type="authorization_code", **kw):
    return w.call("GET", "/sns/jscode2session" + query(appid=appid, secret=secret, js_code=code, grant_type=grant_type, **kw))


def login(w, **kw):
    """A user logs in: {session_key, openid, unionid}."""
    appid = kw.get("appid", APPID)
    a = sns(w, w.code(**kw), appid, OTHER_SECRET if appid == OTHER else SECRET)
    assert "openid" in a.json, a
    return a.json


def plain_token(w, appid=APPID, secret=SECRET, grant_type="client_credential"):
    return w.call("GET", "/cgi-bin/token" + query(appid=appid, secret=secret, grant_type=grant_type))


def stable_token(w, appid=APPID, secret=SECRET, grant_type="client_credential", **kw):
    body = {"grant_type": grant_type, "appid": appid, "secret": secret, **kw}
    return w.call("POST", "/cgi-bin/stable_token", {k: v for k, v in body.items() if v is not None})


def access_token(w, **kw):
    return stable_token(w, **kw).json["access_token"]


def sign(session_key, message=b""):
    return hmac.new(session_key.encode(), message, hashlib.sha256).hexdigest()


def check(w, user, token=None, path="/wxa/checksession", **kw):
    args = {"access_token": token or access_token(w), "openid": user["openid"], "signature": sign(user["session_key"]),
            "sig_method": "hmac_sha256", **kw}
    return w.call("GET", path + query(**args))


def phone(w, code, token=None, **kw):
    return w.call("POST", "/wxa/business/getuserphonenumber" + query(access_token=token or access_token(w)), {"code": code, **kw})


def good_token(w, token):
    """Whether business calls take it; else the errcode."""
    a = check(w, {"openid": "o", "session_key": "k"}, token)
    return True if a.json["errcode"] == 40003 else a.json["errcode"]


def is_json_type(a):
    return a.headers["Content-Type"].split(";")[0] == "application/json"


def refused(a, errcode, is_sns=False):
    """An answer of WeChat's that says no: its status, type, fields, text and rid."""
    assert a.status == 200 and a.json["errcode"] == errcode and list(a.json) == ["errcode", "errmsg"], a
    assert a.headers["Content-Type"] == "text/plain" if is_sns else is_json_type(a)
    m = re.fullmatch(re.escape(TEXTS[errcode]) + ("," if is_sns else "") + RID, a.json["errmsg"])
    assert m, a
    assert a.body.decode() == json.dumps(a.json, separators=(",", ":")).replace("/", "\\/")
    return int(m[1], 16)


def decrypt(session_key, iv, data):
    """By another hand than ours: the openssl program. None when the padding is wrong."""
    key, iv = base64.b64decode(session_key), base64.b64decode(iv)
    assert (len(key), len(iv)) == (16, 16)
    done = subprocess.run(["openssl", "enc", "-d", "-aes-128-cbc", "-K", key.hex(), "-iv", iv.hex()], input=base64.b64decode(data), capture_output=True)
    return done.stdout if done.returncode == 0 else None


# ---- five minutes, without waiting for them ----

SHIM = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
static volatile long long *ahead; /* seconds: of the monotonic clock, of the wall clock */
int clock_gettime(clockid_t id, struct timespec *ts)
{
	long r = syscall(SYS_clock_gettime, id, ts);
	if (!ahead) {
		int fd = open(getenv("WXFAKE_AHEAD"), O_RDONLY);
		ahead = mmap(NULL, 16, PROT_READ, MAP_SHARED, fd, 0);
		close(fd);
	}
	ts->tv_sec += ahead[id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE];
	return (int)r;
}
"""


@pytest.fixture
def later(stack, tmp_path, monkeypatch):
    """A wxfake whose clocks can be put forward: w.later(seconds)."""
    (tmp_path / "shim.c").write_text(SHIM)
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", "shim.so", "shim.c"], cwd=tmp_path, check=True)
    (tmp_path / "ahead").write_bytes(bytes(16))
    with monkeypatch.context() as m:
        m.setenv("LD_PRELOAD", str(tmp_path / "shim.so"))
        m.setenv("WXFAKE_AHEAD", str(tmp_path / "ahead"))
        if SANITIZED:
            m.setenv("ASAN_OPTIONS", os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0")
        w = stack.wxfake(*TWO_APPS)
    w.ahead = [0, 0]
    with open(tmp_path / "ahead", "r+b") as f, contextlib.closing(mmap.mmap(f.fileno(), 16)) as shared:
        def forward(seconds, wall=True):
            w.ahead = [w.ahead[0] + seconds, w.ahead[1] + seconds * wall]
            shared[:] = struct.pack("qq", *w.ahead)
        w.later = forward
        yield w


# ---- jscode2session ----

def test_success_has_wechats_shape(wxfake):
    given = wxfake.call("POST", "/fake/code").json  # no body at all: the only app, a new user
    wxfake.codes.append(given["code"])
    assert re.fullmatch("0[0-9A-Za-z]{31}", given["code"]) and re.fullmatch(OPENID, given["openid"])
    a = sns(wxfake, given["code"])
    assert a.status == 200 and a.headers["Content-Type"] == "text/plain" and LOGIN_BODY.fullmatch(a.body.decode()), a
    assert a.json["openid"] == given["openid"] and len(base64.b64decode(a.json["session_key"])) == 16


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
    assert wxfake.call("POST", "/fake/user", {"openid": "oSecond", "unionid": "oThird"}).status == 204
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


@pytest.mark.parametrize("code", ["nobody-made-this", "the code is a mock onee", "0" * 32, "a" * 256, "a&b=c/d?e#f+g", "你好", "%"])
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


@pytest.mark.parametrize("change, errcode", [
    ({"appid": None}, 41002), ({"appid": ""}, 41002), ({"appid": OTHER}, 40013), ({"appid": APPID.upper()}, 40013), ({"appid": APPID + " "}, 40013),
    ({"secret": None}, 41004), ({"secret": ""}, 41004), ({"secret": SECRET[:-1]}, 40125), ({"secret": SECRET + "0"}, 40125),
    ({"secret": SECRET.upper()}, 40125), ({"grant_type": None}, 40002), ({"grant_type": "client_credential"}, 40002),
    ({"grant_type": "authorization_code;"}, 40002), ({"code": None}, 41008), ({"code": ""}, 41008),
    # two at once: in the order that the page gives
    ({"appid": None, "secret": None, "code": None}, 41002), ({"appid": OTHER, "secret": None}, 40013), ({"secret": "x", "grant_type": "x"}, 40125),
    ({"grant_type": None, "code": None}, 40002), ({"secret": None, "grant_type": None, "code": None}, 41004),
])
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


@pytest.mark.parametrize("method, path, errcode", [
    ("POST", "/sns/jscode2session", 43001), ("PUT", "/sns/jscode2session", 43001), ("GET", "/sns/jsCode2Session", 40066),
    ("GET", "/sns/jscode2session/", 40066), ("GET", "/nope", 40066), ("POST", "/cgi-bin/token", 43001), ("GET", "/cgi-bin/stable_token", 43002),
    ("POST", "/wxa/checksession", 43001), ("GET", "/wxa/business/getuserphonenumber", 43002), ("POST", "/nope", 40066), ("GET", "/fake", 40066),
])
def test_wrong_method_or_path(wxfake, method, path, errcode):
    refused(wxfake.call(method, path + query(appid=APPID, secret=SECRET)), errcode, path.startswith("/sns/"))


# ---- session_key ----

def test_checksession(wxfake):
    user, other = login(wxfake), login(wxfake)
    a = check(wxfake, user)
    assert a.status == 200 and a.body == b'{"errcode":0,"errmsg":"ok"}' and is_json_type(a), a
    decoded = hmac.new(base64.b64decode(user["session_key"]), b"", hashlib.sha256).hexdigest()
    swapped = hmac.new(b"", user["session_key"].encode(), hashlib.sha256).hexdigest()
    for wrong in (sign(other["session_key"]), sign(user["session_key"]).upper(), decoded, swapped, hashlib.sha1(b"").hexdigest(), "", None):
        refused(check(wxfake, user, signature=wrong), 87009)
    for wrong in ("hmac_sha1", "", None):
        refused(check(wxfake, user, sig_method=wrong), 87008)
    for wrong in ("oNobody", "", "a b", None):
        assert check(wxfake, user, openid=wrong).json["errcode"] == 40003
    refused(wxfake.call("GET", "/wxa/checksession" + query(openid=user["openid"])), 41001)
    refused(check(wxfake, user, "no-such-token"), 40001)


def test_signature_vectors():
    """WeChat's own, and those computed for the page: this file signs and decrypts as WeChat does."""
    assert sign("o0q0otL8aEzpcZL/FT9WsQ==", b'{"foo":"bar"}') == "654571f79995b2ce1e149e53c0a33dc39c0a74090db514261454e8dbe432aa0b"
    assert sign("tiihtNczf5v6AKRyjwEUhQ==") == "7154f9f8b4b76b92f541cbf0e37d48840fa06e5e42da92a6f80168a1516a4735"
    raw = '{"nickName":"小明🐼","gender":0,"language":"zh_CN","city":"","province":"","country":"","avatarUrl":""}'
    assert hashlib.sha1((raw + "HyVFkGl5F5OQWJZZaNzBBg==").encode()).hexdigest() == "95a652c9e116c1f84a7a2f1370e6277b077ac23b"
    plain = decrypt("HyVFkGl5F5OQWJZZaNzBBg==", "AAECAwQFBgcICQoLDA0ODw==",
                    "ntxbJ342ENErI48OuOK8l9HYBNnE3t/ypgGqoD7dflMyGVLYSP4nSF7TgT4IiXzS4viN7MEz3l8wC2a8vSNMOsCjV5pcewWDVPK+69xy+6VzHwSKTksv"
                    "WqrCQkIWcFSnconVDFuAT/oY3t0SW9lpcg==")
    assert plain == b'{"openGId":"tGid","watermark":{"timestamp":1700000000,"appid":"wx4f4bc4dec97d474b"},"pad":"xxx"}'


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
    assert list(a.json) == ["errcode", "errmsg", "openid", "session_key"] and (a.json["errcode"], a.json["openid"]) == (0, user["openid"])
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


# ---- access tokens ----

@pytest.mark.parametrize("get", [plain_token, stable_token])
def test_token_shape(wxfake, get):
    a = get(wxfake)
    assert a.status == 200 and is_json_type(a) and re.fullmatch(rb'\{"access_token":"[A-Za-z0-9_-]{64,512}","expires_in":7200\}', a.body), a
    assert good_token(wxfake, a.json["access_token"]) is True
    assert good_token(wxfake, a.json["access_token"][:-1]) == 40001


@pytest.mark.parametrize("get", [plain_token, stable_token])
@pytest.mark.parametrize("change, errcode", [
    ({"appid": None}, 41002), ({"appid": ""}, 41002), ({"appid": OTHER}, 40013), ({"secret": None}, 41004), ({"secret": ""}, 41004),
    ({"secret": "x"}, 40125), ({"grant_type": None}, 40002), ({"grant_type": "authorization_code"}, 40002),
])
def test_token_refusals(wxfake, get, change, errcode):
    refused(get(wxfake, **change), errcode)


def test_stable_token_reads_its_body_only(wxfake):
    args = query(appid=APPID, secret=SECRET, grant_type="client_credential")
    refused(wxfake.call("POST", "/cgi-bin/stable_token" + args), 41002)
    refused(wxfake.call("POST", "/cgi-bin/stable_token", args[1:]), 41002)
    for body in ("{", "[]", "null", '"x"', "\xff"):
        assert wxfake.call("POST", "/cgi-bin/stable_token", body).json["errcode"] in (41002, 47001)
    for wrong in (7, None, [], {}):
        refused(wxfake.call("POST", "/cgi-bin/stable_token", {"appid": wrong, "secret": SECRET, "grant_type": "client_credential"}), 41002)
    assert access_token(wxfake, force_refresh=False) == access_token(wxfake, force_refresh="true") == access_token(wxfake)


def test_a_token_replaced_works_five_minutes_more(later):
    old, new = plain_token(later).json["access_token"], plain_token(later).json["access_token"]
    assert old != new
    later.later(298)
    assert good_token(later, old) is good_token(later, new) is True
    later.later(3)
    assert good_token(later, old) == 40001 and good_token(later, new) is True
    later.later(7200 - 303)
    assert good_token(later, new) is True
    later.later(4)
    assert good_token(later, new) == 42001
    refused(check(later, {"openid": "o", "session_key": "k"}, new), 42001)


def test_the_end_is_not_put_off_by_a_late_renewal(later):
    old = plain_token(later).json["access_token"]
    later.later(7100)
    new = plain_token(later).json["access_token"]
    later.later(102)
    assert good_token(later, old) == 40001 and good_token(later, new) is True


def test_stable_token_normal(later):
    first = stable_token(later).json
    assert stable_token(later).json["access_token"] == first["access_token"]
    later.later(1000)
    again = stable_token(later).json
    assert again["access_token"] == first["access_token"] and 6195 <= again["expires_in"] <= 6200
    later.later(5895)
    again = stable_token(later).json
    assert again["access_token"] == first["access_token"] and 300 <= again["expires_in"] <= 305
    later.later(6)
    new = stable_token(later).json
    assert new["access_token"] != first["access_token"] and new["expires_in"] == 7200
    assert good_token(later, first["access_token"]) is good_token(later, new["access_token"]) is True
    later.later(301)
    assert good_token(later, first["access_token"]) == 40001 and good_token(later, new["access_token"]) is True


def test_stable_token_forced(later):
    first, second = access_token(later), access_token(later, force_refresh=True)
    assert first != second and good_token(later, first) == 40001 and good_token(later, second) is True
    assert access_token(later, force_refresh=True) == access_token(later) == second  # within 30 s: no refresh
    later.later(28)
    assert access_token(later, force_refresh=True) == second
    later.later(3)
    third = access_token(later, force_refresh=True)
    assert third != second and good_token(later, second) == 40001 and good_token(later, third) is True
    assert access_token(later, appid=OTHER, secret=OTHER_SECRET, force_refresh=True) != third  # an app of its own


def test_twenty_forced_a_day(later):
    to_noon = lambda: later.later(86400 + 43200 - int(time.time() + later.ahead[1]) % 86400)
    to_noon()
    tokens = set()
    for _ in range(20):
        tokens.add(access_token(later, force_refresh=True))
        later.later(31)
    assert len(tokens) == 20
    refused(stable_token(later, force_refresh=True), 45009)
    assert access_token(later) in tokens  # the normal mode goes on
    to_noon()
    assert access_token(later, force_refresh=True) not in tokens


def test_two_thousand_plain_tokens_a_day(wxfake):
    conn = http.client.HTTPConnection("127.0.0.1", wxfake.port, timeout=20)
    path = "/cgi-bin/token" + query(appid=APPID, secret=SECRET, grant_type="client_credential")
    day, seen = time.time() // 86400, []
    with contextlib.closing(conn):
        for _ in range(2001):
            conn.request("GET", path)
            seen.append(json.loads(conn.getresponse().read()).get("errcode", 0))
    if day == time.time() // 86400:
        assert seen == [0] * 2000 + [45009]
    assert access_token(wxfake)


def test_the_two_kinds_of_token_are_apart(wxfake):
    plain, stable = plain_token(wxfake).json["access_token"], access_token(wxfake)
    assert plain != stable
    assert access_token(wxfake, force_refresh=True) != stable
    assert good_token(wxfake, plain) is True
    current = access_token(wxfake)
    assert plain_token(wxfake).json["access_token"] != plain
    assert good_token(wxfake, current) is True and access_token(wxfake) == current


def test_expire_token(stack):
    w = stack.wxfake(*TWO_APPS)
    plain, stable, other = plain_token(w).json["access_token"], access_token(w), access_token(w, appid=OTHER, secret=OTHER_SECRET)
    assert w.call("POST", "/fake/expire-token", {}).status == 400  # which app?
    assert w.call("POST", "/fake/expire-token", {"appid": APPID}).status == 204
    assert good_token(w, plain) == good_token(w, stable) == 42001 and good_token(w, other) is True
    new = stable_token(w).json
    assert new["access_token"] != stable and new["expires_in"] == 7200 and good_token(w, new["access_token"]) is True
    assert good_token(w, stable) == 40001


@pytest.mark.parametrize("errcode", [40001, 40014, 42001])
def test_stale_token_shapes(wxfake, errcode):
    user, token = login(wxfake), access_token(wxfake)
    wxfake.fault("checksession", mode="errcode", errcode=errcode)
    refused(check(wxfake, user, token), errcode)
    wxfake.fault("getuserphonenumber", mode="errcode", errcode=errcode)
    code = wxfake.code(kind="phone")
    refused(phone(wxfake, code, token), errcode)
    assert check(wxfake, user, token).json["errcode"] == phone(wxfake, code, token).json["errcode"] == 0


# ---- phone numbers ----

def test_phone_number(wxfake):
    code = wxfake.code(kind="phone")
    assert re.fullmatch("[0-9a-f]{64}", code)
    a = phone(wxfake, code)
    assert a.status == 200 and is_json_type(a) and list(a.json) == ["errcode", "errmsg", "phone_info"], a
    info = a.json["phone_info"]
    assert (a.json["errcode"], a.json["errmsg"]) == (0, "ok") and list(info) == ["phoneNumber", "purePhoneNumber", "countryCode", "watermark"]
    assert re.fullmatch("1[0-9]{10}", info["purePhoneNumber"]) and info["phoneNumber"] == info["purePhoneNumber"] and info["countryCode"] == "86"
    assert info["watermark"]["appid"] == APPID and abs(info["watermark"]["timestamp"] - time.time()) < 5
    refused(phone(wxfake, code), 40029)


def test_a_phone_number_belongs_to_its_user(wxfake):
    first = wxfake.code(kind="phone", openid="oA"), wxfake.code(kind="phone", openid="oA"), wxfake.code(kind="phone", openid="oB")
    numbers = [phone(wxfake, c).json["phone_info"]["phoneNumber"] for c in first]
    assert numbers[0] == numbers[1] != numbers[2]


def test_kinds_of_code_do_not_cross(wxfake):
    code, button = wxfake.code(), wxfake.code(kind="phone")
    refused(phone(wxfake, code), 40029)
    refused(sns(wxfake, button), 40029, True)
    assert "openid" in sns(wxfake, code).json and phone(wxfake, button).json["errcode"] == 0  # neither was spent
    refused(phone(wxfake, code), 40029)


def test_where_a_phone_code_belongs(wxfake):
    code, token = wxfake.code(kind="phone"), access_token(wxfake)
    path = "/wxa/business/getuserphonenumber"
    refused(wxfake.call("POST", path + query(access_token=token, code=code)), 40029)
    refused(wxfake.call("POST", path + query(access_token=token), "code=" + code), 40029)
    refused(wxfake.call("POST", path, {"code": code}), 41001)
    refused(wxfake.call("POST", path, {"code": code, "access_token": token}), 41001)
    refused(phone(wxfake, code, "x"), 40001)
    refused(phone(wxfake, ""), 40029)
    refused(phone(wxfake, "nobody-made-this"), 40029)
    assert phone(wxfake, code, token).json["errcode"] == 0


def test_a_phone_codes_openid_and_app(stack):
    w = stack.wxfake(*TWO_APPS)
    code = w.code(appid=APPID, kind="phone", openid="oA")
    assert phone(w, code, openid="oB").json["errcode"] == 40003
    refused(phone(w, code, access_token(w, appid=OTHER, secret=OTHER_SECRET)), 40013)
    assert phone(w, code, openid="oA").json["errcode"] == 0


def test_a_phone_code_lives_five_minutes(later):
    young, old = later.code(appid=APPID, kind="phone"), later.code(appid=APPID, kind="phone")
    later.later(298)
    assert phone(later, young).json["errcode"] == 0
    later.later(3)
    refused(phone(later, old), 40029)


# ---- encrypted data ----

def encrypt(w, openid, data, **kw):
    a = w.call("POST", "/fake/encrypt", {"appid": APPID, "openid": openid, "data": data, **kw})
    assert a.status == 200 and set(a.json) == {"encryptedData", "iv", "rawData", "signature"}, a
    return a.json


@pytest.mark.parametrize("data", [
    {}, {"nickName": "小明🐼", "gender": 1, "avatarUrl": "https://thirdwx.qlogo.cn/a/b"}, {"phoneNumber": "13580006666", "n": [1, None, {"a": True}]},
    {"text": "\"\\\n\t\u0001/"}, *({"pad": "x" * n} for n in range(16)), {"long": "好" * 20000},
])
def test_encrypt(wxfake, data):
    user = login(wxfake)
    made = encrypt(wxfake, user["openid"], data)
    plain = decrypt(user["session_key"], made["iv"], made["encryptedData"])
    seen = json.loads(plain)
    mark = seen.pop("watermark")
    assert seen == data and mark["appid"] == APPID and abs(mark["timestamp"] - time.time()) < 5
    assert len(base64.b64decode(made["encryptedData"])) == len(plain) // 16 * 16 + 16  # PKCS#7
    assert json.loads(made["rawData"]) == data
    assert made["signature"] == hashlib.sha1((made["rawData"] + user["session_key"]).encode()).hexdigest()


def test_encrypt_has_a_new_iv_each_time(wxfake):
    made = [encrypt(wxfake, "oU", {"a": 1}) for _ in range(4)]
    assert len({m["iv"] for m in made}) == len({m["encryptedData"] for m in made}) == 4 and len({m["signature"] for m in made}) == 1


def test_a_watermark_of_the_callers_own(wxfake):
    mark = {"appid": "wx0000000000000000", "timestamp": 1477314187}
    user = login(wxfake)
    made = encrypt(wxfake, user["openid"], {"watermark": mark})
    assert json.loads(decrypt(user["session_key"], made["iv"], made["encryptedData"])) == {"watermark": mark}


def test_encrypted_under_the_key_of_the_day(wxfake):
    old = login(wxfake)
    assert wxfake.call("POST", "/fake/expire", {"openid": old["openid"]}).status == 204
    made = encrypt(wxfake, old["openid"], {"a": "b" * 50})
    assert not (decrypt(old["session_key"], made["iv"], made["encryptedData"]) or b"").startswith(b"{")
    new = login(wxfake, openid=old["openid"])
    assert json.loads(decrypt(new["session_key"], made["iv"], made["encryptedData"]))["a"] == "b" * 50


# ---- codes and users on order ----

@pytest.mark.parametrize("path, body", [
    ("code", {"kind": "plugin"}), ("code", {"kind": 7}), ("code", {"openid": ""}), ("code", {"openid": "a b"}), ("code", {"openid": "o" * 129}),
    ("code", {"openid": 7}), ("code", {"appid": "wxnobody"}), ("code", {"appid": 7}), ("code", {"unionid": "a b"}), ("code", []), ("code", "{"),
    ("code", "null"), ("code", "kind=login"), ("encrypt", {"openid": "o"}), ("encrypt", {"openid": "o", "data": "x"}), ("encrypt", {"data": {}}),
    ("encrypt", {"openid": "o", "data": {}, "appid": OTHER}), ("expire", {}), ("expire", {"openid": "a/b"}), ("expire", {"openid": "o", "appid": OTHER}),
    ("user", {}), ("user", {"openid": "o", "blocked": 1}), ("user", {"openid": "o", "unionid": 7}), ("user", {"openid": "o", "unionid": "a b"}),
    ("expire-token", {"appid": OTHER}), ("fault", {}), ("fault", {"api": "jscode2session"}), ("fault", {"mode": "hang"}),
    ("fault", {"api": "x", "mode": "hang"}), ("fault", {"api": "token", "mode": "x"}), ("fault", {"api": "token", "mode": "slow", "delay_ms": -1}),
    ("fault", {"api": "token", "mode": "slow", "delay_ms": 60001}), ("fault", {"api": "token", "mode": "hang", "count": 0}),
    ("fault", {"api": "token", "mode": "hang", "count": 1.5}), ("fault", {"api": "token", "mode": "errcode", "errcode": "40001"}),
])
def test_bad_orders(wxfake, path, body):
    a = wxfake.call("POST", "/fake/" + path, body)
    assert (a.status, a.error) == (400, "invalid_request") and a.json["message"] and is_json_type(a), a
    assert wxfake.call("GET", "/fake/stats").json["faults"] == []


def test_openids_on_order(wxfake):
    for openid in ("o", "o" * 128, "A-z_09"):
        given = wxfake.call("POST", "/fake/code", {"openid": openid, "kind": "login"}).json
        wxfake.codes.append(given["code"])
        assert given["openid"] == openid == sns(wxfake, given["code"]).json["openid"]
    assert len({wxfake.call("POST", "/fake/code", {}).json["openid"] for _ in range(50)}) == 50


def test_several_apps_must_be_named(stack):
    w = stack.wxfake(*TWO_APPS)
    assert w.call("POST", "/fake/code", {}).error == "invalid_request"
    assert w.call("POST", "/fake/expire", {"openid": "o"}).error == "invalid_request"
    assert login(w, appid=OTHER) and login(w, appid=APPID)
    only = stack.wxfake("--app", f"{OTHER}:{OTHER_SECRET}")
    refused(sns(only, "x"), 40013, True)  # the built-in app is there only when no other is
    assert "openid" in sns(only, only.code(), OTHER, OTHER_SECRET).json


# ---- faults ----

def raw_login(w, code, timeout=5):
    """What comes over the socket until it ends, and whether it ended in a reset."""
    path = "/sns/jscode2session" + query(appid=APPID, secret=SECRET, js_code=code, grant_type="authorization_code")
    with socket.create_connection(("127.0.0.1", w.port), timeout=timeout) as s:
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        out = b""
        try:
            while piece := s.recv(65536):
                out += piece
        except ConnectionResetError:
            return out, True
        return out, False


def one_fault(w, **kw):
    w.fault(**kw)
    code = w.code()
    return code, sns(w, code)


def spent(w, code):
    a = sns(w, code)
    return "openid" not in a.json and refused(a, 40163, True) > 0


def test_fault_hang(wxfake):
    wxfake.fault(mode="hang")
    code = wxfake.code()
    with pytest.raises(TimeoutError):
        raw_login(wxfake, code, timeout=0.5)
    assert spent(wxfake, code)


def test_a_hung_call_holds_up_nobody(wxfake):
    wxfake.fault(mode="hang", count=5)
    with contextlib.ExitStack() as held:
        for _ in range(5):
            s = held.enter_context(socket.create_connection(("127.0.0.1", wxfake.port), timeout=5))
            path = "/sns/jscode2session" + query(appid=APPID, secret=SECRET, js_code=wxfake.code(), grant_type="authorization_code")
            s.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        poll(lambda: wxfake.calls() == 5, what="five calls")
        assert login(wxfake)
        wxfake.process.stop()  # with five still hanging


def test_a_hung_call_ends_after_a_minute(later):
    later.fault(mode="hang")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        hung = pool.submit(raw_login, later, later.code(appid=APPID))
        poll(lambda: later.calls() == 1, what="the call")
        later.later(58)
        assert later.calls() == 1 and not hung.done()
        later.later(3)
        poll(lambda: later.calls() == 1 and hung.done(), what="the reset")
        assert hung.result() == (b"", True)


def test_fault_slow(wxfake):
    code, a = one_fault(wxfake, mode="slow", delay_ms=400)
    assert LOGIN_BODY.fullmatch(a.body.decode()) and 0.4 - TICK <= a.seconds < 1.5 and spent(wxfake, code)
    code, a = one_fault(wxfake, mode="slow")
    assert LOGIN_BODY.fullmatch(a.body.decode()) and 2 - TICK <= a.seconds < 3.5
    code, a = one_fault(wxfake, mode="slow", delay_ms=0)
    assert LOGIN_BODY.fullmatch(a.body.decode()) and a.seconds < 1


@pytest.mark.parametrize("mode, status", [("500", 500), ("502html", 502)])
def test_fault_status(wxfake, mode, status):
    code, a = one_fault(wxfake, mode=mode)
    assert a.status == status and a.headers["Content-Type"] == "text/html" and a.body.startswith(b"<html>") and a.json is None
    assert "openid" in sns(wxfake, code).json  # the code was not looked at


def test_fault_reset_and_close(wxfake):
    for mode, reset in (("reset", True), ("close", False)):
        wxfake.fault(mode=mode)
        code = wxfake.code()
        assert raw_login(wxfake, code) == (b"", reset), mode
        assert spent(wxfake, code)


def test_fault_drip(wxfake):
    wxfake.fault(mode="drip")
    path = "/sns/jscode2session" + query(appid=APPID, secret=SECRET, js_code=wxfake.code(), grant_type="authorization_code")
    with socket.create_connection(("127.0.0.1", wxfake.port), timeout=5) as s:
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        got = [(s.recv(100), time.monotonic()) for _ in range(7)]
        assert b"".join(piece for piece, _ in got) == b"HTTP/1."
        assert 1.0 < got[-1][1] - got[0][1] < 3  # six waits of 200 ms
    assert spent(wxfake, wxfake.codes[-1])


def test_fault_huge(wxfake):
    """Was wrong: a reader that was slow missed some of the 10 MB."""
    wxfake.fault(mode="huge")
    out, _ = raw_login(wxfake, wxfake.code())
    head, _, body = out.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ") and len(body) > 10 * 1024 * 1024 and body[-9:] == b"AAAAAAAAA"
    assert spent(wxfake, wxfake.codes[-1])
    wxfake.fault(mode="huge")
    path = "/sns/jscode2session" + query(appid=APPID, secret=SECRET, js_code=wxfake.code(), grant_type="authorization_code")
    with socket.create_connection(("127.0.0.1", wxfake.port), timeout=5) as s:
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        poll(lambda: wxfake.calls() == 3, what="the call")
        began = time.monotonic()
        poll(lambda: time.monotonic() - began > 0.5)  # reads nothing until all of it waits
        out = b""
        while piece := s.recv(1 << 20):
            out += piece
    assert len(out) > 10 * 1024 * 1024


@pytest.mark.parametrize("errcode", TEXTS)
def test_fault_errcode(wxfake, errcode):
    code, a = one_fault(wxfake, mode="errcode", errcode=errcode)
    refused(a, errcode, True)
    assert "openid" in sns(wxfake, code).json
    wxfake.fault("token", mode="errcode", errcode=errcode)
    refused(plain_token(wxfake), errcode)


def test_fault_errcode_is_busy_unless_told(wxfake):
    code, a = one_fault(wxfake, mode="errcode")
    refused(a, -1, True)
    a = one_fault(wxfake, mode="errcode", errcode=89503)[1]
    assert a.json["errcode"] == 89503 and a.status == 200


@pytest.mark.parametrize("mode, body", [("not_json", rb"openid=o1&session_key=k"), ("empty", rb""), ("truncated", rb'\{"session_key":"[^}]+')])
def test_fault_bodies_that_are_no_json(wxfake, mode, body):
    code, a = one_fault(wxfake, mode=mode)
    assert a.status == 200 and a.headers["Content-Type"] == "text/plain" and re.fullmatch(body, a.body) and a.json is None, a
    assert int(a.headers["Content-Length"]) == len(a.body)
    assert spent(wxfake, code)


def test_fault_chunked(wxfake):
    wxfake.fault(mode="chunked")
    code = wxfake.code()
    head, _, body = raw_login(wxfake, code)[0].partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head and b"Content-Length" not in head and b"Content-Type: text/plain" in head
    assert body.endswith(b"\r\n0\r\n\r\n")
    pieces = body[:-5].split(b"\r\n")
    assert set(pieces[0:-1:2]) == {b"1"} and LOGIN_BODY.fullmatch(b"".join(pieces[1::2]).decode())
    assert spent(wxfake, code)
    assert LOGIN_BODY.fullmatch(one_fault(wxfake, mode="chunked")[1].body.decode())
    wxfake.fault("token", mode="chunked")
    assert is_json_type(plain_token(wxfake))  # was wrong: text/plain whatever the call


def test_fault_types(wxfake):
    code, a = one_fault(wxfake, mode="json_type")
    assert is_json_type(a) and LOGIN_BODY.fullmatch(a.body.decode()) and spent(wxfake, code)
    code, a = one_fault(wxfake, mode="no_type")
    assert "Content-Type" not in a.headers and LOGIN_BODY.fullmatch(a.body.decode()) and spent(wxfake, code)


def test_fault_unescaped(wxfake):
    for _ in range(60):
        a = one_fault(wxfake, mode="unescaped")[1]
        assert b"\\" not in a.body and re.fullmatch("[A-Za-z0-9+/]{22}==", a.json["session_key"])
        if "/" in a.json["session_key"]:
            return
    raise AssertionError("no / in 60 keys")


@pytest.mark.parametrize("mode, extra", [
    ("errcode0", {"errcode": 0, "errmsg": "ok"}), ("expires_in", {"expires_in": 7200}), ("extra", None), ("quoted_errcode", {}), ("old_hints", {}),
])
def test_fault_fields(wxfake, mode, extra):
    code, a = one_fault(wxfake, mode=mode)
    plain = {k: a.json.pop(k) for k in ("session_key", "openid", "unionid")}
    assert all(plain.values()) and a.json == ({"x_new": {"list": [1, None, {"a": True}], "text": "你好 🐼"}, "x_null": None} if extra is None else extra)
    if mode == "expires_in":
        assert re.match(rb'\{"session_key":"[^"]+","expires_in":7200,"openid"', a.body)
    if mode == "extra":
        assert b"\\u4f60" in a.body
    assert spent(wxfake, code)


def test_fault_quoted_errcode(wxfake):
    wxfake.fault(mode="quoted_errcode")
    a = sns(wxfake, "x")
    assert a.json["errcode"] == "40029" and a.json["errmsg"].startswith("invalid code, rid: ")
    user, token = login(wxfake), access_token(wxfake)
    wxfake.fault("checksession", mode="quoted_errcode")
    assert check(wxfake, user, token).json == {"errcode": "0", "errmsg": "ok"}


def test_fault_old_hints(wxfake):
    wxfake.fault(mode="old_hints")
    assert re.fullmatch(r"invalid code, hints: \[ req_id: [A-Za-z0-9_-]+ \]", sns(wxfake, "x").json["errmsg"])
    wxfake.fault("token", mode="old_hints")
    assert re.fullmatch(r"invalid appid hint: \[[A-Za-z0-9_-]+\]", plain_token(wxfake, appid="x").json["errmsg"])


def test_fault_missing_and_empty_fields(wxfake):
    code, a = one_fault(wxfake, mode="missing_openid")
    assert "openid" not in a.json and a.json["session_key"] and spent(wxfake, code)
    code, a = one_fault(wxfake, mode="empty_fields")
    assert a.json == {"session_key": "", "openid": "", "unionid": ""} and spent(wxfake, code)


def test_fault_bom(wxfake):
    code, a = one_fault(wxfake, mode="bom")
    assert a.body[:3] == b"\xef\xbb\xbf" and LOGIN_BODY.fullmatch(a.body[3:].decode()) and spent(wxfake, code)


def test_faults_count_queue_and_end(wxfake):
    errcodes = lambda n: [sns(wxfake, wxfake.code()).json.get("errcode", 0) for _ in range(n)]
    wxfake.fault(mode="errcode", count=3)
    assert errcodes(5) == [-1, -1, -1, 0, 0]
    wxfake.fault(mode="errcode", errcode=45009, count=2)
    wxfake.fault("token", mode="500", count=7)
    wxfake.fault(mode="errcode", errcode=40164)
    assert wxfake.call("GET", "/fake/stats").json["faults"] == [
        {"api": "jscode2session", "mode": "errcode", "count": 2}, {"api": "token", "mode": "500", "count": 7},
        {"api": "jscode2session", "mode": "errcode", "count": 1}]
    assert errcodes(4) == [45009, 45009, 40164, 0]
    assert plain_token(wxfake).status == 500
    wxfake.fault(mode="errcode", count=1000000)
    assert errcodes(2) == [-1, -1]
    assert wxfake.call("DELETE", "/fake/fault?api=jscode2session").status == 204
    assert errcodes(2) == [0, 0] and plain_token(wxfake).status == 500
    assert wxfake.call("DELETE", "/fake/fault?api=jscode2sessions").status == 400  # was wrong: a quiet 204
    assert wxfake.call("DELETE", "/fake/fault").status == 204
    assert plain_token(wxfake).status == 200
    stats = wxfake.call("GET", "/fake/stats").json
    assert stats["faults"] == [] and stats["faulted"] == 3 + 3 + 2 + 2


def test_too_many_faults(wxfake):
    for _ in range(64):
        wxfake.fault("token", mode="500")
    assert wxfake.call("POST", "/fake/fault", {"api": "token", "mode": "500"}).error == "invalid_request"
    wxfake.clear()
    wxfake.fault("token", mode="500")


CALLS = {
    "jscode2session": lambda w: sns(w, "x"), "token": plain_token, "stable_token": stable_token,
    "checksession": lambda w: check(w, {"openid": "o", "session_key": "k"}, "x"),
    "resetusersessionkey": lambda w: check(w, {"openid": "o", "session_key": "k"}, "x", "/wxa/resetusersessionkey"),
    "getuserphonenumber": lambda w: phone(w, "x", "x"),
    "getuserencryptkey": lambda w: w.call("POST", "/wxa/business/getuserencryptkey"),
    **{api: lambda w, api=api: w.call("POST", "/xpay/" + api)
       for api in ("query_user_balance", "currency_pay", "cancel_currency_pay")}, "other": lambda w: w.call("GET", "/nope"),
}


def test_faults_and_stats_by_api(wxfake):
    assert wxfake.call("GET", "/fake/stats").json == {"calls": {a: 0 for a in CALLS}, "faulted": 0, "users": 0, "faults": []}
    for n, (api, ask) in enumerate(CALLS.items(), 1):
        wxfake.fault(api, mode="500")
        assert ask(wxfake).status == 500, api
        for _ in range(n):
            assert ask(wxfake).status == 200, api
    stats = wxfake.call("GET", "/fake/stats")
    assert stats.json["calls"] == {a: n + 1 for n, a in enumerate(CALLS, 1)} and stats.json["faulted"] == len(CALLS) and is_json_type(stats)
    login(wxfake)
    assert wxfake.call("GET", "/fake/stats").json["users"] == 1


# ---- events ----

class Events:
    """GET /fake/events, read as it comes."""

    def __init__(self, w):
        self.text = b""
        self.sock = socket.create_connection(("127.0.0.1", w.port), timeout=10)
        if w.context:
            self.sock = w.context.wrap_socket(self.sock, server_hostname="127.0.0.1")
        self.sock.sendall(b"GET /fake/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n")
        self.sock.settimeout(0.02)
        self.until(lambda: b"\r\n\r\n" in self.text and self.text.endswith(b"\n\n"), "a beginning")

    def until(self, true, what):
        def read():
            with contextlib.suppress(TimeoutError, ssl.SSLWantReadError):
                self.text += self.sock.recv(65536)
            return true()
        return poll(read, what=what)

    def seen(self, kind):
        body = self.text.decode().partition("\r\n\r\n")[2]
        found = []
        for block in body.split("\n\n")[:-1]:
            if not block.startswith(":"):
                head, _, data = block.partition("\n")
                assert head.startswith("event: ") and data.startswith("data: ") and "\n" not in data, block
                if head[7:] == kind:
                    found.append(json.loads(data[6:]))
        return found

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()


def test_events(wxfake):
    with Events(wxfake) as one, Events(wxfake) as two:
        head = one.text.partition(b"\r\n\r\n")[0]
        assert head.startswith(b"HTTP/1.1 200 ") and b"Content-Type: text/event-stream" in head and b"Cache-Control: no-store" in head
        assert b"Access-Control-Allow-Origin" not in head  # what a developer's Redis is told is not every web page's to read
        user = login(wxfake)
        code, button = wxfake.codes[-1], wxfake.code(kind="phone")
        refused(sns(wxfake, code), 40163, True)
        refused(sns(wxfake, "x", secret="not-the-secret"), 40125, True)
        plain, stable = plain_token(wxfake).json["access_token"], access_token(wxfake)
        assert check(wxfake, user, stable).json["errcode"] == phone(wxfake, button, stable).json["errcode"] == 0
        wxfake.fault(mode="500")
        sns(wxfake, "y")
        wxfake.fault(mode="errcode", errcode=45011)
        sns(wxfake, "z")
        wxfake.call("GET", "/nope")
        for e in (one, two):
            e.until(lambda: len(e.seen("wechat")) == 10, "ten events")
            seen = e.seen("wechat")
            assert [(s["api"], s["errcode"], s["status"], s["fault"]) for s in seen] == [
                ("jscode2session", 0, 200, ""), ("jscode2session", 40163, 200, ""), ("jscode2session", 40125, 200, ""), ("token", 0, 200, ""),
                ("stable_token", 0, 200, ""), ("checksession", 0, 200, ""), ("getuserphonenumber", 0, 200, ""),
                ("jscode2session", 0, 500, "500"), ("jscode2session", 45011, 200, "errcode"), ("other", 40066, 200, "")]
            assert seen[0]["code"] == code[:4] and seen[6]["code"] == button[:4]
            assert all(abs(s["at"] / 1000 - time.time()) < 30 for s in seen)
            e.until(lambda: len(e.seen("wechat_end")) == 10, "ten ends")
            ends = {s["id"]: s["at"] for s in e.seen("wechat_end")}
            assert len(ends) == 10 and all(ends[s["id"]] >= s["at"] for s in seen)
            text = e.text.decode()
            for secret in (code, button, SECRET, "not-the-secret", user["session_key"], plain, stable, sign(user["session_key"])):
                assert secret not in text and json.dumps(secret).replace("/", "\\/")[1:-1] not in text


def test_events_come_as_they_happen(wxfake):
    with Events(wxfake) as e:
        wxfake.fault(mode="hang")
        with pytest.raises(TimeoutError):
            raw_login(wxfake, wxfake.code(), timeout=0.3)
        e.until(lambda: e.seen("wechat"), "the event of a call that hangs")
        assert e.seen("wechat")[0]["fault"] == "hang" and not e.seen("wechat_end")
        e.until(lambda: b"\n\n: " in e.text.partition(b"\r\n\r\n")[2], "a beat")  # within five seconds, to keep proxies awake


def test_a_place_for_sixteen_listeners(wxfake):
    with contextlib.ExitStack() as held:
        many = [held.enter_context(Events(wxfake)) for _ in range(16)]
        assert wxfake.call("GET", "/fake/events").status == 503
        many[3].sock.close()

        def taken():
            with socket.create_connection(("127.0.0.1", wxfake.port), timeout=5) as s:
                s.sendall(b"GET /fake/events HTTP/1.1\r\nHost: x\r\n\r\n")
                return s.recv(12)
        poll(lambda: login(wxfake) and taken() == b"HTTP/1.1 200", what="a free place")  # who is gone is noticed at the next event


def test_a_listener_who_does_not_read(wxfake):
    with Events(wxfake):
        conn = http.client.HTTPConnection("127.0.0.1", wxfake.port, timeout=20)
        with contextlib.closing(conn):
            for _ in range(2000):
                conn.request("GET", "/nope")
                conn.getresponse().read()
    assert login(wxfake)


class Watched:
    """Events of a wxfake that watches a Redis, from the moment on when it does."""

    def __init__(self, events, redis):
        self.events, self.redis = events, redis
        self.number = 0
        poll(self.is_heard, what="Redis is watched")

    def seen(self):
        """Each command as one line, those of a script marked."""
        return [" ".join(["lua"] * s["script"] + [s["command"], *s["args"]]) for s in self.events.seen("redis")]

    def is_heard(self):
        self.number += 1
        self.redis.cli("CLIENT", "SETNAME", "wxlogind-test")  # only what wxlogind says is told: all on this unix socket pass for it now
        self.redis.cli("SET", "ping", self.number)
        with contextlib.suppress(TimeoutError):
            self.events.text += self.events.sock.recv(65536)
        return f"SET ping {self.number}" in self.seen()

    def of(self, *command):
        """What is told of one command."""
        before = len(self.seen())
        self.redis.cli(*command)
        self.redis.cli("SET", "end", 1)
        self.events.until(lambda: self.seen()[-1] == "SET end 1", "the last command")
        return self.seen()[before:-1]


@pytest.mark.parametrize("late, unix", [(False, False), (True, False), (False, True), (True, True)])
def test_watch_redis(stack, late, unix):
    redis = stack.redis()
    if late:  # it need not be there at start
        redis.kill()
    w = stack.wxfake("--watch-redis", f"unix://{redis.socket}" if unix else f"redis://127.0.0.1:{redis.port}")
    with Events(w) as e:
        if late:
            redis.start()
        watched = Watched(e, redis)
        found = e.seen("redis")[-1]
        assert set(found) == {"at", "script", "command", "args"} and abs(found["at"] / 1000 - time.time()) < 30
        redis.cli("SET", "said", "PING")  # was wrong: not shown, because of the word in it
        assert watched.of("SET", "long", "x" * 100000) in ([], ["SET said PING"])  # a line too long to be kept
        assert watched.of("PING") == []
        assert watched.of("EVAL", "return redis.call('GET', KEYS[1])", 1, "greeting", "x") == ["EVAL (33 B) 1 (8 B) (1 B)", "lua GET greeting"]
        assert not e.seen("wechat") and login(w)
        e.until(lambda: e.seen("wechat"), "the login")
        redis.kill()
        redis.start()
        Watched(e, redis)


@pytest.mark.parametrize("url", ["redis://:p%40ss%20word@localhost:{}", "redis://default:p%40ss%20word@127.0.0.1:{}/3"])
def test_watch_redis_with_a_password(stack, url):
    """As in the containers: by name, and Redis asks for a password."""
    redis = stack.redis("--requirepass", "p@ss word")
    w = stack.wxfake("--watch-redis", url.format(redis.port))
    with Events(w) as e:
        def told():
            redis.cli("-a", "p@ss word", "CLIENT", "SETNAME", "wxlogind-test")
            redis.cli("-a", "p@ss word", "SET", "greeting", "hello")
            with contextlib.suppress(TimeoutError):
                e.text += e.sock.recv(65536)
            return any("greeting" in s["args"] for s in e.seen("redis"))
        poll(told, what="the SET")
        assert b"p@ss word" not in e.text and "refuses" not in w.process.text()


def test_watch_redis_that_is_loading(stack):
    """It refuses MONITOR until it has read its file. The wxfake of a stack that is started again did not watch it for good."""
    listener = socket.create_server(("127.0.0.1", 0))
    w = stack.wxfake("--watch-redis", f"redis://127.0.0.1:{listener.getsockname()[1]}")
    listener.settimeout(10)
    for _ in range(3):
        with listener.accept()[0] as s:
            s.settimeout(10)
            assert s.recv(100).endswith(b"MONITOR\r\n")
            s.sendall(b"-LOADING Redis is loading the dataset in memory\r\n-LOADING\r\n")
            assert s.recv(100) == b""
    with Events(w) as e, listener.accept()[0] as s:
        s.recv(100)
        s.sendall(b'$50\r\nid=3 addr=127.0.0.1:7 laddr=x fd=8 name=wxlogind \n\r\n+OK\r\n+1795734860.581287 [0 127.0.0.1:7] "GET" "a"\r\n')
        e.until(lambda: e.seen("redis"), "the first command")
    assert "refuses" not in w.process.text()
    listener.close()


@pytest.mark.parametrize("late", [False, True])
def test_only_what_wxlogind_says_is_told(stack, late):
    """Not what others ask of the same Redis, such as a health check's AUTH."""
    redis = stack.redis()
    w, server = None, None
    if late:
        w = stack.wxfake("--watch-redis", f"redis://127.0.0.1:{redis.port}")
    server = stack.server(redis, w or stack.wxfake())
    w = w or stack.wxfake("--watch-redis", f"redis://127.0.0.1:{redis.port}")
    with Events(w) as e:
        def told(token="A" * 43):
            redis.cli("AUTH", "default", "stranger")
            redis.cli("EVAL", "return redis.call('GET', 'stranger')", 0)
            server.session(token)
            redis.cli("SET", "stranger", 1)
            with contextlib.suppress(TimeoutError):
                e.text += e.sock.recv(65536)
            return len(e.seen("redis")) >= 3
        poll(told, what="three questions of wxlogind")
        seen = [s["command"].upper() for s in e.seen("redis")]
        assert not {"SET", "AUTH", "PING", "ROLE", "INFO", "SUBSCRIBE"} & set(seen) and "stranger" not in str(e.seen("redis")), e.seen("redis")


def test_watch_redis_with_a_wrong_password(stack):
    redis = stack.redis("--requirepass", "right")
    w = stack.wxfake("--watch-redis", f"redis://:wrong@localhost:{redis.port}")
    poll(lambda: "Redis refuses to be watched" in w.process.text(), what="a word about it")


@pytest.mark.parametrize("command, told", [
    (("GET", "wxlogin:s:{abc}:0123456789abcdef"), "GET wxlogin:s:{abc}:0123\u2026"),
    (("GET", "wxlogin:t:{wxfa4efa4efa4efa4e}:lock"), "GET wxlogin:t:{wxfa\u2026}:lock"),
    (("SET", "wxlogin:s:a", "1795|||wx1|oHIDDEN|uHIDDEN|1.2.3.4|ua|\x07=HIDDEN", "PX", 604800000), "SET wxlogin:s:a (46 B) PX 604800000"),
    (("SET", "a", "oHIDDENoHIDDENoHIDDENoHIDDEN"), "SET a (28 B)"),
    (("SET", "a", "HIDDEN hidden"), "SET a (13 B)"),
    (("SET", "a", "!revoked", "KEEPTTL"), "SET a !revoked KEEPTTL"),
    (("SET", "a", "!Revoked HIDDEN"), "SET a (15 B)"),
    (("SET", "a", 'quo"te ] \\ \n \x01 HIDDEN'), "SET a (21 B)"),
    (("SET", "a", ""), "SET a (0 B)"),
    (("ZADD", "wxlogin:u:{abc}", 0, "~\x80HIDDEN"), "ZADD wxlogin:u:{abc} 0 (9 B)"),
    (("ZREVRANGEBYLEX", "wxlogin:u:{abc}", "(0123HIDDEN:", "[0123HIDDEN", "LIMIT", 0, 10), "ZREVRANGEBYLEX wxlogin:u:{abc} (12 B) (11 B) LIMIT 0 10"),
])
def test_redis_events_hold_no_secret(stack, command, told):
    redis = stack.redis()
    w = stack.wxfake("--watch-redis", f"redis://127.0.0.1:{redis.port}")
    with Events(w) as e:
        assert Watched(e, redis).of(*command) == [told]
        assert b"HIDDEN" not in e.text


def test_a_login_in_events(stack):
    """The whole of it with the real server, without encryption at rest: then Redis is told openid and session_key as they are."""
    redis = stack.redis()
    w = stack.wxfake("--watch-redis", f"unix://{redis.socket}")
    server = stack.server(redis, w, session__encryption_key="")
    with Events(w) as e:
        watched = Watched(e, redis)
        code = w.code(openid="oNobodyShouldReadThis")
        token = server.login(code).json["third_session"]
        assert server.session(token).status == 200 and server.session(token, "DELETE").status == 204
        watched.of("GET", "x")
        told = watched.seen()
        assert len([s for s in told if s.startswith("EVAL ")]) >= 2 and any("wxlogin:s:" in s for s in told)
        assert not any("SUBSCRIBE" in s for s in told)
        key = login(w, openid="oNobodyShouldReadThis")["session_key"]
        for secret in (code, token, token[8:], "oNobody", key, SECRET):
            assert secret not in e.text.decode(), secret


# ---- the command line ----

def test_any_code(stack):
    w = stack.wxfake("--any-code", "--app", f"{APPID}:{SECRET}")
    first, again, other = (sns(w, c) for c in ("anything at all", "anything at all", "0" * 256))
    assert all(LOGIN_BODY.fullmatch(a.body.decode()) for a in (first, again, other))
    assert first.json == again.json and other.json["openid"] != first.json["openid"]
    token = access_token(w)
    assert check(w, first.json, token).json["errcode"] == 0
    refused(check(w, first.json, token, signature=sign(other.json["session_key"])), 87009)
    assert phone(w, "any phone code", token).json["phone_info"]["watermark"]["appid"] == APPID
    refused(sns(w, "x", secret="y"), 40125, True)
    refused(sns(w, ""), 41008, True)
    assert {sns(w, "same").json["openid"] for _ in range(150)} == {sns(w, "same").json["openid"]}  # and no rate
    assert w.call("GET", "/fake/stats").json["users"] == 0  # remembers none
    code = w.code(openid="oMine")
    assert sns(w, code).json == sns(w, code).json and sns(w, code).json["openid"] == "oMine"
    made = encrypt(w, first.json["openid"], {"a": 1})
    assert json.loads(decrypt(first.json["session_key"], made["iv"], made["encryptedData"]))["a"] == 1


def test_the_backend_that_the_page_calls(stack):
    plain = stack.wxfake()
    assert plain.call("GET", "/fake/backend").status == plain.call("GET", "/fake/users").status == 404
    assert not plain.call("GET", "/fake/about").json["internal"]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        w = stack.wxfake("--internal", f"http://127.0.0.1:{silent.getsockname()[1]}", "--internal-token", "t")
        assert w.call("GET", "/fake/about").json["internal"]
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(call, w.port, "GET", "/fake/backend", headers={"Authorization": "Bearer x"})
            proxy, _ = silent.accept()
            with proxy:
                asked = proxy.recv(4096).decode()
                assert asked.startswith("GET /internal/auth HTTP/1.1\r\n")
                assert "\r\nAuthorization: Bearer x\r\n" in asked and "\r\nX-Internal-Token: t\r\n" in asked
                proxy.sendall(b'HTTP/1.1 200 OK\r\nX-Wx-Openid: o"bad\r\nContent-Length: 0\r\n\r\n')
            assert waiting.result().json == {"orders": [], "of": "…"}  # what is no openid is not repeated
            waiting = pool.submit(w.call, "GET", "/fake/backend")
            silent.accept()[0].close()
            a = waiting.result()
            assert a.status == 503 and a.headers["Retry-After"] == "1"
        with socket.create_connection(("127.0.0.1", w.port)) as phone:  # a question that waits when wxfake ends
            phone.sendall(b"GET /fake/backend HTTP/1.1\r\nHost: x\r\n\r\n")
            with silent.accept()[0]:
                w.process.stop()


def test_latency(stack):
    for text, least in (("150ms", 0.15 - TICK), ("1s", 1 - TICK)):
        w = stack.wxfake("--latency", text)
        a = sns(w, w.code())
        assert LOGIN_BODY.fullmatch(a.body.decode()) and least <= a.seconds < least + 1
        assert least <= plain_token(w).seconds < least + 1 and sns(w, "x").seconds >= least
        assert w.call("GET", "/fake/stats").seconds < 0.12
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            began = time.monotonic()
            assert all(a.seconds >= least for a in pool.map(lambda _: sns(w, "x"), range(20)))
        assert time.monotonic() - began < least + 2


def test_over_tls(stack):
    tls = stack.tls()
    w = stack.wxfake(tls=tls)
    w.context = ssl.create_default_context(cafile=str(tls.ca))  # the certificate is the one given, its name too
    with Events(w) as e:
        user = login(w)
        assert check(w, user).json["errcode"] == 0
        for mode in ("chunked", "slow", "bom", "unescaped"):
            w.fault(mode=mode, delay_ms=200)
            assert sns(w, w.code()).body.strip(b"\xef\xbb\xbf").startswith(b'{"session_key"')
        w.fault(mode="huge")
        assert len(sns(w, w.code()).body) > 10 * 1024 * 1024
        for mode in ("reset", "close"):
            w.fault(mode=mode)
            with pytest.raises(OSError):
                sns(w, w.code())
        e.until(lambda: len(e.seen("wechat")) >= 9, "events over TLS")
    with contextlib.suppress(http.client.HTTPException, OSError):
        assert call(w.port, "GET", "/fake/stats").status == 400  # plain HTTP: no answer, or a refusal
    with pytest.raises(ssl.SSLError):
        call(w.port, "GET", "/fake/stats", tls=ssl.create_default_context())
    assert login(w)
    old = ssl.create_default_context(cafile=str(tls.ca))
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert call(w.port, "GET", "/fake/stats", tls=old).status == 200


def run(*args, **kw):
    return subprocess.run([str(BUILD / "wxfake"), *[str(a) for a in args]], capture_output=True, text=True, timeout=20, **kw)


@pytest.mark.parametrize("args", [
    ["--nope"], ["nope"], ["-h"], ["--listen"], ["--app"], ["--app", "wx1"], ["--app", ":s"], ["--app", "wx1:"], ["--app", "wx 1:s"],
    ["--app", "wx1:s", "--app", "wx1:t"], ["--app", "w" * 65 + ":s"], ["--latency"], ["--latency", "50"], ["--latency", "ms"],
    ["--latency", "-1ms"], ["--latency", "61s"], ["--latency", "9" * 30 + "s"], ["--latency", "5m"], ["--latency", "1.5s"], ["--tls-cert", "x"],
    ["--tls-key", "x"], ["--watch-redis"], ["--watch-redis", "x"], ["--watch-redis", "redis://"], ["--watch-redis", "redis://127.0.0.1:0"],
    ["--watch-redis", "redis://127.0.0.1:65536"], ["--watch-redis", "redis://word@127.0.0.1"], ["--watch-redis", "redis://:%zz@127.0.0.1"],
    ["--watch-redis", "redis://h:1x"], ["--watch-redis", "redis://h/x"], ["--watch-redis", "unix://x"], ["--watch-redis", "unix:///" + "x" * 120],
    ["--any-code", "yes"], ["--wxlogind"], ["--wxlogind", "x"], ["--wxlogind", "ftp://x"], ["--wxlogind", "http://"], ["--wxlogind", "http://a b"],
    ["--internal", "x"], ["--internal", "http://x"], ["--internal", "http://x:0"], ["--internal", "http://x:1/y"], ["--internal", "https://x:1"],
    ["--wxlogind", "http://a;b"], ["--wxlogind", "http://a/?b"], ["--wxlogind", "http://u@h"],
])
def test_bad_command_lines(args):
    """Was wrong: a bad --watch-redis ended with 3, as if the address could not be bound."""
    done = run("--listen", f"127.0.0.1:{free_port()}", *args)
    assert done.returncode == 2 and not done.stdout and done.stderr.startswith("wxfake: "), done


def test_secrets_stay_off_the_screen():
    done = run("--app", "wx 1:hush-hush")
    assert done.returncode == 2 and "hush-hush" not in done.stdout + done.stderr


@pytest.mark.parametrize("listen", ["nonsense", "127.0.0.1:99999", "192.0.2.1:0", "127.0.0.1"])
def test_addresses_that_cannot_be(listen):
    done = run("--listen", listen)
    assert done.returncode == 3 and "cannot listen" in done.stderr, done


def test_an_address_in_use(wxfake):
    done = run("--listen", f"127.0.0.1:{wxfake.port}")
    assert done.returncode == 3 and "cannot listen" in done.stderr


def test_certificates_that_cannot_be_read(stack):
    tls = stack.tls()
    for cert, key in ((tls.ca, tls.key), ("/nope", tls.key), (tls.cert, "/nope"), (tls.key, tls.cert)):
        done = run("--listen", f"127.0.0.1:{free_port()}", "--tls-cert", cert, "--tls-key", key)
        assert done.returncode == 1 and "TLS" in done.stderr, done


def test_help_and_version():
    done = run("--help")
    assert done.returncode == 0 and not done.stderr and done.stdout.startswith("usage: wxfake") and APPID in done.stdout
    page = (ROOT / "docs/wxfake.md").read_text().partition("\n\n")[2]
    options = set(re.findall(r"--[a-z-]+", page.partition("Without")[0]))
    assert options >= {"--listen", "--tls-cert", "--tls-key", "--app", "--latency", "--any-code", "--watch-redis"}
    assert options <= set(re.findall(r"--[a-z-]+", done.stdout))
    done = run("--version")
    assert done.returncode == 0 and re.fullmatch(r"wxfake \d+\.\d+\.\d+\n", done.stdout)


def test_the_page_knows_every_mode(wxfake):
    """Both ways: what the page names is taken, and what is taken is named. Was wrong: spent_hang."""
    page = (ROOT / "docs/wxfake.md").read_text()
    named = set(re.findall(r"`([a-z0-9_]+)`", page[page.index("`hang` never"):])) - {"delay_ms"}
    for mode in named:
        wxfake.fault(mode=mode)
    source = (ROOT / "test/wxfake/fault.c").read_text()
    assert named == set(re.findall(r'\{"([a-z0-9_]+)", M_', source))
    asked = set(re.findall(r'mode="([a-z0-9_]+)"|\("([a-z0-9_]+)", (?:\{|None|rb|True|False|50)', (ROOT / "test/it/test_wxfake.py").read_text()))
    assert named <= {a or b for a, b in asked}, "a mode without a test"


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_told(stack, sig):
    w = stack.wxfake("--latency", "60s")
    w.fault("token", mode="drip")
    with Events(w), concurrent.futures.ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(sns, w, "x"), pool.submit(plain_token, w)]
        poll(lambda: w.calls() == w.calls("token") == 1, what="two calls under way")
        began = time.monotonic()
        w.process.signal(sig)
        assert w.process.proc.wait(10) == 0 and time.monotonic() - began < 5
        assert all(f.exception() for f in waiting)


def test_its_log_holds_no_secret(wxfake):
    user, token = login(wxfake), access_token(wxfake)
    plain = plain_token(wxfake).json["access_token"]
    check(wxfake, user, token)
    sns(wxfake, "a-code-nobody-made")
    text = wxfake.process.text()
    assert "jscode2session" in text
    for secret in (SECRET, user["session_key"], token, plain, sign(user["session_key"]), "a-code-nobody-made", *wxfake.codes):
        assert secret not in text


# ---- HTTP ----

@pytest.mark.parametrize("method, path", [
    ("GET", "/fake/nope"), ("POST", "/fake/nope"), ("DELETE", "/fake/nope"), ("GET", "/fake/"), ("POST", "/fake/code/"), ("GET", "/fake/Stats"),
])
def test_not_found(wxfake, method, path):
    a = wxfake.call(method, path)
    assert (a.status, a.error) == (404, "not_found") and is_json_type(a) and a.json["request_id"] == a.headers["X-Request-Id"], a


@pytest.mark.parametrize("method, path, allow", [
    ("GET", "/fake/code", "POST, OPTIONS"), ("PUT", "/fake/code", "POST, OPTIONS"), ("HEAD", "/fake/expire", "POST, OPTIONS"),
    ("DELETE", "/fake/encrypt", "POST, OPTIONS"), ("GET", "/fake/fault", "POST, DELETE, OPTIONS"), ("PATCH", "/fake/fault", "POST, DELETE, OPTIONS"),
    ("POST", "/fake/stats", "GET, HEAD, OPTIONS"), ("DELETE", "/fake/events", "GET, HEAD, OPTIONS"), ("POST", "/", "GET, HEAD"), ("DELETE", "/", "GET, HEAD"),
])
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
    return dict(part.strip().partition(" ")[::2] for part in a.headers["Content-Security-Policy"].split(";"))


def test_the_page_and_what_it_names_may_do_little(wxfake):
    html = wxfake.call("GET", "/").body.decode()
    named = re.findall(r'(?:src|href)="([^"]+)"', html)
    assert len(named) > 8
    for path in ["/", *named]:
        a = wxfake.call("GET", path)
        assert a.status == 200 and a.body and a.headers["X-Content-Type-Options"] == "nosniff", path
        p = policy(a)
        assert p["default-src"] == "'none'" and p["script-src"] == p["style-src"] == "'self'" and "unsafe" not in str(p), path
        assert p["connect-src"] == f"'self' http://127.0.0.1:8080" and p["frame-ancestors"] == p["base-uri"] == p["form-action"] == "'none'"
    assert not re.search(r"<style|<script>|\son\w+=|\sstyle=|https?://", html)


def test_files_of_the_page_are_what_they_were(wxfake):
    for folder, url in (("test/wxfake/page", "/fake/page"), ("miniprogram", "/fake/page/miniprogram")):
        files = [f for f in (ROOT / folder).rglob("*") if f.is_file() and f.suffix in (".js", ".css", ".svg", ".wxml", ".wxss") and f.name != "common.d.ts"
                 and not {"node_modules", "miniprogram_dist"} & set(f.parts)]
        assert files
        for f in files:
            a = wxfake.call("GET", f"{url}/{f.relative_to(ROOT / folder)}")
            assert a.status == 200, f
            body = a.body
            if folder == "miniprogram" and f.suffix == ".js":  # each in a scope of its own, as WeChat's tools do it
                head = f'define("{f.relative_to(ROOT / folder)}", function (require, module, exports, wx, App, Page, getApp) {{'.encode()
                assert body.startswith(head) and body.endswith(b"});\n"), f
                body = body[len(head):-4]
            assert body == f.read_bytes(), f
    assert wxfake.call("GET", "/fake/page/../main.c").status == wxfake.call("GET", "/fake/page/").status == 404
    assert wxfake.call("GET", "/fake/stats").json["calls"]["other"] == 0


@pytest.mark.parametrize("host, server", [
    ("127.0.0.1:9090", "http://127.0.0.1:8080"), ("localhost", "http://localhost:8080"), ("[::1]:9090", "http://[::1]:8080"),
    ("fake.lan:1", "http://fake.lan:8080"), ("a;script-src *", None), ("x' https://evil", None), ("[::1", None), ("a,b", None),
])
def test_where_wxlogind_is(wxfake, host, server):
    for path in ("/", "/fake/about"):
        with contextlib.closing(socket.create_connection(("127.0.0.1", wxfake.port), timeout=10)) as s:
            s.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            head, _, body = b"".join(iter(lambda: s.recv(65536), b"")).decode().partition("\r\n\r\n")
        if server is None and head.startswith("HTTP/1.1 400"):
            continue  # no Host at all, by RFC 9112
        server = server or "http://127.0.0.1:8080"
        if path == "/":
            assert f"connect-src 'self' {server};" in head, head
        else:
            assert json.loads(body)["wxlogind"] == server


def test_where_wxlogind_is_said_to_be(stack):
    w = stack.wxfake("--wxlogind", "https://login.example:8443/at/path", "--app", "wx1:s1", "--app", "wx2:s2")
    about = w.call("GET", "/fake/about").json
    assert about["wxlogind"] == "https://login.example:8443/at/path" and about["apps"] == ["wx1", "wx2"] and about["redis"] is False
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
    assert wxfake.call("POST", "/fake/check-session", {"openid": "oMe", "appid": "wxno"}).status == 400


def test_web_pages_may_call(wxfake):
    a = wxfake.call("OPTIONS", "/fake/code")
    assert a.status == 204 and a.headers["Access-Control-Allow-Origin"] == "*" and "Content-Type" in a.headers["Access-Control-Allow-Headers"]
    assert {"GET", "POST", "DELETE"} <= set(a.headers["Access-Control-Allow-Methods"].split(", "))
    for a in (wxfake.call("POST", "/fake/code"), wxfake.call("GET", "/fake/stats"), wxfake.call("GET", "/fake/nope"), wxfake.call("GET", "/fake/code")):
        assert a.headers["Access-Control-Allow-Origin"] == "*"


def test_one_connection_for_all(wxfake):
    conn = http.client.HTTPConnection("127.0.0.1", wxfake.port, timeout=10)
    with contextlib.closing(conn):
        conn.connect()
        sock = conn.sock
        for path in ("/sns/jscode2session?js_code=x", "/nope", "/fake/stats", "/fake/nope", "/", "/cgi-bin/token"):
            conn.request("GET", path)
            r = conn.getresponse()
            assert int(r.headers["Content-Length"]) == len(r.read()) and conn.sock is sock


def test_a_body_too_large(wxfake):
    with contextlib.suppress(ConnectionError):
        assert wxfake.call("POST", "/fake/code", "x" * (2 << 20)).status == 413
    assert login(wxfake)
