"""run(): the whole story. This is the only place that orders the stages."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stemdisp import statistics, tables
from stemdisp._acquire import Acquired, acquire, open_input
from stemdisp._chosen import applied_curve, chosen_curve, chosen_projection
from stemdisp._correct import check_data, image_notes
from stemdisp._gate import start as start_reading
from stemdisp._scene import Scene, fit_crystal
from stemdisp._summary import MISFIT, build_summary
from stemdisp.config import Config, config_from_dict, load_config, with_input
from stemdisp.corrections import Corrections, load_corrections
from stemdisp.crystal import Projection
from stemdisp.depths import find_depths
from stemdisp.dose import measure_frames
from stemdisp.errors import ConfigError, DataError
from stemdisp.find import find_unexpected
from stemdisp.interface import find_interface
from stemdisp.interpret import read_planes
from stemdisp.lattice import find_lattice
from stemdisp.load import classify, signal_pixel_size_A
from stemdisp.occupancy import line_profile, measure_occupancy, pure_anion
from stemdisp.planes import average_occupancy, average_planes, plane_correlation
from stemdisp.polarisation import charges_of, polarisation
from stemdisp.response import is_calibrated
from stemdisp.result import Result
from stemdisp.sublattice import measure_displacements
from stemdisp.vacancies import flag_vacancies

if TYPE_CHECKING:
    from hyperspy.signals import Signal2D

# Where columns show that they are no Gaussians: angstrom, and share of the displacement, by which
# plane N = 1 was off in multislice images (docs/systematics.md). Else the noise hides it.
FILM_BIAS = (0.01, 0.075)
STAGES = (
    "load",
    "register",
    "lattice",
    "refine",
    "displacement",
    "occupancy",
    "statistics",
    "dose",
)


@dataclass
class Clock:
    """Seconds per stage, told to a progress bar as they pass."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, bar: Any) -> Iterator[None]:
        """Time one stage."""
        bar.set_postfix_str("", refresh=False)
        bar.set_description_str(name)
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)
        bar.update()


def run(
    config: Config | str | os.PathLike[str] | dict[str, Any] | Signal2D,
    *,
    settings: Config | dict[str, Any] | None = None,
    corrections: Corrections | str | os.PathLike[str] | None = None,
    progress: bool = False,
    executor: Executor | None = None,
) -> Result:
    """Analyse an image or a stack from beginning to end.

    Parameters
    ----------
    config : Config, path of a TOML file, dict of its tables, or Signal2D
        What to run; a signal from a HyperSpy session is analysed with `settings`.
    settings : Config or dict, optional
        Configuration for a signal; defaults if not given.
    corrections : Corrections or path of their file, optional
        What is corrected by hand, instead of what ``[input] corrections`` names.
    progress : bool
        Show a progress bar (on a terminal only).
    executor : concurrent.futures.Executor, optional
        Who does the work frame by frame, such as the `get_executor()` of a Dask client; threads
        of this process by default. The results are the same.

    Returns
    -------
    Result

    Raises
    ------
    ConfigError
        The configuration is wrong.
    DataError
        The data cannot be read or do not support the analysis.
    """
    from threadpoolctl import threadpool_limits
    from tqdm import tqdm

    signal = config if hasattr(config, "axes_manager") else None
    chosen = _as_config(settings if signal is not None else config)
    if signal is None and not chosen.input.path:
        raise ConfigError(
            "[input] path names no file; give the data with --input (make pipeline: INPUT=...)"
        )
    chosen, by_hand = _corrections(chosen, corrections)
    check_data(by_hand, chosen.input.path if signal is None else ())
    clock = Clock()
    if signal is None:
        start_reading()
    # One thread in linear algebra: sums then do not depend on the number of cores.
    with (
        threadpool_limits(1),
        tqdm(total=len(STAGES), disable=None if progress else True, leave=False) as bar,
    ):
        return _run(chosen, signal, by_hand, clock, bar, executor)


def check_settings(config: Config) -> None:
    """Raise, before any data are read, what would end every run with this configuration.

    Parameters
    ----------
    config : Config
        The configuration.

    Raises
    ------
    ConfigError, DataError
        The crystal, or a file that is named beside the data, cannot be used.
    """
    chosen_projection(config)
    chosen_curve(config)
    _corrections(config, None)


def _as_config(given: Any) -> Config:
    if given is None:
        return Config()
    if isinstance(given, Config):
        return given
    return config_from_dict(given) if isinstance(given, dict) else load_config(Path(given))


