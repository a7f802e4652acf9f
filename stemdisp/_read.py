"""A file on disk -> checked plain dictionaries, one per signal in it.

The first bytes decide which RosettaSciIO reader is called; its answer (arrays, numbers and text,
nothing that can act) is checked before anything is built from it. HyperSpy's own ``load`` is not
used: it evaluates expressions that a file may carry.
"""

from __future__ import annotations

import importlib
import math
import struct
import tokenize
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from rsciio import exceptions

from stemdisp._formats import LARGE_BYTES, MAX_BYTES, MOST_BYTES, Found, check_is_file, find_format
from stemdisp._hdf5scan import in_one_piece, too_large
from stemdisp._raw import RawSignal
from stemdisp._tiff import read_tiff
from stemdisp._zarrscan import read_zspy
from stemdisp.errors import DataError

# What readers raise on damaged files (found by feeding them such files).
READ_ERRORS: tuple[type[Exception], ...] = (
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

_AXIS_KEYS = ("name", "size", "scale", "offset", "units", "navigate")
_DEEPEST = 8  # dictionaries and lists of metadata within each other
_LONGEST_TITLE = 1000  # characters
_LONGEST_NAME = 100


@dataclass(frozen=True, eq=False)
class Reading:
    """What a file gives.

    Attributes
    ----------
    found : Found
    lazy : bool
        Whether the caller shall get the values frame by frame.
    signals : list of RawSignal
        In the order of the file.
    """

    found: Found
    lazy: bool
    signals: list[RawSignal]


def read_file(
    path: str,
    *,
    lazy: bool | None = False,
    name: str = "",
    max_bytes: int = MAX_BYTES,
    allow: Callable[[int], None] = lambda n_bytes: None,
) -> Reading:
    """Read all signals of one file.

    Parameters
    ----------
    path : str
        The file.
    lazy : bool or None
        Leave the values on disk where the format allows it. None: only where there are more than
        `LARGE_BYTES` of them.
    name : str
        How errors call it; the path by default.
    max_bytes : int
        What may be read at once.
    allow : callable
        Is told how many bytes of values will be read, before that is done.

    Returns
    -------
    Reading

    Raises
    ------
    DataError
        If the file is missing, of an unknown kind, damaged, too large, or not to be trusted.
    """
    check_is_file(path)
    with worded(name or path):
        found = find_format(path, max_bytes=max_bytes)
        declared = found.declared_bytes
        lazy = declared > LARGE_BYTES if lazy is None else lazy
        at_once = not lazy or _only_at_once(found.name, path)
        most = max_bytes if at_once else MOST_BYTES
        if declared > most:
            raise DataError(too_large(declared, most))
        # packed TIFF images may have to be decoded together
        allow(declared if at_once or found.name == "tiff" else 0)
        contents = _call_reader(found.name, path, lazy=not at_once, max_bytes=max_bytes)
        if not contents:
            raise DataError("holds no image; it may be cut short, so copy or export it again")
        signals = [_checked(content, number) for number, content in enumerate(contents, start=1)]
        for signal in signals:
            image_bytes = math.prod(signal.data.shape[-2:]) * signal.data.dtype.itemsize
            if image_bytes > max_bytes:
                raise DataError(too_large(image_bytes, max_bytes, what="one image"))
        return Reading(found, lazy, signals)


@contextmanager
def worded(path: str) -> Iterator[None]:
    """Turn whatever a reader raises on a damaged file into one line that names the file.

    Parameters
    ----------
    path : str
        The file.

    Raises
    ------
    DataError
        In place of everything that readers raise.
    """
    try:
        yield
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


def _only_at_once(name: str, path: str) -> bool:
    """Tell whether a lazy reader is of no use: TIA's reads all to see the shape, and then again.

    HyperSpy's gives up on data in one piece.
    """
    return name == "tia" or (name == "hspy" and in_one_piece(path))


def _call_reader(name: str, path: str, *, lazy: bool, max_bytes: int) -> list[dict[str, Any]]:
    """Call the reader of one format."""
    if name == "numpy":
        return [_read_npy(path, lazy=lazy)]
    if name == "tiff":
        return read_tiff(path, lazy=lazy, max_bytes=max_bytes)
    options: dict[str, Any] = {"lazy": lazy}
    if name == "emd":
        options["select_type"] = "images"  # of Velox files: no spectra
    if name == "mrc":
        options["metadata_file"] = None  # opens no other file
    with warnings.catch_warnings():
        # The MRC reader leaves the closing of its file to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        if name == "zspy":
            return read_zspy(path, lazy=lazy)
        return importlib.import_module(f"rsciio.{name}").file_reader(path, **options)


def _read_npy(path: str, *, lazy: bool) -> dict[str, Any]:
    """Read a bare array; it has neither axes nor a title."""
    data = np.load(path, mmap_mode="r", allow_pickle=False)
    axes = [{"size": n} for n in data.shape]
    return {"data": data if lazy else np.array(data), "axes": axes}


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
    stated = [{key: _of_axis(axis.get(key)) for key in _AXIS_KEYS} for axis in axes]
    plain = tuple(
        {key: value for key, value in axis.items() if value is not None} for axis in stated
    )
    tables = {key: value for key, value in kept.items() if value and isinstance(value, dict)}
    return RawSignal(title, data, plain, tables)


def _of_axis(value: Any) -> Any:
    """Keep a number, or a short text in one line."""
    value = _plain(value)
    return " ".join(value.split())[:_LONGEST_NAME] if isinstance(value, str) else value


def _title(content: dict[str, Any]) -> str:
    """Return a signal's title, or the detector that the reader maps to it (Velox)."""
    title = _plain((content.get("metadata") or {}).get("General", {})).get("title")
    for source, (target, _) in (content.get("mapping") or {}).items():
        if not title and target == "General.title":
            title = content.get("original_metadata")
            for key in source.split("."):
                title = title.get(key) if isinstance(title, dict) else None
    return " ".join(title.split())[:_LONGEST_TITLE] if isinstance(title, str) else ""


def _plain(value: Any, depth: int = 0) -> Any:
    """Keep text, numbers and lists of them; drop everything else, private entries included."""
    if isinstance(value, dict):
        if depth > _DEEPEST:
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
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value] if depth <= _DEEPEST else []
    return value if isinstance(value, str | int | float) else None
