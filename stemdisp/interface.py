"""Where the crystal ends: which plane is the last, on which side, with what certainty.

Crystallinity is judged site by site: does the image around an expected column look like the mean
column of its kind? That does not depend on brightness. The outermost plane of cage cations that
still looks like crystal is the first TaO2 plane, N = 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import ndimage

from stemdisp._cell import row_operations
from stemdisp.crystal import Projection
from stemdisp.errors import DataError
from stemdisp.lattice import Lattice

if TYPE_CHECKING:
    from hyperspy.signals import Signal2D

SEEN = 0.55  # correlation with the mean column above which a site counts as crystal
PATCH_A = 1.1
# A border between crystal and film must sort at least this share of sites to the right side.
MIN_SORTED = 0.9
MIN_OUTSIDE = 6
MIN_OUTSIDE_LAYERS = 0.9
_SIDES = {"up": (0, -1), "down": (0, 1), "left": (-1, 0), "right": (1, 0)}


@dataclass(frozen=True, eq=False)
class Interface:
    """The end of the crystal.

    Attributes
    ----------
    side : {"up", "down", "left", "right"}
        Where the film lies in the image.
    position_px : ndarray, shape (2,)
        A point (x, y) of the interface: half a layer beyond plane N = 1, mid-image.
    normal : ndarray, shape (2,)
        Unit vector towards the film.
    spacing_px : float
        Distance of layers along the normal.
    steps : (float, float)
        Layer number l = steps . (i, j) - top_layer + 0.5.
    top_layer : float
        Lattice layer number of the outermost cage plane (N = 1).
    position_err_A : float
        Uncertainty of the position along the normal, from the spread of the last plane seen.
    roughness_planes : float
        Standard deviation of the outermost plane along the interface, in planes.
    sorted_share : float
        Share of sites that this border puts on the right side.
    """

    side: str
    position_px: np.ndarray
    normal: np.ndarray
    spacing_px: float
    steps: tuple[float, float]
    top_layer: float
    position_err_A: float
    roughness_planes: float
    sorted_share: float

    def layer(self, ij: np.ndarray) -> np.ndarray:
        """Layer number l of indices (n, 2): 0 for the first layer under the first cage plane."""
        return np.asarray(ij, dtype=float) @ np.array(self.steps) - self.top_layer + 0.5

    def plane(self, ij: np.ndarray) -> np.ndarray:
        """Plane number N = 1 - floor(l) of lattice indices (n, 2)."""
        return (1 - np.floor(self.layer(ij) + 1e-6)).astype(np.int64)


def find_interface(
    image: Signal2D | np.ndarray,
    lattice: Lattice,
    *,
    projection: Projection,
    plane: tuple[int, int, int] = (1, 1, 1),
    cage_species: str = "Ta",
    film: str = "auto",
    present: bool | str = "auto",
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
        Side of the film.
    present : bool or "auto"
        False returns no interface; True insists on one.

    Returns
    -------
    lattice : Lattice
        Reindexed so that ``layer_step(plane)`` points to the film.
    interface : Interface or None

    Raises
    ------
    DataError
        `present` is true, or a side is given, and no interface parallel to `plane` is seen.
    """
    if present is False:
        return lattice, None
    data = np.asarray(getattr(image, "data", image), dtype=np.float64) * lattice.sign
    steps = np.array(projection.layer_step(plane), dtype=float)
    sites = score_sites(data, lattice, projection)
    sites = sites[sites["species"] == cage_species]
    best: tuple[float, Lattice, np.ndarray, float] | None = None
    for operation, shift in row_operations(projection):
        turned = lattice.reindexed(operation, shift)
        normal = _normal(turned, steps)
        if film != "auto" and np.dot(normal, _SIDES[film]) < np.cos(np.deg2rad(50)):
            continue
        layer = turned.index(sites[["x_px", "y_px"]].to_numpy()) @ steps
        share, top = _split(layer, sites["score"].to_numpy())
        if np.isfinite(top) and (best is None or share > best[0] + 1e-9):
            best = (share, turned, layer, top)
    if best is None or best[0] < MIN_SORTED:
        if present is True or film != "auto":
            where = "" if film == "auto" else f" with the film {film}"
            raise DataError(
                f"no interface parallel to {list(plane)}{where} is seen in the image. Check "
                "[interface] plane and film, or set present = false for a crystal alone"
            )
        return lattice, None
    share, turned, layer, top = best
    return turned, _describe(sites, turned, steps, layer, top, share, data.shape, projection)


