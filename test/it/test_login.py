"""POST /v1/login: the requests that it accepts, and its errors (docs/http-api.md). If WeChat does
not answer, the error comes when wechat.timeout is over.

wechat__timeout="700ms" sets timeout in [wechat]. Modes of wxfake.fault: docs/wxfake.md,
"Faults". A claim is the key in Redis by which one login reserves a code. A repeat is another
login with the same code and the same nonce (or none in both): the client sent its request
again."""
import concurrent.futures
import contextlib
import re
import signal
import time
import urllib.parse

import pytest

from conftest import APPID, SECRET, poll

TOKEN = re.compile(r"^[A-Za-z0-9_-]{43}$")


def test_a_login_end_to_end(server, redis, wxfake):
    given = wxfake.call("POST", "/fake/code", {}).json
    wxfake.codes.append(given["code"])  # the fixture checks that no log has one of these
    a = server.login(given["code"], appid=APPID)
    assert (
        a.status == 200
        and TOKEN.match(a.token)
        and a.json["expires_in"] == 7 * 86400
        # no new_user, because the fixture has no user database
        and set(a.json) == {"third_session", "expires_in"}
    )
    who = server.auth(a.token)
    assert (who.status, who.body) == (200, b"")
    assert who.headers["X-Wx-Openid"] == given["openid"] and who.headers["X-Wx-Appid"] == APPID
    assert (
        "X-Wx-Unionid" in who.headers
        and 7 * 86400 - 5 <= int(who.headers["X-Wx-Expires-In"]) <= 7 * 86400
    )
    keys = redis.keys()
    # the claim on the code, the session, the index (store/session.h)
    assert sorted(k.split(":")[1] for k in keys) == ["c", "s", "u"]
    assert all(int(redis.cli("TTL", k)) > 0 for k in keys)
    assert wxfake.calls() == 1
    assert server.metric("wxlogind_logins_total", outcome="ok") == 1


@pytest.mark.parametrize(
    "mode",
    [
        "unescaped", "errcode0", "extra", "expires_in", "bom", "json_type", "no_type", "chunked",
        "slow",
    ],
)
def test_a_response_of_wechat_that_is_unusual_but_valid_is_accepted(server, wxfake, mode):
    wxfake.fault(mode=mode, delay_ms=300)
    a = server.login(wxfake.code())
    assert a.status == 200, a
    assert server.auth(a.token).status == 200


@pytest.mark.parametrize(
    "mode, status, error",
    [
        ("500", 502, "wechat_error"),
        ("502html", 502, "wechat_error"),
        ("not_json", 502, "wechat_error"),
        ("empty", 502, "wechat_error"),
        ("truncated", 502, "wechat_error"),
        ("missing_openid", 502, "wechat_error"),
        ("empty_fields", 502, "wechat_error"),
        ("huge", 502, "wechat_error"),
        ("reset", 503, "wechat_unavailable"),
        ("close", 503, "wechat_unavailable"),
        ("hang", 503, "wechat_unavailable"),
        ("drip", 503, "wechat_unavailable"),
    ],
)
def test_a_broken_response_of_wechat_has_its_error(stack, redis, wxfake, mode, status, error):
    server = stack.server(redis, wxfake, wechat__timeout="700ms")
    wxfake.fault(mode=mode)
    a = server.login(wxfake.code())
    assert (a.status, a.error) == (status, error), a
    assert a.seconds < 2
    assert ("Retry-After" in a.headers) == (status == 503)
    assert wxfake.calls() == 1
    assert server.login(wxfake.code()).status == 200  # the next one works


