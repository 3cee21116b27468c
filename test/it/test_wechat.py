"""Connections to WeChat: kept while they live, never used when they are dead; hosts that are away;
ways out by a proxy."""
import base64
import contextlib
import ctypes
import os
import socket
import ssl
import struct
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import BUILD, SANITIZED, Process, free_port, poll


class NginxBefore:
    """nginx with TLS before wxfake. Like most servers it ends an idle connection with close_notify,
    then FIN."""

    def __init__(self, directory, wxfake, tls, settings="keepalive_timeout 1s;"):
        directory.mkdir()
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        user = "user root;" if os.geteuid() == 0 else ""
        (directory / "nginx.conf").write_text(
            f"""
            {user} daemon off; master_process off; pid {directory}/pid;
            error_log {directory}/error.log;
            events {{ worker_connections 1024; }}
            http {{
                access_log off; client_body_temp_path {directory}/body;
                proxy_temp_path {directory}/proxy;
                fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u;
                scgi_temp_path {directory}/s;
                upstream wxfake {{ server 127.0.0.1:{wxfake.port}; keepalive 16; }}
                server {{
                    listen 127.0.0.1:{self.port} ssl;
                    ssl_certificate {tls.cert}; ssl_certificate_key {tls.key}; {settings}
                    location / {{
                        proxy_pass http://wxfake; proxy_http_version 1.1;
                        proxy_set_header Connection "";
                    }}
                }}
            }}"""
        )
        self.process = Process(
            ["nginx", "-e", directory / "error.log", "-c", directory / "nginx.conf"],
            directory / "nginx.log",
        )
        poll(self.is_up, what="nginx")

    def is_up(self):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            return True

    def stop(self):
        self.process.proc.kill()  # on SIGTERM it may wait for its idle connections
        self.process.proc.wait()


def sockets_to(port, state):
    """Of this machine's TCP connections to that port, those in a state of /proc/net/tcp."""
    rows = [line.split() for line in open("/proc/net/tcp").read().splitlines()[1:]]
    return sum(r[2].endswith(f":{port:04X}") and r[3] == state for r in rows)


ESTABLISHED = "01"


def logins_after_idling(server, wxfake, port, times=3):
    for _ in range(times):
        a = server.login(wxfake.code())
        assert a.status == 200, a
        poll(lambda: sockets_to(port, ESTABLISHED) == 0, what="the idle connection is closed")


def test_an_idle_connection_that_nginx_closed(stack, redis, wxfake):
    tls = stack.tls()
    nginx = NginxBefore(stack.dir / "nginx", wxfake, tls)
    try:
        server = stack.server(redis, None, wechat__base_url=nginx.url, wechat__ca_file=tls.ca)
        logins_after_idling(server, wxfake, nginx.port)
        assert wxfake.calls() == 3
    finally:
        nginx.stop()


def test_an_idle_connection_that_wxfake_closed(stack, redis):
    """wxfake closes as nginx does."""
    tls = stack.tls()
    wxfake = stack.wxfake("--keepalive", "500ms", tls=tls)
    server = stack.server(redis, wxfake, wechat__ca_file=tls.ca)
    logins_after_idling(server, wxfake, wxfake.port)


def test_connections_that_end_under_load(stack, redis, wxfake):
    """nginx closes each connection after 20 requests: none of 600 logins meets a closed one."""
    tls = stack.tls()
    nginx = NginxBefore(stack.dir / "nginx", wxfake, tls, "keepalive_requests 20;")
    try:
        server = stack.server(
            redis, None, wechat__base_url=nginx.url, wechat__ca_file=tls.ca, log__level="warn"
        )
        codes = [wxfake.code() for _ in range(600)]
        answers = everywhere(codes, server.login, 16)
        assert [a for a in answers if a.status != 200] == []
    finally:
        nginx.stop()


def everywhere(inputs, ask, threads):
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(ask, inputs))


