"""Where frames lie and how they drift while they are scanned, from reduced and filtered frames.

A frame that drifts while it is scanned shows the film displaced against the crystal of another
frame, and may be placed a lattice vector off. So frames are placed, their drift is found (it is the
same a lattice vector off) and taken out, and they are placed again.

Kernels for `register`: arrays in, pixels of the reduced frames out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from stemdisp._finealign import common_area, not_outlying, refine_shifts
from stemdisp._resample import Place
from stemdisp._scanpath import equations_of_lines, uniform_drift
from stemdisp._series import place_series
from stemdisp._spread import spread

_ROUNDS = 2
_ROUNDS_OF_TWO = 8  # two scan directions: what they share halves in every round
_MOST_DRIFT = 0.05  # of the frame
_PLACINGS = 4
_HARMLESS_DRIFT_PX = 1.0
_SAME_PX = 1.5
_ALIKE = 0.85  # of the median correlation: less is not the same image any more


@dataclass(frozen=True, eq=False)
class Located:
    """Positions and drifts (n, 2), who is used, correlations (n,) and the guard's report."""

    shifts: np.ndarray
    drift: np.ndarray
    used: np.ndarray
    correlation: np.ndarray
    report: dict[str, Any]


def locate(
    frames: np.ndarray,
    usable: np.ndarray,
    *,
    max_step: float,
    upsample: int,
    guard: bool,
    line_axis: Sequence[int] | None,
    tell: Callable[[], None],
    executor: Executor | None = None,
) -> Located:
    """Place frames, with the drift within them taken out.

    Parameters
    ----------
    frames : ndarray, shape (n, ny, nx)
        Filtered frames.
    usable : ndarray of bool, shape (n,)
        Frames that hold an image.
    max_step : float
        Largest shift from one frame to the next, px.
    upsample : int
        Of the fine step.
    guard : bool
        See `place_frames`.
    line_axis : sequence of int, or None
        0: lines are rows; 1: columns. None: drift is not looked for.
    tell : callable
        Called once a frame.
    executor : concurrent.futures.Executor, optional
        Who places blocks of long series.

    Returns
    -------
    Located
        Shifts are NaN, and drifts zero, for frames not used.
    """
    n, index = len(frames), np.flatnonzero(usable)
    drift, before = np.zeros((n, 2)), None
    frame: Callable[[int], np.ndarray] = frames.__getitem__
    for placing in range(_PLACINGS):
        place = place_series(
            partial(_of, frame, index),
            index.size,
            max_step,
            guard=guard,
            executor=executor,
        )
        used, start = usable.copy(), np.full((n, 2), np.nan)
        used[index] = not_outlying(place.agreement)
        start[index] = place.positions_px
        same = before is not None and abs(start - before)[index].max() < _SAME_PX
        before = start
        common_area(start[used], frames.shape[1:])
        shifts, correlation, used = refine_shifts(
            frame,
            frames.shape[1:],
            (start, used),
            upsample=upsample,
            step=tell if placing == 0 else _nothing,
        )
        if line_axis is None:
            break
        shifts, drift = coarse_drift(frames, (shifts, drift), used, line_axis)
        if same or abs(drift).max() < _HARMLESS_DRIFT_PX:
            break
        frame = _straight(frames, drift, line_axis)
    # blurred and charged frames, and those that jumped half-way, only now stand out
    kept = np.flatnonzero(used)
    used[kept] = not_outlying(correlation[kept], share=_ALIKE)
    shifts[~used], drift[~used] = np.nan, 0.0
    shifts -= shifts[np.flatnonzero(used)[0]]
    return Located(shifts, drift, used, correlation, place.report)


def _of(frame: Callable[[int], np.ndarray], index: np.ndarray, i: int) -> np.ndarray:
    """Frame number `i` of those in `index`."""
    return frame(int(index[i]))


def _nothing() -> None:
    """Tell nobody."""


def _straight(
    frames: np.ndarray, drift: np.ndarray, line_axis: Sequence[int]
) -> Callable[[int], np.ndarray]:
    """Give frames that stay where they are, their drift taken out: made anew whenever asked for.

    As many as there may be, a second copy of them all would not fit into memory.
    """
    size = (frames.shape[2], frames.shape[1])

    def frame(k: int) -> np.ndarray:
        lines = frames.shape[1 + line_axis[k]]
        place = Place(np.zeros(2), size, drifting(lines, lines, drift[k]), line_axis[k])
        return place.sample(frames[k])[0].astype(np.float32)

    return frame


def coarse_drift(
    frames: np.ndarray,
    start: tuple[np.ndarray, np.ndarray],
    used: np.ndarray,
    line_axis: Sequence[int],
) -> tuple[np.ndarray, np.ndarray]:
    """Shifts and drifts within the frames, from filtered frames with nearly white noise.

    Parameters
    ----------
    frames : ndarray, shape (n, ny, nx)
        Filtered frames.
    start : (shifts, drift), ndarrays of shape (n, 2)
        Positions and drifts so far.
    used : ndarray of bool, shape (n,)
        Frames to look at.
    line_axis : sequence of int
        0: lines are rows; 1: columns.

    Returns
    -------
    shifts : ndarray, shape (n, 2)
    drift : ndarray, shape (n, 2)
        Displacement (x, y) of the last line against the first; zero for frames not used.
    """
    shape = frames.shape[1:]
    shifts, drift = (part.copy() for part in start)
    index = np.flatnonzero(used).tolist()
    rounds = _ROUNDS if len({line_axis[k] for k in index}) == 1 else _ROUNDS_OF_TWO
    for _ in range(rounds):
        first, extent = common_area(shifts[index], shape, 0.05)
        size = (int(extent[0]), int(extent[1]))
        places = {
            k: Place(
                first + shifts[k],
                size,
                drifting(size[1 - line_axis[k]], shape[line_axis[k]], drift[k]),
                line_axis[k],
            )
            for k in index
        }

        def sampled(k: int, places: dict[int, Place] = places) -> np.ndarray:
            return places[k].sample(frames[k])[0]

        total = np.zeros(size[::-1])
        for part in spread(sampled, ((k,) for k in index)):
            total += part
        mean = total / len(index)

        def left(
            k: int, mean: np.ndarray = mean, sampled: Callable[[int], np.ndarray] = sampled
        ) -> np.ndarray:
            lines = equations_of_lines(sampled(k), mean, (1.0, 0.0), line_axis=line_axis[k])
            return uniform_drift(lines)

        for k, found in zip(index, spread(left, ((k,) for k in index)), strict=True):
            share = size[1 - line_axis[k]] / shape[line_axis[k]]
            shifts[k] += found[0]
            limit = _MOST_DRIFT * min(shape)
            drift[k] = np.clip(drift[k] + found[1] / share, -limit, limit)
    return shifts - shifts[index[0]], drift


def drifting(n: int, full: int, drift: np.ndarray) -> np.ndarray:
    """Displacements (n, 2) of the middle n lines of `full`."""
    return np.linspace(-0.5, 0.5, n)[:, None] * drift * (n / full)
