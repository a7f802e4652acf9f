"""Frames -> shifts, aligned mean and its noise.

On a lattice the correlation of two frames has a peak at every lattice vector, and only what is
not periodic (film, interface, defects, slow contrast) tells the true one from its neighbours. So
many pairs of frames are correlated, several peaks are kept for each, and the frames are placed
where all pairs together agree best. Only then are the positions refined below the pixel.

Conventions: shifts are (x, y), x right, y down, in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import fft, ndimage, optimize

from stemdisp._finealign import common_area, cut_out, not_outlying, refine_shifts
from stemdisp._placement import correlate_pairs, place_frames
from stemdisp.errors import DataError

_MIN_SIDE = 32
_COARSE_SIDE = 512  # more pixels than this do not place the frames any better
_SIGNAL_FREE = 0.25  # 1/px: no column is so sharp
_MEDIAN_CHI2 = 0.455
_LEAST_NOISE = 1e-3  # of the power on the ring with most contrast


@dataclass(frozen=True, eq=False)
class Registration:
    """Frames placed on each other, and their mean.

    Attributes
    ----------
    shifts_px : ndarray, shape (n, 2)
        How far (x, y) the content of a frame lies to the right of and below that of the first
        used frame; NaN for frames left out.
    image : ndarray, shape (ny, nx)
        Mean of the used frames, cropped to the area that all of them cover.
    origin_px : (int, int)
        Position (x, y) of the first pixel of `image` in the first used frame.
    used : ndarray of bool, shape (n,)
        False for blank frames and for those that fit the others badly.
    correlation : ndarray, shape (n,)
        Correlation of each frame with the mean of the others, after filtering; NaN if blank.
    noise_psd : tuple of ndarray or None
        Spatial frequency (1/px) and power of the noise of `image`; white noise of variance s2
        has the power s2 at every frequency. None with fewer than two used frames.
    n_used : int
        Number of frames in the mean.
    halves : tuple of two ndarrays, shape (ny, nx), or None
        Means of the first, third, ... and of the second, fourth, ... of the used frames, NaN
        where they have no pixel.
    guard : dict
        `n_pairs`: pairs of frames compared; `max_transitivity_px`: largest disagreement of a
        pair with the final positions; `n_repaired`: pairs whose highest peak was another lattice
        vector; `margin`: lead of the chosen positions over the next best ones, in units of the
        scatter of wrong ones; `ambiguous`: whether that lead is too small to trust.
    signal : Signal2D or None
        `image` with calibrated axes, where the input was a signal.
    """

    shifts_px: np.ndarray
    image: np.ndarray
    origin_px: tuple[int, int]
    used: np.ndarray
    correlation: np.ndarray
    noise_psd: tuple[np.ndarray, np.ndarray] | None
    n_used: int
    guard: dict[str, Any]
    signal: Any = None
    halves: tuple[np.ndarray, np.ndarray] | None = None

    def placed(self, frame: np.ndarray, k: int) -> np.ndarray:
        """Sample a frame on the pixels of `image`.

        Parameters
        ----------
        frame : ndarray, shape (ny, nx)
            Frame `k` of the stack; NaN where it measured nothing.
        k : int
            Its number.

        Returns
        -------
        ndarray
            As large as `image`; NaN beyond the frame and around its NaN pixels.
        """
        size = np.array(self.image.shape[::-1])
        start = np.array(self.origin_px) + self.shifts_px[k]
        valid = np.isfinite(frame)
        filled = frame if valid.all() else np.where(valid, frame, np.median(frame[valid]))
        # Cubic, but pixels that a bad one touches through linear interpolation are left out.
        part = np.full(self.image.shape, np.nan)
        inner = cut_out(filled, start, size)
        part[: inner.shape[0], : inner.shape[1]] = inner
        if not valid.all():
            good = cut_out(valid.astype(float), start, size, order=1) > 0.999
            part[: good.shape[0], : good.shape[1]][~good] = np.nan
        for axis, (first, n) in enumerate(zip(start[::-1], frame.shape, strict=True)):
            at = first + np.arange(part.shape[axis])
            beyond = (at < -1e-6) | (at > n - 1 + 1e-6)
            part[(slice(None),) * axis + (beyond,)] = np.nan
        return part


def align_stack(
    stack: Any,
    *,
    upsample: int = 20,
    max_shift_px: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Registration:
    """Align the frames of a stack by rigid shifts and average them.

    Parameters
    ----------
    stack : Signal2D or ndarray, shape (n, ny, nx)
        Frames, left unchanged; a lazy signal is read frame by frame. A single image passes
        through. NaN pixels are ignored.
    upsample : int, default 20
        The refined correlation is computed on a grid of 1 / `upsample` pixels, and its maximum
        is interpolated.
    max_shift_px : float, optional
        Largest shift between one frame and the next, along x and y. Default: a quarter of the
        shorter side.
    progress : callable, optional
        Called as ``progress(done, total)``.

    Returns
    -------
    Registration
        Shifts, the mean image with its origin and noise, and what the guard against jumps by
        whole cells did.

    Raises
    ------
    ValueError
        If an argument cannot be used.
    DataError
        If no frame holds an image, or the frames have too little area in common.

    Notes
    -----
    Frames are filtered with the maximum-likelihood weights for their own noise and contrast, ring
    by ring, so 1/k^2 noise and background do no harm. Correlations are divided by the energy of
    the overlap, which takes off the preference for small shifts. Lattice vectors are told apart
    by what is left when each cell loses the mean of its neighbours (film, interface, defects),
    summed over all pairs of frames; small drift decides ties only. The fine step is the local
    discrete Fourier transform of Guizar-Sicairos, Thurman & Fienup, Opt. Lett. 33, 156 (2008),
    against the mean of the other frames. Averaging uses cubic splines.
    """
    return _align(stack, upsample=upsample, max_shift_px=max_shift_px, progress=progress)


def _align(
    stack: Any,
    *,
    upsample: int = 20,
    max_shift_px: float | None = None,
    progress: Callable[[int, int], None] | None = None,
    guard: bool = True,
) -> Registration:
    """Align; without the guard, each frame follows the highest correlation with the one before."""
    read, n, shape = _frames(stack)
    if isinstance(upsample, bool) or int(upsample) != upsample or upsample < 1:
        raise ValueError(f"upsample={upsample!r} must be a whole number, 1 or more")
    if max_shift_px is None:
        max_shift_px = min(shape) / 4
    if not max_shift_px > 0:
        raise ValueError(f"max_shift_px={max_shift_px!r} must be a positive number of pixels")
    tell = _Progress(progress, 3 * n)
    filtered, usable, scale = _filtered_frames(read, n, shape, tell)
    index = np.flatnonzero(usable)
    if not index.size:
        raise DataError(f"none of the {n} frames holds an image: all are blank or constant")
    used, report = usable.copy(), _no_guard()
    shifts, correlation = np.full((n, 2), np.nan), np.full(n, np.nan)
    shifts[index], correlation[index] = 0.0, 1.0
    if index.size > 1:
        # Near the borders the filter saw mirrored content, which stays with the frame.
        border = max(4, round(0.03 * min(filtered.shape[1:])))
        filtered = filtered[:, border:-border, border:-border]
        pairs = correlate_pairs(filtered[index], max_shift_px / max(scale), guard=guard)
        place = place_frames(pairs, index.size, guard=guard)
        used[index] = not_outlying(place.agreement)
        start = np.full((n, 2), np.nan)
        start[index] = place.positions_px
        common_area((start * scale)[used], shape)
        shifts, correlation, used = refine_shifts(filtered, start, used, upsample, tell.step)
        shifts, report = shifts * scale, place.report
        report["max_transitivity_px"] *= float(max(scale))
    return _average(stack, read, shape, (shifts, used, correlation, report), tell)


class _Progress:
    """Counts steps and tells the caller."""

    def __init__(self, callback: Callable[[int, int], None] | None, total: int) -> None:
        self.callback, self.total, self.done = callback, total, 0

    def step(self) -> None:
        self.done = min(self.done + 1, self.total)
        if self.callback is not None:
            self.callback(self.done, self.total)


def _no_guard() -> dict[str, Any]:
    """Return what the guard reports when there is nothing to place."""
    return {
        "n_pairs": 0,
        "max_transitivity_px": 0.0,
        "n_repaired": 0,
        "margin": None,
        "ambiguous": False,
    }


def _frames(stack: Any) -> tuple[Callable[[int], np.ndarray], int, tuple[int, int]]:
    """Return a reader of single frames as new float arrays, their number and their shape."""
    data = stack.data if hasattr(stack, "axes_manager") else stack
    if not hasattr(data, "ndim"):
        data = np.asarray(data)
    if data.ndim not in (2, 3) or np.dtype(data.dtype).kind not in "biuf":
        raise ValueError(
            f"stack of shape {tuple(data.shape)} and type {data.dtype} must hold real frames "
            "(n, ny, nx) or one image (ny, nx); choose one channel or stack first"
        )
    shape = tuple(int(s) for s in data.shape[-2:])
    if min(shape) < _MIN_SIDE or data.shape[0] == 0:
        raise ValueError(
            f"stack of shape {tuple(data.shape)} must hold frames of at least "
            f"{_MIN_SIDE} x {_MIN_SIDE} pixels"
        )
    single = data.ndim == 2

    def read(i: int) -> np.ndarray:
        frame = np.array(data if single else data[i], dtype=float)
        frame[~np.isfinite(frame)] = np.nan
        return frame

    return read, 1 if single else int(data.shape[0]), shape


def _filtered_frames(
    read: Callable[[int], np.ndarray], n: int, shape: tuple[int, int], tell: _Progress
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return filtered frames of about 512 pixels, which are usable, and the reduction (x, y).

    Filtering and reduction happen in the cosine transform, whose mirrored borders leave no cross
    in the spectrum of an image that is not periodic.
    """
    factor = max(1, round(min(shape) / _COARSE_SIDE))
    small = tuple(round(s / factor) for s in shape)
    spectra = np.zeros((n, *small), dtype=np.float32)
    usable = np.zeros(n, dtype=bool)
    for i in range(n):
        frame = read(i)
        valid = np.isfinite(frame)
        if valid.mean() > 0.5:
            frame = np.where(valid, frame, np.median(frame[valid]))
            spread = frame.std()
            usable[i] = spread > 1e-9 * max(abs(frame).max(), 1e-300)
        if usable[i]:
            spectrum = fft.dctn(((frame - frame.mean()) / spread).astype(np.float32), norm="ortho")
            spectra[i] = spectrum[: small[0], : small[1]]
        tell.step()
    if usable.any():
        spectra *= _matched_filter(np.mean(spectra[usable] ** 2, axis=0, dtype=float))
    for i in np.flatnonzero(usable):
        spectra[i] = fft.idctn(spectra[i], norm="ortho")
    return spectra, usable, np.array([shape[1] / small[1], shape[0] / small[0]])


