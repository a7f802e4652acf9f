"""Polarisation: by hand, with charges of one's own, and without any."""

import numpy as np
import pandas as pd
import pytest

from stemdisp.crystal import project
from stemdisp.polarisation import CHARGES, charge_density, charges_of, polarisation

A3 = 3.9885**3
E_PER_A2 = 1602.176634  # uC/cm^2


def planes(value=0.5, error=0.0):
    return pd.DataFrame(
        {
            "N": [1, 2],
            "delta_cation_A": [value, 0.0],
            "delta_cation_err_A": error,
            "delta_column_A": [value, np.nan],
            "delta_column_err_A": error,
        }
    )


def estimate(charges, value=0.5, error=0.0):
    projection = project("KTaO3", (1, -1, 0), displaced="K")
    return polarisation(planes(value, error), projection, "K", charges)


def test_one_cell_by_hand():
    out = estimate(CHARGES["KTaO3"])
    assert out["P_cation_uC_cm2"].tolist() == pytest.approx([E_PER_A2 * 0.82 * 0.5 / A3, 0.0])
    # one K and one O a cell, and the O is heavier in charge: the sum points the other way
    assert out["P_column_uC_cm2"][0] == pytest.approx(E_PER_A2 * (0.82 - 1.68) * 0.5 / A3)
    assert np.isnan(out["P_column_uC_cm2"][1])


def test_errors_hold_displacement_and_charges():
    out = estimate(CHARGES["KTaO3"], error=0.1)
    from_charge = 0.15 * out["P_cation_uC_cm2"][0]
    from_shift = E_PER_A2 * 0.82 * 0.1 / A3
    assert out["P_cation_err_uC_cm2"][0] == pytest.approx(np.hypot(from_charge, from_shift))
    two = np.hypot(0.15 * 0.82, 0.15 * 1.68) * E_PER_A2 * 0.5 / A3
    moved = E_PER_A2 * 0.86 * 0.1 / A3
    assert out["P_column_err_uC_cm2"][0] == pytest.approx(np.hypot(two, moved))


def test_charges_of_ones_own_replace_the_preset():
    own = charges_of("KTaO3", {"K": 1.0, "O": -2.0})
    assert estimate(own)["P_cation_uC_cm2"][0] == pytest.approx(E_PER_A2 * 0.5 / A3)
    assert "configuration" in own.source
    assert charges_of("KTaO3", "auto") is CHARGES["KTaO3"]


def test_without_a_charge_there_is_no_number():
    assert charges_of("some oxide") is None
    assert estimate(None)["P_cation_uC_cm2"].isna().all()
    lacking = charges_of("KTaO3", {"K": 1.0})
    out = estimate(lacking)
    assert out["P_cation_uC_cm2"].notna()[0] and out["P_column_uC_cm2"].isna().all()


def test_oxygen_has_another_charge_along_its_bonds():
    # along [11-2], u is [111]: each bond is at 54.7 degrees to it, and cos^2 is a third
    seen = project("KTaO3", (1, 1, -2), displaced="K")
    along = charge_density(seen, "K", CHARGES["KTaO3"], whole=True)
    mean = (2 * -1.68 - 6.58) / 3
    assert along == pytest.approx(E_PER_A2 * (0.82 + mean) / A3, rel=1e-6)
    across = charge_density(
        project("KTaO3", (1, -1, 0), displaced="K"), "K", CHARGES["KTaO3"], whole=True
    )
    assert across == pytest.approx(E_PER_A2 * (0.82 - 1.68) / A3, rel=1e-6)
    # acoustic sum rule: a rigid shift of the whole crystal makes no polarisation
    for charges in CHARGES.values():
        cations = sum(z for s, z in charges.values.items() if s != "O")
        assert cations + 2 * charges.values["O"] + charges.along["O"] == pytest.approx(0, abs=0.05)
