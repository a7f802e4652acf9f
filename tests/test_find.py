"""Lattice -> all expected columns; residual -> film atoms and peaks that no site explains."""

import numpy as np
import pandas as pd
import pytest
from _known_images import PIXEL_A, ideal, kto, positions

from stemdisp._start import NUISANCE
from stemdisp.find import (
    FILM_BAND_A,
    MARGIN_A,
    crystal_mask,
    find_columns,
    find_film,
    find_unexpected,
    pixels_per_angstrom,
)
from stemdisp.interface import Interface, find_interface
from stemdisp.lattice import Lattice, find_lattice
from stemdisp.simulate import render
from stemdisp.tables import Quality

SCALE = 1 / PIXEL_A


@pytest.fixture(scope="module")
def scene():
    image, truth = ideal(rotation_deg=8.0)
    lattice, interface = find_interface(image, find_lattice(image, kto()), projection=kto())
    return image, truth, lattice, interface


def nearest_A(points, others):
    apart = points[:, None] - others[None]
    return np.hypot(apart[..., 0], apart[..., 1]).min(axis=1) * PIXEL_A


def test_every_column_of_the_crystal_is_listed_once(scene):
    image, truth, lattice, interface = scene
    table = find_columns(image, lattice, projection=kto(), interface=interface)
    assert not table.duplicated(["species", "i", "j"]).any()
    inside = truth[(positions(truth) > 0).all(axis=1) & (positions(truth) < 319).all(axis=1)]
    for species in ("K", "Ta", "O"):
        true, found = (t[t["species"] == species] for t in (inside, table))
        assert nearest_A(positions(true), positions(found)).max() < 0.1
        # and nothing else: what is listed lies in the image, or just outside, and in the crystal
        every = positions(truth[truth["species"] == species])
        assert nearest_A(positions(found), every).max() < 0.1
        assert len(true) <= len(found) <= len(true) + 40
    assert table["N"].min() == 1
    out = np.maximum(-positions(table), positions(table) - 319).max()
    assert 0 < out <= MARGIN_A * SCALE * 1.02 + 1


def test_layer_and_plane_are_those_of_the_interface(scene):
    image, truth, lattice, interface = scene
    table = find_columns(image, lattice, projection=kto(), interface=interface)
    order = [np.argmin(np.hypot(*(positions(table) - p).T)) for p in positions(truth)]
    matched = table.iloc[order].reset_index(drop=True)
    inside = nearest_A(positions(truth), positions(table)) < 0.2
    np.testing.assert_array_equal(matched["N"][inside], truth["N"][inside])
    np.testing.assert_allclose(matched["layer"][inside], truth["layer"][inside], atol=1e-6)
    near = table["quality"] & int(Quality.NEAR_FILM) > 0
    np.testing.assert_array_equal(near, table["N"] == 1)
    assert set(table["quality"]) == {0, int(Quality.NEAR_FILM)}


def test_without_interface_the_crystal_fills_the_image(scene):
    image, _, lattice, interface = scene
    table = find_columns(image, lattice, projection=kto())
    assert table["N"].isna().all() and table["layer"].isna().all()
    assert (table["quality"] == 0).all()
    with_edge = find_columns(image, lattice, projection=kto(), interface=interface)
    film = len(table) - len(with_edge)
    assert film == pytest.approx(len(table) * 14 / 48, rel=0.2)


def test_scale_comes_from_the_area_of_the_cell(scene):
    _, _, lattice, _ = scene
    assert pixels_per_angstrom(lattice, kto()) == pytest.approx(SCALE, rel=2e-3)


# ---- film and surprises ---------------------------------------------------------------------


def edge(angle_deg=20.0):
    """Lattice, and interface through the middle of a 200 px image, half a layer beyond N = 1."""
    turn = np.deg2rad(angle_deg)
    normal = np.array([np.sin(turn), -np.cos(turn)])
    cell = kto().cell_matrix() * SCALE
    gradient = np.linalg.solve(cell, np.ones(2))
    angle = np.arctan2(normal[1], normal[0]) - np.arctan2(gradient[1], gradient[0])
    c, s = np.cos(angle), np.sin(angle)
    cell = cell @ np.array([[c, s], [-s, c]])
    spacing = kto().layer_spacing_A((1, 1, 1)) * SCALE
    position = np.array([100.0, 90.0])
    lattice = Lattice(
        origin_px=position - spacing * normal,
        u_px=cell[0],
        v_px=cell[1],
        centre_px=np.array([99.5, 99.5]),
        scale_px=100.0,
    )
    interface = Interface(
        side="up",
        position_px=position,
        normal=normal,
        spacing_px=spacing,
        steps=(1.0, 1.0),
        along=tuple(cell @ np.array([-normal[1], normal[0]])),
        top_layer=0.5,
    )
    return lattice, interface


def beyond_last_plane_A(xy, interface):
    last = interface.position_px - 0.5 * interface.spacing_px * interface.normal
    return (xy - last) @ interface.normal * PIXEL_A


