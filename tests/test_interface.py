"""Image -> end of the crystal: the right plane number for every column, on every side."""

import json
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from _known_images import (
    IDEAL,
    PIXEL_A,
    SITES,
    ideal,
    kto,
    mirrored,
    positions,
    quarter_turns,
    simulated,
)
from conftest import SHARED

from stemdisp._sites import Likeness, expected_sites
from stemdisp.check import check_assignment, interface_doubts, interface_notes
from stemdisp.dpc import integrate_dpc
from stemdisp.errors import DataError
from stemdisp.find import find_columns
from stemdisp.interface import find_interface
from stemdisp.lattice import find_lattice
from stemdisp.pipeline import run
from stemdisp.simulate import Scan, Specimen, build_columns, idpc_noise, render
from stemdisp.tables import Quality

REPEATS = 8
SIZE = 320


def analyse(image, **options):
    lattice = find_lattice(image, kto())
    return find_interface(image, lattice, projection=kto(), **options)


def plane_numbers(lattice, interface, truth):
    """N that the interface gives to each true column, by its species and where it lies."""
    site = np.array([SITES[s] for s in truth["species"]])
    ij = np.rint(lattice.index(positions(truth)) - site) + site
    return interface.plane(ij)


def edge_distance_A(interface, truth):
    """How far the interface lies beyond the true plane N = 1, along its normal."""
    first = truth[(truth["species"] == "Ta") & (truth["N"] == 1)]
    beyond = (interface.position_px - positions(first)) @ interface.normal
    return beyond * PIXEL_A


# ---- every column, every side ---------------------------------------------------------------


@pytest.mark.parametrize(("times", "side"), [(0, "up"), (1, "left"), (2, "down"), (3, "right")])
def test_plane_numbers_are_exact_on_every_side(times, side):
    image, truth = quarter_turns(*simulated(rotation_deg=5.0), times)
    lattice, interface = analyse(image)
    np.testing.assert_array_equal(plane_numbers(lattice, interface, truth), truth["N"])
    assert interface.side == side
    assert interface.sorted_share > 0.95
    # half a layer beyond the last plane, to a fifth of a layer
    half = kto().layer_spacing_A((1, 1, 1)) / 2
    assert np.abs(edge_distance_A(interface, truth) - half).max() < 0.2 * 2 * half
    normal = {"up": (0, -1), "left": (-1, 0), "down": (0, 1), "right": (1, 0)}[side]
    assert interface.normal @ normal == pytest.approx(np.cos(np.deg2rad(5)), abs=0.02)
    assert np.hypot(*interface.normal) == pytest.approx(1)
    assert interface.spacing_px * PIXEL_A == pytest.approx(2 * half, rel=0.01)


def test_a_mirror_image_gets_the_same_numbers():
    image, truth = mirrored(*simulated(rotation_deg=5.0))
    lattice, interface = analyse(image)
    np.testing.assert_array_equal(plane_numbers(lattice, interface, truth), truth["N"])


@pytest.mark.parametrize("film_A", [7.0, 22.0])
def test_the_film_may_be_thin_or_thick(film_A):
    image, truth = simulated(rotation_deg=5.0, film_A=film_A)
    lattice, interface = analyse(image)
    np.testing.assert_array_equal(plane_numbers(lattice, interface, truth), truth["N"])


def test_dark_columns_make_no_difference():
    image, truth = simulated(rotation_deg=5.0)
    lattice, interface = analyse(-image)
    np.testing.assert_array_equal(plane_numbers(lattice, interface, truth), truth["N"])


def test_layers_grow_towards_the_film_and_share_one_convention():
    image, _ = simulated(rotation_deg=5.0)
    lattice, interface = analyse(image)
    above = interface.position_px + 2 * interface.spacing_px * interface.normal
    layer = interface.layer(lattice.index(np.stack([interface.position_px, above])))
    assert layer[1] - layer[0] == pytest.approx(2, abs=0.1)
    # l = 0 is the first K-O layer, half a layer under the first Ta plane and one under the edge
    assert layer[0] == pytest.approx(1, abs=0.1)
    steps = np.array(kto().layer_step((1, 1, 1)))
    assert tuple(interface.steps) == tuple(steps)
    first = np.array([[interface.top_layer - 0.5, 0.0]])  # K, at layer 0
    assert interface.layer(first)[0] == pytest.approx(0)
    below = [[0, 0], [0, 0.5], [0, -0.5], [-1, 0]]  # K, Ta above it, Ta below it, next K
    np.testing.assert_array_equal(interface.plane(first + below), [1, 1, 2, 2])


