"""Draw the figures of the conventions page into docs/images; run by hand after a change.

    python docs/make_drawings.py

The crystal is drawn from the same projection and plane numbers that the package uses.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Arc, Polygon, Rectangle

import stemdisp as sd

IMAGES = Path(__file__).resolve().parent / "images"
# Okabe and Ito; species differ in shape and size as well.
VERMILLION, BLUE, GREEN, INK, GREY = "#D55E00", "#0072B2", "#009E73", "#222222", "#8C8C8C"
STYLE = {"font.family": "DejaVu Sans", "font.size": 11, "svg.hashsalt": "stemdisp"}
LAST_PLANE = 5


def arrow(ax: Any, start: Any, end: Any, **style: Any) -> None:
    """Draw an arrow in data units."""
    look = {
        "arrowstyle": "-|>",
        "color": INK,
        "lw": 1.6,
        "shrinkA": 0,
        "shrinkB": 0,
        "mutation_scale": 14,
    }
    ax.annotate("", xy=tuple(end), xytext=tuple(start), arrowprops=look | style, zorder=6)


def pixels(ax: Any) -> None:
    """Draw pixels with their centres, both axes and the sense of angles."""
    nx, ny = 7, 5
    grey = np.random.default_rng(1).uniform(0.86, 0.97, (ny, nx))
    for y in range(ny):
        for x in range(nx):
            ax.add_patch(
                Rectangle(
                    (x - 0.5, y - 0.5), 1, 1, facecolor=str(grey[y, x]), edgecolor=GREY, lw=0.8
                )
            )
            ax.plot(x, y, ".", color=GREY, ms=4)
    ax.plot(0, 0, "o", color=INK, ms=8)
    ax.plot(-0.5, -0.5, "s", color=VERMILLION, ms=8)
    ax.plot(4.3, 2.0, "*", color=BLUE, ms=17)
    ax.text(-0.75, -0.62, "corner: x = −0.5, y = −0.5", color=VERMILLION, ha="left", va="bottom")
    ax.text(
        0.15,
        0.30,
        "centre of the first\npixel: x = 0, y = 0",
        va="top",
        ha="left",
        zorder=7,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5},
    )
    ax.text(
        4.3,
        2.42,
        "a column at\nx_px = 4.3, y_px = 2.0\nimage[2, 4]",
        color=BLUE,
        ha="center",
        va="top",
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5},
    )
    arrow(ax, (0, 0), (7.6, 0))
    arrow(ax, (0, 0), (0, 5.6))
    ax.text(7.7, 0, "x", va="center", fontsize=14, style="italic")
    ax.text(0, 5.75, "y", ha="center", va="top", fontsize=14, style="italic")
    ax.text(0.25, 5.25, "down", va="center", color=GREY)
    ax.add_patch(Arc((0, 0), 13.2, 13.2, theta1=0, theta2=22, color=INK, lw=1.2))
    arrow(ax, (6.27, 2.07), (6.12, 2.46), lw=1.2)
    ax.text(7.0, 1.25, "angles: from\n+x towards +y", va="center", ha="left")
    ax.set(xlim=(-1.2, 9.6), ylim=(6.3, -1.4), aspect="equal")
    ax.axis("off")


def crystal(ax: Any) -> None:
    """Draw the view along [1 -1 0] with film, cage, displacement and plane numbers."""
    view = sd.project("KTaO3", (1, -1, 0), displaced="K")
    step = view.layer_step((1, 1, 1))
    spacing = view.layer_spacing_A((1, 1, 1))
    # With the film up: u rises to the right, and the component of u and v along the normal is
    # one layer for each step of i and j.
    rise = np.arcsin(spacing * step[0] / view.u_A)
    u = view.u_A * np.array([np.cos(rise), np.sin(rise)])
    v = view.v_A * np.array([-np.sin(rise), np.cos(rise)])
    looks = {"K": ("o", VERMILLION, 15), "Ta": ("s", BLUE, 10), "O": ("o", GREEN, 8)}
    width = 9.6
    for site in view.sites:
        marker, color, size = looks[site.species]
        for i in range(-12, 13):
            for j in range(-12, 13):
                layer = (i + site.u) * step[0] + (j + site.v) * step[1]
                number = int(1 - np.ceil(layer - 0.5))
                x, y = (i + site.u) * u + (j + site.v) * v
                if not (1 <= number <= LAST_PLANE and -width < x < width):
                    continue
                missing = site.species == "O" and number <= 2
                ax.plot(
                    x,
                    y,
                    marker,
                    ms=size,
                    zorder=3,
                    mec=color,
                    mew=1.8,
                    mfc="white" if missing else color,
                )
    film(ax, spacing, width)
    planes(ax, spacing, width)
    cage(ax, -2 * u + v, u, v)
    basis(ax, -u - 2 * v, u, v)
    legend(ax, view, spacing)
    ax.set(xlim=(-width - 0.6, width + 5.2), ylim=(-14.2, 5.9), aspect="equal")
    ax.axis("off")


def film(ax: Any, spacing: float, width: float) -> None:
    """Draw the amorphous film and the interface."""
    rng = np.random.default_rng(3)
    top = 1.0 * spacing
    xy = rng.uniform((-width, top), (width, 4.6), (150, 2))
    ax.scatter(*xy.T, s=rng.uniform(6, 40, 150), color="#BDBDBD", zorder=1, linewidths=0)
    ax.text(
        5.0,
        3.5,
        "film (amorphous)",
        ha="center",
        va="center",
        zorder=5,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 3},
    )
    ax.plot([-width, width], [0.78 * spacing] * 2, "--", color=INK, lw=1.2, zorder=2)
    arrow(ax, (width + 0.5, 0.8 * spacing), (width + 0.5, 4.7))
    ax.text(width + 0.9, 3.6, "outward\nnormal [111]", va="center", ha="left")


def planes(ax: Any, spacing: float, width: float) -> None:
    """Draw the bands of N = 1, 2, ... and how they are counted."""
    for number in range(1, LAST_PLANE + 1):
        middle = (0.25 + 1 - number) * spacing
        if number % 2:
            ax.add_patch(
                Rectangle(
                    (-width, middle - spacing / 2), 2 * width, spacing, color="#EFEFEF", zorder=0
                )
            )
        ax.text(width + 0.4, middle, f"N = {number}", va="center", ha="left", fontsize=13)
    arrow(ax, (width + 3.2, 0.55 * spacing), (width + 3.2, (0.9 - LAST_PLANE) * spacing))
    ax.text(
        width + 3.6,
        (1 - LAST_PLANE / 2 - 0.25) * spacing,
        "depth",
        rotation=270,
        va="center",
        ha="left",
    )


def cage(ax: Any, centre: np.ndarray, u: np.ndarray, v: np.ndarray) -> None:
    """Draw a cage, its inversion pairs, and the displacement from its centre."""
    corners = [(-0.5, -0.5), (0, -0.5), (0.5, -0.5), (0.5, 0.5), (0, 0.5), (-0.5, 0.5)]
    points = [centre + a * u + b * v for a, b in corners]
    ax.add_patch(Polygon(points, closed=True, fill=False, edgecolor=INK, lw=1.4, zorder=4))
    for one, other in zip(points[:3], points[3:], strict=True):
        ax.plot(*np.stack([one, other]).T, ":", color=INK, lw=1.0, zorder=2)
    moved = centre + 0.36 * u
    ax.plot(*centre, "o", ms=15, mfc="#EFEFEF", mec=GREY, mew=1.2, zorder=4)
    ax.plot(*moved, "o", ms=15, color=VERMILLION, zorder=5)
    ax.plot(*centre, "+", ms=9, color=INK, mew=1.6, zorder=6)
    arrow(ax, centre, moved, color=INK)
    note = {"arrowstyle": "-", "color": GREY, "lw": 1.0}
    box = {"facecolor": "white", "edgecolor": GREY, "pad": 3, "lw": 0.6}
    ax.annotate(
        "cage of one K column:\n2 Ta, 4 O, in pairs",
        xy=tuple(points[5]),
        xytext=(-9.4, 5.0),
        arrowprops=note,
        ha="left",
        va="center",
        zorder=8,
        bbox=box,
    )
    ax.annotate(
        "δ > 0: along u,\ntowards the film",
        xy=tuple((centre + moved) / 2),
        xytext=(-2.6, 5.0),
        arrowprops=note,
        ha="left",
        va="center",
        zorder=8,
        bbox=box,
    )


def basis(ax: Any, origin: np.ndarray, u: np.ndarray, v: np.ndarray) -> None:
    """Draw u and v at a K column."""
    arrow(ax, origin, origin + u, lw=2.2)
    arrow(ax, origin, origin + v, lw=2.2)
    look = {
        "fontsize": 15,
        "style": "italic",
        "weight": "bold",
        "ha": "center",
        "va": "center",
        "zorder": 8,
    }
    ax.text(*(origin + 0.62 * u + [0.55, -0.25]), "u", **look)
    ax.text(*(origin + 0.30 * v + [-0.35, -0.35]), "v", **look)


def legend(ax: Any, view: Any, spacing: float) -> None:
    """Name the columns under the drawing."""
    y = (0.25 - LAST_PLANE) * spacing - 1.5
    entries = (
        ("o", VERMILLION, 15, VERMILLION, "K (and O)"),
        ("s", BLUE, 10, BLUE, "Ta"),
        ("o", GREEN, 8, GREEN, "O"),
        ("o", GREEN, 8, "white", "O, partly missing"),
    )
    for x, (marker, color, size, fill, text) in zip((-8.5, -3.6, -0.6, 2.0), entries, strict=True):
        ax.plot(x, y, marker, ms=size, mec=color, mew=1.8, mfc=fill)
        ax.text(x + 0.7, y, text, va="center")
    text = (
        f"u = [110]/2, {view.u_A:.2f} Å;  v = [001], {view.v_A:.2f} Å;  "
        f"planes are {spacing:.2f} Å apart\n"
        "beam along [1 −1 0], across the page"
    )
    ax.text(-8.9, y - 1.2, text, va="top", linespacing=1.5)


def main() -> None:
    """Write both drawings."""
    with mpl.rc_context(STYLE):
        for name, draw, size in (("axes", pixels, (6.6, 4.7)), ("crystal", crystal, (7.6, 8.6))):
            figure = Figure(figsize=size)
            draw(figure.add_axes((0, 0, 1, 1)))
            path = IMAGES / f"{name}.svg"
            figure.savefig(path, metadata={"Date": None}, bbox_inches="tight", facecolor="white")
            text = path.read_text(encoding="utf-8")
            path.write_text(
                "\n".join(line.rstrip() for line in text.splitlines()) + "\n", encoding="utf-8"
            )


if __name__ == "__main__":
    main()
