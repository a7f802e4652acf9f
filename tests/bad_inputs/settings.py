"""Configurations, command lines and files beside the data that are wrong."""

from __future__ import annotations

import os
from pathlib import Path

from bad_inputs import Around, Call, case
from bad_inputs.formats import noise, write, write_hspy
from bad_inputs.warm import crystal


def _wrong(name: str, text: str, cause: str, remedy: str) -> None:
    """Register a configuration that has to be refused before the data are touched."""

    @case(f"config: {name}", 2, cause, remedy)
    def make(folder: Path) -> Call:
        return Call((), text)


def _key(table: str, line: str, remedy: str = r"give |write it|choose|leave") -> None:
    key = line.partition("=")[0].strip()
    short = line if len(line) < 40 else f"{line[:37]}..."
    _wrong(f"[{table}] {short}", f"[{table}]\n{line}\n", key, remedy)


# ---- wrong types and values ------------------------------------------------------------

for _line in (
    "path = 5",
    "path = [1, 2]",
    'path = ""',
    "path = {a = 1}",
    "kind = 3",
    'kind = "movie"',
    "pixel_size = -1.0",
    "pixel_size = 0",
    "pixel_size = nan",
    "pixel_size = inf",
    'pixel_size = "big"',
    "pixel_size = true",
    "pixel_size = [0.1, 0.1]",
    "corrections = 1",
    'corrections = ""',
):
    _key("input", _line)
for _line in (
    "structure = 1",
    'structure = " "',
    "zone_axis = [0, 0, 0]",
    "zone_axis = [1, -1]",
    "zone_axis = [1.5, 0, 0]",
    'zone_axis = "110"',
    'displaced = "k"',
    "displaced = 19",
    'displaced = "Ta"',
    'cage = "Ta,O"',
    'cage = "Ta/Ta"',
    'cage = ["Ta", "O"]',
    "born_charges = {K = nan}",
    'born_charges = {"1" = 2.0}',
    "born_charges = 5",
):
    _key("crystal", _line, r"give |write it|leave|must differ|choose")
for _line in (
    "thickness_nm = -3",
    "thickness_nm = 0",
    'thickness_nm = "thin"',
    "thickness_nm = inf",
):
    _key("specimen", _line)
for _line in (
    'present = "maybe"',
    "plane = [0, 0, 0]",
    "plane = [1, 1]",
    "plane = [1, 0, 0]",
    "count_along = [1, -1, 0]",
    'film = "north"',
    "at = [1, 2]",
    "at = [[1, 2], [1, 2]]",
    "at = [[nan, 2]]",
    "at = []",
):
    _key("interface", _line, r"give |choose|must differ")
for _line in (
    "bulk_from = 1",
    "bulk_from = 2.5",
    'bulk_from = "ten"',
    "confidence = 1",
    "confidence = 95",
    "confidence = nan",
    "seed = -1",
    "occupancy_calibration = 3",
    'dose_series = "yes"',
):
    _key("analysis", _line)
_key("refine", 'noise = "pink"')

# ---- wrong names -----------------------------------------------------------------------

_wrong("a key with a slip", "[input]\npth = 'x'\n", "no key 'pth'", "did you mean 'path'")
_wrong(
    "a key in another table", "[crystal]\nplane = [1, 1, 1]\n", "no key 'plane'", r"\[interface\]"
)
_wrong("a key outside its table", "seed = 3\n", "outside its table", r"put it under \[analysis\]")
_wrong(
    "a table that is none",
    "[microscope]\na = 1\n",
    r"no table \[microscope\]",
    "the tables are|mean",
)
_wrong("a number for a table", "input = 3\n", "input is a table", r"write \[input\]")
_wrong("two tables of one name", "[input]\n[input]\n", "not valid TOML", "line")
_wrong("a list of tables", "[[input]]\npath = 'a'\n", "input is a table", r"write \[input\]")
_wrong(
    "present = false, and a place",
    "[interface]\npresent = false\nat = [[3, 4]]\n",
    "at states an interface",
    "leave out",
)

# ---- no TOML ---------------------------------------------------------------------------

_wrong("a letter", "Dear reader,\n\nthis is a letter.\n", "not valid TOML", "line 1")
_wrong("JSON", '{"input": {"path": "a"}}\n', "not valid TOML", "line 1")
_wrong("YAML", "input:\n  path: a\n", "not valid TOML", "line 1")
_wrong("a quote that never ends", "[input]\npath = 'a\n", "not valid TOML", "correct it")
_wrong(
    "nested ten thousand deep",
    "a = " + "[" * 10_000 + "]" * 10_000,
    "nested|not valid TOML",
    "line|write",
)
_wrong("control signs", "[input]\npath = 'a\x07'\n", "not valid TOML", "line 2")


def _file(name: str, cause: str, remedy: str, **more: object):
    """Register a configuration that is no readable file; the function makes it."""

    def register(fill: object) -> None:
        @case(f"config: {name}", 2, cause, remedy, **more)
        def make(folder: Path) -> Call:
            path = folder / "mine.toml"
            fill(path)
            return Call((), path)

    return register


