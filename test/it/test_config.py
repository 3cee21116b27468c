"""Arguments, --check and its messages, exit status."""
import os
import re
import subprocess

import pytest

from conftest import BUILD, ROOT, free_port


def run(*args, env=None, text=None, tmp_path=None):
    if text is not None:
        (tmp_path / "w.ini").write_text(text)
        args = ("-c", str(tmp_path / "w.ini"), *args)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("WXLOGIND_")}
    return subprocess.run(
        [BUILD / "wxlogind", *args],
        capture_output=True, text=True, env={**clean, **(env or {})}, timeout=20,
    )


SECRET = "5ec4e75ec4e75ec4e75ec4e75ec4e700"
APP = f"[app wx0000000000000001]\nsecret = {SECRET}\n"


@pytest.mark.parametrize(
    "text, message",
    [
        ("[sever]\nlisten = x\n" + APP, "w.ini:1: unknown section [sever]: did you mean [server]?"),
        (
            "[server]\nlissen = x\n" + APP,
            "w.ini:2: unknown key lissen in [server]: did you mean listen?",
        ),
        ("[server]\nmax_body = 2m\n" + APP, "w.ini:2: [server] max_body = 2m: at most 1m"),
        ("[session]\nttl = 7\n" + APP, "w.ini:2: [session] ttl = 7: must be a duration"),
        (
            "[server]\n\nworkers = many\n" + APP,
            "w.ini:3: [server] workers = many: must be a whole number",
        ),
        ("[server]\nlisten = nowhere:80\n" + APP, "[server] listen = nowhere:80: must be"),
        ("[server]\ninternal_listen = 0.0.0.0:81\n" + APP, "set internal_token"),
        (
            "[redis]\nurl = cluster://a:1/3\n" + APP,
            "w.ini:2: [redis] url: a Redis Cluster has database 0 only",
        ),
        (
            "[redis]\nurl = cluster://:hunter2@a:1,a:1\n" + APP,
            "[redis] url: a host stands there twice",
        ),
        (
            "[redis]\nurl = sentinel://a,b:99999,c/m\n" + APP,
            "[redis] url: each host must be host[:port]",
        ),
        ("[redis]\nurl = sentinel://:hunter2@a,b,c\n" + APP, "must end with the master's name"),
        (
            "[redis]\nurl = sentinel://a,b,c/m?proof=none\n" + APP,
            "after the name only ?proof=master may stand",
        ),
        (
            "[redis]\nurl = sentinel://a,b,c/m/x\n" + APP,
            "after the master's name only /db may stand",
        ),
        ("[redis]\nurl = rediss://h1,h2\n" + APP, "[redis] url: redis:// names one server"),
        (
            "[redis]\nurl = unix:///run/redis.sock\ntls = yes\n" + APP,
            "w.ini:3: [redis] tls: a unix socket has none",
        ),
        (
            "[redis]\nurl = rediss://h\ncert_file = /dev/null\n" + APP,
            "w.ini:3: [redis] cert_file and key_file: each needs the other",
        ),
        (
            "[redis]\nreplicas = many\n" + APP,
            "w.ini:2: [redis] replicas: must be empty, or a number of 0 to 16",
        ),
        (
            "[redis]\nurl = sentinel://a,b,c/m\nsentinel_user = u\n" + APP,
            "[redis] sentinel_user needs sentinel_password",
        ),
        # indented lines belong to the value above
        (
            "[server]\ninternal_token = hunter2hunter2\n  listen = 127.0.0.1:80\n" + APP,
            "w.ini:2: [server] internal_token: the line below it is indented",
        ),
        (
            "[server]\nlisten = 127.0.0.1:80\n  workers = 2\n" + APP,
            "w.ini:2: [server] listen: workers below it is indented",
        ),
        (
            "[server]\nlisten = 127.0.0.1:80\n  [redis]\n" + APP,
            "w.ini:2: [server] listen: a section below it is indented",
        ),
        (
            APP + "  secret_file = /x\n",
            "[app wx0000000000000001] secret: secret_file below it is indented",
        ),
        (
            "[session]\nttl = 7d\n  7d\n" + APP,
            "w.ini:2: [session] ttl: the line below it is indented",
        ),
        # addresses and hosts
        (
            "[server]\nlisten = 127.0.0.1:80, 127.0.0.1:80\n" + APP,
            "w.ini:2: [server] listen = 127.0.0.1:80: already taken by listen = 127.0.0.1:80",
        ),
        (
            "[server]\nlisten = 127.0.0.1:81, 127.0.0.1:80\ninternal_listen = localhost:80\n" + APP,
            "w.ini:3: [server] internal_listen = 127.0.0.1:80: already taken by listen = "
            "127.0.0.1:80",
        ),
        (
            "[server]\nlisten = 0.0.0.0:80, 127.0.0.1:80\n" + APP,
            "[server] listen = 127.0.0.1:80: already taken by listen = 0.0.0.0:80",
        ),
        (
            "[server]\nlisten = unix:/run/a\ninternal_listen = unix:/run/a\n" + APP,
            "[server] internal_listen = unix:/run/a: already taken by listen = unix:/run/a",
        ),
        (
            "[redis]\nurl = redis://:hunter2@h1:6379,h2:6379/0\n" + APP,
            "w.ini:2: [redis] url: redis:// names one server; for several write "
            "sentinel://h1:26379,h2:26379,h3:26379/mymaster or cluster://h1:6379,h2:6379",
        ),
        ("[redis]\nurl = redis://h1,h2\n" + APP, "[redis] url: redis:// names one server"),
        ("[redis]\nurl = redis://::1:6379/0\n" + APP, "[redis] url: must be redis://"),
        ("[users]\nurl = mysql://u:hunter2@h1,h2/d\n" + APP, "[users] url: mysql wants one host"),
        (
            "[server]\ninternal_token = two words\n" + APP,
            "w.ini:2: [server] internal_token: use only visible ASCII characters, "
            "without blanks",
        ),
        (
            "[server]\ninternal_token = \u5bc6\u7801\n" + APP,
            "[server] internal_token: use only visible ASCII characters",
        ),
        # habits of other formats and keyboards
        (
            "[redis]\nurl = \"redis://127.0.0.1/0\"\n" + APP,
            "w.ini:2: [redis] url: the quotes would be part of the value",
        ),
        (
            "[redis]\npassword = 'hunter2'\n" + APP,
            "w.ini:2: [redis] password: the quotes would be part of the value",
        ),
        (
            "[server]\nlisten = 127.0.0.1:80, \"127.0.0.1:81\"\n" + APP,
            "w.ini:2: [server] listen: the quotes would be part of the value",
        ),
        (
            f"[app wx0000000000000001]\nsecret = \"{SECRET}\"\n",
            "[app wx0000000000000001] secret: the quotes would be part of the value",
        ),
        (
            "[app wx0000000000000001]\nsecret = abcd\n",
            "w.ini:2: [app wx0000000000000001] secret: an AppSecret has 32 characters, this one 4",
        ),
        (
            APP + "\npush_aes_key = x\n",
            "w.ini:4: [app wx0000000000000001] push_aes_key: an EncodingAESKey has 43",
        ),
        (
            APP + "push_forward = ftp://h\n",
            "w.ini:3: [app wx0000000000000001] push_forward: must be",
        ),
        (
            APP + "push_forward = http://h:0/\n",
            "w.ini:3: [app wx0000000000000001] push_forward: must be",
        ),
        (
            APP + "push_forward_token = two words\n",
            "w.ini:3: [app wx0000000000000001] push_forward_token: use only visible ",
        ),
        (
            "[wechat]\nbase_url = https://a,https://b\n" + APP,
            "w.ini:2: [wechat] base_url = https://a,https://b: must be http(s)://host[:port]",
        ),
        (
            "[wechat]\nfallback_urls = https://a:99999\n" + APP,
            "w.ini:2: [wechat] fallback_urls = https://a:99999: must be http(s)://host[:port]",
        ),
        (
            "[server]\ncors_origins = https://*.example.com\n" + APP,
            "w.ini:2: [server] cors_origins: https://*.example.com is not an origin",
        ),
        (
            f"[app wx123]\nsecret = {SECRET}\n",
            "[app wx123]: an appid is wx and 16 letters or digits",
        ),
        (
            f"[wx0000000000000001]\nsecret = {SECRET}\n",
            "unknown section [wx0000000000000001]: did you mean [app wx...], with the appid?",
        ),
        ("[server]\nworkers \uff1d 2\n" + APP, "w.ini:2: \uff1d (U+FF1D) stands where = is meant"),
        (
            "\u3010server\u3011\nworkers = 2\n" + APP,
            "w.ini:1: \u3010 (U+3010) stands where [ is meant",
        ),
        ("[server\u3011\nworkers = 2\n" + APP, "w.ini:1: \u3011 (U+3011) stands where ] is meant"),
        (
            "[server]\nlisten = 127.0.0.1:80\uff0c 127.0.0.1:81\n" + APP,
            "w.ini:2: [server] listen: \uff0c (U+FF0C) stands where , is meant",
        ),
        (
            "[server]\n\u3000workers = 2\n" + APP,
            "w.ini:2: unknown key in [server]: there is a blank or invisible character that is "
            "not ASCII (U+3000)",
        ),
        (
            "[server\u3000]\nworkers = 2\n" + APP,
            "w.ini:1: unknown section: there is a blank or invisible character",
        ),
        (
            "[session]\nttl = \uff17d\n" + APP,
            "w.ini:2: [session] ttl: \uff17 (U+FF17) stands where 7 is meant",
        ),
        # NAME and NAME_FILE
        (
            "[redis]\npassword = hunter2\npassword_file = /x\n" + APP,
            "w.ini:3: [redis] password and password_file are both given, the first at ",
        ),
        (
            APP + "secret_file = /x\n",
            "[app wx0000000000000001] secret and secret_file are both given, the first at ",
        ),
        # what may be a secret is not repeated
        (
            "[redis]\npassword_file = hunter2\n" + APP,
            "w.ini:2: [redis] password_file: cannot read the file of this name: No such file or "
            "directory. To give the secret itself, write password = ...",
        ),
        (
            f"[app wx0000000000000001]\nsecret_file = {SECRET}\n",
            "[app wx0000000000000001] secret_file: cannot read the file of this name",
        ),
        (
            "[session]\nencryption_key =\nhunter2HUNTER2hunter2HUNTER2hunter2HUNTER2w=\n" + APP,
            "w.ini:3: unknown key in [session]. If this line belongs to the value above, indent it",
        ),
        (
            "[wechat]\nca_file = /nonexistent.pem\n" + APP,
            "w.ini:2: [wechat] ca_file = /nonexistent.pem: cannot read it: No such file or "
            "directory",
        ),
        (
            "[session]\nencryption_key = hunter2\n" + APP,
            "[session] encryption_key: must be 32 bytes",
        ),
        (
            "[users]\nurl = oracle://x\n" + APP,
            "w.ini:2: [users] url: must be sqlite:///path, "
            "mysql://user[:password]@host[:port]/database or none",
        ),
        (
            "[users]\nurl = sqlite://users.db\n" + APP,
            "[users] url: sqlite wants an absolute path, as sqlite:///var/lib/wxlogind/users.db",
        ),
        ("[users]\nurl = sqlite:///\n" + APP, "[users] url: sqlite wants an absolute path"),
        (
            "[users]\nurl = mysql://u:hunter2@h\n" + APP,
            "[users] url: mysql wants a database, as mysql://user[:password]@host[:port]/database",
        ),
        ("[users]\nurl = mysql://u:hunter2@h/\n" + APP, "[users] url: mysql wants a database"),
        (
            "[users]\nurl = mysql://h/hunter2\n" + APP,
            "[users] url: mysql wants a user, as mysql://user[:password]@host[:port]/database",
        ),
        ("[users]\nurl = mysql://:hunter2@h/d\n" + APP, "[users] url: mysql wants a user"),
        (
            "[users]\nurl = mysql://u:hunter2%zz@h/d\n" + APP,
            "[users] url: in user and password % stands only before two hex digits",
        ),
        (
            "[users]\nurl = mysql://u:hunter2@h:0/d\n" + APP,
            "[users] url: mysql wants one host, and a port of 1 to 65535",
        ),
        (
            "[users]\nurl = mysql://u:hunter2@h:port/d\n" + APP,
            "[users] url: mysql wants one host, and a port of 1 to 65535",
        ),
        (
            "[users]\nurl = mysql://u:hunter2@/d\n" + APP,
            "[users] url: mysql wants a host, or a socket, as "
            "mysql://user@/database?socket=/run/mysqld/mysqld.sock",
        ),
        (
            "[users]\nurl = mysql://u:hunter2@h/d?socket=/s\n" + APP,
            "[users] url: after the database only ?socket=/path may stand, and then no host",
        ),
        (
            "[users]\nurl = mysql://u:hunter2@h/d?tls=1\n" + APP,
            "[users] url: after the database only ?socket=/path may stand",
        ),
        ("[log]\nlevel = loud\n" + APP, "must be one of debug info warn error"),
        ("[log]\nlevel = info\nlevel = warn\n" + APP, "w.ini:3: [log] level is given twice"),
        ("[server]\nlisten = 127.0.0.1:80\n", "no app is configured"),
        ("[app wx0000000000000001]\n", "w.ini:1: [app wx0000000000000001] needs secret"),
        (
            "[app wx0000000000000001]\nsecret_file = /nonexistent\n",
            "secret_file: cannot read the file of this name: No such file",
        ),
        ("listen = x\n" + APP, "w.ini:1: a key before any section"),
        ("[server\n" + APP, "w.ini:1: a section begins with ["),
    ],
)
def test_what_is_wrong(tmp_path, text, message):
    r = run("--check", text=text, tmp_path=tmp_path)
    assert r.returncode == 1 and message in r.stderr, r.stderr
    assert "hunter2" not in r.stderr and SECRET not in r.stderr


