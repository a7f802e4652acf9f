"""What becomes of a step before it is taken: it is braked, shortened and kept within bounds."""

from __future__ import annotations

import math

import numpy as np

from stemdisp._compiled import compiled

MOST = 5.0  # times the typical intensity of its kind: more is a runaway
MOST_WIDER = 0.08  # change of a width's logarithm in a step
# A step is halved where it reverses, by this share of the last one, and grows again elsewhere.
REVERSED, SLOWER, FASTER, SLOWEST = 0.35, 0.5, 1.4, 0.05


class Brake:
    """Halves the steps of parameters that swing about their solution.

    Where columns are not Gaussians the residual does not vanish, the Gauss-Newton matrix is not
    the curvature, and steps in widths and intensities may overshoot for ever. (The columns' own
    parameters are braked by `move_columns`.)
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
            back = along < -REVERSED * np.einsum("ij,ij->i", last, last)
            factor = np.where(back, SLOWER, FASTER) * self._factor[k]
            self._factor[k] = np.clip(factor, SLOWEST, 1.0)
            short = step * self._factor[k][:, None]
            self._last[k] = short
            out.append(short)
        return out


@compiled
def hold_back(lo, hi, columns, start, prior, frozen, gradient):
    """Add to the gradient (n, 4) what ties columns to their sites; what is frozen has no other."""
    for c in range(lo, hi):
        if frozen[c]:
            for m in range(4):
                gradient[c, m] = 0.0
        gradient[c, 1] += prior[c] * (start[c, 0] - columns[c, 1])
        gradient[c, 2] += prior[c] * (start[c, 1] - columns[c, 2])


@compiled
def move_columns(
    lo, hi, columns, step, wider, inverse, start, leash, expected, limits, last, factor, out, moved
):
    """Write the columns after a step to `out`.

    A column stays nearer to its own site than to the next: where columns are hardly resolved, one
    cut by the border could otherwise trade places with its neighbour and take the row along.

    Parameters
    ----------
    columns, step : ndarray, shape (n, 4)
        V, x, y, width; and what the normal equations want to add to them.
    wider : ndarray, shape (n,)
        What is added to the width, too: the step of a width that columns share.
    inverse : ndarray of float32, shape (n, 4, 4)
        Of the columns' own normal equations.
    start, leash, expected : ndarray, shape (n, 2), (n,), (n,)
        Site, how far from it a column may go, and the intensity to expect.
    limits : tuple of float
        Longest step in widths; least and greatest width; noise level; what is too little to matter
        and which share of a standard error is.
    last, factor : ndarray, shape (n, 4), (n,)
        In and out: the last step and its factor, as `Brake` keeps them (intensities in widths, so
        that one brake serves all).
    moved : ndarray, shape (n,)
        Out: how far the column wanted to go, before any limit, in position or in intensity (in
        widths), over what does not matter.
    """
    max_step, narrow, wide, level, tolerance, negligible = limits
    for c in range(lo, hi):
        v, x, y, s = columns[c, 0], columns[c, 1], columns[c, 2], columns[c, 3]
        unit = s / max(abs(expected[c]), 1e-12)
        dv, dx, dy, ds = step[c, 0] * unit, step[c, 1], step[c, 2], step[c, 3]
        far = math.sqrt(dx * dx + dy * dy) / max(
            tolerance, negligible * math.sqrt(level * max(inverse[c, 1, 1], 0.0))
        )
        much = abs(dv) / max(
            tolerance, negligible * unit * math.sqrt(level * max(inverse[c, 0, 0], 0.0))
        )
        # what a column wanted: that it was braked does not mean that it has arrived
        moved[c] = max(far, much)
        l0, l1, l2, l3 = last[c, 0], last[c, 1], last[c, 2], last[c, 3]
        along = dv * l0 + dx * l1 + dy * l2 + ds * l3
        back = along < -REVERSED * (l0 * l0 + l1 * l1 + l2 * l2 + l3 * l3)
        slow = min(max(factor[c] * (SLOWER if back else FASTER), SLOWEST), 1.0)
        factor[c] = slow
        dv, dx, dy, ds = dv * slow, dx * slow, dy * slow, ds * slow
        last[c, 0], last[c, 1], last[c, 2], last[c, 3] = dv, dx, dy, ds
        shrink = min(1.0, max_step * s / max(math.sqrt(dx * dx + dy * dy), 1e-12))
        dx, dy = x + shrink * dx - start[c, 0], y + shrink * dy - start[c, 1]
        home = min(1.0, leash[c] / max(math.sqrt(dx * dx + dy * dy), 1e-12))
        out[c, 1], out[c, 2] = start[c, 0] + home * dx, start[c, 1] + home * dy
        high = MOST * expected[c] if expected[c] > 0 else np.inf
        out[c, 0] = min(max(v + dv / unit, -0.5 * high), high)
        grow = min(max((ds + wider[c]) / s, -MOST_WIDER), MOST_WIDER)
        out[c, 3] = min(max(s * math.exp(grow), narrow), wide)
