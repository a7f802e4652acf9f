"""Which column is which, and which plane: right, warned, refused or wrong on random images.

``python -m benchmarks.sweep --write`` draws random specimens (`specimens.py`), finds lattice and
interface with nothing known but crystal, zone axis and interface plane (and, for half of the
images, a pixel size that is up to 10 % wrong), compares every column with the truth, and writes
docs/sweep.md.
"""

from __future__ import annotations

import datetime
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from benchmarks.report import machine, table
from benchmarks.specimens import AT_STEP_A, MIN_RATIO, Picture, draw_case, make_picture
from stemdisp.check import interface_doubts
from stemdisp.crystal import project
from stemdisp.errors import DataError
from stemdisp.interface import Interface, find_interface
from stemdisp.lattice import Lattice, find_lattice
from stemdisp.simulate import simulate_stack

PAGE = Path(__file__).resolve().parent.parent / "docs" / "sweep.md"
# Single columns may sit next to a defect; a wrong assignment moves nearly all of them.
MOST = 0.97
USABLE = 5.0
OUTCOMES = ("right", "warned", "refused")
BULK = 4  # planes from the interface on in which A columns sit on their sites


@dataclass(frozen=True)
class Verdict:
    """What became of one image.

    ``outcome`` is "right", "warned" (wrong, and a doubt says so), "refused", or what is wrong;
    ``species`` says whether all columns have the right one.
    """

    seed: int
    outcome: str
    detail: str
    contrast: str
    scene: str
    counts: float
    significance: float
    margin: float
    species: bool


def judge(seed: int) -> Verdict:
    """Draw one image, analyse it, compare."""
    picture = make_picture(draw_case(seed))
    case = picture.case
    outcome, detail, margin, species = "right", "", np.nan, False
    projection = project(case.structure, case.view.zone_axis, displaced=case.displaced)
    try:
        lattice = find_lattice(picture.image, projection, pixel_size=case.hint)
        margin = lattice.margin
        species = species_share(picture, projection.sites, lattice) >= MOST
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
        species,
    )


def compare(
    picture: Picture, sites: tuple, lattice: Lattice, interface: Interface | None
) -> tuple[str, str]:
    """Say "right" or what is wrong, and how much of it."""
    truth = picture.truth
    ij = lattice.index(truth[["x_px", "y_px"]].to_numpy())
    share = species_share(picture, sites, lattice)
    if share < MOST:
        return "wrong columns", f"{share:.1%} right"
    if picture.case.scene == "none":
        return ("right", "") if interface is None else ("interface imagined", "")
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


def species_share(picture: Picture, sites: tuple, lattice: Lattice) -> float:
    """Share of the true columns whose nearest site is of their species, of one crystal.

    Those that lie near the film, where they are displaced, do not count.
    """
    truth = picture.truth
    ij = lattice.index(truth[["x_px", "y_px"]].to_numpy())
    right = _species_right(picture, sites, lattice, ij)
    whole = truth["whole"].to_numpy()
    if picture.case.scene == "none":
        return float(np.mean(right[whole]))
    uses = [whole & (truth[name] >= BULK).to_numpy() for name in ("N", "other_N")]
    return max(float(np.mean(right[use])) for use in uses if use.any())


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


def summary(verdicts: pd.DataFrame) -> str:
    """Give the tables of the page."""
    kind = verdicts["outcome"].where(verdicts["outcome"].isin(OUTCOMES), "wrong")
    seen = verdicts["significance"]
    usable = seen >= USABLE
    groups: list[tuple[str, pd.Series]] = [
        (f"usable dose: a cage cation at {USABLE:g} standard errors or more", usable),
        ("less", ~usable),
        ("all", seen > 0),
    ]
    for name, column in (
        ("contrast", "contrast"),
        ("scene", "scene"),
        ("counts per px", "counts"),
    ):
        for value in sorted(verdicts[column].unique()):
            label = "noise-free" if value == np.inf else value
            label = f"{label:g}" if isinstance(label, float) else label
            groups.append((f"usable, {name} {label}", usable & (verdicts[column] == value)))
    rows = []
    for name, mask in groups:
        counts = [int(np.count_nonzero(mask & (kind == k))) for k in (*OUTCOMES, "wrong")]
        total = sum(counts)
        if total:
            shares = (counts[0] / total, verdicts["species"][mask].mean())
            rows.append((name, str(total), *map(str, counts), *(f"{x:.1%}" for x in shares)))
    parts = [
        table(("images", "number", *OUTCOMES, "wrong in silence", "right", "species right"), rows)
    ]
    odd = verdicts[(kind != "right") & usable].sort_values("significance")
    parts.append("What was not right at a usable dose:\n")
    parts.append(
        table(
            ("seed", "image", "counts per px", "significance", "outcome", "what"),
            [
                (
                    str(v.seed),
                    f"{v.contrast}, {v.scene}",
                    f"{v.counts:g}",
                    f"{v.significance:.1f}",
                    v.outcome,
                    v.detail[:90].replace("|", "/"),
                )
                for v in odd.itertuples()
            ],
        )
    )
    return "\n".join(parts)


