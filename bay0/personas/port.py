"""What a persona's busy states owe that a server's do not: its container after its manifest, its home, its way to the AI, its autostart.

The life of a container in general is in containers/life.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import Enum
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from bay0.base import names
from bay0.base.errors import ManifestError, RefusedError
from bay0.base.uids import first_uid, slot_of
from bay0.containers.life import LOG_SIZE, PERSONA_FILTER, PERSONAS, Duty, Kind, Life, Live, Means, Outcome_
from bay0.effects import cgroup
from bay0.machines.boot import LEAVES
from bay0.machines.persona import HAS_CONTAINER, WORDS, E, Effect, S, mark
from bay0.personas import copyduties, network
from bay0.personas.line import Line, Over
from bay0.pid1 import flow
from bay0.podman.calls import AT_ONCE, Outcome, RunSpec, user_of
from bay0.reconcile import plan as reconcile
from bay0.reconcile.plan import End, Then
from bay0.umbilical.places import IN_PERSONA

if TYPE_CHECKING:
    from bay0.loading.late import Late
    from bay0.machines.instance import Instance, Step
    from bay0.net.cables import Cables
    from bay0.personas.copies import Copies
    from bay0.personas.manifest import Manifest
    from bay0.podman.calls import Verdict
    from bay0.screen.doors import Doors
    from bay0.state.link import Answer
    from bay0.umbilical.doors import Umbilical

GROUP = PERSONAS
AUTOSTARTS, RUNS_BEHIND = mark("autostart", True), mark("behind", "run")
OOM_SCORE = 100  # above the spine's own processes (0); far below tenants, or a large persona would be ended before a small tenant
CONFIGS_KEPT = 2048  # read ones: a list of all personas must not hold up the reactor each time
DAMAGED = "; its image may be damaged: stop who uses it, `bay0 image remove {0}`, and load it again"


@frozen
class Config:
    """What a persona is made of, as its machine keeps it: the manifest and the slot of its uid range."""

    manifest: Manifest
    slot: int

    @property
    def uid(self) -> int:
        """The uid that root inside is outside."""
        return first_uid(self.slot)

    def text(self) -> str:
        """Return it as the database keeps it.

        `slot` stays beside the manifest: every program can read it there, whatever a newer one adds.
        """
        return json.dumps({"manifest": self.manifest.to_stored(), "slot": self.slot}, separators=(",", ":"))


@lru_cache(maxsize=CONFIGS_KEPT)
def _read(text: str) -> Config | str:
    """Return what `Config.text` made, or why this program does not understand it: a newer one may have written it."""
    from bay0.personas import manifest  # late: a boot without personas does not pay for it

    slot = slot_of(text)
    if slot is None:
        return "nothing stored of it can be read"
    try:
        return Config(manifest.from_wire(json.loads(text).get("manifest")), slot)
    except ManifestError as error:
        keys = sorted({line.partition(":")[0] for line in str(error).splitlines()})
        return f"its stored manifest is of another program, at: {', '.join(keys)}"


def read_config(text: str) -> Config | None:
    """Return what a persona is made of; None for what this program does not understand."""
    found = _read(text)
    return found if isinstance(found, Config) else None


def not_understood(text: str) -> str:
    """Return why a stored configuration is not understood, or ""."""
    found = _read(text)
    return "" if isinstance(found, Config) else found


# the events of its table for what follows an end
THEN = {Then.STOPPED: E.GONE, Then.WELL: E.DONE, Then.AGAIN: E.RETRY, Then.GIVEN_UP: E.GAVE_UP}


class Personas:
    """The effect port of all personas.

    `boot`: this boot's machine. `built_in`: the spine's own images, name -> archive. `own`: hear of the end of a child of
    PID 1 (Reaper.own). `doors`: the ways to the screen. `copies`: does what is owed of one that is made as a copy.
    `cables`: the ways to sys://net.
    """

    def __init__(
        self,
        means: Means,
        boot: Instance,
        built_in: Callable[[], Mapping[str, str]],
        umbilical: Late[Umbilical],
        own: Callable[[int, Callable[[int], None]], None],
        *,
        doors: Late[Doors],
        copies: Late[Copies],
        cables: Late[Cables],
    ) -> None:
        self.engine, self.reactor, self.log = means.engine, means.reactor, means.log
        self.state, self.podman, self.places, self.audit = means.state, means.podman, means.places, means.audit
        self.built_in, self.umbilical, self.own, self.doors, self.cables = built_in, umbilical, own, doors, cables
        duties: dict[Enum, Duty] = {Effect.RUN: self._run, **copyduties.duties(copies, self.reactor, self.log)}
        kind = Kind(WORDS, GROUP, duties, self._stop_s, self._after_end, self._leaves, self._cancelled, doors.ask("hide"))
        self.life = Life(means, kind)
        self._waiting: set[str] = set()  # to be started once they are at rest (autostart)
        self._umbilicals: set[str] = set()  # of whom the AI's sockets know
        self.line = Line(self.reactor.clock, self.reactor.call_soon, AT_ONCE)  # of starts
        self._new_homes: set[str] = set()  # podman's names of those whose home no user has yet
        self.engine.on("persona", call=self._stepped)
        self.engine.on("boot", *LEAVES, call=self._no_autostart, of=boot)

    def start(self, instance: Instance, effect: Enum, token: int) -> None:
        """Do what `instance` owes."""
        self.life.start(instance, effect, token)

    def container(self, name: str) -> str | None:
        """Return the id of the container that runs for `name`, if one does."""
        return self.life.container(name)

    def describe(self) -> dict[str, Any]:
        """Return what `bay0 status` shows of the line of starts."""
        return {"starts_waiting": self.line.waiting, "start_s": round(self.line.pace_s, 1)}

    # ---- a container is owed

    def _run(self, instance: Instance) -> flow.Flow[Outcome_]:
        over: Over = yield partial(self._turn, instance)
        try:
            return (yield from self._begin_it(instance))
        finally:  # also when it is overtaken: the flow is closed then
            over()

    def _turn(self, instance: Instance, resume: flow.Resume) -> None:
        """Let it stand in line; its deadline begins with its turn."""
        asker = self.life.asker(instance)

        def begin(over: Over) -> None:
            asker.begins()
            resume(over)

        if self.line.stand(instance.name, asker.wanted, begin):
            asker.waits()

    def _cancelled(self, name: str) -> bool:
        return self.line.leave(name)

    def _begin_it(self, instance: Instance) -> flow.Flow[Outcome_]:
        name = names.parse(instance.name)
        config = read_config(instance.config)
        if self.life.freezer.above():  # podman would wait for its first process until its bound is over
            return E.FAULT, f"nothing can begin: the group above is frozen (1 in /sys/fs/cgroup{GROUP}/cgroup.freeze)"
        obstacle = self.obstacle(instance)
        if config is None or obstacle:
            return E.FAULT, obstacle
        self._new_homes.discard(name.podman)
        home = bool(config.manifest.home)
        prepared: Answer = yield partial(self.life.ask, "persona_prepare", name=name.podman, home=home)
        if not prepared.ok:
            return E.FAULT, f"its home could not be prepared: {prepared.why}"
        if prepared.value:
            self._new_homes.add(name.podman)
        if config.manifest.ai:
            yield partial(self.umbilical.load, self.reactor.call_soon)  # what the way to the AI takes
        if config.manifest.screen:
            yield partial(self.doors.load, self.reactor.call_soon)
        why = yield from network.attached(self.cables, self.reactor, instance, config.manifest, config.slot)
        if why:
            return E.FAULT, why
        yield flow.at_once  # a door that is made for a start that was overtaken would stay
        try:
            spec = self._spec(instance, name, config)
        except RefusedError as error:
            return E.FAULT, f"its doors could not be prepared: {error}"
        ran: Verdict = yield from self.life.making.made(instance, spec, self._run_it)
        archive = self.built_in().get(spec.image)
        if ran.outcome is Outcome.STORAGE and archive is not None:
            ran = yield from self.life.making.discarded(spec, ran)
        if ran.outcome is Outcome.NO_IMAGE and archive is not None:
            yield partial(self.life.making.image_loaded, archive)
            ran = yield from self._run_it(instance, spec)
        if not ran.ok:
            self.audit.soon_after(ran)
            return E.FAULT, ran.why + (DAMAGED.format(spec.image) if ran.outcome is Outcome.STORAGE else "")
        container = str(ran.value)
        live = self.life.started(instance, container)
        self.life.calm_later(instance.name, live)
        self._watch_monitor(instance.name, live)
        if config.manifest.ai:
            try:
                self.umbilical().grant(instance.name, config.uid, f"{GROUP}/libpod-{container}")
            except RefusedError as error:
                return E.FAULT, str(error)
        if config.manifest.screen:
            self.doors().grant(instance.name, f"{GROUP}/libpod-{container}")
        return E.STARTED, f"container {container[:12]}"

    def _run_it(self, instance: Instance, spec: RunSpec) -> flow.Flow[Verdict]:
        """Run it; one with a new home in steps: that is given to whom the program will be before it begins."""
        if spec.name not in self._new_homes:
            return (yield from self.life.making.run(instance, spec))
        made: Verdict = yield partial(self.podman.create, spec, asker=self.life.asker(instance))
        if not made.ok:
            return made
        prepared: Verdict = yield partial(self.podman.init, spec.name, asker=self.life.asker(instance))
        if not prepared.ok:
            return prepared
        user = user_of(str(made.value))
        if user is None:
            return evolve(made, outcome=Outcome.FAULT, why="crun does not say which user its new home is for")
        given: Answer = yield partial(self.life.ask, "home_give", name=spec.name, uid=user[0], gid=user[1])
        if not given.ok:
            why = f"its home could not be given to its user {user[0]}: {given.why}"
            return evolve(made, outcome=Outcome.FAULT, why=why)
        self._new_homes.discard(spec.name)
        started: Verdict = yield partial(self.podman.start, spec.name, asker=self.life.asker(instance))
        return made if started.ok else started

    def _watch_monitor(self, name: str, live: Live) -> None:
        """Hear of the end of its conmon, which nothing replaces: the pipe that it read is broken.

        One that was not killed ends behind its container.
        """

        def ended(_status: int) -> None:
            if self.life.current(name) is not live:
                return
            if cgroup.populated(live.directory):
                self.life.send(name, E.UNWATCHED, f"conmon of container {live.container[:12]} was ended")
            else:
                self.life.look(name, live)

        if live.monitor:
            self.own(live.monitor, ended)
        elif live.monitor == 0:
            self.reactor.call_soon(partial(ended, 0))
        elif cgroup.populated(live.directory):
            self.log.warning("its monitor is not known, and not watched", persona=name, container=live.container)

    def _spec(self, instance: Instance, name: names.Name, config: Config) -> RunSpec:
        wanted = config.manifest
        mounts = [(f"{self.places.homes}/{name.podman}", wanted.home, "rw")] if wanted.home else []
        if wanted.ai:  # read-only: who could write there could put another socket in its place
            umbilical = self.umbilical()  # first: of one that cannot be had now nothing is to be revoked
            self._umbilicals.add(instance.name)
            mounts.append((umbilical.prepare(instance.name), IN_PERSONA, "ro"))
        environment = wanted.environment
        if wanted.screen:
            from bay0.screen.doors import ENVIRONMENT  # late, as above
            from bay0.screen.doors import IN_PERSONA as WAYLAND

            mounts.append((self.doors().prepare(instance.name), WAYLAND, "ro"))
            environment = {**ENVIRONMENT, **environment}
        from bay0.personas.manifest import digest  # late, as above

        labels = {
            "bay0.persona": instance.name,
            "bay0.seq": str(instance.seq),
            "bay0.boot": self.engine.boot_id,
            "bay0.config": digest(wanted),
        }
        return RunSpec(
            name=name.podman, image=wanted.image, command=wanted.command, environment=environment, labels=labels,
            memory=wanted.memory, cpus=wanted.cpus, pids=wanted.pids, capabilities=wanted.capabilities, cgroup_parent=GROUP,
            uid_base=config.uid, mounts=tuple(mounts), workdir=wanted.home, hostname=name.label, log_path=f"{self.places.logs}/{name.podman}.log",
            log_size=LOG_SIZE, oom_score_adj=OOM_SCORE, read_only=False, stop_s=wanted.stop_s, user=wanted.user,
            seccomp="" if wanted.userns else PERSONA_FILTER, **network.words(wanted, name.podman),
        )  # fmt: skip

    def runs_behind(self, instance: Instance) -> bool:
        """Tell whether its manifest lets it go on while another one is in front."""
        if RUNS_BEHIND not in instance.config:  # most do not say so, and reading them all takes long
            return False
        config = read_config(instance.config)
        return config is not None and config.manifest.behind == "run"

    def obstacle(self, instance: Instance) -> str:
        """Return why no start of it can go well, or ""."""
        why = not_understood(instance.config)
        if why:
            return f"{why}; boot the newer program that wrote it, or remove it and create it again (its home is kept)"
        slot = slot_of(instance.config)
        for other in self.engine.of_kind("persona"):
            if other is not instance and slot_of(other.config) == slot:
                return f"its uid range is that of {other.name} too; remove one of them and create it again (its home is kept)"
        return ""

    # ---- its end

    def _leaves(self, name: str) -> None:
        if name in self._umbilicals:
            self._umbilicals.discard(name)
            self.umbilical().revoke(name)
        self.doors.ask("revoke")(name)
        self.cables.ask("detach")(name)

    def _stop_s(self, instance: Instance) -> float:
        config = read_config(instance.config)
        return config.manifest.stop_s if config else 0

    def _after_end(self, instance: Instance, end: End) -> Outcome_:
        config = read_config(instance.config)
        then, why = reconcile.after_end(
            end,
            desired=instance.desired,
            restart=config.manifest.restart if config else "no",
            retries=config.manifest.retries if config else 0,
            attempts=instance.attempts,
        )
        return THEN[then], why

    # ---- what the manifest wants at boot

    def autostart(self) -> None:
        """Start what is marked so, each as soon as it is at rest; called once a boot, when reconcile is done and the disk keeps promises."""
        for instance in self.engine.of_kind("persona"):
            if instance.now is not S.ABSENT and AUTOSTARTS in instance.config:  # most say no, and reading them all takes long
                config = read_config(instance.config)
                if config is not None and config.manifest.autostart:
                    self._waiting.add(instance.name)
        self.look_autostart()

    def _no_autostart(self, _boot: Instance, _step: Step) -> None:
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
        instance = self.engine.instances.get(name)
        if name not in self._waiting or (instance is not None and instance.pending):
            return
        if instance is None:
            self._waiting.discard(name)
        elif instance.now is S.STOPPED:
            self._waiting.discard(name)
            config = read_config(instance.config)
            limit = config.manifest.retries + 1 if config else 0
            event = E.AUTOSTART if instance.attempts < limit else E.GAVE_UP
            self.life.send(name, event, "" if event is E.AUTOSTART else f"{instance.attempts} of {limit} attempts")
        elif instance.now in (S.ABSENT, S.FAILED, *HAS_CONTAINER):
            self._waiting.discard(name)

    # ---- each of its steps

    def _stepped(self, instance: Instance, step: Step) -> None:
        """Start what waits for its rest, freeze again what was frozen before it had to be started anew."""
        self.life.look_again(instance)
        if step.event == E.STOP.value:  # it is not wanted any more
            self._waiting.discard(instance.name)
        if instance.name in self._waiting:
            self.reactor.call_soon(partial(self._look_autostart, instance.name))
        if instance.now is S.RUNNING and instance.desired == "paused":
            self.reactor.call_soon(partial(self._freeze_again, instance))
        if instance.now is S.ABSENT:
            self._waiting.discard(instance.name)
            self.reactor.call_soon(partial(self.forget, instance))
        if step.event == E.REMOVE.value and self.state.healthy:  # its home is kept; logs would add up
            self.life.ask("log_remove", lambda _answer: None, name=names.parse(instance.name).podman)

    def forget(self, instance: Instance) -> None:
        """Let go of one that is not there, since it was removed or never made; the journal has its history."""
        if self.engine.instances.get(instance.name) is not instance:
            return
        if instance.now is S.ABSENT and instance.pending is None and not instance.queue:
            self.engine.forget(instance.name)

    def _freeze_again(self, instance: Instance) -> None:
        if instance.now is S.RUNNING and instance.desired == "paused" and not instance.pending:
            self.life.send(instance.name, E.PAUSE, "it is wanted paused")
