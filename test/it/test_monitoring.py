"""docs/monitoring against a real Prometheus that scrapes a real wxlogind under load: every query of
the dashboard, of the rules and of docs/metrics.md finds data, and every alert fires when what it
is about happens."""
import contextlib
import json
import re
import resource
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.parse

import pytest
import yaml

from conftest import APPID, ROOT, Process, call, free_port, poll
from redis_groups import Server as RedisServer
from test_proxies import end

MONITORING = ROOT / "docs" / "monitoring"
RULES = yaml.safe_load((MONITORING / "rules.yml").read_text())
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
ALERTS = {r["alert"]: r for g in RULES["groups"] for r in g["rules"]}
WINDOW = "10s"  # for [5m]: a test does not last so long
INSIDE = {"X-Internal-Token": "the-token"}


class Prometheus:
    """The documented configuration, with this test's address, each second, and without the patience
    of the alerts."""

    def __init__(self, directory, target, token):
        config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        job = config["scrape_configs"][0]
        job["static_configs"][0]["targets"] = [f"127.0.0.1:{target}"]
        (directory / "token").write_text(token)
        job["authorization"]["credentials_file"] = str(directory / "token")
        rules = json.loads(json.dumps(RULES))
        for g in rules["groups"]:
            for r in g["rules"]:
                r["for"] = "0s"
                r["expr"] = re.sub(r"\[\d+m\]", f"[{WINDOW}]", r["expr"])
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
        (directory / "rules.yml").write_text(yaml.safe_dump(rules))
        self.port = free_port()
        self.process = Process(
            [
                "prometheus",
                f"--config.file={directory}/prometheus.yml",
                f"--storage.tsdb.path={directory}/data",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            directory / "prometheus.log",
        )
        poll(self.is_up, seconds=60, what="prometheus")

    def is_up(self):
        assert self.process.proc.poll() is None, self.process.text()
        with contextlib.suppress(OSError):
            return call(self.port, "GET", "/-/ready").status == 200

    def query(self, expr):
        a = call(self.port, "GET", "/api/v1/query?" + urllib.parse.urlencode({"query": expr}))
        assert a.status == 200 and a.json["status"] == "success", (expr, a)
        return a.json["data"]["result"]

    def firing(self):
        return {
            a["labels"]["alertname"]
            for a in call(self.port, "GET", "/api/v1/alerts").json["data"]["alerts"]
            if a["state"] == "firing"
        }

    def rules(self):
        return [
            r
            for g in call(self.port, "GET", "/api/v1/rules").json["data"]["groups"]
            for r in g["rules"]
        ]


class Load:
    """Logins, repeats, refusals, checks, profiles, phone numbers and logouts, until it is told to
    stop."""

    def __init__(self, server, wxfake):
        self.server, self.wxfake, self.going = server, wxfake, True
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        n = 0
        while self.going:
            with contextlib.suppress(OSError, AssertionError, TypeError, KeyError, AttributeError):
                self.once(n)
            n += 1
            time.sleep(0.02)

    def once(self, n):
        a = self.server.login(self.wxfake.code(openid=f"oLoad{n % 7}"))
        self.server.auth("A" * 43, headers=INSIDE)
        if n % 2 == 0:
            self.server.login("no such code")
        token = a.token
        for _ in range(3):
            self.server.auth(token, headers=INSIDE)
        headers = {"Authorization": f"Bearer {token}"}
        self.server.call("GET", "/v1/user", headers=headers)
        self.server.call(
            "POST", "/v1/user/phone", {"code": self.wxfake.code(kind="phone")}, headers=headers
        )
        self.server.session(token, "DELETE")

    def stop(self):
        self.going = False
        self.thread.join()


@pytest.fixture
def prometheus(tmp_path):
    made = []

    def make(server, token="the-token"):
        directory = tmp_path / "prometheus"
        directory.mkdir()
        made.append(Prometheus(directory, server.internal, token))
        return made[-1]

    yield make
    for p in made:
        end(p.process)


def selectors(expr):
    """Each series that an expression reads: an alert's own result is empty while all is well."""
    return re.findall(r"\b(?:wxlogind_\w+|process_\w+|up)(?:\{[^}]*\})?", expr)


def panels():
    return [(p["title"], t["expr"]) for p in DASHBOARD["panels"] for t in p["targets"]]


def test_promtool_takes_them(tmp_path):
    assert shutil.which("promtool"), "prometheus is not installed"
    shutil.copytree(MONITORING, tmp_path / "m")
    config = (tmp_path / "m/prometheus.yml").read_text()
    (tmp_path / "token").write_text("x")
    (tmp_path / "m/prometheus.yml").write_text(
        config.replace("/etc/prometheus/wxlogind_token", str(tmp_path / "token"))
    )
    for argv in (
        ["promtool", "check", "config", "prometheus.yml"],
        ["promtool", "check", "rules", "rules.yml"],
    ):
        r = subprocess.run(argv, cwd=tmp_path / "m", capture_output=True, text=True, timeout=60)
        assert r.returncode == 0 and "FAILED" not in r.stdout, r
    for a in ALERTS.values():
        assert a["annotations"]["summary"] and a["labels"]["severity"] in ("warning", "critical")


def test_the_dashboard_is_one():
    """What Grafana wants of it, as far as it can be held without one."""
    assert DASHBOARD["title"] and DASHBOARD["uid"] and DASHBOARD["schemaVersion"] >= 36
    names = {v["name"] for v in DASHBOARD["templating"]["list"]}
    assert names == {"datasource", "job", "instance"}
    ids = [p["id"] for p in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids) >= 15
    taken = set()
    for p in DASHBOARD["panels"]:
        g = p["gridPos"]
        cells = {
            (x, y) for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])
        }
        assert not cells & taken and g["x"] + g["w"] <= 24, p["title"]
        taken |= cells
        assert p["datasource"]["uid"] == "${datasource}" and p["targets"]
        for t in p["targets"]:
            assert set(re.findall(r"\$(\w+)", t["expr"])) <= {"job", "instance", "__rate_interval"}
    shown = " ".join(e for _, e in panels())
    table = set(
        re.findall(
            r"^\| `((?:wxlogind|process)_\w+)` \|", (ROOT / "docs/metrics.md").read_text(), re.M
        )
    )
    missing = {m for m in table if m not in shown} - {
        "process_virtual_memory_bytes",
        "process_start_time_seconds",
    }
    assert not missing, f"no panel shows {missing}"


