"""Any life of a machine: boots, disks that fail in every way, crashes at any seam, power cuts that lose the tail. The invariants are checks.py's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from ai import AI, LEVERS, TROUBLES
from attrs import evolve
from broken import Broken
from grants import WAYS
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from pagecache import LOSES
from people import PERSONAS
from podman import AI_IMAGE, DAMAGES, ERRORS, IMAGE, Vice
from world import World

from bay0.containers.life import PERSONAS as PERSONA_GROUP
from bay0.containers.life import TENANTS
from bay0.machines import boot
from bay0.machines.persona import E as PersonaEvent
from bay0.machines.server import E as ServerEvent

KEPT = st.sampled_from((0.0, 0.3, 0.7, 1.0))
SEAMS = st.integers(1, 60)
MANY_SEAMS = st.integers(1, 200)
SLOW_S = 10.0  # of a freeze: longer than any of its bounds
PERSONA = st.sampled_from(PERSONAS)
CONTAINER = st.sampled_from(("p__work", "p__play", "p__idle", "sys__ai"))
BY_HAND = st.sampled_from(("p__work", "p__play", "p__nobody", "web", "p_x", "p__Bad", "p__work_", "sys__ai"))
COMMANDS = ("", "ps", "run", "create", "init", "start", "rm", "rm", "unpause", "load", "system check")
COUNT: Counter[str] = Counter()
CALLED = {"start": "run", "stop": "rm", "resume": "unpause", "reset": "rm"}
VICES = st.builds(
    Vice,
    st.sampled_from(COMMANDS),
    st.sampled_from((*ERRORS, "garbage", "silent", "absent", "hang", "hang", "hang", "hang", "hang", "hang")),
    st.integers(-1, 4),
    st.sampled_from(("term", "kill", "never", "late")),
    st.sampled_from((0.5, 5.0, 30.0, 100.0)),
    st.sampled_from((False, False, False, True)),
    st.sampled_from(("", "", "", "sys__ai")),
)
on = precondition(lambda self: self.world.on)
off = precondition(lambda self: not self.world.on)
complete = precondition(lambda self: self.world.on and self.world.state_of_boot is boot.S.COMPLETE)


class Life(RuleBasedStateMachine):
    """One machine over many boots."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = Broken.seen
        self.world = World()
        self.world.__enter__()

    @initialize(begin=st.sampled_from(("lived in", "lived in", "lived in", "new", "without a disk")), latency=st.sampled_from((0.001, 0.001, 0.15)))
    def deliver(self, begin: str, latency: float) -> None:
        self.world.disk.latency_s = latency
        if begin == "without a disk":
            self.world.plug(present=False)
        elif begin == "lived in":
            self.world.boot()
            self.world.run(3)
            for name in PERSONAS:
                self.world.start(name)
            self.world.run(3)

    # ---- power

    @off
    @rule(exec_=st.booleans(), seconds=st.sampled_from((0.0, 0.5, 5.0, 40.0)), older=st.sampled_from((False, False, False, True)))
    def power_on(self, exec_: bool, seconds: float, older: bool) -> None:
        self.world.boot(exec_=exec_, older=older)
        self.world.run(seconds)

    @off
    @rule(crash_after=MANY_SEAMS, kept=KEPT)
    def power_on_and_crash(self, crash_after: int, kept: float) -> None:
        self.world.crash_at, self.world.kept = self.world.seams + crash_after, kept
        self.world.boot()
        self.world.run(10)

    @on
    @rule(kept=KEPT)
    def pull_the_plug(self, kept: float) -> None:
        self.world.cut(kept)

    @on
    @rule(crash_after=SEAMS, kept=KEPT)
    def crash_soon(self, crash_after: int, kept: float) -> None:
        self.world.crash_at, self.world.kept = self.world.seams + crash_after, kept

    @on
    @rule(how=st.sampled_from(("poweroff", "reboot", "force")), seconds=st.sampled_from((0.0, 0.3, 60.0)))
    def ask_to_stop(self, how: str, seconds: float) -> None:
        self.world.stop(how)
        self.world.run(seconds)

    # ---- time

    @on
    @rule(seconds=st.sampled_from((0.001, 0.02, 0.2, 1.0, 3.0, 11.0, 40.0)))
    def wait(self, seconds: float) -> None:
        self.world.run(seconds)

    @on
    @rule()
    def mend_everything_and_look(self) -> None:
        self.world.settle()

    # ---- the disk

    @rule(half_done=st.sampled_from((0, 1, 3, 6, None)))
    def wedge(self, half_done: int | None) -> None:
        self.world.disk.wedged, self.world.half_done = True, half_done

    @rule()
    def unwedge(self) -> None:
        self.world.unwedge()

    @rule(vice=st.sampled_from(("full", "readonly", "damaged")), there=st.booleans())
    def spoil(self, vice: str, there: bool) -> None:
        setattr(self.world.disk, vice, there)

    @rule(how=st.sampled_from(("full", "readonly", "fault")), skips=st.integers(0, 9))
    def fail_one_write(self, how: str, skips: int) -> None:
        self.world.disk.fail_once, self.world.disk.fail_skips = how, skips

    @rule(loses=st.sampled_from(LOSES), skips=st.integers(0, 5))
    def fail_one_sync(self, loses: str, skips: int) -> None:
        self.world.disk.sync_loses, self.world.disk.sync_skips = loses, skips

    @on
    @rule(loses=st.sampled_from(LOSES))
    def kernel_fails_to_write(self, loses: str) -> None:
        self.world.disk.writeback(loses)

    @rule(latency=st.sampled_from((0.001, 0.001, 0.15, 0.6, 3.0)))
    def slow_down(self, latency: float) -> None:
        self.world.disk.latency_s = latency

    @rule(present=st.booleans())
    def plug(self, present: bool) -> None:
        self.world.plug(present=present)

    # ---- processes

    @on
    @rule()
    def worker_dies(self) -> None:
        self.world.kill_worker()

    @on
    @rule(after=SEAMS)
    def worker_dies_soon(self, after: int) -> None:
        self.world.worker_dies_at = self.world.seams + after

    @rule(vice=st.sampled_from(("stubborn", "unkillable", "spawn_fails", "modprobe_hangs")), there=st.booleans())
    def trouble(self, vice: str, there: bool) -> None:
        setattr(self.world, vice, there)

    @rule(stage=st.sampled_from((None, "mount", "shield")))
    def stage_fails(self, stage: str | None) -> None:
        self.world.stage_fault = stage

    @on
    @rule(index=st.integers(0, 2))
    def tenant_dies(self, index: int) -> None:
        self.world.end_process(index)

    # ---- podman and containers

    @rule(vice=VICES)
    def podman_will(self, vice: Vice) -> None:
        self.world.podman.vices.append(vice)

    @rule()
    def podman_is_well(self) -> None:
        self.world.podman.vices.clear()
        self.world.podman.full = False

    @rule(damage=st.sampled_from((*DAMAGES, "full")))
    def podman_storage(self, damage: str) -> None:
        if damage == "full":
            self.world.podman.full = True
        else:
            self.world.podman.damage = damage

    @rule(lag=st.sampled_from((0.0, 0.3, 5.0, 1000.0)))
    def freezes_are_slow(self, lag: float) -> None:
        self.world.kernel.freeze_lag_s = lag

    @rule(name=CONTAINER)
    def ignores_term(self, name: str) -> None:
        self.world.podman.lingering.add(name)

    @on
    @rule(name=CONTAINER, status=st.sampled_from((0, 1, 137)))
    def container_ends(self, name: str, status: int) -> None:
        self.world.podman.dies(name, status)

    @on
    @rule(name=CONTAINER)
    def container_vanishes(self, name: str) -> None:
        self.world.podman.vanishes(name)

    @on
    @rule(name=CONTAINER)
    def monitor_dies(self, name: str) -> None:
        self.world.podman.monitor_dies(name)

    @on
    @rule(name=BY_HAND, runs=st.booleans())
    def container_by_hand(self, name: str, runs: bool) -> None:
        self.world.by_hand(name, runs=runs)

    @on
    @rule(name=CONTAINER, frozen=st.booleans())
    def frozen_by_hand(self, name: str, frozen: bool) -> None:
        found = self.world.podman.containers.get(name)
        if found is not None and self.world.kernel.freeze_lag_s < SLOW_S:  # one that is told to freeze and never does is nobody's news
            self.world.kernel.freeze(self.world.kernel.directory(found.id), frozen=frozen)

    @on
    @rule(name=CONTAINER, paused=st.booleans())
    def paused_by_hand(self, name: str, paused: bool) -> None:
        if self.world.kernel.freeze_lag_s < SLOW_S:
            self.world.podman.paused_by_hand(name, paused=paused)

    @on
    @rule(name=CONTAINER, stuck=st.booleans())
    def waits_for_a_disk(self, name: str, stuck: bool) -> None:
        found = self.world.podman.containers.get(name)
        group = self.world.kernel.group(found.id) if found is not None else None
        if group is not None:
            self.world.kernel.stick(group, stuck=stuck)

    @on
    @rule(group=st.sampled_from((PERSONA_GROUP, TENANTS)), frozen=st.booleans())
    def frozen_from_above(self, group: str, frozen: bool) -> None:
        self.world.kernel.freeze_above(group, frozen=frozen)

    @rule(text=st.sampled_from(("", "", "Input/output error")))
    def freezes_fail(self, text: str) -> None:
        self.world.kernel.unwritable = text

    # ---- people

    @complete
    @rule(
        name=PERSONA, restart=st.sampled_from(("no", "on-failure", "always")), retries=st.integers(0, 2), autostart=st.booleans(),
        home=st.sampled_from(("", "/home/x")), ai=st.booleans(),
    )  # fmt: skip
    def create(self, name: str, restart: str, retries: int, autostart: bool, *, home: str, ai: bool) -> None:
        wire = {"image": IMAGE, "restart": restart, "retries": retries, "autostart": autostart, "home": home, "ai": ai}
        self.world.call("persona.create", name=name, manifest=wire)

    @on
    @rule(name=PERSONA, key=st.sampled_from(("memory", "retries", "description")), number=st.integers(1, 3))
    def change(self, name: str, key: str, number: int) -> None:
        """An operator changes a key of the manifest, of one that runs or not."""
        values = {"memory": number << 28, "retries": number, "description": "x" * number}
        self.world.change(name, **{key: values[key]})

    @complete
    @rule(name=PERSONA)
    def start(self, name: str) -> None:
        self.world.start(name)

    @on
    @rule(
        name=PERSONA, wait=st.booleans(),
        verb=st.sampled_from(("start", "start", "stop", "stop", "restart", "pause", "pause", "resume", "resume", "remove")),
    )  # fmt: skip
    def ask(self, name: str, verb: str, wait: bool) -> None:
        self.world.verb(verb, name, wait=wait)

    @on
    @rule(name=PERSONA, verb=st.sampled_from(tuple(CALLED)), vice=VICES, seconds=st.sampled_from((0.1, 2.0, 30.0)))
    def ask_in_trouble(self, name: str, verb: str, vice: Vice, seconds: float) -> None:
        """The command of podman that this verb leads to is spoiled."""
        self.world.podman.vices.append(evolve(vice, verb=vice.verb and CALLED[verb]))
        self.world.verb(verb, name)
        self.world.run(seconds)

    @on
    @rule(name=PERSONA, verb=st.sampled_from(("reset", "reset", "remove")), home=st.booleans())
    def begin_anew(self, name: str, verb: str, home: bool) -> None:
        self.world.verb(verb, name, home=home)

    @on
    @rule(name=PERSONA, wait=st.booleans())
    def focus(self, name: str, wait: bool) -> None:
        self.world.call("focus", name=name, wait=wait)

    @on
    @rule()
    def suspend(self) -> None:
        self.world.call("suspend", reason="lid")

    # ---- the AI

    @on
    @rule(verb=st.sampled_from(("start", "stop", "restart")), seconds=st.sampled_from((0.0, 0.4, 2.0, 8.0)))
    def ask_ai(self, verb: str, seconds: float) -> None:
        self.world.ask_ai(verb)
        self.world.run(seconds)

    @on
    @rule(autostart=st.sampled_from((None, True, False)), model=st.sampled_from((None, 0, 1, "own")))
    def configure_ai(self, autostart: bool | None, model: int | str | None) -> None:
        changes: dict[str, object] = {} if autostart is None else {"autostart": autostart}
        if model is not None:
            changes["model"] = None if model == "own" else self.world.ai.models[int(model)]
        self.world.ask_ai("configure", **changes)

    @on
    @rule(lever=st.sampled_from(LEVERS), seconds=st.sampled_from((0.0, 0.4, 2.0)))
    def governor_acts(self, lever: str, seconds: float) -> None:
        if lever == "START":
            self.world.checks.ai.asked_to_start()
        self.world.send(AI, ServerEvent[lever])
        self.world.run(seconds)

    @rule(trouble=st.sampled_from(TROUBLES), there=st.booleans())
    def ai_has_trouble(self, trouble: str, there: bool) -> None:
        setattr(self.world.ai, trouble, there)

    # ---- the way to it

    @on
    @rule(name=PERSONA, ai=st.booleans(), seconds=st.sampled_from((0.0, 0.4, 2.0)))
    def grant_anew(self, name: str, ai: bool, seconds: float) -> None:
        self.world.begin_with(name, ai=ai)
        self.world.run(seconds)

    @on
    @rule(how=st.sampled_from(("dies", "lies")), seconds=st.sampled_from((0.0, 0.1, 1.0)))
    def forwarder_ends(self, how: str, seconds: float) -> None:
        getattr(self.world.grants, how)()
        self.world.run(seconds)

    @rule(vice=st.sampled_from(WAYS), there=st.booleans())
    def way_has_trouble(self, vice: str, there: bool) -> None:
        setattr(self.world.grants, vice, there)

    @on
    @rule(number=st.integers(1, 3), nacked=st.booleans())
    def nack(self, number: int, nacked: bool) -> None:
        self.world.nack(number, nacked=nacked)

    @on
    @rule(name=st.sampled_from((IMAGE, AI_IMAGE)))
    def remove_image(self, name: str) -> None:
        self.world.call("image.remove", name=name)

    @on
    @rule(name=PERSONA)
    def converge(self, name: str) -> None:
        self.world.send(name, PersonaEvent.CONVERGE)

    @on
    @rule()
    def retry_storage(self) -> None:
        self.world.retry()

    def end(self) -> None:
        """Settle, cut, boot once more and settle again."""
        world = self.world
        if world.on:
            world.settle()
        world.cut(0.0)
        world.crash_at = None
        world.mend()
        world.boot()
        world.settle()

    def teardown(self) -> None:
        world = self.world
        try:
            note(f"{dict(world.checks.count)}, {world.seams} seams")
            if Broken.seen == self.broken:  # else it has been said
                self.end()
            COUNT.update(world.checks.count)
            COUNT.update(seams=world.seams)
        finally:
            world.__exit__()


@pytest.fixture(autouse=True, scope="module")
def say_how_much() -> Iterator[None]:
    yield
    print(f"hypothesis: {dict(COUNT)}")


TestLife = Life.TestCase
