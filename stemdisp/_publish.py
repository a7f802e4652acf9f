"""An all-or-nothing output directory: whoever looks sees the old one or the new one.

The new directory grows as a hidden sibling and takes the place of the old one in a single step
(on Linux; elsewhere in two renames, which the next run completes or undoes if it was cut off in
between). A lock keeps two runs apart. A directory that holds anything stemdisp did not write is
never replaced: a list of what it wrote stands in the file ``.stemdisp``.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from stemdisp import _stopping
from stemdisp.errors import ConfigError, DataError

MARKER = ".stemdisp"
BATCH_TABLES = ("fields.csv", "planes.csv")  # what a batch writes beside its fields' directories

_NOT_OURS_TO_MIND = {".DS_Store", "Thumbs.db", "desktop.ini"}  # file managers leave these
# A full disk or quota, one that takes no file so large, or that may not be written any more.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_ABANDONED_S = 3600
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


@contextlib.contextmanager
def publish(out: str | os.PathLike[str], *, use_exchange: bool = True) -> Iterator[Path]:
    """Fill a directory and put it in place only if nothing went wrong.

    Parameters
    ----------
    out : path
        The directory to make or to replace; a link to a directory is followed.
    use_exchange : bool
        Swap old and new in one step where the system can; else rename twice.

    Yields
    ------
    Path
        An empty directory beside `out`, to be filled.

    Raises
    ------
    ConfigError
        If `out` cannot be written, another run is writing it, or it holds foreign files.
    DataError
        If the disk is full, or takes no such files.
    """
    target = _target(out)
    with _locked(target):
        with _prepared(target):
            _recover(target)
            _check_ours(target)
            new = target.with_name(f".{target.name}.new-{uuid.uuid4().hex}")
        try:
            with _prepared(target):
                new.mkdir()
            with _room(target, new):
                yield new
                _seal(new)
            with _stopping.held():
                _check_ours(target)
                _put_in_place(new, target, use_exchange=use_exchange)
                _stopping.leave("the new results are in place")
                _sync(target.parent)
        finally:
            with _stopping.held():
                # The unfinished tree, or after an exchange the old one.
                shutil.rmtree(new, ignore_errors=True)
                # Should it be all that is left, it goes back; if it cannot, the next run does it.
                with contextlib.suppress(OSError):
                    _recover(target)


@contextlib.contextmanager
def hold(out: str | os.PathLike[str]) -> Iterator[Path]:
    """Keep to oneself a directory in which the results of many fields gather.

    Parameters
    ----------
    out : path
        The directory, made if absent. Each field's own is to be filled by `publish`.

    Yields
    ------
    Path
        The directory, links followed.

    Raises
    ------
    ConfigError
        If `out` cannot be written, another run is writing it, it holds the results of a single
        run, or tables of other origin that would be overwritten.
    """
    target = _target(out)
    with _locked(target):
        _recover(target)
        try:
            target.mkdir(exist_ok=True)
        except OSError as err:
            raise _not_writable(target, err) from err
        _drop_half_files(target)
        ours = _ours(target)
        if ours - set(BATCH_TABLES):
            raise ConfigError(
                f"output {str(target)!r} holds the results of a single run; name another directory"
            )
        foreign = [name for name in BATCH_TABLES if (target / name).exists() and name not in ours]
        if foreign:
            raise _not_ours(target, foreign[0])
        lines = "".join(f"{name}\n" for name in BATCH_TABLES)
        _stopping.leave("what is finished stays, and the same command goes on from there")
        write_then_rename(target / MARKER, lambda path: Path(path).write_text(lines, "utf-8"))
        yield target


@contextlib.contextmanager
def _prepared(target: Path) -> Iterator[None]:
    """Say what keeps a directory from being written, before anything is computed."""
    try:
        yield
    except OSError as err:
        raise _not_writable(target, err) from err


@contextlib.contextmanager
def _room(target: Path, new: Path) -> Iterator[None]:
    """Say that a disk is full, and where; the unfinished directory has a name of no interest."""
    try:
        yield
    except OSError as err:
        if err.errno not in _NO_ROOM:
            raise
        name = os.fspath(err.filename or "").removeprefix(f"{new}{os.sep}")
        what = f"{name}: {err.strerror}" if name else err.strerror
        raise DataError(
            f"output {str(target)!r} cannot be written ({what}); free some space, or name another "
            "directory. What was there is as it was"
        ) from err


def _not_writable(target: str | os.PathLike[str], err: OSError) -> ConfigError:
    return ConfigError(
        f"output {os.fspath(target)!r} cannot be written ({err.strerror}); name another directory"
    )


def _drop_half_files(folder: Path) -> None:
    """Remove what a killed `write_then_rename` left of the files of a batch."""
    names = "|".join(map(re.escape, (*BATCH_TABLES, MARKER)))
    unfinished = re.compile(rf"\.(?:{names})\.new-[0-9a-f]{{32}}(?:\.csv)?")
    for entry in folder.iterdir():
        if unfinished.fullmatch(entry.name):
            entry.unlink(missing_ok=True)


def settle(out: Path) -> None:
    """Finish or undo what a killed run left of a directory, unless a run is writing it now.

    Parameters
    ----------
    out : path
        A directory that `publish` filled, or was filling.
    """
    with contextlib.suppress(ConfigError), _locked(out):
        _recover(out)


def is_complete(folder: Path) -> bool:
    """Tell whether everything that was published in a directory is still there.

    Parameters
    ----------
    folder : path
        The directory.

    Returns
    -------
    bool
    """
    ours = _ours(folder)
    return bool(ours) and all(os.path.lexists(folder / name) for name in ours)


def write_then_rename(target: Path, write: Callable[[str], Any]) -> None:
    """Write a file beside its target and rename it, so that no half a file is ever seen.

    Parameters
    ----------
    target : path
        The file to make or to replace.
    write : callable
        Gets the path of the file to write, which has the suffix of `target`.
    """
    write_together({target: write})


def write_together(files: Mapping[Path, Callable[[str], Any]]) -> None:
    """Write files that belong together: all are whole before the first is renamed.

    Parameters
    ----------
    files : mapping
        What `write_then_rename` takes, for each file.
    """
    renamed = {
        target.with_name(f".{target.name}.new-{uuid.uuid4().hex}{target.suffix}"): target
        for target in files
    }
    try:
        for temporary, target in renamed.items():
            _drop_abandoned(target)
            files[target](str(temporary))
            _sync(temporary)
        with _stopping.held():
            for temporary, target in renamed.items():
                os.replace(temporary, target)
            _stopping.leave("every file that was written is whole")
    finally:
        with _stopping.held():
            for temporary in renamed:
                temporary.unlink(missing_ok=True)


def _drop_abandoned(target: Path) -> None:
    """Remove what a killed process left beside a file, once nobody can be writing it any more."""
    name, suffix = re.escape(target.name), re.escape(target.suffix)
    unfinished = re.compile(rf"\.{name}\.new-[0-9a-f]{{32}}{suffix}")
    with contextlib.suppress(OSError):
        for entry in target.parent.iterdir():
            if unfinished.fullmatch(entry.name):
                if time.time() - entry.stat().st_mtime > _ABANDONED_S:
                    entry.unlink()


def _target(out: str | os.PathLike[str]) -> Path:
    """Follow links and make the parent directory."""
    name = os.fspath(out)
    try:
        target = Path(os.path.realpath(out))
        if target == target.parent:
            raise ConfigError(f"output {name!r} is the root directory; name another one")
        if target.is_symlink():  # links were followed, so this one leads back to itself
            raise ConfigError(f"output {name!r} is a link to itself; name a directory")
        if target.exists() and not target.is_dir():
            raise ConfigError(f"output {name!r} is a file; name a directory")
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise ConfigError(
            f"output {name!r} cannot be made ({err.strerror}); name another directory"
        ) from err
    return target


def _old(target: Path) -> Path:
    """Name the place of the old tree between two renames."""
    return target.with_name(f".{target.name}.old-stemdisp")


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Hold the lock beside `target`; the lock file stays, as deleting it would be a race."""
    try:
        stream = open(target.with_name(f".{target.name}.lock"), "a+")
    except OSError as err:
        raise _not_writable(target, err) from err
    with stream:
        try:
            _lock(stream.fileno())
        except OSError as err:
            raise ConfigError(
                f"another run is writing to {str(target)!r}; wait for it or name another directory"
            ) from err
        yield


