"""/metrics as Prometheus reads it."""
import re

from conftest import APPID

SAMPLE = re.compile(
    r'^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n'
    r']|\\["\\n])*",?)*\})? (-?[0-9.e+-]+|\+Inf|NaN)$'
)
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


def parse(text):
    """name -> (type, {labels: value}); fails on what promtool would not take."""
    assert text.endswith("\n")
    families, family = {}, None
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split(" ", 3)[2]
            assert name not in families and len(line.split(" ", 3)) == 4
            family = families[name] = {"type": None, "samples": {}}
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert families[name] is family and kind in ("counter", "gauge", "histogram")
            family["type"] = kind
        else:
            m = SAMPLE.match(line)
            assert m, line
            base = re.sub(r"_(bucket|sum|count)$", "", m[1]) if m[1] not in families else m[1]
            assert families[base] is family, f"{line}: not with its family"
            key = (m[1], tuple(LABEL.findall(m[2] or "")))
            assert key not in family["samples"], f"twice: {line}"
            family["samples"][key] = float(m[3])
    return families


def test_parses_and_adds_up(server, wxfake):
    token = server.login(wxfake.code()).token
    server.login("no such code")
    for _ in range(3):
        server.auth(token)
    server.inside("GET", "/no/such/path")
    server.raw(b"nonsense\r\n\r\n")
    text = server.inside("GET", "/metrics")
    assert text.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    families = parse(text.body.decode())
    names = [
        "http_requests_total", "http_request_seconds", "wechat_requests_total",
        "wechat_request_seconds", "redis_commands_total", "redis_connected", "session_cache_total",
        "logins_total", "connections", "build_info",
    ]
    assert not [n for n in names if f"wxlogind_{n}" not in families]
    for name, f in families.items():
        assert f["type"] and name.startswith(("wxlogind_", "process_"))
        assert f["type"] != "counter" or name.endswith("_total")
        if f["type"] != "histogram":
            continue
        series = {tuple(p for p in labels if p[0] != "le") for _, labels in f["samples"]}
        for s in series:
            buckets = [(float(dict(lab)["le"]), v) for (n, lab), v in f["samples"].items()
                       if n.endswith("_bucket") and tuple(p for p in lab if p[0] != "le") == s]
            assert [b[0] for b in buckets] == sorted(b[0] for b in buckets) and buckets[-1][
                0
            ] == float("inf")
            assert [b[1] for b in buckets] == sorted(b[1] for b in buckets)
            assert (
                buckets[-1][1] == f["samples"][(f"{name}_count", s)]
                and f["samples"][(f"{name}_sum", s)] >= 0
            )
    assert (
        server.metric("wxlogind_logins_total", outcome="ok") == 1
        and server.metric("wxlogind_logins_total", outcome="invalid_code") == 1
    )
    assert (
        server.metric(
            "wxlogind_http_requests_total", listener="internal", route="/internal/auth",
            status="200",
        ) == 3
    )
    assert server.metric("wxlogind_redis_connected") == 1


def test_labels_are_bounded(server):
    """Nothing that a caller sends becomes a label."""
    for i in range(300):
        server.inside("GET", f"/nothing/{i}")
        server.inside("GET", f"/internal/apps/{APPID}/users/o{i}/sessions")
    text = server.inside("GET", "/metrics").body.decode()
    assert (
        "nothing" not in text
        and "/o1/" not in text
        and 'route="/internal/apps/{appid}/users/{openid}/sessions"' in text
    )
