"""Times: the fit, the pipeline, the first call after installation."""

from __future__ import annotations

import cProfile
import gc
import os
import pstats
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
import numpy, pandas
from stemdisp.refine import refine_columns
ready = time.process_time()
from benchmarks import scene
truth = scene.true_columns(96)
image = scene.add_noise(scene.perfect_image(truth, 96), scene.KINDS[0], 0)
begin = time.process_time()
refine_columns(image, scene.starts(truth, 0), pixel_size=scene.PIXEL_A, noise="white")
print(ready, time.process_time() - begin)
"""


def cpu_times(call: Callable[[], object], runs: int) -> tuple[float, ...]:
    """Give the processor time of each of `runs` calls; the process has one thread."""
    times = []
    for _ in range(runs):
        gc.collect()  # what others have left behind is none of its work
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return tuple(times)


def cpu_seconds(call: Callable[[], object], runs: int) -> float:
    """Give the median processor time of `runs` calls."""
    return median(cpu_times(call, runs))


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


def time_first_call() -> tuple[float, float, float]:
    """Give seconds of import, of the first fit with nothing compiled yet, and of a later one.

    Processor time in fresh processes with an empty cache of compiled code.
    """
    with tempfile.TemporaryDirectory() as cache:
        first, later = (run_script(_FIRST_CALL, NUMBA_CACHE_DIR=cache) for _ in range(2))
    return later[0], first[1], later[1]


def run_script(script: str, *arguments: str, **environment: str | None) -> list[float]:
    """Run a script in its own process and read the numbers that it prints.

    It gets this process's environment with these changes; None takes a variable away.
    """
    changed = os.environ | environment
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={name: value for name, value in changed.items() if value is not None},
    )
    return [float(number) for number in done.stdout.split()]


def profile_fit(truth: pd.DataFrame, size: int, kind: scene.Kind) -> list[tuple[str, float]]:
    """Give the functions in which the fit spends most of its time, and their shares."""
    image = scene.add_noise(scene.perfect_image(truth, size), kind, 0)
    start = scene.starts(truth, 0)
    fit = stemdisp_fit(kind.noise)
    fit(image, start)  # compiles
    profile = cProfile.Profile(time.process_time)
    profile.runcall(fit, image, start)
    stats = pstats.Stats(profile)
    own: dict[str, float] = {}
    for (_, _, name), entry in stats.stats.items():
        # "<built-in method scipy.ndimage._nd_image.correlate1d>" -> "correlate1d"
        short = name.strip("<>").replace("method '", "").split("' of")[0].split(".")[-1].split()[-1]
        own[short] = own.get(short, 0.0) + entry[2]
    total = sum(own.values())
    largest = sorted(own, key=own.get, reverse=True)[:8]
    return [(name, own[name] / total) for name in largest]
