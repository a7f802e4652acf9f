"""Files of TOML, checks of single configuration values, and words for what is wrong with a name."""

from __future__ import annotations

import difflib
import math
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stemdisp._patterns import anchored, is_pattern
from stemdisp._printable import is_hidden
from stemdisp._texts import read_small
from stemdisp.errors import ConfigError

Indices = tuple[int, int, int]


def toml_value(value: Any) -> str:
    """Write one value of the configuration as TOML.

    Parameters
    ----------
    value : bool, int, float, str, or a sequence or mapping of these
        The value.

    Returns
    -------
    str
        Its TOML text.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {toml_value(v)}" for key, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    return repr(value)


def with_lists(value: Any) -> Any:
    """Turn tuples into lists, as JSON would, also within dictionaries and lists."""
    if isinstance(value, dict):
        return {key: with_lists(item) for key, item in value.items()}
    return [with_lists(item) for item in value] if isinstance(value, list | tuple) else value


def _quoted(text: str) -> str:
    """Write a text as a TOML string of one line, with escapes for what would not be seen."""
    text = text.encode("utf-8", "backslashreplace").decode()  # bytes of a name that are no text
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    plain = "".join(f"\\U{ord(c):08x}" if is_hidden(c) else c for c in text)
    return f'"{plain}"'


def dot(a: Indices, b: Indices) -> int:
    """Multiply plane and direction indices (the zone law; holds in any crystal system)."""
    return sum(p * q for p, q in zip(a, b, strict=True))


def check_indices(name: str, value: Indices) -> None:
    """Refuse three zeros."""
    if not any(value):
        raise ValueError(f"{name} = {list(value)} has no direction; one index must differ from 0")


def check_points(name: str, value: tuple[tuple[float, float], ...]) -> None:
    """Refuse anything but one finite point, or two different ones."""
    good = len(value) in (1, 2) and all(math.isfinite(x) for point in value for x in point)
    if not good or (len(value) == 2 and math.dist(value[0], value[1]) < 1):
        raise ValueError(
            f'{name} = {toml_value(value)} is not allowed; give "auto", one point [[x, y]], or two '
            "that are 1 px or more apart [[x, y], [x, y]]"
        )


def check_word_or_positive(
    name: str, value: str | float, words: tuple[str, ...], what: str
) -> None:
    """Refuse anything but one of the words or a finite number above 0."""
    allowed = ", ".join(f'"{word}"' for word in words) + f" or {what}, above 0"
    if isinstance(value, str):
        good = value in words
    else:
        good = math.isfinite(value) and value > 0
    if not good:
        raise ValueError(f"{name} = {toml_value(value)} is not allowed; give {allowed}")


def explain_unknown_table(table: str, known: dict[str, list[str]]) -> str:
    """Explain an unknown name at the top level."""
    for home, names in known.items():
        if table in names:
            return f"{table!r} stands outside its table; put it under [{home}]"
    near = difflib.get_close_matches(table, known, n=1, cutoff=0.5)
    if near:
        return f"there is no table [{table}]; did you mean [{near[0]}]?"
    listed = ", ".join(f"[{name}]" for name in known)
    return f"there is no table [{table}]; the tables are {listed}"


def explain_unknown_key(table: str, key: str, known: dict[str, list[str]]) -> str:
    """Explain an unknown key: the nearest name over all tables, this table's first."""
    homes: dict[str, str] = {}
    for home, names in [(table, known[table]), *known.items()]:
        for name in names:
            homes.setdefault(name, home)
    near = difflib.get_close_matches(key, homes, n=1, cutoff=0.5)
    if not near:
        return f"[{table}] has no key {key!r}; it has {', '.join(known[table])}"
    home = homes[near[0]]
    where = "" if home == table else f" in [{home}]"
    return f"[{table}] has no key {key!r}; did you mean {near[0]!r}{where}?"


def refuse_unknown(tables: Mapping[str, Any], known: dict[str, list[str]]) -> None:
    """Raise a ConfigError for the first table or key that does not exist."""
    for table, content in tables.items():
        if table not in known:
            raise ConfigError(explain_unknown_table(table, known))
        if not isinstance(content, Mapping):
            raise ConfigError(f"{table} is a table; write [{table}] on a line of its own")
        for key in content:
            if key not in known[table]:
                raise ConfigError(explain_unknown_key(table, key, known))


def explain_invalid(message: str, tables: Mapping[str, Any], allowed: Mapping[str, str]) -> str:
    """Turn a validation message into one that names table, key, value and what is allowed."""
    text, _, where = message.partition(" - at `$")
    names = re.findall(r"\.(\w+)", where)
    if len(names) < 2:
        table = f"[{names[0]}] " if names else ""
        return table + text
    table, key = names[:2]
    value = toml_value(tables[table][key])
    return f"[{table}] {key} = {value} is not allowed; give {allowed[f'{table}.{key}']}"


def check_charges(name: str, value: Mapping[str, float]) -> None:
    """Raise a ValueError unless every charge is a finite number of a named species."""
    for species, charge in value.items():
        if not re.fullmatch(r"[A-Z][a-z]?", species) or not math.isfinite(charge):
            raise ValueError(
                f"{name} = {toml_value(dict(value))} is not a table of species and charges in e; "
                "write it like {K = 1.0, O = -2.0}"
            )


def first_existing(name: str, folders: tuple[Path, ...]) -> str:
    """Return the first place where a file, or one of a pattern, is; else the name as given."""
    file, mark, signal = name.partition("::")
    for folder in folders:
        if os.path.exists(folder / file):  # False, too, for what cannot be a name
            return str(folder / file) + mark + signal
    return anchored(name, folders) if is_pattern(name) else name


def refuse_corrections(tables: Mapping[str, Any], path: Path) -> None:
    """Refuse a file of corrections in place of a configuration, by what it is."""
    if tables.keys() & {"correction", "format"}:
        raise ConfigError(
            f"{path}: is a file of corrections, not a configuration; name a configuration, and "
            "give this file with --corrections"
        )


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Read a TOML file that a user wrote.

    Parameters
    ----------
    path : Path
        The file.
    what : str
        What it should be, for the message where there is none.

    Returns
    -------
    dict
        Its tables.

    Raises
    ------
    ConfigError
        If it cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(read_small(path, what).decode("utf-8-sig"))
    except UnicodeDecodeError as err:
        raise ConfigError(f"{path}: is not text in UTF-8; give a TOML file") from err
    except tomllib.TOMLDecodeError as err:
        reason = " ".join(str(err).split())[:160]
        raise ConfigError(f"{path}: is not valid TOML: {reason}; correct it") from err
    except RecursionError as err:
        raise ConfigError(f"{path}: is nested too deeply; write it without so many [") from err
    except ValueError as err:
        raise ConfigError(f"{path}: {err}") from err
