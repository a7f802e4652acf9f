"""The content of summary.json, and the warnings that a run deserves."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from stemdisp import __version__, statistics, tables
from stemdisp._provenance import settings_of, sha256_of
from stemdisp.damage import judge_damage
from stemdisp.interpret import interpret_displacement
from stemdisp.load import dose_of
from stemdisp.polarisation import charges_of
from stemdisp.response import CATION_F, is_calibrated, thickness_range
from stemdisp.sensitivity import sensitivity
from stemdisp.vacancies import count_vacancies

if TYPE_CHECKING:
    from hyperspy.signals import Signal2D

    from stemdisp._acquire import Acquired
    from stemdisp.fit import Fit
    from stemdisp.register import Registration
    from stemdisp.result import Result
    from stemdisp.sublattice import Displacements

SCHEMA = 1
# Residual power in the columns' band over that of the noise. Real columns are not Gaussians:
# above this the misfit, not the noise, decides the accuracy.
MISFIT = 3.0
# Share of the bulk's offset that tilt leaves near the interface (multislice; docs/systematics.md).
TILT_LEFT = 0.7
LIBRARIES = ("numpy", "scipy", "pandas", "scikit-image", "hyperspy", "rosettasciio", "numba")


def build_summary(
    result: Result,
    *,
    fit: Fit,
    displacements: Displacements,
    acquired: Acquired,
    source: Signal2D,
    kind: str,
    from_file: bool,
    warnings: list[dict[str, str]],
) -> dict[str, Any]:
    """Collect every number of summary.json.

    Parameters
    ----------
    result : Result
        Complete but for its summary.
    fit : Fit
        The joint fit.
    displacements : Displacements
        Bulk offset and how it was found.
    acquired : Acquired
        For stacks.
    source : Signal2D
        What was loaded.
    kind : str
        image, stack or dpc-segments.
    from_file : bool
        Whether `source` came from the files of the configuration.
    warnings : list of dict
        Those of earlier stages.

    Returns
    -------
    dict
    """
    offset = dict(displacements.offset)
    seen = _sensitivity(result, _dose(source, kind, acquired.registration))
    nulls = statistics.null_test(result.planes, bulk_from=result.config.analysis.bulk_from)
    summary: dict[str, Any] = {
        "schema": SCHEMA,
        "stemdisp": __version__,
        "input": _input(source, kind, result.config.input.files if from_file else ()),
        "configuration": _settings(result),
        "corrections": _corrections(result),
        "pixel_size_A": list(result.pixel_size_A),
        "lattice": _lattice(result),
        "interface": _interface(result),
        "bulk_offset_A": offset,
        "decay": _decay(result, seen),
        "depth": _depths(result, seen),
        "correlation": None
        if result.correlation is None
        else {
            "between_planes": result.correlation.between_planes,
            "within_planes": result.correlation.within_planes,
        },
        "null_test": nulls,
        "vacancies": _vacancies(result),
        "sensitivity": seen,
        "occupancy_calibration": None if result.curve is None else result.curve.source,
        "polarisation": _polarisation(result),
        "dose_series": _dose_series(result),
        "interpretation": _interpretation(result),
        "refine": _refine(result, fit),
        "dpc": _dpc(acquired),
        "registration": _registration(acquired.registration, np.array(result.pixel_size_A)),
        "quality": tables.count_quality(result.columns),
        "unexpected": 0 if result.unexpected is None else len(result.unexpected),
        "warnings": warnings + _warnings(result, fit, displacements, nulls),
        "timings_s": {},
        "versions": {name: metadata.version(name) for name in LIBRARIES},
    }
    found = summary["dose_series"]
    if found is not None and found["verdict"] == "seen":
        text = f"the specimen changes under the beam; {found['text'].partition(': ')[2]}"
        summary["warnings"].append({"code": "damage-seen", "message": text})
    return summary


def _settings(result: Result) -> dict[str, Any]:
    """Give the settings; corrections that came from no file count with their content."""
    settings, by_hand = settings_of(result.config), result.corrections
    if by_hand is not None:
        settings["files"].setdefault("input.corrections", by_hand.sha256())
    return settings


def _corrections(result: Result) -> dict[str, Any] | None:
    """How many corrections of which kind were made, and the checksum of what says so."""
    if result.corrections is None:
        return None
    counts: dict[str, Any] = dict(result.corrections.count())
    counts["interface"] = bool(counts["interface"])
    return {
        "n": len(result.corrections.steps),
        **counts,
        "sha256": result.corrections.sha256(),
        "text": result.corrections.describe(),
    }


def _dose_series(result: Result) -> dict[str, Any] | None:
    series, level = result.dose_series, result.config.analysis.confidence
    if series is None or series.empty or result.frames is None:
        return None
    return judge_damage(series, doses=result.frames["dose_e_per_A2"].to_numpy(), confidence=level)


def _input(source: Signal2D, kind: str, files: tuple[str, ...]) -> dict[str, Any]:
    paths = list(files)
    shape = [int(n) for n in source.data.shape]
    return {
        "path": paths,
        "title": str(source.metadata.get_item("General.title", default="")),
        "kind": kind,
        "shape": shape,
        "n_frames": _n_scans(source, kind),
        "sha256": sha256_of(paths) if paths else None,
    }


def _lattice(result: Result) -> dict[str, float | str]:
    size = np.array(result.pixel_size_A)
    u, v = result.lattice.u_px * size, result.lattice.v_px * size
    cosine = float(u @ v / (np.hypot(*u) * np.hypot(*v)))
    return {
        "u_A": float(np.hypot(*u)),
        "v_A": float(np.hypot(*v)),
        "angle_deg": float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))),
        # image y points down; positive angles are counter-clockwise to the eye
        "rotation_deg": float(np.degrees(np.arctan2(-u[1], u[0]))),
        "margin": float(result.lattice.margin),
        "contrast": "bright" if result.lattice.sign > 0 else "dark",
    }


def _interface(result: Result) -> dict[str, Any] | None:
    face = result.interface
    if face is None:
        return None
    return {
        "side": face.side,
        "position_px": [float(x) for x in face.position_px],
        "normal": [float(x) for x in face.normal],
        "position_err_A": face.position_err_A,
        "roughness_planes": face.roughness_planes,
        "steps": [
            {"x_px": x, "y_px": y, "planes": int(h)}
            for (x, y), h in zip(
                face.step_positions(result.lattice).tolist(), np.diff(face.offsets), strict=True
            )
        ],
        "stated": face.stated,
        "lead": face.lead,
        "second": None
        if face.far is None and face.beyond is None
        else {
            "of": "this crystal" if face.far is not None else "another crystal",
            "side": (face.far or face.beyond or face).side,
        },
        "n_planes": int(result.planes["N"].max()),
    }


def _decay(result: Result, seen: dict[str, Any] | None) -> dict[str, Any] | None:
    fit = result.decay
    if fit is None:
        return None
    names = ("delta0_A", "delta0_err_A", "delta0_ci_A", "xi_planes", "xi_ci_planes", "xi_nm")
    more = ("xi_ci_nm", "c_A", "c_err_A", "model", "note", "p")
    out = {name: _plain(getattr(fit, name)) for name in (*names, *more)}
    if fit.model == "none":
        out["note"] = _with_dose(out["note"], seen, "delta")
    return out


def _depths(result: Result, seen: dict[str, Any] | None) -> dict[str, Any] | None:
    if result.depths is None:
        return None
    out = {}
    for name, kind in (("displacement", "delta"), ("vacancy", "occupancy"), ("difference", "")):
        depth = getattr(result.depths, name)
        out[name] = {k: _plain(getattr(depth, k)) for k in ("N", "ci", "method", "note", "p")}
        if kind and depth.N == 0:
            out[name]["note"] = _with_dose(depth.note, seen, kind)
    return out


def _with_dose(note: str, seen: dict[str, Any] | None, kind: str) -> str:
    """Add to a note the dose that would show little, where nothing is seen."""
    if seen is None:
        return note
    what = {"delta": "0.05 A in one plane", "occupancy": "a missing tenth in one plane"}[kind]
    factor = seen[f"{kind}_dose_factor"]
    if factor is None:
        known = seen["delta_detectable_A" if kind == "delta" else "occupancy_detectable"]
        more = f"no dose would show {what}: columns scatter too much" if known else ""
    elif factor <= 1.0:
        more = f"{what} would have been seen at this dose"
    else:
        more = f"{what} needs {factor:.2g} times this dose"
    return "; ".join(text for text in (note, more) if text)


def _plain(value: Any) -> Any:
    """Tuples to lists, numpy scalars to Python's."""
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


