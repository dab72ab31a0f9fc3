"""Many starts asked for in one moment: they flow through podman in their order, and a stop does not stand behind them.

A call of podman takes here what it takes on a slow machine, and an image is loaded in many times that. What is compared is order and
number, not time.
"""

from __future__ import annotations

from collections import Counter

import pytest
from podman import IMAGE, Vice
from world import World

from bay0.machines.persona import E, S

MANY = 142
LOAD_S = 30.0  # of an image, while a run takes about two


def names(count: int = MANY) -> list[str]:
    return [f"p://n{number}" for number in range(count)]


def crowd(world: World, count: int = MANY) -> list[str]:
    """Boot a fresh disk and make so many personas of an image that podman does not have yet."""
    world.podman.images.discard(IMAGE)
    world.podman.load_s = LOAD_S
    world.boot()
    world.run(4)
    for name in names(count):
        world.call("persona.create", name=name, manifest={"image": IMAGE})
        world.run(0.05)
    assert {world.state_of(name) for name in names(count)} == {S.STOPPED}
    world.podman.calls.clear()
    return names(count)


def start(world: World, which: list[str]) -> None:
    for name in which:
        world.verb("start", name)


def states(world: World, which: list[str]) -> Counter[S]:
    return Counter(world.state_of(name) for name in which)


def calls(world: World) -> Counter[str]:
    return Counter(call.split()[0] for call in world.podman.calls)


def made(world: World) -> list[str]:
    """The personas that have a container, in the order in which podman made them."""
    return [f"p://{name.removeprefix('p__')}" for name in world.podman.containers if name.startswith("p__n")]


def test_starts_of_one_image_load_it_once_and_run_in_the_order_they_were_asked_for() -> None:
    with World() as world:
        which = crowd(world)
        start(world, which)
        for _ in range(60):
            world.run(10)
            if states(world, which) == {S.RUNNING: MANY}:
                break
        assert states(world, which) == {S.RUNNING: MANY}
        assert calls(world)["load"] == 1, "one waits for the other's"
        assert world.podman.calls.count(f"run {IMAGE}") <= MANY + 2, "who waits for its turn does not ask for an image that is being loaded"
        assert made(world) == which
        assert not [step for step in world.checks.steps.values() if step.event == E.TIMED_OUT.value]


def test_a_stop_overtakes_the_starts_that_wait_and_asks_nothing_of_podman_for_those_that_have_not_begun() -> None:
    with World() as world:
        which = crowd(world)
        start(world, which)
        world.run(LOAD_S + 10)
        begun = set(made(world)) | {name for name in which if world.state_of(name) is S.RUNNING}
        assert 0 < len(begun) < MANY - 20
        world.podman.calls.clear()
        for name in which:
            world.verb("stop", name)
        world.run(1)
        assert states(world, which)[S.STOPPED] >= MANY - len(begun) - 2, "a start that has not begun is cancelled at once"
        world.run(60)
        assert states(world, which) == {S.STOPPED: MANY}
        about = {f"p://{word.removeprefix('p__')}" for call in world.podman.calls for word in call.split()[1:] if word.startswith("p__")}
        assert len(about) <= len(begun) + 2, "podman hears only of those that had begun"
        assert calls(world)["run"] == 0


def test_a_start_behind_a_slow_queue_is_not_timed_out_for_its_waiting() -> None:
    """A start's own bound begins with its turn: one podman that hangs to its end costs that one its start, and nobody behind it."""
    with World() as world:
        which = crowd(world, 12)
        world.podman.vices += [Vice("run", "hang", at=1, about=f"p__n{number}") for number in range(10)]
        start(world, which)
        world.run(400)
        assert states(world, which[10:]) == {S.RUNNING: 2}


@pytest.mark.parametrize("verb", ["pause", "stop"])
def test_what_is_asked_of_one_that_runs_does_not_wait_behind_starts(verb: str) -> None:
    with World() as world:
        which = crowd(world)
        start(world, which[:1])
        world.run(LOAD_S + 10)
        start(world, which[1:])
        world.run(1)
        world.verb(verb, which[0])
        world.run(8)
        assert world.state_of(which[0]) in (S.PAUSED, S.STOPPED)


def test_pauses_of_all_at_once_end_nobody_because_podman_is_slow() -> None:
    """The bound of a freeze is podman's and the kernel's time for it, not that of the others' before it."""
    with World() as world:
        which = crowd(world, 60)
        start(world, which)
        world.run(400)
        assert states(world, which) == {S.RUNNING: 60}
        world.podman.step_s = 1.0
        for name in which:
            world.verb("pause", name)
        world.run(200)
        assert states(world, which) == {S.PAUSED: 60}
