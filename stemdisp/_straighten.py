"""Displacement of every line of all frames of a series.

What `_scanpath` knows of one frame is put together here for many. Kernels for `register`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace

import numpy as np

from stemdisp import _scanpath
from stemdisp._mean import CHUNK, assembled
from stemdisp._resample import Place
from stemdisp._scanpath import LineEquations
from stemdisp._source import FrameSource
from stemdisp._spread import spread

_SEEN_PX = 0.02  # less jitter than this is not worth moving lines for


def straighten(
    source: FrameSource,
    places: list[Place | None],
    mean: tuple[np.ndarray, np.ndarray],
    executor: Executor | None,
    tell: Callable[[int], None],
) -> tuple[list[Place | None], np.ndarray, tuple[float, float]]:
    """Find the displacement of every line of every frame against the mean.

    Parameters
    ----------
    source : FrameSource
        Its `channels` are looked at.
    places : list of Place or None
        So far.
    mean : (sums, counts)
        Of the channels at these places, the halves apart.
    executor : concurrent.futures.Executor or None
    tell : callable
        Called with the number of frames done since the last call.

    Returns
    -------
    places : list of Place or None
        With the displacements of the lines.
    drift : ndarray, shape (n, 2)
        What is added to the displacement of the last line of the mean against its first.
    jitter_px : (float, float)
        Standard deviation of the lines along x and y, drift not counted.

    Notes
    -----
    Each half of the frames keeps the mean jitter of its own lines: so the halves still differ by
    what jitter does to a mean, which no alignment of frames on each other can take out, and errors
    that are read from their difference stay true.
    """
    placed = {k: place for k, place in enumerate(places) if place is not None}
    index = list(placed)
    added = np.zeros((len(places), 2))
    found = _references(*mean, len(index))
    if found is None:
        return places, added, (0.0, 0.0)
    clean, weights = found
    chunks = [index[a : a + CHUNK] for a in range(0, len(index), CHUNK)]
    calls = (
        ([source.channels[k] for k in some], [placed[k] for k in some], clean, weights)
        for some in chunks
    )
    equations: list[LineEquations] = []
    for some in spread(frame_equations, calls, executor=executor):
        equations += some
        tell(len(some))
    drifts = [_scanpath.uniform_drift(each) for each in equations]
    lines = [_linear(drift, len(each.right)) for drift, each in zip(drifts, equations, strict=True)]
    left = [each.shifted(line) for each, line in zip(equations, lines, strict=True)]
    prior = _scanpath.find_prior(left)
    moves = max(prior.jitter_x, prior.jitter_y, 4.0 * prior.walk) > _SEEN_PX
    paths = [
        _scanpath.line_path(each, prior) if moves else np.zeros_like(each.right) for each in left
    ]
    _keep_common(paths, [place.line_axis for place in placed.values()])
    for k, line, path in zip(index, lines, paths, strict=True):
        placed[k] = _moved(placed[k], line + path)
    # the mean lies on the pixels of the first frame
    rest = placed[index[0]].start - np.rint(placed[index[0]].start)
    placed = {k: replace(place, start=place.start - rest) for k, place in placed.items()}
    out = [placed.get(k) for k in range(len(places))]
    added[index] = [drift[1] for drift in drifts]
    return out, added, (prior.jitter_x, prior.jitter_y) if moves else (0.0, 0.0)


def _references(
    sums: np.ndarray, counts: np.ndarray, n: int
) -> tuple[np.ndarray, list[tuple[float, float]]] | None:
    """Clean means (c, ny, nx) of the channels, and the weights of their noise in single frames."""
    clean, weights = [], []
    for channel in sums.reshape(2, -1, *sums.shape[-2:]).swapaxes(0, 1):
        image, noise, _ = assembled(channel, counts)
        if noise is None:
            return None
        filled = np.where(np.isfinite(image), image, np.nanmedian(image))
        clean.append(_scanpath.denoised(filled, noise))
        # a frame against the mean: n times the noise of the mean, less the frame's share in it
        weights.append(_scanpath.inverse_noise((noise[0], noise[1] * (n - 1))))
    return np.stack(clean), weights


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
    weights: list[tuple[float, float]],
) -> list[LineEquations]:
    """Set up the equations of the lines of some frames, on the frames' own lines."""
    out = []
    for read, place in zip(reads, places, strict=True):
        whole = np.rint(place.start).astype(int)
        # the mean as the frame would see it: at its sub-pixel place, and drifting
        path = None if place.path is None else -place.path
        back = Place(whole - place.start, place.size, path, place.line_axis)
        frame = read()
        total: LineEquations | None = None
        for channel, mean, weight in zip(
            frame.reshape(-1, *frame.shape[-2:]), clean, weights, strict=True
        ):
            reference, _ = back.sample(mean)
            part = _cut(channel, whole, mean.shape)
            own = _scanpath.equations_of_lines(part, reference, weight, line_axis=place.line_axis)
            total = own if total is None else total.plus(own)
        if total is not None:
            out.append(total)
    return out


def _cut(frame: np.ndarray, origin: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Cut a field out of a frame, from (x, y) on; NaN beyond the frame."""
    x, y = origin
    part = np.full(shape, np.nan)
    rows = slice(max(0, -y), min(shape[0], frame.shape[0] - y))
    cols = slice(max(0, -x), min(shape[1], frame.shape[1] - x))
    part[rows, cols] = frame[rows.start + y : rows.stop + y, cols.start + x : cols.stop + x]
    return part
