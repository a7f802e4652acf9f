"""Frames -> shifts and mean: precision, no jumps by whole cells, noise of the mean, bad frames."""

from __future__ import annotations

import numpy as np
import pytest

from stemdisp import _filter, register
from stemdisp._candidates import Candidates
from stemdisp._placement import place_frames
from stemdisp._source import frame_source
from stemdisp.errors import DataError
from stemdisp.register import align_stack

CELL = np.array([[28.0, 0.0], [0.0, 39.9]])  # px; sites of a perovskite seen along [1-10]
SITES = (((0.0, 0.5), 1.0), ((0.0, 0.0), 0.8), ((0.5, 0.5), 0.4))
SIGMA = 4.0
PAD = 60


def crystal(shape, film, angle_deg=3.0, seed=0):
    """Blobs (x, y, height) of a turned lattice, with a random film on the upper 40 per cent."""
    rng = np.random.default_rng(seed)
    t = np.radians(angle_deg)
    u, v = CELL @ np.array([[np.cos(t), np.sin(t)], [-np.sin(t), np.cos(t)]])
    i, j = (a.ravel() for a in np.meshgrid(np.arange(-30, 30), np.arange(-30, 30)))
    blobs = []
    for (a, b), height in SITES:
        xy = (i + a)[:, None] * u + (j + b)[:, None] * v + [5.3, 7.9]
        blobs.append(np.column_stack([xy, np.full(len(xy), height)]))
    blobs = np.vstack(blobs)
    blobs = blobs[((blobs[:, :2] > -PAD) & (blobs[:, :2] < np.array(shape[::-1]) + PAD)).all(1)]
    if film:
        edge = 0.4 * shape[0]
        n = int((shape[1] + 2 * PAD) * (edge + PAD) / 90)
        x, y = rng.uniform(-PAD, shape[1] + PAD, n), rng.uniform(-PAD, edge, n)
        film_blobs = np.column_stack([x, y, rng.uniform(0.05, 0.25, n)])
        blobs = np.vstack([blobs[blobs[:, 1] > edge], film_blobs])
    return blobs


def with_defects(blobs, shape, share=-0.6):
    """Change one of the bright columns near the centre."""
    blobs = blobs.copy()
    far = np.hypot(blobs[:, 0] - shape[1] / 2, blobs[:, 1] - shape[0] / 2)
    blobs[np.argmin(far + 1e3 * (blobs[:, 2] < 0.9)), 2] *= 1 + share
    return blobs


def render(shape, blobs, shift, jitter=None):
    """Image of the blobs moved by shift (x, y), every row moved further by its jitter."""
    jitter = np.zeros(shape[0]) if jitter is None else jitter
    image = np.zeros(shape)
    reach = int(5 * SIGMA)
    for x, y, height in blobs + np.array([*shift, 0.0]):
        rows = slice(max(0, int(y) - reach), max(0, int(y) + reach + 1))
        cols = slice(max(0, int(x) - reach), max(0, int(x) + reach + 1))
        dy = np.arange(shape[0])[rows] - y
        dx = np.arange(shape[1])[None, cols] - x - jitter[rows, None]
        stamp = np.exp(-(dx**2) / (2 * SIGMA**2)) * np.exp(-(dy**2) / (2 * SIGMA**2))[:, None]
        image[rows, cols] += height * stamp
    return image


def noise(shape, kind, level, rng):
    """White noise, or noise with a 1/k^2 power spectrum, of a given standard deviation."""
    field = rng.standard_normal(shape)
    if kind == "idpc":
        k = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))
        k[0, 0] = np.inf
        field = np.fft.irfft2(np.fft.rfft2(field) / k, shape)
    return level * field / field.std()


