"""Instructions of the fit, counted by valgrind: a measure that a busy machine does not change.

``python -m benchmarks.counted FOLDER`` fits under ``valgrind --tool=callgrind``; `count` starts it.
Counting is on only during the fits: the program itself tells callgrind, by the sequence of
instructions that ``valgrind.h`` defines as a request of a client (x86-64). Loops are compiled for
one plain processor (haswell), because valgrind knows no AVX-512 and so that machines agree.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

SIZE = 256
KINDS = ("white", "poisson", "idpc")
ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = 400

# rax: the request's words; rdx: the answer where there is no valgrind. The rotations leave rdi as
# it is and mean something to valgrind only.
_REQUEST = bytes.fromhex("4889f8 31d2 48c1c703 48c1c70d 48c1c73d 48c1c733 4887db 4889d0 c3")
_BASE = ord("C") << 24 | ord("T") << 16
DUMP_AS, START, STOP = _BASE + 3, _BASE + 4, _BASE + 5


class Uncounted(Exception):
    """Instructions cannot be counted here; the text says why."""


def why_not() -> str:
    """Say why nothing can be counted here; nothing where it can."""
    if platform.machine().lower() not in ("x86_64", "amd64") or os.name != "posix":
        return "only on x86-64 under Linux"
    if shutil.which("valgrind") is None:
        return "valgrind is not installed"
    info = Path("/proc/cpuinfo")
    if not info.is_file() or "avx2" not in info.read_text(encoding="ascii", errors="replace"):
        return "the processor has no AVX2"
    return ""


def count(*, work: tuple[str, ...] = ("-m", "benchmarks.counted")) -> dict[str, float]:
    """Give the millions of instructions of one fit for each kind of noise."""
    reason = why_not()
    if reason:
        raise Uncounted(reason)
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "NUMBA_CPU_NAME": "haswell",
            "NUMBA_CPU_FEATURES": "",
            "NUMBA_CACHE_DIR": str(ROOT / "results" / "bench" / "haswell"),
            "OPENBLAS_CORETYPE": "Haswell",
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(ROOT),
        }
        program = [sys.executable, *work, folder]
        _call(program, environment)  # draws the images, compiles
        options = ["--tool=callgrind", "--instr-atstart=no", "--combine-dumps=no"]
        options.append(f"--callgrind-out-file={folder}/count")
        _call(["valgrind", *options, *program], environment)
        found = {}
        for path in Path(folder).glob("count*"):
            text = path.read_text(encoding="utf-8", errors="replace")
            name = re.search(r"Trigger: Client Request: (\w+)", text)
            total = re.search(r"^totals: (\d+)", text, re.MULTILINE)
            if name and total:
                found[name[1]] = int(total[1]) / 1e6
    if set(found) != set(KINDS):
        raise Uncounted(f"valgrind wrote counts of {sorted(found) or 'nothing'} only")
    return {name: found[name] for name in KINDS}


def _call(command: list[str], environment: dict[str, str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=LIMIT_S, env=environment, cwd=ROOT
        )
    except subprocess.TimeoutExpired:
        raise Uncounted(f"{command[0]} took more than {LIMIT_S} s") from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        raise Uncounted(f"{Path(command[0]).name}: {lines[-1]}")


def requests() -> Callable[..., int]:
    """Give a function that makes a request of callgrind, and does nothing elsewhere."""
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(_REQUEST)
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    call = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)(address)

    def request(number: int, text: bytes = b"") -> int:
        held = ctypes.create_string_buffer(text)
        words = (ctypes.c_uint64 * 6)(number, ctypes.addressof(held))
        assert code is not None  # lives as long as this function
        return call(ctypes.addressof(words))

    return request


def main(folder: Path, fit: Callable | None = None) -> None:
    """Fit one image of each kind of noise; the first call of each is not counted."""
    import numpy as np
    import pandas as pd

    if not (folder / "white.npz").is_file():
        return _draw(folder, fit)
    from stemdisp.refine import refine_columns

    fit, request = fit or refine_columns, requests()
    for kind in KINDS:
        with np.load(folder / f"{kind}.npz") as held:
            image, pixel = held["image"], float(held["pixel_A"])
            starts = pd.DataFrame({k: held[k] for k in ("x_px", "y_px")})
            starts["species"] = held["species"].astype(object)
        fit(image, starts, pixel_size=pixel, noise=kind)
        request(START)
        fit(image, starts, pixel_size=pixel, noise=kind)
        request(DUMP_AS, kind.encode())
        request(STOP)
    return None


def _draw(folder: Path, fit: Callable | None) -> None:
    """Write the images by a process that is not counted, then compile."""
    from benchmarks import contest

    for kind in contest.KINDS:
        contest.write_scene(folder / f"{kind.noise}.npz", SIZE, kind, 0)
    main(folder, fit)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
