"""The projection: tables worked out by hand, conservation of atoms, symmetry, and bad input."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest

from stemdisp.crystal import PRESETS, project

A = 3.9885  # KTaO3


def write_cif(path, cell, symmetry, atoms):
    """Write a small CIF; `symmetry` is a list of lines, `atoms` of (label, symbol, xyz, occ)."""
    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    lines = ["data_test"]
    lines += [f"_cell_{name} {value}" for name, value in zip(names, cell, strict=True)]
    lines += symmetry
    if atoms:
        lines += ["loop_", "_atom_site_label", "_atom_site_type_symbol"]
        lines += [f"_atom_site_fract_{axis}" for axis in "xyz"] + ["_atom_site_occupancy"]
        for label, symbol, xyz, occupancy in atoms:
            lines.append(f"{label} {symbol} {' '.join(str(x) for x in xyz)} {occupancy}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def number(value):
    return [f"_space_group_IT_number {value}"]


def operators(*triplets):
    return ["loop_", "_space_group_symop_operation_xyz", *(f"'{triplet}'" for triplet in triplets)]


CUBIC = (A, A, A, 90, 90, 90)
PEROVSKITE = [
    ("K1", "K1+", (0, 0, 0), 1),
    ("Ta1", "Ta5+", (0.5, 0.5, 0.5), 1),
    ("O1", "O2-", (0.5, 0.5, 0), 1),
]
HEXAGONAL_ZNO = (3.25, 3.25, 5.207, 90, 90, 120)
WURTZITE = [("Zn", "Zn", (0.3333, 0.6667, 0), 1), ("O", "O", (0.3333, 0.6667, 0.382), 1)]


@pytest.fixture
def rutile(tmp_path):
    cell = (4.594, 4.594, 2.959, 90, 90, 90)
    atoms = [("Ti1", "Ti", (0, 0, 0), 1), ("O1", "O", (0.305, 0.305, 0), 1)]
    return write_cif(
        tmp_path / "rutile.cif", cell, ["_symmetry_space_group_name_H-M 'P 42/m n m'"], atoms
    )


@pytest.fixture
def wurtzite(tmp_path):
    return write_cif(tmp_path / "zno.cif", HEXAGONAL_ZNO, number(186), WURTZITE)


@pytest.fixture
def graphite(tmp_path):
    atoms = [("C1", "C", (0, 0, 0.25), 1), ("C2", "C", (0.33333, 0.66667, 0.25), 1)]
    cell = (2.461, 2.461, 6.708, 90, 90, 120)
    return write_cif(tmp_path / "graphite.cif", cell, number(194), atoms)


def table(view):
    """Reduce the sites to what the hand-made tables hold."""
    return {
        (
            site.species,
            tuple(sorted((e, round(n, 4)) for e, n in site.elements.items())),
            round(site.u, 3) % 1,
            round(site.v, 3) % 1,
        )
        for site in view.sites
    }


def check_cell(view, u, v, angle, period):
    assert (view.u_A, view.v_A) == pytest.approx((u, v), rel=1e-6)
    assert view.angle_deg == pytest.approx(angle, abs=1e-6)
    assert view.period_A == pytest.approx(period, rel=1e-6)


# --- tables by hand -----------------------------------------------------------------------------


def test_ktao3_along_1m10():
    view = project("KTaO3", (1, -1, 0), displaced="K")
    check_cell(view, A / np.sqrt(2), A, 90, A * np.sqrt(2))
    assert view.u_uvw == pytest.approx((0.5, 0.5, 0))
    assert view.v_uvw == pytest.approx((0, 0, 1))
    assert [(s.index, s.species, s.u, s.v) for s in view.sites] == [
        (0, "K", 0, 0), (1, "Ta", 0, 0.5), (2, "O", 0.5, 0.5)
    ]  # fmt: skip
    assert [s.elements for s in view.sites] == [{"K": 1, "O": 1}, {"Ta": 1}, {"O": 2}]
    assert view.species == ("K", "Ta", "O")
    assert [s.index for s in view.sites_of("O")] == [2]


def test_equivalent_axis_and_common_factor():
    first = project("KTaO3", (1, -1, 0))
    for axis in ([1, 1, 0], [0, 1, -1], (np.int64(3), 0, 3)):
        other = project("KTaO3", axis)
        check_cell(other, first.u_A, first.v_A, 90, first.period_A)
        assert table(other) == table(first)
    assert project("KTaO3", (2, -2, 0)).zone_axis == (1, -1, 0)


def test_ktao3_along_100():
    view = project("KTaO3", (1, 0, 0))
    check_cell(view, A, A, 90, A)
    assert (view.u_uvw, view.v_uvw) == ((0, 1, 0), (0, 0, 1))
    assert table(view) == {
        ("K", (("K", 1),), 0, 0), ("Ta", (("O", 1), ("Ta", 1)), 0.5, 0.5),
        ("O", (("O", 1),), 0.5, 0), ("O", (("O", 1),), 0, 0.5),
    }  # fmt: skip


def test_ktao3_along_111():
    view = project("KTaO3", (1, 1, 1))
    check_cell(view, A * np.sqrt(2 / 3), A * np.sqrt(2 / 3), 120, A * np.sqrt(3))
    oxygen = ("O", (("O", 1),))
    assert table(view) == {
        ("Ta", (("K", 1), ("Ta", 1)), 0, 0),
        (*oxygen, 0.5, 0), (*oxygen, 0, 0.5), (*oxygen, 0.5, 0.5),
    }  # fmt: skip


def test_ktao3_along_11m2():
    view = project("KTaO3", (1, 1, -2))
    check_cell(view, A / np.sqrt(3), A / np.sqrt(2), 90, A * np.sqrt(6))
    assert view.u_uvw == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert view.v_uvw == pytest.approx((0.5, -0.5, 0))
    assert table(view) == {
        ("K", (("K", 1), ("O", 1)), 0, 0), ("Ta", (("Ta", 1),), 0.5, 0),
        ("O", (("O", 2),), 0, 0.5),
    }  # fmt: skip


def test_tetragonal_preset_is_not_cubic():
    view = project("PbTiO3", (1, -1, 0), displaced="Pb")
    check_cell(view, 3.904 / np.sqrt(2), 4.152, 90, 3.904 * np.sqrt(2))
    along_a = project("PbTiO3", (0, 1, 0))
    check_cell(along_a, 3.904, 4.152, 90, 3.904)
    assert along_a.v_uvw == (0, 0, 1)


def test_pmn_b_column_is_named_nb():
    view = project("PMN", (1, -1, 0))
    assert [s.species for s in view.sites] == ["Pb", "Nb", "O"]
    assert view.sites[1].elements == pytest.approx({"Nb": 2 / 3, "Mg": 1 / 3}, abs=1e-5)


def test_every_preset_has_the_perovskite_columns():
    for name in PRESETS:
        view = project(name, (1, -1, 0))
        assert [(s.u, s.v) for s in view.sites] == [(0, 0), (0, 0.5), (0.5, 0.5)]
        assert view.sites[2].elements == {"O": 2}


def test_rutile_along_001(rutile):
    view = project(rutile, (0, 0, 1))
    check_cell(view, 4.594, 4.594, 90, 2.959)
    ti, o = ("Ti", (("Ti", 1),)), ("O", (("O", 1),))
    assert table(view) == {
        (*ti, 0, 0), (*ti, 0.5, 0.5), (*o, 0.305, 0.305), (*o, 0.695, 0.695),
        (*o, 0.805, 0.195), (*o, 0.195, 0.805),
    }  # fmt: skip
    assert view.name == "rutile"


def test_graphite_along_001_keeps_double_and_single_columns_apart(graphite):
    view = project(graphite, (0, 0, 1))
    check_cell(view, 2.461, 2.461, 120, 6.708)
    assert (view.u_uvw, view.v_uvw) == ((1, 0, 0), (0, 1, 0))
    assert table(view) == {
        ("C", (("C", 2),), 0, 0), ("C", (("C", 1),), 0.333, 0.667), ("C", (("C", 1),), 0.667, 0.333)
    }  # fmt: skip


def test_wurtzite_along_110(wurtzite):
    view = project(wurtzite, (1, 1, 0))
    check_cell(view, 3.25 * np.sqrt(3) / 2, 5.207, 90, 3.25)
    assert view.u_uvw == pytest.approx((0.5, -0.5, 0))
    zn, o = ("Zn", (("Zn", 1),)), ("O", (("O", 1),))
    assert table(view) == {(*zn, 0, 0), (*o, 0, 0.382), (*zn, 0.667, 0.5), (*o, 0.667, 0.882)}


def test_glide_plane_across_the_beam_halves_the_cell(wurtzite):
    # P63mc has a c glide perpendicular to [1-10]: along it the image repeats every c/2.
    view = project(wurtzite, (1, -1, 0))
    check_cell(view, 3.25 / 2, 5.207 / 2, 90, 3.25 * np.sqrt(3))
    assert view.v_uvw == pytest.approx((0, 0, 0.5))
    assert table(view) == {("Zn", (("Zn", 1),), 0, 0), ("O", (("O", 1),), 0, 0.764)}
    assert view.layer_step((0, 0, 1)) == (0, 1)
    assert view.layer_spacing_A((0, 0, 1)) == pytest.approx(5.207 / 2)


# --- what must hold for every crystal and axis --------------------------------------------------


CRYSTALS = {
    # Atoms per cell by hand: the multiplicities of the sites, times occupancy.
    "cubic": (CUBIC, number(221), PEROVSKITE, {"K": 1, "Ta": 1, "O": 3}),
    "hexagonal": (HEXAGONAL_ZNO, number(186), WURTZITE, {"Zn": 2, "O": 2}),
    "monoclinic": (
        (9.1, 3.2, 6.3, 90, 104, 90), number(12),
        [("V1", "V", (0, 0, 0), 1), ("Cu1", "Cu", (0.21, 0, 0.37), 0.5)],
        {"V": 2, "Cu": 2},
    ),
    "triclinic": (
        (5.1, 6.2, 7.3, 81, 97, 108), number(2),
        [("Na1", "Na", (0, 0, 0), 1), ("S1", "S", (0.13, 0.27, 0.41), 0.9)],
        {"Na": 1, "S": 1.8},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CRYSTALS)
def test_atoms_are_conserved_and_axes_are_the_shortest(name, tmp_path):
    cell, symmetry, atoms, counts = CRYSTALS[name]
    path = write_cif(tmp_path / "crystal.cif", cell, symmetry, atoms)
    ca, cb, cg = np.cos(np.radians(cell[3:]))
    volume = np.prod(cell[:3]) * np.sqrt(1 - ca**2 - cb**2 - cg**2 + 2 * ca * cb * cg)
    rng = np.random.default_rng(5)
    vectors = np.array(list(itertools.product(range(-3, 4), repeat=3)))
    if name == "monoclinic":  # C centring
        vectors = np.vstack([vectors, vectors + np.array([0.5, 0.5, 0])])
    done = 0
    for axis in [(0, 0, 1), (1, 0, 0), (0, 1, 0), (1, 1, 0), *rng.integers(-3, 4, (12, 3))]:
        if not np.any(axis):
            continue
        try:
            view = project(path, axis)
        except ValueError as error:
            assert "too close" in str(error)
            continue
        done += 1
        area = abs(np.linalg.det(view.cell_matrix()))
        for element, count in counts.items():
            seen = sum(site.elements.get(element, 0) for site in view.sites)
            assert seen / (area * view.period_A) == pytest.approx(count / volume, rel=1e-4)
        u, v = np.array([view.u_uvw, view.v_uvw]) @ view.metric
        beam = np.array(view.zone_axis) @ view.metric
        assert np.abs(np.array([u, v]) @ beam).max() < 1e-6
        np.testing.assert_allclose(
            [[u @ u, u @ v], [u @ v, v @ v]], view.cell_matrix() @ view.cell_matrix().T, atol=1e-8
        )
        # Every lattice vector projects onto whole indices, and none is shorter than u.
        whole = vectors @ np.array([view.direction(unit) for unit in np.eye(3)])
        np.testing.assert_allclose(whole, np.rint(whole), atol=1e-6)
        lengths = np.linalg.norm(whole @ view.cell_matrix(), axis=1)
        assert lengths[lengths > 1e-6].min() >= view.u_A * (1 - 2e-3)
        assert view.u_A <= view.v_A * (1 + 2e-3)
        assert abs(u @ v) <= (0.5 + 1e-3) * (u @ u)
        steps = [w for w in vectors.tolist() if np.allclose(np.cross(w, view.zone_axis), 0)]
        shortest = min((np.linalg.norm(w @ view.metric) for w in steps if np.any(w)), default=None)
        assert shortest is None or view.period_A == pytest.approx(shortest)
    assert done >= 8


def test_one_crystal_written_three_ways_gives_one_projection(tmp_path):
    a = 5.64
    cell = (a, a, a, 90, 90, 90)
    asymmetric = [("Na", "Na", (0, 0, 0), 1), ("Cl", "Cl", (0.5, 0, 0), 1)]
    face = [(0, 0, 0), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]
    full = [
        (f"{label}{n}", symbol, tuple(np.mod(np.add(xyz, shift), 1)), 1)
        for label, symbol, xyz, _ in asymmetric for n, shift in enumerate(face)
    ]  # fmt: skip
    double = [
        (f"{label}{n}", symbol, (xyz[0], xyz[1], (xyz[2] + n) / 2), 1)
        for label, symbol, xyz, _ in full for n in range(2)
    ]  # fmt: skip
    paths = [
        write_cif(tmp_path / "by_number.cif", cell, number(225), asymmetric),
        write_cif(tmp_path / "all_atoms.cif", cell, operators("x,y,z"), full),
        write_cif(tmp_path / "doubled.cif", (a, a, 2 * a, 90, 90, 90), number(1), double),
    ]
    # Along [001] each column of a/2 x a/2 holds one Na and one Cl per a, by hand.
    for path in paths:
        view = project(path, (0, 0, 1))
        check_cell(view, a / 2, a / 2, 90, a)
        assert table(view) == {("Na", (("Cl", 1), ("Na", 1)), 0, 0)}
        view = project(path, (1, 1, 0))
        assert view.period_A == pytest.approx(a / np.sqrt(2))
        assert sum(s.elements.get("Na", 0) for s in view.sites) == pytest.approx(
            sum(s.elements.get("Cl", 0) for s in view.sites)
        )


def test_translation_that_swaps_elements_is_none(tmp_path):
    # c/2 keeps Ta and brings the places of Nb onto those of Mg: the cell must stay 8 A high.
    atoms = [
        (f"{element}{n}", element, place, 1)
        for element, *places in (
            ("Ta", (0, 0, 0), (0, 0, 0.5)),
            ("Nb", (0.5, 0.5, 0.1), (0.5, 0.5, 0.3)),
            ("Mg", (0.5, 0.5, 0.6), (0.5, 0.5, 0.8)),
        )
        for n, place in enumerate(places)
    ]
    path = write_cif(tmp_path / "order.cif", (4, 4, 8, 90, 90, 90), number(1), atoms)
    check_cell(project(path, (1, 0, 0)), 4, 8, 90, 4)
    view = project(path, (0, 0, 1))
    check_cell(view, 4, 4, 90, 8)
    assert view.sites[1].elements == {"Nb": 2, "Mg": 2}
    assert view.sites[1].species == "Nb"


# --- directions and layers ----------------------------------------------------------------------


def test_directions_of_ktao3_along_1m10():
    view = project("KTaO3", (1, -1, 0))
    expected = {(0, 0, 1): (0, 1), (1, 1, 0): (2, 0), (1, 1, 1): (2, 1), (1, 1, -2): (2, -2),
                (1, -1, 0): (0, 0), (1, 0, 0): (1, 0)}  # fmt: skip
    for uvw, want in expected.items():
        np.testing.assert_allclose(view.direction(uvw), want, atol=1e-12)
    # The paper's geometry: u is 54.74 degrees from the interface direction [11-2].
    u, x = (
        np.array([1.0, 0.0]) @ view.cell_matrix(),
        view.direction((1, 1, -2)) @ view.cell_matrix(),
    )
    angle = np.degrees(np.arccos(u @ x / np.linalg.norm(u) / np.linalg.norm(x)))
    assert angle == pytest.approx(54.7356, abs=1e-3)
    with pytest.raises(ValueError, match="three finite numbers"):
        view.direction((0, 1))


@pytest.mark.parametrize(
    ("axis", "hkl", "step", "spacing"),
    [
        ((1, -1, 0), (1, 1, 1), (1, 1), A / np.sqrt(3)),
        ((1, -1, 0), (-1, -1, -1), (-1, -1), A / np.sqrt(3)),
        ((1, -1, 0), (2, 2, 2), (1, 1), A / np.sqrt(3)),
        ((1, -1, 0), (0, 0, 1), (0, 1), A),
        ((1, -1, 0), (1, 1, 0), (1, 0), A / np.sqrt(2)),
        ((1, -1, 0), (1, 1, 2), (1, 2), A / np.sqrt(6)),
        ((1, -1, 0), (1, 1, -1), (1, -1), A / np.sqrt(3)),
        ((1, 1, -2), (1, 1, 1), (1, 0), A / np.sqrt(3)),
        ((1, 0, 0), (0, 1, 1), (1, 1), A / np.sqrt(2)),
    ],
)
def test_layers_of_a_cubic_crystal(axis, hkl, step, spacing):
    view = project("KTaO3", axis)
    assert view.layer_step(hkl) == step
    assert view.layer_spacing_A(hkl) == pytest.approx(spacing, rel=1e-9)


def test_layers_of_a_triclinic_crystal_follow_the_reciprocal_metric(tmp_path):
    cell, symmetry, atoms, _ = CRYSTALS["triclinic"]
    view = project(write_cif(tmp_path / "t.cif", cell, symmetry, atoms), (1, 1, 0))
    hkl = (1, -1, 2)
    spacing = 1 / np.linalg.norm(np.linalg.inv(view.metric) @ hkl)
    assert view.layer_spacing_A(hkl) == pytest.approx(spacing)
    # One step along [001] crosses l = 2 planes, one along [100] crosses h = 1.
    for uvw, crossed in (((0, 0, 1), 2), ((1, 0, 0), 1), ((0, 1, 0), -1)):
        assert np.dot(view.direction(uvw), view.layer_step(hkl)) == pytest.approx(crossed)


def test_plane_that_is_not_edge_on_is_refused():
    view = project("KTaO3", (1, -1, 0))
    for call in (view.layer_step, view.layer_spacing_A):
        with pytest.raises(ValueError, match=r"hkl \(1, 0, 0\) is not edge on.*\[1, -1, 0\]"):
            call((1, 0, 0))
    with pytest.raises(ValueError, match="hkl must be three whole numbers"):
        view.layer_step((0, 0, 0))


# --- symmetry -----------------------------------------------------------------------------------


def check_operations(view):
    """Every operation maps the columns onto equal ones, and together they make a group."""
    operations = view.symmetry_operations()
    cell = view.cell_matrix()
    for matrix, shift in operations:
        assert matrix.dtype.kind == "i"
        for site in view.sites:
            image = matrix @ (site.u, site.v) + shift
            gaps = [np.array([s.u, s.v]) - image for s in view.sites if s.elements == site.elements]
            assert min(np.linalg.norm((g - np.rint(g)) @ cell) for g in gaps) < 0.05
    matrices = {tuple(matrix.ravel()) for matrix, _ in operations}
    products = {tuple((a @ b).ravel()) for a, _ in operations for b, _ in operations}
    assert products == matrices
    first, shift = operations[0]
    assert np.array_equal(first, np.eye(2)) and not shift.any()
    return operations


def test_symmetry_of_perovskite_views():
    view = project("KTaO3", (1, -1, 0))
    matrices = {tuple(m.ravel()) for m, _ in check_operations(view)}
    assert matrices == {(1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, -1)}
    assert len(check_operations(project("SrTiO3", (1, 0, 0)))) == 8
    assert len(check_operations(project("SrTiO3", (1, 1, 1)))) == 12
    # c/a = 1.011 and 1.06: no fourfold axis in these images.
    assert len(check_operations(project("BaTiO3", (1, 0, 0)))) == 4
    assert len(check_operations(project("PbTiO3", (0, 1, 0)))) == 4


def test_symmetry_with_and_without_glides(rutile, wurtzite, graphite):
    operations = check_operations(project(rutile, (0, 0, 1)))  # p4gm
    assert len(operations) == 8
    assert sum(bool(np.allclose(shift, 0.5)) for _, shift in operations) == 4
    polar = check_operations(project(wurtzite, (1, 1, 0)))  # pg: v must not be inverted
    assert len(polar) == 2
    assert all(matrix[1, 1] == 1 for matrix, _ in polar)
    assert len(check_operations(project(graphite, (0, 0, 1)))) == 12  # p6mm


# --- origin, names, contrast --------------------------------------------------------------------


def test_displaced_species_is_put_at_the_origin():
    view = project("KTaO3", (1, -1, 0), displaced="Ta")
    assert (view.sites[0].species, view.sites[0].u, view.sites[0].v) == ("Ta", 0, 0)
    assert {(s.species, s.u, s.v) for s in view.sites} == {
        ("Ta", 0, 0), ("K", 0, 0.5), ("O", 0.5, 0)
    }  # fmt: skip


def test_contrast_orders_the_columns_as_the_techniques_do():
    k, ta, o = (site.contrast for site in project("KTaO3", (1, -1, 0)).sites)
    for mode in ("idpc", "haadf", "abf"):
        assert ta[mode] == 1
        assert 0 < o[mode] < k[mode] < 1
    assert o["haadf"] == pytest.approx(2 * (8 / 73) ** 1.7)
    assert k["haadf"] == pytest.approx((19 / 73) ** 1.7 + (8 / 73) ** 1.7)
    # Oxygen is visible in iDPC and ABF, hardly in HAADF.
    assert o["haadf"] < 0.06 < 0.2 < o["idpc"] < o["abf"]


def test_displaced_species_must_name_a_column():
    with pytest.raises(ValueError, match=r"displaced 'Li' names no column here\. Known: K, Ta, O"):
        project("KTaO3", (1, -1, 0), displaced="Li")
    with pytest.raises(ValueError, match=r"K is only in columns named after Ta.*Known: Ta, O"):
        project("KTaO3", (1, 1, 1), displaced="K")
    with pytest.raises(ValueError, match=r"species 'La'.*Known: K, Ta, O"):
        project("KTaO3", (1, -1, 0)).sites_of("La")


# --- CIF ----------------------------------------------------------------------------------------


XYZ = [
    f"{'-' if flip[0] else ''}{p[0]},{'-' if flip[1] else ''}{p[1]},{'-' if flip[2] else ''}{p[2]}"
    for p in itertools.permutations("xyz") for flip in itertools.product((0, 1), repeat=3)
]  # fmt: skip


@pytest.mark.parametrize(
    "symmetry",
    [
        number(221),
        ["_symmetry_Int_Tables_number 221"],
        ["_symmetry_space_group_name_H-M 'P m -3 m'"],
        ["_space_group_name_H-M_alt 'Pm-3m'"],
        operators(*XYZ),
        ["loop_", "_symmetry_equiv_pos_as_xyz", *(f"'{triplet}'" for triplet in XYZ)],
    ],
    ids=["number", "old-number", "symbol", "short-symbol", "operators", "old-operators"],
)
def test_symmetry_stated_in_any_way_gives_the_preset(symmetry, tmp_path):
    view = project(write_cif(tmp_path / "kto.cif", CUBIC, symmetry, PEROVSKITE), (1, -1, 0))
    preset = project("KTaO3", (1, -1, 0))
    assert table(view) == table(preset)
    check_cell(view, preset.u_A, preset.v_A, 90, preset.period_A)


@pytest.mark.parametrize("place", [0.0, 0.125])
def test_origin_choice_left_open_is_found_from_the_atoms(place, tmp_path):
    # Silicon at 0 means origin choice 1, at 1/8 choice 2; the wrong one makes 16 atoms or more.
    a = 5.431
    atoms = [("Si1", "Si", (place,) * 3, 1)]
    path = write_cif(tmp_path / "si.cif", (a, a, a, 90, 90, 90), number(227), atoms)
    view = project(path, (1, -1, 0))
    area = abs(np.linalg.det(view.cell_matrix()))
    assert [s.elements for s in view.sites] == [{"Si": 1}, {"Si": 1}]
    assert 2 / (area * view.period_A) == pytest.approx(8 / a**3)
    # The dumbbell: a/4 apart along [001].
    gap = np.subtract((view.sites[1].u, view.sites[1].v), (view.sites[0].u, view.sites[0].v))
    images = [np.linalg.norm((gap - n) @ view.cell_matrix())
              for n in itertools.product((-1, 0, 1, 2), repeat=2)]  # fmt: skip
    assert min(images) == pytest.approx(a / 4, rel=1e-4)


def test_rhombohedral_number_takes_the_axes_of_the_cell(tmp_path):
    hexagonal = write_cif(tmp_path / "h.cif", (5.366, 5.366, 13.11, 90, 90, 120), number(167),
                          [("La", "La", (0, 0, 0.25), 1), ("Al", "Al", (0, 0, 0), 1),
                           ("O", "O", (0.44, 0, 0.25), 1)])  # fmt: skip
    edge = np.sqrt(5.366**2 / 3 + (13.11 / 3) ** 2)
    angle = 2 * np.degrees(np.arcsin(5.366 / 2 / edge))
    rhombohedral = write_cif(
        tmp_path / "r.cif",
        (edge,) * 3 + (angle,) * 3,
        number(167),
        [
            ("La", "La", (0.25,) * 3, 1),
            ("Al", "Al", (0,) * 3, 1),
            ("O", "O", (0.69, -0.19, 0.25), 1),
        ],
    )
    first, second = project(hexagonal, (0, 0, 1)), project(rhombohedral, (1, 1, 1))
    check_cell(first, second.u_A, second.v_A, second.angle_deg, second.period_A)
    assert table(first) == table(second)
    assert first.period_A == pytest.approx(13.11)


def test_partial_and_mixed_occupancy(tmp_path):
    atoms = [
        ("K1", "K", (0, 0, 0), 0.7), ("Li1", "Li", (0, 0, 0), 0.3),
        ("Ta1", "Ta", (0.5, 0.5, 0.5), 0.5), ("Nb1", "Nb", (0.5, 0.5, 0.5), 0.5),
        ("O1", "O", (0.5, 0.5, 0), 0.9), ("V1", "V", (0.25, 0.25, 0.25), 0),
    ]  # fmt: skip
    view = project(write_cif(tmp_path / "m.cif", CUBIC, number(221), atoms), (1, -1, 0))
    assert view.species == ("K", "Ta", "O")  # Ta over Nb: the heavier on ties
    by_name = {site.species: site.elements for site in view.sites}
    assert by_name["K"] == pytest.approx({"K": 0.7, "Li": 0.3, "O": 0.9})
    assert by_name["Ta"] == pytest.approx({"Ta": 0.5, "Nb": 0.5})
    assert by_name["O"] == pytest.approx({"O": 1.8})


def test_split_site_is_one_column_at_its_centre(tmp_path):
    # K disordered 0.1 A off its place, six ways (occupancy 1/6 each).
    atoms = [("K1", "K", (0.1 / A, 0, 0), 0.16667), *PEROVSKITE[1:]]
    view = project(write_cif(tmp_path / "s.cif", CUBIC, number(221), atoms), (1, -1, 0))
    site = view.sites_of("K")[0]
    assert len(view.sites) == 3
    assert site.elements == pytest.approx({"K": 1, "O": 1}, abs=1e-4)
    ta = view.sites_of("Ta")[0]
    assert ((ta.u - site.u) % 1, (ta.v - site.v) % 1) == pytest.approx((0, 0.5), abs=1e-4)


def test_first_block_with_atoms_is_used(tmp_path):
    path = write_cif(tmp_path / "two.cif", CUBIC, number(221), PEROVSKITE)
    path.write_text("data_global\n_journal_year 2020\n" + path.read_text(encoding="utf-8"),
                    encoding="utf-8")  # fmt: skip
    assert project(path, (1, -1, 0)).species == ("K", "Ta", "O")


@pytest.mark.parametrize(
    ("cell", "symmetry", "atoms", "message"),
    [
        (CUBIC, number(221), [], "holds no atoms"),
        (CUBIC, [], PEROVSKITE, "states no known space group.*_space_group_IT_number"),
        (CUBIC, number(400), PEROVSKITE, "states no known space group.*number 400"),
        (CUBIC, operators("x,y"), PEROVSKITE, "operator is not readable"),
        ((A, A, 4.2, 90, 90, 90), number(221), PEROVSKITE, "does not have the symmetry"),
        (CUBIC, number(194), PEROVSKITE, "does not have the symmetry"),
        (CUBIC, number(221), [("X1", "Xx", (0, 0, 0), 1)], "'X1' has no known element"),
        (CUBIC, number(221), [("K1", "K", (0, "?", 0), 1)], "'K1' needs three coordinates"),
        (CUBIC, number(221), [("K1", "K", (0, 0, 0), 1.5)], "'K1' needs .* occupancy"),
        (CUBIC, number(221), [("K1", "K", (0, 0, 0), 0)], "all occupancies are 0"),
        (CUBIC, number(1), [*PEROVSKITE, *PEROVSKITE[:1]], "2.00 atoms share the place"),
        ((A, A, 0, 90, 90, 90), number(1), PEROVSKITE, "no complete unit cell"),
        ((A, A, -A, 90, 90, 90), number(1), PEROVSKITE, "no complete unit cell"),
        ((A, A, "?", 90, 90, 90), number(1), PEROVSKITE, "no complete unit cell"),
        ((A, A, A, 150, 90, 20), number(1), PEROVSKITE, "no complete unit cell"),
    ],
)
def test_bad_cif_is_refused_with_path(cell, symmetry, atoms, message, tmp_path):
    path = write_cif(tmp_path / "bad.cif", cell, symmetry, atoms)
    with pytest.raises(ValueError, match=rf"(?s)bad\.cif.*{message}"):
        project(path, (0, 0, 1))


def test_unreadable_file_is_refused_with_path_and_remedy(tmp_path):
    binary = tmp_path / "image.cif"
    binary.write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match=r"image\.cif.*cannot be read as CIF.*Check that"):
        project(binary, (0, 0, 1))
    with pytest.raises(ValueError, match=rf"{tmp_path.name}.*is a directory; name a file"):
        project(tmp_path, (0, 0, 1))
    empty = tmp_path / "empty.cif"
    empty.write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match="holds no atoms"):
        project(empty, (0, 0, 1))
    no_cell = tmp_path / "cell.cif"
    no_cell.write_text("data_x\nloop_\n_atom_site_label\n_atom_site_fract_x\n_atom_site_fract_y\n"
                       "_atom_site_fract_z\nK 0 0 0\n", encoding="utf-8")  # fmt: skip
    with pytest.raises(ValueError, match="no complete unit cell"):
        project(no_cell, (0, 0, 1))


# --- wrong calls --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "nearest"), [("KTaO", "KTaO3"), ("ktao3", "KTaO3"), ("SrTiO_3", "SrTiO3"), ("", ".")]
)
def test_unknown_structure_names_the_nearest_preset(name, nearest):
    with pytest.raises(ValueError, match=rf"{name!r} is neither.*Nearest preset: '{nearest}"):
        project(name, (1, -1, 0))


@pytest.mark.parametrize(
    "axis", [(0, 0, 0), (1, 0), (1, 0.5, 0), (1, float("nan"), 0), "abc", None, [[1, 0, 0]]]
)
def test_bad_zone_axis_is_refused(axis):
    with pytest.raises(ValueError, match="zone_axis must be three whole numbers"):
        project("KTaO3", axis)


def test_axis_without_columns_is_refused():
    with pytest.raises(ValueError, match=r"repeat every 0\.\d+ A, too close"):
        project("KTaO3", (19, 17, 23))


def test_import_stays_light():
    code = (
        "import sys, stemdisp.crystal as c; c.project('KTaO3', (1, -1, 0));"
        "print([m for m in ('gemmi', 'hyperspy', 'matplotlib', 'dask') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
