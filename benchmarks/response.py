"""Multislice images of known crystals, and what the fit makes of them.

Bulk crystals that repeat: planes 1 to 5 with displaced columns and missing oxygen, the others
whole. Images are kept in a folder, because they take minutes each.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from stemdisp.dpc import integrate_dpc
from stemdisp.lamella import Lamella
from stemdisp.multislice import Optics, multislice, resampled
from stemdisp.refine import refine_columns

PIXEL_A = 0.1
OCCUPANCY = (0.4, 0.5, 0.6, 0.75, 0.9)
N_PLANES = 9
BULK = (7, 8)  # planes far from the missing oxygen on both sides
COPIES = 3
U_A, V_A = 2.8203, 3.9885  # of KTaO3 along [1-10]


@dataclass(frozen=True, eq=False)
class Image:
    """The quadrants (4, ny, nx) of one repeat, its pixel and box (angstrom), and its columns."""

    data: np.ndarray
    pixel_A: tuple[float, float]
    box_A: tuple[float, float, float]
    columns: pd.DataFrame


@dataclass(frozen=True)
class Condition:
    """One specimen and how it is held."""

    thickness_nm: float
    moved: str = "cation"
    tilt_mrad: tuple[float, float] = (0.0, 0.0)
    seed: int = 0
    occupancy: tuple[float, ...] = OCCUPANCY
    delta0_A: float = 0.54

    def name(self) -> str:
        """Give the name of its file."""
        shares = "-".join(f"{100 * share:.0f}" for share in self.occupancy)
        tilt = "_".join(f"{t:g}" for t in self.tilt_mrad)
        return f"{self.thickness_nm:g}nm_{self.moved}_{tilt}_{shares}_{self.delta0_A:g}_{self.seed}"

    def compute(self, folder: Path) -> Image:
        """Compute the image, or read it if it is there."""
        path = folder / f"{self.name()}.npz"
        if path.exists():
            with np.load(path) as file:
                columns = pd.read_csv(io.StringIO(str(file["columns"])))
                return Image(file["data"], tuple(file["pixel_A"]), tuple(file["box_A"]), columns)
        lamella = Lamella(
            thickness_nm=self.thickness_nm,
            moved=self.moved,
            occupancy=self.occupancy,
            delta0_A=self.delta0_A,
            film_A=0.0,
            n_planes=N_PLANES,
            seed=self.seed,
        )
        optics = Optics(tilt_mrad=self.tilt_mrad, potential_step_A=0.125)
        found = multislice(lamella, optics, seed=self.seed)
        data, pixel = resampled(found, PIXEL_A)
        image = Image(data[0], pixel, found.atoms.box_A, found.atoms.columns)
        folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            path,
            data=image.data.astype(np.float32),
            pixel_A=image.pixel_A,
            box_A=image.box_A,
            columns=image.columns.to_csv(index=False),
        )
        return image


def columns_of(
    condition: Condition, folder: Path, **options: Any
) -> tuple[pd.DataFrame, np.ndarray]:
    """Fit an image of a condition; the columns of its middle copy with the truth, and u."""
    found = condition.compute(folder)
    pixel, one = found.pixel_A, found.columns
    image = integrate_dpc(np.tile(found.data, (1, COPIES, COPIES)), pixel_size_A=pixel[0])
    width, height, _ = found.box_A
    tiles = [
        one.assign(
            x_A=one["x_A"] + a * width, y_A=one["y_A"] + b * height, middle=(a == 1) & (b == 1)
        )
        for a in range(COPIES)
        for b in range(COPIES)
    ]
    table = pd.concat(tiles, ignore_index=True)
    table["x_px"], table["y_px"] = table["x_A"] / pixel[0], table["y_A"] / pixel[1]
    options = {"noise": "idpc"} | options
    fitted = refine_columns(image, table[["species", "x_px", "y_px"]], pixel_size=pixel, **options)
    table["dx_A"] = (fitted["x_px"] - table["x_px"]) * pixel[0]
    table["dy_A"] = (fitted["y_px"] - table["y_px"]) * pixel[1]
    table["intensity"], table["sigma_A"] = fitted["intensity"], fitted["sigma_A"]
    u = _u(one, found.box_A)
    table = _from_cage(table, u)
    return table[table["middle"]].reset_index(drop=True), u


def _from_cage(table: pd.DataFrame, u: np.ndarray) -> pd.DataFrame:
    """Displacement of every column from the mean of the Ta/O cage about its site (K only)."""
    tree = cKDTree(table[["x_A", "y_A"]].to_numpy())
    off = table[["dx_A", "dy_A"]].to_numpy()
    v = np.array([u[1], -u[0]])
    where = table.loc[table["species"] == "K", ["x_A", "y_A"]]
    pairs = [(0.0, 0.5 * V_A), (0.5 * U_A, 0.5 * V_A), (0.5 * U_A, -0.5 * V_A)]
    centre = np.zeros((len(where), 2))
    for a, b in pairs:
        step = a * u + b * v
        for sign in (1.0, -1.0):
            distance, at = tree.query(where.to_numpy() + sign * step)
            centre += np.where(distance[:, None] < 0.05, off[at], np.nan) / (2 * len(pairs))
    out = table.assign(cage_x=0.0, cage_y=0.0)
    out.loc[where.index, ["cage_x", "cage_y"]] = centre
    return out


def _u(columns: pd.DataFrame, box: tuple[float, float, float]) -> np.ndarray:
    """Unit vector u in the image, from columns half a cell apart along u."""
    ij = columns[["i", "j"]].to_numpy()
    xy = columns[["x_A", "y_A"]].to_numpy()
    a, b = np.nonzero(
        (np.abs(ij[:, None, 0] - ij[None, :, 0] - 1) < 1e-6)
        & (np.abs(ij[:, None, 1] - ij[None, :, 1]) < 1e-6)
    )
    off = xy[a] - xy[b]
    off -= np.array(box[:2]) * np.rint(off / np.array(box[:2]))
    mean = np.median(off, axis=0)
    return mean / np.hypot(*mean)


def planes_of(columns: pd.DataFrame, u: np.ndarray) -> pd.DataFrame:
    """Means of the planes: displacement from the cage cations, and oxygen over that of the bulk."""
    v = np.array([u[1], -u[0]])
    table = columns.assign(
        along=(columns[["dx_A", "dy_A"]].to_numpy() - columns[["cage_x", "cage_y"]].to_numpy()) @ u,
        across=(columns[["dx_A", "dy_A"]].to_numpy() - columns[["cage_x", "cage_y"]].to_numpy())
        @ v,
    )
    out = {}
    for name in ("K", "O", "Ta"):
        part = table[table["species"] == name].groupby("N")
        whole = part["intensity"].mean().loc[list(BULK)].mean()
        out[f"{name}_V"] = part["intensity"].mean() / whole
        out[f"{name}_along"] = part["along"].mean()
        out[f"{name}_across"] = part["across"].mean()
    part = table[table["species"] == "O"].groupby("N")
    out["occupancy"] = part["occupancy"].mean()
    out["delta_A"] = table[table["species"] == "K"].groupby("N")["delta_A"].mean()
    return pd.DataFrame(out)
