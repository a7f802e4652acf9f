"""The least error that any unbiased fit of the columns can have: Cramer-Rao bounds.

The model is that of the joint fit: a sum of Gaussians on a constant background. The bound of a
parameter is the root of its diagonal element in the inverse of the Fisher information of all
parameters together (van Aert et al., Ultramicroscopy 90 (2002) 273). For Gaussian noise of
spectrum P(k) the information is the overlap of derivatives weighted by 1/P: closed forms for
white noise and for P = level / k^2. For counts it is the sum over pixels of
derivative * derivative / expected count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import linalg, sparse
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from stemdisp._system import Neighbours
from stemdisp.tables import check_columns

REACH = 5.0  # in widths; beyond lies 4e-6 of a column's intensity
PAIR_REACH = 6.0  # in joint widths; the overlaps beyond are below 1e-6 of the diagonal
PIXEL_TILE = 64  # px; dense sums over tiles of this size cost least
# Up to this many parameters the matrix is inverted as a whole. Larger images are inverted in
# tiles with a margin: what lies beyond the margin is taken as known (changes below 1e-4).
DENSE = 2400
TILE_A = 30.0
MARGIN_A = 9.0

Noise = Literal["white", "idpc", "poisson"]


@dataclass(frozen=True, eq=False)
class _Scene:
    """The columns on a grid of `shape` pixels, `step` apart, in lengths of a square pixel."""

    x: np.ndarray
    y: np.ndarray
    volume: np.ndarray
    sigma: np.ndarray
    background: float
    shape: tuple[int, int]
    step: tuple[float, float]


def column_bounds(
    columns: pd.DataFrame,
    *,
    pixel_size: float | tuple[float, float],
    noise: Noise,
    level: float | None = None,
    widths: Literal["species", "column", "known"] = "species",
    background: float = 0.0,
    shape: tuple[int, int] | None = None,
) -> pd.DataFrame:
    """Give the least standard errors of intensity and position that the noise allows.

    Intensity, x and y of every column are unknown together, and one constant background (which
    1/k^2 noise hides anyway). Columns are taken as whole for ``white`` and ``idpc``; for
    ``poisson`` only the pixels inside `shape` count.

    Parameters
    ----------
    columns : DataFrame
        ``species, x_px, y_px``, ``intensity`` (signal*A^2, integrated) and ``sigma_A``: a fitted
        table, the truth of a simulation, or a plan.
    pixel_size : float or (float, float)
        Angstrom per px along x and y.
    noise : {"white", "idpc", "poisson"}
        What the noise is.
    level : float
        ``white``: variance of a pixel. ``idpc``: c in the power c / k^2 with k in rad/px, as
        `NoiseLevel.level` gives it. ``poisson``: counts in a pixel per unit of signal; 1 if not
        given.
    widths : {"species", "column", "known"}
        One unknown width for each species (as the fit has it), for each column, or none.
    background : float
        Signal between the columns; only ``poisson`` needs its value.
    shape : (int, int), optional
        Rows and columns of the image; just large enough for all columns if not given.

    Returns
    -------
    DataFrame
        Index of `columns`; ``species, intensity_err, x_err_A, y_err_A``. The position of a
        column of no intensity has the error infinity.

    Raises
    ------
    ValueError
        Missing or unusable values, unknown options, columns that lie on top of each other.

    Notes
    -----
    Errors fall with the square root of the dose. An isolated column of intensity V and width s
    (in px, all else known) has, for white noise of variance v, var x = 8 pi s^4 v / V^2 and
    var V = 4 pi s^2 v; for ``idpc``, var x = 4 pi s^6 level / V^2 and var V = 4 pi s^4 level.
    """
    check_columns(columns, ("species", "x_px", "y_px", "intensity", "sigma_A"))
    sx, sy = np.broadcast_to(np.asarray(pixel_size, dtype=float), 2).tolist()
    level = _check(columns, (sx, sy), noise, level, widths)
    scene = _scene(columns, (sx, sy), background, shape)
    if noise == "poisson":
        matrix = _count_information(scene) * level
    else:
        matrix = _gaussian_information(scene, int(noise == "idpc")) / level
    variance = _bound_variance(scene, matrix, columns["species"], widths, float(np.sqrt(sx * sy)))
    scale = np.sqrt(sx * sy)
    error = np.sqrt(variance) * np.array([sx * sy, scale, scale])
    names = ("intensity_err", "x_err_A", "y_err_A")
    out = columns[["species"]].assign(**dict(zip(names, error.T, strict=True)))
    out.attrs = {}
    return out


def required_dose(
    columns: pd.DataFrame,
    target_A: float,
    *,
    pixel_size: float | tuple[float, float],
    noise: Literal["idpc", "poisson"] = "idpc",
    background: float = 0.0,
) -> pd.Series:
    """Give the dose at which positions can be known to `target_A`.

    Parameters
    ----------
    columns : DataFrame
        As for `column_bounds`; the signal is the share of the beam (``poisson``) or its integral
        in beam*A (``idpc``), as `simulate_stack` makes it, so ``intensity`` is in beam*A^2 or
        beam*A^3.
    target_A : float
        Wanted standard error per axis, angstrom.
    pixel_size, background
        As for `column_bounds`.
    noise : {"idpc", "poisson"}
        Kind of image. For ``idpc`` half of the electrons are taken to hit the segments; their
        differences have the variance 0.5 / (dose * pixel area), so level = 0.5 / dose.

    Returns
    -------
    Series
        Electrons per square angstrom, all frames together, by species (for the rms bound over
        its columns); infinite where a column has no intensity.

    Raises
    ------
    ValueError
        As `column_bounds`, and for a target that is not positive.
    """
    if not target_A > 0:
        raise ValueError(f"target_A = {target_A!r} must be positive, in angstrom")
    if noise not in ("idpc", "poisson"):
        raise ValueError(f"noise = {noise!r} has no dose; use idpc or poisson")
    sx, sy = np.broadcast_to(np.asarray(pixel_size, dtype=float), 2).tolist()
    unit_dose = 0.5 if noise == "idpc" else sx * sy
    bound = column_bounds(
        columns, pixel_size=pixel_size, noise=noise, level=unit_dose, background=background
    )
    squares = (bound["x_err_A"] ** 2 + bound["y_err_A"] ** 2) / 2
    return (squares.groupby(bound["species"]).mean() / target_A**2).rename("dose_e_per_A2")


def _check(
    columns: pd.DataFrame,
    size: tuple[float, float],
    noise: str,
    level: float | None,
    widths: str,
) -> float:
    """Refuse what has no bound; return the level."""
    if not min(size) > 0:
        raise ValueError(f"pixel_size = {size!r} must be positive, in angstrom per px")
    if noise not in ("white", "idpc", "poisson"):
        raise ValueError(f"noise = {noise!r} is not one of: white, idpc, poisson")
    if widths not in ("species", "column", "known"):
        raise ValueError(f"widths = {widths!r} is not one of: species, column, known")
    if level is None and noise != "poisson":
        raise ValueError(f"level is needed for noise = {noise!r}; give the level of the noise")
    level = 1.0 if level is None else float(level)
    if not (np.isfinite(level) and level > 0):
        raise ValueError(f"level = {level!r} must be positive and finite")
    if len(columns) == 0:
        raise ValueError("columns is empty; there is nothing to bound")
    values = columns[["x_px", "y_px", "intensity", "sigma_A"]].to_numpy(dtype=np.float64)
    bad = ~np.isfinite(values).all(axis=1) | (values[:, 2] < 0) | (values[:, 3] <= 0)
    if bad.any():
        raise ValueError(
            f"columns has {bad.sum()} rows with values that are not finite, intensity < 0 or "
            "sigma_A <= 0; drop them first"
        )
    return level


def _scene(
    columns: pd.DataFrame,
    size: tuple[float, float],
    background: float,
    shape: tuple[int, int] | None,
) -> _Scene:
    """Turn the table into pixels; without a shape move it into a grid that just holds it."""
    x, y = (columns[name].to_numpy(dtype=np.float64) for name in ("x_px", "y_px"))
    scale = np.sqrt(size[0] * size[1])
    ax, ay = (float(s / scale) for s in size)
    sigma = columns["sigma_A"].to_numpy(dtype=np.float64) / scale
    volume = columns["intensity"].to_numpy(dtype=np.float64) / scale**2
    if not (np.isfinite(background) and background >= 0):
        raise ValueError(f"background = {background!r} must be finite and not negative")
    if shape is None:
        reach_x, reach_y = (int(np.ceil(REACH * sigma.max() / a)) for a in (ax, ay))
        x, y = x - np.floor(x.min()) + reach_x, y - np.floor(y.min()) + reach_y
        shape = (int(np.ceil(y.max())) + reach_y + 1, int(np.ceil(x.max())) + reach_x + 1)
    shape = (int(shape[0]), int(shape[1]))
    return _Scene(x * ax, y * ay, volume, sigma, float(background), shape, (ax, ay))


def _gaussian_information(scene: _Scene, order: int) -> sparse.csr_array:
    """Information of V, x, y, s of every column and the background, for noise of level 1."""
    from stemdisp._pairs import pair_information

    n = len(scene.x)
    radius = PAIR_REACH * np.sqrt(2) * scene.sigma.max()
    near = Neighbours.within(np.column_stack([scene.x, scene.y]), radius)
    values = np.column_stack([scene.volume, scene.x, scene.y, scene.sigma])
    # every pixel counts alike
    blocks = pair_information(near.indptr, near.indices, values, np.ones((n, 4)), order)
    columns = sparse.bsr_array((blocks, near.indices, near.indptr), shape=(4 * n, 4 * n))
    # The constant overlaps with the intensity of a column only; it has no gradient.
    border = np.tile([1.0 - order, 0.0, 0.0, 0.0], n)
    corner = float(np.prod(scene.shape)) if order == 0 else 1.0
    side = sparse.csr_array(border[:, None])
    return sparse.block_array([[columns, side], [side.T, np.array([[corner]])]], format="csr")


def _count_information(scene: _Scene) -> sparse.csr_array:
    """Sum derivative * derivative / expected signal over the pixels, tile by tile."""
    peak = scene.background + np.max(scene.volume / (2 * np.pi * scene.sigma**2))
    if peak <= 0:
        raise ValueError("columns have no intensity and background = 0: there are no counts")
    n = len(scene.x)
    rows, cols, values = [], [], []
    for top in range(0, scene.shape[0], PIXEL_TILE):
        for left in range(0, scene.shape[1], PIXEL_TILE):
            rest = (scene.shape[0] - top, scene.shape[1] - left)
            size = (min(PIXEL_TILE, rest[0]), min(PIXEL_TILE, rest[1]))
            which, slopes = _derivatives(scene, (top, left), size)
            expected = scene.background + scene.volume[which] @ slopes[0::4]
            # Derivatives vanish faster than the signal: where there is none nothing is learnt.
            weight = 1.0 / np.maximum(expected, 1e-12 * peak)
            slopes = np.vstack([slopes, np.ones((1, size[0] * size[1]))])
            index = np.append((4 * which[:, None] + np.arange(4)).ravel(), 4 * n)
            rows.append(np.repeat(index, len(index)))
            cols.append(np.tile(index, len(index)))
            values.append(((slopes * weight) @ slopes.T).ravel())
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(cols)))
    return sparse.coo_array(entries, shape=(4 * n + 1, 4 * n + 1)).tocsr()


def _derivatives(
    scene: _Scene, corner: tuple[int, int], shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Columns that reach a tile, and the slopes (4 k, pixels) of the image by V, x, y, s."""
    (top, left), (height, width) = corner, shape
    reach, (ax, ay) = REACH * scene.sigma, scene.step
    near = (scene.x > left * ax - reach) & (scene.x < (left + width - 1) * ax + reach)
    near &= (scene.y > top * ay - reach) & (scene.y < (top + height - 1) * ay + reach)
    which = np.flatnonzero(near)
    s = scene.sigma[which, None]
    dx = (left + np.arange(width)) * ax - scene.x[which, None]
    dy = (top + np.arange(height)) * ay - scene.y[which, None]
    column = np.exp(-0.5 * (dx / s) ** 2)[:, None, :] * np.exp(-0.5 * (dy / s) ** 2)[:, :, None]
    column /= 2 * np.pi * s[:, :, None] ** 2
    body = scene.volume[which, None, None] * column / s[:, :, None] ** 2
    t = (dx[:, None, :] ** 2 + dy[:, :, None] ** 2) / s[:, :, None] ** 2
    slopes = [column, body * dx[:, None, :], body * dy[:, :, None], body * (t - 2) * s[:, :, None]]
    return which, np.stack(slopes, axis=1).reshape(4 * len(which), -1)


