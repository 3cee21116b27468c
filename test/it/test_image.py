"""The Dockerfile: what the images are made of, and hold. Without a container engine."""
import os
import re
import shutil
import subprocess

import pytest

from conftest import BUILD, ROOT


def test_the_mirror_is_put_where_debian_s_was(tmp_path):
    """In both forms of apt's sources; the rest of a line, and lines that name no mirror, stay."""
    lists = {
        "sources.list": "deb http://deb.debian.org/debian bookworm main\n",
        "debian.sources": (
            "Types: deb\n# http://x.example/archive/1\nURIs: http://deb.debian.org/debian\n"
            "Suites: bookworm\n\nURIs: https://deb.debian.org/debian-security\n"
        ),
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
    shell = re.search(r"^RUN (.*)$", stage("debian")[1], re.M)[1].replace("/etc/apt", str(tmp_path))
    there = lambda: {f.name: f.read_text() for f in tmp_path.iterdir()}
    subprocess.run(
        ["sh", "-ec", shell], check=True, env={"PATH": os.environ["PATH"], "APT_MIRROR": ""}
    )
    assert there() == lists
    subprocess.run(
        ["sh", "-ec", shell],
        check=True, env={"PATH": os.environ["PATH"], "APT_MIRROR": "http://mirror.example.com/a"},
    )
    assert there() == {
        name: re.sub(r"https?://deb.debian.org", "http://mirror.example.com/a", text)
        for name, text in lists.items()
    }


def test_the_production_image_holds_no_fake():
    last = (ROOT / "Dockerfile").read_text().split("\nFROM ")[-1]
    assert (
        last == stage("wxlogind")[1]
        and "COPY --from=build /src/build/wxlogind /usr/local/bin/" in last
    )
    below = stage("run")[1]
    assert (
        last.startswith("run AS")
        and below.startswith("debian AS")
        and "wxfake" not in last + below + stage("debian")[1]
    )
    assert "COPY --from=build /src/build/wxfake /usr/local/bin/" in stage("wxfake")[1]


def stage(name):
    """The Dockerfile up to its first FROM, and what this stage does."""
    first, *stages = (ROOT / "Dockerfile").read_text().split("\nFROM ")
    return [first, *(s for s in stages if s.splitlines()[0].endswith(f" AS {name}"))]


def installed(name):
    text = stage(name)[1]
    names = re.search(
        r"--no-install-recommends\s+(.*?)(?:&&|\n[A-Z])", text.replace("\\\n", " "), re.S
    )[1].split()
    return set(names)


def test_the_image_is_built_with_what_scripts_deps_installs():
    build = re.search(r"^build=\((.*?)\)", (ROOT / "scripts/deps").read_text(), re.M | re.S)[
        1
    ].split()
    assert installed("build") == set(build) - {"ca-certificates"}


def test_the_image_is_built_from_what_it_takes(tmp_path):
    """What .dockerignore lets through is all that make needs."""
    lines = (ROOT / ".dockerignore").read_text().split("*\n", 1)[1].split()
    for name in (line[1:] for line in lines if line.startswith("!")):
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, tmp_path / name,
                ignore=shutil.ignore_patterns("node_modules", "miniprogram_npm"),
            )
        else:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "B")}
    r = subprocess.run(
        ["make", "-n", "all"], cwd=tmp_path, capture_output=True, text=True, env=env, timeout=60
    )
    assert r.returncode == 0 and "build/wxlogind" in r.stdout, r.stderr


def test_the_image_holds_the_libraries():
    """Those that the programs name; Debian 13 calls some of the packages otherwise."""
    if "bookworm" not in open("/etc/os-release").read():
        pytest.skip("the image is a bookworm")
    needed = set()
    for program in ("wxlogind", "wxfake"):
        out = subprocess.run(
            ["objdump", "-p", BUILD / program], capture_output=True, text=True, check=True
        ).stdout
        needed |= set(re.findall(r"NEEDED\s+(\S+)", out))
    needed -= {n for n in needed if n.startswith(("libasan", "libubsan", "libm.so", "ld-linux"))}
    packages = set()
    for so in needed:
        out = subprocess.run(
            ["dpkg-query", "-S", f"*/{so}"], capture_output=True, text=True, check=True
        ).stdout
        packages.add(out.splitlines()[0].split(":")[0])
    assert packages - {"libc6", "libgcc-s1"} <= installed("run"), packages
