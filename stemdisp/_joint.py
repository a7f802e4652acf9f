"""The joint Gauss-Newton fit of all columns, background and widths, in pixels.

One residual image; information analytic (closed-form overlaps of Gaussians); each step solves
the sparse system of all columns together with the shared widths and a smooth background by
preconditioned conjugate gradients. ``order`` 0 is least squares on the image (white noise),
1 least squares on its gradient (iDPC).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from scipy import linalg, sparse

from stemdisp import _kernels
from stemdisp._model import REACH, Problem, State, residual_image, seen_weight
from stemdisp._pairs import normal_rows
from stemdisp._summed import summed_pairs
from stemdisp._system import Neighbours, System

PAIR_REACH = 4.5  # columns further apart than this many joint widths do not see each other
# Overlaps are those of whole columns; at the image border they are a little off. This share of
# the diagonal keeps every step downhill and costs no accuracy at convergence.
DAMPING = 2e-3
FREEZE = 1e6
LEAST_SEEN = 1e-3  # share of a column's information that is taken to be there in any case
# Share of the brightest kind's intensity below which a kind has no width of its own: a width
# without intensity is anything.
SHOWN = 0.08
MOST_SURFACE = 1.0  # deviations of the image by which the background changes in a step
MOST = 5.0  # times the typical intensity of its kind: more is a runaway
FAINT = 4.0  # standard errors of intensity below which steps in position are held back
NEGLIGIBLE = 0.05  # of its standard error: a position that has less to go may stay
RATIOS = (0.1, 0.9)  # of steps that follow each other; smaller ones are luck
SOLVED = 0.02  # residual of a step's linear system: steps correct what earlier ones left
SAME = 0.05  # rms change, in widths and intensities, that leaves the normal equations as they are
SHAPE_CHANGE = 1e-3  # of an ellipse, below which it is at rest
WIDTH_SPREAD = 0.15  # by which widths of one kind may differ where the image does not say


def iterate(
    problem: Problem,
    state: State,
    *,
    max_iterations: int,
    tolerance: float,
    max_step: float,
    negligible: float = NEGLIGIBLE,
    solved: float = SOLVED,
) -> State:
    """Take Gauss-Newton steps until no column has more than the tolerance (px) left to go.

    Intensities count as widths in proportion. What has less than the share `negligible` of its
    standard error to go is at rest too. `max_step` limits a step in widths of the column; its
    linear system is solved until the residual has fallen to the share `solved`. ``converged`` of
    the state says which columns have less than ten times the tolerance to go.
    """
    columns = state.columns.copy()
    columns[problem.frozen, 0] = problem.expected[problem.frozen]
    columns[problem.frozen, 1:3] = problem.start[problem.frozen]
    state = replace(state, columns=columns)
    stage, matters = _Stage.begin(problem, state), _matters(problem, state)
    before, left = 0.0, np.full(len(columns), np.inf)
    for _ in range(max_iterations):
        new, moved, error = stage.advance(state, max_step, solved)
        if not (np.isfinite(new.columns).all() and np.isfinite(new.coefficients).all()):
            return replace(state, converged=np.zeros(len(columns), dtype=bool))
        still = np.max(np.abs(new.shape - state.shape), initial=0.0) < SHAPE_CHANGE
        state = new
        moved = np.max(moved / np.maximum(tolerance, negligible * error), axis=1)
        longest = np.max(moved, where=matters, initial=0.0)
        # Steps shrink in proportion: what is left to go is the sum of those that would follow.
        ratio = np.clip(longest / before, *RATIOS) if before else 0.5
        left = moved * ratio / (1 - ratio)
        if before and longest > 2 * before:
            stage.recover()
        before = longest
        if still and longest * ratio / (1 - ratio) < 1.0:
            break
    return replace(state, converged=left < 10.0)


class Brake:
    """Halves the steps of parameters that swing about their solution.

    Where columns are not Gaussians the residual does not vanish, the Gauss-Newton matrix is not
    the curvature, and steps in widths and intensities may overshoot for ever.
    """

    def __init__(self) -> None:
        self._last: list[np.ndarray] = []
        self._factor: list[np.ndarray] = []

    def slow(self, steps: list[np.ndarray]) -> list[np.ndarray]:
        """Return the steps (n, k) of each group, shortened where they reverse without shrinking."""
        if not self._last:
            self._last = [np.zeros_like(step) for step in steps]
            self._factor = [np.ones(len(step)) for step in steps]
        out = []
        for k, step in enumerate(steps):
            last = self._last[k]
            along = np.einsum("ij,ij->i", step, last)
            back = along < -0.35 * np.einsum("ij,ij->i", last, last)
            factor = np.where(back, 0.5, 1.4) * self._factor[k]
            self._factor[k] = np.clip(factor, 0.05, 1.0)
            short = step * self._factor[k][:, None]
            self._last[k] = short
            out.append(short)
        return out


@dataclass(eq=False)
class _Stage:
    """What one run of `iterate` keeps between its steps."""

    problem: Problem
    seen: Seen
    held: np.ndarray
    brake: Brake
    near: Neighbours
    widest: float
    shape_brake: Brake = field(default_factory=Brake)
    system: System | None = None
    assembled: np.ndarray | None = None

    @classmethod
    def begin(cls, problem: Problem, state: State) -> _Stage:
        near, widest = see(problem, state), float(state.sigma.max())
        held = held_widths(problem, state)
        return cls(problem, Seen.by(problem, state, near), held, Brake(), near, widest)

    def advance(
        self, state: State, max_step: float, solved: float
    ) -> tuple[State, np.ndarray, np.ndarray]:
        """Take one step; return the state, how far columns wanted to go, and their errors.

        Both (n, 2): in position (before all limits of a step), and in intensity times `_unit`.
        """
        problem = self.problem
        residual, inner = residual_image(problem, state)
        gradient = np.empty_like(state.columns)
        problem.crew.share(
            _kernels.project_columns,
            problem.strips.count,
            residual,
            state.columns,
            problem.strips.first,
            REACH,
            problem.order,
            *problem.step,
            gradient,
        )
        gradient[problem.frozen] = 0.0
        gradient[:, 1:3] += problem.prior[:, None] * (problem.start - state.xy)
        system = self._system(state)
        own, shared = system.solve(*self._right_side(gradient, inner, state), solved)
        surface = shared[len(self.held) :]
        if problem.order == 1:
            # The gradient of a slow surface is next to nothing: it is fitted by itself.
            surface = problem.background.solve(inner)
        new, moved = self._move(state, own, shared[: len(self.held)], surface, max_step)
        if len(state.shape):
            new = replace(new, shape=self._reshape(state, residual))
        error = np.sqrt(problem.level * np.maximum(system.inverse[:, [1, 0], [1, 0]], 0.0))
        error[:, 1] *= self._unit(state)
        return new, moved, error

    def recover(self) -> None:
        """After a step in a wrong direction: trust closed forms rather than sums from before."""
        self.seen = replace(self.seen, pairs=self.seen.pairs[:0])
        self.assembled = None

    def _unit(self, state: State) -> np.ndarray:
        """Factor (n,) that turns the intensity of a column into widths: both count alike then."""
        return state.sigma / np.maximum(np.abs(self.problem.expected), 1e-12)

    def _reshape(self, state: State, residual: np.ndarray) -> np.ndarray:
        """Take a step in how elliptical columns are, unless their widths are held."""
        from stemdisp._ellipse import improve

        if not self.problem.free_widths:
            return state.shape
        held = _hardly_shown(state.volume, self.problem.kind)
        step = improve(self.problem, state, residual, held) - state.shape
        return state.shape + self.shape_brake.slow([step])[0]

    def _system(self, state: State) -> System:
        """Assemble the normal equations, unless nothing has moved that would change them."""
        if self.assembled is not None and self.system is not None:
            change = state.columns - self.assembled
            change[:, 0] *= self._unit(state)
            change /= state.sigma[:, None]
            if np.max(np.mean(change**2, axis=0)) < SAME**2:
                return self.system
        if state.sigma.max() > 1.1 * self.widest:
            self.near, self.widest = see(self.problem, state), float(state.sigma.max())
            self.seen = Seen.by(self.problem, state, self.near)
        self.system = assemble(self.problem, state, self.near, self.held, self.seen)
        self.assembled = state.columns
        return self.system

    def _right_side(
        self, gradient: np.ndarray, inner: np.ndarray, state: State
    ) -> tuple[np.ndarray, np.ndarray]:
        """Gradient of the columns' own and of the shared parameters."""
        problem, held = self.problem, self.held
        tail = np.zeros(len(held))
        if problem.own_widths:
            typical = _medians(state.sigma, problem.kind)[problem.kind]
            gradient[:, 3] += _width_prior(problem, state) * (typical - state.sigma)
        else:
            tail += np.bincount(groups(problem), gradient[:, 3], minlength=len(held))
            tail[held] = gradient[:, 3] = 0.0
        if problem.order == 0:
            tail = np.concatenate([tail, inner])
        return gradient, tail

    def _move(
        self,
        state: State,
        own: np.ndarray,
        widths: np.ndarray,
        surface: np.ndarray,
        max_step: float,
    ) -> tuple[State, np.ndarray]:
        """Apply a step, braked and bounded."""
        problem = self.problem
        # intensities in units of a width, so that one brake serves a column's parameters
        unit, own = self._unit(state), own.copy()
        own[:, 0] *= unit
        # what a column wanted: that it was braked does not mean that it has arrived
        moved = np.column_stack([np.hypot(own[:, 1], own[:, 2]), np.abs(own[:, 0])])
        own, widths, surface = self.brake.slow([own, widths[:, None], surface[None, :]])
        length = np.hypot(own[:, 1], own[:, 2])
        own[:, 0] /= unit
        shrink = np.minimum(1.0, max_step * state.sigma / np.maximum(length, 1e-12))
        columns = state.columns.copy()
        columns[:, 0] += own[:, 0]
        columns[:, 1:3] += shrink[:, None] * own[:, 1:3]
        wider = own[:, 3] if problem.own_widths else widths[groups(problem), 0]
        columns[:, 3] *= np.exp(np.clip(wider / state.sigma, -0.08, 0.08))
        _bound(problem, columns)
        surface = np.clip(surface, -MOST_SURFACE, MOST_SURFACE)
        coefficients = state.coefficients + surface.reshape(state.coefficients.shape)
        return replace(
            state,
            columns=columns,
            coefficients=coefficients,
            iterations=state.iterations + 1,
        ), moved


