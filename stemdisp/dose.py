"""Frames -> where they lie, and what parts of the series show alone.

Damage by the beam shows as a change from part to part; `damage.py` tests for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stemdisp._mean import partial_sums
from stemdisp._refit import DEPTHS, VALUES, Refit, fit_part, prepare
from stemdisp._scene import Scene
from stemdisp._source import FrameSource
from stemdisp._spread import InPlace, spread

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from stemdisp.register import Registration

MOST_POINTS = 24  # a straight line gains nothing from more points with less signal each
MOST_CUMULATIVE = 8
IN_FLIGHT = 6  # images that wait for a fit at a time: the series is never held as a whole


@dataclass(frozen=True, eq=False)
class FrameSeries:
    """What the frames of a stack show.

    Attributes
    ----------
    frames : DataFrame
        One row per frame.
    series : DataFrame
        One row per point of the dose series and per cumulative mean; no rows where nothing was
        fitted. The columns of both are explained in the registry.
    """

    frames: pd.DataFrame
    series: pd.DataFrame


def measure_frames(
    source: FrameSource,
    registration: Registration,
    *,
    scene: Scene,
    columns: pd.DataFrame,
    film: pd.DataFrame | None = None,
    halves: Sequence[pd.DataFrame] = (),
    progress: Callable[[int, int], None] | None = None,
    executor: Executor | None = None,
) -> FrameSeries:
    """Tell where each frame lies, and measure the first planes on parts of the series alone.

    Parameters
    ----------
    source : FrameSource
        The frames, read one by one, and their doses.
    registration : Registration
        Where each frame lies.
    scene : Scene
        Lattice, projection, pixel size and configuration.
    columns : DataFrame
        Columns of the mean image after `measure_occupancy`: the starting points.
    film : DataFrame, optional
        Fitted spots of the film, which are fitted along.
    halves : sequence of DataFrame
        The same columns on the halves of the stack: what they show of the errors holds for
        every part of it, because noise and jitter of a mean fall alike with the number of frames.
    progress : callable, optional
        Called as ``progress(done, total)``.
    executor : Executor, optional
        Who reads and fits (the interface of `concurrent.futures`); this process, if not given.
        The results do not depend on it.

    Returns
    -------
    FrameSeries
        Points: each used frame, or, of more than 24 of them, 24 runs of consecutive used frames
        whose mean is fitted. Cumulative means: of the first frames up to at most 8 places, the
        last one being the end. Both hold delta of plane 1, the mean occupancy of planes 1 to 3
        and both depths. The error of delta1 is that of the noise, line jitter included: scatter
        between columns that stays the same from part to part is no error of a change. Nothing is
        fitted where there is no interface, and without ``[analysis] dose_series``.
    """
    used = np.flatnonzero(registration.used)
    parts: list[_Part] = []
    if scene.config.analysis.dose_series and not columns["N"].isna().all():
        parts = _plan(used)
    rows: list[dict[str, float]] = []
    if parts:
        refit = prepare(registration, scene, columns=columns, film=film, halves=halves)
        sums = _point_sums(source, registration, parts, executor)
        bright = ((some * scene.lattice.sign, count) for some, count in sums)
        rows = _fit_parts(bright, parts, refit, progress, executor)
    series = _series_table(parts, rows, source.dose)
    return FrameSeries(_frames_table(registration, scene, source.dose, series), series)


@dataclass(frozen=True)
class _Part:
    """Used frames whose mean is fitted, in order."""

    kind: str
    frames: tuple[int, ...]


def _plan(used: np.ndarray) -> list[_Part]:
    """Choose the points of the series, then the cumulative means."""
    if not used.size:
        return []
    groups = np.array_split(used, min(used.size, MOST_POINTS))
    points = [_Part("point", tuple(map(int, group))) for group in groups]
    if used.size < 2:
        return points
    n = len(points)
    ends = np.unique(np.ceil(np.arange(1, MOST_CUMULATIVE + 1) * n / MOST_CUMULATIVE)).astype(int)
    return points + [
        _Part("cumulative", tuple(k for point in points[:end] for k in point.frames))
        for end in ends
    ]


def _point_sums(
    source: FrameSource,
    registration: Registration,
    parts: list[_Part],
    executor: Executor | None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the sum of the frames of each point on the grid of the mean, and their number."""
    calls = (
        (
            [source.frames[k] for k in part.frames],
            [registration.place(k) for k in part.frames],
            [0] * len(part.frames),
        )
        for part in parts
        if part.kind == "point"
    )
    for sums, counts in spread(partial_sums, calls, executor=executor):
        yield sums[0], counts[0]