def test_a_count_that_is_off_by_one_would_be_seen():
    # Negative control of this file's check: one plane more or less, and a wrong way up, fail it.
    image, truth = simulated(rotation_deg=5.0)
    lattice, interface = analyse(image)
    step = np.array([1.0, 0.0])
    for wrong in (
        lattice.reindexed(np.eye(2), step),
        lattice.reindexed(np.eye(2), -step),
        lattice.reindexed(-np.eye(2), np.zeros(2)),
    ):
        assert np.any(plane_numbers(wrong, interface, truth) != truth["N"])


# ---- is there one at all? -------------------------------------------------------------------


def test_a_crystal_alone_has_none():
    image, _ = simulated(rotation_deg=5.0, film_A=0.0)
    lattice = find_lattice(image, kto())
    same, interface = find_interface(image, lattice, projection=kto())
    assert interface is None
    assert same is lattice
    with pytest.raises(DataError, match=r"no interface parallel to \[1, 1, 1\]"):
        find_interface(image, lattice, projection=kto(), present=True)
    with pytest.raises(DataError, match="with the film up"):
        find_interface(image, lattice, projection=kto(), film="up")


def test_one_that_is_there_can_be_left_out():
    image, _ = simulated(rotation_deg=5.0)
    _, interface = analyse(image, present=False)
    assert interface is None


def test_a_wrong_side_is_refused():
    image, _ = simulated(rotation_deg=5.0)
    lattice = find_lattice(image, kto())
    for film in ("down", "left", "right"):
        with pytest.raises(DataError, match=f"with the film {film}"):
            find_interface(image, lattice, projection=kto(), film=film)
    assert find_interface(image, lattice, projection=kto(), film="up")[1].side == "up"


def test_a_wrong_plane_is_refused():
    image, _ = simulated(rotation_deg=5.0)
    with pytest.raises(DataError, match=r"no interface parallel to \[0, 0, 1\]"):
        analyse(image, plane=(0, 0, 1), present=True)


def test_bright_film_does_not_pass_for_crystal():
    # Crystallinity decides, not brightness: a film brighter than the crystal changes nothing.
    image, truth = simulated(rotation_deg=5.0)
    edge = truth.loc[truth["N"] == 1, "y_px"].mean()
    lift = np.where(np.arange(len(image)) < edge - 8, 3 * image.std(), 0.0)[:, None]
    lattice, interface = analyse(image + lift)
    np.testing.assert_array_equal(plane_numbers(lattice, interface, truth), truth["N"])


# ---- roughness ------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def stepped(planes):
    """Interface whose right half ends `planes` planes deeper."""
    rng = np.random.default_rng(2)
    size = SIZE
    flat = {k: v for k, v in IDEAL.items() if k not in ("jitter_px", "shear_px")}
    specimen = Specimen(**flat, rotation_deg=0.0)
    truth, atoms = build_columns(specimen, Scan(size=size), rng)
    truth = truth[(truth["x_px"] < size / 2) | (truth["N"] > planes)]
    blobs = truth[["x_px", "y_px", "intensity"]].assign(s=truth["sigma_A"] / PIXEL_A).to_numpy()
    extra = atoms.copy()  # film fills the hole
    extra[:, 1] += planes * kto().layer_spacing_A((1, 1, 1)) / PIXEL_A
    edge = truth.loc[truth["N"] == 1, "y_px"].min()
    fill = extra[(extra[:, 0] > size / 2) & (extra[:, 1] > edge - 8)]
    blobs = np.vstack([blobs, atoms, fill]).astype(float)
    image = render(blobs, np.zeros((size, 2)), size) / PIXEL_A**2
    return image + idpc_noise(size, PIXEL_A, 1000.0, rng), truth


@pytest.mark.parametrize("rotation", [0.0, 3.0, 100.0])
def test_a_flat_interface_has_no_roughness(rotation):
    image, _ = ideal(rotation_deg=rotation)
    assert analyse(image)[1].roughness_planes == 0.0


