"""Many fields in one process: does memory grow, does it slow down? (``docs/endurance.md``).

python -m benchmarks.endurance --fields 200
python -m benchmarks.endurance --fields 1000 --write     # half an hour on one core, 4 GB on disk
"""

from __future__ import annotations

import datetime
import gc
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from benchmarks import THREADS

if __name__ == "__main__":  # before numpy is loaded
    for _name in THREADS:
        os.environ[_name] = "1"
    os.environ.setdefault("MPLBACKEND", "Agg")

import click
import numpy as np

from stemdisp.batch import run_fields
from stemdisp.config import Config
from stemdisp.simulate import simulate_stack

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "endurance.md"
SEGMENTS = ROOT / "sample_data" / "kto_111_multislice.hspy"
_PROC = Path("/proc/self")
_TICK = os.sysconf("SC_CLK_TCK")
# What one round of fields holds, in this order; every round costs the same.
ROUND = (
    "bulk_160",
    "noise",
    "interface",
    "truncated",
    "bulk_176",
    "flat",
    "bulk_192",
    "no_image",
    "stack",
    "noise",
    "bulk_160",
    "truncated",
    "segments",
    "missing_pixels",
    "bulk_176",
    "flat",
    "bulk_192",
    "no_image",
    "bulk_160",
    "missing_pixels",
)
# Promised: what may be added from the end of the warm-up to the last field.
LIMIT = 0.05
# Random images of each kind, so that fields differ.
_SEEDS = 4


@dataclass(frozen=True)
class Sample:
    """The process after a field.

    Attributes
    ----------
    cpu_s : float
        Processor time of the field, of this process and all below it.
    yard_s : float
        Processor time of a fixed piece of work just before: how fast the machine is now.
    rss_mib, children_mib : float
        Resident memory of this process, and of all below it together.
    objects, figures : int
        Objects that the garbage collector follows, and figures of pyplot.
    """

    field: int
    failed: bool
    cpu_s: float
    yard_s: float
    rss_mib: float
    children_mib: float
    children: int
    files: int
    threads: int
    objects: int
    figures: int


def write_sources(folder: Path) -> dict[str, list[Path]]:
    """Write the images that the fields are copies of, several of each kind."""
    folder.mkdir(parents=True)
    out = {kind: [] for kind in dict.fromkeys(ROUND)}
    for seed in range(_SEEDS):
        for kind, paths in out.items():
            suffix = ".tif" if kind == "no_image" else ".hspy"
            paths.append(folder / f"{kind}_{seed}{suffix}")
            _write(paths[-1], kind, seed)
    return out


