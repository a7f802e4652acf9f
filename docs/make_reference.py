"""Write the reference pages from the registries in the code, so that they cannot drift."""

from __future__ import annotations

from inspect import cleandoc
from pathlib import Path

import click

import stemdisp
from stemdisp import cli, plot, tables
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
        "commands.md": commands_page(),
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
        "After the meaning stand the type and the module that makes the column.",
    ]
    for table, note in _TABLE_NOTES.items():
        lines += ["", f"## {note}", "", "| column | unit | meaning |", "|---|---|---|"]
        for spec in tables.specs(table).values():
            meaning = f"{spec.meaning} ({spec.dtype}, `{spec.stage}`)"
            cells = (f"`{spec.name}`", spec.unit, meaning)
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


# What the steps return, with attributes that a session reads.
_OBJECTS = (
    "result.Result",
    "crystal.Projection",
    "lattice.Lattice",
    "interface.Interface",
    "register.Registration",
    "fit.Fit",
    "statistics.DecayFit",
    "statistics.Correlation",
    "depths.Depths",
    "depths.Depth",
    "corrections.Corrections",
    "simulate.Specimen",
    "simulate.Scan",
)
# Called by scripts, though not from the top of the package.
_BESIDE = (
    "batch.run_fields",
    "config.load_config",
    "sensitivity.sensitivity",
    "report.write",
    "statistics.null_test",
)


def _documented(name: str, directive: str = "autofunction") -> list[str]:
    text = f".. {directive}:: stemdisp.{name}\n   :no-index-entry:"
    if name.rpartition(".")[2] in stemdisp.__all__ and directive == "autoclass":
        text += "\n   :members:"
    return ["", f"### {name.rpartition('.')[2]}", "", "```{eval-rst}", text, "```"]


def api_page() -> str:
    """List the public functions, what they return, and the plots."""
    lines = [
        "# Library",
        "",
        "Functions return new objects and leave their inputs alone. Images are HyperSpy `Signal2D`",
        "with calibrated axes; tables are pandas data frames with [these columns](tables.md).",
        "",
        "## Functions",
        "",
        "They stand at the top of the package: `import stemdisp as sd`, then `sd.run(...)`.",
    ]
    for name in sorted(set(stemdisp.__all__) - {"__version__"}):
        if not isinstance(getattr(stemdisp, name), type):
            lines += _documented(f"{stemdisp._HOMES.get(name, name)}.{name}")
    lines += ["", "## Objects", "", "What the functions return or take beside images and tables."]
    for name in _OBJECTS:
        lines += _documented(name, "autoclass")
    lines += ["", "## Plots", "", "In `stemdisp.plot`. Each draws one panel of a finished run."]
    for name in plot.__all__:
        lines += _documented(f"plot.{name}")
    lines += ["", "## Further functions", "", "Imported from the module that is named."]
    for name in _BESIDE:
        lines += _documented(name)
    return "\n".join(lines) + "\n"


def commands_page() -> str:
    """List commands, arguments and options as the command line itself knows them."""
    lines = [
        "# Command line",
        "",
        "`stemdisp COMMAND --help` says the same. What ends a run is one line on stderr, and the",
        "[exit status](../output.md) says of what kind it is.",
    ]
    for name, command in cli.cli.commands.items():
        context = click.Context(command, info_name=f"stemdisp {name}")
        pieces = " ".join(command.collect_usage_pieces(context))
        lines += ["", f"## stemdisp {name}", "", "```text", f"stemdisp {name} {pieces}", "```", ""]
        for part in cleandoc(command.help or "").split("\n\n"):
            # what click leaves as it is are examples
            fence = ["```text", part.removeprefix("\b\n"), "```"]
            lines += [*(fence if part.startswith("\b") else [part]), ""]
        for option in command.params:
            record = option.get_help_record(context)
            if isinstance(option, click.Option) and record is not None:
                lines += ["", f"`{record[0]}`", f": {record[1]}"]
    lines += ["", "The keys of a configuration are on the page [](configuration.md)."]
    return "\n".join(lines) + "\n"
