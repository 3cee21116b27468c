"""wxfake alone: its command line, TLS, log and end."""
import concurrent.futures
import contextlib
import http.client
import json
import re
import signal
import socket
import ssl
import subprocess
import time

import pytest

from conftest import APPID, BUILD, ROOT, SECRET, call, free_port, poll
from wxfake_client import (
    Events, LOGIN_BODY, TICK, access_token, check, decrypt, encrypt, login, phone, plain_token,
    refused, sign, sns,
)


def test_any_code(stack):
    w = stack.wxfake("--any-code", "--app", f"{APPID}:{SECRET}")
    first, again, other = (sns(w, c) for c in ("anything at all", "anything at all", "0" * 256))
    assert all(LOGIN_BODY.fullmatch(a.body.decode()) for a in (first, again, other))
    assert first.json == again.json and other.json["openid"] != first.json["openid"]
    token = access_token(w)
    assert check(w, first.json, token).json["errcode"] == 0
    refused(check(w, first.json, token, signature=sign(other.json["session_key"])), 87009)
    assert phone(w, "any phone code", token).json["phone_info"]["watermark"]["appid"] == APPID
    refused(sns(w, "x", secret="y"), 40125, True)
    refused(sns(w, ""), 41008, True)
    # and no rate
    assert {sns(w, "same").json["openid"] for _ in range(150)} == {sns(w, "same").json["openid"]}
    assert w.call("GET", "/fake/stats").json["users"] == 0  # remembers none
    code = w.code(openid="oMine")
    assert sns(w, code).json == sns(w, code).json and sns(w, code).json["openid"] == "oMine"
    made = encrypt(w, first.json["openid"], {"a": 1})
    assert (
        json.loads(decrypt(first.json["session_key"], made["iv"], made["encryptedData"]))["a"] == 1
    )


def test_the_backend_that_the_page_calls(stack):
    plain = stack.wxfake()
    assert (
        plain.call("GET", "/fake/backend").status == plain.call("GET", "/fake/users").status == 404
    )
    assert not plain.call("GET", "/fake/about").json["internal"]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        w = stack.wxfake(
            "--internal", f"http://127.0.0.1:{silent.getsockname()[1]}", "--internal-token", "t"
        )
        assert w.call("GET", "/fake/about").json["internal"]
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(
                call, w.port, "GET", "/fake/backend", headers={"Authorization": "Bearer x"}
            )
            proxy, _ = silent.accept()
            with proxy:
                asked = proxy.recv(4096).decode()
                assert asked.startswith("GET /internal/auth HTTP/1.1\r\n")
                assert (
                    "\r\nAuthorization: Bearer x\r\n" in asked
                    and "\r\nX-Internal-Token: t\r\n" in asked
                )
                proxy.sendall(b'HTTP/1.1 200 OK\r\nX-Wx-Openid: o"bad\r\nContent-Length: 0\r\n\r\n')
            # what is no openid is not repeated
            assert waiting.result().json == {"orders": [], "of": "…"}
            waiting = pool.submit(w.call, "GET", "/fake/backend")
            silent.accept()[0].close()
            a = waiting.result()
            assert a.status == 503 and a.headers["Retry-After"] == "1"
        # a question that waits when wxfake ends
        with socket.create_connection(("127.0.0.1", w.port)) as phone:
            phone.sendall(b"GET /fake/backend HTTP/1.1\r\nHost: x\r\n\r\n")
            with silent.accept()[0]:
                w.process.stop()


def test_latency(stack):
    for text, least in (("150ms", 0.15 - TICK), ("1s", 1 - TICK)):
        w = stack.wxfake("--latency", text)
        a = sns(w, w.code())
        assert LOGIN_BODY.fullmatch(a.body.decode()) and least <= a.seconds < least + 1
        assert least <= plain_token(w).seconds < least + 1 and sns(w, "x").seconds >= least
        assert w.call("GET", "/fake/stats").seconds < 0.12
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            began = time.monotonic()
            assert all(a.seconds >= least for a in pool.map(lambda _: sns(w, "x"), range(20)))
        assert time.monotonic() - began < least + 2


