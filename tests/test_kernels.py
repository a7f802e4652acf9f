"""The compiled kernels of the joint fit against sums over pixels that use none of its algebra."""

import os
import platform
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from stemdisp import _kernels, _pairs, _summed
from stemdisp._background import Background, block_sums
from stemdisp._border import outside, seen_inside
from stemdisp._joint import PAIR_REACH
from stemdisp._medians import middle, middles
from stemdisp._memory import image_room
from stemdisp._model import Strips
from stemdisp._steps import hold_back, move_columns
from stemdisp._system import Neighbours
from stemdisp.refine import OUTSIDE

GRID = (96, 104)
# V, x, y, width; the third is cut by the border
COLUMNS = np.array([[30.0, 48.3, 44.2, 3.1], [-12.0, 52.1, 47.9, 3.7], [20.0, 100.4, 60.2, 3.3]])
SQUARE = (1.0, 1.0)
OBLONG = (1.1, 1 / 1.1)
NONE = np.empty((0, 0), np.float32)
steps = pytest.mark.parametrize("step", [SQUARE, OBLONG])


def stamp(volume, x, y, sigma, step=SQUARE):
    yy, xx = np.mgrid[: GRID[0], : GRID[1]]
    r2 = (xx * step[0] - x) ** 2 + (yy * step[1] - y) ** 2
    return volume / (2 * np.pi * sigma**2) * np.exp(-r2 / (2 * sigma**2))


def derivatives(column, step=SQUARE):
    """Images of d column / d (V, x, y, sigma), by central differences."""
    h = 1e-4
    return [
        (stamp(*(column + h * e), step) - stamp(*(column - h * e), step)) / (2 * h)
        for e in np.eye(4)
    ]


def inner(a, b, order, step=SQUARE):
    """Sum over pixels of a * b, or of the products of their gradients (Parseval, |k|^2)."""
    if order == 0:
        return np.sum(a * b)
    k = [2 * np.pi * np.fft.fftfreq(n, d) for n, d in zip(GRID, step[::-1], strict=True)]
    k2 = k[0][:, None] ** 2 + k[1][None, :] ** 2
    return np.sum(np.fft.fft2(a) * np.conj(np.fft.fft2(b)) * k2).real / a.size


def strips_of(columns, height=24):
    strips = Strips.build(columns[:, 1:3], GRID[0], height)
    return strips, columns[strips.order]


def residual(columns, image, weight=NONE, coefficients=None, step=SQUARE, height=24):
    strips, ordered = strips_of(columns, height)
    background = Background.build(np.ones(GRID, dtype=bool), 30.0)
    if coefficients is None:
        coefficients = np.zeros(background.shape)
    out = image_room(GRID, apart=True)
    out[:] = np.nan
    seen = np.empty((strips.count, *background.shape))
    image = image.astype(np.float32)
    _kernels.residual_strips(
        0, strips.count, image, weight, ordered, strips.first, height, 6.0, *step,
        coefficients, background.spline, out, seen,
    )  # fmt: skip
    assert out.shape[1] > GRID[1] and not out[:, GRID[1] :].any()
    return out[:, : GRID[1]], seen.sum(axis=0), background


@pytest.mark.parametrize("order", [0, 1])
def test_information_is_the_summed_product_of_derivatives(order):
    indptr, indices = np.array([0, 2, 4]), np.array([0, 1, 0, 1])
    # pixels that count differently for each parameter
    root = np.array([[0.5, 0.8, 0.9, 0.6], [1.0, 0.7, 0.4, 0.3]])
    blocks = _pairs.pair_information(indptr, indices, COLUMNS[:2], root, order)
    d = [derivatives(c) for c in COLUMNS[:2]]
    for block, (a, b) in zip(blocks, [(0, 0), (0, 1), (1, 0), (1, 1)], strict=True):
        expected = np.array([[inner(p, q, order) for q in d[b]] for p in d[a]])
        scale = np.sqrt(
            np.outer([inner(p, p, order) for p in d[a]], [inner(q, q, order) for q in d[b]])
        )
        np.testing.assert_allclose(
            block / scale, expected * np.outer(root[a], root[b]) / scale, atol=2e-7
        )


