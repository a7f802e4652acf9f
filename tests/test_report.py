import base64
import hashlib
import html
import io
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
from fontTools.ttLib import TTFont
from PIL import Image

from stemdisp import _plot_style as st
from stemdisp import depths, plot, report, tables
from stemdisp._plot_numbers import MINUS
from stemdisp.config import Config, InputConfig, config_from_dict
from stemdisp.damage import judge_damage
from stemdisp.report import _svg, figures, files, page, rows, wording

DPI = figures.DPI  # before the tests draw with less
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
        "displacement_angle",
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
        "dose_series.csv",
    }
    assert names == expected


@pytest.mark.parametrize("name", ["planes", "columns", "line_profile", "frames", "dose_series"])
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


def without_scripts(text):
    """Leave out scripts, and pictures, whose letters are chance."""
    text = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    return re.sub(r"data:image/[^\"]*", "", text)


@pytest.mark.parametrize("which", ["full", "bulk_only"])
def test_page_is_valid_and_self_contained(which, request):
    _, path, _ = request.getfixturevalue(which)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    checker = parsed(text)
    assert "link" not in checker.tags
    assert len(set(checker.ids)) == len(checker.ids)
    assert not [name for name, _ in checker.attributes if name.startswith("on")]
    sources = [value for name, value in checker.attributes if name == "src"]
    assert sources and all(s.startswith(("data:image/png;", "data:image/webp;")) for s in sources)
    targets = [value for name, value in checker.attributes if name == "href"]
    assert all(t.startswith("#") and t[1:] in checker.ids for t in targets)
    assert not re.search(r"https?://|url\(|@import", without_scripts(text))
    assert len(text) < 8e6


def allowed(text):
    """Return what the policy of a page allows to run, and the checksums of what is there."""
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1])
    start = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert policy.startswith(start)
    scripts = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    sums = (hashlib.sha256(script.encode()).digest() for script in scripts)
    there = [f"'sha256-{base64.b64encode(s).decode()}'" for s in sums]
    return policy.removeprefix(start).removeprefix("; script-src ").split(), there


def test_the_policy_names_the_scripts_of_the_page_and_no_others(full):
    text = full[1].read_text(encoding="utf-8")
    names, there = allowed(text)
    assert names == there and len(there) == 2
    assert allowed(text.replace("<main>", "<main><script>x()</script>", 1))[1] != names
    assert allowed(page.render(full[0], [])) == ([], [])


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
    text = without_scripts(bulk_only[1].read_text(encoding="utf-8"))
    assert "no depth" in text
    for word in ("N_disp", "N<sub>disp</sub>", "decay length", "planes.csv", "nan", "None"):
        assert word not in text
    assert not (bulk_only[2] / "figures" / "decay.png").exists()
    assert (bulk_only[2] / "figures" / "distribution.svg").exists()


def test_the_mean_vector_is_stated():
    result = make(size=320, interface=False)
    k = (result.columns["species"] == "K").to_numpy()
    n = int(k.sum())
    noise = np.tile([-0.02, 0.02], n)[:n]
    columns = result.columns.copy()
    columns.loc[k, "delta_A"] = 0.03 + noise
    columns.loc[k, "delta_perp_A"] = -0.04 + noise
    result = changed(result, columns=columns)
    first = report.sentences(result)[0]
    length, angle = re.search(
        r"mean vector of ([\d.]+) ± [\d.]+ pm, ([\d.]+)° from", first
    ).groups()
    assert float(length) == pytest.approx(5.0, abs=0.3)
    assert float(angle) == pytest.approx(53.1, abs=4)
    assert "from [110] towards \N{MINUS SIGN}[001]" in first
    card = page.cards(result)[-1]
    assert card["label"] == "mean vector" and card["value"].startswith(length)


def test_a_mean_vector_within_its_error_has_no_direction():
    result = make(size=320, interface=False)
    columns = result.columns.copy()
    sign = np.tile([-0.02, 0.02], len(columns))[: len(columns)]
    columns[["delta_A", "delta_perp_A"]] = np.stack([sign, sign], axis=1)
    first = report.sentences(changed(result, columns=columns))[0]
    assert "mean vector of" in first and "°" not in first


