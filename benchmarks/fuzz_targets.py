"""What is fuzzed: every reader of what a user, a microscope or an earlier run has written.

A target takes bytes, hands them to the reader as a file (or text), and says what must hold of an
answer. It raises `Broken` for an answer that is wrong, and lets through what the reader raises.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import unicodedata
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import fuzz_seeds as seeds
from stemdisp import (
    _field_row,
    _formats,
    _patterns,
    _presets,
    _publish,
    _read,
    _units,
    _zarrscan,
    config,
    corrections,
    crystal,
    planes,
    response,
    tables,
)
from stemdisp._configcheck import read_toml
from stemdisp.errors import ConfigError, DataError, StemdispError, explain
from stemdisp.report.files import config_toml

# Of control characters, surrogates and the like a terminal must see nothing.
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


class Broken(Exception):
    """A reader accepted what it must not, or said what must not be shown."""


@dataclass(frozen=True)
class Target:
    """One reader: what it may raise, what inputs look like."""

    name: str
    run: Callable[[bytes, Path], object]
    allowed: tuple[type[Exception], ...]
    seeds: Callable[[], list[bytes]]
    tokens: tuple[str, ...] = ()
    max_len: int = 4096
    what: str = field(default="", kw_only=True)


def check(target: Target, data: bytes, folder: Path) -> None:
    """Run one input; return if it is taken or refused as documented, else raise."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.run(data, folder)
    except Broken:
        raise
    except target.allowed as err:
        if isinstance(err, StemdispError):
            told(err)


def told(err: Exception) -> None:
    """Refuse a message that a terminal would not show as one plain line."""
    text, _ = explain(err)
    bad = {hex(ord(c)) for c in text if unicodedata.category(c) in _UNSEEN}
    if bad:
        raise Broken(f"the message holds {sorted(bad)[:5]}")
    if not text or len(text) > 2000:
        raise Broken(f"the message has {len(text)} characters")


