"""The acting half of the governor: reads the gauges, asks `thermal.py`, does what it says, and keeps why.

A weight or a limit is written into the cgroup of who is restrained; a freeze, a thaw and a stop are events for its machine, like an operator's. It
looks every 2 s while there is a reason, every 6 s while somebody runs and all is calm, and every 30 s while there is nobody to govern.
"""

from __future__ import annotations

import contextlib
import json
from collections import deque
from collections.abc import Iterator
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from attrs import asdict, define, evolve, field

from bay0.containers.life import PERSONAS, TENANTS
from bay0.effects import cgroup, gauges
from bay0.effects.ceilings import Ceilings, Met, bounded, look_at
from bay0.effects.gauges import PAGE, Gauges, Limits, is_guest
from bay0.effects.readings import Pressure, Reading, Tenant
from bay0.machines import boot, focus, persona, server
from bay0.thermal.ladder import CALM, COOL_DOWN_S, CPU_ACT, MEMORY_ACT, MEMORY_WARN, Action, Governor, Rung
from bay0.thermal.sensors import Thermometer

if TYPE_CHECKING:
    from bay0.loading.late import Late
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance, Step
    from bay0.pid1.reactor import Reactor, Timer
    from bay0.thermal.reserve import Reserve

EAGER_S, WATCHFUL_S, IDLE_S = 2.0, 6.0, 30.0
FRESH_S = 1.0  # a look that is not older serves whoever asks
ACTIONS_KEPT = 50
# what of the spine is protected: PID 1, and the services but for the forwarder, whose work is the AI's; `commands` are errands, some the governor's
INIT, SERVICES, SPARED = "init", "services", "umbilical"
WEIGHTS = {Rung.FREE: 1.0}  # all others: half
CAPS = {Rung.FREE: 1.0, Rung.HALF_WEIGHT: 1.0, Rung.HALF: 0.5, Rung.QUARTER: 0.25}  # all below: a tenth


class Containers(Protocol):
    """What knows which containers run."""

    def container(self, name: str) -> str | None:
        """Return the id of the container that runs for `name`, if one does."""


