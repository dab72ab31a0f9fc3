"""One thread, one event at a time: order, timers, descriptors that close meanwhile, and nobody starves."""

from __future__ import annotations

import os
import socket

import pytest
from kit import Timers

from bay0.pid1.reactor import READ, WRITE, Reactor


@pytest.fixture
def reactor() -> Reactor:
    return Reactor(turn_s=3600.0)  # a slow machine cuts no turn short; the tests of that have a clock of their own


def test_calls_are_made_in_the_order_they_were_queued(reactor: Reactor) -> None:
    seen: list[int] = []
    for number in range(5):
        reactor.call_soon(lambda number=number: seen.append(number))
    reactor.turn(0)
    assert seen == [0, 1, 2, 3, 4]


def test_what_a_call_queues_waits_for_the_next_turn(reactor: Reactor) -> None:
    seen: list[str] = []
    reactor.call_soon(lambda: reactor.call_soon(lambda: seen.append("later")))
    reactor.turn(0)
    assert seen == []
    reactor.turn(0)
    assert seen == ["later"]


def test_timers_fire_in_the_order_they_are_due() -> None:
    clock = Timers()
    reactor = Reactor(clock=clock.clock)
    seen: list[str] = []
    for name, seconds in (("c", 3), ("a", 1), ("b", 2), ("a too", 1)):
        reactor.call_later(seconds, lambda name=name: seen.append(name))
    reactor.turn(0)
    assert seen == []
    clock.now = 2.5
    reactor.turn(0)
    assert seen == ["a", "a too", "b"]
    clock.now = 3.0
    reactor.turn(0)
    assert seen[-1] == "c"


def test_a_cancelled_timer_does_not_fire_and_may_be_cancelled_twice() -> None:
    clock = Timers()
    reactor = Reactor(clock=clock.clock)
    seen: list[str] = []
    timer = reactor.call_later(1, lambda: seen.append("no"))
    timer.cancel()
    timer.cancel()
    clock.now = 5
    reactor.turn(0)
    assert seen == []


def test_a_timer_may_be_cancelled_in_the_turn_in_which_it_is_due() -> None:
    clock = Timers()
    reactor = Reactor(clock=clock.clock)
    seen: list[str] = []
    reactor.call_later(1, lambda: second.cancel())
    second = reactor.call_later(1, lambda: seen.append("no"))
    clock.now = 2
    reactor.turn(0)
    assert seen == []


def test_a_timer_fires_once() -> None:
    clock = Timers()
    reactor = Reactor(clock=clock.clock)
    seen: list[int] = []
    timer = reactor.call_later(1, lambda: seen.append(1))
    clock.now = 2
    reactor.turn(0)
    reactor.turn(0)
    timer.cancel()
    assert seen == [1]


def test_the_poll_waits_for_the_next_timer_and_not_longer(reactor: Reactor) -> None:
    seen: list[int] = []
    reactor.call_later(0.02, lambda: seen.append(1))
    began = reactor.clock()
    while not seen:
        reactor.turn()
    assert reactor.clock() - began >= 0.02
    assert reactor.turns <= 3, "it waited in poll, it did not spin"


def test_cancelled_timers_do_not_wake_the_poll(reactor: Reactor) -> None:
    seen: list[int] = []
    for _ in range(100):
        reactor.call_later(0.001, lambda: None).cancel()
    reactor.call_later(0.05, lambda: seen.append(1))
    while not seen:
        reactor.turn()
    assert reactor.turns <= 3


def test_a_descriptor_that_is_ready_is_called(reactor: Reactor) -> None:
    read, write = os.pipe()
    seen: list[bytes] = []
    reactor.watch(read, READ, lambda _ready: seen.append(os.read(read, 10)))
    reactor.turn(0)
    os.write(write, b"hello")
    reactor.turn(1)
    assert seen == [b"hello"]


def test_watching_again_replaces_the_first_watch(reactor: Reactor) -> None:
    read, write = os.pipe()
    seen: list[str] = []
    reactor.watch(write, READ, lambda _: seen.append("first"))
    reactor.watch(write, WRITE, lambda _: seen.append("second"))
    reactor.turn(0)
    assert seen == ["second"]
    os.close(read)


def test_forgetting_a_descriptor_is_harmless_when_it_is_not_watched(reactor: Reactor) -> None:
    read, _write = os.pipe()
    reactor.unwatch(read)
    reactor.watch(read, READ, lambda _: None)
    reactor.unwatch(read)
    reactor.unwatch(read)


