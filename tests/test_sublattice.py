"""Table -> displacement from the cage: exact cases, missing neighbours, tilt, honest errors."""

import numpy as np
import pandas as pd
import pytest
from _exact_columns import (
    ERR_A,
    columns_of,
    directions,
    is_,
    make_lattice,
    moved,
    plane,
    with_noise,
)
from _known_images import kto
from scipy import sparse

from stemdisp.crystal import project
from stemdisp.fit import Fit
from stemdisp.noise import NoiseLevel
from stemdisp.sublattice import cage_shells, measure_displacements
from stemdisp.tables import Quality

DELTA, PERP = 0.54, -0.12
OFFSETS = {"Ta": (0.03, -0.01), "O": (-0.05, 0.04)}


def measure(table, lattice, **options):
    return measure_displacements(table, lattice, projection=kto(), **options)


def displaced(lattice, table, *, pixel=(0.15, 0.15)):
    """K moved along local u, and across it, by amounts that decay with N; and their truth."""
    u, v = directions(lattice, table, pixel=pixel)
    across = np.column_stack([-u[:, 1], u[:, 0]])
    decay = np.where(plane(table) < 10, np.exp(-(plane(table) - 1) / 2), 0.0)
    shift = decay[:, None] * (DELTA * u + PERP * across)
    k = is_(table, "K")
    return moved(table, k, shift[k], pixel=pixel), np.sum(shift * u, 1), np.sum(shift * v, 1)


def tilted(table, offsets=OFFSETS):
    for species, shift in offsets.items():
        table = moved(table, is_(table, species), shift)
    return table


def without_planes(table):
    """The same columns in a crystal without interface."""
    return table.assign(N=pd.array([pd.NA] * len(table), dtype="Int64"))


def row_of(table, species, i, n):
    """Row number of one column."""
    found = table.index[is_(table, species) & (table["i"] == i) & (plane(table) == n)]
    return int(found[0])


# ---- exact cases ----------------------------------------------------------------------------


@pytest.mark.parametrize("pixel", [(0.15, 0.15), (0.15, 0.156)], ids=["square", "oblong"])
@pytest.mark.parametrize("shear", [0.0, 0.035])
@pytest.mark.parametrize("rotation", [-54.7, 10.0, 123.0])
def test_displacements_are_exact_under_rotation_and_shear(rotation, shear, pixel):
    lattice = make_lattice(rotation, shear=shear, pixel=pixel)
    table, along, across = displaced(lattice, columns_of(lattice, pixel=pixel), pixel=pixel)
    out = measure(table, lattice)
    k = is_(out, "K") & (plane(out) < 18)  # the deepest plane has lost its lower neighbours
    np.testing.assert_allclose(out["delta_A"][k], along[k], atol=1e-9)
    np.testing.assert_allclose(out["delta_perp_A"][k], across[k], atol=1e-9)
    assert out["delta_A"][~is_(out, "K")].isna().all()
    assert out["n_pairs"][~is_(out, "K")].isna().all()
    inner = k & (plane(out) > 1)
    assert set(out["n_pairs"][inner]) == {3}
    assert set(out["n_pairs"][k & (plane(out) == 1)]) == {2}  # the film has no oxygen sites
    assert (out["quality"][k] == 0).all()


def test_directions_are_local():
    # The lattice turns by some degrees across the field; u is that of the place.
    distortion = np.zeros((7, 2))
    distortion[1] = (0.0, 9.0)
    lattice = make_lattice(distortion=distortion)
    table, along, across = displaced(lattice, columns_of(lattice))
    u, _ = directions(lattice, table)
    k = is_(table, "K") & (plane(table) < 18)
    assert np.ptp(np.degrees(np.arctan2(*u[k].T[::-1]))) > 1.8
    assert np.abs(along[k]).max() > 0.5
    out = measure(table, lattice)
    # the midpoint of a pair on a bent line is off by its curvature
    np.testing.assert_allclose(out["delta_A"][k], along[k], atol=0.015)
    np.testing.assert_allclose(out["delta_perp_A"][k], across[k], atol=0.015)
    straight = measure(table, make_lattice())
    assert np.abs(straight["delta_perp_A"][k] - across[k]).max() > 0.02


