"""Segments -> DPC vector -> iDPC: exact cases, the multislice truth, rotation, sign and order."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, maximum_filter

from stemdisp.dpc import analyse_dpc, dpc_vector, integrate_dpc, integrate_gradient
from stemdisp.pipeline import run

SHARED = Path(os.environ.get("STEMDISP_SHARED", Path(__file__).parents[2] / "shared"))
REPEATS = 6


def gaussians(shape, centres, sigma, pixel=(1.0, 1.0)):
    """Sum of unit Gaussians and its analytic gradient; centres (x, y) in units of length."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    x, y = x * pixel[0], y * pixel[1]
    phase, gx, gy = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for cx, cy in centres:
        g = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * sigma**2))
        phase += g
        gx -= (x - cx) / sigma**2 * g
        gy -= (y - cy) / sigma**2 * g
    return phase, gx, gy, x, y


def as_segments(dx, dy, level=1.0):
    """Four segments +x, +y, -x, -y with the given vector and sum 4 * level."""
    dx, dy = 4 * level * dx, 4 * level * dy
    return np.stack([level + dx / 2, level + dy / 2, level - dx / 2, level - dy / 2])


@pytest.fixture(scope="module")
def multislice():
    """Quadrants of the 10 nm thick interface, six periods wide, with the table of truth."""
    path = SHARED / "data" / "multislice" / "kto111_10nm.npz"
    if not path.exists():
        pytest.skip(f"the multislice images are not at hand ({path}); set STEMDISP_SHARED")
    with np.load(path) as data:
        quadrants, pixel = data["quadrants"].astype(float), float(data["pixel_A"])
    truth = json.loads(path.with_suffix(".json").read_text())
    return np.tile(quadrants, (1, 1, REPEATS)), pixel, truth


def truth_positions(truth, species, shape, pixel, margin_A=2.0):
    """Positions (n, 2) in pixels of all columns of a species, well inside the image."""
    rows = [c for c in truth["columns"] if c["species"] in species]
    period = truth["lateral_period_A"]
    xy = np.array([(c["x_A"] + k * period, c["y_A"]) for c in rows for k in range(REPEATS)])
    xy /= pixel
    inside = (xy > margin_A / pixel) & (xy < np.array(shape[::-1]) - 1 - margin_A / pixel)
    return xy[inside.all(axis=1)]


def test_integration_gives_the_phase_back_with_ramp_and_cut_atoms():
    # Atoms cross the borders and a ramp runs over the image: nothing in it is periodic.
    centres = [(3, 20), (31, 22), (52, 66), (90, 40), (118, 95), (60, 99), (20, 80)]
    phase, gx, gy, x, y = gaussians((100, 120), centres, 3.0)
    phase += 0.02 * x - 0.013 * y
    found = integrate_gradient(gx + 0.02, gy - 0.013)
    error = found - (phase - phase.mean())
    inner = error[6:-6, 6:-6]
    assert abs(inner - inner.mean()).max() < 1e-3
    assert abs(error).max() < 1e-2


def test_plain_fourier_division_fails_where_ours_is_exact():
    # Negative control of the test above: a periodic integration bends the same image.
    _, gx, gy, x, y = gaussians((100, 120), [(60, 50)], 3.0)
    gx, gy, truth = gx + 0.02, gy - 0.013, gaussians((100, 120), [(60, 50)], 3.0)[0]
    truth = truth + 0.02 * x - 0.013 * y
    kx, ky = np.fft.fftfreq(120), np.fft.fftfreq(100)[:, None]
    k2 = kx**2 + ky**2
    k2[0, 0] = 1.0
    spectrum = (kx * np.fft.fft2(gx) + ky * np.fft.fft2(gy)) / (2j * np.pi * k2)
    periodic = np.fft.ifft2(spectrum).real
    assert np.ptp(periodic - truth) > 1.0
    assert np.ptp(integrate_gradient(gx, gy) - truth) < 1e-3


def test_pixels_may_be_oblong():
    pixel = (0.1, 0.15)
    phase, gx, gy, _, _ = gaussians((90, 130), [(4.1, 5.2), (8.8, 9.0)], 0.6, pixel)
    found = integrate_gradient(gx, gy, pixel_size=pixel)
    assert abs(found - phase + phase.mean()).max() < 2e-3


