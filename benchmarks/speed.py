"""Times: the fit, the pipeline, the first call after installation."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pandas as pd

from benchmarks import scene
from benchmarks.accuracy import Fitter, stemdisp_fit

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "sample_data" / "lao_kto_111.hspy"

_FIRST_CALL = """
import time
start = time.perf_counter()
import numpy, pandas
from stemdisp.refine import refine_columns
ready = time.perf_counter()
from benchmarks import scene
truth = scene.true_columns(96)
image = scene.add_noise(scene.perfect_image(truth, 96), scene.KINDS[0], 0)
begin = time.perf_counter()
refine_columns(image, scene.starts(truth, 0), pixel_size=scene.PIXEL_A, noise="white")
print(ready - start, time.perf_counter() - begin)
"""


def cpu_seconds(call: Callable[[], object], runs: int) -> float:
    """Give the median processor time of `runs` calls; the process has one thread."""
    times = []
    for _ in range(runs):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return median(times)


def time_fit(truth: pd.DataFrame, size: int, kind: scene.Kind, fit: Fitter, runs: int) -> float:
    """Give the seconds of one fit of one image; the first call, which may compile, is left out."""
    image = scene.add_noise(scene.perfect_image(truth, size), kind, 0)
    start = scene.starts(truth, 0)
    return cpu_seconds(lambda: fit(image, start), runs)


def warm_up() -> None:
    """Load compiled code: an image too small to take time."""
    truth = scene.true_columns(96)
    for kind in scene.KINDS:
        time_fit(truth, 96, kind, stemdisp_fit(kind.noise), 1)


def time_pipeline(runs: int) -> tuple[float, dict[str, float]] | None:
    """Give the seconds of the whole analysis of the sample data, and of its stages."""
    from stemdisp import run

    if not SAMPLE.is_file():
        return None
    results = []
    seconds = cpu_seconds(
        lambda: results.append(run({"input": {"path": [str(SAMPLE)]}}).summary["timings_s"]), runs
    )
    return seconds, {stage: median(r[stage] for r in results) for stage in results[0]}


def time_first_call() -> tuple[float, float, float]:
    """Give seconds of import, of the first fit with nothing compiled yet, and of a later one.

    Wall time, in fresh processes.
    """
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"NUMBA_CACHE_DIR": cache}
        times = []
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "-c", _FIRST_CALL],
                check=True,
                capture_output=True,
                text=True,
                cwd=ROOT,
                env=environment,
            )
            times.append([float(t) for t in done.stdout.split()])
    (_, first), (ready, later) = times
    return ready, first, later
