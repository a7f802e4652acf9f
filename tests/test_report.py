import html
import json
import math
import re
import tomllib
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pandas as pd
import pytest
from _fake_result import changed, make

from stemdisp import _plot_style as st
from stemdisp import plot, report, tables
from stemdisp.config import Config, InputConfig, config_from_dict
from stemdisp.report import figures, files, page, wording

VOID = {"meta", "img", "br", "hr", "input", "link"}
PAYLOADS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style><svg onload=alert(1)>",
    "{{ 7 * 7 }}",
)


class Checker(HTMLParser):
    """Collect tags and attributes; complain about tags that are not closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes, self.ids = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"


def parsed(text):
    checker = Checker()
    checker.feed(text)
    checker.close()
    assert not checker.open
    return checker


@pytest.fixture(scope="module")
def quick():
    """Draw with few pixels: what is tested does not depend on them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "DPI", 40)
        yield


@pytest.fixture(scope="module")
def full(tmp_path_factory, quick):
    directory = tmp_path_factory.mktemp("full")
    result = make(size=320)
    return result, report.write(result, directory), directory


@pytest.fixture(scope="module")
def bulk_only(tmp_path_factory, quick):
    directory = tmp_path_factory.mktemp("bulk")
    result = make(size=320, interface=False)
    return result, report.write(result, directory), directory


def test_every_file_is_there(full):
    _, path, directory = full
    assert path == directory / "report.html"
    names = {p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file()}
    drawn = (
        "image",
        "zoom_near",
        "zoom_far",
        "displacement_map",
        "decay",
        "occupancy",
        "line_profile",
        "correlation",
        "counting",
        "registration",
        "dose",
        "residual",
    )
    expected = {f"figures/{n}.{kind}" for n in drawn for kind in ("png", "svg")}
    expected |= {
        "report.html",
        "summary.json",
        "planes.csv",
        "columns.csv",
        "line_profile.csv",
        "frames.csv",
    }
    assert names == expected


@pytest.mark.parametrize("name", ["planes", "columns", "line_profile", "frames"])
def test_tables_have_exactly_the_documented_columns(full, name):
    result, _, directory = full
    frame = pd.read_csv(directory / f"{name}.csv")
    assert list(frame.columns) == list(tables.specs(name))
    assert len(frame) == len(getattr(result, name))


def test_tables_hold_the_numbers(full):
    result, _, directory = full
    frame = pd.read_csv(directory / "columns.csv")
    for name in ("x_px", "delta_A", "occupancy"):
        np.testing.assert_allclose(frame[name], result.columns[name], rtol=1e-5)
    assert frame.loc[frame["species"] == "Ta", "delta_A"].isna().all()


def test_csv_cells_are_no_formulas(tmp_path):
    frame = make(size=320).columns.head(2).assign(species=["=cmd|'/C calc'!A0", "K"])
    files.write_csv(frame, "columns", tmp_path / "c.csv")
    assert list(pd.read_csv(tmp_path / "c.csv")["species"]) == ["'=cmd|'/C calc'!A0", "K"]


def refuse(name):
    raise AssertionError(f"{name} is not strict JSON")


def test_summary_is_strict_json(bulk_only):
    result, _, directory = bulk_only
    assert math.isnan(result.summary["bulk_offset_A"]["delta"])
    text = (directory / "summary.json").read_text(encoding="utf-8")
    found = json.loads(text, parse_constant=refuse)
    assert found["bulk_offset_A"]["delta"] is None
    assert found["schema"] == 1


def test_strict_json_knows_numpy_and_refuses_the_rest(tmp_path):
    value = {
        "a": np.float32(1.5),
        "b": (np.int64(2), pd.NA, np.inf),
        "c": np.array([1.0, np.nan]),
        "d": np.bool_(True),
        "e": tmp_path,
    }
    expected = {"a": 1.5, "b": [2, None, None], "c": [1.0, None], "d": True, "e": str(tmp_path)}
    assert files.strict(value) == expected
    with pytest.raises(ValueError, match="a object, which JSON cannot"):
        files.strict({"a": object()})


@pytest.mark.parametrize("which", ["full", "bulk_only"])
def test_page_is_valid_self_contained_and_has_no_script(which, request):
    _, path, _ = request.getfixturevalue(which)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    checker = parsed(text)
    assert "script" not in checker.tags and "link" not in checker.tags
    assert len(set(checker.ids)) == len(checker.ids)
    assert not [name for name, _ in checker.attributes if name.startswith("on")]
    sources = [value for name, value in checker.attributes if name == "src"]
    assert sources and all(s.startswith(("data:image/png;", "data:image/webp;")) for s in sources)
    targets = [value for name, value in checker.attributes if name == "href"]
    assert all(t.startswith("#") and t[1:] in checker.ids for t in targets)
    assert not re.search(r"https?://|url\(|@import", text)
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert ("content", policy) in checker.attributes
    assert len(text) < 8e6


