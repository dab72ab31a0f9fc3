"""Many containers are cleared by two calls of podman, and nobody is told "gone" who is not."""

from __future__ import annotations

import pytest
from kit import Timers
from personakit import Podman, verdict

from bay0.podman.calls import Container
from bay0.reconcile.clearing import Cleared, Clearing


class Bench:
    def __init__(self) -> None:
        self.timers = Timers()
        self.podman = Podman(self.timers)
        self.clearing = Clearing(self.timers, self.podman)  # type: ignore[arg-type]
        self.told: dict[str, list[Cleared]] = {}

    def clear(self, *names: str) -> Bench:
        for name in names:
            self.clearing.clear(name, self.told.setdefault(name, []).append)
        return self

    def wait(self, seconds: float = 10) -> dict[str, bool]:
        self.timers.advance(seconds)
        return {name: told[-1].gone for name, told in self.told.items() if told}


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.podman.there = {"p__a": ("running", 0), "p__b": ("exited", 3), "web": ("running", 0)}
    return made


def test_all_that_is_asked_in_one_turn_is_one_listing_and_one_removal(bench: Bench) -> None:
    assert bench.clear("p__a", "p__b", "p__c").wait() == {"p__a": True, "p__b": True, "p__c": True}
    assert bench.podman.verbs() == ["list", "remove"]
    assert bench.podman.there == {"web": ("running", 0)}


def test_the_exit_status_is_that_of_one_that_had_ended(bench: Bench) -> None:
    bench.clear("p__a", "p__b").wait()
    assert (bench.told["p__a"][0].status, bench.told["p__b"][0].status) == (None, 3)


def test_a_name_that_is_not_listed_is_removed_all_the_same(bench: Bench) -> None:
    bench.clear("p__c").wait()
    assert bench.podman.asked[-1] == ("remove", ("p__c",), 0)


def test_what_comes_while_a_round_is_under_way_waits_for_the_next(bench: Bench) -> None:
    bench.clear("p__a")
    bench.timers.advance(0.05)
    assert bench.clear("p__b").wait() == {"p__a": True, "p__b": True}
    assert bench.podman.verbs() == ["list", "remove", "list", "remove"]


def test_a_listing_that_fails_leaves_everybody_unsure(bench: Bench) -> None:
    bench.podman.answers["list"] = [verdict("timed_out")]
    assert bench.clear("p__a", "p__c").wait() == {"p__a": False, "p__c": False}
    assert bench.podman.verbs() == ["list"]


def test_a_removal_that_fails_is_looked_into(bench: Bench) -> None:
    bench.podman.answers["remove"] = [verdict("fault", "internal libpod error")]
    assert bench.clear("p__a", "p__c").wait() == {"p__a": False, "p__c": True}
    assert bench.told["p__a"][0].why == "internal libpod error"


def test_a_removal_that_fails_with_a_second_listing_that_fails_leaves_everybody_unsure(bench: Bench) -> None:
    bench.podman.answers["remove"] = [verdict("fault")]
    listing: list[object] = []
    bench.podman.list(listing.append)
    bench.timers.advance(1)
    bench.podman.answers["list"] = [listing[0], verdict("timed_out")]  # type: ignore[list-item]
    assert bench.clear("p__a", "p__c").wait() == {"p__a": False, "p__c": False}


def test_a_boots_own_listing_is_not_made_twice_but_serves_one_round_only(bench: Bench) -> None:
    bench.clearing.seed([Container("0" * 64, ("p__b",), "exited", 3, 0, "", {})])
    assert bench.clear("p__b").wait() == {"p__b": True}
    assert bench.podman.verbs() == ["remove"]
    bench.clear("p__a").wait()
    assert bench.podman.verbs() == ["remove", "list", "remove"]


def test_a_boot_waits_for_all_that_it_clears_together_but_not_for_ever(bench: Bench) -> None:
    bench.clearing.gather(["p__a", "p__b"], 5)
    bench.clear("p__a").wait(4)
    assert bench.podman.asked == []
    bench.clear("p__b").wait(0.5)
    assert bench.podman.verbs()[:1] == ["list"]
    bench.wait()
    bench.clearing.gather(["p__c", "p__never"], 5)
    bench.clear("p__c").wait(4)
    assert bench.podman.verbs() == ["list", "remove"]
    assert bench.wait(2)["p__c"]


def test_a_boots_own_listing_serves_as_long_as_it_gathers(bench: Bench) -> None:
    bench.clearing.seed([Container("0" * 64, ("p__b",), "exited", 3, 0, "", {})])
    bench.clearing.gather(["p__b"], 30)
    bench.wait(29)
    bench.clear("p__b").wait()
    assert bench.podman.verbs() == ["remove"]


def test_who_asks_again_for_the_same_container_is_the_one_who_is_told(bench: Bench) -> None:
    first: list[Cleared] = []
    bench.clearing.clear("p__a", first.append)
    bench.clear("p__a").wait()
    assert (len(first), len(bench.told["p__a"])) == (0, 1)
