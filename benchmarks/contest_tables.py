"""The tables of stemdisp and its peers, out of the records of `contest`."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import scene
from benchmarks.contest import KINDS, TIMED, Plan, case_name
from benchmarks.environments import PEERS, Peer
from benchmarks.report import table
from benchmarks.store import Store


def cases(plan: Plan, store: Store) -> Iterator[tuple[Peer, scene.Kind, int, dict]]:
    """Give what there is: peer, noise, size and record."""
    for peer in PEERS:
        for kind in KINDS:
            for size in plan.sizes:
                found = store.get(case_name(peer, kind, size, plan))
                if found is not None:
                    yield peer, kind, size, found


def accuracy_table(plan: Plan, store: Store, *, first: bool) -> str:
    """Errors over bounds, response, bias, failures; of the first size, or of the others."""
    head = ("fit", "noise", "px", *(f"rms / bound, {s}" for s in scene.SPECIES))
    head += (*(f"slope, {s}" for s in scene.SPECIES), "bias of K, pm", "failed Ta, K, O")
    rows = []
    for peer, kind, size, found in cases(plan, store):
        if (size == plan.sizes[0]) != first:
            continue
        if found["status"] == "done":
            rows.append((peer.label, kind.name, str(size), *_scores(found)))
        elif first:
            rows.append((peer.label, kind.name, str(size), missing(found), *("-",) * 7))
    return table(head, rows)


def _scores(found: dict) -> tuple[str, ...]:
    scores = [found["scores"][name] for name in scene.SPECIES]
    ratios = (_value(s["ratio"], s["ratio_err"], 2) for s in scores)
    slopes = (_value(s["slope"], s["slope_err"], 3) for s in scores)
    bias = _value(found["bias_pm"], found["bias_err_pm"], 2, sign=True)
    lost = ", ".join(str(s["failed"]) for s in scores)
    totals = ", ".join(str(s["total"]) for s in scores)
    return (*ratios, *slopes, bias, f"{lost} of {totals}")


def _value(value: float | None, error: float | None, digits: int, *, sign: bool = False) -> str:
    if value is None or error is None or value != value or error != error:
        return "-"
    return f"{value:{'+' if sign else ''}.{digits}f} ± {error:.{digits}f}"


def ratio(score: dict) -> str:
    """Give rms over bound; a dash where every column is lost."""
    value = score["ratio"]
    return f"{value:.2f}" if value == value else "-"


def missing(found: dict) -> str:
    """Say why a case has no numbers."""
    if found["status"] == "failed":
        return f"failed: {found['reason']}"
    if found["status"] == "stopped":
        return f"stopped after {duration(found['after_s'])}"
    return f"not run (about {duration(found['expected_s'])})"


def duration(seconds: float) -> str:
    """Give a time as people say it."""
    if seconds < 0.95:
        return f"{seconds:.2f} s"
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 9.5 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def speed_table(plan: Plan, store: Store) -> str:
    """Columns per second and time of one fit, by size."""

    def cell(found: dict) -> str:
        return f"{figures(found['rate'])} ({duration(found['seconds'])})"

    return _by_size(plan, store, cell)


def memory_table(plan: Plan, store: Store) -> str:
    """Most memory of the process during the fit, and how much of it came with the fit."""

    def cell(found: dict) -> str:
        more = max(found["peak_mib"] - found["before_mib"], 0.0)
        return f"{found['peak_mib']:.0f} ({more:.0f})"

    return _by_size(plan, store, cell)


def figures(value: float) -> str:
    """Round to three figures, without an exponent."""
    if value >= 100:
        step = 10 ** (len(str(int(value))) - 3)
        return f"{round(value / step) * step:,d}"
    return f"{value:.3g}"


def _by_size(plan: Plan, store: Store, cell: object) -> str:
    rows: dict[tuple[str, str], list[str]] = {}
    for peer, kind, _, found in cases(plan, store):
        text = cell(found) if found["status"] == "done" else missing(found)
        rows.setdefault((peer.label, kind.name), []).append(text)
    head = ("fit", "noise", *(f"{size} px" for size in plan.sizes))
    full = (key + tuple(r) + ("-",) * (len(plan.sizes) - len(r)) for key, r in rows.items())
    return table(head, full)


def factors(plan: Plan, store: Store) -> list[tuple[str, int, float]]:
    """How many times faster stemdisp is than each peer, at the largest image that both did."""
    rates: dict[str, dict[int, float]] = {}
    for peer, kind, size, found in cases(plan, store):
        if kind == TIMED and found["status"] == "done":
            rates.setdefault(peer.name, {})[size] = found["rate"]
    own = rates.get("stemdisp", {})
    rows = []
    for peer in PEERS[1:]:
        both = sorted(set(own) & set(rates.get(peer.name, {})))
        if both:
            rows.append((peer.label, both[-1], own[both[-1]] / rates[peer.name][both[-1]]))
    return rows


def versions(plan: Plan, store: Store) -> list[str]:
    """Say which versions of what took part, one line for each."""
    lines = {}
    for peer, _, _, found in cases(plan, store):
        if found["status"] == "done":
            names = ", ".join(f"{k} {v}" for k, v in found["versions"].items())
            lines[peer.label] = f"- {peer.label}: {names}"
        elif found["status"] == "failed":
            lines.setdefault(peer.label, f"- {peer.label}: {missing(found)}")
    return list(lines.values())
