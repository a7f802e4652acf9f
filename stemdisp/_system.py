"""The normal equations of one step of the joint fit, and who sees whom."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

from stemdisp._background import Background
from stemdisp._pairs import closer_pairs, multiply_rows
from stemdisp._threads import Crew

MOST_STEPS = 60  # of conjugate gradients


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Neighbour list in CSR form, each column among its own neighbours."""

    indptr: np.ndarray
    indices: np.ndarray

    @classmethod
    def within(cls, xy: np.ndarray, radius: float) -> Neighbours:
        """All pairs closer than `radius`; `xy` has shape (n, 2)."""
        n = len(xy)
        pairs = cKDTree(xy).query_pairs(radius, output_type="ndarray").astype(np.int64)
        i, j = pairs.T
        keys = np.concatenate([i * n + j, j * n + i, np.arange(n) * (n + 1)])
        keys.sort()
        return cls._from_keys(keys, n)

    @classmethod
    def _from_keys(cls, keys: np.ndarray, n: int) -> Neighbours:
        indptr = np.searchsorted(keys, np.arange(n + 1) * n)
        return cls(indptr, keys % n)

    def closer(self, columns: np.ndarray, radius: float) -> Neighbours:
        """Those pairs of the list that are closer than `radius`; `columns` (n, 4) as fitted."""
        return self._sift(columns, radius)[0]

    def nearest(self, columns: np.ndarray) -> np.ndarray:
        """Distance (n,) to the nearest other column in the list; infinity if there is none."""
        return self._sift(columns, 0.0)[1]

    def rows(self) -> np.ndarray:
        """Column to which each entry of the list belongs."""
        return np.repeat(np.arange(len(self.indptr) - 1), np.diff(self.indptr))

    def _sift(self, columns: np.ndarray, radius: float) -> tuple[Neighbours, np.ndarray]:
        indptr, indices = np.empty_like(self.indptr), np.empty_like(self.indices)
        nearest = np.empty(len(columns))
        closer_pairs(self.indptr, self.indices, columns, radius, indptr, indices, nearest)
        return Neighbours(indptr, indices[: indptr[-1]].copy()), nearest


