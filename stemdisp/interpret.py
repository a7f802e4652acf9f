"""What moved: a column's displacement read as that of its cation alone, or of the whole column.

The K column holds as many O atoms as K. Where only K moves, the fitted column follows by a
fraction f that falls with thickness, because channelling weighs the atoms differently.
"""

from __future__ import annotations

import numpy as np

# f for "K alone", multislice at 300 kV, 25 mrad, segments 6-24 mrad (thickness nm: f), and for
# "K and its O together". Between the points f is interpolated; the error covers defocus.
_F_CATION = {5.0: 0.73, 10.0: 0.68, 15.0: 0.61, 20.0: 0.56}
_F_CATION_ERR = 0.04
_F_COLUMN, _F_COLUMN_ERR = 0.915, 0.015


def interpret_displacement(
    delta_A: float, delta_err_A: float, *, species: str, mixed_with: str, thickness_nm: float | str
) -> dict[str, object]:
    """Read a measured displacement of plane 1 in both ways.

    Parameters
    ----------
    delta_A, delta_err_A : float
        Measured displacement of the column and its error.
    species : str
        Cation of the column.
    mixed_with : str
        Species that shares the column; "" if none.
    thickness_nm : float or "unknown"
        Specimen thickness; without it, or outside 5-20 nm, there is no reading for the cation
        alone.

    Returns
    -------
    dict
        The `interpretation` of summary.json.
    """
    column = f"{species}/{mixed_with} column" if mixed_with else f"{species} column"
    out: dict[str, object] = {
        "measured": column,
        "f": None,
        "f_err": None,
        "delta1_cation_only_A": None,
        "delta1_cation_only_err_A": None,
        "delta1_whole_column_A": None,
        "delta1_whole_column_err_A": None,
        "note": "",
    }
    if not np.isfinite(delta_A):
        out["note"] = "no displacement was measured in plane 1"
        return out
    if not mixed_with:
        out["note"] = "the column holds one species; what is measured is its displacement"
        return out
    whole, whole_err = _divide(delta_A, delta_err_A, _F_COLUMN, _F_COLUMN_ERR)
    out |= {"delta1_whole_column_A": whole, "delta1_whole_column_err_A": whole_err}
    if thickness_nm == "unknown":
        out["note"] = (
            f"measured is the shift of the {column}. If {species} alone moved, its shift is larger "
            "by 1/f, and f needs the thickness: set [specimen] thickness_nm"
        )
        return out
    points = sorted(_F_CATION)
    if not points[0] <= float(thickness_nm) <= points[-1]:
        out["note"] = f"f is calibrated from {points[0]:g} to {points[-1]:g} nm only"
        return out
    f = float(np.interp(float(thickness_nm), points, [_F_CATION[p] for p in points]))
    alone, alone_err = _divide(delta_A, delta_err_A, f, _F_CATION_ERR)
    out |= {"f": f, "f_err": _F_CATION_ERR}
    out |= {"delta1_cation_only_A": alone, "delta1_cation_only_err_A": alone_err}
    out["note"] = (
        f"measured is the shift of the {column}; the shifts of the atoms are interpretations. "
        "f was calibrated for KTaO3 at 300 kV"
    )
    return out


def _divide(value: float, error: float, f: float, f_error: float) -> tuple[float, float]:
    """Quotient and its error."""
    return value / f, float(np.hypot(error / f, value * f_error / f**2))
