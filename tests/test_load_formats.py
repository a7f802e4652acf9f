"""Every format read whole and lazily, from files of real writers where there are any."""

import h5py
import numpy as np
import pytest
import tifffile
from _written_files import write_dm3, write_emd, write_mrc, write_ser, write_velox

from stemdisp._read import read_file
from stemdisp._units import axis_scale_A, is_nonsense, is_reciprocal
from stemdisp.errors import DataError
from stemdisp.inspection import inspect
from stemdisp.load import load, signal_pixel_size_A


@pytest.fixture
def frames(image):
    return np.stack([image, 2 * image, 3 * image])


def hyperspy_signal(data):
    """Return a HyperSpy signal with pixels of 0.02 x 0.03 nm."""
    from hyperspy.signals import Signal2D

    signal = Signal2D(data)
    for axis, scale in zip(signal.axes_manager.signal_axes, (0.02, 0.03), strict=True):
        axis.scale, axis.units = scale, "nm"
    return signal


def write_tif(path, frames, **options):
    tifffile.imwrite(path, frames, photometric="minisblack", **options)


def write_imagej(path, frames):
    units = {"unit": "nm", "axes": "TYX"}
    tifffile.imwrite(path, frames, imagej=True, resolution=(50, 100 / 3), metadata=units)


def write_ome(path, frames):
    sizes = {"PhysicalSizeX": 20, "PhysicalSizeY": 3e-5}
    units = {"axes": "TYX", "PhysicalSizeXUnit": "pm", "PhysicalSizeYUnit": "µm"}
    tifffile.imwrite(path, frames, ome=True, metadata=sizes | units)


def by_hyperspy(path, frames):
    hyperspy_signal(frames).save(str(path))


WRITERS = {
    "hspy": by_hyperspy,
    "emd": by_hyperspy,
    "HyperSpy tif": by_hyperspy,
    "tif": write_tif,
    "packed tif": lambda path, frames: write_tif(path, frames, compression="zlib"),
    "ImageJ tif": write_imagej,
    "OME tif": write_ome,
    "npy": np.save,
    "velox emd": lambda path, x: write_velox(path, {"iDPC": x}, pixel_m=(2e-11, 3e-11)),
    "ncem emd": lambda path, frames: write_emd(path, {"one": frames}),
    "mrc": write_mrc,
    "ser": lambda path, frames: write_ser(path, frames[:, ::-1]),  # rows from below
    "dm3": lambda path, frames: write_dm3(path, {"one": frames}),
}


def write(folder, kind, frames):
    """Write a series of one of the kinds; return its path."""
    path = folder / f"a.{kind.split()[-1]}"
    WRITERS[kind](path, frames)
    return path


KINDS = {
    "hspy": (0.2, 0.3),
    "emd": (0.2, 0.3),
    "ncem emd": (0.2, 0.4),
    "velox emd": (0.2, 0.3),
    "dm3": (0.2, 0.3),
    "mrc": (0.3, 0.3),
    "ser": (0.3, 0.3),
    "npy": None,
    "tif": None,
    "packed tif": None,
    "HyperSpy tif": (0.2, 0.3),
    "ImageJ tif": (0.2, 0.3),
    "OME tif": (0.2, 0.3),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_series_is_the_same_whole_and_lazily(tmp_path, frames, kind):
    path = write(tmp_path, kind, frames)
    whole, lazy = load(path), load(path, lazy=True)
    assert np.array_equal(whole.data, frames)
    assert lazy._lazy and not isinstance(lazy.data, np.ndarray)
    assert lazy.data.chunks == ((1, 1, 1), (24,), (32,))
    assert lazy.data.dtype == whole.data.dtype == np.float32
    assert np.array_equal(lazy.data.compute(), frames)
    for signal in (whole, lazy):
        found = signal_pixel_size_A(signal)
        assert found is None if KINDS[kind] is None else found == pytest.approx(KINDS[kind])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "ser"])
