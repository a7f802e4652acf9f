"""Series of any length are placed in blocks of neighbours in time, and then the blocks.

Kernels for `register`: arrays in, pixels out.
"""

from __future__ import annotations

import numpy as np

from stemdisp._candidates import correlate_pairs, shifted
from stemdisp._placement import Placement, place_frames

_MOST_AT_ONCE = 24  # frames whose pairs are all in memory
_BLOCK = 16


def place_series(frames: np.ndarray, max_step: float, *, guard: bool = True) -> Placement:
    """Place a series of any length: in blocks of neighbours in time, then the blocks.

    Parameters
    ----------
    frames : ndarray, shape (n, ny, nx)
        Filtered frames of mean zero.
    max_step : float
        Largest shift from one frame to the next, in pixels.
    guard : bool, default True
        False: follow the highest correlation from frame to frame.

    Returns
    -------
    Placement
        Frame 0 lies at (0, 0); the margin is the smallest of all levels.
    """
    n = len(frames)
    if n <= _MOST_AT_ONCE or not guard:
        return place_frames(correlate_pairs(frames, max_step, guard=guard), n, guard=guard)
    blocks = np.array_split(np.arange(n), -(-n // _BLOCK))
    inner = [place_series(frames[block], max_step) for block in blocks]
    means = np.stack(
        [_block_mean(frames[b], place.positions_px) for b, place in zip(blocks, inner, strict=True)]
    )
    # a random walk: blocks drift apart with the root of the number of frames
    outer = place_series(means, max_step * np.sqrt(_BLOCK))
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


def _block_mean(frames: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Mean of frames on the pixels of the first; zero where none has any."""
    total, count = np.zeros(frames.shape[1:]), np.zeros(frames.shape[1:])
    for frame, (x, y) in zip(frames, positions, strict=True):
        moved = shifted(frame, (-y, -x))
        inside = np.isfinite(moved)
        total += np.where(inside, moved, 0.0)
        count += inside
    return (total / np.maximum(count, 1)).astype(np.float32)
