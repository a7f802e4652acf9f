"""Good data, made once: a crystal under a film, small enough to be analysed in two seconds."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from _known_images import PIXEL_A, simulated

SIZE = 192


@lru_cache(maxsize=1)
def crystal() -> np.ndarray:
    """KTaO3 under its film: one frame."""
    image, _ = simulated(size=SIZE, dose_e_per_A2=8000.0, film_A=5.0)
    return image.astype(np.float32)


def warm_up() -> None:
    """Load compiled code, in one thread."""
    from hyperspy.signals import Signal2D

    from stemdisp.pipeline import run

    signal = Signal2D(crystal())
    for axis in signal.axes_manager.signal_axes:
        axis.scale, axis.units = PIXEL_A, "Å"
    run(signal)
