"""Where the beam really was: drift within a frame and the jitter of its lines.

Each line of a scan is displaced against the frame it belongs to. Displacements (x, y) of all lines
are estimated together against the mean of the other frames. Kernels for `register`: arrays in,
pixels out.

The difference between a frame and the mean is, to first order, minus the gradient of the mean
times the displacement of the line. Least squares weighted by the noise needs the inverse of its
power spectrum; with 1 / P(k) = alpha + beta (2 pi k)^2 (white and iDPC noise, and what lies
between) that is the local operator alpha - beta * Laplacian, so that only neighbouring lines share
an equation and the normal matrix is banded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft, linalg, ndimage, optimize

_SIGNAL_BAND = 0.25  # 1/px: no column is so sharp
_STATE = 4  # unknowns a line: its displacement (x, y), and the slow part of it (x, y)
_BAND = 6  # diagonals of the normal matrix, the main one included
_LEAST_PX = 3e-3
_FIRST_PX = 3.0  # prior of the slow part in the first line
_FRAMES_FOR_PRIOR = 8


@dataclass(frozen=True, eq=False)
class LineEquations:
    """Normal equations of the displacements of the lines of one frame.

    Attributes
    ----------
    own : ndarray, shape (n, 2, 2)
        Information of each line on its displacement (x, y), 1/px^2.
    next : ndarray, shape (n - 1, 2, 2)
        What it shares with the following line.
    right : ndarray, shape (n, 2)
        Right-hand side, 1/px.
    """

    own: np.ndarray
    next: np.ndarray
    right: np.ndarray

    def plus(self, other: LineEquations) -> LineEquations:
        """Equations of both together."""
        return LineEquations(self.own + other.own, self.next + other.next, self.right + other.right)

    def shifted(self, path: np.ndarray) -> LineEquations:
        """Equations of what is left when the lines were moved back by `path` (n, 2)."""
        moved = np.einsum("rij,rj->ri", self.own, path)
        moved[:-1] += np.einsum("rij,rj->ri", self.next, path[1:])
        moved[1:] += np.einsum("rji,rj->ri", self.next, path[:-1])
        return LineEquations(self.own, self.next, self.right - moved)


@dataclass(frozen=True)
class LinePrior:
    """How lines move: white jitter and a random walk, standard deviations in px (a line)."""

    jitter_x: float
    jitter_y: float
    walk: float


def inverse_noise(psd: tuple[np.ndarray, np.ndarray]) -> tuple[float, float]:
    """Coefficients (alpha, beta) of 1 / P(k) = alpha + beta (2 pi k)^2 where columns live."""
    k, power = (np.asarray(part, dtype=float) for part in psd)
    use = (k > 0) & (k < _SIGNAL_BAND) & (power > 0)
    basis = np.column_stack([np.ones(use.sum()), (2 * np.pi * k[use]) ** 2]) * power[use, None]
    # relative deviations, each ring with the number of its frequencies
    weight = np.sqrt(k[use])
    (alpha, beta), _ = optimize.nnls(basis * weight[:, None], weight)
    return float(alpha), float(beta)


def denoised(image: np.ndarray, psd: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Image with every frequency weighted by its own signal, for clean gradients.

    Spectral subtraction: 1 - noise / power, zero where the power is below four times the noise.
    """
    ny, nx = image.shape
    spectrum = fft.dctn(image - image.mean(), norm="ortho")
    k = np.hypot(np.arange(nx) / (2 * nx), np.arange(ny)[:, None] / (2 * ny))
    noise = np.interp(k, *psd)
    power = spectrum**2
    keep = np.where(
        (power > 4 * noise) & (k < _SIGNAL_BAND), 1 - noise / np.maximum(power, noise), 0
    )
    return fft.idctn(spectrum * keep, norm="ortho")


def line_equations(
    frame: np.ndarray, reference: np.ndarray, weights: tuple[float, float]
) -> LineEquations:
    """Set up the normal equations of the lines' displacements in a frame against a clean reference.

    Parameters
    ----------
    frame, reference : ndarray, shape (ny, nx)
        On the same pixels; NaN in the frame counts as agreement.
    weights : (float, float)
        alpha and beta of the noise of the frame.
    """
    alpha, beta = weights
    rest = np.where(np.isfinite(frame), frame - reference, 0.0)
    rest -= rest.mean()
    # content displaced by t is reference - gradient * t
    slopes = [-np.gradient(reference, axis=1), -np.gradient(reference, axis=0)]
    target = alpha * rest - beta * ndimage.laplace(rest, mode="nearest")
    n = len(frame)
    own, after, right = np.empty((n, 2, 2)), np.empty((n - 1, 2, 2)), np.empty((n, 2))
    steps = [np.diff(slope, axis=1) for slope in slopes]
    for i, a in enumerate(slopes):
        right[:, i] = np.einsum("rx,rx->r", a, target)
        for j, b in enumerate(slopes):
            here = np.einsum("rx,rx->r", a, b)
            along = np.einsum("rx,rx->r", steps[i], steps[j])
            own[:, i, j] = (alpha + 2 * beta) * here + beta * along
            after[:, i, j] = -beta * np.einsum("rx,rx->r", a[:-1], b[1:])
    return LineEquations(own, after, right)


