"""Limits at the edge: logins per address and per app, and who counts as the client."""
import time

import pytest

from conftest import APPID, SANITIZED, poll


@pytest.fixture
def wxfake(stack):
    """Any code is good: one that is refused costs more than one login."""
    return stack.wxfake("--any-code")


def login_from(server, wxfake, forwarded, code="x"):
    return server.login(code, headers={"X-Forwarded-For": forwarded})


def limited(stack, redis, wxfake, rate="3/1h", **kw):
    return stack.server(
        redis, wxfake, limit__login_per_ip=rate,
        server__trusted_proxies="127.0.0.0/8, 10.0.0.0/8, 2001:db8:ffff::/48", **kw,
    )


def test_an_address_has_its_share(stack, redis, wxfake):
    server = limited(stack, redis, wxfake)
    for _ in range(3):
        assert login_from(server, wxfake, "203.0.113.1").status == 200
    a = login_from(server, wxfake, "203.0.113.1")
    assert (a.status, a.error) == (429, "rate_limited") and 1150 <= int(
        a.headers["Retry-After"]
    ) <= 1200
    assert login_from(server, wxfake, "203.0.113.2").status == 200
    assert server.metric("wxlogind_logins_total", outcome="rate_limited") == 1
    calls = wxfake.calls()
    login_from(server, wxfake, "203.0.113.1", "another")
    assert wxfake.calls() == calls


def test_retry_after_is_honest(stack, redis, wxfake):
    server = limited(stack, redis, wxfake, rate="2/4s")
    for _ in range(2):
        login_from(server, wxfake, "203.0.113.1")
    a = login_from(server, wxfake, "203.0.113.1")
    assert a.status == 429 and a.headers["Retry-After"] == "2"
    began = time.monotonic()
    poll(lambda: time.monotonic() - began > 2.01, what="as long as it said")
    assert login_from(server, wxfake, "203.0.113.1").status == 200


# what the client wrote itself is not believed
@pytest.mark.parametrize("first, second, same", [
    ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),              # one /64
    ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
    ("6.6.6.6, 203.0.113.1", "7.7.7.7, 203.0.113.1", True),
    ("203.0.113.1, 10.9.9.9", "203.0.113.1", True),                 # a trusted hop between
    ("203.0.113.1, 10.9.9.9, 10.1.1.1", "203.0.113.2, 10.9.9.9, 10.1.1.1", False),
    ("203.0.113.1:4711", "203.0.113.1", True),
    ("[2001:db8:1:2::1]:443", "2001:db8:1:2::2", True),
    ("::ffff:203.0.113.1", "203.0.113.1", True),
    ("garbage", "rubbish", True),                                   # then it is the proxy itself
    ("203.0.113.1, garbage", "203.0.113.2, garbage", True),
    ("203.0.113.1, unknown, 10.1.1.1", "203.0.113.2, unknown, 10.1.1.1", True),
])
def test_who_is_the_client(stack, redis, wxfake, first, second, same):
    server = limited(stack, redis, wxfake, rate="1/1h")
    assert login_from(server, wxfake, first).status == 200
    assert login_from(server, wxfake, second).status == (429 if same else 200)


def test_several_headers_are_one_list(stack, redis, wxfake):
    server = limited(stack, redis, wxfake, rate="1/1h")
    body = b'{"code":"x"}'

    def raw(*forwarded):
        head = "".join(f"X-Forwarded-For: {f}\r\n" for f in forwarded)
        return server.raw(
            f"POST /v1/login HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n".encode()
            + body
        )
    assert b" 200 " in raw("6.6.6.6", "203.0.113.1, 10.1.1.1")
    assert b" 429 " in raw("7.7.7.7", "203.0.113.1")
    assert b" 200 " in raw("203.0.113.1", "203.0.113.2")


def test_loopback_that_is_no_proxy_is_not_limited(stack, redis, wxfake):
    server = stack.server(redis, wxfake, limit__login_per_ip="1/1h")
    for _ in range(5):
        assert login_from(server, wxfake, "203.0.113.1").status == 200
    assert server.process.text().count("not limited by address") == 1


def test_an_app_has_its_share(stack, redis, wxfake):
    server = stack.server(
        redis, wxfake, limit__login_per_app="2/1h",
        **{"app_wxaaaaaaaaaaaaaaaa__secret": "another secret"},
    )
    assert [server.login("x", appid=APPID).status for _ in range(3)] == [200, 200, 429]
    assert server.login("x", appid="wxaaaaaaaaaaaaaaaa").status == 502


def test_the_session_names_the_client(stack, redis, wxfake):
    server = limited(stack, redis, wxfake)
    login_from(server, wxfake, "203.0.113.77, 10.1.1.1", wxfake.code(openid="oTestClientAddress"))
    rows = server.inside("GET", f"/internal/apps/{APPID}/users/oTestClientAddress/sessions").json[
        "sessions"
    ]
    assert rows[0]["ip"] == "203.0.113.77"


