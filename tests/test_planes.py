"""Columns -> planes: numbers, depth, and errors that hold what they promise."""

import numpy as np
import pandas as pd
import pytest
from _exact_columns import columns_of, directions, is_, make_lattice, moved, plane, with_noise
from _known_images import kto

from stemdisp.occupancy import measure_occupancy
from stemdisp.planes import average_occupancy, average_planes, plane_correlation
from stemdisp.sublattice import measure_displacements
from stemdisp.tables import Quality

LATTICE = make_lattice()
PLANES = 24


def table_of(rng, *, scatter_A=0.0, plane_jitter_A=0.0, delta=0.5, rows=12):
    """Noisy columns; K moved along u by a decay, scattered, and plane by plane."""
    table = columns_of(LATTICE, rows=rows, planes=PLANES)
    u, _ = directions(LATTICE, table)
    along = np.where(plane(table) < 10, delta * np.exp(-(plane(table) - 1) / 2), 0.0)
    along = along + scatter_A * rng.normal(size=len(table))
    along = along + plane_jitter_A * rng.normal(size=PLANES + 1)[plane(table).astype(int)]
    k = is_(table, "K")
    return with_noise(moved(table, k, (along[:, None] * u)[k]), rng)


def measured(rng, **options):
    return measure_displacements(table_of(rng, **options), LATTICE, projection=kto())


def true_delta(n):
    return np.where(n < 10, 0.5 * np.exp(-(n - 1) / 2), 0.0)


def plane_pulls(seeds, *, bulk_from=10, **options):
    out = []
    for seed in range(seeds):
        planes = average_planes(measured(np.random.default_rng(seed), **options))
        use = planes[(planes["N"] < bulk_from)]
        n = use["N"].to_numpy(dtype=float)
        out.append((use["delta_A"] - true_delta(n)) / use["delta_err_A"])
    return np.concatenate(out)


def test_one_row_for_each_plane_with_its_depth():
    planes = average_planes(measured(np.random.default_rng(0)), spacing_A=2.3028)
    assert list(planes["N"]) == list(range(1, PLANES + 1))
    np.testing.assert_allclose(planes["depth_nm"], (np.arange(PLANES)) * 0.23028)
    assert (planes["n_columns"][:-1] == 12).all()
    n = planes["N"].to_numpy(dtype=float)[:-1]
    off = planes["delta_A"].to_numpy()[:-1] - true_delta(n)
    assert np.all(np.abs(off) < 5 * planes["delta_err_A"][:-1])
    assert np.all(np.abs(planes["delta_perp_A"][:-1]) < 5 * planes["delta_perp_err_A"][:-1])


@pytest.mark.parametrize("scatter", [0.0, 0.05])
def test_total_error_is_never_below_noise(scatter):
    for seed in range(5):
        columns = measured(np.random.default_rng(seed), scatter_A=scatter)
        planes = average_planes(columns, spacing_A=2.3028)
        assert (planes["delta_err_A"] >= planes["delta_noise_A"] - 1e-15).all()
        ratio = (planes["delta_err_A"] / planes["delta_noise_A"]).median()
        # noise of one column is 0.013 A; scatter of 0.05 A must dominate the total error
        assert ratio < 1.6 if scatter == 0 else ratio > 2.5


def test_error_of_the_mean_is_honest():
    pull = plane_pulls(10)
    assert pull.std() == pytest.approx(1, abs=0.2)


def test_error_holds_scatter_between_columns():
    pull = plane_pulls(10, scatter_A=0.05)
    assert pull.std() == pytest.approx(1, abs=0.2)


def test_scatter_of_whole_planes_is_seen_in_the_bulk_and_added():
    pull = plane_pulls(16, plane_jitter_A=0.03)
    assert pull.std() == pytest.approx(1, abs=0.25)
    # negative control: without the bulk's verdict the errors are far too small
    blind = []
    for seed in range(4):
        planes = average_planes(
            measured(np.random.default_rng(seed), plane_jitter_A=0.03), bulk_from=99
        )
        use = planes[planes["N"] < 10]
        off = use["delta_A"] - true_delta(use["N"].to_numpy(dtype=float))
        blind.append(off / use["delta_err_A"])
    assert np.concatenate(blind).std() > 2


def test_unusable_columns_do_not_count():
    columns = measured(np.random.default_rng(0))
    spoilt = is_(columns, "K") & (plane(columns) == 3) & (columns["i"] < 4)
    bad = columns.assign(
        delta_A=columns["delta_A"].mask(spoilt, 9.0),
        quality=np.where(spoilt, int(Quality.EDGE), columns["quality"]),
    )
    before, after = (average_planes(c).set_index("N") for c in (columns, bad))
    assert after.loc[3, "n_columns"] == before.loc[3, "n_columns"] - 4
    assert abs(after.loc[3, "delta_A"] - true_delta(3.0)) < 0.02
    untouched = [n for n in before.index if n != 3]
    np.testing.assert_allclose(
        after.loc[untouched, "delta_A"], before.loc[untouched, "delta_A"], atol=1e-12
    )


