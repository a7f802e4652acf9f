"""Which column is which, and which plane: right, refused or wrong on random images.

``python -m benchmarks.sweep --images 400 --write`` draws random specimens (`specimens.py`), finds
lattice and interface without any hint but crystal, zone axis and interface plane, compares every
column with the truth, and writes docs/sweep.md.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.specimens import Picture, draw_case, make_picture
from stemdisp.check import interface_doubts
from stemdisp.crystal import project
from stemdisp.errors import DataError
from stemdisp.interface import Interface, find_interface
from stemdisp.lattice import Lattice, find_lattice

PAGE = Path(__file__).resolve().parent.parent / "docs" / "sweep.md"
# Single columns may sit next to a defect; a wrong assignment moves nearly all of them.
MOST = 0.97
BULK = 4  # planes from the interface on in which A columns sit on their sites


@dataclass(frozen=True)
class Verdict:
    """What became of one image: ``outcome`` is "right", "refused" or what is wrong."""

    seed: int
    outcome: str
    detail: str
    contrast: str
    scene: str
    counts: float
    significance: float
    margin: float


def judge(seed: int) -> Verdict:
    """Draw one image, analyse it, compare."""
    picture = make_picture(draw_case(seed))
    case = picture.case
    outcome, detail, margin = "right", "", np.nan
    projection = project(case.structure, case.view.zone_axis, displaced=case.displaced)
    try:
        lattice = find_lattice(picture.image, projection, pixel_size=case.hint)
        margin = lattice.margin
        lattice, interface = find_interface(
            picture.image,
            lattice,
            projection=projection,
            plane=case.plane,
            cage_species=case.cage,
        )
    except DataError as error:
        outcome, detail = "refused", str(error)
    else:
        outcome, detail = compare(picture, projection.sites, lattice, interface)
        doubts = [] if interface is None else interface_doubts(interface, "", "")
        if outcome == "wrong planes" and doubts:
            outcome, detail = "warned", ", ".join(d["code"] for d in doubts)
    return Verdict(
        seed,
        outcome,
        detail,
        case.contrast,
        case.scene,
        case.counts,
        picture.significance(),
        margin,
    )


def compare(
    picture: Picture, sites: tuple, lattice: Lattice, interface: Interface | None
) -> tuple[str, str]:
    """Say "right" or what is wrong, and how much of it."""
    truth = picture.truth
    ij = lattice.index(truth[["x_px", "y_px"]].to_numpy())
    first = _share(_species_right(picture, sites, lattice, ij), truth, "N")
    second = _share(_species_right(picture, sites, lattice, ij), truth, "other_N")
    if picture.case.scene == "none":
        share = np.mean(_species_right(picture, sites, lattice, ij)[truth["whole"]])
        if share < MOST:
            return "wrong columns", f"{share:.1%} right"
        return ("right", "") if interface is None else ("interface imagined", "")
    if max(first, second) < MOST:
        return "wrong columns", f"{first:.1%}, {second:.1%} right"
    if interface is None:
        return "interface missed", ""
    best = ""
    for name in ("N", "other_N"):
        use = (truth["whole"] & (truth[name] > 0) & ~truth["at_step"]).to_numpy()
        if not use.any():
            continue
        site = _nearest_site(sites, lattice, ij[use])[1]
        off = interface.plane(site) - truth.loc[use, name].to_numpy()
        share = np.mean(off == 0)
        if share >= MOST:
            return "right", ""
        best += f" {name}: {share:.1%} right, median off by {np.median(off):.0f}"
    return "wrong planes", best.strip()


def _share(right: np.ndarray, truth: pd.DataFrame, name: str) -> float:
    use = (truth["whole"] & (truth[name] >= BULK)).to_numpy()
    return float(np.mean(right[use])) if use.any() else 0.0


def _species_right(picture: Picture, sites: tuple, lattice: Lattice, ij: np.ndarray) -> np.ndarray:
    """Whether the site nearest to each true column is of its species."""
    species = np.array([s.species for s in sites])
    return species[_nearest_site(sites, lattice, ij)[0]] == picture.truth["species"].to_numpy()


def _nearest_site(sites: tuple, lattice: Lattice, ij: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number and indices of the site nearest to fractional indices (n, 2)."""
    distance, where = [], []
    for site in sites:
        place = np.array([site.u, site.v])
        here = np.rint(ij - place) + place
        distance.append(np.hypot(*((ij - here) @ lattice.cell_px).T))
        where.append(here)
    number = np.argmin(distance, axis=0)
    return number, np.array(where)[number, np.arange(len(ij))]


def run(seeds: range, workers: int = 2) -> pd.DataFrame:
    """Judge many images; one row each."""
    with ProcessPoolExecutor(workers) as pool:
        verdicts = list(pool.map(judge, seeds, chunksize=4))
    return pd.DataFrame([vars(v) for v in verdicts])
