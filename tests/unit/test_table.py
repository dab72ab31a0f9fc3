"""A table that is wrong in itself is refused when it is imported."""

from __future__ import annotations

from enum import Enum

import pytest
from kit import IGNORED, REFUSED, ROWS, SPECS, E, Effect, S, small

from bay0.base.errors import TableError
from bay0.machines import MACHINES, RIPPLES
from bay0.machines.table import MachineDef, Pass, Row, StateSpec, cells

KINDS = sorted(MACHINES)


class Foreign(Enum):
    STATE = "state"
    EVENT = "event"


def without(rows: tuple[Row, ...], source: S, event: E) -> tuple[Row, ...]:
    return tuple(row for row in rows if (row.source, row.event) != (source, event))


def with_spec(spec: StateSpec) -> tuple[StateSpec, ...]:
    return tuple(spec if old.state is spec.state else old for old in SPECS)


def test_the_small_machine_of_these_tests_is_right() -> None:
    assert small().kind == "small"


def test_a_state_whose_value_is_not_its_name_is_refused() -> None:
    class Loud(Enum):
        IDLE = "Idle"
        READY = "ready"

    with pytest.raises(TableError, match=r"Loud\.IDLE must be called 'idle'"):
        small(states=Loud)


def test_an_event_whose_value_is_not_its_name_is_refused() -> None:
    class Odd(Enum):
        WORK = "labour"
        FAULT = "fault"
        TIMED_OUT = "timed_out"
        CONVERGE = "converge"

    with pytest.raises(TableError, match=r"Odd\.WORK must be called 'work'"):
        small(events=Odd)


def test_a_state_that_is_not_declared_is_refused() -> None:
    with pytest.raises(TableError, match="state READY is declared 0 times"):
        small(specs=tuple(spec for spec in SPECS if spec.state is not S.READY))


def test_a_state_that_is_declared_twice_is_refused() -> None:
    with pytest.raises(TableError, match="state READY is declared 2 times"):
        small(specs=(*SPECS, StateSpec(S.READY, "once more")))


def test_a_busy_state_without_a_deadline_is_refused() -> None:
    with pytest.raises(TableError, match="state WORKING needs both an effect and a deadline, or neither"):
        small(specs=with_spec(StateSpec(S.WORKING, "work is owed", busy=Effect.DO)))


def test_a_deadline_without_an_effect_is_refused() -> None:
    with pytest.raises(TableError, match="state READY needs both an effect and a deadline, or neither"):
        small(specs=with_spec(StateSpec(S.READY, "work is done", deadline_s=3)))


def test_a_state_that_is_busy_and_converged_is_refused() -> None:
    with pytest.raises(TableError, match="state ENDING cannot be busy and converged"):
        small(specs=with_spec(StateSpec(S.ENDING, "its end", busy=Effect.END, deadline_s=5, converged=True)))


def test_an_effect_with_two_owners_is_refused() -> None:
    with pytest.raises(TableError, match="effect DO is owned by more than one state"):
        small(specs=with_spec(StateSpec(S.ENDING, "its end", busy=Effect.DO, deadline_s=5)))


def test_a_machine_without_a_converged_state_is_refused() -> None:
    with pytest.raises(TableError, match="no state is converged"):
        small(specs=with_spec(StateSpec(S.IDLE, "nothing runs")))


def test_a_row_from_a_foreign_state_is_refused() -> None:
    with pytest.raises(TableError, match=r"row 'lost' names the foreign state Foreign\.STATE"):
        small(rows=(*ROWS, Row(Foreign.STATE, E.DONE, S.IDLE, "lost")))


def test_a_row_to_a_foreign_state_is_refused() -> None:
    with pytest.raises(TableError, match=r"row 'lost' names the foreign state Foreign\.STATE"):
        small(rows=(*ROWS, Row(S.IDLE, E.DONE, Foreign.STATE, "lost")))


def test_a_row_with_a_foreign_event_is_refused() -> None:
    with pytest.raises(TableError, match=r"row 'lost' names the foreign event Foreign\.EVENT"):
        small(rows=(*ROWS, Row(S.IDLE, Foreign.EVENT, S.IDLE, "lost")))


def test_two_rows_for_one_cell_are_refused() -> None:
    with pytest.raises(TableError, match=r"two rows for \(IDLE, WORK\)"):
        small(rows=(*ROWS, Row(S.IDLE, E.WORK, S.READY, "another way")))


def test_a_row_that_does_not_say_why_is_refused() -> None:
    with pytest.raises(TableError, match=r"\(IDLE, WORK\) does not say why"):
        small(rows=(Row(S.IDLE, E.WORK, S.WORKING, ""), *without(ROWS, S.IDLE, E.WORK)))


def test_a_cell_that_nobody_names_is_refused() -> None:
    with pytest.raises(TableError, match=r"cell \(WORKING, WORK\) is named 0 times"):
        small(refused={cell: why for cell, why in REFUSED.items() if cell != (S.WORKING, E.WORK)})


