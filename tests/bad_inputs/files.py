"""Files that are damaged, mistaken, dishonest, or no files; and good ones of every format."""

from __future__ import annotations

import gzip
import os
import struct
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile
from _written_files import write_mrc
from conftest import SHARED

from bad_inputs import Around, Call, case
from bad_inputs.formats import FORMATS, main_file, noise, write, write_hspy
from bad_inputs.warm import crystal

AGAIN = r"copy (it|or export it) again|copy or export|export it again"
OTHER = r"(save|export|open|name|give|copy|convert)\b"
BROKEN = r"truncated|damaged|shorter|cut short|incomplete|makes no sense|is empty|not of a kind"
REAL = SHARED / "data" / "real"


# ---- controls: good files --------------------------------------------------------------


def _good(kind: str) -> None:
    @case(f"file/{kind}: good", 0, inspect=0, slow=kind not in ("hspy", "tif"))
    def make(folder: Path) -> Call:
        data = crystal()
        return Call((write(kind, folder, data[::-1] if kind == "ser" else data),), _SIZE[kind])


_ODD = "[input]\npixel_size = 0.15\n"  # these writers state pixels that are not the crystal's
_SIZE = dict.fromkeys(FORMATS, _ODD) | {"hspy": "", "tif": ""}
for _kind in FORMATS:
    _good(_kind)


# ---- cut short -------------------------------------------------------------------------


def _cut(kind: str, share: float) -> None:
    name = f"{share:g} bytes" if share > 1 else f"{share:.0%}"

    @case(f"file/{kind}: cut to {name}", 3, BROKEN, f"{AGAIN}|{OTHER}", inspect=3)
    def make(folder: Path) -> Call:
        path = write(kind, folder, noise())
        file = main_file(path)
        whole = file.read_bytes()
        file.write_bytes(whole[: int(share if share > 1 else share * len(whole))])
        return Call((path,))


for _kind in FORMATS:
    for _share in (10, 0.01, 0.5, 0.99):
        _cut(_kind, _share)


def _real(name: str, share: float) -> None:
    if not (REAL / name).is_file():
        return

    @case(f"file/{name}: cut to {share:.0%}", 3, BROKEN, f"{AGAIN}|{OTHER}", inspect=3)
    def make(folder: Path) -> Call:
        whole = (REAL / name).read_bytes()
        (folder / name).write_bytes(whole[: int(share * len(whole))])
        return Call((folder / name,))


for _name in ("BTO_crystal_1.dm4", "Acquisition_18.emd", "iDPC9.tif"):
    for _share in (0.3, 0.97):
        _real(_name, _share)


# ---- empty, or something else under the name of an image -------------------------------


def _not_an_image(kind: str, what: str, content: bytes) -> None:
    @case(
        f"file/{kind}: {what}",
        3,
        r"is empty|not of a kind|makes no sense|damaged|no zspy",
        f"{AGAIN}|{OTHER}",
        inspect=3,
    )
    def make(folder: Path) -> Call:
        path = folder / f"image.{kind}"
        path.write_bytes(content)
        return Call((path,))


_LETTER = b"Dear reader, this is a letter and not an image.\n" * 50
_SUFFIXES = ("hspy", "zspy", "emd", "dm3", "dm4", "tif", "mrc", "ser", "npy")
for _kind in _SUFFIXES:
    _not_an_image(_kind, "nothing in it", b"")
    _not_an_image(_kind, "a letter", _LETTER)
for _kind in ("hspy", "mrc", "tif"):
    _not_an_image(_kind, "zeros", bytes(5000))
_not_an_image("xyz", "an unknown suffix", _LETTER)
_not_an_image("tif", "a gzip of a letter", gzip.compress(_LETTER))
_not_an_image("hspy", "an HTML page", b"<!DOCTYPE html><title>404</title>" * 99)


def _wrong_suffix(kind: str, suffix: str) -> None:
    @case(f"file/{kind} called .{suffix}: its bytes decide", 0, inspect=0, slow=suffix == "dm4")
    def make(folder: Path) -> Call:
        path = write(kind, folder, crystal())
        return Call((path.rename(folder / f"image.{suffix}"),))


_wrong_suffix("hspy", "tif")
_wrong_suffix("tif", "dm4")


