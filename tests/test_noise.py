"""Spectrum, kind and level of noise, and the misfit that is judged by them."""

import numpy as np
import pytest
from _lattice_images import draw, integrated_noise, lattice

from stemdisp.noise import (
    NoiseLevel,
    Tiles,
    follows_signal,
    measure_noise,
    misfit_ratio,
    ring_medians,
    ring_spectrum,
)

SIGMA_PX = 3.5
SIZE = (240, 288)


def noise(kind, level, seed=0, size=SIZE):
    """Image of noise of the given kind and level."""
    rng = np.random.default_rng(seed)
    if kind == "idpc":
        return integrated_noise(rng, size, np.sqrt(level))
    return rng.normal(0, np.sqrt(level), size)


def test_white_noise_has_its_variance_at_every_frequency():
    frequency, power = ring_spectrum(noise("white", 0.09))
    assert np.mean(power) == pytest.approx(0.09, rel=0.02)
    slow, fast = power[frequency < 0.15], power[frequency > 0.35]
    assert np.mean(slow) == pytest.approx(np.mean(fast), rel=0.1)
    assert frequency.min() < 0.02 and 0.47 < frequency.max() < 0.5


def test_integrated_noise_falls_with_the_square_of_frequency():
    frequency, power = ring_spectrum(noise("idpc", 0.09))
    inner = (frequency > 0.05) & (frequency < 0.45)
    product = (power * (2 * np.pi * frequency) ** 2)[inner]
    assert np.mean(product) == pytest.approx(0.09, rel=0.03)
    assert np.polyfit(np.log(frequency[inner]), np.log(power[inner]), 1)[0] == pytest.approx(
        -2, abs=0.1
    )


def test_lattice_peaks_do_not_count_as_noise():
    truth = lattice(np.random.default_rng(1), size=SIZE, disorder_A=0.0)
    image = noise("white", 0.01) + 0.3 * draw(truth, size=SIZE)
    frequency, power = ring_spectrum(image)
    # where the reflections are
    power = power[(frequency > 0.05) & (frequency < 0.15)]
    f = np.hypot(np.fft.fftfreq(SIZE[0])[:, None], np.fft.fftfreq(SIZE[1])[None, :])
    mean = np.mean(np.abs(np.fft.fft2(image)[(f > 0.05) & (f < 0.15)]) ** 2) / image.size
    assert mean > 0.03
    assert 0.009 < np.mean(power) < 0.015


@pytest.mark.parametrize("kind", ["white", "idpc"])
def test_masked_pixels_do_not_enter(kind):
    image = noise(kind, 0.04)
    mask = np.ones(SIZE, dtype=bool)
    mask[:60] = False  # as a film is left out
    dead = np.random.default_rng(2).integers(0, SIZE, (40, 2))
    mask[tuple(dead.T)] = False
    image[~mask] = 50.0
    frequency, power = ring_spectrum(image, mask)
    found = measure_noise(frequency, power, sigma_px=SIGMA_PX)
    assert found.kind == kind
    assert found.level == pytest.approx(0.04, rel=0.08)
    spoiled = measure_noise(*ring_spectrum(image), sigma_px=SIGMA_PX, kind=kind)
    assert spoiled.level > 1.0
    with pytest.raises(ValueError, match="mask leaves no pixel"):
        ring_spectrum(image, np.zeros(SIZE, dtype=bool))


@pytest.mark.parametrize("kind", ["white", "idpc"])
@pytest.mark.parametrize("source", ["residual", "frames"])
@pytest.mark.parametrize("sigma_px", [2.0, 3.5])
def test_kind_and_level_are_recovered(kind, source, sigma_px):
    found = []
    for seed in range(4):
        spectrum = ring_spectrum(noise(kind, 2.5e-3, seed))
        found.append(measure_noise(*spectrum, sigma_px=sigma_px, source=source))
    assert {f.kind for f in found} == {kind} and found[0].source == source
    assert np.mean([f.level for f in found]) == pytest.approx(2.5e-3, rel=0.05)
    assert np.mean([f.slope for f in found]) == pytest.approx(-2 if kind == "idpc" else 0, abs=0.25)


