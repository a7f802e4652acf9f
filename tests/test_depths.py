"""Depths on tables whose truth is known: error rates, coverage, and negative controls."""

import time

import numpy as np
import pandas as pd
import pytest
from _known_tables import (
    DECAY,
    FULL,
    NO_COLUMNS,
    VACANCIES,
    ZERO,
    N,
    make_columns,
    make_planes,
    planes_of,
)

from stemdisp.depths import find_depths


def test_vacancy_depth_is_six_in_nearly_every_draw():
    rng = np.random.default_rng(9)
    found = [
        find_depths(NO_COLUMNS, make_planes(rng, DECAY, VACANCIES)).vacancy for _ in range(200)
    ]
    assert np.mean([d.N == 6 for d in found]) >= 0.99
    assert np.mean([d.ci[0] <= 6 <= d.ci[1] for d in found]) >= 0.99
    # The interval must say something: mostly one plane wide, never shallower than five.
    assert np.mean([d.ci == (6, 6) for d in found]) > 0.7
    assert min(d.ci[0] for d in found) >= 5


def test_nothing_is_found_in_a_perfect_crystal():
    rng = np.random.default_rng(10)
    found = [find_depths(NO_COLUMNS, make_planes(rng)) for _ in range(120)]
    for kind in ("vacancy", "displacement"):
        depths = [getattr(d, kind) for d in found]
        assert np.mean([d.N == 0 for d in depths]) >= 0.95
        assert np.mean([d.ci[0] == 0 for d in depths]) >= 0.95
        assert "no plane departs" in depths[0].note
    assert np.isnan(found[0].difference.N)
    assert np.mean([d.vacancy_model.N == 0 for d in found]) > 0.8


def test_depth_allows_for_the_error_of_the_bulk_reference():
    rng = np.random.default_rng(11)
    # Exact planes against a bulk that is known poorly: its error, not theirs, is the limit.
    err = np.where(N < 10, 0.002, 0.05)
    found = []
    for _ in range(80):
        table = make_planes(rng, ZERO, FULL, err=err)
        found.append(find_depths(NO_COLUMNS, table).displacement.N)
    assert np.mean(np.array(found) == 0) >= 0.95
    # Scatter of the bulk beyond its errors warns about all planes.
    lies = [make_planes(rng, ZERO, FULL, err=0.004, true_err=0.012) for _ in range(80)]
    found = [find_depths(NO_COLUMNS, t).displacement.N for t in lies]
    assert np.mean(np.array(found) == 0) >= 0.95


def test_depth_is_one_sided_for_occupancy_and_two_sided_for_delta():
    rng = np.random.default_rng(12)
    table = make_planes(rng, np.where(N <= 3, -0.2, 0.0), np.where(N <= 4, 1.2, 1.0))
    depths = find_depths(NO_COLUMNS, table)
    assert depths.displacement.N == 3 and depths.displacement_model.method == "step"
    assert depths.vacancy.N == 0


def test_depth_says_what_it_lacks():
    rng = np.random.default_rng(13)
    table = make_planes(rng, DECAY, VACANCIES)
    short = find_depths(NO_COLUMNS, table[table["N"] < 10])
    assert np.isnan(short.vacancy.N) and "N = 10" in short.vacancy.note
    assert "cannot tell" in short.difference.note
    holes = table.copy()
    holes.loc[holes["N"].isin([3, 7, 8]), "occupancy"] = np.nan
    vacancy = find_depths(NO_COLUMNS, holes).vacancy
    assert vacancy.N == 6 and vacancy.ci[1] >= 8  # nobody looked at 7 and 8
    assert vacancy.note.endswith("no clear departure at N = 3")
    deep = find_depths(NO_COLUMNS, table, bulk_from=5).vacancy
    assert deep.N == 4 and "larger bulk_from" in deep.note
    with pytest.raises(ValueError, match="columns lacks quality"):
        find_depths(NO_COLUMNS.drop(columns="quality"), table)
    with pytest.raises(ValueError, match="n_resamples = 0"):
        find_depths(NO_COLUMNS, table, n_resamples=0)


@pytest.mark.parametrize("row_noise", [0.0, 0.03])
def test_difference_of_equal_depths_holds_zero(row_noise):
    rng = np.random.default_rng(14)
    delta = np.where(N <= 6, 0.05 + 0.06 * (6 - N), 0.0)
    hits, widths = [], []
    for _ in range(30):
        columns = make_columns(rng, delta, VACANCIES, rows=40, row_noise=row_noise)
        depths = find_depths(columns, planes_of(columns), n_resamples=300)
        low, high = depths.difference.ci
        hits.append(low <= 0 <= high)
        widths.append(high - low)
    assert np.mean(hits) >= 0.93
    assert np.median(widths) <= 3


def test_difference_refutes_a_coincidence_that_is_not_there():
    rng = np.random.default_rng(15)
    delta = np.where(N <= 3, 0.3, 0.0)
    columns = make_columns(rng, delta, VACANCIES)
    planes = planes_of(columns)
    before = columns.copy(), planes.copy()
    depths = find_depths(columns, planes)
    assert depths.difference.N == 3 and depths.difference.ci[0] > 0
    again = find_depths(columns, planes)
    assert again == depths
    pd.testing.assert_frame_equal(columns, before[0])
    pd.testing.assert_frame_equal(planes, before[1])
    bad = columns.assign(quality=4)
    assert "0 [001] rows" in find_depths(bad, planes).difference.note


def test_bootstrap_of_a_large_image_is_quick():
    columns = make_columns(np.random.default_rng(16), DECAY, VACANCIES, rows=125)
    planes = planes_of(columns)
    start = time.perf_counter()
    find_depths(columns, planes, n_resamples=1000)
    assert len(columns) == 5000
    assert time.perf_counter() - start < 5.0
