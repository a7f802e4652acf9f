"""Analyse published images and write docs/gallery.md with its figures; run by hand.

    python docs/make_gallery.py FOLDER

FOLDER holds the files that the page names, each as its source has it. They are no part of stemdisp.
"""

from __future__ import annotations

import datetime
import sys
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib.figure import Figure

import stemdisp as sd
from stemdisp import _plot_style as style
from stemdisp import plot
from stemdisp.report.means import mean_vector, scatter

HERE = Path(__file__).resolve().parent
IMAGES = HERE / "images" / "gallery"
SIZE_IN, WIDTH_PX, QUALITY = (8.0, 3.6), 1100, 84


@dataclass(frozen=True)
class Entry:
    """One image: file, what a run is told, where it comes from, and what is to be said of it."""

    file: str
    title: str
    source: str
    crystal: dict[str, Any]
    noise: str
    seen: str
    not_seen: str
    oxygen: bool = True


ATOMAP = (
    "[atomap](https://gitlab.com/atomap/atomap), `atomap/tests/datasets/{}`, commit 68fbd13 of "
    "atomap-dev/atomap on GitHub, GPL-3.0; Magnus Nord. Please cite M. Nord et al., Advanced "
    "Structural and Chemical Imaging 3, 9 (2017), [doi 10.1186/s40679-017-0042-5]"
    "(https://doi.org/10.1186/s40679-017-0042-5)"
)
ENTRIES = (
    Entry(
        file="iDPC9.tif",
        title="Pb(Mg,Nb)O₃ along ⟨110⟩, iDPC",
        source="[SingleOrigin](https://github.com/sdfunni/SingleOrigin), `iDPC9.tif`, commit "
        "3007256, GPL-3.0-or-later; Stephen Funni",
        crystal={
            "structure": "PMN",
            "zone_axis": [1, -1, 0],
            "displaced": "Pb",
            "cage": "Nb/O",
        },
        noise="idpc",
        seen="All three kinds of columns are found, pure oxygen too, and the displacements of Pb "
        "are correlated over several cells.",
        not_seen="The mean may be tilt as well as polarisation, because there is no bulk to "
        "compare with. The preset's lattice constant gives the pixel size, so lengths are good to "
        "about 3 %.",
    ),
    Entry(
        file="test_ABF_cropped.hdf5",
        title="SrTiO₃ along ⟨110⟩, ABF",
        source=ATOMAP.format("test_ABF_cropped.hdf5"),
        crystal={
            "structure": "SrTiO3",
            "zone_axis": [1, -1, 0],
            "displaced": "Sr",
            "cage": "Ti/O",
        },
        noise="white",
        seen="Dark columns are recognised as such, and oxygen between the Ti columns is fitted.",
        not_seen="SrTiO₃ is not polar here, and yet the mean is many times its error. ABF is "
        "sensitive to tilt and aberrations, which move light and heavy columns differently. The "
        "next image shows the same area without this.",
    ),
    Entry(
        file="test_ADF_cropped.hdf5",
        title="The same area, ADF",
        source=ATOMAP.format("test_ADF_cropped.hdf5"),
        crystal={
            "structure": "SrTiO3",
            "zone_axis": [1, -1, 0],
            "displaced": "Sr",
            "cage": "Ti",
        },
        noise="white",
        seen="Sr and Ti are found and sit much nearer to where they should be than in ABF.",
        not_seen="ADF does not show oxygen: it is not drawn here, and only Ti makes up the cage. "
        "The noise was interpolated by its authors and is not white, of which the run warns.",
        oxygen=False,
    ),
    Entry(
        file="Acquisition_18.emd",
        title="SrTiO₃ along [001], one fast noisy frame, HAADF",
        source="[openNCEM](https://github.com/ercius/openNCEM), `ncempy/data/Acquisition_18.emd`, "
        "commit 749ec1a, GPL-3.0; Peter Ercius et al.",
        crystal={"structure": "SrTiO3", "zone_axis": [0, 0, 1], "displaced": "Ti", "cage": "Sr"},
        noise="auto",
        seen="The file's pixel size is about 5 % too large, which the lattice corrects, and the "
        "noise is recognised as white.",
        not_seen="A displacement of single columns: with so few electrons most of the scatter is "
        "noise and scan. What one frame has by way of line jitter cannot be told from the crystal; "
        "a series of frames could. HAADF does not show oxygen, which is not drawn.",
        oxygen=False,
    ),
    Entry(
        file="BTO_crystal_1.dm4",
        title="BaTiO₃ along [001], coarse pixels, filtered",
        source="[Analysis-of-atomic-displacement-in-STEM-images]"
        "(https://github.com/AliBaghizadeh/Analysis-of-atomic-displacement-in-STEM-images), "
        "`images/BTO_crystal_1.dm4`, commit d583a93, MIT; Ali Baghizadeh",
        crystal={"structure": "BaTiO3", "zone_axis": [0, 0, 1], "displaced": "Ti", "cage": "Ba"},
        noise="auto",
        seen="The two axes of the scan, which differ by about 5 %, are scaled separately. "
        "Ti is displaced over the whole field, and more in one corner.",
        not_seen="The image was Wiener-filtered by its author. Filtering widens columns and takes "
        "the noise's spectrum away, so errors of single columns mean little here. Widths that run "
        "to their bound say the same. "
        "Oxygen is not drawn, because this contrast does not show it.",
        oxygen=False,
    ),
)
HEAD = """# Gallery: real images

Published images of others, analysed with stemdisp. None was chosen for its result. Each figure
shows the middle of the image with the fitted columns (left) and the displacement of every column
(right). Where they are many, an arrow stands for the mean of a block.

These crystals have no interface, so there is no δ(N) and no bulk reference: the configuration says
`[interface] present = false`. The images are not part of stemdisp. Get them from the sources named,
put them into one folder, and run

```
python docs/make_gallery.py FOLDER
```

It wrote this page on {date} with stemdisp {version}.
"""


