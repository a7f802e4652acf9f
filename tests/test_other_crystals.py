"""Lattice and species of crystals that are no perovskites; a half turn that is no symmetry."""

import numpy as np
import pytest
from test_crystal import HEXAGONAL_ZNO, WURTZITE, number, write_cif

from stemdisp.check import check_assignment
from stemdisp.crystal import project
from stemdisp.errors import DataError
from stemdisp.interface import find_interface
from stemdisp.lattice import find_lattice
from stemdisp.simulate import render

PIXEL_A = 0.1
CRYSTALS = {
    "wurtzite": (HEXAGONAL_ZNO, number(186), WURTZITE, (1, 1, 0)),
    "rutile": (
        (4.594, 4.594, 2.959, 90, 90, 90),
        ["_symmetry_space_group_name_H-M 'P 42/m n m'"],
        [("Ti1", "Ti", (0, 0, 0), 1), ("O1", "O", (0.305, 0.305, 0), 1)],
        (0, 0, 1),
    ),
    "gallium arsenide": (
        (5.653, 5.653, 5.653, 90, 90, 90),
        number(216),
        [("Ga", "Ga", (0, 0, 0), 1), ("As", "As", (0.25, 0.25, 0.25), 1)],
        (1, 1, 0),
    ),
}


def view_of(name, tmp_path):
    cell, symmetry, atoms, zone_axis = CRYSTALS[name]
    return project(write_cif(tmp_path / "crystal.cif", cell, symmetry, atoms), zone_axis)


def picture(view, mode, *, turn_deg=23.0, size=400, mirrored=False, noise=0.03):
    """Image with the expected contrast, and where its columns are: (species, x, y)."""
    rng = np.random.default_rng(0)
    turn = np.deg2rad(turn_deg)
    cell = view.cell_matrix() @ np.array(
        [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]
    )
    cell = cell @ np.diag([-1.0 if mirrored else 1.0, 1.0]) / PIXEL_A
    n = int(size / min(np.hypot(*cell.T))) + 3
    ij = np.stack(np.meshgrid(np.arange(-n, n), np.arange(-n, n)), axis=-1).reshape(-1, 2)
    columns, blobs = [], []
    for site in view.sites:
        xy = (ij + np.array([site.u, site.v])) @ cell + size / 2
        xy = xy[np.all((xy > -10) & (xy < size + 10), axis=1)]
        volume = site.contrast[mode] * 2 * np.pi * (0.42 / PIXEL_A) ** 2
        blobs.append(np.column_stack([xy, np.full(len(xy), volume), np.full(len(xy), 4.2)]))
        columns += [(site.species, *p) for p in xy]
    image = render(np.vstack(blobs), np.zeros((size, 2)), size)
    return image + rng.normal(0, noise * image.max(), image.shape), columns


def share_right(lattice, view, columns):
    """Share of true columns whose nearest site has their species."""
    xy = np.array([c[1:] for c in columns])
    ij = lattice.index(xy)
    nearest = []
    for site in view.sites:
        place = np.array([site.u, site.v])
        off = ij - (np.rint(ij - place) + place)
        nearest.append(np.hypot(*(off @ lattice.cell_px).T))
    species = np.array([s.species for s in view.sites])[np.argmin(nearest, axis=0)]
    return np.mean(species == [c[0] for c in columns])


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(
    ("name", "mode"), [("wurtzite", "idpc"), ("wurtzite", "abf"), ("rutile", "abf")]
)
def test_columns_of_other_crystals_get_their_species(name, mode, mirrored, tmp_path):
    view = view_of(name, tmp_path)
    image, columns = picture(view, mode, mirrored=mirrored)
    lattice = find_lattice(-image if mode == "abf" else image, view)
    assert share_right(lattice, view, columns) > 0.99
    assert lattice.sign == (-1 if mode == "abf" else 1)


def test_half_a_turn_of_a_polar_crystal_is_caught(tmp_path):
    # Zn and O of a pair change places: the cell is the same, the polarity is not.
    view = view_of("wurtzite", tmp_path)
    image, columns = picture(view, "abf")
    lattice = find_lattice(-image, view)
    assert check_assignment(-image, lattice, view) == []
    turned = lattice.reindexed(-np.eye(2), np.zeros(2))
    for shift in ([0.0, 0.0], [view.sites[1].u, view.sites[1].v]):
        wrong = turned.reindexed(np.eye(2), -np.array(shift))
        assert share_right(wrong, view, columns) < 0.6
        assert [d["code"] for d in check_assignment(-image, wrong, view)] == ["assignment"]


