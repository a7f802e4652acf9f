"""docs/benchmarks.md, out of the records of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks import contest_tables as tables
from benchmarks.contest import NEAR, TIMED, Plan
from benchmarks.figures import FILES
from benchmarks.pipelines import FIRST_FIT, LATER_FIT, Whole
from benchmarks.report import Report, goals, table
from benchmarks.store import Store

NAME = "benchmarks.md"

_PAGE = """\
# Benchmarks

Written, figures too, by `{command}` from {begin} to {end} (UTC). {machine}.

{summary}

## What is measured

The image: KTaO3 seen along [1-10] with [111] up, 0.10 Å per px; peaks Ta 1.0, KO 0.55, O 0.25 on a
background of 0.10; widths 0.45, 0.42, 0.40 Å; K displaced and O missing near the interface; every
column displaced at random by 5 pm rms. Ta and O are 1.41 Å apart: they overlap. The columns are
circular Gaussians, the model of every fit here; real ones will raise all ratios. Starts are
0.3 px rms off the truth, the same for all.

Each fit runs in a fresh process, on one core, with one thread, in an environment of its own. The
libraries are loaded and a small image is fitted first; then the time is processor time of the fit
alone (mean of up to 50 runs, if they are short, without the tenths at both ends; of three the
middle). One fit may take {limit}. What would take longer is not run, and the time in brackets is
what the rate of the largest image that ran predicts.

| fit | what it was given |
|---|---|
| stemdisp | the kind of noise, not its level; all columns together; errors are computed, too |
| scipy, per column | `curve_fit`: elliptical Gaussian and level, 7 parameters, pixels within 0.9 Å; true widths to start with |
| atomap's chain | its documented workflow: Ta, subtract, K, subtract, O; centre of mass, then 2-D Gaussians; defaults |
| photutils, groups | `PSFPhotometry` with `SourceGrouper` (1.6 Å), circular Gaussians of free width, box of 19 px; the true background is taken off, true widths to start with |
| SingleOrigin, groups | its fitter of groups, circular Gaussians: an O with its Ta, or a K, on discs of 1.0 Å. 3.0.1 fails as released; two functions are supplied, and its own grouping is passed by |

What was tried for them: six radii for SingleOrigin, on an image of other disorder, noise and starts than
these; two sets of starting values for scipy. atomap and photutils are as first written.

`bound` is the Cramér-Rao bound of the model with all columns together and one width per species,
rms per axis: no unbiased fit can do better. `slope` is the response to the random displacements: 1
is faithful. `bias of K` is the mean error along [110] in planes 1 to {near}. `failed` columns are off
by more than 0.5 Å or not fitted; they are left out of the rest, so that a ratio over few survivors
says little. Sampling errors are given after ±. Times grow with the load of the machine (1 is this
run alone): compare rows of one run.

## Errors

{accuracy}
![rms error over the bound for each species, noise and fit]({figure_accuracy})

Bars are two sampling errors. Hollow: more than one column in ten is lost. A number at the top is
a ratio beyond the scale.

{more_accuracy}## Speed

Columns per second, and the time of one fit.

{speed}
![columns per second against the size of the image]({figure_speed})

{factors}

## Memory

Most memory of the process during the fit in MiB; in brackets what came with the fit, beyond the
libraries, the image and what the first small fit has left.

{memory}
![peak memory against the size of the image]({figure_memory})

## From file to report

`stemdisp run` on all cores, in a process of its own: reading, registration, fit, statistics, dose
series, tables, figures, report. The peers fit columns and have nothing to compare with this.

{runs}
## What one waits for at the start

Wall-clock time of whole processes (median of 7); the two fits are processor time within theirs.

{start}
{own}
## Versions

