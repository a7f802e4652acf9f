"""Maps over the field: displacement and residual; and a drawing of how planes are counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stemdisp import _plot_style as st
from stemdisp._plot_colors import diverging_map

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

# More arrows than this hide each other; then blocks of columns share an arrow, about so many.
MAX_ARROWS, BLOCKS = 900, 450
# Half widths of the counting drawing: of the columns shown and of the lines through them.
REACH_NM, EDGE_NM = 0.72, 0.80


def plot_displacement_map(result: Any, *, ax: Axes | None = None) -> Axes:
    """Draw delta of every displaced column as a coloured lattice cell, with arrows when few.

    Parameters
    ----------
    result : Result
        A finished run.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
        In nm; the colour bar is symmetric about zero, in Å, or in pm without an interface.
    """
    from matplotlib.collections import PolyCollection

    ax = st.image_axes(result, width_in=5.0) if ax is None else ax
    st.show_image(ax, result, alpha=0.35)
    frame = st.used(result, st.displaced_species(result))
    frame = frame[frame["delta_A"].notna()]
    u, v = st.lattice_nm(result)
    centres = st.columns_nm(result, frame)
    corners = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)]) @ np.stack([u, v])
    factor, unit = st.displacement_unit(result)
    delta = frame["delta_A"].to_numpy() * factor
    least = 0.01 * factor
    limit = max(float(np.percentile(np.abs(delta), 99)), least) if delta.size else least
    cells = PolyCollection(
        centres[:, None, :] + corners,
        array=delta,
        cmap=diverging_map(),
        clim=(-limit, limit),
        linewidths=0,
        zorder=2,
        rasterized=True,
    )
    ax.add_collection(cells, autolim=False)
    _map_arrows(ax, result, frame)
    if result.interface is not None:
        st.interface_line(ax, result, color=st.INK, path_effects=None)
        st.label_planes(ax, result)
    st.scale_bar(ax)
    name = st.direction_name(result.projection.u_uvw)
    _color_bar(ax, cells, f"δ along {name} ({unit})", beside=result.interface is not None)
    return ax


def _map_arrows(ax: Axes, result: Any, frame: pd.DataFrame) -> None:
    if not len(frame):
        return
    frame, side = block_means(frame)
    vector = st.displacement_vectors(result, frame)
    length, magnification = st.arrow_scale(result, frame, 1.1 * side)
    style: dict[str, Any] = {
        "angles": "xy",
        "scale_units": "xy",
        "scale": 1.0,
        "color": st.INK,
        "zorder": 4,
        "width": 0.0035,
        "headwidth": 3.4,
        "headlength": 3.6,
        "headaxislength": 3.2,
        "path_effects": st.outlined(1.2, "white"),
    }
    tail = st.columns_nm(result, frame) - 0.5 * vector * magnification
    ax.quiver(*tail.T, *(vector * magnification).T, **style)
    st.arrow_key(ax, length, magnification, style)


def block_means(frame: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Average over blocks of lattice cells where columns are many; return their side in cells."""
    if len(frame) <= MAX_ARROWS:
        return frame, 1
    side = int(np.ceil(np.sqrt(len(frame) / BLOCKS)))
    names = ["x_px", "y_px", "delta_A", "delta_perp_A"]
    groups = frame.groupby([np.floor(frame["i"] / side), np.floor(frame["j"] / side)])[names]
    # Blocks cut by the border would show single columns.
    full = (groups.size() > 0.5 * side**2).to_numpy()
    return groups.mean()[full].reset_index(drop=True), side


def _color_bar(ax: Axes, artist: Any, label: str, *, beside: bool) -> None:
    """Draw a colour bar as high as the image, clear of the plane numbers on its right edge."""
    place = ax.inset_axes((1.16 if beside else 1.03, 0.0, 0.045, 1.0))
    ax.figure.colorbar(artist, cax=place).set_label(label)


def plot_residual(result: Any, *, ax: Axes | None = None) -> Axes:
    """Draw image minus model, divided by its robust standard deviation.

    Parameters
    ----------
    result : Result
        A finished run.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
        In nm. Structure that follows the columns means that the model does not fit.
    """
    ax = st.image_axes(result, width_in=5.0) if ax is None else ax
    residual = np.asarray(result.residual, dtype=float)
    finite = residual[np.isfinite(residual)]
    middle = np.median(finite) if finite.size else 0.0
    spread = 1.4826 * np.median(np.abs(finite - middle)) if finite.size else 1.0
    artist = st.show_image(
        ax,
        result,
        data=(residual - middle) / (spread or 1.0),
        cmap=diverging_map(),
        vmin=-5,
        vmax=5,
    )
    if result.interface is not None:
        st.interface_line(ax, result, color=st.INK, path_effects=None)
        st.label_planes(ax, result)
    st.scale_bar(ax)
    label = "(image \N{MINUS SIGN} model) / its standard deviation"
    _color_bar(ax, artist, label, beside=result.interface is not None)
    return ax


