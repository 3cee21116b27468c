"""What the worst of each kind costs: a connection, a login that waits, a user with as many sessions
as there may be."""
import contextlib
import http.client
import json
import re
import socket
import time

from stack import Stack, call, metric, poll, redis_cli, rss_mb

CONNECTIONS, LOGINS, SESSIONS = 300, 500, 1000


def capacity(report):
    rows = [*connections(), *waiting_logins()]
    report.section("capacity: what the worst of each kind holds of wxlogind's memory")
    report.table(
        ("what", "how many", "KiB each"), [(what, n, f"{kib:.0f}") for what, n, kib in rows]
    )
    report.section(f"capacity: a user with {SESSIONS} sessions")
    report.table(("what", "figure"), one_user())


def opened(port, n, data):
    held = []
    for _ in range(n):
        s = socket.create_connection(("127.0.0.1", port))
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.setblocking(True)
        s.sendall(data)
        held.append(s)
    return held


def settled(process):
    """Its memory, once it no longer changes."""
    last = 0
    while (now := rss_mb(process.pid)) != last:
        last = now
        time.sleep(0.3)
    return now


def connections():
    """As much as may be sent without being answered: all headers that there may be, and a body but
    for its last byte."""
    headers = "".join(f"X-H{i}: {'h' * 330}\r\n" for i in range(90))
    head = f"POST /v1/login HTTP/1.1\r\nHost: bench\r\n{headers}Content-Type: application/json\r\n"
    kinds = [
        ("idle, fresh", b""),
        ("idle, after a request", b"GET /v1/session HTTP/1.1\r\nHost: bench\r\n\r\n"),
        ("30 KiB of headers, the last line missing", head.encode()),
        (
            "30 KiB of headers, and 64 KiB of body but for the last byte",
            f"{head}Content-Length: 65536\r\n\r\n{'b' * 65535}".encode(),
        ),
    ]
    for what, data in kinds:
        with Stack() as s:
            server = s.server(s.redis(), s.wxfake(), server__client_timeout="60s")
            call(server.port, "GET", "/v1/session")
            before = settled(server)
            held = opened(server.port, CONNECTIONS, data)
            yield f"connection, {what}", CONNECTIONS, (
                settled(server) - before
            ) * 1024 / CONNECTIONS
            for h in held:
                h.close()


def waiting_logins():
    """All at once, to a WeChat that takes long: 64 of them with a connection there, the others in
    line."""
    for tls in (False, True):
        with Stack() as s:
            fake = s.wxfake("--latency", "8s", tls=tls)
            server = s.server(s.redis(), fake, wechat__timeout="30s", wechat__max_connections="64")
            before = settled(server)
            held = []
            for i in range(LOGINS):
                body = f'{{"code":"{tls}-{i}"}}'
                held += opened(
                    server.port, 1,
                    "POST /v1/login HTTP/1.1\r\nHost: b\r\n"
                    "Content-Type: application/json\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n{body}".encode(),
                )
            poll(
                lambda: metric(server, 'wxlogind_connections{listener="public"}') >= LOGINS,
                what="all logins",
            )
            yield (
                f"login that waits, its connection included, WeChat over {'TLS' if tls else 'HTTP'}"
            ), LOGINS, (
                settled(server) - before
            ) * 1024 / LOGINS
            for h in held:
                h.close()


def longest_us(redis):
    """Of scripts; of the two ways to call one, the dearer."""
    return max(
        float(us)
        for us in re.findall(
            r"cmdstat_eval.*usec_per_call=([\d.]+)", redis_cli(redis, "INFO", "commandstats")
        )
    )


def used_bytes(redis):
    return int(re.search(r"used_memory:(\d+)", redis_cli(redis, "INFO", "memory"))[1])


def login(server, code):
    status, body = call(
        server.port, "POST", "/v1/login",
        {"code": code},
        {"User-Agent": "x" * 256, "Content-Type": "application/json"},
    )
    assert status == 200, body


def one_user():
    with Stack() as s:
        redis, fake = s.redis(), s.wxfake()
        server = s.server(redis, fake, session__replay_window="0")
        login(server, "a-another~0")
        before = used_bytes(redis)
        for i in range(SESSIONS):
            login(server, f"a-one~{i}")
        time.sleep(2.5)  # for the codes' keys to end
        yield "bytes in Redis, User-Agents of 256 bytes", f"{used_bytes(redis) - before}"

        def script_us(what):
            redis_cli(redis, "CONFIG", "RESETSTAT")
            what()
            return f"{longest_us(redis) / 1000:.1f}"
        yield "how long a script of one more login keeps Redis, ms", script_us(
            lambda: login(server, f"a-one~{SESSIONS}")
        )
        one = s.server(redis, fake, session__max_per_user="1")
        yield "the same, with max_per_user lowered to 1, ms", script_us(
            lambda: login(one, f"a-one~{SESSIONS + 1}")
        )
        for i in range(SESSIONS):
            login(server, f"a-one~b{i}")
        path = f"/internal/apps/wxfa4efa4efa4efa4e/users/{openid(server)}/sessions"
        yield "the same, for the internal call that ends all, ms", script_us(
            lambda: call(server.internal, "DELETE", path)
        )


def openid(server):
    """The user's, of whom a login is one more session."""
    _, body = call(
        server.port, "POST", "/v1/login",
        {"code": "a-one~last"},
        {"Content-Type": "application/json"},
    )
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.internal)) as c:
        c.request(
            "GET", "/internal/auth",
            headers={"Authorization": "Bearer " + json.loads(body)["third_session"]},
        )
        return c.getresponse().headers["X-Wx-Openid"]