def test_an_idle_connection_is_given_up_before_wechat_closes_it(server, wxfake):
    """WeChat is said to close after 20 s. What is on its way just then cannot be saved; so it does
    not come to that."""
    assert server.login(wxfake.code()).status == 200
    assert sockets_to(wxfake.port, ESTABLISHED) == 1
    poll(lambda: sockets_to(wxfake.port, ESTABLISHED) == 0, seconds=19, what="given up")
    assert server.login(wxfake.code()).status == 200


# ---- hosts that are away ----

class Swallower:
    """A port whose accept queue is full: what connects gets no answer at all."""

    def __init__(self):
        self.server = socket.socket()
        self.server.bind(("127.0.0.1", 0))
        self.server.listen(0)
        self.port = self.server.getsockname()[1]
        self.url, self.filling = f"http://127.0.0.1:{self.port}", []
        for _ in range(4):
            s = socket.socket()
            s.setblocking(False)
            s.connect_ex(("127.0.0.1", self.port))
            self.filling.append(s)

    def close(self):
        for s in [self.server, *self.filling]:
            s.close()


@pytest.fixture
def swallower():
    s = Swallower()
    yield s
    s.close()


SYN_SENT = "02"


def test_a_first_host_that_swallows_connections(stack, redis, wxfake, swallower):
    """Those of the first moment wait for one connect timeout. Later ones wait for nothing."""
    server = stack.server(
        redis, None, wechat__base_url=swallower.url, wechat__fallback_urls=wxfake.url,
        log__level="info",
    )
    answers = everywhere([wxfake.code() for _ in range(300)], server.login, 300)
    bad = [a for a in answers if a.status != 200]
    assert len(bad) <= 15, bad[:5]
    for _ in range(40):
        a = server.login(wxfake.code())
        assert a.status == 200 and a.seconds < 0.9, a
    text = server.process.text()
    assert "a wechat host does not answer" in text and swallower.url in text


def test_the_first_host_comes_back(stack, redis, wxfake):
    port = free_port()
    server = stack.server(
        redis, None, wechat__base_url=f"http://127.0.0.1:{port}", wechat__fallback_urls=wxfake.url
    )
    for _ in range(5):
        assert server.login(wxfake.code()).status == 200
    up = lambda url: server.metric("wxlogind_wechat_host_up", host=url)
    assert (up(f"http://127.0.0.1:{port}"), up(wxfake.url)) == (0, 1)
    first = stack.wxfake("--any-code", port=port)
    poll(lambda: "wechat answers again" in server.process.text(), what="the probe finds it")
    assert (up(f"http://127.0.0.1:{port}"), up(wxfake.url)) == (1, 1)
    poll(lambda: server.login("any").status == 200, what="it is asked again")
    assert first.process.proc.poll() is None


def test_one_host_that_is_away(stack, redis, wxfake, swallower):
    """Told so at once, once that is known; and never more than eight connections in the making, and
    the probe's."""
    server = stack.server(
        redis, None, wechat__base_url=swallower.url, wechat__connect_timeout="400ms",
        wechat__timeout="2s",
    )
    seen, done = [], threading.Event()

    def watch():
        while not done.is_set():
            seen.append(sockets_to(swallower.port, SYN_SENT))
            time.sleep(0.005)
    watching = threading.Thread(target=watch)
    before = sockets_to(swallower.port, SYN_SENT)  # ours
    watching.start()
    answers = everywhere([wxfake.code() for _ in range(60)], server.login, 60)
    done.set()
    watching.join()
    assert {(a.status, a.error) for a in answers} == {(503, "wechat_unavailable")}
    assert 8 <= max(seen) - before <= 9, [(n, seen.count(n)) for n in sorted(set(seen))]
    for _ in range(20):
        a = server.login(wxfake.code())
        assert (a.status, a.error) == (503, "wechat_unavailable") and a.seconds < 0.4


