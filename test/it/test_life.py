"""Clients that vanish, and a server that is told to end."""
import contextlib
import os
import random
import selectors
import signal
import socket
import struct
import threading
import time

from conftest import APPID, BUILD, SANITIZED, SECRET, Process, poll, call
from test_http import GET, login_bytes, statuses


def test_clients_that_vanish(stack, redis, wxfake):
    """At any moment of a login, with a slow WeChat and a Redis that stops now and then."""
    server = stack.server(redis, wxfake, server__max_connections="20000")
    rounds = 5000 if SANITIZED else 1500
    wxfake.fault(mode="slow", delay_ms=50, count=rounds)
    codes = [wxfake.code() for _ in range(300)]
    stop = threading.Event()

    def freeze():
        while not stop.is_set():
            redis.signal(signal.SIGSTOP)
            stop.wait(0.05)
            redis.signal(signal.SIGCONT)
            stop.wait(0.1)

    freezer = threading.Thread(target=freeze)
    freezer.start()
    rng = random.Random(1)
    held = []
    try:
        for i in range(rounds):
            request = (
                login_bytes(rng.choice(codes))
                if rng.random() < 0.7
                else GET + b"Authorization: Bearer " + b"A" * 43 + b"\r\n\r\n"
            )
            if rng.random() < 0.3:
                request = request[:rng.randrange(len(request))]
            elif rng.random() < 0.2:
                request *= 3
            s = socket.create_connection(("127.0.0.1", server.port), timeout=10)
            s.sendall(request)
            how = rng.random()
            if how < 0.4:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                s.close()
            elif how < 0.6:
                s.close()
            else:
                if how < 0.8:
                    s.shutdown(socket.SHUT_WR)
                held.append(s)
            while len(held) > 50:
                held.pop(rng.randrange(len(held))).close()
    finally:
        stop.set()
        freezer.join()
        redis.signal(signal.SIGCONT)
        for s in held:
            s.close()
    wxfake.clear()
    poll(server.ready, what="ready")
    poll(
        lambda: server.metric("wxlogind_connections", listener="public") == 0,
        what="no connection left",
    )
    assert server.login(wxfake.code()).status == 200


def test_sigterm_finishes_what_is_in_flight(stack, redis, wxfake):
    server = stack.server(redis, wxfake)
    wxfake.fault(mode="slow", delay_ms=600)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as busy, \
            socket.create_connection(("127.0.0.1", server.port), timeout=10) as idle:
        busy.sendall(login_bytes(wxfake.code()))
        poll(lambda: wxfake.calls() == 1, what="the call")
        server.process.signal(signal.SIGTERM)
        assert idle.recv(10) == b""
        out = b"".join(iter(lambda: busy.recv(4096), b""))
        assert statuses(out) == [200] and b"Connection: close" in out
    assert server.process.proc.wait(10) == 0


def test_drain_has_an_end(stack, redis, wxfake):
    server = stack.server(redis, wxfake, server__drain_timeout="300ms", wechat__timeout="20s")
    wxfake.fault(mode="hang")
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as busy:
        busy.sendall(login_bytes(wxfake.code()))
        poll(lambda: wxfake.calls() == 1, what="the call")
        began = time.monotonic()
        server.process.signal(signal.SIGTERM)
        assert server.process.proc.wait(10) == 0 and time.monotonic() - began < 5


def test_the_end_while_a_token_is_being_kept(stack, redis, wxfake):
    """Whoever waits for an access_token when the server ends makes no call to WeChat with it any
    more."""
    server = stack.server(redis, wxfake, redis__timeout="20s")
    session = server.login(wxfake.code()).token
    wxfake.fault(api="stable_token", mode="slow", delay_ms=300)
    body = b'{"code":"%s"}' % wxfake.code(kind="phone").encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as gone:
        gone.sendall(
            b"POST /v1/user/phone HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
            b"Content-Length: %d\r\n\r\n%s"
            % (session.encode(), len(body), body)
        )
        poll(lambda: wxfake.calls("stable_token") == 1, what="the call for the token")
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        redis.signal(signal.SIGSTOP)
    poll(
        lambda: server.metric("wxlogind_wechat_requests_total", api="stable_token", outcome="ok")
        == 1,
        what="the token",
    )
    server.process.stop()


