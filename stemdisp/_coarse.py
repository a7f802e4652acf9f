"""The joint fit on fewer pixels, from which the fit on all of them has little left to do.

Means over blocks of pixels keep nearly all that the noise lets one know of columns that stay two
pixels wide, and a step on them costs a fraction.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from stemdisp._background import Background, block_sums
from stemdisp._memory import image_room
from stemdisp._model import Problem, State, Strips
from stemdisp._start import Scaled
from stemdisp._threads import Crew

LEAST_WIDTH = 2.0  # px that a column must still be wide
MOST = 4  # pixels along a block


def block_size(width: float) -> int:
    """Size of the blocks for columns of this width (px); 1 where pixels are coarse already."""
    return int(np.clip(width / LEAST_WIDTH, 1, MOST))


def coarsen_image(scaled: Scaled, block: int, crew: Crew) -> Scaled:
    """Give means over blocks of ``block x block`` px.

    A last row or column of pixels that fills no block is left out.
    """
    whole = tuple(n // block * block for n in scaled.image.shape)
    image = scaled.sums(block, crew)[: whole[0] // block, : whole[1] // block]
    mask, usable = np.ones(image.shape, bool), scaled.usable
    if usable.size:
        count = block_sums(usable[: whole[0], : whole[1]], block, crew)
        image = np.where(count > 0, image / np.maximum(count, 1e-6), 0).astype(np.float32)
        usable = count / np.float32(block**2)
        mask = usable > 0
    else:
        image = np.divide(image, np.float32(block**2))
    size = (scaled.size[0] * block, scaled.size[1] * block)
    return replace(scaled, image=image, mask=mask, usable=usable, size=size)


def coarsen(problem: Problem, state: State, coarse: Scaled, block: int) -> tuple[Problem, State]:
    """Give the same columns on the image `coarse`."""
    background = Background.build(coarse.mask, coarse.knots, 2)
    coefficients = np.zeros(background.shape)
    if state.coefficients.shape == background.shape:
        coefficients = state.coefficients
    strips, (low, high) = problem.strips, problem.width_bounds
    start = _to_blocks(problem.start, problem.step, block)
    return replace(
        problem,
        image=coarse.image,
        mask=coarse.mask,
        weight=coarse.usable,
        background=background,
        strips=Strips(strips.order, strips.first, strips.height // block),
        scratch=image_room(coarse.image.shape, apart=True),
        start=start,
        under=cache(lambda: background.under(*(start / problem.step).T)),
        leash=problem.leash / block,
        width_bounds=(float(_widened(low, block)), float(_widened(high, block))),
        expected=problem.expected / block**2,
        prior=problem.prior * block**2,
    ), replace(state, columns=_columns_to_blocks(state.columns, problem, block),
               coefficients=coefficients)  # fmt: skip


def _to_blocks(xy: np.ndarray, step: tuple[float, float], block: int) -> np.ndarray:
    return (xy - (block - 1) / 2 * np.array(step)) / block


def _columns_to_blocks(columns: np.ndarray, problem: Problem, block: int) -> np.ndarray:
    out = columns / [block**2, 1, 1, block]
    out[:, 1:3] = _to_blocks(columns[:, 1:3], problem.step, block)
    out[:, 3] = _widened(columns[:, 3], block)
    return out


def _widened(width: np.ndarray | float, block: int) -> np.ndarray:
    """Give widths in blocks: the mean over one widens a column by the block's own variance."""
    return np.sqrt((width / block) ** 2 + _spread(block))


def back(drawn: State, state: State, problem: Problem, block: int) -> State:
    """Take what was found on blocks to the pixels of the fine `problem` and `state`."""
    columns = drawn.columns * [block**2, block, block, 1]
    columns[:, 1:3] += (block - 1) / 2 * np.array(problem.step)
    columns[:, 3] = block * np.sqrt(np.maximum(drawn.sigma**2 - _spread(block), 0.1))
    coefficients = state.coefficients
    if drawn.coefficients.shape == coefficients.shape:
        coefficients = drawn.coefficients
    return replace(
        state,
        columns=columns,
        coefficients=coefficients,
        shape=drawn.shape,
        iterations=drawn.iterations,
        pace=drawn.pace,
    )


def _spread(block: int) -> float:
    """Variance of the pixels of a block about its middle, in blocks squared."""
    return (block**2 - 1) / (12 * block**2)
