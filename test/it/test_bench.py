"""The load kit judges fairly, and the documents say what its last run found. (What it measures is
not for this suite.)"""
import builtins
import dis
import json
import sys

import pytest

from conftest import ROOT

sys.path.append(str(ROOT / "test/bench"))
import goals  # noqa: E402
import page  # noqa: E402
import peers  # noqa: E402

KEPT = ROOT / "docs/benchmarks"


def rounds(*cpu):
    """None: the round was void."""
    return [c and {"cpu_us": c, "redis_us": c, "busy": 0.9} for c in cpu]


def a_run(ours, theirs):
    return {
        "auth": {
            name: rounds(*(ours if name.startswith("wxlogind") else theirs)) for name in peers.AUTH
        },
        **{
            race: {
                name: rounds(*(ours if name.startswith("wxlogind") else theirs))
                for name in peers.LOGIN
            }
            for race in ("login-http", "login-tls")
        },
    }


def reached(*runs):
    return {title: ok for title, _, _, ok in goals.rows(runs, {})}


def test_a_goal_is_reached_only_in_the_worst_round_of_all_runs():
    good, once = a_run((5, 5, 5), (10, 10, 10)), a_run((5, 5, 9), (10, 10, 10))
    assert all(reached(good, good).values())
    assert not reached(good, once)["login, WeChat over TLS : nginx with Lua"]
    assert not reached(once, good)["auth from memory : bare libevhtp"]


def test_a_round_with_an_error_counts_for_nobody():
    goal = goals.RATIOS[0]
    assert goals.ratios(goal, a_run((5, None, 6), (10, 1, 10))["auth"]) == [0.5, 0.6]
    assert goals.ratios(goal, a_run((5, 5, 6), (None, 10, None))["auth"]) == [0.5]
    nothing = a_run((None,), (10,))
    assert goals.ratios(goal, nothing["auth"]) == []
    assert not any(reached(nothing).values())
    assert "no round" in goals.sentence(goal, nothing["auth"])


def test_counts_have_goals_too():
    counted = {"login, WeChat over TLS": {"instructions": 159990, "calls": 8.0}}
    found = {title: ok for title, _, _, ok in goals.rows([a_run((5,), (10,))], counted)}
    assert found["instructions, login over TLS"] and not found["system calls, login over TLS"]


def test_two_runs_can_be_held_beside_each_other():
    def run(ours, instructions):
        counted = {"auth from memory": {"instructions": instructions, "calls": None}}
        return {"runs": [a_run((ours,), (10,)), a_run((ours,), (10,))], "instructions": counted}
    found = {title: by for title, _, _, by in goals.differences(run(5, 1000), run(6, 900))}
    assert found["auth from memory : bare libevhtp"] == pytest.approx(0.2)
    assert found["instructions, auth from memory"] == pytest.approx(-0.1)
    assert "system calls, auth from memory" not in found  # not counted


def test_the_pages_can_be_written(tmp_path):
    run = {"machine": "2026-01-02, a machine", "runs": [a_run((5, None), (10, 10))]}
    for workers in (1, 2):
        run[f"scale-{workers}"] = {
            "auth": {"sizes": [1, 8], "cells": ["20.0", "12.0 (3%)"], "rss_mb": [10, 12, 11]}
        }
    (tmp_path / "run.json").write_text(json.dumps(run))
    texts = page.texts(tmp_path)
    assert (
        "| login, WeChat over TLS : nginx with Lua | 0.74 | 0.50 (0.50 to 0.50) | reached |"
        in texts["docs/benchmarks.md"]
    )
    assert "| auth | 20.0 | 12.0 (3%) | 10 / 12 / 11 |" in texts["docs/benchmarks.md"]
    for name, text in texts.items():
        assert text in page.filled((ROOT / name).read_text(), text)
        assert "{" not in text


@pytest.mark.skipif(not (KEPT / "run.json").exists(), reason="no run was published")
def test_the_documents_say_what_the_last_run_found():
    for name, text in page.texts(KEPT).items():
        assert text in (ROOT / name).read_text(), f"{name}: test/bench/page.py writes it anew"


def codes(code):
    yield code
    for inner in code.co_consts:
        if hasattr(inner, "co_code"):
            yield from codes(inner)


def test_every_name_in_the_kit_is_defined():
    """The kit runs for long before it comes to a name that nothing defines."""
    for file in sorted((ROOT / "test/bench").glob("*.py")):
        module = compile(file.read_text(), file, "exec")
        known = {i.argval for i in dis.get_instructions(module) if i.opname == "STORE_NAME"}
        used = {
            i.argval
            for code in codes(module)
            for i in dis.get_instructions(code)
            if i.opname == "LOAD_GLOBAL"
        }
        assert used <= known | set(dir(builtins)) | {"__file__", "__name__"}, file.name
