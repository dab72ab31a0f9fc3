"""A screen in the modelled world: the real bay0/screen against a compositor with vices (compositor.py)."""

from __future__ import annotations

import pytest
from conftest import Size, has, sample
from scenario import live, recover
from screenstories import SCREEN_LIFE, SCREEN_STORIES
from stories import MOMENTS, Story
from world import World

from bay0.pid1.reactor import TURN_S

KEPT = (0.0, 1.0, 0.6)  # of the bytes written since the last sync
STRIDE = 4  # of the sample's seams, once more: this life has many


def test_a_life_with_a_screen_is_sound() -> None:
    with World() as world:
        assert not live(world, SCREEN_LIFE)
        assert world.checks.screen.frames > 5
        assert not recover(world)
        assert world.checks.count["screens"]
        print(f"{world.seams} seams, {world.checks.screen.frames} frames")


def test_a_crash_at_any_seam_of_a_life_with_a_screen_leaves_nothing_that_the_next_boot_does_not_put_right(
    size: Size,
) -> None:
    with World() as world:
        live(world, SCREEN_LIFE)
        seams = world.seams
    stride = 1 if size.whole else STRIDE * size.seams
    points = [at for at in range(1, seams) if has(at, stride)]
    for at in points:
        with World() as world:
            assert live(world, SCREEN_LIFE, at, KEPT[at % 3])
            assert not recover(world)
    print(f"{len(points)} crashes at {seams} seams")
    assert len(points) >= seams // stride - 1


@pytest.mark.parametrize("story", SCREEN_STORIES, ids=lambda story: story.__name__)
def test_at_whatever_moment_it_happens_to_the_screen_all_is_well_in_the_end(story: Story, size: Size) -> None:
    for count, moment in enumerate(sample(MOMENTS, size.stride)):
        with World() as world:
            world.turn_s = (
                0.0 if count % 2 else TURN_S
            )  # the host may be so slow that a turn has time for one call
            story(world, moment)
            world.cut(KEPT[count % 3])
            assert not recover(world)
