"""The bus of steps: who wants to hear of a step hears of it once it is whole, in the order in which steps were taken.

A step's effect may send an event at once, whose step is then taken within the first one's. Told at once, the news of
the second would come before the first's. So news waits until the outermost step is whole; what is told may send
events, too, and the news of those steps comes behind what waits already (run to completion, as in UML and SCXML).
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from attrs import define, field, frozen

if TYPE_CHECKING:
    from bay0.machines.instance import Instance, Step

ANY = "*"  # every kind

Call = Callable[["Instance", "Step"], None]


@frozen(eq=False, repr=False)
class _Subscription:
    """`states`: the values of the destinations it is about, () for all. `of`: the machine, None for each of the kind."""

    states: tuple[str, ...]
    call: Call
    of: Instance | None

    def wants(self, instance: Instance, step: Step) -> bool:
        return (not self.states or step.dest in self.states) and (self.of is None or self.of is instance)


@define(eq=False, repr=False)
class Bus:
    """Subscriptions, and the news that waits."""

    _by_kind: dict[str, list[_Subscription]] = field(init=False, factory=dict)
    _news: deque[tuple[Instance, Step]] = field(init=False, factory=deque)
    _depth: int = field(init=False, default=0)  # of steps that are not whole yet
    _telling: bool = field(init=False, default=False)

    def subscribe(self, kind: str, states: tuple[str, ...], call: Call, of: Instance | None) -> None:
        """See `Engine.on`. Calls for one kind come before those for `ANY`, each in the order in which they subscribed."""
        self._by_kind.setdefault(kind, []).append(_Subscription(states, call, of))

    @contextlib.contextmanager
    def step(self, instance: Instance, step: Step) -> Iterator[None]:
        """Take a step within this block; its news is told behind it."""
        self._news.append((instance, step))
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
        if not self._depth and not self._telling:
            self._tell()

    def _tell(self) -> None:
        self._telling = True
        try:
            while self._news:
                instance, step = self._news.popleft()
                for each in (*self._by_kind.get(step.kind, ()), *self._by_kind.get(ANY, ())):
                    if each.wants(instance, step):
                        each.call(instance, step)
        finally:
            self._telling = False
