"""The documents fit the code: modules, dependencies, outputs, quality bits and steps."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

from stemdisp import tables

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "stemdisp"
DOCS = ROOT / "docs"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# Import name -> name of the distribution, where they differ.
DISTRIBUTION = {"skimage": "scikit-image", "rsciio": "rosettasciio", "PIL": "pillow"}
# Used through a declared package that cannot do without them.
CARRIED = {
    "dask": "hyperspy",
    "PIL": "matplotlib",
    "fontTools": "matplotlib",
    "markupsafe": "jinja2",
    "tifffile": "rosettasciio",
    "ase": "abtem",
}


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def name_of(requirement):
    return re.match(r"[\w-]+", requirement).group().lower()


def declared(*extras):
    optional = PROJECT["optional-dependencies"]
    return {name_of(r) for r in PROJECT["dependencies"] + [r for e in extras for r in optional[e]]}


def imported():
    """Top-level packages that stemdisp imports, with one module that does."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            for name in names:
                found.setdefault(name.split(".")[0], path.name)
    outside = set(found) - set(sys.stdlib_module_names) - {"stemdisp"}
    return {name: found[name] for name in sorted(outside)}


def test_what_is_imported_is_declared():
    packages = declared("atomap", "cluster", "simulate")
    missing = {}
    for name, where in imported().items():
        carrier = CARRIED.get(name, name)
        if DISTRIBUTION.get(carrier, carrier).lower() not in packages:
            missing[name] = where
    assert missing == {}


def test_every_dependency_has_its_reason():
    table = text("CONTRIBUTING.md").split("## Dependencies")[1].split("## Licence")[0]
    rows = re.findall(r"^\| ([a-z][^|]*) \| ([^|]+) \|$", table, flags=re.MULTILINE)
    named = set()
    for cell, reason in rows:
        assert reason.strip()
        named |= {p.strip() for p in re.sub(r"\([^)]*\)", "", cell).split(",")}
    named -= {"package"}
    assert declared(*PROJECT["optional-dependencies"]) == named


def test_every_dependency_is_pinned():
    pins = {line.split("==")[0].lower() for line in text("constraints.txt").splitlines()}
    assert declared("atomap", "simulate", "test", "lint", "docs") - pins == set()


def test_the_architecture_lists_every_module():
    page = text("docs/architecture.md")
    listed = set(re.findall(r"`((?:report/)?\w+\.py)`", page))
    there = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if path != PACKAGE / "__init__.py"
    }
    assert listed == there


def test_the_methods_name_modules_and_bits_that_exist():
    page = text("docs/methods.md")
    for name in set(re.findall(r"`(\w+\.py)`", page)):
        assert (PACKAGE / name).is_file(), name
    bits = {spec.bit.name for spec in tables.QUALITY_BITS}
    named = set(re.findall(r"`([A-Z][A-Z_]+)`", page))
    assert named and named <= bits


def test_constants_in_the_methods_are_those_of_the_code():
    from stemdisp import _start, _summary, find, fit, pipeline, polarisation, response

    page = " ".join(text("docs/methods.md").split())
    assert f"knots {_start.BACKGROUND_KNOTS_A:g} Å apart" in page
    assert f"within {find.FILM_BAND_A[1]:g} Å of the last plane" in page
    assert f"within {fit.NEIGHBOURHOOD_A:g} Å" in page
    assert f"Above {_summary.MISFIT:g} the run warns" in page
    values = [f"{f:.2f}" for f in response.CATION_F.values()]
    assert f"f = {', '.join(values[:-1])} and {values[-1]} at 5, 10, 15 and 20 nm" in page
    assert f"{response.COLUMN_F} ± {response.COLUMN_F_ERR}" in page
    fixed, share = pipeline.FILM_BIAS
    assert f"{100 * fixed:g} pm and {100 * share:g} % of the displacement are added" in page
    assert f"{100 * polarisation.CHARGE_ERR:g} %" in page


def test_every_entry_of_the_index_is_a_page():
    toctree = text("docs/index.md").split("```{toctree}")[1].split("```")[0].split()[2:]
    own = [name for name in toctree if not name.startswith("_generated/")]
    assert own and [name for name in own if not (DOCS / f"{name}.md").is_file()] == []


@pytest.mark.parametrize("page", sorted(p.name for p in DOCS.glob("*.md")))
def test_every_page_is_reachable(page):
    index = text("docs/index.md")
    toctree = index.split("```{toctree}")[1].split("```")[0].split()
    assert page == "index.md" or page.removesuffix(".md") in toctree


def test_the_output_page_and_the_readme_name_the_same_files():
    def files(page):
        return set(re.findall(r"^\| `([\w./]+)` \|", page, flags=re.MULTILINE))

    made = files(text("docs/output.md")) - {".stemdisp"}
    readme = text("README.md").split("## What each file holds")[1]
    assert files(readme) == made
    assert {f"{name}.csv" for name in {c.table for c in tables.COLUMNS}} < made


def test_documents_use_no_superlatives():
    words = (
        r"\b(best-in-class|state-of-the-art|unique|powerful|revolutionary|unprecedented|superior)\b"
    )
    for page in ("README.md", "docs/methods.md", "docs/architecture.md", "docs/index.md"):
        assert not re.findall(words, text(page), flags=re.IGNORECASE), page