def _corrections(
    config: Config, given: Corrections | str | os.PathLike[str] | None
) -> tuple[Config, Corrections]:
    """Give the corrections, and the configuration with the name of their file."""
    if isinstance(given, Corrections):
        found, config = given, with_input(config, corrections="none")
    else:
        if given is not None:
            config = with_input(config, corrections=os.fspath(given))
        name = config.input.corrections
        found = Corrections() if name == "none" else load_corrections(name)
    if found.interface is not None and config.interface.present is False:
        raise ConfigError(
            "the corrections state an interface, but [interface] present = false says that there "
            "is none; leave out one of them"
        )
    return config, found


def _run(
    config: Config,
    signal: Signal2D | None,
    by_hand: Corrections,
    clock: Clock,
    bar: Any,
    executor: Executor | None,
) -> Result:
    with clock.stage("load", bar):
        projection, curve = chosen_projection(config), chosen_curve(config)  # their files first
        source = open_input(config.input.files, config.input.kind) if signal is None else signal
        kind = classify(source, config.input.kind)
        curve, notes = applied_curve(curve, config, source)
    with clock.stage("register", bar):
        seen = acquire(
            source,
            config.input.kind,
            paths=None if signal is not None else config.input.files,
            executor=executor,
            progress=_steps(bar),
        )
        warnings = [*notes, *seen.warnings, *image_notes(by_hand, seen.image.data.shape)]
    with clock.stage("lattice", bar):
        scene = replace(_lattice(seen, source, projection, config, by_hand), curve=curve)
    with clock.stage("refine", bar):
        scene, columns, film, halves = fit_crystal(scene, seen.registration, warnings)
    with clock.stage("displacement", bar):
        columns, planes = _displacement(scene, columns, halves)
    with clock.stage("occupancy", bar):
        columns, planes, profile = _occupancy(scene, columns, planes)
    with clock.stage("statistics", bar):
        numbers = {} if scene.interface is None else _statistics(scene, columns, planes)
    with clock.stage("dose", bar):
        series = _frames(scene, seen, (columns, film, halves), executor, bar)
    fit = columns.attrs["fit"]
    result = Result(
        config=config,
        summary={},
        columns=tables.ordered(columns, "columns"),
        planes=tables.ordered(planes, "planes"),
        line_profile=tables.ordered(profile, "line_profile"),
        image=np.asarray(seen.image.data, dtype=np.float32),
        residual=(fit.residual * scene.lattice.sign).astype(np.float32),
        pixel_size_A=scene.size,
        lattice=scene.lattice,
        interface=scene.interface,
        projection=projection,
        curve=curve if columns["occupancy"].notna().any() else None,
        profile_line_px=profile.attrs.get("line_px"),
        unexpected=find_unexpected(
            fit.residual, fit.mask, pd.concat([columns, film]), 1 / np.sqrt(np.prod(scene.size))
        ),
        corrections=by_hand if by_hand.steps else None,
        **numbers,
        **series,
    )
    summary = build_summary(
        result,
        fit=fit,
        displacements=columns.attrs["displacements"],
        acquired=seen,
        source=source,
        kind=kind,
        from_file=signal is None,
        warnings=warnings,
    )
    result.summary.update(summary, timings_s=clock.seconds)
    return result


def _steps(bar: Any) -> Callable[[int, int], None]:
    """Show on the bar how many steps of a stage are done."""
    return lambda done, total: bar.set_postfix_str(f"{done}/{total}")


def _lattice(
    seen: Acquired,
    source: Signal2D,
    projection: Projection,
    config: Config,
    by_hand: Corrections,
) -> Scene:
    """Find the lattice and the interface."""
    data = np.asarray(seen.image.data, dtype=np.float64)
    wanted = config.input.pixel_size
    stated = signal_pixel_size_A(source)
    hint = wanted if not isinstance(wanted, str) else None
    if isinstance(wanted, str) and wanted != "lattice" and stated is not None:
        hint = float(np.sqrt(stated[0] * stated[1]))
    try:
        lattice = find_lattice(data, projection, pixel_size=hint)
    except DataError:
        # "auto" lets the lattice win over a wrong calibration; a stated size is a promise
        if hint is None or wanted != "auto":
            raise
        lattice = find_lattice(data, projection)
    face = config.interface
    try:
        lattice, interface = find_interface(
            data,
            lattice,
            projection=projection,
            plane=face.plane,
            cage_species=config.crystal.cage.split("/")[0],
            film=face.film,
            present=face.present,
            at=face.at if by_hand.interface is None else by_hand.interface,
        )
    except DataError as error:
        if by_hand.interface is None:
            raise
        raise DataError(f"corrections, interface: {error}") from error
    scene = Scene(seen.image, lattice, projection, interface, (1.0, 1.0), stated, config)
    scene = replace(scene, noise_psd=seen.noise_psd, corrections=by_hand)
    return scene.calibrated()[0]


