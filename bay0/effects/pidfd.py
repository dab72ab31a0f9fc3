"""The end of a process that is not our child, seen by its pidfd (pidfd_open(2))."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import define

from bay0.base.errors import NONE_LEFT
from bay0.pid1.reactor import READ

if TYPE_CHECKING:
    from bay0.pid1.reactor import Reactor, Timer

AGAIN_S = 1.0


@define(eq=False, repr=False)
class Ends:
    """Watches one process."""

    reactor: Reactor
    _fd: int = -1
    _again: Timer | None = None

    def watch(self, pid: int, ended: Callable[[], None]) -> None:
        """Call `ended` in a later turn when `pid` has ended, or in the next turn if it is not there.

        The process that was watched before is forgotten. Without a descriptor nothing is known: that is tried again.
        """
        self.forget()
        try:
            self._fd = os.pidfd_open(pid)
        except (OSError, ValueError, OverflowError) as error:
            if isinstance(error, OSError) and error.errno in NONE_LEFT:
                self._again = self.reactor.call_later(AGAIN_S, lambda: self.watch(pid, ended))
            else:
                self.reactor.call_soon(ended)
            return

        def readable(_ready: int) -> None:
            self.forget()
            ended()

        self.reactor.watch(self._fd, READ, readable)

    def forget(self) -> None:
        """Watch nobody; harmless if nobody is watched."""
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._fd >= 0:
            self.reactor.unwatch(self._fd)
            os.close(self._fd)
            self._fd = -1
