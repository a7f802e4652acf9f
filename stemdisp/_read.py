"""A file on disk -> checked plain dictionaries, one per signal in it.

The first bytes decide which RosettaSciIO reader is called; its answer (arrays, numbers and text,
nothing that can act) is checked before anything is built from it. HyperSpy's own ``load`` is not
used: it evaluates expressions that a file may carry.
"""

from __future__ import annotations

import importlib
import stat
import struct
import tokenize
import warnings
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rsciio import exceptions

from stemdisp._hdf5scan import in_one_piece, scan_hdf5, too_large
from stemdisp._stores import is_store
from stemdisp._tiff import by_frames, check_tiff, read_tiff
from stemdisp._units import axis_scale_A, is_reciprocal
from stemdisp._zarrscan import read_zspy, scan_zspy
from stemdisp.errors import DataError

MIN_SIZE_PX = 16
MAX_BYTES = 8 * 2**30  # declared size of one file; a lazy signal may be larger
LARGE_BYTES = 200 * 10**6  # of which nobody wants to wait to look at the values

FORMATS = {
    "hspy": "HyperSpy HDF5",
    "zspy": "HyperSpy zarr",
    "emd": "EMD",
    "digitalmicrograph": "DigitalMicrograph",
    "tiff": "TIFF",
    "mrc": "MRC",
    "tia": "TIA series",
    "numpy": "NumPy",
}

READABLE = ".hspy, .zspy, .hdf5 (HyperSpy), .emd, .dm3, .dm4, .tif, .mrc, .ser, .npy"

# What readers raise on damaged files (found by feeding them such files).
READ_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    tokenize.TokenError,
    zlib.error,
    *(
        error
        for error in vars(exceptions).values()
        if isinstance(error, type) and issubclass(error, Exception)
    ),
)

_ZIPPED = (
    "is no zspy directory; zipped stores are not read, so open it in HyperSpy and save it as .hspy"
)

_MRC_BYTES = {0: 1, 1: 2, 2: 4, 3: 4, 4: 8, 6: 2, 12: 2, 16: 3}


@dataclass(frozen=True, eq=False)
class RawSignal:
    """One signal as it stands in a file: the last two axes of `data` are y and x."""

    title: str
    data: Any
    axes: tuple[dict[str, Any], ...]
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def n_navigation(self) -> int:
        """How many axes the file itself marks as navigation axes."""
        return sum(bool(axis.get("navigate")) for axis in self.axes)

    @property
    def role(self) -> str:
        """Tell an "image" (or series) from the "segments" of a detector and a DPC "vector"."""
        if self.axis_named("segment") is not None:
            return "segments"
        if self.data.dtype.kind == "c":
            return "vector" if self.title.casefold() == "dpc" else "image"
        k = self.axis_named("component")
        return "vector" if k is not None and self.data.shape[k] == 2 else "image"

    def axis_named(self, name: str) -> int | None:
        """Return which of the axes before y and x has this name, or None."""
        for k, axis in enumerate(self.axes[:-2]):
            if str(axis.get("name") or "").casefold().removesuffix("s") == name:
                return k
        return None

    @property
    def problem(self) -> str | None:
        """Say why a signal is neither an image nor a series nor a set of segments, or None."""
        return self._wrong_values() or self._wrong_shape()

    def _wrong_values(self) -> str | None:
        """Refuse what is no real number (of a DPC vector: two of them)."""
        dtype = self.data.dtype
        if dtype.kind in "biuf" or (dtype.kind == "c" and self.role == "vector"):
            return None
        what = "colour" if dtype.names else {"c": "complex"}.get(dtype.kind, "non-numeric")
        return f"holds {what} values ({dtype}); export real numbers in one channel"

    def _wrong_shape(self) -> str | None:
        """Refuse what has no images, or images of nothing."""
        data = self.data
        marked = self.role != "image" and data.dtype.kind != "c"
        most = 4 if marked else 3
        if data.ndim not in range(3 if marked else 2, most + 1) or self.n_navigation > most - 2:
            return (
                f"has shape {tuple(data.shape)} with {self.n_navigation} navigation axes; "
                "give one image, or one series of images (detector segments as separate images, "
                "or along an axis named 'segment')"
            )
        if min(data.shape[-2:]) < MIN_SIZE_PX or 0 in data.shape:
            return (
                f"is {data.shape[-1]} x {data.shape[-2]} pixels; "
                f"at least {MIN_SIZE_PX} x {MIN_SIZE_PX} are needed"
            )
        if any(is_reciprocal(axis.get("units")) for axis in self.axes[-2:]):
            return "has axes in reciprocal units (a diffraction pattern); give an image"
        return None

    @property
    def pixel_size_A(self) -> tuple[float, float] | None:
        """Return the pixel size (x, y) that a file states, in angstrom."""
        y, x = self.axes[-2:]
        sx, sy = (axis_scale_A(axis.get("scale"), axis.get("units")) for axis in (x, y))
        return None if sx is None or sy is None else (sx, sy)


