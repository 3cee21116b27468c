"""The container stacks, as far as they can be held without a container engine: the compose files,
the Dockerfile, what they mount, and the local stack's own commands and settings, run on this
machine."""
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess

import pytest
import yaml

from conftest import APPID, BUILD, ROOT, Process, call, free_port, poll
from test_image import stage
from test_proxies import end

LOCAL, PROD = "docker-compose.yml", "docker-compose.prod.yml"
PROD_ENV = {"WX_DOMAIN": "login.example.com", "WX_APPID": "wx0123456789abcdef"}
SECRETS = {
    "app_secret": "0123456789abcdef0123456789abcdef", "internal_token": "t0ken",
    "redis_password": "passw0rd", "encryption_key": "ab" * 32,
}


def interpolate(text, env):
    """What compose does to values: $$ is $, ${NAME:?why} is the environment's, and ${NAME:-default}
    may be."""
    return re.sub(
        r"\$\$|\$\{(\w+):([?-])([^}]*)\}",
        lambda m: "$" if not m[1] else env[m[1]] if m[2] == "?" else env.get(m[1], m[3]), text,
    )


def each(value, change):
    if isinstance(value, dict):
        return {k: each(v, change) for k, v in value.items()}
    if isinstance(value, list):
        return [each(v, change) for v in value]
    return change(value) if isinstance(value, str) else value


def load(name, **env):
    return each(
        yaml.safe_load((ROOT / name).read_text()), lambda s: interpolate(s, {**PROD_ENV, **env})
    )


def seconds(duration):
    n, unit = re.fullmatch(r"(\d+)(s|m)", duration).groups()
    return int(n) * {"s": 1, "m": 60}[unit]


def checked(environment, secrets, tmp_path):
    """wxlogind --check with the environment of the container, its secret files found under
    tmp_path."""
    for name, text in secrets.items():
        (tmp_path / name).write_text(text + "\n")
    env = {k: v.replace("/run/secrets/", f"{tmp_path}/") for k, v in environment.items()}
    return subprocess.run(
        [BUILD / "wxlogind", "--check"],
        capture_output=True, text=True, env={"PATH": os.environ["PATH"], **env}, timeout=20,
    )


@pytest.mark.parametrize(
    "name, service",
    [
        (LOCAL, "wxlogind"), (LOCAL, "wxlogind-sentinel"), (LOCAL, "wxlogind-cluster"),
        (PROD, "wxlogind"),
    ],
)
def test_wxlogind_takes_its_settings(name, service, tmp_path):
    r = checked(load(name)["services"][service]["environment"], SECRETS, tmp_path)
    assert r.returncode == 0 and "is no setting" not in r.stderr, r.stderr
    assert name == LOCAL or not r.stderr  # the local one is warned that its WeChat speaks no TLS


@pytest.mark.parametrize("name", [LOCAL, PROD])
def test_settings_commented_out_are_settings_too(name, tmp_path):
    environment = load(name)["services"]["wxlogind"]["environment"]
    offered = dict(re.findall(r"^\s*#(WXLOGIND_\w+): (\S+)", (ROOT / name).read_text(), re.M))
    r = checked({**environment, **offered}, SECRETS, tmp_path)
    assert r.returncode == 0 and "is no setting" not in r.stderr, r.stderr


@pytest.mark.parametrize("name", [LOCAL, PROD])
def test_what_is_open(name):
    for service, s in load(name)["services"].items():
        for port in s.get("ports", []):
            assert port.startswith("127.0.0.1:") if name == LOCAL else service == "caddy", (
                service, port,
            )
    assert name == LOCAL or load(name)["services"]["caddy"]["ports"]


