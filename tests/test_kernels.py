"""The compiled kernels of the joint fit against sums over pixels that use none of its algebra."""

import numpy as np
import pytest

from stemdisp import _kernels

GRID = (96, 100)
PAIR = {"x": [48.3, 52.1], "y": [44.2, 47.9], "volume": [30.0, -12.0], "sigma": [3.1, 3.7]}


def stamp(volume, x, y, sigma):
    yy, xx = np.mgrid[: GRID[0], : GRID[1]]
    r2 = (xx - x) ** 2 + (yy - y) ** 2
    return volume / (2 * np.pi * sigma**2) * np.exp(-r2 / (2 * sigma**2))


def derivatives(c):
    """Images of d column / d (V, x, y, sigma) of column `c` of PAIR, by central differences."""
    p = np.array([PAIR[name][c] for name in ("volume", "x", "y", "sigma")])
    h = 1e-4
    return [(stamp(*(p + h * e)) - stamp(*(p - h * e))) / (2 * h) for e in np.eye(4)]


def inner(a, b, order):
    """Sum over pixels of a * b, or of the products of their gradients (Parseval, |k|^2)."""
    if order == 0:
        return np.sum(a * b)
    k = [2 * np.pi * np.fft.fftfreq(n) for n in GRID]
    k2 = k[0][:, None] ** 2 + k[1][None, :] ** 2
    return np.sum(np.fft.fft2(a) * np.conj(np.fft.fft2(b)) * k2).real / a.size


def arrays():
    return [np.array(PAIR[name]) for name in ("x", "y", "volume", "sigma")]


@pytest.mark.parametrize("order", [0, 1])
def test_information_is_the_summed_product_of_derivatives(order):
    indptr, indices = np.array([0, 2, 4]), np.array([0, 1, 0, 1])
    # pixels that count a quarter for intensities and widths, 0.64 for positions
    fields = np.stack([np.full(GRID, 0.25), np.full(GRID, 0.64)])
    seen = np.sqrt([0.25, 0.64, 0.64, 0.25])
    blocks = _kernels.pair_information(indptr, indices, *arrays(), fields, order)
    d = [derivatives(0), derivatives(1)]
    for block, (a, b) in zip(blocks, [(0, 0), (0, 1), (1, 0), (1, 1)], strict=True):
        expected = np.array([[inner(p, q, order) for q in d[b]] for p in d[a]])
        scale = np.sqrt(
            np.outer([inner(p, p, order) for p in d[a]], [inner(q, q, order) for q in d[b]])
        )
        expected *= np.outer(seen, seen)
        np.testing.assert_allclose(block / scale, expected / scale, atol=2e-7)


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

    ends, one = np.array([0, 1, 2]), np.ones((2, 1, 1))
    block = _kernels.pair_information(ends, np.array([1, 0]), *arrays(), one, 1)[0]
    d = [[gradient(image) / 60 for image in derivatives(c)] for c in (0, 1)]
    expected = np.array([[np.sum(p * q) for q in d[1]] for p in d[0]])
    np.testing.assert_allclose(block, expected, atol=0.005 * np.abs(block).max())


@pytest.mark.parametrize("order", [0, 1])
def test_projection_is_the_derivative_of_the_inner_product(order):
    residual = np.random.default_rng(3).normal(size=GRID)
    found = _kernels.project_residual(residual, *arrays(), 9.0, order)
    for c in range(2):
        expected = [inner(image, residual, order) for image in derivatives(c)]
        np.testing.assert_allclose(found[c], expected, rtol=1e-5, atol=1e-7)


def test_rendered_columns_hold_their_volume():
    out = np.zeros(GRID)
    _kernels.render_columns(out, *arrays(), 9.0)
    np.testing.assert_allclose(out.sum(), sum(PAIR["volume"]), rtol=1e-9)
    expected = sum(stamp(*(PAIR[n][c] for n in ("volume", "x", "y", "sigma"))) for c in (0, 1))
    np.testing.assert_allclose(out, expected, atol=1e-12)


def test_masked_share_under_a_column():
    image = np.where(np.arange(GRID[1]) < 48, 2.0, 9.0) * np.ones(GRID)
    mask = image < 3
    x, y, s = np.array([47.5, 20.0]), np.array([40.0, 40.0]), np.array([3.0, 3.0])
    mean, lost = _kernels.local_mean(image, mask, x, y, s, 4.0)
    np.testing.assert_allclose(mean, 2.0)
    np.testing.assert_allclose(lost, [0.5, 0.0], atol=1e-12)
