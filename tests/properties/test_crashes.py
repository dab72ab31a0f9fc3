"""One life, stopped at every seam there is. The range is found by running until a life survives, never written down."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from aistories import AI_STORIES
from conftest import Size, has, sample
from grantstories import GRANT_STORIES
from scenario import LIFE, live, recover
from stories import COPY_STORIES, MOMENTS, PERSONA_STORIES, SNAPSHOT_STORIES, STORIES, Story
from world import World

from bay0.pid1.reactor import TURN_S

KEPT = (0.0, 1.0, 0.6)  # of the bytes written since the last sync
ENOUGH = 5000  # seams: a sweep that gets here does not end


def test_a_life_without_a_crash_is_sound() -> None:
    with World() as world:
        assert not live(world)
        assert not recover(world)
        assert world.checks.count["promises"] >= 3
        assert world.checks.count["volatile"] > 20
        print(f"{world.seams} seams, {dict(world.checks.count)}")


def _sweep(kept: Callable[[int], tuple[float, ...]], then: Callable[[World, int, float], None]) -> int:
    """Stop a life at seam 1, 2, 3 ... until it is not reached any more; do `then` after each. Return how many there were."""
    for at in range(1, ENOUGH):
        for part in kept(at):
            with World() as world:
                if not live(world, LIFE, at, part):
                    return at - 1
                then(world, at, part)
    raise AssertionError(f"more than {ENOUGH} seams")


def test_a_crash_at_any_seam_of_a_life_loses_no_promise_and_the_next_boot_puts_all_right(size: Size) -> None:
    """`ci` takes one in eight of the seams and the three kinds of power cut in turn, `nightly` all cuts at every seam."""
    points = 0

    def fine(world: World, _at: int, _part: float) -> None:
        nonlocal points
        points += 1
        _fine(world)

    def kept(at: int) -> tuple[float, ...]:
        if size.whole:
            return KEPT
        return (KEPT[at // size.seams % 3],) if has(at, size.seams) else ()

    found = _sweep(kept, fine)
    print(f"{points} crashes at {found} seams")
    assert found > 150
    assert points >= found // size.seams


def _fine(world: World) -> None:
    assert not recover(world)


def test_a_crash_in_the_recovery_from_a_crash_is_recovered_from(size: Size) -> None:
    pairs = 0

    def twice(world: World, _at: int, part: float) -> None:
        nonlocal pairs
        after = 1
        while recover(world, after, part) and after < ENOUGH:  # each goes a little further on what the last one left
            pairs += 1
            after += size.double_stride // 4 + 1
        _fine(world)

    _sweep(lambda at: (0.0,) if has(at, size.double_stride) else (), twice)
    print(f"{pairs} crashes inside a recovery")
    assert pairs > 50


def _happens(story: Story, stride: int) -> None:
    for count, moment in enumerate(sample(MOMENTS, stride)):
        with World() as world:
            world.turn_s = 0.0 if count % 2 else TURN_S  # the host may be so slow that a turn has time for one call
            story(world, moment)
            world.cut(KEPT[count % 3])
            _fine(world)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_at_whatever_moment_it_happens_all_is_well_in_the_end(story: Story, size: Size) -> None:
    """Each was a bug, or nearly: two things that meet, moved against each other in small steps."""
    _happens(story, 1 if size.whole else 8)


@pytest.mark.parametrize("story", PERSONA_STORIES, ids=lambda story: story.__name__)
def test_at_whatever_moment_it_happens_to_a_persona_all_is_well_in_the_end(story: Story, size: Size) -> None:
    _happens(story, size.stride)


@pytest.mark.parametrize("story", COPY_STORIES, ids=lambda story: story.__name__)
def test_at_whatever_moment_it_happens_to_a_copy_it_is_there_whole_or_not_at_all(story: Story, size: Size) -> None:
    _happens(story, max(1, size.stride // 2))


@pytest.mark.parametrize("story", SNAPSHOT_STORIES, ids=lambda story: story.__name__)
def test_at_whatever_moment_it_happens_to_a_snapshot_it_is_whole_or_gone_and_who_goes_back_is_of_one_time(story: Story, size: Size) -> None:
    _happens(story, max(1, size.stride // 2))


@pytest.mark.parametrize("story", AI_STORIES, ids=lambda story: story.__name__)
def test_at_whatever_moment_it_happens_to_the_ai_all_is_well_in_the_end(story: Story, size: Size) -> None:
    _happens(story, 2 * size.stride)


@pytest.mark.parametrize("story", GRANT_STORIES, ids=lambda story: story.__name__)
def test_at_whatever_moment_it_happens_to_a_way_to_the_ai_all_is_well_in_the_end(story: Story, size: Size) -> None:
    _happens(story, 3 * size.stride)
