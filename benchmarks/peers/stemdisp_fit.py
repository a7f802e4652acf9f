"""stemdisp by the same rules: the joint fit with errors, told the kind of noise."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
from protocol import serve


def fit(scene: SimpleNamespace) -> np.ndarray:
    """Give the positions of the joint fit."""
    from stemdisp.refine import refine_columns

    starts = pd.DataFrame(
        {"species": scene.species.astype(object), "x_px": scene.x_px, "y_px": scene.y_px}
    )
    found = refine_columns(scene.image, starts, pixel_size=scene.pixel_A, noise=scene.noise)
    return found[["x_px", "y_px"]].to_numpy()


if __name__ == "__main__":
    serve(fit, ("numpy", "scipy", "numba", "pandas"))