@define(eq=False, repr=False)
class Keeper:
    """Governs the personas of a running spine, and first of all its AI. `boot`: this boot's machine."""

    engine: Engine
    reactor: Reactor
    log: Any
    boot: Instance
    personas: Containers
    servers: Late[Any]
    thermometer: Thermometer
    reserve: Reserve
    ceilings: Ceilings
    gauges: Gauges = field(factory=Gauges)
    brain: Governor = field(factory=Governor)
    actions: deque[dict[str, Any]] = field(factory=lambda: deque(maxlen=ACTIONS_KEPT))
    seen: Reading | None = None
    limit: int | None = None  # bytes that all personas together may take
    virtual: bool = field(factory=is_guest)
    _own: dict[str, tuple[str, Limits]] = field(factory=dict)  # before we touched them
    _met: Met = field(factory=Met)
    _timer: Timer | None = None
    _due: float = 0.0
    _closed: bool = False

    def begin(self) -> None:
        """Keep the spine's share of memory, then look, from the next turn on."""
        self.limit = self.reserve.keep()
        self._again(0.0)

    def __attrs_post_init__(self) -> None:
        self.engine.on("persona", persona.S.RUNNING, call=self._runs)
        self.engine.on("server", server.S.READY, call=self._runs)
        self.engine.on("focus", call=self._focused)
        self.engine.on("boot", *boot.LEAVES, call=self._close, of=self.boot)

    def _close(self, _boot: Instance, _step: Step) -> None:
        """Look no more: the spine is going down. What was written goes with the cgroups."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self.thermometer.close()

    def _runs(self, _instance: Instance, _step: Step) -> None:
        """One that starts to run is a reason to look."""
        self._again(EAGER_S)

    def _focused(self, instance: Instance, _step: Step) -> None:
        """Set the one that comes to the front free at once; if it is free, a look would only hold up the switch."""
        self._again(0.0 if focus.active(instance) in self.brain.held else EAGER_S)

    # ---- looking

    def poll(self) -> None:
        """Look once, act, and look again when that is due."""
        if self._closed:
            return
        self.seen = self._look()
        for action in self.brain.decide(self.seen):
            self._act(action)
        for note in self.brain.notes:
            (self.log.warning if note.bad else self.log.info)(note.event, why=note.why)
        self.brain.notes.clear()
        self._look_at_ceilings()
        self._again(self._pace())

    def _look_at_ceilings(self) -> None:
        """Set right what somebody changed of the spine's own limits, and say who has met his."""
        for file, found, kept in self.ceilings.look():
            self.log.warning("limit changed by hand is set right", file=file, found=found, kept=kept)
        for kind, group in self._met.look(bounded()):
            if kind == "pids":
                self.log.warning("limit of processes met", group=group.name, limit=group.pids_max)
            else:
                self.log.warning("limit of memory met", group=group.name, killed=group.killed, limit_mib=(group.memory_max or 0) >> 20)

    def _pace(self) -> float:
        if self.seen is None or not self.seen.tenants:
            return IDLE_S
        return WATCHFUL_S if self.brain.quiet else EAGER_S

    def _again(self, seconds: float) -> None:
        """Look in `seconds`, or sooner if that was meant already."""
        due = self.reactor.clock() + seconds
        if self._closed or (self._timer is not None and self._timer.call is not None and self._due <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._due = self.reactor.call_later(seconds, self.poll), due

    def _look(self) -> Reading:
        now = self.reactor.clock()
        front = focus.front(self.engine.instances)
        tenants, groups, kept = [], [], set()
        for name in _protected():
            directory = f"{cgroup.ROOT}/{name}"
            kept.add(directory)
            groups.append(self.gauges.group(name, directory, now, 0.0))
        for instance, container in self._governed():
            directory = _directory(instance, container)
            kept.add(directory)
            used, throttled = self.gauges.use(directory, now)
            ai = instance.definition.kind == "server"
            tenants.append(Tenant(instance.name, container, _state(instance), instance.name == front, ai, used, gauges.memory(directory)))
            if instance.name == front:
                groups.append(self.gauges.group(instance.name, directory, now, throttled))
        self.gauges.forget(kept)
        for name in self._own.keys() - {tenant.name for tenant in tenants}:
            del self._own[name]
        total, free = gauges.memory_bytes()
        load, left = self.gauges.load(), free / total if total else None
        return Reading(now, tuple(groups), tuple(tenants), self.thermometer.look(), load, left, self.virtual, self.gauges.machine(now))

    def _governed(self) -> Iterator[tuple[Instance, str]]:
        """Yield whoever has a container, and the AI that we stopped, by the container it had: it is to come back."""
        for instance in self.engine.of_kind("persona"):
            container = self.personas.container(instance.name)
            if container is not None and instance.now in persona.HAS_CONTAINER:
                yield instance, container
        servers = self.servers.made
        for instance in self.engine.of_kind("server"):
            container, held = servers.container(instance.name) if servers is not None else None, self.brain.held.get(instance.name)
            if container is not None and instance.now in server.HAS_CONTAINER:
                yield instance, container
            elif held is not None and held.rung is Rung.STOPPED and instance.desired == "running":
                yield instance, held.life

    # ---- acting

    def _act(self, action: Action) -> None:
        say = self.log.info if action.rung < action.before else self.log.warning
        words = {"persona": action.tenant, "source": _word(action.before), "dest": _word(action.rung), "cause": action.cause, "why": action.why}
        say("restrained" if action.rung > action.before else "released", **words)
        self.actions.append({"at_ms": int(self.reactor.clock() * 1000), **words})
        instance = self.engine.instances.get(action.tenant)
        if instance is None:
            return
        stopped = action.before is Rung.STOPPED  # nothing of it is left
        failures = [] if stopped else self._limit(instance, action.life, action.rung)
        if failures:
            self.log.warning("limits not written", persona=action.tenant, why="; ".join(failures))
        event = _event(action, instance)
        if event is not None:
            self.engine.send(action.tenant, event, f"the governor: {action.cause}: {action.why}", partial(self._answered, action.tenant))

    def limited(self, name: str, life: str, processors: float) -> None:
        """Hear that container `life` of persona `name` has got another limit of its own; one that is restrained is so by that one."""
        known, held, instance = self._own.get(name), self.brain.held.get(name), self.engine.instances.get(name)
        if known is None or known[0] != life or instance is None:
            return
        self._own[name] = (life, evolve(known[1], quota=int(processors * known[1].period)))
        if held is not None and held.life == life:
            failures = self._limit(instance, life, held.rung)
            if failures:
                self.log.warning("limits not written", persona=name, why="; ".join(failures))

    def _limit(self, instance: Instance, life: str, rung: Rung) -> list[str]:
        """Write what the rung means; who is to be frozen gets the floor first, which is there at once."""
        directory = _directory(instance, life)
        known = self._own.get(instance.name)
        if known is None or known[0] != life:
            own = gauges.limits(directory)
            if own is None:
                return ["it has none to read"]
            known = self._own[instance.name] = (life, own)
        cap = CAPS.get(rung, gauges.FLOOR)
        share = WEIGHTS.get(rung, 0.5)
        failures = gauges.restrain(directory, known[1], share, cap)
        if instance.definition.kind == "server":  # what it takes from personas is settled among their parents
            try:
                cgroup.weigh(f"{cgroup.ROOT}{TENANTS}", int(cgroup.TENANTS_WEIGHT * share))
            except OSError as error:
                failures.append(f"cpu.weight of all tenants: {error}")
        return failures

    def _answered(self, name: str, result: Step | Exception | None) -> None:
        if isinstance(result, Exception):
            self.log.warning("the governor was refused", persona=name, why=str(result))

    # ---- telling

    def show(self) -> dict[str, Any]:
        """Return what it sees, whom it holds and why; looks anew if the last look is old."""
        if self.seen is None or self.reactor.clock() - self.seen.at > FRESH_S:
            self.poll()
        seen, brain = self.seen or self._look(), self.brain
        believed = brain.heat.distrusted
        return {
            "psi": gauges.psi_missing() is None,
            "looks_every_s": self._pace(),
            "available": seen.available,
            "personas_limit": self.limit,
            "load": seen.load,
            "in_memory_files": gauges.shmem(),
            "machine": {kind: _pressure(pressure) for kind, pressure in seen.machine},
            "protected": [
                {"name": g.name, "cpu": _pressure(g.cpu), "memory": _pressure(g.memory), "throttled": g.throttled, "at_limit": g.at_limit}
                for g in seen.groups
            ],
            "sensors": [{**asdict(sensor), "not_believed": believed.get(sensor.name)} for sensor in seen.sensors],
            "hot": brain.heat.hot,
            "blind": brain.heat.blind,
            "virtual": seen.virtual,
            "groups": [asdict(group) for group in bounded()],
            "tenants": [self._tenant(tenant) for tenant in seen.tenants],
            "actions": list(self.actions),
            "rules": {
                "cool_down_s": COOL_DOWN_S, "memory_warn_some": MEMORY_WARN, "memory_act_full": MEMORY_ACT, "cpu_act_some": CPU_ACT,
                "release_below": CALM,
            },
        }  # fmt: skip

    def _tenant(self, tenant: Tenant) -> dict[str, Any]:
        held = self.brain.held.get(tenant.name)
        limit, manifest = self._limits(tenant)
        return {
            "name": tenant.name, "state": tenant.state, "focused": tenant.focused, "cpu": round(tenant.cpu, 3), "memory": tenant.memory,
            "limit": limit, "manifest": manifest,
            "rung": _word(held.rung if held is not None else Rung.FREE), "cause": held.cause if held is not None else None,
        }  # fmt: skip

    def _limits(self, tenant: Tenant) -> tuple[int | None, int | None]:
        """Return the memory it may take, and what its manifest says: the first may have been changed by hand, and is left."""
        instance = self.engine.instances.get(tenant.name)
        if instance is None or instance.definition.kind != "persona":
            return None, None
        group = look_at(_directory(instance, tenant.life).removeprefix(f"{cgroup.ROOT}/"))
        with contextlib.suppress(ValueError, KeyError, TypeError):
            wanted = int(json.loads(instance.config)["manifest"]["memory"])
            return group.memory_max, wanted - wanted % PAGE  # as the kernel keeps it
        return group.memory_max, None


def _protected() -> list[str]:
    return [INIT, *(f"{SERVICES}/{name}" for name in cgroup.children(f"{cgroup.ROOT}/{SERVICES}") if name != SPARED)]


def _directory(instance: Instance, container: str) -> str:
    group = TENANTS if instance.definition.kind == "server" else PERSONAS
    return f"{cgroup.ROOT}{group}/libpod-{container}"


STATES: dict[Enum, str] = {
    persona.S.RUNNING: "running", persona.S.PAUSED: "paused",
    server.S.WARMING: "running", server.S.READY: "running", server.S.PAUSED: "paused", server.S.STOPPED: "stopped",
}  # fmt: skip


def _state(instance: Instance) -> str:
    """Return how it is, as `thermal.py` says it. One that warms up runs: loading a model takes processors and memory, and it may be made to yield."""
    return "busy" if instance.pending is not None or instance.queue else STATES.get(instance.now, "busy")


def _event(action: Action, instance: Instance) -> Enum | None:
    """Return what to send. The AI yields when it is stopped, and is started when it may come back; it cannot be frozen before it is ready."""
    words = persona.WORDS
    if instance.definition.kind == "server":
        words = server.WORDS
        if action.rung is Rung.STOPPED or (action.rung is Rung.FROZEN and instance.now is not server.S.READY):
            return server.E.YIELD
        if action.before is Rung.STOPPED:
            return server.E.START
    if action.rung in (Rung.FROZEN, Rung.STOPPED):
        return words.events.PAUSE if action.rung is Rung.FROZEN else words.events.STOP
    return words.events.RESUME if action.before is Rung.FROZEN and action.thaw else None


def _word(rung: Rung) -> str:
    return rung.name.lower().replace("_", " ")


def _pressure(pressure: Pressure | None) -> dict[str, float] | None:
    return {key: round(value, 2) for key, value in asdict(pressure).items()} if pressure is not None else None
