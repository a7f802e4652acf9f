"""Frames that are read one at a time, here or on another machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from stemdisp._pixels import absurd

_MIN_SIDE = 32

Reader = Callable[[], np.ndarray]


@dataclass(frozen=True, eq=False)
class ArrayFrame:
    """Frame of an array, NumPy's or Dask's; sent to another process, it takes only itself along."""

    data: Any
    index: int

    def __call__(self) -> np.ndarray:
        """Read the frame."""
        return _values(self.data[self.index])

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the values of this frame alone."""
        return ArrayFrame, (self()[None], 0)


@dataclass(frozen=True, eq=False)
class FileFrame:
    """Frame of files that every worker can read."""

    paths: tuple[str, ...]
    kind: str
    index: int

    def __call__(self) -> np.ndarray:
        """Read the frame; the files are looked into once per process."""
        return _values(_opened(self.paths, self.kind)[self.index])


def _values(part: Any) -> np.ndarray:
    """Read a part of an array, on the thread that asks.

    Left to itself, Dask would send a worker's reading back to the scheduler as a task of its own.
    """
    if hasattr(part, "compute"):
        part = part.compute(scheduler="synchronous")
    return np.asarray(part)


@lru_cache(maxsize=2)
def _opened(paths: tuple[str, ...], kind: str) -> Any:
    """Give the values of files, still on disk."""
    from stemdisp.load import load

    return load(list(paths), kind=kind, lazy=True).data


def absolute_paths(paths: Iterable[str]) -> tuple[str, ...]:
    """Write paths (FILE or FILE::NAME) as workers that were started elsewhere understand them."""
    parts = (path.partition("::") for path in paths)
    return tuple(os.path.abspath(file) + mark + name for file, mark, name in parts)


@dataclass(frozen=True, eq=False)
class Frame:
    """Frame as floats with missing and impossible values as NaN, turned upright."""

    read: Reader
    turns: int = 0

    def __call__(self) -> np.ndarray:
        """Read the frame."""
        frame = np.array(self.read(), dtype=float)
        frame[~np.isfinite(frame) | absurd(frame)] = np.nan
        return np.rot90(frame, self.turns, axes=(-2, -1)) if self.turns else frame


@dataclass(frozen=True, eq=False)
class FrameSource:
    """Series of frames.

    Attributes
    ----------
    frames : tuple of callable
        One reader per frame; each returns a new float array (ny, nx) with NaN where nothing was
        measured.
    shape : (int, int)
        Rows and columns of a frame.
    line_axis : tuple of int
        For each frame 0 if its lines run along x (rows), 1 if along y (columns).
    fields : tuple of callable
        Readers of what was measured line by line, (c, ny, nx), where a frame was computed from it
        and mixes its lines: the vectors behind an integrated image.
    dose : ndarray, shape (n,), or None
        Of each frame, electrons per square angstrom, where it is known.
    """

    frames: tuple[Reader, ...]
    shape: tuple[int, int]
    line_axis: tuple[int, ...]
    fields: tuple[Reader, ...] = ()
    dose: np.ndarray | None = None

    @property
    def channels(self) -> tuple[Reader, ...]:
        """What the scan lines are straightened by: the frames, or the fields behind them."""
        return self.fields or self.frames

    def __len__(self) -> int:
        """Count the frames."""
        return len(self.frames)

    def read(self, index: int) -> np.ndarray:
        """Read one frame."""
        return self.frames[index]()