def _file(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


# A pattern that begins at the root, or climbs, would walk through the whole machine.
_WALKS = re.compile(rb"[*?\[]")


def _walks(data: bytes) -> bool:
    return bool(_WALKS.search(data.replace(b"[[", b"").replace(b"[", b"", 64))) and (
        b"/" in data or b"\\" in data
    )


def _config(data: bytes, folder: Path) -> None:
    if b"path" in data and _walks(data):
        return
    path = _file(folder, "in.toml", data)
    found = config.load_config(path)
    written = _file(folder, "again.toml", config_toml(found).encode())
    again = config.config_from_dict(read_toml(written, "configuration"))
    if again != found:
        raise Broken(f"{found!r} comes back as {again!r}")


def _corrections(data: bytes, folder: Path) -> None:
    found = corrections.load_corrections(_file(folder, "in.toml", data))
    again = corrections.load_corrections(_file(folder, "out.toml", found.to_toml().encode()))
    if again != found or again.sha256() != found.sha256():
        raise Broken(f"{found!r} comes back as {again!r}")
    found.describe()
    [str(step) for step in found.steps]


def _curve(data: bytes, folder: Path) -> None:
    curve = response.read_curve(_file(folder, "curve.csv", data))
    at = np.linspace(-0.5, 2.0, 41)
    value, error = curve(at, np.full(41, 0.1))
    if not np.isfinite(value).all() or not np.isfinite(error).all():
        raise Broken("a curve that was accepted has no finite values")
    if (np.diff(value) < 0).any() or (error < 0).any():
        raise Broken("a curve that was accepted does not rise")


def _batch(data: bytes, folder: Path) -> None:
    """Results of an earlier run: kept, or made again; never an error."""
    parts = data.split(seeds.SPLIT)
    field_ = folder / "field"
    field_.mkdir(exist_ok=True)
    for name, part in zip(
        ("summary.json", "planes.csv", _publish.MARKER), parts + [b""] * 3, strict=False
    ):
        (field_ / name).write_bytes(part)
    source = _file(folder, "data.npy", b"data")
    if not _field_row.is_current(field_, str(source), seeds.SETTINGS):
        return
    row = {"field": "field", "path": "data.npy", "status": "done", "message": ""}
    row |= _field_row.row_of(field_)
    _field_row.describe_row(row)
    _field_row.write_tables([row], folder)


def _marker(data: bytes, folder: Path) -> None:
    out = folder / "out"
    out.mkdir(exist_ok=True)
    (out / _publish.MARKER).write_bytes(data)
    (out / "mine.txt").write_bytes(b"precious")
    _publish.is_complete(out)
    with _publish.publish(out) as new:
        (new / "report.html").write_bytes(b"x")
    (out / "report.html").unlink(missing_ok=True)


def _cif(data: bytes, folder: Path) -> None:
    found = _presets.load_structure(_file(folder, "in.cif", data))
    ok = np.isfinite(found.positions).all() and (found.positions >= 0).all()
    ok &= (found.positions <= 1).all() and np.isfinite(found.metric).all()
    if not ok or not (found.occupancy > 0).all() or not np.linalg.det(found.metric) > 0:
        raise Broken("a structure that was accepted makes no sense")
    seen = crystal.project(str(folder / "in.cif"), (1, -1, 0))
    if not (math.isfinite(seen.period_A) and seen.period_A > 0):
        raise Broken("a projection that was accepted makes no sense")


def _tables(data: bytes, folder: Path) -> None:
    try:
        frame = pd.read_csv(io.BytesIO(data))
    except (ValueError, pd.errors.ParserError, OverflowError):
        return  # not read by stemdisp
    for call in (
        lambda: tables.ordered(frame, "frames"),
        lambda: tables.count_quality(frame),
        lambda: planes.average_planes(frame),
        lambda: planes.average_occupancy(frame),
    ):
        try:
            call()
        except ValueError as err:
            told(err)


def _paths(data: bytes, folder: Path) -> None:
    names = list(dict.fromkeys(os.fsdecode(data).split("\n")))
    plain = [name for name in _patterns.in_order(names) if name]
    if sorted(plain) != sorted(name for name in names if name):
        raise Broken("sorting loses names")
    chosen = _patterns.field_names(plain)
    whole = os.path.realpath(folder)
    if len({unicodedata.normalize("NFC", name).casefold() for name in chosen}) != len(plain):
        raise Broken(f"{plain} share a name: {chosen}")
    for name in chosen:
        if (
            os.path.dirname(os.path.realpath(folder / name)) != whole
            or len(os.fsencode(name)) > 170
        ):
            raise Broken(f"{name!r} is no name of a directory")
        if any(unicodedata.category(c) in _UNSEEN for c in name) or re.search(
            r"[<>:\"|?*&;$`]", name
        ):
            raise Broken(f"{name!r} holds characters that a shell or a page may act upon")
    safe = [name for name in plain if not name.startswith("/") and ".." not in name]
    if any(map(_patterns.is_pattern, (os.path.join(folder, name) for name in safe))):
        here = [os.path.join(folder, name) for name in safe]
        found = _patterns.expand(here, leave_out=folder / "out")
        if any(not os.path.realpath(path).startswith(whole) for path in found):
            raise Broken(f"{found} lie outside")


def _unit(data: bytes, folder: Path) -> None:
    try:
        scale, unit = json.loads(data)
    except (ValueError, TypeError, RecursionError):
        scale, unit = 0.5, data
    value = _units.axis_scale_A(scale, unit)
    if value is not None and not (isinstance(value, float) and 0 < value < math.inf):
        raise Broken(f"{scale!r} {unit!r} is {value!r} angstrom")
    if value is not None and _units.is_reciprocal(unit):
        raise Broken(f"{unit!r} is a length and a reciprocal one")


ZSPY_FILES = (
    ".zgroup",
    ".zmetadata",
    "Experiments/__unnamed__/.zattrs",
    "Experiments/__unnamed__/axis-0/.zattrs",
    "Experiments/__unnamed__/data/.zarray",
    "Experiments/__unnamed__/data/0.0",
)


def _zspy(data: bytes, folder: Path) -> None:
    store = folder / "in.zspy"
    for name, part in zip(ZSPY_FILES, data.split(seeds.SPLIT), strict=False):
        path = store / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if part:
            path.write_bytes(part)
        else:
            path.unlink(missing_ok=True)
    if not store.is_dir():
        return
    declared = _zarrscan.scan_zspy(str(store), max_bytes=_formats.MAX_BYTES)
    if not (isinstance(declared, int) and 0 <= declared):
        raise Broken(f"a store declares {declared!r} bytes")


def _header(data: bytes, folder: Path) -> None:
    if data.startswith((b"\x89HDF", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return  # what follows is the work of h5py and tifffile
    path = _file(folder, "in.mrc", data)
    found = _formats.find_format(str(path))
    if found.name not in _formats.FORMATS or not found.declared_bytes >= 0:
        raise Broken(f"{found.name!r} declares {found.declared_bytes!r} bytes")


_READER = (DataError, ImportError, *_read.READ_ERRORS)  # `read_file` turns all into a DataError

TARGETS = {
    target.name: target
    for target in (
        Target(
            "config",
            _config,
            (ConfigError,),
            seeds.config_seeds,
            seeds.TOML + seeds.KEYS + seeds.SECTIONS,
            what="`load_config`; what is accepted is written and read again",
        ),
        Target(
            "corrections",
            _corrections,
            (ConfigError,),
            seeds.corrections_seeds,
            (
                *seeds.TOML,
                "action",
                "at_px",
                "to_px",
                "points_px",
                "species",
                "[[correction]]\n",
                "[image]\n",
                "size_px",
                "sha256",
                "input",
                "format = 1\n",
                *corrections.ACTIONS,
            ),
            what="`load_corrections`, and the round trip",
        ),
        Target(
            "curve",
            _curve,
            (ConfigError,),
            lambda: [b"ratio,occupancy,occupancy_err\n0,0,.1\n1,1,.1\n"],
            seeds.CSV,
            what="`response.read_curve`",
        ),
        Target(
            "batch",
            _batch,
            (),
            seeds.batch_seeds,
            seeds.JSON + seeds.CSV,
            8192,
            what="earlier fields of a batch: `is_current`, `row_of`, `write_tables`",
        ),
        Target(
            "marker",
            _marker,
            (ConfigError,),
            lambda: [b"report.html\n", b"fields.csv\nplanes.csv\n", b"mine.txt\n"],
            seeds.MARKS,
            what="the list of files of an output directory, before it is replaced",
        ),
        Target(
            "cif",
            _cif,
            (ValueError,),
            seeds.cif_seeds,
            seeds.CIF,
            8192,
            what="`load_structure` and `project`",
        ),
        Target(
            "tables",
            _tables,
            (),
            seeds.table_seeds,
            seeds.CSV + tuple(tables.specs("columns")),
            8192,
            what="a user's table: `tables.ordered`, `average_planes`, `average_occupancy`",
        ),
        Target(
            "paths",
            _paths,
            (ConfigError,),
            lambda: [b"a/f1.hspy\na/f10.hspy\nb/f1.hspy::x\n*.dm4", b"con.tif\n../f.tif"],
            seeds.PATHS,
            what="patterns, order and names of fields",
        ),
        Target(
            "units",
            _unit,
            (),
            lambda: [b'[0.1, "nm"]', b'[2, "1/nm"]', b'[1, "n_m"]', b'[1e-11, "m"]'],
            seeds.UNITS + seeds.JSON,
            256,
            what="units and scales of axes as files state them",
        ),
        Target(
            "zspy",
            _zspy,
            _READER,
            seeds.zspy_seeds,
            (
                *seeds.JSON,
                "shape",
                "chunks",
                "dtype",
                "filters",
                "compressor",
                '"|O"',
                '"<f8"',
                "vlen-utf8",
                "dimension_separator",
                '"/"',
                "expression",
                "metadata",
            ),
            8192,
            what="`scan_zspy`: metadata and pieces of a store",
        ),
        Target(
            "header",
            _header,
            _READER,
            seeds.header_seeds,
            ("MAP ", "II*\0", "MM\0*", "II+\0", "\\x93NUMPY", "II\x97\x01"),
            what="what the first bytes of a file decide, without HDF5 and TIFF",
        ),
    )
}
