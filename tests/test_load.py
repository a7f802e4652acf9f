import os
import sys

import h5py
import numpy as np
import pytest
import tifffile
from _written_files import write_emd, write_mrc, write_ser, write_velox

import stemdisp
from stemdisp._hdf5scan import scan_hdf5
from stemdisp.errors import DataError
from stemdisp.inspection import inspect
from stemdisp.load import calibrated, classify, dose_of, load, signal_pixel_size_A


def axis_group(file, number=0):
    """Return the group of one axis in a HyperSpy file."""
    experiment = next(iter(file["Experiments"].values()))
    return experiment[f"axis-{number}"]


# Reading what is right


@pytest.mark.parametrize(
    ("name", "shape", "pixel_A"),
    [
        ("BTO_crystal_1.dm4", (413, 469), 0.29660),
        ("Test_TEM_image.dm4", (477, 489), 0.15277),
        ("Acquisition_18.emd", (1024, 1024), 0.122465),
        ("iDPC9.tif", (879, 874), None),
        ("test_ADF_cropped.hdf5", (400, 380), None),
        ("test_ABF_cropped.hdf5", (400, 380), None),
    ],
)
def test_published_images(real_file, name, shape, pixel_A):
    path = real_file(name)
    signal = load(path)
    assert signal.data.shape == shape
    assert signal.data.dtype.itemsize >= 2 and signal.data.dtype != np.float16
    assert np.isfinite(
        signal.data.sum(dtype=signal.data.dtype if signal.data.dtype.kind == "f" else None)
    )
    assert calibrated(signal) is (pixel_A is not None)
    if pixel_A is not None:
        assert signal_pixel_size_A(signal) == pytest.approx((pixel_A, pixel_A), rel=1e-4)
    assert name in inspect(path)
    assert np.array_equal(load(path, lazy=True).data.compute(), signal.data)


def test_the_package_keeps_the_function_under_the_name_load():
    assert stemdisp.load is load
    assert callable(sys.modules["stemdisp.load"].classify)


@pytest.mark.parametrize(
    ("unit", "angstrom"),
    [
        ("Å", 1.0),
        ("\u212b", 1.0),
        ("A", 1.0),
        ("Angstroms", 1.0),
        ("nm", 10.0),
        ("n_m", 10.0),
        ("[nm]", 10.0),
        ("pm", 0.01),
        ("µm", 1e4),
        ("\u03bcm", 1e4),
        ("um", 1e4),
        ("m", 1e10),
    ],
)
def test_units_become_angstrom_and_x_stays_x(write_hspy, image, unit, angstrom):
    signal = load(write_hspy("a.hspy", image, scale=(0.5, 0.25), units=unit))
    assert signal_pixel_size_A(signal) == pytest.approx((0.5 * angstrom, 0.25 * angstrom))
    assert [axis.name for axis in signal.axes_manager.signal_axes] == ["x", "y"]
    assert {axis.units for axis in signal.axes_manager.signal_axes} == {"Å"}
    assert [axis.size for axis in signal.axes_manager.signal_axes] == [32, 24]
    assert np.array_equal(signal.data, image)


@pytest.mark.parametrize(
    ("scale", "unit"),
    [((0.01, 0.01), ""), ((0.01, 0.01), "furlong"), ((-0.1, 0.1), "nm"), ((np.nan, 0.1), "nm")],
)
def test_a_pixel_size_without_sense_is_no_pixel_size(write_hspy, image, scale, unit):
    signal = load(write_hspy("a.hspy", image, scale=scale, units=unit))
    assert not calibrated(signal)
    assert signal_pixel_size_A(signal) is None
    assert [axis.scale for axis in signal.axes_manager.signal_axes] == [1.0, 1.0]


def test_a_given_pixel_size_wins(write_hspy, image):
    path = write_hspy("a.hspy", image, scale=(0.01, 0.01), units="nm")
    assert signal_pixel_size_A(load(path, pixel_size=0.2)) == (0.2, 0.2)
    assert signal_pixel_size_A(load(path, pixel_size=(0.2, 0.3))) == (0.2, 0.3)
    for wrong in (0, -1.0, float("nan"), (0.1, 0.1, 0.1)):
        with pytest.raises(ValueError, match="pixel_size"):
            load(path, pixel_size=wrong)


