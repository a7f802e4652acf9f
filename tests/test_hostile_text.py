"""Text from files, names and configurations stays text: page, notebook, SVG, tables, terminal."""

import csv
import json
import os
import socket
import tomllib
import unicodedata
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pandas as pd
import pytest
from _fake_result import changed, make
from _hostile import ALL, CHROMIUM, HTML, OTHER, Watched

from stemdisp import cli, report, tables
from stemdisp._field_row import write_tables
from stemdisp.batch import run_fields
from stemdisp.config import config_from_dict, describe, load_config
from stemdisp.corrections import Corrections, ImageId, load_corrections
from stemdisp.errors import ConfigError, explain
from stemdisp.report import figures, interactive
from stemdisp.report import page as report_page
from stemdisp.report.files import config_toml, write_csv, write_files

ROOT = Path(__file__).resolve().parent.parent
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
DOT = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGA"
    "WjR9awAAAABJRU5ErkJggg=="
)
FEW = ("attribute", "shell", "formula cr", "screen", "turned", "bytes", "second line")


def some(few=FEW, names=tuple(ALL)):
    """All names of texts; those that are not among the few are slow."""
    slow = pytest.mark.slow
    return [pytest.param(name, marks=() if name in few else slow) for name in names]


def hidden(text):
    return sorted({hex(ord(c)) for c in text if unicodedata.category(c) in HIDDEN})


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on the PATH")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield found
        found.close()


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """Work in an empty directory; nothing may start a program or ask a network."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def refuse(*args, **_):
        raise AssertionError(f"started {args}")

    monkeypatch.setattr(os, "system", refuse)
    yield tmp_path / "work"
    assert not list(tmp_path.rglob("hostile.txt"))
    assert not Path("/hostile.txt").exists()


# --- the page --------------------------------------------------------------------------------

# Every place of the summary whose text comes from a file, a name, a configuration, or a library.
PLACES = (
    ("input", "path", 0),
    ("input", "kind"),
    ("input", "sha256"),
    ("stemdisp",),
    ("lattice", "contrast"),
    ("decay", "model"),
    ("depth", "displacement", "method"),
    ("depth", "vacancy", "method"),
    ("interface", "side"),
    ("interpretation", "measured"),
    ("interpretation", "note"),
    ("occupancy_calibration",),
    ("polarisation", "source"),
    ("corrections", "text"),
    ("refine", "noise"),
    ("versions", "numpy"),
    ("warnings", 0, "code"),
    ("warnings", 0, "message"),
)
# Keys of the configuration that take any text.
KEYS = ("input.path", "input.corrections", "crystal.structure", "analysis.occupancy_calibration")


def hostile(text):
    """Return a result in which the text stands in every field, each time with a mark after it."""
    result = make(size=200)
    summary = deepcopy(result.summary)
    summary["corrections"] = {"text": ""}
    summary["warnings"] = [{"code": "", "message": ""}]
    summary["polarisation"] = {"source": "", "charges": {"K": 1.0}}
    summary["sensitivity"] = {"delta_detectable_A": 0.1, "occupancy_detectable": 0.1}
    marks = {}
    for number, place in enumerate(PLACES):
        *way, last = place
        home = summary
        for step in way:
            home = home[step]
        marks[place] = f"{text}~{number}~"
        home[last] = marks[place]
    config = result.config
    tables_ = {name: getattr(config, name) for name in ("input", "crystal", "analysis")}
    values = {
        "input": {"path": (f"{text}~50~",), "corrections": f"{text}~51~"},
        "crystal": {"structure": f"{text}~52~"},
        "analysis": {"occupancy_calibration": f"{text}~53~"},
    }
    for name, table in tables_.items():
        tables_[name] = msgspec.structs.replace(table, **values[name])
    config = msgspec.structs.replace(config, **tables_)
    names = {"O": f"{text}~60~", "Ta": f"{text}~61~"}
    projection = SimpleNamespace(**vars(result.projection) | {"name": f"{text}~70~"})
    projection.sites = tuple(
        SimpleNamespace(**vars(site) | {"species": names.get(site.species, site.species)})
        for site in projection.sites
    )
    projection.species = tuple(names.get(name, name) for name in projection.species)
    columns = result.columns.assign(species=result.columns["species"].replace(names))
    return changed(
        replace(result, config=config, projection=projection), columns=columns, summary=summary
    )


def drawn(result):
    """The figures of a run with their words, and a dot for a picture."""
    return [
        figures.Figure(p.name, p.section, p.title, p.caption, p.wide, DOT, 1, 1)
        for p in figures._plans(result)
    ]


def written_page(text, path, *, policy=True):
    result = hostile(text)
    html = report_page.render(result, drawn(result), view=interactive.build(result))
    if not policy:
        start = html.index('<meta http-equiv="Content-Security-Policy"')
        html = html[:start] + html[html.index(">", start) + 1 :]
    path.write_text(html, encoding="utf-8", errors="backslashreplace")
    return result, html


def shown(text):
    """How a text may be shown: with escapes for what cannot be seen."""
    from stemdisp._printable import printable

    return "".join("".join(map(printable, text.split("\n"))).split())


def looked_at(browser, name, tmp_path, policy):
    """Open, use and read a page with this text in all fields."""
    path = tmp_path / "page.html"
    written_page(ALL[name], path, policy=policy)
    seen = Watched(browser, path)
    seen.page.wait_for_selector("html[data-views=ready]", timeout=30_000)
    assert seen.explore() == []
    box = seen.page.locator("#view-viewer").bounding_box()
    seen.page.mouse.move(box["x"] + 100, box["y"] + 100)
    for k in range(30):
        seen.page.mouse.move(box["x"] + 60 + 9 * k, box["y"] + 200)
    seen.page.touchscreen.tap(box["x"] + 150, box["y"] + 150)
    assert seen.explore() == []
    assert seen.page.locator("script").count() == 3 and seen.page.locator("main").count() == 1
    assert seen.page.locator("footer").is_visible()
    words = "".join(seen.page.locator("html").inner_text().split())
    seen.close()
    return words


@pytest.mark.parametrize("name", ["together", "comment"])
def test_nothing_runs_in_the_page_even_without_its_policy(browser, name, tmp_path):
    words = looked_at(browser, name, tmp_path, policy=False)
    for number in (*range(len(PLACES)), 60, 61, 70):
        if PLACES[number : number + 1] != (("interface", "side"),):
            assert f"~{number}~" in words, PLACES[number : number + 1]
    for number in range(50, 54):
        assert f"~{number}~" in words
    assert shown(ALL[name]) in words


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ALL))
def test_no_text_runs_in_any_field_of_the_page(browser, name, tmp_path):
    words = looked_at(browser, name, tmp_path, policy=name == "together")
    assert shown(ALL[name])[:500] in words


def test_the_browser_tells_when_a_text_is_pasted_as_it_is(browser, tmp_path):
    path = tmp_path / "bad.html"
    path.write_text("<!doctype html><title>x</title><p title='&quot;onclick'>&lt;script&gt;</p>")
    seen = Watched(browser, path)
    assert seen.explore() == []
    for name, text in HTML.items():
        head = "<title>x</title><style>p{}</style>"
        body = (
            f"<p title=\"{text}\">{text}</p><p title='{text}'>x</p><svg><text>{text}</text></svg>"
        )
        path.write_text(f"<!doctype html>{head}{body}", encoding="utf-8")
        seen.open(path)
        assert seen.explore() != [], name
    seen.close()


def test_the_template_engine_would_have_run_its_payload():
    from jinja2 import Environment

    assert Environment().from_string("{{7*7}}").render() == "49"
    result = hostile(OTHER["jinja"])
    html = report_page.render(result, drawn(result))
    assert html.count("{{7*7}}") > 20 and "49{%" not in html


@pytest.mark.parametrize("name", some(("together",)))
def test_the_view_of_a_notebook_is_text_too(browser, name, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "notebook_figures", lambda _: [(ALL[name], DOT)])
    html = report.repr_html(hostile(ALL[name]))
    path = tmp_path / "cell.html"
    path.write_text(f"<!doctype html><meta charset='utf-8'>{html}<p id=end>end</p>", "utf-8")
    seen = Watched(browser, path)
    assert seen.explore() == []
    assert seen.page.locator("script").count() == 0 and seen.page.locator("#end").is_visible()
    assert shown(ALL[name]) in "".join(seen.page.locator("body").inner_text().split())
    seen.close()
    assert not hidden(html.replace("\n", ""))


@pytest.mark.parametrize("name", some())
def test_the_source_of_the_page_holds_no_hidden_character(name, tmp_path):
    result = hostile(ALL[name])
    html = report_page.render(result, drawn(result))
    assert not hidden(html.replace("\n", ""))
    assert "~70~" in html


# --- figures ---------------------------------------------------------------------------------


def named(*texts):
    """A result whose species have these names."""
    result = make(size=200)
    names = dict(zip(("Ta", "O"), texts, strict=True))
    return changed(
        result, columns=result.columns.assign(species=result.columns["species"].replace(names))
    )


@pytest.mark.filterwarnings("ignore:constrained_layout not applied")  # by names so long
@pytest.mark.parametrize(
    "pair",
    [
        ("together", "broken tex"),
        *(
            pytest.param((name, "comment"), marks=pytest.mark.slow)
            for name in (*HTML, "tex", "jinja", "literal", "javascript")
        ),
    ],
    ids=" ".join,
)
def test_a_drawing_opened_by_itself_runs_nothing(browser, pair, tmp_path):
    import matplotlib as mpl

    from stemdisp import _plot_style, plot

    with mpl.rc_context(_plot_style.rc_params()):
        figure = plot.plot_image(named(*(ALL[name] for name in pair))).figure
        svg = figures._render(figure, "svg", figures._settled(figure))
    path = tmp_path / "image.svg"
    path.write_bytes(svg)
    seen = Watched(browser, path)
    assert seen.explore() == []
    words = "".join(seen.page.locator("svg").text_content().split())
    assert all("".join(ALL[name].replace("\u202e", "").split())[:200] in words for name in pair)
    assert seen.page.locator("script").count() == 0
    seen.close()


def test_mathematics_in_a_name_would_have_failed():
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure()
    FigureCanvasAgg(figure)
    figure.text(0.5, 0.5, OTHER["broken tex"], parse_math=True)
    with pytest.raises(ValueError, match="frac"):
        figure.canvas.draw()


# --- files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["columns", "planes", "frames", "dose_series", "fields"])
def test_no_cell_is_a_formula_or_acts_on_a_terminal(table, tmp_path):
    specs = tables.specs(table)
    texts = [name for name, spec in specs.items() if spec.dtype == "str"]
    frame = pd.DataFrame(
        {name: list(ALL.values()) if name in texts else [0] * len(ALL) for name in specs}
    )
    write_csv(frame, table, tmp_path / "t.csv")
    whole = (tmp_path / "t.csv").read_bytes().decode("utf-8")
    assert whole.count("\n") == len(ALL) + 1
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(ALL)
    for text, row in zip(ALL.values(), rows, strict=True):
        for name in texts:
            cell = row[name]
            assert not cell.lstrip().startswith(tuple("=+-@＝")) and not hidden(cell)
            if not hidden(text):
                assert cell in (text, f"'{text}")


def test_the_table_of_a_batch_takes_any_message(tmp_path):
    rows = [
        {"field": f"f{k}", "path": text, "status": "failed", "message": text}
        for k, text in enumerate(ALL.values())
    ]
    table = write_tables(rows, tmp_path)
    assert len(table) == len(ALL)
    raw = (tmp_path / "fields.csv").read_bytes().decode("utf-8")
    assert not hidden(raw.replace("\n", ""))
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["fields.csv", "planes.csv"]


@pytest.mark.parametrize("name", some())
def test_files_of_a_run_keep_the_text_as_text(name, tmp_path):
    text = ALL[name]
    result = hostile(text)
    made = Corrections(image=ImageId((200, 200), "0f" * 32, text)).remove(1, 2)
    folder = tmp_path / "work" / "out"
    folder.mkdir()
    write_files(replace(result, corrections=made), folder)
    names = {
        path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()
    }
    assert names <= {
        f"work/out/{file}"
        for file in (
            *("summary.json", "corrections.toml", "columns.csv", "planes.csv"),
            *("line_profile.csv", "frames.csv", "dose_series.csv"),
        )
    }
    for path in folder.iterdir():
        assert not hidden(path.read_bytes().decode("utf-8").replace("\n", ""))
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["warnings"][0]["message"].startswith(text)
    plain = text.encode("utf-8", "backslashreplace").decode()
    assert load_corrections(folder / "corrections.toml").image.input == plain
    again = tomllib.loads(config_toml(result.config))
    assert (
        again["crystal"]["structure"]
        .encode("utf-8", "surrogatepass")
        .decode("utf-8", "replace")
        .startswith(plain[:1])
    )


# --- terminal --------------------------------------------------------------------------------


def called(capsys, *args):
    """Call the command line; return its status and what it printed, checked."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(args))
    out, err = capsys.readouterr()
    for stream in (out, err):
        assert not hidden(stream.replace("\n", ""))
    if stopped.value.code:
        assert err.count("\n") == 1 and err.startswith("stemdisp: ") and len(err) < 1100
        assert "internal error" not in err
    return stopped.value.code, out, err


