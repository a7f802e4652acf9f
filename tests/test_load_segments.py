"""Detector segments and DPC vectors: which signals are taken, in which order and shape."""

import h5py
import numpy as np
import pytest
import tifffile
from _written_files import write_dm3, write_emd, write_velox

from stemdisp.dpc import integrate_dpc
from stemdisp.errors import DataError
from stemdisp.inspection import inspect
from stemdisp.load import classify, dose_of, load, signal_pixel_size_A

NAMES = ("DF4-A", "DF4-B", "DF4-C", "DF4-D")


@pytest.fixture
def segments(image):
    """Four images that cannot be taken for each other."""
    return np.stack([image + 10 * k for k in range(4)])


@pytest.fixture
def scans(segments):
    """Three scans of four segments: (frame, segment, y, x)."""
    return np.stack([segments, segments + 100, segments + 200])


def navigation(signal):
    """Return the names of the navigation axes in the order of the array."""
    return [axis.name for axis in reversed(signal.axes_manager.navigation_axes)]


def values(signal):
    return signal.data.compute() if signal._lazy else signal.data


def named(segments, names=NAMES):
    """Return segments by name, in the wrong order."""
    return {names[k]: segments[..., k, :, :] for k in (2, 0, 3, 1)}


def everything(image, segments):
    """Return what a Velox file of a DPC experiment holds."""
    dpc = (image + 1j * image[::-1]).astype(np.complex64)
    return {"HAADF": image, "iDPC": 5 * image, "DPC": dpc, **named(segments), "A-C": 7 * image}


# Which signals


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("kind", ["auto", "dpc-segments"])
@pytest.mark.parametrize("single", [False, True])
def test_velox_segments_in_their_order(tmp_path, scans, image, kind, lazy, single):
    truth = scans[0] if single else scans
    path = write_velox(tmp_path / "a.emd", {"HAADF": image, **named(truth)})
    signal = load(path, kind=kind, lazy=lazy)
    assert signal._lazy is lazy
    assert np.array_equal(values(signal), truth)
    assert navigation(signal) == (["segment"] if single else ["frame", "segment"])
    assert signal.metadata.stemdisp.segments == list(NAMES)
    assert classify(signal, kind) == classify(signal) == "dpc-segments"
    assert signal_pixel_size_A(signal) == pytest.approx((0.3, 0.2))
    if lazy:
        assert set().union(*signal.data.chunks[:-2]) == {1}


@pytest.mark.parametrize("writer", [write_velox, write_emd, write_dm3])
def test_every_format_with_titles_has_segments(tmp_path, segments, writer):
    path = writer(tmp_path / "a.x", named(segments))
    assert np.array_equal(load(path).data, segments)


def test_what_a_file_with_everything_gives(tmp_path, image, segments):
    path = write_velox(tmp_path / "a.emd", everything(image, segments))
    signal = load(path)
    assert np.array_equal(signal.data, 5 * image) and classify(signal) == "image"
    assert np.array_equal(load(path, kind="image").data, 5 * image)
    assert np.array_equal(load(path, kind="dpc-segments").data, segments)
    vector = load(f"{path}::DPC")
    assert np.array_equal(vector.data, np.stack([image, image[::-1]]))
    assert np.array_equal(load(f"{path}::DF4", kind="auto").data, segments)
    assert np.array_equal(load(f"{path}::DF4-B").data, segments[1])
    assert np.array_equal(load(f"{path}::DF4-B", kind="image").data, segments[1])
    assert navigation(load(f"{path}::DF4", kind="stack")) == ["frame"]
    without = everything(image, segments)
    without.pop("iDPC")
    path = write_velox(tmp_path / "b.emd", without)
    assert navigation(load(path)) == ["segment"]  # what was counted, before what was made of it
    assert navigation(load(path, kind="dpc-segments")) == ["segment"]
    del without["DF4-C"]
    path = write_velox(tmp_path / "c.emd", without)
    assert navigation(load(path)) == ["component"]


