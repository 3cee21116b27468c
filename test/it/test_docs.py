"""What the documents say that can be checked: languages that agree, links that lead somewhere,
names that exist, examples that run."""
import json
import os
import re
import sqlite3
import subprocess

import pytest
import yaml

from conftest import APPID, BUILD, ROOT, Process, free_port, poll
from test_proxies import end

PAGES = sorted(
    p
    for p in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("miniprogram/*.md")]
    if "node_modules" not in p.parts
)
FENCE = re.compile(r"^ *```.*?^ *```", re.M | re.S)


def anchors(text):
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.M)
    return [re.sub(r"[^\w\- ]", "", h.strip().lower()).replace(" ", "-") for h in titles]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = FENCE.sub("", page.read_text())
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists() and ROOT in [target, *target.parents], link
        assert not anchor or anchor in anchors(target.read_text()), link


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_that_are_named_exist(page):
    for name in re.findall(
        r"`((?:server|common|docs|scripts|test|miniprogram)/[\w./-]*\w)`", page.read_text()
    ):
        pattern = name.replace("NAME", "*")
        assert any(ROOT.glob(pattern)) or any(page.parent.glob(pattern)), name


def metrics():
    source = (ROOT / "common/metrics.h").read_text()
    found = {}
    for kind, name, labels in re.findall(r'X\(\w+,\s*(\w+),\s*"(\w+)",\s*"([^"]*)"', source):
        name = name if name.startswith("process_") else f"wxlogind_{name}"
        found[name] = set(filter(None, labels.split(",")))
        if kind == "HISTOGRAM":
            found.update(
                {f"{name}_{part}": found[name] | {"le"} for part in ("bucket", "sum", "count")}
            )
    return found


def alerts():
    return [
        r
        for g in yaml.safe_load((ROOT / "docs/monitoring/rules.yml").read_text())["groups"]
        for r in g["rules"]
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_metrics_that_are_named_exist(page):
    # MySQL's tables, an event
    others = {"wxlogind_users", "wxlogind_schema", "wxlogind_user_erased"}
    assert set(re.findall(r"\bwxlogind_[a-z_]+", page.read_text())) <= set(metrics()) | others


def test_alerts_ask_for_labels_that_are_there():
    assert len(alerts()) >= 8
    codes = set(re.findall(r'X\(\w+,\s*\d+, "(\w+)"', (ROOT / "common/outcome.h").read_text())) | {
        "replayed"
    }
    routes = (ROOT / "server/api/routes.c").read_text()
    for rule in alerts():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"} and rule[
            "expr"
        ].count("(") == rule["expr"].count(")")
        for name, labels in re.findall(r"(wxlogind_\w+)\{([^}]*)\}", rule["expr"]):
            for label, how, value in re.findall(r'(\w+)(=~?)"([^"]*)"', labels):
                assert label in metrics()[name], (rule["alert"], label)
                if label == "outcome":
                    for one in value.split("|") if how == "=~" else [value]:
                        assert any(re.fullmatch(one, c) for c in codes), (rule["alert"], one)
                assert label != "route" or f'"{value}"' in routes


def test_the_tour_names_what_is_there():
    rows = re.findall(
        r"^\| (`.*?) \|", (ROOT / "CONTRIBUTING.md").read_text().partition("## A tour")[2], re.M
    )
    assert len(rows) >= 8
    for row in rows:
        folder = ""
        for name in re.findall(r"`([^`]+)`", row):
            if (ROOT / name).exists():
                folder = name.rpartition("/")[0]
            assert (ROOT / name).exists() or (ROOT / folder / name).exists(), name


def test_the_documented_redis_user_has_rights_enough(tmp_path, stack, wxfake):
    """Logs in, checks, lists, ends, and fetches an access_token with the rights of
    docs/operations.md, and no more."""
    line = re.search(
        r"^user wxlogind on >password (.*)$", (ROOT / "docs/operations.md").read_text(), re.M
    )[1]
    port = free_port()
    (tmp_path / "redis.conf").write_text(
        f'port {port}\ndir {tmp_path}\nsave ""\nuser default off\n'
        f'user wxlogind on >password {line}\n'
    )
    redis = Process(["redis-server", tmp_path / "redis.conf"], tmp_path / "redis.log")
    try:
        poll(lambda: "Ready to accept" in redis.text(), what="redis")
        server = stack.server(
            None, wxfake, redis__url=f"redis://wxlogind:password@127.0.0.1:{port}/0",
            session__max_per_user="1",
        )
        sessions = f"/internal/apps/{APPID}/users/oRights/sessions"
        for _ in range(2):
            token = server.login(wxfake.code(openid="oRights")).token
        assert server.auth(token).status == 200 and server.session(token).status == 200
        poll(
            lambda: server.auth(token).status == 200
            and server.metric("wxlogind_session_cache_total", result="hit") > 0,
            what="an answer from memory",
        )
        assert len(server.inside("GET", sessions).json["sessions"]) == 1
        assert server.inside("GET", f"/internal/apps/{APPID}/access-token").status == 200
        assert server.inside("DELETE", sessions).status == 204 and server.auth(token).status == 401
        token = server.login(wxfake.code(openid="oRights")).token
        assert server.session(token, "DELETE").status == 204
        text = server.process.text()
        assert (
            "refused" not in text and "no client tracking" not in text and "NOPERM" not in text
        ), text
    finally:
        end(redis)


