"""Write the reference pages from the registries in the code, so that they cannot drift."""

from __future__ import annotations

from pathlib import Path

import stemdisp
from stemdisp import tables
from stemdisp.config import describe, toml_value

_TABLE_NOTES = {
    "columns": "`columns.csv`: one row per atomic column",
    "planes": "`planes.csv`: one row per plane",
    "line_profile": "`line_profile.csv`: image intensity along a row of columns",
    "frames": "`frames.csv`: one row per frame (only for a series)",
    "fields": "`fields.csv`: one row per field (only for a pattern of files)",
    "dose_series": "`dose_series.csv`: one row per point of the series and per cumulative mean",
}


def write_all(folder: Path) -> None:
    """Write all generated pages into `folder`."""
    folder.mkdir(exist_ok=True)
    pages = {
        "configuration.md": configuration_page(),
        "tables.md": tables_page(),
        "quality.md": quality_page(),
        "api.md": api_page(),
    }
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def configuration_page() -> str:
    """List the keys of the configuration."""
    lines = [
        "# Configuration",
        "",
        "A run is described by a TOML file. Every key has a default, so an empty file is a",
        "complete run of the sample data. An unknown key is refused with the nearest known one.",
    ]
    table = ""
    for spec in describe():
        home, name = spec.key.split(".")
        if home != table:
            table = home
            lines += ["", f"## [{table}]"]
        lines += ["", f"`{name}` = `{toml_value(spec.default)}`", f": {spec.doc} Give {spec.type}."]
    return "\n".join(lines) + "\n"


def tables_page() -> str:
    """List the columns of the tables."""
    lines = [
        "# Tables",
        "",
        "The files in the output directory and the tables of the library have the same columns.",
        "A value that is not defined or could not be measured is empty (not a number).",
    ]
    for table, note in _TABLE_NOTES.items():
        lines += ["", f"## {note}", "", "| column | unit | type | made by | meaning |"]
        lines.append("|---|---|---|---|---|")
        for spec in tables.specs(table).values():
            cells = (f"`{spec.name}`", spec.unit, spec.dtype, f"`{spec.stage}`", spec.meaning)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def quality_page() -> str:
    """List the quality bits."""
    lines = [
        "# Quality bits",
        "",
        "`quality` in the columns table is a sum of these numbers; 0 means that nothing is known",
        "against the column. Columns with a bit marked *left out* take no part in averages.",
        "",
        "| bit | name | what it says | meaning | averages |",
        "|---|---|---|---|---|",
    ]
    for spec in tables.QUALITY_BITS:
        used = "left out" if spec.bit & tables.UNUSABLE else "used"
        cells = (str(int(spec.bit)), f"`{spec.bit.name}`", spec.short, spec.meaning, used)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def api_page() -> str:
    """List the public functions."""
    lines = [
        "# Library",
        "",
        "Functions return new objects and leave their inputs alone. Images are HyperSpy `Signal2D`",
        "with calibrated axes; tables are pandas data frames with [these columns](tables.md).",
    ]
    for name in sorted(set(stemdisp.__all__) - {"__version__"}):
        home = f"stemdisp.{stemdisp._HOMES.get(name, name)}"
        kind = "autofunction"
        if isinstance(getattr(stemdisp, name), type):
            kind = "autoclass"
        directive = f".. {kind}:: {home}.{name}\n   :no-index-entry:"
        if kind == "autoclass":
            directive += "\n   :members:"
        lines += ["", f"## {name}", "", "```{eval-rst}", directive, "```"]
    return "\n".join(lines) + "\n"
