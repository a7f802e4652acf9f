"""Image and table -> positions, intensities, widths, their covariance, and quality bits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from stemdisp import _joint
from stemdisp._border import outside
from stemdisp._coarse import back, block_size, coarsen, coarsen_image
from stemdisp._medians import middle
from stemdisp._model import SEEN, UNKNOWN_PACE, Problem, State, residual_image, seen_weight
from stemdisp._pixels import finite, saturated
from stemdisp._start import Scaled, begin, resume, scale_image, seeds
from stemdisp._threads import Crew
from stemdisp.fit import MOVED_A, Measured, collect
from stemdisp.noise import (
    MOST_TILES,
    TILE,
    NoiseLevel,
    Periodograms,
    Tiles,
    follows_signal,
    measure_noise,
    noise_band,
    ring_medians,
)
from stemdisp.tables import check_columns

if TYPE_CHECKING:
    from hyperspy.signals import Signal2D

FAINT_PRIOR_A = 0.02
# A position is tied to its start by this much: invisible for a column that is seen (its own
# error is 100 times smaller), decisive for one that is not there.
POSITION_PRIOR_A = 0.5
SLIPPED_A = 0.8  # columns are never closer; one that is has no peak of its own
# Shares of a column beyond the border, and beyond the usable pixels, above which its intensity is
# assumed to be that of its kind. Around a hole its flanks still tell.
OUTSIDE, MASKED = 0.3, 0.6
TOLERANCE_A = 3e-4
# Widths of a column that may be left to go where drawing-in ends, for a fit of all parameters and
# for one on the same blocks of pixels: in the metric of iDPC a peak still pulls from 2.8 widths
# (`_pairs._pair`: 4 - t changes its sign there).
SETTLED, WITHIN = 0.2, 1.4
MOST_STEP = 0.3  # widths by which columns may go in a step while they are not near their peaks
SAME_LEVEL = 0.3  # change of the noise level that by itself calls for no further steps


def refine_columns(
    image: Signal2D | np.ndarray,
    columns: pd.DataFrame,
    *,
    pixel_size: float | tuple[float, float] | None = None,
    noise: Literal["auto", "idpc", "white", "poisson"] = "auto",
    mask: np.ndarray | None = None,
    noise_psd: tuple[np.ndarray, np.ndarray] | None = None,
    widths: Literal["species", "site", "column", "ellipse"] = "species",
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
        Columns bright. Pixels that are NaN or saturated (a plateau at the largest value) are left
        out.
    columns : DataFrame
        Needs ``species, x_px, y_px``; other columns are kept. ``intensity`` and ``sigma_A`` of an
        earlier fit, if there, are the starting values.
    pixel_size : float or (float, float), optional
        Angstrom per px along x and y; needed for an array, overrides a signal's own.
    noise : {"auto", "idpc", "white", "poisson"}
        Noise model; ``auto`` decides from the noise spectrum (that of `noise_psd`, where given)
        and, where it is flat, from whether the variance follows the signal.
    mask : ndarray of bool, shape (ny, nx), optional
        Pixels to use.
    noise_psd : (ndarray, ndarray), optional
        Measured noise spectrum (1/px, power) from differences of frames.
    widths : {"species", "site", "column", "ellipse"}
        Which columns share a width: those of a species (the default: on multislice and real
        images other choices do not bring positions nearer to the truth, and each column's own
        width costs intensities a third of their precision), those of a species with the same
        value in the table's column ``site``, or none. "ellipse": the columns of a species
        are ellipses, all alike (`Fit.axes_A`).
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
        or has no usable pixel, a mask of another shape, unknown `noise` or `widths`.
    """
    check_columns(columns, ("species", "x_px", "y_px"))
    data, size = _as_array(image, pixel_size)
    if noise not in ("auto", "idpc", "white", "poisson"):
        raise ValueError(f"noise = {noise!r} is not one of: auto, idpc, white, poisson")
    if len(columns) == 0:
        raise ValueError("columns is empty; there is nothing to fit")
    if columns["species"].isna().any():
        raise ValueError("columns has rows without species; drop those rows first")
    xy = seeds(columns)
    if not np.isfinite(xy).all():
        raise ValueError("columns has x_px or y_px that are not finite; drop those rows first")
    good = _usable_pixels(data, mask)
    if widths not in ("species", "site", "column", "ellipse"):
        raise ValueError(f"widths = {widths!r} is not one of: species, site, column, ellipse")
    codes, names = pd.factorize(columns["species"].to_numpy())
    kind, species = codes.astype(np.int64), tuple(names)
    group = _width_groups(columns, kind, widths)
    tiles = Tiles.choose(good.shape, None if good.all() else good)
    with Crew() as crew:
        scaled = scale_image(data, good, size, crew)
        problem, state = begin(
            scaled, xy, kind, species, group, crew, elliptical=widths == "ellipse"
        )
        problem, state = _with_prior(problem, state, 1e-3, scaled)
        state, warm = resume(columns, species, state, problem, scaled)
        known = _Noise(noise, noise_psd, tiles, scaled.mean / scaled.unit)
        state, level = _roughly(problem, state, scaled, known, cold=not warm)
        problem, state, measured = _fit(problem, state, scaled, known, level, max_iterations)
        return collect(columns, problem, state, measured, species, scaled)


