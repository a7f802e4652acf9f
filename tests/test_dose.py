"""Frames measured alone: damage shows in the frame that has it, wherever the frame has drifted."""

import pickle
from concurrent.futures import Future

import numpy as np
import pandas as pd
import pytest
from _known_images import PIXEL_A, kto, simulated

from stemdisp import _refit, dose
from stemdisp._scene import Scene
from stemdisp._source import frame_source
from stemdisp.config import config_from_dict
from stemdisp.dose import measure_frames
from stemdisp.find import crystal_mask, find_columns
from stemdisp.interface import find_interface
from stemdisp.lattice import find_lattice
from stemdisp.pipeline import run
from stemdisp.refine import refine_columns
from stemdisp.register import Registration, align_stack
from stemdisp.simulate import Scan, Specimen, build_columns, idpc_noise, render, simulate_stack

SIZE = 264
FRESH = {"delta0_A": 0.54, "occupancy": (0.9, 0.9, 0.9)}
DAMAGED = {"delta0_A": 0.25, "occupancy": (0.4, 0.4, 0.4)}
# frame: specimen, and how many px of the scene its left upper corner is cut
FRAMES = [(FRESH, (0, 0)), (FRESH, (6, 3)), (DAMAGED, (3, 8))]
NAMES = ["delta1_A", "delta1_err_A", "occupancy1", "occupancy1_err"]
CONFIG = config_from_dict({"analysis": {"bulk_from": 8}, "refine": {"noise": "idpc"}})


@pytest.fixture(scope="module")
def series():
    """Three frames of one place with known drift, and the columns of the first."""
    from hyperspy.signals import Signal2D

    parts = []
    for specimen, (x, y) in FRAMES:
        image, _ = simulated(size=SIZE + 12, film_A=9.0, rotation_deg=5.0, shear_px=0.0, **specimen)
        parts.append(image[y : y + SIZE, x : x + SIZE])
    lattice, interface = find_interface(
        parts[0], find_lattice(parts[0], kto(), pixel_size=PIXEL_A), projection=kto()
    )
    mask = crystal_mask(parts[0], lattice, interface, 1 / PIXEL_A)
    columns = find_columns(parts[0], lattice, projection=kto(), interface=interface)
    columns = refine_columns(parts[0], columns, pixel_size=PIXEL_A, noise="idpc", mask=mask)
    shifts = -np.array([shift for _, shift in FRAMES], dtype=float)
    return Signal2D(np.stack(parts).astype(np.float32)), columns, lattice, shifts


def measure(series, *, used=(True, True, True), shifts=None, columns=None, executor=None):
    stack, found, lattice, true_shifts = series
    registration = Registration(
        shifts_px=true_shifts if shifts is None else shifts,
        image=np.asarray(stack.data[0]),
        origin_px=(0, 0),
        used=np.array(used),
        correlation=np.ones(3),
        noise_psd=None,
        n_used=int(np.sum(used)),
        guard={},
    )
    scene = Scene(None, lattice, kto(), None, (PIXEL_A, PIXEL_A), None, CONFIG)
    columns = found if columns is None else columns
    source = frame_source(stack)
    return measure_frames(source, registration, scene=scene, columns=columns, executor=executor)


@pytest.fixture(scope="module")
def measured(series):
    return measure(series).frames


def test_every_frame_gives_its_own_displacement(measured):
    truth = np.array([specimen["delta0_A"] for specimen, _ in FRAMES])
    off = measured["delta1_A"] - truth
    assert (np.abs(off) < 4 * measured["delta1_err_A"] + 0.03).all()
    assert (measured["delta1_err_A"] < 0.05).all()
    drop = measured["delta1_A"][0] - measured["delta1_A"][2]
    assert drop > 5 * np.hypot(measured["delta1_err_A"][0], measured["delta1_err_A"][2])


def test_every_frame_gives_its_own_occupancy(measured):
    truth = np.array([specimen["occupancy"][0] for specimen, _ in FRAMES])
    off = measured["occupancy1"] - truth
    assert (np.abs(off) < 4 * measured["occupancy1_err"] + 0.03).all()
    drop = measured["occupancy1"][0] - measured["occupancy1"][2]
    assert drop > 4 * np.hypot(measured["occupancy1_err"][0], measured["occupancy1_err"][2])


def test_drift_is_what_makes_frames_comparable(series, measured):
    # Negative control: where the drift is ignored, the drifted frame is not described any more.
    still = measure(series, used=(False, True, False), shifts=np.zeros((3, 2))).frames
    wrong = abs(still["delta1_A"][1] - 0.54)
    assert not wrong < 3 * abs(measured["delta1_A"][1] - 0.54) + 0.03 or np.isnan(wrong)


