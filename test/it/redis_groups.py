"""Several Redis servers that are one store: a master with replicas and sentinels, or a cluster.
Each server has a loopback address of its own, so that a packet filter can cut between any two;
only a test that has a network namespace to itself may do that."""
import base64
import contextlib
import pathlib
import signal
import subprocess

from conftest import Process, free_port, poll


class Server:
    """One process; cli() speaks to it."""

    def __init__(
        self, directory, host, args=(), conf=None, binary="redis-server", port=None, password=None,
        tls=None,
    ):
        directory.mkdir(parents=True, exist_ok=True)
        self.dir, self.host, self.port, self.binary, self.password = (
            directory, host, port or free_port(), binary, password,
        )
        self.conf, self.args, self.tls = conf, list(args), tls
        self.start()

    def start(self, wait=True):
        secret = self.tls and {
            "port": 0, "tls-port": self.port, "tls-cert-file": self.tls.cert,
            "tls-key-file": self.tls.key, "tls-ca-cert-file": self.tls.ca, "tls-auth-clients": "no",
            "tls-replication": "yes", "tls-cluster": "yes",
        }
        ports = [str(x) for k, v in (secret or {"port": self.port}).items() for x in (f"--{k}", v)]
        common = [
            *ports, "--bind", self.host, "--bind-source-addr", self.host, "--replica-announce-ip",
            self.host, "--dir", self.dir, "--save", "", "--protected-mode", "no",
            "--enable-debug-command", "yes", "--repl-diskless-sync-delay", "0",
        ]
        argv = (
            [self.binary, self.dir / "sentinel.conf", "--sentinel"]
            if self.conf
            else [self.binary, *common, *self.args]
        )
        if self.conf and not (self.dir / "sentinel.conf").exists():
            (self.dir / "sentinel.conf").write_text(
                "".join(
                    f"{k} {v}\n"
                    for k, v in (secret or {"port": self.port}).items()
                    if k != "tls-cluster"
                )
                + f"bind {self.host}\nbind-source-addr {self.host}\n"
                + f"sentinel announce-ip {self.host}\ndir {self.dir}\n"
                + f"protected-mode no\n{self.conf}\n"
            )
        self.process = Process(argv, self.dir / "log")
        if wait:
            poll(lambda: "PONG" in self.cli("PING"), what=f"redis at {self.host}")

    def cli(self, *args, timeout=5):
        auth = ["-a", self.password, "--no-auth-warning"] if self.password else []
        auth += ["--tls", "--insecure"] if self.tls else []
        try:
            out = subprocess.run(
                [
                    "redis-cli", "-h", self.host, "-p", str(self.port), *auth,
                    *[str(a) for a in args],
                ],
                capture_output=True, text=True, timeout=timeout,
            )
        except subprocess.TimeoutExpired:
            return ""
        return out.stdout + out.stderr

    def signal(self, sig):
        self.process.signal(sig)

    def kill(self):
        self.process.proc.kill()
        self.process.proc.wait()

    def stop(self):
        if self.process.proc.poll() is None:
            self.signal(signal.SIGCONT)
            self.kill()

    def role(self):
        return (self.cli("ROLE").split() or [""])[0]


class Group:
    def stop(self):
        for s in self.everybody():
            with contextlib.suppress(ProcessLookupError):
                s.stop()


class SentinelGroup(Group):
    """One master, replicas, three sentinels; down-after one second."""
    NAME = "mymaster"

    def __init__(
        self, directory, replicas=2, down_after_ms=1000, args=(), password=None,
        sentinel_password=None, first=2, tls=None,
    ):
        directory = pathlib.Path(directory)
        auth = ["--requirepass", password, "--masterauth", password] if password else []
        hosts = [f"127.0.0.{first + i}" for i in range(replicas + 4)]
        self.servers = [
            Server(directory / "redis0", hosts[0], [*auth, *args], password=password, tls=tls)
        ]
        m = self.servers[0]
        for i in range(1, replicas + 1):
            self.servers.append(
                Server(
                    directory / f"redis{i}", hosts[i],
                    [*auth, *args, "--replicaof", f"{m.host} {m.port}"],
                    password=password, tls=tls,
                )
            )
        self.sentinels = []
        for i in range(3):
            conf = (
                f"sentinel monitor {self.NAME} {m.host} {m.port} 2\n"
                f"sentinel down-after-milliseconds {self.NAME} {down_after_ms}\n"
                f"sentinel failover-timeout {self.NAME} 5000\n"
            )
            if password:
                conf += f"sentinel auth-pass {self.NAME} {password}\n"
            if sentinel_password:
                conf += f"requirepass {sentinel_password}\n"
            self.sentinels.append(
                Server(
                    directory / f"sentinel{i}", hosts[replicas + 1 + i], conf=conf,
                    password=sentinel_password, tls=tls,
                )
            )
        poll(
            lambda: all(
                "master_link_status:up" in s.cli("INFO", "replication") for s in self.servers[1:]
            ),
            60, "the replicas follow",
        )
        poll(
            lambda: m.cli("WAIT", replicas, 100).strip() == str(replicas), 60,
            "the replicas confirm",
        )
        poll(
            lambda: all(self.knows_all(s) for s in self.sentinels), 60,
            "the sentinels know each other and the replicas",
        )

    def knows_all(self, s):
        info = s.cli("INFO", "sentinel")
        return f"slaves={len(self.servers) - 1},sentinels=3" in info

    def everybody(self):
        return self.servers + self.sentinels

    def url(self, login="", db="", query=""):
        return (
            f"sentinel://{login}"
            + ",".join(f"{s.host}:{s.port}" for s in self.sentinels)
            + f"/{self.NAME}{db}{query}"
        )

    def named(self, s):
        words = s.cli("SENTINEL", "get-master-addr-by-name", self.NAME).split()
        return tuple(words[:2]) if len(words) > 1 else None

    def master(self):
        """Whom a majority of the sentinels names, or None."""
        names = [self.named(s) for s in self.sentinels]
        best = max(names, key=names.count)
        if best and names.count(best) >= 2:
            return next((s for s in self.servers if (s.host, str(s.port)) == best), None)
        return None

    def replicas(self):
        return [s for s in self.servers if s is not self.master()]

    def fail_over(self):
        """A planned one. Whom the majority names then."""
        old = self.master()
        poll(
            lambda: "OK" in self.sentinels[0].cli("SENTINEL", "FAILOVER", self.NAME), 60,
            "a failover is begun",
        )
        poll(lambda: self.master() not in (None, old), 60, "the failover is over")
        return self.master()