def test_the_limit_of_size_is_none_for_lazy_reading(tmp_path, frames, kind, monkeypatch):
    monkeypatch.setattr("stemdisp._gate.MAX_BYTES", 5000)
    path = write(tmp_path, kind, frames)
    with pytest.raises(DataError, match=r"more than the .* GiB that are read at once"):
        load(path)
    assert np.array_equal(load(path, lazy=True).data[1].compute(), frames[1])


def test_what_can_only_be_read_at_once_keeps_the_limit(tmp_path, frames, monkeypatch):
    ser = write(tmp_path, "ser", frames)
    packed = tmp_path / "one.tif"
    tifffile.imwrite(packed, frames[0], compression="zlib")
    assert np.array_equal(load(packed, lazy=True).data.compute(), frames[0])
    monkeypatch.setattr("stemdisp._gate.MAX_BYTES", 2000)
    for path in (ser, packed):
        with pytest.raises(DataError, match="more than the"):
            load(path, lazy=True)


def test_one_frame_is_read_without_the_rest(tmp_path, frames, monkeypatch):
    path = write(tmp_path, "packed tif", frames)
    read = tifffile.imread
    seen = []

    def counted(*args, **options):
        seen.append(options["key"])
        return read(*args, **options)

    monkeypatch.setattr(tifffile, "imread", counted)
    (signal,) = read_file(str(path), lazy=True).signals
    assert seen == []
    assert np.array_equal(signal.data[(2,)], frames[2])
    assert seen == [2]


def test_lazy_files_are_not_left_open(tmp_path, frames, recwarn):
    import gc

    path = write(tmp_path, "ImageJ tif", frames)
    lazy = load(path, lazy=True)
    assert np.array_equal(lazy.data.compute(), frames)
    del lazy
    gc.collect()
    assert [warning for warning in recwarn if warning.category is ResourceWarning] == []


@pytest.mark.parametrize("name", ["BTO_crystal_1.dm4", "Acquisition_18.emd", "iDPC9.tif"])
def test_published_images_stay_on_disk(real_file, name, monkeypatch):
    path = real_file(name)
    whole = load(path).data
    monkeypatch.setattr("stemdisp._gate.MAX_BYTES", whole.nbytes)
    lazy = load(path, lazy=True)
    assert not isinstance(lazy.data, np.ndarray)
    assert np.array_equal(lazy.data.compute(), whole)


@pytest.mark.parametrize("order", ["C", "F"])
def test_mapped_arrays_of_either_order(tmp_path, frames, order):
    np.save(tmp_path / "a.npy", np.asarray(frames, order=order))
    lazy = load(tmp_path / "a.npy", lazy=True).data
    assert np.array_equal(lazy.compute(), frames)
    assert np.array_equal(lazy[1].compute(), frames[1])


def test_a_mapped_series_is_not_held_in_memory(tmp_path):
    import pickle

    with open(tmp_path / "a.npy", "wb") as file:  # 0.4 GB that take no room on the disk
        header = {"descr": "<f4", "fortran_order": False, "shape": (100, 1024, 1024)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 4 * 100 * 2**20)
    lazy = load(tmp_path / "a.npy", lazy=True).data
    assert len(pickle.dumps(dict(lazy.dask))) < 1e6
    assert lazy[99].compute().shape == (1024, 1024)


def test_hdf5_in_one_piece_is_read_at_once(tmp_path, frames, monkeypatch):
    path = write(tmp_path, "hspy", frames)
    with h5py.File(path, "a") as file:
        group = next(iter(file["Experiments"].values()))
        del group["data"]
        group.create_dataset("data", data=frames)
    assert np.array_equal(load(path, lazy=True).data.compute(), frames)
    monkeypatch.setattr("stemdisp._gate.MAX_BYTES", 5000)
    with pytest.raises(DataError, match="that are read at once"):
        load(path, lazy=True)


