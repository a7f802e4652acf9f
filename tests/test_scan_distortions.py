"""Drift within frames and jitter of lines: found and taken out; nothing else is moved."""

from __future__ import annotations

import numpy as np
import pytest
from _scans import PIXEL_A, image_frames, left_over, paths, segment_frames, specimen

from stemdisp import _scanpath
from stemdisp._dpcstack import align_segments, segment_series
from stemdisp._resample import resample
from stemdisp._scanpath import LinePrior
from stemdisp.register import align_stack
from stemdisp.simulate import render

SIZE = 320


@pytest.fixture(scope="module")
def blobs():
    return specimen(SIZE, seed=1)[0]


def rms(values):
    return np.sqrt(np.mean(values**2, axis=(0, 1)))


def test_drift_and_jitter_are_found_and_taken_out(blobs):
    truth = paths(6, SIZE, drift_px=1.5, jitter_px=(0.35, 0.15), seed=2)
    stack = image_frames(blobs, truth, SIZE, seed=2)
    rigid = align_stack(stack, correct_scan=False)
    found = align_stack(stack)
    # against the mean of six frames, 5/6 of the variance are left
    assert found.scan["jitter_px"] == pytest.approx((0.35, 0.15), rel=0.15)
    drift = truth[:, -1] - truth[:, 0]
    slopes = np.array([np.polyfit(np.linspace(-0.5, 0.5, SIZE), path, 1)[0] for path in truth])
    assert abs(drift).max() > 1.5  # there was something to find
    off = found.scan["drift_px"] - (slopes - slopes.mean(axis=0))
    assert abs(off).max() < 0.25
    before, after = rms(left_over(rigid, truth)), rms(left_over(found, truth))
    # what is left: the mean jitter of each half, which stays, and what the dose cannot tell
    kept = np.array([0.35, 0.15]) * np.sqrt(1 / 3 - 1 / 6)
    assert (before > 1.5 * after).all()
    assert (after < np.hypot(kept, 0.6 * np.array([0.35, 0.15]))).all()
    # columns are sharp again
    assert np.nanstd(found.image) > np.nanstd(rigid.image)


def test_where_nothing_moved_no_line_is_moved(blobs):
    truth = paths(6, SIZE, seed=3)
    found = align_stack(image_frames(blobs, truth, SIZE, dose=5000.0, seed=3))
    assert found.scan["jitter_px"] == (0.0, 0.0)
    assert abs(found.scan["drift_px"]).max() < 0.15
    assert rms(left_over(found, truth)).max() < 0.03


def test_frames_that_drift_while_scanned_are_placed_right(blobs):
    truth = paths(7, SIZE, drift_px=6.0, step_px=6.0, seed=4)
    stack = image_frames(blobs, truth, SIZE, seed=4)
    middle = truth.mean(axis=1) - truth[0].mean(axis=0)
    found = align_stack(stack)
    assert abs(found.shifts_px - middle).max() < 1.0  # a lattice vector is 19 px or more
    assert not found.guard["ambiguous"]
    # Negative control: the film of drifting frames fits as well a lattice vector off.
    rigid = align_stack(stack, correct_scan=False)
    assert rigid.guard["margin"] < 0.3 * found.guard["margin"]


def test_two_scan_directions_tell_the_drift_that_all_frames_share(blobs):
    """Each frame drifts by (3, -2) px from its first line to its last."""
    n, drift = 6, np.array([3.0, -2.0])
    line = np.linspace(-0.5, 0.5, SIZE)[:, None]
    down = [line * drift] * 3
    frames = [render(blobs, path, SIZE) for path in down]
    # lines that run down the specimen, one after the other from right to left
    turned = blobs.copy()
    turned[:, :2] = np.column_stack([blobs[:, 1], SIZE - 1 - blobs[:, 0]])
    seen = np.column_stack([drift[1] * line, -drift[0] * line])
    frames += [render(turned, seen, SIZE)] * 3
    rng = np.random.default_rng(5)
    stack = np.array(frames) + rng.normal(0, 1e-4, (n, SIZE, SIZE))
    rotation = [0, 0, 0, 90, 90, 90]
    found = align_stack(stack, scan_rotation_deg=rotation)
    assert found.scan["directions"] == 2
    np.testing.assert_allclose(found.scan["drift_px"][:3], [drift] * 3, atol=0.1)
    straight = render(blobs, np.zeros((SIZE, 2)), SIZE)

    def misfit(image, origin):
        x, y = origin
        ny, nx = image.shape
        cut = straight[y : y + ny, x : x + nx]
        inner = (slice(12, -12), slice(12, -12))
        return np.sqrt(np.mean((image - cut)[inner] ** 2)) / cut.std()

    # the first frame's middle line is where the straight image has it
    assert misfit(found.image, found.origin_px) < 0.05
    # Negative control: frames of one direction all drift alike, and nothing tells.
    alike = align_stack(stack[:3])
    assert abs(alike.scan["drift_px"]).max() < 0.1
    assert misfit(alike.image, alike.origin_px) > 0.15


