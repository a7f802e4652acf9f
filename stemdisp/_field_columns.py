"""The columns of fields.csv: name, unit, type, meaning; `_registry` takes them in."""

from __future__ import annotations

_LOW, _HIGH = "lower end of its interval; empty where open", "upper end; empty where open"

FIELD_COLUMNS: tuple[tuple[str, str, str, str], ...] = (
    ("field", "", "str", "name of the field: the directory of its results"),
    ("path", "", "str", "the file that was analysed"),
    ("status", "", "str", "done, or failed"),
    ("message", "", "str", "why it failed, in one line, with the exit status of a single run"),
    ("sha256", "", "str", "checksum of the file; empty where it cannot be read"),
    ("delta1_A", "A", "float64", "delta of plane N = 1"),
    ("delta1_err_A", "A", "float64", "total standard error of delta1_A"),
    ("delta0_A", "A", "float64", "delta of plane N = 1 by the fitted decay"),
    ("delta0_err_A", "A", "float64", "standard error of delta0_A"),
    ("xi_planes", "planes", "float64", "decay length of delta"),
    ("xi_low_planes", "planes", "float64", _LOW),
    ("xi_high_planes", "planes", "float64", _HIGH),
    ("N_disp", "", "Int64", "last plane in which a displacement is seen; 0 for none"),
    ("N_disp_low", "", "float64", _LOW),
    ("N_disp_high", "", "float64", _HIGH),
    ("N_vac", "", "Int64", "last plane in which anions are seen to be missing; 0 for none"),
    ("N_vac_low", "", "float64", _LOW),
    ("N_vac_high", "", "float64", _HIGH),
    ("N_difference", "", "float64", "N_vac - N_disp"),
    ("N_difference_low", "", "float64", _LOW),
    ("N_difference_high", "", "float64", _HIGH),
    ("plane1_occupancy", "", "float64", "occupancy of plane N = 1"),
    ("plane1_occupancy_err", "", "float64", "standard error of plane1_occupancy"),
    ("bulk_offset_A", "A", "float64", "offset of the bulk along u, which was taken off"),
    ("bulk_offset_err_A", "A", "float64", "standard error of bulk_offset_A"),
    ("bulk_offset_perp_A", "A", "float64", "offset of the bulk along v, which was taken off"),
    ("bulk_offset_perp_err_A", "A", "float64", "standard error of bulk_offset_perp_A"),
    ("n_warnings", "", "Int64", "number of warnings in the field's summary.json"),
    ("warning_codes", "", "str", "their codes, joined by ;"),
    ("pixel_size_A", "A", "float64", "size of a pixel; the geometric mean of x and y"),
    ("stemdisp", "", "str", "version of stemdisp"),
)
