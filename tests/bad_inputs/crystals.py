"""Crystals from CIF files that are damaged, incomplete or impossible."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from bad_inputs import Around, Call, case
from bad_inputs.formats import noise, write, write_hspy
from bad_inputs.warm import crystal

CELL = """data_KTaO3
_cell_length_a 3.9885
_cell_length_b 3.9885
_cell_length_c 3.9885
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_space_group_IT_number 1
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
"""
ATOMS = """K1 K 0 0 0 1
Ta1 Ta 0.5 0.5 0.5 1
O1 O 0.5 0.5 0 1
O2 O 0.5 0 0.5 1
O3 O 0 0.5 0.5 1
"""
CONFIG = '[crystal]\nstructure = "{}"\n'
CORRECT = r"[Cc]heck|[Cc]orrect|[Ee]xport|[Ss]et|[Aa]dd|[Gg]ive|Write"


def _cif(folder: Path, content: str | bytes) -> Path:
    path = folder / "mine.cif"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _refused(name: str, content: str | bytes, cause: str, remedy: str = CORRECT) -> None:
    @case(f"cif: {name}", 2, cause, remedy)
    def make(folder: Path) -> Call:
        path = _cif(folder, content)
        return Call((write("npy", folder, noise()),), CONFIG.format(path), names=(path,))


GOOD = CELL + ATOMS


def _many(n: int) -> str:
    """Give `n` atoms in a cell large enough for them."""
    places = np.random.default_rng(0).random((n, 3))
    rows = "".join(f"K{k} K {x:.5f} {y:.5f} {z:.5f} 1\n" for k, (x, y, z) in enumerate(places))
    return CELL.replace("3.9885", "200") + rows


_refused("empty", "", "no atoms|cannot be read")
_refused("a letter", "Dear reader\n", "cannot be read as CIF")
_refused("binary", bytes(range(256)) * 8, "cannot be read as CIF")
_refused("cut in the middle of a loop", GOOD[: len(GOOD) - 12], "cannot be read as CIF")
_refused("no atoms", CELL, "no atoms|cannot be read")
_refused("atoms without coordinates", CELL.replace("fract_x", "x") + ATOMS, "coordinates|no atoms")
_refused("no cell", "data_a\n" + GOOD[GOOD.index("_space") :], "no complete unit cell")
_refused("a cell of length 0", GOOD.replace("a 3.9885", "a 0"), "no complete unit cell")
_refused("a negative cell", GOOD.replace("a 3.9885", "a -3.9885"), "no complete unit cell")
_refused("a cell in nanometres", GOOD.replace("3.9885", "0.39885"), "no complete unit cell")
_refused("angles that no cell can have", GOOD.replace(" 90", " 150"), "no complete unit cell")
_refused("angles in radians", GOOD.replace(" 90", " 1.5708"), "unit cell|overlap|share the place")
_refused("a cell of words", GOOD.replace("3.9885", "four"), "no complete unit cell")
_refused("coordinates not a number", GOOD.replace("Ta 0.5", "Ta ?"), "needs three coordinates")
_refused("occupancies above 1", GOOD.replace("0 0 0 1", "0 0 0 1.5"), "occupancy from 0 to 1")
_refused("negative occupancies", GOOD.replace("0 0 0 1", "0 0 0 -1"), "occupancy from 0 to 1")
_refused("all occupancies 0", CELL + ATOMS.replace(" 1\n", " 0\n"), "all occupancies are 0")
_refused("an element that is none", GOOD.replace("K1 K", "K1 Xx"), "no known element")
_refused("one atom twice", GOOD + "K2 K 0 0 0 1\n", "share the place")
_refused("no space group", GOOD.replace("_space_group_IT_number 1\n", ""), "no known space group")
_refused(
    "a space group that is none", GOOD.replace("number 1\n", "number 999\n"), "no known space group"
)
_refused(
    "symmetry that its cell has not",
    GOOD.replace("number 1\n", "number 221\n").replace("c 3.9885", "c 5.1"),
    "does not have the symmetry",
)
_refused(
    "an operator of nonsense",
    GOOD.replace(
        "_space_group_IT_number 1", "loop_\n_space_group_symop_operation_xyz\n'x,y,nonsense'"
    ),
    "symmetry operator is not readable",
)
_refused("10 000 atoms", _many(10_000), "10000 atoms in the cell", "small cell")
_refused(
    "another crystal", GOOD.replace("K1 K ", "Na1 Na "), "displaced 'K' names no column", "Known"
)
_refused("one atom alone", CELL + "K1 K 0 0 0 1\n", "no columns of Ta, O", "it has K")


@case("cif: 10^5 atoms", 2, "100000 atoms in the cell", "small cell", slow=True)
def _(folder: Path) -> Call:
    path = _cif(folder, _many(100_000))
    return Call((write("npy", folder, noise()),), CONFIG.format(path), names=(path,))


_refused("2900 atoms", _many(2900), "2900 atoms in the cell", "small cell")


@case(
    "cif: 1400 atoms at random, which may be",
    (2, 3),
    "columns|close|displaced|periods|inversion|sharp",
    CORRECT + "|Known|axis|choose",
    slow=True,
    names_file=False,
)
def _(folder: Path) -> Call:
    path = _cif(folder, _many(1400))
    return Call((write("npy", folder, noise()),), CONFIG.format(path), names=(path,))


def _no_file(name: str, fill: object, cause: str, remedy: str = CORRECT, **more: object) -> None:
    @case(f"cif: {name}", 2, cause, remedy, **more)
    def make(folder: Path) -> Call:
        fill(folder / "mine.cif")
        path = folder / "mine.cif"
        return Call((write("npy", folder, noise()),), CONFIG.format(path), names=(path,))


_no_file("a directory", lambda path: path.mkdir(), "directory")
_no_file("a FIFO", lambda path: os.mkfifo(path), "not a regular file")
_no_file("a device without end", lambda path: path.symlink_to("/dev/zero"), "not a regular file")
_no_file("a link to itself", lambda path: path.symlink_to(path.name), "cannot be read|neither")
_no_file("1 GB", lambda path: (path.touch(), os.truncate(path, 10**9)), "too large|more than|MB")
_no_file(
    "no permission",
    lambda path: (path.write_text(GOOD), path.chmod(0)),
    "[Pp]ermission denied",
    around=Around(unprivileged=True),
)


@case("cif: the preset written out", 0)
def _(folder: Path) -> Call:
    path = _cif(folder, GOOD)
    return Call((write_hspy(folder / "image.hspy", crystal()),), CONFIG.format(path))


@case("cif: partial occupancy", 0, slow=True)
def _(folder: Path) -> Call:
    path = _cif(folder, GOOD.replace("0 0 0 1", "0 0 0 0.9"))
    return Call((write_hspy(folder / "image.hspy", crystal()),), CONFIG.format(path))


@case("cif: quotes and other alphabets in its path", 0, slow=True)
def _(folder: Path) -> Call:
    path = folder / "it's Кристалл \U0001f48e.cif"
    path.write_text(GOOD)
    return Call((write_hspy(folder / "image.hspy", crystal()),), CONFIG.format(path))


@case("cif: a crystal with another cell", 0, warns=frozenset({"pixel-size"}), says="23|18")
def _(folder: Path) -> Call:
    path = _cif(folder, GOOD.replace("3.9885", "4.9"))
    return Call((write_hspy(folder / "image.hspy", crystal()),), CONFIG.format(path))
