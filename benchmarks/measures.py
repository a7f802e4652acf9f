"""What `make bench-check` measures: counts and ratios, which a busy machine hardly changes."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from scipy import fft

from benchmarks import accuracy, contest, counted, scene, speed
from benchmarks.environments import PEERS

SIZE = 512
ROUNDS = 15
STARTS = 7
MEMORY_SIZE = 1024


def all_measures() -> dict[str, Callable[[], dict[str, float]]]:
    """Give what is measured, by group; a group gives one or more numbers, larger is worse."""
    return {
        "errors": errors,
        "instructions": instructions,
        "times": times,
        "memory": memory,
        "start": start,
        "run": whole_run,
    }


def errors() -> dict[str, float]:
    """Rms error over the bound, by noise and species: the same in every run."""
    truth = scene.true_columns(SIZE)
    found = {}
    for kind in contest.KINDS:
        fits = accuracy.run_many(truth, SIZE, kind, accuracy.stemdisp_fit(kind.noise), 1)
        scores = accuracy.score(truth, fits, accuracy.bounds_of(truth, SIZE, kind, "species"))
        for name, score in scores.items():
            found[f"rms / bound, {kind.noise}, {name}"] = score.ratio
    return found


def instructions() -> dict[str, float]:
    """Instructions of one fit."""
    counts = counted.count()
    return {f"instructions of a fit, {name} (millions)": n for name, n in counts.items()}


def times() -> dict[str, float]:
    """Processor time of fits over that of fixed work of the same kind, one after the other."""
    truth = scene.true_columns(SIZE)
    perfect, starts = scene.perfect_image(truth, SIZE), scene.starts(truth, 0)
    work = reference()
    found = {}
    for kind in contest.KINDS:
        image = scene.add_noise(perfect, kind, 0)
        fit = accuracy.stemdisp_fit(kind.noise)
        fit(image, starts)
        ratio = interleaved(lambda fit=fit, image=image: fit(image, starts), work, ROUNDS)
        found[f"time of a fit / fixed work, {kind.noise}"] = ratio
    return found


def reference() -> Callable[[], None]:
    """Give fixed work of about the time of a fit: transforms, exp, a matrix product."""
    rng = np.random.default_rng(0)
    image, square = rng.normal(size=(512, 512)), rng.normal(size=(400, 400))
    image, square = image.astype(np.float32), square.astype(np.float32)

    def work() -> None:
        for _ in range(3):
            fft.irfft2(fft.rfft2(image))
            np.exp(image)
            square @ square
            sum(range(100_000))

    return work


def interleaved(call: Callable[[], object], work: Callable[[], object], rounds: int) -> float:
    """Give the median ratio of the times of two calls that take turns."""
    ratios = []
    for _ in range(rounds):
        ((before,), (taken,), (after,)) = (speed.cpu_times(what, 1) for what in (work, call, work))
        ratios.append(2 * taken / (before + after))
    return median(ratios)


def memory() -> dict[str, float]:
    """Memory that comes with a fit, in images of single precision."""
    (own,) = (p for p in PEERS if not p.package)
    with tempfile.TemporaryDirectory() as folder:
        warm = contest.write_scene(Path(folder, "warm.npz"), contest.WARM_SIZE, contest.TIMED, 0)
        path = contest.write_scene(Path(folder, "image.npz"), MEMORY_SIZE, contest.TIMED, 0)
        found = contest.fit_apart(own, Path(sys.executable), path, warm, limit_s=120)
    if found["status"] != "done":
        raise RuntimeError(found.get("reason", "the fit took too long"))
    more = found["peak_mib"] - found["before_mib"]
    return {"memory of a fit / image": more * 2**20 / (4 * MEMORY_SIZE**2)}


def start() -> dict[str, float]:
    """Processor time of imports over those of the libraries, or of Python itself."""
    libraries, nothing = "import numpy, scipy, pandas", "pass"
    table = (
        ("import of the fit / of numpy, scipy, pandas", "import stemdisp.refine", libraries),
        ("import stemdisp / python alone", "import stemdisp", nothing),
        (
            "stemdisp --help / python alone",
            "from stemdisp.cli import main; main(['--help'])",
            nothing,
        ),
    )
    found = {}
    for name, script, other in table:
        process_s(script)  # writes what Python keeps compiled
        pairs = [(process_s(script), process_s(other)) for _ in range(STARTS)]
        found[name] = median(own / base for own, base in pairs)
    return found


def process_s(script: str) -> float:
    """Give the processor time of a process that runs a script."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL, cwd=speed.ROOT
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def whole_run() -> dict[str, float]:
    """Processor time of the analysis of the sample data over that of fixed work."""
    from stemdisp import run

    if not speed.SAMPLE.is_file():
        raise RuntimeError("no sample data: make sample-data")
    work, sample = reference(), {"input": {"path": [str(speed.SAMPLE)]}}
    run(sample)
    ratios = []
    for _ in range(2):
        begin = time.process_time()
        run(sample)
        taken = time.process_time() - begin
        ratios.append(taken / median(speed.cpu_times(work, ROUNDS)))
    return {"run of the sample data / fixed work": min(ratios)}
