"""The errors that a user can cause, each with the exit status it leads to."""

from __future__ import annotations

import errno

from stemdisp._printable import one_line

_FULL = {errno.ENOSPC, errno.EDQUOT} if hasattr(errno, "EDQUOT") else {errno.ENOSPC}
_REMEDIES = {
    errno.EACCES: "check the permissions",
    errno.EPERM: "check the permissions",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close other programs, or raise the limit of open files",
    errno.ENOMEM: "close other programs, or crop the data",
    errno.EIO: "check the disk, or copy the files to another one",
    errno.EROFS: "name another place",
}


class StemdispError(Exception):
    """Base of all errors that are meant for the user: one line, what, where and what to do."""

    exit_status = 1


class ConfigError(StemdispError):
    """The command line or the configuration is wrong."""

    exit_status = 2


class DataError(StemdispError):
    """The data cannot be read, or they do not support the analysis."""

    exit_status = 3


def explain(error: Exception) -> tuple[str, int]:
    """Say in one line what went wrong, and with which exit status.

    Parameters
    ----------
    error : Exception
        Any; what is neither meant for the user nor the system's is a defect of stemdisp.

    Returns
    -------
    text : str
        One line.
    status : int
        1 for a defect.
    """
    if isinstance(error, StemdispError):
        text, status = str(error), error.exit_status
    elif is_full_disk(error):
        name = getattr(error, "filename", None)
        where = f" ({name})" if name else ""
        text, status = f"the disk is full{where}; make room, or write elsewhere, and run again", 3
    elif isinstance(error, OSError):
        text, status = f"{error.filename or 'a file'}: {error.strerror or error}", 3
        if error.errno is not None:  # the system's own, not one that only calls itself so
            text += f"; {_REMEDIES.get(error.errno, 'check the path')}"
    else:
        text, status = f"internal error: {type(error).__name__}: {error}", 1
    return one_line(text), status


def is_full_disk(error: BaseException) -> bool:
    """Tell whether an error comes from a full disk, or a quota that is used up.

    Parameters
    ----------
    error : BaseException
        Any; libraries wrap that of the system, or only quote it.

    Returns
    -------
    bool
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _FULL:
            return True
        if "No space left on device" in str(seen) or "Disk quota exceeded" in str(seen):
            return True
        seen = seen.__cause__
    return False