{versions}
"""  # noqa: E501


def write_page(
    folder: Path, plan: Plan, store: Store, *, command: str, whole: Sequence[Whole]
) -> Path:
    """Write the page and give its path."""
    begin, end = (text.replace("T", " ")[:16] for text in store.span())
    own = store.get("own")
    report = Report.from_plain(own) if own and own.get("status") != "failed" else None
    later = tables.accuracy_table(plan, store, first=False)
    more = f"The same at other sizes, where it was run:\n\n{later}\n"
    if later.count("\n") == 2:  # head and rule only
        more = ""
    path = folder / NAME
    text = _PAGE.format(
        command=command,
        begin=begin,
        end=end,
        machine=store.get("machine"),
        summary=summary(plan, store),
        limit=tables.duration(plan.limit_s),
        near=NEAR,
        accuracy=tables.accuracy_table(plan, store, first=True),
        more_accuracy=more,
        speed=tables.speed_table(plan, store),
        memory=tables.memory_table(plan, store),
        factors=_factors(plan, store),
        runs=runs_table(store, whole),
        start=start_table(store),
        own=_own(plan, store, report, own),
        versions="\n".join(tables.versions(plan, store)) or "Nothing was run.",
        **{f"figure_{name}": f"images/{file}" for name, file in FILES.items()},
    )
    path.write_text(text, encoding="utf-8")
    return path


def summary(plan: Plan, store: Store) -> str:
    """Say the outcome in a sentence or two, from the numbers."""
    ratios, lost = {}, {}
    for peer, kind, size, found in tables.cases(plan, store):
        if size == plan.sizes[0] and kind == TIMED and found["status"] == "done":
            ratios[peer.label] = ", ".join(
                f"{s} {tables.ratio(found['scores'][s])}" for s in found["scores"]
            )
            lost[peer.label] = sum(s["failed"] for s in found["scores"].values())
    if not ratios:
        return "No peer was run."
    parts = [f"{name}: {text}; {lost[name]} lost" for name, text in ratios.items()]
    return (
        f"Rms error over the least possible, {TIMED.name} noise, {plan.sizes[0]} px: "
        + ". ".join(parts)
        + "."
    )


def _factors(plan: Plan, store: Store) -> str:
    rows = tables.factors(plan, store)
    if not rows:
        return "No peer to compare with."
    text = "; ".join(f"{f:,.0f} times {name} at {size} px" for name, size, f in rows)
    return f"stemdisp's rate ({TIMED.name} noise, the largest image that both did): {text}."


def runs_table(store: Store, whole: Sequence[Whole]) -> str:
    """Time and memory of whole runs."""
    rows = []
    for item in whole:
        found = store.get(f"run/{item.label}")
        if found is None:
            continue
        if found["status"] != "done":
            rows.append((item.label, f"failed: {found['reason']}", *("-",) * 5))
            continue
        stages = found["stages_s"]
        most = sorted(stages, key=stages.get, reverse=True)[:3]
        rows.append(
            (
                item.label,
                f"{found['input_mib']:.0f}",
                tables.duration(found["wall_s"]),
                tables.duration(found["cpu_s"]),
                f"{found['peak_gib']:.2f}",
                f"{found['report_mib']:.1f}",
                ", ".join(f"{name} {tables.duration(stages[name])}" for name in most),
            )
        )
    head = ("file", "MiB", "wall clock", "processor", "peak memory, GiB", "report, MiB")
    return table((*head, "longest stages"), rows)


def start_table(store: Store) -> str:
    """What a user waits for."""
    found = store.get("start")
    if not isinstance(found, list):
        return f"Failed: {found['reason']}\n" if found else "Not measured.\n"
    return table(("what", "time"), [(what, f"{seconds:.2f} s") for what, seconds in found])


def _own(plan: Plan, store: Store, report: Report | None, raw: dict | None) -> str:
    """The goals, and stemdisp alone."""
    if report is None:
        return f"Failed: {raw['reason']}\n" if raw else ""
    rows = goals(report) + more_goals(plan, store)
    head = "## Goals\n\nTwo sampling errors are allowed.\n\n"
    return head + table(("goal", "measured", "reached"), rows) + "\n" + _ALONE + report.markdown()


_ALONE = """\
## stemdisp alone

More noisy images, more kinds of noise. `pull` is the rms of error over claimed error: 1 is
honest. `marked` columns carry a quality bit that says so, and are left out. Only the large image is
fitted on more than one core.

"""


def more_goals(plan: Plan, store: Store) -> list[tuple[str, str, str]]:
    """Goals that need the peers or fresh processes."""
    rows = []
    start = store.get("start")
    if isinstance(start, list):
        took = dict(start)
        for name, what, limit in (("first", FIRST_FIT, 10.0), ("later", LATER_FIT, 1.0)):
            good = "yes" if took[what] <= limit else "**no**"
            rows.append((f"{name} fit <= {limit:g} s", f"{took[what]:.2f} s", good))
    for label, size, factor in tables.factors(plan, store):
        if label == "atomap's chain":
            good = "yes" if factor >= 1000 else "**no**"
            rows.append((f">= 1000 x atomap's chain, {size} px", f"{factor:.0f} x", good))
    return rows
