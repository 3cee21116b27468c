"""wxfake alone: the two kinds of access_token, their ends and their quotas."""
import contextlib
import http.client
import json
import re
import time

import pytest

from conftest import APPID, SECRET
from wxfake_client import (
    OTHER, OTHER_SECRET, TWO_APPS, access_token, check, is_json_type, login, phone, plain_token,
    query, refused, stable_token,
)
from wxfake_client import later  # noqa: F401  a fixture


def good_token(w, token):
    """Whether business calls take it; else the errcode."""
    a = check(w, {"openid": "o", "session_key": "k"}, token)
    return True if a.json["errcode"] == 40003 else a.json["errcode"]


@pytest.mark.parametrize("get", [plain_token, stable_token])
def test_token_shape(wxfake, get):
    a = get(wxfake)
    assert (
        a.status == 200
        and is_json_type(a)
        and re.fullmatch(rb'\{"access_token":"[A-Za-z0-9_-]{64,512}","expires_in":7200\}', a.body)
    ), a
    assert good_token(wxfake, a.json["access_token"]) is True
    assert good_token(wxfake, a.json["access_token"][:-1]) == 40001


@pytest.mark.parametrize("get", [plain_token, stable_token])
@pytest.mark.parametrize(
    "change, errcode",
    [
        ({"appid": None}, 41002),
        ({"appid": ""}, 41002),
        ({"appid": OTHER}, 40013),
        ({"secret": None}, 41004),
        ({"secret": ""}, 41004),
        ({"secret": "x"}, 40125),
        ({"grant_type": None}, 40002),
        ({"grant_type": "authorization_code"}, 40002),
    ],
)
def test_token_refusals(wxfake, get, change, errcode):
    refused(get(wxfake, **change), errcode)


def test_stable_token_reads_its_body_only(wxfake):
    args = query(appid=APPID, secret=SECRET, grant_type="client_credential")
    refused(wxfake.call("POST", "/cgi-bin/stable_token" + args), 41002)
    refused(wxfake.call("POST", "/cgi-bin/stable_token", args[1:]), 41002)
    for body in ("{", "[]", "null", '"x"', "\xff"):
        assert wxfake.call("POST", "/cgi-bin/stable_token", body).json["errcode"] in (41002, 47001)
    for wrong in (7, None, [], {}):
        refused(
            wxfake.call(
                "POST", "/cgi-bin/stable_token",
                {"appid": wrong, "secret": SECRET, "grant_type": "client_credential"},
            ),
            41002,
        )
    assert (
        access_token(wxfake, force_refresh=False)
        == access_token(wxfake, force_refresh="true")
        == access_token(wxfake)
    )


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
    assert (
        good_token(later, first["access_token"]) is good_token(later, new["access_token"]) is True
    )
    later.later(301)
    assert (
        good_token(later, first["access_token"]) == 40001
        and good_token(later, new["access_token"]) is True
    )


def test_stable_token_forced(later):
    first, second = access_token(later), access_token(later, force_refresh=True)
    assert (
        first != second and good_token(later, first) == 40001 and good_token(later, second) is True
    )
    # within 30 s: no refresh
    assert access_token(later, force_refresh=True) == access_token(later) == second
    later.later(28)
    assert access_token(later, force_refresh=True) == second
    later.later(3)
    third = access_token(later, force_refresh=True)
    assert (
        third != second and good_token(later, second) == 40001 and good_token(later, third) is True
    )
    # an app of its own
    assert access_token(later, appid=OTHER, secret=OTHER_SECRET, force_refresh=True) != third


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
    plain, stable, other = (
        plain_token(w).json["access_token"], access_token(w),
        access_token(w, appid=OTHER, secret=OTHER_SECRET),
    )
    assert w.call("POST", "/fake/expire-token", {}).status == 400  # which app?
    assert w.call("POST", "/fake/expire-token", {"appid": APPID}).status == 204
    assert good_token(w, plain) == good_token(w, stable) == 42001 and good_token(w, other) is True
    new = stable_token(w).json
    assert (
        new["access_token"] != stable
        and new["expires_in"] == 7200
        and good_token(w, new["access_token"]) is True
    )
    assert good_token(w, stable) == 40001


@pytest.mark.parametrize("errcode", [40001, 40014, 42001])
def test_stale_token_shapes(wxfake, errcode):
    user, token = login(wxfake), access_token(wxfake)
    wxfake.fault("checksession", mode="errcode", errcode=errcode)
    refused(check(wxfake, user, token), errcode)
    wxfake.fault("getuserphonenumber", mode="errcode", errcode=errcode)
    code = wxfake.code(kind="phone")
    refused(phone(wxfake, code, token), errcode)
    assert (
        check(wxfake, user, token).json["errcode"]
        == phone(wxfake, code, token).json["errcode"]
        == 0
    )
