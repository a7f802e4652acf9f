"""The page: what the template needs as plain strings, and the writing of the directory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from stemdisp import _plot_style as st
from stemdisp import tables
from stemdisp.report import figures, wording
from stemdisp.report.files import TEXT, config_toml, write_files
from stemdisp.report.wording import get, interval, measured, number

_FOLDER = Path(__file__).parent
Rows = list[tuple[str, str]]


def write(result: Any, directory: Path) -> Path:
    """Write every file of a run: the page, the figures, summary.json and the tables.

    Parameters
    ----------
    result : Result
        A finished run.
    directory : Path
        Where to; made if absent. Files of the same names are replaced.

    Returns
    -------
    Path
        The page, ``report.html``.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    write_files(result, directory)
    drawn = figures.draw_figures(result, directory)
    page = directory / "report.html"
    page.write_text(render(result, drawn), **TEXT)
    return page


def render(result: Any, drawn: list[figures.Figure]) -> str:
    """Return the page as HTML.

    Parameters
    ----------
    result : Result
        A finished run.
    drawn : list of Figure
        Its figures.

    Returns
    -------
    str
        A complete document without scripts; all text is escaped.
    """
    return _render("template.html.j2", context(result, drawn))


def repr_html(result: Any) -> str:
    """Return a small view of a run for a notebook: the answer, a table and one figure.

    Parameters
    ----------
    result : Result
        A finished run.

    Returns
    -------
    str
        HTML without scripts; all text is escaped.
    """
    return _render(
        "notebook.html.j2",
        {
            "title": result.projection.name,
            "sentences": wording.sentences(result),
            "cards": cards(result),
            "figure": figures.decay_uri(result),
        },
    )


