"""What is published: one version everywhere, units that systemd accepts, Debian packages with
everything in its place. scripts/release makes them; on a bare Debian they are tried by
scripts/release --try."""
import hashlib
import json
import os
import re
import shutil
import subprocess

import pytest
import yaml

from conftest import BUILD, ROOT, SANITIZED

VERSION = re.search(r"^VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.M)[1]
UNITS = sorted((ROOT / "server/systemd").iterdir())


def test_one_version():
    """The Makefile's. What cannot take it from there agrees."""
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)[1] == VERSION
    assert json.loads((ROOT / "miniprogram/package.json").read_text())["version"] == VERSION
    assert yaml.safe_load((ROOT / "docs/openapi.yaml").read_text())["info"]["version"] == VERSION
    tags = [
        i["newTag"]
        for i in yaml.safe_load((ROOT / "docs/kubernetes/kustomization.yaml").read_text())["images"]
    ]
    assert tags == [VERSION]
    for name in ("docker-compose.yml", "docker-compose.prod.yml"):
        services = yaml.safe_load((ROOT / name).read_text())["services"]
        assert services["wxlogind"]["image"] == f"${{WXLOGIND_IMAGE:-wxlogind:{VERSION}}}"
    assert (
        yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["wxfake"]["image"]
        == f"${{WXFAKE_IMAGE:-wxfake:{VERSION}}}"
    )
    assert (
        subprocess.run(
            [BUILD / "wxlogind", "--version"], capture_output=True, text=True
        ).stdout.split()[1] == VERSION
    )


def test_systemd_accepts_the_units(tmp_path):
    for unit in UNITS:
        text = unit.read_text().replace("/usr/sbin/wxlogind", str(BUILD / "wxlogind"))
        (tmp_path / unit.name).write_text(text)
    r = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *sorted(tmp_path.iterdir())],
        capture_output=True, text=True, env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    )
    assert r.returncode == 0 and not [
        line for line in r.stderr.splitlines() if "wxlogind" in line
    ], r.stderr


def test_the_score_of_the_service_is_the_documented_one():
    said = re.search(
        r"`systemd-analyze security` gives it (\d\.\d)", (ROOT / "docs/install.md").read_text()
    )[1]
    r = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", ROOT / "server/systemd/wxlogind.service"],
        capture_output=True, text=True,
    )
    score = re.search(r"exposure level for \S+: (\d\.\d)", r.stdout)[1]
    assert float(score) <= 2 and (
        "bookworm" not in open("/etc/os-release").read() or score == said
    ), r.stdout


def test_the_sockets_have_the_names_that_the_server_knows():
    names = {
        u.name: re.search(r"^FileDescriptorName=(.*)$", u.read_text(), re.M)[1]
        for u in UNITS
        if u.suffix == ".socket"
    }
    assert names == {"wxlogind.socket": "public", "wxlogind-internal.socket": "internal"}
    service = (ROOT / "server/systemd/wxlogind.service").read_text()
    drain = re.search(r"`drain_timeout` \| `(\d+)s`", (ROOT / "docs/configuration.md").read_text())[
        1
    ]
    assert int(re.search(r"^TimeoutStopSec=(\d+)$", service, re.M)[1]) > int(drain)


@pytest.fixture(scope="module")
def debs(tmp_path_factory):
    if SANITIZED:
        pytest.skip("packages hold no sanitizers")
    out = tmp_path_factory.mktemp("debs")
    r = subprocess.run(
        [ROOT / "scripts/release.d/deb", out],
        capture_output=True, text=True,
        env={
            **os.environ, "WXLOGIND_BUILD": str(BUILD.relative_to(ROOT)),
            "SOURCE_DATE_EPOCH": "1700000000",
        },
    )
    assert r.returncode == 0, r.stderr
    return {f.name.split("_")[0]: f for f in out.glob("*.deb")}


def field(deb, name):
    return subprocess.run(
        ["dpkg-deb", "-f", deb, name], capture_output=True, text=True, check=True
    ).stdout.strip()


def contents(deb):
    out = subprocess.run(
        ["dpkg-deb", "-c", deb],
        capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"], "TZ": "UTC"},
    ).stdout
    rows = [line.split(None, 5) for line in out.splitlines()]
    assert {(r[1], f"{r[3]} {r[4]}") for r in rows} == {("root/root", "2023-11-14 22:13")}
    return {r[5].lstrip("."): r[0] for r in rows}


def test_what_the_packages_hold(debs):
    assert set(debs) == {"wxlogind", "wxlogind-fake"}
    files = contents(debs["wxlogind"])
    doc = "/usr/share/doc/wxlogind"
    for name in (
        "/usr/sbin/wxlogind", "/usr/share/man/man8/wxlogind.8.gz",
        "/usr/share/man/man5/wxlogind.ini.5.gz", f"{doc}/wxlogind.ini.example", f"{doc}/copyright",
        f"{doc}/changelog.gz", f"{doc}/miniprogram/common/common.js",
        f"{doc}/miniprogram/package.json", f"{doc}/docs/forward-auth/nginx.conf",
        f"{doc}/docs/install.md", *[f"/usr/lib/systemd/system/{u.name}" for u in UNITS],
    ):
        assert name in files, name
    assert (
        files["/etc/wxlogind/wxlogind.ini"] == "-rw-r-----"
        and files["/etc/wxlogind/"] == "drwxr-x---"
    )
    assert (
        not [f for f in files if "wxfake" in f.rsplit("/", 1)[1] and not f.endswith(".md")]
        and "/usr/bin/" not in files
    )
    fake = contents(debs["wxlogind-fake"])
    assert (
        "/usr/bin/wxfake" in fake
        and "/usr/share/man/man1/wxfake.1.gz" in fake
        and not [f for f in fake if "/sbin/" in f or "/etc" in f]
    )


