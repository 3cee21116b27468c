"""The example backends of docs/backends, each in its language, against a real wxlogind."""
import base64
import contextlib
import os
import re
import shutil
import subprocess

import pytest

from conftest import ROOT, Process, call, free_port, poll
from test_proxies import end

BACKENDS = ROOT / "docs" / "backends"
TOKEN = "the-internal-token"
KINDS = {
    "node": ["node", BACKENDS / "backend.mjs"],
    "python": ["python3", BACKENDS / "backend.py"],
    "java": ["java", BACKENDS / "Backend.java"],
    "go": ["go", "run", BACKENDS / "backend.go"],
}


def test_every_example_is_run():
    assert {f.name for f in BACKENDS.iterdir()} == {
        os.path.basename(argv[-1]) for argv in KINDS.values()
    } | {"backend.php"}
    page = (ROOT / "docs/backends.md").read_text()
    assert not [f.name for f in BACKENDS.iterdir() if f"(backends/{f.name})" not in page]
    shown = page.partition("```js\n")[2].partition("```")[0]
    assert shown and shown in (BACKENDS / "backend.mjs").read_text()


@pytest.fixture
def wxlogind(stack, redis, wxfake):
    return stack.server(redis, wxfake, server__internal_token=TOKEN)


def env_of(server, tmp_path, **more):
    return {
        "WXLOGIND": f"http://127.0.0.1:{server.internal}",
        "WX_INTERNAL_TOKEN": TOKEN,
        "HOME": str(tmp_path),
        "GOCACHE": str(tmp_path / "go"),
        "GOPROXY": "off",
        "GOFLAGS": "-mod=mod",
        "GO111MODULE": "off",
        "CGO_ENABLED": "0",
        **more,
    }


def try_it(ask, server, wxfake):
    """ask(authorization) -> (status, text)"""
    token = server.login(wxfake.code(openid="oOfTheBackend")).token
    assert ask(f"Bearer {token}") == (200, "oOfTheBackend")
    assert (
        ask(None)[0] == 401 and ask("Bearer " + "A" * 43)[0] == 401 and ask("Basic abc")[0] == 401
    )
    assert server.session(token, "DELETE").status == 204
    assert ask(f"Bearer {token}")[0] == 401
    server.process.stop()
    assert ask(f"Bearer {token}")[0] == 503


@pytest.mark.parametrize("kind", KINDS)
def test_a_backend_knows_who_is_calling(kind, wxlogind, wxfake, tmp_path):
    assert shutil.which(KINDS[kind][0]), f"{kind} is not installed"
    port = free_port()
    p = Process(
        KINDS[kind],
        tmp_path / "backend.log",
        env=env_of(wxlogind, tmp_path, PORT=str(port)),
        preexec=os.setsid,
    )

    def ask(authorization):
        a = call(
            port, "GET", "/", headers={"Authorization": authorization} if authorization else {}
        )
        return a.status, a.body.decode()

    def is_up():
        assert p.proc.poll() is None, p.text()
        with contextlib.suppress(OSError):
            return ask(None)[0] == 401

    try:
        # Go builds its own library first, where it has not yet
        poll(is_up, seconds=600, what=f"{kind}:\n{p.text()}")
        try_it(ask, wxlogind, wxfake)
    finally:
        with contextlib.suppress(ProcessLookupError):  # go runs what it has built as a child
            os.killpg(p.pid, 15)
        end(p)


def test_a_page_in_php_knows_who_is_calling(wxlogind, wxfake, tmp_path):
    def ask(authorization):
        cgi = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_FILENAME": str(BACKENDS / "backend.php"),
            "REDIRECT_STATUS": "200",
            "PATH": os.environ["PATH"],
        }
        if authorization:
            cgi["HTTP_AUTHORIZATION"] = authorization
        r = subprocess.run(
            ["php-cgi"],
            capture_output=True,
            text=True,
            timeout=30,
            env={**env_of(wxlogind, tmp_path), **cgi},
        )
        head, _, body = r.stdout.replace("\r\n", "\n").partition("\n\n")
        status = [line for line in head.splitlines() if line.startswith("Status: ")]
        return int(status[0].split()[1]) if status else 200, body.strip()

    try_it(ask, wxlogind, wxfake)


def test_spring_security_needs_no_code(wxlogind, wxfake):
    """Its properties in docs/gateways.md, and the request that Spring makes of them: Basic."""
    page = (ROOT / "docs/gateways.md").read_text()
    set_to = dict(re.findall(r"opaquetoken\.([\w-]+)=(\S+)", page))
    assert set_to["introspection-uri"].endswith("/internal/introspect")
    token = wxlogind.login(wxfake.code(openid="oOfSpring")).token

    def ask(secret):
        basic = base64.b64encode(f"{set_to['client-id']}:{secret}".encode()).decode()
        headers = {
            "Authorization": f"Basic {basic}",
            "Accept": "application/json",
            "Content-Type": "application/x-www-form-urlencoded;charset=UTF-8",
        }
        return wxlogind.inside("POST", "/internal/introspect", f"token={token}", headers)

    a = ask(set_to["client-secret"].replace("change-me", TOKEN))
    assert a.status == 200 and a.json["active"] and a.json["sub"] == "oOfSpring", a
    refused = ask("another")
    assert refused.status == 401 and "Basic" not in refused.headers["WWW-Authenticate"]
