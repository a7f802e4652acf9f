"""The tables of the page, as rows of text."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from stemdisp import _plot_style as st
from stemdisp import tables
from stemdisp._plot_numbers import (
    MINUS,
    UNKNOWN,
    fixed,
    known,
    measured,
    number,
    p_value,
    two_digits,
    with_interval,
)
from stemdisp.report import wording
from stemdisp.report.wording import get

Rows = list[tuple[str, str]]
# What the tests of the depths are called for people.
_METHODS = {"holm": "Holm's step-down test"}
_NOTHING = "\N{EN DASH}"


def interpretation(result: Any) -> dict[str, Any]:
    """Return the two readings of the measured displacement side by side."""
    found = get(result, "interpretation") or {}
    row = wording.first_plane(result)
    value = UNKNOWN if row is None else measured(row["delta_A"], row["delta_err_A"], "Å")
    species = st.displaced_species(result)
    what = found.get("measured") or "column"
    factor = measured(found.get("f"), found.get("f_err"))
    note = as_sentence(str(found.get("note") or ""))
    charges = get(result, "polarisation") or {}
    if charges:
        note += f" {_charges(charges)}"
    return {
        "rows": [
            (f"δ of the {what} in the image", value, "measured"),
            (
                f"δ of the {species} atoms, if only {species} moves",
                wording.reading(result, "cation_only"),
                "interpretation",
            ),
            (
                f"δ of the {species} atoms, if the whole column moves",
                wording.reading(result, "whole_column"),
                "interpretation",
            ),
            *_polarisation(charges, species),
        ],
        "factor": factor,
        "note": note.strip(),
    }


def _polarisation(found: dict[str, Any], species: str) -> list[tuple[str, str, str]]:
    """Return the estimates for both readings; nothing without charges."""
    cases = (("cation", f"only {species} moves"), ("column", "the whole column moves"))
    return [
        (
            f"polarisation, if {what}",
            measured(
                found.get(f"P1_{reading}_uC_cm2"), found.get(f"P1_{reading}_err_uC_cm2"), "µC/cm²"
            ),
            "estimate",
        )
        for reading, what in (cases if found else ())
    ]


def _charges(found: dict[str, Any]) -> str:
    """Name the Born charges of an estimate and their source."""
    values = ", ".join(
        f"{species} {MINUS if charge < 0 else '+'}{abs(charge):g}"
        for species, charge in (found.get("charges") or {}).items()
    )
    return f"Polarisation with the Born charges {values} ({found.get('source')}), cages at rest."


def sensitivity(result: Any) -> Rows:
    """Return what this image could have shown, and what more electrons would buy."""
    seen, vacant = get(result, "sensitivity") or {}, get(result, "vacancies") or {}
    if not seen:
        return []
    least = seen.get("delta_detectable_A"), seen.get("occupancy_detectable")
    rows = [
        (
            "smallest δ of a plane",
            _with_unit(two_digits(least[0]), "Å") if known(least[0]) else UNKNOWN,
        ),
        ("smallest missing share", two_digits(least[1]) if known(least[1]) else UNKNOWN),
        ("dose for δ = 0.05 Å", _dose(seen, "delta")),
        ("dose for a missing tenth", _dose(seen, "occupancy")),
    ]
    if vacant.get("n_tested"):
        rate = 100 * float(vacant["false_discovery_rate"])
        rows.append(
            (
                f"columns called vacant (false discoveries {rate:g} %)",
                f"{number(vacant['n_vacant'], 6)} of {number(vacant['n_tested'], 6)}",
            )
        )
    curve = get(result, "occupancy_calibration")
    rows.append(
        ("occupancy calibrated by", str(curve) if curve else "nothing: ratio of intensities")
    )
    return rows


def _dose(seen: dict[str, Any], kind: str) -> str:
    """Write a dose as a multiple of the present one, and in electrons where that is known."""
    factor, dose = seen.get(f"{kind}_dose_factor"), seen.get(f"{kind}_dose_e_per_A2")
    if not known(factor):
        return (
            "no dose is enough: columns scatter"
            if known(seen.get("delta_detectable_A"))
            else UNKNOWN
        )
    text = f"{two_digits(factor)} times this one"
    return f"{text} ({number(float(f'{dose:.2g}'), 6)} e/Å²)" if known(dose) else text


def correlation(result: Any) -> Rows:
    """Return the correlation coefficients with their intervals."""
    between = get(result, "correlation", "between_planes") or {}
    within = get(result, "correlation", "within_planes") or {}

    def both(found: dict[str, Any], key: str, bounds: str) -> str:
        value, said = with_interval(found.get(key), found.get(bounds))
        return value if value == UNKNOWN else f"{value} ({said})"

    return [
        ("between planes, Spearman", both(between, "spearman", "spearman_ci")),
        ("between planes, Pearson", both(between, "pearson", "pearson_ci")),
        ("planes", number(between.get("n_planes"))),
        ("within planes, r of δ with cage occupancy", both(within, "r", "ci")),
        ("within planes, p of the permutation test", p_value(within.get("p"))),
        ("columns", number(within.get("n_columns"), 6)),
    ]


def as_sentence(text: str) -> str:
    """Begin a note with a capital letter and end it with a full stop."""
    text = text.strip()
    if not text:
        return ""
    return text[0].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def null_test(result: Any) -> Rows:
    """Return the bulk offset and the outcome of the null test."""
    test, offset = get(result, "null_test") or {}, get(result, "bulk_offset_A") or {}
    return [
        (
            "offset δ in the bulk (subtracted)",
            measured(offset.get("delta"), offset.get("delta_err"), "Å"),
        ),
        (
            "offset δ⊥ in the bulk (subtracted)",
            measured(offset.get("delta_perp"), offset.get("delta_perp_err"), "Å"),
        ),
        ("bulk columns", number(offset.get("n_columns"), 6)),
        ("bulk planes", number(test.get("n_planes"))),
        ("δ in the bulk: χ²", _chi2(result, "delta")),
        ("δ in the bulk: p", p_value(test.get("bulk_delta_p"))),
        ("occupancy in the bulk: χ²", _chi2(result, "occupancy")),
        ("occupancy in the bulk: p", p_value(test.get("bulk_occupancy_p"))),
        ("null test", wording.verdict(test.get("passed"))),
    ]


def _chi2(result: Any, kind: str) -> str:
    """Write a chi2 with its degrees of freedom: one less than the bulk planes with a value."""
    value = get(result, "null_test", f"bulk_{kind}_chi2")
    if not known(value):
        return UNKNOWN
    planes, names = st.table(result, "planes"), {"delta": "delta_A", "occupancy": "occupancy"}
    bulk = planes[planes["N"] >= result.config.analysis.bulk_from]
    count = int(bulk[names[kind]].notna().sum())
    return f"{fixed(value, 1)} for {count - 1} degrees of freedom"


def depths(result: Any) -> list[tuple[str, str, str, str]]:
    """Return depth, interval, method and note of the two depths and their difference."""
    out = []
    for which in ("displacement", "vacancy", "difference"):
        found = get(result, "depth", which) or {}
        method = str(found.get("method") or "")
        note = re.sub(
            r"(?<=less than )([0-9.]+)( A\b)?",
            lambda match: two_digits(match[1]) + (" Å" if match[2] else ""),
            str(found.get("note") or ""),
        )
        how = "; ".join(text for text in (_METHODS.get(method, method), note) if text)
        value, bounds = with_interval(found.get("N"), found.get("ci"))
        out.append((which, value, bounds, how))
    return out


def plane_names(result: Any) -> list[str]:
    """Return the heads of the columns of `planes_rows`."""
    anion = st.anion_species(result) or "anion"
    delta = ["δ (Å)", "noise alone (Å)", "δ⊥ (Å)"]
    return [
        "N",
        "depth (nm)",
        f"{st.displaced_species(result)} columns",
        *delta,
        f"{anion} columns",
        "occupancy",
    ]


def planes_rows(result: Any) -> list[list[str]]:
    """Return the planes table as text."""
    if result.interface is None:
        return []
    planes = tables.ordered(st.table(result, "planes"), "planes")
    return [_plane_row(row) for row in planes.itertuples()]


def _plane_row(row: Any) -> list[str]:
    delta = [
        measured(row.delta_A, row.delta_err_A),
        two_digits(row.delta_noise_A),
        measured(row.delta_perp_A, row.delta_perp_err_A),
    ]
    # A plane without a column has nothing to tell; one with columns but no value cannot tell.
    if row.n_columns == 0:
        delta = [_NOTHING] * 3
    occupancy = _NOTHING if row.n_anions == 0 else measured(row.occupancy, row.occupancy_err)
    return [
        number(row.N, 4),
        fixed(row.depth_nm, 2),
        number(row.n_columns, 6),
        *delta,
        number(row.n_anions, 6),
        occupancy,
    ]


def frames_rows(result: Any) -> list[list[str]]:
    """Return the frames table as text; nothing for a single image."""
    if result.frames is None or len(result.frames) < 2:
        return []
    frames = st.table(result, "frames")
    dose = frames["dose_e_per_A2"].cumsum(skipna=False)
    return [
        [
            str(row.frame),
            fixed(row.shift_x_A, 2),
            fixed(row.shift_y_A, 2),
            _NOTHING if pd.isna(total) else number(total, 6),
            "yes" if row.used else "no",
            fixed(row.correlation, 3),
            measured(row.delta1_A, row.delta1_err_A) if known(row.delta1_A) else _NOTHING,
            measured(row.occupancy1, row.occupancy1_err) if known(row.occupancy1) else _NOTHING,
        ]
        for row, total in zip(frames.itertuples(), dose, strict=True)
    ]


def dose_rows(result: Any) -> list[list[str]]:
    """Return slope, p, change and value at zero dose of each quantity; nothing without a series."""
    found = get(result, "dose_series")
    if not found:
        return []
    anion = st.anion_species(result) or "anion"
    what = {
        "delta1": ("δ(1)", "Å"),
        "occupancy1": (f"{anion} occupancy, N = 1 to 3", ""),
        "depth_displacement": ("N_disp", ""),
        "depth_vacancy": ("N_vac", ""),
    }
    out = []
    for name, (label, unit) in what.items():
        line = found.get(name)
        if not line:
            out.append([label, *[UNKNOWN] * 5])
            continue
        out.append(
            [
                label,
                measured(line["slope"], line["slope_err"], unit),
                p_value(line["p"]),
                measured(line["change"], line["change_err"], unit),
                measured(line["zero_dose"], line["zero_dose_err"], unit),
                with_interval(line["zero_dose"], line["ci"])[1],
            ]
        )
    return out


def quality_rows(result: Any) -> list[tuple[str, str, str, str]]:
    """Return bit, short name, count and meaning of every quality bit."""
    counts = tables.count_quality(st.table(result, "columns"))
    return [
        (str(int(spec.bit)), spec.short, str(counts[spec.short]), spec.meaning)
        for spec in tables.QUALITY_BITS
    ]


def fit_rows(result: Any) -> Rows:
    """Return how the fit went."""
    fit = get(result, "refine") or {}
    source = f", level from the {fit['noise_source']}" if fit.get("noise_source") else ""
    rows = [
        ("noise model", f"{fit.get('noise') or 'unknown'}{source}"),
        ("noise level (signal units)", number(fit.get("noise_level"))),
        ("slope of the residual spectrum", fixed(fit.get("spectrum_slope"), 1)),
        ("residual over noise in the columns' band", number(fit.get("misfit_ratio"))),
        ("misfit", {True: "yes", False: "no"}.get(fit.get("misfit", UNKNOWN), UNKNOWN)),
        ("iterations", number(fit.get("iterations"))),
    ]
    rows += [
        (f"χ² under {k} columns (median)", fixed(v, 2)) for k, v in (fit.get("chi2") or {}).items()
    ]
    rows += [
        (f"Gaussian width of {k}", f"{fixed(v, 3)} Å")
        for k, v in (fit.get("sigma_A") or {}).items()
    ]
    if known(get(result, "unexpected")):
        rows.append(("peaks that no site explains", number(get(result, "unexpected"), 6)))
    return rows


def registration_rows(result: Any) -> Rows:
    """Return how the frames were placed, and whether the placing can be trusted."""
    shifts = get(result, "registration")
    if not shifts:
        return []
    guard = shifts.get("guard") or {}
    error, wrong = guard.get("max_transitivity_px"), guard.get("n_repaired")
    rows = [
        (
            "frames used",
            f"{number(shifts.get('n_used'))} of {number(get(result, 'input', 'n_frames'))}",
        ),
        ("largest shift", _with_unit(fixed(shifts.get("max_shift_A"), 2), "Å")),
        ("largest transitivity error", _pixels(error, result.pixel_size_A)),
    ]
    if known(wrong):
        rows.append(
            (
                "pairs that were a lattice vector off (corrected)",
                f"{number(wrong, 6)} of {number(guard.get('n_pairs'), 6)}",
            )
        )
    rows += _scan_rows(shifts.get("scan"), result.pixel_size_A)
    unclear = {True: "YES: frames may be a lattice vector off", False: "no"}
    margin = f" (lead {number(guard['margin'])})" if known(guard.get("margin")) else ""
    verdict = unclear.get(guard.get("ambiguous", UNKNOWN), UNKNOWN)
    return [*rows, ("placing ambiguous", verdict + margin)]


def _scan_rows(scan: dict[str, Any] | None, pixel_size: tuple[float, float]) -> Rows:
    """Return what was taken out of the frames' scan lines."""
    if not scan:
        return []
    drift, jitter = (max(scan[name]) for name in ("drift_rms_px", "jitter_px"))
    against = "the specimen" if scan["directions"] > 1 else "the mean of the frames"
    return [
        (f"drift within a frame, against {against} (rms)", _pixels(drift, pixel_size)),
        (
            "jitter of the scan lines (rms)",
            _pixels(jitter, pixel_size) if jitter > 0 else "none seen",
        ),
    ]