def test_each_port_is_one_variable():
    """The page's address is among the origins, and wxfake tells the page where wxlogind is."""
    there = load(LOCAL, WX_PORT="1001", WX_INTERNAL_PORT="1002", WX_FAKE_PORT="1003")["services"]
    assert there["wxlogind"]["ports"] == ["127.0.0.1:1001:8080", "127.0.0.1:1002:8081"] and there[
        "wxfake"
    ]["ports"] == ["127.0.0.1:1003:9090"]
    assert (
        there["wxlogind"]["environment"]["WXLOGIND_SERVER_CORS_ORIGINS"]
        == "http://127.0.0.1:1003, http://localhost:1003"
    )
    assert "--wxlogind \"http://127.0.0.1:1001\"" in there["wxfake"]["command"][2]
    there = load(PROD, WX_HTTP_PORT="1001", WX_HTTPS_PORT="1002", WX_EDGE_SUBNET="10.9.8.0/28")
    assert there["services"]["caddy"]["ports"] == ["1001:80", "1002:443", "1002:443/udp"]
    assert there["networks"]["edge"]["ipam"]["config"] == [{"subnet": "10.9.8.0/28"}]
    assert (
        there["services"]["wxlogind"]["environment"]["WXLOGIND_SERVER_TRUSTED_PROXIES"]
        == "10.9.8.0/28"
    )


def test_scripts_run(tmp_path):
    """With --once it logs in and ends; without, it stays until it is told to end, and leaves
    nothing behind."""
    env = {**os.environ, "TMPDIR": str(tmp_path), "MAKEFLAGS": ""}
    assert (
        subprocess.run(
            ["scripts/run", "--once"], cwd=ROOT, env=env, capture_output=True, timeout=300
        ).returncode == 0
    )
    with open(tmp_path / "said", "wb") as said:
        p = subprocess.Popen(
            ["scripts/run"], cwd=ROOT, env=env, stdout=said, stderr=said, start_new_session=True
        )
    try:
        poll(
            lambda: "See it in a browser" in (tmp_path / "said").read_text(), seconds=120, what="up"
        )
        p.terminate()  # was wrong: bash waited for tail, which nobody ended
        assert p.wait(30) == 143
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(p.pid, signal.SIGKILL)
        assert p.poll() is not None
    assert [f.name for f in tmp_path.iterdir()] == ["said"]
    assert subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True).returncode == 1


def test_the_local_stack_is_set_as_scripts_run_sets_it():
    script = (ROOT / "scripts/run").read_text()
    ini = script.partition("<<INI\n")[2].partition("\nINI\n")[0]
    section, theirs = "", {}
    for line in ini.splitlines():
        section = line.strip("[]") if line.startswith("[") else section
        if "=" in line:
            key, _, value = line.partition("=")
            theirs[f"WXLOGIND_{section}_{key.strip()}".upper()] = value.strip()
    ours = load(LOCAL)["services"]["wxlogind"]["environment"]
    assert {k for k in theirs if k.startswith(("WXLOGIND_SESSION", "WXLOGIND_WECHAT"))} <= set(ours)
    assert theirs["WXLOGIND_SESSION_MAX_PER_USER"] == ours["WXLOGIND_SESSION_MAX_PER_USER"] == "1"


def command(service, changes):
    return [
        re.sub("|".join(map(re.escape, changes)), lambda m: changes[m[0]], a)
        for a in service["command"]
    ]


