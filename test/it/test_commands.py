"""Every command that the documents show is run by a test: here, or by the one that is named
here."""
import os
import re
import shlex
import signal
import subprocess

import pytest

from conftest import APPID, BUILD, ROOT, SECRET, call, free_port, poll
from test_docs import PAGES
from test_image import installed
from test_stack import PROD_ENV, checked, load

PROGRAMS = (
    r"(?:docker-compose|docker|redis-server|redis-cli|curl|wxlogind|wxfake|make|scripts/\w+|"
    r"sqlite3|openssl|npm|caddy|xargs|gzip|kill|kubectl|promtool|install|for|cat|chmod|printf|"
    r"docs/\S+\.py|build/\w+)"
)

# Which test runs a command that begins so. A name alone is a test of this file; FILE::NAME is a
# test of that file.
RUN = {
    r"scripts/run\b": "test_stack.py::test_scripts_run",
    r"scripts/\w+": "test_scripts_are_there",  # scripts/test runs all the tests, and so on
    r"make\b|build/wx(?:logind|fake)$": "test_make_knows_its_targets",
    r"docker[ -]compose.* (?:up|down|ps|logs)\b": "test_compose_commands_name_what_is_there",
    r"docker[ -]compose.* kill -s HUP wxlogind": "test_hangup_in_containers",
    r"docker[ -]compose.* exec -T wxlogind": "test_backup_of_the_users",
    r"sqlite3 ": "test_backup_of_the_users",
    r"curl .*(?:9090/fake|8080/v1|8081/internal)": "test_the_readmes_calls",
    r"curl .*8000/": "test_the_backend_of_the_recipes",
    r"docs/forward-auth/backend.py|caddy run": "test_the_backend_of_the_recipes",
    r"while IFS=|curl -fsS -o /dev/null -X PUT|done <users.tsv": "test_docs.py::test_the_import",
    r"redis-cli ": "test_all_sessions_end",
    r"install -d|for s in|cat >secrets|chmod 444|printf 'WX": "test_the_production_secrets",
    r"openssl rand -base64 32": "test_keys_are_made",
    r"wxlogind -c FILE --check|wxlogind --check|wxlogind -c FILE": "test_check",
    r"wxfake ": "test_wxfake_program.py::test_help_and_version",
    r"kubectl (?:-n wxlogind )?(?:create|apply|rollout)|kubectl kustomize": (
        "test_kubernetes.py::test_kubectl_takes_the_kustomization"
    ),
    r"kill -USR2": "test_upgrade.py::test_sigusr2",
    r"docker build": "test_image.py::test_the_image_is_built_from_what_it_takes",
    r"npm run build$": "../miniprogram/package.test.js::what `npm run build` makes",
    r"npm (?:install|run build:)": "../../scripts/miniprogram-samples::build_sample",
    r"redis-server --daemonize yes|build/wxlogind -c own.ini": (
        "test_docs.py::test_the_configuration_of_ones_own_appid_is_good"
    ),
    # scripts/release --try runs it on a bare Debian
    r"apt-get install|runuser|mv /var/lib/|cp -a /etc/|rm -f /var/lib/|install -[om] |echo fa4e|"
    r"cat >>/etc|wxfake$": (
        "../release/bare::runuser -u wxlogind -- wxlogind --check"
    ),
    # on a machine that systemd has booted
    r"systemctl ": "../release/systemd::must systemctl start wxlogind",
    r"test/release/systemd": "../release/systemd::test/release/systemd [SUITE...]",
    r"useradd ": "../../scripts/release.d/postinst::useradd",
    r"(?:gzip -dc .*)?docker load": "../release/stacks::gzip -dc",
    r"npm (?:pack|install)": "../miniprogram/package.test.js::npm pack",
}


def commands(page):
    text = page.read_text()
    for block in re.findall(r"^```(?:sh|bash)\n(.*?)^```", text, re.M | re.S):
        # not what a command is given
        block = re.sub(r"(<<'(\w+)'\n).*?^\2\n", r"\1", block, flags=re.M | re.S)
        yield from (line for line in block.replace("\\\n", " ").splitlines() if line.strip())
    rest = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    yield from re.findall(rf"^ {{4}}({PROGRAMS} .*)$", rest, re.M)
    for code in re.findall(r"`([^`\n]+)`", rest):
        if re.match(rf"{PROGRAMS} +[^\[]", code) and not re.match(r"\S+ [A-Z]+\]?$", code):
            yield code.replace("\\|", "|")


