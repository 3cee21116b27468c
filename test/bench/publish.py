"""scripts/bench publish [DIRECTORY]: what docs/benchmarks.md shows, in one go of a quarter of an
hour at most: two runs beside the peers, instructions, scale. It keeps tables, plots and run.json
in DIRECTORY (docs/benchmarks), then writes the pages from it (page.py). Last it prints the goals,
and how far they are from the run that was kept there before."""
import json
import os
import pathlib
import time

import goals
import instructions
import page
import race
import scale
from report import Report, machine
from stack import ROOT, say

RUNS = int(os.environ.get("BENCH_RUNS", "2"))
LIMIT_S = 60 * float(os.environ.get("BENCH_MINUTES", "15"))
LAST_S = 60  # for what begins after the last round, and for the pages


def compare(report, before, now):
    report.section("Goals")
    report.table(*page.goals_table(now))
    if before is None:
        report.note("No run was kept here before.")
        return
    report.section("Beside the run kept before")
    report.note(f"Before: {before['machine']}. Medians over all rounds.")
    report.table(
        ("goal", "before", "now", "difference"),
        [
            (title, f"{then:,.6g}" if then > 99 else f"{then:.2f}",
             f"{figure:,.6g}" if figure > 99 else f"{figure:.2f}", f"{by:+.1%}")
            for title, then, figure, by in goals.differences(before, now)
        ],
    )


def publish(directory=None):
    directory = pathlib.Path(directory or ROOT / "docs/benchmarks")
    deadline, runs, failed = time.monotonic() + LIMIT_S, [{} for _ in range(RUNS)], []

    def one(name, work, until):
        result = Report(name, until)
        work(result)
        result.keep(directory)
        failed.extend(result.failed)
        return result.found
    counted = one("instructions", instructions.instructions, deadline)
    sizes = one("scale", scale.scale, deadline)
    works, begun = [("auth", race.auth), ("login", race.login)], time.monotonic()
    for i, run in enumerate(runs):
        until = begun + (deadline - LAST_S - begun) * (i + 1) / RUNS
        for name, work in works:
            say(f"==> run {i + 1} of {RUNS}: {name}")
            run.update(one(name, work, until))
    parts = {"machine": machine(), "runs": runs, **counted, **sizes}
    kept = directory / "run.json"
    before = json.loads(kept.read_text()) if kept.exists() else None
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in parts.items())
    kept.write_text(f"{{\n{lines}\n}}\n")
    page.write(directory)
    one("publish", lambda report: compare(report, before, parts), None)
    return failed