def make_stack(blobs, shifts, shape, *, kind="idpc", level=0.1, jitter=0.3, seed=0):
    """Frames with line jitter, noise and a slow background of their own."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]] / max(shape)
    frames = []
    for shift in shifts:
        slow = 0.3 * np.cos(np.pi * (x * rng.uniform(0, 1.5) + y) + rng.uniform(0, 6))
        image = render(shape, blobs, shift, jitter * rng.standard_normal(shape[0]))
        frames.append(image + slow + noise(shape, kind, level, rng))
    return np.stack(frames)


def walk(n, step, seed):
    """Random drift with steps up to `step` px along each axis, frame 0 at the origin."""
    steps = np.random.default_rng(seed).uniform(-step, step, (n, 2))
    steps[0] = 0
    return np.cumsum(steps, axis=0)


def rms(found, truth):
    return np.sqrt(np.mean((found - truth) ** 2))


@pytest.mark.parametrize(
    ("kind", "level", "size", "seed"),
    [("idpc", 0.1, 256, 1), ("white", 0.3, 256, 2), ("idpc", 0.15, 384, 3)],
)
def test_shifts_of_a_noisy_interface_are_within_a_tenth_of_a_pixel(kind, level, size, seed):
    shape, truth = (size, size), walk(8, 12, seed)
    blobs = crystal(shape, film=True, seed=seed)
    stack = make_stack(blobs, truth, shape, kind=kind, level=level, seed=seed)
    before = stack.copy()
    found = align_stack(stack)
    assert found.used.all()
    assert rms(found.shifts_px, truth) < 0.1
    assert found.correlation.min() > 0.7
    assert not found.guard["ambiguous"]
    assert found.guard["max_transitivity_px"] < 0.5
    np.testing.assert_array_equal(stack, before)


def test_without_noise_the_shifts_are_nearly_exact():
    shape, truth = (256, 256), walk(5, 12, 4)
    blobs = crystal(shape, film=True)
    stack = np.stack([render(shape, blobs, shift) for shift in truth])
    assert abs(align_stack(stack).shifts_px - truth).max() < 0.02


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_defect_in_bulk_prevents_jumps(seed):
    shape, truth = (256, 256), walk(8, 18, seed)
    blobs = with_defects(crystal(shape, film=False), shape)
    blobs[:, 2] *= 1 + 0.6 * (blobs[:, 0] / shape[1] - 0.5)
    found = align_stack(make_stack(blobs, truth, shape, seed=seed))
    assert abs(found.shifts_px - truth).max() < 0.3


def test_drift_near_a_lattice_vector_needs_the_guard():
    shape = (256, 256)
    truth = np.arange(5)[:, None] * np.array([27.0, 1.5])
    stack = make_stack(crystal(shape, film=True), truth, shape)
    guarded = align_stack(stack)
    assert rms(guarded.shifts_px, truth) < 0.15
    # Negative control: the highest plain correlation from frame to frame goes astray.
    astray = register.align_frames(frame_source(stack), guard=False)
    error = astray.shifts_px - truth
    assert abs(error).max() > 20
    assert abs(np.hypot(*error.T).max() / CELL[0, 0] % 1 - 0.5) > 0.3  # whole cells


def test_a_perfect_crystal_is_called_ambiguous():
    shape = (256, 256)
    truth = walk(6, 18, 5)
    found = align_stack(make_stack(crystal(shape, film=False), truth, shape, seed=5))
    assert found.guard["ambiguous"]
    # The frames still fit each other: errors are whole lattice vectors.
    t = np.radians(3.0)
    cell = CELL @ np.array([[np.cos(t), np.sin(t)], [-np.sin(t), np.cos(t)]])
    cells = (found.shifts_px - truth) @ np.linalg.inv(cell)
    assert abs(cells - np.rint(cells)).max() < 0.02


def test_large_frames_are_placed_on_a_coarser_grid(monkeypatch):
    shape, truth = (256, 300), walk(6, 12, 6)
    blobs = crystal(shape, film=True)
    stack = make_stack(blobs, truth, shape, seed=6)
    monkeypatch.setattr(_filter, "_COARSE_SIDE", 128)
    monkeypatch.setattr(_filter, "_LEAST_SIDE", 64)
    assert rms(align_stack(stack).shifts_px, truth) < 0.1


def test_image_lies_where_origin_says():
    shape, truth = (200, 240), walk(5, 15, 7)
    blobs = crystal(shape, film=True)
    stack = np.stack([render(shape, blobs, shift) for shift in truth])
    found = align_stack(stack)
    x0, y0 = found.origin_px
    ny, nx = found.image.shape
    first = np.ceil(np.max(-truth, axis=0) - 0.03)
    assert (x0, y0) == tuple(first.astype(int))
    assert abs(found.image - stack[0][y0 : y0 + ny, x0 : x0 + nx]).max() < 0.01
    assert x0 + nx <= shape[1]
    assert y0 + ny <= shape[0]


@pytest.mark.parametrize("kind", ["white", "idpc"])
def test_noise_of_the_mean_is_measured(kind):
    shape, n, level = (256, 256), 7, 0.2
    truth = np.rint(walk(n, 8, 8))
    blobs = crystal(shape, film=True)
    found = align_stack(make_stack(blobs, truth, shape, kind=kind, level=level, jitter=0.1, seed=8))
    k, power = found.noise_psd
    band = (k > 0.03) & (k < 0.2)
    if kind == "white":
        assert power[band].mean() == pytest.approx(level**2 / n, rel=0.1)
        assert abs(np.polyfit(np.log(k[band]), np.log(power[band]), 1)[0]) < 0.2
    else:
        # noise() gives the power c / k^2 whose mean over the transform is level^2.
        grid = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1]))
        grid[0, 0] = np.inf
        scale = level**2 / np.mean(grid**-2.0) / n
        assert np.mean(power[band] * k[band] ** 2) == pytest.approx(scale, rel=0.15)
        assert np.polyfit(np.log(k[band]), np.log(power[band]), 1)[0] == pytest.approx(-2, abs=0.2)


def test_bad_frames_are_left_out():
    shape, truth = (256, 256), walk(8, 10, 9)
    stack = make_stack(crystal(shape, film=True), truth, shape, seed=9)
    stack[3] = 1.0
    stack[5] = noise(shape, "idpc", 0.3, np.random.default_rng(1))
    stack[6] = np.nan
    found = align_stack(stack)
    good = np.array([0, 1, 2, 4, 7])
    np.testing.assert_array_equal(np.flatnonzero(found.used), good)
    assert found.n_used == 5
    assert rms(found.shifts_px[good], truth[good]) < 0.1
    assert np.isnan(found.shifts_px[[3, 5, 6]]).all()


def test_shifts_count_from_the_first_good_frame():
    shape, truth = (256, 256), walk(5, 10, 10)
    stack = make_stack(crystal(shape, film=True), truth, shape, seed=10)
    stack[0] = 0.0
    found = align_stack(stack)
    assert not found.used[0]
    np.testing.assert_array_equal(found.shifts_px[1], 0.0)
    assert rms(found.shifts_px[1:], truth[1:] - truth[1]) < 0.15


def test_nan_pixels_are_ignored():
    shape = (256, 256)
    truth = np.array([[0.0, 0.0], [6.4, -3.3], [-5.1, 7.7]])
    blobs = crystal(shape, film=True)
    stack = np.stack([render(shape, blobs, shift) for shift in truth])
    stack[0, 100:110, 50:60] = np.nan
    stack[2, 30, 31] = 1e9 * np.nan
    found = align_stack(stack)
    x0, y0 = found.origin_px
    ny, nx = found.image.shape
    clean = render(shape, blobs, (0, 0))[y0 : y0 + ny, x0 : x0 + nx]
    assert rms(found.shifts_px, truth) < 0.1
    assert np.isfinite(found.image).all()
    # Around the hole the spline of its frame sees the filler; two other frames hold it down.
    assert abs(found.image - clean).max() < 0.1


def test_signal_keeps_scale_and_moves_the_offset():
    hs = pytest.importorskip("hyperspy.api")
    shape, truth = (128, 160), walk(4, 6, 11)
    data = make_stack(crystal(shape, film=True), truth, shape, level=0.05, seed=11)
    signal = hs.signals.Signal2D(data.copy())
    for axis, scale, offset in zip(
        signal.axes_manager.signal_axes, (0.1, 0.12), (2.0, -1.0), strict=True
    ):
        axis.scale, axis.offset, axis.units = scale, offset, "Å"
    found = align_stack(signal.as_lazy())
    plain = align_stack(data)
    np.testing.assert_allclose(found.shifts_px, plain.shifts_px)
    np.testing.assert_array_equal(found.signal.data, plain.image)
    x, y = found.signal.axes_manager.signal_axes
    assert (x.scale, y.scale, x.units, y.units) == (0.1, 0.12, "Å", "Å")
    assert x.offset == pytest.approx(2.0 + 0.1 * found.origin_px[0])
    assert y.offset == pytest.approx(-1.0 + 0.12 * found.origin_px[1])
    assert plain.signal is None
    np.testing.assert_array_equal(signal.data, data)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_single_image_passes_through(dimensions):
    image = render((64, 96), crystal((64, 96), film=False), (0, 0))
    found = align_stack(image if dimensions == 2 else image[None])
    np.testing.assert_allclose(found.image, image, atol=1e-12)
    np.testing.assert_array_equal(found.shifts_px, [[0.0, 0.0]])
    assert found.origin_px == (0, 0)
    assert found.noise_psd is None
    assert not found.guard["ambiguous"]


def test_progress_runs_to_the_end_and_small_limits_hold():
    shape, truth = (128, 128), walk(4, 5, 12)
    stack = make_stack(crystal(shape, film=True), truth, shape, level=0.05)
    seen = []
    found = align_stack(stack, max_shift_px=6, progress=lambda *step: seen.append(step))
    assert rms(found.shifts_px, truth) < 0.2
    done = [step for step, _ in seen]
    assert done == sorted(set(done))
    assert seen[-1][0] == seen[-1][1]


def candidates(true, score, others):
    """Candidates with the true shift and others, best first."""
    shift = np.array([true, *(xy for xy, _ in others)], dtype=float)
    scores = np.array([score, *(s for _, s in others)])
    order = np.argsort(scores)[::-1]
    return Candidates(shift[order], scores[order], scores[order], -1.0, 0.01, (100.0, 100.0))


def test_one_wrong_pair_is_overruled_by_the_others():
    truth = np.array([[0, 0], [5, 1], [11, 0], [14, -3]], dtype=float)
    wrong = [((33.0, 1.0), 0.9)]
    pairs = {
        (a, b): candidates(truth[b] - truth[a], 0.6, wrong if (a, b) == (0, 1) else [])
        for a in range(4)
        for b in range(a + 1, 4)
    }
    placed = place_frames(pairs, 4)
    np.testing.assert_allclose(placed.positions_px, truth, atol=1e-4)
    assert placed.report["n_repaired"] == 1
    # Without the guard the wrong pair carries all later frames with it.
    followed = place_frames(pairs, 4, guard=False)
    np.testing.assert_allclose(followed.positions_px[1:, 0] - truth[1:, 0], 28.0, atol=1e-4)


@pytest.mark.parametrize(
    ("stack", "options", "error", "message"),
    [
        (np.zeros((2, 3, 64, 64)), {}, ValueError, "stack of shape"),
        (np.zeros((3, 64, 64), complex), {}, ValueError, "real frames"),
        (np.zeros((3, 64, 8)), {}, ValueError, "at least 32 x 32"),
        (np.zeros((3, 64, 64)), {"upsample": 0}, ValueError, "upsample=0"),
        (np.zeros((3, 64, 64)), {"max_shift_px": -1}, ValueError, "max_shift_px=-1"),
        (np.zeros((3, 64, 64)), {}, DataError, "blank or constant"),
    ],
)
def test_wrong_calls_say_what_is_wrong(stack, options, error, message):
    with pytest.raises(error, match=message):
        align_stack(stack, **options)


def test_frames_without_common_area_are_refused():
    rng = np.random.default_rng(13)
    blobs = rng.uniform((0, 0, 0.5), (128, 300, 1.0), (300, 3))
    long = render((300, 128), blobs, (0, 0))
    stack = np.stack([long[y : y + 128] for y in range(0, 121, 24)])
    found = align_stack(stack[:4])
    np.testing.assert_allclose(found.shifts_px, [[0, -y] for y in (0, 24, 48, 72)], atol=0.2)
    with pytest.raises(
        DataError, match=r"share only \d+ % of their width and \d % of their height"
    ):
        align_stack(stack)
