"""PID 1 as a client of sway's IPC: questions with bounds, answered in their order, and events."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0.screen import ipc
from bay0.screen.ipc import Ask
from bay0.screen.stream import Stream

if TYPE_CHECKING:
    import socket

    from bay0.effects.peers import Answerer
    from bay0.pid1.reactor import Reactor, Timer

Done = Callable[[Any], None]


@define(eq=False, repr=False)
class _Question:
    kind: Ask
    done: Done
    timer: Timer


@define(eq=False, repr=False)
class Sway:
    """One connection. `lost(why)`: it has ended, or makes no sense, or was silent for too long; once.

    `event(kind, value)`: what is said to who has subscribed.
    """

    reactor: Reactor
    peer: socket.socket
    lost: Callable[[str], None]
    event: Callable[[int, Any], None]
    _stream: Stream = field(init=False)
    _reader: ipc.Reader = field(init=False, factory=ipc.Reader)
    _asked: deque[_Question] = field(init=False, factory=deque)

    def __attrs_post_init__(self) -> None:
        self._stream = Stream(self.reactor, self.peer, self._heard, self._lost)

    @property
    def who(self) -> Answerer:
        """Who listens there."""
        return self._stream.who

    def ask(self, kind: Ask, bound_s: float, done: Done, payload: str = "") -> None:
        """Call `done` with the answer. None within `bound_s` seconds: it is lost."""
        timer = self.reactor.call_later(bound_s, partial(self._silent, bound_s))
        self._asked.append(_Question(kind, done, timer))
        self._stream.send(ipc.frame(kind, payload))

    def subscribe(self, names: Sequence[str], bound_s: float, done: Done) -> None:
        """Have events told from now on; `done` gets what sway makes of it."""
        words = ",".join(f'"{name}"' for name in names)
        self.ask(Ask.SUBSCRIBE, bound_s, done, f"[{words}]")

    def close(self) -> None:
        """Hang up, and forget who waits; harmless when that has happened."""
        for question in self._asked:
            question.timer.cancel()
        self._asked.clear()
        self._stream.close()

    def _lost(self, why: str) -> None:
        self.close()
        self.lost(why)

    def _silent(self, bound_s: float) -> None:
        self._lost(f"no answer on its IPC socket in {bound_s:g} s")

    def _heard(self, data: bytes) -> None:
        for frame in self._reader.feed(data):
            if not self._stream.open:
                return
            if frame.event:
                self.event(frame.kind, frame.value())
                continue
            if not self._asked or self._asked[0].kind != frame.kind:
                raise ipc.FrameError(f"an answer of the type {frame.kind}, which nobody asked for")
            question = self._asked.popleft()
            question.timer.cancel()
            question.done(frame.value())
