"""One scripted life of a machine, and how to stop it anywhere. Used by the crash sweep and by the mutants."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from copies import COPY
from people import PLAY, WORK
from world import World

Act = Callable[[World], None]


def _wedge(world: World) -> None:
    world.disk.wedged, world.half_done = True, None  # what it was asked last is written, and nobody hears of it


def _fill(world: World) -> None:
    world.disk.full = True


def _drain(world: World) -> None:
    world.disk.full = False


def _stop_work(world: World) -> None:
    world.verb("stop", WORK)


def _fail_a_sync(world: World) -> None:
    world.disk.sync_loses = "first"


def wait(seconds: float) -> Act:
    return lambda world: world.run(seconds)


LIFE: Sequence[Act] = (
    lambda w: w.boot(exec_=True),
    wait(3),
    lambda w: w.be(PLAY),
    lambda w: w.start(WORK),
    lambda w: w.nack(1),
    wait(3),
    lambda w: w.start(PLAY),
    lambda w: w.nack(2),
    lambda w: w.nack(1, nacked=False),
    wait(3),
    lambda w: w.change(WORK, memory=512 << 20),
    lambda w: w.call("focus", name=PLAY, wait=True),
    wait(4),
    lambda w: w.verb("resume", WORK),
    lambda w: w.ask_ai("configure", model=w.ai.models[0]),
    wait(4),  # a probe
    _fail_a_sync,
    lambda w: w.nack(3),
    wait(2),
    lambda w: w.nack(4),
    lambda w: w.call("suspend", reason="lid"),
    wait(1),
    _wedge,
    _stop_work,
    wait(14),
    lambda w: w.unwedge(),
    wait(4),
    lambda w: w.start(WORK),
    wait(3),
    _fill,
    _stop_work,
    wait(3),
    _drain,
    wait(25),
    lambda w: w.podman.dies("p__play", 1),
    wait(5),
    lambda w: w.start(WORK),
    wait(3),
    lambda w: w.kill_worker(),
    lambda w: w.podman.dies("sys__ai", 1),
    wait(3),
    lambda w: w.verb("stop", WORK),
    wait(3),
    lambda w: w.copies.plant(WORK),
    lambda w: w.clone(WORK),
    wait(2),
    lambda w: w.snapshot(WORK, note="as it was"),
    wait(2),
    lambda w: w.verb("restore", WORK),
    wait(2),
    lambda w: w.call("persona.drop", name=f"{WORK}@1"),
    lambda w: w.verb("remove", COPY, home=True, wait=True),
    lambda w: w.verb("reset", WORK, home=True, wait=True),
    lambda w: w.end_process(0),
    wait(3),
    lambda w: w.verb("remove", WORK),
    lambda w: w.ask_ai("configure", autostart=False),
    wait(1),
    lambda w: w.stop("poweroff"),
    wait(60),
)


def live(world: World, acts: Sequence[Act] = LIFE, crash_at: int | None = None, kept: float = 1.0) -> bool:
    """Act until the end or until seam `crash_at`, after which `kept` of the unsynced bytes are there. Tell whether it was reached."""
    world.crash_at, world.kept = crash_at, kept
    for act in acts:
        act(world)
        if not world.on:
            break
    survived = crash_at is None or world.seams < crash_at
    world.cut()
    world.crash_at = None
    return not survived


def recover(world: World, crash_after: int | None = None, kept: float = 1.0) -> bool:
    """Boot again; with `crash_after`, only to be stopped after so many seams. Tell whether it was stopped."""
    world.crash_at = None if crash_after is None else world.seams + crash_after
    world.kept = kept
    world.boot()
    world.run(10)
    if world.on and crash_after is None:
        world.settle()
    stopped = not world.on
    world.cut()
    return stopped

