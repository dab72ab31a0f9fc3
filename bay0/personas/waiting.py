"""Waiting for personas: who asks is told when one is as he wants it, cannot become so by itself, or his time is over."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from attrs import define, field

from bay0.base.errors import RefusedError
from bay0.machines.persona import S

if TYPE_CHECKING:
    from enum import Enum

    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance, Step
    from bay0.pid1.reactor import Reactor, Timer

GOALS: dict[str, tuple[Enum, ...]] = {"running": (S.RUNNING,), "paused": (S.PAUSED,), "stopped": (S.STOPPED, S.FAILED)}
TIMEOUT_MAX_S = 3600.0
WAITERS_MAX = 512  # of all clients: each step of a persona looks at those who wait for it


def read(wanted: object, seconds: object) -> tuple[tuple[Enum, ...], float]:
    """Return the states that are waited for, and for how long. `ValueError`, `TypeError`: a parameter makes no sense."""
    if not isinstance(wanted, str) or wanted not in GOALS:
        raise ValueError(f"for is one of {', '.join(GOALS)}")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError("seconds is a number")
    if not 0 <= seconds <= TIMEOUT_MAX_S:
        raise ValueError(f"seconds is from 0 to {TIMEOUT_MAX_S:g}")
    return GOALS[wanted], float(seconds)


@define(eq=False, repr=False)
class _Waiter:
    """`then` is told once: whether the state was reached, and if not whether it cannot be any more."""

    states: tuple[Enum, ...]
    then: Callable[[bool, bool], None]
    timer: Timer | None = None


@define(eq=False, repr=False)
class Waiting:
    """Hears of each step of personas."""

    engine: Engine
    reactor: Reactor
    _waiters: dict[str, list[_Waiter]] = field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        self.engine.on("persona", call=self._stepped)

    def until(self, instance: Instance, states: tuple[Enum, ...], seconds: float, then: Callable[[bool, bool], None]) -> None:
        """Call `then(reached, ended)`: at once if that is known. `RefusedError`: too many wait."""
        if (known := _known(instance, states)) is not None or not seconds:
            then(*(known or (False, False)))
            return
        if sum(map(len, self._waiters.values())) >= WAITERS_MAX:
            raise RefusedError(f"{WAITERS_MAX} requests wait for personas already; ask again when fewer do")
        waiter = _Waiter(states, then)
        waiter.timer = self.reactor.call_later(seconds, partial(self._over, instance.name, waiter, reached=False, ended=False))
        self._waiters.setdefault(instance.name, []).append(waiter)

    def _over(self, name: str, waiter: _Waiter, *, reached: bool, ended: bool) -> None:
        left = self._waiters.get(name, [])
        if waiter not in left:
            return
        left.remove(waiter)
        if not left:
            del self._waiters[name]
        if waiter.timer is not None:
            waiter.timer.cancel()
        waiter.then(reached, ended)

    def _stepped(self, instance: Instance, _step: Step) -> None:
        for waiter in tuple(self._waiters.get(instance.name, ())):
            known = _known(instance, waiter.states)
            if known is not None:
                self.reactor.call_soon(partial(self._over, instance.name, waiter, reached=known[0], ended=known[1]))


def _known(instance: Instance, states: tuple[Enum, ...]) -> tuple[bool, bool] | None:
    """Return (reached, ended), or None while it may still come there."""
    if instance.now in states:
        return True, False
    return (False, True) if instance.now in (S.FAILED, S.ABSENT) else None
