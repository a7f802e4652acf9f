import io

import matplotlib
import numpy as np
import pytest
from _fake_result import PIXEL_A, changed, directions, make
from matplotlib.colors import to_hex

from stemdisp import _plot_angle, _plot_maps, plot
from stemdisp import _plot_colors as colors
from stemdisp import _plot_style as st

WITH_INTERFACE = {
    "plot_image": ("", "plane number N"),
    "plot_zoom": ("", "plane number N"),
    "plot_displacement_map": ("", "plane number N"),
    "plot_displacement_angle": ("", "plane number N"),
    "plot_residual": ("", "plane number N"),
    "plot_decay": ("plane number N", "δ along [110] (Å)"),
    "plot_occupancy": ("plane number N", "O occupancy (1 = bulk)"),
    "plot_line_profile": (
        "distance from the film into the crystal (Å)",
        "intensity (signal units)",
    ),
    "plot_displacement_distribution": ("displacement (pm)", "number of columns"),
    "plot_registration": ("frame", "shift against frame 0 (Å)"),
    "plot_dose": ("cumulative dose (e/Å²)", "δ(1) (Å)"),
}


@pytest.fixture(scope="module")
def result():
    return make(size=320)


def axes():
    return st.new_axes()


@pytest.mark.parametrize(("name", "labels"), WITH_INTERFACE.items())
def test_labels_carry_units_and_nothing_global_is_touched(result, name, labels):
    before = dict(matplotlib.rcParams)
    ax = axes()
    assert getattr(plot, name)(result, ax=ax) is ax
    assert (ax.get_xlabel(), ax.get_ylabel()) == labels
    assert dict(matplotlib.rcParams) == before
    assert not matplotlib._pylab_helpers.Gcf.figs


@pytest.mark.parametrize(
    "name",
    [
        "plot_image",
        "plot_zoom",
        "plot_displacement_map",
        "plot_displacement_angle",
        "plot_residual",
    ],
)
def test_image_panels_have_a_scale_bar_with_its_number(result, name):
    texts = [t.get_text() for t in getattr(plot, name)(result).texts]
    assert any(t.endswith(" nm") for t in texts)


def test_columns_are_drawn_where_they_are(result):
    ax = plot.plot_image(result)
    k = result.columns[(result.columns["species"] == "K") & ((result.columns["quality"] & 1) == 0)]
    drawn = next(c for c in ax.collections if c.get_label() == "K").get_offsets()
    np.testing.assert_allclose(drawn, k[["x_px", "y_px"]].to_numpy() * PIXEL_A / 10)


def test_the_image_lies_under_its_columns(result):
    left, right, bottom, top = plot.plot_image(result).images[0].get_extent()
    nm = PIXEL_A / 10
    assert (left, top) == pytest.approx((-0.5 * nm, -0.5 * nm))
    assert (right, bottom) == pytest.approx((319.5 * nm, 319.5 * nm))


def test_binning_keeps_features_in_place(result, monkeypatch):
    image = np.zeros(result.image.shape)
    image[100, 200] = 1.0
    monkeypatch.setattr(st, "MAX_SHOWN_PX", 80)
    artist = plot.plot_image(changed(result, image=image)).images[0]
    shown, (left, right, bottom, top) = artist.get_array(), artist.get_extent()
    assert shown.shape == (80, 80)
    row, column = np.unravel_index(np.argmax(shown), shown.shape)
    width = (right - left) / 80
    assert left + column * width < 200 * PIXEL_A / 10 < left + (column + 1) * width
    assert top + row * width < 100 * PIXEL_A / 10 < top + (row + 1) * width
    assert bottom == pytest.approx(right)


def test_the_zoom_shows_the_pixels_of_its_window(result):
    image = np.zeros(result.image.shape)
    x, y = np.round(st.used(result, "K")[["x_px", "y_px"]].to_numpy()).astype(int).T
    image[y, x] = 1.0
    ax = plot.plot_zoom(changed(result, image=image))
    shown, (left, right, bottom, top) = ax.images[0].get_array(), ax.images[0].get_extent()
    x0, x1, y0, y1 = (*ax.get_xlim(), *reversed(ax.get_ylim()))
    assert left <= x0 < x1 <= right and top <= y0 < y1 <= bottom
    nm = PIXEL_A / 10
    rows, columns = np.nonzero(shown)
    drawn = np.stack([left / nm + 0.5 + columns, top / nm + 0.5 + rows], axis=1)
    expected = {tuple(p) for p in np.stack([x, y], axis=1).tolist()}
    assert len(drawn) > 20
    assert {tuple(p) for p in np.round(drawn, 6).tolist()} <= expected


