"""What holds for every input: configuration, names, tables, corrections, units, and the physics."""

import csv
import json
import math
import os
import re
import tempfile
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from _exact_columns import columns_of, directions, is_, make_lattice, moved, plane
from _lattice_images import PIXEL_A, draw, lattice

from stemdisp import tables
from stemdisp._patterns import field_names, in_order
from stemdisp._printable import one_line, printable
from stemdisp._units import axis_scale_A, is_reciprocal
from stemdisp.config import config_from_dict, config_to_dict, describe, load_config
from stemdisp.corrections import Corrections, ImageId, load_corrections
from stemdisp.crystal import project
from stemdisp.errors import ConfigError, explain
from stemdisp.planes import average_planes
from stemdisp.refine import refine_columns
from stemdisp.report.files import config_toml, write_csv
from stemdisp.sublattice import measure_displacements
from stemdisp.tables import QUALITY_BITS, Quality

pytest.importorskip("hypothesis", reason="hypothesis is not installed")
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

KEYS = {spec.key: spec for spec in describe()}
WORDS = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
NAMES = WORDS.filter(str.strip)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
POINT = st.tuples(FINITE, FINITE)
SPECIES = st.from_regex(r"[A-Z][A-Za-z0-9]{0,3}", fullmatch=True)
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def hidden(text):
    """Characters that a terminal would act upon, or not show."""
    return {c for c in text if unicodedata.category(c) in HIDDEN}


def in_file(name, text):
    """Write a file in a directory of its own, for as long as the test needs it."""
    path = Path(tempfile.mkdtemp(dir=in_file.root), name)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.fixture(autouse=True, scope="module")
def _folder(tmp_path_factory):
    in_file.root = tmp_path_factory.mktemp("properties")


# --- configuration ---------------------------------------------------------------------------

POSITIVE = st.floats(1e-300, 1e300)
VALID = st.fixed_dictionaries(
    {},
    optional={
        "input": st.fixed_dictionaries(
            {},
            optional={
                "path": st.one_of(NAMES, st.lists(NAMES, min_size=1, max_size=3)),
                "kind": st.sampled_from(["auto", "image", "stack", "dpc-segments"]),
                "pixel_size": st.one_of(st.sampled_from(["auto", "file", "lattice"]), POSITIVE),
                "corrections": NAMES,
            },
        ),
        "crystal": st.fixed_dictionaries(
            {},
            optional={
                "structure": NAMES,
                "born_charges": st.one_of(
                    st.just("auto"),
                    st.dictionaries(st.sampled_from(["K", "Ta", "O"]), FINITE, max_size=3),
                ),
            },
        ),
        "specimen": st.fixed_dictionaries(
            {"thickness_nm": st.one_of(st.just("unknown"), POSITIVE)}
        ),
        "interface": st.one_of(
            st.fixed_dictionaries({"present": st.just(False)}),
            st.fixed_dictionaries(
                {"at": st.lists(st.lists(FINITE, min_size=2, max_size=2), min_size=1, max_size=1)}
            ),
            st.fixed_dictionaries({"film": st.sampled_from(["up", "down", "left", "right"])}),
        ),
        "refine": st.fixed_dictionaries({"noise": st.sampled_from(["idpc", "white", "poisson"])}),
        "analysis": st.fixed_dictionaries(
            {},
            optional={
                "bulk_from": st.integers(2, 2**62),
                "confidence": st.floats(0.5, 1, exclude_min=True, exclude_max=True),
                "seed": st.integers(0, 2**62),
                "dose_series": st.booleans(),
                "occupancy_calibration": WORDS,
            },
        ),
    },
)


@given(VALID)
def test_every_valid_configuration_survives_writing_and_reading(given_tables):
    config = config_from_dict(given_tables)
    text = config_toml(config)
    path = in_file("a.toml", text)
    from stemdisp._configcheck import read_toml

    again = config_from_dict(read_toml(path, "configuration file"))
    assert again == config
    assert config_from_dict(config_to_dict(config)) == config
    assert config_toml(again) == text


