"""A configuration file to start from: every key with its default, explained beside it."""

from __future__ import annotations

import textwrap
from itertools import groupby

from stemdisp._configcheck import toml_value
from stemdisp.config import KeySpec, describe

_WIDTH = 96
_HEAD = """\
# Configuration of stemdisp. Every key stands here with its default: leave out what you do not
# change. Run it with: stemdisp run THIS_FILE --input image.dm4 --output results
"""


def template() -> str:
    """Write a configuration that names every key, with its default and what it means.

    Returns
    -------
    str
        TOML. Keys without a default are commented out.
    """
    parts = [_HEAD]
    for table, specs in groupby(describe(), key=_table):
        parts.append(f"\n[{table}]\n" + "".join(map(_entry, specs)))
    return "".join(parts)


def _table(spec: KeySpec) -> str:
    return spec.key.partition(".")[0]


def _entry(spec: KeySpec) -> str:
    """Write one key under its explanation."""
    text = textwrap.fill(
        f"{spec.doc} ({spec.type})", _WIDTH, initial_indent="# ", subsequent_indent="# "
    )
    name = spec.key.partition(".")[2]
    off = "" if spec.default is not None else "# "
    return f"{text}\n{off}{name} = {toml_value(spec.default)}\n"
