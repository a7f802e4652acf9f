"""Synthetic iDPC stacks with known truth.

Columns are Gaussians of the projected structure; the film is a slab of random atoms; every frame
has its own drift, shear, line jitter and background; the noise is made where it arises, as white
noise on the two components of the DPC vector, and integrated with the image, which gives it the
1/k^2 spectrum of iDPC (Lazic, Bosch, Lazar 2016, doi 10.1016/j.ultramic.2015.10.011).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
from scipy import fft

from stemdisp.crystal import Projection, project

if TYPE_CHECKING:
    from hyperspy.signals import Signal2D

# Integrated intensity (beam fraction times A^3) and width (A) of the columns in iDPC at 10-15 nm,
# 300 kV, 25 mrad, segments 6-24 mrad, as the joint fit finds them in multislice images of this
# interface; film_atom_volume gives the film the mean level and mottling that it has there.
# What these data say of their columns, so that no calibration of real ones is applied to them.
PROPORTIONAL = "proportional to occupancy"
_COLUMN_VOLUME = {"Ta": 0.40, "K": 0.33, "O": 0.18}
_COLUMN_SIGMA_A = {"Ta": 0.47, "K": 0.45, "O": 0.38}


@dataclass(frozen=True)
class Specimen:
    """What lies under the beam: crystal, film, displacements and vacancies.

    Attributes
    ----------
    delta0_A, xi_planes : float
        K displacement along u: ``delta0_A * exp(-(N - 1) / xi_planes)``.
    last_displaced : int
        Deeper planes are not displaced at all; 0 for a decay without end.
    occupancy : tuple of float
        Oxygen occupancy of the pure O columns of planes 1, 2, ...; 1 below.
    offset_A : (float, float)
        Uniform shift of the displaced columns along u and v, as specimen tilt makes it.
    disorder_A : float
        Static random displacement of every column, rms per axis.
    film_A : float
        Thickness of film inside the image, measured at its centre; 0 for no film.
    rotation_deg : float
        Angle by which the interface is turned from the horizontal.
    """

    structure: str = "KTaO3"
    zone_axis: tuple[int, int, int] = (1, -1, 0)
    plane: tuple[int, int, int] = (1, 1, 1)
    displaced: str = "K"
    delta0_A: float = 0.54
    xi_planes: float = 2.0
    last_displaced: int = 0
    occupancy: tuple[float, ...] = (0.45, 0.50, 0.58, 0.66, 0.75, 0.85)
    offset_A: tuple[float, float] = (0.015, -0.02)
    disorder_A: float = 0.015
    film_A: float = 14.0
    film_density_per_A2: float = 8.0
    film_atom_volume: float = 0.012
    rotation_deg: float = 3.0


@dataclass(frozen=True)
class Scan:
    """How it is scanned: sampling, drift, jitter, background, dose.

    Attributes
    ----------
    drift_px : float
        Drift between frames, rms per step and axis, of a random walk.
    shear_px : float
        Drift within a frame from its first row to its last, rms per axis.
    jitter_px : (float, float)
        Shift of single lines along x and y, rms.
    background : float
        Slow background, rms, as a share of the highest column.
    dose_e_per_A2 : float
        Electrons per square angstrom in one frame.
    """

    n_frames: int = 8
    size: int = 512
    pixel_size_A: float = 0.15
    dose_e_per_A2: float = 500.0
    drift_px: float = 3.0
    shear_px: float = 1.0
    jitter_px: tuple[float, float] = (0.35, 0.15)
    background: float = 0.25


@dataclass(frozen=True)
class Preset:
    """A specimen and a scan under one name."""

    specimen: Specimen = field(default_factory=Specimen)
    scan: Scan = field(default_factory=Scan)


PRESETS: dict[str, Preset] = {
    "lao-kto-111": Preset(),
    "null": Preset(specimen=Specimen(delta0_A=0.0, occupancy=())),
    "bulk": Preset(specimen=Specimen(delta0_A=0.0, occupancy=(), film_A=0.0)),
}


def simulate_stack(
    preset: str = "lao-kto-111",
    *,
    seed: int = 0,
    n_frames: int | None = None,
    size: int | None = None,
    pixel_size_A: float | None = None,
    dose_e_per_A2: float | None = None,
    **physics: Any,
) -> tuple[Signal2D, pd.DataFrame]:
    """Simulate an iDPC stack of an interface and its truth table.

    Parameters
    ----------
    preset : str
        Name in `PRESETS`.
    seed : int
        Seed of everything random.
    n_frames, size, pixel_size_A, dose_e_per_A2
        Override the preset's scan (frames, pixels per side, angstrom, dose of one frame).
    **physics
        Any other field of `Specimen` or `Scan`.

    Returns
    -------
    stack : Signal2D
        float32, axes ``(frame | x, y)`` calibrated in angstrom.
    truth : DataFrame
        One row per column with the measured names, positions in frame 0.

    Raises
    ------
    ValueError
        Unknown preset or field, or a film that fills the image.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset = {preset!r} is unknown; use one of: {', '.join(PRESETS)}")
    given: dict[str, Any] = {"n_frames": n_frames, "size": size, "pixel_size_A": pixel_size_A}
    given |= {"dose_e_per_A2": dose_e_per_A2} | physics
    changes = {k: v for k, v in given.items() if v is not None}
    specimen = _with_changes(PRESETS[preset].specimen, changes)
    scan = _with_changes(PRESETS[preset].scan, changes)
    if changes:
        raise ValueError(
            f"{', '.join(changes)}: no such field; fields are "
            f"{', '.join(f.name for f in (*fields(Specimen), *fields(Scan)))}"
        )
    rng = np.random.default_rng(seed)
    truth, atoms = build_columns(specimen, scan, rng)
    if truth.empty:
        raise ValueError(
            f"film_A = {specimen.film_A!r} leaves no crystal in an image of {scan.size} px of "
            f"{scan.pixel_size_A!r} A; make the film thinner or the image larger"
        )
    frames, shifts = _scan_frames(truth, atoms, scan, rng)
    return _as_signal(frames, shifts, specimen, scan, seed), truth


