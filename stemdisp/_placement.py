"""Where the frames of a stack lie: many pair correlations, one consistent set of positions.

Kernels for `register`: arrays in, pixels out. A shift or position is (x, y).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import fft, ndimage
from scipy.spatial import cKDTree

_MAX_PAIRS = 200
_MAX_PEAKS = 512
_HYPOTHESES = 64
_TOLERANCE_PX = 1.5
_SWEEPS = 10
_MIN_MARGIN = 2.0
_PRIOR = 6.0
_PRIOR_IN_DOUBT = 60.0  # where the evidence decides nothing, chance must not
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


@dataclass(frozen=True, eq=False)
class Placement:
    """Positions of the frames, their mean correlation with the others, and the guard's report."""

    positions_px: np.ndarray
    agreement: np.ndarray
    report: dict[str, Any]


def correlate_pairs(frames: np.ndarray, max_step: float, *, guard: bool = True) -> Pairs:
    """Find likely shifts for all pairs of frames, or for those near in time.

    Parameters
    ----------
    frames : ndarray, shape (n, ny, nx)
        Filtered frames of mean zero.
    max_step : float
        Largest shift from one frame to the next, in pixels.
    guard : bool, default True
        False: only neighbours in time, and the plain correlation.

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
    whole = _Correlator(frames, my, mx, normalise=guard)
    if guard:
        vectors = _lattice_vectors(whole, min(len(frames), 4))
        aperiodic = _Correlator(np.stack([_without_lattice(f, vectors) for f in frames]), my, mx)
    reach = n - 1 if n * (n - 1) // 2 <= _MAX_PAIRS else max(3, _MAX_PAIRS // n)
    pairs = {}
    for i in range(n):
        for j in range(i + 1, min(n, i + 1 + (reach if guard else 1))):
            limit = max_step * (j - i)
            product = whole.correlate(i, j)
            evidence = aperiodic.correlate(i, j) if guard else product
            pairs[i, j] = _candidates(whole.within(product, limit), evidence, whole.overlap, limit)
    return pairs


class _Correlator:
    """Correlations of frames, divided by the energies of their overlap."""

    def __init__(self, frames: np.ndarray, my: int, mx: int, *, normalise: bool = True) -> None:
        ny, nx = frames.shape[1:]
        self.rows, self.cols = np.arange(-my, my + 1), np.arange(-mx, mx + 1)
        self.padded = tuple(fft.next_fast_len(s + m, real=True) for s, m in ((ny, my), (nx, mx)))
        self.transforms = [fft.rfft2(f, self.padded) for f in frames]
        self.energies = [_overlap_energy(f, my, mx) for f in frames] if normalise else None
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
        moved = ndimage.shift(frame, (y, x), order=1, cval=np.nan)
        inside = np.isfinite(moved)
        total += np.where(inside, moved, 0.0)
        count += inside
    return np.where(count > 0, frame - total / np.maximum(count, 1), 0.0).astype(np.float32)


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
    return np.maximum(energy + table[np.ix_(y0, x0)], 1e-12)


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


def _candidates(
    correlation: np.ndarray, evidence: np.ndarray, overlap: np.ndarray, limit: float
) -> Candidates:
    """Peaks of the correlation, with scores from the evidence at the same shifts."""
    my, mx = (s // 2 for s in correlation.shape)
    reach = (min(limit, mx - 1.0), min(limit, my - 1.0))
    shift, value = _peaks(correlation)
    if not value.size:
        return Candidates(shift, value, value, 0.0, 0.0, reach)
    # A few peaks may stand out; the others are what the lattice gives to all its vectors.
    level = np.sort(value)[::-1][min(4, len(value) - 1)]
    keep = np.argsort(value)[::-1][:_MAX_PEAKS]
    keep = keep[value[keep] >= 0.6 * level]
    shift, value = shift[keep], value[keep]
    x, y = np.rint(shift).astype(int).T
    # How well a correlation is known goes with the square root of the overlap.
    weight = np.sqrt(overlap[y + my, x + mx])
    lack = np.minimum(value - 0.95 * level, 0.0)
    score = (evidence[y + my, x + mx] + lack) * weight
    chance = (evidence * np.sqrt(overlap))[::3, ::3]
    spread = _MAD * np.median(abs(chance - np.median(chance)))
    order = np.argsort(score)[::-1]
    return Candidates(shift[order], score[order], value[order], -level, float(spread), reach)


def place_frames(pairs: Pairs, n: int, *, guard: bool = True) -> Placement:
    """Place n frames so that the candidates of all pairs agree, with the largest total score.

    Parameters
    ----------
    pairs : dict
        Candidates of pairs (i, j), i < j, with all neighbours in time among them.
    n : int
        Number of frames.
    guard : bool, default True
        False: follow the highest correlation from frame to frame.

    Returns
    -------
    Placement
        Frame 0 lies at (0, 0).

    Notes
    -----
    Every choice is a set of positions, so it is transitive by construction. Frames are placed one
    after the other where the sum over all pairs is largest; then single frames, and all frames
    from one on, are moved to other candidates until nothing improves. Where other choices are as
    good, it is done again with a stronger preference for small steps. Positions are last the
    least-squares solution of the chosen candidates.
    """
    if guard:
        positions = _improve(pairs, _grow(pairs, n, _PRIOR), _PRIOR)
        if _margin(pairs, positions) < _MIN_MARGIN:
            positions = _improve(pairs, _grow(pairs, n, _PRIOR_IN_DOUBT), _PRIOR_IN_DOUBT)
    else:
        steps = [pairs[i, i + 1] for i in range(n - 1)]
        best = [c.shift[c.value.argmax()] if len(c.shift) else np.zeros(2) for c in steps]
        positions = np.vstack([np.zeros(2), np.cumsum(best, axis=0)])
    positions, agreement, report = _solve(pairs, positions)
    margin = _margin(pairs, positions)
    report |= {"margin": margin, "ambiguous": margin < _MIN_MARGIN}
    return Placement(positions, agreement, report)


def _grow(pairs: Pairs, n: int, prior: float) -> np.ndarray:
    """Place the frames in time order, each against those before it."""
    positions = np.zeros((n, 2))
    for i in range(1, n):
        earlier = {key: c for key, c in pairs.items() if key[1] <= i}
        options = _options(earlier, positions, i)
        if len(options):
            positions[i] = options[
                _frame_scores(earlier, positions, i, options, prior=prior).argmax()
            ]
        else:
            positions[i] = positions[i - 1]
    return positions


def _improve(pairs: Pairs, positions: np.ndarray, prior: float) -> np.ndarray:
    """Move single frames and blocks of frames while that raises the total score."""
    positions = positions.copy()
    for _ in range(_SWEEPS):
        before = positions.copy()
        for i in range(len(positions)):
            options = np.vstack([positions[i], _options(pairs, positions, i)])
            positions[i] = options[
                _frame_scores(pairs, positions, i, options, prior=prior).argmax()
            ]
        for i in range(1, len(positions)):
            moves = np.vstack([np.zeros(2), _block_moves(pairs, positions, i)])
            positions[i:] += moves[_block_scores(pairs, positions, i, moves, prior=prior).argmax()]
        if abs(positions - before).max() < _TOLERANCE_PX:
            break
    return positions


def _options(pairs: Pairs, positions: np.ndarray, i: int) -> np.ndarray:
    """Positions (p, 2) of frame i that pairs with it propose; neighbours in time propose most."""
    options = [np.zeros((0, 2))]
    for (a, b), c in pairs.items():
        keep = _HYPOTHESES if b - a == 1 else _HYPOTHESES // 8
        if b == i:
            options.append(positions[a] + c.shift[:keep])
        elif a == i:
            options.append(positions[b] - c.shift[:keep])
    return np.vstack(options)


def _frame_scores(
    pairs: Pairs, positions: np.ndarray, i: int, options: np.ndarray, *, prior: float = 0.0
) -> np.ndarray:
    """Total score (p,) of all pairs of frame i for each of its possible positions."""
    total = np.zeros(len(options))
    for (a, b), c in pairs.items():
        if i not in (a, b):
            continue
        step = options - positions[a] if b == i else positions[b] - options
        total += c.look_up(step)
        if prior > 0 and b - a == 1:
            total -= prior * _step_cost(c, step, len(positions))
    return total


def _block_moves(pairs: Pairs, positions: np.ndarray, i: int) -> np.ndarray:
    """Return moves (p, 2) of the frames from i on, as frames i - 1 and i propose them."""
    proposed = pairs[i - 1, i].shift[: _HYPOTHESES // 2]
    return proposed - (positions[i] - positions[i - 1])


def _block_scores(
    pairs: Pairs, positions: np.ndarray, i: int, moves: np.ndarray, *, prior: float = 0.0
) -> np.ndarray:
    """Total score (p,) of the pairs across the cut before frame i, for each move."""
    total = np.zeros(len(moves))
    for (a, b), c in pairs.items():
        if a < i <= b:
            step = positions[b] - positions[a] + moves
            total += c.look_up(step)
            if prior > 0 and b - a == 1:
                total -= prior * _step_cost(c, step, len(positions))
    return total


def _step_cost(c: Candidates, step: np.ndarray, n: int) -> np.ndarray:
    """Cost of large steps, of the size of the scatter of total scores: it decides ties only."""
    return np.sqrt(n) * c.spread * np.hypot(step[:, 0], step[:, 1]) / max(c.limit)


def _solve(pairs: Pairs, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Least-squares positions from the candidate of each pair that is nearest to them."""
    n = len(positions)
    rows, steps, matched, repaired = [], [], np.zeros((n, 2)), 0
    for (a, b), c in pairs.items():
        matched[[a, b], 1] += 1
        step = positions[b] - positions[a]
        if not len(c.shift) or (abs(step) > c.limit).any():
            continue
        distance, nearest = c.tree.query(step)
        repaired += int(np.hypot(*(c.shift[c.value.argmax()] - step)) > _TOLERANCE_PX)
        if distance <= _TOLERANCE_PX:
            row = np.zeros(n)
            row[b], row[a] = 1.0, -1.0
            rows.append(row)
            steps.append(c.shift[nearest])
            matched[[a, b], 0] += c.value[nearest]
    # The weak rows hold frames that no pair holds.
    design = np.vstack([*rows, 1e-3 * np.eye(n)])
    solved = np.linalg.lstsq(design, np.vstack([*steps, 1e-3 * positions]), rcond=None)[0]
    error = design[: len(rows)] @ solved - np.reshape(steps, (-1, 2))
    report = {
        "n_pairs": len(pairs),
        "max_transitivity_px": float(np.hypot(*error.T).max()) if rows else 0.0,
        "n_repaired": repaired,
    }
    return solved - solved[0], matched[:, 0] / np.maximum(matched[:, 1], 1), report


def _margin(pairs: Pairs, positions: np.ndarray) -> float:
    """Smallest lead of the positions over any other choice, in scatters of wrong choices."""
    leads = []
    for i in range(len(positions)):
        options = _options(pairs, positions, i)
        moves = options - positions[i]
        scores = _frame_scores(pairs, positions, i, np.vstack([positions[i], options]))
        leads.append(_lead(scores, moves, [c for key, c in pairs.items() if i in key]))
    for i in range(1, len(positions)):
        moves = _block_moves(pairs, positions, i)
        scores = _block_scores(pairs, positions, i, np.vstack([np.zeros(2), moves]))
        leads.append(_lead(scores, moves, [c for (a, b), c in pairs.items() if a < i <= b]))
    return min(leads)


def _lead(scores: np.ndarray, moves: np.ndarray, involved: list[Candidates]) -> float:
    """Score of the first choice minus the best other, over the scatter; at most 999."""
    other = np.hypot(moves[:, 0], moves[:, 1]) > 2 * _TOLERANCE_PX
    spread = np.sqrt(np.sum([c.spread**2 for c in involved]))
    if not other.any() or spread == 0:
        return 999.0
    return float(min((scores[0] - scores[1:][other].max()) / spread, 999.0))
