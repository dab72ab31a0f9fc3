"""What a persona's busy states owe that a server's do not: its container after its manifest, its home, its way to the AI, its autostart.

The life of a container in general is in containers.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from attrs import frozen

from bay0 import flow, late, names, reconcile
from bay0.audit import Audit
from bay0.clearing import Clearing
from bay0.containers import LOG_SIZE, ContainerPort, Outcome_
from bay0.effects import cgroup
from bay0.effects.podman import Outcome, RunSpec, config_files, write_config
from bay0.errors import ManifestError, RefusedError
from bay0.machines.persona import HAS_CONTAINER, E, Effect, S
from bay0.umbilicalplaces import IN_PERSONA

if TYPE_CHECKING:
    from bay0.effects.podman import Verdict
    from bay0.machines.engine import Instance, Step
    from bay0.manifest import Manifest
    from bay0.state.link import Answer

GROUP = "/personas"
TENANTS = "/tenants"  # of servers, and of a validation's probe
CONMON_GROUP = "/conmon"  # of all containers' monitors (effects/podman.py)
UID_BASE = 100_000  # the first uid of slot 0; each persona has a range of its own
UIDS = 65_536
SLOTS_MAX = 32_000
OOM_SCORE = 100  # above the spine's own processes (0); far below tenants, or a large persona would be ended before a small tenant
CONFIGS_KEPT = 2048  # read ones: a list of all personas must not hold up the reactor each time
SWEEP_AGAIN_S = 0.5  # of the trash
DAMAGED = "; its image may be damaged: stop who uses it, `bay0 image remove {0}`, and load it again"


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


class Personas(ContainerPort):
    """The effect port of all personas."""

    group = GROUP

    def _begin(self) -> None:
        """Make what belongs to this port, and what servers share."""
        self._waiting: set[str] = set()  # to be started once they are at rest (autostart)
        self._umbilicals: set[str] = set()  # of whom the AI's sockets know
        self.clearing = Clearing(self.reactor, self.podman)
        self.audit = Audit(self.reactor, self.log, self.state, self.podman, self.clearing)
        self.audit.groups[GROUP] = self.containers

    def configure(self) -> None:
        """Tell podman where things are; /persist is mounted by now."""
        try:
            write_config(config_files(self.places.storage))
        except OSError as error:
            self.log.error("podman is not configured", why=str(error))

    def _duties(self) -> Mapping[str, Callable[[Instance], flow.Flow[Outcome_]]]:
        return {Effect.RUN.name: self._run}

    # ---- a container is owed

    def _run(self, instance: Instance) -> flow.Flow[Outcome_]:
        name = names.parse(instance.name)
        config = read_config(instance.config)
        if config is None:
            return E.FAULT, "its stored configuration makes no sense to this program; remove it and create it again"
        prepared: Answer = yield partial(self._ask, "persona_prepare", name=name.podman, home=bool(config.manifest.home))
        if not prepared.ok:
            return E.FAULT, f"its home could not be prepared: {prepared.why}"
        if config.manifest.ai:
            yield partial(late.one_by_one, late.UMBILICAL, self.reactor.call_soon)  # what the way to the AI takes
        yield flow.at_once  # a door that is made for a start that was overtaken would stay
        try:
            spec = self._spec(instance, name, config)
        except RefusedError as error:
            return E.FAULT, f"its way to the AI could not be prepared: {error}"
        ran: Verdict = yield from self._made(spec)
        archive = self.built_in().get(spec.image)
        if ran.outcome is Outcome.STORAGE and archive is not None:
            ran = yield from self._discarded(spec, ran)
        if ran.outcome is Outcome.NO_IMAGE and archive is not None:
            yield partial(self.podman.image_load, archive)
            ran = yield partial(self.podman.run, spec)
        if not ran.ok:
            self.audit.soon_after(ran)
            return E.FAULT, ran.why + (DAMAGED.format(spec.image) if ran.outcome is Outcome.STORAGE else "")
        container = str(ran.value)
        self._calm_later(instance.name, self._started(instance, container))
        if config.manifest.ai:
            try:
                self.umbilical().grant(instance.name, config.uid, f"{GROUP}/libpod-{container}")
            except RefusedError as error:
                return E.FAULT, str(error)
        return E.STARTED, f"container {container[:12]}"

    def _spec(self, instance: Instance, name: names.Name, config: Config) -> RunSpec:
        wanted = config.manifest
        mounts = [(f"{self.places.homes}/{name.podman}", wanted.home, "rw")] if wanted.home else []
        if wanted.ai:  # read-only: who could write there could put another socket in its place
            self._umbilicals.add(instance.name)
            mounts.append((self.umbilical().prepare(instance.name), IN_PERSONA, "ro"))
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
            uid_base=config.uid, mounts=tuple(mounts), workdir=wanted.home, hostname=name.label, log_path=f"{self.places.logs}/{name.podman}.log",
            log_size=LOG_SIZE, oom_score_adj=OOM_SCORE, read_only=False, stop_s=wanted.stop_s,
        )  # fmt: skip

    # ---- its end

    def _leaves(self, name: str) -> None:
        if name in self._umbilicals:
            self._umbilicals.discard(name)
            self.umbilical().revoke(name)

    def _stop_s(self, instance: Instance) -> float:
        config = read_config(instance.config)
        return config.manifest.stop_s if config else 0

    def _after_end(self, instance: Instance, end: reconcile.End) -> Outcome_:
        config = read_config(instance.config)
        return reconcile.after_end(
            end,
            desired=instance.desired,
            restart=config.manifest.restart if config else "no",
            retries=config.manifest.retries if config else 0,
            attempts=instance.attempts,
        )

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

    def no_autostart(self) -> None:
        """Start none of those that still wait: the spine is going down."""
        self._waiting.clear()

    def not_wanted(self, name: str) -> None:
        """Do not start it with the spine any more: somebody has asked for it to stop, be it stopped already."""
        self._waiting.discard(name)

    def look_autostart(self) -> None:
        """Start those that wait and are stopped."""
        for name in sorted(self._waiting):
            self._look_autostart(name)

    def _look_autostart(self, name: str) -> None:
        """Start one that waits, if it is stopped; called after each of its steps."""
        engine = self.engine
        instance = engine.instances.get(name) if engine is not None else None
        if name not in self._waiting or (instance is not None and instance.pending):
            return
        if instance is None:
            self._waiting.discard(name)
        elif instance.now is S.STOPPED:
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
        for group in (GROUP, TENANTS, CONMON_GROUP):
            cgroup.kill(f"{cgroup.ROOT}{group}")

    def stepped(self, instance: Instance, step: Step) -> None:
        """Follow the engine: start what waits for its rest, freeze again what was frozen before it had to be started anew."""
        if instance.definition.kind != "persona":
            return
        self.look_again(instance)
        if step.event == E.STOP.value:  # it is not wanted any more
            self._waiting.discard(instance.name)
        if instance.name in self._waiting:
            self.reactor.call_soon(partial(self._look_autostart, instance.name))
        if instance.now is S.RUNNING and instance.desired == "paused":
            self.reactor.call_soon(partial(self._freeze_again, instance))

    def _freeze_again(self, instance: Instance) -> None:
        if instance.now is S.RUNNING and instance.desired == "paused" and not instance.pending:
            self._send(instance.name, E.PAUSE, "it is wanted paused")
