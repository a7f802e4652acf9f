"""Units of length as microscopes write them -> angstrom, the one unit used inside."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Any

UNIT = "Å"  # what the axes of loaded signals carry

_ANGSTROM_PER = {
    "å": 1.0,
    "a": 1.0,
    "angstrom": 1.0,
    "angstroem": 1.0,
    "ångström": 1.0,
    "ang": 1.0,
    "pm": 1e-2,
    "picometer": 1e-2,
    "picometre": 1e-2,
    "nm": 10.0,
    "nanometer": 10.0,
    "nanometre": 10.0,
    "um": 1e4,
    "μm": 1e4,
    "micron": 1e4,
    "micrometer": 1e4,
    "micrometre": 1e4,
    "mm": 1e7,
    "millimeter": 1e7,
    "millimetre": 1e7,
    "cm": 1e8,
    "centimeter": 1e8,
    "centimetre": 1e8,
    "m": 1e10,
    "meter": 1e10,
    "metre": 1e10,
}

_NO_UNIT = {"", "px", "pixel", "pixels", "<undefined>", "undefined", "none", "dimensionless", "1"}
_RECIPROCAL = re.compile(r"1(\.0)?/|.*\D-1(\.0)?$|reciprocal|inverse")
_ANGLES = {"rad", "mrad", "radian", "milliradian", "µrad", "deg", "degree", "°"}
_PER_PIXEL = re.compile(r"(/|per)(px|pixel)$")


def axis_scale_A(scale: Any, unit: Any) -> float | None:
    """Convert the scale of an axis to angstrom per pixel.

    Parameters
    ----------
    scale : float
        Units per pixel, as stored.
    unit : str or anything
        As stored, text or bytes; ``"n_m"`` (openNCEM), ``"[nm]"`` and ``"nm/px"`` are read as nm.

    Returns
    -------
    float or None
        Angstrom per pixel; None if the unit is no length or the scale not positive and finite.
    """
    factor = _factor(unit)
    if factor is None or scale is None or isinstance(scale, str | bytes):
        return None
    try:
        value = float(scale) * factor
    except (TypeError, ValueError, OverflowError):  # a list, or more digits than a number has
        return None
    return value if math.isfinite(value) and value > 0 else None


def is_nonsense(scale: Any, unit: Any) -> bool:
    """Tell whether an axis states a pixel size that cannot be one, rather than none.

    Parameters
    ----------
    scale : float
        Units per pixel, as stored.
    unit : str or anything
        As stored.

    Returns
    -------
    bool
        True for a length that is not positive and finite, and for a unit that is no length.
    """
    if axis_scale_A(scale, unit) is not None:
        return False
    return scale is not None if _factor(unit) is not None else _plain(unit) not in _NO_UNIT


def is_reciprocal(unit: Any) -> bool:
    """Tell whether a unit is that of a diffraction pattern.

    Parameters
    ----------
    unit : str or anything
        As stored.

    Returns
    -------
    bool
        True for reciprocal lengths in any spelling, and for angles.
    """
    text = _plain(unit)
    return bool(_RECIPROCAL.match(text)) or text.removesuffix("s") in _ANGLES


def _factor(unit: Any) -> float | None:
    """Return angstrom per unit."""
    text = _PER_PIXEL.sub("", _plain(unit))
    return _ANGSTROM_PER.get(text, _ANGSTROM_PER.get(text.removesuffix("s")))


def _plain(unit: Any) -> str:
    """Strip case, spaces, brackets and underscores; unify the letters µ and Å, and the minus."""
    if isinstance(unit, bytes):
        unit = unit.decode("utf-8", "replace")
    if not isinstance(unit, str):
        return ""
    text = unicodedata.normalize("NFKC", unit).casefold().replace("\u2212", "-")
    return re.sub(r"[\s_()\[\]{}]", "", text)
