"""Compiled: inverses of small positive matrices."""

from __future__ import annotations

import numpy as np

from stemdisp._compiled import inner
from stemdisp._vectors import FOUR, load, spread, store

U1, U2, U4, U8 = (np.uint64(n) for n in (1, 2, 4, 8))


@inner
def inverse_of_three(m00, m01, m02, m11, m12, m22):
    """Inverse of a symmetric 3 x 3 matrix by its minors; NaN where it is not positive."""
    c00, c01, c02 = m11 * m22 - m12 * m12, m02 * m12 - m01 * m22, m01 * m12 - m02 * m11
    determinant = m00 * c00 + m01 * c01 + m02 * c02
    minor = m00 * m11 - m01 * m01
    scale = 1.0 / determinant if m00 > 0.0 and minor > 0.0 and determinant > 0.0 else np.nan
    return (
        c00 * scale, c01 * scale, c02 * scale,
        (m00 * m22 - m02 * m02) * scale, (m01 * m02 - m00 * m12) * scale, minor * scale,
    )  # fmt: skip


@inner
def invert(own, out):
    """Inverse of the block (4, 4) of a column: that of V, x, y, then bordered by the width."""
    p = inverse_of_three(own[0, 0], own[0, 1], own[0, 2], own[1, 1], own[1, 2], own[2, 2])
    b0, b1, b2 = own[0, 3], own[1, 3], own[2, 3]
    u0 = p[0] * b0 + p[1] * b1 + p[2] * b2
    u1 = p[1] * b0 + p[3] * b1 + p[4] * b2
    u2 = p[2] * b0 + p[4] * b1 + p[5] * b2
    left = 1.0 / (own[3, 3] - b0 * u0 - b1 * u1 - b2 * u2)
    out[0, 0], out[1, 1] = p[0] + u0 * u0 * left, p[3] + u1 * u1 * left
    out[2, 2], out[3, 3] = p[5] + u2 * u2 * left, left
    out[0, 1] = out[1, 0] = p[1] + u0 * u1 * left
    out[0, 2] = out[2, 0] = p[2] + u0 * u2 * left
    out[1, 2] = out[2, 1] = p[4] + u1 * u2 * left
    out[0, 3] = out[3, 0] = -u0 * left
    out[1, 3] = out[3, 1] = -u1 * left
    out[2, 3] = out[3, 2] = -u2 * left


@inner
def eliminate(left, scaled, inverse, size):
    """Take apart a positive matrix A in `left`, three rows at a time: ``A = S^T P^-1 S``.

    P are the 3 x 3 blocks on the diagonal of S. Afterwards `left` holds S, `scaled` holds P^-1 S
    and `inverse` (size / 3, 6) the P^-1; of all only what is on and right of the diagonal counts.
    Rows have room for two vectors from any of the `size`.
    """
    wide = np.uint64(left.shape[1])
    flat, ready = left.reshape(left.size), scaled.reshape(scaled.size)
    for j in range(0, size, 3):
        r0 = np.uint64(j) * wide
        r1, r2 = r0 + wide, r0 + wide + wide
        begin = j // FOUR * FOUR
        for i in range(begin, size, 2 * FOUR):
            at = np.uint64(i)
            a0, a1 = load(flat, r0 + at), load(flat, r0 + at + U4)
            b0, b1 = load(flat, r1 + at), load(flat, r1 + at + U4)
            c0, c1 = load(flat, r2 + at), load(flat, r2 + at + U4)
            of = np.uint64(j)
            for _ in range(np.uint64(j)):
                s0, s1 = load(flat, at), load(flat, at + U4)
                u = spread(ready[of])
                a0, a1 = a0 - u * s0, a1 - u * s1
                u = spread(ready[of + U1])
                b0, b1 = b0 - u * s0, b1 - u * s1
                u = spread(ready[of + U2])
                c0, c1 = c0 - u * s0, c1 - u * s1
                at += wide
                of += wide
            at = np.uint64(i)
            store(flat, r0 + at, a0)
            store(flat, r0 + at + U4, a1)
            store(flat, r1 + at, b0)
            store(flat, r1 + at + U4, b1)
            store(flat, r2 + at, c0)
            store(flat, r2 + at + U4, c1)
        p = inverse_of_three(
            left[j, j], left[j, j + 1], left[j, j + 2],
            left[j + 1, j + 1], left[j + 1, j + 2], left[j + 2, j + 2],
        )  # fmt: skip
        for k in range(6):
            inverse[j // 3, k] = p[k]
        p00, p01, p02 = spread(p[0]), spread(p[1]), spread(p[2])
        p11, p12, p22 = spread(p[3]), spread(p[4]), spread(p[5])
        for i in range(begin, size, FOUR):
            at = np.uint64(i)
            a0, b0, c0 = load(flat, r0 + at), load(flat, r1 + at), load(flat, r2 + at)
            store(ready, r0 + at, p00 * a0 + p01 * b0 + p02 * c0)
            store(ready, r1 + at, p01 * a0 + p11 * b0 + p12 * c0)
            store(ready, r2 + at, p02 * a0 + p12 * b0 + p22 * c0)


@inner
def last_of_inverse(scaled, inverse, size, own, out):
    """Write the last `own` (at most 4) columns of the inverse of a matrix to `out` (size, 4).

    From what `eliminate` left. The right-hand sides are zero but for their last entries.
    """
    wide = np.uint64(scaled.shape[1])
    ready, x = scaled.reshape(scaled.size), out.reshape(out.size)
    for j in range(size):
        for q in range(FOUR):
            out[j, q] = 1.0 if q < own and j == size - own + q else 0.0
    # forwards, from the first three rows that are not all zero
    begin = (size - own) // 3 * 3
    for j in range(begin + 3, size, 3):
        for m in range(3):
            value = load(x, FOUR * (j + m))
            for k in range(begin, j):
                value = value - spread(scaled[k, j + m]) * load(x, FOUR * k)
            store(x, FOUR * (j + m), value)
    for j in range(0, size, 3):
        p = inverse[j // 3]
        at = np.uint64(FOUR * j)
        a, b, c = load(x, at), load(x, at + U4), load(x, at + U8)
        store(x, at, spread(p[0]) * a + spread(p[1]) * b + spread(p[2]) * c)
        store(x, at + U4, spread(p[1]) * a + spread(p[3]) * b + spread(p[4]) * c)
        store(x, at + U8, spread(p[2]) * a + spread(p[4]) * b + spread(p[5]) * c)
    # backwards: what is known is taken off all rows before
    for n in range(3, size, 3):
        of, at = np.uint64(size - n), np.uint64(0)
        end = U4 * of
        a, b, c = load(x, end), load(x, end + U4), load(x, end + U8)
        for _ in range(of):
            value = load(x, at) - spread(ready[of]) * a
            value = value - spread(ready[of + U1]) * b - spread(ready[of + U2]) * c
            store(x, at, value)
            of += wide
            at += U4
