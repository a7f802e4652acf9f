"""Whether the errors that the joint fit claims are true, and its response to displacement 1."""

from functools import lru_cache

import numpy as np
import pandas as pd
import pytest
from _lattice_images import NOISE, PIXEL_A, draw, error_pm, fit, lattice, noisy, pulls, seeds
from scipy import sparse

from stemdisp import fit as values
from stemdisp._background import Background
from stemdisp._start import BACKGROUND_KNOTS_A
from stemdisp.tables import Quality

SPECIES = ("Ta", "K", "O")
TRIALS = 10
# The weights of counts come from the fitted model, with its noise: claimed errors of intensities
# are off by up to this much.
INTENSITY_ALLOWANCE = {"idpc": 0.0, "white": 0.0, "poisson": 0.03}


@lru_cache(maxsize=4)
def trials(kind, assumed=None, n=TRIALS):
    """Fit `n` images with their own lattice, disorder and noise: list of (truth, table)."""
    out = []
    for seed in range(n):
        rng = np.random.default_rng(1000 + seed)
        truth = lattice(rng)
        image = noisy(rng, draw(truth), kind)
        out.append((truth, fit(image, seeds(truth), assumed or kind)))
    return out


@pytest.mark.parametrize("kind", ["idpc", "white", "poisson"])
@pytest.mark.parametrize("species", SPECIES)
def test_claimed_errors_are_true(kind, species):
    both = pd.concat([pulls(truth, table) for truth, table in trials(kind)])
    mine = both[both["species"] == species]
    xy = mine[["x", "y"]].to_numpy().ravel()
    assert abs(xy.std() - 1) < 4 / np.sqrt(2 * xy.size)
    assert abs(xy.mean()) < 4 / np.sqrt(xy.size)
    intensity = mine["intensity"].to_numpy()
    tolerance = 4 / np.sqrt(2 * intensity.size) + INTENSITY_ALLOWANCE[kind]
    assert abs(intensity.std() - 1) < tolerance
    assert abs(intensity.mean()) < 4 * (1 + INTENSITY_ALLOWANCE[kind]) / np.sqrt(intensity.size)


@pytest.mark.parametrize("species", SPECIES)
def test_white_errors_on_idpc_noise_are_wrong_and_the_fit_is_worse(species):
    # the negative control of the pulls, and the reason for the gradient metric
    wrong = trials("idpc", "white", 4)
    both = pd.concat([pulls(truth, table) for truth, table in wrong])
    mine = both[both["species"] == species]
    assert mine[["x", "y"]].to_numpy().std() > 2
    assert mine["intensity"].std() > 3

    def rms(pairs):
        return np.sqrt(np.mean([np.mean(error_pm(b, a)[a["species"] == species] ** 2)
                                for a, b in pairs]))  # fmt: skip

    assert rms(wrong) > 1.1 * rms(trials("idpc")[:4])
    assert wrong[0][1].attrs["fit"].misfit > 3


@pytest.mark.parametrize("kind", ["idpc", "white"])
@pytest.mark.parametrize("species", SPECIES)
def test_response_to_a_true_displacement_is_one(kind, species):
    true, found = [], []
    for truth, table in trials(kind):
        mine = truth["species"] == species
        for a in "xy":
            true.append((truth[f"{a}_px"] - truth[f"site_{a}"])[mine] * PIXEL_A)
            found.append((table[f"{a}_px"] - truth[f"site_{a}"])[mine] * PIXEL_A)
    true, found = np.concatenate(true), np.concatenate(found)
    slope = np.sum(true * found) / np.sum(true**2)
    error = np.std(found - slope * true) / np.sqrt(np.sum(true**2))
    assert error < 0.015
    assert abs(slope - 1) < 4 * error


@pytest.mark.parametrize("kind", ["idpc", "white", "poisson"])
def test_the_noise_is_measured_on_the_image_itself(kind):
    tables = [table for _, table in trials(kind)]
    level = np.mean([t.attrs["fit"].noise.level for t in tables])
    if kind != "poisson":
        assert level == pytest.approx(NOISE[kind] ** 2, rel=0.05)
    misfit = np.array([t.attrs["fit"].misfit for t in tables])
    assert 0.85 < misfit.mean() < 1.2
    chi2 = pd.concat(tables)["chi2"]
    assert 0.5 < chi2.median() < 1.5
    assert not (pd.concat(tables)["quality"] & int(Quality.MISFIT)).any()


