"""The governor over a simulated machine: eight shapes of load, an hour each, broken sensors, and whatever Hypothesis thinks of."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from plant import AMBIENT, Load, Plant, calm_from

from bay0.effects.readings import Group, Pressure, Reading, Sensor, Tenant
from bay0.thermal import ladder as thermal
from bay0.thermal.ladder import COOL_DOWN_S, Governor, Rung

HOUR = 3600.0
BEGIN = 1000.0  # the plant's first second
QUIET_AFTER = BEGIN + HOUR - 1500  # a shape ends, so that everything can be released
NOISE = random.Random(20).random

SHAPES: dict[str, Callable[[float], float]] = {
    "nothing": lambda _at: 0.0,
    "a step": lambda at: 2.0 if at > BEGIN + 120 else 0.0,
    "a ramp": lambda at: 2.0 * min(1.0, (at - BEGIN) / 1200),
    "a square wave at the cool-down": lambda at: 2.0 if int((at - BEGIN) / COOL_DOWN_S) % 2 else 0.0,
    "a square wave at twice the cool-down": lambda at: 2.0 if int((at - BEGIN) / COOL_DOWN_S / 2) % 2 else 0.0,
    "a square wave at the release": lambda at: 2.0 if int((at - BEGIN) / thermal.CALM_S) % 2 else 0.0,
    "a saw": lambda at: 2.0 * ((at - BEGIN) % 90) / 90,
    "noise": lambda _at: 2.0 * NOISE(),
}


def plant(wants: Callable[[float], float], until: float = QUIET_AFTER, **more: object) -> Plant:
    """One in front that wants a processor and a half, two behind it and an AI that follow the shape; all end at `until`."""
    loads = [
        Load("p://front", calm_from(until, lambda _at: 1.5), focused=True),
        Load("p://one", calm_from(until, wants)),
        Load("p://two", calm_from(until, lambda at: wants(at) / 2)),
        Load("sys://ai", calm_from(until, wants), ai=True),
    ]
    return Plant(loads, **more)  # type: ignore[arg-type]


def check(machine: Plant) -> None:
    """What holds whatever the load is."""
    times = [at for at, _ in machine.steps()]
    assert all(later - at >= COOL_DOWN_S for at, later in itertools.pairwise(times)), "at most one action each cool-down"
    assert all(action.tenant != "p://front" for _, action in machine.actions), "the one in front is never touched"
    assert all(action.why for _, action in machine.actions), "every action has its cause"
    for _, action in machine.steps():
        down = action.rung > action.before
        assert action.rung <= Rung.STOPPED
        assert down or action.before - action.rung == 1 or action.before is Rung.STOPPED, "released slowly, a rung at a time"


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_an_hour_of(shape: str) -> None:
    machine = plant(SHAPES[shape])
    machine.run(HOUR)
    check(machine)
    assert set(machine.rungs().values()) == {Rung.FREE}, "back to no limit once it is calm"
    assert machine.loads[0].state == "running"
    downs = [action for _, action in machine.steps() if action.rung > action.before]
    assert len(downs) <= 45, "no endless descent: the wait doubles for whoever falls back"
    if shape == "nothing":
        assert machine.actions == []
    if shape in ("a step", "a ramp"):
        assert downs != []
        assert downs[0].tenant == "sys://ai", "the AI is first"


def test_the_one_in_front_gets_its_processors_back_from_a_load_that_stays() -> None:
    machine = plant(SHAPES["a step"], until=BEGIN + HOUR)
    machine.run(900)
    check(machine)
    assert machine.cpu_avg < thermal.CPU_ACT
    assert machine.rungs()["sys://ai"] > Rung.FREE


def test_what_is_throttled_feels_it_and_nobody_acts_on_that() -> None:
    """The throttled ones' own pressure is 90 % all the time; were it the cause, they would end frozen."""
    machine = plant(lambda _at: 2.0, until=BEGIN + HOUR, trip=150.0)
    machine.loads[0].wants = lambda at: 1.5 if at < BEGIN + 180 else 0.0
    machine.run(180)
    assert max(each.full for each in machine.loads) > 0
    machine.run(2400)
    assert set(machine.rungs().values()) == {Rung.FREE}


def test_heat_throttles_who_is_behind_keeps_below_the_trip_and_lets_go() -> None:
    machine = plant(lambda _at: 1.0, trip=85.0)
    machine.loads[0].wants = calm_from(QUIET_AFTER, lambda _at: 0.4)
    machine.run(HOUR)
    check(machine)
    causes = {action.cause for _, action in machine.steps()}
    assert "heat" in causes
    assert max(machine.temperatures[300:]) < machine.trip, "after ten minutes"
    assert set(machine.rungs().values()) == {Rung.FREE}


