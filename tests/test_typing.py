"""What a type checker knows of the package, and what it refuses."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import stemdisp

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "stemdisp"

_RIGHT = """
from typing import assert_type

import numpy as np
import pandas as pd

import stemdisp
from stemdisp.corrections import Corrections
from stemdisp.result import Result

result = stemdisp.run("my.toml", progress=True)
assert_type(result, Result)
assert_type(result.columns, pd.DataFrame)
assert_type(result.frames, pd.DataFrame | None)
if result.decay is not None:
    assert_type(result.decay.xi_planes, float)
projection = stemdisp.project("KTaO3", (1, -1, 0), displaced="K")
image = np.zeros((64, 64))
lattice = stemdisp.find_lattice(image, projection, pixel_size=0.1)
columns = stemdisp.find_columns(image, lattice, projection=projection)
assert_type(columns, pd.DataFrame)
assert_type(stemdisp.refine_columns(image, columns, pixel_size=0.1), pd.DataFrame)
assert_type(stemdisp.load_corrections("corrections.toml"), Corrections)
stack, truth = stemdisp.simulate_stack("null", seed=1, size=256)
assert_type(truth, pd.DataFrame)
"""
# Each line is wrong in one way that the checker has to see.
_WRONG = """
import stemdisp

stemdisp.run("my.toml", progres=True)
stemdisp.project(7, (1, -1, 0))
stemdisp.run("my.toml").columms
stemdisp.run("my.toml").frames["frame"]
stemdisp.load_corrections("corrections.toml") + 1
"""


def public_signatures():
    """Public functions, methods and attributes of classes, with what their annotations say."""
    homes = sorted(
        {*stemdisp._HOMES.values(), "load", "result", "config", "batch", "plot", "errors"}
    )
    for name in homes:
        for node in ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8")).body:
            members = node.body if isinstance(node, ast.ClassDef) else [node]
            if getattr(node, "name", "_").startswith("_"):
                continue
            for member in members:
                if isinstance(member, ast.FunctionDef) and not member.name.startswith("_"):
                    yield f"{name}.{node.name}.{member.name}", member.returns
                elif isinstance(member, ast.AnnAssign):
                    yield f"{name}.{node.name}.{member.target.id}", member.annotation


def test_public_signatures_say_what_comes_back():
    # An Atomap lattice and HyperSpy's markers have no types to name.
    bare = {where.split(".", 1)[1] for where, said in public_signatures()
            if said is None or ast.unparse(said) == "Any"}  # fmt: skip
    assert bare <= {"to_atomap.to_atomap", "KeySpec.default"}, bare
    assert len(list(public_signatures())) > 100


def test_it_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").is_file()


def check(folder, text):
    """Let the checker read a user's script; give what it prints."""
    pytest.importorskip("mypy")
    (folder / "script.py").write_text(text, encoding="utf-8")
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--config-file",
            ROOT / "pyproject.toml",
            folder / "script.py",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )


@pytest.mark.slow
def test_a_users_script_is_checked(tmp_path):
    done = check(tmp_path, _RIGHT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_a_wrong_script_is_refused(tmp_path):
    done = check(tmp_path, _WRONG)
    assert done.returncode == 1, done.stdout + done.stderr
    seen = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line}
    assert seen == {4, 5, 6, 7, 8}, done.stdout


@pytest.mark.slow
def test_the_whole_package_is_clean():
    pytest.importorskip("mypy")
    done = subprocess.run([sys.executable, "-m", "mypy"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout
