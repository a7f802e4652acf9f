"""What the joint fit starts from: the scaled image, sorted columns, heights and widths."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import pandas as pd
from scipy import ndimage

from stemdisp._background import Background, block_sums
from stemdisp._memory import image_room
from stemdisp._model import NO_WEIGHT, RENDERED, Problem, State, Strips
from stemdisp._system import Neighbours
from stemdisp._threads import Crew
from stemdisp.fit import WIDTH_BOUNDS_A

# Starting widths; the fit frees them. iDPC of perovskites at 25 mrad gives 0.38-0.50 A.
START_SIGMA_A = 0.42
BACKGROUND_KNOTS_A, LEAST_KNOTS_PX = 20.0, 24.0
# Species of blobs that are modelled but not measured: those of the film, and what stands where a
# user removed a column, which may be of any width and brightness.
NUISANCE, REMOVED = "film", "removed"
UNMEASURED = (NUISANCE, REMOVED)
# A displaced column may end in the direction of a neighbour 2 A away, so not less than this.
LEASH_SHARE, LEASH_A = 0.45, (0.4, 1.2)
NEAR_A = 4.4  # pairs that are kept in view: overlaps reach 3 A, and columns move
LEAST_STRIP_PX = 48
ROWS = 64  # of the image that are scaled in one go
SAMPLE_PX = 20_000  # pixels from which the scale of the image is taken


@dataclass(frozen=True, eq=False)
class Scaled:
    """An image of mean 0 and deviation 1 and its pixels.

    ``scale`` is the length of a square pixel of the same area in angstrom, ``step`` the distance
    of pixels along x and y in such lengths. ``usable`` are the weights 0 and 1 of the pixels of
    `mask`, shape (0, 0) where all are 1. ``kept`` are the sums of this image that `sums` has taken.
    """

    image: np.ndarray
    mask: np.ndarray
    usable: np.ndarray
    mean: float
    unit: float
    size: tuple[float, float]
    kept: dict[int, np.ndarray] = field(default_factory=dict, init=False)

    @property
    def scale(self) -> float:
        """Angstrom per length of a square pixel."""
        return float(np.sqrt(self.size[0] * self.size[1]))

    @property
    def knots(self) -> float:
        """Distance of the background's knots."""
        return max(BACKGROUND_KNOTS_A / self.scale, LEAST_KNOTS_PX)

    def sums(self, block: int, crew: Crew) -> np.ndarray:
        """Give the sums of the image over blocks of pixels: of those of half the size, if even."""
        if block not in self.kept:
            half = block // 2
            part = self.sums(half, crew) if block % 2 == 0 and half > 1 else self.image
            self.kept[block] = block_sums(part, block if part is self.image else 2, crew)
        return self.kept[block]

    @property
    def step(self) -> tuple[float, float]:
        """Distance of pixels along x and y."""
        return self.size[0] / self.scale, self.size[1] / self.scale


def scale_image(
    data: np.ndarray, mask: np.ndarray, size: tuple[float, float], crew: Crew
) -> Scaled:
    """Scale the usable pixels to mean 0 and deviation 1; masked pixels become 0."""
    every = max(1, int(np.sqrt(data.size / SAMPLE_PX)))
    sample = data[::every, ::every][mask[::every, ::every]]
    if sample.size < 2:
        sample = data[mask]
    sample = sample.astype(np.float64)
    # a mean of single precision: data of that precision are not cast to double and back
    mean, unit = np.float32(np.mean(sample)), float(np.std(sample)) or 1.0
    image = image_room(data.shape)

    def scale(lo: int, hi: int) -> None:
        # Some rows at a time: they stay in the cache.
        for row in range(lo * ROWS, hi * ROWS, ROWS):
            part = slice(row, row + ROWS)
            np.subtract(data[part], mean, out=image[part], casting="unsafe")
            image[part] *= np.float32(1 / unit)

    crew.share(scale, -(-len(data) // ROWS))
    usable = NO_WEIGHT
    if not mask.all():
        image[~mask] = 0.0
        usable = mask.astype(np.float32)
    return Scaled(image, mask, usable, float(mean), unit, size)


def seeds(columns: pd.DataFrame) -> np.ndarray:
    """Give the positions (n, 2) from which columns start, in px."""
    return np.column_stack([columns[name].to_numpy(dtype=np.float64) for name in ("x_px", "y_px")])


def begin(
    scaled: Scaled,
    xy: np.ndarray,
    kind: np.ndarray,
    species: tuple[str, ...],
    group: np.ndarray | None,
    crew: Crew,
    *,
    elliptical: bool = False,
) -> tuple[Problem, State]:
    """Give starting parameters: peak heights over the local minimum, common widths.

    Columns start from `xy` (n, 2), in px.
    """
    scale, step = scaled.scale, scaled.step
    far = RENDERED * WIDTH_BOUNDS_A[1] + LEASH_A[1]
    least = max(far / scale / step[1], LEAST_STRIP_PX)
    # a multiple of every block of pixels that a coarser image may have
    strips = Strips.build(xy, len(scaled.image), 12 * int(np.ceil(least / 12)))
    xy = xy[strips.order] * step
    pairs = crew.later(Neighbours.of_strips, xy, strips.first, NEAR_A / scale)
    width = START_SIGMA_A / scale
    block = max(1, round(width / max(step)))
    background = Background.build(scaled.mask, scaled.knots, block)
    height, coefficients = _heights(scaled, xy / step, background, block, crew)
    near = pairs()
    state = State(
        columns=np.column_stack([0.8 * height * 2 * np.pi * width**2, xy, np.full(len(xy), width)]),
        coefficients=coefficients,
        converged=np.zeros(len(xy), dtype=bool),
        shape=np.zeros((len(species) if elliptical else 0, 2)),
    )
    problem = Problem(
        image=scaled.image,
        mask=scaled.mask,
        weight=scaled.usable,
        background=background,
        strips=strips,
        near=near,
        step=step,
        start=xy,
        kind=kind[strips.order],
        group=None if group is None else group[strips.order],
        leash=np.clip(
            LEASH_SHARE * near.nearest(state.columns), LEASH_A[0] / scale, LEASH_A[1] / scale
        ),
        width_bounds=(WIDTH_BOUNDS_A[0] / scale, WIDTH_BOUNDS_A[1] / scale),
        under=cache(lambda: background.under(*(xy / step).T)),
        scratch=image_room(scaled.image.shape, apart=True),
        tiles=np.empty((len(near.indices), 4, 4), np.float32),
        crew=crew,
        expected=state.volume,
        frozen=np.zeros(len(xy), dtype=bool),
        prior=np.zeros(len(xy)),
        nuisance=tuple(k for k, name in enumerate(species) if name in UNMEASURED),
    )
    return problem, state


def _heights(
    scaled: Scaled, xy_px: np.ndarray, background: Background, block: int, crew: Crew
) -> tuple[np.ndarray, np.ndarray]:
    """Heights of the peaks over the local minimum, and the background through the minima.

    Both are read off means over blocks about as wide as a column.
    """
    coarse = scaled.sums(block, crew).copy()
    for axis, n in enumerate(scaled.image.shape):
        part = np.diff(np.append(np.arange(0, n, block), n)).astype(np.float32)
        coarse /= part[:, None] if axis == 0 else part
    # The least of every 5 x 5 blocks, then of a neighbourhood as wide as the nearest columns.
    pool = max(1, min(5, *coarse.shape))
    whole = [n // pool for n in coarse.shape]
    low = coarse[: whole[0] * pool, : whole[1] * pool]
    low = np.minimum.reduce([low[k::pool] for k in range(pool)])
    low = np.minimum.reduce([low[:, k::pool] for k in range(pool)])
    low = ndimage.minimum_filter(low, size=3)
    for _ in range(2):
        low = ndimage.uniform_filter(low, size=3)
    at = [(xy_px[:, 1 - k] + 0.5) / block - 0.5 for k in (0, 1)]
    under = [(a + 0.5) / pool - 0.5 for a in at]
    peak = ndimage.map_coordinates(coarse, at, order=1, mode="nearest")
    floor = ndimage.map_coordinates(low, under, order=1, mode="nearest")
    return np.maximum(peak - floor, 0.05), background.fit_blocks(low, block * pool)


def resume(
    columns: pd.DataFrame, species: tuple[str, ...], state: State, problem: Problem, scaled: Scaled
) -> tuple[State, bool]:
    """Start from the intensities and widths of an earlier fit, where the table has them."""
    if "intensity" not in columns or "sigma_A" not in columns:
        return state, False
    order = problem.strips.order
    volume = columns["intensity"].to_numpy(dtype=np.float64)[order]
    volume = volume / (scaled.unit * scaled.scale**2)
    widths = columns.groupby("species")["sigma_A"].median().reindex(species).to_numpy(dtype=float)
    widths = widths[problem.kind] / scaled.scale
    start = state.columns.copy()
    start[:, 0] = np.where(np.isfinite(volume), volume, start[:, 0])
    start[:, 3] = np.where(np.isfinite(widths), widths, start[:, 3])
    return replace(state, columns=start), True
