"""Tables of fitted columns of KTaO3 [1-10] below a film, as a perfect fit would give them."""

import numpy as np
import pandas as pd

from stemdisp.lattice import Lattice

PIXEL_A = 0.15
U_A, V_A = 2.8203, 3.9885
ERR_A = {"K": 0.010, "Ta": 0.006, "O": 0.020}
VOLUME = {"K": 0.33, "Ta": 0.40, "O": 0.18}


def make_lattice(rotation_deg=-54.7, *, shear=0.0, distortion=None, pixel=(PIXEL_A, PIXEL_A)):
    """Lattice whose layers i + j grow upwards (y is down); `shear` moves x by shear * y."""
    turn = np.deg2rad(rotation_deg)
    u = U_A * np.array([np.cos(turn), np.sin(turn)])
    v = V_A * np.array([np.sin(turn), -np.cos(turn)])
    cell = np.stack([u, v]) @ np.array([[1.0, 0.0], [shear, 1.0]]) / np.array(pixel)
    return Lattice(
        origin_px=np.array([40.0, 30.0]),
        u_px=cell[0],
        v_px=cell[1],
        centre_px=np.array([200.0, 160.0]),
        scale_px=200.0,
        distortion=np.zeros((7, 2)) if distortion is None else distortion,
    )


def columns_of(lattice, *, rows=12, planes=18, pixel=(PIXEL_A, PIXEL_A)):
    """All columns of `rows` [001] rows and `planes` planes, each exactly on its site."""
    i, n = (a.ravel() for a in np.meshgrid(np.arange(rows), np.arange(1, planes + 1)))
    parts = []
    for species, du, layer in (("K", 0.0, 1.0), ("Ta", 0.0, 1.5), ("O", 0.5, 1.0)):
        parts.append(
            pd.DataFrame({"species": species, "i": i + du, "j": layer - n - (i + du), "N": n})
        )
    left = parts[-1][parts[-1]["i"] == 0.5].assign(i=-0.5, j=lambda t: t["j"] + 1)
    table = pd.concat([*parts, left], ignore_index=True)
    xy = lattice.position(table[["i", "j"]].to_numpy(dtype=float))
    err = table["species"].map(ERR_A)
    volume = table["species"].map(VOLUME)
    table = table.assign(
        N=table["N"].astype("Int64"),
        layer=table["i"] + table["j"],
        x_px=xy[:, 0],
        y_px=xy[:, 1],
        x_A=xy[:, 0] * pixel[0],
        y_A=xy[:, 1] * pixel[1],
        x_err_A=err,
        y_err_A=err,
        intensity=volume,
        intensity_err=0.02 * volume,
        quality=0,
    )
    return table


def moved(table, where, shift_A, *, pixel=(PIXEL_A, PIXEL_A)):
    """Shift the chosen columns by a vector, or one vector each, in angstrom along x and y."""
    where = np.asarray(where)
    shift = np.zeros((len(table), 2))
    shift[where] = shift_A
    return table.assign(
        x_A=table["x_A"] + shift[:, 0],
        y_A=table["y_A"] + shift[:, 1],
        x_px=table["x_px"] + shift[:, 0] / pixel[0],
        y_px=table["y_px"] + shift[:, 1] / pixel[1],
    )


def is_(table, species):
    return (table["species"] == species).to_numpy()


def plane(table):
    return table["N"].to_numpy(dtype=float)


def directions(lattice, table, *, pixel=(PIXEL_A, PIXEL_A)):
    """Unit vectors of u and v at every column, by differences of true positions."""
    ij = table[["i", "j"]].to_numpy(dtype=float)
    out = []
    for axis in np.eye(2):
        step = lattice.position(ij + axis / 2) - lattice.position(ij - axis / 2)
        step = step * np.array(pixel)
        out.append(step / np.hypot(*step.T)[:, None])
    return out


def with_noise(table, rng, *, position=None, intensity=None):
    """Add independent errors of the stated sizes (or of those given for each species)."""
    sigma = table["x_err_A"].to_numpy() if position is None else table["species"].map(position)
    shift = rng.normal(size=(len(table), 2)) * np.asarray(sigma)[:, None]
    table = moved(table, np.ones(len(table), dtype=bool), shift)
    spread = table["intensity_err"] if intensity is None else intensity
    return table.assign(intensity=table["intensity"] + rng.normal(size=len(table)) * spread)
