"""Which requests get a line, and what stands in it."""
import signal

import pytest

from conftest import poll


def requests(server, *having):
    return [
        line
        for line in server.process.text().splitlines()
        if "msg=request" in line and all(h in line for h in having)
    ]


def test_the_client_is_who_the_proxy_names(stack, redis, wxfake):
    server = stack.server(redis, wxfake, server__trusted_proxies="127.0.0.0/8")
    for call in (server.call, server.inside):
        call("GET", "/nowhere", headers={"X-Forwarded-For": "203.0.113.7, 127.0.0.1"})
    poll(lambda: len(requests(server, "path=/nowhere", "client=203.0.113.7")) == 2, what="lines")


def test_the_client_is_the_peer_where_nobody_is_trusted(server):
    server.call("GET", "/nowhere", headers={"X-Forwarded-For": "203.0.113.7"})
    poll(lambda: requests(server, "path=/nowhere", "client=127.0.0.1"), what="a line")
    assert "203.0.113.7" not in server.process.text()


def test_health_checks_are_silent_until_they_fail(server, redis):
    for _ in range(3):
        for call in (server.inside, server.call):  # the public side has them too
            assert call("GET", "/healthz").status == call("GET", "/readyz").status == 200
    redis.kill()
    poll(lambda: server.inside("GET", "/readyz").status == 503, what="not ready")
    poll(lambda: requests(server, "route=/readyz"), what="a line")
    assert not requests(server, "route=/healthz")
    assert not requests(server, "route=/readyz", "status=200")  # those before it was ready fail


def test_an_error_of_ours_is_a_warning(server, redis, wxfake):
    redis.kill()
    poll(lambda: server.login(wxfake.code()).status == 503, what="503")
    assert server.session("malformed").status == 401
    poll(lambda: requests(server, "status=401"), what="lines")
    assert "level=warn" in requests(server, "route=/v1/login", "status=503")[0]
    assert "level=info" in requests(server, "status=401")[0]


@pytest.mark.parametrize(
    "which, expected", [("all", [200, 401, 503]), ("errors", [401, 503]), ("none", [])]
)
def test_which_requests_get_a_line(stack, redis, wxfake, which, expected):
    server = stack.server(redis, wxfake, log__requests="none" if which == "all" else "all")
    server.file.write_text(
        server.file.read_text().replace("\nrequests = ", f"\nrequests = {which}\n; was ")
    )
    server.process.signal(signal.SIGHUP)
    poll(lambda: "msg=reloaded" in server.process.text(), what="reloaded")
    assert server.login(wxfake.code()).status == 200
    assert server.session("malformed").status == 401
    redis.kill()
    poll(lambda: server.login(wxfake.code()).status == 503, what="503")
    server.process.stop()
    assert (
        sorted(
            {int(line.partition("status=")[2][:3]) for line in requests(server, "listener=public")}
        ) == expected
    )