def equations_of_lines(
    part: np.ndarray, reference: np.ndarray, weights: tuple[float, float], *, line_axis: int
) -> LineEquations:
    """Set up the equations of lines along either axis; displacements are (x, y) in both cases."""
    if line_axis == 0:
        return line_equations(part, reference, weights)
    turned = line_equations(part.T, reference.T, weights)
    return LineEquations(
        turned.own[:, ::-1, ::-1], turned.next[:, ::-1, ::-1], turned.right[:, ::-1]
    )


def uniform_drift(equations: LineEquations) -> np.ndarray:
    """Displacement that is linear in the line: offset and slope, shape (2, 2), last axis (x, y).

    The line runs from -0.5 (first) to 0.5 (last).
    """
    n = len(equations.right)
    line = np.linspace(-0.5, 0.5, n)
    design = np.zeros((n, 2, 4))
    for axis in range(2):
        design[:, axis, axis], design[:, axis, 2 + axis] = 1.0, line
    matrix = np.einsum("rip,rij,rjq->pq", design, equations.own, design)
    cross = np.einsum("rip,rij,rjq->pq", design[:-1], equations.next, design[1:])
    matrix += cross + cross.T
    right = np.einsum("rip,ri->p", design, equations.right)
    # the ridge holds frames in which nothing is seen
    matrix += 1e-4 * np.eye(4)
    return np.linalg.solve(matrix, right).reshape(2, 2)


def line_path(equations: LineEquations, prior: LinePrior) -> np.ndarray:
    """Most likely displacement of every line, shape (n, 2), given how lines move."""
    band = _normal_band(equations, prior)
    right = np.zeros((len(equations.right), _STATE))
    right[:, :2] = equations.right
    solved = linalg.solveh_banded(band, right.ravel(), lower=True, check_finite=False)
    return solved.reshape(-1, _STATE)[:, :2]


def find_prior(all_equations: list[LineEquations]) -> LinePrior:
    """Prior under which the frames' equations are most likely (evidence, Nelder-Mead).

    Source of the evidence of a linear Gaussian model: Rasmussen & Williams, Gaussian Processes
    for Machine Learning (2006), section 2.7.
    """
    picked = np.linspace(0, len(all_equations) - 1, min(len(all_equations), _FRAMES_FOR_PRIOR))
    chosen = [all_equations[k] for k in np.unique(picked.astype(int))]

    def cost(logs: np.ndarray) -> float:
        prior = LinePrior(*np.exp(np.clip(logs, np.log(_LEAST_PX / 10), 2.0)))
        return -sum(_evidence(equations, prior) for equations in chosen)

    start = np.log([0.1, 0.1, 0.02])
    simplex = np.vstack([start, start + np.diag([1.5, 1.5, -1.5])])
    found = optimize.minimize(
        cost,
        start,
        method="Nelder-Mead",
        options={"initial_simplex": simplex, "xatol": 0.05, "fatol": 0.05, "maxfev": 120},
    )
    return LinePrior(*(float(value) for value in np.exp(np.clip(found.x, -9.0, 2.0))))


def _normal_band(equations: LineEquations, prior: LinePrior) -> np.ndarray:
    """Lower band of the normal matrix: unknowns of a line are t_x, t_y, w_x, w_y."""
    n = len(equations.right)
    band = np.zeros((_BAND, n, _STATE))
    for i in range(2):
        for j in range(i + 1):
            band[i - j, :, j] += equations.own[:, i, j]
    for i in range(2):
        for j in range(2):
            band[_STATE + i - j, :-1, j] += equations.next[:, j, i]
    for axis, jitter in enumerate((prior.jitter_x, prior.jitter_y)):
        tie = max(jitter, _LEAST_PX) ** -2.0
        band[0, :, axis] += tie
        band[0, :, 2 + axis] += tie
        band[2, :, axis] -= tie
        step = max(prior.walk, _LEAST_PX / 10) ** -2.0
        band[0, :-1, 2 + axis] += step
        band[0, 1:, 2 + axis] += step
        band[_STATE, :-1, 2 + axis] -= step
        band[0, 0, 2 + axis] += _FIRST_PX**-2.0
    return band.reshape(_BAND, n * _STATE)


def _evidence(equations: LineEquations, prior: LinePrior) -> float:
    """Log likelihood of a frame's equations under a prior, up to a constant."""
    n = len(equations.right)
    factor = linalg.cholesky_banded(_normal_band(equations, prior), lower=True, check_finite=False)
    right = np.zeros((n, _STATE))
    right[:, :2] = equations.right
    solved = linalg.cho_solve_banded((factor, True), right.ravel(), check_finite=False)
    jitter = [max(value, _LEAST_PX) for value in (prior.jitter_x, prior.jitter_y)]
    walk = max(prior.walk, _LEAST_PX / 10)
    log_prior = -n * np.sum(np.log(jitter)) - 2 * (n - 1) * np.log(walk)
    return float(0.5 * right.ravel() @ solved - np.sum(np.log(factor[0])) + log_prior)
