"""Image -> lattice: the truth is found however the image is turned, and refused where it is not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage
from _known_images import (
    IDEAL,
    PIXEL_A,
    SITES,
    bent,
    ideal,
    kto,
    mirrored,
    painted,
    positions,
    quarter_turns,
    simulated,
    warped,
)
from scipy import ndimage, optimize
from skimage.io import imread

from stemdisp.crystal import project
from stemdisp.errors import DataError
from stemdisp.lattice import Lattice, find_lattice
from stemdisp.load import load, signal_pixel_size_A
from stemdisp.simulate import idpc_noise, render

ALIKE_PX = 1e-4  # to which `Lattice.index` inverts the bend
SHEAR = np.tan(np.deg2rad(2))


def site_indices(lattice, truth):
    """Indices that each true column must have: those of its species nearest to where it lies."""
    site = np.array([SITES[s] for s in truth["species"]])
    return np.rint(lattice.index(positions(truth)) - site) + site


def errors_A(lattice, truth):
    """Distance of the nearest site of its own species from every true column."""
    off = lattice.position(site_indices(lattice, truth)) - positions(truth)
    return off * PIXEL_A


def mean_cell(ij, xy):
    """Origin, u and v of the lattice through points with known indices."""
    return np.linalg.lstsq(np.c_[np.ones(len(ij)), ij], xy, rcond=None)[0]


def assert_right(lattice, truth, *, vectors=1e-3, position_A=0.1):
    """Vectors within 0.1 % and every column, so the origin too, within 0.1 A.

    Where half of a small image is film, 0.1 % is 0.03 A across the crystal: allow twice that.
    """
    vectors *= 1 + (truth["N"].min() == 1)
    ij = site_indices(lattice, truth)
    assert np.hypot(*errors_A(lattice, truth).T).max() < position_A
    true, found = mean_cell(ij, positions(truth)), mean_cell(ij, lattice.position(ij))
    assert np.hypot(*(found - true)[0]) * PIXEL_A < position_A
    for wanted, got in zip(true[1:], found[1:], strict=True):
        assert np.hypot(*(got - wanted)) < vectors * np.hypot(*wanted)
    cell = lattice.local_cell(np.array([lattice.centre_px]))[0]
    assert np.hypot(*(cell[0] - lattice.u_px)) < 2e-3 * np.hypot(*lattice.u_px)
    assert lattice.margin > 0.05
    assert lattice.explained > 0.9


# ---- the truth is found ---------------------------------------------------------------------


@pytest.mark.parametrize("film_A", [0.0, 14.0])
@pytest.mark.parametrize("rotation", [0.0, 45.0, 98.0])
def test_lattice_is_found_at_any_rotation(rotation, film_A):
    image, truth = ideal(rotation_deg=rotation, film_A=film_A)
    assert_right(find_lattice(image, kto()), truth)


@pytest.mark.parametrize("rotation", [12.0, 203.0])
def test_mirror_images_are_as_good(rotation):
    image, truth = mirrored(*ideal(rotation_deg=rotation))
    assert_right(find_lattice(image, kto()), truth)


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_a_pixel_size_that_is_ten_percent_wrong_does_no_harm(factor):
    image, truth = ideal(rotation_deg=12.0)
    known = find_lattice(image, kto(), pixel_size=PIXEL_A * factor)
    unknown = find_lattice(image, kto())
    assert_right(known, truth)
    np.testing.assert_allclose(known.cell_px, unknown.cell_px, atol=ALIKE_PX)
    np.testing.assert_allclose(known.origin_px, unknown.origin_px, atol=ALIKE_PX)


@pytest.mark.parametrize(
    ("rotation", "matrix"),
    [
        (12.0, [[1.05, 0], [0, 1]]),
        (80.0, [[1, SHEAR], [0, 1]]),
        (12.0, [[1, SHEAR], [0, 0.95]]),
        (80.0, [[1, -SHEAR], [0, 1.05]]),
    ],
    ids=["scaled", "sheared", "both", "both the other way"],
)
def test_axes_may_be_scaled_and_sheared(rotation, matrix):
    image, truth = warped(*ideal(rotation_deg=rotation, size=384), matrix, crop=300)
    assert_right(find_lattice(image, kto(), pixel_size=PIXEL_A), truth)


def test_dark_columns_are_found_as_such():
    image, truth = ideal(rotation_deg=12.0)
    dark = find_lattice(-image, kto())
    assert_right(dark, truth)
    assert dark.sign == -1
    assert find_lattice(image, kto()).sign == 1


@pytest.mark.parametrize("strain", [0.01, 0.06])
def test_slow_strain_is_tracked(strain):
    image, truth = bent(*ideal(rotation_deg=80.0, size=384), strain, crop=330)
    lattice = find_lattice(image, kto())
    assert_right(lattice, truth, position_A=0.1 if strain < 0.02 else 0.15)
    ends = np.array([[20.0, 165.0], [310.0, 165.0]])
    width = np.abs(lattice.local_cell(ends)[:, :, 0]).sum(axis=1)
    assert width[1] / width[0] - 1 == pytest.approx(strain * 290 / 330, abs=0.01)
    # negative control: without the tracked distortion the strong strain is not described
    straight = replace(lattice, distortion=np.zeros((7, 2)))
    if strain > 0.03:
        assert np.hypot(*errors_A(straight, truth).T).max() > 0.2


def test_displacements_vacancies_and_jitter_do_not_mislead():
    image, truth = simulated(rotation_deg=27.0, dose_e_per_A2=300.0)
    lattice = find_lattice(image, kto())
    fixed = truth[(truth["species"] != "K") & (truth["N"] > 1)]
    assert np.median(np.hypot(*errors_A(lattice, fixed).T)) < 0.15
    assert np.hypot(*errors_A(lattice, fixed).T).max() < 0.5  # nearest other site: 1.4 A
    assert lattice.margin > 0.05


def test_missing_pixels_do_no_harm():
    image, truth = ideal(rotation_deg=12.0, film_A=0.0)
    image = image.copy()
    image[120:180, 60:150] = np.nan
    image[-20:] = np.nan
    assert_right(find_lattice(image, kto()), truth, position_A=0.12)


def sweep(seed):
    """Image with random rotation, sampling, dose and handedness."""
    rng = np.random.default_rng(seed)
    options = {
        "rotation_deg": float(rng.uniform(0, 360)),
        "pixel_size_A": float(rng.choice([0.1, 0.15, 0.2])),
        "dose_e_per_A2": float(rng.choice([1000.0, 100.0, 30.0, 10.0])),
    }
    image, truth = simulated(seed=seed, **options)
    if seed % 2:
        image, truth = mirrored(image, truth)
    return image, truth, options


@pytest.mark.parametrize("seed", [2, *(pytest.param(k, marks=pytest.mark.slow) for k in range(16))])
def test_never_wrong_in_silence(seed):
    # seed 2: the peaks between those of a cell of half the size drown in noise; that cell folds
    # the image better than the right one does
    image, truth, options = sweep(seed)
    try:
        lattice = find_lattice(image, kto())
    except DataError:
        assert options["dose_e_per_A2"] < 100, "refused although the dose is ample"
        return
    fixed = truth[(truth["species"] != "K") & (truth["N"] > 1)]
    off = lattice.position(site_indices(lattice, fixed)) - positions(fixed)
    assert np.median(np.hypot(*off.T)) * options["pixel_size_A"] < 0.15


# ---- which column is which ------------------------------------------------------------------


def share_explained(image, lattice, sites):
    """Share of the variance that spots of one width at the given sites explain (fit >= 0)."""
    inner = slice(20, -20)
    span = np.arange(-40, 41)
    cells = np.stack(np.meshgrid(span, span, indexing="ij"), axis=-1).reshape(-1, 2)
    columns = [np.ones(image[inner, inner].size)]
    for site in sites:
        xy = lattice.position(cells + np.array(site))
        xy = xy[np.all((xy > -10) & (xy < image.shape[0] + 10), axis=1)]
        blobs = np.c_[xy, np.ones(len(xy)), np.full(len(xy), 0.45 / PIXEL_A)]
        spots = render(blobs, np.zeros((image.shape[0], 2)), image.shape[0])
        columns.append(spots[inner, inner].ravel())
    target = image[inner, inner].ravel()
    _, rest = optimize.nnls(np.stack(columns, axis=1), target)
    return 1 - rest**2 / np.sum((target - target.mean()) ** 2)


@pytest.mark.parametrize(
    "volumes",
    [
        {"K": 0.33, "Ta": 0.40, "O": 0.18},
        {"K": 0.50, "Ta": 0.35, "O": 0.18},  # 5 nm: the light column is the bright one
        {"K": 0.40, "Ta": 0.40, "O": 0.20},  # no contrast between the cations at all
    ],
)
def test_swapped_cations_are_caught_by_geometry(volumes):
    image, truth = painted(volumes)
    lattice = find_lattice(image, kto())
    assert_right(lattice, truth)
    swapped = lattice.reindexed(np.eye(2), np.array([0.0, 0.5]))
    right = share_explained(image, lattice, SITES.values())
    wrong = share_explained(image, swapped, SITES.values())
    assert right > 0.9
    assert right - wrong > 0.05
    assert lattice.margin > 0.05
    # negative control of this file's own check: the swap would be seen
    assert np.hypot(*errors_A(swapped, truth).T).max() > 1.0


@pytest.mark.parametrize(
    "volumes",
    [
        {"K": 0.40, "Ta": 0.40, "O": 0.0},
        {"K": 0.38, "Ta": 0.40, "O": 0.0},
        {"K": 0.40, "Ta": 0.40, "O": 0.01},
    ],
)
def test_cations_that_look_alike_without_oxygen_are_refused(volumes):
    image, _ = painted(volumes)
    with pytest.raises(DataError, match="cannot tell which column is which"):
        find_lattice(image, kto())


def test_heavier_is_brighter_decides_where_no_oxygen_shows():
    # HAADF-like; the ratio is that of the expected contrast
    contrast = {s.species: s.contrast["haadf"] for s in kto().sites}
    image, truth = painted({"K": 0.4 * contrast["K"], "Ta": 0.4, "O": 0.0})
    lattice = find_lattice(image, kto())
    assert np.hypot(*errors_A(lattice, truth).T).max() < 0.1


# ---- what is not this crystal is refused ----------------------------------------------------


def photograph():
    """Shapes with sharp edges on a shaded ground, and texture."""
    rng = np.random.default_rng(4)
    yy, xx = np.mgrid[0:320, 0:320]
    image = 0.3 * xx + 40 * np.sin(yy / 90)
    for _ in range(25):
        x, y, w, h = rng.uniform(0, 320, 2).tolist() + rng.uniform(10, 90, 2).tolist()
        turn = rng.uniform(0, np.pi)
        a, b = xx - x, yy - y
        a, b = a * np.cos(turn) + b * np.sin(turn), b * np.cos(turn) - a * np.sin(turn)
        image[(np.abs(a) < w / 2) & (np.abs(b) < h / 2)] = rng.uniform(0, 255)
    return ndimage.gaussian_filter(image, 0.8) + rng.normal(0, 5, image.shape)


def noise(kind):
    rng = np.random.default_rng(3)
    if kind == "white":
        return rng.normal(size=(320, 320))
    if kind == "idpc":
        return idpc_noise(320, PIXEL_A, 1000.0, rng)
    if kind == "film":
        return simulated(film_A=44.0, size=384)[0][:270]
    vacuum = np.where(np.arange(320)[:, None] > 150, 8.0, 0.2) * np.ones((320, 320))
    return rng.poisson(vacuum).astype(float)


@pytest.mark.parametrize("kind", ["white", "idpc", "film", "vacuum"])
def test_noise_is_refused(kind):
    with pytest.raises(DataError, match=r"no lattice found|periods do not fit"):
        find_lattice(noise(kind), kto())


def test_a_drawn_photograph_is_refused():
    with pytest.raises(DataError, match=r"no lattice found|periods do not fit"):
        find_lattice(photograph(), kto())


@pytest.mark.parametrize("name", ["camera", "brick", "page"])
def test_photographs_are_refused(name):
    path = Path(skimage.__file__).parent / "data" / f"{name}.png"
    if not path.is_file():
        pytest.skip("this scikit-image comes without photographs")
    with pytest.raises(DataError, match=r"no lattice found|periods do not fit"):
        find_lattice(imread(path)[:400, :400].astype(float), kto())


@pytest.mark.parametrize("image", [np.ones((200, 200)), np.full((200, 200), np.nan)])
def test_empty_images_are_refused(image):
    with pytest.raises(DataError, match="nothing to analyse"):
        find_lattice(image, kto())


def test_wrong_dimensions_are_a_wrong_call():
    with pytest.raises(ValueError, match="3 dimensions"):
        find_lattice(np.zeros((3, 100, 100)), kto())


@pytest.mark.parametrize(
    ("structure", "zone_axis"),
    [("KTaO3", (0, 0, 1)), ("KTaO3", (1, 1, 1)), ("KTaO3", (1, 1, -2)), ("SrTiO3", (0, 0, 1))],
)
def test_wrong_zone_axes_are_refused(structure, zone_axis):
    image, _ = ideal(rotation_deg=12.0)
    with pytest.raises(DataError, match=r"periods do not fit .* along"):
        find_lattice(image, project(structure, zone_axis))


def test_another_structure_is_refused():
    # other proportions of the cell than axes scaled differently by 5 % can make
    image, _ = ideal(rotation_deg=12.0)
    tall = replace(kto(), v_A=kto().v_A * 1.2)
    with pytest.raises(DataError, match="periods do not fit"):
        find_lattice(image, tall)


@pytest.mark.parametrize("seed", [2, *(pytest.param(k, marks=pytest.mark.slow) for k in range(9))])
def test_a_cell_of_half_the_size_is_refused_at_low_dose(seed):
    image, _, options = sweep(seed)
    with pytest.raises(DataError, match="periods"):
        find_lattice(image, kto(), pixel_size=1.38 * options["pixel_size_A"])


@pytest.mark.parametrize("factor", [0.5, 2 / 3, 0.8, 1.2, 4 / 3, 2.0])
def test_a_wrong_pixel_size_is_refused(factor):
    # 4/3: a cell of half the size fits most periods, and everything folded into it looks right
    image, _ = ideal(rotation_deg=12.0)
    with pytest.raises(DataError, match="periods"):
        find_lattice(image, kto(), pixel_size=PIXEL_A * factor)


# ---- the lattice as an object ---------------------------------------------------------------


def bent_lattice():
    rng = np.random.default_rng(1)
    return Lattice(
        origin_px=np.array([12.3, 40.1]),
        u_px=np.array([18.0, 2.0]),
        v_px=np.array([-3.0, -25.0]),
        centre_px=np.array([159.5, 159.5]),
        scale_px=160.0,
        distortion=rng.normal(0, 2.0, (7, 2)),
    )


def test_position_and_index_are_inverse():
    lattice = bent_lattice()
    xy = np.random.default_rng(0).uniform(0, 320, (500, 2))
    back = lattice.position(lattice.index(xy))
    np.testing.assert_allclose(back, xy, atol=1e-2)
    straight = replace(lattice, distortion=np.zeros((7, 2)))
    np.testing.assert_allclose(straight.position(straight.index(xy)), xy, atol=1e-9)
    # the distortion is not a formality here
    assert np.abs(straight.position(lattice.index(xy)) - xy).max() > 1.0


def test_local_cell_is_the_derivative_of_position():
    lattice = bent_lattice()
    ij = np.array([[2.0, -3.0], [6.5, -6.0], [11.0, -9.5]])
    cell = lattice.local_cell(lattice.position(ij))
    step = 1e-3
    for axis in range(2):
        move = step * np.eye(2)[axis]
        slope = (lattice.position(ij + move) - lattice.position(ij - move)) / (2 * step)
        np.testing.assert_allclose(cell[:, axis], slope, atol=0.05)


def test_reindexing_keeps_every_column_in_its_place():
    lattice = bent_lattice()
    operation, shift = np.array([[0, 1], [-1, 0]]), np.array([0.5, 0.0])
    turned = lattice.reindexed(operation, shift)
    p = np.random.default_rng(0).uniform(-3, 9, (50, 2))
    np.testing.assert_allclose(turned.position(p), lattice.position(p @ operation + shift))
    np.testing.assert_allclose(turned.u_px, lattice.v_px)


def test_equivalent_indexings_are_settled_upright():
    image, truth = ideal(rotation_deg=12.0)
    for times in range(4):
        turned, moved = quarter_turns(image, truth, times)
        lattice = find_lattice(turned, kto())
        assert_right(lattice, moved)
        cell = lattice.cell_px
        assert cell[1, 1] <= 0, "v points up"
        assert cell[0, 0] > 0 or abs(cell[1, 1]) < 1


# ---- published images -----------------------------------------------------------------------

REAL = {
    # file: structure, zone axis, |u|, |v| in px of shared/data/real/README.md
    "iDPC9.tif": ("PMN", (1, -1, 0), 17.746, 24.917),
    "test_ABF_cropped.hdf5": ("SrTiO3", (1, -1, 0), 29.5, 41.9),
    "test_ADF_cropped.hdf5": ("SrTiO3", (1, -1, 0), 29.5, 41.9),
    "BTO_crystal_1.dm4": ("BaTiO3", (0, 0, 1), 3.987 / 0.2966, 3.800 / 0.2966),
    "Acquisition_18.emd": ("SrTiO3", (0, 0, 1), 4.09 / 0.122465, 4.11 / 0.122465),
}


def level(image, lattice, site, *, inner=0.12):
    """Mean of the image within a small ellipse about all sites at the given fractions."""
    stride = 2 if image.size > 300_000 else 1
    yy, xx = np.mgrid[0 : image.shape[0] : stride, 0 : image.shape[1] : stride]
    ij = lattice.index(np.column_stack([xx.ravel(), yy.ravel()]))
    off = (ij - np.array(site) + 0.5) % 1.0 - 0.5
    return image[yy, xx].ravel()[np.hypot(*off.T) < inner].mean()


@pytest.mark.parametrize("name", REAL)
def test_published_images(real_file, name):
    structure, zone_axis, u, v = REAL[name]
    projection = project(structure, zone_axis)
    signal = load(real_file(name))
    image = np.asarray(signal.data, dtype=float)
    lattice = find_lattice(image, projection)
    assert np.hypot(*lattice.u_px) == pytest.approx(u, rel=5e-3)
    assert np.hypot(*lattice.v_px) == pytest.approx(v, rel=5e-3)
    assert lattice.sign == (-1 if "ABF" in name else 1)
    stated = signal_pixel_size_A(signal)
    if stated is not None and image.size < 300_000:
        again = find_lattice(image, projection, pixel_size=stated[0])
        np.testing.assert_allclose(again.cell_px, lattice.cell_px, atol=1e-6)
    # What the eye sees: A columns above B columns, and oxygen where the oxygen site is.
    bright = image * lattice.sign
    a, b = projection.sites[0], projection.sites[1]
    assert level(bright, lattice, (a.u, a.v)) > level(bright, lattice, (b.u, b.v))
    if name in ("iDPC9.tif", "test_ABF_cropped.hdf5"):
        depth = level(bright, lattice, (0.5, 0.5)) - level(bright, lattice, (0.5, 0.0))
        assert depth > 0.15 * bright.std()


def test_two_detectors_agree_which_site_is_where(real_file):
    # One area, dark-field and bright-field: a swap of Sr and Ti in either would show.
    projection = project("SrTiO3", (1, -1, 0))
    files = ("test_ABF_cropped.hdf5", "test_ADF_cropped.hdf5")
    abf, adf = (
        find_lattice(np.asarray(load(real_file(f)).data, dtype=float), projection) for f in files
    )
    for site in ((0.0, 0.0), (0.0, 0.5), (0.5, 0.5)):
        ij = np.array(site) + np.array([[1, 1], [2, 3], [5, 4], [8, 6]])
        seen = adf.index(abf.position(ij)) - np.array(site)
        off = (seen + 0.5) % 1.0 - 0.5
        assert np.abs(off).max() < 0.1, site
    # negative control: a swapped one would be half a cell off
    swapped = adf.reindexed(np.eye(2), np.array([0.0, 0.5]))
    off = (swapped.index(abf.position(np.array([[1.0, 1.0]]))) + 0.5) % 1.0 - 0.5
    assert np.abs(off).max() > 0.4


def test_ideal_options_are_still_fields_of_the_simulation():
    # a renamed field would quietly bring displacements back into the truth of this file
    _, truth = ideal(rotation_deg=12.0)
    assert set(IDEAL) >= {"delta0_A", "offset_A", "disorder_A"}
    assert truth["delta_A"].abs().max() == 0
