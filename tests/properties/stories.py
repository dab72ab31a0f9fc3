"""Short lives in which two things meet at a moment that is moved: every bug this suite has found is one of them."""

from __future__ import annotations

from collections.abc import Callable

from persona import E as PersonaEvent
from scenario import PLAY, WORK
from world import World

Story = Callable[[World, float], None]
MOMENTS = [round(0.05 * i, 2) for i in range(64)]


def stop_at(world: World, moment: float) -> None:
    world.disk.latency_s = 0.15
    world.boot()
    world.run(moment)
    world.stop()
    world.run(60)


def stop_reattaching_at(world: World, moment: float) -> None:
    world.boot()
    world.run(3)
    world.disk.latency_s = 0.15
    world.kill_worker()
    world.run(moment)
    world.stop()
    world.run(60)


def wedge_at(world: World, moment: float) -> None:
    world.disk.latency_s = 0.15
    world.boot()
    world.run(moment)
    world.disk.wedged = True
    world.run(20 * moment)
    world.settle()


def retry_a_wedged_disk(world: World, moment: float) -> None:
    world.boot()
    world.run(3)
    world.disk.readonly = True
    world.run(20)
    world.disk.wedged = True
    world.retry()
    world.run(20 * moment)
    world.settle()


def disk_comes_at(world: World, moment: float) -> None:
    world.plug(present=False)
    world.boot()
    world.run(3 * moment)
    world.plug(present=True)
    world.settle()


def one_write_fails_with_more_behind_it(world: World, moment: float) -> None:
    world.disk.latency_s = 0.15
    world.boot()
    world.run(4)
    world.start(WORK)
    world.run(1)
    world.start(PLAY)
    world.run(moment)
    world.disk.fail_once = "full"
    world.send(WORK, PersonaEvent.STOP)
    world.run(0.05)
    world.send(PLAY, PersonaEvent.STOP)
    world.run(0.4 + moment / 3)


def an_exec_that_is_not_wanted_again(world: World, moment: float) -> None:
    world.boot(exec_=True)
    world.run(moment)


def closed_before_the_database_was_current(world: World, moment: float) -> None:
    an_exec_that_is_not_wanted_again(world, 2)
    world.cut()
    world.disk.fail_once = "readonly"
    world.boot()
    world.run(1 + moment)
    world.stop()
    world.run(60)


def a_commit_whose_answer_is_lost(world: World, moment: float) -> None:
    world.boot()
    world.run(3 + moment)
    world.start(WORK)
    world.run(1)
    world.disk.wedged, world.half_done = True, None
    world.send(WORK, PersonaEvent.STOP)
    world.run(5)
    world.settle()


def a_promise_to_a_wedged_disk(world: World, moment: float) -> None:
    world.boot()
    world.run(3)
    world.disk.wedged = True
    world.start(WORK)
    world.run(3 * moment)


def one_write_fails_near_a_promise(world: World, moment: float) -> None:
    world.boot()
    world.run(3)
    world.disk.fail_once, world.disk.fail_skips = "full", int(moment / 0.3)
    world.start(WORK)
    world.run(1)
    world.start(PLAY)
    world.run(1)


def podman_gives_no_answer(world: World, moment: float) -> None:
    world.boot()
    world.run(3)
    world.podman = "hangs"
    world.start(WORK)
    world.run(20 * moment)
    world.settle()


def a_cut_while_personas_run(world: World, moment: float) -> None:
    world.boot()
    world.run(3)
    world.start(WORK)
    world.start(PLAY)
    world.run(moment)


STORIES: tuple[Story, ...] = (
    stop_at, stop_reattaching_at, wedge_at, retry_a_wedged_disk, disk_comes_at, one_write_fails_with_more_behind_it,
    an_exec_that_is_not_wanted_again, closed_before_the_database_was_current, a_commit_whose_answer_is_lost,
    a_promise_to_a_wedged_disk, one_write_fails_near_a_promise, podman_gives_no_answer, a_cut_while_personas_run,
)  # fmt: skip