@pytest.mark.parametrize(
    "errcode, status, error",
    [
        (40029, 401, "invalid_code"),
        (40163, 401, "invalid_code"),
        (41008, 401, "invalid_code"),
        (40226, 403, "user_blocked"),
        (45011, 429, "rate_limited"),
        (45009, 429, "rate_limited"),
        (40013, 502, "wechat_config"),
        (40125, 502, "wechat_config"),
        (40164, 502, "wechat_config"),
        (50007, 502, "wechat_config"),
        (40066, 502, "wechat_error"),
        (12345, 502, "wechat_error"),
        (-1, 503, "wechat_unavailable"),
    ],
)
def test_each_errcode_has_its_status_and_error(server, wxfake, errcode, status, error):
    # the next 9 calls get it: more than the server makes
    wxfake.fault(mode="errcode", errcode=errcode, count=9)
    a = server.login(wxfake.code())
    assert (a.status, a.error, a.json["errcode"]) == (status, error, errcode), a
    # -1: WeChat is busy, so the call is retried twice
    assert wxfake.calls() == (3 if errcode == -1 else 1)
    assert ("Retry-After" in a.headers) == (status in (429, 503))
    assert server.metric("wxlogind_logins_total", outcome=error) == 1


def test_errcode_minus_1_is_retried(server, wxfake):
    wxfake.fault(mode="errcode", errcode=-1, count=2)
    assert server.login(wxfake.code()).status == 200
    assert wxfake.calls() == 3


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b'"code"', b"{}", b'{"code":""}', b'{"code":7}',
        b'{"code":null}', b'{"code":"' + b"a" * 257 + b'"}', b'{"code":"a\\u0000b"}',
        b'{"code":"a\x00b"}', b'{"code":"\xff"}', b'{"code":"\xc3\xa9"}',
        b'{"code":"a","code":"b"}', b'{"code":"a"}x', b'{"code":"a","appid":7}',
        b'{"code":"a","appid":""}', b'{"code":"a","nonce":7}',
        b'{"code":"a","nonce":"' + b"n" * 65 + b'"}', b'{"code":"a\\ud800"}', b"{'code':'a'}",
        b'{"code":"a\nb"}', b"[" * 5000,
    ],
)
def test_a_bad_body_is_refused_without_asking_wechat_or_redis(server, wxfake, redis, body):
    a = server.call("POST", "/v1/login", body, {"Content-Type": "application/json"})
    assert (a.status, a.error) == (400, "invalid_request"), a
    assert a.json["request_id"] == a.headers["X-Request-Id"]
    assert wxfake.calls() == 0 and redis.keys() == []


