"""What the control socket offers about the screen."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0.machines.screen import NAME, S
from bay0.screen.places import COMPOSITOR, SEAT

if TYPE_CHECKING:
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance, Step
    from bay0.pid1.reactor import Reactor
    from bay0.screen.port import Screen

WAITERS_MAX, WAIT_MAX_S = 16, 600.0


@define(eq=False, repr=False)
class ScreenMethods:
    """Answers `bay0 screen` where there is one."""

    engine: Engine
    reactor: Reactor
    screen: Screen
    _waiters: list[Callable[[Any], None]] = field(init=False, factory=list)  # for a screen that is ready

    def __attrs_post_init__(self) -> None:
        self.engine.on("screen", S.READY, call=self._ready)

    def show(self, wait: float, reply: Callable[[Any], None]) -> None:
        """Answer with how it is; with `wait`, once it is ready, or after so many seconds."""
        live = self.engine.instances.get(NAME)
        if not wait or live is None or live.now is S.READY or len(self._waiters) >= WAITERS_MAX:
            reply(self.describe())
            return

        def late() -> None:
            if reply in self._waiters:
                self._waiters.remove(reply)
                reply(self.describe())

        self._waiters.append(reply)
        self.reactor.call_later(min(wait, WAIT_MAX_S), late)

    def _ready(self, _screen: Instance, _step: Step) -> None:
        waiters, self._waiters = self._waiters, []
        for each in waiters:
            each(self.describe())

    def describe(self) -> dict[str, Any]:
        """Return what `bay0 screen` shows."""
        screen, live = self.screen, self.engine.instances.get(NAME)
        state = live.now if live is not None else S.DARK
        found = screen.proof if state is S.READY else None
        pid, version = (found.pid, found.version) if found is not None else (None, None)
        sockets = (screen.places.wayland, screen.places.ipc)
        return {
            "state": state.value,
            "why": live.committed.why if live is not None and live.committed is not None else "",
            "seat": self._tenant(SEAT),
            "compositor": {**self._tenant(COMPOSITOR), "version": version},
            "sockets": [{"path": path, "proved": found is not None, "pid": pid} for path in sockets],
            "globals": len(found.globals) if found is not None else None,
            "outputs": found.outputs if found is not None else [],
            "inputs": [
                {"node": each.node, "name": each.name, "kinds": [kind.lower() for kind in each.kinds]}
                for each in screen.hotplug.devices
            ],
            "impostors": screen.impostors,
            "front": screen.windows.front,
            "personas": screen.windows.describe(),
            "console_taken": screen.console.taken,
        }

    def _tenant(self, name: str) -> dict[str, Any]:
        live = self.engine.instances.get(name)
        return {
            "name": name,
            "state": live.now.value if live is not None else "absent",
            "pid": self.screen.services.pid(name),
            "attempts": live.attempts if live is not None else 0,
        }