def _matched_filter(power: np.ndarray) -> np.ndarray:
    """Real filter for cosine coefficients, with the maximum-likelihood weights of each ring.

    Two copies of an unknown image with the power S in noise of the power N are best compared with
    the weight S / (N (N + 2 S)). The noise is the 1/k^2 + constant that the fine rings show,
    where no signal is left; S is what the ring's mean has above it, lattice included.
    """
    ny, nx = power.shape
    k = np.hypot(np.arange(nx) / (2 * nx), np.arange(ny)[:, None] / (2 * ny))
    width = 1.0 / min(ny, nx)
    centres, middle = _ring_medians(k, power, width)
    middle = np.maximum(middle / _MEDIAN_CHI2, 1e-9 * middle.max())
    mean = ndimage.mean(power, np.rint(k / width).astype(int), np.arange(1, len(centres) + 1))
    fine = centres > _SIGNAL_FREE
    basis = np.column_stack([centres**-2.0, np.ones_like(centres)])
    factors, _ = optimize.nnls(basis[fine] / middle[fine, None], np.ones(fine.sum()))
    # Data that were smoothed before have less noise in the fine rings, and data without noise
    # would be compared by their rounding: hence the lower limits.
    floor = _LEAST_NOISE * mean[np.argmax(mean * centres**2)]
    noise = np.maximum(np.maximum(basis @ factors, 0.3 * middle), floor)
    signal = np.maximum(mean - noise, 0.0)
    filt = np.sqrt(signal / (noise * (noise + 2 * signal)))
    filt = np.interp(k, centres, filt, left=0.0, right=0.0)
    return (filt / filt.max() if filt.max() > 0 else filt + 1.0).astype(np.float32)


