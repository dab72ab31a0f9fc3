"""The line of those who want to begin: in their order, a few at a time, and nobody who is not wanted any more."""

from __future__ import annotations

from attrs import define, field
from kit import Timers

from bay0.personas.line import GUESS_S, Line, Over


@define(eq=False)
class Bench:
    timers: Timers = field(factory=Timers)
    began: list[str] = field(factory=list)
    turns: dict[str, Over] = field(factory=dict)
    unwanted: set[str] = field(factory=set)
    line: Line = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.line = Line(self.timers.clock, self.timers.call_soon, 2)

    def stand(self, name: str) -> bool:
        def begin(turn: Over) -> None:
            self.began.append(name)
            self.turns[name] = turn

        return self.line.stand(name, lambda: name not in self.unwanted, begin)

    def end(self, name: str) -> None:
        self.turns.pop(name)()
        self.timers.advance()


def test_each_has_its_turn_in_the_order_it_asked_and_two_at_a_time() -> None:
    bench = Bench()
    assert [bench.stand(name) for name in "abcd"] == [False, False, True, True]
    assert bench.began == ["a", "b"]
    bench.end("b")
    assert bench.began == ["a", "b", "c"]
    bench.end("a")
    assert bench.began == ["a", "b", "c", "d"]


def test_who_leaves_has_no_turn_and_who_has_begun_cannot_leave() -> None:
    bench = Bench()
    for name in "abcd":
        bench.stand(name)
    assert bench.line.leave("c")
    assert not bench.line.leave("c")
    assert not bench.line.leave("a")
    bench.end("a")
    assert bench.began == ["a", "b", "d"]


def test_who_is_not_wanted_any_more_when_the_turn_comes_holds_up_nobody() -> None:
    bench = Bench()
    for name in "abcd":
        bench.stand(name)
    bench.unwanted.add("c")
    bench.end("a")
    assert bench.began == ["a", "b", "d"]
    assert bench.line.waiting == 0


def test_who_asks_again_stands_at_the_end() -> None:
    bench = Bench()
    for name in "abcdc":
        bench.stand(name)
    bench.end("a")
    assert bench.began == ["a", "b", "d"]


def test_a_turn_is_given_back_once() -> None:
    bench = Bench()
    for name in "abcde":
        bench.stand(name)
    for _ in range(2):
        bench.turns["a"]()
    bench.timers.advance()
    assert bench.began == ["a", "b", "c"], "the second time gave nobody a turn"


def test_thousands_that_end_as_they_begin_are_no_deep_recursion() -> None:
    timers, ended = Timers(), []
    line = Line(timers.clock, timers.call_soon, 1)

    def begin(turn: Over) -> None:
        ended.append(turn)
        turn()

    for number in range(5000):
        line.stand(str(number), lambda: True, begin)
    timers.advance()
    assert len(ended) == 5000


def test_how_long_one_would_wait_follows_from_the_last_turns() -> None:
    bench = Bench()
    for name in "abcdef":
        bench.stand(name)
    assert bench.line.wait_s() == GUESS_S * 2, "four wait, two at a time"
    for name in "abc":
        bench.timers.advance(10)
        bench.end(name)
    assert GUESS_S < bench.line.pace_s < 30
    assert bench.line.wait_s() == 0, "one waits: it is the next"