def _lock(descriptor: int) -> None:
    """Take an exclusive lock at once or raise OSError; it ends with the process."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _recover(target: Path) -> None:
    """Clean up after a run that was killed: undo half a replacement, drop unfinished trees."""
    old = _old(target)
    if old.exists():
        if target.exists():
            shutil.rmtree(old)
        else:
            old.rename(target)
    unfinished = re.compile(re.escape(f".{target.name}.new-") + "[0-9a-f]{32}")
    for entry in target.parent.iterdir():
        if unfinished.fullmatch(entry.name):
            shutil.rmtree(entry, ignore_errors=True)


def _check_ours(target: Path) -> None:
    """Refuse what is no directory, or holds anything which stemdisp did not write."""
    if target.exists() and not target.is_dir():
        raise ConfigError(f"output {str(target)!r} is a file; name a directory")
    ours = _ours(target)
    if "fields.csv" in ours:
        raise ConfigError(
            f"output {str(target)!r} holds the results of many fields; name another directory"
        )
    foreign = sorted(_files_in(target) - ours - {MARKER})
    if foreign:
        raise _not_ours(target, foreign[0])


def _ours(folder: Path) -> set[str]:
    """Read the list of what stemdisp wrote into a directory."""
    marker = folder / MARKER
    # a damaged list names nothing that is there, so that all is foreign
    text = marker.read_text(encoding="utf-8", errors="replace") if marker.is_file() else ""
    return set(text.splitlines())


def _not_ours(target: Path, name: str) -> ConfigError:
    return ConfigError(
        f"output {str(target)!r} holds {name!r}, which stemdisp did not write; "
        "move it away or name another directory"
    )


def _files_in(folder: Path) -> set[str]:
    """List what would be lost with a directory: its files, links and empty directories."""
    return {
        entry.relative_to(folder).as_posix()
        for entry in folder.rglob("*")
        if entry.name not in _NOT_OURS_TO_MIND and (entry.is_symlink() or not entry.is_dir())
    }


def _seal(new: Path) -> None:
    """Write the list of files and force everything to the disk."""
    names = "".join(f"{name}\n" for name in sorted(_files_in(new)))
    (new / MARKER).write_text(names, encoding="utf-8")
    for folder, _, files in os.walk(new, topdown=False):
        for name in files:
            _sync(Path(folder, name))
        _sync(Path(folder))


def _sync(path: Path) -> None:
    """Force one file or directory to the disk."""
    if path.is_dir() and sys.platform == "win32":
        return  # directories cannot be synchronised there
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        # some network file systems cannot do it with directories, whose files are safe by then
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def _put_in_place(new: Path, target: Path, *, use_exchange: bool) -> None:
    """Make `new` appear at `target`; afterwards `new` or the old name holds the old tree."""
    if not target.exists():
        new.rename(target)
        return
    if use_exchange and _exchange(new, target):
        return
    old = _old(target)
    target.rename(old)
    try:
        new.rename(target)
    except OSError:
        old.rename(target)
        raise


def _exchange(a: Path, b: Path) -> bool:
    """Swap two directories in one step (Linux); say whether the system could."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    return rename(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0
