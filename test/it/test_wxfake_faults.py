"""wxfake alone: every fault that it can be told to play."""
import concurrent.futures
import contextlib
import re
import socket
import time

import pytest

from conftest import APPID, SECRET, poll
from wxfake_client import (
    LOGIN_BODY, TEXTS, TICK, access_token, check, is_json_type, login, phone, plain_token, query,
    raw_login, refused, sns, stable_token,
)
from wxfake_client import later  # noqa: F401  a fixture


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
            path = "/sns/jscode2session" + query(
                appid=APPID, secret=SECRET, js_code=wxfake.code(), grant_type="authorization_code"
            )
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
    assert (
        LOGIN_BODY.fullmatch(a.body.decode())
        and 0.4 - TICK <= a.seconds < 1.5
        and spent(wxfake, code)
    )
    code, a = one_fault(wxfake, mode="slow")
    assert LOGIN_BODY.fullmatch(a.body.decode()) and 2 - TICK <= a.seconds < 3.5
    code, a = one_fault(wxfake, mode="slow", delay_ms=0)
    assert LOGIN_BODY.fullmatch(a.body.decode()) and a.seconds < 1


@pytest.mark.parametrize("mode, status", [("500", 500), ("502html", 502)])
def test_fault_status(wxfake, mode, status):
    code, a = one_fault(wxfake, mode=mode)
    assert (
        a.status == status
        and a.headers["Content-Type"] == "text/html"
        and a.body.startswith(b"<html>")
        and a.json is None
    )
    assert "openid" in sns(wxfake, code).json  # the code was not looked at


def test_fault_reset_and_close(wxfake):
    for mode, reset in (("reset", True), ("close", False)):
        wxfake.fault(mode=mode)
        code = wxfake.code()
        assert raw_login(wxfake, code) == (b"", reset), mode
        assert spent(wxfake, code)


def test_fault_drip(wxfake):
    wxfake.fault(mode="drip")
    path = "/sns/jscode2session" + query(
        appid=APPID, secret=SECRET, js_code=wxfake.code(), grant_type="authorization_code"
    )
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
    assert (
        head.startswith(b"HTTP/1.1 200 ")
        and len(body) > 10 * 1024 * 1024
        and body[-9:] == b"AAAAAAAAA"
    )
    assert spent(wxfake, wxfake.codes[-1])
    wxfake.fault(mode="huge")
    path = "/sns/jscode2session" + query(
        appid=APPID, secret=SECRET, js_code=wxfake.code(), grant_type="authorization_code"
    )
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


@pytest.mark.parametrize(
    "mode, body",
    [
        ("not_json", rb"openid=o1&session_key=k"),
        ("empty", rb""),
        ("truncated", rb'\{"session_key":"[^}]+'),
    ],
)
def test_fault_bodies_that_are_no_json(wxfake, mode, body):
    code, a = one_fault(wxfake, mode=mode)
    assert (
        a.status == 200
        and a.headers["Content-Type"] == "text/plain"
        and re.fullmatch(body, a.body)
        and a.json is None
    ), a
    assert int(a.headers["Content-Length"]) == len(a.body)
    assert spent(wxfake, code)


def test_fault_chunked(wxfake):
    wxfake.fault(mode="chunked")
    code = wxfake.code()
    head, _, body = raw_login(wxfake, code)[0].partition(b"\r\n\r\n")
    assert (
        b"Transfer-Encoding: chunked" in head
        and b"Content-Length" not in head
        and b"Content-Type: text/plain" in head
    )
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
    assert (
        "Content-Type" not in a.headers
        and LOGIN_BODY.fullmatch(a.body.decode())
        and spent(wxfake, code)
    )


def test_fault_unescaped(wxfake):
    for _ in range(60):
        a = one_fault(wxfake, mode="unescaped")[1]
        assert b"\\" not in a.body and re.fullmatch("[A-Za-z0-9+/]{22}==", a.json["session_key"])
        if "/" in a.json["session_key"]:
            return
    raise AssertionError("no / in 60 keys")


@pytest.mark.parametrize(
    "mode, extra",
    [
        ("errcode0", {"errcode": 0, "errmsg": "ok"}),
        ("expires_in", {"expires_in": 7200}),
        ("extra", None),
        ("quoted_errcode", {}),
        ("old_hints", {}),
    ],
)
def test_fault_fields(wxfake, mode, extra):
    code, a = one_fault(wxfake, mode=mode)
    plain = {k: a.json.pop(k) for k in ("session_key", "openid", "unionid")}
    assert all(plain.values()) and a.json == (
        {"x_new": {"list": [1, None, {"a": True}], "text": "你好 🐼"}, "x_null": None}
        if extra is None
        else extra
    )
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
    assert re.fullmatch(
        r"invalid code, hints: \[ req_id: [A-Za-z0-9_-]+ \]", sns(wxfake, "x").json["errmsg"]
    )
    wxfake.fault("token", mode="old_hints")
    assert re.fullmatch(
        r"invalid appid hint: \[[A-Za-z0-9_-]+\]", plain_token(wxfake, appid="x").json["errmsg"]
    )


