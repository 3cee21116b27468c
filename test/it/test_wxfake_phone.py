"""wxfake alone: phone numbers, encrypted data, and the codes and users that a test orders."""
import base64
import hashlib
import json
import re
import time

import pytest

from conftest import APPID
from wxfake_client import (
    OTHER, OTHER_SECRET, TWO_APPS, access_token, decrypt, encrypt, is_json_type, login, phone,
    query, refused, sns,
)
from wxfake_client import later  # noqa: F401  a fixture


# ---- phone numbers ----

def test_phone_number(wxfake):
    code = wxfake.code(kind="phone")
    assert re.fullmatch("[0-9a-f]{64}", code)
    a = phone(wxfake, code)
    assert (
        a.status == 200 and is_json_type(a) and list(a.json) == ["errcode", "errmsg", "phone_info"]
    ), a
    info = a.json["phone_info"]
    assert (a.json["errcode"], a.json["errmsg"]) == (0, "ok") and list(info) == [
        "phoneNumber", "purePhoneNumber", "countryCode", "watermark",
    ]
    assert (
        re.fullmatch("1[0-9]{10}", info["purePhoneNumber"])
        and info["phoneNumber"] == info["purePhoneNumber"]
        and info["countryCode"] == "86"
    )
    assert (
        info["watermark"]["appid"] == APPID
        and abs(info["watermark"]["timestamp"] - time.time()) < 5
    )
    refused(phone(wxfake, code), 40029)


def test_a_phone_number_belongs_to_its_user(wxfake):
    first = (
        wxfake.code(kind="phone", openid="oA"), wxfake.code(kind="phone", openid="oA"),
        wxfake.code(kind="phone", openid="oB"),
    )
    numbers = [phone(wxfake, c).json["phone_info"]["phoneNumber"] for c in first]
    assert numbers[0] == numbers[1] != numbers[2]


def test_kinds_of_code_do_not_cross(wxfake):
    code, button = wxfake.code(), wxfake.code(kind="phone")
    refused(phone(wxfake, code), 40029)
    refused(sns(wxfake, button), 40029, True)
    # neither was spent
    assert "openid" in sns(wxfake, code).json and phone(wxfake, button).json["errcode"] == 0
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

@pytest.mark.parametrize(
    "data",
    [
        {},
        {"nickName": "小明🐼", "gender": 1, "avatarUrl": "https://thirdwx.qlogo.cn/a/b"},
        {"phoneNumber": "13580006666", "n": [1, None, {"a": True}]},
        {"text": "\"\\\n\t\u0001/"},
        *({"pad": "x" * n} for n in range(16)),
        {"long": "好" * 20000},
    ],
)
def test_encrypt(wxfake, data):
    user = login(wxfake)
    made = encrypt(wxfake, user["openid"], data)
    plain = decrypt(user["session_key"], made["iv"], made["encryptedData"])
    seen = json.loads(plain)
    mark = seen.pop("watermark")
    assert seen == data and mark["appid"] == APPID and abs(mark["timestamp"] - time.time()) < 5
    assert len(base64.b64decode(made["encryptedData"])) == len(plain) // 16 * 16 + 16  # PKCS#7
    assert json.loads(made["rawData"]) == data
    assert (
        made["signature"]
        == hashlib.sha1((made["rawData"] + user["session_key"]).encode()).hexdigest()
    )


def test_encrypt_has_a_new_iv_each_time(wxfake):
    made = [encrypt(wxfake, "oU", {"a": 1}) for _ in range(4)]
    assert (
        len({m["iv"] for m in made}) == len({m["encryptedData"] for m in made}) == 4
        and len({m["signature"] for m in made}) == 1
    )


def test_a_watermark_of_the_callers_own(wxfake):
    mark = {"appid": "wx0000000000000000", "timestamp": 1477314187}
    user = login(wxfake)
    made = encrypt(wxfake, user["openid"], {"watermark": mark})
    assert json.loads(decrypt(user["session_key"], made["iv"], made["encryptedData"])) == {
        "watermark": mark
    }


def test_encrypted_under_the_key_of_the_day(wxfake):
    old = login(wxfake)
    assert wxfake.call("POST", "/fake/expire", {"openid": old["openid"]}).status == 204
    made = encrypt(wxfake, old["openid"], {"a": "b" * 50})
    assert not (decrypt(old["session_key"], made["iv"], made["encryptedData"]) or b"").startswith(
        b"{"
    )
    new = login(wxfake, openid=old["openid"])
    assert (
        json.loads(decrypt(new["session_key"], made["iv"], made["encryptedData"]))["a"] == "b" * 50
    )


# ---- codes and users on order ----

@pytest.mark.parametrize(
    "path, body",
    [
        ("code", {"kind": "plugin"}),
        ("code", {"kind": 7}),
        ("code", {"openid": ""}),
        ("code", {"openid": "a b"}),
        ("code", {"openid": "o" * 129}),
        ("code", {"openid": 7}),
        ("code", {"appid": "wxnobody"}),
        ("code", {"appid": 7}),
        ("code", {"unionid": "a b"}),
        ("code", []),
        ("code", "{"),
        ("code", "null"),
        ("code", "kind=login"),
        ("encrypt", {"openid": "o"}),
        ("encrypt", {"openid": "o", "data": "x"}),
        ("encrypt", {"data": {}}),
        ("encrypt", {"openid": "o", "data": {}, "appid": OTHER}),
        ("expire", {}),
        ("expire", {"openid": "a/b"}),
        ("expire", {"openid": "o", "appid": OTHER}),
        ("user", {}),
        ("user", {"openid": "o", "blocked": 1}),
        ("user", {"openid": "o", "unionid": 7}),
        ("user", {"openid": "o", "unionid": "a b"}),
        ("expire-token", {"appid": OTHER}),
        ("fault", {}),
        ("fault", {"api": "jscode2session"}),
        ("fault", {"mode": "hang"}),
        ("fault", {"api": "x", "mode": "hang"}),
        ("fault", {"api": "token", "mode": "x"}),
        ("fault", {"api": "token", "mode": "slow", "delay_ms": -1}),
        ("fault", {"api": "token", "mode": "slow", "delay_ms": 60001}),
        ("fault", {"api": "token", "mode": "hang", "count": 0}),
        ("fault", {"api": "token", "mode": "hang", "count": 1.5}),
        ("fault", {"api": "token", "mode": "errcode", "errcode": "40001"}),
    ],
)
def test_bad_orders(wxfake, path, body):
    a = wxfake.call("POST", "/fake/" + path, body)
    assert (
        (a.status, a.error) == (400, "invalid_request") and a.json["message"] and is_json_type(a)
    ), a
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