@pytest.mark.parametrize("kind", ["image", "stack"])
def test_an_image_or_a_stack_is_never_made_of_segments(tmp_path, image, segments, kind):
    path = write_velox(tmp_path / "a.emd", {"HAADF": image, **named(segments)})
    assert np.array_equal(load(path, kind=kind).data, image)
    path = write_velox(tmp_path / "b.emd", named(segments))
    with pytest.raises(DataError, match=r"b\.emd: holds 'DF4-C', 'DF4-A', .*; name one as"):
        load(path, kind=kind)


@pytest.mark.parametrize(
    "names",
    [
        ("A", "B", "C", "D"),
        ("BF-S A", "BF-S B", "BF-S C", "BF-S D"),
        ("seg_a", "seg_b", "seg_c", "seg_d"),
    ],
)
def test_names_of_segments(tmp_path, segments, names):
    path = write_velox(tmp_path / "a.emd", named(segments, names))
    signal = load(path)
    assert np.array_equal(signal.data, segments)
    assert signal.metadata.stemdisp.segments == list(names)


def test_eight_segments(tmp_path, image):
    truth = np.stack([image + k for k in range(8)])
    names = [f"PAD-{letter}" for letter in "ABCDEFGH"]
    path = write_velox(tmp_path / "a.emd", dict(zip(names, truth, strict=True)))
    assert np.array_equal(load(path).data, truth)


@pytest.mark.parametrize(
    "names",
    [
        ("HAADF", "ABF", "BF", "LAADF"),  # end in letters, but of different words
        ("Image B", "Image C", "Image D", "Image E"),
        ("DF4-A", "DF4-B", "DF4-C", "DF4-E"),
        ("A-C", "B-D", "HAADF", "BF"),
        ("image 1", "image 2", "image 3", "image 4"),
    ],
)
def test_other_images_are_not_taken_for_segments(tmp_path, segments, names):
    path = write_velox(tmp_path / "a.emd", named(segments, names))
    with pytest.raises(DataError, match="name one as"):
        load(path)
    with pytest.raises(DataError, match="no set of detector segments and no DPC vector"):
        load(path, kind="dpc-segments")


def test_sets_that_are_not_clear(tmp_path, image, segments):
    incomplete = dict(zip(("DF4-A", "DF4-B", "DF4-D"), segments, strict=False))
    path = write_velox(tmp_path / "a.emd", {"HAADF": image, **incomplete})
    with pytest.raises(DataError, match=r"a\.emd: .*there is no 'DF4-C' among"):
        load(path, kind="dpc-segments")
    two = {**named(segments), **named(segments, ("S-A", "S-B", "S-C", "S-D"))}
    path = write_velox(tmp_path / "b.emd", two)
    with pytest.raises(DataError, match="holds 2 sets of detector segments"):
        load(path)
    assert load(f"{path}::S-").metadata.stemdisp.segments == ["S-A", "S-B", "S-C", "S-D"]
    uneven = {**named(segments), "DF4-D": np.stack([image, image])}
    path = write_velox(tmp_path / "c.emd", uneven)
    with pytest.raises(DataError, match="different sizes or numbers of frames"):
        load(path)
    path = write_velox(tmp_path / "d.emd", {"HAADF": image})
    with pytest.raises(DataError, match=r"d\.emd.*'dpc-segments', but the data hold one image"):
        load(path, kind="dpc-segments")


def test_a_segment_without_signal_is_named(tmp_path, segments):
    segments[2] = 4
    path = write_velox(tmp_path / "a.emd", named(segments))
    with pytest.raises(DataError, match=r"segment 'DF4-C': every pixel is 4"):
        load(path)
    segments[2, 0, 0] = 5
    assert load(write_velox(tmp_path / "b.emd", named(segments))).data.shape == (4, 24, 32)


# DPC vectors


