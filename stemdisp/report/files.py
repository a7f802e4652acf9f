"""The machine-readable files of a run: summary.json and the CSV tables."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stemdisp import tables
from stemdisp._configcheck import toml_value
from stemdisp._printable import is_hidden, printable
from stemdisp.corrections import FILE_NAME

# Spreadsheets run a cell that begins with one of these as a formula (the wide ones in Japanese).
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
_MAX_DEPTH = 50
# File names may hold bytes that are no text; they are written as escapes and not refused.
TEXT: Any = {"encoding": "utf-8", "errors": "backslashreplace"}


def write_files(result: Any, directory: Path) -> None:
    """Write summary.json, the tables as CSV files, and what was corrected by hand.

    Those of frames and of the dose series are written for stacks only.

    Parameters
    ----------
    result : Result
        A finished run.
    directory : Path
        An existing directory.
    """
    text = json.dumps(strict(result.summary), indent=2, ensure_ascii=False, allow_nan=False)
    (directory / "summary.json").write_text(_seen(text) + "\n", **TEXT)
    if result.corrections is not None:
        (directory / FILE_NAME).write_text(result.corrections.to_toml(), **TEXT)
    for name in ("planes", "columns", "line_profile", "frames", "dose_series"):
        frame = getattr(result, name)
        if name in ("frames", "dose_series") and (frame is None or frame.empty):
            continue
        write_csv(pd.DataFrame() if frame is None else frame, name, directory / f"{name}.csv")


def _seen(text: str) -> str:
    """Escape in JSON what a terminal would act upon; line ends are those between entries."""
    if text.isascii() and "\x7f" not in text:
        return text
    return "".join(json.dumps(c)[1:-1] if c != "\n" and is_hidden(c) else c for c in text).replace(
        "\x7f", "\\u007f"
    )


def strict(value: Any, depth: int = 0) -> Any:
    """Turn a value into strict JSON: NaN, infinities and missing values become null.

    Parameters
    ----------
    value : object
        Numbers, strings, arrays, mappings, sequences and NumPy or pandas scalars.
    depth : int
        How deep the value is nested already.

    Returns
    -------
    object
        Of dict, list, str, int, float, bool and None only.

    Raises
    ------
    ValueError
        For other types, or nested too deeply.
    """
    if depth > _MAX_DEPTH:
        raise ValueError("summary is nested too deeply for JSON; pass plain dictionaries and lists")
    if isinstance(value, Mapping):
        return {str(key): strict(entry, depth + 1) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        return strict(value.tolist(), depth + 1)
    if isinstance(value, list | tuple | set | frozenset):
        return [strict(entry, depth + 1) for entry in value]
    return _scalar(value)


def _scalar(value: Any) -> Any:
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, Path):
        return str(value)
    raise ValueError(
        f"summary holds a {type(value).__name__}, which JSON cannot; turn it into a number or text"
    )


def write_csv(frame: pd.DataFrame, table: str, path: Path) -> None:
    """Write one table with the columns, order and dtypes of the registry.

    Parameters
    ----------
    frame : DataFrame
        The table; columns that it lacks are written empty.
    table : str
        Its name in the registry.
    path : Path
        Where to.
    """
    out = tables.ordered(frame, table)
    for name, spec in tables.specs(table).items():
        if spec.dtype == "str":
            out[name] = out[name].map(_harmless)
    out.to_csv(path, index=False, float_format="%.6g", lineterminator="\n", **TEXT)


def _harmless(text: Any) -> Any:
    """Keep a cell from being a formula, a line of its own, or a command to a terminal."""
    if not isinstance(text, str):
        return text
    plain = printable(text)
    return f"'{plain}" if plain.lstrip().startswith(_FORMULA) else plain


def config_toml(config: Any) -> str:
    """Write a configuration as TOML that the command line reads back.

    Parameters
    ----------
    config : Config
        The configuration of the run.

    Returns
    -------
    str
        One table per section.
    """
    from stemdisp.config import config_to_dict, with_input

    lines = []
    # bytes of a name that are no text: JSON, by which the configuration is copied, has none
    paths = tuple(path.encode(**TEXT).decode() for path in config.input.path)
    for section, keys in config_to_dict(with_input(config, paths)).items():
        lines.append(f"[{section}]")
        lines += [
            f"{key} = {toml_value(value)}" for key, value in keys.items() if value is not None
        ]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"
