"""What fuzzing found stays mended; and the harness that looks for more."""

import io
import json
import random

import pandas as pd
import pytest

from benchmarks import fuzz
from benchmarks import fuzz_seeds as seeds
from benchmarks.fuzz_targets import TARGETS, Broken, Target, check, told
from stemdisp.errors import ConfigError, DataError


def earlier(planes=None, marker=None, whole=None, **changes):
    """The results of an earlier field, with something changed in them."""
    summary, table, listed = seeds.batch_seeds()[0].split(seeds.SPLIT)
    content = json.loads(summary) | changes
    content = {key: value for key, value in content.items() if value is not ...}
    parts = (whole or json.dumps(content).encode(), planes or table, marker or listed)
    return seeds.SPLIT.join(parts)


def planes_with(name, cell, *, line=1):
    """A table of planes in which one cell is another."""
    lines = seeds.batch_seeds()[0].split(seeds.SPLIT)[1].splitlines()
    cells = lines[line].split(b",")
    cells[lines[0].split(b",").index(name)] = cell
    lines[line] = b",".join(cells)
    return b"\n".join(lines) + b"\n"


CIF = seeds.cif_seeds()[0]
ENDLESS = CIF.replace(b"_length_c 4.0", b"_length_c 4.01e300").replace(b"gamma 90", b"gamma 89")
ENDLESS = ENDLESS.replace(b"alpha 90", b"alpha 4294967296").replace(b"221", b"1")

# Each shortest input of a kind, in words; all of them led to an error that no caller expects, to
# an answer that was wrong, or to a message that acts on a terminal.
FOUND = [
    ("config", b'[input]\nkind = "\\u001b]0;x\\u0007"\n'),
    ("config", b'[interface]\npresent = "\\u202e"\n'),
    ("config", b'["\\u001b"]\n'),
    ("config", b'[crystal]\nborn_charges = {"\\u001b" = 1}\n'),
    ("config", b"[analysis]\nseed = " + b"9" * 4400),
    ("config", b'[input]\npixel_size = "' + b"x" * 4000 + b'"\n'),
    ("config", b"a = " + b"[" * 2000),
    ("config", b'[input]\npath = "' + b"x" * 300 + b'"\n'),
    ("corrections", b"a = " + b"[" * 2000),
    ("curve", b"ratio,occupancy\n" + b"\x1b" * 2000 + b",1\n"),
    ("batch", earlier(decay=...)),
    ("batch", earlier(depth=...)),
    ("batch", earlier(warnings=...)),
    ("batch", earlier(warnings=[{}])),
    ("batch", earlier(pixel_size_A=...)),
    ("batch", earlier(pixel_size_A=["0.14", 0.14])),
    ("batch", earlier(pixel_size_A=[-0.14, 0.14])),
    ("batch", earlier(bulk_offset_A=...)),
    ("batch", earlier(decay="exponential")),
    ("batch", earlier(decay={"xi_planes": [1], "xi_ci_planes": [1, 2]})),
    ("batch", earlier(decay={"xi_planes": 1, "xi_ci_planes": [1]})),
    ("batch", earlier(depth={"vacancy": {"N": 2.5}})),
    ("batch", earlier(planes=planes_with(b"delta_A", b"1\x0e2"))),
    ("batch", earlier(planes=planes_with(b"delta_A", b"1,2,3,4", line=2))),
    ("batch", earlier(marker=b"planes.csv\n\xf3\n")),
    ("batch", earlier(whole=b"[" * 5000)),
    ("marker", b"\xf3report.html\n"),
    ("cif", CIF.replace(b"_cell_length_b 4.0", b"_cell_length_b x")),
    ("cif", ENDLESS),
    ("tables", b"species,N\nK,1\n"),
    ("tables", b"quality\nNA\n"),
    ("tables", b"quality\n" + b"9" * 30 + b"\n"),
    ("tables", b"species,N,i,quality,delta_A,delta_err_A,delta_perp_A\nK,1,1,0,1,1,1\n"),
    ("tables", b"species,N,i,quality,intensity_ratio\nK,1,1,0,1\n"),
    (
        "tables",
        b"species,N,i,quality,delta_A,delta_err_A,delta_perp_A,delta_perp_err_A\nK,1,1,0,x,1,1,1\n",
    ),
    ("paths", b"a\0/*"),
    ("paths", b"f" + b"9" * 4400 + b"\nf1"),
    ("units", b'[{}, "m"]'),
    (
        "corrections",
        b'format = 1\n[image]\nsize_px = [640, 480]\nsha256 = "1"\n[[correction]]\naction = [1]\n',
    ),
    ("curve", b"ratio,occupancy\n" + b"1" * 400 + b",1\n"),
    ("tables", b"species,N,i,quality,delta_A,delta_err_A,delta_perp_A,delta_perp_err_A\n"),
    ("units", b"[" + b"9" * 400 + b', "m"]'),
]


