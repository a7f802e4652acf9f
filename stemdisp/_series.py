"""Series of any length are placed in blocks of neighbours in time, and then the blocks.

Kernels for `register`: arrays in, pixels out.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor

import numpy as np

from stemdisp._candidates import correlate_pairs, shifted
from stemdisp._placement import Placement, place_frames
from stemdisp._spread import InPlace, spread

_MOST_AT_ONCE = 24  # frames whose pairs are all in memory
_BLOCK = 16


def place_series(
    frame: Callable[[int], np.ndarray],
    n: int,
    max_step: float,
    *,
    guard: bool = True,
    executor: Executor | None = None,
) -> Placement:
    """Place a series of any length: in blocks of neighbours in time, then the blocks.

    Parameters
    ----------
    frame : callable
        Gives filtered frame i of mean zero, shape (ny, nx).
    n : int
        Number of frames.
    max_step : float
        Largest shift from one frame to the next, in pixels.
    guard : bool, default True
        False: follow the highest correlation from frame to frame.
    executor : concurrent.futures.Executor, optional
        Who places the blocks.

    Returns
    -------
    Placement
        Frame 0 lies at (0, 0); the margin is the smallest of all levels.
    """
    if n <= _MOST_AT_ONCE or not guard:
        frames = np.stack([frame(i) for i in range(n)])
        return place_frames(correlate_pairs(frames, max_step, guard=guard), n, guard=guard)
    blocks = np.array_split(np.arange(n), -(-n // _BLOCK))
    calls = ((np.stack([frame(i) for i in block]), max_step) for block in blocks)
    placed = list(spread(_place_block, calls, executor=executor))
    inner, means = [place for place, _ in placed], [mean for _, mean in placed]
    # a random walk: blocks drift apart with the root of the number of frames
    outer = place_series(
        means.__getitem__, len(means), max_step * np.sqrt(_BLOCK), executor=executor
    )
    positions = np.vstack(
        [p.positions_px + at for p, at in zip(inner, outer.positions_px, strict=True)]
    )
    reports = [place.report for place in (*inner, outer)]
    report = {
        "n_pairs": sum(r["n_pairs"] for r in reports),
        "max_transitivity_px": max(r["max_transitivity_px"] for r in reports),
        "n_repaired": sum(r["n_repaired"] for r in reports),
        "margin": min(r["margin"] for r in reports),
        "ambiguous": any(r["ambiguous"] for r in reports),
    }
    agreement = np.concatenate([place.agreement for place in inner])
    return Placement(positions - positions[0], agreement, report)


def _place_block(frames: np.ndarray, max_step: float) -> tuple[Placement, np.ndarray]:
    """Place the frames of a block, and average them."""
    pairs = correlate_pairs(frames, max_step, threads=InPlace())
    place = place_frames(pairs, len(frames))
    return place, _block_mean(frames, place.positions_px)


def _block_mean(frames: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Mean of frames on the pixels of the first; zero where none has any."""
    total, count = np.zeros(frames.shape[1:]), np.zeros(frames.shape[1:])
    for frame, (x, y) in zip(frames, positions, strict=True):
        moved = shifted(frame, (-y, -x))
        inside = np.isfinite(moved)
        total += np.where(inside, moved, 0.0)
        count += inside
    return (total / np.maximum(count, 1)).astype(np.float32)
