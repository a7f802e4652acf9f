"""Zspy stores: read as they were written, and refused where they could mislead or run code."""

import json
import os
import sys
import warnings
import zipfile

import numpy as np
import pytest
from _written_files import write_zspy

from stemdisp import _gate, _read, _zarrscan
from stemdisp._acquire import open_input
from stemdisp._patterns import expand
from stemdisp._provenance import sha256_of
from stemdisp._stores import files_of
from stemdisp.errors import DataError
from stemdisp.inspection import inspect
from stemdisp.load import dose_of, load, signal_pixel_size_A

zarr = pytest.importorskip("zarr")

DATA = "Experiments/__unnamed__/data"


@pytest.fixture
def frames(image):
    """Frames that all differ, so that swapped ones are seen."""
    return np.stack([image, 2 * image, 3 * image, 5 * image])


@pytest.fixture
def store(tmp_path, frames):
    """A series whose pieces are parts of frames; the last ones overhang."""
    doses = {"dose_e_per_A2": [1.0, 2.0, 3.0, 4.0]}
    chunks = (3, frames.shape[1] // 2 + 1, frames.shape[2])
    return write_zspy(tmp_path / "a.zspy", frames, stemdisp=doses, chunks=chunks)


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def refused(path, match, lazy=(False, True)):
    for way in lazy:
        with pytest.raises(DataError, match=match) as caught:
            load(path, lazy=way)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def not_scanned(path, match):
    with pytest.raises(DataError, match=match):
        _zarrscan.scan_zspy(str(path), max_bytes=2**30)


# What is read


def test_a_series_keeps_values_pixels_and_doses(store, frames):
    whole, lazy = load(store), load(store, lazy=True)
    np.testing.assert_array_equal(whole.data, frames)
    assert lazy._lazy and set(lazy.data.chunks[0]) == {1}
    assert lazy.data.chunks[1:] == ((frames.shape[1],), (frames.shape[2],))
    np.testing.assert_array_equal(lazy.data.compute(), frames)
    for signal in (whole, lazy):
        assert signal_pixel_size_A(signal) == pytest.approx((0.2, 0.3))
        assert dose_of(signal, 4).tolist() == [1, 2, 3, 4]


def test_a_single_image(tmp_path, image):
    signal = load(write_zspy(tmp_path / "a.zspy", image))
    np.testing.assert_array_equal(signal.data, image)
    assert signal_pixel_size_A(signal) == pytest.approx((0.2, 0.3))


def test_segments_are_known_by_their_axis_and_names(tmp_path, frames):
    path = write_zspy(
        tmp_path / "a.zspy",
        np.stack([frames, frames + 1]),
        names=["frame", "segment", "y", "x"],
        stemdisp={"segments": ["é", "B", "C", "D"]},
    )
    for lazy in (False, True):
        signal = load(path, lazy=lazy)
        assert [axis.name for axis in signal.axes_manager.navigation_axes] == ["segment", "frame"]
        assert signal.metadata.stemdisp.segments == ["é", "B", "C", "D"]
        np.testing.assert_array_equal(np.asarray(signal.data)[1], frames + 1)


@pytest.mark.skipif(
    not hasattr(zarr.storage, "NestedDirectoryStore"), reason="HyperSpy needs zarr 2"
)
@pytest.mark.parametrize("options", [{}, {"chunks": (1, 24, 24)}])
def test_a_store_of_hyperspy_itself(tmp_path, frames, options):
    from hyperspy.signals import Signal2D

    signal = Signal2D(frames)
    for axis, scale in zip(signal.axes_manager.signal_axes, (0.02, 0.03), strict=True):
        axis.scale, axis.units = scale, "nm"
    signal.metadata.set_item("stemdisp.dose_e_per_A2", [1.0, 2.0, 3.0, 4.0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        signal.save(tmp_path / "h.zspy", **options)
    for lazy in (False, True):
        found = load(tmp_path / "h.zspy", lazy=lazy)
        np.testing.assert_array_equal(np.asarray(found.data), frames)
        assert signal_pixel_size_A(found) == pytest.approx((0.2, 0.3))
        assert dose_of(found, 4).tolist() == [1, 2, 3, 4]


def test_the_store_is_left_as_it_was(store):
    before = sha256_of([str(store)])
    load(store, lazy=True).data.compute()
    assert sha256_of([str(store)]) == before


def test_inspect_names_the_format(store):
    assert "HyperSpy zarr" in str(inspect(store))


# A directory as one input


def test_the_checksum_sees_every_file_and_its_name(store):
    path = str(store)
    first = sha256_of([path])
    piece = store / DATA / "0/0/0"
    piece.rename(piece.with_name("9"))
    moved = sha256_of([path])
    piece.with_name("9").rename(piece)
    assert sha256_of([path]) == first != moved
    (store / "extra").write_bytes(b"1")
    assert sha256_of([path]) != first


def test_only_stores_count_as_one_input(store, tmp_path):
    assert not list(files_of(tmp_path))
    assert sum(file.stat().st_size for _, file in files_of(store)) > 1000


def test_large_stores_are_opened_lazily(store, monkeypatch):
    monkeypatch.setattr("stemdisp._acquire._HOLD_BYTES", 1000)
    assert not open_input((str(store),), "auto")._lazy
    monkeypatch.setattr("stemdisp._acquire._LOOK_BYTES", 1000)
    assert open_input((str(store),), "auto")._lazy


@pytest.mark.parametrize("pattern", ["*.zspy", "*", "**/*"])
def test_patterns_take_a_store_as_one_field(store, tmp_path, pattern):
    (tmp_path / "folder").mkdir()
    found = expand([f"{tmp_path}/{pattern}"], leave_out=tmp_path / "results")
    assert found == [str(store)]


# What is refused


def test_links(store, tmp_path):
    (tmp_path / "elsewhere").write_bytes(b"1")
    (store / "link").symlink_to(tmp_path / "elsewhere")
    refused(store, r"'link' links to another place")


def test_links_in_place_of_a_folder_that_lead_back(store):
    (store / DATA / "7").symlink_to(store)
    refused(store, r"data/7' links to another place")


def test_special_files(store):
    os.mkfifo(store / "pipe")
    refused(store, "'pipe' is not a regular file")


def test_folders_without_end(store):
    (store / "/".join("d" * 40)).mkdir(parents=True)
    refused(store, "nested more than 32 folders deep")


def test_too_many_files(store, monkeypatch):
    monkeypatch.setattr(_zarrscan, "MAX_FILES", 20)
    not_scanned(store, "more than 20 files")


def test_too_many_folders(store, monkeypatch):
    monkeypatch.setattr(_zarrscan, "_MAX_ENTRIES", 200)
    assert _zarrscan.scan_zspy(str(store), max_bytes=2**30)
    for k in range(200):
        (store / f"folder-{k}").mkdir()
    not_scanned(store, "more than 100000 files")


def test_axes_that_are_computed(store):
    edit(store / "Experiments/__unnamed__/axis-0/.zattrs", expression="__import__('os')")
    refused(store, "computed from an expression")


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "|O", "filters": [{"id": "pickle"}]},
        {"dtype": "|O", "filters": [{"id": "json2"}]},
        {"dtype": "|O", "filters": [{"id": "vlen-utf8"}]},
        {"filters": [{"id": "pickle"}]},
        {"dtype": [["r", "<f4"], ["g", "<f4"]]},
        {"dtype": "<M8[s]"},
    ],
)
def test_values_that_are_not_plain_numbers(store, changes):
    edit(store / DATA / ".zarray", **changes)
    refused(store, "not plain numbers or text")