def test_the_fields_of_the_packages(debs, tmp_path):
    release = re.search(r'^VERSION_ID="(\d+)"', open("/etc/os-release").read(), re.M)[1]
    for name, deb in debs.items():
        assert (
            field(deb, "Package") == name and field(deb, "Version") == f"{VERSION}-1~deb{release}"
        )
        needs = {d.split()[0].removesuffix("t64") for d in field(deb, "Depends").split(", ")}
        assert {"libc6", "libevhtp0", "libcjson1"} <= needs
    assert "ca-certificates" in field(debs["wxlogind"], "Depends") and "redis-server" in field(
        debs["wxlogind"], "Recommends"
    )
    subprocess.run(["dpkg-deb", "-R", debs["wxlogind"], tmp_path / "x"], check=True)
    assert (tmp_path / "x/DEBIAN/conffiles").read_text() == "/etc/wxlogind/wxlogind.ini\n"
    for script in ("postinst", "prerm", "postrm"):
        assert subprocess.run(["sh", "-n", tmp_path / "x/DEBIAN" / script]).returncode == 0
    for line in (tmp_path / "x/DEBIAN/md5sums").read_text().splitlines():
        sum_, name = line.split("  ")
        assert hashlib.md5((tmp_path / "x" / name).read_bytes()).hexdigest() == sum_


def test_the_configuration_of_the_package_is_good_once_an_app_is_named(tmp_path):
    """As docs/install.md says: its two lines uncommented."""
    (tmp_path / "appsecret").write_text("5ec4e75ec4e75ec4e75ec4e75ec4e700\n")
    (tmp_path / "encryption_key").write_text("ab" * 32 + "\n")
    text = (
        (ROOT / "scripts/release.d/wxlogind.ini")
        .read_text()
        .replace("/etc/wxlogind/", f"{tmp_path}/")
    )
    (tmp_path / "w.ini").write_text(re.sub(r"^;(?=\[app|secret_file)", "", text, flags=re.M))
    r = subprocess.run(
        [BUILD / "wxlogind", "-c", tmp_path / "w.ini", "--check"],
        capture_output=True, text=True, env={"PATH": os.environ["PATH"]},
    )
    assert r.returncode == 0 and not r.stderr, r.stderr


def test_the_sbom_names_every_library(debs):
    sbom = json.loads(
        debs["wxlogind"]
        .with_suffix("")
        .with_name(debs["wxlogind"].name.replace(".deb", ".spdx.json"))
        .read_text()
    )
    packages = {p["name"]: p for p in sbom["packages"]}
    assert sbom["spdxVersion"] == "SPDX-2.3" and packages["wxlogind"]["versionInfo"].startswith(
        VERSION
    )
    ldd = subprocess.run(
        ["ldd", BUILD / "wxlogind"], capture_output=True, text=True, check=True
    ).stdout
    libraries = re.findall(r"(/\S+)", ldd)
    assert len(libraries) > 20
    real = {os.path.realpath(lib) for lib in libraries}
    rows = subprocess.run(
        ["dpkg-query", "-S", *real, *(lib.removeprefix("/usr") for lib in real)],
        capture_output=True, text=True,
    ).stdout.splitlines()
    owner = {
        row.rpartition(": ")[2].removeprefix("/usr"): row.split(":")[0]
        for row in rows
        if not row.startswith("diversion ")
    }
    versions = dict(
        line.split()
        for line in subprocess.run(
            ["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *set(owner.values())],
            capture_output=True, text=True,
        ).stdout.splitlines()
    )
    for library in real:
        name = owner[library.removeprefix("/usr")]
        assert packages[name]["versionInfo"] == versions[name], library
    ids = {p["SPDXID"] for p in sbom["packages"]}
    assert len(ids) == len(sbom["packages"]) and all(
        re.fullmatch(r"SPDXRef-[\w.-]+", i) for i in ids
    )
    assert {r["relatedSpdxElement"] for r in sbom["relationships"]} == ids


def test_it_refuses_what_it_cannot_publish(tmp_path):
    """A checkout with changes, a version that the changelog does not name."""
    if not shutil.which("git"):
        pytest.skip("no git")
    shutil.copytree(ROOT / "scripts", tmp_path / "x/scripts")
    for name in ("Makefile", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path / "x")
    git = lambda *a: subprocess.run(
        ["git", "-c", "user.name=x", "-c", "user.email=x@x", *a],
        cwd=tmp_path / "x", check=True, capture_output=True,
    )
    run = lambda: subprocess.run(
        ["scripts/release", "source"], cwd=tmp_path / "x", capture_output=True, text=True
    )
    git("init")
    assert "not clean" in run().stderr
    (tmp_path / "x/CHANGELOG.md").write_text("# Changelog\n\n## 99.0.0\n")
    git("add", "-A")
    git("commit", "-m", "x")
    r = run()
    assert r.returncode and f"CHANGELOG.md is not {VERSION}" in r.stderr, r
