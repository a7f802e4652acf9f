"""Multislice images of a lamella, as a segmented detector sees them (abTEM does the optics).

Needs ``pip install stemdisp[simulate]``. Every row of the scan sees only a strip of the lamella, as
wide as the probe spreads; strips are computed side by side by several processes.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import signal as sp_signal

from stemdisp.lamella import Atoms, Lamella, build_lamella

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperspy.signals import Signal2D

# Thermal vibration, rms per axis (angstrom), at room temperature; others: that of the last entry.
VIBRATION_A = {"K": 0.087, "Ta": 0.060, "O": 0.087, "La": 0.08, "Al": 0.08, "": 0.08}
STRIP_A = 17.0  # height of crystal that a row of the scan sees
ROWS_A = 4.0  # height of a strip's rows
FILM_SEEN_A = 8.0
SLICES = 2  # per period along the beam


@dataclass(frozen=True)
class Optics:
    """The microscope and how it scans.

    Attributes
    ----------
    energy_kV, convergence_mrad : float
        Acceleration voltage and semi-angle of the probe.
    inner_mrad, outer_mrad : float
        Collection angles of the four quadrants, centred on +x, +y, -x, -y.
    defocus_nm : float or None
        Depth of the focus below the entrance surface; None: 0.42 of the thickness.
    tilt_mrad : (float, float)
        Of the specimen, about the axes that move it along x and y.
    phonons : int
        Configurations of vibrating atoms; each is used with its mirror image about the mean
        places, so their number is doubled.
    scan_step_A, potential_step_A : float
        Largest steps of the scan and of the potential. Heavy columns need a fine potential: Ta at
        10 nm is 7 % weaker at 0.1 A than at 0.08 A, K and O 2 %.
    """

    energy_kV: float = 300.0
    convergence_mrad: float = 25.0
    inner_mrad: float = 6.0
    outer_mrad: float = 24.0
    defocus_nm: float | None = None
    tilt_mrad: tuple[float, float] = (0.0, 0.0)
    phonons: int = 1
    scan_step_A: float = 0.245
    potential_step_A: float = 0.08


@dataclass(frozen=True, eq=False)
class Quadrants:
    """What the detector counts without noise.

    Attributes
    ----------
    data : ndarray, shape (n_thickness, 4, ny, nx), float32
        Shares of the beam. x repeats.
    thickness_nm : tuple of float
    pixel_A : (float, float)
        Along x and y; pixel (0, 0) lies at `origin_A`.
    origin_A : (float, float)
    atoms : Atoms
    """

    data: np.ndarray
    thickness_nm: tuple[float, ...]
    pixel_A: tuple[float, float]
    origin_A: tuple[float, float]
    atoms: Atoms


def multislice(
    lamella: Lamella,
    optics: Optics | None = None,
    *,
    thickness_nm: tuple[float, ...] = (),
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Quadrants:
    """Compute the four quadrant images of a lamella.

    Parameters
    ----------
    lamella : Lamella
    optics : Optics, optional
    thickness_nm : tuple of float
        Thicknesses at which the wave is read; the lamella's own if empty.
    seed : int
        Of the vibrations.
    workers : int, optional
        Processes; as many as there are cores by default.
    progress : callable, optional
        Called as ``progress(done, total)``.

    Returns
    -------
    Quadrants

    Raises
    ------
    ImportError
        abTEM is not installed.
    ValueError
        See `build_lamella`.
    """
    _need_abtem()
    optics = optics or Optics()
    atoms = build_lamella(lamella)
    slice_A = atoms.period_A / SLICES
    n_slices = round(atoms.box_A[2] / slice_A)
    wanted = thickness_nm or (lamella.thickness_nm,)
    exits = tuple(
        sorted({min(n_slices, max(1, round(10 * t / atoms.period_A)) * SLICES) for t in wanted})
    )
    bands = _bands(lamella, atoms, optics)
    depth_A = 4.2 * lamella.thickness_nm if optics.defocus_nm is None else 10 * optics.defocus_nm
    tasks = [
        _Task(band, positions, atoms, optics, exits, depth_A, lamella.film_A <= 0)
        for positions in _vibrating(atoms, optics.phonons, seed)
        for band in bands
    ]
    # One thread each: processes share the cores, and FFTW's threads would only get in the way.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ProcessPoolExecutor(workers or os.cpu_count(), get_context("spawn")) as pool:
        parts = []
        for done, part in enumerate(pool.map(_scan_band, tasks), start=1):
            parts.append(part)
            if progress is not None:
                progress(done, len(tasks))
    n = len(tasks) // len(bands)
    each = [np.concatenate(parts[k * len(bands) : (k + 1) * len(bands)], axis=2) for k in range(n)]
    image = np.asarray(sum(each)) / n
    step = (atoms.box_A[0] / image.shape[3], float(bands[0].step_A))
    return Quadrants(
        data=image.astype(np.float32),
        thickness_nm=tuple(k * slice_A / 10 for k in exits),
        pixel_A=step,
        origin_A=(0.0, float(bands[0].y_A[0])),
        atoms=atoms,
    )


def _need_abtem() -> None:
    try:
        import abtem  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "multislice needs abTEM, which is not installed; run: pip install 'stemdisp[simulate]'"
        ) from error


@dataclass(frozen=True, eq=False)
class _Band:
    """Rows of the scan that see the same strip."""

    y_A: np.ndarray
    step_A: float
    n_x: int
    low_A: float  # of the strip
    height_A: float


@dataclass(frozen=True, eq=False)
class _Task:
    """One band with one configuration of vibrating atoms."""

    band: _Band
    positions_A: np.ndarray
    atoms: Atoms
    optics: Optics
    exits: tuple[int, ...]
    depth_A: float
    repeats: bool


def _bands(lamella: Lamella, atoms: Atoms, optics: Optics) -> list[_Band]:
    """Divide the rows of the scan: from some way up in the film to the last plane."""
    width, height, _ = atoms.box_A
    start = max(0.0, atoms.top_A - FILM_SEEN_A) if lamella.film_A > 0 else 0.0
    # below the last plane the box ends, or the crystal goes on where it repeats
    stop = height - (0.5 * STRIP_A if lamella.film_A > 0 else 0.0)
    n_rows = int(np.ceil((stop - start) / optics.scan_step_A))
    y = start + (stop - start) / n_rows * np.arange(n_rows)
    n_x = int(np.ceil(width / optics.scan_step_A))
    parts = np.array_split(y, max(1, round((stop - start) / ROWS_A)))
    if lamella.film_A > 0:
        strip = min(STRIP_A + ROWS_A, height)
    else:  # whole boxes: the crystal goes on
        strip = height * max(1, int(np.ceil(STRIP_A / height)))
    return [
        _Band(part, (stop - start) / n_rows, n_x, float(part.mean()) - strip / 2, strip)
        for part in parts
    ]


def _vibrating(atoms: Atoms, n: int, seed: int) -> list[np.ndarray]:
    """Positions of the atoms, moved at random and by the opposite."""
    if n < 1:
        return [atoms.positions_A]
    rng = np.random.default_rng(seed)
    rms = np.array([VIBRATION_A.get(e, VIBRATION_A[""]) for e in atoms.elements])
    moves = rng.normal(0.0, 1.0, (n, len(rms), 3)) * rms[:, None]
    return [atoms.positions_A + sign * move for move in moves for sign in (1.0, -1.0)]


def _scan_band(task: _Task) -> np.ndarray:
    """Quadrants (n_exits, 4, n_rows, n_x) of one band."""
    import abtem
    from ase import Atoms as AseAtoms

    abtem.config.set({"fftw.threads": 1, "diagnostics.progress_bar": False})
    band, optics = task.band, task.optics
    width, height, depth = task.atoms.box_A
    xyz, elements = task.positions_A.copy(), task.atoms.elements
    xyz[:, 1] -= band.low_A
    if task.repeats:
        copies = round(band.height_A / height)
        steps = np.repeat(np.arange(copies), len(xyz)) * height
        xyz, elements = np.tile(xyz, (copies, 1)), np.tile(elements, copies)
        xyz[:, 1] += steps
        inside = np.ones(len(xyz), dtype=bool)
    else:
        inside = (xyz[:, 1] >= 0) & (xyz[:, 1] < band.height_A)
    model = AseAtoms(
        list(elements[inside]),
        positions=xyz[inside],
        cell=(width, band.height_A, depth),
        pbc=True,
    )
    model.wrap()
    grid = [int(np.ceil(side / optics.potential_step_A / 2)) * 2 for side in (width, band.height_A)]
    n_slices = round(depth / (task.atoms.period_A / SLICES))
    potential = abtem.Potential(
        model,
        gpts=tuple(grid),
        slice_thickness=depth / n_slices,
        parametrization="lobato",
        projection="infinite",
        exit_planes=tuple(k - 1 for k in task.exits),
    ).build(lazy=False)
    probe = abtem.Probe(
        energy=1e3 * optics.energy_kV,
        semiangle_cutoff=optics.convergence_mrad,
        defocus=task.depth_A,
        tilt=optics.tilt_mrad,
    )
    x = width / band.n_x * np.arange(band.n_x)
    where = np.stack(np.meshgrid(x, band.y_A - band.low_A, indexing="xy"), axis=-1)
    detector = abtem.SegmentedDetector(
        inner=optics.inner_mrad,
        outer=optics.outer_mrad,
        nbins_radial=1,
        nbins_azimuthal=4,
        rotation=-np.pi / 4,
    )
    counted = probe.scan(
        potential,
        scan=abtem.CustomScan(where.reshape(-1, 2)),
        detectors=detector,
        max_batch=64,
        lazy=False,
    )
    array = np.asarray(counted.array).reshape(len(task.exits), len(band.y_A), band.n_x, 4)
    return np.moveaxis(array, 3, 1)


def resampled(quadrants: Quadrants, pixel_size_A: float) -> tuple[np.ndarray, tuple[float, float]]:
    """Interpolate to about a pixel size, without changing what the scan has resolved.

    Parameters
    ----------
    quadrants : Quadrants
    pixel_size_A : float
        Wanted; x gets a whole number of pixels per period.

    Returns
    -------
    data : ndarray, shape (n_thickness, 4, ny, nx)
    pixel_A : (float, float)
        Along x and y.
    """
    data = quadrants.data.astype(np.float64)
    ny, nx = data.shape[2:]
    wide = round(nx * quadrants.pixel_A[0] / pixel_size_A)
    data = sp_signal.resample(data, wide, axis=3)
    # rows do not repeat where there is a film: a mirror image below makes them
    high = round(ny * quadrants.pixel_A[1] / pixel_size_A)
    mirrored = np.concatenate([data, data[:, :, ::-1]], axis=2)
    mirrored = sp_signal.resample(mirrored, 2 * high, axis=2)
    pixel = (quadrants.pixel_A[0] * nx / wide, quadrants.pixel_A[1] * ny / high)
    # the mirror lies half an old row beyond the first one, and resampling keeps the first in place
    return np.clip(mirrored[:, :, :high], 0.0, None), pixel


def simulate_multislice(
    lamella: Lamella,
    optics: Optics | None = None,
    *,
    dose_e_per_A2: float = 2000.0,
    pixel_size_A: float = 0.1,
    width_A: float = 60.0,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Signal2D, pd.DataFrame]:
    """Simulate the four segment images of one scan, with counting noise.

    Parameters
    ----------
    lamella : Lamella
    optics : Optics, optional
    dose_e_per_A2 : float
        Electrons per square angstrom; infinite for no noise.
    pixel_size_A : float
        About this; the crystal's period is a whole number of pixels.
    width_A : float
        At least; the computed period is repeated, each time with noise of its own.
    seed : int
        Of vibrations and noise.
    progress : callable, optional
        Called as ``progress(done, total)``.

    Returns
    -------
    segments : Signal2D
        float32 counts (shares of the beam without noise), axes ``(segment | x, y)`` in angstrom;
        segments lie at +x, +y, -x, -y.
    truth : DataFrame
        One row per column of the image: ``species, i, j, layer, N, x_px, y_px, x_A, y_A`` of its
        site, ``delta_A`` of the cation, ``occupancy`` of pure anion columns.

    Raises
    ------
    ImportError
        abTEM is not installed.
    ValueError
        See `build_lamella`; or a dose that is not positive.
    """
    if not dose_e_per_A2 > 0:
        raise ValueError(f"dose_e_per_A2 = {dose_e_per_A2!r} must be positive")
    found = multislice(lamella, optics, seed=seed, progress=progress)
    data, pixel = resampled(found, pixel_size_A)
    times = max(1, int(np.ceil(width_A / found.atoms.box_A[0])))
    image = np.tile(data[0], (1, 1, times))
    if np.isfinite(dose_e_per_A2):
        rng = np.random.default_rng([seed, 1])
        image = rng.poisson(image * dose_e_per_A2 * pixel[0] * pixel[1])
    truth = _tiled_truth(found, pixel, image.shape[1:], times)
    return _as_signal(image.astype(np.float32), pixel, (lamella, optics), dose_e_per_A2), truth


def _tiled_truth(
    found: Quadrants, pixel: tuple[float, float], shape: tuple[int, int], times: int
) -> pd.DataFrame:
    """Truth of all repeats, in pixels of the image."""
    one, width = found.atoms.columns, found.atoms.box_A[0]
    di, dj = _lateral_indices(one, width)
    table = pd.concat(
        [
            one.assign(x_A=one["x_A"] + k * width, i=one["i"] + k * di, j=one["j"] + k * dj)
            for k in range(times)
        ],
        ignore_index=True,
    )
    table["x_A"] -= found.origin_A[0]
    # pixels after resampling: the first one stays where it was
    table["y_A"] -= found.origin_A[1]
    if abs(shape[0] * pixel[1] - found.atoms.box_A[1]) < 1e-6:  # a whole box: the crystal goes on
        table["y_A"] = (table["y_A"] + 0.5 * pixel[1]) % found.atoms.box_A[1] - 0.5 * pixel[1]
    table["x_px"], table["y_px"] = table["x_A"] / pixel[0], table["y_A"] / pixel[1]
    inside = table["y_px"].between(-0.5, shape[0] - 0.5)
    return table[inside].reset_index(drop=True)


def _lateral_indices(columns: pd.DataFrame, width: float) -> tuple[float, float]:
    """Change of (i, j) over one period along x, from the gradient of the columns' places."""
    design = np.column_stack([np.ones(len(columns)), columns["i"], columns["j"]])
    where = columns[["x_A", "y_A"]].to_numpy()
    # x wraps round, so use differences of neighbours in one row only
    step = _unwrapped_cell(design[:, 1:], where, width)
    return tuple(np.rint(np.linalg.solve(step.T, [width, 0.0])))