def _fit_parts(
    sums: Iterator[tuple[np.ndarray, np.ndarray]],
    parts: list[_Part],
    refit: Refit,
    progress: Callable[[int, int], None] | None,
    executor: Executor | None,
) -> list[dict[str, float]]:
    """Fit each point, and each cumulative mean as soon as its last point is there."""
    points = [part for part in parts if part.kind == "point"]
    ends = {part.frames[-1]: part for part in parts if part.kind == "cumulative"}
    waiting: dict[tuple[int, ...], Future[Any]] = {}
    images = len({part.frames for part in parts})
    total, number = np.zeros(1), np.zeros(1)
    for point, (some, count) in zip(points, sums, strict=True):
        total, number = total + some, number + count
        last = ends.get(point.frames[-1])
        for part, value, n in ((point, some, count), (last, total, number)):
            if part is None or part.frames in waiting:  # the first mean is the first point
                continue
            if len(waiting) >= IN_FLIGHT:
                list(waiting.values())[-IN_FLIGHT].result()
            image = np.where(n > 0, value / np.maximum(n, 1.0), np.nan)
            work = (image, len(part.frames), refit)
            waiting[part.frames] = (executor or InPlace()).submit(fit_part, *work)
            if progress is not None:
                progress(len(waiting), images)
    return [waiting[part.frames].result() for part in parts]


def _series_table(
    parts: list[_Part], rows: list[dict[str, float]], dose: np.ndarray | None
) -> pd.DataFrame:
    """One row per part: what it is the mean of, and what it shows."""
    names = ["kind", "point", "first_frame", "last_frame", "n_frames", "frame_middle"]
    names += ["dose_start_e_per_A2", "dose_end_e_per_A2", "dose_middle_e_per_A2"]
    table = []
    for number, (part, row) in enumerate(zip(parts, rows, strict=True)):
        index = np.array(part.frames)
        # frames that were left out have irradiated the specimen, too
        before = np.full(3, np.nan)
        if dose is not None:
            end = np.cumsum(dose)
            before = np.array(
                [end[index[0]] - dose[index[0]], end[index[-1]], np.mean((end - dose / 2)[index])]
            )
        point = number if part.kind == "point" else pd.NA
        what = (part.kind, point, index[0], index[-1], len(index), np.mean(index) + 0.5, *before)
        table.append(dict(zip(names, what, strict=True)) | row)
    return pd.DataFrame(table, columns=[*names, *VALUES, *DEPTHS])


def _frames_table(
    registration: Registration, scene: Scene, dose: np.ndarray | None, series: pd.DataFrame
) -> pd.DataFrame:
    """One row per frame; results where each point is one frame."""
    n = len(registration.used)
    out = pd.DataFrame(
        {
            "frame": np.arange(n),
            "shift_x_A": registration.shifts_px[:, 0] * scene.size[0],
            "shift_y_A": registration.shifts_px[:, 1] * scene.size[1],
            "dose_e_per_A2": np.full(n, np.nan) if dose is None else dose,
            "used": registration.used,
            "correlation": registration.correlation,
            "point": pd.array([pd.NA] * n, dtype="Int64"),
            **dict.fromkeys(VALUES, np.nan),
        }
    )
    points = series[series["kind"] == "point"]
    for row in points.to_dict("records"):
        members = out["used"] & out["frame"].between(row["first_frame"], row["last_frame"])
        out.loc[members, "point"] = row["point"]
        if len(points) == int(registration.n_used):
            out.loc[members, list(VALUES)] = [row[name] for name in VALUES]
    return out
