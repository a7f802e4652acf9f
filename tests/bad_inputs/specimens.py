"""Specimens that are not what a configuration says: refused, or measured with a warning by name.

The images are simulated; their crystal is KTaO3 along [1 -1 0], as the default configuration has
it. Each may end in one of two ways only: no results, or results with the warning that names what
is wrong with them.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
from _known_images import PIXEL_A, simulated

from bad_inputs import Call, case
from bad_inputs.formats import write_hspy

SIZE = 256
NONE = "[interface]\npresent = false\n"
CHECK = r"[Cc]heck|set present|Set |Crop"


@lru_cache(maxsize=16)
def grain(turn_deg: float, *, film_A: float = 0.0, dose: float = 4000.0) -> np.ndarray:
    """Give a crystal alone, or under a film."""
    image, _ = simulated(
        size=SIZE, dose_e_per_A2=dose, film_A=film_A, rotation_deg=turn_deg, delta0_A=0.0
    )
    return image.astype(np.float32)


def _left(turn_deg: float, share: float = 0.5) -> np.ndarray:
    """Give two grains, of which the left one takes a share of the image."""
    right = np.arange(SIZE)[None] >= share * SIZE
    return np.where(right, grain(0.0), grain(turn_deg))


def _patches(n: int, turns_deg: tuple[float, ...]) -> np.ndarray:
    """Give a chessboard of n x n grains."""
    row, column = np.indices((SIZE, SIZE)) * n // SIZE
    number = (5 * row + 3 * column) % len(turns_deg)
    return np.choose(number, [grain(turn) for turn in turns_deg])


def _image(folder: Path, image: np.ndarray, config: str = "") -> Call:
    return Call((write_hspy(folder / "image.hspy", image, scale=(PIXEL_A, PIXEL_A)),), config)


def _crystal(name: str, draw: object, warns: str = "", config: str = "", **more: object) -> None:
    """Register a specimen that is measured, with a warning or rightly without."""
    slow = more.pop("slow", True)

    @case(f"specimen: {name}", 0, warns=frozenset(warns.split()), slow=slow, **more)
    def make(folder: Path) -> Call:
        return _image(folder, draw(), config)


def _refused(name: str, draw: object, cause: str, config: str = "", remedy: str = CHECK) -> None:
    @case(f"specimen: {name}", 3, cause, remedy, names_file=False)
    def make(folder: Path) -> Call:
        return _image(folder, draw(), config)


# ---- a crystal without a film, a film without a crystal --------------------------------


def _no_planes(output: Path) -> None:
    """Without an interface there are maps, but no depths."""
    summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    assert summary["interface"] is None and summary["decay"] is None
    assert summary["depth"] is None or summary["depth"]["displacement"] is None
    assert len((output / "planes.csv").read_text().splitlines()) == 1
    assert not {"lattice-uneven", "lattice-gaps"} & {w["code"] for w in summary["warnings"]}


_crystal("a crystal alone", lambda: grain(0.0), check=_no_planes, slow=False)
_refused(
    "a crystal alone, said to end",
    lambda: grain(0.0),
    "no interface",
    "[interface]\npresent = true\n",
)
_refused(
    "a film alone",
    lambda: simulated(size=384, film_A=44.0, dose_e_per_A2=4000.0)[0][:256],
    "no lattice found|do not fit",
)
_refused(
    "vacuum",
    lambda: np.random.default_rng(0).poisson(0.2, (SIZE, SIZE)).astype(np.float32),
    "no lattice found|do not fit",
)


# ---- more than one crystal -------------------------------------------------------------

_crystal("two grains, 1 degree apart", lambda: _left(1.0), "lattice-uneven", slow=False)
_crystal("two grains, 3 degrees apart", lambda: _left(3.0), "lattice-uneven", NONE)
_crystal("two grains, 5 degrees apart", lambda: _left(5.0), "lattice-uneven", NONE)
_crystal("two grains, 8 degrees apart", lambda: _left(8.0), "lattice-gaps", NONE)
_crystal("a small grain beside", lambda: _left(3.0, 0.25), "lattice-uneven", NONE)
_crystal("a strip of another grain", lambda: _left(30.0, 0.25), "lattice-gaps", NONE)
for _turn in (17.0, 30.0, 55.0):
    _refused(f"two grains, {_turn:.0f} degrees apart", lambda t=_turn: _left(t), "do not fit")
_refused("two grains, and no interface asked for", lambda: _left(30.0), "do not fit", NONE)
_refused("four grains", lambda: _patches(2, (0.0, 30.0, 17.0, 55.0)), "do not fit")
_crystal(
    "sixteen grains", lambda: _patches(4, (0.0, 30.0, 17.0, 8.0, 3.0, 5.0)), "lattice-gaps", NONE
)
_refused(
    "sixty-four grains",
    lambda: _patches(8, (0.0, 30.0, 17.0, 55.0, 40.0)),
    "do not fit|no lattice|columns do not",
)


def _ring() -> np.ndarray:
    """Give an image whose spectrum is a ring: grains too small to be told apart."""
    rng = np.random.default_rng(1)
    f = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None])
    ring = np.exp(-0.5 * ((f - PIXEL_A / 2.3) / 0.004) ** 2)
    return np.fft.irfft2(np.fft.rfft2(rng.normal(size=(SIZE, SIZE))) * ring).astype(np.float32)


_refused("a powder of tiny grains", _ring, "do not fit|no lattice|columns do not|cannot tell")


# ---- another crystal, or another view --------------------------------------------------


def _view(zone: tuple[int, int, int], structure: str = "KTaO3") -> str:
    displaced, cage = ("Ta", "O") if zone == (1, 1, 1) else _SITES[structure]
    return (
        f'[crystal]\nstructure = "{structure}"\nzone_axis = {list(zone)}\n'
        f'displaced = "{displaced}"\ncage = "{cage}"\n{NONE}'
    )


_SITES = {"KTaO3": ("K", "Ta"), "SrTiO3": ("Sr", "Ti")}
_OTHER = "do not fit|columns do not|cannot tell which"
for _zone in ((1, 0, 0), (1, 1, 1), (1, 1, -2)):
    _refused(
        f"seen along another zone axis than {list(_zone)}",
        lambda: grain(0.0),
        _OTHER,
        _view(_zone),
        "[Cc]heck|needed",
    )


def _graphene() -> np.ndarray:
    """Give a honeycomb of single atoms."""
    a, width = 2.46 / PIXEL_A, 0.4 / PIXEL_A
    rows, columns = np.indices((SIZE, SIZE))
    image = np.zeros((SIZE, SIZE), np.float32)
    turn = np.array([[1.0, 0.0], [0.5, np.sqrt(0.75)]]) * a
    cells = np.indices((60, 60)).reshape(2, -1).T - 20
    for part in ((0.0, 0.0), (1 / 3, 1 / 3)):
        for x, y in (cells + part) @ turn:
            if -9 < x < SIZE + 9 and -9 < y < SIZE + 9:
                image += np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * width**2))
    return image + 0.05 * np.random.default_rng(0).normal(size=image.shape).astype(np.float32)


_refused("graphene", _graphene, _OTHER, NONE, "[Cc]heck|needed")
_crystal(
    "KTaO3 said to be SrTiO3, 2 % smaller",
    lambda: grain(0.0),
    "pixel-size",
    _view((1, -1, 0), "SrTiO3"),
    says="2.. % apart|2% apart|2\\.",
)


# ---- images that hold hardly anything of the crystal -----------------------------------

_refused(
    "one electron per square angstrom",
    lambda: grain(0.0, dose=1.0),
    "no lattice|do not fit|cannot",
)
_refused(
    "a corner of crystal",
    lambda: (
        np.where(np.add.outer(np.arange(SIZE), np.arange(SIZE)) < 90, grain(0.0), 0.0)
        + 0.02 * np.random.default_rng(3).normal(size=(SIZE, SIZE))
    ),
    "no lattice|do not fit|cannot|columns do not",
    remedy="[Cc]heck|needed",
)
_refused(
    "too few pixels for every column",
    lambda: grain(0.0)[::6, ::6],
    "px|no lattice|do not fit|columns do not",
    remedy="[Cc]heck|least",
)


# ---- a microscope at its limits --------------------------------------------------------

_crystal("dark columns", lambda: -grain(0.0), "", slow=True)
_crystal("an offset of 10^9 counts", lambda: grain(0.0).astype(np.float64) + 1e9, "", slow=True)
_crystal("values of 10^-20", lambda: grain(0.0) * np.float32(1e-20), "", slow=True)
_crystal("values of 10^30", lambda: grain(0.0) * np.float32(1e30), "", slow=True)