@pytest.mark.parametrize("what", ["missing", "a directory", "empty", "unreadable"])
@pytest.mark.parametrize("name, service", [(LOCAL, "redis"), (PROD, "redis"), (PROD, "caddy")])
def test_nothing_starts_without_its_secret(name, service, what, tmp_path):
    """Was wrong: Redis started without a password, and was healthy. A missing file becomes a
    directory when an engine mounts it."""
    s = load(name)["services"][service]
    for secret in s["secrets"]:
        if what == "a directory":
            (tmp_path / secret).mkdir()
        elif what in ("empty", "unreadable"):
            (tmp_path / secret).write_text("" if what == "empty" else "passw0rd")
            (tmp_path / secret).chmod(0)
    argv = command(
        s,
        {
            "/run/secrets/": f"{tmp_path}/", "redis-server /etc/redis.conf": "echo STARTED",
            "caddy run": "echo STARTED caddy run",
        },
    )
    drop = (
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        if os.geteuid() == 0 and what == "unreadable"
        else []
    )
    if drop:  # as the containers' users are: not root
        for parent in [tmp_path, *tmp_path.parents]:
            if parent.stat().st_mode & 0o005 != 0o005 and parent.owner() == "root":
                parent.chmod(parent.stat().st_mode | 0o055)
    r = subprocess.run(
        [*drop, *argv], capture_output=True, text=True, timeout=20, env={"PATH": os.environ["PATH"]}
    )
    assert (
        r.returncode != 0
        and "STARTED" not in r.stdout
        and re.search(f"{s['secrets'][0]}", r.stderr)
    ), r
    if what == "missing":
        for secret in s["secrets"]:
            (tmp_path / secret).write_text("passw0rd\n")
        r = subprocess.run(
            argv, capture_output=True, text=True, timeout=20, env={"PATH": os.environ["PATH"]}
        )
        assert r.returncode == 0 and "STARTED" in r.stdout, r


def test_health_checks_ask_no_proxy(tmp_path):
    """Engines and companies inject http_proxy: the check of a healthy container failed for ever."""
    import shlex
    seen = 0
    checks = [
        s["healthcheck"]["test"] for name in (LOCAL, PROD) for s in load(name)["services"].values()
    ]
    checks.append(
        yaml.safe_load(
            "["
            + re.search(r"HEALTHCHECK .*?CMD \[(.*)\]", (ROOT / "Dockerfile").read_text())[1]
            + "]"
        )
    )
    port = free_port()
    served = Process(
        ["python3", "-m", "http.server", "--bind", "127.0.0.1", port], tmp_path / "log"
    )
    try:
        poll(lambda: not socket.socket().connect_ex(("127.0.0.1", port)), what="a server")
        for check in checks:
            argv = [
                re.sub(r"http://127\.0\.0\.1:\d+/\S*", f"http://127.0.0.1:{port}/", a)
                for a in check
                if a not in ("CMD", "CMD-SHELL")
            ]
            if argv[0] == "curl":
                r = subprocess.run(
                    argv, capture_output=True,
                    env={
                        "PATH": os.environ["PATH"], "http_proxy": "http://127.0.0.1:1",
                        "HTTP_PROXY": "http://127.0.0.1:1",
                    },
                )
                assert r.returncode == 0, (argv, r.stderr)
                seen += 1
            elif argv[0] == "wget":  # busybox', in Caddy's image
                assert argv[1:3] == ["-Y", "off"]
                seen += 1
            else:
                assert not re.search("curl|wget", shlex.join(argv)), argv
    finally:
        end(served)
    assert seen >= 5
    assert re.search(r"^export no_proxy='\*'", (ROOT / "scripts/run").read_text(), re.M)