def read_file(path: str, *, lazy: bool | None = False) -> tuple[str, list[RawSignal]]:
    """Read all signals of one file.

    Parameters
    ----------
    path : str
        The file.
    lazy : bool or None
        Leave the values on disk (dask arrays) where the format allows it. None: only where there
        are more than `LARGE_BYTES` of them.

    Returns
    -------
    format : str
        A key of `FORMATS`.
    signals : list of RawSignal
        In the order of the file.

    Raises
    ------
    DataError
        If the file is missing, of an unknown kind, damaged, too large, or not to be trusted.
    """
    _check_is_file(path)
    try:
        name, declared = _find_format(path)
        lazy = declared > LARGE_BYTES if lazy is None else lazy
        if declared > MAX_BYTES and not lazy:
            raise DataError(too_large(declared, MAX_BYTES))
        found = _call_reader(name, path, lazy=lazy, declared=declared)
        signals = [_checked(content, number) for number, content in enumerate(found, start=1)]
    except DataError as err:
        raise DataError(f"{path}: {err}") from err
    except ImportError as err:
        raise DataError(f"{path}: cannot be read without another package ({err})") from err
    except READ_ERRORS as err:
        reason = " ".join(str(err).split())[:160] or type(err).__name__
        raise DataError(
            f"{path}: cannot be read; it may be truncated or damaged, so copy or export it again "
            f"({reason})"
        ) from err
    return name, signals


def _check_is_file(path: str) -> None:
    """Refuse what is not a readable regular file, by name."""
    try:
        state = Path(path).stat()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the path") from None
    except (OSError, ValueError) as err:
        reason = getattr(err, "strerror", None) or str(err)
        raise DataError(f"{path}: cannot be opened ({reason})") from err
    if stat.S_ISDIR(state.st_mode):
        if is_store(path):
            return
        raise DataError(f"{path}: is a directory; name the image files in it")
    if not stat.S_ISREG(state.st_mode):
        raise DataError(f"{path}: is not a regular file; copy the data into a file")
    if state.st_size == 0:
        raise DataError(f"{path}: is empty; copy or export it again")


def _find_format(path: str) -> tuple[str, int]:
    """Tell the format from the first bytes, and how many bytes of data the file declares."""
    if Path(path).is_dir():
        return "zspy", scan_zspy(path, max_bytes=MAX_BYTES)
    with open(path, "rb") as stream:
        head = stream.read(1024)
    suffix = Path(path).suffix.lower()
    size = Path(path).stat().st_size
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return scan_hdf5(path)
    if head.startswith(b"\x93NUMPY"):
        return "numpy", np.load(path, mmap_mode="r", allow_pickle=False).nbytes
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff", check_tiff(path)
    if head[:4] == b"II\x97\x01":
        return "tia", size
    if _is_dm(head):
        return "digitalmicrograph", size
    if head[208:211] == b"MAP" or (suffix in (".mrc", ".rec", ".st") and len(head) == 1024):
        _check_mrc(head, size)
        return "mrc", size
    if suffix == ".zspy":
        raise DataError(_ZIPPED)
    if suffix == ".emi":
        raise DataError("holds no image itself; name the .ser file beside it")
    raise DataError(
        f"is not of a kind that is read ({READABLE}), or it is damaged; "
        "open it in HyperSpy and save it as .hspy"
    )


def _is_dm(head: bytes) -> bool:
    """Tell DigitalMicrograph 3 and 4 by version and byte-order words."""
    if len(head) < 16:
        return False
    version = int.from_bytes(head[:4], "big")
    order = {3: head[8:12], 4: head[12:16]}.get(version, b"\xff")
    return int.from_bytes(order, "big") in (0, 1)


