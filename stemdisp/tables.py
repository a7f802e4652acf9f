"""The registry: every table column and every quality bit, named and explained once.

An image becomes a table with one row per atomic column; each stage adds columns and takes none
away. The docs, the report and the writers read this module, so a column that is not here does not
exist.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from stemdisp._registry import COLUMNS, ColumnSpec

__all__ = [
    "BY_HAND",
    "COLUMNS",
    "QUALITY_BITS",
    "UNUSABLE",
    "ColumnSpec",
    "Quality",
    "QualitySpec",
    "by_hand",
    "check_columns",
    "count_quality",
    "ordered",
    "specs",
    "usable",
]


class Quality(enum.IntFlag):
    """Bits of the ``quality`` column; 0 means that nothing is known against the column."""

    GOOD = 0
    EDGE = 1
    NEAR_FILM = 2
    FILM = 4
    NOT_DETECTED = 8
    NOT_CONVERGED = 16
    WIDTH_AT_BOUND = 32
    MASKED = 64
    MOVED = 128
    NO_CAGE = 256
    MISFIT = 512
    REMOVED = 1024
    ADDED = 2048
    CORRECTED = 4096


@dataclass(frozen=True)
class QualitySpec:
    """A quality bit for people: its name, a short label and what to do about it."""

    bit: Quality
    short: str
    meaning: str


QUALITY_BITS: tuple[QualitySpec, ...] = (
    QualitySpec(
        Quality.EDGE,
        "at the image border",
        "Part of the column or of its fit window lies outside the image or in a dead border; "
        "left out of plane averages.",
    ),
    QualitySpec(
        Quality.NEAR_FILM,
        "next to the film",
        "The outermost plane (N = 1), or beside a step of the interface: amorphous material there "
        "biases the fit by 1-6 pm. Kept in averages, marked in the report.",
    ),
    QualitySpec(
        Quality.FILM,
        "outside the crystal",
        "The lattice expects a column here but the crystal has ended; never used.",
    ),
    QualitySpec(
        Quality.NOT_DETECTED,
        "not significantly there",
        "The fitted intensity is below three standard errors. Intensity and occupancy stay valid "
        "(they may be zero); the position is only that of the lattice and is not used.",
    ),
    QualitySpec(
        Quality.NOT_CONVERGED,
        "fit did not converge",
        "The position was still moving when the iterations ended; values are NaN and unused.",
    ),
    QualitySpec(
        Quality.WIDTH_AT_BOUND,
        "width at its bound",
        "The species' fitted width ran into its limit: these columns are not peaks of the "
        "expected kind (often a specimen that is too thick).",
    ),
    QualitySpec(
        Quality.MASKED,
        "masked or saturated pixels",
        "Not-a-number, masked or saturated pixels lie under the column; left out of averages.",
    ),
    QualitySpec(
        Quality.MOVED,
        "far from its site",
        "The fit ended further from the lattice site than neighbouring columns allow; left out "
        "of averages.",
    ),
    QualitySpec(
        Quality.NO_CAGE,
        "no complete cage",
        "No neighbour with its opposite could be used, so the column has no displacement.",
    ),
    QualitySpec(
        Quality.MISFIT,
        "shape misfit",
        "The residual under the column is far larger than the noise allows; its errors may be "
        "too small.",
    ),
    QualitySpec(
        Quality.REMOVED,
        "removed by hand",
        "A correction took the column out: its values are empty. What is there is still modelled, "
        "as the spots of a film are, so that it does not disturb its neighbours.",
    ),
    QualitySpec(
        Quality.ADDED,
        "added by hand",
        "A correction added a column where the run expects none. It is fitted with its species, "
        "and never used.",
    ),
    QualitySpec(
        Quality.CORRECTED,
        "moved or relabelled by hand",
        "A correction gave the column another species, or its fit another start. Kept in averages.",
    ),
)

_NUMBERS = {column.name for column in COLUMNS if column.dtype != "str"}
_WHOLE = {column.name for column in COLUMNS if column.dtype in ("Int64", "int64")}

# Columns that carry any of these bits take no part in averages and statistics.
UNUSABLE = Quality.EDGE | Quality.FILM | Quality.NOT_CONVERGED | Quality.MASKED | Quality.MOVED
UNUSABLE |= Quality.REMOVED | Quality.ADDED
# What a user set, which no other fit of the same columns may forget.
BY_HAND = Quality.REMOVED | Quality.ADDED | Quality.CORRECTED


def specs(table: str) -> dict[str, ColumnSpec]:
    """Return the documented columns of one table.

    Parameters
    ----------
    table : {"columns", "planes", "line_profile", "frames", "dose_series", "fields"}
        Which table.

    Returns
    -------
    dict of str to ColumnSpec
        In the order in which they are written.
    """
    found = {c.name: c for c in COLUMNS if c.table == table}
    if not found:
        names = ", ".join(dict.fromkeys(c.table for c in COLUMNS))
        raise ValueError(f"table = {table!r} is not one of: {names}")
    return found


def check_columns(frame: pd.DataFrame, required: tuple[str, ...], *, what: str = "columns") -> None:
    """Raise a ValueError naming the columns that a stage needs and the table lacks."""
    missing = [name for name in required if name not in frame.columns]
    if missing:
        raise ValueError(
            f"{what} lacks {', '.join(missing)}; it has {', '.join(map(str, frame.columns))}. "
            "Run the earlier stages first or rename the columns."
        )
    for name in required:
        if len(frame) and name in _NUMBERS and not _is_numeric(frame[name], whole=name in _WHOLE):
            raise ValueError(f"{what}: {name} holds something else than numbers; correct the table")


def _is_numeric(values: pd.Series, *, whole: bool) -> bool:
    """Tell whether a column holds numbers; one of whole numbers may be of nothing but gaps."""
    if not isinstance(values, pd.Series):  # two columns of one name
        return False
    if pd.api.types.is_numeric_dtype(values.dtype):
        return True
    return whole and all(isinstance(n, int | np.integer) for n in values.dropna())


def ordered(frame: pd.DataFrame, table: str) -> pd.DataFrame:
    """Return the documented columns of `frame` in registry order with registry dtypes.

    Columns that the analysis did not make (no interface, no anions) are added empty. A ValueError
    names a column whose values are not of its type.
    """
    out: dict[str, Any] = {}
    for name, spec in specs(table).items():
        if name in frame.columns:
            values = frame[name]
        else:
            values = pd.Series([pd.NA] * len(frame), index=frame.index)
        kind: Any = spec.dtype
        try:
            if kind == "float64":
                values = pd.to_numeric(values, errors="coerce")
            out[name] = values.astype(kind)
        except (TypeError, ValueError, OverflowError) as err:
            raise ValueError(f"{table}: {name} holds values that are no {kind}") from err
    return pd.DataFrame(out)


def usable(frame: pd.DataFrame) -> np.ndarray:
    """Return a mask of the columns that may enter averages (no disqualifying quality bit)."""
    return (_bits(frame) & int(UNUSABLE)) == 0


def by_hand(frame: pd.DataFrame) -> np.ndarray:
    """Return the quality of every column with nothing left but what a user set."""
    if "quality" not in frame:
        return np.zeros(len(frame), dtype=np.int64)
    return _bits(frame) & int(BY_HAND)


def count_quality(frame: pd.DataFrame) -> dict[str, int]:
    """Count how many columns carry each quality bit."""
    q = _bits(frame)
    return {spec.short: int(np.count_nonzero(q & int(spec.bit))) for spec in QUALITY_BITS}


def _bits(frame: pd.DataFrame) -> np.ndarray:
    """Return the quality of every column, or say that a table has none."""
    check_columns(frame, ("quality",))
    try:
        return frame["quality"].to_numpy(dtype=np.int64)
    except (TypeError, ValueError, OverflowError) as err:
        raise ValueError("columns: quality must be a whole number in every row; 0 is good") from err
