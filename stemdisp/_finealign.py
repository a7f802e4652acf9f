"""Sub-pixel shifts of frames that lie within a pixel of their place, against each other.

Kernels for `register`: arrays in, pixels out. A shift is (x, y).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import fft, ndimage
from scipy.signal.windows import tukey

from stemdisp._spread import spread
from stemdisp.errors import DataError

_MIN_COMMON = 0.2
_REFINEMENTS = 3
_SEARCH_PX = 1.5
_MOST_BYTES = 2**29


def not_outlying(values: np.ndarray, *, share: float = 0.5) -> np.ndarray:
    """Return True where a value is not far below the others: by scatter, and by a share of them."""
    median = np.median(values)
    scatter = 1.4826 * np.median(abs(values - median))
    return ~((values < median - 5 * scatter) & (values < share * median))


def common_area(
    shifts: np.ndarray, shape: tuple[int, int], least: float = _MIN_COMMON
) -> tuple[np.ndarray, np.ndarray]:
    """First pixel (x, y) of the area that all frames cover, and its size, in the first frame."""
    first = np.ceil(np.max(-shifts, axis=0) - 1e-6).astype(int)
    last = np.floor(np.min(np.array(shape[::-1]) - 1 - shifts, axis=0) + 1e-6).astype(int)
    size = last - first + 1
    if (size < least * np.array(shape[::-1])).any():
        part = np.maximum(100.0 * size / np.array(shape[::-1]), 0.0)
        raise DataError(
            f"the frames share only {part[0]:.0f} % of their width and {part[1]:.0f} % of their "
            "height after alignment; the drift is too large: use fewer frames, or set a smaller "
            "max_shift_px"
        )
    return first, size


def cut_out(frame: np.ndarray, start: np.ndarray, size: np.ndarray, order: int = 3) -> np.ndarray:
    """Sample a frame from (x, y) on, one pixel apart."""
    moved = ndimage.shift(frame, -start[::-1], order=order, mode="reflect")
    return moved[: size[1], : size[0]]


class _Spectra:
    """Spectra of frames at their places; of very many frames they are made again when needed."""

    def __init__(
        self,
        frame: Callable[[int], np.ndarray],
        start: np.ndarray,
        size: np.ndarray,
        window: np.ndarray,
    ) -> None:
        self.frame, self.start, self.size, self.window = frame, start.copy(), size, window
        self.keep = 4.0 * len(start) * size[0] * size[1] <= _MOST_BYTES
        self.made: dict[int, np.ndarray] = {}

    def of(self, i: int) -> np.ndarray:
        """Give the spectrum of a frame."""
        if i in self.made:
            return self.made[i]
        part = cut_out(self.frame(i), self.start[i], self.size)
        spectrum = fft.rfft2(part * self.window)
        if self.keep:
            self.made[i] = spectrum
        return spectrum

    def move(self, i: int, by: np.ndarray) -> None:
        """Sample a frame (x, y) further on."""
        self.start[i] += by
        if i in self.made:
            self.made[i] = _sample_further(self.made[i], by, self.size)


def refine_shifts(
    frame: Callable[[int], np.ndarray],
    shape: tuple[int, int],
    start: tuple[np.ndarray, np.ndarray],
    *,
    upsample: int,
    step: Callable[[], None],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Move every frame onto the mean of the others; leave out those that do not fit.

    `frame` gives filtered frame i of the given shape, and `start` where the frames lie and which
    of them are used; what is returned are the same two with the correlations between them.
    """
    shifts, used = (part.copy() for part in start)
    correlation = np.full(len(shifts), np.nan)
    index = np.flatnonzero(used)
    first, size = common_area(shifts[index] - shifts[index[0]], shape, 0.05)
    corner = first + shifts - shifts[index[0]]
    window = np.outer(tukey(size[1], 0.1), tukey(size[0], 0.1)).astype(np.float32)
    spectra = _Spectra(frame, corner, size, window)
    for number in range(_REFINEMENTS):
        index = np.flatnonzero(used)
        total = np.zeros((size[1], size[0] // 2 + 1), dtype=np.complex64)
        for part in spread(spectra.of, ((i,) for i in index)):
            total += part
            if number == 0:
                step()

        def peak(i: int, total: np.ndarray = total) -> tuple[np.ndarray, float]:
            own = spectra.of(i)
            return _local_peak(total - own, own, size, upsample)

        for i, (move, correlation[i]) in zip(
            index, spread(peak, ((i,) for i in index)), strict=True
        ):
            # A frame moves against the others; about their common mean the move is smaller.
            move *= (len(index) - 1) / len(index)
            shifts[i] += move
            spectra.move(int(i), move)
        used[index] = not_outlying(correlation[index])
    shifts -= shifts[np.flatnonzero(used)[0]]
    shifts[~used] = np.nan
    return shifts, correlation, used


def _sample_further(spectrum: np.ndarray, move: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Spectrum of the same image sampled (x, y) further on."""
    ramp_x = np.exp(2j * np.pi * fft.rfftfreq(int(size[0])) * move[0])
    ramp_y = np.exp(2j * np.pi * fft.fftfreq(int(size[1])) * move[1])
    return spectrum * (ramp_y[:, None] * ramp_x).astype(np.complex64)


def _local_peak(
    reference: np.ndarray, moved: np.ndarray, size: np.ndarray, upsample: int
) -> tuple[np.ndarray, float]:
    """Shift (x, y) of the correlation's maximum near zero, and the correlation there."""
    nx, ny = (int(s) for s in size)
    weight = np.full(reference.shape[1], 2.0, dtype=np.float32)
    weight[0] = 1.0
    if nx % 2 == 0:
        weight[-1] = 1.0
    cross = reference.conj() * moved * weight
    steps = (
        np.arange(-np.ceil(_SEARCH_PX * upsample), np.ceil(_SEARCH_PX * upsample) + 1) / upsample
    )
    to_y = np.exp(2j * np.pi * np.outer(steps, fft.fftfreq(ny))).astype(np.complex64)
    to_x = np.exp(2j * np.pi * np.outer(fft.rfftfreq(nx), steps)).astype(np.complex64)
    grid = ((to_y @ cross) @ to_x).real.astype(float)
    y, x = np.unravel_index(grid.argmax(), grid.shape)
    y, x = np.clip([y, x], 1, len(steps) - 2)
    shift = np.array([steps[x], steps[y]])
    for axis, (dy, dx) in enumerate(((0, 1), (1, 0))):
        left, right = grid[y - dy, x - dx], grid[y + dy, x + dx]
        curve = left - 2 * grid[y, x] + right
        if curve < 0:
            shift[axis] += np.clip(0.5 * (left - right) / curve, -1, 1) / upsample
    norm = np.sum(abs(reference) ** 2 * weight) * np.sum(abs(moved) ** 2 * weight)
    return shift, float(grid[y, x] / np.sqrt(norm))
