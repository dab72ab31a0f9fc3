"""The governor's thresholds, one by one; the simulated machine is in tests/properties/test_governor.py."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import define, field

from bay0.effects.readings import Group, Pressure, Reading, Sensor, Tenant
from bay0.thermal.ladder import Action, Governor, Rung

FRONT, BEHIND, AI = "p://front", "p://behind", "sys://ai"


def felt(percent: float) -> Pressure:
    return Pressure(percent, percent, percent, percent)


@define
class Bench:
    """A governor that is shown one thing for so long."""

    governor: Governor = field(factory=Governor)
    now: float = 100.0
    acted: list[Action] = field(factory=list)
    states: dict[str, str] = field(factory=dict)

    def show(self, seconds: float, cpu: float = 0, memory: float = 0, every: float = 2.0, **more: Any) -> list[Action]:
        acted: list[Action] = []
        for _ in range(int(seconds / every)):
            self.now += every
            group = more.get("group") or Group(FRONT, felt(cpu), felt(memory))
            tenants = more.get("tenants") or (self.tenant(FRONT, focused=True), self.tenant(BEHIND, cpu=0.5, memory=64 << 20))
            sensors = tuple(Sensor("zone", value, 90.0) for value in more.get("celsius", (50.0,)))
            reading = Reading(self.now, (group,), tenants, sensors, more.get("load", 0.5), more.get("available", 0.1))
            for action in self.governor.decide(reading):
                if action.rung is Rung.FROZEN:
                    self.states[action.tenant] = "paused"
                elif action.before is Rung.FROZEN and action.thaw:
                    self.states[action.tenant] = "running"
                acted.append(action)
        self.acted += acted
        return acted

    def tenant(self, name: str, **more: Any) -> Tenant:
        return Tenant(name, "life", **{"state": self.states.get(name, "running"), **more})

    def rungs(self) -> list[Rung]:
        return [action.rung for action in self.acted]


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize(("percent", "acts"), [(25.0, False), (25.1, True)])
def test_processors_are_missed_above_25_percent(bench: Bench, percent: float, acts: bool) -> None:
    assert bool(bench.show(30, cpu=percent)) is acts


@pytest.mark.parametrize(("seconds", "acts"), [(6, False), (8, True)])
def test_processors_must_be_missed_for_5_seconds(bench: Bench, seconds: float, acts: bool) -> None:
    assert bool(bench.show(seconds, cpu=60)) is acts


def test_the_ladder_of_processors_is_half_the_weight_then_50_25_and_10_percent_each_after_a_cool_down(bench: Bench) -> None:
    bench.show(80, cpu=60)
    assert bench.rungs()[:4] == [Rung.HALF_WEIGHT, Rung.HALF, Rung.QUARTER, Rung.TENTH]


@pytest.mark.parametrize(("used", "frozen"), [(0.26, True), (0.2, False)])
def test_below_the_floor_somebody_is_frozen_and_only_if_what_all_of_them_take_is_worth_it(bench: Bench, used: float, frozen: bool) -> None:
    tenants = (bench.tenant(FRONT, focused=True), bench.tenant(BEHIND, cpu=used))
    bench.show(120, cpu=60, tenants=tenants)
    assert (Rung.FROZEN in bench.rungs()) is frozen


def test_who_takes_next_to_nothing_is_left_alone(bench: Bench) -> None:
    assert bench.show(60, cpu=60, tenants=(bench.tenant(FRONT, focused=True), bench.tenant(BEHIND, cpu=0.04))) == []
    assert [note.event for note in bench.governor.notes] == ["nothing left to restrain"], "said once"


def test_an_average_that_only_lags_behind_is_no_reason(bench: Bench) -> None:
    assert bench.show(60, group=Group(FRONT, Pressure(60, 60, 0, 0), Pressure(60, 60, 0, 0))) == []


def test_a_peak_that_the_average_does_not_show_is_no_reason(bench: Bench) -> None:
    assert bench.show(60, group=Group(FRONT, Pressure(0, 0, 100, 100), Pressure(0, 0, 100, 100))) == []


def test_being_held_up_by_ones_own_processor_limit_is_no_reason(bench: Bench) -> None:
    assert bench.show(60, group=Group(FRONT, felt(90), felt(0), throttled=80)) == []
    assert bench.show(60, group=Group(FRONT, felt(90), felt(0), throttled=10)) != []


@pytest.mark.parametrize(("percent", "acts"), [(5.0, False), (5.1, True)])
def test_memory_is_missed_above_5_percent_full(bench: Bench, percent: float, acts: bool) -> None:
    assert bool(bench.show(30, memory=percent)) is acts


@pytest.mark.parametrize(("seconds", "acts"), [(6, False), (8, True)])
def test_memory_must_be_missed_for_three_windows(bench: Bench, seconds: float, acts: bool) -> None:
    assert bool(bench.show(seconds, memory=60)) is acts


@pytest.mark.parametrize(("available", "acts"), [(0.3, False), (0.2, True), (None, True)])
def test_memory_pressure_with_memory_to_spare_is_somebodys_own_limit(bench: Bench, available: float | None, acts: bool) -> None:
    assert bool(bench.show(30, memory=60, available=available)) is acts
    assert bench.show(30, group=Group(FRONT, felt(0), felt(60), at_limit=True)) == []


def test_a_warning_comes_above_10_percent_and_once(bench: Bench) -> None:
    bench.show(30, group=Group(FRONT, felt(0), Pressure(9, 0, 9, 0)))
    assert bench.governor.notes == []
    bench.show(30, group=Group(FRONT, felt(0), Pressure(11, 0, 11, 0)))
    bench.show(30)
    assert [(note.event, note.bad) for note in bench.governor.notes] == [("memory pressure", True), ("memory pressure is over", False)]
    assert bench.acted == []


def test_of_those_behind_the_largest_is_frozen_first_and_who_is_paused_is_stopped_last(bench: Bench) -> None:
    def tenants() -> tuple[Tenant, ...]:
        return (
            bench.tenant(FRONT, focused=True, memory=1 << 30), bench.tenant("p://small", memory=20 << 20),
            bench.tenant("p://large", memory=90 << 20), bench.tenant("p://tiny", memory=1 << 20),
            Tenant("p://asleep", "life", "paused", memory=500 << 20),
        )  # fmt: skip

    for _ in range(60):
        bench.show(2, memory=60, tenants=tenants())
    done = [(action.tenant, action.rung) for action in bench.acted]
    assert done[:3] == [("p://large", Rung.FROZEN), ("p://small", Rung.FROZEN), ("p://asleep", Rung.STOPPED)]
    assert all(name not in (FRONT, "p://tiny") for name, _ in done)


def test_heat_acts_from_5_below_the_trip_and_lets_go_10_below(bench: Bench) -> None:
    assert bench.show(60, celsius=(84.9,)) == []
    assert [action.cause for action in bench.show(2, celsius=(85.0,))] == ["heat"]
    bench.show(200, celsius=(82.0,))
    assert len(bench.acted) == 1, "in between nothing happens"
    assert [action.cause for action in bench.show(200, celsius=(79.0,))] == ["calm", "calm"]


@pytest.mark.parametrize(("available", "acts"), [(0.11, False), (0.09, True), (None, False)])
def test_when_memory_is_scarce_the_ai_goes_before_anybody_is_pressed_and_nobody_else(bench: Bench, available: float | None, acts: bool) -> None:
    others = (bench.tenant(FRONT, focused=True, memory=600 << 20), bench.tenant(BEHIND, memory=64 << 20))
    acted = bench.show(60, available=available, tenants=(*others, bench.tenant(AI, ai=True, memory=200 << 20)))
    assert [(action.tenant, action.rung, action.cause) for action in acted[:1]] == ([(AI, Rung.STOPPED, "scarcity")] if acts else [])
    assert {action.tenant for action in acted} <= {AI}
    assert bench.show(60, available=available, tenants=others) == []


def test_it_returns_when_there_is_room_and_not_while_it_would_only_go_again(bench: Bench) -> None:
    front = bench.tenant(FRONT, focused=True)
    assert bench.show(4, available=0.05, tenants=(front, bench.tenant(AI, ai=True, memory=200 << 20)))
    gone = (front, bench.tenant(AI, ai=True, state="stopped"))
    assert bench.show(300, available=0.15, tenants=gone) == []
    assert [action.rung for action in bench.show(80, available=0.4, tenants=gone)] == [Rung.FREE]


def test_heat_waits_30_seconds_between_two_steps(bench: Bench) -> None:
    assert len(bench.show(62, celsius=(88.0,))) == 3


def test_while_it_is_hot_pressure_on_processors_adds_nothing(bench: Bench) -> None:
    bench.show(62, celsius=(88.0,), cpu=80)
    assert {action.cause for action in bench.acted} == {"heat"}
    assert len(bench.acted) == 3


@pytest.mark.parametrize("celsius", [(None,), (999.0,), (float("nan"),), ()])
def test_no_believable_temperature_is_a_cap_at_half_and_no_more(bench: Bench, celsius: tuple[float | None, ...]) -> None:
    bench.show(4)
    bench.show(600, celsius=celsius)
    assert bench.rungs() == [Rung.HALF]
    assert bench.acted[0].cause == "sensor"


def test_one_sensor_of_two_that_is_broken_is_said_and_the_other_one_is_believed(bench: Bench) -> None:
    bench.show(60, celsius=(50.0,))
    seen = Reading(bench.now + 2, (), (), (Sensor("zone", 50.0, 90.0), Sensor("other", None, 90.0)), 0.5, 0.5)
    for step in range(10):
        bench.governor.decide(Reading(bench.now + 2 * step, (), (), seen.sensors, 0.5, 0.5))
    assert not bench.governor.heat.blind
    assert list(bench.governor.heat.distrusted) == ["other"]


def test_a_sensor_that_stands_still_is_believed_as_long_as_the_load_does_too(bench: Bench) -> None:
    bench.show(1200, celsius=(50.0,), load=0.5)
    assert not bench.governor.heat.blind
    bench.show(10, celsius=(50.0,), load=0.9)
    assert bench.governor.heat.blind


def test_release_takes_a_minute_under_2_5_percent_for_each_rung_and_longer_for_whoever_falls_back(bench: Bench) -> None:
    bench.show(30, cpu=60)
    assert bench.rungs() == [Rung.HALF_WEIGHT, Rung.HALF]
    assert bench.show(300, cpu=3) == []
    assert [action.rung for action in bench.show(58, cpu=2)] == []
    assert [action.rung for action in bench.show(64, cpu=2)] == [Rung.HALF_WEIGHT, Rung.FREE]
    assert [action.rung for action in bench.show(16, cpu=60)] == [Rung.HALF_WEIGHT]
    assert bench.show(116, cpu=2) == []
    assert [action.rung for action in bench.show(10, cpu=2)] == [Rung.FREE]


def test_what_somebody_else_resumed_is_let_go(bench: Bench) -> None:
    bench.show(10, memory=60)
    assert bench.rungs() == [Rung.FROZEN]
    bench.states[BEHIND] = "running"
    lifted = bench.show(2)
    assert [(a.cause, a.rung, a.thaw) for a in lifted] == [("lifted", Rung.FREE, False)]


def test_what_was_frozen_when_another_came_to_the_front_stays_paused(bench: Bench) -> None:
    bench.show(10, memory=60)
    tenants = (bench.tenant(FRONT), bench.tenant(BEHIND, memory=64 << 20), bench.tenant("p://third", focused=True))
    lifted = bench.show(2, tenants=tenants)
    assert [(a.tenant, a.rung, a.thaw) for a in lifted] == [(BEHIND, Rung.FREE, False)]


def test_after_a_gap_nothing_is_taken_for_lasting(bench: Bench) -> None:
    bench.show(4, cpu=60)
    bench.now += 60
    assert bench.show(4, cpu=60) == []


def test_without_pressure_information_nobody_is_restrained_and_who_was_is_released(bench: Bench) -> None:
    bench.show(10, cpu=60)
    assert bench.rungs() == [Rung.HALF_WEIGHT]
    bench.show(120, group=Group(FRONT, None, None))
    assert bench.rungs() == [Rung.HALF_WEIGHT, Rung.FREE]
