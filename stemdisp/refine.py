"""Image and table -> positions, intensities, widths, their covariance, and quality bits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.spatial import cKDTree

from stemdisp import _joint
from stemdisp._background import Background
from stemdisp._joint import Problem, State
from stemdisp.fit import MOVED_A, WIDTH_BOUNDS_A, collect
from stemdisp.noise import NoiseLevel, measure_noise, ring_spectrum
from stemdisp.tables import check_columns

if TYPE_CHECKING:
    from hyperspy.signals import Signal2D

# Starting widths; the fit frees them. iDPC of perovskites at 25 mrad gives 0.38-0.50 A.
START_SIGMA_A = 0.42
FAINT_PRIOR_A = 0.02
# A position is tied to its start by this much: invisible for a column that is seen (its own
# error is 100 times smaller), decisive for one that is not there.
POSITION_PRIOR_A = 0.5
SLIPPED_A = 0.8  # columns are never closer; one that is has no peak of its own
# A displaced column may end in the direction of a neighbour 2 A away, so not less than this.
LEASH_SHARE, LEASH_A = 0.45, (0.4, 1.2)
OUTSIDE = 0.3  # share of a column beyond the usable pixels above which its kind is assumed
BACKGROUND_KNOTS_A = 20.0
NUISANCE = "film"  # species of blobs that are modelled but not measured


def refine_columns(
    image: Signal2D | np.ndarray,
    columns: pd.DataFrame,
    *,
    pixel_size: float | tuple[float, float] | None = None,
    noise: Literal["auto", "idpc", "white", "poisson"] = "auto",
    mask: np.ndarray | None = None,
    noise_psd: tuple[np.ndarray, np.ndarray] | None = None,
    max_iterations: int = 40,
) -> pd.DataFrame:
    """Fit all columns of an image together.

    The model is a sum of Gaussians (one width per species, shared) on a smooth background. For
    ``noise="idpc"`` the fit is least squares on the gradient of image minus model, which is the
    efficient estimator for noise with a 1/k^2 spectrum; for ``"white"`` least squares; for
    ``"poisson"`` least squares weighted by 1/model.

    Parameters
    ----------
    image : Signal2D or ndarray, shape (ny, nx)
        Columns bright. NaN pixels are left out.
    columns : DataFrame
        Needs ``species, x_px, y_px``; other columns are kept. ``intensity`` and ``sigma_A`` of an
        earlier fit, if there, are the starting values.
    pixel_size : float or (float, float), optional
        Angstrom per px along x and y; needed for an array, overrides a signal's own.
    noise : {"auto", "idpc", "white", "poisson"}
        Noise model; ``auto`` decides from the noise spectrum.
    mask : ndarray of bool, shape (ny, nx), optional
        Pixels to use.
    noise_psd : (ndarray, ndarray), optional
        Measured noise spectrum (1/px, power) from differences of frames.
    max_iterations : int
        Limit of Gauss-Newton steps in the final metric.

    Returns
    -------
    DataFrame
        The rows of `columns` in their order with the fit's columns added (see the table
        registry); ``attrs["fit"]`` holds the `Fit` with the joint covariance. An absent column
        has an intensity compatible with zero, the bit NOT_DETECTED, and stays near its start
        with an error of at most 0.5 A; that position is not a measurement.

    Raises
    ------
    ValueError
        Missing table columns, seeds that are not finite, no pixel size, an image that is not 2-D
        or has no usable pixel, a mask of another shape, unknown `noise`.
    """
    check_columns(columns, ("species", "x_px", "y_px"))
    data, size = _as_array(image, pixel_size)
    if noise not in ("auto", "idpc", "white", "poisson"):
        raise ValueError(f"noise = {noise!r} is not one of: auto, idpc, white, poisson")
    if len(columns) == 0:
        raise ValueError("columns is empty; there is nothing to fit")
    if not np.isfinite(columns[["x_px", "y_px"]].to_numpy(dtype=np.float64)).all():
        raise ValueError("columns has x_px or y_px that are not finite; drop those rows first")
    good = _usable_pixels(data, mask)
    scale = float(np.sqrt(size[0] * size[1]))
    species = tuple(dict.fromkeys(columns["species"]))
    unit = float(np.std(data[good])) or 1.0
    scaled = np.where(good, (data - np.mean(data[good])) / unit, 0.0)
    problem, state = _start(scaled, good, columns, species, scale)
    state, warm = _resume(columns, species, state, size, unit)
    if not warm:
        state = _draw_in(problem, state, scale)
    problem, state, level = _fit(
        problem, state, scale, noise, noise_psd, unit, data, max_iterations
    )
    return collect(columns, problem, state, level, species, size, unit)


def _as_array(
    image: Signal2D | np.ndarray, pixel_size: float | tuple[float, float] | None
) -> tuple[np.ndarray, tuple[float, float]]:
    """Return float64 pixels and the pixel size in angstrom along x and y."""
    data = np.asarray(getattr(image, "data", image))
    if data.ndim != 2:
        raise ValueError(f"image has {data.ndim} dimensions; pass one 2-D image")
    if pixel_size is None:
        if not hasattr(image, "axes_manager"):
            raise ValueError("pixel_size is needed when image is an array; give angstrom per px")
        from stemdisp.load import signal_pixel_size_A

        pixel_size = signal_pixel_size_A(image)
        if pixel_size is None:
            raise ValueError("image has no calibrated axes; give pixel_size in angstrom per px")
    sx, sy = (pixel_size, pixel_size) if np.isscalar(pixel_size) else pixel_size
    if not (sx > 0 and sy > 0):
        raise ValueError(f"pixel_size = {pixel_size!r} must be positive, in angstrom per px")
    return np.asarray(data, dtype=np.float64), (float(sx), float(sy))


def _usable_pixels(data: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Return where the image is finite and inside `mask`."""
    good = np.isfinite(data)
    if mask is not None:
        mask = np.asarray(mask, dtype=bool)
        if mask.shape != data.shape:
            raise ValueError(f"mask has shape {mask.shape}; the image has {data.shape}")
        good &= mask
    if not good.any():
        raise ValueError("image has no usable pixel: all are masked or not finite")
    return good


