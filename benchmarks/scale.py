"""Time and memory of whole runs against frames, pixels and workers (``docs/scale.md``).

python -m benchmarks.scale                    # some minutes
python -m benchmarks.scale --huge --write     # 500 frames of 2048 x 2048 as well: 8 GB on disk
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from scipy import fft

from stemdisp.simulate import simulate_stack

PIXEL_A = 0.15
DOSE = 100.0  # electrons per square angstrom and frame
FILM_A = 40.0
ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "scale.md"

_RUN = """
import json, sys, time
from benchmarks.large import peak_gib
from stemdisp._spread import open_cluster
from stemdisp.pipeline import run
path, address = sys.argv[1], sys.argv[2] or None
start = time.perf_counter()
with open_cluster(address) as executor:
    result = run({"input": {"path": [path]}}, executor=executor)
seconds = time.perf_counter() - start
peak = peak_gib()
first = result.planes.set_index("N").loc[1] if result.interface is not None else {}
print(json.dumps({
    "seconds": seconds, "peak_gib": peak, "stages": result.summary["timings_s"],
    "used": int(result.frames["used"].sum()), "delta1": float(first.get("delta_A", float("nan"))),
    "error": float(first.get("delta_err_A", float("nan"))),
}))
"""


@dataclass(frozen=True)
class Case:
    """A stack, and the workers that share its run (0: threads of one process)."""

    n_frames: int
    size: int
    workers: int = 0


def write_stack(path: Path, n_frames: int, size: int, *, seed: int = 0) -> None:
    """Write a stack frame by frame: a still specimen that drifts by whole pixels, with noise."""
    import dask
    import dask.array as da
    from hyperspy.signals import Signal2D

    margin = 64
    still, _ = simulate_stack(
        seed=seed,
        n_frames=1,
        size=size + margin,
        pixel_size_A=PIXEL_A,
        dose_e_per_A2=1e9,
        jitter_px=(0.0, 0.0),
        shear_px=0.0,
        film_A=min(FILM_A, 0.2 * size * PIXEL_A),
    )
    image = still.data[0]
    rng = np.random.default_rng(seed)
    corners = np.cumsum(rng.normal(0, 1.0, (n_frames, 2)), axis=0) + margin / 2
    corners = np.rint(np.clip(corners, 0, margin)).astype(int)
    filters = _noise_filters(size)

    def draw(k: int) -> np.ndarray:
        own = np.random.default_rng((seed, k))
        spectrum = sum(
            f * fft.rfft2(own.standard_normal((size, size), dtype=np.float32)) for f in filters
        )
        x, y = corners[k]
        return image[y : y + size, x : x + size] + fft.irfft2(spectrum, s=(size, size))

    frames = [
        da.from_delayed(dask.delayed(draw)(k), (size, size), np.float32) for k in range(n_frames)
    ]
    stack = Signal2D(da.stack(frames)).as_lazy()
    stack.axes_manager.navigation_axes[0].name = "frame"
    for name, axis in zip("xy", stack.axes_manager.signal_axes, strict=True):
        axis.name, axis.scale, axis.units = name, PIXEL_A, "Å"
    stack.metadata.set_item("stemdisp.dose_e_per_A2", DOSE)
    stack.save(path, chunks=(1, size, size), compression=None, show_progressbar=False)


def _noise_filters(size: int) -> tuple[np.ndarray, np.ndarray]:
    """What makes noise of iDPC out of two spectra of white noise."""
    deviation = np.sqrt(0.5 / (DOSE * PIXEL_A**2))
    fx = fft.rfftfreq(size, PIXEL_A)[None].astype(np.float32)
    fy = fft.fftfreq(size, PIXEL_A)[:, None].astype(np.float32)
    square = fx**2 + fy**2
    square[0, 0] = 1.0
    return tuple((deviation * f / (2j * np.pi * square)).astype(np.complex64) for f in (fx, fy))


@contextmanager
def cluster(workers: int) -> Iterator[str]:
    """Give the address of a cluster of single-threaded processes; none for no workers."""
    if not workers:
        yield ""
        return
    from distributed import LocalCluster

    options = {"threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with LocalCluster(n_workers=workers, **options) as made:
        yield made.scheduler_address


def measure(path: Path, case: Case) -> dict:
    """Run a stack in a process of its own."""
    with cluster(case.workers) as address:
        done = subprocess.run(
            [sys.executable, "-c", _RUN, str(path), address],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
    return json.loads(done.stdout.splitlines()[-1])


def measure_all(cases: Sequence[Case], folder: Path) -> list[tuple[Case, dict]]:
    """Measure cases, each stack written once and deleted after its last use."""
    rows = []
    for n_frames, size in dict.fromkeys((c.n_frames, c.size) for c in cases):
        path = folder / f"{n_frames}x{size}.hspy"
        write_stack(path, n_frames, size)
        for case in cases:
            if (case.n_frames, case.size) == (n_frames, size):
                rows.append((case, measure(path, case)))
                print(line(*rows[-1]), flush=True)
        path.unlink()
    return rows


def line(case: Case, found: dict) -> str:
    """One row of the table."""
    data = case.n_frames * case.size**2 * 4 / 2**30
    who = f"{case.workers} workers" if case.workers else "one process"
    per_megapixel = 1e3 * found["seconds"] / (case.n_frames * case.size**2 / 1e6)
    stages = found["stages"]
    return (
        f"| {case.n_frames} | {case.size} | {data:.2f} | {who} | {found['seconds']:.1f} | "
        f"{stages['register']:.1f} | {stages['dose']:.1f} | {per_megapixel:.0f} | "
        f"{found['peak_gib']:.2f} | {found['used']} | "
        f"{found['delta1']:.3f} ± {found['error']:.3f} |"
    )


HEAD = (
    "| frames | side (px) | data (GiB) | by | run (s) | of it register (s) | dose series (s) | "
    "ms per megapixel | peak memory (GiB) | frames used | δ(1) (Å) |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|"
)


def page(rows: Sequence[tuple[Case, dict]], command: str) -> str:
    """Text of the page."""
    table = "\n".join(line(*row) for row in rows)
    when = time.strftime("%Y-%m-%d")
    return f"""# Large stacks

