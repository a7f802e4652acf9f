"""The Cramer-Rao bounds: against brute force, closed forms, and what a dose must do."""

import numpy as np
import pandas as pd
import pytest
from scipy import fft

from stemdisp import bounds
from stemdisp.bounds import column_bounds, required_dose

PX = 0.1
SHAPE = (84, 96)
BACKGROUND = 0.1
ERRORS = ["intensity_err", "x_err_A", "y_err_A"]
LEVELS = {"white": 0.05**2, "idpc": 2e-4, "poisson": 100.0}


def five_columns():
    """Overlapping columns of two widths: O between two Ta, 1.4 A apart, and K aside."""
    return pd.DataFrame(
        {
            "species": ["Ta", "O", "Ta", "K", "O"],
            "x_px": [33.2, 46.9, 61.1, 44.0, 60.2],
            "y_px": [36.0, 37.3, 36.8, 52.6, 51.0],
            "intensity": [1.27, 0.25, 1.27, 0.61, 0.15],
            "sigma_A": [0.45, 0.40, 0.45, 0.42, 0.40],
        }
    )


def crystal(n=8, a=28.2, b=39.9):
    """A flat piece of KTaO3 [1-10]-like crystal, n x n cells."""
    i, j = (m.ravel() for m in np.meshgrid(np.arange(n), np.arange(n)))
    sites = (("Ta", 0, 0.5, 1.27, 0.45), ("K", 0, 0, 0.61, 0.42), ("O", 0.5, 0.5, 0.25, 0.40))
    parts = [
        pd.DataFrame(
            {
                "species": name,
                "x_px": 30 + (i + u) * a,
                "y_px": 30 + (j + v) * b,
                "intensity": volume,
                "sigma_A": sigma,
            }
        )
        for name, u, v, volume, sigma in sites
    ]
    return pd.concat(parts, ignore_index=True)


def picture(values, columns, widths):
    """Draw the image from the vector of all parameters, in A and signal, written anew here."""
    n = len(columns)
    volume, x, y = values[: 3 * n].reshape(n, 3).T
    kind, _ = pd.factorize(columns["species"])
    sigma = columns["sigma_A"].to_numpy()
    if widths == "species":
        sigma = values[3 * n : -1][kind]
    elif widths == "column":
        sigma = values[3 * n : -1]
    row, col = np.mgrid[: SHAPE[0], : SHAPE[1]] * PX
    out = np.full(SHAPE, values[-1])
    for k in range(n):
        square = ((col - x[k]) ** 2 + (row - y[k]) ** 2) / sigma[k] ** 2
        out += volume[k] / (2 * np.pi * sigma[k] ** 2) * np.exp(-square / 2)
    return out


def brute_force(columns, noise, widths):
    """Bounds from central differences of a whole image, in a dense matrix."""
    own = columns[["intensity", "x_px", "y_px"]].to_numpy() * [1, PX, PX]
    free = {
        "species": columns["sigma_A"].groupby(columns["species"], sort=False).first(),
        "column": columns["sigma_A"],
        "known": [],
    }[widths]
    start = np.concatenate([own.ravel(), free, [BACKGROUND]])
    step = 1e-4
    slopes = []
    for k in range(len(start)):
        move = np.zeros_like(start)
        move[k] = step
        up, down = (picture(start + sign * move, columns, widths) for sign in (1, -1))
        slopes.append((up - down) / (2 * step))
    slopes = np.array(slopes)
    level = LEVELS[noise]
    if noise == "white":
        information = np.einsum("aij,bij->ab", slopes, slopes) / level
    elif noise == "poisson":
        expected = picture(start, columns, widths)
        information = np.einsum("aij,bij,ij->ab", slopes, slopes, level / expected)
    else:
        k = 2 * np.pi * np.hypot(fft.fftfreq(SHAPE[0])[:, None], fft.fftfreq(SHAPE[1])[None, :])
        waves = (fft.fft2(slopes[:-1]) * k).reshape(len(slopes) - 1, -1)
        information = (waves @ waves.conj().T).real / (level * np.prod(SHAPE))
    scale = np.sqrt(np.diag(information))
    inverse = np.linalg.inv(information / np.outer(scale, scale))
    return (np.sqrt(np.diag(inverse)) / scale)[: 3 * len(columns)].reshape(-1, 3)


