"""Displacements -> an estimate of the polarisation, with Born effective charges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import pandas as pd

from stemdisp._atoms import cell_origin, plane_indices, site_of
from stemdisp._presets import load_structure
from stemdisp.crystal import Projection, Site
from stemdisp.tables import check_columns

# 1 e / A^2 in uC / cm^2 (CODATA 2018: e = 1.602176634e-19 C)
_E_PER_A2 = 1602.176634
CHARGE_ERR = 0.15  # of a charge: spread between calculations and between related crystals


@dataclass(frozen=True)
class Charges:
    """Born effective charges of a crystal, in units of e, and where they come from.

    Attributes
    ----------
    values : mapping of str to float
        Those of oxygen for displacements across its bonds to the B cations.
    source : str
    along : mapping of str to float
        Those of anions for displacements along these bonds; without, one charge serves all.
    """

    values: Mapping[str, float]
    source: str
    along: Mapping[str, float] = field(default_factory=dict)


_ZHONG = "Zhong, King-Smith, Vanderbilt, Phys. Rev. Lett. 72, 3618 (1994)"
CHARGES: dict[str, Charges] = {
    # for want of KTaO3 in that work: the charges of its sister crystal KNbO3
    "KTaO3": Charges({"K": 0.82, "Ta": 9.13, "O": -1.68}, f"{_ZHONG}, for KNbO3", {"O": -6.58}),
    "SrTiO3": Charges({"Sr": 2.54, "Ti": 7.12, "O": -2.00}, _ZHONG, {"O": -5.66}),
    "BaTiO3": Charges({"Ba": 2.75, "Ti": 7.16, "O": -2.11}, _ZHONG, {"O": -5.69}),
    "PbTiO3": Charges({"Pb": 3.92, "Ti": 7.06, "O": -2.56}, _ZHONG, {"O": -5.83}),
}


def charges_of(structure: str, given: Mapping[str, float] | str = "auto") -> Charges | None:
    """Charges to use: those given, else the preset's; None where there are none.

    Parameters
    ----------
    structure : str
        Name of the crystal.
    given : mapping of str to float, or "auto"
        ``[crystal] born_charges``.

    Returns
    -------
    Charges or None
    """
    if not isinstance(given, str):
        return Charges(dict(given), "given in the configuration")
    return CHARGES.get(structure)


def charge_density(
    projection: Projection, species: str, charges: Charges, *, whole: bool
) -> float | None:
    """Polarisation per angstrom of displacement, if all columns of a species move.

    Parameters
    ----------
    projection : Projection
    species : str
        The displaced species.
    charges : Charges
    whole : bool
        Whether all atoms of its columns move, or the cation alone.

    Returns
    -------
    float or None
        Sum of charge times atoms per cell over the cell's volume, in uC/cm^2 per angstrom; None
        if a charge is missing.
    """
    cell = projection.cell_matrix()
    volume = abs(float(np.linalg.det(cell))) * projection.period_A
    total = 0.0
    for site in projection.sites_of(species):
        for element, number in site.elements.items():
            if element != species and not whole:
                continue
            if element not in charges.values:
                return None
            total += number * _charge_along_u(projection, site, element, charges)
    return _E_PER_A2 * total / volume


def _charge_along_u(projection: Projection, site: Site, element: str, charges: Charges) -> float:
    """Charge of the atoms of an element in a column for displacements along u.

    ``Z = Z_across + (Z_along - Z_across) cos^2`` of the angle between u and the bond to the
    nearest B cation, the mean over the atoms.
    """
    across = charges.values[element]
    if element not in charges.along:
        return across
    crystal = load_structure(projection.name)
    elements = np.array(crystal.elements)
    ij = plane_indices(crystal.positions, projection) - cell_origin(crystal, projection)
    own = (site_of(ij, elements, projection) == site.index) & (elements == element)
    cation = max(charges.values, key=charges.values.__getitem__)
    shifts = np.array(list(product((-1, 0, 1), repeat=3)))
    others = (crystal.positions[elements == cation][:, None] + shifts).reshape(-1, 3)
    bond = (others[None] - crystal.positions[own][:, None]) @ crystal.metric
    length = np.linalg.norm(bond, axis=2)
    nearest = np.argmin(length, axis=1)
    rows = np.arange(len(nearest))
    u = np.array(projection.u_uvw) @ projection.metric
    cosine = bond[rows, nearest] @ u / (length[rows, nearest] * np.linalg.norm(u))
    return float(across + (charges.along[element] - across) * np.mean(cosine**2))


def polarisation(
    planes: pd.DataFrame, projection: Projection, species: str, charges: Charges | None
) -> pd.DataFrame:
    """Estimate the polarisation along u plane by plane, for both readings of the displacement.

    ``P = (e / V) sum Z* d`` over the atoms of a cell (Resta and Vanderbilt 2007): the atoms of the
    displaced columns alone, in a cage at rest.

    Parameters
    ----------
    planes : DataFrame
        ``delta_cation_A, delta_column_A`` and their errors.
    projection : Projection
    species : str
        The displaced species.
    charges : Charges or None

    Returns
    -------
    DataFrame
        With ``P_cation_uC_cm2, P_column_uC_cm2`` and their errors (those of the displacements and
        15 % of the charges); NaN without charges.
    """
    check_columns(planes, ("N", "delta_cation_A", "delta_column_A"), what="planes")
    out = planes.copy()
    for reading, whole in (("cation", False), ("column", True)):
        factor = None
        if charges is not None:
            factor = charge_density(projection, species, charges, whole=whole)
        factor = np.nan if factor is None else factor
        moved = planes[f"delta_{reading}_A"].to_numpy(dtype=float)
        error = planes[f"delta_{reading}_err_A"].to_numpy(dtype=float)
        name = f"P_{reading}_uC_cm2"
        out[name] = factor * moved
        out[f"P_{reading}_err_uC_cm2"] = np.hypot(
            factor * error, _charge_error(projection, species, charges, whole=whole) * moved
        )
    return out


def _charge_error(
    projection: Projection, species: str, charges: Charges | None, *, whole: bool
) -> float:
    """Error of the charge density when each charge errs by itself."""
    if charges is None:
        return np.nan
    squares = 0.0
    for element in charges.values:
        changed = Charges(
            {e: z * (1.0 + CHARGE_ERR * (e == element)) for e, z in charges.values.items()},
            "",
            {e: z * (1.0 + CHARGE_ERR * (e == element)) for e, z in charges.along.items()},
        )
        value, other = (
            charge_density(projection, species, c, whole=whole) for c in (charges, changed)
        )
        if value is None or other is None:
            return np.nan
        squares += (other - value) ** 2
    return float(np.sqrt(squares))
