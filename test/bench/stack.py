"""What a benchmark runs: Redis, wxfake and wxlogind of its own, the server on one core and all else
on the others."""
import contextlib
import http.client
import json
import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / os.environ.get("WXLOGIND_BUILD", "build")
HERE = pathlib.Path(__file__).resolve().parent
APPID, SECRET = "wxfa4efa4efa4efa4e", "fa4efa4efa4efa4efa4efa4efa4efa4e"
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, OTHER_CORES = {CORES[0]}, set(CORES[1:]) or {CORES[0]}


DESCRIPTORS = 65536


BEGUN = time.monotonic()


def say(*words):
    print(f"[{time.monotonic() - BEGUN:4.0f} s]", *words, file=sys.stderr, flush=True)


def raise_descriptors():
    """As many as many connections need, or as many as we may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limits in ((DESCRIPTORS, max(hard, DESCRIPTORS)), (hard, hard)):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            return


raise_descriptors()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def poll(check, seconds=60, what="it"):
    end = time.monotonic() + seconds
    while not check():
        if time.monotonic() > end:
            raise SystemExit(f"bench: {what} did not come about")
        time.sleep(0.02)


def until_up(process, check, seconds=60):
    end = time.monotonic() + seconds
    while not check():
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit(
                f"bench: {process.args[0]} did not come up: "
                f"{pathlib.Path(process.log).read_text(errors='replace')[-2000:]}"
            )
        time.sleep(0.02)


def call(port, method, path, body=None, headers=None):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as c:
        c.request(
            method, path,
            body if body is None or isinstance(body, (str, bytes)) else json.dumps(body),
            headers or {},
        )
        r = c.getresponse()
        return r.status, r.read()


class Stack:
    """Starts processes, and ends all of them at the end."""

    def __init__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="wxlogind-bench-"))
        self.processes = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for p in reversed(self.processes):
            p.send_signal(signal.SIGCONT)
            p.terminate()
        for p in self.processes:
            try:
                p.wait(10)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def start(self, argv, cores, name, env=None):
        log = open(self.dir / f"{name}{len(self.processes)}.log", "wb")
        p = subprocess.Popen(
            [str(a) for a in argv],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **(env or {})},
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        p.log = log.name
        self.processes.append(p)
        return p

    def redis(self, *args):
        path = str(self.dir / f"redis{len(self.processes)}.sock")
        p = self.start(
            [
                "redis-server", "--port", 0, "--unixsocket", path, "--dir", self.dir, "--save", "",
                *args,
            ],
            OTHER_CORES, "redis",
        )
        p.socket = path
        until_up(p, lambda: "PONG" in redis_cli(p, "PING"))
        return p

    def cluster(self, masters, cores=None):
        """That many, without replicas; each with its port."""
        nodes = []
        for _ in range(masters):
            port, bus = free_port(), free_port()
            d = pathlib.Path(tempfile.mkdtemp(prefix="node", dir=self.dir))
            p = self.start(
                [
                    "redis-server", "--port", port, "--cluster-port", bus, "--cluster-enabled",
                    "yes", "--cluster-node-timeout", 5000, "--dir", d, "--unixsocket",
                    d / "redis.sock", "--save", "",
                ],
                cores or OTHER_CORES, "node",
            )
            p.port, p.socket = port, str(d / "redis.sock")
            until_up(p, lambda: "PONG" in redis_cli(p, "PING"))
            nodes.append(p)
        if masters < 3:  # redis-cli makes none of those
            for i, p in enumerate(nodes):
                redis_cli(
                    p, "CLUSTER", "ADDSLOTSRANGE", 16384 * i // masters,
                    16384 * (i + 1) // masters - 1,
                )
                redis_cli(p, "CLUSTER", "MEET", "127.0.0.1", nodes[0].port, nodes[0].port)
        else:
            out = subprocess.run(
                [
                    "redis-cli", "--cluster", "create", *[f"127.0.0.1:{p.port}" for p in nodes],
                    "--cluster-yes",
                ],
                capture_output=True, text=True,
            )
            assert out.returncode == 0, out.stdout + out.stderr
        for p in nodes:
            poll(lambda: "cluster_state:ok" in redis_cli(p, "CLUSTER", "INFO"), what="the cluster")
        return nodes

    def wxfake(self, *args, tls=False):
        port, ca = free_port(), None
        if tls:
            ca, key = self.certificate()
            args = ("--tls-cert", ca, "--tls-key", key, *args)
        p = self.start(
            [BUILD / "wxfake", "--listen", f"127.0.0.1:{port}", "--any-code", *args],
            OTHER_CORES, "wxfake",
        )
        p.port, p.url, p.ca = port, f"{'https' if tls else 'http'}://127.0.0.1:{port}", ca
        until_up(p, lambda: can_connect(port))
        return p

    def wechat(self, tls=False):
        """A WeChat that costs next to nothing (nginx, a constant but for the user), for the
        load."""
        port, ca, ssl, key = free_port(), None, "", None
        if tls:
            ca, key = self.certificate()
            ssl = f"ssl_certificate {ca}; ssl_certificate_key {key};"
        values = {"DIR": self.dir, "PORT": port, "SSL": " ssl" if tls else "", "CERTIFICATE": ssl}
        file = self.dir / f"wechat{port}.conf"
        file.write_text(filled(HERE / "nginx/wechat.conf", values))
        p = self.start(["nginx", "-p", self.dir, "-e", "stderr", "-c", file], OTHER_CORES, "wechat")
        p.port, p.url, p.ca = port, f"{'https' if tls else 'http'}://127.0.0.1:{port}", ca
        until_up(p, lambda: can_connect(port))
        return p

    def certificate(self):
        cert, key = self.dir / "cert.pem", self.dir / "key.pem"
        subprocess.run(
            [
                "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext",
                "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert,
            ],
            check=True, capture_output=True,
        )
        return cert, key

    def server(self, redis, wxfake, cores=None, valgrind=None, at_start=True, **config):
        port, internal = free_port(), free_port()
        sections = {
            "server": {"listen": f"127.0.0.1:{port}", "internal_listen": f"127.0.0.1:{internal}"},
            "log": {"level": "warn"}, "redis": {"url": f"unix://{redis.socket}"}
            if not isinstance(redis, list)
            else {
                "url": "cluster://" + ",".join(f"127.0.0.1:{p.port}" for p in redis),
                "replicas": "0",
            },
            "session": {"encryption_key": "00112233445566778899aabbccddeeff" * 2},
            "wechat": {"base_url": wxfake.url, "fallback_urls": "", "ca_file": wxfake.ca or ""},
            "users": {"url": "none"}, "limit": {"login_per_ip": "0"},
            f"app {APPID}": {"secret": SECRET},
        }
        for key, value in config.items():
            section, _, name = key.partition("__")
            sections[section][name] = value
        file = self.dir / f"wxlogind{len(self.processes)}.ini"
        file.write_text(
            "".join(
                f"[{s}]\n" + "".join(f"{k} = {v}\n" for k, v in kv.items())
                for s, kv in sections.items()
            )
        )
        under = (
            [
                "valgrind", "--tool=callgrind", f"--callgrind-out-file={valgrind}",
                *([] if at_start else ["--instr-atstart=no"]),
            ] if valgrind
            else []
        )
        p = self.start([*under, BUILD / "wxlogind", "-c", file], cores or SERVER_CORE, "wxlogind")
        p.port, p.internal, p.tokens, p.auth_path = port, internal, None, "/internal/auth"
        until_up(p, lambda: can_connect(internal) and call(internal, "GET", "/readyz")[0] == 200)
        return p


def filled(template, values):
    """A file's text, with each @NAME@ replaced."""
    text = template.read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    return text


