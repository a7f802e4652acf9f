"""The registry: every table column and every quality bit, named and explained once.

An image becomes a table with one row per atomic column; each stage adds columns and takes none
away. The docs, the report and the writers read this module, so a column that is not here does not
exist.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class ColumnSpec:
    """One documented column of one of the tables."""

    table: str
    name: str
    unit: str
    dtype: str
    stage: str
    meaning: str


class Quality(enum.IntFlag):
    """Bits of the ``quality`` column; 0 means that nothing is known against the column."""

    GOOD = 0
    EDGE = 1
    NEAR_FILM = 2
    FILM = 4
    NOT_DETECTED = 8
    NOT_CONVERGED = 16
    WIDTH_AT_BOUND = 32
    MASKED = 64
    MOVED = 128
    NO_CAGE = 256
    MISFIT = 512


@dataclass(frozen=True)
class QualitySpec:
    """A quality bit for people: its name, a short label and what to do about it."""

    bit: Quality
    short: str
    meaning: str


QUALITY_BITS: tuple[QualitySpec, ...] = (
    QualitySpec(
        Quality.EDGE,
        "at the image border",
        "Part of the column or of its fit window lies outside the image or in a dead border; "
        "left out of plane averages.",
    ),
    QualitySpec(
        Quality.NEAR_FILM,
        "next to the film",
        "The outermost plane (N = 1), or beside a step of the interface: amorphous material there "
        "biases the fit by 1-6 pm. Kept in averages, marked in the report.",
    ),
    QualitySpec(
        Quality.FILM,
        "outside the crystal",
        "The lattice expects a column here but the crystal has ended; never used.",
    ),
    QualitySpec(
        Quality.NOT_DETECTED,
        "not significantly there",
        "The fitted intensity is below three standard errors. Intensity and occupancy stay valid "
        "(they may be zero); the position is only that of the lattice and is not used.",
    ),
    QualitySpec(
        Quality.NOT_CONVERGED,
        "fit did not converge",
        "The position was still moving when the iterations ended; values are NaN and unused.",
    ),
    QualitySpec(
        Quality.WIDTH_AT_BOUND,
        "width at its bound",
        "The species' fitted width ran into its limit: these columns are not peaks of the "
        "expected kind (often a specimen that is too thick).",
    ),
    QualitySpec(
        Quality.MASKED,
        "masked or saturated pixels",
        "Not-a-number, masked or saturated pixels lie under the column; left out of averages.",
    ),
    QualitySpec(
        Quality.MOVED,
        "far from its site",
        "The fit ended further from the lattice site than neighbouring columns allow; left out "
        "of averages.",
    ),
    QualitySpec(
        Quality.NO_CAGE,
        "no complete cage",
        "No neighbour with its opposite could be used, so the column has no displacement.",
    ),
    QualitySpec(
        Quality.MISFIT,
        "shape misfit",
        "The residual under the column is far larger than the noise allows; its errors may be "
        "too small.",
    ),
)

# Columns that carry any of these bits take no part in averages and statistics.
UNUSABLE = Quality.EDGE | Quality.FILM | Quality.NOT_CONVERGED | Quality.MASKED | Quality.MOVED

_C, _P, _L, _F = "columns", "planes", "line_profile", "frames"

COLUMNS: tuple[ColumnSpec, ...] = (
    ColumnSpec(
        _C,
        "species",
        "",
        "str",
        "find",
        "species of the structure (K, Ta, O); a mixed column carries its cation",
    ),
    ColumnSpec(
        _C, "i", "", "float64", "find", "lattice index along u (fractions are those of the site)"
    ),
    ColumnSpec(_C, "j", "", "float64", "find", "lattice index along v"),
    ColumnSpec(
        _C,
        "layer",
        "",
        "float64",
        "interface",
        "layer number l of the interface plane, growing towards the film; l = 0 is the first layer "
        "under the first cage plane of the terrace",
    ),
    ColumnSpec(
        _C,
        "N",
        "",
        "Int64",
        "interface",
        "plane number from the interface, 1 - ceil(l - 1/2): that of the cage plane which closes "
        "the site towards the film; empty without an interface",
    ),
    ColumnSpec(
        _C,
        "x_px",
        "px",
        "float64",
        "refine",
        "position to the right, pixel centres at integers, in the aligned image",
    ),
    ColumnSpec(
        _C,
        "y_px",
        "px",
        "float64",
        "refine",
        "position downwards, pixel centres at integers, in the aligned image",
    ),
    ColumnSpec(_C, "x_A", "A", "float64", "refine", "calibrated position to the right"),
    ColumnSpec(_C, "y_A", "A", "float64", "refine", "calibrated position downwards"),
    ColumnSpec(_C, "x_err_A", "A", "float64", "refine", "standard error of x_A from the joint fit"),
    ColumnSpec(_C, "y_err_A", "A", "float64", "refine", "standard error of y_A from the joint fit"),
    ColumnSpec(
        _C,
        "intensity",
        "signal*A^2",
        "float64",
        "refine",
        "fitted integrated intensity (amplitude times area)",
    ),
    ColumnSpec(
        _C, "intensity_err", "signal*A^2", "float64", "refine", "standard error of intensity"
    ),
    ColumnSpec(_C, "sigma_A", "A", "float64", "refine", "Gaussian width used for the column"),
    ColumnSpec(_C, "significance", "", "float64", "refine", "intensity over its standard error"),
    ColumnSpec(
        _C,
        "chi2",
        "",
        "float64",
        "refine",
        "mean squared residual under the column over that expected from the noise",
    ),
    ColumnSpec(
        _C,
        "delta_A",
        "A",
        "float64",
        "sublattice",
        "displacement from the cage centre along local u, bulk offset subtracted",
    ),
    ColumnSpec(
        _C,
        "delta_err_A",
        "A",
        "float64",
        "sublattice",
        "standard error of delta_A (fit covariance and bulk offset)",
    ),
    ColumnSpec(
        _C,
        "delta_perp_A",
        "A",
        "float64",
        "sublattice",
        "displacement along local v, bulk offset subtracted",
    ),
    ColumnSpec(
        _C, "delta_perp_err_A", "A", "float64", "sublattice", "standard error of delta_perp_A"
    ),
    ColumnSpec(
        _C,
        "n_pairs",
        "",
        "Int64",
        "sublattice",
        "complete inversion pairs of the cage that were used",
    ),
    ColumnSpec(
        _C,
        "occupancy",
        "",
        "float64",
        "occupancy",
        "occupancy of a pure anion column: intensity_ratio, calibrated where there is a curve",
    ),
    ColumnSpec(_C, "occupancy_err", "", "float64", "occupancy", "standard error of occupancy"),
    ColumnSpec(
        _C,
        "intensity_ratio",
        "",
        "float64",
        "occupancy",
        "intensity of a pure anion column over that of bulk columns, before any calibration",
    ),
    ColumnSpec(
        _C,
        "intensity_ratio_err",
        "",
        "float64",
        "occupancy",
        "standard error of intensity_ratio",
    ),
    ColumnSpec(
        _C,
        "vacancy_q",
        "",
        "float64",
        "occupancy",
        "share of false discoveries if all anion columns up to this q are called vacant",
    ),
    ColumnSpec(_C, "quality", "", "int64", "refine", "bit field, 0 = good; see the quality bits"),
    ColumnSpec(_P, "N", "", "Int64", "sublattice", "plane number, 1 next to the film"),
    ColumnSpec(
        _P,
        "depth_nm",
        "nm",
        "float64",
        "sublattice",
        "depth of the plane below plane 1 along the interface normal",
    ),
    ColumnSpec(_P, "n_columns", "", "Int64", "sublattice", "columns of the displaced species used"),
    ColumnSpec(
        _P, "delta_A", "A", "float64", "sublattice", "inverse-variance mean of delta over the plane"
    ),
    ColumnSpec(
        _P,
        "delta_err_A",
        "A",
        "float64",
        "sublattice",
        "total standard error (scatter between columns included)",
    ),
    ColumnSpec(
        _P,
        "delta_noise_A",
        "A",
        "float64",
        "sublattice",
        "standard error from the fit covariance alone",
    ),
    ColumnSpec(
        _P, "delta_perp_A", "A", "float64", "sublattice", "inverse-variance mean of delta_perp"
    ),
    ColumnSpec(
        _P, "delta_perp_err_A", "A", "float64", "sublattice", "total standard error of delta_perp_A"
    ),
    ColumnSpec(_P, "n_anions", "", "Int64", "occupancy", "pure anion columns used"),
    ColumnSpec(
        _P, "occupancy", "", "float64", "occupancy", "inverse-variance mean occupancy of the plane"
    ),
    ColumnSpec(
        _P, "occupancy_err", "", "float64", "occupancy", "total standard error of occupancy"
    ),
    ColumnSpec(
        _P,
        "occupancy_noise",
        "",
        "float64",
        "occupancy",
        "standard error of occupancy from the fit and the reference alone",
    ),
    ColumnSpec(
        _P,
        "intensity_ratio",
        "",
        "float64",
        "occupancy",
        "mean intensity over that of bulk columns, before any calibration",
    ),
    ColumnSpec(
        _P,
        "intensity_ratio_err",
        "",
        "float64",
        "occupancy",
        "total standard error of intensity_ratio",
    ),
    ColumnSpec(
        _P,
        "delta_cation_A",
        "A",
        "float64",
        "interpret",
        "displacement of the cations if they alone move; empty without a calibration",
    ),
    ColumnSpec(
        _P, "delta_cation_err_A", "A", "float64", "interpret", "standard error of delta_cation_A"
    ),
    ColumnSpec(
        _P,
        "delta_column_A",
        "A",
        "float64",
        "interpret",
        "displacement of the atoms if all atoms of a column move together",
    ),
    ColumnSpec(
        _P, "delta_column_err_A", "A", "float64", "interpret", "standard error of delta_column_A"
    ),
    ColumnSpec(
        _P,
        "P_cation_uC_cm2",
        "uC/cm^2",
        "float64",
        "polarisation",
        "estimate of the polarisation along u if the cations alone move",
    ),
    ColumnSpec(
        _P,
        "P_cation_err_uC_cm2",
        "uC/cm^2",
        "float64",
        "polarisation",
        "standard error of P_cation_uC_cm2",
    ),
    ColumnSpec(
        _P,
        "P_column_uC_cm2",
        "uC/cm^2",
        "float64",
        "polarisation",
        "estimate of the polarisation along u if all atoms of a column move together",
    ),
    ColumnSpec(
        _P,
        "P_column_err_uC_cm2",
        "uC/cm^2",
        "float64",
        "polarisation",
        "standard error of P_column_uC_cm2",
    ),
    ColumnSpec(
        _L,
        "s_A",
        "A",
        "float64",
        "occupancy",
        "distance along the profile, from the film into the crystal",
    ),
    ColumnSpec(
        _L, "intensity", "signal", "float64", "occupancy", "image intensity averaged over the band"
    ),
    ColumnSpec(_L, "N", "", "Int64", "occupancy", "plane number, filled at the labelled peaks"),
    ColumnSpec(_F, "frame", "", "int64", "register", "frame number, from 0"),
    ColumnSpec(
        _F,
        "shift_x_A",
        "A",
        "float64",
        "register",
        "how far the frame's content lies to the right of frame 0's",
    ),
    ColumnSpec(
        _F,
        "shift_y_A",
        "A",
        "float64",
        "register",
        "how far the frame's content lies below frame 0's",
    ),
    ColumnSpec(
        _F,
        "dose_e_per_A2",
        "e/A^2",
        "float64",
        "load",
        "dose of the frame, where the file states it",
    ),
    ColumnSpec(_F, "used", "", "bool", "register", "whether the frame entered the average"),
    ColumnSpec(
        _F,
        "correlation",
        "",
        "float64",
        "register",
        "correlation of the aligned frame with the mean of the others",
    ),
    ColumnSpec(
        _F, "delta1_A", "A", "float64", "dose", "delta of plane 1 measured on this frame alone"
    ),
    ColumnSpec(_F, "delta1_err_A", "A", "float64", "dose", "standard error of delta1_A"),
    ColumnSpec(
        _F,
        "occupancy1",
        "",
        "float64",
        "dose",
        "mean occupancy of planes 1 to 3 on this frame alone",
    ),
    ColumnSpec(_F, "occupancy1_err", "", "float64", "dose", "standard error of occupancy1"),
)


def specs(table: str) -> dict[str, ColumnSpec]:
    """Return the documented columns of one table.

    Parameters
    ----------
    table : {"columns", "planes", "line_profile", "frames"}
        Which table.

    Returns
    -------
    dict of str to ColumnSpec
        In the order in which they are written.
    """
    found = {c.name: c for c in COLUMNS if c.table == table}
    if not found:
        names = ", ".join(dict.fromkeys(c.table for c in COLUMNS))
        raise ValueError(f"table = {table!r} is not one of: {names}")
    return found


def check_columns(frame: pd.DataFrame, required: tuple[str, ...], *, what: str = "columns") -> None:
    """Raise a ValueError naming the columns that a stage needs and the table lacks."""
    missing = [name for name in required if name not in frame.columns]
    if missing:
        raise ValueError(
            f"{what} lacks {', '.join(missing)}; it has {', '.join(map(str, frame.columns))}. "
            "Run the earlier stages first or rename the columns."
        )


def ordered(frame: pd.DataFrame, table: str) -> pd.DataFrame:
    """Return the documented columns of `frame` in registry order with registry dtypes.

    Columns that the analysis did not make (no interface, no anions) are added empty.
    """
    out = {}
    for name, spec in specs(table).items():
        if name in frame.columns:
            values = frame[name]
        else:
            values = pd.Series([pd.NA] * len(frame), index=frame.index)
        if spec.dtype == "float64":
            out[name] = pd.to_numeric(values, errors="coerce").astype("float64")
        elif spec.dtype == "Int64":
            out[name] = values.astype("Int64")
        else:
            out[name] = values.astype(spec.dtype)
    return pd.DataFrame(out)


def usable(frame: pd.DataFrame) -> np.ndarray:
    """Return a mask of the columns that may enter averages (no disqualifying quality bit)."""
    return (frame["quality"].to_numpy(dtype=np.int64) & int(UNUSABLE)) == 0


def count_quality(frame: pd.DataFrame) -> dict[str, int]:
    """Count how many columns carry each quality bit."""
    q = frame["quality"].to_numpy(dtype=np.int64)
    return {spec.short: int(np.count_nonzero(q & int(spec.bit))) for spec in QUALITY_BITS}
