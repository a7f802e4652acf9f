"""One part of a dose series: its image fitted from the columns of the mean of all frames.

`fit_part` is one piece of work: plain data in, plain numbers out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stemdisp._resampling import between_variance
from stemdisp._start import UNMEASURED
from stemdisp.config import Config
from stemdisp.crystal import Projection
from stemdisp.depths import find_depths
from stemdisp.lattice import Lattice
from stemdisp.occupancy import AnionReference, measure_occupancy, pure_anion
from stemdisp.planes import MIN_BULK_PLANES, average_occupancy, average_planes
from stemdisp.refine import refine_columns
from stemdisp.repeats import ENOUGH, OUTLYING, SEEN, apply_factors, error_factors
from stemdisp.response import OccupancyCurve
from stemdisp.sublattice import Displacements, measure_displacements
from stemdisp.tables import by_hand

if TYPE_CHECKING:
    from stemdisp._scene import Scene
    from stemdisp.register import Registration

FIRST_PLANES = 3
ROUGH_STEPS, STEPS = 4, 12  # of the fit that only shows where the columns went, and of the other
VALUES = ("delta1_A", "delta1_err_A", "occupancy1", "occupancy1_err")
DEPTHS = ("N_disp", "N_disp_low", "N_disp_high", "N_vac", "N_vac_low", "N_vac_high")


@dataclass(frozen=True, eq=False)
class Refit:
    """What the fit of any part of the series needs beside its image; plain data, to be sent.

    Attributes
    ----------
    seeds : DataFrame
        Columns of the mean image with those of the film at the end: the starting points.
    lattice, projection, config
        The crystal and the run.
    curve : OccupancyCurve or None
        Calibration of the occupancy.
    options : dict
        Of `refine_columns`; ``noise_psd`` is that of one frame.
    factors : dict
        By species, what the halves of the stack say of the errors (`repeats.error_factors`).
    delta_factors : (float, float)
        The same for delta and delta_perp.
    """

    seeds: pd.DataFrame
    lattice: Lattice
    projection: Projection
    config: Config
    curve: OccupancyCurve | None
    options: dict[str, Any]
    factors: dict[str, dict[str, float]]
    delta_factors: tuple[float, float]


def prepare(
    registration: Registration,
    scene: Scene,
    *,
    columns: pd.DataFrame,
    film: pd.DataFrame | None = None,
    halves: Sequence[pd.DataFrame] = (),
) -> Refit:
    """Collect what every fit of the series shares.

    Parameters
    ----------
    registration, scene, columns, film, halves
        As in `measure_frames`.

    Returns
    -------
    Refit
    """
    kept = ["species", "i", "j", "N", "layer", "quality", "intensity", "sigma_A", "x_px", "y_px"]
    seeds = [table[kept].astype({"N": "Int64"}) for table in (columns, film) if table is not None]
    for table in seeds:
        table.attrs = {}
    both = pd.concat(seeds, ignore_index=True)
    both = both.assign(quality=by_hand(both))
    fit, reference = columns.attrs["fit"], columns.attrs.get("anion_reference")
    psd, made = registration.noise_psd, columns.attrs.get("displacements")
    return Refit(
        seeds=both[both["x_px"].notna()].reset_index(drop=True),
        lattice=scene.lattice,
        projection=scene.projection,
        config=scene.config,
        curve=reference.curve if isinstance(reference, AnionReference) else None,
        options={
            "pixel_size": scene.size,
            "noise": fit.noise.kind,
            "mask": fit.mask,
            # the mean of n frames has 1/n of a frame's noise
            "noise_psd": None if psd is None else (psd[0], psd[1] * registration.n_used),
        },
        factors=error_factors(list(halves)) if len(halves) == 2 else {},
        delta_factors=made.factors if isinstance(made, Displacements) else (1.0, 1.0),
    )


def fit_part(image: np.ndarray, n_frames: int, refit: Refit) -> dict[str, float]:
    """Fit the mean of some frames from the columns of the mean of all.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
        On the pixels of the mean image, columns bright; NaN where nothing was measured.
    n_frames : int
        How many frames it is the mean of.
    refit : Refit
        From `prepare`.

    Returns
    -------
    dict
        delta1_A, occupancy1, N_disp, N_vac with errors or bounds; NaN where they cannot be told.
    """
    fitted = _fit(image, n_frames, refit)
    config, displaced = refit.config, refit.config.crystal.displaced
    bulk_from = config.analysis.bulk_from
    fitted = measure_displacements(
        fitted,
        refit.lattice,
        projection=refit.projection,
        displaced=displaced,
        cage=config.crystal.cage,
        factors=refit.delta_factors,
        bulk_from=bulk_from,
    )
    planes = average_planes(fitted, displaced=displaced, bulk_from=bulk_from)
    out = dict.fromkeys((*VALUES, *DEPTHS), np.nan)
    out |= _displacement(planes, fitted.attrs["displacements"], config.analysis.bulk_from)
    anion = pure_anion(refit.projection)
    if anion is None or refit.lattice.odd_contrast:  # oxygen is no peak: not measurable
        return out
    full = (config.crystal.cage.split("/")[0],)
    fitted = measure_occupancy(
        fitted, anion=anion, trend_species=full, curve=refit.curve, bulk_from=bulk_from
    )
    anions = average_occupancy(fitted, anion=anion, bulk_from=bulk_from)
    planes = planes.merge(anions, on="N", how="outer").sort_values("N", ignore_index=True)
    return out | _occupancy(fitted, anions, refit, anion) | _depths(fitted, planes, config, anion)


def _fit(image: np.ndarray, n_frames: int, refit: Refit) -> pd.DataFrame:
    """Fit the columns; again from where the part's own distortion takes their starting points.

    A faint column is held where it starts. There the cage would be torn apart where drift within
    the frame has moved the bright columns.
    """
    options = dict(refit.options)
    psd = options.pop("noise_psd")
    options["noise_psd"] = None if psd is None else (psd[0], psd[1] / n_frames)
    first = refine_columns(image, refit.seeds, max_iterations=ROUGH_STEPS, **options)
    fitted = refine_columns(image, _follow(refit.seeds, first), max_iterations=STEPS, **options)
    fit = fitted.attrs["fit"]
    fitted = fitted[~fitted["species"].isin(UNMEASURED)].astype({"N": "Int64", "quality": "int64"})
    fitted = apply_factors(fitted, refit.factors)
    fitted.attrs["fit"] = fit
    return fitted


def _follow(seeds: pd.DataFrame, fitted: pd.DataFrame) -> pd.DataFrame:
    """Move the starting points by a quadratic surface through the moves of columns well seen."""
    start = seeds[["x_px", "y_px"]].to_numpy(dtype=float)
    moves = fitted[["x_px", "y_px"]].to_numpy(dtype=float) - start
    seen = ((fitted["significance"] > SEEN) & ~fitted["species"].isin(UNMEASURED)).to_numpy()
    seen = seen & np.isfinite(moves).all(axis=1)
    if np.count_nonzero(seen) < ENOUGH:
        return seeds
    x, y = ((start - start[seen].mean(axis=0)) / np.ptp(start, axis=0).max()).T
    surface = np.column_stack([np.ones_like(x), x, y, x * x, x * y, y * y])
    moved = start.copy()
    for axis in (0, 1):
        inside = seen.copy()
        for _ in range(3):
            solution = np.linalg.lstsq(surface[inside], moves[inside, axis], rcond=None)[0]
            rest = np.abs(moves[:, axis] - surface @ solution)
            inside = seen & (rest <= OUTLYING * 1.4826 * np.median(rest[seen]))
        moved[:, axis] += surface @ solution
    return seeds.assign(x_px=moved[:, 0], y_px=moved[:, 1])


def _displacement(planes: pd.DataFrame, made: Displacements, bulk_from: int) -> dict[str, float]:
    """Delta of plane 1, with the error of its changes from part to part of the series."""
    first = planes[(planes["N"] == 1) & planes["delta_A"].notna()]
    if not len(first):
        return {}
    offset = float(np.nan_to_num(made.offset["delta_err"]))
    noise = planes["delta_noise_A"].to_numpy(dtype=float)
    own = made.factors[0] * np.sqrt(np.maximum(noise**2 - offset**2, 1e-12))
    jitter = _plane_scatter(planes.assign(own=own), "delta_A", "own", bulk_from)
    variance = own[first.index[0]] ** 2 + offset**2 + jitter
    return {
        "delta1_A": float(first["delta_A"].iloc[0]),
        "delta1_err_A": float(np.sqrt(variance)),
    }


def _plane_scatter(planes: pd.DataFrame, value: str, error: str, bulk_from: int) -> float:
    """Variance of whole bulk planes beyond their errors: jitter of lines moves whole planes."""
    bulk = planes[(planes["N"] >= bulk_from) & planes[value].notna() & (planes[error] > 0)]
    if len(bulk) < MIN_BULK_PLANES:
        return 0.0
    return float(between_variance(*(bulk[n].to_numpy(dtype=float) for n in (value, error))))


def _occupancy(
    columns: pd.DataFrame, anions: pd.DataFrame, refit: Refit, anion: str
) -> dict[str, float]:
    """Mean occupancy of the first planes, with the error of its changes.

    Jitter of lines moves planes and hardly dims them, so none is added.
    """
    first = anions[(anions["N"] <= FIRST_PLANES) & anions["occupancy"].notna()]
    if not len(first):
        return {}
    ratio, noise = (
        first[f"intensity_ratio{part}"].to_numpy(dtype=float) for part in ("", "_noise")
    )
    # What the planes share (bulk mean, trend) does not average out over them.
    own_kind = columns[(columns["species"] == anion).to_numpy()]
    reference = columns.attrs["anion_reference"].common
    common = pd.Series(reference[(columns["species"] == anion).to_numpy()])
    common = common.groupby(own_kind["N"].to_numpy(dtype=float, na_value=np.nan)).mean()
    shared = ratio * common.reindex(first["N"].to_numpy(dtype=float)).to_numpy()
    own = np.sqrt(np.maximum(noise**2 - shared**2, 1e-12))
    if refit.curve is not None:  # its own error is the same in all parts
        own, shared = refit.curve(ratio, own)[1], refit.curve(ratio, shared)[1]
    return {
        "occupancy1": float(first["occupancy"].mean()),
        "occupancy1_err": float(np.hypot(np.sqrt(np.sum(own**2)) / len(own), np.mean(shared))),
    }


def _depths(
    columns: pd.DataFrame, planes: pd.DataFrame, config: Config, anion: str
) -> dict[str, float]:
    """Give both depths with their intervals; their difference is not asked for."""
    analysis = config.analysis
    found = find_depths(
        columns,
        planes,
        bulk_from=analysis.bulk_from,
        confidence=analysis.confidence,
        n_resamples=1,
        seed=analysis.seed,
        displaced=config.crystal.displaced,
        anion=anion,
    )
    out: dict[str, float] = {}
    for name, depth in (("N_disp", found.displacement), ("N_vac", found.vacancy)):
        out |= {name: float(depth.N), f"{name}_low": depth.ci[0], f"{name}_high": depth.ci[1]}
    return out
