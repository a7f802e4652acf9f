"""Colours that are even to the eye: a diverging scale about zero and a wheel of directions.

Both are made in the colour space Oklab (B. Ottosson, 2020), in which equal steps look equal. The
diverging scale runs from blue through near-white to orange, which people with colour-blindness
tell apart; its lightness falls on both sides alike. The wheel has one lightness, so that no
direction looks stronger than another.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# Oklab to cone responses, and those to linear sRGB, as published.
_TO_CONES = np.array(
    [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ]
)
_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)
# Hues of blue and orange in degrees, lightness at zero and at the ends, chroma at the ends.
_BLUE_DEG, _ORANGE_DEG, _MIDDLE, _END, _CHROMA = 252.0, 48.0, 0.96, 0.46, 0.124
# The wheel: lightness, and the largest chroma that every hue of it has on a screen.
WHEEL_LIGHTNESS, WHEEL_CHROMA = 0.75, 0.125
# The hue of displacements to the right.
_FIRST_HUE_DEG = 25.0


def oklab_to_rgb(lab: np.ndarray) -> np.ndarray:
    """Turn Oklab into sRGB, clipped to what a screen shows.

    Parameters
    ----------
    lab : ndarray, shape (..., 3)
        Lightness 0 to 1, and the two opponent colours.

    Returns
    -------
    ndarray, shape (..., 3)
        Between 0 and 1. Source: bottosson.github.io/posts/oklab; IEC 61966-2-1 for the curve.
    """
    linear = np.clip((np.asarray(lab, dtype=float) @ _TO_CONES.T) ** 3 @ _TO_RGB.T, 0.0, 1.0)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def diverging(values: np.ndarray) -> np.ndarray:
    """Colour values between -1 (blue), 0 (near-white) and 1 (orange).

    Parameters
    ----------
    values : ndarray
        Clipped to -1 to 1.

    Returns
    -------
    ndarray, shape (..., 3)
        sRGB between 0 and 1.
    """
    values = np.clip(np.asarray(values, dtype=float), -1.0, 1.0)
    size = np.abs(values)
    hue = np.deg2rad(np.where(values < 0, _BLUE_DEG, _ORANGE_DEG))
    lightness = _MIDDLE + (_END - _MIDDLE) * size
    chroma = _CHROMA * size
    return oklab_to_rgb(np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1))


def diverging_map() -> Any:
    """Return the diverging scale as a matplotlib colour map."""
    from matplotlib.colors import ListedColormap

    return ListedColormap(diverging(np.linspace(-1.0, 1.0, 255)), name="stemdisp_diverging")


def directed(vectors: np.ndarray) -> np.ndarray:
    """Colour vectors in image directions: hue by direction, saturation by length.

    Parameters
    ----------
    vectors : ndarray, shape (..., 2)
        x to the right, y down; a length of 1 or more has the full colour, 0 is grey.

    Returns
    -------
    ndarray, shape (..., 3)
        sRGB between 0 and 1, all of one lightness.
    """
    x, y = np.moveaxis(np.asarray(vectors, dtype=float), -1, 0)
    chroma = WHEEL_CHROMA * np.clip(np.hypot(x, y), 0.0, 1.0)
    hue = np.arctan2(-y, x) + np.deg2rad(_FIRST_HUE_DEG)
    lightness = np.full_like(chroma, WHEEL_LIGHTNESS)
    return oklab_to_rgb(np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1))


def hex_colors(rgb: np.ndarray) -> list[str]:
    """Write sRGB colours, shape (n, 3), as ``#rrggbb``."""
    steps = np.round(np.asarray(rgb) * 255).astype(int)
    return ["#{:02x}{:02x}{:02x}".format(*row) for row in steps.tolist()]