class Front:
    """TCP in front of wxfake. greet: what is done first with a connection, one after the other;
    judge: of what is asked, whether it goes on."""

    def __init__(self, target, greet=lambda s: s, judge=lambda piece: True):
        self.target, self.greet, self.judge = target, greet, judge
        self.server = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port, self.open = self.server.getsockname()[1], []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near = self.server.accept()[0]
            except OSError:
                return
            with contextlib.suppress(OSError):
                near = self.greet(near)
                far = socket.create_connection(("127.0.0.1", self.target))
                self.open += [near, far]
                threading.Thread(target=self.pump, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self.pump, args=(far, near, False), daemon=True).start()

    def pump(self, source, sink, asks):
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                if asks and not self.judge(piece):
                    source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    break
                sink.sendall(piece)
        for s in (source, sink):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
            s.close()

    def close(self):
        self.server.close()


@pytest.mark.skipif(SANITIZED, reason="each handshake has its second: sanitizers take theirs")
def test_a_cold_burst_with_slow_handshakes(stack, redis, wxfake):
    """A handshake each 50 ms: 64 at once would all be given up after a second, and so would the
    next 64."""
    tls = stack.tls()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.cert, tls.key)

    def greet(s):
        time.sleep(0.05)
        return context.wrap_socket(s, server_side=True)
    front = Front(wxfake.port, greet=greet)
    server = stack.server(
        redis, None, wechat__base_url=f"https://127.0.0.1:{front.port}", wechat__ca_file=tls.ca
    )
    answers = everywhere([wxfake.code() for _ in range(64)], server.login, 64)
    front.close()
    assert [a for a in answers if a.status != 200] == []


def test_what_one_caller_sends_keeps_nobody_out(stack, redis, wxfake):
    """WeChat hangs up on the codes of one address. The others log in."""
    front = Front(wxfake.port, judge=lambda piece: b"js_code=junk" not in piece)
    server = stack.server(
        redis, None, wechat__base_url=f"http://127.0.0.1:{front.port}",
        server__trusted_proxies="127.0.0.0/8", limit__login_per_ip="0",
    )
    done = threading.Event()

    def junk(n):
        count = 0
        while not done.is_set():
            count += 1
            a = server.login(f"junk{n}x{count}", headers={"X-Forwarded-For": "203.0.113.66"})
            assert (a.status, a.error) == (503, "wechat_unavailable")
        return count
    with ThreadPoolExecutor(4) as pool:
        attackers = [pool.submit(junk, n) for n in range(4)]
        poll(
            lambda: server.metric("wxlogind_logins_total", outcome="wechat_unavailable") > 100,
            what="junk",
        )
        for i in range(60):
            a = server.login(wxfake.code(), headers={"X-Forwarded-For": f"203.0.113.{i}"})
            assert a.status == 200, a
        done.set()
        assert sum(a.result() for a in attackers) > 100
    front.close()


def test_our_own_queue_is_not_wechats_fault(stack, redis, wxfake):
    """Logins that find no connection in time are told that we are full, and the next one is let
    through."""
    server = stack.server(redis, wxfake, wechat__max_connections="1", wechat__timeout="1s")
    wxfake.fault(mode="slow", delay_ms=300, count=1000)
    answers = everywhere([wxfake.code() for _ in range(40)], server.login, 40)
    told = [(a.status, a.error) for a in answers]
    # whose call was under way when its second was over
    late = told.count((503, "wechat_unavailable"))
    assert (
        set(told) - {(503, "wechat_unavailable")} == {(200, None), (503, "overloaded")}
        and late <= 2
    )
    assert server.login(wxfake.code()).status == 200


# ---- names and ways out ----

def hosts_file(path):
    """For Process: /etc/hosts is that file."""
    def enter():
        libc = ctypes.CDLL(None, use_errno=True)
        # NEWNS; REC, PRIVATE
        if libc.unshare(0x00020000) or libc.mount(b"none", b"/", None, 0x4000 | 0x40000, None):
            os._exit(77)
        if libc.mount(str(path).encode(), b"/etc/hosts", None, 0x1000, None):  # BIND
            os._exit(77)
    return enter


