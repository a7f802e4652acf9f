"""Is stemdisp slower, larger or less accurate than it was? ``make bench-check``.

Everything is measured once and held against ``benchmarks/baseline.json``; what is more than 20 %
worse is measured again, twice at most, and fails if it never comes out better. ``--renew`` writes
the baseline anew: after a change that is meant, or on a machine of another kind. ``--spread 5``
measures five times and says how much each measure varies by itself.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import click

BASELINE = Path(__file__).resolve().parent / "baseline.json"
LIMIT = 0.20
ATTEMPTS = 3

Group = Callable[[], dict[str, float]]


@dataclass
class Verdict:
    """What was found: by measure, the baseline and the best of all attempts."""

    known: dict[str, float]
    found: dict[str, float] = field(default_factory=dict)
    unmeasured: dict[str, str] = field(default_factory=dict)  # group -> reason

    def change(self, name: str) -> float:
        """Give the change from the baseline; 0.1 is 10 % worse."""
        return self.found[name] / self.known[name] - 1

    def worse(self) -> list[str]:
        """Give the measures that are worse by more than the limit."""
        return [n for n in self.found if n in self.known and not self.change(n) <= LIMIT]

    def better(self) -> list[str]:
        """Give the measures that have improved so much that the baseline hides a regression."""
        return [n for n in self.found if n in self.known and self.change(n) < -LIMIT]

    def new(self) -> list[str]:
        """Give the measures of which the baseline knows nothing."""
        return [n for n in self.found if n not in self.known]


def judge(groups: Mapping[str, Group], known: dict[str, float], say: Callable) -> Verdict:
    """Measure everything; what is worse is measured again before it counts."""
    verdict = Verdict(known)
    for name, measure in groups.items():
        for attempt in range(ATTEMPTS):
            say(name if attempt == 0 else f"{name}, once more")
            try:
                found = measure()
            except Exception as error:  # noqa: BLE001 - said in the verdict
                verdict.unmeasured[name] = " ".join(str(error).split()) or repr(error)
                break
            for key, value in found.items():
                verdict.found[key] = min(value, verdict.found.get(key, value))
            if not set(found) & set(verdict.worse()):
                break
    return verdict


def lines(verdict: Verdict) -> list[str]:
    """Say what was found, a line for each measure."""
    out = []
    for name, value in verdict.found.items():
        if name in verdict.new():
            out.append(f"  new    {name}: {value:.4g}, not in the baseline")
            continue
        mark = "WORSE" if name in verdict.worse() else "ok"
        mark = "better" if name in verdict.better() else mark
        change = f"{100 * verdict.change(name):+.1f} %"
        out.append(f"  {mark:6} {name}: {value:.4g}, was {verdict.known[name]:.4g} ({change})")
    out += [f"  -      {name}: not measured: {why}" for name, why in verdict.unmeasured.items()]
    return out


def failed(verdict: Verdict, *, excused: tuple[str, ...] = ("instructions",)) -> bool:
    """Say whether the check fails: something is worse, or was not measured that must be."""
    return bool(verdict.worse()) or bool(set(verdict.unmeasured) - set(excused))


def spread(
    groups: Mapping[str, Group], times: int, say: Callable
) -> dict[str, tuple[float, float]]:
    """Measure all several times; give the median, and half of the range over it."""
    runs: dict[str, list[float]] = {}
    for k in range(times):
        for name, measure in groups.items():
            say(f"{k + 1} of {times}: {name}")
            for key, value in measure().items():
                runs.setdefault(key, []).append(value)
    return {key: (median(v), (max(v) - min(v)) / 2 / median(v)) for key, v in runs.items()}


@click.command()
@click.option("--renew", is_flag=True, help="Write the baseline anew.")
@click.option("--spread", "times", default=0, help="Measure so many times, say how much it varies.")
@click.option("--only", default="", help="Groups to measure, separated by commas.")
@click.option("--baseline", default=BASELINE, type=click.Path(dir_okay=False, path_type=Path))
def main(renew: bool, times: int, only: str, baseline: Path) -> None:
    """Fail if counts, ratios, memory or errors are more than 20 % worse than the baseline."""
    from benchmarks.measures import all_measures

    begin = time.monotonic()
    groups = all_measures()
    unknown = set(only.split(",")) - set(groups) - {""}
    if unknown:
        raise click.BadParameter(f"{sorted(unknown)[0]!r} is none of {', '.join(groups)}.")
    groups = {n: m for n, m in groups.items() if not only or n in only.split(",")}
    if times:
        for name, (middle, half) in spread(groups, times, _say).items():
            click.echo(f"  {name}: {middle:.4g} ± {100 * half:.2f} %")
        return
    known = read(baseline)
    verdict = judge(groups, {} if renew else known, _say)
    for line in lines(verdict):
        click.echo(line)
    if renew:
        baseline.write_text(text(known | verdict.found), encoding="utf-8")
        return
    click.echo(f"{time.monotonic() - begin:.0f} s")
    if failed(verdict):
        click.echo(f"More than {LIMIT:.0%} worse than {baseline.name}, or not measured.", err=True)
        sys.exit(1)


def read(path: Path) -> dict[str, float]:
    """Give the measures of a baseline; none where there is no file."""
    if not path.is_file():
        return {}
    return json.loads(path.read_text(encoding="utf-8"))["measures"]


def text(measures: dict[str, float]) -> str:
    """Give the content of a baseline."""
    import platform

    about = {
        "about": "Written by `make bench-check ARGS=--renew`; larger is worse.",
        "machine": platform.machine(),
        "measures": {name: float(f"{value:.5g}") for name, value in measures.items()},
    }
    return json.dumps(about, indent=2, ensure_ascii=False) + "\n"


def _say(what: str) -> None:
    click.echo(f"... {what}", err=True)


if __name__ == "__main__":
    from benchmarks import confine

    confine()
    main(prog_name="python -m benchmarks.check")
