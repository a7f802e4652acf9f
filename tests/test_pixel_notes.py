"""Pixels that measure nothing are counted in the warnings, and change no column elsewhere."""

import numpy as np
import pytest
from _known_images import PIXEL_A, simulated

from stemdisp._pixels import absurd
from stemdisp._source import Frame
from stemdisp.pipeline import run
from stemdisp.tables import Quality

WRONG = [(100, 40), (101, 40), (220, 250)]


def signal_of(image):
    from hyperspy.signals import Signal2D

    signal = Signal2D(image)
    for axis in signal.axes_manager.signal_axes:
        axis.scale, axis.units = PIXEL_A, "Å"
    return signal


@pytest.fixture(scope="module")
def clean():
    image, _ = simulated(rotation_deg=5.0, dose_e_per_A2=4000.0, film_A=10.0)
    image = image.astype(np.float32)
    return image, run(signal_of(image))


def codes(result):
    return [warning["code"] for warning in result.summary["warnings"]]


def test_a_good_image_has_no_such_warning(clean):
    assert not [code for code in codes(clean[1]) if code.endswith("-pixels")]


def test_values_that_nothing_can_have_are_left_out_and_counted(clean):
    """As flipped bits make them."""
    image, expected = clean
    image = image.copy()
    for (y, x), value in zip(WRONG, (3e38, -1e30, 1e9), strict=True):
        image[y, x] = value
    signal = signal_of(image.copy())
    result = run(signal)
    assert np.array_equal(signal.data, image)  # the user's own is left alone
    (text,) = [w["message"] for w in result.summary["warnings"] if w["code"] == "absurd-pixels"]
    assert text.startswith("3 pixels") and "up to 3e+38" in text
    assert "missing-pixels" not in codes(result)  # they were told of
    far = np.ones(len(expected.columns), dtype=bool)
    for y, x in WRONG:
        far &= np.hypot(expected.columns["x_px"] - x, expected.columns["y_px"] - y) > 25
    assert len(result.columns) == len(expected.columns)
    moved = result.columns.loc[far, "x_A"] - expected.columns.loc[far, "x_A"]
    # a few thousandths of the errors: what the left-out pixels say of the common background
    assert np.nanmax(np.abs(moved) / expected.columns.loc[far, "x_err_A"]) < 0.1
    near = np.hypot(result.columns["x_px"] - 40, result.columns["y_px"] - 100) < 4
    assert (result.columns.loc[near, "quality"] & int(Quality.MASKED)).all()


def test_missing_and_saturated_pixels_are_counted(clean):
    image = clean[0].copy()
    image[200:206, 100:110] = np.nan
    image[100:104, 200:204] = image[np.isfinite(image)].max() * 1.1
    result = run(signal_of(image))
    found = {w["code"]: w["message"] for w in result.summary["warnings"]}
    assert found["missing-pixels"].startswith("60 pixels")
    assert found["saturated-pixels"].startswith("16 pixels")


@pytest.mark.parametrize("scale", [-0.015, 0.015])
def test_a_pixel_size_that_makes_no_sense_is_not_used_in_silence(clean, tmp_path, scale):
    signal = signal_of(clean[0])
    for axis in signal.axes_manager.signal_axes:
        axis.scale, axis.units = scale, "nm"
    signal.save(tmp_path / "a.hspy")
    result = run({"input": {"path": [str(tmp_path / "a.hspy")]}})
    found = [w["message"] for w in result.summary["warnings"] if w["code"] == "pixel-size"]
    if scale > 0:
        assert found == []
    else:
        assert len(found) == 1 and "makes no sense" in found[0] and "-0.015 nm" in found[0]
        assert result.summary["pixel_size_A"] == pytest.approx([PIXEL_A, PIXEL_A], rel=0.01)


@pytest.mark.parametrize(("ranges", "found"), [(5, 1), (4, 0)])
def test_a_pixel_brighter_than_any_atom_is_found(ranges, found):
    image = np.random.default_rng(0).random((64, 64))
    image[5, 6] = ranges
    assert np.count_nonzero(absurd(image)) == found


def test_frames_lose_such_values_too():
    frame = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    frame[5, 6], frame[7, 8] = 1e30, np.inf
    read = Frame(lambda: frame)()
    assert np.isnan(read[5, 6]) and np.isnan(read[7, 8])
    assert np.count_nonzero(np.isnan(read)) == 2


@pytest.mark.parametrize("kind", ["normal", "sparse counts", "bright spot", "constant"])
def test_what_a_detector_can_see_is_not_absurd(kind):
    rng = np.random.default_rng(0)
    image = {
        "normal": rng.normal(size=(64, 64)),
        "sparse counts": rng.poisson(0.02, size=(64, 64)),
        # wider than a pixel: what is not, no atom and no particle can be
        "bright spot": rng.normal(size=(64, 64))
        + 300 * np.pad(np.ones((3, 3)), ((9, 52), (30, 31))),
        "constant": np.ones((64, 64)),
    }[kind]
    assert not absurd(image).any()
