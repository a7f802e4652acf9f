"""Map of the direction of every displacement, with a colour wheel as its key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stemdisp import _plot_style as st
from stemdisp._plot_colors import directed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Percentile of the lengths that get the full colour, so that outliers do not pale the rest.
_FULL_PERCENT = 98.0


def plot_displacement_angle(result: Any, *, ax: Axes | None = None) -> Axes:
    """Draw the displaced columns as lattice cells: hue is the direction, saturation the length.

    Parameters
    ----------
    result : Result
        A finished run.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib Axes
        In nm. The wheel beside the map lies as the image does: a colour stands for a
        displacement that points from the centre of the wheel to it. Its rim is the length,
        in pm, from which on the colour is full.
    """
    from matplotlib.collections import PolyCollection

    ax = st.image_axes(result, width_in=5.0) if ax is None else ax
    st.show_image(ax, result, alpha=0.35)
    frame = st.used(result, st.displaced_species(result))
    frame = frame[frame["delta_A"].notna()]
    vectors = st.displacement_vectors(result, frame)
    limit = full_colour_nm(vectors)
    corners = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
    cells = PolyCollection(
        st.columns_nm(result, frame)[:, None, :] + corners @ np.stack(st.lattice_nm(result)),
        facecolors=directed(vectors / limit),
        linewidths=0,
        zorder=2,
        rasterized=True,
    )
    ax.add_collection(cells, autolim=False)
    if result.interface is not None:
        st.interface_line(ax, result, color=st.INK, path_effects=None)
        st.label_planes(ax, result)
    st.scale_bar(ax)
    _wheel(ax, result, limit)
    return ax


def full_colour_nm(vectors: np.ndarray) -> float:
    """Return the length in nm from which on the colour is full: round, and at least 1 pm."""
    lengths = np.hypot(*vectors.T)
    wanted = float(np.percentile(lengths, _FULL_PERCENT)) if lengths.size else 0.0
    return st.nice_length(max(wanted, 0.001), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0))


def _wheel(ax: Axes, result: Any, limit: float) -> None:
    """Draw the key beside the map, with the lattice vectors u and v on its rim."""
    beside = 1.14 if result.interface is not None else 1.03
    place = ax.inset_axes((beside, 0.5, 0.245, 0.40))
    size = np.linspace(-1.0, 1.0, 201)
    x, y = np.meshgrid(size, size)
    rgb = directed(np.stack([x, y], axis=-1))
    inside = np.clip((1.0 - np.hypot(x, y)) * 100.0, 0.0, 1.0)
    place.imshow(np.dstack([rgb, inside]), extent=(-1, 1, 1, -1), interpolation="bilinear")
    place.set(xlim=(-1.9, 1.9), ylim=(2.4, -1.9), aspect="equal")
    place.set_axis_off()
    names = (result.projection.u_uvw, result.projection.v_uvw)
    for vector, uvw in zip(st.lattice_nm(result), names, strict=True):
        unit = vector / np.linalg.norm(vector)
        place.annotate(
            "",
            xy=1.12 * unit,
            xytext=(0.0, 0.0),
            arrowprops={"arrowstyle": "-|>", "color": st.INK, "lw": 0.9, "shrinkA": 0},
        )
        place.text(1.5 * unit[0], 1.5 * unit[1], st.direction_name(uvw), ha="center", va="center")
    factor, of = st.displacement_unit(result)
    place.text(0.0, 2.1, f"rim: {limit * 10 * factor:g} {of}\nor more", ha="center", va="center")
