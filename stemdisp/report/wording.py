"""The words of the report: numbers with errors, the answer in three sentences, the limits.

Everything is read from the summary. A value that is null or not a number becomes "cannot tell".
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from stemdisp import _plot_style as st
from stemdisp import tables

UNKNOWN = "cannot tell"
MINUS, PM, DELTA, XI = "\N{MINUS SIGN}", "\N{PLUS-MINUS SIGN}", "δ", "ξ"


def get(result: Any, *names: str) -> Any:
    """Walk down the summary; None where any level is absent or null."""
    return st.section(result, *names)


def known(value: Any) -> bool:
    """Whether a value is a finite number."""
    return np.isfinite(st.number(value)) if not isinstance(value, str) else False


def number(value: Any, digits: int = 3) -> str:
    """Write a number with so many significant digits; ``cannot tell`` for null or NaN."""
    value = st.number(value)
    if np.isnan(value):
        return UNKNOWN
    if np.isinf(value):
        return "infinite" if value > 0 else f"{MINUS}infinite"
    return f"{value:.{digits}g}".replace("-", MINUS)


def measured(value: Any, error: Any, unit: str = "") -> str:
    """Write a value with its error; the error has two digits up to 354, one digit above.

    That is the rounding of the Particle Data Group (Phys. Rev. D 110, 030001, sec. 5.3).
    """
    value, error = st.number(value), st.number(error)
    unit = f" {unit}" if unit else ""
    if not np.isfinite(value):
        return UNKNOWN
    if not np.isfinite(error) or error <= 0:
        return f"{number(value)}{unit} (error unknown)"
    power = int(np.floor(np.log10(error)))
    digits = 2 if error < 3.545 * 10.0**power else 1
    places = max(0, digits - 1 - power)
    return f"{value:.{places}f} {PM} {error:.{places}f}{unit}".replace("-", MINUS)


def ends(bounds: Any) -> tuple[float, float]:
    """Return both ends of an interval; not-a-number where it is null."""
    low, high = bounds if bounds is not None and len(bounds) == 2 else (None, None)
    return st.number(low), st.number(high)


def interval(bounds: Any, digits: int = 3) -> str:
    """Write an interval as ``1.8 to 2.2``; an open side is said, an unknown one too."""
    low, high = ends(bounds)
    if np.isnan(low) and np.isnan(high):
        return "interval unknown"
    if not np.isfinite(low):
        return f"at most {number(high, digits)}" if np.isfinite(high) else "interval unknown"
    if not np.isfinite(high):
        return f"at least {number(low, digits)}"
    return f"{number(low, digits)} to {number(high, digits)}"


def percent(result: Any) -> str:
    """Write the confidence of the run as ``95 %``."""
    return f"{100 * float(result.config.analysis.confidence):g} %"


def first_plane(result: Any) -> pd.Series | None:
    """Return the row of the outermost plane that has a displacement."""
    planes = st.table(result, "planes")
    planes = planes[planes["delta_A"].notna()].sort_values("N")
    return planes.iloc[0] if len(planes) else None


def sentences(result: Any) -> list[str]:
    """Return the answer in three sentences with numbers.

    Parameters
    ----------
    result : Result
        A finished run.

    Returns
    -------
    list of str
        With an interface: the displacement and its decay, the two depths and their difference,
        and what the data do not support. Without: the displacements, their scatter, and that no
        depth is given.
    """
    if result.interface is None:
        return _without_interface(result)
    return [_displacement(result), _depths(result), _unsupported(result)]


def _displacement(result: Any) -> str:
    row = first_plane(result)
    what = get(result, "interpretation", "measured") or st.displaced_species(result)
    if row is None:
        return f"Whether the {what}s are displaced, the data {UNKNOWN}: no plane has a value."
    along = st.direction_name(result.projection.u_uvw)
    text = (
        f"The {what}s of plane N = {int(row['N'])} are displaced by {DELTA} = "
        f"{measured(row['delta_A'], row['delta_err_A'], 'Å')} along {along} "
        f"(total standard error, {int(row['n_columns'])} columns)"
    )
    if not known(get(result, "decay", "xi_planes")):
        note = get(result, "decay", "note")
        reason = f" ({note})" if note else ""
        return f"{text}; how fast {DELTA} decays with depth, the data {UNKNOWN}{reason}."
    return (
        f"{text}, and {DELTA} decays with a length {XI} = "
        f"{number(get(result, 'decay', 'xi_planes'))} planes "
        f"({percent(result)} interval {interval(get(result, 'decay', 'xi_ci_planes'))}), "
        f"which is {number(get(result, 'decay', 'xi_nm'))} nm along the normal."
    )


def _depth_words(result: Any, which: str, *, found: str, absent: str, unknown: str) -> str:
    depth = get(result, "depth", which) or {}
    value = st.number(depth.get("N"))
    if not np.isfinite(value):
        return unknown
    if value <= 0:
        return f"{absent} (interval {interval(depth.get('ci'))})"
    return f"{found} {number(value)} ({interval(depth.get('ci'))})"


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
        found=f"{anion} is missing down to N_vac =",
        absent=f"no plane lacks {anion} beyond the error",
        unknown=f"how deep {anion} is missing, the data {UNKNOWN}",
    )
    return f"{displaced}; {missing}; {_difference(result)}."


def _difference(result: Any) -> str:
    found = get(result, "depth", "difference") or {}
    bounds = ends(found.get("ci"))
    if not known(found.get("N")) or np.isnan(bounds).any():
        return f"whether the two depths agree, the data {UNKNOWN}"
    text = (
        f"difference N_vac {MINUS} N_disp = {number(found['N'])} "
        f"({percent(result)} interval {interval(bounds)})"
    )
    if bounds[0] > 0 or bounds[1] < 0:
        return f"{text}, so the two depths differ"
    wide = max(abs(bounds[0]), abs(bounds[1]))
    if not np.isfinite(wide):
        return f"{text}, which holds zero but is open: coincidence is neither shown nor refuted"
    return f"{text}, so equal depths fit and more than {number(wide)} planes apart is excluded"


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
    found = [_cation_limit(result)]
    if result.interface is not None:
        found += [_place_limit(result), _depth_limit(result), _null_limit(result)]
    if get(result, "refine", "misfit"):
        found.append(
            (
                "errors as small as stated (the model misfits)",
                "The residual is larger than the noise allows: the stated errors may be too small.",
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
    alone = number(get(result, "interpretation", "delta1_cation_only_A"))
    whole = number(get(result, "interpretation", "delta1_whole_column_A"))
    return short, (
        f"Measured is the displacement of the {what}. If only {species} moved, it moved by "
        f"{alone} Å; if the whole column moved, by {whole} Å. Which of the two is true, this "
        f"image {UNKNOWN}."
    )


def _place_limit(result: Any) -> tuple[str, str] | None:
    found = get(result, "correlation", "within_planes") or {}
    p, level = st.number(found.get("p")), 1 - float(result.config.analysis.confidence)
    numbers = f"r = {number(found.get('r'), 2)}, p = {number(p, 2)}"
    short = "that the two occur at the same place and not only at the same depth"
    if not np.isfinite(p):
        return short, (
            "Whether displaced columns sit next to the missing anions inside a plane: "
            f"{UNKNOWN}. The depth profiles alone cannot show it."
        )
    if p >= level:
        return short, (
            "Inside planes, columns next to missing anions are not displaced differently "
            f"({numbers}). Two profiles that both decay always correlate between planes, so the "
            "data show the same depth, not the same place."
        )
    return None


def _depth_limit(result: Any) -> tuple[str, str] | None:
    if not np.isfinite(ends(get(result, "depth", "difference", "ci"))).all():
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


def spread(result: Any, name: str) -> tuple[float, float, int]:
    """Return mean, standard deviation and count of a displacement over usable columns, in pm."""
    values = st.used(result, st.displaced_species(result))[name].dropna().to_numpy(float) * 100
    if not values.size:
        return float("nan"), float("nan"), 0
    return float(values.mean()), float(values.std()), int(values.size)


def mean_with_error(result: Any, name: str) -> str:
    """Write the mean displacement over all columns in pm, with the error of the mean."""
    mean, scatter, count = spread(result, name)
    return measured(mean, scatter / np.sqrt(count) if count > 1 else None)


def _without_interface(result: Any) -> list[str]:
    _, scatter, count = spread(result, "delta_A")
    _, across_scatter, _ = spread(result, "delta_perp_A")
    what = get(result, "interpretation", "measured") or st.displaced_species(result)
    names = [st.direction_name(w) for w in (result.projection.u_uvw, result.projection.v_uvw)]
    if not count:
        first = f"No {what} has a displacement: {UNKNOWN}."
    else:
        first = (
            f"On average, {count} {what}s sit {mean_with_error(result, 'delta_A')} pm along "
            f"{names[0]} and {mean_with_error(result, 'delta_perp_A')} pm along {names[1]} from "
            "the centres of their cages."
        )
    return [
        first,
        f"From column to column they scatter by {number(scatter)} pm along {names[0]} and "
        f"{number(across_scatter)} pm along {names[1]} (standard deviations).",
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
        f"input: {', '.join(map(str, source.get('path') or []))} "
        f"({source.get('kind') or 'unknown kind'}, pixel {sizes} Å)",
        f"columns: {len(st.table(result, 'columns'))} fitted, {usable} usable",
    ]
    lines += [f"- {text}" for text in sentences(result)]
    if result.interface is not None:
        lines.append(f"null test in the bulk: {verdict(get(result, 'null_test', 'passed'))}")
    lines.append(f"warnings: {len(found) or 'none'}")
    lines += [f"  {w.get('code')}: {w.get('message')}" for w in found]
    return "\n".join(_one_line(line) for line in lines)


def _one_line(text: str) -> str:
    """Drop control characters: a file name must not steer the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def verdict(passed: Any) -> str:
    """Write the outcome of a test."""
    return UNKNOWN if passed is None else ("passed" if passed else "FAILED")