def test_fault_missing_and_empty_fields(wxfake):
    code, a = one_fault(wxfake, mode="missing_openid")
    assert "openid" not in a.json and a.json["session_key"] and spent(wxfake, code)
    code, a = one_fault(wxfake, mode="empty_fields")
    assert a.json == {"session_key": "", "openid": "", "unionid": ""} and spent(wxfake, code)


def test_fault_bom(wxfake):
    code, a = one_fault(wxfake, mode="bom")
    assert (
        a.body[:3] == b"\xef\xbb\xbf"
        and LOGIN_BODY.fullmatch(a.body[3:].decode())
        and spent(wxfake, code)
    )


def test_faults_count_queue_and_end(wxfake):
    errcodes = lambda n: [sns(wxfake, wxfake.code()).json.get("errcode", 0) for _ in range(n)]
    wxfake.fault(mode="errcode", count=3)
    assert errcodes(5) == [-1, -1, -1, 0, 0]
    wxfake.fault(mode="errcode", errcode=45009, count=2)
    wxfake.fault("token", mode="500", count=7)
    wxfake.fault(mode="errcode", errcode=40164)
    assert wxfake.call("GET", "/fake/stats").json["faults"] == [
        {"api": "jscode2session", "mode": "errcode", "count": 2},
        {"api": "token", "mode": "500", "count": 7},
        {"api": "jscode2session", "mode": "errcode", "count": 1},
    ]
    assert errcodes(4) == [45009, 45009, 40164, 0]
    assert plain_token(wxfake).status == 500
    wxfake.fault(mode="errcode", count=1000000)
    assert errcodes(2) == [-1, -1]
    assert wxfake.call("DELETE", "/fake/fault?api=jscode2session").status == 204
    assert errcodes(2) == [0, 0] and plain_token(wxfake).status == 500
    # was wrong: a quiet 204
    assert wxfake.call("DELETE", "/fake/fault?api=jscode2sessions").status == 400
    assert wxfake.call("DELETE", "/fake/fault").status == 204
    assert plain_token(wxfake).status == 200
    stats = wxfake.call("GET", "/fake/stats").json
    assert stats["faults"] == [] and stats["faulted"] == 3 + 3 + 2 + 2


def test_too_many_faults(wxfake):
    for _ in range(64):
        wxfake.fault("token", mode="500")
    assert (
        wxfake.call("POST", "/fake/fault", {"api": "token", "mode": "500"}).error
        == "invalid_request"
    )
    wxfake.clear()
    wxfake.fault("token", mode="500")

CALLS = {
    "jscode2session": lambda w: sns(w, "x"), "token": plain_token, "stable_token": stable_token,
    "checksession": lambda w: check(w, {"openid": "o", "session_key": "k"}, "x"),
    "resetusersessionkey": lambda w: check(
        w, {"openid": "o", "session_key": "k"}, "x", "/wxa/resetusersessionkey"
    ),
    "getuserphonenumber": lambda w: phone(w, "x", "x"),
    "getuserencryptkey": lambda w: w.call("POST", "/wxa/business/getuserencryptkey"),
    **{
        api: lambda w, api=api: w.call("POST", "/xpay/" + api)
        for api in ("query_user_balance", "currency_pay", "cancel_currency_pay")
    },
    "other": lambda w: w.call("GET", "/nope"),
}


def test_faults_and_stats_by_api(wxfake):
    assert wxfake.call("GET", "/fake/stats").json == {
        "calls": {a: 0 for a in CALLS}, "faulted": 0, "users": 0, "faults": [],
    }
    for n, (api, ask) in enumerate(CALLS.items(), 1):
        wxfake.fault(api, mode="500")
        assert ask(wxfake).status == 500, api
        for _ in range(n):
            assert ask(wxfake).status == 200, api
    stats = wxfake.call("GET", "/fake/stats")
    assert (
        stats.json["calls"] == {a: n + 1 for n, a in enumerate(CALLS, 1)}
        and stats.json["faulted"] == len(CALLS)
        and is_json_type(stats)
    )
    login(wxfake)
    assert wxfake.call("GET", "/fake/stats").json["users"] == 1
