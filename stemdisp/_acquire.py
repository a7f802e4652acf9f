"""What a run starts from: one image, out of an image, a series of frames, or detector segments."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stemdisp._dpcstack import align_segments, segment_series
from stemdisp._pixel_notes import absurd_note, file_notes, pixel_notes
from stemdisp._pixels import absurd
from stemdisp._source import FrameSource, absolute_paths, check_square_pixels, frame_source
from stemdisp._stores import files_of
from stemdisp.dpc import Dpc, analyse_dpc, dpc_found, dpc_signal, is_vector
from stemdisp.errors import DataError
from stemdisp.load import classify, dose_of, load, signal_pixel_size_A
from stemdisp.register import Registration, align_frames, as_signal

if TYPE_CHECKING:
    from hyperspy.signals import Signal2D

# Files that together take more than this are first looked at, ...
_LOOK_BYTES = 2**28
# ... and what takes more than this in memory is read frame by frame.
_HOLD_BYTES = 2**30
_SIGN_SEEN = 3.0  # standard errors of the skewness
_MUCH_CURL = 0.25


@dataclass(frozen=True, eq=False)
class Acquired:
    """The image to be analysed, and how it came about.

    Attributes
    ----------
    image : Signal2D
        Shape (ny, nx).
    registration : Registration or None
        Of a series.
    noise_psd : tuple of ndarray or None
        Spatial frequency (1/px) and power of the noise of the image, where the data tell it
        apart from the image: by frames that differ, or by the curl of DPC vectors.
    source : FrameSource or None
        The frames of a series, with their doses where the file states them.
    warnings : tuple of dict
        With `code` and `message`.
    """

    image: Signal2D
    registration: Registration | None = None
    noise_psd: tuple[np.ndarray, np.ndarray] | None = None
    source: FrameSource | None = None
    warnings: tuple[dict[str, str], ...] = ()


def open_input(paths: tuple[str, ...], kind: str) -> Signal2D:
    """Load the input of a run, lazily if it is large.

    Parameters
    ----------
    paths : tuple of str
        As in the configuration.
    kind : str
        As in the configuration.

    Returns
    -------
    Signal2D

    Raises
    ------
    DataError
        As `load`.
    """
    on_disk = 0
    for path in paths:
        file = path.partition("::")[0]
        on_disk += sum(os.path.getsize(part) for _, part in files_of(file))
    if on_disk > _LOOK_BYTES:
        signal = load(list(paths), kind=kind, lazy=True)
        series = signal.axes_manager.navigation_dimension > 0
        if series and signal.data.nbytes > _HOLD_BYTES:
            return signal
    return load(list(paths), kind=kind)


def acquire(
    signal: Signal2D,
    kind: str = "auto",
    *,
    paths: tuple[str, ...] | None = None,
    executor: Executor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Acquired:
    """Make one image of what was loaded.

    Parameters
    ----------
    signal : Signal2D
        An image, a series, or segments.
    kind : str
        What it is; see `classify`.
    paths : tuple of str, optional
        The files behind the signal, for workers on other machines to read.
    executor : concurrent.futures.Executor, optional
        Who does the work frame by frame.
    progress : callable, optional
        Called as ``progress(done, total)``.

    Returns
    -------
    Acquired

    Raises
    ------
    DataError
        If the data cannot be used.
    """
    found = _acquired(signal, kind, paths=paths, executor=executor, progress=progress)
    return replace(found, warnings=(*file_notes(signal), *found.warnings))


def _acquired(
    signal: Signal2D, kind: str, *, paths: tuple[str, ...] | None, **options: Any
) -> Acquired:
    """Make the image; see `acquire`."""
    what = classify(signal, kind)
    if what == "image":
        return _one_image(signal)
    if what == "dpc-segments" and signal.data.ndim == 3:
        return _one_scan(signal)
    # workers of a cluster read for themselves; values in memory would be sent to them in each pass
    read_again = options["executor"] is not None or not isinstance(signal.data, np.ndarray)
    where: dict[str, Any] = {
        "kind": kind,
        "paths": absolute_paths(paths) if read_again and paths is not None else None,
        "scan_rotation_deg": signal.metadata.get_item("stemdisp.scan_rotation_deg", default=None),
    }
    result = None
    try:
        check_square_pixels(signal_pixel_size_A(signal), where["scan_rotation_deg"])
        if what == "stack":
            source = frame_source(signal, **where)
            found = align_frames(source, **options)
        else:
            step, vector = signal_pixel_size_A(signal), is_vector(signal)
            series = segment_series(signal.data, step=step, vector=vector, **where)
            source = series.source
            found, result = align_segments(series, **options)
    except ValueError as error:
        raise DataError(str(error)) from error
    image = as_signal(signal, found.image, found.origin_px)
    doubts = _doubts(found) + pixel_notes(np.asarray(image.data))
    if result is not None:
        image.metadata.set_item("stemdisp.dpc", dpc_found(result))
        doubts += _dpc_doubts(result)
    return Acquired(
        image=image,
        registration=found,
        noise_psd=found.noise_psd,
        source=replace(source, dose=dose_of(signal, len(source))),
        warnings=tuple(doubts),
    )


def _one_image(signal: Signal2D) -> Acquired:
    """Take what no image has for missing, and count what is missing or saturated."""
    data = np.asarray(signal.data)
    wrong, notes = absurd(data), []
    if wrong.any():
        notes.append(absurd_note(data[wrong]))
        signal = signal._deepcopy_with_new_data(np.where(wrong, np.nan, data.astype(float)))
    notes += pixel_notes(np.asarray(signal.data), left_out=int(np.count_nonzero(wrong)))
    return Acquired(signal, warnings=tuple(notes))


def _one_scan(signal: Signal2D) -> Acquired:
    """Integrate the segments of a single scan."""
    try:
        result = analyse_dpc(signal)
    except ValueError as error:
        raise DataError(str(error)) from error
    return Acquired(
        dpc_signal(result, signal), noise_psd=result.noise_psd, warnings=tuple(_dpc_doubts(result))
    )


def _dpc_doubts(result: Dpc) -> list[dict[str, str]]:
    """Say what is doubtful about the segments."""
    warnings = []
    if not result.sign_margin > _SIGN_SEEN:
        warnings.append(
            _note(
                "dpc-sign",
                "the segments hardly tell bright atoms from dark ones: the image may be turned "
                "from bright to dark (by half a turn of the detector); integrate with a known "
                "rotation (stemdisp.integrate_dpc) if atoms look dark",
            )
        )
    if result.curl_fraction > _MUCH_CURL:
        warnings.append(
            _note(
                "dpc-curl",
                f"{result.curl_fraction:.0%} of the signal of the segments is curl, which no image "
                "has: their order or directions may be wrong; give them in order around the "
                "detector",
            )
        )
    return warnings


def _note(code: str, message: str) -> dict[str, str]:
    """Word a warning of the summary."""
    return {"code": code, "message": message}


def _doubts(found: Registration) -> list[dict[str, str]]:
    """Say what is doubtful about the registration."""
    warnings = []
    left_out = np.flatnonzero(~found.used)
    if left_out.size:
        which = ", ".join(map(str, left_out))
        text = f"frames {which} hold no image or fit the others badly, and were left out"
        warnings.append(_note("frames-left-out", text))
    if found.guard.get("ambiguous"):
        warnings.append(
            _note(
                "registration-ambiguous",
                "the frames could also be aligned a lattice vector off: too little but "
                "periodic crystal is seen in them. Near an interface planes may then be mixed, and "
                "errors and depths are not to be trusted; leave out noisy frames, or use a "
                "higher dose per frame",
            )
        )
    return warnings
