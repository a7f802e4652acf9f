"""The geometry of a projection: lattices, translations and columns, as plain arrays.

Everything here is in fractions of a cell; the cell comes along as rows in angstrom. Used by
:mod:`stemdisp.crystal`, which gives the results their names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage

from stemdisp._presets import ATOMIC_NUMBER, Structure

# Atoms whose projections are closer than this make one column: microscopes resolve about 0.5 A.
_MERGE_A = 0.3
# Two positions closer than this are the same: a CIF that gives 1/3 with three digits is still seen.
_SAME_A = 0.05
# Lengths that agree to this fraction count as equal when the axes are chosen.
_EQUAL = 1e-3


def clean(values: np.ndarray) -> np.ndarray:
    """Take rounding noise off, so that equal inputs give equal signs and equal zeros."""
    return np.round(values, 12) + 0.0


def kinds_of(columns: Sequence[dict[str, float]]) -> np.ndarray:
    """Give columns (or atoms) a number each; equal contents get equal numbers."""
    keys = [tuple(sorted((e, round(n, 2)) for e, n in column.items())) for column in columns]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys])


def _maps_onto(
    images: np.ndarray, points: np.ndarray, kinds: np.ndarray, basis: np.ndarray
) -> bool:
    """Tell whether every image lies on a point of its own kind, modulo whole cells."""
    # A few points refute nearly every candidate; all are needed only to confirm one.
    for few in (slice(0, 4), slice(None)):
        gaps = images[few, None] - points[None]
        gaps -= np.rint(gaps)
        near = np.linalg.norm(gaps @ basis, axis=-1) < _SAME_A
        if not (near & (kinds[few, None] == kinds)).any(axis=1).all():
            return False
    return True


def matching_shifts(
    images: np.ndarray, points: np.ndarray, kinds: np.ndarray, basis: np.ndarray
) -> list[np.ndarray]:
    """Find all translations, as fractions in [0, 1), that bring the images onto the points."""
    rarest = np.flatnonzero(kinds == np.argmin(np.bincount(kinds)))
    found = []
    for anchor in rarest:
        shift = points[anchor] - images[rarest[0]]
        if _maps_onto(images + shift, points, kinds, basis):
            found.append(np.mod(clean(shift), 1.0))
    return found


def _primitive_rows(points: np.ndarray, kinds: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Find the lattice, in cell fractions, of all translations that keep the structure."""
    shifts = matching_shifts(points, points, kinds, basis)
    order, dimension = len(shifts), points.shape[1]
    # The translations form a group, so `order` times any of them is a whole cell vector.
    rows = np.rint(np.vstack([np.eye(dimension), *shifts]) * order).astype(int)
    for column in range(dimension):
        while np.count_nonzero(rows[column:, column]) > 1:
            below = column + np.flatnonzero(rows[column:, column])
            pivot = below[np.argmin(np.abs(rows[below, column]))]
            rows[[column, pivot]] = rows[[pivot, column]]
            factors = rows[column + 1 :, column] // rows[column, column]
            rows[column + 1 :] -= factors[:, None] * rows[column]
        if rows[column, column] == 0:
            pivot = column + np.flatnonzero(rows[column:, column])[0]
            rows[[column, pivot]] = rows[[pivot, column]]
    lattice = rows[:dimension] / order
    closed = abs(1.0 / abs(np.linalg.det(lattice)) - order) < 0.5
    return lattice if closed else np.eye(dimension)


def _bezout(a: int, b: int) -> tuple[int, int]:
    """Give x, y with a * x + b * y = gcd(a, b) up to its sign."""
    x, y, x_next, y_next = 1, 0, 0, 1
    while b:
        quotient = a // b
        a, b = b, a - quotient * b
        x, y, x_next, y_next = x_next, y_next, x - quotient * x_next, y - quotient * y_next
    return (x, y) if a >= 0 else (-x, -y)