_file("missing", "no such configuration file", "check the path")(lambda path: None)
_file("a directory", "is a directory", "name a file")(lambda path: path.mkdir())
_file("binary", "not text in UTF-8", "give a TOML file")(
    lambda path: path.write_bytes(bytes(range(256)))
)
_file("UTF-16", "not text in UTF-8", "give|save")(
    lambda path: path.write_text("[input]\n", "utf-16")
)
_file("a FIFO", "not a regular file", "copy")(lambda path: os.mkfifo(path))
_file("a device without end", "not a regular file", "copy")(
    lambda path: path.symlink_to("/dev/zero")
)
_file("a link to itself", "cannot be read", "check the path")(
    lambda path: path.symlink_to(path.name)
)
_file("100 MB", "more than", "check that")(lambda path: path.write_bytes(b"#\n" * 50_000_000))
_file(
    "no permission",
    "[Pp]ermission denied",
    "check|give|permission",
    around=Around(unprivileged=True),
)(lambda path: (path.write_text(""), path.chmod(0)))


@case(
    "config: the data in its place",
    2,
    "not text in UTF-8|not valid TOML",
    "give|line",
    names_file=True,
)
def _(folder: Path) -> Call:
    return Call((), write("tif", folder, noise()))


@case("config: the data in its place, and it in theirs", 2, "unexpected extra argument", "--help")
def _(folder: Path) -> Call:
    (folder / "mine.toml").write_text("")
    return Call((folder / "mine.toml",), write("npy", folder, noise()))


@case("config: empty", 3, "periods do not fit|no lattice|px", "[Cc]heck|least", names_file=False)
def _(folder: Path) -> Call:
    return Call((write("npy", folder, noise()),), "")


@case("config: with a byte-order mark", 3, "no lattice|px", "[Cc]heck|least", names_file=False)
def _(folder: Path) -> Call:
    return Call((write("npy", folder, noise()),), "\ufeff[input]\n")


# ---- the crystal of a configuration ----------------------------------------------------


def _crystal(name: str, text: str, cause: str, remedy: str) -> None:
    """Register what is well-formed, but no crystal; the configuration must be named."""

    @case(f"crystal: {name}", 2, cause, remedy)
    def make(folder: Path) -> Call:
        path = folder / "mine.toml"
        path.write_text(f"[crystal]\n{text}\n", encoding="utf-8")
        return Call((write("npy", folder, noise()),), path)


_crystal(
    "an unknown structure",
    'structure = "KTaO4"',
    "neither a preset nor a file",
    "Nearest preset|give",
)
_crystal(
    "a structure of another alphabet", 'structure = "ΚΤαΟ₃"', "neither a preset nor a file", "give"
)
_crystal("a CIF that is missing", 'structure = "absent.cif"', "neither a preset nor a file", "give")
_crystal(
    "a species that is not in it",
    'displaced = "Sr"',
    "displaced 'Sr' names no column",
    "Known: K, Ta, O",
)
_crystal(
    "a species hidden in another's column", 'structure = "PMN"\ndisplaced = "Mg"', "'Mg'", "Known"
)
_crystal("a cage that is not in it", 'cage = "Nb"', "no columns of Nb", "it has K, Ta, O")
_crystal("a cage of which one is not in it", 'cage = "Ta/S"', "no columns of S ", "it has K, Ta, O")
_crystal(
    "a zone axis whose columns overlap",
    "zone_axis = [7, -13, 0]",
    "\\[7, -13, 0\\]|close",
    "[Cc]hoose|axis|give",
)
_crystal(
    "a zone axis of huge numbers",
    "zone_axis = [100003, -100019, 7]",
    "zone|close|columns",
    "[Cc]hoose|axis|give",
)
_crystal(
    "charges of a species that is not in it",
    "born_charges = {Sr = 2.0}",
    "born_charges: KTaO3 has no 'Sr'",
    "it has K, O, Ta",
)


# ---- files beside the data -------------------------------------------------------------

_CONFIG = "[analysis]\nseed = 3\n"
_BY_HAND = 'format = 1\n\n[[correction]]\naction = "remove"\nat_px = [10.0, 10.0]\n'


@case(
    "corrections: a configuration in their place",
    2,
    "is a configuration",
    "as corrections the file",
)
def _(folder: Path) -> Call:
    (folder / "other.toml").write_text(_CONFIG)
    return Call((write("npy", folder, noise()),), "", ("--corrections", str(folder / "other.toml")))


@case("corrections: in place of a configuration", 2, "is a file of corrections", "--corrections")
def _(folder: Path) -> Call:
    (folder / "corrections.toml").write_text(_BY_HAND)
    return Call((write("npy", folder, noise()),), folder / "corrections.toml")


@case("corrections: each in the other's place", 2, "is a file of corrections", "--corrections")
def _(folder: Path) -> Call:
    (folder / "corrections.toml").write_text(_BY_HAND)
    (folder / "mine.toml").write_text(_CONFIG)
    more = ("--corrections", str(folder / "mine.toml"))
    return Call((write("npy", folder, noise()),), folder / "corrections.toml", more)