@st.composite
def misspelt(draw):
    """A key with one letter left out, doubled, changed, or two of them exchanged."""
    table, _, key = draw(st.sampled_from(sorted(KEYS))).partition(".")
    k = draw(st.integers(0, len(key) - 2))
    letter = draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz_"))
    wrong = draw(
        st.sampled_from(
            [
                key[:k] + key[k + 1 :],
                key[:k] + key[k] + key[k:],
                key[:k] + letter + key[k + 1 :],
                key[:k] + key[k + 1] + key[k] + key[k + 2 :],
            ]
        )
    )
    assume(wrong not in {name.partition(".")[2] for name in KEYS})
    return table, key, wrong


@given(misspelt())
def test_every_misspelt_key_is_refused_with_the_nearest_name(wrong):
    table, key, name = wrong
    with pytest.raises(ConfigError) as error:
        config_from_dict({table: {name: 1}})
    said = re.fullmatch(
        rf"\[{table}\] has no key '{name}'; did you mean '(\w+)'(.*)\?", str(error.value)
    )
    assert said, str(error.value)
    known = {each.rpartition(".")[2] for each in KEYS}
    assert said[1] in known
    if len(key) > 5:
        assert said[1] == key


SCALARS = st.one_of(
    WORDS,
    st.sampled_from(
        ["\x1b[2J\x1b]0;x\x07", "\u202e", "a\nstemdisp: all is well", "x" * 5000, "9" * 400]
    ),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.booleans(),
    st.dates(),
    st.times(),
    st.datetimes(),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=2)),
    max_leaves=5,
)


