"""A virtual environment for each peer, so that none constrains another or stemdisp."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ADAPTERS = ROOT / "benchmarks" / "peers"
FOLDER = ROOT / ".venv-bench"
INSTALL_S = 1200


class Unavailable(Exception):
    """A peer cannot be had here; the text is the reason in one line."""


@dataclass(frozen=True)
class Peer:
    """A contestant: its name, its adapter, and the packages that must be pinned for it."""

    name: str
    label: str
    adapter: str
    package: str = ""  # none: the environment that runs the benchmarks


PEERS = (
    Peer("stemdisp", "stemdisp", "stemdisp_fit.py"),
    Peer("scipy", "scipy, per column", "scipy_columns.py", "scipy"),
    Peer("atomap", "atomap's chain", "atomap_chain.py", "atomap"),
    Peer("photutils", "photutils, groups", "photutils_groups.py", "photutils"),
    Peer("singleorigin", "SingleOrigin, groups", "singleorigin.py", "SingleOrigin"),
)


def requirements(peer: Peer) -> Path:
    """Give the file with the pinned packages of a peer."""
    return ADAPTERS / f"requirements-{peer.name}.txt"


def python_of(peer: Peer, *, folder: Path = FOLDER) -> Path:
    """Give the interpreter of a peer's environment, whether it is there or not."""
    if not peer.package:
        return Path(sys.executable)
    return folder / peer.name / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def is_ready(peer: Peer, *, folder: Path = FOLDER) -> bool:
    """Say whether the environment is there, with the packages that are asked for now."""
    if not peer.package:
        return True
    stamp = folder / peer.name / "installed.txt"
    return stamp.is_file() and stamp.read_text(encoding="ascii") == _digest(peer)


def prepare(
    peer: Peer, *, folder: Path = FOLDER, say: Callable[[str], None] = lambda _: None
) -> Path:
    """Make the environment if need be and give its interpreter.

    Raises
    ------
    Unavailable
        If it cannot be made, with the reason.
    """
    if is_ready(peer, folder=folder):
        return python_of(peer, folder=folder)
    say(f"installing {peer.package} (once)")
    home = folder / peer.name
    shutil.rmtree(home, ignore_errors=True)
    _call([sys.executable, "-m", "venv", str(home)])
    python = python_of(peer, folder=folder)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _call([*pip, "-r", str(requirements(peer))])
    (home / "installed.txt").write_text(_digest(peer), encoding="ascii")
    return python


def _digest(peer: Peer) -> str:
    return hashlib.sha256(requirements(peer).read_bytes()).hexdigest()


def _call(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"installation: {one_line(str(error))}") from None
    if done.returncode:
        raise Unavailable(f"installation: {last_error(done.stdout + done.stderr)}")


def last_error(text: str) -> str:
    """Give the line of a program's output that says best what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR") or "Error:" in line]
    return one_line((errors or lines or ["it said nothing"])[-1])


def one_line(text: str, most: int = 160) -> str:
    """Shorten a message and take out what would break a table."""
    text = " ".join(text.split()).replace("|", "/")
    return text if len(text) <= most else text[: most - 1] + "…"