def test_offsets_are_converted_with_the_scale(tmp_path, image):
    from hyperspy.signals import Signal2D

    signal = Signal2D(image)
    for axis, offset in zip(signal.axes_manager.signal_axes, (2.0, -3.0), strict=True):
        axis.scale, axis.units, axis.offset = 0.01, "nm", offset
    signal.save(str(tmp_path / "a.hspy"))
    loaded = load(tmp_path / "a.hspy")
    assert [axis.offset for axis in loaded.axes_manager.signal_axes] == pytest.approx([20.0, -30.0])


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("suffix", ["tif", "mrc", "ser", "npy", "emd"])
def test_other_formats(tmp_path, image, suffix, lazy):
    path = tmp_path / f"a.{suffix}"
    if suffix == "tif":
        tifffile.imwrite(path, image)
    elif suffix == "mrc":
        write_mrc(path, image[None])
    elif suffix == "ser":
        write_ser(path, image)
    elif suffix == "npy":
        np.save(path, image)
    else:
        write_emd(path, {"a": image})
    signal = load(path, lazy=lazy)
    assert signal._lazy is lazy
    data = signal.data.compute() if lazy else signal.data
    if suffix == "ser":
        data = data[::-1]  # TIA counts rows from below
    assert np.array_equal(data, image)
    expected = {"mrc": (0.3, 0.3), "ser": (0.3, 0.3), "emd": (0.2, 0.4)}.get(suffix)
    found = signal_pixel_size_A(signal)
    assert found is None if expected is None else found == pytest.approx(expected)


@pytest.mark.parametrize("suffix", ["hspy", "tif", "mrc", "npy"])
def test_series(tmp_path, write_hspy, image, suffix):
    frames = np.stack([image, 2 * image, 3 * image])
    path = tmp_path / f"a.{suffix}"
    if suffix == "hspy":
        write_hspy("a.hspy", frames)
    elif suffix == "tif":
        tifffile.imwrite(path, frames, photometric="minisblack")
    elif suffix == "mrc":
        write_mrc(path, frames)
    else:
        np.save(path, frames)
    signal = load(path)
    assert np.array_equal(signal.data, frames)
    assert signal.axes_manager.navigation_shape == (3,)
    assert classify(signal) == "stack"


@pytest.mark.parametrize(
    ("stored", "loaded"),
    [
        (np.float16, np.float32),
        (np.bool_, np.uint8),
        (">f4", np.float32),
        (">u2", np.uint16),
        (np.uint8, np.uint8),
        (np.int32, np.int32),
        (np.float64, np.float64),
    ],
)
def test_number_types(tmp_path, image, stored, loaded):
    data = (np.abs(image) * 100).astype(stored) if stored != np.bool_ else image > 0
    np.save(tmp_path / "a.npy", data)
    signal = load(tmp_path / "a.npy")
    assert signal.data.dtype == np.dtype(loaded) and signal.data.dtype.isnative
    assert np.array_equal(signal.data, data)


def test_float16_does_not_overflow_in_sums(tmp_path, image):
    data = np.full((100, 100), 4000, dtype=np.float16)
    data[0, 0] = 0
    np.save(tmp_path / "a.npy", data)
    assert load(tmp_path / "a.npy").data.sum() == pytest.approx(4000 * 9999, rel=1e-3)


def test_several_files_are_frames(write_hspy, image):
    paths = [
        write_hspy("a.hspy", image, scale=(0.1, 0.1), units="Å"),
        write_hspy("b.hspy", np.stack([2 * image, 3 * image]), scale=(0.01, 0.01), units="nm"),
    ]
    signal = load(paths)
    assert np.array_equal(signal.data, np.stack([image, 2 * image, 3 * image]))
    assert signal_pixel_size_A(signal) == pytest.approx((0.1, 0.1))
    assert np.array_equal(load(paths, lazy=True).data.compute(), signal.data)
    with pytest.raises(ValueError, match="names no file"):
        load([])


def test_files_that_do_not_fit_together_are_both_named(write_hspy, image):
    a = write_hspy("a.hspy", image, scale=(0.1, 0.1), units="Å")
    small = write_hspy("small.hspy", image[:20], scale=(0.1, 0.1), units="Å")
    with pytest.raises(DataError, match=r"a\.hspy is 32 x 24 pixels but .*small\.hspy is 32 x 20"):
        load([a, small])
    coarse = write_hspy("coarse.hspy", image, scale=(0.2, 0.2), units="Å")
    with pytest.raises(DataError, match=r"a\.hspy and .*coarse\.hspy have different pixel sizes"):
        load([a, coarse])
    assert load([a, coarse], pixel_size=0.1).data.shape == (2, 24, 32)


