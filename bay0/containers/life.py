"""What the effect ports of personas and of servers share: the life of a container that we started, from its first process to nothing left of it.

Each effect is a short flow over podman, the state worker and the kernel's cgroup files. Every one of its waits has a bound, and none begins once
the step it belongs to has been overtaken. What the kernel says of the cgroup counts, not what podman thinks it did.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import define, evolve, field, frozen

from bay0.base import names
from bay0.effects import cgroup
from bay0.pid1 import flow
from bay0.podman.calls import Asker, Outcome, bound_monitors, config_files, exit_status, expose_monitor, monitor, write_config
from bay0.reconcile import plan as reconcile

if TYPE_CHECKING:
    from bay0.base.bounds import Bounds
    from bay0.effects.watch import CgroupWatch
    from bay0.loading.late import Late
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance
    from bay0.pid1.reactor import Reactor, Timer
    from bay0.podman.calls import Podman, RunSpec, StoragePaths, Verdict
    from bay0.reconcile.audit import Audit
    from bay0.reconcile.clearing import Cleared, Clearing
    from bay0.state.port import StatePort

PERSONAS = "/personas"  # the cgroups of containers: of personas,
TENANTS = "/tenants"  # of servers, and of a validation's probe,
CONMONS = "/conmon"  # and of all their monitors (effects/podman.py)
BACK_OFF_S = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
STUCK_S = (2.0, 5.0, 10.0, 20.0)
CALM_S = 60.0  # one that lived this long has not failed quickly
LOOK_S = 0.05  # between two looks at a freeze, or at an end
LOG_SIZE = 4 << 20  # bytes of a container's log, after which conmon starts it anew
_FILTERS = "/usr/share/spine-seccomp"  # made of podman's default by scripts/lib/seccomp.py
PERSONA_FILTER = f"{_FILTERS}/persona.json"  # no namespaces, no keyrings
TENANT_FILTER = f"{_FILTERS}/tenant.json"  # nor mounts, nor the memory of other processes
AT_WORK = ("running", "ready")  # states of one that is not to be frozen
HAUNTED = "podman says it is gone, the kernel says it lives"
ABOVE = "it is thawed, but stands still with all others: the group above it is frozen (1 in /sys/fs/cgroup{}/cgroup.freeze)"
Outcome_ = tuple[Enum, str]


def lose_disk(log: Any) -> None:
    """End all that still runs on a filesystem that the kernel has given up, so that it can be mounted anew. Their machines see them end."""
    log.warning("personas killed", why="the filesystem they run on is dead")
    kill_all()


def kill_all() -> None:
    """End every process of every container, a validation's probe too, without asking podman."""
    for group in (PERSONAS, TENANTS, CONMONS):
        cgroup.kill(f"{cgroup.ROOT}{group}")


def configure(places: Places, log: Any) -> None:
    """Tell podman where things are; /persist is mounted by now."""
    try:
        write_config(config_files(places.storage))
    except OSError as error:
        log.error("podman is not configured", why=str(error))
    unbound = bound_monitors()
    if unbound:
        log.warning("monitors are not limited", why=unbound)


@frozen
class Places:
    """Where on the disk things are; strings that only podman and the state worker follow."""

    homes: str
    logs: str
    storage: StoragePaths


@define(eq=False, repr=False)
class Live:
    """A container that we started in this boot."""

    container: str
    directory: str
    since: float
    calm: Timer | None = None
    monitor: int | None = None  # the pid of its conmon; 0: it has ended; None: not known


