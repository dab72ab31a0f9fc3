"""What becomes of machines, for those who asked: the rest they come to, and their last steps."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from attrs import define, field

from bay0.machines.bus import ANY

if TYPE_CHECKING:
    from bay0.base.bounds import Bounds
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance, Step
    from bay0.pid1.reactor import Reactor, Timer

STEPS_KEPT = 20  # of each machine
FORGOTTEN = "absent"  # the state of a machine that is about to be forgotten


def rests(instance: Instance) -> bool:
    """Tell whether a machine has no effect under way, and no commit."""
    return instance.pending is None and instance.definition.spec(instance.now).busy is None


@define(eq=False, repr=False)
class _Waiter:
    """One who waits for `instance` to rest; `then` is told whether it does, once."""

    instance: Instance
    then: Callable[[bool], None]
    timer: Timer | None = None


@define(eq=False, repr=False)
class Outcomes:
    """Hears of every step."""

    engine: Engine
    reactor: Reactor
    bounds: Bounds
    _recent: dict[str, deque[Step]] = field(init=False, factory=dict)
    _waiters: list[_Waiter] = field(init=False, factory=list)

    def __attrs_post_init__(self) -> None:
        self.engine.on(ANY, call=self._stepped)

    def recent(self, name: str) -> tuple[Step, ...]:
        """Return the last steps of a machine in this boot, oldest first."""
        return tuple(self._recent.get(name, ()))

    def when_rested(self, instance: Instance, *, wait: bool, then: Callable[[bool], None]) -> None:
        """Call `then(True)` once the machine rests, or `then(False)` when the bound for verbs is over; without `wait` at once."""
        if not wait or rests(instance):
            then(rests(instance))
            return
        waiter = _Waiter(instance, then)
        waiter.timer = self.reactor.call_later(self.bounds.verb, partial(self._over, waiter, settled=False))
        self._waiters.append(waiter)

    def _over(self, waiter: _Waiter, *, settled: bool) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)
            if waiter.timer is not None:
                waiter.timer.cancel()
            waiter.then(settled)

    def _stepped(self, instance: Instance, step: Step) -> None:
        if step.dest == FORGOTTEN:
            self._recent.pop(instance.name, None)
        elif instance.definition.resident:
            self._recent.setdefault(instance.name, deque(maxlen=STEPS_KEPT)).append(step)
        for waiter in tuple(self._waiters):
            if waiter.instance is instance and rests(instance):
                self.reactor.call_soon(partial(self._over, waiter, settled=True))
