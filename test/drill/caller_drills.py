"""Callers that drip, leave, and never read."""
import contextlib
import json
import random
import resource
import selectors
import socket
import struct
import time

from drill import conftest, drill, now, poll, rss_mb

TOKEN = b"A" * 43
GET = b"GET /v1/session HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + TOKEN + b"\r\n\r\n"


def connect(port, receive=None):
    s = socket.socket()
    if receive:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    s.settimeout(10)
    s.connect(("127.0.0.1", port))
    return s


@drill("slowloris", "2,000 connections, a byte each second, client_timeout 4 s")
def slowloris(d):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    r, w = d.redis(), d.wxfake()
    s = d.server(r, w, server__client_timeout="4s")
    load = d.load(s)
    before, opened, closed, sent = rss_mb(s.process.pid), {}, {}, dict()
    began = now()
    while len(opened) < 2000:
        c = connect(s.port)
        c.setblocking(False)
        opened[c] = now()
    grown = rss_mb(s.process.pid) - before
    watch = selectors.DefaultSelector()
    for c in opened:
        watch.register(c, selectors.EVENT_READ)
        sent[c] = 0
    next_byte = now()
    while len(closed) < len(opened) and now() < began + 25:
        if now() >= next_byte:
            next_byte += 1
            for c in opened:
                if c not in closed:
                    with contextlib.suppress(OSError):
                        c.send(GET[sent[c]:sent[c] + 1])
                        sent[c] += 1
        for key, _ in watch.select(0.05):
            c = key.fileobj
            try:
                over = not c.recv(4096)  # the 408 comes first
            except OSError:
                over = True
            if over:
                closed[c] = now()
                watch.unregister(c)
                c.close()
    for c in opened:
        c.close()
    took = max((closed[c] - opened[c] for c in closed), default=0)
    d.figure(
        f"{len(closed)} of 2000 closed, the last after {took:.1f} s, {grown * 1024 / 2000:.1f} KiB "
        "each"
    )
    d.must(len(closed) == 2000, f"{2000 - len(closed)} of them are still open")
    # its time, a second to look, two for the 408 to be read
    d.must(took <= 4 + 2 + 2, f"one lived {took:.1f} s")
    end = now()
    d.figure(
        f"verify p99 {load.p99_before:.1f} ms before, "
        f"{load.percentile(0.99, began, end, 'verify'):.1f} ms meanwhile"
    )
    d.must(load.good(began) >= 0.999, f"honest callers suffered: {load.bad(began)}")
    d.end_load(load)


def hang_up(sock, hard):
    if hard:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@drill("hang-up", "callers leave at every byte of request and reply, politely and by reset")
def hang_ups(d):
    r, w = d.redis(), d.wxfake()
    s = d.server(r, w)
    load = d.load(s, verifies=150)
    body = json.dumps({"code": "0" * 32}).encode()
    login = (
        b"POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n"
        % len(body)
        + body
    )
    chunked = (
        b"POST /v1/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n"
        b"0\r\n\r\n"
        % (len(body), body)
    )
    # so that the login is under way when they leave
    w.fault(mode="slow", delay_ms=100, count=100000)
    began, count = now(), 0
    for request in (GET, login, chunked, GET + login + GET):
        for at in range(len(request) + 1):
            for hard in (False, True):
                c = connect(s.port)
                c.sendall(request[:at])
                hang_up(c, hard)
                count += 1
    with connect(s.port) as c:
        c.sendall(GET)
        reply = len(c.recv(4096))
    for at in range(reply + 1):
        c = connect(s.port)
        c.sendall(GET * 2)
        left = at
        while left:
            left -= len(c.recv(left))
        hang_up(c, at % 2)
        count += 1
    w.clear()
    d.figure(f"{count} callers left")
    poll(
        lambda: s.metric("wxlogind_connections", listener="public") <= load.connections, 20,
        "let go of those who left",
    )
    d.must(load.good(began) >= 0.999, f"honest callers suffered: {load.bad(began)}")
    d.end_load(load)


@drill("never-reads", "20 callers pipeline requests and never read an answer, client_timeout 4 s")
def never_reads(d):
    r, w = d.redis(), d.wxfake()
    s = d.server(r, w, server__client_timeout="4s")
    load = d.load(s)
    before, began, readers = (
        rss_mb(s.process.pid), now(),
        [connect(s.port, 4096) for _ in range(20)],
    )
    most, given = 0.0, 0
    for c in readers:
        c.setblocking(False)
    while now() < began + 3:
        for c in readers:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                given += c.send(GET * 100)
        most = max(most, rss_mb(s.process.pid) - before)
        time.sleep(0.02)
    d.figure(
        f"{given / 1024 / 1024:.1f} MB of requests, at most {most * 1024 / 20:.0f} KiB kept for "
        "each"
    )
    d.must_not_grow(most, 10)
    poll(
        lambda: s.metric("wxlogind_connections", listener="public") <= load.connections, 40,
        "closed on them",
    )
    d.figure(f"closed after {now() - began:.1f} s")
    for c in readers:
        c.close()
    d.must(load.good(began) >= 0.999, f"honest callers suffered: {load.bad(began)}")
    d.end_load(load)