def test_one_of_several_signals_is_named(tmp_path, image):
    images = {"HAADF": image, "DF4-A": 2 * image, "DF4-B": 3 * image}
    path = write_emd(tmp_path / "a.emd", images)
    with pytest.raises(DataError, match=r"holds .*'DF4-A', 'DF4-B'.*; name one as"):
        load(path)
    assert np.array_equal(load(f"{path}::HAADF").data, image)
    assert np.array_equal(load(f"{path}::DF4").data, np.stack([2 * image, 3 * image]))
    with pytest.raises(DataError, match="holds no usable image 'ABF'; it has"):
        load(f"{path}::ABF")
    path = write_emd(tmp_path / "b.emd", {**images, "iDPC": 4 * image})
    assert np.array_equal(load(path).data, 4 * image)


@pytest.mark.parametrize("lazy", [False, True])
def test_velox_files(tmp_path, image, lazy):
    images = {"HAADF": image, "iDPC": np.stack([4 * image, 5 * image])}
    path = write_velox(tmp_path / "a.emd", images)
    signal = load(path, lazy=lazy)
    data = signal.data.compute() if lazy else signal.data
    assert np.allclose(data, images["iDPC"])
    assert signal_pixel_size_A(signal) == pytest.approx((0.3, 0.2))
    assert np.allclose(load(f"{path}::HAADF").data, image)
    assert "- iDPC: 32 x 24 x 2" in inspect(path)


def test_signals_without_a_title_have_numbers(tmp_path, image):
    path = write_velox(tmp_path / "a.emd", {"": image, " ": 2 * image})
    assert np.allclose(load(f"{path}::signal 2").data, 2 * image)


def test_loading_leaves_the_file_alone_and_keeps_the_title(write_hspy, image):
    path = write_hspy("a.hspy", image, metadata={"General": {"title": "my image"}})
    before = path.read_bytes()
    assert load(path).metadata.General.title == "my image"
    assert path.read_bytes() == before


# Refusing what is wrong


def one_line(caught):
    text = str(caught.value)
    assert "\n" not in text and len(text) < 500
    return text


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.ones((24, 32), dtype=complex), "complex"),
        (np.zeros((24, 32), dtype=[("R", "u1"), ("G", "u1")]), "colour"),
        (np.full((24, 32), "a"), "non-numeric"),
        (np.zeros(100), r"shape \(100,\)"),
        (np.zeros((2, 3, 24, 32)), "navigation axes"),
        (np.zeros((24, 15)), "15 x 24 pixels; at least 16 x 16"),
        (np.zeros((0, 32)), "32 x 0 pixels"),
        (np.full((24, 32), np.nan), "no finite number"),
        (np.full((24, 32), np.inf), "no finite number"),
        (np.full((24, 32), 7), "every pixel is 7"),
    ],
)
def test_unsuitable_data_are_refused_by_name(tmp_path, data, message):
    np.save(tmp_path / "a.npy", data)
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path / "a.npy")
    assert "a.npy" in one_line(caught)


def test_some_missing_pixels_are_let_through(tmp_path, image):
    image[3, 4] = np.nan
    np.save(tmp_path / "a.npy", image)
    assert np.isnan(load(tmp_path / "a.npy").data[3, 4])


