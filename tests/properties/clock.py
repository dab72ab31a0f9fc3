"""Modelled time: nothing waits, time jumps to the next timer; and the log, which is read by that time."""

from __future__ import annotations

import selectors
from collections import deque
from typing import TYPE_CHECKING, Any

from bay0.pid1.reactor import Reactor

if TYPE_CHECKING:
    from world import World


class SimSelector:
    """Real readiness, modelled waiting: when nothing is ready, time jumps."""

    def __init__(self, world: World) -> None:
        self.world, self.real = world, selectors.DefaultSelector()
        self.get_map, self.modify = self.real.get_map, self.real.modify
        self.register, self.unregister = self.real.register, self.real.unregister

    def select(self, _timeout: float | None) -> Any:
        self.world.pump()  # may set timers
        timeout = self.world.spine.reactor._wait(None)
        ready = self.real.select(0)
        if not ready and timeout:
            self.world.now += timeout
        return ready


class SimReactor(Reactor):
    """`run` returns at once: the world turns it."""

    def run(self) -> None:
        self._running = True


class SimLog:
    """The last lines, for a person who reads a failure."""

    def __init__(self, world: World) -> None:
        self.world, self.lines = world, deque(maxlen=400)

    def _line(self, event: str, **keys: Any) -> None:
        self.lines.append((round(self.world.now, 3), event, keys))

    debug = info = warning = error = critical = _line