def plane_lattice(crystal: Structure, zone: tuple[int, int, int]) -> tuple[np.ndarray, float, int]:
    """Give u and v (2, 3) in crystal units, the beam period, and primitive cells per cell."""
    kinds = kinds_of([{e: n} for e, n in zip(crystal.elements, crystal.occupancy, strict=True)])
    primitive = _primitive_rows(crystal.positions, kinds, crystal.metric)
    beam = np.rint(np.linalg.solve(primitive.T, np.array(zone, float))).astype(int)
    a, b, c = (int(number) for number in beam // np.gcd.reduce(beam))
    g = math.gcd(a, b)
    # Two integer vectors that make, with the beam, a primitive cell (determinant 1).
    if g == 0:
        others = np.array([[1, 0, 0], [0, 1, 0]])
    else:
        a_part, b_part = a // g, b // g
        x, y = _bezout(a_part, b_part)
        r, q = _bezout(g, c)
        others = np.array([[-y, x, 0], [-q * a_part, -q * b_part, r]])
    period = float(np.linalg.norm(np.array([a, b, c]) @ primitive @ crystal.metric))
    beam_cart = np.array(zone, float) @ crystal.metric
    rows = others @ primitive
    along = (rows @ crystal.metric) @ beam_cart / (beam_cart @ beam_cart)
    rows = rows - along[:, None] * np.array(zone, float)
    cells = round(1.0 / abs(np.linalg.det(primitive)))
    return _choose_axes(rows, crystal.metric), period, cells


def _choose_axes(rows: np.ndarray, metric: np.ndarray) -> np.ndarray:
    """Choose u and v among the lattice vectors: shortest, near 90 degrees, fixed signs."""
    p, q = rows
    while True:
        if np.linalg.norm(p @ metric) > np.linalg.norm(q @ metric):
            p, q = q, p
        p_cart = p @ metric
        overlap = (q @ metric) @ p_cart / (p_cart @ p_cart)
        # Exactly 1/2 (a hexagonal cell) is reduced; without the margin it would flip for ever.
        if abs(overlap) <= 0.5 + 1e-6:
            break
        q = q - np.rint(overlap) * p
    # Of a vector and its opposite take the one whose first nonzero component is positive.
    vectors = [clean(i * p + j * q) for i, j in ((1, 0), (0, 1), (1, 1), (1, -1))]
    vectors = [w if w[np.flatnonzero(w)[0]] > 0 else 0.0 - w for w in vectors]
    length = {k: float(np.linalg.norm(w @ metric)) for k, w in enumerate(vectors)}
    pairs = [(i, j) for i, j in product(length, length) if i != j and {i, j} != {2, 3}]
    shortest = min(length.values())
    pairs = [(i, j) for i, j in pairs if length[i] <= shortest * (1 + _EQUAL)]
    second = min(length[j] for _, j in pairs)
    pairs = [(i, j) for i, j in pairs if length[j] <= second * (1 + _EQUAL)]

    def preference(pair: tuple[int, int]) -> tuple[float, ...]:
        first, last = vectors[pair[0]], vectors[pair[1]]
        cosine = (first @ metric) @ (last @ metric) / (length[pair[0]] * length[pair[1]])
        skew = float(np.round(abs(cosine), 3))
        # Crystallographers draw 120 degrees rather than 60, and [001] upwards.
        return (skew, float(cosine > _EQUAL), -round(abs(last[2]), 6), *np.round(-first, 6))

    chosen = min(pairs, key=preference)
    if length[chosen[0]] < 2 * _MERGE_A:
        raise ValueError(
            f"zone_axis gives columns that repeat every {length[chosen[0]]:.2f} A, too close to be "
            "seen apart. Choose an axis with smaller indices."
        )
    return np.array([vectors[k] for k in chosen])


def fractions_in_plane(vectors: np.ndarray, axes: np.ndarray, metric: np.ndarray) -> np.ndarray:
    """Give crystal vectors (n, 3) as fractions (n, 2) of u and v in [0, 1)."""
    plane = axes @ metric
    fractions = np.linalg.solve(plane @ plane.T, plane @ (vectors @ metric).T).T
    return np.mod(clean(fractions), 1.0)


def merge_columns(
    points: np.ndarray, crystal: Structure, cells: int, plane: np.ndarray
) -> tuple[np.ndarray, list[dict[str, float]]]:
    """Join atoms whose projections nearly coincide into columns, counted per beam period."""
    gaps = points[:, None] - points[None]
    gaps -= np.rint(gaps)
    label = np.zeros(len(points), int)
    if len(points) > 1:
        distance = np.linalg.norm(gaps @ plane, axis=-1)[np.triu_indices(len(points), 1)]
        # Complete linkage: no chain of atoms can make a column wider than the limit.
        label = fcluster(linkage(distance, "complete"), _MERGE_A, "distance")
    places, columns = [], []
    for number in dict.fromkeys(label.tolist()):
        members = np.flatnonzero(label == number)
        column: dict[str, float] = {}
        for k in members:
            element = crystal.elements[k]
            column[element] = column.get(element, 0.0) + float(crystal.occupancy[k]) / cells
        weight = [ATOMIC_NUMBER[crystal.elements[k]] * crystal.occupancy[k] for k in members]
        offsets = gaps[members, members[0]]
        places.append(points[members[0]] + np.average(offsets, axis=0, weights=weight))
        columns.append(column)
    return np.array(places), columns


def smallest_cell(
    axes: np.ndarray, points: np.ndarray, columns: list[dict[str, float]], metric: np.ndarray
) -> tuple[np.ndarray, np.ndarray, list[dict[str, float]]]:
    """Use translations that exist only in projection (glide planes across the beam)."""
    rows = _primitive_rows(points, kinds_of(columns), axes @ metric)
    smaller = _choose_axes(rows @ axes, metric)
    folded = fractions_in_plane(points @ axes, smaller, metric)
    kept: list[int] = []
    for k, point in enumerate(folded):
        gaps = folded[kept] - point
        gaps -= np.rint(gaps)
        if (np.linalg.norm(gaps @ smaller @ metric, axis=-1) > _MERGE_A / 2).all():
            kept.append(k)
    if len(kept) * round(1.0 / abs(np.linalg.det(rows))) != len(points):
        # Columns at the limit of what is merged do not pair up: atoms would be lost.
        return axes, points, columns
    return smaller, folded[kept], [columns[k] for k in kept]
