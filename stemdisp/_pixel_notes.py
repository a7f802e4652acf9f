"""What the pixels of an image, and the file behind them, say against it: warnings of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stemdisp._pixels import finite, saturated
from stemdisp.load import signal_pixel_size_A

if TYPE_CHECKING:
    from hyperspy.signals import Signal2D

Note = dict[str, str]


def absurd_note(values: np.ndarray) -> Note:
    """Word the warning of values that no image has.

    Parameters
    ----------
    values : ndarray, shape (n,)
        The values.

    Returns
    -------
    dict
        With `code` and `message`.
    """
    most = float(np.max(np.abs(values.astype(float))))
    return _note(
        "absurd-pixels",
        f"{len(values)} pixels have values that no image has (up to {most:.3g}) and count as "
        "missing; the file may be damaged: copy or export it again",
    )


def pixel_notes(values: np.ndarray, *, left_out: int = 0) -> list[Note]:
    """Count the pixels of the analysed image that measure nothing.

    Parameters
    ----------
    values : ndarray, shape (ny, nx)
        The image; missing pixels are not finite.
    left_out : int
        How many of these were taken out here, and told of.

    Returns
    -------
    list of dict
        Each with `code` and `message`.
    """
    known, tops = finite(values)
    found = []
    missing = values.size - np.count_nonzero(known) - left_out
    if missing:
        text = f"{missing} pixels hold no finite number; columns there are marked, not measured"
        found.append(_note("missing-pixels", text))
    top = saturated(values, tops)
    if top is not None:
        text = (
            f"{np.count_nonzero(top)} pixels stand at the largest value, {np.max(values[top]):.5g}:"
            " the detector was saturated there; columns there are marked, not measured"
        )
        found.append(_note("saturated-pixels", text))
    return found


def file_notes(source: Signal2D) -> list[Note]:
    """Tell what a file lacks, and what of it makes no sense.

    Parameters
    ----------
    source : Signal2D
        As it was loaded.

    Returns
    -------
    list of dict
        Each with `code` and `message`.
    """
    found = []
    pieces = source.metadata.get_item("stemdisp.pieces_missing", default=None)
    if pieces:
        text = (
            "the file is incomplete and reads as zeros where nothing was written "
            f"({'; '.join(pieces)}): the recording or a copy was broken off; copy it again"
        )
        found.append(_note("pieces-missing", text))
    odd = source.metadata.get_item("stemdisp.odd_pixel_size", default=None)
    if odd and signal_pixel_size_A(source) is None:
        text = (
            f"the pixel size that the file states makes no sense ({odd}) and was not used; "
            "give [input] pixel_size if you know it"
        )
        found.append(_note("pixel-size", text))
    return found


def _note(code: str, message: str) -> Note:
    return {"code": code, "message": message}
