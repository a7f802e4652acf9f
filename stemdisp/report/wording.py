"""The words of the report: numbers with errors, the answer in three sentences, the limits.

Everything is read from the summary. A value that is null or not a number becomes "cannot tell".
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from stemdisp import _plot_style as st
from stemdisp import tables
from stemdisp._plot_numbers import (
    MINUS,
    UNKNOWN,
    ends,
    error_places,
    interval,
    known,
    measured,
    number,
    p_equals,
    seen_above,
    two_digits,
    with_interval,
)
from stemdisp.report import means

DELTA, XI = "δ", "ξ"


def get(result: Any, *names: str) -> Any:
    """Walk down the summary; None where any level is absent or null."""
    return st.section(result, *names)


def percent(result: Any) -> str:
    """Write the confidence of the run as ``95 %``."""
    return f"{100 * float(result.config.analysis.confidence):g} %"


def first_plane(result: Any) -> pd.Series | None:
    """Return the row of the outermost plane that has a displacement."""
    planes = st.table(result, "planes")
    planes = planes[planes["delta_A"].notna()].sort_values("N")
    return planes.iloc[0] if len(planes) else None


def sentences(result: Any) -> list[str]:
    """Return the answer in three sentences with numbers, and a fourth on a series' damage.

    Parameters
    ----------
    result : Result
        A finished run.

    Returns
    -------
    list of str
        With an interface: the displacement and its decay, the two depths and their difference,
        and what the data do not support; of a series of frames, whether it shows damage by the
        beam. Without: the displacements, their scatter, and that no depth is given.
    """
    if result.interface is None:
        return _without_interface(result)
    said = [damage(result)] if get(result, "dose_series") else []
    return [_displacement(result), _depths(result), _unsupported(result), *said]


def damage(result: Any) -> str:
    """Return what a dose series says of damage by the beam, in one sentence."""
    text = str(get(result, "dose_series", "text") or UNKNOWN)
    start = "Whether the beam damages the specimen, the data" if UNKNOWN in text else ""
    return f"{start or 'Damage by the beam is'} {text}."


def _alone(result: Any, row: pd.Series) -> str:
    """Say what a known thickness makes of the displacement of plane 1."""
    if int(row["N"]) != 1 or not known(get(result, "interpretation", "f")):
        return ""
    species = st.displaced_species(result)
    return f", which is {reading(result, 'cation_only')} for the {species} atoms if they alone move"


def _displacement(result: Any) -> str:
    row = first_plane(result)
    what = get(result, "interpretation", "measured") or st.displaced_species(result)
    if row is None:
        return f"Whether the {what}s are displaced, the data {UNKNOWN}: no plane has a value."
    along = st.direction_name(result.projection.u_uvw)
    text = (
        f"The {what}s of plane N = {int(row['N'])} are displaced by {DELTA} = "
        f"{measured(row['delta_A'], row['delta_err_A'], 'Å')} along {along} "
        f"(total standard error, {int(row['n_columns'])} columns){_alone(result, row)}"
    )
    if not known(get(result, "decay", "xi_planes")):
        note = get(result, "decay", "note")
        reason = f" ({note})" if note else ""
        return f"{text}; how fast {DELTA} decays with depth, the data {UNKNOWN}{reason}."
    planes, bounds = with_interval(
        get(result, "decay", "xi_planes"), get(result, "decay", "xi_ci_planes")
    )
    nm, _ = with_interval(get(result, "decay", "xi_nm"), get(result, "decay", "xi_ci_nm"))
    return (
        f"{text}, and {DELTA} decays with a length {XI} = {planes} planes "
        f"({percent(result)} interval {bounds}), which is {nm} nm along the normal."
    )


def _depth_words(result: Any, which: str, *, found: str, absent: str, unknown: str) -> str:
    depth = get(result, "depth", which) or {}
    value = st.number(depth.get("N"))
    if not np.isfinite(value):
        return unknown
    said = interval(depth.get("ci")) + unseen(result, which)
    return f"{absent} (interval {said})" if value <= 0 else f"{found} {number(value)} ({said})"


def unseen(result: Any, which: str) -> str:
    """Write what the noise hides from the test of a depth, to follow its interval."""
    limit = seen_above(result, which)
    if np.isnan(limit):
        return ""
    if which == "displacement":
        return f"; with this noise, less than {two_digits(limit)} Å cannot be told from bulk"
    return f"; less than {two_digits(limit)} cannot be told"


def _depths(result: Any) -> str:
    anion = st.anion_species(result) or "anion"
    displaced = _depth_words(
        result,
        "displacement",
        found="The displacement is seen down to plane N_disp =",
        absent="No plane is displaced beyond the error",
        unknown=f"How deep the displacement reaches, the data {UNKNOWN}",
    )
    missing = _depth_words(
        result,
        "vacancy",
        found=f"{anion} is seen to be missing down to N_vac =",
        absent=f"no plane lacks {anion} beyond the error",
        unknown=f"how deep {anion} is missing, the data {UNKNOWN}",
    )
    return f"{displaced}; {missing}; {_difference(result)}."


def _difference(result: Any) -> str:
    found = get(result, "depth", "difference") or {}
    bounds = ends(found.get("ci"))
    if not known(found.get("N")) or np.isnan(bounds).any():
        return f"whether the two depths agree, the data {UNKNOWN}"
    value, said = with_interval(found["N"], bounds)
    text = f"difference N_vac {MINUS} N_disp = {value} ({percent(result)} interval {said})"
    agree = depths_agree(result)
    if agree is None:
        return f"{text}, which holds zero but is open: coincidence is neither shown nor refuted"
    if not agree:
        return f"{text}, so the two depths differ"
    return f"{text}, so equal depths fit and more than {_apart(bounds)} apart is excluded"


def depths_agree(result: Any) -> bool | None:
    """Return whether the interval of the difference of the depths holds 0; None: cannot tell."""
    low, high = ends(get(result, "depth", "difference", "ci"))
    if low > 0 or high < 0:
        return False
    return True if np.isfinite([low, high]).all() else None


def _apart(bounds: tuple[float, float]) -> str:
    wide = max(abs(bounds[0]), abs(bounds[1]))
    return f"{number(wide)} plane{'' if wide == 1 else 's'}"


def _unsupported(result: Any) -> str:
    return "The data do not support: " + "; ".join(short for short, _ in _limits(result)) + "."


def limits(result: Any) -> list[str]:
    """Return what the data do not support, one full sentence each.

    Parameters
    ----------
    result : Result
        A finished run.

    Returns
    -------
    list of str
        At least one entry: that what is measured is a column, not an atom.
    """
    return [long for _, long in _limits(result)]


def _limits(result: Any) -> list[tuple[str, str]]:
    found: list[tuple[str, str] | None] = [_cation_limit(result)]
    if result.interface is not None:
        found += [_end_limit(result), _place_limit(result), _depth_limit(result)]
        found.append(_null_limit(result))
    if get(result, "refine", "misfit"):
        found.append(
            (
                "errors from noise alone (the model misfits)",
                "The residual is larger than the noise allows: errors from noise alone, such as "
                "those of single columns, are too small. Errors of means hold the scatter between "
                "columns.",
            )
        )
    return [entry for entry in found if entry is not None]


def _cation_limit(result: Any) -> tuple[str, str]:
    what = get(result, "interpretation", "measured") or "column"
    species = st.displaced_species(result)
    factor = get(result, "interpretation", "f")
    short = f"a displacement of {species} atoms without a model (measured is the {what})"
    if not known(factor):
        return short, (
            f"Measured is the displacement of the {what}. How far the {species} atoms alone "
            f"moved, the data {UNKNOWN} without a known specimen thickness."
        )
    alone, whole = (reading(result, kind) for kind in ("cation_only", "whole_column"))
    return short, (
        f"Measured is the displacement of the {what}. If only {species} moved, it moved by "
        f"{alone}; if the whole column moved, by {whole}. Which of the two is true, this "
        f"image {UNKNOWN}."
    )


def reading(result: Any, kind: str) -> str:
    """Write one interpretation of plane 1, ``cation_only`` or ``whole_column``, in angstrom."""
    value = get(result, "interpretation", f"delta1_{kind}_A")
    error = get(result, "interpretation", f"delta1_{kind}_err_A")
    if error_places(error) is not None or not known(value):
        return measured(value, error, "Å")
    return f"{number(value)} Å"


def _end_limit(result: Any) -> tuple[str, str] | None:
    if not (known(get(result, "decay", "xi_planes")) and known(seen_above(result, "displacement"))):
        return None
    return "that the displacement ends at N_disp", (
        f"N_disp is the deepest plane that this noise shows ({DELTA} above "
        f"{two_digits(seen_above(result, 'displacement'))} Å), not the end of the displacement: "
        "an exponential has no last plane, and less noise shows more planes."
    )


def _place_limit(result: Any) -> tuple[str, str] | None:
    found = get(result, "correlation", "within_planes") or {}
    p, level = st.number(found.get("p")), 1 - float(result.config.analysis.confidence)
    short = "that the two occur at the same place"
    if depths_agree(result):
        short += " and not only to the same depth"
    if not np.isfinite(p):
        return short, (
            "Whether displaced columns sit next to the missing anions inside a plane: "
            f"{UNKNOWN}. The depth profiles alone cannot show it."
        )
    if p >= level:
        value, bounds = with_interval(found.get("r"), found.get("ci"))
        return short, (
            "Inside planes, columns next to missing anions are not displaced differently "
            f"(r = {value}, {percent(result)} interval {bounds}, {p_equals(p)}). "
            f"{_depth_verdict(result)} Two profiles that both decay always correlate between "
            "planes, so that correlation does not show the same place."
        )
    return None


def _depth_verdict(result: Any) -> str:
    agree = depths_agree(result)
    if agree is None:
        return f"Whether the two depths agree, the data {UNKNOWN}."
    bounds = ends(get(result, "depth", "difference", "ci"))
    if agree:
        wide = max(abs(bounds[0]), abs(bounds[1]))
        return "The depths agree" + (f" within {_apart(bounds)}." if wide else ".")
    return f"The depths differ (N_vac {MINUS} N_disp: {interval(bounds)} planes)."


def _depth_limit(result: Any) -> tuple[str, str] | None:
    if depths_agree(result) is None:
        return "that the two depths coincide", (
            f"Whether the two depths coincide: {UNKNOWN}, their difference has no closed interval."
        )
    return None


def _null_limit(result: Any) -> tuple[str, str] | None:
    passed = get(result, "null_test", "passed")
    if passed is None:
        return "a check against the bulk (too few bulk planes)", (
            f"Whether the bulk is quiet: {UNKNOWN}, there are too few bulk planes. "
            "Errors are then those of the fit and are not checked."
        )
    if not passed:
        return "effects as small as the stated errors (the bulk null test failed)", (
            "The bulk null test failed: something is found where there should be nothing. "
            "Do not trust effects that are not much larger than the stated errors."
        )
    return None


def _without_interface(result: Any) -> list[str]:
    count = means.spread(result, "delta_A")[2]
    what = get(result, "interpretation", "measured") or st.displaced_species(result)
    names = [st.direction_name(w) for w in (result.projection.u_uvw, result.projection.v_uvw)]
    if not count:
        first = f"No {what} has a displacement: {UNKNOWN}."
    else:
        length, direction = means.mean_vector(result)
        means_pm = [means.mean_with_error(result, n) for n in ("delta_A", "delta_perp_A")]
        first = (
            f"On average, {count} {what}s sit {means_pm[0]} pm along {names[0]} and {means_pm[1]} "
            f"pm along {names[1]} from the centres of their cages: a mean vector of {length} pm"
            f"{', ' + direction if direction else ''}."
        )
    scatter = [means.scatter(result, n) for n in ("delta_A", "delta_perp_A")]
    return [
        first,
        f"From column to column they scatter by {scatter[0]} pm along {names[0]} and {scatter[1]} "
        f"pm along {names[1]} (standard deviations).",
        "The run has no interface, so no depth, no decay and no reference in the bulk is given. "
        "A uniform displacement cannot be told from specimen tilt.",
    ]


def text_summary(result: Any) -> str:
    """Return about ten lines for the terminal.

    Parameters
    ----------
    result : Result
        A finished run.

    Returns
    -------
    str
        Lines without a final newline.
    """
    source = get(result, "input") or {}
    usable = int(np.count_nonzero(tables.usable(st.table(result, "columns"))))
    sizes = " x ".join(number(s, 4) for s in result.pixel_size_A)
    found = get(result, "warnings") or []
    lines = [
        f"stemdisp {get(result, 'stemdisp') or ''} | {result.projection.name}".strip(),
        f"input: {', '.join(map(str, source.get('path') or [])) or 'a signal'} "
        f"({source.get('kind') or 'unknown kind'}, pixel {sizes} Å)",
        f"columns: {len(st.table(result, 'columns'))} fitted, {usable} usable",
    ]
    lines += [f"- {text}" for text in sentences(result)]
    if result.interface is not None:
        lines.append(f"null test in the bulk: {verdict(get(result, 'null_test', 'passed'))}")
    if get(result, "corrections"):
        lines.append(str(get(result, "corrections", "text")))
    lines.append(f"warnings: {len(found) or 'none'}")
    lines += [f"  {w.get('code')}: {w.get('message')}" for w in found]
    return "\n".join(_one_line(line) for line in lines)


def _one_line(text: str) -> str:
    """Drop control characters: a file name must not steer the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def verdict(passed: Any) -> str:
    """Write the outcome of a test."""
    return UNKNOWN if passed is None else ("passed" if passed else "FAILED")
