"""The process that reads files: questions come on standard input, answers go to standard output.

A question is a line of JSON. An answer is the length of a JSON text in eight bytes, the text, and
the bytes of the arrays that it describes. Files are opened and decoded here and nowhere else, so
a reader that crashes, runs away or eats all memory ends this process and not the user's.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import struct
import sys
import traceback
from collections import OrderedDict
from typing import Any, BinaryIO

import numpy as np

from stemdisp._limits import Watch, allow
from stemdisp._raw import RawSignal
from stemdisp._read import Reading, read_file, worded
from stemdisp.errors import DataError

_OPEN_FILES = 4  # lazily read ones that are kept open
_CHANGED = "was changed while it was read; run again when it is complete"

Stamp = list[int]


class Reader:
    """Answers questions about files.

    Parameters
    ----------
    watch : Watch
        Told which file may be opened.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._open: OrderedDict[str, tuple[Stamp, Reading]] = OrderedDict()

    def answer(self, question: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
        """Return what is said and the arrays that go with it; errors are said, too."""
        path = question["path"]
        with contextlib.suppress(OSError):
            os.chdir(question["directory"])  # that of the asking process, which may change it
        self._watch.file = os.path.realpath(path)
        self._watch.refused.clear()
        try:
            allow(question.get("n_bytes", 0))  # of a file it is known when its header was read
            what = self._frame if "index" in question else self._file
            said = what(question)
            if self._watch.refused:
                raise self._refusal(path)
            return said
        except DataError as err:
            err = self._refusal(path) if self._watch.refused else err
            self._open.pop(self._watch.file, None)
            return {"error": str(err), "trace": traceback.format_exc()}, []

    def _refusal(self, path: str) -> DataError:
        return DataError(
            f"{path}: reading it would {self._watch.refused[0]}, which no image needs; the file is "
            "not to be trusted, so save the image anew in the program that made it"
        )

    def _file(self, question: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
        """Describe a file, with all its values unless they stay on disk."""
        path = question["path"]
        reading = read_file(
            os.path.abspath(path),  # stays true in another directory
            lazy=question["lazy"],
            name=path,
            max_bytes=question["max_bytes"],
            allow=allow,
        )
        if reading.lazy:
            self._keep(question["stamp"], reading)
        arrays = [] if reading.lazy else [s.data for s in reading.signals if _plain_numbers(s.data)]
        said = {
            "format": reading.found.name,
            "lazy": reading.lazy,
            "pieces_missing": reading.found.pieces_missing,
            "pieces": reading.found.pieces,
            "signals": [_described(signal) for signal in reading.signals],
        }
        return said, arrays

    def _frame(self, question: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
        """Give one image of a signal whose values are still on disk."""
        path = question["path"]
        stamp, reading = self._open.get(self._watch.file, (None, None))
        if reading is None or stamp != question["stamp"]:
            reading = read_file(path, lazy=True, max_bytes=question["max_bytes"], allow=allow)
            self._keep(question["stamp"], reading)
        self._open.move_to_end(self._watch.file)
        with worded(path):
            if not 0 <= question["signal"] < len(reading.signals):
                raise DataError(_CHANGED)
            data = reading.signals[question["signal"]].data
            index = tuple(question["index"])
            if len(index) != max(data.ndim - 2, 0):
                raise DataError(_CHANGED)
            frame = data[index]
            if hasattr(frame, "compute"):
                frame = frame.compute(scheduler="synchronous")
            frame = np.asarray(frame)
        return {"shape": frame.shape, "dtype": frame.dtype.str}, [frame]

    def _keep(self, stamp: Stamp, reading: Reading) -> None:
        """Keep a file open; the one that was not asked for longest is closed."""
        self._open[self._watch.file] = (stamp, reading)
        while len(self._open) > _OPEN_FILES:
            self._open.popitem(last=False)
        gc.collect()  # closes what readers left open


def _plain_numbers(data: Any) -> bool:
    return data.dtype.kind in "biufc"


def _described(signal: RawSignal) -> dict[str, Any]:
    """Give all of a signal but its values; what they are if not numbers is only named."""
    dtype = signal.data.dtype
    return {
        "title": signal.title,
        "shape": signal.data.shape,
        "dtype": np.lib.format.dtype_to_descr(dtype),
        "axes": signal.axes,
        "metadata": signal.metadata,
    }


def _send(stream: BinaryIO, said: dict[str, Any], arrays: list[Any]) -> None:
    """Write one answer; arrays in native C order, one leading item after the other."""
    text = json.dumps(said, default=int).encode()
    stream.write(struct.pack(">Q", len(text)) + text)
    for array in arrays:
        for part in array if np.ndim(array) > 2 else (array,):
            if part.size:
                stream.write(np.ascontiguousarray(part).data.cast("B"))
    stream.flush()


def serve() -> None:
    """Answer until there are no more questions: the process that asks has ended."""
    # Ctrl-C reaches this process, too; the one that asks decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what libraries print
    watch = Watch()
    watch.begin()
    reader = Reader(watch)
    for line in sys.stdin.buffer:
        said, arrays = reader.answer(json.loads(line))
        try:
            _send(answers, said, arrays)
        except BrokenPipeError:
            return
        del arrays
