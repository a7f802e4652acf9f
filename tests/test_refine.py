"""The joint fit: what it recovers, from where, and what it says of what it cannot."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from _lattice_images import PIXEL_A, U_A, V_A, draw, error_pm, fit, lattice, noisy, seeds

from stemdisp.refine import refine_columns
from stemdisp.tables import Quality


@pytest.fixture(scope="module")
def small():
    """A lattice of 81 columns and its image without noise."""
    truth = lattice(np.random.default_rng(0), size=(160, 176))
    return truth, draw(truth, size=(160, 176))


@pytest.mark.parametrize("noise", ["idpc", "white", "poisson", "auto"])
def test_overlapping_columns_are_recovered_without_noise(small, noise):
    truth, image = small
    fitted = fit(image, seeds(truth), noise)
    assert error_pm(fitted, truth).max() < 0.1
    np.testing.assert_allclose(fitted["intensity"], truth["intensity"], rtol=1e-3)
    np.testing.assert_allclose(fitted["sigma_A"], truth["sigma_A"], rtol=1e-3)
    # the seeds were off by the disorder, so there was something to find
    assert np.hypot(truth["x_px"] - truth["site_x"], 0).max() * PIXEL_A > 0.1


def test_far_starts_are_drawn_in_first():
    """On pixels that are fine enough for blocks; in the metric of iDPC alone it takes longer."""
    rng, size, pixel = np.random.default_rng(7), (320, 320), 0.1
    truth = lattice(rng, size=size, pixel=pixel)
    image = noisy(rng, draw(truth, size=size, pixel=pixel), "idpc")
    off = rng.uniform(0, 2 * np.pi, len(truth))
    far = truth[["species"]].assign(
        x_px=truth["x_px"] + 0.3 / pixel * np.cos(off),
        y_px=truth["y_px"] + 0.3 / pixel * np.sin(off),
    )
    fitted = refine_columns(image, far, pixel_size=pixel, noise="idpc")
    assert not (fitted["quality"] & int(Quality.NOT_CONVERGED)).any()
    assert fitted.attrs["fit"].iterations <= 10  # 8; 12 after a single step of drawing in


def test_a_slow_background_moves_nothing(small):
    truth, image = small
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] / 160
    slow = image + 0.4 * np.cos(2 * y) + 0.2 * x**2
    for noise, limit in (("idpc", 0.1), ("white", 0.3)):
        assert error_pm(fit(slow, seeds(truth), noise), truth).max() < limit


def test_the_answer_does_not_depend_on_the_seeds():
    rng = np.random.default_rng(3)
    truth = lattice(rng)
    potassium = truth["species"] == "K"
    turn = np.deg2rad(35.3)
    truth.loc[potassium, "x_px"] += 0.54 * np.cos(turn) / PIXEL_A
    truth.loc[potassium, "y_px"] += 0.54 * np.sin(turn) / PIXEL_A
    image = noisy(rng, draw(truth), "idpc")
    jitter = rng.normal(0, np.sqrt(0.5), (len(truth), 2))
    best = fit(image, truth[["species", "x_px", "y_px"]], "idpc")
    starts = [seeds(truth), seeds(truth), truth[["species", "x_px", "y_px"]].copy()]
    starts[1][["x_px", "y_px"]] += jitter
    starts[2][["x_px", "y_px"]] += jitter
    for start in starts:
        fitted = fit(image, start, "idpc")
        off = np.hypot(fitted["x_A"] - best["x_A"], fitted["y_A"] - best["y_A"])
        assert (off / best["x_err_A"]).max() < 0.1
        np.testing.assert_allclose(fitted["intensity"], best["intensity"], rtol=2e-3)
        assert (fitted["quality"] == best["quality"]).all()


@pytest.mark.parametrize("kind", ["idpc", "white"])
def test_absent_oxygen_is_found_absent(kind):
    pull, away, wrong = [], [], 0
    for seed in range(4):
        rng = np.random.default_rng(900 + seed)
        truth = lattice(rng, disorder_A=0.03)
        oxygen = truth.index[truth["species"] == "O"]
        gone = rng.choice(oxygen, 6, replace=False)
        truth.loc[gone, "intensity"] = 0.0
        fitted = fit(noisy(rng, draw(truth), kind), seeds(truth), kind)
        flagged = (fitted["quality"] & int(Quality.NOT_DETECTED)) > 0
        wrong += np.count_nonzero(flagged != truth.index.isin(gone))
        lost = fitted.loc[gone]
        pull += list(lost["intensity"] / lost["intensity_err"])
        off = np.hypot(lost["x_px"] - truth["site_x"][gone], lost["y_px"] - truth["site_y"][gone])
        away += list(off * PIXEL_A)
        assert lost["x_err_A"].max() < 0.5
        # its error is that of a column that is there
        there = fitted.loc[oxygen.difference(gone), "intensity_err"].median()
        assert lost["intensity_err"].median() == pytest.approx(there, rel=0.15)
        kept = truth.index.difference(gone)
        near = error_pm(fitted, truth)[kept] / (100 * fitted["x_err_A"][kept])
        assert near.max() < 6
    assert wrong == 0
    assert max(away) < 0.1
    assert np.max(np.abs(pull)) < 4
    assert abs(np.mean(pull)) < 4 / np.sqrt(len(pull))
    assert 1 - 4 / np.sqrt(48) < np.std(pull) < 1 + 4 / np.sqrt(48)


def test_bits_say_what_is_wrong_with_a_column():
    rng = np.random.default_rng(8)
    table = pd.DataFrame({"species": "A", "x_px": [40.0, 40, 100, 100], "y_px": [40.0, 100] * 2})
    table = table.assign(intensity=1.2, sigma_A=0.42)
    size = (140, 140)
    noise = rng.normal(0, 0.01, size)
    start = table[["species", "x_px", "y_px"]].copy()
    start.loc[0, "x_px"] += 1.1 / PIXEL_A
    fitted = fit(draw(table, size=size) + noise, start, "white")
    assert fitted["quality"].tolist() == [int(Quality.MOVED), 0, 0, 0]
    assert error_pm(fitted, table).max() < 1
    wide = table.assign(sigma_A=1.3, intensity=12.0)
    fitted = fit(draw(wide, size=size) + noise, table[["species", "x_px", "y_px"]], "white")
    assert (fitted["quality"] & int(Quality.WIDTH_AT_BOUND)).all()
    cut = table.assign(x_px=[40.0, 40, 100, 139 - 2 * 0.42 / PIXEL_A])
    fitted = fit(
        draw(cut, size=size) + noise, cut[["species", "x_px", "y_px"]].assign(quality=2), "white"
    )
    assert fitted["quality"].tolist() == [2, 2, 2, 2 | int(Quality.EDGE)]


def test_what_still_moves_is_no_measurement(small):
    truth, image = small
    image = noisy(np.random.default_rng(2), image, "idpc", 3.0)
    fitted = fit(image, seeds(truth), "idpc", max_iterations=1)
    moving = (fitted["quality"] & int(Quality.NOT_CONVERGED)) > 0
    assert moving.any()
    values = fitted[["x_px", "y_A", "x_err_A", "intensity", "intensity_err"]]
    assert values[moving].isna().all(axis=None) and values[~moving].notna().all(axis=None)
    assert not (fit(image, seeds(truth), "idpc")["quality"] & int(Quality.NOT_CONVERGED)).any()


def test_no_steps_are_no_measurement(small):
    truth, image = small
    fitted = fit(noisy(np.random.default_rng(2), image, "white"), seeds(truth), "white",
                 max_iterations=0)  # fmt: skip
    seen = (fitted["quality"] & int(Quality.NOT_DETECTED)) == 0
    assert seen.sum() > 50
    assert (fitted.loc[seen, "quality"] & int(Quality.NOT_CONVERGED)).all()


@pytest.mark.parametrize("noise", ["idpc", "white"])
def test_a_fit_that_runs_away_is_marked_and_raises_nothing(small, noise, monkeypatch):
    from stemdisp._system import System

    def away(self, head, tail, tolerance):
        return np.full_like(head, np.nan), np.full_like(tail, np.nan)

    truth, image = small
    image = noisy(np.random.default_rng(2), image, noise)
    monkeypatch.setattr(System, "solve", away)
    fitted = fit(image, seeds(truth), noise)
    seen = (fitted["quality"] & int(Quality.NOT_DETECTED)) == 0
    assert seen.any()
    assert (fitted.loc[seen, "quality"] & int(Quality.NOT_CONVERGED)).all()
    assert fitted.loc[seen, ["x_px", "y_A", "intensity"]].isna().all(axis=None)


@pytest.mark.parametrize("noise", ["idpc", "white", "poisson"])
def test_masked_and_nan_pixels_are_left_out(small, noise):
    truth, image = small
    middle = np.hypot(truth["x_px"] - 88, truth["y_px"] - 80).idxmin()
    x, y = truth.loc[middle, ["x_px", "y_px"]].astype(int)
    mask = np.ones(image.shape, dtype=bool)
    mask[y - 2 : y + 4, x + 1 : x + 9] = False
    mask[3:9, 60] = False
    masked = fit(np.where(mask, image, 1e3), seeds(truth), noise, mask=mask)
    absent = fit(np.where(mask, image, np.nan), seeds(truth), noise)
    pd.testing.assert_frame_equal(masked, absent, check_exact=True)
    assert error_pm(masked, truth).max() < 0.2
    bit = (masked["quality"] & int(Quality.MASKED)) > 0
    assert bit[middle] and bit.sum() <= 4
    assert (np.hypot(truth["x_px"] - x, truth["y_px"] - y)[bit & (truth["y_px"] > 20)] < 20).all()
    known = masked.attrs["fit"]
    assert not known.mask[~mask].any() and not known.residual[~mask].any()
    # less of the column is left, so its error grows
    whole = fit(image + 0.0, seeds(truth), noise)
    ratio = masked["x_err_A"] / np.sqrt(known.noise.level)
    ratio /= whole["x_err_A"] / np.sqrt(whole.attrs["fit"].noise.level)
    assert ratio[middle] > 1.05
    uneven = 20.0 + 1e-3 * np.arange(image.size).reshape(image.shape)
    told = fit(np.where(mask, image, uneven), seeds(truth), noise, mask=mask)
    pd.testing.assert_frame_equal(told, absent, check_exact=True)
    hot = fit(np.where(mask, image, uneven), seeds(truth), noise)
    # far off, or given up and marked
    assert not error_pm(hot, truth)[middle] <= 3


def test_the_misfit_of_half_an_image_is_that_of_the_half():
    rng = np.random.default_rng(7)
    truth = lattice(rng, size=(288, 288))
    image = noisy(rng, draw(truth, size=(288, 288)), "white")
    mask = np.ones(image.shape, dtype=bool)
    mask[:, 144:] = False
    there = seeds(truth)[truth["x_px"] < 156]
    half = fit(image, there, "white", mask=mask).attrs["fit"].misfit
    cut = fit(image[:, :144].copy(), there, "white").attrs["fit"].misfit
    assert half == pytest.approx(cut, rel=0.06)
    assert half == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("dtype", [np.float64, np.uint16])
def test_saturated_pixels_are_left_out(small, dtype):
    truth, image = small
    counts = (noisy(np.random.default_rng(3), image, "white", 0.2) * 1000).astype(dtype)
    peak = np.quantile(counts, 0.97).astype(dtype)  # the tips of the Ta columns
    clipped = np.minimum(counts, peak)
    assert (fit(counts, seeds(truth), "white").attrs["fit"].mask).all()
    fitted = fit(clipped, seeds(truth), "white")
    known = fitted.attrs["fit"]
    assert known.mask.mean() == pytest.approx(0.97, abs=0.01)
    assert (clipped[~known.mask] == peak).all()
    inside = (fitted["quality"] & int(Quality.EDGE)) == 0
    tantalum = (truth["species"] == "Ta") & inside
    assert (fitted.loc[tantalum, "quality"] & int(Quality.MASKED)).all()

    def off(table):
        difference = table["intensity"] / 1000 - truth["intensity"]
        return abs((difference / fitted["intensity_err"])[tantalum].mean() * 1000)

    assert off(fitted) < 1
    # taken for true, flat tips make columns wider and their intensities wrong
    step = 1e-3 * (np.arange(clipped.size) % 7).reshape(clipped.shape)
    wrong = fit(np.where(clipped == peak, clipped - step, clipped), seeds(truth), "white")
    assert wrong.attrs["fit"].mask.all()
    assert off(wrong) > 3
    assert abs(known.sigma_A["Ta"] / 0.45 - 1) < 0.002
    assert wrong.attrs["fit"].sigma_A["Ta"] / 0.45 > 1.02


def test_same_input_same_bits_and_nothing_is_changed(small):
    truth, image = small
    image = noisy(np.random.default_rng(4), image, "idpc")
    table = seeds(truth).assign(i=np.arange(len(truth)) * 0.5, remark="kept", quality=2)
    table.index = [f"row {k}" for k in range(len(table))]
    image_before, table_before = image.copy(), table.copy()
    one, two = (refine_columns(image, table, pixel_size=PIXEL_A) for _ in range(2))
    pd.testing.assert_frame_equal(one, two, check_exact=True)
    a, b = one.attrs["fit"], two.attrs["fit"]
    assert (a.covariance != b.covariance).nnz == 0
    np.testing.assert_array_equal(a.residual, b.residual)
    np.testing.assert_array_equal(image, image_before)
    pd.testing.assert_frame_equal(table, table_before, check_exact=True)
    assert one.index.equals(table.index)
    assert (one[["species", "i", "remark"]] == table[["species", "i", "remark"]]).all(axis=None)
    assert ((one["quality"] & 2) == 2).all()
    # another order of rows is the same problem
    turned = refine_columns(image, table[::-1], pixel_size=PIXEL_A)
    assert turned.index.equals(table.index[::-1])
    np.testing.assert_allclose(turned["x_A"][::-1], one["x_A"], atol=2e-4)


@pytest.mark.parametrize("noise", ["idpc", "white", "poisson"])
def test_the_number_of_threads_changes_no_bit(noise, monkeypatch):
    rng = np.random.default_rng(12)
    truth = lattice(rng, size=(420, 300))
    image = noisy(rng, draw(truth, size=(420, 300)), noise)
    tables = []
    for threads in (1, 2, 5):
        monkeypatch.setattr("numba.config.NUMBA_NUM_THREADS", threads)
        tables.append(fit(image, seeds(truth), noise))
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0], check_exact=True)
        ours, theirs = table.attrs["fit"], tables[0].attrs["fit"]
        np.testing.assert_array_equal(ours.covariance.data, theirs.covariance.data)
        np.testing.assert_array_equal(ours.residual, theirs.residual)


def test_numbers_of_any_kind_and_layout_are_read(small):
    truth, image = small
    counts = np.rint(image * 2000)
    best = fit(counts, seeds(truth), "idpc")
    big = np.zeros((2 * counts.shape[0], 2 * counts.shape[1]))
    big[::2, ::2] = counts
    same = [counts.astype(t) for t in (np.uint16, np.int32, np.float32, np.float16)]
    for other in [*same, big[::2, ::2], np.asfortranarray(counts), counts + 1e5]:
        fitted = fit(other, seeds(truth), "idpc")
        limit = 2e-3 if other.dtype == np.float16 else 3e-4
        np.testing.assert_allclose(fitted["x_A"], best["x_A"], atol=limit)
        np.testing.assert_allclose(fitted["intensity"], best["intensity"], rtol=5e-3)
    with pytest.raises(ValueError, match="complex128; pass real numbers"):
        fit(image * 1j, seeds(truth), "idpc")


def test_widths_may_differ_between_sites_or_columns():
    rng = np.random.default_rng(6)
    truth = lattice(rng)
    odd = rng.integers(0, 2, len(truth)).astype(bool)
    truth.loc[odd, "sigma_A"] *= 1.12
    truth["site"] = np.where(odd, "wide", "narrow")
    image = noisy(rng, draw(truth), "idpc", 0.3)
    start = seeds(truth).assign(site=truth["site"])
    fitted = {w: fit(image, start, "idpc", widths=w) for w in ("species", "site", "column")}
    inside = fitted["species"]["quality"] == 0
    for widths in ("site", "column"):
        table = fitted[widths]
        error = (table["sigma_A"] / truth["sigma_A"] - 1)[inside]
        assert error.std() < {"site": 0.01, "column": 0.03}[widths]
        assert abs(error.mean()) < 0.005
        pull = ((table["intensity"] - truth["intensity"]) / table["intensity_err"])[inside]
        assert 0.8 < pull.std() < 1.2
        assert table.attrs["fit"].misfit < 1.2
    # one width for both is wrong, and it shows
    assert fitted["species"].attrs["fit"].misfit > 2
    # freedom costs precision
    ratio = fitted["column"]["intensity_err"] / fitted["site"]["intensity_err"]
    assert (ratio[inside] > 1.2).all()
    with pytest.raises(ValueError, match="columns lacks site"):
        fit(image, seeds(truth), "idpc", widths="site")
    with pytest.raises(ValueError, match="widths = 'free' is not one of"):
        fit(image, seeds(truth), "idpc", widths="free")


# long over short width, and the angle of the long one
ELLIPSES = {"Ta": (1.14, 11.0), "K": (1.13, 64.0), "O": (1.08, -22.0)}


def draw_ellipses(truth, size):
    """As `draw`, with every column an ellipse of the area of the round one."""
    y, x = np.mgrid[: size[0], : size[1]] * PIXEL_A
    image = np.full(size, 0.1)
    for column in truth.itertuples():
        ratio, angle = ELLIPSES[column.species]
        turn = np.exp(-1j * np.deg2rad(angle))
        turned = (x - column.x_px * PIXEL_A + 1j * (y - column.y_px * PIXEL_A)) * turn
        t = turned.real**2 / ratio + turned.imag**2 * ratio
        s2 = column.sigma_A**2
        image += column.intensity / (2 * np.pi * s2) * np.exp(-t / (2 * s2))
    return image


@pytest.mark.parametrize(("noise", "limit_pm"), [("idpc", 0.2), ("white", 0.3), ("poisson", 2.0)])
def test_ellipses_are_recovered(noise, limit_pm):
    size = (160, 176)
    truth = lattice(np.random.default_rng(0), size=size)
    image = draw_ellipses(truth, size)
    round_fit, fitted = (fit(image, seeds(truth), noise, widths=w) for w in ("species", "ellipse"))
    good = fitted["quality"] == 0
    assert good.sum() > 50
    assert error_pm(fitted, truth)[good].max() < limit_pm
    # round columns are wrong by more than that
    assert error_pm(round_fit, truth)[good].max() > 2 * limit_pm
    known = fitted.attrs["fit"]
    assert round_fit.attrs["fit"].axes_A == {}
    for species, (ratio, angle) in ELLIPSES.items():
        long, short, at = known.axes_A[species]
        loose = 3 if noise == "poisson" else 1
        assert long / short == pytest.approx(ratio, abs=0.01 * loose)
        assert at == pytest.approx(angle, abs=3 * loose)


def test_round_columns_stay_round(small):
    truth, image = small
    image = noisy(np.random.default_rng(4), image, "idpc")
    one, other = (fit(image, seeds(truth), "idpc", widths=w) for w in ("species", "ellipse"))
    off = np.hypot(one["x_A"] - other["x_A"], one["y_A"] - other["y_A"])
    assert (off / one["x_err_A"]).median() < 0.3
    for long, short, _ in other.attrs["fit"].axes_A.values():
        assert long / short < 1.05


@pytest.mark.parametrize("pixel", [0.3, 0.4])
def test_pixels_that_integrate_widen_a_column_and_do_nothing_else(pixel):
    # a detector that sums over its pixels: the mean over one is a Gaussian of variance s^2 + 1/12
    size, fine = (64, 70), 8
    truth = lattice(np.random.default_rng(0), size=size, pixel=pixel)
    inner = truth.assign(**{n: (truth[n] + 0.5) * fine - 0.5 for n in ("x_px", "y_px")})
    image = draw(inner, size=(size[0] * fine, size[1] * fine), pixel=pixel / fine)
    image = image.reshape(size[0], fine, size[1], fine).mean(axis=(1, 3))
    fitted = refine_columns(image, seeds(truth), pixel_size=pixel, noise="white")
    good = fitted["quality"] == 0
    assert good.sum() > 60
    assert error_pm(fitted, truth, pixel=pixel)[good].max() < 0.5
    np.testing.assert_allclose(fitted["intensity"][good], truth["intensity"][good], rtol=0.005)
    width = np.sqrt(truth["sigma_A"] ** 2 + pixel**2 / 12)
    np.testing.assert_allclose(fitted["sigma_A"], width, rtol=0.005)


def test_a_lazy_signal_is_computed_frame_by_frame(small):
    import dask.array as da
    from hyperspy.signals import Signal2D

    truth, image = small
    signal = Signal2D(da.from_array(np.stack([image, image + 1]), chunks=(1, *image.shape)))
    signal = signal.as_lazy()
    for axis in signal.axes_manager.signal_axes:
        axis.scale, axis.units = PIXEL_A, "Å"
    one = refine_columns(signal.inav[1], seeds(truth), noise="idpc")
    best = fit(image, seeds(truth), "idpc")
    np.testing.assert_allclose(one["x_A"], best["x_A"], atol=1e-4)
    with pytest.raises(ValueError, match="3 dimensions; pass one 2-D image"):
        refine_columns(signal, seeds(truth), noise="idpc")


@pytest.mark.parametrize("noise", ["idpc", "white"])
def test_the_residual_of_the_last_step_serves_the_noise(small, noise, monkeypatch):
    from stemdisp import refine
    from stemdisp._model import residual_image

    truth, image = small
    seen, level = [], refine._Noise.level

    def listen(self, problem, state, *rest, **most):
        if state.shown:
            whole = problem.scratch.copy()
            last = whole[:, : problem.image.shape[1]]
            seen.append((last, residual_image(problem, state)[0].copy()))
            problem.scratch[:] = whole
        return level(self, problem, state, *rest, **most)

    monkeypatch.setattr(refine._Noise, "level", listen)
    noisy_image = noisy(np.random.default_rng(6), image, noise)
    fit(noisy_image, seeds(truth), noise, max_iterations=1)
    assert not seen  # that step was long
    near = fit(noisy_image, seeds(truth), noise)
    seen.clear()
    used = fit(noisy_image, near, noise).attrs["fit"].noise.level
    (last, own), *_ = seen
    # the last step: each of some 250 parameters by up to 0.05 of its error, over 28,000 px
    assert 0 < np.std(last - own) < 5e-3 * np.std(own)

    def never(*a, **k):
        return replace(iterate(*a, **k), shown=False)

    iterate = refine._joint.iterate
    monkeypatch.setattr(refine._joint, "iterate", never)
    anew = fit(noisy_image, near, noise).attrs["fit"].noise.level
    assert anew == pytest.approx(used, rel=1e-3)


def test_the_pace_on_coarser_pixels_saves_a_step_and_nothing_else(monkeypatch):
    from stemdisp import refine
    from stemdisp._model import UNKNOWN_PACE

    size, pixel = (288, 320), 0.09  # fine enough for a fit on coarser pixels
    truth = lattice(np.random.default_rng(0), size=size, pixel=pixel)
    image = draw(truth, size=size, pixel=pixel)
    images = [noisy(np.random.default_rng(k), image, "idpc") for k in range(8)]

    def fits():
        return [refine_columns(i, seeds(truth), pixel_size=pixel, noise="idpc") for i in images]

    back, known = refine.back, fits()
    monkeypatch.setattr(refine, "back", lambda *a: replace(back(*a), pace=UNKNOWN_PACE))
    longer = fits()
    saved = [b.attrs["fit"].iterations - a.attrs["fit"].iterations
             for a, b in zip(known, longer, strict=True)]  # fmt: skip
    assert max(saved) == 1 and min(saved) >= 0
    for a, b in zip(known, longer, strict=True):
        assert not (a["quality"] & int(Quality.NOT_CONVERGED)).any()
        for name in ("x", "y"):
            off = np.abs(a[f"{name}_A"] - b[f"{name}_A"]) / b[f"{name}_err_A"]
            assert off.max() < 0.05  # what is too little to matter


def test_a_pace_is_known_after_three_steps(small, monkeypatch):
    from stemdisp import _joint
    from stemdisp._model import UNKNOWN_PACE

    truth, image = small
    seen, iterate = [], _joint.iterate

    def listen(problem, state, **options):
        after = iterate(problem, state, **options)
        seen.append((after.iterations - state.iterations, after.pace))
        return after

    monkeypatch.setattr(_joint, "iterate", listen)
    for steps in (1, 2, 3, 40):
        noisy_image = noisy(np.random.default_rng(9), image, "idpc")
        fit(noisy_image, seeds(truth), "idpc", max_iterations=steps)
    assert {min(steps, 3) for steps, _ in seen} == {1, 2, 3}
    for steps, pace in seen:
        assert (pace == UNKNOWN_PACE) == (steps < 3)
        low, high = _joint.RATIOS
        assert low <= pace <= high


@pytest.mark.parametrize("noise", ["idpc", "white"])
def test_errors_come_from_the_last_step_where_nothing_has_moved_since(small, noise, monkeypatch):
    from stemdisp import _joint

    truth, image = small
    noisy_image = noisy(np.random.default_rng(8), image, noise)
    made, assemble = [], _joint.assemble
    monkeypatch.setattr(_joint, "assemble", lambda *a: made.append(1) or assemble(*a))

    def errors(**options):
        made.clear()
        found = fit(noisy_image, near, noise, **options)
        return np.sqrt(found.attrs["fit"].covariance.diagonal()), len(made)

    near = fit(noisy_image, seeds(truth), noise)
    once, few = errors()
    monkeypatch.setattr(_joint, "KNOWN", 0.0)
    anew, more = errors()
    assert more == few + 1
    np.testing.assert_allclose(once, anew, rtol=0.01)
    assert not np.array_equal(once, anew)
    # a step that went far leaves equations of another place
    near = near.assign(x_px=near["x_px"] + 0.7)
    far, count = errors(max_iterations=1)
    monkeypatch.undo()
    made.clear()
    monkeypatch.setattr(_joint, "assemble", lambda *a: made.append(1) or assemble(*a))
    again, same = errors(max_iterations=1)
    assert same == count and np.array_equal(far, again)


def test_errors_of_counts_come_from_sums_where_columns_are(small, monkeypatch):
    from stemdisp import _joint

    truth, image = small
    noisy_image = noisy(np.random.default_rng(8), image, "poisson")
    found = fit(noisy_image, seeds(truth), "poisson").attrs["fit"].covariance.toarray()
    # however near columns are: sums were taken before the last steps
    monkeypatch.setattr(_joint, "KNOWN", 0.0)
    again = fit(noisy_image, seeds(truth), "poisson").attrs["fit"].covariance.toarray()
    np.testing.assert_array_equal(found, again)


@pytest.mark.parametrize(("noise", "slope"), [("idpc", -2.0), ("white", 0.0)])
def test_the_spectrum_of_the_residual_is_that_of_the_noise(small, noise, slope):
    truth, image = small
    noisy_image = noisy(np.random.default_rng(5), image, noise)
    known = fit(noisy_image, seeds(truth), noise).attrs["fit"]
    frequency, power = known.spectrum()
    fast = (frequency > 0.15) & (frequency < 0.45)  # where no column takes any of it
    assert np.polyfit(np.log(frequency[fast]), np.log(power[fast]), 1)[0] == pytest.approx(
        slope, abs=0.2
    )
    k2 = (2 * np.pi * frequency[fast]) ** 2 if noise == "idpc" else 1.0
    assert np.mean(power[fast] * k2) == pytest.approx(known.noise.level, rel=0.1)
    brighter = fit(10 * noisy_image, seeds(truth), noise).attrs["fit"]
    np.testing.assert_allclose(brighter.spectrum()[1], 100 * power, rtol=1e-3)


def test_units_follow_the_pixel_size(small):
    truth, image = small
    square = fit(image, seeds(truth), "idpc")
    coarse = refine_columns(image, seeds(truth), pixel_size=0.13, noise="idpc")
    large = 0.13 / 0.12
    for name, power in {"x_px": 0, "x_A": 1, "y_A": 1, "sigma_A": 1, "intensity": 2}.items():
        np.testing.assert_allclose(coarse[name], large**power * square[name], rtol=1e-3)
    brighter = fit(7 * image + 100, seeds(truth), "idpc")
    np.testing.assert_allclose(brighter["intensity"], 7 * square["intensity"], rtol=1e-4)
    np.testing.assert_allclose(brighter["x_A"], square["x_A"], atol=1e-4)


@pytest.mark.parametrize("noise", ["idpc", "white", "poisson"])
def test_columns_are_round_in_angstrom_where_pixels_are_not_square(noise):
    pixel, size = (0.12, 0.15), (160, 176)
    truth = lattice(np.random.default_rng(0), size=size, pixel=pixel)
    image = draw(truth, size=size, pixel=pixel)
    fitted = refine_columns(image, seeds(truth), pixel_size=pixel, noise=noise)
    assert error_pm(fitted, truth, pixel=pixel).max() < 0.1
    np.testing.assert_allclose(fitted["intensity"], truth["intensity"], rtol=1e-3)
    np.testing.assert_allclose(fitted["sigma_A"], truth["sigma_A"], rtol=1e-3)
    np.testing.assert_allclose(fitted["y_A"], fitted["y_px"] * 0.15, rtol=1e-12)
    # taken for square, the same image is not that of round columns
    wrong = fit(image, seeds(truth), noise)
    assert wrong.attrs["fit"].residual.std() > 50 * fitted.attrs["fit"].residual.std()


def test_a_signal_and_its_array_give_the_same(small):
    from hyperspy.signals import Signal2D

    truth, image = small
    signal = Signal2D(image.copy())
    for axis, scale in zip(signal.axes_manager.signal_axes, (0.012, 0.013), strict=True):
        axis.scale, axis.units = scale, "nm"
    whole = refine_columns(signal, seeds(truth), noise="white")
    array = refine_columns(image, seeds(truth), pixel_size=(0.12, 0.13), noise="white")
    np.testing.assert_allclose(whole["y_A"], array["y_A"], rtol=1e-9)
    np.testing.assert_allclose(whole["x_A"], array["x_A"], rtol=1e-9)
    other = refine_columns(signal, seeds(truth), pixel_size=0.11, noise="white")
    array = refine_columns(image, seeds(truth), pixel_size=0.11, noise="white")
    pd.testing.assert_frame_equal(other, array)
    with pytest.raises(ValueError, match="no calibrated axes; give pixel_size"):
        refine_columns(Signal2D(image), seeds(truth))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise": "pink"}, "noise = 'pink' is not one of: auto, idpc"),
        ({"image": np.zeros((3, 20, 20))}, "image has 3 dimensions; pass one 2-D image"),
        ({"pixel_size": None}, "pixel_size is needed when image is an array"),
        ({"pixel_size": -0.1}, "pixel_size = -0.1 must be positive"),
        ({"columns": pd.DataFrame({"species": ["O"], "x_px": [1.0]})}, "columns lacks y_px"),
        ({"columns": pd.DataFrame(columns=["species", "x_px", "y_px"])}, "columns is empty"),
        (
            {"columns": pd.DataFrame({"species": ["O", None], "x_px": [9.0, 9], "y_px": [9.0, 5]})},
            "rows without species",
        ),
        ({"mask": np.ones((4, 5), dtype=bool)}, r"mask has shape \(4, 5\); the image has"),
        ({"image": np.full((160, 176), np.nan)}, "no usable pixel"),
    ],
)
def test_wrong_calls_say_what_to_do(small, change, message):
    truth, image = small
    call = {"image": image, "columns": seeds(truth), "pixel_size": PIXEL_A} | change
    with pytest.raises(ValueError, match=message):
        refine_columns(call.pop("image"), call.pop("columns"), **call)


def test_seeds_must_be_finite(small):
    truth, image = small
    table = seeds(truth)
    table.loc[3, "y_px"] = np.nan
    with pytest.raises(ValueError, match="not finite; drop those rows"):
        fit(image, table, "white")


def test_the_test_image_is_the_crystal():
    truth = lattice(np.random.default_rng(0), disorder_A=0.0)
    xy = truth[["x_px", "y_px"]].to_numpy() * PIXEL_A
    tantalum = xy[truth["species"] == "Ta"]
    for species, expected in (("O", U_A / 2), ("K", V_A / 2)):
        other = xy[truth["species"] == species]
        nearest = np.min(np.hypot(*(other[:, None] - tantalum[None]).T), axis=0)
        assert np.median(nearest) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("noise", ["idpc", "white"])
def test_a_species_that_the_image_does_not_show_has_no_width(noise):
    # HAADF hardly sees oxygen: a free width without intensity would run away with the fit
    rng = np.random.default_rng(5)
    truth = lattice(rng)
    oxygen = truth["species"] == "O"
    truth.loc[oxygen, "intensity"] *= 0.02
    table = fit(noisy(rng, draw(truth), noise), seeds(truth), noise)
    inside = (table["quality"] & ~int(Quality.NOT_DETECTED)) == 0
    cations = inside & ~oxygen
    assert cations.sum() > 50
    assert not (table.loc[cations, "quality"] & int(Quality.NOT_DETECTED)).any()
    assert np.median(error_pm(table, truth)[cations]) < 3
    assert (table.loc[inside & oxygen, "quality"] & int(Quality.NOT_DETECTED)).mean() > 0.8
    pull = (table["intensity"] - truth["intensity"]) / table["intensity_err"]
    assert np.abs(pull[inside & oxygen]).max() < 5


def test_heights_are_those_over_the_darkest_pixels_around():
    from stemdisp._background import Background
    from stemdisp._start import Scaled, _heights
    from stemdisp._threads import Crew

    block, image = 4, np.ones((200, 200), np.float32)
    image[100:104, 100:104] = 3.0
    mask, at = np.ones(image.shape, dtype=bool), np.array([[101.5, 101.5]])
    background = Background.build(mask, 150.0)
    found = []
    with Crew() as crew:
        # one dark mean over a block, wherever in its pool of 5 x 5 it stands
        for row, col in [(None, None), *((r, c) for r in range(80, 100, 4) for c in (80, 92, 96))]:
            dark = image.copy()
            if row is not None:
                dark[row : row + 4, col : col + 4] = -2.0
            scaled = Scaled(dark, mask, np.empty((0, 0), np.float32), 0.0, 1.0, (0.1, 0.1))
            found.append(_heights(scaled, at, background, block, crew)[0].item())
    assert found[0] == pytest.approx(2.0)
    np.testing.assert_allclose(found[1:], found[1])  # wherever it stands in its pool
    assert found[1] > found[0] + 0.5