def test_a_checkout_on_windows_has_line_ends_of_linux(tmp_path):
    """With CRLF the password of Redis had one more character in wxlogind's eyes, or in Redis'."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("no checkout, or no git")
    listed = subprocess.run(["git", "ls-files", "--eol"], cwd=ROOT, capture_output=True, text=True)
    assert listed.returncode == 0, listed.stderr
    wrong = [
        line
        for line in listed.stdout.splitlines()
        if not re.search(r"attr/(text=auto eol=lf|text eol=lf|-text)\s", line)
        or "i/crlf" in line
        and "attr/-text" not in line
    ]
    assert not wrong, wrong


@pytest.mark.parametrize("name", [LOCAL, PROD])
def test_secrets(name):
    stack = load(name)
    used = {n for s in stack["services"].values() for n in s.get("secrets", [])}
    assert used == set(stack["secrets"])
    for service, s in stack["services"].items():  # a file that is read is one that is given
        assert set(re.findall(r"/run/secrets/(\w+)", str(s))) == set(s.get("secrets", [])), service
    for n, secret in stack["secrets"].items():
        path = ROOT / secret["file"]
        if name == LOCAL:
            assert len(path.read_text().split()) == 1
        else:
            how = (
                (ROOT / "docs/operations.md")
                .read_text()
                .partition("```sh\n")[2]
                .partition("```")[0]
            )
            assert secret["file"] == f"./secrets/{n}" and re.search(rf"\b{n}\b", how)
    assert "secrets/" in (ROOT / ".gitignore").read_text().split()
    assert (
        "*" in (ROOT / ".dockerignore").read_text().split()
        and "!secrets" not in (ROOT / ".dockerignore").read_text()
    )


def test_what_is_mounted_is_readable_by_the_containers_users():
    """git keeps no more of a mode than this; a checkout under umask 077 wants a chmod."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("no checkout, or no git")
    listed = subprocess.run(
        ["git", "ls-files", "-s", "test/compose"], cwd=ROOT, capture_output=True, text=True
    )
    assert listed.returncode or {line.split()[0] for line in listed.stdout.splitlines()} == {
        "100644"
    }


@pytest.mark.parametrize("name", [LOCAL, PROD])
def test_every_service(name):
    services = load(name)["services"]
    for service, s in services.items():
        assert s["healthcheck"]["test"], service
        for other, how in s.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}, (service, other)
            assert services[other].get("profiles") in (None, s.get("profiles")), (service, other)
        for v in s.get("volumes", []):
            source = v.split(":")[0]
            assert (
                (ROOT / source).is_file()
                if source.startswith(".")
                else source in load(name)["volumes"]
            ), v
        if service != "mariadb":  # its image begins as root
            assert (
                s["read_only"]
                and s["cap_drop"] == ["ALL"]
                and s["security_opt"] == ["no-new-privileges:true"]
            ), service
    drain = re.search(r"`drain_timeout` \| `(\w+)`", (ROOT / "docs/configuration.md").read_text())[
        1
    ]
    assert seconds(services["wxlogind"]["stop_grace_period"]) > seconds(drain)
    assert "wxfake" in services if name == LOCAL else "wxfake" not in (ROOT / PROD).read_text()


@pytest.mark.parametrize("name", [LOCAL, PROD])
def test_docker_compose_accepts_them(name):
    """1.29 on Debian 12, a newer one on Debian 13: neither needs an engine for this."""
    assert shutil.which("docker-compose"), "docker-compose is not installed"
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    r = subprocess.run(
        ["docker-compose", "-f", name, "config"],
        cwd=ROOT, capture_output=True, text=True, env={**env, **PROD_ENV}, timeout=60,
    )
    assert r.returncode == 0 and "warn" not in r.stderr.lower(), r.stderr
    services = yaml.safe_load(r.stdout)["services"]
    assert (
        set(services) >= {"wxlogind", "redis"}
        and services["wxlogind"]["environment"]["WXLOGIND_REDIS_URL"] == "redis://redis:6379/0"
    )
    if name == PROD:
        assert (
            subprocess.run(
                ["docker-compose", "-f", name, "config"],
                cwd=ROOT, capture_output=True, env=env, timeout=60,
            ).returncode != 0
        )


