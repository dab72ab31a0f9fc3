"""What a tenant's process prints, as it comes: a pipe whose other end each process of it is lent in turn. Always read, so that none waits."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import define, field

from bay0.pid1.reactor import READ

if TYPE_CHECKING:
    from bay0.pid1.reactor import Reactor


@define(eq=False, repr=False)
class Pipe:
    """`heard` is called with what came, at most `chunk` bytes in a turn, and with b"" once the process has ended."""

    reactor: Reactor
    heard: Callable[[bytes], None]
    chunk: int
    _channel: socket.socket | None = field(init=False, default=None)

    def lend(self) -> socket.socket:
        """Return the end that the next process writes to. `OSError` if there is no descriptor left."""
        self.close()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        self._channel = ours
        self.reactor.watch(ours.fileno(), READ, self._ready)
        return theirs

    def close(self) -> None:
        """Listen to nobody; harmless when that is so."""
        if self._channel is not None:
            self.reactor.unwatch(self._channel.fileno())
            self._channel.close()
            self._channel = None

    def _ready(self, _ready: int) -> None:
        if self._channel is None:
            return
        try:
            data = self._channel.recv(self.chunk)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
        self.heard(data)