@pytest.mark.parametrize("order", [0, 1])
def test_pairs_that_are_left_out_share_next_to_nothing(order):
    far, (ends, both) = PAIR_REACH * np.sqrt(2) * 3.0, (np.array([0, 2, 4]), np.array([0, 1, 0, 1]))
    for angle in np.linspace(0, np.pi / 2, 7):
        other = [1.0, far * np.cos(angle), far * np.sin(angle), 3.0]
        columns = np.array([[1.0, 0.0, 0.0, 3.0], other])
        own, pair, _, _ = _pairs.pair_information(ends, both, columns, np.ones((2, 4)), order)
        scale = np.sqrt(own.diagonal())
        assert np.abs(pair / np.outer(scale, scale)).max() < 0.006


def test_the_gradient_metric_is_that_of_finite_differences():
    # independent of any Fourier transform: sixth-order differences of the derivative images
    def gradient(image):
        weights = {1: 45, 2: -9, 3: 1}
        return np.stack(
            [
                sum(w * (np.roll(image, -d, n) - np.roll(image, d, n)) for d, w in weights.items())
                for n in (0, 1)
            ]
        )

    ends, one = np.array([0, 1, 2]), np.ones((2, 4))
    block = _pairs.pair_information(ends, np.array([1, 0]), COLUMNS[:2], one, 1)[0]
    d = [[gradient(image) / 60 for image in derivatives(c)] for c in COLUMNS[:2]]
    expected = np.array([[np.sum(p * q) for q in d[1]] for p in d[0]])
    np.testing.assert_allclose(block, expected, atol=0.005 * np.abs(block).max())


@steps
@pytest.mark.parametrize("order", [0, 1])
def test_projection_is_the_derivative_of_the_inner_product(order, step):
    image = np.random.default_rng(3).normal(size=GRID)
    columns = COLUMNS[:2] * [1, step[0], step[1], 1]
    strips, ordered = strips_of(columns)
    found = np.empty((2, 4))
    wide = image_room(GRID, apart=True)
    wide[:, : GRID[1]], wide[:, GRID[1] :] = image, 0.0
    _kernels.project_columns(
        0, strips.count, wide, GRID[1], ordered, strips.first, 7.5, order, *step, found
    )
    for row, column in zip(found, ordered, strict=True):
        expected = [inner(d, image, order, step) for d in derivatives(column, step)]
        np.testing.assert_allclose(row, expected, rtol=2e-5, atol=2e-5 * np.abs(expected).max())


@steps
@pytest.mark.parametrize("height", [12, 24, 96])
def test_the_residual_lacks_columns_and_background_and_is_weighted(height, step):
    rng = np.random.default_rng(4)
    image, weight = rng.normal(size=GRID), rng.uniform(0, 2, GRID).astype(np.float32)
    reach = max(12, height)  # a column must not reach beyond the next strip
    columns = COLUMNS * [1, step[0], step[1], 1 if reach > 20 else 0.5]
    background = Background.build(np.ones(GRID, dtype=bool), 30.0)
    coefficients = rng.normal(size=background.shape)
    y, x = (axis.at(np.arange(n)).toarray() for axis, n in
            ((background.along_y, GRID[0]), (background.along_x, GRID[1])))  # fmt: skip
    expected = image - y @ coefficients @ x.T - sum(stamp(*c, step) for c in columns)
    found, seen, _ = residual(columns, image, weight, coefficients, step, height)
    np.testing.assert_allclose(found, expected * weight, atol=3e-6)
    np.testing.assert_allclose(seen, y.T @ found @ x, atol=1e-4)


