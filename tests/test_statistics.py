"""Statistics on tables whose truth is known: coverage, error rates, and negative controls."""

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

from stemdisp import statistics as st
from stemdisp._values import average

# ---- average ---------------------------------------------------------------------------------


def test_average_states_its_true_error_with_and_without_scatter():
    rng = np.random.default_rng(0)
    err = rng.uniform(0.5, 2.0, 25)
    for scatter in (0.0, 3.0):
        sigma = np.hypot(err, scatter)
        results = np.array([average(sigma * rng.standard_normal(25), err) for _ in range(400)])
        claimed, true = np.sqrt(np.mean(results[:, 2] ** 2)), results[:, 0].std()
        assert claimed == pytest.approx(true, rel=0.13)
        if scatter:
            # Noise alone would claim far too little.
            assert np.mean(results[:, 1]) < 0.6 * true
        assert (results[:, 2] >= results[:, 1]).all()


def test_average_sees_noise_shared_by_clusters():
    rng = np.random.default_rng(1)
    rows = np.repeat(np.arange(20), 5)
    # Within a row the second part is the same.
    draws = [rng.standard_normal(100) + rng.standard_normal(20)[rows] for _ in range(400)]
    with_rows = np.array([average(x, np.ones(100), clusters=rows) for x in draws])
    without = np.array([average(x, np.ones(100)) for x in draws])
    true = with_rows[:, 0].std()
    assert np.sqrt(np.mean(with_rows[:, 2] ** 2)) == pytest.approx(true, rel=0.12)
    assert np.mean(without[:, 2]) < 0.75 * true


def test_average_keeps_weights_sane_and_skips_bad_pairs():
    # One column that claims a tiny error must not decide the mean of scattered columns.
    mean, _, total = average([10.0, 0.0, 1.0, -1.0], [1e-6, 1.0, 1.0, 1.0])
    assert mean == pytest.approx(2.5, abs=1.0)
    assert total > 1.0
    assert average([1.0, np.nan, 5.0], [0.5, 0.5, 0.0]) == (1.0, 0.5, 0.5)
    assert np.isnan(average([], [])).all()
    # Fewer than five clusters say too little to be used.
    assert average([0.0, 0.0, 9.0], [9.0] * 3, clusters=[1, 1, 2])[2] == pytest.approx(
        9 / np.sqrt(3)
    )
    with pytest.raises(ValueError, match="one error for each value"):
        average([1.0, 2.0], [1.0])


# ---- decay -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("err", "lie"), [(0.01, 1.0), (0.05, 1.0), (0.02, 2.5)])
def test_decay_intervals_cover_the_truth(err, lie):
    rng = np.random.default_rng(2)
    fits = [
        st.fit_decay(make_planes(rng, DECAY + 0.003, err=err, true_err=lie * err))
        for _ in range(200)
    ]
    inside = np.mean([f.delta0_ci_A[0] <= 0.54 <= f.delta0_ci_A[1] for f in fits])
    assert 0.90 <= inside <= 0.99
    inside = np.mean([f.xi_ci_planes[0] <= 2.0 <= f.xi_ci_planes[1] for f in fits])
    assert 0.90 <= inside <= 0.99
    pulls = [[(f.delta0_A - 0.54) / f.delta0_err_A, (f.c_A - 0.003) / f.c_err_A] for f in fits]
    assert np.std(pulls, axis=0) == pytest.approx([1, 1], abs=0.16)
    assert np.mean([f.model == "exponential" for f in fits]) > 0.9


def test_decay_band_states_its_true_error():
    rng = np.random.default_rng(3)
    drawn = [st.fit_decay(make_planes(rng, DECAY)).predict([1, 2.5, 4, 15]) for _ in range(120)]
    values, errors = (np.array(v) for v in zip(*drawn, strict=True))
    truth = 0.54 * np.exp(-(np.array([1, 2.5, 4, 15]) - 1) / 2.0)
    pulls = (values - truth) / errors
    assert pulls.std(axis=0) == pytest.approx(np.ones(4), abs=0.2)
    assert np.abs(pulls.mean(axis=0)).max() < 0.25


def test_decay_of_noise_is_seen_at_the_stated_rate_only():
    rng = np.random.default_rng(4)
    fits = [st.fit_decay(make_planes(rng)) for _ in range(180)]
    seen = np.mean([f.model != "none" for f in fits])
    assert seen < 0.1  # 0.05 + 3 standard errors
    quiet = [f for f in fits if f.model == "none"]
    assert all(np.isnan(f.xi_planes) and "no displacement" in f.note for f in quiet)
    assert all(f.delta0_ci_A[0] <= 0.0 <= f.delta0_ci_A[1] for f in quiet)
    assert quiet[0].predict(3)[0] == pytest.approx(quiet[0].c_A)
    # p is a probability, not only a verdict.
    assert np.mean([f.p < 0.5 for f in fits]) == pytest.approx(0.5, abs=0.1)