def plain(command):
    return re.sub(r"\s+#.*$", "", command).removesuffix("&").strip()


ALL = sorted({plain(c) for page in PAGES for c in commands(page)})


def block(page, start):
    """The commands of the block that holds a line which begins so."""
    for found in re.findall(
        r"^```sh\n(.*?)^```|((?:^ {4}[^\n]+\n)+)", (ROOT / page).read_text(), re.M | re.S
    ):
        lines = [line.strip() for line in (found[0] or found[1]).splitlines()]
        if any(line.startswith(start) for line in lines):
            return [plain(line) for line in lines]
    raise AssertionError(f"{page} shows no {start}")


def sh(command, cwd, **env):
    r = subprocess.run(
        ["bash", "-ec", command],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **env},
    )
    assert r.returncode == 0, (command, r)
    return r.stdout


@pytest.mark.parametrize("command", ALL)
def test_every_command_is_run(command):
    how = next((test for start, test in RUN.items() if re.match(start, command)), None)
    assert how, f"no test runs: {command}"
    file, _, name = how.rpartition("::")
    assert name in (ROOT / "test/it" / (file or "test_commands.py")).read_text()


def test_the_packages_are_tried_as_the_document_says():
    page = (ROOT / "docs/install.md").read_text()
    begin = page.index("echo fa4e")
    shown = page[begin : page.index("curl ", begin)].replace(" && systemctl start wxlogind", "")
    *secret_and_configuration, check = shown.strip().split("\nI\n")
    tried = (ROOT / "test/release/bare").read_text()
    assert secret_and_configuration[0] + "\nI\n" in tried and f"must {check}\n" in tried
    booted = (ROOT / "test/release/systemd").read_text()
    for line in filter(None, shown.splitlines()):
        assert line in booted or line.startswith("cat >>"), line


def test_the_list_is_whole():
    assert len(ALL) >= 25


def test_scripts_are_there():
    for command in ALL:
        for name in re.findall(r"\bscripts/\w+", command):
            assert os.access(ROOT / name, os.X_OK), name
    usage = (ROOT / "scripts/bench").read_text() + (ROOT / "test/bench/bench.py").read_text()
    for command in ALL:
        if command.startswith("scripts/bench "):
            assert f'"{command.split()[1]}"' in usage or command.split()[1] in (
                "WORK",
                "all",
            ), command


def test_make_knows_its_targets():
    for command in ALL:
        if re.match(r"make\b", command):
            r = subprocess.run(
                [*command.split(), "-n"],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=60,
                env={**os.environ, "MAKEFLAGS": ""},
            )
            assert r.returncode == 0, (command, r.stderr[-500:])
    shown = subprocess.run(
        ["make", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "MAKEFLAGS": ""},
    ).stdout
    targets = re.findall(r"^(\w[\w-]*):.*## ", (ROOT / "Makefile").read_text(), re.M)
    assert targets and [line.split()[0] for line in shown.splitlines()] == targets, shown


# ---- the stacks ----


def compose_files(command):
    words = shlex.split(command)
    assert words[:2] == ["docker", "compose"]
    return words[words.index("-f") + 1] if "-f" in words else "docker-compose.yml"


def test_compose_commands_name_what_is_there():
    for command in ALL:
        assert not command.startswith("docker-compose"), "one way to write it in all pages"
        if command.startswith("docker compose"):
            name = compose_files(command)
            services = load(name)["services"]  # test_stack.py shows both files to docker-compose
            for service in re.findall(r"(?:exec -T|kill -s HUP|logs) (\w+)", command):
                assert service in services
            for profile in re.findall(r"--profile (\w+)", command):
                assert any(profile in s.get("profiles", []) for s in services.values())


def test_hangup_in_containers(server):
    """What compose does to the container is done to a server here; a command that is for the other
    stack's file was shown once."""
    shown = [c for c in ALL if "kill -s HUP" in c]
    assert {compose_files(c) for c in shown} == {"docker-compose.yml", "docker-compose.prod.yml"}
    for c in shown:
        words = shlex.split(c)
        assert words[words.index("kill") :] == ["kill", "-s", "HUP", "wxlogind"]
    server.process.signal(signal.SIGHUP)
    poll(lambda: "reload" in server.process.text(), what="the reload")


