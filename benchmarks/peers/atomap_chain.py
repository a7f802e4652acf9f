"""Atomap as its documentation shows it: brightest columns, subtract, the next ones.

Ta is refined, drawn as Gaussians and subtracted, then K, then O; each by centre of mass, then by
2-D Gaussians.
"""

from __future__ import annotations

import contextlib
import io
from types import SimpleNamespace

import numpy as np
from protocol import serve

ORDER = ("Ta", "K", "O")


def load() -> None:
    """Import atomap: its modules import each other, and this one must come first."""
    import atomap.api  # noqa: F401


def fit(scene: SimpleNamespace) -> np.ndarray:
    """Give the positions after the last refinement."""
    import atomap.api as atomap
    from atomap.tools import remove_atoms_from_image_using_2d_gaussian

    starts = np.column_stack([scene.x_px, scene.y_px])
    out = np.full(starts.shape, np.nan)
    rest = scene.image.astype(np.float64)
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        for name in ORDER:
            rows = scene.species == name
            sublattice = atomap.Sublattice(starts[rows], image=rest, fix_negative_values=True)
            sublattice.find_nearest_neighbors()
            sublattice.refine_atom_positions_using_center_of_mass(show_progressbar=False)
            sublattice.refine_atom_positions_using_2d_gaussian(show_progressbar=False)
            out[rows] = np.column_stack([sublattice.x_position, sublattice.y_position])
            if name != ORDER[-1]:
                rest = remove_atoms_from_image_using_2d_gaussian(
                    rest, sublattice, percent_to_nn=0.40, show_progressbar=False
                )
    return out


if __name__ == "__main__":
    serve(fit, ("atomap", "hyperspy", "numpy", "scipy"), load)
