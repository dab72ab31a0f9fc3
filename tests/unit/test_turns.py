"""What is kept of PID 1's turns."""

from __future__ import annotations

import time
from functools import partial

import pytest

from bay0.pid1.reactor import Reactor
from bay0.pid1.turns import SPAN_S, SPANS_MAX, Turns, called


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reactor(clock: Clock) -> Reactor:
    return Reactor(clock=clock, usage=lambda: (0.0, 0))


def slow(clock: Clock, seconds: float) -> None:
    clock.now += seconds


def test_an_earlier_long_turn_is_not_in_a_later_time(clock: Clock, reactor: Reactor) -> None:
    reactor.call_soon(partial(slow, clock, 3.0))
    reactor.turn(0)
    clock.now += 2 * SPAN_S
    mark = clock.now
    reactor.call_soon(partial(slow, clock, 0.25))
    reactor.turn(0)
    assert reactor.recent.since(0)["longest_ms"] == 3000
    assert reactor.recent.since(mark)["longest_ms"] == 250
    assert reactor.longest_turn_s == 3.0


def test_the_call_that_took_most_of_a_turn_is_named(clock: Clock, reactor: Reactor) -> None:
    reactor.call_soon(lambda: None)
    reactor.call_later(0, partial(slow, clock, 0.5))
    reactor.turn(0)
    assert reactor.recent.since(0)["longest"] == "slow"


def test_what_is_called_after_each_turn_is_part_of_it(clock: Clock, reactor: Reactor) -> None:
    reactor.after_turn.append(partial(slow, clock, 0.5))
    reactor.turn(0)
    assert reactor.recent.since(0)["longest_ms"] == 500


def test_work_is_told_from_waiting(clock: Clock) -> None:
    work = iter([(1.0, 7), (1.02, 9)])
    reactor = Reactor(clock=clock, usage=lambda: next(work))
    reactor.call_soon(partial(slow, clock, 0.5))
    reactor.turn(0)
    found = reactor.recent.since(0)
    assert (found["longest_ms"], found["longest_cpu_ms"], found["longest_sleeps"]) == (500, 20, 2)


def test_a_turn_that_sleeps_is_seen_to() -> None:
    reactor = Reactor()
    reactor.call_soon(partial(time.sleep, 0.05))
    reactor.turn(0)
    found = reactor.recent.since(0)
    assert (found["longest"], found["longest_sleeps"] >= 1, found["longest_cpu_ms"] < 50) == ("sleep", True, True)


def test_watching_for_long_takes_no_more_room() -> None:
    turns = Turns()
    for n in range(10 * SPANS_MAX):
        turns.took(n * SPAN_S, 0.001, (0.001, 0), None)
    assert len(turns.spans) == SPANS_MAX


def test_no_turn_is_said_as_none() -> None:
    assert Turns().since(0)["turns"] == 0


def test_a_call_is_named_by_where_it_stands_in_the_source() -> None:
    assert called(partial(partial(slow, Clock()), 1.0)) == "slow"
    assert called(lambda: None) == "test_a_call_is_named_by_where_it_stands_in_the_source"
