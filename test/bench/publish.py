"""scripts/bench publish [DIRECTORY]: what docs/benchmarks.md shows, in one go of a quarter of an
hour at most: two runs beside the peers, instructions, scale. It keeps tables, plots and run.json
in DIRECTORY (docs/benchmarks), then writes the pages from it (page.py)."""
import json
import os
import pathlib
import time

import instructions
import page
import race
import scale
from report import Report, machine
from stack import ROOT, say

RUNS = int(os.environ.get("BENCH_RUNS", "2"))
LIMIT_S = 60 * float(os.environ.get("BENCH_MINUTES", "15"))
LAST_S = 60  # for what begins after the last round, and for the pages


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
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in parts.items())
    (directory / "run.json").write_text(f"{{\n{lines}\n}}\n")
    page.write(directory)
    return failed
