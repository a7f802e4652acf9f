"""The simulator: its noise, its truth table, and that the images hold what the table says."""

from dataclasses import fields

import numpy as np
import pytest
from scipy import ndimage

import stemdisp
from stemdisp import _simulated, load
from stemdisp.cli import main
from stemdisp.noise import measure_noise, ring_spectrum
from stemdisp.refine import refine_columns
from stemdisp.simulate import (
    PRESETS,
    PROPORTIONAL,
    Scan,
    Specimen,
    build_columns,
    idpc_noise,
    render,
    simulate_stack,
)

# Nothing but columns: no noise, no distortion, no background.
CLEAN = {"dose_e_per_A2": 1e14, "jitter_px": (0.0, 0.0), "shear_px": 0.0, "background": 0.0}


def columns(seed=0, size=512, **physics):
    """Truth table and film atoms without drawing an image."""
    specimen, scan = Specimen(**physics), Scan(size=size)
    return *build_columns(specimen, scan, np.random.default_rng(seed)), specimen, scan


def cell_of(truth):
    """Origin, u and v in px by least squares on the columns that nothing displaces."""
    still = truth[truth["species"] == "Ta"]
    ij = np.column_stack([np.ones(len(still)), still["i"], still["j"]])
    return np.linalg.lstsq(ij, still[["x_px", "y_px"]].to_numpy(), rcond=None)[0]


def test_noise_has_the_level_and_slope_of_its_formula():
    # 0.5 / (dose * area) per component and pixel, over k^2 with k = 2 pi f / pixel
    pixel, dose = 0.15, 700.0
    rng = np.random.default_rng(0)
    image = np.mean([ring_spectrum(idpc_noise(320, pixel, dose, rng))[1] for _ in range(3)], axis=0)
    frequency, _ = ring_spectrum(idpc_noise(320, pixel, dose, rng))
    level = 0.5 / (dose * pixel**2) * pixel**2
    found = measure_noise(frequency, image, sigma_px=3.0)
    assert found.kind == "idpc"
    assert found.level == pytest.approx(level, rel=0.05)
    assert found.slope == pytest.approx(-2, abs=0.15)
    # another pixel size gives the same noise per frequency in 1/A: four times as many pixels
    fine = measure_noise(*ring_spectrum(idpc_noise(320, pixel / 2, dose, rng)), sigma_px=3.0)
    assert fine.level == pytest.approx(level, rel=0.1)


def test_noise_in_a_stack_follows_the_dose():
    def power(dose):
        still = {**CLEAN, "drift_px": 0.0, "film_A": 0.0, "dose_e_per_A2": dose}
        stack, _ = simulate_stack("bulk", size=160, n_frames=2, seed=3, **still)
        return np.var(stack.data[1] - stack.data[0], dtype=float)

    # frames differ by the noise of both; the sum over modes is that of the spectrum
    k = 2 * np.pi * np.hypot(np.fft.fftfreq(160)[:, None], np.fft.fftfreq(160)[None, :])
    k[0, 0] = np.inf
    expected = 2 * 0.5 / 200.0 * np.mean(1 / k**2)
    assert power(200.0) == pytest.approx(expected, rel=0.35)
    assert power(200.0) / power(2000.0) == pytest.approx(10, rel=0.01)


def test_rendered_columns_are_where_they_are_told_to_be():
    path = np.zeros((60, 2))
    image = render(np.array([[25.3, 31.6, 4.0, 2.5]]), path, 60)
    assert image.sum() == pytest.approx(4.0, rel=1e-3)
    assert ndimage.center_of_mass(image) == pytest.approx((31.6, 25.3), abs=1e-4)
    path = np.column_stack([np.linspace(0, 3, 60), np.full(60, -2.0)])
    image = render(np.array([[25.3, 31.6, 4.0, 2.5]]), path, 60)
    y, x = ndimage.center_of_mass(image)
    assert (x, y) == pytest.approx((25.3 + path[round(y), 0], 29.6), abs=0.05)


