"""Frames without what noise and background hide: the filter with which they are compared.

Kernels for `register`: arrays in, arrays out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise

import numpy as np
from scipy import fft, ndimage, optimize

from stemdisp._spread import spread

_SIGNAL_FREE = 0.25  # 1/px: no column is so sharp
_FINE_STEP = 0.0125
_FINE = _SIGNAL_FREE + _FINE_STEP * (np.arange(20) + 0.5)  # middles of rings without signal
_MEDIAN_CHI2 = 0.455
_LEAST_NOISE = 1e-3  # of the power on the ring with most contrast
_COARSE_SIDE = 768  # more pixels than this do not place the frames any better
_LEAST_SIDE = 256
_MOST_REDUCED = 4  # columns must still be seen, unless memory forbids
_MOST_PIXELS = 2**28  # of all reduced frames together: a gigabyte


def reduced_shape(shape: tuple[int, int], n: int) -> tuple[int, int]:
    """Choose the size of reduced frames: at most 768 a side, or a quarter; less for very many."""
    side = min(_COARSE_SIDE, max(_LEAST_SIDE, int((_MOST_PIXELS / n) ** 0.5)))
    factor = max(1, -(-round((shape[0] * shape[1]) ** 0.5) // side))
    if factor > _MOST_REDUCED and n * shape[0] * shape[1] <= _MOST_PIXELS * _MOST_REDUCED**2:
        factor = _MOST_REDUCED
    return round(shape[0] / factor), round(shape[1] / factor)


def cosine_spectrum(
    read: Callable[[], np.ndarray], small: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Slow part of the cosine spectrum of a frame, and its power in the fine rings.

    The cosine transform, whose mirrored borders leave no cross in the spectrum of an image that
    is not periodic, reduces and filters at once. The frame is scaled to unit variance. None if
    there is no image.
    """
    frame = read()
    valid = np.isfinite(frame)
    if valid.mean() <= 0.5:
        return None
    frame = np.where(valid, frame, np.median(frame[valid]))
    spread = frame.std()
    if not spread > 1e-9 * max(abs(frame).max(), 1e-300):
        return None
    spectrum = fft.dctn(((frame - frame.mean()) / spread).astype(np.float32), norm="ortho")
    band = np.floor((_frequencies(frame.shape) - _SIGNAL_FREE) / _FINE_STEP)
    inside = (band >= 0) & (band < len(_FINE))
    numbers, values = band[inside].astype(np.int8), spectrum[inside] ** 2
    fine = [np.median(values[numbers == b]) for b in range(len(_FINE))]
    return spectrum[: small[0], : small[1]].copy(), np.array(fine)


def _frequencies(shape: tuple[int, int]) -> np.ndarray:
    """Spatial frequency of every cosine coefficient, 1/px."""
    ny, nx = shape
    return np.hypot(np.arange(nx) / (2 * nx), np.arange(ny)[:, None] / (2 * ny))


def filtered_frames(
    spectra: Iterable[tuple[np.ndarray, np.ndarray] | None],
    n: int,
    *,
    small: tuple[int, int],
    factor: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return filtered frames (n, ny, nx) from their spectra, and which of them are usable.

    `factor` is the number of original pixels along one of the reduced ones.
    """
    frames = np.zeros((n, *small), dtype=np.float32)
    usable = np.zeros(n, dtype=bool)
    fine = np.zeros(len(_FINE))
    for i, found in enumerate(spectra):
        if found is not None:
            frames[i], usable[i] = found[0], True
            fine += found[1]
    if usable.any():
        power = np.zeros(small)
        for i in np.flatnonzero(usable).tolist():
            power += frames[i].astype(float) ** 2
        count = np.count_nonzero(usable)
        weight = matched_filter(power / count, (_FINE * factor, fine / count))

        def filtered(i: int) -> np.ndarray:
            return fft.idctn(frames[i] * weight, norm="ortho")

        index = np.flatnonzero(usable).tolist()
        for i, frame in zip(index, spread(filtered, ((i,) for i in index)), strict=True):
            frames[i] = frame
    return frames, usable


def matched_filter(power: np.ndarray, fine: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Real filter for cosine coefficients, with the maximum-likelihood weights of each ring.

    Two copies of an unknown image with the power S in noise of the power N are best compared with
    the weight S / (N (N + 2 S)). The noise is the 1/k^2 + constant that the fine rings show,
    where no signal is left (`fine`: frequencies in 1/px of the reduced frames, and medians of the
    power; of frames that were reduced they lie beyond what is left of the spectrum); S is what
    the ring's mean has above it, lattice included.
    """
    k = _frequencies(power.shape)
    width = 1.0 / min(power.shape)
    centres, middle = ring_medians(k, power, width)
    middle = np.maximum(middle / _MEDIAN_CHI2, 1e-9 * middle.max())
    mean = ndimage.mean(power, np.rint(k / width).astype(int), np.arange(1, len(centres) + 1))
    basis = np.column_stack([centres**-2.0, np.ones_like(centres)])
    where, level = fine[0], np.maximum(fine[1] / _MEDIAN_CHI2, 1e-9 * middle.max())
    shape = np.column_stack([where**-2.0, np.ones_like(where)])
    factors, _ = optimize.nnls(shape / level[:, None], np.ones(len(where)))
    # Data that were smoothed before have less noise in the fine rings, and data without noise
    # would be compared by their rounding: hence the lower limits.
    floor = _LEAST_NOISE * mean[np.argmax(mean * centres**2)]
    noise = np.maximum(np.maximum(basis @ factors, 0.3 * middle), floor)
    signal = np.maximum(mean - noise, 0.0)
    filt = np.sqrt(signal / (noise * (noise + 2 * signal)))
    filt = np.interp(k, centres, filt, left=0.0, right=0.0)
    return (filt / filt.max() if filt.max() > 0 else filt + 1.0).astype(np.float32)


def ring_medians(k: np.ndarray, power: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Median of the power on rings of |k|, from the first ring up to k = 0.5."""
    ring = np.rint(k / width).astype(int).ravel()
    order = np.argsort(ring, kind="stable")
    edges = np.searchsorted(ring[order], np.arange(1, int(0.5 / width) + 2))
    values = power.ravel()[order]
    level = [np.median(values[a:b]) for a, b in pairwise(edges)]
    return width * np.arange(1, len(level) + 1), np.array(level)