def plot_counting(result: Any, *, ax: Axes | None = None) -> Axes:
    """Draw the ideal lattice next to the interface and how planes are numbered on it.

    A column in layer l belongs to plane N = 1 - floor(l): the layer of displaced columns under
    the first plane of cage cations shares N = 1 with that plane.

    Parameters
    ----------
    result : Result
        A finished run with an interface.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
        In nm, in the orientation of the image.
    """
    if result.interface is None:
        raise ValueError("result has no interface, so no planes are numbered; skip plot_counting")
    ax = st.new_axes(4.6, 3.3) if ax is None else ax
    normal = np.asarray(result.interface.normal, dtype=float)
    point, _ = st.anchor(result, st.columns_nm(result).mean(axis=0))
    tangent = np.array([-normal[1], normal[0]])
    frame = st.table(result, "columns")[st.table(result, "columns")["layer"].between(-3.2, 1.0)]
    frame = _one_terrace(result, frame, point)
    ideal = np.asarray(result.lattice.position(frame[["i", "j"]].to_numpy()))
    ideal = ideal * st.nm_per_px(result)
    keep = np.abs((ideal - point) @ tangent) < REACH_NM
    frame, ideal = frame[keep], ideal[keep]
    for species, color in st.species_colors(result).items():
        chosen = (frame["species"] == species).to_numpy()
        x, y = ideal[chosen].T
        ax.scatter(x, y, s=110, color=color, ec=st.INK, lw=0.6, label=species, zorder=4)
    top = _numbered_bands(ax, frame, ideal, point, tangent)
    ax.set_aspect("equal")
    ax.invert_yaxis()
    _film_note(ax, point + normal * (top + 0.13), tangent)
    _compass(ax, result, point, tangent)
    ax.set_axis_off()
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=4)
    return ax


def _one_terrace(result: Any, frame: pd.DataFrame, point: np.ndarray) -> pd.DataFrame:
    """Columns under the terrace nearest to a point (nm)."""
    if not len(frame):
        return frame
    terrace = result.interface.terrace(frame[["i", "j"]].to_numpy(dtype=float))
    away = np.hypot(*(st.columns_nm(result, frame) - point).T)
    return frame[terrace == terrace[np.nanargmin(away)]]


def _rightwards(tangent: np.ndarray) -> np.ndarray:
    return tangent if tangent[0] > 0 or (tangent[0] == 0 and tangent[1] > 0) else -tangent


def _numbered_bands(
    ax: Axes, frame: pd.DataFrame, ideal: np.ndarray, point: np.ndarray, tangent: np.ndarray
) -> float:
    """Draw a line per layer and a band per plane number; return the height of the top layer."""
    layer = np.round(frame["layer"].to_numpy(dtype=float), 3)
    normal = np.array([tangent[1], -tangent[0]])
    height = (ideal - point) @ normal
    sign = _rightwards(tangent)
    slope, start = np.polyfit(layer, height, 1) if np.ptp(layer) else (0.23, height.mean())
    for value in np.unique(layer):
        base = point + normal * (start + slope * value)
        ends = np.stack([base - EDGE_NM * sign, base + EDGE_NM * sign])
        ax.plot(*ends.T, color=st.FAINT, lw=0.8, ls="-" if value % 1 else (0, (4, 3)), zorder=1)
        text = f"l = {value:g}".replace("-", "\N{MINUS SIGN}")
        x, y = ends[0] - 0.04 * sign
        ax.text(x, y, text, va="center", ha="right", color=st.INK, zorder=3)
    for number in np.unique(1 - np.floor(layer)).astype(int):
        middle = point + normal * (start + slope * (1.25 - number))
        half = normal * slope * 0.5
        corners = [middle + half - EDGE_NM * sign, middle + half + EDGE_NM * sign]
        corners += [middle - half + EDGE_NM * sign, middle - half - EDGE_NM * sign]
        ax.fill(*np.array(corners).T, color=st.PALE if number % 2 else "white", lw=0, zorder=0)
        x, y = middle + (EDGE_NM + 0.04) * sign
        ax.text(
            x,
            y,
            f"N = {number}",
            va="center",
            ha="left",
            weight="bold",
            zorder=3,
        )
    return float(height.max(initial=0.0))


def _film_note(ax: Axes, base: np.ndarray, tangent: np.ndarray) -> None:
    ends = np.stack([base - EDGE_NM * tangent, base + EDGE_NM * tangent])
    ax.plot(*ends.T, color=st.INK, lw=1.6, ls=(0, (5, 3)))
    normal = np.array([tangent[1], -tangent[0]])
    x, y = base + 0.09 * normal
    ax.text(x, y, "film", ha="center", va="center", style="italic")


def _compass(ax: Axes, result: Any, point: np.ndarray, tangent: np.ndarray) -> None:
    """Draw the lattice vectors u and v, at the scale of the drawing, to the right of it."""
    normal = np.array([tangent[1], -tangent[0]])
    u, v = st.lattice_nm(result)
    start = point + (EDGE_NM + 0.86) * _rightwards(tangent) - 0.55 * normal
    names = (result.projection.u_uvw, result.projection.v_uvw)
    for vector, uvw, what in zip((u, v), names, ("\nδ > 0", ""), strict=True):
        tip = start + vector
        ax.annotate(
            "",
            xy=(tip[0], tip[1]),
            xytext=(start[0], start[1]),
            zorder=5,
            arrowprops={"arrowstyle": "-|>", "color": st.INK, "lw": 1.6, "shrinkA": 0},
        )
        x, y = tip + 0.03 * vector / np.linalg.norm(vector)
        ax.text(
            x,
            y,
            f"{st.direction_name(uvw)}{what}",
            ha="center",
            va="bottom" if vector[1] <= 0 else "top",
        )
    ax.plot(*start, "o", ms=3, color=st.INK)
    ax.update_datalim(np.stack([start, start + 1.7 * u, start + 1.7 * v]))
    ax.autoscale_view()
