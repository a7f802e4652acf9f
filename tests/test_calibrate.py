"""Pixel size: from the lattice, the file or the user; and a lattice refitted to columns."""

from dataclasses import replace

import numpy as np
import pytest
from _exact_columns import columns_of, is_, make_lattice, moved
from _known_images import kto

from stemdisp.calibrate import choose_pixel_size, pixel_size_from_lattice, refit_lattice
from stemdisp.crystal import project
from stemdisp.errors import DataError
from stemdisp.lattice import Lattice

ROTATIONS = [-54.7, -20.0, 0.0, 31.0, 90.0, 135.3]


def lattice_of(pixel, rotation=-54.7, **options):
    # exact cell of the preset, not the rounded one of the tables
    lattice = make_lattice(rotation, pixel=pixel, **options)
    turn = np.deg2rad(rotation)
    u = kto().u_A * np.array([np.cos(turn), np.sin(turn)])
    v = kto().v_A * np.array([np.sin(turn), -np.cos(turn)])
    return replace(lattice, u_px=u / np.array(pixel), v_px=v / np.array(pixel))


# ---- from the lattice -----------------------------------------------------------------------


@pytest.mark.parametrize("rotation", ROTATIONS)
@pytest.mark.parametrize("size", [0.05, 0.15])
def test_square_pixels(rotation, size):
    measured = pixel_size_from_lattice(lattice_of((size, size), rotation), kto())
    assert measured == pytest.approx((size, size), rel=1e-9)
    assert measured[0] == measured[1]


@pytest.mark.parametrize("rotation", ROTATIONS)
@pytest.mark.parametrize("ratio", [1.03, 0.97])
def test_axes_that_are_scaled_differently(rotation, ratio):
    wanted = (0.15 * ratio, 0.15)
    measured = pixel_size_from_lattice(lattice_of(wanted, rotation), kto())
    assert measured == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_axes_that_differ_within_error_count_as_alike(rotation):
    measured = pixel_size_from_lattice(lattice_of((0.15 * 1.004, 0.15), rotation), kto())
    assert measured[0] == measured[1] == pytest.approx(0.15 * np.sqrt(1.004), rel=1e-6)


def test_a_square_cell_on_the_diagonal_cannot_tell():
    # u and v at 45 degrees to the axes: their lengths change alike, their angle by shear as well
    square = project("SrTiO3", (0, 0, 1))
    u = 3.905 / 0.1 * np.array([1, 1]) / np.sqrt(2)
    v = 3.905 / 0.1 * np.array([1, -1]) / np.sqrt(2)
    lattice = replace(make_lattice(), u_px=u, v_px=v)
    assert pixel_size_from_lattice(lattice, square) == pytest.approx((0.1, 0.1), rel=1e-6)


def test_a_lattice_far_from_the_crystal_keeps_its_area():
    # more than 12 % is no calibration error; only the area is believed
    sx, sy = pixel_size_from_lattice(lattice_of((0.15 * 1.3, 0.15), 0.0), kto())
    assert sx == sy == pytest.approx(0.15 * np.sqrt(1.3), rel=1e-6)


# ---- who wins -------------------------------------------------------------------------------


def choose(wanted, from_file, size=(0.15, 0.15)):
    return choose_pixel_size(wanted, from_file, lattice_of(size), kto())


def test_file_and_lattice_that_agree_leave_the_file_its_word():
    size, notes = choose("auto", (0.1508, 0.1508))
    assert size == (0.1508, 0.1508)
    assert notes == []


def test_in_auto_the_lattice_wins_with_a_warning():
    size, notes = choose("auto", (0.15 * 1.05, 0.15 * 1.05))
    assert size == pytest.approx((0.15, 0.15))
    assert [n["code"] for n in notes] == ["pixel-size"]
    assert "the lattice is used" in notes[0]["message"]
    assert "4.8% apart" in notes[0]["message"]


def test_one_axis_that_disagrees_is_enough():
    size, notes = choose("auto", (0.15, 0.15), size=(0.15, 0.15 * 1.03))
    assert size == pytest.approx((0.15, 0.15 * 1.03), rel=1e-6)
    assert len(notes) == 1


@pytest.mark.parametrize("from_file", [None, (0.3, 0.3)])
def test_a_number_is_a_promise(from_file):
    size, notes = choose(0.1575, from_file)
    assert size == (0.1575, 0.1575)
    assert "as asked" in notes[0]["message"]
    size, notes = choose(0.1501, from_file)
    assert size == (0.1501, 0.1501)
    assert notes == []


def test_the_files_word_can_be_insisted_on():
    size, notes = choose("file", (0.1575, 0.1575))
    assert size == (0.1575, 0.1575)
    assert "the stated size is used" in notes[0]["message"]
    with pytest.raises(DataError, match="the file states no pixel size"):
        choose("file", None)


@pytest.mark.parametrize(("wanted", "from_file"), [("auto", None), ("lattice", (0.3, 0.3))])
def test_the_lattice_alone(wanted, from_file):
    size, notes = choose(wanted, from_file)
    assert size == pytest.approx((0.15, 0.15))
    assert notes == []


# ---- refitted lattice -----------------------------------------------------------------------


def spoilt(lattice):
    """The lattice as the phases gave it: origin, cell and bending a little wrong."""
    return replace(
        lattice,
        origin_px=lattice.origin_px + np.array([0.6, -0.4]),
        u_px=lattice.u_px * 1.002,
        v_px=lattice.v_px + np.array([0.05, 0.0]),
        distortion=lattice.distortion + 0.3,
    )


def worst_px(lattice: Lattice, table):
    ij = table[["i", "j"]].to_numpy(dtype=float)
    off = lattice.position(ij) - table[["x_px", "y_px"]].to_numpy()
    return np.hypot(*off.T)


@pytest.mark.parametrize("bend", [0.0, 1.0])
def test_columns_mend_the_lattice(bend):
    true = make_lattice(distortion=np.full((7, 2), bend) * np.array([1, -0.5]))
    table = columns_of(true, rows=10, planes=16)
    table = table[table["x_px"].between(0, 400)].reset_index(drop=True)
    start = spoilt(true)
    assert worst_px(start, table).max() > 0.8
    refitted = refit_lattice(start, table, species="Ta")
    assert worst_px(refitted, table)[is_(table, "Ta")].max() < 0.15
    assert worst_px(refitted, table).max() < 0.2
    assert np.median(worst_px(refitted, table)) < 0.05
    if bend == 0:
        assert np.abs(refitted.u_px - true.u_px).max() < 0.01
        assert np.abs(refitted.origin_px - true.origin_px).max() < 0.1


def test_only_the_marker_counts_and_defects_lose_their_say():
    true = make_lattice()
    table = columns_of(true, rows=10, planes=16)
    table = table[table["x_px"].between(0, 400)].reset_index(drop=True)
    away = moved(table, is_(table, "K"), (0.5, 0.0))
    defects = np.flatnonzero(is_(table, "Ta"))[::15]
    away = moved(away, defects, (0.8, 0.8))
    refitted = refit_lattice(spoilt(true), away, species="Ta")
    assert np.median(worst_px(refitted, table)) < 0.1
    by_k = refit_lattice(spoilt(true), away, species="K")
    assert np.median(worst_px(by_k, table)) > 2.5  # 0.5 A: it follows what it is told to


def test_few_columns_change_nothing():
    lattice = make_lattice()
    table = columns_of(lattice, rows=3, planes=5)
    assert refit_lattice(lattice, table, species="Ta") is lattice
    flagged = columns_of(lattice).assign(quality=1)
    assert refit_lattice(lattice, flagged, species="Ta") is lattice