def _by_hand(name: str, text: str | None, cause: str, remedy: str) -> None:
    @case(f"corrections: {name}", 2, cause, remedy)
    def make(folder: Path) -> Call:
        path = folder / "by-hand.toml"
        if text is not None:
            path.write_text(text)
        return Call((write("npy", folder, noise()),), "", ("--corrections", str(path)))


_by_hand("missing", None, "no such file of corrections", "check the path")
_by_hand("empty", "", "format", "corrections")
_by_hand("a letter", "Dear reader\n", "not valid TOML", "line 1")
_by_hand(
    "an unknown action",
    'format = 1\n[[correction]]\naction = "erase"\n',
    "no action 'erase'",
    "use|mean",
)
_by_hand(
    "a place that is none",
    'format = 1\n[[correction]]\naction = "remove"\nat_px = [nan, 3]\n',
    "at_px",
    "give two",
)
_by_hand("of a later version", "format = 2\n", "format = 2", "version|corrections")


@case("corrections: a FIFO", 2, "not a regular file", "copy")
def _(folder: Path) -> Call:
    os.mkfifo(folder / "by-hand.toml")
    return Call(
        (write("npy", folder, noise()),), "", ("--corrections", str(folder / "by-hand.toml"))
    )


@case("corrections: of another image", 3, "other data", "make new ones|sha256")
def _(folder: Path) -> Call:
    text = f'format = 1\n[image]\nsha256 = "{"0" * 64}"\n' + _BY_HAND.partition("\n")[2]
    (folder / "by-hand.toml").write_text(text)
    path = write_hspy(folder / "image.hspy", crystal())
    return Call((path,), "", ("--corrections", str(folder / "by-hand.toml")))


@case(
    "corrections: beside the image",
    3,
    "correction 1|no column|outside",
    "column|image",
    names_file=False,
)
def _(folder: Path) -> Call:
    (folder / "by-hand.toml").write_text(_BY_HAND.replace("10.0, 10.0", "5000.0, -3.0"))
    path = write_hspy(folder / "image.hspy", crystal())
    return Call((path,), "", ("--corrections", str(folder / "by-hand.toml")))


def _curve(name: str, fill: object, cause: str, remedy: str, status: int = 2) -> None:
    @case(f"curve: {name}", status, cause, remedy)
    def make(folder: Path) -> Call:
        fill(folder / "curve.csv")
        text = f'[analysis]\noccupancy_calibration = "{folder / "curve.csv"}"\n'
        return Call((write("npy", folder, noise()),), text, names=(folder / "curve.csv",))


_curve("missing", lambda path: None, "no such file", "check the path")
_curve(
    "binary",
    lambda path: path.write_bytes(bytes(range(256))),
    "cannot be read as CSV|no column",
    "give the columns",
)
_curve(
    "other columns",
    lambda path: path.write_text("a,b\n1,2\n"),
    "no column 'ratio'",
    "give the columns",
)
_curve(
    "words",
    lambda path: path.write_text("ratio,occupancy\nx,y\n"),
    "cannot be read as CSV",
    "give the columns",
)
_curve(
    "falling",
    lambda path: path.write_text("ratio,occupancy\n1,0\n0,1\n"),
    "increase together",
    "must be two",
)
_curve("a FIFO", lambda path: os.mkfifo(path), "not a regular file", "copy")
_curve("a directory", lambda path: path.mkdir(), "is a directory", "name a file")


# ---- the command line ------------------------------------------------------------------


def _line(
    name: str, options: tuple[str, ...], cause: str, remedy: str, *, slow: bool = False
) -> None:
    @case(f"command: {name}", 2, cause, remedy, names_file=False, slow=slow)
    def make(folder: Path) -> Call:
        return Call((), "", options)


_line("an option that is none", ("--outptu", "x"), "No such option", "mean '--output'")
_line("one word too many", ("more", "words"), "unexpected", "argument")
_line(
    "a scheduler that is none",
    ("--scheduler", "tcp://127.0.0.1:9"),
    "no Dask scheduler",
    "start one",
    slow=True,
)
_line(
    "a scheduler of nonsense",
    ("--scheduler", "nonsense"),
    "scheduler",
    "start one|correct",
    slow=True,
)


@case(
    "command: an input that is empty", 2, "holds an empty name", "give the path", names_file=False
)
def _(folder: Path) -> Call:
    return Call((), "", ("--input", ""))


@case(
    "command: a pattern that matches nothing",
    2,
    "matches no file",
    "check the pattern",
    names_file=False,
)
def _(folder: Path) -> Call:
    return Call((str(folder / "*.emd"),))


@case(
    "command: no input stated, none named",
    2,
    "path names no file",
    "--input .*INPUT=",
    names_file=True,
)
def _(folder: Path) -> Call:
    from conftest import ROOT

    return Call((), ROOT / "pipelines" / "kto_112_null.toml", work_in=ROOT)
