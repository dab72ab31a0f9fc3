"""podman's storage is damaged while the spine runs: which rungs are climbed, in which order, and what those who run notice of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field
from kit import Log, Timers

from bay0.base.bounds import Bounds
from bay0.pid1 import flow
from bay0.podman.calls import Image, Outcome, Verdict
from bay0.reconcile.mending import AGAIN_S, Mending
from bay0.state.link import Answer

DAMAGED = Verdict(Outcome.STORAGE, "layer not known")
WELL = Verdict(Outcome.OK, "", ())


@define(eq=False)
class Bench:
    """A podman whose storage takes so many rungs to be mended, and what was asked of it and of the state worker."""

    rungs: int
    runs: bool = False
    timers: Timers = field(factory=Timers)
    log: Log = field(factory=Log)
    asked: list[str] = field(factory=list)
    healthy: bool = True
    mended: list[float] = field(factory=list)
    mending: Mending = field(init=False)

    tell: Callable[[str], None] = print  # that a call has found damage

    def on_damage(self, call: Callable[[str], None]) -> None:
        self.tell = call

    def __attrs_post_init__(self) -> None:
        here: Any = self
        done = lambda: self.mended.append(self.timers.now)
        self.mending = Mending(here.timers, Bounds(), here.log, here, here, lambda: self.runs, done)

    def _later(self, what: str, done: Callable[[Any], None], answer: Callable[[], Any]) -> None:
        self.asked.append(what)
        self.timers.call_later(0.1, lambda: done(answer()))

    def list(self, done: Callable[[Verdict], None], *, first: bool = False) -> None:
        self._later("first list" if first else "list", done, lambda: DAMAGED if self.rungs else WELL)

    def image_list(self, done: Callable[[Verdict], None]) -> None:
        self._later("images", done, lambda: Verdict(Outcome.OK, "", (Image("localhost/a:1", "0", 1),)))

    def check(self, done: Callable[[Verdict], None], *, repair: bool = False, force: bool = True) -> None:
        def repaired() -> Verdict:
            self.rungs = max(0, self.rungs - 1) if self.rungs < 2 else 2
            return WELL

        self._later(f"repair{' by force' if force else ''}" if repair else "check", done, repaired)

    def ask(self, op: str, _bound_s: float, done: Callable[[Answer], None]) -> None:
        def aside() -> Answer:
            self.rungs = 0
            return Answer(value=True)

        self._later(op, done, aside)

    def while_it_rests(self, act: Callable[[Any], None], done: Callable[[Any], None]) -> None:
        self.asked.append("podman rests")
        act(done)

    def hears(self) -> list[str]:
        self.mending.noticed("layer not known")
        self.timers.advance(5)
        return self.asked


def test_damage_that_podman_can_repair_is_repaired_while_it_runs_and_ends_no_container() -> None:
    bench = Bench(rungs=1, runs=True)
    assert bench.hears() == ["list", "repair", "list", "images"]
    assert bench.mended
    assert bench.mending.images == {"localhost/a:1"}


def test_what_is_beyond_repair_waits_for_those_who_run_and_is_set_aside_then() -> None:
    bench = Bench(rungs=2, runs=True)
    assert bench.hears() == ["list", "repair", "list"]
    assert not bench.mended
    assert bench.log.of("podman's storage is beyond repair: it is set aside when no persona runs any more; those that run go on")
    bench.asked.clear()
    bench.timers.advance(5 * AGAIN_S)
    assert bench.asked == [], "while they run nothing is asked"
    bench.runs = False
    bench.timers.advance(AGAIN_S + 5)
    assert bench.asked == ["list", "repair by force", "list", "podman rests", "containers_aside", "list", "images"]
    assert bench.mended


def test_damage_that_is_found_soon_after_a_look_is_looked_into_once_its_time_has_come() -> None:
    """The last call that a persona's end makes may be the one: nothing else would ask again."""
    bench = Bench(rungs=1)
    bench.hears()
    assert len(bench.mended) == 1
    bench.rungs = 1
    bench.timers.advance(AGAIN_S / 4)
    for _ in range(5):
        bench.mending.noticed("layer not known")
    assert len(bench.mended) == 1, "not at once: podman may say so again and again"
    bench.timers.advance(AGAIN_S)
    assert len(bench.mended) == 2


def test_damage_that_many_calls_find_is_mended_once() -> None:
    bench = Bench(rungs=1)
    for _ in range(5):
        bench.mending.noticed("layer not known")
    assert bench.hears().count("repair by force") == 1


def test_what_a_listing_does_not_see_is_left_to_who_found_it() -> None:
    bench = Bench(rungs=0)
    assert bench.hears() == ["list", "images"]


def test_nothing_is_mended_on_a_disk_that_is_not_well() -> None:
    bench = Bench(rungs=1)
    bench.healthy = False
    assert bench.hears() == []


def test_the_damage_that_a_boots_first_listing_finds_is_mended_once() -> None:
    """That listing's failure is noticed like any other, and the storage was set aside under podman's feet."""
    bench, ended = Bench(rungs=2), []
    flow.run(bench.mending.first_look(), ended.append)
    bench.tell("layer not known")
    bench.timers.advance(5)
    rungs = ["repair by force", "list", "podman rests", "containers_aside", "list", "images"]
    assert bench.asked == ["first list", *rungs]
    assert [verdict.ok for verdict in ended] == [True]
    bench.rungs = 1
    assert "repair by force" in bench.hears()[len(rungs) + 1 :], "the next damage is mended as well"