def test_an_end_while_many_hang_up(stack, redis, wxfake):
    """All in one turn of the loop. What libevent puts off of theirs is not left behind: a sanitizer
    would say so."""
    server = stack.server(redis, wxfake)
    wxfake.fault(mode="hang", count=200)
    with contextlib.ExitStack() as held:
        for i in range(400):
            s = held.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10))
            s.sendall(login_bytes(f"c{i}") if i % 2 else GET[:i % 20 + 1])
        poll(lambda: len([k for k in redis.keys() if ":c:" in k]) == 200, what="all claimed")
        server.process.signal(signal.SIGSTOP)
    server.process.signal(signal.SIGTERM)
    server.process.signal(signal.SIGCONT)
    server.process.stop()


def test_the_end_while_a_login_waits_for_another(stack, redis, wxfake):
    """Its claim is held by another process. A sanitizer says what is left behind."""
    first = stack.server(redis, wxfake, wechat__timeout="20s", server__drain_timeout="100ms")
    server = stack.server(redis, wxfake, wechat__timeout="20s", server__drain_timeout="100ms")
    wxfake.fault(mode="hang")
    request = login_bytes(wxfake.code())
    with socket.create_connection(("127.0.0.1", first.port), timeout=10) as asks, \
            socket.create_connection(("127.0.0.1", server.port), timeout=10) as waits:
        asks.sendall(request)
        poll(lambda: wxfake.calls() == 1, what="the call")
        before = server.metric("wxlogind_redis_commands_total")
        waits.sendall(request)
        poll(lambda: server.metric("wxlogind_redis_commands_total") > before + 3, what="looks")
        server.process.stop()


def test_a_second_signal_ends_at_once(stack, redis, wxfake):
    """A second after the first, that is: some senders signal twice."""
    server = stack.server(redis, wxfake, wechat__timeout="20s")
    wxfake.fault(mode="hang")
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as busy:
        busy.sendall(login_bytes(wxfake.code()))
        poll(lambda: wxfake.calls() == 1, what="the call")
        server.process.signal(signal.SIGTERM)

        def told_again():
            server.process.signal(signal.SIGINT)
            return server.process.proc.poll() is not None
        poll(told_again, what="the end")
    assert "ending at once" in server.process.text() and server.process.proc.returncode == 0


def test_reload(stack, redis, wxfake):
    server = stack.server(redis, wxfake)
    text = server.file.read_text()
    server.file.write_text(text + "[app wxaaaaaaaaaaaaaaaa]\nsecret = another secret\n")
    server.process.signal(signal.SIGHUP)
    poll(lambda: "msg=reloaded" in server.process.text(), what="reloaded")
    # known here, unknown to WeChat
    assert server.login("x", appid="wxaaaaaaaaaaaaaaaa").error == "wechat_config"
    server.file.write_text("[nonsense]\n")
    server.process.signal(signal.SIGHUP)
    poll(lambda: "reload failed" in server.process.text(), what="failed")
    assert server.login(wxfake.code(), appid=APPID).status == 200
    server.file.write_text(text.replace("[session]", "[session]\nttl = 1d"))
    server.process.signal(signal.SIGHUP)
    poll(lambda: "key=session.ttl" in server.process.text(), what="named")