def test_every_query_finds_data(stack, redis, wxfake, prometheus):
    server = stack.server(
        redis,
        wxfake,
        server__internal_token="the-token",
        users__url=f"sqlite://{stack.dir}/users.db",
        server__workers="2",
        log__level="warn",
        limit__phone_per_user="0",
        audit__file=f"{stack.dir}/audit",
        wait=False,
    )
    p = prometheus(server)
    load = Load(server, wxfake)
    try:
        queries = {expr for _, expr in panels()}
        queries |= {
            s
            for r in ALERTS.values()
            for s in selectors(r["expr"])
            if 'outcome="wechat_config"' not in s
            and 'outcome=~"wechat' not in s
            and 'status="503"' not in s
            and 'outcome!="ok"' not in s
        }  # the next test has these
        queries |= {
            q.replace("\\|", "|")
            for q in re.findall(
                r"\| `([^`]*(?:rate\(|/ process)[^`]*)` \|", (ROOT / "docs/metrics.md").read_text()
            )
        }
        assert len(queries) >= 30
        for expr in sorted(queries):
            asked = (
                expr.replace("$__rate_interval", WINDOW)
                .replace("$job", ".+")
                .replace("$instance", ".+")
                .replace("[5m]", f"[{WINDOW}]")
            )
            if 'outcome=~"wechat' in asked:
                asked = asked.replace(
                    "wechat_.*", "invalid_.*|wechat_.*"
                )  # nothing fails for a reason of ours just now
            poll(lambda: p.query(asked), seconds=60, what=f"data for {expr}")
            assert (
                not [r for r in p.query(asked) if r["value"][1] == "NaN"] or "quantile" in asked
            ), expr
        assert not [r for r in p.rules() if r["health"] == "err"]
        assert (
            p.query("process_open_fds > 10")
            and p.query("process_resident_memory_bytes > 1e6")
            and p.query("process_cpu_seconds_total > 0")
        )
        assert p.query("time() - process_start_time_seconds < 600") and p.query(
            "process_max_fds >= process_open_fds"
        )
        slow = {"WxlogindChecksSlow", "WxlogindWechatSlow"}  # as the machine may be
        poll(lambda: p.firing() - slow <= {"WxlogindCodesRefused"}, 60, "no other alert")
    finally:
        load.stop()


