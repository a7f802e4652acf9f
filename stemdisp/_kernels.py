"""Compiled loops over pixels: plain arrays, no units, no decisions.

A column is ``V * g(r - r0)`` with the area-normalised Gaussian ``g`` of width ``s``; an array
``columns`` (n, 4) holds ``V, x, y, s``. Lengths are in square pixels: pixel (j, i) of an image
lies at ``(i * ax, j * ay)`` with ``ax * ay = 1``. ``order`` says in which metric the fit is made:
0 for white noise, 1 for noise with a 1/k^2 spectrum, where the efficient weight is minus the
Laplacian (least squares on the gradient).

Columns are sorted by strips of rows; ``first`` (n_strips + 1,) says where the columns of each
strip begin, and none reaches beyond the strips next to its own. A kernel does the strips ``lo`` to
``hi``: what it writes for one strip depends on nothing that is written for another, so results
do not depend on how the strips are shared among threads.

Indices of inner loops are unsigned: negative ones would be looked for, which hinders vectors.
"""

from __future__ import annotations

import math

import numpy as np

from stemdisp._compiled import compiled, inner

SMALL, TERMS = 0.13, 10  # argument and terms with which a series of exp is good to 1e-16
LANES = 8  # pixels that are added in one go


@inner
def _exp(x):
    """Give exp(x); the series where it is as good, since most arguments are next to nothing."""
    if abs(x) > SMALL:
        return math.exp(x)
    value = 1.0
    for k in range(TERMS, 0, -1):
        value = 1.0 + x * value / k
    return value


@inner
def _lines(ex, ey, box, at, steps, s):
    """Fill `ex`, `ey` with ``exp(-d^2 / (2 s^2))``, d the distance from a point along x and y.

    Returns where in them the first column and the first row of pixels of `box` stand. Both must
    hold twice the longer side of the image and one more: from the pixel next to the point, in the
    middle, four recurrences go outwards as far as the farthest needs (one loop is less to compile
    than four). Outwards the ratio of neighbours only falls.
    """
    x0, x1, y0, y1 = box
    ax, ay = steps
    middle = ex.size // 2
    near_x = min(max(math.floor(at[0] / ax + 0.5), x0), x1 - 1)
    near_y = min(max(math.floor(at[1] / ay + 0.5), y0), y1 - 1)
    i2 = 1.0 / (s * s)
    dx, dy = near_x * ax - at[0], near_y * ay - at[1]
    fall_x = math.exp(-ax * ax * i2)
    fall_y = fall_x if ax == ay else math.exp(-ay * ay * i2)
    right = left = _exp(-0.5 * dx * dx * i2)
    down = up = _exp(-0.5 * dy * dy * i2)
    to_right, to_down = _exp(-(dx + 0.5 * ax) * ax * i2), _exp(-(dy + 0.5 * ay) * ay * i2)
    to_left, to_up = fall_x / to_right, fall_y / to_down
    ex[middle], ey[middle] = left, up
    most = max(max(near_x - x0, x1 - 1 - near_x), max(near_y - y0, y1 - 1 - near_y))
    for i in range(1, most + 1):
        right *= to_right
        left *= to_left
        down *= to_down
        up *= to_up
        to_right *= fall_x
        to_left *= fall_x
        to_down *= fall_y
        to_up *= fall_y
        ex[middle + i], ex[middle - i] = right, left
        ey[middle + i], ey[middle - i] = down, up
    return middle - (near_x - x0), middle - (near_y - y0)


