"""Compiled: the loops over columns of conjugate gradients (`_system.System.solve`)."""

from __future__ import annotations

import numpy as np

from stemdisp._compiled import compiled
from stemdisp._vectors import load, quarters, spread

BATCH = 128  # columns whose sums are taken together, whatever thread does them


@compiled
def turn_rows(lo, hi, better, response, inverse, low, shade, share, along, doubled):
    """Write the next direction of conjugate gradients, (n, 4), from the one before in `along`.

    `better` are the residuals times `inverse`; `low` (n_groups,) is what the shared widths and
    `shade` (n or 0,) what the background under each column takes from them. `doubled` (n, 8)
    receives the direction twice side by side, for two rows of a block in one vector.
    """
    for a in range(lo, hi):
        for m in range(4):
            value = better[a, m]
            for g in range(low.size):
                value -= response[a, m, g] * low[g]
            if shade.size > 0:
                value -= inverse[a, m, 0] * shade[a]
            along[a, m] = value + share * along[a, m]
            doubled[a, m] = doubled[a, 4 + m] = along[a, m]


@compiled
def multiply_rows(
    lo, hi, indptr, indices, blocks, damping, border, widths, shade, vector, doubled, out, sums
):
    """Write batches `lo` to `hi` of the rows of the matrix times a vector to `out` (n, 4).

    `vector` (n, 4), and `doubled` (n, 8) by `turn_rows`, belongs to the columns, `widths`
    (n_groups,) to what they share, `shade` (n or 0,) is the background under each. `damping`
    (n, 4) is added to the diagonal of the `blocks`. `sums` (n_batches, 1 + n_groups) receives the
    batch's share of the product with the vector itself, and of that with the transposed `border`.
    """
    flat, twice = blocks.reshape(blocks.size), doubled.reshape(doubled.size)
    zero = spread(np.float32(0))
    for batch in range(lo, hi):
        for g in range(sums.shape[1]):
            sums[batch, g] = 0.0
        for a in range(batch * BATCH, min((batch + 1) * BATCH, indptr.size - 1)):
            upper, lower = zero, zero
            for k in range(indptr[a], indptr[a + 1]):
                values = load(twice, 8 * indices[k])
                upper = upper + load(flat, 16 * k) * values
                lower = lower + load(flat, 16 * k + 8) * values
            s0, s1, s2, s3 = quarters(upper, lower)
            v0, v1, v2, v3 = vector[a, 0], vector[a, 1], vector[a, 2], vector[a, 3]
            s0 += damping[a, 0] * v0 + (shade[a] if shade.size > 0 else 0.0)
            s1 += damping[a, 1] * v1
            s2 += damping[a, 2] * v2
            s3 += damping[a, 3] * v3
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
