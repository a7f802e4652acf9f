"""Likely shifts of one frame against another: peaks of correlations, and what speaks for them.

Kernels for `register`: arrays in, pixels out. A shift is (x, y).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import fft, ndimage
from scipy.spatial import cKDTree

from stemdisp._resample import lagrange
from stemdisp._spread import spread

_MAX_PAIRS = 200
_MAX_PEAKS = 512
_TOLERANCE_PX = 1.5
_MIN_CELL_PX = 4.0
_MIN_REPEAT = 0.25  # correlation of a frame with itself, one lattice vector away
_MAD = 1.4826  # standard deviations per median absolute deviation

Pairs = dict[tuple[int, int], "Candidates"]


@dataclass(frozen=True, eq=False)
class Candidates:
    """Possible shifts of one frame against another, best first.

    Attributes
    ----------
    shift : ndarray, shape (k, 2)
        Shifts in pixels.
    score : ndarray, shape (k,)
        Correlation of what is not periodic, times the square root of the overlap.
    value : ndarray, shape (k,)
        Correlation.
    miss : float
        Score of a shift inside the limit that is no candidate.
    spread : float
        Scatter of the scores of wrong shifts.
    limit : float
        Largest shift looked for along an axis.
    """

    shift: np.ndarray
    score: np.ndarray
    value: np.ndarray
    miss: float
    spread: float
    limit: tuple[float, float]

    @cached_property
    def tree(self) -> cKDTree:
        """The shifts, searchable."""
        return cKDTree(self.shift)

    def look_up(self, shift: np.ndarray) -> np.ndarray:
        """Scores of shifts of shape (p, 2); zero, which says nothing, beyond the limit."""
        distance, nearest = self.tree.query(shift)
        score = np.append(self.score, self.miss)
        score = score[np.where(distance <= _TOLERANCE_PX, nearest, -1)]
        return np.where((abs(shift) > self.limit).any(axis=1), 0.0, score)


def correlate_pairs(
    frames: np.ndarray,
    max_step: float,
    *,
    guard: bool = True,
    threads: Executor | None = None,
) -> Pairs:
    """Find likely shifts for all pairs of frames, or for those near in time.

    Parameters
    ----------
    frames : ndarray, shape (n, ny, nx)
        Filtered frames of mean zero.
    max_step : float
        Largest shift from one frame to the next, in pixels.
    guard : bool, default True
        False: only neighbours in time, and the plain correlation.
    threads : concurrent.futures.Executor, optional
        Who does it, in this process; as many threads as there are cores by default.

    Returns
    -------
    dict
        Candidates for the shift of frame j against frame i, for pairs (i, j) with i < j.

    Notes
    -----
    Candidates are the peaks of the overlap-normalised correlation. At lattice vectors these are
    alike up to scan distortions, so their scores come from frames in which every cell has lost
    the mean of its neighbours: film, interface and defects remain.
    """
    n, ny, nx = frames.shape
    my, mx = (min(s // 2, int(np.ceil(max_step * n))) for s in (ny, nx))
    whole = _Correlator(frames, my, mx, normalise=guard, threads=threads)
    if guard:
        vectors = _lattice_vectors(whole, min(len(frames), 4))
        calls = ((frame, vectors) for frame in frames)
        rest = list(spread(_without_lattice, calls, executor=threads))
        aperiodic = _Correlator(rest, my, mx, threads=threads)
    reach = n - 1 if n * (n - 1) // 2 <= _MAX_PAIRS else max(3, _MAX_PAIRS // n)

    def find(i: int, j: int) -> Candidates:
        limit = max_step * (j - i)
        product = whole.correlate(i, j)
        evidence = aperiodic.correlate(i, j) if guard else product
        return _candidates(whole.within(product, limit), evidence, whole.overlap, limit)

    keys = [(i, j) for i in range(n) for j in range(i + 1, min(n, i + 1 + (reach if guard else 1)))]
    return dict(zip(keys, spread(find, keys, executor=threads), strict=True))


class _Correlator:
    """Correlations of frames, divided by the energies of their overlap."""

    def __init__(
        self,
        frames: Sequence[np.ndarray] | np.ndarray,
        my: int,
        mx: int,
        *,
        normalise: bool = True,
        threads: Executor | None = None,
    ) -> None:
        ny, nx = frames[0].shape
        self.rows, self.cols = np.arange(-my, my + 1), np.arange(-mx, mx + 1)
        self.padded = tuple(fft.next_fast_len(s + m, real=True) for s, m in ((ny, my), (nx, mx)))
        padded = ((frame, self.padded) for frame in frames)
        self.transforms = list(spread(fft.rfft2, padded, executor=threads))
        self.energies = None
        if normalise:
            reaches = ((frame, my, mx) for frame in frames)
            self.energies = list(spread(_overlap_energy, reaches, executor=threads))
        self.overlap = (1 - abs(self.rows) / ny)[:, None] * (1 - abs(self.cols) / nx)

    def correlate(self, i: int, j: int) -> np.ndarray:
        """Map over the shifts (rows, cols) of frame j against frame i."""
        product = fft.irfft2(self.transforms[i].conj() * self.transforms[j], self.padded)
        product = product[np.ix_(self.rows, self.cols)]
        if self.energies is None:
            return product
        return product / np.sqrt(self.energies[i] * self.energies[j][::-1, ::-1])

    def within(self, correlation: np.ndarray, limit: float) -> np.ndarray:
        """Map with shifts beyond the limit set to minus infinity."""
        near = (abs(self.rows) <= limit)[:, None] & (abs(self.cols) <= limit)
        return np.where(near, correlation, -np.inf)


def _lattice_vectors(frames: _Correlator, n: int) -> np.ndarray:
    """Shortest two repeats (m, 2) of the frames, m <= 2, from the mean self-correlation."""
    mean = np.mean([frames.correlate(i, i) for i in range(n)], axis=0)
    shift, value = _peaks(np.where(frames.overlap > 0.25, mean, -np.inf))
    length = np.hypot(shift[:, 0], shift[:, 1])
    keep = length > _MIN_CELL_PX
    shift, value, length = shift[keep], value[keep], length[keep]
    if not value.size or value.max() < _MIN_REPEAT:
        return np.zeros((0, 2))
    strong = value >= 0.85 * value.max()
    shift, length = shift[strong], length[strong]
    shift = shift[np.argsort(length)]
    first = shift[0]
    area = abs(first[0] * shift[:, 1] - first[1] * shift[:, 0])
    other = area > 0.3 * np.hypot(*first) * np.hypot(shift[:, 0], shift[:, 1])
    return np.vstack([first, shift[other][:1]])


def _without_lattice(frame: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Frame minus the mean of its neighbours one lattice vector away."""
    if not len(vectors):
        return frame
    total, count = np.zeros(frame.shape), np.zeros(frame.shape)
    for x, y in np.vstack([vectors, -vectors]):
        moved = shifted(frame, (y, x))
        inside = np.isfinite(moved)
        total += np.where(inside, moved, 0.0)
        count += inside
    return np.where(count > 0, frame - total / np.maximum(count, 1), 0.0).astype(np.float32)