def test_a_given_kind_is_kept():
    spectrum = ring_spectrum(noise("idpc", 1.0))
    for kind in ("white", "poisson", "idpc"):
        assert measure_noise(*spectrum, sigma_px=SIGMA_PX, kind=kind).kind == kind
    assert measure_noise(*spectrum, sigma_px=SIGMA_PX).kind == "idpc"


def test_the_bands_are_where_they_should_be():
    # a residual has lost its noise below k sigma = 2; differences of frames have not
    frequency = np.linspace(0.005, 0.495, 99)
    slow = 2 * np.pi * frequency * SIGMA_PX < 2.05
    power = np.where(slow, 5.0, 1.0)
    assert measure_noise(frequency, power, sigma_px=SIGMA_PX, kind="white").level == pytest.approx(
        1
    )
    frames = measure_noise(frequency, power, sigma_px=SIGMA_PX, kind="white", source="frames")
    assert frames.level == pytest.approx(5)


def test_coarse_pixels_still_give_a_level():
    found = measure_noise(*ring_spectrum(noise("white", 0.01)), sigma_px=0.8)
    assert found.kind == "white"
    assert found.level == pytest.approx(0.01, rel=0.05)


def misfit(image, noise, *, mask=None, n_free=0.0):
    """Misfit of an image to noise alone, as the fit measures it."""
    tiles = Tiles.choose(image.shape, mask)
    clean = image if mask is None else np.where(mask, image, 0.0)
    return misfit_ratio(tiles.periodograms(clean), noise, sigma_px=SIGMA_PX, n_free=n_free)


@pytest.mark.parametrize("kind", ["white", "idpc"])
def test_misfit_is_one_for_noise_alone_and_large_for_the_wrong_model(kind):
    image = noise(kind, 0.01, seed=3)
    right = NoiseLevel(kind, 0.01, 0.0, "residual")
    many = [misfit(noise(kind, 0.01, seed), right) for seed in range(8)]
    assert np.mean(many) == pytest.approx(1, abs=0.03)
    # a column in ten that the model has not got
    truth = lattice(np.random.default_rng(1), size=SIZE).iloc[::10]
    left_over = draw(truth, size=SIZE, background=0.0)
    assert misfit(image + left_over, right) > 2
    assert misfit(image, right, n_free=0.01) > misfit(image, right)


def test_misfit_shows_white_noise_assumed_for_integrated_noise():
    image = noise("idpc", 0.01, seed=4)
    spectrum = ring_spectrum(image)
    wrong = measure_noise(*spectrum, sigma_px=SIGMA_PX, kind="white")
    right = measure_noise(*spectrum, sigma_px=SIGMA_PX)
    assert misfit(image, wrong) > 2
    assert misfit(image, right) < 1.2


def test_misfit_leaves_masked_pixels_out():
    image = noise("white", 0.01, seed=5)
    mask = np.ones(SIZE, dtype=bool)
    mask[:50] = False
    image[~mask] += 30.0
    right = NoiseLevel("white", 0.01, 0.0, "residual")
    assert misfit(image, right, mask=mask) == pytest.approx(1, abs=0.15)
    assert misfit(image, right) > 100


@pytest.mark.parametrize("kind", ["white", "idpc"])
def test_tiles_of_a_large_image_give_the_level_of_the_whole(kind):
    size = (1100, 1700)
    rng = np.random.default_rng(7)
    image = rng.normal(0, 0.1, size) if kind == "white" else integrated_noise(rng, size, 0.1)
    mask = np.ones(size, dtype=bool)
    mask[:520] = False  # a film over the first row of tiles
    image[~mask] = 50.0
    tiles = Tiles.choose(size, mask)
    assert tiles.shape == (512, 512) and 1 < len(tiles.corners) <= 8
    assert min(y for y, _ in tiles.corners) > 500
    spectrum = ring_spectrum(image, mask)
    found = measure_noise(*spectrum, sigma_px=SIGMA_PX)
    assert found.kind == kind
    assert found.level == pytest.approx(0.01, rel=0.05)
    # the negative control: tiles that do not know of the film
    spoiled = measure_noise(*ring_spectrum(image), sigma_px=SIGMA_PX, kind=kind)
    assert abs(np.log(spoiled.level / 0.01)) > 1


