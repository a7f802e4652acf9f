"""The normal equations of one step of the joint fit, and who sees whom."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from stemdisp._background import Background
from stemdisp._conjugate import BATCH, advance_rows, multiply_rows, turn_rows
from stemdisp._pairs import closer_pairs, near_pairs, nearest_column
from stemdisp._threads import Crew

MOST_STEPS = 60  # of conjugate gradients
NO_SHADE = np.zeros(0)


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Neighbour list in CSR form, each column among its own neighbours."""

    indptr: np.ndarray
    indices: np.ndarray

    @classmethod
    def within(cls, xy: np.ndarray, radius: float) -> Neighbours:
        """All pairs closer than `radius`; `xy` has shape (n, 2)."""
        n = len(xy)
        # Columns spread evenly: a tree that is built in less time serves as well.
        tree = cKDTree(xy, balanced_tree=False, compact_nodes=False)
        i, j = tree.query_pairs(radius, output_type="ndarray").astype(np.int64, copy=False).T
        keys = np.concatenate([i * n + j, j * n + i, np.arange(n) * (n + 1)])
        keys.sort()
        return cls._from_keys(keys, n)

    @classmethod
    def _from_keys(cls, keys: np.ndarray, n: int) -> Neighbours:
        indptr = np.searchsorted(keys, np.arange(n + 1) * n)
        return cls(indptr, keys % n)

    @classmethod
    def of_strips(cls, xy: np.ndarray, first: np.ndarray, radius: float) -> Neighbours:
        """As `within`, of columns that are sorted by strips at least `radius` high."""
        indptr, room, count = np.empty(len(xy) + 1, np.int64), 20 * len(xy), -1
        while not 0 <= count < room:
            room = max(room, count + 1)
            indices = np.empty(room, np.int64)
            count = near_pairs(xy, first, radius, indptr, indices)
        return cls(indptr, indices[:count].copy())

    def closer(self, columns: np.ndarray, radius: float) -> Neighbours:
        """Those pairs of the list that are closer than `radius`; `columns` (n, 4) as fitted."""
        indptr, indices = np.empty_like(self.indptr), np.empty_like(self.indices)
        closer_pairs(self.indptr, self.indices, columns, radius, indptr, indices)
        return Neighbours(indptr, indices[: indptr[-1]].copy())

    def nearest(self, columns: np.ndarray) -> np.ndarray:
        """Distance (n,) to the nearest other column in the list; infinity if there is none."""
        out = np.empty(len(columns))
        nearest_column(0, len(out), self.indptr, self.indices, columns, out)
        return out

    def rows(self) -> np.ndarray:
        """Column to which each entry of the list belongs."""
        return np.repeat(np.arange(len(self.indptr) - 1), np.diff(self.indptr))


@dataclass(frozen=True, eq=False)
class System:
    """Normal equations of columns, shared widths and (white noise) background.

    ``blocks`` (n_pairs, 4, 4) belong to `neighbours` and are what the image tells; to their
    diagonal ``damping`` (n, 4) adds priors and what keeps steps short. ``inverse`` (n, 4, 4) are
    the inverses of the columns' own, with it. ``border`` (n, 4, n_widths) couples columns to
    widths (``response``: times ``inverse``), ``surface`` (n, n_surface) their intensities to the
    background; ``corner`` holds what the shared parameters have among themselves, the background
    last.
    """

    neighbours: Neighbours
    blocks: np.ndarray
    damping: np.ndarray
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
        on average. Three loops over the columns are all that a step takes: the sums that the next
        one needs are taken on the way. (The general routine of scipy spends most of its time
        between the steps: there are three or so.)
        """
        n, n_widths = len(head), self.border.shape[2]
        left, low = head.copy(), tail.copy()
        solution, along, product = np.zeros_like(head), np.zeros_like(head), np.zeros_like(head)
        better, total, along_low = np.empty_like(head), np.zeros_like(tail), np.zeros_like(tail)
        doubled = np.empty((n, 8), np.float32)
        own, crew = (self.inverse, self.response), self.crew
        before, share, enough, batches = 0.0, 0.0, 0.0, -(-n // BATCH)
        sums, products = np.empty((batches, 2 + n_widths)), np.empty((batches, 1 + n_widths))
        for step in range(MOST_STEPS + 1):
            crew.share(
                advance_rows, batches, share, along, product, *own, solution, left, better, sums
            )
            square, metric, *gathered = sums.sum(axis=0)
            size = np.sqrt(square + low @ low)
            enough = enough if step else tolerance * size
            if size <= enough or step == MOST_STEPS:
                break
            rest = low - self._gather(gathered, better)
            better_low = self._precondition(rest)
            now = metric + rest @ better_low
            ratio = now / before if before else 0.0
            along_low = better_low + ratio * along_low
            crew.share(
                turn_rows, n, better, self.response, self.inverse, better_low[:n_widths],
                self._shade(better_low), ratio, along, doubled,
            )  # fmt: skip
            crew.share(
                multiply_rows, batches, self.neighbours.indptr, self.neighbours.indices,
                self.blocks, self.damping, self.border, along_low[:n_widths],
                self._shade(along_low), along, doubled, product, products,
            )  # fmt: skip
            squared, *gathered = products.sum(axis=0)
            product_low = self._gather(gathered, along) + self.corner @ along_low
            curvature = squared + along_low @ product_low
            if not curvature > 0:  # rounding, or nothing left to solve
                break
            share, before = now / curvature, now
            total += share * along_low
            low -= share * product_low
        return solution, total

    def _precondition(self, rest: np.ndarray) -> np.ndarray:
        """Shared parameters from what the columns leave of their residual."""
        n_widths = self.border.shape[2]
        widths = self._widths_inverse @ rest[:n_widths] if n_widths else rest[:0]
        if self.surface is None:
            return widths
        surface = self.background.solve(rest[n_widths:]) / self._left_of_surface
        return np.concatenate([widths, surface])

    def _shade(self, shared: np.ndarray) -> np.ndarray:
        """Give the background under each column, or nothing where it is fitted by itself."""
        if self.surface is None:
            return NO_SHADE
        return self.surface @ shared[self.border.shape[2] :]

    def _gather(self, widths: list[float], columns: np.ndarray) -> np.ndarray:
        """Add to what is summed up for the widths what columns (n, 4) give the background."""
        if self.surface is None:
            return np.array(widths)
        return np.concatenate([widths, self._beneath @ columns[:, 0]])

    @cached_property
    def _beneath(self) -> Any:
        """Transpose of `surface`: to make one takes as long as to use it."""
        return self.surface.T

    @cached_property
    def _widths_inverse(self) -> np.ndarray:
        """Invert the part of the widths after elimination of the columns by their own blocks."""
        n_widths = self.border.shape[2]
        corner = self.corner[:n_widths, :n_widths]
        flat = self.response.reshape(-1, n_widths)
        left = corner - self.border.reshape(-1, n_widths).T @ flat
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
