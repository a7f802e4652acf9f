"""Does the specimen change under the beam? Results of parts of a series against dose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from stemdisp._values import NAN, Interval, chi2_quantile
from stemdisp.tables import check_columns

LEAST_POINTS = 4  # a line through fewer leaves next to nothing to judge its errors by
ROUNDING = 0.29  # standard deviation of a whole number that stands for any length: 1 / sqrt(12)
PER_DOSE = 1000.0  # e/A^2 that a slope is given for
# Name in the summary: column, its error, whether the verdict rests on it.
QUANTITIES: dict[str, tuple[str, str, bool]] = {
    "delta1": ("delta1_A", "delta1_err_A", True),
    "occupancy1": ("occupancy1", "occupancy1_err", True),
    "depth_displacement": ("N_disp", "", False),
    "depth_vacancy": ("N_vac", "", False),
}
_WORDS = {"delta1": ("δ(1)", " Å"), "occupancy1": ("the occupancy of planes 1 to 3", "")}


@dataclass(frozen=True)
class Line:
    """A weighted straight line against exposure.

    Attributes
    ----------
    slope, slope_err, p : float
        Per unit of the exposure; p is two-sided, for no slope.
    zero, zero_err : float
        Value before any exposure.
    zero_ci, slope_ci : (float, float)
        Intervals.
    inflation : float
        What the errors of the points were multiplied by, because they scatter more: at least 1.
    n : int
        Points that count.
    level, level_err, middle : float
        Value of the line at the weighted mean of the exposures, where it does not depend on the
        slope, and that mean.
    t : float
        Quantile of Student's law behind the intervals.
    """

    slope: float
    slope_err: float
    p: float
    slope_ci: Interval
    zero: float
    zero_err: float
    zero_ci: Interval
    level: float
    level_err: float
    middle: float
    inflation: float
    n: int
    t: float

    def at(self, exposure: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the line and its standard error at some exposures.

        Parameters
        ----------
        exposure : ndarray
            In the unit of the fit.

        Returns
        -------
        value, error : ndarray
        """
        away = np.asarray(exposure, dtype=float) - self.middle
        return self.level + self.slope * away, np.hypot(self.level_err, self.slope_err * away)


def fit_line(
    exposure: np.ndarray, values: np.ndarray, *, errors: np.ndarray, confidence: float = 0.95
) -> Line | None:
    """Fit a straight line, and give its value at exposure 0.

    Parameters
    ----------
    exposure, values, errors : array_like, shape (n,)
        Points; those that are not finite or have no positive error are left out.
    confidence : float
        Level of the intervals.

    Returns
    -------
    Line or None
        None with fewer than 4 points or a single exposure. Errors follow from those of the
        points, multiplied by sqrt(chi2 / dof) where that exceeds 1 (Birge 1932); intervals and p
        from Student's law with n - 2 degrees of freedom. Where the errors of the points are right,
        intervals hold the truth more often than they say, because the factor is never below 1.
    """
    chi2_quantile(confidence)  # a level outside (0, 1) is refused there
    x, y, e = (np.asarray(part, dtype=float) for part in (exposure, values, errors))
    keep = np.isfinite(x) & np.isfinite(y) & np.isfinite(e) & (e > 0)
    x, y, e = x[keep], y[keep], e[keep]
    if x.size < LEAST_POINTS or np.ptp(x) == 0:
        return None
    weight = 1.0 / e**2
    middle = float(weight @ x / weight.sum())
    level = float(weight @ y / weight.sum())
    # About the weighted mean, where slope and level do not pull at each other.
    spread = float(weight @ (x - middle) ** 2)
    slope = float(weight @ ((x - middle) * y) / spread)
    rest = (y - level - slope * (x - middle)) / e
    dof = x.size - 2
    inflation = max(1.0, float(np.sqrt(rest @ rest / dof)))
    level_err = inflation / float(np.sqrt(weight.sum()))
    slope_err = inflation / float(np.sqrt(spread))
    zero, zero_err = level - slope * middle, float(np.hypot(level_err, slope_err * middle))
    t = float(special.stdtrit(dof, 0.5 + confidence / 2))
    return Line(
        slope=slope,
        slope_err=slope_err,
        p=float(2.0 * special.stdtr(dof, -abs(slope) / slope_err)),
        slope_ci=(slope - t * slope_err, slope + t * slope_err),
        zero=zero,
        zero_err=zero_err,
        zero_ci=(zero - t * zero_err, zero + t * zero_err),
        level=level,
        level_err=level_err,
        middle=middle,
        inflation=inflation,
        n=int(x.size),
        t=t,
    )


def exposure_of(series: pd.DataFrame) -> tuple[np.ndarray, bool]:
    """Return the exposure of every row in its middle, and whether it is a dose.

    Parameters
    ----------
    series : DataFrame
        Dose series.

    Returns
    -------
    exposure : ndarray
        Electrons per square angstrom up to the middle of the row's frames, or frames up to there.
    is_dose : bool
    """
    dose = series["dose_middle_e_per_A2"].to_numpy(dtype=float)
    if dose.size and np.isfinite(dose).all():
        return dose, True
    return series["frame_middle"].to_numpy(dtype=float), False