# ---- what is no file -------------------------------------------------------------------


@case("file: missing", 3, "no such file", "check the path", inspect=3)
def _(folder: Path) -> Call:
    return Call((folder / "absent.hspy",))


@case("file: a directory", 3, "is a directory", "name the image files", inspect=3)
def _(folder: Path) -> Call:
    (folder / "session").mkdir()
    return Call((folder / "session",))


@case("file: a FIFO", 3, "not a regular file", "copy", inspect=3)
def _(folder: Path) -> Call:
    os.mkfifo(folder / "image.tif")
    return Call((folder / "image.tif",))


@case("file: a link to itself", 3, "cannot be opened|link", "check|point|name|copy", inspect=3)
def _(folder: Path) -> Call:
    (folder / "image.tif").symlink_to("image.tif")
    return Call((folder / "image.tif",))


@case("file: two links in a circle", 3, "cannot be opened|link", "check|point|name|copy", inspect=3)
def _(folder: Path) -> Call:
    (folder / "image.tif").symlink_to("other.tif")
    (folder / "other.tif").symlink_to("image.tif")
    return Call((folder / "image.tif",))


@case("file: a link to nothing", 3, "no such file", "check the path", inspect=3)
def _(folder: Path) -> Call:
    (folder / "image.tif").symlink_to("gone.tif")
    return Call((folder / "image.tif",))


@case("file: a link to a device without end", 3, "not a regular file", "copy", inspect=3)
def _(folder: Path) -> Call:
    (folder / "image.tif").symlink_to("/dev/zero")
    return Call((folder / "image.tif",))


@case(
    "file: no permission",
    3,
    "[Pp]ermission denied",
    "permission|owner|copy|check",
    inspect=3,
    around=Around(unprivileged=True),
)
def _(folder: Path) -> Call:
    path = write("tif", folder, noise())
    path.chmod(0)
    return Call((path,))


@case(
    "file: in a folder without permission",
    3,
    "[Pp]ermission denied",
    "permission|owner|copy|check",
    inspect=3,
    around=Around(unprivileged=True),
)
def _(folder: Path) -> Call:
    (folder / "closed").mkdir()
    path = write("tif", folder / "closed", noise())
    (folder / "closed").chmod(0)
    return Call((path,))


@case("file: a name too long", 3, "cannot be opened|too long", "check|name|shorten|copy", inspect=3)
def _(folder: Path) -> Call:
    return Call((folder / ("a" * 300 + ".tif"),))


# ---- files that claim, hide or contain too much ----------------------------------------


def _without_data(folder: Path, **data: Any) -> Path:
    path = write_hspy(folder / "image.hspy", noise())
    with h5py.File(path, "a") as file:
        group = next(iter(file["Experiments"].values()))
        del group["data"]
        if data:
            group.create_dataset("data", **data)
            for axis, size in zip(("axis-0", "axis-1"), data["shape"], strict=True):
                group[axis].attrs["size"] = size
    return path


@case("file/hspy: claims 10^12 pixels", 3, r"declares 3725\.3 GiB", "crop|split", inspect=3)
def _(folder: Path) -> Call:
    return Call((_without_data(folder, shape=(10**6, 10**6), chunks=(1000, 1000), dtype="f4"),))


@case("file/emd: claims 10^12 pixels", 3, r"declares 3725\.3 GiB", "crop|split", inspect=3)
def _(folder: Path) -> Call:
    path = write("emd", folder, noise())
    with h5py.File(path, "a") as file:
        del file["data/a/data"]
        file["data/a"].create_dataset("data", shape=(10**6, 10**6), chunks=(1000, 1000), dtype="f4")
    return Call((path,))


@case("file/npy: claims 10^12 pixels", 3, BROKEN, AGAIN, inspect=3)
def _(folder: Path) -> Call:
    path = folder / "image.npy"
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)}
        )
        stream.write(bytes(4000))
    return Call((path,))


@case("file/mrc: claims 10^12 pixels", 3, "shorter than its MRC header", AGAIN, inspect=3)
def _(folder: Path) -> Call:
    return Call((write_mrc(folder / "image.mrc", noise()[None], nx=10**9),))


@case("file/mrc: a negative size", 3, "makes no sense", AGAIN, inspect=3)
def _(folder: Path) -> Call:
    return Call((write_mrc(folder / "image.mrc", noise()[None], nx=-5),))