def _write(path: Path, kind: str, seed: int) -> None:
    from hyperspy.signals import Signal2D

    rng = np.random.default_rng(seed)
    if kind == "segments":
        shutil.copyfile(SEGMENTS, path)
    elif kind == "no_image":
        path.write_text(f"field {seed}: nothing was recorded\n", encoding="utf-8")
    elif kind == "noise":
        Signal2D(rng.normal(size=(256, 256)).astype(np.float32)).save(path)
    elif kind == "flat":
        Signal2D(np.full((256, 256), seed, dtype=np.float32)).save(path)
    else:
        still = {"dose_e_per_A2": 4000.0, "n_frames": 1}
        if kind == "stack":
            options = {"preset": "bulk", "size": 192, "n_frames": 3, "dose_e_per_A2": 1500.0}
        elif kind.startswith("bulk"):
            options = still | {"preset": "bulk", "size": int(kind.removeprefix("bulk_"))}
        else:
            options = still | {"size": 192}
        stack, _ = simulate_stack(seed=seed, **options)
        signal = stack if kind == "stack" else stack.inav[0]
        if kind == "missing_pixels":
            signal.data[rng.random(signal.data.shape) < 0.6] = np.nan
        signal.save(path)
        if kind == "truncated":
            content = path.read_bytes()
            path.write_bytes(content[: len(content) // 2])


def fields_of(sources: dict[str, list[Path]], folder: Path, count: int) -> list[Path]:
    """Give `count` files, each with a name of its own, round after round."""
    folder.mkdir(parents=True)
    out = []
    for k in range(count):
        turn, place = divmod(k, len(ROUND))
        source = sources[ROUND[place]][turn % _SEEDS]
        path = folder / f"{k + 1:05d}_{ROUND[place]}{source.suffix}"
        os.link(source, path)
        out.append(path)
    return out


def endure(
    count: int, folder: Path, *, each: Callable[[Sample], None] | None = None
) -> list[Sample]:
    """Analyse `count` fields as a batch does and look at the process after each.

    Parameters
    ----------
    count : int
        Fields; whole rounds make windows that can be compared.
    folder : Path
        Where images and results go.
    each : callable, optional
        Gets every sample as it is taken.
    """
    paths = fields_of(write_sources(folder / "sources"), folder / "fields", count)
    samples: list[Sample] = []
    last = {"yard": yardstick(), "cpu": 0.0}
    last["cpu"] = cpu_s()

    def look(line: str) -> None:
        used = cpu_s() - last["cpu"]
        children = descendants(os.getpid())
        samples.append(
            Sample(
                field=len(samples) + 1,
                failed=": failed" in line,
                cpu_s=used,
                yard_s=last["yard"],
                rss_mib=rss_mib("self"),
                children_mib=sum(map(rss_mib, children)),
                children=len(children),
                files=len(os.listdir(_PROC / "fd")),
                threads=len(os.listdir(_PROC / "task")),
                objects=len(gc.get_objects()),
                figures=_open_figures(),
            )
        )
        if each is not None:
            each(samples[-1])
        last["yard"] = yardstick()
        last["cpu"] = cpu_s()

    run_fields(Config(), paths, folder / "results", tell=look)
    return samples


def yardstick() -> float:
    """Time a fixed piece of work: Python, arrays, a transform."""
    start = time.process_time()
    image = np.sin(np.arange(256.0 * 256.0)).reshape(256, 256)
    for _ in range(4):
        image = np.fft.irfft2(np.fft.rfft2(image), s=image.shape)
    words = {str(k): k * k for k in range(60_000)}
    assert len(words) == 60_000 and np.isfinite(image).all()
    return time.process_time() - start


def _open_figures() -> int:
    helpers = sys.modules.get("matplotlib._pylab_helpers")
    return len(helpers.Gcf.figs) if helpers else 0


def cpu_s() -> float:
    """Give the processor time of this process, of those below it, and of those that ended."""
    times = os.times()
    living = sum(map(_cpu_of, descendants(os.getpid())))
    return time.process_time() + times.children_user + times.children_system + living


def _cpu_of(pid: int) -> float:
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended
        return 0.0
    return sum(map(int, words[11:13])) / _TICK


def descendants(pid: int) -> list[int]:
    """Give the processes below one."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(words[1])
    below, found = {pid}, []
    while new := [child for child, parent in parents.items() if parent in below - {child}]:
        new = [child for child in new if child not in found]
        if not new:
            break
        found += new
        below |= set(new)
    return found


def rss_mib(pid: int | str) -> float:
    """Give the resident memory of a process; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(x.split()[1]) / 1024 for x in lines if x.startswith("VmRSS")), 0.0)


@dataclass(frozen=True)
class Verdict:
    """What changed from the end of the warm-up to the last field.

    Attributes
    ----------
    memory : float
        Growth of resident memory, this process and those below, as a share.
    speed : float
        Growth of processor time per field, as a share, divided by that of the yardstick.
    raw_speed : float
        The same, not divided.
    files, threads, children, figures : int
        Growth of the largest number of each.
    objects : float
        Growth of the objects, as a share.

    Notes
    -----
    All compare the first window after the warm-up with the last: means of memory, objects and
    processor time. Windows of whole rounds hold the same kinds of fields.
    """

    memory: float
    speed: float
    raw_speed: float
    objects: float
    files: int
    threads: int
    children: int
    figures: int

    def broken(self) -> list[str]:
        """Name what grew beyond its limit."""
        shares = [n for n in ("memory", "speed", "objects") if getattr(self, n) > LIMIT]
        return shares + [
            n for n in ("files", "threads", "children", "figures") if getattr(self, n) > 0
        ]


def judge(samples: Sequence[Sample], *, warm_up: int, window: int) -> Verdict:
    """Compare the first `window` fields after the warm-up with the last ones.

    Parameters
    ----------
    samples : sequence of Sample
        Of a whole run.
    warm_up : int
        Fields that are left out.
    window : int
        Fields that are compared.
    """
    if len(samples) < warm_up + 2 * window or window < 1:
        raise ValueError(f"{len(samples)} fields are too few for two windows of {window}")
    both = samples[warm_up : warm_up + window], samples[-window:]
    memory = [np.mean([s.rss_mib + s.children_mib for s in part]) for part in both]
    objects = [np.mean([s.objects for s in part]) for part in both]
    cpu = [np.mean([s.cpu_s for s in part]) for part in both]
    yard = [np.median([s.yard_s for s in part]) for part in both]
    counts = {
        name: max(getattr(s, name) for s in both[1]) - max(getattr(s, name) for s in both[0])
        for name in ("files", "threads", "children", "figures")
    }
    return Verdict(
        memory=float(memory[1] / memory[0] - 1),
        speed=float((cpu[1] / yard[1]) / (cpu[0] / yard[0]) - 1),
        raw_speed=float(cpu[1] / cpu[0] - 1),
        objects=float(objects[1] / objects[0] - 1),
        **counts,
    )


