"""Noise of an image: its spectrum, its level in the band where columns live, its kind.

Powers are normalised so that white noise of variance s2 per pixel has power s2 at every
frequency; frequencies are in 1/px. The level ``c`` is defined by ``P = c`` for white noise and
``P = c / k^2`` with ``k = 2 pi f`` for iDPC.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import fft, ndimage

from stemdisp._kernels import halve_tile
from stemdisp._medians import middle
from stemdisp._memory import in_one_line
from stemdisp._threads import Crew

# Bands in units of k * sigma (sigma: width of a column). Columns carry their information about
# position below 2; above 2.2 their own spectrum has fallen below 1 %, so what is left there is
# noise that no fit has removed.
COLUMN_BAND = (0.7, 2.0)
NOISE_BAND = (2.2, 3.6)
TILE, MOST_TILES = 512, 8
# Counts: classes of signal, blocks that each needs, errors of the slope that make it sure, and the
# share of the variance that may be left where there is no signal.
SIGNAL_CLASSES, LEAST_IN_CLASS, SURE, ZERO_SHARE = 10, 50, 6.0, 0.25
# Where no higher frequency (1/px) is read, every second pixel does. Of white noise the filter
# before it (Lagrange's half-band filter, distances of 1, 3, 5 px) lets through 0.9 % that would be
# taken for noise of this frequency, 0.1 % at 0.13, and less below.
HALVED = 0.16
_SIDES = np.array([150, -25, 3], np.float32) / 512
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


@dataclass(frozen=True, eq=False)
class Periodograms:
    """Power of one or more tiles of an image.

    ``power`` is (n_tiles, n_rows, n_modes): along x the modes up to the frequency that was asked
    for, at most nx // 2 + 1; along y the modes of ny rows, or of half as many twice as far apart.
    """

    power: np.ndarray
    shape: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Taper:
    """Smooth window over a tile, with its sum and the sum of its squares."""

    values: np.ndarray
    area: float
    square: float

    @classmethod
    def of(cls, values: np.ndarray) -> Taper:
        """Sum up a window of shape (ny, nx)."""
        return cls(values, float(np.sum(values)), float(np.sum(np.square(values))))


@dataclass(frozen=True, eq=False)
class Tiles:
    """Where the noise of an image is measured: the whole of it, or some tiles of a large one.

    A level from eight tiles of 512 x 512 px is good to 2 %, however large the image.
    """

    corners: list[tuple[int, int]]
    shape: tuple[int, int]
    tapers: list[Taper]

    @classmethod
    def choose(
        cls, shape: tuple[int, int], mask: np.ndarray | None = None, side: int = TILE
    ) -> Tiles:
        """Spread tiles over the image, where most of their pixels can be used.

        Parameters
        ----------
        shape : (int, int)
            Of the image.
        mask : ndarray of bool, shape (ny, nx), optional
            Pixels to use.
        side : int
            Size of a tile (px): many cells of the lattice, so that its peaks stay narrow.

        Raises
        ------
        ValueError
            No pixel is left.
        """
        if min(shape) < 1.5 * side:
            corners, size = [(0, 0)], (shape[0], shape[1])
        else:
            size = (side, side)
            starts = [np.linspace(0, n - side, n // side).astype(int) for n in shape]
            corners = [(int(y), int(x)) for y in starts[0] for x in starts[1]]
            if mask is not None:
                used = [np.mean(mask[y : y + side, x : x + side]) for y, x in corners]
                fair = [c for c, share in zip(corners, used, strict=True) if share > 0.7]
                corners = fair or [corners[int(np.argmax(used))]]
            pick = np.linspace(0, len(corners) - 1, min(len(corners), MOST_TILES)).astype(int)
            corners = [corners[k] for k in pick]
        parts = [None if mask is None else mask[_tile(c, size)] for c in corners]
        tapers = [_taper(size, part) for part in parts]
        if not any(taper.area for taper in tapers):
            raise ValueError("mask leaves no pixel from which to measure the noise")
        return cls(corners, size, tapers)

    def periodograms(
        self,
        image: np.ndarray,
        weight: np.ndarray | None = None,
        most: int = MOST_TILES,
        top: float = 0.5,
        crew: Crew | None = None,
    ) -> Periodograms:
        """Measure the power of `image` in up to `most` tiles.

        Parameters
        ----------
        image : ndarray, shape (ny, nx)
            Residual or difference image, 0 where masked.
        weight : ndarray, shape (ny, nx), optional
            Statistical weights by which `image` was multiplied; the noise is then that of a
            pixel of weight 1.
        most : int
            Number of tiles.
        top : float
            Frequency (1/px) beyond which nothing will be read.
        crew : Crew, optional
            Threads that share them.

        Returns
        -------
        Periodograms
        """
        tiles = list(zip(self.corners, self.tapers, strict=True))[:most]
        tiles = [(corner, taper) for corner, taper in tiles if taper.area]
        kind = np.result_type(image.dtype, np.float32)
        reach = top + _ring_width(self.shape)  # so that the last ring is whole
        n_modes = min(self.shape[1] // 2, int(np.ceil(reach * self.shape[1]))) + 1
        thin = kind == np.float32 and reach <= HALVED and not any(n % 2 for n in self.shape)
        powers = np.empty((len(tiles), self.shape[0] // (2 if thin else 1), n_modes), kind)

        def measure(lo: int, hi: int) -> None:
            for k in reversed(range(lo, hi)):  # the last rows are still in the cache
                corner, taper = tiles[k]
                part = image[_tile(corner, self.shape)]
                if weight is not None:
                    part = part / np.sqrt(np.maximum(weight[_tile(corner, self.shape)], 1e-12))
                mean = kind.type(np.einsum("ij,ij->", part, taper.values) / taper.area)
                if thin:
                    tapered = np.empty((self.shape[0] // 2, self.shape[1] // 2), kind)
                    halve_tile(*in_one_line(part), mean, taper.values, _SIDES, tapered)
                else:
                    tapered = part - mean
                    tapered *= taper.values
                along_x = fft.rfft(tapered, axis=1, overwrite_x=True)[:, :n_modes]
                modes = fft.fft(np.ascontiguousarray(along_x), axis=0, overwrite_x=True)
                np.square(modes.real, out=powers[k])
                powers[k] += np.square(modes.imag)
                powers[k] /= taper.square
                if thin:
                    powers[k] *= _unsmoothed(self.shape, n_modes)

        if crew is None:
            measure(0, len(tiles))
        else:
            crew.share(measure, len(tiles))
        return Periodograms(powers, self.shape)


def _tile(corner: tuple[int, int], shape: tuple[int, int]) -> tuple[slice, slice]:
    return slice(corner[0], corner[0] + shape[0]), slice(corner[1], corner[1] + shape[1])


def _frequencies(
    shape: tuple[int, int], n_rows: int, n_modes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies (1/px) of the modes of `Periodograms`, (n_rows, 1) and (1, n_modes)."""
    fy = fft.fftfreq(n_rows, shape[0] / n_rows)
    return fy[:, None], fft.rfftfreq(shape[1])[None, :n_modes]