def _as_array(
    image: Signal2D | np.ndarray, pixel_size: float | tuple[float, float] | None
) -> tuple[np.ndarray, tuple[float, float]]:
    """Return the pixels and the pixel size in angstrom along x and y."""
    data = np.asarray(getattr(image, "data", image))
    if data.ndim != 2:
        raise ValueError(f"image has {data.ndim} dimensions; pass one 2-D image")
    if data.dtype.kind not in "buif":
        raise ValueError(f"image has values of type {data.dtype}; pass real numbers")
    if pixel_size is None:
        if not hasattr(image, "axes_manager"):
            raise ValueError("pixel_size is needed when image is an array; give angstrom per px")
        from stemdisp.load import signal_pixel_size_A

        pixel_size = signal_pixel_size_A(image)
        if pixel_size is None:
            raise ValueError("image has no calibrated axes; give pixel_size in angstrom per px")
    sx, sy = np.broadcast_to(np.asarray(pixel_size, dtype=float), 2).tolist()
    if not (sx > 0 and sy > 0):
        raise ValueError(f"pixel_size = {pixel_size!r} must be positive, in angstrom per px")
    return data, (float(sx), float(sy))


def _usable_pixels(data: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Return where the image is finite, not saturated and inside `mask`."""
    if mask is not None:
        mask = np.asarray(mask, dtype=bool)
        if mask.shape != data.shape:
            raise ValueError(f"mask has shape {mask.shape}; the image has {data.shape}")
    good, tops = finite(data, mask)
    if not tops:
        raise ValueError("image has no usable pixel: all are masked or not finite")
    plateau = saturated(data, tops)
    return good if plateau is None else good & ~plateau


def _width_groups(columns: pd.DataFrame, kind: np.ndarray, widths: str) -> np.ndarray | None:
    """Return which columns share a width; None where each has its own."""
    if widths == "column":
        return None
    if widths in ("species", "ellipse"):
        return kind
    check_columns(columns, ("site",))
    return (
        columns.groupby(["species", "site"], sort=False, dropna=False).ngroup().to_numpy(np.int64)
    )


def _with_prior(
    problem: Problem, state: State, level: float, scaled: Scaled
) -> tuple[Problem, State]:
    """Tie absent columns to their sites, and those mostly outside the image to their kind."""
    scale = scaled.scale
    shape, step = problem.image.shape, problem.step
    beyond = outside(state.columns, shape, step=step, reach=SEEN, share=OUTSIDE)
    if scaled.usable.size:
        beyond |= 1.0 - seen_weight(problem, state, scaled.usable)[:, 4] > MASKED
    kinds = [(problem.kind == k) & ~beyond for k in range(problem.kind.max() + 1)]
    typical = np.array([middle(state.volume[k]) if k.any() else 0.0 for k in kinds])
    # With its position free, a column of no intensity would settle on whatever noise or
    # neighbour's flank fits best, and its intensity would be biased: hold it on its site.
    faint = state.volume < 5.0 * np.sqrt(level * 4 * np.pi) * state.sigma * (
        1.0 if problem.order == 0 else state.sigma
    )
    # For want of its own intensity it may have slipped under a neighbour: start from its site.
    home = problem.start
    far = state.xy - home
    away = np.einsum("ij,ij->i", far, far) > (MOVED_A / scale) ** 2
    if away.any():
        apart = problem.near.nearest(state.columns) * scale
        faint |= away & (apart < SLIPPED_A) & ~problem.is_nuisance
    spread = np.where(faint, FAINT_PRIOR_A, POSITION_PRIOR_A) / scale
    problem = replace(
        problem,
        expected=typical[problem.kind],
        frozen=beyond,
        prior=level / spread**2,
        level=level,
    )
    # Put back at once, because iterations end when the bright columns rest.
    columns = state.columns.copy()
    columns[faint, 1:3] = home[faint]
    return problem, replace(state, columns=columns)


def _draw_in(problem: Problem, state: State, *, widths: bool) -> State:
    """Begin with plain least squares: the widest basin, for columns that start a width away.

    Widths are held at first, and freed at the end where `widths` is true; where they are not, what
    follows is another fit on the same pixels, which needs no more than to be in its basin.
    """
    left = (SETTLED if widths else WITHIN) * middle(state.sigma)
    for free, steps in ((False, 3), (True, 6))[: 2 if widths else 1]:
        state = _joint.iterate(
            replace(problem, free_widths=free),
            state,
            max_iterations=steps,
            tolerance=left,
            negligible=0.3,
            max_step=MOST_STEP,
            solved=0.1,
        )
    return replace(state, shown=False, pace=UNKNOWN_PACE)


@dataclass(frozen=True, eq=False)
class _Noise:
    """How the noise is to be found: what the user knows of it, and where the image shows it.

    ``kind`` may also be "flat": white or Poisson. ``zero`` is what the scaled image lacks to the
    zero of the data.
    """

    kind: str
    psd: tuple[np.ndarray, np.ndarray] | None
    tiles: Tiles
    zero: float

    def told(self, coarse: State, block: int) -> str:
        """Kind that differences of frames tell, if it is asked for; columns on blocks of pixels."""
        if self.kind != "auto" or self.psd is None:
            return self.kind
        sigma = block * middle(coarse.sigma)
        kind = measure_noise(*self.psd, sigma_px=sigma, source="frames").kind
        return kind if kind == "idpc" else "flat"

    def level(
        self, problem: Problem, state: State, unit: float, most: int = MOST_TILES
    ) -> tuple[NoiseLevel, Periodograms, np.ndarray]:
        """Noise of the scaled image, from frames when they are given, else from the residual.

        With pixel weights (Poisson) it is the noise of a pixel of weight 1, as the covariance
        needs. Also returns the periodograms of the residual and the (weighted) residual itself.
        """
        sigma = middle(state.sigma)
        weight = problem.weight if problem.pixel_weights else None
        residual = problem.residual if state.shown else residual_image(problem, state)[0]
        band = noise_band(sigma)
        powers = self.tiles.periodograms(residual, weight, most, top=band[1], crew=problem.crew)
        if self.psd is None:
            freq, power = ring_medians(powers, band)
            source = "residual"
        else:
            freq, power = self.psd[0], self.psd[1] / unit**2
            source = "frames"
            if weight is not None:
                power = power / np.mean(1.0 / weight[problem.mask])
        kind = "white" if self.kind == "flat" else self.kind
        level = measure_noise(freq, power, sigma_px=sigma, kind=kind, source=source)
        if self.kind in ("auto", "flat") and level.kind == "white":
            signal = problem.image - residual + np.float32(self.zero)
            if follows_signal(residual, signal, problem.mask):
                level = replace(level, kind="poisson")
        return level, powers, residual


def _fit(
    problem: Problem,
    state: State,
    scaled: Scaled,
    noise: _Noise,
    level: NoiseLevel,
    max_iterations: int,
) -> tuple[Problem, State, Measured]:
    """Converge in the metric of the noise, again if the noise is not what it seemed at first."""
    noise = replace(noise, kind=level.kind)
    for again in (False, True):
        before = problem
        problem, state = _weighted(problem, state, level, scaled)
        if again and not problem.pixel_weights and _same_prior(problem, before):
            break
        state = _joint.iterate(
            problem,
            state,
            max_iterations=max_iterations,
            tolerance=TOLERANCE_A / scaled.scale,
            max_step=0.2,
        )
        level, powers, residual = noise.level(problem, state, scaled.unit)
    return problem, state, Measured(level, powers, residual)


def _roughly(
    problem: Problem, state: State, scaled: Scaled, noise: _Noise, *, cold: bool
) -> tuple[State, NoiseLevel]:
    """Come near the solution, on a coarser image where pixels are fine enough for that.

    Also returns what the noise seems to be.
    """
    block = block_size(middle(state.sigma) / max(problem.step))
    if block == 1:
        state = _draw_in(problem, state, widths=True) if cold else state
        return state, noise.level(problem, state, scaled.unit, most=1)[0]
    small = coarsen_image(scaled, block, problem.crew)
    coarse, drawn = coarsen(problem, state, small, block)
    if cold:
        # What the noise is can only be told when the columns fit.
        drawn = _draw_in(coarse, drawn, widths=noise.kind == "auto")
    usable = None if small.mask.all() else small.mask
    tiles = Tiles.choose(small.image.shape, usable, TILE // block)
    rough = replace(noise, kind=noise.told(drawn, block), psd=None, tiles=tiles)
    level, _, _ = rough.level(coarse, drawn, scaled.unit, most=1)
    coarse, drawn = _weighted(coarse, drawn, level, small)
    drawn = _joint.iterate(
        coarse, drawn, max_iterations=8, tolerance=0.0, negligible=0.8, max_step=MOST_STEP
    )
    state = back(drawn, state, problem, block)
    # Noise that is white between pixels is less in their means; that of a gradient is not.
    share = 1.0 if level.kind == "idpc" else block**2
    return state, replace(level, level=level.level * share)


def _same_prior(one: Problem, other: Problem) -> bool:
    """Whether the noise calls for the same treatment of every column."""
    held = [problem.prior > problem.prior.min() for problem in (one, other)]
    level = abs(one.level / other.level - 1) < SAME_LEVEL
    return level and np.array_equal(*held) and np.array_equal(one.frozen, other.frozen)


def _weighted(
    problem: Problem, state: State, level: NoiseLevel, scaled: Scaled
) -> tuple[Problem, State]:
    """Set the metric, the pixel weights and the prior that follow from the noise."""
    weight, counts = scaled.usable, level.kind == "poisson"
    if counts:
        residual, _ = residual_image(replace(problem, weight=scaled.usable), state)
        weight = np.maximum(scaled.image - residual + np.float32(scaled.mean / scaled.unit), 0.0)
        weight = 1.0 / np.maximum(weight, 0.02 * np.mean(weight[scaled.mask]))
        weight *= scaled.mask
        weight /= np.mean(weight[scaled.mask])
        problem = replace(problem, background=problem.background.weighed(weight))
    problem = replace(problem, order=int(level.kind == "idpc"), weight=weight, pixel_weights=counts)
    return _with_prior(problem, state, level.level, scaled)
