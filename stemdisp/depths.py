"""How deep displacement and vacancies reach, and whether the two depths coincide.

Depths are found plane by plane against the bulk. Where the data do not carry a depth, it is NaN
and the note says why.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from . import _departure as departure
from . import _resampling as kernel
from ._values import (
    NAN,
    NO_INTERVAL,
    VALUES,
    Interval,
    average,
    chi2_quantile,
    degrees_of_freedom,
    numbers,
    plane_values,
)
from .tables import check_columns, usable

# By quantity: the known part of its error, and how many columns a plane has.
KNOWN = {
    "delta": ("delta_noise_A", "n_columns"),
    "occupancy": ("intensity_ratio_noise", "n_anions"),
}


@dataclass(frozen=True)
class Depth:
    """A depth in planes with its interval; 0 = nothing found, NaN = cannot tell.

    `p` of a depth: the chance of a departure as clear as the clearest one, in any candidate plane,
    where there is none. Of a difference: two-sided, from the bootstrap, for equal depths.
    """

    N: float
    ci: Interval
    method: str
    note: str = ""
    p: float = NAN


@dataclass(frozen=True)
class Depths:
    """Depths of displacement and vacancies, their difference, and the models' own answers.

    `difference` is vacancy depth minus displacement depth.
    """

    displacement: Depth
    vacancy: Depth
    difference: Depth
    displacement_model: Depth
    vacancy_model: Depth


def find_depths(
    columns: pd.DataFrame,
    planes: pd.DataFrame,
    *,
    bulk_from: int = 10,
    confidence: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
    displaced: str = "K",
    anion: str = "O",
) -> Depths:
    """Find the last displaced plane, the last plane with vacancies, and how far apart they are.

    Parameters
    ----------
    columns : DataFrame
        Needs `species`, `i`, `N`, `delta_A`, `delta_err_A`, `occupancy`, `occupancy_err`,
        `quality`; used only for the difference.
    planes : DataFrame
        Needs `N` and the same four values with total errors. Where both tables have
        `intensity_ratio` and its error, these are tested in the place of calibrated occupancies.
    bulk_from : int
        First plane of the bulk reference. Planes before it are candidates.
    confidence : float
        Level of the intervals.
    n_resamples, seed : int
        Bootstrap of the difference.
    displaced, anion : str
        Species that carry delta and occupancy.

    Returns
    -------
    Depths
        Depth N: the deepest candidate that Holm's step-down test (1979) sets apart from the bulk
        mean; one-sided for occupancy, two-sided for delta; by Student's law where the table says
        how many columns a plane has and which part of its error is noise. Errors hold those of the
        plane and of the bulk mean, and the scatter of bulk planes beyond their errors. The chance
        of a depth that is too large is at most (1 - confidence) / 10, because a depth is one whole
        number.
        Its interval: change points within the chi2 quantile of the best, for departures as large
        as the test can see (the note gives that size), widened to what the test finds at
        1 - confidence and over planes without a value. The `_model` depths: where the best of
        exponential, stretched, step and change point (AICc) falls below that size. Difference:
        percentiles of one bootstrap of the [001] rows (floor of `i`), which keeps the displaced
        columns and the anions of a row together.

    Raises
    ------
    ValueError
        A column is missing or an argument is out of range.
    """
    value_names = ("delta_A", "delta_err_A", "occupancy", "occupancy_err")
    check_columns(columns, ("species", "i", "N", "quality", *value_names))
    check_columns(planes, ("N", *value_names), what="planes")
    steepness = _steepness(planes, bulk_from)
    columns, planes = _as_measured(columns), _as_measured(planes)
    quantile = chi2_quantile(confidence)
    if n_resamples < 1:
        raise ValueError(f"n_resamples = {n_resamples} is too few; use 1000 or more")
    level = (1.0 - confidence) / 10.0
    found = {}
    for kind, two_sided in (("delta", True), ("occupancy", False)):
        dep = _departure(planes, kind, bulk_from, two_sided=two_sided)
        scale = 1.0 if kind == "delta" else steepness
        found[kind] = (dep, *_depth(dep, level, quantile, scale))
    disp, vac = found["delta"], found["occupancy"]
    good = columns[usable(columns)]
    parts = {
        kind: good[(good["species"] == species).to_numpy()]
        for kind, species in (("delta", displaced), ("occupancy", anion))
    }
    difference = _difference(found, parts, (bulk_from, level, confidence), (n_resamples, seed))
    return Depths(disp[1], vac[1], difference, disp[2], vac[2])


def _as_measured(table: pd.DataFrame) -> pd.DataFrame:
    """Put ratios of intensities in the place of calibrated occupancies, where there are some.

    A calibration turns a difference from bulk into atoms; whether there is one does not depend on
    it, and a steep curve would only make the errors of full planes uneven.
    """
    if "intensity_ratio" not in table:
        return table
    return table.assign(
        occupancy=table["intensity_ratio"], occupancy_err=table["intensity_ratio_err"]
    )


def _steepness(planes: pd.DataFrame, bulk_from: int) -> float:
    """How much occupancy a little intensity of full planes is; 1 without a calibration."""
    if "intensity_ratio_err" not in planes:
        return 1.0
    full = planes[numbers(planes, "N") >= bulk_from]
    ratio = numbers(full, "occupancy_err") / numbers(full, "intensity_ratio_err")
    ratio = ratio[np.isfinite(ratio)]
    return float(np.median(ratio)) if ratio.size else 1.0


def _departure(
    planes: pd.DataFrame, kind: str, bulk_from: int, *, two_sided: bool
) -> departure.Departure | str:
    """Departures from the bulk mean (deficit for the occupancy), or why there are none."""
    n, x, err = plane_values(planes, *VALUES[kind])
    bulk = n >= bulk_from
    if not bulk.any() or bulk.all():
        where = "below" if bulk.any() else "at or beyond"
        return f"cannot tell: no plane with a value {where} N = {bulk_from}"
    mean, _, mean_err = average(x[bulk], err[bulk])
    # Bulk planes that scatter beyond their errors show what the errors of all planes lack.
    extra = kernel.between_variance(x[bulk], err[bulk])
    total = np.sqrt(err**2 + extra + np.where(bulk, 0.0, mean_err**2))
    sign = 1.0 if two_sided else -1.0
    noise, count = KNOWN[kind]
    df = degrees_of_freedom(planes, VALUES[kind][1], noise, count, n[~bulk])
    return departure.Departure(n, sign * (x - mean), total, int(np.sum(~bulk)), two_sided, df)


def _depth(
    dep: departure.Departure | str, level: float, quantile: float, scale: float
) -> tuple[Depth, Depth]:
    """Depth of one quantity: by the step-down test, and by model.

    `scale` turns departures into the unit that the note gives.
    """
    if isinstance(dep, str):
        return Depth(NAN, NO_INTERVAL, "holm", dep), Depth(NAN, NO_INTERVAL, "none", dep)
    n, x, err = dep.candidates
    z = (x / err)[None, :]
    depth = int(departure.last_rejected(dep, z, level)[0])
    loose = departure.last_rejected(dep, z, 10.0 * level)[0]
    critical = dep.critical(level)
    trial, cost = departure.change_point(dep, critical)
    allowed = trial[cost <= cost.min() + quantile]
    low, high = min(allowed.min(), depth), max(allowed.max(), depth, loose)
    after = dep.n[dep.n > high]
    high = max(high, after[0] - 1) if after.size else high
    unit = " A" if dep.two_sided else ""
    notes = [
        f"less than {scale * float(np.median(critical * err)):.2g}{unit} cannot be told from bulk"
    ]
    if depth == 0:
        notes.insert(0, "no plane departs from bulk")
    elif depth >= n[-1]:
        notes.append("the deepest candidate departs from bulk: a larger bulk_from may be needed")
    size = np.abs(z[0]) if dep.two_sided else z[0]
    unseen = np.setdiff1d(np.arange(1, depth), n[size > dep.critical(10.0 * level)])
    if unseen.size:
        notes.append("no clear departure at N = " + ", ".join(map(str, unseen)))
    name, k, ci = departure.model_depth(dep, critical, quantile)
    p = departure.smallest_p(dep, z[0])
    return (
        Depth(depth, (float(low), float(high)), "holm", "; ".join(notes), p),
        Depth(k, (float(min(ci[0], k)), float(max(ci[1], k))), name),
    )


def _difference(
    found: dict[str, tuple[departure.Departure | str, Depth, Depth]],
    parts: dict[str, pd.DataFrame],
    limits: tuple[int, float, float],
    draws: tuple[int, int],
) -> Depth:
    """Vacancy depth minus displacement depth, with rows resampled for both at once."""
    (bulk_from, level, confidence), (n_resamples, seed) = limits, draws
    method = "row bootstrap"
    depths = {kind: found[kind][1].N for kind in found}
    if not all(np.isfinite(list(depths.values()))):
        return Depth(NAN, NO_INTERVAL, method, "cannot tell: one of the depths is unknown")
    if not any(depths.values()):
        return Depth(NAN, NO_INTERVAL, method, "nothing found, so there is nothing to compare")
    data = {k: _row_data(parts[k], *VALUES[k]) for k in parts}
    rows = np.unique(np.concatenate([d[0] for d in data.values()]))
    point = depths["occupancy"] - depths["delta"]
    if rows.size < 5:
        note = f"cannot tell: {rows.size} [001] rows, at least 5 are needed for an interval"
        return Depth(point, NO_INTERVAL, method, note)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(rows.size, np.full(rows.size, 1.0 / rows.size), size=n_resamples)
    counts = np.vstack([np.ones(rows.size), counts])  # the first one is the sample itself
    drawn = {}
    departures = {kind: dep for kind, (dep, *_) in found.items() if not isinstance(dep, str)}
    for kind, (row, n, x, err) in data.items():
        dep = departures[kind]
        cand = dep.candidates
        slots = np.append(cand[0], bulk_from)
        slot = np.searchsorted(slots, np.minimum(n, bulk_from))
        known = slots[slot] == np.minimum(n, bulk_from)
        shape = (rows.size, slots.size)
        index = np.searchsorted(rows, row)[known]
        sums = kernel.row_sums((x[known], err[known]), index, slot[known], shape)
        mean = kernel.resampled_means(*sums, counts)
        shift = (mean - mean[0]) if dep.two_sided else (mean[0] - mean)
        z = (cand[1] + shift[1:, :-1] - shift[1:, -1:]) / cand[2]
        drawn[kind] = departure.last_rejected(dep, z, level)
    both = drawn["occupancy"] - drawn["delta"]
    tail = 50.0 * (1.0 - confidence)
    low = float(np.percentile(both, tail, method="lower"))
    high = float(np.percentile(both, 100.0 - tail, method="higher"))
    note = "" if all(depths.values()) else "one of the two was not found and counts as depth 0"
    sides = min(np.count_nonzero(both <= 0), np.count_nonzero(both >= 0))
    p = min(1.0, 2.0 * (1 + sides) / (1 + both.size))
    return Depth(point, (min(low, point), max(high, point)), method, note, p)


def _row_data(part: pd.DataFrame, value: str, error: str) -> tuple[np.ndarray, ...]:
    n, i, x, err = (numbers(part, name) for name in ("N", "i", value, error))
    ok = np.isfinite(n) & np.isfinite(i) & np.isfinite(x) & np.isfinite(err) & (err > 0)
    return np.floor(i[ok] + 1e-6), n[ok], x[ok], err[ok]
