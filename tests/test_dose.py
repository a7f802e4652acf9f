"""Frames measured alone: damage shows in the frame that has it, wherever the frame has drifted."""

import numpy as np
import pandas as pd
import pytest
from _known_images import PIXEL_A, kto, simulated

from stemdisp._scene import Scene
from stemdisp.config import config_from_dict
from stemdisp.dose import measure_frames
from stemdisp.find import crystal_mask, find_columns
from stemdisp.interface import find_interface
from stemdisp.lattice import find_lattice
from stemdisp.refine import refine_columns
from stemdisp.register import Registration

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
    return measure_frames(stack, registration, scene=scene, columns=columns, executor=executor)


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
