"""A smooth background as a cubic B-spline surface, on pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from scipy import linalg, sparse
from scipy.interpolate import BSpline

from stemdisp._kernels import sum_blocks
from stemdisp._memory import in_one_line
from stemdisp._threads import Crew

MOST_PIECES = 40


@dataclass(frozen=True, eq=False)
class _Axis:
    """Cubic B-splines along one axis: four of them differ from zero in each piece."""

    knots: np.ndarray
    edge: np.ndarray  # first pixel of each piece, and the end
    basis: np.ndarray  # float32, (4, n): the four functions of the pixel's piece

    @classmethod
    @lru_cache(maxsize=4)
    def build(cls, n: int, spacing: float) -> _Axis:
        """Prepare functions `spacing` px apart on `n` px; images of a stack share them."""
        pieces = int(np.clip(round(n / spacing), 1, MOST_PIECES))
        inner = np.linspace(-0.5, n - 0.5, pieces + 1)
        knots = np.concatenate([[inner[0]] * 3, inner, [inner[-1]] * 3])
        edge = np.ceil(inner).astype(np.uint64)
        values = BSpline.design_matrix(np.arange(n, dtype=float), knots, 3).data
        return cls(knots, edge, np.ascontiguousarray(values.reshape(n, 4).T, dtype=np.float32))

    def at(self, where: np.ndarray) -> sparse.csr_array:
        """Values of all functions at points, clipped to the image."""
        inside = np.clip(where, self.knots[0], self.knots[-1])
        return sparse.csr_array(BSpline.design_matrix(inside, self.knots, 3))

    def near(self, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First function and the values (n, 4) of four at the pixels nearest to points."""
        pixel = np.clip(np.rint(where), 0, self.basis.shape[1] - 1).astype(np.int64)
        piece = np.repeat(np.arange(len(self.edge) - 1), np.ediff1d(self.edge.astype(np.int64)))
        return piece[pixel], self.basis[:, pixel].T

    @lru_cache(maxsize=4)  # noqa: B019 - the axis itself is kept like that
    def through(self, n: int, block: int) -> np.ndarray:
        """Matrix that turns values at the middles of `n` blocks into coefficients."""
        basis = self.at(block * np.arange(n) + (block - 1) / 2).toarray()
        normal = basis.T @ basis
        normal[np.diag_indices_from(normal)] += 1e-6 * np.trace(normal) / len(normal)
        return linalg.solve(normal, basis.T, assume_a="pos")

    def gram(self) -> np.ndarray:
        """Inner products of the functions over the pixels."""
        out = np.zeros((len(self.knots) - 4,) * 2)
        for k in range(len(self.edge) - 1):
            piece = self.basis[:, self.edge[k] : self.edge[k + 1]]
            out[k : k + 4, k : k + 4] += piece @ piece.T
        return out


@dataclass(frozen=True, eq=False)
class Background:
    """Cubic B-spline surface; coefficients have shape ``(n_ky, n_kx)``.

    ``spline`` is what the kernels need: edges and functions along y and x. ``gram`` are the inner
    products of all functions over the pixels, `n_pixels` by weight.
    """

    along_y: _Axis
    along_x: _Axis
    gram: np.ndarray
    n_pixels: float

    @classmethod
    def build(cls, mask: np.ndarray, spacing: float, block: int = 4) -> Background:
        """Prepare functions `spacing` px apart and their products over the pixels of `mask`."""
        whole = cls._even((mask.shape[0], mask.shape[1]), spacing)
        return whole if mask.all() else whole.weighed(mask, block)

    @classmethod
    @lru_cache(maxsize=2)
    def _even(cls, shape: tuple[int, int], spacing: float) -> Background:
        y, x = (_Axis.build(n, spacing) for n in shape)
        return cls(y, x, _firm(np.kron(y.gram(), x.gram())), shape[0] * shape[1])

    def weighed(self, weight: np.ndarray, block: int = 4) -> Background:
        """Give the same functions with their products over weighted pixels.

        Products are summed over blocks of `block` px: the functions are much wider, and only the
        speed of the fit depends on them.
        """
        counts = block_sums(weight, block)
        by, bx = (
            axis.at(block * np.arange(n) + (block - 1) / 2).toarray()
            for axis, n in zip((self.along_y, self.along_x), counts.shape, strict=True)
        )
        ky, kx = by.shape[1], bx.shape[1]
        rows = counts @ (bx[:, :, None] * bx[:, None, :]).reshape(len(bx), -1)
        gram = (by[:, :, None] * by[:, None, :]).reshape(len(by), -1).T @ rows
        gram = gram.reshape(ky, ky, kx, kx).transpose(0, 2, 1, 3).reshape(ky * kx, -1)
        return replace(self, gram=_firm(gram), n_pixels=float(counts.sum()))

    @property
    def shape(self) -> tuple[int, int]:
        """Number of functions along y and x."""
        return len(self.along_y.knots) - 4, len(self.along_x.knots) - 4

    @property
    def spline(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Edges and functions along y and x."""
        return self.along_y.edge, self.along_y.basis, self.along_x.edge, self.along_x.basis

    @cached_property
    def _factor(self) -> tuple[np.ndarray, bool]:
        return linalg.cho_factor(self.gram)

    def solve(self, inner: np.ndarray) -> np.ndarray:
        """Coefficients of the surface that has these inner products with the functions."""
        return linalg.cho_solve(self._factor, inner, check_finite=False)

    def fit_blocks(self, values: np.ndarray, block: int) -> np.ndarray:
        """Coefficients of the surface through values at the middles of blocks."""
        for n, axis in enumerate((self.along_y, self.along_x)):
            fitted = axis.through(values.shape[n], block) @ np.moveaxis(values, n, 0)
            values = np.moveaxis(fitted, 0, n)
        return np.ascontiguousarray(values)

    def under(self, x: np.ndarray, y: np.ndarray) -> sparse.csr_array:
        """Values (n, n_ky * n_kx) of all functions at the pixels nearest to points (px).

        16 of them differ from zero. They change little from pixel to pixel.
        """
        (rows, by), (cols, bx) = self.along_y.near(y), self.along_x.near(x)
        at = (rows[:, None] + np.arange(4)) * self.shape[1] + cols[:, None]
        at = (at[:, :, None] + np.arange(4)).astype(np.int32)
        start = np.arange(0, 16 * len(x) + 1, 16, dtype=np.int32)
        data = (by[:, :, None] * bx[:, None, :]).astype(np.float64)
        size = self.shape[0] * self.shape[1]
        return sparse.csr_array((data.ravel(), at.ravel(), start), shape=(len(x), size))


def _firm(gram: np.ndarray) -> np.ndarray:
    """Hold the surface where no pixel constrains it: there it stays as it is."""
    gram[np.diag_indices_from(gram)] += 1e-3 * np.trace(gram) / len(gram)
    return gram


def block_sums(image: np.ndarray, block: int, crew: Crew | None = None) -> np.ndarray:
    """Sum over blocks of `block` x `block` px; the last ones may be smaller."""
    ny, nx = image.shape
    out = np.empty((-(-ny // block), -(-nx // block)), np.float32)
    flat, gap = in_one_line(image)
    if crew is None:
        sum_blocks(0, len(out), flat, gap, ny, nx, block, out)
    else:
        crew.share(sum_blocks, len(out), flat, gap, ny, nx, block, out)
    return out
