"""Loops shared among threads; the shares never change what is computed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

Result = TypeVar("Result")

PER_THREAD = 3  # shares of a loop for each thread: evens out what differs among them


@cache
def _libraries() -> ThreadpoolController:
    """Give the loaded libraries of linear algebra; to look for them takes milliseconds."""
    return ThreadpoolController()


def _is_task() -> bool:
    """Tell whether this thread does a task of a Dask worker."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return False
    try:
        distributed.get_worker()
    except ValueError:
        return False
    return True


class Crew:
    """Threads for compiled loops ``kernel(lo, hi, *arguments)`` that hold no lock.

    As many as numba would use: all cores given to the process, or ``NUMBA_NUM_THREADS``; one in a
    task of a Dask worker, whose other tasks run beside it. Each item
    of a loop is done by one thread and writes its own results, so the number of threads changes
    nothing but the time. Meanwhile the threads of linear algebra, whose sums depend on their
    number, rest.
    """

    def __init__(self) -> None:
        from numba import config

        cores: Any = config
        self.size = 1 if _is_task() else int(cores.NUMBA_NUM_THREADS)
        self._pool = ThreadPoolExecutor(self.size) if self.size > 1 else None

    def __enter__(self) -> Crew:
        self._limits = _libraries().limit(limits=1, user_api="blas")
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._limits.restore_original_limits()
        if self._pool is not None:
            self._pool.shutdown()

    def later(self, function: Callable[..., Result], *arguments: object) -> Callable[[], Result]:
        """Begin a call beside what follows; the answer waits for its result."""
        if self._pool is None:
            return lambda: function(*arguments)
        return self._pool.submit(function, *arguments).result

    def share(self, kernel: Callable[..., None], n: int, *arguments: object) -> None:
        """Run ``kernel(lo, hi, *arguments)``, compiled or numpy's, until ``0 .. n`` are done."""
        if self._pool is None or n < 2:
            kernel(0, n, *arguments)
            return
        ends = np.linspace(0, n, min(n, PER_THREAD * self.size) + 1).astype(int)
        parts = [
            self._pool.submit(kernel, int(lo), int(hi), *arguments) for lo, hi in pairwise(ends)
        ]
        for part in parts:
            part.result()
