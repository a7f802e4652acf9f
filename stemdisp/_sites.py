"""Expected sites of a lattice, and for each the evidence that a column of its kind is there.

Crystallinity is judged site by site: does the image around an expected column look like the mean
column of its kind? That does not depend on brightness.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import ndimage

from stemdisp._pixels import unmeasured
from stemdisp.crystal import Projection
from stemdisp.lattice import Lattice, sample

PATCH_A = 1.1
# Columns differ by more than noise (disorder, defects), and a film is no noise: no single site
# may decide.
MIN_SCATTER = 0.12
MAX_EVIDENCE = 3.0
CRYSTAL = 0.6  # local strength of the lattice from which a place surely is crystal
FILM = 0.3  # and below which it surely is not
NEXT_TO_FILM = 0.6  # share of a film's structure that spreads into the last columns
MIN_TEMPLATE = 8
FOCUS = 0.5  # of the patch's radius


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


class Likeness:
    """How much any place of an image looks like the mean column of a kind.

    The height of the mean column in the patch of 1.1 A radius around a site scatters around 1
    in the crystal and around 0 outside, by about as much. A plane through the patch is left out
    of the comparison, so slow changes of the image count for nothing.

    Parameters
    ----------
    data : ndarray, shape (ny, nx)
        Image with bright columns.
    lattice, projection
        The crystal in it.
    species : tuple of str
        Kinds of columns.

    Attributes
    ----------
    sites : DataFrame
        All sites of these species whose patch lies in the image: ``species, i, j, x_px, y_px,
        height, evidence``. ``height`` is relative to the mean column of the kind, NaN where pixels
        are missing, saturated or dead; ``evidence`` is the logarithm of the likelihood ratio of
        crystal to no crystal, limited to +-3, and 0 where the height is NaN.
    """

    def __init__(
        self, data: np.ndarray, lattice: Lattice, projection: Projection, species: tuple[str, ...]
    ) -> None:
        scale = np.sqrt(
            abs(np.linalg.det(lattice.cell_px)) / abs(np.linalg.det(projection.cell_matrix()))
        )
        radius = PATCH_A * scale
        measured = np.where(unmeasured(data), np.nan, data)
        # single precision would lose the columns on a large offset
        measured = (measured - np.nanmean(data[np.isfinite(data)])).astype(np.float32)
        self._image = ndimage.gaussian_filter(measured, 0.15 * scale)
        line = np.arange(-5, 6) * max(radius / 5, 0.5)
        gx, gy = np.meshgrid(line, line)
        disc = np.hypot(gx, gy) <= radius
        self._offsets = np.column_stack([gx[disc], gy[disc]])
        # the middle counts most: what lies beside the column may be film
        inner = self._offsets / radius
        self._focus = np.exp(-np.sum(inner**2, axis=1) / (2 * FOCUS**2))
        plane = np.column_stack([np.ones(len(inner)), inner]) * self._focus[:, None]
        self._slopes = np.linalg.qr(plane)[0]
        self._template: dict[str, np.ndarray] = {}
        self._spread: dict[str, float] = {}
        table = expected_sites(lattice, projection, data.shape, margin_px=-(radius + 1))
        table = table[table["species"].isin(species)].reset_index(drop=True)
        strength = sample(lattice.crystallinity, lattice.grid_px, _xy(table))
        height, evidence = np.full(len(table), np.nan), np.zeros(len(table))
        for name in dict.fromkeys(species):
            rows = np.flatnonzero(table["species"] == name)
            height[rows] = self._learn(name, _xy(table)[rows], strength[rows])
            evidence[rows] = self.evidence(name, height[rows])
        self.sites = table.assign(height=height, evidence=evidence)

    def compare(self, species: str, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Height of the mean column of a kind at pixel positions (n, 2), and its misfit there.

        The misfit is the sum of squares that a column of height 1 leaves over its own.
        """
        patch, template = self._patches(xy), self._template[species]
        own = 1.0 / (template @ template + 1e-300)
        left = patch - template * own
        return patch @ template, np.sum(left**2, axis=1) / own

    def strength(self, species: str) -> float:
        """Root of the power of the mean column of a kind; 0 if it was not learnt."""
        norm = float(np.linalg.norm(self._template[species]))
        return 1.0 / norm if norm > 0 else 0.0

    def evidence(self, species: str, height: np.ndarray) -> np.ndarray:
        """Evidence that heights are those of columns."""
        # two Gaussians of equal width around 1 and 0; what is beyond them (dirt, the edge of a
        # film) says no more than they do
        ratio = (np.clip(height, 0.0, 1.0) - 0.5) / self._spread[species] ** 2
        return np.nan_to_num(np.clip(ratio, -MAX_EVIDENCE, MAX_EVIDENCE))

    def _patches(self, xy: np.ndarray) -> np.ndarray:
        """Pixels around positions (n, 2), less a plane; NaN where any is missing."""
        points = xy[:, None, :] + self._offsets[None]
        patch = ndimage.map_coordinates(
            self._image, [points[..., 1], points[..., 0]], order=1, mode="nearest"
        )
        patch = patch * self._focus
        return patch - (patch @ self._slopes) @ self._slopes.T

    def _learn(self, species: str, xy: np.ndarray, strength: np.ndarray) -> np.ndarray:
        """Find the mean column and the scatter of one kind; return the heights of its sites."""
        patch = self._patches(xy)
        measured = np.isfinite(patch).all(axis=1)
        good = measured & (strength > CRYSTAL)
        if np.count_nonzero(good) < MIN_TEMPLATE:
            good = measured
        self._template[species], self._spread[species] = np.zeros(patch.shape[1]), np.inf
        if np.count_nonzero(good) < MIN_TEMPLATE:
            return np.full(len(xy), np.nan)
        mean = np.median(patch[good], axis=0)
        for _ in range(3):
            height = patch @ mean / (mean @ mean + 1e-300)
            # columns that are not there, and what is brighter than any column, shape no template;
            # but to choose where noise alone makes such differences would shape it by noise
            off = np.abs(height - np.median(height[good]))
            member = good & (off < max(0.6, 3 * _scatter(height[good])))
            mean = patch[member].mean(axis=0)
        self._template[species] = mean / (mean @ mean + 1e-300)
        height = patch @ self._template[species]
        film = NEXT_TO_FILM * _film(height[measured], strength[measured])
        self._spread[species] = np.hypot(max(_scatter(height[good]), MIN_SCATTER), film)
        return height


def _xy(table: pd.DataFrame) -> np.ndarray:
    return table[["x_px", "y_px"]].to_numpy(dtype=float)


def _film(amount: np.ndarray, strength: np.ndarray) -> float:
    """Scatter of the heights that a film pretends to have; 0 if there is none."""
    outside = amount[strength < FILM]
    return float(1.4826 * np.median(np.abs(outside))) if len(outside) >= MIN_TEMPLATE else 0.0


def _scatter(values: np.ndarray) -> float:
    """Give the standard deviation of normal values with outliers."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))
