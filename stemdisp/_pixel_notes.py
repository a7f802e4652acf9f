"""What the pixels of an image, and the file behind them, say against it: warnings of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stemdisp._pixels import saturated
from stemdisp.load import signal_pixel_size_A

if TYPE_CHECKING:
    from hyperspy.signals import Signal2D


def pixel_notes(image: Signal2D, source: Signal2D) -> list[dict[str, str]]:
    """Count pixels that measure nothing, and pieces of the file that were never written.

    Parameters
    ----------
    image : Signal2D
        What is analysed.
    source : Signal2D
        What was loaded.

    Returns
    -------
    list of dict
        Each with `code` and `message`.
    """
    values = np.asarray(image.data)
    finite = np.isfinite(values)
    found = []
    missing = values.size - np.count_nonzero(finite)
    if missing:
        found.append(
            (
                "pixels-missing",
                f"{missing} of {values.size} pixels hold no number and were left out; columns "
                "that lie on them are marked",
            )
        )
    plateau = saturated(values, finite) if finite.any() else None
    if plateau is not None:
        found.append(
            (
                "pixels-saturated",
                f"{np.count_nonzero(plateau)} pixels stand at the largest value, as where a "
                "detector is saturated, and were left out; columns that lie on them are marked",
            )
        )
    pieces = source.metadata.get_item("stemdisp.pieces_missing", default=None)
    if pieces:
        found.append(
            (
                "pieces-missing",
                f"the file is incomplete and reads as zeros where nothing was written "
                f"({'; '.join(pieces)}): the recording or a copy was broken off; copy it again",
            )
        )
    odd = source.metadata.get_item("stemdisp.odd_pixel_size", default=None)
    if odd and signal_pixel_size_A(source) is None:
        found.append(
            (
                "pixel-size",
                f"the pixel size that the file states makes no sense ({odd}) and was not used; "
                "give [input] pixel_size if you know it",
            )
        )
    return [{"code": code, "message": message} for code, message in found]