@pytest.mark.parametrize("cage", ["Ta", "O", "Ta/O"])
def test_any_cage_gives_the_same_on_exact_positions(cage):
    lattice = make_lattice()
    table, along, _ = displaced(lattice, columns_of(lattice))
    out = measure(table, lattice, cage=cage)
    k = is_(out, "K") & (plane(out) < 18)
    np.testing.assert_allclose(out["delta_A"][k], along[k], atol=1e-9)
    pairs = {"Ta": 1, "O": 2, "Ta/O": 3}[cage]
    assert out["n_pairs"][k].max() == pairs


def test_input_is_left_alone():
    lattice = make_lattice()
    table = columns_of(lattice)
    before = table.copy()
    measure(table, lattice)
    assert table.equals(before)
    assert "displacements" not in table.attrs


# ---- neighbours that are missing ------------------------------------------------------------


def test_a_missing_neighbour_takes_its_opposite_along():
    lattice = make_lattice()
    table, along, across = displaced(lattice, columns_of(lattice))
    above = row_of(table, "Ta", 5, 4)  # the Ta over the K of plane 4
    k = row_of(table, "K", 5, 4)
    for spoilt in (
        table.drop(index=above).reset_index(drop=True),
        table.assign(quality=np.where(table.index == above, int(Quality.EDGE), 0)),
        table.assign(quality=np.where(table.index == above, int(Quality.NOT_DETECTED), 0)),
        table.assign(**{a: table[a].where(table.index != above) for a in ("x_A", "x_px")}),
    ):
        out = measure(spoilt, lattice)
        mine = out[is_(out, "K") & (out["i"] == 5) & (plane(out) == 4)].iloc[0]
        assert mine["n_pairs"] == 2
        assert mine["delta_A"] == pytest.approx(along[k], abs=1e-9)
        assert mine["delta_perp_A"] == pytest.approx(across[k], abs=1e-9)
    # negative control: the mean of those left, paired or not, would be off by a lot
    near = table[is_(table, "Ta") | is_(table, "O")].drop(index=above)
    xy = near[["x_A", "y_A"]].to_numpy() - table.loc[k, ["x_A", "y_A"]].to_numpy(dtype=float)
    near_xy = xy[np.hypot(*xy.T) < 3.3]
    _, v = directions(lattice, table)
    assert abs(-near_xy.mean(axis=0) @ v[k] - across[k]) > 0.2


def test_without_any_pair_there_is_no_displacement():
    lattice = make_lattice()
    table = columns_of(lattice)
    lone = row_of(table, "K", 5, 4)
    xy = table[["x_A", "y_A"]].to_numpy()
    apart = np.hypot(*(xy - xy[lone]).T)
    one_side = (apart < 3.3) & ~is_(table, "K") & (plane(table) <= 4) & (table.index != lone)
    out = measure(table[~one_side].reset_index(drop=True), lattice)
    mine = out[is_(out, "K") & (out["i"] == 5) & (plane(out) == 4)].iloc[0]
    assert np.isnan(mine["delta_A"]) and np.isnan(mine["delta_err_A"])
    assert mine["n_pairs"] == 0
    assert mine["quality"] == int(Quality.NO_CAGE)
    # only columns whose own neighbours are gone carry the bit
    flagged = out[out["quality"] & int(Quality.NO_CAGE) > 0]
    assert set(flagged["species"]) == {"K"}
    assert len(flagged) < 0.1 * is_(out, "K").sum()


def test_a_column_that_is_not_there_has_no_displacement():
    lattice = make_lattice()
    table = columns_of(lattice)
    gone = row_of(table, "K", 5, 4)
    table.loc[gone, "quality"] = int(Quality.NOT_DETECTED)
    out = measure(table, lattice)
    assert np.isnan(out["delta_A"][gone])
    assert out["quality"][gone] == int(Quality.NOT_DETECTED)


# ---- what tilt makes, and the bulk takes away -----------------------------------------------