class Watch:
    """Which alerts were seen firing, over a whole test."""

    def __init__(self, prometheus):
        self.prometheus, self.seen = prometheus, set()

    def fires(self, *names, meanwhile=lambda: None):
        def look():
            meanwhile()
            self.seen.update(self.prometheus.firing())
            return set(names) <= self.seen

        try:
            poll(look, seconds=60, what=f"{names}")
        except AssertionError as e:
            asked = [s for n in names for s in selectors(ALERTS[n]["expr"])]
            state = {q: self.prometheus.query(q) for q in asked}
            raise AssertionError(f"seen are {self.seen}; {state}") from e


BEHIND_SENTINELS = {"WxlogindEndsUnconfirmed", "WxlogindRedisWaiting"}


def test_every_alert_fires(stack, redis, wxfake, prometheus):
    """When what it is about happens: all but those of the next test."""
    server = stack.server(
        redis,
        None,
        wechat__base_url=f"http://127.0.0.1:{free_port()}",
        wechat__fallback_urls=wxfake.url,
        server__internal_token="the-token",
        log__level="warn",
        users__url="mysql://nobody@127.0.0.1:1/nowhere",
        preexec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (90, 90)),
        server__max_connections="40",
        session__cache_entries="0",
        audit__file="/dev/full",
    )
    watch = Watch(prometheus(server))
    fires = watch.fires
    load = Load(server, wxfake)
    try:
        fires(
            "WxlogindUsersAway", "WxlogindCodesRefused", "WxlogindAuditLost",
            "WxlogindWechatHostAway",
        )
        for api in ("jscode2session", "stable_token"):  # AppSecret wrong
            wxfake.fault(api=api, mode="errcode", errcode=40125, count=100000)
        redis.cli("DEL", f"wxlogin:t:{{{APPID}}}")
        fires(
            "WxlogindAppRefused", "WxlogindLoginsFail", "WxlogindTokenFails",
            meanwhile=lambda: server.inside(
                "GET", f"/internal/apps/{APPID}/access-token", headers=INSIDE
            ),
        )
        wxfake.clear()
        wxfake.fault(mode="hang", count=100000)  # WeChat slow
        slow = [Load(server, wxfake) for _ in range(4)]
        try:
            fires("WxlogindWechatSlow")
        finally:
            wxfake.clear()
            for s in slow:
                s.stop()
        fires("WxlogindChecksSlow", meanwhile=lambda: redis.cli("CLIENT", "PAUSE", 200, "ALL"))
        redis.signal(signal.SIGSTOP)
        fires("WxlogindRedisAway", "WxlogindRedisNodeAway", "WxlogindFull")
        redis.signal(signal.SIGCONT)
        server.process.signal(signal.SIGSTOP)
        fires("WxlogindDown")
        server.process.signal(signal.SIGCONT)

        def tighten():  # as if it had opened nearly all
            for r in watch.prometheus.query("process_open_fds"):
                few = int(r["value"][1]) + 1
                resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (few, 90))

        fires("WxlogindDescriptors", meanwhile=tighten)
    finally:
        load.stop()
        redis.signal(signal.SIGCONT)
        server.process.signal(signal.SIGCONT)
    assert set(ALERTS) - watch.seen <= BEHIND_SENTINELS, set(ALERTS) - watch.seen


def test_alerts_behind_sentinels(stack, wxfake, prometheus, tmp_path):
    """A master without replicas confirms no end; and without a master commands wait for one."""
    master = RedisServer(tmp_path / "master", "127.0.0.1")
    sentinel = RedisServer(
        tmp_path / "sentinel",
        "127.0.0.1",
        conf=f"sentinel monitor mymaster {master.host} {master.port} 1\n"
        "sentinel down-after-milliseconds mymaster 500",
    )
    try:
        server = stack.server(
            None,
            wxfake,
            redis__url=f"sentinel://127.0.0.1:{sentinel.port}/mymaster",
            server__internal_token="the-token",
            log__level="warn",
        )
        watch = Watch(prometheus(server))
        load = Load(server, wxfake)
        try:
            watch.fires("WxlogindEndsUnconfirmed")
            master.kill()
            watch.fires("WxlogindRedisWaiting")
        finally:
            load.stop()
    finally:
        sentinel.stop()
        master.stop()


def test_descriptors_are_counted(server):
    """Each connection is one more."""
    before = server.metric("process_open_fds")
    held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
    poll(lambda: server.metric("process_open_fds") >= before + 20, what="20 more")
    assert server.metric("process_max_fds") > before + 20
    for s in held:
        s.close()
    poll(lambda: server.metric("process_open_fds") < before + 20, what="fewer")