_Part = TypeVar("_Part", Specimen, Scan)


def _with_changes(base: _Part, changes: dict[str, Any]) -> _Part:
    """Return `base` with the fields named in `changes`, which are taken out of `changes`."""
    own = {f.name: changes.pop(f.name) for f in fields(base) if f.name in changes}
    return type(base)(**{**{f.name: getattr(base, f.name) for f in fields(base)}, **own})


def build_columns(
    specimen: Specimen, scan: Scan, rng: np.random.Generator
) -> tuple[pd.DataFrame, np.ndarray]:
    """Lay out the crystal's columns and the film's atoms.

    Returns
    -------
    truth : DataFrame
        Columns of the crystal that lie in the image of frame 0, with 12 px to spare.
    atoms : ndarray, shape (n, 4)
        x, y, integrated intensity, width (px) of the film's atoms.
    """
    projection = project(specimen.structure, specimen.zone_axis)
    px = scan.pixel_size_A
    step_u, step_v = projection.layer_step(specimen.plane)
    cell, normal = _oriented_cell(projection, (step_u, step_v), specimen.rotation_deg)
    cell = cell / px
    centre = np.full(2, (scan.size - 1) / 2)
    span = int(1.2 * scan.size / min(np.hypot(*cell[0]), np.hypot(*cell[1]))) + 3
    ii, jj = np.meshgrid(np.arange(-span, span + 1), np.arange(-span, span + 1), indexing="ij")
    rows = []
    for site in projection.sites:
        i, j = ii.ravel() + site.u, jj.ravel() + site.v
        rows.append(pd.DataFrame({"species": site.species, "i": i, "j": j}))
    table = pd.concat(rows, ignore_index=True)
    ij = table[["i", "j"]].to_numpy()
    xy = centre + ij @ cell
    layer = ij @ np.array([step_u, step_v])
    # The crystal ends on the cage plane whose distance from the border is nearest the wanted
    # film thickness; layers are then renumbered so that l = 0 lies just below it.
    spacing = projection.layer_spacing_A(specimen.plane) / px
    if specimen.film_A > 0:
        top = np.floor(((scan.size - 1) / 2 - specimen.film_A / px) / spacing)
    else:
        top = np.ceil(1.5 * span)
    layer = layer - top
    table["layer"] = layer
    table["N"] = (1 - np.floor(layer + 1e-6)).astype(int)
    inside = (table["N"] >= 1) & np.all((xy > -12) & (xy < scan.size + 11), axis=1).astype(bool)
    table = _displace(table[inside].reset_index(drop=True), specimen)
    disorder = rng.normal(0, specimen.disorder_A / px, (len(table), 2))
    shift = table[["delta_A", "delta_perp_A"]].to_numpy() / px
    unit = cell / np.hypot(cell[:, 0], cell[:, 1])[:, None]
    table[["x_px", "y_px"]] = xy[inside.to_numpy()] + shift @ unit + disorder
    table["x_A"], table["y_A"] = table["x_px"] * px, table["y_px"] * px
    edge = centre + (top + 0.5) * spacing * normal
    return table, _film_atoms(specimen, scan, edge, normal, rng)