def test_tilt_is_taken_off_for_every_shell_by_itself():
    lattice = make_lattice()
    table, along, across = displaced(lattice, columns_of(lattice))
    k = is_(table, "K") & (plane(table) < 18)
    # some K columns have lost their oxygen: there the whole-cage offset would be wrong
    few = (plane(table) == 3) & is_(table, "O") & (table["i"] > 3) & (table["i"] < 7)
    table = tilted(table).assign(quality=np.where(few, int(Quality.NOT_DETECTED), 0))
    out = measure(table, lattice)
    assert set(out["n_pairs"][k & (plane(out) == 3)]) > {3}
    np.testing.assert_allclose(out["delta_A"][k], along[k], atol=1e-9)
    np.testing.assert_allclose(out["delta_perp_A"][k], across[k], atol=1e-9)
    offset = out.attrs["displacements"].offset
    assert out.attrs["displacements"].bulk == "planes"
    # negative control: without a bulk to refer to the tilt stays, and differs between columns
    raw = measure(without_planes(table), lattice)
    bulk = is_(out, "K") & (plane(out) >= 10)
    assert offset["n_columns"] == np.count_nonzero(bulk)
    assert offset["delta"] == pytest.approx(raw["delta_A"][bulk].mean(), abs=1e-9)
    assert offset["delta_perp"] == pytest.approx(raw["delta_perp_A"][bulk].mean(), abs=1e-9)
    assert np.hypot(offset["delta"], offset["delta_perp"]) > 0.005
    assert raw.attrs["displacements"].bulk == "none"
    assert np.isnan(raw.attrs["displacements"].offset["delta_err"])
    off = (raw["delta_A"] - along)[k]
    assert np.abs(off).min() > 0.005
    assert np.ptp(off) > 0.005


def test_a_shallow_crystal_refers_to_its_deepest_planes():
    lattice = make_lattice()
    table = tilted(columns_of(lattice, planes=8))
    out = measure(table, lattice)
    assert out.attrs["displacements"].bulk == "deepest"
    k = is_(out, "K") & out["delta_A"].notna()
    np.testing.assert_allclose(out["delta_A"][k], 0, atol=1e-9)
    out = measure(tilted(columns_of(lattice, planes=5)), lattice)
    assert out.attrs["displacements"].bulk == "none"
    assert np.abs(out["delta_A"].dropna()).min() > 0.005


def test_offset_error_follows_the_scatter_of_the_bulk():
    lattice = make_lattice()
    table = columns_of(lattice)
    calm = measure(table, lattice).attrs["displacements"].offset
    scatter = {"K": 0.1, "Ta": 0.0, "O": 0.0}
    rough = with_noise(table, np.random.default_rng(0), position=scatter)
    rough = measure(rough, lattice).attrs["displacements"].offset
    expected = 0.1 / np.sqrt(rough["n_columns"])
    assert rough["delta_err"] == pytest.approx(expected, rel=0.25)
    assert 0 < calm["delta_err"] < 0.3 * expected


def test_pairs_count_by_their_variance():
    lattice = make_lattice()
    table = tilted(without_planes(columns_of(lattice)))
    error = table["species"].map({"K": 0.01, "Ta": 0.01, "O": 0.02})
    out = measure(table.assign(x_err_A=error, y_err_A=error), lattice)
    whole = out[out["n_pairs"] == 3]
    # one pair of Ta, two of O with four times the variance
    mean = (4 * np.array(OFFSETS["Ta"]) + 2 * np.array(OFFSETS["O"])) / 6
    u, v = directions(lattice, table)
    np.testing.assert_allclose(whole["delta_A"], -mean @ u[0], atol=1e-9)
    np.testing.assert_allclose(whole["delta_perp_A"], -mean @ v[0], atol=1e-9)
    # variance of K less the mean of midpoints: 1 + (16/36) / 2 + (2 * 4/36) / 2 of K's own
    expected = 0.01 * np.sqrt(1 + 16 / 72 + 8 / 72)
    np.testing.assert_allclose(whole["delta_err_A"], expected, rtol=1e-6)


# ---- errors ---------------------------------------------------------------------------------


