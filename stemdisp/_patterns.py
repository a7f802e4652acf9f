"""Patterns of file names: which files they mean, and what the results of each are called.

Everything here is text; a name is never looked up outside `expand` and `is_pattern`.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from stemdisp._publish import BATCH_TABLES
from stemdisp._stores import is_data
from stemdisp.errors import ConfigError

_MAGIC = re.compile(r"[*?[]")
# Longest name in bytes: with what `_publish` puts around it, it must fit into 255.
_MAX_BYTES = 150
# Not names of directories on every system.
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def is_pattern(name: str) -> bool:
    """Tell whether a name means several files.

    Parameters
    ----------
    name : str
        A path, or FILE::NAME.

    Returns
    -------
    bool
        Whether its file holds ``*``, ``?`` or ``[`` and is not itself there.
    """
    file = name.partition("::")[0]
    return _MAGIC.search(file) is not None and not os.path.lexists(file)


def expand(names: Sequence[str], *, leave_out: str | os.PathLike[str]) -> list[str]:
    """List the files that patterns mean, each once, in natural order.

    Parameters
    ----------
    names : sequence of str
        Patterns as `glob` knows them (``**`` is any depth); what follows ``::`` is kept.
    leave_out : path
        A directory whose files are never meant: the output.

    Returns
    -------
    list of str
        Of two links to one file, the first.

    Raises
    ------
    ConfigError
        If a plain path stands among the patterns, or one of them means no file.
    """
    plain = [name for name in names if not is_pattern(name)]
    if plain:
        pattern = next(name for name in names if is_pattern(name))
        raise ConfigError(
            f"input: {pattern!r} is a pattern (every file is a field of its own), but {plain[0]!r} "
            "is a file (a frame of one series); give patterns only, or files only"
        )
    found: dict[str, str] = {}
    for name in names:
        for path in _matching(name, leave_out):
            found.setdefault(os.path.realpath(path.partition("::")[0]) + _signal(path), path)
    return in_order(found.values())


def _matching(name: str, leave_out: str | os.PathLike[str]) -> list[str]:
    """List the files of one pattern, or say why there are none."""
    pattern, mark, signal = name.partition("::")
    if "\0" in pattern:
        raise ConfigError(f"input {name!r} holds a character that no file name has; correct it")
    files = [path for path in glob.glob(pattern, recursive=True) if is_data(path)]
    outside = [path for path in files if not _is_within(path, leave_out)]
    if not outside:
        why = (
            f"matches only files in the output {os.fspath(leave_out)!r}; write somewhere else"
            if files
            else "matches no file; check the pattern and the working directory"
        )
        raise ConfigError(f"input {name!r} {why}")
    return sorted(path + mark + signal for path in outside)


def anchored(name: str, folders: Sequence[Path]) -> str:
    """Start a relative pattern at the first folder where it means a file.

    Parameters
    ----------
    name : str
        A pattern.
    folders : sequence of path
        Where to look.

    Returns
    -------
    str
        The pattern below that folder, else as it was given.
    """
    pattern, mark, signal = name.partition("::")
    for folder in folders:
        whole = os.path.join(glob.escape(str(folder)), pattern) if folder != Path() else pattern
        if "\0" not in whole and any(map(is_data, glob.iglob(whole, recursive=True))):
            return whole + mark + signal
    return name


def _is_within(path: str, folder: str | os.PathLike[str]) -> bool:
    """Tell whether a file, or what it links to, lies in a directory."""
    whole = Path(os.path.realpath(folder))
    beside = Path(os.path.realpath(os.path.dirname(path) or "."))
    return whole in (beside, *beside.parents, *Path(os.path.realpath(path)).parents)


def in_order(paths: Iterable[str]) -> list[str]:
    """Sort paths as people do, folder by folder: ``field2`` before ``field10``.

    Parameters
    ----------
    paths : iterable of str
        The paths.

    Returns
    -------
    list of str
    """
    return sorted(paths, key=lambda path: (*map(_natural, Path(path).parts), [path]))


def _natural(part: str) -> list[str]:
    """Split a name into text and numbers, which take turns and so can be compared."""
    pieces = re.split(r"([0-9]+)", part.casefold())
    # by length and digits: Python makes no number of more than 4300 digits
    numbers = [piece.lstrip("0") for piece in pieces[1::2]]
    pieces[1::2] = [f"{len(number):09d}{number}" for number in numbers]
    return pieces


def _signal(path: str) -> str:
    return "".join(path.partition("::")[1:])


def field_names(paths: Sequence[str]) -> list[str]:
    """Name the results of each file: safe as a directory, and different on every system.

    The name is the file's stem. Files that share one get their suffix into the name, or their
    folders, whichever tells all of them apart; as a last resort a checksum of the path. A name
    depends on the set of paths only.

    Parameters
    ----------
    paths : sequence of str
        Different paths.

    Returns
    -------
    list of str
        One per path.
    """
    groups: dict[str, list[str]] = {}
    for path in paths:
        groups.setdefault(next(_candidates(path)).casefold(), []).append(path)
    chosen: dict[str, str] = {}
    for group in groups.values():
        chosen |= _tell_apart(group)
    taken = Counter(name.casefold() for name in chosen.values())
    for path, name in chosen.items():
        if taken[name.casefold()] > 1:
            digest = hashlib.sha256(os.fsencode(path)).hexdigest()
            chosen[path] = f"{name}-{digest[:12]}"
    return [chosen[path] for path in paths]


def _tell_apart(paths: list[str]) -> dict[str, str]:
    """Choose the first kind of name that differs for all paths; else the longest kind."""
    candidates = [list(_candidates(path)) for path in paths]
    names: list[str] = []
    for level in range(max(map(len, candidates))):
        names = [options[min(level, len(options) - 1)] for options in candidates]
        if len({name.casefold() for name in names}) == len(paths):
            break
    return dict(zip(paths, names, strict=True))


def _candidates(path: str) -> Iterator[str]:
    """Yield the stem, the whole name, and both with more and more of the folders."""
    file = Path(path.partition("::")[0])
    folders = [part for part in file.parent.parts if part not in (file.anchor, "..")]
    for depth in range(len(folders) + 1):
        lead = folders[len(folders) - depth :]
        yield _safe("-".join([*lead, file.stem]))
        yield _safe("-".join([*lead, file.name]))


def _safe(text: str) -> str:
    """Turn any text into the name of a directory."""
    text = re.sub(r"[^\w.-]", "_", unicodedata.normalize("NFC", text))
    text = text.encode("utf-8")[:_MAX_BYTES].decode("utf-8", "ignore").lstrip(".-").rstrip(".")
    if text.casefold() in BATCH_TABLES or _RESERVED.fullmatch(text):
        text += "_"
    return text or "field"