def test_form_bodies(server, wxfake):
    form = lambda **kw: server.call(
        "POST", "/v1/login", urllib.parse.urlencode(kw),
        {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"},
    )
    assert form(code=wxfake.code(), appid=APPID, nonce="a b+c").status == 200
    assert form(appid=APPID).error == "invalid_request"
    a = server.call(
        "POST", "/v1/login", "code=%zz", {"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert a.error == "invalid_request"
    code = wxfake.code()
    a = server.call(
        "POST", "/v1/login", '{"code":"%s"}' % code,
        {"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert a.status == 200  # curl -d sends JSON with this Content-Type


def test_which_app(stack, redis):
    other, other_secret = "wx0123456789abcdef", "s" * 32
    wxfake = stack.wxfake("--app", f"{APPID}:{SECRET}", "--app", f"{other}:{other_secret}")
    server = stack.server(redis, wxfake, **{f"app_{other}__secret": other_secret})
    referer = lambda appid: {"Referer": f"https://servicewechat.com/{appid}/12/page-frame.html"}
    a = server.login(wxfake.code(appid=other), appid=other)
    assert server.auth(a.token).headers["X-Wx-Appid"] == other
    a = server.login(wxfake.code(appid=other), headers=referer(other))
    assert server.auth(a.token).headers["X-Wx-Appid"] == other
    # two apps are configured, and the request names none
    assert server.login("c").error == "invalid_request"
    assert server.login("c", appid="wxnobody").error == "unknown_app"
    assert server.login("c", headers=referer("wxnobody")).error == "unknown_app"
    assert server.login(wxfake.code(appid=other), appid=APPID).error == "invalid_code"


def test_a_repeat_gets_the_same_session(server, wxfake, redis):
    code = wxfake.code()
    first = server.login(code, nonce="n1")
    again = server.login(code, nonce="n1")
    assert again.status == 200 and again.token == first.token and wxfake.calls() == 1
    assert server.metric("wxlogind_logins_total", outcome="replayed") == 1
    assert server.login(code, nonce="n2").error == "invalid_code"
    assert server.login(code).error == "invalid_code"
    assert server.session(first.token, "DELETE").status == 204
    assert server.login(code, nonce="n1").error == "invalid_code"  # the session has ended
    assert wxfake.calls() == 1


def test_a_repeat_is_refused_if_replay_window_is_0(stack, redis, wxfake):
    server = stack.server(redis, wxfake, session__replay_window="0")
    code = wxfake.code()
    assert server.login(code).status == 200
    assert server.login(code).error == "invalid_code"


def test_a_final_refusal_is_repeated_without_asking_wechat(server, wxfake):
    assert server.login("nobody-made-this").error == "invalid_code"
    a = server.login("nobody-made-this")
    assert (a.error, a.json["errcode"]) == ("invalid_code", 40029)
    assert wxfake.calls() == 1


def test_twenty_at_once_over_two_processes(stack, redis, wxfake):
    servers = [stack.server(redis, wxfake) for _ in range(2)]
    code = wxfake.code()
    wxfake.fault(mode="slow", delay_ms=300)
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda i: servers[i % 2].login(code, nonce="n"), range(20)))
    assert [a.status for a in answers] == [200] * 20
    assert len({a.token for a in answers}) == 1
    assert wxfake.calls() == 1


def test_a_code_is_used_up_if_the_response_of_wechat_is_lost(stack, redis, wxfake):
    server = stack.server(redis, wxfake, wechat__timeout="500ms")
    wxfake.fault(mode="hang")
    code = wxfake.code()
    assert server.login(code).error == "wechat_unavailable"
    a = server.login(code)  # asks WeChat again, which says that the code was used
    assert (a.status, a.error, a.json["errcode"]) == (401, "invalid_code", 40163)


def test_a_login_beyond_the_full_queue_is_refused_at_once(stack, redis, wxfake):
    """WeChat hangs, and the queue for it is full: one more login gets 503 at once, without a claim,
    and sessions are still checked."""
    import socket
    server = stack.server(
        redis, wxfake, wechat__max_connections="1", wechat__timeout="60s", limit__login_per_ip="0",
        session__replay_window="5m",
    )
    token = server.login(wxfake.code()).token
    wxfake.fault(mode="hang", count=1)
    body = b'{"code":"c%04d"}'
    request = b"POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
    with contextlib.ExitStack() as held:
        # 4096 in the queue (LOGIN_QUEUE), and one on the only connection to WeChat
        for i in range(4097):
            s = held.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20))
            s.sendall(request % (len(body % i), body % i))
        poll(
            lambda: server.metric("wxlogind_connections", listener="public") == 4097, seconds=60,
            what="all connected",
        )
        claims = lambda: len([k for k in redis.keys() if ":c:" in k])
        poll(
            lambda: claims() == 4098, seconds=60, what="the claims of these and of the first login"
        )
        redis.cli("CONFIG", "RESETSTAT")
        a = server.login("one more")
        assert (a.status, a.error, a.headers["Retry-After"]) == (503, "overloaded", "1")
        # and no script ran: cmdstat_evalsha begins with "cmdstat_eval", so this excludes both
        assert claims() == 4098 and "cmdstat_eval" not in redis.cli("INFO", "commandstats")
        assert server.auth(token).status == 200
    wxfake.process.stop()  # this ends the call that still hangs
    stack.wxfake(port=wxfake.port)
    poll(lambda: server.login(wxfake.code()).status == 200, seconds=60, what="a login again")


def test_a_claim_is_held_while_redis_is_slow(stack, redis, wxfake):
    """The first login may need up to redis.timeout to write its session. It holds the claim all
    that time. A repeat waits, and gets that session."""
    first, second = [
        stack.server(redis, wxfake, redis__timeout="8s", wechat__timeout="1s") for _ in range(2)
    ]
    code = wxfake.code()
    wxfake.fault(mode="slow", delay_ms=300)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        a = pool.submit(first.login, code)
        poll(lambda: wxfake.calls() == 1, what="the call")
        redis.signal(signal.SIGSTOP)
        poll(
            lambda: first.metric(
                "wxlogind_wechat_requests_total", api="jscode2session", outcome="ok"
            ) == 1,
            what="WeChat's answer",
        )
        # Redis stays stopped for 3 s: with the default redis.timeout the claim would have expired.
        stopped = time.monotonic()
        poll(lambda: time.monotonic() - stopped > 3, what="3 s")
        b = pool.submit(second.login, code)
        poll(
            lambda: second.metric("wxlogind_connections", listener="public") == 1, what="the repeat"
        )
        redis.signal(signal.SIGCONT)
    assert (a.result().status, b.result().status) == (200, 200), (a.result(), b.result())
    assert a.result().token == b.result().token and wxfake.calls() == 1


def test_fallback_host(stack, redis, wxfake):
    server = stack.server(
        redis, wxfake, wechat__base_url="http://127.0.0.1:1", wechat__fallback_urls=wxfake.url
    )
    assert server.login(wxfake.code()).status == 200
    nowhere = stack.server(redis, wxfake, wechat__base_url="http://127.0.0.1:1")
    a = nowhere.login("x")
    # wechat.timeout is 3 s
    assert (a.status, a.error) == (503, "wechat_unavailable") and a.seconds < 3.5


def test_over_tls(stack, redis):
    good = stack.tls()
    another = stack.tls(name="example.org")  # a CA of its own, and a certificate for another name
    wxfake = stack.wxfake(tls=good)
    server = stack.server(redis, wxfake, wechat__ca_file=good.ca)
    assert server.login(wxfake.code()).status == 200
    # again, on the connection that is open now
    assert server.login(wxfake.code()).status == 200
    wrong_ca = stack.server(redis, wxfake, wechat__ca_file=another.ca)
    a = wrong_ca.login(wxfake.code())
    assert (a.status, a.error) == (503, "wechat_unavailable")
    other = stack.wxfake(tls=another)
    wrong_name = stack.server(redis, other, wechat__ca_file=another.ca)
    assert wrong_name.login(other.code()).error == "wechat_unavailable"
    assert other.calls() == 0
    assert "issuer certificate" in wrong_ca.process.text()
    assert "the certificate is for another name" in wrong_name.process.text()


@pytest.mark.parametrize("version_is_known", [True, False])
def test_a_login_runs_one_script_if_the_version_of_redis_is_known(stack, wxfake, version_is_known):
    """The script creates the session. With Redis 7.0 or newer (as in this test) the claim is a
    plain command. If the version is older, or not known because INFO is not allowed, the claim is a
    second script."""
    redis = stack.redis()
    redis.cli(
        "ACL", "SETUSER", "one", "on", ">p", "~*", "&*", "+@all",
        *([] if version_is_known else ["-info"]),
    )
    server = stack.server(redis, wxfake, redis__url=f"redis://one:p@127.0.0.1:{redis.port}/0")
    server.login(wxfake.code())
    redis.cli("CONFIG", "RESETSTAT")
    code = wxfake.code()
    answers = [server.login(code, nonce="n") for _ in range(3)]
    assert {a.status for a in answers} == {200} and len({a.token for a in answers}) == 1
    assert server.login(code, nonce="another").error == "invalid_code"
    calls = dict(
        re.findall(r"cmdstat_(eval|evalsha):calls=(\d+)", redis.cli("INFO", "commandstats"))
    )
    # One script creates the session. If the version is not known, the claim of each of the four
    # logins is a script too.
    assert sum(map(int, calls.values())) == (1 if version_is_known else 5)