def see(problem: Problem, state: State) -> Neighbours:
    """List the pairs of columns that overlap."""
    return problem.near.closer(state.columns, PAIR_REACH * np.sqrt(2) * float(state.sigma.max()))


def groups(problem: Problem) -> np.ndarray:
    """Which columns share a width."""
    return problem.kind if problem.group is None else problem.group


@dataclass(frozen=True, eq=False)
class Seen:
    """What the pixels weigh for each column.

    ``root`` (n, 4) are the roots of the mean weights that V, x, y, s see; ``basis`` (white noise)
    the functions of the background under each column, times the mean weight there; ``pairs``
    (n_pairs or 0, 4, 4) the information of pairs, summed over the pixels. ``wider`` (n,) is what
    a wider column gains where the weights are not even, and the background would have to lose.
    """

    root: np.ndarray
    basis: sparse.csr_array | None
    wider: np.ndarray
    pairs: np.ndarray

    @classmethod
    def by(cls, problem: Problem, state: State, near: Neighbours) -> Seen:
        """Look at the pixels of a problem; `near` are the pairs that overlap.

        Information is summed over the pixels where their weights differ within a column (Poisson,
        holes), once columns are near their places.
        """
        seen = seen_weight(problem, state, problem.weight)
        root, basis = np.sqrt(np.maximum(seen[:, :4], LEAST_SEEN)), None
        if problem.order == 0:
            basis = problem.under.copy()
            basis.data *= np.repeat(seen[:, 4], 16)
        pairs = np.empty((0, 4, 4), np.float32)
        if problem.weight.size and problem.order == 0 and problem.free_widths:
            pairs = np.empty((len(near.indices), 4, 4), np.float32)
            problem.crew.share(
                summed_pairs,
                len(state.columns),
                near.indptr,
                near.indices,
                state.columns,
                problem.weight,
                REACH,
                *problem.step,
                pairs,
            )
            # columns of which no pixel is seen: some information keeps the system regular
            own = np.flatnonzero(near.indices == near.rows())
            intensity = pairs[own, 0, 0]
            pairs[own, 0, 0] = np.maximum(intensity, LEAST_SEEN * np.median(intensity))
        return cls(root, basis, seen[:, 5], pairs)


