"""Scan distortions of all frames of a series: drift on reduced frames, then line by line.

What `_scanpath` knows of one frame is put together here for many. Kernels for `register`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace

import numpy as np

from stemdisp import _scanpath
from stemdisp._finealign import common_area
from stemdisp._mean import CHUNK
from stemdisp._resample import Place
from stemdisp._scanpath import LineEquations
from stemdisp._source import FrameSource
from stemdisp._spread import spread

_ROUNDS = 2
_ROUNDS_OF_TWO = 8  # two scan directions: what they share halves in every round
_SEEN_PX = 0.02  # less jitter than this is not worth moving lines for
_MOST_DRIFT = 0.05  # of the frame


def coarse_drift(
    frames: np.ndarray, shifts: np.ndarray, used: np.ndarray, line_axis: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Shifts and drifts within the frames, from filtered frames with nearly white noise.

    Parameters
    ----------
    frames : ndarray, shape (n, ny, nx)
        Filtered frames.
    shifts : ndarray, shape (n, 2)
        Positions so far.
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
    shifts, drift = shifts.copy(), np.zeros((len(frames), 2))
    index = np.flatnonzero(used)
    rounds = _ROUNDS if len({line_axis[k] for k in index}) == 1 else _ROUNDS_OF_TWO
    for _ in range(rounds):
        first, size = common_area(shifts[index], shape, 0.05)
        size = (int(size[0]), int(size[1]))
        parts = {}
        total = np.zeros(size[::-1])
        for k in index:
            path = _line(size[1 - line_axis[k]], shape[line_axis[k]], drift[k])
            part, _ = Place(first + shifts[k], size, path, line_axis[k]).sample(frames[k])
            parts[k] = part.astype(np.float32)
            total += part
        mean = total / len(index)
        for k in index:
            found = _scanpath.uniform_drift(_equations(parts[k], mean, (1.0, 0.0), line_axis[k]))
            share = size[1 - line_axis[k]] / shape[line_axis[k]]
            shifts[k] += found[0]
            limit = _MOST_DRIFT * min(shape)
            drift[k] = np.clip(drift[k] + found[1] / share, -limit, limit)
    return shifts - shifts[index[0]], drift


def _line(n: int, full: int, drift: np.ndarray) -> np.ndarray:
    """Displacements (n, 2) of the middle n lines of `full`."""
    return np.linspace(-0.5, 0.5, n)[:, None] * drift * (n / full)


def _equations(
    part: np.ndarray, reference: np.ndarray, weights: tuple[float, float], line_axis: int
) -> LineEquations:
    """Equations of lines along either axis; displacements are (x, y) in both cases."""
    if line_axis == 0:
        return _scanpath.line_equations(part, reference, weights)
    turned = _scanpath.line_equations(part.T, reference.T, weights)
    return LineEquations(
        turned.own[:, ::-1, ::-1], turned.next[:, ::-1, ::-1], turned.right[:, ::-1]
    )


def straighten(
    source: FrameSource,
    places: list[Place | None],
    mean: tuple[np.ndarray, tuple[np.ndarray, np.ndarray]],
    executor: Executor | None,
    tell: Callable[[int], None],
) -> tuple[list[Place | None], tuple[float, float]]:
    """Find the displacement of every line of every frame against the mean.

    Parameters
    ----------
    source : FrameSource
    places : list of Place or None
        So far.
    mean : (image, noise)
        The mean, and the spatial frequency and power of its noise.
    executor : concurrent.futures.Executor or None
    tell : callable
        Called with the number of frames done since the last call.

    Returns
    -------
    places : list of Place or None
        With the displacements of the lines.
    jitter_px : (float, float)
        Their standard deviation along x and y, drift not counted.

    Notes
    -----
    Each half of the frames keeps the mean jitter of its own lines: so the halves still differ by
    what jitter does to a mean, which no alignment of frames on each other can take out, and errors
    that are read from their difference stay true.
    """
    image, noise = mean
    index = [k for k, place in enumerate(places) if place is not None]
    n = len(index)
    clean = _scanpath.denoised(np.where(np.isfinite(image), image, np.nanmedian(image)), noise)
    # a frame against the mean: noise of the frame, n times that of the mean, less its share in it
    weights = _scanpath.inverse_noise((noise[0], noise[1] * (n - 1)))
    chunks = [index[a : a + CHUNK] for a in range(0, n, CHUNK)]
    calls = (
        ([source.frames[k] for k in chunk], [places[k] for k in chunk], clean, weights)
        for chunk in chunks
    )
    equations: list[LineEquations] = []
    for some in spread(frame_equations, calls, executor=executor):
        equations += some
        tell(len(some))
    drifts = [_scanpath.uniform_drift(each) for each in equations]
    lines = [_linear(drift, len(each.right)) for drift, each in zip(drifts, equations, strict=True)]
    left = [each.shifted(line) for each, line in zip(equations, lines, strict=True)]
    prior = _scanpath.find_prior(left)
    moves = prior.jitter_x > _SEEN_PX or prior.jitter_y > _SEEN_PX or prior.walk > _SEEN_PX / 4
    rough = [
        _scanpath.line_path(each, prior) if moves else np.zeros_like(each.right) for each in left
    ]
    _keep_common(rough, [places[k].line_axis for k in index])
    out = list(places)
    for k, line, path in zip(index, lines, rough, strict=True):
        out[k] = _moved(places[k], line + path)
    # the mean lies on the pixels of the first frame
    rest = out[index[0]].start - np.rint(out[index[0]].start)
    out = [None if place is None else replace(place, start=place.start - rest) for place in out]
    return out, (prior.jitter_x, prior.jitter_y) if moves else (0.0, 0.0)


def _linear(drift: np.ndarray, n: int) -> np.ndarray:
    """Displacements (n, 2) of an offset and a slope."""
    return drift[0] + np.linspace(-0.5, 0.5, n)[:, None] * drift[1]


def _keep_common(paths: list[np.ndarray], line_axis: list[int]) -> None:
    """Give the mean displacement of each half's lines back to it."""
    for half in (0, 1):
        for axis in (0, 1):
            own = [k for k, a in enumerate(line_axis) if k % 2 == half and a == axis]
            if own:
                common = np.mean([paths[k] for k in own], axis=0)
                for k in own:
                    paths[k] = paths[k] - common


