"""Corrections by hand: their file, what they do to a run with known truth, and the window."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import stemdisp
from stemdisp import editor
from stemdisp._correct import check_data, correct_columns, image_notes
from stemdisp.cli import main
from stemdisp.corrections import Corrections, ImageId, load_corrections
from stemdisp.errors import ConfigError, DataError
from stemdisp.find import find_columns
from stemdisp.pipeline import run
from stemdisp.simulate import simulate_stack
from stemdisp.tables import Quality

PIXEL_A = 0.15
SETTINGS = {"analysis": {"dose_series": False}}
REMOVED, ADDED, CORRECTED = (int(q) for q in (Quality.REMOVED, Quality.ADDED, Quality.CORRECTED))


@pytest.fixture(scope="module")
def simulated():
    """An image of one frame, and where its columns truly are."""
    stack, truth = simulate_stack("lao-kto-111", seed=3, n_frames=1, size=300)
    return stack.inav[0], truth


@pytest.fixture(scope="module")
def image(simulated):
    return simulated[0]


@pytest.fixture(scope="module")
def automatic(image):
    return run(image, settings=SETTINGS)


@pytest.fixture(scope="module")
def without_ta(image, automatic):
    """The run from which one good Ta column was removed, by call."""
    made = Corrections.of(automatic).remove(*site(automatic, pick(automatic, "Ta")))
    return corrected(image, made)


def pick(result, species, number=0, plane=6):
    """A column well inside the crystal, those in the middle of the image first."""
    table = result.columns
    good = (table["species"] == species) & (table["N"] == plane) & (table["quality"] == 0)
    order = (table["x_px"] - result.image.shape[1] / 2).abs()[good].sort_values().index
    return table.loc[order[number]]


def site(result, column):
    """Where it is expected."""
    return tuple(result.lattice.position([[column["i"], column["j"]]])[0])


def same(result, column):
    """The row of the same site in another run."""
    table = result.columns
    away = np.hypot(table["i"] - column["i"], table["j"] - column["j"])
    assert away.min() < 1e-6
    return table.loc[away.idxmin()]


def corrected(image, corrections, **settings):
    return run(image, settings=SETTINGS | settings, corrections=corrections)


# --- the file


def all_kinds():
    image = ImageId((300, 280), "ab" * 32, 'a "b" \\ ü.hspy')
    return (
        Corrections(image=image)
        .remove(1.25, 2)
        .add("O", 0.1 + 0.2, 4.0)
        .move((5.0, 6.0), (7.5, 8.0))
        .relabel(9.0, 10.0, "Ta")
        .move_interface([(0.0, 11.0), (100.0, 12.5)])
    )


def test_the_file_gives_back_the_same_corrections(tmp_path):
    made = all_kinds()
    path = made.save(tmp_path / "c.toml")
    assert load_corrections(path) == made
    assert load_corrections(path).to_toml() == path.read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["c.toml"]
    assert load_corrections(Corrections().save(tmp_path / "none.toml")) == Corrections()
    assert made.describe() == (
        "5 corrections by hand: 1 removed, 1 added, 1 moved, 1 relabelled, interface stated"
    )


def test_another_file_is_not_overwritten(tmp_path):
    settings = tmp_path / "my.toml"
    settings.write_text("[analysis]\nseed = 3\n")
    with pytest.raises(ConfigError, match="no file of corrections, so it stays"):
        Corrections().remove(1, 2).save(settings)
    assert settings.read_text() == "[analysis]\nseed = 3\n"


def test_corrections_do_not_change_in_place_and_can_be_undone():
    first = Corrections().remove(1, 2)
    second = first.move_interface([(5, 5)])
    assert len(first.steps) == 1 and first.interface is None
    assert second.interface == ((5.0, 5.0),)
    assert second.undo() == first
    assert first.undo().undo() == Corrections()
    assert second.sha256() != first.sha256() == second.undo().sha256()
    with pytest.raises(AttributeError):
        first.steps = ()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda c: c.remove(float("nan"), 1), "at_px = .*two finite numbers"),
        (lambda c: c.move((1, 2), (1, float("inf"))), "to_px = .*two finite numbers"),
        (lambda c: c.add("oxygen", 1, 2), "species = 'oxygen' is not a species"),
        (lambda c: c.move_interface([]), "one point"),
        (lambda c: c.move_interface([(1, 1), (1, 1)]), "same point twice"),
    ],
)
def test_wrong_calls_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call(Corrections())


HEAD = "format = 1\n[[correction]]\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("format = ", "is not valid TOML"),
        ("", "format = None is not 1"),
        ("format = 2", "format = 2 is not 1"),
        ("format = 1\ncorections = []", "no key 'corections'; did you mean 'correction'"),
        ("format = 1\ncorrection = 3", "not a list of tables"),
        ("format = 1\n[image]\nsize = [3, 4]", r"\[image\] has no key 'size'"),
        ("format = 1\n[image]\nsize_px = [3.5, 4]", r"size_px = \[width, height\]"),
        (HEAD + 'action = "delete"\nat_px = [1, 2]', "correction 1: there is no action 'delete'"),
        (HEAD + 'action = "removed"\nat_px = [1, 2]', "did you mean 'remove'"),
        (HEAD + 'action = "remove"\nat = [1, 2]', "'remove' has no key 'at'"),
        (HEAD + 'action = "move"\nat_px = [1, 2]', "'move' lacks to_px"),
        (HEAD + 'action = "remove"\nat_px = [nan, 2]', "correction 1: at_px = .*finite"),
        (HEAD + 'action = "remove"\nat_px = "12"', "at_px = '12'"),
        (HEAD + 'action = "add"\nat_px = [1, 2]\nspecies = 3', "species = 3"),
    ],
)
def test_bad_files_are_one_line_and_end_before_data_are_read(text, words, tmp_path, capsys):
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        load_corrections(path)
    assert str(path) in str(caught.value)
    config = tmp_path / "run.toml"
    config.write_text("[input]\npath = ['absent.hspy']\ncorrections = 'c.toml'\n")
    with pytest.raises(SystemExit) as ended:
        main(["run", str(config), "--output", str(tmp_path / "out"), "--quiet"])
    lines = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert len(lines) == 1 and str(path) in lines[0]


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.toml: no such file of corrections"):
        load_corrections(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="is a directory"):
        load_corrections(tmp_path)


# --- what they do to a run


def test_without_a_correction_not_a_bit_changes(image, automatic):
    again = corrected(image, Corrections.of(automatic))
    pd.testing.assert_frame_equal(again.columns, automatic.columns, check_exact=True)
    pd.testing.assert_frame_equal(again.planes, automatic.planes, check_exact=True)
    assert again.corrections is None and again.summary["corrections"] is None


def test_the_same_file_gives_the_same_bits(image, automatic, without_ta, tmp_path):
    by_call, made = without_ta, without_ta.corrections
    by_file = corrected(image, made.save(tmp_path / "c.toml"))
    pd.testing.assert_frame_equal(by_call.columns, by_file.columns, check_exact=True)
    pd.testing.assert_frame_equal(by_call.planes, by_file.planes, check_exact=True)
    assert not by_call.columns.equals(automatic.columns)
    said = by_file.summary["corrections"]
    assert (said["n"], said["removed"], said["interface"]) == (1, 1, False)
    assert said["sha256"] == by_call.summary["corrections"]["sha256"] == made.sha256()
    files = [r.summary["configuration"]["files"]["input.corrections"] for r in (by_call, by_file)]
    assert files[0] == files[1]


def test_dirt_on_a_column_is_removed_with_it(image, automatic):
    """A blob on a Ta column pulls the cages of two K columns aside, until it is removed."""
    column = pick(automatic, "Ta")
    y, x = np.mgrid[: image.data.shape[0], : image.data.shape[1]]
    there = [column["x_px"] + 3.5, column["y_px"] - 2.0]
    spoilt = image.deepcopy()
    height = 0.9 * np.ptp(image.data[100:])
    spoilt.data = image.data + height * np.exp(
        -((x - there[0]) ** 2 + (y - there[1]) ** 2) / (2 * 3.5**2)
    )
    by_itself = run(spoilt, settings=SETTINGS)
    cages = [(column["i"], column["j"] + side) for side in (-0.5, 0.5)]

    def deltas(result):
        table = result.columns
        return np.array(
            [
                table.loc[
                    np.hypot(table["i"] - i, table["j"] - j).idxmin(), ["delta_A", "delta_perp_A"]
                ]
                for i, j in cages
            ],
            dtype=float,
        )

    wrong = np.abs(deltas(by_itself) - deltas(automatic))
    assert wrong.max() > 0.07  # the control: the dirt does harm
    clean = corrected(spoilt, Corrections().remove(*site(automatic, column)))
    right = np.abs(deltas(clean) - deltas(automatic))
    assert (right.max(axis=0) < 0.6 * wrong.max(axis=0)).all()
    gone = same(clean, column)
    assert gone["species"] == "Ta" and gone["quality"] == REMOVED
    values = ["x_px", "y_px", "x_err_A", "intensity", "sigma_A", "significance", "delta_A"]
    assert gone[values].isna().all()
    assert len(clean.columns) == len(by_itself.columns)
    # what is there is modelled, not taken for a new column
    spots = clean.unexpected[["x_px", "y_px"]].to_numpy()
    assert not len(spots) or np.hypot(*(spots - there).T).min() > 5


def test_removing_a_good_column_leaves_its_neighbours_alone(automatic, without_ta):
    column, result = pick(automatic, "Ta"), without_ta
    both = automatic.columns.merge(result.columns, on=["i", "j"], suffixes=("", "_new"))
    moved = both[["x_A", "y_A"]].to_numpy() - both[["x_A_new", "y_A_new"]].to_numpy()
    seen = (both["quality"] == 0).to_numpy() & (both["quality_new"] == 0).to_numpy()
    pull = np.abs(moved) / both[["x_err_A", "y_err_A"]].to_numpy()
    assert pull[seen].max() < 0.1
    # the cages that it closed are open: their pair is gone
    for side in (-0.5, 0.5):
        k = automatic.columns.query("species == 'K'")
        k = k.loc[np.hypot(k["i"] - column["i"], k["j"] - column["j"] - side).idxmin()]
        assert same(result, k)["n_pairs"] == k["n_pairs"] - 1


def test_a_column_that_the_fit_lost_is_found_from_a_new_start(simulated, automatic):
    """A K column far off its site: its fit ends elsewhere, until it is told where to start."""
    image, _ = simulated
    column = pick(automatic, "K")
    u = automatic.lattice.u_px / np.hypot(*automatic.lattice.u_px)
    old = np.array([column["x_px"], column["y_px"]])
    new = old + 1.15 / PIXEL_A * u
    y, x = np.mgrid[: image.data.shape[0], : image.data.shape[1]]
    sigma = column["sigma_A"] / PIXEL_A
    height = column["intensity"] / (2 * np.pi * column["sigma_A"] ** 2)
    spoilt = image.deepcopy()
    for place, sign in ((old, -1), (new, 1)):
        off = (x - place[0]) ** 2 + (y - place[1]) ** 2
        spoilt.data = spoilt.data + sign * height * np.exp(-off / (2 * sigma**2))

    def error_A(result):
        row = same(result, column)
        return np.hypot(row["x_px"] - new[0], row["y_px"] - new[1]) * PIXEL_A

    lost = run(spoilt, settings=SETTINGS)
    assert error_A(lost) > 0.3
    seen = (round(new[0]) + 1.0, round(new[1]) - 1.0)  # as well as an eye sees it
    found = corrected(spoilt, Corrections().move(site(automatic, column), seen))
    assert error_A(found) < 0.05
    assert same(found, column)["quality"] == CORRECTED
    assert same(found, column)["delta_A"] == pytest.approx(column["delta_A"] + 1.15, abs=0.1)


def test_wrong_labels_spoil_what_is_measured(image, automatic):
    """The control: K columns that are called O are missed by delta, and spoil the occupancy."""
    made, names = Corrections.of(automatic), []
    for number in (0, 1):
        column = pick(automatic, "K", number)
        made, names = made.relabel(*site(automatic, column), "O"), [*names, column]
    result = corrected(image, made)
    plane, before = (r.planes.set_index("N").loc[6] for r in (result, automatic))
    assert plane["n_columns"] == before["n_columns"] - 2
    assert plane["n_anions"] == before["n_anions"] + 2
    assert plane["occupancy"] > before["occupancy"] + 0.03
    for column in names:
        row = same(result, column)
        assert (row["species"], row["quality"]) == ("O", CORRECTED)
        assert np.isnan(row["delta_A"]) and row["sigma_A"] < column["sigma_A"]
        assert row["occupancy"] > 1.1


def test_a_relabelled_column_leaves_the_cages(image, automatic):
    column = pick(automatic, "Ta")
    result = corrected(image, Corrections().relabel(*site(automatic, column), "K"))
    row = same(result, column)
    # it has no cage of its own, and closes none
    assert row["quality"] == CORRECTED | int(Quality.NO_CAGE) and np.isnan(row["delta_A"])
    k = automatic.columns.query("species == 'K'")
    k = k.loc[np.hypot(k["i"] - column["i"], k["j"] - column["j"] - 0.5).idxmin()]
    assert same(result, k)["n_pairs"] == k["n_pairs"] - 1


def test_an_added_column_is_fitted_and_never_averaged(simulated, automatic):
    """An extra column between four others, where the lattice has no site."""
    image, _ = simulated
    k = pick(automatic, "K")
    u, v = automatic.lattice.u_px, automatic.lattice.v_px
    place = np.array(site(automatic, k)) + 0.5 * u
    y, x = np.mgrid[: image.data.shape[0], : image.data.shape[1]]
    extra = image.deepcopy()
    sigma = automatic.summary["refine"]["sigma_A"]["O"] / PIXEL_A
    height = 0.3 * np.ptp(image.data[100:])
    extra.data = image.data + height * np.exp(
        -((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * sigma**2)
    )
    by_itself = run(extra, settings=SETTINGS)
    assert by_itself.summary["unexpected"] == 1  # the run says so, and fits nothing
    made = Corrections().add("O", place[0] + 1.5, place[1] - 1.0)
    result = corrected(extra, made)
    added = result.columns[(result.columns["quality"] & ADDED) > 0]
    assert len(added) == 1 and result.summary["unexpected"] == 0
    row = added.iloc[0]
    assert np.hypot(row["x_px"] - place[0], row["y_px"] - place[1]) * PIXEL_A < 0.05
    assert row["intensity"] == pytest.approx(
        height * 2 * np.pi * (sigma * PIXEL_A) ** 2, abs=5 * row["intensity_err"]
    )
    assert row["species"] == "O" and row["N"] == 5 and np.isnan(row["occupancy"])
    assert (row["i"], row["j"]) == pytest.approx((k["i"] + 0.5, k["j"]), abs=0.05 + 2 / len(v) / 9)
    assert list(result.planes["n_anions"]) == list(automatic.planes["n_anions"])


def test_beyond_the_interface_a_column_is_marked(image, automatic):
    ta = automatic.columns.query("species == 'Ta' and N == 1").iloc[3]
    beyond = automatic.lattice.position([[ta["i"] + 1, ta["j"]]])[0]
    result = corrected(image, Corrections().add("Ta", *beyond))
    row = result.columns[(result.columns["quality"] & ADDED) > 0].iloc[0]
    assert row["quality"] & int(Quality.FILM)
    assert (row["i"], row["j"]) == (ta["i"] + 1, ta["j"])  # that of the site
    assert pd.isna(row["N"]) and row["layer"] == ta["layer"] + 1
    assert list(result.planes["N"]) == list(automatic.planes["N"])


def test_corrections_see_those_before_them(automatic):
    """What was added can be moved, relabelled and removed; what was removed can be added."""
    k = site(automatic, pick(automatic, "K"))
    free = (150.0, 12.0)
    start = Corrections().add("O", *free)
    moved = applied(automatic, start.move(free, (152.0, 13.0)).relabel(*free, "Ta"))
    row = moved.columns.iloc[-1]
    assert (row["x_px"], row["y_px"], row["species"]) == (152.0, 13.0, "Ta")
    assert row["quality"] & ADDED and tuple(moved.home_px[-1]) == free
    assert applied(automatic, start.remove(*free)).removed[-1]
    back = applied(automatic, Corrections().remove(*k).add("O", *k))
    plain = applied(automatic, Corrections())
    assert not back.removed.any() and len(back.columns) == len(plain.columns)
    changed = back.columns["quality"] != plain.columns["quality"]
    assert back.columns.loc[changed, ["species", "quality"]].to_numpy().tolist() == [
        ["O", CORRECTED]
    ]


def test_a_wrong_interface_is_put_right(image, automatic):
    """The configuration states one that lies four planes too deep."""
    side, along = automatic.interface.normal, 60 * automatic.interface.normal[::-1] * [1, -1]
    middle = automatic.interface.position_px
    deep = middle - 4 * automatic.interface.spacing_px * side
    wrong_at = {"interface": {"at": [(deep - along).tolist(), (deep + along).tolist()]}}
    wrong = corrected(image, None, **wrong_at)
    first = [r.planes.set_index("N").loc[1, "delta_A"] for r in (wrong, automatic)]
    assert first[0] < 0.3 < 0.45 < first[1]
    line = [tuple(middle - along), tuple(middle + along)]
    right = corrected(image, Corrections().move_interface(line), **wrong_at)
    assert right.interface.top_layer == automatic.interface.top_layer
    assert right.planes.loc[0, "delta_A"] == pytest.approx(first[1], abs=0.005)
    assert right.summary["corrections"]["interface"] is True
    with pytest.raises(ConfigError, match="present = false says that there is none"):
        corrected(image, Corrections().move_interface(line), interface={"present": False})
    with pytest.raises(DataError, match=r"^corrections, interface: .* outside the image"):
        corrected(image, Corrections().move_interface([(-50, -50)]))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda c, k, ta: c.remove(-3, 20), "outside the image of 300 x 300 px"),
        (lambda c, k, ta: c.move(k, (20, 300)), "outside the image"),
        (lambda c, k, ta: c.relabel(*k, "La"), "no column called La; it has K, Ta, O"),
        (lambda c, k, ta: c.add("La", *k), "no column called La"),
        (lambda c, k, ta: c.remove(150, 3), "no column is expected there; the nearest, Ta at"),
        (lambda c, k, ta: c.remove(*k).remove(*k), "^correction 2, remove at .*no column"),
        (lambda c, k, ta: c.add("K", *k), "K at .* is expected there already"),
        (lambda c, k, ta: c.move(k, ta), "the fit of Ta at .* starts there"),
        (lambda c, k, ta: c.remove(k[0] + 4.9, k[1]), "no column is expected there"),
    ],
)
def test_what_does_not_fit_the_image_is_named(make, words, automatic):
    places = [site(automatic, pick(automatic, species)) for species in ("K", "Ta")]
    with pytest.raises(DataError, match=words) as caught:
        applied(automatic, make(Corrections(), *places))
    assert str(caught.value).startswith("correction ") and "\n" not in str(caught.value)
    assert applied(automatic, Corrections().remove(places[0][0] + 4.5, places[0][1])).removed.any()


def applied(result, corrections):
    crystal = {"projection": result.projection, "interface": result.interface}
    return correct_columns(
        find_columns(result.image, result.lattice, **crystal),
        corrections,
        lattice=result.lattice,
        shape=result.image.shape,
        **crystal,
    )


def test_halves_and_the_dose_series_know_what_was_removed():
    stack, _ = simulate_stack("lao-kto-111", seed=4, n_frames=2, size=240)
    plain = run(stack)
    made = Corrections.of(plain)
    for number in range(4):  # of plane 1 nearly all K columns
        column = plain.columns.query("species == 'K' and N == 1 and n_pairs > 0").iloc[number]
        made = made.remove(*site(plain, column))
    result = run(stack, corrections=made)
    n = [r.planes.set_index("N").loc[1, "n_columns"] for r in (plain, result)]
    assert n[1] == n[0] - 4
    errors = [
        r.dose_series.query("kind == 'point'")["delta1_err_A"].to_numpy() for r in (plain, result)
    ]
    assert (errors[1] > 1.1 * errors[0]).all()
    assert np.isfinite(result.dose_series["delta1_A"]).all()


# --- files, and which image


def test_corrections_belong_to_an_image(image, automatic, tmp_path):
    path = tmp_path / "image.npy"
    np.save(path, image.data)
    settings = {"input": {"path": [str(path)], "pixel_size": PIXEL_A}} | SETTINGS
    first = run(settings)
    made = Corrections.of(first)
    assert made.image.size_px == (300, 300) and made.image.input == "image.npy"
    made = made.remove(*site(first, pick(first, "Ta")))
    check_data(made, [str(path)])  # the control
    np.save(path, image.data * 2)
    with pytest.raises(DataError, match=r"made on other data \(image\.npy\)"):
        run(settings, corrections=made)
    # a signal has no checksum; another size is warned of
    other = Corrections(made.steps, ImageId((310, 300)))
    codes = [w["code"] for w in corrected(image, other).summary["warnings"]]
    assert codes.count("corrections-other-image") == 1
    assert image_notes(made, image.data.shape) == []


def test_the_output_repeats_the_run(image, automatic, tmp_path, capsys, monkeypatch):
    """The command line: a copy beside the results, and a configuration that reads it."""
    np.save(tmp_path / "image.npy", image.data)
    made = Corrections().remove(*site(automatic, pick(automatic, "Ta"))).save(tmp_path / "my.toml")
    config = tmp_path / "run.toml"
    text = "[input]\npath = ['image.npy']\npixel_size = 0.15\n"
    config.write_text(text)
    with monkeypatch.context() as patch:
        patch.setattr("stemdisp.report.figures.draw_figures", lambda *a, **k: [])
        with pytest.raises(SystemExit) as ended:
            main(["run", str(config), "--corrections", str(made), "--output", str(tmp_path / "a")])
    out = capsys.readouterr().out
    assert ended.value.code == 0
    assert "1 correction by hand: 1 removed" in out
    first = tmp_path / "a"
    assert (first / "corrections.toml").read_bytes() == made.read_bytes()
    page = (first / "report.html").read_text()
    assert "1 correction by hand: 1 removed (<code>corrections.toml</code>)" in page
    assert "corrections = &#34;corrections.toml&#34;" in page
    said = json.loads((first / "summary.json").read_text())
    assert said["configuration"]["files"]["input.corrections"]
    # the key of the configuration, beside its file, gives the same
    config.write_text(text + "corrections = 'my.toml'\n")
    again = run(config)
    written = pd.read_csv(first / "columns.csv")
    assert np.allclose(written["x_px"], again.columns["x_px"], rtol=1e-5, equal_nan=True)
    assert again.summary["corrections"] == said["corrections"]


def test_a_batch_sees_changed_corrections_and_refuses_them_for_many_files(tmp_path, capsys):
    from stemdisp._provenance import settings_of
    from stemdisp.config import Config, with_input

    path = Corrections().remove(1, 2).save(tmp_path / "c.toml")
    config = with_input(Config(), corrections=str(path))
    before = settings_of(config)
    assert settings_of(config) == before
    Corrections().remove(1, 3).save(path)
    assert settings_of(config) != before
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", np.zeros((4, 4)))
    file = tmp_path / "run.toml"
    file.write_text("[input]\npath = ['*.npy']\ncorrections = 'c.toml'\n")
    with pytest.raises(SystemExit) as ended:
        main(["run", str(file), "--output", str(tmp_path / "out")])
    assert ended.value.code == 2
    assert "belong to one image" in capsys.readouterr().err


# --- the window


class Hand:
    """Moves the mouse and presses keys, as matplotlib's backends report it."""

    def __init__(self, window):
        self.window, self.canvas = window, window.figure.canvas
        self.canvas.draw()
        self.canvas.draw_idle = lambda: None  # what is drawn is not looked at
        self.axes = window.figure.axes[0]

    def _send(self, kind, name, at, **more):
        x, y = self.axes.transData.transform(at)
        self.canvas.callbacks.process(name, kind(name, self.canvas, x=x, y=y, **more))

    def mouse(self, what, at, button=1):
        from matplotlib.backend_bases import MouseEvent

        self._send(MouseEvent, what, at, button=button)

    def click(self, at, button=1):
        self.mouse("button_press_event", at, button)
        self.mouse("button_release_event", at, button)

    def drag(self, start, to):
        self.mouse("button_press_event", start)
        self.mouse("motion_notify_event", to)
        self.mouse("button_release_event", to)

    def key(self, key, at=(20, 20)):
        from matplotlib.backend_bases import KeyEvent

        self._send(KeyEvent, "key_press_event", at, key=key)

    @property
    def says(self):
        return self.window.figure.texts[0].get_text()