def score_sites(data: np.ndarray, lattice: Lattice, projection: Projection) -> pd.DataFrame:
    """Compare the image around every expected site with the mean of its kind.

    Parameters
    ----------
    data : ndarray, shape (ny, nx)
        Image with bright columns.
    lattice, projection
        The crystal in it.

    Returns
    -------
    DataFrame
        ``species, i, j, x_px, y_px, score``; score is the correlation coefficient of the patch
        of 1.1 A radius with the mean patch of well ordered sites.
    """
    scale = np.sqrt(
        abs(np.linalg.det(lattice.cell_px)) / abs(np.linalg.det(projection.cell_matrix()))
    )
    radius = PATCH_A * scale
    table = expected_sites(lattice, projection, data.shape, margin_px=-(radius + 1))
    filled = np.where(np.isfinite(data), data, np.nanmedian(data))
    smooth = ndimage.gaussian_filter(filled, 0.15 * scale)
    step = max(radius / 5, 0.5)
    line = np.arange(-5, 6) * step
    gx, gy = np.meshgrid(line, line)
    disc = np.hypot(gx, gy) <= radius
    offsets = np.column_stack([gx[disc], gy[disc]])
    scores = np.full(len(table), np.nan)
    for species in projection.species:
        rows = np.flatnonzero(table["species"] == species)
        if len(rows) == 0:
            continue
        points = table[["x_px", "y_px"]].to_numpy()[rows][:, None, :] + offsets[None]
        patch = ndimage.map_coordinates(
            smooth, [points[..., 1], points[..., 0]], order=1, mode="nearest"
        )
        patch -= patch.mean(axis=1, keepdims=True)
        scores[rows] = _correlate_with_mean(patch)
    return table.assign(score=scores)


def _correlate_with_mean(patch: np.ndarray) -> np.ndarray:
    """Correlation of each patch with the mean of those that correlate with it; three rounds."""
    norm = np.sqrt(np.sum(patch**2, axis=1)) + 1e-300
    template = np.median(patch, axis=0)
    score = patch @ template / (norm * (np.linalg.norm(template) + 1e-300))
    for _ in range(3):
        good = score > max(SEEN, np.median(score) * 0.6)
        if np.count_nonzero(good) < 3:
            break
        template = patch[good].mean(axis=0)
        score = patch @ template / (norm * (np.linalg.norm(template) + 1e-300))
    # A film can mimic a column's shape at a fraction of its height.
    height = patch @ template / (np.sum(template**2) + 1e-300)
    return np.where(height > 0.35, score, np.minimum(score, 0.3))


