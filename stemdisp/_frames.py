"""The signals of one or several files -> one checked array, its pixel size and metadata."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from stemdisp._choose import MIN_SEGMENTS, Choice, choose, lettered
from stemdisp._gate import read_file
from stemdisp._raw import RawSignal
from stemdisp._units import axis_scale_A
from stemdisp.errors import DataError


@dataclass(frozen=True, eq=False)
class Part:
    """What one path gives.

    Attributes
    ----------
    name : str
        The path, as the user wrote it.
    role : {"image", "segments", "vector"}
        What `data` are: (y, x) or (frame, y, x); with an axis for the segments, or for the two
        components of the vector, before y.
    data : ndarray or dask array
        Real numbers that compute safely.
    labels : tuple of str
        Names of the segments.
    signals : tuple of RawSignal
        Where they come from.
    pieces : (int, int)
        Pieces of the file's images that were never written, and all.
    """

    name: str
    role: str
    data: Any
    labels: tuple[str, ...]
    signals: tuple[RawSignal, ...]
    pieces: tuple[int, int] = (0, 0)

    @property
    def n_frames(self) -> int:
        """How many frames there are."""
        single = 2 if self.role == "image" else 3
        return len(self.data) if self.data.ndim > single else 1


def read_part(name: str, *, kind: str, lazy: bool) -> Part:
    """Read what a path names: an image, a series, segments, or a DPC vector."""
    file, _, wanted = name.partition("::")
    content = read_file(file, lazy=lazy)
    try:
        choice = choose(content.signals, wanted=wanted, kind=kind)
    except DataError as err:
        raise DataError(f"{file}: {err}") from err
    build = {"image": _series, "segments": _segments, "vector": _vector}[choice.role]
    data = build(choice)
    title = choice.signals[0].title or Path(file).stem
    labels = _labels(choice, data) if choice.role == "segments" else (title,)
    pieces = (content.pieces_missing, content.pieces)
    return Part(name, choice.role, data, labels, choice.signals, pieces)


def _series(choice: Choice) -> Any:
    """Put images and series of one detector one after the other."""
    return _joined([_computable(raw.data) for raw in choice.signals], single=2)


def _segments(choice: Choice) -> Any:
    """Put segments side by side: (segment, y, x) or (frame, segment, y, x)."""
    first = choice.signals[0]
    if len(choice.signals) > 1:
        return _beside([_computable(raw.data) for raw in choice.signals])
    data, axis = _computable(first.data), first.axis_named("segment")
    return np.moveaxis(data, axis or 0, -3) if data.ndim > 3 else data


def _vector(choice: Choice) -> Any:
    """Put the components of a vector side by side, x first."""
    first = choice.signals[0]
    if len(choice.signals) > 1:
        return _beside([_computable(raw.data) for raw in choice.signals])
    if first.data.dtype.kind == "c":
        return _beside([_computable(first.data.real), _computable(first.data.imag)])
    data, axis = _computable(first.data), first.axis_named("component")
    return np.moveaxis(data, axis or 0, -3) if data.ndim > 3 else data


def _labels(choice: Choice, data: Any) -> tuple[str, ...]:
    """Name the segments by their titles, or as the file's metadata do, or by numbers."""
    n = data.shape[-3]
    if len(choice.signals) == n:
        return tuple(raw.title for raw in choice.signals)
    stated = choice.signals[0].metadata.get("stemdisp", {}).get("segments")
    if isinstance(stated, list) and len(stated) == n:
        return tuple(str(label) for label in stated)
    return _numbers(n)


def _numbers(n: int) -> tuple[str, ...]:
    return tuple(str(k) for k in range(1, n + 1))


