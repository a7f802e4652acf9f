"""How far the even and the odd frames of a stack disagree, against what the noise explains.

Line jitter, flyback and imperfect registration move columns too. No noise model knows them, but
the same columns measured on two halves of the frames show them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from stemdisp.refine import refine_columns
from stemdisp.tables import Quality, by_hand, usable

ENOUGH = 40  # columns from which a spread is known to 11 %
SEEN = 6.0  # standard errors of intensity: fainter columns are held near their sites
OUTLYING = 4.5  # standard deviations
VALUES = (("x_A", "x_err_A"), ("y_A", "y_err_A"), ("intensity", "intensity_err"))
_UNSEEN = Quality.EDGE | Quality.MASKED | Quality.NOT_DETECTED | Quality.NOT_CONVERGED


def fit_halves(
    halves: Iterable[np.ndarray], columns: pd.DataFrame, *, shares: Iterable[float], **options: Any
) -> list[pd.DataFrame]:
    """Fit the same columns to the means of the even and of the odd frames.

    Parameters
    ----------
    halves : iterable of ndarray, shape (ny, nx)
        The two means.
    columns : DataFrame
        Columns of the mean of all frames: the starting points.
    shares : iterable of float
        Share of the frames in each half.
    **options
        Those of `refine_columns`; ``noise_psd`` is that of the mean of all frames.

    Returns
    -------
    list of DataFrame
        The columns that have a place in `columns`.
    """
    psd = options.pop("noise_psd", None)
    kept = [c for c in columns.columns if c not in ("chi2", "x_err_A", "y_err_A", "intensity_err")]
    start = columns.loc[columns["x_px"].notna(), kept].reset_index(drop=True)
    start = start.assign(quality=by_hand(start))
    start.attrs = {}
    out = []
    for half, share in zip(halves, shares, strict=True):
        noise = None if psd is None else (psd[0], psd[1] / share)
        out.append(refine_columns(half, start, noise_psd=noise, **options))
    return out


def error_factors(halves: list[pd.DataFrame]) -> dict[str, dict[str, float]]:
    """Spread between the halves over the spread that their errors claim.

    Parameters
    ----------
    halves : list of two DataFrames
        From `fit_halves`.

    Returns
    -------
    dict
        For each species the factors of ``x_err_A``, ``y_err_A`` and ``intensity_err``; species
        with fewer than 40 columns that are well seen in both halves are left out.
    """
    even, odd = halves
    good = usable(even) & usable(odd)
    for half in halves:
        bits = half["quality"].to_numpy(dtype=np.int64)
        good &= (bits & int(_UNSEEN)) == 0
        good &= (half["intensity"] > SEEN * half["intensity_err"]).to_numpy()
    where = even[["x_A", "y_A"]].to_numpy(dtype=float)
    out: dict[str, dict[str, float]] = {}
    for species in pd.unique(even["species"]):
        use = good & (even["species"] == species).to_numpy()
        if np.count_nonzero(use) < ENOUGH:
            continue
        out[str(species)] = {
            error: spread_ratio(
                *(half.loc[use, [value, error]].to_numpy(dtype=float) for half in halves),
                where=where[use],
            )
            for value, error in VALUES
        }
    return out


def spread_ratio(even: np.ndarray, odd: np.ndarray, *, where: np.ndarray) -> float:
    """Spread of differences over that claimed, without what varies slowly over the image.

    Parameters
    ----------
    even, odd : ndarray, shape (n, 2)
        Values and standard errors.
    where : ndarray, shape (n, 2)
        Places; slow differences (drift, shear, gain) are a quadratic surface.

    Returns
    -------
    float
        1 where the errors are right; NaN with fewer than 40 values.
    """
    error = np.hypot(even[:, 1], odd[:, 1])
    difference = even[:, 0] - odd[:, 0]
    ok = np.isfinite(difference) & np.isfinite(error) & (error > 0)
    if np.count_nonzero(ok) < ENOUGH:
        return float("nan")
    x, y = ((where[ok] - where[ok].mean(axis=0)) / max(np.ptp(where[ok]), 1e-9)).T
    surface = np.column_stack([np.ones_like(x), x, y, x * x, x * y, y * y])
    pull, surface = difference[ok] / error[ok], surface / error[ok][:, None]
    inside = np.ones(len(pull), dtype=bool)
    for _ in range(3):
        rest = pull - surface @ np.linalg.lstsq(surface[inside], pull[inside], rcond=None)[0]
        inside = np.abs(rest) <= OUTLYING * 1.4826 * np.median(np.abs(rest))
    spare = max(np.count_nonzero(inside) - surface.shape[1], 1)
    return float(np.sqrt(np.sum(rest[inside] ** 2) / spare))


def apply_factors(columns: pd.DataFrame, factors: dict[str, dict[str, float]]) -> pd.DataFrame:
    """Multiply the errors of single columns by the factors of their species.

    Parameters
    ----------
    columns : DataFrame
    factors : dict
        From `error_factors`.

    Returns
    -------
    DataFrame
        A copy.
    """
    out = columns.copy()
    for _, error in VALUES:
        scale = columns["species"].map({s: f[error] for s, f in factors.items()})
        out[error] = columns[error] * scale.fillna(1.0)
        if error == "intensity_err" and "significance" in columns:
            out["significance"] = columns["significance"] / scale.fillna(1.0)
    return out