@pytest.mark.parametrize("planes", [1, 2])
def test_a_step_is_followed_and_every_number_is_right(planes):
    image, truth = stepped(planes)
    lattice, interface = analyse(image)
    assert abs(int(np.diff(interface.offsets)[0])) == planes
    assert len(interface.offsets) == 2
    # each half counts from its own last plane; below the step itself either may be meant
    own = truth.assign(N=truth["N"] - planes * (truth["x_px"] > SIZE / 2))
    sure = np.abs(own["x_px"] - SIZE / 2) > 5.0 / PIXEL_A
    numbers = plane_numbers(lattice, interface, own)
    np.testing.assert_array_equal(numbers[sure], own["N"][sure])
    assert interface.roughness_planes == pytest.approx(planes / 2, abs=0.15)
    # negative control: one straight border is wrong for half of the columns
    straight = replace(interface, breaks_px=np.zeros(0), offsets=np.zeros(1, dtype=int))
    wrong = plane_numbers(lattice, straight, own) != own["N"]
    assert 0.3 < wrong[sure].mean() < 0.7
    step = interface.step_positions(lattice)[0]
    assert abs(step[0] - SIZE / 2) < 5.0 / PIXEL_A


def test_the_outline_runs_along_both_terraces():
    image, truth = stepped(2)
    lattice, interface = analyse(image)
    line = interface.outline(lattice, image.shape)
    for side in (line[:, 0] < SIZE / 2 - 40, line[:, 0] > SIZE / 2 + 40):
        own = truth["N"] == (1 if side[0] else 3)
        first = truth[own & (truth["species"] == "Ta")]
        first = first[(first["x_px"] > SIZE / 2) != side[0]]
        gap = first["y_px"].mean() - line[side, 1].mean()
        assert gap == pytest.approx(0.5 * interface.spacing_px, abs=0.2 * interface.spacing_px)


def test_height_is_measured_from_the_nearer_terrace():
    image, _ = stepped(2)
    lattice, interface = analyse(image)
    grid = np.array([[x, y] for x in (60.0, 260.0) for y in (30.0, 200.0)])
    height = interface.height(lattice.index(grid)) / interface.spacing_px
    assert height[0] > 1 and height[2] > 3
    assert height[1] < -5 and height[3] < -5
    # beside the step, in front of the lower terrace: the wall is nearer than the terrace
    step = interface.step_positions(lattice)[0]
    beside = interface.height(lattice.index(step[None] + [[8.0, 0.0]]))
    assert 0 < beside[0] < 10


# ---- two of them ----------------------------------------------------------------------------


@lru_cache(maxsize=4)
def sandwich(kind, shift=(0.0, 0.0)):
    """A film between two crystals, or a crystal between two films; and truth of the larger."""
    size = 360
    rng = np.random.default_rng(1)
    specimen = {k: v for k, v in IDEAL.items() if k not in ("jitter_px", "shear_px")}
    all_columns, _ = build_columns(
        Specimen(**specimen, film_A=0.0, rotation_deg=0.0), Scan(size=size), rng
    )
    layers = np.sort(all_columns.loc[all_columns["species"] == "Ta", "layer"].unique())[::-1]
    height = all_columns.groupby("layer")["y_px"].mean()
    first = next(v for v in layers if height[v] > 130)
    layer = all_columns["layer"]
    if kind == "two crystals":
        keep = (layer <= first) | (layer >= first + 6)
        band = (height[first + 6], height[first])
        films = [(band[0] + 7, band[1] - 7)]
    else:
        keep = (layer <= first) & (layer >= first - 12)
        films = [(-40, height[first] - 7), (height[first - 12] + 7, size + 40)]
    columns = all_columns[keep].copy()
    columns["N"] = (1 - np.floor(columns["layer"] - first + 0.5 + 1e-6)).astype(int)
    other = columns["layer"] > first
    columns.loc[other, ["x_px", "y_px"]] += np.array(shift) / PIXEL_A
    blobs = columns[["x_px", "y_px", "intensity"]].assign(s=columns["sigma_A"] / PIXEL_A)
    xy = rng.uniform(-40, size + 40, (int(8.0 * (0.15 * (size + 80)) ** 2), 2))
    inside = np.any([(xy[:, 1] > a) & (xy[:, 1] < b) for a, b in films], axis=0)
    xy = xy[inside]
    atoms = np.column_stack([xy, 0.012 * rng.gamma(2, 0.5, len(xy)), np.full(len(xy), 3.0)])
    image = render(np.vstack([blobs.to_numpy(), atoms]), np.zeros((size, 2)), size) / PIXEL_A**2
    image = image + idpc_noise(size, PIXEL_A, 2000.0, rng)
    return image, columns[~other & columns["x_px"].between(0, size - 1)]


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.9, 0.5)])
def test_a_film_between_two_crystals(shift):
    image, truth = sandwich("two crystals", shift)
    lattice, interface = analyse(image)
    np.testing.assert_array_equal(plane_numbers(lattice, interface, truth), truth["N"])
    assert interface.side == "up"
    if shift == (0.0, 0.0):
        assert interface.beyond is not None and interface.beyond.side == "down"
        assert [n["code"] for n in interface_notes(interface)] == ["second-interface"]
        other = analyse(image, film="down")[1]
        assert other.side == "down"