@pytest.mark.parametrize("lazy", [False, True])
def test_a_complex_dpc_signal_becomes_its_components(tmp_path, image, lazy):
    dpc = np.stack([image + 2j * image, 3 * image - 1j * image]).astype(np.complex64)
    path = write_velox(tmp_path / "a.emd", {"HAADF": image, "DPC": dpc})
    signal = load(path, lazy=lazy)
    data = values(signal)
    assert navigation(signal) == ["frame", "component"]
    assert np.array_equal(data[:, 0], dpc.real) and np.array_equal(data[:, 1], dpc.imag)
    assert data.dtype == np.float32
    assert signal.metadata.stemdisp.dpc_vector is True
    assert not signal.metadata.has_item("stemdisp.segments")
    assert classify(signal) == "dpc-segments"


@pytest.mark.parametrize("names", [("DPCx", "DPCy"), ("DPC_X", "dpc y")])
def test_a_pair_of_images_is_a_vector(tmp_path, image, names):
    path = write_velox(
        tmp_path / "a.emd", {names[1]: 2 * image, "HAADF": 9 * image, names[0]: image}
    )
    for kind in ("auto", "dpc-segments"):
        assert np.array_equal(load(path, kind=kind).data, np.stack([image, 2 * image]))
    assert np.array_equal(load(path, kind="image").data, 9 * image)
    path = write_velox(tmp_path / "b.emd", {"HAADF": image, names[0]: image})
    with pytest.raises(DataError, match="name one as"):
        load(path)


def test_other_complex_data_stay_refused(tmp_path, image):
    path = write_velox(tmp_path / "a.emd", {"FFT": image + 1j * image})
    for kind in ("auto", "dpc-segments"):
        with pytest.raises(DataError, match="complex values"):
            load(path, kind=kind)
    path = write_velox(tmp_path / "b.emd", {"DPC": image + 1j * image})
    with pytest.raises(DataError, match="holds a DPC vector, no image; set kind"):
        load(path, kind="image")


# Axes by name, as HyperSpy keeps them


def with_axes(data, names, **metadata):
    from hyperspy.signals import Signal2D

    signal = Signal2D(data, metadata=metadata)
    for axis, name in zip(reversed(signal.axes_manager.navigation_axes), names, strict=True):
        axis.name = name
    return signal


@pytest.mark.parametrize("suffix", ["hspy", "emd"])
@pytest.mark.parametrize("lazy", [False, True])
def test_what_was_loaded_can_be_saved_and_loaded_again(tmp_path, scans, image, suffix, lazy):
    path = write_velox(tmp_path / "a.emd", {"HAADF": image, **named(scans)})
    first = load(path)
    first.save(str(tmp_path / f"b.{suffix}"))
    again = load(tmp_path / f"b.{suffix}", lazy=lazy)
    assert np.array_equal(values(again), scans)
    assert navigation(again) == ["frame", "segment"]
    assert classify(again) == "dpc-segments"
    if suffix == "hspy":
        assert again.metadata.stemdisp.segments == list(NAMES)
    vector = with_axes(scans[:, :2], ("frame", "component"))
    vector.save(str(tmp_path / f"c.{suffix}"))
    again = load(tmp_path / f"c.{suffix}", lazy=lazy)
    assert np.array_equal(values(again), scans[:, :2])
    assert again.metadata.stemdisp.dpc_vector


def test_segments_in_front_of_frames(tmp_path, scans):
    turned = with_axes(scans.swapaxes(0, 1), ("Segments", "time"))
    turned.save(str(tmp_path / "a.hspy"))
    signal = load(tmp_path / "a.hspy")
    assert np.array_equal(signal.data, scans)
    assert signal.metadata.stemdisp.segments == ["1", "2", "3", "4"]


def test_axes_of_other_names_stay_refused(tmp_path, scans):
    with_axes(scans, ("frame", "tilt")).save(str(tmp_path / "a.hspy"))
    with pytest.raises(DataError, match="2 navigation axes"):
        load(tmp_path / "a.hspy")
    with_axes(scans, ("frame", "segment")).save(str(tmp_path / "b.hspy"))
    for kind in ("image", "stack"):
        with pytest.raises(DataError, match=f"holds detector segments, no image.*{kind!r}"):
            load(tmp_path / "b.hspy", kind=kind)