def _interpretation(result: Result) -> dict[str, Any]:
    crystal = result.config.crystal
    species = crystal.displaced
    site = result.projection.sites_of(species)[0]
    mixed = [e for e in site.elements if e == "O" and e != species]
    first = result.planes[result.planes["N"] == 1]
    delta = float(first["delta_A"].iloc[0]) if len(first) else np.nan
    error = float(first["delta_err_A"].iloc[0]) if len(first) else np.nan
    return interpret_displacement(
        delta,
        error,
        species=species,
        mixed_with=mixed[0] if mixed else "",
        thickness_nm=result.config.specimen.thickness_nm,
        calibrated=is_calibrated(crystal.structure, crystal.zone_axis),
    )


def _vacancies(result: Result) -> dict[str, Any] | None:
    return count_vacancies(result.columns) if "vacancy_q" in result.columns else None


def _dose(source: Signal2D, kind: str, registration: Registration | None) -> float | None:
    """Electrons per square angstrom that made the image; None where the data do not say."""
    dose = dose_of(source, _n_scans(source, kind))
    if dose is None:
        return None
    return float(np.sum(dose if registration is None else dose[registration.used]))


def _n_scans(source: Signal2D, kind: str) -> int:
    """Count the scans of the specimen: all segments of one count the same electrons."""
    several = source.data.ndim > (3 if kind == "dpc-segments" else 2)
    return int(source.data.shape[0]) if several else 1


