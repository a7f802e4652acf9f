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
from stemdisp._vectors import (
    WIDE,
    gaussian,
    load_wide,
    ramp,
    spread_wide,
    store,
    total,
)

# Rows of pixels that see the same of the background, at most, and of how many rows of a piece of
# it they are one: functions with such small steps tell its coefficients as well (positions differ
# by 0.005 of their errors at most).
TOGETHER, FLAT = 4, 50


@inner
def window(x, y, r, ax, ay, rows, nx, room):
    """Columns and rows of pixels within `r` of a point, in the rows ``[rows[0], rows[1])``.

    Columns are widened to whole vectors where there is `room` for them in a row, of
    which `nx` are pixels. All 0 for an empty window.
    """
    y0 = max(rows[0], math.ceil((y - r) / ay))
    y1 = min(rows[1], math.floor((y + r) / ay) + 1)
    x0 = max(0, math.ceil((x - r) / ax))
    x1 = min(nx, math.floor((x + r) / ax) + 1)
    if x1 <= x0 or y1 <= y0:
        return 0, 0, 0, 0
    x0 = x0 // WIDE * WIDE
    width = min((x1 - x0 + WIDE - 1) // WIDE * WIDE, room)
    x0 = min(x0, room - width)
    return x0, x0 + width, y0, y1


@inner
def gaussian_line(out, n, start, step, s, factor):
    """Fill `n` places of `out`, whole vectors, with a Gaussian of width s times a factor.

    The first stands at the distance `start` from its middle, the others a `step` further each.
    """
    scale = 1.0 / s
    peak, ahead = spread_wide(np.float32(factor)), np.float32(step * scale)
    for i in range(0, n, WIDE):
        u = ramp(np.float32((start + i * step) * scale), ahead)
        store(out, i, peak * gaussian(u * u))


@inner
def _subtract_columns(out, nx, columns, lo, hi, rows, reach, ax, ay, ex, ey):
    """Take columns `lo` to `hi` off some rows, within `reach` widths; `ex`, `ey` are used up."""
    stride = np.uint64(out.shape[1])
    flat = out.reshape(out.size)
    for c in range(lo, hi):
        x, y, s = columns[c, 1], columns[c, 2], columns[c, 3]
        x0, x1, y0, y1 = window(x, y, reach * s, ax, ay, rows, nx, out.shape[1])
        if x1 == x0:
            continue
        gaussian_line(ex, x1 - x0, x0 * ax - x, ax, s, 1.0)
        gaussian_line(ey, y1 - y0, y0 * ay - y, ay, s, columns[c, 0] / (2.0 * math.pi * s * s))
        corner = np.uint64(y0) * stride + np.uint64(x0)
        n = np.uint64(y1 - y0)
        for i in range(0, x1 - x0, WIDE):
            at = corner + np.uint64(i)
            e = load_wide(ex, i)
            for j in range(n):
                store(flat, at, load_wide(flat, at) - spread_wide(ey[j]) * e)
                at += stride


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

    `weight` (ny, nx), or (0, 0) for ones. `out` is as wide as a number of whole vectors,
    and 0 beyond the image. `spline` is ``(edge_y, basis_y, edge_x, basis_x)`` of
    `Background`; `seen` (n_strips, n_ky, n_kx) receives the inner products of each strip.
    """
    edge_y, basis_y, edge_x, basis_x = spline
    ny, nx = image.shape
    n_strips = first.size - 1
    line, rows = np.empty(coefficients.shape[1], np.float32), np.empty(nx, np.float32)
    ex, ey = np.empty((2, max(nx, ny) + WIDE), np.float32)
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
        _subtract_columns(out, nx, columns, begin, end, (row0, row1), reach, ax, ay, ex, ey)
        for a in range(seen.shape[1]):
            for b in range(line.size):
                seen[strip, a, b] = 0.0
        for p in range(edge_y.size - 1):
            low, high = max(row0, int(edge_y[p])), min(row1, int(edge_y[p + 1]))
            together = max(1, min(TOGETHER, int(edge_y[p + 1] - edge_y[p]) // FLAT))
            for top in range(low, high, together):
                bottom = min(top + together, high)
                for i in range(nx):
                    rows[i] = np.float32(0)
                for j in range(top, bottom):
                    here = out[j]
                    for i in range(nx, out.shape[1]):
                        here[i] = np.float32(0)
                    if weight.size > 0:
                        factor = weight[j]
                        for i in range(nx):
                            here[i] *= factor[i]
                    for i in range(nx):
                        rows[i] += here[i]
                _project_row(rows, edge_x, basis_x, line)
                for k in range(4):
                    total_y = 0.0
                    for j in range(top, bottom):
                        total_y += basis_y[k, j]
                    for b in range(line.size):
                        seen[strip, p + k, b] += total_y / (bottom - top) * line[b]


@inner
def powers(out, n, start, step, s, factor):
    """Fill `n` places of the five lines of `out` with a line `factor` times powers of a distance.

    The first place is at the distance `start`, the others a `step` further each, in units of s.
    """
    scale = 1.0 / s
    ahead = np.float32(step * scale)
    for i in range(0, n, WIDE):
        w = ramp(np.float32((start + i * step) * scale), ahead)
        value = load_wide(factor, i)
        for k in range(5):
            store(out[k], i, value)
            value = value * w


@inner
def sum_columns(flat, at, stride, n, lines):
    """Sum `n` rows of a vector of pixels, times each of the five `lines`: five vectors."""
    f0, f1, f2, f3, f4 = lines[0], lines[1], lines[2], lines[3], lines[4]
    zero = spread_wide(np.float32(0))
    a, b, c, d, e = zero, zero, zero, zero, zero
    for j in range(n):
        p = load_wide(flat, at)
        a = a + p * spread_wide(f0[j])
        b = b + p * spread_wide(f1[j])
        c = c + p * spread_wide(f2[j])
        d = d + p * spread_wide(f3[j])
        e = e + p * spread_wide(f4[j])
        at += stride
    return a, b, c, d, e


@compiled
def project_columns(lo, hi, residual, nx, columns, first, reach, order, ax, ay, out):
    """Write <weighted derivative of column, residual> for V, x, y, s to `out` (n, 4).

    With ``t = u^2 + w^2``, the derivatives are the Gaussian times ``1, u, w, t - 2`` and, for
    order 1, minus their Laplacians: times ``2 - t, (4 - t) u, (4 - t) w, -(t^2 - 8 t + 8)``.
    Columns of pixels are summed first, with the Gaussian along y times powers of w; what depends
    on u follows once for each. `residual` is 0 beyond the `nx` columns of the image.
    """
    ny = residual.shape[0]
    stride = np.uint64(residual.shape[1])
    flat = residual.reshape(residual.size)
    ey, lines = np.empty(ny + WIDE, np.float32), np.empty((5, ny + WIDE), np.float32)
    zero, two = spread_wide(np.float32(0)), spread_wide(np.float32(2))
    four, eight = spread_wide(np.float32(4)), spread_wide(np.float32(8))
    # backwards: the last rows of a residual that was just written are still in the cache
    for k in range(first[hi] - 1, first[lo] - 1, -1):
        v, x, y, s = columns[k, 0], columns[k, 1], columns[k, 2], columns[k, 3]
        x0, x1, y0, y1 = window(x, y, reach * s, ax, ay, (0, ny), nx, residual.shape[1])
        gaussian_line(ey, y1 - y0, y0 * ay - y, ay, s, 1.0)
        powers(lines, y1 - y0, y0 * ay - y, ay, s, ey)
        corner = np.uint64(y0) * stride + np.uint64(x0)
        pv, px, py, ps = zero, zero, zero, zero
        for i in range(0, x1 - x0, WIDE):
            at = corner + np.uint64(i)
            a, b, c, d, e = sum_columns(flat, at, stride, np.uint64(y1 - y0), lines)
            u = ramp(np.float32(((x0 + i) * ax - x) / s), np.float32(ax / s))
            g = gaussian(u * u)
            if order == 0:
                pv = pv + g * a
                px = px + g * u * a
                py = py + g * b
                ps = ps + g * ((u * u - two) * a + c)
            else:
                q = four - u * u
                pv = pv + g * ((q - two) * a - c)
                px = px + g * u * (q * a - c)
                py = py + g * (q * b - d)
                ps = ps + g * ((eight - q * q) * a + (q + q) * c - e)
        norm = 1.0 / (2.0 * math.pi * s * s)
        if order == 1:
            norm /= s * s
        out[k, 0] = total(pv) * norm
        out[k, 1] = total(px) * norm * v / s
        out[k, 2] = total(py) * norm * v / s
        out[k, 3] = total(ps) * norm * v / s


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
    ex, ey = np.empty((2, max(nx, ny) + WIDE), np.float32)
    for c in range(first[lo], first[hi]):
        x, y, s = columns[c, 1], columns[c, 2], columns[c, 3]
        x0, x1, y0, y1 = window(x, y, reach * s, ax, ay, (0, ny), nx, nx)
        gaussian_line(ex, x1 - x0, x0 * ax - x, ax, s, 1.0)
        gaussian_line(ey, y1 - y0, y0 * ay - y, ay, s, 1.0)
        pv, px, py, ps, pg, pt = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for j in range(y0, y1):
            w2, g, g2 = ((j * ay - y) / s) ** 2, 0.0, 0.0
            m0, m2, m4, m6 = 0.0, 0.0, 0.0, 0.0  # moments of g^2 along the row
            for i in range(x0, x1):
                u2 = ((i * ax - x) / s) ** 2
                e = ex[i - x0] * weight[j, i]
                g += e
                g2 += e * u2
                e *= ex[i - x0]
                m0 += e
                m2 += e * u2
                m4 += e * u2 * u2
                m6 += e * u2 * u2 * u2
            here = ey[j - y0]
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


@compiled
def means_under(lo, hi, image, nx, at, s, reach, out):
    """Write the means of an image under Gaussians of width s at the points `at` (n, 2): x, y in px.

    `image` is 0 beyond its `nx` columns of pixels, in rows of whole vectors; beyond the border
    there is nothing, but the Gaussian counts.
    """
    stride, flat = np.uint64(image.shape[1]), image.reshape(image.size)
    ex, ey = np.empty((2, max(image.shape) + WIDE), np.float32)
    rows = (0, image.shape[0])
    for c in range(lo, hi):
        x, y = at[c, 0], at[c, 1]
        x0, x1, y0, y1 = window(x, y, reach * s, 1.0, 1.0, rows, nx, image.shape[1])
        gaussian_line(ex, x1 - x0, x0 - x, 1.0, s, 1.0)
        gaussian_line(ey, y1 - y0, y0 - y, 1.0, s, 1.0 / (2.0 * math.pi * s * s))
        value = spread_wide(np.float32(0))
        for i in range(0, x1 - x0, WIDE):
            place, e = np.uint64(y0) * stride + np.uint64(x0 + i), load_wide(ex, i)
            for j in range(np.uint64(y1 - y0)):
                value = value + load_wide(flat, place) * (spread_wide(ey[j]) * e)
                place += stride
        out[c] = total(value)


@compiled
def sum_blocks(lo, hi, flat, gap, ny, nx, block, out):
    """Write rows `lo` to `hi` of the sums over blocks of pixels; those at the end may be smaller.

    Rows of `nx` pixels begin `gap` pixels after each other in `flat`.
    """
    line = np.empty((nx + block - 1) // block * block, np.float32)
    for i in range(nx, line.size):
        line[i] = 0.0
    for row in range(lo, hi):
        begin, end = row * block, min((row + 1) * block, ny)
        part = flat[begin * gap : begin * gap + nx]
        for i in range(part.size):
            line[i] = part[i]
        for j in range(begin + 1, end):
            part = flat[j * gap : j * gap + nx]
            for i in range(part.size):
                line[i] += part[i]
        sums = out[row]
        if block == 2:
            for i in range(np.uint64(sums.size)):
                sums[i] = line[2 * i] + line[2 * i + np.uint64(1)]
        else:
            for i in range(sums.size):
                value = line[block * i]
                for k in range(block * i + 1, block * (i + 1)):
                    value += line[k]
                sums[i] = value


@compiled
def halve_tile(flat, gap, mean, taper, sides, out):
    """Write every second pixel of every second row of a tapered and smoothed tile to `out`.

    Rows of the tile begin `gap` pixels after each other in `flat`; `taper` (ny, nx) is 0 at its
    border. The filter weighs a pixel by 1/2 and those at distances of 1, 3, 5, ... along an axis by
    `sides`.
    """
    ny, nx = taper.shape
    half, far = nx // 2, sides.size
    n_kept, wide = 4 * far, (nx + WIDE - 1) // WIDE * WIDE
    kept = np.zeros((n_kept, wide), np.float32)  # the last rows of the tile
    flat_kept, done = kept.reshape(kept.size), 0
    line, odd = np.empty(wide, np.float32), np.zeros(half + 2 * far, np.float32)
    for row in range(0, ny, 2):
        while done < row + 2 * far:
            here = kept[done % n_kept]
            if done < ny:
                part, over = flat[done * gap : done * gap + nx], taper[done]
                for i in range(nx):
                    here[i] = (part[i] - mean) * over[i]
            else:
                here[:] = 0.0
            done += 1
        centre = np.uint64(row % n_kept * wide)
        for i in range(0, wide, WIDE):
            at = np.uint64(i)
            store(line, at, spread_wide(np.float32(0.5)) * load_wide(flat_kept, centre + at))
        for k in range(far):
            above = np.uint64((row - 2 * k - 1) % n_kept * wide)
            below = np.uint64((row + 2 * k + 1) % n_kept * wide)
            factor = spread_wide(sides[k])
            for i in range(0, wide, WIDE):
                at = np.uint64(i)
                both = load_wide(flat_kept, above + at) + load_wide(flat_kept, below + at)
                store(line, at, load_wide(line, at) + factor * both)
        here = out[row // 2]
        for i in range(np.uint64(half)):
            here[i] = np.float32(0.5) * line[2 * i]
            odd[i + np.uint64(far)] = line[2 * i + np.uint64(1)]
        for k in range(far):
            before, after = odd[far - 1 - k : far - 1 - k + half], odd[far + k : far + k + half]
            for i in range(half):
                here[i] += sides[k] * (before[i] + after[i])
