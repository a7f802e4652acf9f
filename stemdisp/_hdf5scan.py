"""A look through an HDF5 file before any reader touches it.

Readers follow links into other files, evaluate axis expressions and allocate whatever a header
declares. This walk sees names, links and sizes only, and refuses what an image file has no need
of.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import h5py

from stemdisp.errors import DataError

MAX_DEPTH = 32
MAX_OBJECTS = 10_000


def scan_hdf5(path: str) -> tuple[str, int, int, int]:
    """Check an HDF5 file, tell which layout it has and how much it declares to hold.

    Pieces (chunks) that were never written read as zeros, and no reader says so: they are counted.

    Parameters
    ----------
    path : str
        The file.

    Returns
    -------
    layout : {"hspy", "emd"}
    declared : int
        Bytes of all datasets together.
    missing, pieces : int
        Of the datasets with two axes or more: pieces that were never written, and all pieces.

    Raises
    ------
    DataError
        If the file links outside itself, computes its axes, is nested without end, or
        has another layout.
    """
    with h5py.File(path, "r") as file:
        declared = missing = pieces = 0
        for count, (name, item) in enumerate(_walk(file, "", frozenset(), 0), start=1):
            if count > MAX_OBJECTS:
                raise DataError(
                    f"holds more than {MAX_OBJECTS} objects; save the image to a file of its own"
                )
            if isinstance(item, h5py.Dataset):
                declared += _check_dataset(name, item)
                wanted, written = _pieces(item)
                pieces, missing = pieces + wanted, missing + wanted - written
            if "expression" in item.attrs or name.endswith("/expression"):
                check_expression(name)
        return _layout(file), declared, missing, pieces


def in_one_piece(path: str) -> bool:
    """Tell whether a HyperSpy file keeps a signal unchunked, which its lazy reader cannot read.

    Parameters
    ----------
    path : str
        The file, looked through by `scan_hdf5`.

    Returns
    -------
    bool
    """
    with h5py.File(path, "r") as file:
        signals = file["Experiments"].values() if "Experiments" in file else ()
        found = [group.get("data") for group in signals if isinstance(group, h5py.Group)]
        return any(isinstance(data, h5py.Dataset) and data.chunks is None for data in found)


def too_large(declared: int, max_bytes: int, *, what: str = "data") -> str:
    """Word the refusal of a file that declares too much data."""
    return (
        f"declares {declared / 2**30:.1f} GiB of {what}, more than the {max_bytes / 2**30:g} GiB "
        "that are read at once; crop it or split it into files of single frames "
        "(load reads larger series with lazy=True)"
    )


def _walk(
    group: h5py.Group, prefix: str, above: frozenset[int], depth: int
) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
    """Yield every object that is reached through hard links, refusing all other links."""
    address = h5py.h5o.get_info(group.id).addr
    if address in above:
        raise DataError(
            f"its group {prefix or '/'!r} contains itself; the file is damaged, so copy or export "
            "it again"
        )
    if depth > MAX_DEPTH:
        raise DataError(
            f"is nested more than {MAX_DEPTH} groups deep; the file is damaged, so copy or export "
            "it again"
        )
    above = above | {address}
    for key in group:
        name = f"{prefix}/{key}"
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            raise DataError(
                f"its entry {name!r} links to another place; save a copy that holds the data"
            )
        item = group.get(key)
        if isinstance(item, h5py.Group):
            yield name, item
            yield from _walk(item, name, above, depth + 1)
        elif isinstance(item, h5py.Dataset):
            yield name, item


def _check_dataset(name: str, dataset: h5py.Dataset) -> int:
    """Refuse data that lie in another file; return the declared size in bytes."""
    if dataset.external or dataset.is_virtual:
        raise DataError(
            f"its dataset {name!r} keeps its values in another file; save a copy that holds them"
        )
    if dataset.shape is None:
        return 0
    return math.prod(dataset.shape) * dataset.dtype.itemsize


def _pieces(dataset: h5py.Dataset) -> tuple[int, int]:
    """Return how many pieces an image or series has, and how many of them were written."""
    if dataset.shape is None or dataset.ndim < 2 or 0 in dataset.shape:
        return 0, 0
    if dataset.chunks is None:
        return 1, int(dataset.id.get_storage_size() > 0)
    per_axis = (-(-n // chunk) for n, chunk in zip(dataset.shape, dataset.chunks, strict=True))
    return math.prod(per_axis), dataset.id.get_num_chunks()


def check_expression(name: str) -> None:
    """Refuse axes that are computed from text: HyperSpy would run that text as code.

    Parameters
    ----------
    name : str
        Where in the file the expression stands.

    Raises
    ------
    DataError
        If that is an axis.
    """
    if any(part.startswith("axis") for part in name.split("/")):
        raise DataError(
            f"its axis {name!r} is computed from an expression, which is not read because it "
            "could run code; save the image with uniform axes"
        )


def _layout(file: h5py.File) -> str:
    """Tell a HyperSpy file from an EMD file."""
    stated = file.attrs.get("file_format", "")
    if isinstance(stated, bytes):
        stated = stated.decode("ascii", "replace")
    if str(stated).lower() == "hyperspy" or "Experiments" in file:
        return "hspy"
    groups = [file, *(item for item in file.values() if isinstance(item, h5py.Group))]
    if "Version" in file or any("version_major" in group.attrs for group in groups):
        return "emd"
    raise DataError("is an HDF5 file, but neither HyperSpy's nor EMD; save the image as .hspy")
