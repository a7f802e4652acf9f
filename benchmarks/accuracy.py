"""Errors of fitted columns against the truth and the Cramer-Rao bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from benchmarks import scene
from stemdisp.bounds import column_bounds
from stemdisp.refine import refine_columns
from stemdisp.tables import Quality

LOST_A = 0.5
MARKS = int(Quality.NOT_DETECTED | Quality.NOT_CONVERGED | Quality.MOVED)
BULK_FROM = 5  # planes above it hold displacements other than the random ones


@dataclass(frozen=True)
class Score:
    """How one species fared; ratios to the bound, over all columns and repeats."""

    bound_pm: float
    rms_pm: float
    ratio: float
    ratio_err: float
    slope: float
    slope_err: float
    pull: float
    pull_intensity: float
    ratio_intensity: float
    failed: int
    marked: int
    total: int


Fitter = Callable[[np.ndarray, pd.DataFrame], pd.DataFrame]


def stemdisp_fit(noise: str) -> Fitter:
    """Give the package's fit as a function of image and starts."""

    def fit(image: np.ndarray, start: pd.DataFrame) -> pd.DataFrame:
        return refine_columns(image, start, pixel_size=scene.PIXEL_A, noise=noise)

    return fit


def run_many(
    truth: pd.DataFrame, size: int, kind: scene.Kind, fit: Fitter, repeats: int
) -> list[pd.DataFrame]:
    """Fit `repeats` noisy images of the same columns; row k of each table is column k."""
    perfect = scene.perfect_image(truth, size)
    return [
        fit(scene.add_noise(perfect, kind, seed), scene.starts(truth, seed))
        for seed in range(repeats)
    ]


def bounds_of(truth: pd.DataFrame, size: int, kind: scene.Kind, widths: str) -> pd.DataFrame:
    """Give the bounds for this image."""
    return column_bounds(
        truth,
        pixel_size=scene.PIXEL_A,
        noise=kind.noise,
        level=kind.level,
        widths=widths,
        background=scene.BACKGROUND,
        shape=(size, size),
    )


def score(truth: pd.DataFrame, fitted: list[pd.DataFrame], bound: pd.DataFrame) -> dict[str, Score]:
    """Compare fits with the truth, species by species."""
    return {
        name: _score_species(truth, fitted, bound, (truth["species"] == name).to_numpy())
        for name in scene.SPECIES
    }


def _score_species(
    truth: pd.DataFrame, fitted: list[pd.DataFrame], bound: pd.DataFrame, rows: np.ndarray
) -> Score:
    true = truth.loc[rows, ["x_px", "y_px"]].to_numpy()
    # (repeat, column, axis), angstrom
    error = np.stack([f.loc[rows, ["x_px", "y_px"]].to_numpy() - true for f in fitted])
    error = error * scene.PIXEL_A
    lost = ~(np.hypot(error[..., 0], error[..., 1]) <= LOST_A)
    mark = np.stack([_marks(f)[rows] for f in fitted])
    good = ~lost & ~mark
    least = np.broadcast_to(bound.loc[rows, ["x_err_A", "y_err_A"]].to_numpy(), error.shape)
    used, limit = error[good], least[good]
    rms, crlb = _rms(used), _rms(limit)
    per_column = np.where(good[..., None], error, np.nan)
    slope, slope_err = _slope(truth[rows], per_column)
    pull, pull_v, ratio_v = _pulls(truth, fitted, bound, rows, error, good)
    return Score(
        bound_pm=100 * crlb,
        rms_pm=100 * rms,
        ratio=rms / crlb,
        ratio_err=rms / crlb / np.sqrt(2 * max(used.size, 1)),
        slope=slope,
        slope_err=slope_err,
        pull=pull,
        pull_intensity=pull_v,
        ratio_intensity=ratio_v,
        failed=int(np.count_nonzero(lost & ~mark)),
        marked=int(np.count_nonzero(mark)),
        total=int(mark.size),
    )


def _marks(fitted: pd.DataFrame) -> np.ndarray:
    """Columns that the fit itself calls no measurement; other tools mark nothing."""
    if "quality" not in fitted:
        return np.zeros(len(fitted), dtype=bool)
    return (fitted["quality"].to_numpy() & MARKS) != 0


def _slope(truth: pd.DataFrame, error: np.ndarray) -> tuple[float, float]:
    """Regress fitted on true static displacement in the bulk, and give the slope's error."""
    bulk = (truth["N"] >= BULK_FROM).to_numpy()
    static = truth.loc[bulk, ["static_x_px", "static_y_px"]].to_numpy() * scene.PIXEL_A
    off = error[:, bulk]
    static = np.broadcast_to(static, off.shape)
    good = np.isfinite(off)
    x, y = static[good], off[good]
    if x.size < 3:
        return np.nan, np.nan
    x, y = x - x.mean(), y - y.mean()
    excess = np.sum(x * y) / np.sum(x**2)
    return 1 + float(excess), float(np.std(y) / np.sqrt(np.sum(x**2)))


def _pulls(
    truth: pd.DataFrame,
    fitted: list[pd.DataFrame],
    bound: pd.DataFrame,
    rows: np.ndarray,
    error: np.ndarray,
    good: np.ndarray,
) -> tuple[float, float, float]:
    """Give rms of error over claimed error for position and intensity; intensity over bound."""
    if "x_err_A" not in fitted[0]:
        return np.nan, np.nan, np.nan
    claimed = np.stack([f.loc[rows, ["x_err_A", "y_err_A"]].to_numpy() for f in fitted])
    off = np.stack([f["intensity"].to_numpy()[rows] for f in fitted])
    off = off - truth.loc[rows, "intensity"].to_numpy()
    claimed_v = np.stack([f["intensity_err"].to_numpy()[rows] for f in fitted])
    least = np.broadcast_to(bound.loc[rows, "intensity_err"].to_numpy(), off.shape)
    pulls = (error / claimed)[good], (off / claimed_v)[good], (off / least)[good]
    return tuple(_rms(p) for p in pulls)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2))) if values.size else np.nan
