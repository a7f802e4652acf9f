"""Statements about depth from plain tables: decay, correlation, null test.

Every function takes the tables of `tables.py` and returns numbers with intervals. Where the data
do not carry a statement, the value is NaN and the note says why.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

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

DECAY_SHARE = 0.4


@dataclass(frozen=True, eq=False)
class DecayFit:
    """delta(N) = delta0 * exp(-(N - 1) / xi) + c, with profile-likelihood intervals.

    `model` is the shape that describes the planes best ("exponential", "stretched", "step"),
    "none" where no decay stands out of the noise, "unknown" with too few planes. Whatever the
    shape, delta0, xi and c are those of the exponential; with "none" xi is NaN and delta0 is the
    difference of the first plane from the others, with an interval that holds zero. `cov` is of
    (delta0, xi, c). `p` is the chance of so much decay in noise alone, `aicc` the score of each
    shape (lower is better). An open side of an interval is infinite.
    """

    delta0_A: float = NAN
    delta0_err_A: float = NAN
    delta0_ci_A: Interval = NO_INTERVAL
    xi_planes: float = NAN
    xi_err_planes: float = NAN
    xi_ci_planes: Interval = NO_INTERVAL
    xi_nm: float = NAN
    xi_ci_nm: Interval = NO_INTERVAL
    c_A: float = NAN
    c_err_A: float = NAN
    cov: np.ndarray = field(default_factory=lambda: np.full((3, 3), NAN))
    model: str = "unknown"
    n_planes: int = 0
    chi2: float = NAN
    note: str = ""
    p: float = NAN
    aicc: dict[str, float] = field(default_factory=dict)

    def predict(self, N: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        """Return the fitted delta at plane numbers `N` and its standard error, in angstrom."""
        n = np.atleast_1d(np.asarray(N, dtype=float))
        if not np.isfinite(self.xi_planes):
            return np.full(n.shape, self.c_A), np.full(n.shape, self.c_err_A)
        g = kernel.exponential(n, np.array([self.xi_planes]))[0]
        slope = self.delta0_A * g * (n - 1.0) / self.xi_planes**2
        jac = np.stack([g, slope, np.ones_like(g)], axis=1)
        var = np.einsum("ni,ij,nj->n", jac, np.nan_to_num(self.cov), jac)
        return self.delta0_A * g + self.c_A, np.sqrt(np.maximum(var, 0.0))


@dataclass(frozen=True, eq=False)
class Correlation:
    """Correlation of displacement and vacancies, between planes and within planes.

    `between_planes` is of 1 - occupancy with the size of delta, `within_planes` of delta with the
    occupancy of the own cage: more displacement where oxygen is missing is positive in the first
    and, for a positive delta, negative in the second. Keys are those of summary.json.
    `cages` holds the points of the second: i, j, N, delta_A, cage_occupancy and the two residuals.
    """

    between_planes: dict[str, Any]
    within_planes: dict[str, Any]
    note: str
    cages: pd.DataFrame


def fit_decay(
    planes: pd.DataFrame,
    *,
    confidence: float = 0.95,
    spacing_A: float | None = None,
    correlation: pd.DataFrame | None = None,
) -> DecayFit:
    """Fit the decay of the displacement with depth.

    Parameters
    ----------
    planes : DataFrame
        Needs `N`, `delta_A` and `delta_err_A`, in angstrom; rows without values are skipped.
    confidence : float
        Level of the intervals; 0.4 (1 - confidence) is the chance of a decay being seen in noise:
        the tests for depths need a share, too.
    spacing_A : float, optional
        Distance between planes along the normal. Default: from the column `depth_nm`.
    correlation : DataFrame, optional
        Of delta between planes (`planes.plane_correlation`): neighbours that share cages err
        together, which widens the intervals.

    Returns
    -------
    DecayFit
        Intervals hold all values whose profile chi2 is within the chi2 quantile of the best.
        Where the reduced chi2 exceeds 1, errors are multiplied by its root. Decay is tested
        with the law of the largest gain over all lengths (Davies 1987; Student's for errors that
        `n_columns` and `delta_noise_A` show to be known from few columns). Stretched exponential or
        step replace the exponential as `model` only where their AICc is lower by 2 or more.

    Raises
    ------
    ValueError
        A column is missing, or `confidence` is not between 0 and 1.
    """
    check_columns(planes, ("N", "delta_A", "delta_err_A"), what="planes")
    quantile = chi2_quantile(confidence)
    n, x, err = plane_values(planes, "delta_A", "delta_err_A")
    if n.size < 4:
        note = f"cannot tell: {n.size} planes with a value, at least 4 are needed"
        return DecayFit(n_planes=int(n.size), note=note)
    xi, fit = kernel.profile_xi(n, x, err, quantile)
    best = int(np.argmin(fit.chi2))
    chi2 = float(fit.chi2[best])
    flat = float(np.sum(((x - np.average(x, weights=err**-2)) / err) ** 2))
    scores = kernel.shape_scores(n, x, err, chi2)
    scale = max(1.0, min(score / (n.size - k) for score, k in scores.values() if n.size > k))
    table = {s: kernel.aicc(c / scale, k, n.size) for s, (c, k) in scores.items()}
    table["none"] = kernel.aicc(flat / scale, 1, n.size)
    gain = (flat - chi2) / scale
    # decay and the two depths are looked for: together they may err at 1 - confidence
    level = DECAY_SHARE * (1.0 - confidence)
    df = degrees_of_freedom(planes, "delta_err_A", "delta_noise_A", "n_columns", n)
    p, critical = kernel.decay_test(gain, n, err, df, 1.0 - level)
    common: dict[str, Any] = {"n_planes": int(n.size), "p": p, "aicc": table}
    if p > level:
        root = float(np.sqrt(max(critical, gain) * scale))
        return _no_decay((n, x, err), confidence, (root, flat), common)
    scale = max(1.0, chi2 / (n.size - 3))
    if correlation is not None:
        shape = (float(xi[best]), float(fit.amplitude[best]))
        scale *= kernel.widening(shape, n, err, correlation.reindex(index=n, columns=n))
        xi, fit = kernel.profile_xi(n, x, err, quantile * scale)
        best = int(np.argmin(fit.chi2))
    values = kernel.decay_values((xi, fit, best), (n, err), quantile, scale)
    step_A = _spacing(planes) if spacing_A is None else float(spacing_A)
    lengths = values["xi_planes"], *values["xi_ci_planes"]
    xi_nm, low, high = (float(v * step_A / 10.0) for v in lengths)
    model, note = _preferred(table, values, scale)
    return DecayFit(
        **values, xi_nm=xi_nm, xi_ci_nm=(low, high), model=model, chi2=chi2, note=note, **common
    )


def _no_decay(
    data: tuple[np.ndarray, np.ndarray, np.ndarray],
    confidence: float,
    test: tuple[float, float],
    common: dict[str, Any],
) -> DecayFit:
    """Constant only; the bound on delta0 uses the critical value of the decay test."""
    (n, x, err), (root, chi2) = data, test
    mean, _, mean_err = average(x, err)
    rest = n > n[0]
    other, other_err, _ = average(x[rest], err[rest])
    delta0, delta0_err = float(x[0] - other), float(np.hypot(err[0], other_err))
    ci = (delta0 - root * delta0_err, delta0 + root * delta0_err)
    cov = np.full((3, 3), NAN)
    cov[0, 0], cov[2, 2] = delta0_err**2, mean_err**2
    note = (
        f"no displacement: no decay stands out of the noise; plane {n[0]:.0f} differs from the "
        f"others by less than {max(map(abs, ci)):.2g} A ({confidence:.0%})"
    )
    return DecayFit(
        delta0_A=delta0, delta0_err_A=delta0_err, delta0_ci_A=ci, c_A=mean, c_err_A=mean_err,
        cov=cov, model="none", chi2=chi2, note=note, **common,
    )  # fmt: skip


def _spacing(planes: pd.DataFrame) -> float:
    if "depth_nm" not in planes.columns:
        return NAN
    n, depth = numbers(planes, "N"), numbers(planes, "depth_nm")
    ok = np.isfinite(n) & np.isfinite(depth)
    if np.unique(n[ok]).size < 2:
        return NAN
    return float(10.0 * np.ptp(depth[ok]) / np.ptp(n[ok]))


def _preferred(table: dict[str, float], values: dict[str, Any], scale: float) -> tuple[str, str]:
    """Choose the shape by AICc, with a margin of 2 in favour of the exponential, and say so."""
    rivals = {s: v for s, v in table.items() if s in ("stretched", "step")}
    model = min(rivals, key=rivals.__getitem__)
    gain = table["exponential"] - rivals[model] if np.isfinite(rivals[model]) else 0.0
    notes = []
    if gain >= 2.0:
        name = {"stretched": "a stretched exponential", "step": "a step"}[model]
        notes.append(f"{name} describes the planes better than the exponential (AICc {gain:.1f} "
                     "lower); the values are those of the exponential")  # fmt: skip
    if values["xi_ci_planes"][0] == 0.0:
        notes.append("the decay may be over within one plane: xi has only an upper limit")
    if np.isinf(values["xi_ci_planes"][1]):
        notes.append("the planes do not reach the bulk level: xi has only a lower limit")
    if scale > 1.5:
        notes.append(f"planes scatter {np.sqrt(scale):.1f} times their errors; errors scaled up")
    return model if gain >= 2.0 else "exponential", "; ".join(notes)


def correlate(
    columns: pd.DataFrame,
    planes: pd.DataFrame,
    *,
    bulk_from: int = 10,
    confidence: float = 0.95,
    n_permutations: int = 2000,
    seed: int = 0,
    displaced: str = "K",
    anion: str = "O",
) -> Correlation:
    """Correlate displacement and oxygen vacancies, between planes and within planes.

    Two profiles that both fall with depth always correlate: the value between planes says 'same
    depth', only the value within planes says 'same place'.

    Parameters
    ----------
    columns : DataFrame
        Needs `species`, `i`, `j`, `N`, `delta_A`, `occupancy`, `quality`.
    planes : DataFrame
        Needs `N`, `delta_A`, `occupancy` and their errors; planes up to `bulk_from` are used.
    bulk_from : int
        Within planes: those before it.
    confidence : float
        Level of the intervals.
    n_permutations, seed : int
        Permutations inside planes; also draws of the plane means from their errors.
    displaced, anion : str
        Species that carry delta and occupancy.

    Returns
    -------
    Correlation
        Between planes: Spearman (its p from permutations of the planes, which any two profiles
        that fall pass) and Pearson, with the spread that the plane errors make
        (parametric bootstrap; Pearson's is shifted by its bias, and still too narrow where the
        errors rival the differences between planes). Within planes: Pearson r of delta
        minus its plane mean with the occupancy of the own cage (anions at i +- 1/2, j +- 1/2, two
        at least). Each anion has its own plane's mean taken off first, so that a missing one
        cannot carry the depth profile in. p is two-sided, from permutations inside planes,
        (1 + as large) / (1 + all); the interval is Fisher's z. With few data NaN and a note.

    Raises
    ------
    ValueError
        A column is missing or an argument is out of range.
    """
    check_columns(columns, ("species", "i", "j", "N", "quality", "delta_A", "occupancy"))
    check_columns(planes, ("N", *VALUES["delta"], *VALUES["occupancy"]), what="planes")
    chi2_quantile(confidence)
    if n_permutations < 1:
        raise ValueError(f"n_permutations = {n_permutations} is too few; use 2000 or more")
    near = planes[(numbers(planes, "N") <= bulk_from)]
    between, note = _between(near, confidence, n_permutations, seed)
    cages = _cages(columns[usable(columns)], bulk_from, displaced, anion)
    within, more = _within(cages, confidence, n_permutations, seed)
    notes = [text for text in (note, more) if text]
    return Correlation(between, within, "; ".join(notes), cages)


def _between(
    planes: pd.DataFrame, confidence: float, n_draws: int, seed: int
) -> tuple[dict[str, Any], str]:
    from scipy.stats import rankdata  # slow to import

    delta, occ = (plane_values(planes, *VALUES[k]) for k in ("delta", "occupancy"))
    n, a, b = np.intersect1d(delta[0], occ[0], return_indices=True)
    out: dict[str, Any] = dict.fromkeys(("spearman", "spearman_p", "pearson"), NAN)
    out |= {"spearman_ci": NO_INTERVAL, "pearson_ci": NO_INTERVAL, "n_planes": int(n.size)}
    if n.size < 4:
        return out, f"between planes: cannot tell from {n.size} planes, at least 4 are needed"
    means = np.stack([occ[1][b], delta[1][a]])
    errors = np.stack([occ[2][b], delta[2][a]])
    noise = np.random.default_rng(seed).standard_normal((n_draws, 2, n.size))
    drawn = np.concatenate([means[None], means + errors * noise])
    x, y = 1.0 - drawn[:, 0], np.abs(drawn[:, 1])
    if not np.isfinite(kernel.pearson(x[0], y[0])):
        return out, "between planes: cannot tell, delta or occupancy is the same in all planes"
    tails = [50.0 * (1.0 - confidence), 50.0 * (1.0 + confidence)]
    rho = kernel.pearson(rankdata(x, axis=1), rankdata(y, axis=1))
    low, high = np.nanpercentile(rho[1:], tails)
    out["spearman"] = float(rho[0])
    out["spearman_ci"] = (float(min(low, rho[0])), float(max(high, rho[0])))
    out["spearman_p"] = _rank_p(rankdata(x[0]), rankdata(y[0]), n_draws, seed)
    z = np.arctanh(np.clip(kernel.pearson(x, y), -1 + 1e-12, 1 - 1e-12))
    # Noise pulls a correlation towards zero, once in the estimate and once more in the draws:
    # the second pull is seen, the first is about as large. Allow for one and for both.
    low, high = np.nanpercentile(z[1:], tails)
    pull = [z[0] - np.nanmedian(z[1:])]
    pull.append(2.0 * pull[0])
    out["pearson"] = float(np.tanh(z[0]))
    out["pearson_ci"] = (float(np.tanh(low + min(pull))), float(np.tanh(high + max(pull))))
    return out, ""


def _rank_p(a: np.ndarray, b: np.ndarray, n_draws: int, seed: int) -> float:
    """Two-sided p of a rank correlation if planes were in any order."""
    order = np.random.default_rng([seed, 1])
    shuffled = order.permuted(np.tile(b, (n_draws, 1)), axis=1)
    drawn = np.abs(kernel.pearson(np.broadcast_to(a, shuffled.shape), shuffled))
    as_large = np.count_nonzero(drawn >= abs(float(kernel.pearson(a, b))) * (1.0 - 1e-12))
    return float((1 + as_large) / (1 + n_draws))


def _cages(columns: pd.DataFrame, bulk_from: int, displaced: str, anion: str) -> pd.DataFrame:
    """One row per displaced column before the bulk with at least two anions around it."""
    number = {name: numbers(columns, name) for name in ("i", "j", "N", "delta_A", "occupancy")}
    species, n = columns["species"].to_numpy(), number["N"]
    is_anion = (species == anion) & np.isfinite(number["occupancy"]) & np.isfinite(n)
    is_disp = (species == displaced) & np.isfinite(number["delta_A"]) & (n >= 1) & (n < bulk_from)
    o, d = ({k: v[m] for k, v in number.items()} for m in (is_anion, is_disp))
    step_i, step_j = np.array([-0.5, -0.5, 0.5, 0.5]), np.array([-0.5, 0.5, -0.5, 0.5])
    at = kernel.site_lookup(o["i"], o["j"], d["i"][:, None] + step_i, d["j"][:, None] + step_j)
    count = np.sum(at >= 0, axis=1)
    residual = kernel.group_residuals(o["occupancy"], o["N"])
    sums = [np.sum(np.where(at >= 0, np.append(v, 0.0)[at], 0.0), axis=1)
            for v in (o["occupancy"], residual)]  # fmt: skip
    ok = count >= 2
    table = {name: d[name][ok] for name in ("i", "j", "N", "delta_A")}
    table["cage_occupancy"], own = (v[ok] / count[ok] for v in sums)
    table["delta_residual_A"] = kernel.group_residuals(d["delta_A"][ok], d["N"][ok])
    table["occupancy_residual"] = kernel.group_residuals(own, d["N"][ok])
    frame = pd.DataFrame(table).astype({"N": "Int64"})
    crowd = frame.groupby("N")["N"].transform("size")
    return frame[crowd >= 3].reset_index(drop=True)


def _within(
    cages: pd.DataFrame, confidence: float, n_permutations: int, seed: int
) -> tuple[dict[str, Any], str]:
    out: dict[str, Any] = {"r": NAN, "p": NAN, "ci": NO_INTERVAL, "n_columns": len(cages)}
    n = cages["N"].to_numpy(dtype=float)
    spare = len(cages) - np.unique(n).size  # each plane mean costs one
    if spare < 8:
        return out, f"within planes: cannot tell from {len(cages)} columns with a cage"
    a, b = (cages[c].to_numpy() for c in ("delta_residual_A", "occupancy_residual"))
    r = float(kernel.pearson(a, b))
    if not np.isfinite(r):
        return out, "within planes: cannot tell, delta or occupancy does not vary within planes"
    drawn = kernel.permuted_products(a, b, n, n_permutations, seed)
    as_large = np.count_nonzero(np.abs(drawn) >= abs(float(a @ b)) * (1.0 - 1e-12))
    half = -float(special.ndtri((1.0 - confidence) / 2.0)) / np.sqrt(spare - 2)
    z = np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12))
    out |= {"r": r, "p": float((1 + as_large) / (1 + n_permutations))}
    out["ci"] = (float(np.tanh(z - half)), float(np.tanh(z + half)))
    return out, ""


def null_test(planes: pd.DataFrame, *, bulk_from: int = 10) -> dict[str, Any]:
    """Test that bulk planes show nothing: delta about zero and occupancy about one.

    Parameters
    ----------
    planes : DataFrame
        Needs `N`, `delta_A`, `occupancy` and their errors.
    bulk_from : int
        First plane of the bulk.

    Returns
    -------
    dict
        chi2 and p of delta (`bulk_delta_*`) and occupancy (`bulk_occupancy_*`), each with one
        degree of freedom less than planes because the bulk mean was taken off; `n_planes`;
        `passed`: no p below 0.001, or None where no test was possible; `note`.

    Raises
    ------
    ValueError
        A column is missing.
    """
    check_columns(planes, ("N", *VALUES["delta"], *VALUES["occupancy"]), what="planes")
    out: dict[str, Any] = {}
    sizes = []
    for kind, expected in (("delta", 0.0), ("occupancy", 1.0)):
        n, x, err = plane_values(planes, *VALUES[kind])
        z = ((x - expected) / err)[n >= bulk_from]
        enough = z.size >= 2
        chi2 = float(z @ z) if enough else NAN
        out[f"bulk_{kind}_chi2"] = chi2
        out[f"bulk_{kind}_p"] = float(special.chdtrc(z.size - 1, chi2)) if enough else NAN
        sizes.append(int(z.size))
    known = [p for p in (out["bulk_delta_p"], out["bulk_occupancy_p"]) if np.isfinite(p)]
    out["n_planes"] = max(sizes)
    out["passed"] = bool(min(known) > 0.001) if known else None
    out["note"] = f"bulk planes with a value: {sizes[0]} (delta), {sizes[1]} (occupancy)"
    if len(known) < 2:
        out["note"] += "; two are needed for a test"
    return out
