"""What a run starts from: large files stay on disk, segments bring their noise, doubts are told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from _scans import PIXEL_A, image_frames, paths, segment_frames, specimen

from stemdisp import _acquire
from stemdisp._acquire import acquire, open_input
from stemdisp._dpcstack import segment_series
from stemdisp._filter import ring_medians
from stemdisp.dpc import analyse_dpc
from stemdisp.errors import DataError
from stemdisp.pipeline import run
from stemdisp.register import align_stack
from stemdisp.simulate import render

ROOT = Path(__file__).resolve().parent.parent
SIZE = 288


def signal_of(data, *names, dose=None, scale=PIXEL_A):
    from hyperspy.signals import Signal2D

    made = Signal2D(data)
    for name, axis in zip(names, made.axes_manager.navigation_axes[::-1], strict=True):
        axis.name = name
    for name, axis in zip("xy", made.axes_manager.signal_axes, strict=True):
        axis.name, axis.scale, axis.units = name, scale, "Å"
    if dose is not None:
        made.metadata.set_item("stemdisp.dose_e_per_A2", dose)
    return made


@pytest.fixture(scope="module")
def blobs():
    return specimen(SIZE, seed=1)[0]


@pytest.fixture(scope="module")
def scans(blobs):
    """Five scans of four segments, at 2000 electrons per square angstrom each."""
    truth = paths(5, SIZE, drift_px=1.0, jitter_px=(0.3, 0.1), seed=2)
    return segment_frames(blobs, truth, SIZE, dose=2000.0, rotation_deg=-40.0, seed=2)


@pytest.fixture
def everything_is_large(monkeypatch):
    monkeypatch.setattr(_acquire, "_LOOK_BYTES", 0)
    monkeypatch.setattr(_acquire, "_HOLD_BYTES", 0)


def test_a_large_file_is_read_frame_by_frame_with_the_same_result(
    tmp_path, blobs, everything_is_large
):
    frames = image_frames(blobs, paths(4, SIZE, seed=3), SIZE, seed=3)
    frames[2, 100, 50:60] = np.nan
    path = str(tmp_path / "a.hspy")
    signal_of(frames, "frame").save(path, chunks=(1, SIZE, SIZE))
    large = open_input((path,), "auto")
    assert large._lazy
    whole = align_stack(frames)
    found = acquire(large, paths=(path,)).registration
    np.testing.assert_array_equal(found.image, whole.image)
    np.testing.assert_array_equal(found.shifts_px, whole.shifts_px)
    assert large._lazy  # nothing was loaded behind the back


def test_a_small_file_is_loaded_at_once(tmp_path, blobs):
    path = str(tmp_path / "a.hspy")
    signal_of(image_frames(blobs, paths(2, SIZE, seed=3), SIZE), "frame").save(path)
    assert not open_input((path,), "auto")._lazy


def test_noise_from_the_curl_is_that_of_the_image(blobs):
    path = np.zeros((1, SIZE, 2))
    counts = segment_frames(blobs, path, SIZE, dose=500.0, rotation_deg=20.0, seed=4)[0]
    result = analyse_dpc(counts, pixel_size_A=PIXEL_A)
    truth = render(blobs, path[0], SIZE) / PIXEL_A**2
    error = result.image - truth
    window = np.outer(np.hanning(SIZE), np.hanning(SIZE))
    power = abs(np.fft.fft2((error - error.mean()) * window)) ** 2 / np.sum(window**2)
    f = np.fft.fftfreq(SIZE)
    k, level = ring_medians(np.hypot(f, f[:, None]), power, 1 / SIZE)
    claimed = np.interp(k, *result.noise_psd)
    for low, high in ((0.02, 0.05), (0.05, 0.1), (0.1, 0.2)):
        band = (k > low) & (k < high)
        ratio = np.median(claimed[band] / (level[band] / np.log(2)))
        # each median of n exponential variates is known to 1 / (n^1/2 ln 2); the window leaves
        # 4/9 of the frequencies independent
        n = 4 / 9 * np.pi * (high**2 - low**2) * SIZE**2
        assert ratio == pytest.approx(1.0, abs=3 * np.sqrt(2 / n) / np.log(2)), (low, high)
    # Negative control: without noise the curl claims none.
    clean = segment_frames(blobs, path, SIZE, dose=1e9, rotation_deg=20.0, seed=4)[0]
    quiet = np.interp(k, *analyse_dpc(clean, pixel_size_A=PIXEL_A).noise_psd)
    band = (k > 0.02) & (k < 0.2)
    assert np.median(quiet[band] / claimed[band]) < 0.01


def test_a_series_of_segments_goes_all_the_way(scans):
    """From counts to delta(1) = 0.54 A, in a HyperSpy session."""
    signal = signal_of(scans, "frame", "segment", dose=2000.0)
    before = signal.data.copy()
    result = run(signal, settings={"analysis": {"bulk_from": 8}})
    np.testing.assert_array_equal(signal.data, before)
    first = result.planes.set_index("N").loc[1]
    assert first["delta_A"] == pytest.approx(0.54, abs=3 * first["delta_err_A"])
    assert first["delta_err_A"] < 0.03
    assert result.frames["used"].all() and len(result.frames) == 5
    assert result.frames["delta1_A"].notna().all()
    assert result.summary["input"]["kind"] == "dpc-segments"
    assert result.summary["input"]["n_frames"] == 5


def test_a_series_of_vectors_is_a_series_of_images(scans):
    vectors = np.stack([np.stack([s[0] - s[2], s[1] - s[3]]) / s.sum(axis=0).mean() for s in scans])
    signal = signal_of(vectors.astype(np.float32), "frame", "component")
    signal.metadata.set_item("stemdisp.dpc_vector", True)
    one = acquire(signal).image.data
    other = acquire(signal_of(scans, "frame", "segment")).image.data
    ny, nx = (min(a, b) for a, b in zip(one.shape, other.shape, strict=True))
    inner = (slice(20, ny - 20), slice(20, nx - 20))
    assert np.corrcoef(one[inner].ravel(), other[inner].ravel())[0, 1] > 0.99


def test_one_scan_of_a_vector_and_of_segments_are_the_same_image(scans):
    counts = scans[0]
    vector = np.stack([counts[0] - counts[2], counts[1] - counts[3]]) / counts.sum(axis=0).mean()
    signal = signal_of(vector.astype(np.float32), "component")
    signal.metadata.set_item("stemdisp.dpc_vector", True)
    one = acquire(signal)
    other = acquire(signal_of(counts, "segment"))
    a, b = (part.image.data - part.image.data.mean() for part in (one, other))
    assert np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b)) > 0.999
    assert one.noise_psd is not None and one.registration is None


def test_segments_without_a_specimen_are_doubted():
    rng = np.random.default_rng(5)
    empty = rng.poisson(20.0, (4, 96, 96)).astype(float)
    codes = {note["code"] for note in acquire(signal_of(empty, "segment")).warnings}
    assert codes & {"dpc-sign", "dpc-curl"}


def test_segments_of_several_scans_without_a_specimen_end_in_words():
    flat = np.ones((3, 4, 64, 64))
    with pytest.raises(DataError, match="the segments of no frame show atoms"):
        acquire(signal_of(flat, "frame", "segment"))


def test_a_blank_scan_and_a_noisy_one_do_not_end_the_series(scans):
    spoiled = scans.copy()
    spoiled[1] = 0.0
    found = acquire(signal_of(spoiled, "frame", "segment"))
    np.testing.assert_array_equal(found.registration.used, [True, False, True, True, True])
    assert [note["code"] for note in found.warnings] == ["frames-left-out"]
    stated = found.image.metadata.stemdisp.dpc
    assert abs(stated.rotation_deg) == pytest.approx(40.0, abs=1.0) and stated.sign_margin > 3


def test_rotation_and_sign_of_scans_too_noisy_to_tell_alone(blobs):
    """At two electrons a pixel and scan, all scans together give both."""
    counts = segment_frames(
        blobs, paths(8, SIZE, seed=8), SIZE, dose=170.0, rotation_deg=70.0, seed=8
    )
    assert counts.sum(axis=1).mean() < 2.0
    series = segment_series(counts, step=(PIXEL_A, PIXEL_A))
    assert series.options["rotation_deg"] == pytest.approx(70.0, abs=3.0)
    turned = segment_series(counts[:, [2, 3, 0, 1]], step=(PIXEL_A, PIXEL_A))
    assert turned.options["rotation_deg"] == pytest.approx(-110.0, abs=3.0)


def test_frames_with_oblong_pixels_are_not_turned(blobs):
    from hyperspy.signals import Signal2D

    signal = Signal2D(image_frames(blobs, paths(2, SIZE, seed=9), SIZE))
    for axis, scale in zip(signal.axes_manager.signal_axes, (0.15, 0.2), strict=True):
        axis.scale, axis.units = scale, "Å"
    signal.metadata.set_item("stemdisp.scan_rotation_deg", [0, 90])
    with pytest.raises(DataError, match="only frames with square pixels"):
        acquire(signal)
    with pytest.raises(ValueError, match="only frames with square pixels"):
        align_stack(signal)


def test_noise_of_frames_with_scattered_gaps_is_measured():
    rng = np.random.default_rng(10)
    still = np.tile(np.outer(np.hanning(16), np.hanning(16)), (12, 12))
    frames = still + rng.normal(0, 0.3, (10, 192, 192))
    whole = align_stack(frames, correct_scan=False).noise_psd
    frames[rng.random(frames.shape) < 0.05] = np.nan
    k, power = align_stack(frames, correct_scan=False).noise_psd
    band = (k > 0.05) & (k < 0.15)
    assert np.median(power[band]) == pytest.approx(np.median(whole[1][band]), rel=0.35)


_PEAK = """
import sys
from benchmarks.large import peak_gib
from stemdisp._acquire import acquire, open_input
path = sys.argv[1]
acquire(open_input((path,), "auto"), paths=(path,))
print(peak_gib() * 2**30)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_stack(tmp_path, blobs):
    """96 frames of 1024 x 1024 pixels need hardly more than 48 of them: both are whole blocks."""
    rng = np.random.default_rng(6)
    size, peaks = 1024, {}
    still = np.tile(render(blobs, np.zeros((SIZE, 2)), SIZE), (4, 4))[:size, :size]
    for n in (48, 96):
        frames = (still + rng.normal(0, 0.1 * still.std(), (n, size, size))).astype(np.float32)
        path = str(tmp_path / f"{n}.hspy")
        signal_of(frames, "frame").save(path, chunks=(1, size, size))
        code = _PEAK.replace(
            "path = ",
            "import stemdisp._acquire as a\na._LOOK_BYTES = 0\na._HOLD_BYTES = 0\npath = ",
            1,
        )
        done = subprocess.run(
            [sys.executable, "-c", code, path],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
        peaks[n] = float(done.stdout)
    data = 48 * size * size * 4
    assert peaks[96] - peaks[48] < 0.5 * data


def test_tables_of_a_lazy_run_are_those_of_an_eager_one(tmp_path, blobs, everything_is_large):
    frames = image_frames(blobs, paths(3, SIZE, seed=7), SIZE, dose=2000.0, seed=7)
    path = str(tmp_path / "a.hspy")
    signal_of(frames, "frame", dose=2000.0).save(path, chunks=(1, SIZE, SIZE))
    settings = {"analysis": {"bulk_from": 8}}
    lazy = run({"input": {"path": [path]}, **settings})
    eager = run(signal_of(frames, "frame", dose=2000.0), settings=settings)
    for name in ("columns", "planes", "frames"):
        pd.testing.assert_frame_equal(getattr(lazy, name), getattr(eager, name), check_exact=True)