def test_decay_knows_sign_units_and_scale():
    table = make_planes(np.random.default_rng(5), DECAY)
    fit = st.fit_decay(table)
    assert fit.xi_nm == pytest.approx(fit.xi_planes * 0.23028)
    assert st.fit_decay(table, spacing_A=3.0).xi_ci_nm[1] == pytest.approx(
        0.3 * fit.xi_ci_planes[1]
    )
    for factor in (-1.0, 1e-9, 1e8):
        scaled = table.assign(
            delta_A=table["delta_A"] * factor, delta_err_A=table["delta_err_A"] * abs(factor)
        )
        other = st.fit_decay(scaled)
        assert other.delta0_A == pytest.approx(factor * fit.delta0_A, rel=1e-6)
        assert other.xi_ci_planes == pytest.approx(fit.xi_ci_planes, rel=1e-6)
        assert sorted(other.delta0_ci_A) == pytest.approx(
            sorted(factor * v for v in fit.delta0_ci_A), rel=1e-6
        )
    wide = st.fit_decay(table, confidence=0.997)
    assert np.ptp(wide.xi_ci_planes) > 1.3 * np.ptp(fit.xi_ci_planes)


@pytest.mark.parametrize(
    ("truth", "model"),
    [(0.3 * (N <= 4), "step"), (0.5 * np.exp(-(((N - 1) / 4.0) ** 3)), "stretched")],
)
def test_decay_names_the_shape_that_fits(truth, model):
    fit = st.fit_decay(make_planes(np.random.default_rng(6), truth))
    assert fit.model == model
    assert fit.aicc[model] + 2 <= fit.aicc["exponential"] < fit.aicc["none"]
    assert "exponential" in fit.note


def test_decay_with_open_ends_says_so():
    rng = np.random.default_rng(7)
    line = st.fit_decay(make_planes(rng, 0.3 - 0.01 * N))
    assert line.xi_ci_planes[1] == np.inf
    assert line.delta0_ci_A[1] == np.inf
    assert "lower limit" in line.note
    sharp = st.fit_decay(make_planes(rng, np.where(N == 1, 0.5, 0.0)))
    assert sharp.xi_ci_planes[0] == 0.0
    assert sharp.delta0_ci_A[0] <= 0.5 <= sharp.delta0_ci_A[1]
    assert "upper limit" in sharp.note


def test_decay_needs_four_planes_and_the_right_call():
    table = make_planes(np.random.default_rng(8), DECAY)
    table.loc[3:, "delta_A"] = np.nan
    few = st.fit_decay(table)
    assert few.n_planes == 3 and few.model == "unknown" and "cannot tell" in few.note
    assert np.isnan([few.delta0_A, few.xi_planes, *few.xi_ci_planes]).all()
    four = st.fit_decay(make_planes(np.random.default_rng(8), DECAY).head(4))
    assert np.isfinite(four.xi_planes)
    with pytest.raises(ValueError, match="confidence = 95 is not between 0 and 1"):
        st.fit_decay(table, confidence=95)
    with pytest.raises(ValueError, match="planes lacks delta_err_A"):
        st.fit_decay(table.drop(columns="delta_err_A"))


# ---- correlation -----------------------------------------------------------------------------


def patchy(rng, rows=30):
    """Vacancies that differ from place to place inside a plane, (rows, planes)."""
    return VACANCIES - 0.25 * (N <= 6) * rng.standard_normal((rows, N.size))


def cage_mean(occupancy):
    """Mean of the anions of each K of `make_columns` (edge rows wrap; good enough)."""
    # K (i, N) touches O at row i: planes N, N - 1 and at row i - 1: planes N + 1, N.
    left = np.roll(occupancy, 1, axis=0)
    return 0.25 * (occupancy + np.roll(occupancy, 1, axis=1) + left + np.roll(left, -1, axis=1))


def test_same_depth_but_not_same_place():
    rng = np.random.default_rng(17)
    found = []
    for _ in range(80):
        columns = make_columns(rng, DECAY, patchy(rng))
        found.append(st.correlate(columns, planes_of(columns), n_permutations=199))
    p = np.array([c.within_planes["p"] for c in found])
    assert np.mean(p < 0.05) < 0.12
    assert np.mean(p) == pytest.approx(0.5, abs=0.08)
    assert np.quantile(p, 0.25) == pytest.approx(0.25, abs=0.12)
    inside = [c.within_planes["ci"][0] <= 0 <= c.within_planes["ci"][1] for c in found]
    assert 0.90 <= np.mean(inside) <= 0.99
    # Both profiles fall with depth: that correlation is there all the same.
    assert min(c.between_planes["spearman"] for c in found) > 0.75


def test_same_place_is_found():
    rng = np.random.default_rng(18)
    occupancy = patchy(rng)
    local = cage_mean(occupancy)
    delta = DECAY - 0.4 * (N <= 6) * (local - local.mean(axis=0))
    columns = make_columns(rng, delta, occupancy)
    result = st.correlate(columns, planes_of(columns))
    assert result.within_planes["p"] == pytest.approx(1 / 2001)
    assert result.within_planes["r"] < -0.3
    assert result.within_planes["ci"][1] < 0
    cages = result.cages
    assert {"cage_occupancy", "delta_residual_A", "occupancy_residual"} <= set(cages)
    assert cages["N"].max() == 9 and len(cages) == result.within_planes["n_columns"]
    inner = (cages["i"] > 0) & cages["N"].between(2, 8)
    expected = local[cages["i"].astype(int), cages["N"].astype(int) - 1]
    misfit = cages["cage_occupancy"] - expected
    assert misfit[inner].std() == pytest.approx(0.05 / 2, rel=0.2)
    again = st.correlate(columns, planes_of(columns))
    assert again.within_planes == result.within_planes
    assert again.between_planes == result.between_planes


