"""The page: what the template needs as plain strings, and the writing of the directory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from stemdisp import _plot_style as st
from stemdisp._plot_numbers import (
    UNKNOWN,
    fixed,
    known,
    measured,
    seen_above,
    two_digits,
    with_interval,
)
from stemdisp._printable import printable
from stemdisp.config import with_input
from stemdisp.corrections import FILE_NAME
from stemdisp.report import figures, interactive, means, rows, wording
from stemdisp.report.files import TEXT, config_toml, write_files
from stemdisp.report.wording import get

_FOLDER = Path(__file__).parent


def write(result: Any, directory: Path, *, progress: bool = False) -> Path:
    """Write every file of a run: the page, the figures, summary.json and the tables.

    Parameters
    ----------
    result : Result
        A finished run.
    directory : Path
        Where to; made if absent. Files of the same names are replaced.
    progress : bool
        Show a progress bar (on a terminal only).

    Returns
    -------
    Path
        The page, ``report.html``.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    write_files(result, directory)
    drawn = figures.draw_figures(result, directory, progress=progress)
    page = directory / "report.html"
    page.write_text(render(result, drawn, view=interactive.build(result)), **TEXT)
    return page


def render(
    result: Any, drawn: list[figures.Figure], *, view: interactive.View | None = None
) -> str:
    """Return the page as HTML.

    Parameters
    ----------
    result : Result
        A finished run.
    drawn : list of Figure
        Its figures.
    view : View, optional
        What can be zoomed and asked; without it the page has no scripts.

    Returns
    -------
    str
        A complete document; all text is escaped.
    """
    return _render("template.html.j2", context(result, drawn) | {"view": view})


def repr_html(result: Any) -> str:
    """Return a small view of a run for a notebook: the answer, its figures, the planes.

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
            "warnings": _warnings(result),
            "figures": figures.notebook_figures(result),
            "planes": rows.planes_rows(result),
            "plane_names": rows.plane_names(result),
        },
    )


def _config(result: Any) -> str:
    """Write the configuration; corrections are those of the copy in the output."""
    if result.corrections is None:
        return config_toml(result.config)
    return config_toml(with_input(result.config, corrections=FILE_NAME))


def _render(name: str, values: dict[str, Any]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters["symbols"] = _symbols
    return environment.get_template(name).render(values)


def _shown(value: Any) -> Any:
    """Show what would turn, end or hide the text around it; markup is the package's own."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return "\n".join(map(printable, value.split("\n")))


def _symbols(text: str) -> Any:
    """Escape a text, set the indices of N_disp and N_vac low, keep values and errors together."""
    from markupsafe import Markup, escape

    out = str(escape(_shown(text))).replace(
        " \N{PLUS-MINUS SIGN} ", "\N{NBSP}\N{PLUS-MINUS SIGN}\N{NBSP}"
    )
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
    sections = ("answer", "correlation", "counting", "dose", "checks")
    return {
        "title": f"Displacements in {result.projection.name}",
        "source": ", ".join(map(str, get(result, "input", "path") or ["unknown input"])),
        "warnings": _warnings(result),
        "sentences": wording.sentences(result),
        "limits": wording.limits(result),
        "cards": cards(result),
        "has_depth": has_depth,
        "figures": {s: [f for f in numbered if f[1].section == s] for s in sections},
        "interpretation": rows.interpretation(result),
        "correlation": rows.correlation(result),
        "null_test": rows.null_test(result),
        "depths": rows.depths(result),
        "sensitivity": rows.sensitivity(result),
        "planes": rows.planes_rows(result),
        "plane_names": rows.plane_names(result),
        "frames": rows.frames_rows(result),
        "dose": rows.dose_rows(result),
        "dose_text": wording.damage(result),
        "dose_step": str(get(result, "dose_series", "slope_per") or "").replace("A^2", "Å²"),
        "quality": rows.quality_rows(result),
        "n_columns": len(st.table(result, "columns")),
        "fit": rows.fit_rows(result),
        "registration": rows.registration_rows(result),
        "input": rows.input_rows(result),
        "versions": _pairs(get(result, "versions")),
        "timings": [(k, f"{fixed(v, 1)} s") for k, v in (get(result, "timings_s") or {}).items()],
        "stemdisp": str(get(result, "stemdisp") or "unknown version"),
        "config": _config(result),
        "corrections": str(get(result, "corrections", "text") or ""),
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
        "seed": result.config.analysis.seed,
        "percent": wording.percent(result),
        "noise": str(get(result, "refine", "noise") or "unknown"),
        "model": str(get(result, "decay", "model") or UNKNOWN),
    }


def _warnings(result: Any) -> list[dict[str, str]]:
    return [
        {"code": str(w.get("code", "")), "message": str(w.get("message", ""))}
        for w in get(result, "warnings") or []
    ]


def cards(result: Any) -> list[dict[str, str]]:
    """Return the key numbers: what, value, and the interval or error beneath."""
    if result.interface is None:
        return _cards_without_interface(result)
    row = wording.first_plane(result)
    n = "1" if row is None else str(int(row["N"]))
    value = UNKNOWN if row is None else measured(row["delta_A"], row["delta_err_A"])
    count = "" if row is None else f"total s.e., n = {int(row['n_columns'])}"
    level = wording.percent(result)
    planes, bounds = with_interval(
        get(result, "decay", "xi_planes"), get(result, "decay", "xi_ci_planes")
    )
    out = [
        _card(f"δ({n})", value, "Å", count),
        _card("decay length ξ", planes, "planes", f"{level}: {bounds}"),
    ]
    for label, which in (
        ("N_disp", "displacement"),
        ("N_vac", "vacancy"),
        ("N_vac \N{MINUS SIGN} N_disp", "difference"),
    ):
        depth = get(result, "depth", which) or {}
        planes, bounds = with_interval(depth.get("N"), depth.get("ci"))
        out.append(_card(label, planes, "planes", f"{level}: {bounds}{_seen(result, which)}"))
    return out


def _seen(result: Any, which: str) -> str:
    limit = seen_above(result, which)
    unit = " Å" if which == "displacement" else ""
    return f"; seen above {two_digits(limit)}{unit}" if known(limit) else ""


def _cards_without_interface(result: Any) -> list[dict[str, str]]:
    mean, across = (means.mean_with_error(result, n) for n in ("delta_A", "delta_perp_A"))
    length, direction = means.mean_vector(result)
    names = [st.direction_name(w) for w in (result.projection.u_uvw, result.projection.v_uvw)]
    spread = [means.scatter(result, n) for n in ("delta_A", "delta_perp_A")]
    count = means.spread(result, "delta_A")[2]
    return [
        _card(f"mean δ along {names[0]}", mean, "pm", f"s.d. {spread[0]} pm, n = {count}"),
        _card(f"mean δ⊥ along {names[1]}", across, "pm", f"s.d. {spread[1]} pm"),
        _card("mean vector", length, "pm", direction),
    ]


def _card(label: str, value: str, unit: str, note: str) -> dict[str, str]:
    unit = "" if value == UNKNOWN else unit
    return {"label": label, "value": value, "unit": unit, "note": note}


def _pairs(section: Any) -> rows.Rows:
    return [(str(key), str(value)) for key, value in (section or {}).items()]