@pytest.mark.parametrize(
    "text", ["[cache]\nttl = 1s\n" + APP, "[server]\nmax_sessions = 1\n" + APP]
)
def test_no_guess_where_nothing_is_near(tmp_path, text):
    r = run("--check", text=text, tmp_path=tmp_path)
    assert r.returncode == 1 and "unknown" in r.stderr and "did you mean" not in r.stderr


@pytest.mark.parametrize("content, message", [
    (b"", "the file is empty"),
    (b"\n", "the file is empty"),
    (b"hunter2\0\n", "the file holds a NUL byte"),
    (b"hunter2\n\n", "ends with more than one newline"),
    (b"hunter2\nhunter2\n", "the file has more than one line"),
    (b"\xef\xbb\xbfhunter2\n", "begins with a byte order mark"),
])
def test_what_is_wrong_with_a_secrets_file(tmp_path, content, message):
    (tmp_path / "password").write_bytes(content)
    for r in (
        run(
            "--check", text=f"[redis]\npassword_file = {tmp_path}/password\n" + APP,
            tmp_path=tmp_path,
        ),
        run(
            "--check", text=APP, tmp_path=tmp_path,
            env={"WXLOGIND_REDIS_PASSWORD_FILE": str(tmp_path / "password")},
        ),
    ):
        assert (
            r.returncode == 1
            and "[redis] password_file: the file" in r.stderr
            and message in r.stderr
        ), r.stderr
        assert "hunter2" not in r.stderr


