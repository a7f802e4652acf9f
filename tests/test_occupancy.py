"""Table -> occupancy: exact under a thickness trend, honest errors; labelled line profile."""

import numpy as np
import pandas as pd
import pytest
from _exact_columns import (
    PIXEL_A,
    V_A,
    columns_of,
    is_,
    make_lattice,
    plane,
    with_noise,
)

from stemdisp.interface import Interface
from stemdisp.occupancy import line_profile, measure_occupancy
from stemdisp.simulate import render
from stemdisp.tables import Quality

LATTICE = make_lattice()
SHARES = {1: 0.45, 2: 0.5, 3: 0.6, 4: 0.7, 5: 0.8, 6: 0.9}


def truth_of(table):
    share = np.array([SHARES.get(n, 1.0) for n in plane(table)])
    return np.where(is_(table, "O"), share, 1.0)


def thick(table, slope, *, bend=0.0):
    """Intensities that change across the field, as in a wedge."""
    y = table["y_A"] / np.ptp(table["y_A"])
    x = table["x_A"] / np.ptp(table["x_A"])
    trend = 1 - slope * y + 0.5 * slope * x + bend * y**2
    intensity = table["intensity"] * truth_of(table) * trend
    return table.assign(intensity=intensity, intensity_err=0.02 * table["intensity"])


def in_planes(table, deepest):
    return table[plane(table) <= deepest].reset_index(drop=True)


@pytest.mark.parametrize(("slope", "bend"), [(0.0, 0.0), (0.1, 0.0), (-0.2, 0.0), (0.1, 0.05)])
def test_occupancy_is_exact_under_a_thickness_trend(slope, bend):
    table = columns_of(LATTICE, rows=16, planes=20)
    out = measure_occupancy(thick(table, slope, bend=bend))
    anion = is_(out, "O")
    np.testing.assert_allclose(out["occupancy"][anion], truth_of(table)[anion], atol=1e-5)
    assert out["occupancy"][~anion].isna().all()
    assert out["occupancy_err"][~anion].isna().all()
    assert out.attrs["anion_reference"].n_columns == np.count_nonzero(anion & (plane(out) >= 10))


def test_the_trend_matters():
    # Negative control: relative to the plain bulk mean, full planes would seem half a trend off.
    table = thick(columns_of(LATTICE, rows=16, planes=20), 0.2)
    anion = is_(table, "O")
    bulk = table["intensity"][anion & (plane(table) >= 10)].mean()
    full = anion & (plane(table) > 6) & (plane(table) < 10)
    assert np.abs(table["intensity"][full] / bulk - 1).max() > 0.05


def test_columns_that_follow_the_trend_may_be_few():
    # Without enough of them and of bulk, no trend is fitted, and none is invented.
    table = in_planes(columns_of(LATTICE, rows=3, planes=12), 12)
    out = measure_occupancy(thick(table, 0.0))
    anion = is_(out, "O")
    np.testing.assert_allclose(out["occupancy"][anion], truth_of(table)[anion], atol=1e-9)


@pytest.mark.parametrize("slope", [0.0, 0.1])
def test_errors_are_honest(slope):
    table = thick(columns_of(LATTICE, rows=16, planes=18), slope)
    rng = np.random.default_rng(0)
    pull = []
    for _ in range(12):
        out = measure_occupancy(with_noise(table, rng))
        pull.append(((out["occupancy"] - truth_of(out)) / out["occupancy_err"]).dropna())
    pull = np.concatenate(pull)
    assert len(pull) > 3000
    assert pull.std() == pytest.approx(1, abs=0.06)
    assert abs(pull.mean()) < 0.15


def test_errors_that_are_twice_as_large_are_seen_as_such():
    # Negative control of the pull.
    table = thick(columns_of(LATTICE, rows=16, planes=18), 0.0)
    noisy = with_noise(table, np.random.default_rng(0), intensity=2 * table["intensity_err"])
    out = measure_occupancy(noisy)
    pull = ((out["occupancy"] - truth_of(out)) / out["occupancy_err"]).dropna()
    assert pull.std() > 1.6


def test_error_of_the_reference_is_part_of_every_error():
    # Few and noisy bulk columns, and all others precise: the reference is what limits.
    table = thick(columns_of(LATTICE, rows=3, planes=12), 0.0)
    precise = plane(table) < 10
    table["intensity_err"] = table["intensity_err"].mask(precise, 1e-5)
    rng = np.random.default_rng(0)
    pull = []
    for _ in range(120):
        out = measure_occupancy(with_noise(table, rng))
        use = is_(out, "O") & precise
        pull.append(((out["occupancy"] - truth_of(out)) / out["occupancy_err"])[use].mean())
    assert np.std(pull) == pytest.approx(1, abs=0.25)


def test_absent_oxygen_keeps_its_value_and_unusable_columns_have_none():
    table = thick(columns_of(LATTICE, rows=16, planes=18), 0.0)
    anion = np.flatnonzero(is_(table, "O") & (plane(table) == 4))
    table.loc[anion[0], ["intensity", "quality"]] = (0.001, int(Quality.NOT_DETECTED))
    table.loc[anion[1], "quality"] = int(Quality.EDGE)
    out = measure_occupancy(table)
    assert out["occupancy"][anion[0]] == pytest.approx(0.001 / 0.18, abs=1e-3)
    assert np.isnan(out["occupancy"][anion[1]])


