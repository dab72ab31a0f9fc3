"""How fast this machine is, said as the patience it needs: 1 where the bounds are right as they are, 5 where all takes five times as long.

At boot the time in which this program was loaded tells. While it runs a fixed loop does, in small slices over a second, begun when a bound
was missed: was that the machine, or a disk? It is PID 1's own loop, which has the processor before all others of this machine: what slows it
is what the machine runs on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0.base.patience import remedy
from bay0.machines import storage
from bay0.machines.bus import ANY
from bay0.machines.table import TIMED_OUT

if TYPE_CHECKING:
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance, Step
    from bay0.pid1.reactor import Reactor

# Where a patience of 1 is right. Measured on a machine without KVM on which 5 is, so that both say the same; the figures
# are in docs/OPERATIONS.md, "How much patience".
LOADED_MS = 460.0  # in which the program is loaded
ROUNDS = 1000  # of the loop in a slice
SLICE_S = 0.00033  # that a slice takes
SLICES, EVERY_S = 20, 0.05
AGAIN_S = 60.0  # between two looks, however many bounds are missed


def work() -> int:
    """Do the fixed piece of work of one slice."""
    found = 0
    for number in range(ROUNDS):
        found = (found * 33 + number) & 0xFFFF
    return found


@define(eq=False, repr=False)
class Speed:
    """What is known of it. `boot_needs`, `needs`: the patience needed, at boot and when a bound was missed last."""

    engine: Engine
    reactor: Reactor
    log: Any
    patience: float
    work: Callable[[], object] = work
    boot_needs: float = 0.0
    needs: float | None = None
    missed: int = 0
    _spent_s: float = field(init=False, default=0.0)
    _left: int = field(init=False, default=0)
    _not_before: float = field(init=False, default=0.0)

    def __attrs_post_init__(self) -> None:
        self.engine.on(ANY, call=self._stepped)

    def _stepped(self, instance: Instance, step: Step) -> None:
        if step.event == TIMED_OUT.lower() or (step.kind == "storage" and step.dest == storage.S.WEDGED.value):
            self.bound_missed(f"{instance.name}: {step.why}")

    def booted(self, loaded_ms: float) -> None:
        """Say at boot how fast the machine is."""
        self.boot_needs = round(loaded_ms / LOADED_MS, 1)
        self.log.info("speed", needs_patience=self.boot_needs, patience=self.patience)

    def bound_missed(self, what: str) -> None:
        """Hear that a bound was missed, and find out whether that was the machine's slowness."""
        self.missed += 1
        if self._left or self.reactor.clock() < self._not_before:
            return
        self._left, self._spent_s = SLICES, 0.0
        self._slice(what)

    def _slice(self, what: str) -> None:
        began = self.reactor.clock()
        self.work()
        self._spent_s += self.reactor.clock() - began
        self._left -= 1
        if self._left:
            self.reactor.call_later(EVERY_S, lambda: self._slice(what))
        else:
            self._judge(what)

    def _judge(self, what: str) -> None:
        self._not_before = self.reactor.clock() + AGAIN_S
        self.needs = round(self._spent_s / SLICES / SLICE_S, 1)
        if self.needs > self.patience:
            self.log.warning(
                "bounds are missed because this machine is slow, not by a disk",
                last=what, needs_patience=self.needs, patience=self.patience, remedy=remedy(self.needs),
            )  # fmt: skip
        else:
            self.log.info("a bound was missed, and not by slowness", last=what, needs_patience=self.needs, patience=self.patience)

    def describe(self) -> dict[str, Any]:
        """Return it as `bay0 status` shows it."""
        return {"boot_needs": self.boot_needs, "needs": self.needs, "patience": self.patience, "missed": self.missed}