def test_name_and_file_by_the_environment(tmp_path):
    """Both in one source are an error; the environment replaces what the file has, either way, and
    what is replaced is not even read."""
    (tmp_path / "secret").write_text(SECRET)
    both = {
        "WXLOGIND_REDIS_PASSWORD": "hunter2",
        "WXLOGIND_REDIS_PASSWORD_FILE": str(tmp_path / "secret"),
    }
    for env in (both, dict(reversed(both.items()))):
        r = run("--check", text=APP, tmp_path=tmp_path, env=env)
        assert (
            r.returncode == 1
            and (
                "environment: WXLOGIND_REDIS_PASSWORD and WXLOGIND_REDIS_PASSWORD_FILE are both "
                "set: set one"
            )
            in r.stderr
        )
        assert "hunter2" not in r.stderr
        env = {**env, "WXLOGIND_REDIS_PASSWORD": ""}
        assert run("--check", text=APP, tmp_path=tmp_path, env=env).returncode == 0
    for line in ("secret = wrong", "secret_file = /nonexistent"):
        text = f"[app wx0000000000000001]\n{line}\n"
        for env in (
            {"WXLOGIND_SECRET": SECRET},
            {"WXLOGIND_SECRET_FILE": str(tmp_path / "secret")},
        ):
            r = run(
                "--check", text=text, tmp_path=tmp_path,
                env={"WXLOGIND_APPID": "wx0000000000000001", **env},
            )
            assert r.returncode == 0 and "secret" not in r.stderr, r.stderr
    r = run(
        "--check",
        env={
            "WXLOGIND_APPID": "wx0000000000000001", "WXLOGIND_SECRET": SECRET,
            "WXLOGIND_SECRET_FILE": str(tmp_path / "secret"),
        },
    )
    assert r.returncode == 1 and "WXLOGIND_SECRET and WXLOGIND_SECRET_FILE are both set" in r.stderr


