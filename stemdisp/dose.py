"""Frames -> where they lie, and what each shows alone, for damage by the beam to show itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stemdisp.config import Config
from stemdisp.crystal import Projection
from stemdisp.lattice import Lattice
from stemdisp.load import dose_of
from stemdisp.occupancy import AnionReference, measure_occupancy, pure_anion
from stemdisp.planes import average_occupancy, average_planes
from stemdisp.refine import refine_columns
from stemdisp.sublattice import measure_displacements

if TYPE_CHECKING:
    from hyperspy.signals import Signal2D

    from stemdisp.register import Registration

FIRST_PLANES = 3


def measure_frames(
    stack: Signal2D,
    registration: Registration,
    *,
    columns: pd.DataFrame,
    lattice: Lattice,
    projection: Projection,
    pixel_size: tuple[float, float],
    config: Config,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Tell where each frame lies, and measure plane 1 on every frame alone.

    Parameters
    ----------
    stack : Signal2D
        The frames; their dose is read from the metadata.
    registration : Registration
        Where each frame lies.
    columns : DataFrame
        Columns of the mean image: the starting points.
    lattice, projection
        The crystal in the mean image.
    pixel_size : (float, float)
        Angstrom per px.
    config : Config
        The run.
    progress : callable, optional
        Called as ``progress(done, total)``.

    Returns
    -------
    DataFrame
        One row per frame, the columns of the registry: shift, dose, use and correlation; delta of
        plane 1 and the mean occupancy of planes 1 to 3 with errors, NaN for frames left out,
        where there is no interface, and without ``[analysis] dose_series``.
    """
    n = len(registration.used)
    dose = dose_of(stack, n)
    names = ("delta1_A", "delta1_err_A", "occupancy1", "occupancy1_err")
    values = np.full((n, 4), np.nan)
    if config.analysis.dose_series and not columns["N"].isna().all():
        mask = columns.attrs["fit"].mask
        psd = registration.noise_psd
        options = {
            "pixel_size": pixel_size,
            "noise": config.refine.noise,
            "mask": mask,
            # the mean of n frames has 1/n of a frame's noise
            "noise_psd": None if psd is None else (psd[0], psd[1] * registration.n_used),
            "max_iterations": 12,
        }
        for k in np.flatnonzero(registration.used):
            frame = np.asarray(stack.inav[int(k)].data, dtype=np.float64) * lattice.sign
            origin = registration.shifts_px[k] + np.array(registration.origin_px)
            part, rest = _cut(frame, origin, mask.shape)
            values[k] = _measure(part, rest, columns, lattice, projection, config, options)
            if progress is not None:
                progress(int(k) + 1, n)
    return pd.DataFrame(
        {
            "frame": np.arange(n),
            "shift_x_A": registration.shifts_px[:, 0] * pixel_size[0],
            "shift_y_A": registration.shifts_px[:, 1] * pixel_size[1],
            "dose_e_per_A2": np.full(n, np.nan) if dose is None else dose,
            "used": registration.used,
            "correlation": registration.correlation,
            **dict(zip(names, values.T, strict=True)),
        }
    )


def _cut(
    frame: np.ndarray, origin: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Cut the mean image's field out of a frame, NaN beyond it; and the rest of its origin, px."""
    whole = np.rint(origin).astype(int)
    x, y = whole
    part = np.full(shape, np.nan)
    rows = slice(max(0, -y), min(shape[0], frame.shape[0] - y))
    cols = slice(max(0, -x), min(shape[1], frame.shape[1] - x))
    part[rows, cols] = frame[rows.start + y : rows.stop + y, cols.start + x : cols.stop + x]
    return part, origin - whole


def _measure(
    part: np.ndarray,
    rest: np.ndarray,
    columns: pd.DataFrame,
    lattice: Lattice,
    projection: Projection,
    config: Config,
    options: dict[str, Any],
) -> tuple[float, float, float, float]:
    """Fit one frame from the mean image's columns, `rest` px off."""
    kept = ["species", "i", "j", "N", "layer", "quality", "intensity", "sigma_A"]
    seeds = columns[kept].assign(
        x_px=columns["x_px"].fillna(0) + rest[0], y_px=columns["y_px"].fillna(0) + rest[1]
    )
    seeds = seeds[columns["x_px"].notna()].assign(quality=0)
    seeds.attrs = {}
    fitted = refine_columns(part, seeds, **options)
    fitted = measure_displacements(
        fitted,
        lattice,
        projection=projection,
        displaced=config.crystal.displaced,
        cage=config.crystal.cage,
        bulk_from=config.analysis.bulk_from,
    )
    bulk = {"bulk_from": config.analysis.bulk_from}
    planes = average_planes(fitted, displaced=config.crystal.displaced, **bulk).set_index("N")
    out = [float(planes["delta_A"].get(1, np.nan)), float(planes["delta_err_A"].get(1, np.nan))]
    if lattice.odd_contrast:  # oxygen is no peak: its occupancy is not measurable
        return out[0], out[1], np.nan, np.nan
    anion = pure_anion(projection)
    if anion is None:
        return out[0], out[1], np.nan, np.nan
    full = (config.crystal.cage.split("/")[0],)
    reference = columns.attrs.get("anion_reference")
    curve = reference.curve if isinstance(reference, AnionReference) else None
    fitted = measure_occupancy(fitted, anion=anion, trend_species=full, curve=curve, **bulk)
    anions = average_occupancy(fitted, anion=anion, **bulk)
    first = anions[(anions["N"] <= FIRST_PLANES) & anions["occupancy"].notna()]
    if len(first) == 0:
        return out[0], out[1], np.nan, np.nan
    n = len(first)
    error = float(np.sqrt(np.sum(first["occupancy_err"] ** 2)) / n)
    return out[0], out[1], float(first["occupancy"].mean()), error
