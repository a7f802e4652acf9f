"""Single vacant columns: found where they are, not where they are not."""

import numpy as np
import pandas as pd
import pytest

from stemdisp.occupancy import AnionReference
from stemdisp.response import multislice_curve
from stemdisp.vacancies import count_vacancies, flag_vacancies

PER_PLANE, DEEPEST = 20, 18


def columns(rng, occupancy=(), error=0.05, extra=0.0):
    n = np.repeat(np.arange(1, DEEPEST + 1), PER_PLANE)
    true = np.append(occupancy, np.ones(DEEPEST))[n - 1]
    value = true + rng.normal(0, np.hypot(error, extra), n.size)
    table = pd.DataFrame(
        {
            "species": "O",
            "N": pd.array(n, dtype="Int64"),
            "intensity_ratio": value,
            "intensity_ratio_err": error,
            "quality": 0,
            "true": true,
        }
    )
    table.attrs["anion_reference"] = AnionReference(1.0, 0, np.zeros(n.size), n >= 10)
    return table


def test_false_discoveries_stay_below_the_rate():
    rng = np.random.default_rng(0)
    shares, power = [], []
    for _ in range(60):
        table = flag_vacancies(columns(rng, (0.6, 0.8, 0.9)))
        called = (table["vacancy_q"] <= 0.05).to_numpy()
        wrong = called & (table["true"] == 1.0).to_numpy()
        shares.append(wrong.sum() / max(called.sum(), 1))
        power.append(called[(table["true"] == 0.8).to_numpy()].mean())
    assert np.mean(shares) < 0.05 + 2 * np.std(shares) / np.sqrt(60)
    assert np.mean(power) > 0.9  # 4 standard errors


def test_nothing_is_found_where_nothing_is_missing():
    rng = np.random.default_rng(1)
    any_found = [count_vacancies(flag_vacancies(columns(rng)))["n_vacant"] > 0 for _ in range(200)]
    assert np.mean(any_found) < 0.05 + 2 * np.sqrt(0.05 * 0.95 / 200)


def test_scatter_of_full_columns_is_part_of_the_error():
    rng = np.random.default_rng(2)
    found = [
        count_vacancies(flag_vacancies(columns(rng, extra=0.1)))["n_vacant"] for _ in range(40)
    ]
    assert np.mean(np.array(found) > 0) < 0.2
    # the control: errors that lack the scatter find vacancies everywhere
    blind = columns(rng, extra=0.1)
    blind.loc[blind["N"] >= 10, "intensity_ratio"] = 1.0
    assert count_vacancies(flag_vacancies(blind))["n_vacant"] > 3


def test_bulk_and_unusable_columns_are_not_tested():
    table = flag_vacancies(columns(np.random.default_rng(3), (0.5,)))
    assert table.loc[table["N"] >= 10, "vacancy_q"].isna().all()
    counted = count_vacancies(table)
    assert counted["n_tested"] == 9 * PER_PLANE and counted["n_vacant"] >= PER_PLANE
    broken = columns(np.random.default_rng(3), (0.5,)).assign(quality=1)
    assert flag_vacancies(broken)["vacancy_q"].isna().all()
    assert count_vacancies(flag_vacancies(broken))["n_tested"] == 0


def test_a_calibration_makes_no_vacancies():
    curve = multislice_curve("KTaO3", (1, -1, 0), 20.0)
    rng = np.random.default_rng(5)
    found = []
    for _ in range(60):
        table = columns(rng)
        value, error = curve(table["intensity_ratio"].to_numpy(), np.full(len(table), 0.05))
        table = table.assign(occupancy=value, occupancy_err=error)
        found.append(count_vacancies(flag_vacancies(table))["n_vacant"] > 0)
    assert np.mean(found) < 0.05 + 2 * np.sqrt(0.05 * 0.95 / 60)


def test_without_an_interface_all_columns_are_tested_against_their_mean():
    table = columns(np.random.default_rng(6)).assign(N=pd.NA)
    table.attrs["anion_reference"] = AnionReference(
        1.0, len(table), np.zeros(len(table)), np.ones(len(table), dtype=bool)
    )
    table.loc[:4, "intensity_ratio"] = 0.5
    assert count_vacancies(flag_vacancies(table)) == {
        "n_tested": len(table),
        "n_vacant": 5,
        "false_discovery_rate": 0.05,
    }


def test_missing_columns_are_named():
    with pytest.raises(ValueError, match="intensity_ratio_err"):
        flag_vacancies(columns(np.random.default_rng(4)).drop(columns="intensity_ratio_err"))
