"""Compiled: Gaussians as a scan sees them whose lines are displaced."""

from __future__ import annotations

import math

from stemdisp._compiled import compiled_in_order


@compiled_in_order
def add_gaussians(image, blobs, path, middle, reach):
    """Add Gaussians (x, y, volume, width) whose rows are shifted by `path`, in px."""
    ny, nx = image.shape
    for k in range(len(blobs)):
        x, y, volume, sigma = blobs[k]
        peak = volume / (2 * math.pi * sigma**2)
        col, row = round(x + middle[0]), round(y + middle[1])
        for r in range(max(row - reach, 0), min(row + reach + 1, ny)):
            dy = r - y - path[r, 1]
            left = x + path[r, 0]
            for c in range(max(col - reach, 0), min(col + reach + 1, nx)):
                dx = c - left
                image[r, c] += peak * math.exp(-(dx * dx + dy * dy) / (2 * sigma**2))
