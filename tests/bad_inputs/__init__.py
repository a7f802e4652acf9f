"""A corpus of bad input: every case makes its files, and says how the command line must end.

A case is a function that fills an empty folder and returns the command to run there. It is
registered with what must come of it: an exit status, and for a refusal the words of its one line
that name the cause and the remedy. `server` runs the commands, `judge` holds their ends against
what was stated, `measure` counts. Good files stand among the bad ones, as negative controls: a
program that refuses everything would fail them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

GROUPS = ("files", "flips", "values", "axes", "specimens", "crystals", "settings", "places")


@dataclass(frozen=True)
class Call:
    """The command of a case: ``stemdisp run CONFIG --input INPUTS OPTIONS --output OUTPUT``."""

    inputs: tuple[str | Path, ...] = ()
    config: str | Path = ""  # text of a configuration, or the path of one that the case made
    options: tuple[str, ...] = ()
    output: str | Path | None = None  # folder/out, which holds old results
    work_in: Path | None = None  # the folder of the case, where none is named
    names: tuple[str | Path, ...] = ()  # further files, one of which a refusal may name


@dataclass(frozen=True)
class Around:
    """What surrounds the process of a case."""

    unprivileged: bool = False  # also for root, who may do anything whatever the permissions say
    disk: str = ""  # "full" or "read-only": old results on a small disk of its own
    largest_file: int | None = None  # bytes that a file may have
    fail_write: int | None = None  # the number of the write that finds the disk full
    nowhere: bool = False  # the working directory has been removed
    hold_lock: bool = False  # another run is writing to the output


@dataclass(frozen=True)
class Case:
    """One case; `cause`, `remedy` and `says` are regular expressions."""

    name: str
    make: Callable[[Path], Call]
    status: frozenset[int]
    cause: str = ""
    remedy: str = ""
    warns: frozenset[str] = frozenset()  # codes of the warnings of a run that ends with 0
    says: str = ""  # what they, or the summary on stdout, must say
    check: Callable[[Path], None] | None = None  # looks at the output of a run that ends with 0
    inspect: int | None = None  # status of "inspect" with the first input, where it is asked
    declared: int = 0  # bytes of data that the file claims to hold
    around: Around = field(default_factory=Around)
    slow: bool = False
    report: bool = False  # whether figures and page are written too, which takes longest
    names_file: bool = True  # whether a refusal must name the input, or the configuration


CASES: dict[str, Case] = {}


def case(
    name: str, status: int | tuple[int, ...], cause: str = "", remedy: str = "", **more: object
) -> Callable[[Callable[[Path], Call]], Callable[[Path], Call]]:
    """Register the function that makes the files of a case."""

    def register(make: Callable[[Path], Call]) -> Callable[[Path], Call]:
        assert name not in CASES, name
        wanted = frozenset([status] if isinstance(status, int) else status)
        assert wanted <= {0, 2, 3}, name
        assert wanted == {0} or len(wanted) > 1 or (cause and remedy), name
        CASES[name] = Case(name, make, wanted, cause, remedy, **more)
        return make

    return register


def all_cases() -> dict[str, Case]:
    """Load every group."""
    for group in GROUPS:
        importlib.import_module(f"bad_inputs.{group}")
    return CASES
