"""Planes and columns whose truth is known, for the tests of the statistics."""

import numpy as np
import pandas as pd

from stemdisp._values import average

N = np.arange(1, 21)
DECAY = 0.54 * np.exp(-(N - 1) / 2.0)
VACANCIES = np.append([0.45, 0.5, 0.58, 0.66, 0.75, 0.85], np.ones(14))
ZERO = np.zeros(N.size)
FULL = np.ones(N.size)
NO_COLUMNS = pd.DataFrame(
    {
        "species": pd.Series(dtype=object),
        "quality": pd.Series(dtype="int64"),
        **{
            name: pd.Series(dtype=float)
            for name in "i j N delta_A delta_err_A occupancy occupancy_err".split()
        },
    }
)


def make_planes(rng, delta=ZERO, occupancy=FULL, *, err=0.01, occ_err=0.012, true_err=None):
    """Plane table with Gaussian errors; `true_err` if the stated delta error is a lie."""
    size = N.size
    noise = err if true_err is None else true_err
    return pd.DataFrame(
        {
            "N": pd.array(N, dtype="Int64"),
            "depth_nm": (N - 1) * 0.23028,
            "delta_A": delta + noise * rng.standard_normal(size),
            "delta_err_A": np.broadcast_to(err, size),
            "occupancy": occupancy + occ_err * rng.standard_normal(size),
            "occupancy_err": np.broadcast_to(occ_err, size),
        }
    )


def make_columns(rng, delta, occupancy, *, rows=30, err=0.04, occ_err=0.05, row_noise=0.0):
    """K at (i, j) and O at (i + 1/2, j + 1/2), one of each per row and plane.

    `delta` and `occupancy` are (planes,) or (rows, planes).
    """
    i, n = (a.ravel() for a in np.meshgrid(np.arange(rows), N, indexing="ij"))
    truth = [np.broadcast_to(v, (rows, N.size)).ravel() for v in (delta, occupancy)]
    shared = row_noise * rng.standard_normal((2, rows))[:, i]
    size, nan = i.size, np.full(i.size, np.nan)
    k = {
        "species": "K", "i": i * 1.0, "j": 1.0 - n - i, "N": n,
        "delta_A": truth[0] + err * rng.standard_normal(size) + shared[0],
        "delta_err_A": np.full(size, err), "occupancy": nan, "occupancy_err": nan,
    }  # fmt: skip
    o = {
        "species": "O", "i": i + 0.5, "j": 0.5 - n - i, "N": n, "delta_A": nan,
        "delta_err_A": nan, "occupancy": truth[1] + occ_err * rng.standard_normal(size) + shared[1],
        "occupancy_err": np.full(size, occ_err),
    }  # fmt: skip
    table = pd.concat([pd.DataFrame(k), pd.DataFrame(o)], ignore_index=True)
    return table.assign(quality=0, N=table["N"].astype("Int64"))


def planes_of(columns):
    """Plane averages as the stages make them."""
    number = {name: columns[name].to_numpy(dtype=float) for name in columns if name != "species"}
    out = {"N": N, "depth_nm": (N - 1) * 0.23028}
    for value, error in (("delta_A", "delta_err_A"), ("occupancy", "occupancy_err")):
        parts = [np.flatnonzero((number["N"] == n) & np.isfinite(number[value])) for n in N]
        means = [
            average(number[value][k], number[error][k], clusters=np.floor(number["i"][k]))
            for k in parts
        ]
        out |= {value: [m[0] for m in means], error: [m[2] for m in means]}
    return pd.DataFrame(out).astype({"N": "Int64"})