def test_registration_and_frames_are_shown():
    guard = {"n_pairs": 28, "max_transitivity_px": 0.0833, "n_repaired": 7, "ambiguous": False}
    entry = {"n_used": 7, "max_shift_A": 5.4, "guard": guard | {"margin": 25.58}}
    result = changed(make(size=320), summary={"registration": entry})
    found = dict(rows.registration_rows(result))
    assert found["largest transitivity error"] == "0.083 px (0.012 Å)"
    assert found["pairs that were a lattice vector off (corrected)"] == "7 of 28"
    assert found["placing ambiguous"] == "no (lead 25.6)"
    entry["guard"] = guard | {"ambiguous": True}
    found = dict(rows.registration_rows(changed(result, summary={"registration": entry})))
    assert found["placing ambiguous"].startswith("YES")
    frames = rows.frames_rows(result)
    assert [row[3] for row in frames[:3]] == ["500", "1000", "1500"]
    assert [row[4] for row in frames].count("no") == 1
    assert rows.frames_rows(make(size=320, interface=False)) == []


def test_chi2_comes_with_its_degrees_of_freedom():
    result = make(size=320)
    n = int((result.planes["N"] >= 10).sum())
    value = dict(rows.null_test(result))["δ in the bulk: χ²"]
    assert value == f"1.0 for {n - 1} degrees of freedom"


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
    assert f"{result.planes['delta_A'].iloc[0]:.3f}" in text
    assert text.count("data:image/") == 3
    assert text.count("<tr>") == len(page.cards(result)) + 1 + len(result.planes)
    parsed(text)


def test_a_notebook_without_an_interface(quick):
    text = report.repr_html(make(size=320, interface=False))
    assert text.count("data:image/") == 2 and "<details>" not in text
    parsed(text)


def test_control_characters_do_not_reach_the_terminal():
    text = report.text_summary(hostile("\x1b[2Jgone\x07"))
    assert "\x1b" not in text and "\x07" not in text


def test_names_that_are_no_text_are_written_as_escapes(tmp_path):
    result = hostile("a\udcff.tif")
    files.write_files(result, tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text())["input"]["path"] == ["a\udcff.tif"]


def test_sentences_state_the_numbers():
    first, second, third, fourth = report.sentences(make(size=320))
    row = make(size=320).planes.iloc[0]
    assert f"{row['delta_A']:.3f} ±" in first and "K/O columns" in first
    assert "ξ = 2.03 planes (95 % interval 1.87 to 2.21)" in first and "0.47 nm" in first
    assert "N_disp = 6 (5 to 8)" in second and "N_vac = 6 (5 to 7)" in second
    assert (
        "N_vac \N{MINUS SIGN} N_disp = 0 (95 % interval \N{MINUS SIGN}2 to 1), so equal depths fit"
        in second
    )
    assert "same place" in third and "K atoms without a model" in third
    assert fourth.startswith("Damage by the beam is not seen: over 4000 e/Å² any change of δ(1) is")


def test_damage_is_said_in_the_answer_on_the_page_and_without_enough_frames():
    result = make(size=320)
    loss = result.dose_series.assign(
        delta1_A=0.54 - 5e-5 * result.dose_series["dose_middle_e_per_A2"]
    )
    found = judge_damage(loss, doses=result.frames["dose_e_per_A2"])
    last = report.sentences(changed(result, summary={"dose_series": found}))[-1]
    assert last.startswith("Damage by the beam is seen: over 4000 e/Å² δ(1) falls by 0.200 ±")
    shown = rows.dose_rows(changed(result, summary={"dose_series": found}))
    assert shown[0][:2] == ["δ(1)", f"{MINUS}0.050 ± 0.010 Å"] and shown[0][2] == "0.0034"
    assert shown[0][3].startswith(f"{MINUS}0.20 ±") and shown[0][4].startswith("0.540 ±")
    few = judge_damage(loss.iloc[:3], doses=result.frames["dose_e_per_A2"])
    short = changed(result, summary={"dose_series": few})
    assert "the data cannot tell: the series has 3 points" in report.sentences(short)[-1]
    assert {cell for row in rows.dose_rows(short) for cell in row[1:]} == {"cannot tell"}
    assert rows.dose_rows(changed(result, summary={"dose_series": None})) == []


def with_depth(**entries):
    depth = make(size=320).summary["depth"]
    merged = {k: depth[k] | entries.get(k, {}) for k in depth}
    return changed(make(size=320), summary={"depth": merged})


