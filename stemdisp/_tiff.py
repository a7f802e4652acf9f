"""TIFF files checked and read, and arrays on disk cut into single frames.

RosettaSciIO's lazy reader leaves the file open and decodes all frames to give one. Here frames
are mapped where the file holds them as they are, and decoded one by one where it does not.
"""

from __future__ import annotations

import gc
import importlib
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

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
    if lazy:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            found = [{**content, "data": None} for content in read(path, lazy=True)]
            gc.collect()  # closes the file that the reader left open
        for number, content in enumerate(found):
            content["data"] = _on_disk(path, number, max_bytes)
    else:
        found = read(path)
    for content, stated in zip(found, _stated_axes(path, len(found)), strict=True):
        y, x = content["axes"][-2:]
        if stated and not (x.get("units") or y.get("units")):
            for axis, (scale, unit) in zip((x, y), stated, strict=True):
                axis |= {"scale": scale, "units": unit}
    return found


def _stated_axes(path: str, n: int) -> list[list[tuple[float, str]] | None]:
    """Return scale and unit of x and y for each series, as ImageJ or OME-TIFF state them.

    RosettaSciIO reads of ImageJ's units the micrometre only, and of OME-TIFF none. ImageJ writes
    pixels per unit as the resolution; OME-TIFF the attributes PhysicalSizeX and -Y, in
    micrometres unless it says otherwise (OME schema 2016-06).
    """
    import tifffile

    with open(path, "rb") as stream, tifffile.TiffFile(stream) as file:
        if file.is_ome:
            found = [_ome_axes(pixels) for pixels in _ome_pixels(file.ome_metadata or "")]
            return (found + [None] * n)[:n]
        unit = (file.imagej_metadata or {}).get("unit")
        if not isinstance(unit, str):
            return [None] * n
        unit = re.sub(r"\\u00b5", "µ", unit, flags=re.IGNORECASE)
        tags = [file.pages[0].tags.get(name) for name in ("XResolution", "YResolution")]
    if not all(tag is not None and min(tag.value) > 0 for tag in tags):
        return [None] * n
    return [[(tag.value[1] / tag.value[0], unit) for tag in tags]] * n


def _ome_pixels(text: str) -> list[ElementTree.Element]:
    """Return the description of each series."""
    try:
        return [e for e in ElementTree.fromstring(text).iter() if e.tag.endswith("}Pixels")]
    except ElementTree.ParseError:
        return []


def _ome_axes(pixels: ElementTree.Element) -> list[tuple[float, str]] | None:
    """Return scale and unit of x and y."""
    sizes = [pixels.get(f"PhysicalSize{name}") for name in "XY"]
    units = [pixels.get(f"PhysicalSize{name}Unit", "µm") for name in "XY"]
    try:
        return [(float(size), unit) for size, unit in zip(sizes, units, strict=True)]
    except (TypeError, ValueError):
        return None


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
    if isinstance(data, da.Array):
        return data.rechunk((1,) * (data.ndim - 2) + tuple(data.shape[-2:]))
    if isinstance(data, np.memmap):
        return _mapped(data, ())
    return da.from_array(data, chunks=(1,) * (data.ndim - 2) + tuple(data.shape[-2:]))


def _mapped(data: np.memmap, index: tuple[int, ...]) -> Any:
    """Return a mapped array as dask frames; dask's own way would read all of it for its graph."""
    import dask
    import dask.array as da

    if len(index) < data.ndim - 2:
        return da.stack([_mapped(data, (*index, k)) for k in range(data.shape[len(index)])])
    order = "C" if data.flags.c_contiguous else "F"
    where = (data.filename, data.dtype, "r", data.offset, data.shape, order)
    return da.from_delayed(dask.delayed(_frame)(where, index), data.shape[-2:], data.dtype)


def _frame(where: tuple[Any, ...], index: tuple[int, ...]) -> np.ndarray:
    """Read one frame of a mapped file."""
    return np.array(np.memmap(*where)[index])


def _pieces(page: Any) -> Iterator[tuple[int, int]]:
    """Yield where each piece of a TIFF page starts and how many bytes it has."""
    return zip(page.dataoffsets, page.databytecounts, strict=True)
