"""Values with standard errors: read from tables, averaged, bounded."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import special

from . import _resampling as kernel

Interval = tuple[float, float]
NAN = float("nan")
NO_INTERVAL: Interval = (NAN, NAN)
VALUES = {"delta": ("delta_A", "delta_err_A"), "occupancy": ("occupancy", "occupancy_err")}


def average(
    values: np.ndarray, errors: np.ndarray, *, clusters: np.ndarray | None = None
) -> tuple[float, float, float]:
    """Average values with errors, allowing for scatter beyond the errors.

    Parameters
    ----------
    values, errors : array_like, shape (n,)
        Values and standard errors, in one unit. Pairs that are not finite or have no positive
        error are skipped.
    clusters : array_like, shape (n,), optional
        Labels of groups that share noise (the [001] rows).

    Returns
    -------
    mean, noise_err, total_err : float
        Inverse-variance mean, its error from `errors` alone, and with the scatter between values
        (random effects, DerSimonian and Laird 1986) or between clusters (five or more; Bell and
        McCaffrey 2002), whichever is larger. NaN when nothing is left.
    """
    x, err = np.asarray(values, dtype=float), np.asarray(errors, dtype=float)
    if x.shape != err.shape or x.ndim != 1:
        raise ValueError(
            f"errors has shape {err.shape}, values has {x.shape}; pass one error for each value"
        )
    ok = np.isfinite(x) & np.isfinite(err) & (err > 0)
    if not ok.any():
        return NAN, NAN, NAN
    x, err = x[ok], err[ok]
    w = 1.0 / (err**2 + kernel.between_variance(x, err))
    mean = float(w @ x / w.sum())
    noise = float(np.sqrt(np.sum((w * err) ** 2)) / w.sum())
    total = max(noise, float(1.0 / np.sqrt(w.sum())))
    if clusters is not None:
        total = max(total, kernel.cluster_error(x - mean, w, np.asarray(clusters)[ok]))
    return mean, noise, total


def chi2_quantile(confidence: float) -> float:
    """Return the rise of chi2 (one degree of freedom) that bounds an interval at `confidence`."""
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence = {confidence!r} is not between 0 and 1; try 0.95")
    return float(special.chdtri(1.0, 1.0 - confidence))


def numbers(frame: pd.DataFrame, name: str) -> np.ndarray:
    """Return one column as floats, NaN where it holds no number."""
    return pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=float, na_value=np.nan)


def plane_values(planes: pd.DataFrame, value: str, error: str) -> tuple[np.ndarray, ...]:
    """Return N, value and error of the planes that have all three, from the film inwards."""
    n, x, err = (numbers(planes, name) for name in ("N", value, error))
    ok = np.isfinite(n) & np.isfinite(x) & np.isfinite(err) & (err > 0) & (n >= 1)
    order = np.argsort(n[ok], kind="stable")
    return n[ok][order], x[ok][order], err[ok][order]


def degrees_of_freedom(
    planes: pd.DataFrame, error: str, noise: str, count: str, at: np.ndarray
) -> np.ndarray:
    """Return how well the errors of planes are known, as degrees of freedom.

    The part of an error that the noise makes is known; the rest is the scatter of a few columns
    (Satterthwaite 1946). Infinite where a column of the table is missing.

    Parameters
    ----------
    planes : DataFrame
    error, noise, count : str
        Columns with the total error, its known part, and the number of columns in a plane.
    at : ndarray
        Plane numbers that are wanted.

    Returns
    -------
    ndarray
        At least 3.
    """
    if not {error, noise, count} <= set(planes.columns):
        return np.full(len(at), np.inf)
    table = planes.drop_duplicates("N").set_index("N")[[error, noise, count]].astype("float64")
    total, known, n = table.reindex(at).to_numpy(dtype=float).T
    rest = np.clip(1.0 - (np.nan_to_num(known) / total) ** 2, 1e-6, 1.0)
    return np.maximum((np.nan_to_num(n, nan=2.0) - 1.0) / rest**2, 3.0)