def test_trailing_zeros_stay_when_the_interval_has_them():
    planes = {"xi_planes": 2.003, "xi_ci_planes": [1.8925, 2.1196]}
    nm = {"xi_nm": 0.4613, "xi_ci_nm": [0.4358, 0.4881]}
    decay = make(size=320).summary["decay"] | planes | nm
    result = changed(make(size=320), summary={"decay": decay})
    first = report.sentences(result)[0]
    assert "ξ = 2.00 planes (95 % interval 1.89 to 2.12), which is 0.461 nm" in first
    card = next(c for c in page.cards(result) if "ξ" in c["label"])
    assert (card["value"], card["note"]) == ("2.00", "95 %: 1.89 to 2.12")
    assert '<div class="value">2.00 ' in page.render(result, [])


def test_tables_keep_trailing_zeros_too():
    planes = make(size=320).planes.copy()
    planes.loc[0, ["delta_A", "delta_err_A"]] = [0.5, 0.01]
    planes.loc[1, ["delta_A", "delta_err_A"]] = [-0.0004, 0.008]
    within = {"r": 0.0062, "ci": [-0.17, 0.18], "p": 0.8}
    correlation = make(size=320).summary["correlation"] | {"within_planes": within}
    result = changed(make(size=320), planes=planes, summary={"correlation": correlation})
    first, second = rows.planes_rows(result)[:2]
    assert first[3] == "0.500 ± 0.010"
    assert second[3] == "0.000 ± 0.008"  # and no minus before a zero
    found = dict(rows.correlation(result))
    assert found["within planes, r of δ with cage occupancy"] == "0.01 (\N{MINUS SIGN}0.17 to 0.18)"
    assert found["within planes, p of the permutation test"] == "0.80"


def test_a_plane_without_columns_is_empty_and_not_unknown():
    planes = make(size=320).planes.copy()
    planes.loc[2, ["n_columns", "n_anions"]] = 0
    planes.loc[2, ["delta_A", "occupancy"]] = np.nan
    planes.loc[3, "delta_A"] = np.nan
    third, fourth = rows.planes_rows(changed(make(size=320), planes=planes))[2:4]
    assert "cannot tell" not in third and third.count("\N{EN DASH}") == 4
    assert fourth[3] == "cannot tell"


def test_the_sentence_says_what_the_noise_hides():
    note = {"note": "less than 0.03 A cannot be told from bulk"}
    result = with_depth(
        displacement=note, vacancy={"note": "less than 0.032 cannot be told from bulk"}
    )
    second, third = report.sentences(result)[1:3]
    assert "N_disp = 6 (5 to 8; with this noise, less than 0.030 Å cannot be told" in second
    assert "N_vac = 6 (5 to 7; less than 0.032 cannot be told)" in second
    assert "the displacement ends at N_disp" in third
    assert "an exponential has no last plane" in " ".join(wording.limits(result))
    notes = [c["note"] for c in page.cards(result) if c["label"] in ("N_disp", "N_vac")]
    assert notes == ["95 %: 5 to 8; seen above 0.030 Å", "95 %: 5 to 7; seen above 0.032"]
    assert "0.030 Å" in rows.depths(result)[0][3] and " A " not in rows.depths(result)[0][3]


def test_nothing_is_said_of_the_noise_where_no_limit_is_known():
    result = make(size=320)
    assert "noise" not in report.sentences(result)[1]
    assert "ends at N_disp" not in report.sentences(result)[2]


def test_the_limit_is_read_from_the_note_that_the_depth_search_writes():
    result = make(size=320)
    found = depths.find_depths(result.columns, result.planes, n_resamples=20)
    result = with_depth(displacement={"note": found.displacement.note})
    # Some 3 to 6 errors of a plane: a fraction of an angstrom, not the plane's number.
    limit = float(re.search(r"less than ([\d.]+) Å", report.sentences(result)[1])[1])
    error = result.planes["delta_err_A"].median()
    assert 2.5 * error < limit < 7 * error


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

    assert "does not show the same place" in limits(0.6)
    assert "same place" not in limits(0.001)
    assert "cannot tell" in limits(None)