@pytest.mark.parametrize(("spacing", "together"), [(90, 1), (120, 2), (200, 4), (500, 4)])
def test_some_rows_see_the_same_of_a_slow_background(spacing, together):
    rng, size, height = np.random.default_rng(4), (1000, 40), 240
    image = rng.normal(size=size).astype(np.float32)
    background = Background.build(np.ones(size, dtype=bool), spacing)
    y, x = (axis.at(np.arange(n)).toarray() for axis, n in
            ((background.along_y, size[0]), (background.along_x, size[1])))  # fmt: skip
    steps, edges = y.copy(), background.spline[0]
    ends = sorted({*range(0, 960, height), *edges.tolist()})
    for low, high in pairwise(ends):
        for top in range(low, high, together):
            same = slice(top, min(top + together, high))
            steps[same] = y[same].mean(axis=0)
    out, seen = image_room(size, apart=True), np.empty((4, *background.shape))
    _kernels.residual_strips(
        0, 4, image, NONE, np.empty((0, 4)), np.zeros(5, int), height, 5.0, 1.0, 1.0,
        np.zeros(background.shape), background.spline, out, seen,
    )  # fmt: skip
    np.testing.assert_allclose(seen.sum(axis=0), steps.T @ image @ x, atol=2e-4)
    assert np.abs(steps - y).max() < 0.03


def seen(weight, columns=COLUMNS[:2], order=0):
    strips, ordered = strips_of(columns)
    out = np.empty((len(columns), 6))
    _kernels.seen_weight(0, strips.count, weight, ordered, strips.first, 4.0, order, *SQUARE, out)
    return out


@pytest.mark.parametrize("order", [0, 1])
def test_a_share_of_the_pixels_is_seen(order):
    quarter = seen(np.full(GRID, 0.25, np.float32), order=order)
    np.testing.assert_allclose(quarter[:, :5], 0.25, rtol=2e-3)
    np.testing.assert_allclose(quarter[:, 5], 0, atol=2e-3)
    # the share of what each derivative has on the pixels that count
    weight = np.random.default_rng(5).uniform(0, 2, GRID).astype(np.float32)
    weight[:, 47:] = 0
    _, ordered = strips_of(COLUMNS[:2])
    for row, column in zip(seen(weight, order=order), ordered, strict=True):
        for k, image in enumerate(derivatives(column)):
            power = image**2
            if order == 1:
                gy, gx = np.gradient(image)
                power = gx**2 + gy**2
            share = np.sum(power * weight) / np.sum(power)
            assert row[k] == pytest.approx(share, rel=2e-3, abs=5e-3 if order else 2e-3), k
        shape = stamp(1.0, *column[1:])
        assert row[4] == pytest.approx(np.sum(shape * weight), rel=5e-3)
        wider = derivatives(column)[3] * column[3] / column[0]
        assert row[5] == pytest.approx(np.sum(wider * weight), abs=5e-3)


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize(("x", "y"), [(-0.5, 50), (3, 50), (101, 92.0), (50, -4.0), (50, 50)])
def test_what_the_border_leaves_is_what_ones_inside_leave(order, x, y):
    columns = np.array([[5.0, x, y, 3.0]])
    found = seen_inside(columns, GRID, step=SQUARE, reach=4.0, order=order)
    ones = seen(np.ones(GRID, np.float32), columns, order)
    # the kernel divides by the integral, the border by the sum
    np.testing.assert_allclose(found, ones, atol=4e-3)
    if (x, y) == (50, 50):
        np.testing.assert_array_equal(found, [[1, 1, 1, 1, 1, 0]])
    if x == -0.5:
        np.testing.assert_allclose(found[0, :5], 0.5, atol=0.01)


