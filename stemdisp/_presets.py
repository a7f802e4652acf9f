"""Where a crystal structure comes from: the presets, or a CIF file.

Both give a :class:`Structure`, the plain list of the atoms in one conventional cell that
:func:`stemdisp.crystal.project` works on.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stemdisp._texts import read_small

if TYPE_CHECKING:
    import gemmi

_SYMBOLS = (
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se "
    "Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb "
    "Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm"
).split()
ATOMIC_NUMBER: dict[str, int] = {symbol: z for z, symbol in enumerate(_SYMBOLS, start=1)} | {"D": 1}

# a, c in angstrom, the A site, and the B site with its occupancies, at room temperature.
# Every atom is on its ideal, centrosymmetric place, also in the polar phases: the preset seeds the
# fit, and an offset put in here would be measured back as a result.
_PEROVSKITES: dict[str, tuple[float, float, str, dict[str, float]]] = {
    "KTaO3": (3.9885, 3.9885, "K", {"Ta": 1.0}),
    "SrTiO3": (3.905, 3.905, "Sr", {"Ti": 1.0}),
    "BaTiO3": (3.994, 4.038, "Ba", {"Ti": 1.0}),
    "PbTiO3": (3.904, 4.152, "Pb", {"Ti": 1.0}),
    "LaAlO3": (3.79, 3.79, "La", {"Al": 1.0}),
    "PMN": (4.05, 4.05, "Pb", {"Nb": 2 / 3, "Mg": 1 / 3}),
}
PRESETS: tuple[str, ...] = tuple(_PEROVSKITES)

# Images of one atom closer than this are one atom on a special position given with few digits.
_SPECIAL_A = 0.1
# The geometry compares all pairs of atoms: 0.3 GB for this many.
_MAX_ATOMS = 1500
_MAX_CELL_A = 1000.0  # no image shows a period of this size


@dataclass(frozen=True, eq=False)
class Structure:
    """The atoms of one conventional cell.

    Attributes
    ----------
    name : str
        Preset name, or the CIF's file name without suffix.
    metric : ndarray, shape (3, 3)
        Rows are a, b, c in Cartesian axes, in angstrom.
    elements : tuple of str
        Element symbol of each of the n atoms.
    positions : ndarray, shape (n, 3)
        Fractional coordinates in [0, 1).
    occupancy : ndarray, shape (n,)
        Fraction of the cells in which the atom is there.
    """

    name: str
    metric: np.ndarray
    elements: tuple[str, ...]
    positions: np.ndarray
    occupancy: np.ndarray


def load_structure(structure: str | os.PathLike[str]) -> Structure:
    """Read a structure by preset name or from a CIF file.

    Parameters
    ----------
    structure : str or path
        One of `PRESETS`, or the path of a CIF file.

    Returns
    -------
    Structure
        All atoms of the conventional cell.

    Raises
    ------
    ValueError
        The name is unknown, or the file cannot be read or holds no usable structure.
    """
    name = os.fspath(structure)
    if name in _PEROVSKITES:
        return _perovskite(name)
    path = Path(name)
    if name and os.path.lexists(path):
        return _read_cif(path)
    folded = {preset.casefold(): preset for preset in PRESETS}
    nearest = difflib.get_close_matches(path.stem.casefold(), folded, n=1, cutoff=0.0)
    raise ValueError(
        f"structure {name!r} is neither a preset nor a file. Nearest preset: "
        f"{folded[nearest[0]]!r}. Presets: {', '.join(PRESETS)}. Else give the path of a CIF file."
    )


def cell_vectors(lengths: tuple[float, ...], angles_deg: tuple[float, ...]) -> np.ndarray:
    """Give the Cartesian cell vectors, a along x and b in the x-y plane.

    Parameters
    ----------
    lengths : tuple of 3 floats
        a, b, c in angstrom.
    angles_deg : tuple of 3 floats
        alpha, beta, gamma in degrees.

    Returns
    -------
    ndarray, shape (3, 3)
        Rows are a, b, c in angstrom.
    """
    cos_a, cos_b, cos_c = np.round(np.cos(np.radians(angles_deg)), 12)
    sin_c = np.sqrt(1.0 - cos_c**2)
    c_y = (cos_a - cos_b * cos_c) / sin_c
    c_z = np.sqrt(1.0 - cos_b**2 - c_y**2)
    rows = np.array([[1.0, 0.0, 0.0], [cos_c, sin_c, 0.0], [cos_b, c_y, c_z]])
    return rows * np.asarray(lengths, float)[:, None]


def _perovskite(name: str) -> Structure:
    """Build an ABO3 preset with A at the origin of the cell."""
    a, c, a_site, b_site = _PEROVSKITES[name]
    places = [(a_site, 1.0, (0.0, 0.0, 0.0))]
    places += [(element, occupancy, (0.5, 0.5, 0.5)) for element, occupancy in b_site.items()]
    places += [("O", 1.0, place) for place in ((0.5, 0.5, 0.0), (0.5, 0.0, 0.5), (0.0, 0.5, 0.5))]
    elements, occupancy, positions = zip(*places, strict=True)
    metric = np.diag([a, a, c])
    return Structure(name, metric, tuple(elements), np.array(positions), np.array(occupancy))


def _read_cif(path: Path) -> Structure:
    """Read the first block with atoms of a CIF file and fill the cell by its symmetry."""
    import gemmi

    try:
        content = read_small(path)
    except ValueError as error:
        raise ValueError(f"structure {str(path)!r} {error}") from error
    try:
        document = gemmi.cif.read_string(content.decode("utf-8", errors="replace"))
        crystals = [
            gemmi.make_small_structure_from_block(block)
            for block in document
            # without one of them its coordinate would be 0 everywhere
            if all(len(block.find_values(f"_atom_site_fract_{axis}")) for axis in "xyz")
        ]
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"structure {str(path)!r} cannot be read as CIF ({error}). "
            "Check that it is a text file in CIF format, or give a preset."
        ) from error
    crystals = [crystal for crystal in crystals if len(crystal.sites) > 0]
    if not crystals:
        raise ValueError(
            f"structure {str(path)!r} holds no atoms with fractional coordinates "
            "(_atom_site_fract_x, ...). Export it again with its atoms."
        )
    crystal = crystals[0]
    cell = crystal.cell
    cosines = np.cos(np.radians([cell.alpha, cell.beta, cell.gamma]))
    # Below zero no three vectors enclose these angles; NaN fails the comparison too.
    room = 1.0 - cosines @ cosines + 2.0 * np.prod(cosines)
    lengths, angles = (cell.a, cell.b, cell.c), (cell.alpha, cell.beta, cell.gamma)
    possible = bool(room > 1e-6) and all(1.0 < length < _MAX_CELL_A for length in lengths)
    possible &= all(0.0 < angle < 180.0 for angle in angles)
    if not cell.is_crystal() or not possible:
        raise ValueError(
            f"structure {str(path)!r} has no complete unit cell: give three _cell_length_ in "
            "angstrom and three _cell_angle_ that a cell can have."
        )
    metric = cell_vectors(lengths, angles)
    sites = _checked_sites(crystal, path)
    filled = [_fill_cell(ops, sites, metric) for ops in _settings(crystal, metric, path)]
    # Of two origin choices the right one leaves atoms on special positions, hence fewer of them.
    index, position = min(filled, key=lambda item: len(item[0]))
    elements = tuple(sites[k][0] for k in index)
    occupancy = np.array([sites[k][1] for k in index])
    _check_overlap(position, occupancy, metric, path)
    return Structure(path.stem, metric, elements, position, occupancy)


def _checked_sites(
    crystal: gemmi.SmallStructure, path: Path
) -> list[tuple[str, float, np.ndarray]]:
    """Give element, occupancy and coordinates of the listed atoms; refuse what is unknown."""
    sites = []
    for atom in crystal.sites:
        place = np.array(atom.fract.tolist(), float)
        if atom.element.name not in ATOMIC_NUMBER:
            raise ValueError(
                f"structure {str(path)!r}: atom {atom.label!r} has no known element. "
                "Set its _atom_site_type_symbol."
            )
        if not np.isfinite(place).all() or not np.isfinite(atom.occ) or not 0 <= atom.occ <= 1.001:
            raise ValueError(
                f"structure {str(path)!r}: atom {atom.label!r} needs three coordinates and an "
                f"occupancy from 0 to 1, not {place.tolist()} and {atom.occ}. Correct the file."
            )
        if atom.occ > 0:
            sites.append((atom.element.name, float(atom.occ), place))
    if not sites:
        raise ValueError(
            f"structure {str(path)!r}: no atoms are left, all occupancies are 0. Correct the file."
        )
    return sites


def _settings(
    crystal: gemmi.SmallStructure, metric: np.ndarray, path: Path
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Give the symmetry operations, once for each origin choice that the file leaves open."""
    import gemmi

    if crystal.symops:
        try:
            triplets = [[gemmi.Op(text) for text in crystal.symops]]
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                f"structure {str(path)!r}: a symmetry operator is not readable ({error}). "
                "Write it as 'x,y,z'."
            ) from error
    else:
        triplets = [list(group.operations()) for group in _space_groups(crystal)]
    if not triplets:
        raise ValueError(
            f"structure {str(path)!r} states no known space group "
            f"(symbol {crystal.spacegroup_hm!r}, number {crystal.spacegroup_number}). Add "
            "_space_group_IT_number (1 when the file lists every atom of the cell)."
        )
    settings = []
    for operations in triplets:
        seitz = np.array([operation.float_seitz() for operation in operations])
        settings.append((seitz[:, :3, :3], seitz[:, :3, 3]))
    lengths = np.linalg.norm(metric, axis=1)
    tensor = metric @ metric.T
    for rotations, _ in settings:
        change = np.swapaxes(rotations, 1, 2) @ tensor @ rotations - tensor
        if (np.abs(change) > 0.02 * np.outer(lengths, lengths)).any():
            raise ValueError(
                f"structure {str(path)!r}: its cell does not have the symmetry of its space group. "
                "Correct the cell, or list the operators (_space_group_symop_operation_xyz)."
            )
    return settings


