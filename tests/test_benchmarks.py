"""A tiny run of the benchmarks, so that they do not rot, and their scores on known errors."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from benchmarks import THREADS, accuracy, large, report, scene, shape, speed
from benchmarks.report import Options

SIZE = 128


@pytest.fixture(scope="module")
def truth():
    return scene.true_columns(SIZE)


def disturbed(truth, bound, seed, scale=1.0, response=1.0):
    """A pretended fit: errors of `scale` bounds, honest claims, and a damped response."""
    rng = np.random.default_rng(seed)
    out = truth.copy()
    for axis in "xy":
        error = scale * bound[f"{axis}_err_A"] * rng.normal(size=len(truth))
        static = truth[f"static_{axis}_px"] * scene.PIXEL_A
        out[f"{axis}_px"] += (error + (response - 1) * static) / scene.PIXEL_A
        out[f"{axis}_err_A"] = bound[f"{axis}_err_A"]
    out["intensity_err"] = bound["intensity_err"]
    out["intensity"] += scale * bound["intensity_err"] * rng.normal(size=len(truth))
    return out.assign(quality=0)


def test_the_image_is_that_of_the_published_comparison():
    # Its bounds, computed elsewhere with a width for each column: 0.62, 0.81, 1.98 pm.
    assert len(scene.true_columns(512)) == 607
    columns = scene.true_columns(256)
    rms = columns[["static_x_px", "static_y_px"]].to_numpy().std() * scene.PIXEL_A
    assert rms == pytest.approx(0.05, rel=0.1)
    bound = accuracy.bounds_of(columns, 256, scene.KINDS[1], "column")
    bulk = bound[(columns["N"] >= 6).to_numpy()].set_index("species")
    squares = (bulk[["x_err_A", "y_err_A"]] ** 2).mean(axis=1)
    rms_pm = 100 * np.sqrt(squares.groupby("species").mean())
    assert [rms_pm[s] for s in scene.SPECIES] == pytest.approx([0.62, 0.81, 1.98], rel=0.05)


@pytest.mark.parametrize("kind", scene.KINDS, ids=lambda k: k.name)
def test_noise_has_the_level_it_claims(truth, kind):
    perfect = scene.perfect_image(truth, SIZE)
    noise = scene.add_noise(perfect, kind, 3) - perfect
    k = 2 * np.pi * np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.fftfreq(SIZE)[None, :])
    power = np.abs(np.fft.fft2(noise)) ** 2 / SIZE**2
    band = (k > 0.2) & (k < 2.5)
    level = np.mean((power * k**2 if kind.noise == "idpc" else power)[band])
    expected = np.mean(perfect) / kind.level if kind.noise == "poisson" else kind.level
    assert level == pytest.approx(expected, rel=0.05)


def test_scores_of_known_errors(truth):
    bound = accuracy.bounds_of(truth, SIZE, scene.KINDS[0], "species")
    for scale, response in ((1.0, 1.0), (1.5, 1.0), (1e-3, 0.8)):
        fits = [disturbed(truth, bound, seed, scale, response) for seed in range(40)]
        for s in accuracy.score(truth, fits, bound).values():
            assert s.slope == pytest.approx(response, abs=5 * s.slope_err + 1e-3)
            assert s.failed == s.marked == 0
            if response == 1.0:
                assert s.ratio == pytest.approx(scale, rel=0.1)
                assert s.pull == pytest.approx(scale, rel=0.1)
                assert s.pull_intensity == pytest.approx(scale, rel=0.15)


def test_lost_columns_count_as_failures_unless_marked(truth):
    bound = accuracy.bounds_of(truth, SIZE, scene.KINDS[0], "species")
    fitted = disturbed(truth, bound, 0)
    row_ta, row_k = (truth.index[truth["species"] == s][0] for s in ("Ta", "K"))
    fitted.loc[row_ta, "x_px"] += 6.0
    fitted.loc[row_k, "x_px"] = np.nan
    fitted.loc[row_k, "quality"] = accuracy.MARKS
    scores = accuracy.score(truth, [fitted], bound)
    assert (scores["Ta"].failed, scores["Ta"].marked) == (1, 0)
    assert (scores["K"].failed, scores["K"].marked) == (0, 1)
    assert scores["Ta"].ratio < 2


def test_a_tiny_measurement_gives_all_tables_and_survives_being_written(monkeypatch):
    monkeypatch.setattr(speed, "warm_up", lambda: None)
    done = report.measure(Options(size=SIZE, repeats=2, runs=1, speed_size=144))
    text = done.markdown()
    for kind in scene.KINDS:
        assert text.count(f"| {kind.name}") >= 3 - (kind.noise == "poisson")
        assert f"fit with covariances, {kind.name}, 144 x 144" in text
    assert "noise=white" in text and "Where the fit" in text and "nan" not in text
    again = report.Report.from_plain(json.loads(json.dumps(done.plain())))
    assert again == done and report.goals(again) == report.goals(done)


affinity = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="processes are not bound to cores here"
)


@affinity
@pytest.mark.slow
def test_a_large_image_is_fitted_on_two_cores_though_the_caller_has_one(monkeypatch):
    widen = "import os; os.sched_setaffinity(0, range(os.cpu_count()))"
    count = f"{widen}; print(len(os.sched_getaffinity(0)))"
    done = subprocess.run([sys.executable, "-c", count], check=True, stdout=subprocess.PIPE)
    for name in THREADS:
        monkeypatch.setenv(name, "1")
    held = np.ones(2**26)  # 0.5 GiB that are not the fit's
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        measured = large.time_large(SIZE)
    finally:
        os.sched_setaffinity(0, cores)
    assert held.all() and large.peak_gib() > 0.5
    assert measured.cores == min(2, int(done.stdout))
    assert measured.columns == len(scene.true_columns(SIZE))
    assert len(measured.seconds) == large.CALLS and measured.first_s == measured.seconds[0]
    assert 0.05 < measured.before_gib <= measured.peak_gib < 0.45


def test_goals_see_a_bad_fit(truth):
    bound = accuracy.bounds_of(truth, SIZE, scene.KINDS[0], "species")

    def verdicts(scale):
        done = report.Report(Options(size=SIZE))
        fits = [disturbed(truth, bound, seed, scale) for seed in range(20)]
        scores = accuracy.score(truth, fits, bound)
        done.accuracy = [(kind.name, "test", scores) for kind in scene.KINDS]
        done.decided = [(kind.name, kind.noise) for kind in scene.KINDS]
        return {goal: reached for goal, _, reached in report.goals(done)}

    assert set(verdicts(1.0).values()) == {"yes"}
    bad = [goal for goal, reached in verdicts(1.5).items() if reached == "**no**"]
    assert len(bad) == len(scene.KINDS) + 2


def test_goals_see_slowness_memory_and_a_wrong_noise(truth):
    bound = accuracy.bounds_of(truth, SIZE, scene.KINDS[0], "species")
    scores = accuracy.score(truth, [disturbed(truth, bound, 0)], bound)
    right = [(kind.name, kind.noise) for kind in scene.KINDS]

    def reached(goal, **changes):
        done = report.Report(Options(), **changes)
        done.accuracy = [(kind.name, "test", scores) for kind in scene.KINDS]
        return [yes for name, _, yes in report.goals(done) if goal in name]

    assert reached("auto", decided=right) == ["yes"]
    assert reached("auto", decided=[(right[1][0], "white"), *right]) == ["**no**"]
    fit = large.Large(4096, 2, 44_000, 0.3, 0.9, (2.0, 1.4, 1.3))
    assert reached("two cores", large=fit) == ["yes", "yes"]
    slow = replace(fit, peak_gib=1.1, seconds=(1.4, 1.6, 1.7))
    assert reached("two cores", large=slow) == ["**no**", "**no**"]
    assert reached("two cores", large=replace(fit, size=2048)) == []


A_A, E1, E2 = 3.9885, np.array([1, -np.sqrt(2)]) / np.sqrt(3), np.array([-np.sqrt(2), -1]) / 3**0.5
PERIOD_A, ROWS, PERIOD_PX = A_A * np.sqrt(1.5), 334, 49
HEIGHT = {"KO": 0.5, "Ta": 1.0, "O": 0.3}


def fake_sites():
    """One lateral period of KTaO3 [1-10] under [111], the cages displaced, oxygen missing."""
    rows = []
    for name, (di, dj) in {"KO": (0, 0), "Ta": (0, 0.5), "O": (0.5, 0.5)}.items():
        for s in range(-11, 1):
            i, j = di, s + dj
            x, y = i * A_A / np.sqrt(2) * E1 + j * A_A * E2 + (0, 9.1)
            turns = -int(np.floor(x / PERIOD_A))
            n = int(1 - np.floor(i + j))
            if n < 1:
                continue
            row = {"species": name, "i": i + turns, "j": j - turns, "N": n}
            row |= {"x_A": x + turns * PERIOD_A, "y_A": y}
            if name == "KO":
                row |= {"delta_A": 0.4 * np.exp(-(n - 1) / 2)} | {"occupancy_realised": 1.0}
                row |= {"delta_fit_A": row["delta_A"]}
            if name == "O":
                row |= {"occupancy_realised": 1 - 0.5 * np.exp(-(n - 1) / 2)}
            rows.append(row)
    return rows


def draw(sites, tail):
    """Draw columns of which the share `tail` is half as wide again; periodic along x."""
    pixel = PERIOD_A / PERIOD_PX
    y, x = np.mgrid[:ROWS, :PERIOD_PX] * pixel
    image = np.zeros((ROWS, PERIOD_PX))
    for site in sites:
        at = np.array([site["x_A"], site["y_A"]])
        at = at + site.get("delta_A", 0.0) * E1
        share = site["occupancy_realised"] if site["species"] == "O" else 1.0
        for turn in (-1, 0, 1):
            t = ((x - at[0] - turn * PERIOD_A) ** 2 + (y - at[1]) ** 2) / (2 * 0.4**2)
            bell = (1 - tail) * np.exp(-t) + tail * np.exp(-t / 2.25) / 2.25
            image += HEIGHT[site["species"]] * share * bell
    return image


@pytest.fixture(scope="module", params=[0.0, 0.3], ids=["Gaussian columns", "columns with tails"])
def crystal(request, tmp_path_factory):
    folder, pixel = tmp_path_factory.mktemp("multislice"), PERIOD_A / PERIOD_PX
    sites = fake_sites()
    wide = np.tile(draw(sites, request.param), (1, 3))
    gy, gx = np.gradient(wide, pixel)
    gx, gy = (g[:, PERIOD_PX : 2 * PERIOD_PX] for g in (gx, gy))
    quadrants = 1 + 0.5 * np.stack([gx, gy, -gx, -gy])
    np.savez(folder / "kto111_test_KO.npz", quadrants=quadrants)
    about = {"pixel_A": pixel, "lateral_period_A": PERIOD_A, "e1_image": E1.tolist()}
    about["columns"] = sites
    (folder / "kto111_test_KO.json").write_text(json.dumps(about), encoding="utf-8")
    return folder, request.param


def test_a_measured_shape_describes_columns_that_are_no_gaussians(crystal):
    folder, tail = crystal
    condition = shape.load_condition(folder, "test_KO", periods=4)
    gaussian = shape.fit(condition, "white")
    plain = shape.outcome(condition, gaussian)
    shaped = shape.outcome(condition, shape.fit_with_shape(condition, "white", gaussian, 2))
    if tail:
        assert plain.residual > 0.015 and shaped.residual < 0.5 * plain.residual
    else:
        assert max(plain.residual, shaped.residual) < 0.007
    planes = list(shape.PLANES)
    for found in (plain, shaped):
        off = (found.delta_A - condition.truth["delta_A"]).loc[planes]
        assert off.abs().max() < 0.01
        off = (found.occupancy - condition.truth["occupancy"]).loc[planes]
        assert off.abs().max() < 0.03


def test_shape_prints_a_table_for_each_metric(crystal):
    options = [str(crystal[0]), "--condition", "test_KO", "--periods", "4", "--passes", "1"]
    done = CliRunner().invoke(shape.main, options, catch_exceptions=False)
    assert done.exit_code == 0 and "nan" not in done.stdout
    for noise in shape.METRICS:
        assert f"## test_KO, {noise}" in done.stdout
    assert done.stdout.count("| rms of δ(N) − truth, pm") == 2


def test_shape_terms_change_neither_intensity_nor_place():
    pixel, width = 0.1, 0.42
    column = pd.DataFrame({"x_px": [40.3], "y_px": [38.8], "intensity": [2.0], "sigma_A": [width]})
    terms = shape.shape_terms(column, (80, 80), pixel)
    y, x = np.mgrid[:80, :80]
    for order, term in zip(shape.ORDERS, terms, strict=True):
        assert abs(term.sum() * pixel**2) < 1e-4 * 2.0
        # moments up to those of the width vanish, that of the order does not
        t = ((x - 40.3) ** 2 + (y - 38.8) ** 2) * pixel**2 / (2 * width**2)
        moments = [np.sum(term * t**m) * pixel**2 / 2.0 for m in range(order + 1)]
        assert np.abs(moments[:order]).max() < 0.05
        assert abs(moments[order]) > 1.5
    gone = column.assign(x_px=np.nan)
    assert np.all(shape.shape_terms(gone, (80, 80), pixel) == 0)
