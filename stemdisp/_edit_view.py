"""What the window of the editor shows; it changes no correction."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stemdisp import _plot_style as st
from stemdisp.corrections import Point
from stemdisp.tables import Quality

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from stemdisp.result import Result

SIZE_IN = (11.0, 7.6)
IMAGE_BOX, PANEL_BOX = (0.015, 0.05, 0.715, 0.935), (0.745, 0.05, 0.245, 0.935)
LINE, GAP = 0.031, 0.024  # of the panel's height
MESSAGE = 115  # letters that fit under the image
MARKER_SHARE, MARKER_PT = 0.32, (1.5, 9.0)  # of the columns' distance on the screen
KEYS = (
    ("click", "select a column"),
    ("drag", "move it"),
    ("d", "remove it"),
    ("r", "relabel it"),
    ("a", "add {} under the mouse"),
    ("i", "interface: click 1 or 2\npoints, then enter"),
    ("u", "undo"),
    ("s", "save"),
    ("escape", "let go"),
    ("o, p, h", "zoom, pan, whole image"),
)


class State(NamedTuple):
    """What the panel says."""

    adds: str
    selected: str
    done: str
    message: str
    saved: bool


class Window:
    """The figure: image, columns, interface, and a panel that explains the keys.

    Parameters
    ----------
    result : Result
        A finished run.
    species : tuple of str
        In the order of the keys 1, 2, ...
    reach : float
        Half the distance between columns, in px.
    """

    def __init__(self, result: Result, species: tuple[str, ...], reach: float) -> None:
        import matplotlib as mpl
        from matplotlib import pyplot as plt

        self._result, self._names, self._reach = result, species, reach
        with mpl.rc_context(st.rc_params()):
            self.figure = plt.figure(figsize=SIZE_IN)
            self.image: Axes = self.figure.add_axes(IMAGE_BOX)
            self.panel: Axes = self.figure.add_axes(PANEL_BOX)
            self._message = self.figure.text(0.015, 0.018, "", va="center", wrap=False)
        if self.figure.canvas.manager is not None:
            self.figure.canvas.manager.set_window_title("stemdisp: corrections")
        self.panel.set_axis_off()
        self._show_image()
        self._make_artists()
        for limits in ("xlim_changed", "ylim_changed"):
            self.image.callbacks.connect(limits, lambda _: self._resize())

    def _show_image(self) -> None:
        data = self._result.image
        finite = data[np.isfinite(data)]
        low, high = np.percentile(finite, [0.5, 99.5]) if finite.size else (0.0, 1.0)
        if self._result.lattice.sign < 0:
            low, high = high, low  # columns bright
        self.image.imshow(data, cmap="gray", vmin=low, vmax=high, zorder=0)
        self.image.set(xticks=[], yticks=[])
        if self._result.interface is not None:
            line = self._result.interface.outline(self._result.lattice, data.shape)
            style: dict[str, Any] = {"lw": 1.6, "path_effects": st.outlined(2.4)}
            self.image.plot(line[:, 0], line[:, 1], color="white", zorder=2, **style)
        height, width = data.shape
        self.image.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))

    def _make_artists(self) -> None:
        colors = {**dict.fromkeys(self._names, st.FAINT), **st.species_colors(self._result)}
        self.colors = colors
        empty = np.empty((0, 2))

        def dots(**style: Any) -> Any:
            return self.image.scatter(*empty.T, **style)

        self._dots = {s: dots(color=colors[s], linewidths=0, zorder=3) for s in self._names}
        ring = {"facecolors": "none", "linewidths": 1.4}
        self._by_hand = dots(edgecolors="white", zorder=4, path_effects=st.outlined(3.4), **ring)
        self._gone = dots(
            marker="x", color="white", linewidths=1.6, zorder=4, path_effects=st.outlined(3.8)
        )
        self._chosen = dots(edgecolors=st.YELLOW, zorder=5, **(ring | {"linewidths": 2.2}))
        (self._line,) = self.image.plot(
            [], [], color=st.YELLOW, lw=1.8, ls=(0, (5, 2)), marker="o", ms=5, zorder=5
        )
        (self._drag,) = self.image.plot([], [], color=st.YELLOW, lw=1.4, zorder=6)
        self._resize()

    def _resize(self) -> None:
        """Let markers grow with the zoom, but never hide the columns."""
        box = self.image.get_position().size * self.figure.get_size_inches() * 72
        seen = np.abs([np.diff(self.image.get_xlim())[0], np.diff(self.image.get_ylim())[0]])
        apart = 2 * self._reach * float(np.min(box / seen))
        size = float(np.clip(MARKER_SHARE * apart, *MARKER_PT))
        for dots in self._dots.values():
            dots.set_sizes([size**2])
        self._by_hand.set_sizes([(2.1 * size + 2) ** 2])
        self._gone.set_sizes([(1.4 * size + 2) ** 2])
        self._chosen.set_sizes([(2.8 * size + 4) ** 2])

    def draw(
        self,
        columns: pd.DataFrame,
        places: np.ndarray,
        *,
        interface: Any,
        selected: Point | None,
        text: State,
    ) -> None:
        """Show columns at their places, the stated interface, the selection and the words.

        Parameters
        ----------
        columns : DataFrame
            ``species, quality``.
        places : ndarray, shape (n, 2)
            Where they are drawn, in px.
        interface : sequence of (x, y) or None
            Points that were stated.
        selected : (x, y) or None
            The selected column.
        text : State
            The words.
        """
        quality = columns["quality"].to_numpy(dtype=np.int64)
        gone = quality & int(Quality.REMOVED) > 0
        by_hand = (quality & int(Quality.ADDED | Quality.CORRECTED) > 0) & ~gone
        species = columns["species"].to_numpy()
        for name, dots in self._dots.items():
            dots.set_offsets(places[(species == name) & ~gone])
        self._by_hand.set_offsets(places[by_hand])
        self._gone.set_offsets(places[gone])
        self._chosen.set_offsets(np.empty((0, 2)) if selected is None else [selected])
        points = np.empty((0, 2)) if not interface else np.asarray(interface, dtype=float)
        self._line.set_data(*points.T)
        self._write(text, by_hand=bool(by_hand.any()), gone=bool(gone.any()))
        self.figure.canvas.draw_idle()

    def drag(self, start: Point | None, to: Any) -> None:
        """Show how far the mouse has carried a column; nothing without a start."""
        ends = np.empty((0, 2)) if start is None else np.array([start, to], dtype=float)
        self._drag.set_data(*ends.T)
        self.figure.canvas.draw_idle()

    def _write(self, text: State, *, by_hand: bool, gone: bool) -> None:
        """Fill the panel: species with their keys, what is selected, the keys, what was done."""
        panel = self.panel
        for artist in [*panel.texts, *panel.collections]:
            artist.remove()
        panel.set(xlim=(0, 1), ylim=(0, 1))
        ring, cross = self._marks()
        rows: list[tuple[dict[str, Any], str]] = [
            ({"s": 45, "color": self.colors[name], "linewidths": 0},
             f"{name}   key {k}" + ("   (a adds this)" if name == text.adds else ""))
            for k, name in enumerate(self._names, start=1)
        ]  # fmt: skip
        rows += [(ring, "added, moved or relabelled")] if by_hand else []
        rows += [(cross, "removed")] if gone else []
        y = self._head(0.98, "Columns")
        for style, words in rows:
            panel.scatter([0.03], [y + 0.006], **style)
            panel.text(0.10, y, words)
            y -= LINE
        y = self._head(y - GAP, "Selected")
        panel.text(0, y, text.selected)
        y = self._head(y - LINE - GAP, "Keys")
        for key, words in KEYS:
            panel.text(0, y, key, weight="bold")
            for line in words.format(text.adds).split("\n"):
                panel.text(0.29, y, line)
                y -= LINE
        y = self._head(y - GAP, "Done" + ("" if text.saved else " (not saved)"))
        head, _, kinds = text.done.partition(": ")
        for line in [head, *([] if kinds == "none" else kinds.split(", "))]:
            panel.text(0, y, line)
            y -= LINE
        panel.text(
            0,
            -0.04,
            "Nothing is fitted here:\nrun again with the saved file.",
            color=st.INK,
            style="italic",
        )
        self._message.set_text("\n".join(textwrap.wrap(text.message, MESSAGE)))

    def _head(self, y: float, words: str) -> float:
        """Write a heading; return where the next line goes."""
        self.panel.text(0, y, words, weight="bold", fontsize=st.FONT_PT + 1)
        return y - LINE - 0.004

    @staticmethod
    def _marks() -> tuple[dict[str, Any], dict[str, Any]]:
        """Give the marks of what was done by hand, for the white panel."""
        ring = {"s": 60, "facecolors": "none", "edgecolors": st.INK, "linewidths": 1.4}
        return ring, {"s": 40, "marker": "x", "color": st.INK, "linewidths": 1.6}