def _ring_medians(k: np.ndarray, power: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Median of the power on rings of |k|, from the first ring up to k = 0.5."""
    ring = np.rint(k / width).astype(int).ravel()
    order = np.argsort(ring, kind="stable")
    edges = np.searchsorted(ring[order], np.arange(1, int(0.5 / width) + 2))
    values = power.ravel()[order]
    level = [np.median(values[a:b]) for a, b in pairwise(edges)]
    return width * np.arange(1, len(level) + 1), np.array(level)


def _average(
    stack: Any,
    read: Callable[[int], np.ndarray],
    shape: tuple[int, int],
    found: tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]],
    tell: _Progress,
) -> Registration:
    """Average the used frames on the pixels of the first one, and measure the noise of the mean."""
    shifts, used, correlation, report = found
    index = np.flatnonzero(used)
    first, size = common_area(shifts[index], shape)
    halves = np.zeros((2, size[1], size[0]))
    counts = np.zeros_like(halves)
    for order, i in enumerate(index):
        frame, start = read(i), first + shifts[i]
        valid = np.isfinite(frame)
        if valid.all():
            halves[order % 2] += cut_out(frame, start, size)
            counts[order % 2] += 1.0
        else:
            part = cut_out(np.where(valid, frame, np.median(frame[valid])), start, size)
            # Pixels that a bad one touches through linear interpolation are left out.
            good = cut_out(valid.astype(float), start, size, order=1) > 0.999
            halves[order % 2] += np.where(good, part, 0.0)
            counts[order % 2] += good
        tell.step()
    total = counts.sum(axis=0)
    image = np.where(total > 0, halves.sum(axis=0) / np.maximum(total, 1.0), np.nan)
    noise = _noise_psd(halves, counts) if index.size > 1 else None
    parts = None
    if index.size > 1:
        means = np.where(counts > 0, halves / np.maximum(counts, 1.0), np.nan)
        parts = (means[0], means[1])
    while tell.done < tell.total:
        tell.step()
    origin = (int(first[0]), int(first[1]))
    return Registration(
        shifts_px=shifts,
        image=image,
        origin_px=origin,
        used=used,
        correlation=correlation,
        noise_psd=noise,
        n_used=int(index.size),
        guard=report,
        signal=_as_signal(stack, image, origin) if hasattr(stack, "axes_manager") else None,
        halves=parts,
    )


def _noise_psd(halves: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Noise power of the mean on rings of spatial frequency, from even minus odd frames.

    The median of exponentially distributed power is ln 2 of its mean, and does not see the few
    frequencies at which imperfectly aligned columns remain.
    """
    n_even, n_odd = counts.reshape(2, -1).max(axis=1)
    full = (counts[0] == n_even) & (counts[1] == n_odd)
    difference = np.where(full, halves[0] / n_even - halves[1] / n_odd, 0.0)
    # Scaled from the variance of the difference, s2 (1/a + 1/b), to that of the mean, s2 / (a+b).
    difference *= np.sqrt(n_even * n_odd) / (n_even + n_odd)
    ny, nx = difference.shape
    window = np.outer(np.hanning(ny + 2)[1:-1], np.hanning(nx + 2)[1:-1]) * full
    difference -= np.sum(difference * window) / np.sum(window)
    power = abs(fft.fft2(difference * window)) ** 2 / np.sum(window**2)
    k = np.hypot(fft.fftfreq(nx), fft.fftfreq(ny)[:, None])
    centres, level = _ring_medians(k, power, 1.0 / min(ny, nx))
    return centres, level / np.log(2.0)


def _as_signal(stack: Any, image: np.ndarray, origin: tuple[int, int]) -> Any:
    """Wrap the mean as a Signal2D on the axes of the stack, moved by the crop."""
    from hyperspy.signals import Signal2D

    signal = Signal2D(image.copy())
    for new, old, start in zip(
        signal.axes_manager.signal_axes, stack.axes_manager.signal_axes, origin, strict=True
    ):
        new.name, new.units, new.scale = old.name, old.units, old.scale
        new.offset = old.offset + start * old.scale
    title = stack.metadata.get_item("General.title", "")
    signal.metadata.General.title = f"{title} aligned mean".strip()
    return signal