def redis_cli(redis, *args):
    return subprocess.run(
        ["redis-cli", "-s", redis.socket, *map(str, args)], capture_output=True, text=True
    ).stdout


def can_connect(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


def metric(server, start):
    """The sum of the series whose line begins so."""
    lines = call(server.internal, "GET", "/metrics")[1].decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(start))


def tokens(stack, server, n):
    """n living third_sessions, in a file: its own, or what logins give."""
    file = stack.dir / f"tokens{server.port}"
    if server.tokens:
        file.write_text("".join(f"{t}\n" for t in server.tokens))
        return file
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    ) as c, open(file, "w") as out:
        for i in range(n):
            c.request(
                "POST", "/v1/login", json.dumps({"code": f"t{time.monotonic_ns()}-{i}"}),
                {"Content-Type": "application/json"},
            )
            r = c.getresponse()
            out.write(json.loads(r.read())["third_session"] + "\n")
    return file


def family(pid):
    """A process and its children."""
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *[p for c in children for p in family(int(c))]]


def percentile(ordered, p):
    return ordered[min(len(ordered) - 1, int(len(ordered) * p / 100))]


def cpu_seconds(pid):
    """What a process, its threads and its children have used: the scheduler's own account, in
    nanoseconds."""
    return (
        sum(
            int((t / "schedstat").read_text().split()[0])
            for p in family(pid)
            for t in pathlib.Path(f"/proc/{p}/task").iterdir()
        )
        / 1e9
    )


def rss_mb(pid):
    return (
        sum(
            int(line.split()[1])
            for p in family(pid)
            for line in open(f"/proc/{p}/status")
            if line.startswith("VmRSS")
        )
        / 1024
    )


def wrk(script, url, seconds, connections, env=None, threads=1):
    """Its report as a dict."""
    out = subprocess.run(
        [
            "wrk", "-t", str(threads), "-c", str(connections), "-d", f"{max(1, round(seconds))}s",
            "--timeout", "10s", "-s", str(HERE / script), url,
        ],
        capture_output=True, text=True,
        env={**os.environ, "LUA_PATH": f"{HERE}/?.lua;;", **(env or {})},
        preexec_fn=lambda: os.sched_setaffinity(0, OTHER_CORES),
    )
    if out.returncode != 0:
        raise SystemExit(f"bench: wrk failed: {out.stdout}{out.stderr}")
    return json.loads(out.stdout.strip().splitlines()[-1])
