"""The configuration of a run: one frozen, validated table per topic, read from TOML.

The keys, their defaults and their explanations stand here once; ``--help`` and the documentation
are made from them (`describe`). This module imports nothing heavy, so a wrong configuration is
refused before any array library is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_type_hints

import msgspec
from msgspec import Meta, Struct

from stemdisp._configcheck import (
    Indices,
    check_charges,
    check_indices,
    check_points,
    check_word_or_positive,
    dot,
    explain_invalid,
    first_existing,
    read_toml,
    refuse_corrections,
    refuse_unknown,
    toml_value,  # noqa: F401 - the command line and the documentation take it from here
    with_lists,
)
from stemdisp.errors import ConfigError

_SPECIES = re.compile(r"[A-Z][A-Za-z0-9]*")


def _key(type_in_words: str, doc: str, **limits: Any) -> Meta:
    """Describe one key: its type in words and what it does."""
    return Meta(title=type_in_words, description=doc, **limits)


class InputConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to read."""

    path: Annotated[
        str | tuple[str, ...],
        _key(
            "path, or list of paths",
            "The data: any image file that HyperSpy/RosettaSciIO reads. Several files are the "
            "frames of one series, or the segments of a detector. A pattern with * ? or [ makes "
            "every file that it matches a field of its own. A relative path starts at the "
            "working directory; where nothing is there, at the configuration file's folder, then "
            "at that folder's parent. FILE::NAME picks one of several signals in a file. [] "
            "leaves it to --input.",
        ),
    ] = ("sample_data/lao_kto_111.hspy",)
    kind: Annotated[
        Literal["auto", "image", "stack", "dpc-segments"],
        _key(
            '"auto", "image", "stack" or "dpc-segments"',
            "What the data are: one image, frames of the same area, or the segment images of one "
            "scan or of a series of scans (these are integrated to iDPC images first). auto: "
            "whichever the file holds.",
        ),
    ] = "auto"
    pixel_size: Annotated[
        str | float,
        _key(
            '"auto", "file", "lattice" or a number in angstrom',
            "The size of a pixel. lattice: from the periods of the bulk crystal. auto: that of "
            "the file, checked against the lattice, which wins (with a warning) where they differ "
            "by more than 1 %; the lattice where the file has none.",
        ),
    ] = "auto"
    corrections: Annotated[
        str,
        _key(
            '"none", or the path of a TOML file',
            "What is corrected by hand: the file that stemdisp.edit, or a call, has saved.",
        ),
    ] = "none"

    @property
    def files(self) -> tuple[str, ...]:
        """The paths, also where ``path`` was given as a single one."""
        return (self.path,) if isinstance(self.path, str) else tuple(self.path)

    def __post_init__(self) -> None:
        """Check the values; accept a single path."""
        if not all(path.strip() for path in self.files):
            raise ValueError(f"path = {list(self.files)!r} names no file; give at least one")
        msgspec.structs.force_setattr(self, "path", self.files)
        if not self.corrections.strip():
            raise ValueError('corrections is empty; give the path of a file, or "none"')
        check_word_or_positive(
            "pixel_size", self.pixel_size, ("auto", "file", "lattice"), "a size in angstrom"
        )


class CrystalConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The crystal and how it is seen."""

    structure: Annotated[
        str, _key("preset name, or path of a CIF file", "The crystal structure of the bulk.")
    ] = "KTaO3"
    zone_axis: Annotated[Indices, _key("three integers", "Direction [u v w] along the beam.")] = (
        1,
        -1,
        0,
    )
    displaced: Annotated[
        str,
        _key(
            "species",
            "The species whose columns move in their cage; a mixed column carries its cation.",
        ),
    ] = "K"
    cage: Annotated[
        str,
        _key(
            "species, or several joined by /",
            "The neighbours whose centre the displacement is measured from.",
        ),
    ] = "Ta/O"

    born_charges: Annotated[
        Literal["auto"] | dict[str, float],
        _key(
            '"auto", or a table of species = charge',
            "Born effective charges in units of e, for the estimate of the polarisation; that of "
            "oxygen across its bonds to the cage cation. auto: those of the preset, none for other "
            "crystals.",
        ),
    ] = "auto"

    def __post_init__(self) -> None:
        """Check the values."""
        check_indices("zone_axis", self.zone_axis)
        if not self.structure.strip():
            raise ValueError("structure is empty; give a preset's name or the path of a CIF file")
        if not _SPECIES.fullmatch(self.displaced):
            raise ValueError(f"displaced = {self.displaced!r} is not a species; write it like 'K'")
        parts = self.cage.split("/")
        if not all(_SPECIES.fullmatch(part) for part in parts) or len(set(parts)) < len(parts):
            raise ValueError(
                f"cage = {self.cage!r} is not a list of species; write it like 'Ta' or 'Ta/O'"
            )
        if not isinstance(self.born_charges, str):
            check_charges("born_charges", self.born_charges)
        if self.displaced in parts:
            raise ValueError(
                f"cage = {self.cage!r} contains the displaced species {self.displaced!r}; "
                "leave it out of the cage"
            )


class SpecimenConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is known about the specimen."""

    thickness_nm: Annotated[
        str | float,
        _key(
            '"unknown", or a number in nm',
            "The thickness along the beam. A number lets the report turn a column's displacement "
            "into that of its atoms.",
        ),
    ] = "unknown"

    def __post_init__(self) -> None:
        """Check the values."""
        check_word_or_positive("thickness_nm", self.thickness_nm, ("unknown",), "a thickness in nm")


class InterfaceConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the crystal ends."""

    present: Annotated[
        bool | Literal["auto"],
        _key(
            'true, false or "auto"',
            "Whether the image holds an interface. false: a crystal without one; displacements "
            "and maps, no depth profile.",
        ),
    ] = "auto"
    plane: Annotated[
        Indices, _key("three integers", "Miller indices (h k l) of the interface, seen edge-on.")
    ] = (1, 1, 1)
    count_along: Annotated[
        Indices, _key("three integers", "Direction [u v w] along which the planes are counted.")
    ] = (0, 0, 1)
    film: Annotated[
        Literal["auto", "up", "down", "left", "right"],
        _key(
            '"auto", "up", "down", "left" or "right"',
            "On which side of the image the film lies.",
        ),
    ] = "auto"
    at: Annotated[
        Literal["auto"] | tuple[tuple[float, float], ...],
        _key(
            '"auto", one point [[x, y]] or two points [[x, y], [x, y]]',
            "Your own interface, in pixels of the (aligned) image, x to the right and y down, as "
            "in columns.csv. Two points: a line beyond which no column of the crystal lies. One "
            "point: plane N = 1 runs through it.",
        ),
    ] = "auto"

    def __post_init__(self) -> None:
        """Check the values."""
        if not isinstance(self.at, str):
            check_points("at", self.at)
            if self.present is False:
                raise ValueError(
                    "at states an interface, but present = false says that there is none; "
                    "leave out one of them"
                )
        check_indices("plane", self.plane)
        check_indices("count_along", self.count_along)


class RefineConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How columns are fitted."""

    noise: Annotated[
        Literal["auto", "idpc", "white", "poisson"],
        _key(
            '"auto", "idpc", "white" or "poisson"',
            "The noise of the image: idpc has the 1/k^2 spectrum of an integrated signal. auto: "
            "from the image's own spectrum.",
        ),
    ] = "auto"


class AnalysisConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The statistics."""

    bulk_from: Annotated[
        int, _key("integer, 2 or more", "The first plane that is taken as bulk.", ge=2)
    ] = 10
    confidence: Annotated[
        float,
        _key(
            "number between 0.5 and 1", "Confidence level of all intervals and tests.", gt=0.5, lt=1
        ),
    ] = 0.95
    seed: Annotated[
        int,
        _key("integer, 0 or more", "Seed of the random numbers (bootstrap, permutations).", ge=0),
    ] = 0
    occupancy_calibration: Annotated[
        str,
        _key(
            '"auto", "none", or the path of a CSV file',
            "The curve from the intensity of an anion column (over that of full ones) to its "
            "occupancy. auto: from multislice images, where there are some of this crystal, view "
            "and thickness_nm, else none. A file has the columns ratio and occupancy.",
        ),
    ] = "auto"
    dose_series: Annotated[
        bool,
        _key(
            "true or false",
            "Whether every frame of a stack is measured by itself too. false saves time; "
            "frames.csv then holds shifts and doses only.",
        ),
    ] = True


class Config(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A complete run; ``Config()`` is the default one."""

    input: InputConfig = InputConfig()
    crystal: CrystalConfig = CrystalConfig()
    specimen: SpecimenConfig = SpecimenConfig()
    interface: InterfaceConfig = InterfaceConfig()
    refine: RefineConfig = RefineConfig()
    analysis: AnalysisConfig = AnalysisConfig()

    def __post_init__(self) -> None:
        """Check what one table must keep of another."""
        if self.interface.present is False:
            return
        plane, zone = self.interface.plane, self.crystal.zone_axis
        if dot(plane, zone) != 0:
            raise ValueError(
                f"interface.plane = {list(plane)} is not seen edge-on along crystal.zone_axis = "
                f"{list(zone)}; choose another plane, or set interface.present = false"
            )
        if dot(plane, self.interface.count_along) == 0:
            raise ValueError(
                f"interface.count_along = {list(self.interface.count_along)} runs along "
                f"interface.plane = {list(plane)}; choose a direction that crosses it"
            )


