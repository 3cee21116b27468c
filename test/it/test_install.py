"""make install, and what it installs: programs that run, an example configuration that is complete
and good, man pages that are well formed."""
import os
import re
import subprocess

import pytest

from conftest import BUILD, ROOT

SECRET = "5ec4e75ec4e75ec4e75ec4e75ec4e700"
UNITS = ("wxlogind.service", "wxlogind.socket", "wxlogind-internal.socket")
PAGES = ("man8/wxlogind.8", "man5/wxlogind.ini.5", "man1/wxfake.1")


def make(*args):
    """With the programs as they are: another build has flags of its own."""
    b = BUILD.relative_to(ROOT)
    return subprocess.run(
        ["make", "-s", f"B={b}", "-o", f"{b}/wxlogind", "-o", f"{b}/wxfake", *args],
        cwd=ROOT, capture_output=True, text=True,
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Where all is, in a directory whose name has a blank."""
    dest = tmp_path_factory.mktemp("a place")
    r = make("install", f"DESTDIR={dest}", "PREFIX=/usr")
    assert r.returncode == 0, r.stderr
    yield dest / "usr"
    r = make("uninstall", f"DESTDIR={dest}", "PREFIX=/usr")
    assert r.returncode == 0, r.stderr
    assert (
        not [f for f in dest.rglob("*") if not f.is_dir()]
        and not (dest / "usr/share/doc/wxlogind").exists()
    )


def run(installed, *args, **env):
    return subprocess.run(
        [installed / "sbin/wxlogind", *args],
        capture_output=True, text=True, timeout=20, env={"PATH": os.environ["PATH"], **env},
    )


def test_what_is_there(installed):
    files = {
        str(f.relative_to(installed)): f.stat().st_mode & 0o777
        for f in installed.rglob("*")
        if f.is_file()
    }
    assert files == {
        "sbin/wxlogind": 0o755, "bin/wxfake": 0o755,
        "share/doc/wxlogind/wxlogind.ini.example": 0o644,
        **{f"share/man/{page}": 0o644 for page in PAGES},
        **{f"lib/systemd/system/{unit}": 0o644 for unit in UNITS},
    }
    version = run(installed, "--version").stdout
    assert version.startswith("wxlogind ") and version.split()[1] == subprocess.run(
        [installed / "bin/wxfake", "--version"], capture_output=True, text=True).stdout.split()[1]


def test_the_example_is_good_and_complete(installed, tmp_path):
    """As it is, and with each line uncommented: the values are the defaults, so nothing is wrong
    with them."""
    env = {"WXLOGIND_APPID": "wx0123456789abcdef", "WXLOGIND_SECRET": SECRET}
    example = installed / "share/doc/wxlogind/wxlogind.ini.example"
    assert run(installed, "-c", str(example), "--check", **env).returncode == 0
    text, n = re.subn(r"^;(?=\w+ =)", "", example.read_text(), flags=re.M)
    assert n > 40
    (tmp_path / "whole.ini").write_text(text)
    r = run(installed, "-c", str(tmp_path / "whole.ini"), "--check", **env)
    assert (
        r.returncode == 0 and r.stderr.count("\n") == 1 and "encryption_key is empty" in r.stderr
    ), r.stderr


@pytest.mark.parametrize("page", PAGES)
def test_man_pages(installed, page):
    file = installed / "share/man" / page
    shown = subprocess.run(
        ["man", "--warnings", "-l", file],
        capture_output=True, text=True,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C", "MANWIDTH": "80"},
    )
    assert shown.returncode == 0 and shown.stderr == "" and "SEE ALSO" in shown.stdout
    lint = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", file], capture_output=True, text=True
    )
    assert lint.returncode == 0 and lint.stdout == "", lint.stdout


@pytest.mark.parametrize(
    "program, page", [("sbin/wxlogind", "man8/wxlogind.8"), ("bin/wxfake", "man1/wxfake.1")]
)
def test_the_man_page_has_every_option(installed, program, page):
    usage = subprocess.run([installed / program, "--help"], capture_output=True, text=True).stdout
    options = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", usage))
    text = (installed / "share/man" / page).read_text().replace("\\-", "-")
    assert options and not [o for o in options if o not in text]


def test_help_names_the_targets():
    r = make("help")
    assert r.returncode == 0
    names = dict(line.split("\t") for line in r.stdout.splitlines())
    assert {"unit", "it", "test", "asan", "fuzz", "lint", "install", "uninstall", "docs"} <= set(
        names
    ) and all(names.values())
