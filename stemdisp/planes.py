"""Column table -> plane table: means over each plane with noise and total errors."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import sparse

from stemdisp._resampling import between_variance
from stemdisp._values import average
from stemdisp.occupancy import AnionReference, calibrated
from stemdisp.sublattice import Displacements
from stemdisp.tables import check_columns, usable

# Bulk planes needed to judge how much whole planes scatter.
MIN_BULK_PLANES = 6
_DELTA = ("delta_A", "delta_err_A", "delta_perp_A", "delta_perp_err_A")
_RATIO = ("intensity_ratio", "intensity_ratio_err")


def average_planes(
    columns: pd.DataFrame,
    *,
    displaced: str = "K",
    spacing_A: float = np.nan,
    bulk_from: int = 10,
    film_bias: tuple[float, float] = (0.0, 0.0),
) -> pd.DataFrame:
    """Average displacements over each plane.

    Parameters
    ----------
    columns : DataFrame
        After `measure_displacements`.
    displaced : str
        Species whose displacements are averaged.
    spacing_A : float
        Distance of planes along the interface normal, for the depth.
    bulk_from : int
        First bulk plane. Lines of the scan run nearly along the planes, so their jitter moves
        whole planes, which no scatter inside a plane can show; the scatter of bulk planes beyond
        their errors does, and is added to all.
    film_bias : (float, float)
        Systematic error of plane N = 1, next to the film, in angstrom and as a share of its
        displacement; both are part of its total error.

    Returns
    -------
    DataFrame
        One row per plane, ``N, depth_nm, n_columns, delta_A, delta_err_A, delta_noise_A,
        delta_perp_A, delta_perp_err_A``. ``err`` is total: scatter between columns, between
        [001] rows (which share scan noise) and between bulk planes, and the bulk offset's error;
        ``noise`` is the joint fit's covariance and the offset's error alone, without what the
        halves of a stack add.
    """
    check_columns(columns, ("species", "N", "i", "quality", *_DELTA))
    extra = columns.attrs.get("displacements")
    if not isinstance(extra, Displacements) or extra.along_u.shape[0] != len(columns):
        extra = None
    good = usable(columns) & (columns["species"] == displaced).to_numpy()
    good &= np.isfinite(columns["delta_A"].to_numpy(dtype=float, na_value=np.nan))
    parts = _by_plane(columns, good)
    table: dict[str, list[float]] = {
        "N": [n for n, _ in parts],
        "depth_nm": [(n - 1) * spacing_A / 10 for n, _ in parts],
        "n_columns": [len(index) for _, index in parts],
    }
    for name in ("delta", "delta_perp"):
        table |= _mean_displacements(name, columns, [index for _, index in parts], extra)
    names = ["N", "depth_nm", "n_columns", "delta_A", "delta_err_A", "delta_noise_A"]
    out = pd.DataFrame(table, columns=[*names, "delta_perp_A", "delta_perp_err_A"])
    for name in ("delta", "delta_perp"):
        out = _add_plane_scatter(out, f"{name}_A", f"{name}_err_A", bulk_from)
        bias = np.hypot(film_bias[0], film_bias[1] * out[f"{name}_A"])
        out[f"{name}_err_A"] = np.hypot(out[f"{name}_err_A"], np.where(out["N"] == 1, bias, 0.0))
    return out.astype({"N": "Int64", "n_columns": "Int64"})


def average_occupancy(
    columns: pd.DataFrame, *, anion: str = "O", bulk_from: int = 10
) -> pd.DataFrame:
    """Average occupancies over each plane.

    Parameters
    ----------
    columns : DataFrame
        After `measure_occupancy`.
    anion : str
        Species of the pure anion columns.
    bulk_from : int
        First bulk plane; see `average_planes`.

    Returns
    -------
    DataFrame
        ``N, n_anions, intensity_ratio, intensity_ratio_err, intensity_ratio_noise, occupancy,
        occupancy_err``, one row per plane (err: total; noise: of the fit and the reference alone).
        Ratios are averaged, then calibrated: a bent curve does not bend the noise.
    """
    check_columns(columns, ("species", "N", "i", "quality", *_RATIO))
    reference = columns.attrs.get("anion_reference")
    value = columns["intensity_ratio"].to_numpy(dtype=float)
    error = columns["intensity_ratio_err"].to_numpy(dtype=float)
    common, curve = np.zeros(len(columns)), None
    if isinstance(reference, AnionReference):
        curve = reference.curve
    if isinstance(reference, AnionReference) and len(reference.common) == len(columns):
        common = np.nan_to_num(value * reference.common)
    good = (columns["species"] == anion).to_numpy() & usable(columns) & np.isfinite(value)
    rows = []
    for number, index in _by_plane(columns, good):
        own = np.sqrt(np.maximum(error[index] ** 2 - common[index] ** 2, 1e-12))
        mean, noise, total = average(value[index], own, clusters=_scan_rows(columns, index))
        shared = float(np.mean(common[index])) if len(index) else 0.0
        errors = [float(np.hypot(e, shared)) for e in (total, noise)]
        rows.append((number, len(index), mean, *errors))
    names = ["intensity_ratio", "intensity_ratio_err", "intensity_ratio_noise"]
    out = pd.DataFrame(rows, columns=["N", "n_anions", *names])
    out = _add_plane_scatter(out, "intensity_ratio", "intensity_ratio_err", bulk_from)
    ratio, ratio_error = (out[name].to_numpy(dtype=float) for name in names[:2])
    occupancy, occupancy_error = calibrated(ratio, ratio_error, curve)
    out = out.assign(occupancy=occupancy, occupancy_err=occupancy_error)
    return out.astype({"N": "Int64", "n_anions": "Int64"})


def _by_plane(columns: pd.DataFrame, good: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Give the row numbers of the usable columns of every plane that the table knows."""
    plane = columns["N"].to_numpy(dtype=float, na_value=np.nan)
    numbers = np.unique(plane[np.isfinite(plane)]).astype(int)
    return [(int(n), np.flatnonzero(good & (plane == n))) for n in numbers]


