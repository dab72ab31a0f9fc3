"""A text for whoever pastes: written by a real command to what he handed over."""

from __future__ import annotations

import os

from kit import World, descriptors_kept, in_child

from bay0.screen import giving
from bay0.screen.giving import Giver

TEXT = b"what was copied " * 4096  # 64 KiB: as much as a pipe holds


@in_child
def test_a_text_is_written_whole_and_the_pipe_is_closed_behind_it() -> None:
    world = World()
    with descriptors_kept():
        read, write = os.pipe()
        Giver(world.spawner, world.reactor, world.log).give(TEXT, write)
        found = b""
        while data := os.read(read, 1 << 20):  # its end comes once the command has ended
            found += data
        os.close(read)
        world.until(lambda: not world.spawner.running)
        assert found == TEXT


@in_child
def test_one_who_does_not_read_holds_up_nobody_and_who_asks_without_end_has_nothing() -> None:
    giving.WRITE_S, giving.EVERY_S = 0.5, 0.0
    world = World()
    giver = Giver(world.spawner, world.reactor, world.log)
    ends = [os.pipe() for _ in range(giving.AT_ONCE + 2)]
    for _read, write in ends:
        giver.give(TEXT * 2, write)
    assert world.spawner.running == giving.AT_ONCE
    for read, _write in ends[giving.AT_ONCE :]:
        assert os.read(read, 1) == b"", "closed at once"
    world.until(lambda: not world.spawner.running, "the commands are ended at their deadline")
    read, write = os.pipe()
    giver.give(b"again", write)
    assert os.read(read, 100) == b"again"


@in_child
def test_questions_that_follow_each_other_too_fast_are_not_all_answered() -> None:
    giving.EVERY_S = 60.0
    world = World()
    giver = Giver(world.spawner, world.reactor, world.log)
    for expected in (b"text", b""):
        read, write = os.pipe()
        giver.give(b"text", write)
        assert os.read(read, 100) == expected
