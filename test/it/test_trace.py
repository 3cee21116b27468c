"""traceparent (W3C Trace Context): returned, in the log as trace_id, and never told to WeChat."""
import json

import pytest

from conftest import poll
from test_proxies import TRACEPARENT, Recorder

TRACE_ID = TRACEPARENT.split("-")[1]


@pytest.mark.parametrize("log_format", ["logfmt", "json"])
def test_returned_and_logged(stack, redis, wxfake, log_format):
    server = stack.server(redis, wxfake, log__format=log_format)
    token = server.login(wxfake.code()).token
    for a in (
        server.call(
            "GET", "/v1/session", headers={"traceparent": TRACEPARENT, "X-Third-Session": token}
        ),
        server.auth(token, headers={"Traceparent": TRACEPARENT}),
        server.call("GET", "/nothing", headers={"traceparent": TRACEPARENT}),
    ):
        assert a.headers.get_all("traceparent") == [TRACEPARENT]
    mark = f'"trace_id":"{TRACE_ID}"' if log_format == "json" else f"trace_id={TRACE_ID}"
    poll(lambda: server.process.text().count(mark) == 3, what="three lines")
    if log_format == "json":
        assert all(json.loads(line) for line in server.process.text().splitlines())


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "x",
        TRACEPARENT.upper(),
        TRACEPARENT[:-1],
        TRACEPARENT + "x",
        "00-" + "0" * 32 + TRACEPARENT[35:],
        "ff" + TRACEPARENT[2:],
        f"{TRACEPARENT}, {TRACEPARENT}",
    ],
)
def test_what_is_malformed_is_ignored(server, bad):
    a = server.call("GET", "/v1/session", headers={"traceparent": bad})
    assert a.status == 401 and "traceparent" not in a.headers
    assert b"traceparent" not in server.raw(
        "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"{f'traceparent: {TRACEPARENT}' * 1}\r\n"
        f"traceparent: {TRACEPARENT}\r\n\r\n".encode()
    )
    server.auth("x")
    poll(lambda: "route=/internal/auth" in server.process.text(), what="a line")
    assert "trace_id" not in server.process.text()


def test_wechat_is_not_told(stack, redis):
    wechat = Recorder(
        json.dumps({"openid": "oTraced", "session_key": "0123456789abcdef01234w=="}).encode()
    )
    wechat.headers = {"Content-Type": "text/plain"}
    wechat.url = f"http://127.0.0.1:{wechat.port}"
    try:
        server = stack.server(redis, wechat)
        a = server.login("a code", headers={"traceparent": TRACEPARENT})
        assert a.status == 200 and a.headers["traceparent"] == TRACEPARENT, a
        assert wechat.asked and not [
            r for r in wechat.asked if "traceparent" in r.headers or TRACE_ID in str(r)
        ]
    finally:
        wechat.stop()
