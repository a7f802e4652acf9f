"""What the data could have shown: the smallest effects that would be found, and the dose for less.

Errors have a part that falls with the dose (counted electrons) and one that does not (disorder,
scan lines). Their ratio says what more electrons would buy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from stemdisp.response import OccupancyCurve

POWER = 0.95
WANTED = {"delta": 0.05, "occupancy": 0.1}  # angstrom; share of the oxygen


def detectable(error: float, *, level: float, two_sided: bool) -> float:
    """Smallest effect that a test at `level` finds in 95 of 100 cases.

    Parameters
    ----------
    error : float
        Standard error of the effect.
    level : float
        Chance of a false finding.
    two_sided : bool

    Returns
    -------
    float
        In the unit of `error`.
    """
    sides = 2.0 if two_sided else 1.0
    return float(error * (special.ndtri(1.0 - level / sides) + special.ndtri(POWER)))


def dose_needed(
    wanted: float, error: float, noise: float, dose: float, *, level: float, two_sided: bool
) -> float:
    """Dose at which an effect would be found in 95 of 100 cases.

    Parameters
    ----------
    wanted : float
        The effect.
    error, noise : float
        Total standard error, and its part from counting, at the present dose.
    dose : float
        Present dose; 1 gives the answer as a multiple of it.
    level : float
        Chance of a false finding.
    two_sided : bool

    Returns
    -------
    float
        The part that does not fall with dose may exceed what is allowed: then infinity.
    """
    allowed = wanted / detectable(1.0, level=level, two_sided=two_sided)
    rest = max(error**2 - noise**2, 0.0)
    if not allowed**2 > rest:
        return float("inf")
    return float(dose * noise**2 / (allowed**2 - rest))


def sensitivity(
    planes: pd.DataFrame,
    *,
    confidence: float,
    n_candidates: int,
    dose: float | None,
    curve: OccupancyCurve | None = None,
) -> dict[str, Any]:
    """Say what the plane averages could have shown.

    Parameters
    ----------
    planes : DataFrame
        ``N, delta_err_A, delta_noise_A, intensity_ratio_err, intensity_ratio_noise``.
    confidence : float
        Of the run; a depth is tested at a tenth of 1 - confidence over all candidates.
    n_candidates : int
        Planes that are tested.
    dose : float or None
        Total electrons per square angstrom; None if unknown (doses are then multiples of it).
    curve : OccupancyCurve, optional
        Calibration: how much intensity a missing atom takes.

    Returns
    -------
    dict
        ``delta_detectable_A`` and ``occupancy_detectable`` (missing share; typical plane before
        the bulk), the multiple of the present dose that would show 0.05 A
        (``delta_dose_factor``) and a tenth of the oxygen missing (``occupancy_dose_factor``; None
        where no dose would), and the same as doses where the present one is known. None where
        planes carry no error.
    """
    level = (1.0 - confidence) / 10.0 / max(n_candidates, 1)
    near = planes[planes["N"] <= n_candidates]
    missing = WANTED["occupancy"]
    wanted = {"delta": WANTED["delta"], "occupancy": missing}
    if curve is not None:
        wanted["occupancy"] = 1.0 - curve.ratio_at(1.0 - missing)
    out: dict[str, Any] = {"dose_e_per_A2": dose}
    for kind, name, unit, two_sided in (
        ("delta", "delta_{}_A", "_A", True),
        ("occupancy", "intensity_ratio_{}", "", False),
    ):
        error, noise = (_typical(near, name.format(part)) for part in ("err", "noise"))
        options: dict[str, Any] = {"level": level, "two_sided": two_sided}
        seen = detectable(error, **options)
        if kind == "occupancy" and curve is not None and np.isfinite(seen):
            seen = 1.0 - float(curve(np.array([1.0 - seen]), np.zeros(1))[0][0])
        factor = dose_needed(wanted[kind], error, noise, 1.0, **options)
        out[f"{kind}_detectable{unit}"] = seen if np.isfinite(seen) else None
        out[f"{kind}_dose_factor"] = factor if np.isfinite(factor) else None
        known = None if dose is None or not np.isfinite(factor) else factor * dose
        out[f"{kind}_dose_e_per_A2"] = known
    return out


def _typical(planes: pd.DataFrame, name: str) -> float:
    if name not in planes:
        return float("nan")
    values = planes[name].to_numpy(dtype=float, na_value=np.nan)
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else float("nan")
