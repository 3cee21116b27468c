"""One process takes the place of another without a refused connection: SIGUSR2, socket activation;
and what systemd is told."""
import contextlib
import fcntl
import os
import re
import signal
import socket
import subprocess
import threading
import time

import pytest

from conftest import APPID, BUILD, SECRET, Process, call, free_port, poll


def successors(server):
    return [
        int(p)
        for p in re.findall(r'msg="starting the program anew" pid=(\d+)', server.process.text())
    ]


def gone(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0] == "Z"
    return True


def end(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    poll(lambda: gone(pid), seconds=40, what="the end of the successor")


@pytest.fixture(autouse=True)
def no_successor_stays(stack):
    """A test that fails midway leaves none behind: the stack knows only the first process."""
    yield
    for server in stack.made["server"]:
        for pid in successors(server):
            end(pid)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigusr2(stack, redis, wxfake, workers):
    path = stack.dir / "x.sock"
    server = stack.server(redis, wxfake, server__workers=workers)
    server.file.write_text(
        server.file.read_text().replace(
            f"listen = 127.0.0.1:{server.port}", f"listen = 127.0.0.1:{server.port}, unix:{path}", 1
        )
    )
    server.process.stop()
    server.process = Process([BUILD / "wxlogind", "-c", server.file], server.process.log)
    poll(server.is_up, what="wxlogind")
    poll(server.ready, what="ready")
    token, bad, stop, asked = server.login(wxfake.code()).token, [], threading.Event(), [0]

    def ask():
        while not stop.is_set():
            try:
                status = server.auth(token).status
            except OSError as e:
                status = e
            asked[0] += 1
            if status != 200:
                bad.append(status)
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for t in threads:
        t.start()
    pid = server.process.pid
    try:
        for n in range(1, 4):
            os.kill(pid, signal.SIGUSR2)
            poll(lambda: len(successors(server)) == n, what="a successor")
            poll(
                lambda: server.process.text().count("this one drains") == n, seconds=30,
                what="handed over",
            )
            pid = successors(server)[-1]
    finally:
        stop.set()
        for t in threads:
            t.join()
    assert not bad and asked[0] > 20, (asked, bad[:5])
    assert server.process.proc.wait(10) == 0
    with socket.socket(socket.AF_UNIX) as c:
        c.connect(str(path))  # its file went with the socket
    end(pid)
    assert not path.exists()


def test_sigusr2_with_a_configuration_that_is_not_good(stack, redis, wxfake):
    server = stack.server(redis, wxfake)
    server.file.write_text("[nonsense]\n")
    server.process.signal(signal.SIGUSR2)
    poll(lambda: "the old one goes on" in server.process.text(), what="refused")
    assert server.login(wxfake.code()).status == 200


def bound():
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("127.0.0.1", free_port()))
    s.listen(64)
    return s


def activated(stack, sockets, names, workers=1, redis_port=1, file=None):
    """As systemd does it: descriptors from 3 on."""
    if not file:
        file = stack.dir / "activated.ini"
        file.write_text(
            f"[server]\nworkers = {workers}\n[users]\nurl = none\n[redis]\n"
            f"url = redis://127.0.0.1:{redis_port}/0\n[app {APPID}]\nsecret = {SECRET}\n"
        )
    fds = [s.fileno() for s in sockets]

    def hand_over():
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in fds]
        for i, fd in enumerate(high):
            os.dup2(fd, 3 + i, inheritable=True)
    script = (
        f"export LISTEN_PID=$$ LISTEN_FDS={len(fds)} LISTEN_FDNAMES={names}; exec {BUILD}/wxlogind "
        f"-c {file}"
    )
    return Activated(["sh", "-c", script], stack.dir / "activated.log", hand_over)


class Activated(Process):
    def __init__(self, argv, log, preexec):
        self.log = log
        with open(log, "ab") as f:
            self.proc = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=f, stderr=f, preexec_fn=preexec,
                close_fds=False,
            )


def test_socket_activation(stack):
    """Connections that came before the server wait for it; the configured addresses do not
    count."""
    with bound() as public, bound() as internal, socket.create_connection(
        public.getsockname(), timeout=10
    ) as early:
        p = activated(stack, [public, internal], "public:internal")
        early.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert early.recv(4096).startswith(b"HTTP/1.1 200")
        assert call(internal.getsockname()[1], "GET", "/metrics").status == 200
        p.stop()
        assert "8080" not in p.text()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_restarts_behind_sockets_that_stay(stack, workers):
    """A socket unit's promise: connections wait while the server is away, and none of their
    requests fails."""
    with bound() as public, bound() as internal:
        port, bad, stop, asked = public.getsockname()[1], [], threading.Event(), [0]

        def ask():
            while not stop.is_set():
                try:
                    status = call(port, "GET", "/healthz", timeout=30).status
                except OSError as e:
                    status = e
                asked[0] += 1
                if status != 200:
                    bad.append(status)
        p = activated(stack, [public, internal], "public:internal", workers)
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for t in threads:
            t.start()
        try:
            for _ in range(10):
                before = asked[0]
                poll(lambda: asked[0] > before + 8, seconds=30, what="answers")
                p.stop()
                p = activated(stack, [public, internal], "public:internal", workers)
        finally:
            stop.set()
            for t in threads:
                t.join()
            p.stop()
        print(f"{asked[0]} requests over 10 restarts, {len(bad)} failed")
        assert not bad and asked[0] > 80, (asked, bad[:5])