def test_unknown_compressors(store):
    edit(store / DATA / ".zarray", compressor={"id": "pickle"})
    refused(store, "compressed by 'pickle'")


@pytest.mark.parametrize("name", ["0/0/0", "1/1/0"])
@pytest.mark.parametrize("left", [None, 0, 10, -1])
def test_missing_and_shortened_pieces(store, name, left):
    piece = store / DATA / name
    content = piece.read_bytes()
    piece.unlink()
    if left is not None:
        piece.write_bytes(content[:left])
    refused(store, "is incomplete: of the 4 pieces")
    piece.write_bytes(content)
    assert load(store).data.any()


@pytest.mark.parametrize("kind", [None, "zlib"])
def test_shortened_pieces_of_other_compressors(tmp_path, image, kind):
    import zlib

    store = write_zspy(tmp_path / "a.zspy", image)
    compressor = None if kind is None else {"id": kind, "level": 1}
    edit(store / DATA / ".zarray", compressor=compressor)
    content = image.tobytes() if kind is None else zlib.compress(image.tobytes())
    piece = store / DATA / "0/0"
    piece.write_bytes(content)
    np.testing.assert_array_equal(load(store).data, image)
    piece.write_bytes(content[:-1] if kind is None else b"")
    refused(store, "is incomplete")


