"""What starts with the spine: personas and the AI, once init is complete and what was stored is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from attrs import define

from bay0.base.errors import RefusedError
from bay0.machines import boot, server

if TYPE_CHECKING:
    from bay0.loading.late import Late
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance, Step
    from bay0.pid1.reactor import Reactor
    from bay0.reconcile.mending import Mending
    from bay0.reconcile.replay import Replay

SERVERS_AFTER_S = 0.2  # init complete is not held up by what they load
SERVERS_AGAIN_S = 30.0


class WithTheSpine(Protocol):
    """What starts some of its machines."""

    def autostart(self) -> None:
        """Start those that are marked so."""


@define(eq=False, repr=False)
class Autostart:
    """Begins when both are true, whichever comes last: a disk that came late is reconciled late. `boot`: this boot's machine."""

    engine: Engine
    reactor: Reactor
    log: Any
    boot: Instance
    replay: Replay
    personas: WithTheSpine
    servers: Late[Any]  # ai.port.Ai
    mending: Mending

    def __attrs_post_init__(self) -> None:
        self.engine.on("boot", boot.S.COMPLETE, call=self._completed, of=self.boot)
        self.replay.when_known(self._begin)

    def _completed(self, _boot: Instance, _step: Step) -> None:
        self._begin()

    def _begin(self) -> None:
        if self.boot.now is boot.S.COMPLETE and self.replay.known:
            self.personas.autostart()
            if server.NAME in self.engine.instances:
                self.reactor.call_later(SERVERS_AFTER_S, self._load_servers)

    def _load_servers(self) -> None:
        self.servers.load(self.reactor.call_soon, self._servers_loaded)

    def _servers_loaded(self, _loaded: None) -> None:
        if self.boot.now is not boot.S.COMPLETE:
            return
        try:
            servers = self.servers()
        except RefusedError as error:
            self.log.error("servers not loaded", why=str(error))
            self.reactor.call_later(SERVERS_AGAIN_S, self._load_servers)
            return
        servers.autostart(self.mending.images)
