import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from _fake_result import changed, directions, make

from stemdisp import interop

atomap_warnings = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def signal(scale=(0.02, 0.02), offset=(0.0, 0.0), units="nm", shape=(60, 80)):
    from hyperspy.signals import Signal2D

    out = Signal2D(np.zeros(shape, dtype=np.float32))
    for axis, step, start in zip(out.axes_manager.signal_axes, scale, offset, strict=True):
        axis.scale, axis.offset, axis.units = step, start, units
    return out


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "species": ["K", "Ta", "K", "O"],
            "x_px": [10.25, 20.5, 30.0, 41.0],
            "y_px": [5.0, 15.125, 25.0, 50.5],
            "sigma_A": [0.5, 0.6, 0.55, 0.45],
            "intensity": [1.5, 3.0, 1.25, 0.5],
        }
    )


def test_points_sit_at_the_calibrated_positions(table):
    markers = interop.to_markers(table, signal(scale=(0.02, 0.03), offset=(1.0, -2.0)))
    offsets = markers[0].kwargs["offsets"]
    np.testing.assert_allclose(offsets, [[1.205, -1.85], [1.6, -1.25]])
    assert len(markers) == 3


def test_points_without_a_signal_are_in_pixels(table):
    np.testing.assert_allclose(interop.to_markers(table)[1].kwargs["offsets"], [[20.5, 15.125]])


def test_markers_survive_on_a_signal(table):
    image = signal()
    markers = interop.to_markers(table, image)
    image.add_marker(markers, permanent=True, plot_marker=False)
    assert len(image.metadata.Markers.keys()) == 3


def test_arrows_point_along_the_displacement_with_y_down():
    result = make()
    image = signal(scale=(0.014, 0.014))
    arrows = interop.to_markers(result, image)[-2]
    u = directions(4.0)[0]
    vector = np.stack([arrows.kwargs["U"], arrows.kwargs["V"]], axis=1)
    largest = vector[np.argmax(np.hypot(*vector.T))]
    assert largest @ u > 0.95 * np.linalg.norm(largest)
    assert largest[1] < 0  # towards the film, which is up
    assert np.linalg.norm(largest) == pytest.approx(0.06, abs=0.01)  # nm: 0.6 A


def test_the_interface_line_ends_on_the_border_of_the_image():
    result = make()
    segment = interop.to_markers(result)[-1].kwargs["segments"].reshape(-1, 2) / 0.14
    ends = [segment[:, 0].min(), segment[:, 0].max()]
    assert ends == pytest.approx([-0.5, result.image.shape[1] - 0.5])
    across = (segment - result.interface.position_px) @ result.interface.normal
    assert np.abs(across).max() < 1e-6


def test_a_run_without_interface_has_no_line():
    with_line, without = interop.to_markers(make()), interop.to_markers(make(interface=False))
    assert len(with_line) == len(without) + 1


def test_columns_that_lack_positions_are_refused(table):
    with pytest.raises(ValueError, match="columns lacks y_px"):
        interop.to_markers(table.drop(columns="y_px"))


def test_a_spectrum_is_refused(table):
    from hyperspy.signals import Signal1D

    with pytest.raises(ValueError, match="1 signal dimensions"):
        interop.to_markers(table, Signal1D(np.zeros(5)))


@atomap_warnings
def test_atomap_round_trip_keeps_everything_it_can(table):
    pytest.importorskip("atomap.api", exc_type=ImportError)
    lattice = interop.to_atomap(table, signal())
    assert [s.name for s in lattice.sublattice_list] == ["K", "Ta", "O"]
    assert lattice.sublattice_list[0].pixel_size == pytest.approx(0.02)
    # Width 0.5 A on pixels of 0.2 A.
    assert lattice.sublattice_list[0].atom_list[0].sigma_x == pytest.approx(2.5)
    back = interop.from_atomap(lattice)
    expected = table.iloc[[0, 2, 1, 3]].reset_index(drop=True)
    pd.testing.assert_frame_equal(back[list(expected)], expected, check_dtype=False)


