"""Image + Lattice -> column table: every expected site, seen or not; and what no site explains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import ndimage

from stemdisp._pixels import unmeasured
from stemdisp._sites import expected_sites
from stemdisp._start import NUISANCE
from stemdisp.crystal import Projection
from stemdisp.interface import Interface
from stemdisp.lattice import Lattice
from stemdisp.tables import Quality

if TYPE_CHECKING:
    from hyperspy.signals import Signal2D

# Columns just outside the image still send their tails in.
MARGIN_A = 0.8
# Band beyond the last plane in which the film is modelled, because it overlaps with columns.
FILM_BAND_A = (0.7, 3.2)
BESIDE_A = 2.5  # along the interface, within which a step's side touches a column
UNEXPECTED_SIGMA = 8.0


def find_columns(
    image: Signal2D | np.ndarray,
    lattice: Lattice,
    *,
    projection: Projection,
    interface: Interface | None = None,
) -> pd.DataFrame:
    """List every column that the crystal should have in the image.

    Parameters
    ----------
    image : Signal2D or ndarray, shape (ny, nx)
        The image in which `lattice` was found.
    lattice : Lattice
        From `find_lattice` (and `find_interface`, which turns it).
    projection : Projection
        The crystal.
    interface : Interface, optional
        End of the crystal; without it the crystal fills the image.

    Returns
    -------
    DataFrame
        ``species, i, j, layer, N, x_px, y_px, quality``; positions are those of the lattice.
    """
    data = np.asarray(getattr(image, "data", image))
    scale = pixels_per_angstrom(lattice, projection)
    table = expected_sites(lattice, projection, data.shape, margin_px=MARGIN_A * scale)
    quality = np.zeros(len(table), dtype=np.int64)
    if interface is None:
        missing = pd.array([pd.NA] * len(table), dtype="Int64")
        return table.assign(layer=np.nan, N=missing, quality=quality)
    ij = table[["i", "j"]].to_numpy()
    plane = interface.plane(ij)
    inside = plane >= 1
    quality[_at_film(interface, ij, BESIDE_A * scale)] |= int(Quality.NEAR_FILM)
    if interface.far is not None:
        inside &= interface.far.plane(ij) >= 1
        quality[interface.far.plane(ij) == 1] |= int(Quality.NEAR_FILM)
    table = table.assign(
        layer=interface.layer(ij), N=pd.array(plane, dtype="Int64"), quality=quality
    )
    return table[inside].reset_index(drop=True)


def _at_film(interface: Interface, ij: np.ndarray, beside_px: float) -> np.ndarray:
    """Sites of the last plane, and those that a step leaves bare at their side."""
    sides = [interface.plane(ij, aside=aside) for aside in (0.0, beside_px, -beside_px)]
    return np.min(sides, axis=0) <= 1 if len(interface.offsets) > 1 else sides[0] == 1


def pixels_per_angstrom(lattice: Lattice, projection: Projection) -> float:
    """Mean scale of the image from the area of the cell."""
    cell = abs(np.linalg.det(projection.cell_matrix()))
    return float(np.sqrt(abs(np.linalg.det(lattice.cell_px)) / cell))


def crystal_mask(
    data: np.ndarray, lattice: Lattice, interface: Interface | None, scale: float
) -> np.ndarray:
    """Pixels that the fit uses: measured, and not deep in the film.

    Parameters
    ----------
    data : ndarray, shape (ny, nx)
    lattice : Lattice
    interface : Interface or None
    scale : float
        Pixels per angstrom.

    Returns
    -------
    ndarray of bool, shape (ny, nx)
    """
    good = ~unmeasured(data)
    if interface is None:
        return good
    good &= height_map(data.shape, lattice, interface) < FILM_BAND_A[1] * scale
    if interface.far is not None:
        good &= height_map(data.shape, lattice, interface.far) < FILM_BAND_A[1] * scale
    return good


def height_map(shape: tuple[int, int], lattice: Lattice, interface: Interface) -> np.ndarray:
    """Distance of every pixel beyond the last cage planes, towards the film, in px.

    Worked out on a grid of about 8 px and interpolated, as the lattice bends slowly.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns of the image.
    lattice : Lattice
    interface : Interface

    Returns
    -------
    ndarray, shape `shape`, float32
        Negative inside the crystal.
    """
    axes = [np.linspace(0, n - 1, n // 8 + 2) for n in shape]
    yy, xx = np.meshgrid(*axes, indexing="ij")
    grid = interface.height(lattice.index(np.column_stack([xx.ravel(), yy.ravel()])))
    wider = [n / len(axis) for n, axis in zip(shape, axes, strict=True)]
    return ndimage.zoom(grid.reshape(yy.shape).astype(np.float32), wider, order=1, mode="nearest")


def find_film(
    residual: np.ndarray, lattice: Lattice, interface: Interface, scale: float
) -> pd.DataFrame:
    """Bright spots of the film next to the crystal, as nuisance columns for the joint fit.

    Parameters
    ----------
    residual : ndarray, shape (ny, nx)
        Image minus the fitted crystal.
    lattice : Lattice
    interface : Interface
    scale : float
        Pixels per angstrom.

    Returns
    -------
    DataFrame
        ``species`` (always "film"), ``x_px, y_px, quality``.
    """
    smooth = ndimage.gaussian_filter(residual, 0.35 * scale)
    smooth = smooth - ndimage.gaussian_filter(residual, 1.6 * scale)
    band = height_map(residual.shape, lattice, interface) / scale
    if interface.far is not None:
        band = np.maximum(band, height_map(residual.shape, lattice, interface.far) / scale)
    size = int(2 * round(0.6 * scale) + 1)
    peak = (smooth == ndimage.maximum_filter(smooth, size=size)) & (smooth > 0)
    peak &= (band > FILM_BAND_A[0]) & (band < FILM_BAND_A[1] - 0.2)
    y, x = np.nonzero(peak)
    return pd.DataFrame(
        {"species": NUISANCE, "x_px": x.astype(float), "y_px": y.astype(float), "quality": 0}
    )


def find_unexpected(
    residual: np.ndarray, mask: np.ndarray, columns: pd.DataFrame, scale: float
) -> pd.DataFrame:
    """Peaks of the residual that no site explains.

    Parameters
    ----------
    residual : ndarray, shape (ny, nx)
        Image minus model.
    mask : ndarray of bool
        Pixels that were fitted.
    columns : DataFrame
        Fitted columns (``x_px, y_px``); peaks closer than 0.8 A to one are shape misfit.
    scale : float
        Pixels per angstrom.

    Returns
    -------
    DataFrame
        ``x_px, y_px, height`` with height in robust standard deviations of the residual.
    """
    smooth = ndimage.gaussian_filter(np.where(mask, residual, 0.0), 0.35 * scale)
    smooth -= ndimage.gaussian_filter(np.where(mask, residual, 0.0), 1.2 * scale)
    spread = 1.4826 * np.median(np.abs(smooth[mask])) + 1e-300
    inner = ndimage.binary_erosion(mask, iterations=max(1, int(1.5 * scale)))
    peak = (smooth == ndimage.maximum_filter(smooth, size=int(2 * round(0.7 * scale) + 1))) & inner
    y, x = np.nonzero(peak & (smooth > UNEXPECTED_SIGMA * spread))
    found = pd.DataFrame({"x_px": x.astype(float), "y_px": y.astype(float)})
    found["height"] = smooth[y, x] / spread
    if len(found) == 0:
        return found
    from scipy.spatial import cKDTree

    known = columns[["x_px", "y_px"]].dropna().to_numpy()
    distance, _ = cKDTree(known).query(found[["x_px", "y_px"]].to_numpy())
    return found[distance > 0.8 * scale].reset_index(drop=True)
