"""A smooth background as a cubic B-spline surface, on pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.interpolate import BSpline


@dataclass(frozen=True, eq=False)
class Background:
    """Cubic B-spline surface with knots `spacing` px apart."""

    by: np.ndarray
    bx: np.ndarray
    gram: np.ndarray
    knots: tuple[np.ndarray, np.ndarray]

    @classmethod
    def build(cls, mask: np.ndarray, spacing: float) -> Background:
        """Prepare bases and the normal matrix for the pixels of `mask`."""
        bases, knots = [], []
        for n in mask.shape:
            pieces = int(np.clip(round(n / spacing), 1, 40))
            inner = np.linspace(-0.5, n - 0.5, pieces + 1)
            knot = np.concatenate([[inner[0]] * 3, inner, [inner[-1]] * 3])
            bases.append(BSpline.design_matrix(np.arange(n, dtype=float), knot, 3).toarray())
            knots.append(knot)
        by, bx = bases
        nyk, nxk = by.shape[1], bx.shape[1]
        rows = mask.astype(float) @ (bx[:, :, None] * bx[:, None, :]).reshape(len(bx), -1)
        gram = (by[:, :, None] * by[:, None, :]).reshape(len(by), -1).T @ rows
        gram = gram.reshape(nyk, nyk, nxk, nxk).transpose(0, 2, 1, 3).reshape(nyk * nxk, -1)
        # Where no pixel constrains the surface it stays as it is.
        gram[np.diag_indices_from(gram)] += 1e-3 * np.trace(gram) / len(gram)
        return cls(by, bx, gram, (knots[0], knots[1]))

    def surface(self, coefficients: np.ndarray) -> np.ndarray:
        """Evaluate on all pixels."""
        return self.by @ coefficients.reshape(self.by.shape[1], -1) @ self.bx.T

    def project(self, residual: np.ndarray) -> np.ndarray:
        """Inner products of the basis with a (masked) residual."""
        return (self.by.T @ residual @ self.bx).ravel()

    def at(self, x: np.ndarray, y: np.ndarray) -> sparse.csr_array:
        """Basis values (n, n_basis) at points, clipped to the image."""
        rows = []
        for value, knot in ((y, self.knots[0]), (x, self.knots[1])):
            inside = np.clip(value, knot[0], knot[-1])
            rows.append(BSpline.design_matrix(inside, knot, 3).toarray())
        return sparse.csr_array((rows[0][:, :, None] * rows[1][:, None, :]).reshape(len(x), -1))