def test_a_shape_beyond_the_pieces(store, frames):
    edit(store / DATA / ".zarray", shape=[10**9, *frames.shape[1:]])
    refused(store, "is incomplete")


def test_a_huge_piece(store, frames):
    edit(store / DATA / ".zarray", chunks=[10**7, *frames.shape[1:]])
    refused(store, r"declares [\d.]+ GiB of data")


def test_more_data_than_is_read_at_once(store, monkeypatch):
    size = _zarrscan.scan_zspy(str(store), max_bytes=2**30)
    monkeypatch.setattr(_gate, "MAX_BYTES", size - 1)
    refused(store, "declares .* GiB of data", lazy=(False,))
    assert load(store, lazy=True).data.ndim == 3


@pytest.mark.parametrize("shape", [None, [-1, 2], ["4"], [4], [True, 48, 48]])
def test_shapes_that_make_no_sense(store, shape):
    edit(store / DATA / ".zarray", shape=shape)
    refused(store, "make no sense")


@pytest.mark.parametrize("text", ['{"shape": [4', "[1]", "\xff", "[" * 100_000])
def test_damaged_metadata(store, text):
    (store / DATA / ".zarray").write_text(text, encoding="latin-1")
    refused(store, r"its metadata .* are (truncated|no table)")


def test_too_much_metadata(store, monkeypatch):
    monkeypatch.setattr(_zarrscan, "MAX_METADATA_BYTES", 100)
    not_scanned(store, "MiB of metadata")


def test_collected_metadata_that_say_something_else(store):
    name = f"{DATA}/.zarray"
    copy = json.loads((store / name).read_text())
    collected = {"zarr_consolidated_format": 1, "metadata": {name: copy}}
    (store / ".zmetadata").write_text(json.dumps(collected))
    assert _zarrscan.scan_zspy(str(store), max_bytes=2**30) > 0
    collected["metadata"] = {name: copy | {"filters": [{"id": "pickle"}]}}
    (store / ".zmetadata").write_text(json.dumps(collected))
    refused(store, "differ from their copy in '.zmetadata'")


def test_zarr_3_zipped_and_empty_stores(store, tmp_path):
    (store / "zarr.json").write_text("{}")
    refused(store, "zarr store of version 3")
    (tmp_path / "e.zspy").mkdir()
    refused(tmp_path / "e.zspy", "no zarr group")
    with zipfile.ZipFile(tmp_path / "z.zspy", "w") as file:
        file.writestr(".zgroup", '{"zarr_format": 2}')
    refused(tmp_path / "z.zspy", r"zipped stores are not read.* save it as \.hspy")


def test_without_zarr(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(DataError, match=r"package \(zarr\): pip install 'stemdisp\[zspy\]'"):
        _read.read_file(str(store))