def test_over_tls(stack):
    tls = stack.tls()
    w = stack.wxfake(tls=tls)
    # the certificate is the one given, its name too
    w.context = ssl.create_default_context(cafile=str(tls.ca))
    with Events(w) as e:
        user = login(w)
        assert check(w, user).json["errcode"] == 0
        for mode in ("chunked", "slow", "bom", "unescaped"):
            w.fault(mode=mode, delay_ms=200)
            assert sns(w, w.code()).body.strip(b"\xef\xbb\xbf").startswith(b'{"session_key"')
        w.fault(mode="huge")
        assert len(sns(w, w.code()).body) > 10 * 1024 * 1024
        for mode in ("reset", "close"):
            w.fault(mode=mode)
            with pytest.raises(OSError):
                sns(w, w.code())
        e.until(lambda: len(e.seen("wechat")) >= 9, "events over TLS")
    with contextlib.suppress(http.client.HTTPException, OSError):
        # plain HTTP: no answer, or a refusal
        assert call(w.port, "GET", "/fake/stats").status == 400
    with pytest.raises(ssl.SSLError):
        call(w.port, "GET", "/fake/stats", tls=ssl.create_default_context())
    assert login(w)
    old = ssl.create_default_context(cafile=str(tls.ca))
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert call(w.port, "GET", "/fake/stats", tls=old).status == 200


def run(*args, **kw):
    return subprocess.run(
        [str(BUILD / "wxfake"), *[str(a) for a in args]],
        capture_output=True, text=True, timeout=20, **kw,
    )


@pytest.mark.parametrize(
    "args",
    [
        ["--nope"],
        ["nope"],
        ["-h"],
        ["--listen"],
        ["--app"],
        ["--app", "wx1"],
        ["--app", ":s"],
        ["--app", "wx1:"],
        ["--app", "wx 1:s"],
        ["--app", "wx1:s", "--app", "wx1:t"],
        ["--app", "w" * 65 + ":s"],
        ["--latency"],
        ["--latency", "50"],
        ["--latency", "ms"],
        ["--latency", "-1ms"],
        ["--latency", "61s"],
        ["--latency", "9" * 30 + "s"],
        ["--latency", "5m"],
        ["--latency", "1.5s"],
        ["--tls-cert", "x"],
        ["--tls-key", "x"],
        ["--watch-redis"],
        ["--watch-redis", "x"],
        ["--watch-redis", "redis://"],
        ["--watch-redis", "redis://127.0.0.1:0"],
        ["--watch-redis", "redis://127.0.0.1:65536"],
        ["--watch-redis", "redis://word@127.0.0.1"],
        ["--watch-redis", "redis://:%zz@127.0.0.1"],
        ["--watch-redis", "redis://h:1x"], ["--watch-redis", "redis://h:2-1"],
        ["--watch-redis", "redis://h:1-"], ["--watch-redis", "redis://h:1-17"],
        ["--watch-redis", "redis://h:1-2x"], ["--watch-redis", "redis://h:65535-65536"],
        ["--kill-redis"], ["--watch-redis", "redis://h"] * 17,
        ["--watch-redis", "redis://h/x"],
        ["--watch-redis", "unix://x"],
        ["--watch-redis", "unix:///" + "x" * 120],
        ["--any-code", "yes"],
        ["--wxlogind"],
        ["--wxlogind", "x"],
        ["--wxlogind", "ftp://x"],
        ["--wxlogind", "http://"],
        ["--wxlogind", "http://a b"],
        ["--internal", "x"],
        ["--internal", "http://x"],
        ["--internal", "http://x:0"],
        ["--internal", "http://x:1/y"],
        ["--internal", "https://x:1"],
        ["--wxlogind", "http://a;b"],
        ["--wxlogind", "http://a/?b"],
        ["--wxlogind", "http://u@h"],
    ],
)
def test_bad_command_lines(args):
    """Was wrong: a bad --watch-redis ended with 3, as if the address could not be bound."""
    done = run("--listen", f"127.0.0.1:{free_port()}", *args)
    assert done.returncode == 2 and not done.stdout and done.stderr.startswith("wxfake: "), done


