"""Borders between crystal and film among the cation sites of one orientation of the lattice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stemdisp._sites import Likeness
from stemdisp._terraces import STEP, Run, find_runs, follow_border, terraces, without_holes
from stemdisp.crystal import Projection
from stemdisp.lattice import Lattice

# A film must hold so many sites at which no column is, along so many rows.
MIN_OUTSIDE = 6
SAME_LAYER = 0.02  # layers whose numbers differ by less are one
MIN_ROWS = 4
# A border between crystal and film must sort at least this share of the evidence right.
MIN_SORTED = 0.75
# Steps up and down, summed, over the length of the border: a staircase faces another way.
MAX_CLIMB = 0.35
# Weight of cations that are not the cage's; and least one of the cage's, which has less than 1 if
# its columns are less than half as strong as others: a film drowns them.
OTHERS = 0.5
LEAST_CAGE = 0.25
# Planes inside and outside a border whose columns may be displaced together, by how much, and by
# how much more than the plane below.
NEAR = (5, 3)
MAX_SHIFT_A = 1.0
MAX_CHANGE_A = 0.36
SHIFT_GAIN = 0.02  # by how much a shift must lower the misfit to be believed
_DISC = np.array(
    [(0.0, 0.0)]
    + [(r * np.cos(a), r * np.sin(a)) for r in (0.5, 1.0) for a in np.arange(8) * np.pi / 4]
)


@dataclass(frozen=True)
class Face:
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


class Border:
    """The cations of one orientation, by level across and strip along the interface."""

    def __init__(
        self,
        likeness: Likeness,
        lattice: Lattice,
        steps: np.ndarray,
        cage_species: str,
        projection: Projection,
    ) -> None:
        self.lattice, self.steps, self.likeness = lattice, steps, likeness
        self.projection = projection
        self.normal = normal_to(lattice, steps)
        # from left to right, or from top to bottom
        tangent = np.array([-self.normal[1], self.normal[0]])
        tangent = tangent * (np.sign(tangent[np.argmax(np.abs(tangent))]) or 1.0)
        self.along = lattice.cell_px @ tangent
        self.spacing = 1.0 / np.hypot(*np.linalg.solve(lattice.cell_px, steps))
        # columns of one plane repeat along the interface after the vector (-lv, lu)
        self.period = abs(np.array([-steps[1], steps[0]]) @ self.along)
        area = abs(np.linalg.det(projection.cell_matrix()))
        self.angstrom = np.sqrt(area / abs(np.linalg.det(lattice.cell_px)))
        sites = likeness.sites
        self.xy, self.species = sites[["x_px", "y_px"]].to_numpy(), sites["species"].to_numpy()
        ij = lattice.index(self.xy)
        self.layer = np.round(ij @ steps * 240) / 240
        self.s = ij @ self.along
        self.start = _between(self.s, self.period) if len(ij) else 0.0
        self.strip = np.floor((self.s - self.start) / self.period + 1e-6).astype(int)
        self.cage = self.species == cage_species
        self.weight = np.where(self.cage, _cage_weight(likeness, cage_species), OTHERS)
        self.evidence = sites["evidence"].to_numpy() * self.weight

    def turned(self, cage_species: str) -> Border:
        """Give the same sites with layers that grow the other way."""
        return Border(self.likeness, self.lattice, -self.steps, cage_species, self.projection)

    def lead(self, face: Face) -> float:
        """Evidence in the last plane of a border, and against it in the next: the smaller one."""
        plane = self.planes(face.top, self.offset(face))
        return float(min(self.evidence[plane == 0].sum(), -self.evidence[plane == 1].sum()))

    def search(self) -> list[Face]:
        """All borders at which crystal ends towards higher layers."""
        if not self.cage.any():
            return []
        # every site counts with the cage plane that closes it towards the film
        levels = np.unique(self.layer[self.cage])
        where = np.searchsorted(levels, self.layer - SAME_LAYER)
        levels = np.append(levels, levels[-1] + 1) if where.max() == len(levels) else levels
        runs = find_runs(np.bincount(where, self.evidence, len(levels)))
        faces = []
        for k in range(len(runs) - 1):
            if runs[k].crystal:
                face = self._face(levels, runs, k)
                if face is not None:
                    faces.append(face)
        return faces

    def sharpen(self, face: Face) -> Face:
        """Look again at the planes near a border, allowing them to be displaced as wholes.

        Columns that move there are no longer where the lattice has them, or it has followed them
        and left the others; and evidence is sought from the inside out, plane by plane.
        """
        plane = self.planes(face.top, self.offset(face))
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
        best = (np.inf, start, np.zeros(len(xy)))
        for step in _DISC * MAX_CHANGE_A / self.angstrom:
            shift = start + step
            if np.hypot(*shift) * self.angstrom > MAX_SHIFT_A:
                continue
            height, misfit = self.likeness.compare(species, xy + shift)
            # where the plane is there in part only, the rest has no say
            typical = float(np.nanmean(np.minimum(misfit, 1.0))) if np.isfinite(misfit).any() else 1
            if typical < best[0] - SHIFT_GAIN:
                best = (typical, shift, height)
        return best[1], best[2]

    def planes(self, top: float, offset: np.ndarray | int) -> np.ndarray:
        """Plane of every site: 0 for those that the last one closes towards the film."""
        return np.ceil(self.layer - top - offset - SAME_LAYER).astype(int)

    def sorted(self, top: float) -> float:
        """Share of the evidence that a straight border after a level puts on the right side."""
        outside = self.layer > top
        return 0.5 * (_share(self.evidence[~outside]) + _share(-self.evidence[outside]))

    def offset(self, face: Face) -> np.ndarray:
        """Terrace height at every site."""
        terrace = np.searchsorted(self.start + face.starts * self.period, self.s)
        return face.offsets[terrace]

    def _face(self, levels: np.ndarray, runs: list[Run], k: int) -> Face | None:
        """Follow the border at the upper end of run `k`."""
        crystal, film = runs[k], runs[k + 1]
        top = levels[crystal.last]
        plane = self.planes(top, 0)
        span = (
            int(np.ceil(levels[crystal.first] - top)),
            int(np.floor(levels[film.last] - top)),
        )
        tops = follow_border(self.strip, plane, self.evidence, span)
        tops = without_holes(tops, self.period / self.spacing)
        starts, offsets, common = terraces(tops)
        mine = (self.layer >= levels[crystal.first] - SAME_LAYER) & (
            self.layer <= levels[film.last] + SAME_LAYER
        )
        outside = mine & (plane > tops[self.strip])
        inside = mine & ~outside
        measured = self.evidence != 0
        rows = len(np.unique(self.strip[outside & measured]))
        if np.count_nonzero(outside & measured) < MIN_OUTSIDE or rows < MIN_ROWS:
            return None
        share = 0.5 * (_share(self.evidence[inside]) + _share(-self.evidence[outside]))
        climb = np.abs(np.diff(tops)).sum() * self.spacing / (len(tops) * self.period)
        if share < MIN_SORTED or climb > MAX_CLIMB:
            return None
        below = k > 0
        above = k + 2 < len(runs)
        return Face(
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

    def balance(self, points: np.ndarray) -> float:
        """Evidence that crystal lies below the points and film above."""
        outside = self.layer > (self.lattice.index(points) @ self.steps).mean()
        return float(self.evidence[~outside].sum() - self.evidence[outside].sum())


def _cage_weight(likeness: Likeness, cage_species: str) -> float:
    """Weight of the evidence of cage cations, by how strong they are beside the others."""
    kinds = likeness.sites["species"].unique()
    strongest = max((likeness.strength(k) for k in kinds if k != cage_species), default=0.0)
    if strongest == 0.0:
        return 1.0
    return float(np.clip(2 * likeness.strength(cage_species) / strongest, LEAST_CAGE, 1.0))


def _between(s: np.ndarray, period: float) -> float:
    """Place before the first site, in the widest gap between sites modulo the period."""
    places = np.sort((s - s.min()) % period)
    places = np.append(places, places[0] + period)
    widest = int(np.argmax(np.diff(places)))
    middle = 0.5 * (places[widest] + places[widest + 1])
    return float(s.min() + middle % period - period)


def normal_to(lattice: Lattice, steps: np.ndarray) -> np.ndarray:
    """Give the unit vector in the image along which the layer number grows."""
    gradient = np.linalg.solve(lattice.cell_px, steps)
    return gradient / np.hypot(*gradient)


def _share(evidence: np.ndarray) -> float:
    """Positive part of the evidence."""
    total = np.abs(evidence).sum()
    return float(np.maximum(evidence, 0).sum() / total) if total > 0 else 0.5
