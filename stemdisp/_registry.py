"""Every column of every table, named and explained once; `tables.py` gives it to the world."""

from __future__ import annotations

from dataclasses import dataclass

from stemdisp._field_columns import FIELD_COLUMNS


@dataclass(frozen=True)
class ColumnSpec:
    """One documented column of one of the tables."""

    table: str
    name: str
    unit: str
    dtype: str
    stage: str
    meaning: str


_C, _P, _L, _F = "columns", "planes", "line_profile", "frames"
_D = "dose_series"
_ALONE = "on the mean of these frames alone"
# name, unit, dtype, stage, meaning
_SERIES = (
    ("kind", "", "str", "dose", "point (of the line) or cumulative (mean of the first frames)"),
    ("point", "", "Int64", "dose", "number of the point; empty for cumulative means"),
    ("first_frame", "", "int64", "dose", "first frame of the row"),
    ("last_frame", "", "int64", "dose", "last frame of the row"),
    ("n_frames", "", "int64", "dose", "used frames of the row; their mean was fitted"),
    ("frame_middle", "", "float64", "dose", "frames scanned up to the middle of the row's frames"),
    ("dose_start_e_per_A2", "e/A^2", "float64", "dose", "dose before the first frame of the row"),
    ("dose_end_e_per_A2", "e/A^2", "float64", "dose", "dose after the last frame of the row"),
    ("dose_middle_e_per_A2", "e/A^2", "float64", "dose", "mean dose up to the middle of a frame"),
    ("delta1_A", "A", "float64", "dose", f"delta of plane 1 {_ALONE}"),
    (
        "delta1_err_A",
        "A",
        "float64",
        "dose",
        "standard error of delta1_A for changes over a series",
    ),
    ("occupancy1", "", "float64", "dose", f"mean occupancy of planes 1 to 3 {_ALONE}"),
    ("occupancy1_err", "", "float64", "dose", "standard error of occupancy1 for such changes"),
    ("N_disp", "", "float64", "dose", f"displacement depth {_ALONE}"),
    ("N_disp_low", "", "float64", "dose", "lower end of its interval"),
    ("N_disp_high", "", "float64", "dose", "upper end of its interval"),
    ("N_vac", "", "float64", "dose", f"vacancy depth {_ALONE}"),
    ("N_vac_low", "", "float64", "dose", "lower end of its interval"),
    ("N_vac_high", "", "float64", "dose", "upper end of its interval"),
)

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
    ColumnSpec(
        _C,
        "x_err_A",
        "A",
        "float64",
        "refine",
        "standard error of x_A: joint fit, times what the halves show",
    ),
    ColumnSpec(
        _C,
        "y_err_A",
        "A",
        "float64",
        "refine",
        "standard error of y_A: joint fit, times what the halves show",
    ),
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
        "standard error of delta_A (fit covariance, what the halves of a stack show, bulk offset)",
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
        "intensity_ratio_noise",
        "",
        "float64",
        "occupancy",
        "standard error of intensity_ratio from the fit and the reference alone",
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
        _F,
        "point",
        "",
        "Int64",
        "dose",
        "point of the dose series that the frame is part of; empty where nothing was fitted",
    ),
    ColumnSpec(
        _F,
        "delta1_A",
        "A",
        "float64",
        "dose",
        "delta of plane 1 measured on this frame alone; empty where a point is several frames",
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
    *(
        ColumnSpec("fields", name, unit, dtype, "batch", meaning)
        for name, unit, dtype, meaning in FIELD_COLUMNS
    ),
    *(ColumnSpec(_D, *rest) for rest in _SERIES),
)
