"""Compiled loops over pairs of columns: information, normal equations, covariances.

The overlap of two Gaussians, with derivatives and Laplacians, has a closed form: no pixel is
touched here. Parameters of a column are ordered ``V, x, y, s``; ``order`` is the metric (see
`_kernels`). Neighbour lists are in CSR form and hold each column itself. `root` (n, 4) are the
square roots of the mean weight of the pixels that each parameter sees; blocks are scaled by them
from both sides, which keeps the whole matrix positive.
"""

from __future__ import annotations

import math

import numpy as np

from stemdisp._compiled import compiled, inner

BATCH = 128  # columns whose sums are taken together, whatever thread does them
U0, U1, U2, U3 = (np.uint64(n) for n in range(4))


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


@inner
def _invert(matrix, out):
    """Inverse of a small positive matrix (p, p) by Gauss-Jordan steps; `matrix` is used up."""
    p = matrix.shape[0]
    for m in range(p):
        for n in range(p):
            out[m, n] = 1.0 if m == n else 0.0
    for k in range(p):
        scale = 1.0 / matrix[k, k]
        for n in range(p):
            matrix[k, n] *= scale
            out[k, n] *= scale
        for m in range(p):
            if m != k:
                factor = matrix[m, k]
                for n in range(p):
                    matrix[m, n] -= factor * matrix[k, n]
                    out[m, n] -= factor * out[k, n]


@compiled
def normal_rows(
    lo, hi, indptr, indices, columns, root, summed, group, extra, hold, order,
    blocks, inverse, border, corner, response,
):  # fmt: skip
    """Write the rows `lo` to `hi` of the normal equations.

    Parameters
    ----------
    summed : ndarray of float32, shape (n_pairs, 4, 4) or (0, 4, 4)
        From `_summed`: information for intensities of 1, instead of closed forms.
    group : ndarray of int, shape (n,)
        Which columns share a width. With no groups (`border` has none) each has its own; else
        the fourth parameter of a column is idle.
    extra : ndarray, shape (n, 4)
        Added to the diagonal of each column's own block.
    hold : ndarray, shape (n,)
        Share of that diagonal that is added to it.
    blocks : ndarray of float32, shape (n_pairs, 4, 4)
        Out: between columns.
    inverse : ndarray of float32, shape (n, 4, 4)
        Out: of the columns' own blocks.
    border, corner : ndarray, shape (n, 4, n_groups), (n, n_groups)
        Out: between the columns' parameters and shared widths; between their own share of the
        widths and shared widths.
    response : ndarray, shape (n, 4, n_groups)
        Out: `inverse` times `border`.
    """
    n_groups = border.shape[2]
    block = np.empty((4, 4))
    for a in range(lo, hi):
        for g in range(n_groups):
            corner[a, g] = 0.0
            for m in range(4):
                border[a, m, g] = 0.0
        for k in range(indptr[a], indptr[a + 1]):
            b = indices[k]
            if summed.size == 0:
                _pair(columns[a], columns[b], order, block)
                for m in range(4):
                    for n in range(4):
                        block[m, n] *= root[a, m] * root[b, n]
            else:
                for m in range(4):
                    for n in range(4):
                        block[m, n] = summed[k, m, n]
                for m in range(1, 4):
                    for n in range(4):
                        block[m, n] *= columns[a, 0]
                        block[n, m] *= columns[b, 0]
            if n_groups > 0:
                corner[a, group[b]] += block[3, 3]
                for m in range(3):
                    border[a, m, group[b]] += block[m, 3]
                for m in range(4):
                    block[m, 3] = block[3, m] = 0.0
                block[3, 3] = 1.0 if a == b else 0.0
            if a == b:
                for m in range(4):
                    block[m, m] += extra[a, m] + hold[a] * block[m, m]
            for m in range(4):
                for n in range(4):
                    blocks[k, m, n] = block[m, n]
            if a == b:
                _invert(block, inverse[a])
        for g in range(n_groups):
            for m in range(4):
                total = 0.0
                for n in range(4):
                    total += inverse[a, m, n] * border[a, n, g]
                response[a, m, g] = total


