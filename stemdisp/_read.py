"""A file on disk -> checked plain dictionaries, one per signal in it.

The first bytes decide which RosettaSciIO reader is called; its answer (arrays, numbers and text,
nothing that can act) is checked before anything is built from it. HyperSpy's own ``load`` is not
used: it evaluates expressions that a file may carry.
"""

from __future__ import annotations

import importlib
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stemdisp._hdf5scan import scan_hdf5, too_large
from stemdisp._units import axis_scale_A, is_reciprocal
from stemdisp.errors import DataError

MIN_SIZE_PX = 16
MAX_BYTES = 8 * 2**30  # declared size of one file; a lazy signal may be larger

FORMATS = {
    "hspy": "HyperSpy HDF5",
    "emd": "EMD",
    "digitalmicrograph": "DigitalMicrograph",
    "tiff": "TIFF",
    "mrc": "MRC",
    "tia": "TIA series",
    "numpy": "NumPy",
}

READABLE = ".hspy, .hdf5 (HyperSpy), .emd, .dm3, .dm4, .tif, .mrc, .ser, .npy"

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
    zlib.error,
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
    def problem(self) -> str | None:
        """Say why a signal is no image, or None if it is one."""
        data = self.data
        if data.dtype.names or data.dtype.kind not in "biuf":
            what = (
                "colour"
                if data.dtype.names
                else {"c": "complex"}.get(data.dtype.kind, "non-numeric")
            )
            return f"holds {what} values ({data.dtype}); export real numbers in one channel"
        if data.ndim not in (2, 3) or self.n_navigation > 1:
            return (
                f"has shape {tuple(data.shape)} with {self.n_navigation} navigation axes; "
                "give one image, or one series of images (detector segments as separate images)"
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


def only_idpc(suited: list[RawSignal]) -> list[RawSignal] | None:
    """Return the one iDPC image among several detectors' images."""
    found = [raw for raw in suited if raw.title.lower() == "idpc"]
    return found if len(found) == 1 else None


def read_file(path: str, *, lazy: bool = False) -> tuple[str, list[RawSignal]]:
    """Read all signals of one file.

    Parameters
    ----------
    path : str
        The file.
    lazy : bool
        Leave the values on disk (dask arrays) where the format allows it.

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
        name = _find_format(path, max_bytes=None if lazy else MAX_BYTES)
        lazy = lazy and name != "tiff"  # its lazy reader leaves the file open
        found = _call_reader(name, path, lazy=lazy)
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
        if path.rstrip("/").lower().endswith(".zspy"):
            raise DataError(f"{path}: zspy stores are not read; save the image as .hspy")
        raise DataError(f"{path}: is a directory; name the image files in it")
    if not stat.S_ISREG(state.st_mode):
        raise DataError(f"{path}: is not a regular file; copy the data into a file")
    if state.st_size == 0:
        raise DataError(f"{path}: is empty; copy or export it again")


def _find_format(path: str, *, max_bytes: int | None) -> str:
    """Tell the format from the first bytes, and check the size that the header declares."""
    with open(path, "rb") as stream:
        head = stream.read(1024)
    suffix = Path(path).suffix.lower()
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return scan_hdf5(path, max_bytes=max_bytes)
    if head.startswith(b"\x93NUMPY"):
        return "numpy"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        _check_tiff(path)
        return "tiff"
    if head[:4] == b"II\x97\x01":
        return "tia"
    if _is_dm(head):
        return "digitalmicrograph"
    if head[208:211] == b"MAP" or (suffix in (".mrc", ".rec", ".st") and len(head) == 1024):
        _check_mrc(head, Path(path).stat().st_size)
        return "mrc"
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


def _check_tiff(path: str) -> None:
    """Refuse colour images and sizes beyond the limit."""
    import tifffile

    with open(path, "rb") as stream, tifffile.TiffFile(stream) as file:
        for series in file.series:
            if "S" in series.axes:
                raise DataError(
                    "is a colour image; export the detector's own values in one channel "
                    "(a 32-bit grey TIFF)"
                )
        declared = sum(series.nbytes for series in file.series)
        pages = [page for series in file.series for page in series.pages if page is not None]
        ends = [sum(part) for page in pages for part in _segments(page)]
    if ends and max(ends) > Path(path).stat().st_size:
        raise DataError("is shorter than its TIFF header says; copy or export it again")
    if declared > MAX_BYTES:
        raise DataError(too_large(declared, MAX_BYTES))


def _segments(page: Any) -> Iterator[tuple[int, int]]:
    """Yield where each piece of a TIFF page starts and how many bytes it has."""
    return zip(page.dataoffsets, page.databytecounts, strict=True)


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


def _call_reader(name: str, path: str, *, lazy: bool) -> list[dict[str, Any]]:
    """Call the reader of one format."""
    if name == "numpy":
        return [_read_npy(path, lazy=lazy)]
    options: dict[str, Any] = {"lazy": lazy}
    if name == "emd":
        options["select_type"] = "images"  # of Velox files: no spectra
    if name == "mrc":
        options["metadata_file"] = None  # opens no other file
    with warnings.catch_warnings():
        # The MRC reader leaves the closing of its file to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        return importlib.import_module(f"rsciio.{name}").file_reader(path, **options)


def _read_npy(path: str, *, lazy: bool) -> dict[str, Any]:
    """Read a bare array; it has neither axes nor a title."""
    data = np.load(path, mmap_mode="r", allow_pickle=False)
    if lazy:
        import dask.array as da

        return {"data": da.from_array(data), "axes": [{"size": n} for n in data.shape]}
    if data.nbytes > MAX_BYTES:
        raise DataError(too_large(data.nbytes, MAX_BYTES))
    return {"data": np.array(data), "axes": [{"size": n} for n in data.shape]}


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
