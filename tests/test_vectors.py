"""Vectors of the processor in compiled loops, number by number; what is made of them, whole."""

import numba
import numpy as np
import pytest
from scipy import sparse

from stemdisp import _pairs, _small, _windows
from stemdisp._system import Neighbours
from stemdisp._vectors import (
    FOUR,
    LANES,
    WIDE,
    gaussian,
    load,
    load_doubled,
    load_wide,
    quarters,
    ramp,
    spread,
    spread_wide,
    store,
    total,
    turn,
)

KINDS = [(np.float32, LANES), (np.float64, FOUR)]
rng = np.random.default_rng(5)


@pytest.mark.parametrize(("kind", "lanes"), KINDS)
def test_arithmetic_on_each_number(kind, lanes):
    @numba.njit
    def combine(a, b, out):
        x, y = load(a, 1), load(b, 2)
        store(out, 1, (x + y) * x - y / spread(a[0]))
        return total(x)

    a, b = rng.uniform(1, 2, (2, lanes + 3)).astype(kind)
    out = np.full(lanes + 3, 7, kind)
    found = combine(a, b, out)
    x, y = a[1 : lanes + 1], b[2 : lanes + 2]
    np.testing.assert_allclose(out[1 : lanes + 1], (x + y) * x - y / a[0], rtol=3e-7)
    assert found == pytest.approx(x.sum(), rel=3e-7)
    assert out[0] == 7 and (out[lanes + 1 :] == 7).all()  # the numbers beside stay


def test_wide_vectors_are_twice_as_many_numbers():
    @numba.njit
    def combine(a, out):
        x = load_wide(a, 3)
        store(out, 2, x * x + spread_wide(a[0]))
        return total(x)

    a = rng.uniform(1, 2, WIDE + 5).astype(np.float32)
    out = np.full(WIDE + 5, 7, np.float32)
    found = combine(a, out)
    x = a[3 : WIDE + 3]
    np.testing.assert_allclose(out[2 : WIDE + 2], x * x + a[0], rtol=3e-7)
    assert found == pytest.approx(x.sum(), rel=3e-7)
    assert (out[:2] == 7).all() and (out[WIDE + 2 :] == 7).all()


def test_a_ramp_doubled_numbers_and_sums_of_quarters():
    @numba.njit
    def several(a, singles, doubles):
        store(singles, 0, ramp(np.float32(3), np.float32(0.5)))
        store(doubles, 0, load_doubled(a, 2))
        return quarters(load(a, 0), load(a, LANES))

    a, singles, doubles = rng.normal(size=16).astype(np.float32), *map(np.zeros, (WIDE, 4))
    singles = singles.astype(np.float32)
    sums = several(a, singles, doubles)
    np.testing.assert_array_equal(singles, 3 + 0.5 * np.arange(WIDE))
    np.testing.assert_array_equal(doubles, a[2:6].astype(float))
    np.testing.assert_allclose(sums, a.reshape(4, 4).sum(axis=1), rtol=1e-5, atol=1e-6)


def test_turned_rows_are_columns():
    @numba.njit
    def turned(a, out):
        rows = turn((
            load(a, 0), load(a, 8), load(a, 16), load(a, 24),
            load(a, 32), load(a, 40), load(a, 48), load(a, 56),
        ))  # fmt: skip
        for k in range(8):
            store(out, 8 * k, rows[k])

    a, out = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    turned(a, out)
    np.testing.assert_array_equal(out.reshape(8, 8), a.reshape(8, 8).T)


@numba.njit
def some_at_a_time(squares, out):
    for i in range(0, out.size, LANES):
        store(out, i, gaussian(load(squares, i)))


@numba.njit
def many_at_a_time(squares, out):
    for i in range(0, out.size, WIDE):
        store(out, i, gaussian(load_wide(squares, i)))


