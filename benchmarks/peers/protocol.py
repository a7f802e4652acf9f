"""What all adapters share: read an image and starts, fit in a measured way, write what came out.

``python ADAPTER.py image.npz warm.npz found.json``. It runs in the environment of the peer and
needs only Python and numpy.
A file .npz holds ``image`` (float32), the starts ``x_px, y_px, species``, ``sigma_A`` (true widths,
for those who ask for a width to begin with), ``pixel_A``, ``background`` and ``noise``. The small
image of ``warm`` is fitted first: what is loaded or compiled at the first call is none of the fit's
time.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace

import numpy as np

ENOUGH_S, MOST_RUNS = 3.0, 50  # a quick fit is repeated

# Gives positions (columns, 2) in px, in the order of the starts; NaN where there is none.
Fit = Callable[[SimpleNamespace], np.ndarray]


def serve(fit: Fit, packages: Sequence[str], set_up: Callable[[], None] | None = None) -> None:
    """Measure the fit of the files named on the command line."""
    source, warm, target = sys.argv[1:4]
    warnings.simplefilter("ignore")
    if set_up is not None:
        set_up()
    fit(read(warm))
    Path(target).write_text(json.dumps(measure(fit, read(source), packages)), encoding="utf-8")


def read(path: str) -> SimpleNamespace:
    """Give the content of a file .npz."""
    with np.load(path) as found:
        scene = SimpleNamespace(**{name: found[name] for name in found.files})
    scene.pixel_A, scene.background = float(scene.pixel_A), float(scene.background)
    scene.noise = str(scene.noise)
    return scene


def measure(fit: Fit, scene: SimpleNamespace, packages: Sequence[str]) -> dict:
    """Fit, and say what it took; memory is that of the first fit, time the typical one of all."""
    gc.collect()
    before, sure = held_mib(), forget_peak()
    positions, seconds = None, []
    peak = before
    while not seconds or (sum(seconds) < ENOUGH_S and len(seconds) < MOST_RUNS):
        start = time.process_time()
        found = np.asarray(fit(scene), dtype=float)
        seconds.append(time.process_time() - start)
        if positions is None:
            positions, peak = found, peak_mib()
        gc.collect()
    return {
        "x_px": _plain(positions[:, 0]),
        "y_px": _plain(positions[:, 1]),
        "seconds": typical(seconds),
        "runs": len(seconds),
        "before_mib": before,
        "peak_mib": peak,
        "peak_is_of_the_fit": sure,
        "versions": {"Python": platform.python_version()}
        | {name: metadata.version(name) for name in packages},
    }


def typical(seconds: Sequence[float]) -> float:
    """Give the mean without the tenths at both ends; of three, the middle.

    Where the processor time of a process is limited, systems count it in ticks of some
    milliseconds, and the median of a quick fit would be a multiple of those.
    """
    cut = max(len(seconds) // 10, int(len(seconds) > 2))
    return fmean(sorted(seconds)[cut : len(seconds) - cut])


def _plain(values: np.ndarray) -> list[float | None]:
    return [float(v) if np.isfinite(v) else None for v in values]


def forget_peak() -> bool:
    """Begin to count the most memory anew, where the system lets a process do so."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def held_mib() -> float:
    """Give the memory that this process holds; its peak where that cannot be had."""
    return _status("VmRSS")


def peak_mib() -> float:
    """Give the most memory that this process has held."""
    return _status("VmHWM")


def _status(name: str) -> float:
    path = Path("/proc/self/status")
    if path.is_file():
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
        return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024
    if os.name == "nt":
        return float("nan")
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
