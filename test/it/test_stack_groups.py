"""The local stack's profiles sentinel and cluster: a Redis that fails over. Their own commands and
settings, run on this machine, without a container engine."""
import os
import re
import shutil
import subprocess

import pytest
import yaml

from conftest import BUILD, ROOT, Process, call, free_port, poll
from test_proxies import end
from test_stack import LOCAL, each, load

KINDS = {"sentinel": 3, "cluster": 9}  # servers


class Group:
    """A profile's three services, on an address of their own: the ports of the group are fixed."""

    def __init__(self, kind, tmp_path):
        self.kind, self.dir, self.started = kind, tmp_path, []
        pid = os.getpid()
        self.address = f"127.{100 + pid // 62500 % 100}.{pid // 250 % 250}.{2 + pid % 250}"
        self.fake, self.public, self.internal = free_port(), free_port(), free_port()
        changes = {
            f"wxfake-{kind}:9090": f"127.0.0.1:{self.fake}",
            "0.0.0.0:9090": f"127.0.0.1:{self.fake}",
            f"wxlogind-{kind}:8080": f"127.0.0.1:{self.public}",
            f"wxlogind-{kind}:8081": f"127.0.0.1:{self.internal}",
            "0.0.0.0:8081": f"127.0.0.1:{self.internal}", f"redis-{kind}:": f"{self.address}:",
            "/run/secrets/": f"{ROOT}/test/compose/",
            "/redis-group.sh": f"{ROOT}/test/compose/redis-group.sh",
            "exec wxfake ": f"exec {BUILD}/wxfake ",
        }
        pattern = "|".join(map(re.escape, changes))
        there = each(load(LOCAL), lambda s: re.sub(pattern, lambda m: changes[m[0]], s))
        self.services = {
            k: there["services"][f"{k}-{kind}"] for k in ("redis", "wxfake", "wxlogind")
        }

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self):
        env = {
            "REDIS_GROUP_ADDRESS": self.address, "REDIS_GROUP_DOWN_MS": "1000",
            "TMPDIR": str(self.dir),
        }
        redis = self.services["redis"]
        self.run("redis", redis["command"], env)
        poll(lambda: subprocess.run(
            redis["healthcheck"]["test"][1:], env={**os.environ, **env}, capture_output=True,
        ).returncode == 0, seconds=60, what="the group is healthy")
        self.run("wxfake", self.services["wxfake"]["command"], {})
        self.run("wxlogind", [BUILD / "wxlogind"], {
            **self.services["wxlogind"]["environment"],
            "WXLOGIND_SERVER_LISTEN": f"127.0.0.1:{self.public}",
            "WXLOGIND_USERS_URL": f"sqlite:///{self.dir}/users.db",
        })
        poll(self.is_whole, seconds=60, what="wxfake sees the servers")
        poll(self.is_ready, seconds=60, what="wxlogind is ready")

    def run(self, name, command, env):
        self.started.append(Process(command, self.dir / f"{name}.log", env=env))

    def __exit__(self, *_):
        for p in reversed(self.started):
            end(p)

    def is_ready(self):
        return self.status(self.internal, "/readyz") == 200

    def is_whole(self):
        return len(self.masters()) == {"sentinel": 1, "cluster": 3}[self.kind]

    def status(self, port, path, **kw):
        try:
            return call(port, "GET", path, **kw).status
        except OSError:
            return 0

    def masters(self):
        try:
            servers = call(self.fake, "GET", "/fake/redis").json
        except OSError:
            return set()
        assert len(servers) == KINDS[self.kind]
        return {s["server"] for s in servers if s["role"] == "master"}

    def owner_of_sessions(self):
        """The master that has the one session there is."""
        env = {**os.environ, "REDISCLI_AUTH": "local-stack-only"}
        for server in self.masters():
            host, port = server.split(":")
            scan = ["redis-cli", "-h", host, "-p", port, "--scan", "--pattern", "wxlogin:s:*"]
            if subprocess.run(scan, capture_output=True, env=env, check=True).stdout:
                return server
        return None

    def login(self):
        code = call(self.fake, "POST", "/fake/code").json["code"]
        return call(self.public, "POST", "/v1/login", {"code": code})

    def session(self, token):
        return self.status(
            self.public, "/v1/session", headers={"Authorization": f"Bearer {token}"}
        )