def check_same_shape(parts: Sequence[Part]) -> None:
    """Refuse images of different sizes, and files of different kinds, naming both files."""
    first = parts[0]
    shape = first.data.shape[-2:]
    for part in parts:
        size = part.data.shape[-2:]
        if size != shape:
            raise DataError(
                f"{first.name} is {shape[1]} x {shape[0]} pixels but {part.name} is "
                f"{size[1]} x {size[0]}; frames must have one size"
            )
        if part.role != first.role or len(part.labels) != len(first.labels):
            raise DataError(
                f"{first.name} holds {_words(first)} but {part.name} {_words(part)}; "
                "all files must hold the same"
            )


def _words(part: Part) -> str:
    """Say what a part is."""
    if part.role == "segments":
        return f"{len(part.labels)} detector segments"
    return "a DPC vector" if part.role == "vector" else "images"


def assemble(parts: Sequence[Part], *, kind: str) -> Part:
    """Make one part of all: frames one after the other, or segments side by side."""
    first = parts[0]
    signals = tuple(raw for part in parts for raw in part.signals)
    if first.role == "image" and kind == "dpc-segments":
        return replace(_as_segments(parts), signals=signals)
    data = _joined([part.data for part in parts], single=2 if first.role == "image" else 3)
    return replace(first, data=data, signals=signals)


def _as_segments(parts: Sequence[Part]) -> Part:
    """Make segments of images and series that the user alone says are segments."""
    first = parts[0]
    labels = tuple(part.labels[0] for part in parts)
    arrays = [part.data for part in parts]
    counts = {part.data.shape[:-2] for part in parts}
    if len(counts) > 1:
        raise DataError(
            f"{first.name} and the other files hold different numbers of images; "
            "give one file for each segment, or one for each scan"
        )
    if len(parts) == 1 or (arrays[0].ndim == 3 and not _one_segment_each(parts)):
        n = len(arrays[0]) if arrays[0].ndim == 3 else 1
        data, labels = _joined(arrays, single=3) if n > 1 else arrays[0], _numbers(n)
    else:
        data = _beside(arrays)
    if len(labels) < MIN_SEGMENTS:
        count = "one image" if len(labels) == 1 else f"{len(labels)} images"
        raise DataError(
            f"{first.name}: kind = 'dpc-segments', but the data hold {count}; name the images of "
            f"at least {MIN_SEGMENTS} segments, or set kind to 'image' or 'stack'"
        )
    return replace(first, role="segments", data=data, labels=labels)


def _one_segment_each(parts: Sequence[Part]) -> bool:
    """Tell whether series are named as one segment each: titles or files that end in A, B, ..."""
    stems = [Path(part.name.partition("::")[0]).stem for part in parts]
    return any(lettered(names) for names in ([part.labels[0] for part in parts], stems))


def _joined(arrays: list[Any], *, single: int) -> Any:
    """Put what has `single` axes, and series of it, one after the other; no axis for one frame."""
    if len(arrays) == 1:
        data = arrays[0]
        return data[0] if data.ndim > single and len(data) == 1 else data
    blocks = [array if array.ndim > single else array[None] for array in arrays]
    if isinstance(blocks[0], np.ndarray):
        return np.concatenate(blocks)
    import dask.array as da

    return da.concatenate(blocks)


def _beside(arrays: list[Any]) -> Any:
    """Put images side by side on a new axis before y; series keep their frames in front."""
    if isinstance(arrays[0], np.ndarray):
        return np.stack(arrays, axis=-3)
    import dask.array as da

    return da.stack(arrays, axis=-3)


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


def check_values(part: Part) -> None:
    """Refuse data, and segments, without any information (lazy data are not looked at)."""
    if not isinstance(part.data, np.ndarray):
        return
    pieces = {"": part.data}
    if part.role == "segments":
        pieces = {
            f"segment {name!r}: ": part.data[..., k, :, :] for k, name in enumerate(part.labels)
        }
    for what, data in pieces.items():
        finite = np.isfinite(data)
        if not finite.any():
            raise DataError(f"{part.name}: {what}holds no finite number; export the image again")
        values = data[finite]
        if values.min() == values.max():
            raise DataError(
                f"{part.name}: {what}every pixel is {values[0]:g}; check which signal was exported"
            )