def test_a_crystal_between_two_films():
    image, truth = sandwich("two films")
    truth = truth[truth["y_px"].between(0, len(image) - 1)]
    lattice, interface = analyse(image, film="up")
    np.testing.assert_array_equal(plane_numbers(lattice, interface, truth), truth["N"])
    assert interface.far is not None and interface.far.side == "down"
    table = find_columns(image, lattice, projection=kto(), interface=interface)
    # the crystal's columns and no others
    assert table["y_px"].max() == pytest.approx(truth["y_px"].max(), abs=1.5)
    lattice, down = analyse(image, film="down")
    assert down.side == "down" and down.far.side == "up"
    ta = truth[truth["species"] == "Ta"]
    numbers = plane_numbers(lattice, down, ta)
    np.testing.assert_array_equal(numbers, ta["N"].max() + 1 - ta["N"])


# ---- the user's own -------------------------------------------------------------------------


def test_a_point_or_a_line_of_the_user_overrides():
    image, truth = simulated(rotation_deg=5.0)
    ta = truth[truth["species"] == "Ta"]
    point = positions(ta[ta["N"] == 3])[4]
    lattice, interface = analyse(image, at=(tuple(point),))
    assert interface.stated
    np.testing.assert_array_equal(plane_numbers(lattice, interface, truth), truth["N"] - 2)
    last = positions(ta[ta["N"] == 2])
    order = np.argsort(last[:, 0])
    line = last[order[[2, -3]]] + [0.0, -0.5 * interface.spacing_px]
    lattice, interface = analyse(image, at=tuple(map(tuple, line)))
    np.testing.assert_array_equal(plane_numbers(lattice, interface, truth), truth["N"] - 1)


@pytest.mark.parametrize("at", [((150.0, 5000.0),), ((0.0, 3000.0), (320.0, 3028.0))])
def test_an_interface_stated_outside_the_image_is_refused(at):
    image, _ = simulated(rotation_deg=5.0)
    with pytest.raises(DataError, match="outside the image"):
        analyse(image, at=at)


@pytest.mark.parametrize("background", [0.0, 0.1])
def test_vacuum_of_few_counts_is_no_dead_detector(background):
    _, truth = ideal(rotation_deg=5.0, film_A=12.0)
    own = truth[["x_px", "y_px", "intensity"]].assign(s=truth["sigma_A"] / PIXEL_A)
    clean = render(own.to_numpy(float), np.zeros((SIZE, 2)), SIZE)
    counts = np.random.default_rng(0).poisson(background + 10 * clean / clean.max()).astype(float)
    lattice, interface = analyse(counts)
    np.testing.assert_array_equal(plane_numbers(lattice, interface, truth), truth["N"])


def test_a_large_offset_changes_nothing():
    image, truth = simulated(rotation_deg=5.0)
    lattice, interface = analyse(image / image.std() + 1e8)
    np.testing.assert_array_equal(plane_numbers(lattice, interface, truth), truth["N"])


