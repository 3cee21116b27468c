"""What every test is made of: where things are, free ports, waiting, a call over HTTP, a child
process."""
import contextlib
import http.client
import itertools
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / os.environ.get("WXLOGIND_BUILD", "build")
SANITIZED = "asan" in BUILD.name
APPID, SECRET = "wxfa4efa4efa4efa4e", "fa4efa4efa4efa4efa4efa4efa4efa4e"
KEY = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
SPOKEN = (
    "ERROR: AddressSanitizer", "runtime error:", "ERROR: LeakSanitizer",
    "a request was never answered", "WARNING: ThreadSanitizer",
)


# Below the range that the system gives to clients, or one of their connections might sit on a port
# when its server comes; and each of pytest's workers has a part to itself, or two might choose the
# same one.
WORKERS, WORKER = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1)), int(
    os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]
)
FIRST, END = 10000 + 22000 * WORKER // WORKERS, 10000 + 22000 * (WORKER + 1) // WORKERS
PORTS = itertools.cycle(random.sample(range(FIRST, END), END - FIRST))


def free_port():
    """Each is given once: what was given and is not bound yet looks free."""
    while True:
        port = next(PORTS)
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port


def poll(check, seconds=10, what="condition"):
    end = time.monotonic() + seconds
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come true in {seconds} s")
        time.sleep(0.01)


class Answer:
    def __init__(self, status, headers, body, seconds):
        self.status, self.headers, self.body, self.seconds = status, headers, body, seconds
        try:
            self.json = json.loads(body) if body else None
        except ValueError:
            self.json = None

    @property
    def error(self):
        return self.json.get("error") if isinstance(self.json, dict) else None

    @property
    def token(self):
        return self.json["third_session"]

    def __repr__(self):
        return f"<{self.status} {self.body[:300]!r} in {self.seconds:.2f} s>"


def call(port, method, path, body=None, headers=None, timeout=20, tls=None, host="127.0.0.1"):
    conn = (http.client.HTTPSConnection(host, port, timeout=timeout, context=tls) if tls
            else http.client.HTTPConnection(host, port, timeout=timeout))
    if isinstance(body, (dict, list)):
        body = json.dumps(body)
        headers = {"Content-Type": "application/json", **(headers or {})}
    began = time.monotonic()
    with contextlib.closing(conn):
        conn.request(method, path, body=body, headers=headers or {})
        r = conn.getresponse()
        text = r.read()
        return Answer(r.status, r.headers, text, time.monotonic() - began)


class Process:
    def __init__(self, argv, log, env=None, preexec=None):
        self.log = log
        with open(log, "ab") as f:
            self.proc = subprocess.Popen(
                [str(a) for a in argv],
                stdin=subprocess.DEVNULL, stdout=f, stderr=f, preexec_fn=preexec,
                env={
                    **{k: v for k, v in os.environ.items() if not k.startswith("WXLOGIND_")},
                    **(env or {}),
                },
            )

    @property
    def pid(self):
        return self.proc.pid

    def text(self):
        return pathlib.Path(self.log).read_text(errors="replace")

    def signal(self, sig):
        self.proc.send_signal(sig)
        if sig == signal.SIGSTOP:  # a busy machine stops its threads one by one
            poll(
                lambda: {
                    t.read_text().rsplit(")", 1)[1].split()[0]
                    for t in pathlib.Path(f"/proc/{self.pid}/task").glob("*/stat")
                } == {"T"},
                what="stopped",
            )

    def stop(self):
        """SIGTERM; fails on a bad exit or on a word of a sanitizer."""
        if self.proc.poll() is None:
            self.proc.send_signal(signal.SIGCONT)
            self.proc.terminate()
        try:
            status = self.proc.wait(45)
        except subprocess.TimeoutExpired:
            self.proc.kill()
            self.proc.wait()
            raise AssertionError("did not end in 45 s after SIGTERM:\n" + self.text()[-4000:])
        text = self.text()
        assert not [w for w in SPOKEN if w in text], text[-8000:]
        assert status == 0, f"exit {status}\n" + text[-8000:]
