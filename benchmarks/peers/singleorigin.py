"""SingleOrigin's fit of a group of Gaussians, called for each column with its close neighbours.

Version 3.0.1 as released raises TypeError in every fit: it calls scikit-image's ``moments`` with
points. The two functions it needs are supplied here. Its own grouping stops where two columns share
a watershed region, as O does with Ta here, so the group is given to its fitter directly: an O with
the Ta within 1.6 A of it, or a K, on discs of 1.0 A. The Gaussians are circular, which its
documentation advises for columns that overlap. The radius is the best of six, 0.8 to 1.3 A, on an
image of other disorder, noise and starts than those of the table.
"""

from __future__ import annotations

import contextlib
import io
from types import SimpleNamespace

import numpy as np
from protocol import serve

GROUP_A, RADIUS_A = 1.6, 1.0


def moments(x: np.ndarray, y: np.ndarray, z: np.ndarray, order: int = 1) -> np.ndarray:
    """Give the moments [i, j] of the weights z at points x, y."""
    powers = range(order + 1)
    return np.array([[np.sum(x**i * y**j * z) for j in powers] for i in powers])


def central_moments(x: np.ndarray, y: np.ndarray, z: np.ndarray, order: int = 2) -> np.ndarray:
    """Give the moments about the centre."""
    first = moments(x, y, z)
    return moments(x - first[1, 0] / first[0, 0], y - first[0, 1] / first[0, 0], z, order)


def load() -> None:
    """Import it, quietly, and mend it."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        from SingleOrigin.utils import peakfit
    peakfit.moments, peakfit.moments_central = moments, central_moments


def fit(scene: SimpleNamespace) -> np.ndarray:
    """Give the positions; of a Ta in two groups the mean."""
    from scipy.spatial import cKDTree
    from SingleOrigin.utils.peakfit import fit_gaussian_group

    image = scene.image.astype(np.float64)
    starts = np.column_stack([scene.x_px, scene.y_px])
    discs = [disc(at, RADIUS_A / scene.pixel_A, image.shape) for at in starts]
    near = cKDTree(starts).query_ball_point(starts, GROUP_A / scene.pixel_A)
    fits: list[list[np.ndarray]] = [[] for _ in starts]
    alone = np.ones(len(starts), dtype=bool)
    for k in np.argsort(scene.species != "O", kind="stable"):  # O and its Ta come first
        if scene.species[k] != "O" and not alone[k]:
            continue
        group = [k, *(m for m in near[k] if m != k and scene.species[m] != scene.species[k])]
        with contextlib.suppress(ValueError, FloatingPointError, np.linalg.LinAlgError):
            found = fit_gaussian_group(
                image, starts[group], [discs[m] for m in group], use_circ_gauss=True
            )
            for m, values in zip(group, found, strict=True):
                fits[m].append(values[:2])
            alone[group] = False
    lost = np.full(2, np.nan)
    return np.array([np.mean(f, axis=0) if f else lost for f in fits])


def disc(at: np.ndarray, radius: float, shape: tuple[int, int]) -> np.ndarray:
    """Give the pixels (2, n), x and y, within `radius` of a point."""
    (left, top), (right, bottom) = np.floor(at - radius), np.ceil(at + radius)
    x, y = np.meshgrid(
        np.arange(max(left, 0), min(right, shape[1] - 1) + 1),
        np.arange(max(top, 0), min(bottom, shape[0] - 1) + 1),
    )
    inside = np.hypot(x - at[0], y - at[1]) <= radius
    return np.stack([x[inside], y[inside]]).astype(int)


if __name__ == "__main__":
    serve(fit, ("SingleOrigin", "scikit-image", "pandas", "numpy", "scipy"), load)
