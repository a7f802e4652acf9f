"""Where the crystal ends: which plane is the last, on which side, with what certainty.

The outermost plane of cage cations that still looks like crystal is the first TaO2 plane, N = 1.
Where the border steps by whole planes it is followed, and N counts from its place there.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stemdisp._cell import near_operations
from stemdisp._sites import Likeness
from stemdisp._terraces import STEP, Run, find_runs, follow_border, terraces, without_holes
from stemdisp.crystal import Projection
from stemdisp.errors import DataError
from stemdisp.lattice import Lattice

if TYPE_CHECKING:
    from hyperspy.signals import Signal2D

Point = tuple[float, float]

# A film must hold so many sites at which no column is, along so many rows.
MIN_OUTSIDE = 6
MIN_ROWS = 4
# A border between crystal and film must sort at least this share of the evidence right.
MIN_SORTED = 0.75
# The last plane and the next one must say so: sum of the evidence of their sites.
MIN_LEAD = 5.0
OTHERS = 0.5
PARALLEL = 0.98
MAX_TILT_DEG = 15.0
ABOVE_LINE = 0.15  # planes by which a last plane may lie beyond the line that the user drew
# Planes inside and outside a border whose columns may be displaced together, by how much, and by
# how much more than the plane below.
NEAR = (5, 3)
MAX_SHIFT_A = 1.0
MAX_CHANGE_A = 0.36
SHIFT_GAIN = 0.02  # by how much a shift must lower the misfit to be believed
_DISC = np.array([(0.0, 0.0)] + [
    (r * np.cos(a), r * np.sin(a)) for r in (0.5, 1.0) for a in np.arange(8) * np.pi / 4
])
_SIDES = {"up": (0, -1), "down": (0, 1), "left": (-1, 0), "right": (1, 0)}

_OPPOSITE = {"up": "down", "down": "up", "left": "right", "right": "left"}


@dataclass(frozen=True, eq=False)
class Interface:
    """The end of the crystal.

    Attributes
    ----------
    side : {"up", "down", "left", "right"}
        Where the film lies in the image.
    position_px : ndarray, shape (2,)
        A point (x, y) of the interface: half a layer beyond plane N = 1 of the most common
        terrace, mid-image.
    normal : ndarray, shape (2,)
        Unit vector towards the film.
    spacing_px : float
        Distance of layers along the normal.
    steps : (float, float)
        Layer number l = steps . (i, j) - top + 0.5, with `top` that of the terrace.
    along : (float, float)
        Distance along the interface in px, s = along . (i, j).
    top_layer : float
        Lattice layer number of the outermost cage plane (N = 1) of the most common terrace.
    breaks_px : ndarray, shape (n,)
        Places s at which the interface steps by whole planes.
    offsets : ndarray of int, shape (n + 1,)
        Planes by which every terrace lies above the most common one.
    position_err_A : float
        Uncertainty of the position along the normal, from the spread of the last plane seen.
    roughness_planes : float
        Standard deviation of the outermost plane along the interface, in planes.
    sorted_share : float
        Share of the evidence for crystal and film that this border puts on the right side.
    lead : float
        Evidence that no other plane is the last: logarithm of the likelihood ratio to the next
        plane further in or out, whichever is more likely.
    first_plane, next_plane : float
        Mean evidence for crystal at the cage sites of N = 1 and of the plane beyond, where no
        column should be: -3 to 3.
    stated : bool
        Whether the user said where it is.
    far : Interface or None
        The other end of the same crystal, if it is seen.
    beyond : Interface or None
        The face of a second crystal on the other side of the film, if it is seen.
    """

    side: str
    position_px: np.ndarray
    normal: np.ndarray
    spacing_px: float
    steps: Point
    along: Point
    top_layer: float
    breaks_px: np.ndarray = field(default_factory=lambda: np.zeros(0))
    offsets: np.ndarray = field(default_factory=lambda: np.zeros(1, dtype=int))
    position_err_A: float = np.nan
    roughness_planes: float = 0.0
    sorted_share: float = np.nan
    lead: float = np.nan
    first_plane: float = np.nan
    next_plane: float = np.nan
    stated: bool = False
    far: Interface | None = None
    beyond: Interface | None = None

    def layer(self, ij: np.ndarray) -> np.ndarray:
        """Layer number l of indices (n, 2): 0 for the first layer under the first cage plane."""
        ij = np.asarray(ij, dtype=float)
        terrace = np.searchsorted(self.breaks_px, ij @ np.array(self.along))
        return ij @ np.array(self.steps) - self.top_layer - self.offsets[terrace] + 0.5

    def plane(self, ij: np.ndarray) -> np.ndarray:
        """Plane number N = 1 - floor(l) of lattice indices (n, 2)."""
        return (1 - np.floor(self.layer(ij) + 1e-6)).astype(np.int64)

    def height(self, ij: np.ndarray) -> np.ndarray:
        """Distance in px from the crystal's outermost cage planes towards the film.

        Negative inside. Beside a step, where the film touches the side of the higher terrace, it
        is the distance from the nearer of the two.
        """
        ij = np.asarray(ij, dtype=float)
        along = ij @ np.array(self.along)
        level = ij @ np.array(self.steps) - self.top_layer
        ends = np.concatenate([[-np.inf], self.breaks_px, [np.inf]])
        out = np.full(len(ij), np.inf)
        for low, high, offset in zip(ends[:-1], ends[1:], self.offsets, strict=True):
            aside = np.maximum(np.maximum(low - along, along - high), 0.0)
            above = (level - offset) * self.spacing_px
            distance = np.where(aside > 0, np.hypot(aside, np.maximum(above, 0.0)), above)
            out = np.minimum(out, distance)
        return out

    def outline(self, lattice: Lattice, shape: tuple[int, int]) -> np.ndarray:
        """Points (n, 2) of the interface as a line through the image, half a layer beyond N = 1.

        It follows the steps and the distortion of `lattice`.
        """
        ny, nx = shape
        corners = np.array([[0, 0], [nx - 1, 0], [0, ny - 1], [nx - 1, ny - 1]], dtype=float)
        along = lattice.index(corners) @ np.array(self.along)
        low, high = along.min(), along.max()
        breaks = np.clip(self.breaks_px, low, high)
        ends = np.concatenate([[low], breaks, [high]])
        s, level = [], []
        for a, b, offset in zip(ends[:-1], ends[1:], self.offsets, strict=True):
            part = np.linspace(a, b, max(2, int((b - a) / 24) + 1))
            s.append(part)
            level.append(np.full(len(part), self.top_layer + offset + 0.5))
        both = np.stack([self.steps, self.along])
        ij = np.linalg.solve(both, np.stack([np.concatenate(level), np.concatenate(s)])).T
        xy = lattice.position(ij)
        margin = 2 * self.spacing_px
        seen = np.all((xy > -margin) & (xy < np.array([nx, ny]) + margin), axis=1)
        return xy[seen]


def find_interface(
    image: Signal2D | np.ndarray,
    lattice: Lattice,
    *,
    projection: Projection,
    plane: tuple[int, int, int] = (1, 1, 1),
    cage_species: str = "Ta",
    film: str = "auto",
    present: bool | str = "auto",
    at: tuple[Point, ...] | str = "auto",
) -> tuple[Lattice, Interface | None]:
    """Find the interface and turn the lattice so that layers grow towards the film.

    Parameters
    ----------
    image : Signal2D or ndarray, shape (ny, nx)
        The image in which `lattice` was found.
    lattice : Lattice
        From `find_lattice`.
    projection : Projection
        The crystal.
    plane : (int, int, int)
        Miller indices of the interface plane; it must contain the beam direction.
    cage_species : str
        Species whose planes are counted (Ta).
    film : {"auto", "up", "down", "left", "right"}
        Side of the film. Where both sides of the crystal or two crystals are seen, it chooses.
    present : bool or "auto"
        False returns no interface; True insists on one.
    at : sequence of (x, y), or "auto"
        The user's own interface, in px of `image`: two points of a line that no column of the
        crystal lies beyond, or one point of the plane N = 1. Nothing is searched for then.

    Returns
    -------
    lattice : Lattice
        Reindexed so that ``layer_step(plane)`` points to the film.
    interface : Interface or None

    Raises
    ------
    DataError
        `present` is true, or a side is given, and no interface parallel to `plane` is seen; the
        user's own does not run along `plane` or leaves no crystal.
    ValueError
        `at` is neither one point nor two different ones.
    """
    if present is False:
        return lattice, None
    data = np.asarray(getattr(image, "data", image), dtype=np.float64) * lattice.sign
    steps = np.array(projection.layer_step(plane), dtype=float)
    projection.sites_of(cage_species)  # raises if no column carries it
    # a crystal may end on other cations too; the plane of the cage cations counts. Anions may be
    # missing
    cations = [s.species for s in projection.sites if not s.is_anion]
    likeness = Likeness(data, lattice, projection, (cage_species, *cations))
    trials = []
    for turned in _orientations(lattice, projection, steps):
        normal = _normal(turned, steps)
        if film != "auto" and np.dot(normal, _SIDES[film]) < np.cos(np.deg2rad(50)):
            continue
        trials.append(_Border(likeness, turned, steps, cage_species, projection))
    if not isinstance(at, str):
        return _as_stated(trials, _points(at), plane, film)
    found = [(border, face) for border in trials for face in border.search()]
    if not found:
        if present is True or film != "auto":
            where = "" if film == "auto" else f" with the film {film}"
            raise DataError(
                f"no interface parallel to {list(plane)}{where} is seen in the image. Check "
                "[interface] plane and film, state it with [interface] at, or set present = false "
                "for a crystal alone"
            )
        return lattice, None
    best = max(found, key=lambda f: f[1].gain)[0]
    # the same border seen along another plane of the form is a staircase; only what faces this
    # way or the opposite one is a border of its own: of another crystal, or this one's other end
    found = [f for f in found if abs(np.dot(f[0].normal, best.normal)) > PARALLEL]
    border, face = max(found, key=lambda f: (f[1].n_crystal, f[1].n_film, f[1].gain))
    interface = border.describe(border.sharpen(face))
    if interface.lead < MIN_LEAD:
        raise DataError(
            f"an interface along {list(plane)} is seen, but not which plane of {cage_species} is "
            "the last one: there are too few electrons or the film looks too much like crystal. "
            "State it with [interface] at, or set present = false"
        )
    return border.lattice, interface


def _orientations(
    lattice: Lattice, projection: Projection, steps: np.ndarray
) -> list[Lattice]:
    """Index the lattice in one way for each direction in which such a plane can face."""
    seen: list[np.ndarray] = []
    out = []
    for operation, shift in near_operations(projection):
        turned = lattice.reindexed(operation, shift)
        normal = _normal(turned, steps)
        if all(np.dot(normal, other) < np.cos(np.deg2rad(1)) for other in seen):
            seen.append(normal)
            out.append(turned)
    return out


def _normal(lattice: Lattice, steps: np.ndarray) -> np.ndarray:
    """Give the unit vector in the image along which the layer number grows."""
    gradient = np.linalg.solve(lattice.cell_px, steps)
    return gradient / np.hypot(*gradient)


def _points(at: tuple[Point, ...]) -> np.ndarray:
    points = np.asarray(at, dtype=float)
    if points.shape not in ((1, 2), (2, 2)) or not np.isfinite(points).all():
        raise ValueError(f"at = {at!r} must be one point (x, y) or two, in px")
    if len(points) == 2 and np.hypot(*(points[1] - points[0])) < 1:
        raise ValueError(f"at = {at!r}: the two points are the same; give two ends of the line")
    return points


@dataclass(frozen=True)
class _Face:
    """A border of crystal and film among the levels of one orientation."""

    top: float
    starts: np.ndarray
    offsets: np.ndarray
    tops: np.ndarray
    gain: float
    sorted_share: float
    n_crystal: int
    n_film: int
    bottom: float | None
    beyond: float | None


class _Border:
    """The cage sites of one orientation, by level across and strip along the interface."""

    def __init__(
        self,
        likeness: Likeness,
        lattice: Lattice,
        steps: np.ndarray,
        cage_species: str,
        projection: Projection,
    ) -> None:
        self.lattice, self.steps, self.likeness = lattice, steps, likeness
        self.normal = _normal(lattice, steps)
        tangent = np.array([-self.normal[1], self.normal[0]])
        self.along = lattice.cell_px @ tangent
        self.spacing = 1.0 / np.hypot(*np.linalg.solve(lattice.cell_px, steps))
        # columns of one plane repeat along the interface after the vector (-lv, lu)
        self.period = abs(np.array([-steps[1], steps[0]]) @ self.along)
        area = abs(np.linalg.det(projection.cell_matrix()))
        self.angstrom = np.sqrt(area / abs(np.linalg.det(lattice.cell_px)))
        sites = likeness.sites
        self.xy, self.species = sites[["x_px", "y_px"]].to_numpy(), sites["species"].to_numpy()
        ij = lattice.index(self.xy)
        self.layer = np.round(ij @ steps * 12) / 12
        self.s = ij @ self.along
        self.start = float(self.s.min()) if len(ij) else 0.0
        self.strip = np.floor((self.s - self.start) / self.period + 1e-6).astype(int)
        self.cage = self.species == cage_species
        self.weight = np.where(self.cage, 1.0, OTHERS)
        self.evidence = sites["evidence"].to_numpy() * self.weight

    def search(self) -> list[_Face]:
        """All borders at which crystal ends towards higher layers."""
        if len(self.layer) == 0:
            return []
        # every site counts with the cage plane that closes it towards the film
        levels = np.unique(self.layer[self.cage])
        where = np.searchsorted(levels, self.layer - 1e-6)
        levels = np.append(levels, levels[-1] + 1) if where.max() == len(levels) else levels
        runs = find_runs(np.bincount(where, self.evidence, len(levels)))
        faces = []
        for k in range(len(runs) - 1):
            if runs[k].crystal:
                face = self._face(levels, runs, k)
                if face is not None:
                    faces.append(face)
        return faces

    def sharpen(self, face: _Face) -> _Face:
        """Look again at the planes near a border, allowing them to be displaced as wholes.

        Columns that move there are no longer where the lattice has them, or it has followed them
        and left the others; and evidence is sought from the inside out, plane by plane.
        """
        plane = np.ceil(self.layer - face.top - self._offset(face) - 1e-6).astype(int)
        evidence = self.evidence.copy()
        for species in np.unique(self.species):
            shift = np.zeros(2)
            for number in range(-NEAR[0], NEAR[1] + 1):
                rows = np.flatnonzero((plane == number) & (self.species == species))
                if len(rows) == 0:
                    continue
                shift, height = self._follow(species, self.xy[rows], shift)
                evidence[rows] = self.likeness.evidence(species, height) * self.weight[rows]
        self.evidence = evidence
        again = [f for f in self.search() if abs(f.top - face.top) <= NEAR[1]]
        return max(again, key=lambda f: f.gain, default=face)

    def _follow(
        self, species: str, xy: np.ndarray, start: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Shift of one plane near that of the plane below, and the heights of its sites there."""
        best = None
        for step in _DISC * MAX_CHANGE_A / self.angstrom:
            shift = start + step
            if np.hypot(*shift) * self.angstrom > MAX_SHIFT_A:
                continue
            height, misfit = self.likeness.compare(species, xy + shift)
            typical = float(np.nanmedian(misfit)) if np.isfinite(misfit).any() else np.inf
            if best is None or typical < best[0] - SHIFT_GAIN:
                best = (typical, shift, height)
        return best[1], best[2]

    def _offset(self, face: _Face) -> np.ndarray:
        """Terrace height at every site."""
        terrace = np.searchsorted(self.start + face.starts * self.period, self.s)
        return face.offsets[terrace]

    def _face(self, levels: np.ndarray, runs: list[Run], k: int) -> _Face | None:
        """Follow the border at the upper end of run `k`."""
        crystal, film = runs[k], runs[k + 1]
        top = levels[crystal.last]
        plane = np.ceil(self.layer - top - 1e-6).astype(int)
        span = (
            int(np.ceil(levels[crystal.first] - top)),
            int(np.floor(levels[film.last] - top)),
        )
        tops = follow_border(self.strip, plane, self.evidence, span)
        tops = without_holes(tops, self.period / self.spacing)
        starts, offsets, common = terraces(tops)
        mine = (self.layer >= levels[crystal.first] - 1e-6) & (
            self.layer <= levels[film.last] + 1e-6
        )
        outside = mine & (plane > tops[self.strip])
        inside = mine & ~outside
        measured = self.evidence != 0
        rows = len(np.unique(self.strip[outside & measured]))
        if np.count_nonzero(outside & measured) < MIN_OUTSIDE or rows < MIN_ROWS:
            return None
        share = 0.5 * (
            _share(self.evidence[inside]) + _share(-self.evidence[outside])
        )
        if share < MIN_SORTED:
            return None
        below = k > 0
        above = k + 2 < len(runs)
        return _Face(
            top=float(top + common),
            starts=starts,
            offsets=offsets,
            tops=tops,
            gain=float(-self.evidence[outside].sum() - STEP * np.abs(np.diff(tops)).sum()),
            sorted_share=share,
            n_crystal=int(np.count_nonzero(inside)),
            n_film=int(np.count_nonzero(outside)),
            bottom=float(levels[crystal.first]) if below else None,
            beyond=float(levels[runs[k + 2].first]) if above else None,
        )

    def describe(self, face: _Face) -> Interface:
        """Turn a border into an Interface."""
        rough = float(np.std(face.tops))
        error = max(rough / np.sqrt(len(face.tops)), 0.05) * self.spacing * self.angstrom
        breaks = self.start + face.starts * self.period
        base = self._flat(face.top)
        out = replace(
            base,
            breaks_px=breaks,
            offsets=face.offsets,
            position_err_A=float(error),
            roughness_planes=rough,
            sorted_share=face.sorted_share,
            far=None if face.bottom is None else self._opposite(face.bottom),
            beyond=None if face.beyond is None else self._opposite(face.beyond),
        )
        return self.with_evidence(out)

    def with_evidence(self, face: Interface) -> Interface:
        """Add what the image says about the planes on either side of the border."""
        terrace = np.searchsorted(face.breaks_px, self.s)
        plane = np.ceil(self.layer - face.top_layer - face.offsets[terrace] - 1e-6).astype(int)
        means, sums = [], []
        for number in (0, 1):
            here = (plane == number) & (self.evidence != 0)
            sums.append(float(self.evidence[here].sum()))
            means.append(float(self.evidence[here & self.cage].mean()) if here.any() else np.nan)
        lead = min(sums[0], -sums[1])
        return replace(face, first_plane=means[0], next_plane=means[1], lead=lead)

    def _flat(self, top: float) -> Interface:
        """Interface without steps after the level `top`."""
        centre = self.lattice.centre_px
        level = float((self.lattice.index(centre[None]) @ self.steps)[0])
        return Interface(
            side=max(_SIDES, key=lambda s: float(np.dot(self.normal, _SIDES[s]))),
            position_px=centre + (top + 0.5 - level) * self.spacing * self.normal,
            normal=self.normal,
            spacing_px=float(self.spacing),
            steps=(float(self.steps[0]), float(self.steps[1])),
            along=(float(self.along[0]), float(self.along[1])),
            top_layer=top,
            position_err_A=0.05 * self.spacing * self.angstrom,
        )

    def _opposite(self, bottom: float) -> Interface:
        """Interface without steps that faces the other way, before the level `bottom`."""
        face = self._flat(bottom - 1.0)
        return replace(
            face,
            side=_OPPOSITE[face.side],
            normal=-face.normal,
            steps=(-face.steps[0], -face.steps[1]),
            top_layer=-bottom,
        )

    def stated(self, points: np.ndarray) -> Interface:
        """Interface where the user put it."""
        level = self.lattice.index(points) @ self.steps
        levels = np.unique(self.layer[self.cage])
        if len(points) == 1:
            top = levels[np.argmin(np.abs(levels - level[0]))]
        else:
            below = levels[levels <= level.mean() + ABOVE_LINE]
            if len(below) == 0:
                raise DataError(
                    "the interface stated with [interface] at leaves no crystal below it; check "
                    "its points and [interface] film"
                )
            top = below[-1]
        outside = self.layer > top
        share = 0.5 * (_share(self.evidence[~outside]) + _share(-self.evidence[outside]))
        return self.with_evidence(
            replace(self._flat(float(top)), sorted_share=share, stated=True)
        )

    def balance(self, points: np.ndarray) -> float:
        """Evidence that crystal lies below the points and film above."""
        outside = self.layer > (self.lattice.index(points) @ self.steps).mean()
        return float(self.evidence[~outside].sum() - self.evidence[outside].sum())


def _share(evidence: np.ndarray) -> float:
    """Positive part of the evidence."""
    total = np.abs(evidence).sum()
    return float(np.maximum(evidence, 0).sum() / total) if total > 0 else 0.5


def _as_stated(
    trials: list[_Border], points: np.ndarray, plane: tuple[int, int, int], film: str
) -> tuple[Lattice, Interface]:
    """Take the user's own interface."""
    if len(points) == 2:
        line = points[1] - points[0]
        line = line / np.hypot(*line)
        most = np.sin(np.deg2rad(MAX_TILT_DEG))
        trials = [t for t in trials if abs(np.dot(t.normal, line)) < most]
    if not trials:
        raise DataError(
            f"the interface stated with [interface] at does not run along {list(plane)} of the "
            f"lattice{'' if film == 'auto' else f' with the film {film}'}. Check its points, "
            "[interface] plane and film"
        )
    best = max(trials, key=lambda t: t.balance(points))
    return best.lattice, best.stated(points)
