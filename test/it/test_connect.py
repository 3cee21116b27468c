"""--check --connect: tries what the configuration names, says what each answered, and changes
nothing."""
import hashlib
import os
import pathlib
import pwd
import re
import shutil
import socket
import sqlite3
import subprocess
import tempfile

import pytest

from conftest import APPID, BUILD, KEY, SECRET, free_port


class Site:
    """A configuration of parts that all are there, to be spoiled one by one."""

    def __init__(self, directory, redis, wxfake):
        self.dir, self.port, self.internal = directory, free_port(), free_port()
        self.keys = {
            "server": {
                "listen": f"127.0.0.1:{self.port}", "internal_listen": f"127.0.0.1:{self.internal}",
            },
            "redis": {"url": f"redis://127.0.0.1:{redis.port}/0"},
            "session": {"encryption_key": KEY},
            "wechat": {"base_url": wxfake.url, "fallback_urls": ""},
            "users": {"url": f"sqlite://{directory}/users.db"}, f"app {APPID}": {"secret": SECRET},
        }

    def run(self, *args):
        file = self.dir / "site.ini"
        file.write_text(
            "".join(
                f"[{s}]\n" + "".join(f"{k} = {v}\n" for k, v in kv.items())
                for s, kv in self.keys.items()
            )
        )
        r = subprocess.run(
            [BUILD / "wxlogind", "-c", file, *args],
            capture_output=True, text=True, timeout=60, env={"PATH": os.environ["PATH"]},
        )
        assert SECRET not in r.stdout + r.stderr and KEY not in r.stdout + r.stderr
        return r

    def connect(self):
        """The exit status, and what is said: {what: (ok?, answer)}."""
        r = self.run("--check", "--connect")
        rows = [
            re.fullmatch(r"(ok    |FAILED) (.+?): (.+)", line) for line in r.stdout.splitlines()[1:]
        ]
        assert rows and all(rows), r.stdout + r.stderr
        assert r.returncode == (1 if "FAILED" in r.stdout else 0)
        return r.returncode, {row[2].split(",")[0]: (row[1] != "FAILED", row[3]) for row in rows}


@pytest.fixture
def site(tmp_path, redis, wxfake):
    return Site(tmp_path, redis, wxfake)


def test_all_is_there(site, redis, wxfake):
    before = redis.keys()
    status, said = site.connect()
    assert status == 0
    assert said == {
        f"listen 127.0.0.1:{site.port}": (True, "can be bound"),
        f"internal_listen 127.0.0.1:{site.internal}": (True, "can be bound"),
        f"redis 127.0.0.1:{redis.port}": (True, "answers"),
        f"users sqlite {site.dir}/users.db": (True, "is not there yet; the start makes it"),
        f"wechat {wxfake.url}": (
            True, "takes appid and AppSecret, and refuses our impossible code (40029)",
        ),
    }
    assert redis.keys() == before and not (site.dir / "users.db").exists()
    assert wxfake.calls() == 1 and wxfake.calls("stable_token") == 0


def test_beside_a_running_server(site, stack, redis, wxfake):
    """Addresses in use are said and are no error; the server's unix socket and its database are as
    they were."""
    path = site.dir / "public.sock"
    server = stack.server(redis, wxfake, users__url=site.keys["users"]["url"])
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    inode = path.stat().st_ino
    server.login(wxfake.code())
    keys = redis.keys()
    site.keys["server"] = {
        "listen": f"127.0.0.1:{server.port}, unix:{path}",
        "internal_listen": f"127.0.0.1:{server.internal}",
    }
    status, said = site.connect()
    assert status == 0
    assert (
        said[f"listen 127.0.0.1:{server.port}"]
        == said[f"internal_listen 127.0.0.1:{server.internal}"]
        == (True, "is in use")
    )
    assert said[f"listen unix:{path}"] == (True, "not tried") and path.stat().st_ino == inode
    assert said[f"users sqlite {site.dir}/users.db"][1].startswith(
        "answers; its schema is of version "
    )
    assert sorted(redis.keys()) == sorted(keys)
    assert server.login(wxfake.code()).status == 200
    listener.close()


def test_a_database_at_rest_is_not_touched(site, stack, redis, wxfake):
    server = stack.server(redis, wxfake, users__url=site.keys["users"]["url"])
    server.login(wxfake.code())
    server.process.stop()
    digest = lambda: {
        f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in site.dir.glob("users.db*")
    }
    before = digest()
    status, said = site.connect()
    assert status == 0 and said[f"users sqlite {site.dir}/users.db"][1].startswith(
        "answers; its schema is of version "
    )
    assert digest() == before
    db = sqlite3.connect(site.dir / "users.db")
    db.execute("PRAGMA user_version = 99")
    db.close()
    status, said = site.connect()
    assert status == 1 and "99" in said[f"users sqlite {site.dir}/users.db"][1]
    (site.dir / "users.db").write_text("this is no database, whatever its name says" * 100)
    status, said = site.connect()
    assert status == 1 and said[f"users sqlite {site.dir}/users.db"] == (
        False, "file is not a database",
    )


def test_an_address_that_is_not_ours(site):
    site.keys["server"]["listen"] = "192.0.2.1:80"
    status, said = site.connect()
    assert status == 1 and said["listen 192.0.2.1:80"] == (False, "Cannot assign requested address")