def test_several_lazy_files_are_frames(tmp_path, frames):
    for k in range(3):
        np.save(tmp_path / f"{k}.npy", frames[k])
    np.save(tmp_path / "three.npy", frames)
    paths = [tmp_path / f"{name}.npy" for name in (0, "three", 2)]
    lazy = load(paths, lazy=True)
    assert lazy.data.chunks[0] == (1,) * 5
    assert np.array_equal(lazy.data.compute(), load(paths).data)


@pytest.mark.parametrize("kind", ["hspy", "ncem emd", "HyperSpy tif", "tif", "dm3"])
@pytest.mark.parametrize(
    ("stored", "loaded"), [("f2", "f4"), ("u2", "u2"), ("i2", "i2"), ("f8", "f8")]
)
def test_number_types(tmp_path, frames, kind, stored, loaded):
    data = np.rint(100 * np.abs(frames)).astype(stored)
    if kind == "dm3":
        data = data.astype("f4")  # all that the writer knows
        loaded = "f4"
    path = write(tmp_path, kind, data)
    for lazy in (False, True):
        signal = load(path, lazy=lazy)
        assert signal.data.dtype == np.dtype(loaded)
        assert np.array_equal(np.asarray(signal.data), data)


def test_complex_values_are_refused_in_every_format(tmp_path, frames):
    data = (frames + 1j * frames).astype(np.complex64)
    for kind in ("hspy", "emd", "npy", "velox emd"):
        path = write(tmp_path, kind, data)
        for lazy in (False, True):
            with pytest.raises(DataError, match=r"a\.\w+: holds complex values"):
                load(path, lazy=lazy)
        path.unlink()


def test_dm3_files_with_several_images(tmp_path, frames, image):
    path = write_dm3(tmp_path / "a.dm3", {"HAADF": image, "iDPC": 2 * image})
    assert np.array_equal(load(path).data, 2 * image)
    assert np.array_equal(load(f"{path}::HAADF").data, image)
    cut = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(cut)
    with pytest.raises(DataError, match=r"a\.dm3: cannot be read"):
        load(path)


@pytest.mark.parametrize("spoilt", [b"%%<%", b"%%%%"])
def test_dm_files_with_a_damaged_tag(tmp_path, image, spoilt):
    path = write_dm3(tmp_path / "a.dm3", {"one": image})
    path.write_bytes(path.read_bytes().replace(b"Origin%%%%", b"Origin" + spoilt, 1))
    if spoilt == b"%%%%":
        assert load(path).data.shape == image.shape
        return
    for lazy in (False, True):
        with pytest.raises(DataError, match=r"a\.dm3: cannot be read; it may be .* damaged"):
            load(path, lazy=lazy)


def test_an_npy_file_with_a_damaged_header(tmp_path, image):
    np.save(tmp_path / "a.npy", image)
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content.replace(b"}", b"(", 1))
    with pytest.raises(DataError, match=r"a\.npy: cannot be read"):
        load(tmp_path / "a.npy")


# Units


@pytest.mark.parametrize(
    ("unit", "angstrom"),
    [
        ("nm", 10.0),
        ("NM", 10.0),
        (" nm ", 10.0),
        (b"nm", 10.0),
        ("nm/px", 10.0),
        ("nm per pixel", 10.0),
        ("nanometer", 10.0),
        ("nanometers", 10.0),
        ("nanometres", 10.0),
        ("Å", 1.0),
        ("A\u030a", 1.0),  # A with a combining ring
        ("A", 1.0),
        ("Angstrom", 1.0),
        ("angstroms", 1.0),
        ("ångström", 1.0),
        ("pm", 0.01),
        ("picometers", 0.01),
        ("\u00b5m", 1e4),
        ("\u03bcm", 1e4),
        ("um", 1e4),
        ("micron", 1e4),
        ("microns", 1e4),
        ("micrometer", 1e4),
        ("mm", 1e7),
        ("cm", 1e8),
        ("m", 1e10),
        ("meters", 1e10),
    ],
)
def test_units_of_length(unit, angstrom):
    assert axis_scale_A(0.5, unit) == pytest.approx(0.5 * angstrom)
    assert not is_reciprocal(unit)


