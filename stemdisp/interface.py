"""Where the crystal ends: which plane is the last, on which side, with what certainty.

The outermost plane of cage cations that still looks like crystal is the first TaO2 plane, N = 1.
Where the border steps by whole planes it is followed, and N counts from its place there.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from stemdisp._borders import MIN_OUTSIDE, MIN_ROWS, SAME_LAYER, Border, Face, normal_to
from stemdisp._cell import near_operations
from stemdisp._sites import Likeness
from stemdisp.crystal import Projection
from stemdisp.errors import DataError
from stemdisp.lattice import Lattice

if TYPE_CHECKING:
    from hyperspy.signals import Signal2D

Point = tuple[float, float]

# The last plane and the next one must say so: sum of the evidence of their sites.
MIN_LEAD = 5.0
# Share of unmeasured cage columns from which "no interface" means nothing, if there are so many.
MOST_UNJUDGED = 0.5
LEAST_SITES = 16
PARALLEL = 0.98  # cosine of the angle between faces of one kind
MAX_TILT_DEG = 15.0
ABOVE_LINE = 0.15  # planes by which a last plane may lie beyond the line that the user drew
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
    others_beyond : float
        Share of the other cations' sites in the plane beyond at which a column is seen: near 1 if
        the crystal ends on a plane of theirs, or if the film hides the cage cations of that plane.
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
    others_beyond: float = np.nan
    stated: bool = False
    far: Interface | None = None
    beyond: Interface | None = None

    def terrace(self, ij: np.ndarray, *, aside: float = 0.0) -> np.ndarray:
        """Give the number of the terrace over indices (n, 2), or over what is `aside` px off."""
        along = np.asarray(ij, dtype=float) @ np.array(self.along)
        return np.searchsorted(self.breaks_px, along + aside)

    def layer(self, ij: np.ndarray, *, aside: float = 0.0) -> np.ndarray:
        """Layer number l of indices (n, 2): 0 for the first layer under the first cage plane.

        With `aside` it is counted from the terrace that many px along the interface.
        """
        offset = self.offsets[self.terrace(ij, aside=aside)]
        level = np.asarray(ij, dtype=float) @ np.array(self.steps)
        return level - self.top_layer - offset + 0.5

    def plane(self, ij: np.ndarray, *, aside: float = 0.0) -> np.ndarray:
        """Plane number N of lattice indices (n, 2); `aside` as in `layer`.

        N = 1 - ceil(l - 1/2): that of the cage plane which closes the site towards the film. Where
        sites lie half-way between cage planes, as in perovskites, that is 1 - floor(l).
        """
        beyond = self.layer(ij, aside=aside) - 0.5
        return (1 - np.ceil(beyond - SAME_LAYER)).astype(np.int64)

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

    def step_positions(self, lattice: Lattice) -> np.ndarray:
        """Points (n, 2) in px at which the interface steps, half-way up."""
        middle = self.top_layer + 0.5 + (self.offsets[:-1] + self.offsets[1:]) / 2
        both = np.stack([self.steps, self.along])
        return lattice.position(np.linalg.solve(both, np.stack([middle, self.breaks_px])).T)

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
    if not (likeness.sites["species"] == cage_species).any():
        raise DataError(
            f"no column of {cage_species} lies wholly inside the image; it is too small to tell "
            "where the crystal ends. Set present = false"
        )
    trials = []
    for turned in _orientations(lattice, projection, steps):
        normal = normal_to(turned, steps)
        if film != "auto" and np.dot(normal, _SIDES[film]) < np.cos(np.deg2rad(50)):
            continue
        trials.append(Border(likeness, turned, steps, cage_species, projection))
    if not isinstance(at, str):
        return _as_stated(trials, _points(at, data.shape), plane, film)
    found = [(border, face) for border in trials for face in border.search()]
    where = "" if film == "auto" else f" with the film {film}"
    remedy = (
        "Check [interface] plane and film, state it with [interface] at, or set present = false "
        "for a crystal alone"
    )
    if not found:
        _say_why_not(likeness, cage_species, trials if film == "auto" else [], plane)
        if present is True or film != "auto":
            raise DataError(
                f"no interface parallel to {list(plane)}{where} is seen in the image. {remedy}"
            )
        return lattice, None
    best = max(found, key=lambda f: f[1].gain)[0]
    # the same border seen along another plane of the form is a staircase; only what faces this
    # way or the opposite one is a border of its own: of another crystal, or this one's other end
    found = [f for f in found if abs(np.dot(f[0].normal, best.normal)) > PARALLEL]
    border, face = max(found, key=lambda f: (f[1].n_crystal, f[1].n_film, f[1].gain))
    interface = _describe(border, border.sharpen(face))
    if interface.lead < MIN_LEAD:
        raise DataError(
            f"no interface parallel to {list(plane)}{where} is seen so clearly that the last plane "
            f"of {cage_species} is known: there are too few electrons, the film looks too much "
            f"like crystal, or it runs along another plane. {remedy}"
        )
    return border.lattice, interface


def _orientations(lattice: Lattice, projection: Projection, steps: np.ndarray) -> list[Lattice]:
    """Index the lattice in one way for each direction in which such a plane can face."""
    seen: list[np.ndarray] = []
    out = []
    for operation, shift in near_operations(projection):
        turned = lattice.reindexed(operation, shift)
        normal = normal_to(turned, steps)
        if all(np.dot(normal, other) < np.cos(np.deg2rad(1)) for other in seen):
            seen.append(normal)
            out.append(turned)
    return out


def _say_why_not(
    likeness: Likeness, cage_species: str, trials: list[Border], plane: tuple[int, int, int]
) -> None:
    """Raise where an interface may be there that could not be judged, or faces the other way."""
    cage = likeness.sites[likeness.sites["species"] == cage_species]
    if len(cage) >= LEAST_SITES and (cage["evidence"] == 0).mean() > MOST_UNJUDGED:
        raise DataError(
            f"most columns of {cage_species} lie under missing, saturated or dead pixels, so it "
            "cannot be told whether there is an interface. State it with [interface] at, or set "
            "present = false"
        )
    faces = [trial.normal for trial in trials]
    for trial in trials:
        if min(np.dot(trial.normal, other) for other in faces) < -PARALLEL:
            continue
        # a polar crystal has faces that no symmetry exchanges
        other = trial.turned(cage_species)
        if any(other.lead(face) >= MIN_LEAD for face in other.search()):
            back = [-k for k in plane]
            raise DataError(
                f"an interface is seen on the other face of the crystal: set [interface] plane = "
                f"{back} instead of {list(plane)}"
            )


def _points(at: tuple[Point, ...], shape: tuple[int, int]) -> np.ndarray:
    points = np.asarray(at, dtype=float)
    if points.shape not in ((1, 2), (2, 2)) or not np.isfinite(points).all():
        raise ValueError(f"at = {at!r} must be one point (x, y) or two, in px")
    if len(points) == 2 and np.hypot(*(points[1] - points[0])) < 1:
        raise ValueError(f"at = {at!r}: the two points are the same; give two ends of the line")
    low, high = np.array([-0.5, -0.5]), np.array([shape[1] - 0.5, shape[0] - 0.5])
    along = np.linspace(points[0], points[-1], 200)
    if not np.any(np.all((along >= low) & (along <= high), axis=1)):
        raise DataError(
            f"the interface stated with [interface] at = {points.tolist()} lies outside the image "
            f"of {shape[1]} x {shape[0]} px; give pixels, x to the right and y down"
        )
    return points


def _describe(border: Border, face: Face) -> Interface:
    """Turn a border into an Interface."""
    rough = float(np.std(face.tops))
    error = max(rough / np.sqrt(len(face.tops)), 0.05) * border.spacing * border.angstrom
    return _with_evidence(
        border,
        replace(
            _flat(border, face.top),
            breaks_px=border.start + face.starts * border.period,
            offsets=face.offsets,
            position_err_A=float(error),
            roughness_planes=rough,
            sorted_share=face.sorted_share,
            far=None if face.bottom is None else _opposite(border, face.bottom),
            beyond=None if face.beyond is None else _opposite(border, face.beyond),
        ),
    )


def _flat(border: Border, top: float) -> Interface:
    """Interface without steps after the level `top`."""
    centre = border.lattice.centre_px
    level = float((border.lattice.index(centre[None]) @ border.steps)[0])
    return Interface(
        side=max(_SIDES, key=lambda s: float(np.dot(border.normal, _SIDES[s]))),
        position_px=centre + (top + 0.5 - level) * border.spacing * border.normal,
        normal=border.normal,
        spacing_px=float(border.spacing),
        steps=(float(border.steps[0]), float(border.steps[1])),
        along=(float(border.along[0]), float(border.along[1])),
        top_layer=top,
        position_err_A=0.05 * border.spacing * border.angstrom,
    )


def _opposite(border: Border, bottom: float) -> Interface:
    """Interface without steps that faces the other way, before the level `bottom`."""
    face = _flat(border, bottom - 1.0)
    return replace(
        face,
        side=_OPPOSITE[face.side],
        normal=-face.normal,
        steps=(-face.steps[0], -face.steps[1]),
        top_layer=-bottom,
    )


def _with_evidence(border: Border, face: Interface) -> Interface:
    """Add what the image says about the planes on either side of the border."""
    terrace = np.searchsorted(face.breaks_px, border.s)
    plane = border.planes(face.top_layer, face.offsets[terrace])
    measured, plain = border.evidence != 0, border.evidence / border.weight
    last, beyond = (measured & (plane == number) for number in (0, 1))
    others = [
        (border.evidence[beyond & ~border.cage & (terrace == k)] > 0).astype(float)
        for k in range(len(face.offsets))
    ]
    return replace(
        face,
        lead=float(min(border.evidence[last].sum(), -border.evidence[beyond].sum())),
        first_plane=_mean(plain[last & border.cage]),
        next_plane=_mean(plain[beyond & border.cage]),
        others_beyond=max((_mean(o) for o in others if len(o) >= MIN_ROWS), default=np.nan),
    )


def _stated(border: Border, points: np.ndarray) -> Interface:
    """Interface where the user put it."""
    level = border.lattice.index(points) @ border.steps
    levels = np.unique(border.layer[border.cage])
    if len(points) == 1:
        top = levels[np.argmin(np.abs(levels - level[0]))]
    else:
        top = max(levels[levels <= level.mean() + ABOVE_LINE], default=-np.inf)
    if np.count_nonzero(border.layer[border.cage] <= top + SAME_LAYER) < MIN_OUTSIDE:
        raise DataError(
            "the interface stated with [interface] at leaves hardly any crystal below it; check "
            "its points and [interface] film"
        )
    face = replace(_flat(border, float(top)), sorted_share=border.sorted(top), stated=True)
    return _with_evidence(border, face)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else np.nan


def _as_stated(
    trials: list[Border], points: np.ndarray, plane: tuple[int, int, int], film: str
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
    return best.lattice, _stated(best, points)
