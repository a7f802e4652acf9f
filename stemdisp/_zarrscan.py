"""A look through a zspy store (HyperSpy's zarr layout) before any reader touches it.

zarr follows links, takes missing pieces for zeros, decodes with whatever codec the metadata name
(pickles too) and allocates what they declare. This walk reads names, sizes and JSON only. What it
does not know it refuses. Format: zarr storage specification, version 2.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stemdisp._hdf5scan import MAX_DEPTH, check_expression, too_large
from stemdisp.errors import DataError

MAX_FILES = 100_000
_MAX_ENTRIES = 4 * MAX_FILES  # each piece may lie in three folders of its own
MAX_METADATA_BYTES = 64 * 2**20  # of all JSON files together

_METADATA = (".zarray", ".zattrs", ".zgroup", ".zmetadata")
_COMPRESSORS = {"blosc", "bz2", "gzip", "lz4", "zlib", "zstd"}
_TEXT = [{"id": "vlen-utf8"}]  # how lists of text are kept; the only objects without code
_PLAIN = re.compile(r"[<>|][biufcSU][0-9]{1,9}")
_BLOSC_HEADER = 16  # bytes; those of the values and of the piece stand at 4 and at 12
_AGAIN = "copy or export it again"


@dataclass(frozen=True)
class _Array:
    """What the metadata say of one array."""

    name: str
    grid: tuple[int, ...]
    separator: str
    piece_bytes: int
    compressor: str | None
    text: bool

    @property
    def declared(self) -> int:
        """Bytes of all pieces, those at the borders taken whole."""
        return math.prod(self.grid) * self.piece_bytes


def scan_zspy(path: str, *, max_bytes: int) -> int:
    """Check a zspy store and tell how much it declares to hold.

    Parameters
    ----------
    path : str
        The directory.
    max_bytes : int
        What one piece of an array may take.

    Returns
    -------
    int
        Bytes of all arrays together.

    Raises
    ------
    DataError
        If the store holds links or special files, is nested or filled without end, computes its
        axes, needs code to be read, or lacks pieces of its arrays.
    """
    sizes = _walk(path)
    if ".zgroup" not in sizes:
        raise DataError(f"holds no zarr group of version 2 (.zgroup is missing); {_AGAIN}")
    documents = _documents(path, sizes)
    _check_copies(documents)
    declared = 0
    for name, content in documents.items():
        folder, _, kind = name.rpartition("/")
        if (kind == ".zattrs" and "expression" in content) or folder.endswith("/expression"):
            check_expression(f"/{folder}")
        if kind == ".zarray":
            array = _array(folder, content)
            if array.piece_bytes > max_bytes:
                raise DataError(too_large(array.piece_bytes, max_bytes))
            _check_pieces(path, array, sizes)
            declared += array.declared
    return declared


def read_zspy(path: str, *, lazy: bool) -> list[dict[str, Any]]:
    """Read a store that `scan_zspy` has looked through.

    Parameters
    ----------
    path : str
        The directory.
    lazy : bool
        Leave the values on disk.

    Returns
    -------
    list of dict
        As RosettaSciIO's readers give them.

    Raises
    ------
    DataError
        If zarr is not installed.
    """
    try:
        importlib.import_module("zarr")
        reader = importlib.import_module("rsciio.zspy").file_reader
    except ImportError as err:
        raise DataError(
            "cannot be read without another package (zarr): pip install 'stemdisp[zspy]'"
        ) from err
    # The reader would open a lazy store for writing.
    return reader(path, lazy=lazy, mode="r")


def _walk(path: str) -> dict[str, int]:
    """Return the size of every file by its name in the store; refuse what is no plain file."""
    sizes: dict[str, int] = {}
    for count, (name, entry) in enumerate(_entries(path, "", 0), start=1):
        if len(sizes) > MAX_FILES or count > _MAX_ENTRIES:
            raise DataError(
                f"holds more than {MAX_FILES} files; save it with larger pieces (chunks), "
                "or as .hspy"
            )
        if entry.is_symlink():
            raise DataError(
                f"its entry {name!r} links to another place; save a copy that holds the data"
            )
        if entry.is_file(follow_symlinks=False):
            sizes[name] = entry.stat(follow_symlinks=False).st_size
        elif not entry.is_dir(follow_symlinks=False):
            raise DataError(f"its entry {name!r} is not a regular file; {_AGAIN}")
        if entry.name == "zarr.json":
            raise DataError(
                "is a zarr store of version 3, which is not read; open it in HyperSpy and save it "
                "as .hspy"
            )
    return sizes


def _entries(folder: str, prefix: str, depth: int) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield everything below a directory, without following links."""
    if depth > MAX_DEPTH:
        raise DataError(f"is nested more than {MAX_DEPTH} folders deep; the store is damaged")
    with os.scandir(folder) as found:
        for entry in found:
            name = prefix + entry.name
            yield name, entry
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(entry.path, f"{name}/", depth + 1)


