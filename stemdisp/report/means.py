"""Means over all columns in words, for runs without an interface."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemdisp import _plot_style as st
from stemdisp._plot_numbers import MINUS, UNKNOWN, error_places, fixed, measured


def spread(result: Any, name: str) -> tuple[float, float, int]:
    """Return mean, standard deviation and count of a displacement over usable columns, in pm."""
    values = st.used(result, st.displaced_species(result))[name].dropna().to_numpy(float) * 100
    if not values.size:
        return float("nan"), float("nan"), 0
    return float(values.mean()), float(values.std()), int(values.size)


def mean_with_error(result: Any, name: str) -> str:
    """Write the mean displacement over all columns in pm, with the error of the mean."""
    mean, scatter, count = spread(result, name)
    return measured(mean, scatter / np.sqrt(count) if count > 1 else None)


def scatter(result: Any, name: str) -> str:
    """Write the standard deviation between columns in pm, to the digits of its own error."""
    _, value, count = spread(result, name)
    return fixed(value, error_places(value / np.sqrt(2 * count)) if count > 1 else None)


def mean_vector(result: Any) -> tuple[str, str]:
    """Write the length of the mean displacement vector in pm, and where it points.

    Returns
    -------
    (str, str)
        Length with error, and the angle from u towards v; the angle is "" for a length of less
        than three errors.
    """
    frame = st.used(result, st.displaced_species(result)).dropna(subset=["delta_A", "delta_perp_A"])
    if len(frame) < 2:
        return UNKNOWN, ""
    vectors = st.displacement_vectors(result, frame) * 1000.0
    mean = vectors.mean(axis=0)
    length = float(np.hypot(*mean))
    covariance = np.cov(vectors.T) / len(vectors)
    along = mean / length if length else np.array([1.0, 0.0])
    across = np.array([-along[1], along[0]])
    error, sideways = (float(np.sqrt(max(w @ covariance @ w, 0.0))) for w in (along, across))
    if length < 3 * error:
        return measured(length, error), ""
    u, v = (w / np.linalg.norm(w) for w in st.lattice_nm(result))
    rest = v - (v @ u) * u
    angle = np.degrees(np.arctan2(mean @ rest / np.linalg.norm(rest), mean @ u))
    size = fixed(abs(angle), error_places(np.degrees(sideways / length)))
    names = [st.direction_name(w) for w in (result.projection.u_uvw, result.projection.v_uvw)]
    sign = MINUS if angle < 0 else ""
    return measured(length, error), f"{size}° from {names[0]} towards {sign}{names[1]}"