def test_truth_table_has_its_columns():
    truth, *_ = columns(size=256)
    expected = {"species", "i", "j", "layer", "N", "delta_A", "delta_perp_A", "occupancy"}
    expected |= {"intensity", "sigma_A", "x_px", "y_px", "x_A", "y_A"}
    assert set(truth.columns) == expected
    np.testing.assert_allclose(truth["x_A"], truth["x_px"] * 0.15)
    assert set(truth["species"]) == {"K", "Ta", "O"}
    assert truth.duplicated(["species", "i", "j"]).sum() == 0
    # density: three columns in each cell of 2.8203 x 3.9885 A below the film
    inside = truth[truth["x_px"].between(0, 255) & truth["y_px"].between(0, 255)]
    area = (256 * 0.15) ** 2 - 256 * 0.15 * 14.0
    assert len(inside) == pytest.approx(3 * area / (2.8203 * 3.9885), rel=0.1)


def test_displacement_and_occupancy_follow_their_laws():
    occupancy = (0.4, 0.55, 0.8)
    truth, _, specimen, _ = columns(delta0_A=0.3, xi_planes=3.0, occupancy=occupancy)
    k = truth[truth["species"] == "K"]
    law = 0.3 * np.exp(-(k["N"] - 1) / 3.0) + specimen.offset_A[0]
    np.testing.assert_allclose(k["delta_A"], law)
    np.testing.assert_allclose(k["delta_perp_A"], specimen.offset_A[1])
    rest = truth[truth["species"] != "K"]
    assert (rest[["delta_A", "delta_perp_A"]] == 0).all(axis=None)
    o = truth[truth["species"] == "O"]
    full = o.loc[o["N"] > 3, "intensity"]
    assert full.nunique() == 1
    for plane, share in enumerate(occupancy, start=1):
        here = o[o["N"] == plane]
        assert len(here) > 10
        np.testing.assert_allclose(here["occupancy"], share)
        np.testing.assert_allclose(here["intensity"], share * full.iloc[0])
    assert truth.loc[truth["species"] != "O", "occupancy"].isna().all()
    np.testing.assert_array_equal(truth["N"], 1 - np.floor(truth["layer"] + 1e-6))


def test_geometry_is_that_of_the_crystal():
    truth, *_ = columns(disorder_A=0.0, delta0_A=0.0, offset_A=(0.0, 0.0), rotation_deg=5.0)
    origin, u, v = cell_of(truth)
    assert np.hypot(*u) * 0.15 == pytest.approx(2.8203, abs=2e-4)
    assert np.hypot(*v) * 0.15 == pytest.approx(3.9885, abs=2e-4)
    assert u @ v == pytest.approx(0, abs=1e-6)
    fitted = origin + truth[["i", "j"]].to_numpy() @ np.array([u, v])
    np.testing.assert_allclose(truth[["x_px", "y_px"]], fitted, atol=1e-6)
    # the normal is up, turned by 5 degrees; u and v lie 35.3 and 54.7 degrees from it
    normal = np.linalg.lstsq(
        np.column_stack([np.ones(len(truth)), truth[["x_px", "y_px"]]]), truth["layer"], rcond=None
    )[0][1:]
    assert 1 / np.hypot(*normal) * 0.15 == pytest.approx(2.3028, abs=1e-3)
    assert abs(np.degrees(np.arctan2(normal[0], -normal[1]))) == pytest.approx(5, abs=1e-6)
    for vector, angle in ((u, 35.26), (v, 54.74)):
        cosine = vector @ normal / np.hypot(*vector) / np.hypot(*normal)
        assert np.degrees(np.arccos(cosine)) == pytest.approx(angle, abs=0.02)


def test_displacement_in_the_positions_is_that_of_the_table():
    truth, _, specimen, _ = columns(seed=5, size=700, rotation_deg=-4.0)
    _, u, v = cell_of(truth)
    unit = np.array([u / np.hypot(*u), v / np.hypot(*v)])
    at = dict(zip(truth[["species", "i", "j"]].itertuples(index=False, name=None),
                  truth[["x_A", "y_A"]].to_numpy(), strict=True))  # fmt: skip
    found = {}
    for i, j, plane in truth.loc[truth["species"] == "K", ["i", "j", "N"]].itertuples(index=False):
        above, below = at.get(("Ta", i, j + 0.5)), at.get(("Ta", i, j - 0.5))
        if above is not None and below is not None:
            found.setdefault(plane, []).append(unit @ (at["K", i, j] - (above + below) / 2))
    assert len(found) > 20 and 1 in found
    for plane, values in found.items():
        values = np.array(values)
        law = specimen.delta0_A * np.exp(-(plane - 1) / specimen.xi_planes)
        expected = np.array([law, 0.0]) + specimen.offset_A
        error = specimen.disorder_A * np.sqrt(1.5 / len(values))
        assert np.all(np.abs(values.mean(axis=0) - expected) < 4.5 * error), plane
    scatter = np.concatenate([np.array(v) - np.mean(v, axis=0) for v in found.values()])
    assert scatter.std() == pytest.approx(specimen.disorder_A * np.sqrt(1.5), rel=0.1)