def test_page_reads_from_warnings_to_methods(full):
    text = full[1].read_text(encoding="utf-8").partition("<main>")[2]
    text = re.sub(r"<nav.*?</nav>", "", text, flags=re.DOTALL)
    order = [
        "1 warning",
        "<h2>Answer",
        "do not support",
        "The image and its columns",
        "Same depth, same place?",
        "Measured and interpreted",
        "Null test",
        "<h2>Planes",
        "next to the film",
        "<h2>Methods",
        "0f0f0f",
        "Repeat this run",
    ]
    at = [text.index(word) for word in order]
    assert at == sorted(at)


def test_page_without_interface_says_nothing_of_depth(bulk_only):
    text = bulk_only[1].read_text(encoding="utf-8")
    assert "no depth" in text
    for word in ("N_disp", "N<sub>disp</sub>", "decay length", "planes.csv", "nan", "None"):
        assert word not in text
    assert not (bulk_only[2] / "figures" / "decay.png").exists()
    assert (bulk_only[2] / "figures" / "distribution.svg").exists()


def hostile(text):
    result = make(size=320)
    projection = result.projection.__class__(**(vars(result.projection) | {"name": text}))
    source = result.summary["input"] | {"path": [text], "kind": text, "sha256": text}
    note = result.summary["interpretation"] | {"note": text, "measured": text}
    return changed(
        result,
        projection=projection,
        config=Config(input=InputConfig(path=(text,))),
        summary={
            "input": source,
            "interpretation": note,
            "versions": {text: text},
            "warnings": [{"code": text, "message": text}],
            "stemdisp": text,
            "refine": {"noise": text, "chi2": {text: 1.0}},
        },
    )


@pytest.mark.parametrize("payload", PAYLOADS)
def test_hostile_text_is_shown_and_not_run(payload):
    text = page.render(hostile(payload), [])
    calm = parsed(page.render(hostile("calm"), []))
    checker = parsed(text)
    assert checker.tags == calm.tags
    assert [a for a, _ in checker.attributes] == [a for a, _ in calm.attributes]
    assert html.escape(payload, quote=False) in text.replace("&#34;", '"').replace("&#39;", "'")
    assert "49" not in re.findall(r"<h1>(.*?)</h1>", text)[0]


def test_hostile_text_in_a_notebook(quick):
    result = hostile(PAYLOADS[0])
    text = report.repr_html(result)
    assert "<script" not in text and "&lt;script&gt;" in text
    assert f"{result.planes['delta_A'].iloc[0]:.3f}" in text and "data:image/" in text
    parsed(text)


def test_control_characters_do_not_reach_the_terminal():
    text = report.text_summary(hostile("\x1b[2Jgone\x07"))
    assert "\x1b" not in text and "\x07" not in text


def test_names_that_are_no_text_are_written_as_escapes(tmp_path):
    result = hostile("a\udcff.tif")
    files.write_files(result, tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text())["input"]["path"] == ["a\udcff.tif"]


def test_sentences_state_the_numbers():
    first, second, third = report.sentences(make(size=320))
    row = make(size=320).planes.iloc[0]
    assert f"{row['delta_A']:.3f} ±" in first and "K/O columns" in first
    assert "ξ = 2.03 planes (95 % interval 1.87 to 2.21)" in first and "0.467 nm" in first
    assert "N_disp = 6 (5 to 8)" in second and "N_vac = 6 (5 to 7)" in second
    assert (
        "N_vac \N{MINUS SIGN} N_disp = 0 (95 % interval \N{MINUS SIGN}2 to 1), so equal depths fit"
        in second
    )
    assert "same place" in third and "K atoms without a model" in third


def test_different_depths_are_called_different():
    depth = make(size=320).summary["depth"] | {"difference": {"N": 4, "ci": [2, 6]}}
    second = report.sentences(changed(make(size=320), summary={"depth": depth}))[1]
    assert "the two depths differ" in second and "equal depths fit" not in second


def test_an_open_interval_supports_nothing():
    depth = make(size=320).summary["depth"] | {"difference": {"N": 0, "ci": [-2, math.inf]}}
    second = report.sentences(changed(make(size=320), summary={"depth": depth}))[1]
    assert "neither shown nor refuted" in second


