"""Arguments, --check and its messages, exit status."""
import os
import subprocess

import pytest

from conftest import BUILD, free_port


def run(*args, env=None, text=None, tmp_path=None):
    if text is not None:
        (tmp_path / "w.ini").write_text(text)
        args = ("-c", str(tmp_path / "w.ini"), *args)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("WXLOGIND_")}
    return subprocess.run([BUILD / "wxlogind", *args], capture_output=True, text=True, env={**clean, **(env or {})}, timeout=20)


APP = "[app wx1]\nsecret = s3cret-value\n"


@pytest.mark.parametrize("text, message", [
    ("[sever]\nlisten = x\n" + APP, "w.ini:1: unknown section [sever]: did you mean [server]?"),
    ("[server]\nlissen = x\n" + APP, "w.ini:2: unknown key lissen in [server]: did you mean listen?"),
    ("[server]\nmax_body = 2m\n" + APP, "w.ini:2: [server] max_body = 2m: at most 1m"),
    ("[session]\nttl = 7\n" + APP, "w.ini:2: [session] ttl = 7: must be a duration"),
    ("[server]\n\nworkers = many\n" + APP, "w.ini:3: [server] workers = many: must be a whole number"),
    ("[server]\nlisten = nowhere:80\n" + APP, "[server] listen = nowhere:80: must be"),
    ("[server]\ninternal_listen = 0.0.0.0:81\n" + APP, "set internal_token"),
    ("[redis]\nurl = cluster://a:1\n" + APP, "come with a later version"),
    ("[session]\nencryption_key = hunter2\n" + APP, "[session] encryption_key: must be 32 bytes"),
    ("[users]\nurl = oracle://x\n" + APP, "w.ini:2: [users] url: must be sqlite:///path, mysql://user[:password]@host[:port]/database or none"),
    ("[users]\nurl = sqlite://users.db\n" + APP, "[users] url: sqlite wants an absolute path, as sqlite:///var/lib/wxlogind/users.db"),
    ("[users]\nurl = sqlite:///\n" + APP, "[users] url: sqlite wants an absolute path"),
    ("[users]\nurl = mysql://u:hunter2@h\n" + APP, "[users] url: mysql wants a database, as mysql://user[:password]@host[:port]/database"),
    ("[users]\nurl = mysql://u:hunter2@h/\n" + APP, "[users] url: mysql wants a database"),
    ("[users]\nurl = mysql://h/hunter2\n" + APP, "[users] url: mysql wants a user, as mysql://user[:password]@host[:port]/database"),
    ("[users]\nurl = mysql://:hunter2@h/d\n" + APP, "[users] url: mysql wants a user"),
    ("[users]\nurl = mysql://u:hunter2%zz@h/d\n" + APP, "[users] url: in user and password % stands only before two hex digits"),
    ("[users]\nurl = mysql://u:hunter2@h:0/d\n" + APP, "[users] url: mysql wants a port of 1 to 65535"),
    ("[users]\nurl = mysql://u:hunter2@h:port/d\n" + APP, "[users] url: mysql wants a port of 1 to 65535"),
    ("[users]\nurl = mysql://u:hunter2@/d\n" + APP, "[users] url: mysql wants a host, or a socket, as mysql://user@/database?socket=/run/mysqld/mysqld.sock"),
    ("[users]\nurl = mysql://u:hunter2@h/d?socket=/s\n" + APP, "[users] url: after the database only ?socket=/path may stand, and then no host"),
    ("[users]\nurl = mysql://u:hunter2@h/d?tls=1\n" + APP, "[users] url: after the database only ?socket=/path may stand"),
    ("[log]\nlevel = loud\n" + APP, "must be one of debug info warn error"),
    ("[log]\nlevel = info\nlevel = warn\n" + APP, "w.ini:3: [log] level is given twice"),
    ("[server]\nlisten = 127.0.0.1:80\n", "no app is configured"),
    ("[app wx1]\n", "w.ini:1: [app wx1] needs secret"),
    ("[app wx1]\nsecret_file = /nonexistent\n", "cannot read /nonexistent: No such file"),
    ("listen = x\n" + APP, "w.ini:1: a key before any section"),
    ("[server\n" + APP, "w.ini:1: a section begins with ["),
])
def test_what_is_wrong(tmp_path, text, message):
    r = run("--check", text=text, tmp_path=tmp_path)
    assert r.returncode == 1 and message in r.stderr, r.stderr
    assert "hunter2" not in r.stderr and "s3cret-value" not in r.stderr


def test_good_ones(tmp_path):
    (tmp_path / "secret").write_text("a ;b\n")
    text = f"""# comment
[server]
trusted_proxies = 10.0.0.0/8,
    192.168.0.1 ; a comment
    ::1/128
[app wx1]
secret_file = {tmp_path}/secret
"""
    assert run("--check", text=text, tmp_path=tmp_path).returncode == 0
    assert run("--check", env={"WXLOGIND_APPID": "wx1", "WXLOGIND_SECRET": "x", "WXLOGIND_LOG_LEVEL": "debug"}).returncode == 0
    for url in ("none", "sqlite:///var/lib/a%20b.db", "mysql://u@h/d", "mysql://u:p%40:w@[::1]:3307/d", "mysql://u:p@/d?socket=/run/mysqld/mysqld.sock"):
        assert run("--check", env={"WXLOGIND_APPID": "wx1", "WXLOGIND_SECRET": "x", "WXLOGIND_USERS_URL": url}).returncode == 0
    r = run("--check", env={"WXLOGIND_APPID": "wx1", "WXLOGIND_SECRET": "x", "WXLOGIND_LOG_LEVLE": "debug"})
    assert r.returncode == 0 and "the nearest is WXLOGIND_LOG_LEVEL" in r.stderr


def test_command_line():
    assert run("--version").stdout.startswith("wxlogind ")
    assert run("--help").returncode == 0
    assert run("--nope").returncode == 2
    assert run("-c").returncode == 2
    assert run("-c", "/nonexistent", "--check").returncode == 1


def test_an_address_that_cannot_be_bound(tmp_path, server):
    text = f"[server]\nlisten = 127.0.0.1:{server.port}\ninternal_listen = 127.0.0.1:{free_port()}\n[users]\nurl = none\n" + APP
    r = run(text=text, tmp_path=tmp_path)
    assert r.returncode == 3 and "Address already in use" in r.stderr