def _check_mrc(head: bytes, file_size: int) -> None:
    """Compare the size that an MRC header declares with the file's (the reader does not)."""
    order = ">" if head[212:214] == b"\x11\x11" else "<"
    nx, ny, nz, mode = struct.unpack(f"{order}4i", head[:16])
    (extra,) = struct.unpack(f"{order}i", head[92:96])
    width = _MRC_BYTES.get(mode)
    if min(nx, ny, nz) < 1 or extra < 0 or width is None:
        raise DataError("has an MRC header that makes no sense; copy or export it again")
    if 1024 + extra + nx * ny * nz * width > file_size:
        raise DataError("is shorter than its MRC header says; copy or export it again")
    if order == ">":
        raise DataError("is an MRC file in big-endian order; convert it to little-endian")


def _call_reader(name: str, path: str, *, lazy: bool, declared: int) -> list[dict[str, Any]]:
    """Call the reader of one format."""
    if name == "numpy":
        return [_read_npy(path, lazy=lazy)]
    if name == "tiff":
        return read_tiff(path, lazy=lazy, max_bytes=MAX_BYTES)
    options: dict[str, Any] = {"lazy": lazy}
    if name == "emd":
        options["select_type"] = "images"  # of Velox files: no spectra
    if name == "mrc":
        options["metadata_file"] = None  # opens no other file
    if lazy and (name == "tia" or (name == "hspy" and in_one_piece(path))):
        # TIA's lazy reader reads all to see the shape, and then again; the other one gives up
        options["lazy"] = False
        if declared > MAX_BYTES:
            raise DataError(too_large(declared, MAX_BYTES))
    with warnings.catch_warnings():
        # The MRC reader leaves the closing of its file to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        if name == "zspy":
            found = read_zspy(path, lazy=lazy)
        else:
            found = importlib.import_module(f"rsciio.{name}").file_reader(path, **options)
    return [content | {"data": by_frames(content["data"])} for content in found] if lazy else found


def _read_npy(path: str, *, lazy: bool) -> dict[str, Any]:
    """Read a bare array; it has neither axes nor a title."""
    data = np.load(path, mmap_mode="r", allow_pickle=False)
    axes = [{"size": n} for n in data.shape]
    return {"data": by_frames(data) if lazy else np.array(data), "axes": axes}


def _checked(content: dict[str, Any], number: int) -> RawSignal:
    """Check that data and axes of one signal agree; keep only plain metadata."""
    data = content["data"]
    axes = list(content["axes"])
    if any("expression" in axis for axis in axes):
        raise DataError(
            "has an axis that is computed from an expression, which could run code; "
            "save the image with uniform axes"
        )
    if all("index_in_array" in axis for axis in axes):
        axes.sort(key=lambda axis: axis["index_in_array"])
    declared = tuple(int(axis["size"]) if "size" in axis else -1 for axis in axes)
    if declared != tuple(data.shape):
        raise DataError(
            f"has data of shape {tuple(data.shape)} but axes for {declared}; export it again"
        )
    metadata = content.get("metadata") or {}
    title = _title(content) or (f"signal {number}" if number > 1 else "")
    kept = {key: _plain(metadata.get(key)) for key in ("Acquisition_instrument", "stemdisp")}
    return RawSignal(title, data, tuple(axes), {k: v for k, v in kept.items() if v})


def _title(content: dict[str, Any]) -> str:
    """Return a signal's title, or the detector that the reader maps to it (Velox)."""
    title = _plain((content.get("metadata") or {}).get("General", {})).get("title")
    for source, (target, _) in (content.get("mapping") or {}).items():
        if not title and target == "General.title":
            title = content.get("original_metadata")
            for key in source.split("."):
                title = title.get(key) if isinstance(title, dict) else None
    return title.strip() if isinstance(title, str) else ""


def _plain(value: Any, depth: int = 0) -> Any:
    """Keep text, numbers and lists of them; drop everything else, private entries included."""
    if isinstance(value, dict):
        if depth > 8:
            return {}
        pairs = {
            str(key): _plain(item, depth + 1)
            for key, item in value.items()
            if not str(key).startswith("_")
        }
        return {key: item for key, item in pairs.items() if item is not None}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufU":
        return value.tolist()
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    return value if isinstance(value, str | int | float) else None
