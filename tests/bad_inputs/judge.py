"""Runs a case and holds its end against what the case states."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from bad_inputs import Call, Case
from bad_inputs.server import Server, snapshot
from stemdisp._publish import publish

SECONDS = 10.0  # of a processor
PATIENCE_S = 60.0  # of the clock: the machine may be busy
SPARE_BYTES = 500e6
SHARE = 1.5  # of the bytes that a file declares
LONGEST = 700  # characters of a message, without paths
OLD = {
    "report.html": "<title>old</title>\n",
    "summary.json": '{"old": true}\n',
    "figures/map.png": "picture",
    "columns.csv": "species\n",
}


@dataclass(frozen=True)
class End:
    """How one command ended."""

    command: str
    status: int
    stdout: str
    stderr: str
    wall_s: float
    cpu_s: float
    bytes: int
    killed: str
    left_processes: bool
    allowed_bytes: float


@lru_cache(maxsize=1)
def _old_results(base: Path) -> Path:
    """Publish results once, to be copied."""
    target = base / "old"
    with publish(target) as new:
        for name, text in OLD.items():
            (new / name).parent.mkdir(exist_ok=True)
            (new / name).write_text(text)
    return target


def run_case(case: Case, base: Path, server: Server) -> list[End]:
    """Make the files of a case, run its commands, and raise AssertionError at a broken promise.

    Parameters
    ----------
    case : Case
    base : Path
        A folder that every user may enter.
    server : Server

    Returns
    -------
    list of End
        One per command: "run", and "inspect" where the case asks for it.
    """
    folder = base / re.sub(r"[^A-Za-z0-9]+", "-", case.name)
    folder.mkdir(mode=0o755)
    try:
        return _run_in(case, folder, base, server)
    finally:
        os.system(f"chmod -R u+rwx '{folder}'") if os.geteuid() else None
        shutil.rmtree(folder, ignore_errors=True)


def _run_in(case: Case, folder: Path, base: Path, server: Server) -> list[End]:
    shutil.copytree(_old_results(base), folder / "out")
    call = case.make(folder)
    config = call.config
    if isinstance(config, str):
        config = folder / "settings.toml"
        config.write_text(call.config, encoding="utf-8")
    output = folder / "out" if call.output is None else call.output
    given = ["--input", *map(str, call.inputs)] if call.inputs else []
    arguments = ["run", str(config), *given, *call.options, "--output", str(output)]
    before = snapshot(folder)
    end = _command(case, arguments, folder, call, base, server)
    after = {k: v for k, v in snapshot(folder).items() if not k.startswith(("stdout", "stderr"))}
    ends = [end]
    _judge_limits(end, case)
    if end.status == 0:
        assert 0 in case.status, f"ended with 0, not {set(case.status)}:\n{end.stdout}"
        _judge_done(case, end, Path(call.work_in or folder, output))
    else:
        text = [str(config), *map(str, (*call.inputs, *call.names)), *call.options, str(output)]
        _judge_refusal(case, end, text, folder)
        changed = {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)}
        stray = {k for k in changed if not re.fullmatch(r"(.*/)?\.[^/]*\.lock", k)}
        assert not stray, f"changed or left behind: {sorted(stray)[:5]}"
    if case.inspect is not None:
        ends.append(_inspect(case, folder, call, base, server))
    return ends


def _inspect(case: Case, folder: Path, call: Call, base: Path, server: Server) -> End:
    """Look at the first input."""
    name = str(call.inputs[0])
    end = _command(case, ["inspect", name], folder, call, base, server)
    _judge_limits(end)
    assert end.status == case.inspect, f"inspect ended with {end.status}: {end.stderr}"
    if end.status == 0:
        assert end.stdout and end.stderr == "", end.stderr
    else:
        _judge_line(end)
        assert re.search(case.cause, end.stderr), f"inspect gives no cause: {end.stderr}"
    return end


def _command(
    case: Case, arguments: list[str], folder: Path, call: Call, base: Path, server: Server
) -> End:
    around = case.around
    allowed = SHARE * case.declared + SPARE_BYTES
    out, err = base / "stdout", base / "stderr"
    output = arguments[-1]
    job = {
        "arguments": arguments,
        "work_in": str(call.work_in or folder),
        "output": output,
        "old": str(_old_results(base)),
        "stdout": str(out),
        "stderr": str(err),
        "seconds": PATIENCE_S,
        "bytes": allowed + 1e9,
        "tables_only": not case.report,
        "unprivileged": around.unprivileged,
        "nowhere": around.nowhere,
        "disk": around.disk,
        "largest_file": around.largest_file,
        "fail_write": around.fail_write,
    }
    holder = (
        open(Path(output).with_name(f".{Path(output).name}.lock"), "a+")
        if around.hold_lock
        else None
    )
    try:
        if holder is not None:
            import fcntl

            fcntl.flock(holder, fcntl.LOCK_EX)
        found = server.run(job)
    finally:
        if holder is not None:
            holder.close()
    texts = [path.read_text("utf-8", "replace") if path.exists() else "" for path in (out, err)]
    for path in (out, err):
        path.unlink(missing_ok=True)
    return End(arguments[0], found.pop("status"), *texts, **found, allowed_bytes=allowed)


def _judge_limits(end: End, case: Case | None = None) -> None:
    """No hang, no crash, no traceback, bounded memory, nothing left running."""
    said = f"{end.stdout}\n{end.stderr}"
    assert not end.killed, f"killed for want of {end.killed} after {end.wall_s:.1f} s\n{said}"
    assert end.status in (0, 2, 3), f"status {end.status}\n{said}"
    assert "Traceback" not in said, said
    assert "internal error" not in said, said
    assert not end.left_processes, "left a process running"
    most = SECONDS if case is None or not case.report else 3 * SECONDS
    assert end.cpu_s <= most, f"took {end.cpu_s:.1f} s of a processor"
    assert end.bytes <= end.allowed_bytes, f"took {end.bytes / 1e6:.0f} MB"


def _judge_line(end: End) -> None:
    """A refusal is one line on stderr, nothing on stdout."""
    assert end.stdout == "", end.stdout
    assert end.stderr.startswith("stemdisp: "), end.stderr
    assert end.stderr.count("\n") == 1 and end.stderr.endswith("\n"), end.stderr
    assert end.stderr.isprintable() or all(
        sign.isprintable() or sign in "\n\ufffd" for sign in end.stderr
    ), repr(end.stderr)


def _judge_refusal(case: Case, end: End, names: list[str], folder: Path) -> None:
    assert end.status in case.status, f"status {end.status}, not {set(case.status)}: {end.stderr}"
    _judge_line(end)
    line = end.stderr.rstrip("\n").replace(f"{folder}/", "")
    assert re.search(case.cause, line), f"gives no cause ({case.cause!r}): {line}"
    assert re.search(case.remedy, line), f"gives no remedy ({case.remedy!r}): {line}"
    if case.names_file:
        parts = {Path(name.partition("::")[0]).name for name in names if name and name[0] != "-"}
        parts = {" ".join(part.split()) for part in parts if part not in ("", "..")}
        assert any(part in line for part in parts), f"names no file of {parts}: {line}"
    for name in sorted(names, key=len, reverse=True):
        line = line.replace(name, "") if name else line
    assert len(line) <= LONGEST, f"{len(line)} characters: {line}"


def _judge_done(case: Case, end: End, output: Path) -> None:
    """Results are there, old ones are gone, and the warnings are those that were stated."""
    assert end.stderr == "", end.stderr
    summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    assert "old" not in summary and not (output / "figures" / "map.png").exists()
    codes = {warning["code"] for warning in summary["warnings"]}
    assert codes >= case.warns, f"warns of {codes}, not of {set(case.warns)}"
    texts = " ".join(warning["message"] for warning in summary["warnings"]) + end.stdout
    assert re.search(case.says, texts), f"says nothing of {case.says!r}: {texts}"
    for code in codes:
        assert code in end.stdout or "warning" in end.stdout, end.stdout
    if case.check is not None:
        case.check(output)
