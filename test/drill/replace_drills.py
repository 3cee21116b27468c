"""The program is replaced under wrk, ten times: restarted behind sockets that stay, as systemd does
it, and upgraded in place by SIGUSR2. No request may fail.
scripts/drill restarts-1 restarts-2 upgrades-1 upgrades-2 prints the table."""
import contextlib
import fcntl
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess

import conftest
from drill import call, drill, median, now, poll

ROUNDS = 10
REPORT = pathlib.Path(__file__).resolve().parents[1] / "bench/report.lua"


class Wrk:
    """Three of them: both sides on connections that are kept, and the public side on a new one for
    each request."""

    def __init__(self, server, token):
        def start(port, path, connections, *headers):
            argv = ["wrk", "-t1", f"-c{connections}", "-d1h", "--timeout", "30s", "-s", str(REPORT)]
            argv += ["-H", f"Authorization: Bearer {token}", *headers]
            return subprocess.Popen(
                [*argv, f"http://127.0.0.1:{port}{path}"], stdout=subprocess.PIPE, text=True
            )

        self.all = [
            start(server.port, "/v1/session", 16),
            start(server.internal, "/internal/auth", 8),
            start(server.port, "/v1/session", 4, "-H", "Connection: close"),
        ]

    def end(self):
        """Requests, errors of any kind, the longest wait in ms."""
        for p in self.all:
            p.send_signal(signal.SIGINT)
        said = [json.loads(p.communicate(timeout=60)[0].splitlines()[-1]) for p in self.all]
        requests, errors = (sum(s[k] for s in said) for k in ("requests", "errors"))
        return requests, errors, max(s["max_us"] for s in said) / 1000

    def sweep(self):
        for p in self.all:
            p.kill()
            p.wait()


class Program:
    """A program file of its own, which is replaced, and the processes that come of it."""

    def __init__(self, d, workers):
        redis, wxfake = d.redis(), d.wxfake()
        self.server = d.server(redis, wxfake, server__workers=workers, log__requests="errors")
        self.token = self.server.logged_in(wxfake)[0]
        self.server.process.stop()  # its configuration and its log are used from here on
        self.server.ended = True
        self.file, self.pid, self.files = d.dir / "program", None, 0
        self.renew()
        d.closing.callback(self.end)

    def text(self):
        return self.server.process.text()

    def renew(self):
        """Another file in the same place, which is what the upgrade of a package is."""
        self.files += 1
        new = self.file.with_suffix(f".{self.files}")
        shutil.copy(conftest.BUILD / "wxlogind", new)
        with open(new, "ab") as f:
            f.write(b"%d\n" % self.files)
        os.replace(new, self.file)

    def start(self, sockets=()):
        """As systemd does it: descriptors from 3 on."""
        script = f"exec {self.file} -c {self.server.file}"
        if sockets:
            given = f"LISTEN_PID=$$ LISTEN_FDS={len(sockets)} LISTEN_FDNAMES=public:internal"
            script = f"export {given}; {script}"

        def hand_over():
            for i, fd in enumerate([fcntl.fcntl(s.fileno(), fcntl.F_DUPFD, 100) for s in sockets]):
                os.dup2(fd, 3 + i, inheritable=True)

        with open(self.server.process.log, "ab") as log:
            self.child = subprocess.Popen(
                ["sh", "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=hand_over,
                close_fds=not sockets,
            )
        self.pid = self.child.pid
        poll(self.is_ready, 30, "ready")

    def upgrade(self):
        old, before = self.pid, len(self.successors())
        os.kill(old, signal.SIGUSR2)
        self.pid = int(poll(lambda: self.successors()[before:], 30, "a successor")[0])
        poll(lambda: self.gone(old), 60, "the end of the one before")

    def successors(self):
        return re.findall(r'msg="starting the program anew" pid=(\d+)', self.text())

    def end(self):
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
            poll(lambda: self.gone(self.pid), 60, "the end of the server")
        self.pid = None

    def gone(self, pid):
        self.child.poll()
        with contextlib.suppress(OSError):
            return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
        return True

    def is_ready(self):
        with contextlib.suppress(OSError):
            return call(self.server.internal, "GET", "/readyz").status == 200

    def serves(self):
        """The newest file runs, each worker has Redis, and some of the load was answered."""
        metric = self.server.metric
        good = {"route": "/v1/session", "status": "200"}
        with contextlib.suppress(OSError):
            return (
                os.stat(f"/proc/{self.pid}/exe").st_ino == self.file.stat().st_ino
                and metric("wxlogind_redis_connected") == 1
                and metric("wxlogind_http_requests_total", **good) > 2000
            )


def under_wrk(d, program, again, what):
    wrk = Wrk(program.server, program.token)
    d.closing.callback(wrk.sweep)
    took = []
    for _ in range(ROUNDS):
        poll(program.serves, 60, "serves")
        program.renew()
        begun = now()
        again()
        took.append(now() - begun)
    poll(program.serves, 60, "serves")
    requests, errors, longest_ms = wrk.end()
    program.end()
    d.figure(
        f"{len(took)} {what} (median {median(took):.2f} s), {requests} requests, {errors} failed, "
        f"the longest wait {longest_ms:.0f} ms"
    )
    d.must(errors == 0, f"{errors} of {requests} requests failed")
    d.must("level=error" not in program.text(), "errors in the log")


def listening(port):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("127.0.0.1", port))
    s.listen(1024)
    return s


def restarts(d, workers):
    program = Program(d, workers)
    ports = program.server.port, program.server.internal
    sockets = [d.closing.enter_context(listening(p)) for p in ports]

    def again():
        program.end()
        program.start(sockets)
    program.start(sockets)
    under_wrk(d, program, again, "restarts")


def upgrades(d, workers):
    program = Program(d, workers)
    program.start()
    under_wrk(d, program, program.upgrade, "upgrades")


@drill("restarts-1", "ten restarts under wrk by socket activation, one worker")
def restarts_1(d):
    restarts(d, 1)


@drill("restarts-2", "ten restarts under wrk by socket activation, two workers")
def restarts_2(d):
    restarts(d, 2)


@drill("upgrades-1", "ten upgrades of the program file under wrk by SIGUSR2, one worker")
def upgrades_1(d):
    upgrades(d, 1)


@drill("upgrades-2", "ten upgrades of the program file under wrk by SIGUSR2, two workers")
def upgrades_2(d):
    upgrades(d, 2)
