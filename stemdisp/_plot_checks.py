"""Panels that check a run: distributions, correlation, registration, dose, quality bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stemdisp import _plot_numbers as num
from stemdisp import _plot_style as st
from stemdisp import damage, tables

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


def _bins(values: list[np.ndarray]) -> list[float] | int:
    """Return bins for all values, as narrow as the narrower distribution asks for."""
    everything = np.concatenate(values)
    if everything.size < 2 or np.ptp(everything) == 0:
        return 10
    # Of both together, the distance between two narrow peaks would set the width.
    widths = [np.ptp(np.histogram_bin_edges(v, bins="fd")[:2]) for v in values if v.size > 1]
    count = int(np.clip(np.ceil(np.ptp(everything) / min(widths)), 8, 60)) if widths else 10
    return np.linspace(everything.min(), everything.max(), count + 1).tolist()


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
        The size of delta in angstrom against 1 - occupancy, or delta in angstrom against occupancy.
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
    for number, x_at, y_at in zip(planes["N"].tolist(), x, y, strict=True):
        if number <= 6:
            ax.annotate(str(number), (x_at, y_at), xytext=(5, 4), textcoords="offset points")
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
    locator: Any = ax.xaxis.get_major_locator()
    locator.set_params(integer=True)
    ax.legend(loc="best")
    return ax


def plot_dose(result: Any, *, which: str = "displacement", ax: Axes | None = None) -> Axes:
    """Draw what parts of a series show against the dose, and the value at zero dose.

    Parameters
    ----------
    result : Result
        A finished run on a stack with a dose series.
    which : {"displacement", "occupancy"}
        delta of plane 1, or the mean occupancy of planes 1 to 3.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
        delta(1) in angstrom, or the occupancy, with standard errors, against the cumulative dose,
        or against the number of frames where no dose is stated: points, cumulative means (open),
        the straight line through the points with its standard error, and where it starts. The
        title states its slope.
    """
    if which not in ("displacement", "occupancy"):
        raise ValueError(
            f'which = {which!r} is not "displacement" or "occupancy"; use one of these'
        )
    name = "delta1" if which == "displacement" else "occupancy1"
    value, error, _ = damage.QUANTITIES[name]
    series = result.dose_series
    if series is None or not series[value].notna().any():
        raise ValueError(f"result.dose_series has no {value}; this plot needs a stack of frames")
    ax = st.new_axes() if ax is None else ax
    anion, colors = st.anion_species(result) or "O", st.species_colors(result)
    x, is_dose = damage.exposure_of(series)
    alone = (series["kind"] == "point").to_numpy(dtype=bool)
    color = colors.get(st.displaced_species(result) if name == "delta1" else anion, st.INK)
    one = "single frames" if (series.loc[alone, "n_frames"] == 1).all() else "groups of frames"
    # the first mean may be the first point
    means = ~alone & (series["last_frame"] > series.loc[alone, "last_frame"].min()).to_numpy()
    kinds: tuple[tuple[np.ndarray, str, dict[str, Any]], ...] = (
        (means, st.FAINT, {"fmt": "D", "ms": 4.0, "mfc": "white", "label": "mean from the start"}),
        (alone, st.INK, {"fmt": "o", "ms": 4.6, "mfc": color, "label": one}),
    )
    for part, edge, style in kinds:
        if part.any():
            y, bar = (series.loc[part, c].to_numpy(dtype=float) for c in (value, error))
            style |= {"mec": edge, "mew": 0.8, "ecolor": edge, "elinewidth": 0.9, "capsize": 2.0}
            ax.errorbar(x[part], y, yerr=bar, zorder=3 if part is alone else 2, **style)
    quantity = "δ(1) (Å)" if which == "displacement" else f"{anion} occupancy, N = 1 to 3"
    label = "cumulative dose (e/Å²)" if is_dose else "frames scanned"
    ax.set(xlabel=label, ylabel=quantity)
    level = float(result.config.analysis.confidence)
    line = damage.line_of(series, name, confidence=level)
    step = (damage.PER_DOSE, "per 1000 e/Å²") if is_dose else (1.0, "per frame")
    _trend(ax, line, (np.array([0.0, np.nanmax(x)]), *step), "Å" if name == "delta1" else "")
    return ax


def _trend(
    ax: Axes, line: damage.Line | None, where: tuple[np.ndarray, float, str], unit: str
) -> None:
    """Draw the line, its band and its start, and state its slope."""
    if line is None:
        ax.set_title(f"slope: {num.UNKNOWN}", loc="left")
        return
    ends, step, per = where
    along = np.linspace(ends[0], ends[1], 50)
    middle, wide = line.at(along)
    ax.fill_between(along, middle - wide, middle + wide, color=st.BLUE, alpha=0.18, lw=0, zorder=1)
    ax.plot(along, middle, color=st.BLUE, lw=1.3, zorder=1)
    ax.errorbar(
        [0.0],
        [line.zero],
        yerr=[line.zero_err],
        fmt="s",
        ms=5.5,
        mfc=st.BLUE,
        mec="white",
        ecolor=st.BLUE,
        elinewidth=2.0,
        zorder=4,
        clip_on=False,
        label=f"at zero dose: {num.measured(line.zero, line.zero_err, unit)}",
    )
    text = num.measured(line.slope * step, line.slope_err * step, unit)
    ax.set_title(f"slope: {text} {per}", loc="left")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)


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