def test_frames_left_out_stay_empty(series, measured):
    out = measure(series, used=(True, False, False)).frames
    assert out.loc[1:, NAMES].isna().all(axis=None)
    pd.testing.assert_frame_equal(out.loc[:0, NAMES], measured.loc[:0, NAMES])
    assert list(out["frame"]) == [0, 1, 2]


def test_without_interface_there_is_no_first_plane(series):
    columns = series[1].assign(N=pd.array([pd.NA] * len(series[1]), dtype="Int64"))
    out = measure(series, columns=columns)
    assert out.frames[NAMES].isna().all(axis=None) and out.series.empty


class Posted:
    """As an executor on other machines: what it is given is pickled, results come when asked."""

    def __init__(self):
        self.waiting, self.most = 0, 0

    def submit(self, function, *work):
        function, work = pickle.loads(pickle.dumps((function, work)))
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        future = Future()
        whole = future.result

        def result(timeout=None):
            if not future.done():
                self.waiting -= 1
                future.set_result(function(*work))
            return whole(timeout)

        future.result = result
        return future


def test_fits_can_be_sent_away_and_come_back_in_order(series):
    here, there = measure(series), measure(series, executor=Posted())
    pd.testing.assert_frame_equal(here.series, there.series)
    kinds = here.series["kind"].tolist()
    assert kinds == ["point"] * 3 + ["cumulative"] * 3
    assert here.series["n_frames"].tolist() == [1, 1, 1, 1, 2, 3]
    # the mean of the first two fresh frames is fresh, that with the damaged one is in between
    assert here.series["delta1_A"].is_monotonic_decreasing is False
    fresh, mixed = here.series["delta1_A"].iloc[[4, 5]]
    assert fresh == pytest.approx(0.54, abs=0.04) and 0.3 < mixed < fresh


def test_many_frames_make_few_points_and_left_out_ones_count_as_dose():
    used = np.delete(np.arange(100), [0, 7, 50])
    parts = dose._plan(used)
    points = [p for p in parts if p.kind == "point"]
    sizes = [len(p.frames) for p in points]
    assert len(points) == 24 and max(sizes) - min(sizes) == 1
    assert np.concatenate([p.frames for p in points]).tolist() == used.tolist()
    ends = [len(p.frames) for p in parts if p.kind == "cumulative"]
    assert len(ends) == 8 and ends[-1] == 97 and np.all(np.diff(ends) > 0)
    rows = [dict.fromkeys(NAMES, 0.5)] * len(parts)
    doses = np.full(100, 10.0)
    table = dose._series_table(parts, rows, doses)
    assert table["dose_start_e_per_A2"][0] == 10.0  # frame 0 was left out, but irradiated it
    assert table["dose_end_e_per_A2"][23] == 1000.0
    assert table["dose_middle_e_per_A2"][0] == np.mean([15, 25, 35, 45, 55])
    assert table["frame_middle"][0] == 3.5


def test_parts_are_means_of_their_frames_and_few_of_them_wait(monkeypatch):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(60, 5, 4))
    images[3, 2, 2] = np.nan
    taken = []

    def sums(points):
        for point in points:
            taken.extend(point.frames)
            some = images[list(point.frames)]
            yield np.nansum(some, axis=0), np.isfinite(some).sum(axis=0)

    used = np.delete(np.arange(60), 11)
    parts = dose._plan(used)
    posted = Posted()
    monkeypatch.setattr(dose, "fit_part", _echo)
    points = [part for part in parts if part.kind == "point"]
    found = dose._fit_parts(sums(points), parts, None, None, posted)
    assert taken == used.tolist()
    assert posted.most <= dose.IN_FLIGHT
    for part, row in zip(parts, found, strict=True):
        np.testing.assert_allclose(row["image"], np.nanmean(images[list(part.frames)], axis=0))
        assert row["n"] == len(part.frames)


def _echo(image, n_frames, refit):
    return {"image": image, "n": n_frames}


def test_the_mean_of_placed_frames_is_the_mean_image():
    stack = simulate_stack("null", seed=1, n_frames=4, size=160)[0].data.astype(float)
    stack[1, 80, 70] = np.nan
    found = align_stack(stack)
    placed = np.array([found.placed(stack[k], k) for k in range(4)])
    np.testing.assert_allclose(np.nanmean(placed, axis=0), found.image)
    gap = np.argwhere(np.isnan(placed[1]))
    at = np.array([80, 70]) - (np.array(found.origin_px) + found.shifts_px[1])[::-1]
    assert 1 <= len(gap) <= 9 and np.abs(gap - at).max() < 2
    assert not np.isnan(placed[[0, 2, 3]]).any()
    # beyond the frame nothing was measured
    beyond = Registration(**{**vars(found), "origin_px": (-5, 90), "places": ()}).placed(
        stack[0], 0
    )
    assert np.isnan(beyond[:, :5]).all()
    below = 90 + np.arange(len(beyond)) + found.shifts_px[0, 1] > 159
    assert below.any() and np.array_equal(np.isnan(beyond[:, 10]), below)


