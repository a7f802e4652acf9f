"""What users would pick today: atomap's documented chain on the same image and starts."""

from __future__ import annotations

import contextlib
import io
import warnings
from importlib import metadata

import numpy as np
import pandas as pd


def atomap_version() -> str | None:
    """Give the version of atomap; None where it is not installed."""
    try:
        return metadata.version("atomap")
    except metadata.PackageNotFoundError:
        return None


def fit_with_atomap(image: np.ndarray, start: pd.DataFrame) -> pd.DataFrame:
    """Refine Ta, subtract, refine K, subtract, refine O: centre of mass, then 2-D Gaussians."""
    out = start[["species", "x_px", "y_px"]].copy()
    rest = np.asarray(image, dtype=np.float64)
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        import atomap.api as atomap  # must come first: its modules import each other
        from atomap.tools import remove_atoms_from_image_using_2d_gaussian

        for name in ("Ta", "K", "O"):
            rows = (start["species"] == name).to_numpy()
            sublattice = atomap.Sublattice(
                start.loc[rows, ["x_px", "y_px"]].to_numpy(), image=rest, fix_negative_values=True
            )
            sublattice.find_nearest_neighbors()
            sublattice.refine_atom_positions_using_center_of_mass(show_progressbar=False)
            sublattice.refine_atom_positions_using_2d_gaussian(show_progressbar=False)
            out.loc[rows, "x_px"] = sublattice.x_position
            out.loc[rows, "y_px"] = sublattice.y_position
            if name != "O":
                rest = remove_atoms_from_image_using_2d_gaussian(
                    rest, sublattice, percent_to_nn=0.40, show_progressbar=False
                )
    return out
