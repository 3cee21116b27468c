"""Phone numbers: the button's code becomes a number, told to the phone and kept with the user; and
every row of what may go wrong."""
import sqlite3
import threading

import pytest

from conftest import APPID, poll

OPENID = "oTestPhone000000000000000001"


@pytest.fixture
def server(stack, redis, wxfake):
    s = stack.server(redis, wxfake, users__url=f"sqlite://{stack.dir}/users.db")
    poll(lambda: s.metric("wxlogind_users_up") == 1, what="the user database is open")
    return s


@pytest.fixture
def token(server, wxfake):
    return server.login(wxfake.code(openid=OPENID)).token


def phone(server, token, code):
    return server.call(
        "POST", "/v1/user/phone", {"code": code}, {"Authorization": f"Bearer {token}"}
    )


def kept(server):
    return server.inside("GET", f"/internal/apps/{APPID}/users/{OPENID}").json["phoneNumber"]


def button(wxfake, openid=OPENID, **kw):
    return wxfake.code(kind="phone", openid=openid, **kw)


def test_a_number(server, wxfake, token):
    code = button(wxfake)
    a = phone(server, token, code)
    assert (
        a.status == 200
        and set(a.json) == {"phoneNumber", "purePhoneNumber", "countryCode"}
        and a.headers["Cache-Control"] == "no-store"
    )
    assert (
        a.json["countryCode"] == "86"
        and a.json["phoneNumber"].startswith("138")
        and a.json["purePhoneNumber"] == a.json["phoneNumber"]
    )
    assert kept(server) == a.json["phoneNumber"]
    again = phone(server, token, code)
    assert (again.status, again.error) == (401, "invalid_code") and again.json["errcode"] in (
        40029, 40163,
    )
    for secret in (code, a.json["phoneNumber"], OPENID):
        assert secret not in server.process.text()
    assert wxfake.calls("getuserphonenumber") == 2 and wxfake.calls("stable_token") == 1


def test_codes_that_are_refused(server, wxfake, token):
    # a login code is none of the button's
    for code in ("nobody-made-this", wxfake.code(openid=OPENID)):
        a = phone(server, token, code)
        assert (a.status, a.error, a.json["errcode"]) == (
            401, "invalid_code", 40029,
        ) and "button" in a.json["message"]
    a = phone(server, token, button(wxfake, "oTestPhone000000000000000002"))  # another user's
    assert (a.status, a.error, a.json["errcode"]) == (502, "wechat_error", 40003)
    assert kept(server) is None


@pytest.mark.parametrize("errcode", [40001, 42001, 40014])
def test_a_stale_token_is_renewed_once(server, wxfake, token, errcode):
    wxfake.fault(api="getuserphonenumber", mode="errcode", errcode=errcode, count=1)
    a = phone(server, token, button(wxfake))
    assert a.status == 200 and wxfake.calls("getuserphonenumber") == 2
    assert kept(server) == a.json["phoneNumber"]


def test_a_token_that_stays_stale(server, wxfake, token):
    wxfake.fault(api="getuserphonenumber", mode="errcode", errcode=40001, count=10)
    a = phone(server, token, button(wxfake))
    assert (a.status, a.error, a.json["errcode"]) == (502, "wechat_error", 40001)
    assert wxfake.calls("getuserphonenumber") == 2


@pytest.mark.parametrize(
    "errcode, status, error, retry_after",
    [
        (45011, 429, "rate_limited", "60"),
        (45009, 429, "rate_limited", "3600"),
        (-1, 503, "wechat_unavailable", "1"),
        (40013, 502, "wechat_config", None),
        (40226, 403, "user_blocked", None),
        (40164, 502, "wechat_config", None),
        (99999, 502, "wechat_error", None),
        (40163, 401, "invalid_code", None),
    ],
)
def test_what_wechat_says(server, wxfake, token, errcode, status, error, retry_after):
    wxfake.fault(api="getuserphonenumber", mode="errcode", errcode=errcode, count=10)
    a = phone(server, token, button(wxfake))
    assert (a.status, a.error, a.json["errcode"], a.headers["Retry-After"]) == (
        status, error, errcode, retry_after,
    )
    assert wxfake.calls("getuserphonenumber") == (3 if errcode == -1 else 1)
    wxfake.clear()
    assert phone(server, token, button(wxfake)).status == 200


def test_busy_once(server, wxfake, token):
    wxfake.fault(api="getuserphonenumber", mode="errcode", errcode=-1, count=1)
    assert phone(server, token, button(wxfake)).status == 200


@pytest.mark.parametrize("mode", ["reset", "not_json", "huge", "500"])
def test_broken_answers(server, wxfake, token, mode):
    wxfake.fault(api="getuserphonenumber", mode=mode, count=1)
    a = phone(server, token, button(wxfake))
    assert a.status in (502, 503) and a.error in ("wechat_error", "wechat_unavailable")
    assert wxfake.calls("getuserphonenumber") == 1  # the code may be spent: it is not sent again
    assert kept(server) is None


