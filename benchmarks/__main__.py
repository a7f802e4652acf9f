"""Prepare the process (one thread, one core), then measure."""

from benchmarks import confine

if __name__ == "__main__":
    confine()
    from benchmarks.cli import main

    main(prog_name="python -m benchmarks")
