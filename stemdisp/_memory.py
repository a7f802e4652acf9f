"""Room for images, laid out for the caches of processors."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import as_strided

LINE = 16  # pixels of single precision in a line of a cache
KEPT = (32 << 20) - (64 << 10)  # bytes: just below the most that glibc would learn
HUGE = 1 << 21  # bytes of the pages in which systems hand out large pieces of memory


def _keep_freed_memory() -> None:
    """Let the C library keep what arrays up to 32 MiB leave, for the next ones.

    glibc learns from what it is given back (mallopt(3), on M_MMAP_THRESHOLD): until an array of
    some size has been freed, it returns the memory of such arrays to the system, which clears
    other pages for the next ones: a twentieth of the time of a fit. So free one that nobody has
    touched. Elsewhere, and where the user has chosen (MALLOC_TRIM_THRESHOLD_), nothing changes.
    """
    np.empty(KEPT, np.uint8)


_keep_freed_memory()


def image_room(shape: tuple[int, ...], *, apart: bool = False) -> np.ndarray:
    """Give room for an image of single precision; what is in it is anything.

    It begins where a line of a cache does. Large images begin where a large page may: the system
    then clears a few large pages instead of a thousand small ones.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns.
    apart : bool
        Let rows begin an odd number of cache lines after each other, by up to two lines of
        further columns. A cache finds a line by some bits of its address: rows of 1024
        px compete for the same few places, and the window of a column, some 40 rows high,
        would be fetched anew for every few columns of pixels.

    Returns
    -------
    ndarray of float32, shape (ny, nx or more)
    """
    ny, nx = shape
    if apart:
        nx = LINE * (-(-nx // LINE) | 1)
    size = ny * nx
    page = HUGE if 4 * size >= HUGE else 4 * LINE
    room = np.empty(size + page // 4, np.float32)
    begin = -room.ctypes.data % page // 4
    return room[begin : begin + size].reshape(ny, nx)


def in_one_line(image: np.ndarray) -> tuple[np.ndarray, int]:
    """Give an image as one row of pixels, and after how many of them its next row begins.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)

    Returns
    -------
    flat : ndarray of float32, shape (n,)
        A view, where the pixels of a row follow one another.
    gap : int
        Row j begins at ``flat[j * gap]``.
    """
    image = np.asarray(image, np.float32)
    ny, nx = image.shape
    if image.strides[1] != image.itemsize or image.strides[0] < 0:
        image = np.ascontiguousarray(image)
    gap = image.strides[0] // image.itemsize
    return as_strided(image, ((ny - 1) * gap + nx,), (image.itemsize,)), gap