@pytest.mark.parametrize("kind", KINDS)
def test_a_master_dies(kind, tmp_path):
    """What the page's button does: another master is elected, and nobody is logged out."""
    with Group(kind, tmp_path) as g:
        a = g.login()
        assert a.status == 200, a
        before = g.masters()
        assert g.session(a.token) == 200
        owner = g.owner_of_sessions()
        dead = call(g.fake, "POST", "/fake/kill-redis").json["server"]
        assert dead == owner  # else its death would not be felt
        poll(lambda: g.is_whole() and dead not in g.masters(), seconds=60, what="another is master")
        poll(lambda: g.session(a.token) == 200, seconds=60, what="the session is there")
        poll(lambda: g.login().status == 200, seconds=60, what="a login")
        assert g.masters() - before and dead not in g.masters()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("secret", [None, ""])
def test_no_group_without_its_secret(kind, secret, tmp_path):
    if secret is not None:
        (tmp_path / "redis_password").write_text(secret)
    r = subprocess.run(
        ["sh", ROOT / "test/compose/redis-group.sh", kind, tmp_path / "redis_password"],
        capture_output=True, text=True, timeout=20, env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert r.returncode != 0 and "redis_password" in r.stderr, r


@pytest.mark.parametrize("kind", KINDS)
def test_one_command_starts_a_profile(kind):
    """Its services are beside the others, and each is given what the others of it are called."""
    assert shutil.which("docker-compose"), "docker-compose is not installed"
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    command = ["docker-compose", "-f", LOCAL, "--profile", kind, "config"]
    r = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env, timeout=60)
    assert r.returncode == 0 and "warn" not in r.stderr.lower(), r.stderr
    services = yaml.safe_load(r.stdout)["services"]
    of_it = {name for name, s in services.items() if s.get("profiles") == [kind]}
    assert of_it == {f"redis-{kind}", f"wxfake-{kind}", f"wxlogind-{kind}"}
    published = [str(p) for s in services.values() for p in s.get("ports", [])]
    assert len(published) == len(set(published))
    wxlogind, wxfake = services[f"wxlogind-{kind}"], services[f"wxfake-{kind}"]
    assert set(wxlogind["depends_on"]) == {f"redis-{kind}", f"wxfake-{kind}"}
    assert wxlogind["environment"]["WXLOGIND_REDIS_URL"].startswith(f"{kind}://redis-{kind}:")
    assert wxlogind["environment"]["WXLOGIND_WECHAT_BASE_URL"] == f"http://wxfake-{kind}:9090"
    assert wxfake["command"][2].count(f"wxlogind-{kind}:") == 2
    assert "--kill-redis" in wxfake["command"][2]
    assert "--kill-redis" not in services["wxfake"]["command"][2]  # nobody would start it again


@pytest.mark.parametrize("kind", KINDS)
def test_a_profile_s_ports_are_variables(kind):
    names = {f"WX_{kind.upper()}_PORT": "1001", f"WX_{kind.upper()}_FAKE_PORT": "1002"}
    services = load(LOCAL, **names)["services"]
    wxlogind, wxfake = services[f"wxlogind-{kind}"], services[f"wxfake-{kind}"]
    assert wxlogind["ports"] == ["127.0.0.1:1001:8080"]
    assert wxfake["ports"] == ["127.0.0.1:1002:9090"]
    origins = wxlogind["environment"]["WXLOGIND_SERVER_CORS_ORIGINS"]
    assert origins == "http://127.0.0.1:1002, http://localhost:1002"
    assert '--wxlogind "http://127.0.0.1:1001"' in wxfake["command"][2]
    header = (ROOT / LOCAL).read_text().partition("\nx-careful")[0]
    assert all(name in header for name in names) and f"--profile {kind} up -d --build" in header