@pytest.fixture
def hand(automatic, tmp_path):
    from matplotlib import pyplot as plt

    yield Hand(stemdisp.edit(automatic, path=tmp_path / "window.toml", show=False))
    plt.close("all")


def rounded(point):
    return tuple(round(float(x), 2) for x in point)


def test_clicks_and_calls_write_the_same_file(automatic, hand, tmp_path):
    ta, k, o = (pick(automatic, s) for s in ("Ta", "K", "O"))
    drawn = [np.array([c["x_px"], c["y_px"]]) for c in (ta, k, o)]
    homes = [rounded(site(automatic, c)) for c in (ta, k, o)]
    free = (150.0, 12.0)
    hand.click(drawn[0] + [1.0, -1.0])  # not quite on it
    hand.key("d")
    hand.click(drawn[1])
    hand.key("r")
    hand.drag(drawn[2], drawn[2] + [2.0, 1.5])
    hand.key("2")
    hand.key("a", free)
    hand.key("i")
    points = [(40.25, 60.5), (200.0, 66.0)]
    hand.click(points[0])
    hand.click(points[1])
    hand.key("enter")
    hand.key("s")
    by_calls = (
        Corrections.of(automatic)
        .remove(*homes[0])
        .relabel(*homes[1], "Ta")
        .move(homes[2], rounded(drawn[2] + [2.0, 1.5]))
        .add("Ta", *free)
        .move_interface(points)
    )
    assert hand.window.corrections == by_calls == hand.window.saved
    path = by_calls.save(tmp_path / "calls.toml")
    assert (tmp_path / "window.toml").read_bytes() == path.read_bytes()
    hand.key("u")
    hand.key("u")
    assert hand.window.corrections == by_calls.undo().undo()
    assert hand.window.saved == by_calls


