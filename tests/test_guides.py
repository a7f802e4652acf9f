"""The tutorial and the how-to pages keep their word: what they show can be run, and is true."""

import contextlib
import io
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import numpy as np
import pytest

import stemdisp
from stemdisp import cli
from stemdisp.config import config_from_dict

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
GUIDES = sorted((DOCS / "howto").glob("*.md"))
STRONTIUM_TITANATE = """data_sto
_cell_length_a 3.905
_cell_length_b 3.905
_cell_length_c 3.905
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P m -3 m'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Sr1 Sr 0 0 0
Ti1 Ti 0.5 0.5 0.5
O1 O 0.5 0.5 0
"""

each_guide = pytest.mark.parametrize("page", GUIDES, ids=lambda p: p.stem)


def blocks(page, language):
    """Code of one language; indented blocks, as in lists, too."""
    found = re.findall(
        rf"^( *)```{language}\n(.*?)^ *```$",
        page.read_text(encoding="utf-8"),
        flags=re.MULTILINE | re.DOTALL,
    )
    return [re.sub(f"^{indent}", "", code, flags=re.MULTILINE) for indent, code in found]


def cells():
    return blocks(DOCS / "tutorial.md", r"\{code-cell\} ipython3")


def commands(page):
    lines = "".join(blocks(page, "console")).splitlines()
    return [line.split("#")[0].removesuffix("&").strip() for line in lines]


def test_there_is_a_page_for_each_question():
    asked = {"own_file", "own_crystal", "segments", "null_view", "many_fields", "cluster"}
    assert asked | {"tables", "dose_planning", "from_atomap"} <= {p.stem for p in GUIDES}


@each_guide
def test_configurations_that_are_shown_are_valid(page):
    for code in blocks(page, "toml"):
        config_from_dict(tomllib.loads(code))


def test_a_configuration_with_a_slip_would_be_noticed():
    from stemdisp.errors import ConfigError

    code = blocks(DOCS / "howto" / "own_crystal.md", "toml")[0].replace("cage =", "cages =")
    with pytest.raises(ConfigError, match="cages"):
        config_from_dict(tomllib.loads(code))


def options_of(command):
    return {name for option in command.params for name in (*option.opts, *option.secondary_opts)}


@each_guide
def test_commands_that_are_shown_exist(page):
    for line in commands(page):
        words = line.split()
        if words[:1] != ["stemdisp"]:
            continue
        command = cli.cli.get_command(click.Context(cli.cli), words[1])
        assert command is not None, line
        assert {word for word in words if word.startswith("--")} <= options_of(command), line


def test_messages_that_are_quoted_are_those_of_the_code():
    text = (DOCS / "howto" / "own_file.md").read_text(encoding="utf-8")
    rows = text.split("| it says | do |")[1].split("All formats")[0]
    code = " ".join(p.read_text(encoding="utf-8") for p in (ROOT / "stemdisp").glob("*.py"))
    firsts = [row.split("|")[1] for row in rows.splitlines() if row.startswith("| ")]
    said = [words for cell in firsts for words in re.findall("`([^`]+)`", cell)]
    assert len(said) >= 5 and [words for words in said if words not in code] == []


@pytest.mark.parametrize("page", [DOCS / "tutorial.md", *GUIDES], ids=lambda p: p.stem)
def test_code_that_is_shown_names_what_exists(page):
    codes = cells() if page.stem == "tutorial" else blocks(page, "python")
    text = "\n".join(codes)
    compile(text, page.name, "exec")
    assert set(re.findall(r"\bsd\.(\w+)\(", text)) <= set(stemdisp.__all__)


# From here on the code is run.


@pytest.fixture(scope="module")
def tutorial():
    """Run all cells of the tutorial; return its variables and what it printed."""
    names, printed = {}, io.StringIO()
    with contextlib.chdir(DOCS), contextlib.redirect_stdout(printed):
        exec(compile("\n".join(cells()), "tutorial.md", "exec"), names)
    names["plt"].close("all")
    return names, printed.getvalue()