def common_calibration(
    parts: Sequence[Part],
) -> tuple[tuple[float, float] | None, tuple[float, float], str]:
    """Return the pixel size and the offset that all signals share, and where they come from."""
    first = parts[0].signals[0]
    stated = first.pixel_size_A
    for part in parts:
        for raw in part.signals:
            scales = raw.pixel_size_A
            if (scales is None) != (stated is None) or (
                scales and stated and not np.allclose(scales, stated, rtol=1e-3, atol=0)
            ):
                other = part.name if len(parts) > 1 else f"{part.name}::{raw.title}"
                raise DataError(
                    f"{parts[0].name} and {other} have different pixel sizes ({stated} and "
                    f"{scales} angstrom); frames must have one, so give pixel_size or leave a "
                    "file out"
                )
    if stated is None:
        return None, (0.0, 0.0), "none"
    y, x = first.axes[-2:]
    offsets = tuple(_offset_A(axis) for axis in (x, y))
    return stated, (offsets[0], offsets[1]), "file"


def _offset_A(axis: Mapping[str, Any]) -> float:
    """Convert an axis offset with the factor of its scale."""
    offset = float(axis.get("offset") or 0.0)
    factor = axis_scale_A(1.0, axis.get("units"))
    return offset * factor if factor is not None and math.isfinite(offset) else 0.0


def merged_metadata(parts: Sequence[Part], whole: Part) -> dict[str, Any]:
    """Return the first signal's metadata, with the doses of all frames and what the data are."""
    first = whole.signals[0]
    own = dict(first.metadata.get("stemdisp", {}))
    for key in ("dose_e_per_A2", "segments", "dpc_vector", "pieces_missing", "odd_pixel_size"):
        own.pop(key, None)
    missing = [part for part in parts if part.pieces[0]]
    if missing:
        own["pieces_missing"] = [
            f"{part.name}: {part.pieces[0]} of {part.pieces[1]} pieces" for part in missing
        ]
    doses = [dose for part in parts for dose in _doses(part)]
    if whole.role != parts[0].role and len(set(doses)) == 1:
        n_images = sum(part.n_frames for part in parts)
        # images that are segments: all segments of a scan count the same electrons
        doses = doses[:1] * whole.n_frames if len(doses) == n_images else []
    if first.odd_pixel_size:
        own["odd_pixel_size"] = f"{parts[0].name}: {first.odd_pixel_size}"
    if doses and len(doses) == whole.n_frames:
        own["dose_e_per_A2"] = doses
    if whole.role == "segments":
        own["segments"] = list(whole.labels)
    if whole.role == "vector":
        own["dpc_vector"] = True
    return {**first.metadata, "General": {"title": first.title}, "stemdisp": own}


def _doses(part: Part) -> list[float]:
    """Return the dose of each frame of a part, as far as the file states it."""
    doses: list[float] = []
    # segments and components are recorded together: the first speaks for all
    for raw in part.signals if part.role == "image" else part.signals[:1]:
        dose = raw.metadata.get("stemdisp", {}).get("dose_e_per_A2")
        count = part.n_frames if part.role != "image" else _n_images(raw)
        if isinstance(dose, list) and part.role != "image" and len(set(dose)) == 1:
            dose = dose[0]
        _check_dose(part.name, dose)
        if dose is not None:
            doses += dose if isinstance(dose, list) else [dose] * count
    return doses


def _check_dose(name: str, dose: Any) -> None:
    """Refuse a stated dose that is neither a number nor a list of them."""
    values = dose if isinstance(dose, list) else [] if dose is None else [dose]
    if not all(isinstance(value, int | float) for value in values):
        raise DataError(
            f"{name}: metadata.stemdisp.dose_e_per_A2 = {dose} is not a positive number, or one "
            "for each frame; correct or delete it"
        )


def _n_images(raw: RawSignal) -> int:
    return len(raw.data) if raw.data.ndim == 3 else 1
