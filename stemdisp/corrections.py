"""Corrections by hand: what was removed, added, moved or relabelled, and the file that keeps it.

A list of single corrections, in the order in which they were made. A run applies them to the
columns that it expects, before it fits them; see `stemdisp._correct`.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stemdisp._configcheck import read_toml, toml_value
from stemdisp.errors import ConfigError

if TYPE_CHECKING:
    from stemdisp.result import Result

Point = tuple[float, float]

FORMAT = 1
FILE_NAME = "corrections.toml"  # of the copy in a run's output
# What each action needs beside its name.
ACTIONS: dict[str, tuple[str, ...]] = {
    "remove": ("at_px",),
    "add": ("at_px", "species"),
    "move": ("at_px", "to_px"),
    "relabel": ("at_px", "species"),
    "interface": ("points_px",),
}
_DONE = {
    "remove": "removed",
    "add": "added",
    "move": "moved",
    "relabel": "relabelled",
    "interface": "interface",
}
_IMAGE_KEYS = ("size_px", "sha256", "input")
_SPECIES = re.compile(r"[A-Z][A-Za-z0-9]*")
_HEAD = """\
# Corrections by hand for stemdisp. Positions are pixels (x right, y down, centres at whole
# numbers) of the aligned mean image, as x_px and y_px in columns.csv.
"""


@dataclass(frozen=True)
class Correction:
    """One correction.

    Attributes
    ----------
    action : {"remove", "add", "move", "relabel", "interface"}
        What is done.
    at_px : (float, float) or None
        Where (x, y): the column that is meant, or the place of a new one.
    species : str
        With "add" and "relabel": that of the column.
    to_px : (float, float) or None
        With "move": where its fit starts.
    points_px : tuple of (float, float)
        With "interface": one point of plane N = 1, or two of a line beyond which no column lies.
    """

    action: str
    at_px: Point | None = None
    species: str = ""
    to_px: Point | None = None
    points_px: tuple[Point, ...] = ()

    def __str__(self) -> str:
        """Say in a few words what it does."""
        if self.action == "interface":
            return f"interface through {', '.join(map(_words, self.points_px))}"
        more = f" to {_words(self.to_px)}" if self.to_px is not None else ""
        name = f" {self.species}" if self.species else ""
        return f"{self.action}{name} at {_words(self.at_px)}{more}"


@dataclass(frozen=True)
class ImageId:
    """Which image corrections were made on.

    Attributes
    ----------
    size_px : (int, int) or None
        Width and height of the aligned mean image.
    sha256 : str
        Checksum of the input files, as in ``summary.json``; empty for a signal of a session.
    input : str
        Name of the first of them, for people.
    """

    size_px: tuple[int, int] | None = None
    sha256: str = ""
    input: str = ""


@dataclass(frozen=True)
class Corrections:
    """Corrections of one image, in their order; every method returns new ones.

    Attributes
    ----------
    steps : tuple of Correction
        What was done, the oldest first.
    image : ImageId or None
        The image that they belong to; None lets them be used with any.
    """

    steps: tuple[Correction, ...] = ()
    image: ImageId | None = None

    @classmethod
    def of(cls, result: Result) -> Corrections:
        """Start with the corrections that a run was made with: none, for an automatic one.

        Parameters
        ----------
        result : Result
            A finished run, whose image they will belong to.

        Returns
        -------
        Corrections
        """
        said = result.summary["input"]
        height, width = result.image.shape
        name = Path(said["path"][0]).name if said["path"] else ""
        image = ImageId((int(width), int(height)), said["sha256"] or "", name)
        steps = () if result.corrections is None else result.corrections.steps
        return cls(steps, image)

    def remove(self, x_px: float, y_px: float) -> Corrections:
        """Take the column that is expected here out of the results.

        Parameters
        ----------
        x_px, y_px : float
            Nearer to it than half the distance between columns.

        Returns
        -------
        Corrections
        """
        return self.with_step(Correction("remove", (x_px, y_px)))

    def add(self, species: str, x_px: float, y_px: float) -> Corrections:
        """Fit a column that is not expected here; or take back that it was removed.

        Parameters
        ----------
        species : str
            One of the crystal's.
        x_px, y_px : float
            Where its fit starts.

        Returns
        -------
        Corrections
        """
        return self.with_step(Correction("add", (x_px, y_px), species))

    def move(self, start_px: Point, to_px: Point) -> Corrections:
        """Let the fit of a column start elsewhere.

        Parameters
        ----------
        start_px : (float, float)
            The column: x, y near the site at which it is expected.
        to_px : (float, float)
            Where it is seen.

        Returns
        -------
        Corrections
        """
        return self.with_step(Correction("move", start_px, to_px=to_px))

    def relabel(self, x_px: float, y_px: float, species: str) -> Corrections:
        """Take a column for one of another species.

        Parameters
        ----------
        x_px, y_px : float
            Where it is expected.
        species : str
            One of the crystal's.

        Returns
        -------
        Corrections
        """
        return self.with_step(Correction("relabel", (x_px, y_px), species))

    def move_interface(self, points_px: Iterable[Point]) -> Corrections:
        """State the interface, as ``[interface] at`` of the configuration does.

        Parameters
        ----------
        points_px : one or two (x, y)
            One: plane N = 1 runs through it. Two: a line beyond which no column lies.

        Returns
        -------
        Corrections
        """
        return self.with_step(Correction("interface", points_px=tuple(points_px)))

    def with_step(self, step: Correction) -> Corrections:
        """Append a correction.

        Parameters
        ----------
        step : Correction
            Its numbers are checked.

        Returns
        -------
        Corrections

        Raises
        ------
        ValueError
            An unknown action, a position that is not finite, or something lacks or is too much.
        """
        return replace(self, steps=(*self.steps, _checked(step)))

    def undo(self) -> Corrections:
        """Take the last correction back; without any, nothing changes."""
        return replace(self, steps=self.steps[:-1])

    @property
    def interface(self) -> tuple[Point, ...] | None:
        """Points of the interface, those that were stated last; None if it was left alone."""
        stated = [step.points_px for step in self.steps if step.action == "interface"]
        return stated[-1] if stated else None

    def count(self) -> dict[str, int]:
        """Count the corrections by kind: ``removed, added, moved, relabelled, interface``."""
        return {
            name: sum(step.action == action for step in self.steps)
            for action, name in _DONE.items()
        }

    def to_toml(self) -> str:
        """Write the content of the file."""
        lines = [_HEAD + f"format = {FORMAT}"]
        if self.image is not None:
            lines += ["", "[image]"]
            lines += [
                f"{k} = {toml_value(v)}" for k in _IMAGE_KEYS if (v := getattr(self.image, k))
            ]
        for step in self.steps:
            lines += ["", "[[correction]]", f"action = {toml_value(step.action)}"]
            lines += [f"{key} = {toml_value(getattr(step, key))}" for key in ACTIONS[step.action]]
        return "\n".join(lines) + "\n"

    def sha256(self) -> str:
        """Compute the checksum of the file's content."""
        return hashlib.sha256(self.to_toml().encode()).hexdigest()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the file, whole or not at all.

        Parameters
        ----------
        path : path
            Where to; an existing file of corrections is replaced.

        Returns
        -------
        Path

        Raises
        ------
        ConfigError
            The path holds something else, a configuration for example, which stays.
        """
        from stemdisp._publish import write_then_rename

        text, target = self.to_toml(), Path(path)
        if target.exists():
            try:
                load_corrections(target)
            except ConfigError as err:
                raise ConfigError(
                    f"{target} exists and is no file of corrections, so it stays as it is; save "
                    f"to another name ({err})"
                ) from err
        write_then_rename(target, lambda new: Path(new).write_text(text, encoding="utf-8"))
        return target

    def describe(self) -> str:
        """Say in words what was done: "3 corrections by hand: 2 removed, 1 added"."""
        parts = [f"{n} {name}" for name, n in self.count().items() if n and name != "interface"]
        parts += ["interface stated"] if self.interface else []
        many = "" if len(self.steps) == 1 else "s"
        return f"{len(self.steps)} correction{many} by hand: {', '.join(parts) or 'none'}"


def load_corrections(path: str | os.PathLike[str]) -> Corrections:
    """Read corrections from the file that `Corrections.save` writes.

    Parameters
    ----------
    path : path
        A TOML file.

    Returns
    -------
    Corrections

    Raises
    ------
    ConfigError
        The file cannot be read, is not TOML, has a later format, or a correction is not allowed.
    """
    tables = read_toml(Path(path), "file of corrections")
    try:
        return _from_tables(tables)
    except ValueError as err:
        raise ConfigError(f"{path}: {err}") from err


def _from_tables(tables: Mapping[str, Any]) -> Corrections:
    """Check what a file holds."""
    tables_of_configuration = {"input", "crystal", "specimen", "interface", "refine", "analysis"}
    if tables.keys() & tables_of_configuration:
        raise ValueError(
            "is a configuration, not a file of corrections; give it as CONFIG, and as corrections "
            "the file that stemdisp edit saved"
        )
    _refuse_unknown("the file", tables, ("format", "image", "correction"))
    if tables.get("format") != FORMAT:
        raise ValueError(
            f"format = {tables.get('format')!r} is not {FORMAT}, the one that this version of "
            "stemdisp reads; is it a file of corrections?"
        )
    rows = tables.get("correction", [])
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise ValueError("correction is not a list of tables; write [[correction]] before each")
    found = Corrections(image=_image(tables["image"]) if "image" in tables else None)
    for number, row in enumerate(rows, start=1):
        try:
            found = found.with_step(_step(row))
        except ValueError as err:
            raise ValueError(f"correction {number}: {err}") from err
    return found


def _image(table: Any) -> ImageId:
    if not isinstance(table, Mapping):
        raise ValueError("image is not a table; write [image] on a line of its own")
    _refuse_unknown("[image]", table, _IMAGE_KEYS)
    size = table.get("size_px")
    good = size is None or (
        isinstance(size, list) and len(size) == 2 and all(type(n) is int and n > 0 for n in size)
    )
    texts = [table.get(key, "") for key in ("sha256", "input")]
    if not good or not all(isinstance(text, str) for text in texts):
        raise ValueError("[image] needs size_px = [width, height], and sha256 and input as text")
    return ImageId(None if size is None else (size[0], size[1]), *texts)


def _step(row: Mapping[str, Any]) -> Correction:
    """Read one correction; its values are checked later."""
    action = _known_action(row.get("action"))
    _refuse_unknown(f"{action!r}", row, ("action", *ACTIONS[action]))
    lacking = [key for key in ACTIONS[action] if key not in row]
    if lacking:
        raise ValueError(f"{action!r} lacks {lacking[0]}; it needs {', '.join(ACTIONS[action])}")
    return Correction(**row)


def _refuse_unknown(where: str, table: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            raise ValueError(f"{where} has no key {key!r}; {_nearest(key, known)}")


def _nearest(name: Any, known: Iterable[str]) -> str:
    """Name the nearest known name, or all of them."""
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"


def _known_action(action: Any) -> str:
    if not isinstance(action, str) or action not in ACTIONS:
        raise ValueError(
            f"there is no action {action!r}; {_nearest(action, ACTIONS)}".replace("it has", "use")
        )
    return action


def _checked(step: Correction) -> Correction:
    """Give a correction with plain numbers, or say what is wrong with it."""
    _known_action(step.action)
    needs = ACTIONS[step.action]
    values: dict[str, Any] = {}
    for key in ("at_px", "to_px"):
        if key in needs:
            values[key] = _point(key, getattr(step, key))
    if "points_px" in needs:
        points = step.points_px
        if not isinstance(points, list | tuple) or len(points) not in (1, 2):
            raise ValueError(f"points_px = {points!r} is not one point [x, y] or two of them")
        values["points_px"] = tuple(_point("points_px", point) for point in points)
        if len(points) == 2 and math.dist(*values["points_px"]) < 1:
            raise ValueError("points_px are the same point twice; give two ends of the line")
    if "species" in needs and not (
        isinstance(step.species, str) and _SPECIES.fullmatch(step.species)
    ):
        raise ValueError(f"species = {step.species!r} is not a species; write it like 'K'")
    return replace(step, **values)


def _point(key: str, value: Any) -> Point:
    """Check a position."""
    try:
        x, y = value
        if isinstance(x, str | bool) or isinstance(y, str | bool):
            raise TypeError
        x, y = float(x), float(y)
    except (TypeError, ValueError):
        x = y = math.nan
    if not (math.isfinite(x) and math.isfinite(y)):
        raise ValueError(f"{key} = {value!r} is not a position x, y in px; give two finite numbers")
    return x, y


def _words(point: Point | None) -> str:
    return "nowhere" if point is None else f"({point[0]:g}, {point[1]:g})"
