"""What the interactive views show, as small typed arrays: columns, arrows, pictures."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pandas as pd

from stemdisp import _plot_style as st
from stemdisp import tables

# Longest side of a display copy; larger images are binned.
MAX_SIDE_PX = 2048
# A larger PNG becomes a WebP, which is lossy, of the first of these qualities that is small enough.
MAX_PNG_BYTES, MAX_WEBP_BYTES = 1_500_000, 1_900_000
QUALITIES = (90, 80, 70, 55, 40, 20)
# Stands for "no plane number" among 16-bit integers.
NO_PLANE = -32768
# Names in the page and names in the table.
_VALUES = {
    "delta": "delta_A",
    "delta_err": "delta_err_A",
    "perp": "delta_perp_A",
    "perp_err": "delta_perp_err_A",
    "occ": "occupancy",
    "occ_err": "occupancy_err",
}


def columns_of(result: Any, species: str) -> pd.DataFrame:
    """Return the columns of one species that have a position, usable or not."""
    frame = st.table(result, "columns")
    return frame[(frame["species"] == species) & frame["x_px"].notna() & frame["y_px"].notna()]


def column_data(result: Any, species: str) -> dict[str, np.ndarray]:
    """Return what the page knows of the columns of one species.

    Parameters
    ----------
    result : Result
        A finished run.
    species : str
        Which columns.

    Returns
    -------
    dict of str to ndarray
        ``x, y`` in nm, ``i, j``, ``quality``, and of ``N, delta, perp, occ`` (with ``_err``, in
        angstrom) those that the table has for this species. ``spread`` is where the column stands
        in a depth profile; not-a-number for columns that take no part. 32-bit floats, 16-bit
        integers.
    """
    frame = columns_of(result, species)
    x, y = st.columns_nm(result, frame).T
    out = {"x": _single(x), "y": _single(y), "i": _single(frame["i"]), "j": _single(frame["j"])}
    out["quality"] = frame["quality"].to_numpy(dtype=np.int16)
    if frame["N"].notna().any():
        out["N"] = frame["N"].fillna(NO_PLANE).to_numpy(dtype=np.int16)
        out["spread"] = _spread(result, frame)
    for name, column in _VALUES.items():
        if frame[column].notna().any():
            out[name] = _single(frame[column])
    return out


def _spread(result: Any, frame: pd.DataFrame) -> np.ndarray:
    """Place the columns that enter a depth profile along the axis of plane numbers."""
    drawn = frame["N"].isin(st.drawn_planes(result)["N"]).to_numpy() & tables.usable(frame)
    out = np.full(len(frame), np.nan, dtype=np.float32)
    out[drawn] = st.spread_sideways(frame[drawn])
    return out


def block_data(result: Any, blocks: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return mean displacements over blocks of cells as ``x, y`` (nm), ``delta, perp`` (A)."""
    x, y = st.columns_nm(result, blocks).T
    perp = blocks["delta_perp_A"].fillna(0.0)
    return {
        "x": _single(x),
        "y": _single(y),
        "delta": _single(blocks["delta_A"]),
        "perp": _single(perp),
    }


def _single(values: Any) -> np.ndarray:
    return np.asarray(values, dtype=np.float32)


def display_copy(
    data: np.ndarray,
    *,
    limits: tuple[float, float],
    max_side_px: int = MAX_SIDE_PX,
    share: float = 1.0,
) -> tuple[str, int, str]:
    """Return an 8-bit grey copy of an image as a data URI, and in words what was lost.

    Parameters
    ----------
    data : ndarray, shape (ny, nx)
        The image; what is not finite becomes black.
    limits : (float, float)
        Values that become black and white.
    max_side_px : int
        Larger images are binned.
    share : float
        Of the bytes that a copy may take.

    Returns
    -------
    (str, int, str)
        The URI, the binning, and a description.
    """
    from PIL import Image

    by = -(-max(data.shape) // max_side_px)
    if by > 1:
        # The border that fills no block is repeated, so that the copy covers the whole image.
        wide = [(0, -n % by) for n in data.shape]
        data = np.pad(np.asarray(data, dtype=np.float32), wide, mode="edge")
        rows, columns = (n // by for n in data.shape)
        data = data.reshape(rows, by, columns, by).mean(axis=(1, 3))
    low, high = limits
    grey = np.clip((np.nan_to_num(data, nan=low) - low) / (high - low) * 255.0, 0, 255)
    picture = Image.fromarray(np.round(grey).astype(np.uint8))
    code, kind, how = _encoded(picture, "PNG", compress_level=6), "png", "8-bit grey"
    for quality in QUALITIES:
        if len(code) <= share * (MAX_PNG_BYTES if kind == "png" else MAX_WEBP_BYTES):
            break
        code = _encoded(picture.convert("RGB"), "WEBP", quality=quality, method=2)
        kind, how = "webp", f"8-bit grey, lossy (WebP, quality {quality})"
    if by > 1:
        how += f", {by} x {by} pixels binned"
    return f"data:image/{kind};base64,{base64.b64encode(code).decode('ascii')}", by, how


def _encoded(picture: Any, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def grey_limits(data: np.ndarray) -> tuple[float, float]:
    """Return the percentiles 0.1 and 99.9 of an image, which become black and white."""
    finite = data[np.isfinite(data)]
    low, high = np.percentile(finite, [0.1, 99.9]).tolist() if finite.size else (0.0, 1.0)
    return low, high if high > low else low + 1.0


def radius_nm(result: Any) -> float:
    """Return a radius with which the rings of neighbouring columns do not overlap much."""
    from scipy.spatial import cKDTree

    centres = st.columns_nm(result)
    centres = centres[np.isfinite(centres).all(axis=1)]
    if len(centres) < 2:
        return 0.05
    nearest, _ = cKDTree(centres).query(centres, k=2)
    return float(0.4 * np.median(nearest[:, 1]))