def test_image_of_segments_is_the_phase():
    phase, gx, gy, _, _ = gaussians((128, 160), [(40, 40), (90, 70), (120, 100)], 4.0)
    image = integrate_dpc(as_segments(0.05 * gx, 0.05 * gy), rotation_deg=0.0)
    assert abs(image - 0.05 * (phase - phase.mean())).max() < 1e-4


def test_vector_of_quadrants_and_of_other_directions():
    rng = np.random.default_rng(1)
    data = 1.0 + 0.1 * rng.random((4, 32, 40))
    dx, dy = dpc_vector(data, smoothing_px=1e6)
    total = data.sum(axis=0).mean()
    np.testing.assert_allclose(dx, (data[0] - data[2]) / total)
    np.testing.assert_allclose(dy, (data[1] - data[3]) / total)
    # The same field seen by 6 segments in two rings, and by quadrants that start elsewhere.
    field_x, field_y = 0.02 * rng.standard_normal((2, 32, 40))
    for angles in ([10, 130, 250, 70, 190, 310], [45, 135, 225, 315], [0, 270, 180, 90]):
        t = np.radians(angles)[:, None, None]
        seen = 1.0 + 2 * (np.cos(t) * field_x + np.sin(t) * field_y)
        dx, dy = dpc_vector(seen, angles_deg=angles)
        np.testing.assert_allclose(dx, field_x, atol=1e-12)
        np.testing.assert_allclose(dy, field_y, atol=1e-12)


def test_noise_of_the_sum_stays_out_of_the_vector():
    # A constant deflection in counted segments: only the two opposite segments count.
    rng = np.random.default_rng(2)
    counts = rng.poisson(np.array([30.0, 20.0, 10.0, 20.0])[:, None, None], (4, 128, 128))
    dx, _ = dpc_vector(counts)
    expected = np.sqrt(40.0) / 80.0
    assert dx.mean() == pytest.approx(0.25, abs=4 * expected / 128)
    assert dx.std() == pytest.approx(expected, rel=0.03)


def test_bright_columns_at_the_true_places(multislice):
    quadrants, pixel, truth = multislice
    image = integrate_dpc(quadrants, pixel_size_A=pixel, high_pass_A=5.0)
    ta = truth_positions(truth, {"Ta"}, image.shape, pixel)
    peaks = np.argwhere(image == maximum_filter(image, 9))[:, ::-1]
    offset = np.linalg.norm(ta[:, None] - peaks, axis=2).min(axis=1) * pixel
    assert len(ta) > 40
    assert offset.max() < 0.15
    model = np.zeros(image.shape)
    for x, y in truth_positions(truth, {"Ta", "KO", "O"}, image.shape, pixel, 0.0):
        model[round(y), round(x)] += 1
    model = gaussian_filter(model, 0.35 / pixel)
    crystal = slice(int(11 / pixel), -int(2 / pixel))
    inside = (crystal, slice(20, -20))
    assert np.corrcoef(model[inside].ravel(), image[inside].ravel())[0, 1] > 0.6


def test_rotation_and_sign_come_from_the_data(multislice):
    quadrants, pixel, _ = multislice
    plain = analyse_dpc(quadrants, pixel_size_A=pixel)
    # Quadrants are no exact centre-of-mass detector; the bias is documented.
    assert abs(plain.rotation_deg) < 2.0
    assert plain.curl_fraction < 0.03
    assert plain.sign_margin > 10
    dx, dy = dpc_vector(quadrants)
    for angle in (-150.0, -20.0, 37.0, 100.0, 179.0):
        c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        turned = as_segments(c * dx - s * dy, s * dx + c * dy, level=quadrants.mean())
        found = analyse_dpc(turned, pixel_size_A=pixel)
        off = (found.rotation_deg + angle - plain.rotation_deg + 180) % 360 - 180
        assert abs(off) < 1.0
        assert np.corrcoef(found.image.ravel(), plain.image.ravel())[0, 1] > 0.999


def test_rotation_survives_counting_noise(multislice):
    quadrants, pixel, _ = multislice
    truth = analyse_dpc(quadrants, pixel_size_A=pixel)
    rng = np.random.default_rng(3)
    counts = rng.poisson(quadrants * 2000 * pixel**2)
    found = analyse_dpc(counts, pixel_size_A=pixel)
    assert abs(found.rotation_deg - truth.rotation_deg) < 1.0
    assert found.sign_margin > 5
    assert abs(found.curl_fraction - truth.curl_fraction) < 0.03