def _render(name: str, values: dict[str, Any]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["symbols"] = _symbols
    return environment.get_template(name).render(values)


def _symbols(text: str) -> Any:
    """Escape a text, set the indices of N_disp and N_vac low, keep values and errors together."""
    from markupsafe import Markup, escape

    out = str(escape(text)).replace(" \N{PLUS-MINUS SIGN} ", "\N{NBSP}\N{PLUS-MINUS SIGN}\N{NBSP}")
    out = re.sub(r"(?<=\d) (?=Å)", "\N{NBSP}", out)
    for index in ("disp", "vac"):
        out = out.replace(f"N_{index}", f"N<sub>{index}</sub>")
    return Markup(out)


def context(result: Any, drawn: list[figures.Figure]) -> dict[str, Any]:
    """Collect what the template shows, as strings; the template computes nothing.

    Parameters
    ----------
    result : Result
        A finished run.
    drawn : list of Figure
        Its figures.

    Returns
    -------
    dict
        Names of the template.
    """
    has_depth = result.interface is not None
    numbered = [(i, figure) for i, figure in enumerate(drawn, start=1)]
    sections = ("answer", "correlation", "counting", "checks")
    return {
        "title": f"Displacements in {result.projection.name}",
        "source": ", ".join(map(str, get(result, "input", "path") or ["unknown input"])),
        "warnings": [
            {"code": str(w.get("code", "")), "message": str(w.get("message", ""))}
            for w in get(result, "warnings") or []
        ],
        "sentences": wording.sentences(result),
        "limits": wording.limits(result),
        "cards": cards(result),
        "has_depth": has_depth,
        "figures": {s: [f for f in numbered if f[1].section == s] for s in sections},
        "interpretation": interpretation(result),
        "correlation": correlation(result),
        "null_test": null_test(result),
        "depths": depths(result),
        "planes": planes_rows(result),
        "quality": quality_rows(result),
        "n_columns": len(st.table(result, "columns")),
        "fit": fit_rows(result),
        "input": input_rows(result),
        "versions": _pairs(get(result, "versions")),
        "timings": [(k, f"{number(v)} s") for k, v in (get(result, "timings_s") or {}).items()],
        "stemdisp": str(get(result, "stemdisp") or "unknown version"),
        "config": config_toml(result.config),
        "command": "stemdisp run run.toml --output results",
        "displaced": st.displaced_species(result),
        "anion": st.anion_species(result) or "anion",
        "cage": str(result.config.crystal.cage),
        "cage_cation": str(result.config.crystal.cage).split("/")[0],
        "directions": [
            st.direction_name(w) for w in (result.projection.u_uvw, result.projection.v_uvw)
        ],
        "measured": str(get(result, "interpretation", "measured") or "column"),
        "bulk_from": result.config.analysis.bulk_from,
        "percent": wording.percent(result),
        "noise": str(get(result, "refine", "noise") or "unknown"),
        "model": str(get(result, "decay", "model") or wording.UNKNOWN),
    }


def cards(result: Any) -> list[dict[str, str]]:
    """Return the key numbers: what, value, and the interval or error beneath."""
    if result.interface is None:
        _, scatter, count = wording.spread(result, "delta_A")
        _, across_scatter, _ = wording.spread(result, "delta_perp_A")
        mean, across = (wording.mean_with_error(result, n) for n in ("delta_A", "delta_perp_A"))
        return [
            _card("mean δ", mean, "pm", f"s.d. {number(scatter)} pm, n = {count}"),
            _card("mean δ⊥", across, "pm", f"s.d. {number(across_scatter)} pm"),
        ]
    row = wording.first_plane(result)
    n = "1" if row is None else str(int(row["N"]))
    value = wording.UNKNOWN if row is None else measured(row["delta_A"], row["delta_err_A"])
    count = "" if row is None else f"total s.e., n = {int(row['n_columns'])}"
    level = wording.percent(result)
    out = [
        _card(f"δ({n})", value, "Å", count),
        _card(
            "decay length ξ",
            number(get(result, "decay", "xi_planes")),
            "planes",
            f"{level}: {interval(get(result, 'decay', 'xi_ci_planes'))}",
        ),
    ]
    for label, which in (
        ("N_disp", "displacement"),
        ("N_vac", "vacancy"),
        ("N_vac \N{MINUS SIGN} N_disp", "difference"),
    ):
        depth = get(result, "depth", which) or {}
        out.append(
            _card(label, number(depth.get("N")), "planes", f"{level}: {interval(depth.get('ci'))}")
        )
    return out


def _card(label: str, value: str, unit: str, note: str) -> dict[str, str]:
    unit = "" if value == wording.UNKNOWN else unit
    return {"label": label, "value": value, "unit": unit, "note": note}


def _pairs(section: Any) -> Rows:
    return [(str(key), str(value)) for key, value in (section or {}).items()]


def interpretation(result: Any) -> dict[str, Any]:
    """Return the two readings of the measured displacement side by side."""
    found = get(result, "interpretation") or {}
    row = wording.first_plane(result)
    value = wording.UNKNOWN if row is None else measured(row["delta_A"], row["delta_err_A"], "Å")
    species = st.displaced_species(result)
    what = found.get("measured") or "column"
    factor = wording.UNKNOWN
    if wording.known(found.get("f")):
        factor = measured(found.get("f"), found.get("f_err"))

    def angstrom(key: str) -> str:
        text = number(found.get(key))
        return text if text == wording.UNKNOWN else f"{text} Å"

    return {
        "rows": [
            (f"{what} in the image", value, "measured"),
            (
                f"{species} atoms, if only {species} moves",
                angstrom("delta1_cation_only_A"),
                "interpretation",
            ),
            (
                f"{species} atoms, if the whole column moves",
                angstrom("delta1_whole_column_A"),
                "interpretation",
            ),
        ],
        "factor": factor,
        "note": str(found.get("note") or ""),
    }


def correlation(result: Any) -> Rows:
    """Return the correlation coefficients with their intervals."""
    between = get(result, "correlation", "between_planes") or {}
    within = get(result, "correlation", "within_planes") or {}

    def with_interval(found: dict[str, Any], key: str, bounds: str) -> str:
        text = number(found.get(key), 2)
        return text if text == wording.UNKNOWN else f"{text} ({interval(found.get(bounds), 2)})"

    return [
        ("between planes, Spearman", with_interval(between, "spearman", "spearman_ci")),
        ("between planes, Pearson", with_interval(between, "pearson", "pearson_ci")),
        ("planes", number(between.get("n_planes"))),
        ("within planes, r of δ with cage occupancy", with_interval(within, "r", "ci")),
        ("within planes, p of the permutation test", number(within.get("p"), 2)),
        ("columns", number(within.get("n_columns"), 6)),
    ]


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
        ("δ in the bulk: χ² per degree of freedom", number(test.get("bulk_delta_chi2"))),
        ("δ in the bulk: p", number(test.get("bulk_delta_p"), 2)),
        ("occupancy in the bulk: p", number(test.get("bulk_occupancy_p"), 2)),
        ("bulk planes", number(test.get("n_planes"))),
        ("null test", wording.verdict(test.get("passed"))),
    ]


