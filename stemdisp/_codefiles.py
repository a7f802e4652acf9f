"""Files of compiled code: kept where only their owner writes, and believed only if they are whole.

Compiled code is read back by unpickling, which can run anything. So a file counts only if it
belongs to this user, to root or to whoever owns the package, if nobody else may write it, and if
the checksum at its head is right. Whatever is wrong with a file or a directory, code is
compiled again: nothing here raises an error of the file system.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

SUFFIX = ".stemdisp-code"
_MAGIC = b"stemdisp compiled code 1\n"
_DIGEST = 32  # bytes
_MOST_BYTES = 1 << 26  # the largest file is a few hundred kB
_DAY_S = 86400
_OUTDATED_S, _UNFINISHED_S = 30 * _DAY_S, _DAY_S
_PACKAGE = Path(__file__).resolve().parent


def folders() -> Iterator[Path]:
    """Where files may lie, best first; none need exist.

    Yields
    ------
    Path
        Only that of ``NUMBA_CACHE_DIR``, if it is set; else beside the package, then in the user's
        directory of caches. A path that is not absolute would depend on the working directory,
        and is left out.
    """
    # installations of their own, files of their own
    name = "stemdisp-" + hashlib.sha256(os.fsencode(_PACKAGE)).hexdigest()[:16]
    chosen = Path(os.environ.get("NUMBA_CACHE_DIR", ""))
    if chosen.is_absolute():
        yield chosen / name
        return
    yield _PACKAGE / "__pycache__"
    user = _user_caches()
    if user.is_absolute():
        yield user / name


def _user_caches() -> Path:
    """Name the user's directory of caches; not absolute where there is none."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", ""))
    if sys.platform == "darwin":
        return Path(_home(), "Library", "Caches")
    chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return chosen if chosen.is_absolute() else Path(_home(), ".cache")


def _home() -> str:
    """Name the user's home; not absolute where there is none, nor where HOME is empty."""
    return os.environ["HOME"] if "HOME" in os.environ else os.path.expanduser("~")


def read(name: str, key: bytes) -> bytes | None:
    """Read compiled code.

    Parameters
    ----------
    name : str
        Of the file, without its suffix.
    key : bytes
        What the code was made of; code of another key is not this code.

    Returns
    -------
    bytes or None
        None where no folder has the file, or none that may be believed.
    """
    for folder in folders():
        with contextlib.suppress(OSError, ValueError):
            content = _read_trusted(folder / (name + SUFFIX))
            start = len(_MAGIC) + _DIGEST
            payload = content[start:]
            if content[:start] == _MAGIC + _digest(key, payload):
                return payload
    return None


def _read_trusted(path: Path) -> bytes:
    """Read a file that only those could have written who may run code as this user anyway."""
    # neither a link nor a pipe that would be waited for
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0))
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
            raise ValueError("no file of compiled code")
        if hasattr(os, "getuid"):
            owners = {os.getuid(), 0, _PACKAGE.stat().st_uid}
            if status.st_uid not in owners or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise ValueError("others may have written it")
        return file.read()


def _digest(key: bytes, payload: bytes) -> bytes:
    return hashlib.blake2b(payload, key=hashlib.sha256(key).digest(), digest_size=_DIGEST).digest()


def write(name: str, key: bytes, payload: bytes) -> bool:
    """Keep compiled code in the first folder that takes it.

    Parameters
    ----------
    name, key
        As for `read`.
    payload : bytes
        The code.

    Returns
    -------
    bool
        False where no folder takes it: read-only, full, or not there.
    """
    content = _MAGIC + _digest(key, payload) + payload
    for folder in folders():
        try:
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            _replace(folder / (name + SUFFIX), content)
        except OSError:
            continue
        _tidy(folder, name)
        return True
    return False


def _replace(path: Path, content: bytes) -> None:
    """Put a file in place of another, whole or not at all."""
    # a name of its own, made by this process only, and readable by its owner only at first
    descriptor, temporary = tempfile.mkstemp(".tmp" + SUFFIX, path.stem + ".", path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _tidy(folder: Path, name: str) -> None:
    """Remove what killed processes left, and what earlier versions kept of the same function."""
    now = time.time()
    with contextlib.suppress(OSError):
        for path in folder.glob(f"{name.rpartition('-')[0]}-*{SUFFIX}"):
            unfinished = path.name.endswith(".tmp" + SUFFIX)
            if now - path.stat().st_mtime > (_UNFINISHED_S if unfinished else _OUTDATED_S):
                path.unlink()