@pytest.mark.parametrize(
    ("name", "data"), FOUND, ids=[f"{n}-{k}" for k, (n, _) in enumerate(FOUND)]
)
def test_what_was_found_stays_mended(name, data, tmp_path):
    check(TARGETS[name], data, tmp_path)


def test_an_earlier_field_that_is_whole_is_kept(tmp_path):
    """The inputs above reach the code that they are meant for."""
    from stemdisp import _field_row

    words = earlier(planes=planes_with(b"delta_A", b"1\x0e2"))
    for data, kept in ((earlier(), True), (earlier(decay=...), False), (words, False)):
        check(TARGETS["batch"], data, tmp_path)
        source = str(tmp_path / "data.npy")
        assert _field_row.is_current(tmp_path / "field", source, seeds.SETTINGS) is kept


def test_a_structure_and_a_table_that_are_whole_are_taken(tmp_path):
    from stemdisp import _presets, planes

    (tmp_path / "a.cif").write_bytes(CIF)
    assert len(_presets.load_structure(tmp_path / "a.cif").elements) == 5
    for wrong in (b"b x", b"b 4e300", b"b 0.5", b"b nan"):
        changed = CIF.replace(b"_cell_length_b 4.0", b"_cell_length_" + wrong)
        (tmp_path / "b.cif").write_bytes(changed)
        with pytest.raises(ValueError, match="has no complete unit cell"):
            _presets.load_structure(tmp_path / "b.cif")
    whole = pd.read_csv(io.BytesIO(seeds.table_seeds()[0]))
    assert len(planes.average_planes(whole)) == 1
    with pytest.raises(ValueError, match="columns: delta_A holds something else than numbers"):
        planes.average_planes(whole.assign(delta_A="x"))
    with pytest.raises(ValueError, match="columns lacks delta_perp_err_A"):
        planes.average_planes(whole.drop(columns="delta_perp_err_A"))


@pytest.mark.parametrize("name", TARGETS)
def test_every_reader_takes_what_fuzzing_starts_from(name, tmp_path):
    for number, data in enumerate(TARGETS[name].seeds()):
        folder = tmp_path / str(number)
        folder.mkdir()
        check(TARGETS[name], data, folder)


@pytest.mark.parametrize(("name", "taken"), [("header", 4), ("zspy", 1)])
def test_whole_files_are_taken_not_only_refused_as_they_may_be(name, taken, tmp_path):
    """What these targets may raise is wide enough to hide a mistake in them."""
    for number, data in enumerate(TARGETS[name].seeds()[:taken]):
        folder = tmp_path / str(number)
        folder.mkdir()
        TARGETS[name].run(data, folder)


@pytest.mark.parametrize("name", TARGETS)
def test_some_changes_of_them_are_taken_or_refused(name, tmp_path):
    rng = random.Random(1)
    target = TARGETS[name]
    tokens = [token.encode("utf-8", "surrogateescape") for token in target.tokens]
    for _ in range(40):
        data = fuzz.mutate(rng.choice(target.seeds()), target.max_len, rng, tokens)
        assert len(data) <= target.max_len
        check(target, data, tmp_path)


def test_what_no_reader_may_do_is_found(tmp_path):
    def bad(data, folder):
        raise {b"k": KeyError("x"), b"d": DataError("x"), b"c": ConfigError("a\0b")}[data]

    target = Target("bad", bad, (ConfigError,), list)
    for data, error in ((b"k", KeyError), (b"d", DataError)):
        with pytest.raises(error):
            check(target, data, tmp_path)
    check(target, b"c", tmp_path)  # the message is made plain on its way to the terminal
    with pytest.raises(Broken, match="0 characters"):
        told(ConfigError(""))
    kept = fuzz.Findings(tmp_path / "findings", "bad")
    for data in (b"long input", b"short", b"longer input"):
        kept.keep(data, "KeyError at x.py:1", "text")
    assert (path := next((tmp_path / "findings").glob("*.bin"))).read_bytes() == b"short"
    assert len(list(path.parent.iterdir())) == 2
