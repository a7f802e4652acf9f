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
from stemdisp._medians import middle, middles
from stemdisp._model import REACH, UNKNOWN_PACE, Problem, State, residual_image, seen_weight
from stemdisp._pairs import column_factors, normal_rows
from stemdisp._steps import Brake, hold_back, move_columns
from stemdisp._summed import summed_pairs
from stemdisp._system import Neighbours, System

PAIR_REACH = 4.3  # columns further apart than this many joint widths do not see each other
# Overlaps are those of whole columns; at the image border they are a little off. This share of
# the diagonal keeps every step downhill and costs no accuracy at convergence.
DAMPING = 2e-3
FREEZE = 1e6
LEAST_SEEN = 1e-3  # share of a column's information that is taken to be there in any case
# Share of the brightest kind's intensity below which a kind has no width of its own: a width
# without intensity is anything.
SHOWN = 0.08
MOST_SURFACE = 1.0  # deviations of the image by which the background changes in a step
FAINT = 4.0  # standard errors of intensity below which steps in position are held back
NEGLIGIBLE = 0.05  # of its standard error: a position that has less to go may stay
RATIOS = (0.1, 0.9)  # of steps that follow each other; smaller ones are luck
SOLVED = 0.02  # residual of a step's linear system: steps correct what earlier ones left
SAME = 0.05  # rms change, in widths and intensities, that leaves the normal equations as they are
KNOWN = 0.005  # the same, beyond which the covariance needs equations of its own
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
    state = replace(state, columns=columns, shown=False)
    stage, matters = _Stage.begin(problem, state), _matters(problem, state)
    least = (tolerance, negligible)
    before, former, pace, steady = 0.0, 0.0, state.pace, UNKNOWN_PACE
    left, shown = np.full(len(columns), np.inf), False
    for _ in range(max_iterations):
        new, moved = stage.advance(state, max_step, solved, least)
        if not (np.isfinite(new.columns).all() and np.isfinite(new.coefficients).all()):
            return replace(state, converged=np.zeros(len(columns), dtype=bool))
        still = np.max(np.abs(new.shape - state.shape), initial=0.0) < SHAPE_CHANGE
        state = new
        longest = np.max(moved, where=matters, initial=0.0)
        # Steps shrink in proportion: what is left to go is the sum of those that would follow.
        # One that is much shorter than the last may be luck, so the ratio before it counts too.
        # (Of a first step the one before may have been taken on coarser pixels.)
        if before:
            last = longest / before
            pace = float(np.clip(max(last, np.sqrt(last * former)), *RATIOS))
            steady, former = pace if former else UNKNOWN_PACE, last
        left = moved * pace / (1 - pace)
        if before and longest > 2 * before:
            stage.recover()
        before, shown = longest, still and float(np.max(moved)) < 1.0
        if still and longest * pace / (1 - pace) < 1.0:
            break
    return replace(state, converged=left < 10.0, shown=shown, pace=steady, solved=stage.solved())


@dataclass(eq=False)
class _Stage:
    """What one run of `iterate` keeps between its steps."""

    problem: Problem
    seen: Seen
    held: np.ndarray
    last: np.ndarray
    factor: np.ndarray
    near: Neighbours
    widest: float
    brake: Brake = field(default_factory=Brake)
    shape_brake: Brake = field(default_factory=Brake)
    system: System | None = None
    assembled: np.ndarray | None = None

    @classmethod
    def begin(cls, problem: Problem, state: State) -> _Stage:
        near, widest = see(problem, state), float(state.sigma.max())
        held = held_widths(problem, state)
        seen, n = Seen.by(problem, state, near), len(state.columns)
        return cls(problem, seen, held, np.zeros((n, 4)), np.ones(n), near, widest)

    def advance(
        self, state: State, max_step: float, solved: float, least: tuple[float, float]
    ) -> tuple[State, np.ndarray]:
        """Take one step; return the state, and how far columns wanted to go (`move_columns`).

        `least` are the length and the share of a standard error that are too little to matter.
        """
        problem = self.problem
        _, inner = residual_image(problem, state)
        gradient, n = np.empty_like(state.columns), len(state.columns)
        problem.crew.share(
            _kernels.project_columns,
            problem.strips.count,
            problem.scratch,
            problem.image.shape[1],
            state.columns,
            problem.strips.first,
            REACH,
            problem.order,
            *problem.step,
            gradient,
        )
        problem.crew.share(
            hold_back, n, state.columns, problem.start, problem.prior, problem.frozen, gradient
        )
        system = self._system(state)
        own, shared = system.solve(*self._right_side(gradient, inner, state), solved)
        surface = shared[len(self.held) :]
        if problem.order == 1:
            # The gradient of a slow surface is next to nothing: it is fitted by itself.
            surface = problem.background.solve(inner)
        limits = tuple(map(float, (max_step, *problem.width_bounds, problem.level, *least)))
        widths = shared[: len(self.held)]
        new, moved = self._move(state, own, widths, surface, system.inverse, limits)
        if len(state.shape):
            new = replace(new, shape=self._reshape(state))
        return new, moved

    def recover(self) -> None:
        """After a step in a wrong direction: trust closed forms rather than sums from before."""
        self.seen = replace(self.seen, pairs=self.seen.pairs[:0])
        self.assembled = None

    def _reshape(self, state: State) -> np.ndarray:
        """Take a step in how elliptical columns are, unless their widths are held."""
        from stemdisp._ellipse import improve

        if not self.problem.free_widths:
            return state.shape
        held = _hardly_shown(state.volume, self.problem.kind)
        step = improve(self.problem, state, held) - state.shape
        return state.shape + self.shape_brake.slow([step])[0]

    def _system(self, state: State) -> System:
        """Assemble the normal equations, unless nothing has moved that would change them."""
        if self.assembled is not None and self.system is not None:
            if changed(self.problem, state, self.assembled) < SAME:
                return self.system
        if state.sigma.max() > 1.1 * self.widest:
            self.near, self.widest = see(self.problem, state), float(state.sigma.max())
            self.seen = Seen.by(self.problem, state, self.near)
        self.system = assemble(self.problem, state, self.near, self.held, self.seen)
        self.assembled = state.columns
        return self.system

    def solved(self) -> tuple[System, np.ndarray] | None:
        """Give the last normal equations, and the columns (n, 4) to which they belong.

        Unless they hold sums over pixels, taken when columns were elsewhere.
        """
        if self.system is None or self.assembled is None or self.seen.pairs.size:
            return None
        return self.system, self.assembled

    def _right_side(
        self, gradient: np.ndarray, inner: np.ndarray, state: State
    ) -> tuple[np.ndarray, np.ndarray]:
        """Gradient of the columns' own and of the shared parameters."""
        problem, held = self.problem, self.held
        tail = np.zeros(len(held))
        if problem.own_widths:
            typical = middles(state.sigma, problem.kind)[problem.kind]
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
        inverse: np.ndarray,
        limits: tuple[float, ...],
    ) -> tuple[State, np.ndarray]:
        """Apply a step, braked and bounded."""
        problem, n = self.problem, len(own)
        widths, surface = self.brake.slow([widths[:, None], surface[None, :]])
        wider = np.zeros(n) if problem.own_widths else widths[groups(problem), 0]
        columns, moved = np.empty_like(own), np.empty(n)
        problem.crew.share(
            move_columns,
            n,
            state.columns,
            own,
            wider,
            inverse,
            problem.start,
            problem.leash,
            problem.expected,
            limits,
            self.last,
            self.factor,
            columns,
            moved,
        )
        surface = np.clip(surface, -MOST_SURFACE, MOST_SURFACE)
        coefficients = state.coefficients + surface.reshape(state.coefficients.shape)
        return replace(
            state,
            columns=columns,
            coefficients=coefficients,
            iterations=state.iterations + 1,
        ), moved


