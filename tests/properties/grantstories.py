"""Short lives of the ways to the AI: a door opens or closes as something else happens, at a moment that is moved. As in stories.py."""

from __future__ import annotations

from ai import AI
from broken import hold
from people import IDLE, PLAY, WORK
from podman import Vice
from stories import Story
from world import World

import bay0.umbilical.doors
from bay0.machines.persona import S
from bay0.machines.server import E

WORK_CONTAINER = "p__work"


def _granted(world: World, *personas: str) -> None:
    """Boot; these run, with the AI."""
    world.boot()
    world.run(3)
    for name in personas:
        world.be(name, ai=True)
        world.verb("start", name)
    world.run(5)


def _without_ai(world: World) -> None:
    """Boot; nobody has needed a way to the AI yet."""
    world.boot()
    world.run(9)
    world.ask_ai("configure", autostart=False)
    world.run(1)
    world.cut()
    world.boot()
    world.run(5)
    hold(world.spine.umbilical.made is None, "nobody wants the AI, and there is a way to it")


def a_manifest_is_edited(world: World, moment: float) -> None:
    _granted(world, WORK, PLAY)
    for ai in (False, True, False):
        world.begin_with(WORK, ai=ai)
        world.run(moment)
    world.settle()
    world.begin_with(IDLE, ai=True)
    world.run(moment)


def a_start_is_overtaken(world: World, moment: float) -> None:
    """By a stop, a reset, a disk that goes: a door that is made for it then is nobody's."""
    _without_ai(world)
    world.be(WORK)
    world.disk.latency_s = 0.05
    world.verb("start", WORK)
    world.run(moment / 8)
    if moment > 2:
        world.disk.wedged = True
    world.verb("stop" if int(20 * moment) % 2 else "reset", WORK)
    world.run(4 * moment)
    world.unwedge()
    world.settle()


def a_forwarder_ends_as_doors_open_and_close(world: World, moment: float) -> None:
    _granted(world, PLAY)
    world.start(WORK)
    world.run(moment)
    world.grants.dies()
    world.run(moment / 4)
    world.verb("stop", PLAY)
    world.run(moment / 2)
    world.verb("start", PLAY)
    world.grants.dies()
    world.run(2 + moment)
    world.grants.lies()
    world.verb("pause", WORK)
    world.run(moment)
    world.settle()


def a_forwarder_hangs(world: World, moment: float) -> None:
    """It neither reads nor speaks, from its first moment or later; nothing waits for it, and it is ended."""
    _granted(world, PLAY)
    world.grants.deaf = True
    if moment > 1.6:
        world.grants.dies()
    world.start(WORK)
    world.verb("stop", PLAY)
    world.run(5)
    hold(world.state_of(WORK) is S.RUNNING, f"the forwarder hangs, and {WORK} is {world.state_of(WORK)}")
    hung = world.grants.forwarder
    world.run(35)
    hold(hung.process.ended, "the forwarder has hung for 40 s, and nobody has ended it")
    world.run(10 * moment)
    world.settle()


def no_forwarder_stays(world: World, moment: float) -> None:
    world.ai.away = True
    _granted(world, WORK, PLAY)
    world.verb("stop", PLAY)
    world.run(10 * moment)
    world.settle()


def a_boot_finds_the_forwarder_of_an_earlier_one(world: World, moment: float) -> None:
    """Its machine is on its way out as somebody wants it."""
    _granted(world)
    world.cut()
    world.disk.latency_s = moment / 25
    world.boot()
    world.run(15)
    world.settle()


def no_socket_can_be_made(world: World, moment: float) -> None:
    _granted(world, PLAY)
    world.grants.closed = True
    world.start(WORK)
    world.run(10 * moment)
    hold(world.state_of(WORK) is not S.RUNNING, f"its door cannot be made, and {WORK} runs")
    world.grants.closed = False
    world.settle()


