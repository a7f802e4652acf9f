"""The crystal in its image, and its fit: what the later stages of a run share."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stemdisp._correct import Expected, blanked, correct_columns
from stemdisp._start import REMOVED, UNMEASURED
from stemdisp.calibrate import choose_pixel_size, refit_lattice
from stemdisp.check import (
    check_assignment,
    grain_notes,
    interface_doubts,
    interface_notes,
    lattice_notes,
)
from stemdisp.config import Config
from stemdisp.corrections import Corrections
from stemdisp.crystal import Projection
from stemdisp.errors import DataError
from stemdisp.find import crystal_mask, find_columns, find_film, pixels_per_angstrom
from stemdisp.interface import Interface
from stemdisp.lattice import Lattice
from stemdisp.refine import refine_columns
from stemdisp.register import Registration
from stemdisp.repeats import apply_factors, error_factors, fit_halves
from stemdisp.response import OccupancyCurve
from stemdisp.tables import Quality

if TYPE_CHECKING:
    from hyperspy.signals import Signal2D

# Residual over noise above which the noise of a single scan, known from its segments, says nothing
# of the errors: what the model leaves is then taken for noise, as in any other single image.
NOISELESS = 10.0
FAINT = 6.0  # standard errors of the intensity below which a fitted place is not to be kept


@dataclass(frozen=True, eq=False)
class Scene:
    """What the later stages share: the image and the crystal found in it."""

    image: Signal2D
    lattice: Lattice
    projection: Projection
    interface: Interface | None
    size: tuple[float, float]
    stated: tuple[float, float] | None
    config: Config
    curve: OccupancyCurve | None = None
    noise_psd: tuple[np.ndarray, np.ndarray] | None = None
    corrections: Corrections = field(default_factory=Corrections)

    def calibrated(self) -> tuple[Scene, list[dict[str, str]]]:
        """Settle the pixel size with the lattice as it stands."""
        size, notes = choose_pixel_size(
            self.config.input.pixel_size, self.stated, self.lattice, self.projection
        )
        return replace(self, size=size), notes

    @property
    def bright(self) -> np.ndarray:
        """The image with columns bright."""
        return np.asarray(self.image.data, dtype=np.float64) * self.lattice.sign


def fit_crystal(
    scene: Scene, registration: Registration | None, warnings: list[dict[str, str]]
) -> tuple[Scene, pd.DataFrame, pd.DataFrame, list[pd.DataFrame]]:
    """Fit the crystal; then again with the pixel size that its columns give, and with the film.

    Bright spots of a film next to the crystal overlap with its last columns, so they are fitted
    along as nuisance. The halves of a stack are fitted too: they show what moves columns beyond
    the noise. Columns that a user removed are nuisance, too: what is there must not leak into
    their neighbours, and is not measured.
    """
    bright, interface = scene.bright, scene.interface
    scale = pixels_per_angstrom(scene.lattice, scene.projection)
    expected = _expected(scene, bright)
    seeds = expected.columns
    seeds = seeds.assign(species=seeds["species"].mask(expected.removed, REMOVED))
    options: dict[str, Any] = {
        "pixel_size": scene.size,
        "noise": scene.config.refine.noise,
        "mask": crystal_mask(bright, scene.lattice, interface, scale),
        "noise_psd": scene.noise_psd,
    }
    columns = refine_columns(bright, seeds, **options)
    if registration is None and columns.attrs["fit"].misfit > NOISELESS:
        options["noise_psd"] = None
    marker = scene.config.crystal.cage.split("/")[0]
    scene, notes = replace(
        scene, lattice=refit_lattice(scene.lattice, columns, species=marker)
    ).calibrated()
    warnings += notes + _second_look(bright, scene)
    warnings += grain_notes(scene.lattice, columns, species=marker, size_A=scene.size)
    film = seeds[:0]
    if interface is not None:
        film = find_film(columns.attrs["fit"].residual, scene.lattice, interface, scale)
    again = _restarted(seeds, columns, _starts(expected, scene.lattice))
    both = pd.concat([again, film], ignore_index=True)
    options["pixel_size"] = scene.size
    both = refine_columns(bright, both, **options)
    film = both[both["species"].isin(UNMEASURED)]
    columns = both[: len(seeds)].astype({"N": "Int64", "quality": "int64"})
    columns = blanked(columns.assign(species=expected.columns["species"]))
    halves = _halves(scene, registration, both, options)
    columns = apply_factors(columns, error_factors(halves) if halves else {})
    columns.attrs["fit"] = both.attrs["fit"]
    return scene, _in_input_axes(columns, scene), film, halves


def _expected(scene: Scene, bright: np.ndarray) -> Expected:
    """List the columns that the crystal should have, as the user corrected them."""
    crystal: dict[str, Any] = {"projection": scene.projection, "interface": scene.interface}
    return correct_columns(
        find_columns(bright, scene.lattice, **crystal),
        scene.corrections,
        lattice=scene.lattice,
        shape=bright.shape,
        **crystal,
    )


def _starts(expected: Expected, lattice: Lattice) -> np.ndarray:
    """Give the places where columns belong: their sites, or where the user sees them."""
    seeds = expected.columns
    site = lattice.position(seeds[["i", "j"]].to_numpy(dtype=float))
    start = seeds[["x_px", "y_px"]].to_numpy(dtype=float)
    chosen = expected.has(Quality.ADDED) | np.any(start != expected.home_px, axis=1)
    return np.where(chosen[:, None], start, site)


def _halves(
    scene: Scene, registration: Registration | None, both: pd.DataFrame, options: dict[str, Any]
) -> list[pd.DataFrame]:
    """Fit the same columns to the means of every other frame; nothing for a single image."""
    if registration is None or registration.halves is None:
        return []
    n = registration.n_used
    halves = fit_halves(
        [half * scene.lattice.sign for half in registration.halves],
        both,
        shares=((n + 1) // 2 / n, n // 2 / n),
        **(options | {"noise": both.attrs["fit"].noise.kind}),
    )
    out = []
    for half in halves:
        part = half[~half["species"].isin(UNMEASURED)].astype({"N": "Int64", "quality": "int64"})
        part.attrs["fit"] = half.attrs["fit"]
        out.append(part)
    return out


def _restarted(seeds: pd.DataFrame, columns: pd.DataFrame, site: np.ndarray) -> pd.DataFrame:
    """Start the second fit where the first one ended; columns that it hardly saw, on their sites.

    A faint column is held where it starts, and the first fit may have left it on noise.
    """
    faint = ~(columns["intensity"] > FAINT * columns["intensity_err"]).to_numpy()
    faint |= columns["x_px"].isna().to_numpy()
    known = {
        name: np.where(faint, site[:, axis], columns[name])
        for axis, name in enumerate(("x_px", "y_px"))
    }
    return seeds.assign(**known, intensity=columns["intensity"], sigma_A=columns["sigma_A"])


def _second_look(bright: np.ndarray, scene: Scene) -> list[dict[str, str]]:
    """Hold assignment and interface against the image again; a wrong assignment ends the run."""
    upright = replace(scene.lattice, sign=1)
    for doubt in check_assignment(bright, upright, scene.projection):
        raise DataError(doubt["message"])
    notes = lattice_notes(scene.lattice)
    if scene.interface is None:
        return notes
    cage = scene.config.crystal.cage.split("/")[0]
    others = "/".join(
        s
        for s in scene.projection.species
        if s != cage and not scene.projection.sites_of(s)[0].is_anion
    )
    doubts = interface_doubts(scene.interface, cage, others)
    return notes + doubts + interface_notes(scene.interface)


def _in_input_axes(columns: pd.DataFrame, scene: Scene) -> pd.DataFrame:
    """Shift calibrated positions by the offset of the image's axes (that of the crop, too)."""
    shift = {}
    for name, axis, size in zip(
        "xy", scene.image.axes_manager.signal_axes, scene.size, strict=True
    ):
        shift[f"{name}_A"] = columns[f"{name}_A"] + axis.offset / axis.scale * size
    return columns.assign(**shift)
