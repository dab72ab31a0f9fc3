"""The stages of the boot machine from the first mount to init complete, one function each: its effect port.

What a boot does with what was stored is in replay.py, its end in leaving.py.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterable
from enum import Enum
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0 import net
from bay0.effects import ceilings, cgroup, limbo, modules, mounts, shield
from bay0.effects.spawn import Ending
from bay0.machines import MACHINES, storage
from bay0.machines.boot import E, Effect
from bay0.pid1 import flow

if TYPE_CHECKING:
    from bay0.base.bounds import Bounds
    from bay0.boot.leaving import Leaving
    from bay0.effects.ceilings import Ceilings
    from bay0.effects.modules import Wanted
    from bay0.effects.shield import Watchdog
    from bay0.effects.spawn import Result, Spawner
    from bay0.log import Sinks
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance
    from bay0.pid1.reactor import Reactor
    from bay0.reconcile.replay import Replay
    from bay0.state.port import StatePort
    from bay0.tenants.port import Services, ServiceSpec

HOSTNAME = "spine"
PRESSURE = "/proc/pressure"
DEVICES_A_TURN = 10


@define(eq=False, repr=False)
class BootStages:
    """The effect port of the boot machine. `wanted`: the plain processes of this boot, asked for when /sys is there."""

    engine: Engine
    reactor: Reactor
    bounds: Bounds
    log: Any
    sinks: Sinks
    spawner: Spawner
    state: StatePort
    services: Services
    watchdog: Watchdog
    ceilings: Ceilings  # what this boot wrote, for the governor to look after
    replay: Replay
    leaving: Leaving
    wanted: Callable[[], dict[str, ServiceSpec]]
    open_control: Callable[[], None]
    sysrq: Callable[[], None]
    _asked: set[str] = field(init=False, factory=set)
    _newest: str = field(init=False, default="")  # the kernel's last word on devices when they were last asked
    _stages: dict[Effect, Callable[[Instance, int], None]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        """List the stages in the order of the boot."""
        self._stages = {
            Effect.MOUNT_KERNEL_FS: self._mount,
            Effect.SHIELD: self._shield,
            Effect.LOAD_MODULES: self._load,
            Effect.ATTACH_STORAGE: self._attach,
            Effect.RECONCILE: self.replay.stage,
            Effect.START_SERVICES: self._serve,
            **self.leaving.stages(),
        }

    def start(self, instance: Instance, effect: Enum, token: int) -> None:
        """Run the stage that does `effect`."""
        self._stages[effect](instance, token)  # type: ignore[index]

    def _report(self, instance: Instance, token: int, failures: list[str]) -> None:
        event = E.FAULT if failures else E.DONE
        self.reactor.call_soon(lambda: self.engine.outcome(instance.name, token, event, "; ".join(failures)))

    def _mount(self, instance: Instance, token: int) -> None:
        failures = mounts.mount_kernel_filesystems()
        try:
            self.sinks.file.open()
        except OSError as error:
            failures.append(f"no log file: {error}")
        self._report(instance, token, failures)

    def _shield(self, instance: Instance, token: int) -> None:
        failures = []
        acts = (("oom_score_adj", shield.unkillable), ("ctrl-alt-del", shield.ctrl_alt_del_is_a_signal), ("sysrq", self.sysrq))
        for name, act in acts:
            try:
                act()
            except OSError as error:
                failures.append(f"{name}: {error}")
        try:
            failures += [f"cgroup controller {name} is missing" for name in cgroup.shield_pid1()]
        except OSError as error:
            failures.append(f"cgroup: {error}")
        self.spawner.bound(ceilings.of_one())
        unbounded = self.ceilings.write(ceilings.of_all()) if cgroup.available() else {}
        if unbounded:
            self.log.warning("the spine's own groups are not bounded", why="; ".join(unbounded.values()))
        failures += _network()
        if os.path.exists(PRESSURE):
            self.log.info("pressure information is there", path=PRESSURE)
        else:
            self.log.warning("no pressure information", why=f"{PRESSURE} is missing: the kernel needs psi=1 on its command line")
        with contextlib.suppress(OSError):
            socket.sethostname(HOSTNAME)
        self._report(instance, token, failures)

    def _load(self, instance: Instance, token: int) -> None:
        flow.run(self._drivers_loaded(), partial(self._report, instance, token))

    def _drivers_loaded(self) -> flow.Flow[list[str]]:
        """Load drivers, disks last: if theirs hang, the stage's own deadline lets the boot go on, and the disk may come later. Return what failed."""
        names: Wanted = yield from self._drivers()
        self._asked = {*names.first, *names.disks}
        yield partial(self._modprobe, "modprobe", names.first)
        if self.watchdog.open() or not self.watchdog.failing:
            self.log.info("watchdog armed" if self.watchdog.armed else "no hardware watchdog", device=self.watchdog.path)
        else:
            self.log.warning("watchdog fails", device=self.watchdog.path, why=self.watchdog.failing)
        result: Result = yield partial(self._modprobe, "modprobe-disks", ("virtio_blk", *names.disks))
        # modprobe exits 1 when any alias has no module, which is normal: not every device needs one
        failures = [] if result.ending is Ending.EXITED else [result.reason()]
        return failures + _network()  # a driver may have brought an interface

    def _drivers(self) -> flow.Flow[Wanted]:
        """Ask the devices for their drivers, some of them in a turn."""
        devices = modules.aliases()
        found: list[str] = []
        while some := tuple(islice(devices, DEVICES_A_TURN)):
            found += some
            yield self._next_turn
        return modules.wanted(found)

    def _next_turn(self, resume: Callable[[None], None]) -> None:
        self.reactor.call_soon(partial(resume, None))

    def _modprobe(self, name: str, names: Iterable[str], done: Callable[[Result], None]) -> None:
        self.spawner.run(name, ["modprobe", "-a", "-q", *names], self.bounds.modprobe, done)

    def load_new(self) -> None:
        """Load drivers of what has shown up since: a USB stick's reader, a card. Their disks are noticed like any other."""
        newest = modules.newest()
        if not newest or newest != self._newest:
            self._newest = newest
            flow.run(self._drivers(), self._load_also)

    def _load_also(self, names: Wanted) -> None:
        new = [name for name in (*names.first, *names.disks) if name not in self._asked]
        self._asked.update(new)
        if new:
            self._modprobe("modprobe-new", new, lambda _result: None)

    def _attach(self, _instance: Instance, _token: int) -> None:
        self.engine.send(self.state.storage.name, storage.E.ATTACH)  # the answer comes back as a ripple of the storage machine

    def _serve(self, instance: Instance, token: int) -> None:
        failures = []
        try:
            self.open_control()
        except OSError as error:
            failures.append(f"control socket: {error}")
        for definition in MACHINES.values():
            if definition.single and definition.single not in self.engine.instances:
                self.engine.add(definition.single, definition, seq=self.replay.stored_seq(definition.single))
        for name, spec in self.wanted().items():
            self.services.specs[name] = spec
            if name not in self.engine.instances:
                self.engine.add(name, MACHINES["tenant"], seq=self.replay.stored_seq(name))
        self._report(instance, token, failures)  # init complete starts them: a ripple


def _network() -> list[str]:
    """Say what of a network there is, here and where the kernel makes cards, and what of it cannot be seen."""
    found, unread = net.violations(), net.unread()
    try:
        found = found + limbo.violations()
    except OSError as error:
        unread = [*unread, f"{error.filename}: {error.strerror}"]
    return [
        *(f"the spine must have no network: {violation}" for violation in found),
        *(f"whether the spine has a network cannot be seen: {each}" for each in unread),
    ]
