"""TIFF files checked and read, and arrays on disk cut into single frames.

RosettaSciIO's lazy reader leaves the file open and decodes all frames to give one. Here frames
are mapped where the file holds them as they are, and decoded one by one where it does not.
"""

from __future__ import annotations

import gc
import importlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stemdisp._hdf5scan import too_large
from stemdisp.errors import DataError


def check_tiff(path: str) -> int:
    """Refuse colour images and truncated files; return how many bytes of values are declared.

    Parameters
    ----------
    path : str
        The file.

    Returns
    -------
    int

    Raises
    ------
    DataError
        If the file holds colours or is shorter than it says.
    """
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
        ends = [sum(part) for page in pages for part in _pieces(page)]
    if ends and max(ends) > Path(path).stat().st_size:
        raise DataError("is shorter than its TIFF header says; copy or export it again")
    return declared


def read_tiff(path: str, *, lazy: bool, max_bytes: int) -> list[dict[str, Any]]:
    """Read all series of a TIFF file.

    Parameters
    ----------
    path : str
        The file.
    lazy : bool
        Leave the values on disk where single frames can be read.
    max_bytes : int
        What may be read at once where they cannot.

    Returns
    -------
    list of dict
        As RosettaSciIO's readers give them.

    Raises
    ------
    DataError
        If a series that can only be read at once is too large.
    """
    read = importlib.import_module("rsciio.tiff").file_reader
    if not lazy:
        return read(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        found = [{**content, "data": None} for content in read(path, lazy=True)]
        gc.collect()  # closes the file that the reader left open
    for number, content in enumerate(found):
        content["data"] = _on_disk(path, number, max_bytes)
    return found


def _on_disk(path: str, number: int, max_bytes: int) -> Any:
    """Return one series as a dask array of single frames."""
    import dask
    import dask.array as da
    import tifffile

    with open(path, "rb") as stream, tifffile.TiffFile(stream) as file:
        series = file.series[number]
        mapped, shape, dtype = series.dataoffset is not None, series.shape, series.dtype
        single = len(shape) == 3 and len(series.pages) == shape[0]
        if not (mapped or single) and series.nbytes > max_bytes:
            raise DataError(too_large(series.nbytes, max_bytes))
    if mapped:
        return by_frames(tifffile.memmap(path, series=number, mode="r"))
    if not single:
        return by_frames(tifffile.imread(path, series=number))
    page = dask.delayed(tifffile.imread, pure=True)
    pages = [page(path, series=number, key=k) for k in range(shape[0])]
    return da.stack([da.from_delayed(value, shape[1:], dtype) for value in pages])


def by_frames(data: Any) -> Any:
    """Return a dask array whose pieces are single frames, along all axes but the last two.

    Parameters
    ----------
    data : ndarray, memmap or dask array
        Images, or series of them.

    Returns
    -------
    dask array
    """
    import dask.array as da

    if data.ndim < 2 or 0 in data.shape:
        return data if isinstance(data, da.Array) else da.from_array(np.asarray(data))
    chunks = (1,) * (data.ndim - 2) + tuple(data.shape[-2:])
    if isinstance(data, da.Array):
        return data.rechunk(chunks)
    return da.from_array(data, chunks=chunks)


def _pieces(page: Any) -> Iterator[tuple[int, int]]:
    """Yield where each piece of a TIFF page starts and how many bytes it has."""
    return zip(page.dataoffsets, page.databytecounts, strict=True)