def test_the_right_noise_is_chosen_and_a_missing_species_is_misfit():
    truth, table = trials("idpc")[0]
    rng = np.random.default_rng(5)
    for kind in ("idpc", "white", "poisson"):
        image = noisy(rng, draw(truth), kind)
        assert fit(image, seeds(truth), "auto").attrs["fit"].noise.kind == kind
        known = truth[truth["species"] != "O"]
        poor = fit(image, seeds(known), kind)
        assert poor.attrs["fit"].misfit > 2
        assert poor["chi2"].median() > table["chi2"].median()
        fine, spoiled = (t.attrs["fit"].chi2 for t in (fit(image, seeds(truth), kind), poor))
        assert all(0.7 < value < 1.4 for value in fine.values())
        assert all(value > 1.5 for value in spoiled.values())


def test_poisson_level_from_frames_is_that_of_the_residual():
    truth, table = trials("poisson")[0]
    frequency = np.linspace(0.01, 0.49, 49)
    variance = np.mean(draw(truth)) / NOISE["poisson"]
    image = noisy(np.random.default_rng(6), draw(truth), "poisson")
    psd = (frequency, np.full(49, variance))
    known = fit(image, seeds(truth), "poisson", noise_psd=psd).attrs["fit"].noise
    assert known.source == "frames" and table.attrs["fit"].noise.source == "residual"
    assert known.level == pytest.approx(table.attrs["fit"].noise.level, rel=0.12)
    assert known.level < 0.8 * variance