def test_a_plane_without_columns_is_listed_as_empty():
    columns = measured(np.random.default_rng(0))
    gone = is_(columns, "K") & (plane(columns) == 5)
    quality = np.where(gone, int(Quality.MASKED), columns["quality"])
    planes = average_planes(columns.assign(quality=quality)).set_index("N")
    assert planes.loc[5, "n_columns"] == 0
    assert np.isnan(planes.loc[5, "delta_A"]) and np.isnan(planes.loc[5, "delta_err_A"])


def test_a_table_read_back_from_a_file_will_do():
    # attrs are gone: means are the same, errors still cover the noise
    columns = measured(np.random.default_rng(0))
    bare = pd.DataFrame({name: columns[name] for name in columns})
    bare.attrs = {}
    full, plain = average_planes(columns), average_planes(bare)
    np.testing.assert_allclose(plain["delta_A"], full["delta_A"], atol=2e-3)
    assert (plain["delta_err_A"].dropna() > 0.5 * full["delta_err_A"].dropna()).all()


def test_missing_columns_are_named():
    with pytest.raises(ValueError, match="delta_A"):
        average_planes(columns_of(LATTICE))


# ---- occupancy ------------------------------------------------------------------------------

SHARES = {1: 0.45, 2: 0.6, 3: 0.8}


def occupied(rng, *, plane_jitter=0.0):
    table = columns_of(LATTICE, rows=14, planes=PLANES)
    anion = is_(table, "O")
    share = np.where(anion, [SHARES.get(n, 1.0) for n in plane(table)], 1.0)
    share = share + anion * plane_jitter * rng.normal(size=PLANES + 1)[plane(table).astype(int)]
    table = table.assign(intensity=table["intensity"] * share)
    return measure_occupancy(with_noise(table, rng))


def occupancy_pulls(seeds, **options):
    out = []
    for seed in range(seeds):
        means = average_occupancy(occupied(np.random.default_rng(seed), **options))
        means = means[means["N"] < 10]
        truth = np.array([SHARES.get(n, 1.0) for n in means["N"]])
        out.append((means["occupancy"] - truth) / means["occupancy_err"])
    return np.concatenate(out)


def test_occupancy_of_planes():
    means = average_occupancy(occupied(np.random.default_rng(0))).set_index("N")
    for n, share in SHARES.items():
        assert means.loc[n, "occupancy"] == pytest.approx(share, abs=0.03)
    assert (means["n_anions"] >= 14).all()
    assert occupancy_pulls(14).std() == pytest.approx(1, abs=0.2)


def test_occupancy_errors_hold_the_scatter_of_planes():
    # The trend across the image swallows some of the bulk's scatter: up to a third is lacking.
    assert 0.8 < occupancy_pulls(20, plane_jitter=0.05).std() < 1.4


def test_neighbouring_planes_err_together_because_they_share_cages():
    seeds = range(60)
    drawn = [average_planes(measured(np.random.default_rng(s), scatter_A=0.03)) for s in seeds]
    values = np.array([p["delta_A"].to_numpy()[2:7] - true_delta(np.arange(3, 8)) for p in drawn])
    seen = np.mean([np.corrcoef(values[:, k], values[:, k + 1])[0, 1] for k in range(4)])
    found = plane_correlation(measured(np.random.default_rng(0)))
    assert np.allclose(np.diag(found), 1.0) and np.allclose(found, found.T)
    claimed = np.mean([found.loc[k, k + 1] for k in range(3, 7)])
    # of 60 draws a correlation is known to 0.13, the mean of four to about 0.07
    assert claimed > 0.05 and abs(claimed - seen) < 0.2
    assert abs(found.loc[2, 12]) < 0.02
    assert plane_correlation(pd.DataFrame(measured(np.random.default_rng(0)).to_dict())) is None


def test_the_film_adds_to_the_error_of_the_first_plane_only():
    table = measured(np.random.default_rng(0))
    plain, biased = average_planes(table), average_planes(table, film_bias=(0.01, 0.1))
    first = np.hypot(plain["delta_err_A"][0], np.hypot(0.01, 0.1 * plain["delta_A"][0]))
    assert biased["delta_err_A"][0] == pytest.approx(first)
    pd.testing.assert_frame_equal(plain.iloc[1:], biased.iloc[1:])