def test_a_shallow_crystal_has_no_reference():
    table = thick(columns_of(LATTICE, rows=16, planes=5), 0.0)
    out = measure_occupancy(table)
    assert out["occupancy"].isna().all() and out["occupancy_err"].isna().all()
    assert np.isnan(out.attrs["anion_reference"].intensity)
    # eight planes: the three deepest serve
    deeper = thick(columns_of(LATTICE, rows=16, planes=9), 0.0)
    out = measure_occupancy(deeper)
    anion = is_(out, "O")
    np.testing.assert_allclose(out["occupancy"][anion], truth_of(deeper)[anion], atol=1e-9)


def test_a_crystal_without_interface_refers_to_itself():
    table = columns_of(LATTICE, rows=16, planes=18)
    table = table.assign(N=pd.array([pd.NA] * len(table), dtype="Int64"))
    gone = np.flatnonzero(is_(table, "O"))[40]
    table.loc[gone, "intensity"] *= 0.5
    out = measure_occupancy(table)
    assert out["occupancy"].mean() == pytest.approx(1, abs=0.01)
    assert out["occupancy"][gone] == pytest.approx(0.5, abs=0.02)


def test_missing_columns_are_named():
    with pytest.raises(ValueError, match="intensity_err"):
        measure_occupancy(columns_of(LATTICE).drop(columns="intensity_err"))


# ---- line profile ---------------------------------------------------------------------------


@pytest.fixture(
    scope="module", params=[(PIXEL_A, PIXEL_A), (PIXEL_A, 0.16)], ids=["square", "oblong"]
)
def profile(request):
    pixel = request.param
    lattice = make_lattice(-54.7, pixel=pixel)
    table = columns_of(lattice, rows=24, planes=16, pixel=pixel)
    table = table[table["x_px"].between(20, 380) & table["y_px"].between(40, 300)]
    table = table.assign(y_px=table["y_px"] + 0.0).reset_index(drop=True)
    share = truth_of(table)
    anion = is_(table, "O")
    blobs = np.column_stack([table["x_px"], table["y_px"], share * anion, np.full(len(table), 2.6)])
    image = render(blobs, np.zeros((400, 2)), 400)
    interface = Interface(
        side="up",
        position_px=np.array([200.0, 25.0]),
        normal=np.array([0.0, -1.0]),
        spacing_px=15.35,
        steps=(1.0, 1.0),
        along=(1.0, -1.0),
        top_layer=0.5,
    )
    out = line_profile(image, lattice, columns=table, interface=interface, pixel_size=pixel)
    return out, table, lattice, pixel


def test_profile_is_labelled_at_its_peaks(profile):
    out, _, _, _ = profile
    labels = out[out["N"].notna()]
    assert len(labels) >= 6
    start = int(labels["N"].iloc[0])
    assert list(labels["N"]) == list(range(start, start + len(labels)))
    spacing = np.diff(labels["s_A"])
    np.testing.assert_allclose(spacing, V_A, atol=1.5 * np.diff(out["s_A"])[0])
    assert spacing.mean() == pytest.approx(V_A, rel=0.01)
    # each label sits on a maximum, whose height follows the occupancy
    peak = out["intensity"].to_numpy()
    for k in labels.index:
        near = peak[max(0, k - 8) : k + 9]
        assert peak[k] > 0.97 * near.max()
    heights = labels["intensity"].to_numpy()
    wanted = np.array([SHARES.get(n, 1.0) for n in labels["N"]])
    np.testing.assert_allclose(heights / heights[-1], wanted / wanted[-1], atol=0.06)


def test_profile_runs_from_film_to_crystal_along_v(profile):
    out, table, lattice, pixel = profile
    line = out.attrs["line_px"]
    direction = (line[1] - line[0]) / np.hypot(*(line[1] - line[0]))
    v = lattice.v_px / np.hypot(*lattice.v_px)
    assert direction @ v == pytest.approx(-1, abs=1e-3)
    length = np.hypot(*((line[1] - line[0]) * np.array(pixel)))
    assert out["s_A"].iloc[-1] == pytest.approx(length, rel=1e-6)
    assert out["s_A"].iloc[0] == 0
    first = line[0] + direction * out["s_A"][out["N"].notna()].iloc[0] / length * np.hypot(
        *(line[1] - line[0])
    )
    anion = table[is_(table, "O")]
    assert np.hypot(anion["x_px"] - first[0], anion["y_px"] - first[1]).min() < 1.0


def test_no_chain_gives_an_empty_profile(profile):
    _, table, lattice, pixel = profile
    out = line_profile(
        np.zeros((400, 400)),
        lattice,
        columns=table[plane(table) <= 2],
        interface=None,
        pixel_size=pixel,
    )
    assert len(out) == 0
    assert out.attrs["line_px"] is None
