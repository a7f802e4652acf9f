"""The figures of the page, in colours that all can tell apart, drawn from the records."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import scene
from benchmarks.contest import KINDS, TIMED, Plan
from benchmarks.contest_tables import cases
from benchmarks.environments import PEERS
from benchmarks.store import Store

# Okabe and Ito; the marker says the same as the colour.
STYLE = {
    "stemdisp": ("#000000", "o"),
    "scipy": ("#E69F00", "s"),
    "atomap": ("#0072B2", "^"),
    "photutils": ("#009E73", "D"),
    "singleorigin": ("#CC79A7", "v"),
}
FILES = {
    "speed": "bench_speed.png",
    "accuracy": "bench_accuracy.png",
    "memory": "bench_memory.png",
}
TOP = 8.0  # of the axis of ratios; larger ones are written


def draw_all(plan: Plan, store: Store, folder: Path) -> list[Path]:
    """Write the figures and give their paths."""
    import matplotlib

    matplotlib.use("Agg")
    settings = {"font.size": 9, "axes.grid": True, "grid.color": "0.9", "axes.axisbelow": True}
    settings |= {"axes.spines.top": False, "axes.spines.right": False}
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with matplotlib.rc_context(settings):
        for name, draw in (("speed", _speed), ("accuracy", _accuracy), ("memory", _memory)):
            figure = draw(plan, store)
            paths.append(folder / FILES[name])
            _save(figure, paths[-1])
    return paths


def _save(figure: Any, path: Path) -> None:
    """Write a figure of few colours in a third of the bytes."""
    whole = io.BytesIO()
    figure.savefig(whole, dpi=110)
    with Image.open(whole) as picture:
        picture.convert("RGB").quantize(64).save(path, optimize=True)


def _series(plan: Plan, store: Store, field: str) -> dict[str, list[tuple[int, float]]]:
    """Give size and value of each peer, for the noise with which all sizes are timed."""
    out: dict[str, list[tuple[int, float]]] = {}
    for peer, kind, size, found in cases(plan, store):
        if kind == TIMED and field in found and found["status"] == "done":
            out.setdefault(peer.name, []).append((size, found[field]))
    return out


def _speed(plan: Plan, store: Store) -> Any:
    figure, axes = _panel(plan)
    for peer in PEERS:
        points = _series(plan, store, "rate").get(peer.name, [])
        _line(axes, peer, points)
        guessed = [
            (size, found["columns"] / found["expected_s"])
            for p, kind, size, found in cases(plan, store)
            if p == peer and kind == TIMED and found["status"] == "not run"
        ]
        if guessed and points:
            _line(axes, peer, [points[-1], *guessed], expected=True)
    axes.set_yscale("log")
    axes.set_ylabel("columns per second, one core")
    axes.plot([], [], ":", color="0.4", label="not run: rate of the\nlargest image that ran")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return figure


def _memory(plan: Plan, store: Store) -> Any:
    figure, axes = _panel(plan)
    for peer in PEERS:
        _line(axes, peer, _series(plan, store, "peak_mib").get(peer.name, []))
    sizes = np.array(plan.sizes)
    axes.plot(sizes, sizes**2 * 4 / 2**20, "--", color="0.5", label="the image itself")
    axes.set_yscale("log")
    axes.set_ylabel("peak memory of the process (MiB)")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return figure


def _panel(plan: Plan) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log", base=2)
    axes.set_xticks(plan.sizes, [str(size) for size in plan.sizes])
    axes.minorticks_off()
    axes.set_xlabel(f"side of the image (px); noise: {TIMED.name}")
    return figure, axes


def _line(axes: Any, peer: Any, points: list[tuple[int, float]], *, expected: bool = False) -> None:
    if not points:
        return
    color, marker = STYLE[peer.name]
    x, y = zip(*points, strict=True)
    if expected:
        axes.plot(x, y, ":", color=color, lw=1)
        return
    axes.plot(x, y, color=color, marker=marker, ms=5, lw=1.5, label=peer.label)


def _accuracy(plan: Plan, store: Store) -> Any:
    """One panel for each noise: groups of species, one point for each fit."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(7.4, 3.8), layout="constrained")
    panels = figure.subplots(1, len(KINDS), sharey=True)
    size = plan.sizes[0]
    for axes, kind in zip(panels, KINDS, strict=True):
        axes.axhline(1.0, color="0.4", lw=1)
        axes.grid(visible=False, axis="x")
        for k, peer in enumerate(PEERS):
            for p, other, side, found in cases(plan, store):
                if (p, other, side, found["status"]) == (peer, kind, size, "done"):
                    _points(axes, peer.name, found["scores"], (k - 2) * 0.16)
        axes.set_xticks(range(len(scene.SPECIES)), scene.SPECIES)
        axes.set_xlim(-0.5, len(scene.SPECIES) - 0.5)
        axes.set_ylim(0.7, TOP)
        axes.set_yscale("log")
        axes.set_yticks([1, 1.5, 2, 3, 5, 8], ["1", "1.5", "2", "3", "5", "8"])
        axes.minorticks_off()
        axes.set_title(kind.name, fontsize=9)
    panels[0].set_ylabel(f"rms error / Cramér-Rao bound, {size} px")
    hollow = {"ls": "", "color": "0.4", "marker": "o", "mfc": "white", "ms": 5}
    handles = [_handle(peer) for peer in PEERS]
    handles.append(Line2D([], [], label="hollow: > 10 % lost", **hollow))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _points(axes: Any, name: str, scores: dict, shift: float) -> None:
    """Draw the ratios of one fit; hollow where more than one column in ten is lost."""
    color, marker = STYLE[name]
    for k, species in enumerate(scene.SPECIES):
        score = scores[species]
        ratio, many = score["ratio"], score["failed"] > 0.1 * score["total"]
        style = {"color": color, "marker": marker, "ms": 5, "mfc": "white" if many else color}
        if not np.isfinite(ratio) or ratio > TOP / 1.1:
            text = "lost" if not np.isfinite(ratio) else f"{ratio:.0f}"
            axes.plot(k + shift, TOP / 1.12, **style)
            axes.annotate(
                text,
                (k + shift, TOP / 1.12),
                xytext=(0, -7 - 9 * (list(STYLE).index(name) % 2)),  # neighbours do not touch
                textcoords="offset points",
                ha="center",
                va="top",
                fontsize=7,
                color=color,
            )
            continue
        axes.errorbar(k + shift, ratio, 2 * score["ratio_err"], lw=1, **style)


def _handle(peer: Any) -> Any:
    from matplotlib.lines import Line2D

    color, marker = STYLE[peer.name]
    return Line2D([], [], ls="", color=color, marker=marker, ms=5, label=peer.label)