def test_anisotropic_pixels_keep_angstroms(result):
    wide = changed(result, pixel_size_A=(0.2, 0.1))
    _, right, bottom, _ = plot.plot_image(wide).images[0].get_extent()
    assert right == pytest.approx(2 * bottom)


def test_plane_numbers_on_the_edge_meet_their_planes(result):
    ax = plot.plot_zoom(result)
    at = dict(zip([t.get_text() for t in ax.get_yticklabels()], ax.get_yticks(), strict=True))
    corner = np.array([max(ax.get_xlim()), at["3"]])
    k = result.columns[(result.columns["species"] == "K") & (result.columns["N"] == 3)]
    expected = (k[["x_px", "y_px"]].to_numpy() * PIXEL_A / 10) @ result.interface.normal
    assert corner @ result.interface.normal == pytest.approx(expected.mean(), abs=1e-6)
    assert abs(corner @ result.interface.normal - expected.mean()) < 0.2 * abs(at["3"] - at["4"])


def test_displacements_point_along_the_lattice(result):
    frame = result.columns[result.columns["species"] == "K"].head(2)
    frame = frame.assign(delta_A=[1.0, 0.0], delta_perp_A=[0.0, 2.0])
    u, v, _ = directions(4.0)
    np.testing.assert_allclose(st.displacement_vectors(result, frame), [0.1 * u, 0.2 * v])


@pytest.mark.parametrize(("interface", "factor", "unit"), [(True, 1, "Å"), (False, 100, "pm")])
def test_the_map_is_centred_on_zero_and_in_the_unit_of_the_words(result, interface, factor, unit):
    result = result if interface else make(interface=False)
    ax = plot.plot_displacement_map(result)
    cells = next(c for c in ax.collections if c.get_array() is not None)
    low, high = cells.get_clim()
    assert low == -high
    frame = st.used(result, "K")
    np.testing.assert_allclose(cells.get_array(), factor * frame["delta_A"])
    labels = [a.get_ylabel() for a in ax.child_axes]
    assert labels == [f"δ along [110] ({unit})"]


def test_the_map_follows_the_sign(result):
    columns = result.columns.assign(delta_A=-result.columns["delta_A"])
    flipped = plot.plot_displacement_map(changed(result, columns=columns))
    straight = plot.plot_displacement_map(result)
    one, two = (
        next(c for c in ax.collections if c.get_array() is not None).get_array()
        for ax in (straight, flipped)
    )
    np.testing.assert_allclose(one, -two)


def lightness(rgb):
    """Relative luminance to CIE L*, another space than the one the colours are made in."""
    rgb = np.asarray(rgb)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16


def test_the_diverging_scale_is_even_and_its_sides_alike():
    values = np.linspace(0, 1, 21)
    blue, orange = (lightness(colors.diverging(sign * values)) for sign in (-1, 1))
    for side in (blue, orange):
        steps = np.diff(side)
        assert (steps < 0).all() and np.ptp(steps) < 0.35 * np.abs(steps.mean())
    np.testing.assert_allclose(blue, orange, atol=6)
    # The scale that it replaces: steps of very different size.
    steps = np.diff(lightness(matplotlib.colormaps["seismic"](0.5 + values / 2)[:, :3]))
    assert np.ptp(steps) > np.abs(steps.mean())


def test_the_wheel_has_one_lightness_and_a_colour_for_every_direction():
    angle = np.deg2rad(np.arange(0, 360, 10))
    rim = colors.directed(np.stack([np.cos(angle), np.sin(angle)], axis=-1))
    assert np.ptp(lightness(rim)) < 8
    hsv = matplotlib.colormaps["hsv"](angle / (2 * np.pi))[:, :3]
    assert np.ptp(lightness(hsv)) > 40
    apart = np.linalg.norm(rim - np.roll(rim, 1, axis=0), axis=1)
    assert apart.min() > 0.3 * apart.max()
    middle = colors.directed(np.zeros((1, 2)))[0]
    assert np.ptp(middle) < 0.01  # grey
    # Up in the image is another colour than down.
    up, down = colors.directed(np.array([[0.0, -1.0], [0.0, 1.0]]))
    assert np.linalg.norm(up - down) > 0.3
    np.testing.assert_allclose(colors.directed(np.array([[0, -5.0]]))[0], up)


