"""What the joint fit knows: values, covariance, misfit and quality bits in the user's units."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import ndimage, sparse

from stemdisp import _joint
from stemdisp._joint import Neighbours, Problem, State
from stemdisp.noise import NoiseLevel, misfit_ratio
from stemdisp.tables import Quality

WIDTH_BOUNDS_A = (0.22, 0.95)
NEIGHBOURHOOD_A = 3.6
DETECTION = 3.0  # standard errors of intensity
EDGE_WIDTHS = 2.5  # a column closer to the border than this many widths is cut by it
MASKED_SHARE = 0.1
PAIRS_AT_ONCE = 20_000
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
        signal*A^2 and angstrom, filled for columns closer than 3.6 A. Row order is that of the
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
        Shared width of each species.
    iterations : int
        Gauss-Newton steps taken.
    """

    covariance: sparse.csr_array
    residual: np.ndarray
    mask: np.ndarray
    noise: NoiseLevel
    misfit: float
    sigma_A: dict[str, float]
    iterations: int

    def __deepcopy__(self, memo: dict) -> Fit:
        """Return itself: pandas copies ``attrs`` on every operation, and this never changes."""
        return self

    def variance(self, weights: sparse.csr_array) -> np.ndarray:
        """Variance of linear combinations ``weights @ parameters``; shape (n_combinations,)."""
        return np.asarray((weights @ self.covariance).multiply(weights).sum(axis=1)).ravel()


def covariance_matrix(
    problem: Problem, state: State, level: float, radius: float
) -> sparse.csr_array:
    """Covariance (3 n, 3 n) of volume, x, y in px between columns within `radius` px.

    Inverse of the local information matrix, plus what the shared parameters (widths; for white
    noise also the background) add.
    """
    from stemdisp._kernels import window_covariance

    n = len(state.x)
    neighbours = Neighbours.within(state.x, state.y, radius)
    width = float(np.median(state.sigma))
    problem = replace(problem, fields=_joint.information_fields(problem, width))
    blocks = window_covariance(
        neighbours.indptr,
        neighbours.indices,
        state.x,
        state.y,
        state.volume,
        state.sigma,
        problem.fields,
        problem.prior,
        problem.order,
    )
    rows = np.repeat(np.arange(n), np.diff(neighbours.indptr))
    spread = _joint.PAIR_REACH * np.sqrt(2) * state.widths.max()
    wide = Neighbours.within(state.x, state.y, spread)
    system = _joint.assemble(problem, state, wide)
    blocks = blocks + _shared_covariance(system, blocks, rows, neighbours, problem.frozen)
    matrix = sparse.bsr_array(
        (blocks * level, neighbours.indices, neighbours.indptr), shape=(3 * n, 3 * n)
    ).tocsr()
    return ((matrix + matrix.T) * 0.5).tocsr()


def _shared_covariance(
    system: _joint.System,
    blocks: np.ndarray,
    rows: np.ndarray,
    neighbours: Neighbours,
    frozen: np.ndarray,
) -> np.ndarray:
    """Blocks (n_pairs, 3, 3) that the uncertainty of the shared parameters adds (Schur)."""
    n = len(neighbours.indptr) - 1
    local = sparse.bsr_array(
        (blocks, neighbours.indices, neighbours.indptr), shape=(3 * n, 3 * n)
    ).tocsr()
    border = np.where(np.repeat(frozen, 3)[:, None], 0.0, system.border)
    response = local @ border
    value, vector = np.linalg.eigh(system.corner - border.T @ response)
    # neighbourhoods end; a combination that they over-determine by that is left alone
    value = np.where(value > 1e-6 * value.max(), value, np.inf)
    shared = (((response @ vector) / value) @ vector.T).reshape(n, 3, -1)
    response = response.reshape(n, 3, -1)
    out = np.empty_like(blocks)
    for start in range(0, len(rows), PAIRS_AT_ONCE):
        part = slice(start, start + PAIRS_AT_ONCE)
        out[part] = np.matmul(
            shared[rows[part]], response[neighbours.indices[part]].transpose(0, 2, 1)
        )
    return out