def quoted(text):
    """Write a text as TOML, independently of the package."""
    return '"' + "".join(f"\\U{ord(c):08x}" for c in text) + '"'


TEXT_NAMES = [name for name in ALL if name != "bytes"]  # TOML has no such text


@pytest.mark.parametrize("name", some([n for n in TEXT_NAMES if n != "long"], TEXT_NAMES))
def test_any_text_in_any_key_gives_one_plain_line(name, capsys, alone):
    for spec in describe():
        table, _, key = spec.key.partition(".")
        Path("a.toml").write_text(f"[{table}]\n{key} = {quoted(ALL[name])}\n")
        try:
            load_config("a.toml")
        except ConfigError as error:
            line, status = explain(error)
            assert status == 2 and not hidden(line) and len(line) <= 1000
            assert line.startswith(f"a.toml: [{table}]"), line
    for wrong in (f"[input]\n{quoted(ALL[name])} = 1\n", f"[{quoted(ALL[name])}]\na = 1\n"):
        Path("a.toml").write_text(wrong)
        assert called(capsys, "run", "a.toml")[0] == 2
    assert [path.name for path in alone.iterdir()] == ["a.toml"]


@pytest.mark.parametrize("name", some())
def test_any_text_as_an_argument_gives_one_plain_line(name, capsys, alone):
    text = ALL[name]
    Path("a.toml").write_text("")
    if name == "nul":
        return  # no system passes such an argument
    for args in (
        ("run", text),
        ("run", "a.toml", "--input", f"./{text}"),
        ("run", "a.toml", "--corrections", text),
        ("inspect", text),
        ("simulate", text),
        ("completion", text),
        ("nothing", text),
        (f"x{text}",),
    ):
        assert called(capsys, *args)[0] in (2, 3), args
    names = {path.name for path in alone.iterdir()} - {"a.toml", "results"}
    assert names == set()