def _unwrapped_cell(ij: np.ndarray, xy: np.ndarray, width: float) -> np.ndarray:
    """Rows are u and v in angstrom, from columns whose x is known up to whole periods."""
    first = ij - ij[0]
    near = np.argsort(np.abs(first).sum(axis=1), kind="stable")[1:12]
    off = xy[near] - xy[0]
    off[:, 0] -= width * np.rint(off[:, 0] / width)
    return np.linalg.lstsq(first[near], off, rcond=None)[0]


def _as_signal(
    image: np.ndarray,
    pixel: tuple[float, float],
    settings: tuple[Lamella, Optics | None],
    dose: float,
) -> Signal2D:
    from hyperspy.signals import Signal2D

    signal = Signal2D(image)
    signal.axes_manager.navigation_axes[0].name = "segment"
    for name, axis, step in zip("xy", signal.axes_manager.signal_axes, pixel, strict=True):
        axis.name, axis.scale, axis.units = name, step, "Å"
    signal.metadata.General.title = "Multislice DPC segments of an oxide interface"
    signal.metadata.set_item("stemdisp.dose_e_per_A2", float(dose))
    for part in (settings[0], settings[1] or Optics()):
        for key, value in asdict(part).items():
            value = list(value) if isinstance(value, tuple) else value
            signal.metadata.set_item(f"stemdisp.simulation.{key}", value)
    return signal
