"""Compiled loops over pairs of columns: who is near, information, normal equations.

The overlap of two Gaussians, with derivatives and Laplacians, has a closed form: no pixel is
touched here. Parameters of a column are ordered ``V, x, y, s``; ``order`` is the metric (see
`_kernels`). Neighbour lists are in CSR form and hold each column itself. What pixels weigh enters
by the square roots of their mean as each parameter sees them: blocks are scaled by these
from both sides, which keeps the whole matrix positive.
"""

from __future__ import annotations

import math

import numpy as np

from stemdisp._compiled import compiled, inner
from stemdisp._small import invert
from stemdisp._vectors import LANES, gaussian, load, spread, store, turn


@compiled
def near_pairs(xy, first, radius, indptr, indices):
    """List the columns nearer than `radius` to each, itself among them, in CSR form.

    Columns (n, 2) are sorted by strips, which are at least so high, and by x within each. Gives the
    number of pairs; all are listed if that is less than the size of `indices`.
    """
    count, n_strips, last = 0, first.size - 1, indices.size - 1
    start = np.empty(3, np.int64)  # in the strip before, this one and the next: nobody is nearer
    for strip in range(n_strips):
        for k in range(3):
            start[k] = first[min(max(strip - 1 + k, 0), n_strips)]
        for a in range(first[strip], first[strip + 1]):
            indptr[a] = count
            x, y = xy[a, 0], xy[a, 1]
            for other in range(max(strip - 1, 0), min(strip + 2, n_strips)):
                begin, end = start[other - strip + 1], first[other + 1]
                while begin < end and xy[begin, 0] < x - radius:
                    begin += 1
                start[other - strip + 1] = begin
                for b in range(begin, end):
                    dx, dy = xy[b, 0] - x, xy[b, 1] - y
                    if dx > radius:
                        break
                    # written over by the next one if this is too far
                    indices[min(count, last)] = b
                    count += dx * dx + dy * dy < radius * radius
    indptr[indptr.size - 1] = count
    return count


@compiled
def closer_pairs(indptr, indices, columns, radius, new_indptr, new_indices):
    """Keep the pairs closer than `radius`."""
    count = np.uint64(0)
    for a in range(np.uint64(indptr.size - 1)):
        new_indptr[a] = count
        x, y = columns[a, 1], columns[a, 2]
        for k in range(np.uint64(indptr[a]), np.uint64(indptr[a + np.uint64(1)])):
            b = np.uint64(indices[k])
            dx, dy = x - columns[b, 1], y - columns[b, 2]
            new_indices[count] = b  # written over by the next one if this is too far
            count += np.uint64(dx * dx + dy * dy < radius * radius)
    new_indptr[indptr.size - 1] = count


@compiled
def nearest_column(lo, hi, indptr, indices, columns, nearest):
    """Write the distance of each column to the nearest other one in the list."""
    for a in range(lo, hi):
        least = np.inf
        for k in range(indptr[a], indptr[a + 1]):
            b = indices[k]
            dx, dy = columns[a, 1] - columns[b, 1], columns[a, 2] - columns[b, 2]
            least = min(least, dx * dx + dy * dy if a != b else np.inf)
        nearest[a] = math.sqrt(least)


@inner
def _pair(a, b, order, block):
    """Fill `block` (4, 4) with <d_p column a, weight, d_q column b>.

    The overlap of two normalised Gaussians is a Gaussian of variance sa^2 + sb^2 in their
    distance; derivatives with respect to a position differentiate it, those with respect to a
    width apply s * Laplacian (heat equation). With ``t = r^2 / s^2``,

        lap g = (t - 2) g / s^2,  lap^2 g = (t^2 - 8t + 8) g / s^4,
        lap^3 g = (t^3 - 18t^2 + 72t - 48) g / s^6.
    """
    va, sa, vb, sb = a[0], a[3], b[0], b[3]
    dx, dy = a[1] - b[1], a[2] - b[2]
    i2 = 1.0 / (sa * sa + sb * sb)
    t = (dx * dx + dy * dy) * i2
    gam = i2 / (2.0 * math.pi) * math.exp(-0.5 * t)
    if order == 0:
        f0 = gam
        f1 = (t - 2.0) * i2 * gam
        f2 = (t * t - 8.0 * t + 8.0) * i2 * i2 * gam
        a0, b0 = -i2 * gam, i2 * i2 * gam
        a1 = (4.0 - t) * i2 * i2 * gam
    else:
        f0 = -(t - 2.0) * i2 * gam
        f1 = -(t * t - 8.0 * t + 8.0) * i2 * i2 * gam
        f2 = -(t * t * t - 18.0 * t * t + 72.0 * t - 48.0) * i2 * i2 * i2 * gam
        a0, b0 = -(4.0 - t) * i2 * i2 * gam, -(t - 6.0) * i2 * i2 * i2 * gam
        a1 = -(-t * t + 12.0 * t - 24.0) * i2 * i2 * i2 * gam
    block[0, 0] = f0
    block[0, 1] = -vb * dx * a0
    block[0, 2] = -vb * dy * a0
    block[0, 3] = vb * sb * f1
    block[1, 0] = va * dx * a0
    block[2, 0] = va * dy * a0
    block[3, 0] = va * sa * f1
    vv = va * vb
    block[1, 1] = -vv * (a0 + dx * dx * b0)
    block[1, 2] = -vv * dx * dy * b0
    block[2, 1] = block[1, 2]
    block[2, 2] = -vv * (a0 + dy * dy * b0)
    block[1, 3] = vv * sb * dx * a1
    block[2, 3] = vv * sb * dy * a1
    block[3, 1] = -vv * sa * dx * a1
    block[3, 2] = -vv * sa * dy * a1
    block[3, 3] = vv * sa * sb * f2


