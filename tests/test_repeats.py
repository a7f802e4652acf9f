"""Halves of a stack: what they say of the errors."""

import numpy as np
import pandas as pd
import pytest

from stemdisp.repeats import VALUES, apply_factors, error_factors, spread_ratio
from stemdisp.tables import Quality

N = 900


def halves(rng, spread, *, claimed=0.01, slow=0.0, outliers=0):
    where = rng.uniform(0, 80, (N, 2))
    parts = []
    for sign in (1, -1):
        value = rng.normal(0, spread, N) + sign * slow * (where[:, 0] / 80) ** 2
        value[:outliers] += sign * 1.0
        parts.append(np.column_stack([value, np.full(N, claimed)]))
    return (*parts, where)


@pytest.mark.parametrize("spread", [0.01, 0.017, 0.006])
def test_the_ratio_is_that_of_true_to_claimed_spread(spread):
    even, odd, where = halves(np.random.default_rng(1), spread)
    # the spread of 900 values is known to 2.4 %
    assert spread_ratio(even, odd, where=where) == pytest.approx(spread / 0.01, rel=0.08)


def test_slow_differences_and_a_few_outliers_do_not_count():
    even, odd, where = halves(np.random.default_rng(2), 0.01, slow=0.2, outliers=5)
    assert spread_ratio(even, odd, where=where) == pytest.approx(1.0, rel=0.08)


def test_few_values_say_nothing():
    even, odd, where = halves(np.random.default_rng(3), 0.01)
    assert np.isnan(spread_ratio(even[:30], odd[:30], where=where[:30]))


def table(rng, factors, faint=0):
    frame = pd.DataFrame({"species": np.where(np.arange(N) % 2, "K", "O"), "quality": 0})
    for (value, error), factor in zip(VALUES, factors, strict=True):
        frame[error] = 0.01
        true = {"x_A": np.arange(N) % 30 * 2.0, "y_A": np.arange(N) // 30 * 2.0}.get(value, 1.0)
        frame[value] = true + rng.normal(0, 0.01 * factor, N)
    if faint:
        frame.loc[: faint - 1, "quality"] = int(Quality.NOT_DETECTED)
        frame.loc[: faint - 1, ["x_A", "y_A"]] = 0.0
    return frame


def test_factors_by_species_and_quantity_reach_the_errors():
    rng = np.random.default_rng(4)
    parts = [table(rng, (2.0, 1.0, 1.5), faint=100) for _ in range(2)]
    factors = error_factors(parts)
    assert set(factors) == {"K", "O"}
    for species in factors:
        found = [factors[species][name] for name in ("x_err_A", "y_err_A", "intensity_err")]
        assert found == pytest.approx([2.0, 1.0, 1.5], rel=0.12)
    out = apply_factors(parts[0], factors)
    assert out["x_err_A"].iloc[1] == pytest.approx(0.01 * factors["K"]["x_err_A"])
    assert parts[0]["x_err_A"].iloc[1] == 0.01


def test_a_species_with_few_columns_keeps_its_errors():
    rng = np.random.default_rng(5)
    parts = [table(rng, (2.0, 2.0, 2.0)).iloc[:60] for _ in range(2)]
    assert error_factors(parts) == {}
    pd.testing.assert_frame_equal(apply_factors(parts[0], {}), parts[0])
