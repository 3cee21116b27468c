"""docs/kubernetes held against the program: a pod's worth of it, with exactly the environment,
files, ports and probes that the manifests give it, on this machine's addresses."""
import contextlib
import os
import re
import shutil
import signal
import subprocess

import pytest
import yaml

from conftest import APPID, BUILD, KEY, ROOT, SECRET, Process, call, free_port, poll
from test_stack import seconds

MANIFESTS = ROOT / "docs" / "kubernetes"
TOKEN = "the-token-of-the-pods"


def documents(name):
    return [d for d in yaml.safe_load_all((MANIFESTS / name).read_text())]


KUSTOMIZATION = documents("kustomization.yaml")[0]
ALL = [d for name in KUSTOMIZATION["resources"] for d in documents(name)]


def one(kind, name="wxlogind"):
    return next(d for d in ALL if d["kind"] == kind and d["metadata"]["name"] == name)


POD = one("Deployment")["spec"]["template"]
CONTAINER = POD["spec"]["containers"][0]
PORTS = {p["name"]: p["containerPort"] for p in CONTAINER["ports"]}


def environment():
    assert CONTAINER["envFrom"] == [
        {"configMapRef": {"name": KUSTOMIZATION["configMapGenerator"][0]["name"]}}
    ]
    lines = (MANIFESTS / KUSTOMIZATION["configMapGenerator"][0]["envs"][0]).read_text().splitlines()
    found = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return {**found, **{e["name"]: e["value"] for e in CONTAINER["env"]}}


def secret_files():
    """As kubectl create secret --from-file=secrets/ makes them, and where they are mounted."""
    volume = POD["spec"]["volumes"][0]
    assert (
        volume["name"] == CONTAINER["volumeMounts"][0]["name"]
        and volume["secret"]["secretName"] == "wxlogind"
    )
    mount = CONTAINER["volumeMounts"][0]["mountPath"]
    files = {v for k, v in environment().items() if k.endswith("_FILE")}
    assert {os.path.dirname(f) for f in files} == {mount}
    return mount, {os.path.basename(f) for f in files}


SECRETS = {
    "app_secret": SECRET,
    "internal_token": TOKEN,
    "redis_password": "passw0rd",
    "encryption_key": KEY,
    "users_password": "passw0rd",
}


class Pod:
    def __init__(self, directory, redis, wxfake):
        mount, names = secret_files()
        for name in names:
            (directory / name).write_text(
                SECRETS[name]
            )  # kubectl keeps a file as it is, and some have no newline
        self.public, self.internal = free_port(), free_port()
        env = environment()
        assert (
            env["WXLOGIND_SERVER_LISTEN"] == f"0.0.0.0:{PORTS['public']}"
            and env["WXLOGIND_SERVER_INTERNAL_LISTEN"] == f"0.0.0.0:{PORTS['internal']}"
        )
        env = {k: v.replace(mount, str(directory)) for k, v in env.items()}
        # away: no reason not to start
        env.update(
            {
                "WXLOGIND_SERVER_LISTEN": f"127.0.0.1:{self.public}",
                "WXLOGIND_SERVER_INTERNAL_LISTEN": f"127.0.0.1:{self.internal}",
                "WXLOGIND_APPID": APPID,
                "WXLOGIND_REDIS_URL": f"redis://127.0.0.1:{redis.port}/0",
                "WXLOGIND_USERS_URL": "mysql://wxlogind@127.0.0.1:1/wxlogind",
                "WXLOGIND_WECHAT_BASE_URL": wxfake.url,
                "WXLOGIND_WECHAT_FALLBACK_URLS": "",
            }
        )
        self.process = Process([BUILD / "wxlogind"], directory / "log", env=env)

    def probe(self, which):
        """As the kubelet does: by the pod's address, with no token."""
        how = CONTAINER[which]["httpGet"]
        port = {"public": self.public, "internal": self.internal}[how["port"]]
        with contextlib.suppress(OSError):
            return call(
                port,
                "GET",
                how["path"],
                headers={
                    "Host": f"10.244.1.7:{PORTS[how['port']]}",
                    "User-Agent": "kube-probe/1.32",
                },
            ).status


@pytest.fixture
def pod(stack, tmp_path, wxfake):
    made = Pod(tmp_path, stack.redis("--requirepass", "passw0rd"), wxfake)
    yield made
    made.process.stop()


def test_a_pods_worth_of_it(pod, wxfake):
    poll(lambda: pod.probe("livenessProbe") == 200, what="alive")
    poll(lambda: pod.probe("readinessProbe") == 200, what="ready")
    assert "is no setting" not in pod.process.text()
    given = wxfake.call("POST", "/fake/code").json
    a = call(pod.public, "POST", "/v1/login", {"code": given["code"]})
    assert a.status == 200, a
    who = call(
        pod.internal,
        "GET",
        "/internal/auth",
        headers={
            "Host": "wxlogind-internal:8081",
            "Authorization": f"Bearer {a.token}",
            "X-Internal-Token": TOKEN,
        },
    )
    assert (who.status, who.headers["X-Wx-Openid"]) == (200, given["openid"])
    monitor = one("ServiceMonitor")["spec"]["endpoints"][0]
    assert monitor["authorization"] == {
        "type": "Bearer",
        "credentials": {"name": "wxlogind", "key": "internal_token"},
    }
    assert (
        call(
            pod.internal, "GET", monitor["path"], headers={"Authorization": f"Bearer {TOKEN}"}
        ).status
        == 200
    )
    assert call(pod.internal, "GET", monitor["path"]).status == 401


