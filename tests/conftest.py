import os
import sys
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("MPLBACKEND", "Agg")

try:
    import hypothesis
except ImportError:  # those tests are skipped
    pass
else:
    # the same examples on every machine, and no time limit for a machine that is busy
    hypothesis.settings.register_profile(
        "same", derandomize=True, deadline=None, max_examples=60, database=None
    )
    hypothesis.settings.load_profile("same")

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("STEMDISP_SHARED", ROOT.parent / "shared"))


@pytest.fixture(autouse=True)
def close_figures():
    """Leave no window of one test to the next."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def real_file():
    """Return a function: name of a published image -> its path, or skip."""

    def find(name: str) -> Path:
        path = SHARED / "data" / "real" / name
        if not path.is_file():
            pytest.skip(f"{path} is not there (set STEMDISP_SHARED)")
        return path

    return find


@pytest.fixture
def image():
    """A small image with different sides, so that swapped axes show."""
    return np.random.default_rng(0).normal(size=(24, 32)).astype(np.float32)


@pytest.fixture
def write_hspy(tmp_path):
    """Return a function that saves an array as .hspy with the given pixel size and unit."""
    from hyperspy.signals import Signal2D

    def write(name, data, *, scale=None, units=None, metadata=None):
        signal = Signal2D(data, metadata=metadata or {})
        if scale is not None:
            for axis, value in zip(signal.axes_manager.signal_axes, scale, strict=True):
                axis.scale, axis.units = value, units
        path = tmp_path / name
        signal.save(str(path), overwrite=True)
        return path

    return write
