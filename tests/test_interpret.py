"""Displacement of a column -> what it means for the atoms, and when nothing may be said."""

import numpy as np
import pandas as pd
import pytest

from stemdisp.interpret import interpret_displacement, read_planes


def interpret(thickness_nm="unknown", *, delta=0.36, err=0.02, mixed_with="O"):
    return interpret_displacement(
        delta, err, species="K", mixed_with=mixed_with, thickness_nm=thickness_nm
    )


@pytest.mark.parametrize("thickness", [5, 7.5, 10, 12, 15, 20])
def test_the_cation_moves_by_more_than_its_column(thickness):
    out = interpret(float(thickness))
    assert out["measured"] == "K/O column"
    assert out["f"] == pytest.approx(0.36 / out["delta1_cation_only_A"])
    assert 0.6 < out["f"] < 0.85
    assert out["f_err"] == 0.04
    # the errors of f and of the measurement, through a curve that is steeper than straight
    most = out["delta1_cation_only_A"] * np.hypot(0.02 / 0.36, out["f_err"] / out["f"])
    assert 0.5 * most < out["delta1_cation_only_err_A"] <= most
    assert "interpretations" in out["note"]


def test_the_whole_column_moves_by_a_little_more_than_measured():
    out = interpret()
    assert 0.36 < out["delta1_whole_column_A"] < 0.36 / 0.96
    assert 0.02 < out["delta1_whole_column_err_A"] < 0.03
    # known thickness changes nothing in this reading
    assert interpret(10.0)["delta1_whole_column_A"] == out["delta1_whole_column_A"]


def test_other_crystals_have_no_calibration():
    out = interpret_displacement(
        0.36, 0.02, species="Pb", mixed_with="O", thickness_nm=10.0, calibrated=False
    )
    assert out["f"] is None and out["delta1_cation_only_A"] is None
    assert "KTaO3" in out["note"]


def test_planes_are_read_as_plane_1_is():
    table = pd.DataFrame({"N": [1, 2], "delta_A": [0.36, 0.1], "delta_err_A": [0.02, 0.01]})
    read = read_planes(table, mixed=True, thickness_nm=10.0)
    one = interpret(10.0)
    assert read["delta_cation_A"][0] == one["delta1_cation_only_A"]
    assert read["delta_column_err_A"][0] == one["delta1_whole_column_err_A"]
    pure = read_planes(table, mixed=False, thickness_nm="unknown")
    assert pure["delta_cation_A"].tolist() == pure["delta_column_A"].tolist() == [0.36, 0.1]
    assert read_planes(table, mixed=True, thickness_nm="unknown")["delta_cation_A"].isna().all()


def test_without_thickness_there_is_a_note_and_no_number():
    out = interpret("unknown")
    assert out["f"] is None and out["delta1_cation_only_A"] is None
    assert "thickness_nm" in out["note"]


@pytest.mark.parametrize("thickness", [4.0, 20.5, 30.0])
def test_outside_the_calibration_nothing_is_said(thickness):
    out = interpret(thickness)
    assert out["f"] is None and out["delta1_cation_only_A"] is None
    assert "5 to 20 nm" in out["note"]


def test_a_pure_column_needs_no_interpretation():
    out = interpret(10.0, mixed_with="")
    assert out["measured"] == "K column"
    assert out["f"] is None and out["delta1_whole_column_A"] is None
    assert "one species" in out["note"]


def test_nothing_measured_nothing_interpreted():
    out = interpret(10.0, delta=float("nan"))
    assert out["delta1_cation_only_A"] is None and out["delta1_whole_column_A"] is None
    assert "no displacement" in out["note"]


def test_sign_is_kept():
    out = interpret(10.0, delta=-0.36)
    assert out["delta1_cation_only_A"] == -interpret(10.0)["delta1_cation_only_A"]
    assert out["delta1_cation_only_err_A"] > 0