@inner
def _window(x, y, r, ax, ay, rows, nx):
    """Columns and rows of pixels within `r` of a point, in the rows ``[rows[0], rows[1])``.

    Columns are widened to a multiple of LANES, where the image is that wide: loops over whole
    vectors leave nothing to scalar code. All 0 for an empty window.
    """
    y0 = max(rows[0], math.ceil((y - r) / ay))
    y1 = min(rows[1], math.floor((y + r) / ay) + 1)
    x0 = max(0, math.ceil((x - r) / ax))
    x1 = min(nx, math.floor((x + r) / ax) + 1)
    if x1 <= x0 or y1 <= y0:
        return 0, 0, 0, 0
    width = min((x1 - x0 + LANES - 1) // LANES * LANES, nx)
    x0 = min(x0, nx - width)
    return x0, x0 + width, y0, y1


@inner
def _subtract_columns(out, columns, lo, hi, rows, reach, ax, ay, ex, ey):
    """Take columns `lo` to `hi` off some rows, within `reach` widths; `ex`, `ey` are used up."""
    for c in range(lo, hi):
        x, y, s = columns[c, 1], columns[c, 2], columns[c, 3]
        box = _window(x, y, reach * s, ax, ay, rows, out.shape[1])
        x0, x1, y0, y1 = box
        if x1 == x0:
            continue
        px, py = _lines(ex, ey, box, (x, y), (ax, ay), s)
        line = ex[px:]
        peak = np.float32(columns[c, 0] / (2.0 * math.pi * s * s))
        left = np.uint64(x0)
        m = np.uint64(x1 - x0)
        for j in range(y0, y1):
            row, a = out[j], peak * ey[py + j - y0]
            for i in range(m):
                row[left + i] -= a * line[i]


@inner
def _subtract_surface(out, image, edge, basis, line):
    """Write a row of the image minus the background; `line` holds the spline along this row."""
    for p in range(edge.size - 1):
        c0, c1, c2, c3 = line[p], line[p + 1], line[p + 2], line[p + 3]
        for i in range(edge[p], edge[p + 1]):
            surface = c0 * basis[0, i] + c1 * basis[1, i] + c2 * basis[2, i] + c3 * basis[3, i]
            out[i] = image[i] - surface


@inner
def _project_row(row, edge, basis, line):
    """Write the inner products of a row with the spline's functions along it to `line`."""
    for b in range(line.size):
        line[b] = np.float32(0)
    for p in range(edge.size - 1):
        s0, s1, s2, s3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for i in range(edge[p], edge[p + 1]):
            s0 += row[i] * basis[0, i]
            s1 += row[i] * basis[1, i]
            s2 += row[i] * basis[2, i]
            s3 += row[i] * basis[3, i]
        line[p] += s0
        line[p + 1] += s1
        line[p + 2] += s2
        line[p + 3] += s3


@compiled
def residual_strips(
    lo, hi, image, weight, columns, first, height, reach, ax, ay, coefficients, spline, out, seen
):
    """Write (image - background - columns) * weight to `out`, and what the background sees of it.

    `weight` (ny, nx), or (0, 0) for ones. `spline` is ``(edge_y, basis_y, edge_x, basis_x)`` of
    `Background`; `seen` (n_strips, n_ky, n_kx) receives the inner products of each strip.
    """
    edge_y, basis_y, edge_x, basis_x = spline
    ny, nx = image.shape
    n_strips = first.size - 1
    line = np.empty(coefficients.shape[1], np.float32)
    ex, ey = np.empty((2, 2 * max(nx, ny) + 1), np.float32)
    for strip in range(lo, hi):
        row0, row1 = strip * height, (strip + 1) * height if strip + 1 < n_strips else ny
        for p in range(edge_y.size - 1):
            for j in range(max(row0, int(edge_y[p])), min(row1, int(edge_y[p + 1]))):
                for b in range(line.size):
                    value = 0.0
                    for k in range(4):
                        value += basis_y[k, j] * coefficients[p + k, b]
                    line[b] = value
                _subtract_surface(out[j], image[j], edge_x, basis_x, line)
        begin, end = first[max(strip - 1, 0)], first[min(strip + 2, n_strips)]
        _subtract_columns(out, columns, begin, end, (row0, row1), reach, ax, ay, ex, ey)
        for a in range(seen.shape[1]):
            for b in range(line.size):
                seen[strip, a, b] = 0.0
        for p in range(edge_y.size - 1):
            for j in range(max(row0, int(edge_y[p])), min(row1, int(edge_y[p + 1]))):
                if weight.size > 0:
                    here, factor = out[j], weight[j]
                    for i in range(nx):
                        here[i] *= factor[i]
                _project_row(out[j], edge_x, basis_x, line)
                for k in range(4):
                    for b in range(line.size):
                        seen[strip, p + k, b] += basis_y[k, j] * line[b]


@inner
def _tabulate(table, m, ex, x0, ax, x, s, order):
    """Fill the factors along x of the derivatives of a column: powers of the distance u.

    With ``t = u^2 + w^2``, the derivatives are the Gaussian times ``1, u, w, t - 2`` and, for
    order 1, minus their Laplacians: times ``2 - t, (4 - t) u, (4 - t) w, -(t^2 - 8 t + 8)``.
    """
    scale = 1.0 / s
    for i in range(m):
        e, u = ex[i], np.float32(((x0 + i) * ax - x) * scale)
        if order == 0:
            table[0, i], table[1, i], table[2, i] = e, e * u, e
            table[3, i], table[4, i] = e * (u * u - np.float32(2)), e
            table[5, i], table[6, i] = np.float32(0), np.float32(0)
        else:
            q = np.float32(4) - u * u
            table[0, i], table[1, i], table[2, i] = e * (q - np.float32(2)), e * u * q, e * q
            table[3, i], table[4, i] = e * (np.float32(8) - q * q), e * (q + q)
            table[5, i], table[6, i] = e, e * u


@inner
def _project_rows(residual, rows, x0, m, f, t, sums):
    """Add what four rows contribute to the four inner products of a column.

    Columns of pixels are summed first: ``f[n, k]`` is the Gaussian along y times the n-th power
    of the distance w of row k. The factors along x (`t`) follow in the same loop, so that
    nothing is stored in between.
    """
    r0, r1, r2, r3 = residual[rows[0]], residual[rows[1]], residual[rows[2]], residual[rows[3]]
    a0, a1, a2, a3 = f[0, 0], f[0, 1], f[0, 2], f[0, 3]
    b0, b1, b2, b3 = f[1, 0], f[1, 1], f[1, 2], f[1, 3]
    c0, c1, c2, c3 = f[2, 0], f[2, 1], f[2, 2], f[2, 3]
    d0, d1, d2, d3 = f[3, 0], f[3, 1], f[3, 2], f[3, 3]
    e0, e1, e2, e3 = f[4, 0], f[4, 1], f[4, 2], f[4, 3]
    pv, px, py, ps = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    for i in range(m):
        p0, p1, p2, p3 = r0[x0 + i], r1[x0 + i], r2[x0 + i], r3[x0 + i]
        a = a0 * p0 + a1 * p1 + a2 * p2 + a3 * p3
        b = b0 * p0 + b1 * p1 + b2 * p2 + b3 * p3
        c = c0 * p0 + c1 * p1 + c2 * p2 + c3 * p3
        d = d0 * p0 + d1 * p1 + d2 * p2 + d3 * p3
        e = e0 * p0 + e1 * p1 + e2 * p2 + e3 * p3
        pv += t[0, i] * a - t[5, i] * c
        px += t[1, i] * a - t[6, i] * c
        py += t[2, i] * b - t[5, i] * d
        ps += t[3, i] * a + t[4, i] * c - t[5, i] * e
    sums[0] += pv
    sums[1] += px
    sums[2] += py
    sums[3] += ps


@compiled
def project_columns(lo, hi, residual, columns, first, reach, order, ax, ay, out):
    """Write <weighted derivative of column, residual> for V, x, y, s to `out` (n, 4)."""
    ny, nx = residual.shape
    ex, ey = np.empty((2, 2 * max(nx, ny) + 1), np.float32)
    table = np.empty((7, nx), np.float32)
    powers, sums = np.empty((5, 4), np.float32), np.empty(4, np.float32)
    for c in range(first[lo], first[hi]):
        v, x, y, s = columns[c, 0], columns[c, 1], columns[c, 2], columns[c, 3]
        for k in range(4):
            sums[k] = np.float32(0)
        box = _window(x, y, reach * s, ax, ay, (0, ny), nx)
        x0, x1, y0, y1 = box
        m, py, scale = np.uint64(x1 - x0), 0, 1.0 / s
        if x1 > x0:
            px, py = _lines(ex, ey, box, (x, y), (ax, ay), s)
            _tabulate(table, m, ex[px:], x0, ax, x, s, order)
        last = y1 - 1
        for j in range(y0, y1, 4):
            for k in range(4):
                w = np.float32(((j + k) * ay - y) * scale)
                power = ey[py + j + k - y0] if j + k < y1 else np.float32(0)
                for n in range(5):
                    powers[n, k] = power
                    power *= w
            rows = (j, min(j + 1, last), min(j + 2, last), min(j + 3, last))
            _project_rows(residual, rows, np.uint64(x0), m, powers, table, sums)
        norm = 1.0 / (2.0 * math.pi * s * s)
        if order == 1:
            norm /= s * s
        out[c, 0] = sums[0] * norm
        out[c, 1] = sums[1] * norm * v / s
        out[c, 2] = sums[2] * norm * v / s
        out[c, 3] = sums[3] * norm * v / s


@compiled
def seen_weight(lo, hi, weight, columns, first, reach, order, ax, ay, out):
    """Write the mean weight of the pixels as V, x, y, s of each column and as a column see them.

    `out` (n, 6): means weighted by the information that each pixel holds, and by the column itself;
    last the sum of the weights times the derivative of a column of intensity 1 by log s. Pixels
    beyond the border weigh nothing. With g the Gaussian in units of its width and
    t = u^2 + w^2, the information is g^2 times ``1, u^2, w^2, (t - 2)^2`` (order 0), or times
    ``t, (u^2 - 1)^2 + u^2 w^2, ..., t (t - 4)^2`` (order 1: squared gradients of the same).
    """
    ny, nx = weight.shape
    ex, ey = np.empty((2, 2 * max(nx, ny) + 1), np.float32)
    for c in range(first[lo], first[hi]):
        x, y, s = columns[c, 1], columns[c, 2], columns[c, 3]
        box = _window(x, y, reach * s, ax, ay, (0, ny), nx)
        x0, x1, y0, y1 = box
        left, top = 0, 0
        if x1 > x0:
            left, top = _lines(ex, ey, box, (x, y), (ax, ay), s)
        pv, px, py, ps, pg, pt = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for j in range(y0, y1):
            w2, g, g2 = ((j * ay - y) / s) ** 2, 0.0, 0.0
            m0, m2, m4, m6 = 0.0, 0.0, 0.0, 0.0  # moments of g^2 along the row
            for i in range(x0, x1):
                u2 = ((i * ax - x) / s) ** 2
                e = ex[left + i - x0] * weight[j, i]
                g += e
                g2 += e * u2
                e *= ex[left + i - x0]
                m0 += e
                m2 += e * u2
                m4 += e * u2 * u2
                m6 += e * u2 * u2 * u2
            here = ey[top + j - y0]
            pg += here * g
            pt += here * (g2 + (w2 - 2.0) * g)
            e = here * here
            if order == 0:
                pv += e * m0
                px += e * m2 * 2.0
                py += e * m0 * w2 * 2.0
                ps += e * (m4 + (2.0 * w2 - 4.0) * m2 + (w2 - 2.0) ** 2 * m0) / 2.0
            else:
                pv += e * (m2 + w2 * m0)
                px += e * (m4 + (w2 - 2.0) * m2 + m0)
                py += e * ((w2 - 1.0) ** 2 * m0 + w2 * m2)
                ps += (
                    e
                    * (
                        m6
                        + (3.0 * w2 - 8.0) * m4
                        + (3.0 * w2 * w2 - 16.0 * w2 + 16.0) * m2
                        + w2 * (w2 - 4.0) ** 2 * m0
                    )
                    / 6.0
                )
        # over the whole plane each of these sums is pi s^2
        norm = 1.0 / (math.pi * s * s)
        out[c, 0], out[c, 1], out[c, 2], out[c, 3] = pv * norm, px * norm, py * norm, ps * norm
        out[c, 4], out[c, 5] = 0.5 * pg * norm, 0.5 * pt * norm
