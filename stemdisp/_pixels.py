"""Pixels that measure nothing: missing, saturated, dead, or of values that nothing can have."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

# A plateau of saturation: pixels that it has at least, share of the image that it has at most.
LEAST_PLATEAU, MOST_SATURATED = 5, 0.2
ROWS = 64  # of the image that are looked at in one go
ABSURD = 4.0  # ranges of the image from its middle: no atom is so bright
SAMPLE = 50_000  # pixels by which that range is known
ROUNDING = 1e-7  # of the range of the image
NOISY = 0.01  # of the range of the image: what a pixel differs by from its neighbours


def absurd(data: np.ndarray) -> np.ndarray:
    """Single pixels of values that no image has: a turned bit, a cosmic ray, a defect of a file.

    Parameters
    ----------
    data : ndarray, shape (..., ny, nx)

    Returns
    -------
    ndarray of bool, same shape
        Where a value is further from the median than `ABSURD` times the range in which all but
        one of a thousand pixels lie. Nothing where so few pixels show anything that their range
        is 0.
    """
    finite = np.isfinite(data)
    nowhere = np.zeros(data.shape, dtype=bool)
    known = data[finite]
    if not known.size:
        return nowhere
    some = known[:: max(1, known.size // SAMPLE)].astype(np.float64)
    low, middle, high = np.percentile(some, (0.05, 50, 99.95))
    width = ABSURD * (high - low)
    if not 0 < width < max(float(known.max()) - middle, middle - float(known.min())):
        return nowhere
    with np.errstate(invalid="ignore"):
        return finite & (np.abs(data.astype(np.float64) - middle) > width)


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
        top = saturated(data, finite(data)[1])
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


def finite(data: np.ndarray, mask: np.ndarray | None = None) -> tuple[np.ndarray, list[float]]:
    """Tell which pixels can be used, and the largest value among them in every `ROWS` rows.

    Parameters
    ----------
    data : ndarray, shape (ny, nx)
    mask : ndarray of bool, shape (ny, nx), optional
        Pixels to use.

    Returns
    -------
    good : ndarray of bool, shape (ny, nx)
        Finite and in `mask`.
    tops : list of float
        Largest values; minus infinity where rows have no such pixel, an empty list if none has.
    """
    good = np.empty(data.shape, dtype=bool)
    tops = []
    for row in range(0, len(data), ROWS):  # what is read stays in the cache
        part, here = data[row : row + ROWS], good[row : row + ROWS]
        np.isfinite(part, out=here)
        if mask is not None:
            here &= mask[row : row + ROWS]
        if not here.all():
            part = part[here]
        tops.append(np.max(part) if part.size else -np.inf)
    return good, tops if max(tops, default=-np.inf) > -np.inf else []


def saturated(data: np.ndarray, tops: list[float]) -> np.ndarray | None:
    """Return where the image stands at its largest value, if that is a plateau; else None.

    Noise and counts reach their largest value in single pixels; a plateau is one that holds a
    pixel and the four beside it. An image that stands there in large part shows something else.
    `tops` are those of `finite`: next to no image has a plateau, and few rows reach that value.
    """
    if not tops:
        return None
    top = max(tops)
    parts = (data[k * ROWS : (k + 1) * ROWS] for k, its in enumerate(tops) if its == top)
    count = sum(np.count_nonzero(part == top) for part in parts)
    if count < LEAST_PLATEAU or count > MOST_SATURATED * data.size:
        return None
    at_top = data == top
    inner = at_top[1:-1, 1:-1] & at_top[:-2, 1:-1] & at_top[2:, 1:-1]
    inner &= at_top[1:-1, :-2] & at_top[1:-1, 2:]
    return at_top if inner.any() else None
