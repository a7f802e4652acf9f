"""Table -> oxygen occupancy of pure anion columns; image -> line profile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from skimage.measure import profile_line

from stemdisp._values import average
from stemdisp.crystal import Projection
from stemdisp.interface import Interface
from stemdisp.lattice import Lattice
from stemdisp.response import OccupancyCurve
from stemdisp.tables import Quality, check_columns, usable

if TYPE_CHECKING:
    from hyperspy.signals import Signal2D

MIN_BULK_COLUMNS = 6
MIN_TREND_COLUMNS = 30
PROFILE_WIDTH_A = 1.0
PROFILE_LAST_PLANE = 14


@dataclass(frozen=True, eq=False)
class AnionReference:
    """What occupancies refer to.

    Attributes
    ----------
    intensity : float
        Mean intensity of the bulk anions.
    n_columns : int
        How many there were.
    common : ndarray, shape (n,)
        Relative error of the reference at every column of the table, shared by neighbours.
    bulk : ndarray of bool, shape (n,)
        Columns of the table that are the reference.
    curve : OccupancyCurve or None
        From the ratio of intensities to the occupancy.
    """

    intensity: float
    n_columns: int
    common: np.ndarray
    bulk: np.ndarray
    curve: OccupancyCurve | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> AnionReference:
        """Return itself: pandas copies ``attrs`` on every operation, and this never changes."""
        return self


def pure_anion(projection: Projection) -> str | None:
    """Species of the pure anion columns, None if the view has none.

    Parameters
    ----------
    projection : Projection

    Returns
    -------
    str or None
    """
    anions = [s.species for s in projection.sites if s.is_anion]
    return anions[0] if anions else None


def measure_occupancy(
    columns: pd.DataFrame,
    *,
    anion: str = "O",
    bulk_from: int = 10,
    trend_species: tuple[str, ...] = ("Ta",),
    curve: OccupancyCurve | None = None,
) -> pd.DataFrame:
    """Occupancy of pure anion columns: their intensity over that of the bulk ones.

    Intensities come from the joint fit, so the tails of neighbours are already taken out. Slow
    changes of intensity across the image that columns of full occupancy share (thickness,
    blurring by drift within frames) are divided out. Oxygen inside mixed columns cannot be
    separated from the cation and has no occupancy.

    Parameters
    ----------
    columns : DataFrame
        After `refine_columns`: ``species, N, x_A, y_A, intensity, intensity_err, quality``.
    anion : str
        Species of the pure anion columns.
    bulk_from : int
        First plane taken as bulk (occupancy 1).
    trend_species : tuple of str
        Fully occupied species that show the trend near the interface too.
    curve : OccupancyCurve, optional
        Calibration; without it the occupancy is the ratio of intensities itself.

    Returns
    -------
    DataFrame
        With ``intensity_ratio, intensity_ratio_err`` (over full columns) and ``occupancy,
        occupancy_err``; the error holds the fit's, that of the bulk mean, that of the trend and
        that of the curve. NaN for other species, and without a bulk to refer to.
        ``attrs["anion_reference"]`` holds the `AnionReference`.
    """
    check_columns(columns, ("species", "N", "x_A", "intensity", "intensity_err", "quality"))
    intensity = columns["intensity"].to_numpy(dtype=float)
    error = columns["intensity_err"].to_numpy(dtype=float)
    own = (columns["species"] == anion).to_numpy() & usable(columns) & np.isfinite(intensity)
    bulk = _bulk(columns, own, bulk_from)
    n_bulk = int(np.count_nonzero(bulk))
    empty = np.full(len(columns), np.nan)
    if n_bulk < MIN_BULK_COLUMNS:
        names = ("intensity_ratio", "intensity_ratio_err", "occupancy", "occupancy_err")
        out = columns.assign(**dict.fromkeys(names, empty))
        out.attrs["anion_reference"] = AnionReference(np.nan, n_bulk, empty, bulk & False)
        return out
    trend, trend_error = _trend(columns, bulk, trend_species)
    flat, flat_error = intensity / trend, error / trend
    mean, _, mean_error = average(flat[bulk], flat_error[bulk])
    ratio = np.where(own, flat / mean, np.nan)
    common = np.hypot(mean_error / mean, trend_error)
    spread = np.where(own, np.hypot(flat_error / mean, ratio * common), np.nan)
    occupancy, occupancy_error = calibrated(ratio, spread, curve)
    out = columns.assign(
        intensity_ratio=ratio,
        intensity_ratio_err=spread,
        occupancy=occupancy,
        occupancy_err=occupancy_error,
    )
    out.attrs["anion_reference"] = AnionReference(float(mean), n_bulk, common, bulk, curve)
    return out


def calibrated(
    ratio: np.ndarray, error: np.ndarray, curve: OccupancyCurve | None
) -> tuple[np.ndarray, np.ndarray]:
    """Turn ratios of intensities into occupancies, with errors that hold the curve's own.

    Parameters
    ----------
    ratio, error : ndarray
    curve : OccupancyCurve or None

    Returns
    -------
    value, error : ndarray
    """
    if curve is None:
        return ratio, error
    value, scaled = curve(ratio, error)
    return value, np.hypot(scaled, curve.own_error(ratio))


def _bulk(columns: pd.DataFrame, own: np.ndarray, bulk_from: int) -> np.ndarray:
    """Anion columns that count as fully occupied."""
    plane = columns["N"].to_numpy(dtype=float, na_value=np.nan)
    if not np.any(np.isfinite(plane)):
        return own  # a crystal without interface: relative to its own mean
    bulk = own & (plane >= bulk_from)
    if np.count_nonzero(bulk) < MIN_BULK_COLUMNS and np.any(own):
        deepest = np.nanmax(plane[own])
        return own & (plane >= deepest - 2) if deepest >= 6 else bulk
    return bulk


def _trend(
    columns: pd.DataFrame, bulk: np.ndarray, species: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Slow relative change of intensity at every column, and its error.

    A quadratic surface, common to the bulk anions and the full columns of `species`, each kind
    scaled by itself; 1 on average over the bulk anions.
    """
    near = columns["quality"].to_numpy(dtype=np.int64) & int(Quality.NEAR_FILM) > 0
    intensity = columns["intensity"].to_numpy(dtype=float)
    error = columns["intensity_err"].to_numpy(dtype=float)
    groups = [bulk]
    for name in species:
        full = (columns["species"] == name).to_numpy() & usable(columns) & ~near
        full &= np.isfinite(intensity) & (intensity > 0)
        if np.count_nonzero(full) >= MIN_TREND_COLUMNS:
            groups.append(full)
    if np.count_nonzero(bulk) < MIN_TREND_COLUMNS and len(groups) == 1:
        return np.ones(len(columns)), np.zeros(len(columns))
    xy = np.nan_to_num(columns[["x_A", "y_A"]].to_numpy(dtype=float))
    centre = xy[bulk].mean(axis=0)
    x, y = ((xy - centre) / 50.0).T
    surface = np.stack([x, y, x * x, x * y, y * y], axis=1)
    levels = np.array([np.median(intensity[group]) for group in groups])
    n = len(groups)
    # Relative change is common, so levels must refer to one place: two rounds settle them.
    for _ in range(3):
        solution, covariance = _fit_surface(groups, levels, intensity, error, surface)
        levels = levels * solution[:n]
    reference = surface[bulk].mean(axis=0)
    moved = surface - reference
    base = float(solution[0] + reference @ solution[n:])
    trend = 1.0 + moved @ solution[n:] / base
    variance = np.einsum("ni,ij,nj->n", moved, covariance[n:, n:], moved)
    return np.clip(trend, 0.2, 5.0), np.sqrt(np.maximum(variance, 0.0)) / abs(base)