def test_heat_that_the_one_in_front_makes_is_not_cured_by_touching_it() -> None:
    machine = plant(lambda _at: 0.5, until=BEGIN + HOUR, trip=70.0)
    machine.loads[0].wants = lambda _at: 2.0
    machine.run(HOUR)
    check(machine)
    assert all(each.rung >= Rung.TENTH for each in machine.loads[1:] if each.cpu > thermal.USES)
    assert any(note.event == "nothing left to restrain" for note in machine.governor.notes)


BROKEN: dict[str, Callable[[float, float], float | None]] = {
    "stuck": lambda at, true: true if at < BEGIN + 300 else 55.0,
    "stuck high": lambda at, true: true if at < BEGIN + 300 else 94.0,
    "silent": lambda at, true: true if at < BEGIN + 300 else None,
    "gone": lambda at, true: true if at < BEGIN + 300 else math.inf,
    "nonsense": lambda at, true: true if at < BEGIN + 300 else 5000.0,
    "not a number": lambda at, true: true if at < BEGIN + 300 else float("nan"),
    "absolute zero": lambda at, true: true if at < BEGIN + 300 else -273.0,
}


@pytest.mark.parametrize("how", sorted(BROKEN))
def test_a_sensor_that_is_broken_means_a_fixed_cautious_cap(how: str) -> None:
    machine = plant(lambda at: 1.0 + math.sin(at / 40), temperature=BROKEN[how], trip=120.0)
    machine.loads[0].wants = lambda _at: 0.0
    machine.run(HOUR)
    check(machine)
    assert machine.governor.heat.blind
    assert {name: rung for name, rung in machine.rungs().items() if name != "p://front"} == {
        "p://one": Rung.HALF, "p://two": Rung.HALF, "sys://ai": Rung.HALF
    }  # fmt: skip
    assert any(note.event == "sensor not believed" for note in machine.governor.notes)


def test_a_sensor_that_works_again_lifts_the_cap() -> None:
    machine = plant(lambda at: 0.5 + math.sin(at / 40) / 4, temperature=lambda at, true: None if at < BEGIN + 600 else true, trip=150.0)
    machine.loads[0].wants = lambda _at: 0.0
    machine.run(600)
    assert machine.rungs()["p://one"] is Rung.HALF
    machine.run(HOUR - 600)
    assert set(machine.rungs().values()) == {Rung.FREE}


def test_without_any_sensor_a_guest_is_free_and_real_hardware_is_capped() -> None:
    for virtual in (True, False):
        machine = plant(lambda _at: 0.5, sensor=False, virtual=virtual)
        machine.loads[0].wants = lambda _at: 0.0
        machine.run(600)
        check(machine)
        assert machine.rungs()["p://one"] is (Rung.FREE if virtual else Rung.HALF)


def test_memory_pressure_stops_the_ai_freezes_who_grows_and_spares_the_one_in_front() -> None:
    machine = plant(lambda _at: 0.1)
    for each in machine.loads:
        each.memory = 100 << 20
    machine.loads[1].grows, machine.loads[1].most = 20 << 20, 2 << 30
    machine.run(240)
    check(machine)
    verdicts = [(action.tenant, action.rung) for _, action in machine.steps() if action.cause in ("memory", "scarcity")]
    assert verdicts[:2] == [("sys://ai", Rung.STOPPED), ("p://one", Rung.FROZEN)]
    assert machine.loads[0].state == "running"
    machine.run(HOUR)
    check(machine)
    assert machine.governor.held == {} or all(held.cause == "calm" or held.rung for held in machine.governor.held.values())


def test_a_persona_that_comes_to_the_front_is_set_free_at_once() -> None:
    machine = plant(SHAPES["a step"], until=BEGIN + HOUR)
    machine.run(600)
    held = next(name for name, rung in machine.rungs().items() if rung > Rung.FREE and name.startswith("p://"))
    for each in machine.loads:
        each.focused = each.name == held
    machine.step()
    assert machine.rungs()[held] is Rung.FREE
    assert next(each for each in machine.loads if each.name == held).state == "running"


# ---- whatever comes

percent = st.floats(0, 100)
pressures = st.builds(Pressure, percent, percent, percent, percent)
readings = st.builds(
    lambda *parts: parts,
    st.lists(st.builds(Group, st.just("front"), st.none() | pressures, st.none() | pressures, percent, st.booleans()), max_size=2),
    st.lists(st.sampled_from(["running", "paused", "busy", "gone"]), min_size=3, max_size=3),
    st.sampled_from([None, 0, 1]),
    st.lists(st.floats(0, 4), min_size=3, max_size=3),
    st.lists(st.integers(0, 1 << 40), min_size=3, max_size=3),
    st.lists(st.none() | st.floats(allow_nan=True, allow_infinity=True), max_size=2),
    st.none() | st.floats(0, 1),
    st.none() | st.floats(0, 1),
    st.sampled_from([0.0, 2.0, 2.0, 2.0, 2.5, 6.0, 6.0, 40.0]),
)


