"""How a fitted column answers to its atoms: calibrations from multislice images.

A mixed column follows its cation by a fraction f only, and a pure anion column that lacks atoms
loses less intensity than it loses atoms, the more so the thicker the specimen. The figures are
those of ``python -m benchmarks.calibrate --multislice FOLDER`` (300 kV, 25 mrad, quadrants 6-24
mrad); the page "Systematic errors" of the documentation has them with their scatter.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from stemdisp._texts import read_small
from stemdisp.errors import ConfigError

# KTaO3 along [1-10]; thickness in nm: fraction f of a small displacement of the cation alone by
# which the fitted K/O column moves in its Ta/O cage, and what is added per square angstrom.
CALIBRATED = ("KTaO3", (1, -1, 0))
CATION_F = {5.0: 0.69, 10.0: 0.67, 15.0: 0.64, 20.0: 0.65}
CATION_CURVE = {5.0: 0.55, 10.0: 0.36, 15.0: 0.24, 20.0: 0.17}
CATION_F_ERR = 0.04
CATION_MOST_A = 0.54  # largest displacement in the calibration; beyond, the curve is continued
COLUMN_F, COLUMN_F_ERR = 0.985, 0.02
# Intensity over that of full columns at these occupancies.
OXYGEN = (0.0, 0.4, 0.5, 0.6, 0.75, 0.9, 1.0)
OXYGEN_RATIO = {
    5.0: (0.0, 0.42, 0.51, 0.61, 0.76, 0.91, 1.0),
    10.0: (0.0, 0.49, 0.58, 0.70, 0.83, 0.94, 1.0),
    15.0: (0.0, 0.56, 0.65, 0.76, 0.90, 0.975, 1.0),
    20.0: (0.0, 0.70, 0.82, 0.89, 0.965, 0.99, 1.0),
}
OXYGEN_ERR = 0.1  # of what is missing: between specimens, foci and arrangements of vacancies
FULL = 0.02  # a curve must give full columns an occupancy of 1 within this
_MOST_OCCUPANCY = 1.6  # fuller than full does not exist, but noise must not be cut


def is_calibrated(structure: str, zone_axis: tuple[int, ...]) -> bool:
    """Tell whether the calibrations are of this crystal and view.

    Parameters
    ----------
    structure : str
        Name of the crystal.
    zone_axis : tuple of 3 ints

    Returns
    -------
    bool
    """
    return (structure, tuple(zone_axis)) == CALIBRATED


def choose_curve(
    wanted: str, structure: str, zone_axis: tuple[int, ...], thickness_nm: float | str
) -> OccupancyCurve | None:
    """Give the calibration of the occupancy that a run asks for.

    Parameters
    ----------
    wanted : str
        ``[analysis] occupancy_calibration``: "auto", "none" or a path.
    structure, zone_axis, thickness_nm
        As in the configuration.

    Returns
    -------
    OccupancyCurve or None
    """
    if wanted == "none":
        return None
    if wanted != "auto":
        return read_curve(wanted)
    return multislice_curve(structure, zone_axis, thickness_nm)


def thickness_range(table: dict[float, float]) -> tuple[float, float]:
    """Thicknesses in nm between which a calibration holds.

    Parameters
    ----------
    table : dict
        One of this module's.

    Returns
    -------
    tuple of 2 floats
    """
    return min(table), max(table)


def at_thickness(table: dict[float, float], thickness_nm: float | str) -> float | None:
    """Interpolate a calibration; None where it does not hold.

    Parameters
    ----------
    table : dict
        One of this module's.
    thickness_nm : float or "unknown"

    Returns
    -------
    float or None
    """
    if isinstance(thickness_nm, str):
        return None
    low, high = thickness_range(table)
    if not low <= float(thickness_nm) <= high:
        return None
    points = sorted(table)
    return float(np.interp(float(thickness_nm), points, [table[p] for p in points]))


def cation_displacement(
    delta_A: np.ndarray, error_A: np.ndarray, thickness_nm: float | str
) -> tuple[np.ndarray, np.ndarray]:
    """Displacement of the cations, if they alone move in their columns.

    Parameters
    ----------
    delta_A, error_A : ndarray
        Of the columns.
    thickness_nm : float or "unknown"

    Returns
    -------
    value, error : ndarray
        In angstrom; NaN where the calibration does not hold. Solves ``delta = f(d) d`` with
        ``f = f0 + k d^2``; the error holds that of f, and beyond 0.54 A, where the calibration
        ends, half of what the curve adds.
    """
    delta, error = np.asarray(delta_A, dtype=float), np.asarray(error_A, dtype=float)
    f0, k = at_thickness(CATION_F, thickness_nm), at_thickness(CATION_CURVE, thickness_nm)
    if f0 is None or k is None:
        return np.full(delta.shape, np.nan), np.full(delta.shape, np.nan)
    moved = delta / f0
    for _ in range(30):  # Newton's steps on a monotone cubic
        moved = moved - ((f0 + k * moved**2) * moved - delta) / (f0 + 3 * k * moved**2)
    slope = f0 + 3 * k * moved**2
    beyond = 0.5 * k * np.maximum(moved**2 - CATION_MOST_A**2, 0.0)
    own = np.hypot(CATION_F_ERR, beyond) * moved / slope
    return moved, np.hypot(error / slope, own)


def column_displacement(delta_A: np.ndarray, error_A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Displacement of the atoms, if all atoms of a column move together.

    Parameters
    ----------
    delta_A, error_A : ndarray
        Of the columns.

    Returns
    -------
    value, error : ndarray
        In angstrom.
    """
    delta, error = np.asarray(delta_A, dtype=float), np.asarray(error_A, dtype=float)
    moved = delta / COLUMN_F
    return moved, np.hypot(error / COLUMN_F, COLUMN_F_ERR * moved / COLUMN_F)