def depths(result: Any) -> list[tuple[str, str, str, str]]:
    """Return depth, interval, method and note of the two depths and their difference."""
    out = []
    for which in ("displacement", "vacancy", "difference"):
        found = get(result, "depth", which) or {}
        how = "; ".join(str(found[k]) for k in ("method", "note") if found.get(k))
        out.append((which, number(found.get("N")), interval(found.get("ci")), how))
    return out


def planes_rows(result: Any) -> list[list[str]]:
    """Return the planes table as text."""
    if result.interface is None:
        return []
    return [
        [
            number(row.N, 4),
            _fixed(row.depth_nm, 2),
            number(row.n_columns, 6),
            measured(row.delta_A, row.delta_err_A),
            number(row.delta_noise_A, 2),
            measured(row.delta_perp_A, row.delta_perp_err_A),
            number(row.n_anions, 6),
            measured(row.occupancy, row.occupancy_err),
        ]
        for row in tables.ordered(st.table(result, "planes"), "planes").itertuples()
    ]


def _fixed(value: Any, places: int) -> str:
    return f"{value:.{places}f}" if wording.known(value) else wording.UNKNOWN


def quality_rows(result: Any) -> list[tuple[str, str, str, str]]:
    """Return bit, short name, count and meaning of every quality bit."""
    counts = tables.count_quality(st.table(result, "columns"))
    return [
        (str(int(spec.bit)), spec.short, str(counts[spec.short]), spec.meaning)
        for spec in tables.QUALITY_BITS
    ]


def fit_rows(result: Any) -> Rows:
    """Return how the fit and the registration went."""
    fit, shifts = get(result, "refine") or {}, get(result, "registration")
    rows = [
        ("noise model", str(fit.get("noise") or "unknown")),
        ("noise level (signal units)", number(fit.get("noise_level"))),
        ("slope of the residual spectrum", number(fit.get("spectrum_slope"))),
        ("misfit", {True: "yes", False: "no"}.get(fit.get("misfit"), wording.UNKNOWN)),
        ("iterations", number(fit.get("iterations"))),
    ]
    rows += [(f"χ² of {k} columns", number(v)) for k, v in (fit.get("chi2") or {}).items()]
    rows += [
        (f"Gaussian width of {k}", f"{number(v)} Å") for k, v in (fit.get("sigma_A") or {}).items()
    ]
    if shifts:
        total = get(result, "input", "n_frames")
        rows += [
            ("frames used", f"{number(shifts.get('n_used'))} of {number(total)}"),
            ("largest shift", f"{number(shifts.get('max_shift_A'))} Å"),
        ]
    return rows


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
        ("lattice u, v", f"{number(lattice.get('u_A'), 5)} Å, {number(lattice.get('v_A'), 5)} Å"),
        ("angle between u and v", f"{number(lattice.get('angle_deg'), 5)}°"),
        ("rotation", f"{number(lattice.get('rotation_deg'))}°"),
    ]
    if face:
        rows += [
            ("film side", str(face.get("side") or "unknown")),
            ("error of the interface position", f"{number(face.get('position_err_A'))} Å"),
            ("roughness", f"{number(face.get('roughness_planes'))} planes"),
        ]
    return rows