@pytest.mark.parametrize("looser", ["0", "1000/1s", "1000/30d"])
def test_a_reload_changes_limits(stack, redis, wxfake, looser):
    import signal
    server = limited(stack, redis, wxfake, rate="1/1d")
    login_from(server, wxfake, "203.0.113.1")
    assert login_from(server, wxfake, "203.0.113.1").status == 429
    server.file.write_text(server.file.read_text().replace("1/1d", looser))
    server.process.signal(signal.SIGHUP)
    poll(lambda: login_from(server, wxfake, "203.0.113.1").status == 200, what="no limit")
    assert "needs a restart" not in server.process.text()


def test_ten_thousand_addresses(stack, redis, wxfake):
    """Memory does not grow with them, and who keeps to the limit is served."""
    import http.client
    import json
    server = limited(stack, redis, wxfake, rate="5/1h")
    conn = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)

    def login(address):
        conn.request(
            "POST", "/v1/login", json.dumps({"code": "no such code"}),
            {"Content-Type": "application/json", "X-Forwarded-For": address},
        )
        r = conn.getresponse()
        r.read()
        return r.status

    def rss():
        return int(
            next(
                line
                for line in open(f"/proc/{server.process.pid}/status")
                if line.startswith("VmRSS")
            ).split()[1]
        )
    for i in range(1000):
        login(f"198.18.{i >> 8}.{i & 255}")
    before, seen = rss(), set()
    for i in range(10000):
        seen.add(login(f"198.19.{i >> 8}.{i & 255}"))
    assert seen == {200}
    assert login("203.0.113.9") == 200
    assert SANITIZED or rss() - before < 4096  # kB; a sanitizer keeps what was freed


def junk_from(server, address, n=1):
    return [login_from(server, None, address, f"junk{address}-{i}").status for i in range(n)]


def test_a_code_that_is_refused_costs_ten(stack, redis):
    wxfake = stack.wxfake()
    server = limited(stack, redis, wxfake, rate="30/1h")
    assert junk_from(server, "203.0.113.1", 4) == [401, 401, 401, 429]
    assert [login_from(server, wxfake, "203.0.113.2", wxfake.code()).status for _ in range(30)] == [
        200
    ] * 30
    assert login_from(server, wxfake, "203.0.113.2", wxfake.code()).status == 429


def test_a_48_has_its_share(stack, redis):
    """Of codes that are refused, from as many /64 as there are in it. Its neighbours are not held
    back."""
    wxfake = stack.wxfake()
    server = limited(stack, redis, wxfake, limit__login_per_48="50/1h")
    seen = [junk_from(server, f"2001:db8:7:{i:x}::1")[0] for i in range(8)]
    assert seen == [401] * 5 + [429] * 3
    assert login_from(server, wxfake, "2001:db8:7:ffff::1", wxfake.code()).status == 429
    assert login_from(server, wxfake, "2001:db8:8:1::1", wxfake.code()).status == 200
    assert login_from(server, wxfake, "203.0.113.2", wxfake.code()).status == 200


@pytest.mark.parametrize(
    "key, method, path, body",
    [
        ("phone_per_user", "POST", "/v1/user/phone", {"code": "x"}),
        ("check_per_user", "GET", "/v1/session?check=wechat", None),
        ("open_data_per_user", "POST", "/v1/open-data", {"rawData": "{}", "signature": "x"}),
    ],
)
def test_a_user_has_a_share(stack, redis, wxfake, key, method, path, body):
    """However many sessions it has, and whichever worker is asked."""
    server = stack.server(redis, wxfake, server__workers="2", **{f"limit__{key}": "3/1h"})
    mine = [server.login(f"a~{i}").token for i in range(2)]
    other = server.login("b").token

    def ask(token):
        return server.call(method, path, body, {"Authorization": f"Bearer {token}"})
    answers = [ask(mine[i % 2]) for i in range(6)]
    assert [a.status == 429 for a in answers] == [False] * 3 + [True] * 3
    assert (
        answers[-1].error == "rate_limited"
        and 1100 <= int(answers[-1].headers["Retry-After"]) <= 1200
    )
    assert ask(other).status != 429
    assert server.session(mine[0]).status == 200  # what is not limited


def test_junk_phone_codes_of_one_user_harm_nobody(stack, redis):
    """Many connections of one session: few of its calls reach WeChat, the access_token and other
    users' numbers come."""
    from concurrent.futures import ThreadPoolExecutor
    wxfake = stack.wxfake()
    server = stack.server(redis, wxfake)
    mine, other = (
        server.login(wxfake.code(openid="oTestJunk")).token,
        server.login(wxfake.code(openid="oTestHonest")).token,
    )
    phone = lambda token, code: server.call(
        "POST", "/v1/user/phone", {"code": code}, {"Authorization": f"Bearer {token}"}
    )
    with ThreadPoolExecutor(100) as pool:
        junk = [pool.submit(phone, mine, f"junk{i}") for i in range(1000)]
        assert server.inside("GET", f"/internal/apps/{APPID}/access-token").status == 200
        assert phone(other, wxfake.code(kind="phone", openid="oTestHonest")).status == 200
        seen = [f.result().status for f in junk]
    assert set(seen) == {401, 429} and seen.count(401) <= 12
    assert wxfake.calls("getuserphonenumber") <= 13