def shifted(frame: np.ndarray, step: tuple[float, float]) -> np.ndarray:
    """Frame moved by (y, x), NaN where nothing came in; splines keep fine columns as they are."""
    moved = ndimage.shift(frame, step, order=3, mode="mirror")
    for axis, by in enumerate(step):
        edge = int(np.ceil(abs(by)))
        beyond = slice(0, edge) if by > 0 else slice(frame.shape[axis] - edge, None)
        moved[(slice(None),) * axis + (beyond,)] = np.nan
    return moved


def _overlap_energy(image: np.ndarray, my: int, mx: int) -> np.ndarray:
    """Sum of squares over the part that overlaps a frame whose content lies shifted by (y, x)."""
    ny, nx = image.shape
    table = np.zeros((ny + 1, nx + 1))
    table[1:, 1:] = np.cumsum(np.cumsum(image.astype(float) ** 2, axis=0), axis=1)
    y, x = np.arange(-my, my + 1), np.arange(-mx, mx + 1)
    y0, y1, x0, x1 = (
        np.maximum(0, -y),
        ny - np.maximum(0, y),
        np.maximum(0, -x),
        nx - np.maximum(0, x),
    )
    energy = table[np.ix_(y1, x1)] - table[np.ix_(y0, x1)] - table[np.ix_(y1, x0)]
    # single precision, because a block holds these for all its frames
    return np.maximum(energy + table[np.ix_(y0, x0)], 1e-12).astype(np.float32)