def test_steps_are_told_from_left_to_right_on_every_side():
    for times in range(4):
        image, truth = quarter_turns(*stepped(2), times)
        lattice, interface = analyse(image)
        line = interface.step_positions(lattice)
        assert len(line) == 1
        first = truth[(truth["species"] == "Ta") & (truth["N"] == 1)]
        axis = "x_px" if interface.side in ("up", "down") else "y_px"
        # the higher terrace is where plane 1 of the unstepped crystal is
        higher_first = first[axis].mean() < SIZE / 2
        assert np.diff(interface.offsets)[0] == (-2 if higher_first else 2)


def test_a_line_askew_or_no_points_are_refused():
    image, _ = simulated(rotation_deg=5.0)
    with pytest.raises(DataError, match="does not run along"):
        analyse(image, at=((50.0, 50.0), (150.0, 150.0)))
    for at in ((), ((1.0, 2.0, 3.0),), ((1.0, 1.0), (1.0, 1.0)), ((np.nan, 1.0),)):
        with pytest.raises(ValueError, match="at = "):
            analyse(image, at=at)


# ---- mistakes are seen ----------------------------------------------------------------------


def test_numbers_off_by_one_are_caught():
    image, truth = simulated(rotation_deg=5.0)
    _, right = analyse(image)
    assert interface_doubts(right, "Ta", "K") == []
    ta = truth[truth["species"] == "Ta"]
    inner = positions(ta[ta["N"] == 2])[5]
    outer = positions(ta[ta["N"] == 1])[5] + right.spacing_px * right.normal
    for point, code in ((inner, "interface-outside"), (outer, "interface-inside")):
        wrong = analyse(image, at=(tuple(point),))[1]
        assert [d["code"] for d in interface_doubts(wrong, "Ta", "K")] == [code]


def test_a_film_on_the_wrong_side_is_caught():
    # half a turn: the stated plane is the right one, but the film is said to lie below
    image, truth = simulated(rotation_deg=5.0)
    first = truth[(truth["species"] == "Ta") & (truth["N"] == 1)]
    point = tuple(positions(first)[5])
    _, wrong = analyse(image, at=(point,), film="down")
    assert "interface-outside" in [d["code"] for d in interface_doubts(wrong, "Ta", "K")]
    assert wrong.sorted_share < 0.3


@pytest.mark.parametrize("shift", [(0.0, 0.5), (0.5, 0.5), (0.5, 0.0)])
def test_swapped_species_and_shifted_origins_are_caught(shift):
    image, _ = simulated(rotation_deg=5.0)
    lattice = find_lattice(image, kto())
    assert check_assignment(image, lattice, kto()) == []
    wrong = lattice.reindexed(np.eye(2), np.array(shift))
    assert [d["code"] for d in check_assignment(image, wrong, kto())] == ["assignment"]


def test_a_whole_lattice_vector_is_no_mistake():
    image, _ = simulated(rotation_deg=5.0)
    lattice = find_lattice(image, kto())
    moved = lattice.reindexed(-np.eye(2), np.array([2.0, -3.0]))
    assert check_assignment(image, moved, kto()) == []


def test_inverted_contrast_is_caught():
    image, _ = simulated(rotation_deg=5.0)
    lattice = find_lattice(image, kto())
    assert check_assignment(-image, lattice, kto()) != []


# ---- sites and their scores -----------------------------------------------------------------


def test_every_site_is_listed_once():
    image, truth = ideal(rotation_deg=12.0, film_A=0.0)
    lattice = find_lattice(image, kto())
    table = expected_sites(lattice, kto(), image.shape)
    assert not table.duplicated(["species", "i", "j"]).any()
    inside = truth[
        truth["x_px"].between(0, image.shape[1] - 1) & truth["y_px"].between(0, len(image) - 1)
    ]
    for species, count in inside["species"].value_counts().items():
        mine = table[table["species"] == species]
        apart = positions(inside[inside["species"] == species])[:, None] - positions(mine)[None]
        nearest = np.hypot(apart[..., 0], apart[..., 1]).min(axis=1)
        assert nearest.max() * PIXEL_A < 0.1
        assert abs(len(mine) - count) <= 4  # sites within half a pixel of the border
    wider = expected_sites(lattice, kto(), image.shape, margin_px=10)
    assert len(wider) > len(table)


