"""What is written as text and compiled at every start, compiled when the program is frozen.

attrs writes the methods of a class as text when the class is made; compiling it is a seventh of PID 1's start-up. The text itself is
the key, so whatever is not known, or is not the same any more, is compiled as ever. Without the file nothing changes.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import marshal
import os
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

PATH = os.path.join(os.path.dirname(__file__), "precompiled.bin")
LATE = os.path.join(os.path.dirname(__file__), "late.bin")  # for bay0/loading/late.py, so that no turn reads all of the boot's
FORWARDER = os.path.join(os.path.dirname(__file__), "forwarder.bin")  # of its own: it needs a third of it
Known = dict[tuple[str, str, str], CodeType]
_compile: Any = compile  # the real one, whoever stands in for it


def read(path: str = PATH) -> Known:
    """Return what is in `path`: nothing, if that is not there or cannot be read."""
    with contextlib.suppress(OSError, ValueError, EOFError, TypeError), open(path, "rb") as file:
        return dict(marshal.loads(file.read()))  # noqa: S302 - from our own image, as are the modules; load(file) reads number by number
    return {}


@contextlib.contextmanager
def used(path: str = PATH, known: Known | None = None) -> Iterator[None]:
    """Let imports find their code in `known`, or else in `path`."""
    known = read(path) if known is None else known

    def compiled(source: Any, filename: Any, mode: str, *rest: Any, **more: Any) -> Any:
        code = None if rest or more else known.get((source, filename, mode))
        return _compile(source, filename, mode, *rest, **more) if code is None else code

    with _in_place_of_compile(compiled):
        yield


def record(module: str) -> Known:
    """Import `module` and return what was compiled from text on the way; for a fresh interpreter, when freezing."""
    seen: Known = {}

    def recorded(source: Any, filename: Any, mode: str, *rest: Any, **more: Any) -> Any:
        code = _compile(source, filename, mode, *rest, **more)
        if isinstance(source, str) and not rest and not more:
            seen[source, filename, mode] = code
        return code

    with _in_place_of_compile(recorded):
        importlib.import_module(module)
    return seen


@contextlib.contextmanager
def _in_place_of_compile(stand_in: Callable[..., Any]) -> Iterator[None]:
    namespace = vars(builtins)
    before = namespace["compile"]
    namespace["compile"] = stand_in
    try:
        yield
    finally:
        namespace["compile"] = before
