"""The mean unit cell of an image, and which site of the crystal sits where in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy import fft

from stemdisp.crystal import Projection

GRID = 40
WIDTHS_A = (0.38, 0.5, 0.65)
# How much an unexpected intensity ratio counts against a candidate, as a share of the variance
# of the mean cell. Geometry decides first: a factor of three in intensity costs as much as
# leaving 1 % of the variance unexplained.
CONTRAST_WEIGHT = 0.018
CONTRAST_SPREAD = 0.8
HARDLY_SEEN = 0.08  # of the strongest column
GEOMETRY_LEAD = 0.02
ODD_CONTRAST = 0.06
# What decides then: by how much more of the power of the sharpest features it must explain.
SHARP_LEAD = 0.03
SHARP_BLUR_A = 0.15
SHARP_WIDTHS_A = (0.28, 0.38, 0.5)
SAME_SPOT = 2.6 / GRID  # of a cell: a little more than a step of the search
SAME_SITE = 0.01  # of a cell: a polar displacement is more
LOW_ORDERS = 6  # of a doubled cell: reflections up to 3 of the cell itself


def fold(image: np.ndarray, weight: np.ndarray, ij: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average an image over all cells.

    Parameters
    ----------
    image, weight : ndarray, shape (n,)
        Pixel values and weights.
    ij : ndarray, shape (n, 2)
        Fractional lattice indices of the pixels.

    Returns
    -------
    mean, count : ndarray, shape (GRID, GRID)
        Indexed by the fractions along u and v.
    """
    cell = np.floor((ij % 1.0) * GRID).astype(np.int64) % GRID
    flat = cell[:, 0] * GRID + cell[:, 1]
    count = np.bincount(flat, weight, GRID * GRID)
    total = np.bincount(flat, weight * image, GRID * GRID)
    mean = total / np.maximum(count, 1e-12)
    empty = count <= 0
    mean[empty] = np.mean(mean[~empty])
    return mean.reshape(GRID, GRID), count.reshape(GRID, GRID)


def halfway_power(doubled: np.ndarray) -> float:
    """Share of the power of a doubled cell that lies midway between the lattice's reflections.

    Parameters
    ----------
    doubled : ndarray, shape (GRID, GRID)
        Mean of 2 x 2 cells.

    Returns
    -------
    float
        0 if all four cells are alike, up to noise; much if the lattice is too fine by half.
    """
    power = np.abs(fft.fft2(doubled - doubled.mean())) ** 2
    order = np.abs(fft.fftfreq(GRID, 1 / GRID).round())
    highest = np.maximum(order[:, None], order[None, :])
    low = (highest > 0) & (highest <= LOW_ORDERS)
    between = low & ((order[:, None] % 2 > 0) | (order[None, :] % 2 > 0))
    # few of the orders between carry a superlattice, so their median is that of noise
    power = power - np.median(power[between]) / np.log(2)
    return max(0.0, float(power[between].sum())) / max(float(power[low].sum()), 1e-300)


@dataclass(frozen=True, eq=False)
class Placement:
    """One way to put the crystal's sites into the observed cell.

    ``operation`` (2, 2) turns crystal indices into observed ones, ``shift`` is the observed
    fraction at which the crystal's origin sits. ``odd``: the contrast is that of no known detector
    on a thin specimen, and only faint cores of columns told which is which.
    """

    operation: np.ndarray
    shift: np.ndarray
    sign: int
    score: float
    explained: float
    odd: bool = False

    def matches(
        self,
        operation: np.ndarray,
        shift: np.ndarray,
        sign: int,
        projection: Projection,
        tolerance: float = SAME_SPOT,
    ) -> bool:
        """Whether another way puts the same species on the same spots, within a share of a cell."""
        if self.sign != sign:
            return False
        for species in projection.species:
            sites = np.array([(s.u, s.v) for s in projection.sites_of(species)])
            here, there = sites @ self.operation + self.shift, sites @ operation + shift
            off = (here[:, None] - there[None] + 0.5) % 1.0 - 0.5
            if np.any(np.min(np.max(np.abs(off), axis=2), axis=1) > tolerance):
                return False
        return True