def test_a_reload_does_not_open_the_internal_side(stack, redis, wxfake):
    """An address waits for a restart, and the token does not: without it, the address in force
    would be open to everybody."""
    server = stack.server(redis, wxfake, server__internal_token="the-internal-token")
    text = server.file.read_text()
    open_text = text.replace(
        f"internal_listen = 127.0.0.1:{server.internal}",
        f"internal_listen = 0.0.0.0:{server.internal}",
    )
    server.process.stop()

    server.file.write_text(open_text)
    server.process = Process([BUILD / "wxlogind", "-c", server.file], server.process.log)
    poll(server.is_up, what="wxlogind")
    server.file.write_text(text.replace("internal_token = the-internal-token", "internal_token ="))
    for times in (1, 2):
        server.process.signal(signal.SIGHUP)
        poll(lambda: server.process.text().count("reload failed") == times, what="refused")
        assert server.inside("GET", "/metrics").error == "unauthorized"
    # the address alone may wait; it is named each time, for as long as it does
    server.file.write_text(text)
    for times in (1, 2):
        server.process.signal(signal.SIGHUP)
        poll(lambda: server.process.text().count("msg=reloaded") == times, what="reloaded")
        assert server.process.text().count("key=server.internal_listen") == times
    server.file.write_text(open_text)
    server.process.signal(signal.SIGHUP)
    poll(lambda: server.process.text().count("msg=reloaded") == 3, what="reloaded")
    assert server.process.text().count("key=server.internal_listen") == 2  # as it was


def test_a_thousand_slow_clients(stack, redis, wxfake):
    """A byte a second does not keep a connection: all are cut at client_timeout, and the others
    notice nothing."""
    server = stack.server(redis, wxfake, server__client_timeout="3s")
    token = server.login(wxfake.code()).token
    request = login_bytes("x" * 50)
    with selectors.DefaultSelector() as readable:
        slow = [
            socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(1000)
        ]
        for s in slow:
            readable.register(s, selectors.EVENT_READ)
        began, sent, answers = time.monotonic(), 0, []
        while readable.get_map():
            passed = time.monotonic() - began
            assert passed < 8, f"{len(readable.get_map())} still open"
            if passed > sent:
                for key in list(readable.get_map().values()):
                    with contextlib.suppress(OSError):
                        key.fileobj.send(request[sent:sent + 1])
                sent += 1
            for key, _ in readable.select(0.01):
                with contextlib.suppress(OSError):
                    answers.append(key.fileobj.recv(4096))
                readable.unregister(key.fileobj)
                key.fileobj.close()
            assert server.auth(token).status == 200
    assert passed > 2.5 and len([a for a in answers if b" 408 " in a]) >= 990


def test_a_full_public_side_leaves_the_internal_one(stack, redis, wxfake):
    server = stack.server(redis, wxfake, server__max_connections="8")
    token = server.login(wxfake.code()).token
    poll(lambda: server.metric("wxlogind_connections", listener="public") == 0, what="empty")
    held = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(8)]
    for s in held:
        s.sendall(b"GET /v1/session")  # begun: who is idle would make room
    poll(lambda: server.metric("wxlogind_connections", listener="public") == 8, what="accepted")
    assert server.ready()  # the loop has turned: what they sent is read
    poll(lambda: server.session(token).status == 503, what="full")
    a = server.session(token)
    assert (a.status, a.error, a.headers["Retry-After"]) == (503, "overloaded", "1")
    assert server.auth(token).status == 200
    for s in held:
        s.close()
    poll(lambda: server.session(token).status == 200, what="room again")


def test_a_terminal_that_nobody_reads(stack, redis, wxfake):
    """It takes a part of a line, and then no more (Ctrl-S, `docker run -t`)."""
    master, slave = os.openpty()
    server = stack.server(redis, wxfake, preexec=lambda: os.dup2(slave, 2))
    token = server.login(wxfake.code()).token
    for _ in range(400):
        assert server.auth(token).status == 200
    server.process.stop()
    os.close(master)
    os.close(slave)


def test_a_reader_of_the_log_that_is_gone(stack, redis, wxfake):
    reader, writer = os.pipe()
    server = stack.server(redis, wxfake, preexec=lambda: os.dup2(writer, 2))
    os.close(writer)
    os.close(reader)
    token = server.login(wxfake.code()).token
    assert server.auth(token).status == 200
    server.process.stop()
