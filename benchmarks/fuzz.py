"""Coverage-guided fuzzing of the readers, with atheris (libFuzzer): see README.md.

    python -m benchmarks.fuzz all --seconds 3600 --corpus FOLDER --write
    python -m benchmarks.fuzz config --seconds 60 --corpus FOLDER

Each target runs in a process of its own. A finding does not stop it: every kind (exception and
place) is kept once, with the shortest input that gives it, in FOLDER/findings.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import platform
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

SLOW_S = 2.0  # processor time of one input
MORE_MIB = 500  # by which one input raises the most memory that was ever used
PAGE = Path(__file__).resolve().parent.parent / "docs" / "reliability.md"
MARKS = ("<!-- fuzz: begin -->", "<!-- fuzz: end -->")
# Their loops are compiled from bytecode, which must stay as it is.
_COMPILED = [
    f"stemdisp._{name}"
    for name in "conjugate ellipse kernels pairs render small steps summed windows".split()
]
_NUMBER = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?")
_SPANS = re.compile(rb"[\w.+-]+|[\"'][^\"'\n]*[\"']|\s+|.", re.DOTALL)


class Findings:
    """What went wrong, each kind once, with its shortest input."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        folder.mkdir(parents=True, exist_ok=True)
        self.sizes: dict[str, int] = {}

    def keep(self, data: bytes, kind: str, text: str) -> None:
        """Write the input and what it led to, unless a shorter one is known."""
        if len(data) >= self.sizes.get(kind, sys.maxsize):
            return
        self.sizes[kind] = len(data)
        stem = f"{self.name}-{hashlib.sha256(kind.encode()).hexdigest()[:10]}"
        (self.folder / f"{stem}.bin").write_bytes(data)
        (self.folder / f"{stem}.txt").write_text(
            f"{kind}\n\n{text[-4000:]}", "utf-8", "backslashreplace"
        )


def kind_of(err: BaseException) -> str:
    """Name an exception and the innermost line of stemdisp in it."""
    frames = traceback.extract_tb(err.__traceback__)
    ours = [f for f in frames if "/stemdisp/" in f.filename] or frames
    place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
    words = re.sub(r"[0-9]+", "0", str(err))[:40] if type(err).__name__ == "Broken" else ""
    return f"{type(err).__name__} at {place} {words}".strip()


def mutate(data: bytes, max_size: int, rng: random.Random, tokens: list[bytes]) -> bytes:
    """Change a text as a text: words, lines, numbers and pieces of it."""
    parts = [m.group() for m in _SPANS.finditer(data)] or [b""]
    for _ in range(rng.randint(1, 3)):
        k = rng.randrange(len(parts))
        how = rng.randrange(8)
        if how == 0:
            parts[k] = rng.choice(tokens)
        elif how == 1:
            parts.insert(k, rng.choice(tokens))
        elif how == 2:
            end = min(len(parts), k + rng.randint(1, 8))
            parts[k:end] = [b""]
        elif how == 3:
            end = min(len(parts), k + rng.randint(1, 12))
            parts[k:k] = parts[k:end] * rng.choice((1, 1, 2, 50))
        elif how == 4:
            other = rng.randrange(len(parts))
            parts[k], parts[other] = parts[other], parts[k]
        elif how == 5:
            numbers = [j for j, part in enumerate(parts) if _NUMBER.fullmatch(part)] or [k]
            parts[rng.choice(numbers)] = rng.choice(
                (b"0", b"-1", b"1e309", b"nan", b"0.5", b"4294967296", b"1e-320", b"9" * 25)
            )
        elif how == 6:
            parts[k] = b'"' + rng.choice(tokens) + b'"'
        else:
            after = [j for j, part in enumerate(parts[:-2]) if part in (b"=", b":", b",")] or [0]
            j = rng.choice(after)
            wrap = rng.choice((b"", b'"', b"'"))
            parts[j + 1 : j + 3] = [b" " + wrap + rng.choice(tokens) + wrap]
    return b"".join(parts)[:max_size]


def child(name: str, seconds: int, corpus: Path, seed: int) -> None:
    """Fuzz one target for so many seconds of processor time, and end the process."""
    import atheris

    with atheris.instrument_imports(include=["stemdisp", "tomllib"], exclude=_COMPILED):
        from benchmarks.fuzz_targets import TARGETS
    target = TARGETS[name]
    found = Findings(corpus / "findings", name)
    own = corpus / name
    own.mkdir(parents=True, exist_ok=True)
    for k, data in enumerate(target.seeds()):
        (own / f"seed-{k}").write_bytes(data)
    tokens = [token.encode("utf-8", "surrogateescape") for token in target.tokens]
    words = corpus / f"{name}.dict"
    escaped = ["".join(f"\\x{byte:02x}" for byte in token) for token in tokens if token]
    words.write_text("".join(f'"{token}"\n' for token in escaped))
    work = Path(
        tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    )
    (work / "a" / "b").mkdir(parents=True)
    os.chdir(work / "a" / "b")
    count, start = [0], time.process_time()
    run = partial(_seconds, target, work / "a" / "b", found)

    def one(data: bytes) -> None:
        count[0] += 1
        # The fuzzer itself grows by the hour, and stops now and then to tidy up.
        most = _rss_mib()
        if run(data) > SLOW_S and (took := run(data)) > SLOW_S:
            found.keep(data, "slow", f"{took:.1f} s")
        if _rss_mib() > most + MORE_MIB:
            found.keep(data, "memory", f"{most:.0f} MiB before, {_rss_mib():.0f} MiB after")
        # Processor time: on a busy machine an hour of the clock may be some minutes of work.
        used = time.process_time() - start
        if used > seconds:
            stats = {"executions": count[0], "seconds": used, "peak_MiB": _rss_mib()}
            (corpus / f"{name}.json").write_text(json.dumps(stats))
            os._exit(0)  # libFuzzer itself knows the clock only

    def change(data: bytes, max_size: int, number: int) -> bytes:
        rng = random.Random(number)
        if rng.random() < 0.5:
            return atheris.Mutate(data, max_size)
        return mutate(data, max_size, rng, tokens)

    limits = [f"-max_len={target.max_len}", f"-dict={words}"]
    limits += [f"-seed={seed}", "-timeout=30", "-rss_limit_mb=4000"]
    limits += [f"-artifact_prefix={corpus / 'findings' / name}-stopped-", str(own)]
    atheris.Setup([sys.argv[0], *limits], one, custom_mutator=change)
    atheris.Fuzz()


