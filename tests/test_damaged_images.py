"""Holes, saturated spots and dead borders: every column there keeps its row and says what it is."""

import numpy as np
import pytest
from _known_images import PIXEL_A, positions, simulated

from stemdisp.pipeline import run
from stemdisp.tables import Quality, usable

HOLE, SPOT, RADIUS = (110.0, 200.0), (230.0, 190.0), 16.0
DEAD = 296  # columns of pixels from here on


@pytest.fixture(scope="module")
def damaged():
    """A frame with a hole in the crystal, a saturated spot and a dead border, and its run."""
    from hyperspy.signals import Signal2D

    rng = np.random.default_rng(0)
    image, truth = simulated(rotation_deg=5.0, dose_e_per_A2=4000.0, film_A=10.0)
    image = image.copy()
    yy, xx = np.mgrid[0 : len(image), 0 : image.shape[1]]
    hole = np.hypot(xx - HOLE[0], yy - HOLE[1]) < RADIUS
    image[hole] = np.percentile(image, 5) + rng.normal(0, 0.02 * image.std(), hole.sum())
    image[np.hypot(xx - SPOT[0], yy - SPOT[1]) < RADIUS] = image.max() * 1.2
    image[:, DEAD:] = 0.0
    signal = Signal2D(image)
    for axis in signal.axes_manager.signal_axes:
        axis.scale, axis.units = PIXEL_A, "Å"
    return run(signal).columns, truth


def within(columns, place, radius):
    """Rows of the columns nearer than `radius` px to a place."""
    xy = columns[["x_px", "y_px"]].to_numpy()
    return columns[np.hypot(*(xy - place).T) < radius]


def has(columns, bit):
    return (columns["quality"] & int(bit)).to_numpy() > 0


def test_every_true_column_has_its_row(damaged):
    columns, truth = damaged
    xy = columns[["x_px", "y_px"]].to_numpy()
    assert np.isfinite(xy).all()
    inside = truth[truth["x_px"].between(2, 317) & truth["y_px"].between(2, 317)]
    for species in ("K", "Ta", "O"):
        mine = xy[columns["species"] == species]
        away = np.hypot(
            *np.moveaxis(positions(inside[inside["species"] == species])[:, None] - mine, -1, 0)
        ).min(axis=1)
        assert away.max() * PIXEL_A < 0.7  # K of N = 1 is 0.54 A off its site


def test_columns_in_a_hole_are_not_detected(damaged):
    found = within(damaged[0], HOLE, RADIUS - 4)
    assert len(found) >= 2
    assert has(found, Quality.NOT_DETECTED).all()
    assert (found["significance"].abs() < 3).all()


def test_columns_under_saturated_and_dead_pixels_are_masked(damaged):
    columns, _ = damaged
    spot = within(columns, SPOT, RADIUS - 4)
    assert len(spot) >= 2
    assert has(spot, Quality.MASKED).all()
    dead = columns[columns["x_px"] > DEAD + 3]
    assert len(dead) > 20
    assert (has(dead, Quality.MASKED) | has(dead, Quality.EDGE)).all()
    assert not usable(dead).any()


def test_columns_away_from_the_damage_are_good(damaged):
    columns, _ = damaged
    xy = columns[["x_px", "y_px"]].to_numpy()
    far = np.ones(len(columns), dtype=bool)
    for place in (HOLE, SPOT):
        far &= np.hypot(*(xy - place).T) > RADIUS + 12
    far &= (xy[:, 0] < DEAD - 12) & np.all(xy > 8, axis=1) & (xy[:, 1] < 310)
    assert usable(columns)[far].mean() > 0.99
    assert np.count_nonzero(far) > 300