def _moved(place: Place, path: np.ndarray) -> Place:
    """Place with further displacements of its lines; their mean goes into the start."""
    total = path if place.path is None else place.path + path
    middle = total.mean(axis=0)
    return replace(place, start=place.start + middle, path=total - middle)


def frame_equations(
    reads: list[Callable[[], np.ndarray]],
    places: list[Place],
    clean: np.ndarray,
    weights: tuple[float, float],
) -> list[LineEquations]:
    """Equations of the lines of some frames, on the frames' own lines."""
    out = []
    for read, place in zip(reads, places, strict=True):
        whole = np.rint(place.start).astype(int)
        part = _cut(read(), whole, clean.shape)
        # the mean as the frame would see it: at its sub-pixel place, and drifting
        path = None if place.path is None else -place.path
        back = Place(whole - place.start, place.size, path, place.line_axis)
        reference, _ = back.sample(clean)
        out.append(_equations(part, reference, weights, place.line_axis))
    return out


def _cut(frame: np.ndarray, origin: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Cut a field out of a frame, from (x, y) on; NaN beyond the frame."""
    x, y = origin
    part = np.full(shape, np.nan)
    rows = slice(max(0, -y), min(shape[0], frame.shape[0] - y))
    cols = slice(max(0, -x), min(shape[1], frame.shape[1] - x))
    part[rows, cols] = frame[rows.start + y : rows.stop + y, cols.start + x : cols.stop + x]
    return part
