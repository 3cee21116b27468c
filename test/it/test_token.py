"""One access_token for everybody: shared, renewed by one, dropped when dead, forced only within
WeChat's limits; and calls passed through."""
import contextlib
import os
import signal
import socket
import threading
import time

import pytest

from conftest import APPID, KEY, SECRET, poll

TOKEN = f"/internal/apps/{APPID}/access-token"
INTERNAL = {"X-Internal-Token": "the-internal-token"}


def token(server, query=""):
    return server.inside("GET", TOKEN + query)


def everywhere(servers, ask):
    out = []
    threads = [threading.Thread(target=lambda s=s: out.append(ask(s))) for s in servers]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return out


def test_one_for_all(stack, redis, wxfake):
    """Eight processes on an empty Redis, at once: one call."""
    servers = [stack.server(redis, wxfake) for _ in range(8)]
    answers = everywhere(servers * 3, token)
    assert {a.status for a in answers} == {200} and len(
        {a.json["access_token"] for a in answers}
    ) == 1
    assert all(7100 < a.json["expires_in"] <= 7200 for a in answers)
    assert wxfake.calls("stable_token") == 1
    assert answers[0].headers["Cache-Control"] == "no-store"
    assert answers[0].json["access_token"] not in redis.written()
    for s in servers:
        assert answers[0].json["access_token"] not in s.process.text()


def test_unknown_app_and_wrong_secret(stack, redis, wxfake):
    server = stack.server(redis, wxfake, **{"app_wxaaaaaaaaaaaaaaaa__secret": "another secret"})
    assert (
        server.inside("GET", "/internal/apps/wxbbbbbbbbbbbbbbbb/access-token").error
        == "unknown_app"
    )
    assert (
        server.inside("GET", "/internal/apps/wxaaaaaaaaaaaaaaaa/access-token").error
        == "wechat_config"
    )
    assert server.inside("POST", TOKEN).status == 405


@pytest.mark.parametrize(
    "errcode, status, error, wait",
    [
        (40125, 502, "wechat_config", None),
        (40164, 502, "wechat_config", None),
        (45009, 429, "rate_limited", 3600),
        (45011, 429, "rate_limited", 60),
        (12345, 502, "wechat_error", None),
        (-1, 503, "wechat_unavailable", 1),
    ],
)
def test_wechats_refusal_is_told_to_all(stack, redis, wxfake, errcode, status, error, wait):
    """With its errcode, whoever asked for the token and in whichever process; Retry-After only
    where waiting helps."""
    servers = [stack.server(redis, wxfake) for _ in range(2)]
    session = servers[0].login(wxfake.code()).token
    wxfake.fault(api="stable_token", mode="errcode", errcode=errcode, count=100)
    phone = lambda s: s.call(
        "POST", "/v1/user/phone", {"code": "x"}, {"Authorization": f"Bearer {session}"}
    )
    for a in everywhere(servers * 2, token) + everywhere(servers, phone):
        assert (a.status, a.error, a.json.get("errcode")) == (status, error, errcode), a
        assert a.headers["Retry-After"] == (str(wait) if wait else None)


def test_second_secret(stack, redis, wxfake):
    server = stack.server(redis, wxfake, **{f"app_{APPID}__secret": f"wrong, {SECRET}"})
    assert token(server).status == 200


def test_refresh_drops_exactly_that_one(server, wxfake):
    first = token(server).json["access_token"]
    assert token(server, "?refresh=not-this-one").json["access_token"] == first
    assert wxfake.calls("stable_token") == 1
    a = token(server, "?refresh=" + first)  # WeChat's normal mode gives the same: it must be forced
    assert a.status == 200 and a.json["access_token"] != first
    assert wxfake.calls("stable_token") == 3
    assert token(server, "?refresh=" + first).json["access_token"] == a.json["access_token"]
    assert wxfake.calls("stable_token") == 3