def _fit_surface(
    groups: list[np.ndarray],
    levels: np.ndarray,
    intensity: np.ndarray,
    error: np.ndarray,
    surface: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Level of every group and one surface for all, by least squares; and their covariance."""
    blocks, values, weights = [], [], []
    for k, group in enumerate(groups):
        level = np.zeros((np.count_nonzero(group), len(groups)))
        level[:, k] = 1.0
        blocks.append(np.hstack([level, surface[group]]))
        values.append(intensity[group] / levels[k])
        weights.append(levels[k] / error[group])
    design, value, weight = np.vstack(blocks), np.concatenate(values), np.concatenate(weights)
    normal = design.T @ (weight[:, None] ** 2 * design)
    covariance = np.linalg.pinv(normal, hermitian=True)
    solution = covariance @ (design.T @ (weight**2 * value))
    rest = (value - design @ solution) * weight
    return solution, covariance * max(1.0, float(rest @ rest) / max(len(value) - len(solution), 1))


def line_profile(
    image: Signal2D | np.ndarray,
    lattice: Lattice,
    *,
    columns: pd.DataFrame,
    interface: Interface,
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
    """Find the chain along v (constant i) that starts at N = 1 and runs deepest in the image."""
    inside = anions[usable(anions)]
    best = None
    for _, chain in inside.groupby(inside["i"].round(3)):
        chain = chain.sort_values("N")
        planes = chain["N"].to_numpy(dtype=int)
        run = (
            int(np.argmin(np.diff(planes) == 1)) + 1
            if np.any(np.diff(planes) != 1)
            else len(planes)
        )
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
