"""Time and memory of the fit of one large image, on as many cores as are to be had, up to two."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from statistics import median

from benchmarks import THREADS
from benchmarks.speed import run_script

CORES = 2
CALLS = 5

# What draws the image needs far more memory than the fit: another process does it.
_DRAW = """
import sys
import numpy as np
from benchmarks import scene
size, folder = int(sys.argv[1]), sys.argv[2]
truth = scene.true_columns(size)
image = scene.add_noise(scene.perfect_image(truth, size), scene.KINDS[-1], 0)
np.save(folder + "/image.npy", image.astype(np.float32))
scene.starts(truth, 0).to_pickle(folder + "/starts.pkl")
"""

_FIT = """
import os, sys
folder, cores, calls = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if hasattr(os, "sched_setaffinity"):  # inherited, and read by the libraries when they load
    os.sched_setaffinity(0, range(os.cpu_count()))
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
import time
import numba, numpy as np, pandas as pd
from benchmarks import scene
from benchmarks.accuracy import stemdisp_fit
from benchmarks.large import peak_gib
from benchmarks.speed import warm_up
warm_up()
image = np.load(folder + "/image.npy")
starts = pd.read_pickle(folder + "/starts.pkl")
fit = stemdisp_fit(scene.KINDS[-1].noise)
before, seconds = peak_gib(), []
for _ in range(calls):
    begin = time.perf_counter()
    fit(image, starts)
    seconds.append(time.perf_counter() - begin)
print(numba.config.NUMBA_NUM_THREADS, len(starts), before, peak_gib(), *seconds)
"""


@dataclass(frozen=True)
class Large:
    """The fit of one large image; seconds are wall-clock, memory is that of the whole process."""

    size: int
    cores: int
    columns: int
    before_gib: float
    peak_gib: float
    seconds: tuple[float, ...]

    @property
    def median_s(self) -> float:
        """Median of the calls."""
        return median(self.seconds)

    @property
    def first_s(self) -> float:
        """The first call: nothing of this size has been fitted in this process before."""
        return self.seconds[0]


def time_large(size: int) -> Large:
    """Fit a float32 image with iDPC noise in a process of its own, free of this one's limits."""
    free = dict.fromkeys(THREADS, None)
    with tempfile.TemporaryDirectory() as folder:
        run_script(_DRAW, str(size), folder)
        found = run_script(_FIT, folder, str(CORES), str(CALLS), **free)
    cores, columns, before, peak, *seconds = found
    return Large(size, int(cores), int(columns), before, peak, tuple(seconds))


def peak_gib() -> float:
    """Give the most memory that this process has held.

    ``ru_maxrss`` will not do where there is another way: on Linux a new process inherits it.
    """
    if os.path.exists("/proc/self/status"):
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            line = next(line for line in status if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024**2
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