@compiled
def pair_information(indptr, indices, columns, root, order):
    """Information blocks (n_pairs, 4, 4) of all pairs of the neighbour list."""
    out = np.empty((indices.size, 4, 4))
    for a in range(indptr.size - 1):
        for k in range(indptr[a], indptr[a + 1]):
            b = indices[k]
            _pair(columns[a], columns[b], order, out[k])
            for m in range(4):
                for n in range(4):
                    out[k, m, n] *= root[a, m] * root[b, n]
    return out


@compiled
def column_factors(lo, hi, columns, root, out):
    """Write what `normal_rows` needs of each column: see its `seen`.

    The derivatives by V, x, y, s are those of a Gaussian of intensity 1 (for s: of width 1) times
    ``1, V, V, V s``, and times the `root` (n, 4) of what the pixels weigh for each.
    """
    for c in range(lo, hi):
        v, s = columns[c, 0], columns[c, 3]
        out[c, 0] = s
        out[c, 1], out[c, 2], out[c, 3] = root[c, 0], root[c, 1] * v, root[c, 2] * v
        out[c, 4] = root[c, 3] * v * s
        out[c, 5], out[c, 6], out[c, 7] = columns[c, 1], columns[c, 2], 0.0


@inner
def _eight_pairs(a, others, seen, order, free, lanes, edge, rows):
    """Write the information between a column and up to eight others, by the formulas of `_pair`.

    What belongs to the parameters of one column is in `seen` (see `normal_rows`). The blocks go
    to `rows` (8, 16); what they hold for the others' widths to `edge` (4, 8), and to
    the blocks only where it is multiplied by `free`. `lanes` (8, 8) is used up.
    """
    read, table = lanes.reshape(64), seen.reshape(seen.size)
    out, last = rows.reshape(128), edge.reshape(32)
    own = seen[a]
    for n in range(LANES):
        b = others[n] if n < others.size else others[0]
        store(read, 8 * n, load(table, 8 * b))
    s, b0, b1, b2, b3, x, y, _ = turn((
        load(read, 0), load(read, 8), load(read, 16), load(read, 24),
        load(read, 32), load(read, 40), load(read, 48), load(read, 56),
    ))  # fmt: skip
    dx, dy = spread(own[5]) - x, spread(own[6]) - y
    a0, a1, a2, a3 = spread(own[1]), spread(own[2]), spread(own[3]), spread(own[4])
    zero, two, eight = spread(np.float32(0)), spread(np.float32(2)), spread(np.float32(8))
    i2 = spread(np.float32(1)) / (s * s + spread(own[0] * own[0]))
    t = (dx * dx + dy * dy) * i2
    f0 = gaussian(t) * i2 * spread(np.float32(0.5 / math.pi))
    f1 = f0 * i2
    f2 = f1 * i2
    if order == 0:
        g0, h0, g1 = zero - f1, f2, (two + two - t) * f2
        f1, f2 = (t - two) * f1, ((t - eight) * t + eight) * f2
    else:
        f3, six, many = f2 * i2, two + two + two, spread(np.float32(18))
        g0, h0 = (t - two - two) * f2, (six - t) * f3
        g1 = ((t - six - six) * t + eight + eight + eight) * f3
        f0, f1 = (two - t) * f1, ((eight - t) * t - eight) * f2
        f2 = (six * eight + t * ((many - t) * t - six * (six + six))) * f3
    gx, gy, hx, hy = dx * g0, dy * g0, dx * h0, dy * h0
    w0, w1, w2, w3 = a0 * b3 * f1, a1 * b3 * dx * g1, a2 * b3 * dy * g1, a3 * b3 * f2
    store(last, 0, w0)
    store(last, 8, w1)
    store(last, 16, w2)
    store(last, 24, w3)
    a3 = a3 * free
    upper = turn((
        a0 * b0 * f0, zero - a0 * b1 * gx, zero - a0 * b2 * gy, w0 * free,
        a1 * b0 * gx, zero - a1 * b1 * (g0 + dx * hx), zero - a1 * b2 * dx * hy, w1 * free,
    ))  # fmt: skip
    lower = turn((
        a2 * b0 * gy, zero - a2 * b1 * dx * hy, zero - a2 * b2 * (g0 + dy * hy), w2 * free,
        a3 * b0 * f1, zero - a3 * b1 * dx * g1, zero - a3 * b2 * dy * g1, w3 * free,
    ))  # fmt: skip
    for n in range(LANES):  # written out by the compiler
        store(out, 16 * n, upper[n])
        store(out, 16 * n + 8, lower[n])


