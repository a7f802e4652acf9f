"""A home for libraries: HyperSpy, dask and matplotlib read settings there, or write them.

HyperSpy cannot be imported where HOME cannot be written, or where its preferences are damaged;
dask and matplotlib stumble over damaged settings of their own. None of them is needed for a run,
and a report looks the same whatever the user's settings of matplotlib are.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stemdisp.errors import ConfigError

# The modules that read settings when they are imported.
_READERS = ("hyperspy.defaults_parser", "dask.config", "matplotlib")


@contextmanager
def usable_home() -> Iterator[None]:
    """Import what reads settings in HOME; where that fails, with an empty HOME until the end.

    Raises
    ------
    ConfigError
        Settings of a library, outside HOME, are damaged.
    """
    if _failure() is None:
        _plain_figures()
        yield
        return
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="stemdisp-home-", ignore_cleanup_errors=True) as home:
        for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR"):
            os.environ.pop(name, None)
        settings = Path(home, "matplotlibrc")
        settings.touch()
        os.environ |= {"HOME": home, "USERPROFILE": home, "MATPLOTLIBRC": str(settings)}
        try:
            failure = _failure()
            if failure is not None:
                raise ConfigError(f"{failure}; mend or remove them")
            _plain_figures()
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def _failure() -> str | None:
    """Import what reads settings; say what fails, and leave nothing half imported."""
    for name in _READERS:
        loaded = set(sys.modules)
        try:
            importlib.import_module(name)
        except ImportError:
            raise
        except Exception as err:  # noqa: BLE001 - each library has its own for damaged files
            package = name.partition(".")[0]
            for new in set(sys.modules) - loaded:
                if new.partition(".")[0] == package:
                    del sys.modules[new]
            text = " ".join(str(err).split())
            return f"the settings of {package} cannot be used ({type(err).__name__}: {text})"
    return None


def _plain_figures() -> None:
    """Forget what a file says about figures; which windows there are stays."""
    import matplotlib as mpl

    mpl.rcdefaults()
