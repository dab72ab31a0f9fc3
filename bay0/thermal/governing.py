"""The governor begins a few seconds after init is complete, so that a boot does not pay for it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define

from bay0.base.errors import RefusedError
from bay0.machines import boot

if TYPE_CHECKING:
    from bay0.control.server import Method, Reply
    from bay0.loading.late import Late
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance, Step
    from bay0.pid1.reactor import Reactor
    from bay0.thermal.governor import Keeper
    from bay0.thermal.reserve import Reserve

AFTER_S = 5.0
PART_S = 0.1  # between two modules: nothing waits for them
AGAIN_S = 30.0


@define(eq=False, repr=False)
class Governing:
    """Loads the governor, a module a turn since each takes its time on a slow machine, and lets it begin. `boot`: this boot's machine.

    `wanted`: not turned off on the kernel command line. Then `reserve` still keeps the spine's share of memory: without it
    a persona that takes all evicts PID 1's own program.
    """

    engine: Engine
    reactor: Reactor
    log: Any
    boot: Instance
    wanted: bool
    keeper: Late[Keeper]
    reserve: Late[Reserve]

    def __attrs_post_init__(self) -> None:
        self.engine.on("boot", boot.S.COMPLETE, call=self._completed, of=self.boot)

    def methods(self) -> dict[str, Method]:
        """Return method name -> function."""
        return {"governor": self.show}

    def show(self, _params: Mapping[str, Any], reply: Reply) -> None:
        """Answer with what the governor sees, whom it restrains and why."""
        if self.keeper.made is None:
            soon = "the governor begins a few seconds after init is complete"
            raise RefusedError(soon if self.wanted else "bay0.governor=off on the kernel command line")
        reply(self.keeper.made.show())

    def _completed(self, _boot: Instance, _step: Step) -> None:
        self.reactor.call_later(AFTER_S, self._load)
        if not self.wanted:
            self.log.warning("nobody is governed", why="bay0.governor=off on the kernel command line")

    def _load(self) -> None:
        if self.boot.now is boot.S.COMPLETE:
            part = self.keeper if self.wanted else self.reserve
            part.load(partial(self.reactor.call_later, PART_S), self._loaded)

    def _loaded(self, _loaded: None) -> None:
        if self.boot.now is not boot.S.COMPLETE:
            return
        try:
            if not self.wanted:
                self.reserve().keep()
                return
            keeper = self.keeper()
        except RefusedError as error:
            self.log.error("governor not loaded", why=str(error))
            self.reactor.call_later(AGAIN_S, self._load)
            return
        self.log.info("governor begins")
        self.reactor.call_soon(keeper.begin)
