"""Small files that a user writes beside the data: read whole and within limits, or refused."""

from __future__ import annotations

import stat
from pathlib import Path

MOST_BYTES = 16 * 2**20  # no configuration, structure or table is so long


def read_small(path: Path, what: str = "file") -> bytes:
    """Read a small file; never wait for one that is a pipe, nor read on without end.

    Parameters
    ----------
    path : Path
        The file.
    what : str
        What it should be, for the message where there is none.

    Returns
    -------
    bytes
        Its content.

    Raises
    ------
    ValueError
        In words that follow the name of the file: it is not there, not a regular file, too
        large, or cannot be read.
    """
    try:
        state = path.stat()
        if stat.S_ISDIR(state.st_mode):
            raise ValueError("is a directory; name a file in it")
        if not stat.S_ISREG(state.st_mode):
            raise ValueError("is not a regular file; copy what it gives into a file, and name that")
        if state.st_size > MOST_BYTES:
            raise ValueError(
                f"holds {state.st_size / 2**20:.0f} MiB, more than the {MOST_BYTES >> 20} MiB that "
                "are read; check that it is the file you mean"
            )
        with path.open("rb") as stream:
            return stream.read(MOST_BYTES)
    except FileNotFoundError as err:
        raise ValueError(f"no such {what}; check the path") from err
    except OSError as err:
        raise ValueError(
            f"cannot be read ({err.strerror or err}); check the path and its permissions"
        ) from err
