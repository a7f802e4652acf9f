"""Good files of every format that is read, small or with a crystal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
from _written_files import write_dm3, write_dm4, write_emd, write_mrc, write_ser, write_velox
from _written_files import write_zspy as write_store

SHAPE = (40, 48)


def noise(shape: tuple[int, ...] = SHAPE, *, seed: int = 0) -> np.ndarray:
    """Give an image of nothing: too small to be analysed, so that every run of it ends soon."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def write_hspy(
    path: Path,
    data: np.ndarray,
    *,
    scale: tuple[float, ...] = (0.15, 0.15),
    units: tuple[str, ...] = ("Å", "Å"),
) -> Path:
    """Write HyperSpy's HDF5 with x and y calibrated."""
    from hyperspy.signals import Signal2D

    signal = Signal2D(data)
    with np.errstate(invalid="ignore"):  # of pixel sizes that are none
        for axis, size, unit in zip(signal.axes_manager.signal_axes, scale, units, strict=True):
            axis.scale, axis.units = size, unit
        signal.save(str(path), overwrite=True)
    return path


def _npy(path: Path, data: np.ndarray) -> Path:
    np.save(path, data)
    return path


def _tif(path: Path, data: np.ndarray) -> Path:
    tifffile.imwrite(path, data, photometric="minisblack")
    return path


def _frames(data: np.ndarray) -> np.ndarray:
    return data if data.ndim == 3 else data[None]


# name of the format -> suffix, and what writes an image
FORMATS: dict[str, tuple[str, Callable[[Path, np.ndarray], Path]]] = {
    "hspy": ("hspy", write_hspy),
    "zspy": ("zspy", lambda path, data: write_store(path, data)),
    "emd": ("emd", lambda path, data: write_emd(path, {"a": data})),
    "velox": ("emd", lambda path, data: write_velox(path, {"iDPC": data})),
    "dm3": ("dm3", lambda path, data: write_dm3(path, {"a": data})),
    "dm4": ("dm4", lambda path, data: write_dm4(path, {"a": data})),
    "tif": ("tif", _tif),
    "mrc": ("mrc", lambda path, data: write_mrc(path, _frames(data))),
    "ser": ("ser", write_ser),
    "npy": ("npy", _npy),
}


def write(kind: str, folder: Path, data: np.ndarray, *, stem: str = "image") -> Path:
    """Write an image in a format."""
    suffix, writer = FORMATS[kind]
    return writer(folder / f"{stem}.{suffix}", data)


def main_file(path: Path) -> Path:
    """Give the file that holds the values: of a store, the piece of its array."""
    if not path.is_dir():
        return path
    return path / "Experiments/__unnamed__/data/0/0"
