"""Lattice from fitted columns; pixel size from file, user or lattice, and whether they agree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from stemdisp._phases import distortion_terms
from stemdisp.crystal import Projection
from stemdisp.errors import DataError
from stemdisp.lattice import Lattice
from stemdisp.tables import check_columns, usable

AGREE = 0.01  # file and lattice may differ by this share
MIN_COLUMNS = 30
# (scatter of positions / plausible bending)^2, in px: 0.2 px against 1 px
BEND_PRIOR = 0.04
SQUARE = 0.01  # axes that differ by less count as equally scaled


def refit_lattice(lattice: Lattice, columns: pd.DataFrame, *, species: str) -> Lattice:
    """Fit the lattice to the positions of fitted columns.

    Phases of reflections, from which the lattice was found, are averages over several cells and
    suffer at the edge of the crystal; positions of columns do not.

    Parameters
    ----------
    lattice : Lattice
        As found; its indices and the form of its distortion are kept.
    columns : DataFrame
        After `refine_columns`: ``species, i, j, x_px, y_px, quality``.
    species : str
        Columns that mark the lattice (the cage's cation, which stays in place).

    Returns
    -------
    Lattice
        The same lattice if there are fewer than 30 usable columns.
    """
    check_columns(columns, ("species", "i", "j", "x_px", "y_px", "quality"))
    good = usable(columns) & (columns["species"] == species).to_numpy()
    good &= np.isfinite(columns["x_px"].to_numpy())
    if np.count_nonzero(good) < MIN_COLUMNS:
        return lattice
    ij = columns.loc[good, ["i", "j"]].to_numpy(dtype=float)
    xy = columns.loc[good, ["x_px", "y_px"]].to_numpy(dtype=float)
    straight = lattice.origin_px + ij @ lattice.cell_px
    bends = distortion_terms((straight - lattice.centre_px) / lattice.scale_px)
    design = np.column_stack([np.ones(len(ij)), ij, bends])
    ridge = np.diag([0.0] * 3 + [BEND_PRIOR] * bends.shape[1])
    weight = np.ones(len(ij))
    for _ in range(4):
        normal = design.T @ (weight[:, None] * design) + ridge
        solution = np.linalg.solve(normal, design.T @ (weight[:, None] * xy))
        off = np.hypot(*(xy - design @ solution).T)
        # columns that sit elsewhere (defects) lose their say
        weight = 1.0 / np.maximum(1.0, off / (2.5 * np.median(off) + 1e-9))
    return replace(
        lattice,
        origin_px=solution[0],
        u_px=solution[1],
        v_px=solution[2],
        distortion=solution[3:],
    )


def pixel_size_from_lattice(lattice: Lattice, projection: Projection) -> tuple[float, float]:
    """Pixel size that gives the lattice its known lengths and angle.

    Solves ``sx^2 a_x b_x + sy^2 a_y b_y = a . b`` for the pairs (u, u), (v, v), (u, v) by least
    squares. Axes are scaled alike unless the lattice says otherwise by more than 1 % and its
    geometry lets one tell.

    Parameters
    ----------
    lattice : Lattice
    projection : Projection

    Returns
    -------
    sx, sy : float
        Angstrom per px along x and y.
    """
    u, v = lattice.u_px, lattice.v_px
    known = projection.cell_matrix()
    area = abs(np.linalg.det(known)) / abs(np.linalg.det(lattice.cell_px))
    equal = float(np.sqrt(area))
    design = np.array([u * u, v * v, u * v])
    right = np.array([known[0] @ known[0], known[1] @ known[1], known[0] @ known[1]])
    scale = np.array([1 / right[0], 1 / right[1], 1 / np.sqrt(right[0] * right[1])])
    squares, _, rank, singular = np.linalg.lstsq(design * scale[:, None], right * scale, rcond=None)
    if rank < 2 or singular[1] < 0.2 * singular[0] or np.any(squares <= 0):
        return equal, equal
    sx, sy = np.sqrt(squares)
    if abs(sx / sy - 1) < SQUARE or abs(sx / sy - 1) > 0.12:
        return equal, equal
    return float(sx), float(sy)


def choose_pixel_size(
    wanted: float | str,
    from_file: tuple[float, float] | None,
    lattice: Lattice,
    projection: Projection,
) -> tuple[tuple[float, float], list[dict[str, str]]]:
    """Settle the pixel size as the configuration asks.

    Parameters
    ----------
    wanted : float or {"auto", "file", "lattice"}
        The configuration's ``[input] pixel_size``.
    from_file : (float, float) or None
        What the file says, angstrom per px.
    lattice, projection
        The crystal as found.

    Returns
    -------
    size : (float, float)
    warnings : list of dict
        ``code`` and ``message``.

    Raises
    ------
    DataError
        ``"file"`` was asked for and the file has none.
    """
    measured = pixel_size_from_lattice(lattice, projection)
    stated = (float(wanted),) * 2 if not isinstance(wanted, str) else from_file
    if wanted == "lattice" or (wanted == "auto" and stated is None):
        return measured, []
    if stated is None:
        raise DataError(
            "the file states no pixel size. Set [input] pixel_size to a number of angstrom, or to "
            '"lattice" to take it from the crystal'
        )
    ratio = np.array(measured) / np.array(stated)
    off = float(np.max(np.abs(ratio - 1)))
    if off <= AGREE:
        return (float(stated[0]), float(stated[1])), []
    text = (
        f"pixel size: stated {stated[0]:.5g} x {stated[1]:.5g} A, but the lattice of "
        f"{projection.name} gives {measured[0]:.5g} x {measured[1]:.5g} A ({off:.1%} apart)"
    )
    if wanted == "auto":
        return measured, [{"code": "pixel-size", "message": text + "; the lattice is used"}]
    return (float(stated[0]), float(stated[1])), [
        {"code": "pixel-size", "message": text + "; the stated size is used, as asked"}
    ]