def test_summed_information_is_that_of_the_closed_forms_and_sees_weights():
    near = Neighbours.within(COLUMNS[:2, 1:3], 20.0)
    weight = np.ones(GRID, np.float32)
    found = np.empty((4, 4, 4), np.float32)

    def summed():
        _summed.summed_pairs(
            0, 2, near.indptr, near.indices, COLUMNS[:2], weight, 6.0, *SQUARE, found
        )
        return found.copy()

    unit = COLUMNS[:2] * [0, 1, 1, 1] + [1, 0, 0, 0]
    closed = _pairs.pair_information(near.indptr, near.indices, unit, np.ones((2, 4)), 0)
    np.testing.assert_allclose(summed(), closed, atol=2e-5 * np.abs(closed).max())
    weight[:] = np.random.default_rng(6).uniform(0, 2, GRID)
    d = [derivatives(c) for c in unit]
    expected = [[[np.sum(p * q * weight) for q in d[b]] for p in d[a]]
                for a, b in ((0, 0), (0, 1), (1, 0), (1, 1))]  # fmt: skip
    np.testing.assert_allclose(summed(), expected, atol=2e-5 * np.abs(closed).max())
    assert np.abs(found - closed).max() > 0.01 * np.abs(closed).max()


def test_nothing_lies_beyond_the_border_in_sums():
    # what is left of the first column's pixels must not be taken for those beside the second
    unit = np.array([[1.0, 50.3, 40.2, 3.3], [1.0, 101.4, 60.7, 3.1]])
    near, found = Neighbours.within(unit[:, 1:3], 5.0), np.empty((2, 4, 4), np.float32)
    weight = np.random.default_rng(12).uniform(1, 2, GRID).astype(np.float32)
    _summed.summed_pairs(0, 2, near.indptr, near.indices, unit, weight, 6.0, *SQUARE, found)
    for block, column in zip(found, unit, strict=True):
        d = derivatives(column)
        expected = np.array([[np.sum(p * q * weight) for q in d] for p in d])
        np.testing.assert_allclose(block, expected, atol=2e-5 * np.abs(expected).max())


def test_blocks_are_summed_to_the_last_pixel():
    image = np.random.default_rng(7).normal(size=(11, 14)).astype(np.float32)
    found = block_sums(image, 4)
    assert found.shape == (3, 4)
    assert found[1, 2] == pytest.approx(image[4:8, 8:12].sum(), abs=1e-5)
    assert found[2, 3] == pytest.approx(image[8:, 12:].sum(), abs=1e-5)
    assert found.sum() == pytest.approx(image.sum(), abs=1e-4)


