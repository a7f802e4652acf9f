"""Many fields: every file analysed by itself, one table of all.

A field's results are published whole or not at all, and the tables are made from what is
published; so whatever ends a batch, what is finished stays, and the next call goes on from there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stemdisp import __version__, _publish
from stemdisp._field_row import describe_row, is_current, row_of, write_tables
from stemdisp._patterns import field_names, in_order
from stemdisp._printable import one_line
from stemdisp._provenance import settings_of, sha256_of
from stemdisp._stores import is_data
from stemdisp.config import Config, with_input
from stemdisp.errors import explain

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Outcome:
    """How the analysis of one field ended: ``message`` is empty where it is done."""

    message: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class _Field:
    name: str
    path: str
    folder: Path


@dataclass
class _Book:
    """The rows of what is finished, and the files and lines that tell of them."""

    folder: Path
    fields: list[_Field]
    bar: Any
    tell: Callable[[str], None] | None
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    planes: dict[str, str] = field(default_factory=dict)

    def enter(self, done: _Field, outcome: Outcome) -> None:
        """Take down one field."""
        row = {"field": done.name, "path": done.path, "status": "done", "message": ""}
        if outcome.message:
            row |= {"status": "failed", "message": outcome.message, "sha256": outcome.sha256}
            row["stemdisp"] = __version__
        else:
            row |= row_of(done.folder)
        self.rows[done.name] = row
        self.planes.pop(done.name, None)

    def write(self) -> pd.DataFrame:
        """Write both tables, in the order of the paths; return that of the fields."""
        rows = [self.rows[each.name] for each in self.fields if each.name in self.rows]
        return write_tables(rows, self.folder, kept=self.planes)

    def announce(self, done: _Field, *, note: str = "") -> None:
        """Say how a field ended."""
        self.bar.update()
        if self.tell is not None:
            text = one_line(describe_row(self.rows[done.name]))
            with self.bar.external_write_mode():
                self.tell(f"{len(self.rows)}/{len(self.fields)} {done.name}: {text}{note}")


def run_fields(
    config: Config,
    paths: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    executor: Executor | None = None,
    progress: bool = False,
    tell: Callable[[str], None] | None = None,
) -> pd.DataFrame:
    """Analyse every file as a field of its own.

    A field whose results are there already, of the same file, the same configuration and the same
    version of stemdisp, is not analysed again. A field that fails does not stop the others.

    Parameters
    ----------
    config : Config
        How to analyse; its own ``input.path`` is not used.
    paths : sequence of path
        One file per field, or FILE::NAME.
    output : path
        Each field's results go to a directory in it, and two tables of all fields,
        ``fields.csv`` and ``planes.csv``, which are brought up to date after each field.
    executor : concurrent.futures.Executor, optional
        Who runs the fields; by default they run one after the other in this process. Its workers
        must see the same files under the same names.
    progress : bool
        Show a progress bar (on a terminal only).
    tell : callable, optional
        Gets one line of text for each field.

    Returns
    -------
    DataFrame
        The content of ``fields.csv``, one row per field, in natural order of the paths; columns
        as registered in `stemdisp.tables`.

    Raises
    ------
    ConfigError
        The configuration cannot be used for any field, or `output` cannot be written to.
    DataError
        A file that the configuration names cannot be used.
    ValueError
        `paths` is empty.
    """
    from tqdm import tqdm

    names = in_order(dict.fromkeys(os.fspath(path) for path in paths))
    if not names:
        raise ValueError("paths names no file; give at least one")
    _check(config)
    settings = settings_of(config)
    shown = {"desc": "fields", "leave": False, "disable": None if progress else True}
    with _publish.hold(output) as folder, tqdm(total=len(names), **shown) as bar:
        fields = [
            _Field(name, path, folder / name)
            for name, path in zip(field_names(names), names, strict=True)
        ]
        book = _Book(folder, fields, bar, tell)
        for each in fields:
            _publish.settle(each.folder)
            if is_current(each.folder, each.path, settings):
                book.enter(each, Outcome())
                book.announce(each, note=" (kept)")
        table = book.write()
        left = [each for each in fields if each.name not in book.rows]
        with _outcomes(config, left, executor, progress=progress) as outcomes:
            for each, outcome in outcomes:
                book.enter(each, outcome)
                table = book.write()
                book.announce(each)
        return table


def _check(config: Config) -> None:
    """Find out before the first field what would end all of them."""
    from stemdisp import pipeline

    pipeline.check_settings(config)


@contextmanager
def _outcomes(
    config: Config, fields: list[_Field], executor: Executor | None, *, progress: bool
) -> Iterator[Iterator[tuple[_Field, Outcome]]]:
    """Give each field with its outcome as it ends; forget at the end what has not begun."""
    if executor is None:
        yield (
            (each, analyse_field(with_input(config, (each.path,)), each.folder, progress=progress))
            for each in fields
        )
        return
    calls = {
        executor.submit(analyse_field, with_input(config, (each.path,)), each.folder): each
        for each in fields
    }
    try:
        yield ((calls[call], _outcome_of(call, calls[call])) for call in as_completed(calls))
    finally:
        for call in calls:
            call.cancel()


def _outcome_of(call: Any, each: _Field) -> Outcome:
    """Take a worker's answer; a worker that is lost is a failure of its field only."""
    try:
        return call.result()
    except Exception as err:  # noqa: BLE001 - whatever a worker can die of
        return _failure(err, each.path)


def analyse_field(
    config: Config, folder: str | os.PathLike[str], *, progress: bool = False
) -> Outcome:
    """Analyse one field and publish its results.

    Parameters
    ----------
    config : Config
        What to run, with the field's file.
    folder : path
        Where to publish; left as it was if anything goes wrong.
    progress : bool
        Show a progress bar (on a terminal only).

    Returns
    -------
    Outcome
        An error is told here, not raised.
    """
    from stemdisp import pipeline, report

    try:
        with _publish.publish(folder) as new:
            report.write(pipeline.run(config, progress=progress), new, progress=progress)
    except Exception as err:  # noqa: BLE001 - a defect in one field must not end the others
        return _failure(err, config.input.path[0])
    return Outcome()


def _failure(error: Exception, path: str) -> Outcome:
    text, status = explain(error)
    try:
        digest = sha256_of([path]) if is_data(path.partition("::")[0]) else ""
    except OSError:
        digest = ""
    return Outcome(f"{text} (exit status {status})", digest)
