"""The page of systematic errors: f, the intensity of oxygen and tilt, from multislice images."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.report import machine, table
from benchmarks.response import BULK, OCCUPANCY, Condition, columns_of, planes_of
from stemdisp.response import (
    CATION_F_ERR,
    COLUMN_F,
    COLUMN_F_ERR,
    cation_displacement,
    multislice_curve,
)

PAGE = Path(__file__).resolve().parent.parent / "docs" / "systematics.md"
THICKNESSES = (5.0, 10.0, 15.0, 20.0)
SEEDS = {5.0: (0,), 10.0: (0, 2), 15.0: (0, 2), 20.0: (0,)}
TILTS = ((0.0, 0.0), (3.0, 0.0), (0.0, 3.0))
PLANES = (1, 2, 3, 4)


def page(folder: Path) -> str:
    """Compute what is missing in `folder` and give the text of the page."""
    alone = {t: [_planes(Condition(t, seed=s), folder) for s in SEEDS[t]] for t in THICKNESSES}
    whole = {t: [_planes(Condition(t, moved="column", seed=1), folder)] for t in (10.0, 15.0)}
    tilted = [(tilt, _planes(Condition(10.0, tilt_mrad=tilt), folder)) for tilt in TILTS]
    return _PAGE.format(
        date=datetime.date.today().isoformat(),
        machine=machine(),
        fractions=_fractions(alone, whole),
        oxygen=_oxygen(alone, whole),
        tilt=_tilt(tilted),
        f_err=CATION_F_ERR,
        column_f=COLUMN_F,
        column_err=COLUMN_F_ERR,
    )


def _planes(condition: Condition, folder: Path) -> pd.DataFrame:
    return planes_of(*columns_of(condition, folder))


def _bulk(planes: pd.DataFrame, name: str) -> float:
    return float(planes.loc[list(BULK), name].mean())


def _f(planes: pd.DataFrame) -> pd.Series:
    """Displacement over the true one, both against the bulk."""
    seen = planes["K_along"] - _bulk(planes, "K_along")
    return seen / (planes["delta_A"] - _bulk(planes, "delta_A"))


def _fractions(
    alone: dict[float, list[pd.DataFrame]], whole: dict[float, list[pd.DataFrame]]
) -> str:
    rows = []
    for what, found in (("K alone", alone), ("K and its O", whole)):
        for thickness, tables in found.items():
            f = pd.concat([_f(t) for t in tables], axis=1)
            true = tables[0]["delta_A"]
            text = [f"{f.loc[n].mean():.2f}" for n in PLANES]
            back = ["-"] * len(PLANES)
            if what == "K alone":
                seen = pd.concat([t["K_along"] - _bulk(t, "K_along") for t in tables], axis=1).mean(
                    axis=1
                )
                moved = cation_displacement(seen.to_numpy(), np.zeros(len(seen)), thickness)[0]
                off = pd.Series(moved, seen.index) - (true - _bulk(tables[0], "delta_A"))
                back = [f"{100 * off.loc[n]:+.1f}" for n in PLANES]
            rows.append((what, f"{thickness:g}", *text, ", ".join(back)))
    names = [f"f at {100 * alone[10.0][0].loc[n, 'delta_A']:.0f} pm" for n in PLANES]
    head = ("moves", "nm", *names, "δ after calibration minus truth, pm")
    return table(head, rows)


def _oxygen(alone: dict[float, list[pd.DataFrame]], whole: dict[float, list[pd.DataFrame]]) -> str:
    rows = []
    for thickness in THICKNESSES:
        tables = alone[thickness] + whole.get(thickness, [])
        curve = multislice_curve("KTaO3", (1, -1, 0), thickness)
        for plane in range(1, len(OCCUPANCY) + 1):
            true = float(np.mean([t.loc[plane, "occupancy"] for t in tables]))
            seen = np.array([t.loc[plane, "O_V"] for t in tables])
            value = float(curve(np.array([seen.mean()]), np.zeros(1))[0][0])
            rows.append(
                (
                    f"{thickness:g}",
                    f"{true:.2f}",
                    f"{seen.mean():.3f}",
                    f"{seen.std(ddof=1):.3f}" if len(seen) > 1 else "-",
                    f"{value:.2f}",
                )
            )
    head = ("nm", "oxygen there", "intensity", "scatter of specimens", "after calibration")
    return table(head, rows)


def _tilt(tilted: list[tuple[tuple[float, float], pd.DataFrame]]) -> str:
    level = tilted[0][1]
    rows = []
    for (x, y), planes in tilted[1:]:
        moved = {name: 100 * (planes[name] - level[name]) for name in ("K_along", "K_across")}
        bulk = {name: float(v.loc[list(BULK)].mean()) for name, v in moved.items()}
        rest = {name: v.loc[list(PLANES)] - bulk[name] for name, v in moved.items()}
        oxygen = (planes["O_V"] - level["O_V"]).loc[list(range(1, 6))]
        rows.append(
            (
                f"{x:g}, {y:g}",
                f"{bulk['K_along']:+.1f}, {bulk['K_across']:+.1f}",
                ", ".join(f"{v:+.1f}" for v in rest["K_along"]),
                ", ".join(f"{v:+.1f}" for v in rest["K_across"]),
                f"{np.abs(oxygen).max():.3f}",
            )
        )
    head = (
        "tilt x, y, mrad",
        "offset of the bulk along u, v, pm",
        "left along u at N = 1 to 4, pm",
        "left along v at N = 1 to 4, pm",
        "largest change of an oxygen intensity",
    )
    return table(head, rows)


_PAGE = """\
# Systematic errors