@pytest.mark.parametrize("block", [1, 2, 3, 5])
@pytest.mark.parametrize(
    "part", [np.s_[:], np.s_[:, :21], np.s_[::-1, ::2], np.s_[::-1], np.s_[3:]]
)
def test_blocks_of_parts_of_an_image(block, part):
    image = np.random.default_rng(9).normal(size=(17, 32)).astype(np.float32)[part]
    shape = [-(-n // block) for n in image.shape]
    whole = np.zeros([block * n for n in shape])
    whole[: image.shape[0], : image.shape[1]] = image
    expected = whole.reshape(shape[0], block, shape[1], block).sum(axis=(1, 3))
    np.testing.assert_allclose(block_sums(image, block), expected, atol=1e-5)
    some = block_sums(image > 0, block)
    assert some.sum() == np.count_nonzero(image > 0)


@pytest.mark.parametrize("nx", [5, 16, 17, 40])
def test_images_narrower_than_a_window(nx):
    rng = np.random.default_rng(nx)
    image = rng.normal(size=(31, nx)).astype(np.float32)
    columns = np.array([[20.0, 2.2, 9.1, 2.0], [8.0, nx - 1.5, 20.3, 3.0]])
    yy, xx = np.mgrid[:31, :nx]
    drawn = [
        v / (2 * np.pi * s**2) * np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / (2 * s**2))
        for v, x, y, s in columns
    ]
    background = Background.build(np.ones(image.shape, dtype=bool), 30.0)
    out, seen = image_room(image.shape, apart=True), np.empty((1, *background.shape))
    first = np.array([0, 2])
    _kernels.residual_strips(
        0, 1, image, NONE, columns, first, 31, 9.0, 1.0, 1.0, np.zeros(background.shape),
        background.spline, out, seen,
    )  # fmt: skip
    np.testing.assert_allclose(out[:, :nx], image - sum(drawn), atol=2e-6)
    found = np.empty((2, 4))
    _kernels.project_columns(0, 1, out, nx, columns, first, 9.0, 0, 1.0, 1.0, found)
    for row, column, g in zip(found, columns, drawn, strict=True):
        expected = np.sum(g * out[:, :nx]) / column[0]
        assert row[0] == pytest.approx(expected, abs=2e-6)


def test_columns_beyond_the_border_are_those_that_miss_their_share():
    rng = np.random.default_rng(10)
    xy = np.column_stack([rng.uniform(-9, 113, 500), rng.uniform(-9, 105, 500)])
    corner = np.stack(np.meshgrid(np.arange(0, 9, 0.1), np.arange(0, 9, 0.1)), -1).reshape(-1, 2)
    xy = np.concatenate([xy, corner])
    columns = np.column_stack([np.ones(len(xy)), xy, np.full(len(xy), 4.0)])
    seen = seen_inside(columns, GRID, step=SQUARE, reach=3.5, order=0)[:, 4]
    beyond = outside(columns, GRID, step=SQUARE, reach=3.5, share=OUTSIDE)
    np.testing.assert_array_equal(beyond, 1.0 - seen > OUTSIDE)
    assert 50 < np.count_nonzero(beyond[:500]) < 250
    assert 100 < np.count_nonzero(beyond[500:]) < len(corner) - 100


@pytest.mark.parametrize(("shape", "wide"), [((4, 1024), 1040), ((4, 1000), 1008), ((4, 5), 16)])
def test_rows_apart_begin_in_other_places_of_a_cache(shape, wide):
    room = image_room(shape, apart=True)
    assert room.shape == (4, wide) and room.flags.c_contiguous and room.dtype == np.float32
    assert wide * room.itemsize // 64 % 2 == 1
    assert image_room(shape).shape == shape
    assert room.ctypes.data % 64 == image_room(shape).ctypes.data % 64 == 0


def test_large_images_begin_where_large_pages_do():
    room = image_room((700, 1000))
    assert room.ctypes.data % 2**21 == 0 and room.shape == (700, 1000)
    room[:] = 1.0
    assert room.sum() == room.size


_TOUCH = """
import resource, sys
import numpy as np
{}
count = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = count()
for _ in range(20):
    images = [np.ones((512, 512), np.float32) for _ in range(4)]
    del images
print(count() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries keep what they like")
def test_memory_that_is_freed_serves_the_next_arrays():
    there = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    new = [
        int(subprocess.run([sys.executable, "-c", _TOUCH.format(line)], env=there,
                           capture_output=True, text=True, check=True).stdout)
        for line in ("", "import stemdisp._memory")
    ]  # fmt: skip
    # 1024 pages in each of 20 rounds, or in the first one
    assert new[0] > 15_000
    assert new[1] < 2_000


def test_neighbours_are_those_of_brute_force():
    xy = np.random.default_rng(8).uniform(0, 40, (60, 2))
    columns = np.column_stack([np.ones(60), xy, np.ones(60)])
    distance = np.hypot(*(xy[:, None] - xy[None]).T)
    near = Neighbours.within(xy, 12.0)
    closer = near.closer(columns, 6.0)
    for a in range(60):
        for found, radius in ((near, 12.0), (closer, 6.0)):
            mine = found.indices[found.indptr[a] : found.indptr[a + 1]]
            assert mine.tolist() == np.flatnonzero(distance[a] < radius).tolist()
    np.testing.assert_allclose(near.nearest(columns), np.sort(distance, axis=0)[1], rtol=1e-12)


@pytest.mark.parametrize("radius", [3.0, 12.0, 24.0])
def test_neighbours_of_sorted_columns_are_the_same(radius):
    xy = np.random.default_rng(8).uniform(-15, 110, (400, 2))
    xy[::7] = np.rint(xy[::7])
    strips = Strips.build(xy, 100, 24)
    ours = Neighbours.of_strips(xy[strips.order], strips.first, radius)
    theirs = Neighbours.within(xy[strips.order], radius)
    np.testing.assert_array_equal(ours.indptr, theirs.indptr)
    np.testing.assert_array_equal(ours.indices, theirs.indices)


def test_lists_of_many_neighbours():
    xy = np.random.default_rng(8).uniform(0, 5, (90, 2))
    strips = Strips.build(xy, 48, 48)
    near = Neighbours.of_strips(xy[strips.order], strips.first, 40.0)
    assert near.indices.tolist() == 90 * list(range(90))


def test_columns_are_held_back():
    make = np.random.default_rng(2)
    columns, start, prior = make.normal(size=(9, 4)), make.normal(size=(9, 2)), make.uniform(size=9)
    frozen, gradient = np.arange(9) % 4 == 0, make.normal(size=(9, 4))
    expected = np.where(frozen[:, None], 0.0, gradient)
    expected[:, 1:3] += prior[:, None] * (start - columns[:, 1:3])
    hold_back(0, 9, columns, start, prior, frozen, gradient)
    np.testing.assert_allclose(gradient, expected)


@pytest.mark.parametrize("nx", [7, 16, 60])
def test_means_under_columns(nx):
    make = np.random.default_rng(nx)
    image = make.uniform(1, 2, (50, nx))
    room = image_room(image.shape, apart=True)
    room[:, :nx], room[:, nx:] = image, 0.0
    at = np.column_stack([make.uniform(-1, nx, 40), make.uniform(-1, 50, 40)])
    found = np.empty(40)
    _kernels.means_under(0, 40, room, nx, at, 1.3, 5.0, found)
    yy, xx = np.mgrid[:50, :nx]
    for (x, y), mean in zip(at, found, strict=True):
        weight = np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / (2 * 1.3**2)) / (2 * np.pi * 1.3**2)
        assert mean == pytest.approx(np.sum(weight * image), rel=1e-4, abs=1e-5)


def test_strips_hold_every_column_once():
    xy = np.random.default_rng(9).uniform(-20, 120, (80, 2))
    strips = Strips.build(xy, 100, 24)
    assert strips.count == 4 and sorted(strips.order) == list(range(80))
    y = xy[strips.order, 1]
    for k in range(1, strips.count - 1):
        mine = y[strips.first[k] : strips.first[k + 1]]
        assert ((mine >= 24 * k - 0.5) & (mine < 24 * (k + 1) - 0.5)).all()


_FIT = """
import hashlib
import numpy as np
from stemdisp.refine import refine_columns
from stemdisp.simulate import simulate_stack
stack, truth = simulate_stack(seed=1, n_frames=1, size=160)
inside = truth[["x_px", "y_px"]].ge(20).all(axis=1) & truth[["x_px", "y_px"]].lt(140).all(axis=1)
found = refine_columns(stack.inav[0], truth.loc[inside, ["species", "x_px", "y_px"]])
numbers = found.select_dtypes("number").to_numpy(dtype=float)
print(hashlib.sha256(numbers.tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_a_first_run_gives_the_bits_of_every_later_one(tmp_path):
    """Code that was just compiled, and the same code from the cache."""
    there = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    bits = [
        subprocess.run(
            [sys.executable, "-c", _FIT], env=there, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(3)
    ]
    assert len(bits[0]) > 60
    assert bits[1] == bits[0] and bits[2] == bits[0]


@pytest.mark.parametrize("n", [1, 2, 7, 1000])
def test_the_middle_is_the_median(n):
    values = np.random.default_rng(n).normal(size=n)
    assert middle(values) == np.median(values)
    assert middle(values.astype(np.float32)) == np.median(values.astype(np.float32))


def test_medians_of_groups():
    np.testing.assert_array_equal(
        middles(np.array([3.0, 1.0, 2.0, 9.0]), np.array([0, 0, 0, 1])), [2.0, 9.0]
    )
    assert np.isnan(middle(np.empty(0)))


class TestMoves:
    """What `move_columns` makes of steps, one limit after the other."""

    COLUMNS = np.array([[10.0, 20.0, 30.0, 4.0]])
    SITE = np.array([[20.0, 30.0]])

    def move(self, *steps, expected=10.0, leash=6.0, max_step=1e3, wider=0.0):
        """Take steps one after the other; give the columns after each and how far each went."""
        columns, (last, factor) = self.COLUMNS.copy(), (np.zeros((1, 4)), np.ones(1))
        out, moved, seen = np.empty((1, 4)), np.empty(1), []
        # errors of position and intensity: 0.2 and 0.5, at a level of 0.01
        inverse = np.diag([25.0, 4.0, 4.0, 1.0]).astype(np.float32)[None]
        limits = (max_step, 2.0, 9.0, 0.01, 0.0, 0.5)
        for step in steps:
            move_columns(
                0, 1, columns, np.array([step], float), np.array([wider]), inverse, self.SITE,
                np.array([leash]), np.array([expected]), limits, last, factor, out, moved,
            )  # fmt: skip
            columns = out.copy()
            seen.append((columns[0], moved[0]))
        return seen

    def test_a_small_step_is_taken_as_it_is(self):
        ((column, moved),) = self.move((1.0, 0.3, -0.4, 0.0))
        np.testing.assert_allclose(column, [11.0, 20.3, 29.6, 4.0])
        assert moved == pytest.approx(0.5 / (0.5 * 0.2))  # over half an error

    def test_intensities_count_over_their_own_error(self):
        ((_, moved),) = self.move((5.0, 0.0, 0.0, 0.0))
        assert moved == pytest.approx(5.0 / (0.5 * 0.5))

    def test_long_steps_are_shortened_and_columns_stay_at_their_site(self):
        ((column, moved),) = self.move((0.0, 3.0, 4.0, 0.0), max_step=0.5)
        np.testing.assert_allclose(column[1:3], [21.2, 31.6])  # half a width of 4
        assert moved == pytest.approx(5.0 / 0.1)  # what it wanted
        ((column, _),) = self.move((0.0, 30.0, 40.0, 0.0))
        np.testing.assert_allclose(column[1:3], [23.6, 34.8])  # the leash

    def test_intensities_and_widths_have_bounds(self):
        assert self.move((1e3, 0, 0, 0))[0][0][0] == 50.0
        assert self.move((-1e3, 0, 0, 0))[0][0][0] == -25.0
        assert self.move((1e3, 0, 0, 0), expected=0.0)[0][0][0] == 1010.0
        for width in ({"wider": 100.0}, {"wider": -100.0}):
            sign = np.sign(width["wider"])
            column = self.move((0, 0, 0, 0), **width)[0][0]
            assert column[3] == pytest.approx(4 * np.exp(sign * 0.08))
        grown = self.move(*[(0, 0, 0, 0)] * 30, wider=100.0)
        assert grown[-1][0][3] == 9.0

    def test_what_swings_is_braked_and_what_goes_on_is_not(self):
        there, back, on = self.move((0, 1, 0, 0), (0, -1, 0, 0), (0, -0.5, 0, 0))
        assert there[0][1] == 21.0 and back[0][1] == 20.5  # halved
        assert on[0][1] == pytest.approx(20.5 - 0.5 * 0.7)  # and again nearly whole
        steady = self.move((0, 1, 0, 0), (0, 1, 0, 0))
        assert steady[1][0][1] == 22.0

    def test_a_step_that_is_no_number_is_seen(self):
        ((column, _),) = self.move((0.0, np.nan, 0.0, 0.0))
        assert np.isnan(column[1])
