"""Restarts: what is stopped only to be started again. In memory alone: after a power cut it is stopped, as everything that ran is."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from attrs import define, field

from bay0.machines.boot import LEAVES
from bay0.machines.persona import E, S

if TYPE_CHECKING:
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance, Step
    from bay0.pid1.reactor import Reactor


@define(eq=False, repr=False)
class Restarts:
    """Hears of each step of personas. `boot`: this boot's machine."""

    engine: Engine
    reactor: Reactor
    boot: Instance
    _under_way: dict[str, int] = field(init=False, factory=dict)  # name -> the number of the step that stops it

    def __attrs_post_init__(self) -> None:
        self.engine.on("persona", call=self._stepped)
        self.engine.on("boot", *LEAVES, call=self._leaves, of=self.boot)

    def __contains__(self, name: str) -> bool:
        return name in self._under_way

    def begin(self, instance: Instance, stopped_by: Step | None) -> None:
        """Start it once it is stopped, which step `stopped_by` leads to, or, without one, what is under way or over already."""
        self._under_way[instance.name] = stopped_by.n if stopped_by is not None else 0
        if instance.now is S.STOPPED:
            self.reactor.call_soon(partial(self._start, instance.name))

    def not_wanted(self, name: str) -> None:
        """Do not start it again: somebody has asked for it to stop, be it stopped already."""
        self._under_way.pop(name, None)

    def _leaves(self, _boot: Instance, _step: Step) -> None:
        self._under_way.clear()

    def _stepped(self, instance: Instance, step: Step) -> None:
        """Start it if it is stopped; not if another stop, or a reset, came since, nor if it could not be cleared for good."""
        name = instance.name
        if name not in self._under_way:
            return
        other_stop = step.event == E.STOP.value and step.n != self._under_way[name]
        if other_stop or step.event == E.RESET.value or instance.now in (S.ABSENT, S.FAILED, S.STARTING):
            del self._under_way[name]
        elif instance.now is S.STOPPED:
            self.reactor.call_soon(partial(self._start, name))

    def _start(self, name: str) -> None:
        if self._under_way.pop(name, None) is not None and name in self.engine.instances:
            self.engine.send(name, E.START, "asked to restart it")
