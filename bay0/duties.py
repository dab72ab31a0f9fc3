"""Who does what a busy state owes: the effect port of the engine, and the stages of the boot machine, one function each."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0 import net, reconcile
from bay0.effects import cgroup, modules, mounts, power, shield
from bay0.effects.spawn import Ending
from bay0.errors import RefusedError, SpawnError
from bay0.machines import MACHINES, storage, tenant
from bay0.machines.boot import E, Effect
from bay0.machines.engine import Engine, Instance, Step

if TYPE_CHECKING:
    from bay0.bounds import Bounds
    from bay0.effects.service import Services, ServiceSpec
    from bay0.effects.shield import Watchdog
    from bay0.effects.spawn import Result, Spawner
    from bay0.log import Sinks
    from bay0.reactor import Reactor
    from bay0.state.port import StatePort

HOSTNAME = "spine"
POWER_AGAIN_S = 1.0


@define(eq=False, repr=False)
class Duties:
    """Sends each effect to whoever owns its kind of machine."""

    ports: Mapping[str, Any]

    def start(self, instance: Instance, effect: Enum, token: int) -> None:
        """Start `effect` of `instance`."""
        self.ports[instance.definition.kind].start(instance, effect, token)


@define(eq=False, repr=False)
class BootStages:
    """The effect port of the boot machine."""

    reactor: Reactor
    bounds: Bounds
    log: Any
    sinks: Sinks
    spawner: Spawner
    state: StatePort
    services: Services
    watchdog: Watchdog
    wanted: Callable[[], dict[str, ServiceSpec]]
    open_control: Callable[[], None]
    ending: Callable[[str], int] = power.power_child
    at_once: Callable[[], None] = power.restart_at_once
    engine: Engine | None = None
    reconciled: bool = False
    _stopping: tuple[Instance, int] | None = None
    _reconciling: tuple[Instance, int] | None = None
    _replayed: list[str] = field(factory=list)
    _power_tries: int = 0
    _stages: dict[Effect, Callable[[Instance, int], None]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        """List the stages in the order of the boot."""
        self._stages = {
            Effect.MOUNT_KERNEL_FS: self._mount,
            Effect.SHIELD: self._shield,
            Effect.LOAD_MODULES: self._load,
            Effect.ATTACH_STORAGE: self._attach,
            Effect.RECONCILE: self._reconcile,
            Effect.START_SERVICES: self._serve,
            Effect.STOP_SERVICES: self._stop,
            Effect.CLOSE_STORAGE: self._close,
            Effect.POWER: self._power,
        }

    def start(self, instance: Instance, effect: Enum, token: int) -> None:
        """Run the stage that owns `effect`."""
        self._stages[effect](instance, token)  # type: ignore[index]

    @property
    def _engine(self) -> Engine:
        if self.engine is None:
            raise AssertionError("the engine is wired before the first event")
        return self.engine

    def _report(self, instance: Instance, token: int, event: E, why: str = "") -> None:
        self.reactor.call_soon(lambda: self._engine.outcome(instance.name, token, event, why))

    def _verdict(self, instance: Instance, token: int, failures: list[str]) -> None:
        self._report(instance, token, E.FAULT if failures else E.DONE, "; ".join(failures))

    def _mount(self, instance: Instance, token: int) -> None:
        failures = mounts.mount_kernel_filesystems()
        try:
            self.sinks.file.open()
        except OSError as error:
            failures.append(f"no log file: {error}")
        self._verdict(instance, token, failures)

    def _shield(self, instance: Instance, token: int) -> None:
        failures = []
        for name, act in (("oom_score_adj", shield.unkillable), ("ctrl-alt-del", shield.ctrl_alt_del_is_a_signal)):
            try:
                act()
            except OSError as error:
                failures.append(f"{name}: {error}")
        try:
            failures += [f"cgroup controller {name} is missing" for name in cgroup.shield_pid1()]
        except OSError as error:
            failures.append(f"cgroup: {error}")
        failures += _network()
        with contextlib.suppress(OSError):
            socket.sethostname(HOSTNAME)
        self._verdict(instance, token, failures)

    def _load(self, instance: Instance, token: int) -> None:
        """Load drivers, disks last: if theirs hang, the stage's own deadline lets the boot go on, and the disk may come later."""
        names = modules.wanted()

        def loaded(result: Result) -> None:
            # modprobe exits 1 when any alias has no module, which is normal: not every device needs one
            failures = [] if result.ending is Ending.EXITED else [result.reason()]
            self._verdict(instance, token, failures + _network())  # a driver may have brought an interface

        def armed(_result: Result) -> None:
            found = False
            with contextlib.suppress(OSError):
                found = self.watchdog.open()
            self.log.info("watchdog armed" if found else "no hardware watchdog", device=self.watchdog.path)
            self.spawner.run("modprobe-disks", ["modprobe", "-a", "-q", "virtio_blk", *names.disks], self.bounds.modprobe, loaded)

        self.spawner.run("modprobe", ["modprobe", "-a", "-q", *names.first], self.bounds.modprobe, armed)

    def _attach(self, _instance: Instance, _token: int) -> None:
        if self.state.storage is not None:  # the answer comes back as a ripple of the storage machine
            self._engine.send(self.state.storage.name, storage.E.ATTACH)

    def _reconcile(self, instance: Instance, token: int) -> None:
        if self.state.stored is None:
            self._report(instance, token, E.FAULT, "the database could not be read this boot; nothing is swept")
            return
        self._reconciling = (instance, token)
        self.reconcile_now()
        self.look_converged()

    def reconcile_now(self) -> None:
        """Replay every stored machine through CONVERGE; once a boot, as soon as the database could be read."""
        if self.reconciled or self.state.stored is None:
            return
        self.reconciled = True
        plan = reconcile.plan(self.state.stored, MACHINES)
        for name in plan.unknown_kinds:
            self.log.warning("machine of an unknown kind left alone", machine=name)
        for replay in plan.replays:
            if replay.name in self._engine.instances:
                continue  # it lives in this boot already: a disk that came late says nothing newer
            instance = self._engine.adopt(replay.name, replay.definition, replay.stored, replay.seq)
            self._replayed.append(instance.name)
            self._engine.send(instance.name, replay.definition.event("CONVERGE"))
        self.log.info("reconciled", stored=len(self.state.stored), converged=len(plan.replays))

    def look_converged(self) -> None:
        """Report the reconcile as done once every machine it replayed is converged; called after each step."""
        if self._reconciling is None:
            return
        live = [self._engine.instances[name] for name in self._replayed if name in self._engine.instances]
        if all(i.definition.spec(i.now).converged for i in live):
            (instance, token), self._reconciling = self._reconciling, None
            self._report(instance, token, E.DONE)

    def _serve(self, instance: Instance, token: int) -> None:
        failures = []
        try:
            self.open_control()
        except OSError as error:
            failures.append(f"control socket: {error}")
        stored = {row["name"]: row["seq"] for row in self.state.stored or ()}
        for name, spec in self.wanted().items():
            self.services.specs[name] = spec
            if name not in self._engine.instances:
                self._engine.add(name, MACHINES["tenant"], seq=stored.get(name, 0))
        self._verdict(instance, token, failures)  # init complete starts them: a ripple

    def _stop(self, instance: Instance, token: int) -> None:
        self.state.append_genesis([f"{self.state.boot['boot_id']} leaving: {instance.context.get('how')}"])
        self._stopping = (instance, token)
        self.spawner.close()
        for live in list(self._engine.of_kind("tenant")):
            self._engine.send(live.name, tenant.E.STOP, "the spine is going down")
        self.look_stopped()

    def look_stopped(self, _instance: Instance | None = None, _step: Step | None = None) -> None:
        """Report the stop as done once every tenant is at rest; called after each step."""
        if self._stopping is None:
            return
        running = [i for i in self._engine.of_kind("tenant") if not i.definition.spec(i.now).converged]
        if not running:
            (instance, token), self._stopping = self._stopping, None
            self._report(instance, token, E.DONE)

    def _close(self, _instance: Instance, _token: int) -> None:
        if self.state.storage is not None:
            self._engine.send(self.state.storage.name, storage.E.CLOSE)

    def _power(self, instance: Instance, token: int) -> None:
        """End the machine from a fork, because reboot(2) may hang on a dead disk; the second try takes the kernel's short way."""
        how = instance.context.get("how", "reboot")
        self.log.info("power", how=how)
        self._power_tries += 1
        if self._power_tries > 1:
            self.at_once()

        def refused(status: int) -> None:
            why = f"reboot(2) was refused, status {os.waitstatus_to_exitcode(status)}"
            self.reactor.call_later(POWER_AGAIN_S, lambda: self._engine.outcome(instance.name, token, E.FAULT, why))

        try:
            self.spawner.fork("power", partial(self.ending, how), refused, group="services/power", keep=0)
        except SpawnError as error:
            self.log.error("no fork for reboot(2)", why=str(error))
            self.at_once()


def _network() -> list[str]:
    return [f"the spine must have no network: {violation}" for violation in net.violations()]


def refuse_unknown_how(how: str) -> E:
    """Return the event that `how` (poweroff or reboot) means; `RefusedError` for anything else."""
    events = {"poweroff": E.POWEROFF, "reboot": E.REBOOT}
    if how not in events:
        raise RefusedError(f"how must be poweroff or reboot, not {how!r}")
    return events[how]
