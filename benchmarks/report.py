"""Run everything and turn it into Markdown tables."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

import pandas as pd

from benchmarks import accuracy, scene, speed
from benchmarks.accuracy import Fitter, Score
from benchmarks.large import Large, time_large

LARGE, LARGE_S, LARGE_GIB = 4096, 1.5, 1.0


@dataclass(frozen=True)
class Options:
    """What to measure."""

    size: int = 512
    repeats: int = 5
    runs: int = 3
    speed_size: int = 1024
    large: int = 0


@dataclass
class Report:
    """What was measured; ``accuracy`` holds (noise, fit, scores)."""

    options: Options
    n_columns: int = 0
    accuracy: list[tuple[str, str, dict[str, Score]]] = field(default_factory=list)
    speed: list[tuple[str, str]] = field(default_factory=list)
    profile: list[tuple[str, float]] = field(default_factory=list)
    decided: list[tuple[str, str]] = field(default_factory=list)
    large: Large | None = None

    def plain(self) -> dict:
        """Give what can be written as JSON."""
        return asdict(self)

    @classmethod
    def from_plain(cls, found: dict) -> Report:
        """Give the report that `plain` was made of."""
        scored = [
            (noise, fit, {name: Score(**s) for name, s in scores.items()})
            for noise, fit, scores in found["accuracy"]
        ]
        lists = {k: [tuple(row) for row in found[k]] for k in ("speed", "profile", "decided")}
        large = found["large"] and Large(
            **(found["large"] | {"seconds": tuple(found["large"]["seconds"])})
        )
        return cls(Options(**found["options"]), found["n_columns"], scored, large=large, **lists)

    def markdown(self) -> str:
        """Give all tables."""
        parts = [
            f"## Accuracy: {self.options.size} x {self.options.size}, {self.n_columns} columns, "
            f"{self.options.repeats} noisy images each\n",
            table(_HEAD, (row for entry in self.accuracy for row in _score_rows(*entry))),
            "`auto` takes "
            + "; ".join(f"{kind} for {name}" for name, kind in self.decided)
            + ".\n",
            "## Speed: one core, processor time\n",
            table(("what", "measured"), self.speed),
            f"Where the fit of the iDPC image of {self.options.speed_size} x "
            f"{self.options.speed_size} spends its time: "
            + ", ".join(f"`{name}` {share:.0%}" for name, share in self.profile)
            + ".\n",
        ]
        if self.large:
            parts += _large_section(self.large)
        return "\n".join(parts)


_HEAD = (
    "noise",
    "fit",
    "species",
    "bound pm",
    "rms pm",
    "rms / bound",
    "slope",
    "pull",
    "pull of intensity",
    "failed",
    "marked",
)


def measure(options: Options, say: Callable[[str], None] = lambda _: None) -> Report:
    """Measure all that `options` asks for; `say` hears what is being done."""
    truth = scene.true_columns(options.size)
    report = Report(options, n_columns=len(truth))
    speed.warm_up()
    for kind in scene.KINDS:
        say(f"accuracy: {kind.name}")
        _measure_accuracy(report, truth, kind)
    idpc = scene.KINDS[-1]
    say("ordinary least squares on iDPC noise")
    _score_fit(report, truth, idpc, "noise=white", accuracy.stemdisp_fit("white"))
    say("speed")
    _measure_speed(report)
    if options.large:
        say(f"{options.large} x {options.large}")
        report.large = time_large(options.large)
    return report


def _measure_accuracy(report: Report, truth: pd.DataFrame, kind: scene.Kind) -> None:
    """Score the fit with this noise, and see what noise it finds by itself."""
    size = report.options.size
    _score_fit(report, truth, kind, f"noise={kind.noise}", accuracy.stemdisp_fit(kind.noise))
    image = scene.add_noise(scene.perfect_image(truth, size), kind, 0)
    decided = accuracy.stemdisp_fit("auto")(image, scene.starts(truth, 0)).attrs["fit"].noise.kind
    report.decided.append((kind.name, decided))


def _measure_speed(report: Report) -> None:
    """Columns per second for each noise, and where the time goes."""
    size, runs = report.options.speed_size, report.options.runs
    truth = scene.true_columns(size)
    for kind in scene.KINDS:
        seconds = speed.time_fit(truth, size, kind, accuracy.stemdisp_fit(kind.noise), runs)
        report.speed.append(
            (
                f"fit with covariances, {kind.name}, {size} x {size}",
                f"{len(truth)} columns in {seconds:.3f} s, {len(truth) / seconds:.0f} columns/s",
            )
        )
    report.profile = speed.profile_fit(truth, size, scene.KINDS[-1])


def _score_fit(
    report: Report, truth: pd.DataFrame, kind: scene.Kind, name: str, fit: Fitter
) -> None:
    size = report.options.size
    fitted = accuracy.run_many(truth, size, kind, fit, report.options.repeats)
    bound = accuracy.bounds_of(truth, size, kind, "species")
    report.accuracy.append((kind.name, name, accuracy.score(truth, fitted, bound)))


def goals(report: Report) -> list[tuple[str, str, str]]:
    """Compare with what the fit is to reach; two standard errors of sampling are allowed."""
    own = {noise: scores for noise, _, scores in reversed(report.accuracy)}
    rows = []
    for kind in scene.KINDS:
        limit = 1.05 if kind.noise == "idpc" else 1.03
        scores = own[kind.name].values()
        good = all(s.ratio <= limit + 2 * s.ratio_err for s in scores)
        text = ", ".join(f"{name} {s.ratio:.3f}" for name, s in own[kind.name].items())
        rows.append((f"rms / bound <= {limit}: {kind.name}", text, _yes(good)))
    scores = [s for by_species in own.values() for s in by_species.values()]
    worst = max(scores, key=lambda s: abs(s.slope - 1) - 2 * s.slope_err)
    good = abs(worst.slope - 1) <= 0.01 + 2 * worst.slope_err
    rows.append(
        ("slope 1.00 ± 0.01", f"least sure {_pm(worst.slope, worst.slope_err)}", _yes(good))
    )
    for label, name in (("positions", "pull"), ("intensities", "pull_intensity")):
        allowed = [0.03 + 2 * _pull_err(s, name) for s in scores]
        off = [abs(getattr(s, name) - 1) for s in scores]
        good = all(o <= a for o, a in zip(off, allowed, strict=True))
        values = [getattr(s, name) for s in scores]
        text = f"{min(values):.3f} to {max(values):.3f}"
        rows.append((f"pull 0.97 to 1.03: {label}", text, _yes(good)))
    failed, total = sum(s.failed for s in scores), sum(s.total for s in scores)
    rows.append(("no unmarked failure", f"{failed} of {total}", _yes(failed == 0)))
    return rows + _other_goals(report)


def _other_goals(report: Report) -> list[tuple[str, str, str]]:
    """What a large image may take, and the choice of noise."""
    rows = []
    if report.decided:
        right = {kind.name: kind.noise for kind in scene.KINDS}
        good = all(right[name] == noise for name, noise in report.decided)
        text = ", ".join(noise for _, noise in report.decided)
        rows.append(("auto takes the right noise", text, _yes(good)))
    large = report.large
    if large and large.size >= LARGE:
        what = f"{large.size} x {large.size}, two cores"
        took = f"{large.median_s:.2f} s on {large.cores} core{'s' if large.cores > 1 else ''}"
        rows.append((f"{what} <= {LARGE_S:g} s", took, _yes(large.median_s <= LARGE_S)))
        held = f"{large.peak_gib:.2f} GiB"
        rows.append((f"{what} <= {LARGE_GIB:g} GiB", held, _yes(large.peak_gib <= LARGE_GIB)))
    return rows


def _large_section(large: Large) -> list[str]:
    """What one large image takes."""
    rows = [
        ("cores used", str(large.cores)),
        ("columns", str(large.columns)),
        (f"fit with covariances, median of {len(large.seconds)} calls", f"{large.median_s:.2f} s"),
        ("its first call", f"{large.first_s:.2f} s"),
        ("most memory of the process", f"{large.peak_gib:.2f} GiB"),
        ("before the fit, with the image", f"{large.before_gib:.2f} GiB"),
    ]
    head = f"## A large image: {large.size} x {large.size}, {scene.KINDS[-1].name}, float32; "
    return [head + "wall-clock time\n", table(("what", "measured"), rows)]


def _pull_err(s: Score, name: str) -> float:
    """Sampling error of a pull: two positions per column, one intensity."""
    values = (2 if name == "pull" else 1) * (s.total - s.failed - s.marked)
    return getattr(s, name) / (2 * max(values, 1)) ** 0.5


def _yes(reached: bool) -> str:
    return "yes" if reached else "**no**"


def _pm(value: float, error: float) -> str:
    return f"{value:.3f} ± {error:.3f}"


def _number(value: float) -> str:
    return "-" if value != value else f"{value:.2f}"


def _score_rows(noise: str, fit: str, scores: dict[str, Score]) -> Iterable[tuple[str, ...]]:
    for name, s in scores.items():
        yield (noise, fit, name, *_cells(s))


def _cells(s: Score) -> tuple[str, ...]:
    return (
        f"{s.bound_pm:.2f}",
        f"{s.rms_pm:.2f}",
        _pm(s.ratio, s.ratio_err),
        _pm(s.slope, s.slope_err),
        _number(s.pull),
        _number(s.pull_intensity),
        f"{s.failed}/{s.total}",
        str(s.marked),
    )


def table(head: Iterable[str], rows: Iterable[tuple[str, ...]]) -> str:
    """Lay out a Markdown table with columns of even width."""
    cells = [tuple(head), *rows]
    widths = [max(len(row[k]) for row in cells) for k in range(len(cells[0]))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines) + "\n"


def machine() -> str:
    """Say on what it ran."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    packages = ", ".join(f"{p} {metadata.version(p)}" for p in ("numpy", "scipy", "numba"))
    load = f" (load {os.getloadavg()[0]:.1f})" if hasattr(os, "getloadavg") else ""
    cores = f"{model}, {os.cpu_count()} cores{load}"
    return f"{cores}; Python {platform.python_version()}, {packages}"
