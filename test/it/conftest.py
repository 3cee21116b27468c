"""Every test has its own Redis, wxfake and wxlogind, on ports and in a directory of its own. Ready
means: it answers."""
import base64
import contextlib
import http.client
import pathlib
import resource
import signal
import socket
import ssl
import subprocess

import pytest

from mariadbd import Mariadb
from process import (  # noqa: F401: the tests take all of these from here
    APPID, BUILD, KEY, ROOT, SANITIZED, SECRET, SPOKEN, Answer, Process, call, free_port, poll,
)

# What tests documents, recipes and scripts does not run again under the sanitizers.
if SANITIZED:
    collect_ignore = [
        f"test_{name}.py"
        for name in (
            "backends", "commands", "docs", "image", "install", "kubernetes", "lua", "monitoring",
            "proxies", "proxy_attacks", "stack",
        )
    ]
# some tests hold thousands of sockets
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)


class Redis:
    def __init__(self, directory, *args):
        self.dir, self.args, self.port, self.socket = (
            directory, args, free_port(), str(directory / "redis.sock"),
        )
        self.start()

    def start(self):
        # appendfsync no: each turn writes its file, where everysec may put that off by two seconds
        # while the disk is busy
        self.process = Process(
            [
                "redis-server", "--port", self.port, "--unixsocket", self.socket, "--dir", self.dir,
                "--save", "", "--appendonly", "yes", "--appendfsync", "no",
                "--aof-use-rdb-preamble", "no", *self.args,
            ],
            self.dir / "redis.log",
        )
        poll(lambda: "PONG" in self.cli("PING") or "NOAUTH" in self.cli("PING"), what="redis")

    def cli(self, *args):
        out = subprocess.run(
            ["redis-cli", "-s", self.socket, *[str(a) for a in args]],
            capture_output=True, text=True,
        )
        return out.stdout + out.stderr

    def keys(self):
        return self.cli("KEYS", "*").split()

    def kill(self):
        self.process.proc.kill()
        self.process.proc.wait()

    def signal(self, sig):
        self.process.signal(sig)

    def written(self):
        """Everything that was ever written to it, a character for each byte: its append-only
        file."""
        return "".join(
            f.read_bytes().decode("latin-1") for f in self.dir.glob("appendonlydir/*.aof")
        )

    def stop(self):
        if self.process.proc.poll() is None:
            self.process.signal(signal.SIGCONT)
            self.process.proc.kill()
            self.process.proc.wait()


class Wxfake:
    def __init__(self, directory, *args, tls=None, host="127.0.0.1", port=None):
        self.host, self.port = host, port or free_port()
        self.url = f"{'https' if tls else 'http'}://{host}:{self.port}"
        self.context = None
        if tls:
            args = (*args, "--tls-cert", tls.cert, "--tls-key", tls.key)
            self.context = ssl._create_unverified_context()
        self.process = Process(
            [BUILD / "wxfake", "--listen", f"{host}:{self.port}", *args], directory / "wxfake.log"
        )
        self.codes, self.openids = [], {}
        poll(self.is_up, what="wxfake")

    def is_up(self):
        assert self.process.proc.poll() is None, self.process.text()
        with contextlib.suppress(OSError):
            return self.call("GET", "/fake/stats").status == 200

    def call(self, method, path, body=None):
        return call(self.port, method, path, body, tls=self.context, host=self.host)

    def code(self, **kw):
        got = self.call("POST", "/fake/code", kw).json
        self.codes.append(got["code"])
        if kw.get("kind", "login") == "login" and "appid" not in kw:
            self.openids[got["openid"]] = None
        return got["code"]

    def session_keys(self, most=30):
        """Of the users that were made, as wxlogind got them: a user's stays the same until it is
        expired."""
        self.clear()
        for openid in list(self.openids)[-most:]:
            code = self.call("POST", "/fake/code", {"openid": openid}).json["code"]
            got = self.call(
                "GET",
                f"/sns/jscode2session?appid={APPID}&"
                f"secret={SECRET}&js_code={code}&grant_type=authorization_code",
            ).json
            self.openids[openid] = got.get("session_key")
        return [k for k in self.openids.values() if k]

    def fault(self, api="jscode2session", **kw):
        a = self.call("POST", "/fake/fault", {"api": api, **kw})
        assert a.status == 204, a

    def clear(self):
        self.call("DELETE", "/fake/fault")

    def calls(self, api="jscode2session"):
        return self.call("GET", "/fake/stats").json["calls"][api]


