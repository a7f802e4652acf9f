"""Best sequences: where crystal ends, and how that border steps."""

import numpy as np
import pytest

from stemdisp._pixels import featureless, unmeasured
from stemdisp._terraces import find_runs, follow_border, terraces, without_holes


def test_runs_are_those_of_the_evidence():
    evidence = np.array([30.0, 25, 28, -40, -35, -30, 20, 30])
    runs = [(r.first, r.last, r.crystal) for r in find_runs(evidence)]
    assert runs == [(0, 2, True), (3, 5, False), (6, 7, True)]


def test_weak_evidence_makes_no_change():
    assert len(find_runs(np.array([30.0, 25, -4, 28, 30]))) == 1
    assert len(find_runs(np.array([30.0, 25, 28, 30, -4]))) == 1


def sites(tops, noise=0.0, seed=0):
    """Strip, plane and evidence of a border that follows `tops`."""
    strip, plane = (a.ravel() for a in np.meshgrid(np.arange(len(tops)), np.arange(-8, 9)))
    evidence = np.where(plane <= np.asarray(tops)[strip], 3.0, -3.0)
    wrong = np.random.default_rng(seed).random(len(strip)) < noise
    return strip, plane, np.where(wrong, -evidence, evidence)


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_a_border_is_followed(noise):
    tops = [0] * 12 + [2] * 9 + [1] * 10
    np.testing.assert_array_equal(follow_border(*sites(tops, noise), (-8, 8)), tops)


def test_a_missing_column_is_no_step():
    tops = [0] * 20
    strip, plane, evidence = sites(tops)
    evidence[(plane == 0) & (strip == 7)] = -3.0
    evidence[(plane == 1) & (strip == 13)] = 3.0
    np.testing.assert_array_equal(follow_border(strip, plane, evidence, (-8, 8)), tops)


def test_strips_without_evidence_go_with_their_neighbours():
    strip, plane, evidence = sites([0] * 10 + [1] * 10)
    evidence[(strip > 4) & (strip < 8)] = 0.0
    found = follow_border(strip, plane, evidence, (-8, 8))
    np.testing.assert_array_equal(found, [0] * 10 + [1] * 10)


def test_deep_narrow_pits_are_holes_and_wide_ones_terraces():
    pit = np.array([0] * 10 + [-5] * 4 + [0] * 10)
    np.testing.assert_array_equal(without_holes(pit, 2.0), 0)
    wide = np.array([0] * 10 + [-2] * 8 + [0] * 10)
    np.testing.assert_array_equal(without_holes(wide, 2.0), wide)
    # a hole between two terraces is filled; the step beside it stays
    both = np.array([0] * 2 + [-5] * 5 + [0] * 8 + [-2] * 8)
    np.testing.assert_array_equal(without_holes(both, 0.7), [0] * 15 + [-2] * 8)
    # at the rim of the image it may be half of a wider one
    rim = np.array([0] * 20 + [-2] * 3)
    np.testing.assert_array_equal(without_holes(rim, 2.0), rim)


def test_terraces_are_counted_from_the_most_common():
    starts, offsets, common = terraces(np.array([3, 3, 5, 5, 5, 4]))
    assert (starts.tolist(), offsets.tolist(), common) == ([2, 5], [-2, 0, -1], 5)


# ---- pixels that measure nothing ------------------------------------------------------------


def noisy(rng, mean=0.0):
    return rng.normal(mean, 1.0, (60, 80))


def test_saturated_dead_and_missing_pixels_are_found():
    data = noisy(np.random.default_rng(0))
    data[10:20, 10:20] = data.max() + 1
    data[:, 70:] = 0.0
    data[40, 40] = np.nan
    bad = unmeasured(data)
    assert bad[10:20, 10:20].all() and bad[:, 70:].all() and bad[40, 40]
    rest = np.ones_like(bad)
    rest[6:24, 6:24] = rest[:, 66:] = rest[40, 40] = False
    assert not bad[rest].any()


def test_counts_that_are_equal_by_chance_are_none():
    data = np.random.default_rng(1).poisson(2.0, (200, 200)).astype(float)
    assert not unmeasured(data).any()


def test_vacuum_of_an_image_without_noise_is_measured():
    yy, xx = np.mgrid[0:60, 0:80]
    data = np.where(xx < 40, np.cos(yy / 3) * np.cos(xx / 3), -1.0)
    assert featureless(data)[:, 45:].all()
    assert not unmeasured(data)[:, 45:].any()