@pytest.mark.parametrize(
    ("rotation", "message"),
    [
        (45, "multiples of 90"),
        ([0, 90], "must be one angle, or 3"),
        ([0, np.nan, 0], "must be one angle, or 3"),
    ],
)
def test_scan_directions_that_cannot_be_used(rotation, message):
    with pytest.raises(ValueError, match=message):
        align_stack(np.zeros((3, 64, 64)), scan_rotation_deg=rotation)


def test_oblong_frames_have_one_direction():
    with pytest.raises(ValueError, match="different shapes; use square frames"):
        align_stack(np.zeros((2, 64, 80)), scan_rotation_deg=[0, 90])


def test_a_tenth_of_a_pixel_at_ten_electrons_a_pixel(blobs):
    """Segments that count ten electrons a pixel and frame, at half of what hits the specimen."""
    dose = 20 / PIXEL_A**2
    truth = paths(8, SIZE, drift_px=0.5, seed=6)
    counts = segment_frames(blobs, truth, SIZE, dose=dose, seed=6)
    assert counts.sum(axis=1).mean() == pytest.approx(10, rel=0.02)
    found, _ = align_segments(segment_series(counts, step=(PIXEL_A, PIXEL_A)))
    middle = truth.mean(axis=1) - truth[0].mean(axis=0)
    assert np.sqrt(np.mean((found.shifts_px - middle) ** 2)) < 0.1


def test_segments_are_straightened_before_they_are_integrated(blobs):
    truth = paths(6, SIZE, drift_px=1.0, jitter_px=(0.3, 0.15), seed=7)
    counts = segment_frames(blobs, truth, SIZE, dose=2000.0, rotation_deg=25.0, seed=7)
    series = segment_series(counts, step=(PIXEL_A, PIXEL_A))
    assert abs(series.options["rotation_deg"]) == pytest.approx(25.0, abs=0.5)
    found, _ = align_segments(series)
    assert found.scan["jitter_px"] == pytest.approx((0.3, 0.15), rel=0.15)
    # Negative control: in integrated images the lines are mixed, and their jitter is lost.
    integrated = align_stack(np.stack([frame() for frame in series.source.frames]))
    assert integrated.scan["jitter_px"][0] < 0.8 * found.scan["jitter_px"][0]
    # the image is the phase of a still specimen, blurred by the jitter that is left
    still = render(blobs, np.zeros((SIZE, 2)), SIZE) / PIXEL_A**2
    x, y = found.origin_px
    ny, nx = found.image.shape
    shift = truth[0].mean(axis=0)
    cut = resample(still, np.array([x, y]) - shift, (nx, ny))
    inner = (slice(20, -20), slice(20, -20))
    a, b = (part[inner] - part[inner].mean() for part in (found.image, cut))
    assert np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b)) > 0.98
    assert np.sum(a * b) / np.sum(b * b) == pytest.approx(1.0, abs=0.05)


def test_lines_sampled_where_they_were_give_the_still_image(blobs):
    path = paths(1, SIZE, drift_px=2.0, jitter_px=(0.4, 0.12), seed=8)[0]
    still = render(blobs, np.zeros((SIZE, 2)), SIZE)
    moved = render(blobs, path, SIZE)
    back = resample(moved, np.zeros(2), (SIZE, SIZE), path=path)
    inner = (slice(12, -12), slice(12, -12))
    off = np.sqrt(np.mean((back - still)[inner] ** 2))
    assert off < 0.004 * still.std()
    assert np.sqrt(np.mean((moved - still)[inner] ** 2)) > 0.1 * still.std()
    unmoved = resample(still, np.zeros(2), (SIZE, SIZE), path=np.zeros((SIZE, 2)))
    np.testing.assert_allclose(unmoved, still, atol=1e-12)


