"""A text for whoever pastes: written by a command, since what he hands us to write to may hold up who writes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from attrs import define, field

if TYPE_CHECKING:
    from bay0.effects.spawn import Result, Spawner
    from bay0.pid1.reactor import Reactor

WRITE_S = 5.0  # from the question until the text was taken
AT_ONCE = 4  # commands that write
EVERY_S = 0.05  # from one to the next: a program may ask without end


@define(eq=False, repr=False)
class Giver:
    """See above."""

    spawner: Spawner
    reactor: Reactor
    log: Any
    _writing: int = field(init=False, default=0)
    _next: float = field(init=False, default=0.0)

    def give(self, text: bytes, fd: int) -> None:
        """Have `text` written to `fd`, which is closed. One who asks too often has nothing."""
        try:
            now = self.reactor.clock()
            if self._writing < AT_ONCE and now >= self._next:
                self._next = now + EVERY_S
                self._start(text, fd)
        except OSError as error:
            self.log.warning("a text is not given", why=str(error))
        finally:
            os.close(fd)

    def _start(self, text: bytes, fd: int) -> None:
        held = os.memfd_create("bay0-clipboard", os.MFD_CLOEXEC)
        try:
            os.write(held, text)  # memory: it takes all of it
            os.lseek(held, 0, os.SEEK_SET)
            self._writing += 1
            files = [(os.POSIX_SPAWN_DUP2, held, 0), (os.POSIX_SPAWN_DUP2, fd, 1)]
            self.spawner.run("clipboard", ["cat"], WRITE_S, self._done, files=files)
        finally:
            os.close(held)

    def _done(self, _result: Result) -> None:
        self._writing -= 1