def collect(
    columns: pd.DataFrame,
    problem: Problem,
    state: State,
    level: NoiseLevel,
    species: tuple[str, ...],
    size: tuple[float, float],
    unit: float,
) -> pd.DataFrame:
    """Turn pixels and scaled signal into the table's units, and set the quality bits."""
    sx, sy = size
    area = sx * sy
    n = len(columns)
    covariance = covariance_matrix(problem, state, level.level, NEIGHBOURHOOD_A / np.sqrt(area))
    units = sparse.diags_array(np.tile([unit * area, sx, sy], n))
    covariance = (units @ covariance @ units).tocsr()
    error = np.sqrt(np.maximum(covariance.diagonal(), 0.0)).reshape(n, 3)
    residual = np.where(problem.mask, problem.image - _joint.model_image(problem, state), 0.0)
    intensity = state.volume * unit * area
    significance = intensity / error[:, 0]
    # Poisson: scaled so that every pixel has the noise of one of weight 1.
    even = residual if problem.pixel_weight is None else residual * np.sqrt(problem.pixel_weight)
    chi2 = _column_chi2(even, problem.mask, state, level)
    quality = _quality(problem, state, significance, chi2, np.sqrt(area))
    if "quality" in columns:
        quality |= columns["quality"].to_numpy(dtype=np.int64)
    # A value that was still moving is not a measurement.
    known = np.where(quality & int(Quality.NOT_CONVERGED), np.nan, 1.0)
    out = columns.assign(
        x_px=state.x * known,
        y_px=state.y * known,
        x_A=state.x * sx * known,
        y_A=state.y * sy * known,
        x_err_A=error[:, 1] * known,
        y_err_A=error[:, 2] * known,
        intensity=intensity * known,
        intensity_err=error[:, 0] * known,
        sigma_A=state.sigma * np.sqrt(area),
        significance=significance,
        chi2=chi2,
        quality=quality,
    )
    free = 3.0 * n / max(np.count_nonzero(problem.mask), 1)
    out.attrs["fit"] = Fit(
        covariance=covariance,
        residual=residual * unit,
        mask=problem.mask,
        noise=replace(level, level=level.level * unit**2),
        misfit=misfit_ratio(
            even, problem.mask, level, sigma_px=float(np.median(state.sigma)), n_free=free
        ),
        sigma_A={s: float(w * np.sqrt(area)) for s, w in zip(species, state.widths, strict=True)},
        iterations=state.iterations,
    )
    return out


def _column_chi2(
    residual: np.ndarray, mask: np.ndarray, state: State, level: NoiseLevel
) -> np.ndarray:
    """Residual power under each column relative to the image's typical value, whitened.

    For iDPC the gradient of the residual is taken first; a mild smoothing keeps to the band in
    which columns live.
    """
    from stemdisp._kernels import local_mean

    smooth = ndimage.gaussian_filter(residual, 0.4 * float(np.median(state.sigma)))
    if level.kind == "idpc":
        gy, gx = np.gradient(smooth)
        power = gx**2 + gy**2
    else:
        power = smooth**2
    typical = np.median(power[mask])
    mean, _ = local_mean(power, mask, state.x, state.y, state.sigma, 3.0)
    return (
        mean / max(typical, np.finfo(float).tiny) * (np.log(2.0) if level.kind == "idpc" else 0.455)
    )


def _quality(
    problem: Problem, state: State, significance: np.ndarray, chi2: np.ndarray, scale: float
) -> np.ndarray:
    """Set the bits that the fit itself can tell; `scale` is angstrom per px."""
    from stemdisp._kernels import local_mean

    ny, nx = problem.image.shape
    reach = EDGE_WIDTHS * state.sigma
    edge = (state.x < reach) | (state.x > nx - 1 - reach)
    edge |= (state.y < reach) | (state.y > ny - 1 - reach)
    _, lost = local_mean(problem.image, problem.mask, state.x, state.y, state.sigma, 3.0)
    low, high = WIDTH_BOUNDS_A
    width = state.sigma * scale
    away = np.hypot(state.x - problem.start[:, 0], state.y - problem.start[:, 1]) * scale
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
    quality = np.zeros(len(state.x), dtype=np.int64)
    for bit, where in bits.items():
        quality[where] |= int(bit)
    return quality