def test_the_production_secrets(tmp_path):
    lines = block("docs/operations.md", "install -d")
    assert len(lines) == 6
    for line in lines:
        if line.startswith("docker compose"):
            sh(
                line.replace("up -d --build", "config -q")
                .replace("docker-compose.prod.yml", str(ROOT / "docker-compose.prod.yml"))
                .replace(
                    "docker compose -f",
                    f"docker-compose --project-directory {tmp_path} --env-file {tmp_path}/.env -f",
                ),
                tmp_path,
            )
        elif line.startswith("cat >"):
            sh(f"{line} <<'END'\n{SECRET}\nEND", tmp_path)
        else:
            sh(line, tmp_path)
    secrets = {f.name: f.read_text().strip() for f in (tmp_path / "secrets").iterdir()}
    assert set(secrets) == set(load("docker-compose.prod.yml")["secrets"]) and all(
        f.stat().st_mode & 0o777 == 0o444 for f in (tmp_path / "secrets").iterdir()
    )
    assert dict(line.split("=") for line in (tmp_path / ".env").read_text().split()) == PROD_ENV
    (tmp_path / "there").mkdir()
    r = checked(
        load("docker-compose.prod.yml")["services"]["wxlogind"]["environment"],
        secrets,
        tmp_path / "there",
    )
    assert r.returncode == 0, r.stderr


def test_backup_of_the_users(stack, redis, wxfake, tmp_path):
    """While it runs: the copy opens, has the user, and is taken by another server."""
    home = tmp_path / "home"
    home.mkdir()
    server = stack.server(redis, wxfake, users__url=f"sqlite://{home}/users.db")
    assert server.login(wxfake.code(openid="oInTheBackup")).status == 200
    user = f"/internal/apps/{APPID}/users/oInTheBackup"
    poll(lambda: server.inside("GET", user).status == 200, what="the user is kept")
    copies = []

    def keep(data):
        copies.append(home / f"copy{len(copies)}.db")
        copies[-1].write_bytes(data)

    for command in [c for c in ALL if c.startswith("sqlite3 ")]:
        sh(command, home)
        keep((home / "copy.db").read_bytes())
        (home / "copy.db").unlink()
    assert "sqlite3" in installed("run")
    for command in [c for c in ALL if "exec -T wxlogind" in c and ".backup" in c]:
        words = shlex.split(command.partition(" >")[0])
        inside = words[words.index("wxlogind") + 1 :]
        assert inside[:2] == ["sh", "-c"] and "/var/lib/wxlogind" in inside[2]
        inside[2] = inside[2].replace("/var/lib/wxlogind", str(home))
        keep(subprocess.run(inside, check=True, capture_output=True, timeout=60).stdout)
        assert not (home / "copy.db").exists()
    assert len(copies) >= 2
    for copy in copies:
        other = stack.server(redis, wxfake, users__url=f"sqlite://{copy}")
        assert other.inside("GET", user).status == 200
    assert server.inside("DELETE", user).status == 204
    assert server.inside("GET", user).status == 404
    back = next(c for c in ALL if "exec -T wxlogind" in c and ".restore" in c)
    back = shlex.split(back.partition(" <users")[0])[-1].replace("/var/lib/wxlogind", str(home))
    with open(copies[-1], "rb") as stdin:
        subprocess.run(["sh", "-c", back], check=True, stdin=stdin, timeout=60)
    assert server.inside("GET", user).status == 200


# ---- what a newcomer types ----


def moved(text, ports):
    """All in one pass, and whole numbers: the port that is chosen for one may begin with the digits
    of another."""
    return re.sub(
        r"(127\.0\.0\.1:)(\d+)", lambda m: f"{m[1]}{ports.get(int(m[2]), m[2])}", text
    )