def _oriented_cell(
    projection: Projection, steps: tuple[float, float], rotation_deg: float
) -> tuple[np.ndarray, np.ndarray]:
    """Turn the cell so that the layers grow upwards (image y points down)."""
    cell = projection.cell_matrix()
    gradient = np.linalg.solve(cell, np.array(steps, dtype=float))
    turn = -np.pi / 2 - np.arctan2(gradient[1], gradient[0]) + np.deg2rad(rotation_deg)
    c, s = np.cos(turn), np.sin(turn)
    cell = cell @ np.array([[c, s], [-s, c]])
    # u points to the right of the normal, as in the drawing of the geometry.
    if cell[0, 0] < 0:
        mirror = np.array(
            [np.cos(2 * np.deg2rad(rotation_deg)), np.sin(2 * np.deg2rad(rotation_deg))]
        )
        cell = cell @ np.array([[-mirror[0], -mirror[1]], [-mirror[1], mirror[0]]])
    gradient = np.linalg.solve(cell, np.array(steps, dtype=float))
    return cell, gradient / np.hypot(*gradient)


def _displace(table: pd.DataFrame, specimen: Specimen) -> pd.DataFrame:
    """Add true displacement, occupancy, integrated intensity and width to the columns."""
    moved = table["species"] == specimen.displaced
    n = table["N"].to_numpy()
    decay = specimen.delta0_A * np.exp(-(n - 1) / specimen.xi_planes)
    if specimen.last_displaced > 0:
        decay[n > specimen.last_displaced] = 0.0
    occupancy = np.ones(len(table))
    anion = (table["species"] == "O").to_numpy()
    for plane, share in enumerate(specimen.occupancy, start=1):
        occupancy[anion & (n == plane)] = share
    volume = table["species"].map(_COLUMN_VOLUME).fillna(0.25).to_numpy()
    return table.assign(
        delta_A=np.where(moved, decay + specimen.offset_A[0], 0.0),
        delta_perp_A=np.where(moved, specimen.offset_A[1], 0.0),
        occupancy=np.where(anion, occupancy, np.nan),
        intensity=volume * occupancy,
        sigma_A=table["species"].map(_COLUMN_SIGMA_A).fillna(0.42).to_numpy(),
    )