def test_equations_of_lines_are_those_of_the_whole_problem():
    """Against dense least squares with the gradient of the image as its design."""
    rng = np.random.default_rng(9)
    ny, nx = 14, 40
    reference = render(
        np.array([[12.0, 6.0, 50.0, 2.5], [28.0, 9.0, 40.0, 2.0]]), np.zeros((nx, 2)), nx
    )
    reference = reference[:ny]
    frame = reference + rng.normal(0, 0.05, (ny, nx))
    alpha, beta = 3.0, 7.0
    found = _scanpath.line_equations(frame, reference, (alpha, beta))
    design = np.zeros((ny * nx, 2 * ny))
    for axis, slope in enumerate(
        (-np.gradient(reference, axis=1), -np.gradient(reference, axis=0))
    ):
        for row in range(ny):
            part = np.zeros((ny, nx))
            part[row] = slope[row]
            design[:, 2 * row + axis] = part.ravel()
    dense = np.zeros((2 * ny, 2 * ny))
    grid = design.reshape(ny, nx, -1)
    inside = np.pad(grid, ((1, 1), (1, 1), (0, 0)))
    along, across = np.diff(grid, axis=1), np.diff(inside, axis=0)[:, 1:-1]
    dense = alpha * design.T @ design
    dense += beta * np.einsum("yxi,yxj->ij", along, along)
    dense += beta * np.einsum("yxi,yxj->ij", across, across)
    block = np.zeros_like(dense)
    for row in range(ny):
        block[2 * row : 2 * row + 2, 2 * row : 2 * row + 2] = found.own[row]
        if row + 1 < ny:
            block[2 * row : 2 * row + 2, 2 * row + 2 : 2 * row + 4] = found.next[row]
            block[2 * row + 2 : 2 * row + 4, 2 * row : 2 * row + 2] = found.next[row].T
    np.testing.assert_allclose(block, dense, rtol=1e-10, atol=1e-10 * abs(dense).max())


def test_lines_and_their_prior_from_known_equations():
    """Equations with known information: the prior is found, and errors are as claimed."""
    rng = np.random.default_rng(10)
    n, jitter = 400, (0.3, 0.1)
    information = np.zeros((n, 2, 2))
    information[:, 0, 0], information[:, 1, 1] = 60.0, 90.0
    sets, truths = [], []
    for _ in range(6):
        walk = np.cumsum(rng.normal(0, 0.02, (n, 2)), axis=0)
        truth = walk + rng.normal(0, 1, (n, 2)) * jitter
        noise = rng.normal(0, 1, (n, 2)) / np.sqrt([60.0, 90.0])
        right = np.einsum("rij,rj->ri", information, truth + noise)
        sets.append(_scanpath.LineEquations(information, np.zeros((n - 1, 2, 2)), right))
        truths.append(truth)
    prior = _scanpath.find_prior(sets)
    assert prior.jitter_x == pytest.approx(0.3, rel=0.1)
    assert prior.jitter_y == pytest.approx(0.1, rel=0.2)
    assert prior.walk == pytest.approx(0.02, rel=0.4)
    found = np.array([_scanpath.line_path(each, prior) for each in sets])
    left = np.sqrt(np.mean((found - truths) ** 2, axis=(0, 1)))
    plain = 1 / np.sqrt([60.0, 90.0])
    assert (left < 0.95 * plain).all()  # better than without the prior
    # Negative control: a prior of no jitter does not follow the lines.
    stiff = np.array([_scanpath.line_path(each, LinePrior(1e-3, 1e-3, 0.02)) for each in sets])
    assert np.sqrt(np.mean((stiff - truths) ** 2, axis=(0, 1)))[0] > 0.25


def spoiled(frame, how):
    """A frame as things go wrong."""
    from scipy import ndimage

    if how == "blurred":
        return ndimage.gaussian_filter(frame, 5.0)
    if how == "charged":
        out = frame.copy()
        out[150:] += 5 * frame.std() * np.linspace(0, 1, SIZE - 150)[:, None]
        out[200:230] *= 4
        return out
    if how == "jumped":
        return np.vstack([frame[: SIZE // 2], np.roll(frame, 9, axis=1)[SIZE // 2 :]])
    return (frame + np.roll(frame, 8, axis=1)) / 2  # doubled


@pytest.mark.parametrize("how", ["blurred", "charged", "jumped", "doubled"])
def test_spoiled_frames_are_left_out_and_the_others_kept(blobs, how):
    truth = paths(5, SIZE, drift_px=2.0, jitter_px=(0.2, 0.1), seed=11)
    stack = image_frames(blobs, truth, SIZE, seed=11)
    assert align_stack(stack).used.all()  # negative control
    stack[3] = spoiled(stack[3], how)
    found = align_stack(stack)
    np.testing.assert_array_equal(found.used, [True, True, True, False, True])
    assert np.isnan(found.shifts_px[3]).all() and found.places[3] is None
