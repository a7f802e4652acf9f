"""Requests to stop (Ctrl-C, SIGTERM, a closed terminal) that end the command line tidily.

A request becomes an exception wherever the program is, so that what is unfinished is removed. Two
things are done about the places where that goes wrong. Steps that must not be cut in two are
held: the request waits for their end. And the exception is raised again every half second until
it is heard, as libraries drop some (in destructors, in compiled modules that are being loaded).
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

_AGAIN_S = 0.5
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM")  # some systems have not all of them


class Stopped(BaseException):
    """The user, or the system, wants the program to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_status = 128 + number


@dataclass
class _State:
    """What signal handlers know: they are called with nothing else."""

    asked: int = 0
    held: int = 0
    left: str = ""


_state = _State()


@contextmanager
def listening() -> Iterator[None]:
    """Turn requests to stop into `Stopped` (main thread only); an ignored signal stays ignored.

    Whatever error ends the block after a request, `Stopped` is what is raised: libraries make
    other errors of it.
    """
    _state.asked, _state.left = 0, ""
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    # nohup, and shells with commands in the background, want some to be ignored
    before = {n: signal.getsignal(n) for n in numbers if signal.getsignal(n) != signal.SIG_IGN}
    hook = sys.unraisablehook
    try:
        sys.unraisablehook = lambda args: None if _is_ours(args) else hook(args)
        for number in before:
            signal.signal(number, _ask)
        yield
    except BaseException as err:
        if _state.asked:
            raise Stopped(_state.asked) from err
        raise
    finally:
        _alarm(0)
        _state.asked = 0  # a later use of the library was not asked to stop
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        sys.unraisablehook = hook


def _is_ours(args: Any) -> bool:
    """Tell whether an exception that was dropped is the request, which will come again."""
    return args.exc_type is not None and issubclass(args.exc_type, Stopped)


def _ask(number: int, frame: FrameType | None) -> None:
    """Stop now, or after what is held."""
    _state.asked = _state.asked or number
    _alarm(_AGAIN_S)
    if not _state.held:
        raise Stopped(_state.asked)


def _alarm(seconds: float) -> None:
    """Ask again after some time; 0: no more."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


@contextmanager
def held() -> Iterator[None]:
    """Let a request to stop wait for the end of a step."""
    _state.held += 1
    try:
        yield
    finally:
        _state.held -= 1
    if _state.asked and not _state.held:
        raise Stopped(_state.asked)


def leave(left: str) -> None:
    """Say what a request to stop finds from now on; what was said first stays.

    Parameters
    ----------
    left : str
        In the words of a message.
    """
    _state.left = _state.left or left


def left() -> str:
    """Tell what a request to stop has found.

    Returns
    -------
    str
        "nothing was changed", unless somebody said otherwise.
    """
    return _state.left or "nothing was changed"