Whole runs (`stemdisp.run`: registration, fit, statistics, dose series; no report) of synthetic
stacks that are read from disk frame by frame. The specimen is that of the sample data under
{FILM_A:.0f} Å of film (less in small frames), with {DOSE:.0f} electrons per Å² in each frame;
the true δ(1) is 0.54 Å. Peak memory is that of the process that runs, without workers; one
process uses all cores, each worker one. Whatever the series, its mean is fitted once and the dose
series fits 32 images at most, so that their share falls as frames are added.
Written by

```
{command}
```

on {when}, on {os.cpu_count()} cores. Times are wall-clock, one run each.

{HEAD}
{table}
"""


def numbers(_: click.Context, __: click.Parameter, text: str) -> tuple[int, ...]:
    """Read whole numbers separated by commas; none for an empty text."""
    return tuple(int(part) for part in text.split(",") if part)


@click.command()
@click.option("--frames", default="16,32,64,128", callback=numbers, help="At 1024 px.")
@click.option("--sizes", default="512,2048", callback=numbers, help="At 32 frames.")
@click.option("--workers", default="1,2", callback=numbers, help="At 64 frames of 1024 px.")
@click.option("--huge", is_flag=True, help="500 frames of 2048 px as well.")
@click.option("--write", is_flag=True, help="Write docs/scale.md.")
def main(
    frames: tuple[int, ...],
    sizes: tuple[int, ...],
    workers: tuple[int, ...],
    huge: bool,
    write: bool,
) -> None:
    """Measure whole runs of large stacks."""
    cases = [Case(n, 1024) for n in frames] + [Case(32, size) for size in sizes]
    cases += [Case(64, 1024, n) for n in workers] + [Case(500, 2048)] * huge
    print(HEAD)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure_all(cases, Path(folder))
    if write:
        order = [row for case in cases for row in rows if row[0] == case]
        command = " ".join(["python -m benchmarks.scale", *sys.argv[1:]])
        PAGE.write_text(page(order, command), encoding="utf-8")


if __name__ == "__main__":
    main()