def _start(
    data: np.ndarray,
    good: np.ndarray,
    columns: pd.DataFrame,
    species: tuple[str, ...],
    scale: float,
) -> tuple[Problem, State]:
    """Give starting parameters: peak heights over the local minimum, common widths."""
    x = columns["x_px"].to_numpy(dtype=np.float64).copy()
    y = columns["y_px"].to_numpy(dtype=np.float64).copy()
    kind = columns["species"].map({s: k for k, s in enumerate(species)}).to_numpy(dtype=np.int64)
    background = Background.build(good, max(BACKGROUND_KNOTS_A / scale, 24.0))
    width = START_SIGMA_A / scale
    smooth = ndimage.gaussian_filter(data, 0.5 * width)
    low = ndimage.gaussian_filter(
        ndimage.minimum_filter(smooth, size=int(2 * round(5 * width) + 1)), 8 * width
    )
    row = np.clip(np.rint(y).astype(int), 0, data.shape[0] - 1)
    col = np.clip(np.rint(x).astype(int), 0, data.shape[1] - 1)
    height = np.maximum(smooth[row, col] - low[row, col], 0.05)
    coefficients = np.linalg.solve(background.gram, background.project(np.where(good, low, 0.0)))
    state = State(
        x=x,
        y=y,
        volume=0.8 * height * 2 * np.pi * width**2,
        widths=np.full(len(species), width),
        kind=kind,
        background=coefficients,
        converged=np.zeros(len(x), dtype=bool),
    )
    problem = Problem(
        data,
        good,
        background,
        np.column_stack([x, y]),
        state.volume,
        np.zeros(len(x), dtype=bool),
        np.zeros(len(x)),
        nuisance=species.index(NUISANCE) if NUISANCE in species else -1,
        leash=_leash(x, y, scale),
    )
    return _with_prior(problem, state, 1e-3, scale)


def _leash(x: np.ndarray, y: np.ndarray, scale: float) -> np.ndarray:
    """How far a column may go: nearly half way to its neighbour (px)."""
    if len(x) < 2:
        return np.full(len(x), LEASH_A[1] / scale)
    distance, _ = cKDTree(np.column_stack([x, y])).query(np.column_stack([x, y]), k=2)
    return np.clip(LEASH_SHARE * distance[:, 1], LEASH_A[0] / scale, LEASH_A[1] / scale)


def _resume(
    columns: pd.DataFrame,
    species: tuple[str, ...],
    state: State,
    size: tuple[float, float],
    unit: float,
) -> tuple[State, bool]:
    """Start from the intensities and widths of an earlier fit, where the table has them."""
    if "intensity" not in columns or "sigma_A" not in columns:
        return state, False
    area = size[0] * size[1]
    volume = columns["intensity"].to_numpy(dtype=np.float64) / (unit * area)
    known = np.isfinite(volume)
    widths = columns.groupby("species")["sigma_A"].median().reindex(species).to_numpy(dtype=float)
    widths = np.where(np.isfinite(widths), widths / np.sqrt(area), state.widths)
    return replace(state, volume=np.where(known, volume, state.volume), widths=widths), True