def frame_source(
    stack: Any,
    *,
    paths: tuple[str, ...] | None = None,
    kind: str = "stack",
    scan_rotation_deg: Any = None,
) -> FrameSource:
    """Make a source of the frames of a stack.

    Parameters
    ----------
    stack : Signal2D or array, shape (n, ny, nx) or (ny, nx)
        Frames; lazy ones stay on disk.
    paths : tuple of str, optional
        The files that the stack was loaded from, as other machines can read them.
    kind : str
        How they were loaded.
    scan_rotation_deg : float, or sequence of n float, optional
        Direction of the lines of every frame, from +x towards +y of the specimen: multiples of 90.
        Frames are turned back by it.

    Returns
    -------
    FrameSource

    Raises
    ------
    ValueError
        If the stack holds no real frames, or the rotations cannot be used.
    """
    data = stack.data if hasattr(stack, "axes_manager") else stack
    if not hasattr(data, "ndim"):
        data = np.asarray(data)
    if data.ndim not in (2, 3) or np.dtype(data.dtype).kind not in "biuf":
        raise ValueError(
            f"stack of shape {tuple(data.shape)} and type {data.dtype} must hold real frames "
            "(n, ny, nx) or one image (ny, nx); choose one channel or stack first"
        )
    shape = (int(data.shape[-2]), int(data.shape[-1]))
    if min(shape) < _MIN_SIDE or data.shape[0] == 0:
        raise ValueError(
            f"stack of shape {tuple(data.shape)} must hold frames of at least "
            f"{_MIN_SIDE} x {_MIN_SIDE} pixels"
        )
    data = data[None] if data.ndim == 2 else data
    n = int(data.shape[0])
    turns = quarter_turns(scan_rotation_deg, n, shape)
    readers: list[Reader] = [
        ArrayFrame(data, k) if paths is None else FileFrame(paths, kind, k) for k in range(n)
    ]
    upright, line_axis = turned(shape, turns)
    return FrameSource(
        frames=tuple(Frame(read, turn) for read, turn in zip(readers, turns, strict=True)),
        shape=upright,
        line_axis=line_axis,
    )


def turned(
    shape: tuple[int, int], turns: tuple[int, ...]
) -> tuple[tuple[int, int], tuple[int, ...]]:
    """Give the shape of frames after their quarter turns, and the axis along which lines lie.

    Parameters
    ----------
    shape : (int, int)
        Before them.
    turns : tuple of int
        From `quarter_turns`.

    Returns
    -------
    shape : (int, int)
    line_axis : tuple of int
        As in `FrameSource`.
    """
    return (
        shape if turns[0] % 2 == 0 else shape[::-1],
        tuple(turn % 2 for turn in turns),
    )


def check_square_pixels(step: tuple[float, float] | None, rotation_deg: Any) -> None:
    """Refuse to turn frames whose pixels are not square: x and y would have to change places.

    Parameters
    ----------
    step : (float, float) or None
        Pixel size along x and y.
    rotation_deg : float, sequence of float, or None
        See `frame_source`.

    Raises
    ------
    ValueError
        If there is something to turn and the two pixel sizes differ.
    """
    if step is None or rotation_deg is None or not np.any(_angles(rotation_deg)):
        return
    if not np.isclose(step[0], step[1], rtol=1e-3):
        raise ValueError(
            f"pixels of {step[0]:g} x {step[1]:g} angstrom: only frames with square pixels can be "
            "turned upright; leave scan_rotation_deg out, or resample the frames"
        )


def quarter_turns(rotation_deg: Any, n: int, shape: tuple[int, int]) -> tuple[int, ...]:
    """Quarter turns that bring the content of frames scanned in other directions upright.

    Parameters
    ----------
    rotation_deg : float, sequence of n float, or None
        See `frame_source`.
    n : int
        Number of frames.
    shape : (int, int)
        Of a frame.

    Returns
    -------
    tuple of int
        For `numpy.rot90`.

    Raises
    ------
    ValueError
        If they are not multiples of 90 degrees, not one a frame, or oblong frames were turned.
    """
    if rotation_deg is None:
        return (0,) * n
    angles = _angles(rotation_deg)
    if angles.shape not in ((1,), (n,)) or not np.isfinite(angles).all():
        raise ValueError(f"scan_rotation_deg={rotation_deg!r} must be one angle, or {n} of them")
    turns = np.rint(np.broadcast_to(angles, (n,)) / 90.0)
    if (abs(angles - 90.0 * np.rint(angles / 90.0)) > 5.0).any():
        raise ValueError(
            f"scan_rotation_deg={rotation_deg!r} must be multiples of 90 degrees; "
            "leave out frames scanned along other directions"
        )
    if shape[0] != shape[1] and len(set(turns % 2)) > 1:
        raise ValueError(
            f"frames of {shape[1]} x {shape[0]} pixels scanned along x and along y have different "
            "shapes; use square frames, or one scan direction"
        )
    # lines that run at +90 degrees (down) show the specimen turned by -90: turn it on, clockwise
    return tuple(int(turn) % 4 for turn in -turns)


def _angles(rotation_deg: Any) -> np.ndarray:
    """Return angles as numbers; a file may state anything."""
    try:
        return np.atleast_1d(np.asarray(rotation_deg, dtype=float))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"scan_rotation_deg={rotation_deg!r} must be angles in degrees; correct or delete it"
        ) from error