@compiled
def turn_rows(lo, hi, better, response, inverse, low, shade, share, along):
    """Write the next direction of conjugate gradients, (n, 4), from the one before in `along`.

    `better` are the residuals times `inverse`; `low` (n_groups,) is what the shared widths and
    `shade` (n or 0,) what the background under each column takes from them.
    """
    for a in range(lo, hi):
        for m in range(4):
            value = better[a, m]
            for g in range(low.size):
                value -= response[a, m, g] * low[g]
            if shade.size > 0:
                value -= inverse[a, m, 0] * shade[a]
            along[a, m] = value + share * along[a, m]


@compiled
def multiply_rows(lo, hi, indptr, indices, blocks, border, widths, shade, vector, out, sums):
    """Write batches `lo` to `hi` of the rows of the matrix times a vector to `out` (n, 4).

    `vector` (n, 4) belongs to the columns, `widths` (n_groups,) to what they share, `shade`
    (n or 0,) is the background under each. `sums` (n_batches, 1 + n_groups) receives the batch's
    share of the product with the vector itself, and of that with the transposed `border`.
    """
    for batch in range(lo, hi):
        for g in range(sums.shape[1]):
            sums[batch, g] = 0.0
        for a in range(batch * BATCH, min((batch + 1) * BATCH, indptr.size - 1)):
            s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
            for k in range(indptr[a], indptr[a + 1]):
                b = indices[k]
                for n in range(4):
                    s0 += blocks[k, 0, n] * vector[b, n]
                    s1 += blocks[k, 1, n] * vector[b, n]
                    s2 += blocks[k, 2, n] * vector[b, n]
                    s3 += blocks[k, 3, n] * vector[b, n]
            if shade.size > 0:
                s0 += shade[a]
            v0, v1, v2, v3 = vector[a, 0], vector[a, 1], vector[a, 2], vector[a, 3]
            for g in range(widths.size):
                s0 += border[a, 0, g] * widths[g]
                s1 += border[a, 1, g] * widths[g]
                s2 += border[a, 2, g] * widths[g]
                s3 += border[a, 3, g] * widths[g]
                sums[batch, 1 + g] += (
                    border[a, 0, g] * v0
                    + border[a, 1, g] * v1
                    + border[a, 2, g] * v2
                    + border[a, 3, g] * v3
                )
            sums[batch, 0] += s0 * v0 + s1 * v1 + s2 * v2 + s3 * v3
            out[a, 0], out[a, 1], out[a, 2], out[a, 3] = s0, s1, s2, s3


@compiled
def advance_rows(
    lo, hi, share, along, product, inverse, response, solution, left, better, sums
):  # fmt: skip
    """Go the share of a direction: `solution`, the residual `left`, and that times `inverse`.

    `sums` (n_batches, 2 + n_groups) receives what batches `lo` to `hi` of the columns add to the
    square of the residual, to its product with `better`, and to that with `response`.
    """
    for batch in range(lo, hi):
        for g in range(sums.shape[1]):
            sums[batch, g] = 0.0
        square, metric = 0.0, 0.0
        for a in range(batch * BATCH, min((batch + 1) * BATCH, len(left))):
            for m in range(4):
                solution[a, m] += share * along[a, m]
                left[a, m] -= share * product[a, m]
            l0, l1, l2, l3 = left[a, 0], left[a, 1], left[a, 2], left[a, 3]
            own = inverse[a]
            b0 = own[0, 0] * l0 + own[0, 1] * l1 + own[0, 2] * l2 + own[0, 3] * l3
            b1 = own[1, 0] * l0 + own[1, 1] * l1 + own[1, 2] * l2 + own[1, 3] * l3
            b2 = own[2, 0] * l0 + own[2, 1] * l1 + own[2, 2] * l2 + own[2, 3] * l3
            b3 = own[3, 0] * l0 + own[3, 1] * l1 + own[3, 2] * l2 + own[3, 3] * l3
            better[a, 0], better[a, 1], better[a, 2], better[a, 3] = b0, b1, b2, b3
            square += l0 * l0 + l1 * l1 + l2 * l2 + l3 * l3
            metric += l0 * b0 + l1 * b1 + l2 * b2 + l3 * b3
            for g in range(response.shape[2]):
                sums[batch, 2 + g] += (
                    response[a, 0, g] * l0
                    + response[a, 1, g] * l1
                    + response[a, 2, g] * l2
                    + response[a, 3, g] * l3
                )
        sums[batch, 0], sums[batch, 1] = square, metric