def _peaks(correlation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shifts (x, y) of the positive local maxima from the map's centre, by parabolas; values."""
    top = (correlation == ndimage.maximum_filter(correlation, 5)) & (correlation > 0)
    top[[0, -1]] = False
    top[:, [0, -1]] = False
    y, x = np.nonzero(top)
    shift = np.column_stack([x, y]) - (np.array(correlation.shape[::-1]) // 2).astype(float)
    for axis, (dy, dx) in enumerate(((0, 1), (1, 0))):
        left, right = correlation[y - dy, x - dx], correlation[y + dy, x + dx]
        curve = left - 2 * correlation[y, x] + right
        fine = np.isfinite(curve) & (curve < 0)
        shift[fine, axis] += (0.5 * (left - right)[fine] / curve[fine]).clip(-0.5, 0.5)
    return shift, correlation[y, x]


def _between(grid: np.ndarray, shift: np.ndarray, instead: np.ndarray | None = None) -> np.ndarray:
    """Values of a map at shifts (x, y) from its centre, by polynomials through six pixels.

    `instead` (or the nearest pixel) where a pixel is not finite or beyond the map.
    """
    middle = np.array(grid.shape[::-1]) // 2
    first = np.floor(shift).astype(int) - 2
    weight = [lagrange(np.arange(6.0)[None], (shift - first)[:, axis, None]) for axis in (0, 1)]
    column, row = (
        np.clip((first + middle)[:, axis, None] + np.arange(6), 0, grid.shape[1 - axis] - 1)
        for axis in (0, 1)
    )
    taps = grid[row[:, :, None], column[:, None, :]]
    x, y = np.rint(shift).astype(int).T + middle[:, None]
    nearest = grid[y, x] if instead is None else instead
    whole = np.isfinite(taps).all(axis=(1, 2))
    values = np.einsum(
        "pi,pj,pij->p", weight[1], weight[0], np.where(whole[:, None, None], taps, 0)
    )
    return np.where(whole, values, nearest)


def _candidates(
    correlation: np.ndarray, evidence: np.ndarray, overlap: np.ndarray, limit: float
) -> Candidates:
    """Peaks of the correlation, with scores from the evidence at the same shifts."""
    my, mx = (s // 2 for s in correlation.shape)
    reach = (min(limit, mx - 1.0), min(limit, my - 1.0))
    shift, value = _peaks(correlation)
    if not value.size:
        return Candidates(shift, value, value, 0.0, 0.0, reach)
    # Peaks of fine columns are narrow: between the pixels they are higher than on them.
    value, support = _between(correlation, shift, value), _between(evidence, shift)
    # A few peaks may stand out; the others are what the lattice gives to all its vectors.
    level = np.sort(value)[::-1][min(4, len(value) - 1)]
    keep = value >= 0.6 * level
    shift, value, support = shift[keep], value[keep], support[keep]
    x, y = np.rint(shift).astype(int).T
    # How well a correlation is known goes with the square root of the overlap.
    weight = np.sqrt(overlap[y + my, x + mx])
    lack = np.minimum(value - 0.95 * level, 0.0)
    score = (support + lack) * weight
    chance = (evidence * np.sqrt(overlap))[::3, ::3]
    spread = _MAD * np.median(abs(chance - np.median(chance)))
    # Of a large field the lattice has thousands of vectors with equal peaks: evidence chooses.
    order = np.argsort(score)[::-1][:_MAX_PEAKS]
    return Candidates(shift[order], score[order], value[order], -level, float(spread), reach)
