"""The life of a container that we started, from its first process to nothing left of it, for each kind of machine.

The effect port of a kind (personas/port.py, ai/port.py) owns one `Life` and tells it what differs: the kind's words, its
cgroup, and what the port does itself.
Each effect is a short flow over podman, the state worker and the kernel's cgroup files. Every one of its waits has a bound, and none begins once
the step it belongs to has been overtaken. What the kernel says of the cgroup counts, not what podman thinks it did.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, evolve, field, frozen

from bay0.base import names
from bay0.containers.freezer import Freezer
from bay0.containers.making import Making
from bay0.effects import cgroup
from bay0.pid1 import flow
from bay0.podman.calls import Asker, Outcome, bound_monitors, config_files, exit_status, expose_monitor, monitor, write_config
from bay0.reconcile.plan import End

if TYPE_CHECKING:
    from bay0.base.bounds import Bounds
    from bay0.effects.watch import CgroupWatch
    from bay0.machines.container import Words
    from bay0.machines.engine import Engine
    from bay0.machines.instance import Instance
    from bay0.pid1.reactor import Reactor, Timer
    from bay0.podman.calls import Podman, StoragePaths, Verdict
    from bay0.reconcile.audit import Audit
    from bay0.reconcile.clearing import Cleared, Clearing
    from bay0.state.port import StatePort

PERSONAS = "/personas"  # the cgroups of containers: of personas,
TENANTS = "/tenants"  # of servers, and of a validation's probe,
CONMONS = "/conmon"  # and of all their monitors (podman/argv.py)
BACK_OFF_S = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
STUCK_S = (2.0, 5.0, 10.0, 20.0)
CALM_S = 60.0  # one that lived this long has not failed quickly
LOOK_S = 0.05  # between two looks at an end
LOG_SIZE = 4 << 20  # bytes of a container's log, after which conmon starts it anew
_FILTERS = "/usr/share/spine-seccomp"  # made of podman's default by scripts/lib/seccomp.py
PERSONA_FILTER = f"{_FILTERS}/persona.json"  # no namespaces, no keyrings
TENANT_FILTER = f"{_FILTERS}/tenant.json"  # nor mounts, nor the memory of other processes
HAUNTED = "podman says it is gone, the kernel says it lives"
Outcome_ = tuple[Enum, str] | tuple[Enum, str, str]  # the event, why, and what the machine is made of from then on
Duty = Callable[["Instance"], flow.Flow[Outcome_]]


def owe(means: Means, instance: Instance, token: int, steps: flow.Flow[Outcome_]) -> None:
    """Do what `instance` owes since its step number `token`, as long as that is so, and report its outcome."""

    def owed() -> bool:
        return instance.committed is not None and instance.committed.n == token

    def ended(outcome: Outcome_ | None) -> None:
        if outcome is not None:
            means.reactor.call_soon(partial(means.engine.outcome, instance.name, token, *outcome))

    flow.run(flow.as_long_as(owed, steps), ended)


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
    """A container that we started in this boot. `changed`: called once when the kernel says that its group has changed."""

    container: str
    directory: str
    since: float
    calm: Timer | None = None
    monitor: int | None = None  # the pid of its conmon; 0: it has ended; None: not known
    changed: Callable[[], None] | None = None
    paused_by_podman: bool = False  # it may be: podman then ends it without TERM, and lets nobody in


@frozen(eq=False, repr=False)
class Means:
    """What a container's life takes of the spine, whatever its kind."""

    engine: Engine
    reactor: Reactor
    bounds: Bounds
    log: Any
    state: StatePort
    podman: Podman
    watch: CgroupWatch
    places: Places
    clearing: Clearing
    audit: Audit


@frozen(eq=False, repr=False)
class Kind:
    """What differs by the kind of machine.

    `group`: the cgroup that its containers are in. `duties`: the effects that only this kind has. `stop_s`: seconds from TERM
    to KILL. `after_end`: the event that follows now that nothing is left of it, and why. `leaves`: called as its end begins,
    to take back what it was given. `cancelled`: take back a start that has not begun; False: it has, or there is none.
    `hide`: what a freeze waits for, within a bound of its own.
    """

    words: Words
    group: str
    duties: Mapping[Enum, Duty]
    stop_s: Callable[[Instance], float]
    after_end: Callable[[Instance, End], Outcome_]
    leaves: Callable[[str], None]
    cancelled: Callable[[str], bool]
    hide: Callable[[str], Iterable[flow.Waitable]] = lambda _name: ()