def _seconds(target: Any, folder: Path, found: Findings, data: bytes) -> float:
    """Run one input, keep what goes wrong, and give the processor time."""
    from benchmarks.fuzz_targets import check

    before = time.thread_time()
    try:
        check(target, data, folder)
    except BaseException as err:
        if isinstance(err, KeyboardInterrupt):
            raise
        found.keep(data, kind_of(err), traceback.format_exc())
    return time.thread_time() - before


def _rss_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_target(name: str, seconds: int, corpus: Path, seed: int) -> dict[str, Any]:
    """Run one target in a process of its own and read its figures."""
    command = [sys.executable, "-m", "benchmarks.fuzz", name, "--child"]
    command += ["--seconds", str(seconds), "--corpus", str(corpus), "--seed", str(seed)]
    book = corpus / f"{name}.json"
    book.unlink(missing_ok=True)
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    log = done.stderr
    (corpus / f"{name}.log").write_text(log, "utf-8", "backslashreplace")
    # not there if libFuzzer stopped it: a crash, or a hang
    stats = json.loads(book.read_text()) if book.exists() else {}
    seen = re.findall(r"cov: (\d+) ft: (\d+)", log) or [("0", "0")]
    findings = sorted(path.name for path in (corpus / "findings").glob(f"{name}-*.bin"))
    findings += sorted(path.name for path in (corpus / "findings").glob(f"{name}-stopped-*"))
    return {
        "target": name,
        "seconds": stats.get("seconds", 0.0),
        "executions": stats.get("executions", 0),
        "edges": int(seen[-1][0]),
        "features": int(seen[-1][1]),
        "version": _version(),
        "peak_MiB": round(stats.get("peak_MiB", 0)),
        "findings": findings,
        "status": done.returncode,
    }


def _version() -> str:
    """Name the state of the code."""
    call = ["git", "describe", "--always", "--dirty", "--abbrev=7"]
    return subprocess.run(call, capture_output=True, text=True).stdout.strip()


def page(rows: list[dict[str, Any]], targets: dict[str, Any]) -> str:
    """Write the table of the documentation."""
    lines = ["| reader | processor minutes | executions | per s | edges | features | findings |"]
    lines.append("|---|---|---|---|---|---|---|")
    for row in rows:
        rate = row["executions"] / max(row["seconds"], 1)
        lines.append(
            f"| `{row['target']}`: {targets[row['target']].what} | {row['seconds'] / 60:.1f} | "
            f"{row['executions']:,} | {rate:,.0f} | {row['edges']:,} | {row['features']:,} | "
            f"{len(row['findings'])} |"
        )
    total = sum(row["executions"] for row in rows)
    minutes = sum(row["seconds"] for row in rows) / 60
    found = sum(len(row["findings"]) for row in rows)
    lines.append(
        f"| together | {minutes:.0f} | {total:,} | {total / minutes / 60:,.0f} | | | {found} |"
    )
    made = f"{datetime.date.today():%d %B %Y}, Python {platform.python_version()}, atheris "
    return f"{made}{version('atheris')}, one process at a time.\n\n" + "\n".join(lines)


def main() -> None:
    """Fuzz one target, or all of them in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", help="of fuzz_targets.py: one, several joined by commas, or all")
    parser.add_argument("--seconds", type=int, default=60, help="of processor time, altogether")
    parser.add_argument("--corpus", type=Path, required=True, help="where inputs and findings go")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--write", action="store_true", help="put the table into docs/reliability.md"
    )
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    corpus = given.corpus.resolve()
    if given.child:
        child(given.target, given.seconds, corpus, given.seed)
        return
    from benchmarks.fuzz_targets import TARGETS

    names = list(TARGETS) if given.target == "all" else given.target.split(",")
    (corpus / "findings").mkdir(parents=True, exist_ok=True)
    book = corpus / "figures.json"  # those of earlier calls are kept
    rows = json.loads(book.read_text()) if book.exists() else {}
    for name in names:
        rows[name] = run_target(name, given.seconds // len(names), corpus, given.seed)
        print(json.dumps(rows[name]), flush=True)
        book.write_text(json.dumps(rows, indent=1))
    text = page([rows[name] for name in TARGETS if name in rows], TARGETS)
    print(text)
    if given.write:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(MARKS[0])
        after = rest.partition(MARKS[1])[2]
        PAGE.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
