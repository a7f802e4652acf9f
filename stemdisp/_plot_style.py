"""What all panels share: colours, fonts, coordinates in nm, scale bars, plane labels.

One colour belongs to one species in every panel. The colours are those of Okabe and Ito, which
stay apart for people with colour-blindness.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stemdisp import tables

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import XAxis, YAxis

VERMILLION, BLUE, GREEN, PURPLE = "#D55E00", "#0072B2", "#009E73", "#CC79A7"
ORANGE, SKY, YELLOW = "#E69F00", "#56B4E9", "#F0E442"
INK, FAINT, PALE = "#222222", "#8C8C8C", "#E4E4E4"
FONT_PT = 8.5
# Occupancies below this are drawn as an open circle: half of the oxygen is gone.
MISSING_BELOW = 0.5
# A marker narrower than this hides the image without showing a column.
MIN_SPACING_PT = 4.0
# Images with more pixels along their shorter side are binned before they are drawn.
MAX_SHOWN_PX = 900


def rc_params() -> Any:
    """Return the matplotlib settings of the report, for ``matplotlib.rc_context``."""
    return {
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica", "sans-serif"],
        "font.size": FONT_PT,
        "axes.titlesize": FONT_PT + 0.5,
        "axes.labelsize": FONT_PT,
        "xtick.labelsize": FONT_PT - 0.5,
        "ytick.labelsize": FONT_PT - 0.5,
        "legend.fontsize": FONT_PT - 1,
        "axes.linewidth": 0.8,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "text.color": INK,
        "axes.unicode_minus": True,
        "legend.frameon": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "stemdisp",
        "pdf.fonttype": 42,
        "text.parse_math": False,
    }


def new_axes(width_in: float = 4.6, height_in: float = 3.3) -> Axes:
    """Make an Axes on a Figure of its own; pyplot and its global state are not touched."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(rc_params()):
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        FigureCanvasAgg(figure)
        return figure.add_subplot()


def table(result: Any, name: str) -> pd.DataFrame:
    """Return a table of a run with every documented column; those it lacks are empty."""
    return tables.ordered(getattr(result, name), name)


def drawn_planes(result: Any) -> pd.DataFrame:
    """Return the planes that depth panels show: to twice the depth where the bulk begins."""
    planes = table(result, "planes")
    return planes[planes["N"] <= max(2 * int(result.config.analysis.bulk_from), 20)]


def displaced_species(result: Any) -> str:
    """Return the species whose displacement is measured."""
    return str(result.config.crystal.displaced)


def anion_species(result: Any) -> str | None:
    """Return the species whose occupancy is measured, or None where none is."""
    columns = table(result, "columns")
    with_value = columns.loc[columns["occupancy"].notna(), "species"]
    if len(with_value):
        return str(with_value.iloc[0])
    return "O" if (columns["species"] == "O").any() else None


def species_colors(result: Any) -> dict[str, str]:
    """Map every species to its colour: the displaced one, the anion, then the others."""
    names = [str(name) for name in pd.unique(table(result, "columns")["species"])]
    displaced, anion = displaced_species(result), anion_species(result)
    fixed = {displaced: VERMILLION}
    if anion is not None and anion != displaced:
        fixed[anion] = GREEN
    spare = iter((SKY, ORANGE, PURPLE, YELLOW, BLUE))
    return {name: fixed.get(name) or next(spare, FAINT) for name in names}


def nm_per_px(result: Any) -> np.ndarray:
    """Return the pixel size (x, y) in nm."""
    return np.asarray(result.pixel_size_A, dtype=float) / 10.0


def columns_nm(result: Any, frame: pd.DataFrame | None = None) -> np.ndarray:
    """Return (n, 2) positions in nm, in the frame of the drawn image."""
    frame = table(result, "columns") if frame is None else frame
    return frame[["x_px", "y_px"]].to_numpy(dtype=float) * nm_per_px(result)


def extent_nm(result: Any) -> tuple[float, float, float, float]:
    """Return the image extent (left, right, bottom, top) in nm; pixel centres at integers."""
    height, width = result.image.shape
    sx, sy = nm_per_px(result)
    return -0.5 * sx, (width - 0.5) * sx, (height - 0.5) * sy, -0.5 * sy


