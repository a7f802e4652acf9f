"""Random images of perovskites with known truth: any turn, detector, dose, interface and damage.

The crystals are typed in here, not taken from the package, so that an error of its geometry shows.
Lengths are in angstrom in the plane of the image (x right, y down) until `_draw` puts them on
pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from stemdisp.bounds import column_bounds
from stemdisp.simulate import idpc_noise

Z = {"K": 19, "Ta": 73, "Sr": 38, "Ti": 22, "Ba": 56, "Pb": 82, "La": 57, "Al": 13, "O": 8}
# Structure: A, B, a, c.
CRYSTALS = {
    "KTaO3": ("K", "Ta", 3.9885, 3.9885),
    "SrTiO3": ("Sr", "Ti", 3.905, 3.905),
    "BaTiO3": ("Ba", "Ti", 3.994, 4.038),
    "PbTiO3": ("Pb", "Ti", 3.904, 4.152),
    "LaAlO3": ("La", "Al", 3.79, 3.79),
}


@dataclass(frozen=True)
class View:
    """A perovskite along one axis: u in units of a (v is c), columns, interfaces seen edge-on.

    ``columns`` lists element(s) and fractions; ``faces`` gives for a plane the layer number per u
    and v.
    """

    zone_axis: tuple[int, int, int]
    u: float
    columns: tuple[tuple[str, float, float], ...]
    faces: dict[tuple[int, int, int], tuple[int, int]]


VIEWS = (
    View(
        (1, -1, 0),
        1 / np.sqrt(2),
        (("AO", 0, 0), ("B", 0, 0.5), ("OO", 0.5, 0.5)),
        {(1, 1, 1): (1, 1), (0, 0, 1): (0, 1), (1, 1, 0): (1, 0)},
    ),
    View(
        (1, 0, 0),
        1.0,
        (("A", 0, 0), ("BO", 0.5, 0.5), ("O", 0.5, 0), ("O", 0, 0.5)),
        {(0, 0, 1): (0, 1), (0, 1, 1): (1, 1)},
    ),
)
CONTRASTS = {"idpc": (0.75, 1.0), "haadf": (1.6, 2.0), "abf": (0.55, 0.75)}
SIGMA_A = {"heavy": 0.46, "light": 0.40}
# Where no other column tells A from B, only their brightness does; thickness changes that by less
# than this factor.
MIN_RATIO = 2.5
DOSES = (np.inf, 1000.0, 300.0, 100.0, 30.0, 10.0, 3.0)
# Below a step a column has two plane numbers, as far as the step's place is known.
AT_STEP_A = 8.0
# Interfaces: none, flat, one step, film between two crystals, crystal between two films.
SCENES = ("none", "flat", "step", "two crystals", "two films")
DEFECTS = ("missing columns", "strangers", "hole", "dead border", "saturated", "gradient")


@dataclass(frozen=True)
class Case:
    """What one image shows; everything that was drawn at random."""

    seed: int
    structure: str
    view: View
    plane: tuple[int, int, int]
    contrast: str
    scene: str
    counts: float
    pixel_A: float
    size: int
    turn_deg: float
    mirrored: bool
    stretch: float
    shear_deg: float
    bend: float
    defects: tuple[str, ...]
    hint: float | None
    volumes: dict[str, float] = field(default_factory=dict)

    @property
    def cage(self) -> str:
        """The cation whose planes are counted."""
        return CRYSTALS[self.structure][1]

    @property
    def displaced(self) -> str:
        """The cation that moves."""
        return CRYSTALS[self.structure][0]


def draw_case(seed: int) -> Case:
    """Draw a case at random; cases that nobody could decide are drawn again."""
    rng = np.random.default_rng(seed)
    while True:
        view = VIEWS[int(rng.random() < 0.3)]
        structure = str(rng.choice(list(CRYSTALS)))
        contrast = str(rng.choice(list(CONTRASTS)))
        volumes = _volumes(structure, contrast, rng)
        heights = [_volume(name, structure, volumes) for name, *_ in view.columns[:2]]
        blind = contrast == "haadf" or view.zone_axis == (1, 0, 0)
        if not blind or max(heights) > MIN_RATIO * min(heights):
            break
    planes = list(view.faces)
    # where only their lengths tell u and v apart, a scan may not scale the axes at will
    square = view.u == 1.0 and structure in ("BaTiO3", "PbTiO3")
    pixel = float(np.exp(rng.uniform(np.log(0.08), np.log(0.25))))
    return Case(
        seed=seed,
        structure=structure,
        view=view,
        plane=planes[int(rng.integers(len(planes)))],
        contrast=contrast,
        scene=str(rng.choice(SCENES, p=(0.2, 0.4, 0.2, 0.1, 0.1))),
        counts=float(DOSES[int(rng.integers(len(DOSES)))]),
        pixel_A=pixel,
        size=int(np.clip(rng.uniform(50, 90) / pixel, 256, 720)),
        turn_deg=float(rng.uniform(0, 360)),
        mirrored=bool(rng.random() < 0.5),
        stretch=float(1 + rng.uniform(-0.05, 0.05) * (0.1 if square else 1.0)),
        shear_deg=float(rng.uniform(-2, 2)),
        bend=float(rng.uniform(0, 0.01)),
        defects=tuple(d for d in DEFECTS if rng.random() < 0.2),
        hint=None if rng.random() < 0.5 else float(pixel * rng.uniform(0.9, 1.1)),
        volumes=volumes,
    )


def _volumes(structure: str, contrast: str, rng: np.random.Generator) -> dict[str, float]:
    """Intensity of one atom of each element; exponent and channelling vary."""
    power = rng.uniform(*CONTRASTS[contrast])
    a, b = CRYSTALS[structure][:2]
    spread = 0.12
    return {e: float(Z[e] ** power * np.exp(rng.normal(0, spread))) for e in (a, b, "O")}


def _volume(name: str, structure: str, volumes: dict[str, float]) -> float:
    a, b = CRYSTALS[structure][:2]
    return sum(volumes[{"A": a, "B": b, "O": "O"}[letter]] for letter in name)


@dataclass(frozen=True, eq=False)
class Picture:
    """An image and what is true of it.

    ``truth`` has one row per column inside the image: ``species, x_px, y_px, N, other_N, at_step,
    intensity, sigma_A, whole``; ``whole`` is false under holes, saturated and dead pixels; N counts
    from the interface (0: beyond it, or there is none), other_N from the second one; ``at_step``
    is true so near to a step, or behind a hole in the interface, that N may be either terrace's.
    ``level`` is that of the noise, as `column_bounds` takes it.
    """

    case: Case
    image: np.ndarray
    truth: pd.DataFrame
    level: float

    def significance(self) -> float:
        """Intensity of a cage cation over the least standard error that a fit of it can have."""
        if self.level == 0:
            return np.inf
        there = self.truth[self.truth["intensity"] > 0]
        middle = self.case.size / 2
        near = np.hypot(there["x_px"] - middle, there["y_px"] - middle)
        part = there.loc[near.sort_values().index[:150]]
        noise = "idpc" if self.case.contrast == "idpc" else "white"
        bound = column_bounds(part, pixel_size=self.case.pixel_A, noise=noise, level=self.level)
        inner = part.index[:60]
        ratio = part.loc[inner, "intensity"] / bound.loc[inner, "intensity_err"]
        return float(ratio[part.loc[inner, "species"] == self.case.cage].median())


def make_picture(case: Case) -> Picture:
    """Draw the image of a case."""
    rng = np.random.default_rng([case.seed, 1])
    truth, film = _lay_out(case, rng)
    truth = _spoil_columns(case, truth, rng)
    xy = _to_pixels(case, truth[["x", "y"]].to_numpy())
    truth = truth.assign(x_px=xy[:, 0], y_px=xy[:, 1])
    near = np.all((xy > -8) & (xy < case.size + 7), axis=1)
    truth = truth[near].reset_index(drop=True)
    blobs = np.column_stack([truth[["x_px", "y_px", "intensity"]], truth["sigma_A"] / case.pixel_A])
    film[:, :2] = _to_pixels(case, film[:, :2])
    film[:, 3] /= case.pixel_A
    clean = draw_blobs(np.vstack([blobs, film]), case.size)
    top = np.percentile(clean, 99.5)
    image, contrast, level = _detect(case, clean / top, rng)
    truth["intensity"] *= contrast / top * case.pixel_A**2
    image, whole, spots = _spoil_pixels(case, image, truth, rng)
    truth["at_step"] |= _below_spots(case, truth, spots)
    inside = np.all(
        (truth[["x_px", "y_px"]] > 0) & (truth[["x_px", "y_px"]] < case.size - 1), axis=1
    )
    truth = truth.assign(whole=whole)
    return Picture(case, image, truth[inside].reset_index(drop=True), level)


def _lay_out(case: Case, rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray]:
    """Columns of the crystal(s) with plane numbers, and the atoms of the film."""
    view = case.view
    cell = np.diag(_lengths(case))
    turn = np.deg2rad(case.turn_deg)
    rotate = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    if case.mirrored:
        rotate = rotate @ np.diag([-1.0, 1.0])
    cell = cell @ rotate
    lu, lv = view.faces[case.plane]
    gradient = np.linalg.solve(cell, np.array([lu, lv], dtype=float))
    spacing = 1 / np.hypot(*gradient)
    normal = gradient * spacing
    tangent = np.array([-normal[1], normal[0]])
    half = case.size * case.pixel_A / 2
    span = int(3.2 * half / min(np.hypot(*cell.T))) + 2
    ii, jj = (k.ravel() for k in np.meshgrid(np.arange(-span, span), np.arange(-span, span)))
    start = rng.uniform(-2, 2, 2)
    parts = []
    for name, fu, fv in view.columns:
        ij = np.column_stack([ii + fu, jj + fv])
        xy = ij @ cell + start
        parts.append(
            pd.DataFrame(
                {
                    "name": name,
                    "x": xy[:, 0],
                    "y": xy[:, 1],
                    "layer": ij @ np.array([lu, lv]),
                }
            )
        )
    table = pd.concat(parts, ignore_index=True)
    reach = 1.15 * half * np.sqrt(2)
    table = table[np.hypot(table["x"], table["y"]) < reach].reset_index(drop=True)
    xy = table[["x", "y"]].to_numpy()
    height, along = xy @ normal, xy @ tangent
    table["species"] = table["name"].map(lambda n: _species(n, case.structure))
    table["intensity"] = table["name"].map(lambda n: _volume(n, case.structure, case.volumes))
    light = table["species"] == "O"
    table["sigma_A"] = np.where(light, SIGMA_A["light"], SIGMA_A["heavy"])
    film = np.empty((0, 4))
    table["N"] = table["other_N"] = 0
    table["at_step"] = False
    if case.scene == "none":
        return table, film
    # layer numbers against height; the crystal ends on a plane of cage cations
    cage = (table["species"] == case.cage).to_numpy()
    level0 = float(table["layer"][cage].iloc[0] % 1.0)
    offset = np.median(table["layer"] - height / spacing)
    border = rng.uniform(0.1, 0.6) * half
    top = np.floor(border / spacing + offset - level0) + level0
    steps = np.zeros(len(table))
    place, drop = 0.0, 0
    if case.scene == "step":
        place, drop = rng.uniform(-0.35, 0.35) * half, int(rng.integers(1, 3))
        steps = np.where(along > place, -drop, 0)
        table["at_step"] = np.abs(along - place) < AT_STEP_A
    layer = table["layer"].to_numpy()
    table["N"] = np.maximum(_plane(layer, top + steps), 0)
    keep = table["N"].to_numpy() >= 1
    upper, lower, band = (top - offset) * spacing, -np.inf, np.inf
    if case.scene == "two crystals":
        # the film is a band; beyond it lies crystal, in step with the first or shifted
        band = rng.uniform(10, 16)
        first = layer[cage & (height > upper + band)].min()
        table["other_N"] = np.maximum(_plane(-layer, -first), 0)
        beyond = table["other_N"].to_numpy() >= 1
        keep = keep | beyond
        if rng.random() < 0.5:
            table.loc[beyond, ["x", "y"]] += rng.uniform(-1.5, 1.5, 2)
    if case.scene == "two films":
        first = layer[cage & (height > -rng.uniform(0.55, 0.8) * half)].min()
        table["other_N"] = np.maximum(_plane(-layer, -first), 0)
        keep = keep & (table["other_N"].to_numpy() >= 1)
        lower = (first - offset) * spacing
    atoms = _film(case, rng, reach)
    h, s = atoms[:, :2] @ normal, atoms[:, :2] @ tangent
    step_here = np.where(s > place, -drop, 0) * spacing if drop else 0.0
    clear = 1.0 + rng.normal(0, 0.3, len(atoms))
    in_film = (h - step_here > upper + clear) & (h < upper + band - 1.0) | (h < lower - clear)
    table = _move_displaced(case, table, cell, normal)
    return table[keep].reset_index(drop=True), atoms[in_film]


def _lengths(case: Case) -> tuple[float, float]:
    """Lengths of u and v."""
    a, c = CRYSTALS[case.structure][2:]
    return case.view.u * a, c


def _plane(layer: np.ndarray, top: np.ndarray | float) -> np.ndarray:
    """N of layers if `top` is the outermost layer of cage cations."""
    return 1 - np.floor(layer - top + 0.5 + 1e-6).astype(int)


def _species(name: str, structure: str) -> str:
    a, b = CRYSTALS[structure][:2]
    return {"A": a, "B": b, "O": "O"}[name[0]]


def _move_displaced(
    case: Case, table: pd.DataFrame, cell: np.ndarray, normal: np.ndarray
) -> pd.DataFrame:
    """Move the A columns near the interface along u, and take oxygen out."""
    depth = table["N"].to_numpy(dtype=float)
    u = cell[0] / np.hypot(*cell[0])
    u = u * np.sign(u @ normal) if abs(u @ normal) > 1e-6 else u
    decay = np.where(depth > 0, np.exp(-(depth - 1) / 2), 0.0)
    moved = (table["species"] == case.displaced).to_numpy()
    shift = np.where(moved, 0.5 * decay, 0.0)[:, None] * u
    missing = np.where(table["name"].isin(["O", "OO"]), 0.5 * decay, 0.0)
    return table.assign(
        x=table["x"] + shift[:, 0],
        y=table["y"] + shift[:, 1],
        intensity=table["intensity"] * (1 - missing),
    )


def _film(case: Case, rng: np.random.Generator, reach: float) -> np.ndarray:
    """Atoms at random; x, y, intensity, width. About as bright as the crystal's mean."""
    density = 4.0
    n = rng.poisson(density * (2 * reach) ** 2)
    xy = rng.uniform(-reach, reach, (n, 2))
    mean = sum(_volume(c[0], case.structure, case.volumes) for c in case.view.columns)
    mean /= np.prod(_lengths(case))
    volume = rng.uniform(0.5, 1.1) * mean / density * rng.gamma(2.0, 0.5, n)
    return np.column_stack([xy, volume, np.full(n, 0.45)])