class Server:
    def __init__(self, directory, name, redis, wxfake, config, env=None, preexec=None, wait=True):
        self.port, self.internal = free_port(), free_port()
        sections = {
            "server": {
                "listen": f"127.0.0.1:{self.port}", "internal_listen": f"127.0.0.1:{self.internal}",
            },
            "log": {"level": "debug"},
            "redis": {
                "url": f"redis://127.0.0.1:{redis.port}/0" if redis else "redis://127.0.0.1:1/0"
            },
            "session": {"encryption_key": KEY},
            "wechat": {
                "base_url": wxfake.url if wxfake else "http://127.0.0.1:1", "fallback_urls": "",
            },
            "users": {"url": "none"}, f"app {APPID}": {"secret": SECRET},
        }
        for key, value in config.items():
            section, _, name_of_key = key.partition("__")
            sections.setdefault(section.replace("_wx", " wx"), {})[name_of_key] = value
        self.sealed, self.tokens, self.phones, self.users = (
            bool(sections["session"]["encryption_key"]), [], [], sections["users"]["url"],
        )
        self.file = directory / f"{name}.ini"
        self.file.write_text(
            "".join(
                f"[{s}]\n" + "".join(f"{k} = {v}\n" for k, v in kv.items())
                for s, kv in sections.items()
            )
        )
        self.process = Process(
            [BUILD / "wxlogind", "-c", self.file],
            directory / f"{name}.log", env=env, preexec=preexec,
        )
        poll(self.is_up, what="wxlogind")
        if wait:
            poll(lambda: call(self.internal, "GET", "/readyz").status == 200, what="ready")
        if wait and sections["server"].get("workers", "1") != "1":
            poll(lambda: self.metric("wxlogind_redis_connected") == 1, what="ready, every worker")
        # there, or known to be away: on a busy machine it takes seconds to make the tables
        if wait and self.users.startswith("mysql"):
            poll(
                lambda: self.metric("wxlogind_users_up") >= 1
                or "the user database cannot be reached" in self.process.text(),
                seconds=60, what="users",
            )

    def is_up(self):
        assert self.process.proc.poll() is None, self.process.text()
        with contextlib.suppress(OSError):
            return call(self.internal, "GET", "/healthz").status == 200

    def call(self, method, path, body=None, headers=None, **kw):
        a = call(self.port, method, path, body, headers, **kw)
        if isinstance(a.json, dict) and path == "/v1/user/phone" and "phoneNumber" in a.json:
            self.phones += {a.json["phoneNumber"], a.json["purePhoneNumber"]}
        return a

    def inside(self, method, path, body=None, headers=None, **kw):
        if (
            isinstance(body, dict)
            and isinstance(body.get("phoneNumber"), str)
            and "/users/" in path
        ):
            self.phones.append(body["phoneNumber"])
        return call(self.internal, method, path, body, headers, **kw)

    def files(self):
        """Of a SQLite database, what it is made of."""
        path = pathlib.Path(self.users.removeprefix("sqlite://"))
        return (
            [f for f in path.parent.glob(path.name + "*")]
            if self.users.startswith("sqlite")
            else []
        )

    def login(self, code, headers=None, **kw):
        a = self.call("POST", "/v1/login", {"code": code, **kw}, headers)
        if a.status == 200:
            self.tokens.append(a.token)
        return a

    def auth(self, token, query="", headers=None):
        return self.inside(
            "GET", "/internal/auth" + query,
            headers={"Authorization": f"Bearer {token}", **(headers or {})},
        )

    def logged_in(self, wxfake, n=1):
        """The tokens of n logins. Each is tried until it succeeds: what a test needs first is not
        what it is about."""
        return [
            poll(lambda: self.login(wxfake.code()).json.get("third_session"), what="a login")
            for _ in range(n)
        ]

    def end(self, token):
        """Ends a session behind replicas: on a busy machine they may be late, which is a 503, and a
        repeat finishes it."""
        poll(lambda: self.session(token, "DELETE").status == 204, 20, "ended, and confirmed")

    def session(self, token, method="GET"):
        return self.call(method, "/v1/session", headers={"Authorization": f"Bearer {token}"})

    def ready(self):
        return self.inside("GET", "/readyz").status == 200

    def raw(self, data, internal=False, timeout=10, half_close=False):
        """Bytes out, and all that comes back until the server closes."""
        with socket.create_connection(
            ("127.0.0.1", self.internal if internal else self.port), timeout=timeout
        ) as s:
            s.sendall(data)
            if half_close:
                s.shutdown(socket.SHUT_WR)
            out = b""
            with contextlib.suppress(ConnectionResetError):
                while piece := s.recv(65536):
                    out += piece
            return out

    def metric(self, name, **labels):
        total = 0
        for line in self.inside("GET", "/metrics").body.decode().splitlines():
            head, _, value = line.rpartition(" ")
            if head.split("{")[0] == name and all(f'{k}="{v}"' in head for k, v in labels.items()):
                total += float(value)
        return total


