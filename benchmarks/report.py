"""Run everything and turn it into Markdown tables."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import pandas as pd

from benchmarks import accuracy, peers, scene, speed
from benchmarks.accuracy import Fitter, Score

PEER_SIZE = 256


@dataclass(frozen=True)
class Options:
    """What to measure."""

    size: int = 512
    repeats: int = 5
    runs: int = 3
    peers: bool = False
    pipeline: bool = True
    first_call: bool = True
    large: int = 0


@dataclass
class Report:
    """What was measured; ``accuracy`` holds (noise, fit, scores)."""

    options: Options
    n_columns: int = 0
    accuracy: list[tuple[str, str, dict[str, Score]]] = field(default_factory=list)
    speed: list[tuple[str, str]] = field(default_factory=list)
    profile: list[tuple[str, float]] = field(default_factory=list)
    peers: list[tuple[str, float, dict[str, Score]]] = field(default_factory=list)
    decided: list[tuple[str, str]] = field(default_factory=list)
    rates: dict[str, float] = field(default_factory=dict)

    def markdown(self) -> str:
        """Give all tables."""
        parts = [
            f"## Accuracy: {self.options.size} x {self.options.size}, {self.n_columns} columns, "
            f"{self.options.repeats} noisy images each\n",
            _table(_HEAD, (row for entry in self.accuracy for row in _score_rows(*entry))),
            "`auto` takes "
            + "; ".join(f"{kind} for {name}" for name, kind in self.decided)
            + ".\n",
            "## Goals\n",
            _table(("goal", "measured", "reached"), goals(self)),
            "## Speed: one core, processor time\n",
            _table(("what", "measured"), self.speed),
            "Where the fit of the iDPC image spends its time: "
            + ", ".join(f"`{name}` {share:.0%}" for name, share in self.profile)
            + ".\n",
        ]
        if self.peers:
            parts += [
                f"## Others on the same image: {PEER_SIZE} x {PEER_SIZE}, {scene.KINDS[1].name}\n",
                _table(("fit", "columns/s", *_HEAD[2:]), _peer_rows(self.peers)),
            ]
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
        say(f"accuracy and speed: {kind.name}")
        _measure_kind(report, truth, kind)
    idpc = scene.KINDS[-1]
    say("ordinary least squares on iDPC noise")
    _score_fit(report, truth, idpc, "noise=white", accuracy.stemdisp_fit("white"))
    report.profile = speed.profile_fit(truth, options.size, idpc)
    if options.peers:
        say("others")
        _measure_peers(report)
    if options.pipeline:
        say("pipeline")
        _measure_pipeline(report)
    if options.first_call:
        say("first call")
        ready, first, later = speed.time_first_call()
        report.rates |= {"first call": first, "later call": later}
        report.speed.append(("import of the fit", f"{ready:.1f} s"))
        report.speed.append(("first fit ever (compiles), tiny image", f"{first:.1f} s"))
        report.speed.append(("first fit of a later process, tiny image", f"{later:.2f} s"))
    if options.large:
        say(f"{options.large} x {options.large}")
        n, seconds, peak, before = speed.time_large(options.large)
        report.speed.append(
            (
                f"fit of {options.large} x {options.large}, iDPC, {n:.0f} columns",
                f"{seconds:.1f} s, peak {peak:.2f} GiB ({before:.2f} before the fit)",
            )
        )
    return report


def _measure_kind(report: Report, truth: pd.DataFrame, kind: scene.Kind) -> None:
    options = report.options
    fit = accuracy.stemdisp_fit(kind.noise)
    _score_fit(report, truth, kind, f"noise={kind.noise}", fit)
    seconds = speed.time_fit(truth, options.size, kind, fit, options.runs)
    rate = len(truth) / seconds
    report.rates[kind.name] = rate
    report.speed.append(
        (f"fit with covariances, {kind.name}", f"{seconds:.2f} s, {rate:.0f} columns/s")
    )
    image = scene.add_noise(scene.perfect_image(truth, options.size), kind, 0)
    decided = accuracy.stemdisp_fit("auto")(image, scene.starts(truth, 0)).attrs["fit"].noise.kind
    report.decided.append((kind.name, decided))


def _score_fit(
    report: Report, truth: pd.DataFrame, kind: scene.Kind, name: str, fit: Fitter
) -> None:
    size = report.options.size
    fitted = accuracy.run_many(truth, size, kind, fit, report.options.repeats)
    bound = accuracy.bounds_of(truth, size, kind, "species")
    report.accuracy.append((kind.name, name, accuracy.score(truth, fitted, bound)))


def _measure_pipeline(report: Report) -> None:
    timed = speed.time_pipeline(1)
    if timed is None:
        report.speed.append(("whole pipeline", "no sample data: make sample-data"))
        return
    seconds, stages = timed
    total = sum(stages.values())
    largest = sorted(stages, key=stages.get, reverse=True)[:3]
    shares = ", ".join(f"{name} {stages[name] / total:.0%}" for name in largest)
    report.speed.append(("whole pipeline on the sample data", f"{seconds:.1f} s ({shares})"))


def _measure_peers(report: Report) -> None:
    """Compare on a small image, because the others are slow."""
    kind = scene.KINDS[1]
    fits = [("stemdisp", accuracy.stemdisp_fit(kind.noise), report.options.runs)]
    version = peers.atomap_version()
    if version is not None:
        fits.append((f"atomap {version}, chain", peers.fit_with_atomap, 1))
    truth = scene.true_columns(PEER_SIZE)
    bound = accuracy.bounds_of(truth, PEER_SIZE, kind, "species")
    for name, fit, runs in fits:
        rate = len(truth) / speed.time_fit(truth, PEER_SIZE, kind, fit, runs)
        fitted = accuracy.run_many(truth, PEER_SIZE, kind, fit, 2)
        report.peers.append((name, rate, accuracy.score(truth, fitted, bound)))
    if len(report.peers) > 1:
        report.rates["over atomap"] = report.peers[0][1] / report.peers[1][1]


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
    for name, limit in (("first call", 10.0), ("later call", 1.0)):
        if name in report.rates:
            seconds = report.rates[name]
            rows.append((f"{name} <= {limit:g} s", f"{seconds:.2f} s", _yes(seconds <= limit)))
    if "over atomap" in report.rates:
        factor = report.rates["over atomap"]
        rows.append((">= 1000 x atomap's chain", f"{factor:.0f} x", _yes(factor >= 1000)))
    return rows


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


def _peer_rows(entries: list[tuple[str, float, dict[str, Score]]]) -> Iterable[tuple[str, ...]]:
    for fit, rate, scores in entries:
        for name, s in scores.items():
            yield (fit, f"{rate:.0f}", name, *_cells(s))


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


def _table(head: Iterable[str], rows: Iterable[tuple[str, ...]]) -> str:
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