def analyse(entry: Entry, folder: Path) -> Any:
    """Run one image."""
    return sd.run(
        {
            "input": {
                "path": [str(folder / entry.file)],
                "kind": "image",
                "pixel_size": "lattice",
            },
            "crystal": entry.crystal,
            "interface": {"present": False},
            "refine": {"noise": entry.noise},
        }
    )


def draw(result: Any, path: Path) -> None:
    """Draw both panels side by side."""
    with mpl.rc_context(style.rc_params()):
        figure = Figure(figsize=SIZE_IN, dpi=WIDTH_PX / SIZE_IN[0])
        left, right = figure.subplots(1, 2, width_ratios=[1.15, 1.0])
        plot.plot_zoom(result, ax=left)
        plot.plot_displacement_map(result, ax=right)
        figure.subplots_adjust(left=0.01, right=0.91, top=0.98, bottom=0.11, wspace=0.04)
        figure.savefig(path, pil_kwargs={"quality": QUALITY, "subsampling": 0, "optimize": True})


def describe(entry: Entry, result: Any, picture: str) -> str:
    """Put one section of the page into words."""
    crystal = entry.crystal
    told = ", ".join(f"{key} = {value!r}" for key, value in crystal.items()).replace("'", '"')
    frame = style.used(result, crystal["displaced"]).dropna(subset=["delta_A", "delta_perp_A"])
    size, towards = mean_vector(result)
    name = crystal["displaced"]
    along = style.direction_name(result.projection.u_uvw)
    claimed = 100.0 * float(frame["delta_err_A"].median())
    measured = (
        f"The mean of {len(frame)} {name} columns is {size} pm{', ' * bool(towards)}{towards}. "
        f"Along {along} they scatter by {scatter(result, 'delta_A')} pm (standard deviation); "
        f"the error of a single one, from noise, is {claimed:.1f} pm."
    )
    codes = [warning["code"] for warning in result.summary["warnings"]]
    warned = "none" if not codes else ", ".join(f"`{code}`" for code in codes)
    alt = f"{entry.title}: part of the image with fitted columns, and map of displacements"
    parts = [
        f"## {entry.title}",
        f"![{alt}](images/gallery/{picture})",
        f"**What it shows.** {entry.seen} {measured}",
        f"**What it does not show.** {entry.not_seen}",
        f'Warnings of the run: {warned}. Told: `{told}`, `pixel_size = "lattice"`, '
        f'`noise = "{entry.noise}"`.',
        f"Image: {entry.source}.",
    ]
    return "\n\n".join(
        part
        if part[0] in "!#"
        else textwrap.fill(part, 110, break_long_words=False, break_on_hyphens=False)
        for part in parts
    )


def main(folder: Path) -> None:
    """Write page and figures."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    sections = []
    for entry in ENTRIES:
        result = analyse(entry, folder)
        if not entry.oxygen:
            seen = result.columns[result.columns["species"] != "O"]
            result = replace(result, columns=seen)
        picture = Path(entry.file).stem.lower() + ".jpg"
        draw(result, IMAGES / picture)
        sections.append(describe(entry, result, picture))
    date = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    head = HEAD.format(date=date, version=sd.__version__)
    page = head + "\n" + "\n\n".join(sections) + "\n"
    (HERE / "gallery.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