def _scan_rows(columns: pd.DataFrame, index: np.ndarray) -> np.ndarray:
    """Label the [001] row of each column."""
    return np.floor(columns["i"].to_numpy(dtype=float)[index] + 1e-6)


def _mean_displacements(
    name: str, columns: pd.DataFrame, parts: list[np.ndarray], extra: Displacements | None
) -> dict[str, list[float]]:
    """Mean and both errors of one component in every plane."""
    value = columns[f"{name}_A"].to_numpy(dtype=float)
    error = columns[f"{name}_err_A"].to_numpy(dtype=float)
    offset = 0.0 if extra is None else float(np.nan_to_num(extra.offset[f"{name}_err"]))
    own = np.sqrt(np.maximum(error**2 - offset**2, 1e-12))
    joint = None if extra is None else _joint_noise(name, own, parts, extra)
    factor = 1.0 if extra is None else extra.factors[name == "delta_perp"]
    out: dict[str, list[float]] = {f"{name}_A": [], f"{name}_err_A": [], f"{name}_noise_A": []}
    for k, index in enumerate(parts):
        mean, noise, total = average(value[index], own[index], clusters=_scan_rows(columns, index))
        if joint is not None and len(index):
            noise = float(joint[k])
            total = max(total, factor * noise)
        noise, total = float(np.hypot(noise, offset)), float(np.hypot(total, offset))
        out[f"{name}_A"].append(mean)
        out[f"{name}_err_A"].append(max(total, noise))
        out[f"{name}_noise_A"].append(noise)
    return out


def plane_correlation(columns: pd.DataFrame, *, displaced: str = "K") -> pd.DataFrame | None:
    """Correlation of delta between planes, because columns of neighbouring planes share cages.

    Parameters
    ----------
    columns : DataFrame
        After `measure_displacements`.
    displaced : str
        Species whose displacements are averaged.

    Returns
    -------
    DataFrame or None
        Rows and columns are plane numbers; for columns that err by the same amount, each by
        itself. None where the table has lost how its displacements were made.
    """
    extra = columns.attrs.get("displacements")
    if not isinstance(extra, Displacements) or extra.along_u.shape[0] != len(columns):
        return None
    good = usable(columns) & (columns["species"] == displaced).to_numpy()
    good &= np.isfinite(columns["delta_A"].to_numpy(dtype=float, na_value=np.nan))
    parts = [(n, index) for n, index in _by_plane(columns, good) if len(index)]
    if not parts:
        return None
    rows = np.repeat(np.arange(len(parts)), [len(index) for _, index in parts])
    at = np.concatenate([index for _, index in parts])
    shape = (len(parts), len(columns))
    joint = (sparse.csr_array((np.ones(len(at)), (rows, at)), shape=shape) @ extra.along_u).tocsr()
    shared = (joint @ joint.T).toarray()
    size = np.sqrt(np.diag(shared))
    numbers = [n for n, _ in parts]
    return pd.DataFrame(shared / np.outer(size, size), index=numbers, columns=numbers)


def _joint_noise(
    name: str, own: np.ndarray, parts: list[np.ndarray], extra: Displacements
) -> np.ndarray:
    """Noise of the mean of every plane from the joint covariance: neighbours share cages."""
    combo = extra.along_u if name == "delta" else extra.along_v
    rows = np.repeat(np.arange(len(parts)), [len(index) for index in parts])
    index = np.concatenate([np.empty(0, dtype=int), *parts])
    weight = 1 / own[index] ** 2
    share = weight / np.bincount(rows, weight, len(parts))[rows]
    mix = sparse.csr_array((share, (rows, index)), shape=(len(parts), combo.shape[0]))
    joint = mix @ combo
    variance = np.asarray((joint @ extra.covariance).multiply(joint).sum(axis=1)).ravel()
    return np.sqrt(np.maximum(variance, 0.0))


def _add_plane_scatter(
    planes: pd.DataFrame, value: str, error: str, bulk_from: int
) -> pd.DataFrame:
    """Add in quadrature what bulk planes scatter beyond their errors (random effects)."""
    bulk = (planes["N"] >= bulk_from) & planes[value].notna() & (planes[error] > 0)
    if np.count_nonzero(bulk) < MIN_BULK_PLANES:
        return planes
    x = planes.loc[bulk, value].to_numpy(dtype=float)
    e = planes.loc[bulk, error].to_numpy(dtype=float)
    extra = float(between_variance(x, e))
    return planes.assign(**{error: np.sqrt(planes[error] ** 2 + extra)})