def _sensitivity(result: Result, dose: float | None) -> dict[str, Any] | None:
    if result.interface is None:
        return None
    analysis = result.config.analysis
    return sensitivity(
        result.planes,
        confidence=analysis.confidence,
        n_candidates=analysis.bulk_from - 1,
        dose=dose,
        curve=result.curve,
    )


def _polarisation(result: Result) -> dict[str, Any] | None:
    """Charges, their source and the values of plane 1; None where nothing is displaced or known."""
    crystal = result.config.crystal
    charges = charges_of(crystal.structure, crystal.born_charges)
    first = result.planes[result.planes["N"] == 1]
    if charges is None or result.interface is None or first.empty:
        return None
    out: dict[str, Any] = {"charges": dict(charges.values), "source": charges.source}
    for reading in ("cation", "column"):
        for name in (f"P_{reading}_uC_cm2", f"P_{reading}_err_uC_cm2"):
            value = float(first[name].iloc[0])
            out[name.replace("P_", "P1_")] = value if np.isfinite(value) else None
    return out


def _refine(result: Result, fit: Fit) -> dict[str, Any]:
    columns = result.columns
    good = tables.usable(columns)
    chi2 = columns[good].groupby("species", sort=False)["chi2"].median()
    return {
        "noise": fit.noise.kind,
        "noise_level": fit.noise.level,
        "noise_source": fit.noise.source,
        "spectrum_slope": fit.noise.slope,
        "chi2": {k: float(v) for k, v in chi2.items()},
        "sigma_A": {k: v for k, v in fit.sigma_A.items() if k in set(columns["species"])},
        "misfit": bool(fit.misfit > MISFIT),
        "misfit_ratio": fit.misfit,
        "iterations": fit.iterations,
    }


def _registration(registration: Registration | None, size: np.ndarray) -> dict[str, Any] | None:
    if registration is None:
        return None
    shifts = registration.shifts_px[registration.used]
    return {
        "origin_px": [int(x) for x in registration.origin_px],
        "n_used": int(registration.n_used),
        "max_shift_A": float(np.max(np.hypot(*(shifts * size).T))),
        "guard": {k: _plain(v) for k, v in registration.guard.items()},
        "scan": _scan(registration.scan),
    }


