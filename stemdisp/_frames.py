"""The images of one or several files -> one checked array, its pixel size and metadata."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from stemdisp._read import RawSignal, only_idpc, read_file
from stemdisp._units import axis_scale_A
from stemdisp.errors import DataError


def read_images(name: str, *, lazy: bool) -> list[RawSignal]:
    """Read the image, or the images of one series, that a path names."""
    file, _, wanted = name.partition("::")
    _, found = read_file(file, lazy=lazy)
    suited = [raw for raw in found if raw.problem is None]
    if wanted:
        suited = [raw for raw in suited if raw.title == wanted] or [
            raw for raw in suited if raw.title.startswith(wanted)
        ]
    elif len(suited) > 1:
        suited = only_idpc(suited) or suited
        if len(suited) > 1:
            titles = ", ".join(repr(raw.title) for raw in suited)
            raise DataError(f'{file}: holds {titles}; name one as "{file}::NAME"')
    if not suited:
        raise DataError(f"{file}: {_why_none(found, wanted)}")
    if len({raw.data.shape for raw in suited}) > 1:
        raise DataError(f"{name}: names images of different sizes; name one exactly")
    return suited


def _why_none(found: list[RawSignal], wanted: str) -> str:
    """Explain why a file gave no image."""
    titles = ", ".join(repr(raw.title) for raw in found)
    if wanted:
        return f"holds no usable image {wanted!r}; it has {titles}"
    if len(found) == 1:
        return f"{found[0].problem}"
    return f"holds no usable image among {titles}" if found else "holds no signal; check the file"


def check_same_shape(names: list[str], parts: list[list[RawSignal]]) -> None:
    """Refuse images of different sizes, naming both files."""
    first = parts[0][0].data.shape[-2:]
    for name, part in zip(names, parts, strict=True):
        shape = part[0].data.shape[-2:]
        if shape != first:
            raise DataError(
                f"{names[0]} is {first[1]} x {first[0]} pixels but {name} is "
                f"{shape[1]} x {shape[0]}; frames must have one size"
            )


def stack(arrays: list[Any]) -> Any:
    """Put images and series one after the other; convert to numbers that compute safely."""
    arrays = [_computable(array) for array in arrays]
    if len(arrays) == 1:
        return arrays[0][0] if arrays[0].ndim == 3 and len(arrays[0]) == 1 else arrays[0]
    blocks = [array if array.ndim == 3 else array[None] for array in arrays]
    if isinstance(blocks[0], np.ndarray):
        return np.concatenate(blocks)
    import dask.array as da

    return da.concatenate(blocks)


def _computable(array: Any) -> Any:
    """Return plain C order and native bytes; 16-bit floats overflow in sums: they become 32-bit."""
    dtype = array.dtype.newbyteorder("=")
    if dtype.kind == "b":
        dtype = np.dtype(np.uint8)
    elif dtype.kind == "f" and dtype.itemsize not in (4, 8):
        dtype = np.dtype(np.float32 if dtype.itemsize < 4 else np.float64)
    if isinstance(array, np.ndarray):
        return np.ascontiguousarray(array, dtype=dtype)
    return array if array.dtype == dtype else array.astype(dtype)


def check_values(name: str, data: Any) -> None:
    """Refuse data without any information (lazy data are not looked at)."""
    if not isinstance(data, np.ndarray):
        return
    finite = np.isfinite(data)
    if not finite.any():
        raise DataError(f"{name}: holds no finite number; export the image again")
    values = data[finite]
    if values.min() == values.max():
        raise DataError(f"{name}: every pixel is {values[0]:g}; check which signal was exported")


def common_calibration(
    names: list[str], parts: list[list[RawSignal]]
) -> tuple[tuple[float, float] | None, tuple[float, float], str]:
    """Return the pixel size and the offset that all files share, and where they come from."""
    first = parts[0][0].pixel_size_A
    for name, part in zip(names, parts, strict=True):
        scales = part[0].pixel_size_A
        if (scales is None) != (first is None) or (
            scales and first and not np.allclose(scales, first, rtol=1e-3, atol=0)
        ):
            raise DataError(
                f"{names[0]} and {name} have different pixel sizes ({first} and {scales} "
                "angstrom); frames must have one, so give pixel_size or leave a file out"
            )
    if first is None:
        return None, (0.0, 0.0), "none"
    y, x = parts[0][0].axes[-2:]
    offsets = tuple(_offset_A(axis) for axis in (x, y))
    return first, (offsets[0], offsets[1]), "file"


def _offset_A(axis: Mapping[str, Any]) -> float:
    """Convert an axis offset with the factor of its scale."""
    offset = float(axis.get("offset") or 0.0)
    factor = axis_scale_A(1.0, axis.get("units"))
    return offset * factor if factor is not None and math.isfinite(offset) else 0.0


def merged_metadata(frames: list[RawSignal], shape: tuple[int, ...]) -> dict[str, Any]:
    """Return the first signal's metadata, with the doses of all frames."""
    first = frames[0]
    merged = {**first.metadata, "General": {"title": first.title}}
    own = dict(first.metadata.get("stemdisp", {}))
    doses: list[float] = []
    for raw in frames:
        dose = raw.metadata.get("stemdisp", {}).get("dose_e_per_A2")
        count = len(raw.data) if raw.data.ndim == 3 else 1
        if dose is not None:
            doses += dose if isinstance(dose, list) else [dose] * count
    own.pop("dose_e_per_A2", None)
    n_frames = shape[0] if len(shape) == 3 else 1
    if doses and len(doses) == n_frames:
        own["dose_e_per_A2"] = doses
    merged["stemdisp"] = own
    return merged