def typed(command, ports, **words):
    command = moved(command, ports)
    for word, value in words.items():
        command = command.replace(
            f"<{word.replace('_', ' ')}>" if word == "the_code" else f"<{word}>", value
        )
    return command


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md"])
def test_the_readmes_calls(page, stack, redis, wxfake, tmp_path):
    server = stack.server(redis, wxfake, server__internal_token="local-stack-only")
    ports = {9090: wxfake.port, 8080: server.port, 8081: server.internal}
    code, login, auth, logout = [
        line
        for line in block(page, "curl -X POST http://127.0.0.1:9090/fake/code")
        if line.startswith("curl")
    ]
    given = re.search(r'"code":"([^"]+)"', sh(typed(code, ports), tmp_path))[1]
    wxfake.codes.append(given)
    token = re.search(
        r'"third_session":"([^"]+)"', sh(typed(login, ports, the_code=given), tmp_path)
    )[1]
    server.tokens.append(token)
    said = sh(typed(auth, ports, third_session=token), tmp_path)
    assert said.startswith("HTTP/1.1 200") and "X-Wx-Openid: o" in said
    sh(typed(logout, ports, third_session=token), tmp_path)
    assert sh(typed(auth, ports, third_session=token), tmp_path).startswith("HTTP/1.1 401")


def test_the_backend_of_the_recipes(server, wxfake, tmp_path):
    backend, caddy, code, login, ask = block("docs/forward-auth.md", "docs/forward-auth/backend.py")
    ports = {
        9090: wxfake.port,
        8080: server.port,
        8081: server.internal,
        8000: free_port(),
        3000: free_port(),
    }
    text = (
        (ROOT / "docs/forward-auth/Caddyfile")
        .read_text()
        .replace(":8000 {", f":{ports[8000]} {{\n\tbind 127.0.0.1")
    )
    text = moved(text, ports)
    (tmp_path / "Caddyfile").write_text(text)
    env = {**os.environ, "HOME": str(tmp_path), "CADDY_ADMIN": f"127.0.0.1:{free_port()}"}
    started = [
        subprocess.Popen(
            shlex.split(c), cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for c in (
            f"{backend} {ports[3000]}",
            caddy.replace("docs/forward-auth/Caddyfile", str(tmp_path / "Caddyfile")),
        )
    ]
    try:
        poll(
            lambda: subprocess.run(
                ["curl", "-s", "-o", "/dev/null", f"127.0.0.1:{ports[8000]}/"]
            ).returncode
            == 0,
            what="caddy",
        )
        given = call(wxfake.port, "POST", "/fake/code", {"openid": "oOfTheRecipes"}).json["code"]
        assert '"code":' in sh(typed(code, ports), tmp_path)
        token = re.search(
            r'"third_session":"([^"]+)"', sh(typed(login, ports, the_code=given), tmp_path)
        )[1]
        server.tokens.append(token)
        poll(
            lambda: sh(typed(ask, ports, third_session=token), tmp_path) == "oOfTheRecipes",
            what="the backend knows who it is",
        )
    finally:
        for p in started:
            p.terminate()
            p.wait(10)


def test_all_sessions_end(server, wxfake, redis, tmp_path):
    """Also where there are none."""
    for shown in [c for c in ALL if c.startswith("redis-cli --scan")]:
        command = shown.replace("redis-cli", f"redis-cli -s {redis.socket}")
        assert sh(command, tmp_path) == ""
        tokens = [server.login(wxfake.code()).token for _ in range(3)]
        assert sh(command, tmp_path).split() == ["1"] * 3
        for token in tokens:
            poll(lambda: server.auth(token).status == 401, what="ended")


def test_all_sessions_of_a_cluster_end(stack, tmp_path):
    """Their keys lie in different slots: no command takes two of them."""
    node = stack.redis("--cluster-enabled", "yes", "--cluster-port", free_port())
    node.cli("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    poll(lambda: "cluster_state:ok" in node.cli("CLUSTER", "INFO"), what="the cluster")
    for shown in [c for c in ALL if c.startswith("redis-cli --scan")]:
        for n in range(5):
            node.cli("SET", f"wxlogin:s:{{{n:04x}}}:{n}", "a session")
        command = shown.replace("redis-cli", f"redis-cli -s {node.socket}")
        assert sh(command, tmp_path).split() == ["1"] * 5
        assert node.keys() == []


def test_keys_are_made(stack, redis, wxfake, tmp_path):
    stack.server(
        redis, wxfake, session__encryption_key=sh("openssl rand -base64 32", tmp_path).strip()
    )


def test_check(server, tmp_path):
    assert (
        subprocess.run([BUILD / "wxlogind", "-c", server.file, "--check"], timeout=20).returncode
        == 0
    )
