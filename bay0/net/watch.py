"""What brings the network up again: a boot that finds it wanted, and an end that nobody asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define

from bay0.machines import boot
from bay0.machines.net import NAME, E, S

if TYPE_CHECKING:
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance, Step
    from bay0.pid1.reactor import Reactor
    from bay0.reconcile.replay import Replay

AGAIN_S = 1.0  # init complete is not held up by what it loads


@define(eq=False, repr=False)
class NetWatch:
    """`boot`: this boot's machine."""

    engine: Engine
    reactor: Reactor
    boot: Instance
    replay: Replay

    def __attrs_post_init__(self) -> None:
        self.engine.on("boot", boot.S.COMPLETE, call=self._stepped, of=self.boot)
        self.engine.on("net", S.OFF, call=self._stepped)
        self.replay.when_known(self._soon)

    def _stepped(self, _instance: Instance, _step: Step) -> None:
        self._soon()

    def _soon(self) -> None:
        self.reactor.call_later(AGAIN_S, self._raise)

    def _raise(self) -> None:
        net = self.engine.instances.get(NAME)
        known = self.boot.now is boot.S.COMPLETE and self.replay.known
        if (
            net is not None
            and known
            and net.now in (S.OFF, S.FAILED)
            and net.desired == "running"
            and net.pending is None
        ):
            self.engine.send(NAME, E.RAISE, "it is wanted")