@pytest.mark.parametrize(
    "unit",
    ["px", "pixels", "<undefined>", "", " ", None, np.nan, 3, "dimensionless", "s", "counts"],
)
def test_units_that_are_none(unit):
    assert axis_scale_A(0.5, unit) is None
    assert not is_reciprocal(unit)


@pytest.mark.parametrize(
    ("scale", "unit", "nonsense"),
    [
        (0.5, "nm", False),
        (1.0, "", False),
        (1.0, "px", False),
        (None, "nm", False),
        (-0.5, "nm", True),
        (0.0, "nm", True),
        (float("nan"), "nm", True),
        (0.5, "furlong<script>", True),
        (0.5, "s", True),
    ],
)
def test_pixel_sizes_that_make_no_sense(scale, unit, nonsense):
    assert is_nonsense(scale, unit) == nonsense


@pytest.mark.parametrize(
    "unit",
    [
        "1/nm",
        "1 / nm",
        "1/Å",
        "1 / nanometer",
        "nm^-1",
        "nm**-1",
        "nm ** -1",
        "nm-1",
        "nm⁻¹",
        "nm^(-1)",
        "nm^{-1}",
        "1/m",
        "(1/nm)",
        "mrad",
        "milliradians",
        "deg",
    ],
)
def test_units_of_diffraction_patterns(write_hspy, image, unit):
    assert is_reciprocal(unit) and axis_scale_A(0.5, unit) is None
    with pytest.raises(DataError, match="reciprocal units"):
        load(write_hspy("a.hspy", image, scale=(0.1, 0.1), units=unit))


@pytest.mark.parametrize(
    ("written", "pixel_A"),
    [("nm", 0.2), ("micron", 200.0), ("\\u00B5m", 200.0), ("pixel", None), ("inch", None)],
)
def test_units_of_imagej(tmp_path, image, written, pixel_A):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, image, imagej=True, resolution=(50, 50), metadata={"unit": written})
    found = signal_pixel_size_A(load(path))
    assert found is None if pixel_A is None else found == pytest.approx((pixel_A, pixel_A))


# inspect


def test_inspect_reads_the_first_frame_of_large_files_only(tmp_path, image):
    path = tmp_path / "large.hspy"
    hyperspy_signal(image[None]).save(str(path))
    with h5py.File(path, "a") as file:
        group = next(iter(file["Experiments"].values()))
        del group["data"]
        shape = (3000, 1024, 1024)  # 12.6 GB, of which one frame is in the file
        data = group.create_dataset("data", shape, "f4", chunks=(1, 1024, 1024))
        data[0, :24, :32] = image
        data[7, 0, 0] = 1e6
        for axis, size in enumerate(shape):
            group[f"axis-{axis}"].attrs["size"] = size
    text = inspect(path)
    assert f"values {image.min():.6g} to {image.max():.6g} (first frame only)" in text
    assert "12.6 GB" in text and "series of 3000 frames" in text
    with pytest.raises(DataError, match=r"declares 11\.7 GiB"):
        load(path)
    assert load(path, lazy=True).data[7].max().compute() == 1e6


def test_inspect_says_what_small_files_hold(write_hspy, image):
    image[0, 0] = np.nan
    frames = np.stack([image, 3 * image])
    stated = {"stemdisp": {"dose_e_per_A2": [10.0, 20.0]}, "General": {"title": "stack"}}
    path = write_hspy("a.hspy", frames, scale=(0.02, 0.03), units="nm", metadata=stated)
    text = inspect(path)
    assert "- stack: 32 x 24 x 2 (x first), float32, 6.14 kB" in text
    assert f"to {3 * np.nanmax(image):.6g}, 2 values are not finite numbers" in text
    assert "  is: series of 2 frames\n" in text and "first frame only" not in text
    assert "0.2 x 0.3 angstrom, field of view: 0.64 x 0.72 nm" in text
    assert "  dose: 10 to 20 in each of 2 frames electrons" in text