@pytest.mark.parametrize("order", [(0, 3, 2, 1), (0, 2, 1, 3)])
def test_segments_in_a_wrong_order_show_as_curl(multislice, order):
    quadrants, pixel, _ = multislice
    wrong = analyse_dpc(quadrants[list(order)], pixel_size_A=pixel)
    assert wrong.curl_fraction > 0.12


def test_a_given_rotation_that_is_opposite_is_seen(multislice):
    quadrants, pixel, _ = multislice
    right = analyse_dpc(quadrants, pixel_size_A=pixel, rotation_deg=0.0)
    wrong = analyse_dpc(quadrants, pixel_size_A=pixel, rotation_deg=180.0)
    assert right.sign_margin > 10
    assert wrong.sign_margin < -10
    np.testing.assert_allclose(wrong.image, -right.image, atol=1e-9)


def test_high_pass_takes_off_the_gaussian_average():
    _, gx, gy, x, _ = gaussians((200, 160), [(60, 60), (130, 150)], 3.0)
    gslow = -0.5 * np.sin(2 * np.pi * (x + 0.5) / 160)
    segments = as_segments(0.01 * (gx + gslow), 0.01 * gy)
    full = integrate_dpc(segments, rotation_deg=0.0, pixel_size_A=(0.1, 0.05))
    flat = integrate_dpc(segments, rotation_deg=0.0, pixel_size_A=(0.1, 0.05), high_pass_A=1.0)
    smooth = gaussian_filter(full, (20, 10), mode="reflect", truncate=8)
    np.testing.assert_allclose(flat, full - smooth, atol=1e-4 * np.ptp(full))
    assert abs(flat[:, -5:]).max() < 0.1 * np.ptp(full)


def test_signal_keeps_axes_and_input(multislice):
    hs = pytest.importorskip("hyperspy.api")
    quadrants, pixel, _ = multislice
    signal = hs.signals.Signal2D(quadrants.copy())
    for axis, offset in zip(signal.axes_manager.signal_axes, (1.5, -0.3), strict=True):
        axis.scale, axis.offset, axis.units = pixel / 10, offset, "nm"
    image = integrate_dpc(signal.as_lazy())
    np.testing.assert_allclose(image.data, integrate_dpc(quadrants, pixel_size_A=pixel))
    assert [a.scale for a in image.axes_manager.signal_axes] == [pixel / 10] * 2
    assert [a.offset for a in image.axes_manager.signal_axes] == [1.5, -0.3]
    assert image.metadata.stemdisp.dpc.sign_margin > 10
    np.testing.assert_array_equal(signal.data, quadrants)


GOOD = np.ones((4, 16, 16)) + np.random.default_rng(0).random((4, 16, 16))


@pytest.mark.parametrize(
    ("segments", "options", "message"),
    [
        (GOOD[0], {}, "segments of shape"),
        (GOOD[:2], {}, "n >= 3"),
        (GOOD * 1j, {}, "real numbers"),
        (np.where(GOOD > 1.999, np.nan, GOOD), {}, "NaN"),
        (-GOOD, {}, "dark level"),
        (np.ones((4, 16, 16)), {}, "all are alike"),
        (GOOD, {"angles_deg": [0, 90, 180]}, "angles_deg"),
        (GOOD, {"angles_deg": [0, 180, 0, 180]}, "fewer than three directions"),
        (GOOD, {"rotation_deg": "free"}, "rotation_deg='free'"),
        (GOOD, {"pixel_size_A": -1}, "pixel_size_A=-1"),
        (GOOD, {"high_pass_A": 0}, "high_pass_A=0"),
    ],
)
def test_wrong_calls_say_what_is_wrong(segments, options, message):
    with pytest.raises(ValueError, match=message):
        integrate_dpc(segments, **options)


def test_what_the_model_leaves_is_noise_where_the_segments_have_none(multislice):
    """Multislice images have no counting noise, but columns that are no Gaussians: true xi is 2."""
    from hyperspy.signals import Signal2D

    quadrants, pixel, _ = multislice
    signal = Signal2D(quadrants.astype(np.float32))
    for axis in signal.axes_manager.signal_axes:
        axis.scale, axis.units = pixel, "Å"
    settings = {"input": {"kind": "dpc-segments"}, "specimen": {"thickness_nm": 10.0}}
    found = run(signal, settings=settings)
    low, high = found.decay.xi_ci_planes
    assert low < 2.0 < high
    # 45; held against the noise of the curl, that is hardly there, it is 176
    assert found.summary["refine"]["misfit_ratio"] < 90
