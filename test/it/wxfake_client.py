"""A client of wxfake, as the test_wxfake_*.py use it: what a backend asks WeChat, what an answer
must look like, the stream of events, and a clock that can be put forward."""
import base64
import contextlib
import hashlib
import hmac
import json
import mmap
import os
import re
import socket
import ssl
import struct
import subprocess
import urllib.parse

import pytest

from conftest import APPID, SANITIZED, SECRET, poll

OTHER, OTHER_SECRET = "wx0123456789abcdef", "0123456789abcdef0123456789abcdef"
TWO_APPS = ("--app", f"{APPID}:{SECRET}", "--app", f"{OTHER}:{OTHER_SECRET}")
TEXTS = {
    -1: "system error", 40002: "invalid grant_type", 40013: "invalid appid",
    40014: "invalid access_token", 40029: "invalid code", 40066: "invalid url",
    40125: "invalid appsecret", 40163: "code been used", 40226: "code blocked",
    41001: "access_token missing",
    40001: "invalid credential, access_token is invalid or not latest, could get access_token by "
           "getStableAccessToken, more details at https://mmbizurl.cn/s/JtxxFh33r",
    40164: "invalid ip 127.0.0.1 ipv6 ::ffff:127.0.0.1, not in whitelist", 41002: "appid missing",
    41004: "appsecret missing", 41008: "missing code", 42001: "access_token expired",
    43001: "require GET method", 43002: "require POST method",
    45009: "reach max api daily quota limit",
    45011: "api minute-quota reach limit  mustslower  retry next minute",
    87008: "invalid sig_method", 87009: "invalid signature",
}
TICK = 0.02  # a timer may fire a little early
RID = r" rid: ([0-9a-f]{8})-[0-9a-f]{8}-[0-9a-f]{8}"
OPENID, SESSION_KEY = r"o[A-Za-z0-9_-]{27}", r"(?:[A-Za-z0-9+]|\\/){22}=="
LOGIN_BODY = re.compile(
    rf'{{"session_key":"{SESSION_KEY}","openid":"{OPENID}","unionid":"{OPENID}"}}'
)


# ---- what a client of WeChat does ----

def query(**kw):
    return "?" + urllib.parse.urlencode({k: v for k, v in kw.items() if v is not None})


def sns(w, code, appid=APPID, secret=SECRET, grant_type="authorization_code", **kw):
    return w.call(
        "GET", "/sns/jscode2session"
        + query(appid=appid, secret=secret, js_code=code, grant_type=grant_type, **kw),
    )


def login(w, **kw):
    """A user logs in: {session_key, openid, unionid}."""
    appid = kw.get("appid", APPID)
    a = sns(w, w.code(**kw), appid, OTHER_SECRET if appid == OTHER else SECRET)
    assert "openid" in a.json, a
    return a.json


def plain_token(w, appid=APPID, secret=SECRET, grant_type="client_credential"):
    return w.call(
        "GET", "/cgi-bin/token" + query(appid=appid, secret=secret, grant_type=grant_type)
    )


def stable_token(w, appid=APPID, secret=SECRET, grant_type="client_credential", **kw):
    body = {"grant_type": grant_type, "appid": appid, "secret": secret, **kw}
    return w.call("POST", "/cgi-bin/stable_token", {k: v for k, v in body.items() if v is not None})


def access_token(w, **kw):
    return stable_token(w, **kw).json["access_token"]


def sign(session_key, message=b""):
    return hmac.new(session_key.encode(), message, hashlib.sha256).hexdigest()


def check(w, user, token=None, path="/wxa/checksession", **kw):
    args = {
        "access_token": token or access_token(w), "openid": user["openid"],
        "signature": sign(user["session_key"]), "sig_method": "hmac_sha256", **kw,
    }
    return w.call("GET", path + query(**args))


def phone(w, code, token=None, **kw):
    return w.call(
        "POST", "/wxa/business/getuserphonenumber" + query(access_token=token or access_token(w)),
        {"code": code, **kw},
    )


def is_json_type(a):
    return a.headers["Content-Type"].split(";")[0] == "application/json"


def refused(a, errcode, is_sns=False):
    """An answer of WeChat's that says no: its status, type, fields, text and rid."""
    assert (
        a.status == 200 and a.json["errcode"] == errcode and list(a.json) == ["errcode", "errmsg"]
    ), a
    assert a.headers["Content-Type"] == "text/plain" if is_sns else is_json_type(a)
    m = re.fullmatch(re.escape(TEXTS[errcode]) + ("," if is_sns else "") + RID, a.json["errmsg"])
    assert m, a
    assert a.body.decode() == json.dumps(a.json, separators=(",", ":")).replace("/", "\\/")
    return int(m[1], 16)