def test_classify_goes_by_the_names_of_the_axes(scans):
    assert classify(with_axes(scans, ("frame", "segment"))) == "dpc-segments"
    assert classify(with_axes(scans[0], ("segment",)), "dpc-segments") == "dpc-segments"
    assert classify(with_axes(scans[0], ("component",))) == "dpc-segments"
    assert classify(with_axes(scans[0], ("frame",))) == "stack"
    with pytest.raises(DataError, match="2 navigation axes"):
        classify(with_axes(scans, ("frame", "tilt")))
    with pytest.raises(DataError, match="3 navigation axes"):
        classify(with_axes(scans[None], ("tilt", "frame", "segment")))
    for kind in ("image", "stack"):
        with pytest.raises(
            DataError, match=f"kind = {kind!r}, but the data hold detector segments"
        ):
            classify(with_axes(scans[0], ("segment",)), kind)


# Several files, and images without names


def test_files_of_segments_are_frames(tmp_path, scans, image):
    paths = [
        write_velox(tmp_path / f"{k}.emd", {"HAADF": image, **named(scan)})
        for k, scan in enumerate(scans)
    ]
    signal = load(paths)
    assert np.array_equal(signal.data, scans)
    assert navigation(signal) == ["frame", "segment"]
    three = write_velox(tmp_path / "three.emd", {"HAADF": image})
    with pytest.raises(DataError, match=r"0\.emd holds 4 detector segments but .*three.* images"):
        load([paths[0], three])


def test_files_of_one_image_are_segments_when_the_user_says_so(tmp_path, segments):
    paths = [tmp_path / f"{name}.tif" for name in NAMES]
    for path, data in zip(paths, segments, strict=True):
        tifffile.imwrite(path, data)
    signal = load(paths, kind="dpc-segments")
    assert np.array_equal(signal.data, segments)
    assert navigation(signal) == ["segment"]
    assert signal.metadata.stemdisp.segments == list(NAMES)
    assert navigation(load(paths)) == ["frame"]  # nothing in the files says so
    with pytest.raises(DataError, match="but the data hold 2 images"):
        load(paths[:2], kind="dpc-segments")


def test_a_series_is_segments_when_the_user_says_so(tmp_path, scans):
    for k, scan in enumerate(scans):
        np.save(tmp_path / f"scan {k}.npy", scan)
    signal = load(tmp_path / "scan 0.npy", kind="dpc-segments")
    assert np.array_equal(signal.data, scans[0]) and navigation(signal) == ["segment"]
    paths = [tmp_path / f"scan {k}.npy" for k in range(3)]
    signal = load(paths, kind="dpc-segments")
    assert np.array_equal(signal.data, scans) and navigation(signal) == ["frame", "segment"]
    np.save(tmp_path / "more.npy", np.concatenate([scans[0], scans[1]]))
    with pytest.raises(DataError, match="different numbers of images"):
        load([paths[0], tmp_path / "more.npy"], kind="dpc-segments")


def test_a_file_for_each_segment_may_hold_a_series(tmp_path, scans):
    paths = [tmp_path / f"{name}.npy" for name in NAMES]
    for k, path in enumerate(paths):
        np.save(path, scans[:, k])
    signal = load(paths, kind="dpc-segments")
    assert np.array_equal(signal.data, scans) and navigation(signal) == ["frame", "segment"]


def test_segments_of_different_pixel_size(tmp_path, segments):
    path = write_velox(tmp_path / "a.emd", named(segments))
    with h5py.File(path, "a") as file:
        metadata = file[f"Data/Image/{2:032x}/Metadata"]
        text = metadata[:, 0].tobytes().replace(b"3e-11", b"4e-11")
        metadata[:, 0] = np.frombuffer(text, dtype=np.uint8)
    with pytest.raises(DataError, match=r"a\.emd::DF4-D have different pixel sizes"):
        load(path)
    assert load(path, pixel_size=0.2).data.shape == (4, 24, 32)


