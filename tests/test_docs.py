"""The documents fit the code: modules, dependencies, outputs, quality bits and steps."""

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import stemdisp
from stemdisp import cli, plot, tables
from stemdisp.config import describe

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
    "llvmlite": "numba",
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


def index_entries():
    """Pages in the groups of the index, in their order."""
    groups = re.findall(
        r"^```\{toctree\}\n(.*?)^```", text("docs/index.md"), re.MULTILINE | re.DOTALL
    )
    lines = [line.strip() for group in groups for line in group.splitlines()]
    return [line for line in lines if line and not line.startswith(":")]


def own_pages():
    pages = sorted([*DOCS.glob("*.md"), *DOCS.glob("howto/*.md")])
    return [page.relative_to(DOCS).as_posix() for page in pages]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Write the generated pages as the build does; return name -> text."""
    folder = tmp_path_factory.mktemp("reference")
    script = "import sys, pathlib, make_reference as m; m.write_all(pathlib.Path(sys.argv[1]))"
    paths = os.pathsep.join([str(ROOT), str(DOCS)])
    subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        check=True,
        env=os.environ | {"PYTHONPATH": paths},
    )
    return {page.name: page.read_text(encoding="utf-8") for page in folder.glob("*.md")}


def test_every_entry_of_the_index_is_a_page(reference):
    entries = index_entries()
    assert len(entries) == len(set(entries)) > 20
    made = {f"_generated/{name}" for name in reference}
    assert [e for e in entries if f"{e}.md" not in {*own_pages(), *made}] == []
    assert made <= {f"{entry}.md" for entry in entries}


@pytest.mark.parametrize("page", own_pages())
def test_every_page_is_reachable(page):
    assert page == "index.md" or page.removesuffix(".md") in index_entries()


@pytest.mark.parametrize("page", own_pages())
def test_links_and_pictures_of_a_page_are_there(page, reference):
    body = re.sub(r"^```.*?^```", "", text(f"docs/{page}"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", body):
        name = target.split("#")[0]
        if "://" in target or not name:
            continue
        path = (DOCS / page).parent / name
        assert path.is_file() or path.name in reference, target


@pytest.mark.parametrize("page", own_pages())
def test_pages_name_no_place_on_somebodys_machine(page):
    found = re.findall(r"(?<![\w.:/])/(?:home|work|tmp|root|mnt|Users)/\S*", text(f"docs/{page}"))
    assert found == []


def test_the_reference_lists_every_public_name(reference):
    headings = set(re.findall(r"^### (\w+)$", reference["api.md"], flags=re.MULTILINE))
    assert (set(stemdisp.__all__) - {"__version__"}) | set(plot.__all__) <= headings
    documented = re.findall(r"auto(?:function|class):: ([\w.]+)", reference["api.md"])
    for name in documented:
        home, _, member = name.rpartition(".")
        assert importlib.import_module(home).__dict__[member].__doc__, name


def test_the_reference_lists_every_key_column_and_bit(reference):
    keys = [spec.key.split(".")[1] for spec in describe()]
    assert [k for k in keys if f"\n`{k}` = " not in reference["configuration.md"]] == []
    names = [spec.name for spec in tables.COLUMNS]
    assert [n for n in names if f"| `{n}` |" not in reference["tables.md"]] == []
    bits = [spec.bit.name for spec in tables.QUALITY_BITS]
    assert [b for b in bits if f"| `{b}` |" not in reference["quality.md"]] == []


def test_the_reference_lists_every_command_and_option(reference):
    page = reference["commands.md"]
    for name, command in cli.cli.commands.items():
        section = page.split(f"## stemdisp {name}\n")[1].split("\n## ")[0]
        for option in command.params:
            shown = option.opts[0] if option.param_type_name == "option" else option.name.upper()
            assert shown in section, (name, shown)


def test_formulas_need_no_network():
    """Every formula becomes MathML; nothing loads MathJax."""
    converter = pytest.importorskip("docutils.utils.math.latex2mathml")
    count = 0
    for page in own_pages():
        body = re.sub(r"^```.*?^```", "", text(f"docs/{page}"), flags=re.MULTILINE | re.DOTALL)
        for formula in re.findall(r"\$\$(.+?)\$\$|(?<!\$)\$([^$\n]+)\$", body, flags=re.DOTALL):
            assert "<math" in converter.tex2mathml(max(formula).strip())
            count += 1
    assert count > 50
    assert "mathjax" not in text("docs/conf.py").lower()


def test_pictures_are_small():
    pictures = [path for path in (DOCS / "images").rglob("*") if path.is_file()]
    assert {"axes.svg", "crystal.svg"} <= {path.name for path in pictures}
    assert sum(path.stat().st_size for path in pictures) < 1_500_000
    used = "".join(text(f"docs/{page}") for page in own_pages()) + text("README.md")
    assert [path.name for path in pictures if path.name not in used] == []


def test_the_citation_file_is_complete():
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load(text("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= set(citation)
    assert citation["version"] == stemdisp.__version__
    assert citation["license"] == PROJECT["license"]
    doi = citation["references"][0]["doi"]
    assert doi in text("docs/citing.md") and doi in text("README.md")


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
    for page in ("README.md", *(f"docs/{name}" for name in own_pages())):
        assert not re.findall(words, text(page), flags=re.IGNORECASE), page