def show_image(
    ax: Axes,
    result: Any,
    *,
    data: np.ndarray | None = None,
    window: tuple[float, float, float, float] | None = None,
    **style: Any,
) -> Any:
    """Draw an image in nm, without ticks, grey, stretched between percentiles 0.5 and 99.5.

    Only the part in `window` (x0, x1, y0, y1 in nm) is drawn, and large parts are binned to what
    a page can show.
    """
    data = result.image if data is None else data
    if "vmin" not in style and "norm" not in style:
        finite = data[np.isfinite(data)]
        low, high = np.percentile(finite, [0.5, 99.5]) if finite.size else (0.0, 1.0)
        style |= {"vmin": low, "vmax": high if high > low else low + 1.0}
    style.setdefault("cmap", "gray")
    part, extent = _shown_part(result, data, window)
    artist = ax.imshow(part, extent=extent, origin="upper", zorder=0, **style)
    x0, x1, y0, y1 = window or (*extent[:2], *reversed(extent[2:]))
    ax.set(xticks=[], yticks=[], aspect="equal", xlim=(x0, x1), ylim=(y1, y0))
    return artist


def _shown_part(
    result: Any, data: np.ndarray, window: tuple[float, float, float, float] | None
) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """Cut out a window, bin it, and return it with its extent."""
    sx, sy = nm_per_px(result)
    height, width = data.shape
    x0, x1, y0, y1 = window or (-np.inf, np.inf, -np.inf, np.inf)
    left, right = (int(np.clip(x, 0, width)) for x in (x0 / sx, x1 / sx + 2))
    top, bottom = (int(np.clip(y, 0, height)) for y in (y0 / sy, y1 / sy + 2))
    part = data[top:bottom, left:right]
    by = max(min(part.shape) // MAX_SHOWN_PX, 1)
    if by > 1:
        rows, columns = (n // by * by for n in part.shape)
        bottom, right = top + rows, left + columns
        blocks = part[:rows, :columns].reshape(rows // by, by, columns // by, by)
        part = blocks.mean(axis=(1, 3))
    edges = (left - 0.5) * sx, (right - 0.5) * sx, (bottom - 0.5) * sy, (top - 0.5) * sy
    return part, edges


def outlined(width: float = 2.0, color: str = "black") -> list[Any]:
    """Return path effects that keep light lines and text visible on any grey."""
    from matplotlib import patheffects

    return [patheffects.withStroke(linewidth=width, foreground=color, alpha=0.75)]


def nice_length(length: float, steps: tuple[float, ...] = (1.0, 2.0, 5.0)) -> float:
    """Return the largest of `steps` times a power of ten that is not above `length`."""
    if not np.isfinite(length) or length <= 0:
        raise ValueError(f"length = {length!r} must be a positive number; pass the wanted length")
    power = 10.0 ** np.floor(np.log10(length))
    return float(max(m * power for m in steps if m * power <= length * (1 + 1e-9)))


def scale_bar(ax: Axes) -> None:
    """Draw a scale bar of a round length in nm into the lower left corner."""
    from matplotlib.patches import Rectangle

    x0, x1 = sorted(ax.get_xlim())
    y0, y1 = sorted(ax.get_ylim())
    length = nice_length(0.25 * (x1 - x0))
    pad, thick = 0.035 * (x1 - x0), 0.012 * (y1 - y0)
    text = f"{length:g} nm"
    height = 0.085 * (y1 - y0)
    ax.add_patch(
        Rectangle(
            (x0 + 0.5 * pad, y1 - 0.5 * pad - height - thick),
            length + pad,
            height + thick,
            facecolor="black",
            alpha=0.6,
            linewidth=0,
            zorder=8,
        )
    )
    ax.add_patch(
        Rectangle((x0 + pad, y1 - pad - thick), length, thick, color="white", zorder=9, lw=0)
    )
    ax.text(
        x0 + pad + length / 2,
        y1 - pad - 1.6 * thick,
        text,
        color="white",
        ha="center",
        va="bottom",
        zorder=9,
        fontsize=FONT_PT,
    )


def planes_along_normal(
    result: Any, edge: tuple[int, float] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return (N, distance in nm along the inward normal) of the planes of displaced columns.

    With `edge` (0, x) or (1, y) in nm those under the terrace nearest to that edge.
    """
    columns = table(result, "columns")
    keep = (columns["species"] == displaced_species(result)) & columns["N"].notna()
    keep &= (columns["N"].fillna(0) >= 1) & np.isfinite(columns["x_px"])
    frame = columns[keep]
    if edge is not None and len(frame):
        terrace = result.interface.terrace(frame[["i", "j"]].to_numpy(dtype=float))
        away = np.abs(columns_nm(result, frame)[:, edge[0]] - edge[1])
        frame = frame[terrace == terrace[np.argmin(away)]]
    along = columns_nm(result, frame) @ -np.asarray(result.interface.normal, dtype=float)
    mean = pd.Series(along).groupby(frame["N"].to_numpy(dtype=int)).mean()
    return mean.index.to_numpy(dtype=int), mean.to_numpy(dtype=float)


def label_planes(ax: Axes, result: Any, *, zoomed: bool = False) -> None:
    """Put ticks and numbers N on the edge of an image, where each plane meets the edge."""
    normal = np.asarray(result.interface.normal, dtype=float)
    vertical = abs(normal[1]) >= abs(normal[0])
    edge = max(ax.get_xlim()) if vertical else max(ax.get_ylim())
    numbers, along = planes_along_normal(result, (0 if vertical else 1, edge))
    last = numbers.max(initial=1)
    every = 1 if zoomed else 5 * int(2 ** max(0, np.ceil(np.log2(last / 50))))
    free, fixed = (1, 0) if vertical else (0, 1)
    at = (-along - normal[fixed] * edge) / normal[free]
    low, high = sorted(ax.get_ylim() if vertical else ax.get_xlim())
    step = 0.012 * (high - low)
    axis: XAxis | YAxis = ax.yaxis if vertical else ax.xaxis
    inside = (at > low + step) & (at < high - step)
    wanted = inside & ((numbers == 1) | (numbers % every == 0))
    minor = inside if last <= 50 else wanted
    if vertical:
        ax.yaxis.tick_right()
        ax.yaxis.set_label_position("right")
    axis.set_ticks(at[minor], minor=True)
    axis.set_ticks(at[wanted], labels=[str(n) for n in numbers[wanted]])
    axis.set_tick_params(which="major", length=4, labelsize=FONT_PT - 1)
    axis.set_tick_params(which="minor", length=2)
    axis.set_label_text("plane number N", fontsize=FONT_PT)


def interface_line(ax: Axes, result: Any, *, color: str = "white", **style: Any) -> None:
    """Draw the dashed line between film and crystal without changing the limits."""
    limits = ax.get_xlim(), ax.get_ylim()
    look: dict[str, Any] = {"lw": 1.4, "ls": (0, (5, 3)), "zorder": 5}
    look |= {"path_effects": outlined(2.2)} | style
    line = result.interface.outline(result.lattice, result.image.shape) * nm_per_px(result)
    ax.plot(line[:, 0], line[:, 1], color=color, label="interface", **look)
    ax.set(xlim=limits[0], ylim=limits[1])


def used(result: Any, species: str) -> pd.DataFrame:
    """Return the usable columns of one species that have a finite position."""
    frame = table(result, "columns")
    keep = (frame["species"] == species) & tables.usable(frame) & frame["x_px"].notna()
    return frame[keep]


def spacing_pt(ax: Axes, result: Any) -> float:
    """Return the distance between neighbouring columns on paper, in points."""
    size = np.abs(np.diff([ax.get_xlim(), ax.get_ylim()], axis=1)).ravel()
    cell = np.abs(np.linalg.det(np.stack([lattice_nm(result)[0], lattice_nm(result)[1]])))
    per_cell = max(len(result.projection.sites), 1)
    figure: Any = ax.figure
    box = ax.get_position().size * figure.get_size_inches() * 72
    return float(np.sqrt(cell / per_cell) * min(box / size))


def displacement_unit(result: Any) -> tuple[float, str]:
    """Return what turns angstrom into the unit of the page's words, and that unit."""
    return (100.0, "pm") if result.interface is None else (1.0, "Å")


def lattice_nm(result: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the lattice vectors u and v in nm, in image directions (x right, y down)."""
    scale = nm_per_px(result)
    return np.asarray(result.lattice.u_px) * scale, np.asarray(result.lattice.v_px) * scale


def displacement_vectors(result: Any, frame: pd.DataFrame) -> np.ndarray:
    """Return (n, 2) displacements in nm in image directions, from delta and delta_perp."""
    units = np.stack([w / np.linalg.norm(w) for w in lattice_nm(result)])
    parts = frame[["delta_A", "delta_perp_A"]].fillna({"delta_perp_A": 0.0}).to_numpy(dtype=float)
    # Both are projections, d.u and d.v, also where u and v are not at right angles.
    return parts / 10.0 @ np.linalg.inv(units).T


def spread_sideways(frame: pd.DataFrame) -> np.ndarray:
    """Return plane numbers with a spread of half a plane, so that points do not hide each other.

    Positions along the plane, not random numbers: the same run draws the same picture.
    """
    steps = (frame.groupby("N").cumcount().to_numpy() * 0.618034) % 1.0
    return frame["N"].to_numpy(dtype=float) + 0.5 * (steps - 0.5)


def arrow_scale(result: Any, frame: pd.DataFrame, reach: float) -> tuple[float, float]:
    """Return the displacement of an arrow key in nm and a round magnification of at least 1.

    The longest displacements (the fifth, against outliers) then are drawn about `reach` times
    the shorter lattice vector.
    """
    lengths = np.sort(np.hypot(*displacement_vectors(result, frame).T))
    longest = max(float(lengths[-min(5, len(lengths))]), 1e-4)
    cell = min(np.linalg.norm(vector) for vector in lattice_nm(result))
    magnification = nice_length(float(reach * cell / longest), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0))
    return nice_length(longest), max(magnification, 1.0)


def direction_name(uvw: Any) -> str:
    """Write a direction such as (0.5, 0.5, 0) as ``[110]``; non-integers are kept as numbers."""
    values = np.asarray(uvw, dtype=float)
    largest = np.abs(values).max(initial=0.0)
    if largest == 0:
        return "[000]"
    for factor in range(1, 13):
        scaled = values / largest * factor
        if np.allclose(scaled, np.round(scaled), atol=1e-3):
            return "[" + "".join(f"{int(n)}" for n in np.round(scaled)) + "]"
    return "[" + " ".join(f"{n:.2f}" for n in values) + "]"


def arrow_key(ax: Axes, length_nm: float, magnification: float, style: dict[str, Any]) -> None:
    """Draw a key: an arrow of known displacement, with the magnification in words."""
    from matplotlib.patches import Rectangle

    x0, x1 = sorted(ax.get_xlim())
    y0, y1 = sorted(ax.get_ylim())
    wide, high = x1 - x0, y1 - y0
    ax.add_patch(
        Rectangle(
            (x1 - 0.40 * wide, y1 - 0.105 * high),
            0.385 * wide,
            0.088 * high,
            facecolor="black",
            alpha=0.6,
            lw=0,
            zorder=8,
        )
    )
    dark = {k: v for k, v in style.items() if k not in ("zorder", "color", "path_effects")}
    ax.quiver(
        x1 - 0.385 * wide,
        y1 - 0.061 * high,
        length_nm * magnification,
        0.0,
        zorder=9,
        color="white",
        **dark,
    )
    ax.text(
        x1 - 0.03 * wide,
        y1 - 0.061 * high,
        f"{length_nm * 1000:g} pm (\N{MULTIPLICATION SIGN}{magnification:g})",
        ha="right",
        va="center",
        color="white",
        zorder=9,
        fontsize=FONT_PT,
    )


def image_axes(result: Any, *, width_in: float = 4.6) -> Axes:
    """Make an Axes with the shape of the image."""
    height, width = result.image.shape
    sx, sy = result.pixel_size_A
    return new_axes(width_in, float(np.clip(width_in * height * sy / (width * sx), 2.0, 7.5)))


def anchor(result: Any, centre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the point of the interface where the line profile crosses it, and the normal."""
    scale = nm_per_px(result)
    normal = np.asarray(result.interface.normal, dtype=float)
    point = np.asarray(result.interface.position_px, dtype=float) * scale
    if result.profile_line_px is None:
        return centre - normal * ((centre - point) @ normal), normal
    start, end = np.asarray(result.profile_line_px, dtype=float) * scale
    slope = (end - start) @ normal
    t = (point - start) @ normal / slope if slope else 0.5
    return start + np.clip(t, 0, 1) * (end - start), normal


def section(result: Any, *names: str) -> Any:
    """Walk down the summary; None where any level is absent or null."""
    value: Any = result.summary
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def number(value: Any) -> float:
    """Return a float; not-a-number for null."""
    return float("nan") if value is None or value is pd.NA else float(value)