@drill("many-in-one", "100 pipelined requests, cut at random bytes, fifty times")
def many_in_one(d):
    r, w = d.redis(), d.wxfake()
    s = d.server(r, w)
    load = d.load(s, verifies=150)
    began, answered = now(), 0
    requests = [
        b"GET /v1/session HTTP/1.1\r\nHost: x\r\nX-Request-Id: n%05d\r\n\r\n" % i
        for i in range(100)
    ]
    for _ in range(50):
        wire, got = b"".join(requests), b""
        with connect(s.port) as c:
            c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(5):
                cut = random.randrange(1, max(2, len(wire)))
                c.sendall(wire[:cut])
                wire = wire[cut:]
            c.sendall(wire)
            c.shutdown(socket.SHUT_WR)
            while piece := c.recv(65536):
                got += piece
        ids = [
            line.split(b": ")[1]
            for line in got.split(b"\r\n")
            if line.lower().startswith(b"x-request-id: ")
        ]
        answered += ids == [b"n%05d" % i for i in range(100)]
    d.figure(f"{answered} of 50 times 100 answers in order")
    d.must(answered == 50, "answers are missing or out of order")
    d.must(load.good(began) >= 0.999, f"honest callers suffered: {load.bad(began)}")
    d.end_load(load)


@drill(
    "one-phone",
    "one session's phone sends junk phone codes over 1,000 connections; other users, and the "
    "token, go on",
)
def one_phone(d):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    r, w = d.redis(), d.wxfake()
    s = d.server(r, w)
    load = d.load(s)
    mine, other = (s.login(w.code(openid=f"oPhone{i}")).token for i in range(2))
    body = json.dumps({"code": "no such code"}).encode()
    junk = (b"POST /v1/user/phone HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + mine.encode() +
            b"\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    watch, began, answers, slow = selectors.DefaultSelector(), now(), {}, 0.0
    calls = w.calls("getuserphonenumber")
    for _ in range(1000):
        c = connect(s.port)
        c.setblocking(False)
        c.send(junk)
        watch.register(c, selectors.EVENT_READ)
    asked = began
    while now() < began + 6:
        for key, _ in watch.select(0.05):
            with contextlib.suppress(OSError):
                status = key.fileobj.recv(4096)[9:12]
                answers[status] = answers.get(status, 0) + 1
                key.fileobj.send(junk)
        if now() > asked + 0.5:
            asked = now()
            token = s.inside("GET", f"/internal/apps/{conftest.APPID}/access-token", timeout=10)
            a = (
                s.call(
                    "POST", "/v1/user/phone",
                    {"code": w.code(kind="phone", openid="oPhone1")},
                    {"Authorization": f"Bearer {other}"},
                ) if slow == 0
                else None
            )
            d.must(token.status == 200, f"the access_token: {token}")
            d.must(a is None or a.status == 200, f"another user's number: {a}")
            slow = max(slow, token.seconds, a.seconds if a else 0)
    for key in list(watch.get_map().values()):
        key.fileobj.close()
    made = w.calls("getuserphonenumber") - calls
    d.figure(
        f"{sum(answers.values())} junk calls answered "
        f"({', '.join(f'{k.decode()}: {v}' for k, v in sorted(answers.items()))}), {made} reached "
        "WeChat, "
        f"the slowest other answer {slow:.2f} s"
    )
    d.must(made <= 20, f"one user made {made} calls to WeChat")
    d.must(load.good(began) >= 0.999, f"honest callers suffered: {load.bad(began)}")
    d.end_load(load)


@drill(
    "idle-cap", "max_connections 300 of idle connections; honest callers come and go all the while"
)
def idle_cap(d):
    r, w = d.redis(), d.wxfake()
    s = d.server(r, w, server__max_connections="300", server__client_timeout="1h")
    load = d.load(s, verifies=150)
    began, held, served = now(), [], 0
    while now() < began + 5:
        held.append(connect(s.port))  # says nothing, or now and then an empty line
        with contextlib.suppress(OSError):
            held[len(held) // 2].send(b"\r\n")
        if len(held) % 50 == 0:
            served += s.call("GET", "/v1/session").status == 401
        time.sleep(0.001)
    most = s.metric("wxlogind_connections", listener="public")
    d.figure(
        f"{len(held)} idle connections came, at most 300 stayed ({most:.0f} at the end), {served} "
        "newcomers served"
    )
    d.must(
        most <= 300 and served == len(held) // 50,
        f"{most} connections, {served} of {len(held) // 50} newcomers served",
    )
    for c in held:
        c.close()
    d.end_load(load)
