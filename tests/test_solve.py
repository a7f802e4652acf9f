"""The linear system of a step: conjugate gradients against the same system, written out whole."""

from dataclasses import replace

import numpy as np
import pytest
from _lattice_images import draw, fit, lattice, noisy, seeds

from stemdisp import _system
from stemdisp._system import System
from stemdisp._threads import Crew


def whole(system):
    """The matrix of a system, dense: columns, then shared widths, then the background."""
    n, n_widths = len(system.inverse), system.border.shape[2]
    n_surface = 0 if system.surface is None else system.surface.shape[1]
    out = np.zeros((4 * n + n_widths + n_surface,) * 2)
    rows = system.neighbours.rows()
    for block, a, b in zip(system.blocks, rows, system.neighbours.indices, strict=True):
        out[4 * a : 4 * a + 4, 4 * b : 4 * b + 4] = block
    out[np.diag_indices(4 * n)] += system.damping.ravel()
    out[: 4 * n, 4 * n : 4 * n + n_widths] = system.border.reshape(4 * n, n_widths)
    if n_surface:
        out[: 4 * n : 4, 4 * n + n_widths :] = system.surface.toarray()
    out[4 * n :, : 4 * n] = out[: 4 * n, 4 * n :].T
    out[4 * n :, 4 * n :] = system.corner
    return out


@pytest.fixture(scope="module", params=["idpc", "white", "own widths"])
def asked(request):
    """A system as a fit meets it, and its right-hand side."""
    size = (320, 320)
    truth = lattice(np.random.default_rng(0), size=size)
    image = draw(truth, size=size)
    noise = request.param if request.param != "own widths" else "idpc"
    widths = "column" if request.param == "own widths" else "species"
    seen, solve = [], System.solve

    def listen(self, head, tail, tolerance):
        kept = replace(self, blocks=self.blocks.copy())  # the next one is written to the same room
        seen.append((kept, head.copy(), tail.copy()))
        return solve(self, head, tail, tolerance)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(System, "solve", listen)
        noisy_image = noisy(np.random.default_rng(3), image, noise)
        fit(noisy_image, seeds(truth), noise, widths=widths)
    system, head, tail = seen[-2]
    assert (system.surface is not None) == (noise == "white")
    assert (system.border.shape[2] == 0) == (widths == "column")
    assert len(head) > 1.5 * _system.BATCH  # sums of several batches
    with Crew() as crew:
        yield replace(system, crew=crew), head, tail


def test_the_solution_is_that_of_the_whole_matrix(asked):
    system, head, tail = asked
    matrix = whole(system)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-6 * abs(matrix).max())
    right = np.concatenate([head.ravel(), tail])
    own, shared = system.solve(head, tail, 1e-9)
    found = np.concatenate([own.ravel(), shared])
    left = np.linalg.norm(matrix @ found - right) / np.linalg.norm(right)
    assert left < 2e-6  # blocks and directions have single precision
    assert np.array_equal(right, np.concatenate([head.ravel(), tail]))  # nothing was changed


def test_it_stops_at_the_tolerance_after_a_few_steps(asked, monkeypatch):
    system, head, tail = asked
    matrix, right = whole(system), np.concatenate([head.ravel(), tail])

    def left_after(steps, tolerance=0.0):
        monkeypatch.setattr(_system, "MOST_STEPS", steps)
        own, shared = system.solve(head, tail, tolerance)
        found = np.concatenate([own.ravel(), shared])
        return np.linalg.norm(matrix @ found - right) / np.linalg.norm(right)

    assert left_after(0) == 1.0
    assert left_after(60, 0.02) <= 0.02 * (1 + 1e-6)
    # without elimination of the columns by their own blocks it takes many more
    assert left_after(8) < 0.02


def test_an_empty_right_side_is_its_own_solution(asked):
    system, head, tail = asked
    own, shared = system.solve(np.zeros_like(head), np.zeros_like(tail), 0.02)
    assert not own.any() and not shared.any()


def test_rows_that_are_not_numbers_end_the_steps(asked):
    system, head, tail = asked
    spoiled = head.copy()
    spoiled[3, 1] = np.nan
    own, _ = system.solve(spoiled, tail, 0.02)
    assert own.shape == head.shape