def place_sites(
    cell: np.ndarray, projection: Projection, basis_A: np.ndarray
) -> tuple[Placement, float]:
    """Score every origin, orientation and sign of contrast; return the best and its margin.

    Parameters
    ----------
    cell : ndarray, shape (GRID, GRID)
        Mean cell.
    projection : Projection
        The crystal.
    basis_A : ndarray, shape (2, 2)
        Rows u, v as observed, in angstrom.

    Returns
    -------
    best : Placement
    margin : float
        Score of the best less that of the best candidate that is not equivalent to it.
    """
    by_width: list[list[Placement]] = []
    for width in WIDTHS_A:
        trials: list[Placement] = []
        for operation in _operations(projection):
            for sign in (1, -1):
                trials += _place(cell * sign, sign, projection, basis_A, operation, width)
        by_width.append(trials)
    # The width that describes the peaks best; what it leaves unexplained is not a matter of width.
    candidates = max(by_width, key=lambda trials: max(c.explained for c in trials))
    candidates.sort(key=lambda c: -c.score)
    best = candidates[0]
    for other in candidates[1:]:
        if best.matches(other.operation, other.shift, other.sign, projection):
            continue
        if not _undecided(best, other):
            return best, best.score - other.score
        lead = _sharp_lead(cell, projection, basis_A, best, other)
        first, second = (best, other) if lead > 0 else (other, best)
        return replace(first, odd=True), _margin_of_sharp(first, second, abs(lead))
    return best, best.score


def _undecided(best: Placement, other: Placement) -> bool:
    """Whether geometry cannot tell and the contrast fits no known detector.

    Thick specimens are such a case: pure oxygen is no peak any more and the heavy column is not
    the bright one, so intensities would mislead.
    """
    return (
        best.explained - other.explained < GEOMETRY_LEAD
        and best.explained - best.score > ODD_CONTRAST
    )


def _margin_of_sharp(first: Placement, second: Placement, lead: float) -> float:
    """Margin of a decision by sharp features; none where they say too little."""
    if lead < SHARP_LEAD or second.explained - first.explained > GEOMETRY_LEAD:
        return 0.0
    return lead


def _sharp_lead(
    cell: np.ndarray,
    projection: Projection,
    basis_A: np.ndarray,
    first: Placement,
    second: Placement,
) -> float:
    """How much better one placement explains the sharpest features of the cell.

    Rings and broad tails of a thick specimen are smooth; every column still has a core, however
    faint, where its atoms are. The filter k^4 of the cell, blurred by 0.2 A, shows the cores.
    """
    rows = np.linalg.inv(basis_A).T
    order = fft.fftfreq(GRID, 1 / GRID)
    g = order[:, None, None] * rows[0] + order[None, :, None] * rows[1]
    g2 = np.sum(g**2, axis=2)
    weight = g2**2 * np.exp(-((2 * np.pi * SHARP_BLUR_A) ** 2) * g2)
    target = fft.ifft2(fft.fft2(cell) * weight).real
    total = float(np.sum(target**2)) + 1e-300
    out = []
    for placement in (first, second):
        trials = []
        for width in SHARP_WIDTHS_A:
            templates = []
            for name in projection.species:
                sites = [np.array([s.u, s.v]) for s in projection.sites_of(name)]
                sites = [site @ placement.operation + placement.shift for site in sites]
                one = _template(sites, basis_A, width) * placement.sign
                templates.append(fft.ifft2(fft.fft2(one) * weight).real)
            stack = np.stack(templates)
            gram = np.einsum("aij,bij->ab", stack, stack)
            overlap = np.einsum("aij,ij->a", stack, target)[:, None]
            trials.append(float(_positive_fit(gram, overlap)[0][0]) / total)
        out.append(max(trials))
    return out[0] - out[1]


def row_operations(projection: Projection) -> list[tuple[np.ndarray, np.ndarray]]:
    """Give the projection's symmetry for indices as rows: ``p @ operation + shift``."""
    return [(matrix.T, shift) for matrix, shift in projection.symmetry_operations()]


def near_operations(projection: Projection) -> list[tuple[np.ndarray, np.ndarray]]:
    """Give what would be a symmetry if lengths were known to 2 % only, as rows.

    Axes of an image may be scaled more differently than that, so only what else is known (an
    interface, square pixels) tells such indexings apart. The exact symmetry comes first.
    """
    found = row_operations(projection)
    known = [op for op, _ in found]
    same = Placement(np.eye(2), np.zeros(2), 1, 0.0, 0.0)
    for operation in _metric_operations(projection):
        if any(np.array_equal(operation, op) for op in known):
            continue
        for site in projection.sites:
            shift = np.array([site.u, site.v])
            if same.matches(operation, shift, 1, projection, SAME_SITE):
                found.append((operation, shift))
    return found


def _operations(projection: Projection) -> list[np.ndarray]:
    """Integer maps of the cell onto itself that keep its metric, one of each symmetry class."""
    symmetric = [op for op, _ in row_operations(projection)]
    classes: list[np.ndarray] = []
    for op in sorted(_metric_operations(projection), key=lambda o: -np.trace(o)):
        if not any(_in_group(op, seen, symmetric) for seen in classes):
            classes.append(op)
    return classes