def rows(samples: Sequence[Sample]) -> Iterator[str]:
    """Give a table: about ten lines, each of whole rounds."""
    yield (
        "| fields | CPU per field (s) | same, yardsticks | memory (MiB) | of children (MiB) "
        "| open files | threads | children | objects (1000) |"
    )
    yield "|" + "---|" * 9
    step = len(ROUND) * max(len(samples) // (10 * len(ROUND)), 1)
    for start in range(0, len(samples), step):
        part = samples[start : start + step]
        cpu = np.mean([s.cpu_s for s in part])
        yard = np.median([s.yard_s for s in part])
        median = {f.name: np.median([getattr(s, f.name) for s in part]) for f in fields(Sample)}
        largest = [max(getattr(s, n) for s in part) for n in ("files", "threads", "children")]
        yield (
            f"| {part[0].field}-{part[-1].field} | {cpu:.2f} | {cpu / yard:.1f} "
            f"| {median['rss_mib']:.1f} | {median['children_mib']:.1f} "
            f"| {' | '.join(map(str, largest))} | {median['objects'] / 1000:.1f} |"
        )


def windows(count: int) -> tuple[int, int]:
    """Give the warm-up and the window of a run: a hundred fields each, fewer in short runs."""
    turns = count // len(ROUND)
    size = len(ROUND) * max(min(5, turns // 3), 1)
    return size, size


_PAGE = """\
# Many fields in one process

Written by `{command}` on {date}, in {minutes:.0f} minutes on one core that was shared with
other programs.

A batch (`stemdisp.batch.run_fields`: read, analyse, draw, publish, bring the tables up to date)
of {count} files, one after the other in one process. In each round of {turn}: {kinds}. {failed}
fields failed, as they should. `benchmarks/endurance.py` looks at the process after every field.

{table}

CPU is processor time of the process and all processes below it, mean per field. The same in
yardsticks: in units of a fixed piece of work that is timed before each field, because processor
time changes with what else the machine does. Memory is resident (median); files, threads and
children are the largest numbers seen.

| last {window} fields against {first} to {last} | change | promised |
|---|---|---|
| memory, with child processes (mean) | {memory:+.1%} | < 5 % |
| CPU per field, in yardsticks | {speed:+.1%} | < 5 % |
| CPU per field, in seconds | {raw:+.1%} | |
| objects that Python keeps (mean) | {objects:+.1%} | < 5 % |
| files, threads, children, figures | {files:+d}, {threads:+d}, {children:+d}, {figures:+d} | 0 |
"""


def page(samples: Sequence[Sample], *, command: str, seconds: float) -> str:
    """Give the page of the documentation."""
    warm_up, window = windows(len(samples))
    verdict = judge(samples, warm_up=warm_up, window=window)
    kinds = {kind: ROUND.count(kind) for kind in dict.fromkeys(ROUND)}
    return _PAGE.format(
        command=command,
        date=datetime.date.today().isoformat(),
        minutes=seconds / 60,
        count=len(samples),
        turn=len(ROUND),
        kinds=", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in kinds.items()),
        failed=sum(s.failed for s in samples),
        table="\n".join(rows(samples)),
        window=window,
        first=warm_up + 1,
        last=warm_up + window,
        memory=verdict.memory,
        speed=verdict.speed,
        raw=verdict.raw_speed,
        objects=verdict.objects,
        files=verdict.files,
        threads=verdict.threads,
        children=verdict.children,
        figures=verdict.figures,
    )


@click.command()
@click.option("--fields", "count", default=200, show_default=True, type=click.IntRange(min=60))
@click.option("--write", is_flag=True, help="Write docs/endurance.md as well.")
def main(count: int, *, write: bool) -> None:
    """Analyse many fields in this process and print how it fares."""
    count -= count % len(ROUND)
    start = time.perf_counter()

    def tell(sample: Sample) -> None:
        if sample.field % len(ROUND) == 0:
            click.echo(
                f"... {sample.field}/{count}: {sample.rss_mib:.1f} MiB, {sample.objects} objects, "
                f"{time.perf_counter() - start:.0f} s",
                err=True,
            )

    with tempfile.TemporaryDirectory() as folder:
        samples = endure(count, Path(folder), each=tell)
    command = f"python -m benchmarks.endurance --fields {count}" + " --write" * write
    text = page(samples, command=command, seconds=time.perf_counter() - start)
    click.echo(text)
    if write:
        PAGE.write_text(text, encoding="utf-8")
    warm_up, window = windows(count)
    if broken := judge(samples, warm_up=warm_up, window=window).broken():
        raise click.ClickException(f"grew beyond the limit: {', '.join(broken)}")


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.endurance")