@pytest.mark.parametrize(
    ("bounds", "said", "short"),
    [
        ((-2, 1), "The depths agree within 2 planes.", "not only to the same depth"),
        ((0, 1), "The depths agree within 1 plane.", "not only to the same depth"),
        ((2, 6), "The depths differ", "at the same place"),
        ((-6, -1), "The depths differ", "at the same place"),
        ((None, None), "Whether the two depths agree, the data cannot tell.", "at the same place"),
        ((-2, math.inf), "Whether the two depths agree, the data cannot tell.", "the same place"),
    ],
)
def test_the_verdict_on_depths_follows_the_interval(bounds, said, short):
    result = with_depth(difference={"N": bounds[0], "ci": list(bounds)})
    text, third = " ".join(wording.limits(result)), report.sentences(result)[2]
    assert said in text and short in third
    verdicts = ("depths agree within", "depths differ", "depths agree, the data cannot tell")
    assert sum(verdict in text for verdict in verdicts) == 1
    if "agree within" not in said:
        for words in (text, third, page.render(result, [])):
            assert "to the same depth" not in words and "show the same depth" not in words


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
        dose_series=None,
        summary={
            "dose_series": None,
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
    text = without_scripts(text)
    body = text[text.index("<body>") :]
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
    ("value", "text"),
    [
        (1.0186e9, "1.02 \N{MULTIPLICATION SIGN} 10⁹"),
        (-1.5e-7, "\N{MINUS SIGN}1.5 \N{MULTIPLICATION SIGN} 10⁻⁷"),
        (0.000135, "0.000135"),
    ],
)
def test_large_and_small_numbers_are_written_with_powers(value, text):
    assert wording.number(value) == text


@pytest.mark.parametrize(
    ("p", "text"), [(0.0004, "p < 0.001"), (0.8, "p = 0.80"), (0.041, "p = 0.041"), (1, "p = 1.00")]
)
def test_probabilities(p, text):
    assert wording.p_equals(p) == text


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ((1.8, 2.2), "1.80 to 2.20"),
        ((0.857, 0.9), "0.857 to 0.900"),
        ((6.0, 6.0), "6 to 6"),
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


def test_figures_are_as_wide_as_columns_of_a_journal(full):
    folder = full[2] / "figures"
    sizes = {}
    for path in folder.glob("*.svg"):
        text = path.read_text(encoding="utf-8")
        width, height = re.search(
            r'<svg [^>]*?width="([\d.]+)cm" height="([\d.]+)cm"', text
        ).groups()
        box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text).groups()
        assert float(width) / float(height) == pytest.approx(
            float(box[0]) / float(box[1]), rel=1e-3
        )
        points = [float(p) for p in re.findall(r'<text style="font-size: ([\d.]+)px', text)]
        assert DPI * float(box[0]) / 72 * 2.54 / float(width) >= 300
        # A unit of the drawing in points on paper.
        sizes[path.stem] = float(width), min(points) * float(width) / 2.54 * 72 / float(box[0])
    wide = {"correlation", "dose", "line_profile"}
    assert {name for name, (width, _) in sizes.items() if width == 17.8} == wide
    assert {width for name, (width, _) in sizes.items() if name not in wide} == {8.6}
    assert min(size for _, size in sizes.values()) >= 5.0  # points, as journals ask
    with Image.open(folder / "decay.png") as picture:
        assert picture.width / picture.info["dpi"][0] * 2.54 == pytest.approx(8.6, rel=0.01)


def test_the_embedded_font_has_every_letter_of_its_figure(full):
    for name, count in (("decay", 2), ("counting", 3)):  # upright, italic, bold
        text = (full[2] / "figures" / f"{name}.svg").read_text(encoding="utf-8")
        faces = re.findall(r"src:url\(data:font/woff;base64,([\w+/=]+)\)", text)
        assert len(faces) == count and "δ" in _svg.letters(text)
        for face in faces:
            with TTFont(io.BytesIO(base64.b64decode(face))) as font:
                there = set(font.getBestCmap())
            assert {ord(letter) for letter in _svg.letters(text)} <= there
            assert ord("ж") not in there and len(there) < 100


def test_the_result_is_left_as_it_was(full):
    fresh = make.__wrapped__(size=320)
    pd.testing.assert_frame_equal(full[0].columns, fresh.columns)
    pd.testing.assert_frame_equal(full[0].planes, fresh.planes)


def test_a_known_thickness_stands_in_the_first_sentence():
    result = make()
    first = wording.sentences(result)[0]
    alone = wording.reading(result, "cation_only")
    assert f", which is {alone} for the K atoms if they alone move, and δ decays" in first
    summary = result.summary | {"interpretation": dict.fromkeys(result.summary["interpretation"])}
    assert "alone" not in wording.sentences(changed(result, summary=summary))[0]