def times(sizes: tuple[int, ...] = (1024, 4096), runs: int = 3) -> str:
    """Give the time of lattice and interface on large images, by one thread."""
    rows = []
    projection = project("KTaO3", (1, -1, 0), displaced="K")
    for size in sizes:
        image = simulate_stack(n_frames=1, size=size, seed=3)[0].inav[0].data
        seconds = []
        for _ in range(runs):
            start = time.process_time()
            lattice = find_lattice(image, projection)
            middle = time.process_time()
            find_interface(image, lattice, projection=projection)
            seconds.append((middle - start, time.process_time() - middle))
        lattice_s, interface_s = np.median(seconds, axis=0)
        rows.append((f"{size} x {size}", f"{lattice_s:.2f}", f"{interface_s:.2f}"))
    return table(("image", "find_lattice, s", "find_interface, s"), rows)


@click.command()
@click.option("--images", default=600, show_default=True, type=click.IntRange(min=1))
@click.option("--first", default=0, show_default=True, help="Seed of the first image.")
@click.option("--workers", default=2, show_default=True)
@click.option("--write", is_flag=True, help="Write docs/sweep.md as well.")
def main(images: int, first: int, workers: int, write: bool) -> None:
    """Judge random images and print the tables."""
    text = summary(run(range(first, first + images), workers))
    with threadpool_limits(1):
        text += f"\nProcessor time of one thread, median of three runs:\n\n{times()}"
    click.echo(text)
    if write:
        arguments = f"--images {images}" + (f" --first {first}" if first else "")
        page = _PAGE.format(
            arguments=arguments,
            date=datetime.date.today().isoformat(),
            machine=machine(),
            images=images,
            usable=f"{USABLE:g}",
            ratio=f"{MIN_RATIO:g}",
            step=f"{AT_STEP_A:g}",
            most=f"{1 - MOST:.0%}",
            tables=text.rstrip() + "\n",
        )
        PAGE.write_text(page, encoding="utf-8")


_PAGE = """\
# Sweep of random images

Written by `python -m benchmarks.sweep {arguments} --write` on {date}. {machine}.

{images} images of perovskites, drawn by code that shares no geometry with the package: KTaO3,
SrTiO3, BaTiO3, PbTiO3, LaAlO3 along [1-10] and [100]; interfaces along (111), (001), (110) or
(011); iDPC, HAADF and ABF contrast with intensities that vary by detector and thickness; 0.08 to
0.25 Å per px, any rotation, mirror images, axes scaled differently by up to 5 %, up to 2° of
shear, strain that varies by up to 1 % across the field; no noise, or 1000 to 3 counts per px. One
image in five has no interface, two have a flat one, one a step of one or two planes; in the rest
a film lies between two crystals (in step or not), or a crystal between two films. Near the film
the A cations are displaced by 0.5 Å, and half of the oxygen is missing. Each of these defects is
in one image of five: 1.5 % of the columns missing, strangers on no site, a hole, a dead border
(zero or not-a-number), a saturated patch, a gradient of the sensitivity.

`find_lattice` and `find_interface` are given crystal, zone axis and interface plane, and for half
of the images a pixel size that is up to 10 % wrong.

An image is **right** if the species and the plane number of all columns but {most} are;
**warned** if plane numbers are wrong and a warning of the run says so; **refused** if the answer
was an error; otherwise it is **wrong in silence**. Left out of the count: columns in holes and
saturated patches, columns within {step} Å of a step (they have two plane numbers), and those
behind a hole in the interface.

The dose is **usable** if the Cramér-Rao bound allows a single cage cation to be seen at {usable}
standard errors of its intensity: the interface is judged column by column. Images in which only
brightness tells A from B (along [100], or by HAADF) have A and B that differ by a factor of
{ratio} or more: less than that can be the specimen's thickness.

{tables}"""

if __name__ == "__main__":
    main(prog_name="python -m benchmarks.sweep")