def test_pressing_r_again_goes_on_to_the_next_species(automatic, hand):
    k = pick(automatic, "K")
    at = np.array([k["x_px"], k["y_px"]])
    home = rounded(site(automatic, k))
    hand.click(at)
    hand.key("r")
    hand.key("r")
    assert hand.window.corrections.steps == Corrections().relabel(*home, "O").steps
    hand.drag(at, at + 3)
    hand.drag(at + 3, at + 6)  # it is picked up where it was put
    assert hand.window.corrections.steps[1:] == Corrections().move(home, rounded(at + 6)).steps
    hand.key("u")
    hand.key("u")
    assert hand.window.corrections.steps == ()


def test_what_a_run_would_refuse_is_said_and_not_written_down(automatic, hand):
    k = pick(automatic, "K")
    at = (k["x_px"], k["y_px"])
    hand.key("d")
    assert hand.says == "click a column first"
    hand.key("a", at)
    assert hand.says.startswith("not possible: ") and "expected there already" in " ".join(
        hand.says.split()
    )
    hand.click((150, 5))
    assert hand.says == "no column here"
    hand.key("u")
    assert hand.says == "nothing to undo"
    assert hand.window.corrections.steps == ()


@pytest.mark.parametrize("mode", ["zoom rect", "pan/zoom"])
def test_zoom_and_pan_edit_nothing(automatic, hand, mode):
    k = pick(automatic, "K")
    at = np.array([k["x_px"], k["y_px"]])
    hand.canvas.manager.toolbar = SimpleNamespace(mode=mode)
    hand.drag(at, at + 5)
    hand.click(at)
    hand.key("d")
    assert hand.window.corrections.steps == ()
    hand.canvas.manager.toolbar.mode = ""  # the control
    hand.drag(at, at + 5)
    assert len(hand.window.corrections.steps) == 1