def assemble(
    problem: Problem,
    state: State,
    near: Neighbours,
    held: np.ndarray,
    seen: Seen,
    *,
    damped: bool = True,
) -> System:
    """Build the normal equations at the present parameters; undamped, it is the information."""
    n, group = len(state.columns), groups(problem)
    blocks = np.empty((len(near.indices), 4, 4), np.float32)
    inverse = np.empty((n, 4, 4), np.float32)
    border, corner = np.empty((n, 4, len(held))), np.empty((n, len(held)))
    response = np.empty_like(border)
    extra = np.zeros((n, 4))
    extra[:, 1] = extra[:, 2] = problem.prior
    hold = np.zeros(n)
    if damped:
        # A column of nearly no intensity says nothing about its position: steps must not
        # follow noise.
        extra[:, 1:3] += (FAINT**2 * problem.level / (2 * state.sigma**2))[:, None]
        hold = np.where(problem.frozen, FREEZE, DAMPING)
    if problem.own_widths:
        extra[:, 3] = _width_prior(problem, state)
    problem.crew.share(
        normal_rows,
        n,
        near.indptr,
        near.indices,
        state.columns,
        seen.root,
        seen.pairs,
        group,
        extra,
        hold,
        problem.order,
        blocks,
        inverse,
        border,
        corner,
        response,
    )
    shared = np.zeros((len(held), len(held)))
    for k, part in enumerate(corner.T):
        shared[:, k] = np.bincount(group, part, len(held))
    shared[np.diag_indices(len(held))] *= 1 + 10 * DAMPING
    border[:, :, held] = response[:, :, held] = 0.0
    shared[held, :] = shared[:, held] = 0.0
    shared[held, held] = 1.0
    if seen.basis is not None:
        shared = linalg.block_diag(shared, problem.background.gram)
        if seen.pairs.size:
            _couple(shared, problem, state, seen, held)
    return System(
        near,
        blocks,
        inverse,
        border,
        response,
        seen.basis,
        shared,
        problem.background,
        problem.crew,
    )