def test_the_caddyfile_is_the_recipe(tmp_path):
    """Under docs/forward-auth it is tried in a real Caddy; here only the addresses differ."""
    body = lambda text: text[text.index(" {\n"):]
    recipe = (ROOT / "docs/forward-auth/Caddyfile").read_text()
    for here, there in (
        ("127.0.0.1:8080", "wxlogind:8080"),
        ("127.0.0.1:8081", "wxlogind:8081"),
        ("127.0.0.1:3000", "backend:3000"),
        (
            '#header_up X-Internal-Token "change me" # internal_token',
            "header_up X-Internal-Token {env.INTERNAL_TOKEN}",
        ),
    ):
        assert here in body(recipe)
        recipe = recipe.replace(here, there)
    prod = (ROOT / "docs/forward-auth/Caddyfile.prod").read_text()
    assert body(prod) == body(recipe) and "\n{$DOMAIN} {\n" in prod
    env = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path), "DOMAIN": "login.example.com",
        "INTERNAL_TOKEN": "t0ken",
    }
    r = subprocess.run(
        [
            "caddy", "validate", "--config", ROOT / "docs/forward-auth/Caddyfile.prod", "--adapter",
            "caddyfile",
        ],
        capture_output=True, text=True, env=env, timeout=60,
    )
    assert r.returncode == 0 and "Valid configuration" in r.stdout + r.stderr, r.stderr


@pytest.mark.parametrize("name", [LOCAL, PROD])
def test_images_come_from_where_one_says(name):
    """A registry and a mirror within reach; an image that is there already."""
    services = load(
        name, WX_REGISTRY="registry.example.com/library/",
        WX_APT_MIRROR="http://mirror.example.com", WXLOGIND_IMAGE="there:1",
    )["services"]
    assert services["wxlogind"]["image"] == "there:1"
    arguments = stage("")[0]
    for service, s in services.items():
        if "build" in s:
            assert s["build"]["context"] == "." and s["build"]["args"] == {
                "BASE_IMAGE": "registry.example.com/library/debian:bookworm-slim",
                "APT_MIRROR": "http://mirror.example.com",
            }
            target = s["build"].get("target", "wxlogind")
            assert target == service.split("-")[0] and stage(target)
        else:
            assert s["image"].startswith("registry.example.com/library/"), service
    assert (
        "ARG BASE_IMAGE=debian:bookworm-slim" in arguments
        and "\nARG APT_MIRROR\n" in stage("debian")[1]
    )


@pytest.mark.parametrize("name", [LOCAL, PROD])
def test_logs_are_rotated(name):
    for service, s in load(name)["services"].items():
        assert s["logging"] == {
            "driver": "json-file", "options": {"max-size": "10m", "max-file": "3"},
        }, service


def test_redis_takes_its_settings(tmp_path):
    port = free_port()
    p = Process(
        [
            "redis-server", ROOT / "docs/redis.conf", "--port", port, "--dir", tmp_path,
            "--requirepass", "passw0rd",
        ],
        tmp_path / "redis.log",
    )
    try:
        def ask(*args):
            return subprocess.run(
                ["redis-cli", "-p", str(port), *args],
                capture_output=True, text=True, env={**os.environ, "REDISCLI_AUTH": "passw0rd"},
            ).stdout
        poll(lambda: "PONG" in ask("PING"), what="redis")
        assert ask("CONFIG", "GET", "maxmemory-policy", "appendonly", "appendfsync", "save").split(
            "\n"
        )[:-1] and {"noeviction", "yes", "everysec", ""} <= set(
            ask("CONFIG", "GET", "*").split("\n")
        )
        for key, value in (
            ("maxmemory-policy", "noeviction"),
            ("appendonly", "yes"),
            ("appendfsync", "everysec"),
            ("save", ""),
        ):
            assert ask("CONFIG", "GET", key).split("\n")[1] == value
    finally:
        end(p)


