"""Several workers and their supervisor, signals, and the sockets that they share."""
import concurrent.futures
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import stat
import tempfile
import time

import pytest

from conftest import APPID, BUILD, SECRET, Process, call, free_port, poll


def workers(server):
    return open(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read().split()


def kill_one(server):
    """Another takes its place."""
    poll(lambda: len(workers(server)) == 2, what="both workers")
    before = workers(server)
    os.kill(int(before[0]), signal.SIGKILL)
    poll(
        lambda: len(workers(server)) == 2 and before[0] not in workers(server),
        what="another worker",
    )


def test_workers_share_the_ports(stack, redis, wxfake):
    server = stack.server(redis, wxfake, server__workers="2")
    for _ in range(20):
        token = server.login(wxfake.code()).token
        assert server.auth(token).status == 200
    kill_one(server)
    # whichever worker is asked, it speaks for all of them, the dead one's work included
    assert server.metric("wxlogind_logins_total", outcome="ok") == 20
    poll(lambda: server.metric("wxlogind_redis_connected") == 1, what="all connected")


def test_a_late_worker_knows_of_the_reload(stack, redis, wxfake):
    server = stack.server(
        redis, wxfake, server__workers="2", **{f"app_{APPID}__secret": "not the secret"}
    )
    assert server.login(wxfake.code()).error == "wechat_config"
    server.file.write_text(server.file.read_text().replace("not the secret", SECRET))
    server.process.signal(signal.SIGHUP)
    poll(lambda: server.process.text().count("msg=reloaded") == 2, what="reloaded")
    kill_one(server)
    poll(lambda: server.metric("wxlogind_redis_connected") == 1, what="all connected")
    assert {server.login(wxfake.code()).status for _ in range(20)} == {200}


def test_workers_share_the_limits(stack, redis, wxfake):
    """A caller's connections land on any worker: its share is one all the same."""
    server = stack.server(redis, wxfake, server__workers="3", limit__login_per_app="10/1h")
    assert sorted(server.login("no such code").status for _ in range(30)) == [401] * 10 + [429] * 20
    assert server.metric("wxlogind_logins_total", outcome="rate_limited") == 20


def test_a_core_each_is_no_change(stack, redis, wxfake):
    server = stack.server(redis, wxfake, server__workers="0")
    server.process.signal(signal.SIGHUP)
    poll(lambda: "msg=reloaded" in server.process.text(), what="reloaded")
    assert "needs a restart" not in server.process.text()


# ---- signals ----

@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_to_the_whole_group_is_one(stack, redis, wxfake, workers, times, signo):
    """systemd, Ctrl-C and timeout(1) signal all processes; the last does so twice."""
    server = stack.server(redis, wxfake, server__workers=str(workers), preexec=os.setsid)
    wxfake.fault(mode="slow", delay_ms=700, count=6)
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        logins = [pool.submit(server.login, wxfake.code()) for _ in range(6)]
        poll(lambda: wxfake.calls() == 6, what="six in flight")
        for _ in range(times):
            os.killpg(server.process.pid, signo)
            time.sleep(0.05)  # apart: signals that wait at the same time are one
        assert [a.result().status for a in logins] == [200] * 6
    assert server.process.proc.wait(10) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_signals_that_end_nothing(stack, redis, wxfake, workers):
    server = stack.server(redis, wxfake, server__workers=str(workers), preexec=os.setsid)
    os.killpg(server.process.pid, signal.SIGUSR1)
    os.killpg(server.process.pid, signal.SIGHUP)
    poll(lambda: server.process.text().count("msg=reloaded") == workers, what="reloaded")
    assert server.login(wxfake.code()).status == 200
    assert "draining" not in server.process.text()


def test_a_second_signal_ends_the_crew_at_once(stack, redis, wxfake):
    server = stack.server(redis, wxfake, server__workers="2", wechat__timeout="20s")
    wxfake.fault(mode="hang")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(server.login, wxfake.code())
        poll(lambda: wxfake.calls() == 1, what="the call")
        server.process.signal(signal.SIGTERM)

        def told_again():
            server.process.signal(signal.SIGTERM)
            return server.process.proc.poll() is not None
        poll(told_again, what="the end")
    assert server.process.proc.returncode == 0


def test_a_worker_that_hangs_does_not_keep_the_end(stack, redis, wxfake):
    server = stack.server(redis, wxfake, server__workers="2", server__drain_timeout="100ms")
    stack.made["server"].remove(server)  # its exit is no clean one
    os.kill(int(workers(server)[0]), signal.SIGSTOP)
    server.process.signal(signal.SIGTERM)
    assert server.process.proc.wait(20) not in (0, 1, 2, 3)


def test_drain_delay(stack, redis, wxfake):
    """Balancers see 503 from /readyz, and what comes meanwhile is served."""
    for n in ("1", "2"):
        server = stack.server(redis, wxfake, server__workers=n, server__drain_delay="1500ms")
        server.process.signal(signal.SIGTERM)
        poll(lambda: server.inside("GET", "/readyz").status == 503, what="not ready")
        assert server.login(wxfake.code()).status == 200
        assert server.process.proc.wait(10) == 0


# ---- a worker that dies ----

def test_the_last_good_configuration_is_everywhere(stack, redis, wxfake):
    """A new worker does not run what the file said at the start, nor what it says now."""
    server = stack.server(
        redis, wxfake, wait=False, server__workers="2", server__internal_token="token-A"
    )
    text = server.file.read_text()

    def asked(token):
        return call(server.internal, "GET", "/metrics", headers={"X-Internal-Token": token}).status
    server.file.write_text(text.replace("token-A", "token-B"))
    server.process.signal(signal.SIGHUP)
    poll(lambda: server.process.text().count("msg=reloaded") == 2, what="reloaded")
    server.file.write_text(text.replace("token-A", "token-C") + "[nonsense]\n")
    server.process.signal(signal.SIGHUP)
    poll(lambda: "reload failed" in server.process.text(), what="refused")
    for _ in range(2):
        kill_one(server)
        assert {asked("token-A") for _ in range(20)} == {401}
        assert {asked("token-B") for _ in range(20)} == {200}
    server.file.write_text(text.replace("token-A", "token-C"))
    os.kill(int(workers(server)[0]), signal.SIGHUP)  # not the supervisor: it changes nothing
    assert {asked("token-B") for _ in range(20)} == {200}
    server.process.signal(signal.SIGHUP)
    poll(lambda: {asked("token-C") for _ in range(20)} == {200}, what="reloaded")


def test_what_needs_a_restart_waits_in_a_new_worker_too(stack, redis, wxfake):
    server = stack.server(redis, wxfake, server__workers="2", session__ttl="1h")
    server.file.write_text(server.file.read_text().replace("ttl = 1h", "ttl = 2h"))
    server.process.signal(signal.SIGHUP)
    poll(lambda: server.process.text().count("msg=reloaded") == 2, what="reloaded")
    assert server.process.text().count("key=session.ttl") == 1
    kill_one(server)
    assert {server.login(wxfake.code()).json["expires_in"] for _ in range(20)} == {3600}


def test_a_worker_that_cannot_start_is_tried_again(stack, redis, wxfake):
    """And meanwhile no connection waits for it."""
    home = stack.dir / "users"
    home.mkdir()
    server = stack.server(
        redis, wxfake, server__workers="2", users__url=f"sqlite://{home}/users.db"
    )
    token = server.login(wxfake.code()).token
    home.rename(stack.dir / "away")
    home.write_text("no directory any more")
    victim = workers(server)[0]
    os.kill(int(victim), signal.SIGKILL)
    poll(lambda: server.process.text().count("a worker ended") >= 3, seconds=30, what="tried twice")
    for _ in range(40):
        assert (
            server.inside(
                "GET", "/internal/auth", headers={"Authorization": f"Bearer {token}"}, timeout=3
            ).status == 200
        )
    home.unlink()
    (stack.dir / "away").rename(home)
    poll(
        lambda: server.process.text().count("msg=\"wxlogind is up\"") == 3, seconds=30,
        what="another worker",
    )
    assert victim not in workers(server)


def test_a_crew_that_was_never_complete_ends(stack, redis, wxfake):
    server = stack.server(
        redis, wxfake, server__workers="2", users__url=f"sqlite://{stack.dir}/users.db"
    )
    server.process.stop()
    server.file.write_text(server.file.read_text().replace("users.db", "no/such/place/users.db"))
    other = Process([BUILD / "wxlogind", "-c", server.file], stack.dir / "other.log")
    assert other.proc.wait(20) == 1


def test_a_worker_dies_while_nobody_reads_the_log(stack, redis, wxfake):
    """The supervisor's line about it has no reader, and ends nobody."""
    reader, writer = os.pipe()
    server = stack.server(redis, wxfake, server__workers="2", preexec=lambda: os.dup2(writer, 2))
    os.close(writer)
    os.close(reader)
    kill_one(server)
    assert server.login(wxfake.code()).status == 200


# ---- the log ----

def test_every_line_is_json(stack, redis, wxfake):
    """The supervisor's too, and what is said of the configuration."""
    server = stack.server(
        redis, wxfake, log__format="json", server__workers="2", session__encryption_key=""
    )
    kill_one(server)
    server.file.write_text("[nonsense]\n")
    server.process.signal(signal.SIGHUP)
    poll(lambda: "reload failed" in server.process.text(), what="refused")
    server.process.stop()
    said = [json.loads(line)["msg"] for line in server.process.text().splitlines()]
    assert "configuration" in said and "a worker ended: starting another" in said


def test_the_level_holds_for_the_supervisor(stack, redis, wxfake):
    server = stack.server(redis, wxfake, log__level="error", server__workers="2")
    assert server.process.text() == ""
    server.file.write_text(server.file.read_text().replace("level = error", "level = info"))
    server.process.signal(signal.SIGHUP)
    poll(lambda: server.process.text().count("msg=reloaded") == 2, what="reloaded")
    server.file.write_text(
        server.file.read_text()
        .replace("[server]\n", "[server]\nworkers = 3\n")
        .replace("workers = 2\n", "")
    )
    server.process.signal(signal.SIGHUP)  # of this the supervisor alone speaks
    poll(
        lambda: "a changed setting needs a restart" in server.process.text(),
        what="a line of the supervisor",
    )


# ---- sockets and descriptors ----

@pytest.mark.parametrize("n", ["1", "2"])
def test_an_address_in_use(stack, redis, wxfake, n):
    """The second of two that were started by mistake takes no part of the first one's
    connections."""
    server = stack.server(redis, wxfake, server__workers=n)
    other = Process([BUILD / "wxlogind", "-c", server.file], stack.dir / "other.log")
    assert other.proc.wait(10) == 3
    assert "Address already in use" in other.text() and str(server.port) in other.text()


@pytest.mark.parametrize("n", ["1", "2"])
def test_a_unix_socket(stack, redis, wxfake, n):
    path = stack.dir / "public.sock"
    server = stack.server(
        redis, wxfake, server__listen=f"unix:{path}", server__workers=n, server__unix_mode="0620",
        server__unix_group="12345",
    )
    s = path.stat()
    assert (stat.S_IMODE(s.st_mode), s.st_gid) == (0o620, 12345)

    def answers():
        with socket.socket(socket.AF_UNIX) as c:
            c.settimeout(5)
            c.connect(str(path))
            c.sendall(b"GET /v1/session HTTP/1.1\r\nHost: x\r\n\r\n")
            return b" 401 " in c.recv(4096)
    assert all(answers() for _ in range(20))
    if n == "2":
        for _ in range(2):  # whichever worker dies, the socket lives
            kill_one(server)
            assert all(answers() for _ in range(20))
    server.process.stop()
    assert not path.exists()


def test_a_unix_socket_of_another_process_stays(stack, redis, wxfake):
    """One that has taken the path meanwhile."""
    path = stack.dir / "public.sock"
    server = stack.server(redis, wxfake, server__listen=f"unix:{path}")
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        server.process.stop()
        assert path.exists()


def test_no_such_group(stack, redis, wxfake):
    server = stack.server(redis, wxfake)
    server.process.stop()
    text = server.file.read_text().replace(
        f"listen = 127.0.0.1:{server.port}",
        f"listen = unix:{stack.dir}/x.sock\nunix_group = no-such-group", 1,
    )
    server.file.write_text(text)
    other = Process([BUILD / "wxlogind", "-c", server.file], stack.dir / "other.log")
    assert other.proc.wait(10) == 3 and "no such group" in other.text()


def test_standard_descriptors_are_open(stack, redis, wxfake):
    """Else a socket would come to be standard error, and log lines go to a stranger."""
    def close_all():
        for fd in range(3):
            os.close(fd)
    server = stack.server(redis, wxfake, preexec=close_all)
    assert server.login(wxfake.code()).status == 200
    try:
        files = {os.readlink(f"/proc/{server.process.pid}/fd/{fd}") for fd in range(3)}
    except PermissionError:
        pytest.skip(
            "this root may not look into a process that is not dumpable (CAP_SYS_PTRACE), as in "
            "most containers"
        )
    assert files == {"/dev/null"}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_memory_is_not_dumpable(stack):
    """The files of /proc belong to root then, whoever runs the process; and there is no core
    file."""
    port, internal = free_port(), free_port()
    env = {
        "WXLOGIND_SERVER_LISTEN": f"127.0.0.1:{port}",
        "WXLOGIND_SERVER_INTERNAL_LISTEN": f"127.0.0.1:{internal}", "WXLOGIND_APPID": APPID,
        "WXLOGIND_SECRET": SECRET, "WXLOGIND_USERS_URL": "none",
        "WXLOGIND_REDIS_URL": "redis://127.0.0.1:1/0", "WXLOGIND_SERVER_WORKERS": "2",
    }
    with tempfile.TemporaryDirectory() as place:  # the checkout may be for its owner only
        os.chmod(place, 0o755)
        program = shutil.copy(BUILD / "wxlogind", place)
        p = Process([program], stack.dir / "log", env=env, preexec=lambda: os.setuid(65534))

    def is_up():
        with contextlib.suppress(OSError):
            return call(internal, "GET", "/healthz").status == 200
    poll(is_up, what="wxlogind")
    children = poll(
        lambda: [
            c
            for c in [pathlib.Path(f"/proc/{p.pid}/task/{p.pid}/children").read_text().split()]
            if len(c) == 2
        ],
        what="two workers",
    )[0]
    for pid in (p.pid, *children):
        assert os.stat(f"/proc/{pid}/mem").st_uid == 0  # else 65534
    p.stop()
