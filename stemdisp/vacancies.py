"""Which single anion columns lack atoms: a test per column, with control of false discoveries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from stemdisp._resampling import between_variance
from stemdisp.tables import check_columns, usable


def flag_vacancies(columns: pd.DataFrame, *, anion: str = "O", bulk_from: int = 10) -> pd.DataFrame:
    """Test every pure anion column for missing atoms.

    Parameters
    ----------
    columns : DataFrame
        After `measure_occupancy`: ``species, N, occupancy, occupancy_err, quality``.
    anion : str
        Species of the pure anion columns.
    bulk_from : int
        Planes from here on are full; what they scatter beyond their errors is added to all errors.

    Returns
    -------
    DataFrame
        With ``vacancy_q``: the smallest share of false discoveries (Benjamini and Hochberg 1995)
        at which the column counts as vacant, from the one-sided p of its occupancy being below 1;
        NaN for bulk columns, which are the reference, and where there is no occupancy. In a
        crystal without interface the reference is the mean of all columns, and all are tested.
    """
    check_columns(columns, ("species", "N", "occupancy", "occupancy_err", "quality"))
    value = columns["occupancy"].to_numpy(dtype=float)
    error = columns["occupancy_err"].to_numpy(dtype=float)
    plane = columns["N"].to_numpy(dtype=float, na_value=np.nan)
    own = (columns["species"] == anion).to_numpy() & usable(columns)
    own &= np.isfinite(value) & np.isfinite(error) & (error > 0)
    bulk = own & ((plane >= bulk_from) | np.isnan(plane))
    tested = own & ~(plane >= bulk_from)
    out = np.full(len(columns), np.nan)
    if tested.any():
        extra = 0.0
        if np.isfinite(plane[own]).any() and np.count_nonzero(bulk) > 1:
            extra = float(between_variance(value[bulk], error[bulk]))
        p = special.ndtr((value - 1.0) / np.sqrt(error**2 + extra))
        out[tested] = _adjusted(p[tested])
    return columns.assign(vacancy_q=out)


def _adjusted(p: np.ndarray) -> np.ndarray:
    from scipy.stats import false_discovery_control  # slow to import

    return false_discovery_control(p)


def count_vacancies(columns: pd.DataFrame, *, rate: float = 0.05) -> dict[str, Any]:
    """Count the columns that the test calls vacant.

    Parameters
    ----------
    columns : DataFrame
        After `flag_vacancies`.
    rate : float
        Expected share of false ones among them.

    Returns
    -------
    dict
        ``n_tested, n_vacant, false_discovery_rate``, and ``deepest_N`` of a vacant column (None
        without one).
    """
    q = columns["vacancy_q"].to_numpy(dtype=float)
    vacant = q <= rate
    planes = columns.loc[vacant, "N"].dropna()
    return {
        "n_tested": int(np.count_nonzero(np.isfinite(q))),
        "n_vacant": int(np.count_nonzero(vacant)),
        "false_discovery_rate": rate,
        "deepest_N": int(planes.max()) if len(planes) else None,
    }