def _bound_variance(
    scene: _Scene, matrix: sparse.csr_array, species: pd.Series, widths: str, scale: float
) -> np.ndarray:
    """Variances (n, 3) of V, x, y in px: invert own parameters, then add the shared ones."""
    n = len(scene.x)
    k = 4 if widths == "column" else 3
    place = np.arange(4 * n).reshape(n, 4)
    own, corner = place[:, :k].ravel(), np.array([4 * n])
    shared = sparse.csr_array(([1.0], (corner, [0])), shape=(4 * n + 1, 1))
    if widths == "species":
        kind = pd.factorize(species)[0]
        entries = (np.ones(n), (place[:, 3], kind))
        sums = sparse.csr_array(entries, shape=(4 * n + 1, kind.max() + 1))
        shared = sparse.hstack([shared, sums]).tocsr()
    local = matrix[own][:, own].tocsc()
    # Numbers near 1 whatever the units; what carries no information (position of a column of no
    # intensity) decouples.
    diagonal = local.diagonal()
    blind = diagonal <= 0
    root = 1.0 / np.sqrt(np.where(blind, 1.0, diagonal))
    scaling = sparse.diags_array(root)
    scaled = (scaling @ local @ scaling + sparse.diags_array(blind.astype(float))).tocsc()
    border = (scaling @ (matrix @ shared)[own]).toarray()
    inner = (shared.T @ matrix @ shared).toarray()
    try:
        response = splu(scaled).solve(border)
        left = linalg.cho_factor(inner - border.T @ response)
        variance = _inverse_diagonal(scene, scaled, k, scale)
    except (RuntimeError, linalg.LinAlgError) as error:
        raise ValueError(
            "columns cannot be told apart: some lie on top of each other; drop duplicates"
        ) from error
    variance += np.sum(response * linalg.cho_solve(left, response.T).T, axis=1)
    return np.where(blind, np.inf, variance * root**2).reshape(n, k)[:, :3]


def _inverse_diagonal(scene: _Scene, matrix: sparse.csc_array, k: int, scale: float) -> np.ndarray:
    """Diagonal of the inverse: of the whole, or tile by tile with a margin; `scale` in A/px."""
    size = matrix.shape[0]
    if size <= DENSE:
        return np.diag(linalg.cho_solve(linalg.cho_factor(matrix.toarray()), np.eye(size))).copy()
    out = np.empty(size)
    at = np.column_stack([scene.x, scene.y]) * scale
    tile = np.floor(at / TILE_A).astype(np.int64)
    tree = cKDTree(at)
    order = np.arange(k)
    matrix = matrix.tocsr()
    for middle in np.unique(tile, axis=0):
        inside = np.flatnonzero((tile == middle).all(axis=1))
        near = tree.query_ball_point(at[inside], MARGIN_A)
        around = np.setdiff1d(np.concatenate(near).astype(np.int64), inside)
        index = (np.concatenate([inside, around])[:, None] * k + order).ravel()
        part = matrix[index][:, index].toarray()
        wanted = np.eye(len(index))[:, : len(inside) * k]
        solved = linalg.cho_solve(linalg.cho_factor(part), wanted)
        out[index[: len(inside) * k]] = np.diag(solved)
    return out
