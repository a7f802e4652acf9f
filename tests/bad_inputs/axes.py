"""Axes whose scales, units, names or sizes make no sense."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from bad_inputs import Call, case
from bad_inputs.formats import noise, write_hspy
from bad_inputs.warm import crystal

SIZE_A = 0.15  # true size of a pixel


def _from_lattice(output: Path) -> None:
    """The size of a pixel came from the crystal, not from the file."""
    import json

    found = json.loads((output / "summary.json").read_text())["pixel_size_A"]
    assert np.allclose(found, SIZE_A, rtol=0.01), found


def _senseless(name: str, scale: tuple[float, float], unit: str, *, slow: bool = True) -> None:
    """Register pixels whose size is not believed: the crystal gives it, or 'file' is refused."""

    @case(f"axes: {name}", 0, check=_from_lattice, inspect=0, slow=slow)
    def measured(folder: Path) -> Call:
        path = write_hspy(folder / "image.hspy", crystal(), scale=scale, units=(unit, unit))
        return Call((path,))

    @case(
        f"axes: {name}, to be believed", 3, "states no pixel size", "pixel_size", names_file=False
    )
    def refused(folder: Path) -> Call:
        path = write_hspy(folder / "image.hspy", crystal(), scale=scale, units=(unit, unit))
        return Call((path,), '[input]\npixel_size = "file"\n')


_senseless("negative pixel size", (-0.15, -0.15), "Å", slow=False)
_senseless("pixel size 0", (0.0, 0.0), "Å")
_senseless("pixel size not a number", (np.nan, np.nan), "Å")
_senseless("infinite pixel size", (np.inf, np.inf), "Å")
_senseless("a unit that is none", (0.15, 0.15), "furlong<script>")
_senseless("seconds", (0.15, 0.15), "s")
_senseless("no unit", (0.15, 0.15), "")
_senseless("a unit of 10000 letters", (0.15, 0.15), "å" * 10_000)


@case("axes: pixels 30 % off", 0, warns=frozenset({"pixel-size"}), check=_from_lattice)
def _(folder: Path) -> Call:
    return Call((write_hspy(folder / "image.hspy", crystal(), scale=(0.2, 0.2)),))


@case(
    "axes: pixels 30 % off, promised to be right",
    3,
    "periods do not fit",
    "pixel size",
    names_file=False,
)
def _(folder: Path) -> Call:
    path = write_hspy(folder / "image.hspy", crystal(), scale=(0.2, 0.2))
    return Call((path,), '[input]\npixel_size = "file"\n')


@case(
    "axes: nanometres taken for metres",
    0,
    warns=frozenset({"pixel-size"}),
    check=_from_lattice,
    slow=True,
)
def _(folder: Path) -> Call:
    return Call((write_hspy(folder / "image.hspy", crystal(), units=("m", "m")),))


@case(
    "axes: oblong pixels that are not",
    0,
    warns=frozenset({"pixel-size"}),
    check=_from_lattice,
    slow=True,
)
def _(folder: Path) -> Call:
    return Call((write_hspy(folder / "image.hspy", crystal(), scale=(0.15, 0.2)),))


@case("axes: a length and a time", 0, check=_from_lattice, slow=True)
def _(folder: Path) -> Call:
    return Call((write_hspy(folder / "image.hspy", crystal(), units=("Å", "s")),))


@case("axes: reciprocal units", 3, "reciprocal", "give an image", inspect=0)
def _(folder: Path) -> Call:
    return Call((write_hspy(folder / "image.hspy", noise(), units=("1/nm", "1/nm")),))


def _edited(name: str, cause: str, remedy: str, edit: object, **more: object) -> None:
    @case(f"axes: {name}", 3, cause, remedy, inspect=3, **more)
    def make(folder: Path) -> Call:
        path = write_hspy(folder / "image.hspy", noise())
        with h5py.File(path, "a") as file:
            edit(next(iter(file["Experiments"].values())))
        return Call((path,))


def _set(axis: str, **attributes: object):
    def edit(group: h5py.Group) -> None:
        group[axis].attrs.update(attributes)

    return edit


AGAIN = "export it again|copy or export"
_edited("a size that is not that of the data", "but axes for", AGAIN, _set("axis-0", size=100))
_edited("a negative size", "but axes for|damaged", AGAIN, _set("axis-0", size=-40))
_edited("a size that is text", "damaged|but axes", AGAIN, _set("axis-0", size="forty"))
_edited("one too few", "but axes for|damaged", AGAIN, lambda group: group.__delitem__("axis-1"))
_edited(
    "computed by an expression",
    "expression",
    "uniform axes",
    _set("axis-0", _type="FunctionalDataAxis", expression="x"),
)


@case("axes: the same name twice", 0, slow=True)
def _(folder: Path) -> Call:
    path = write_hspy(folder / "image.hspy", crystal())
    with h5py.File(path, "a") as file:
        group = next(iter(file["Experiments"].values()))
        for axis in ("axis-0", "axis-1"):
            group[axis].attrs["name"] = "x"
    return Call((path,))


@case("axes: three for two", 0, slow=True)
def _(folder: Path) -> Call:
    path = write_hspy(folder / "image.hspy", crystal())
    with h5py.File(path, "a") as file:
        group = next(iter(file["Experiments"].values()))
        group.copy("axis-1", "axis-2")
    return Call((path,))


@case("axes: a name of markup", 0, slow=True)
def _(folder: Path) -> Call:
    path = write_hspy(folder / "image.hspy", crystal())
    with h5py.File(path, "a") as file:
        group = next(iter(file["Experiments"].values()))
        group["axis-0"].attrs["name"] = "<script>alert(1)</script>"
    return Call((path,))


@case("axes: a spectrum image", 3, "navigation axes", "give one image", inspect=0)
def _(folder: Path) -> Call:
    from hyperspy.signals import Signal1D

    Signal1D(np.ones((24, 32, 50), np.float32)).save(str(folder / "image.hspy"))
    return Call((folder / "image.hspy",))
