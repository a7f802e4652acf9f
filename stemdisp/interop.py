"""To and from other programs: HyperSpy markers, Atomap lattices.

Atomap keeps positions, widths and amplitudes, but no errors, no quality and no lattice indices:
keep the table of columns beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stemdisp import _plot_style as st
from stemdisp.tables import check_columns

if TYPE_CHECKING:
    from hyperspy.signals import Signal2D

    from stemdisp.result import Result

_NEEDED = ("species", "x_px", "y_px")
# Two pixel sizes that differ by less than this are one.
_SAME_PIXEL = 1e-6
_TO_ANGSTROM = {
    "A": 1.0,
    "Å": 1.0,
    "\N{ANGSTROM SIGN}": 1.0,
    "angstrom": 1.0,
    "nm": 10.0,
    "pm": 0.01,
}
# A Gaussian of width sigma and amplitude 1 holds 2 pi sigma^2.
_AREA = 2.0 * np.pi
_SIGMAS = ("sigma_x", "sigma_y")  # Atomap's names
_ELLIPSE = ("sigma_x_A", "sigma_y_A", "rotation_rad")


def to_markers(
    result_or_columns: Result | pd.DataFrame, signal: Signal2D | None = None
) -> list[Any]:
    """Make HyperSpy markers: points per species, arrows for displacements, the interface.

    Parameters
    ----------
    result_or_columns : Result or DataFrame
        A finished run, or a table with `species`, `x_px` and `y_px`. Only a run gives arrows and
        the interface.
    signal : Signal2D, optional
        The image on which the markers go: its axes (scale and offset) place them. Without it
        the markers are in angstrom for a run and in pixels for a table.

    Returns
    -------
    list of hyperspy Markers
        For ``signal.add_marker``. Arrows are at the scale of the image.

    Raises
    ------
    ValueError
        If columns are missing or `signal` is not two-dimensional.
    """
    import hyperspy.api as hs

    table = result_or_columns if isinstance(result_or_columns, pd.DataFrame) else None
    result: Any = result_or_columns
    columns = result.columns if table is None else table
    check_columns(columns, _NEEDED)
    if table is not None:
        scale, offset = _axes(signal, np.ones(2))
        colors = _table_colors(columns)
    else:
        scale, offset = _axes(signal, np.asarray(result.pixel_size_A, dtype=float))
        colors = st.species_colors(result)
    markers = []
    for species, color in colors.items():
        frame = columns[(columns["species"] == species) & columns["x_px"].notna()]
        xy = frame[["x_px", "y_px"]].to_numpy(dtype=float) * scale + offset
        markers.append(
            hs.plot.markers.Points(offsets=xy, sizes=6, facecolors="none", edgecolors=color)
        )
    if table is None:
        markers += _run_markers(hs, result, scale, offset)
    return markers


def _run_markers(hs: Any, result: Any, scale: np.ndarray, offset: np.ndarray) -> list[Any]:
    """Make the arrows and the interface line of a run."""
    out = []
    frame = st.used(result, st.displaced_species(result))
    frame = frame[frame["delta_A"].notna()]
    per_px = np.asarray(result.pixel_size_A, dtype=float)
    if len(frame):
        # nm to pixels of the image to units of the signal; y stays down throughout.
        vector = st.displacement_vectors(result, frame) * 10.0 / per_px * scale
        xy = frame[["x_px", "y_px"]].to_numpy(dtype=float) * scale + offset
        out.append(
            hs.plot.markers.Arrows(offsets=xy, U=vector[:, 0], V=vector[:, 1], color=st.YELLOW)
        )
    if result.interface is not None:
        line = result.interface.outline(result.lattice, result.image.shape) * scale + offset
        segments = np.stack([line[:-1], line[1:]], axis=1)
        out.append(hs.plot.markers.Lines(segments=segments, color=st.YELLOW, linestyles="--"))
    return out


def _axes(signal: Any, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return scale and offset (x, y) of a signal's axes; `scale` and zero without a signal."""
    if signal is None:
        return scale, np.zeros(2)
    axes = signal.axes_manager.signal_axes
    if len(axes) != 2:
        raise ValueError(
            f"signal has {len(axes)} signal dimensions; pass a Signal2D (see transpose)"
        )
    return (
        np.array([axis.scale for axis in axes], dtype=float),
        np.array([axis.offset for axis in axes], dtype=float),
    )


def _table_colors(columns: pd.DataFrame) -> dict[str, str]:
    """Colour the species of a plain table in the order in which they come."""
    palette = (st.VERMILLION, st.SKY, st.GREEN, st.ORANGE, st.PURPLE, st.YELLOW, st.BLUE)
    names = [str(name) for name in pd.unique(columns["species"])]
    return {name: palette[i % len(palette)] for i, name in enumerate(names)}


def to_atomap(columns: pd.DataFrame, image: Signal2D) -> Any:
    """Make an Atomap lattice with one sublattice per species.

    Parameters
    ----------
    columns : DataFrame
        Needs `species`, `x_px`, `y_px`; `sigma_A` and `intensity` (amplitude times area in
        square angstrom) are carried over where present, and so are the widths and the rotation of
        ellipses, `sigma_x_A`, `sigma_y_A` and `rotation_rad`, where `from_atomap` found them.
    image : Signal2D
        The image, calibrated in angstrom, nm or pm, with square pixels.

    Returns
    -------
    atomap Atom_Lattice
        Sublattices are named by species. Columns without a position are left out. Atomap's own
        file drops amplitudes: keep the table.

    Raises
    ------
    ValueError
        If columns are missing, the image is not two-dimensional, its unit is unknown, or its
        pixels are not square (Atomap knows one pixel size only).
    """
    check_columns(columns, _NEEDED)
    pixel_A = _square_pixel(image)
    # Its modules import each other in a circle that only opens from here.
    from atomap.api import Atom_Lattice, Sublattice

    sublattices = []
    for species, color in _table_colors(columns).items():
        frame = columns[
            (columns["species"] == species) & columns[["x_px", "y_px"]].notna().all(axis=1)
        ]
        xy = frame[["x_px", "y_px"]].to_numpy(dtype=float)
        sublattice = Sublattice(xy, image, name=species, color=color)
        _fill(sublattice, frame, pixel_A)
        sublattices.append(sublattice)
    return Atom_Lattice(image=image, name="stemdisp", sublattice_list=sublattices)


