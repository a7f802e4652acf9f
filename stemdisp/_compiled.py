"""How all compiled loops are made: with which options, and kept from one process to the next.

Code is kept by `_codefiles`, under a name that says all it was made of: the source of the
function and of those that it calls, the constants in them, the types of the arguments, the
processor, the versions of numba, llvmlite and numpy, and numba's settings. What differs in any
of these is another file, so nothing is ever outdated. Where nothing can be kept or read, functions
are compiled in each process.
"""

from __future__ import annotations

import gc
import hashlib
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any

import numba
import numpy as np
from numba.core import caching, compiler, serialize
from numba.core.dispatcher import Dispatcher

from stemdisp import _codefiles

Function = Callable[..., Any]

_EXACT = {"nogil": True, "error_model": "numpy"}
_FLAGS = {
    **_EXACT,
    "fastmath": {"reassoc", "contract", "arcp", "nsz"},
    "no_cfunc_wrapper": True,
}
_OURS = f"{__name__.partition('.')[0]}."  # modules of this package
# They change no code.
_NO_MATTER = {"NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS"}


def compiled(function: Function) -> Function:
    """Compile a loop: sums may be reordered (always in the same way), no lock held, kept."""
    return _kept(numba.njit(**_FLAGS)(function))


def compiled_in_order(function: Function) -> Function:
    """Compile a loop whose sums are added as they are written."""
    return _kept(numba.njit(**_EXACT)(function))


def inner(function: Function) -> Function:
    """Compile what only other compiled functions call, into each of them.

    Called and not written out, it would come from the cache in another version than that which
    was compiled together with its caller, and a first run would differ in the last bits.
    """
    return numba.njit(**_FLAGS, no_cpython_wrapper=True, inline="always")(function)


def _kept(function: Any) -> Any:
    """Let a function look for its code before it compiles."""
    function._cache = _Kept(function.py_func)
    function._compiler.compile = _without_collecting(function._compiler.compile)
    return function


def _without_collecting(compile_it: Function) -> Function:
    """Let no garbage be looked for meanwhile, which takes a tenth of the time.

    Of the million objects that a compiler makes, most stay until it is done.
    """

    def compile_quickly(*arguments: Any) -> Any:
        collects = gc.isenabled()
        gc.disable()
        try:
            return compile_it(*arguments)
        finally:
            if collects:
                gc.enable()

    return compile_quickly


class _Kept(caching._Cache):  # type: ignore[misc]  # numba has no annotations
    """What numba asks for compiled code, and hands it to.

    Whatever goes wrong in between means compiling: code is kept to save time, nothing else.
    """

    def __init__(self, function: FunctionType) -> None:
        self._function = function
        self._enabled = True

    @property
    def cache_path(self) -> str | None:
        """The directory that is looked at first."""
        return str(next(_codefiles.folders(), None))

    def enable(self) -> None:
        """Keep and read code (the default)."""
        self._enabled = True

    def disable(self) -> None:
        """Compile, and keep nothing."""
        self._enabled = False

    def flush(self) -> None:
        """Forget nothing: what is outdated has another name."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Give the code for a signature, or None."""
        if not self._enabled:
            return None
        try:
            # registers what code may refer to
            target_context.refresh()
            name, key = self._name(sig, target_context.codegen())
            payload = _codefiles.read(name, key)
            if payload is None:
                return None
            return compiler.CompileResult._rebuild(target_context, *pickle.loads(payload))
        except Exception:  # noqa: BLE001 - whatever it is, compiling helps
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the code for a signature."""
        if not self._enabled or data.library.has_dynamic_globals:
            return
        try:
            name, key = self._name(sig, data.codegen)
            _codefiles.write(name, key, serialize.dumps(data._reduce()))
        except Exception:  # noqa: BLE001, S110 - the function is compiled, that is what matters
            pass

    def _name(self, sig: Any, codegen: Any) -> tuple[str, bytes]:
        """Name the file: for people the function, then a checksum of all it depends on."""
        told = [str(sig), str(codegen.magic_tuple()), *_surroundings(), *_source(self._function)]
        key = "\0".join(told).encode()
        short = f"{self._function.__module__.rpartition('.')[2]}.{self._function.__qualname__}"
        tag = sys.implementation.cache_tag
        return f"{short}.{tag}-{hashlib.sha256(key).hexdigest()[:32]}", key


def _surroundings() -> list[str]:
    """Tell what changes the code of the same source: versions, and numba's settings."""
    settings = sorted(
        f"{name}={value}"
        for name, value in os.environ.items()
        if name.startswith("NUMBA_") and name not in _NO_MATTER
    )
    versions = [numba.__version__, sys.modules["llvmlite"].__version__, np.__version__]
    return [sys.version, *versions, *settings]


def _source(function: FunctionType) -> list[str]:
    """Tell what a function is made of, with all that it calls."""
    found: dict[str, str] = {}
    for each in _called(function, set()):
        found[each.__code__.co_filename] = _file_digest(each.__code__.co_filename)
        for name in each.__code__.co_names:
            value = each.__globals__.get(name)
            if isinstance(value, int | float | tuple | str | np.generic):
                found[f"{each.__module__}.{name}"] = repr(value)
            elif str(getattr(value, "__module__", None)).startswith(_OURS):
                # whatever it is (`_vectors` defines no functions), its file is a part of it
                path = str(sys.modules[value.__module__].__file__)
                found[path] = _file_digest(path)
    found[__file__] = _file_digest(__file__)
    return [f"{name}={found[name]}" for name in sorted(found)]


def _called(function: FunctionType, seen: set[FunctionType]) -> Iterator[FunctionType]:
    """Give a function and, once each, the compiled ones that it calls."""
    if function in seen:
        return
    seen.add(function)
    yield function
    for name in function.__code__.co_names:
        value = function.__globals__.get(name)
        if isinstance(value, Dispatcher):
            yield from _called(value.py_func, seen)


@cache
def _file_digest(path: str) -> str:
    """Checksum of a source file; one that cannot be read is an error, and nothing is kept."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