def test_other_buttons_small_moves_and_escape_edit_nothing(automatic, hand):
    k = pick(automatic, "K")
    at = np.array([k["x_px"], k["y_px"]])
    hand.click(at, button=3)
    hand.key("d")
    hand.drag(at, at + 0.3)  # an unsteady click
    hand.key("escape")
    hand.key("d")
    hand.key("i")
    hand.click(at)
    hand.key("escape")
    hand.key("enter")
    hand.key("ctrl+z")
    assert hand.window.corrections.steps == ()


def test_the_window_goes_on_from_the_corrections_of_the_run(automatic, without_ta, tmp_path):
    k = pick(automatic, "Ta")
    window = stemdisp.edit(without_ta, path=tmp_path / "c.toml", show=False)
    assert window.corrections == without_ta.corrections
    hand = Hand(window)
    hand.key("u")
    assert window.corrections.steps == ()
    hand.click((k["x_px"], k["y_px"]))  # it is back
    hand.key("d")
    assert [s.action for s in window.corrections.steps] == ["remove"]


def test_without_a_window_it_says_what_to_do(automatic):
    with pytest.raises(ConfigError, match=r"cannot open a window here .*ipympl"):
        editor.edit(automatic)


def test_the_command_goes_on_from_a_file_and_says_what_was_not_saved(tmp_path, capsys, monkeypatch):
    config = tmp_path / "run.toml"
    config.write_text("[input]\npath = ['absent.hspy']\n")
    path = Corrections().remove(1, 2).save(tmp_path / "c.toml")

    def call():
        with pytest.raises(SystemExit) as ended:
            main(["edit", str(config), "--corrections", str(path)])
        return ended.value.code, capsys.readouterr()

    code, said = call()
    assert code == 2 and "cannot open a window" in said.err  # before anything is read
    seen = []
    monkeypatch.setattr(editor, "check_window", lambda: None)
    monkeypatch.setattr(
        "stemdisp.pipeline.run", lambda settings, **given: seen.append(given["corrections"])
    )
    made = load_corrections(path)
    window = SimpleNamespace(corrections=made.remove(3, 4), saved=made)
    monkeypatch.setattr(editor, "edit", lambda result, path: window)
    code, said = call()
    assert code == 0 and seen == [str(path)]
    assert "2 corrections by hand: 2 removed" in said.out and "without saving" in said.err
    window.saved = window.corrections
    path.unlink()
    code, said = call()
    assert code == 0 and seen[1] is None and said.err == ""
