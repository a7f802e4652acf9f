"""What the joint fit knows: values, covariance, misfit and quality bits in the user's units."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from stemdisp import _joint
from stemdisp._background import block_sums
from stemdisp._border import near_border
from stemdisp._ellipse import axes
from stemdisp._kernels import means_under
from stemdisp._medians import middle
from stemdisp._memory import image_room
from stemdisp._model import Problem, State, seen_weight
from stemdisp._system import System
from stemdisp._windows import covariance_rows, quadratic_forms, window_covariance
from stemdisp.noise import NoiseLevel, Periodograms, misfit_ratio, ring_spectrum
from stemdisp.tables import Quality

if TYPE_CHECKING:
    from stemdisp._start import Scaled

WIDTH_BOUNDS_A = (0.22, 0.95)
NEIGHBOURHOOD_A = 3.2
DETECTION = 3.0  # standard errors of intensity
EDGE_WIDTHS = 2.5  # a column closer to the border than this many widths is cut by it
MASKED_SHARE = 0.1
BLOCK = 0.9  # widths: blocks over which the residual is averaged before its power is taken
SAMPLE = 10_000  # blocks from which the typical power is taken
UNDER = 3.0  # half window in widths of what counts as under a column
SINGULAR = 1e-7  # share of a variance that is added to it, for rounding
# Displacements at interfaces reach 0.6 A; neighbours are 1.4 A apart.
MOVED_A = 0.9
MISFIT = 6.0  # residual power under a column over that of the image


@dataclass(frozen=True, eq=False)
class Fit:
    """Everything the joint fit knows beyond the table.

    Attributes
    ----------
    covariance : csr_array, shape (3 n, 3 n)
        Covariance of ``(intensity, x, y)`` of column k at rows ``3 k .. 3 k + 2``, in
        signal*A^2 and angstrom, filled for columns closer than 3.2 A. Row order is that of the
        table.
    residual : ndarray, shape (ny, nx)
        Image minus model; 0 where masked.
    mask : ndarray of bool
        Pixels that were used.
    noise : NoiseLevel
        Kind and level in use.
    misfit : float
        Residual power in the columns' band over what noise explains; 1 is perfect.
    sigma_A : dict of str to float
        Width of each species (median where columns or sites have their own).
    iterations : int
        Gauss-Newton steps taken.
    chi2 : dict of str to float
        Reduced chi-square of each species: `misfit`, shared out by the power of the residual
        under its columns.
    axes_A : dict of str to (float, float, float)
        With ``widths="ellipse"``: long and short width and the angle of the long one in degrees
        from x towards y; else empty.
    """

    covariance: sparse.csr_array
    residual: np.ndarray
    mask: np.ndarray
    noise: NoiseLevel
    misfit: float
    sigma_A: dict[str, float]
    iterations: int
    chi2: dict[str, float] = field(default_factory=dict)
    axes_A: dict[str, tuple[float, float, float]] = field(default_factory=dict)

    def spectrum(self) -> tuple[np.ndarray, np.ndarray]:
        """Give the ring spectrum of the residual: 1/px, and power in signal units squared."""
        return ring_spectrum(self.residual, self.mask)

    def __deepcopy__(self, memo: dict[int, Any]) -> Fit:
        """Return itself: pandas copies ``attrs`` on every operation, and this never changes."""
        return self

    def variance(self, weights: sparse.csr_array) -> np.ndarray:
        """Variance of linear combinations ``weights @ parameters``; shape (n_combinations,)."""
        return np.asarray((weights @ self.covariance).multiply(weights).sum(axis=1)).ravel()


@dataclass(frozen=True, eq=False)
class Measured:
    """Noise at the end of a fit: its level, the residual's power, the (weighted) residual."""

    level: NoiseLevel
    powers: Periodograms
    residual: np.ndarray