def test_scores_tell_crystal_from_film():
    image, truth = simulated(rotation_deg=5.0)
    lattice, interface = analyse(image)
    cage = Likeness(image, lattice, kto(), ("Ta",)).sites
    plane = interface.plane(cage[["i", "j"]].to_numpy())
    assert (cage["height"][plane >= 2] > 0.7).mean() > 0.95
    assert (cage["evidence"][plane >= 2] > 0).mean() > 0.98
    assert (cage["evidence"][plane <= 0] > 0).mean() < 0.1
    assert truth["N"].min() == 1


# ---- multislice -----------------------------------------------------------------------------


@lru_cache(maxsize=4)
def multislice(name):
    path = SHARED / "data" / "multislice" / f"kto111_{name}.npz"
    if not path.is_file():
        pytest.skip(f"the multislice images are not at hand ({path}); set STEMDISP_SHARED")
    with np.load(path) as data:
        quadrants, pixel = data["quadrants"].astype(float), float(data["pixel_A"])
    image = integrate_dpc(np.tile(quadrants, (1, 1, REPEATS)), pixel_size_A=pixel)
    return np.asarray(image), pixel, json.loads(path.with_suffix(".json").read_text())


def misnumbered(image, pixel, truth):
    """How many true columns get another N, and how many there are."""
    lattice, interface = analyse(image)
    assert interface is not None
    wrong = total = 0
    for column in truth["columns"]:
        site = np.array({"KO": SITES["K"]}.get(column["species"], SITES.get(column["species"])))
        x = column["x_A"] + truth["lateral_period_A"] * np.arange(REPEATS)
        xy = np.column_stack([x, np.full(REPEATS, column["y_A"])]) / pixel
        ij = lattice.index(xy) - site
        assert np.abs(ij - np.rint(ij)).max() < 0.2
        wrong += np.count_nonzero(interface.plane(np.rint(ij) + site) != column["N"])
        total += REPEATS
    edge = (interface.position_px[1] + 0.5 * interface.spacing_px) * pixel
    assert edge == pytest.approx(truth["interface_y_A"], abs=0.5 * truth["layer_spacing_A"])
    assert interface.side == "up"
    assert interface.roughness_planes == 0.0
    return wrong, total


@pytest.mark.parametrize("name", ["10nm", "10nm_KO", "15nm", "30nm"])
def test_multislice_planes_are_numbered_right(name):
    wrong, total = misnumbered(*multislice(name))
    assert total > 200
    assert wrong == 0


def test_a_specimen_too_thick_says_so_and_gives_no_occupancy():
    # 30 nm: pure oxygen is no peak, Ta is weak, K-O is the bright column.
    from hyperspy.signals import Signal2D

    image, pixel, _ = multislice("30nm")
    assert find_lattice(image, kto()).odd_contrast
    assert not find_lattice(multislice("15nm")[0], kto()).odd_contrast
    signal = Signal2D(image)
    for axis in signal.axes_manager.signal_axes:
        axis.scale, axis.units = pixel, "Å"
    result = run(signal, settings={"analysis": {"bulk_from": 8}})
    assert "odd-contrast" in [w["code"] for w in result.summary["warnings"]]
    assert result.columns["occupancy"].isna().all()
    assert result.planes["occupancy"].isna().all()
    assert np.isnan(result.depths.vacancy.N)
    assert result.planes["delta_A"].notna().sum() > 5


def test_a_run_tells_of_steps_and_of_what_the_user_stated():
    from hyperspy.signals import Signal2D

    image, truth = stepped(2)
    signal = Signal2D(image)
    for axis in signal.axes_manager.signal_axes:
        axis.scale, axis.units = PIXEL_A, "Å"
    result = run(signal)
    assert "steps" in [w["code"] for w in result.summary["warnings"]]
    assert abs(result.summary["interface"]["steps"][0]["planes"]) == 2
    near = result.columns["quality"] & int(Quality.NEAR_FILM) > 0
    own = truth[(truth["species"] == "Ta") & (truth["N"] == 5)]
    at = [list(map(float, positions(own)[3]))]
    moved = run(signal, settings={"interface": {"at": at}})
    assert moved.summary["interface"]["stated"]
    assert "interface-outside" in [w["code"] for w in moved.summary["warnings"]]
    # columns beside the step touch the film as well as those of N = 1
    assert (result.columns.loc[near, "N"] > 1).any()
    assert (result.columns.loc[result.columns["N"] == 1, "quality"] & 2 > 0).all()