@pytest.mark.parametrize("widths", ["species", "column", "known"])
@pytest.mark.parametrize("noise", ["white", "idpc", "poisson"])
def test_bounds_are_those_of_brute_force(noise, widths):
    columns = five_columns()
    bound = column_bounds(
        columns,
        pixel_size=PX,
        noise=noise,
        level=LEVELS[noise],
        widths=widths,
        background=BACKGROUND,
        shape=SHAPE,
    )
    np.testing.assert_allclose(bound[ERRORS], brute_force(columns, noise, widths), rtol=2e-3)


def test_brute_force_can_tell_models_apart():
    # The negative control of the test above: its tolerance sees every choice that matters.
    columns = five_columns()
    species, own, known = (
        column_bounds(columns, pixel_size=PX, noise="white", level=1.0, widths=w)[ERRORS].to_numpy()
        for w in ("species", "column", "known")
    )
    assert (own[[0, 1, 2, 4], 0] > 1.01 * species[[0, 1, 2, 4], 0]).all()  # K is alone
    assert (species[:, 0] > 1.01 * known[:, 0]).all()
    alone = column_bounds(columns.iloc[[1]], pixel_size=PX, noise="white", level=1.0)
    assert species[1, 1] > 1.05 * alone["x_err_A"].iloc[0]


@pytest.mark.parametrize(
    ("noise", "var_x", "var_v", "width_costs"),
    [
        ("white", lambda s, v: 8 * np.pi * s**4 / v**2, lambda s: 4 * np.pi * s**2, 2.0),
        ("idpc", lambda s, v: 4 * np.pi * s**6 / v**2, lambda s: 4 * np.pi * s**4, 3.0),
    ],
)
def test_isolated_column_has_the_closed_form(noise, var_x, var_v, width_costs):
    column = five_columns().iloc[[0]]
    s, v, level = 4.5, 1.27 / PX**2, 3e-3
    known, free = (
        column_bounds(
            column, pixel_size=PX, noise=noise, level=level, widths=widths, shape=(10**5, 10**5)
        ).iloc[0]
        for widths in ("known", "column")
    )
    assert known["x_err_A"] == pytest.approx(PX * np.sqrt(level * var_x(s, v)), rel=1e-6)
    assert known["y_err_A"] == pytest.approx(known["x_err_A"], rel=1e-6)
    assert known["intensity_err"] == pytest.approx(PX**2 * np.sqrt(level * var_v(s)), rel=1e-6)
    # By symmetry a width costs nothing in position, and a fixed factor in intensity.
    assert free["x_err_A"] == pytest.approx(known["x_err_A"], rel=1e-6)
    costs = (free["intensity_err"] / known["intensity_err"]) ** 2
    assert costs == pytest.approx(width_costs, rel=1e-6)


def test_isolated_column_of_counts():
    # Without background a Gaussian of N counts is a sample of N: var x = s^2 / N, var V = N.
    column = five_columns().iloc[[0]].assign(intensity=1.27)
    bound = column_bounds(column, pixel_size=PX, noise="poisson", level=50.0, widths="known")
    counts = 50.0 * 1.27 / PX**2
    assert bound["x_err_A"].iloc[0] == pytest.approx(0.45 / np.sqrt(counts), rel=1e-3)


@pytest.mark.parametrize(("noise", "power"), [("white", 0.5), ("idpc", 0.5), ("poisson", -0.5)])
def test_errors_follow_the_level(noise, power):
    one, nine = (
        column_bounds(five_columns(), pixel_size=PX, noise=noise, level=f * LEVELS[noise])[ERRORS]
        for f in (1, 9)
    )
    np.testing.assert_allclose(nine / one, 9.0**power, rtol=1e-9)


@pytest.mark.parametrize("noise", ["white", "idpc", "poisson"])
def test_result_does_not_depend_on_units(noise):
    columns = five_columns()
    reference = column_bounds(columns, pixel_size=PX, noise=noise, level=0.01)
    grown = columns.assign(intensity=7 * columns["intensity"])
    level = 0.01 / 7 if noise == "poisson" else 0.01 * 49
    bound = column_bounds(grown, pixel_size=PX, noise=noise, level=level)
    np.testing.assert_allclose(bound["intensity_err"], 7 * reference["intensity_err"], rtol=1e-9)
    np.testing.assert_allclose(bound["x_err_A"], reference["x_err_A"], rtol=1e-9)