def there_are_too_many_doors(world: World, moment: float) -> None:
    world.patch.setattr(bay0.umbilical.doors, "DOORS_MAX", 2)  # the console's, and one
    _granted(world, PLAY)
    world.start(WORK)
    world.run(1 + moment)
    hold(world.state_of(WORK) is not S.RUNNING, f"there is no door left, and {WORK} runs")
    world.verb("stop", PLAY)
    world.run(5)
    world.start(WORK)
    world.run(5)
    hold(world.state_of(WORK) is S.RUNNING, f"there is a door left, and {WORK} is {world.state_of(WORK)}")
    world.settle()


def one_that_outlives_its_container_does_not_find_the_next_door(world: World, moment: float) -> None:
    _granted(world, WORK)
    mounted = world.podman.containers[WORK_CONTAINER].door
    world.verb("stop" if moment < 1.6 else "reset", WORK)
    world.run(4 + moment)
    world.start(WORK)
    world.run(5)
    try:
        mounted.connect().close()
    except OSError:
        pass
    else:
        hold(False, f"{WORK} was started anew, and what is left of it in the old container has its new door")
    world.settle()


def a_container_ends_as_its_door_opens(world: World, moment: float) -> None:
    _granted(world, PLAY)
    world.be(WORK, home="")  # one with a new home is made in steps
    world.podman.vices.append(Vice("run", "hang", int(10 * moment) % 6 - 1, ("term", "kill", "late")[int(20 * moment) % 3]))
    world.start(WORK)
    world.run(2 + moment)
    world.podman.dies(WORK_CONTAINER, 1)
    world.podman.dies("p__play", 1)
    world.settle()


def the_spine_goes_down_as_doors_open(world: World, moment: float) -> None:
    _granted(world, PLAY)
    world.disk.latency_s = 0.15
    world.be(IDLE, ai=True)
    world.start(WORK)
    world.verb("start", IDLE)
    world.podman.dies("p__play", 1)
    world.run(moment)
    world.stop()
    world.run(60)


def one_is_started_as_the_spine_goes_down(world: World, moment: float) -> None:
    """Tenants have been told to stop, and one takes its time."""
    _granted(world, PLAY)
    world.be(WORK)
    world.verb("stop", PLAY)
    world.ask_ai("stop")
    world.run(5)
    world.stubborn = True
    world.grants.dies()
    world.stop()
    world.run(moment / 2)
    world.verb("start", WORK)
    world.run(60)


def the_first_who_wants_it_is_started_as_the_spine_goes_down(world: World, moment: float) -> None:
    """The word to stop is on its way to a slow disk when the way to the AI is made."""
    _without_ai(world)
    world.disk.latency_s = 0.15
    world.ask_ai("start")
    world.run(moment / 4)
    world.stop()
    world.run(60)


def the_ai_comes_and_goes(world: World, moment: float) -> None:
    """Doors stay, whatever it does; who speaks there hears how it is."""
    _granted(world, WORK, PLAY)
    for act in ("stop", "start", E.PAUSE, E.RESUME, E.YIELD, "restart"):
        world.ask_ai(act) if isinstance(act, str) else world.send(AI, act)
        world.run(moment)
        hold({world.state_of(WORK), world.state_of(PLAY)} == {S.RUNNING}, "the AI comes and goes, and a persona does, too")
    world.podman.dies("sys__ai", 1)
    world.settle()


GRANT_STORIES: tuple[Story, ...] = (
    a_manifest_is_edited, a_start_is_overtaken, a_forwarder_ends_as_doors_open_and_close, a_forwarder_hangs, no_forwarder_stays,
    a_boot_finds_the_forwarder_of_an_earlier_one, no_socket_can_be_made, there_are_too_many_doors,
    one_that_outlives_its_container_does_not_find_the_next_door, a_container_ends_as_its_door_opens, the_spine_goes_down_as_doors_open,
    one_is_started_as_the_spine_goes_down, the_first_who_wants_it_is_started_as_the_spine_goes_down, the_ai_comes_and_goes,
)  # fmt: skip
