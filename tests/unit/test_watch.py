"""A change of a cgroup's events is told, in a later turn, to whoever asked, and to nobody else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from kit import HandClock, in_child, no_descriptor_left, until

from bay0.effects.watch import CgroupWatch
from bay0.pid1.reactor import Reactor


class Bench:
    def __init__(self, top: Path) -> None:
        self.top, self.reactor, self.told = top, Reactor(), []
        self.watch = CgroupWatch(self.reactor)

    def group(self, name: str) -> str:
        os.makedirs(self.top / name)
        self.change(name, "populated 1\n")
        return str(self.top / name)

    def change(self, name: str, text: str) -> None:
        (self.top / name / "cgroup.events").write_text(text)

    def add(self, name: str) -> bool:
        return self.watch.add(str(self.top / name), lambda: self.told.append(name))

    def until_told(self, count: int) -> list[str]:
        until(lambda: len(self.told) >= count, f"{count} calls", step=lambda: self.reactor.turn(0.05))
        return self.told


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_whoever_watches_is_told_of_a_change_and_others_are_not(bench: Bench) -> None:
    for name in ("a", "b"):
        bench.group(name)
        assert bench.add(name)
    bench.change("a", "populated 0\n")
    assert set(bench.until_told(1)) == {"a"}


def test_one_that_is_not_there_cannot_be_watched(bench: Bench) -> None:
    assert not bench.add("none")


def test_after_it_is_given_up_nothing_is_told(bench: Bench) -> None:
    first, _ = bench.group("a"), bench.group("b")
    bench.add("a")
    bench.add("b")
    bench.watch.remove(first)
    bench.watch.remove(first)
    bench.change("a", "populated 0\n")
    bench.change("b", "populated 0\n")
    assert set(bench.until_told(1)) == {"b"}


def test_one_that_has_vanished_may_be_given_up_too(bench: Bench) -> None:
    path = bench.group("a")
    bench.add("a")
    os.unlink(bench.top / "a" / "cgroup.events")
    for _ in range(3):
        bench.reactor.turn(0.02)
    bench.watch.remove(path)


def test_many_changes_between_two_turns_are_one_call(bench: Bench) -> None:
    bench.group("a")
    bench.add("a")
    for number in range(50):
        bench.change("a", f"populated {number % 2}\n")
    bench.until_told(1)
    bench.reactor.turn(0)
    assert len(bench.told) == 1


@in_child
def test_without_a_descriptor_to_watch_with_it_is_looked_at_all_the_same_and_watched_later(tmp_path: Path) -> None:
    clock = HandClock()
    told: list[str] = []
    watch = CgroupWatch(clock.reactor)
    (tmp_path / "cgroup.events").write_text("populated 1\n")
    with no_descriptor_left():
        assert watch.add(str(tmp_path), lambda: told.append("look"))
        clock.wait(1.5)
        clock.wait(1.5)
    assert told == ["look", "look"]
    clock.wait(1.5)
    assert told == ["look"] * 3, "it is watched now, and looked at for what happened before"
    clock.wait(10)
    assert told == ["look"] * 3
    (tmp_path / "cgroup.events").write_text("populated 0\n")
    clock.wait()
    assert len(told) > 3


@in_child
def test_one_that_could_not_be_watched_and_is_given_up_is_not_looked_at(tmp_path: Path) -> None:
    clock = HandClock()
    told: list[str] = []
    watch = CgroupWatch(clock.reactor)
    (tmp_path / "cgroup.events").touch()
    with no_descriptor_left():
        watch.add(str(tmp_path), lambda: told.append("look"))
    watch.remove(str(tmp_path))
    clock.wait(5)
    assert told == []
