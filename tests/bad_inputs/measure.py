"""Counts: ``PYTHONPATH=.:tests python -m bad_inputs.measure [--fast | --slow]``.

Runs the corpus and prints how its commands ended, the longest time and the most memory.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

from bad_inputs import all_cases
from bad_inputs.judge import run_case
from bad_inputs.server import Server


def main() -> None:
    """Run every case, or the fast ones."""
    unwanted = {False: "--slow" in sys.argv, True: "--fast" in sys.argv}
    wanted = [case for case in all_cases().values() if not unwanted[bool(case.slow)]]
    server, ends, broken = Server(), [], []
    with tempfile.TemporaryDirectory(prefix="stemdisp-bad-") as folder:
        Path(folder).chmod(0o755)
        for case in wanted:
            try:
                ends += [(case.name, end) for end in run_case(case, Path(folder), server)]
            except AssertionError as error:
                broken.append(f"{case.name}: {' '.join(str(error).split())[:200]}")
    server.close()
    groups = Counter(case.name.partition(":")[0].partition("/")[0] for case in wanted)
    lines = [
        f"{len(wanted)} cases: {', '.join(f'{n} {group}' for group, n in groups.items())}",
        f"{len(ends)} commands ended as stated: "
        + ", ".join(f"{n} with {s}" for s, n in sorted(Counter(e.status for _, e in ends).items())),
    ]
    for what, unit, of in (
        ("processor", "s", lambda end: end.cpu_s),
        ("clock", "s", lambda end: end.wall_s),
        ("memory", "MB", lambda end: end.bytes / 1e6),
    ):
        name, end = max(ends, key=lambda item: of(item[1]))
        lines.append(f"most {what}: {of(end):.1f} {unit} ({end.command}, {name})")
    lines += [f"{len(broken)} broken", *broken]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