def test_the_end_of_a_pod(pod):
    """First no endpoint names it, then it stops accepting; all within the time that Kubernetes
    gives it."""
    poll(lambda: pod.probe("readinessProbe") == 200, what="ready")
    pod.process.signal(signal.SIGTERM)
    poll(lambda: pod.probe("readinessProbe") == 503, what="not ready")
    assert (
        pod.probe("livenessProbe") == 200 and call(pod.public, "GET", "/v1/session").status == 401
    )
    env, spec = environment(), POD["spec"]
    delay, drain = seconds(env["WXLOGIND_SERVER_DRAIN_DELAY"]), seconds(
        env["WXLOGIND_SERVER_DRAIN_TIMEOUT"]
    )
    probe = CONTAINER["readinessProbe"]
    assert (
        delay > probe["periodSeconds"] * probe["failureThreshold"]
        and spec["terminationGracePeriodSeconds"] > delay + drain
    )
    assert pod.process.proc.wait(delay + drain) == 0


def test_redis_away_makes_it_unready_only(pod, stack):
    poll(lambda: pod.probe("readinessProbe") == 200, what="ready")
    stack.made["redis"][0].kill()
    poll(lambda: pod.probe("readinessProbe") == 503, what="not ready")
    assert pod.probe("livenessProbe") == 200


def test_the_manifests_fit_together():
    labels = POD["metadata"]["labels"]
    assert {d["kind"] for d in ALL} == {
        "Deployment",
        "Service",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "ServiceMonitor",
    }
    for d in ALL:
        selector = d["spec"].get("selector") or d["spec"].get("podSelector")
        selector = selector.get("matchLabels", selector)
        if d["kind"] == "ServiceMonitor":
            chosen = [
                s
                for s in ALL
                if s["kind"] == "Service" and selector.items() <= s["metadata"]["labels"].items()
            ]
            assert [s["metadata"]["name"] for s in chosen] == ["wxlogind-internal"] and d["spec"][
                "endpoints"
            ][0]["port"] in {p["name"] for p in chosen[0]["spec"]["ports"]}
            assert (
                chosen[0]["metadata"]["labels"][d["spec"]["jobLabel"]] == "wxlogind"
            )  # job="wxlogind" in the alerts
        else:
            assert selector.items() <= labels.items(), d["kind"]
        for p in d["spec"].get("ports", []):
            assert p["targetPort"] in PORTS
    assert (
        one("PodDisruptionBudget")["spec"]["minAvailable"] < one("Deployment")["spec"]["replicas"]
    )


def test_only_who_is_allowed_reaches_the_internal_port():
    rules = one("NetworkPolicy")["spec"]["ingress"]
    by_port = {rule["ports"][0]["port"]: rule.get("from") for rule in rules}
    assert by_port == {
        "public": None,
        "internal": [
            {
                "namespaceSelector": {},
                "podSelector": {"matchLabels": {"wxlogind-internal": "allowed"}},
            }
        ],
    }
    exposed = [p["targetPort"] for p in one("Service")["spec"]["ports"]]
    assert exposed == ["public"] and all(
        s["spec"].get("type", "ClusterIP") == "ClusterIP" for s in ALL if s["kind"] == "Service"
    )


def test_the_pod_has_no_rights():
    spec = POD["spec"]
    user = int(re.search(r"useradd --uid (\d+)", (ROOT / "Dockerfile").read_text())[1])
    assert (
        spec["securityContext"]["runAsNonRoot"]
        and spec["securityContext"]["runAsUser"] == spec["securityContext"]["fsGroup"] == user
    )
    own = CONTAINER["securityContext"]
    assert (
        own["readOnlyRootFilesystem"]
        and own["allowPrivilegeEscalation"] is False
        and own["capabilities"] == {"drop": ["ALL"]}
    )
    assert spec["automountServiceAccountToken"] is False and spec["enableServiceLinks"] is False
    assert not [
        k for k in environment() if re.search("PASSWORD$|SECRET$|TOKEN$|KEY$", k)
    ]  # secrets are files


def test_the_document_names_the_secrets():
    text = (ROOT / "docs/kubernetes.md").read_text()
    made = re.search(r"for s in ([\w ]+);", (ROOT / "docs/operations.md").read_text())[
        1
    ].split() + ["app_secret"]
    assert secret_files()[1] - set(made) == {"users_password"} and "`users_password`" in text
    assert "create secret generic wxlogind --from-file=secrets/" in text


def test_kubectl_takes_the_kustomization():
    if not shutil.which("kubectl"):
        pytest.skip("no kubectl")
    r = subprocess.run(
        ["kubectl", "kustomize", MANIFESTS], capture_output=True, text=True, timeout=60
    )
    if 'unknown field "envs"' in r.stderr:
        pytest.skip("kubectl is older than 1.21, as Debian 12's is")
    assert r.returncode == 0, r.stderr
    made = list(yaml.safe_load_all(r.stdout))
    assert len(made) == len(ALL) + 1 and all(d["metadata"]["namespace"] == "wxlogind" for d in made)
    config = next(d for d in made if d["kind"] == "ConfigMap")
    container = next(d for d in made if d["kind"] == "Deployment")["spec"]["template"]["spec"][
        "containers"
    ][0]
    assert (
        container["envFrom"] == [{"configMapRef": {"name": config["metadata"]["name"]}}]
        and config["metadata"]["name"] != "wxlogind"
    )
    version = re.search(r"^VERSION := (\S+)", (ROOT / "Makefile").read_text(), re.M)[1]
    assert container["image"] == f"registry.example.com/wxlogind:{version}"
    assert {**config["data"], **{e["name"]: e["value"] for e in container["env"]}} == environment()
