"""A connection to the compositor, in PID 1's reactor: bytes out, bytes in, and its end.

Nothing here waits.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from attrs import define, field

from bay0.base.errors import Bay0Error
from bay0.effects import peers
from bay0.pid1.reactor import READ, WRITE

if TYPE_CHECKING:
    from bay0.effects.peers import Answerer
    from bay0.pid1.reactor import Reactor

CHUNK = 64 << 10  # bytes taken in a turn
FDS_MAX = 28  # descriptors with one message: what libwayland reads at once
OUTBOX_MAX = 256 << 10  # bytes that wait for the compositor to read; more means that it does not


@define(eq=False, repr=False)
class Stream:
    """See above. `heard`: takes what came; what it raises ends the connection.

    `ended(why)`: once, if it did not end by `close`.
    """

    reactor: Reactor
    peer: socket.socket
    heard: Callable[[bytes], None]
    ended: Callable[[str], None]
    who: Answerer = field(init=False)
    open: bool = field(init=False, default=True)
    takes: list[int] | None = field(init=False, default=None)  # descriptors that came; None: none is taken
    _outbox: bytearray = field(init=False, factory=bytearray)
    _fds: list[int] = field(init=False, factory=list)  # our copies of what goes with it

    def __attrs_post_init__(self) -> None:
        self.who = peers.identify(self.peer)
        self.reactor.watch(self.peer.fileno(), READ, self._ready)

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send `data` behind what waits already, and copies of `fds` no later than it; one who does not read is hung up on.

        `OSError`: no descriptor is free for a copy.
        """
        if not self.open:
            return
        self._fds += [os.dup(fd) for fd in fds]
        self._outbox += data
        if len(self._outbox) > OUTBOX_MAX:
            self.reactor.call_soon(lambda: self._end("it does not read what it is told"))
            return
        self._push()

    def close(self) -> None:
        """Hang up; harmless when that has happened."""
        if self.open:
            self.open = False
            self.reactor.unwatch(self.peer.fileno())
            self.peer.close()
            self._close_fds(len(self._fds))
            while self.takes:
                os.close(self.takes.pop())

    def _close_fds(self, count: int) -> None:
        gone, self._fds = self._fds[:count], self._fds[count:]
        for fd in gone:
            os.close(fd)

    def _end(self, why: str) -> None:
        if self.open:
            self.close()
            self.ended(why)

    def _push(self) -> None:
        try:
            while self._outbox:
                fds = self._fds[:FDS_MAX]
                sent = socket.send_fds(self.peer, [self._outbox], fds) if fds else self.peer.send(self._outbox)
                del self._outbox[:sent]
                self._close_fds(len(fds))
        except BlockingIOError:
            pass
        except OSError as error:
            why = f"it hung up: {error.strerror}"
            self.reactor.call_soon(lambda: self._end(why))
            return
        self.reactor.watch(self.peer.fileno(), READ | WRITE if self._outbox else READ, self._ready)

    def _ready(self, ready: int) -> None:
        if ready & WRITE:
            self._push()
        if ready & READ and self.open:
            self._hear()

    def _receive(self) -> bytes:
        """Without room for control messages a descriptor that is passed is not installed."""
        if self.takes is None:
            return self.peer.recv(CHUNK)
        data, fds, _flags, _address = socket.recv_fds(self.peer, CHUNK, FDS_MAX, socket.MSG_CMSG_CLOEXEC)
        self.takes += fds
        return data

    def _hear(self) -> None:
        try:
            data = self._receive()
        except BlockingIOError:
            return
        except OSError as error:
            self._end(f"it hung up: {error.strerror}")
            return
        if not data:
            self._end("it hung up")
            return
        try:
            self.heard(data)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, Bay0Error) as nonsense:
            self._end(f"what it says makes no sense: {nonsense}"[:200])
