"""Prepare the process (one thread, one core), then measure."""

import os

from benchmarks import THREADS

# Before numpy is loaded.
for _name in THREADS:
    os.environ[_name] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")

from benchmarks.cli import main  # noqa: E402

if __name__ == "__main__":
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    main(prog_name="python -m benchmarks")