def _couple(
    shared: np.ndarray, problem: Problem, state: State, seen: Seen, held: np.ndarray
) -> None:
    """Write into `shared` how shared widths and the background depend on each other."""
    gain = state.volume * seen.wider / state.sigma
    for k in np.flatnonzero(~held):
        part = problem.under.T @ np.where(groups(problem) == k, gain, 0.0)
        shared[k, len(held) :] = shared[len(held) :, k] = part


def _width_prior(problem: Problem, state: State) -> np.ndarray:
    return problem.level / (WIDTH_SPREAD * state.sigma) ** 2


def _medians(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Median of each group."""
    return np.array([np.median(values[group == k]) for k in range(group.max() + 1)])


def _hardly_shown(volume: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Tell the groups that have next to no intensity."""
    typical = _medians(volume, group)
    return typical < SHOWN * typical.max()


def held_widths(problem: Problem, state: State) -> np.ndarray:
    """Tell the groups whose width is not fitted: the image hardly shows them (O in HAADF)."""
    if problem.own_widths:
        return np.zeros(0, dtype=bool)
    group = groups(problem)
    if not problem.free_widths:
        return np.ones(group.max() + 1, dtype=bool)
    return _hardly_shown(state.volume, group)


def _matters(problem: Problem, state: State) -> np.ndarray:
    """Columns whose position decides convergence: not those of next to no intensity."""
    typical = _medians(state.volume, problem.kind)[problem.kind]
    return (state.volume > 0.1 * typical) & ~np.isin(problem.kind, problem.nuisance)


def _bound(problem: Problem, columns: np.ndarray) -> None:
    """Keep columns nearer to their own site than to the next, intensities and widths sane.

    Where columns are hardly resolved, one cut by the border could otherwise trade places with its
    neighbour and take the whole row along.
    """
    away = columns[:, 1:3] - problem.start
    length = np.hypot(away[:, 0], away[:, 1])
    away *= np.minimum(1.0, problem.leash / np.maximum(length, 1e-12))[:, None]
    columns[:, 1:3] = problem.start + away
    columns[:, 3] = np.clip(columns[:, 3], *problem.width_bounds)
    high = np.where(problem.expected > 0, MOST * problem.expected, np.inf)
    columns[:, 0] = np.clip(columns[:, 0], -0.5 * high, high)