def covariance_matrix(
    problem: Problem, state: State, level: float, radius: float, units: np.ndarray
) -> tuple[sparse.csr_array, np.ndarray]:
    """Covariance (3 n, 3 n) of intensity, x and y, and their errors (n, 3), in the table's order.

    Inverse of the local information matrix, plus what the shared parameters (widths; for white
    noise also the background) add.

    Parameters
    ----------
    problem, state : Problem, State
        The fit.
    level : float
        Of the noise.
    radius : float
        Columns closer than this get their covariance filled.
    units : ndarray, shape (3,)
        What a unit of V, x and y is worth.
    """
    n, place = len(state.columns), problem.strips.order
    near = problem.near.closer(state.columns, radius)
    blocks = np.empty((len(near.indices), 3, 3))
    system = _joint.information(problem, state)
    wide, prior = system.neighbours, _joint.priors(problem, state)
    share, pairs = problem.crew.share, (near.indptr, near.indices)
    n_own, border = 4 if problem.own_widths else 3, _shared_border(problem, system)
    response = np.empty_like(border)
    share(
        window_covariance, n, *pairs, wide.indptr, wide.indices, system.blocks, prior, n_own,
        border, response, blocks,
    )  # fmt: skip
    # a column that the image says nothing of has no errors, and says nothing of what all share
    response[~np.isfinite(response)] = 0.0
    shared = _shared_response(problem, system, border, response)
    count = np.diff(near.indptr)
    # entries of a column's three rows follow one another; columns in the table's order
    rows = np.zeros(n + 1, np.int64)
    rows[1:][place] = 9 * count
    ends = np.cumsum(rows)
    data, cols, errors = np.empty(ends[-1]), np.empty(ends[-1], np.int32), np.empty((n, 3))
    share(
        covariance_rows, n, *pairs, blocks, shared, np.sqrt(level) * units, place, ends[place],
        data, cols, errors,
    )  # fmt: skip
    each = np.repeat(rows[1:] // 3, 3)
    indptr = np.concatenate([[0], np.cumsum(each)]).astype(np.int32)
    return sparse.csr_array((data, cols, indptr), shape=(3 * n, 3 * n)), errors


def _shared_border(problem: Problem, system: System) -> np.ndarray:
    """Give the information between V, x, y of columns and what they share; (n, 3, m).

    The background varies so slowly that it is one and the same under a column and its neighbours:
    it adds one local parameter to the widths.
    """
    border = system.border[:, :3]
    if system.surface is not None:
        border = np.concatenate([border, np.zeros((len(border), 3, 1))], axis=2)
        border[:, 0, -1] = system.surface.sum(axis=1)
    return np.where(problem.frozen[:, None, None], 0.0, border)


def _shared_response(
    problem: Problem, system: System, border: np.ndarray, response: np.ndarray
) -> np.ndarray:
    """Give what the uncertainty of the shared parameters adds: ``out[a] @ out[b].T``; (n, 3, m).

    Schur complement of the shared parameters; `response` is the covariance of the columns times
    the `border` of `_shared_border`.
    """
    n, n_widths = len(border), system.border.shape[2]
    if border.shape[2] == 0:
        return border
    if system.surface is None:
        left = system.corner - border.reshape(3 * n, -1).T @ response.reshape(3 * n, -1)
        return response @ _root_of_inverse(left)
    basis = system.surface.copy()
    basis.data /= np.repeat(np.maximum(basis.sum(axis=1), 1e-12), 16)
    left = system.corner.copy()
    left[:n_widths, :n_widths] -= np.einsum(
        "nkw,nkv->wv", border[..., :n_widths], response[..., :n_widths]
    )
    cross = basis.T @ np.einsum("n,nw->nw", border[:, 0, -1], response[:, 0, :n_widths])
    left[n_widths:, :n_widths] -= cross
    left[:n_widths, n_widths:] -= cross.T
    own = sparse.diags_array(border[:, 0, -1] * response[:, 0, -1]) @ basis
    left[n_widths:, n_widths:] -= (basis.T @ own).toarray()
    covariance = _inverse(left)
    # the shared parameters as each column sees them: widths and the background beneath it
    seen = np.empty((n, n_widths + 1, n_widths + 1))
    seen[:, :n_widths, :n_widths] = covariance[:n_widths, :n_widths]
    seen[:, :n_widths, -1] = seen[:, -1, :n_widths] = basis @ covariance[n_widths:, :n_widths]
    at, values, out = basis.indices.reshape(n, 16), basis.data.reshape(n, 16), np.empty(n)
    problem.crew.share(quadratic_forms, n, at, values, covariance[n_widths:, n_widths:], out)
    seen[:, -1, -1] = out
    return response @ _roots(seen)


def _roots(matrices: np.ndarray) -> np.ndarray:
    """Matrices r (n, m, m) with ``r @ r.T`` the given covariances, which may be nearly singular."""
    size = np.sqrt(np.einsum("nkk->nk", matrices))
    size = np.where(size > 0, size, 1.0)
    scaled = matrices / size[:, :, None] / size[:, None, :]
    scaled += SINGULAR * np.eye(matrices.shape[1])
    return size[:, :, None] * np.linalg.cholesky(scaled)


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """Give the inverse; combinations that nothing determines stay out."""
    root = _root_of_inverse(matrix)
    return root @ root.T


def _root_of_inverse(matrix: np.ndarray) -> np.ndarray:
    """Matrix r with ``r @ r.T`` the inverse of `_inverse`."""
    value, vector = np.linalg.eigh(matrix)
    # neighbourhoods end; a combination that they over-determine by that is left alone
    kept = value > 1e-6 * value.max()
    return vector[:, kept] / np.sqrt(value[kept])


def collect(
    columns: pd.DataFrame,
    problem: Problem,
    state: State,
    measured: Measured,
    species: tuple[str, ...],
    scaled: Scaled,
) -> pd.DataFrame:
    """Turn pixels and scaled signal into the table's units, and set the quality bits."""
    scale, (ax, ay), level = scaled.scale, scaled.step, measured.level
    n = len(columns)
    units = np.array([scaled.unit * scale**2, scale, scale])
    residual, even = _residuals(problem, measured.residual)
    share = seen_weight(problem, state, scaled.usable)[:, 4]
    wait = problem.crew.later(_column_chi2, problem, state, even, share)
    radius = NEIGHBOURHOOD_A / scale
    covariance, error = covariance_matrix(problem, state, level.level, radius, units)
    place, chi2 = problem.strips.order, wait()
    significance = state.volume * units[0] / error[place, 0]
    bits = _quality(problem, state, significance, chi2, 1.0 - share, scale)
    quality = _in_order(place, bits)
    if "quality" in columns:
        quality |= columns["quality"].to_numpy(dtype=np.int64)
    # A value that was still moving is not a measurement.
    known = np.where(quality & int(Quality.NOT_CONVERGED), np.nan, 1.0)
    intensity, x, y, sigma = _in_order(place, state.columns * [units[0], scale, scale, scale]).T
    out = _with_columns(
        columns,
        {
            "x_px": x / (ax * scale) * known,
            "y_px": y / (ay * scale) * known,
            "x_A": x * known,
            "y_A": y * known,
            "x_err_A": error[:, 1] * known,
            "y_err_A": error[:, 2] * known,
            "intensity": intensity * known,
            "intensity_err": error[:, 0] * known,
            "sigma_A": sigma,
            "significance": _in_order(place, significance),
            "chi2": _in_order(place, chi2),
            "quality": quality,
        },
    )
    width = middle(state.sigma)
    used = np.count_nonzero(scaled.usable) or problem.mask.size
    free = (4 if problem.own_widths else 3) * n / used
    widths = {s: scale * middle(state.sigma[problem.kind == k])
              for k, s in enumerate(species)}  # fmt: skip
    misfit = misfit_ratio(measured.powers, level, sigma_px=width, n_free=free)
    residual *= np.float32(scaled.unit)
    out.attrs["fit"] = Fit(
        covariance=covariance,
        residual=residual,
        mask=problem.mask,
        noise=replace(level, level=level.level * scaled.unit**2),
        misfit=misfit,
        chi2=_species_chi2(misfit, chi2, problem.kind, species),
        sigma_A=widths,
        axes_A={s: axes(p, widths[s]) for s, p in zip(species, state.shape, strict=False)},
        iterations=state.iterations,
    )
    return out


def _with_columns(table: pd.DataFrame, values: dict[str, np.ndarray]) -> pd.DataFrame:
    """Give the table with these columns, those it has in their place: `assign`, in one go."""
    kept = {name: table[name].copy() for name in table.columns if name not in values}
    whole = {name: values.get(name, kept.get(name)) for name in [*table.columns, *values]}
    out = pd.DataFrame(whole, index=table.index, copy=False)
    out.attrs = dict(table.attrs)
    return out


def _in_order(place: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Give values in the order of the table."""
    out = np.empty_like(values)
    out[place] = values
    return out


def _residuals(problem: Problem, weighted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return image minus model, and the same with the noise of a pixel of weight 1 everywhere."""
    if not problem.pixel_weights:
        return weighted, weighted
    root = np.sqrt(problem.weight)
    even = np.divide(weighted, root, out=np.zeros_like(weighted), where=root > 0)
    return np.divide(even, root, out=np.zeros_like(even), where=root > 0), even


def _column_chi2(
    problem: Problem, state: State, residual: np.ndarray, share: np.ndarray
) -> np.ndarray:
    """Residual power under each column relative to the image's typical value, whitened.

    For iDPC the gradient of the residual is taken. Means over blocks a little smaller than a
    column keep to the band in which columns live.
    """
    width = middle(state.sigma)
    block = max(1, round(BLOCK * width / max(problem.step)))
    coarse = block_sums(residual, block)  # beside the covariance, which keeps the crew busy
    room = image_room(coarse.shape, apart=True)
    room[:, coarse.shape[1] :] = 0.0
    power = room[:, : coarse.shape[1]]
    if problem.order == 1 and min(coarse.shape) > 1:
        gy, gx = np.gradient(coarse)
        np.add(gx**2, gy**2, out=power)
    else:
        np.square(coarse, out=power)
    # median over mean of the power of two components (iDPC), of one
    of_mean = np.log(2.0) if problem.order == 1 else 0.455
    used = power
    if problem.weight.size:
        used = power[block_sums(problem.mask, block) > 0.5 * block**2]
    some = used.ravel()[:: max(1, used.size // SAMPLE)]
    typical = middle(some) / of_mean if used.size else 0.0
    typical = max(typical, np.finfo(float).tiny)
    at = (state.xy / problem.step + 0.5) / block - 0.5
    mean = np.empty(len(at))
    means_under(0, len(at), room, coarse.shape[1], at, width / block, UNDER, mean)
    return mean / np.maximum(share, 0.05) / typical


def _species_chi2(
    misfit: float, chi2: np.ndarray, kind: np.ndarray, species: tuple[str, ...]
) -> dict[str, float]:
    """Share the misfit of the image out among the species, by the power under their columns."""
    whole = max(middle(chi2), np.finfo(float).tiny)
    return {s: misfit * middle(chi2[kind == k]) / whole for k, s in enumerate(species)}


def _quality(
    problem: Problem,
    state: State,
    significance: np.ndarray,
    chi2: np.ndarray,
    lost: np.ndarray,
    scale: float,
) -> np.ndarray:
    """Set the bits that the fit itself can tell; `scale` is angstrom per px."""
    shape, step = problem.image.shape, problem.step
    edge = near_border(state.columns, shape, step=step, widths=EDGE_WIDTHS)
    low, high = WIDTH_BOUNDS_A
    width = state.sigma * scale
    away = np.hypot(*(state.xy - problem.start).T) * scale
    seen = significance >= DETECTION
    bits = {
        Quality.EDGE: edge,
        Quality.MASKED: (lost > MASKED_SHARE) & ~edge,
        Quality.NOT_DETECTED: ~seen,
        Quality.WIDTH_AT_BOUND: (width < low * 1.02) | (width > high * 0.98),
        Quality.MISFIT: chi2 > MISFIT,
        Quality.MOVED: seen & (away > np.minimum(MOVED_A, 0.97 * problem.leash * scale)),
        Quality.NOT_CONVERGED: seen & ~state.converged,
    }
    quality = np.zeros(len(lost), dtype=np.int64)
    for bit, where in bits.items():
        quality[where] |= int(bit)
    return quality
