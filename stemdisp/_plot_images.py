"""Panels of the image itself: the whole field with its columns, and enlarged parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stemdisp import _plot_style as st

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

ZOOM_NM = (2.9, 2.2)
# The longest arrows reach this far, in units of the shorter lattice vector.
ARROW_REACH = 0.9


def _legend(ax: Axes, *, ncols: int = 4) -> None:
    legend = ax.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.015),
        ncols=ncols,
        borderaxespad=0.2,
        handletextpad=0.3,
        columnspacing=1.2,
        handlelength=1.8,
    )
    handles: list[Any] = legend.legend_handles
    for handle in handles:
        handle.set_alpha(1.0)
        if hasattr(handle, "set_sizes"):
            handle.set_sizes(np.maximum(handle.get_sizes(), 26.0))


def _dark_line(ax: Axes) -> None:
    """Give white lines and markers a grey entry in the legend, where the page is white."""
    legend = ax.get_legend()
    handles: list[Any] = [] if legend is None else legend.legend_handles
    for handle in handles:
        handle.set_path_effects(None)
        for name in ("color", "edgecolor"):
            getter = getattr(handle, f"get_{name}", None)
            if getter is not None and np.array_equal(_rgb(getter()), [1.0, 1.0, 1.0]):
                getattr(handle, f"set_{name}")(st.FAINT)


def _rgb(color: Any) -> np.ndarray:
    from matplotlib.colors import to_rgba_array

    colors = to_rgba_array(color)
    return colors[0, :3] if len(colors) else np.zeros(3)


def zoom_window(result: Any, where: str) -> tuple[float, float, float, float]:
    """Return (x0, x1, y0, y1) in nm of the enlarged box, inside the image.

    Parameters
    ----------
    result : Result
        A finished run.
    where : {"near", "far"}
        Next to the interface, or in the crystal at planes taken as bulk. Without an interface
        both are the middle of the image.

    Returns
    -------
    tuple of float
        Left, right, top and bottom in nm.
    """
    if where not in ("near", "far"):
        raise ValueError(f'where = {where!r} is not "near" or "far"; use one of these')
    left, right, bottom, top = st.extent_nm(result)
    size = np.minimum(ZOOM_NM, [right - left, bottom - top])
    centre = np.array([(left + right) / 2, (top + bottom) / 2])
    if result.interface is not None:
        point, normal = st.anchor(result, centre)
        centre = point - normal * (0.37 if where == "near" else 0.0) * abs(size @ np.abs(normal))
        if where == "far":
            numbers, along = st.planes_along_normal(result)
            bulk = along[numbers >= result.config.analysis.bulk_from]
            depth = bulk.mean() if bulk.size else along.max(initial=0.0)
            centre = point - normal * (depth + point @ normal)
    low = np.array([left, top])
    high = np.array([right, bottom]) - size
    corner = np.clip(centre - size / 2, low, high)
    return (
        float(corner[0]),
        float(corner[0] + size[0]),
        float(corner[1]),
        float(corner[1] + size[1]),
    )


def plot_image(result: Any, *, ax: Axes | None = None) -> Axes:
    """Draw the image with its columns, the interface, N on the edge and the enlarged boxes.

    Parameters
    ----------
    result : Result
        A finished run.
    ax : matplotlib Axes, optional
        Where to draw; a new figure without it.

    Returns
    -------
    matplotlib Axes
        In nm, x to the right and y down.
    """
    ax = st.image_axes(result) if ax is None else ax
    st.show_image(ax, result)
    spacing = st.spacing_pt(ax, result)
    colors = st.species_colors(result)
    dense = spacing < st.MIN_SPACING_PT
    size = float(np.clip(0.30 * spacing, 0.7, 4.0))
    for species, color in colors.items():
        frame = st.used(result, species)
        if dense:
            frame = frame[_boxed(result, frame)]
        xy = st.columns_nm(result, frame)
        ax.scatter(
            xy[:, 0],
            xy[:, 1],
            s=size**2,
            color=color,
            linewidths=0,
            label=species,
            rasterized=len(xy) > 400,
            alpha=0.95,
            zorder=3,
        )
    if result.interface is not None:
        st.interface_line(ax, result)
        st.label_planes(ax, result)
    _boxes(ax, result)
    st.scale_bar(ax)
    _legend(ax, ncols=len(colors) + 1)
    _dark_line(ax)
    return ax


def _boxed(result: Any, frame: pd.DataFrame) -> np.ndarray:
    """Return which columns lie in one of the enlarged boxes."""
    inside = [_inside(result, frame, zoom_window(result, where)) for where in ("near", "far")]
    return np.logical_or(*inside)


def _boxes(ax: Axes, result: Any) -> None:
    from matplotlib.patches import Rectangle

    names = ("near", "far") if result.interface is not None else ("far",)
    for number, where in enumerate(names, start=1):
        x0, x1, y0, y1 = zoom_window(result, where)
        ax.add_patch(
            Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=st.YELLOW, lw=1.6, zorder=6)
        )
        if len(names) > 1:
            ax.text(
                x0 + 0.1,
                y0 + 0.1,
                str(number),
                color=st.YELLOW,
                va="top",
                weight="bold",
                path_effects=st.outlined(),
                zorder=7,
            )


def plot_zoom(result: Any, *, where: str = "near", ax: Axes | None = None) -> Axes:
    """Draw an enlarged part of the image with fitted columns, missing oxygen and delta arrows.

    Parameters
    ----------
    result : Result
        A finished run.
    where : {"near", "far"}
        Next to the interface or in the bulk.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
        In nm. Rings are fitted columns; dashed circles are anion sites with an occupancy below
        0.5; arrows are displacements, magnified as the key says.
    """
    x0, x1, y0, y1 = zoom_window(result, where)
    ax = st.new_axes(4.6, 4.6 * (y1 - y0) / (x1 - x0)) if ax is None else ax
    st.show_image(ax, result, window=(x0, x1, y0, y1))
    for species, color in st.species_colors(result).items():
        frame = st.used(result, species)
        frame = frame[_inside(result, frame, (x0, x1, y0, y1))]
        missing = (frame["occupancy"] < st.MISSING_BELOW).to_numpy()
        _rings(ax, st.columns_nm(result, frame[~missing]), color, species)
        if missing.any():
            x, y = st.columns_nm(result, frame[missing]).T
            ax.scatter(
                x,
                y,
                s=80,
                facecolors="none",
                edgecolors=color,
                linewidths=2.0,
                linestyles=(0, (2, 1.2)),
                zorder=4,
                label=f"{species}, occupancy < {st.MISSING_BELOW:g}",
                path_effects=st.outlined(2.4),
            )
    _zoom_arrows(ax, result)
    if result.interface is not None:
        if _crosses(result, (x0, x1, y0, y1)):
            st.interface_line(ax, result)
        st.label_planes(ax, result, zoomed=True)
        _profile_path(ax, result, (x0, x1, y0, y1))
        ax.set(xlim=(x0, x1), ylim=(y1, y0))
    st.scale_bar(ax)
    _legend(ax, ncols=3)
    _dark_line(ax)
    return ax


def _inside(result: Any, frame: pd.DataFrame, window: tuple[float, ...]) -> np.ndarray:
    x, y = st.columns_nm(result, frame).T
    x0, x1, y0, y1 = window
    return (x > x0) & (x < x1) & (y > y0) & (y < y1)


def _crosses(result: Any, window: tuple[float, ...]) -> bool:
    """Return whether the interface runs through a window."""
    x0, x1, y0, y1 = window
    line = result.interface.outline(result.lattice, result.image.shape) * st.nm_per_px(result)
    x, y = line.T
    return bool(np.any((x > x0) & (x < x1) & (y > y0) & (y < y1)))


def _rings(ax: Axes, xy: np.ndarray, color: str, label: str) -> None:
    ax.scatter(
        xy[:, 0],
        xy[:, 1],
        s=26,
        facecolors="none",
        edgecolors=color,
        linewidths=1.5,
        label=label,
        zorder=4,
        path_effects=st.outlined(2.4),
    )


def _profile_path(ax: Axes, result: Any, window: tuple[float, ...]) -> None:
    if result.profile_line_px is None:
        return
    line = np.asarray(result.profile_line_px, dtype=float) * st.nm_per_px(result)
    x, y = (line[0] + np.linspace(0, 1, 500)[:, None] * (line[1] - line[0])).T
    x0, x1, y0, y1 = window
    if not np.any((x > x0) & (x < x1) & (y > y0) & (y < y1)):
        return
    ax.plot(*line.T, color=st.PURPLE, lw=1.3, ls=(0, (4, 2)), zorder=3, label="line profile")


def _zoom_arrows(ax: Axes, result: Any) -> None:
    """Draw displacements with one magnification for all zooms of a run."""
    everywhere = st.used(result, st.displaced_species(result))
    everywhere = everywhere[everywhere["delta_A"].notna()]
    if not len(everywhere):
        return
    length, magnification = st.arrow_scale(result, everywhere, ARROW_REACH)
    frame = everywhere[_inside(result, everywhere, (*ax.get_xlim(), *reversed(ax.get_ylim())))]
    style: dict[str, Any] = {
        "angles": "xy",
        "scale_units": "xy",
        "scale": 1.0,
        "color": "white",
        "zorder": 6,
        "width": 0.007,
        "headwidth": 3.6,
        "headlength": 3.8,
        "headaxislength": 3.4,
        "path_effects": st.outlined(2.0),
    }
    if len(frame):
        vector = st.displacement_vectors(result, frame) * magnification
        ax.quiver(*st.columns_nm(result, frame).T, *vector.T, **style)
    st.arrow_key(ax, length, magnification, style)