def blobs_at(xy, size=200, height=1.0):
    blobs = np.column_stack([xy, np.full(len(xy), height), np.full(len(xy), 0.4 * SCALE)])
    return render(blobs, np.zeros((size, 2)), size)


def test_mask_ends_a_little_way_into_the_film():
    lattice, interface = edge()
    data = np.random.default_rng(0).normal(size=(200, 200))
    data[150, 20] = np.nan
    mask = crystal_mask(data, lattice, interface, SCALE)
    yy, xx = np.mgrid[0:200, 0:200]
    beyond = beyond_last_plane_A(np.column_stack([xx.ravel(), yy.ravel()]), interface)
    expected = (beyond < FILM_BAND_A[1]).reshape(200, 200) & np.isfinite(data)
    assert np.mean(mask != expected) < 1e-3  # but for rounding at the rim
    assert not mask[150, 20]
    assert 0.3 < mask.mean() < 0.9
    np.testing.assert_array_equal(crystal_mask(data, lattice, None, SCALE), np.isfinite(data))


def test_film_is_modelled_in_its_band_only():
    lattice, interface = edge()
    along = np.array([-interface.normal[1], interface.normal[0]])
    last = interface.position_px - 0.5 * interface.spacing_px * interface.normal
    rows = {
        distance: last + (distance * interface.normal + shift * along[None]) * SCALE
        for distance in (-2.0, 0.2, 1.8, 5.0)
        for shift in [np.arange(-6.0, 7.0, 3.0)[:, None]]
    }
    found = find_film(blobs_at(np.vstack(list(rows.values()))), lattice, interface, SCALE)
    assert set(found["species"]) == {NUISANCE}
    beyond = beyond_last_plane_A(positions(found), interface)
    assert np.all((beyond > FILM_BAND_A[0]) & (beyond < FILM_BAND_A[1]))
    # every atom of the band is there, at its place
    assert nearest_A(rows[1.8], positions(found)).max() < 0.15
    assert len(found) == len(rows[1.8])
    assert len(find_film(np.zeros((200, 200)), lattice, interface, SCALE)) == 0


def noisy_residual(seed=0):
    return np.random.default_rng(seed).normal(0, 1e-3, (200, 200))


SITES_PX = pd.DataFrame({"x_px": [60.0, 120.0], "y_px": [60.0, 120.0]})


@pytest.mark.parametrize("seed", range(5))
def test_nothing_unexpected_in_noise(seed):
    mask = np.ones((200, 200), dtype=bool)
    found = find_unexpected(noisy_residual(seed), mask, SITES_PX, SCALE)
    assert len(found) == 0
    assert list(found.columns) == ["x_px", "y_px", "height"]


def test_an_extra_atom_is_found_where_it_is():
    mask = np.ones((200, 200), dtype=bool)
    place = np.array([[90.0, 140.0]])
    found = find_unexpected(noisy_residual() + blobs_at(place, height=0.5), mask, SITES_PX, SCALE)
    assert len(found) == 1
    assert nearest_A(place, positions(found))[0] < 0.15
    assert found["height"].iloc[0] > 8


@pytest.mark.parametrize("case", ["misfit of a column", "masked", "at the border", "dark"])
def test_what_is_no_extra_atom_is_not_reported(case):
    mask = np.ones((200, 200), dtype=bool)
    place, height = np.array([[90.0, 140.0]]), 0.5
    if case == "misfit of a column":
        place = np.array([[60.0 + 0.5 * SCALE, 60.0]])
    elif case == "masked":
        mask[:, 70:] = False
    elif case == "at the border":
        place = np.array([[3.0, 140.0]])
    else:
        height = -0.5
    residual = noisy_residual() + blobs_at(place, height=height)
    found = find_unexpected(residual, mask, SITES_PX, SCALE)
    near = nearest_A(place, positions(found)) if len(found) else np.array([np.inf])
    assert near.min() > 0.5


def test_a_missed_column_of_an_image_is_found():
    # From the image itself: leave one Ta out of the model, and it must turn up.
    image, truth = ideal(rotation_deg=8.0, film_A=0.0, dose_e_per_A2=4000.0)
    blobs = truth[["x_px", "y_px", "intensity"]].assign(s=truth["sigma_A"] * SCALE).to_numpy()
    inner = truth[(truth["species"] == "Ta") & truth["x_px"].between(120, 200)]
    inner = inner[inner["y_px"].between(120, 200)]
    gone = inner.index[0]
    mask = np.ones(image.shape, dtype=bool)

    def residual(rows):
        model = render(blobs[rows].astype(float), np.zeros((len(image), 2)), len(image))
        return image - model / PIXEL_A**2

    keep = truth.index != gone
    assert len(find_unexpected(residual(slice(None)), mask, truth, SCALE)) == 0
    found = find_unexpected(residual(keep), mask, truth[keep], SCALE)
    assert len(found) == 1
    assert nearest_A(positions(truth.loc[[gone]]), positions(found))[0] < 0.2
