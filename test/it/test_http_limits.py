"""HTTP callers that cost time, memory or connections: each is bounded, and the others go on."""
import contextlib
import os
import pathlib
import resource
import signal
import socket
import time

import pytest

from conftest import SANITIZED, poll
from test_http import CLOSE, GET, statuses


def rss_kb(pid):
    return int(
        next(line for line in open(f"/proc/{pid}/status") if line.startswith("VmRSS")).split()[1]
    )


@pytest.mark.skipif(SANITIZED, reason="a sanitizer keeps freed memory")
def test_pipelining_ahead_is_bounded(server):
    """Who sends requests faster than they are answered, and reads no answer, is not given memory
    for all of them."""
    # each asks Redis
    requests, before, given = (
        (GET + b"Authorization: Bearer " + b"A" * 43 + b"\r\n\r\n") * 500,
        rss_kb(server.process.pid), 0,
    )
    with contextlib.ExitStack() as stack:
        callers = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            for _ in range(8)
        ]
        for c in callers:
            c.setblocking(False)
        began = last = time.monotonic()
        while time.monotonic() < min(last + 0.5, began + 5):  # until nothing more is taken
            for c in callers:
                with contextlib.suppress(BlockingIOError):
                    given += c.send(requests)
                    last = time.monotonic()
        assert rss_kb(server.process.pid) - before < 8 * 1024, f"of {given >> 10} KB"
    assert server.session("x").status == 401


@pytest.mark.skipif(SANITIZED, reason="a sanitizer keeps freed memory")
def test_a_wave_leaves_no_memory_behind(server):
    head = (
        b"POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 65536\r\n\r\n"
    )
    before = rss_kb(server.process.pid)
    with contextlib.ExitStack() as held:
        for n in range(1500):
            s = held.enter_context(begun(server.port, head + b" " * 65535))  # all but the last byte
            if n % 10 == 0:
                late = held.enter_context(
                    socket.create_connection(("127.0.0.1", server.port), timeout=10)
                )
                late.sendall(GET + b"\r\n")  # small things that live on among the large ones
                assert statuses(late.recv(4096)) == [401]
        poll(lambda: rss_kb(server.process.pid) - before > 64 * 1024, what="a wave")
    poll(
        lambda: rss_kb(server.process.pid) - before < 20 * 1024, seconds=60,
        what="memory given back",
    )


@pytest.mark.skipif(SANITIZED, reason="a sanitizer keeps freed memory")
def test_what_a_form_costs(stack, redis, wxfake):
    """Memory goes with what was sent, not with how many pairs it makes."""
    server, forms = stack.server(redis, wxfake, redis__timeout="10s", wechat__timeout="30s"), []
    head = (
        b"POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        b"Content-Length: 65536\r\n\r\n"
    )
    assert statuses(server.raw(head + b"&" * 65536 + GET + CLOSE + b"\r\n")) == [400, 401]
    # 33 pairs
    assert statuses(
        server.raw(head + b"code=x" + b"&" * 32 + b"a" * 65498 + GET + CLOSE + b"\r\n")
    ) == [400, 401]
    wxfake.fault(mode="slow", delay_ms=3000, count=200)
    calls, before = wxfake.calls(), rss_kb(server.process.pid)
    with contextlib.ExitStack() as held:
        for n in range(60):
            body = b"code=%032d" % n + b"&" * 31
            forms.append(
                held.enter_context(begun(server.port, head + body + b"a" * (65536 - len(body))))
            )
            # and as many whose last byte is missing
            held.enter_context(begun(server.port, head + b"&" * 65535))
        poll(lambda: wxfake.calls() == calls + 60, seconds=30, what="sixty logins in flight")
        assert rss_kb(server.process.pid) - before < 24 * 1024
        for s in forms:
            assert statuses(s.recv(4096))[0] in (200, 401, 503)


def test_a_dripping_client_is_cut(stack, redis, wxfake):
    server = stack.server(redis, wxfake, server__client_timeout="1s")
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as s:
        out, request = b"", b"GET /v1/session HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 1000
        with contextlib.suppress(ConnectionError):
            for i in range(len(request)):
                s.sendall(request[i:i + 1])
                s.settimeout(0.05)
                with contextlib.suppress(TimeoutError):
                    out = s.recv(4096)
                    break
        assert statuses(out) == [408]
    assert time.monotonic() - began < 3
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as s:
        assert s.recv(100) == b""  # idle: closed without a word


