"""Crystal structure and zone axis -> what the image should show.

A zone-axis image shows the crystal projected along the beam. :func:`project` gives the smallest
cell of that projection, the atomic columns in it, the image directions of crystal vectors and the
layer number of a column with respect to an interface plane, for any crystal system.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product

import numpy as np

from stemdisp._presets import ATOMIC_NUMBER, PRESETS, load_structure
from stemdisp._projection import (
    clean,
    fractions_in_plane,
    kinds_of,
    matching_shifts,
    merge_columns,
    plane_lattice,
    smallest_cell,
)

__all__ = ["PRESETS", "Projection", "Site", "project"]

# Always anions beside a metal; the most electronegative element of a structure is one too.
_HARD_ANIONS = frozenset({"N", "O", "F", "Cl", "Br"})
# What can be missing from a column of its own.
_PURE_ANIONS = frozenset({"O", "F", "N", "S"})
_BY_ELECTRONEGATIVITY = ("F", "O", "Cl", "N", "Br", "I", "S", "Se", "Te", "P", "As", "C", "H")
_CONTRAST_EXPONENT = {"idpc": 0.9, "haadf": 1.7, "abf": 0.65}


@dataclass(frozen=True)
class Site:
    """One atomic column of the projected cell.

    Attributes
    ----------
    index : int
        Place of the site in `Projection.sites`.
    species : str
        The element that names the column: in a mixed column the most frequent one that is not an
        anion (the heavier of two), in a pure anion column the anion.
    elements : dict of str to float
        Atoms of each element per `Projection.period_A` along the beam.
    u, v : float
        Position as fractions of the projected cell, in [0, 1).
    contrast : dict of str to float
        Expected relative intensity for "idpc", "haadf" and "abf"; the strongest site has 1.
    """

    index: int
    species: str
    elements: dict[str, float]
    u: float
    v: float
    contrast: dict[str, float]

    @property
    def is_anion(self) -> bool:
        """Whether the column holds nothing but O, F, N or S."""
        return set(self.elements) <= _PURE_ANIONS


@dataclass(frozen=True, eq=False)
class Projection:
    """A crystal seen along a zone axis.

    The cell is the smallest that repeats the projected structure. It can be smaller than the
    projected unit cell, because centring and glide planes across the beam vanish in projection.
    Plane vectors are given by fractions of u and v; seen with u along +x, v points to +y.
    `u_uvw` and `v_uvw` have their first nonzero component positive, so the view is against the
    zone axis or along it, whichever makes (u, v) right handed.

    Attributes
    ----------
    name : str
        Preset name, or the CIF's file name without suffix.
    zone_axis : tuple of 3 ints
        The direction [uvw] of the beam in the conventional cell, without common factor.
    u_A, v_A : float
        Lengths of the shortest (u) and the second (v) lattice vector of the projection, angstrom.
    angle_deg : float
        Angle from u to v, degrees.
    u_uvw, v_uvw : tuple of 3 floats
        u and v as crystal vectors perpendicular to the beam, in units of a, b, c.
    period_A : float
        Shortest lattice vector along the beam, angstrom.
    sites : tuple of Site
        The columns of one cell; the first is at the origin (0, 0).
    metric : ndarray, shape (3, 3)
        Rows are a, b, c in Cartesian axes, angstrom.
    """

    name: str
    zone_axis: tuple[int, int, int]
    u_A: float
    v_A: float
    angle_deg: float
    u_uvw: tuple[float, float, float]
    v_uvw: tuple[float, float, float]
    period_A: float
    sites: tuple[Site, ...]
    metric: np.ndarray

    @property
    def species(self) -> tuple[str, ...]:
        """The species of the sites, each once, in the order of the sites."""
        return tuple(dict.fromkeys(site.species for site in self.sites))

    def sites_of(self, species: str) -> tuple[Site, ...]:
        """Give the sites of one species.

        Parameters
        ----------
        species : str
            One of `species`.

        Returns
        -------
        tuple of Site
            At least one site.

        Raises
        ------
        ValueError
            No column carries this species.
        """
        _check_species("species", species, self.sites)
        return tuple(site for site in self.sites if site.species == species)

    def cell_matrix(self) -> np.ndarray:
        """Give the projected cell in Cartesian axes, u along +x and v in the upper half plane.

        Returns
        -------
        ndarray, shape (2, 2)
            Rows are u and v in angstrom, so `fractions @ cell_matrix()` are positions.
        """
        angle = math.radians(self.angle_deg)
        v_x = 0.0 if abs(self.angle_deg - 90.0) < 1e-9 else self.v_A * math.cos(angle)
        return np.array([[self.u_A, 0.0], [v_x, self.v_A * math.sin(angle)]])

    def direction(self, uvw: Sequence[float]) -> np.ndarray:
        """Project a crystal vector onto the image plane.

        Parameters
        ----------
        uvw : sequence of 3 floats
            The vector in units of a, b, c.

        Returns
        -------
        ndarray, shape (2,)
            Coefficients (fu, fv): the image vector is fu * u + fv * v. Zero along the beam.

        Raises
        ------
        ValueError
            `uvw` is not three finite numbers.
        """
        vector = np.asarray(uvw, float)
        if vector.shape != (3,) or not np.isfinite(vector).all():
            raise ValueError(f"uvw must be three finite numbers, not {uvw!r}")
        plane = np.array([self.u_uvw, self.v_uvw]) @ self.metric
        return clean(np.linalg.solve(plane @ plane.T, plane @ (vector @ self.metric)))

    def layer_step(self, hkl: Sequence[int]) -> tuple[int, int]:
        """Give how the layer number of the planes (hkl) grows with the column indices.

        The layer number of position (i, j) is i * lu + j * lv. Cells lie on whole numbers and all
        whole numbers occur; columns inside the cell may lie on fractions. It grows along the
        normal of (hkl).

        Parameters
        ----------
        hkl : sequence of 3 ints
            Miller indices of a plane that holds the beam direction (edge on in the image).

        Returns
        -------
        tuple of 2 ints
            (lu, lv), without common factor.

        Raises
        ------
        ValueError
            `hkl` is not three whole numbers, is zero, or is not edge on.
        """
        plane = _indices("hkl", hkl)
        across = sum(h * w for h, w in zip(plane, self.zone_axis, strict=True))
        if across != 0:
            raise ValueError(
                f"hkl {plane} is not edge on along the zone axis {list(self.zone_axis)}: "
                f"h*u + k*v + l*w is {across} and must be 0. Give a plane that holds the beam."
            )
        # u and v are rational lattice vectors plus a part along the beam, which hkl does not see.
        steps = [
            Fraction(float(np.dot(plane, axis))).limit_denominator(10_000)
            for axis in (self.u_uvw, self.v_uvw)
        ]
        scale = math.lcm(*(step.denominator for step in steps))
        whole = [int(step * scale) for step in steps]
        divisor = math.gcd(*whole)
        return whole[0] // divisor, whole[1] // divisor

    def layer_spacing_A(self, hkl: Sequence[int]) -> float:
        """Give the distance between layers whose numbers differ by one.

        Parameters
        ----------
        hkl : sequence of 3 ints
            As for `layer_step`.

        Returns
        -------
        float
            Spacing in angstrom.

        Raises
        ------
        ValueError
            As for `layer_step`.
        """
        gradient = np.linalg.solve(self.cell_matrix(), np.array(self.layer_step(hkl), float))
        return float(1.0 / np.linalg.norm(gradient))

    def symmetry_operations(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Give the operations that map the projected columns onto themselves.

        Two placements of the lattice on an image that differ by one of these cannot be told
        apart. Cells that are nearly symmetric (lengths within 1 %) count as symmetric, since an
        image is hardly calibrated better.

        Returns
        -------
        list of (ndarray of int, shape (2, 2); ndarray, shape (2,))
            (R, t): the column at fractions x has an equal one, with the same elements, at
            R @ x + t modulo 1. The identity is the first.
        """
        points = np.array([(site.u, site.v) for site in self.sites])
        kinds = kinds_of([site.elements for site in self.sites])
        cell = self.cell_matrix()
        tensor = cell @ cell.T
        tolerance = 0.02 * np.outer((self.u_A, self.v_A), (self.u_A, self.v_A))
        found = []
        # In a reduced cell no symmetry has an entry beyond 1.
        for entries in sorted(product((-1, 0, 1), repeat=4), key=lambda e: e != (1, 0, 0, 1)):
            matrix = np.array(entries).reshape(2, 2)
            if (np.abs(matrix.T @ tensor @ matrix - tensor) > tolerance).any():
                continue
            shifts = matching_shifts(points @ matrix.T, points, kinds, cell)
            found += [(matrix, clean(shift)) for shift in shifts]
        return found


