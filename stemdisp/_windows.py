"""Compiled: covariances of columns and their neighbours, from the normal equations."""

from __future__ import annotations

import math

import numpy as np

from stemdisp._compiled import compiled, inner
from stemdisp._small import U4, U8, eliminate, last_of_inverse
from stemdisp._vectors import FOUR, load, load_doubled, spread, store


@inner
def _own_entries(indptr, indices):
    """Where each column stands in its own row of a list of neighbours."""
    out = indptr[:-1].copy()
    for a in range(out.size):
        while indices[out[a]] < a:
            out[a] += 1
    return out


@inner
def _times_border(covariance, near, place, border, line, out):
    """Sum covariances times the borders of the columns `near`; `line` is used up."""
    for g in range(border.shape[2]):
        value = spread(0.0)
        for q in range(near.size):
            at, beside = U4 * place[near[q]], border[near[q]]
            value = value + spread(beside[0, g]) * load(covariance, at)
            value = value + spread(beside[1, g]) * load(covariance, at + U4)
            value = value + spread(beside[2, g]) * load(covariance, at + U8)
        store(line, 0, value)
        for m in range(3):
            out[m, g] = line[m]


@compiled
def window_covariance(
    lo, hi, indptr, indices, sys_indptr, sys_indices, blocks, prior, p, border, response, out
):
    """Write covariance blocks (n_pairs, 3, 3) of V, x, y between each column and its neighbours.

    The information matrix of the column's neighbourhood, gathered from the `blocks` of the
    whole and what `prior` (n, 4) adds to their diagonal, is inverted; columns beyond it are taken
    as known, which changes a variance by about 0.1 % for a neighbourhood of 3.3 A. Of a column
    `p` parameters are its own (see `normal_rows`). In front the matrix is filled up to a multiple
    of 3 with parameters that nothing depends on. `response` (n, 3, n_shared) receives the
    covariances times `border` (n, 3, n_shared), summed over the neighbours.
    """
    most = 0
    for a in range(lo, hi):
        most = max(most, indptr[a + 1] - indptr[a])
    most = (p * most + 2) // 3 * 3
    wide = most + 3 * FOUR
    width = np.uint64(wide)
    info, scaled = np.zeros((most, wide)), np.zeros((most, wide))
    pivots, inverse = np.empty((most // 3, 6)), np.empty((most, FOUR))
    solved, line = inverse.reshape(inverse.size), np.empty(FOUR)
    flat, tiles, zero = info.reshape(info.size), blocks.reshape(blocks.size), spread(0.0)
    place = np.empty(indptr.size - 1, np.uint64)
    nowhere = np.uint64(most)  # columns of the matrix that nobody reads
    for a in range(place.size):
        place[a] = nowhere
    own = _own_entries(sys_indptr, sys_indices)
    for a in range(lo, hi):
        begin, end = indptr[a], indptr[a + 1]
        size = (p * (end - begin) + 2) // 3 * 3
        used = size - p * (end - begin)
        for m in range(size):
            for n in range(m // FOUR * FOUR, size, FOUR):
                store(flat, m * wide + n, zero)
        for m in range(used):
            info[m, m] = 1.0
        for k in range(begin, end):
            if indices[k] != a:
                place[indices[k]] = used
                used += p
        place[a] = used  # the column itself goes last
        for q in range(begin, end):
            i = indices[q]
            row = place[i] * width
            for k in range(own[i], sys_indptr[i + 1]):  # what is right of the diagonal counts
                at = row + place[sys_indices[k]]
                for m in range(p):
                    store(flat, at, load_doubled(tiles, 16 * k + 4 * m))
                    at += width
            for m in range(p):
                info[place[i] + m, place[i] + m] += prior[i, m]
        for k in range(sys_indptr[a], sys_indptr[a + 1]):
            row = place[sys_indices[k]]
            if row != nowhere:
                for m in range(p):
                    for n in range(p):
                        info[row + n, place[a] + m] = blocks[k, m, n]
        for m in range(p):
            info[place[a] + m, place[a] + m] += prior[a, m]
        eliminate(info, scaled, pivots, size)
        last_of_inverse(scaled, pivots, size, p, inverse)
        _times_border(solved, indices[begin:end], place, border, line, response[a])
        for q in range(begin, end):
            row = place[indices[q]]
            for m in range(3):
                for n in range(3):
                    out[q, m, n] = inverse[row + n, m]
            place[indices[q]] = nowhere


@compiled
def covariance_rows(lo, hi, indptr, indices, blocks, shared, units, place, at, data, cols, errors):
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
    errors : ndarray, shape (n, 3)
        Out: standard errors of V, x, y, in the order of the table.
    """
    seat = indptr[:-1].copy()  # in the row of each column, where that of the present one is
    most = 0
    for a in range(lo, hi):
        most = max(most, indptr[a + 1] - indptr[a])
    spots = np.empty(most, np.int64)
    for a in range(lo, hi):
        begin, size = indptr[a], indptr[a + 1] - indptr[a]
        for i in range(np.uint64(size)):
            spots[i] = place[indices[begin + i]]
        for k in range(begin, indptr[a + 1]):
            b, spot = indices[k], spots[k - begin]
            q = 0  # entries of a row in the order of their columns in the table
            for i in range(np.uint64(size)):
                q += spots[i] < spot
            back = seat[b]
            while indices[back] < a:
                back += 1
            seat[b] = back
            for m in range(3):
                v0, v1, v2 = 0.0, 0.0, 0.0
                for s in range(np.uint64(shared.shape[2])):
                    mine = shared[a, m, s]
                    v0 += mine * shared[b, 0, s]
                    v1 += mine * shared[b, 1, s]
                    v2 += mine * shared[b, 2, s]
                v0 += 0.5 * (blocks[k, m, 0] + blocks[back, 0, m])
                v1 += 0.5 * (blocks[k, m, 1] + blocks[back, 1, m])
                v2 += 0.5 * (blocks[k, m, 2] + blocks[back, 2, m])
                entry, unit = at[a] + 3 * size * m + 3 * q, units[m]
                data[entry], data[entry + 1] = v0 * unit * units[0], v1 * unit * units[1]
                data[entry + 2] = v2 * unit * units[2]
                if b == a:
                    variance = data[entry + m]
                    errors[place[a], m] = 0.0 if variance < 0.0 else math.sqrt(variance)
                for n in range(3):
                    cols[entry + n] = 3 * spot + n


@compiled
def quadratic_forms(lo, hi, at, values, matrix, out):
    """Write ``v @ matrix @ v`` for sparse vectors v: `values` (n, k) at the places `at` (n, k)."""
    for a in range(lo, hi):
        whole = 0.0
        for m in range(at.shape[1]):
            row, value = matrix[at[a, m]], 0.0
            for n in range(at.shape[1]):
                value += row[at[a, n]] * values[a, n]
            whole += value * values[a, m]
        out[a] = whole