def test_covariance_is_symmetric_and_holds_the_errors_of_the_table():
    truth, table = trials("idpc")[0]
    known = table.attrs["fit"]
    matrix = known.covariance
    assert matrix.shape == (3 * len(truth),) * 2
    assert abs(matrix - matrix.T).max() < 1e-12 * abs(matrix).max()
    errors = np.sqrt(matrix.diagonal()).reshape(-1, 3)
    for k, name in enumerate(("intensity_err", "x_err_A", "y_err_A")):
        np.testing.assert_allclose(table[name], errors[:, k], rtol=1e-12)
    assert np.linalg.eigvalsh(matrix.toarray()).min() > 0
    # neighbours are correlated, columns far apart are not
    x, y = (truth[name].to_numpy() * PIXEL_A for name in ("x_px", "y_px"))
    rows, cols = matrix.nonzero()
    far = np.hypot(x[rows // 3] - x[cols // 3], y[rows // 3] - y[cols // 3])
    assert far.max() < 3.9
    assert matrix.nnz > 9 * len(truth) * 5
    assert table.copy().attrs["fit"] is known


def test_variance_of_combinations_is_that_of_repeated_images():
    rng = np.random.default_rng(21)
    size = (110, 110)
    centre = np.array([[x, y] for y in (30, 80) for x in (30, 80)], dtype=float)
    # closer than they are wide, so that they pull on each other
    half = np.array([0.41, 0.18]) / PIXEL_A
    xy = np.stack([centre - half, centre + half], axis=1).reshape(-1, 2)
    truth = pd.DataFrame({"species": "A", "x_px": xy[:, 0], "y_px": xy[:, 1]})
    truth = truth.assign(intensity=[0.9, 0.7] * 4, sigma_A=0.42)
    start = truth[["species", "x_px", "y_px"]]
    image = draw(truth, size=size)
    pairs = np.arange(0, 8, 2)
    rows, ones = np.repeat(np.arange(4), 2), np.ones(4)
    cases = {"intensity sum": (0, 1.0), "intensity difference": (0, -1.0), "distance": (1, -1.0)}
    weights = {}
    for name, (part, sign) in cases.items():
        cols = np.column_stack([3 * pairs + part, 3 * pairs + 3 + part]).ravel()
        data = np.column_stack([ones, sign * ones]).ravel()
        weights[name] = sparse.csr_array((data, (rows, cols)), shape=(4, 24))
    values, claimed, blind = ({name: [] for name in cases} for _ in range(3))
    for _ in range(40):
        table = fit(noisy(rng, image, "idpc", 0.5), start, "idpc")
        known = table.attrs["fit"]
        parameters = table[["intensity", "x_A", "y_A"]].to_numpy().ravel()
        for name, w in weights.items():
            values[name].append(w @ parameters)
            claimed[name].append(known.variance(w))
            blind[name].append(w.multiply(w) @ known.covariance.diagonal())
    tolerance = 4 / np.sqrt(2 * 4 * 39)
    ratio = {n: np.sqrt(np.mean(np.var(values[n], axis=0, ddof=1))) for n in cases}
    for name in cases:
        assert abs(ratio[name] / np.sqrt(np.mean(claimed[name])) - 1) < tolerance, name
    # without the covariance the distance would be far off
    assert ratio["distance"] / np.sqrt(np.mean(blind["distance"])) < 1 - tolerance


@pytest.mark.parametrize("kind", ["idpc", "white"])
def test_errors_are_those_of_the_information_of_all_columns_together(kind):
    size = (128, 144)
    rng = np.random.default_rng(0)
    truth = lattice(rng, size=size)
    fitted = fit(noisy(rng, draw(truth, size=size), kind), seeds(truth), kind)

    def derivative(rows, name, step):
        ends = [draw(rows.assign(**{name: rows[name] + h}), size=size) for h in (step, -step)]
        return (ends[0] - ends[1]) / 2e-5

    steps = {"intensity": 1e-5, "x_px": 1e-5 / PIXEL_A, "y_px": 1e-5 / PIXEL_A}
    design = [
        derivative(fitted.iloc[[c]], name, step)
        for c in range(len(truth))
        for name, step in steps.items()
    ]
    for species in SPECIES:  # shared widths
        design.append(derivative(fitted[fitted["species"] == species], "sigma_A", 1e-5))
    if kind == "white":  # the smooth background; its gradient is next to nothing
        surface = Background.build(np.ones(size, dtype=bool), BACKGROUND_KNOTS_A / PIXEL_A)
        along = [a.at(np.arange(n)) for a, n in ((surface.along_y, 128), (surface.along_x, 144))]
        design += [np.outer(y, x) for y in along[0].toarray().T for x in along[1].toarray().T]
    design = np.array(design)
    if kind == "idpc":  # the gradient, in Fourier space
        k = [2 * np.pi * np.fft.fftfreq(n) for n in size]
        spectra = np.fft.fft2(design) * np.hypot(k[0][:, None], k[1][None, :])
        design = np.concatenate([spectra.real, spectra.imag], axis=1) / np.sqrt(np.prod(size))
    design = design.reshape(len(design), -1)
    n = 3 * len(truth)
    bound = np.linalg.inv(design @ design.T)[:n, :n] * fitted.attrs["fit"].noise.level
    errors = np.sqrt(np.diag(bound)).reshape(-1, 3)
    found = fitted[["intensity_err", "x_err_A", "y_err_A"]].to_numpy()
    # no tails beyond the border are lost
    inside = fitted["quality"] == 0
    assert inside.sum() > 40
    np.testing.assert_allclose(found[inside], errors[inside], rtol=0.015)


def test_a_column_without_errors_spoils_those_of_no_other(monkeypatch):
    """Where a neighbourhood says nothing (its matrix is not positive), the others still count."""
    lost, real = 3, values.window_covariance

    def broken(lo, hi, indptr, *rest):
        real(lo, hi, indptr, *rest)
        if lo <= lost < hi:
            rest[-1][indptr[lost] : indptr[lost + 1]] = np.nan

    rng = np.random.default_rng(0)
    truth = lattice(rng)
    image = noisy(rng, draw(truth), "white")
    for noise in ("white", "idpc"):
        whole = fit(image, seeds(truth), noise)
        with monkeypatch.context() as patch:
            patch.setattr(values, "window_covariance", broken)
            found = fit(image, seeds(truth), noise)
        without = found["x_err_A"].isna()
        assert without.sum() == 1
        assert found["quality"][without].item() & int(Quality.NOT_DETECTED)
        ratio = found["x_err_A"] / whole["x_err_A"]
        np.testing.assert_allclose(ratio[~without], 1.0, atol=0.02)