@pytest.mark.parametrize("workers", ["1", "2"])
def test_who_comes_first_waits_until_redis_was_asked(stack, redis, wxfake, workers):
    """A restart's first callers are not told 503 by a server that has not met Redis yet."""
    server = stack.server(redis, wxfake, server__workers=workers, redis__timeout="20s")
    token = server.login(wxfake.code()).token
    server.process.stop()
    redis.signal(signal.SIGSTOP)
    get = f"GET /v1/session HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n".encode()
    with contextlib.ExitStack() as open_:
        sockets = [open_.enter_context(bound()) for _ in range(2)]
        callers = [
            open_.enter_context(socket.create_connection(sockets[0].getsockname(), timeout=30))
            for _ in range(8)
        ]
        for c in callers:
            c.sendall(get + b"Connection: close\r\n\r\n")
        p = activated(stack, sockets, "public:internal", file=server.file)
        try:
            poll(lambda: p.text().count("wxlogind is up") == int(workers), what="up")
            redis.signal(signal.SIGCONT)
            answers = [c.recv(4096).split(b"\r\n")[0] for c in callers]
        finally:
            p.stop()
        assert answers == [b"HTTP/1.1 200 OK"] * len(callers)


def test_a_redis_that_says_nothing_does_not_keep_them_waiting(stack):
    """For longer than one command may take, that is."""
    with bound() as public, bound() as internal, bound() as silent:
        p = activated(stack, [public, internal], "public:internal", 1, silent.getsockname()[1])
        port = public.getsockname()[1]
        assert call(port, "GET", "/healthz", timeout=30).status == 200
        headers = {"Authorization": "Bearer " + "A" * 43}
        assert call(port, "GET", "/v1/session", headers=headers, timeout=30).status == 503
        p.stop()


def test_more_addresses_than_it_serves(stack):
    with contextlib.ExitStack() as open_:
        sockets = [open_.enter_context(bound()) for _ in range(18)]
        p = activated(stack, sockets, ":".join(["public"] * 17 + ["internal"]))
        assert p.proc.wait(10) == 3 and "cannot serve more addresses" in p.text()


def test_socket_activation_with_unknown_names(stack):
    with bound() as public:
        p = activated(stack, [public], "wxlogind.socket")
        assert p.proc.wait(10) == 3 and "name it public or internal" in p.text()


def test_an_internal_socket_that_is_open_needs_the_token(stack):
    with bound() as public, socket.create_server(("0.0.0.0", free_port())) as internal:
        p = activated(stack, [public, internal], "public:internal")
        assert p.proc.wait(10) == 3 and "set [server] internal_token" in p.text()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_systemd_is_told(stack, redis, wxfake, workers):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(stack.dir / "notify"))
        notify.settimeout(10)
        said = []

        def told(what):
            end = time.monotonic() + 30  # there is always some sign of life to read
            while not any(what in s for s in said):
                assert time.monotonic() < end, (what, said[-9:])
                said.append(notify.recv(4096).decode())
            said.clear()
        server = stack.server(
            redis, wxfake, server__workers=workers,
            env={"NOTIFY_SOCKET": str(stack.dir / "notify"), "WATCHDOG_USEC": "400000"},
        )
        told("READY=1")
        told("WATCHDOG=1")
        server.process.signal(signal.SIGHUP)
        told("RELOADING=1\nMONOTONIC_USEC=")
        told("READY=1")
        server.process.signal(signal.SIGUSR2)
        poll(lambda: successors(server), what="a successor")
        pid = successors(server)[0]
        # systemd waits only for the end of a main process that was its child when it heard of it
        assert f"\nPPid:\t{server.process.pid}\n" not in open(f"/proc/{pid}/status").read()
        # what the successor fed until now did not count, and its next turn is half the limit away
        told(f"MAINPID={pid}\nREADY=1\nWATCHDOG=1")
        assert server.process.proc.wait(30) == 0
        os.kill(pid, signal.SIGTERM)
        told("STOPPING=1")
        end(pid)
