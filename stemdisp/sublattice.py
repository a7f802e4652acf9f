"""Table -> displacement of each column from its cage, relative to the bulk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.spatial import cKDTree

from stemdisp.crystal import Projection
from stemdisp.fit import Fit
from stemdisp.lattice import Lattice
from stemdisp.repeats import spread_ratio
from stemdisp.tables import Quality, check_columns, usable

# Neighbours belong to one shell of the cage when their distances agree within this share.
SHELL = 1.06
MIN_BULK_COLUMNS = 6


@dataclass(frozen=True, eq=False)
class Displacements:
    """How the displacements were made, beyond the table.

    Attributes
    ----------
    along_u, along_v : csr_array, shape (n, 3 n)
        Linear combinations of the fit's parameters (rows of zeros where undefined) that give
        delta and delta_perp before the bulk offset.
    covariance : csr_array, shape (3 n, 3 n)
        Covariance of those parameters.
    offset : dict
        ``delta, delta_err, delta_perp, delta_perp_err, n_columns``: what the bulk shows, in
        angstrom; zeros (NaN errors) if there is no bulk to refer to.
    factors : (float, float)
        By how much the halves of a stack differ in delta and delta_perp, over what `covariance`
        explains; errors are multiplied by it. 1 for a single image.
    bulk : str
        "planes" when planes at or beyond `bulk_from` were used, "deepest" when the three deepest
        had to serve, "none" without reference.
    """

    along_u: sparse.csr_array
    along_v: sparse.csr_array
    covariance: sparse.csr_array
    offset: dict[str, float]
    bulk: str
    factors: tuple[float, float] = (1.0, 1.0)

    def __deepcopy__(self, memo: dict[int, Any]) -> Displacements:
        """Return itself: pandas copies ``attrs`` on every operation, and this never changes."""
        return self


def measure_displacements(
    columns: pd.DataFrame,
    lattice: Lattice,
    *,
    projection: Projection,
    displaced: str = "K",
    cage: str = "Ta/O",
    bulk_from: int = 10,
    halves: Sequence[pd.DataFrame] = (),
    factors: tuple[float, float] = (1.0, 1.0),
) -> pd.DataFrame:
    """Measure how far columns sit from the centre of their cage.

    The centre is the mean of the midpoints of complete inversion pairs (a neighbour and its
    opposite), each weighted by its inverse variance; a lone neighbour would pull it aside. What
    the bulk shows, zero by symmetry, is the offset made by specimen tilt, aberrations and
    detector; it is measured for every shell of the cage by itself, because tilt moves Ta and O
    columns differently, and subtracted.

    Parameters
    ----------
    columns : DataFrame
        After `refine_columns`: ``species, i, j, N, x_A, y_A, x_err_A, y_err_A, quality``; its
        ``attrs["fit"]``, if still there, lets the covariance of neighbours reach the errors.
    lattice : Lattice
        Gives the local directions of u and v.
    projection : Projection
        The crystal.
    displaced : str
        Species whose displacement is measured.
    cage : str
        Species of the cage, joined by "/".
    bulk_from : int
        First plane taken as bulk.
    halves : sequence of DataFrame
        The same columns on the two halves of a stack (`repeats.fit_halves`); their disagreement
        in delta, over what their covariances explain, multiplies the errors.
    factors : (float, float)
        What multiplies the errors of delta and delta_perp where there are no `halves`: that of
        the whole stack, for a part of it.

    Returns
    -------
    DataFrame
        With ``delta_A`` along local u, ``delta_perp_A`` along local v, their errors, and
        ``n_pairs``; NaN for other species. ``attrs["displacements"]`` holds `Displacements`.

    Raises
    ------
    ValueError
        Missing columns, unknown species, a cage without inversion pairs.
    """
    check_columns(columns, ("species", "i", "j", "x_A", "y_A", "x_err_A", "y_err_A", "quality"))
    names = tuple(cage.split("/"))
    shells = dict(zip(names, cage_shells(projection, displaced, names), strict=True))
    parts = [_measure(part, lattice, shells, displaced, bulk_from) for part in halves]
    if len(parts) == 2:
        factors = (_disagreement(parts, "delta_A"), _disagreement(parts, "delta_perp_A"))
    return _measure(columns, lattice, shells, displaced, bulk_from, factors)


def _disagreement(parts: list[pd.DataFrame], value: str) -> float:
    """Spread between the halves over what their errors claim; 1 where it cannot be told."""
    pairs = []
    for part in parts:
        extra = part.attrs["displacements"]
        common = np.nan_to_num(extra.offset[value.replace("_A", "_err")])
        error = part[value.replace("_A", "_err_A")].to_numpy(dtype=float)
        own = np.sqrt(np.maximum(error**2 - common**2, 0.0))
        pairs.append(np.column_stack([part[value].to_numpy(dtype=float), own]))
    ratio = spread_ratio(*pairs, where=parts[0][["x_A", "y_A"]].to_numpy(dtype=float))
    return ratio if np.isfinite(ratio) else 1.0


def _measure(
    columns: pd.DataFrame,
    lattice: Lattice,
    shells: dict[str, list[np.ndarray]],
    displaced: str,
    bulk_from: int,
    factors: tuple[float, ...] = (1.0, 1.0),
) -> pd.DataFrame:
    """Add the displacements to a table; errors are multiplied by `factors`."""
    seen = _seen(columns)
    rows = np.flatnonzero((columns["species"] == displaced).to_numpy() & seen)
    partners = _find_partners(columns, rows, shells, seen)
    covariance = _covariance(columns)
    unit_u, unit_v = _directions(columns, lattice)
    mid, weight = _midpoints(columns, partners, covariance)
    here = columns[["x_A", "y_A"]].to_numpy()[rows]
    off = here[:, None, :] - mid  # (rows, pairs, 2)
    reference, bulk = _bulk_rows(columns, rows, bulk_from)
    shell_of_pair = np.concatenate([np.full(len(p), k) for k, p in enumerate(shells.values())])
    offsets = _shell_offsets(off, weight, reference, shell_of_pair, unit_u[rows], unit_v[rows])
    share = weight / np.maximum(weight.sum(axis=1, keepdims=True), 1e-300)
    functional = _functionals(len(columns), rows, partners, share)
    values = {}
    for name, unit in (("delta", unit_u), ("delta_perp", unit_v)):
        along = np.einsum("rpk,rk->rp", np.nan_to_num(off), unit[rows])
        values[name] = np.sum(share * (along - offsets[name][shell_of_pair]), axis=1)
    has = weight.sum(axis=1) > 0
    combos = [_project(functional, unit) for unit in (unit_u, unit_v)]
    noise = [
        factor * _combined_error(combo, covariance)
        for factor, combo in zip(factors, combos, strict=True)
    ]
    per_pair = {name: value[shell_of_pair] for name, value in offsets.items()}
    mixed = _mean_of(reference & has, rows, len(columns))
    offset: dict[str, float] = {"n_columns": int(np.count_nonzero(reference & has))}
    for (name, value), combo, factor in zip(values.items(), combos, factors, strict=True):
        offset |= _offset_summary(
            name, share[reference & has] @ per_pair[name], value[reference & has],
            factor * _combined_error(mixed @ combo, covariance),
        )  # fmt: skip
    result = columns.copy()
    for (name, value), own in zip(values.items(), noise, strict=True):
        error = np.hypot(own[rows], np.nan_to_num(offset[f"{name}_err"]))
        full, full_error = np.full(len(columns), np.nan), np.full(len(columns), np.nan)
        full[rows[has]], full_error[rows[has]] = value[has], error[has]
        result[f"{name}_A"], result[f"{name}_err_A"] = full, full_error
    pairs = np.full(len(columns), np.nan)
    pairs[rows] = np.count_nonzero(weight > 0, axis=1)
    result["n_pairs"] = pd.array(pairs, dtype="Int64")
    quality = columns["quality"].to_numpy(dtype=np.int64).copy()
    quality[rows[~has]] |= int(Quality.NO_CAGE)
    result["quality"] = quality
    result.attrs["displacements"] = Displacements(
        combos[0], combos[1], covariance, offset, bulk, (factors[0], factors[1])
    )
    return result


def _combined_error(combo: sparse.csr_array, covariance: sparse.csr_array) -> np.ndarray:
    """Give standard errors of linear combinations (rows) of the fit's parameters."""
    variance = np.asarray((combo @ covariance).multiply(combo).sum(axis=1)).ravel()
    return np.sqrt(np.maximum(variance, 0.0))


