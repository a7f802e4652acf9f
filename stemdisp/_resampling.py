"""Kernels of the statistics: likelihood profiles, row resampling, permutations.

Arrays in, arrays out: no tables, no units, no configuration. `statistics` and `depths` turn these
into statements about planes and columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special


def between_variance(x: np.ndarray, err: np.ndarray) -> float:
    """Variance between members beyond their errors (moments; DerSimonian and Laird 1986)."""
    if x.size < 2:
        return 0.0
    w = 1.0 / err**2
    total = w.sum()
    q = float(np.sum(w * (x - np.sum(w * x) / total) ** 2))
    return max(0.0, (q - (x.size - 1)) / float(total - np.sum(w**2) / total))


def cluster_error(residual: np.ndarray, weight: np.ndarray, clusters: np.ndarray) -> float:
    """Error of a weighted mean whose members share noise inside clusters (0 below 5 clusters).

    Each cluster's sum is divided by one minus its share of the weight, which makes the variance
    unbiased for independent members (Bell and McCaffrey 2002).
    """
    _, group = np.unique(clusters, return_inverse=True)
    share = np.bincount(group, weights=weight) / weight.sum()
    if share.size < 5:
        return 0.0
    sums = np.bincount(group, weights=weight * residual)
    return float(np.sqrt(np.sum(sums**2 / (1.0 - share))) / weight.sum())


# ---- shapes that are linear in an amplitude ------------------------------------------------


@dataclass(frozen=True, eq=False)
class Profile:
    """The best amplitude (and constant) of every trial shape, in closed form."""

    chi2: np.ndarray
    amplitude: np.ndarray
    amplitude_var: np.ndarray
    constant: np.ndarray
    constant_var: np.ndarray


def profile_shapes(
    shapes: np.ndarray, x: np.ndarray, err: np.ndarray, *, constant: bool
) -> Profile:
    """Fit x = amplitude * shape (+ constant) for each row of `shapes` (m, n).

    For a fixed non-linear parameter the rest is linear, so the profile likelihood needs no
    iteration (variable projection, Golub and Pereyra 1973).
    """
    w = 1.0 / err**2
    total = w.sum()
    mean_g = shapes @ w / total if constant else np.zeros(len(shapes))
    mean_x = float(w @ x / total) if constant else 0.0
    g = shapes - mean_g[:, None]
    y = x - mean_x
    sgg = g**2 @ w
    flat = sgg <= 1e-14 * total
    sgg = np.where(flat, 1.0, sgg)
    amplitude = np.where(flat, 0.0, (g @ (w * y)) / sgg)
    residual = y - amplitude[:, None] * g
    return Profile(
        chi2=residual**2 @ w,
        amplitude=amplitude,
        amplitude_var=np.where(flat, np.inf, 1.0 / sgg),
        constant=mean_x - amplitude * mean_g,
        constant_var=1.0 / total + mean_g**2 / sgg,
    )


def exponential(n: np.ndarray, xi: np.ndarray, beta: np.ndarray | float = 1.0) -> np.ndarray:
    """Rows exp(-((n - 1) / xi)^beta)."""
    xi = np.atleast_1d(xi)[:, None]
    beta = np.broadcast_to(np.atleast_1d(beta)[:, None], xi.shape)
    # Beyond e^-700 the value is zero for every purpose; the clip keeps underflow silent.
    return np.exp(-np.clip(((n - 1.0) / xi) ** beta, 0.0, 700.0))


def steps(n: np.ndarray) -> np.ndarray:
    """Rows n <= k for every k that leaves planes on both sides."""
    return (n[None, :] <= np.unique(n)[:-1, None]).astype(float)


def xi_grid(n: np.ndarray) -> np.ndarray:
    """Decay lengths from 'within one plane' to 'straight line over the data'."""
    return np.geomspace(0.1, 100.0 * max(float(np.ptp(n)), 1.0), 401)


def stretched_grid(n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Decay lengths and exponents of trial stretched exponentials."""
    lengths = np.geomspace(0.3, 4.0 * max(float(np.ptp(n)), 1.0), 41)
    exponents = np.geomspace(0.35, 6.0, 21)
    xi, beta = np.meshgrid(lengths, exponents, indexing="ij")
    return xi.ravel(), beta.ravel()


def aicc(chi2: float, n_parameters: int, n_values: int) -> float:
    """Corrected Akaike criterion for known errors; infinite with too few values."""
    spare = n_values - n_parameters - 1
    if spare <= 0:
        return float("inf")
    return float(chi2 + 2 * n_parameters + 2 * n_parameters * (n_parameters + 1) / spare)


