"""A smooth background as a cubic B-spline surface, on pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg, sparse
from scipy.interpolate import BSpline

MOST_PIECES = 40


@dataclass(frozen=True, eq=False)
class _Axis:
    """Cubic B-splines along one axis: four of them differ from zero in each piece."""

    knots: np.ndarray
    edge: np.ndarray  # first pixel of each piece, and the end
    basis: np.ndarray  # float32, (4, n): the four functions of the pixel's piece

    @classmethod
    def build(cls, n: int, spacing: float) -> _Axis:
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

    def gram(self) -> np.ndarray:
        """Inner products of the functions over the pixels."""
        values = self.at(np.arange(self.basis.shape[1], dtype=float))
        return (values.T @ values).toarray()


@dataclass(frozen=True, eq=False)
class Background:
    """Cubic B-spline surface; coefficients have shape ``(n_ky, n_kx)``.

    ``spline`` is what the kernels need: edges and functions along y and x. ``gram`` are the inner
    products of all functions over the usable pixels.
    """

    along_y: _Axis
    along_x: _Axis
    gram: np.ndarray

    @classmethod
    def build(cls, mask: np.ndarray, spacing: float, block: int = 4) -> Background:
        """Prepare the functions, `spacing` px apart, and their products over the pixels of `mask`.

        Products over a mask are summed over blocks of `block` px: the functions are much wider,
        and only the speed of the fit depends on them.
        """
        y, x = (_Axis.build(n, spacing) for n in mask.shape)
        gram = np.kron(y.gram(), x.gram())
        if not mask.all():
            counts = block_sums(mask, block)
            by, bx = (
                axis.at(block_centres(n, block)).toarray()
                for axis, n in zip((y, x), mask.shape, strict=True)
            )
            ky, kx = by.shape[1], bx.shape[1]
            rows = counts @ (bx[:, :, None] * bx[:, None, :]).reshape(len(bx), -1)
            gram = (by[:, :, None] * by[:, None, :]).reshape(len(by), -1).T @ rows
            gram = gram.reshape(ky, ky, kx, kx).transpose(0, 2, 1, 3).reshape(ky * kx, -1)
        # Where no pixel constrains the surface it stays as it is.
        gram[np.diag_indices_from(gram)] += 1e-3 * np.trace(gram) / len(gram)
        return cls(y, x, gram)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of functions along y and x."""
        return len(self.along_y.knots) - 4, len(self.along_x.knots) - 4

    @property
    def spline(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Edges and functions along y and x."""
        return self.along_y.edge, self.along_y.basis, self.along_x.edge, self.along_x.basis

    def fit_blocks(self, values: np.ndarray, block: int) -> np.ndarray:
        """Coefficients of the surface through values at the middles of blocks."""
        for n, axis in enumerate((self.along_y, self.along_x)):
            centres = block_centres(axis.basis.shape[1], block)
            basis = axis.at(centres).toarray()
            normal = basis.T @ basis
            normal[np.diag_indices_from(normal)] += 1e-6 * np.trace(normal) / len(normal)
            fitted = linalg.solve(normal, basis.T @ np.moveaxis(values, n, 0), assume_a="pos")
            values = np.moveaxis(fitted, 0, n)
        return np.ascontiguousarray(values)

    def at(self, x: np.ndarray, y: np.ndarray) -> sparse.csr_array:
        """Values (n, n_ky * n_kx) of all functions at points (px); 16 differ from zero."""
        by, bx = self.along_y.at(y), self.along_x.at(x)
        cols = by.indices.reshape(-1, 4, 1) * self.shape[1] + bx.indices.reshape(-1, 1, 4)
        data = by.data.reshape(-1, 4, 1) * bx.data.reshape(-1, 1, 4)
        start = np.arange(0, 16 * len(x) + 1, 16)
        return sparse.csr_array(
            (data.ravel(), cols.ravel(), start), shape=(len(x), self.shape[0] * self.shape[1])
        )


def block_centres(n: int, block: int) -> np.ndarray:
    """Middles (px) of the blocks along an axis of `n` px; the last block may be smaller."""
    start = np.arange(0, n, block)
    return (start + np.minimum(start + block, n) - 1) / 2


def block_sums(image: np.ndarray, block: int) -> np.ndarray:
    """Sums over blocks of `block` x `block` px; the last ones may be smaller."""
    for axis in (0, 1):
        whole = image.shape[axis] // block
        head, tail = np.split(image, [whole * block], axis=axis)
        shape = (whole, block, head.shape[1]) if axis == 0 else (len(head), whole, block)
        head = head.reshape(shape).sum(axis=axis + 1, dtype=np.float32)
        if tail.size:
            tail = tail.sum(axis=axis, keepdims=True, dtype=np.float32)
            head = np.concatenate([head, tail], axis=axis)
        image = head
    return image
