"""Compiled: the information of pairs of columns, summed over pixels that count differently.

Where weights differ within a column (counts: one over the expected signal) closed forms do not
hold. The errors of such a fit come from these sums.
"""

from __future__ import annotations

import math

import numpy as np

from stemdisp._compiled import compiled, inner
from stemdisp._kernels import gaussian_line, powers, sum_columns, window
from stemdisp._vectors import WIDE, load_wide, ramp, spread_wide, total

FAR = 1e-9  # overlap of two columns along y that counts as none


@inner
def _cut(part, weight, box):
    """Copy a box of pixels to the beginning of `part`, row after row; 0 beyond the image."""
    x0, x1, y0, y1 = box
    nx, wide = min(x1, weight.shape[1]) - x0, x1 - x0
    for j in range(y1 - y0):
        row = part[j * wide : (j + 1) * wide]
        for i in range(nx):
            row[i] = weight[y0 + j, x0 + i]
        for i in range(nx, wide):
            row[i] = 0.0


@inner
def _overlap(part, wide, rows, lines, ex, fx, u0, step):
    """Sum weights times two columns times powers of distances from the first, over pixels.

    Powers of the distances u along x and v along y, in widths of the first: 1; u, v; u^2, u v,
    v^2; u^3, u^2 v, u v^2, v^3; u^4, u^2 v^2, v^4. `lines` hold both columns along y times powers
    of v, `ex` and `fx` one of them along x each.
    """
    zero = spread_wide(np.float32(0))
    t00, t10, t01, t20, t11, t02 = zero, zero, zero, zero, zero, zero
    t30, t21, t12, t03, t40, t22, t04 = zero, zero, zero, zero, zero, zero, zero
    begin, end = rows
    n = np.uint64(end - begin)
    seen = lines[:, begin:]
    for i in range(0, wide, WIDE):
        at = np.uint64(begin * wide + i)
        a, b, c, d, e = sum_columns(part, at, np.uint64(wide), n, seen)
        u = ramp(np.float32(u0 + i * step), np.float32(step))
        g = load_wide(ex, i) * load_wide(fx, i)
        t00, t01, t02 = t00 + g * a, t01 + g * b, t02 + g * c
        t03, t04 = t03 + g * d, t04 + g * e
        g = g * u
        t10, t11, t12 = t10 + g * a, t11 + g * b, t12 + g * c
        g = g * u
        t20, t21, t22 = t20 + g * a, t21 + g * b, t22 + g * c
        g = g * u
        t30, t40 = t30 + g * a, t40 + g * u * a
    return (
        1.0 * total(t00), 1.0 * total(t10), 1.0 * total(t01), 1.0 * total(t20), 1.0 * total(t11),
        1.0 * total(t02), 1.0 * total(t30), 1.0 * total(t21), 1.0 * total(t12), 1.0 * total(t03),
        1.0 * total(t40), 1.0 * total(t22), 1.0 * total(t04),
    )  # fmt: skip


@inner
def _block(out, sums, p, q, r):
    """Fill the information (4, 4) of a pair of columns from the sums of `_overlap`.

    Derivatives are the Gaussian times ``1, u, v, u^2 + v^2 - 2``. In widths of the second column
    the distances from it are ``p u + q`` and ``p v + r``.
    """
    t00, t10, t01, t20, t11, t02, t30, t21, t12, t03, t40, t22, t04 = sums
    # for each derivative of the first column: sums with 1, u, v and u^2 + v^2
    shown = (
        (t00, t10, t01, t20 + t02),
        (t10, t20, t11, t30 + t12),
        (t01, t11, t02, t21 + t03),
        (
            t20 + t02 - 2.0 * t00,
            t30 + t12 - 2.0 * t10,
            t21 + t03 - 2.0 * t01,
            t40 + 2.0 * t22 + t04 - 2.0 * (t20 + t02),
        ),
    )
    for m in range(4):
        one, u, v, square = shown[m]
        out[m, 0], out[m, 1], out[m, 2] = one, p * u + q * one, p * v + r * one
        out[m, 3] = p * p * square + 2.0 * p * (q * u + r * v) + (q * q + r * r - 2.0) * one


@compiled
def summed_pairs(lo, hi, indptr, indices, columns, weight, reach, ax, ay, out):
    """Write information blocks (n_pairs, 4, 4), summed over the pixels with their weights.

    For weights that differ within a column (Poisson). Columns have intensities of 1: what is
    written for others is multiplied by theirs.
    """
    ny, nx = weight.shape
    room = (nx + WIDE - 1) // WIDE * WIDE
    widest = 0.0
    for a in range(lo, hi):
        widest = max(widest, columns[a, 3])
    high = min(ny, int(2.0 * reach * widest / ay) + 2)
    part = np.empty(high * min(room, int(2.0 * reach * widest / ax) + 2 + 2 * WIDE), np.float32)
    ex, fx = np.empty((2, room), np.float32)
    ey, fy = np.empty((2, ny + WIDE), np.float32)
    lines, block = np.empty((5, ny + WIDE), np.float32), np.empty((4, 4))
    for a in range(lo, hi):
        xa, ya, sa = columns[a, 1], columns[a, 2], columns[a, 3]
        box = window(xa, ya, reach * sa, ax, ay, (0, ny), nx, room)
        x0, x1, y0, y1 = box
        _cut(part, weight, box)
        gaussian_line(ex, x1 - x0, x0 * ax - xa, ax, sa, 1.0)
        gaussian_line(ey, y1 - y0, y0 * ay - ya, ay, sa, 1.0)
        for k in range(indptr[a], indptr[a + 1]):
            b = indices[k]
            xb, yb, sb = columns[b, 1], columns[b, 2], columns[b, 3]
            gaussian_line(fx, x1 - x0, x0 * ax - xb, ax, sb, 1.0)
            gaussian_line(fy, y1 - y0, y0 * ay - yb, ay, sb, 1.0)
            begin, end = 0, y1 - y0
            for j in range(end):
                fy[j] *= ey[j]
            while end > begin and fy[begin] < FAR:
                begin += 1
            while end > begin and fy[end - 1] < FAR:
                end -= 1
            powers(lines, y1 - y0, y0 * ay - ya, ay, sa, fy)
            rows, start = (begin, end), (x0 * ax - xa) / sa
            sums = _overlap(part, x1 - x0, rows, lines, ex, fx, start, ax / sa)
            _block(block, sums, sa / sb, (xa - xb) / sb, (ya - yb) / sb)
            norm = 1.0 / (4.0 * math.pi**2 * sa * sa * sb * sb)
            for m in range(4):
                for n in range(4):
                    scale = norm / (1.0 if m == 0 else sa) / (1.0 if n == 0 else sb)
                    out[k, m, n] = block[m, n] * scale
