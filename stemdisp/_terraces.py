"""Where along a stack of layers crystal ends, and how that border steps from place to place.

Both are sequences with few changes, found as the best of all sequences (Viterbi, IEEE Trans. Inf.
Theory 13 (1967) 260): each layer, or each strip of the image, has evidence for crystal, and each
change costs as much as it takes to be believed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

# Logarithms of likelihood ratios, as the evidence of sites.
CHANGE = 10.0  # crystal to film or back, from layer to layer
STEP = 8.0  # a step of the border, from strip to strip
REACH = 12  # planes up and down in which a border is followed


@dataclass(frozen=True)
class Run:
    """Consecutive levels ``first`` to ``last`` (numbers in the list of levels) of one kind."""

    first: int
    last: int
    crystal: bool


def find_runs(evidence: np.ndarray) -> list[Run]:
    """Divide levels into crystal and film.

    Parameters
    ----------
    evidence : ndarray, shape (n_levels,)
        For crystal, in each level.

    Returns
    -------
    list of Run
        In the order of the levels.
    """
    reward = np.stack([-evidence, evidence], axis=1)
    kinds = _best_path(reward, CHANGE * (1 - np.eye(2)))
    edges = np.flatnonzero(np.diff(kinds)) + 1
    starts = np.concatenate([[0], edges])
    ends = np.concatenate([edges, [len(kinds)]]) - 1
    return [Run(int(a), int(b), bool(kinds[a])) for a, b in zip(starts, ends, strict=True)]


def follow_border(
    strip: np.ndarray, plane: np.ndarray, evidence: np.ndarray, span: tuple[int, int]
) -> np.ndarray:
    """Outermost plane of crystal in every strip across the border.

    Parameters
    ----------
    strip : ndarray of int, shape (n,)
        Number of the strip in which each site lies, from 0.
    plane : ndarray of int, shape (n,)
        Plane of each site relative to a common border (0: last one inside).
    evidence : ndarray, shape (n,)
        For crystal at each site.
    span : (int, int)
        Lowest and highest plane that the border may reach.

    Returns
    -------
    ndarray of int, shape (n_strips,)
    """
    low, high = max(span[0], -REACH), min(span[1], REACH)
    count = int(strip.max(initial=-1)) + 1
    table = np.zeros((count, high - low + 1))
    near = (plane >= low) & (plane <= high)
    np.add.at(table, (strip[near], plane[near] - low), evidence[near])
    inside = np.cumsum(table, axis=1)
    reward = 2 * inside - inside[:, -1:]
    size = np.abs(np.subtract.outer(np.arange(low, high + 1), np.arange(low, high + 1)))
    return _best_path(reward, STEP * (size > 0) + 0.5 * size) + low


def _apart(one: float, other: float) -> float:
    return abs(other - one)


def without_holes(tops: np.ndarray, width: float) -> np.ndarray:
    """Level what is deeper, or higher, than a quarter of its width: a hole or dirt, no terrace.

    Parameters
    ----------
    tops : ndarray of int, shape (n_strips,)
        From `follow_border`.
    width : float
        Width of a strip in planes.

    Returns
    -------
    ndarray of int, shape (n_strips,)
    """
    tops = tops.copy()
    while True:
        edges = np.concatenate([[0], np.flatnonzero(np.diff(tops)) + 1, [len(tops)]])
        holes = []
        for k in range(len(edges) - 1):
            own = int(tops[edges[k]])
            beside = [tops[e] for e in (edges[k] - 1, edges[k + 1]) if 0 <= e < len(tops)]
            # at the border of the image one neighbour is unknown, and as much of the width
            depth = min((abs(b - own) for b in beside), default=0)
            wide = (edges[k + 1] - edges[k]) * width * (3 - len(beside))
            if depth > wide / 4:
                level = min(beside, key=partial(_apart, own))
                holes.append((len(beside), depth / wide, k, level))
        if not holes:
            return tops
        # what has neighbours on both sides first, and of those the most like a hole
        *_, k, level = max(holes, key=lambda h: h[:2])
        tops[edges[k] : edges[k + 1]] = level


def terraces(tops: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Sum up a border as terraces.

    Parameters
    ----------
    tops : ndarray of int, shape (n_strips,)
        From `follow_border`.

    Returns
    -------
    starts : ndarray of int
        First strip of every terrace but the first.
    offsets : ndarray of int
        Height of every terrace over the most common one.
    common : int
        The most common height.
    """
    values, counts = np.unique(tops, return_counts=True)
    common = int(values[np.argmax(counts)])
    starts = np.flatnonzero(np.diff(tops)) + 1
    heights = tops[np.concatenate([[0], starts])]
    return starts, heights - common, common


def _best_path(reward: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """Sequence of states (n,) of the largest summed reward (n, k) less cost (k, k) of changes."""
    n, k = reward.shape
    back = np.zeros((n, k), dtype=int)
    score = reward[0].copy()
    for row in range(1, n):
        trial = score[:, None] - cost
        back[row] = np.argmax(trial, axis=0)
        score = trial[back[row], np.arange(k)] + reward[row]
    path = np.zeros(n, dtype=int)
    path[-1] = int(np.argmax(score))
    for row in range(n - 1, 0, -1):
        path[row - 1] = back[row, path[row]]
    return path