@pytest.mark.parametrize("all_of", [some_at_a_time, many_at_a_time])
def test_gaussians_to_single_precision(all_of):
    squares = np.concatenate([np.linspace(0, 80, 4000), np.geomspace(1e-7, 1, 1000), [0.0] * 8])
    squares = squares[: len(squares) // WIDE * WIDE].astype(np.float32)
    out = np.empty_like(squares)
    all_of(squares, out)
    exact = np.exp(-0.5 * squares.astype(float))
    # the argument has single precision, too
    assert np.max(np.abs(out / exact - 1) / (1 + squares)) < 2.5e-7
    assert out[squares == 0].tolist() == [1.0] * np.count_nonzero(squares == 0)
    far = np.array([84, 200, 1e4, 1e30, 1e37, 84, 84, 84] * 2, np.float32)
    out = np.empty_like(far)
    all_of(far, out)
    assert np.all(out < 1e-18)
    assert np.all(out**2 > np.finfo(np.float32).tiny)  # no number that slows a processor


@numba.njit
def inverted(matrix, own):
    size = len(matrix)
    left, scaled = np.zeros((size, size + 12)), np.zeros((size, size + 12))
    left[:, :size] = matrix
    pivots, out = np.empty((size // 3, 6)), np.empty((size, FOUR))
    _small.eliminate(left, scaled, pivots, size)
    _small.last_of_inverse(scaled, pivots, size, own, out)
    return out


def positive(size, seed=0):
    """A positive matrix whose parameters have very different units."""
    values = np.random.default_rng(seed).normal(size=(size, 2 * size))
    units = 10.0 ** np.random.default_rng(seed + 1).uniform(-3, 3, size)
    return values @ values.T * np.outer(units, units)


@pytest.mark.parametrize("own", [3, 4])
@pytest.mark.parametrize("size", [6, 9, 27, 30, 39])
def test_columns_of_an_inverse(size, own):
    matrix = positive(size)
    expected = np.linalg.inv(matrix)
    scale = np.sqrt(np.outer(expected.diagonal(), expected.diagonal()))
    found = inverted(matrix, own)
    np.testing.assert_allclose(
        found[:, :own] / scale[:, -own:], expected[:, -own:] / scale[:, -own:], atol=1e-11
    )


@pytest.mark.parametrize("at", [0, 4, 11])
def test_a_matrix_that_is_not_positive_has_no_inverse(at):
    matrix = positive(12)
    matrix[at, at] = -1e-3 * matrix[at, at]
    assert np.isnan(inverted(matrix, 3)[:, :3]).any()


def test_the_inverse_of_a_block():
    @numba.njit
    def invert(matrix):
        out = np.empty((4, 4))
        _small.invert(matrix, out)
        return out

    for seed in range(5):
        matrix = positive(4, seed)
        np.testing.assert_allclose(invert(matrix) @ matrix, np.eye(4), atol=1e-8)


@pytest.fixture(scope="module", params=["own widths", "shared"])
def equations(request):
    """Normal equations of 40 columns with up to some 15 neighbours each."""
    n, make = 40, np.random.default_rng(1)
    xy = np.stack(np.meshgrid(np.arange(8), np.arange(5)), -1).reshape(-1, 2) * 9.0
    xy += make.normal(0, 0.5, xy.shape)
    columns = np.column_stack([make.uniform(-20, 90, n), xy, make.uniform(3.0, 5.0, n)])
    root, group = make.uniform(0.3, 1.0, (n, 4)), make.integers(0, 3, n)
    prior, hold = make.uniform(0, 0.5, (n, 4)), make.uniform(0, 0.1, (n, 2))
    near = Neighbours.within(xy, 22.0)
    assert np.diff(near.indptr).max() > LANES  # more than go into one vector
    n_groups = 0 if request.param == "own widths" else 3
    if n_groups:
        prior[:, 3] = 0.0
    return n_groups, columns, root, group, prior, hold, near


def assembled(equations, order):
    n_groups, columns, root, group, prior, hold, near = equations
    n, n_pairs = len(columns), len(near.indices)
    seen = np.empty((n, 8), np.float32)
    _pairs.column_factors(0, n, columns, root, seen)
    blocks, damping = np.empty((n_pairs, 4, 4), np.float32), np.empty((n, 4), np.float32)
    inverse, border = np.empty((n, 4, 4), np.float32), np.empty((n, 4, n_groups))
    corner, response = np.empty((n, n_groups)), np.empty((n, 4, n_groups))
    _pairs.normal_rows(
        0, n, near.indptr, near.indices, columns, seen, np.empty((0, 4, 4), np.float32), group,
        prior, hold, order, blocks, damping, inverse, border, corner, response,
    )  # fmt: skip
    return blocks, damping, inverse, border, corner, response


@pytest.mark.parametrize("order", [0, 1])
def test_normal_equations_are_the_information_of_pairs(equations, order):
    n_groups, columns, root, group, prior, hold, near = equations
    blocks, damping, inverse, border, corner, response = assembled(equations, order)
    whole = _pairs.pair_information(near.indptr, near.indices, columns, root, order)
    rows, cols = near.rows(), near.indices
    own = np.flatnonzero(rows == cols)
    scale = np.sqrt(np.einsum("nkk->nk", whole[own]))
    expected, size = whole.copy(), scale[rows][:, :, None] * scale[cols][:, None, :]
    if n_groups:
        expected[:, 3, :] = expected[:, :, 3] = 0.0
        expected[own, 3, 3] = size[own, 3, 3] = 1.0
    np.testing.assert_allclose(blocks / size, expected / size, atol=3e-6)
    diagonal = np.einsum("nkk->nk", expected[own])
    added = prior + hold[:, :1] * (diagonal + prior)
    added[:, 1:3] += hold[:, 1:]
    np.testing.assert_allclose(damping, added, rtol=3e-6)
    damped = expected[own] + added[:, :, None] * np.eye(4)
    np.testing.assert_allclose(inverse @ damped, np.broadcast_to(np.eye(4), (40, 4, 4)), atol=2e-5)
    for g in range(n_groups):
        mine = group[cols] == g
        for m in range(4):
            sums = np.bincount(rows[mine], whole[mine, m, 3], 40)
            reach = np.bincount(rows[mine], np.abs(whole[mine, m, 3]), 40) + 1e-9
            found = border[:, m, g] if m < 3 else corner[:, g]
            # distances are those of positions of single precision
            assert np.max(np.abs(found - sums) / reach) < 3e-5
    np.testing.assert_allclose(response, inverse.astype(float) @ border, rtol=1e-6, atol=1e-12)


def test_covariances_of_neighbourhoods(equations):
    n_groups, columns, _, _, prior, _, wide = equations
    blocks, p = assembled(equations, 1)[0], 4 if n_groups == 0 else 3
    near = wide.closer(columns, 16.0)
    out, response = np.empty((len(near.indices), 3, 3)), np.empty((40, 3, 2))
    border = np.random.default_rng(2).normal(size=response.shape)
    _windows.window_covariance(
        0, 40, near.indptr, near.indices, wide.indptr, wide.indices, blocks, prior, p,
        border, response, out,
    )  # fmt: skip
    whole = np.zeros((40, 4, 40, 4))
    for block, a, b in zip(blocks, wide.rows(), wide.indices, strict=True):
        whole[a, :, b] = block
    whole[np.arange(40), :, np.arange(40)] += prior[:, :, None] * np.eye(4)
    for a in range(40):
        span = slice(near.indptr[a], near.indptr[a + 1])
        mine = near.indices[span]
        window = whole[mine, :p][:, :, mine, :p].reshape(p * len(mine), -1)
        inverse = np.linalg.inv(window).reshape(len(mine), p, len(mine), p)
        expected = inverse[np.flatnonzero(mine == a)[0], :3, :, :3].transpose(1, 0, 2)
        error = np.sqrt(np.einsum("nknk->nk", inverse)[:, :3])
        size = error[mine == a][0][None, :, None] * error[:, None, :]
        # blocks have single precision, and are not quite symmetric
        np.testing.assert_allclose(out[span] / size, expected / size, atol=1e-5)
        together = np.einsum("kmn,kng->mg", out[span], border[mine])
        np.testing.assert_allclose(response[a], together, rtol=1e-9, atol=1e-12)


def test_rows_of_covariances_are_in_the_order_of_the_table():
    make = np.random.default_rng(3)
    near = Neighbours.within(make.uniform(0, 30, (25, 2)), 9.0)
    blocks, shared = make.normal(size=(len(near.indices), 3, 3)), make.normal(size=(25, 3, 2))
    own = near.rows() == near.indices
    blocks[own] += 30 * np.eye(3)
    blocks[np.flatnonzero(own)[4]] *= -1.0  # no covariance at all: its errors are 0
    place, units = make.permutation(25), np.array([2.0, 0.5, 3.0])
    rows = np.zeros(26, int)
    rows[1:][place] = 9 * np.diff(near.indptr)
    ends = np.cumsum(rows)
    data, cols, errors = np.empty(ends[-1]), np.empty(ends[-1], np.int32), np.empty((25, 3))
    for lo, hi in ((0, 7), (7, 25)):  # as two threads would
        _windows.covariance_rows(
            lo, hi, near.indptr, near.indices, blocks, shared, units, place, ends[place],
            data, cols, errors,
        )  # fmt: skip
    whole = np.zeros((25, 3, 25, 3))
    for block, a, b in zip(blocks, near.rows(), near.indices, strict=True):
        whole[place[a], :, place[b]] += 0.5 * block
        whole[place[b], :, place[a]] += 0.5 * block.T
        whole[place[a], :, place[b]] += shared[a] @ shared[b].T
    whole *= units[:, None, None] * units
    whole = whole.reshape(75, 75)
    each = np.repeat(rows[1:] // 3, 3)
    indptr = np.concatenate([[0], np.cumsum(each)])
    found = sparse.csr_array((data, cols, indptr), shape=(75, 75))
    assert found.has_sorted_indices
    np.testing.assert_allclose(found.toarray(), whole, atol=1e-12)
    np.testing.assert_allclose(errors.ravel(), np.sqrt(np.maximum(whole.diagonal(), 0)))
    assert np.count_nonzero(errors == 0) == 3
