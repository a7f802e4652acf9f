"""What a file is, by its first bytes, and how much data it declares to hold.

Nothing is read here but headers, and nothing allocated for what they declare.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

from stemdisp._stores import is_store
from stemdisp.errors import DataError

MAX_BYTES = 8 * 2**30  # declared size of what is read at once: a file, or one image of a lazy one
MOST_BYTES = 2**40  # of a lazy one
LARGE_BYTES = 200 * 10**6  # of which nobody wants to wait to look at the values

FORMATS = {
    "hspy": "HyperSpy HDF5",
    "zspy": "HyperSpy zarr",
    "emd": "EMD",
    "digitalmicrograph": "DigitalMicrograph",
    "tiff": "TIFF",
    "mrc": "MRC",
    "tia": "TIA series",
    "numpy": "NumPy",
}

READABLE = ".hspy, .zspy, .hdf5 (HyperSpy), .emd, .dm3, .dm4, .tif, .mrc, .ser, .npy"

_ZIPPED = (
    "is no zspy directory; zipped stores are not read, so open it in HyperSpy and save it as .hspy"
)

_MRC_BYTES = {0: 1, 1: 2, 2: 4, 3: 4, 4: 8, 6: 2, 12: 2, 16: 3}


@dataclass(frozen=True)
class Found:
    """What a file is.

    Attributes
    ----------
    name : str
        A key of `FORMATS`.
    declared_bytes : int
        Of all values.
    pieces_missing, pieces : int
        How many pieces (chunks) of its images were never written, of how many; they read as
        zeros.
    """

    name: str
    declared_bytes: int
    pieces_missing: int = 0
    pieces: int = 0


def check_is_file(path: str) -> None:
    """Refuse what is not a readable regular file, by name.

    Parameters
    ----------
    path : str
        The file, or a directory that is a store.

    Raises
    ------
    DataError
        If there is nothing to be read.
    """
    try:
        state = Path(path).stat()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the path") from None
    except (OSError, ValueError) as err:
        reason = getattr(err, "strerror", None) or str(err)
        raise DataError(
            f"{path}: cannot be opened ({reason}); check the path and its permissions"
        ) from err
    if stat.S_ISDIR(state.st_mode) and not is_store(path):
        raise DataError(f"{path}: is a directory; name the image files in it")
    if not stat.S_ISREG(state.st_mode) and not stat.S_ISDIR(state.st_mode):
        raise DataError(f"{path}: is not a regular file; copy the data into a file")
    if not os.access(path, os.R_OK):
        raise DataError(
            f"{path}: cannot be opened ({os.strerror(errno.EACCES)}); check its permissions"
        )
    if state.st_size == 0:
        raise DataError(f"{path}: is empty; copy or export it again")


def find_format(path: str, *, max_bytes: int = MAX_BYTES) -> Found:
    """Tell the format from the first bytes, and how many bytes of data the file declares.

    Parameters
    ----------
    path : str
        A file, or a directory that is a store.
    max_bytes : int
        What may be read at once.

    Returns
    -------
    Found

    Raises
    ------
    DataError
        If the file is of an unknown kind, damaged, or reaches outside itself.
    """
    if Path(path).is_dir():
        from stemdisp._zarrscan import scan_zspy

        return Found("zspy", scan_zspy(path, max_bytes=max_bytes))
    with open(path, "rb") as stream:
        head = stream.read(1024)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        from stemdisp._hdf5scan import scan_hdf5

        return Found(*scan_hdf5(path))
    if head.startswith(b"\x93NUMPY"):
        return Found("numpy", _npy_bytes(path))
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        from stemdisp._tiff import check_tiff

        return Found("tiff", check_tiff(path))
    return _by_header(head, Path(path).suffix.lower(), Path(path).stat().st_size)


def _npy_bytes(path: str) -> int:
    """Return the size of a mapped array; what would need to be unpickled is refused."""
    import numpy as np

    return np.load(path, mmap_mode="r", allow_pickle=False).nbytes


def _by_header(head: bytes, suffix: str, size: int) -> Found:
    """Tell the formats whose data are as large as the file."""
    if head[:4] == b"II\x97\x01":
        if suffix != ".ser":
            raise DataError("is a TIA series but not called .ser; rename it")
        return Found("tia", size)
    if _is_dm(head):
        return Found("digitalmicrograph", size)
    if head[208:211] == b"MAP" or (suffix in (".mrc", ".rec", ".st") and len(head) == 1024):
        _check_mrc(head, size)
        return Found("mrc", size)
    if suffix == ".zspy":
        raise DataError(_ZIPPED)
    if suffix == ".emi":
        raise DataError("holds no image itself; name the .ser file beside it")
    raise DataError(
        f"is not of a kind that is read ({READABLE}), or it is damaged; "
        "open it in HyperSpy and save it as .hspy"
    )


def _is_dm(head: bytes) -> bool:
    """Tell DigitalMicrograph 3 and 4 by version and byte-order words."""
    if len(head) < 16:
        return False
    version = int.from_bytes(head[:4], "big")
    order = {3: head[8:12], 4: head[12:16]}.get(version, b"\xff")
    return int.from_bytes(order, "big") in (0, 1)


def _check_mrc(head: bytes, file_size: int) -> None:
    """Compare the size that an MRC header declares with the file's (the reader does not)."""
    order = ">" if head[212:214] == b"\x11\x11" else "<"
    nx, ny, nz, mode = struct.unpack(f"{order}4i", head[:16])
    (extra,) = struct.unpack(f"{order}i", head[92:96])
    width = _MRC_BYTES.get(mode)
    if min(nx, ny, nz) < 1 or extra < 0 or width is None:
        raise DataError("has an MRC header that makes no sense; copy or export it again")
    if 1024 + extra + nx * ny * nz * width > file_size:
        raise DataError("is shorter than its MRC header says; copy or export it again")
    if order == ">":
        raise DataError("is an MRC file in big-endian order; convert it to little-endian")