def _mean_of(chosen: np.ndarray, rows: np.ndarray, n: int) -> sparse.csr_array:
    """Row vector (1, n) that takes the mean of the chosen displaced columns."""
    at = rows[chosen]
    share = np.full(len(at), 1.0 / max(len(at), 1))
    return sparse.csr_array((share, (np.zeros(len(at), dtype=int), at)), shape=(1, n))


def cage_shells(
    projection: Projection, displaced: str, cage: tuple[str, ...]
) -> list[list[np.ndarray]]:
    """Inversion pairs of the cage around a displaced site.

    Parameters
    ----------
    projection : Projection
    displaced : str
    cage : tuple of str
        One shell is made for each species: its nearest sites that have an opposite.

    Returns
    -------
    list of list of ndarray, shape (2,)
        For each shell, one member of every pair as an offset (di, dj); the other is its negative.
    """
    unknown = [s for s in (displaced, *cage) if s not in projection.species]
    if unknown:
        raise ValueError(
            f"no columns of {', '.join(unknown)} in {projection.name} along "
            f"{list(projection.zone_axis)}; it has {', '.join(projection.species)}"
        )
    centre = projection.sites_of(displaced)[0]
    cell = projection.cell_matrix()
    shells = []
    for species in cage:
        offsets = np.array(
            [
                (s.u - centre.u + m, s.v - centre.v + n)
                for s in projection.sites_of(species)
                for m in range(-2, 3)
                for n in range(-2, 3)
            ]
        )
        length = np.hypot(*(offsets @ cell).T)
        offsets, length = offsets[length > 0.3], length[length > 0.3]
        paired = np.array([np.any(np.all(np.abs(offsets + o) < 1e-3, axis=1)) for o in offsets])
        offsets, length = offsets[paired], length[paired]
        if len(offsets) == 0:
            raise ValueError(
                f"cage species {species!r} has no inversion pairs about {displaced} in "
                f"{projection.name} along {list(projection.zone_axis)}; choose another cage"
            )
        near = offsets[length < SHELL * length.min()]
        shells.append(
            [o for o in near if (o[0], o[1]) > (1e-6, 0) or (abs(o[0]) < 1e-6 and o[1] > 0)]
        )
    return shells


