"""What a persona's busy states owe: the effect port of its machine, and the eye on its containers while they run.

Each effect is a short flow over podman, the state worker and the kernel's cgroup files. Every one of its waits has a bound, and none begins once
the step it belongs to has been overtaken. What the kernel says of the cgroup counts, not what podman thinks it did.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import Enum
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from attrs import define, evolve, field, frozen

from bay0 import flow, names, reconcile
from bay0.audit import Audit
from bay0.clearing import Clearing
from bay0.effects import cgroup
from bay0.effects.podman import Outcome, RunSpec, config_files, exit_status, write_config
from bay0.errors import ManifestError
from bay0.machines.persona import HAS_CONTAINER, E, Effect, S

if TYPE_CHECKING:
    from bay0.bounds import Bounds
    from bay0.clearing import Cleared
    from bay0.effects.podman import Podman, StoragePaths, Verdict
    from bay0.effects.watch import CgroupWatch
    from bay0.machines.engine import Engine, Instance, Step
    from bay0.manifest import Manifest
    from bay0.reactor import Reactor, Timer
    from bay0.state.link import Answer
    from bay0.state.port import StatePort

GROUP = "/personas"
CONMON_GROUP = "/conmon"  # of all containers' monitors (effects/podman.py)
UID_BASE = 100_000  # the first uid of slot 0; each persona has a range of its own
UIDS = 65_536
SLOTS_MAX = 32_000
LOG_SIZE = 4 << 20  # bytes of a container's log, after which conmon starts it anew
OOM_SCORE = 300  # above the spine's own processes (0), below the tenants that are to be sacrificed first
BACK_OFF_S = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
STUCK_S = (2.0, 5.0, 10.0, 20.0)
CALM_S = 60.0  # a container that lived this long has not failed quickly
CONFIGS_KEPT = 2048  # read ones: a list of all personas must not hold up the reactor each time
SWEEP_AGAIN_S = 0.5  # of the trash
LOOK_S = 0.05  # between two looks at a freeze
HAUNTED = "podman says it is gone, the kernel says it lives"
Outcome_ = tuple[E, str]


@frozen
class Places:
    """Where on the disk things are; strings that only podman and the state worker follow."""

    homes: str
    logs: str
    storage: StoragePaths


@frozen
class Config:
    """What a persona is made of, as its machine keeps it: the manifest and the slot of its uid range."""

    manifest: Manifest
    slot: int

    @property
    def uid(self) -> int:
        """The uid that root inside is outside."""
        return UID_BASE + self.slot * UIDS

    def text(self) -> str:
        """Return it as the database keeps it."""
        return json.dumps({"manifest": self.manifest.to_wire(), "slot": self.slot}, separators=(",", ":"))


@lru_cache(maxsize=CONFIGS_KEPT)
def read_config(text: str) -> Config | None:
    """Return what `Config.text` made; None for what this program does not understand: the database may be from elsewhere."""
    from bay0 import manifest  # late: a boot without personas does not pay for it

    try:
        found = json.loads(text)
        return Config(manifest.from_wire(found["manifest"]), int(found["slot"]))
    except (ValueError, KeyError, TypeError, ManifestError):
        return None


@define(eq=False, repr=False)
class _Live:
    """A container that we started in this boot."""

    container: str
    directory: str
    since: float
    calm: Timer | None = None


@define(eq=False, repr=False)
class Personas:
    """The effect port of all personas."""

    reactor: Reactor
    bounds: Bounds
    log: Any
    state: StatePort
    podman: Podman
    watch: CgroupWatch
    places: Places
    boot_id: str
    built_in: Callable[[], Mapping[str, str]]
    engine: Engine | None = None
    clearing: Clearing = field(init=False)
    audit: Audit = field(init=False)
    _live: dict[str, _Live] = field(factory=dict)
    _ends: dict[str, reconcile.End] = field(factory=dict)
    _stuck: dict[str, int] = field(factory=dict)
    _waiting: set[str] = field(factory=set)  # to be started once they are at rest (autostart)

    def __attrs_post_init__(self) -> None:
        """Make what belongs to this port."""
        self.clearing = Clearing(self.reactor, self.podman)
        self.audit = Audit(self.reactor, self.log, self.state, self.podman, self.clearing, GROUP, self.containers)

    def configure(self) -> None:
        """Tell podman where things are; /persist is mounted by now."""
        try:
            write_config(config_files(self.places.storage))
        except OSError as error:
            self.log.error("podman is not configured", why=str(error))

    # ---- the effect port

    def start(self, instance: Instance, effect: Enum, token: int) -> None:
        """Do what `instance` owes."""

        def owed() -> bool:
            return instance.committed is not None and instance.committed.n == token

        flows: dict[Enum, Callable[[Instance], flow.Flow[Outcome_]]] = {
            Effect.RUN: self._run,
            Effect.PAUSE: partial(self._freeze, frozen=True),
            Effect.RESUME: partial(self._freeze, frozen=False),
            Effect.STOP: self._stop,
            Effect.CLEAR: self._clear,
            Effect.WAIT_CLEAR: self._wait_clear,
            Effect.WAIT: self._wait,
        }

        def ended(outcome: Outcome_ | None) -> None:
            if outcome is not None:
                self._report(instance, token, *outcome)

        flow.run(flow.as_long_as(owed, flows[effect](instance)), ended)

    def _report(self, instance: Instance, token: int, event: E, why: str) -> None:
        if self.engine is not None:
            engine = self.engine
            self.reactor.call_soon(lambda: engine.outcome(instance.name, token, event, why))

    # ---- a container is owed

    def _run(self, instance: Instance) -> flow.Flow[Outcome_]:
        name = names.parse(instance.name)
        config = read_config(instance.config)
        if config is None:
            return E.FAULT, "its stored configuration makes no sense to this program; remove it and create it again"
        prepared: Answer = yield partial(self._ask, "persona_prepare", name=name.podman, home=bool(config.manifest.home))
        if not prepared.ok:
            return E.FAULT, f"its home could not be prepared: {prepared.why}"
        spec = self._spec(instance, name, config)
        ran: Verdict = yield partial(self.podman.run, spec)
        if ran.outcome is Outcome.NAME_TAKEN:  # an earlier try that we were not told of
            yield partial(self.podman.remove, [name.podman], 0)
            ran = yield partial(self.podman.run, spec)
        archive = self.built_in().get(spec.image) if ran.outcome is Outcome.NO_IMAGE else None
        if archive is not None:
            yield partial(self.podman.image_load, archive)
            ran = yield partial(self.podman.run, spec)
        if not ran.ok:
            self.audit.soon_after(ran)
            return E.FAULT, ran.why
        self._started(instance, str(ran.value))
        return E.STARTED, f"container {str(ran.value)[:12]}"

    def _ask(self, op: str, resume: flow.Resume, **arguments: Any) -> None:
        self.state.ask(op, self.bounds.open, resume, **arguments)

    def _spec(self, instance: Instance, name: names.Name, config: Config) -> RunSpec:
        wanted = config.manifest
        home = ((f"{self.places.homes}/{name.podman}", wanted.home, "rw"),) if wanted.home else ()
        from bay0.manifest import digest  # late, as above

        labels = {
            "bay0.persona": instance.name,
            "bay0.seq": str(instance.seq),
            "bay0.boot": self.boot_id,
            "bay0.config": digest(wanted),
        }
        return RunSpec(
            name=name.podman, image=wanted.image, command=wanted.command, environment=wanted.environment, labels=labels,
            memory=wanted.memory, cpus=wanted.cpus, pids=wanted.pids, capabilities=wanted.capabilities, cgroup_parent=GROUP,
            uid_base=config.uid, mounts=home, workdir=wanted.home, hostname=name.label, log_path=f"{self.places.logs}/{name.podman}.log",
            log_size=LOG_SIZE, oom_score_adj=OOM_SCORE, read_only=False, stop_s=wanted.stop_s,
        )  # fmt: skip

    def _started(self, instance: Instance, container: str) -> None:
        directory = f"{cgroup.ROOT}{GROUP}/libpod-{container}"
        live = self._live[instance.name] = _Live(container, directory, self.reactor.clock())
        self.watch.add(directory, partial(self._look, instance.name, live))
        live.calm = self.reactor.call_later(CALM_S, partial(self._calm, instance.name, live))
        self.reactor.call_soon(partial(self._look, instance.name, live))  # it may have ended before it was watched

    def _look(self, name: str, live: _Live) -> None:
        """See whether a container that should run still has processes; the kernel's word, not podman's."""
        if self._live.get(name) is live and not cgroup.populated(live.directory):
            self._send(name, E.ENDED, f"container {live.container[:12]} has no process left")

    def _calm(self, name: str, live: _Live) -> None:
        if self._live.get(name) is live:
            self._send(name, E.CALM, "")

    def _send(self, name: str, event: E, why: str) -> None:
        if self.engine is not None and name in self.engine.instances:
            self.engine.send(name, event, why)

    # ---- freeze and thaw

    def _freeze(self, instance: Instance, *, frozen: bool) -> flow.Flow[Outcome_]:
        live = self._live.get(instance.name)
        if live is None:
            return E.FAULT, "it has no container of this boot"
        call = self.podman.pause if frozen else self.podman.unpause
        done: Verdict = yield partial(call, names.parse(instance.name).podman)
        if not done.ok and done.outcome is not Outcome.WRONG_STATE:  # which it may be in already: the kernel knows
            self.audit.soon_after(done)
            return E.FAULT, done.why
        end = self.reactor.clock() + self.bounds.freeze
        while cgroup.frozen(live.directory) is not frozen:
            if self.reactor.clock() > end:
                return E.FAULT, f"{self.bounds.freeze:g} s after podman said so the kernel does not say frozen {int(frozen)}"
            yield self._pause(LOOK_S)
        return (E.PAUSED if frozen else E.RESUMED), "as cgroup.events says"

    def _pause(self, seconds: float) -> flow.Waitable:
        def wait(resume: flow.Resume) -> None:
            self.reactor.call_later(seconds, lambda: resume(None))

        return wait

    # ---- its end

    def _stop(self, instance: Instance) -> flow.Flow[Outcome_]:
        """End it politely: what is frozen cannot hear TERM, so it is thawed first."""
        name = names.parse(instance.name).podman
        live = self._unwatch(instance.name)
        if live is not None and cgroup.frozen(live.directory):
            yield partial(self.podman.unpause, name)
        config = read_config(instance.config)
        removed: Verdict = yield partial(self.podman.remove, [name], config.manifest.stop_s if config else 0)
        if (removed.ok or removed.outcome is Outcome.NO_CONTAINER) and not (yield from self._haunts(live)):
            self._live.pop(instance.name, None)
            return E.GONE, ""
        self.audit.soon_after(removed)
        return E.FAULT, HAUNTED if removed.ok else removed.why

    def _haunts(self, live: _Live | None) -> flow.Flow[bool]:
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
        cleared: Cleared = yield partial(self.clearing.clear, names.parse(instance.name).podman)
        if not cleared.gone or (yield from self._haunts(live)):  # STUCK ends its processes
            return E.FAULT, HAUNTED if cleared.gone else cleared.why
        for known in (self._live, self._ends, self._stuck):
            known.pop(instance.name, None)
        config = read_config(instance.config)
        return reconcile.after_end(
            evolve(end, status=cleared.status) if end.by_itself and end.status is None else end,
            desired=instance.desired,
            restart=config.manifest.restart if config else "no",
            retries=config.manifest.retries if config else 0,
            attempts=instance.attempts,
        )

    def _end(self, instance: Instance, live: _Live | None) -> flow.Flow[reconcile.End]:
        """Find out why it is to be cleared; once, since later tries are about podman. conmon says a moment after the end how it ended."""
        step = instance.committed
        if step is None or step.source == S.STUCK.value:
            return self._ends.get(instance.name, reconcile.End("podman could not clear it"))
        status, by_itself = None, step.event == E.ENDED.value
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
        return E.WAITED, ""

    def _wait(self, instance: Instance) -> flow.Flow[Outcome_]:
        yield self._pause(BACK_OFF_S[min(max(0, instance.attempts - 1), len(BACK_OFF_S) - 1)])
        return E.WAITED, ""

    def _unwatch(self, name: str) -> _Live | None:
        """Its end is under way: nothing that happens to it now is news."""
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

    def containers(self) -> set[str]:
        """Return the ids of all containers that run."""
        return {live.container for live in self._live.values()}

    # ---- what the manifest wants at boot

    def autostart(self) -> None:
        """Start what is marked so, each as soon as it is at rest; called once a boot, when reconcile is done and the disk keeps promises."""
        if self.engine is None:
            return
        for instance in self.engine.of_kind("persona"):
            if instance.now is not S.ABSENT and '"autostart":true' in instance.config:  # most say no, and reading them all takes long
                config = read_config(instance.config)
                if config is not None and config.manifest.autostart:
                    self._waiting.add(instance.name)
        self.look_autostart()

    def look_autostart(self) -> None:
        """Start those that wait and are stopped; called after each step."""
        engine = self.engine
        if engine is None:
            return
        for name in sorted(name for name in self._waiting if not engine.instances[name].pending):
            instance = engine.instances[name]
            if instance.now is S.STOPPED:
                self._waiting.discard(name)
                config = read_config(instance.config)
                limit = config.manifest.retries + 1 if config else 0
                event = E.AUTOSTART if instance.attempts < limit else E.GAVE_UP
                self._send(name, event, "" if event is E.AUTOSTART else f"{instance.attempts} of {limit} attempts")
            elif instance.now in (S.ABSENT, S.FAILED, *HAS_CONTAINER):
                self._waiting.discard(name)

    def sweep_trash(self) -> None:
        """Delete what was taken away, a piece at a time, so that no other request waits long behind it."""

        def swept(answer: Answer) -> None:
            if answer.ok and answer.value:
                self.reactor.call_later(SWEEP_AGAIN_S, self.sweep_trash)

        if self.state.healthy:
            self.state.ask("trash_sweep", self.bounds.open, swept)

    # ---- the end of the spine

    def kill_all(self) -> None:
        """End every process of every container, a validation's probe too, without asking podman."""
        for group in (GROUP, "/tenants", CONMON_GROUP):
            cgroup.kill(f"{cgroup.ROOT}{group}")

    def at_rest(self) -> bool:
        """Tell whether no persona has or owes a container."""
        return self.engine is None or all(i.now in (S.ABSENT, S.STOPPED, S.FAILED) for i in self.engine.of_kind("persona"))

    def stepped(self, instance: Instance, _step: Step) -> None:
        """Follow the engine: start what waits for its rest, freeze again what was frozen before it had to be started anew."""
        if instance.definition.kind != "persona":
            return
        if self._waiting:
            self.reactor.call_soon(self.look_autostart)
        if instance.now is S.RUNNING and instance.desired == "paused":
            self.reactor.call_soon(partial(self._freeze_again, instance))

    def _freeze_again(self, instance: Instance) -> None:
        if instance.now is S.RUNNING and instance.desired == "paused" and not instance.pending:
            self._send(instance.name, E.PAUSE, "it is wanted paused")