def test_another_apps_watermark(stack, redis):
    """A proxy that mixes apps up, say: the number is nobody's."""
    import http.server

    class Mixed(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            token = b'{"access_token":"t","expires_in":7200}'
            phone = (
                b'{"errcode":0,"errmsg":"ok","phone_info":{"phoneNumber":"13800000000",'
                b'"purePhoneNumber":"13800000000","countryCode":"86",'
                b'"watermark":{"timestamp":1,"appid":"wx0000000000000000"}}}'
            )
            body = token if "stable_token" in self.path else phone
            self.rfile.read(int(self.headers["Content-Length"]))
            self.reply(body)

        def do_GET(self):
            self.reply(
                b'{"session_key":"tiihtNczf5v6AKRyjwEUhQ==","openid":"%s"}' % OPENID.encode()
            )

        def reply(self, body):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *a):
            pass
    wechat = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mixed)
    threading.Thread(target=wechat.serve_forever, daemon=True).start()
    try:
        server = stack.server(
            redis, None, users__url=f"sqlite://{stack.dir}/users.db",
            wechat__base_url=f"http://127.0.0.1:{wechat.server_port}",
        )
        a = phone(server, server.login("any").token, "any")
        assert (a.status, a.error) == (502, "wechat_error")
        assert kept(server) is None and "13800000000" not in server.process.text()
    finally:
        wechat.shutdown()
        wechat.server_close()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"code": ""},
        {"code": 1},
        {"code": None},
        {"code": "c" * 257},
        {"code": "a\nb"},
        {"code": "码"},
        [], "text",
    ],
)
def test_bad_bodies(server, wxfake, token, body):
    a = server.call(
        "POST", "/v1/user/phone", body if isinstance(body, (dict, list)) else body.encode(),
        {"Authorization": f"Bearer {token}"},
    )
    assert (a.status, a.error) == (400, "invalid_request")
    assert wxfake.call("GET", "/fake/stats").json["calls"].get("getuserphonenumber", 0) == 0


def test_who_asks(server):
    assert phone(server, "A" * 43, "c").error == "invalid_session"
    assert server.call("POST", "/v1/user/phone", {"code": "c"}).json["reason"] == "missing"
    assert server.call("GET", "/v1/user/phone").status == 405


def test_where_users_are_none(stack, redis, wxfake):
    server = stack.server(redis, wxfake)
    a = phone(server, server.login(wxfake.code(openid=OPENID)).token, button(wxfake))
    assert a.status == 200 and a.json["phoneNumber"].startswith("138")


def test_logins_do_not_notice(stack, redis, wxfake):
    """A call that hangs takes neither the connections nor the time of logins."""
    server = stack.server(
        redis, wxfake, wechat__timeout="2s", wechat__max_connections="2", limit__phone_per_user="0",
        users__url=f"sqlite://{stack.dir}/users.db",
    )
    token = server.login(wxfake.code(openid=OPENID)).token
    wxfake.fault(api="getuserphonenumber", mode="hang", count=100)
    answers = []
    waiting = [
        threading.Thread(target=lambda: answers.append(phone(server, token, "c")))
        for _ in range(24)
    ]
    for t in waiting:
        t.start()
    poll(lambda: wxfake.calls("getuserphonenumber") >= 1, what="hanging")
    for _ in range(20):
        a = server.login(wxfake.code())
        assert a.status == 200 and a.seconds < 1
    for t in waiting:
        t.join()
    assert {a.status for a in answers} == {503}


def test_a_session_that_ended_while_wechat_was_asked(server, wxfake, token):
    """It is told no number, and none is kept."""
    wxfake.fault(api="getuserphonenumber", mode="slow", delay_ms=1000)
    answers = []
    asking = threading.Thread(target=lambda: answers.append(phone(server, token, button(wxfake))))
    asking.start()
    poll(lambda: wxfake.calls("getuserphonenumber") == 1, what="the question")
    assert server.session(token, "DELETE").status == 204
    asking.join()
    assert (answers[0].status, answers[0].json.get("reason")) == (401, "logged_out"), answers
    assert kept(server) is None


def test_a_session_that_ended_while_the_number_was_written(stack, server, wxfake, token):
    """The user database is locked for a while."""
    answers = []
    with sqlite3.connect(stack.dir / "users.db", isolation_level=None) as db:
        db.execute("BEGIN IMMEDIATE")
        asking = threading.Thread(
            target=lambda: answers.append(phone(server, token, button(wxfake)))
        )
        asking.start()
        poll(
            lambda: server.metric(
                "wxlogind_wechat_requests_total", api="getuserphonenumber", outcome="ok"
            ) == 1,
            what="the number",
        )
        assert server.session(token, "DELETE").status == 204
        db.execute("COMMIT")
    asking.join()
    assert (answers[0].status, answers[0].json.get("reason")) == (401, "logged_out"), answers
