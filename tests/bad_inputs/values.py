"""Images whose values, number of axes or frames are wrong, or whose values an instrument spoilt."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import tifffile

from bad_inputs import Call, case
from bad_inputs.formats import noise, write, write_hspy
from bad_inputs.warm import crystal

OTHER_FILE = r"[Cc]heck|export|save|give|copy"


def _npy(name: str, data: np.ndarray, cause: str, remedy: str = OTHER_FILE, **more: object) -> None:
    """Register an array that has to be refused."""

    @case(f"values: {name}", 3, cause, remedy, inspect=more.pop("inspect", 0), **more)
    def make(folder: Path) -> Call:
        np.save(folder / "image.npy", data, allow_pickle=True)
        return Call((folder / "image.npy",))


def _with(change: object, kind: type = np.float32) -> np.ndarray:
    data = crystal().astype(kind)
    change(data)
    return data


def _all(value: float) -> np.ndarray:
    return np.full((192, 192), value, np.float32)


# ---- nothing in them -------------------------------------------------------------------

_npy("not a number everywhere", _all(np.nan), "no finite number")
_npy("infinite everywhere", _all(np.inf), "no finite number")
_npy(
    "nan and inf, nothing else", np.where(noise((192, 192)) > 0, np.nan, np.inf), "no finite number"
)
_npy("constant", _all(7.0), "every pixel is 7")
_npy("zero", _all(0.0), "every pixel is 0")
_npy("saturated everywhere", np.full((192, 192), 65535, np.uint16), "every pixel is 65535")
_npy("float16, overflown", np.full((192, 192), np.inf, np.float16), "no finite number")
_npy(
    "one hot pixel on a flat field",
    _with(lambda a: (a.fill(1), a.put(900, 9))),
    "nearly everywhere|constant|no lattice",
    names_file=False,
)
_npy(
    "half dark, half bright",
    np.repeat([[0.0], [9.0]], 96, 0) * np.ones(192),
    "nearly everywhere|constant|no lattice",
    names_file=False,
)
_npy("noise", noise((192, 192)), "no lattice|do not fit", names_file=False)
_npy(
    "a ramp",
    np.add.outer(np.arange(192.0), np.arange(192.0)),
    "no lattice|do not fit",
    names_file=False,
)
_npy(
    "a checkerboard of single pixels",
    np.indices((192, 192)).sum(0) % 2 * 1.0,
    "no lattice|do not fit",
    names_file=False,
)
_npy(
    "stripes",
    np.sin(np.arange(192) / 2)[None] * np.ones((192, 1)),
    "no lattice|do not fit|cannot tell which column",
    "[Cc]heck|is needed",
    names_file=False,
)

# ---- what is no real number ------------------------------------------------------------

_npy("complex", noise().astype(complex), "complex")
_npy("text", np.full((40, 48), "a"), "non-numeric")
_npy("objects", np.full((40, 48), None), "damaged|non-numeric|cannot be read", inspect=3)
_npy("dates", np.zeros((40, 48), "datetime64[s]"), "non-numeric")
_npy("colours in one value", np.zeros((40, 48), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "colour")
_npy("quadruple precision", noise().astype(np.longdouble), "no lattice|float128", names_file=False)


@case("values: a colour image", 3, "colour image", "export", inspect=3)
def _(folder: Path) -> Call:
    rgb = np.zeros((64, 64, 3), np.uint8)
    tifffile.imwrite(folder / "image.tif", rgb, photometric="rgb")
    return Call((folder / "image.tif",))


@case("values: a colour image with transparency", 3, "colour image", "export", inspect=3)
def _(folder: Path) -> Call:
    rgba = np.zeros((64, 64, 4), np.uint8)
    tifffile.imwrite(folder / "image.tif", rgba, photometric="rgb", extrasamples=["unassalpha"])
    return Call((folder / "image.tif",))


@case("values: an image of palette colours", 3, "colour|palette|px", "export|least")
def _(folder: Path) -> Call:
    palette = np.zeros((3, 256), np.uint16)
    palette[0] = np.arange(256) * 256
    data = np.arange(4096).reshape(64, 64).astype(np.uint8)
    tifffile.imwrite(folder / "image.tif", data, photometric="palette", colormap=palette)
    return Call((folder / "image.tif",))


# ---- numbers of axes and pixels --------------------------------------------------------

_npy("one axis", np.zeros(100), r"shape \(100,\)")
_npy("no axis", np.array(3.0), r"shape \(\)")
_npy("four axes", np.zeros((2, 3, 40, 48), np.float32), "navigation axes|shape")
_npy("five axes", np.zeros((1, 1, 1, 40, 48), np.float32), "shape")
_npy("3 x 3", noise((3, 3)), "3 x 3 pixels", "at least 16 x 16 are needed")
_npy("1 x 1", noise((1, 1)), "1 x 1 pixels", "at least 16 x 16 are needed")
_npy("10 x 10000", noise((10, 10000)), "10000 x 10 pixels", "at least 16 x 16 are needed")
_npy("no pixels", np.zeros((0, 48)), "48 x 0 pixels", "at least 16 x 16 are needed")
_npy(
    "40 x 40, too small for a lattice",
    noise((40, 40)),
    "no lattice|px",
    "least|[Cc]heck",
    names_file=False,
)
_npy("a series of no frames", np.zeros((0, 64, 64), np.float32), "0|no frame|empty")

# ---- what an instrument does -----------------------------------------------------------


def _spoilt(
    name: str,
    change: object,
    warns: set[str] = frozenset(),
    kind: type = np.float32,
    **more: object,
) -> None:
    """Register a crystal that is measured all the same, what is lost being marked."""

    @case(f"values: {name}", 0, warns=frozenset(warns), inspect=0, **more)
    def make(folder: Path) -> Call:
        return Call((write_hspy(folder / "image.hspy", _with(change, kind)),))


def _some_masked(output: Path) -> None:
    import pandas as pd

    from stemdisp.tables import Quality

    quality = pd.read_csv(output / "columns.csv")["quality"]
    assert (quality & int(Quality.MASKED)).gt(0).sum() >= 3


def _hole(value: float):
    def change(data: np.ndarray) -> None:
        data[120:150, 60:90] = value

    return change


_spoilt("a hole of not-a-number", _hole(np.nan), check=_some_masked)
_spoilt("a hole of infinity", _hole(np.inf), check=_some_masked, slow=True)
_spoilt("a saturated patch", _hole(9.0), check=_some_masked, slow=True)


def _one_pixel(value: float):
    def change(data: np.ndarray) -> None:
        data[131, 77] = value

    return change


def _as_without(output: Path) -> None:
    """A single pixel must not move the answer: compare with the untouched image."""
    import json

    seen = json.loads((output / "summary.json").read_text())
    assert seen["decay"]["delta0_A"] is None or 0.2 < seen["decay"]["delta0_A"] < 1.2


_spoilt("one pixel not a number", _one_pixel(np.nan), check=_as_without, slow=True)
_spoilt("one pixel of 1e30", _one_pixel(1e30), check=_as_without)
_spoilt("one pixel of -3e38", _one_pixel(-3e38), check=_as_without, slow=True)
for _ranges in (12, 50):
    _spoilt(
        f"one pixel of {_ranges} times the range",
        _one_pixel(0.4 * _ranges),
        {"absurd-pixels"},
        check=_as_without,
        slow=True,
    )


# ---- series ----------------------------------------------------------------------------


@case(
    "series: all frames dark",
    3,
    "every pixel is|hold no image|constant|no frame",
    OTHER_FILE,
    inspect=0,
)
def _(folder: Path) -> Call:
    return Call((write("npy", folder, np.zeros((3, 192, 192), np.float32)),))


@case(
    "series: all frames of nothing but dark noise",
    3,
    "no lattice|do not fit|hold no image",
    OTHER_FILE,
    names_file=False,
)
def _(folder: Path) -> Call:
    return Call((write("npy", folder, noise((3, 96, 96))),))


@case("series: one frame", 0, slow=True)
def _(folder: Path) -> Call:
    return Call((write_hspy(folder / "image.hspy", crystal()[None]),))


@case(
    "series: a dark frame among good ones",
    0,
    warns=frozenset({"frames-left-out"}),
    says="frames 1 ",
    slow=True,
)
def _(folder: Path) -> Call:
    frames = np.stack([crystal(), 0 * crystal(), crystal(), crystal()])
    frames += 0.02 * noise(frames.shape)
    frames[1] = 0
    return Call((write_hspy(folder / "image.hspy", frames),))


@case(
    "series: frames of unequal size",
    3,
    "192 x 192 but|192 x 192 .*pixels",
    "one size|crop|give",
    inspect=0,
)
def _(folder: Path) -> Call:
    a = write_hspy(folder / "a.hspy", crystal())
    b = write_hspy(folder / "b.hspy", crystal()[:150])
    return Call((a, b))


@case("series: an image and a missing one", 3, r"b\.hspy: no such file", "check the path")
def _(folder: Path) -> Call:
    return Call((write_hspy(folder / "a.hspy", crystal()), folder / "b.hspy"))


@case("series: pixel sizes that differ", 3, "different pixel sizes", "pixel_size|give|set|export")
def _(folder: Path) -> Call:
    a = write_hspy(folder / "a.hspy", crystal())
    b = write_hspy(folder / "b.hspy", crystal(), scale=(0.3, 0.3))
    return Call((a, b))


@case("series: called one image", 3, "kind = 'image'.* 3 images", "set kind", names_file=False)
def _(folder: Path) -> Call:
    return Call((write("npy", folder, noise((3, 64, 64))),), '[input]\nkind = "image"\n')


@case("series: one image, called segments", 3, "dpc-segments", "name the images|set kind")
def _(folder: Path) -> Call:
    return Call((write("npy", folder, noise((64, 64))),), '[input]\nkind = "dpc-segments"\n')


@case(
    "series: one image, called a stack",
    3,
    "holds? one image",
    "set kind|name all",
    names_file=False,
)
def _(folder: Path) -> Call:
    return Call((write("npy", folder, noise((64, 64))),), '[input]\nkind = "stack"\n')


@case(
    "series: segments without a specimen", 3, "no |not |curl|constant", OTHER_FILE, names_file=False
)
def _(folder: Path) -> Call:
    data = noise((4, 96, 96)) + 5
    return Call((write("npy", folder, data),), '[input]\nkind = "dpc-segments"\n')


@case("series: segments without a count", 3, "no |not |constant|every pixel", OTHER_FILE)
def _(folder: Path) -> Call:
    data = np.zeros((4, 96, 96), np.float32)
    return Call((write("npy", folder, data),), '[input]\nkind = "dpc-segments"\n')


@case("series: doses that are no numbers", 3, "dose_e_per_A2", "correct or delete")
def _(folder: Path) -> Call:
    path = write_hspy(folder / "image.hspy", crystal()[None].repeat(3, 0))
    with h5py.File(path, "a") as file:
        metadata = next(iter(file["Experiments"].values()))["metadata"]
        metadata.create_group("stemdisp").attrs["dose_e_per_A2"] = "much"
    return Call((path,))


@case("series: several images in one file", 3, "holds", "name one as", inspect=0)
def _(folder: Path) -> Call:
    from _written_files import write_emd

    images = {"HAADF": noise(), "DF4-A": noise(seed=1), "DF4-B": noise(seed=2)}
    return Call((write_emd(folder / "image.emd", images),))


@case("series: a name that no image has", 3, "no usable image 'ABF'", "it has")
def _(folder: Path) -> Call:
    from _written_files import write_emd

    path = write_emd(folder / "image.emd", {"HAADF": noise()})
    return Call((f"{path}::ABF",))