@define(eq=False, repr=False)
class ContainerPort:
    """The effect port of a kind of machines that are containers. `group`: the cgroup that theirs are in.

    `boot`: this boot's machine. `own` hears of the end of a child of PID 1 (Reaper.own).
    """

    engine: Engine
    reactor: Reactor
    bounds: Bounds
    log: Any
    state: StatePort
    podman: Podman
    watch: CgroupWatch
    places: Places
    boot: Instance
    built_in: Callable[[], Mapping[str, str]]
    clearing: Clearing
    audit: Audit
    umbilical: Late[Any]  # umbilical.doors.Umbilical
    own: Callable[[int, Callable[[int], None]], None]
    _live: dict[str, Live] = field(init=False, factory=dict)
    _ends: dict[str, reconcile.End] = field(init=False, factory=dict)
    _stuck: dict[str, int] = field(init=False, factory=dict)
    _loading: dict[str, list[flow.Resume]] = field(init=False, factory=dict)  # archive -> who waits for its images

    group: ClassVar[str]

    def __attrs_post_init__(self) -> None:
        """Let each kind make what belongs to it: they are plain classes, which a boot has sooner than one of attrs that inherits."""
        self.audit.look_into(self.group, self.containers)
        self._begin()

    # ---- what each kind says itself

    def _begin(self) -> None:
        """Make what belongs to this kind."""
        raise NotImplementedError

    def _duties(self) -> Mapping[str, Callable[[Instance], flow.Flow[Outcome_]]]:
        """Return the flows that only this kind has, by their effects' names; the others are below."""
        raise NotImplementedError

    def _stop_s(self, instance: Instance) -> float:
        """Return how many seconds it has from TERM to KILL."""
        raise NotImplementedError

    def _after_end(self, instance: Instance, end: reconcile.End) -> Outcome_:
        """Return what follows now that nothing is left of it."""
        raise NotImplementedError

    def _leaves(self, name: str) -> None:
        """Take back what it was given: its end is under way."""

    def _cancelled(self, _name: str) -> bool:
        """Take back a start that has not begun; False: it has, or there is none."""
        return False

    # ---- the effect port

    def start(self, instance: Instance, effect: Enum, token: int) -> None:
        """Do what `instance` owes."""

        def owed() -> bool:
            return instance.committed is not None and instance.committed.n == token

        flows: dict[str, Callable[[Instance], flow.Flow[Outcome_]]] = {
            "PAUSE": partial(self._freeze, frozen=True),
            "RESUME": partial(self._freeze, frozen=False),
            "STOP": self._stop,
            "CLEAR": self._clear,
            "WAIT_CLEAR": self._wait_clear,
            "WAIT": self._wait,
            **self._duties(),
        }

        def ended(outcome: Outcome_ | None) -> None:
            if outcome is not None:
                self._report(instance, token, *outcome)

        flow.run(flow.as_long_as(owed, flows[effect.name](instance)), ended)

    def _report(self, instance: Instance, token: int, event: Enum, why: str) -> None:
        self.reactor.call_soon(lambda: self.engine.outcome(instance.name, token, event, why))

    def _ask(self, op: str, resume: flow.Resume, **arguments: Any) -> None:
        self.state.ask(op, self.bounds.open, resume, **arguments)

    def _pause(self, seconds: float) -> flow.Waitable:
        def wait(resume: flow.Resume) -> None:
            self.reactor.call_later(seconds, lambda: resume(None))

        return wait

    def _send(self, name: str, event: Enum | str, why: str) -> None:
        """Send an event of the table, or the one that is called so in whichever table it is."""
        if name in self.engine.instances:
            definition = self.engine.instances[name].definition
            self.engine.send(name, definition.event(event) if isinstance(event, str) else event, why)

    def _asker(self, instance: Instance) -> Asker:
        """Return for whom podman is called: what `instance` owes now. Its deadline does not run while podman is busy with others."""
        token = instance.committed.n if instance.committed is not None else 0
        waiting: list[bool] = []

        def wanted() -> bool:
            return instance.committed is not None and instance.committed.n == token

        def waits() -> None:
            waiting.append(True)
            self.engine.waits(instance.name, token, self.bounds.turn)

        def begins() -> None:
            if waiting:
                waiting.clear()
                self.engine.begins(instance.name, token)

        return Asker(wanted, waits, begins)

    # ---- a container begins

    def _made(self, instance: Instance, spec: RunSpec) -> flow.Flow[Verdict]:
        """Have podman make and start a container; one of an earlier try that we were not told of is removed first."""
        ran = yield from self._run_it(instance, spec)
        if ran.outcome is Outcome.NAME_TAKEN:
            yield partial(self.podman.remove, [spec.name], 0, asker=self._asker(instance))
            ran = yield from self._run_it(instance, spec)
        return ran

    def _run_it(self, instance: Instance, spec: RunSpec) -> flow.Flow[Verdict]:
        ran: Verdict = yield partial(self.podman.run, spec, asker=self._asker(instance))
        return ran

    def _image_loaded(self, archive: str, resume: flow.Resume) -> None:
        """Load an archive, or wait for the one that is doing so."""
        waiting = self._loading.setdefault(archive, [])
        waiting.append(resume)
        if len(waiting) == 1:
            self.podman.image_load(archive, partial(self._image_is_loaded, archive))

    def _image_is_loaded(self, archive: str, loaded: Verdict) -> None:
        for resume in self._loading.pop(archive):
            resume(loaded)

    def _discarded(self, spec: RunSpec, ran: Verdict) -> flow.Flow[Verdict]:
        """Remove an image with damaged layers, which podman's own check may not see (a link file that a crash left empty), to be loaded anew.

        Return what came of it: there is no image, or still the damage, since others use it.
        """
        self.log.warning("a damaged image is removed, to be loaded anew", image=spec.image, why=ran.why)
        yield partial(self.podman.remove, [spec.name], 0)
        removed: Verdict = yield partial(self.podman.image_remove, spec.image)
        return evolve(ran, outcome=Outcome.NO_IMAGE) if removed.ok or removed.outcome is Outcome.NO_IMAGE else ran

    def _started(self, instance: Instance, container: str) -> Live:
        directory = f"{cgroup.ROOT}{self.group}/libpod-{container}"
        live = self._live[instance.name] = Live(container, directory, self.reactor.clock())
        self.watch.add(directory, partial(self._look, instance.name, live))
        self.reactor.call_soon(partial(self._look, instance.name, live))  # it may have ended before it was watched
        live.monitor = monitor(container)
        if live.monitor:
            expose_monitor(live.monitor)
        return live

    def _look(self, name: str, live: Live) -> None:
        """See whether a container still has processes, and is as frozen as it is meant to be; the kernel's word, not podman's."""
        instance = self.engine.instances.get(name)
        if self._live.get(name) is not live or instance is None:
            return
        now = instance.now.value
        if not cgroup.populated(live.directory):
            self._send(name, "ENDED", f"container {live.container[:12]} has no process left")
        elif now in AT_WORK and cgroup.frozen(live.directory) and cgroup.told_to_freeze(live.directory):  # else all stand still together, on purpose
            self._send(name, "FROZEN", "cgroup.events says so")
        elif now == "paused" and not cgroup.frozen(live.directory):
            self._send(name, "THAWED", "cgroup.events says so")

    def look_again(self, instance: Instance) -> None:
        """Look at one that has come to rest with a container: what happened on the way there was not heard."""
        live = self._live.get(instance.name)
        if live is not None and instance.now.value in (*AT_WORK, "paused"):
            self.reactor.call_soon(partial(self._look, instance.name, live))

    def _calm_later(self, name: str, live: Live) -> None:
        """Forget the attempts of one that lives for a while from now on."""
        live.calm = self.reactor.call_later(CALM_S, partial(self._calm, name, live))

    def _calm(self, name: str, live: Live) -> None:
        if self._live.get(name) is live:
            self._send(name, "CALM", "")

    # ---- freeze and thaw

    def _freeze(self, instance: Instance, *, frozen: bool) -> flow.Flow[Outcome_]:
        event = instance.definition.event
        live = self._live.get(instance.name)
        if live is None:
            return event("FAULT"), "it has no container of this boot"
        call = self.podman.pause if frozen else self.podman.unpause
        done: Verdict = yield partial(call, names.parse(instance.name).podman, asker=self._asker(instance))
        if done.outcome is Outcome.WRONG_STATE:  # podman goes by its own database, and knows nothing of what was done behind its back
            cgroup.freeze(live.directory, frozen=frozen)
        elif not done.ok:
            self.audit.soon_after(done)
            return event("FAULT"), done.why
        end = self.reactor.clock() + self.bounds.freeze
        while cgroup.frozen(live.directory) is not frozen:
            if not frozen and self._above_frozen() and not cgroup.told_to_freeze(live.directory):
                return event("RESUMED"), ABOVE.format(self.group)
            if self.reactor.clock() > end:
                return event("FAULT"), f"{self.bounds.freeze:g} s after podman said so the kernel does not say frozen {int(frozen)}"
            yield self._pause(LOOK_S)
        return event("PAUSED" if frozen else "RESUMED"), "as cgroup.events says"

    def _above_frozen(self) -> bool:
        """Tell whether all of them stand still together, which is somebody's purpose and not ours to undo."""
        return cgroup.told_to_freeze(f"{cgroup.ROOT}{self.group}")

    # ---- its end

    def _stop(self, instance: Instance) -> flow.Flow[Outcome_]:
        """End it politely: what is frozen cannot hear TERM, so it is thawed first."""
        event = instance.definition.event
        name = names.parse(instance.name).podman
        live = self._unwatch(instance.name)
        if self._cancelled(instance.name):
            return event("GONE"), "its start had not begun: podman was not called"
        if live is not None and cgroup.frozen(live.directory):
            yield partial(self.podman.unpause, name, asker=self._asker(instance))
            cgroup.thaw(live.directory)  # podman refuses if it was not podman who froze it
        removed: Verdict = yield partial(self.podman.remove, [name], self._stop_s(instance), asker=self._asker(instance))
        if (removed.ok or removed.outcome is Outcome.NO_CONTAINER) and not (yield from self._haunts(live)):
            self._live.pop(instance.name, None)
            return event("GONE"), ""
        self.audit.soon_after(removed)
        return event("FAULT"), HAUNTED if removed.ok else removed.why

    def _haunts(self, live: Live | None) -> flow.Flow[bool]:
        """Tell whether processes outlive what podman says has been removed; it may have been killed as it made the container."""
        bound = self.reactor.clock() + self.bounds.exit_status
        while live is not None and cgroup.populated(live.directory):
            if self.reactor.clock() > bound:
                return True
            yield self._pause(LOOK_S)
        return False

    def _clear(self, instance: Instance) -> flow.Flow[Outcome_]:
        live = self._unwatch(instance.name)
        end = yield from self._end(instance, live)
        asker = self._asker(instance)
        asker.waits()  # for a round, whose calls have bounds for as many as there are in it
        cleared: Cleared = yield partial(self.clearing.clear, names.parse(instance.name).podman)
        asker.begins()
        if not cleared.gone or (yield from self._haunts(live)):  # STUCK ends its processes
            return instance.definition.event("FAULT"), HAUNTED if cleared.gone else cleared.why
        for known in (self._live, self._ends, self._stuck):
            known.pop(instance.name, None)
        return self._after_end(instance, evolve(end, status=cleared.status) if end.by_itself and end.status is None else end)

    def _end(self, instance: Instance, live: Live | None) -> flow.Flow[reconcile.End]:
        """Find out why it is to be cleared; once, since later tries are about podman. conmon says a moment after the end how it ended."""
        step = instance.committed
        if step is None or step.source == "stuck":
            return self._ends.get(instance.name, reconcile.End("podman could not clear it"))
        status, by_itself = None, step.event == "ended"
        bound = self.reactor.clock() + self.bounds.exit_status
        while by_itself and live is not None and (status := exit_status(live.container)) is None and self.reactor.clock() < bound:
            yield self._pause(LOOK_S)
        end = self._ends[instance.name] = reconcile.End(step.why, by_itself, status)
        return end

    def _wait_clear(self, instance: Instance) -> flow.Flow[Outcome_]:
        """Podman did not help: end its processes without podman, then wait."""
        live = self._live.get(instance.name)
        if live is not None:
            cgroup.kill(live.directory)
        count = self._stuck[instance.name] = self._stuck.get(instance.name, -1) + 1
        yield self._pause(STUCK_S[min(count, len(STUCK_S) - 1)])
        return instance.definition.event("WAITED"), ""

    def _wait(self, instance: Instance) -> flow.Flow[Outcome_]:
        yield self._pause(BACK_OFF_S[min(max(0, instance.attempts - 1), len(BACK_OFF_S) - 1)])
        return instance.definition.event("WAITED"), ""

    def _unwatch(self, name: str) -> Live | None:
        """Its end is under way: nothing that happens to it now is news."""
        self._leaves(name)
        live = self._live.get(name)
        if live is not None:
            self.watch.remove(live.directory)
            if live.calm is not None:
                live.calm.cancel()
        return live

    def container(self, name: str) -> str | None:
        """Return the id of the container that runs for `name`, if one does."""
        live = self._live.get(name)
        return live.container if live is not None else None

    def lives(self) -> bool:
        """Tell whether any container of ours has a process, as the kernel sees it."""
        return any(cgroup.populated(live.directory) for live in self._live.values())

    def containers(self) -> set[str]:
        """Return the ids of all containers that run."""
        return {live.container for live in self._live.values()}
