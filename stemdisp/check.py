"""Second looks at what the whole analysis stands on: which column is which, and which plane.

Both are decided once, from the image; here the finished lattice and interface are held against the
image again, so that a mistake (of the program, or in what the user stated) is said and not passed
on. Each doubt is a dictionary with a ``code`` and a ``message``, as warnings are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from stemdisp._cell import place_sites
from stemdisp.crystal import Projection
from stemdisp.interface import Interface
from stemdisp.lattice import MIN_MARGIN, Lattice, fold_image
from stemdisp.tables import Quality, usable

if TYPE_CHECKING:
    import pandas as pd
    from hyperspy.signals import Signal2D

# Where so many of the other cations are seen beyond plane 1, the crystal may end one plane later.
MANY_BEYOND = 0.35
HALF = 0.5
# Columns on one lattice: of their distances from it the 90th percentile is 1.8 times the median
# (Rayleigh). Two grains 1 degree apart: 2.7 times, and neighbours alike by 0.4; in published
# images 2.0 times at most.
UNEVEN, UNEVEN_A, ALIKE, NEIGHBOURS, LEAST_SEEN = 2.3, 0.08, 0.1, 4, 30
UNSEEN, LEAST_UNSEEN = 0.05, 5  # share and number of columns that are not there
CLEAR = 0.5  # mean evidence from which a plane surely is there (or, negative, is not)


def check_assignment(
    image: Signal2D | np.ndarray, lattice: Lattice, projection: Projection
) -> list[dict[str, str]]:
    """Check that the species of a lattice's sites are those that the image shows there.

    The image is folded into one cell by the lattice as it stands, and every origin, orientation
    and sign of contrast is scored again. Swapped species, an origin off by a site, a lattice
    turned by an angle that is no symmetry, and a wrong sign of contrast all show as another
    placement that fits better.

    Parameters
    ----------
    image : Signal2D or ndarray, shape (ny, nx)
        The image.
    lattice : Lattice
        The lattice to check, e.g. after `refit_lattice`, or made by hand.
    projection : Projection
        The crystal.

    Returns
    -------
    list of dict
        Empty if the assignment is the best one; else one doubt, with code ``assignment``.
    """
    data = np.asarray(getattr(image, "data", image), dtype=np.float64)
    cell = fold_image(data, lattice)
    best, margin = place_sites(cell, projection, lattice.known_cell(projection))
    # the present assignment is not better than the runner-up, so the margin is over it too
    if best.matches(np.eye(2), np.zeros(2), lattice.sign, projection) or margin < MIN_MARGIN:
        return []
    what = "bright columns" if lattice.sign > 0 else "dark columns"
    return [
        {
            "code": "assignment",
            "message": f"the columns of {projection.name} are not where this lattice has them "
            f"({what}): another assignment of species to sites fits better by at least "
            f"{margin:.1%} of the mean cell's variance. Species may be swapped, or the origin off "
            "by a site: find the lattice again with find_lattice",
        }
    ]


def grain_notes(
    lattice: Lattice, columns: pd.DataFrame, *, species: str, size_A: tuple[float, float]
) -> list[dict[str, str]]:
    """Check that the columns lie on one lattice, everywhere.

    Noise, disorder and a scan that jitters put columns off their sites everywhere alike; the
    smooth distortion of the lattice takes up strain and drift. What is left and uneven (columns of
    one place all off the same way, much further than most) is a second grain, a boundary, a
    dislocation, or a scan that jumped.

    Parameters
    ----------
    lattice : Lattice
        After `refit_lattice`.
    columns : DataFrame
        After `refine_columns`: ``species, i, j, x_px, y_px, quality``.
    species : str
        Columns that mark the lattice, as for `refit_lattice`.
    size_A : (float, float)
        Pixel size, angstrom.

    Returns
    -------
    list of dict
        Notes with code ``lattice-uneven`` or ``lattice-gaps``, or nothing.
    """
    mine = columns[(columns["species"] == species).to_numpy()]
    quality = mine["quality"].to_numpy(dtype=np.int64)
    whole = mine[(quality & int(Quality.EDGE | Quality.MASKED)) == 0]
    unseen = whole[(whole["quality"].to_numpy(dtype=np.int64) & int(Quality.NOT_DETECTED)) > 0]
    out = []
    if len(unseen) >= LEAST_UNSEEN and len(unseen) > UNSEEN * len(whole):
        x, y = lattice.position(unseen[["i", "j"]].to_numpy(dtype=float)).mean(axis=0)
        out.append(
            {
                "code": "lattice-gaps",
                "message": f"{len(unseen)} of {len(whole)} columns of {species} are not seen "
                f"where the lattice has them, about ({x:.0f}, {y:.0f}) px on average: the image "
                "holds other grains, holes or something amorphous there. Crop it to one crystal",
            }
        )
    seen = mine[usable(mine) & np.isfinite(mine["x_px"].to_numpy(dtype=float))]
    if len(seen) < LEAST_SEEN:
        return out
    site = lattice.position(seen[["i", "j"]].to_numpy(dtype=float))
    off = (seen[["x_px", "y_px"]].to_numpy(dtype=float) - site) * np.asarray(size_A)
    far = np.hypot(*off.T)
    typical, large = np.percentile(far, (50, 90))
    beside = cKDTree(site).query(site, NEIGHBOURS + 1)[1][:, 1:]
    alike = np.sum(off * off[beside].mean(axis=1)) / np.sum(off**2)
    if large > UNEVEN_A and large > UNEVEN * typical and alike > ALIKE:
        x, y = site[far >= large].mean(axis=0)
        out.append(
            {
                "code": "lattice-uneven",
                "message": f"the {species} columns do not lie on one lattice: a tenth of them is "
                f"more than {large:.2f} A off it (half of them less than {typical:.2f} A), about "
                f"({x:.0f}, {y:.0f}) px on average, and neighbours the same way. The image may "
                "hold several grains, a boundary or a jump of the scan; crop it to one crystal",
            }
        )
    return out


def interface_doubts(interface: Interface, cage: str, others: str) -> list[dict[str, str]]:
    """Check that an interface lies where the image shows the last plane.

    Parameters
    ----------
    interface : Interface
        From `find_interface`.
    cage, others : str
        Names of the cage's cation and of the others, for the message.

    Returns
    -------
    list of dict
        Doubts with code ``interface-side`` (crystal and film are exchanged), ``interface-inside``
        (plane N = 1 is not seen), ``interface-outside`` (crystal goes on beyond it) or
        ``interface-termination`` (other cations go on).
    """
    where = "the stated interface" if interface.stated else "the interface"
    out = []
    if interface.sorted_share < HALF:
        out.append(
            {
                "code": "interface-side",
                "message": f"{where}: what it takes for film looks more like crystal, and the "
                "crystal more like film. Check [interface] at and film",
            }
        )
    if interface.first_plane < -CLEAR:
        out.append(
            {
                "code": "interface-inside",
                "message": f"{where}: in plane N = 1 no {cage} columns are seen, so the crystal "
                "seems to end further in and N to be too large. Check [interface] at and film",
            }
        )
    if interface.next_plane > CLEAR:
        out.append(
            {
                "code": "interface-outside",
                "message": f"{where}: {cage} columns are seen beyond plane N = 1, so the crystal "
                "seems to go on and N to be too small. Check [interface] at and film",
            }
        )
    elif interface.others_beyond > MANY_BEYOND:
        out.append(
            {
                "code": "interface-termination",
                "message": f"{where}: beyond plane N = 1, {others} columns are seen in "
                f"{interface.others_beyond:.0%} of the places, {cage} columns are not. Either the "
                f"crystal ends on {others}, or the film hides one more plane of {cage}, and then "
                "all N are one too small there",
            }
        )
    return out


def lattice_notes(lattice: Lattice) -> list[dict[str, str]]:
    """Say what the contrast of the columns means for the rest.

    Parameters
    ----------
    lattice : Lattice
        From `find_lattice`.

    Returns
    -------
    list of dict
        A note with code ``odd-contrast``, or nothing.
    """
    if not lattice.odd_contrast:
        return []
    return [
        {
            "code": "odd-contrast",
            "message": "the columns are not as bright as in a thin specimen by any detector; "
            "it may be too thick. Their species follow from faint cores alone (lead "
            f"{lattice.margin:.1%}): look at the overlay. "
            "Occupancy is not measurable, and is left empty",
        }
    ]


def interface_notes(interface: Interface) -> list[dict[str, str]]:
    """Say what else the image holds than one crystal under one film.

    Parameters
    ----------
    interface : Interface
        From `find_interface`.

    Returns
    -------
    list of dict
        Notes with code ``second-interface`` or ``steps``.
    """
    out = []
    if interface.beyond is not None:
        text = "beyond the film lies a second crystal, which is left out"
        out.append(_second(text, interface.beyond.side))
    if interface.far is not None:
        text = "the crystal has a second interface; planes are counted from the one"
        out.append(_second(f"{text} with the film {interface.side}", interface.far.side))
    heights = np.diff(interface.offsets)
    if len(heights):
        many = f"{len(heights)} steps" if len(heights) > 1 else "a step"
        out.append(
            {
                "code": "steps",
                "message": f"the interface has {many} of up to {np.abs(heights).max()} planes; N "
                "counts from the last plane that is there above each column",
            }
        )
    return out


def _second(text: str, side: str) -> dict[str, str]:
    return {
        "code": "second-interface",
        "message": f'{text}. Set [interface] film = "{side}" to count from the other one',
    }