def _pixels(value: Any, pixel_size: tuple[float, float]) -> str:
    if not known(value):
        return UNKNOWN
    angstrom = float(value) * max(pixel_size)
    return f"{two_digits(value)} px ({two_digits(angstrom)} Å)"


def _with_unit(text: str, unit: str) -> str:
    return text if text == UNKNOWN else f"{text} {unit}"


def input_rows(result: Any) -> Rows:
    """Return what was read and how it is calibrated and oriented."""
    source, lattice = get(result, "input") or {}, get(result, "lattice") or {}
    face = get(result, "interface")
    rows = [
        ("files", ", ".join(map(str, source.get("path") or []))),
        ("kind", str(source.get("kind") or "unknown")),
        ("shape", " x ".join(map(str, source.get("shape") or []))),
        ("SHA-256", str(source.get("sha256") or "unknown")),
        ("pixel size (x, y)", " x ".join(number(s, 5) for s in result.pixel_size_A) + " Å"),
        ("structure", result.projection.name),
        ("seen along", st.direction_name(result.projection.zone_axis)),
        ("columns are", str(lattice.get("contrast") or "unknown")),
        ("lattice u, v", f"{fixed(lattice.get('u_A'), 4)} Å, {fixed(lattice.get('v_A'), 4)} Å"),
        ("angle of u and v", f"{fixed(lattice.get('angle_deg'), 2)}°"),
        ("rotation", f"{fixed(lattice.get('rotation_deg'), 1)}°"),
    ]
    if face:
        rows += [
            ("film side", str(face.get("side") or "unknown")),
            ("interface position ±", f"{two_digits(face.get('position_err_A'))} Å"),
            ("roughness", f"{fixed(face.get('roughness_planes'), 1)} planes"),
            ("steps of the interface", _steps(face.get("steps") or [])),
            ("interface found by", "the user" if face.get("stated") else "crystallinity"),
        ]
    return rows


def _steps(steps: list[dict[str, Any]]) -> str:
    """Name the steps from left to right, or from top to bottom, in planes."""
    return ", ".join(f"{s['planes']:+d}".replace("-", "\N{MINUS SIGN}") for s in steps) or "none"