def test_other_calls_do_not_hold_it_up(stack, redis, wxfake):
    """All connections for phone numbers hang: the token is renewed on one of its own."""
    server = stack.server(redis, wxfake, wechat__timeout="10s", limit__phone_per_user="0")
    first, session = token(server).json["access_token"], server.login(wxfake.code()).token
    wxfake.fault(api="getuserphonenumber", mode="hang", count=100)
    with contextlib.ExitStack() as hanging:
        for _ in range(20):
            s = hanging.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            s.sendall(
                f'POST /v1/user/phone HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {session}\r\n'
                'Content-Length: 12\r\n\r\n'
                '{"code":"c"}'.encode()
            )
        poll(lambda: wxfake.calls("getuserphonenumber") == 16, what="every connection hangs")
        a = token(server, "?refresh=" + first)
        assert a.status == 200 and a.json["access_token"] != first, a
    wxfake.process.stop()  # those that hang end with it


def test_a_report_of_another_does_not_hide_the_dead_one(server, wxfake):
    """While the dead token is renewed, a backend reports one that is long forgotten."""
    first = token(server).json["access_token"]
    wxfake.fault(api="stable_token", mode="slow", delay_ms=500, count=1)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(token(server, "?refresh=" + first)))
    thread.start()
    poll(lambda: wxfake.calls("stable_token") == 2, what="the renewal")
    late = token(server, "?refresh=not-this-one")
    thread.join()
    assert answers[0].status == late.status == 200
    assert first not in (answers[0].json["access_token"], late.json["access_token"])


def test_one_that_does_not_open_is_none(stack, redis, wxfake):
    """The key was replaced, not added: WeChat is asked again, and nobody waits for the old token's
    end."""
    first = token(stack.server(redis, wxfake)).json["access_token"]
    server = stack.server(redis, wxfake, session__encryption_key=KEY[::-1])
    a = token(server)
    # not forced: others may hold it
    assert (a.status, a.json["access_token"]) == (200, first) and a.seconds < 2
    assert wxfake.calls("stable_token") == 2
    assert token(server).status == 200 and wxfake.calls("stable_token") == 2
    assert server.process.text().count("cannot be decrypted") == 1


def test_never_forced_twice_within_30_seconds(stack, redis, wxfake):
    servers = [stack.server(redis, wxfake) for _ in range(2)]
    first = token(servers[0]).json["access_token"]
    second = token(servers[0], "?refresh=" + first).json["access_token"]
    answers = everywhere(servers * 4, lambda s: token(s, "?refresh=" + second))
    for a in answers:
        assert (a.status, a.error) == (503, "wechat_unavailable")
    assert any(25 <= int(a.headers["Retry-After"]) <= 30 for a in answers)
    forced = [
        line for line in redis.cli("LRANGE", f"wxlogin:t:{{{APPID}}}:forced", 0, -1).split() if line
    ]
    assert len(forced) == 1


def test_a_forced_one_is_asked_for_once(server, wxfake):
    """WeChat counts a forced renewal whatever it answers: -1 may be asked again, but not within 30
    seconds."""
    first = token(server).json["access_token"]
    wxfake.fault(api="stable_token", mode="slow", delay_ms=0, count=1)
    wxfake.fault(api="stable_token", mode="errcode", errcode=-1, count=9)
    a = token(server, "?refresh=" + first)
    assert (a.status, a.error) == (503, "wechat_unavailable")
    # the first, a normal renewal that brought the dead one, and one forced
    assert wxfake.calls("stable_token") == 3


def test_twenty_forced_a_day(server, redis, wxfake):
    first = token(server).json["access_token"]
    now = int(redis.cli("TIME").split()[0]) * 1000
    for i in range(20):
        redis.cli("RPUSH", f"wxlogin:t:{{{APPID}}}:forced", now - 60000 - i * 1000)
    a = token(server, "?refresh=" + first)
    assert a.status == 503 and int(a.headers["Retry-After"]) > 80000


def test_renewed_ahead_of_its_end(server, redis, wxfake):
    """In its last minutes the token is given at once, and renewed behind."""
    first = token(server).json["access_token"]
    redis.cli("PEXPIRE", f"wxlogin:t:{{{APPID}}}", 200000)
    a = token(server)
    assert a.json["access_token"] == first and a.json["expires_in"] <= 200
    poll(lambda: wxfake.calls("stable_token") == 2, what="renewed")
    poll(lambda: token(server).json["expires_in"] > 7000, what="the new one")