def begun(port, request=b"GET /v1"):
    """A connection on which a request has begun: it is not idle."""
    s = socket.create_connection(("127.0.0.1", port), timeout=10)
    s.sendall(request)
    return s


def test_one_connection_too_many(stack, redis, wxfake):
    server = stack.server(redis, wxfake, server__max_connections="5")
    with contextlib.ExitStack() as held:
        for _ in range(5):
            held.enter_context(begun(server.port))
        poll(
            lambda: server.metric("wxlogind_connections", listener="public") == 5,
            what="five connections",
        )
        assert server.ready()  # the loop has turned: what they sent is read
        out = server.raw(GET + b"\r\n")
        assert (
            statuses(out) == [503]
            and b"overloaded" in out
            and b"Retry-After" in out
            and b"Connection: close" in out
        )
        assert server.ready()  # the internal side has places of its own
    poll(lambda: server.call("GET", "/v1/session").status == 401, what="free places")


def test_who_is_idle_for_longest_makes_room(stack, redis, wxfake):
    server = stack.server(redis, wxfake, server__max_connections="5", server__client_timeout="1h")
    with contextlib.ExitStack() as held:
        busy, idle = held.enter_context(begun(server.port)), []
        for n in range(4):
            idle.append(
                held.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10))
            )
            poll(
                lambda: server.metric("wxlogind_connections", listener="public") == 2 + n,
                what="accepted",
            )
        idle[0].sendall(GET + b"\r\n")  # now it is the second that has been idle for longest
        assert statuses(idle[0].recv(4096)) == [401]
        assert server.call("GET", "/v1/session").status == 401
        assert idle[1].recv(100) == b""
        busy.sendall(b"/session HTTP/1.1\r\nHost: x\r\n\r\n")
        for s in (busy, idle[0], idle[2], idle[3]):
            s.sendall(b"" if s is busy else GET + b"\r\n")
            assert statuses(s.recv(4096)) == [401]


def test_empty_lines_keep_nobody_connected(stack, redis, wxfake):
    server = stack.server(redis, wxfake, server__client_timeout="1s")
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.port), timeout=0.2) as s:
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < began + 8:
                s.sendall(b"\r\n")
                with contextlib.suppress(TimeoutError):
                    assert s.recv(100) == b""
                    break
    assert 0.5 < time.monotonic() - began < 4


def test_a_reload_shortens_the_time_of_those_who_wait(stack, redis, wxfake):
    server = stack.server(redis, wxfake, server__client_timeout="1h")
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as idle, begun(
        server.port
    ) as late:
        poll(lambda: server.metric("wxlogind_connections", listener="public") == 2, what="accepted")
        server.file.write_text(server.file.read_text().replace("1h", "1s"))
        server.process.signal(signal.SIGHUP)
        assert idle.recv(100) == b"" and statuses(late.recv(4096)) == [408]


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_descriptors_used_up(stack, redis, wxfake):
    limit = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (90, 90))
    server = stack.server(redis, wxfake, preexec=limit, wechat__max_connections="4")
    with contextlib.ExitStack() as held:
        for _ in range(150):
            held.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=5))
        before = cpu_seconds(server.process.pid)
        began = time.monotonic()
        poll(lambda: time.monotonic() - began > 1, 3)
        assert cpu_seconds(server.process.pid) - before < 0.3
    poll(lambda: server.call("GET", "/v1/session").status == 401, what="accepting again")
    assert server.login(wxfake.code()).status == 200


def test_a_reader_that_does_not_read(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as s:
        s.setblocking(False)
        sent, request = 0, (GET + b"\r\n") * 200
        end = time.monotonic() + 2
        with contextlib.suppress(BlockingIOError):
            while time.monotonic() < end:
                sent += s.send(request)
        rss = int(pathlib.Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * 4096
        assert rss < 600e6
        assert server.call("GET", "/v1/session").status == 401