def _scan(scan: dict[str, Any]) -> dict[str, Any] | None:
    """Distortions that were taken out of the frames; None where none were looked for."""
    if not scan:
        return None
    drift = scan["drift_px"][np.isfinite(scan["drift_px"]).all(axis=1)]
    return {
        "drift_rms_px": [float(x) for x in np.sqrt(np.mean(drift**2, axis=0))],
        "jitter_px": [float(x) for x in scan["jitter_px"]],
        "directions": int(scan["directions"]),
    }


def _dpc(acquired: Acquired) -> dict[str, Any] | None:
    """How segments became an image; None for an image that was one from the beginning."""
    found = acquired.image.metadata.get_item("stemdisp.dpc", default=None)
    if found is None:
        return None
    return {name: _plain(value) for name, value in found.as_dictionary().items()}


def _systematic(result: Result, displacements: Displacements) -> list[tuple[str, str]]:
    """Warn where what tilt and thickness do may exceed the error bars."""
    found = []
    config = result.config
    planes = result.planes
    if result.interface is not None and displacements.bulk != "none":
        first = planes.loc[planes["N"] == 1, "delta_err_A"].to_numpy(dtype=float)
        offset = displacements.offset
        left = TILT_LEFT * float(np.hypot(offset["delta"], offset["delta_perp"]))
        if first.size and left > 2.0 * first[0]:
            found.append(
                (
                    "tilt-offset",
                    f"the bulk is off its symmetry by {left / TILT_LEFT:.2g} Å, as tilt makes it; "
                    f"up to {left:.2g} A of that may be left in plane N = 1 after it is taken off, "
                    "which is more than its error bar",
                )
            )
    thickness = config.specimen.thickness_nm
    crystal = config.crystal
    if not isinstance(thickness, str) and is_calibrated(crystal.structure, crystal.zone_axis):
        most = thickness_range(CATION_F)[1]
        measured = "occupancy" in planes and planes["occupancy"].notna().any()
        if thickness > most and measured and result.curve is None:
            found.append(
                (
                    "occupancy-uncalibrated",
                    f"at {thickness:g} nm the intensity of oxygen columns hardly depends on how "
                    f"much oxygen there is (calibrated up to {most:g} nm): the occupancy is a "
                    "ratio of intensities, not a share of atoms",
                )
            )
    return found


def _warnings(
    result: Result, fit: Fit, displacements: Displacements, nulls: dict[str, Any]
) -> list[dict[str, str]]:
    found: list[tuple[str, str]] = []
    if result.interface is not None and displacements.bulk != "planes":
        text = {
            "deepest": "the image does not reach the bulk plane that was asked for; the three "
            "deepest planes serve as reference, and may still be displaced",
            "none": "no bulk planes are visible: displacements are not corrected for specimen tilt",
        }[displacements.bulk]
        found.append(("bulk-shallow", text))
    found += _systematic(result, displacements)
    if fit.misfit > MISFIT:
        found.append(
            (
                "misfit",
                f"the residual in the columns' band is {fit.misfit:.1f} times the noise: columns "
                "are not perfect Gaussians here, and errors from noise alone, as those of single "
                "columns, are too small; trust errors of means, which hold the scatter between "
                "columns",
            )
        )
    expected = {"idpc": (-3.2, -1.0), "white": (-1.0, 1.0), "poisson": (-1.0, 1.0)}[fit.noise.kind]
    if not expected[0] <= fit.noise.slope <= expected[1]:
        found.append(
            (
                "noise-model",
                f"the noise spectrum goes as f^{fit.noise.slope:.1f}, which does not fit the "
                f"noise model {fit.noise.kind!r} in use; error bars may be off",
            )
        )
    if nulls.get("passed") is False:
        found.append(("bulk-not-null", "displacement or occupancy still varies in the bulk"))
    counts = tables.count_quality(result.columns)
    for spec in tables.QUALITY_BITS:
        if spec.bit in (tables.Quality.WIDTH_AT_BOUND, tables.Quality.NOT_CONVERGED):
            if counts[spec.short]:
                found.append(
                    (
                        str(spec.bit.name).lower().replace("_", "-"),
                        f"{counts[spec.short]} columns: {spec.short}",
                    )
                )
    return [{"code": code, "message": message} for code, message in found]