@pytest.mark.skipif(os.geteuid() != 0, reason="a file of hosts for one process takes root")
def test_a_host_that_moves_to_another_address(stack, redis, wxfake):
    """It is looked up again once a connection fails, not a minute later."""
    hosts = stack.dir / "hosts"
    hosts.write_text("127.0.0.1 localhost\n127.0.0.1 wechat.example\n")
    try:
        server = stack.server(
            redis, None, preexec=hosts_file(hosts),
            wechat__base_url=f"http://wechat.example:{wxfake.port}",
        )
    except AssertionError as e:
        if "77" in str(e):
            pytest.skip("no mount namespaces here")
        raise
    assert server.login(wxfake.code()).status == 200
    hosts.write_text("127.0.0.1 localhost\n127.0.0.2 wechat.example\n")
    wxfake.process.stop()
    moved = stack.wxfake("--any-code", host="127.0.0.2", port=wxfake.port)
    assert [server.login(f"any{i}").status for i in range(3)] == [503, 200, 200]
    assert moved.calls() == 2


class ConnectProxy:
    """An HTTP proxy that knows CONNECT alone, and asks for a password."""

    def __init__(self, login=None):
        self.login, self.asked = login, []
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near = self.server.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.serve, args=(near,), daemon=True).start()

    def serve(self, near):
        head = b""
        while b"\r\n\r\n" not in head:
            head += near.recv(65536)
        self.asked.append(head)
        if self.login and base64.b64encode(self.login.encode()) not in head:
            near.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            near.close()
            return
        host, port = head.split()[1].decode().split(":")
        far = socket.create_connection((host, int(port)))
        near.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        pumps = [
            threading.Thread(target=self.pump, args=pair, daemon=True)
            for pair in ((near, far), (far, near))
        ]
        for p in pumps:
            p.start()

    @staticmethod
    def pump(source, sink):
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                sink.sendall(piece)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def close(self):
        self.server.close()


@pytest.mark.parametrize("with_tls", [False, True])
def test_a_proxy(stack, redis, with_tls):
    tls = stack.tls() if with_tls else None
    wxfake, proxy = stack.wxfake(tls=tls), ConnectProxy("us:er:p@ss word")
    more = {"wechat__ca_file": tls.ca} if tls else {}
    server = stack.server(
        redis, wxfake, wechat__proxy=f"http://us%3Aer:p%40ss%20word@127.0.0.1:{proxy.port}", **more
    )
    proxy.login = "us:er:p@ss word"
    for _ in range(3):
        assert server.login(wxfake.code()).status == 200
    assert len(proxy.asked) == 1 and proxy.asked[0].startswith(
        f"CONNECT 127.0.0.1:{wxfake.port}".encode()
    )
    assert b"jscode2session" not in proxy.asked[0]
    proxy.close()


def test_a_proxy_that_refuses(stack, redis, wxfake):
    proxy = ConnectProxy("a:right-one")
    server = stack.server(redis, wxfake, wechat__proxy=f"http://a:wrong-one@127.0.0.1:{proxy.port}")
    a = server.login(wxfake.code())
    assert (a.status, a.error) == (503, "wechat_unavailable")
    assert (
        "the proxy refuses: status 407" in server.process.text()
        and "wrong-one" not in server.process.text()
    )
    proxy.close()


def test_the_environments_proxy_is_not_used(stack, redis, wxfake):
    dead = f"http://127.0.0.1:{free_port()}"
    server = stack.server(
        redis, wxfake,
        env={
            n: dead
            for n in (
                "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy",
            )
        },
    )
    assert server.login(wxfake.code()).status == 200


@pytest.mark.parametrize(
    "url",
    [
        "https://p:3128", "http://p", "p:3128", "http://:3128", "http://user:secret@p:0",
        "http://p:3128/x",
    ],
)
def test_proxies_that_are_refused(stack, url):
    file = stack.dir / "bad.ini"
    file.write_text(
        f"[wechat]\nproxy = {url}\n[app wx0123456789abcdef]\n"
        "secret = fa4efa4efa4efa4efa4efa4efa4efa4e\n"
    )
    p = subprocess.run([BUILD / "wxlogind", "-c", file, "--check"], capture_output=True, text=True)
    assert (
        p.returncode == 1
        and "[wechat] proxy: must be http://[user:password@]host:port" in p.stderr
        and "secret@" not in p.stderr
    )