def as_toml(value):
    """Write any value as TOML, independently of the package."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value).replace("\x7f", "\\u007f") if value.isascii() else quoted(value)
    if isinstance(value, float):
        return "nan" if math.isnan(value) else repr(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return f"[{', '.join(map(as_toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{as_toml(k)} = {as_toml(v)}" for k, v in value.items()) + "}"
    return value.isoformat()


def quoted(text):
    return '"' + "".join(f"\\U{ord(c):08x}" for c in text) + '"'


@given(st.sampled_from(sorted(KEYS)), VALUES)
@settings(max_examples=200)
def test_any_value_in_any_key_is_taken_or_refused_in_one_plain_line(key, value):
    table, _, name = key.partition(".")
    path = in_file("a.toml", f"[{table}]\n{name} = {as_toml(value)}\n")
    try:
        config = load_config(path)
    except ConfigError as error:
        text, status = explain(error)
        assert status == 2 and not hidden(text) and 0 < len(text) <= 1000
        assert text.startswith(str(path))
    else:
        assert config_from_dict(config_to_dict(config)) == config


@given(st.binary(max_size=200) | VALUES.map(lambda value: f"a = {as_toml(value)}".encode()))
@example(b"a = " + b"[" * 3000)
@example(b"a = " + b"9" * 5000)
@example(b"\xff\xfe")
def test_any_file_at_all_is_refused_in_one_plain_line(content):
    try:
        load_config(in_file("a.toml", content))
    except ConfigError as error:
        text, status = explain(error)
        assert status == 2 and not hidden(text) and 0 < len(text) <= 1000


@given(st.text(max_size=3000))
def test_one_line_is_one_printable_line_that_says_the_same(text):
    line = one_line(text)
    assert not hidden(line) and "\n" not in line and len(line) <= 1000
    if len(text) < 100 and not hidden(text):
        assert line == " ".join(text.split())
    assert not hidden(printable(text))
    assert printable(printable(text)) == printable(text)


# --- names of fields -------------------------------------------------------------------------

PIECE = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0/"), max_size=12)
PATHS = st.lists(
    st.lists(
        PIECE | st.sampled_from(["..", ".", "a.tif", "A.TIF", "con", "fields.csv", "~", "-rf"]),
        min_size=1,
        max_size=4,
    )
    .map("/".join)
    .filter(bool),
    min_size=1,
    max_size=8,
    unique=True,
)


@given(PATHS)
@example(["a/b.tif", "a-b.tif", "A/B.tif", "a/b.dm4"])
@example(["x" * 250 + "1.tif", "x" * 250 + "2.tif"])
@example(["../../../etc/passwd", "$(touch x).tif", "`x`", "-rf", "con.dm3"])
def test_names_of_fields_are_distinct_safe_and_inside(paths):
    names = field_names(paths)
    folded = {unicodedata.normalize("NFC", name).casefold() for name in names}
    assert len(folded) == len(paths)
    for name in names:
        assert os.path.dirname(os.path.normpath(os.path.join("/out", name))) == "/out"
        assert re.fullmatch(r"[\w.-]+", name) and not name.startswith(("-", "."))
        assert len(name.encode()) <= 170 and not hidden(name)
    back = field_names(paths[::-1])
    assert back[::-1] == names


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 10**30)), unique=True))
def test_paths_are_sorted_by_their_numbers(fields):
    paths = [f"{folder}/f{number}.tif" for folder, number in fields]
    assert in_order(paths) == [f"{folder}/f{number}.tif" for folder, number in sorted(fields)]


# --- tables ----------------------------------------------------------------------------------


@st.composite
def a_table(draw):
    table = draw(st.sampled_from(["columns", "planes", "fields", "frames", "line_profile"]))
    n = draw(st.integers(1, 4))
    content = {}
    for name, spec in tables.specs(table).items():
        if spec.dtype == "str":
            values = draw(
                st.lists(
                    WORDS
                    | st.sampled_from(
                        ["=1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", "＝1", '"', "a,b"]
                    ),
                    min_size=n,
                    max_size=n,
                )
            )
        elif spec.dtype == "float64":
            values = draw(st.lists(st.floats(width=64), min_size=n, max_size=n))
        elif spec.dtype == "Int64":
            values = pd.array(
                draw(st.lists(st.none() | st.integers(-(2**53), 2**53), min_size=n, max_size=n)),
                dtype="Int64",
            )
        elif spec.dtype == "bool":
            values = draw(st.lists(st.booleans(), min_size=n, max_size=n))
        else:
            values = draw(st.lists(st.integers(0, 2**13 - 1), min_size=n, max_size=n))
        content[name] = values
    return table, pd.DataFrame(content)


@given(a_table())
def test_written_tables_read_back_with_the_same_values(made):
    table, frame = made
    path = in_file("t.csv", "")
    write_csv(frame, table, path)
    whole = path.read_bytes()
    with path.open(encoding="utf-8", newline="") as stream:
        cells = list(csv.reader(stream))
    assert cells[0] == list(tables.specs(table)) and len(cells) == len(frame) + 1
    assert whole.count(b"\n") == len(frame) + 1
    for k, (name, spec) in enumerate(tables.specs(table).items()):
        found = [row[k] for row in cells[1:]]
        if spec.dtype == "str":
            assert not any(cell.lstrip().startswith(tuple("=+-@\t\r\n＝＋－＠")) for cell in found)
            assert not any(hidden(cell) for cell in found)
        elif spec.dtype == "float64":
            wanted = [float(f"{x:.6g}") for x in frame[name]]
            read = [float(cell) if cell else math.nan for cell in found]
            assert np.array(read).tobytes() == np.array(wanted).tobytes() or all(
                a == b or (math.isnan(a) and math.isnan(b))
                for a, b in zip(read, wanted, strict=True)
            )
        elif spec.dtype in ("Int64", "int64"):
            assert found == ["" if pd.isna(x) else str(x) for x in frame[name]]
    again = in_file("again.csv", "")
    kept = {name: "str" for name, spec in tables.specs(table).items() if spec.dtype == "str"}
    write_csv(pd.read_csv(path, dtype=kept, keep_default_na=False, na_values=[""]), table, again)
    assert again.read_bytes().count(b"\n") == whole.count(b"\n")


@given(st.lists(st.integers(0, 2**13 - 1), min_size=1, max_size=20))
def test_quality_bits_are_known_by_their_names(bits):
    names = [[bit.name for bit in Quality(value)] for value in bits]
    back = [sum(Quality[name] for name in each) for each in names]
    assert back == bits
    count = tables.count_quality(pd.DataFrame({"quality": bits}))
    for spec in QUALITY_BITS:
        assert count[spec.short] == sum(spec.bit.name in each for each in names)
    assert len(count) == len(QUALITY_BITS) == 13


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("remove"), FINITE, FINITE),
        st.tuples(st.just("add"), SPECIES, FINITE, FINITE),
        st.tuples(st.just("move"), POINT, POINT),
        st.tuples(st.just("relabel"), FINITE, FINITE, SPECIES),
        st.tuples(st.just("move_interface"), st.lists(POINT, min_size=1, max_size=1)),
    ),
    max_size=6,
)
IMAGES = st.none() | st.builds(
    ImageId, st.none() | st.tuples(st.integers(1, 10**9), st.integers(1, 10**9)), WORDS, WORDS
)


@given(STEPS, IMAGES)
def test_corrections_survive_writing_and_reading(steps, image):
    made = Corrections(image=image)
    for name, *values in steps:
        made = getattr(made, name)(*values)
    path = in_file("c.toml", made.to_toml())
    found = load_corrections(path)
    assert found.steps == made.steps and found.sha256() == made.sha256()
    if image not in (None, ImageId()):
        assert found.image == image
    for _ in steps:
        made = made.undo()
    assert made.steps == () and made.interface is None


# --- units -----------------------------------------------------------------------------------

UNITS = {
    "Å": 1,
    "A": 1,
    "angstrom": 1,
    "pm": 0.01,
    "nm": 10,
    "µm": 1e4,
    "um": 1e4,
    "mm": 1e7,
    "m": 1e10,
}


@given(
    st.sampled_from(sorted(UNITS)),
    st.floats(1e-20, 1e20),
    st.sampled_from(["{}", " {} ", "[{}]", "({})", "{}/px", "{} / pixel"]),
    st.booleans(),
)
def test_a_length_is_the_same_in_every_spelling(unit, scale, spelling, upper):
    text = spelling.format(unit)
    if upper:
        text = text.upper()
    assert axis_scale_A(scale, text) == pytest.approx(scale * UNITS[unit], rel=1e-15)
    assert axis_scale_A(-scale, text) is None and not is_reciprocal(text)
    assert is_reciprocal(f"1/{unit}") and axis_scale_A(scale, f"1/{unit}") is None


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda x: st.lists(x, max_size=2) | st.dictionaries(st.text(max_size=2), x, max_size=2),
        max_leaves=4,
    ),
    st.text(max_size=8)
    | st.binary(max_size=8)
    | st.sampled_from(["nm", b"nm"])
    | st.none()
    | st.integers(),
)
@example(10**400, "nm")
@example({}, "m")
def test_any_scale_with_any_unit_is_a_length_or_unknown(scale, unit):
    value = axis_scale_A(scale, unit)
    assert value is None or (isinstance(value, float) and 0 < value < math.inf)
    assert is_reciprocal(unit) in (True, False)


# --- physics ---------------------------------------------------------------------------------

KTO = project("KTaO3", (1, -1, 0))
SHIFTS = st.integers(0, 2**31 - 1)
CLOSE = {"rtol": 0, "atol": 1e-9}  # angstrom; of positions of some 100


def displaced(rotation_deg, seed, *, pixel=0.15, shift_A=(0.0, 0.0)):
    """Columns of which every K is moved by a known vector along u and v; and their lattice."""
    rng = np.random.default_rng(seed)
    size = (pixel, pixel)
    lat = make_lattice(rotation_deg, pixel=size)
    table = columns_of(lat, pixel=size)
    k = is_(table, "K")
    along = np.where(k & (plane(table) < 10), rng.normal(0, 0.3, len(table)), 0.0)
    across = np.where(k & (plane(table) < 10), rng.normal(0, 0.3, len(table)), 0.0)
    u, v = directions(lat, table, pixel=size)
    vector = along[:, None] * u + across[:, None] * v + np.array(shift_A)
    everything = np.ones(len(table), dtype=bool)
    return moved(table, everything, vector, pixel=size), lat, along, across


def measured(table, lat):
    found = measure_displacements(table, lat, projection=KTO)
    return [found[name].to_numpy() for name in ("delta_A", "delta_perp_A", "delta_err_A")]


@given(SHIFTS, st.floats(-180, 180))
@settings(max_examples=20)
def test_displacements_do_not_depend_on_how_the_crystal_lies(seed, angle):
    _, perp0, err0 = base = measured(*displaced(0.0, seed)[:2])
    table, lat, along, across = displaced(angle, seed)
    delta, perp, err = measured(table, lat)
    known = np.isfinite(delta)
    assert known.sum() > 100
    np.testing.assert_allclose(delta[known], along[known], **CLOSE)
    np.testing.assert_allclose(perp[known], across[known], **CLOSE)
    np.testing.assert_allclose(delta, base[0], **CLOSE)
    np.testing.assert_allclose(perp, perp0, **CLOSE)
    np.testing.assert_allclose(err, err0, rtol=1e-9)


@given(SHIFTS, st.tuples(st.floats(-50, 50), st.floats(-50, 50)))
@settings(max_examples=20)
def test_displacements_do_not_depend_on_where_the_image_begins(seed, shift):
    table, lat, *_ = displaced(30.0, seed)
    there, *_ = displaced(30.0, seed, shift_A=shift)
    for one, other in zip(measured(table, lat), measured(there, lat), strict=True):
        np.testing.assert_allclose(one, other, **CLOSE)


@given(SHIFTS, st.floats(0.2, 5.0))
@settings(max_examples=20)
def test_displacements_grow_with_the_size_of_a_pixel(seed, factor):
    table, lat, *_ = displaced(30.0, seed)
    lengths = ["x_A", "y_A", "x_err_A", "y_err_A"]
    larger = table.assign(**{name: factor * table[name] for name in lengths})
    for one, other in zip(measured(table, lat), measured(larger, lat), strict=True):
        np.testing.assert_allclose(factor * one, other, rtol=1e-9, atol=1e-9)


@given(SHIFTS, SHIFTS)
@settings(max_examples=10)
def test_the_order_of_rows_does_not_matter(seed, other):
    table, lat, *_ = displaced(30.0, seed)
    order = np.random.default_rng(other).permutation(len(table))
    mixed = table.iloc[order].reset_index(drop=True)
    for one, shuffled in zip(measured(table, lat), measured(mixed, lat), strict=True):
        np.testing.assert_allclose(one[order], shuffled, **CLOSE)
    full, part = (measure_displacements(t, lat, projection=KTO) for t in (table, mixed))
    pd.testing.assert_frame_equal(average_planes(full), average_planes(part), atol=1e-9, rtol=1e-9)


@given(SHIFTS)
@settings(max_examples=20)
def test_a_mirror_turns_the_displacement_across_it(seed):
    table, lat, *_ = displaced(30.0, seed)
    turned = table.assign(y_A=-table["y_A"], y_px=-table["y_px"])
    cells = {
        name: getattr(lat, name) * [1, -1] for name in ("origin_px", "u_px", "v_px", "centre_px")
    }
    for one, other in zip(
        measured(table, lat), measured(turned, replace(lat, **cells)), strict=True
    ):
        np.testing.assert_allclose(one, other, **CLOSE)


@given(SHIFTS, st.floats(0.1, 10.0), st.sampled_from([-1, 1]))
@settings(max_examples=12)
def test_plane_means_follow_their_columns(seed, factor, sign):
    table, lat, *_ = displaced(30.0, seed)
    columns = measure_displacements(table, lat, projection=KTO)
    columns.attrs.clear()  # the joint covariance knows of no factor
    scaled = columns.assign(
        delta_A=sign * factor * columns["delta_A"],
        delta_perp_A=sign * factor * columns["delta_perp_A"],
        delta_err_A=factor * columns["delta_err_A"],
        delta_perp_err_A=factor * columns["delta_perp_err_A"],
    )
    one, other = average_planes(columns), average_planes(scaled)
    for name in ("delta_A", "delta_perp_A"):
        np.testing.assert_allclose(sign * factor * one[name], other[name], rtol=1e-6, atol=1e-9)
        error = name.replace("_A", "_err_A")
        np.testing.assert_allclose(factor * one[error], other[error], rtol=1e-6)
    means = columns[(columns["species"] == "K") & columns["delta_A"].notna()].groupby("N")
    low, high = means["delta_A"].min(), means["delta_A"].max()
    value = one.set_index("N")["delta_A"]
    assert ((value >= low - 1e-12) & (value <= high + 1e-12))[low.index].all()


def test_the_invariances_would_be_missed_by_a_wrong_axis():
    table, lat, along, _ = displaced(30.0, 1)
    swapped = table.assign(x_A=table["y_A"], y_A=table["x_A"])
    delta = measured(swapped, lat)[0]
    known = np.isfinite(delta)
    assert np.abs(delta[known] - along[known]).max() > 0.1


SIZE = (72, 88)


@pytest.fixture(scope="module")
def tiny():
    rng = np.random.default_rng(5)
    truth = lattice(rng, size=SIZE, turn_deg=20.0)
    image = draw(truth, size=SIZE) + rng.normal(0, 0.02, SIZE)
    starts = truth[["species", "site_x", "site_y"]].rename(
        columns={"site_x": "x_px", "site_y": "y_px"}
    )
    return image, starts, refine_columns(image, starts, pixel_size=PIXEL_A, noise="white")


def turned(image, table, times, mirror):
    """Turn an image by quarters (and mirror it first), and the places in it."""
    x, y, height = table["x_px"], table["y_px"], image.shape[0]
    if mirror:
        image, y = image[::-1], height - 1 - y
    for _ in range(times):
        # counter-clockwise as seen: the right edge becomes the upper one
        x, y = y, image.shape[1] - 1 - x
        image = np.rot90(image)
    return np.ascontiguousarray(image), table.assign(x_px=x, y_px=y)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("times", [0, 1, 2, 3])
def test_a_fit_does_not_depend_on_how_the_image_is_turned(tiny, times, mirror):
    image, starts, found = tiny
    other, places = turned(image, starts, times, mirror)
    fitted = refine_columns(other, places, pixel_size=PIXEL_A, noise="white")
    _, wanted = turned(image, found, times, mirror)
    error = np.hypot(found["x_err_A"], found["y_err_A"]).to_numpy() / PIXEL_A
    apart = np.hypot(fitted["x_px"] - wanted["x_px"], fitted["y_px"] - wanted["y_px"])
    assert (apart < 0.01 * error).all(), (apart / error).max()
    np.testing.assert_allclose(fitted["intensity"], found["intensity"], rtol=2e-3)
    odd = times % 2
    for name, twin in (("x_err_A", "y_err_A"), ("y_err_A", "x_err_A")):
        ratio = fitted[name] / found[twin if odd else name]
        np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-3)
        # The level of the noise is known from the pixels, to 1 / sqrt(2 n).
        assert abs(ratio.mean() - 1) < 2 / np.sqrt(2 * image.size)
    assert (fitted["quality"] == found["quality"]).all()


@pytest.mark.parametrize(("factor", "offset"), [(1e-9, 0.0), (7.0, -3.0), (1e6, 1e7)])
def test_a_fit_does_not_depend_on_the_scale_of_intensity(tiny, factor, offset):
    image, starts, found = tiny
    fitted = refine_columns(factor * image + offset, starts, pixel_size=PIXEL_A, noise="white")
    error = np.hypot(found["x_err_A"], found["y_err_A"]).to_numpy()
    apart = np.hypot(fitted["x_A"] - found["x_A"], fitted["y_A"] - found["y_A"])
    assert (apart < 0.01 * error).all(), (apart / error).max()
    np.testing.assert_allclose(fitted["intensity"], factor * found["intensity"], rtol=2e-3)
    np.testing.assert_allclose(fitted["x_err_A"], found["x_err_A"], rtol=0.01)


def test_a_turn_the_wrong_way_would_be_seen(tiny):
    image, _, found = tiny
    _, wanted = turned(image, found, 1, False)
    _, wrong = turned(image, found, 3, False)
    apart = np.hypot(wanted["x_px"] - wrong["x_px"], wanted["y_px"] - wrong["y_px"])
    assert apart.median() > 10
