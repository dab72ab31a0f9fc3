"""Any life of a machine: boots, disks that fail in every way, crashes at any seam, power cuts that lose the tail. The invariants are checks.py's."""

from __future__ import annotations

from typing import Any

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from persona import E as PersonaEvent
from world import PERSONAS, World

from bay0.machines import boot

KEPT = st.sampled_from((0.0, 0.3, 0.7, 1.0))
SEAMS = st.integers(1, 60)
MANY_SEAMS = st.integers(1, 200)
PERSONA = st.sampled_from(PERSONAS)
on = precondition(lambda self: self.world.on)
off = precondition(lambda self: not self.world.on)
complete = precondition(lambda self: self.world.on and self.world.state_of_boot is boot.S.COMPLETE)


class Life(RuleBasedStateMachine):
    """One machine over many boots."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.world.__enter__()

    @initialize(plugged=st.booleans(), latency=st.sampled_from((0.001, 0.001, 0.15)))
    def deliver(self, plugged: bool, latency: float) -> None:
        self.world.disk.latency_s = latency
        if not plugged:
            self.world.plug(present=False)

    # ---- power

    @off
    @rule(exec_=st.booleans(), seconds=st.sampled_from((0.0, 0.5, 5.0, 40.0)))
    def power_on(self, exec_: bool, seconds: float) -> None:
        self.world.boot(exec_=exec_)
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
    @rule(how=st.sampled_from(("poweroff", "reboot")), seconds=st.sampled_from((0.0, 0.3, 60.0)))
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
    @rule(index=st.integers(0, 1))
    def tenant_dies(self, index: int) -> None:
        self.world.end_process(index)

    @rule(how=st.sampled_from(("well", "fails", "hangs")))
    def podman(self, how: str) -> None:
        self.world.podman = how

    # ---- people

    @complete
    @rule(name=PERSONA)
    def start(self, name: str) -> None:
        self.world.start(name)

    @on
    @rule(name=PERSONA, event=st.sampled_from((PersonaEvent.STOP, PersonaEvent.VANISHED, PersonaEvent.CONVERGE)))
    def tell(self, name: str, event: Any) -> None:
        self.world.send(name, event)

    @on
    @rule()
    def retry_storage(self) -> None:
        self.world.retry()

    def teardown(self) -> None:
        world = self.world
        try:
            note(f"{dict(world.checks.count)}, {world.seams} seams")
            if world.on:
                world.settle()
            world.cut(0.0)
            world.crash_at = None
            world.mend()
            world.boot()
            world.settle()
        finally:
            world.__exit__()


TestLife = Life.TestCase