def test_the_map_of_directions_has_the_colours_of_its_vectors(result):
    ax = plot.plot_displacement_angle(result)
    cells = next(c for c in ax.collections if len(c.get_facecolor()) > 50)
    frame = st.used(result, "K")
    vectors = st.displacement_vectors(result, frame)
    limit = _plot_angle.full_colour_nm(vectors)
    np.testing.assert_allclose(cells.get_facecolor()[:, :3], colors.directed(vectors / limit))
    # Plane 1 moves along [110], up and to the right, further than the rim says.
    first = (frame["N"] == 1).to_numpy()
    toward = st.lattice_nm(result)[0] / np.linalg.norm(st.lattice_nm(result)[0])
    wanted = colors.directed(toward[None])[0]
    np.testing.assert_allclose(cells.get_facecolor()[first][:, :3].mean(axis=0), wanted, atol=0.06)
    key = " ".join(t.get_text() for child in ax.child_axes for t in child.texts)
    assert f"rim: {limit * 10:g} Å" in key and "[110]" in key and "[001]" in key
    lengths = np.hypot(*vectors.T)
    assert 0.8 * limit <= np.percentile(lengths, 98) <= 2 * limit


def test_missing_oxygen_is_counted_in_the_zoom(result):
    ax = plot.plot_zoom(result)
    x0, x1, y0, y1 = (*ax.get_xlim(), *reversed(ax.get_ylim()))
    o = st.used(result, "O")
    xy = o[["x_px", "y_px"]].to_numpy() * PIXEL_A / 10
    inside = (xy[:, 0] > x0) & (xy[:, 0] < x1) & (xy[:, 1] > y0) & (xy[:, 1] < y1)
    expected = int((inside & (o["occupancy"] < 0.5)).sum())
    dashed = [c for c in ax.collections if c.get_label() == "O, occupancy < 0.5"]
    assert expected > 5
    assert len(dashed[0].get_offsets()) == expected


def test_no_missing_oxygen_in_the_bulk(result):
    ax = plot.plot_zoom(result, where="far")
    assert not [c for c in ax.collections if "occupancy" in str(c.get_label())]


def test_means_and_both_errors_are_those_of_the_table(result):
    ax = plot.plot_decay(result)
    line = next(x for x in ax.lines if x.get_label() == "plane mean")
    np.testing.assert_allclose(line.get_ydata(), result.planes["delta_A"])
    heights = {}
    for container in ax.containers:
        segments = np.array(container.lines[2][0].get_segments())
        heights[container.get_label()] = np.ptp(segments[:, :, 1], axis=1) / 2
    np.testing.assert_allclose(heights["total error (1 s.e.)"], result.planes["delta_err_A"])
    np.testing.assert_allclose(heights["noise alone (1 s.e.)"], result.planes["delta_noise_A"])


def test_the_depth_axis_is_that_of_the_planes(result):
    ax = plot.plot_decay(result)
    top = ax.child_axes[0]
    assert top.get_xlabel() == "depth (nm)"
    assert top._functions[0](3.0) == pytest.approx(result.planes["depth_nm"].iloc[2])


def test_open_peaks_are_the_empty_planes(result):
    ax = plot.plot_line_profile(result)
    peaks = [x for x in ax.lines if x.get_marker() == "o" and len(x.get_xdata()) == 1]
    empty = (result.planes["occupancy"] < 0.5).to_numpy()[: len(peaks)]
    assert [x.get_markerfacecolor() == "none" for x in peaks] == list(empty)
    assert 0 < empty.sum() < len(peaks)


def test_one_colour_per_species_in_every_panel(result):
    colors = st.species_colors(result)
    assert len(set(colors.values())) == 3
    line = next(x for x in plot.plot_occupancy(result).lines if x.get_label() == "plane mean")
    assert to_hex(line.get_markerfacecolor()).upper() == colors["O"]
    drawn = next(c for c in plot.plot_image(result).collections if c.get_label() == "O")
    assert to_hex(drawn.get_facecolor()[0]).upper() == colors["O"]


@pytest.mark.parametrize("which", ["between", "within"])
def test_correlation_titles_state_the_numbers(result, which):
    title = plot.plot_correlation(result, which=which).get_title(loc="left")
    assert {"between": "Spearman = 0.93", "within": "p = 0.61"}[which] in title


