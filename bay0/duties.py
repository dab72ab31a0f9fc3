"""The stages of the boot machine, one function each: its effect port."""

from __future__ import annotations

import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from attrs import define, field

from bay0 import flow, focus, garbage, late, net, reconcile
from bay0.effects import ceilings, cgroup, modules, mounts, power, shield
from bay0.effects.ceilings import Ceilings
from bay0.effects.spawn import Ending
from bay0.errors import RefusedError, SpawnError
from bay0.machines import MACHINES, inhibit, persona, server, storage, tenant
from bay0.machines.boot import E, Effect, S
from bay0.machines.engine import Engine, Instance
from bay0.personas import slot_of

if TYPE_CHECKING:
    from bay0.bounds import Bounds
    from bay0.effects.modules import Wanted
    from bay0.effects.podman import Container, Verdict
    from bay0.effects.service import Services, ServiceSpec
    from bay0.effects.shield import Watchdog
    from bay0.effects.spawn import Result, Spawner
    from bay0.log import Sinks
    from bay0.personas import Personas
    from bay0.reactor import Reactor, Timer
    from bay0.servers import Servers
    from bay0.state.link import Answer
    from bay0.state.port import StatePort

HOSTNAME = "spine"
POWER_AGAIN_S = 1.0
NAMED_MAX = 5  # of what a slow stop waits for
PRESSURE = "/proc/pressure"
REPLAYS_A_TURN = 25
STOPS_A_TURN = 25
AT_REST = ("absent", "stopped", "failed")
DEVICES_A_TURN = 10
SERVERS_AGAIN_S = 30.0
SERVERS_AFTER_S = 0.2  # init complete is not held up by what they load


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
    personas: Personas
    watchdog: Watchdog
    wanted: Callable[[], dict[str, ServiceSpec]]
    open_control: Callable[[], None]
    ending: Callable[[str], int] = power.power_child
    sync: Callable[[], int] = power.sync_child
    sysrq: power.Sysrq = field(factory=power.Sysrq)
    servers: Callable[[], Servers] | None = None  # made when they are first needed
    ceilings: Ceilings = field(factory=Ceilings)  # what this boot wrote, for whoever looks after it
    engine: Engine | None = None
    reconciled: bool = False
    slots_left_alone: frozenset[int] = frozenset()  # uid ranges of stored machines that are not known here
    _stopping: tuple[Instance, int] | None = None
    _leaving: bool = False  # from then on nothing starts any more
    _polite: Timer | None = None
    _reconciling: tuple[Instance, int] | None = None
    _converged: int = 0  # machines that this boot made converge
    _owing: list[str] = field(factory=list)  # those of them that reconcile waits for
    _seqs: dict[str, int] = field(factory=dict)
    _asked: set[str] = field(factory=set)
    _newest: str = ""  # the kernel's last word on devices when they were last asked
    _known: bool = False
    _complete: bool = False
    _power_tries: int = 0
    _force_tries: int = 0
    _waited: dict[tuple[str, ...], list[Instance]] = field(factory=dict)  # kinds -> those of them that a stop still waits for
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
            Effect.END_ALL: self._end_all,
            Effect.POWER_NOW: self._power_now,
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
        acts = (("oom_score_adj", shield.unkillable), ("ctrl-alt-del", shield.ctrl_alt_del_is_a_signal), ("sysrq", self.sysrq.open))
        for name, act in acts:
            try:
                act()
            except OSError as error:
                failures.append(f"{name}: {error}")
        try:
            failures += [f"cgroup controller {name} is missing" for name in cgroup.shield_pid1()]
        except OSError as error:
            failures.append(f"cgroup: {error}")
        self.spawner.ceilings = ceilings.of_one()
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
        self._verdict(instance, token, failures)

    def _load(self, instance: Instance, token: int) -> None:
        flow.run(self._drivers_loaded(), partial(self._verdict, instance, token))

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
        self._converged, self._owing, self._known = 0, [], False
        self._seqs = {str(row["name"]): int(row["seq"]) for row in self.state.stored}
        flow.run(self._planned(), self._replay)

    def _planned(self) -> flow.Flow[tuple[reconcile.Plan, int]]:
        """Return the plan for what was stored, made in many turns, and how many containers podman has."""
        containers: tuple[Container, ...] = yield from self._containers()
        making = reconcile.planning(self.state.stored or (), MACHINES, {each.name for each in containers})
        while True:
            try:
                next(making)
            except StopIteration as made:
                return made.value, len(containers)
            yield self._next_turn

    def _containers(self) -> flow.Flow[tuple[Container, ...]]:
        """Ask podman what there is. Its first call after a boot renews its own database, so it is made alone, with a long bound."""
        prepared: Answer = yield partial(self.state.ask, "containers_prepare", self.bounds.open)
        self.personas.configure()
        if not prepared.ok:
            self.log.error("podman's directories could not be made", why=prepared.why)
        if not prepared.ok or not prepared.value["used"]:
            return ()  # nothing has ever been there: a boot without personas does not wait for podman
        yield partial(late.one_by_one, late.MANIFESTS, self.reactor.call_soon)  # else all in the turn that first asks for one
        yield self._know_personas
        mending = self.personas.mending
        listed: Verdict = yield from mending.climb((yield from mending.listed(first=True)))
        if not listed.ok:
            self.log.error("podman does not say what there is: personas are cleared one by one", why=listed.why)
            self.personas.audit.soon()
            return ()
        self.personas.clearing.seed(listed.value)
        return listed.value  # type: ignore[no-any-return]

    def _know_personas(self, resume: Callable[[None], None]) -> None:
        """Make their machine, in a turn of its own."""
        with garbage.staying():
            self._engine.know(MACHINES["persona"])
        self._next_turn(resume)

    def _replay(self, planned: tuple[reconcile.Plan, int]) -> None:
        """Take over what was stored; whatever owes anything goes through CONVERGE."""
        plan, containers = planned
        left_alone = set(plan.unknown)
        self.slots_left_alone = _slots(row for row in self.state.stored or () if row["name"] in left_alone)
        for name in plan.unknown:
            self.log.warning("machine of an unknown kind or name left alone", machine=name)
        if plan.foreign:
            self.log.warning("containers of somebody else left alone", containers=", ".join(plan.foreign))
        new = deque(replay for replay in plan.replays if self._is_new(replay))
        owed = [replay.container for replay in new if replay.converge and replay.container]
        self.personas.clearing.gather((*owed, *plan.sweep), self.bounds.gather)
        if plan.sweep:
            self.log.warning("containers without a persona removed", containers=", ".join(plan.sweep))
            self.personas.audit.sweep(plan.sweep)
        self._replay_some(new, containers)

    def _is_new(self, replay: reconcile.Replay) -> bool:
        """Tell whether a stored machine says something new: what lives in this boot knows better, unless it has done nothing since it was made."""
        live = self._engine.instances.get(replay.name)
        if live is not None and replay.definition.resident and live.committed is None and live.pending is None:
            self._engine.forget(replay.name)  # made before a disk that came late
            return True
        return live is None

    def _replay_some(self, left: deque[reconcile.Replay], containers: int) -> None:
        """Go on with a few; the next turns with the others, so that a thousand of them do not hold the reactor."""
        with garbage.staying():
            for replay in [left.popleft() for _ in range(min(len(left), REPLAYS_A_TURN))]:
                instance = self._engine.adopt(replay.definition, replay.stored)
                if replay.converge:
                    self._converged += 1
                    self._owing.append(instance.name)
                    self._engine.send(instance.name, replay.definition.event("CONVERGE"))
        if left:
            self.reactor.call_soon(partial(self._replay_some, left, containers))
            return
        self._known = True
        self.state.stored = []  # each is a machine now
        self.log.info("reconciled", stored=len(self._seqs), converged=self._converged, containers=containers)
        self.look_converged()
        self._autostart()

    @property
    def known(self) -> bool:
        """What was stored is taken over; before that nobody can say which names are free."""
        return self._known

    def completed(self) -> None:
        """Init is complete: what is marked so may start."""
        self._complete = True
        self._autostart()

    def _autostart(self) -> None:
        if self._complete and self.known and not self._leaving:  # a disk that came late is reconciled late
            self.personas.autostart()
            if server.NAME in self._engine.instances:
                self.reactor.call_later(SERVERS_AFTER_S, self._autostart_servers)

    def _autostart_servers(self) -> None:
        late.one_by_one(late.SERVERS, self.reactor.call_soon, self._servers_loaded)

    def _servers_loaded(self, _loaded: None) -> None:
        if self.servers is None or self._leaving:
            return
        try:
            servers = self.servers()
        except (ImportError, OSError) as error:  # no descriptor was left to read its program with
            self.log.error("servers not loaded", why=f"{type(error).__name__}: {error}")
            self.reactor.call_later(SERVERS_AGAIN_S, self._autostart_servers)
            return
        servers.autostart(self.personas.mending.images)

    def look_converged(self) -> None:
        """Report the reconcile as done once every machine it replayed has converged; called after each step, so it must not look at all of them."""
        if self._reconciling is None or not self._known:
            return
        while self._owing and self._has_converged(self._owing[-1]):
            self._owing.pop()
        if not self._owing:
            (instance, token), self._reconciling = self._reconciling, None
            self._report(instance, token, E.DONE)

    def _has_converged(self, name: str) -> bool:
        instance = self._engine.instances.get(name)
        return instance is None or (instance.pending is None and bool(instance.definition.spec(instance.now).converged))

    def stored_seq(self, name: str) -> int:
        """Return the number of the last step that the database had of a machine; 0 if it had none."""
        return self._seqs.get(name, 0)

    def _serve(self, instance: Instance, token: int) -> None:
        failures = []
        try:
            self.open_control()
        except OSError as error:
            failures.append(f"control socket: {error}")
        for name in (focus.NAME, inhibit.NAME):  # called like their kinds
            if name not in self._engine.instances:
                self._engine.add(name, MACHINES[name], seq=self.stored_seq(name))
        if server.NAME not in self._engine.instances:
            self._engine.add(server.NAME, MACHINES["server"], seq=self.stored_seq(server.NAME))
        for name, spec in self.wanted().items():
            self.services.specs[name] = spec
            if name not in self._engine.instances:
                self._engine.add(name, MACHINES["tenant"], seq=self.stored_seq(name))
        self._verdict(instance, token, failures)  # init complete starts them: a ripple

    def _stop(self, instance: Instance, token: int) -> None:
        self.state.append_genesis([f"{self.state.boot['boot_id']} leaving: {instance.context.get('how')}"])
        self._stopping, self._leaving = (instance, token), True
        self.reactor.call_later(self.bounds.slow_stop, partial(self._say_slow, instance))
        self.personas.no_autostart()
        self._stop_some(deque(self._engine.of_kind("persona")))
        for live in list(self._engine.of_kind("server")):
            coming = live.now.value if live.pending is None else live.pending.dest
            if coming not in (server.S.STOPPED.value, server.S.STOPPING.value):  # which would take it for a word about what is wanted
                self._engine.send(live.name, server.E.STOP, "the spine is going down")
        self._polite = self.reactor.call_later(self.bounds.polite_stop, self._stop_the_rest)
        self.look_stopped()

    def _say_slow(self, boot: Instance) -> None:
        """Say on the console what a stop waits for, and the way out."""
        if boot.now not in (S.STOPPING, S.LEAVING):
            return
        busy = [i.name for kind in ("persona", "server", "tenant") for i in self._engine.of_kind(kind) if i.definition.spec(i.now).busy is not None]
        waits = f"{', '.join(busy[:NAMED_MAX])}{' ...' if len(busy) > NAMED_MAX else ''}" or "the disk"
        self.log.warning("the stop takes longer than usual", waits_for=waits, way_out=f"`bay0 {self._how(boot)} --force`, or Ctrl-Alt-Del twice")
        self.reactor.call_later(self.bounds.slow_stop, partial(self._say_slow, boot))

    @staticmethod
    def _how(boot: Instance) -> str:
        return str(boot.context.get("how", "reboot"))
    def _stop_some(self, left: deque[Instance]) -> None:
        """Ask a few personas to stop; the next turns ask the others."""
        for live in [left.popleft() for _ in range(min(len(left), STOPS_A_TURN))]:
            if live.name in self._engine.instances:
                self._engine.send(live.name, persona.E.STOP, "the spine is going down")
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
        self.personas.kill_all()
        for live in list(self._engine.of_kind("tenant")):
            self._engine.send(live.name, tenant.E.STOP, "the spine is going down")
        self.look_stopped()

    def _containers_at_rest(self) -> bool:
        return self._all_rest(("persona", "server"))

    def _all_rest(self, kinds: tuple[str, ...]) -> bool:
        """Tell whether all machines of these kinds rest.

        It is asked after each step, so it looks at one that did not rest at the last look, and at all of them only when that one does.
        """
        waited = self._waited.setdefault(kinds, [])
        while waited and _rests(waited[-1]):
            waited.pop()
        if not waited:
            waited += [live for kind in kinds for live in self._engine.of_kind(kind) if not _rests(live)]
        return not waited

    def look_stopped(self) -> None:
        """Go on with the stop when personas, then tenants, are at rest; called after each step."""
        if self._stopping is None:
            return
        if self._polite is not None:
            if self._containers_at_rest():
                self._stop_the_rest()
            return
        if self._all_rest(("tenant",)):
            (instance, token), self._stopping = self._stopping, None
            self._report(instance, token, E.DONE)

    def _close(self, _instance: Instance, _token: int) -> None:
        if self.state.storage is not None:
            self._engine.send(self.state.storage.name, storage.E.CLOSE)

    def _power(self, instance: Instance, token: int) -> None:
        """End the machine from a fork, because reboot(2) may hang on a dead disk; the second try takes the kernel's short way."""
        how = self._how(instance)
        self.log.info("power", how=how)
        self._power_tries += 1
        if self._power_tries > 1:
            self._restart_instead(how)

        def refused(status: int) -> None:
            why = f"reboot(2) was refused, status {os.waitstatus_to_exitcode(status)}"
            self.reactor.call_later(POWER_AGAIN_S, lambda: self._engine.outcome(instance.name, token, E.FAULT, why))

        try:
            self.spawner.fork("power", partial(self.ending, how), refused, group="services/power", keep=0)
        except SpawnError as error:
            self.log.error("no fork for reboot(2)", why=str(error))
            self._restart_instead(how)

    def _restart_instead(self, how: str) -> None:
        """Restart by the kernel's short way, which can always be had; said if it is not what was asked for.

        A machine that is dark is asked for, one that hangs for ever is not.
        """
        if how != "reboot":
            self.log.warning("power-off cannot be had: the machine restarts instead")
            self.sinks.console.push()
        self.sysrq(power.RESTART)

    def _end_all(self, instance: Instance, token: int) -> None:
        """End everything at once, without a word to podman; then let what answers reach its disk."""
        self._stopping, self._leaving = None, True
        if self._polite is not None:
            self._polite.cancel()
            self._polite = None
        self.log.warning("ending by force", how=self._how(instance), why="personas and services are killed, the disk is not closed")
        self.personas.no_autostart()
        self.spawner.close()
        self.personas.kill_all()
        for live in list(self._engine.of_kind("tenant")):
            self._engine.send(live.name, tenant.E.STOP, "the spine ends by force")
            self.services.kill(live.name)

        def synced(status: int) -> None:
            self._report(instance, token, E.FAULT if status else E.DONE)

        try:
            self.spawner.fork("sync", self.sync, synced, group="services/sync", keep=0)
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
            taken = self.sysrq(power.POWER_OFF)
        if not taken:
            self.reactor.call_later(POWER_AGAIN_S, lambda: self._engine.outcome(instance.name, token, E.FAULT, "sysrq was refused"))


def _slots(rows: Iterable[Mapping[str, Any]]) -> frozenset[int]:
    """Return the uid ranges of stored machines that this program does not know: a newer one runs them again."""
    return frozenset(slot for row in rows if (slot := slot_of(row["config"])) is not None)


def _rests(live: Instance) -> bool:
    """Tell whether the stop has nothing to wait for in a machine."""
    if live.definition.kind in reconcile.CONTAINED:  # one that failed has no container either
        return live.now.value in AT_REST
    return bool(live.definition.spec(live.now).converged)


def _network() -> list[str]:
    unread = (f"whether the spine has a network cannot be seen: {each}" for each in net.unread())
    return [*(f"the spine must have no network: {violation}" for violation in net.violations()), *unread]


def refuse_unknown_how(how: str, *, force: bool = False) -> E:
    """Return the event that `how` (poweroff or reboot) means; `RefusedError` for anything else."""
    events = {how: E.FORCE for how in power.HOW if how != "halt"} if force else {"poweroff": E.POWEROFF, "reboot": E.REBOOT}
    if how not in events:
        raise RefusedError(f"how must be poweroff or reboot, not {how!r}")
    return events[how]
