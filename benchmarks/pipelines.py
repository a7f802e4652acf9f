"""Whole runs from a file to its report, and what a user waits for at the start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import THREADS
from benchmarks.scale import write_stack
from benchmarks.speed import ROOT, SAMPLE, time_first_call

CONFIG = ROOT / "pipelines" / "lao_kto_111.toml"
STARTS = 7
FIRST_FIT = "first fit after installation (compiles), tiny image"
LATER_FIT = "first fit of a later process, tiny image"

_RUN = """
import json, os, sys, time
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, range(os.cpu_count()))
from stemdisp.cli import main
start = time.perf_counter()
try:
    main(sys.argv[2:])
except SystemExit as end:
    wall, cpu, status = time.perf_counter() - start, time.process_time(), end.code
from benchmarks.large import peak_gib
with open(sys.argv[1], "w") as target:
    json.dump({"wall_s": wall, "cpu_s": cpu, "peak_gib": peak_gib()}, target)
sys.exit(status)
"""


@dataclass(frozen=True)
class Whole:
    """A file to be analysed: the sample (no frames), or a synthetic stack."""

    label: str
    n_frames: int = 0
    size: int = 0


SAMPLE_RUN = Whole("the sample data")


def run_whole(whole: Whole) -> dict:
    """Analyse a file by the command line, in a process of its own with all cores."""
    with tempfile.TemporaryDirectory() as folder:
        path = SAMPLE
        if whole.size:
            path = Path(folder, "stack.hspy")
            write_stack(path, whole.n_frames, whole.size)
        found = Path(folder, "found.json")
        output = Path(folder, "output")
        arguments = ["run", str(CONFIG), "--input", str(path), "--output", str(output)]
        environment = {k: v for k, v in os.environ.items() if k not in THREADS}
        environment["PYTHONPATH"] = str(ROOT)
        done = subprocess.run(
            [sys.executable, "-c", _RUN, str(found), *arguments],
            capture_output=True,
            text=True,
            env=environment,
            cwd=folder,
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["it said nothing"]
            return {"status": "failed", "reason": lines[-1]}
        report = output / "report.html"
        about = {"input_mib": path.stat().st_size / 2**20}
        summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
        about["stages_s"] = summary["timings_s"]
        about["report_mib"] = report.stat().st_size / 2**20
        return {"status": "done"} | about | json.loads(found.read_text(encoding="utf-8"))


def cold_start() -> list[tuple[str, float]]:
    """Give what one waits for: (what, seconds); wall-clock but for the fits."""
    bare = wall_s("pass")
    rows = [
        ("python, which does nothing", bare),
        ("`import stemdisp`", wall_s("import stemdisp")),
        ("`stemdisp --help`", wall_s("from stemdisp.cli import main; main(['--help'])")),
        ("`import numpy, scipy, pandas`", wall_s("import numpy, scipy, pandas")),
        ("`import stemdisp.refine`, the fit", wall_s("import stemdisp.refine")),
    ]
    _, first, later = time_first_call()
    rows.append((FIRST_FIT, first))
    return [*rows, (LATER_FIT, later)]


def wall_s(script: str, runs: int = STARTS) -> float:
    """Give the median wall-clock time of a process that runs a script."""
    took = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL, cwd=ROOT
        )
        took.append(time.perf_counter() - start)
    return median(took)
