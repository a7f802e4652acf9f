"""The gate in front of every file: another process opens it, this one gets checked plain values.

That process (``_reader``) is started with the first file and serves all others. If it dies on a
file, this is an error of that file, and the next one gets a new process.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import math
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stemdisp._formats import MAX_BYTES, check_is_file
from stemdisp._raw import RawSignal
from stemdisp._stores import files_of
from stemdisp.errors import DataError

MAX_HEADER_BYTES = 64 * 2**20
# Beside the limits that the reading process has for memory and processor time.
_PATIENCE_S = 300.0
_SLOWEST_DISK_BYTES_PER_S = 2e6
_PIPE_BYTES = 2**20

# Without start-up files (site) and the current directory; what sys.path held goes along.
_START = "import sys; sys.path[:] = sys.argv[1:]; from stemdisp._reader import serve; serve()"
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLOSC_NTHREADS")


@dataclass(frozen=True, eq=False)
class FileContent:
    """What a file holds.

    Attributes
    ----------
    format : str
        A key of `stemdisp._formats.FORMATS`.
    signals : list of RawSignal
        In the order of the file; values are NumPy arrays, or Dask arrays of single frames.
    pieces_missing, pieces : int
        How many pieces of its images were never written, of how many; they read as zeros.
    """

    format: str
    signals: list[RawSignal]
    pieces_missing: int
    pieces: int


def read_file(path: str, *, lazy: bool | None = False) -> FileContent:
    """Read all signals of one file.

    Parameters
    ----------
    path : str
        The file.
    lazy : bool or None
        Leave the values on disk until they are asked for. None: only where there are many.

    Returns
    -------
    FileContent

    Raises
    ------
    DataError
        If the file is missing, of an unknown kind, damaged, too large, or not to be trusted.
    """
    check_is_file(path)
    stamp = _stamp(path)
    question = {"path": path, "stamp": stamp, "lazy": lazy, "max_bytes": MAX_BYTES}
    with _PROCESS.asked(question, on_disk=_size(path)) as answer:
        said = answer.said
        # absolute: frames may be read when this process is in another directory
        build = partial(_on_disk, os.path.abspath(path), stamp) if said["lazy"] else answer.array
        signals = [
            RawSignal(s["title"], _values(build, number, s), tuple(s["axes"]), dict(s["metadata"]))
            for number, s in enumerate(said["signals"])
        ]
    return FileContent(said["format"], signals, said["pieces_missing"], said["pieces"])


def start() -> None:
    """Start the reading process, if there is none, while there is other work to do."""
    with contextlib.suppress(DataError):
        _PROCESS.start()


def _values(build: Any, number: int, said: dict[str, Any]) -> Any:
    """Make the values of a signal; what are no numbers only as a shape and a type."""
    shape, dtype = tuple(said["shape"]), np.lib.format.descr_to_dtype(_tuples(said["dtype"]))
    if dtype.kind in "biufc":
        return build(number, shape, dtype)
    return np.broadcast_to(np.zeros((), dtype), shape)


def _tuples(descr: Any) -> Any:
    """Return the description of a type as NumPy wants it: JSON knows no tuples."""
    if not isinstance(descr, list):
        return descr
    return [(name, _tuples(kind), *map(tuple, shape)) for name, kind, *shape in descr]


def _on_disk(
    path: str, stamp: list[int], number: int, shape: tuple[int, ...], dtype: np.dtype
) -> Any:
    """Return a Dask array of single frames, each asked for when it is needed."""
    import dask.array as da
    from dask.delayed import delayed

    frame = delayed(read_frame, pure=True)
    size = shape[-2:]

    def stacked(index: tuple[int, ...]) -> Any:
        if len(index) == max(len(shape) - 2, 0):
            return da.from_delayed(frame(path, stamp, number, index, size, dtype), size, dtype)
        return da.stack([stacked((*index, k)) for k in range(shape[len(index)])])

    return da.zeros(shape, dtype) if 0 in shape else stacked(())


def read_frame(
    path: str,
    stamp: list[int],
    number: int,
    index: tuple[int, ...],
    shape: tuple[int, ...],
    dtype: np.dtype,
) -> np.ndarray:
    """Read one image of a file.

    Parameters
    ----------
    path : str
        The file.
    stamp : list
        Its size and time of change when it was first read.
    number : int
        Of the signal in the file.
    index : tuple of int
        Along the axes before y and x.
    shape : tuple of int
        Of the image.
    dtype : dtype
        Of its values.

    Returns
    -------
    ndarray

    Raises
    ------
    DataError
        If the file cannot be read any more.
    """
    if _stamp(path) != stamp:
        raise DataError(f"{path}: was changed while it was read; run again when it is complete")
    n_bytes = math.prod(shape) * dtype.itemsize
    question = {
        "path": path,
        "stamp": stamp,
        "signal": number,
        "index": index,
        "max_bytes": MAX_BYTES,
        "n_bytes": n_bytes,
    }
    with _PROCESS.asked(question, on_disk=n_bytes) as answer:
        return answer.array(number, shape, dtype)


def _stamp(path: str) -> list[int]:
    """Return size and time of change of a file, or of a directory that is a store."""
    with contextlib.suppress(OSError, ValueError):
        state = os.stat(path)
        return [state.st_size, state.st_mtime_ns]
    return []


def _size(path: str) -> int:
    """Return how many bytes a path has on the disk."""
    with contextlib.suppress(OSError, ValueError):
        return sum(file.stat().st_size for _, file in files_of(path))
    return 0


class Answer:
    """What the reading process says; its arrays follow in their order.

    Parameters
    ----------
    stream : binary stream
        Where it says it.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        (length,) = struct.unpack(">Q", self._exactly(bytearray(8)))
        if length > MAX_HEADER_BYTES:
            raise _Lost(f"its metadata take {length / 2**20:.0f} MiB")
        self.said: dict[str, Any] = json.loads(self._exactly(bytearray(length)))

    def array(self, number: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Read the next array."""
        values = np.empty(shape, dtype)
        if values.size:
            self._exactly(values.reshape(-1).view(np.uint8).data)
        return values

    def _exactly(self, room: Any) -> Any:
        """Fill a buffer."""
        view, done = memoryview(room), 0
        while done < len(view):
            count = self._stream.readinto(view[done:])
            if not count:
                raise _Lost("")
            done += count
        return room


class _Lost(Exception):
    """The reading process ended, or says what nobody can use."""


class _Process:
    """The reading process of this one; questions of several threads wait for each other."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._running: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        """Return the running process, or a new one."""
        with self._lock:
            if self._running is not None and self._running.poll() is not None:
                self.end()  # closes what is left of it
            if self._running is None:
                self._running = _started()
            return self._running

    @contextlib.contextmanager
    def asked(self, question: dict[str, Any], *, on_disk: int) -> Iterator[Answer]:
        """Ask, and hold the process until the answer has been read to its end."""
        path = question["path"]
        with self._lock:
            process = self.start()
            seconds = _PATIENCE_S + on_disk / _SLOWEST_DISK_BYTES_PER_S
            watchdog = threading.Timer(seconds, process.kill)
            watchdog.daemon = True
            watchdog.start()
            try:
                answer = _ask(process, question)
                if "error" in answer.said:
                    raise _told(answer.said)
                yield answer
            except DataError:
                raise
            except (_Lost, BrokenPipeError) as err:
                raise DataError(_words(path, self.end(), str(err))) from err
            except MemoryError as err:
                self.end()
                raise DataError(
                    f"{path}: needs more memory than there is; crop it, or read it with lazy=True"
                ) from err
            except BaseException:
                self.end()  # in the middle of an answer
                raise
            finally:
                watchdog.cancel()

    def end(self) -> int:
        """End the process; return its exit status, or the signal that ended it, negative."""
        process, self._running = self._running, None
        if process is None:
            return 0
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)  # it may be dying by itself
        if process.poll() is None:
            process.kill()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        return process.wait()

    def forget(self) -> None:
        """Begin anew: a forked process leaves that of its parent alone."""
        self._lock, self._running = threading.RLock(), None


def _started() -> subprocess.Popen[bytes]:
    """Start the reading process: the same Python and packages, quiet, with one thread."""
    package = str(Path(__file__).resolve().parent.parent)
    search = [os.path.abspath(path) for path in sys.path if path]
    search += [] if package in search else [package]
    quiet = {
        "HDF5_PLUGIN_PRELOAD": "::",  # loads no filters that lie about
        **dict.fromkeys(_ONE_THREAD, "1"),
    }
    try:
        process = subprocess.Popen(
            [sys.executable, "-B", "-P", "-S", "-c", _START, *search],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | quiet,
        )
    except OSError as err:
        raise DataError(
            f"no process can be started to read files ({err.strerror}); free memory or processes"
        ) from err
    assert process.stdout is not None
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        # Fewer turns between the two processes (Linux).
        fcntl.fcntl(process.stdout.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return process


def _ask(process: subprocess.Popen[bytes], question: dict[str, Any]) -> Answer:
    """Send a question; wait for the beginning of the answer."""
    assert process.stdin is not None and process.stdout is not None
    with contextlib.suppress(OSError):  # it may have been removed
        question = question | {"directory": os.getcwd()}
    process.stdin.write(json.dumps(question).encode() + b"\n")
    process.stdin.flush()
    return Answer(process.stdout)


def _told(said: dict[str, Any]) -> DataError:
    """Make an error of what the reading process says; `--debug` shows where it arose."""
    error = DataError(said["error"])
    error.add_note(said["trace"])
    return error


def _words(path: str, status: int, reason: str) -> str:
    """Say that a file ended the process that read it."""
    remedy = "it may be truncated or damaged, so copy or export it again"
    if status == -getattr(signal, "SIGXCPU", 0) or status == -getattr(signal, "SIGKILL", 0):
        reason = "it took too long or too much memory"
    elif status < 0:
        reason = f"its reader crashed: {signal.Signals(-status).name}"
    elif not reason:
        reason = f"its reader ended with status {status}"
    return f"{path}: cannot be read; {remedy} ({reason})"


_PROCESS = _Process()
atexit.register(_PROCESS.end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_PROCESS.forget)