@dataclass(frozen=True, eq=False)
class OccupancyCurve:
    """From the intensity of an anion column, over that of full ones, to its occupancy.

    Attributes
    ----------
    ratio, occupancy : ndarray, shape (n,)
        Both increasing; straight lines between the points and beyond them.
    deficit_err : float
        Error of the curve, as a share of what is missing; common to all columns.
    source : str
    """

    ratio: np.ndarray
    occupancy: np.ndarray
    deficit_err: float
    source: str

    def __call__(self, ratio: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return occupancy and its error without the curve's own.

        Parameters
        ----------
        ratio, error : ndarray

        Returns
        -------
        value, error : ndarray
        """
        value = self._line(np.asarray(ratio, dtype=float))
        return value, np.asarray(error, dtype=float) * self._slope(np.asarray(ratio, dtype=float))

    def own_error(self, ratio: np.ndarray) -> np.ndarray:
        """Return the error of the curve itself.

        Parameters
        ----------
        ratio : ndarray

        Returns
        -------
        ndarray
        """
        missing = 1.0 - self._line(np.asarray(ratio, dtype=float))
        return self.deficit_err * np.clip(missing, 0.0, 1.0)

    def ratio_at(self, occupancy: float) -> float:
        """Return the ratio of intensities that an occupancy between 0 and 1 has.

        Parameters
        ----------
        occupancy : float

        Returns
        -------
        float
        """
        return float(np.interp(occupancy, self.occupancy, self.ratio))

    def _line(self, ratio: np.ndarray) -> np.ndarray:
        inside = np.interp(ratio, self.ratio, self.occupancy)
        for edge, side in ((0, ratio < self.ratio[0]), (-1, ratio > self.ratio[-1])):
            near = slice(0, 2) if edge == 0 else slice(-2, None)
            slope = np.diff(self.occupancy[near])[0] / np.diff(self.ratio[near])[0]
            line = self.occupancy[edge] + slope * (ratio - self.ratio[edge])
            inside = np.where(side, line, inside)
        return inside

    def _slope(self, ratio: np.ndarray) -> np.ndarray:
        # over a span as wide as errors are, so that a corner of the curve does not count double
        span = 0.02
        return (self._line(ratio + span) - self._line(ratio - span)) / (2 * span)


def multislice_curve(
    structure: str, zone_axis: tuple[int, ...], thickness_nm: float | str
) -> OccupancyCurve | None:
    """Calibration of KTaO3 along [1-10] for a thickness; None where there is none.

    Parameters
    ----------
    structure : str
        Name of the crystal.
    zone_axis : tuple of 3 ints
    thickness_nm : float or "unknown"

    Returns
    -------
    OccupancyCurve or None
    """
    if not is_calibrated(structure, zone_axis):
        return None
    knots = [
        at_thickness({t: ratios[k] for t, ratios in OXYGEN_RATIO.items()}, thickness_nm)
        for k in range(len(OXYGEN))
    ]
    if None in knots:
        return None
    occupancy, ratio = np.array(OXYGEN), np.array(knots, dtype=float)
    slope = (ratio[-1] - ratio[-2]) / (occupancy[-1] - occupancy[-2])
    ratio = np.append(ratio, 1.0 + slope * (_MOST_OCCUPANCY - 1.0))
    return OccupancyCurve(
        ratio,
        np.append(occupancy, _MOST_OCCUPANCY),
        OXYGEN_ERR,
        f"multislice, {float(thickness_nm):g} nm",
    )


def read_curve(path: str | os.PathLike[str]) -> OccupancyCurve:
    """Read a calibration from a CSV file with the columns ``ratio`` and ``occupancy``.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    OccupancyCurve
        Its own error is the mean of a column ``occupancy_err``, where the file has one, taken as
        that of a column without atoms.

    Raises
    ------
    ConfigError
        The file cannot be read, lacks a column, or does not increase.
    """
    where = f"[analysis] occupancy_calibration = {os.fspath(path)!r}"
    try:
        content = read_small(Path(path))
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
    try:
        # its own name would be fetched, if it were an address, and unpacked, if it ended in .gz
        table = pd.read_csv(io.BytesIO(content))
        ratio, occupancy = (
            pd.to_numeric(table[name]).to_numpy(dtype=float) for name in ("ratio", "occupancy")
        )
    except KeyError as error:
        raise ConfigError(
            f"{where}: the file has no column {error}; give the columns ratio and occupancy"
        ) from error
    except (ValueError, OverflowError, pd.errors.ParserError) as error:
        raise ConfigError(
            f"{where}: cannot be read as CSV; give the columns ratio and occupancy, numbers with "
            f"commas between them ({str(error)[:160]})"
        ) from error
    order = np.argsort(ratio, kind="stable")
    ratio, occupancy = ratio[order], occupancy[order]
    rising = ratio.size >= 2 and np.all(np.diff(ratio) > 0) and np.all(np.diff(occupancy) > 0)
    if not rising or not np.all(np.isfinite([ratio, occupancy])):
        raise ConfigError(
            f"{where}: ratio and occupancy must be two or more numbers that increase together"
        )
    own = 0.0
    if "occupancy_err" in table:
        own = float(pd.to_numeric(table["occupancy_err"], errors="coerce").mean())
        if not (np.isfinite(own) and own >= 0):
            raise ConfigError(f"{where}: occupancy_err must be numbers, zero or more")
    curve = OccupancyCurve(ratio, occupancy, own, os.fspath(path))
    full = float(curve(np.ones(1), np.zeros(1))[0][0])
    if abs(full - 1.0) > FULL:
        raise ConfigError(
            f"{where}: a ratio of 1 is that of full columns, but has the occupancy {full:.3g}; "
            "divide the ratios by that of full columns"
        )
    return curve
