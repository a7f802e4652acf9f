"""What the border of an image leaves of a column, where all pixels count alike.

Inside a rectangle every sum over pixels is a product of sums along x and along y.
"""

from __future__ import annotations

import numpy as np


def near_border(
    columns: np.ndarray, shape: tuple[int, int], *, step: tuple[float, float], widths: float
) -> np.ndarray:
    """Tell the columns (n, 4) nearer to the border than so many of their widths; bool (n,)."""
    room = widths * columns[:, 3]
    out = np.zeros(len(columns), dtype=bool)
    for n, pitch, at in zip(shape[::-1], step, (columns[:, 1], columns[:, 2]), strict=True):
        out |= at < room
        out |= at > (n - 1) * pitch - room
    return out


def seen_inside(
    columns: np.ndarray,
    shape: tuple[int, int],
    *,
    step: tuple[float, float],
    reach: float,
    order: int,
) -> np.ndarray:
    """Give what `_kernels.seen_weight` gives for weights of 1 inside the image and 0 beyond.

    Parameters
    ----------
    columns : ndarray, shape (n, 4)
        V, x, y and width.
    shape : (int, int)
        Rows and columns of the image.
    step : (float, float)
        Distance of pixels along x and y.
    reach : float
        Half window in widths.
    order : int
        0 or 1, the metric.

    Returns
    -------
    ndarray, shape (n, 6)
    """
    out = np.ones((len(columns), 6))
    out[:, 5] = 0.0
    cut = near_border(columns, shape, step=step, widths=reach)
    if not cut.any():
        return out
    near = columns[cut]
    x = _sums(near[:, 1], near[:, 3], step[0], shape[1], reach)
    y = _sums(near[:, 2], near[:, 3], step[1], shape[0], reach)
    found = [_combine(x[k], y[k], order) for k in ("inside", "all")]
    out[cut, :4] = (found[0] / np.maximum(found[1], 1e-300)).T
    whole = x["all"]["g"][0] * y["all"]["g"][0]
    (a, a2), (b, b2) = x["inside"]["g"], y["inside"]["g"]
    out[cut, 4] = a * b / whole
    out[cut, 5] = (a2 * b + a * b2 - 2 * a * b) / whole
    return out


def outside(
    columns: np.ndarray,
    shape: tuple[int, int],
    *,
    step: tuple[float, float],
    reach: float,
    share: float,
) -> np.ndarray:
    """Tell the columns that have more than a `share` of themselves beyond the border; bool (n,).

    A share that one whole width on either side of the border can decide: of a column with its
    middle further inside, in a corner, 0.29 is lost.
    """
    out = near_border(columns, shape, step=step, widths=1.0)
    seen = seen_inside(columns[out], shape, step=step, reach=reach, order=0)
    out[out] = 1.0 - seen[:, 4] > share
    return out


def _sums(
    centre: np.ndarray, width: np.ndarray, step: float, n: int, reach: float
) -> dict[str, dict[str, list[np.ndarray]]]:
    """Sum along one axis: even moments of g (0, 2) and of its square (0 to 6), in widths."""
    half = int(np.ceil(reach * width.max() / step)) + 1
    pixel = np.rint(centre / step)[:, None] + np.arange(-half, half + 1)
    u2 = ((pixel * step - centre[:, None]) / width[:, None]) ** 2
    g = np.where(u2 <= reach**2, np.exp(-0.5 * u2), 0.0)
    there = (pixel >= 0) & (pixel < n)
    return {
        name: {
            "g": [np.sum(g * u2**k * part, axis=1) for k in range(2)],
            "g2": [np.sum(g * g * u2**k * part, axis=1) for k in range(4)],
        }
        for name, part in (("inside", there), ("all", np.ones_like(there)))
    }


def _combine(
    x: dict[str, list[np.ndarray]], y: dict[str, list[np.ndarray]], order: int
) -> np.ndarray:
    """Information on V, x, y and width (4, n) from moments of squared Gaussians along the axes."""
    (a, a2, a4, a6), (b, b2, b4, b6) = x["g2"], y["g2"]
    t = a2 * b + a * b2
    t2 = a4 * b + 2 * a2 * b2 + a * b4
    if order == 0:
        return np.stack([a * b, a2 * b, a * b2, t2 - 4 * t + 4 * a * b])
    t3 = a6 * b + 3 * a4 * b2 + 3 * a2 * b4 + a * b6
    along = (a4 - 2 * a2 + a) * b + a2 * b2
    across = a * (b4 - 2 * b2 + b) + a2 * b2
    return np.stack([t, along, across, t3 - 8 * t2 + 16 * t])