def test_the_tutorial_finds_the_truth_within_its_errors(tutorial):
    pull = tutorial[0]["pull"].loc[1:8].to_numpy(dtype=float)
    assert pull.shape == (8, 2)
    assert np.max(np.abs(pull)) < 3.5


def test_the_tutorial_would_notice_planes_that_are_counted_wrongly(tutorial):
    """Negative control: compared with the truth of the next plane, the values are far off."""
    names = tutorial[0]
    off = names["planes"]["delta_A"] - names["true"]["delta_A"].shift(1)
    assert np.max(np.abs(off / names["planes"]["delta_err_A"]).loc[2:5]) > 5


def test_the_tutorial_plans_with_errors_that_grow_as_the_dose_falls(tutorial):
    rows = tutorial[0]["rows"]
    errors = [row["error, Å"] for row in rows]
    assert errors == sorted(errors) and len(errors) == 3
    for row in rows:
        assert abs(row["δ(1), Å"] - 0.27) < 3 * row["error, Å"]
    assert "null test in the bulk: passed" in tutorial[1]


def test_the_markers_of_the_tutorial_are_saved_with_the_image(tutorial, tmp_path):
    import hyperspy.api as hs

    tutorial[0]["mean"].save(str(tmp_path / "m.hspy"))
    loaded = hs.load(str(tmp_path / "m.hspy"))
    assert len(list(loaded.metadata.Markers)) >= 5


def run_script(code, folder):
    script = folder / "guide.py"
    script.write_text(code, encoding="utf-8")
    return subprocess.run(
        [sys.executable, str(script)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Make a folder with what the pages take for granted: samples, a CIF, finished runs."""
    from stemdisp.batch import run_fields
    from stemdisp.config import load_config

    folder = tmp_path_factory.mktemp("guides")
    for name in ("sample_data", "pipelines"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "cells").mkdir()
    (folder / "cells" / "sto.cif").write_text(STRONTIUM_TITANATE, encoding="utf-8")
    with contextlib.chdir(folder):
        config = load_config("pipelines/lao_kto_111.toml")
        for seed in (1, 2):
            stack, _ = stemdisp.simulate_stack(n_frames=2, dose_e_per_A2=1000, seed=seed)
            stack.save(f"scans/{seed}.hspy")
        paths = ["scans/1.hspy", "scans/2.hspy"]
        run_fields(config, paths, "results/scans")
        (folder / "results" / "lao_kto_111").symlink_to(folder / "results" / "scans" / "1")
    return folder


EXPECTED = {
    "own_file": r"\A\Z",
    "own_crystal": r"(?s)Sr 0\.0 0\.0.*2\.255 A apart.*mean vector of 0\.\d+ ±",
    "segments": r"(?s)segment \[.*rotation_deg = -?[01]\.",
    "null_view": r"(?s)0\.82 0\.0\n.*more than 3 errors: 0",
    "many_fields": r"(?s) 1 +2 +0\.5.* done",
    "cluster": r"The K/O columns of plane N = 1 are displaced",
    "tables": r"(?s)K +\d+.*columns take part.*\[",
    "dose_planning": r"(?s)delta_detectable_A 0\.\d+.*K +\d",
    "from_atomap": r"(?s)K \d+\n.*species +x_px",
}


@pytest.mark.slow
@each_guide
def test_the_code_of_a_guide_runs(page, place):
    code = "\n".join(blocks(page, "python"))
    if not code:
        pytest.skip("shows no Python")
    done = run_script(code, place)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(EXPECTED[page.stem], done.stdout), done.stdout


@pytest.mark.slow
def test_a_guide_with_a_slip_would_be_noticed(place):
    code = blocks(DOCS / "howto" / "own_file.md", "python")[0].replace("sd.load(", "sd.laod(", 1)
    done = run_script(code, place)
    assert done.returncode != 0 and "laod" in done.stderr