def decay_test(
    gain: float, n: np.ndarray, err: np.ndarray, df: np.ndarray, confidence: float
) -> tuple[float, float]:
    """Chance of a chi2 gain this large without any decay, and the gain at `confidence`.

    The length exists only under the alternative, so the largest gain over all lengths is not
    chi2 distributed (Davies 1987). Its law is that of the maximum of a known process, drawn here
    with a fixed seed, Student's with `df` for every plane; far out in the tail the sum over the
    lengths bounds it.
    """
    shapes = exponential(n, xi_grid(n)[::16])
    df = np.minimum(df, 1e6)
    bound = 2.0 * len(shapes) * float(special.stdtr(df.min(), -np.sqrt(max(gain, 0.0))))
    if bound < 1e-4:
        return max(bound, float(np.finfo(float).tiny)), 0.0
    w = 1.0 / err**2
    g = (shapes - (shapes @ w / w.sum())[:, None]) / err
    norm = np.sqrt(np.sum(g**2, axis=1))
    keep = norm > 1e-7 * np.sqrt(w.sum())
    noise = np.random.default_rng(0).standard_t(df, (4000, err.size))
    gains = np.max((noise @ (g[keep] / norm[keep, None]).T) ** 2, axis=1)
    p = float((1 + np.count_nonzero(gains >= gain)) / (gains.size + 1))
    return p, float(np.quantile(gains, confidence))


def profile_xi(
    n: np.ndarray, x: np.ndarray, err: np.ndarray, quantile: float
) -> tuple[np.ndarray, Profile]:
    """Profile over xi: a coarse grid, then fine over the interval, then finer at the best."""
    coarse = xi_grid(n)
    chi2 = profile_shapes(exponential(n, coarse), x, err, constant=True).chi2
    scale = max(1.0, chi2.min() / max(n.size - 3, 1))
    inside = np.flatnonzero(chi2 <= chi2.min() + quantile * scale)
    first, last = max(inside[0] - 1, 0), min(inside[-1] + 1, coarse.size - 1)
    xi = around = np.geomspace(coarse[first], coarse[last], 301)
    for _ in range(3):
        chi2 = profile_shapes(exponential(n, around), x, err, constant=True).chi2
        k = int(np.argmin(chi2))
        around = np.geomspace(around[max(k - 1, 0)], around[min(k + 1, around.size - 1)], 41)
        xi = np.union1d(xi, around)
    return xi, profile_shapes(exponential(n, xi), x, err, constant=True)


def widening(shape: tuple[float, float], n: np.ndarray, err: np.ndarray, correlation: Any) -> float:
    """How much more the decay length varies than for planes that err independently, at least 1.

    `shape` is the length and the amplitude; variances are those of weighted least squares with the
    planes' true covariance between its two sides.
    """
    (length, amplitude), shared = shape, np.nan_to_num(np.asarray(correlation, dtype=float))
    np.fill_diagonal(shared, 1.0)
    g = exponential(n, np.array([length]))[0]
    slope = amplitude * g * (n - 1.0) / length**2
    jac = np.stack([g, slope, np.ones_like(g)], axis=1) / err[:, None]
    inverse = np.linalg.pinv(jac.T @ jac)
    plain, true = inverse[1, 1], (inverse @ (jac.T @ shared @ jac) @ inverse)[1, 1]
    return float(max(1.0, true / plain)) if plain > 0 and np.isfinite(true) else 1.0


def shape_scores(
    n: np.ndarray, x: np.ndarray, err: np.ndarray, chi2: float
) -> dict[str, tuple[float, int]]:
    """Chi2 and number of parameters of each decaying shape."""
    step = profile_shapes(steps(n), x, err, constant=True).chi2.min(initial=np.inf)
    shapes = exponential(n, *stretched_grid(n))
    bent = profile_shapes(shapes, x, err, constant=True).chi2.min()
    return {
        "exponential": (chi2, 3),
        "stretched": (min(float(bent), chi2), 4),
        "step": (float(step), 3),
    }


def decay_values(
    profile: tuple[np.ndarray, Profile, int],
    data: tuple[np.ndarray, np.ndarray],
    quantile: float,
    scale: float,
) -> dict[str, Any]:
    """Estimates, errors and profile intervals of the exponential, named as in DecayFit."""
    (xi, fit, best), (n, err) = profile, data
    slack = fit.chi2[best] + quantile * scale - fit.chi2
    ok = slack >= 0
    open_high = bool(ok[-1])
    length, delta0 = float(xi[best]), float(fit.amplitude[best])
    half = np.sqrt(fit.amplitude_var[ok] * slack[ok])
    ci = [float(np.min(fit.amplitude[ok] - half)), float(np.max(fit.amplitude[ok] + half))]
    if open_high:  # a straight line: delta0 and c grow without bound, against each other
        ci[int(delta0 > 0)] = float(np.copysign(np.inf, delta0))
    g = exponential(n, np.array([length]))[0]
    jac = np.stack([g, delta0 * g * (n - 1.0) / length**2, np.ones_like(g)], axis=1) / err[:, None]
    # At the edge of the grid xi is only bounded, and its column of the Jacobian is empty.
    keep = [0, 2] if best in (0, xi.size - 1) else [0, 1, 2]
    unit = np.linalg.norm(jac[:, keep], axis=0)
    jac = jac[:, keep] / unit
    cov = np.full((3, 3), np.nan)
    cov[np.ix_(keep, keep)] = scale * np.linalg.pinv(jac.T @ jac) / np.outer(unit, unit)
    errors = [float(e) for e in np.sqrt(np.diag(cov))]
    low, high = 0.0 if ok[0] else float(xi[ok][0]), float("inf") if open_high else float(xi[ok][-1])
    return {
        "delta0_A": delta0,
        "delta0_err_A": errors[0],
        "delta0_ci_A": (ci[0], ci[1]),
        "xi_planes": length,
        "xi_err_planes": errors[1],
        "xi_ci_planes": (low, high),
        "c_A": float(fit.constant[best]),
        "c_err_A": errors[2],
        "cov": cov,
    }