def test_redis_away_or_unwilling(site, redis):
    site.keys["redis"]["url"] = "redis://127.0.0.1:1/0"
    status, said = site.connect()
    assert status == 1 and said["redis 127.0.0.1:1"] == (False, "Connection refused")
    site.keys["redis"]["url"] = f"redis://:wrong-password@127.0.0.1:{redis.port}/0"
    redis.cli("CONFIG", "SET", "requirepass", "right")
    status, said = site.connect()
    assert (
        status == 1
        and "WRONGPASS" in said[f"redis 127.0.0.1:{redis.port}"][1]
        and "wrong-password" not in str(said)
    )


@pytest.mark.parametrize("appid, secret, answer", [
    (APPID, "f" * 32, "40125, wrong AppSecret"),
    ("wx0000000000000001", "f" * 32, "40013, no such appid"),
])
def test_an_app_that_wechat_does_not_know(site, wxfake, appid, secret, answer):
    site.keys[f"app {appid}"] = {"secret": secret}
    r = site.run("--check", "--connect")
    assert (
        r.returncode == 1 and f"FAILED wechat {wxfake.url}, app {appid}: {answer}" in r.stdout
    ), r.stdout


def test_hosts_of_wechat_that_do_not_answer(site, stack, redis):
    """Each is asked; one that is away is asked once, however many apps there are. A web page is no
    answer of WeChat's."""
    site.keys["app wx0000000000000001"] = {"secret": "f" * 32}
    site.keys["wechat"]["base_url"] = "http://127.0.0.1:1"
    other = stack.server(redis, None)
    site.keys["wechat"]["fallback_urls"] = f"http://127.0.0.1:{other.port}"
    r = site.run("--check", "--connect")
    assert r.returncode == 1 and r.stdout.count("FAILED wechat http://127.0.0.1:1, ") == 1
    assert (
        r.stdout.count(f"FAILED wechat http://127.0.0.1:{other.port}, ") == 2
        and "HTTP 404 and no answer of WeChat's" in r.stdout
    )


def test_mysql(site, mariadb):
    site.keys["users"]["url"] = mariadb.database()
    database = site.keys["users"]["url"].rpartition("/")[2]
    status, said = site.connect()
    assert status == 0 and said["users mysql 127.0.0.1"] == (
        True, "answers; it has no tables yet, the start makes them",
    )
    assert mariadb.sql(f"SHOW TABLES IN {database}") == ""
    mariadb.sql("SET GLOBAL read_only = 1")
    assert site.connect()[1]["users mysql 127.0.0.1"] == (False, "answers, but is read-only")
    site.keys["users"]["url"] = site.keys["users"]["url"].replace("wxl:", "wxl:wrong")
    status, said = site.connect()
    assert status == 1 and "Access denied" in said["users mysql 127.0.0.1"][1]
    mariadb.kill()
    status, said = site.connect()
    assert status == 1 and not said["users mysql 127.0.0.1"][0]


@pytest.mark.parametrize("kind", ["sqlite", "mysql"])
def test_phone_numbers_under_a_key_that_is_gone(site, stack, redis, wxfake, kind, request):
    if kind == "mysql":
        site.keys["users"]["url"] = request.getfixturevalue("shared_mariadb").database()
    url, what = (
        site.keys["users"]["url"],
        "users mysql 127.0.0.1" if kind == "mysql" else f"users sqlite {site.dir}/users.db",
    )
    server = stack.server(redis, wxfake, users__url=url)
    for i in range(2):
        assert (
            server.inside(
                "PUT", f"/internal/apps/{APPID}/users/oTestKey{i}", {"phoneNumber": "13900000000"}
            ).status == 200
        )
    server.process.stop()
    assert site.connect()[1][what][0]
    for key in ("ff" * 32, ""):
        site.keys["session"]["encryption_key"] = key
        assert site.connect()[1][what] == (
            False,
            "2 phone numbers are encrypted under a key that is not configured: add it to "
            "session.encryption_key",
        )
    site.keys["session"]["encryption_key"] = f"{'ff' * 32},{KEY}"
    assert site.connect()[1][what][0]


def test_no_users(site):
    site.keys["users"]["url"] = "none"
    assert site.connect()[1]["users none "] == (True, "no users are kept")


def test_connect_needs_check(site):
    assert site.run("--connect").returncode == 2


@pytest.fixture
def open_to_all():
    with tempfile.TemporaryDirectory(prefix="wxlogind-test-") as d:
        os.chmod(d, 0o755)
        yield pathlib.Path(d)


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user")
def test_a_directory_that_an_ordinary_user_cannot_make(site, open_to_all):
    """The least configuration of the README puts the users in /var/lib/wxlogind. Both the check and
    the start say what to do, and it helps."""
    nobody = pwd.getpwnam("nobody").pw_uid
    (open_to_all / "var").mkdir()
    place = open_to_all / "var" / "wxlogind"
    program = shutil.copy(BUILD / "wxlogind", open_to_all)
    site.keys["users"]["url"] = f"sqlite://{place}/users.db"
    site.dir = open_to_all
    site.run("--check")  # writes the file

    def run(*args):
        return subprocess.run(
            [program, "-c", open_to_all / "site.ini", *args],
            capture_output=True, text=True, timeout=60, user=nobody,
        )

    command = f"sudo install -d -m 700 -o {nobody} {place}"
    for r in (run("--check", "--connect"), run()):
        assert (
            r.returncode == 1
            and "Permission denied" in r.stdout + r.stderr
            and command in r.stdout + r.stderr
        ), (r.stdout + r.stderr)
    subprocess.run(command.replace("sudo ", "").split(), check=True)
    assert run("--check", "--connect").returncode == 0
