"""What is distributed: files, dependencies, licences, and a clean installation."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path

import pytest

import stemdisp

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = SETTINGS["project"]
# Not for a user of the source distribution: what runs before a change is merged, and git's own.
KEPT_BACK = {".ci/run", ".gitignore"}
# What setuptools adds.
MADE = {"PKG-INFO", "setup.cfg"}
# Licences under which code may become part of a work under GPL-3.0-or-later.
COMPATIBLE = (
    r"\b(0BSD|Apache-2\.0|Apache Software License|BSD|CC0|GPL-3\.0-or-later|GPLv3|ISC|MIT"
    r"|MPL[- ]2\.0|Python Software Foundation|Zlib)"
)
_SMOKE = """
import os, stemdisp
assert os.path.commonpath([stemdisp.__file__, os.environ["SOURCE"]]) != os.environ["SOURCE"]
result = stemdisp.run({"input": {"path": ["small.hspy"]}})
print(len(result.columns), result.columns["delta_A"].notna().sum() > 10)
"""


def tracked():
    """Files that git keeps, or skip where there is no git."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a clone")
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return {name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()}


def key(name):
    """Spell the name of a distribution in one way."""
    return re.sub(r"[-_.]+", "-", name).lower()


def uncovered(names, patterns):
    """Files of the package that are no modules and that no pattern of package-data means."""
    data = [name.removeprefix("stemdisp/") for name in names if name.startswith("stemdisp/")]
    flat = [pattern.replace("**/", "*") for pattern in patterns]
    return [n for n in data if not n.endswith(".py") and not any(fnmatch(n, p) for p in flat)]


def test_every_data_file_of_the_package_is_installed():
    patterns = SETTINGS["tool"]["setuptools"]["package-data"]["stemdisp"]
    names = tracked()
    assert uncovered(names, patterns) == []
    assert uncovered({*names, "stemdisp/report/new.txt"}, patterns) == ["report/new.txt"]
    for pattern in patterns:  # and none is left over
        assert list((ROOT / "stemdisp").glob(pattern)), pattern


def test_the_source_distribution_names_every_tracked_place():
    lines = (ROOT / "MANIFEST.in").read_text(encoding="utf-8").splitlines()
    words = {
        word for line in lines if line.startswith(("graft", "include")) for word in line.split()
    }
    places = {name.split("/")[0] for name in tracked() - KEPT_BACK}
    assert places - words <= {"MANIFEST.in"}


def pins():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {
        key(name): version
        for name, _, version in (line.partition("==") for line in lines)
        if version
    }


def needed(name, extras=()):
    """Requirements of an installed distribution; those of its `extras` too."""
    from packaging.requirements import Requirement

    for text in metadata.requires(name) or []:
        requirement = Requirement(text)
        if requirement.marker is None or any(
            requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras)
        ):
            yield requirement


def holes(pinned):
    """What an installation of stemdisp with all its extras needs and the pins do not give."""
    from packaging.requirements import Requirement

    optional = PROJECT["optional-dependencies"].values()
    todo = [Requirement(r) for part in (PROJECT["dependencies"], *optional) for r in part]
    seen, found = set(), []
    while todo:
        requirement = todo.pop()
        name = key(requirement.name)
        if name not in pinned:
            found.append(f"{name} is not pinned")
        elif not requirement.specifier.contains(pinned[name], prereleases=True):
            found.append(f"{requirement} against {pinned[name]}")
        mark = (name, *sorted(requirement.extras))
        if mark in seen or importlib.util.find_spec("packaging") is None:
            continue
        seen.add(mark)
        try:
            todo += needed(name, requirement.extras)
        except metadata.PackageNotFoundError:
            continue  # of an extra that is not installed here
    return sorted(set(found))


def test_the_pins_are_complete_and_agree():
    pytest.importorskip("packaging")
    all_pins = pins()
    assert holes(all_pins) == []
    without = {name: version for name, version in all_pins.items() if name != "llvmlite"}
    assert holes(without) == ["llvmlite is not pinned"]
    assert any("numpy" in hole for hole in holes(all_pins | {"numpy": "1.26.4"}))


def licence_of(name):
    about = metadata.metadata(name)
    named = [c for c in about.get_all("Classifier") or [] if c.startswith("License ::")]
    words = about.get("License") or ""
    return " ".join([about.get("License-Expression") or "", *named]).strip() or words[:80]


def test_licences_of_dependencies_go_with_the_gpl():
    optional = PROJECT["optional-dependencies"].values()
    names = {
        re.match(r"[\w-]+", text).group()
        for part in (PROJECT["dependencies"], *optional)
        for text in part
    }
    looked_at = 0
    for name in sorted(names):
        try:
            licence = licence_of(name)
        except metadata.PackageNotFoundError:
            continue
        assert re.search(COMPATIBLE, licence), f"{name}: {licence}"
        looked_at += 1
    assert looked_at > len(PROJECT["dependencies"])
    assert not re.search(COMPATIBLE, "License :: Other/Proprietary License")


