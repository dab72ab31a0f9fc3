"""One request in the AI's server: connect, see who listens, send, read the answer. Part of the forwarder.

The server is not trusted either: it must be who bay0 said, its answer is read strictly, its descriptors are not taken, its silence is bounded.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from attrs import define, field

from bay0.effects import peers
from bay0.pid1.reactor import READ, WRITE
from bay0.umbilical import admission as umbilical
from bay0.umbilical.http import AnswerReader, BadAnswerError, Refusal

if TYPE_CHECKING:
    from bay0.pid1.reactor import Reactor

READ_CHUNK = 64 << 10
RETRY_S = 2.0


class Sink(Protocol):
    """Who gets the answer: `head`, then `data`, then `end`; or `failed` instead of what is left."""

    def head(self, reader: AnswerReader) -> None:
        """Take the status, the kind and the length of the body."""

    def data(self, data: bytes) -> None:
        """Take a piece of the body."""

    def end(self) -> None:
        """Take the end of a whole answer."""

    def failed(self, refusal: Refusal) -> None:
        """Take that there will be no more."""


@define(eq=False, repr=False)
class Flight:
    """See above. `stall_s`: of silence; `seconds`: of all. Nothing of the sink is called after `cancel`."""

    reactor: Reactor
    path: str
    group: str
    request: bytes
    sink: Sink
    stall_s: float
    seconds: float
    on_over: Callable[[], None] = lambda: None
    _peer: socket.socket | None = None
    _outbox: memoryview = field(init=False)
    _reader: AnswerReader = field(factory=AnswerReader)
    _headed: bool = False
    _held: bool = False
    _last: float = 0.0
    _until: float = 0.0

    def begin(self) -> None:
        """Connect; an answer may come at once, as `failed`."""
        self._last = self.reactor.clock()
        self._until = self._last + self.seconds
        self._outbox = memoryview(self.request)
        try:
            self._peer = peers.connect(self.path)
        except BlockingIOError:
            self._fail(Refusal(503, "busy", "the AI's server takes no more connections now", RETRY_S))
            return
        except OSError as error:
            self._fail(Refusal(502, "no_server", f"the AI's server cannot be reached: {error.strerror}", RETRY_S))
            return
        wrong = umbilical.impostor(self.group, peers.identify(self._peer))
        if wrong:
            self._fail(Refusal(502, "impostor", f"who answers is not the AI's server: {wrong}"))
            return
        self.reactor.watch(self._peer.fileno(), READ | WRITE, self._ready)

    def cancel(self) -> None:
        """Hang up: the server stops working on it."""
        if self._peer is not None:
            self.reactor.unwatch(self._peer.fileno())
            self._peer.close()
            self._peer = None
        self.on_over, over = (lambda: None), self.on_over
        over()

    def hold(self, *, held: bool) -> None:
        """Read no more of the answer until it is let go: the client is slower than the server."""
        if self._peer is not None and held is not self._held:
            self._held = held
            self._last = self.reactor.clock()
            self._watch()

    def look(self, now: float) -> None:
        """Give up if it takes too long; called about twice a second."""
        if self._peer is None:
            return
        if now >= self._until:
            self._fail(Refusal(504, "too_long", f"the answer took longer than {self.seconds:g} s"))
        elif not self._held and now >= self._last + self.stall_s:
            self._fail(Refusal(504, "stalled", f"the AI's server said nothing for {self.stall_s:g} s"))

    def _watch(self) -> None:
        if self._peer is not None:
            events = (0 if self._held else READ) | (WRITE if self._outbox else 0)
            if events:
                self.reactor.watch(self._peer.fileno(), events, self._ready)
            else:
                self.reactor.unwatch(self._peer.fileno())

    def _ready(self, ready: int) -> None:
        if self._peer is not None and ready & WRITE and self._outbox:
            self._send(self._peer)
        if self._peer is not None and ready & READ and not self._held:
            self._receive(self._peer)

    def _send(self, peer: socket.socket) -> None:
        try:
            self._outbox = self._outbox[peer.send(self._outbox) :]
        except BlockingIOError:
            return
        except OSError:
            self._outbox = self._outbox[:0]  # it may have answered and closed already: reading tells
        self._last = self.reactor.clock()
        if not self._outbox:
            self._watch()

    def _receive(self, peer: socket.socket) -> None:
        try:
            data, _, flags, _ = peer.recvmsg(READ_CHUNK)  # without room for descriptors, so that the kernel lets them go
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(Refusal(502, "server_gone", f"the AI's server went away: {error.strerror}", RETRY_S))
            return
        if flags & socket.MSG_CTRUNC:
            self._fail(Refusal(502, "bad_answer", "the AI's server passed a descriptor"))
            return
        self._last = self.reactor.clock()
        try:
            self._take(data)
        except BadAnswerError as bad:
            gone = not data
            self._fail(Refusal(502, "server_gone" if gone else "bad_answer", f"the AI's server: {bad}", RETRY_S if gone else None))

    def _take(self, data: bytes) -> None:
        body = b""
        if data:
            body = self._reader.feed(data)
        else:
            self._reader.ended()
        if self._reader.status and not self._headed:
            self._headed = True
            self.sink.head(self._reader)
        if body and self._peer is not None:
            self.sink.data(body)
        if self._reader.done and self._peer is not None:
            self.cancel()
            self.sink.end()

    def _fail(self, refusal: Refusal) -> None:
        self.cancel()
        self.sink.failed(refusal)