@pytest.mark.parametrize("stated", ["<b>", [0, "x"], {"a": 1}, [[0], [90]], [0, [1]]])
def test_a_scan_direction_that_is_no_angle_is_refused_by_name(stated):
    from stemdisp._source import check_square_pixels, quarter_turns

    with pytest.raises(ValueError, match=r"^scan_rotation_deg=.* must be"):
        quarter_turns(stated, 2, (64, 64))
    if stated != [[0], [90]]:
        with pytest.raises(ValueError, match=r"^scan_rotation_deg=.* must be angles"):
            check_square_pixels((0.1, 0.1), stated)
    assert quarter_turns([0, 90], 2, (64, 64)) == (0, 3)


def test_a_traceback_does_not_act_on_the_terminal_either(capsys, alone):
    with pytest.raises(SystemExit):
        cli.main(["inspect", ALL["title"] + ALL["screen"], "--debug"])
    error = capsys.readouterr().err
    assert "Traceback" in error and "\\x1b]0;hostile\\x07" in error
    assert not hidden(error.replace("\n", ""))


def fit_for_a_name(text):
    """What of a text a file system takes as the name of a file."""
    return text.replace("/", "\u2215").replace("\0", "")[:60]


def test_files_with_any_name_are_fields_of_a_batch(alone):
    folder = alone / fit_for_a_name(HTML["script"])
    folder.mkdir()
    paths = []
    for text in ALL.values():
        path = folder / f"{fit_for_a_name(text)}.dm4"
        path.write_bytes(b"no image")
        paths.append(str(path))
    lines = []
    table = run_fields(config_from_dict({}), paths, alone / "out", tell=lines.append)
    assert (table["status"] == "failed").all() and len(table) == len(set(paths))
    assert all("is not of a kind that is read" in text for text in table["message"])
    assert len(lines) == len(table) and not any(map(hidden, lines))
    inside = {path.name for path in (alone / "out").iterdir()}
    assert {"fields.csv", "planes.csv", ".stemdisp"} <= inside
    made = {path for path in alone.rglob("*") if path.is_file()} - set(map(Path, paths))
    assert {path.parent for path in made} <= {alone / "out", alone}
    assert [path.name for path in made if path.parent == alone] == [".out.lock"]


