"""Independent calls on threads of this process, or on the workers of a cluster."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from stemdisp.errors import ConfigError, DataError

_MOST_THREADS = 4  # each holds a few images
_PATIENCE_S = 10.0


class InPlace(Executor):
    """Does every call at once, on the thread that asks."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call the function, and give its result."""
        done: Future[Any] = Future()
        done.set_result(function(*args, **kwargs))
        return done


def spread(
    function: Callable[..., Any],
    calls: Iterable[tuple[Any, ...]],
    *,
    executor: Executor | None = None,
) -> Iterator[Any]:
    """Yield ``function(*call)`` for every call, in their order.

    Parameters
    ----------
    function : callable
        Of the module level, if the executor runs in other processes.
    calls : iterable of tuple
        Drawn as they are needed, so that only a few are held at a time.
    executor : concurrent.futures.Executor, optional
        Default: threads of this process.

    Yields
    ------
    Any
        The results do not depend on the executor: who does a call decides nothing.

    Raises
    ------
    DataError
        If workers of a cluster died at the same call again and again.
    """
    if executor is None:
        size = min(_MOST_THREADS, len(os.sched_getaffinity(0)) if _knows_cores() else 2)
        with ThreadPoolExecutor(size) as pool:
            yield from _in_order(pool, function, calls, 2 * size)
        return
    workers: Any = getattr(executor, "n_workers", None) or getattr(executor, "_max_workers", 4)
    with _told_of_lost_workers():
        yield from _in_order(executor, function, calls, 2 * int(workers))


def _knows_cores() -> bool:
    """Tell whether the system says which cores this process may use."""
    return hasattr(os, "sched_getaffinity")


def _in_order(
    executor: Executor,
    function: Callable[..., Any],
    calls: Iterable[tuple[Any, ...]],
    ahead: int,
) -> Iterator[Any]:
    """Keep a few calls going, and take their results in order."""
    waiting: deque[Future[Any]] = deque()
    try:
        for call in calls:
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
            waiting.append(executor.submit(function, *call))
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


@contextmanager
def open_cluster(address: str | None) -> Iterator[Executor | None]:
    """Connect to the scheduler of a Dask cluster.

    Parameters
    ----------
    address : str or None
        Such as ``tcp://host:8786``; None for no cluster.

    Yields
    ------
    concurrent.futures.Executor or None

    Raises
    ------
    ConfigError
        If ``distributed`` is not installed, or nothing answers at the address.
    """
    if address is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise ConfigError(
            "--scheduler needs the package distributed: pip install 'stemdisp[cluster]'"
        ) from error
    try:
        client = Client(address, timeout=_PATIENCE_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--scheduler {address}: no Dask scheduler answers there; start one with "
            "'dask scheduler', or correct the address (tcp://host:8786)"
        ) from error
    try:
        try:
            client.wait_for_workers(1, timeout=3 * _PATIENCE_S)
        except TimeoutError as error:
            raise ConfigError(
                f"--scheduler {address}: it has no workers; start some with 'dask worker {address}'"
            ) from error
        executor = client.get_executor()
        executor.n_workers = max(1, sum(client.nthreads().values()))
        with _large_pieces(), _told_of_lost_workers():
            yield executor
    finally:
        client.close()


def _large_pieces() -> AbstractContextManager[Any]:
    """Let work be sent with its frames, without a warning: a lost worker then loses nothing."""
    import dask

    return dask.config.set({"distributed.admin.large-graph-warning-threshold": "1GiB"})


@contextmanager
def _told_of_lost_workers() -> Iterator[None]:
    """Word the error of a task at which every worker died."""
    try:
        yield
    except Exception as error:
        if type(error).__name__ != "KilledWorker":  # of a package that need not be there
            raise
        raise DataError(
            "the cluster's workers died at the same task again and again, most likely for want of "
            "memory; give each worker more"
        ) from error
