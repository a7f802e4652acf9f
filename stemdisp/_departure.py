"""Kernels of the depths: departures from bulk, step-down test, change points, model depths.

Arrays in, arrays out: no tables, no units, no configuration.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from ._resampling import aicc, exponential, profile_shapes, steps, stretched_grid, xi_grid


@dataclass(frozen=True, eq=False)
class Departure:
    """Departures of planes from the bulk mean, candidates first, with total errors.

    ``df`` says how well the errors of the candidates are known: a departure over an error that
    few columns have given follows Student's law, not Gauss's.
    """

    n: np.ndarray
    x: np.ndarray
    err: np.ndarray
    n_candidates: int
    two_sided: bool
    df: np.ndarray

    @property
    def candidates(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Plane numbers, departures and errors of the planes above the bulk."""
        k = self.n_candidates
        return self.n[:k], self.x[:k], self.err[:k]

    def critical(self, level: float) -> np.ndarray:
        """Smallest departures, in errors, that the first step of the step-down test rejects."""
        sides = 2 if self.two_sided else 1
        return -special.stdtrit(self.df, level / (sides * max(self.n_candidates, 1)))

    def tails(self, z: np.ndarray) -> np.ndarray:
        """Chance of departures as large as these (in errors) of the candidates in the bulk."""
        if self.two_sided:
            return 2.0 * special.stdtr(self.df, -np.abs(z))
        return special.stdtr(self.df, -z)


def last_rejected(dep: Departure, z: np.ndarray, level: float) -> np.ndarray:
    """Deepest plane of each row of `z` that Holm's step-down test rejects, else 0.

    Holm (1979) keeps the probability of any false rejection, and so of a depth that is too
    large, at or below `level`, whatever the planes' true values.
    """
    n = dep.candidates[0]
    p = dep.tails(z)
    p = np.where(np.isfinite(p), p, 1.0)
    order = np.argsort(p, axis=1, kind="stable")
    limits = level / np.arange(n.size, 0, -1)
    passed = np.logical_and.accumulate(np.take_along_axis(p, order, axis=1) <= limits, axis=1)
    return np.max(np.where(passed, n[order], 0), axis=1, initial=0)


def smallest_p(dep: Departure, z: np.ndarray) -> float:
    """Chance of a departure as large as the largest of these in any of them (Bonferroni)."""
    p = dep.tails(z)
    known = p[np.isfinite(p)]
    return float(min(1.0, known.size * known.min())) if known.size else float("nan")


def change_point(dep: Departure, critical: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Trial depths (0 and the candidates) and what each costs in chi2.

    Trial depth k: planes up to k are free, plane k departs by at least `critical` errors,
    deeper ones are bulk. Two per free plane is added (Akaike 1974), or noise would make all
    depths equally good.
    """
    n, x, err = dep.candidates
    z = x / err
    size = np.abs(z) if dep.two_sided else z
    beyond = np.append(np.cumsum((z**2)[::-1])[::-1], 0.0)
    beyond = beyond + np.sum((dep.x / dep.err)[n.size :] ** 2)
    short = np.append(0.0, np.maximum(critical - size, 0.0) ** 2)
    return np.append(0, n), beyond + short + 2.0 * np.arange(n.size + 1)


def model_depth(
    dep: Departure, critical: np.ndarray, threshold: float
) -> tuple[str, int, tuple[int, int]]:
    """Depth at which the best smooth or sharp profile falls below the resolution.

    Exponential, stretched exponential, step and a change point with free levels compete with
    'nothing' by AICc. Returns the name, the depth and the range of depths of all profiles within
    `threshold`.
    """
    n = dep.n.astype(float)
    xi, beta = stretched_grid(n)
    families = {
        "exponential": (exponential(n, xi_grid(n)[::4]), 2),
        "stretched": (exponential(n, xi, beta), 3),
        "step": (steps(n[: dep.n_candidates + 1]), 2),
    }
    scores = {"none": aicc(float(np.sum((dep.x / dep.err) ** 2)), 0, n.size)}
    depths, cost = change_point(dep, critical)
    free = int(np.argmin(cost))  # the levels of this many planes, and the change point itself
    if free:
        scores["change-point"] = aicc(float(cost[free]) - 2.0 * free, free + 1, n.size)
    fits = {}
    for name, (shapes, n_parameters) in families.items():
        wide = np.zeros((len(shapes), n.size))
        wide[:, : shapes.shape[1]] = shapes
        fit = profile_shapes(wide, dep.x, dep.err, constant=False)
        chi2 = np.where(dep.two_sided | (fit.amplitude > 0), fit.chi2, np.inf)
        fits[name] = (wide, chi2, fit)
        scores[name] = aicc(float(chi2.min(initial=np.inf)), n_parameters, n.size)
    best = min(scores, key=scores.__getitem__)
    if best == "none":
        return "none", 0, (0, 0)
    if best == "change-point":
        allowed = depths[cost <= cost[free] + threshold]
        return best, int(depths[free]), (int(allowed.min()), int(allowed.max()))
    wide, chi2, fit = fits[best]
    ok = chi2 <= chi2.min() + threshold
    slack = np.sqrt(fit.amplitude_var[ok] * (chi2.min() + threshold - chi2[ok]))
    size = np.abs(fit.amplitude)
    reach = (wide[:, : dep.n_candidates], critical * dep.err[: dep.n_candidates])
    k = int(np.argmin(chi2))
    depth = _visible(dep, size[k : k + 1], reach[0][k : k + 1], reach[1])
    low = _visible(dep, np.maximum(size[ok] - slack, 0.0), reach[0][ok], reach[1])
    high = _visible(dep, size[ok] + slack, reach[0][ok], reach[1])
    return best, int(depth[0]), (int(low.min()), int(high.max()))


def _visible(
    dep: Departure, size: np.ndarray, shapes: np.ndarray, resolution: np.ndarray
) -> np.ndarray:
    seen = size[:, None] * shapes > resolution
    return np.max(np.where(seen, dep.n[: dep.n_candidates], 0), axis=1, initial=0)
