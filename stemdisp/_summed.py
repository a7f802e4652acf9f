"""Compiled: the information of pairs of columns, summed over pixels that count differently.

Where weights differ within a column (counts: one over the expected signal) closed forms do not
hold. The errors of such a fit come from these sums.
"""

from __future__ import annotations

import math

import numpy as np

from stemdisp._compiled import compiled, inner
from stemdisp._kernels import _lines, _window

FAR = 1e-9  # overlap of two columns that counts as none


@inner
def _add_row(block, g, moments, p, q, va, vb):
    """Add what a row of pixels contributes to the information (4, 4) of a pair of columns.

    `moments` are those of the weights and both Gaussians in the distance u from the first column;
    the distance from the second is ``p u + q``; `va` and `vb` are the distances of the row, all
    in widths. Derivatives are the Gaussian times ``1, u, v, u^2 + v^2 - 2``.
    """
    m0, m1, m2, m3, m4 = moments
    ca, cb = va * va - 2.0, vb * vb - 2.0
    # moments with the first and second power of the distance from the second column
    n0, n1, n2, n3 = p * m1 + q * m0, p * m2 + q * m1, p * m3 + q * m2, p * m4 + q * m3
    o0, o1, o2 = p * n1 + q * n0, p * n2 + q * n1, p * n3 + q * n2
    block[0, 0] += g * m0
    block[0, 1] += g * n0
    block[0, 2] += g * vb * m0
    block[0, 3] += g * (o0 + cb * m0)
    block[1, 0] += g * m1
    block[1, 1] += g * n1
    block[1, 2] += g * vb * m1
    block[1, 3] += g * (o1 + cb * m1)
    block[2, 0] += g * va * m0
    block[2, 1] += g * va * n0
    block[2, 2] += g * va * vb * m0
    block[2, 3] += g * va * (o0 + cb * m0)
    block[3, 0] += g * (m2 + ca * m0)
    block[3, 1] += g * (n2 + ca * n0)
    block[3, 2] += g * vb * (m2 + ca * m0)
    block[3, 3] += g * (o2 + cb * m2 + ca * (o0 + cb * m0))


@compiled
def summed_pairs(lo, hi, indptr, indices, columns, weight, reach, ax, ay, out):
    """Write information blocks (n_pairs, 4, 4), summed over the pixels with their weights.

    For weights that differ within a column (Poisson). Columns have intensities of 1: what is
    written for others is multiplied by theirs. Along a row the derivatives are powers of the
    distance: five moments serve all of them.
    """
    ny, nx = weight.shape
    lines = np.empty((4, 2 * max(nx, ny) + 1), np.float32)
    power = np.empty((5, nx), np.float32)
    block = np.empty((4, 4))
    for a in range(lo, hi):
        xa, ya, sa = columns[a, 1], columns[a, 2], columns[a, 3]
        box = _window(xa, ya, reach * sa, ax, ay, (0, ny), nx, nx)
        x0, x1, y0, y1 = box
        size, left = np.uint64(x1 - x0), np.uint64(x0)
        if x1 == x0:
            for k in range(indptr[a], indptr[a + 1]):
                out[k] = 0.0
            continue
        px, py = _lines(lines[0], lines[1], box, (xa, ya), (ax, ay), sa)
        e, ey = lines[0, px:], lines[1, py:]
        for k in range(indptr[a], indptr[a + 1]):
            b = indices[k]
            xb, yb, sb = columns[b, 1], columns[b, 2], columns[b, 3]
            for m in range(4):
                for n in range(4):
                    block[m, n] = 0.0
            px, py = _lines(lines[2], lines[3], box, (xb, yb), (ax, ay), sb)
            f, fy = lines[2, px:], lines[3, py:]
            for i in range(size):
                u = np.float32(((x0 + i) * ax - xa) / sa)
                power[0, i] = e[i] * f[i]
                power[1, i] = power[0, i] * u
                power[2, i] = power[1, i] * u
                power[3, i] = power[2, i] * u
                power[4, i] = power[3, i] * u
            # the distance from b in its widths: p u + q
            p, q = sa / sb, (xa - xb) / sb
            for j in range(y0, y1):
                g = ey[j - y0] * fy[j - y0]
                if g < FAR:
                    continue
                row = weight[j]
                m0, m1, m2 = np.float32(0), np.float32(0), np.float32(0)
                m3, m4 = np.float32(0), np.float32(0)
                for i in range(size):
                    w = row[left + i]
                    m0 += w * power[0, i]
                    m1 += w * power[1, i]
                    m2 += w * power[2, i]
                    m3 += w * power[3, i]
                    m4 += w * power[4, i]
                va, vb = (j * ay - ya) / sa, (j * ay - yb) / sb
                _add_row(block, g, (m0, m1, m2, m3, m4), p, q, va, vb)
            norm = 1.0 / (4.0 * math.pi**2 * sa * sa * sb * sb)
            for m in range(4):
                for n in range(4):
                    scale = norm / (1.0 if m == 0 else sa) / (1.0 if n == 0 else sb)
                    out[k, m, n] = block[m, n] * scale
