"""What the spectrum of a DPC vector field tells: its rotation, its curl and its noise.

Kernels for `dpc`: arrays in, numbers out. Angles are in radians from +x towards +y.
"""

from __future__ import annotations

import numpy as np
from scipy import fft
from scipy.stats import skew

from stemdisp._filter import ring_medians


def field_powers(dx: np.ndarray, dy: np.ndarray, step: tuple[float, float]) -> np.ndarray:
    """Second moments (L L, L T, T T) of the longitudinal and transverse parts, white noise off."""
    ny, nx = dx.shape
    window = np.hanning(ny)[:, None] * np.hanning(nx)
    kx = fft.fftfreq(nx, step[0])
    ky = fft.fftfreq(ny, step[1])[:, None]
    k = np.hypot(kx, ky)
    fx, fy = fft.fft2(dx * window), fft.fft2(dy * window)
    k_safe = np.where(k > 0, k, 1.0)
    along, across = (kx * fx + ky * fy) / k_safe, (kx * fy - ky * fx) / k_safe
    moments = np.stack([abs(along) ** 2, (along * across.conj()).real, abs(across) ** 2])
    # The window blurs the direction of k where k is of the order of its width.
    cycles = np.hypot(kx * nx * step[0], ky * ny * step[1])
    top = np.hypot(0.5 / step[0], 0.5 / step[1])
    # The corners of the spectrum hold counting noise only; a sum of two exponential variates of
    # mean one has the median 1.678.
    noise = np.median((moments[0] + moments[2])[k > 0.8 * top]) / 1.678
    band = (cycles > 4) & (k < 0.5 / max(step))
    sums = moments[:, band].sum(axis=1)
    sums[[0, 2]] = np.maximum(sums[[0, 2]] - noise * band.sum(), 0.0)
    return sums


def least_curl_angle(powers: np.ndarray) -> float:
    """Rotation of the vectors, in (-90, 90] degrees, that has the least transverse power."""
    # T' = T cos + L sin, so <T'^2> = (TT + LL)/2 + (TT - LL)/2 cos 2a + LT sin 2a.
    return float(0.5 * np.arctan2(-powers[1], 0.5 * (powers[0] - powers[2])))


def curl_fraction(powers: np.ndarray, angle: float) -> float:
    """Transverse part of the signal power after a rotation."""
    s, c = np.sin(angle), np.cos(angle)
    across = powers[2] * c**2 + 2 * powers[1] * s * c + powers[0] * s**2
    total = powers[0] + powers[2]
    return float(np.clip(across / total, 0.0, 1.0)) if total > 0 else float("nan")


def rotate(dx: np.ndarray, dy: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Turn vectors from +x towards +y."""
    s, c = np.sin(angle), np.cos(angle)
    return c * dx - s * dy, s * dx + c * dy


def sign_margin(image: np.ndarray) -> float:
    """Skewness of an image over its standard error, both from 16 tiles."""
    tiles = [t for rows in np.array_split(image, 4) for t in np.array_split(rows, 4, axis=1)]
    values = np.array([skew(t, axis=None) for t in tiles])
    error = max(values.std(ddof=1) / np.sqrt(len(values)), 1e-12)
    return float(values.mean() / error)


def curl_noise(
    dx: np.ndarray, dy: np.ndarray, *, step: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Noise of the integrated image, from the part of the vectors that no image explains.

    Parameters
    ----------
    dx, dy : ndarray, shape (ny, nx)
        DPC vectors, turned onto the image axes.
    step : (float, float)
        Pixel size along x and y, in the unit of length of the gradient.

    Returns
    -------
    k : ndarray
        Spatial frequency, 1/px.
    power : ndarray
        Power of the image's noise; white noise of variance s2 has the power s2.

    Notes
    -----
    Counting noise is alike and independent in both components, so half of its power is
    transverse, where a gradient has none; the other half, of the same density S(k), is
    integrated, which divides by 2 pi k: P(k) = S(k) / (2 pi k)^2. The median over each ring, ln 2
    of the mean of an exponential variate, does not see the few frequencies at which segments of
    finite width leave some curl of the lattice.
    """
    ny, nx = dx.shape
    window = np.outer(np.hanning(ny + 2)[1:-1], np.hanning(nx + 2)[1:-1])
    kx, ky = fft.fftfreq(nx), fft.fftfreq(ny)[:, None]
    k = np.hypot(kx, ky)
    fx, fy = fft.fft2((dx - dx.mean()) * window), fft.fft2((dy - dy.mean()) * window)
    # transverse to the true direction of k, which oblong pixels turn
    qx, qy = kx / step[0], ky / step[1]
    q = np.where(k > 0, np.hypot(qx, qy), 1.0)
    power = abs((qx * fy - qy * fx) / q) ** 2 / np.sum(window**2)
    centres, level = ring_medians(k, power / (2.0 * np.pi * q) ** 2, 1.0 / min(ny, nx))
    return centres, level / np.log(2.0)
