"""Path(s) -> HyperSpy ``Signal2D``: formats, axes, units, stacks.

What is loaded is an image (2-D), a series of images (3-D, its navigation axis called ``frame``),
or the segments of a detector, one scan (``segment``) or a series of scans (4-D, ``frame`` and
``segment``); a DPC vector stands in place of segments with an axis ``component``, x first. The
signal axes are x and y in angstrom (units ``"Å"``). Where the file states no pixel size they keep
scale 1 and no unit, and `calibrated` says False; nothing is guessed.

This module itself is light, because the package imports it at once; the work is in ``_frames``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stemdisp._units import UNIT, axis_scale_A
from stemdisp.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from hyperspy.signals import Signal2D

    from stemdisp._frames import Part

SEGMENT_AXES = {"segment", "component"}  # navigation axes that are no frames

KINDS = ("auto", "image", "stack", "dpc-segments")

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def load(
    path: Paths,
    *,
    pixel_size: float | tuple[float, float] | None = None,
    lazy: bool = False,
    kind: str = "auto",
) -> Signal2D:
    """Read an image, a series of images, or the segments of a detector from any supported file.

    Parameters
    ----------
    path : path, or sequence of paths
        One file, or several whose images are stacked in the given order. ``"FILE::NAME"`` picks
        the signals whose title is NAME, or else starts with it, from a file that holds several.
        Of a file without such a name, "auto" takes what is there first of: an image called iDPC;
        a full set of segments (titles that end in A, B, C, D after the same words); a DPC vector
        (a complex signal ``DPC``, or images ``DPCx`` and ``DPCy``); its only image.
    pixel_size : float or (float, float), optional
        Pixel size in angstrom (x, y), instead of that of the file.
    lazy : bool
        Leave the values on disk as long as possible: a dask array with a piece for each frame.
    kind : {"auto", "image", "stack", "dpc-segments"}
        What to take. "dpc-segments": the segments, or else the DPC vector, even beside an iDPC
        image; of files or series without names, each image is a segment. "image" and "stack":
        never the segments.

    Returns
    -------
    Signal2D
        Shape (y, x) or (frames, y, x), or with segments, or the components of a DPC vector,
        before y; real numbers. The axes are in angstrom if the pixel size is known (see
        `calibrated`). ``metadata.stemdisp.segments`` lists the names of the segments, and
        ``metadata.stemdisp.dpc_vector`` marks a vector.

    Raises
    ------
    DataError
        If a file cannot be read, holds no suitable image, or the images do not fit together.
    ValueError
        If `pixel_size` is not positive, or `kind` unknown.
    """
    from stemdisp import _frames

    _check_kind(kind)
    scales = None if pixel_size is None else _given_scales(pixel_size)
    paths = [path] if isinstance(path, str | os.PathLike) else list(path)
    if not paths:
        raise ValueError("path names no file; give at least one")
    names = [os.fspath(p) for p in paths]
    parts = [_frames.read_part(name, kind=kind, lazy=lazy) for name in names]
    _frames.check_same_shape(parts)
    whole = _frames.assemble(parts, kind=kind)
    _frames.check_values(whole)
    offsets = (0.0, 0.0)
    origin = "given"
    if scales is None:
        scales, offsets, origin = _frames.common_calibration(parts)
    metadata = _frames.merged_metadata(parts, whole)
    metadata["stemdisp"]["calibration"] = origin
    signal = _build(whole, scales, offsets, metadata)
    return signal.as_lazy() if lazy else signal


def signal_pixel_size_A(signal: Signal2D) -> tuple[float, float] | None:
    """Return the pixel size of a signal in angstrom.

    Parameters
    ----------
    signal : Signal2D
        Any calibrated or uncalibrated signal, whatever its unit of length.

    Returns
    -------
    (float, float) or None
        Along x and y; None where an axis has no unit of length or no positive scale.
    """
    sx, sy = (axis_scale_A(a.scale, a.units) for a in signal.axes_manager.signal_axes)
    return None if sx is None or sy is None else (sx, sy)


def calibrated(signal: Signal2D) -> bool:
    """Tell whether both image axes of a signal have a unit of length.

    Parameters
    ----------
    signal : Signal2D
        Any signal.

    Returns
    -------
    bool
        Whether `signal_pixel_size_A` gives numbers.
    """
    return signal_pixel_size_A(signal) is not None


def dose_of(signal: Signal2D, n_frames: int) -> np.ndarray | None:
    """Return the electron dose of each frame, where the file states it.

    Parameters
    ----------
    signal : Signal2D
        The series; its dose stands at ``metadata.stemdisp.dose_e_per_A2`` (one number, or one
        per frame).
    n_frames : int
        How many frames there are.

    Returns
    -------
    ndarray of shape (n_frames,), or None
        In electrons per square angstrom.

    Raises
    ------
    DataError
        If the stated doses are not one per frame, or not positive numbers.
    """
    import numpy as np

    stated = signal.metadata.get_item("stemdisp.dose_e_per_A2", default=None)
    if stated is None:
        return None
    try:
        dose = np.atleast_1d(np.asarray(stated, dtype=float))
    except (TypeError, ValueError):  # text, tables
        dose = np.full(1, np.nan)
    if dose.shape not in ((1,), (n_frames,)) or not (np.isfinite(dose) & (dose > 0)).all():
        raise DataError(
            f"metadata.stemdisp.dose_e_per_A2 = {stated} is not a positive number, or one for "
            f"each of the {n_frames} frames; correct or delete it"
        )
    return np.broadcast_to(dose, (n_frames,)).copy()


def classify(signal: Signal2D, kind: str = "auto") -> str:
    """Settle what a signal is: an image, a stack of frames, or the segments of a detector.

    Parameters
    ----------
    signal : Signal2D
        The signal.
    kind : {"auto", "image", "stack", "dpc-segments"}
        What the user says it is.

    Returns
    -------
    {"image", "stack", "dpc-segments"}
        What it is.

    Raises
    ------
    DataError
        If the data cannot be of that kind.
    ValueError
        If `kind` is unknown.
    """
    _check_kind(kind)
    n_navigation = signal.axes_manager.navigation_dimension
    names = {str(axis.name).casefold() for axis in signal.axes_manager.navigation_axes}
    segmented = bool(names & SEGMENT_AXES)
    if n_navigation > 1 + segmented:
        raise DataError(
            f"the data have {n_navigation} navigation axes; give one image, or one series of "
            "images (of segments: axes named 'frame' and 'segment')"
        )
    if segmented and kind in ("image", "stack"):
        raise DataError(
            f"kind = {kind!r}, but the data hold detector segments (an axis is named "
            f"{(names & SEGMENT_AXES).pop()!r}); set kind to 'dpc-segments' or 'auto'"
        )
    if kind == "auto":
        return "dpc-segments" if segmented else "stack" if n_navigation else "image"
    if kind == "image" and n_navigation:
        raise DataError(
            f"kind = 'image', but the data hold {signal.axes_manager.navigation_size} images; "
            "set kind to 'stack' (frames) or 'dpc-segments'"
        )
    if kind != "image" and not n_navigation:
        raise DataError(
            f"kind = {kind!r}, but the data hold one image; set kind to 'image', or name all files"
        )
    return kind


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"kind = {kind!r} is not one of: {', '.join(KINDS)}")


def _given_scales(pixel_size: float | tuple[float, float]) -> tuple[float, float]:
    """Check a pixel size given by the caller."""
    pair = tuple(pixel_size) if isinstance(pixel_size, Sequence) else (pixel_size, pixel_size)
    if len(pair) != 2 or not all(math.isfinite(value) and value > 0 for value in pair):
        raise ValueError(f"pixel_size = {pixel_size!r} is not positive; give angstrom per pixel")
    return float(pair[0]), float(pair[1])


def _build(
    whole: Part,
    scales: tuple[float, float] | None,
    offsets: tuple[float, float],
    metadata: dict[str, Any],
) -> Signal2D:
    """Make the HyperSpy signal."""
    from hyperspy.signals import Signal2D

    data = whole.data
    inner = {"image": [], "segments": ["segment"], "vector": ["component"]}[whole.role]
    names = ["frame"] * (data.ndim - 2 - len(inner)) + inner
    axes: list[dict[str, Any]] = [
        {"name": name, "size": data.shape[k], "navigate": True} for k, name in enumerate(names)
    ]
    for k, name in ((1, "y"), (0, "x")):
        axis: dict[str, Any] = {"name": name, "size": data.shape[-1 - k], "navigate": False}
        if scales is not None:
            axis |= {"scale": scales[k], "offset": offsets[k], "units": UNIT}
        axes.append(axis)
    return Signal2D(data, axes=axes, metadata=metadata)
