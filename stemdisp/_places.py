"""Where the frames of a series lie, and how their lines are displaced: the steps in order.

See `register` for the whole; this is where its kernels are called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np

from stemdisp._filter import cosine_spectrum, filtered_frames, reduced_shape
from stemdisp._finealign import common_area
from stemdisp._locate import locate
from stemdisp._mean import mean_of
from stemdisp._resample import Place
from stemdisp._source import FrameSource
from stemdisp._spread import spread
from stemdisp._straighten import straighten
from stemdisp.errors import DataError

_BEYOND_PX = 0.1  # lines may end this much outside their frame


@dataclass(frozen=True, eq=False)
class Placed:
    """Where frames lie.

    Attributes
    ----------
    places : tuple of Place or None
        None for frames left out.
    used, correlation, guard, scan
        As in `Registration`.
    """

    places: tuple[Place | None, ...]
    used: np.ndarray
    correlation: np.ndarray
    guard: dict[str, Any]
    scan: dict[str, Any]


def find_places(
    source: FrameSource,
    *,
    upsample: int = 20,
    max_shift_px: float | None = None,
    correct_scan: bool = True,
    executor: Executor | None = None,
    progress: Callable[[int, int], None] | None = None,
    guard: bool = True,
) -> Placed:
    """Find where frames lie and how their lines are displaced; see `align_stack`.

    Parameters
    ----------
    source : FrameSource
        The frames.
    upsample, max_shift_px, correct_scan, executor, progress
        As for `align_stack`.
    guard : bool, default True
        False: each frame follows the highest correlation with the one before.

    Returns
    -------
    Placed

    Raises
    ------
    ValueError, DataError
        As `align_stack`.
    """
    n, shape = len(source), source.shape
    if isinstance(upsample, bool) or int(upsample) != upsample or upsample < 1:
        raise ValueError(f"upsample={upsample!r} must be a whole number, 1 or more")
    if max_shift_px is None:
        max_shift_px = min(shape) / 4
    if not max_shift_px > 0:
        raise ValueError(f"max_shift_px={max_shift_px!r} must be a positive number of pixels")
    tell = _Progress(progress, (2 + 2 * correct_scan) * n)
    small = reduced_shape(shape, n)
    scale = np.array([shape[1] / small[1], shape[0] / small[0]])
    calls = ((read, small) for read in source.frames)
    spectra = tell.each(spread(cosine_spectrum, calls, executor=executor))
    filtered, usable = filtered_frames(spectra, n, small=small, factor=float(scale.mean()))
    index = np.flatnonzero(usable)
    if not index.size:
        raise DataError(f"none of the {n} frames holds an image: all are blank or constant")
    used, report = usable.copy(), _no_guard()
    shifts, correlation = np.full((n, 2), np.nan), np.full(n, np.nan)
    shifts[index], correlation[index] = 0.0, 1.0
    drift = np.zeros((n, 2))
    if index.size > 1:
        # Near the borders the filter saw mirrored content, which stays with the frame.
        border = max(4, round(0.03 * min(filtered.shape[1:])))
        filtered = filtered[:, border:-border, border:-border]
        found = locate(
            filtered,
            usable,
            max_step=max_shift_px / max(scale),
            upsample=upsample,
            guard=guard,
            line_axis=source.line_axis if correct_scan else None,
            tell=tell.step,
            executor=executor,
        )
        shifts, used, correlation, report = (
            found.shifts,
            found.used,
            found.correlation,
            found.report,
        )
        common_area((shifts * scale)[used], shape)
        # the border's lines drift too
        drift = found.drift * scale * np.array(small)[list(source.line_axis), None]
        drift /= np.array(filtered.shape[1:])[list(source.line_axis), None]
        shifts = shifts * scale
        report["max_transitivity_px"] *= float(max(scale))
    del filtered
    places = _places(shifts, drift, used, source)
    jitter = (0.0, 0.0)
    if correct_scan and np.count_nonzero(used) > 1:
        mean = mean_of(source.channels, places, executor=executor, tell=tell.step)
        places, added, jitter = straighten(source, places, mean, executor, tell.step)
        drift = drift + added * _full_height(places, source)
    tell.finish()
    scan = {
        "drift_px": np.where(used[:, None], drift, np.nan),
        "jitter_px": jitter,
        "directions": len({source.line_axis[k] for k in np.flatnonzero(used)}),
    }
    return Placed(tuple(places), used, correlation, report, scan)


class _Progress:
    """Counts steps and tells the caller."""

    def __init__(self, callback: Callable[[int, int], None] | None, total: int) -> None:
        self.callback, self.total, self.done = callback, total, 0

    def step(self, steps: int = 1) -> None:
        self.done = min(self.done + steps, self.total)
        if self.callback is not None:
            self.callback(self.done, self.total)

    def each(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            yield item
            self.step()

    def finish(self) -> None:
        if self.done < self.total:
            self.step(self.total - self.done)


def _no_guard() -> dict[str, Any]:
    """Return what the guard reports when there is nothing to place."""
    return {
        "n_pairs": 0,
        "max_transitivity_px": 0.0,
        "n_repaired": 0,
        "margin": None,
        "ambiguous": False,
    }


def _full_height(places: list[Place | None], source: FrameSource) -> np.ndarray:
    """Lines of a frame over those of the mean, shape (n, 1); 1 for frames left out."""
    out = np.ones((len(places), 1))
    for k, place in enumerate(places):
        if place is not None:
            axis = source.line_axis[k]
            out[k] = source.shape[axis] / place.size[1 - axis]
    return out


def _places(
    shifts: np.ndarray, drift: np.ndarray, used: np.ndarray, source: FrameSource
) -> list[Place | None]:
    """Places of the frames on the pixels of the first one, the drift taken out."""
    index = np.flatnonzero(used)
    reach = np.maximum(abs(drift[index]).max(axis=0) / 2 - _BEYOND_PX, 0.0)
    first, size = common_area(shifts[index], source.shape)
    first, size = first + np.ceil(reach).astype(int), size - 2 * np.ceil(reach).astype(int)
    places: list[Place | None] = [None] * len(source)
    for k in index:
        path = None
        if drift[k].any():
            lines = size[1 - source.line_axis[k]]
            full = source.shape[source.line_axis[k]]
            path = np.linspace(-0.5, 0.5, lines)[:, None] * drift[k] * (lines / full)
        places[k] = Place(
            first + shifts[k], (int(size[0]), int(size[1])), path, source.line_axis[k]
        )
    return places