class Cluster(Group):
    """Masters, and replicas behind each; node-timeout two seconds."""

    def __init__(
        self, directory, masters=3, replicas=1, node_timeout_ms=2000, args=(), first=20, tls=None
    ):
        directory = pathlib.Path(directory)
        self.servers = []
        for i in range(masters * (1 + replicas)):
            self.servers.append(
                Server(
                    directory / f"node{i}", f"127.0.0.{first + i}",
                    [
                        "--cluster-enabled", "yes", "--cluster-node-timeout", node_timeout_ms,
                        "--cluster-require-full-coverage", "no",
                        # each master keeps its own replicas: docs/redis.md
                        "--cluster-allow-replica-migration", "no",
                        "--cluster-announce-ip", f"127.0.0.{first + i}",
                        "--cluster-port", free_port(), *args,
                    ],
                    tls=tls,
                )
            )
        secret = ["--tls", "--insecure"] if tls else []
        out = subprocess.run(
            [
                "redis-cli", *secret, "--cluster", "create",
                *[f"{s.host}:{s.port}" for s in self.servers], "--cluster-replicas", str(replicas),
                "--cluster-yes",
            ],
            capture_output=True, text=True, timeout=60,
        )
        assert out.returncode == 0, out.stdout + out.stderr
        poll(
            lambda: all("cluster_state:ok" in s.cli("CLUSTER", "INFO") for s in self.servers), 60,
            "the cluster is well",
        )
        poll(
            lambda: len(self.masters()) == masters
            and all(
                f"connected_slaves:{replicas}" in m.cli("INFO", "replication")
                for m in self.masters()
            ),
            60, "the replicas follow",
        )
        poll(
            lambda: all(
                m.cli("WAIT", replicas, 100).strip() == str(replicas) for m in self.masters()
            ),
            60, "the replicas confirm",
        )
        poll(lambda: len({self.epoch(s) for s in self.servers}) == 1, 60, "all know the same epoch")

    @staticmethod
    def epoch(s):
        return next(
            line
            for line in s.cli("CLUSTER", "INFO").split()
            if line.startswith("cluster_current_epoch:")
        )

    def everybody(self):
        return self.servers

    def url(self, login=""):
        return f"cluster://{login}" + ",".join(f"{s.host}:{s.port}" for s in self.servers)

    def nodes(self):
        """(server, flags, master's id, id) as somebody who lives sees them."""
        for s in self.servers:
            text = s.cli("CLUSTER", "NODES", timeout=1) if s.process.proc.poll() is None else ""
            if "myself" in text:
                by = {f"{x.host}:{x.port}": x for x in self.servers}
                return [
                    (
                        by[line.split()[1].split("@")[0]], line.split()[2].split(","),
                        line.split()[3], line.split()[0], line.split()[8:],
                    )
                    for line in text.splitlines()
                ]
        return []

    @staticmethod
    def tag_of(token):
        return (
            base64.urlsafe_b64encode(base64.urlsafe_b64decode(token[:4])[:2]).decode().rstrip("=")
        )

    def slot(self, token):
        """Of a session."""
        lives = next(s for s in self.servers if s.process.proc.poll() is None)
        return int(lives.cli("CLUSTER", "KEYSLOT", "{" + self.tag_of(token) + "}"))

    def masters(self):
        return [n[0] for n in self.nodes() if "master" in n[1] and "fail" not in n[1] and n[4]]

    def owner(self, key):
        slot = int(
            next(s for s in self.servers if s.process.proc.poll() is None).cli(
                "CLUSTER", "KEYSLOT", key
            )
        )
        for s, flags, _, _, slots in self.nodes():
            for r in slots:
                if (
                    "[" not in r
                    and int(r.split("-")[0]) <= slot <= int(r.split("-")[-1])
                    and "master" in flags
                ):
                    return s
        return None

    def replicas_of(self, master):
        nodes = self.nodes()
        mine = next(n[3] for n in nodes if n[0] is master)
        return [n[0] for n in nodes if n[2] == mine and "fail" not in n[1]]