CIF = """\
data_{block}
_cell_length_a 3.9885
_cell_length_b 3.9885
_cell_length_c 3.9885
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M '{group}'
_space_group_IT_number {number}
loop_
_space_group_symop_operation_xyz
'{operator}'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
'{label}' '{symbol}' 0 0 0
Ta1 Ta 0.5 0.5 0.5
O1 O 0.5 0.5 0
"""
GOOD = {
    "block": "x",
    "group": "P 1",
    "number": "1",
    "operator": "x,y,z",
    "label": "K1",
    "symbol": "K",
}


@pytest.mark.parametrize("name", some())
def test_any_text_in_a_cif_file_is_a_structure_or_one_plain_line(name, alone):
    from stemdisp import pipeline
    from stemdisp.errors import StemdispError

    text = ALL[name]
    path = alone / f"{fit_for_a_name(text)}.cif"
    for field in GOOD:
        content = CIF.format(**GOOD | {field: text.replace("{", "").replace("}", "")})
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
        config = config_from_dict({"crystal": {"structure": str(path)}})
        try:
            pipeline.check_settings(config)
        except StemdispError as error:
            line, status = explain(error)
            assert status == 2 and not hidden(line) and len(line) <= 1000
    assert [found.name for found in alone.iterdir()] == [path.name]


