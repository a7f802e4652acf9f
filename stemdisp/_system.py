"""The normal equations of one step of the joint fit, and who sees whom."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg, sparse
from scipy.sparse.linalg import LinearOperator, cg
from scipy.spatial import cKDTree

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
    the columns' own. ``border`` (n, 4, n_widths) couples columns to widths, ``surface``
    (n, n_surface) their intensities to the background; ``corner`` holds what the shared
    parameters have among themselves, the background last.
    """

    neighbours: Neighbours
    blocks: np.ndarray
    inverse: np.ndarray
    border: np.ndarray
    surface: sparse.csr_array | None
    corner: np.ndarray
    crew: Crew

    def solve(
        self,
        head: np.ndarray,
        tail: np.ndarray,
        factor: tuple[np.ndarray, bool],
        tolerance: float,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Solve for columns (n, 4) and shared parameters by conjugate gradients.

        The preconditioner eliminates the columns by their own blocks; `factor` is what `reduced`
        gave for this system or a similar one.
        """
        size = head.size

        def join(columns: np.ndarray, shared: np.ndarray) -> np.ndarray:
            return np.concatenate([columns.ravel(), shared])

        def split(vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return vector[:size].reshape(head.shape), vector[size:]

        def multiply(vector: np.ndarray) -> np.ndarray:
            columns, shared = split(vector)
            out = self._rows(self.neighbours, self.blocks, columns)
            return join(out + self.spread(shared), self.gather(columns) + self.corner @ shared)

        def precondition(vector: np.ndarray) -> np.ndarray:
            columns, shared = split(vector)
            left = shared - self.gather(self._own(columns))
            low = linalg.cho_solve(factor, left, check_finite=False) if len(left) else left
            return join(self._own(columns - self.spread(low)), low)

        shape = (size + len(tail),) * 2
        solution, _ = cg(
            LinearOperator(shape, multiply, dtype=float),
            join(head, tail),
            rtol=tolerance,
            maxiter=MOST_STEPS,
            M=LinearOperator(shape, precondition, dtype=float),
        )
        return split(solution)

    def spread(self, shared: np.ndarray) -> np.ndarray:
        """Product (n, 4) of the border with shared parameters."""
        n_widths = self.border.shape[2]
        out = (self.border.reshape(-1, n_widths) @ shared[:n_widths]).reshape(self.border.shape[:2])
        if self.surface is not None:
            out[:, 0] += self.surface @ shared[n_widths:]
        return out

    def gather(self, columns: np.ndarray) -> np.ndarray:
        """Product of the transposed border with parameters of columns (n, 4)."""
        n_widths = self.border.shape[2]
        widths = self.border.reshape(-1, n_widths).T @ columns.ravel()
        if self.surface is None:
            return widths
        return np.concatenate([widths, self.surface.T @ columns[:, 0]])

    def _rows(self, near: Neighbours, blocks: np.ndarray, columns: np.ndarray) -> np.ndarray:
        out = np.empty_like(columns)
        self.crew.share(
            multiply_rows, len(columns), near.indptr, near.indices, blocks, columns, out
        )
        return out

    def _own(self, columns: np.ndarray) -> np.ndarray:
        """Apply the inverses of the columns' own blocks."""
        alone = np.arange(len(columns) + 1)
        return self._rows(Neighbours(alone, alone[:-1]), self.inverse, columns)

    def reduced(self) -> tuple[np.ndarray, bool]:
        """Factor the shared part after elimination of the columns by their own blocks."""
        if len(self.corner) == 0:
            return np.empty((0, 0)), True
        response = self.inverse @ self.border
        n_widths = self.border.shape[2]
        flat = response.reshape(-1, n_widths)
        reduced = self.corner.copy()
        reduced[:n_widths, :n_widths] -= self.border.reshape(-1, n_widths).T @ flat
        if self.surface is not None:
            cross = self.surface.T @ response[:, 0]
            reduced[n_widths:, :n_widths] -= cross
            reduced[:n_widths, n_widths:] -= cross.T
            weighted = sparse.diags_array(self.inverse[:, 0, 0].astype(float)) @ self.surface
            reduced[n_widths:, n_widths:] -= (self.surface.T @ weighted).toarray()
        try:
            return linalg.cho_factor(reduced, check_finite=False)
        except linalg.LinAlgError:
            # Preconditioner only: the diagonal serves when elimination lost definiteness.
            return linalg.cho_factor(np.diag(np.abs(np.diag(self.corner)) + 1e-300))
