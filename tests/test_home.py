"""Homes that cannot be written, or hold damaged settings: a run needs neither."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = "import hyperspy.defaults_parser, dask.config, matplotlib\n"
PREPARED = (
    "import logging, os; from stemdisp._home import usable_home\n"
    "logging.disable(logging.ERROR)\n"  # as the command line does
    "with usable_home():\n    " + LIBRARIES + "    home = os.environ['HOME']\n"
    "    print(home, matplotlib.rcParams['lines.linewidth'])\n"
    "assert not os.path.exists(home) or home == os.environ['HOME']\n"
)


def python(script, home, folder):
    there = {key: value for key, value in os.environ.items() if not key.startswith(("XDG", "MPL"))}
    there |= {"HOME": str(home), "PYTHONPATH": str(ROOT)}
    folder.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-c", script],
        env=there, cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip


def hyperspy_value(home):
    (home / ".hyperspy").mkdir()
    (home / ".hyperspy" / "hyperspyrc").write_bytes(b"[General]\nlogging_level = \xff\xfe\n")


def hyperspy_file(home):
    (home / ".hyperspy").mkdir()
    (home / ".hyperspy" / "hyperspyrc").write_bytes(b"\0\0logging_level = LOUD\n[")


def dask_file(home):
    (home / ".config" / "dask").mkdir(parents=True)
    (home / ".config" / "dask" / "dask.yaml").write_text("array: {chunk-size: [\n")


def unwritable(home):
    home.rmdir()
    home.write_text("")  # permission bits do not bind root, but a file is no directory


@pytest.mark.parametrize("spoil", [hyperspy_value, dask_file, unwritable])
def test_a_home_that_will_not_do_is_not_used(tmp_path, spoil):
    home = tmp_path / "home"
    home.mkdir()
    spoil(home)
    assert python(LIBRARIES, home, tmp_path / "work").returncode != 0  # what they do by themselves
    done = python(PREPARED, home, tmp_path / "work")
    assert (done.returncode, done.stderr) == (0, "")
    assert not done.stdout.startswith(str(home)) and done.stdout.endswith(" 1.5\n")
    assert list((tmp_path / "work").iterdir()) == []


def test_a_good_home_is_used_but_not_for_figures(tmp_path):
    home = tmp_path / "home"
    (home / ".config" / "matplotlib").mkdir(parents=True)
    (home / ".config" / "matplotlib" / "matplotlibrc").write_text("lines.linewidth: 9\n")
    done = python(PREPARED, home, tmp_path / "work")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{home} 1.5\n", "")


def test_damaged_settings_elsewhere_are_named_in_one_line(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "matplotlibrc").write_bytes(b"\xff\xfe\xfa")
    (tmp_path / "home").mkdir()
    done = python(PREPARED, tmp_path / "home", tmp_path / "work")
    last = done.stderr.splitlines()[-1]
    assert "ConfigError: the settings of matplotlib cannot be used (UnicodeDecodeError" in last
    assert last.endswith("mend or remove them")


READ_ONLY = """
set -e
for place in "$@"; do mount --bind "$place" "$place"; mount -o remount,bind,ro "$place"; done
cd "$WORK"
! touch stray 2>/dev/null
exec "$PYTHON" -m stemdisp run a.toml --output "$OUTPUT" --quiet
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not sys.platform.startswith("linux")
    or os.geteuid() != 0
    or subprocess.run(["unshare", "-m", "true"], check=False).returncode != 0,
    reason="needs to mount",
)
def test_a_run_with_installation_home_and_data_read_only(tmp_path):
    home, work, out = (tmp_path / name for name in ("home", "work", "out"))
    for folder in (home, work, out, tmp_path / "tmp"):
        folder.mkdir()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable, "WORK": str(work)}
    env |= {"OUTPUT": str(out / "run"), "HOME": str(home), "TMPDIR": str(tmp_path / "tmp")}
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "NUMBA_CACHE_DIR"):
        env.pop(name, None)
    size = ["--frames", "2", "--size", "224"]
    simulate = [sys.executable, "-m", "stemdisp", "simulate", "s.hspy", *size]
    subprocess.run(simulate, cwd=work, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    (work / "a.toml").write_text('[input]\npath = ["s.hspy"]\n')
    places = [str(ROOT), sys.prefix, str(home), str(work)]
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", READ_ONLY, "run", *places],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (out / "run" / "report.html").is_file()
    assert list(home.iterdir()) == list((tmp_path / "tmp").iterdir()) == []
    assert sorted(p.name for p in work.iterdir()) == ["a.toml", "s.hspy", "s.truth.csv"]