def test_the_local_stack_without_an_engine(tmp_path):
    """Its commands and its environment, with this machine's ports and directories for those of the
    containers: a login, and the traffic that the page shows."""
    ports = {
        name: free_port()
        for name in ("redis:6379", "wxfake:9090", "0.0.0.0:9090", "0.0.0.0:8081", "0.0.0.0:8080")
    }
    ports["0.0.0.0:9090"] = ports["wxfake:9090"]
    stack = load(LOCAL)
    ports["wxlogind:8080"] = ports["0.0.0.0:8080"]
    changes = {
        **{k: f"127.0.0.1:{v}" for k, v in ports.items()}, "/run/secrets/": f"{ROOT}/test/compose/",
        "/etc/redis.conf": f"{tmp_path}/redis.conf", "wxfake --listen": f"{BUILD}/wxfake --listen",
    }
    stack = each(
        stack, lambda s: re.sub("|".join(map(re.escape, changes)), lambda m: changes[m[0]], s)
    )["services"]
    (tmp_path / "redis.conf").write_text(
        (ROOT / "docs/redis.conf").read_text().replace("bind * -::*", "bind 127.0.0.1")
        + f"dir {tmp_path}\nport {ports['redis:6379']}\n"
    )
    environment = {
        **stack["wxlogind"]["environment"],
        "WXLOGIND_SERVER_LISTEN": f"127.0.0.1:{ports['0.0.0.0:8080']}",
        "WXLOGIND_USERS_URL": f"sqlite:///{tmp_path}/users.db",
    }
    started = []

    def healthy(service):
        probe = stack[service]["healthcheck"]["test"]
        argv = ["sh", "-c", probe[1]] if probe[0] == "CMD-SHELL" else probe[1:]
        text = [
            re.sub(
                r"127\.0\.0\.1:(\d+)(?=/(?:readyz|fake))",
                lambda m: f"127.0.0.1:{ports.get('0.0.0.0:' + m[1], m[1])}", a,
            )
            for a in argv
        ]
        text = [
            a.replace("redis-cli ping", f"redis-cli -p {ports['redis:6379']} ping") for a in text
        ]
        return subprocess.run(text, capture_output=True, env={**os.environ}).returncode == 0

    try:
        for service, command, env in (
            ("redis", stack["redis"]["command"], {}),
            ("wxfake", stack["wxfake"]["command"], {}),
            ("wxlogind", [BUILD / "wxlogind"], environment),
        ):
            started.append(Process(command, tmp_path / f"{service}.log", env=env))
            poll(lambda: healthy(service), what=service)
        fake, public, internal = ports["wxfake:9090"], ports["0.0.0.0:8080"], ports["0.0.0.0:8081"]
        given = call(fake, "POST", "/fake/code").json
        a = call(
            public, "POST", "/v1/login",
            {"code": given["code"]},
            {"Origin": "http://localhost:9090"},
        )
        assert a.status == 200, a
        who = call(
            internal, "GET", "/internal/auth",
            headers={"Authorization": f"Bearer {a.token}", "X-Internal-Token": "local-stack-only"},
        )
        assert (who.status, who.headers["X-Wx-Openid"], who.headers["X-Wx-Appid"]) == (
            200, given["openid"], APPID,
        )
        assert (
            call(
                internal, "GET", "/internal/auth", headers={"Authorization": f"Bearer {a.token}"}
            ).status == 401
        )
        assert call(
            public, "GET", "/v1/session", headers={"Origin": "http://127.0.0.1:9090"}
        ).headers["Access-Control-Allow-Origin"]
        pushed = call(
            fake, "POST", "/fake/push",
            {"event": "user_authorization_revoke", "openid": given["openid"], "revoke": "8"},
        )
        assert (pushed.status, pushed.json["status"]) == (200, 200), pushed  # the page's button
        poll(
            lambda: "refuses" not in started[1].text() and watched(fake, public),
            what="Redis' commands among the events",
        )
    finally:
        for p in reversed(started):
            end(p)


def watched(fake, public):
    """Does a session that is asked for show up as Redis traffic?"""
    import socket
    with socket.create_connection(("127.0.0.1", fake), timeout=0.5) as s, contextlib.suppress(
        TimeoutError
    ):
        s.sendall(b"GET /fake/events HTTP/1.1\r\nHost: x\r\n\r\n")
        call(public, "GET", "/v1/session", headers={"Authorization": "Bearer " + "A" * 43})
        text = b""
        while b"event: redis" not in text:
            piece = s.recv(65536)
            if not piece:
                return False
            text += piece
        return True
    return False