def _seen(columns: pd.DataFrame) -> np.ndarray:
    """Columns whose position is a measurement."""
    detected = columns["quality"].to_numpy(dtype=np.int64) & int(Quality.NOT_DETECTED) == 0
    return usable(columns) & detected & np.isfinite(columns["x_A"].to_numpy())


def _find_partners(
    columns: pd.DataFrame, rows: np.ndarray, shells: dict[str, list[np.ndarray]], seen: np.ndarray
) -> np.ndarray:
    """Row numbers (n_rows, n_pairs, 2) of both members of every pair; -1 if one is unusable.

    Members are of the shell's species: a user may have taken a column for one of another.
    """
    ij = columns[["i", "j"]].to_numpy(dtype=float)
    pairs = [(species, offset) for species, shell in shells.items() for offset in shell]
    out = np.full((len(rows), len(pairs), 2), -1)
    pools = {s: np.flatnonzero(seen & (columns["species"] == s).to_numpy()) for s in shells}
    trees = {s: cKDTree(ij[pool]) for s, pool in pools.items() if len(pool)}
    for p, (species, offset) in enumerate(pairs):
        if species not in trees or len(rows) == 0:
            continue
        for k, sign in enumerate((1, -1)):
            distance, index = trees[species].query(
                ij[rows] + sign * offset, distance_upper_bound=0.02
            )
            found = np.isfinite(distance)
            out[found, p, k] = pools[species][index[found]]
    out[(out < 0).any(axis=2)] = -1
    return out


def _covariance(columns: pd.DataFrame) -> sparse.csr_array:
    """Give the joint fit's covariance, or independent errors where the table has lost it."""
    fit = columns.attrs.get("fit")
    n = len(columns)
    if isinstance(fit, Fit) and fit.covariance.shape[0] >= 3 * n:
        return fit.covariance[: 3 * n, : 3 * n].tocsr()
    error = np.zeros((n, 3))
    error[:, 1] = np.nan_to_num(columns["x_err_A"].to_numpy())
    error[:, 2] = np.nan_to_num(columns["y_err_A"].to_numpy())
    return sparse.diags_array(error.ravel() ** 2).tocsr()


def _directions(columns: pd.DataFrame, lattice: Lattice) -> tuple[np.ndarray, np.ndarray]:
    """Give unit vectors of local u and v at every column, in calibrated axes; (n, 2) each."""
    xy_px = lattice.position(columns[["i", "j"]].to_numpy(dtype=float))
    cell = lattice.local_cell(xy_px)
    scale = np.array([columns[f"{a}_A"].std() / columns[f"{a}_px"].std() for a in "xy"])
    cell = cell * scale
    unit = cell / np.linalg.norm(cell, axis=2, keepdims=True)
    return unit[:, 0], unit[:, 1]


