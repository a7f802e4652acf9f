"""photutils as for a crowded field: `PSFPhotometry` with `SourceGrouper`.

Columns closer than 1.6 A are fitted together, with a circular Gaussian of free width. The known
background is taken off first, and the width of each species is told.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from protocol import serve

GROUP_A, BOX_A = 1.6, 1.9


def fit(scene: SimpleNamespace) -> np.ndarray:
    """Give the positions; NaN where the fit gives up."""
    from astropy.table import QTable
    from photutils.psf import CircularGaussianPSF, PSFPhotometry, SourceGrouper

    width = scene.sigma_A / scene.pixel_A
    image = scene.image.astype(np.float64) - scene.background
    rows, columns = (np.rint(v).astype(int) for v in (scene.y_px, scene.x_px))
    starts = QTable(
        {
            "x": scene.x_px,
            "y": scene.y_px,
            "flux": np.maximum(image[rows, columns], 0.05) * 2 * np.pi * width**2,
            "fwhm": width * 2 * np.sqrt(2 * np.log(2)),
        }
    )
    model = CircularGaussianPSF()
    model.fwhm.fixed = False
    box = 2 * round(BOX_A / scene.pixel_A / 2) + 1
    fitter = PSFPhotometry(model, box, grouper=SourceGrouper(GROUP_A / scene.pixel_A))
    found = fitter(image, init_params=starts)
    found.sort("id")
    return np.column_stack([np.asarray(found["x_fit"]), np.asarray(found["y_fit"])])


if __name__ == "__main__":
    serve(fit, ("photutils", "astropy", "numpy", "scipy"))
