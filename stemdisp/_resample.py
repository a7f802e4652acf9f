"""Frames sampled on the grid of their mean, with every line where the beam really was.

Kernels for `register`: arrays in, arrays out. Positions and displacements are (x, y) in px.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from stemdisp._compiled import compiled

_NODES = 6
_LEAST_GAP = 0.35  # px between rows: polynomials through closer ones would blow up the noise
_SPREADINGS = 50
_BEYOND_PX = 0.5


@dataclass(frozen=True, eq=False)
class Place:
    """Where a frame lies on the grid of the mean.

    Attributes
    ----------
    start : ndarray, shape (2,)
        Position (x, y) in the frame of the mean's first pixel.
    size : (int, int)
        Of the mean (x, y).
    path : ndarray, shape (lines, 2), or None
        Displacement (x, y) of the content of each line, px.
    line_axis : int
        0: lines are rows; 1: columns.
    """

    start: np.ndarray
    size: tuple[int, int]
    path: np.ndarray | None = None
    line_axis: int = 0

    def sample(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Frame on the grid of the mean, and which pixels are good (None: all)."""
        valid = np.isfinite(frame)
        inside = self._inside(frame.shape)
        if valid.all():
            return self._resample(frame), inside
        # The nearest value that was measured does least harm beside a missing one.
        nearest = ndimage.distance_transform_edt(
            ~valid, return_distances=False, return_indices=True
        )
        part = self._resample(frame[tuple(nearest)])
        # Pixels that a bad one touches are left out.
        good = self._resample(valid.astype(float), order=1) > 0.999
        good &= True if inside is None else inside
        return np.where(good, part, 0.0), good

    def _inside(self, shape: tuple[int, int]) -> np.ndarray | None:
        """Which pixels of the grid lie in the frame; None for all."""
        marks = []
        for start, size, n in zip(self.start, self.size, shape[::-1], strict=True):
            at = start + np.arange(size)
            marks.append((at > -_BEYOND_PX) & (at < n - 1 + _BEYOND_PX))
        along_x, along_y = marks
        return None if along_x.all() and along_y.all() else along_y[:, None] & along_x

    def _resample(self, image: np.ndarray, order: int = 3) -> np.ndarray:
        if self.line_axis == 0:
            return resample(image, self.start, self.size, path=self.path, order=order)
        turned = None if self.path is None else self.path[:, ::-1]
        return resample(image.T, self.start[::-1], self.size[::-1], path=turned, order=order).T


def resample(
    frame: np.ndarray,
    start: np.ndarray,
    size: tuple[int, int],
    *,
    path: np.ndarray | None = None,
    order: int = 3,
) -> np.ndarray:
    """Sample a frame from (x, y) on, one pixel apart, where its rows were displaced.

    Parameters
    ----------
    frame : ndarray, shape (ny, nx)
        Without missing values.
    start : ndarray, shape (2,)
        Position (x, y) in the frame of the first sample.
    size : (int, int)
        Number of samples along x and y.
    path : ndarray, shape (rows, 2), optional
        Displacement (x, y) of the content of the row next to each row of samples.
    order : int, default 3
        1: linear, for masks; else cubic splines, and polynomials through six rows where rows are
        not equally spaced.

    Returns
    -------
    ndarray, shape (size[1], size[0])
    """
    if path is None:
        moved = ndimage.shift(frame, -start[::-1], order=order, mode="reflect")
        return moved[: size[1], : size[0]]
    nodes = 2 if order == 1 else _NODES
    reach = nodes + int(np.ceil(abs(path[:, 1]).max()))
    whole = int(np.rint(start[1]))
    rows = np.arange(whole - reach, whole + size[1] + reach)
    moved = path[np.clip(rows - whole, 0, len(path) - 1)]
    inside = np.clip(rows, 0, len(frame) - 1)
    lines = np.empty((len(rows), size[0]))
    begin = start[0] + moved[:, 0]
    first = np.floor(begin).astype(int) - (nodes // 2 - 1)
    weight = lagrange(np.arange(nodes, dtype=float)[None], (begin - first)[:, None])
    along_rows(np.ascontiguousarray(frame, dtype=float), inside, first, weight, lines)
    heights, wanted = _apart(rows - start[1] - moved[:, 1]), np.arange(size[1], dtype=float)
    first = np.searchsorted(heights, wanted, side="right") - nodes // 2
    first = np.clip(first, 0, len(heights) - nodes)
    weight = lagrange(heights[first[:, None] + np.arange(nodes)], wanted[:, None])
    out = np.empty((size[1], size[0]))
    across_rows(lines, first, weight, out)
    return out


@compiled
def along_rows(frame, rows, first, weight, out):
    """Sample rows of a frame one pixel apart, from a place of its own on in each.

    ``out[r, x]`` is the sum of ``frame[rows[r], first[r] + x + k] * weight[r, k]`` over k; beyond
    the frame its border goes on.
    """
    nx, nodes, n = frame.shape[1], weight.shape[1], out.shape[1]
    for r in range(out.shape[0]):
        line, begin, factors, to = frame[rows[r]], first[r], weight[r], out[r]
        low = min(max(-begin, 0), n)
        high = max(min(n, nx - nodes + 1 - begin), low)
        to[:] = 0.0
        for k in range(nodes):
            inside, factor = line[begin + low + k : begin + high + k], factors[k]
            for x in range(high - low):
                to[low + x] += factor * inside[x]
        for x in range(n):
            if low <= x < high:
                continue
            for k in range(nodes):
                to[x] += factors[k] * line[min(max(begin + x + k, 0), nx - 1)]


@compiled
def across_rows(lines, first, weight, out):
    """Add up rows: ``out[y]`` is the sum of ``lines[first[y] + k] * weight[y, k]`` over k."""
    for y in range(out.shape[0]):
        to = out[y]
        to[:] = 0.0
        for k in range(weight.shape[1]):
            line, factor = lines[first[y] + k], weight[y, k]
            for x in range(out.shape[1]):
                to[x] += factor * line[x]


def lagrange(nodes: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Weights (rows, nodes) of the polynomial through the nodes, at one place in each row."""
    n = nodes.shape[1]
    weight = np.ones(np.broadcast_shapes(nodes.shape, (len(where), n)))
    for i in range(n):
        for j in range(n):
            if i != j:
                weight[:, i] *= (where[:, 0] - nodes[:, j]) / (nodes[:, i] - nodes[:, j])
    return weight


def _apart(heights: np.ndarray) -> np.ndarray:
    """Heights of rows in rising order, none nearer to the next than a third of a pixel."""
    for _ in range(_SPREADINGS):
        lack = np.maximum(_LEAST_GAP - np.diff(heights), 0.0)
        if not lack.any():
            return heights
        heights = heights.copy()
        heights[:-1] -= 0.51 * lack
        heights[1:] += 0.51 * lack
    return np.arange(len(heights)) + np.mean(heights - np.arange(len(heights)))