P4MM = ["_symmetry_space_group_name_H-M 'P 4 m m'"]
POLAR = {
    # far enough off-centre that polarity is seen, and layers do not lie half-way
    "PbVO3": (
        (3.804, 3.804, 4.677, 90, 90, 90),
        P4MM,
        [
            ("Pb", "Pb", (0, 0, 0), 1),
            ("V", "V", (0.5, 0.5, 0.567), 1),
            ("O1", "O", (0.5, 0.5, 0.21), 1),
            ("O2", "O", (0.5, 0, 0.69), 1),
        ],
    ),
    "BaTiO3": (
        (3.99, 3.99, 4.04, 90, 90, 90),
        P4MM,
        [
            ("Ba", "Ba", (0, 0, 0), 1),
            ("Ti", "Ti", (0.5, 0.5, 0.5224), 1),
            ("O1", "O", (0.5, 0.5, -0.024), 1),
            ("O2", "O", (0.5, 0, 0.489), 1),
        ],
    ),
}


def polar_view(name, tmp_path):
    return project(write_cif(tmp_path / "polar.cif", *POLAR[name]), (1, -1, 0))


@pytest.mark.parametrize("turn_deg", [10.0, 190.0])
def test_polarity_is_kept(turn_deg, tmp_path):
    view = polar_view("BaTiO3", tmp_path)
    image, columns = picture(view, "haadf", turn_deg=turn_deg, noise=0.002)
    lattice = find_lattice(image, view)
    ti = view.sites_of("Ti")[0]
    xy = np.array([c[1:] for c in columns if c[0] == "Ti"])
    ij = lattice.index(xy) - [ti.u, ti.v]
    off = (ij - np.rint(ij)) @ lattice.cell_px * PIXEL_A
    # the other polarity puts Ti 0.18 A off
    assert np.hypot(*off.mean(axis=0)) < 0.06


@pytest.mark.parametrize("turn_deg", [10.0, 190.0])
def test_planes_of_a_polar_crystal(turn_deg, tmp_path):
    view = polar_view("PbVO3", tmp_path)
    image, columns = picture(view, "idpc", turn_deg=turn_deg, noise=0.01)
    rng = np.random.default_rng(1)
    lattice = find_lattice(image, view)
    # the crystal ends above the V plane nearest to the middle of the image
    level = lattice.index(np.array([c[1:] for c in columns]))[:, 1]
    kind = np.array([c[0] for c in columns])
    up = -1.0 if lattice.v_px[1] > 0 else 1.0
    v = np.unique(np.round((up * level)[kind == "V"], 2))
    top = v[np.argmin(np.abs(v - np.median(v)))]
    keep = up * level <= top + 0.02
    xy = np.array([c[1:] for c in columns])
    volume = np.array([view.sites_of(k)[0].contrast["idpc"] for k in kind]) * 110
    blobs = np.column_stack([xy, volume, np.full(len(xy), 4.2)])[keep]
    cut = render(blobs, np.zeros((400, 2)), 400) + rng.normal(0, 0.01, (400, 400))
    lattice = find_lattice(cut, view)
    faces = []
    for plane in ((0, 0, 1), (0, 0, -1)):
        try:
            faces.append(
                find_interface(cut, lattice, projection=view, plane=plane, cage_species="V")
            )
        except DataError as error:
            assert "other face" in str(error)
    assert len(faces) == 1
    lattice, interface = faces[0]
    ij = lattice.index(xy)
    site = np.array([(view.sites_of(k)[0].u, view.sites_of(k)[0].v) for k in kind])
    number = interface.plane(np.rint(ij - site) + site)
    cations = kind != "O"
    assert number[keep & cations].min() == 1
    assert number[~keep & cations].max() <= 0


def test_neighbours_in_the_periodic_table_are_not_told_apart(tmp_path):
    # Ga and As differ by 6 % in Z: nobody sees which end of a pair is which.
    view = view_of("gallium arsenide", tmp_path)
    with pytest.raises(DataError, match="cannot tell which column is which"):
        find_lattice(picture(view, "haadf", noise=0.1)[0], view)
