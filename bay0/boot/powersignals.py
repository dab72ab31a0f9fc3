"""Signals that ask for the end of the machine: TERM and PWR by hand, INT by Ctrl-Alt-Del (reboot(2), LINUX_REBOOT_CMD_CAD_OFF)."""

from __future__ import annotations

import signal
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0.machines import boot

if TYPE_CHECKING:
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance
    from bay0.pid1.reactor import Reactor
    from bay0.pid1.reaper import Signals

# between two presses of Ctrl-Alt-Del; a keyboard repeats a key that is held after 0.25 s, and then faster
HELD_S, TWICE_S = 0.4, 3.0


@define(eq=False, repr=False)
class PowerSignals:
    """`boot`: this boot's machine."""

    engine: Engine
    reactor: Reactor
    log: Any
    boot: Instance
    _pressed_at: float | None = field(init=False, default=None)

    def subscribe(self, signals: Signals) -> None:
        """Take the signals that are about this; the others of those that PID 1 handles mean nothing, and are said."""
        signals.on[signal.SIGTERM] = lambda: self.stop("poweroff", "SIGTERM")
        signals.on[signal.SIGPWR] = lambda: self.stop("poweroff", "SIGPWR")
        signals.on[signal.SIGINT] = self.ctrl_alt_del
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signals.on[number] = partial(self.log.info, "signal noted, nothing to do", signal=number.name)

    def ctrl_alt_del(self) -> None:
        """Reboot; at a second press, by force. A key that is held down repeats itself and is one press."""
        now, before = self.reactor.clock(), self._pressed_at
        self._pressed_at = now
        if before is not None and HELD_S <= now - before <= TWICE_S:
            self.engine.send(self.boot.name, boot.E.FORCE, "Ctrl-Alt-Del twice", how="reboot")
            return
        self.log.warning("Ctrl-Alt-Del: the machine restarts", by_force=f"press it again within {TWICE_S:g} s")
        self.stop("reboot", "SIGINT (Ctrl-Alt-Del)")

    def stop(self, how: str, why: str) -> None:
        """Begin an orderly stop."""
        event = boot.E.POWEROFF if how == "poweroff" else boot.E.REBOOT
        self.engine.send(self.boot.name, event, why, how=how)
