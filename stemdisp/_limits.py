"""What a process that reads a file may do: memory, time, files, and nothing but reading.

Python tells of what its code is about to do by audit events (PEP 578). In the reading process all
are refused that lead elsewhere. Compiled libraries tell nothing: what they could be made to do,
the looks through a file before they get it must find.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import FrameType
from typing import Any

GIB = 2**30
SLOWEST_BYTES_PER_S = 20e6  # what reading and unpacking must reach
LEAST_CPU_S = 8.0
COPIES = 3  # of its values that a reader may hold for a moment

_NEVER = (
    "cpython.run_",
    "ftplib.",
    "os.chflags",
    "os.chmod",
    "os.chown",
    "os.exec",
    "os.fork",
    "os.kill",
    "os.link",
    "os.mkdir",
    "os.posix_spawn",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.setxattr",
    "os.spawn",
    "os.startfile",
    "os.symlink",
    "os.system",
    "os.truncate",
    "os.utime",
    "pickle.find_class",
    "pty.spawn",
    "shutil.",
    "smtplib.",
    "socket.bind",
    "socket.connect",
    "socket.getaddrinfo",
    "socket.sendto",
    "subprocess.",
    "tempfile.",
    "urllib.",
    "webbrowser.",
)
_TASKS = os.path.join("dask", "tokenize.py")
_NO_IMPORT = ("cloudpickle", "hyperspy", "sympy")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Watch:
    """Refuses what reading has no need of, and remembers it: a reader may swallow the refusal.

    Attributes
    ----------
    file : str
        The only file, or directory that is a store, that may be opened, for reading.
    refused : list of str
        What was tried, since this list was last emptied.
    """

    def __init__(self) -> None:
        self.file = ""
        self.refused: list[str] = []
        self._installed = tuple({os.path.realpath(path) + os.sep for path in _installed()})

    def begin(self) -> None:
        """Refuse from now on, until the process ends."""
        sys.addaudithook(self._event)

    def _event(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Look at one audit event."""
        if event == "open":
            what = self._wrong_file(*arguments)
        elif event in ("exec", "import"):
            what = _wrong_code(event, arguments[0])
        else:
            what = event if event.startswith(_NEVER) else ""
        if what and not _by_installed_code(event):
            self.refused.append(what)
            raise PermissionError(f"reading a file must not do this: {what}")

    def _wrong_file(self, path: Any, mode: str | None, flags: int) -> str:
        """Name a file that is not to be opened, or not to be written; else an empty text."""
        if isinstance(path, int):
            return ""
        name = os.fsdecode(path)
        if name == os.devnull:
            return ""
        if flags & _WRITES or (mode and set(mode) & set("wax+")):
            return f"write {name!r}"
        real = os.path.realpath(name)
        if real == self.file or real.startswith(self.file + os.sep):
            return ""
        if real.startswith(self._installed) or real.startswith(("/proc/", "/sys/")):
            return ""
        return f"open {name!r}"


def _installed() -> list[str]:
    """Where Python and its packages lie."""
    return [path for path in (*sys.path, sys.prefix, sys.base_prefix) if path]


def _wrong_code(event: str, subject: Any) -> str:
    """Name code made from text, or a package that runs such code; else an empty text."""
    if event == "import":
        return f"import {subject}" if str(subject).split(".")[0] in _NO_IMPORT else ""
    return "run code" if getattr(subject, "co_filename", "") == "<string>" else ""


def _by_installed_code(event: str) -> bool:
    """Tell whether a module is being loaded, or Dask copies its own tasks (it pickles them)."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith("<frozen importlib"):
            return True
        if event == "pickle.find_class" and name.endswith(_TASKS):
            return True
        frame = frame.f_back
    return False


def allow(n_bytes: int) -> None:
    """Limit memory and processor time, counted from now, to what so many bytes of values need.

    Beyond them memory is refused, and the system ends the process. Where the system knows no
    such limits, nothing happens.

    Parameters
    ----------
    n_bytes : int
        To be read.
    """
    try:
        import resource
    except ImportError:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = used.ru_utime + used.ru_stime + LEAST_CPU_S + n_bytes / SLOWEST_BYTES_PER_S
    _limit(resource.RLIMIT_CPU, int(seconds) + 1)
    taken = _private_bytes()
    if taken is not None:
        _limit(resource.RLIMIT_DATA, taken + GIB + COPIES * n_bytes)


def _limit(kind: int, value: int) -> None:
    """Set a soft limit, as far as the hard one lets it."""
    import resource

    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _private_bytes() -> int | None:
    """Return the memory of this process that counts for `RLIMIT_DATA` (Linux), or None."""
    try:
        status = Path("/proc/self/status").read_text("ascii", "replace")
    except OSError:
        return None
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmData:")]
    return 1024 * int(found[0]) if found else None
