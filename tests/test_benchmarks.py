"""A tiny run of the benchmarks, so that they do not rot, and their scores on known errors."""

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import accuracy, cli, report, scene, speed
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


def test_tiny_run_prints_all_tables(monkeypatch, tmp_path):
    monkeypatch.setattr(cli, "PAGE", tmp_path / "benchmarks.md")
    monkeypatch.setattr(speed, "warm_up", lambda: None)
    options = ["--size", str(SIZE), "--repeats", "2", "--runs", "1", "--quick", "--write"]
    done = CliRunner().invoke(cli.main, options, catch_exceptions=False)
    assert done.exit_code == 0
    page = (tmp_path / "benchmarks.md").read_text(encoding="utf-8")
    for kind in scene.KINDS:
        assert page.count(f"| {kind.name}") >= 3
        assert f"fit with covariances, {kind.name}" in done.stdout
    assert "noise=white" in page and "Where the fit" in page and "nan" not in page


def test_goals_see_a_bad_fit(truth):
    bound = accuracy.bounds_of(truth, SIZE, scene.KINDS[0], "species")

    def verdicts(scale):
        done = report.Report(Options(size=SIZE))
        fits = [disturbed(truth, bound, seed, scale) for seed in range(20)]
        scores = accuracy.score(truth, fits, bound)
        done.accuracy = [(kind.name, "test", scores) for kind in scene.KINDS]
        return {goal: reached for goal, _, reached in report.goals(done)}

    assert set(verdicts(1.0).values()) == {"yes"}
    bad = [goal for goal, reached in verdicts(1.5).items() if reached == "**no**"]
    assert len(bad) == len(scene.KINDS) + 2
