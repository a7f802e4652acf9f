"""One field's published results as a row of fields.csv; the two tables of a batch."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from stemdisp import __version__, tables
from stemdisp._plot_numbers import known, measured, with_interval
from stemdisp._provenance import sha256_of
from stemdisp._publish import is_complete, write_then_rename
from stemdisp.report.files import TEXT, write_csv

_PLANES = "planes.csv"


def is_current(folder: Path, path: str, settings: Mapping[str, Any]) -> bool:
    """Tell whether a directory holds what an analysis would give.

    Parameters
    ----------
    folder : Path
        The directory of a field's results, which need not be there.
    path : str
        The field's file, or FILE::NAME.
    settings : mapping
        Those of `stemdisp._provenance.settings_of`.

    Returns
    -------
    bool
        Whether all files are there, made by this version, with these settings, from this file.
    """
    if not is_complete(folder):
        return False
    try:
        summary = _summary(folder)
        said = summary["input"]
        return (
            summary["stemdisp"] == __version__
            and summary["configuration"] == settings
            and [name.partition("::")[2] for name in said["path"]] == [path.partition("::")[2]]
            and _header(folder) == list(tables.specs("planes"))
            and said["sha256"] == sha256_of([path])
            and _can_be_entered(folder)
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, csv.Error):
        return False  # made by another version, or damaged


def _can_be_entered(folder: Path) -> bool:
    """Make of the results what the tables of a batch need, or raise what that raises."""
    with (folder / _PLANES).open(encoding="utf-8", newline="") as stream:
        for _ in csv.reader(stream):
            pass
    planes = pd.read_csv(folder / _PLANES)
    empty = [name for name in planes if planes[name].isna().all()]
    tables.check_columns(planes.drop(columns=empty), tuple(planes.columns.drop(empty)))
    row = {"field": "", "path": "", "status": "done", "message": ""} | row_of(folder)
    tables.ordered(pd.DataFrame([row]), "fields")
    return bool(describe_row(row))


def _summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def _header(folder: Path) -> list[str]:
    with (folder / _PLANES).open(encoding="utf-8", newline="") as stream:
        return next(csv.reader(stream), [])


def row_of(folder: Path) -> dict[str, Any]:
    """Read the numbers of one field from its published files.

    Parameters
    ----------
    folder : Path
        The directory of the field's results.

    Returns
    -------
    dict
        Columns of fields.csv, without those that say which field it is.
    """
    summary = _summary(folder)
    planes = pd.read_csv(folder / _PLANES)
    first = planes[planes["N"] == 1].to_dict("records")[0] if (planes["N"] == 1).any() else {}
    decay = summary["decay"] or {}
    row = {
        "sha256": summary["input"]["sha256"],
        "delta1_A": first.get("delta_A"),
        "delta1_err_A": first.get("delta_err_A"),
        "delta0_A": decay.get("delta0_A"),
        "delta0_err_A": decay.get("delta0_err_A"),
        "xi_planes": decay.get("xi_planes"),
        "plane1_occupancy": first.get("occupancy"),
        "plane1_occupancy_err": first.get("occupancy_err"),
        "n_warnings": len(summary["warnings"]),
        "warning_codes": ";".join(warning["code"] for warning in summary["warnings"]),
        "pixel_size_A": math.sqrt(math.prod(summary["pixel_size_A"])),
        "stemdisp": summary["stemdisp"],
    }
    row["xi_low_planes"], row["xi_high_planes"] = _ends(decay.get("xi_ci_planes"))
    for name, key in (("disp", "displacement"), ("vac", "vacancy"), ("difference", "difference")):
        depth = (summary["depth"] or {}).get(key) or {}
        row[f"N_{name}"] = depth.get("N")
        row[f"N_{name}_low"], row[f"N_{name}_high"] = _ends(depth.get("ci"))
    for name in ("", "_perp"):
        for error in ("", "_err"):
            row[f"bulk_offset{name}{error}_A"] = summary["bulk_offset_A"].get(f"delta{name}{error}")
    return row


def _ends(interval: Sequence[float | None] | None) -> tuple[float | None, float | None]:
    low, high = interval or (None, None)
    return low, high


def describe_row(row: Mapping[str, Any]) -> str:
    """Say in one line how a field ended.

    Parameters
    ----------
    row : mapping
        Columns of fields.csv.

    Returns
    -------
    str
        The main numbers, or why it failed.
    """
    if row["status"] != "done":
        return f"failed: {row['message']}"
    if not any(known(row[name]) for name in ("delta1_A", "xi_planes", "N_vac")):
        return "done; no depth profile"
    length, between = with_interval(row["xi_planes"], (row["xi_low_planes"], row["xi_high_planes"]))
    xi = f"{length} planes ({between})" if known(row["xi_planes"]) else length
    vacant = with_interval(row["N_vac"], (row["N_vac_low"], row["N_vac_high"]))[0]
    delta = measured(row["delta1_A"], row["delta1_err_A"], "Å")
    return f"delta(1) = {delta}, xi = {xi}, N_vac = {vacant}"


def write_tables(
    rows: Sequence[Mapping[str, Any]], folder: Path, *, kept: dict[str, str] | None = None
) -> pd.DataFrame:
    """Write fields.csv and planes.csv, each by renaming a finished file.

    Parameters
    ----------
    rows : sequence of mapping
        Columns of fields.csv, in order. The planes of those that are done are read from the
        fields' directories.
    folder : Path
        The output of the batch.
    kept : dict, optional
        The planes of fields as text, by name: what is missing is read and put there. So a batch
        reads each field's planes once, and not after every later field again.

    Returns
    -------
    DataFrame
        The content of fields.csv.
    """
    kept = {} if kept is None else kept
    names = [row["field"] for row in rows if row["status"] == "done"]
    write_then_rename(
        folder / _PLANES, lambda path: _gather_planes(names, folder, Path(path), kept)
    )
    blank = {name: "" for name, spec in tables.specs("fields").items() if spec.dtype == "str"}
    frame = pd.DataFrame([blank | dict(row) for row in rows], columns=list(tables.specs("fields")))
    table = tables.ordered(frame, "fields")
    write_then_rename(folder / "fields.csv", lambda path: write_csv(table, "fields", Path(path)))
    return table


def _gather_planes(names: Sequence[str], folder: Path, path: Path, kept: dict[str, str]) -> None:
    """Put the planes of all fields one after the other, cell by cell as they stand."""
    with path.open("w", newline="", **TEXT) as out:
        csv.writer(out, lineterminator="\n").writerow(["field", *tables.specs("planes")])
        for name in names:
            if name not in kept:
                kept[name] = _planes_of(name, folder)
            out.write(kept[name])


def _planes_of(name: str, folder: Path) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    with (folder / name / _PLANES).open(encoding="utf-8", newline="") as stream:
        lines = csv.reader(stream)
        next(lines, None)
        writer.writerows([name, *cells] for cells in lines)
    return text.getvalue()