def test_the_film_is_above_and_plane_one_is_next_to_it():
    truth, atoms, *_ = columns()
    nearest = truth.groupby("N")["y_px"].median()
    assert nearest.index.min() == 1
    assert nearest.is_monotonic_increasing
    normal = np.array([np.sin(np.deg2rad(3.0)), -np.cos(np.deg2rad(3.0))])
    if np.std(truth.loc[truth["N"] == 1, ["x_px", "y_px"]] @ normal) > 5:
        normal[0] *= -1
    height = truth[["x_px", "y_px"]].to_numpy() @ normal * 0.15
    film = atoms[:, :2] @ normal * 0.15
    # about 1 A of clearance over the last plane of cage columns
    assert np.percentile(film, 1) > height.max() - 0.2
    # film_A is the thickness of film at the centre of the image
    edge = height.max() - (256 * normal[0] + 256 * normal[1]) * 0.15
    assert 256 * 0.15 - edge == pytest.approx(14.0, abs=2.0)
    bulk, nothing, *_ = columns(film_A=0.0)
    assert len(nothing) == 0 and bulk["y_px"].min() < 0


def test_the_film_shows_in_the_image():
    clean = {**CLEAN, "size": 200, "n_frames": 1}
    film = simulate_stack(**clean)[0].data[0]
    bare = simulate_stack(film_A=14.0, film_density_per_A2=0.0, **clean)[0].data[0]
    difference = (film - bare).mean(axis=1)
    assert difference[:40].mean() > 0.05
    assert abs(difference[-60:]).max() < 0.01


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_are_what_their_names_say(preset):
    stack, truth = simulate_stack(preset, size=96, n_frames=2)
    assert stack.data.shape == (2, 96, 96) and stack.data.dtype == np.float32
    assert np.isfinite(stack.data).all()
    has_signal = preset == "lao-kto-111"
    moved = truth["delta_A"] - 0.015 * (truth["species"] == "K")
    assert (moved.abs().max() > 0.1) == has_signal
    assert (truth["occupancy"].min() < 1) == has_signal
    assert (truth["N"].min() == 1) == (preset != "bulk")


def test_an_image_holds_what_the_table_says():
    stack, truth = simulate_stack("null", seed=2, size=160, n_frames=1, film_A=0.0, **CLEAN)
    fitted = refine_columns(stack.inav[0], truth[["species", "x_px", "y_px"]], noise="white")
    good = (fitted["quality"] & 1) == 0
    inside = good & truth["x_px"].between(15, 144) & truth["y_px"].between(15, 144)
    assert inside.sum() > 50
    off = np.hypot(fitted["x_A"] - truth["x_A"], fitted["y_A"] - truth["y_A"])
    assert off[inside].max() < 0.003
    np.testing.assert_allclose(fitted["intensity"][inside], truth["intensity"][inside], rtol=0.03)
    np.testing.assert_allclose(fitted["sigma_A"][inside], truth["sigma_A"][inside], rtol=0.03)


def test_frames_are_shifted_as_the_metadata_say():
    stack, _ = simulate_stack(seed=4, size=176, n_frames=3, drift_px=4.0, **CLEAN)
    said = np.array(stack.metadata.stemdisp.simulation.shifts_px)
    frames = stack.data.astype(float)
    # the background of each frame is off, so frames differ by their shifts only
    assert said.shape == (3, 2) and not said[0].any() and np.ptp(said) > 2
    inside = (slice(40, -40),) * 2
    for frame, shift in zip(frames[1:], said[1:], strict=True):

        def left(vector, frame=frame):
            moved = ndimage.shift(frames[0], vector[::-1], order=5, mode="nearest")
            return np.std((moved - frame)[inside]) / np.std(frame[inside])

        assert left(shift) < 0.01
        assert left(-shift) > 0.3
        for step in ((0.1, 0), (-0.1, 0), (0, 0.1), (0, -0.1)):
            assert left(shift + step) > 2 * left(shift)


