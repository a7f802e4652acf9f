"""The rules of CONTRIBUTING.md that no linter checks."""

import ast
import importlib
import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import pandas as pd
import pytest

import stemdisp
from stemdisp import tables

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "stemdisp").rglob("*.py"))
MAX_LINES = 450
MAX_BODY = 60

HEAVY = (
    "numpy",
    "scipy",
    "pandas",
    "h5py",
    "hyperspy",
    "dask",
    "matplotlib",
    "numba",
    "atomap",
    "bokeh",
)

PROMISED = {
    "load",
    "integrate_dpc",
    "align_stack",
    "project",
    "find_columns",
    "refine_columns",
    "measure_displacements",
    "average_planes",
    "measure_occupancy",
    "line_profile",
    "fit_decay",
    "correlate",
    "run",
    "to_atomap",
    "from_atomap",
    "to_markers",
}

each_module = pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
each_public_module = pytest.mark.parametrize(
    "path",
    # The command line passes options by name.
    [path for path in MODULES if path.name != "cli.py" and not path.name.startswith("_")],
    ids=lambda p: str(p.relative_to(ROOT)),
)


def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(tree):
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def public_functions(tree):
    """Return public functions and the public methods of public classes."""
    found = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            found += [n for n in node.body if isinstance(n, ast.FunctionDef)]
        elif isinstance(node, ast.FunctionDef):
            found.append(node)
    return [node for node in found if not node.name.startswith("_")]


@pytest.mark.parametrize("module", ["stemdisp", "stemdisp.cli", "stemdisp.config"])
def test_importing_stays_light(module):
    script = f"import sys, {module}; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout.strip() == ""


def test_the_promised_names_are_public():
    assert set(stemdisp.__all__) >= PROMISED
    assert set(dir(stemdisp)) == set(stemdisp.__all__)
    assert set(stemdisp._HOMES) | {"load", "__version__"} == set(stemdisp.__all__)
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        _ = stemdisp.laod


@pytest.mark.parametrize("name", sorted(set(stemdisp.__all__) - {"__version__"}))
def test_public_names_can_be_used(name):
    function = getattr(stemdisp, name)
    assert callable(function) and function.__name__ == name
    kinds = [p.kind for p in inspect.signature(function).parameters.values()]
    assert kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD) <= 2


def test_there_is_one_version():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert settings["tool"]["setuptools"]["dynamic"]["version"]["attr"] == "stemdisp.__version__"
    for name, marker in (("CITATION.cff", "version: "), ("CHANGELOG.md", "## ")):
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        assert any(line.startswith(marker + stemdisp.__version__) for line in lines), name


@each_module
def test_modules_say_what_they_are_for(path):
    assert ast.get_docstring(parse(path))


@each_public_module
def test_public_functions_are_documented_and_typed(path):
    for node in public_functions(parse(path)):
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        untyped = [
            a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")
        ]
        assert ast.get_docstring(node), node.name
        assert untyped == [], f"{node.name}: {untyped}"
        assert node.returns is not None, node.name


@each_module
def test_rooms_are_not_outgrown(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES
    for node in functions(parse(path)):
        first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
        assert node.end_lineno - first.lineno < MAX_BODY, node.name


@each_module
def test_nothing_is_printed_or_global(path):
    for node in ast.walk(parse(path)):
        assert not isinstance(node, ast.Global), f"line {node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"line {node.lineno}"


def test_column_names_are_no_attributes_of_a_dataframe():
    frame = pd.DataFrame()
    for spec in tables.COLUMNS:
        assert spec.name.isidentifier()
        assert not hasattr(frame, spec.name), spec.name
        assert spec.meaning and spec.stage


def test_columns_and_quality_bits_are_registered_once():
    keys = [(spec.table, spec.name) for spec in tables.COLUMNS]
    assert len(set(keys)) == len(keys)
    bits = [int(spec.bit) for spec in tables.QUALITY_BITS]
    assert sorted(bits) == [1 << k for k in range(len(bits))]


@pytest.mark.parametrize("stage", sorted({spec.stage for spec in tables.COLUMNS}))
def test_stages_named_in_the_registry_exist(stage):
    assert importlib.import_module(f"stemdisp.{stage}")