@pytest.mark.parametrize("env", [
    {"WXLOGIND_REDIS_PASSWORD_FILE": ""},
    {"WXLOGIND_APPID": "wx0000000000000001", "WXLOGIND_SECRET": ""},
    {"WXLOGIND_APPID": "wx0000000000000001", "WXLOGIND_SECRET_FILE": ""},
    {"WXLOGIND_SECRET": "", "WXLOGIND_SECRET_FILE": ""},
])
def test_an_empty_variable_is_as_good_as_none(tmp_path, env):
    """Compose files pass on what is not set."""
    r = run("--check", text=APP, tmp_path=tmp_path, env=env)
    assert r.returncode == 0, r.stderr


def test_a_byte_order_mark_is_skipped(tmp_path):
    assert (
        run("--check", text="\ufeff[server]\nworkers = 2\n" + APP, tmp_path=tmp_path).returncode
        == 0
    )
    (tmp_path / "w.ini").write_bytes(("\ufeff" + APP).encode("utf-16-le"))
    r = run("-c", str(tmp_path / "w.ini"), "--check")
    assert r.returncode == 1 and "w.ini:1: the file is UTF-16: save it as UTF-8" in r.stderr


def test_what_only_warns(tmp_path):
    r = run(
        "--check", text="[app wx0000000000000001]\nsecret = of another length\n", tmp_path=tmp_path
    )
    assert r.returncode == 0 and "warning:" in r.stderr and "this one has 17 characters" in r.stderr
    for text, message in (
        (
            "[session]\nttl = 31d\n",
            "[session] ttl is longer than max_age: max_age ends every session first",
        ),
        ("[wechat]\nconnect_timeout = 3s\n", "[wechat] connect_timeout is not below timeout"),
        (
            "[server]\ntrusted_proxies = 0.0.0.0/0\n",
            "[server] trusted_proxies: 0.0.0.0/0 trusts everybody",
        ),
        ("[server]\ntrusted_proxies = ::/0\n", "[server] trusted_proxies: ::/0 trusts everybody"),
        (
            "[redis]\nsentinel_password = hunter2\n",
            "[redis] sentinel_user and sentinel_password have no effect",
        ),
    ):
        r = run("--check", text=text + APP, tmp_path=tmp_path)
        assert r.returncode == 0 and re.search(
            rf"warning: \S+w.ini:2: {re.escape(message)}", r.stderr
        ), r.stderr


def test_good_ones(tmp_path):
    (tmp_path / "secret").write_text("the secret ;has a comment sign\n")
    text = f"""# comment
[server]
trusted_proxies = 10.0.0.0/8,
    192.168.0.1 ; a comment
    ::1/128
[app wx0000000000000001]
secret_file = {tmp_path}/secret
"""
    assert run("--check", text=text, tmp_path=tmp_path).returncode == 0
    assert (
        run(
            "--check",
            env={
                "WXLOGIND_APPID": "wx0000000000000001", "WXLOGIND_SECRET": SECRET,
                "WXLOGIND_LOG_LEVEL": "debug",
            },
        ).returncode == 0
    )
    for url in (
        "none", "sqlite:///var/lib/a%20b.db", "mysql://u@h/d", "mysql://u:p%40:w@[::1]:3307/d",
        "mysql://u:p@/d?socket=/run/mysqld/mysqld.sock",
    ):
        assert (
            run(
                "--check",
                env={
                    "WXLOGIND_APPID": "wx0000000000000001", "WXLOGIND_SECRET": SECRET,
                    "WXLOGIND_USERS_URL": url,
                },
            ).returncode == 0
        )
    r = run(
        "--check",
        env={
            "WXLOGIND_APPID": "wx0000000000000001", "WXLOGIND_SECRET": SECRET,
            "WXLOGIND_PORT_80_TCP": "tcp://10.0.0.1:80",
        },
    )
    assert (
        r.returncode == 0
        and "environment: WXLOGIND_PORT_80_TCP is not a setting of wxlogind\n" in r.stderr
    )
    r = run(
        "--check",
        env={
            "WXLOGIND_APPID": "wx0000000000000001", "WXLOGIND_SECRET": SECRET,
            "WXLOGIND_LOG_LEVLE": "debug",
        },
    )
    assert r.returncode == 0 and "did you mean WXLOGIND_LOG_LEVEL?" in r.stderr


def test_command_line():
    assert run("--version").stdout.startswith("wxlogind ")
    assert run("--help").returncode == 0
    assert run("--nope").returncode == 2
    assert run("-c").returncode == 2
    assert run("-c", "/nonexistent", "--check").returncode == 1


def test_an_address_that_cannot_be_bound(tmp_path, server):
    text = (
        f"[server]\nlisten = 127.0.0.1:{server.port}\ninternal_listen = 127.0.0.1:{free_port()}\n"
        "[users]\nurl = none\n"
        + APP
    )
    r = run(text=text, tmp_path=tmp_path)
    assert r.returncode == 3 and "Address already in use" in r.stderr


@pytest.mark.parametrize(
    "path, args",
    [
        ("server/wxlogind.ini.example", ["example"]),
        ("docs/configuration.md", ["md", "docs/configuration.md"]),
        ("docs/man/wxlogind.ini.5", ["man", "docs/man/wxlogind.ini.5"]),
        ("docs/metrics.md", ["metrics", "docs/metrics.md"]),
    ],
)
def test_documents_follow_the_table_of_keys(path, args):
    """make docs writes them."""
    made = subprocess.run([BUILD / "confdoc", *args], capture_output=True, text=True, cwd=ROOT)
    assert made.returncode == 0 and made.stdout == (ROOT / path).read_text(), "run make docs"
