"""Atoms of a lamella with an interface, seen edge-on: crystal, displaced columns, vacancies, film.

Axes are those of the image: x to the right along the interface, y down into the crystal, z along
the beam; all in angstrom. The cell repeats along x and z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from stemdisp._atoms import cell_origin, plane_indices, site_of
from stemdisp._presets import Structure, load_structure
from stemdisp.crystal import Projection, project

MOST_REPEATS = 60
# Film of LaAlO3 composition: atoms per cubic angstrom, least distance between two of them, and
# from the uppermost atoms of the crystal.
_FILM = {"La": 0.2, "Al": 0.2, "O": 0.6}
_FILM_DENSITY, _FILM_APART_A, _FILM_GAP_A = 0.078, 1.6, 1.8


@dataclass(frozen=True)
class Lamella:
    """What lies under the beam, atom by atom.

    Attributes
    ----------
    structure, zone_axis, plane, displaced
        As in the configuration; the interface plane must be edge-on, and the crystal must repeat
        along it at a right angle to the beam (all cubic crystals do).
    thickness_nm : float
        Along the beam, rounded to whole periods of the crystal.
    delta0_A, xi_planes : float
        Displacement along u of the cation `displaced`: ``delta0_A exp(-(N - 1) / xi_planes)``.
    moved : {"cation", "column"}
        Whether the cation moves alone, or all atoms of its column.
    occupancy : tuple of float
        Share of the oxygen that is there in the pure columns of planes 1, 2, ...; 1 below.
    film_A : float
        Height of amorphous film above the crystal; 0 for a bare crystal that repeats along y too.
    n_planes : int
        Planes of the crystal; without a film rounded up to whole periods along y.
    repeats : int
        Repeats of the crystal along the interface; its columns differ by their vacancies.
    seed : int
        Of vacancies and film.
    """

    structure: str = "KTaO3"
    zone_axis: tuple[int, int, int] = (1, -1, 0)
    plane: tuple[int, int, int] = (1, 1, 1)
    displaced: str = "K"
    thickness_nm: float = 10.0
    delta0_A: float = 0.54
    xi_planes: float = 2.0
    moved: str = "cation"
    occupancy: tuple[float, ...] = (0.45, 0.55, 0.68, 0.80, 0.90, 0.96)
    film_A: float = 20.0
    n_planes: int = 20
    repeats: int = 1
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Atoms:
    """Atoms in a box that repeats along x and z (and y, without film).

    Attributes
    ----------
    elements : ndarray of str, shape (n,)
    positions_A : ndarray, shape (n, 3)
    box_A : tuple of 3 floats
    top_A : float
        y of the uppermost column of the crystal.
    period_A : float
        Shortest lattice vector along the beam.
    columns : DataFrame
        Truth: ``species, i, j, layer, N, x_A, y_A`` (site of the columns), ``delta_A`` of the
        cation, and ``occupancy`` (share of the oxygen that is really there).
    """

    elements: np.ndarray
    positions_A: np.ndarray
    box_A: tuple[float, float, float]
    top_A: float
    period_A: float
    columns: pd.DataFrame


def build_lamella(lamella: Lamella) -> Atoms:
    """Lay out the atoms of a lamella.

    Parameters
    ----------
    lamella : Lamella

    Returns
    -------
    Atoms

    Raises
    ------
    ValueError
        The crystal does not repeat along the interface at a right angle to the beam, a value is
        out of range, or the film is too dense for its box.
    """
    _check(lamella)
    rng = np.random.default_rng(lamella.seed)
    projection = project(lamella.structure, lamella.zone_axis, displaced=lamella.displaced)
    crystal = load_structure(lamella.structure)
    frame, width, period = _frame(crystal, lamella)
    spacing = projection.layer_spacing_A(lamella.plane)
    n_periods = max(1, round(10 * lamella.thickness_nm / period))
    width, depth = width * lamella.repeats, n_periods * period
    lamella = replace(lamella, n_planes=_whole_planes(lamella, crystal, spacing))
    elements, xyz, ij, species = _crystal_atoms(crystal, projection, frame, lamella, (width, depth))
    layer = ij @ np.array(projection.layer_step(lamella.plane), dtype=float)
    number = (1 - np.floor(layer + 1e-6)).astype(int)
    keep = (number >= 1) & (number <= lamella.n_planes)
    elements, xyz, ij, species, layer, number = (
        a[keep] for a in (elements, xyz, ij, species, layer, number)
    )
    # the border of the box lies half a plane above the uppermost atoms
    xyz[:, 1] += lamella.film_A - xyz[:, 1].min() + (0.5 * spacing if lamella.film_A <= 0 else 0.0)
    height = lamella.film_A + lamella.n_planes * spacing
    cells = pd.DataFrame({"i": ij[:, 0].round(6), "j": ij[:, 1].round(6), "species": species})
    column = cells.groupby(["i", "j"], sort=False).ngroup().to_numpy()
    delta = np.where(
        species == lamella.displaced,
        lamella.delta0_A * np.exp(-(number - 1) / lamella.xi_planes),
        0.0,
    )
    u_image = _axis(projection, frame)
    truth = _truth((xyz, ij, species, layer, number), column, delta, width)
    moves = (
        delta if lamella.moved == "column" else np.where(elements == lamella.displaced, delta, 0)
    )
    xyz[:, :2] += moves[:, None] * u_image
    there = _vacancies(column, elements, species, number, lamella.occupancy, rng)
    pure = np.array([projection.sites_of(s)[0].is_anion for s in truth["species"]])
    share = np.bincount(column, there) / np.bincount(column)
    truth["occupancy"] = np.where(pure, share, np.nan)
    elements, xyz = elements[there], xyz[there]
    top = float(xyz[:, 1].min())
    if lamella.film_A > 0:
        film = _film((width, lamella.film_A - _FILM_GAP_A, depth), rng)
        elements = np.concatenate([elements, film[0]])
        xyz = np.vstack([xyz, film[1]])
    xyz[:, 0] %= width
    xyz[:, 2] %= depth
    return Atoms(elements, xyz, (width, height, depth), top, period, truth)


def _check(lamella: Lamella) -> None:
    if lamella.moved not in ("cation", "column"):
        raise ValueError(f'moved = {lamella.moved!r}: use "cation" or "column"')
    for name in ("thickness_nm", "xi_planes"):
        if not getattr(lamella, name) > 0:
            raise ValueError(f"{name} = {getattr(lamella, name)!r} must be positive")
    if lamella.n_planes < 2 or lamella.repeats < 1:
        raise ValueError("n_planes must be 2 or more and repeats 1 or more")
    if not all(0.0 <= share <= 1.0 for share in lamella.occupancy):
        raise ValueError(f"occupancy = {lamella.occupancy!r} must lie between 0 and 1")
    if lamella.film_A < 0:
        raise ValueError(f"film_A = {lamella.film_A!r} must not be negative")


def _frame(crystal: Structure, lamella: Lamella) -> tuple[np.ndarray, float, float]:
    """Rows are the image's x, y and z in the crystal's Cartesian axes; periods along x and z."""
    zone, plane = np.array(lamella.zone_axis), np.array(lamella.plane)
    beam = zone @ crystal.metric
    normal = np.linalg.inv(crystal.metric) @ plane
    along = np.cross(normal, beam)
    lateral = _lattice_vector(along, crystal)
    if lateral is None:
        raise ValueError(
            f"{lamella.structure} does not repeat along ({' '.join(map(str, plane))}) at a right "
            f"angle to {list(zone)}; choose another plane or zone axis"
        )
    x, z = lateral / np.linalg.norm(lateral), beam / np.linalg.norm(beam)
    y = -normal / np.linalg.norm(normal)
    return np.array([x, y, z]), float(np.linalg.norm(lateral)), float(np.linalg.norm(beam))


def _lattice_vector(direction: np.ndarray, crystal: Structure) -> np.ndarray | None:
    """Give the shortest lattice vector along a direction, if there is one."""
    fractions = direction @ np.linalg.inv(crystal.metric)
    fractions = fractions / np.abs(fractions[np.abs(fractions) > 1e-9]).min()
    for times in range(1, MOST_REPEATS):
        whole = fractions * times
        if np.allclose(whole, np.rint(whole), atol=1e-6):
            return np.rint(whole) @ crystal.metric
    return None


def _whole_planes(lamella: Lamella, crystal: Structure, spacing: float) -> int:
    """Give the number of planes; without a film the crystal goes on below, so periods are whole."""
    if lamella.film_A > 0:
        return lamella.n_planes
    up = _lattice_vector(np.linalg.inv(crystal.metric) @ np.array(lamella.plane), crystal)
    if up is None:
        raise ValueError(
            f"{lamella.structure} does not repeat along the normal of "
            f"({' '.join(map(str, lamella.plane))}); give it a film"
        )
    period = round(float(np.linalg.norm(up)) / spacing)
    return -(-lamella.n_planes // period) * period


def _axis(projection: Projection, frame: np.ndarray) -> np.ndarray:
    """Give the unit vector u in the image; it points up, towards the film."""
    u = frame[:2] @ (np.array(projection.u_uvw) @ projection.metric)
    return u / np.hypot(*u) * (-1.0 if u[1] > 0 else 1.0)


def _crystal_atoms(
    crystal: Structure,
    projection: Projection,
    frame: np.ndarray,
    lamella: Lamella,
    box: tuple[float, float],
) -> tuple[np.ndarray, ...]:
    """Elements, positions, column indices and species of columns of a slab beyond n_planes."""
    width, depth = box
    reach = projection.layer_spacing_A(lamella.plane) * (lamella.n_planes + 3)
    corner = np.array([[x, y, z] for x in (0, width) for y in (-reach, reach) for z in (0, depth)])
    cells = corner @ frame @ np.linalg.inv(crystal.metric)
    low, high = np.floor(cells.min(axis=0)) - 1, np.ceil(cells.max(axis=0)) + 2
    steps = [np.arange(a, b) for a, b in zip(low, high, strict=True)]
    cell = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3)
    fraction = (cell[:, None, :] + crystal.positions[None]).reshape(-1, 3)
    elements = np.tile(np.array(crystal.elements), len(cell))
    xyz = fraction @ crystal.metric @ frame.T
    edge = 1e-4  # atoms on the border of the box belong to one side of it
    inside = (xyz[:, 0] > -edge) & (xyz[:, 0] < width - edge) & (np.abs(xyz[:, 1]) <= reach)
    inside &= (xyz[:, 2] > -edge) & (xyz[:, 2] < depth - edge)
    elements, xyz, fraction = elements[inside], xyz[inside], fraction[inside]
    ij = plane_indices(fraction, projection)
    origin = cell_origin(crystal, projection)
    ij = ij - origin
    site = site_of(ij, elements, projection)
    place = np.array([(s.u, s.v) for s in projection.sites])[site]
    ij = np.rint(ij - place) + place
    # layers grow towards the film, which lies above
    step = np.array(projection.layer_step(lamella.plane), dtype=float)
    if np.polyfit(xyz[:, 1], ij @ step, 1)[0] > 0:
        ij = -ij
    species = np.array([s.species for s in projection.sites])[site]
    return elements, xyz, ij, species


def _truth(
    atoms: tuple[np.ndarray, ...], column: np.ndarray, delta: np.ndarray, width: float
) -> pd.DataFrame:
    """One row per column, in the order of `column`."""
    xyz, ij, species, layer, number = atoms
    first = np.unique(column, return_index=True)[1]
    return pd.DataFrame(
        {
            "species": species[first],
            "i": ij[first, 0],
            "j": ij[first, 1],
            "layer": layer[first],
            "N": number[first],
            "x_A": xyz[first, 0] % width,
            "y_A": xyz[first, 1],
            "delta_A": delta[first],
        }
    )


def _vacancies(
    column: np.ndarray,
    elements: np.ndarray,
    species: np.ndarray,
    number: np.ndarray,
    occupancy: tuple[float, ...],
    rng: np.random.Generator,
) -> np.ndarray:
    """Which atoms are there: vacancies lie at random depths of pure anion columns."""
    there = np.ones(len(column), dtype=bool)
    pure = elements == species
    for plane, share in enumerate(occupancy, start=1):
        if share >= 1.0:
            continue
        for one in np.unique(column[(number == plane)]):
            own = np.flatnonzero(column == one)
            if not (pure[own].all() and elements[own[0]] in ("O", "F", "N", "S")):
                continue
            gone = round((1.0 - share) * len(own))
            there[rng.choice(own, gone, replace=False)] = False
    return there


def _film(box: tuple[float, float, float], rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Random atoms that keep apart, by adding one at a time; periodic along x and z."""
    wanted = round(_FILM_DENSITY * math.prod(box))
    size = np.array([box[0], 10.0 * box[1], box[2]])  # not periodic along y
    placed = np.empty((0, 3))
    for _ in range(200):
        trial = rng.uniform(0, 1, (wanted, 3)) * np.array(box)
        if len(placed):
            near = cKDTree(placed, boxsize=size).query(trial, distance_upper_bound=_FILM_APART_A)
            trial = trial[~np.isfinite(near[0])]
        pairs = cKDTree(trial, boxsize=size).query_pairs(_FILM_APART_A, output_type="ndarray")
        drop = np.unique(pairs.max(axis=1)) if len(pairs) else np.empty(0, dtype=np.int64)
        placed = np.vstack([placed, np.delete(trial, drop, axis=0)])[:wanted]
        if len(placed) == wanted:
            kinds = rng.choice(list(_FILM), size=wanted, p=list(_FILM.values()))
            return kinds, placed
    raise ValueError("the film does not fit into its box; make it thicker or the lamella larger")