@case("file/tif: claims 37 GiB", 3, "GiB|shorter", f"crop|{AGAIN}", inspect=3)
def _(folder: Path) -> Call:
    path = folder / "image.tif"
    tifffile.imwrite(path, noise(), photometric="minisblack")
    whole = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        tags = file.pages[0].tags
        places = {name: tags[name].valueoffset for name in ("ImageWidth", "ImageLength")}
    for place in places.values():
        struct.pack_into("<I", whole, place, 100_000)
    path.write_bytes(whole)
    return Call((path,))


@case(
    "file/hspy: a bomb of zeros, 10 GiB in some MB", 3, "declares .* GiB", "crop|split", inspect=3
)
def _(folder: Path) -> Call:
    shape = (51_200, 51_200)
    return Call((_without_data(folder, shape=shape, dtype="f4", chunks=(512, 512), compression=9),))


@case("file/tif: a bomb of zeros, 10 GiB in some MB", 3, "GiB", "crop|split", inspect=3)
def _(folder: Path) -> Call:
    path = folder / "image.tif"
    strip = zlib.compress(bytes(4 * 51_200 * 512), 9)
    n = 100
    # a classic TIFF by hand: one page of 51200 x 51200 float32 in 100 equal strips
    entries = [
        (256, 4, 1, 51_200),
        (257, 4, 1, 51_200),
        (258, 3, 1, 32),
        (259, 3, 1, 8),
        (262, 3, 1, 1),
        (273, 4, n, 8 + len(strip)),
        (277, 3, 1, 1),
        (278, 4, 1, 512),
        (279, 4, n, 8 + len(strip) + 4 * n),
        (339, 3, 1, 3),
    ]
    body = strip + struct.pack(f"<{n}I", *[8] * n) + struct.pack(f"<{n}I", *[len(strip)] * n)
    table = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", *entry) for entry in entries
    )
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(body)) + body + table + bytes(4))
    return Call((path,))


@case("file/zspy: a zipped store", 3, "zip", "save it as .hspy", inspect=3)
def _(folder: Path) -> Call:
    path = folder / "image.zspy"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(".zgroup", '{"zarr_format": 2}')
        file.writestr("0.0", bytes(10**8))
    return Call((path,))


@case("file/zspy: a piece is missing", 3, "incomplete", "copy it again", inspect=3)
def _(folder: Path) -> Call:
    path = write("zspy", folder, noise())
    main_file(path).unlink()
    return Call((path,))


@case("file/zspy: a header that claims 10^12 pixels", 3, "GiB|incomplete", "crop|copy", inspect=3)
def _(folder: Path) -> Call:
    path = write("zspy", folder, noise())
    header = path / "Experiments/__unnamed__/data/.zarray"
    header.write_text(header.read_text().replace("[40, 48]", "[1000000, 1000000]"))
    return Call((path,))


@case("file/hspy: without its data", 3, BROKEN, AGAIN, inspect=3)
def _(folder: Path) -> Call:
    return Call((_without_data(folder),))


@case(
    "file/hspy: pieces that were never written",
    3,
    "missing|never|same value|every pixel is",
    "check which|" + OTHER,
)
def _(folder: Path) -> Call:
    return Call((_without_data(folder, shape=(256, 256), dtype="f4", chunks=(64, 64)),))


@case("file/hspy: an external link", 3, "links to another place", "save a copy", inspect=3)
def _(folder: Path) -> Call:
    path = write_hspy(folder / "image.hspy", noise())
    with h5py.File(path, "a") as file:
        file["Experiments/more"] = h5py.ExternalLink("/etc/hostname", "/")
    return Call((path,))


@case("file/hspy: values in another file", 3, "another file", "save a copy", inspect=3)
def _(folder: Path) -> Call:
    (folder / "values.raw").write_bytes(bytes(range(256)) * 100)
    external = [(str(folder / "values.raw"), 0, 100 * 100)]
    return Call((_without_data(folder, shape=(100, 100), dtype="u1", external=external),))


@case(
    "file/hspy: a group that contains itself", 3, "contains itself", "copy|export|save", inspect=3
)
def _(folder: Path) -> Call:
    path = write_hspy(folder / "image.hspy", noise())
    with h5py.File(path, "a") as file:
        file["Experiments/again"] = file["Experiments"]
    return Call((path,))


