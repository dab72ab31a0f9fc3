"""What a server's busy states owe: `sys://ai`, its image, its envelope, its model, its first token, its end.

What it is made of is in config.py, the life of a container in containers/life.py. Of its own a server has this: it is made of the
spine's image, loaded from its archive when podman does not have it; the kernel must confirm its envelope before it is
spoken to; the umbilical is told of each of its states. A start that another one would not help (no image, no model, no
envelope) is its last.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import evolve

from bay0.ai import envelope, kernelview
from bay0.ai.config import DEFAULT_MODEL, Config, cpus_of, memory_for, read_config
from bay0.ai.envelope import Envelope
from bay0.base import inode, names
from bay0.base.errors import RefusedError
from bay0.base.uids import AI_UID, UIDS
from bay0.containers.life import LOG_SIZE, TENANT_FILTER, TENANTS, Duty, Kind, Life, Live, Means, Outcome_
from bay0.effects import cgroup
from bay0.effects.gauges import Progress
from bay0.effects.pidfd import Ends
from bay0.machines.boot import LEAVES
from bay0.machines.server import HAS_CONTAINER, NAME, WORDS, E, Effect, S
from bay0.pid1 import flow
from bay0.podman.calls import Outcome, RunSpec
from bay0.reconcile import plan as reconcile
from bay0.reconcile.plan import End, Then
from bay0.umbilical.places import IMAGE, IN_PERSONA, TENANT_SOCKET, TENANT_USER

if TYPE_CHECKING:
    from bay0.loading.late import Late
    from bay0.machines.instance import Instance, Step
    from bay0.podman.calls import Verdict
    from bay0.state.link import Answer
    from bay0.umbilical.doors import Umbilical

OWN_MODEL = "/model/own.gguf"  # inside, if there is one
MODEL_VARIABLE = "SPINE_AI_MODEL"
SHARES = 512  # of 1024: a weight below the 100 that personas have, among its siblings ...
WEIGHT_OF_PERSONAS = 100
PIDS = 64
OOM_SCORE = 1000  # the most there is, nine tenths of the memory above personas (100): whoever needs memory, it is the one that goes
STOP_S = 2.0  # nothing is lost with it
RETRIES = 5  # in a row, over boots too
GOING_DOWN = "the spine is going down"
ENVELOPE_LOOK_S = 0.1
PROGRESS_EVERY_S = 5.0
NO_IMAGE = "its image is not on this machine"
WAYS = "build it with scripts/mkai.sh and put it on the disk with `scripts/mkpersist.sh --image build/spine-ai.tar`, or `bay0 image load FILE`"
# what its server says by its exit status (services/ai): no other try would help
HOPELESS = {
    2: "its server was given a setting that makes no sense",
    3: "this processor lacks what llama.cpp needs (AVX2; in QEMU: -cpu max)",
    4: "its model is not there",
    5: "its model is no GGUF file",
    6: "its model is damaged, or of a kind that llama.cpp does not know",
}


# the events of its table for what follows an end; WELL does not come, since a server is always wanted back
THEN = {Then.STOPPED: E.GONE, Then.WELL: E.GONE, Then.AGAIN: E.RETRY, Then.GIVEN_UP: E.GAVE_UP}


class Servers:
    """The effect port of servers; there is one, `sys://ai`. `boot`: this boot's machine."""

    def __init__(self, means: Means, boot: Instance, umbilical: Late[Umbilical]) -> None:
        self.engine, self.reactor, self.bounds, self.log = means.engine, means.reactor, means.bounds, means.log
        self.podman, self.places, self.audit, self.umbilical = means.podman, means.places, means.audit, umbilical
        duties: dict[Enum, Duty] = {Effect.RUN: self._run, Effect.WARM: self._warm, Effect.DRAIN: self._drain}
        kind = Kind(WORDS, TENANTS, duties, self._stop_s, self._after_end, self._leaves, _has_begun)
        self.life = Life(means, kind)
        self.engine.on("server", call=self._stepped)
        self.engine.on("boot", *LEAVES, call=self._going_down, of=boot)
        self.ends = Ends(self.reactor)
        self.rows: tuple[envelope.Row, ...] = ()  # the envelope as it was last read back
        self.unavailable = ""  # why it was not started with this boot
        self.remedy = ""  # and what helps
        self._restarts = False  # it is to be started again as soon as it is stopped
        self.first_token_s: float | None = None
        self.model_bytes = 0
        self._final: set[str] = set()  # whose last failure no other try would help
        self._wanted: Envelope | None = None
        self._yields = False
        self._waiting = False  # to be started once it is at rest (autostart)
        self._seen = False  # its socket, when it was last looked for
        # why it does not start with the spine, though it could
        self._unwanted = GOING_DOWN if boot.now in LEAVES else ""

    def start(self, instance: Instance, effect: Enum, token: int) -> None:
        """Do what `instance` owes."""
        self.life.start(instance, effect, token)

    def container(self, name: str) -> str | None:
        """Return the id of the container that runs for `name`, if one does."""
        return self.life.container(name)

    # ---- a container is owed

    def _run(self, instance: Instance) -> flow.Flow[Outcome_]:
        self._final.discard(instance.name)
        self._unwanted = ""
        self.rows, self.unavailable, self.remedy, self.first_token_s = (), "", "", None
        config = read_config(instance.config)
        if config is None:
            self.remedy = DEFAULT_MODEL
            return self._last(instance, "its stored configuration makes no sense to this program")
        own = names.parse(instance.name).podman
        # podman's directories, if the boot could not make them, and the place of its log
        prepared: Answer = yield partial(self.life.ask, "persona_prepare", name=own, home=False)
        if not prepared.ok:
            return E.FAULT, f"the place of its log could not be prepared: {prepared.why}"
        wrong = yield from self._look_at_model(config)
        if wrong:
            self.remedy = DEFAULT_MODEL
            return self._last(instance, f"its model cannot be used: {wrong}")
        yield partial(self.umbilical.load, self.reactor.call_soon)  # what the way to the AI takes
        yield flow.at_once  # the next start may have its directory already
        try:
            spec = self._spec(instance, config)
        except RefusedError as error:
            return E.FAULT, f"its socket's directory could not be made: {error}"
        with contextlib.suppress(OSError):  # the envelope is read back, and this with it
            cgroup.weigh(f"{cgroup.ROOT}{TENANTS}", cgroup.TENANTS_WEIGHT)
        ran: Verdict = yield from self.life.making.made(instance, spec)
        if ran.outcome is Outcome.STORAGE:
            archive: Answer = yield partial(self.life.ask, "ai_archive")
            if archive.ok and archive.value is not None:
                ran = yield from self.life.making.discarded(spec, ran)
        if ran.outcome is Outcome.NO_IMAGE:
            loaded = yield from self._load()
            if loaded:
                return self._last(instance, loaded)
            ran = yield from self.life.making.run(instance, spec)
        if not ran.ok:
            self.audit.soon_after(ran)
            return self._last(instance, ran.why) if ran.outcome is Outcome.NO_IMAGE else (E.FAULT, ran.why)
        live = self.life.started(instance, str(ran.value))
        return (yield from self._confirm(instance, live))

    def _last(self, instance: Instance, why: str) -> Outcome_:
        """Fail in a way that another try would not help."""
        self._final.add(instance.name)
        return E.FAULT, why

    def _look_at_model(self, config: Config) -> flow.Flow[str]:
        """Return what is wrong with its model, ""."""
        self.model_bytes = 0
        if config.model is None:
            return ""
        found: Answer = yield partial(self.life.ask, "ai_model", path=config.model)
        if not found.ok:
            return found.why or "storage gave no answer"
        self.model_bytes = found.value.get("size", 0)
        return str(found.value.get("why", ""))

    def _load(self) -> flow.Flow[str]:
        """Load its image from its archive; return why that was not possible, or ""."""
        found: Answer = yield partial(self.life.ask, "ai_archive")
        if not found.ok or found.value is None:
            self.remedy = WAYS
            return f"its image is not on this machine: podman has no {IMAGE}, and there is no archive of it"
        self.log.info("image of the ai is loaded", archive=found.value)
        loaded: Verdict = yield partial(self.podman.image_load, found.value)
        self.remedy = "" if loaded.ok else WAYS
        return "" if loaded.ok else f"its image could not be loaded from {found.value}: {loaded.why}"

    def _spec(self, instance: Instance, config: Config) -> RunSpec:
        name = names.parse(instance.name)
        self.umbilical().begin()
        directory = self.umbilical().prepare_tenant()
        mounted = [(directory, IN_PERSONA, "rw"), *([(config.model, OWN_MODEL, "ro")] if config.model else [])]
        memory, cpus = memory_for(self.model_bytes), cpus_of(os.cpu_count() or 1)
        self._wanted = Envelope("", AI_UID, UIDS, TENANT_USER, memory, cpus, WEIGHT_OF_PERSONAS, PIDS, OOM_SCORE)
        return RunSpec(
            name=name.podman, image=IMAGE, command=(), environment={MODEL_VARIABLE: OWN_MODEL} if config.model else {},
            labels={"bay0.tenant": instance.name, "bay0.seq": str(instance.seq), "bay0.boot": self.engine.boot_id},
            memory=memory, cpus=cpus, pids=PIDS, capabilities=(), cgroup_parent=TENANTS, uid_base=AI_UID, mounts=mounted, workdir="",
            hostname=name.label, log_path=f"{self.places.logs}/{name.podman}.log", log_size=LOG_SIZE, oom_score_adj=OOM_SCORE, read_only=True,
            stop_s=STOP_S, cpu_shares=SHARES, user=f"{TENANT_USER}:{TENANT_USER}", seccomp=TENANT_FILTER,
        )  # fmt: skip

    def _confirm(self, instance: Instance, live: Live) -> flow.Flow[Outcome_]:
        """Read the envelope back; its first process may be a moment from being what it shall be."""
        if self._wanted is None:
            raise AssertionError("a container is made of a specification")
        wanted = evolve(self._wanted, group=f"{TENANTS}/libpod-{live.container}")
        end = self.reactor.clock() + self.bounds.envelope
        while True:
            why, monitor = self._compared(wanted, live)
            if not why:
                break
            if not cgroup.populated(live.directory):
                return E.FAULT, f"container {live.container[:12]} ended at once"
            if self.reactor.clock() > end:
                cgroup.kill(live.directory)
                return self._last(instance, f"the kernel does not confirm its envelope: {why}")
            yield self.life.pause(ENVELOPE_LOOK_S)
        self.ends.watch(monitor, lambda: self._monitor_ended(instance.name, live, monitor))
        return E.STARTED, f"container {live.container[:12]}, all {len(self.rows)} properties of its envelope read back"

    def _compared(self, wanted: Envelope, live: Live) -> tuple[str, int]:
        try:
            view = kernelview.look(live.directory)
        except (OSError, ValueError) as error:
            return f"it cannot be read: {error}", 0
        self.rows = envelope.compare(wanted, view.found)
        return envelope.mismatch(self.rows), view.monitor

    def look(self) -> list[str]:
        """Notice that somebody removed the socket of a server that serves: only its next start makes another."""
        instance = self.engine.instances.get(NAME)
        if instance is None or instance.now is not S.READY:
            self._seen = False
            return []
        there = inode.which(TENANT_SOCKET) is not None
        gone, self._seen = self._seen and not there, there
        if gone:
            self.life.send(NAME, E.ENDED, f"somebody removed its socket {TENANT_SOCKET}")
        return ["somebody removed it: the AI is started again"] if gone else []

    def read_back(self, name: str) -> tuple[envelope.Row, ...]:
        """Return both sides of its envelope: as they are now if it runs, else as they were."""
        live = self.life.current(name)
        if live is not None and self._wanted is not None:
            self._compared(evolve(self._wanted, group=f"{TENANTS}/libpod-{live.container}"), live)
        return self.rows

    def _monitor_ended(self, name: str, live: Live, monitor: int) -> None:
        """Without its monitor nobody empties its output nor knows how it ends."""
        if self.life.current(name) is live:
            self.life.send(name, E.ENDED, f"its monitor (conmon, pid {monitor}) has ended")

    # ---- serving

    def _warm(self, instance: Instance) -> flow.Flow[Outcome_]:
        live = self.life.current(instance.name)
        if live is None:
            return E.FAULT, "it has no container of this boot"
        ok, why, value = yield partial(self._warmed, live)
        if not ok:
            return E.FAULT, f"it made no first token: {why}"
        self.first_token_s = value.get("first_token_s")
        self.life.calm_later(instance.name, live)
        return E.WARM, f"first token after {self.first_token_s:.1f} s" if isinstance(self.first_token_s, float) else ""

    def _warmed(self, live: Live, resume: flow.Resume) -> None:
        """Wait for the umbilical's word as long as the server gets on: a large model on a slow machine takes what it takes."""
        getting_on = Progress(live.directory, self.reactor.clock)
        over: list[bool] = []

        def end(*answer: Any) -> None:
            if not over:
                over.append(True)
                resume(answer)

        def look() -> None:
            if over:
                return
            still_s = getting_on.still_s()
            if still_s >= self.bounds.umbilical_still:
                end(False, f"for {still_s:.0f} s it used no processor and its memory stayed as it was", {})
            else:
                self.reactor.call_later(PROGRESS_EVERY_S, look)

        self.umbilical().warm(end)
        look()

    def _drain(self, _instance: Instance) -> flow.Flow[Outcome_]:
        ok, why, _value = yield flow.answered(self.umbilical().drain)
        return (E.DRAINED if ok else E.FAULT), why

    # ---- its end

    def _leaves(self, name: str) -> None:  # noqa: ARG002 - there is one
        self.ends.forget()

    def _stop_s(self, _instance: Instance) -> float:
        return STOP_S

    def _after_end(self, instance: Instance, end: End) -> Outcome_:
        """Say what follows. Asked to stop, or yielding: stopped, however that went. No other try for what none would help."""
        final = instance.name in self._final
        self._final.discard(instance.name)
        if instance.desired == "stopped" or self._yields:
            return E.GONE, end.why
        if end.status in HOPELESS:
            return E.GAVE_UP, f"{HOPELESS[end.status]} (status {end.status})"
        if final:
            return E.GAVE_UP, end.why
        then, why = reconcile.after_end(
            end, desired=instance.desired, restart="always", retries=RETRIES, attempts=instance.attempts
        )
        return THEN[then], why

    def _stepped(self, instance: Instance, step: Step) -> None:
        """Tell the umbilical, and start what waits for its rest."""
        self.life.look_again(instance)
        self._yields = step.event == E.YIELD.value or (self._yields and instance.now not in (S.STOPPED, S.STARTING))
        self.announce(instance, step.why)
        if self._restarts and instance.now is S.STOPPED:
            self._restarts = False
            self.life.send(instance.name, E.START, "")
        if self._waiting:
            self.reactor.call_soon(partial(self._look_autostart, instance))

    def announce(self, instance: Instance, why: str) -> None:
        """Tell the umbilical, if there is one, how the server is."""
        if self.umbilical.made is not None:
            self.umbilical.made.tenant(**self._told(instance, why))

    def told(self) -> dict[str, Any]:
        """Return how the server is, for an umbilical that is new."""
        instance = self.engine.instances.get(NAME)
        return {"state": "stopped"} if instance is None else self._told(instance, self.unavailable or _why(instance))

    def _told(self, instance: Instance, why: str) -> dict[str, Any]:
        live = self.life.current(instance.name)
        group = f"{TENANTS}/libpod-{live.container}" if live is not None and instance.now in HAS_CONTAINER else ""
        return {"state": instance.now.value, "why": why, "group": group}

    def restart(self, *, runs: bool) -> None:
        """Start it again as soon as it is stopped, if it `runs`."""
        self._restarts = runs

    # ---- with the spine

    def autostart(self, images: Collection[str]) -> None:
        """Start it if it is to start with the spine and can; called once a boot, after init is complete and reconcile done.

        `images`: those that podman had when this boot looked. No call of podman is made for one that cannot start.
        """
        instance = self.engine.instances.get(NAME)
        if instance is None or instance.now not in (S.STOPPED, S.CONVERGING, S.STUCK):
            return
        config = read_config(instance.config)
        if self._unwanted:
            self._is_unavailable(instance, self._unwanted, "`bay0 tenant start ai`")
        elif config is not None and not config.autostart:
            self._is_unavailable(instance, "it is configured not to start with the spine", "`bay0 tenant start ai`")
        elif IMAGE in images:
            self._wait_for_rest(instance)
        else:
            self.life.ask("ai_archive", partial(self._archive_known, instance))

    def _archive_known(self, instance: Instance, found: Answer) -> None:
        if found.ok and found.value is not None:
            self._wait_for_rest(instance)
        else:
            why = NO_IMAGE if found.ok else f"storage does not say whether its image is there: {found.why}"
            self._is_unavailable(instance, why, WAYS)

    def came(self, images: frozenset[str]) -> None:
        """Hear of images that were loaded since this boot looked for one: what kept it stopped may be no longer so."""
        instance = self.engine.instances.get(NAME)
        if IMAGE in images and instance is not None and instance.now is S.STOPPED and self.unavailable == NO_IMAGE:
            self._is_unavailable(instance, "its image was loaded after this boot had looked for it", "`bay0 tenant start ai`")

    def _is_unavailable(self, instance: Instance, why: str, remedy: str) -> None:
        self.unavailable, self.remedy = why, remedy
        self.log.info("the ai is not started", why=why)
        self.announce(instance, why)

    def _going_down(self, _boot: Instance, _step: Step) -> None:
        self.no_start(GOING_DOWN)

    def no_start(self, why: str) -> None:
        """Start it no more unless somebody asks for it: neither with the spine nor to end a restart."""
        self._restarts, self._waiting, self._unwanted = False, False, why

    def _wait_for_rest(self, instance: Instance) -> None:
        if self._unwanted:  # since its archive was asked about
            return
        self._waiting = True
        self._look_autostart(instance)

    def _look_autostart(self, instance: Instance) -> None:
        """Start it once an earlier boot's is cleared; called after each step until then."""
        if not self._waiting or instance.pending is not None or instance.now in (S.CONVERGING, S.STUCK):
            return
        self._waiting = False
        event = E.AUTOSTART if instance.attempts <= RETRIES else E.GAVE_UP
        self.life.send(instance.name, event, "" if event is E.AUTOSTART else f"{instance.attempts} of {RETRIES + 1} attempts")


def _why(instance: Instance) -> str:
    return instance.committed.why if instance.committed is not None else "nobody has started it in this boot"


def _has_begun(_name: str) -> bool:
    """Say that no start waits to begin: there is one of them, and no line."""
    return False
