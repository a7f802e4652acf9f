"""Noise of an image: its spectrum, its level in the band where columns live, its kind.

Powers are normalised so that white noise of variance s2 per pixel has power s2 at every
frequency; frequencies are in 1/px. The level ``c`` is defined by ``P = c`` for white noise and
``P = c / k^2`` with ``k = 2 pi f`` for iDPC.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage

# Bands in units of k * sigma (sigma: width of a column). Columns carry their information about
# position below 2; above 2.2 their own spectrum has fallen below 1 %, so what is left there is
# noise that no fit has removed.
COLUMN_BAND = (0.7, 2.0)
NOISE_BAND = (2.2, 3.6)
# Median of an exponential distribution over its mean: |F|^2 of noise is exponential.
_MEDIAN = np.log(2.0)


@dataclass(frozen=True)
class NoiseLevel:
    """What is known of the noise of an image.

    Attributes
    ----------
    kind : {"idpc", "white", "poisson"}
        Model in use.
    level : float
        ``c`` in signal units squared (per px^2 for iDPC, where ``k`` is in rad/px).
    slope : float
        d log P / d log f where it was measured; about 0 for white noise, -2 for iDPC.
    source : {"frames", "residual"}
        Whether differences between frames or the residual gave it.
    """

    kind: str
    level: float
    slope: float
    source: str


def ring_spectrum(
    image: np.ndarray, mask: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Ring-averaged power spectrum, robust against lattice peaks.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
        Residual or difference image, free of NaN where `mask` is true.
    mask : ndarray of bool, shape (ny, nx), optional
        Pixels to use.

    Returns
    -------
    freq, power : ndarray
        Ring centres in 1/px and the noise power (median of each ring over ln 2, because the
        power of noise is exponentially distributed).
    """
    taper = _taper(image.shape, mask)
    weight = np.sum(taper**2)
    if weight == 0:
        raise ValueError("mask leaves no pixel from which to measure the noise")
    good = image if mask is None else np.where(mask, image, 0.0)
    good = good - np.sum(good * taper) / np.sum(taper)
    power = np.abs(fft.rfft2(good * taper)) ** 2 / weight
    f = np.hypot(fft.fftfreq(image.shape[0])[:, None], fft.rfftfreq(image.shape[1])[None, :])
    width = max(1.0 / min(image.shape) * 2, 0.004)
    ring = (f / width).astype(np.int64).ravel()
    n = int(0.5 / width)
    order = np.argsort(ring, kind="stable")
    bounds = np.searchsorted(ring[order], np.arange(n + 1))
    sorted_power = power.ravel()[order]
    centres, values = [], []
    for k in range(1, n):
        part = sorted_power[bounds[k] : bounds[k + 1]]
        if len(part) >= 8:
            centres.append((k + 0.5) * width)
            values.append(np.median(part) / _MEDIAN)
    return np.array(centres), np.array(values)


def _taper(shape: tuple[int, int], mask: np.ndarray | None) -> np.ndarray:
    """Smooth window that falls to zero at the borders of the image and of the mask."""
    ramp = max(4, int(0.08 * min(shape)))
    if mask is None or mask.all():
        lines = [np.minimum(np.arange(n), np.arange(n)[::-1]) for n in shape]
        distance = np.minimum(*np.meshgrid(*lines, indexing="ij"))
        return 0.5 - 0.5 * np.cos(np.pi * np.clip(distance / ramp, 0, 1))
    # Small holes (dead pixels) need no wide margin, large areas (the film) do.
    inside = ndimage.binary_closing(mask, iterations=2)
    inside[0, :] = inside[-1, :] = inside[:, 0] = inside[:, -1] = False
    distance = ndimage.distance_transform_edt(inside)
    taper = 0.5 - 0.5 * np.cos(np.pi * np.clip(distance / ramp, 0, 1))
    return np.where(mask, taper, 0.0)


def measure_noise(
    freq: np.ndarray,
    power: np.ndarray,
    *,
    sigma_px: float,
    kind: str = "auto",
    source: str = "residual",
) -> NoiseLevel:
    """Decide the kind of noise and its level from a ring spectrum.

    Parameters
    ----------
    freq, power : ndarray
        From `ring_spectrum`.
    sigma_px : float
        Typical column width.
    kind : {"auto", "idpc", "white", "poisson"}
        ``auto`` takes the slope of the spectrum: steeper than -1 is iDPC.
    source : {"residual", "frames"}
        A residual has lost to the fit what columns can express, so its noise is read just above
        their band; differences of frames have not, so theirs is read in the band itself.

    Returns
    -------
    NoiseLevel
    """
    k = 2 * np.pi * freq
    low, high = COLUMN_BAND if source == "frames" else NOISE_BAND
    band = (k * sigma_px >= low) & (k * sigma_px <= high) & (freq < 0.45)
    if np.count_nonzero(band) < 4:  # coarse pixels: what there is below the Nyquist frequency
        band = (k * sigma_px >= low / 2) & (freq < 0.47)
    floor = np.finfo(float).tiny
    slope = float(np.polyfit(np.log(freq[band]), np.log(power[band] + floor), 1)[0])
    if kind == "auto":
        kind = "idpc" if slope < -1.0 else "white"
    scaled = power * k**2 if kind == "idpc" else power
    # Rings hold modes in proportion to their radius.
    level = float(np.sum(scaled[band] * freq[band]) / np.sum(freq[band]))
    return NoiseLevel(kind, max(level, floor), slope, source)


def misfit_ratio(
    residual: np.ndarray, mask: np.ndarray, noise: NoiseLevel, *, sigma_px: float, n_free: float
) -> float:
    """Mean residual power in the columns' band over what the noise leaves there.

    Parameters
    ----------
    residual, mask : ndarray, shape (ny, nx)
        Image minus model, and the pixels to use.
    noise : NoiseLevel
        The noise in use.
    sigma_px : float
        Typical column width.
    n_free : float
        Fitted parameters per pixel: they have removed their share of the noise.

    Returns
    -------
    float
        1 when model and noise explain the image; above 1 for misfit.
    """
    taper = _taper(residual.shape, mask)
    clean = np.where(mask, residual, 0.0)
    clean = clean - np.sum(clean * taper) / np.sum(taper)
    power = np.abs(fft.fft2(clean * taper)) ** 2 / np.sum(taper**2)
    k = (
        2
        * np.pi
        * np.hypot(fft.fftfreq(residual.shape[0])[:, None], fft.fftfreq(residual.shape[1])[None, :])
    )
    band = (k * sigma_px > 0.3) & (k * sigma_px < NOISE_BAND[0])
    expected = noise.level / k[band] ** 2 if noise.kind == "idpc" else noise.level
    modes_per_pixel = np.count_nonzero(band) / band.size
    left = max(1.0 - n_free / modes_per_pixel, 0.05)
    return float(np.mean(power[band] / expected) / left)