@given(st.lists(readings, max_size=120))
def test_whatever_it_is_told_it_never_touches_the_one_in_front_nor_acts_twice_in_a_cool_down(many: list[tuple]) -> None:
    governor, now, last, rungs = Governor(), 5.0, float("-inf"), {}
    for groups, states, focused, cpus, memories, celsius, load, available, step in many:
        now += step
        tenants = tuple(
            Tenant(name, "life", state, number == focused, number == 2, cpus[number], memories[number])
            for number, (name, state) in enumerate(zip(("p://a", "p://b", "sys://ai"), states, strict=True))
            if state != "gone"
        )
        sensors = tuple(Sensor(f"zone{number}", value, 90.0) for number, value in enumerate(celsius))
        there = {tenant.name: tenant for tenant in tenants}
        rungs = {name: rung for name, rung in rungs.items() if name in there}
        steps = 0
        for action in governor.decide(Reading(now, tuple(groups), tenants, sensors, load, available)):
            assert action.tenant in there
            assert action.before is rungs.get(action.tenant, Rung.FREE)
            assert not (there[action.tenant].focused and action.rung > Rung.FREE)
            rungs[action.tenant] = action.rung
            if action.rung is Rung.STOPPED and not there[action.tenant].ai:
                rungs.pop(action.tenant)
            if action.cause != "lifted":
                steps += 1
                assert now - last >= COOL_DOWN_S
                last = now
                assert there[action.tenant].state != "busy"
        assert steps <= 1
        for name, held in governor.held.items():
            assert not there[name].focused
            assert held.rung is rungs[name]
        assert len(governor.notes) <= thermal.NOTES_MAX


@given(st.lists(st.tuples(st.floats(2, 300), st.floats(0, 4), st.floats(0, 4), st.floats(0, 2)), min_size=1, max_size=12), st.floats(60, 120))
def test_any_load_ends_free_when_it_has_been_calm_for_long_enough(pieces: list[tuple[float, float, float, float]], trip: float) -> None:
    ends, total = [], BEGIN
    for seconds, *wants in pieces:
        total += seconds
        ends.append((total, wants))

    def wants(number: int) -> Callable[[float], float]:
        return lambda at: next((values[number] for end, values in ends if at < end), 0.0)

    machine = Plant([Load("p://front", wants(0), focused=True), Load("p://one", wants(1)), Load("sys://ai", wants(2), ai=True)], trip=trip)
    machine.run(total - BEGIN)
    check(machine)
    machine.run(2 * HOUR)
    check(machine)
    assert set(machine.rungs().values()) == {Rung.FREE}
    assert abs(machine.celsius - AMBIENT) < 1


# ---- a suite that was never red proves nothing


def _violated(machine: Plant) -> bool:
    try:
        check(machine)
    except AssertionError:
        return True
    return False


def test_a_governor_without_a_cool_down_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thermal, "COOL_DOWN_S", 0.0)
    assert any(_violated(plant(SHAPES[shape]).run(HOUR)) for shape in SHAPES)


def test_a_governor_that_feels_the_throttled_ones_pressure_is_caught() -> None:
    class Feeling(Plant):
        def reading(self, cpu: float, stall: float, load: float) -> Reading:
            seen = super().reading(cpu, stall, load)
            felt = max(each.full for each in self.loads)
            return evolve(seen, groups=(*seen.groups, Group("throttled", Pressure(felt, felt, felt, felt))))

    loads = plant(lambda _at: 2.0, until=BEGIN + HOUR).loads
    loads[0].wants = lambda at: 1.5 if at < BEGIN + 180 else 0.0
    machine = Feeling(loads)
    machine.run(3000)
    assert set(machine.rungs().values()) != {Rung.FREE}, "it throttles itself for ever"


def test_a_governor_that_does_not_spare_the_one_in_front_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(seen: Reading, *states: str) -> list[Tenant]:
        return [tenant for tenant in seen.tenants if tenant.state in states]

    monkeypatch.setattr(thermal, "_behind", careless)
    assert any(_violated(plant(SHAPES[shape]).run(HOUR)) for shape in SHAPES)


def test_a_governor_that_takes_silence_for_no_limit_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thermal.Governor, "_for_caution", lambda _self, _seen: None)
    machine = plant(lambda _at: 0.5, sensor=False)
    machine.loads[0].wants = lambda _at: 0.0
    machine.run(600)
    assert machine.rungs()["p://one"] is Rung.FREE