def _to_pixels(case: Case, xy: np.ndarray) -> np.ndarray:
    """Scale the axes differently, shear, bend, and put the middle into the middle."""
    shear = np.tan(np.deg2rad(case.shear_deg))
    scale = np.sqrt(case.stretch)
    matrix = np.array([[scale, shear], [0.0, 1 / scale]])
    r = xy @ matrix.T / case.pixel_A
    half = case.size / 2
    # strain along y that runs from -bend/2 to bend/2, and a wave along x, as drift makes them
    t = r / half
    move = np.column_stack(
        [
            case.bend / 4 * t[:, 1] ** 2,
            case.bend / 4 * t[:, 1] ** 2 + case.bend / 6 * np.sin(2.0 * t[:, 0]),
        ]
    )
    return r + half * move + (case.size - 1) / 2


def _spoil_columns(case: Case, truth: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Static disorder, columns that are not there, and strangers (atoms on no site)."""
    moved = rng.normal(0, 0.03, (len(truth), 2))
    truth = truth.assign(x=truth["x"] + moved[:, 0], y=truth["y"] + moved[:, 1])
    if "missing columns" in case.defects:
        gone = rng.random(len(truth)) < 0.015
        truth = truth.assign(intensity=np.where(gone, 0.0, truth["intensity"]))
    return truth


def draw_blobs(blobs: np.ndarray, size: int) -> np.ndarray:
    """Sum Gaussians x, y, integrated intensity, width on a square of `size` px."""
    image = np.zeros((size, size))
    reach = int(np.ceil(4.0 * blobs[:, 3].max()))
    offset = np.arange(-reach, reach + 1)
    for x, y, volume, sigma in blobs:
        col, row = round(x) + offset, round(y) + offset
        col = col[(col >= 0) & (col < size)]
        row = row[(row >= 0) & (row < size)]
        if len(col) and len(row):
            height = volume / (2 * np.pi * sigma**2)
            ex = np.exp(-((col - x) ** 2) / (2 * sigma**2))
            ey = height * np.exp(-((row - y) ** 2) / (2 * sigma**2))
            image[row[0] : row[-1] + 1, col[0] : col[-1] + 1] += np.outer(ey, ex)
    return image


def _detect(
    case: Case, clean: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, float, float]:
    """Turn a signal whose strongest columns have height 1 into an image with noise.

    Also give that height in the image, and the level of the noise as `column_bounds` takes it.
    """
    if case.contrast == "idpc":
        # the peak of a heavy column of a thin specimen in units of beam fraction times angstrom
        height = 0.3
        if np.isinf(case.counts):
            return height * clean, height, 0.0
        noise = idpc_noise(case.size, case.pixel_A, case.counts / case.pixel_A**2, rng)
        return height * clean + noise, height, 0.5 / case.counts * case.pixel_A**2
    haadf = case.contrast == "haadf"
    base = rng.uniform(0.15, 0.5) if haadf else 1.0
    depth = 1.0 if haadf else -rng.uniform(0.3, 0.5)
    signal = np.maximum(base + depth * clean, 0.02)
    if np.isinf(case.counts):
        return signal, abs(depth), 0.0
    scale = case.counts / signal.mean()
    counted = rng.poisson(signal * scale).astype(float)
    return counted, abs(depth) * scale, case.counts


def _spoil_pixels(
    case: Case, image: np.ndarray, truth: pd.DataFrame, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, list[tuple[float, float, float]]]:
    """Hole, dead border, saturated patch, slow gradient; which columns are left whole; spots."""
    size = case.size
    yy, xx = np.mgrid[0:size, 0:size]
    spots = []
    bad = np.zeros(image.shape, dtype=bool)
    image = image.copy()
    if "gradient" in case.defects:
        tilt = rng.normal(0, 1, 2)
        image *= 1 + 0.3 * (xx * tilt[0] + yy * tilt[1]) / (2 * size)
    if "hole" in case.defects:
        x, y = rng.uniform(0.2, 0.8, 2) * size
        spots.append((x, y, rng.uniform(4, 9) / case.pixel_A))
        hole = np.hypot(xx - x, yy - y) < spots[-1][2]
        image[hole] = rng.normal(np.percentile(image, 5), image.std() * 0.05, hole.sum())
        bad |= hole
    if "saturated" in case.defects:
        x, y = rng.uniform(0.1, 0.9, 2) * size
        spots.append((x, y, rng.uniform(3, 6) / case.pixel_A))
        spot = np.hypot(xx - x, yy - y) < spots[-1][2]
        image[spot] = image.max()
        bad |= spot
    if "dead border" in case.defects:
        width = int(rng.integers(4, max(5, size // 12)))
        dead = (xx < width) if rng.random() < 0.5 else (yy >= size - width)
        image[dead] = np.nan if rng.random() < 0.5 else 0.0
        bad |= dead
    if "strangers" in case.defects:
        for x, y in rng.uniform(0.1, 0.9, (4, 2)) * size:
            spot = np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / (2 * (0.45 / case.pixel_A) ** 2))
            sign = -1 if case.contrast == "abf" else 1
            image = image + sign * 0.8 * np.nanstd(image) * spot
    x = np.clip(np.rint(truth["x_px"]), 0, size - 1).astype(int)
    y = np.clip(np.rint(truth["y_px"]), 0, size - 1).astype(int)
    return image, ~bad[y, x], spots


def _below_spots(
    case: Case, truth: pd.DataFrame, spots: list[tuple[float, float, float]]
) -> np.ndarray:
    """Columns whose last plane, straight below or above them, lies in a hole or a bright spot."""
    out = np.zeros(len(truth), dtype=bool)
    xy = truth[["x_px", "y_px"]].to_numpy()
    for name in ("N", "other_N"):
        first = xy[(truth[name] == 1) & (truth["species"] == case.cage)]
        if len(first) < 3:
            continue
        line = np.linalg.svd(first - first.mean(axis=0))[2][0]
        for x, y, radius in spots:
            if np.hypot(*(first - (x, y)).T).min() < radius + 4 / case.pixel_A:
                out |= np.abs((xy - (x, y)) @ line) < radius + AT_STEP_A / case.pixel_A
    return out
