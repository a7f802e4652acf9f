"""What users would pick today: atomap's documented chain on the same image and starts."""

from __future__ import annotations

import contextlib
import io
import warnings
from dataclasses import dataclass
from importlib import metadata
from statistics import median

import numpy as np
import pandas as pd

from benchmarks import accuracy, scene, speed


@dataclass(frozen=True)
class Race:
    """Both fits on one image; processor seconds, of stemdisp's runs before and after atomap's."""

    size: int
    kind: str
    columns: int
    before_s: tuple[float, ...]
    after_s: tuple[float, ...]
    peer_s: float

    @property
    def rate(self) -> float:
        """Columns per second of stemdisp, by the median of all runs."""
        return self.columns / median(self.before_s + self.after_s)

    @property
    def peer_rate(self) -> float:
        """Columns per second of atomap."""
        return self.columns / self.peer_s

    @property
    def factor(self) -> float:
        """How many times faster."""
        return self.rate / self.peer_rate


def race(size: int, runs: int) -> Race:
    """Time atomap once, and stemdisp before and after it: the machine's speed drifts."""
    kind = scene.KINDS[-1]
    truth = scene.true_columns(size)
    image = scene.add_noise(scene.perfect_image(truth, size), kind, 0)
    start = scene.starts(truth, 0)
    fit = accuracy.stemdisp_fit(kind.noise)
    fit(image, start)  # compiles, or loads what was compiled
    load_atomap()
    before = speed.cpu_times(lambda: fit(image, start), runs)
    (peer,) = speed.cpu_times(lambda: fit_with_atomap(image, start), 1)
    after = speed.cpu_times(lambda: fit(image, start), runs)
    return Race(size, kind.name, len(truth), before, after, peer)


def atomap_version() -> str | None:
    """Give the version of atomap; None where it is not installed."""
    try:
        return metadata.version("atomap")
    except metadata.PackageNotFoundError:
        return None


def load_atomap() -> None:
    """Import atomap, which takes seconds that are none of its fit's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import atomap.api  # noqa: F401


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