def project(
    structure: str | os.PathLike[str], zone_axis: Sequence[int], *, displaced: str | None = None
) -> Projection:
    """Project a crystal along a zone axis.

    Parameters
    ----------
    structure : str or path
        A preset (see `PRESETS`) or the path of a CIF file. Presets have all atoms on their ideal
        places, also in polar phases.
    zone_axis : sequence of 3 ints
        Beam direction [uvw] in the conventional cell of the structure.
    displaced : str, optional
        Species whose column is put at the origin of the cell. Default: the first atom listed in
        the structure (the A site in the presets).

    Returns
    -------
    Projection
        Cell, columns and their expected contrast. The contrast of a column is the sum over its
        atoms of Z to a power: 0.9 for iDPC, which images the projected potential of thin
        specimens (Lazic, Bosch and Lazar, Ultramicroscopy 160 (2016) 265); 1.7 for HAADF, between
        1.6 and 2 (Pennycook and Jesson, Ultramicroscopy 37 (1991) 14); 0.65 for the depth of ABF
        minima (Findlay et al., Ultramicroscopy 110 (2010) 903). A first guess, good enough to
        tell strong from weak columns: thickness changes the order.

    Raises
    ------
    ValueError
        The structure or the zone axis is unknown or unusable, no column carries `displaced`, or
        the columns along this axis are too close to be told apart.

    Examples
    --------
    >>> view = project("KTaO3", (1, -1, 0), displaced="K")
    >>> [(site.species, site.u, site.v) for site in view.sites]
    [('K', 0.0, 0.0), ('Ta', 0.0, 0.5), ('O', 0.5, 0.5)]
    >>> view.layer_step((1, 1, 1)), round(view.layer_spacing_A((1, 1, 1)), 4)
    ((1, 1), 2.3028)
    """
    zone = _indices("zone_axis", zone_axis)
    divisor = math.gcd(*zone)
    zone = (zone[0] // divisor, zone[1] // divisor, zone[2] // divisor)
    crystal = load_structure(structure)
    axes, period, cells = plane_lattice(crystal, zone)
    points = fractions_in_plane(crystal.positions, axes, crystal.metric)
    points, columns = merge_columns(points, crystal, cells, axes @ crystal.metric)
    axes, points, columns = smallest_cell(axes, points, columns, crystal.metric)
    sites = _sites(points, columns, set(crystal.elements), displaced)
    u, v = axes @ crystal.metric
    u_length, v_length = float(np.linalg.norm(u)), float(np.linalg.norm(v))
    angle = math.degrees(math.acos(float(clean(u @ v / (u_length * v_length)))))
    crystal.metric.setflags(write=False)
    return Projection(
        name=crystal.name,
        zone_axis=zone,
        u_A=u_length,
        v_A=v_length,
        angle_deg=angle,
        u_uvw=tuple(axes[0].tolist()),
        v_uvw=tuple(axes[1].tolist()),
        period_A=period,
        sites=sites,
        metric=crystal.metric,
    )


def _indices(name: str, value: Sequence[int]) -> tuple[int, int, int]:
    """Check three integers that are not all zero."""
    try:
        numbers = np.asarray(value, float)
    except (TypeError, ValueError):
        numbers = np.array([])
    if (
        numbers.shape != (3,)
        or not np.isfinite(numbers).all()
        or (numbers != np.rint(numbers)).any()
        or not numbers.any()
    ):
        raise ValueError(
            f"{name} must be three whole numbers, not all 0, e.g. [1, -1, 0]: {value!r}"
        )
    h, k, l_ = (int(number) for number in numbers)
    return h, k, l_


def _check_species(name: str, species: str, sites: Sequence[Site]) -> None:
    """Refuse a species that no column carries, and say which do."""
    known = list(dict.fromkeys(site.species for site in sites))
    if species in known:
        return
    hosts = sorted({site.species for site in sites if species in site.elements})
    shared = f" {species} is only in columns named after {', '.join(hosts)}." if hosts else ""
    raise ValueError(f"{name} {species!r} names no column here.{shared} Known: {', '.join(known)}.")


def _label(column: dict[str, float], anions: set[str]) -> str:
    """Name a column after its most frequent cation; the heavier one on ties."""
    candidates = [element for element in column if element not in anions] or list(column)
    return max(candidates, key=lambda e: (round(column[e], 3), ATOMIC_NUMBER[e]))


def _sites(
    points: np.ndarray,
    columns: list[dict[str, float]],
    elements: set[str],
    displaced: str | None,
) -> tuple[Site, ...]:
    """Name the columns, put the origin, and estimate the contrast."""
    anions = set(_HARD_ANIONS)
    anions.update([e for e in _BY_ELECTRONEGATIVITY if e in elements][:1])
    strength = {
        mode: [sum(n * ATOMIC_NUMBER[e] ** power for e, n in c.items()) for c in columns]
        for mode, power in _CONTRAST_EXPONENT.items()
    }
    named = []
    for k, column in enumerate(columns):
        contrast = {mode: values[k] / max(values) for mode, values in strength.items()}
        counts = {e: round(n, 6) for e, n in sorted(column.items(), key=lambda item: -item[1])}
        u, v = points[k].tolist()
        named.append(Site(k, _label(column, anions), counts, u, v, contrast))
    origin = 0
    if displaced is not None:
        _check_species("displaced", displaced, named)
        origin = next(site.index for site in named if site.species == displaced)
    order = [origin, *(k for k in range(len(named)) if k != origin)]
    fractions = np.mod(np.round(points - points[origin], 6), 1.0) + 0.0
    return tuple(
        replace(named[k], index=index, u=float(fractions[k][0]), v=float(fractions[k][1]))
        for index, k in enumerate(order)
    )
