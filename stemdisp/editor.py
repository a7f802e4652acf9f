"""Corrections by clicking: a window with the image, its columns and the interface.

The window only writes down what a run is to do differently; it fits nothing. Every key and click
becomes a call of `stemdisp.Corrections`, so what it saves is what calls would have saved.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import cKDTree

from stemdisp import _edit_view as view
from stemdisp._correct import WITHIN, Expected, correct_columns, spacing_px
from stemdisp.corrections import FILE_NAME, Correction, Corrections, Point
from stemdisp.errors import ConfigError, DataError
from stemdisp.find import find_columns

if TYPE_CHECKING:
    import pandas as pd

    from stemdisp.result import Result

DRAG_PX = 5.0  # of the screen, from which a click is a drag
DIGITS = 2  # of a pixel, with which positions are written down
MOST_SPECIES = 9
SAME_SITE = 1e-4  # lattice indices
NO_WINDOW = (
    "matplotlib cannot open a window here (backend {}). On a screen install PyQt6 or tkinter; in "
    'a notebook install ipympl and begin with "%matplotlib widget"; or correct by calls of '
    "stemdisp.Corrections"
)


def edit(
    result: Result,
    *,
    corrections: Corrections | None = None,
    path: str | os.PathLike[str] | None = None,
    show: bool = True,
) -> Editor:
    """Open a window in which columns and interface are corrected by clicking.

    The keys stand in the window. In a script this returns when the window is closed, in a
    notebook (``%matplotlib widget``) at once. Nothing is fitted: run again with the corrections.

    Parameters
    ----------
    result : Result
        A finished run.
    corrections : Corrections, optional
        What to go on with; those of the run by default.
    path : path, optional
        Where the key s saves to; ``corrections.toml`` in the working directory by default.
    show : bool
        False makes the figure and does not open the window.

    Returns
    -------
    Editor
        Its ``corrections`` are up to date at any time.

    Raises
    ------
    ConfigError
        The window is to be shown, and matplotlib cannot open one.
    DataError
        `corrections` do not fit the image.
    """
    from matplotlib import pyplot as plt

    if show:
        check_window()
    start = Corrections.of(result) if corrections is None else corrections
    editor = Editor(result, start, Path(FILE_NAME if path is None else path))
    if show:
        plt.show()
    return editor


def check_window() -> None:
    """Raise a ConfigError unless matplotlib can open a window."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt
    from matplotlib.backend_bases import FigureManagerBase

    probe = plt.figure(figsize=(1, 1))
    # backends that only write files have no manager of their own
    able = type(probe.canvas.manager) is not FigureManagerBase
    plt.close(probe)
    if not able:
        raise ConfigError(NO_WINDOW.format(mpl.get_backend()))


