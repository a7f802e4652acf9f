"""Columns that are ellipses, alike for all columns of a species: residual and gradient.

The covariance of a column is ``s^2 (I + [[p, q], [q, -p]])``. Positions and intensities are fitted
with round templates of the same width: what a small ellipse changes in them is of second order.
"""

from __future__ import annotations

import math

import numpy as np

from stemdisp._compiled import compiled
from stemdisp._kernels import gaussian_line, window
from stemdisp._model import REACH, RENDERED, Problem, State
from stemdisp._vectors import WIDE

MOST = 0.5  # ellipticity beyond which a column is two, or none
# Neighbours share what a change of shape explains, so a step goes a little less far.
CAUTION, MOST_STEP = 0.8, 0.1


@compiled
def subtract_ellipses(lo, hi, nx, columns, kind, shape, first, height, reach, ax, ay, weight, out):
    """Take the difference between ellipses and circles off the strips `lo` to `hi` of `out`."""
    ny = out.shape[0]
    n_strips = first.size - 1
    ex, ey, line = np.empty((3, max(nx, ny) + WIDE), np.float32)
    for strip in range(lo, hi):
        row0, row1 = strip * height, (strip + 1) * height if strip + 1 < n_strips else ny
        for c in range(first[max(strip - 1, 0)], first[min(strip + 2, n_strips)]):
            p, q = shape[kind[c], 0], shape[kind[c], 1]
            v, x, y, s = columns[c, 0], columns[c, 1], columns[c, 2], columns[c, 3]
            x0, x1, y0, y1 = window(x, y, reach * s, ax, ay, (row0, row1), nx, nx)
            if x1 == x0 or (p == 0.0 and q == 0.0):
                continue
            gaussian_line(ex, x1 - x0, x0 * ax - x, ax, s, 1.0)
            gaussian_line(ey, y1 - y0, y0 * ay - y, ay, s, 1.0)
            det = 1.0 - p * p - q * q
            # inverse covariance: along x, mixed, along y, in 1 / s^2
            along, mixed, across = (1.0 - p) / det, -q / det, (1.0 + p) / det
            peak = v / (2.0 * math.pi * s * s)
            for j in range(y0, y1):
                w = (j * ay - y) / s
                begin = x0 * ax - (x - s * w * mixed / along)
                gaussian_line(line, x1 - x0, begin, ax, s / math.sqrt(along), 1.0)
                row = math.exp(-0.5 * (across - mixed * mixed / along) * w * w) / math.sqrt(det)
                for i in range(x0, x1):
                    value = peak * (row * line[i - x0] - ey[j - y0] * ex[i - x0])
                    if weight.size > 0:
                        value *= weight[j, i]
                    out[j, i] -= value


@compiled
def project_ellipses(lo, hi, residual, nx, weight, columns, first, reach, order, ax, ay, out):
    """Write <weighted derivative of column by p and q, residual> to `out` (n, 4), and their norms.

    The derivatives are ``V g (u^2 - w^2) / 2`` and ``V g u w``; minus their Laplacians have the
    further factor ``(6 - t) / s^2``.
    """
    ny = residual.shape[0]
    ex, ey = np.empty((2, max(nx, ny) + WIDE), np.float32)
    for c in range(first[lo], first[hi]):
        v, x, y, s = columns[c, 0], columns[c, 1], columns[c, 2], columns[c, 3]
        x0, x1, y0, y1 = window(x, y, reach * s, ax, ay, (0, ny), nx, nx)
        gp, gq, np_, nq = 0.0, 0.0, 0.0, 0.0
        gaussian_line(ex, x1 - x0, x0 * ax - x, ax, s, 1.0)
        gaussian_line(ey, y1 - y0, y0 * ay - y, ay, s, 1.0)
        norm = v / (2.0 * math.pi * s * s)
        for j in range(y0, y1):
            w = (j * ay - y) / s
            for i in range(x0, x1):
                u = (i * ax - x) / s
                g = norm * ex[i - x0] * ey[j - y0]
                lap = (6.0 - u * u - w * w) / (s * s) if order == 1 else 1.0
                here = weight[j, i] if weight.size > 0 else 1.0
                dp, dq = 0.5 * g * (u * u - w * w), g * u * w
                gp += lap * dp * residual[j, i]
                gq += lap * dq * residual[j, i]
                np_ += lap * dp * dp * here
                nq += lap * dq * dq * here
        out[c, 0], out[c, 1], out[c, 2], out[c, 3] = gp, gq, np_, nq


def take_off(problem: Problem, state: State) -> None:
    """Make the residual of round columns one of ellipses."""
    strips = problem.strips
    problem.crew.share(
        subtract_ellipses, strips.count, problem.image.shape[1], state.columns, problem.kind,
        state.shape, strips.first, strips.height, RENDERED, *problem.step, problem.weight,
        problem.scratch,
    )  # fmt: skip


def improve(problem: Problem, state: State, held: np.ndarray) -> np.ndarray:
    """One step of the shapes (n_kinds, 2); `held` kinds, hardly visible, stay round.

    All columns of a kind together: the sum of their gradients over that of their norms.
    """
    sums = np.empty((len(state.columns), 4))
    strips = problem.strips
    problem.crew.share(
        project_ellipses, strips.count, problem.scratch, problem.image.shape[1], problem.weight,
        state.columns, strips.first, REACH, problem.order, *problem.step, sums,
    )  # fmt: skip
    shape = state.shape.copy()
    for kind in range(len(shape)):
        mine = (problem.kind == kind) & ~problem.frozen
        if mine.any() and not held[kind]:
            gradient, norm = np.split(sums[mine].sum(axis=0), 2)
            shape[kind] += np.clip(CAUTION * gradient / norm, -MOST_STEP, MOST_STEP)
    return np.clip(shape, -MOST, MOST)


def axes(shape: np.ndarray, sigma: float) -> tuple[float, float, float]:
    """Long and short width, and the angle (degrees, x towards y) of the long one."""
    p, q = shape
    size = np.hypot(p, q)
    angle = 0.5 * np.degrees(np.arctan2(q, p))
    return sigma * np.sqrt(1 + size), sigma * np.sqrt(1 - size), float(angle)