def line_of(series: pd.DataFrame, quantity: str, *, confidence: float = 0.95) -> Line | None:
    """Fit a line to the points of a dose series; cumulative means are no points.

    Parameters
    ----------
    series : DataFrame
        Dose series (`dose.measure_frames`).
    quantity : {"delta1", "occupancy1", "depth_displacement", "depth_vacancy"}
        What is fitted. The error of a depth is half its interval over the normal quantile, and
        at least 0.29 planes, for its rounding.
    confidence : float
        Level of the intervals, those of the depths too.

    Returns
    -------
    Line or None
        Against dose in e/A^2, or against frames where the file states no dose.
    """
    if quantity not in QUANTITIES:
        raise ValueError(f"quantity = {quantity!r} is not one of: {', '.join(QUANTITIES)}")
    check_columns(series, ("kind", "frame_middle", "dose_middle_e_per_A2"), what="dose series")
    exposure, _ = exposure_of(series)
    points = (series["kind"] == "point").to_numpy(dtype=bool)
    name, error_name, _ = QUANTITIES[quantity]
    values = series[name].to_numpy(dtype=float)
    if error_name:
        errors = series[error_name].to_numpy(dtype=float)
    else:
        width = (series[f"{name}_high"] - series[f"{name}_low"]).to_numpy(dtype=float)
        errors = np.maximum(width / 2 / np.sqrt(chi2_quantile(confidence)), ROUNDING)
    return fit_line(exposure[points], values[points], errors=errors[points], confidence=confidence)


def judge_damage(
    series: pd.DataFrame, *, doses: np.ndarray | None = None, confidence: float = 0.95
) -> dict[str, Any]:
    """Say whether the specimen changes over the series.

    Parameters
    ----------
    series : DataFrame
        Dose series (`dose.measure_frames`).
    doses : array_like, optional
        Electrons per square angstrom of every frame, those left out included.
    confidence : float
        Of the run. `seen`: a slope of delta(1) or of the occupancy differs from zero at this
        level, after Holm's correction (1979) for having tested both. Depths are not tested.

    Returns
    -------
    dict
        ``verdict`` ("seen", "not seen", "cannot tell"), ``text``, ``n_points``,
        ``dose_total_e_per_A2``, ``slope_per`` and, for each quantity, ``slope``, ``slope_err``,
        ``p``, ``zero_dose``, ``zero_dose_err``, ``ci`` (of the value at zero dose), ``change``,
        ``change_err``, ``change_limit`` (largest change over the whole series that its interval
        allows); None where there are too few points.
    """
    points = series[series["kind"] == "point"]
    is_dose = exposure_of(series)[1] and doses is not None
    total = float(np.sum(np.asarray(doses))) if is_dose else float(points["last_frame"].max() + 1)
    step = PER_DOSE if is_dose else 1.0
    lines = {name: line_of(series, name, confidence=confidence) for name in QUANTITIES}
    p = {k: line.p for k, line in lines.items() if line is not None and QUANTITIES[k][2]}
    significant = _rejected(p, 1.0 - confidence)
    verdict = "cannot tell" if not p else ("seen" if significant else "not seen")
    span = f"{total:.6g} e/Å²" if is_dose else f"{int(total)} frames"
    changes = {k: _change(lines[k], total) for k in p}
    if not p:
        n = int(points["delta1_A"].notna().sum())
        text = f"cannot tell: the series has {n} points with a value, at least 4 are needed"
    elif significant:
        said = [_moved(k, changes[k]) for k in significant]
        text = f"seen: over {span} {' and '.join(said)}"
    else:
        level = f"{100 * confidence:g} %"
        said = [f"{_WORDS[k][0]} is below {changes[k][2]:.2g}{_WORDS[k][1]}" for k in p]
        text = f"not seen: over {span} any change of {' and of '.join(said)} ({level} limits)"
    if not is_dose:
        text += "; the dose is not stated, so this is against the frame number"
    return {
        "verdict": verdict,
        "text": text,
        "n_points": len(points),
        "dose_total_e_per_A2": total if is_dose else None,
        "slope_per": f"{PER_DOSE:g} e/A^2" if is_dose else "frame",
        **{name: _numbers(line, step, total) for name, line in lines.items()},
    }


def _rejected(p: dict[str, float], level: float) -> list[str]:
    """Names that Holm's step-down test rejects, in their order."""
    out = set()
    for rank, name in enumerate(sorted(p, key=lambda k: p[k])):
        if p[name] > level / (len(p) - rank):
            break
        out.add(name)
    return [name for name in p if name in out]


def _moved(name: str, change: tuple[float, float, float]) -> str:
    """Write how a quantity changes, with as many decimals as the error has in two digits."""
    what, unit = _WORDS[name]
    places = max(0, 1 - int(np.floor(np.log10(change[1]))))
    how = "falls" if change[0] < 0 else "rises"
    return f"{what} {how} by {abs(change[0]):.{places}f} ± {change[1]:.{places}f}{unit}"


def _change(line: Line | None, total: float) -> tuple[float, float, float]:
    """Change over the whole series, its error, and the largest one that its interval allows."""
    if line is None:
        return NAN, NAN, NAN
    low, high = line.slope_ci
    return line.slope * total, line.slope_err * total, max(abs(low), abs(high)) * total


def _numbers(line: Line | None, step: float, total: float) -> dict[str, Any] | None:
    if line is None:
        return None
    change, change_err, limit = _change(line, total)
    return {
        "slope": line.slope * step,
        "slope_err": line.slope_err * step,
        "p": line.p,
        "zero_dose": line.zero,
        "zero_dose_err": line.zero_err,
        "ci": list(line.zero_ci),
        "change": change,
        "change_err": change_err,
        "change_limit": limit,
        "inflation": line.inflation,
        "n_points": line.n,
    }
