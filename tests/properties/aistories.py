"""Short lives of `sys://ai`: something happens to it, or is asked of it, at a moment that is moved. As in stories.py."""

from __future__ import annotations

from ai import AI, CONTAINER
from broken import hold
from people import PLAY, WORK
from podman import AI_IMAGE, Vice
from stories import Story
from world import World

from bay0.ai.port import RETRIES
from bay0.machines.server import HAS_CONTAINER, E, S

READY_S = 9.0  # from power-on, with room for its image to be loaded


def _ready(world: World, *personas: str) -> None:
    """Boot, and let it serve; and these run."""
    world.boot()
    world.run(READY_S)
    for name in personas:
        world.start(name)
    world.run(5 if personas else 0)


def its_start_is_cut_short(world: World, moment: float) -> None:
    world.boot()
    world.run(2 + 3 * moment)


def it_takes_each_boot_down(world: World, moment: float) -> None:
    """Attempts are counted over boots."""
    for _ in range(RETRIES + 3):
        world.boot()
        world.run(3.5 + moment % 1)
        world.cut()
    started = [step for step in world.checks.steps.values() if step.machine == AI and step.dest == "starting"]
    hold(len(started) <= RETRIES + 1, f"{AI} was started {len(started)} times, and took each boot down")


def it_ends_again_and_again(world: World, moment: float) -> None:
    """Attempts are counted within a boot, too."""
    world.boot()
    for _ in range(12):
        world.run(5 + moment)
        world.podman.dies(CONTAINER, 1)
    world.run(60)
    started = [step for step in world.checks.steps.values() if step.machine == AI and step.dest == "starting"]
    hold(len(started) <= RETRIES + 1, f"{AI} was started {len(started)} times, and ended at once each time")
    world.settle()


def verbs_follow_each_other(world: World, moment: float) -> None:
    _ready(world)
    for verb in ("restart", "stop", "start", "stop", "restart", "start"):
        world.ask_ai(verb)
        world.run(moment)
    world.settle()


def a_restart_is_overtaken(world: World, moment: float) -> None:
    """By a stop, by the governor, by the end of the spine: what it was to start again is not."""
    _ready(world)
    world.ask_ai("restart")
    world.run(moment / 4)
    world.ask_ai("stop")
    world.settle()
    world.ask_ai("start")
    world.run(8)
    world.send(AI, E.YIELD)
    world.run(5)
    hold(world.state_of(AI) is S.STOPPED, f"it yields, and is {world.state_of(AI)}")
    world.ask_ai("start")
    world.run(8)
    world.ask_ai("restart")
    world.run(8)
    world.send(AI, E.YIELD)
    world.run(5)
    hold(world.state_of(AI) is S.STOPPED, f"it was restarted, yields, and is {world.state_of(AI)}")
    world.ask_ai("start")
    world.run(8)
    world.ask_ai("restart")
    world.run(moment / 4)
    world.stop()
    world.run(60)


def it_is_started_as_the_spine_goes_down(world: World, moment: float) -> None:
    """The promise of its start is on its way to the disk; a persona takes its time."""
    _ready(world, PLAY)
    world.ask_ai("stop")
    world.run(3)
    world.disk.latency_s, world.podman.full = 0.15, True
    world.ask_ai("configure", model=None)
    world.ask_ai("start")
    world.run(moment / 10)
    world.stop()
    world.run(60)


def it_is_configured_and_the_power_goes(world: World, moment: float) -> None:
    _ready(world)
    world.disk.latency_s = 0.15
    world.ask_ai("configure", model=world.ai.models[0])
    world.run(moment / 4)
    world.ask_ai("configure", autostart=False)
    world.ask_ai("configure", model=None)
    world.ask_ai("configure", model=world.ai.models[1])
    world.run(moment / 4)


def the_governor_has_it(world: World, moment: float) -> None:
    _ready(world)
    for event in (E.PAUSE, E.RESUME, E.PAUSE, E.YIELD):
        world.send(AI, event)
        world.run(moment)
    world.run(5)
    world.checks.ai.asked_to_start()
    world.send(AI, E.START)
    world.run(moment)
    world.settle()


def its_container_ends_as_something_is_asked(world: World, moment: float) -> None:
    _ready(world)
    world.ask_ai("stop" if moment < 1 else "restart") if moment < 2 else world.send(AI, E.PAUSE)
    world.run(moment % 1)
    (world.podman.monitor_dies if int(20 * moment) % 2 else lambda name: world.podman.dies(name, 1))(CONTAINER)
    world.settle()


def nothing_of_it_moves_a_persona(world: World, moment: float) -> None:
    """It cannot be started, ends, hangs, and podman fails on it: personas make no step."""
    _ready(world, WORK, PLAY)
    world.settle()
    before = len([step for step in world.checks.steps.values() if step.kind == "persona"])
    for owner, vice in ((world.ai, "cold"), (world.ai, "wrong"), (world.grants, "closed")):
        setattr(owner, vice, True)
        world.ask_ai("restart")
        world.run(10 * moment)
        setattr(owner, vice, False)
    for verb, error in (("rm", "conmon"), ("run", "internal"), ("rm", "internal"), ("run", "hang"), ("rm", "hang")):
        world.podman.vices.append(Vice(verb, error, at=int(10 * moment) % 3, end="kill", about=CONTAINER))
        world.ask_ai("restart")
        world.run(4 + 10 * moment)
    world.podman.dies(CONTAINER, 1)
    world.run(2)
    after = len([step for step in world.checks.steps.values() if step.kind == "persona"])
    hold(before == after, f"personas took {after - before} steps, and only the AI was in trouble")


def the_kernel_does_not_confirm_it(world: World, moment: float) -> None:
    world.ai.wrong = True
    world.boot()
    world.run(8 + moment)
    hold(world.state_of(AI) not in HAS_CONTAINER, f"the kernel does not confirm its envelope, and it is {world.state_of(AI)}")
    world.settle()


def no_forwarder_answers(world: World, moment: float) -> None:
    _ready(world)
    world.ai.away = world.ai.mute = True
    world.ask_ai("stop" if moment < 1.6 else "restart")
    world.run(20 * moment)
    world.settle()
    world.ai.away = True
    world.stop()
    world.run(60)


def its_image_is_gone(world: World, moment: float) -> None:
    _ready(world)
    world.ask_ai("stop")
    world.run(4)
    world.call("image.remove", name=AI_IMAGE)
    world.ai.imageless = True
    world.run(2)
    world.ask_ai("start")
    world.run(3)
    hold(world.state_of(AI) is S.FAILED, f"there is no image, and it is {world.state_of(AI)}")
    world.cut()
    world.boot()
    world.run(5 + moment)
    hold(world.state_of(AI) is S.STOPPED, f"there is no image, and it is {world.state_of(AI)}")


AI_STORIES: tuple[Story, ...] = (
    its_start_is_cut_short, it_takes_each_boot_down, it_ends_again_and_again, verbs_follow_each_other, a_restart_is_overtaken,
    it_is_started_as_the_spine_goes_down, it_is_configured_and_the_power_goes, the_governor_has_it,
    its_container_ends_as_something_is_asked, nothing_of_it_moves_a_persona, no_forwarder_answers, its_image_is_gone,
    the_kernel_does_not_confirm_it,
)  # fmt: skip