def test_the_configuration_of_ones_own_appid_is_good(tmp_path):
    [ini] = re.findall(r"```ini\n(.*?)```", (ROOT / "docs/own-appid.md").read_text(), re.S)
    assert len(ini.strip().splitlines()) == 4
    file = tmp_path / "own.ini"
    file.write_text(ini)
    done = subprocess.run(
        [BUILD / "wxlogind", "-c", file, "--check"], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert "encryption_key" in done.stderr  # the warning that the page names


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_blocks_are_what_they_say(page):
    """As far as it can be seen without the program that reads them: YAML, JSON and Lua parse."""
    for kind, text in re.findall(r"^```(yaml|json|lua)\n(.*?)^```", page.read_text(), re.M | re.S):
        if kind == "yaml":
            assert all(d is not None for d in yaml.safe_load_all(text))
        elif kind == "json":
            json.loads(text)
        else:
            r = subprocess.run(["luac5.1", "-p", "-"], input=text, capture_output=True, text=True)
            assert r.returncode == 0, r.stderr


def test_your_own_user_ids(server, wxfake):
    """docs/migration.md: the table, and its two statements, twice: as for two requests of a new
    user at once."""
    page = (ROOT / "docs/migration.md").read_text()
    table, find = re.findall(r"```sql\n(.*?)```", page, re.S)
    db = sqlite3.connect(":memory:")
    db.execute(table)
    insert, select = [part for part in find.split(";") if part.strip()]
    found = []
    for _ in range(2):
        db.execute(insert)
        found.append(db.execute(select).fetchall())
    assert found[0] == found[1] and len(found[0]) == 1
    length = int(re.search(r"`third_session`\s+has\s+(\d+)\s+characters", page)[1])
    assert len(server.login(wxfake.code()).token) == length


def test_the_import(stack, redis, wxfake, tmp_path):
    """docs/migration.md: who was imported is not new; a line that is refused is named, and keeps no
    other from its turn."""
    server = stack.server(
        redis, wxfake, server__internal_token="local-stack-only",
        users__url=f"sqlite://{tmp_path}/users.db",
    )
    script = re.search(r"```sh\n(.*?)```", (ROOT / "docs/migration.md").read_text(), re.S)[1]
    (tmp_path / "users.tsv").write_text(
        'oOne\t{"created_at":1600000000,"nickName":"一"}\noBad\t{"created_at":"x"}\n'
        'oTwo\t{"phoneNumber":"13812345678"}\n'
    )
    server.phones.append("13812345678")
    env = {
        **os.environ, "WXLOGIND": f"http://127.0.0.1:{server.internal}", "APPID": APPID,
        "TOKEN": "local-stack-only",
    }
    for _ in range(2):  # it may be repeated
        r = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60,
        )
        assert (r.returncode, r.stdout) == (0, "not imported: oBad\n"), r
    for openid in ("oOne", "oTwo"):
        poll(
            lambda: server.login(wxfake.code(openid=openid)).json.get("new_user") is False,
            what="known",
        )
    # a busy machine may leave it out
    assert server.login(wxfake.code(openid="oBad")).json.get("new_user") is not False


def test_two_logins_side_by_side(server, wxfake):
    """docs/migration.md: a token that wxlogind does not know is the old login's to answer for."""
    token = server.login(wxfake.code(openid="oBoth")).token
    for given, active in ((token, True), ("A" * 43, False), ("an old token", False)):
        a = server.inside(
            "POST", "/internal/introspect", f"token={given}",
            {"Content-Type": "application/x-www-form-urlencoded"},
        )
        assert a.status == 200 and a.json["active"] is active
