"""TIFF files checked and read.

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
            palette = series.keyframe.photometric == tifffile.PHOTOMETRIC.PALETTE
            if "S" in series.axes or palette:
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
        first = file.pages.first
        stated = [first.tags.get(name) for name in ("XResolution", "YResolution")]
        ratios = [tag.value for tag in stated if tag is not None]
    if len(ratios) < 2 or not all(min(ratio) > 0 for ratio in ratios):
        return [None] * n
    return [[(ratio[1] / ratio[0], unit) for ratio in ratios]] * n


def _ome_pixels(text: str) -> list[ElementTree.Element]:
    """Return the description of each series."""
    try:
        return [e for e in ElementTree.fromstring(text).iter() if e.tag.endswith("}Pixels")]
    except ElementTree.ParseError:
        return []


def _ome_axes(pixels: ElementTree.Element) -> list[tuple[float, str]] | None:
    """Return scale and unit of x and y."""
    sizes = [pixels.get(f"PhysicalSize{name}", "") for name in "XY"]
    units = [pixels.get(f"PhysicalSize{name}Unit", "µm") for name in "XY"]
    try:
        return [(float(size), unit) for size, unit in zip(sizes, units, strict=True)]
    except (TypeError, ValueError):
        return None


class Pages:
    """Series of packed images that are decoded one by one.

    Attributes
    ----------
    shape : tuple of int
        (frames, y, x).
    dtype : dtype
    """

    def __init__(self, path: str, number: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.shape, self.dtype, self.ndim = shape, dtype, len(shape)
        self._where = (path, number)

    def __getitem__(self, index: tuple[int, ...]) -> np.ndarray:
        """Decode one frame."""
        import tifffile

        path, number = self._where
        return tifffile.imread(path, series=number, key=index[0])


def _on_disk(path: str, number: int, max_bytes: int) -> Any:
    """Return one series as an array whose frames are read when they are asked for."""
    import tifffile

    with open(path, "rb") as stream, tifffile.TiffFile(stream) as file:
        series = file.series[number]
        mapped, shape, dtype = series.dataoffset is not None, series.shape, series.dtype
        single = len(shape) == 3 and len(series.pages) == shape[0]
        if not (mapped or single) and series.nbytes > max_bytes:
            raise DataError(too_large(series.nbytes, max_bytes))
    if mapped:
        return tifffile.memmap(path, series=number, mode="r")
    return Pages(path, number, shape, dtype) if single else tifffile.imread(path, series=number)


def _pieces(page: Any) -> Iterator[tuple[int, int]]:
    """Yield where each piece of a TIFF page starts and how many bytes it has."""
    return zip(page.dataoffsets, page.databytecounts, strict=True)