class Editor:
    """The window of `edit`.

    Parameters
    ----------
    result : Result
        A finished run.
    corrections : Corrections
        What to go on with.
    path : Path
        Where to save.

    Attributes
    ----------
    corrections : Corrections
        As they stand.
    saved : Corrections
        As they were when they were saved last.
    figure : matplotlib Figure
        The window.
    """

    def __init__(self, result: Result, corrections: Corrections, path: Path) -> None:
        self._result, self._path = result, path
        self.corrections = self.saved = corrections
        self._species = tuple(result.projection.species)[:MOST_SPECIES]
        self._chosen = 0
        self._selected: Point | None = None
        self._press: tuple[float, float, Point] | None = None
        self._line: list[Point] | None = None
        self._reach = WITHIN * spacing_px(result.lattice, result.projection)
        self._base = find_columns(
            result.image,
            result.lattice,
            projection=result.projection,
            interface=result.interface,
        )
        self._before = self._apply(result.corrections or Corrections()).columns
        self._expected = self._apply(corrections)
        self._places = self._where()
        self._canvas = view.Window(result, self._species, self._reach)
        self.figure = self._canvas.figure
        figure: Any = self.figure
        figure.stemdisp_editor = self  # matplotlib holds its callbacks weakly
        self._connect()
        self._draw(f"saves to {path}")

    def __repr__(self) -> str:
        """Say what was done."""
        return f"<Editor, {self.corrections.describe()}>"

    def undo(self) -> None:
        """Take the last correction back."""
        last = self.corrections.steps[-1:]
        self._take(self.corrections.undo(), f"undone: {last[0]}" if last else "nothing to undo")

    def save(self) -> Path:
        """Write the file; what stands in the way is said in the line at the bottom."""
        try:
            self.corrections.save(self._path)
        except (ConfigError, OSError) as err:
            self._draw(f"not saved: {err}")
            return self._path
        self.saved = self.corrections
        self._draw(f"saved to {self._path}")
        return self._path

    def _apply(self, corrections: Corrections) -> Expected:
        """Make the corrections as a run would."""
        return correct_columns(
            self._base,
            corrections,
            lattice=self._result.lattice,
            projection=self._result.projection,
            interface=self._result.interface,
            shape=self._result.image.shape,
        )

    def _where(self) -> np.ndarray:
        """Give the places at which columns are drawn: as the run fitted them, or their new start.

        An earlier fit says nothing of a column whose start was chosen since.
        """
        columns = self._expected.columns
        start = columns[["x_px", "y_px"]].to_numpy(dtype=float)
        fitted, same = (_at(columns, table) for table in (self._result.columns, self._before))
        fitted[~np.isfinite(fitted).all(axis=1) | (same != start).any(axis=1)] = np.nan
        return np.where(np.isfinite(fitted), fitted, start)

    def _connect(self) -> None:
        canvas = self.figure.canvas
        handler = getattr(canvas.manager, "key_press_handler_id", None)
        if handler is not None:  # some of our keys have another meaning in matplotlib
            canvas.mpl_disconnect(handler)
        canvas.mpl_connect("key_press_event", self._on_key)
        canvas.mpl_connect("button_press_event", self._on_press)
        canvas.mpl_connect("button_release_event", self._on_release)
        canvas.mpl_connect("motion_notify_event", self._on_motion)

    def _draw(self, message: str = "") -> None:
        self._canvas.draw(
            self._expected.columns,
            self._places,
            interface=self._line if self._line is not None else self.corrections.interface,
            selected=self._selected,
            text=view.State(
                self._species[self._chosen],
                self._name(),
                self.corrections.describe(),
                message,
                self.corrections == self.saved,
            ),
        )

    def _take(self, corrections: Corrections, message: str) -> None:
        """Accept corrections, or say why a run would not."""
        try:
            self._expected = self._apply(corrections)
        except DataError as err:
            self._draw(f"not possible: {err}")
            return
        self.corrections, self._selected = corrections, None
        self._places = self._where()
        self._draw(message)

    def _do(self, step: Correction) -> None:
        """Make a correction; of two in a row that move or relabel a column, the last one counts."""
        before = self.corrections
        if before.steps and step.action in ("move", "relabel"):
            last = before.steps[-1]
            if (last.action, last.at_px) == (step.action, step.at_px):
                before = before.undo()
        try:
            corrections = before.with_step(step)
        except ValueError as err:
            self._draw(f"not possible: {err}")
            return
        self._take(corrections, str(corrections.steps[-1]))

    def _nearest(self, at: Point) -> int | None:
        """Give the row of the column that is drawn nearest to a place and is not removed."""
        there = np.flatnonzero(~self._expected.removed)
        if len(there) == 0:
            return None
        distance = np.hypot(*(self._places[there] - np.array(at)).T)
        best = int(np.argmin(distance))
        return int(there[best]) if distance[best] <= self._reach else None

    def _row(self) -> int | None:
        """Give the row of the selected column."""
        return None if self._selected is None else self._nearest(self._selected)

    def _name(self) -> str:
        row = self._row()
        if row is None:
            return "none"
        x, y = self._places[row]
        column = self._expected.columns.iloc[row]
        plane = "" if np.isnan(_float(column["N"])) else f", N = {int(column['N'])}"
        return f"{column['species']} at ({x:.1f}, {y:.1f}){plane}"

    def _home(self, row: int) -> Point:
        """Give the position by which a run finds a column."""
        return _rounded(self._expected.home_px[row])

    def _busy(self) -> bool:
        """Whether zoom or pan of the toolbar is on, which take the mouse for themselves."""
        toolbar = getattr(self.figure.canvas.manager, "toolbar", None)
        return bool(str(getattr(toolbar, "mode", "") or ""))

    def _on_press(self, event: Any) -> None:
        if event.inaxes is not self._canvas.image or event.button != 1 or self._busy():
            return
        at = float(event.xdata), float(event.ydata)
        if self._line is not None:
            self._line = [*self._line, _rounded(at)][-2:]
            self._draw("enter: take this interface; escape: leave it")
            return
        row = self._nearest(at)
        place = None if row is None else _point(self._places[row])
        self._selected = place
        self._press = None if place is None else (event.x, event.y, place)
        self._draw("" if row is not None else "no column here")

    def _on_motion(self, event: Any) -> None:
        if self._press is None or event.inaxes is not self._canvas.image:
            return
        if self._dragged(event):
            self._canvas.drag(self._press[2], (event.xdata, event.ydata))

    def _dragged(self, event: Any) -> bool:
        if self._press is None:
            return False
        return float(np.hypot(event.x - self._press[0], event.y - self._press[1])) > DRAG_PX

    def _on_release(self, event: Any) -> None:
        if self._press is None:
            return
        dragged, row = self._dragged(event), self._row()
        self._press = None
        self._canvas.drag(None, None)
        if not dragged or row is None or self._busy():
            return
        if event.inaxes is not self._canvas.image:
            self._draw("not moved: the mouse was let go outside the image")
            return
        to = _rounded((event.xdata, event.ydata))
        self._do(Correction("move", self._home(row), to_px=to))

    def _on_key(self, event: Any) -> None:
        key = {"return": "enter", "esc": "escape"}.get(event.key, event.key)
        if key is not None and key.isdigit() and 1 <= int(key) <= len(self._species):
            self._chosen = int(key) - 1
            self._draw(f"{self._species[self._chosen]} will be added")
            return
        actions = {
            "d": self._remove,
            "delete": self._remove,
            "r": self._relabel,
            "u": self.undo,
            "s": self.save,
            "i": self._begin_line,
            "enter": self._end_line,
            "escape": self._leave,
        }
        if key == "a":
            self._add(event)
        elif key in actions:
            actions[key]()
        else:
            from matplotlib.backend_bases import key_press_handler

            key_press_handler(event, self.figure.canvas)

    def _add(self, event: Any) -> None:
        if event.inaxes is not self._canvas.image:
            self._draw("point at the image, then press a")
            return
        at = _rounded((event.xdata, event.ydata))
        self._do(Correction("add", at, self._species[self._chosen]))

    def _remove(self) -> None:
        row = self._row()
        if row is None:
            self._draw("click a column first")
        else:
            self._do(Correction("remove", self._home(row)))

    def _relabel(self) -> None:
        row = self._row()
        if row is None:
            self._draw("click a column first")
            return
        names = list(self._result.projection.species)
        now = self._expected.columns["species"].iloc[row]
        following = names[(names.index(now) + 1) % len(names)]
        place, before = self._selected, self.corrections
        self._do(Correction("relabel", self._home(row), following))
        if self.corrections != before:
            self._selected = place  # so that r can be pressed again
            self._draw(f"now {following}")

    def _begin_line(self) -> None:
        if self._result.interface is None and self._result.config.interface.present is False:
            self._draw("the configuration says that there is no interface")
            return
        self._line, self._selected = [], None
        self._draw(
            "click one point of plane N = 1, or two of a line beyond the crystal; then enter"
        )

    def _end_line(self) -> None:
        if not self._line:
            self._draw("press i, then click one or two points" if self._line is None else "")
            return
        points, self._line = tuple(self._line), None
        self._do(Correction("interface", points_px=points))

    def _leave(self) -> None:
        self._line = self._selected = self._press = None
        self._draw("")


def _at(columns: pd.DataFrame, table: pd.DataFrame) -> np.ndarray:
    """Give the places (n, 2) that a table has for columns of the same indices; NaN for none."""
    out = np.full((len(columns), 2), np.nan)
    if len(table) == 0:
        return out
    away, row = cKDTree(table[["i", "j"]].to_numpy(dtype=float)).query(
        columns[["i", "j"]].to_numpy(dtype=float)
    )
    known = away < SAME_SITE
    out[known] = table[["x_px", "y_px"]].to_numpy(dtype=float)[row[known]]
    return out


def _rounded(at: Any) -> Point:
    return round(float(at[0]), DIGITS), round(float(at[1]), DIGITS)


def _point(at: np.ndarray) -> Point:
    return float(at[0]), float(at[1])


def _float(value: Any) -> float:
    try:
        return float(value)
    except TypeError:  # a missing plane number
        return float("nan")
