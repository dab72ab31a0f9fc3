"""The end of a boot: personas and services are stopped, the disk is closed, the power goes. Or all of it at once, by force.

The last five stages of the boot machine's effect port (stages.py).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0.base.errors import RefusedError, SpawnError
from bay0.containers import life as containers
from bay0.effects import power
from bay0.machines import persona, server, snapshot, storage, tenant, upgrade
from bay0.machines.boot import E, Effect, S
from bay0.machines.bus import ANY
from bay0.reconcile import plan as reconcile

if TYPE_CHECKING:
    from bay0.base.bounds import Bounds
    from bay0.effects.spawn import Spawner
    from bay0.log import Sinks
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance, Step
    from bay0.pid1.reactor import Reactor, Timer
    from bay0.state.port import StatePort
    from bay0.tenants.port import Services

POWER_AGAIN_S = 1.0
NAMED_MAX = 5  # of what a slow stop waits for
STOPS_A_TURN = 25
AT_REST = ("absent", "stopped", "failed")
GOING = "the spine is going down"


@define(eq=False, repr=False)
class Leaving:
    """One a boot. `calls`: how the machine is ended."""

    engine: Engine
    reactor: Reactor
    bounds: Bounds
    log: Any
    sinks: Sinks
    spawner: Spawner
    state: StatePort
    services: Services
    calls: power.Calls = field(factory=power.Calls)
    _stopping: tuple[Instance, int] | None = field(init=False, default=None)
    _polite: Timer | None = field(init=False, default=None)
    _power_tries: int = field(init=False, default=0)
    _force_tries: int = field(init=False, default=0)
    _told: set[str] = field(init=False, factory=set)  # tenants that were asked to stop
    _waited: dict[tuple[str, ...], list[Instance]] = field(init=False, factory=dict)  # kinds -> those of them that a stop still waits for

    def __attrs_post_init__(self) -> None:
        self.engine.on(ANY, call=self._stepped)

    def stages(self) -> dict[Effect, Callable[[Instance, int], None]]:
        """Return the stages that are done here."""
        return {
            Effect.STOP_SERVICES: self._stop,
            Effect.CLOSE_STORAGE: self._close,
            Effect.POWER: self._power,
            Effect.END_ALL: self._end_all,
            Effect.POWER_NOW: self._power_now,
        }

    def _report(self, instance: Instance, token: int, event: E, why: str = "") -> None:
        self.reactor.call_soon(lambda: self.engine.outcome(instance.name, token, event, why))

    def _stop(self, instance: Instance, token: int) -> None:
        self.state.append_genesis([f"{self.state.boot['boot_id']} leaving: {instance.context.get('how')}"])
        self._stopping = (instance, token)
        self.reactor.call_later(self.bounds.slow_stop, partial(self._say_slow, instance))
        self._stop_some(deque(self.engine.of_kind("persona")))
        for live in list(self.engine.of_kind("server")):
            coming = live.now.value if live.pending is None else live.pending.dest
            if coming not in (server.S.STOPPED.value, server.S.STOPPING.value):  # which would take it for a word about what is wanted
                self.engine.send(live.name, server.E.STOP, GOING)
        for live in list(self.engine.of_kind("snapshot")):  # one that is being taken is given up
            self.engine.send(live.name, snapshot.E.STOP, GOING)
        self._polite = self.reactor.call_later(self.bounds.polite_stop, self._stop_the_rest)
        self._look_stopped()

    def _say_slow(self, boot: Instance) -> None:
        """Say on the console what a stop waits for, and the way out."""
        if boot.now not in (S.STOPPING, S.LEAVING):
            return
        kinds = ("persona", "server", "upgrade", "snapshot", "tenant")
        busy = [i.name for kind in kinds for i in self.engine.of_kind(kind) if i.definition.spec(i.now).busy is not None]
        waits = f"{', '.join(busy[:NAMED_MAX])}{' ...' if len(busy) > NAMED_MAX else ''}" or "the disk"
        self.log.warning("the stop takes longer than usual", waits_for=waits, way_out=f"`bay0 {self._how(boot)} --force`, or Ctrl-Alt-Del twice")
        self.reactor.call_later(self.bounds.slow_stop, partial(self._say_slow, boot))

    @staticmethod
    def _how(boot: Instance) -> str:
        return str(boot.context.get("how", "reboot"))

    def _stop_some(self, left: deque[Instance]) -> None:
        """Ask a few personas to stop; the next turns ask the others."""
        for live in [left.popleft() for _ in range(min(len(left), STOPS_A_TURN))]:
            if live.name in self.engine.instances:
                self.engine.send(live.name, persona.E.STOP, GOING)
        if left:
            self.reactor.call_soon(partial(self._stop_some, left))

    def _stop_the_rest(self) -> None:
        """Personas have had their time, and podman with them: what is left of them is killed, then the tenants are stopped."""
        if self._polite is None:
            return
        self._polite.cancel()
        self._polite = None
        if not self._containers_at_rest():
            self.log.warning("containers killed", why="they did not stop in time")
        self.spawner.close()
        containers.kill_all()
        self._stop_tenants()
        self._look_stopped()

    def _stop_tenants(self) -> None:
        """Ask each tenant to stop that no other needs any more: the compositor before its seat."""
        for live in list(self.engine.of_kind("tenant")):
            users = (self.engine.instances.get(name) for name in self.services.users(live.name))
            if live.name not in self._told and all(user is None or _rests(user) for user in users):
                self._told.add(live.name)
                self.engine.send(live.name, tenant.E.STOP, GOING)

    def _containers_at_rest(self) -> bool:
        return self._all_rest(("persona", "server", "upgrade", "snapshot"))

    def _all_rest(self, kinds: tuple[str, ...]) -> bool:
        """Tell whether all machines of these kinds rest.

        It is asked after each step, so it looks at one that did not rest at the last look, and at all of them only when that one does.
        """
        waited = self._waited.setdefault(kinds, [])
        while waited and _rests(waited[-1]):
            waited.pop()
        if not waited:
            waited += [live for kind in kinds for live in self.engine.of_kind(kind) if not _rests(live)]
        return not waited

    def _stepped(self, _instance: Instance, _step: Step) -> None:
        if self._stopping is not None:
            self._look_stopped()

    def _look_stopped(self) -> None:
        """Go on with the stop when personas, then tenants, are at rest; called after each step."""
        if self._stopping is None:
            return
        if self._polite is not None:
            if self._containers_at_rest():
                self._stop_the_rest()
            return
        self._stop_tenants()
        if self._all_rest(("tenant",)):
            (instance, token), self._stopping = self._stopping, None
            self._report(instance, token, E.DONE)

    def _close(self, _instance: Instance, _token: int) -> None:
        self.engine.send(self.state.storage.name, storage.E.CLOSE)

    def _power(self, instance: Instance, token: int) -> None:
        """End the machine from a fork, because reboot(2) may hang on a dead disk; the second try takes the kernel's short way."""
        how = self._how(instance)
        self.log.info("power", how=how)
        self._power_tries += 1
        if self._power_tries > 1:
            self._restart_instead(how)
        if how == "poweroff" and not self.calls.can_power_off():
            how = "reboot"
            if self._power_tries == 1:
                self._ask_sysrq(instance, token)
                return

        def refused(status: int) -> None:
            why = f"reboot(2) was refused, status {os.waitstatus_to_exitcode(status)}"
            self.reactor.call_later(POWER_AGAIN_S, lambda: self.engine.outcome(instance.name, token, E.FAULT, why))

        try:
            self.spawner.fork("power", partial(self.calls.end, how), refused, group="services/power", keep=0)
        except SpawnError as error:
            self.log.error("no fork for reboot(2)", why=str(error))
            self._restart_instead(how)

    def _ask_sysrq(self, instance: Instance, token: int) -> None:
        """Ask for power-off in the way that comes back if there is none; the next try restarts."""
        self.calls.sysrq(power.POWER_OFF)
        why = "the kernel knows no power-off on this machine"
        self.reactor.call_later(POWER_AGAIN_S, lambda: self.engine.outcome(instance.name, token, E.FAULT, why))

    def _restart_instead(self, how: str) -> None:
        """Restart by the kernel's short way, which can always be had; said if it is not what was asked for.

        A machine that is dark is asked for, one that hangs for ever is not.
        """
        if how != "reboot":
            self.log.warning("power-off cannot be had: the machine restarts instead")
            self.sinks.console.push()
        self.calls.sysrq(power.RESTART)

    def _end_all(self, instance: Instance, token: int) -> None:
        """End everything at once, without a word to podman; then let what answers reach its disk."""
        self._stopping = None
        if self._polite is not None:
            self._polite.cancel()
            self._polite = None
        self.log.warning("ending by force", how=self._how(instance), why="personas and services are killed, the disk is not closed")
        self.spawner.close()
        containers.kill_all()
        for live in list(self.engine.of_kind("tenant")):
            self.engine.send(live.name, tenant.E.STOP, "the spine ends by force")
            self.services.kill(live.name)

        def synced(status: int) -> None:
            self._report(instance, token, E.FAULT if status else E.DONE)

        try:
            self.spawner.fork("sync", self.calls.sync, synced, group="services/sync", keep=0)
        except SpawnError as error:
            self._report(instance, token, E.FAULT, str(error))

    def _power_now(self, instance: Instance, token: int) -> None:
        """End the machine by sysrq, which waits for no disk. Where that gives no power-off, the next try restarts it."""
        how = self._how(instance)
        self._force_tries += 1
        self.log.warning("power by force", how=how)
        self.sinks.console.push()
        if how == "reboot" or self._force_tries > 1:
            self._restart_instead(how)
            taken = False  # or nobody would be here
        else:
            taken = self.calls.sysrq(power.POWER_OFF)
        if not taken:
            self.reactor.call_later(POWER_AGAIN_S, lambda: self.engine.outcome(instance.name, token, E.FAULT, "sysrq was refused"))


def _rests(live: Instance) -> bool:
    """Tell whether the stop has nothing to wait for in a machine."""
    if live.definition.kind in reconcile.CONTAINED:  # one that failed has no container either
        return live.now.value in AT_REST
    if live.definition.kind == upgrade.UPGRADE.kind:  # what else it does is begun again by the next boot
        return live.now not in upgrade.HOLDS_A_STOP
    return bool(live.definition.spec(live.now).converged)


def refuse_unknown_how(how: str, *, force: bool = False) -> E:
    """Return the event that `how` (poweroff or reboot) means; `RefusedError` for anything else."""
    events = {how: E.FORCE for how in power.HOW if how != "halt"} if force else {"poweroff": E.POWEROFF, "reboot": E.REBOOT}
    if how not in events:
        raise RefusedError(f"how must be poweroff or reboot, not {how!r}")
    return events[how]
