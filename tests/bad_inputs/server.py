"""Runs the command line again and again, each time in a process of its own: it forks.

Started as a program it imports what takes long, once, and has no threads. Then every line of its
input is a job in JSON, and every line of its output the end of one. The new process is the leader
of its own session, so that whatever it starts is seen, and killed, with it.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
import traceback
from pathlib import Path

MODULES = (
    "hyperspy.signals",
    "rsciio.hspy",
    "rsciio.emd",
    "rsciio.digitalmicrograph",
    "rsciio.tiff",
    "rsciio.mrc",
    "rsciio.tia",
    "rsciio.zspy",
    "zarr",
    "tifffile",
    "gemmi",
    "bokeh.plotting",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "dask.array",
    "stemdisp.pipeline",
    "stemdisp.report",
    "stemdisp.inspection",
    "stemdisp.batch",
    "stemdisp._read",
    "stemdisp._frames",
)
_NEW_NAMESPACE = 0x00020000
_READ_ONLY, _REMOUNT, _PRIVATE = 1, 32, 0x44000  # the last: and everything below
ENDING_S = 2.0  # for a process that ends because the one that it served did
DISK_BYTES = 48 * 1024


def snapshot(folder: str | Path) -> dict[str, str]:
    """Describe everything in a folder: kind, permissions, and for files their content."""
    found = {}
    for where, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(where, name)
            with contextlib.suppress(PermissionError):
                state = path.lstat()
                text = f"{state.st_mode:o}"
                if path.is_symlink():
                    text += f" {os.readlink(path)}"
                elif path.is_file():
                    text += f" {state.st_size}"
                    if state.st_size < 2**22:
                        text += f" {path.read_bytes().hex()}"
                found[str(path.relative_to(folder))] = text
    return found


class Server:
    """The other end: starts the program and gives it jobs."""

    def __init__(self) -> None:
        here = Path(__file__).resolve()
        one = dict.fromkeys(("NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
        path = os.pathsep.join(map(str, (here.parents[2], here.parents[1])))
        environment = {**os.environ, **one, "PYTHONPATH": path, "MPLBACKEND": "Agg"}
        environment.pop("PYTHONWARNINGS", None)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bad_inputs.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def run(self, job: dict) -> dict:
        """Have one job done; see `_run`."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End the program."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


def may_mount() -> bool:
    """Tell whether this machine lets a process have disks of its own."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return False
    pid = os.fork()
    if pid == 0:
        os._exit(0 if _libc().unshare(_NEW_NAMESPACE) == 0 else 1)
    return os.waitpid(pid, 0)[1] == 0


def permissions_apply() -> bool:
    """Tell whether a process can be made to which permissions apply."""
    return os.geteuid() != 0 or sys.platform.startswith("linux")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _mount(kind: bytes, place: str, flags: int, data: bytes = b"") -> None:
    if _libc().mount(kind, os.fsencode(place), kind, flags, data) != 0:
        raise OSError(ctypes.get_errno(), "mount", place)


def _own_disk(job: dict) -> None:
    """Put old results on a small disk which nobody else sees, and fill it or lock it."""
    place = str(Path(job["output"]).parent)
    if _libc().unshare(_NEW_NAMESPACE) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    _mount(b"none", "/", _PRIVATE)
    _mount(b"tmpfs", place, 0, f"size={DISK_BYTES}".encode())
    shutil.copytree(job["old"], job["output"])
    if job["disk"] == "read-only":
        _mount(b"tmpfs", place, _REMOUNT | _READ_ONLY)


def _drop_privileges() -> None:
    """Be a superuser to whom permissions apply (Linux: no capabilities)."""
    header, none = struct.pack("<Ii", 0x20080522, 0), bytes(24)
    if _libc().capset(header, none) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def _fail_writes(number: int) -> None:
    """Let every write from the `number`-th on find the disk full."""
    count = [0]

    def spy(event: str, details: tuple) -> None:
        if event == "open" and isinstance(details[1], str) and set(details[1]) & set("wax"):
            count[0] += 1
            if count[0] >= number and str(details[0]).find(".new-") > 0:
                raise OSError(28, "No space left on device", str(details[0]))

    sys.addaudithook(spy)


def _child(job: dict) -> None:
    """Be the command line; does not return."""
    os.setsid()
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(job[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin = open(0, closefd=False)
    sys.stdout = open(1, "w", closefd=False, encoding="utf-8")
    sys.stderr = open(2, "w", closefd=False, encoding="utf-8", errors="backslashreplace")
    status: object = 70
    try:
        os.chdir(job["work_in"])
        if job["disk"]:
            _own_disk(job)
        before = snapshot(job["output"]) if job["disk"] else {}
        _surround(job)
        from stemdisp.cli import main

        try:
            main(job["arguments"])
        except SystemExit as end:
            status = end.code
        if job["disk"] and snapshot(job["output"]) != before:
            status = 71
    except BaseException:  # noqa: BLE001 - is reported by the status
        traceback.print_exc()
    finally:
        # as Python does when a program ends: what runs beside it, ends with it
        atexit._run_exitfuncs()
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 72)


def _surround(job: dict) -> None:
    """Put limits around this process."""
    if job["nowhere"]:
        os.mkdir("nowhere")
        os.chdir("nowhere")
        os.rmdir("../nowhere")
    if job["largest_file"]:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["largest_file"],) * 2)
    if job["fail_write"]:
        _fail_writes(job["fail_write"])
    if job["tables_only"]:
        _leave_figures_out()
    if job["unprivileged"] and os.geteuid() == 0:
        _drop_privileges()


def _leave_figures_out() -> None:
    """Write the tables and summary.json alone: figures take longer than all the rest."""
    from stemdisp import report
    from stemdisp.report.files import write_files

    report.write = lambda result, folder, *, progress=False: write_files(result, folder)


def _resident(pid: int) -> int:
    """Bytes of memory that a process holds now, where the system tells."""
    try:
        text = Path(f"/proc/{pid}/statm").read_text()
    except OSError:
        return 0
    return int(text.split()[1]) * resource.getpagesize()


def _run(job: dict) -> dict:
    """Do one job, within its limits of time and memory; say how it ended."""
    begin = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        _child(job)
    killed = ""
    while True:
        done, state, used = os.wait4(pid, os.WNOHANG)
        if done:
            break
        if time.perf_counter() - begin > job["seconds"]:
            killed = "time"
        elif _resident(pid) > job["bytes"]:
            killed = "memory"
        if killed:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        time.sleep(0.002)
    wall = time.perf_counter() - begin
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "status": os.waitstatus_to_exitcode(state),
        "wall_s": wall,
        "cpu_s": used.ru_utime + used.ru_stime,
        "bytes": used.ru_maxrss * unit,  # of the process and of those that it waited for
        "killed": killed,
        "left_processes": _left_alive(pid),
    }


def _left_alive(group: int) -> bool:
    """Tell whether a process of the session stays there, and end it."""
    until = time.monotonic() + ENDING_S
    try:
        while time.monotonic() < until:
            os.killpg(group, 0)
            time.sleep(0.01)
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _serve() -> None:
    import importlib

    for name in MODULES:
        importlib.import_module(name)
    from bad_inputs.warm import warm_up

    warm_up()
    gc.collect()
    gc.freeze()  # what is there already need not be looked through, and copied, in every process
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for line in sys.stdin:
        answers.write(json.dumps(_run(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