def _documents(path: str, sizes: dict[str, int]) -> dict[str, dict[str, Any]]:
    """Parse all metadata."""
    names = sorted(name for name in sizes if name.rpartition("/")[2] in _METADATA)
    total = sum(sizes[name] for name in names)
    if total > MAX_METADATA_BYTES:
        raise DataError(
            f"holds {total / 2**20:.0f} MiB of metadata, more than the "
            f"{MAX_METADATA_BYTES >> 20} MiB that are read; save the image without them"
        )
    return {name: _document(path, name) for name in names}


def _document(path: str, name: str) -> dict[str, Any]:
    """Parse one file of metadata; not-a-number is kept as a word, which can be compared."""
    try:
        content = json.loads(Path(path, name).read_bytes(), parse_constant=str)
    except (ValueError, RecursionError) as err:
        raise DataError(f"its metadata {name!r} are truncated or damaged; {_AGAIN}") from err
    if not isinstance(content, dict):
        raise DataError(f"its metadata {name!r} are no table of names and values; {_AGAIN}")
    return content


def _check_copies(documents: dict[str, dict[str, Any]]) -> None:
    """Refuse a collected copy of the metadata, which zarr prefers, that says something else."""
    for name in [name for name in documents if name.endswith(".zmetadata")]:
        copies = documents[name].get("metadata")
        folder = name.removesuffix(".zmetadata")
        for key, copy in (copies if isinstance(copies, dict) else {}).items():
            if documents.get(folder + key) != copy:
                raise DataError(
                    f"its metadata {folder + key!r} differ from their copy in {name!r}; "
                    "open it in HyperSpy and save it again"
                )


def _array(name: str, content: dict[str, Any]) -> _Array:
    """Check what the metadata say of an array."""
    shape, chunks = (_sizes(name, content.get(key)) for key in ("shape", "chunks"))
    if len(shape) != len(chunks) or 0 in chunks:
        raise DataError(f"its array {name!r} has metadata that make no sense; {_AGAIN}")
    dtype, filters = content.get("dtype"), content.get("filters") or []
    text = dtype == "|O" and filters == _TEXT and not name.endswith("/data")
    if not text and (filters or not isinstance(dtype, str) or not _PLAIN.fullmatch(dtype)):
        raise DataError(
            f"its array {name!r} holds values that are not plain numbers or text (type {dtype}, "
            f"filters {[_id(item) for item in filters]}), which are not read because they could "
            "run code; save the image as .hspy"
        )
    compressor = content.get("compressor")
    if compressor is not None and _id(compressor) not in _COMPRESSORS:
        raise DataError(
            f"its array {name!r} is compressed by {_id(compressor)!r}, which is not read; "
            "save the image in HyperSpy with its own compressor"
        )
    separator = content.get("dimension_separator", ".")
    if separator not in (".", "/"):
        raise DataError(f"its array {name!r} has metadata that make no sense; {_AGAIN}")
    grid = tuple(-(-size // chunk) for size, chunk in zip(shape, chunks, strict=True))
    width = 8 if text else np.dtype(dtype).itemsize
    kind = None if compressor is None else _id(compressor)
    return _Array(name, grid, separator, math.prod(chunks) * width, kind, text)


def _sizes(name: str, value: Any) -> tuple[int, ...]:
    """Return a list of sizes as whole numbers."""
    if not isinstance(value, list) or not all(type(n) is int and n >= 0 for n in value):
        raise DataError(f"its array {name!r} has metadata that make no sense; {_AGAIN}")
    return tuple(value)


def _id(codec: Any) -> str:
    """Name a codec."""
    return str(codec.get("id")) if isinstance(codec, dict) else str(codec)


def _check_pieces(path: str, array: _Array, sizes: dict[str, int]) -> None:
    """Refuse an array whose pieces are not all there and whole."""
    wanted = math.prod(array.grid)
    # Counted first: a header may declare more pieces than could be listed.
    present = wanted if wanted <= len(sizes) else 0
    for k in range(present):
        key = array.separator.join(map(str, np.unravel_index(k, array.grid))) or "0"
        piece = f"{array.name}/{key}"
        if piece not in sizes or not _whole(path, piece, sizes[piece], array):
            present = 0
            break
    if present < wanted:
        raise DataError(
            f"is incomplete: of the {wanted} pieces of its array {array.name!r}, some are missing "
            "or cut short; copy it again"
        )


def _whole(path: str, piece: str, size: int, array: _Array) -> bool:
    """Tell whether a piece has the size that it or the metadata state (its decoder may not)."""
    if array.compressor is None:
        return array.text or size == array.piece_bytes
    if array.compressor != "blosc":
        return size > 0
    with Path(path, piece).open("rb") as stream:
        head = stream.read(_BLOSC_HEADER)
    if len(head) < _BLOSC_HEADER:
        return False
    n_values, _, n_piece = struct.unpack_from("<3I", head, 4)
    return n_piece == size and (array.text or n_values == array.piece_bytes)
