"""What could have been seen, and at which dose."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from stemdisp.sensitivity import detectable, dose_needed, sensitivity


@pytest.mark.parametrize("two_sided", [True, False])
def test_the_smallest_effect_is_found_in_95_of_100_cases(two_sided):
    level, error = 0.001, 0.02
    effect = detectable(error, level=level, two_sided=two_sided)
    z = np.random.default_rng(0).normal(effect / error, 1.0, 20000)
    p = 2 * stats.norm.sf(np.abs(z)) if two_sided else stats.norm.sf(z)
    assert np.mean(p <= level) == pytest.approx(0.95, abs=0.006)


def test_at_the_dose_needed_the_wanted_effect_is_the_smallest():
    options = {"level": 0.001, "two_sided": True}
    dose = dose_needed(0.05, 0.03, 0.02, 400.0, **options)
    noise = 0.02 * np.sqrt(400.0 / dose)
    error = np.sqrt(0.03**2 - 0.02**2 + noise**2)
    # here the part that stays is too large already
    assert dose == np.inf
    dose = dose_needed(0.2, 0.03, 0.02, 400.0, **options)
    error = np.sqrt(0.03**2 - 0.02**2 + (0.02 * np.sqrt(400.0 / dose)) ** 2)
    assert detectable(error, **options) == pytest.approx(0.2)


def test_tables_give_typical_planes_and_unknown_stays_unknown():
    planes = pd.DataFrame(
        {
            "N": np.arange(1, 16),
            "delta_err_A": 0.004,
            "delta_noise_A": 0.004,
            "intensity_ratio_err": np.nan,
            "intensity_ratio_noise": np.nan,
        }
    )
    out = sensitivity(planes, confidence=0.95, n_candidates=9, dose=None)
    level = 0.005 / 9
    assert out["delta_detectable_A"] == pytest.approx(
        detectable(0.004, level=level, two_sided=True)
    )
    # without scatter the dose goes with the square
    assert out["delta_dose_factor"] == pytest.approx((out["delta_detectable_A"] / 0.05) ** 2)
    assert out["delta_dose_e_per_A2"] is None
    assert out["occupancy_detectable"] is None and out["occupancy_dose_factor"] is None
    known = sensitivity(planes, confidence=0.95, n_candidates=9, dose=1000.0)
    assert known["delta_dose_e_per_A2"] == pytest.approx(1000 * known["delta_dose_factor"])


def test_a_calibration_says_how_much_intensity_an_atom_takes():
    from stemdisp.response import multislice_curve

    planes = pd.DataFrame(
        {
            "N": np.arange(1, 16),
            "delta_err_A": 0.004,
            "delta_noise_A": 0.004,
            "intensity_ratio_err": 0.01,
            "intensity_ratio_noise": 0.01,
        }
    )
    options = {"confidence": 0.95, "n_candidates": 9, "dose": None}
    plain = sensitivity(planes, **options)
    thick = sensitivity(planes, **options, curve=multislice_curve("KTaO3", (1, -1, 0), 15.0))
    assert plain["occupancy_detectable"] == pytest.approx(
        detectable(0.01, level=0.005 / 9, two_sided=False)
    )
    # at 15 nm a tenth of the oxygen takes a fortieth of the intensity: sixteen times the dose
    assert thick["occupancy_detectable"] > 2.5 * plain["occupancy_detectable"]
    ratio = thick["occupancy_dose_factor"] / plain["occupancy_dose_factor"]
    assert ratio == pytest.approx(16.0, rel=1e-6)
