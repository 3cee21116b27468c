"""Redis goes away: 503, never a hang, never "not logged in"; and is back by itself."""
import re
import signal

from conftest import APPID, ROOT, poll


def test_killed_and_back(server, redis, wxfake):
    token = server.login(wxfake.code()).token
    redis.kill()
    poll(lambda: not server.ready(), 2, "not ready")
    for a in (server.auth(token), server.session(token), server.login(wxfake.code()), server.session(token, "DELETE")):
        assert (a.status, a.error) == (503, "store_unavailable") and a.seconds < 0.8 and a.headers["Retry-After"] == "1", a
    assert wxfake.calls() == 1  # no code is spent on a login that cannot be kept
    redis.start()
    poll(server.ready, 2, "ready again")
    assert server.auth(token).status == 200
    assert server.login(wxfake.code()).status == 200


def test_frozen(server, redis, wxfake):
    token = server.login(wxfake.code()).token
    redis.signal(signal.SIGSTOP)
    a = server.auth(token)
    assert (a.status, a.error) == (503, "store_unavailable") and a.seconds < 1.5, a
    poll(lambda: not server.ready(), 2, "not ready")
    redis.signal(signal.SIGCONT)
    poll(server.ready, 3, "ready again")
    assert server.auth(token).status == 200


def test_away_at_start(stack, redis, wxfake):
    redis.kill()
    server = stack.server(redis, wxfake, wait=False)
    assert server.inside("GET", "/readyz").status == 503
    assert server.login(wxfake.code()).error == "store_unavailable"
    redis.start()
    poll(server.ready, 3, "ready")
    assert server.login(wxfake.code()).status == 200


def test_password_user_db_and_socket(stack, wxfake):
    redis = stack.redis("--requirepass", "p@ss/w%rd", "--user", "app", "on", ">apppass", "~*", "&*", "+@all")
    for url in (f"redis://:p%40ss%2Fw%25rd@127.0.0.1:{redis.port}/3", f"redis://app:apppass@127.0.0.1:{redis.port}"):
        server = stack.server(redis, wxfake, redis__url=url)
        assert server.login(wxfake.code()).status == 200
    server = stack.server(redis, wxfake, redis__url=f"unix://{redis.socket}?db=2", redis__password="p@ss/w%rd")
    assert server.login(wxfake.code()).status == 200
    wrong = stack.server(redis, wxfake, wait=False, redis__url=f"redis://:secret-nope@127.0.0.1:{redis.port}")
    assert wrong.login(wxfake.code()).error == "store_unavailable"
    assert "secret-nope" not in wrong.process.text()


def test_rights_that_the_documents_name(stack, wxfake):
    """The Redis user of docs/operations.md may do all that wxlogind asks, and nothing is refused."""
    line = re.search(r"^user wxlogind (.*)$", (ROOT / "docs" / "operations.md").read_text(), re.M)[1]
    redis = stack.redis("--user", "wxlogind", *line.split())
    server = stack.server(redis, wxfake, redis__url=f"redis://wxlogind:password@127.0.0.1:{redis.port}", session__ttl="3s", session__max_per_user="2")
    token = [server.login(wxfake.code(openid="oTheSame")).token for _ in range(3)][2]
    poll(lambda: server.auth(token).status == 200 and server.metric("wxlogind_session_cache_total", result="hit"), 3, "an answer from memory")
    poll(lambda: server.session(token).status == 200 and re.search(r"\d\|\d+\|\|wx", redis.written()), 3, "a renewal")
    assert server.session(token, "DELETE").status == 204 and server.auth(token).json["reason"] == "logged_out"
    assert server.inside("DELETE", f"/internal/apps/{APPID}/users/oTheSame/sessions").status == 204
    assert "NOPERM" not in redis.cli("INFO", "errorstats") and server.ready()
