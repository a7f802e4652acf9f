"""Which single anion columns lack atoms: a test per column, with control of false discoveries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from stemdisp._resampling import between_variance
from stemdisp.occupancy import AnionReference
from stemdisp.tables import check_columns, usable


def flag_vacancies(columns: pd.DataFrame, *, anion: str = "O") -> pd.DataFrame:
    """Test every pure anion column for missing atoms.

    Parameters
    ----------
    columns : DataFrame
        After `measure_occupancy`: ``species, N, intensity_ratio, intensity_ratio_err, quality``,
        and ``attrs["anion_reference"]``. Tested are ratios of intensities: a calibration is steep
        near full occupancy and would turn noise into vacancies.
    anion : str
        Species of the pure anion columns.

    Returns
    -------
    DataFrame
        With ``vacancy_q``: the smallest share of false discoveries (Benjamini and Hochberg 1995)
        at which the column counts as vacant, from the one-sided p of its ratio being below 1.
        What the reference columns scatter beyond their errors is added to all errors. NaN for
        the reference columns and where there is no ratio. In a crystal without interface all
        columns are the reference, and all are tested against their mean.
    """
    check_columns(columns, ("species", "N", "intensity_ratio", "intensity_ratio_err", "quality"))
    value = columns["intensity_ratio"].to_numpy(dtype=float)
    error = columns["intensity_ratio_err"].to_numpy(dtype=float)
    own = (columns["species"] == anion).to_numpy() & usable(columns)
    own &= np.isfinite(value) & np.isfinite(error) & (error > 0)
    reference = columns.attrs.get("anion_reference")
    bulk = own & (reference.bulk if isinstance(reference, AnionReference) else False)
    everything = bool((bulk == own).all())
    tested = own if everything else own & ~bulk
    out = np.full(len(columns), np.nan)
    if tested.any() and np.count_nonzero(bulk) > 1:
        extra = 0.0 if everything else float(between_variance(value[bulk], error[bulk]))
        out[tested] = _adjusted(special.ndtr((value - 1.0) / np.sqrt(error**2 + extra))[tested])
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
        ``n_tested, n_vacant, false_discovery_rate``.
    """
    q = columns["vacancy_q"].to_numpy(dtype=float)
    vacant = q <= rate
    return {
        "n_tested": int(np.count_nonzero(np.isfinite(q))),
        "n_vacant": int(np.count_nonzero(vacant)),
        "false_discovery_rate": rate,
    }