# ---- rows as the unit of resampling --------------------------------------------------------


def row_sums(
    values: tuple[np.ndarray, np.ndarray], row: np.ndarray, slot: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Sum weights and weighted values per row and plane slot; `values` are values and errors.

    The weights hold one between-column variance, pooled over the planes: a column with a tiny
    error must not speak for its whole plane.
    """
    x, err = values
    w = 1.0 / err**2
    n_slots = shape[1]
    total = np.bincount(slot, weights=w, minlength=n_slots)
    used = total > 0
    safe = np.where(used, total, 1.0)
    mean = np.bincount(slot, weights=w * x, minlength=n_slots) / safe
    q = float(np.sum(w * (x - mean[slot]) ** 2))
    norm = float(np.sum((total - np.bincount(slot, weights=w**2, minlength=n_slots) / safe)[used]))
    spare = x.size - int(used.sum())
    tau2 = max(0.0, (q - spare) / norm) if norm > 0 and spare > 0 else 0.0
    w = 1.0 / (err**2 + tau2)
    flat = row * n_slots + slot
    size = shape[0] * n_slots
    return (
        np.bincount(flat, weights=w, minlength=size).reshape(shape),
        np.bincount(flat, weights=w * x, minlength=size).reshape(shape),
    )


def resampled_means(weights: np.ndarray, sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Plane means of each resample: `counts` (b, rows) times the rows' sums (rows, planes)."""
    below = counts @ weights
    return np.divide(counts @ sums, below, out=np.full(below.shape, np.nan), where=below > 0)


# ---- correlations --------------------------------------------------------------------------


def pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson correlation along the last axis; NaN where one side does not vary."""
    a = x - x.mean(axis=-1, keepdims=True)
    b = y - y.mean(axis=-1, keepdims=True)
    size_a, size_b = (np.sqrt(np.sum(v**2, axis=-1)) for v in (a, b))
    rounding = [1e-12 * np.sqrt(np.sum(v**2, axis=-1)) for v in (x, y)]
    varies = (size_a > rounding[0]) & (size_b > rounding[1])
    above = np.sum(a * b, axis=-1)
    return np.divide(above, size_a * size_b, out=np.full(np.shape(above), np.nan), where=varies)


def group_means(x: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Mean of its group, for each member."""
    _, index = np.unique(group, return_inverse=True)
    counts = np.bincount(index)
    return (np.bincount(index, weights=x) / np.maximum(counts, 1))[index]


def group_residuals(x: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Each member minus the mean of its group, exactly zero where only rounding is left."""
    out = x - group_means(x, group)
    return np.where(np.abs(out) > 1e-12 * np.max(np.abs(x), initial=0.0), out, 0.0)


def permuted_products(
    a: np.ndarray, b: np.ndarray, group: np.ndarray, n_permutations: int, seed: int
) -> np.ndarray:
    """Sum of a*b after shuffling `b` inside each group, once per permutation."""
    rng = np.random.default_rng(seed)
    out = np.zeros(n_permutations)
    for g in np.unique(group):
        here = group == g
        # Blocks bound the memory: a plane may hold thousands of columns.
        block = max(1, 2_000_000 // max(int(here.sum()), 1))
        for start in range(0, n_permutations, block):
            stop = min(start + block, n_permutations)
            shuffled = rng.permuted(np.tile(b[here], (stop - start, 1)), axis=1)
            out[start:stop] += shuffled @ a[here]
    return out


def site_lookup(i: np.ndarray, j: np.ndarray, at_i: np.ndarray, at_j: np.ndarray) -> np.ndarray:
    """Row of the site at (at_i, at_j) among the sites (i, j), or -1; indices in half steps."""
    if i.size == 0:
        return np.full(np.shape(at_i), -1)
    rows = [np.rint(2 * np.asarray(v)).astype(np.int64) for v in (i, j, at_i, at_j)]
    low = min(rows[1].min(), rows[3].min(initial=0))
    span = int(max(rows[1].max(), rows[3].max(initial=0)) - low) + 1
    have = rows[0] * span + rows[1] - low
    want = rows[2] * span + rows[3] - low
    order = np.argsort(have, kind="stable")
    place = np.minimum(np.searchsorted(have[order], want), have.size - 1)
    found = order[place]
    return np.where(have[found] == want, found, -1)