def decrypt(session_key, iv, data):
    """By another hand than ours: the openssl program. None when the padding is wrong."""
    key, iv = base64.b64decode(session_key), base64.b64decode(iv)
    assert (len(key), len(iv)) == (16, 16)
    done = subprocess.run(
        ["openssl", "enc", "-d", "-aes-128-cbc", "-K", key.hex(), "-iv", iv.hex()],
        input=base64.b64decode(data), capture_output=True,
    )
    return done.stdout if done.returncode == 0 else None


# ---- five minutes, without waiting for them ----

SHIM = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
static volatile long long *ahead; /* seconds: of the monotonic clock, of the wall clock */
int clock_gettime(clockid_t id, struct timespec *ts)
{
	long r = syscall(SYS_clock_gettime, id, ts);
	if (!ahead) {
		int fd = open(getenv("WXFAKE_AHEAD"), O_RDONLY);
		ahead = mmap(NULL, 16, PROT_READ, MAP_SHARED, fd, 0);
		close(fd);
	}
	ts->tv_sec += ahead[id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE];
	return (int)r;
}
"""


@pytest.fixture
def later(stack, tmp_path, monkeypatch):
    """A wxfake whose clocks can be put forward: w.later(seconds)."""
    (tmp_path / "shim.c").write_text(SHIM)
    subprocess.run(
        ["cc", "-O1", "-shared", "-fPIC", "-o", "shim.so", "shim.c"], cwd=tmp_path, check=True
    )
    (tmp_path / "ahead").write_bytes(bytes(16))
    with monkeypatch.context() as m:
        m.setenv("LD_PRELOAD", str(tmp_path / "shim.so"))
        m.setenv("WXFAKE_AHEAD", str(tmp_path / "ahead"))
        if SANITIZED:
            m.setenv(
                "ASAN_OPTIONS", os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
            )
        w = stack.wxfake(*TWO_APPS)
    w.ahead = [0, 0]
    with open(tmp_path / "ahead", "r+b") as f, contextlib.closing(
        mmap.mmap(f.fileno(), 16)
    ) as shared:
        def forward(seconds, wall=True):
            w.ahead = [w.ahead[0] + seconds, w.ahead[1] + seconds * wall]
            shared[:] = struct.pack("qq", *w.ahead)
        w.later = forward
        yield w


# ---- encrypted data ----

def encrypt(w, openid, data, **kw):
    a = w.call("POST", "/fake/encrypt", {"appid": APPID, "openid": openid, "data": data, **kw})
    assert a.status == 200 and set(a.json) == {"encryptedData", "iv", "rawData", "signature"}, a
    return a.json


# ---- faults ----

def raw_login(w, code, timeout=5):
    """What comes over the socket until it ends, and whether it ended in a reset."""
    path = "/sns/jscode2session" + query(
        appid=APPID, secret=SECRET, js_code=code, grant_type="authorization_code"
    )
    with socket.create_connection(("127.0.0.1", w.port), timeout=timeout) as s:
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        out = b""
        try:
            while piece := s.recv(65536):
                out += piece
        except ConnectionResetError:
            return out, True
        return out, False


# ---- events ----

class Events:
    """GET /fake/events, read as it comes."""

    def __init__(self, w):
        self.text = b""
        self.sock = socket.create_connection(("127.0.0.1", w.port), timeout=10)
        if w.context:
            self.sock = w.context.wrap_socket(self.sock, server_hostname="127.0.0.1")
        self.sock.sendall(
            b"GET /fake/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n"
        )
        self.sock.settimeout(0.02)
        self.until(lambda: b"\r\n\r\n" in self.text and self.text.endswith(b"\n\n"), "a beginning")

    def until(self, true, what):
        def read():
            with contextlib.suppress(TimeoutError, ssl.SSLWantReadError):
                self.text += self.sock.recv(65536)
            return true()
        return poll(read, what=what)

    def seen(self, kind):
        body = self.text.decode().partition("\r\n\r\n")[2]
        found = []
        for block in body.split("\n\n")[:-1]:
            if not block.startswith(":"):
                head, _, data = block.partition("\n")
                assert (
                    head.startswith("event: ") and data.startswith("data: ") and "\n" not in data
                ), block
                if head[7:] == kind:
                    found.append(json.loads(data[6:]))
        return found

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()
