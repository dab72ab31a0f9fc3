"""A suite that was never red proves nothing. Each test here breaks bay0 on purpose and demands that an invariant says so."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from checks import Broken
from conftest import Size
from scenario import LIFE, live, recover
from stories import STORIES
from world import World

from bay0 import flow, reconcile
from bay0.machines.engine import Acceptance, Engine
from bay0.machines.table import Row
from bay0.state import db, worker
from bay0.state.link import WorkerLink
from bay0.state.port import StatePort
from bay0.state.schema import MIGRATIONS, database

STRIDE = 4  # of the crash points of a life
MOMENTS = (0.05, 0.3, 0.6, 1.4, 2.5)  # seconds; see stories.py
Patch = pytest.MonkeyPatch
Mutant = Callable[[Patch], None]
MUTANTS: list[Mutant] = []


def mutant(fault: Mutant) -> Mutant:
    MUTANTS.append(fault)
    return fault


def hunts() -> Iterator[Callable[[World], Any]]:
    """Yield everything that may find a fault, quickest first."""
    yield lambda world: (live(world), recover(world))
    for moment, kept in zip(MOMENTS, (1.0, 0.0, 1.0, 0.0, 1.0), strict=True):
        for story in STORIES:
            yield lambda world, story=story, moment=moment, kept=kept: (story(world, moment), world.cut(kept), recover(world))
    with World() as world:
        live(world)
        seams = world.seams
    for at in range(1, seams, STRIDE):
        for kept in (0.0, 1.0):
            yield lambda world, at=at, kept=kept: (live(world, LIFE, at, kept), recover(world))


def hunt() -> tuple[int, str] | None:
    """Return how many hunts it took and what was broken, or None."""
    for count, act in enumerate(hunts(), 1):
        with World() as world:
            try:
                act(world)
            except Broken as broken:
                return count, str(broken)
    return None


# ---- the database


@mutant
def no_transaction_around_a_commit(patch: Patch) -> None:
    patch.setattr(database, "atomic", lambda *_: contextlib.nullcontext())


def _reword(patch: Patch, reworded: Callable[[str], str]) -> None:
    execute_sql = database.execute_sql
    patch.setattr(database, "execute_sql", lambda sql, params=None: execute_sql(reworded(sql), params))


@mutant
def nothing_is_ever_synced(patch: Patch) -> None:
    _reword(patch, lambda sql: "PRAGMA synchronous=OFF" if sql.startswith("PRAGMA synchronous=") else sql)
    patch.setitem(db.EXPECTED, "synchronous", 0)


@mutant
def a_promise_is_committed_like_anything_else(patch: Patch) -> None:
    commit = db.commit
    patch.setattr(db, "commit", lambda steps, **_: commit(steps))


@mutant
def a_flush_is_not_idempotent(patch: Patch) -> None:
    _reword(patch, lambda sql: sql.replace("INSERT OR IGNORE INTO journal", "INSERT INTO journal"))


@mutant
def a_step_that_is_there_is_written_over(patch: Patch) -> None:
    renumbered = iter(range(10_000, 99_999))
    put = db._put
    patch.setattr(db, "_put", lambda step: put({**step, "seq": next(renumbered)}))


@mutant
def a_later_commit_overtakes_one_that_failed(patch: Patch) -> None:
    patch.setitem(worker.OPS, "commit", lambda steps, full: db.commit(steps, full=full))


@mutant
def a_failure_after_the_commit_is_told_as_a_failure_of_the_commit(patch: Patch) -> None:
    patch.setattr(worker, "contextlib", SimpleNamespace(suppress=lambda *_: contextlib.nullcontext()))  # around the pruning


@mutant
def a_migration_and_its_version_are_two_transactions(patch: Patch) -> None:
    def split(seam: Any = db.no_seam) -> int:
        if int(database.pragma("user_version")):
            return 0
        with database.atomic("IMMEDIATE"):
            MIGRATIONS[0](database)
        database.execute_sql("PRAGMA user_version=1")
        return 1

    patch.setattr(db, "migrate", split)


# ---- the state port and its link


@mutant
def a_promise_is_acknowledged_before_it_is_durable(patch: Patch) -> None:
    def commit(self: StatePort, step: Any, row: Row, done: Callable[[Acceptance], None]) -> None:
        self._remember(step)
        self._flush_soon()
        done(Acceptance.DURABLE if row.promised else Acceptance.VOLATILE)

    patch.setattr(StatePort, "commit", commit)


@mutant
def a_commit_without_an_answer_counts_as_durable(patch: Patch) -> None:
    accept = StatePort._accept
    told = lambda verdict: Acceptance.DURABLE if verdict is Acceptance.UNKNOWN else verdict
    patch.setattr(StatePort, "_accept", lambda self, step, row, answer: told(accept(self, step, row, answer)))


@mutant
def what_the_disk_did_not_take_is_forgotten(patch: Patch) -> None:
    accept = StatePort._accept

    def forgetful(self: StatePort, step: Any, row: Row, answer: Any) -> Acceptance:
        verdict = accept(self, step, row, answer)
        self._forget([step.n])
        return verdict

    patch.setattr(StatePort, "_accept", forgetful)


@mutant
def the_memory_journal_is_not_written_out(patch: Patch) -> None:
    def dropped(self: StatePort) -> Any:
        self._forget(list(self.memory))
        return None
        yield

    patch.setattr(StatePort, "_flush_memory", dropped)


@mutant
def a_new_worker_does_not_wait_for_the_old_ones_end(patch: Patch) -> None:
    abandon = WorkerLink.abandon

    def impatient(self: WorkerLink, *args: Any) -> None:
        abandon(self, *args)
        self.replace_later()

    patch.setattr(WorkerLink, "abandon", impatient)
    patch.setattr(WorkerLink, "ended", lambda self: lambda resume: (abandon(self, "replaced"), resume(None)))


@mutant
def the_end_of_an_abandoned_worker_is_not_heard(patch: Patch) -> None:
    patch.setattr(WorkerLink, "replace_later", lambda self: None)


@mutant
def an_open_goes_on_when_nobody_wants_it_any_more(patch: Patch) -> None:
    patch.setattr(flow, "as_long_as", lambda _true, sequence: sequence)


# ---- engine and reconcile


@mutant
def the_effect_runs_before_the_commit(patch: Patch) -> None:
    step = Engine._step

    def eager(self: Engine, instance: Any, row: Row, *args: Any, **kwargs: Any) -> Any:
        made = step(self, instance, row, *args, **kwargs)
        busy = instance.definition.spec(row.dest).busy
        if busy is not None:
            self.effects.start(instance, busy, made.n)
        return made

    patch.setattr(Engine, "_step", eager)


@mutant
def a_refused_step_is_taken_all_the_same(patch: Patch) -> None:
    committed = Engine._committed
    told = lambda verdict: Acceptance.DURABLE if verdict is Acceptance.REFUSED else verdict
    patch.setattr(Engine, "_committed", lambda self, i, o, r, s, accepted: committed(self, i, o, r, s, told(accepted)))


@mutant
def time_outs_are_swallowed(patch: Patch) -> None:
    outcome = Engine.outcome
    patch.setattr(Engine, "outcome", lambda self, n, t, event, why="": None if event.name == "TIMED_OUT" else outcome(self, n, t, event, why))


@mutant
def a_boot_does_not_replay_what_is_stored(patch: Patch) -> None:
    patch.setattr(reconcile, "plan", lambda *_: reconcile.Plan((), ()))


@mutant
def a_stored_running_is_trusted(patch: Patch) -> None:
    plan = reconcile.plan
    doubted = lambda rows: [row for row in rows if row["state"] != "running"]
    patch.setattr(reconcile, "plan", lambda rows, definitions: plan(doubted(rows), definitions))


@pytest.mark.parametrize("fault", MUTANTS, ids=lambda fault: fault.__name__)
def test_the_suite_sees_that(fault: Mutant, monkeypatch: Patch) -> None:
    fault(monkeypatch)
    found = hunt()
    assert found is not None, "nothing noticed it"
    print(f"hunt {found[0]}: {found[1][:160]}")


def test_the_hunts_find_nothing_in_the_program_itself(size: Size) -> None:
    if size.double_stride > 1:
        pytest.skip("the other tests of this folder run all of it; nightly runs it as it is here")
    assert hunt() is None
