"""Table -> oxygen occupancy of pure anion columns; image -> line profile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from skimage.measure import profile_line

from stemdisp._values import average
from stemdisp.interface import Interface
from stemdisp.lattice import Lattice
from stemdisp.tables import check_columns, usable

if TYPE_CHECKING:
    from hyperspy.signals import Signal2D

MIN_BULK_COLUMNS = 6
PROFILE_WIDTH_A = 1.0
PROFILE_LAST_PLANE = 14


def measure_occupancy(
    columns: pd.DataFrame, *, anion: str = "O", bulk_from: int = 10
) -> pd.DataFrame:
    """Occupancy of pure anion columns: their intensity over that of the bulk ones.

    Intensities come from the joint fit, so the tails of neighbours are already taken out. Oxygen
    inside mixed columns cannot be separated from the cation and has no occupancy.

    Parameters
    ----------
    columns : DataFrame
        After `refine_columns`: ``species, N, intensity, intensity_err, quality``.
    anion : str
        Species of the pure anion columns.
    bulk_from : int
        First plane taken as bulk (occupancy 1).

    Returns
    -------
    DataFrame
        With ``occupancy, occupancy_err``; the error holds the fit's and that of the bulk mean.
        NaN for other species, and everywhere without a bulk to refer to.
        ``attrs["bulk_anion"]`` is (mean intensity, its error, number of columns).
    """
    check_columns(columns, ("species", "N", "intensity", "intensity_err", "quality"))
    plane = columns["N"].to_numpy(dtype=float, na_value=np.nan)
    intensity = columns["intensity"].to_numpy(dtype=float)
    error = columns["intensity_err"].to_numpy(dtype=float)
    own = (columns["species"] == anion).to_numpy() & usable(columns) & np.isfinite(intensity)
    bulk = own & (plane >= bulk_from)
    if np.count_nonzero(bulk) < MIN_BULK_COLUMNS and np.any(np.isfinite(plane[own])):
        deepest = np.nanmax(plane[own])
        bulk = own & (plane >= deepest - 2) if deepest >= 6 else bulk
    if np.count_nonzero(bulk) < MIN_BULK_COLUMNS and not np.any(np.isfinite(plane)):
        bulk = own  # a crystal without interface: relative to its own mean
    n_bulk = int(np.count_nonzero(bulk))
    empty = np.full(len(columns), np.nan)
    if n_bulk < MIN_BULK_COLUMNS:
        out = columns.assign(occupancy=empty, occupancy_err=empty)
        out.attrs["bulk_anion"] = (np.nan, np.nan, n_bulk)
        return out
    mean, _, mean_error = average(intensity[bulk], error[bulk])
    occupancy = np.where(own, intensity / mean, np.nan)
    spread = np.hypot(error / mean, occupancy * mean_error / mean)
    out = columns.assign(occupancy=occupancy, occupancy_err=np.where(own, spread, np.nan))
    out.attrs["bulk_anion"] = (float(mean), float(mean_error), n_bulk)
    return out


def average_occupancy(columns: pd.DataFrame, *, anion: str = "O") -> pd.DataFrame:
    """Average occupancies over each plane.

    Parameters
    ----------
    columns : DataFrame
        After `measure_occupancy`.
    anion : str
        Species of the pure anion columns.

    Returns
    -------
    DataFrame
        ``N, n_anions, occupancy, occupancy_err`` (total error), one row per plane.
    """
    check_columns(columns, ("species", "N", "i", "occupancy", "occupancy_err", "quality"))
    mean, mean_error, _ = columns.attrs.get("bulk_anion", (np.nan, 0.0, 0))
    plane = columns["N"].to_numpy(dtype=float, na_value=np.nan)
    value = columns["occupancy"].to_numpy(dtype=float)
    good = (columns["species"] == anion).to_numpy() & usable(columns) & np.isfinite(value)
    rows = []
    for number in np.unique(plane[np.isfinite(plane)]).astype(int):
        index = np.flatnonzero(good & (plane == number))
        row = {"N": number, "n_anions": len(index), "occupancy": np.nan, "occupancy_err": np.nan}
        if len(index):
            common = np.nan_to_num(value[index] * mean_error / mean)
            error = columns["occupancy_err"].to_numpy(dtype=float)[index]
            own = np.sqrt(np.maximum(error**2 - common**2, 1e-12))
            clusters = np.floor(columns["i"].to_numpy(dtype=float)[index] + 1e-6)
            row["occupancy"], _, total = average(value[index], own, clusters=clusters)
            row["occupancy_err"] = float(np.hypot(total, np.mean(common)))
        rows.append(row)
    out = pd.DataFrame(rows, columns=["N", "n_anions", "occupancy", "occupancy_err"])
    return out.astype({"N": "Int64", "n_anions": "Int64"})


def line_profile(
    image: Signal2D | np.ndarray,
    lattice: Lattice,
    columns: pd.DataFrame,
    interface: Interface,
    *,
    pixel_size: tuple[float, float],
    anion: str = "O",
) -> pd.DataFrame:
    """Intensity along v through pure anion columns, from the film into the crystal.

    Parameters
    ----------
    image : Signal2D or ndarray, shape (ny, nx)
    lattice : Lattice
    columns : DataFrame
        ``species, i, j, N``: chooses the chain of anions that crosses the most planes.
    interface : Interface
    pixel_size : (float, float)
        Angstrom per px along x and y.
    anion : str
        Species of the chain.

    Returns
    -------
    DataFrame
        ``s_A, intensity, N``; N is filled at the expected columns. ``attrs["line_px"]`` holds the
        end points, (2, 2) as (x, y). Empty when no chain is found.
    """
    data = np.asarray(getattr(image, "data", image), dtype=float)
    chain = _best_chain(columns[columns["species"] == anion])
    if chain is None:
        out = pd.DataFrame({"s_A": [], "intensity": [], "N": pd.array([], dtype="Int64")})
        out.attrs["line_px"] = None
        return out
    ij = chain[["i", "j"]].to_numpy(dtype=float)
    xy = lattice.position(ij)
    forward = (xy[-1] - xy[0]) / max(np.hypot(*(xy[-1] - xy[0])), 1e-9)
    step = np.hypot(*(xy[1] - xy[0]))
    start, stop = xy[0] - 1.7 * step * forward, xy[-1] + 0.6 * step * forward
    start, stop = _inside(start, xy[0], data.shape), _inside(stop, xy[-1], data.shape)
    width = max(1, round(PROFILE_WIDTH_A / np.sqrt(pixel_size[0] * pixel_size[1])))
    values = profile_line(
        np.nan_to_num(data, nan=float(np.nanmean(data))),
        start[::-1],
        stop[::-1],
        linewidth=width,
        order=1,
        mode="nearest",
    )
    length = np.hypot(*(stop - start))
    along = np.linspace(0, 1, len(values)) * length
    per_px = float(np.hypot(*((stop - start) * np.array(pixel_size)))) / length
    number = pd.array([pd.NA] * len(values), dtype="Int64")
    for position, plane in zip((xy - start) @ forward, chain["N"], strict=True):
        number[int(np.argmin(np.abs(along - position)))] = plane
    out = pd.DataFrame({"s_A": along * per_px, "intensity": values, "N": number})
    out.attrs["line_px"] = np.stack([start, stop])
    return out


def _best_chain(anions: pd.DataFrame) -> pd.DataFrame | None:
    """The chain along v (constant i) that starts at N = 1 and runs deepest inside the image."""
    inside = anions[usable(anions)]
    best = None
    for _, chain in inside.groupby(inside["i"].round(3)):
        chain = chain.sort_values("N")
        planes = chain["N"].to_numpy(dtype=int)
        run = int(np.argmin(np.diff(planes) == 1)) + 1 if np.any(np.diff(planes) != 1) else len(planes)
        run = min(run, PROFILE_LAST_PLANE)
        rank = (-int(planes[0]), run, -abs(float(chain["x_px"].iloc[0]) - anions["x_px"].mean()))
        if run >= 3 and (best is None or rank > best[0]):
            best = (rank, chain.iloc[:run])
    return None if best is None else best[1]


def _inside(point: np.ndarray, anchor: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Move a point towards `anchor` until it lies in the image."""
    high = np.array([shape[1] - 1, shape[0] - 1], dtype=float)
    for share in np.linspace(1, 0, 41):
        trial = anchor + share * (point - anchor)
        if np.all(trial >= 0) and np.all(trial <= high):
            return trial
    return np.clip(anchor, 0, high)
