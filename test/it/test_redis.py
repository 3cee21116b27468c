"""Redis goes away: 503, never a hang, never "not logged in"; and is back by itself."""
import signal

from conftest import poll


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
