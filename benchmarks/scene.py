"""The test image: KTaO3 [1-10] with [111] up, known truth, four kinds of noise.

0.10 A per px; peak heights Ta 1.0, KO 0.55, O 0.25 on a background of 0.10; widths 0.45, 0.42,
0.40 A. K is displaced by 0.54 exp(-(N-1)/2) A, the O occupancy is 1 - 0.4 exp(-(N-1)/2). Every
column has a static random displacement of 5 pm rms per axis, so that a method that reports the
middle of the neighbours cannot look good. No column lies within 1.6 A of the border.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from stemdisp.simulate import Scan, Specimen, build_columns, idpc_noise, render

PIXEL_A = 0.10
BACKGROUND = 0.10
PEAK = {"Ta": 1.0, "K": 0.55, "O": 0.25}
SIGMA_A = {"Ta": 0.45, "K": 0.42, "O": 0.40}
SPECIES = tuple(PEAK)
BORDER_A = 1.6
DISORDER_A = 0.05
START_JITTER_PX = 0.3


@dataclass(frozen=True)
class Kind:
    """A noise: its name in the table, its model, and its level as `column_bounds` takes it."""

    name: str
    noise: str
    level: float


KINDS = (
    Kind("white, 0.05 rms", "white", 0.05**2),
    Kind("Poisson, 100 counts", "poisson", 100.0),
    Kind("Poisson, 10 counts", "poisson", 10.0),
    Kind("iDPC, 1/k²", "idpc", 5e-4),
)


def true_columns(size: int, seed: int = 0) -> pd.DataFrame:
    """Give the columns of the image; ``static_x_px, static_y_px`` are the random displacements."""
    depth = np.arange(int(0.1 * size) + 30)
    tables = []
    for disorder in (DISORDER_A, 0.0):
        specimen = Specimen(
            occupancy=tuple(1 - 0.4 * np.exp(-depth / 2)),
            offset_A=(0.0, 0.0),
            disorder_A=disorder,
            film_A=1.7,
            film_density_per_A2=0.0,
            rotation_deg=0.0,
        )
        scan = Scan(size=size, pixel_size_A=PIXEL_A)
        tables.append(build_columns(specimen, scan, np.random.default_rng(seed))[0])
    truth, ideal = tables
    width = truth["species"].map(SIGMA_A)
    volume = truth["species"].map(PEAK) * 2 * np.pi * width**2 * truth["occupancy"].fillna(1.0)
    truth = truth.assign(
        sigma_A=width,
        intensity=volume,
        static_x_px=truth["x_px"] - ideal["x_px"],
        static_y_px=truth["y_px"] - ideal["y_px"],
    )
    low, high = BORDER_A / PIXEL_A, size - 1 - BORDER_A / PIXEL_A
    inside = truth["x_px"].between(low, high) & truth["y_px"].between(low, high)
    return truth[inside].reset_index(drop=True)


def direction() -> np.ndarray:
    """Give the direction [110] of the displacement in the image: x to the right, y down."""
    tables = []
    for delta in (0.54, 0.0):
        specimen = Specimen(
            delta0_A=delta,
            disorder_A=0.0,
            film_A=1.7,
            film_density_per_A2=0.0,
            rotation_deg=0.0,
            occupancy=(),
        )
        scan = Scan(size=128, pixel_size_A=PIXEL_A)
        tables.append(build_columns(specimen, scan, np.random.default_rng(0))[0])
    moved, still = (t[(t["species"] == "K") & (t["N"] == 1)] for t in tables)
    both = moved.merge(still, on=["i", "j"], suffixes=("", "_still"))
    step = np.array([(both[a] - both[f"{a}_still"]).mean() for a in ("x_px", "y_px")])
    return step / np.hypot(*step)


def perfect_image(truth: pd.DataFrame, size: int) -> np.ndarray:
    """Draw the columns on their background without noise."""
    blobs = np.column_stack(
        [
            truth["x_px"],
            truth["y_px"],
            truth["intensity"] / PIXEL_A**2,
            truth["sigma_A"] / PIXEL_A,
        ]
    )
    return BACKGROUND + render(blobs, np.zeros((size, 2)), size)


def add_noise(perfect: np.ndarray, kind: Kind, seed: int) -> np.ndarray:
    """Give one noisy realisation, in the units of the perfect image."""
    rng = np.random.default_rng([seed, 1])
    if kind.noise == "white":
        return perfect + rng.normal(0, np.sqrt(kind.level), perfect.shape)
    if kind.noise == "poisson":
        return rng.poisson(kind.level * perfect) / kind.level
    return perfect + idpc_noise(len(perfect), PIXEL_A, 0.5 / kind.level, rng)


def starts(truth: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Give starting points: the truth with a jitter of 0.3 px rms."""
    jitter = np.random.default_rng([seed, 2]).normal(
        0, START_JITTER_PX / np.sqrt(2), (len(truth), 2)
    )
    return truth[["species"]].assign(
        x_px=truth["x_px"] + jitter[:, 0], y_px=truth["y_px"] + jitter[:, 1]
    )
