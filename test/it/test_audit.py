"""The audit log: who did what to whom, one JSON line each."""
import json
import re
import signal
import subprocess

from conftest import APPID, BUILD, KEY, ROOT, free_port, poll

SINCE = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(path, event, n=1):
    return poll(
        lambda: [x for x in lines(path) if x["event"] == event][n - 1 :],
        what=f"{n} x {event} in the audit log",
    )[-1]


def audited(stack, redis, wxfake, **config):
    path = stack.dir / "audit.log"
    return (
        stack.server(
            redis, wxfake, audit__file=path, users__url=f"sqlite://{stack.dir}/users.db", **config
        ),
        path,
    )


def test_what_a_user_does(stack, redis, wxfake):
    server, path = audited(stack, redis, wxfake)
    token = server.login(wxfake.code(), headers={"X-Request-Id": "login-1"}).token
    head = {"Authorization": f"Bearer {token}"}
    line = wait_for(path, "login")
    assert re.fullmatch(SINCE, line.pop("time")) and re.fullmatch("[0-9a-f]{32}", line.pop("user"))
    assert line == {
        "event": "login", "appid": APPID, "by": "user", "ip": "127.0.0.1", "request_id": "login-1",
        "result": "ok",
    }
    assert server.call("PUT", "/v1/user", {"nickName": "Li"}, head).status == 200
    assert server.call("GET", "/v1/user", headers=head).status == 200
    assert (
        server.call(
            "POST", "/v1/user/phone",
            {"code": wxfake.code(kind="phone", openid=next(iter(wxfake.openids)))},
            head,
        ).status == 200
    )
    for event in ("profile_changed", "user_read", "phone_read"):
        assert wait_for(path, event)["by"] == "user"
    assert len({x["user"] for x in lines(path)}) == 1


def test_a_login_that_is_refused(stack, redis, wxfake):
    server, path = audited(stack, redis, wxfake)
    assert server.login("no such code").status == 401
    assert wait_for(path, "login_refused")["result"] == "invalid_code"


def test_a_repeat_says_so(stack, redis, wxfake):
    server, path = audited(stack, redis, wxfake)
    code = wxfake.code()
    assert server.login(code, nonce="n").token == server.login(code, nonce="n").token
    assert wait_for(path, "login", 2)["detail"] == "replayed"


def test_what_backends_do(stack, redis, wxfake):
    server, path = audited(stack, redis, wxfake, audit__openid="clear")
    token = server.login(wxfake.code()).token
    openid = next(iter(wxfake.openids))
    user = f"/internal/apps/{APPID}/users/{openid}"
    head = {"X-Wx-Actor": "li.si\"\\"}
    assert server.inside("GET", user, headers=head).status == 200
    assert server.inside("GET", f"/internal/apps/{APPID}/access-token", headers=head).status == 200
    assert server.inside("DELETE", user + "/sessions", headers=head).status == 204
    assert server.session(token).status == 401
    for event, about in (("user_read", openid), ("token_read", None), ("session_ended", openid)):
        line = wait_for(path, event)
        assert (line["by"], line["actor"], line.get("user")) == ("backend", "li.si\"\\", about)
    assert server.inside("GET", f"/internal/apps/{APPID}/users/oNobody").status == 404
    assert server.inside("DELETE", user + "/sessions/nonsense").status == 400
    server.process.stop()
    # what failed is not in it
    assert [x["event"] for x in lines(path)] == [
        "login", "user_read", "token_read", "session_ended",
    ]


def test_a_user_is_not_named_in_clear(stack, redis, wxfake):
    server, path = audited(stack, redis, wxfake)
    server.login(wxfake.code())
    wait_for(path, "login")
    assert next(iter(wxfake.openids)) not in path.read_text()


def test_rotation_and_reload(stack, redis, wxfake):
    server, path = audited(stack, redis, wxfake)
    server.login(wxfake.code())
    wait_for(path, "login")
    old = path.rename(path.with_suffix(".1"))
    server.process.signal(signal.SIGHUP)
    assert wait_for(path, "config_reloaded")["result"] == "ok"
    server.file.write_text(server.file.read_text() + "nonsense\n")
    server.process.signal(signal.SIGHUP)
    assert wait_for(path, "config_reloaded", 2)["result"] == "refused"
    server.login(wxfake.code())
    wait_for(path, "login")
    assert [x["event"] for x in lines(old)] == ["login"]
    assert path.stat().st_mode & 0o777 == 0o640


def test_several_workers_share_a_file(stack, redis, wxfake):
    server, path = audited(stack, redis, wxfake, server__workers="2")
    for _ in range(20):
        assert server.login(wxfake.code()).status == 200
    wait_for(path, "login", 20)
    server.process.stop()
    assert len(lines(path)) == 20


def test_a_file_that_cannot_be_opened_ends_the_start(stack, redis, wxfake, tmp_path):
    server, _ = audited(stack, redis, wxfake)
    bad = tmp_path / "bad.ini"
    bad.write_text(
        re.sub(
            r"file = .*", "file = /nowhere/audit.log",
            re.sub(
                r"(?m)^((?:internal_)?listen = 127.0.0.1:)\d+$", lambda m: m[1] + str(free_port()),
                server.file.read_text(),
            ),
        )
    )
    r = subprocess.run([BUILD / "wxlogind", "-c", bad], capture_output=True, text=True, timeout=20)
    assert (
        r.returncode == 1
        and "cannot open the audit log" in r.stderr
        and "No such file or directory" in r.stderr
    )


def test_hash_needs_a_key(stack, redis, wxfake, tmp_path):
    server, _ = audited(stack, redis, wxfake)
    bad = tmp_path / "bad.ini"
    bad.write_text(server.file.read_text().replace(KEY, ""))
    r = subprocess.run([BUILD / "wxlogind", "-c", bad, "--check"], capture_output=True, text=True)
    assert r.returncode == 1 and "openid = hash needs" in r.stderr


def test_the_document_lists_every_event():
    rows = re.findall(
        r'X\(\w+,\s*"(\w+)",\s*"([^"]*)"\)', (ROOT / "server/store/audit.h").read_text()
    )
    page = (
        (ROOT / "docs/audit.md")
        .read_text()
        .split("<!-- audit events -->")[1]
        .split("<!-- end -->")[0]
    )
    assert re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.M) == rows
