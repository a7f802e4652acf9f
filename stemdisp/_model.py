"""What the joint fit knows: pixels, columns in strips, parameters; model minus image.

Columns are ordered by strips of rows (`Strips`); lengths are in square pixels (see `_kernels`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from stemdisp import _kernels
from stemdisp._background import Background
from stemdisp._border import seen_inside
from stemdisp._system import Neighbours, System
from stemdisp._threads import Crew

REACH = 4.2  # half window of a column in widths; the tail beyond holds 1.5e-4 of the peak
RENDERED = 5.0  # half window in widths of what is taken off the image
NO_WEIGHT = np.empty((0, 0), np.float32)  # pixels that all count alike
UNKNOWN_PACE = 0.5  # of steps, before any are compared
SEEN = 3.5  # half window in widths of the weights that a column sees


@dataclass(frozen=True, eq=False)
class Strips:
    """Columns sorted by strips of `height` rows, and by x within a strip.

    ``order`` says which row of the table each column is; columns of strip k are
    ``first[k] .. first[k + 1]``.
    """

    order: np.ndarray
    first: np.ndarray
    height: int

    @classmethod
    def build(cls, xy_px: np.ndarray, n_rows: int, height: int) -> Strips:
        """Sort columns at (x, y); those beyond the image belong to the outermost strips."""
        count = max(1, n_rows // height)  # the last strip takes the rest
        strip = np.clip(np.floor((xy_px[:, 1] + 0.5) / height), 0, count - 1).astype(np.int64)
        order = np.lexsort((xy_px[:, 1], xy_px[:, 0], strip))
        return cls(order, np.searchsorted(strip[order], np.arange(count + 1)), height)

    @property
    def count(self) -> int:
        """Number of strips."""
        return len(self.first) - 1


@dataclass(frozen=True, eq=False)
class State:
    """Parameters of the fit.

    ``columns`` (n, 4) are V, x, y and width; ``shape`` (n_kinds, 2) how elliptical the columns of
    each kind are (see `_ellipse`; shape (0, 2): all are round). ``shown`` says that the scratch of
    the problem still holds the residual, but for a last step too small to matter. ``pace`` is the
    share of a step that the next one would have to go, where three steps have shown it;
    ``solved`` are the normal equations of the last step and the columns (n, 4) they belong to.
    """

    columns: np.ndarray
    coefficients: np.ndarray
    converged: np.ndarray
    shape: np.ndarray
    iterations: int = 0
    shown: bool = False
    pace: float = UNKNOWN_PACE
    solved: tuple[System, np.ndarray] | None = None

    @property
    def volume(self) -> np.ndarray:
        """Integrated intensity of every column."""
        return self.columns[:, 0]

    @property
    def xy(self) -> np.ndarray:
        """Positions (n, 2)."""
        return self.columns[:, 1:3]

    @property
    def sigma(self) -> np.ndarray:
        """Width of every column."""
        return self.columns[:, 3]


@dataclass(frozen=True, eq=False)
class Problem:
    """Everything that stays fixed while the parameters move.

    ``weight`` (ny, nx) is the statistical weight of the pixels, 0 where masked, and has the shape
    (0, 0) where all count alike; ``pixel_weights`` says that it follows the counts (Poisson).
    ``kind`` is the species of each column, ``group`` the columns
    that share a width (None: each has its own).
    ``prior`` (n,) is the information (in units of 1/level) with which a position is tied to
    ``start``: far too weak to move a column that is seen, enough to hold one that is absent.
    ``leash`` is how far each column may go from its start, ``width_bounds`` what widths atomic
    columns have, ``under`` gives the functions of the background there.
    ``scratch`` (ny, nx or more) is where residuals are written, 0 beyond the image; ``tiles``
    (n_pairs or more, 4, 4) where normal equations are.
    ``nuisance`` are the kinds whose columns need not converge.
    ``frozen`` columns, those mostly outside the usable pixels, stay at ``expected`` intensity and
    at their start, because what is visible of them cannot say more.
    """

    image: np.ndarray
    mask: np.ndarray
    weight: np.ndarray
    background: Background
    strips: Strips
    near: Neighbours
    step: tuple[float, float]
    start: np.ndarray
    kind: np.ndarray
    group: np.ndarray | None
    leash: np.ndarray
    width_bounds: tuple[float, float]
    under: Callable[[], sparse.csr_array]
    scratch: np.ndarray
    tiles: np.ndarray
    crew: Crew
    expected: np.ndarray
    frozen: np.ndarray
    prior: np.ndarray
    level: float = 1e-4
    nuisance: tuple[int, ...] = ()
    free_widths: bool = True
    order: int = 0
    pixel_weights: bool = False

    @property
    def residual(self) -> np.ndarray:
        """What `scratch` holds of the image; shape (ny, nx)."""
        return self.scratch[:, : self.image.shape[1]]

    @property
    def is_nuisance(self) -> np.ndarray:
        """Which columns need not converge; bool (n,)."""
        if not self.nuisance:
            return np.zeros(len(self.kind), dtype=bool)
        return np.isin(self.kind, self.nuisance)

    @property
    def own_widths(self) -> bool:
        """Whether each column has a width of its own."""
        return self.group is None and self.free_widths


def residual_image(problem: Problem, state: State) -> tuple[np.ndarray, np.ndarray]:
    """Return (image - model) * weight, and its inner products with the background's functions.

    The residual is the `scratch` of the problem: the next call writes over it.
    """
    strips = problem.strips
    out = problem.scratch
    inner = np.empty((strips.count, *state.coefficients.shape))
    problem.crew.share(
        _kernels.residual_strips,
        strips.count,
        problem.image,
        problem.weight,
        state.columns,
        strips.first,
        strips.height,
        RENDERED,
        *problem.step,
        state.coefficients,
        problem.background.spline,
        out,
        inner,
    )
    if len(state.shape):
        from stemdisp._ellipse import take_off

        take_off(problem, state)
    return problem.residual, inner.sum(axis=0).ravel()


def seen_weight(problem: Problem, state: State, weight: np.ndarray) -> np.ndarray:
    """Mean weight of the pixels as V, x, y, s and the column itself see them; shape (n, 6).

    The last is what a wider column of intensity 1 gains in weighted sum, by log width.
    """
    if weight.size == 0:
        return seen_inside(
            state.columns, problem.image.shape, step=problem.step, reach=SEEN, order=problem.order
        )
    out = np.empty((len(state.columns), 6))
    problem.crew.share(
        _kernels.seen_weight,
        problem.strips.count,
        weight,
        state.columns,
        problem.strips.first,
        SEEN,
        problem.order,
        *problem.step,
        out,
    )
    return out