def test_faint_columns_follow_the_bright_ones():
    rng = np.random.default_rng(2)
    start = rng.uniform(0, 300, (200, 2))
    drift = np.column_stack([0.004 * start[:, 1], 1e-5 * start[:, 0] ** 2 - 0.3])
    seeds = pd.DataFrame({"species": "K", "x_px": start[:, 0], "y_px": start[:, 1]})
    faint, damaged = np.arange(200) % 4 == 0, np.arange(200) % 20 == 1
    found = start + np.where(faint[:, None], 0.0, drift) + rng.normal(0, 0.02, (200, 2))
    found[damaged] += 2.0
    fitted = seeds.assign(
        x_px=found[:, 0], y_px=found[:, 1], significance=np.where(faint, 3.0, 12.0)
    )
    moved = _refit._follow(seeds, fitted)
    np.testing.assert_allclose(moved[["x_px", "y_px"]], start + drift, atol=0.03)
    few = fitted.assign(significance=3.0)
    pd.testing.assert_frame_equal(_refit._follow(seeds, few), seeds)


DOSES = np.array([300.0, 300, 600, 300, 300, 600, 300, 300])
LOSS = {"delta": 7e-5, "occupancy": 0.0}


@pytest.fixture(scope="module")
def damaged():
    """A stack whose displacement falls with the dose, from 0.54 A; drift shears every frame."""
    from hyperspy.signals import Signal2D

    rng = np.random.default_rng(7)
    middle = np.cumsum(DOSES) - DOSES / 2
    scan = Scan(size=300, pixel_size_A=PIXEL_A)
    frames = []
    for total, here in zip(middle, DOSES, strict=True):
        specimen = Specimen(delta0_A=0.54 - LOSS["delta"] * total, occupancy=(0.5,) * 4, film_A=9.0)
        truth, atoms = build_columns(specimen, scan, np.random.default_rng(1))
        blobs = truth[["x_px", "y_px", "intensity", "sigma_A"]].to_numpy(dtype=float)
        blobs[:, 3] /= PIXEL_A
        rows = np.linspace(-0.5, 0.5, scan.size)[:, None]
        path = rng.normal(0, 2, 2) + rows * rng.normal(0, 1.5, 2)
        path = path + rng.normal(0, 1, (scan.size, 2)) * (0.35, 0.15)
        image = render(np.vstack([blobs, atoms]), path, scan.size) / PIXEL_A**2
        frames.append(image + idpc_noise(scan.size, PIXEL_A, 2 * here, rng))
    signal = Signal2D(np.array(frames, dtype=np.float32))
    for axis in signal.axes_manager.signal_axes:
        axis.scale, axis.units = PIXEL_A, "Å"
    signal.metadata.set_item("stemdisp.dose_e_per_A2", DOSES.tolist())
    return signal


def test_a_loss_is_measured_from_the_images(damaged):
    result = run(damaged, settings=CONFIG)
    found = result.summary["dose_series"]
    assert found["verdict"] == "seen" and found["dose_total_e_per_A2"] == DOSES.sum()
    assert [w["code"] for w in result.summary["warnings"]].count("damage-seen") == 1
    line, other = found["delta1"], found["occupancy1"]
    assert abs(line["slope"] + 1000 * LOSS["delta"]) < 3 * line["slope_err"]
    assert line["slope_err"] < 0.02 and line["inflation"] < 2.0
    # the film beside plane 1 biases it by up to 6 pm in all frames alike
    assert abs(line["zero_dose"] - 0.54) < 3 * line["zero_dose_err"] + 0.006
    assert abs(other["slope"]) < 3 * other["slope_err"]
    assert result.frames["point"].tolist() == list(range(8))
    points = result.dose_series[result.dose_series["kind"] == "point"]
    np.testing.assert_array_equal(result.frames["delta1_A"], points["delta1_A"])
    last = result.dose_series.iloc[-1]
    main = result.planes.set_index("N")["delta_A"][1]
    assert last["n_frames"] == 8 and abs(last["delta1_A"] - main) < 2 * last["delta1_err_A"]


def test_switched_off_nothing_is_fitted(damaged):
    off = config_from_dict({"analysis": {"bulk_from": 8, "dose_series": False}})
    two = damaged.inav[:2]
    two.metadata.stemdisp.dose_e_per_A2 = DOSES[:2].tolist()
    result = run(two, settings=off)
    assert result.dose_series.empty and result.summary["dose_series"] is None
    assert result.frames["point"].isna().all()
