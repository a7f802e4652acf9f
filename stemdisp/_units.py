"""Units of length as microscopes write them -> angstrom, the one unit used inside."""

from __future__ import annotations

import math
import unicodedata
from typing import Any

UNIT = "Å"  # what the axes of loaded signals carry

_ANGSTROM_PER = {
    "å": 1.0,
    "a": 1.0,
    "angstrom": 1.0,
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
    "m": 1e10,
    "meter": 1e10,
    "metre": 1e10,
}


def axis_scale_A(scale: Any, unit: Any) -> float | None:
    """Convert the scale of an axis to angstrom per pixel.

    Parameters
    ----------
    scale : float
        Units per pixel, as stored.
    unit : str or anything
        As stored; ``"n_m"`` (openNCEM) and ``"[nm]"`` are read as nm.

    Returns
    -------
    float or None
        Angstrom per pixel; None if the unit is no length or the scale not positive and finite.
    """
    factor = _factor(unit)
    if factor is None or scale is None or isinstance(scale, str):
        return None
    value = float(scale) * factor
    return value if math.isfinite(value) and value > 0 else None


def is_reciprocal(unit: Any) -> bool:
    """Tell whether a unit is that of a diffraction pattern."""
    if not isinstance(unit, str):
        return False
    text = _plain(unit)
    return text.startswith("1/") or text.endswith(("^-1", "⁻¹", "**-1")) or text in ("mrad", "rad")


def _factor(unit: Any) -> float | None:
    """Return angstrom per unit."""
    if not isinstance(unit, str):
        return None
    text = _plain(unit)
    return _ANGSTROM_PER.get(text, _ANGSTROM_PER.get(text.removesuffix("s")))


def _plain(unit: str) -> str:
    """Strip case, spaces, brackets and underscores; unify the letters µ and Å."""
    text = unicodedata.normalize("NFKC", unit).casefold()
    return text.strip().strip("[]()").replace("_", "").replace(" ", "")