@atomap_warnings
def test_ellipses_come_back_as_they_were_and_atomap_draws_them(table):
    pytest.importorskip("atomap.api", exc_type=ImportError)
    lattice = interop.to_atomap(table, signal())
    for k, atom in enumerate(lattice.sublattice_list[0].atom_list):
        atom.sigma_x, atom.sigma_y, atom.rotation = 2.0 + k, 3.0, 0.4
    found = interop.from_atomap(lattice)
    again = interop.to_atomap(found, signal())
    for one, other in zip(lattice.sublattice_list, again.sublattice_list, strict=True):
        assert one.name == other.name
        for name in ("sigma_x", "sigma_y", "rotation", "amplitude_gaussian"):
            values = [[getattr(a, name) for a in s.atom_list] for s in (one, other)]
            np.testing.assert_allclose(*values, rtol=1e-12, err_msg=name)
    assert found["sigma_x_A"].iloc[0] != found["sigma_y_A"].iloc[0]
    again.get_sublattice_atom_list_on_image().plot()


def test_a_fresh_process_can_hand_columns_to_atomap():
    """Atomap's modules import each other in a circle: which comes first decides."""
    pytest.importorskip("atomap.api", exc_type=ImportError)
    script = (
        "import pandas as pd, stemdisp as sd\n"
        "from hyperspy.signals import Signal2D\n"
        "image = Signal2D([[0.0] * 8] * 8)\n"
        "for axis in image.axes_manager.signal_axes: axis.units = 'nm'\n"
        "table = pd.DataFrame({'species': ['K'], 'x_px': [3.0], 'y_px': [4.0]})\n"
        "print(len(sd.to_atomap(table, image).sublattice_list))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parent.parent,
    )
    assert done.stdout.strip() == "1", done.stderr


@atomap_warnings
def test_amplitudes_that_the_file_of_atomap_drops_are_not_measurements(table, tmp_path):
    am = pytest.importorskip("atomap.api", exc_type=ImportError)
    lattice = interop.to_atomap(table, signal())
    lattice.save(str(tmp_path / "lattice.hdf5"))
    loaded = am.load_atom_lattice_from_hdf5(
        str(tmp_path / "lattice.hdf5"), construct_zone_axes=False
    )
    before, back = interop.from_atomap(lattice), interop.from_atomap(loaded)
    assert before["intensity"].notna().all()
    assert back["intensity"].isna().all()
    np.testing.assert_allclose(back["sigma_A"], before["sigma_A"])
    np.testing.assert_allclose(back[["x_px", "y_px"]], before[["x_px", "y_px"]])


@atomap_warnings
def test_values_that_atomap_never_fitted_are_not_measurements(table):
    pytest.importorskip("atomap.api", exc_type=ImportError)
    from atomap.atom_lattice import Atom_Lattice
    from atomap.sublattice import Sublattice

    xy = table[["x_px", "y_px"]].to_numpy()
    back = interop.from_atomap(Atom_Lattice(sublattice_list=[Sublattice(xy, signal())]))
    assert back["sigma_A"].isna().all() and back["intensity"].isna().all()
    assert set(back["species"]) == {"sublattice_0"}
    np.testing.assert_allclose(back[["x_px", "y_px"]], xy)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda: signal(scale=(0.02, 0.024)), "resample"),
        (lambda: signal(units="1/nm"), "1/nm"),
        (lambda: signal(shape=(3, 60, 80)), "not a single Signal2D"),
        (lambda: np.zeros((60, 80)), "not a single Signal2D"),
    ],
)
def test_images_that_atomap_would_read_wrongly_are_refused(table, bad, message):
    with pytest.raises(ValueError, match=message):
        interop.to_atomap(table, bad())


def test_an_empty_lattice_is_refused():
    from types import SimpleNamespace

    with pytest.raises(ValueError, match="no sublattice"):
        interop.from_atomap(SimpleNamespace(sublattice_list=[]))


def test_the_run_is_left_as_it_was():
    result = changed(make(), columns=make().columns.copy())
    before = result.columns.copy()
    interop.to_markers(result)
    pd.testing.assert_frame_equal(result.columns, before)


def test_markers_and_stages_take_lazy_signals(table):
    from stemdisp.refine import refine_columns
    from stemdisp.simulate import simulate_stack

    stack, truth = simulate_stack("lao-kto-111", seed=3, n_frames=1, size=224)
    image = stack.inav[0]
    seeds = truth.loc[:, ["species", "x_px", "y_px"]]
    now = refine_columns(image, seeds)
    later = refine_columns(image.as_lazy(), seeds)
    pd.testing.assert_frame_equal(now, later, check_exact=True)
    markers = interop.to_markers(now, image.as_lazy())
    assert len(markers) == now["species"].nunique()
    np.testing.assert_array_equal(
        markers[0].kwargs["offsets"], interop.to_markers(now, image)[0].kwargs["offsets"]
    )
