"""The switch: thaw the one that comes to the front, freeze the others. Each freeze takes its persona off the screen first (screen/windows.py).

It sends each persona its own event, hears of its steps, and waits for none longer than the focus machine's deadline: each is settled by its own
machine, whose desired state says where it is to go. Whoever is behind may go on if its manifest says so (`behind = "run"`).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0.machines import persona
from bay0.machines.focus import NAME, E, active
from bay0.pid1 import flow

if TYPE_CHECKING:
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance, Step
    from bay0.pid1.reactor import Reactor

LOOK_S = 1.0  # until all are looked at once more: a step that the disk refused is no news
LOOK, ASK, WORK_A_TURN = 1, 20, 400  # what a look and a step cost, beside each other; and how much of that a turn does
ALIVE = (persona.S.STARTING, *persona.HAS_CONTAINER)


def _there(instance: Instance, front: str | None, runs_behind: Callable[[Instance], bool]) -> bool:
    """Tell whether a persona is where the switch wants it: the one in front runs, the others do not, unless they may."""
    if instance.name == front:
        return instance.now is persona.S.RUNNING
    return instance.now not in ALIVE or instance.now is persona.S.PAUSED or runs_behind(instance)


@define(eq=False, repr=False)
class Focus:
    """The effect port of the focus machine. `runs_behind`: what goes on while another one is in front."""

    engine: Engine
    reactor: Reactor
    log: Any
    runs_behind: Callable[[Instance], bool]
    _asked: set[str] = field(init=False, factory=set)
    _moved: dict[str, Instance] = field(init=False, factory=dict)  # who has taken a step since it was looked at
    _news: Callable[[], None] | None = field(init=False, default=None)  # to go on with those
    _switches: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self.engine.on("persona", *(state for state in persona.S if state not in ALIVE), call=self._lost)
        self.engine.on("persona", call=self._stepped)

    def start(self, instance: Instance, _effect: Enum, token: int) -> None:
        """Switch."""
        self._asked, self._moved, self._news, self._switches = set(), {}, None, True

        def owed() -> bool:
            return instance.committed is not None and instance.committed.n == token

        def ended(outcome: tuple[E, str] | None) -> None:
            if outcome is not None:  # else a newer switch is under way, or none is wanted
                self._switches = False
                self.reactor.call_soon(partial(self.engine.outcome, instance.name, token, *outcome))

        flow.run(flow.as_long_as(owed, self._switch(active(instance))), ended)

    def _switch(self, front: str | None) -> flow.Flow[tuple[E, str]]:
        if front is None:  # or all would be frozen, for nobody
            return E.FAULT, "who is in front cannot be read"
        instance = self.engine.instances.get(front)
        if instance is not None and instance.definition.kind == "persona":
            self._thaw(instance)  # before any other is frozen
        while late := (yield from self._look(self._personas(), front)):
            while late and (yield self._wait):
                moved, self._moved = list(self._moved.values()), {}
                late -= {each.name for each in moved}
                late |= yield from self._look(moved, front)
        return E.DONE, ""

    def _look(self, personas: list[Instance], front: str) -> flow.Flow[set[str]]:
        """Look at each of them once, some of them in a turn, and freeze whom it finds behind; return who is still on the way."""
        late, work = set(), 0
        for instance in personas:
            work += LOOK
            if not _there(instance, front, self.runs_behind):
                late.add(instance.name)
                if instance.name == front:
                    work += ASK * self._thaw(instance)
                else:
                    states = (persona.S.RUNNING, persona.S.RESUMING)
                    work += ASK * self._ask(instance, persona.E.PAUSE, f"{front} is in front", states)
            if work >= WORK_A_TURN:
                work = 0
                yield self._next_turn
        return late

    def _thaw(self, front: Instance) -> bool:
        return self._ask(front, persona.E.RESUME, "it comes to the front", (persona.S.PAUSED, persona.S.PAUSING))

    def _wait(self, resume: flow.Resume) -> None:
        """Wait for a step of any persona (True), or for so long that all are looked at again (False)."""

        def go(*, news: bool) -> None:
            if self._news is heard:
                self._news = None
                timer.cancel()
                resume(news)

        heard = partial(go, news=True)
        self._news, timer = heard, self.reactor.call_later(LOOK_S, partial(go, news=False))
        if self._moved:
            self.reactor.call_soon(heard)

    def _stepped(self, instance: Instance, _step: Step) -> None:
        if not self._switches:
            return
        self._moved[instance.name] = instance
        if self._news is not None:
            self.reactor.call_soon(self._news)

    def _next_turn(self, resume: flow.Resume) -> None:
        self.reactor.call_soon(partial(resume, None))

    def _personas(self) -> list[Instance]:
        return list(self.engine.of_kind("persona"))

    def left(self, front: str | None) -> list[str]:
        """Return who is still on the way: the one in front does not run yet, or one behind it is not frozen."""
        return sorted(instance.name for instance in self._personas() if not _there(instance, front, self.runs_behind))

    def _ask(self, instance: Instance, event: persona.E, why: str, states: tuple[persona.S, ...]) -> bool:
        """Send `event` once, when it means something; tell whether it was sent."""
        if instance.name in self._asked or instance.now not in states or instance.pending:
            return False
        self._asked.add(instance.name)
        self.engine.send(instance.name, event, why)
        return True

    def _lost(self, instance: Instance, step: Step) -> None:
        """Put none in front when the one there has ended."""
        switch = self.engine.instances.get(NAME)
        if switch is not None and active(switch) == instance.name:
            self.engine.send(NAME, E.LOST, f"{instance.name} is {step.dest}")
