"""Calibrations: columns against their atoms."""

import numpy as np
import pytest

from stemdisp.errors import ConfigError
from stemdisp.response import (
    CATION_CURVE,
    CATION_F,
    OXYGEN,
    OXYGEN_RATIO,
    cation_displacement,
    choose_curve,
    column_displacement,
    multislice_curve,
    read_curve,
)

KTO = ("KTaO3", (1, -1, 0))


@pytest.mark.parametrize("thickness", sorted(CATION_F))
def test_the_cation_solves_its_equation(thickness):
    moved = np.array([-0.5, -0.1, 0.0, 0.05, 0.54])
    seen = (CATION_F[thickness] + CATION_CURVE[thickness] * moved**2) * moved
    value, error = cation_displacement(seen, np.full(5, 0.01), thickness)
    assert value == pytest.approx(moved, abs=1e-12)
    # the error follows by the slope of the inverse, and f has its own
    step = cation_displacement(seen + 1e-6, np.zeros(5), thickness)[0] - value
    assert np.all(error >= 0.01 * step / 1e-6 * 0.999)
    assert error[2] == pytest.approx(0.01 / CATION_F[thickness])


def test_without_a_thickness_the_cation_is_unknown_and_the_column_is_not():
    for thickness in ("unknown", 4.0, 25.0):
        assert np.isnan(cation_displacement(np.ones(2), np.ones(2), thickness)).all()
    value, error = column_displacement(np.array([0.5]), np.array([0.01]))
    assert 0.5 < value[0] < 0.52 and error[0] > 0.01


@pytest.mark.parametrize("thickness", sorted(OXYGEN_RATIO))
def test_the_curve_goes_through_its_points(thickness):
    curve = multislice_curve(*KTO, thickness)
    value, _ = curve(np.array(OXYGEN_RATIO[thickness]), np.zeros(len(OXYGEN)))
    assert value == pytest.approx(OXYGEN)
    assert curve(np.array([1.0]), np.array([0.0]))[0] == pytest.approx(1.0)


def test_noise_of_full_columns_is_not_cut_and_grows_with_thickness():
    rng = np.random.default_rng(0)
    ratio = rng.normal(1.0, 0.01, 20000)
    for thickness in (7.0, 12.0, 15.0):
        curve = multislice_curve(*KTO, thickness)
        value, error = curve(ratio, np.full(ratio.size, 0.01))
        assert np.mean(value) == pytest.approx(1.0, abs=0.006)
        assert np.std(value) == pytest.approx(np.mean(error), rel=0.15)
    thin, thick = (multislice_curve(*KTO, t)(np.ones(1), np.ones(1))[1] for t in (5.0, 20.0))
    assert thick > 5 * thin


def test_where_there_is_no_calibration():
    assert multislice_curve("SrTiO3", (1, -1, 0), 10.0) is None
    assert multislice_curve("KTaO3", (1, 0, 0), 10.0) is None
    assert multislice_curve(*KTO, "unknown") is None
    assert multislice_curve(*KTO, 30.0) is None
    assert choose_curve("none", *KTO, 10.0) is None
    assert choose_curve("auto", *KTO, 10.0).source == "multislice, 10 nm"


def test_a_curve_from_a_file(tmp_path):
    path = tmp_path / "curve.csv"
    path.write_text("ratio,occupancy,occupancy_err\n0,0,0.1\n0.6,0.4,0.1\n1,1,0.1\n")
    curve = read_curve(path)
    value, error = curve(np.array([0.3, 0.8, 1.2]), np.array([0.01, 0.01, 0.01]))
    assert value == pytest.approx([0.2, 0.7, 1.3])
    assert error == pytest.approx([0.01 / 1.5, 0.015, 0.015])
    assert curve.own_error(np.array([0.0, 0.6, 1.0])) == pytest.approx([0.1, 0.06, 0.0])


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a,b\n1,2\n", "no column"),
        ("ratio,occupancy\n0,0\n1,0\n", "increase"),
        ("ratio,occupancy\n0,x\n1,1\n", "cannot be read"),
        ("ratio,occupancy\n1,1\n", "two or more"),
        ("ratio,occupancy,occupancy_err\n0,0,\n1,1,\n", "occupancy_err"),
        ("ratio,occupancy,occupancy_err\n0,0,inf\n1,1,0\n", "occupancy_err"),
        ("ratio,occupancy\n0,0\n0.8,0.7\n1,0.8\n", "full columns"),
    ],
)
def test_a_bad_file_is_refused_in_words(tmp_path, text, word):
    path = tmp_path / "curve.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=word):
        read_curve(path)
    with pytest.raises(ConfigError, match="no such file"):
        read_curve(tmp_path / "absent.csv")