@pytest.mark.parametrize("name", TEXT_NAMES)
def test_any_text_in_corrections_is_kept_or_refused_in_one_plain_line(name, alone):
    text = quoted(ALL[name])
    good = "format = 1\n[image]\ninput = {input}\nsha256 = {sha256}\n"
    good += "[[correction]]\naction = {action}\nat_px = [1, 2]\nspecies = {species}\n"
    fields = {"input": '"a"', "sha256": '"b"', "action": '"add"', "species": '"K"'}
    for field in fields:
        Path("c.toml").write_text(good.format(**fields | {field: text}))
        try:
            found = load_corrections("c.toml")
        except ConfigError as error:
            line, status = explain(error)
            assert status == 2 and not hidden(line) and len(line) <= 1000
        else:
            assert not hidden(found.to_toml().replace("\n", ""))
            Path("d.toml").write_text(found.to_toml())
            assert load_corrections("d.toml") == found


@pytest.mark.parametrize("scheme", ["http://", "https://", "ftp://", "s3://", "file://"])
def test_a_curve_is_a_file_and_no_address(scheme, monkeypatch, alone):
    from stemdisp.response import read_curve

    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **_: asked.append(args))
    (alone / "curve.csv").write_text("ratio,occupancy\n0,0\n1,1\n")
    with pytest.raises(ConfigError, match="no such file"):
        read_curve(
            f"{scheme}{alone}/curve.csv" if "file" in scheme else f"{scheme}example.invalid/c.csv"
        )
    assert asked == []


