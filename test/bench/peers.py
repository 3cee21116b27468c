"""What wxlogind is measured beside. To add a peer: write a function below that starts it (stack,
redis, wxfake) and returns its process with .port, where POST /v1/login and GET /internal/auth
are answered as wxlogind answers them; then name it in AUTH, LOGIN or both."""
import os
import secrets
import shutil
import subprocess

from stack import (
    APPID, BUILD, HERE, SECRET, SERVER_CORE, can_connect, filled, free_port, say, until_up,
)


class Unavailable(Exception):
    """A peer that cannot be had here; the others are measured."""


def start_all(report, contenders, stack, redis, wechat):
    """Name and process of each that can be had."""
    for name, start in contenders.items():
        try:
            yield name, start(stack, redis, wechat)
        except Unavailable as why:
            report.note(f"{name} was not measured: {why}.")


def wxlogind(**config):
    return lambda stack, redis, wechat: stack.server(redis, wechat, **config)


def bare(stack, redis, wechat):
    """A bare libevhtp program that answers a constant with the headers of /internal/auth: no server
    on libevhtp's own way is cheaper."""
    port = free_port()
    p = stack.start([BUILD / "bench/bare", port], SERVER_CORE, "bare")
    return _listening(p, port, tokens=[secrets.token_urlsafe(32) for _ in range(1000)])


def webdis(stack, redis, wechat):
    """GET of a session's key over HTTP, through Redis."""
    port, dir = free_port(), stack.dir
    names = [secrets.token_urlsafe(32) for _ in range(1000)]
    value = (
        '{"appid":"%s","openid":"o0123456789abcdefghijklmnopq","unionid":"","session_key":"MDEyMzQ1'
        'Njc4OWFiY2RlZg=="}'
        % APPID
    )
    subprocess.run(
        ["redis-cli", "-s", redis.socket],
        input="".join(f"SET s:{n} '{value}' EX 604800\n" for n in names), text=True,
        stdout=subprocess.DEVNULL, check=True,
    )
    file = dir / "webdis.json"
    file.write_text(
        '{"redis_host": "%s", "redis_port": 0, "http_host": "127.0.0.1", "http_port": %d, '
        '"threads": 1, "pool_size": 4, '
        '"daemonize": false, "database": 0, "verbosity": 1, "logfile": "%s/webdis.log"}'
        % (redis.socket, port, dir)
    )
    return _listening(
        stack.start(["webdis", file], SERVER_CORE, "webdis"), port, tokens=names,
        auth_path="/GET/s:%s",
    )


def nginx(stack, redis, wechat):
    """nginx with Lua: cjson and the Redis client as Debian has them, kept connections both ways."""
    port = free_port()
    dir = stack.dir / f"nginx{port}"
    dir.mkdir()
    arch = subprocess.run(
        ["gcc", "-print-multiarch"], capture_output=True, text=True
    ).stdout.strip()
    scheme, _, host = wechat.url.partition("://")
    (dir / "nginx.conf").write_text(
        filled(
            HERE / "nginx/nginx.conf",
            {
                "DIR": dir, "PORT": port, "HERE": HERE, "MODULES": "/usr/lib/nginx/modules",
                "LUA": f"/usr/lib/{arch}/lua/5.1", "WECHAT": host, "SCHEME": scheme,
                "CA": wechat.ca or "/etc/ssl/certs/ca-certificates.crt",
                "REDIS": f"unix:{redis.socket}", "APPID": APPID, "SECRET": SECRET,
            },
        )
    )
    return _listening(
        stack.start(
            ["nginx", "-p", dir, "-e", "stderr", "-c", dir / "nginx.conf"], SERVER_CORE, "nginx"
        ),
        port,
    )


def go(stack, redis, wechat):
    """Go with net/http both ways and redigo, as Debian has them."""
    dir, port = BUILD / "bench/go", free_port()
    dir.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["go", "build", "-o", dir / "peer", HERE / "go/main.go"],
        check=True,
        env={
            **os.environ, "GO111MODULE": "off", "GOPATH": "/usr/share/gocode",
            "GOCACHE": str((dir / "cache").resolve()),
        },
    )
    env = {
        "PORT": str(port), "WECHAT": wechat.url, "CA": str(wechat.ca or ""), "REDIS": redis.socket,
        "APPID": APPID, "SECRET": SECRET,
    }
    return _listening(stack.start([dir / "peer"], SERVER_CORE, "go", env), port)


def node(stack, redis, wechat):
    """Node with fastify, undici's pool and ioredis with automatic pipelining."""
    dir, port = BUILD / "bench/node", free_port()
    dir.mkdir(parents=True, exist_ok=True)
    lock = (HERE / "node/package-lock.json").read_bytes()
    if not (dir / "installed").exists() or (dir / "installed").read_bytes() != lock:
        say("==> npm ci, for the Node peer")
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(HERE / "node" / name, dir)
        npm = [
            "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error",
            "--fetch-retries=1",
        ]
        if subprocess.run(
            npm, cwd=dir, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ).returncode:
            raise Unavailable("npm ci failed")
        (dir / "installed").write_bytes(lock)
    shutil.copy(HERE / "node/server.js", dir)
    env = {
        "PORT": str(port), "WECHAT": wechat.url, "CA": str(wechat.ca or ""), "REDIS": redis.socket,
        "APPID": APPID, "SECRET": SECRET, "NODE_ENV": "production",
    }
    return _listening(stack.start(["node", dir / "server.js"], SERVER_CORE, "node", env), port)


def _listening(p, port, tokens=None, auth_path="/internal/auth"):
    p.port = p.internal = port
    p.tokens, p.auth_path = tokens, auth_path
    until_up(p, lambda: can_connect(port))
    return p


def wxlogind_users(stack, redis, wechat):
    """As most run it: the default log, and users in SQLite."""
    return stack.server(
        redis, wechat, **INFO, users__url=f"sqlite://{stack.dir}/users{free_port()}.db"
    )


INFO = {"log__level": "info"}
WXLOGIND, MEMORY, REDIS = "wxlogind", "wxlogind, from memory", "wxlogind, through Redis"
LOGGED, FULL = ", log = info", "wxlogind, log = info, users = sqlite"
CEILING, WEBDIS, NGINX, GO, NODE = (
    "bare libevhtp, a constant", "webdis, GET", "nginx with Lua", "Go", "Node",
)
AUTH = {
    MEMORY: wxlogind(), REDIS: wxlogind(session__cache_entries=0),
    MEMORY + LOGGED: wxlogind(**INFO), REDIS + LOGGED: wxlogind(session__cache_entries=0, **INFO),
    CEILING: bare, WEBDIS: webdis, NGINX: nginx, GO: go, NODE: node,
}
LOGIN = {
    WXLOGIND: wxlogind(), WXLOGIND + LOGGED: wxlogind(**INFO), FULL: wxlogind_users, NGINX: nginx,
    GO: go, NODE: node,
}