def test_secrets_stay_off_the_screen():
    done = run("--app", "wx 1:hush-hush")
    assert done.returncode == 2 and "hush-hush" not in done.stdout + done.stderr


@pytest.mark.parametrize("listen", ["nonsense", "127.0.0.1:99999", "192.0.2.1:0", "127.0.0.1"])
def test_addresses_that_cannot_be(listen):
    done = run("--listen", listen)
    assert done.returncode == 3 and "cannot listen" in done.stderr, done


def test_an_address_in_use(wxfake):
    done = run("--listen", f"127.0.0.1:{wxfake.port}")
    assert done.returncode == 3 and "cannot listen" in done.stderr


def test_certificates_that_cannot_be_read(stack):
    tls = stack.tls()
    for cert, key in (
        (tls.ca, tls.key),
        ("/nope", tls.key),
        (tls.cert, "/nope"),
        (tls.key, tls.cert),
    ):
        done = run("--listen", f"127.0.0.1:{free_port()}", "--tls-cert", cert, "--tls-key", key)
        assert done.returncode == 1 and "TLS" in done.stderr, done


def test_help_and_version():
    done = run("--help")
    assert (
        done.returncode == 0
        and not done.stderr
        and done.stdout.startswith("usage: wxfake")
        and APPID in done.stdout
    )
    page = (ROOT / "docs/wxfake.md").read_text().partition("\n\n")[2]
    options = set(re.findall(r"--[a-z-]+", page.partition("Without")[0]))
    assert options >= {
        "--listen", "--tls-cert", "--tls-key", "--app", "--latency", "--any-code", "--watch-redis",
    }
    assert options <= set(re.findall(r"--[a-z-]+", done.stdout))
    done = run("--version")
    assert done.returncode == 0 and re.fullmatch(r"wxfake \d+\.\d+\.\d+\n", done.stdout)


def test_the_page_knows_every_mode(wxfake):
    """Both ways: what the page names is taken, and what is taken is named. Was wrong:
    spent_hang."""
    page = (ROOT / "docs/wxfake.md").read_text()
    named = set(re.findall(r"`([a-z0-9_]+)`", page[page.index("`hang` never"):])) - {"delay_ms"}
    for mode in named:
        wxfake.fault(mode=mode)
    source = (ROOT / "test/wxfake/fault.c").read_text()
    assert named == set(re.findall(r'\{"([a-z0-9_]+)", M_', source))
    asked = set(
        re.findall(
            r'mode="([a-z0-9_]+)"|\("([a-z0-9_]+)", (?:\{|None|rb|True|False|50)',
            (ROOT / "test/it/test_wxfake_faults.py").read_text(),
        )
    )
    assert named <= {a or b for a, b in asked}, "a mode without a test"


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_told(stack, sig):
    w = stack.wxfake("--latency", "60s")
    w.fault("token", mode="drip")
    with Events(w), concurrent.futures.ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(sns, w, "x"), pool.submit(plain_token, w)]
        poll(lambda: w.calls() == w.calls("token") == 1, what="two calls under way")
        began = time.monotonic()
        w.process.signal(sig)
        assert w.process.proc.wait(10) == 0 and time.monotonic() - began < 5
        assert all(f.exception() for f in waiting)


def test_its_log_holds_no_secret(wxfake):
    user, token = login(wxfake), access_token(wxfake)
    plain = plain_token(wxfake).json["access_token"]
    check(wxfake, user, token)
    sns(wxfake, "a-code-nobody-made")
    text = wxfake.process.text()
    assert "jscode2session" in text
    for secret in (
        SECRET, user["session_key"], token, plain, sign(user["session_key"]), "a-code-nobody-made",
        *wxfake.codes,
    ):
        assert secret not in text