def test_a_descriptor_closed_during_the_turn_is_not_called_and_neither_is_its_successor(reactor: Reactor) -> None:
    pairs = [os.pipe() for _ in range(2)]
    seen: list[str] = []

    def close_the_other(own: int, other: int) -> None:
        seen.append(f"read {own}")
        reactor.unwatch(own)
        reactor.unwatch(other)
        os.close(other)
        os.dup2(own, other)  # a new descriptor has the number of the closed one
        reactor.watch(other, READ, lambda _: seen.append("successor"))

    (one, _), (two, _) = pairs
    reactor.watch(one, READ, lambda _: close_the_other(one, two))
    reactor.watch(two, READ, lambda _: close_the_other(two, one))
    for _, write in pairs:
        os.write(write, b"x")
    reactor.turn(1)
    assert len(seen) == 1
    assert seen[0].startswith("read")
    reactor.turn(1)
    assert seen[1:] == ["successor"], "in the next turn it is called, for its own readiness"


def test_a_call_that_queues_itself_for_ever_does_not_starve_descriptors_or_timers(reactor: Reactor) -> None:
    read, write = os.pipe()
    seen: list[str] = []

    def again() -> None:
        reactor.call_soon(again)

    again()
    reactor.watch(read, READ, lambda _: seen.append(os.read(read, 1).decode()))
    reactor.call_later(0.0, lambda: seen.append("timer"))
    os.write(write, b"x")
    reactor.turn()
    reactor.turn()
    assert set(seen) == {"x", "timer"}


def test_a_timer_that_renews_itself_at_once_does_not_starve_the_rest() -> None:
    clock = Timers()
    reactor = Reactor(clock=clock.clock)
    count = []

    def again() -> None:
        count.append(1)
        reactor.call_later(0, again)

    again()
    reactor.turn(0)
    assert len(count) == 2, "once a turn"


def test_a_turn_that_has_had_its_time_leaves_the_rest_to_the_next_in_its_order() -> None:
    clock = Timers()
    reactor = Reactor(clock=clock.clock)
    seen: list[int] = []

    def slow(number: int) -> None:
        clock.now += 0.006
        seen.append(number)

    for number in range(5):
        reactor.call_soon(lambda number=number: slow(number))
    reactor.turn(0)
    assert seen == [0, 1]
    reactor.call_soon(lambda: slow(5))
    for _ in range(2):
        reactor.turn(0)
    assert seen == [0, 1, 2, 3, 4, 5]
    assert reactor.longest_turn_s == pytest.approx(0.012)


def test_a_descriptor_whose_call_waits_for_the_next_turn_is_called_once(reactor: Reactor) -> None:
    reactor.turn_s = 0.0
    read, write = os.pipe()
    os.set_blocking(read, False)
    seen: list[bytes] = []
    reactor.watch(read, READ, lambda _ready: seen.append(os.read(read, 10)))
    reactor.call_soon(lambda: None)
    os.write(write, b"hello")
    for _ in range(3):  # it is ready at each poll until it is read
        reactor.turn(0)
    os.write(write, b"again")
    for _ in range(2):
        reactor.turn(0)
    assert seen == [b"hello", b"again"]


def test_a_descriptor_that_is_not_watched_for_reading_any_more_is_not_called_for_it(reactor: Reactor) -> None:
    reactor.turn_s = 0.0
    ours, theirs = socket.socketpair()
    seen: list[int] = []
    called = seen.append
    reactor.watch(ours.fileno(), READ | WRITE, called)
    reactor.call_soon(lambda: reactor.watch(ours.fileno(), WRITE, called))
    theirs.send(b"x")
    for _ in range(2):
        reactor.turn(0)
    assert seen == [WRITE]


def test_the_longest_turn_is_measured() -> None:
    clock = Timers()
    reactor = Reactor(clock=clock.clock)

    def slow() -> None:
        clock.now += 0.25

    reactor.call_soon(slow)
    reactor.turn(0)
    reactor.call_soon(lambda: None)
    reactor.turn(0)
    assert (reactor.longest_turn_s, reactor.turns) == (0.25, 2)


def test_waiting_in_poll_is_not_part_of_a_turn(reactor: Reactor) -> None:
    reactor.turn(0.1)
    assert reactor.longest_turn_s < 0.09


def test_after_each_turn_its_followers_are_called(reactor: Reactor) -> None:
    seen: list[int] = []
    reactor.after_turn.append(lambda: seen.append(reactor.turns))
    reactor.turn(0)
    reactor.turn(0)
    assert seen == [1, 2]


def test_stop_leaves_the_loop_after_the_turn(reactor: Reactor) -> None:
    seen: list[str] = []
    reactor.call_soon(reactor.stop)
    reactor.call_soon(lambda: seen.append("same turn"))
    reactor.run()
    assert seen == ["same turn"]


def test_what_a_call_raises_leaves_the_loop(reactor: Reactor) -> None:
    def fail() -> None:
        raise AssertionError("a defect")

    reactor.call_soon(fail)
    with pytest.raises(AssertionError, match="a defect"):
        reactor.run()