@inner
def _factor(upper, size):
    """Cholesky factor of a positive matrix in place, three rows at a time: few loops, longer ones.

    Only the upper triangle is read and written (below it, rows of three hold what is not used);
    `size` is a multiple of 3.
    """
    for j in range(U0, size, U3):
        r0, r1, r2 = upper[j], upper[j + U1], upper[j + U2]
        for k in range(U0, j, U3):
            k0, k1, k2 = upper[k], upper[k + U1], upper[k + U2]
            a0, a1, a2 = k0[j], k1[j], k2[j]
            b0, b1, b2 = k0[j + U1], k1[j + U1], k2[j + U1]
            c0, c1, c2 = k0[j + U2], k1[j + U2], k2[j + U2]
            for i in range(j, size):
                r0[i] -= a0 * k0[i] + a1 * k1[i] + a2 * k2[i]
                r1[i] -= b0 * k0[i] + b1 * k1[i] + b2 * k2[i]
                r2[i] -= c0 * k0[i] + c1 * k1[i] + c2 * k2[i]
        d0 = 1.0 / math.sqrt(r0[j])
        a1, a2 = r0[j + U1] * d0, r0[j + U2] * d0
        d1 = 1.0 / math.sqrt(r1[j + U1] - a1 * a1)
        b2 = (r1[j + U2] - a1 * a2) * d1
        d2 = 1.0 / math.sqrt(r2[j + U2] - a2 * a2 - b2 * b2)
        for i in range(j, size):
            x = r0[i] * d0
            y = (r1[i] - a1 * x) * d1
            r0[i], r1[i], r2[i] = x, y, (r2[i] - a2 * x - b2 * y) * d2


@inner
def _own_columns_of_inverse(upper, size, own, out):
    """Write the last `own` columns of the inverse of a matrix to `out` (own, size).

    From its factor (`_factor`). The right-hand sides are zero but for their last entries.
    """
    first = size - own
    for q in range(own):
        row = out[q]
        for i in range(size):
            row[i] = 0.0
        row[first + q] = 1.0
        for i in range(first + q, size):
            for k in range(first + q, i):
                row[i] -= upper[k, i] * row[k]
            row[i] /= upper[i, i]
        for n in range(U3, size + U1, U3):
            j = size - n
            r0, r1, r2 = upper[j], upper[j + U1], upper[j + U2]
            t0, t1, t2 = row[j], row[j + U1], row[j + U2]
            for k in range(j + U3, size):
                t0 -= r0[k] * row[k]
                t1 -= r1[k] * row[k]
                t2 -= r2[k] * row[k]
            t2 /= r2[j + U2]
            t1 = (t1 - r1[j + U2] * t2) / r1[j + U1]
            row[j], row[j + U1] = (t0 - r0[j + U1] * t1 - r0[j + U2] * t2) / r0[j], t1
            row[j + U2] = t2


