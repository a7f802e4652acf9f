"""Medians of plain arrays of numbers, without what `numpy.median` does for all other cases."""

from __future__ import annotations

import numpy as np


def middle(values: np.ndarray) -> float:
    """Give the median of numbers that are not NaN; of none, NaN.

    A fit takes some eighty medians of some hundred numbers each, and `numpy.median` spends most
    of its time beside them.
    """
    flat = np.ravel(values)
    if not flat.size:
        return float("nan")
    half = flat.size // 2
    if flat.size % 2:
        return float(np.partition(flat, half)[half])
    low, high = np.partition(flat, (half - 1, half))[half - 1 : half + 1]
    return 0.5 * (float(low) + float(high))


def middles(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Give the median of each group; `group` (n,) counts from 0."""
    return np.array([middle(values[group == k]) for k in range(group.max() + 1)])