Written by `python -m benchmarks.calibrate --multislice FOLDER --write` on {date}. {machine}.

What the noise does is in every error bar ([](calibration.md)). What the specimen does to a column
is not: a column is where the electrons say that it is. These figures are from multislice images
(abTEM; 300 kV, 25 mrad, quadrants 6-24 mrad, focus at 0.42 of the thickness, frozen phonons) of
KTaO3 along [1-10], fitted as every image is. K is displaced by 54, 33, 20 and 12 pm in planes 1 to
4, and oxygen is missing in planes 1 to 5. No noise is added; what scatters is thermal motion and
where along the beam the oxygen is missing. The potential is sampled at 0.125 Å, which makes Ta
12 % weaker than 0.08 Å does, and K and O 3 %.

## Which atoms move

The K/O column holds as many O atoms as K. Where K moves alone, the fitted column follows by a
fraction f of it, more for a large displacement, because two rows of atoms half an ångström apart
are no single Gaussian. With `thickness_nm` the run gives the displacement of K for this case
(error of f: ±{f_err}), and that for a column which moves as a whole (f = {column_f} ±
{column_err}).

{fractions}
## Oxygen

Intensity of pure oxygen columns over that of full ones. The thicker the specimen, the less a
missing atom is missed. With `thickness_nm` the occupancy is calibrated with these figures, and its
error holds a tenth of what is missing for the calibration. Without it the occupancy is the ratio
itself: too high by up to 0.1 at 10 nm and by 0.2 at 15 nm. Beyond 20 nm there is none.

{oxygen}
## Tilt

At 10 nm. Tilt displaces all columns, K/O columns not quite as much as their cage, and that looks
like a polarisation of the whole crystal. The bulk reference takes it off; what is left near the
interface is of the same kind and smaller, largest in plane N = 1. A run warns (`tilt-offset`) where
0.7 of what was taken off exceeds the 95 % error bar of that plane.

{tilt}
## The film

In multislice images of the interface that other code has made, plane N = 1 reads 2 to 4 pm more
than an ideal fit of a displacement of 34 to 52 pm: a column of which one half is displaced is the
least Gaussian of all. Without a displacement (film, 10 nm, tilted by 2 and 2 mrad) it is off by 0.4
pm. Where the residual shows that columns are no Gaussians (warning `misfit`), 1 pm and 7.5 % of the
displacement are added to the total error of plane N = 1, which the decay then trusts less.
"""
