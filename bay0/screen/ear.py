"""What seat and compositor print goes to the log, a few lines at a time.

Always read, so that they never wait for us.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0.tenants.pipe import Pipe

if TYPE_CHECKING:
    import socket

    from bay0.pid1.reactor import Reactor

CHUNK = 16 << 10  # bytes taken in a turn
LINE_MAX = 200  # characters of one line that are kept
LINES, IN_S = 20, 10.0  # so many lines are logged in so many seconds; the others are counted


@define(eq=False, repr=False)
class Ear:
    """Listens to the process of one tenant after the other."""

    reactor: Reactor
    log: Any
    name: str
    _pipe: Pipe = field(init=False)
    _rest: bytes = b""
    _since: float = field(init=False, default=0.0)
    _said: int = field(init=False, default=0)
    _unsaid: int = field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        self._pipe = Pipe(self.reactor, self._heard, CHUNK)

    def lend(self) -> socket.socket:
        """Return the end that the next process writes to. `OSError` if there is no descriptor left."""
        self._rest = b""
        return self._pipe.lend()

    def close(self) -> None:
        """Listen to nobody; harmless when that is so."""
        self._pipe.close()

    def _heard(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > CHUNK:
            self._rest = self._rest[:LINE_MAX]
        for line in lines:
            self._say(line)
        if not data:
            self._say(self._rest)

    def _say(self, line: bytes) -> None:
        text = "".join(
            c if c.isprintable() else "?"
            for c in line[: 4 * LINE_MAX].decode("utf-8", "replace").strip()[:LINE_MAX]
        )
        if not text:
            return
        now = self.reactor.clock()
        if now - self._since >= IN_S:
            if self._unsaid:
                self.log.info("lines not logged", service=self.name, lines=self._unsaid)
            self._since, self._said, self._unsaid = now, 0, 0
        if self._said >= LINES:
            self._unsaid += 1
            return
        self._said += 1
        self.log.info("service says", service=self.name, text=text)