def test_what_metrics_tell(stack, redis, wxfake):
    """When each app's token ends, and how its renewals went: for every app from the start, and
    never the token."""
    other = "wxaaaaaaaaaaaaaaaa"
    servers = [
        stack.server(redis, wxfake, **{f"app_{other}__secret": "another secret"}) for _ in range(2)
    ]
    end = lambda s, appid=APPID: s.metric(
        "wxlogind_access_token_end_timestamp_seconds", appid=appid
    )
    renewals = lambda s, appid, outcome: s.metric(
        "wxlogind_access_token_renewals_total", appid=appid, outcome=outcome
    )
    for appid in (APPID, other):
        assert (
            f'access_token_end_timestamp_seconds{{appid="{appid}"}} 0'
            in servers[0].inside("GET", "/metrics").body.decode()
        )
    given = [token(s).json["access_token"] for s in servers]
    for s in servers:
        assert abs(end(s) - time.time() - 7200) < 60
        assert given[0] not in s.inside("GET", "/metrics").body.decode()
    assert [renewals(s, APPID, "ok") for s in servers] == [1, 0]
    assert servers[0].inside("GET", f"/internal/apps/{other}/access-token").error == "wechat_config"
    assert (
        end(servers[0], other), renewals(servers[0], other, "wechat_config"),
        renewals(servers[0], other, "ok"),
    ) == (0, 1, 0)
    redis.cli("DEL", f"wxlogin:t:{{{APPID}}}")
    wxfake.fault(api="stable_token", mode="errcode", errcode=40125, count=100)
    assert token(servers[0]).error == "wechat_config"
    assert (end(servers[0]), renewals(servers[0], APPID, "wechat_config")) == (0, 1)


def test_a_killed_holder_is_followed(stack, redis, wxfake):
    # so that a child can be killed, and the exit stays good
    a = stack.server(redis, wxfake, server__workers="2", wechat__timeout="1s")
    b = stack.server(redis, wxfake, wechat__timeout="1s")
    wxfake.fault(api="stable_token", mode="hang", count=1)
    lost = []

    def ask():
        try:
            lost.append(token(a))
        except Exception as e:
            lost.append(e)
    thread = threading.Thread(target=ask)
    thread.start()
    poll(lambda: wxfake.calls("stable_token") == 1, what="the holder asks")
    for child in open(f"/proc/{a.process.pid}/task/{a.process.pid}/children").read().split():
        os.kill(int(child), signal.SIGKILL)
    got = token(b)
    assert got.status == 200 and got.seconds < 4.5
    thread.join()


def test_a_failed_renewal_is_shared(stack, redis, wxfake):
    servers = [stack.server(redis, wxfake) for _ in range(3)]
    wxfake.fault(api="stable_token", mode="500", count=100)
    answers = everywhere(servers * 5, token)
    assert {a.error for a in answers} <= {"wechat_error", "wechat_unavailable"} and wxfake.calls(
        "stable_token"
    ) <= 6
    wxfake.clear()
    poll(lambda: token(servers[1]).status == 200, what="good again")


def test_a_reset_is_asked_again(server, wxfake):
    wxfake.fault(api="stable_token", mode="reset", count=1)
    assert token(server).status == 200 and wxfake.calls("stable_token") == 2


def test_without_redis(server, redis):
    redis.kill()
    poll(lambda: token(server).status == 503, what="503")
    assert token(server).error == "store_unavailable"
    redis.start()


def test_logins_do_not_notice(stack, redis, wxfake):
    """A token API that hangs takes neither the connections nor the breaker of logins."""
    server = stack.server(redis, wxfake, wechat__timeout="2s", wechat__max_connections="2")
    wxfake.fault(api="stable_token", mode="hang", count=100)
    waiting = [threading.Thread(target=token, args=(server,)) for _ in range(30)]
    for t in waiting:
        t.start()
    poll(lambda: wxfake.calls("stable_token") >= 1, what="hanging")
    for _ in range(20):
        a = server.login(wxfake.code())
        assert a.status == 200 and a.seconds < 1
    wxfake.clear()
    for t in waiting:
        t.join()


