"""Displacement of a column -> what it means for the atoms, and when nothing may be said."""

import numpy as np
import pytest

from stemdisp.interpret import interpret_displacement


def interpret(thickness_nm="unknown", *, delta=0.36, err=0.02, mixed_with="O"):
    return interpret_displacement(
        delta, err, species="K", mixed_with=mixed_with, thickness_nm=thickness_nm
    )


@pytest.mark.parametrize(
    ("thickness", "f"), [(5, 0.73), (10, 0.68), (15, 0.61), (20, 0.56), (7.5, 0.705), (12, 0.652)]
)
def test_fraction_follows_the_thickness(thickness, f):
    out = interpret(float(thickness))
    assert out["measured"] == "K/O column"
    assert out["f"] == pytest.approx(f, abs=1e-9)
    assert out["f_err"] == 0.04  # spread over defocus
    assert out["delta1_cation_only_A"] == pytest.approx(0.36 / f)
    expected = 0.36 / f * np.hypot(0.02 / 0.36, out["f_err"] / f)
    assert out["delta1_cation_only_err_A"] == pytest.approx(expected)
    assert "interpretations" in out["note"]


def test_the_whole_column_moves_by_a_little_more_than_measured():
    out = interpret()
    assert 0.36 / 0.93 < out["delta1_whole_column_A"] < 0.36 / 0.90
    assert 0.02 < out["delta1_whole_column_err_A"] < 0.03
    # known thickness changes nothing in this reading
    assert interpret(10.0)["delta1_whole_column_A"] == out["delta1_whole_column_A"]


def test_multislice_agrees_with_the_fraction():
    # 10 nm multislice: K alone moved by 0.54 A shows as 0.3678 A (shared/data/multislice)
    out = interpret(10.2, delta=0.3678, err=0.01)
    off = out["delta1_cation_only_A"] - 0.54
    assert abs(off) < out["delta1_cation_only_err_A"]


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
    assert out["delta1_cation_only_A"] == pytest.approx(-0.36 / 0.68)
    assert out["delta1_cation_only_err_A"] > 0