def test_tiles_agree_with_the_whole(monkeypatch):
    columns = crystal()
    options = {"pixel_size": PX, "noise": "white", "level": 1.0}
    whole = column_bounds(columns, **options)[ERRORS]
    monkeypatch.setattr(bounds, "DENSE", 0)
    monkeypatch.setattr(bounds, "TILE_A", 12.0)
    np.testing.assert_allclose(column_bounds(columns, **options)[ERRORS], whole, rtol=1e-4)
    monkeypatch.setattr(bounds, "MARGIN_A", 0.5)
    assert (column_bounds(columns, **options)[ERRORS] / whole - 1).abs().to_numpy().max() > 1e-3


def test_absent_column_has_an_intensity_but_no_position():
    columns = five_columns()
    columns.loc[4, "intensity"] = 0.0
    bound = column_bounds(columns, pixel_size=PX, noise="idpc", level=1e-4)
    assert np.isinf(bound.loc[4, ["x_err_A", "y_err_A"]].to_numpy(dtype=float)).all()
    assert np.isfinite(bound.loc[4, "intensity_err"])
    assert np.isfinite(bound.loc[:3, ERRORS].to_numpy()).all()


def test_index_and_pixel_shape_are_kept():
    columns = five_columns().set_index(pd.Index([7, 3, 9, 1, 4]))
    square = column_bounds(columns, pixel_size=PX, noise="white", level=1.0)
    assert list(square.index) == [7, 3, 9, 1, 4]
    pair = column_bounds(columns, pixel_size=(PX, PX), noise="white", level=1.0)
    pd.testing.assert_frame_equal(square, pair)


@pytest.mark.parametrize("noise", ["idpc", "poisson"])
def test_required_dose_reaches_its_target(noise):
    columns = crystal(2)
    dose = required_dose(columns, 0.01, pixel_size=PX, noise=noise, background=0.1)
    level = 0.5 / dose["O"] if noise == "idpc" else dose["O"] * PX**2
    bound = column_bounds(columns, pixel_size=PX, noise=noise, level=level, background=0.1)
    rms = np.sqrt((bound.loc[bound["species"] == "O", ["x_err_A", "y_err_A"]] ** 2).mean().mean())
    assert rms == pytest.approx(0.01, rel=1e-6)
    assert dose["O"] > dose["K"] > dose["Ta"]


def test_dose_speaks_the_language_of_the_simulator():
    from stemdisp.simulate import idpc_noise

    dose, px, size = 300.0, 0.15, 256
    noise = idpc_noise(size, px, dose, np.random.default_rng(0))
    k = 2 * np.pi * np.hypot(fft.fftfreq(size)[:, None], fft.fftfreq(size)[None, :])
    power = np.abs(fft.fft2(noise)) ** 2 / size**2
    inside = (k > 0.1) & (k < 2.5)
    assert np.mean((power * k**2)[inside]) == pytest.approx(0.5 / dose, rel=0.03)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"level": None}, "level is needed"),
        ({}, {"level": -1.0}, "level = -1.0 must be positive"),
        ({}, {"noise": "pink"}, "noise = 'pink' is not one of"),
        ({}, {"widths": "free"}, "widths = 'free' is not one of"),
        ({}, {"pixel_size": 0.0}, "must be positive"),
        ({}, {"background": -1.0}, "background = -1.0 must be"),
        ({"intensity": np.nan}, {}, "5 rows with values that are not finite"),
        ({"x_px": 3.0, "y_px": 4.0}, {}, "on top of each other"),
    ],
)
def test_wrong_calls_are_refused(change, options, message):
    arguments = {"pixel_size": PX, "noise": "white", "level": 1.0} | options
    with pytest.raises(ValueError, match=message):
        column_bounds(five_columns().assign(**change), **arguments)


def test_wrong_tables_and_targets_are_refused():
    with pytest.raises(ValueError, match="sigma_A"):
        column_bounds(five_columns().drop(columns="sigma_A"), pixel_size=PX, noise="poisson")
    with pytest.raises(ValueError, match="columns is empty"):
        column_bounds(five_columns().iloc[:0], pixel_size=PX, noise="poisson")
    with pytest.raises(ValueError, match="there are no counts"):
        column_bounds(five_columns().assign(intensity=0.0), pixel_size=PX, noise="poisson")
    with pytest.raises(ValueError, match="target_A = 0"):
        required_dose(five_columns(), 0, pixel_size=PX)
    with pytest.raises(ValueError, match="has no dose"):
        required_dose(five_columns(), 0.01, pixel_size=PX, noise="white")