@lru_cache(maxsize=4)
def _wave_numbers(shape: tuple[int, int], n_rows: int, n_modes: int) -> np.ndarray:
    """Length of the wave vector (rad/px) of every mode."""
    fy, fx = _frequencies(shape, n_rows, n_modes)
    return (2 * np.pi * np.hypot(fy, fx)).astype(np.float32)


@lru_cache(maxsize=4)
def _unsmoothed(shape: tuple[int, int], n_modes: int) -> np.ndarray:
    """Factor (ny // 2, n_modes) by which a tile has more power than what `halve_tile` leaves."""
    out = np.full((shape[0] // 2, n_modes), 16.0)
    for f in _frequencies(shape, shape[0] // 2, n_modes):
        passed = 0.5 + 2 * sum(
            a * np.cos(2 * np.pi * (2 * k + 1) * f) for k, a in enumerate(_SIDES)
        )
        out /= passed**2
    return out.astype(np.float32)


def _ring_width(shape: tuple[int, int]) -> float:
    return max(2.0 / min(shape), 0.004)


@lru_cache(maxsize=4)
def _rings(
    shape: tuple[int, int], n_rows: int, n_modes: int
) -> tuple[float, np.ndarray, np.ndarray]:
    """Width of the rings, modes sorted by ring, and where each ring begins."""
    f = np.hypot(*_frequencies(shape, n_rows, n_modes))
    width = _ring_width(shape)
    ring = (f / width).astype(np.int64).ravel()
    order = np.argsort(ring, kind="stable")
    return width, order, np.searchsorted(ring[order], np.arange(int(0.5 / width) + 1))


def ring_medians(
    periodograms: Periodograms, band: tuple[float, float] = (0.0, 0.5)
) -> tuple[np.ndarray, np.ndarray]:
    """Ring-averaged power spectrum, robust against lattice peaks.

    Parameters
    ----------
    periodograms : Periodograms
        Power of the tiles of an image.
    band : (float, float)
        Frequencies (1/px) between which the spectrum is wanted.

    Returns
    -------
    freq, power : ndarray
        Ring centres in 1/px and the noise power (median of each ring over ln 2, because the
        power of noise is exponentially distributed).
    """
    width, order, bounds = _rings(periodograms.shape, *periodograms.power.shape[1:])
    flat = periodograms.power.reshape(len(periodograms.power), -1)
    centres, values = [], []
    first, last = max(1, int(band[0] / width)), min(len(bounds) - 1, int(band[1] / width) + 1)
    wanted = np.take(flat, order[bounds[first] : bounds[max(first, last)]], axis=1)
    for k in range(first, last):
        part = wanted[:, bounds[k] - bounds[first] : bounds[k + 1] - bounds[first]]
        if part.size >= 8 * len(flat):
            centres.append((k + 0.5) * width)
            values.append(middle(part) / _MEDIAN)
    return np.array(centres), np.array(values)


def ring_spectrum(
    image: np.ndarray, mask: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Ring-averaged power spectrum of an image, robust against lattice peaks.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
        Residual or difference image, free of NaN where `mask` is true.
    mask : ndarray of bool, shape (ny, nx), optional
        Pixels to use.

    Returns
    -------
    freq, power : ndarray
        As `ring_medians` gives them.

    Raises
    ------
    ValueError
        No pixel is left.
    """
    tiles = Tiles.choose((image.shape[0], image.shape[1]), mask)
    clean = image if mask is None else np.where(mask, image, 0.0)
    return ring_medians(tiles.periodograms(clean))


def _taper(shape: tuple[int, int], mask: np.ndarray | None) -> Taper:
    """Smooth window that falls to zero at the borders of the image and of the mask."""
    ramp = max(4, int(0.08 * min(shape)))
    if mask is None or mask.all():
        return _open_taper(shape, ramp)
    # Small holes (dead pixels) need no wide margin, large areas (the film) do.
    inside = ndimage.binary_closing(mask, iterations=2)
    inside[0, :] = inside[-1, :] = inside[:, 0] = inside[:, -1] = False
    distance = ndimage.distance_transform_edt(inside)
    taper = 0.5 - 0.5 * np.cos(np.pi * np.clip(distance / ramp, 0, 1))
    return Taper.of(np.where(mask, taper, 0.0).astype(np.float32))


@lru_cache(maxsize=4)
def _open_taper(shape: tuple[int, int], ramp: int) -> Taper:
    lines = [np.minimum(np.arange(n), np.arange(n)[::-1]) for n in shape]
    distance = np.minimum(lines[0][:, None], lines[1][None, :])
    taper = 0.5 - 0.5 * np.cos(np.pi * np.clip(distance / ramp, 0, 1))
    return Taper.of(taper.astype(np.float32))


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
        From `ring_medians`.
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


def follows_signal(residual: np.ndarray, signal: np.ndarray, mask: np.ndarray) -> bool:
    """Whether the variance of white noise is proportional to the signal, as that of counts is.

    Differences within blocks of 2 x 2 px hold hardly anything but noise. Their variance in classes
    of equal signal is compared with a line: its slope must be sure, its value at zero signal small.

    Parameters
    ----------
    residual, signal : ndarray, shape (ny, nx)
        Image minus model, and the model, with the zero of the data.
    mask : ndarray of bool, shape (ny, nx)
        Pixels to use.

    Returns
    -------
    bool
    """
    ny, nx = (n // 2 * 2 for n in residual.shape)

    def corners(image: np.ndarray) -> tuple[np.ndarray, ...]:
        cut = image[:ny, :nx]
        return cut[::2, ::2], cut[1::2, ::2], cut[::2, 1::2], cut[1::2, 1::2]

    a, b, c, d = corners(residual)
    used = np.logical_and.reduce(corners(mask))
    variance = ((a - b - c + d)[used].astype(np.float64) / 2) ** 2
    mean = np.asarray(sum(part[used] for part in corners(signal))) / 4
    if variance.size < SIGNAL_CLASSES * LEAST_IN_CLASS:
        return False
    order = np.array_split(np.argsort(mean, kind="stable"), SIGNAL_CLASSES)
    x = np.array([np.mean(mean[part]) for part in order])
    y = np.array([np.mean(variance[part]) for part in order])
    if x[0] <= 0 or y.min() <= 0:
        return False
    error = y * np.sqrt([2 / len(part) for part in order])
    (slope, at_zero), covariance = np.polyfit(x, y, 1, w=1 / error, cov="unscaled")
    sure = slope > SURE * np.sqrt(covariance[0, 0])
    return bool(sure and abs(at_zero) < ZERO_SHARE * np.mean(y))


def noise_band(sigma_px: float) -> tuple[float, float]:
    """Frequencies (1/px) that `measure_noise` reads in a residual of columns of this width."""
    low, high = (k / (2 * np.pi * sigma_px) for k in NOISE_BAND)
    # With coarse pixels it reads what there is.
    return (0.0, 0.5) if high > 0.42 else (low - 0.01, high + 0.01)


def misfit_ratio(
    periodograms: Periodograms, noise: NoiseLevel, *, sigma_px: float, n_free: float
) -> float:
    """Mean residual power in the columns' band over what the noise leaves there.

    Parameters
    ----------
    periodograms : Periodograms
        Of image minus model.
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
    k = _wave_numbers(periodograms.shape, *periodograms.power.shape[1:])
    band = (k * sigma_px > 0.3) & (k * sigma_px < NOISE_BAND[0])
    expected = noise.level / k[band] ** 2 if noise.kind == "idpc" else noise.level
    power = np.mean(periodograms.power[:, band] / expected)
    modes_per_pixel = min(NOISE_BAND[0] / sigma_px, np.pi) ** 2 / (4 * np.pi)
    return float(power / max(1.0 - n_free / modes_per_pixel, 0.05))