def _midpoints(
    columns: pd.DataFrame, partners: np.ndarray, covariance: sparse.csr_array
) -> tuple[np.ndarray, np.ndarray]:
    """Midpoint (rows, pairs, 2) and weight (rows, pairs) of every pair; weight 0 if incomplete."""
    xy = columns[["x_A", "y_A"]].to_numpy()
    variance = covariance.diagonal().reshape(-1, 3)[:, 1:].sum(axis=1)
    whole = partners[..., 0] >= 0
    first, second = np.maximum(partners[..., 0], 0), np.maximum(partners[..., 1], 0)
    mid = np.where(whole[..., None], 0.5 * (xy[first] + xy[second]), 0.0)
    spread = 0.25 * (variance[first] + variance[second])
    positive = spread[whole & (spread > 0)]
    typical = np.median(positive) if positive.size else 1.0
    # Columns have static disorder too, so no pair may outweigh another by orders of magnitude.
    weight = np.where(whole, 1.0 / np.maximum(spread, 0.1 * typical), 0.0)
    return mid, weight


def _bulk_rows(columns: pd.DataFrame, rows: np.ndarray, bulk_from: int) -> tuple[np.ndarray, str]:
    """Which displaced columns serve as the reference, and how they were chosen."""
    if "N" not in columns or columns["N"].isna().all():
        return np.zeros(len(rows), dtype=bool), "none"
    plane = columns["N"].to_numpy(dtype=float, na_value=np.nan)[rows]
    bulk = plane >= bulk_from
    if np.count_nonzero(bulk) >= MIN_BULK_COLUMNS:
        return bulk, "planes"
    if len(rows) == 0 or np.nanmax(plane) < 6:
        return np.zeros(len(rows), dtype=bool), "none"
    return plane >= np.nanmax(plane) - 2, "deepest"


def _shell_offsets(
    off: np.ndarray,
    weight: np.ndarray,
    reference: np.ndarray,
    shell_of_pair: np.ndarray,
    unit_u: np.ndarray,
    unit_v: np.ndarray,
) -> dict[str, np.ndarray]:
    """Mean displacement of the reference columns from each shell, along u and v."""
    out = {}
    for name, unit in (("delta", unit_u), ("delta_perp", unit_v)):
        along = np.einsum("rpk,rk->rp", np.nan_to_num(off), unit)
        values = np.zeros(shell_of_pair.max() + 1)
        for shell in range(len(values)):
            use = (weight * (shell_of_pair == shell))[reference]
            if use.sum() > 0:
                values[shell] = np.sum(use * along[reference]) / use.sum()
        out[name] = values
    return out


def _functionals(
    n: int, rows: np.ndarray, partners: np.ndarray, share: np.ndarray
) -> sparse.csr_array:
    """Weights (n, n): +1 for the displaced column, minus half a share for each cage member."""
    r, p, k = np.nonzero(partners >= 0)
    has = share.sum(axis=1) > 0
    rows_all = np.concatenate([rows[r], rows[has]])
    cols_all = np.concatenate([partners[r, p, k], rows[has]])
    data = np.concatenate([-0.5 * share[r, p], np.ones(np.count_nonzero(has))])
    return sparse.csr_array((data, (rows_all, cols_all)), shape=(n, n))


def _project(functional: sparse.csr_array, unit: np.ndarray) -> sparse.csr_array:
    """Turn column weights into weights of (intensity, x, y) along each row's own direction."""
    coo = functional.tocoo()
    n = functional.shape[0]
    rows = np.concatenate([coo.row, coo.row])
    cols = np.concatenate([3 * coo.col + 1, 3 * coo.col + 2])
    data = np.concatenate([coo.data * unit[coo.row, 0], coo.data * unit[coo.row, 1]])
    return sparse.csr_array((data, (rows, cols)), shape=(n, 3 * n))


def _offset_summary(
    name: str, applied: np.ndarray, values: np.ndarray, noise: np.ndarray
) -> dict[str, float]:
    """Give the offset that was subtracted, as seen on the whole cage, with its error."""
    if len(values) == 0:
        return {name: 0.0, f"{name}_err": np.nan}
    scatter = float(np.var(values, ddof=1)) / len(values) if len(values) > 1 else 0.0
    return {
        name: float(np.mean(applied)),
        f"{name}_err": float(np.sqrt(max(float(noise[0]) ** 2, scatter))),
    }