def _with_prior(
    problem: Problem, state: State, level: float, scale: float
) -> tuple[Problem, State]:
    """Tie absent columns to their sites, and those mostly outside the image to their kind."""
    from stemdisp._kernels import local_mean

    _, lost = local_mean(problem.image, problem.mask, state.x, state.y, state.sigma, 3.0)
    outside = lost > OUTSIDE
    typical = np.array(
        [
            np.median(state.volume[(state.kind == k) & ~outside])
            if np.any((state.kind == k) & ~outside)
            else 0.0
            for k in range(len(state.widths))
        ]
    )
    # With its position free, a column of no intensity would settle on whatever noise or
    # neighbour's flank fits best, and its intensity would be biased: hold it on its site.
    faint = state.volume < 5.0 * np.sqrt(level * 4 * np.pi) * state.sigma * (
        1.0 if problem.order == 0 else state.sigma
    )
    # For want of its own intensity it may have slipped under a neighbour: start from its site.
    home = problem.start
    away = np.hypot(state.x - home[:, 0], state.y - home[:, 1]) * scale
    xy = np.column_stack([state.x, state.y])
    apart = cKDTree(xy).query(xy, k=2)[0][:, 1] * scale
    faint |= (away > MOVED_A) & (apart < SLIPPED_A) & (state.kind != problem.nuisance)
    spread = np.where(faint, FAINT_PRIOR_A, POSITION_PRIOR_A) / scale
    prior = level / spread**2
    problem = replace(
        problem, expected=typical[state.kind], frozen=outside, prior=prior, level=level
    )
    # Put back at once, because iterations end when the bright columns rest.
    return problem, replace(
        state, x=np.where(faint, home[:, 0], state.x), y=np.where(faint, home[:, 1], state.y)
    )


def _draw_in(problem: Problem, state: State, scale: float) -> State:
    """Begin with plain least squares: the widest basin, for columns that start a width away."""
    held = replace(problem, free_widths=False)
    state = _joint.iterate(held, state, max_iterations=4, tolerance_px=0.0, max_step=0.3)
    return _joint.iterate(problem, state, max_iterations=6, tolerance_px=3e-4 / scale, max_step=0.3)


def _fit(
    problem: Problem,
    state: State,
    scale: float,
    noise: str,
    noise_psd: tuple[np.ndarray, np.ndarray] | None,
    unit: float,
    data: np.ndarray,
    max_iterations: int,
) -> tuple[Problem, State, NoiseLevel]:
    """Converge in the metric of the noise, twice: with the noise as first seen, then again."""
    tolerance = 3e-4 / scale
    state = _bounded(state, scale)
    level = _level(problem, state, noise, noise_psd, unit)
    for _ in range(2):
        problem, state = _weighted(problem, state, level, scale, data, unit)
        state = _joint.iterate(
            problem,
            state,
            max_iterations=max_iterations,
            tolerance_px=tolerance,
            max_step=0.2,
        )
        state = _bounded(state, scale)
        level = _level(problem, state, level.kind, noise_psd, unit)
    return problem, state, level


def _bounded(state: State, scale: float) -> State:
    low, high = WIDTH_BOUNDS_A
    return replace(state, widths=np.clip(state.widths, low / scale, high / scale))


def _level(
    problem: Problem,
    state: State,
    noise: str,
    noise_psd: tuple[np.ndarray, np.ndarray] | None,
    unit: float,
) -> NoiseLevel:
    """Noise of the scaled image, from frames when they are given, else from the residual.

    With pixel weights (Poisson) it is the noise of a pixel of weight 1, as the covariance needs.
    """
    sigma = float(np.median(state.sigma))
    weight = problem.pixel_weight
    if noise_psd is not None:
        freq, power = noise_psd
        power = power / unit**2
        if weight is not None:
            power = power / np.mean(1.0 / weight[problem.mask])
        return measure_noise(freq, power, sigma_px=sigma, kind=noise, source="frames")
    residual = problem.image - _joint.model_image(problem, state)
    if weight is not None:
        residual = residual * np.sqrt(weight)
    freq, power = ring_spectrum(residual, problem.mask)
    return measure_noise(freq, power, sigma_px=sigma, kind=noise, source="residual")


def _weighted(
    problem: Problem, state: State, level: NoiseLevel, scale: float, data: np.ndarray, unit: float
) -> tuple[Problem, State]:
    """Set the metric, the pixel weights and the prior that follow from the noise."""
    weight = None
    if level.kind == "poisson":
        offset = np.mean(data[problem.mask]) / unit
        expected = np.maximum(_joint.model_image(problem, state) + offset, 0.0)
        floor = 0.02 * np.mean(expected[problem.mask])
        weight = np.where(problem.mask, 1.0 / np.maximum(expected, floor), 0.0)
        weight /= np.mean(weight[problem.mask])
    problem = replace(problem, order=int(level.kind == "idpc"), pixel_weight=weight)
    return _with_prior(problem, state, level.level, scale)