def test_what_a_file_says_of_itself_does_not_act_on_the_terminal(write_hspy, image, capsys):
    for name, text in ALL.items():
        if name in ("bytes", "nul", "long"):
            continue  # HDF5 stores no such text
        metadata = {
            "General": {"title": text},
            "Acquisition_instrument": {"TEM": {"microscope": text}},
        }
        path = write_hspy("a.hspy", image, scale=(0.1, 0.1), units="nm", metadata=metadata)
        status, out, _ = called(capsys, "inspect", str(path))
        assert status == 0 and "a.hspy" in out


@pytest.mark.slow
def test_a_whole_run_with_hostile_names_everywhere(browser, capsys, tmp_path, alone):
    """The sample data under another name, with its structure, curve, corrections and output."""
    import hyperspy.api as hs

    folder = alone / fit_for_a_name(HTML["img"])
    folder.mkdir()
    signal = hs.load(ROOT / "sample_data" / "lao_kto_111.hspy")
    signal.metadata.General.title = HTML["script"]
    signal.metadata.set_item("Acquisition_instrument.TEM.microscope", HTML["svg"])
    data = folder / (fit_for_a_name(HTML["attribute"]) + ".hspy")
    signal.save(data)
    block = HTML["closing"].replace(" ", "")
    cif = folder / (fit_for_a_name(OTHER["shell"]) + ".cif")
    label = HTML["img"].replace("'", "")
    atoms = GOOD | {"block": block, "label": label, "group": "P m -3 m", "number": "221"}
    lines = CIF.format(**atoms).splitlines()
    start = lines.index("_space_group_symop_operation_xyz") - 1
    cif.write_text("\n".join(lines[:start] + lines[start + 3 :]))
    curve = folder / (fit_for_a_name(OTHER["formula ="]) + ".csv")
    curve.write_text("ratio,occupancy\n0,0\n1,1\n")
    corrections = folder / (fit_for_a_name(OTHER["jinja"]) + ".toml")
    made = Corrections(image=ImageId(None, "", HTML["svg"]))
    corrections.write_text(made.to_toml())
    given = {
        "input": {"path": str(data), "corrections": str(corrections)},
        "crystal": {"structure": str(cif)},
        "analysis": {"occupancy_calibration": str(curve), "dose_series": False},
    }
    text = "\n".join(
        f"[{table}]\n" + "\n".join(f"{k} = {json.dumps(v)}" for k, v in keys.items())
        for table, keys in given.items()
    )
    config = folder / (fit_for_a_name(HTML["details"]) + ".toml")
    config.write_text(text)
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    out = alone / fit_for_a_name(OTHER["yaml"] + HTML["quote"])
    status, said, _ = called(capsys, "run", str(config), "--output", str(out))
    assert status == 0 and "report.html" in said
    new = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    outside = {path for path in new if out not in path.parents}
    assert [path.name for path in outside] == [f".{out.name}.lock"]
    page = alone / "page.html"
    page.write_bytes((out / "report.html").read_bytes())
    seen = Watched(browser, page)
    seen.page.wait_for_selector("html[data-views=ready]", timeout=60_000)
    assert seen.explore() == []
    assert seen.page.locator("script").count() == 3
    assert cif.stem in seen.page.locator("h1").inner_text()
    for drawing in sorted((out / "figures").glob("*.svg")):
        seen.open(drawing)
        assert seen.explore() == []
    seen.close()
    for path in out.glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as stream:
            cells = [cell for row in csv.reader(stream) for cell in row]
        assert not any(cell[:1] in "=+@" for cell in cells if cell)