# What later steps get


@pytest.mark.parametrize("dose", [50.0, [50.0] * 4])
def test_all_segments_of_a_scan_count_the_same_electrons(tmp_path, segments, scans, dose):
    stated = {"dose_e_per_A2": dose}
    with_axes(segments, ("segment",), stemdisp=stated).save(str(tmp_path / "a.hspy"))
    assert dose_of(load(tmp_path / "a.hspy"), 1).tolist() == [50.0]
    with_axes(segments, ("frame",), stemdisp=stated).save(str(tmp_path / "b.hspy"))
    assert dose_of(load(tmp_path / "b.hspy", kind="dpc-segments"), 1).tolist() == [50.0]
    assert dose_of(load(tmp_path / "b.hspy"), 4).tolist() == [50.0] * 4
    stated = {"dose_e_per_A2": [1.0, 2.0, 3.0]}
    with_axes(scans, ("frame", "segment"), stemdisp=stated).save(str(tmp_path / "c.hspy"))
    assert dose_of(load(tmp_path / "c.hspy"), 3).tolist() == [1.0, 2.0, 3.0]
    signal = load([tmp_path / "a.hspy", tmp_path / "c.hspy"])
    assert dose_of(signal, 4).tolist() == [50.0, 1.0, 2.0, 3.0]


def test_the_order_of_the_segments_decides_the_image(tmp_path):
    y, x = np.mgrid[:48, :64] * 2 * np.pi / 16
    truth = np.cos(x) + np.cos(y)
    dx, dy = -np.sin(x), -np.sin(y)
    segments = np.stack([10 + dx, 10 + dy, 10 - dx, 10 - dy]).astype(np.float32)
    square = (2e-11, 2e-11)
    path = write_velox(tmp_path / "a.emd", named(segments), pixel_m=square)
    right = integrate_dpc(load(path), rotation_deg=0)
    assert np.corrcoef(right.data.ravel(), truth.ravel())[0, 1] > 0.99
    swapped = named(segments, ("DF4-C", "DF4-B", "DF4-A", "DF4-D"))  # the file says otherwise
    path = write_velox(tmp_path / "b.emd", swapped, pixel_m=square)
    wrong = integrate_dpc(load(path), rotation_deg=0)
    assert np.corrcoef(wrong.data.ravel(), truth.ravel())[0, 1] < 0.5


# inspect


def test_inspect_says_what_is_there_and_what_is_taken(tmp_path, image, scans):
    path = write_velox(tmp_path / "a.emd", everything(image, scans))
    text = inspect(path)
    assert "  is: iDPC, one image\n" in text
    assert "  DF4-A, DF4-B, DF4-C, DF4-D: the 4 segments of a detector, series of 3 frames" in text
    assert "  is: DPC vector\n" in text
    assert 'kind = "auto" would take:\n  iDPC: iDPC, one image\n' in text
    assert '"dpc-segments" to take the segments or the DPC vector' in text
    assert "field of view: 0.96 x 0.48 nm" in text
    path = write_velox(tmp_path / "b.emd", {"HAADF": image, **named(scans)})
    assert "would take:\n  DF4-A, DF4-B, DF4-C, DF4-D: the 4 segments" in inspect(path)
    path = write_velox(tmp_path / "d.emd", {"DPC": image + 1j * image, **named(scans)})
    assert "would take:\n  DF4-A, DF4-B, DF4-C, DF4-D: the 4 segments" in inspect(path)
    path = write_velox(tmp_path / "c.emd", {"HAADF": image, "BF": image})
    text = inspect(path)
    assert "nothing by itself: holds 'HAADF', 'BF'" in text and '::NAME", NAME one of' in text
