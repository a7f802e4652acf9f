"""What a short script does: `scipy.optimize.curve_fit`, one column after the other.

A Gaussian with two widths and an angle on a level background (7 parameters), fitted to the pixels
within 0.9 A of the start.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from protocol import serve
from scipy.optimize import curve_fit

RADIUS_A = 0.9


def ellipse(at: np.ndarray, x: float, y: float, peak: float, *rest: float) -> np.ndarray:
    """Give the model at the pixels `at` (2, n)."""
    wide, narrow, angle, level = rest
    cos, sin = np.cos(angle), np.sin(angle)
    along = (cos * (at[0] - x) + sin * (at[1] - y)) / wide
    across = (cos * (at[1] - y) - sin * (at[0] - x)) / narrow
    return level + peak * np.exp(-(along**2 + across**2) / 2)


def fit(scene: SimpleNamespace) -> np.ndarray:
    """Give the positions; NaN where the fit gives up."""
    image = scene.image.astype(np.float64)
    reach = int(np.ceil(RADIUS_A / scene.pixel_A))
    found = np.full((len(scene.x_px), 2), np.nan)
    for k, (x, y, sigma) in enumerate(zip(scene.x_px, scene.y_px, scene.sigma_A, strict=True)):
        left, top = max(int(x) - reach, 0), max(int(y) - reach, 0)
        window = image[top : int(y) + reach + 2, left : int(x) + reach + 2]
        rows, columns = np.mgrid[: window.shape[0], : window.shape[1]]
        at = np.stack([columns.ravel() + left, rows.ravel() + top]).astype(float)
        near = np.hypot(at[0] - x, at[1] - y) <= RADIUS_A / scene.pixel_A
        values, width = window.ravel()[near], sigma / scene.pixel_A
        low = values.min()
        begin = (x, y, image[round(y), round(x)] - low, width, width, 0.0, low)
        try:
            found[k] = curve_fit(ellipse, at[:, near], values, p0=begin)[0][:2]
        except RuntimeError:  # no convergence within the default number of calls
            continue
    return found


if __name__ == "__main__":
    serve(fit, ("scipy", "numpy"))
