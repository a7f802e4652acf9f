"""Speed and accuracy of stemdisp, measured: see README.md."""

import os

# The variables that limit the threads of numerical libraries, which read them when loaded.
THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


def confine() -> None:
    """Keep this process, and those that it starts, to one thread on one core; call before numpy."""
    for name in THREADS:
        os.environ[name] = "1"
    os.environ.setdefault("MPLBACKEND", "Agg")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
