"""Synthetic stacks through the whole run: one row of answers, errors and truths each.

Every stack has coloured noise, drift, shear, line jitter, a film and static disorder, and its own
displacements, vacancies, tilt offset and rotation of the interface.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from stemdisp.errors import DataError
from stemdisp.pipeline import run
from stemdisp.result import Result
from stemdisp.simulate import simulate_stack
from stemdisp.tables import Quality

PLANES = 9  # that are compared with the truth one by one
BULK_FROM = 10
FAR_A = 12.0  # single columns: from the border and from the film
OCCUPANCY = (0.45, 0.50, 0.58, 0.66, 0.75, 0.85)


@dataclass(frozen=True)
class Case:
    """One stack to simulate.

    ``kind`` is "decay" (an exponential without end), "ends" (displacement and vacancies end at
    planes of their own), "nothing" (neither), "faint" (delta(1) = 5 pm).
    """

    seed: int
    kind: str
    dose: float
    size: int = 512

    def physics(self) -> dict[str, Any]:
        """Draw what the specimen is like."""
        rng = np.random.default_rng([self.seed, 7])
        drawn: dict[str, Any] = {
            "rotation_deg": float(rng.uniform(-6, 6)),
            "offset_A": tuple(float(x) for x in rng.normal(0, 0.02, 2)),
            "film_A": float(rng.uniform(10, 18)),
        }
        if self.kind == "nothing":
            return drawn | {"delta0_A": 0.0, "occupancy": ()}
        if self.kind == "faint":
            return drawn | {"delta0_A": 0.05, "occupancy": ()}
        drawn |= {"delta0_A": float(rng.uniform(0.3, 0.6)), "xi_planes": float(rng.uniform(1.5, 3))}
        if self.kind == "decay":
            return drawn | {"occupancy": OCCUPANCY}
        last = int(rng.integers(3, 8))
        vacant = int(rng.integers(3, 8))
        return drawn | {
            "last_displaced": last,
            "xi_planes": 4.0,
            "occupancy": tuple(np.linspace(0.45, 0.8, vacant).tolist()),
        }


def answer(case: Case) -> dict[str, Any]:
    """Simulate and analyse one stack."""
    os.environ.setdefault("NUMBA_NUM_THREADS", "1")
    physics = case.physics()
    stack, truth = simulate_stack(
        seed=case.seed, dose_e_per_A2=case.dose, size=case.size, **physics
    )
    row: dict[str, Any] = {"seed": case.seed, "kind": case.kind, "dose": case.dose}
    row["refused"] = None
    row |= {"true_xi": physics.get("xi_planes", np.nan), "true_delta0": physics["delta0_A"]}
    row |= {"true_N_vac": len(physics["occupancy"])}
    row["true_N_disp"] = physics.get("last_displaced", 0)
    try:
        result = run(stack, settings={"analysis": {"dose_series": False, "seed": case.seed}})
    except DataError as error:
        return row | {"refused": str(error)}
    if result.interface is None:
        return row | {"refused": "no interface"}
    guard = result.summary["registration"]["guard"]
    row["warned"] = bool(guard.get("ambiguous"))
    row |= _planes(result, physics) | _depths(result) | _columns(result, truth)
    row["passed"] = result.summary["null_test"]["passed"]
    seen = result.summary["sensitivity"]
    row |= {"seen_delta": seen["delta_detectable_A"]}
    row |= {"seen_occupancy": seen["occupancy_detectable"]}
    within = result.correlation.within_planes
    return row | {"within_p": within["p"], "warnings": len(result.summary["warnings"])}


def _planes(result: Result, physics: dict[str, Any]) -> dict[str, float]:
    """Values, errors and truths of the planes."""
    planes = result.planes.astype("float64").set_index("N")
    out: dict[str, float] = {}
    n = np.arange(1, int(planes.index.max()) + 1)
    xi, last = physics.get("xi_planes", 2.0), physics.get("last_displaced", 0)
    delta = physics["delta0_A"] * np.exp(-(n - 1) / xi) * ((n <= last) | (last == 0))
    bulk = n >= BULK_FROM
    weight = planes["n_columns"].reindex(n).fillna(0).to_numpy(dtype=float) * bulk
    # what the bulk shows is taken off, and a decay without end reaches into the bulk
    delta -= np.average(delta, weights=weight) if weight.sum() > 0 else 0.0
    occupancy = np.append(physics["occupancy"], np.ones(len(n)))[: len(n)]
    for k in range(1, PLANES + 1):
        if k not in planes.index:
            continue
        here = planes.loc[k]
        for name, value, error, true in (
            ("delta", here["delta_A"], here["delta_err_A"], delta[k - 1]),
            ("perp", here["delta_perp_A"], here["delta_perp_err_A"], 0.0),
            ("occ", here["occupancy"], here["occupancy_err"], occupancy[k - 1]),
        ):
            out |= {f"{name}{k}": float(value), f"{name}{k}_err": float(error)}
            out[f"{name}{k}_true"] = float(true)
        out[f"noise{k}"] = float(here["delta_noise_A"])
    return out


def _depths(result: Result) -> dict[str, Any]:
    """Decay, depths and their intervals."""
    decay, depths = result.decay, result.depths
    out: dict[str, Any] = {"xi": decay.xi_planes, "model": decay.model, "decay_p": decay.p}
    out |= dict(zip(("xi_low", "xi_high"), decay.xi_ci_planes, strict=True))
    out |= dict(zip(("delta0_low", "delta0_high"), decay.delta0_ci_A, strict=True))
    for name, depth in (
        ("N_disp", depths.displacement),
        ("N_vac", depths.vacancy),
        ("diff", depths.difference),
    ):
        out[name] = depth.N
        out |= dict(zip((f"{name}_low", f"{name}_high"), depth.ci, strict=True))
    return out


def _columns(result: Result, truth: pd.DataFrame) -> dict[str, float]:
    """Standard deviation of the pulls of single columns, by species."""
    columns = result.columns
    size = result.pixel_size_A[0]
    shape = np.array(result.image.shape[::-1])
    xy = columns[["x_px", "y_px"]].to_numpy(dtype=float)
    inside = np.all((xy > FAR_A / size) & (xy < shape - FAR_A / size), axis=1)
    flawed = Quality.NEAR_FILM | Quality.EDGE | Quality.MASKED | Quality.NOT_DETECTED
    inside &= (columns["quality"].to_numpy(dtype=int) & int(flawed)) == 0
    origin = np.array(result.summary["registration"]["origin_px"])
    tree = cKDTree(truth[["x_px", "y_px"]].to_numpy())
    start = xy + origin
    distance, at = tree.query(np.nan_to_num(start), distance_upper_bound=6.0)
    ok = inside & np.isfinite(distance)
    ok[ok] &= truth["species"].to_numpy()[at[ok]] == columns["species"].to_numpy()[ok]
    true = truth[["x_px", "y_px"]].to_numpy()[at[ok]]
    here, species = xy[ok], columns["species"].to_numpy()[ok]
    # drift is common: shift and shear of the mean image
    design = np.column_stack([np.ones(len(true)), true])
    out: dict[str, float] = {"n_matched": int(ok.sum())}
    off = (here - true) * size
    errors = columns.loc[ok, ["x_err_A", "y_err_A"]].to_numpy(dtype=float)
    rest = off - design @ np.linalg.lstsq(design, off, rcond=None)[0]
    for name in np.unique(species):
        use = species == name
        for axis, label in enumerate("xy"):
            pull = rest[use, axis] / errors[use, axis]
            out[f"pull_{name}_{label}"] = float(np.sqrt(np.mean(pull**2)))
            out[f"err_{name}_{label}"] = float(np.median(errors[use, axis]))
        part = columns.loc[ok][use]
        true_v = truth["intensity"].to_numpy()[at[ok]][use]
        ratio = part["intensity"].to_numpy(dtype=float) / true_v
        scale = np.average(ratio, weights=(true_v / part["intensity_err"].to_numpy()) ** 2)
        pull = (ratio / scale - 1.0) * scale * true_v / part["intensity_err"].to_numpy()
        out[f"pull_{name}_V"] = float(np.sqrt(np.mean(pull**2)))
        out[f"scale_{name}_V"] = float(scale)
    return out


def answers(cases: list[Case], workers: int = 2) -> pd.DataFrame:
    """Run many stacks; one row each."""
    os.environ["NUMBA_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(workers) as pool:
        return pd.DataFrame(list(pool.map(answer, cases, chunksize=2)))