def _displacement(
    scene: Scene, columns: pd.DataFrame, halves: list[pd.DataFrame]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Displacements of columns and planes."""
    config, face = scene.config, scene.interface
    spacing = scene.projection.layer_spacing_A(config.interface.plane) if face else np.nan
    columns = measure_displacements(
        columns,
        scene.lattice,
        projection=scene.projection,
        displaced=config.crystal.displaced,
        cage=config.crystal.cage,
        bulk_from=config.analysis.bulk_from,
        halves=halves,
    )
    planes = average_planes(
        columns,
        displaced=config.crystal.displaced,
        spacing_A=spacing,
        bulk_from=config.analysis.bulk_from,
        film_bias=FILM_BIAS if columns.attrs["fit"].misfit > MISFIT else (0.0, 0.0),
    )
    crystal, site = config.crystal, scene.projection.sites_of(config.crystal.displaced)[0]
    planes = read_planes(
        planes,
        mixed="O" in site.elements and site.species != "O",
        thickness_nm=config.specimen.thickness_nm,
        calibrated=is_calibrated(crystal.structure, crystal.zone_axis),
    )
    charges = charges_of(crystal.structure, crystal.born_charges)
    return columns, polarisation(planes, scene.projection, crystal.displaced, charges)


def _occupancy(
    scene: Scene, columns: pd.DataFrame, planes: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Occupancy of every anion column and plane, and the line profile."""
    config, anion = scene.config, pure_anion(scene.projection)
    profile = pd.DataFrame({"s_A": [], "intensity": [], "N": pd.array([], dtype="Int64")})
    # where oxygen is no peak any more, a number would only look like an occupancy
    if anion is None or scene.lattice.odd_contrast:
        unknown = dict.fromkeys(
            ("intensity_ratio", "intensity_ratio_err", "occupancy", "occupancy_err"), np.nan
        )
        columns = columns.assign(**unknown, vacancy_q=np.nan)
        return columns, planes.assign(n_anions=0, **unknown), profile
    columns = measure_occupancy(
        columns,
        anion=anion,
        bulk_from=config.analysis.bulk_from,
        trend_species=(config.crystal.cage.split("/")[0],),
        curve=scene.curve,
    )
    columns = flag_vacancies(columns, anion=anion)
    if scene.interface is None:
        return columns, planes, profile
    means = average_occupancy(columns, anion=anion, bulk_from=config.analysis.bulk_from)
    planes = planes.merge(means, on="N", how="outer").sort_values("N", ignore_index=True)
    profile = line_profile(
        scene.image,
        scene.lattice,
        columns=columns,
        interface=scene.interface,
        pixel_size=scene.size,
        anion=anion,
    )
    return columns, planes, profile


def _statistics(scene: Scene, columns: pd.DataFrame, planes: pd.DataFrame) -> dict[str, Any]:
    """Decay, depths and correlation of a crystal with an interface."""
    analysis = scene.config.analysis
    common: dict[str, Any] = {
        "bulk_from": analysis.bulk_from,
        "confidence": analysis.confidence,
        "seed": analysis.seed,
        "displaced": scene.config.crystal.displaced,
        "anion": pure_anion(scene.projection) or "O",
    }
    return {
        "decay": statistics.fit_decay(
            planes,
            confidence=analysis.confidence,
            correlation=plane_correlation(columns, displaced=common["displaced"]),
        ),
        "depths": find_depths(columns, planes, **common),
        "correlation": statistics.correlate(columns, planes, **common),
    }


def _frames(
    scene: Scene,
    seen: Acquired,
    fitted: tuple[pd.DataFrame, pd.DataFrame, list[pd.DataFrame]],
    executor: Executor | None,
    bar: Any,
) -> dict[str, Any]:
    """Per-frame table and dose series of a stack, from its columns, film and halves."""
    if seen.registration is None or seen.source is None:
        return {"frames": None, "dose_series": None}
    columns, film, halves = fitted
    found = measure_frames(
        seen.source,
        seen.registration,
        scene=scene,
        columns=columns,
        film=film,
        halves=halves,
        executor=executor,
        progress=_steps(bar),
    )
    return {
        "frames": tables.ordered(found.frames, "frames"),
        "dose_series": tables.ordered(found.series, "dose_series"),
    }
