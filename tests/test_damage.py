"""Damage by the beam: known changes are seen with their size, nothing is seen where nothing is."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from stemdisp.damage import fit_line, judge_damage, line_of

DOSE = np.full(12, 400.0)
MIDDLE = np.cumsum(DOSE) - DOSE / 2
ERROR = {"delta1": 0.015, "occupancy1": 0.02}


def series_of(delta, occupancy, *, middle=MIDDLE, depth=6.0):
    """Points of a series; by default the errors of a frame of the sample data."""
    n = len(delta)
    return pd.DataFrame(
        {
            "kind": "point",
            "point": np.arange(n),
            "first_frame": np.arange(n),
            "last_frame": np.arange(n),
            "n_frames": 1,
            "frame_middle": np.arange(n) + 0.5,
            "dose_middle_e_per_A2": middle,
            "delta1_A": delta,
            "delta1_err_A": ERROR["delta1"],
            "occupancy1": occupancy,
            "occupancy1_err": ERROR["occupancy1"],
            "N_disp": depth,
            "N_disp_low": depth - 1.0,
            "N_disp_high": depth + 1.0,
            "N_vac": depth,
            "N_vac_low": depth,
            "N_vac_high": depth,
        }
    )


def drawn(rng, *, per_A=(0.0, 0.0), scatter=1.0):
    """Draw points about straight lines that begin at 0.54 A and 0.5."""
    noise = rng.normal(size=(2, len(DOSE))) * scatter
    return series_of(
        0.54 + per_A[0] * MIDDLE + ERROR["delta1"] * noise[0],
        0.50 + per_A[1] * MIDDLE + ERROR["occupancy1"] * noise[1],
    )


def test_the_line_is_that_of_weighted_least_squares():
    rng = np.random.default_rng(3)
    error = rng.uniform(0.5, 2.0, 12)
    value = 3.0 + 0.002 * MIDDLE + error * rng.normal(size=12)
    line = fit_line(MIDDLE, value, errors=error)
    design = np.column_stack([np.ones(12), MIDDLE]) / error[:, None]
    solution, chi2 = np.linalg.lstsq(design, value / error, rcond=None)[:2]
    spread = np.sqrt(np.diag(np.linalg.inv(design.T @ design))) * max(1.0, np.sqrt(chi2[0] / 10))
    assert (line.zero, line.slope) == pytest.approx(tuple(solution))
    assert (line.zero_err, line.slope_err) == pytest.approx(tuple(spread))
    at, wide = line.at(np.array([0.0]))
    assert (at[0], wide[0]) == pytest.approx((line.zero, line.zero_err))
    t = stats.t(10).ppf(0.975)
    assert line.zero_ci[1] - line.zero == pytest.approx(t * line.zero_err)
    assert line.p == pytest.approx(2 * stats.t(10).sf(abs(line.slope) / line.slope_err))


def test_a_known_loss_is_seen_with_its_size_and_its_start():
    rng = np.random.default_rng(0)
    found = judge_damage(drawn(rng, per_A=(-4e-5, 0.0)), doses=DOSE)
    assert found["verdict"] == "seen" and found["n_points"] == 12
    assert found["dose_total_e_per_A2"] == 4800.0
    line = found["delta1"]
    assert abs(line["slope"] + 0.04) < 3 * line["slope_err"]
    assert abs(line["zero_dose"] - 0.54) < 3 * line["zero_dose_err"]
    assert line["change"] == pytest.approx(4.8 * line["slope"])
    assert "δ(1) falls by 0.20" in found["text"] and "occupancy" not in found["text"]
    both = judge_damage(drawn(rng, per_A=(0.0, 8e-5)), doses=DOSE)
    assert both["verdict"] == "seen"
    assert "occupancy of planes 1 to 3 rises by 0." in both["text"]


def test_shuffled_doses_lose_the_loss():
    # Negative control: the same values in another order are no damage.
    rng = np.random.default_rng(1)
    lost = 0
    for _ in range(40):
        series = drawn(rng, per_A=(-4e-5, 0.0))
        assert judge_damage(series, doses=DOSE)["verdict"] == "seen"
        order = rng.permutation(12)
        series["delta1_A"] = series["delta1_A"].to_numpy()[order]
        lost += judge_damage(series, doses=DOSE)["verdict"] == "not seen"
    assert lost >= 34


def test_a_constant_specimen_shows_damage_no_more_often_than_stated():
    rng = np.random.default_rng(2)
    n = 400
    found = [judge_damage(drawn(rng), doses=DOSE) for _ in range(n)]
    seen = sum(f["verdict"] == "seen" for f in found)
    assert seen <= stats.binom(n, 0.05).ppf(0.999)
    # Points that scatter 1.5 times as much as their errors say are noticed and not believed.
    worse = [judge_damage(drawn(rng, scatter=1.5), doses=DOSE) for _ in range(n)]
    assert sum(f["verdict"] == "seen" for f in worse) <= stats.binom(n, 0.05).ppf(0.999)


@pytest.mark.parametrize("scatter", [1.0, 1.5])
def test_intervals_hold_the_value_at_zero_dose_as_often_as_stated(scatter):
    rng = np.random.default_rng(4)
    n = 400
    lines = [
        line_of(drawn(rng, per_A=(-2e-5, 0.0), scatter=scatter), "delta1", confidence=0.9)
        for _ in range(n)
    ]
    held = sum(line.zero_ci[0] < 0.54 < line.zero_ci[1] for line in lines)
    assert held >= stats.binom(n, 0.9).ppf(0.001)
    # Negative control: intervals of half the width do not.
    half = sum(abs(line.zero - 0.54) < line.t * line.zero_err / 2 for line in lines)
    assert half < stats.binom(n, 0.9).ppf(0.001)


def test_two_tests_are_paid_for():
    # p = 0.03 each: Holm rejects neither at 5 %; at 10 % both.
    t = stats.t(10).isf(0.015)
    x = (MIDDLE - MIDDLE.mean()) / np.sqrt(np.sum((MIDDLE - MIDDLE.mean()) ** 2))
    series = series_of(0.5 + t * ERROR["delta1"] * x, 0.5 + t * ERROR["occupancy1"] * x)
    assert line_of(series, "delta1").p == pytest.approx(0.03)
    assert judge_damage(series, doses=DOSE)["verdict"] == "not seen"
    assert judge_damage(series, doses=DOSE, confidence=0.9)["verdict"] == "seen"
    alone = series.assign(occupancy1=np.nan)
    assert judge_damage(alone, doses=DOSE)["verdict"] == "seen"


def test_what_is_not_seen_has_a_limit():
    found = judge_damage(series_of(np.full(12, 0.54), np.full(12, 0.5)), doses=DOSE)
    limit = stats.t(10).ppf(0.975) * ERROR["delta1"] * 4800
    limit /= np.sqrt(np.sum((MIDDLE - MIDDLE.mean()) ** 2))
    assert found["delta1"]["change_limit"] == pytest.approx(limit)
    assert f"δ(1) is below {limit:.2g} Å" in found["text"] and "95 %" in found["text"]


def test_three_points_cannot_tell():
    found = judge_damage(drawn(np.random.default_rng(0)).iloc[:3], doses=DOSE[:3])
    assert found["verdict"] == "cannot tell" and found["delta1"] is None
    assert "3 points" in found["text"] and "at least 4" in found["text"]


def test_without_dose_frames_are_counted_and_it_is_said():
    series = drawn(np.random.default_rng(0), per_A=(-4e-5, 0.0))
    found = judge_damage(series.assign(dose_middle_e_per_A2=np.nan))
    assert found["verdict"] == "seen" and found["slope_per"] == "frame"
    assert found["dose_total_e_per_A2"] is None and "dose is not stated" in found["text"]
    dosed = judge_damage(series, doses=DOSE)
    assert found["delta1"]["slope"] == pytest.approx(dosed["delta1"]["slope"] * 0.4)
    assert found["delta1"]["zero_dose"] == pytest.approx(dosed["delta1"]["zero_dose"])


def test_cumulative_means_are_no_points():
    series = drawn(np.random.default_rng(5))
    wrong = series.assign(kind="cumulative", point=pd.NA, delta1_A=0.0)
    both = pd.concat([series, wrong], ignore_index=True)
    assert line_of(both, "delta1") == line_of(series, "delta1")


def test_depths_are_reported_and_not_tested():
    depth = 6.0 - np.arange(12.0) / 3
    series = series_of(np.full(12, 0.54), np.full(12, 0.5), depth=depth)
    found = judge_damage(series, doses=DOSE)
    assert found["depth_vacancy"]["p"] < 1e-3 and found["verdict"] == "not seen"
    # an interval of no width is still a whole number: s.d. 1 / sqrt(12)
    error = 1000 * 0.29 / np.sqrt(np.sum((MIDDLE - MIDDLE.mean()) ** 2))
    assert found["depth_vacancy"]["slope_err"] == pytest.approx(error)
    assert found["depth_displacement"]["slope_err"] > found["depth_vacancy"]["slope_err"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: line_of(s, "delta"), "is not one of: delta1"),
        (lambda s: line_of(s, "delta1", confidence=1.0), "not between 0 and 1"),
        (lambda s: line_of(s.drop(columns="kind"), "delta1"), "dose series lacks kind"),
    ],
)
def test_wrong_calls_name_the_remedy(call, message):
    with pytest.raises(ValueError, match=message):
        call(drawn(np.random.default_rng(0)))
