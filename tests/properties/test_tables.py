"""Every machine there is, walked completely: CONVERGE always ends at rest, whatever the effects do and wherever a crash cuts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from types import SimpleNamespace

import pytest
from conftest import Size

from bay0.machines import MACHINES
from bay0.machines.engine import Acceptance, Engine
from bay0.machines.instance import Instance, Step
from bay0.machines.table import CONVERGE, FAULT, TIMED_OUT, MachineDef, Row
from bay0.reconcile.plan import plan

STEPS_MAX = 40
INTENTS = {  # what somebody asks for; RETRY and GAVE_UP follow only what is wanted, and a boot wants nothing
    "START", "STOP", CONVERGE, "CLOSE", "POWEROFF", "REBOOT", "RETRY", "ATTACH", "BEGIN", "GAVE_UP", "CREATE", "AUTOSTART", "PAUSE", "RESUME",
    "RESET", "REMOVE", "FOCUS", "SUSPEND",
}  # fmt: skip
NAMES = {"persona": "p://m", "server": "sys://m"}


class Journal:
    """Takes every step; `stored` is what a later boot would find."""

    def __init__(self) -> None:
        self.stored: dict[str, Step] = {}

    def admits(self, _machine: MachineDef, _row: Row) -> None:
        return None

    def commit(self, step: Step, _row: Row, done: Callable[[Acceptance], None]) -> None:
        self.stored[step.machine] = step
        done(Acceptance.DURABLE)


class Owed:
    """Starts nothing; remembers which effect is owed, under which number."""

    def __init__(self) -> None:
        self.effect: tuple[Enum, int] | None = None

    def start(self, _instance: Instance, effect: Enum, token: int) -> None:
        self.effect = (effect, token)


def adopt(machine: MachineDef, stored: str) -> tuple[Engine, Instance, Journal, Owed]:
    journal, owed = Journal(), Owed()
    timers = SimpleNamespace(call_later=lambda *_: SimpleNamespace(cancel=lambda: None))
    log = SimpleNamespace(**dict.fromkeys(("debug", "info", "warning"), lambda *_a, **_k: None))
    engine = Engine("b", timers, lambda: 0, log)
    engine.keep_with(journal)
    engine.serve(machine.kind, owed)
    return engine, engine.adopt(
        machine, {"name": "m", "state": stored, "seq": 7, "attempts": 0, "desired": "stopped", "config": ""}
    ), journal, owed


def outcomes(machine: MachineDef, state: Enum) -> tuple[list[Enum], list[Enum]]:
    """Return the events with which the effect of a busy state may end: good ones, and the two bad ones."""
    bad = [machine.event(FAULT), machine.event(TIMED_OUT)]
    good = [r.event for r in machine.rows if r.source is state and r.event not in bad and r.event.name not in INTENTS]
    return good, bad


def walks(machine: MachineDef, state: Enum, faults: int) -> Iterator[list[Enum]]:
    """Yield every sequence of outcomes from `state` to rest, with at most `faults` bad ones."""
    if machine.spec(state).busy is None:
        yield []
        return
    good, bad = outcomes(machine, state)
    for event in (*good, *(bad if faults else ())):
        row = machine.lookup(state, event)
        assert isinstance(row, Row)
        for rest in walks(machine, row.dest, faults - (event in bad)):
            yield [event, *rest]


def converge(machine: MachineDef, stored: str, events: list[Enum]) -> tuple[Instance, Journal, list[str]]:
    """Do what a boot does with a stored state; return every state that a crash on the way would leave behind, too."""
    engine, instance, journal, owed = adopt(machine, stored)
    crashes = [stored]
    engine.send("m", machine.event(CONVERGE))
    for event in events:
        crashes.append(instance.now.value)
        assert owed.effect is not None
        owed_before, owed.effect = owed.effect, None
        engine.outcome("m", owed_before[1], event)
    crashes.append(instance.now.value)
    return instance, journal, crashes


def at_rest(machine: MachineDef, state: Enum) -> bool:
    return machine.spec(state).converged


@pytest.mark.parametrize("kind", sorted(MACHINES))
def test_converge_ends_at_rest_whatever_the_effects_do(kind: str, size: Size, record_property: Callable[[str, object], None]) -> None:
    machine, combinations, cuts, seen = MACHINES[kind], 0, 0, set()
    for state in machine.states:
        landing = machine.lookup(state, machine.event(CONVERGE))
        first = landing.dest if isinstance(landing, Row) else state
        for events in walks(machine, first, size.faults):
            assert len(events) < STEPS_MAX
            instance, _, crashes = converge(machine, state.value, events)
            assert at_rest(machine, instance.now), f"{state} by {events} ends in {instance.now}"
            combinations += 1
            for left in crashes:  # a crash here, then a boot without one
                cuts += 1
                if left in seen:  # what follows depends on the stored state alone
                    continue
                seen.add(left)
                again = next(walk for walk in walks(machine, _landing(machine, left), 0))
                assert at_rest(machine, converge(machine, left, again)[0].now)
    print(f"{kind}: {combinations} combinations of state and outcomes (at most {size.faults} bad), {cuts} crashes in them")
    record_property("combinations", combinations)


def _landing(machine: MachineDef, stored: str) -> Enum:
    state = next(s for s in machine.states if s.value == stored)
    row = machine.lookup(state, machine.event(CONVERGE))
    return row.dest if isinstance(row, Row) else state


def owed(row: dict[str, object]) -> bool:
    return any(replay.converge for replay in plan([row], MACHINES).replays)


@pytest.mark.parametrize("kind", sorted(MACHINES))
def test_a_second_reconcile_finds_nothing_to_do(kind: str) -> None:
    machine = MACHINES[kind]
    for state in machine.states:
        row = {"name": NAMES.get(kind, "m"), "kind": kind, "state": state.value, "seq": 7, "boot_id": "a"}
        assert owed(row) is not at_rest(machine, state)
        for events in walks(machine, _landing(machine, state.value), 1):
            instance, _, _ = converge(machine, state.value, events)
            assert not owed({**row, "state": instance.now.value})


@pytest.mark.parametrize("kind", sorted(MACHINES))
def test_a_state_this_program_does_not_know_goes_where_converge_leads_and_is_journaled_by_its_name(kind: str) -> None:
    machine = MACHINES[kind]
    _, instance, journal, effects = adopt(machine, "from_the_future")
    assert instance.now is machine.landing
    assert (effects.effect or (None,))[0] is machine.spec(machine.landing).busy
    assert (journal.stored["m"].source, journal.stored["m"].dest) == ("from_the_future", machine.landing.value)