@case("file/hspy: 3000 groups deep", 3, "nested", "copy|export|save", inspect=3)
def _(folder: Path) -> Call:
    path = write_hspy(folder / "image.hspy", noise())
    with h5py.File(path, "a") as file:
        group = file["Experiments"]
        for _level in range(3000):
            group = group.create_group("a")
    return Call((path,))


@case("file/hdf5: of another program", 3, "neither HyperSpy's nor EMD", "save the image", inspect=3)
def _(folder: Path) -> Call:
    with h5py.File(folder / "image.hdf5", "w") as file:
        file["measurement"] = noise()
    return Call((folder / "image.hdf5",))


@case(
    "file/tif: a circle of pages",
    3,
    "damaged|no sharp periods|circle",
    "[Cc]heck|copy",
    names_file=False,
)
def _(folder: Path) -> Call:
    path = folder / "image.tif"
    tifffile.imwrite(path, noise(), photometric="minisblack")
    whole = bytearray(path.read_bytes())
    first = struct.unpack_from("<I", whole, 4)[0]
    (n,) = struct.unpack_from("<H", whole, first)
    struct.pack_into("<I", whole, first + 2 + 12 * n, first)
    path.write_bytes(whole)
    return Call((path,))


@case("file/ser: claims a million frames", 3, BROKEN, AGAIN, inspect=3)
def _(folder: Path) -> Call:
    path = write("ser", folder, noise())
    whole = bytearray(path.read_bytes())
    struct.pack_into("<ii", whole, 14, 10**6, 10**6)
    path.write_bytes(whole)
    return Call((path,))


@case("file/dm3: a size beyond the file", 3, BROKEN, AGAIN, inspect=3)
def _(folder: Path) -> Call:
    path = write("dm3", folder, noise())
    whole = path.read_bytes()
    n = struct.pack(">i", noise().size)
    assert whole.count(n) == 1
    path.write_bytes(whole.replace(n, struct.pack(">i", 2**30)))
    return Call((path,))


@case("file/emi: the companion of a series", 3, "holds no image itself", "name the .ser", inspect=3)
def _(folder: Path) -> Call:
    (folder / "image.emi").write_bytes(b"JA\x01\x00" + bytes(500))
    return Call((folder / "image.emi",))


# ---- names -----------------------------------------------------------------------------

_NAMES = {
    "spaces": "my best image (1).hspy",
    "quotes": 'it\'s "so" good.hspy',
    "other alphabets": "Grenzfläche 界面 α→β.hspy",
    "a dollar and a backslash": "$(id) `a` \\n.hspy",
    "markup": "<script>alert(1)</script>.hspy".replace("/", "_"),
}


def _name_is_kept(what: str, name: str) -> None:
    def check(output: Path) -> None:
        assert name in (output / "summary.json").read_text("utf-8").replace('\\"', '"').replace(
            "\\\\", "\\"
        )

    @case(
        f"name: {what}",
        0,
        check=check,
        inspect=0,
        slow=what != "other alphabets",
        report=what in ("quotes", "markup"),
    )
    def make(folder: Path) -> Call:
        (folder / name).parent.mkdir(exist_ok=True)
        write_hspy(folder / "a.hspy", crystal()).rename(folder / name)
        return Call((folder / name,), output=folder / f"out of {name}")


for _what, _file in _NAMES.items():
    _name_is_kept(_what, _file)


@case("name: bytes that are no text", 3, "not of a kind", OTHER, names_file=False, inspect=3)
def _(folder: Path) -> Call:
    path = os.fsencode(folder) + b"/image\xff\xfe.hspy"
    with open(path, "wb") as stream:
        stream.write(_LETTER)
    return Call((os.fsdecode(path),))


@case("name: a line feed", 3, "not of a kind", OTHER, names_file=False, inspect=3)
def _(folder: Path) -> Call:
    (folder / "two\nlines\x1b[31m.tif").write_bytes(_LETTER)
    return Call((folder / "two\nlines\x1b[31m.tif",))


if sys.platform == "win32":  # no FIFOs, no links without privileges
    raise ImportError("the corpus is for systems with POSIX files")
