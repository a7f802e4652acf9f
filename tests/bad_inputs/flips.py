"""Files of every format in which single bits are turned over.

None of the formats but the pieces of a zspy store has a checksum, so most turned bits are pixels
that nobody can know to be wrong. What can be asked: one line or results, no crash, and no endless
reading. The image is too small for an analysis, so that every run ends with 3.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from bad_inputs import Call, case
from bad_inputs.formats import FORMATS, main_file, noise, write
from bad_inputs.warm import crystal

TIMES = 12
BITS = 3
HEAD = 2048  # bytes in which half of the cases turn their bits


def _flip(kind: str, number: int) -> None:
    @case(
        f"flip/{kind}: {number}",
        3,
        r"no lattice|constant|px|damaged|shorter|no sense|not of a kind|holds|has |incomp|GiB",
        r"[Cc]opy|export|save|name|give|crop|[Cc]heck|open|are needed|the least",
        names_file=False,
        slow=number % 6 > 0,
    )
    def make(folder: Path) -> Call:
        path = write(kind, folder, noise())
        file = main_file(path)
        if kind == "zspy" and number % 2:
            file = path / "Experiments/__unnamed__/data/.zarray"
        whole = bytearray(file.read_bytes())
        rng = np.random.default_rng([number, len(kind), *kind.encode()])
        end = min(HEAD, len(whole)) if number < TIMES // 2 else len(whole)
        for place in rng.integers(0, end, BITS):
            whole[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(whole)
        return Call((path,))


for _kind in FORMATS:
    for _number in range(TIMES):
        _flip(_kind, _number)


def _crystal_flip(kind: str, number: int) -> None:
    """Turn bits in an image that can be analysed: no number may change without a warning."""

    def check(output: Path) -> None:
        summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
        decay = summary["decay"] or {}
        off = abs((decay.get("delta0_A") or 0.0) - TRUE_A)
        assert off < 4 * (decay.get("delta0_err_A") or 0.0) + 0.02 or summary["warnings"], decay

    @case(
        f"flip/{kind}: a crystal, {number}",
        (0, 3),
        ".",
        r"[Cc]opy|export|save|name|give|crop|[Cc]heck|open|are needed|the least|is needed|[Ss]et",
        names_file=False,
        check=check,
        slow=True,
    )
    def make(folder: Path) -> Call:
        data = crystal()
        path = write(kind, folder, data[::-1] if kind == "ser" else data)
        file = main_file(path)
        whole = bytearray(file.read_bytes())
        rng = np.random.default_rng([number, *kind.encode()])
        for place in rng.integers(0, len(whole), 20):
            whole[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(whole)
        return Call((path,), "[input]\npixel_size = 0.15\n")


TRUE_A = 0.54
for _kind in FORMATS:
    for _number in range(2):
        _crystal_flip(_kind, _number)