def test_a_good_token_outlives_reports(stack, redis, wxfake):
    """Calls that WeChat answers 40001 or 41001 though the token is good: nobody loses it, and
    WeChat is asked about it once."""
    servers = [
        stack.server(redis, wxfake, users__url="none", limit__phone_per_user="0") for _ in range(2)
    ]
    session = servers[0].login(wxfake.code()).token
    first = token(servers[0]).json["access_token"]
    for errcode in (40001, 41001, 42001, 40014):
        wxfake.fault(api="getuserphonenumber", mode="errcode", errcode=errcode, count=8)
        phone = lambda s: s.call(
            "POST", "/v1/user/phone", {"code": "x"}, {"Authorization": f"Bearer {session}"}
        )
        everywhere(servers * 4, phone)
        wxfake.clear()
        answers = everywhere(servers * 12, token)
        assert {(a.status, a.json["access_token"]) for a in answers} == {(200, first)}
    assert wxfake.calls("stable_token") == 2  # the first, and one question about it


def test_a_token_that_is_dead_is_replaced(stack, redis, wxfake):
    server = stack.server(redis, wxfake, users__url="none")
    session = server.login(wxfake.code(openid="oTestDeadToken")).token
    first = token(server).json["access_token"]
    assert wxfake.call("POST", "/fake/expire-token", {}).status == 204
    a = server.call(
        "POST", "/v1/user/phone",
        {"code": wxfake.code(kind="phone", openid="oTestDeadToken")},
        {"Authorization": f"Bearer {session}"},
    )
    assert a.status == 200, a
    second = token(server).json["access_token"]
    assert second != first and wxfake.calls("stable_token") == 2


def test_what_cannot_be_dropped_is_kept_for_the_others(stack, redis, wxfake):
    """WeChat's limits forbid to force a new one: only who asked for that is refused."""
    server = stack.server(redis, wxfake)
    first = token(server).json["access_token"]
    second = token(server, "?refresh=" + first).json["access_token"]
    a = token(server, "?refresh=" + second)
    assert (a.status, a.error) == (503, "wechat_unavailable")
    assert {(b.status, b.json["access_token"]) for b in everywhere([server] * 24, token)} == {
        (200, second)
    }


# ---- a backend's own calls ----

@pytest.fixture
def passing(stack, redis, wxfake):
    return stack.server(redis, wxfake, wait=False, server__internal_token="the-internal-token")


def through(server, path, method="GET", body=None, headers=None):
    return server.inside(
        method, f"/internal/apps/{APPID}/wechat/{path}", body, {**INTERNAL, **(headers or {})}
    )


def test_passed_on_with_the_token(passing, wxfake):
    poll(passing.ready, what="ready")
    phone = wxfake.code(kind="phone", openid="oTestPassing")
    a = through(
        passing, "wxa/business/getuserphonenumber?access_token=mine&%61ccess_token=mine", "POST",
        {"code": phone},
    )
    assert (
        a.status == 200
        and a.json["errcode"] == 0
        and a.json["phone_info"]["watermark"]["appid"] == APPID
    )
    assert wxfake.calls("getuserphonenumber") == 1
    assert "mine" not in passing.process.text()


def test_a_stale_token_is_renewed_once(passing, wxfake):
    poll(passing.ready, what="ready")
    assert passing.inside("GET", TOKEN, headers=INTERNAL).status == 200
    wxfake.fault(api="getuserphonenumber", mode="errcode", errcode=42001, count=1)
    phone = wxfake.code(kind="phone", openid="oTestPassing")
    a = through(passing, "wxa/business/getuserphonenumber", "POST", {"code": phone})
    assert a.json["errcode"] == 0 and wxfake.calls("getuserphonenumber") == 2
    wxfake.fault(api="getuserphonenumber", mode="errcode", errcode=40001, count=5)
    a = through(passing, "wxa/business/getuserphonenumber", "POST", {"code": phone})
    assert a.status in (200, 503) and wxfake.calls("getuserphonenumber") <= 4


REFUSED = [
    "cgi-bin/token", "cgi-bin/stable_token", "cgi-bin/clear_quota", "cgi-bin/clear_quota/v2",
    "cgi-bin/openapi/quota/clear", "sns/jscode2session", "sns/component/jscode2session",
    "wxa/resetusersessionkey",
]


