"""Which atom of a crystal lies in which column of its projection."""

from __future__ import annotations

import numpy as np

from stemdisp._presets import Structure
from stemdisp.crystal import Projection

SAME = 1e-3  # fractions of a cell that count as one place


def plane_indices(fraction: np.ndarray, projection: Projection) -> np.ndarray:
    """Column indices (n, 2) of fractional crystal coordinates."""
    plane = np.array([projection.u_uvw, projection.v_uvw]) @ projection.metric
    return np.linalg.solve(plane @ plane.T, plane @ (fraction @ projection.metric).T).T


def cell_origin(crystal: Structure, projection: Projection) -> np.ndarray:
    """Column indices of the atom from which the sites of the projection are counted."""
    ij = plane_indices(crystal.positions, projection)
    elements = np.array(crystal.elements)
    for start, element in zip(ij, elements, strict=True):
        if element not in projection.sites[0].elements:
            continue
        if (site_of(ij - start, elements, projection, strict=False) >= 0).all():
            return start
    raise ValueError(f"{projection.name}: no origin of the projected cell was found")


def site_of(
    ij: np.ndarray, elements: np.ndarray, projection: Projection, *, strict: bool = True
) -> np.ndarray:
    """Give the number of the site at which each atom lies, -1 for none."""
    out = np.full(len(ij), -1)
    for k, site in enumerate(projection.sites):
        off = ij - np.array([site.u, site.v])
        here = np.all(np.abs(off - np.rint(off)) < SAME, axis=1)
        out[here & np.isin(elements, list(site.elements))] = k
    if strict and (out < 0).any():
        raise ValueError(f"{projection.name}: an atom lies on no site of the projected cell")
    return out
