"""Numbers as text, for the page and the panels: digits follow the error or the interval."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from stemdisp import _plot_style as st

UNKNOWN = "cannot tell"
MINUS, PM = "\N{MINUS SIGN}", "\N{PLUS-MINUS SIGN}"
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


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
    text, _, power = f"{value:.{digits}g}".partition("e")
    if power:
        text += f" \N{MULTIPLICATION SIGN} 10{str(int(power)).translate(_RAISED)}"
    return text.replace("-", MINUS)


def fixed(value: Any, places: int | None) -> str:
    """Write a number with so many decimals, a zero without sign; None: significant digits."""
    value = st.number(value)
    if places is None or not np.isfinite(value):
        return number(value)
    text = f"{value:.{places}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", MINUS)


def error_places(error: Any) -> int | None:
    """Return the decimals that an error calls for: two digits up to 354, one digit above.

    That is the rounding of the Particle Data Group (Phys. Rev. D 110, 030001, sec. 5.3).
    None where there is no error.
    """
    error = st.number(error)
    if not np.isfinite(error) or error <= 0:
        return None
    power = int(np.floor(np.log10(error)))
    digits = 2 if error < 3.545 * 10.0**power else 1
    return max(0, digits - 1 - power)


def measured(value: Any, error: Any, unit: str = "") -> str:
    """Write a value with its error, both to the decimals that the error calls for."""
    unit = f" {unit}" if unit else ""
    if not known(value):
        return UNKNOWN
    places = error_places(error)
    if places is None:
        return f"{number(value)}{unit} (error unknown)"
    return f"{fixed(value, places)} {PM} {fixed(error, places)}{unit}"


def ends(bounds: Any) -> tuple[float, float]:
    """Return both ends of an interval; not-a-number where it is null."""
    low, high = bounds if bounds is not None and len(bounds) == 2 else (None, None)
    return st.number(low), st.number(high)


def interval(bounds: Any, places: int | None = None) -> str:
    """Write an interval as ``1.80 to 2.20``; an open side is said, an unknown one too."""
    low, high = ends(bounds)
    if np.isnan(low) and np.isnan(high):
        return "interval unknown"
    places = interval_places(bounds) if places is None else places
    if not np.isfinite(low):
        return f"at most {fixed(high, places)}" if np.isfinite(high) else "interval unknown"
    if not np.isfinite(high):
        return f"at least {fixed(low, places)}"
    return f"{fixed(low, places)} to {fixed(high, places)}"


def interval_places(bounds: Any) -> int | None:
    """Return the decimals that the half width of an interval calls for; 0 for whole ends."""
    low, high = ends(bounds)
    if not np.isfinite([low, high]).all():
        return None
    return 0 if low == int(low) and high == int(high) else error_places((high - low) / 2)


def with_interval(value: Any, bounds: Any) -> tuple[str, str]:
    """Write a value and its interval with the same decimals."""
    places = interval_places(bounds)
    whole = not known(value) or float(value) == int(value)
    return fixed(value, None if places == 0 and not whole else places), interval(bounds, places)


def two_digits(value: Any) -> str:
    """Write a positive number with two significant digits, trailing zeros kept."""
    value = st.number(value)
    if not np.isfinite(value) or value <= 0:
        return number(value)
    return fixed(value, max(0, 1 - int(np.floor(np.log10(value)))))


def p_value(p: Any) -> str:
    """Write a probability with two digits; below 0.001 only that."""
    p = st.number(p)
    return "< 0.001" if 0 <= p < 0.001 else (two_digits(p) if p < 0.995 else fixed(p, 2))


def p_equals(p: Any) -> str:
    """Write ``p = 0.61`` or ``p < 0.001``."""
    text = p_value(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def seen_above(result: Any, which: str) -> float:
    """Return the smallest departure that the depth test can tell from bulk; NaN if not stated.

    Parameters
    ----------
    result : Result
        A finished run.
    which : {"displacement", "vacancy"}
        Which depth. The number stands in its note.

    Returns
    -------
    float
        In angstrom, or a fraction of the bulk's occupancy.
    """
    note = st.section(result, "depth", which, "note") or ""
    found = re.search(r"less than ([0-9.]+(?:e[-+]?[0-9]+)?)", str(note))
    return float(found[1]) if found else float("nan")