class KeySpec(NamedTuple):
    """One documented key of the configuration."""

    key: str
    default: Any
    type: str
    doc: str


def describe() -> list[KeySpec]:
    """List every key of the configuration.

    Returns
    -------
    list of KeySpec
        Each with ``key`` (``"table.name"``), ``default`` (the value), ``type`` and ``doc`` (in
        words), in the order of the file.
    """
    return [
        KeySpec(f"{table}.{name}", getattr(struct(), name), str(meta.title), str(meta.description))
        for table, struct in _tables().items()
        for name, meta in _documented_fields(struct)
    ]


def config_to_dict(config: Config) -> dict[str, dict[str, Any]]:
    """Return a configuration as plain dictionaries, as `config_from_dict` takes them.

    Parameters
    ----------
    config : Config
        The configuration.

    Returns
    -------
    dict
        One dictionary per table; sequences are lists.
    """
    return with_lists(msgspec.to_builtins(config))  # JSON has no bytes that are no text


def config_from_dict(tables: Mapping[str, Any]) -> Config:
    """Validate plain dictionaries as a configuration.

    Parameters
    ----------
    tables : mapping
        One mapping per table, as TOML gives them; what is absent takes its default.

    Returns
    -------
    Config
        The validated configuration.

    Raises
    ------
    ConfigError
        If a key is unknown (the nearest known one is named) or a value is not allowed.
    """
    names = {table: [n for n, _ in _documented_fields(s)] for table, s in _tables().items()}
    refuse_unknown(tables, names)
    try:
        return msgspec.convert(tables, Config)
    except msgspec.ValidationError as err:
        allowed = {spec.key: spec.type for spec in describe()}
        raise ConfigError(explain_invalid(str(err), tables, allowed)) from err


def load_config(path: str | Path) -> Config:
    """Read and validate a configuration file.

    Parameters
    ----------
    path : str or path
        A TOML file.

    Returns
    -------
    Config
        The validated configuration, its relative paths resolved: to the working directory, or
        where nothing is there, to the file's folder, or to that folder's parent.

    Raises
    ------
    ConfigError
        If the file cannot be read, is not TOML, or is not a valid configuration.
    """
    path = Path(path)
    tables = read_toml(path, "configuration file")
    refuse_corrections(tables, path)
    try:
        config = config_from_dict(tables)
    except ConfigError as err:
        raise ConfigError(f"{path}: {err}") from err
    folders = (Path(), path.parent, path.parent.parent)
    found = tuple(first_existing(name, folders) for name in config.input.path)
    structure = config.crystal.structure
    if structure.lower().endswith(".cif"):
        structure = first_existing(structure, folders)
    curve, by_hand = config.analysis.occupancy_calibration, config.input.corrections
    if curve not in ("auto", "none"):
        curve = first_existing(curve, folders)
    if by_hand != "none":
        by_hand = first_existing(by_hand, folders)
    replace = msgspec.structs.replace
    return replace(
        config,
        input=replace(config.input, path=found, corrections=by_hand),
        crystal=replace(config.crystal, structure=structure),
        analysis=replace(config.analysis, occupancy_calibration=curve),
    )


def with_input(
    config: Config, paths: tuple[str, ...] | None = None, *, corrections: str | None = None
) -> Config:
    """Return the configuration with other input files.

    Parameters
    ----------
    config : Config
        The configuration.
    paths : tuple of str, optional
        The data, taken as they are.
    corrections : str, optional
        The file of corrections, or "none".

    Returns
    -------
    Config
        A new configuration.

    Raises
    ------
    ConfigError
        A path is empty.
    """
    if paths is not None and not all(path.strip() for path in paths):
        raise ConfigError("--input holds an empty name; give the path of a file")
    given = {"path": paths, "corrections": corrections}
    changed = {key: value for key, value in given.items() if value is not None}
    source = msgspec.structs.replace(config.input, **changed)
    return msgspec.structs.replace(config, input=source)


def _tables() -> dict[str, type[Struct]]:
    """Map each table's name to its struct."""
    return get_type_hints(Config)


def _documented_fields(struct: type[Struct]) -> Iterator[tuple[str, Meta]]:
    """Yield each field's name with its description."""
    for name, hint in get_type_hints(struct, include_extras=True).items():
        yield name, hint.__metadata__[0]
