"""Who wants to begin stands in a line: each has its turn in the order it asked, a few at a time; one that is not wanted any more has none.

Personas start from here. Without it each start would put its calls into podman's own queue: an image would be loaded behind a
hundred starts that wait for it, a stop would wait for them, and each would use up its bound by waiting. Pure but for the clock.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from attrs import define, field, frozen

GUESS_S = 1.0  # of a turn, before one has ended
WEIGHT = 0.25  # of the newest turn in the pace
Over = Callable[[], None]  # ends a turn; calling it again changes nothing


@frozen(eq=False)
class _Waits:
    wanted: Callable[[], bool]
    begin: Callable[[Over], None]


@define(eq=False, repr=False)
class Line:
    """A line of names; `at_once` of them have their turn at a time. `pace_s`: what a turn takes, as the last ones did."""

    clock: Callable[[], float]
    soon: Callable[[Callable[[], None]], None]
    at_once: int
    pace_s: float = GUESS_S
    _waiting: dict[str, _Waits] = field(factory=dict)  # in their order
    _busy: set[object] = field(factory=set)

    @property
    def waiting(self) -> int:
        """How many have not had their turn yet."""
        return len(self._waiting)

    def stand(self, name: str, wanted: Callable[[], bool], begin: Callable[[Over], None]) -> bool:
        """Call `begin` once its turn has come; never, if it is not `wanted` then or left before. Tell whether it has to wait."""
        self._waiting.pop(name, None)  # an earlier wish of the same name has been overtaken
        self._waiting[name] = waits = _Waits(wanted, begin)
        self._go_on()
        return self._waiting.get(name) is waits

    def leave(self, name: str) -> bool:
        """Take one out of the line; False: it does not wait there."""
        return self._waiting.pop(name, None) is not None

    def wait_s(self) -> float:
        """Return how long one that came now would wait, at the pace of the last turns."""
        return self.pace_s * (len(self._waiting) // self.at_once)

    def _go_on(self) -> None:
        while self._waiting and len(self._busy) < self.at_once:
            first = self._waiting.pop(next(iter(self._waiting)))
            if first.wanted():
                turn = object()
                self._busy.add(turn)
                first.begin(partial(self._over, turn, self.clock()))

    def _over(self, turn: object, since: float) -> None:
        if turn in self._busy:
            self._busy.discard(turn)
            self.pace_s += WEIGHT * (self.clock() - since - self.pace_s)
            self.soon(self._go_on)
