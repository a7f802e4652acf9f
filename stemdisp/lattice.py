"""Image + Projection -> Lattice: vectors, origin, slow distortion, without clicks or guesses."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from stemdisp._cell import Placement, fold, halfway_power, near_operations, place_sites
from stemdisp._phases import distortion_terms, track
from stemdisp._pixels import featureless
from stemdisp._spectrum import Match, find_peaks, match_lattice
from stemdisp.crystal import Projection
from stemdisp.errors import DataError

if TYPE_CHECKING:
    from hyperspy.signals import Signal2D

# Below these the answer is not the crystal that was asked for.
MIN_EXPLAINED_PEAKS = 0.55
MIN_FOUND = 0.5
MAX_HALFWAY = 0.07
MIN_CELL_EXPLAINED = 0.6
MIN_SIZE = 32
MIN_MARGIN = 0.012


@dataclass(frozen=True, eq=False)
class Lattice:
    """The crystal's lattice in the image.

    Site ``(i, j)`` (fractions allowed) lies at ``origin + i u + j v`` plus a slow distortion, a
    cubic polynomial that scan drift and bending need.

    Attributes
    ----------
    origin_px, u_px, v_px : ndarray, shape (2,)
        As (x, y) in px; pixel centres at integers, y down.
    distortion : ndarray, shape (n_terms, 2)
        Coefficients of the polynomial terms of degree 2 and 3 in ``(r - centre) / scale``.
    centre_px : ndarray, shape (2,)
    scale_px : float
    sign : int
        1 for bright columns, -1 for dark ones (ABF).
    odd_contrast : bool
        The contrast is that of no known detector on a thin specimen; only the faint cores of weak
        columns told which is which.
    margin : float
        Lead of the chosen assignment of sites over the best other one, as a share of the
        variance of the mean cell.
    explained : float
        Share of the variance of the mean cell that the sites explain.
    crystallinity : ndarray, shape (my, mx)
        Local strength of the lattice on a coarse grid, 1 in the perfect crystal.
    grid_px : float
        Spacing of that grid; its first point lies at ``(grid_px - 1) / 2``.
    """

    origin_px: np.ndarray
    u_px: np.ndarray
    v_px: np.ndarray
    centre_px: np.ndarray
    scale_px: float
    distortion: np.ndarray = field(default_factory=lambda: np.zeros((7, 2)))
    sign: int = 1
    odd_contrast: bool = False
    margin: float = np.nan
    explained: float = np.nan
    crystallinity: np.ndarray = field(default_factory=lambda: np.ones((1, 1)))
    grid_px: float = 1.0

    @property
    def cell_px(self) -> np.ndarray:
        """Rows u, v; shape (2, 2)."""
        return np.stack([self.u_px, self.v_px])

    def position(self, ij: np.ndarray) -> np.ndarray:
        """Pixel positions (n, 2) as (x, y) of lattice indices (n, 2)."""
        straight = self.origin_px + np.asarray(ij, dtype=float) @ self.cell_px
        return straight + self._bend(straight)

    def index(self, xy: np.ndarray) -> np.ndarray:
        """Lattice indices (n, 2) of pixel positions (n, 2); inverse of `position`."""
        xy = np.asarray(xy, dtype=float)
        straight = xy
        for _ in range(10):
            last, straight = straight, xy - self._bend(straight)
            if np.max(np.abs(straight - last), initial=0.0) < 1e-4:
                break
        return (straight - self.origin_px) @ np.linalg.inv(self.cell_px)

    def local_cell(self, xy: np.ndarray) -> np.ndarray:
        """Rows u, v at each pixel position; shape (n, 2, 2)."""
        ij = self.index(xy)
        step = 0.5
        rows = []
        for move in ((step, 0.0), (0.0, step)):
            rows.append(self.position(ij + move) - self.position(ij - np.array(move)))
        return np.stack(rows, axis=1)

    def reindexed(self, operation: np.ndarray, shift: np.ndarray) -> Lattice:
        """Return the lattice with site p of the new indices at old ``p @ operation + shift``."""
        cell = np.asarray(operation, dtype=float) @ self.cell_px
        origin = self.origin_px + np.asarray(shift, dtype=float) @ self.cell_px
        return replace(self, origin_px=origin, u_px=cell[0], v_px=cell[1])

    def deformation(self, projection: Projection) -> float:
        """How far the cell is from the known one but for scale and turn; 0 for square pixels.

        The square of the logarithm of the ratio of the largest to the smallest scale.
        """
        change = np.linalg.inv(projection.cell_matrix()) @ self.cell_px
        large, small = np.linalg.svd(change, compute_uv=False)
        return float(np.log(large / small) ** 2)

    def known_cell(self, projection: Projection) -> np.ndarray:
        """Rows u, v in angstrom if the mean scale is that of the crystal; shape (2, 2)."""
        area = abs(np.linalg.det(projection.cell_matrix()))
        return self.cell_px * np.sqrt(area / abs(np.linalg.det(self.cell_px)))

    def _bend(self, xy: np.ndarray) -> np.ndarray:
        return distortion_terms((xy - self.centre_px) / self.scale_px) @ self.distortion


def find_lattice(
    image: Signal2D | np.ndarray,
    projection: Projection,
    *,
    pixel_size: float | None = None,
) -> Lattice:
    """Find the projected crystal in an image.

    Parameters
    ----------
    image : Signal2D or ndarray, shape (ny, nx)
        One image; NaN allowed.
    projection : Projection
        The crystal along the beam.
    pixel_size : float, optional
        Approximate angstrom per px (trusted within 14 %); unknown if not given.

    Returns
    -------
    Lattice

    Raises
    ------
    DataError
        No lattice, one that is not this crystal, or an assignment of sites that is not clear.
    ValueError
        `image` is not 2-D.
    """
    data = np.asarray(getattr(image, "data", image), dtype=np.float64)
    if data.ndim != 2:
        raise ValueError(f"image has {data.ndim} dimensions; pass one 2-D image")
    if min(data.shape) < MIN_SIZE:
        raise DataError(
            f"the image has {data.shape[1]} x {data.shape[0]} px; {MIN_SIZE} along each side are "
            "the least in which a lattice can be found"
        )
    flat = flatten(data)
    peaks = find_peaks(flat)
    if len(peaks.freq) < 3:
        raise DataError(
            "no lattice found: the image has no sharp periods. Check that it shows the crystal at "
            "atomic resolution and in focus"
        )
    reciprocal = np.linalg.inv(projection.cell_matrix()).T
    matches = match_lattice(
        peaks, reciprocal, _reflections(projection, reciprocal), pixel_size_A=pixel_size
    )
    good = [m for m in matches if m.explained > MIN_EXPLAINED_PEAKS and m.found > MIN_FOUND]
    if not good:
        raise DataError(_no_match(projection, matches, pixel_size))
    trials = []
    for match in [m for m in good if m.score > 0.75 * good[0].score][:3]:
        trials.append(_place(data, flat, match, projection, reciprocal))
    # A cell of half the size folds any image well; what it averages away tells.
    trials = [t for t in trials if t[2] < MAX_HALFWAY]
    if not trials:
        raise DataError(_no_match(projection, matches, pixel_size))
    # where two maps fit alike (the axes of a tetragonal cell), pixels are rather square
    lattice, placement, _ = max(trials, key=lambda t: t[1].score - t[0].deformation(projection))
    if placement.explained < MIN_CELL_EXPLAINED:
        raise DataError(
            f"the periods fit {projection.name} along {list(projection.zone_axis)} but the columns "
            f"do not (its sites explain {placement.explained:.0%} of the mean cell). Check "
            "[crystal] structure and zone_axis"
        )
    if lattice.margin < MIN_MARGIN:
        raise DataError(
            f"cannot tell which column is which: two assignments of {projection.name} sites fit "
            f"almost equally well (lead {lattice.margin:.1%}). Their columns are too much alike in "
            "this contrast, as in a thick specimen (30 nm), where pure oxygen is no peak any more; "
            "a thinner one, another detector or another zone axis is needed"
        )
    return lattice


def flatten(data: np.ndarray) -> np.ndarray:
    """Fill NaN, remove slow background, clip outliers; unit spread, float32."""
    good = np.isfinite(data)
    if not good.any() or np.ptp(data[good]) == 0:
        raise DataError(
            "the image is empty or constant; there is nothing to analyse. Check the file"
        )
    good = ~featureless(data)
    if not good.any():
        raise DataError(
            "the image is of one value nearly everywhere; there is nothing to analyse. Check "
            "the file"
        )
    filled = np.where(good, data, np.median(data[good]))
    # counts of 10^9 leave no digits for the lattice in single precision
    flat = (filled - filled.mean()).astype(np.float32)
    flat -= _slow_part(flat, max(12.0, min(data.shape) / 12))
    stride = max(1, int(np.sqrt(flat.size / 1e6)))
    low, high = np.percentile(flat[::stride, ::stride], (0.1, 99.9))
    flat = np.clip(flat, low, high)
    spread = float(flat.std(dtype=np.float64))
    if spread == 0:
        raise DataError("the image is constant; there is nothing to analyse. Check the file")
    return np.where(good, flat / np.float32(spread), np.float32(0.0))


def _slow_part(image: np.ndarray, width: float) -> np.ndarray:
    """Gaussian mean of `width` px, worked out on block means and interpolated."""
    block = max(1, int(width / 6))
    edges = [np.arange(0, n, block) for n in image.shape]
    small = np.add.reduceat(np.add.reduceat(image, edges[0], axis=0), edges[1], axis=1)
    counts = [np.diff(np.append(e, n)) for e, n in zip(edges, image.shape, strict=True)]
    small = ndimage.gaussian_filter(small / np.outer(*counts), width / block)
    back = []
    for edge, count, n in zip(edges, counts, image.shape, strict=True):
        middle = edge + (count - 1) / 2
        back.append([np.interp(np.arange(n), middle, row) for row in np.eye(len(middle))])
    rows, cols = (np.asarray(b, dtype=np.float32) for b in back)
    return rows.T @ small.astype(np.float32) @ cols


def _no_match(projection: Projection, matches: list[Match], pixel_size: float | None) -> str:
    scale = "any pixel size" if pixel_size is None else f"{pixel_size:.3g} Å per px within 14 %"
    best = f" (best explains {matches[0].explained:.0%} of its peaks)" if matches else ""
    return (
        f"the image's periods do not fit {projection.name} along {list(projection.zone_axis)} at "
        f"{scale}{best}. Check [crystal] structure and zone_axis, and the pixel size"
    )


def _reflections(projection: Projection, reciprocal: np.ndarray) -> dict[tuple[int, int], float]:
    """Give the expected amplitude of the reflections of half the plane down to 1.1 A.

    The largest over the known contrasts: which detector made the image is not asked.
    """
    out: dict[tuple[int, int], float] = {}
    for h in range(0, 13):
        for k in range(-13, 14):
            g2 = float(np.sum((np.array([h, k]) @ reciprocal) ** 2))
            if (h == 0 and k <= 0) or g2 > 0.9**2:
                continue
            damp = np.exp(-2 * (np.pi * 0.42) ** 2 * g2)
            value = 0.0
            for mode in ("idpc", "haadf", "abf"):
                f = sum(
                    s.contrast[mode] * np.exp(-2j * np.pi * (h * s.u + k * s.v))
                    for s in projection.sites
                )
                value = max(value, abs(f) / sum(s.contrast[mode] for s in projection.sites))
            if value * damp > 1e-3:
                out[(h, k)] = float(value * damp)
    return out


def _place(
    data: np.ndarray,
    flat: np.ndarray,
    match: Match,
    projection: Projection,
    reciprocal: np.ndarray,
) -> tuple[Lattice, Placement, float]:
    """Track the distortion of one match and put the sites into its mean cell.

    The third value tells whether the true cell is larger, see `halfway_power`.
    """
    found = track(flat, np.linalg.inv(reciprocal @ match.matrix).T, reciprocal @ match.matrix)
    lattice = Lattice(
        origin_px=found.origin_px,
        u_px=found.cell_px[0],
        v_px=found.cell_px[1],
        centre_px=found.centre_px,
        scale_px=found.scale_px,
        distortion=found.distortion,
        crystallinity=found.crystallinity,
        grid_px=found.grid_px,
    )
    values, weight, ij = _sampled(data, flat, lattice)
    cell, _ = fold(values, weight, ij)
    halfway = halfway_power(fold(values, weight, ij / 2)[0])
    placement, margin = place_sites(cell, projection, lattice.known_cell(projection))
    # folded bins are centred half a bin on
    lattice = lattice.reindexed(placement.operation, placement.shift)
    lattice = replace(
        lattice,
        sign=placement.sign,
        margin=margin,
        explained=placement.explained,
        odd_contrast=placement.odd,
    )
    return _upright(lattice, projection), placement, halfway


def fold_image(data: np.ndarray, lattice: Lattice) -> np.ndarray:
    """Average an image over all cells of a lattice that lie in crystal.

    Parameters
    ----------
    data : ndarray, shape (ny, nx)
        NaN allowed.
    lattice : Lattice
        From `find_lattice`.

    Returns
    -------
    ndarray, shape (n, n)
        Mean cell, indexed by the fractions along u and v.
    """
    return fold(*_sampled(data, flatten(data), lattice))[0]


def _sampled(
    data: np.ndarray, flat: np.ndarray, lattice: Lattice
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, weights and lattice indices of enough pixels to know the mean cell by."""
    ny, nx = flat.shape
    stride = max(1, int(np.sqrt(ny * nx / 150_000)))
    yy, xx = np.mgrid[0:ny:stride, 0:nx:stride]
    xy = np.column_stack([xx.ravel(), yy.ravel()])
    weight = sample(lattice.crystallinity, lattice.grid_px, xy)
    weight = np.where(np.isfinite(data[yy, xx].ravel()), np.clip(weight - 0.4, 0, 0.6), 0.0)
    return flat[yy, xx].ravel(), weight, lattice.index(xy)


def _upright(lattice: Lattice, projection: Projection) -> Lattice:
    """Choose among indexings that put the same species on the same spots.

    Square pixels first; of those alike, v as far up as possible, then u to the right.
    """

    def rank(item: tuple[np.ndarray, np.ndarray]) -> tuple[float, float, float]:
        turned = lattice.reindexed(*item)
        cell = turned.cell_px
        return (-round(turned.deformation(projection), 5), -round(cell[1, 1], 6), cell[0, 0])

    operation, shift = max(near_operations(projection), key=rank)
    return lattice.reindexed(operation, shift)


def sample(grid: np.ndarray, spacing: float, xy: np.ndarray) -> np.ndarray:
    """Interpolate a coarse map at pixel positions (n, 2)."""
    start = (spacing - 1) / 2
    where = [(xy[:, 1] - start) / spacing, (xy[:, 0] - start) / spacing]
    return ndimage.map_coordinates(grid, where, order=1, mode="nearest")