class Tls:
    """A CA of the test's own, and a certificate for 127.0.0.1."""

    def __init__(self, directory, name="127.0.0.1", days=2):
        self.ca, self.cert, self.key = (
            directory / "ca.pem", directory / "cert.pem", directory / "key.pem",
        )
        run = lambda *a: subprocess.run(
            ["openssl", *[str(x) for x in a]], check=True, capture_output=True, cwd=directory
        )
        run(
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", self.ca,
            "-days", 2, "-subj", "/CN=test ca", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
        )
        run(
            "req", "-newkey", "rsa:2048", "-nodes", "-keyout", self.key, "-out", "cert.csr",
            "-subj", f"/CN={name}",
        )
        (directory / "ext").write_text(
            f"subjectAltName={'IP' if name[0].isdigit() else 'DNS'}:{name}\n"
            "authorityKeyIdentifier=keyid\n"
        )
        made = [
            "x509", "-req", "-in", "cert.csr", "-CA", self.ca, "-CAkey", "ca.key",
            "-CAcreateserial", "-out", self.cert, "-extfile", "ext",
        ]
        try:
            run(*made, "-days", days)
        except subprocess.CalledProcessError:  # OpenSSL from 3.4 on takes no days below 0
            run(*made, "-not_before", "20200101000000Z", "-not_after", "20200102000000Z")


def leaks(made):
    """What the logs hold, and what Redis was ever given, of secrets, codes, third_sessions,
    session_keys; and of openids, the logs."""
    codes = [c for w in made["wxfake"] for c in w.codes]
    tokens = [t for p in made["server"] for t in p.tokens]
    keys = []
    for w in made["wxfake"]:
        with contextlib.suppress(OSError, http.client.HTTPException, AttributeError):
            keys += w.session_keys()
    raw = [base64.b64decode(k).decode("latin-1") for k in keys]
    keys += [k.replace("/", "\\/") for k in keys if "/" in k]
    openids, found = [o for w in made["wxfake"] for o in w.openids], []
    phones = (
        [p for s in made["server"] for p in s.phones]
        if all(p.sealed for p in made["server"])
        else []
    )
    for f in {f for s in made["server"] for f in s.files()} if phones else ():
        text = f.read_bytes()
        found += [f"{f}: a phone number" for p in phones if p.encode() in text]
    for p in made["server"] + made["wxfake"]:
        text = p.process.text()
        told = phones if isinstance(p, Server) else []
        found += [
            f"{p.process.log}: {s}"
            for s in [SECRET, KEY, *codes, *tokens, *keys, *openids, *told]
            if s in text
        ]
    sealed = all(p.sealed for p in made["server"])
    for r in made["redis"]:
        text = r.written()
        found += [
            f"{r.dir}: {s}"
            for s in [SECRET, KEY, *codes, *tokens, *phones, *(keys + raw if sealed else [])]
            if s in text
        ]
    return found


@pytest.fixture(scope="session")
def empty_mariadb(tmp_path_factory):
    return Mariadb.install(tmp_path_factory.mktemp("mariadb") / "data")


@pytest.fixture(scope="session")
def shared_mariadb(empty_mariadb, tmp_path_factory):
    """One for all tests of this process that need a database and do not harm the server."""
    m = Mariadb(tmp_path_factory.mktemp("shared-mariadb"), empty_mariadb)
    yield m
    m.stop()


@pytest.fixture
def mariadb(empty_mariadb, tmp_path):
    """One to freeze and to kill."""
    d = tmp_path / "mariadb"
    d.mkdir()
    m = Mariadb(d, empty_mariadb)
    yield m
    m.stop()


@pytest.fixture
def stack(tmp_path):
    """Makes processes, and ends them in the order that keeps each quiet."""
    made = {"server": [], "wxfake": [], "redis": []}

    class Stack:
        def redis(self, *args):
            d = tmp_path / f"redis{len(made['redis'])}"
            d.mkdir()
            made["redis"].append(Redis(d, *args))
            return made["redis"][-1]

        def wxfake(self, *args, **kw):
            d = tmp_path / f"wxfake{len(made['wxfake'])}"
            d.mkdir()
            made["wxfake"].append(Wxfake(d, *args, **kw))
            return made["wxfake"][-1]

        def server(self, redis, wxfake, env=None, preexec=None, wait=True, **config):
            made["server"].append(
                Server(
                    tmp_path, f"server{len(made['server'])}", redis, wxfake, config, env, preexec,
                    wait,
                )
            )
            return made["server"][-1]

        def tls(self, **kw):
            d = tmp_path / f"tls{len(list(tmp_path.glob('tls*')))}"
            d.mkdir()
            return Tls(d, **kw)

    s = Stack()
    s.dir, s.made = tmp_path, made
    yield s
    problems = []
    for p in made["server"]:
        try:
            p.process.stop()
        except AssertionError as e:
            problems.append(str(e))
    if found := leaks(made):
        problems.append(f"secrets where they should not be: {found}")
    for p in made["wxfake"]:
        try:
            p.process.stop()
        except AssertionError as e:
            problems.append(str(e))
    for r in made["redis"]:
        r.stop()
    assert not problems, "\n".join(problems)


@pytest.fixture
def redis(stack):
    return stack.redis()


@pytest.fixture
def wxfake(stack):
    return stack.wxfake()


@pytest.fixture
def server(stack, redis, wxfake):
    return stack.server(redis, wxfake)