def test_the_same_place_is_claimed_only_with_evidence():
    def limits(p):
        correlation = {"within_planes": {"r": -0.4, "p": p}, "between_planes": {}}
        return " ".join(
            wording.limits(changed(make(size=320), summary={"correlation": correlation}))
        )

    assert "not the same place" in limits(0.6)
    assert "same place" not in limits(0.001)
    assert "cannot tell" in limits(None)


def test_a_failed_null_test_is_said():
    test = make(size=320).summary["null_test"] | {"passed": False}
    result = changed(make(size=320), summary={"null_test": test})
    assert "bulk null test failed" in report.sentences(result)[2]
    assert "FAILED" in report.text_summary(result)


def unknown_result():
    result = make(size=320)
    planes = result.planes.assign(delta_A=np.nan, occupancy=np.nan)
    columns = result.columns.drop(columns=["occupancy", "occupancy_err"]).assign(delta_A=np.nan)
    nothing = {"N": float("nan"), "ci": [float("nan"), float("nan")]}
    return changed(
        result,
        planes=planes,
        columns=columns,
        decay=None,
        correlation=None,
        frames=None,
        summary={
            "decay": {"model": "unknown", "xi_planes": float("nan"), "note": "too few planes"},
            "depth": dict.fromkeys(("displacement", "vacancy", "difference"), nothing),
            "correlation": None,
            "interpretation": None,
            "null_test": None,
            "registration": None,
            "refine": {"noise": "white", "chi2": {"K": None}, "misfit": None},
            "warnings": [],
        },
    )


def test_a_run_that_finds_nothing_says_so(tmp_path, monkeypatch):
    # Every figure is composed, none is painted: that is slow and shown elsewhere.
    monkeypatch.setattr(figures, "_settled", lambda figure: None)
    monkeypatch.setattr(figures, "_render", lambda figure, kind, box: b"\x89PNG" + bytes(20))
    result = unknown_result()
    text = report.write(result, tmp_path).read_text(encoding="utf-8")
    parsed(text)
    body = re.sub(r"data:image/[^\"]*", "", text[text.index("<body>") :])
    body = body.replace("values are NaN and unused", "")  # what a quality bit means
    assert not re.search(r"\b(nan|NaN|None|inf)\b", body)
    assert body.count("cannot tell") > 10
    assert "warnings" not in re.findall(r"<section class=\"(\w+)\"", body)
    assert all("cannot tell" in s or "do not support" in s for s in report.sentences(result))
    assert not (tmp_path / "frames.csv").exists()


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ((0.5412, 0.0123, "Å"), "0.541 ± 0.012 Å"),
        ((-3.2, 1.2), "\N{MINUS SIGN}3.2 ± 1.2"),
        ((12.0, 34.0), "12 ± 34"),
        ((0.5, None), "0.5 (error unknown)"),
        ((float("nan"), 0.1), "cannot tell"),
        ((None, None), "cannot tell"),
        ((0.54, 0.0096), "0.540 ± 0.010"),
        ((0.54, 0.0042), "0.540 ± 0.004"),
        ((0.54, 0.0031), "0.5400 ± 0.0031"),
    ],
)
def test_values_are_written_to_the_digits_of_their_error(args, text):
    assert wording.measured(*args) == text


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ((1.8, 2.2), "1.8 to 2.2"),
        ((-2, 1), "\N{MINUS SIGN}2 to 1"),
        ((1.0, math.inf), "at least 1"),
        ((-math.inf, 3.0), "at most 3"),
        (None, "interval unknown"),
        ((math.nan, math.nan), "interval unknown"),
    ],
)
def test_intervals(bounds, text):
    assert wording.interval(bounds) == text


def test_the_printed_configuration_repeats_the_run():
    config = Config(input=InputConfig(path=('a "b"\\c\x7f\n.tif', "é.hspy"), pixel_size=0.12))
    assert config_from_dict(tomllib.loads(files.config_toml(config))) == config


def test_terminal_summary_is_short():
    lines = report.text_summary(make(size=320)).splitlines()
    assert 7 <= len(lines) <= 12
    assert lines[0] == "stemdisp 0.1.0 | KTaO3 [1-10]"


def test_figures_are_the_same_bytes_each_time(quick):
    def drawn(kind):
        with matplotlib.rc_context(st.rc_params()):
            figure = plot.plot_displacement_distribution(make(size=320)).figure
            return figures._render(figure, kind, figures._settled(figure))

    assert drawn("png") == drawn("png")
    assert drawn("svg") == drawn("svg")


def test_the_result_is_left_as_it_was(full):
    fresh = make.__wrapped__(size=320)
    pd.testing.assert_frame_equal(full[0].columns, fresh.columns)
    pd.testing.assert_frame_equal(full[0].planes, fresh.planes)