def test_metadata_name_the_simulation():
    stack, _ = simulate_stack(seed=7, size=128, n_frames=2, pixel_size_A=0.2, delta0_A=0.1)
    simulation = stack.metadata.stemdisp.simulation.as_dictionary()
    names = {f.name for part in (Specimen, Scan) for f in fields(part)}
    assert set(simulation) == names | {"seed", "shifts_px", "intensity"}
    assert simulation["seed"] == 7 and simulation["delta0_A"] == 0.1
    assert stack.metadata.stemdisp.dose_e_per_A2 == Scan().dose_e_per_A2
    for axis in stack.axes_manager.signal_axes:
        assert (axis.scale, axis.units) == (0.2, "Å")
    assert [axis.name for axis in stack.axes_manager.signal_axes] == ["x", "y"]


def test_the_seed_decides_everything():
    one, table_one = simulate_stack(seed=1, size=128, n_frames=2)
    same, table_same = simulate_stack(seed=1, size=128, n_frames=2)
    other, table_other = simulate_stack(seed=2, size=128, n_frames=2)
    np.testing.assert_array_equal(one.data, same.data)
    assert table_one.equals(table_same)
    assert not np.allclose(one.data, other.data, rtol=0, atol=0.01)
    assert not np.allclose(table_one["x_px"], table_other["x_px"])
    assert not np.allclose(one.data[0], one.data[1], rtol=0, atol=0.01)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"preset": "lao-sto"}, "preset = 'lao-sto' is unknown; use one of: lao-kto-111"),
        ({"delta_A": 0.3}, "delta_A: no such field; fields are structure, zone_axis"),
        ({"size": 64}, "film_A = 14.0 leaves no crystal in an image of 64 px of 0.15 A"),
        ({"n_frame": 3, "dose": 1.0}, "n_frame, dose: no such field"),
    ],
)
def test_unknown_names_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        simulate_stack(**call)


@pytest.fixture(scope="module")
def small():
    """A small stack of Gaussian columns, oxygen missing near the interface."""
    return simulate_stack(seed=3, n_frames=1, size=256, dose_e_per_A2=20_000.0)


def test_the_same_simulation_is_written_as_the_same_bytes(small, tmp_path, monkeypatch):
    import time

    now = time.time()
    for name, moment in (("a", now), ("b", now + 86_400.0)):
        monkeypatch.setattr(time, "time", lambda moment=moment: moment)
        _simulated.write(small[0], str(tmp_path / f"{name}.hspy"))
    assert (tmp_path / "a.hspy").read_bytes() == (tmp_path / "b.hspy").read_bytes()
    small[0].save(tmp_path / "c.hspy")  # what HyperSpy does itself: it adds the time
    assert (tmp_path / "c.hspy").read_bytes() != (tmp_path / "a.hspy").read_bytes()
    again = load(tmp_path / "a.hspy")
    assert np.array_equal(again.data, small[0].data[0])  # one frame is an image
    said = again.metadata.get_item("stemdisp.simulation")
    assert said.seed == 3 and said.intensity == PROPORTIONAL


def test_no_calibration_of_real_images_for_simulated_columns(small):
    """Their intensity is in proportion to the occupancy, whatever thickness is stated."""
    stated = {"specimen": {"thickness_nm": 10.0}, "analysis": {"dose_series": False}}
    signal = small[0].inav[0]
    found = stemdisp.run(signal, settings=stated)
    assert found.curve is None
    assert "simulated-columns" in {w["code"] for w in found.summary["warnings"]}
    first = found.planes.set_index("N").loc[1]
    assert abs(first["occupancy"] - 0.45) < 3 * first["occupancy_err"]
    real = signal.deepcopy()
    del real.metadata.stemdisp.simulation
    other = stemdisp.run(real, settings=stated)
    assert other.curve is not None
    assert "simulated-columns" not in {w["code"] for w in other.summary["warnings"]}
    assert other.planes.set_index("N").loc[1, "occupancy"] < first["occupancy"] - 0.03


def test_the_help_tells_of_the_offset_of_the_preset(capsys):
    with pytest.raises(SystemExit):
        main(["simulate", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    offset = Specimen().offset_A
    assert f"{offset[0]:.3f} A along u and {offset[1]:.3f} A along v" in said


def test_a_signal_says_that_it_is_one(small):
    result = stemdisp.run(small[0].inav[0], settings={"analysis": {"dose_series": False}})
    assert "\ninput: a signal (image," in repr(result)
