"""Room for images, laid out for the caches of processors."""

from __future__ import annotations

import numpy as np

LINE = 16  # pixels of single precision in a line of a cache
HUGE = 1 << 21  # bytes of the pages in which systems hand out large pieces of memory


def image_room(shape: tuple[int, ...], *, apart: bool = False) -> np.ndarray:
    """Give room for an image of single precision; what is in it is anything.

    Large images begin where a large page may: the system then clears a few large pages instead
    of a thousand small ones.

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
    if 4 * size < HUGE:
        return np.empty((ny, nx), np.float32)
    room = np.empty(size + HUGE // 4, np.float32)
    begin = -room.ctypes.data % HUGE // 4
    return room[begin : begin + size].reshape(ny, nx)