def _metric_operations(projection: Projection) -> list[np.ndarray]:
    """Integer maps of the cell onto itself that keep its lengths and angle within about 2 %."""
    matrix = projection.cell_matrix()
    metric = matrix @ matrix.T
    keep = []
    values = (-1, 0, 1)
    for a in values:
        for b in values:
            for c in values:
                for d in values:
                    op = np.array([[a, b], [c, d]])
                    if abs(a * d - b * c) != 1:
                        continue
                    change = op @ metric @ op.T - metric
                    if np.max(np.abs(change)) < 0.04 * np.max(metric):
                        keep.append(op)
    return keep


def _in_group(op: np.ndarray, seen: np.ndarray, group: list[np.ndarray]) -> bool:
    return any(np.array_equal(g @ seen, op) for g in group)


def _place(
    cell: np.ndarray,
    sign: int,
    projection: Projection,
    basis_A: np.ndarray,
    operation: np.ndarray,
    width: float,
) -> list[Placement]:
    """Best few shifts for one operation and width: least squares with species as unknowns."""
    species = projection.species
    templates = [
        _template(
            [np.array([s.u, s.v]) @ operation for s in projection.sites_of(name)], basis_A, width
        )
        for name in species
    ]
    centred = np.stack([t - t.mean() for t in templates])
    target = cell - cell.mean()
    total = float(np.sum(target**2))
    gram = np.einsum("aij,bij->ab", centred, centred)
    spectrum = fft.fft2(target)
    overlap = np.stack([fft.ifft2(spectrum * np.conj(fft.fft2(t))).real for t in centred])
    explained, amplitude = _positive_fit(gram, overlap.reshape(len(species), -1))
    explained = explained / max(total, 1e-300)
    score = explained - CONTRAST_WEIGHT * _contrast_penalty(amplitude, species, projection)
    grid = score.reshape(cell.shape)
    # np.roll compares each point with its neighbours on the periodic grid
    peak = np.ones_like(grid, dtype=bool)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            if dy or dx:
                peak &= grid >= np.roll(grid, (dy, dx), axis=(0, 1))
    where = np.flatnonzero(peak)
    where = where[np.argsort(grid.ravel()[where])[::-1][:6]]
    return [
        Placement(
            operation,
            np.array(np.unravel_index(k, grid.shape)) / GRID,
            sign,
            float(score[k]),
            float(explained[k]),
        )
        for k in where
    ]


def _template(sites: list[np.ndarray], basis_A: np.ndarray, width: float) -> np.ndarray:
    """Periodic sum of unit Gaussians on the grid of the folded cell."""
    fractions = (np.arange(GRID) + 0.5) / GRID
    fu, fv = np.meshgrid(fractions, fractions, indexing="ij")
    out = np.zeros((GRID, GRID))
    for site in sites:
        for m in (-1, 0, 1):
            for n in (-1, 0, 1):
                du = (fu - site[0] + 0.5) % 1.0 - 0.5 + m
                dv = (fv - site[1] + 0.5) % 1.0 - 0.5 + n
                d = du[..., None] * basis_A[0] + dv[..., None] * basis_A[1]
                out += np.exp(-np.sum(d**2, axis=-1) / (2 * width**2))
    return out


def _positive_fit(gram: np.ndarray, overlap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least squares with amplitudes >= 0 for every shift at once, by trying all subsets."""
    n, points = overlap.shape
    best = np.zeros(points)
    amplitude = np.zeros((n, points))
    for size in range(1, n + 1):
        for subset in combinations(range(n), size):
            pick = list(subset)
            solution = np.linalg.lstsq(gram[np.ix_(pick, pick)], overlap[pick], rcond=None)[0]
            value = np.sum(solution * overlap[pick], axis=0)
            better = np.all(solution >= 0, axis=0) & (value > best)
            best = np.where(better, value, best)
            full = np.zeros((n, points))
            full[pick] = solution
            amplitude = np.where(better, full, amplitude)
    return best, amplitude


def _contrast_penalty(
    amplitude: np.ndarray, species: tuple[str, ...], projection: Projection
) -> np.ndarray:
    """Misfit of intensity ratios to the nearest of the known contrasts (capped)."""
    strongest = np.maximum(amplitude.max(axis=0), 1e-300)
    penalties = []
    for mode in ("idpc", "haadf", "abf"):
        expected = np.array([projection.sites_of(s)[0].contrast[mode] for s in species])
        ratio = np.log(np.maximum(amplitude / strongest, 0.02))
        wanted = np.log(np.maximum(expected / expected.max(), HARDLY_SEEN))[:, None]
        off = (ratio - wanted) / CONTRAST_SPREAD
        # how weak a column is that is hardly seen is no evidence
        faint = (expected <= HARDLY_SEEN * expected.max())[:, None]
        off = np.where(faint, np.maximum(off, 0.0), off)
        penalties.append(np.sum(np.minimum(off**2, 6.0), axis=0))
    return np.min(penalties, axis=0)