def test_the_dose_series_is_drawn_with_its_line_and_its_value_at_zero_dose(result):
    series = result.dose_series
    dose = series["dose_middle_e_per_A2"]
    series = series.assign(delta1_A=0.5 - 1e-5 * dose, delta1_err_A=0.01)
    ax = plot.plot_dose(changed(result, dose_series=series))
    alone = series["kind"] == "point"
    # frame 5 was left out, but irradiated the specimen
    assert dose[alone].tolist() == [250, 750, 1250, 1750, 2250, 3250, 3750]
    error = 1000 * 0.01 / np.sqrt(np.sum((dose[alone] - dose[alone].mean()) ** 2))
    text = ax.get_title(loc="left")
    assert text == f"slope: \N{MINUS SIGN}0.0100 ± {error:.4f} Å per 1000 e/Å²"
    means, points, zero = ax.containers
    np.testing.assert_allclose(points.lines[0].get_xdata(), dose[alone])
    np.testing.assert_allclose(means.lines[0].get_xdata(), dose[~alone])
    assert means.lines[0].get_marker() != points.lines[0].get_marker()
    heights = np.ptp(np.array(points.lines[2][0].get_segments())[:, :, 1], axis=1) / 2
    np.testing.assert_allclose(heights, 0.01)
    assert zero.lines[0].get_xdata()[0] == 0.0
    assert zero.lines[0].get_ydata()[0] == pytest.approx(0.5)
    assert any("at zero dose: 0.500 ±" in t.get_text() for t in ax.get_legend().get_texts())


def test_the_occupancy_of_the_series_is_drawn(result):
    ax = plot.plot_dose(result, which="occupancy")
    points = result.dose_series[result.dose_series["kind"] == "point"]
    np.testing.assert_allclose(ax.containers[1].lines[0].get_ydata(), points["occupancy1"])
    assert ax.get_ylabel() == "O occupancy, N = 1 to 3"
    assert "Å per" not in ax.get_title(loc="left")


def test_a_series_without_dose_and_with_few_values_cannot_tell(result):
    series = result.dose_series.assign(dose_middle_e_per_A2=np.nan)
    series.loc[3:, "delta1_A"] = np.nan
    ax = plot.plot_dose(changed(result, dose_series=series))
    assert ax.get_xlabel() == "frames scanned"
    assert ax.get_title(loc="left") == "slope: cannot tell"


def test_the_limit_of_the_depth_test_is_drawn(result):
    depth = result.summary["depth"]
    noted = depth | {"displacement": depth["displacement"] | {"note": "less than 0.03 A cannot"}}
    ax = plot.plot_decay(changed(result, summary={"depth": noted}))
    drawn = [x.get_ydata()[0] for x in ax.lines if str(x.get_linestyle()) == "--"]
    assert sorted(drawn) == [-0.03, 0.03]
    assert not [x for x in plot.plot_decay(result).lines if str(x.get_linestyle()) == "--"]


def test_narrow_peaks_far_apart_get_narrow_bins(result):
    k = (result.columns["species"] == "K").to_numpy()
    wave = np.sin(np.arange(int(k.sum())))
    columns = result.columns.copy()
    columns.loc[k, "delta_A"], columns.loc[k, "delta_perp_A"] = -0.5 + 0.03 * wave, 0.03 * wave
    ax = plot.plot_displacement_distribution(changed(result, columns=columns))
    width = np.diff(np.unique(np.round(ax.patches[0].get_path().vertices[:, 0], 6))).min()
    assert width < 2.0  # pm; the peaks are 6 wide and 50 apart


def test_a_large_map_shows_means_over_blocks(result, monkeypatch):
    from matplotlib.quiver import Quiver

    def arrows(**columns):
        ax = plot.plot_displacement_map(changed(result, columns=result.columns.assign(**columns)))
        return next(c for c in ax.collections if isinstance(c, Quiver))

    single = arrows().N
    monkeypatch.setattr(_plot_maps, "MAX_ARROWS", 60)
    monkeypatch.setattr(_plot_maps, "BLOCKS", 60)
    assert 15 < arrows().N < 100 < single
    # A sign that changes from column to column is gone in the mean, one displacement is kept.
    flip = 0.1 * (1 - 2 * ((result.columns["i"] + result.columns["j"]) % 2))
    wild, calm = arrows(delta_A=flip, delta_perp_A=0.0), arrows(delta_A=0.1, delta_perp_A=0.0)
    key = [t.get_text() for t in plot.plot_displacement_map(result).texts]
    assert any("pm (" in text for text in key)
    assert np.ptp(calm.U) < 1e-9
    assert abs(wild.U.mean()) < 0.2 * np.abs(calm.U).mean() * len(wild.U)


