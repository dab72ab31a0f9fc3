"""After each turn of the reactor: the watchdog is fed, and the console gets what it did not take before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import define

from bay0.machines import boot

if TYPE_CHECKING:
    from bay0.effects.shield import Watchdog
    from bay0.log import Sinks
    from bay0.machines.instance import Instance
    from bay0.pid1.reactor import Reactor

GUARDED = (boot.S.POWERING, boot.S.FORCING)  # from here on the watchdog is the last word


@define(eq=False, repr=False)
class Pulse:
    """`boot`: this boot's machine."""

    reactor: Reactor
    log: Any
    sinks: Sinks
    watchdog: Watchdog
    boot: Instance

    def __attrs_post_init__(self) -> None:
        self.reactor.after_turn.append(self._turned)

    def _turned(self) -> None:
        if self.boot.now not in GUARDED:
            self._feed()
        self.sinks.console.push()

    def _feed(self) -> None:
        if self.watchdog.feed(self.reactor.clock()):
            if self.watchdog.failing:
                self.log.warning("watchdog fails", device=self.watchdog.path, why=self.watchdog.failing)
            else:
                self.log.info("watchdog is fed again", device=self.watchdog.path)
