"""Mean of placed frames, its two halves and its noise.

Kernels for `register`: arrays in, arrays out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor

import numpy as np
from scipy import fft

from stemdisp._filter import ring_medians
from stemdisp._resample import Place
from stemdisp._spread import spread

CHUNK = 8  # frames that one worker adds up; a fixed number, for sums that never differ
_LEAST_COVERED = 0.2  # of the pixels


def partial_sums(
    reads: list[Callable[[], np.ndarray]], places: list[Place], parity: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return sums of frames and their counts, shape (2, ..., ny, nx): even and odd ones apart.

    Frames of several channels (c, ny, nx) are moved together.
    """
    sums: np.ndarray | None = None
    counts = np.zeros((2, *places[0].size[::-1]), dtype=np.float32)
    for read, place, half in zip(reads, places, parity, strict=True):
        frame = read()
        channels = frame.reshape(-1, *frame.shape[-2:])
        parts = [place.sample(channel) for channel in channels]
        good = np.ones(counts.shape[1:], dtype=bool)
        for _, seen in parts:
            good &= True if seen is None else seen
        moved = np.stack([np.where(good, part, 0.0) for part, _ in parts])
        moved = moved.reshape(*frame.shape[:-2], *moved.shape[-2:])
        if sums is None:
            sums = np.zeros((2, *moved.shape))
        sums[half] += moved
        counts[half] += good
    assert sums is not None  # a chunk holds at least one frame
    return sums, counts


def half_noise(halves: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Noise power of the mean on rings of spatial frequency, from even minus odd frames.

    The median of exponentially distributed power is ln 2 of its mean, and does not see the few
    frequencies at which imperfectly aligned columns remain. None if the halves share too little.
    """
    even, odd = counts.astype(float)
    both = (even > 0) & (odd > 0)
    if both.mean() < _LEAST_COVERED:
        return None
    a, b = np.where(both, even, 1.0), np.where(both, odd, 1.0)
    # Scaled from the variance of the difference, s2 (1/a + 1/b), to that of the mean of all frames.
    everything = counts.sum(axis=0).max()
    difference = np.where(both, halves[0] / a - halves[1] / b, 0.0)
    difference *= np.sqrt(a * b / ((a + b) * everything))
    ny, nx = difference.shape
    window = np.outer(np.hanning(ny + 2)[1:-1], np.hanning(nx + 2)[1:-1]) * both
    difference -= np.sum(difference * window) / np.sum(window)
    power = abs(fft.fft2(difference * window)) ** 2 / np.sum(window**2)
    k = np.hypot(fft.fftfreq(nx), fft.fftfreq(ny)[:, None])
    centres, level = ring_medians(k, power, 1.0 / min(ny, nx))
    return centres, level / np.log(2.0)


def mean_of(
    readers: Sequence[Callable[[], np.ndarray]],
    places: Sequence[Place | None],
    *,
    executor: Executor | None = None,
    tell: Callable[[int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Add up frames at their places, the even and the odd used ones apart.

    Parameters
    ----------
    readers : sequence of callable
        Each returns a frame (ny, nx), or several channels of it (c, ny, nx).
    places : sequence of Place or None
        None for frames left out.
    executor : concurrent.futures.Executor, optional
        Who does it.
    tell : callable, optional
        Called with the number of frames done since the last call.

    Returns
    -------
    sums : ndarray, shape (2, ..., ny, nx)
    counts : ndarray, shape (2, ny, nx)
    """
    index = [k for k, place in enumerate(places) if place is not None]
    half = {k: order % 2 for order, k in enumerate(index)}
    chunks = [index[a : a + CHUNK] for a in range(0, len(index), CHUNK)]
    calls = (
        ([readers[k] for k in some], [places[k] for k in some], [half[k] for k in some])
        for some in chunks
    )
    sums: np.ndarray | None = None
    counts = np.zeros(0)
    parts = spread(partial_sums, calls, executor=executor)
    for chunk, (part, number) in zip(chunks, parts, strict=True):
        if sums is None:
            sums, counts = part, number
        else:
            sums += part
            counts += number
        if tell is not None:
            tell(len(chunk))
    assert sums is not None  # at least one frame is used
    return sums, counts


def assembled(
    sums: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | None, tuple[np.ndarray, np.ndarray] | None]:
    """Mean, noise of the mean, and the means of the halves."""
    total = counts.sum(axis=0)
    image = np.where(total > 0, sums.sum(axis=0) / np.maximum(total, 1.0), np.nan)
    if not counts[1].any():  # a single frame
        return image, None, None
    means = np.where(counts > 0, sums / np.maximum(counts, 1.0), np.nan)
    return image, half_noise(sums, counts), (means[0], means[1])
