"""Pixels that measure nothing: missing, saturated, dead, or of values that nothing can have."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

# A plateau of saturation: pixels that it has at least, share of the image that it has at most.
LEAST_PLATEAU, MOST_SATURATED = 5, 0.2
ROUNDING = 1e-7  # of the range of the image
FAR = 1000.0  # in units of the range of nearly all pixels: no detector reaches so far beyond
NOISY = 0.01  # of the range of the image: what a pixel differs by from its neighbours


def featureless(data: np.ndarray) -> np.ndarray:
    """Missing pixels, and those of areas of one value: saturated, dead, or vacuum without noise.

    Parameters
    ----------
    data : ndarray, shape (ny, nx)

    Returns
    -------
    ndarray of bool, shape (ny, nx)
    """
    missing = ~np.isfinite(data)
    flat = _plateaus(data, missing)
    return missing | _grown(flat) if flat.any() else missing


def impossible(data: np.ndarray) -> np.ndarray:
    """Pixels so far from all others that they are no measurement but damage, as by flipped bits.

    Parameters
    ----------
    data : ndarray, shape (ny, nx)

    Returns
    -------
    ndarray of bool, shape (ny, nx)
        Without pixels that are missing anyway.
    """
    some = data[:: max(1, data.shape[0] // 128), :: max(1, data.shape[1] // 128)].astype(float)
    some = some[np.isfinite(some)]
    if not some.size:
        return np.zeros(data.shape, dtype=bool)
    low, middle, high = np.percentile(some, (1, 50, 99))
    if not high > low:
        return np.zeros(data.shape, dtype=bool)
    reach = FAR * (high - low)
    return np.isfinite(data) & ((data < middle - reach) | (data > middle + reach))


def unmeasured(data: np.ndarray) -> np.ndarray:
    """As `featureless`, but for vacuum of an image that has no noise anywhere (a simulation).

    Parameters
    ----------
    data : ndarray, shape (ny, nx)

    Returns
    -------
    ndarray of bool, shape (ny, nx)
    """
    missing = ~np.isfinite(data)
    flat = _plateaus(data, missing)
    if not flat.any():
        return missing
    # mixed differences of second order hold little but noise
    filled = np.where(missing, 0.0, data)
    difference = np.diff(np.diff(filled, n=2, axis=0), n=2, axis=1)[~flat[1:-1, 1:-1]]
    level = np.ptp(filled[~missing])
    if not difference.size or np.median(np.abs(difference)) < NOISY * level:
        top = saturated(data, ~missing)
        flat = np.zeros_like(flat) if top is None else flat & top
    return missing | _grown(flat)


def _grown(flat: np.ndarray) -> np.ndarray:
    return ndimage.binary_dilation(flat, np.ones((3, 3), dtype=bool), iterations=2)


def _plateaus(data: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Middles of squares of 5 x 5 px of one value, but for rounding."""
    out = np.zeros(data.shape, dtype=bool)
    if min(data.shape) < 5 or missing.all():
        return out
    same = ROUNDING * np.ptp(data[~missing])
    beside = np.abs(data[:, 1:] - data[:, :-1]) <= same
    row = beside[:, :-3] & beside[:, 1:-2] & beside[:, 2:-1] & beside[:, 3:]
    if row.any():
        middle = data[:, 2:-2]
        below = np.abs(middle[1:] - middle[:-1]) <= same
        out[2:-2, 2:-2] = row[:-4] & below[:-3]
        for k in range(1, 4):
            out[2:-2, 2:-2] &= row[k : k - 4] & below[k : k - 3 or None]
        out[2:-2, 2:-2] &= row[4:]
    out &= ~missing
    return out & ~_few_counts(data, missing) if out.any() else out


def _few_counts(data: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Pixels of the lowest value of whole counts, which are alike by chance where counts are few.

    But for whole rows and columns: those are dead.
    """
    known = data[~missing]
    if np.any(known != np.rint(known)):
        return np.zeros(data.shape, dtype=bool)
    lowest = data == known.min()
    return lowest & ~lowest.all(axis=1, keepdims=True) & ~lowest.all(axis=0, keepdims=True)


def saturated(data: np.ndarray, good: np.ndarray) -> np.ndarray | None:
    """Return where the image stands at its largest value, if that is a plateau; else None.

    Noise and counts reach their largest value in single pixels; a plateau is one that holds a
    pixel and the four beside it. An image that stands there in large part shows something else.
    """
    at_top = data == (np.max(data) if good.all() else np.max(data[good]))
    count = np.count_nonzero(at_top)
    if count < LEAST_PLATEAU or count > MOST_SATURATED * data.size:
        return None
    inner = at_top[1:-1, 1:-1] & at_top[:-2, 1:-1] & at_top[2:, 1:-1]
    inner &= at_top[1:-1, :-2] & at_top[1:-1, 2:]
    return at_top if inner.any() else None
