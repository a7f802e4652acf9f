"""Where the frames of a stack lie: many pair correlations, one consistent set of positions.

Kernels for `register`: arrays in, pixels out. A shift or position is (x, y).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stemdisp._candidates import Candidates, Pairs

_HYPOTHESES = 64
_TOLERANCE_PX = 1.5
_SWEEPS = 10
_MIN_MARGIN = 2.0
_PRIOR = 6.0
_PRIOR_IN_DOUBT = 60.0  # where the evidence decides nothing, chance must not
# What the best of all choices leads by without any evidence, in scatters of the total and roots of
# the number of frames: 1.4 at most in noise, 12 with a single defect as evidence.
_LEAD_BY_CHANCE = 3.0


@dataclass(frozen=True, eq=False)
class Placement:
    """Positions of the frames, their mean correlation with the others, and the guard's report."""

    positions_px: np.ndarray
    agreement: np.ndarray
    report: dict[str, Any]


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
    good, small steps are preferred unless they fit worse than by chance. Positions are last the
    least-squares solution of the chosen candidates.
    """
    if guard:
        positions = _improve(pairs, _grow(pairs, n, _PRIOR), _PRIOR)
        if _margin(pairs, positions) < _MIN_MARGIN:
            small = _improve(pairs, _grow(pairs, n, _PRIOR_IN_DOUBT), _PRIOR_IN_DOUBT)
            spread = np.sqrt(np.sum([c.spread**2 for c in pairs.values()]))
            lead = _total_score(pairs, positions) - _total_score(pairs, small)
            positions = small if lead < _LEAD_BY_CHANCE * np.sqrt(n) * spread else positions
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


def _total_score(pairs: Pairs, positions: np.ndarray) -> float:
    """Score of all pairs."""
    steps = ((c, (positions[b] - positions[a])[None]) for (a, b), c in pairs.items())
    return float(sum(c.look_up(step)[0] for c, step in steps))


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
