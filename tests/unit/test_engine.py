"""Commit, then memory, then effect; and nothing that is late, refused or uncommitted moves a machine."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from kit import ROWS, Bench, E, Effect, Journal, Log, S, small

from bay0.base.errors import RefusedError, UncommittedError
from bay0.machines import Ripple
from bay0.machines.engine import Acceptance, Engine, build, move
from bay0.machines.instance import Instance, Step
from bay0.machines.table import Tries


def bench(**journal: object) -> tuple[Bench, Instance]:
    made = Bench(Journal(**journal))
    return made, made.engine.add("one", small())


def test_a_step_is_committed_then_taken_in_memory_then_its_effect_starts() -> None:
    made, one = bench(hold=True)
    made.engine.send("one", E.WORK)
    assert made.journal.moves() == [("idle", "work", "working")]
    assert one.now is S.IDLE
    assert made.effects.started == []
    made.journal.answer()
    assert one.now is S.WORKING
    assert made.journal.order == ["commit working", "effect do in working"]


def test_a_machine_takes_no_other_step_while_one_is_being_committed_but_others_do() -> None:
    made, one = bench(hold=True)
    two = made.engine.add("two", small())
    made.engine.send("one", E.WORK)
    made.engine.send("one", E.CONVERGE)
    made.engine.send("two", E.WORK)
    assert [step.machine for step in made.journal.steps] == ["one", "two"]
    made.journal.held.pop(1)(Acceptance.DURABLE)
    assert (one.now, two.now) == (S.IDLE, S.WORKING)
    made.journal.answer()
    assert made.journal.moves()[-1] == ("working", "converge", "ending"), "the waiting event is taken once the commit is through"


def test_a_move_that_no_journal_accepted_is_refused_and_memory_stays() -> None:
    _, one = bench()
    with pytest.raises(UncommittedError, match="was not committed"):
        move(build(small()), one, E.WORK)
    assert one.now is S.IDLE


def test_a_move_other_than_the_committed_one_is_refused() -> None:
    made, one = bench()
    made.engine.send("one", E.WORK)
    with pytest.raises(UncommittedError):
        move(build(small()), one, E.DONE)
    assert one.now is S.WORKING


def test_the_outcome_of_an_effect_is_the_next_event() -> None:
    made, one = bench()
    made.engine.send("one", E.WORK)
    made.engine.outcome("one", made.effects.token, E.DONE, "quickly")
    assert one.now is S.READY
    assert made.journal.steps[-1].why == "it is done: quickly"


def test_a_late_outcome_is_dropped() -> None:
    made, one = bench()
    made.engine.send("one", E.WORK)
    late = made.effects.token
    made.engine.send("one", E.CONVERGE)
    made.engine.outcome("one", late, E.DONE)
    assert one.now is S.ENDING
    assert made.log.of("late outcome dropped")[0]["n"] == late


def test_an_outcome_of_a_machine_that_is_gone_is_dropped() -> None:
    made, _ = bench()
    made.engine.outcome("nobody", 1, E.DONE)
    assert made.journal.steps == []


def test_an_outcome_that_waited_behind_a_commit_is_judged_when_its_turn_comes() -> None:
    made, one = bench()
    made.engine.send("one", E.WORK)
    token = made.effects.token
    made.journal.hold = True
    made.engine.send("one", E.CONVERGE)
    made.engine.outcome("one", token, E.DONE)
    made.journal.answer()
    assert one.now is S.ENDING
    assert len(made.journal.steps) == 2, "the outcome belonged to the state before"


def test_a_deadline_that_passes_is_an_event() -> None:
    made, one = bench()
    made.engine.send("one", E.WORK)
    made.timers.advance(9.9)
    assert one.now is S.WORKING
    made.timers.advance(0.2)
    assert one.now is S.ENDING
    assert made.journal.steps[-1].event == "timed_out"
    assert made.journal.steps[-1].why == "it took too long: no outcome in 10 s"


def test_patience_stretches_deadlines() -> None:
    made, one = bench()
    made.engine.patience = 5.0
    made.engine.send("one", E.WORK)
    made.timers.advance(49)
    assert one.now is S.WORKING
    made.timers.advance(2)
    assert one.now is S.ENDING


def test_what_waits_in_a_queue_has_a_bound_for_that_and_its_own_deadline_from_its_turn_on() -> None:
    made, one = bench()
    made.engine.send("one", E.WORK)
    deadline_s = one.definition.spec(S.WORKING).deadline_s or 0
    made.engine.waits("one", made.effects.token, 100.0)
    made.timers.advance(99)
    assert one.now is S.WORKING, "its own deadline does not run while it waits"
    made.engine.begins("one", made.effects.token)
    made.timers.advance(deadline_s - 0.1)
    assert one.now is S.WORKING
    made.timers.advance(0.2)
    assert one.now is not S.WORKING
    assert made.journal.steps[-1].why.endswith(f"no outcome in {deadline_s:g} s")


def test_a_turn_that_does_not_come_in_its_bound_is_an_event_too() -> None:
    made, one = bench()
    made.engine.send("one", E.WORK)
    made.engine.waits("one", made.effects.token, 100.0)
    made.timers.advance(101)
    assert one.now is not S.WORKING
    assert made.journal.steps[-1].why.endswith("its turn did not come in 100 s")


def test_a_turn_of_one_that_has_moved_on_moves_no_deadline() -> None:
    made, one = bench()
    made.engine.send("one", E.WORK)
    late = made.effects.token
    made.engine.send("one", E.CONVERGE)
    before = one.deadline
    for act in (lambda: made.engine.waits("one", late, 100.0), lambda: made.engine.begins("one", late), lambda: made.engine.begins("none", late)):
        act()
    assert one.deadline is before


def test_a_deadline_ends_with_its_state() -> None:
    made, one = bench()
    made.engine.send("one", E.WORK)
    made.engine.outcome("one", made.effects.token, E.DONE)
    assert made.timers.waiting == 0
    made.timers.advance(100)
    assert one.now is S.READY


def test_a_state_that_is_entered_again_owes_its_effect_again() -> None:
    made, one = bench()
    made.engine.send("one", E.WORK)
    made.engine.send("one", E.CONVERGE)
    made.timers.advance(5.1)
    made.timers.advance(5.1)
    assert one.now is S.ENDING
    assert [effect for _, effect, _ in made.effects.started] == [Effect.DO, Effect.END, Effect.END, Effect.END]


def test_an_ignored_event_changes_nothing_and_is_answered_with_nothing() -> None:
    made, one = bench()
    answers: list[object] = []
    made.engine.send("one", E.DONE, reply=answers.append)
    assert answers == [None]
    assert (one.now, made.journal.steps) == (S.IDLE, [])


def test_a_refused_event_is_answered_with_the_reason() -> None:
    made, _ = bench()
    made.engine.send("one", E.WORK)
    answers: list[object] = []
    made.engine.send("one", E.WORK, reply=answers.append)
    assert isinstance(answers[0], RefusedError)
    assert str(answers[0]) == "one is working: it works already"


def test_a_step_is_answered_once_it_is_committed() -> None:
    made, _ = bench(hold=True)
    answers: list[object] = []
    made.engine.send("one", E.WORK, reply=answers.append)
    assert answers == []
    made.journal.answer()
    assert isinstance(answers[0], Step)


def test_a_promise_that_the_journal_does_not_admit_is_refused_before_it_is_numbered() -> None:
    made, one = bench(refusal="storage is wedged")
    answers: list[object] = []
    made.engine.send("one", E.STORE, reply=answers.append)
    assert str(answers[0]) == "storage is wedged; nothing was changed"
    assert (one.now, made.journal.steps) == (S.IDLE, [])
    made.engine.send("one", E.WORK)
    assert one.now is S.WORKING, "what promises nothing goes on"


def test_a_promise_that_the_disk_did_not_take_changes_nothing() -> None:
    made, one = bench(verdict=Acceptance.REFUSED)
    answers: list[object] = []
    made.engine.send("one", E.STORE, reply=answers.append)
    assert str(answers[0]) == "the disk did not take it; nothing was changed"
    assert one.now is S.IDLE
    assert (one.seq, one.committed, made.effects.started) == (0, None, [])


def test_after_a_refused_promise_the_queue_goes_on() -> None:
    made, one = bench(hold=True)
    made.engine.send("one", E.STORE)
    made.engine.send("one", E.WORK)
    made.journal.answer(Acceptance.REFUSED)
    made.journal.answer()
    assert one.now is S.WORKING


def test_a_promise_whose_commit_is_unknown_is_taken_without_effect_and_converged() -> None:
    made, one = bench(hold=True)
    answers: list[object] = []
    made.engine.send("one", E.STORE, reply=answers.append)
    made.journal.answer(Acceptance.UNKNOWN)
    assert made.effects.started == [], "no effect for a step that may not be kept"
    assert isinstance(answers[0], RefusedError)
    assert made.journal.moves() == [("idle", "store", "working"), ("working", "converge", "ending")]
    made.journal.answer()
    assert one.now is S.ENDING
    assert made.journal.steps[-1].why.endswith("nobody knows whether it was kept")


def test_converging_after_an_unknown_commit_comes_before_what_was_queued() -> None:
    made, _ = bench(hold=True)
    made.engine.send("one", E.STORE)
    made.engine.send("one", E.DONE)
    made.journal.answer(Acceptance.UNKNOWN)
    assert made.journal.steps[-1].event == "converge"


def test_volatile_is_committed_too() -> None:
    made, one = bench(verdict=Acceptance.VOLATILE)
    made.engine.send("one", E.WORK)
    assert one.now is S.WORKING
    assert made.log.of("step")[0]["kept"] == "volatile"


def test_steps_are_numbered_through_the_boot_and_counted_by_machine() -> None:
    made, _ = bench()
    made.engine.add("two", small(), seq=40)
    made.engine.send("one", E.WORK)
    made.engine.send("two", E.WORK)
    made.engine.send("one", E.CONVERGE)
    assert [(step.n, step.machine, step.seq) for step in made.journal.steps] == [(1, "one", 1), (2, "two", 41), (3, "one", 2)]
    assert {step.boot_id for step in made.journal.steps} == {"boot-1"}


def test_every_step_is_one_log_line_that_says_how_long_the_state_before_lasted() -> None:
    made, _ = bench()
    made.engine.send("one", E.WORK)
    made.timers.advance(3)
    made.engine.outcome("one", made.effects.token, E.DONE)
    assert [(line["source"], line["dest"], line["after_ms"]) for line in made.log.of("step")] == [("idle", "working", 0), ("working", "ready", 3000)]


def test_a_machine_can_be_added_in_a_stored_state() -> None:
    made = Bench()
    one = made.engine.add("one", small(), S.READY, seq=7)
    assert (one.now, one.seq) == (S.READY, 7)
    assert made.journal.steps == []


def stored(state: str) -> dict[str, Any]:
    return {"name": "one", "kind": "small", "state": state, "seq": 3, "attempts": 2, "desired": "running", "config": "{}"}


def test_a_stored_machine_is_adopted_as_it_was() -> None:
    made = Bench()
    one = made.engine.adopt(small(), stored("working"))
    assert (one.now, one.seq, one.attempts, one.desired, one.config) == (S.WORKING, 3, 2, "running", "{}")
    assert made.effects.started == [], "what a crash left undone is not done again"
    made.engine.send("one", E.CONVERGE)
    assert one.now is S.ENDING


def test_a_state_this_program_does_not_know_goes_where_converge_leads_and_the_journal_names_it() -> None:
    made = Bench()
    one = made.engine.adopt(small(), stored("levitating"))
    assert (one.now, one.seq, one.desired) == (S.ENDING, 4, "stopped")
    assert made.journal.moves() == [("levitating", "converge", "ending")]
    assert made.journal.steps[0].why == "no such state as 'levitating' in this program"
    assert [effect for _, effect, _ in made.effects.started] == [Effect.END], "it may have left something behind"
    made.engine.outcome("one", made.effects.token, E.DONE)
    assert (one.now, made.journal.steps[-1].seq) == (S.IDLE, 5)


def test_attempts_and_what_is_wanted_follow_the_rows() -> None:
    more = {
        (S.IDLE, E.WORK): {"desired": "running", "tries": Tries.FIRST},
        (S.ENDING, E.FAULT): {"tries": Tries.COUNT},
        (S.ENDING, E.DONE): {"desired": "stopped", "tries": Tries.FORGET},
    }
    made = Bench()
    one = made.engine.add("one", small(rows=tuple(evolve(row, **more.get((row.source, row.event), {})) for row in ROWS)))
    seen = []
    for event in (E.WORK, E.FAULT, E.FAULT, E.DONE):
        made.engine.send("one", event)
        seen.append((one.attempts, one.desired))
    assert seen == [(1, "running"), (1, "running"), (2, "running"), (0, "stopped")]
    assert [(step.attempts, step.desired) for step in made.journal.steps] == seen


def test_what_a_machine_is_made_of_is_part_of_the_commit() -> None:
    made, one = bench()
    made.engine.send("one", E.WORK, config='{"a": 1}')
    assert one.config == '{"a": 1}'
    assert made.journal.steps[-1].config == '{"a": 1}'
    made.engine.outcome("one", made.effects.token, E.DONE)
    assert made.journal.steps[-1].config is None, "a step that changes nothing does not carry it again"
    assert one.config == '{"a": 1}'


def test_one_machine_entering_a_state_tells_the_others() -> None:
    made, one = bench()
    two = made.engine.add("two", small())
    made.engine.ripple((Ripple("small", S.READY, "small", E.WORK),))
    made.engine.send("one", E.WORK)
    made.engine.outcome("one", made.effects.token, E.DONE)
    assert one.now is S.READY
    assert two.now is S.WORKING
    assert made.journal.steps[-1].why == "asked to work: it is done"


def test_watchers_see_each_step_after_it_was_taken() -> None:
    made, _ = bench()
    seen: list[tuple[str, S]] = []
    made.engine.on("small", call=lambda instance, step: seen.append((step.event, instance.now)))
    made.engine.send("one", E.WORK)
    made.engine.outcome("one", made.effects.token, E.DONE)
    assert seen == [("work", S.WORKING), ("done", S.READY)]


def test_what_an_event_brings_along_stays_with_the_machine() -> None:
    made, one = bench()
    made.engine.send("one", E.WORK, how="slowly")
    assert one.context == {"how": "slowly"}


def test_a_forgotten_machine_is_gone_from_memory() -> None:
    made, _ = bench()
    made.engine.forget("one")
    assert list(made.engine.of_kind("small")) == []
    made.engine.add("one", small())
    made.engine.send("one", E.WORK)
    assert made.journal.steps[-1].dest == "working"


def test_many_machines_share_one_table() -> None:
    made = Bench()
    for number in range(50):
        made.engine.add(f"m{number}", small())
    made.engine.send("m7", E.WORK)
    assert [i.name for i in made.engine.of_kind("small") if i.now is S.WORKING] == ["m7"]


def test_an_effect_that_answers_at_once_is_heard() -> None:
    made = Bench()

    class Instant:
        def start(self, instance: Instance, _effect: object, token: int) -> None:
            made.engine.outcome(instance.name, token, E.DONE)

    made.engine = Engine("b", made.timers, lambda: 0, Log())
    made.engine.keep_with(made.journal)
    made.engine.serve("small", Instant())
    one = made.engine.add("one", small())
    made.engine.send("one", E.WORK)
    assert one.now is S.READY