def _film_atoms(
    specimen: Specimen, scan: Scan, edge: np.ndarray, normal: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Scatter the film's atoms over the half plane beyond the crystal."""
    if specimen.film_A <= 0:
        return np.empty((0, 4))
    margin = 40
    side = scan.size + 2 * margin
    n = rng.poisson(specimen.film_density_per_A2 * (side * scan.pixel_size_A) ** 2)
    xy = rng.uniform(-margin, scan.size + margin, (n, 2))
    # 1 A of clearance from the last plane, softened as an amorphous contact is
    beyond = (xy - edge) @ normal * scan.pixel_size_A > 1.0 + rng.normal(0, 0.3, n)
    xy = xy[beyond]
    volume = specimen.film_atom_volume * rng.gamma(2.0, 0.5, len(xy))
    return np.column_stack([xy, volume, np.full(len(xy), 0.45 / scan.pixel_size_A)])


def _scan_frames(
    truth: pd.DataFrame, atoms: np.ndarray, scan: Scan, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Render every frame with its own drift, jitter, background and noise."""
    px = scan.pixel_size_A
    columns = np.column_stack(
        [truth["x_px"], truth["y_px"], truth["intensity"], truth["sigma_A"] / px]
    )
    blobs = np.vstack([columns, atoms])
    steps = rng.normal(0, scan.drift_px, (scan.n_frames, 2))
    steps[0] = 0
    shifts = np.cumsum(steps, axis=0)
    peak = np.max(columns[:, 2] / (2 * np.pi * (columns[:, 3] * px) ** 2))
    frames = np.empty((scan.n_frames, scan.size, scan.size), dtype=np.float32)
    common = _slow_background(scan.size, rng)
    for k in range(scan.n_frames):
        rows = np.linspace(-0.5, 0.5, scan.size)
        path = shifts[k] + rows[:, None] * rng.normal(0, scan.shear_px, 2)
        path = path + rng.normal(0, 1, (scan.size, 2)) * np.array(scan.jitter_px)
        image = render(blobs, path, scan.size) / px**2
        slow = common + 0.3 * _slow_background(scan.size, rng)
        image += scan.background * peak * slow
        frames[k] = image + idpc_noise(scan.size, px, scan.dose_e_per_A2, rng)
    return frames, shifts


def render(blobs: np.ndarray, path: np.ndarray, size: int) -> np.ndarray:
    """Render Gaussians as a scan sees them whose rows are displaced.

    Parameters
    ----------
    blobs : ndarray, shape (n, 4)
        x, y, integrated intensity, width, in px.
    path : ndarray, shape (size, 2)
        Shift (x, y) of the content in every row, px.
    size : int
        Rows and columns of the image.

    Returns
    -------
    ndarray, shape (size, size), float64
    """
    image = np.zeros((size, size))
    middle = path.mean(axis=0)
    reach = int(np.ceil(4.5 * blobs[:, 3].max() + np.abs(path - middle).max()))
    from stemdisp._render import add_gaussians  # compiles

    add_gaussians(image, np.ascontiguousarray(blobs), np.ascontiguousarray(path), middle, reach)
    return image


def _slow_background(size: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth random field of unit rms with features of a quarter of the image and longer."""
    f = np.hypot(fft.fftfreq(size)[:, None], fft.rfftfreq(size)[None, :]) * size
    spectrum = fft.rfft2(rng.normal(size=(size, size))) * np.exp(-((f / 1.5) ** 2))
    out = fft.irfft2(spectrum, s=(size, size))
    return (out - out.mean()) / out.std()


def idpc_noise(
    size: int, pixel_size_A: float, dose_e_per_A2: float, rng: np.random.Generator
) -> np.ndarray:
    """Make noise with the spectrum of iDPC.

    Each component of the DPC vector is the difference of two segments that together hold about
    half of the electrons, so its variance in one pixel is 0.5 / (dose * pixel area), in units
    of the beam squared. Integration divides by 2 pi i f; frequencies below one period per image
    are removed, as by the high-pass of every iDPC implementation.

    Returns
    -------
    ndarray, shape (size, size), float64
        In units of beam fraction times angstrom.
    """
    deviation = np.sqrt(0.5 / (dose_e_per_A2 * pixel_size_A**2))
    fy = fft.fftfreq(size, pixel_size_A)[:, None]
    fx = fft.rfftfreq(size, pixel_size_A)[None, :]
    f2 = fx**2 + fy**2
    f2[0, 0] = 1.0  # the numerator is zero there
    nx = fft.rfft2(rng.normal(0, deviation, (size, size)))
    ny = fft.rfft2(rng.normal(0, deviation, (size, size)))
    return fft.irfft2((fx * nx + fy * ny) / (2j * np.pi * f2), s=(size, size))


def _as_signal(
    frames: np.ndarray, shifts: np.ndarray, specimen: Specimen, scan: Scan, seed: int
) -> Signal2D:
    from hyperspy.signals import Signal2D

    signal = Signal2D(frames)
    frame_axis = signal.axes_manager.navigation_axes[0]
    frame_axis.name = "frame"
    for name, axis in zip("xy", signal.axes_manager.signal_axes, strict=True):
        axis.name, axis.scale, axis.units = name, scan.pixel_size_A, "Å"
    signal.metadata.General.title = "Synthetic iDPC stack of amorphous LaAlO3 / KTaO3(111)"
    signal.metadata.set_item("stemdisp.dose_e_per_A2", scan.dose_e_per_A2)
    signal.metadata.set_item("stemdisp.simulation.seed", seed)
    signal.metadata.set_item("stemdisp.simulation.intensity", PROPORTIONAL)
    signal.metadata.set_item("stemdisp.simulation.shifts_px", shifts.tolist())
    for part in (specimen, scan):
        for key, value in asdict(part).items():
            value = list(value) if isinstance(value, tuple) else value
            signal.metadata.set_item(f"stemdisp.simulation.{key}", value)
    return signal