def changed(problem: Problem, state: State, columns: np.ndarray) -> float:
    """Tell how far columns have come from (n, 4): rms in widths, and in intensities."""
    change = state.columns - columns
    change[:, 0] *= _unit(problem, state)
    change /= state.sigma[:, None]
    return float(np.sqrt(np.einsum("ij,ij->j", change, change).max() / len(change)))


def _unit(problem: Problem, state: State) -> np.ndarray:
    """Factor (n,) that turns the intensity of a column into widths: both count alike then."""
    return state.sigma / np.maximum(np.abs(problem.expected), 1e-12)


def priors(problem: Problem, state: State) -> np.ndarray:
    """Information (n, 4) on V, x, y, s of columns that does not come from the image."""
    out = np.zeros((len(state.columns), 4))
    out[:, 1] = out[:, 2] = problem.prior
    if problem.own_widths:
        out[:, 3] = _width_prior(problem, state)
    return out


def information(problem: Problem, state: State) -> System:
    """Give the normal equations: those of the last step, if hardly anything has moved since."""
    if state.solved is not None:
        system, columns = state.solved
        if changed(problem, state, columns) < KNOWN:
            return system
    near = see(problem, state)
    return assemble(
        problem, state, near, held_widths(problem, state), Seen.by(problem, state, near)
    )


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
            basis = problem.under().copy()
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
            pairs[own, 0, 0] = np.maximum(intensity, LEAST_SEEN * middle(intensity))
        return cls(root, basis, seen[:, 5], pairs)


def assemble(
    problem: Problem,
    state: State,
    near: Neighbours,
    held: np.ndarray,
    seen: Seen,
) -> System:
    """Build the normal equations at the present parameters."""
    n, group, share = len(state.columns), groups(problem), problem.crew.share
    blocks = problem.tiles[: len(near.indices)]
    inverse = np.empty((n, 4, 4), np.float32)
    border, corner = np.empty((n, 4, len(held))), np.empty((n, len(held)))
    response = np.empty_like(border)
    hold, damping = np.empty((n, 2)), np.empty((n, 4), np.float32)
    factors = np.empty((n, 8), np.float32)
    share(column_factors, n, state.columns, seen.root, factors)
    hold[:, 0] = np.where(problem.frozen, FREEZE, DAMPING)
    # A column of nearly no intensity says nothing about its position: steps must not follow noise.
    hold[:, 1] = FAINT**2 * problem.level / (2 * state.sigma**2)
    share(
        normal_rows,
        n,
        near.indptr,
        near.indices,
        state.columns,
        factors,
        seen.pairs,
        group,
        priors(problem, state),
        hold,
        problem.order,
        blocks,
        damping,
        inverse,
        border,
        corner,
        response,
    )
    shared = np.zeros((len(held), len(held)))
    for k, part in enumerate(corner.T):
        shared[:, k] = np.bincount(group, part, len(held))
    shared[np.diag_indices(len(held))] *= 1 + 10 * DAMPING
    if held.any():
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
        damping,
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
        part = problem.under().T @ np.where(groups(problem) == k, gain, 0.0)
        shared[k, len(held) :] = shared[len(held) :, k] = part


def _width_prior(problem: Problem, state: State) -> np.ndarray:
    return problem.level / (WIDTH_SPREAD * state.sigma) ** 2


def _hardly_shown(volume: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Tell the groups that have next to no intensity."""
    typical = middles(volume, group)
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
    typical = middles(state.volume, problem.kind)[problem.kind]
    return (state.volume > 0.1 * typical) & ~problem.is_nuisance
