"""What the interactive views are made of; how they behave is in test_report_browser.py."""

import base64
import io
import json

import numpy as np
import pytest
from _fake_large import many_columns
from _fake_result import PIXEL_A, changed, make
from PIL import Image

from stemdisp import tables
from stemdisp.report import _profiles, _sources, _viewer, interactive

NM = PIXEL_A / 10


@pytest.fixture(scope="module")
def view():
    return interactive.build(make(size=320))


def decoded(uri):
    head, _, code = uri.partition(",")
    return head, np.asarray(Image.open(io.BytesIO(base64.b64decode(code))).convert("L"))


def test_columns_are_small_types_and_only_what_the_table_has():
    result = make(size=320)
    k, ta, o = (_sources.column_data(result, species) for species in ("K", "Ta", "O"))
    assert {"delta", "delta_err", "perp"} <= set(k) and "occ" not in k
    assert {"occ", "occ_err"} <= set(o) and "delta" not in o
    assert not {"delta", "occ"} & set(ta)
    for data in (k, ta, o):
        assert {array.dtype for array in data.values()} == {np.dtype("f4"), np.dtype("i2")}
    frame = result.columns[result.columns["species"] == "K"]
    np.testing.assert_allclose(k["x"], frame["x_px"] * NM, rtol=1e-6)
    np.testing.assert_allclose(k["delta"], frame["delta_A"], rtol=1e-6)
    np.testing.assert_array_equal(k["N"], frame["N"])


def test_columns_that_no_average_uses_stay_out_of_profiles():
    result = make(size=320)
    spread = _sources.column_data(result, "K")["spread"]
    frame = result.columns[result.columns["species"] == "K"]
    drawn = np.isfinite(spread)
    assert not (drawn & ~tables.usable(frame)).any() and 50 < drawn.sum() < len(frame)
    assert np.abs(spread - frame["N"].to_numpy(dtype=float))[drawn].max() <= 0.25


def test_a_missing_plane_number_is_no_number():
    result = make(size=320)
    columns = result.columns.assign(N=result.columns["N"].mask(result.columns["N"] == 3))
    data = _sources.column_data(changed(result, columns=columns), "K")
    assert (data["N"] == _sources.NO_PLANE).sum() > 5
    assert "N" not in _sources.column_data(make(size=320, interface=False), "K")


def test_a_small_image_is_copied_without_loss():
    image = np.tile(np.linspace(0.0, 1.0, 256), (40, 1))
    uri, by, how = _sources.display_copy(image, limits=(0.0, 1.0))
    head, grey = decoded(uri)
    assert head == "data:image/png;base64" and by == 1 and how == "8-bit grey"
    np.testing.assert_array_equal(grey, np.round(image * 255))


def test_limits_clip_and_missing_pixels_are_black():
    image = np.array([[-5.0, 0.0, 1.0, 9.0, np.nan, 0.5]])
    _, grey = decoded(_sources.display_copy(image, limits=(0.0, 1.0))[0])
    np.testing.assert_array_equal(grey[0], [0, 0, 255, 255, 0, 128])
    assert _sources.grey_limits(np.full((3, 3), np.nan)) == (0.0, 1.0)


def test_a_noisy_image_becomes_a_small_copy_close_to_it():
    noise = np.random.default_rng(0).normal(size=(1600, 1500))
    limits = _sources.grey_limits(noise)
    uri, by, how = _sources.display_copy(noise, limits=limits)
    head, grey = decoded(uri)
    assert head == "data:image/webp;base64" and by == 1 and "lossy" in how
    assert len(uri) < 4 / 3 * _sources.MAX_WEBP_BYTES + 100
    true = np.clip((noise - limits[0]) / (limits[1] - limits[0]) * 255, 0, 255)
    assert np.abs(grey - true).mean() < 12


def test_a_large_image_is_binned_in_place():
    image = np.zeros((50, 101))
    image[20:23, 60:63] = 1.0
    uri, by, how = _sources.display_copy(image, limits=(0.0, 1.0), max_side_px=40)
    _, grey = decoded(uri)
    assert by == 3 and grey.shape == (17, 34) and "3 x 3 pixels binned" in how
    assert np.argwhere(grey > 60).tolist() == [[6, 20], [7, 20]]


def test_the_views_of_a_large_field_leave_room_for_the_figures():
    result = many_columns(20_000, side=2048)
    assert len(result.columns) == 20_000 and result.image.shape == (2048, 2048)
    view = interactive.build(result)
    # Of 8 MB; the figures of such a page take 2.
    assert len(view.data) + sum(map(len, view.scripts)) < 5.2e6


def test_the_document_holds_no_64_bit_numbers_and_one_source_for_each_species(view):
    content = json.dumps(json.loads(view.data)["document"])
    assert '"dtype": "float32"' in content
    assert "float64" not in content and "int64" not in content
    for k in range(3):
        assert content.count(f'"columns-{k}"') == 1


def test_data_cannot_end_their_script(view):
    result = make(size=320)
    species = result.columns["species"].replace({"O": "</script><script>x()"})
    data = interactive.build(changed(result, columns=result.columns.assign(species=species))).data
    assert "<" not in data and ">" not in data and "&" not in data
    assert json.loads(data)["species"][2] == "</script><script>x()"
    assert "<" not in view.data


def test_layers_start_so_that_the_image_is_seen(view, monkeypatch):
    shown = {layer.name: layer.on for layer in view.layers}
    assert shown["rings-0"] and shown["interface"] and shown["arrows"]
    assert not (shown["map"] or shown["residual"] or shown["left-out"])
    monkeypatch.setattr(_viewer, "MAX_RINGS", 10)
    shown = {layer.name: layer.on for layer in interactive.build(make(size=320)).layers}
    assert not shown["rings-0"] and shown["arrows"]


def test_a_box_in_a_profile_chooses_columns_and_no_means():
    from bokeh.models import BoxSelectTool, ColumnDataSource

    result = make(size=320)
    sources = {s: ColumnDataSource(_sources.column_data(result, s)) for s in ("K", "O")}
    charts = _profiles.build(result, sources)
    assert [title for _, title in charts] == ["Displacement of K columns, δ(N)", "O occupancy"]
    assert charts[0][0].x_range is charts[1][0].x_range
    for (chart, _), species in zip(charts, ("K", "O"), strict=True):
        (chosen,) = chart.select_one({"type": BoxSelectTool}).renderers
        assert chosen.data_source is sources[species]


def test_without_an_interface_there_are_no_profiles_and_no_plane_numbers():
    view = interactive.build(make(size=320, interface=False))
    assert view.profiles == [] and "interface" not in {layer.name for layer in view.layers}
    assert json.loads(view.data)["normal"] is None


def test_without_displacements_there_are_still_image_and_columns():
    result = make(size=320)
    columns = result.columns.drop(columns=["occupancy"]).assign(delta_A=np.nan)
    bare = changed(result, columns=columns, planes=result.planes.assign(delta_A=np.nan))
    view = interactive.build(changed(bare, decay=None))
    names = {layer.name for layer in view.layers}
    assert {"rings-0", "residual"} <= names and not {"map", "arrows"} & names
    assert view.bar is None and view.profiles == []
