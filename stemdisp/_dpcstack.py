"""Series of segment images -> one iDPC image: integrated to be placed, placed to be integrated."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np

from stemdisp._dpcfield import rotate
from stemdisp._mean import half_noise, mean_of
from stemdisp._places import find_places
from stemdisp._source import ArrayFrame, FileFrame, Frame, FrameSource, Reader, quarter_turns
from stemdisp.dpc import analyse_dpc, dpc_vector, integrate_gradient
from stemdisp.errors import DataError
from stemdisp.register import Registration, registration_of

_LOOKED_AT = 8  # frames that settle the rotation of the detector


@dataclass(frozen=True, eq=False)
class VectorFrame:
    """DPC vector (2, ny, nx) of one frame, from its segments (s, ny, nx) or as it was stored."""

    segments: Reader
    rotation_deg: float
    vector: bool

    def __call__(self) -> np.ndarray:
        """Read, and turn onto the axes of the image."""
        data = _filled(self.segments())
        dx, dy = data if self.vector else dpc_vector(data)
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
    integrate : dict
        Options of `integrate`: pixel size and rotation.
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
    options = {"pixel_size_A": size, "rotation_deg": _rotation(frames, size, vector=vector)}
    fields = tuple(VectorFrame(read, options["rotation_deg"], vector) for read in frames)
    source = FrameSource(
        frames=tuple(IntegratedFrame(field, size) for field in fields),
        shape=shape if turns[0] % 2 == 0 else shape[::-1],
        line_axis=tuple(turn % 2 for turn in turns),
        fields=fields,
    )
    return SegmentSeries(frames, source, options, vector)


def _rotation(frames: tuple[Reader, ...], step: tuple[float, float], *, vector: bool) -> float:
    """Rotation of the detector, from some frames together: they need not be aligned for it."""
    found, weight = [], []
    for k in np.unique(np.linspace(0, len(frames) - 1, min(len(frames), _LOOKED_AT)).astype(int)):
        data = _filled(frames[k]())
        if not np.ptp(data) > 0:
            continue
        result = analyse_dpc(data, pixel_size_A=step, vector=vector)
        found.append(np.exp(1j * np.radians(result.rotation_deg)))
        weight.append(max(result.sign_margin, 0.0) * (1.0 - result.curl_fraction))
    if not found or not sum(weight) > 0:
        raise DataError(
            "the segments of no frame show atoms; check which signals are the segments, and their "
            "order"
        )
    return float(np.degrees(np.angle(np.sum(np.array(found) * weight))))


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
) -> Registration:
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

    Raises
    ------
    DataError
        As `align_stack`.
    """
    found = find_places(series.source, executor=executor, progress=progress, **options)
    sums, counts = mean_of(series.segments, found.places, executor=executor)
    total = counts.sum(axis=0)

    def integrated(part: np.ndarray, number: np.ndarray) -> tuple[np.ndarray, Any]:
        mean = _filled(np.where(number > 0, part / np.maximum(number, 1.0), np.nan))
        result = analyse_dpc(mean, vector=series.vector, **series.options)
        return np.where(number > 0, result.image, np.nan), result.noise_psd

    image, noise = integrated(sums.sum(axis=0), total)
    if not counts[1].any():
        return registration_of(found, image, noise_psd=noise, halves=None)
    halves = np.stack([integrated(*half)[0] for half in zip(sums, counts, strict=True)])
    noise = half_noise(np.nan_to_num(halves) * counts, counts)
    parts = (halves[0], halves[1])
    return registration_of(found, image, noise_psd=noise, halves=parts)