def test_licences_of_other_kinds_are_seen():
    assert PROJECT["license"] == "GPL-3.0-or-later"
    for text in ("GPL-2.0-only", "SSPL-1.0", "CC-BY-NC-4.0", "Proprietary"):
        assert not re.search(COMPATIBLE, text)


# From here on: slow.


def run(*command, **options):
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=1500, **options
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def without_compiler(folder, **more):
    """Give an environment whose PATH holds nothing but Python's needs, and no compiler."""
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    for name in ("uname", "sh"):
        found = shutil.which(name)
        if found and not (tools / name).exists():
            (tools / name).symlink_to(found)
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    bad = {"CC": "false", "CXX": "false", "FC": "false"}
    env = kept | bad | {"PATH": str(tools), "SOURCE": str(ROOT), "MPLBACKEND": "Agg"} | more
    assert all(shutil.which(c, path=env["PATH"]) is None for c in ("gcc", "cc", "clang", "g++"))
    return env


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build both distributions from the tracked files, with litter beside them."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, source / name)
    for litter in (".venv/bin/python", "results/run/report.html", "stemdisp/__pycache__/a.pyc"):
        (source / litter).parent.mkdir(parents=True, exist_ok=True)
        (source / litter).write_text("litter")
    (source / "docs" / "_build").mkdir()
    (source / "docs" / "_build" / "index.html").write_text("litter")
    venv.create(folder / "builder", with_pip=True)
    python = folder / "builder" / "bin" / "python"
    got = subprocess.run([python, "-m", "pip", "install", "-q", "setuptools>=77"], check=False)
    if got.returncode:
        pytest.skip("no packages can be fetched")
    call = "import sys, setuptools.build_meta as b; getattr(b, sys.argv[1])(sys.argv[2])"
    env = os.environ | {"SOURCE_DATE_EPOCH": "1700000000"}
    for kind, where in (("build_sdist", "a"), ("build_wheel", "a"), ("build_wheel", "b")):
        (folder / where).mkdir(exist_ok=True)
        run(python, "-c", call, kind, folder / where, cwd=source, env=env)
    return folder


@pytest.mark.slow
def test_the_source_distribution_holds_what_git_keeps(built):
    (archive,) = (built / "a").glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {m.name.partition("/")[2] for m in tar.getmembers() if m.isfile()}
    added = {name for name in names if name in MADE or name.startswith("stemdisp.egg-info/")}
    assert names - added == tracked() - KEPT_BACK
    assert archive.stat().st_size < 15e6


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(built):
    (wheel,) = (built / "a").glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        licence = [name for name in names if name.endswith("licenses/LICENSE")]
        assert file.read(licence[0]) == (ROOT / "LICENSE").read_bytes()
    own = {name for name in names if ".dist-info/" not in name}
    assert own == {name for name in tracked() if name.startswith("stemdisp/")}
    assert "stemdisp/py.typed" in own and wheel.name.endswith("-py3-none-any.whl")


@pytest.mark.slow
def test_the_wheel_is_the_same_bytes_each_time(built):
    first, second = (next((built / where).glob("*.whl")) for where in "ab")
    assert first.read_bytes() == second.read_bytes()


def try_out(python, folder, env):
    """Use what is installed, away from the source."""
    bin_ = python.parent
    assert stemdisp.__version__ in run(bin_ / "stemdisp", "--version", cwd=folder, env=env)
    config = run(bin_ / "stemdisp", "config", cwd=folder, env=env)
    (folder / "my.toml").write_text(config, encoding="utf-8")
    size = ("--size", "192", "--frames", "2", "--dose", "3000")
    run(bin_ / "stemdisp", "simulate", "small.hspy", *size, cwd=folder, env=env)
    where = ("--input", "small.hspy", "--output", "out")
    run(bin_ / "stemdisp", "run", "my.toml", *where, cwd=folder, env=env)
    assert {"report.html", "summary.json", "columns.csv"} <= {
        p.name for p in (folder / "out").iterdir()
    }
    assert run(python, "-c", _SMOKE, cwd=folder, env=env).split()[1] == "True"


@pytest.mark.slow
def test_both_install_and_work_in_a_clean_environment_without_a_compiler(built, tmp_path):
    env = without_compiler(tmp_path)
    venv.create(tmp_path / "clean", with_pip=True)
    python = tmp_path / "clean" / "bin" / "python"
    pip = (python, "-m", "pip", "install", "-q")
    pinned = ("-c", ROOT / "constraints.txt") if sys.version_info[:2] == (3, 11) else ()
    (wheel,) = (built / "a").glob("*.whl")
    run(*pip, "--only-binary", ":all:", *pinned, wheel, cwd=tmp_path, env=env)
    (tmp_path / "first").mkdir()
    try_out(python, tmp_path / "first", env)
    (archive,) = (built / "a").glob("*.tar.gz")
    run(*pip, "--force-reinstall", "--no-deps", archive, cwd=tmp_path, env=env)
    (tmp_path / "second").mkdir()
    try_out(python, tmp_path / "second", env)