def test_displacements_hold_on_an_oblique_lattice(result):
    u, v = np.array([10.0, 0.0]), 10.0 * np.array([np.cos(np.pi / 3), np.sin(np.pi / 3)])
    lattice = type(result.lattice)(**(vars(result.lattice) | {"u_px": u, "v_px": v}))
    d = np.array([0.3, 0.7])
    frame = result.columns.head(1).assign(delta_A=d @ u / 10, delta_perp_A=d @ v / 10)
    found = st.displacement_vectors(changed(result, lattice=lattice), frame)
    np.testing.assert_allclose(found, [d / 10])


def test_only_what_lies_in_a_box_is_in_its_legend(result):
    near, far = (
        [t.get_text() for t in plot.plot_zoom(result, where=w).get_legend().get_texts()]
        for w in ("near", "far")
    )
    assert {"interface", "line profile"} <= set(near)
    assert "interface" not in far


def test_unknown_correlation_is_said(result):
    empty = changed(result, summary={"correlation": None}, correlation=None)
    title = plot.plot_correlation(empty, which="within").get_title(loc="left")
    assert title.endswith("cannot tell")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: plot.plot_zoom(r, where="middle"), 'is not "near" or "far"'),
        (lambda r: plot.plot_correlation(r, which="all"), 'is not "between" or "within"'),
        (lambda r: plot.plot_dose(r, which="both"), 'is not "displacement" or "occupancy"'),
        (lambda r: plot.plot_registration(changed(r, frames=None)), "needs a stack"),
        (lambda r: plot.plot_dose(changed(r, dose_series=None)), "needs a stack"),
        (lambda r: plot.plot_line_profile(changed(r, line_profile=None)), "needs an interface"),
        (lambda r: plot.plot_counting(changed(r, interface=None)), "no interface"),
        (lambda r: st.nice_length(0.0), "positive"),
    ],
)
def test_wrong_calls_name_the_remedy(result, call, message):
    with pytest.raises(ValueError, match=message):
        call(result)


def test_round_lengths():
    assert [st.nice_length(x) for x in (0.99, 1.0, 4.9, 5.0, 73.0)] == [0.5, 1.0, 2.0, 5.0, 50.0]


@pytest.mark.parametrize(
    ("uvw", "name"),
    [
        ((0.5, 0.5, 0), "[110]"),
        ((0, 0, 1), "[001]"),
        ((1, -1, 0), "[1-10]"),
        ((0.5, 0.5, -1), "[11-2]"),
        ((0.123, 0.456, 0.99), "[0.12 0.46 0.99]"),
    ],
)
def test_direction_names(uvw, name):
    assert st.direction_name(uvw) == name


def test_counting_labels_bands_by_the_rule(result):
    ax = plot.plot_counting(result)
    labels = [t.get_text() for t in ax.texts]
    assert {"N = 1", "N = 2", "N = 3", "[001]", "[110]\nδ > 0", "film"} <= set(labels)
    where = {t.get_text(): np.array(t.get_position()) for t in ax.texts}
    assert where["N = 1"][1] < where["N = 2"][1]  # y is down: plane 1 is the upper one
    normal = result.interface.normal
    upper, lower = (where[f"l = {x}"] @ normal for x in ("0.5", "0"))
    # A band holds the cage plane l = 0.5 and the layer l = 0 below it.
    assert where["N = 1"] @ normal == pytest.approx((upper + lower) / 2, abs=0.02)


def test_hostile_names_stay_text_in_svg(result):
    species = result.columns["species"].replace({"Ta": "<script>alert(1)</script>$x$"})
    bad = changed(result, columns=result.columns.assign(species=species))
    with matplotlib.rc_context(st.rc_params()):
        buffer = io.BytesIO()
        plot.plot_image(bad).figure.savefig(buffer, format="svg", dpi=40)
    text = buffer.getvalue().decode()
    assert "<script" not in text
    assert "&lt;script" in text


def test_text_in_svg_stays_text(result):
    with matplotlib.rc_context(st.rc_params()):
        buffer = io.BytesIO()
        plot.plot_decay(result).figure.savefig(buffer, format="svg", dpi=40)
    assert ">plane number N</text>" in buffer.getvalue().decode()