@compiled
def normal_rows(
    lo, hi, indptr, indices, columns, seen, summed, group, prior, hold, order,
    blocks, damping, inverse, border, corner, response,
):  # fmt: skip
    """Write the rows `lo` to `hi` of the normal equations.

    Parameters
    ----------
    seen : ndarray of float32, shape (n, 8)
        Width, and by what each column multiplies the derivatives by V, x, y, s of a Gaussian of
        intensity 1 (for s: of width 1); then x and y; the last is not used.
    summed : ndarray of float32, shape (n_pairs, 4, 4) or (0, 4, 4)
        From `_summed`: information for intensities of 1, instead of closed forms.
    group : ndarray of int, shape (n,)
        Which columns share a width. With no groups (`border` has none) each has its own; else
        the fourth parameter of a column is idle.
    prior : ndarray, shape (n, 4)
        Information from elsewhere: belongs to the diagonal of each column's own block.
    hold : ndarray, shape (n, 2)
        What keeps steps short: share of that diagonal that is added to it; what is added to the
        information on positions.
    blocks : ndarray of float32, shape (n_pairs, 4, 4)
        Out: between columns, what the image tells.
    damping, inverse : ndarray of float32, shape (n, 4), (n, 4, 4)
        Out: prior and what keeps steps short; inverse of the columns' own blocks with these.
    border, corner : ndarray, shape (n, 4, n_groups), (n, n_groups)
        Out: between the columns' parameters and shared widths; between their own share of the
        widths and shared widths.
    response : ndarray, shape (n, 4, n_groups)
        Out: `inverse` times `border`.
    """
    n_groups = border.shape[2]
    free = spread(np.float32(n_groups == 0))
    lanes, edge = np.empty((8, 8), np.float32), np.empty((4, 8), np.float32)
    rows = np.empty((8, 16), np.float32)
    whole, ready = blocks.reshape(blocks.size), rows.reshape(rows.size)
    own = np.empty((4, 4))
    for a in range(lo, hi):
        for g in range(n_groups):
            corner[a, g] = 0.0
            for m in range(4):
                border[a, m, g] = 0.0
        for begin in range(indptr[a], indptr[a + 1], LANES):
            end = min(begin + LANES, indptr[a + 1])
            if summed.size == 0:
                _eight_pairs(a, indices[begin:end], seen, order, free, lanes, edge, rows)
            else:
                for k in range(begin, end):
                    va, vb = columns[a, 0], columns[indices[k], 0]
                    for m in range(4):
                        for n in range(4):
                            value = summed[k, m, n] * (va if m > 0 else 1.0)
                            rows[k - begin, 4 * m + n] = value * (vb if n > 0 else 1.0)
                        edge[m, k - begin] = rows[k - begin, 4 * m + 3]
                    if n_groups > 0:
                        for m in range(4):
                            rows[k - begin, 4 * m + 3] = rows[k - begin, 12 + m] = 0.0
            for k in range(begin, end):
                b = indices[k]
                store(whole, 16 * k, load(ready, 16 * (k - begin)))
                store(whole, 16 * k + 8, load(ready, 16 * (k - begin) + 8))
                if n_groups > 0:
                    corner[a, group[b]] += edge[3, k - begin]
                    for m in range(3):
                        border[a, m, group[b]] += edge[m, k - begin]
                if a == b:
                    for m in range(4):
                        for n in range(4):
                            own[m, n] = rows[k - begin, 4 * m + n]
                    if n_groups > 0:
                        own[3, 3] = 1.0
                    blocks[k, 3, 3] = own[3, 3]
                    for m in range(4):
                        more = prior[a, m] + hold[a, 0] * (own[m, m] + prior[a, m])
                        damping[a, m] = more + (hold[a, 1] if m == 1 or m == 2 else 0.0)
                        own[m, m] += damping[a, m]
                    invert(own, inverse[a])
        for g in range(n_groups):
            for m in range(4):
                total = 0.0
                for n in range(4):
                    total += inverse[a, m, n] * border[a, n, g]
                response[a, m, g] = total