@compiled
def window_covariance(lo, hi, indptr, indices, sys_indptr, sys_indices, blocks, p, out):
    """Write covariance blocks (n_pairs, 3, 3) of V, x, y between each column and its neighbours.

    The information matrix of the column's neighbourhood, gathered from the `blocks` of the
    whole, is inverted; columns beyond it are taken as known, which changes a variance by about
    0.1 % for a neighbourhood of 3.3 A. Of a column `p` parameters are its own (see `normal_rows`).
    In front the matrix is filled up to a multiple of 3 with parameters that nothing depends on.
    """
    most = 0
    for a in range(lo, hi):
        most = max(most, indptr[a + 1] - indptr[a])
    most = (p * most + 2) // 3 * 3
    info, inverse = np.empty((most, most)), np.empty((p, most))
    place = np.empty(indptr.size - 1, np.int64)
    for a in range(place.size):
        place[a] = -1
    for a in range(lo, hi):
        begin, end = indptr[a], indptr[a + 1]
        size = (p * (end - begin) + 2) // 3 * 3
        used = size - p * (end - begin)
        for m in range(size):
            for n in range(m - m % 3, size):
                info[m, n] = 0.0
        for m in range(used):
            info[m, m] = 1.0
        for k in range(begin, end):
            if indices[k] != a:
                place[indices[k]] = used
                used += p
        place[a] = used  # the column itself goes last
        for q in range(begin, end):
            i = indices[q]
            row = place[i]
            for k in range(sys_indptr[i], sys_indptr[i + 1]):
                col = place[sys_indices[k]]
                if col >= row:
                    for m in range(p):
                        for n in range(p):
                            info[row + m, col + n] = blocks[k, m, n]
        _factor(info, np.uint64(size))
        _own_columns_of_inverse(info, np.uint64(size), np.uint64(p), inverse)
        for q in range(begin, end):
            row = place[indices[q]]
            for m in range(3):
                for n in range(3):
                    out[q, m, n] = inverse[m, row + n]
            place[indices[q]] = -1


@compiled
def closer_pairs(indptr, indices, columns, radius, new_indptr, new_indices, nearest):
    """Keep the pairs closer than `radius`; write the distance of each column to the nearest."""
    count = 0
    for a in range(indptr.size - 1):
        new_indptr[a] = count
        least = np.inf
        for k in range(indptr[a], indptr[a + 1]):
            b = indices[k]
            dx, dy = columns[a, 1] - columns[b, 1], columns[a, 2] - columns[b, 2]
            r2 = dx * dx + dy * dy
            if r2 < radius * radius:
                new_indices[count] = b
                count += 1
            if a != b:
                least = min(least, r2)
        nearest[a] = math.sqrt(least)
    new_indptr[indptr.size - 1] = count


@compiled
def covariance_rows(lo, hi, indptr, indices, blocks, shared, units, place, at, data, cols):
    """Write rows of the CSR matrix of covariances: windows made symmetric, plus shared parameters.

    Parameters
    ----------
    blocks : ndarray, shape (n_pairs, 3, 3)
        From `window_covariance`.
    shared : ndarray, shape (n, 3, n_shared)
        The covariance that shared parameters add is ``shared[a] @ shared[b].T``.
    units : ndarray, shape (3,)
        Factors of V, x, y.
    place : ndarray of int, shape (n,)
        Row of the table in which each column stands.
    at : ndarray of int, shape (n,)
        Where the entries of each column begin in `data` and `cols`.
    """
    for a in range(lo, hi):
        size = indptr[a + 1] - indptr[a]
        for k in range(indptr[a], indptr[a + 1]):
            b = indices[k]
            q = 0  # entries of a row in the order of their columns in the table
            for i in range(indptr[a], indptr[a + 1]):
                q += place[indices[i]] < place[b]
            back = k
            for i in range(indptr[b], indptr[b + 1]):
                if indices[i] == a:
                    back = i
            for m in range(3):
                for n in range(3):
                    value = 0.5 * (blocks[k, m, n] + blocks[back, n, m])
                    for s in range(shared.shape[2]):
                        value += shared[a, m, s] * shared[b, n, s]
                    entry = at[a] + 3 * size * m + 3 * q + n
                    data[entry] = value * units[m] * units[n]
                    cols[entry] = 3 * place[b] + n
