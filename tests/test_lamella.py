"""Atoms of a lamella: right places, displacements, vacancies and film."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from stemdisp.lamella import Lamella, build_lamella

A = 3.9885
THIN = {"thickness_nm": 2.9, "film_A": 0.0, "n_planes": 6}


def build(**changes):
    return build_lamella(Lamella(**(THIN | changes)))


@pytest.mark.parametrize("n_planes", [6, 7, 20])
def test_a_whole_crystal_has_its_density_and_repeats(n_planes):
    # without a film the planes are rounded up to whole periods
    atoms = build(delta0_A=0.0, occupancy=(), n_planes=n_planes)
    volume = np.prod(atoms.box_A)
    assert len(atoms.elements) == pytest.approx(5 * volume / A**3)
    kinds, counts = np.unique(atoms.elements, return_counts=True)
    assert dict(zip(kinds, counts / counts.min(), strict=True)) == {"K": 1, "O": 3, "Ta": 1}
    # every Ta has six O at a/2, also across the borders of the box
    box = np.array(atoms.box_A)
    places = [atoms.positions_A[atoms.elements == kind] % box for kind in ("Ta", "O")]
    near = cKDTree(places[1], boxsize=box).query_ball_point(places[0], A / 2 + 0.01)
    assert {len(found) for found in near} == {6}


def test_columns_lie_where_their_atoms_are():
    atoms = build(delta0_A=0.0, occupancy=())
    width = atoms.box_A[0]
    for kind, species in (("Ta", "Ta"), ("K", "K")):
        own = atoms.columns[atoms.columns["species"] == species]
        where = own[["x_A", "y_A"]].to_numpy()
        places = atoms.positions_A[atoms.elements == kind][:, :2]
        off = places[:, None] - where[None]
        off[..., 0] -= width * np.rint(off[..., 0] / width)
        assert np.hypot(off[..., 0], off[..., 1]).min(axis=1).max() < 1e-6


@pytest.mark.parametrize(("moved", "elements"), [("cation", {"K"}), ("column", {"K", "O"})])
def test_only_what_should_move_has_moved_and_by_the_right_amount(moved, elements):
    still = build(delta0_A=0.0, occupancy=())
    shifted = build(delta0_A=0.4, xi_planes=1.5, moved=moved, occupancy=())
    off = shifted.positions_A - still.positions_A
    off[:, 0] -= still.box_A[0] * np.rint(off[:, 0] / still.box_A[0])
    size = np.linalg.norm(off, axis=1)
    assert set(shifted.elements[size > 1e-6]) == elements
    n = 1 + np.arange(6)
    assert np.unique(size[size > 1e-6].round(6)) == pytest.approx(
        np.sort(0.4 * np.exp(-(n - 1) / 1.5)), abs=1e-5
    )
    # along [110], which is 35.26 degrees from the normal, towards the film (up, so y falls)
    moving = size > 0.3
    assert np.all(off[moving, 1] < 0)
    assert np.abs(off[moving, 1]) / size[moving] == pytest.approx(
        np.cos(np.radians(35.264)), abs=1e-4
    )
    assert np.abs(off[:, 2]).max() < 1e-9


def test_vacancies_are_as_many_as_asked_and_at_random_depths():
    full, part = build(occupancy=()), build(occupancy=(0.4, 0.75))
    pure = part.columns[part.columns["species"] == "O"].set_index("N")["occupancy"]
    n = 2 * round(part.box_A[2] / part.period_A)
    for plane, share in ((1, 0.4), (2, 0.75)):
        assert np.all(np.abs(pure.loc[plane] - share) <= 0.5 / n + 1e-9)
    assert np.all(pure[pure.index >= 3] == 1.0)
    gone = len(full.elements) - len(part.elements)
    assert gone == round(n * (1 - pure).sum())
    assert part.columns.loc[part.columns["species"] == "K", "occupancy"].isna().all()
    other = build(occupancy=(0.4, 0.75), seed=1)
    assert not np.array_equal(other.positions_A, part.positions_A)


def test_the_film_keeps_its_distances_and_its_density():
    atoms = build(film_A=12.0)
    film = np.isin(atoms.elements, ("La", "Al")) | (atoms.positions_A[:, 1] < atoms.top_A - 1.0)
    box = np.array([atoms.box_A[0], 1e3, atoms.box_A[2]])
    places = atoms.positions_A[film]
    distance = cKDTree(places, boxsize=box).query(places, k=2)[0][:, 1]
    assert distance.min() >= 1.6 - 1e-9
    assert places[:, 1].max() < atoms.top_A - 1.0
    assert len(places) / (box[0] * box[2] * (12.0 - 1.8)) == pytest.approx(0.078, rel=0.01)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"moved": "all"}, "moved"),
        ({"thickness_nm": 0.0}, "thickness_nm"),
        ({"occupancy": (1.2,)}, "occupancy"),
        ({"film_A": -1.0}, "film_A"),
        ({"n_planes": 1}, "n_planes"),
    ],
)
def test_wrong_values_are_named(changes, word):
    with pytest.raises(ValueError, match=word):
        build(**changes)
