"""The README keeps its word: its example runs and finds the truth, and what it names exists."""

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"(?<![\w.])[-−+]?\d+(?:\.\d+)?(?![\w.])")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def code_lines():
    (block,) = blocks("python")
    return [line for line in block.splitlines() if line.strip() and not line.startswith("#")]


def numbers(text):
    return [float(n.replace("−", "-")) for n in NUMBER.findall(text)]


@pytest.fixture(scope="module")
def session():
    """Run exactly the lines of the README; return its variables and what it printed."""
    pytest.importorskip("hyperspy")
    names = {}
    printed = io.StringIO()
    with contextlib.chdir(ROOT), contextlib.redirect_stdout(printed):
        exec(compile("\n".join(code_lines()), "README.md", "exec"), names)
    return names, printed.getvalue()


@pytest.fixture(scope="module")
def truth():
    table = pd.read_csv(ROOT / "sample_data" / "lao_kto_111.truth.csv")
    bulk = table[(table["species"] == "K") & (table["N"] >= 10)]
    # Uniform, as specimen tilt makes it: what the bulk reference has to take off.
    offset = bulk["delta_A"].median()
    planes = table[table["species"] == "K"].groupby("N")["delta_A"].mean() - offset
    occupancy = table[table["species"] == "O"].groupby("N")["occupancy"].mean()
    return planes, occupancy, offset


def test_the_example_is_short():
    assert 5 <= len(code_lines()) <= 15


def test_the_example_finds_the_true_displacements(session, truth):
    planes = session[0]["planes"].set_index("N").loc[1:20]
    true = truth[0].loc[1:20]
    assert true[1] > 0.5  # the sample does hold what is looked for
    assert abs(planes["delta_A"][1] - true[1]) < 0.05
    off = (planes["delta_A"] - true).to_numpy(dtype=float)
    assert np.max(np.abs(off)) < 0.05
    # the stated errors are the true ones: chi2 of 20 planes, each tail below 1 in 10^4
    pull = off / planes["delta_err_A"].to_numpy(dtype=float)
    assert 3.5 < np.sum(pull**2) < 52


def test_the_bulk_offset_is_measured_and_taken_off(session, truth):
    names = session[0]
    offset = names["columns"].attrs["displacements"].offset["delta"]
    assert abs(offset - truth[2]) < 0.005
    bulk = names["planes"][names["planes"]["N"] >= 10]["delta_A"].mean()
    assert abs(bulk) < 0.004


def test_the_example_finds_the_true_decay(session, truth):
    decay = session[0]["decay"]
    step = np.log(truth[0][1] / truth[0][4]) / 3
    assert abs(decay.xi_planes - 1 / step) < 0.25
    assert decay.model == "exponential"


def test_the_example_finds_the_true_occupancies(session, truth):
    columns = session[0]["columns"]
    oxygen = columns[(columns["species"] == "O") & (columns["quality"] & ~2 == 0)]
    found = oxygen.groupby("N")["occupancy"].mean().loc[1:20]
    assert np.max(np.abs(found - truth[1].loc[1:20])) < 0.06


def test_a_wrong_cell_would_be_noticed(session, truth):
    """Negative control: the planes counted one off do not agree with the truth."""
    planes = session[0]["planes"].set_index("N")["delta_A"]
    shifted = planes.loc[2:21].to_numpy(dtype=float) - truth[0].loc[1:20].to_numpy()
    assert np.max(np.abs(shifted)) > 0.1


def test_the_quoted_output_of_the_example_is_what_it_prints(session):
    quoted = blocks("text")[-1]
    printed = session[1]
    assert [line.split() and line.split()[0] for line in quoted.splitlines()] == [
        line.split() and line.split()[0] for line in printed.splitlines()
    ]
    assert len(numbers(quoted)) >= 10
    assert numbers(quoted) == pytest.approx(numbers(printed), abs=0.02)


@pytest.mark.slow
def test_the_quoted_answer_of_the_pipeline_is_what_it_says(tmp_path):
    command = [sys.executable, "-m", "stemdisp", "run", "pipelines/lao_kto_111.toml"]
    if not (ROOT / "stemdisp" / "__main__.py").exists():
        main = "from stemdisp.cli import main; main()"
        command[1:3] = ["-c", main]
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "out")],
        check=True,
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=ROOT,
    )
    said = [line for line in done.stdout.splitlines() if line.startswith("- ")]
    quoted = blocks("text")[0].splitlines()
    for old, new in zip(quoted, said, strict=False):
        assert NUMBER.sub("#", old) == NUMBER.sub("#", new)
        assert numbers(old) == pytest.approx(numbers(new), abs=0.05)


def test_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)]+)\)", README)
    local = [target.split("#")[0] for target in targets if "://" not in target]
    assert len(local) >= 8
    assert [target for target in local if not (ROOT / target).exists()] == []


def test_anchors_are_headings():
    found = re.findall(r"\]\(([\w/]+\.md)#([\w-]+)\)", README)
    assert found
    for name, anchor in found:
        text = (ROOT / name).read_text(encoding="utf-8")
        headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
        assert anchor in [re.sub(r"[^\w-]+", "-", h.lower()).strip("-") for h in headings]


def test_named_files_exist():
    """Paths in code spans and blocks that are part of the repository, not made by a run."""
    names = set(re.findall(r"[\w./-]+/[\w./-]+\.(?:toml|csv|hspy|md|png)", README))
    names = {n for n in names if not n.startswith(("results/", "//")) and "doi.org" not in n}
    assert {n for n in names if n.startswith("pipelines/")} == {
        f"pipelines/{path.name}" for path in (ROOT / "pipelines").glob("*.toml")
    }
    assert [n for n in sorted(names) if not (ROOT / n).exists()] == []


def test_named_make_targets_exist():
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", README, flags=re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    assert {"pipeline", "test"} <= named <= targets
    for variable in re.findall(r"\b([A-Z]+)=", README):
        assert re.search(rf"^{variable} \?=", makefile, flags=re.MULTILINE), variable


def test_named_keys_and_functions_exist():
    import stemdisp
    from stemdisp.config import describe

    keys = {spec.key for spec in describe()}
    rows = re.findall(r"^\| `\[(\w+)\]` \| ([^|]+) \|", README, flags=re.MULTILINE)
    named = {f"{table}.{key}" for table, cell in rows for key in re.findall(r"`(\w+)`", cell)}
    assert len({key.split(".")[0] for key in keys}) == len(rows)
    assert named <= keys
    functions = set(re.findall(r"\bsd\.(\w+)", README))
    assert functions <= set(stemdisp.__all__)


def test_the_picture_is_small_and_a_picture():
    path = ROOT / "docs" / "images" / "report.png"
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert path.stat().st_size <= 300_000


def test_the_readme_stays_short():
    assert len(README.splitlines()) <= 150