def expected_sites(
    lattice: Lattice, projection: Projection, shape: tuple[int, int], *, margin_px: float = 0.0
) -> pd.DataFrame:
    """All sites of the crystal in the image.

    Parameters
    ----------
    lattice, projection
        The crystal.
    shape : (int, int)
        Rows and columns of the image.
    margin_px : float
        How far outside the image sites are still listed (negative: inside).

    Returns
    -------
    DataFrame
        ``species, i, j, x_px, y_px``.
    """
    ny, nx = shape
    corners = np.array([[0, 0], [nx, 0], [0, ny], [nx, ny]], dtype=float)
    ij = lattice.index(corners)
    low, high = np.floor(ij.min(axis=0)) - 3, np.ceil(ij.max(axis=0)) + 3
    ii, jj = np.meshgrid(
        np.arange(low[0], high[0] + 1), np.arange(low[1], high[1] + 1), indexing="ij"
    )
    parts = []
    for site in projection.sites:
        index = np.column_stack([ii.ravel() + site.u, jj.ravel() + site.v])
        xy = lattice.position(index)
        inside = (
            (xy[:, 0] > -margin_px - 0.5)
            & (xy[:, 0] < nx - 0.5 + margin_px)
            & (xy[:, 1] > -margin_px - 0.5)
            & (xy[:, 1] < ny - 0.5 + margin_px)
        )
        parts.append(
            pd.DataFrame(
                {
                    "species": site.species,
                    "i": index[inside, 0],
                    "j": index[inside, 1],
                    "x_px": xy[inside, 0],
                    "y_px": xy[inside, 1],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def _normal(lattice: Lattice, steps: np.ndarray) -> np.ndarray:
    """Give the unit vector in the image along which the layer number grows."""
    gradient = np.linalg.solve(lattice.cell_px, steps)
    return gradient / np.hypot(*gradient)


def _split(layer: np.ndarray, score: np.ndarray) -> tuple[float, float]:
    """Best last plane: share of sites sorted right by it, and its layer number (NaN if none).

    The outside must hold enough sites, and mostly bad ones.
    """
    rounded = np.round(layer * 12) / 12
    levels = np.unique(rounded)
    good = score > SEEN
    best, top = -1.0, np.nan
    for level in levels[:-1]:
        inside = rounded <= level + 1e-6
        n_out = np.count_nonzero(~inside)
        if n_out < MIN_OUTSIDE or levels[-1] - level < MIN_OUTSIDE_LAYERS:
            continue
        if np.count_nonzero(inside) < MIN_OUTSIDE:
            continue
        # both sides count alike, however large the film
        share = 0.5 * (np.mean(good[inside]) + np.mean(~good[~inside]))
        if share > best:
            best, top = float(share), float(level)
    if np.isfinite(top):
        top = _settle(rounded, good, levels, top)
    return best, top


def _settle(rounded: np.ndarray, good: np.ndarray, levels: np.ndarray, top: float) -> float:
    """Move to the outermost plane, followed from the crystal, of which most looks like crystal."""
    start = int(np.flatnonzero(np.isclose(levels, top))[0])
    while start + 1 < len(levels) and np.mean(good[np.isclose(rounded, levels[start + 1])]) > 0.5:
        start += 1
    while start > 0 and np.mean(good[np.isclose(rounded, levels[start])]) <= 0.5:
        start -= 1
    return float(levels[start])


def _tops(strip: np.ndarray, layer: np.ndarray, good: np.ndarray, top: float) -> np.ndarray:
    """Outermost plane of each strip, followed from inside the crystal plane by plane."""
    tops = []
    for number in np.unique(strip):
        here = strip == number
        # a strip must show the planes on both sides of the mean interface, without a gap (strips
        # cut by the image border have some)
        if not all(np.any(here & (layer == top + k)) for k in (-1, 0, 1)):
            continue
        level = top - 2
        while (
            np.any(here & (layer == level + 1)) and np.mean(good[here & (layer == level + 1)]) > 0.5
        ):
            level += 1
        tops.append(level)
    return np.array(tops)


def _describe(
    sites: pd.DataFrame,
    lattice: Lattice,
    steps: np.ndarray,
    layer: np.ndarray,
    top: float,
    share: float,
    shape: tuple[int, int],
    projection: Projection,
) -> Interface:
    normal = _normal(lattice, steps)
    spacing = 1.0 / np.hypot(*np.linalg.solve(lattice.cell_px, steps))
    along = sites[["x_px", "y_px"]].to_numpy() @ np.array([-normal[1], normal[0]])
    # outermost good site in strips of about two columns' width along the interface
    width = 2.2 * max(np.hypot(*lattice.u_px), np.hypot(*lattice.v_px))
    strip = np.floor(along / width).astype(int)
    tops = _tops(strip, np.round(layer * 12) / 12, sites["score"].to_numpy() > SEEN, top)
    roughness = float(np.std(tops)) if len(tops) > 2 else 0.0
    centre = np.array([(shape[1] - 1) / 2, (shape[0] - 1) / 2])
    centre_layer = float((lattice.index(centre[None]) @ steps)[0])
    position = centre + (top + 0.5 - centre_layer) * spacing * normal
    side = max(_SIDES, key=lambda s: float(np.dot(normal, _SIDES[s])))
    angstrom = np.sqrt(
        abs(np.linalg.det(projection.cell_matrix())) / abs(np.linalg.det(lattice.cell_px))
    )
    error = max(roughness / np.sqrt(max(len(tops), 1)), 0.05) * spacing * angstrom
    return Interface(
        side=side,
        position_px=position,
        normal=normal,
        spacing_px=float(spacing),
        steps=(float(steps[0]), float(steps[1])),
        top_layer=top,
        position_err_A=float(error),
        roughness_planes=roughness,
        sorted_share=share,
    )