def _space_groups(crystal: gemmi.SmallStructure) -> list[gemmi.SpaceGroup]:
    """Find the space group by symbol, else by number; both where the origin choice is open."""
    import gemmi

    symbol, cell = crystal.spacegroup_hm, crystal.cell
    group = gemmi.find_spacegroup_by_name(symbol, cell.alpha, cell.gamma) if symbol else None
    if group is None and 1 <= crystal.spacegroup_number <= 230:
        reference = gemmi.get_spacegroup_reference_setting(crystal.spacegroup_number)
        # By name, because the cell angles then choose hexagonal or rhombohedral axes.
        group = gemmi.find_spacegroup_by_name(reference.hm, cell.alpha, cell.gamma)
        symbol = ""
    if group is None:
        return []
    if group.ext not in ("1", "2") or ":" in symbol:
        return [group]
    both = [gemmi.find_spacegroup_by_name(f"{group.hm}:{choice}") for choice in (2, 1)]
    return [choice for choice in both if choice is not None]


def _fill_cell(
    operations: tuple[np.ndarray, np.ndarray],
    sites: list[tuple[str, float, np.ndarray]],
    metric: np.ndarray,
) -> tuple[list[int], np.ndarray]:
    """Apply the symmetry; return the index of the listed atom and the place of every atom."""
    rotations, shifts = operations
    index: list[int] = []
    places: list[np.ndarray] = []
    for k, (_, _, place) in enumerate(sites):
        kept: list[np.ndarray] = []
        for image in rotations @ place + shifts:
            gaps = np.reshape([image - other for other in kept], (-1, 3))
            gaps -= np.rint(gaps)
            if (np.linalg.norm(gaps @ metric, axis=1) > _SPECIAL_A).all():
                kept.append(image)
        index += [k] * len(kept)
        places += kept
    return index, np.mod(np.array(places), 1.0)


def _check_overlap(
    positions: np.ndarray, occupancy: np.ndarray, metric: np.ndarray, path: Path
) -> None:
    """Refuse cells with more than one atom on one place, which symmetry applied twice makes."""
    if len(positions) > _MAX_ATOMS:
        raise ValueError(
            f"structure {str(path)!r}: {len(positions)} atoms in the cell, more than {_MAX_ATOMS}. "
            "Give the average structure in a small cell."
        )
    for place in positions:
        gaps = positions - place
        gaps -= np.rint(gaps)
        total = occupancy[np.linalg.norm(gaps @ metric, axis=1) < _SPECIAL_A].sum()
        if total > 1.05:
            raise ValueError(
                f"structure {str(path)!r}: {total:.2f} atoms share the place "
                f"{np.round(place, 4).tolist()}. Check that it lists only the atoms that its space "
                "group does not make, and that occupancies add up to 1."
            )
