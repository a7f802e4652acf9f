"""Plots of a finished run: every function draws on one Axes and returns it.

Nothing is shown and nothing is saved. Without `ax`, a figure of its own is made (``ax.figure``),
free of pyplot's global state. Units stand in every label; a species has the same colour in every
panel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stemdisp import _plot_numbers as num
from stemdisp import _plot_style as st
from stemdisp._plot_angle import plot_displacement_angle
from stemdisp._plot_checks import (
    plot_correlation,
    plot_displacement_distribution,
    plot_dose,
    plot_quality,
    plot_registration,
)
from stemdisp._plot_images import plot_image, plot_zoom
from stemdisp._plot_maps import plot_counting, plot_displacement_map, plot_residual

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "plot_correlation",
    "plot_counting",
    "plot_decay",
    "plot_displacement_angle",
    "plot_displacement_distribution",
    "plot_displacement_map",
    "plot_dose",
    "plot_image",
    "plot_line_profile",
    "plot_occupancy",
    "plot_quality",
    "plot_registration",
    "plot_residual",
    "plot_zoom",
]


def plot_decay(result: Any, *, ax: Axes | None = None) -> Axes:
    """Draw delta against plane number: columns, plane means with both errors, and the fit.

    Parameters
    ----------
    result : Result
        A finished run with an interface.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
        delta in angstrom against N; a second axis gives the depth in nm.
    """
    ax = st.new_axes() if ax is None else ax
    species = st.displaced_species(result)
    color = st.species_colors(result).get(species, st.VERMILLION)
    planes = st.drawn_planes(result)
    _bulk_zero(ax, result, planes)
    limit = num.seen_above(result, "displacement")
    _limit_lines(ax, (-limit, limit))
    _cloud(ax, st.used(result, species), "delta_A", color, planes=planes)
    _decay_curve(ax, result, planes)
    _means(ax, planes, ("delta_A", "delta_err_A", "delta_noise_A"), color)
    _depth_axis(ax, planes)
    name = st.direction_name(result.projection.u_uvw)
    ax.set(xlabel="plane number N", ylabel=f"δ along {name} (Å)")
    _number_axis(ax, planes)
    _mark_depth(ax, result, "displacement", "disp")
    ax.legend(loc="upper right")
    return ax


def plot_occupancy(result: Any, *, ax: Axes | None = None) -> Axes:
    """Draw anion occupancy against plane number, with the bulk level and the vacancy depth.

    Parameters
    ----------
    result : Result
        A finished run with an interface.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
        Occupancy (1 = bulk) against N; a second axis gives the depth in nm.
    """
    ax = st.new_axes() if ax is None else ax
    species = st.anion_species(result) or "O"
    color = st.species_colors(result).get(species, st.GREEN)
    planes = st.drawn_planes(result)
    ax.axhline(1.0, color=st.FAINT, lw=1.0, zorder=1, label="bulk level")
    _bulk_region(ax, result, planes)
    _limit_lines(ax, (1.0 - num.seen_above(result, "vacancy"),))
    _cloud(ax, st.used(result, species), "occupancy", color, planes=planes)
    _means(ax, planes, ("occupancy", "occupancy_err", None), color)
    _depth_axis(ax, planes)
    ax.set(xlabel="plane number N", ylabel=f"{species} occupancy (1 = bulk)")
    _number_axis(ax, planes)
    _mark_depth(ax, result, "vacancy", "vac")
    ax.legend(loc="lower right")
    return ax


def _limit_lines(ax: Axes, levels: tuple[float, ...]) -> None:
    """Draw how far a plane may depart from bulk before the depth test can tell."""
    for k, level in enumerate(levels):
        if np.isfinite(level):
            label = "" if k else "limit of the depth test"
            ax.axhline(level, color=st.INK, lw=0.9, ls=(0, (1, 2)), zorder=1, label=label)


def _cloud(ax: Axes, frame: pd.DataFrame, name: str, color: str, *, planes: pd.DataFrame) -> None:
    """Draw one faint point per column, spread sideways so that they do not hide each other."""
    frame = frame[frame[name].notna() & frame["N"].isin(planes["N"])]
    ax.scatter(
        st.spread_sideways(frame),
        frame[name],
        s=7,
        color=color,
        alpha=0.28,
        linewidths=0,
        zorder=2,
        rasterized=len(frame) > 400,
        label="columns",
    )


def _means(ax: Axes, planes: pd.DataFrame, names: tuple[str, str, str | None], color: str) -> None:
    """Draw plane means: thin bars are total errors, thick bars those of noise alone."""
    value, total, noise = names
    planes = planes[planes[value].notna()]
    number = planes["N"].to_numpy(dtype=float)
    values = planes[value].to_numpy(dtype=float)
    style: dict[str, Any] = {"fmt": "none", "ecolor": st.INK, "capsize": 0}
    ax.errorbar(
        number,
        values,
        yerr=planes[total].to_numpy(dtype=float),
        elinewidth=1.0,
        zorder=6,
        label="total error (1 s.e.)",
        **(style | {"capsize": 2.5}),
    )
    if noise is not None:
        ax.errorbar(
            number,
            values,
            yerr=planes[noise].to_numpy(dtype=float),
            elinewidth=3.2,
            zorder=7,
            label="noise alone (1 s.e.)",
            **style,
        )
    ax.plot(
        number, values, "o", ms=3.8, mfc=color, mec=st.INK, mew=0.7, zorder=8, label="plane mean"
    )


def _bulk_region(ax: Axes, result: Any, planes: pd.DataFrame) -> None:
    last = planes["N"].max() if len(planes) else np.nan
    start = result.config.analysis.bulk_from - 0.5
    if pd.notna(last) and last > start:
        ax.axvspan(
            start,
            float(last) + 0.5,
            color=st.PALE,
            alpha=0.55,
            lw=0,
            zorder=0,
            label="taken as bulk",
        )


def _bulk_zero(ax: Axes, result: Any, planes: pd.DataFrame) -> None:
    error = st.number(st.section(result, "bulk_offset_A", "delta_err"))
    ax.axhline(0.0, color=st.FAINT, lw=0.9, zorder=1)
    if np.isfinite(error):
        ax.axhspan(
            -error, error, color=st.SKY, alpha=0.45, lw=0, zorder=1, label="bulk zero ± 1 s.e."
        )
    _bulk_region(ax, result, planes)


def _decay_curve(ax: Axes, result: Any, planes: pd.DataFrame) -> None:
    """Draw the fitted curve with its band of one standard error."""
    fit = result.decay
    if fit is None or not len(planes):
        return
    number = np.linspace(1.0, max(float(planes["N"].max()), 2.0), 300)
    curve, error = fit.predict(number)
    if not np.isfinite(curve).any():
        return
    # delta0, xi and c are those of the exponential, whichever shape describes the planes best.
    label = "fit: exponential ± 1 s.e." if np.isfinite(fit.xi_planes) else "fit: constant ± 1 s.e."
    ax.plot(number, curve, color=st.BLUE, lw=1.5, zorder=5, label=label)
    ax.fill_between(number, curve - error, curve + error, color=st.BLUE, alpha=0.2, lw=0, zorder=4)


def _mark_depth(ax: Axes, result: Any, which: str, label: str) -> None:
    """Draw a depth and its interval as a bracket at the bottom of the panel."""
    found = st.section(result, "depth", which) or {}
    value = st.number(found.get("N"))
    if not np.isfinite(value):
        return
    low, high = (st.number(x) for x in (found.get("ci") or (None, None)))
    transform = ax.get_xaxis_transform()
    # 0 means that nothing was found; open and far ends stop at the frame.
    left, right = ax.get_xlim()
    if not np.isnan([low, high]).any():
        low, high = np.clip([low, high], left, right)
        ax.plot(
            [low, high],
            [0.035, 0.035],
            color=st.INK,
            lw=2.4,
            transform=transform,
            zorder=9,
            solid_capstyle="butt",
        )
    at = float(np.clip(value, left, right))
    ax.plot([at], [0.035], marker="v", ms=6, color=st.INK, transform=transform, zorder=9)
    near_edge = at < left + 0.12 * (right - left)
    ax.annotate(
        rf"$N_\mathrm{{{label}}}$ = {value:g}",
        (at, 0.035),
        xytext=(0, 5),
        xycoords=transform,
        textcoords="offset points",
        ha="left" if near_edge else "center",
        va="bottom",
        zorder=9,
        parse_math=True,
    )
    low_y, high_y = ax.get_ylim()
    ax.set_ylim(low_y - 0.14 * (high_y - low_y), high_y)


def _depth_axis(ax: Axes, planes: pd.DataFrame) -> None:
    """Add the depth in nm on top, from the depths of the planes themselves."""
    known = planes[planes["depth_nm"].notna() & planes["N"].notna()]
    if known["N"].nunique() < 2:
        return
    number = known["N"].to_numpy(dtype=float)
    step, start = np.polyfit(number, known["depth_nm"].to_numpy(dtype=float), 1)
    if step <= 0:
        return
    top = ax.secondary_xaxis(
        "top", functions=(lambda n: start + step * n, lambda d: (d - start) / step)
    )
    top.set_xlabel("depth (nm)")


def _number_axis(ax: Axes, planes: pd.DataFrame) -> None:
    """Put ticks at all planes when they are few, else at every second or fifth."""
    if not len(planes):
        return
    last = int(planes["N"].max())
    every = 1 if last <= 12 else 2 if last <= 24 else 5
    ax.set_xticks(sorted({1, *range(every if every > 2 else 1, last + 1, every)}))
    ax.set_xlim(0.3, last + 0.7)


def plot_line_profile(result: Any, *, ax: Axes | None = None) -> Axes:
    """Draw the intensity along the line from the film into the crystal, peaks labelled by N.

    Parameters
    ----------
    result : Result
        A finished run with an interface.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
        Intensity in signal units against distance in angstrom. Open circles are planes whose
        mean occupancy is below 0.5.
    """
    ax = st.new_axes(8.6, 2.7) if ax is None else ax
    profile = result.line_profile
    if profile is None or not len(profile):
        raise ValueError("result.line_profile is empty; a line profile needs an interface")
    color = st.species_colors(result).get(st.anion_species(result) or "O", st.GREEN)
    ax.plot(profile["s_A"], profile["intensity"], color=st.INK, lw=1.1)
    peaks = profile[profile["N"].notna()]
    occupancy = st.table(result, "planes").set_index("N")["occupancy"]
    low, high = float(profile["intensity"].min()), float(profile["intensity"].max())
    for row in peaks.itertuples():
        missing = occupancy.get(row.N, np.nan) < st.MISSING_BELOW
        ax.plot(
            row.s_A, row.intensity, "o", ms=6, mec=color, mew=1.4, mfc="none" if missing else color
        )
        ax.annotate(
            str(row.N),
            (row.s_A, row.intensity),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
        )
    for fill, label in (("none", f"occupancy < {st.MISSING_BELOW:g}"), (color, "occupied")):
        ax.plot([], [], "o", ms=6, mec=color, mew=1.4, mfc=fill, label=label)
    ax.set(
        xlabel="distance from the film into the crystal (Å)",
        ylabel="intensity (signal units)",
        ylim=(low - 0.06 * (high - low), high + 0.32 * (high - low)),
    )
    ax.margins(x=0.01)
    ax.legend(loc="upper right", ncols=2, title=None)
    return ax
