"""Panels that check a run: distributions, correlation, registration, dose, quality bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stemdisp import _plot_numbers as num
from stemdisp import _plot_style as st
from stemdisp import tables

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def plot_displacement_distribution(result: Any, *, ax: Axes | None = None) -> Axes:
    """Draw histograms of delta and delta_perp over all usable columns.

    Parameters
    ----------
    result : Result
        A finished run, with or without an interface.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
        Number of columns against displacement in pm.
    """
    ax = st.new_axes() if ax is None else ax
    frame = st.used(result, st.displaced_species(result))
    names = (result.projection.u_uvw, result.projection.v_uvw)
    colors = (st.VERMILLION, st.BLUE)
    values = [frame[n].dropna().to_numpy(dtype=float) * 100 for n in ("delta_A", "delta_perp_A")]
    bins = _bins(values)
    for pm, uvw, color, symbol in zip(values, names, colors, ("δ", "δ⊥"), strict=True):
        if not pm.size:
            continue
        error = pm.std() / np.sqrt(pm.size) if pm.size > 1 else None
        mean = num.measured(pm.mean(), error, "pm")
        label = (
            f"{symbol} along {st.direction_name(uvw)}: mean {mean}, "
            f"s.d. {num.fixed(pm.std(), 1)} pm, n = {pm.size}"
        )
        ax.hist(pm, bins=bins, histtype="stepfilled", color=color, alpha=0.3, lw=0)
        ax.hist(pm, bins=bins, histtype="step", color=color, lw=1.4, label=label)
    ax.axvline(0.0, color=st.INK, lw=0.9)
    ax.set(xlabel="displacement (pm)", ylabel="number of columns")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.2)
    return ax


def _bins(values: list[np.ndarray]) -> np.ndarray | int:
    """Return bins for all values, as narrow as the narrower distribution asks for."""
    everything = np.concatenate(values)
    if everything.size < 2 or np.ptp(everything) == 0:
        return 10
    # Of both together, the distance between two narrow peaks would set the width.
    widths = [np.ptp(np.histogram_bin_edges(v, bins="fd")[:2]) for v in values if v.size > 1]
    count = int(np.clip(np.ceil(np.ptp(everything) / min(widths)), 8, 60)) if widths else 10
    return np.linspace(everything.min(), everything.max(), count + 1)


def plot_correlation(result: Any, *, which: str = "between", ax: Axes | None = None) -> Axes:
    """Draw missing anions against displacement, plane by plane or inside planes.

    Parameters
    ----------
    result : Result
        A finished run with an interface.
    which : {"between", "within"}
        Plane means against each other, or each column against the occupancy of its own cage
        after the plane means are taken away.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
        |delta| in angstrom against 1 - occupancy, or delta in angstrom against occupancy.
    """
    if which not in ("between", "within"):
        raise ValueError(f'which = {which!r} is not "between" or "within"; use one of these')
    ax = st.new_axes(3.5, 3.1) if ax is None else ax
    color = st.species_colors(result).get(st.displaced_species(result), st.VERMILLION)
    if which == "between":
        _between(ax, result, color)
    else:
        _within(ax, result, color)
    return ax


def _between(ax: Axes, result: Any, color: str) -> None:
    planes = st.table(result, "planes").dropna(subset=["delta_A", "occupancy"])
    x = 1.0 - planes["occupancy"].to_numpy(dtype=float)
    y = planes["delta_A"].abs().to_numpy(dtype=float)
    ax.errorbar(
        x,
        y,
        xerr=planes["occupancy_err"].to_numpy(dtype=float),
        yerr=planes["delta_err_A"].to_numpy(dtype=float),
        fmt="o",
        ms=4.6,
        mfc=color,
        mec=st.INK,
        mew=0.7,
        ecolor=st.FAINT,
        elinewidth=1.0,
    )
    for row, x_at, y_at in zip(planes.itertuples(), x, y, strict=True):
        if row.N <= 6:
            ax.annotate(str(row.N), (x_at, y_at), xytext=(5, 4), textcoords="offset points")
    ax.set(xlabel="1 \N{MINUS SIGN} occupancy (plane mean)", ylabel="|δ| (Å, plane mean)")
    _note(
        ax,
        "between planes (numbers: N)",
        st.section(result, "correlation", "between_planes"),
        (("Spearman", "spearman"), ("Pearson", "pearson")),
    )


def _within(ax: Axes, result: Any, color: str) -> None:
    cages = None if result.correlation is None else result.correlation.cages
    if cages is not None and len(cages):
        pair = cages[["cage_occupancy", "delta_A"]].astype(float)
        centred = pair - pair.groupby(cages["N"]).transform("mean")
        ax.scatter(
            centred["cage_occupancy"],
            centred["delta_A"],
            s=9,
            color=color,
            alpha=0.45,
            linewidths=0,
            rasterized=len(cages) > 400,
        )
    ax.axhline(0, color=st.FAINT, lw=0.8)
    ax.axvline(0, color=st.FAINT, lw=0.8)
    ax.set(xlabel="cage occupancy minus plane mean", ylabel="δ minus plane mean (Å)")
    _note(
        ax,
        "within planes",
        st.section(result, "correlation", "within_planes"),
        (("r", "r"), ("p", "p")),
    )


def _note(ax: Axes, title: str, found: Any, entries: tuple[tuple[str, str], ...]) -> None:
    values = [(label, st.number((found or {}).get(key))) for label, key in entries]
    known = [
        num.p_equals(value) if label == "p" else f"{label} = {num.fixed(value, 2)}"
        for label, value in values
        if np.isfinite(value)
    ]
    ax.set_title(f"{title}\n{', '.join(known) or num.UNKNOWN}", loc="left")


def plot_registration(result: Any, *, ax: Axes | None = None) -> Axes:
    """Draw how far each frame was shifted; frames left out are open.

    Parameters
    ----------
    result : Result
        A finished run on a stack.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
        Shift in angstrom against frame number.
    """
    frames = _frames(result, "shift_x_A")
    ax = st.new_axes() if ax is None else ax
    used = frames["used"].to_numpy(dtype=bool)
    number = frames["frame"].to_numpy(dtype=float)
    for name, label, color, mark in (
        ("shift_x_A", "x (right)", st.BLUE, "o"),
        ("shift_y_A", "y (down)", st.ORANGE, "s"),
    ):
        shift = frames[name].to_numpy(dtype=float)
        ax.plot(number, shift, color=color, lw=1.0, alpha=0.6)
        ax.plot(number[used], shift[used], mark, color=color, ms=4.5, label=label)
        ax.plot(number[~used], shift[~used], mark, mec=color, mfc="white", ms=4.5)
    if not used.all():
        ax.plot([], [], "o", mec=st.INK, mfc="white", ms=4.5, label="not used")
    ax.set(xlabel="frame", ylabel="shift against frame 0 (Å)")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(loc="best")
    return ax


def plot_dose(result: Any, *, which: str = "displacement", ax: Axes | None = None) -> Axes:
    """Draw what single frames show, against the dose where it is known, with its trend.

    Parameters
    ----------
    result : Result
        A finished run on a stack with per-frame results.
    which : {"displacement", "occupancy"}
        delta of plane 1, or the mean occupancy of planes 1 to 3.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
        delta(1) in angstrom, or the occupancy, with standard errors, against the cumulative dose
        or against the frame number. The title states the slope of a weighted straight line.
    """
    if which not in ("displacement", "occupancy"):
        raise ValueError(
            f'which = {which!r} is not "displacement" or "occupancy"; use one of these'
        )
    name = "delta1" if which == "displacement" else "occupancy1"
    value_name = f"{name}_A" if which == "displacement" else name
    frames = _frames(result, value_name)
    ax = st.new_axes() if ax is None else ax
    anion, colors = st.anion_species(result) or "O", st.species_colors(result)
    x, label, step = _exposure(frames)
    value = frames[value_name].to_numpy(dtype=float)
    error_name = f"{name}_err_A" if which == "displacement" else f"{name}_err"
    error = frames[error_name].to_numpy(dtype=float) if error_name in frames else None
    ax.errorbar(
        x,
        value,
        yerr=error,
        fmt="o",
        ms=4.6,
        mfc=colors.get(st.displaced_species(result) if name == "delta1" else anion, st.INK),
        mec=st.INK,
        mew=0.7,
        ecolor=st.INK,
        elinewidth=1.0,
        capsize=2.5,
    )
    quantity = "δ(1) of one frame (Å)"
    if which == "occupancy":
        quantity = f"{anion} occupancy of one frame\n(mean of N = 1 to 3)"
    ax.set(xlabel=label, ylabel=quantity)
    if error is not None:
        _trend(ax, (x, value, error), step, "Å" if which == "displacement" else "")
    return ax


def _exposure(frames: pd.DataFrame) -> tuple[np.ndarray, str, tuple[float, str]]:
    """Return dose or frame number with its label, and the step that a slope is given for."""
    if "dose_e_per_A2" in frames and frames["dose_e_per_A2"].notna().all():
        dose = frames["dose_e_per_A2"].cumsum().to_numpy(dtype=float)
        return dose, "cumulative dose (e/Å²)", (1000.0, "per 1000 e/Å²")
    return frames["frame"].to_numpy(dtype=float), "frame", (1.0, "per frame")


def _trend(
    ax: Axes, data: tuple[np.ndarray, np.ndarray, np.ndarray], step: tuple[float, str], unit: str
) -> None:
    """Draw a weighted straight line and state its slope with the error from the bars alone."""
    keep = np.all(np.isfinite(data), axis=0) & (data[2] > 0)
    x, value, error = (part[keep] for part in data)
    if x.size < 3 or np.ptp(x) == 0:
        ax.set_title(f"slope: {num.UNKNOWN}", loc="left")
        return
    # About the mean, where the slope and the constant do not pull at each other.
    middle = x.mean()
    weight = 1.0 / error
    design = np.stack([(x - middle) * weight, weight], axis=1)
    covariance = np.linalg.inv(design.T @ design)
    slope, level = covariance @ (design.T @ (value * weight))
    ends = np.array([x.min(), x.max()])
    ax.plot(ends, level + slope * (ends - middle), color=st.BLUE, lw=1.3, zorder=1)
    text = num.measured(slope * step[0], np.sqrt(covariance[0, 0]) * step[0], unit)
    ax.set_title(f"slope: {text} {step[1]}", loc="left")


def _frames(result: Any, needed: str) -> pd.DataFrame:
    frames = result.frames
    if frames is None or needed not in frames or not frames[needed].notna().any():
        raise ValueError(f"result.frames has no {needed}; this plot needs a stack of frames")
    return frames


def plot_quality(result: Any, *, ax: Axes | None = None) -> Axes:
    """Draw how many columns carry each quality bit.

    Parameters
    ----------
    result : Result
        A finished run.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
        One bar per bit.
    """
    ax = st.new_axes() if ax is None else ax
    counts = tables.count_quality(st.table(result, "columns"))
    bars = ax.barh(list(counts), list(counts.values()), color=st.SKY)
    ax.bar_label(bars, padding=2)
    ax.invert_yaxis()
    ax.margins(x=0.15)
    ax.set(xlabel=f"number of columns (of {len(st.table(result, 'columns'))})")
    return ax