@define(eq=False, repr=False)
class Life:
    """The life of all containers of one kind; it does the effects that their kind has in common with others."""

    means: Means
    kind: Kind
    making: Making = field(init=False)
    freezer: Freezer = field(init=False)
    _flows: Mapping[Enum, Duty] = field(init=False)
    _live: dict[str, Live] = field(init=False, factory=dict)
    _ends: dict[str, End] = field(init=False, factory=dict)
    _stuck: dict[str, int] = field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        effects = self.kind.words.effects
        self._flows = {
            effects.PAUSE: partial(self._freeze, frozen=True),
            effects.RESUME: partial(self._freeze, frozen=False),
            effects.STOP: self._stop,
            effects.CLEAR: self._clear,
            effects.WAIT_CLEAR: self._wait_clear,
            effects.WAIT: self._wait,
            **self.kind.duties,
        }
        self.making = Making(self.means.podman, self.means.log, self.asker)
        self.freezer = Freezer(self.means, self.kind.words, self.kind.group)
        self.means.audit.look_into(self.kind.group, self.containers, self.paused_by_podman)

    # ---- the effects

    def start(self, instance: Instance, effect: Enum, token: int) -> None:
        """Do what `instance` owes since its step number `token`."""
        owe(self.means, instance, token, self._flows[effect](instance))

    def ask(self, op: str, resume: flow.Resume, **arguments: Any) -> None:
        """Ask the state worker; for a flow."""
        self.means.state.ask(op, self.means.bounds.open, resume, **arguments)

    def pause(self, seconds: float) -> flow.Waitable:
        """Wait so long; for a flow."""

        def wait(resume: flow.Resume) -> None:
            self.means.reactor.call_later(seconds, lambda: resume(None))

        return wait

    def send(self, name: str, event: Enum, why: str) -> None:
        """Send an event to a machine, if it is still there."""
        if name in self.means.engine.instances:
            self.means.engine.send(name, event, why)

    def asker(self, instance: Instance) -> Asker:
        """Return for whom podman is called: what `instance` owes now. Its deadline does not run while podman is busy with others."""
        token = instance.committed.n if instance.committed is not None else 0
        waiting: list[bool] = []

        def wanted() -> bool:
            return instance.committed is not None and instance.committed.n == token

        def waits() -> None:
            waiting.append(True)
            self.means.engine.waits(instance.name, token, self.means.bounds.turn)

        def begins() -> None:
            if waiting:
                waiting.clear()
                self.means.engine.begins(instance.name, token)

        return Asker(wanted, waits, begins)

    # ---- a container that runs

    def started(self, instance: Instance, container: str) -> Live:
        """Watch the container that now runs for `instance`; return it."""
        directory = f"{cgroup.ROOT}{self.kind.group}/libpod-{container}"
        live = self._live[instance.name] = Live(container, directory, self.means.reactor.clock())
        self.means.watch.add(directory, partial(self.look, instance.name, live))
        # it may have ended before it was watched
        self.means.reactor.call_soon(partial(self.look, instance.name, live))
        live.monitor = monitor(container)
        if live.monitor:
            expose_monitor(live.monitor)
        return live

    def look(self, name: str, live: Live) -> None:
        """See whether a container still has processes, and is as frozen as it is meant to be; the kernel's word, not podman's."""
        instance, words = self.means.engine.instances.get(name), self.kind.words
        if self.current(name) is not live or instance is None:
            return
        if live.changed is not None:
            changed, live.changed = live.changed, None
            changed()
        if not cgroup.populated(live.directory):
            self.send(name, words.events.ENDED, f"container {live.container[:12]} has no process left")
        elif instance.now is words.runs:
            # told to freeze itself; else all stand still together, on purpose
            if cgroup.frozen(live.directory) and cgroup.told_to_freeze(live.directory):
                live.paused_by_podman = True
                self.send(name, words.events.FROZEN, "cgroup.events says so")
        elif instance.now is words.states.PAUSED and not cgroup.frozen(live.directory):
            self.send(name, words.events.THAWED, "cgroup.events says so")

    def look_again(self, instance: Instance) -> None:
        """Look at one that has come to rest with a container: what happened on the way there was not heard."""
        live = self.current(instance.name)
        if live is not None and instance.now in (self.kind.words.runs, self.kind.words.states.PAUSED):
            self.means.reactor.call_soon(partial(self.look, instance.name, live))

    def calm_later(self, name: str, live: Live) -> None:
        """Forget the attempts of one that lives for a while from now on."""
        live.calm = self.means.reactor.call_later(CALM_S, partial(self._calm, name, live))

    def _calm(self, name: str, live: Live) -> None:
        if self.current(name) is live:
            self.send(name, self.kind.words.events.CALM, "")

    # ---- freeze and thaw

    def _freeze(self, instance: Instance, *, frozen: bool) -> flow.Flow[Outcome_]:
        live = self.current(instance.name)
        if live is None:
            return self.kind.words.events.FAULT, "it has no container of this boot"
        if frozen:
            yield from self.kind.hide(instance.name)
        return (yield from self.freezer.change(instance.name, live, frozen=frozen))

    def paused_by_podman(self, containers: Collection[str]) -> None:
        """Hear which containers podman calls paused: of ours nobody but somebody's hand made it so. It is told of those that run."""
        for name, live in self._live.items():
            if live.container in containers:
                live.paused_by_podman = True
                instance = self.means.engine.instances.get(name)
                if instance is not None and instance.now is self.kind.words.runs and not cgroup.told_to_freeze(live.directory):
                    self.freezer.tell_podman(name, live)

    # ---- its end

    def _stop(self, instance: Instance) -> flow.Flow[Outcome_]:
        """End it politely: what is frozen cannot hear TERM, so it is thawed first."""
        e, podman = self.kind.words.events, self.means.podman
        name = names.parse(instance.name).podman
        live = self._unwatch(instance.name)
        if self.kind.cancelled(instance.name):
            return e.GONE, "its start had not begun: podman was not called"
        if live is not None:
            why = cgroup.thaw(live.directory)  # also what is about to be frozen
            if why and cgroup.populated(live.directory):
                self.means.log.warning("not thawed: if it is frozen it cannot hear that it is to end", container=live.container, why=why)
            if live.paused_by_podman:
                yield partial(podman.unpause, name, asker=self.asker(instance))
        stop_s = self.kind.stop_s(instance)
        removed: Verdict = yield partial(podman.remove, [name], stop_s, asker=self.asker(instance))
        if (removed.ok or removed.outcome is Outcome.NO_CONTAINER) and not (yield from self._haunts(live)):
            self._live.pop(instance.name, None)
            return e.GONE, ""
        self.means.audit.soon_after(removed)
        return e.FAULT, HAUNTED if removed.ok else removed.why

    def _haunts(self, live: Live | None) -> flow.Flow[bool]:
        """Tell whether processes outlive what podman says has been removed; it may have been killed as it made the container."""
        bound = self.means.reactor.clock() + self.means.bounds.exit_status
        while live is not None and cgroup.populated(live.directory):
            if self.means.reactor.clock() > bound:
                return True
            yield self.pause(LOOK_S)
        return False

    def _clear(self, instance: Instance) -> flow.Flow[Outcome_]:
        live = self._unwatch(instance.name)
        end = yield from self._end(instance, live)
        asker = self.asker(instance)
        asker.waits()  # for a round, whose calls have bounds for as many as there are in it
        cleared: Cleared = yield partial(self.means.clearing.clear, names.parse(instance.name).podman)
        asker.begins()
        if not cleared.gone or (yield from self._haunts(live)):  # STUCK ends its processes
            return self.kind.words.events.FAULT, HAUNTED if cleared.gone else cleared.why
        for known in (self._live, self._ends, self._stuck):
            known.pop(instance.name, None)
        known_late = end.by_itself and end.status is None
        return self.kind.after_end(instance, evolve(end, status=cleared.status) if known_late else end)

    def _end(self, instance: Instance, live: Live | None) -> flow.Flow[End]:
        """Find out why it is to be cleared; once, since later tries are about podman. conmon says a moment after the end how it ended."""
        step, words = instance.committed, self.kind.words
        if step is None or step.source == words.states.STUCK.value:
            return self._ends.get(instance.name, End("podman could not clear it"))
        status, by_itself, clock = None, step.event == words.events.ENDED.value, self.means.reactor.clock
        bound = clock() + self.means.bounds.exit_status
        while by_itself and live is not None and (status := exit_status(live.container)) is None and clock() < bound:
            yield self.pause(LOOK_S)
        end = self._ends[instance.name] = End(step.why, by_itself, status)
        return end

    def _wait_clear(self, instance: Instance) -> flow.Flow[Outcome_]:
        """Podman did not help: end its processes without podman, then wait."""
        live = self.current(instance.name)
        if live is not None:
            cgroup.kill(live.directory)
        count = self._stuck[instance.name] = self._stuck.get(instance.name, -1) + 1
        yield self.pause(STUCK_S[min(count, len(STUCK_S) - 1)])
        return self.kind.words.events.WAITED, ""

    def _wait(self, instance: Instance) -> flow.Flow[Outcome_]:
        yield self.pause(BACK_OFF_S[min(max(0, instance.attempts - 1), len(BACK_OFF_S) - 1)])
        return self.kind.words.events.WAITED, ""

    def _unwatch(self, name: str) -> Live | None:
        """Its end is under way: nothing that happens to it now is news."""
        self.kind.leaves(name)
        live = self.current(name)
        if live is not None:
            self.means.watch.remove(live.directory)
            if live.calm is not None:
                live.calm.cancel()
        return live

    def current(self, name: str) -> Live | None:
        """Return the container that `name` has now, if this boot started one."""
        return self._live.get(name)

    def container(self, name: str) -> str | None:
        """Return the id of the container that runs for `name`, if one does."""
        live = self.current(name)
        return live.container if live is not None else None

    def lives(self) -> bool:
        """Tell whether any container of ours has a process, as the kernel sees it."""
        return any(cgroup.populated(live.directory) for live in self._live.values())

    def containers(self) -> set[str]:
        """Return the ids of all containers that run."""
        return {live.container for live in self._live.values()}