def test_weights_are_divided_out():
    rng = np.random.default_rng(8)
    weight = rng.uniform(0.2, 3.0, SIZE)
    image = rng.normal(0, 0.1, SIZE) / np.sqrt(weight)
    powers = Tiles.choose(SIZE).periodograms(image * weight, weight)
    level = measure_noise(*ring_medians(powers), sigma_px=SIGMA_PX, kind="white").level
    assert level == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize("size", [SIZE, (129, 131)])
def test_a_part_of_the_frequencies_is_what_the_whole_says_there(size):
    image = noise("idpc", 0.02, seed=4, size=size).astype(np.float32)
    tiles, top = Tiles.choose(size), 0.2
    whole, part = tiles.periodograms(image), tiles.periodograms(image, top=top)
    n_modes = part.power.shape[2]
    assert top * size[1] < n_modes < 0.5 * whole.power.shape[2]
    # single precision, of the strongest mode
    np.testing.assert_allclose(
        part.power, whole.power[:, :, :n_modes], rtol=1e-4, atol=1e-6 * whole.power.max()
    )
    band = (0.05, top)
    for one, other in zip(ring_medians(part, band), ring_medians(whole, band), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4)


@pytest.mark.parametrize("kind", ["white", "idpc"])
@pytest.mark.parametrize("masked", [False, True])
def test_low_frequencies_from_every_second_pixel_are_those_of_all(kind, masked):
    size, top = (512, 600), 0.15
    image = 3.0 + noise(kind, 0.02, seed=5, size=size)
    mask = np.ones(size, dtype=bool)
    if masked:
        mask[200:320, 100:300] = mask[50, 60] = False
    image[~mask] = 0.0
    tiles, n_modes = Tiles.choose(size, mask), int(top * size[1])
    whole = tiles.periodograms(image)  # double precision: of all pixels
    thin = tiles.periodograms(image.astype(np.float32), top=top)
    assert thin.power.shape[1:] < (256 + 1, 300) and whole.power.shape[1] == 512
    rows = np.r_[: int(top * 512), 512 - int(top * 512) : 512]
    few = np.where(rows < 256, rows, rows - 256)
    one, other = whole.power[0, rows, :n_modes], thin.power[0, few, :n_modes]
    # what the filter lets through of higher frequencies is the more, the higher the frequency
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.999
    assert other[1:].sum() == pytest.approx(one[1:].sum(), rel=2e-3)
    band = (0.05, 0.14)
    for found, exact in zip(ring_medians(thin, band), ring_medians(whole, band), strict=True):
        np.testing.assert_allclose(found, exact, rtol=0.03)
    known = {"sigma_px": 4.2, "n_free": 0.0}
    level = NoiseLevel("white", 0.02, 0.0, "residual")
    assert misfit_ratio(thin, level, **known) == pytest.approx(
        misfit_ratio(whole, level, **known), rel=2e-3
    )


@pytest.mark.parametrize(("offset", "counts"), [(0.0, True), (3.0, False)])
def test_noise_of_counts_follows_the_signal(offset, counts):
    rng = np.random.default_rng(9)
    signal = 0.1 + draw(lattice(rng, size=SIZE), size=SIZE, background=0.0)
    mask = np.ones(SIZE, dtype=bool)
    mask[:30] = False
    noise_of_counts = rng.poisson(40 * signal) / 40 - signal
    noise_of_counts[~mask] = 1e3
    # with an offset of unknown size the variance does not vanish with the signal
    assert follows_signal(noise_of_counts, signal + offset, mask) is counts
    even = rng.normal(0, 0.1, SIZE)
    assert not follows_signal(even, signal + offset, mask)
    assert not follows_signal(noise_of_counts, -signal, mask)
    assert not follows_signal(noise_of_counts[:20, :20], signal[:20, :20], mask[:20, :20])