def _square_pixel(image: Any) -> float:
    """Return the pixel size in angstrom, or refuse what Atomap would read wrongly."""
    manager = getattr(image, "axes_manager", None)
    if manager is None or manager.signal_dimension != 2 or manager.navigation_dimension != 0:
        raise ValueError(
            "image is not a single Signal2D; pass one calibrated image, for example stack.mean()"
        )
    x, y = manager.signal_axes
    unit = str(y.units)
    if unit not in _TO_ANGSTROM or unit != str(x.units):
        raise ValueError(
            f"image has the units {x.units} and {y.units}; set both axes to angstrom, nm or pm"
        )
    if abs(x.scale - y.scale) > _SAME_PIXEL * abs(x.scale):
        raise ValueError(
            f"image has pixels of {x.scale:g} x {y.scale:g} {unit}, and Atomap knows square "
            "pixels only; resample the image to one pixel size and scale x_px and y_px with it"
        )
    return float(x.scale) * _TO_ANGSTROM[unit]


def _fill(sublattice: Any, frame: pd.DataFrame, pixel_A: float) -> None:
    """Copy widths (in pixels there) and amplitudes, atom by atom in the order of the table."""
    nothing = np.full(len(frame), np.nan)
    values = {
        name: frame[name].to_numpy(dtype=float) if name in frame else nothing
        for name in ("sigma_A", "intensity", *_ELLIPSE)
    }
    width, height = values["sigma_A"], values["intensity"] / (_AREA * values["sigma_A"] ** 2)
    round_ = np.isnan(values["sigma_x_A"])
    x, y = (np.where(round_, width, values[name]) / pixel_A for name in _ELLIPSE[:2])
    turn = np.where(round_, 0.0, values["rotation_rad"])
    for k, atom in enumerate(sublattice.atom_list):
        # Atomap's own 1.0 would look like a measurement.
        atom.sigma_x, atom.sigma_y, atom.rotation = float(x[k]), float(y[k]), float(turn[k])
        atom.amplitude_gaussian = atom.amplitude_max_intensity = float(height[k])


def from_atomap(atom_lattice: Any) -> pd.DataFrame:
    """Make a table of columns from an Atomap lattice.

    Parameters
    ----------
    atom_lattice : atomap Atom_Lattice
        Its sublattices' names become the species (``sublattice_0`` and so on where unnamed).

    Returns
    -------
    DataFrame
        `species`, `x_px`, `y_px`, `sigma_A`, `intensity`, one row per atom. The width is the
        geometric mean of both axes; widths and intensities are NaN where Atomap holds its
        default (no fit was made, or its own file has dropped the amplitudes). `sigma_x_A`,
        `sigma_y_A` and `rotation_rad` are Atomap's own ellipse, so that `to_atomap` gives back what
        was there. `refine_columns` takes the table.

    Raises
    ------
    ValueError
        If there is no sublattice or the unit of one is unknown.
    """
    sublattices = list(atom_lattice.sublattice_list)
    if not sublattices:
        raise ValueError("atom_lattice holds no sublattice; add one before from_atomap")
    parts = [_sublattice_table(s, i) for i, s in enumerate(sublattices)]
    return pd.concat(parts, ignore_index=True)


def _sublattice_table(sublattice: Any, index: int) -> pd.DataFrame:
    unit = str(sublattice.units)
    if unit in _TO_ANGSTROM:
        pixel_A = float(sublattice.pixel_size) * _TO_ANGSTROM[unit]
    elif unit.lower().startswith("pix") or unit in ("None", "", "<undefined>"):
        pixel_A = np.nan
    else:
        raise ValueError(
            f"sublattice {sublattice.name!r} has the unit {unit!r}; set sublattice.units to "
            "angstrom, nm or pm"
        )
    atoms = sublattice.atom_list
    width = np.array([np.sqrt(abs(a.sigma_x * a.sigma_y)) for a in atoms], dtype=float)
    height = np.array([a.amplitude_gaussian for a in atoms], dtype=float)
    unset = (width == 1.0) & (height == 1.0)
    sigma_A = np.where(unset, np.nan, width * pixel_A)
    axes = [np.array([getattr(a, name) for a in atoms], dtype=float) for name in _SIGMAS]
    turn = np.array([a.rotation for a in atoms], dtype=float)
    return pd.DataFrame(
        {
            "species": str(sublattice.name) or f"sublattice_{index}",
            "x_px": np.asarray(sublattice.x_position, dtype=float),
            "y_px": np.asarray(sublattice.y_position, dtype=float),
            "sigma_A": sigma_A,
            # Atomap's file keeps widths and drops amplitudes, which then read 1.0.
            "intensity": np.where(height == 1.0, np.nan, height) * _AREA * sigma_A**2,
            "sigma_x_A": np.where(unset, np.nan, axes[0] * pixel_A),
            "sigma_y_A": np.where(unset, np.nan, axes[1] * pixel_A),
            "rotation_rad": np.where(unset, np.nan, turn),
        }
    )
