"""What moved: a column's displacement read as that of its cation alone, or of the whole column.

The K column holds as many O atoms as K. Where only K moves, the fitted column follows by a
fraction f that falls with thickness, because channelling weighs the atoms differently.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from stemdisp.response import (
    CATION_F,
    CATION_F_ERR,
    cation_displacement,
    column_displacement,
    thickness_range,
)


def read_planes(
    planes: pd.DataFrame, *, mixed: bool, thickness_nm: float | str, calibrated: bool = True
) -> pd.DataFrame:
    """Read the displacement of every plane in both ways.

    Parameters
    ----------
    planes : DataFrame
        ``N, delta_A, delta_err_A``: measured, of the columns.
    mixed : bool
        Whether the displaced columns hold anions too.
    thickness_nm : float or "unknown"
        Specimen thickness; without it, or outside the calibration, there is no reading for the
        cation alone.
    calibrated : bool
        Whether the calibration is for this crystal and view.

    Returns
    -------
    DataFrame
        With ``delta_cation_A`` (only the cations move) and ``delta_column_A`` (all atoms of a
        column move) and their errors; both are as measured where columns hold one species.
    """
    value, error = (planes[n].to_numpy(dtype=float) for n in ("delta_A", "delta_err_A"))
    if not mixed:
        cation = column = (value, error)
    else:
        known = thickness_nm if calibrated else "unknown"
        cation, column = cation_displacement(value, error, known), column_displacement(value, error)
    return planes.assign(
        delta_cation_A=cation[0],
        delta_cation_err_A=cation[1],
        delta_column_A=column[0],
        delta_column_err_A=column[1],
    )


def interpret_displacement(
    delta_A: float,
    delta_err_A: float,
    *,
    species: str,
    mixed_with: str,
    thickness_nm: float | str,
    calibrated: bool = True,
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
        Specimen thickness; without it, or outside the calibration, there is no reading for the
        cation alone.
    calibrated : bool
        Whether the calibration is for this crystal and view.

    Returns
    -------
    dict
        The `interpretation` of summary.json. ``f`` is the measured displacement over that of the
        cation alone.
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
    one = pd.DataFrame({"N": [1], "delta_A": [delta_A], "delta_err_A": [delta_err_A]})
    read = read_planes(one, mixed=True, thickness_nm=thickness_nm, calibrated=calibrated).iloc[0]
    out |= {
        "delta1_whole_column_A": float(read["delta_column_A"]),
        "delta1_whole_column_err_A": float(read["delta_column_err_A"]),
    }
    if not calibrated:
        out["note"] = "f is calibrated for KTaO3 along [1-10] only"
        return out
    if isinstance(thickness_nm, str):
        out["note"] = (
            f"measured is the shift of the {column}. If {species} alone moved, its shift is larger "
            "by 1/f, and f needs the thickness: set [specimen] thickness_nm"
        )
        return out
    alone = float(read["delta_cation_A"])
    if not np.isfinite(alone):
        low, high = thickness_range(CATION_F)
        out["note"] = f"f is calibrated from {low:g} to {high:g} nm only"
        return out
    out |= {
        "f": delta_A / alone if alone else None,
        "f_err": CATION_F_ERR,
        "delta1_cation_only_A": alone,
        "delta1_cation_only_err_A": float(read["delta_cation_err_A"]),
        "note": f"measured is the shift of the {column}; the shifts of the atoms are "
        "interpretations. f was calibrated for KTaO3 at 300 kV",
    }
    return out