def test_missing_anions_do_not_carry_the_profile_in():
    rng = np.random.default_rng(19)
    p = []
    for _ in range(40):
        columns = make_columns(rng, DECAY, VACANCIES)
        # In half of the rows two anion planes are lost, and delta is larger there.
        lost = (columns["species"] == "O") & columns["N"].isin([1, 6]) & (columns["i"] < 15)
        columns.loc[(columns["species"] == "K") & (columns["i"] < 15), "delta_A"] += 0.1
        p.append(st.correlate(columns[~lost], planes_of(columns), n_permutations=99))
    assert np.mean([c.within_planes["p"] < 0.05 for c in p]) < 0.17


def test_between_planes_interval_covers_the_truth():
    rng = np.random.default_rng(20)
    delta = 0.5 * (1 - VACANCIES) + 0.05 * np.sin(5 * N) * (N <= 6)
    truth = np.corrcoef(1 - VACANCIES[:10], np.abs(delta[:10]))[0, 1]
    hits = []
    for _ in range(150):
        table = make_planes(rng, delta, VACANCIES, err=0.008, occ_err=0.01)
        between = st.correlate(NO_COLUMNS, table, n_permutations=200).between_planes
        hits.append(between["pearson_ci"][0] <= truth <= between["pearson_ci"][1])
        low, high = between["spearman_ci"]
        assert low <= between["spearman"] <= high
    assert np.mean(hits) >= 0.90
    assert between["n_planes"] == 10


def test_correlation_of_too_few_or_constant_data_is_not_a_number():
    rng = np.random.default_rng(21)
    result = st.correlate(NO_COLUMNS, make_planes(rng).head(3))
    assert np.isnan([result.between_planes["pearson"], result.within_planes["p"]]).all()
    assert "3 planes" in result.note and "0 columns" in result.note
    columns = make_columns(rng, DECAY, VACANCIES, err=1e-30)
    result = st.correlate(columns, make_planes(rng, ZERO, FULL, occ_err=1e-30))
    assert np.isnan(result.within_planes["r"]) and np.isnan(result.between_planes["spearman"])
    assert "does not vary" in result.note
    with pytest.raises(ValueError, match="n_permutations = 0"):
        st.correlate(columns, make_planes(rng), n_permutations=0)


# ---- null test -------------------------------------------------------------------------------


def test_null_test_passes_noise_and_fails_offsets():
    rng = np.random.default_rng(22)

    def bulk_subtracted():
        table = make_planes(rng)
        bulk = table["N"] >= 10
        for name in ("delta_A", "occupancy"):
            table[name] += (name == "occupancy") - table.loc[bulk, name].mean()
        return table

    results = [st.null_test(bulk_subtracted()) for _ in range(300)]
    for key in ("bulk_delta_p", "bulk_occupancy_p"):
        p = np.array([r[key] for r in results])
        assert np.mean(p) == pytest.approx(0.5, abs=0.06)
        assert np.mean(p < 0.05) < 0.09
    assert np.mean([r["passed"] for r in results]) > 0.98
    assert results[0]["n_planes"] == 11 and type(results[0]["passed"]) is bool
    wavy = st.null_test(make_planes(rng, 0.03 * np.cos(N)))
    assert wavy["passed"] is False and wavy["bulk_delta_p"] < 1e-3 < wavy["bulk_occupancy_p"]
    assert st.null_test(make_planes(rng, ZERO, FULL - 0.05))["passed"] is False
    none = st.null_test(make_planes(rng).head(10))
    assert none["passed"] is None and np.isnan(none["bulk_delta_p"]) and "two are" in none["note"]


def test_planes_that_err_together_widen_the_interval_of_the_length():
    n = np.arange(1, 21)
    shared = pd.DataFrame(0.35 ** np.abs(n[:, None] - n[None]), index=n, columns=n)
    root = np.linalg.cholesky(shared.to_numpy())
    rng = np.random.default_rng(3)
    hits = {"aware": [], "blind": []}
    for _ in range(300):
        noise = root @ rng.normal(0, 0.01, n.size)
        planes = pd.DataFrame(
            {"N": n, "delta_A": 0.5 * np.exp(-(n - 1) / 2.0) + noise, "delta_err_A": 0.01}
        )
        for name, correlation in (("aware", shared), ("blind", None)):
            low, high = st.fit_decay(planes, spacing_A=2.3, correlation=correlation).xi_ci_planes
            hits[name].append(low <= 2.0 <= high)
    assert abs(np.mean(hits["aware"]) - 0.95) < 0.03
    assert np.mean(hits["blind"]) < np.mean(hits["aware"]) - 0.01