def pulls(tables, lattice, *, bulk=False):
    """(found - true) / error of planes 2 to 6, pooled; truth is zero."""
    out = []
    for table in tables:
        found = measure(table if bulk else without_planes(table), lattice)
        use = is_(found, "K") & (plane(table) > 1) & (plane(table) < 7)
        for name in ("delta", "delta_perp"):
            out.append((found[f"{name}_A"] / found[f"{name}_err_A"])[use].to_numpy())
    return np.concatenate(out)


@pytest.mark.parametrize("bulk", [False, True])
def test_errors_are_those_of_the_positions(bulk):
    lattice = make_lattice()
    table = columns_of(lattice, rows=30, planes=14)
    rng = np.random.default_rng(0)
    pull = pulls([with_noise(table, rng) for _ in range(8)], lattice, bulk=bulk)
    assert len(pull) > 2000
    assert pull.std() == pytest.approx(1, abs=0.06)
    assert abs(pull.mean()) < 0.12


def test_errors_that_are_twice_as_large_are_seen_as_such():
    # Negative control: the same test fails when the stated errors are wrong.
    lattice = make_lattice()
    table = columns_of(lattice, rows=30, planes=14)
    rng = np.random.default_rng(0)
    double = {s: 2 * e for s, e in ERR_A.items()}
    pull = pulls([with_noise(table, rng, position=double) for _ in range(4)], lattice)
    assert pull.std() == pytest.approx(2, abs=0.15)


def correlated_fit(table, share):
    """Covariance in which each K shares the given part of its noise with the Ta above it."""
    n = len(table)
    sigma = np.repeat(table["x_err_A"].to_numpy(), 3)
    mix = sparse.lil_array(np.eye(3 * n))
    for k in np.flatnonzero(is_(table, "K")):
        here = is_(table, "Ta") & (table["i"] == table["i"][k])
        ta = np.flatnonzero(here & (plane(table) == plane(table)[k]))
        for c in (1, 2):
            mix[3 * ta[0] + c, 3 * k + c] = share
    mix = sparse.diags_array(sigma) @ mix.tocsr()
    return mix, (mix @ mix.T).tocsr()


def test_covariance_of_the_joint_fit_reaches_the_errors():
    lattice = make_lattice()
    table = columns_of(lattice, rows=14, planes=12)
    mix, covariance = correlated_fit(table, 1.5)
    error = np.sqrt(covariance.diagonal()).reshape(-1, 3)
    table = table.assign(x_err_A=error[:, 1], y_err_A=error[:, 2])
    blank = np.zeros((2, 2))
    fit = Fit(covariance, blank, blank > 0, NoiseLevel("white", 1.0, 0.0, "residual"), 1.0, {}, 1)
    rng = np.random.default_rng(1)
    tables, bare = [], []
    for _ in range(12):
        noise = (mix @ rng.normal(size=mix.shape[0])).reshape(-1, 3)
        noisy = moved(table, np.ones(len(table), dtype=bool), noise[:, 1:])
        bare.append(noisy.copy())
        noisy.attrs["fit"] = fit
        tables.append(noisy)
    assert pulls(tables, lattice).std() == pytest.approx(1, abs=0.08)
    # negative control: from the table's own errors alone, they come out wrong
    assert abs(pulls(bare, lattice).std() - 1) > 0.12


# ---- wrong calls ----------------------------------------------------------------------------


def test_cage_is_made_of_the_nearest_pairs():
    ta, oxygen = cage_shells(kto(), "K", ("Ta", "O"))
    np.testing.assert_allclose(ta, [(0, 0.5)])
    np.testing.assert_allclose(sorted(map(tuple, oxygen)), [(0.5, -0.5), (0.5, 0.5)])
    square = cage_shells(project("SrTiO3", (0, 0, 1)), "Sr", ("Ti",))
    assert len(square[0]) == 2


def test_unknown_species_and_missing_columns_are_named():
    lattice = make_lattice()
    table = columns_of(lattice)
    with pytest.raises(ValueError, match="no columns of Ti in KTaO3"):
        measure(table, lattice, cage="Ti/O")
    with pytest.raises(ValueError, match="no columns of Na in KTaO3"):
        measure(table, lattice, displaced="Na")
    with pytest.raises(ValueError, match="x_err_A"):
        measure(table.drop(columns="x_err_A"), lattice)