@pytest.mark.parametrize("twice", ["ignored and refused", "row and ignored"])
def test_a_cell_that_is_named_twice_is_refused(twice: str) -> None:
    cell = (S.WORKING, E.WORK) if twice == "ignored and refused" else (S.IDLE, E.WORK)
    with pytest.raises(TableError, match=rf"cell \({cell[0].name}, WORK\) is named 2 times"):
        small(ignored={**IGNORED, cell: "harmless"})


@pytest.mark.parametrize("event", [E.FAULT, E.TIMED_OUT])
def test_a_busy_state_that_cannot_fail_is_refused(event: E) -> None:
    with pytest.raises(TableError, match=f"busy state WORKING has no {event.name} row"):
        small(rows=without(ROWS, S.WORKING, event), ignored={**IGNORED, (S.WORKING, event): "never happens"})


def test_a_state_that_cannot_be_reached_is_refused() -> None:
    with pytest.raises(TableError, match="state READY cannot be reached"):
        small(rows=without(ROWS, S.WORKING, E.DONE), ignored={**IGNORED, (S.WORKING, E.DONE): "nothing"})


def test_a_state_without_a_converge_row_is_refused() -> None:
    with pytest.raises(TableError, match="state READY has no CONVERGE row"):
        small(rows=without(ROWS, S.READY, E.CONVERGE), ignored={**IGNORED, (S.READY, E.CONVERGE): "nothing"})


def test_a_converge_that_ends_nowhere_is_refused() -> None:
    rows = (*without(without(ROWS, S.READY, E.CONVERGE), S.ENDING, E.DONE), Row(S.READY, E.CONVERGE, S.READY, "again"))
    with pytest.raises(TableError, match="CONVERGE from READY never gets to a converged state"):
        small(rows=rows, ignored={**IGNORED, (S.ENDING, E.DONE): "nothing"})


def test_all_mistakes_of_a_table_are_named_at_once() -> None:
    with pytest.raises(TableError, match=r"machine small: .*declared 2 times; .*two rows"):
        small(specs=(*SPECS, StateSpec(S.READY, "once more")), rows=(*ROWS, Row(S.IDLE, E.WORK, S.READY, "another way")))


def test_a_lookup_gives_the_row_or_says_why_there_is_none() -> None:
    machine = small()
    assert machine.lookup(S.IDLE, E.WORK) == Row(S.IDLE, E.WORK, S.WORKING, "asked to work")
    assert machine.lookup(S.IDLE, E.DONE) == Pass("nothing is under way", refused=False)
    assert machine.lookup(S.READY, E.WORK) == Pass("it works already", refused=True)


def test_cells_may_be_named_from_iterators() -> None:
    assert set(cells(iter((S.IDLE, S.READY)), iter((E.DONE, E.FAULT)), "x")) == {(s, e) for s in (S.IDLE, S.READY) for e in (E.DONE, E.FAULT)}


def test_an_event_is_found_by_its_name_only() -> None:
    assert small().event("CONVERGE") is E.CONVERGE
    with pytest.raises(KeyError):
        small().event("NO_SUCH")


@pytest.mark.parametrize("kind", KINDS)
def test_every_machine_has_an_answer_to_every_event_in_every_state(kind: str) -> None:
    machine = MACHINES[kind]
    for state in machine.states:
        for event in machine.events:
            assert machine.lookup(state, event).why


@pytest.mark.parametrize("kind", KINDS)
def test_every_name_is_stored_as_it_is_written(kind: str) -> None:
    machine = MACHINES[kind]
    for member in (*machine.states, *machine.events, *(spec.busy for spec in machine.specs if spec.busy)):
        assert member.value == member.name.lower()


@pytest.mark.parametrize("kind", KINDS)
def test_no_machine_promises_what_a_wedged_disk_must_allow(kind: str) -> None:
    leading_to_stopped = {"CONVERGE", "STOP", "GONE", "VANISHED", "POWEROFF", "REBOOT", "CLOSE", "TIMED_OUT", "FAULT"}
    for row in MACHINES[kind].rows:
        assert not (row.promised and row.event.name in leading_to_stopped), row


def test_machines_are_listed_under_their_kind() -> None:
    assert all(kind == machine.kind for kind, machine in MACHINES.items())
    assert all(isinstance(machine, MachineDef) for machine in MACHINES.values())


def test_every_ripple_names_a_state_and_an_event_that_exist() -> None:
    for ripple in RIPPLES:
        assert isinstance(ripple.state, MACHINES[ripple.kind].states)
        assert isinstance(ripple.event, MACHINES[ripple.told].events)


def test_a_boot_goes_on_from_every_stage_that_fails() -> None:
    machine = MACHINES["boot"]
    for spec in machine.specs:
        if spec.busy is None:
            continue
        for event in ("FAULT", "TIMED_OUT"):
            row = machine.lookup(spec.state, machine.event(event))
            assert isinstance(row, Row)


def test_a_boot_that_left_as_asked_is_told_from_one_that_died() -> None:
    machine = MACHINES["boot"]
    died = {row.source.value for row in machine.rows if row.event.name == "CONVERGE" and row.dest.value == "died"}
    ended = {row.source.value for row in machine.rows if row.event.name == "CONVERGE" and row.dest.value == "ended"}
    assert ended == {"leaving", "powering"}
    assert {"mounting", "attaching", "complete", "stopping"} <= died