@dataclass(frozen=True, eq=False)
class System:
    """Normal equations of columns, shared widths and (white noise) background.

    ``blocks`` (n_pairs, 4, 4) belong to `neighbours`, ``inverse`` (n, 4, 4) are the inverses of
    the columns' own. ``border`` (n, 4, n_widths) couples columns to widths (``response``:
    times ``inverse``), ``surface``
    (n, n_surface) their intensities to the background; ``corner`` holds what the shared
    parameters have among themselves, the background last.
    """

    neighbours: Neighbours
    blocks: np.ndarray
    inverse: np.ndarray
    border: np.ndarray
    response: np.ndarray
    surface: Any  # a sparse.csr_array, or None
    corner: np.ndarray
    background: Background
    crew: Crew

    def solve(
        self, head: np.ndarray, tail: np.ndarray, tolerance: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Solve for columns (n, 4) and shared parameters.

        Conjugate gradients until the residual has fallen by `tolerance`; the preconditioner
        eliminates the columns by their own blocks, and of the background what they take from it
        on average. (Three iterations do: the general routine of
        scipy spends most of its time between them.)
        """
        size = head.size
        left = np.concatenate([head.ravel(), tail])
        solution, product, along = np.zeros_like(left), np.empty_like(left), np.zeros_like(left)
        enough = tolerance * np.linalg.norm(left)
        before = 0.0
        for _ in range(MOST_STEPS):
            better = self._precondition(left, size)
            now = left @ better
            along = better + (now / before if before else 0.0) * along
            self._multiply(along, product, size)
            curvature = along @ product
            if not curvature > 0:  # rounding, or nothing left to solve
                break
            share = now / curvature
            solution += share * along
            left -= share * product
            before = now
            if np.linalg.norm(left) <= enough:
                break
        return solution[:size].reshape(head.shape), solution[size:]

    def _multiply(self, vector: np.ndarray, out: np.ndarray, size: int) -> None:
        """Write the product with the whole matrix to `out`."""
        columns, shared = vector[:size].reshape(-1, 4), vector[size:]
        head = out[:size].reshape(-1, 4)
        self._rows(self.neighbours, self.blocks, columns, head)
        head += self.spread(shared)
        out[size:] = self.gather(columns) + self.corner @ shared

    def _precondition(self, vector: np.ndarray, size: int) -> np.ndarray:
        """Apply the inverse of the matrix without the blocks between columns."""
        out = np.empty_like(vector)
        columns = out[:size].reshape(-1, 4)
        self._rows(self._alone, self.inverse, vector[:size].reshape(-1, 4), columns)
        if len(vector) > size:
            n_widths = self.border.shape[2]
            low = vector[size:] - self.gather(columns)
            if n_widths:
                low[:n_widths] = self._widths_inverse @ low[:n_widths]
                columns -= (self.response.reshape(-1, n_widths) @ low[:n_widths]).reshape(-1, 4)
            if self.surface is not None:
                low[n_widths:] = self.background.solve(low[n_widths:]) / self._left_of_surface
                columns -= self.inverse[:, :, 0] * (self.surface @ low[n_widths:])[:, None]
            out[size:] = low
        return out

    def _rows(
        self, near: Neighbours, blocks: np.ndarray, columns: np.ndarray, out: np.ndarray
    ) -> None:
        self.crew.share(
            multiply_rows, len(columns), near.indptr, near.indices, blocks, columns, out
        )

    @cached_property
    def _to_widths(self) -> np.ndarray:
        """The transposed `border` (n_widths, 4 n), row by row in memory."""
        n_widths = self.border.shape[2]
        return np.ascontiguousarray(self.border.reshape(len(self.border) * 4, n_widths).T)

    @cached_property
    def _alone(self) -> Neighbours:
        """Each column with itself only."""
        each = np.arange(len(self.inverse) + 1)
        return Neighbours(each, each[:-1])

    @cached_property
    def across(self) -> sparse.csr_array:
        """The transposed `surface`."""
        return sparse.csr_array(self.surface.T)

    def spread(self, shared: np.ndarray) -> np.ndarray:
        """Product (n, 4) of the border with shared parameters."""
        n_widths = self.border.shape[2]
        out = (self.border.reshape(self.border.shape[0] * 4, n_widths) @ shared[:n_widths]).reshape(
            self.border.shape[:2]
        )
        if self.surface is not None:
            out[:, 0] += self.surface @ shared[n_widths:]
        return out

    def gather(self, columns: np.ndarray) -> np.ndarray:
        """Product of the transposed border with parameters of columns (n, 4)."""
        widths = self._to_widths @ columns.ravel()
        if self.surface is None:
            return widths
        return np.concatenate([widths, self.across @ columns[:, 0]])

    @cached_property
    def _widths_inverse(self) -> np.ndarray:
        """Invert the part of the widths after elimination of the columns by their own blocks."""
        n_widths = self.border.shape[2]
        corner = self.corner[:n_widths, :n_widths]
        flat = self.response.reshape(-1, n_widths)
        left = corner - self._to_widths @ flat
        try:
            np.linalg.cholesky(left)
            return np.linalg.inv(left)
        except np.linalg.LinAlgError:
            # Preconditioner only: the diagonal serves when elimination lost definiteness.
            return np.diag(1.0 / (np.abs(np.diag(corner)) + 1e-300))

    @cached_property
    def _left_of_surface(self) -> float:
        """Share of the background's information that unknown intensities leave it."""
        under = np.asarray(self.surface.sum(axis=1)).ravel()
        taken = float(under**2 @ self.inverse[:, 0, 0])
        return max(1.0 - taken / self.background.n_pixels, 0.05)
