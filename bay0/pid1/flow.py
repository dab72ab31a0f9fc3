"""A sequence that waits without blocking: a generator yields things to wait for, each a function that takes `resume`.

    def opening():
        found = yield ask("find", bound)
        if not found.ok: return E.NO_DEVICE, found.why
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from bay0.pid1.reactor import Reactor

Resume = Callable[[Any], None]
Waitable = Callable[[Resume], object]
T = TypeVar("T")
Flow = Generator[Waitable, Any, T]


def answered(ask: Callable[[Callable[..., None]], None]) -> Waitable:
    """Wait for an answer of several values: `ok, why, value = yield answered(ask)`."""
    return lambda resume: ask(lambda *answer: resume(answer))


def once(resume: Resume, reactor: Reactor, seconds: float, late: Any = None) -> Resume:
    """Return what resumes with the first word that it is given, and with `late` if it has none in so many seconds."""
    left = [resume]

    def go(word: Any) -> None:
        if left:
            timer.cancel()
            left.pop()(word)

    timer = reactor.call_later(seconds, partial(go, late))
    return go


def run(flow: Flow[T], done: Callable[[T], None]) -> None:
    """Drive `flow` to its end, then call `done` with what it returned. Each wait must resume once, or never."""

    def resume(value: Any = None) -> None:
        try:
            waitable = flow.send(value)
        except StopIteration as end:
            done(end.value)
            return
        waitable(resume)

    resume()


def at_once(resume: Resume) -> None:
    """Wait for nothing: driven `as_long_as`, a flow goes on behind it only while that is so. For what must not be done once it is not."""
    resume(None)


def as_long_as(true: Callable[[], bool], flow: Flow[T]) -> Flow[T | None]:
    """Drive `flow`, but start none of its waits once `true()` is false; then it returns None."""
    value = None
    while True:
        try:
            waitable = flow.send(value)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        if not true():
            flow.close()
            return None
        value = yield waitable