def test_pickled_arrays_are_refused_without_unpickling(tmp_path):
    marker = tmp_path / "ran"
    np.save(tmp_path / "a.npy", np.array([_Payload(str(marker))], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"a\.npy"):
        load(tmp_path / "a.npy")
    assert not marker.exists()


class _Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_colour_tiff(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((24, 32, 3), dtype=np.uint8), photometric="rgb")
    with pytest.raises(DataError, match="colour image"):
        load(tmp_path / "a.tif")


def test_spectrum_images_and_diffraction_patterns(tmp_path, write_hspy, image):
    from hyperspy.signals import Signal1D

    Signal1D(np.ones((24, 32, 50))).save(str(tmp_path / "s.hspy"))
    with pytest.raises(DataError, match="2 navigation axes"):
        load(tmp_path / "s.hspy")
    with pytest.raises(DataError, match="reciprocal units"):
        load(write_hspy("d.hspy", image, scale=(0.1, 0.1), units="1/nm"))


def test_paths_that_are_no_files(tmp_path):
    (tmp_path / "empty.tif").touch()
    cases = {
        "absent.tif": "no such file",
        "": "is a directory",
        "empty.tif": "is empty",
        "empty.tif/x": "cannot be opened",
        "a\0b": "cannot be opened",
    }
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.tif")
        cases["pipe.tif"] = "not a regular file"
    for name, message in cases.items():
        with pytest.raises(DataError, match=message) as caught:
            load(f"{tmp_path}/{name}")
        one_line(caught)


@pytest.mark.parametrize("suffix", ["tif", "hspy", "emd", "dm3", "dm4", "mrc", "ser", "npy", "xyz"])
def test_text_is_no_image(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_text("This is a letter, not an image.\n" * 40)
    with pytest.raises(DataError, match=r"kind that is read|makes no sense") as caught:
        load(path)
    one_line(caught)


@pytest.mark.parametrize("share", [10, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("suffix", ["tif", "mrc", "npy", "emd", "hspy", "dm4", "ser"])
def test_truncated_files(tmp_path, write_hspy, real_file, image, suffix, share):
    path = tmp_path / f"a.{suffix}"
    if suffix == "hspy":
        write_hspy("a.hspy", image)
    elif suffix == "emd":
        write_emd(path, {"a": image})
    elif suffix == "mrc":
        write_mrc(path, image[None])
    elif suffix == "npy":
        np.save(path, image)
    elif suffix == "ser":
        write_ser(path, image)
    elif suffix == "tif":
        tifffile.imwrite(path, image)
    else:
        path.write_bytes(real_file("BTO_crystal_1.dm4").read_bytes())
    whole = path.read_bytes()
    path.write_bytes(whole[: share if share > 1 else int(share * len(whole))])
    with pytest.raises(DataError, match=f"a.{suffix}") as caught:
        load(path)
    one_line(caught)


def test_headers_that_declare_too_much(tmp_path, write_hspy, image):
    path = write_mrc(tmp_path / "a.mrc", image[None], nx=10**6)
    with pytest.raises(DataError, match="shorter than its MRC header"):
        load(path)
    path = write_mrc(tmp_path / "b.mrc", image[None], nx=-5)
    with pytest.raises(DataError, match="makes no sense"):
        load(path)
    path = write_hspy("c.hspy", image)
    with h5py.File(path, "a") as file:
        group = next(iter(file["Experiments"].values()))
        del group["data"]
        group.create_dataset("data", shape=(10**6, 10**6), chunks=(1000, 1000), dtype="f4")
    with pytest.raises(DataError, match=r"declares 3725\.3 GiB"):
        load(path)


# HDF5 files that reach outside themselves or carry code


def test_an_axis_expression_is_refused_and_does_not_run(tmp_path, write_hspy, image):
    marker = tmp_path / "ran"
    path = write_hspy("a.hspy", image)
    with h5py.File(path, "a") as file:
        axis = axis_group(file)
        axis.attrs["_type"] = "FunctionalDataAxis"
        axis.attrs["expression"] = f"open({str(marker)!r}, 'w')"
    for lazy in (False, True):
        with pytest.raises(DataError, match="computed from an expression"):
            load(path, lazy=lazy)
    with pytest.raises(DataError, match="computed from an expression"):
        inspect(path)
    assert not marker.exists()


def test_private_metadata_are_dropped(write_hspy, image):
    path = write_hspy(
        "a.hspy",
        image,
        metadata={
            "stemdisp": {"dose_e_per_A2": 5.0},
            "Acquisition_instrument": {"TEM": {"beam_energy": 300.0}},
            "Sample": {"description": "x"},
        },
    )
    with h5py.File(path, "a") as file:
        next(iter(file["Experiments"].values()))["metadata/stemdisp"].attrs["_sig_x"] = 1.0
    metadata = load(path).metadata
    assert metadata.stemdisp.as_dictionary() == {"dose_e_per_A2": [5.0], "calibration": "none"}
    assert metadata.Acquisition_instrument.TEM.beam_energy == 300.0
    assert not metadata.has_item("Sample")


def _soft_link(file, folder):
    file["Experiments/link"] = h5py.SoftLink("/Experiments")


def _external_link(file, folder):
    file["Experiments/link"] = h5py.ExternalLink("other.hspy", "/")


def _external_storage(file, folder):
    (folder / "secret").write_bytes(bytes(range(200)))
    file.create_dataset("x", (200,), "u1", external=[(str(folder / "secret"), 0, 200)])


def _virtual(file, folder):
    layout = h5py.VirtualLayout(shape=(4,), dtype="i4")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "a", shape=(4,))
    file.create_virtual_dataset("x", layout)


def _cycle(file, folder):
    file["Experiments/again"] = file["Experiments"]


def _deep(file, folder):
    file.create_group("/".join(["g"] * 40))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_soft_link, "links to another place"),
        (_external_link, "links to another place"),
        (_external_storage, "keeps its values in another file"),
        (_virtual, "keeps its values in another file"),
        (_cycle, "contains itself"),
        (_deep, "groups deep"),
    ],
)
def test_hdf5_tricks(tmp_path, write_hspy, image, spoil, message):
    path = write_hspy("a.hspy", image)
    assert scan_hdf5(str(path))[0] == "hspy"
    with h5py.File(path, "a") as file:
        spoil(file, tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        load(path)
    one_line(caught)


def test_hdf5_with_too_many_objects(write_hspy, image, monkeypatch):
    path = write_hspy("a.hspy", image)
    monkeypatch.setattr("stemdisp._hdf5scan.MAX_OBJECTS", 5)
    with pytest.raises(DataError, match="more than 5 objects"):
        scan_hdf5(str(path))


def test_hdf5_of_another_layout(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.zeros((24, 32))
    with pytest.raises(DataError, match="neither HyperSpy's nor EMD"):
        load(tmp_path / "a.h5")


def test_axes_that_disagree_with_the_data(write_hspy, image):
    path = write_hspy("a.hspy", image)
    with h5py.File(path, "a") as file:
        axis_group(file).attrs["size"] = 100
    with pytest.raises(DataError, match=r"data of shape \(24, 32\) but axes for \(100, 32\)"):
        load(path)


# What a run asks of a signal


def test_dose(write_hspy, image):
    frames = np.stack([image, 2 * image])
    signal = load(write_hspy("a.hspy", frames, metadata={"stemdisp": {"dose_e_per_A2": 50.0}}))
    assert dose_of(signal, 2).tolist() == [50.0, 50.0]
    signal = load(
        write_hspy("b.hspy", frames, metadata={"stemdisp": {"dose_e_per_A2": [1.0, 2.0]}})
    )
    assert dose_of(signal, 2).tolist() == [1.0, 2.0]
    signal.metadata.stemdisp.dose_e_per_A2 = [1.0, 2.0, 3.0]
    with pytest.raises(DataError, match="one for each of the 2 frames"):
        dose_of(signal, 2)
    signal.metadata.stemdisp.dose_e_per_A2 = -1.0
    with pytest.raises(DataError, match="not a positive number"):
        dose_of(signal, 2)
    assert dose_of(load(write_hspy("c.hspy", frames)), 2) is None


def test_doses_of_several_files_are_put_together(write_hspy, image):
    a = write_hspy("a.hspy", image, metadata={"stemdisp": {"dose_e_per_A2": 50.0}})
    b = write_hspy("b.hspy", image + 1, metadata={"stemdisp": {"dose_e_per_A2": 70.0}})
    assert dose_of(load([a, b]), 2).tolist() == [50.0, 70.0]
    c = write_hspy("c.hspy", image + 2)
    assert dose_of(load([a, c]), 2) is None


def test_classify(write_hspy, image):
    one = load(write_hspy("a.hspy", image))
    four = load(write_hspy("b.hspy", np.stack([image] * 4)))
    assert classify(one) == classify(one, "image") == "image"
    assert classify(four) == classify(four, "stack") == "stack"
    assert classify(four, "dpc-segments") == "dpc-segments"
    with pytest.raises(DataError, match="kind = 'image', but the data hold 4 images"):
        classify(four, "image")
    for kind in ("stack", "dpc-segments"):
        with pytest.raises(DataError, match=f"kind = '{kind}', but the data hold one image"):
            classify(one, kind)
    with pytest.raises(ValueError, match="kind = 'movie'"):
        classify(one, "movie")


def test_inspect_says_what_is_missing(tmp_path, write_hspy, image):
    np.save(tmp_path / "a.npy", image)
    text = inspect(tmp_path / "a.npy")
    assert "32 x 24" in text and "float32" in text and "pixel size: not in the file" in text
    assert "[input] pixel_size" in text
    text = inspect(write_hspy("b.hspy", image, scale=(0.02, 0.03), units="nm"))
    assert "0.2 x 0.3 angstrom" in text and "[input] pixel_size" not in text
    np.save(tmp_path / "c.npy", np.ones((24, 32), dtype=complex))
    text = inspect(tmp_path / "c.npy")
    assert "not usable: it holds complex values" in text and "another file" in text