def spellings(path):
    first, rest = path.split("/", 1)
    yield from (
        path, path.upper(), path.title(), "/" + path, "//" + path, path + "/", path + "//",
        f"{first}//{rest}", f"{first}/./{rest}", "./" + path, f"x/../{path}", f"x/%2e%2e/{path}",
        f"%{ord(path[0]):02x}{path[1:]}", f"%25{ord(path[0]):02x}{path[1:]}",
        path.replace("/", "%2f"), path.replace("/", "%2F", 1), path.replace("/", "\\"),
        path + "%00", path + "%20", path + ".", path + ";x", path + "/x", path + "%3fx",
    )


@pytest.mark.parametrize("path", REFUSED)
def test_refused_paths(passing, wxfake, path):
    poll(passing.ready, what="ready")
    for text in spellings(path):
        for method in ("GET", "POST"):
            a = through(passing, text, method, b"{}" if method == "POST" else None)
            assert (a.status, a.error) == (400, "invalid_request"), (method, text, a)
    assert set(wxfake.call("GET", "/fake/stats").json["calls"].values()) <= {0}


@pytest.mark.parametrize(
    "path", ["", "@evil.example/", "wxa%2f..%2fcgi-bin", "a\\b", "/evil.example/x", "wxa/x.y"]
)
def test_paths_that_are_none(passing, path):
    poll(passing.ready, what="ready")
    a = through(passing, path)
    assert (a.status, a.error) == (400, "invalid_request")


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "TRACE", "PATCH", "OPTIONS"])
def test_methods_that_are_not_passed(passing, wxfake, method):
    poll(passing.ready, what="ready")
    a = through(passing, "wxa/x", method)
    assert a.status == 405 and set(a.headers["Allow"].split(", ")) == {"GET", "POST"}
    assert set(wxfake.call("GET", "/fake/stats").json["calls"].values()) <= {0}


class Says(threading.Thread):
    """A WeChat that answers every path but stable_token with these bytes."""

    def __init__(self, answer):
        super().__init__(daemon=True)
        self.answer, self.server = answer, socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.start()

    def run(self):
        token = b'{"access_token":"t","expires_in":7200}'
        with contextlib.suppress(OSError):
            while True:
                s = self.server.accept()[0]
                s.settimeout(5)
                head = s.recv(65536)
                s.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
                    % (len(token), token)
                    if b"stable_token" in head
                    else self.answer
                )
                s.close()


@pytest.mark.parametrize(
    "answer, status",
    [
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nhello",
            502,
        ),
        (b"HTTP/1.1 199 What\r\n\r\n", (502, 503)),
        (b"HTTP/1.1 100 Continue\r\n\r\n", (502, 503)),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", 304),
        (b"HTTP/1.1 418 Tea\r\nContent-Length: 2\r\n\r\nhi", 418),
    ],
)
def test_statuses_that_are_passed(stack, redis, answer, status):
    """What is no answer at all is none of the caller's either."""
    says = Says(answer)
    server = stack.server(
        redis, None, server__internal_token="the-internal-token",
        wechat__base_url=f"http://127.0.0.1:{says.port}", wait=False,
    )
    poll(server.ready, what="ready")
    a = through(server, "wxa/x")
    assert a.status in (status if isinstance(status, tuple) else (status,)), a
    says.server.close()


def test_only_with_an_internal_token(server, passing):
    assert server.inside("GET", f"/internal/apps/{APPID}/wechat/wxa/x").status == 404
    assert passing.inside("GET", f"/internal/apps/{APPID}/wechat/wxa/x").status == 401


def test_what_wechat_says_comes_back(passing, wxfake):
    poll(passing.ready, what="ready")
    a = through(passing, "wxa/no_such_call", "POST", {"x": 1})
    assert a.status == 200 and a.json["errcode"] == 40066
    wxfake.fault(api="getuserphonenumber", mode="huge", count=1)
    assert (
        through(passing, "wxa/business/getuserphonenumber", "POST", {"code": "x"}).error
        == "wechat_error"
    )
    wxfake.fault(api="getuserphonenumber", mode="reset", count=1)
    before = wxfake.calls("getuserphonenumber")
    assert (
        through(passing, "wxa/business/getuserphonenumber", "POST", {"code": "x"}).error
        == "wechat_unavailable"
    )
    assert wxfake.calls("getuserphonenumber") == before + 1  # never sent twice
