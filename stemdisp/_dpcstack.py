"""Series of segment images -> one iDPC image: integrated to be placed, placed to be integrated."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np

from stemdisp._dpcfield import field_powers, least_curl_angle, rotate
from stemdisp._mean import half_noise, mean_of
from stemdisp._places import find_places
from stemdisp._source import (
    ArrayFrame,
    FileFrame,
    Frame,
    FrameSource,
    Reader,
    quarter_turns,
    turned,
)
from stemdisp.dpc import Dpc, analyse_dpc, dpc_vector, integrate_gradient, sum_smoothing_px
from stemdisp.errors import DataError
from stemdisp.register import Registration, registration_of

_LOOKED_AT = 8  # frames that settle the rotation of the detector


@dataclass(frozen=True, eq=False)
class VectorFrame:
    """DPC vector (2, ny, nx) of one frame, from its segments (s, ny, nx) or as it was stored."""

    segments: Reader
    rotation_deg: float
    vector: bool
    smoothing_px: float

    def __call__(self) -> np.ndarray:
        """Read, and turn onto the axes of the image."""
        data = _filled(self.segments())
        try:
            vector = data if self.vector else dpc_vector(data, smoothing_px=self.smoothing_px)
        except ValueError:  # nothing was counted, in parts at least: a blank frame
            return np.zeros((2, *data.shape[-2:]))
        dx, dy = vector
        turned = rotate(dx - dx.mean(), dy - dy.mean(), np.radians(self.rotation_deg))
        return np.stack(turned)


@dataclass(frozen=True, eq=False)
class IntegratedFrame:
    """iDPC image of one frame."""

    field: VectorFrame
    step: tuple[float, float]

    def __call__(self) -> np.ndarray:
        """Read and integrate."""
        return integrate_gradient(*self.field(), pixel_size=self.step)


@dataclass(frozen=True, eq=False)
class SegmentSeries:
    """Readers of the segments of every scan, upright, and how they are integrated.

    Attributes
    ----------
    segments : tuple of callable
        Each returns a new float array (s, ny, nx).
    source : FrameSource
        The same, integrated.
    options : dict
        Of `analyse_dpc`: pixel size and rotation.
    vector : bool
        Whether these are components of DPC vectors.
    """

    segments: tuple[Reader, ...]
    source: FrameSource
    options: dict[str, Any]
    vector: bool


def segment_series(
    data: Any,
    *,
    step: tuple[float, float] | None,
    vector: bool = False,
    paths: tuple[str, ...] | None = None,
    kind: str = "dpc-segments",
    scan_rotation_deg: Any = None,
) -> SegmentSeries:
    """Make a series of iDPC frames out of segment images.

    Parameters
    ----------
    data : array, shape (n, s, ny, nx)
        Frames of segments, or of vectors (s = 2); lazy ones stay on disk.
    step : (float, float), optional
        Pixel size, angstrom; without one a pixel is the unit.
    vector : bool
        Whether these are components of DPC vectors.
    paths, kind, scan_rotation_deg
        As for `frame_source`.

    Returns
    -------
    SegmentSeries

    Raises
    ------
    ValueError
        If the segments cannot be used.
    """
    n = int(data.shape[0])
    shape = (int(data.shape[-2]), int(data.shape[-1]))
    turns = quarter_turns(scan_rotation_deg, n, shape)
    if vector and any(turns):
        raise ValueError(
            "DPC vectors of scans along several directions are not turned; give the segments"
        )
    readers = [
        ArrayFrame(data, k) if paths is None else FileFrame(paths, kind, k) for k in range(n)
    ]
    frames = tuple(Frame(read, turn) for read, turn in zip(readers, turns, strict=True))
    size = step or (1.0, 1.0)
    rotation = _rotation(frames, step, vector=vector)
    options = {"pixel_size_A": step, "rotation_deg": rotation}
    smoothing = sum_smoothing_px(step)
    fields = tuple(VectorFrame(read, rotation, vector, smoothing) for read in frames)
    upright, line_axis = turned(shape, turns)
    source = FrameSource(
        frames=tuple(IntegratedFrame(field, size) for field in fields),
        shape=upright,
        line_axis=line_axis,
        fields=fields,
    )
    return SegmentSeries(frames, source, options, vector)


def _rotation(
    frames: tuple[Reader, ...], step: tuple[float, float] | None, *, vector: bool
) -> float:
    """Rotation of the detector, from some frames together: they need not be aligned for it.

    The frames' powers are added up before the angle of the least curl is taken, and the sign is
    that with bright atoms in all of them together: single frames may be too noisy for either.
    """
    picked = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), _LOOKED_AT)).astype(int))
    powers, seen = np.zeros(3), []
    for k in picked:
        dx, dy = VectorFrame(frames[k], 0.0, vector, sum_smoothing_px(step))()
        if np.ptp(dx) > 0 or np.ptp(dy) > 0:
            powers += field_powers(dx, dy, step or (1.0, 1.0))
            seen.append(k)
    if not seen:
        raise DataError(
            "the segments of no frame show atoms; check which signals are the segments, and their "
            "order"
        )
    angle = float(np.degrees(least_curl_angle(powers)))
    margins = [
        analyse_dpc(
            _filled(frames[k]()), pixel_size_A=step, rotation_deg=angle, vector=vector
        ).sign_margin
        for k in seen
    ]
    return angle if sum(margins) >= 0 else angle - float(np.copysign(180.0, angle))


def _filled(data: np.ndarray) -> np.ndarray:
    """Segments with missing values replaced by the segment's median."""
    missing = ~np.isfinite(data)
    if not missing.any():
        return data
    middle = np.nanmedian(np.where(missing, np.nan, data), axis=(-2, -1), keepdims=True)
    return np.where(missing, middle, data)


def align_segments(
    series: SegmentSeries,
    *,
    executor: Executor | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> tuple[Registration, Dpc]:
    """Place the frames by their iDPC images, average every segment, and integrate the means.

    Parameters
    ----------
    series : SegmentSeries
        The frames.
    executor : concurrent.futures.Executor, optional
        Who does the work frame by frame.
    progress : callable, optional
        Called as ``progress(done, total)``.
    **options
        Of `align_stack`.

    Returns
    -------
    Registration
        Its image and its halves are integrated from straightened and averaged segments.
    Dpc
        How the mean segments became the image.

    Raises
    ------
    DataError
        As `align_stack`.
    """
    found = find_places(series.source, executor=executor, progress=progress, **options)
    sums, counts = mean_of(series.segments, found.places, executor=executor)
    total = counts.sum(axis=0)

    def integrated(part: np.ndarray, number: np.ndarray) -> tuple[np.ndarray, Dpc]:
        mean = _filled(np.where(number > 0, part / np.maximum(number, 1.0), np.nan))
        result = analyse_dpc(mean, vector=series.vector, **series.options)
        return np.where(number > 0, result.image, np.nan), result

    image, result = integrated(sums.sum(axis=0), total)
    noise: tuple[np.ndarray, np.ndarray] | None = result.noise_psd
    parts = None
    if counts[1].any():
        halves = np.stack([integrated(*half)[0] for half in zip(sums, counts, strict=True)])
        noise = half_noise(np.nan_to_num(halves) * counts, counts)
        parts = (halves[0], halves[1])
    return registration_of(found, image, noise_psd=noise, halves=parts), result
