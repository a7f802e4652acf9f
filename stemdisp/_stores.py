"""What a path means on disk: one file, or a directory that is a store of one data set (zarr)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

SUFFIX = ".zspy"
_MARKS = (".zgroup", "zarr.json")


def is_store(path: str | os.PathLike[str]) -> bool:
    """Tell whether a directory stands for one data file.

    Parameters
    ----------
    path : path
        Any path.

    Returns
    -------
    bool
        Whether it is a directory called ``.zspy``, or one that holds a zarr group.
    """
    folder = Path(path)
    if not os.path.isdir(folder):
        return False
    return folder.suffix.lower() == SUFFIX or any((folder / mark).is_file() for mark in _MARKS)


def is_data(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path may hold data: a file, or a store; not what lies in a store.

    Parameters
    ----------
    path : path
        Any path.

    Returns
    -------
    bool
    """
    if any(parent.suffix.lower() == SUFFIX for parent in Path(path).parents):
        return False
    return os.path.isfile(path) or is_store(path)


def files_of(path: str | os.PathLike[str]) -> Iterator[tuple[str, Path]]:
    """Yield the files that a path stands for, in an order that does not depend on the disk.

    Parameters
    ----------
    path : path
        A file or a store; anything else has no files.

    Yields
    ------
    name : str
        The name within the store, with ``/``; empty for a file.
    file : Path
        Links within a store are left out.
    """
    if os.path.isfile(path):
        yield "", Path(path)
    elif is_store(path):
        for folder, folders, names in os.walk(path):
            folders.sort()
            for file in (Path(folder, name) for name in sorted(names)):
                if file.is_file() and not file.is_symlink():
                    yield file.relative_to(path).as_posix(), file
