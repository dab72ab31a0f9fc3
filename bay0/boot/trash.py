"""What was taken away is deleted a piece at a time, so that no other request of the disk waits long behind it: homes, logs, copies given up."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0.base import names
from bay0.machines import boot, persona, snapshot, storage

if TYPE_CHECKING:
    from bay0.base.bounds import Bounds
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance, Step
    from bay0.pid1.reactor import Reactor
    from bay0.state.link import Answer
    from bay0.state.port import StatePort

AGAIN_S = 0.5
COPIED = {"persona": (*persona.MADE, *persona.GOES_BACK), "snapshot": snapshot.MADE}  # what lies beside its place is wanted


@define(eq=False, repr=False)
class Trash:
    """Sweeps what an earlier boot left once init is complete or the disk comes back, and whenever it is asked to.

    `boot`: this boot's machine. `known`: whether what was stored is taken over, so that it can be told whose copy is still wanted.
    """

    engine: Engine
    reactor: Reactor
    bounds: Bounds
    log: Any
    state: StatePort
    boot: Instance
    known: Callable[[], bool]
    _sweeping: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self.engine.on("boot", boot.S.COMPLETE, call=self._may_hold, of=self.boot)
        self.engine.on("storage", storage.S.DURABLE, call=self._may_hold, of=self.state.storage)  # a worker that was replaced may have left some

    def _may_hold(self, _instance: Instance, _step: Step) -> None:
        if self.boot.now is boot.S.COMPLETE:
            self.sweep()

    def sweep(self) -> None:
        """Delete what there is. One sweep at a time, however many homes there are: each takes its part of the worker's time."""
        if self.state.healthy and not self._sweeping:
            self._sweeping = True
            self._give_up()
            self.state.ask("trash_sweep", self.bounds.open, self._swept)

    def _give_up(self) -> None:
        """Take away what lies beside the place of a home and is not wanted there any more: a crash left it."""
        if self.known():
            made = [i.name for kind, states in COPIED.items() for i in self.engine.of_kind(kind) if i.now in states]
            self.state.ask("staging_clear", self.bounds.open, self._given_up, wanted=[names.on_disk(name) for name in made])

    def _given_up(self, answer: Answer) -> None:
        if answer.ok and answer.value:
            self.log.info("copies that were given up are taken away", of=", ".join(answer.value))

    def _swept(self, answer: Answer) -> None:
        self._sweeping = False
        if answer.ok and answer.value:
            self._sweeping = True
            self.reactor.call_later(AGAIN_S, self._again)
        elif answer.ok:
            self.state.ask("trash_left", self.bounds.open, self._left)

    def _left(self, answer: Answer) -> None:
        if answer.ok and answer.value:
            self.log.warning("taken away and not deleted", left=answer.value)

    def _again(self) -> None:
        self._sweeping = False
        self.sweep()
