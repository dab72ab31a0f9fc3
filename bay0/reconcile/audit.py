"""The look at what should not be there: containers of machines at rest, of nobody, or unknown to podman itself.

A call of podman that gave no answer may still do what it was asked, after its machine has converged. So reality is looked at now and then,
and soon after each such call.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0.base import names
from bay0.effects import cgroup
from bay0.machines import boot
from bay0.machines.table import CONVERGE
from bay0.podman.calls import Outcome, ghosts
from bay0.reconcile import plan as reconcile

if TYPE_CHECKING:
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance, Step
    from bay0.pid1.reactor import Reactor, Timer
    from bay0.podman.calls import Podman, Verdict
    from bay0.reconcile.clearing import Cleared, Clearing
    from bay0.state.port import StatePort

EVERY_S = 300.0
SOON_S = 20.0  # after a call that gave no answer
GHOST_GONE_S = 1.0


@define(eq=False, repr=False)
class Audit:
    """Looks at all of podman's containers, and into the cgroups they are in. `boot`: this boot's machine."""

    engine: Engine
    reactor: Reactor
    log: Any
    state: StatePort
    podman: Podman
    clearing: Clearing
    boot: Instance
    _groups: dict[str, Callable[[], set[str]]] = field(init=False, factory=dict)
    _paused: list[Callable[[Collection[str]], None]] = field(init=False, factory=list)
    _next: Timer | None = field(init=False, default=None)
    _asked: bool = field(init=False, default=False)  # somebody has a reason to look, such as a container of nobody that could not be removed

    def __attrs_post_init__(self) -> None:
        self.engine.on("boot", boot.S.COMPLETE, call=self._begin, of=self.boot)

    def look_into(self, group: str, meant: Callable[[], set[str]], paused: Callable[[Collection[str]], None]) -> None:
        """Look into the cgroup `group`, too; `meant` returns the ids of the containers that are meant to run there.

        `paused` is told the ids of those that podman calls paused, whatever group they are in.
        """
        self._groups[group] = meant
        self._paused.append(paused)

    def _begin(self, _boot: Instance, _step: Step) -> None:
        """Look now and then from now on."""
        self._look_in(EVERY_S)

    def soon_after(self, verdict: Verdict) -> None:
        """Look soon if a call gave no answer."""
        if verdict.outcome in (Outcome.TIMED_OUT, Outcome.ABANDONED):
            self.soon()

    def soon(self) -> None:
        """Look soon: there may be what nobody has seen yet. Also where there is no persona, which otherwise asks nothing of podman."""
        self._asked = True
        self._look_in(SOON_S)

    def _look_in(self, seconds: float) -> None:
        """Look in `seconds`, or earlier if that was said before."""
        if self._next is not None:
            if self._next.call is not None and self._next.due <= self.reactor.clock() + seconds:
                return
            self._next.cancel()
        self._next = self.reactor.call_later(seconds, self._look)

    def _look(self) -> None:
        self._look_in(EVERY_S)
        if not self.state.healthy:
            return
        if not self._asked and not any(i.seq for kind in reconcile.CONTAINED for i in self.engine.of_kind(kind)):
            return
        self._asked = False

        def listed(verdict: Verdict) -> None:
            if not verdict.ok:
                self.soon()
                return
            self._strays({each.name for each in verdict.value})
            paused = {each.id for each in verdict.value if each.state == "paused"}
            for told in self._paused if paused else ():
                told(paused)
            self._end_ghosts({each.id for each in verdict.value})

        self.podman.list(listed)

    def _strays(self, containers: set[str]) -> None:
        engine = self.engine
        ours = [i for kind in reconcile.CONTAINED for i in engine.of_kind(kind)]
        states = {i.name: i.now for i in ours}
        moving = {names.parse(i.name).podman for i in ours if i.pending is not None}
        haunted, orphans = reconcile.strays(states, containers - moving)
        for name in haunted:
            engine.send(name, engine.instances[name].definition.event(CONVERGE), "podman has a container of it")
        if orphans:
            self.log.warning("containers without a persona removed", containers=", ".join(orphans))
            self.sweep(orphans)

    def sweep(self, containers: Iterable[str]) -> None:
        """Remove containers of nobody, by podman's names."""
        for name in containers:
            self.clearing.clear(name, partial(self._swept, name))

    def _swept(self, name: str, cleared: Cleared) -> None:
        if not cleared.gone:
            self.log.error("container not removed", container=name, why=cleared.why)
            self.soon()

    def _end_ghosts(self, known: set[str]) -> None:
        """End containers that podman itself knows nothing of: it was killed while it made one. Not while one is being made."""
        if self.podman.under_way or self.podman.waiting:
            self.soon()
            return
        for directory in [each for group, live in self._groups.items() for each in ghosts(known | live(), group)]:
            self.log.warning("container unknown to podman ended", cgroup=directory)
            cgroup.kill(directory)
            cgroup.thaw(directory)
            self.reactor.call_later(GHOST_GONE_S, partial(_remove, directory))


def _remove(directory: str) -> None:
    cgroup.remove(directory)
