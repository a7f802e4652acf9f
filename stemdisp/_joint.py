"""The joint Gauss-Newton fit of all columns, background and shared widths, in pixels.

One residual image; information analytic (closed-form overlaps of Gaussians); each step solves
the sparse system of all columns together with the shared widths and a smooth background by
preconditioned conjugate gradients. ``order`` 0 is least squares on the image (white noise),
1 least squares on its gradient (iDPC).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from scipy import linalg, ndimage, sparse
from scipy.sparse.linalg import LinearOperator, cg
from scipy.spatial import cKDTree

from stemdisp._background import Background

REACH = 4.2  # half window of a column in widths; the tail beyond holds 1.5e-4 of the peak
PAIR_REACH = 4.5  # columns further apart than this many joint widths do not see each other
# Overlaps are those of whole columns; at the image border they are a little off. This share of
# the diagonal keeps every step downhill and costs no accuracy at convergence.
DAMPING = 2e-3
FREEZE = 1e6
# Share of the brightest kind's intensity below which a kind has no width of its own: a width
# without intensity is anything.
SHOWN = 0.08
MOST = 5.0  # times the typical intensity of its kind: more is a runaway
FAINT = 4.0  # standard errors of intensity below which steps in position are held back


@dataclass(frozen=True, eq=False)
class State:
    """Parameters of the fit, pixels; ``kind`` indexes the species of each column."""

    x: np.ndarray
    y: np.ndarray
    volume: np.ndarray
    widths: np.ndarray
    kind: np.ndarray
    background: np.ndarray
    converged: np.ndarray
    iterations: int = 0

    @property
    def sigma(self) -> np.ndarray:
        """Width of every column."""
        return self.widths[self.kind]


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Neighbour list in CSR form, each column among its own neighbours."""

    indptr: np.ndarray
    indices: np.ndarray

    @classmethod
    def within(cls, x: np.ndarray, y: np.ndarray, radius: float) -> Neighbours:
        """All pairs closer than `radius` px."""
        tree = cKDTree(np.column_stack([x, y]))
        graph = tree.sparse_distance_matrix(tree, radius, output_type="coo_matrix")
        n = len(x)
        rows = np.concatenate([graph.row, np.arange(n)])
        cols = np.concatenate([graph.col, np.arange(n)])
        keep = np.unique(rows.astype(np.int64) * n + cols)
        indptr = np.zeros(n + 1, dtype=np.int64)
        np.add.at(indptr, keep // n + 1, 1)
        return cls(np.cumsum(indptr), keep % n)


@dataclass(frozen=True, eq=False)
class Problem:
    """Everything that stays fixed while the parameters move.

    ``prior`` (n,) is the information (in units of 1/level) with which a position is tied to
    ``start``: far too weak to move a column that is seen, enough to hold one that is absent.
    ``leash`` is how far (px) each column may go from its start.
    ``fields`` are the `information_fields` of the pixels.
    ``nuisance`` is the kind whose columns need not converge (-1: none).
    ``frozen`` columns, those mostly outside the usable pixels, stay at ``expected`` intensity and
    at their start, because what is visible of them cannot say more.
    """

    image: np.ndarray
    mask: np.ndarray
    background: Background
    start: np.ndarray
    expected: np.ndarray
    frozen: np.ndarray
    prior: np.ndarray
    pixel_weight: np.ndarray | None = None
    level: float = 1e-4
    nuisance: int = -1
    leash: np.ndarray = field(default_factory=lambda: np.array(np.inf))
    fields: np.ndarray = field(default_factory=lambda: np.ones((2, 1, 1)))
    free_widths: bool = True
    order: int = 0


def model_image(problem: Problem, state: State) -> np.ndarray:
    """Background plus all columns."""
    from stemdisp._kernels import render_columns

    out = problem.background.surface(state.background)
    render_columns(out, state.x, state.y, state.volume, state.sigma, REACH + 0.8)
    return out


def information_fields(problem: Problem, width: float) -> np.ndarray:
    """Statistical weight of the pixels as columns see it; shape (2, ny, nx).

    Information on an intensity weighs pixels by the square of the column's shape (a Gaussian
    narrower by sqrt 2), that on a position reaches further out. Pixels that are masked or lie
    beyond the border weigh nothing.
    """
    spread = (width / np.sqrt(2), width)
    if problem.pixel_weight is None and problem.mask.all():
        lines = [
            [ndimage.gaussian_filter1d(np.ones(n), s, mode="constant") for n in problem.mask.shape]
            for s in spread
        ]
        fields = np.stack([np.outer(*line) for line in lines])
    else:
        pixels = np.where(problem.mask, 1.0, 0.0)
        if problem.pixel_weight is not None:
            pixels = np.where(problem.mask, problem.pixel_weight, 0.0)
        fields = np.stack(
            [ndimage.gaussian_filter(pixels, s, mode="constant", truncate=3.5) for s in spread]
        )
    return np.maximum(fields, 1e-3)


def iterate(
    problem: Problem, state: State, *, max_iterations: int, tolerance_px: float, max_step: float
) -> State:
    """Take Gauss-Newton steps until no position moves by more than the tolerance.

    `max_step` limits a step in widths. Returns the last state; ``converged`` says for which
    columns the last step was below ten times the tolerance.
    """
    neighbours, widest = _see(state), state.widths.max()
    problem = replace(problem, fields=information_fields(problem, float(np.median(state.sigma))))
    held = problem.frozen
    state = replace(
        state,
        volume=np.where(held, problem.expected, state.volume),
        x=np.where(held, problem.start[:, 0], state.x),
        y=np.where(held, problem.start[:, 1], state.y),
    )
    brake = Brake(len(state.x), len(state.widths))
    moved = np.full(len(state.x), np.inf)
    for _ in range(max_iterations):
        if state.widths.max() > 1.1 * widest:
            neighbours, widest = _see(state), state.widths.max()
        state, moved = _step(problem, state, neighbours, brake, max_step)
        if np.max(moved, where=_matters(problem, state), initial=0.0) < tolerance_px:
            break
    return replace(state, converged=moved < 10 * tolerance_px)


def _see(state: State) -> Neighbours:
    """List the pairs of columns that overlap."""
    return Neighbours.within(state.x, state.y, PAIR_REACH * np.sqrt(2) * state.widths.max())


class Brake:
    """Halves the steps of parameters that swing about their solution.

    Where columns are not Gaussians the residual does not vanish, the Gauss-Newton matrix is not
    the curvature, and steps in widths and intensities may overshoot for ever.
    """

    def __init__(self, n_columns: int, n_widths: int) -> None:
        self._last = [np.zeros((n_columns, 3)), np.zeros((n_widths, 1)), np.zeros((1, 1))]
        self._factor = [np.ones(n_columns), np.ones(n_widths), np.ones(1)]

    def slow(self, steps: list[np.ndarray]) -> list[np.ndarray]:
        """Return the steps (n, k) of each group, shortened where they reverse without shrinking."""
        out = []
        for k, step in enumerate(steps):
            last = self._last[k] if self._last[k].shape == step.shape else np.zeros_like(step)
            along = np.sum(step * last, axis=1)
            back = along < -0.35 * np.sum(last**2, axis=1)
            factor = np.where(back, 0.5, 1.4) * self._factor[k]
            self._factor[k] = np.clip(factor, 0.05, 1.0)
            short = step * self._factor[k][:, None]
            self._last[k] = short
            out.append(short)
        return out


def _typical(state: State) -> np.ndarray:
    """Median intensity of each kind."""
    return np.array([np.median(state.volume[state.kind == k]) for k in range(len(state.widths))])


def held_widths(problem: Problem, state: State) -> np.ndarray:
    """Kinds whose shared width is not fitted: those that the image hardly shows (O in HAADF)."""
    if not problem.free_widths:
        return np.ones(len(state.widths), dtype=bool)
    typical = _typical(state)
    return typical < SHOWN * typical.max()


def _matters(problem: Problem, state: State) -> np.ndarray:
    """Columns whose position decides convergence: not those of next to no intensity."""
    typical = _typical(state)
    return (state.volume > 0.1 * typical[state.kind]) & (state.kind != problem.nuisance)


def _step(
    problem: Problem, state: State, neighbours: Neighbours, brake: Brake, max_step: float
) -> tuple[State, np.ndarray]:
    """Take one step; return the new state and how far each position wanted to move."""
    from stemdisp._kernels import project_residual

    residual = np.where(problem.mask, problem.image - model_image(problem, state), 0.0)
    weighted = residual if problem.pixel_weight is None else residual * problem.pixel_weight
    sigma = state.sigma
    gradient = project_residual(
        weighted, state.x, state.y, state.volume, sigma, REACH, problem.order
    )
    gradient[problem.frozen] = 0.0
    pull = problem.prior[:, None] * (problem.start - np.column_stack([state.x, state.y]))
    step, widths, surface = _solve(problem, state, neighbours, gradient, pull, weighted)
    # intensities in units of a width, so that one brake serves a column's three parameters
    units = np.column_stack([sigma / np.maximum(np.abs(problem.expected), 1e-12), sigma * 0 + 1.0])
    units = units[:, [0, 1, 1]]
    scaled, slow_widths, slow_surface = brake.slow(
        [step * units, widths[:, None], surface[None, :]]
    )
    step, widths, surface = scaled / units, slow_widths[:, 0], slow_surface[0]
    limit = max_step * sigma
    length = np.hypot(step[:, 1], step[:, 2])
    shrink = np.minimum(1.0, limit / np.maximum(length, 1e-12))
    volume, x, y = _bounded(
        problem,
        state.volume + step[:, 0],
        state.x + shrink * step[:, 1],
        state.y + shrink * step[:, 2],
    )
    new = replace(
        state,
        volume=volume,
        x=x,
        y=y,
        widths=state.widths * np.exp(np.clip(widths / state.widths, -0.08, 0.08)),
        background=state.background + surface,
        iterations=state.iterations + 1,
    )
    return new, length


def _bounded(
    problem: Problem, volume: np.ndarray, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keep columns nearer to their own site than to the next, and intensities sane.

    Where columns are hardly resolved, one cut by the border could otherwise trade places with its
    neighbour and take the whole row along.
    """
    away = np.column_stack([x, y]) - problem.start
    length = np.hypot(away[:, 0], away[:, 1])
    away *= np.minimum(1.0, problem.leash / np.maximum(length, 1e-12))[:, None]
    high = np.where(problem.expected > 0, MOST * problem.expected, np.inf)
    inside = np.clip(volume, -0.5 * high, high)
    return inside, problem.start[:, 0] + away[:, 0], problem.start[:, 1] + away[:, 1]


def _solve(
    problem: Problem,
    state: State,
    neighbours: Neighbours,
    gradient: np.ndarray,
    pull: np.ndarray,
    weighted: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Solve the linear system of one step: columns, shared widths, background."""
    system = assemble(problem, state, neighbours)
    n = len(state.x)
    right_columns = gradient[:, :3].copy()
    right_columns[:, 1:] += pull
    right_widths = np.bincount(state.kind, gradient[:, 3], minlength=len(state.widths))
    right_surface = problem.background.project(weighted)
    if problem.order == 1:
        # The gradient of a slow surface is next to nothing: fit it by itself.
        surface = linalg.cho_solve(linalg.cho_factor(problem.background.gram), right_surface)
        tail = right_widths
    else:
        tail = np.concatenate([right_widths, right_surface])
    tail[: len(state.widths)][held_widths(problem, state)] = 0.0
    solution = system.solve(np.concatenate([right_columns.ravel(), tail]))
    columns = solution[: 3 * n].reshape(n, 3)
    widths = solution[3 * n : 3 * n + len(state.widths)]
    if problem.order == 0:
        surface = solution[3 * n + len(state.widths) :]
    return columns, widths, surface


@dataclass(frozen=True, eq=False)
class System:
    """Normal equations: sparse column part, border of shared parameters, and corner."""

    columns: sparse.bsr_array
    border: np.ndarray | sparse.csr_array
    corner: np.ndarray
    inverse_blocks: np.ndarray

    def solve(self, right: np.ndarray, tolerance: float = 1e-4) -> np.ndarray:
        """Solve by conjugate gradients with block elimination as preconditioner."""
        n = self.columns.shape[0]
        reduced = self.corner - self.border.T @ self._block_solve(self.border)
        factor = _safe_cholesky(reduced, self.corner)

        def multiply(vector: np.ndarray) -> np.ndarray:
            head, tail = vector[:n], vector[n:]
            return np.concatenate(
                [
                    self.columns @ head + self.border @ tail,
                    self.border.T @ head + self.corner @ tail,
                ]
            )

        def precondition(vector: np.ndarray) -> np.ndarray:
            head, tail = vector[:n], vector[n:]
            low = linalg.cho_solve(factor, tail - self.border.T @ self._block_solve(head))
            return np.concatenate([self._block_solve(head - self.border @ low), low])

        size = len(right)
        solution, _ = cg(
            LinearOperator((size, size), multiply, dtype=float),
            right,
            rtol=tolerance,
            maxiter=60,
            M=LinearOperator((size, size), precondition, dtype=float),
        )
        return solution

    def _block_solve(self, right: np.ndarray) -> np.ndarray:
        """Apply the inverses of the columns' own 3 x 3 blocks."""
        n = len(self.inverse_blocks)
        shaped = right.reshape(n, 3, -1)
        return np.matmul(self.inverse_blocks, shaped).reshape(right.shape)


def _safe_cholesky(matrix: np.ndarray, fallback: np.ndarray) -> tuple[np.ndarray, bool]:
    try:
        return linalg.cho_factor(matrix)
    except linalg.LinAlgError:
        # Preconditioner only: the diagonal serves when elimination lost definiteness.
        return linalg.cho_factor(np.diag(np.abs(np.diag(fallback)) + 1e-300))


def assemble(problem: Problem, state: State, neighbours: Neighbours) -> System:
    """Build the information matrix at the present parameters."""
    from stemdisp._kernels import pair_information

    n, n_widths = len(state.x), len(state.widths)
    blocks = pair_information(
        neighbours.indptr,
        neighbours.indices,
        state.x,
        state.y,
        state.volume,
        state.sigma,
        problem.fields,
        problem.order,
    )
    rows = np.repeat(np.arange(n), np.diff(neighbours.indptr))
    own = rows == neighbours.indices
    # A column of nearly no intensity says nothing about its position: steps must not follow noise.
    faint = FAINT**2 * problem.level / (2 * state.sigma**2)
    hold = np.where(problem.frozen, FREEZE, DAMPING)
    for k in range(3):
        extra = 0.0 if k == 0 else problem.prior + faint
        blocks[own, k, k] += extra + hold * blocks[own, k, k]
    columns = sparse.bsr_array(
        (np.ascontiguousarray(blocks[:, :3, :3]), neighbours.indices, neighbours.indptr),
        shape=(3 * n, 3 * n),
    )
    other = state.kind[neighbours.indices]
    place = rows * n_widths + other
    border = np.stack(
        [np.bincount(place, blocks[:, k, 3], n * n_widths).reshape(n, n_widths) for k in range(3)],
        axis=1,
    )
    place = state.kind[rows] * n_widths + other
    corner = np.bincount(place, blocks[:, 3, 3], n_widths**2).reshape(n_widths, n_widths)
    corner[np.diag_indices(n_widths)] *= 1 + 10 * DAMPING
    held = held_widths(problem, state)
    border[:, :, held] = 0.0
    corner[held, :] = corner[:, held] = 0.0
    corner[held, held] = 1.0
    border = border.reshape(3 * n, n_widths)
    if problem.order == 0:
        border, corner = _add_surface(problem, state, border, corner)
    return System(columns, border, corner, np.linalg.inv(blocks[own][:, :3, :3]))


def _add_surface(
    problem: Problem,
    state: State,
    border: np.ndarray,
    corner: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Extend border and corner by the coefficients of the background (white noise only)."""
    where = [np.clip(state.y, 0, None), np.clip(state.x, 0, None)]
    weight = ndimage.map_coordinates(problem.fields[1], where, order=1, mode="nearest")
    values = problem.background.at(state.x, state.y).toarray() * weight[:, None]
    surface = np.zeros((3 * len(state.x), values.shape[1]))
    surface[0::3] = values
    corner = linalg.block_diag(corner, problem.background.gram)
    return np.hstack([border, surface]), corner
