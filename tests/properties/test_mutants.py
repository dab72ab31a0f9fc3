"""A suite that was never red proves nothing. Each test here breaks bay0 on purpose and demands that an invariant says so."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Iterator
from types import SimpleNamespace
from typing import Any

import aistories
import grantstories
import pytest
import stories
from attrs import evolve
from bench import Bench
from broken import Broken
from conftest import Size
from kernel import SimWatch
from scenario import LIFE, live, recover
from stories import COPY_STORIES, PERSONA_STORIES, SNAPSHOT_STORIES, STORIES, Story
from test_enumeration import ONCE, SMALL, UNKNOWN, is_over, prepare
from test_enumeration import recover as recovered
from world import World

from bay0.ai.methods import TenantVerbs
from bay0.ai.port import Servers
from bay0.base import names
from bay0.base.errors import RefusedError, StorageError
from bay0.boot import nack_methods as nackverbs
from bay0.boot import trash
from bay0.containers.freezer import Freezer
from bay0.containers.life import PERSONAS as PERSONA_GROUP
from bay0.containers.life import TENANTS, Life
from bay0.control.outcomes import Outcomes
from bay0.control.outcomes import _Waiter as Waiter
from bay0.effects import cgroup
from bay0.focus import switch
from bay0.machines import persona
from bay0.machines.engine import Acceptance, Engine
from bay0.machines.persona import PERSONA, E, S
from bay0.machines.server import SERVER
from bay0.machines.server import E as ServerE
from bay0.machines.server import S as ServerS
from bay0.machines.table import Row, Tries
from bay0.personas import kept
from bay0.personas import port as personas
from bay0.personas.again import Restarts
from bay0.personas.changing import Changing
from bay0.personas.copies import Copies
from bay0.personas.line import Line
from bay0.personas.methods import PersonaVerbs
from bay0.personas.port import Personas
from bay0.pid1 import flow
from bay0.podman.calls import Outcome, Podman, Verdict
from bay0.reconcile import plan as reconcile
from bay0.reconcile.audit import Audit
from bay0.reconcile.clearing import Cleared, Clearing
from bay0.reconcile.mending import Mending
from bay0.reconcile.replay import Replay
from bay0.state import copier, copying, db, files, homes, nack, staging, tarstream, unpack, worker
from bay0.state.link import FAULT, Answer, WorkerLink
from bay0.state.port import StatePort
from bay0.state.schema import MIGRATIONS, database
from bay0.state.unwritten import Unwritten
from bay0.umbilical import doors as umbilicalport
from bay0.umbilical.channel import Link
from bay0.umbilical.doors import Umbilical

STRIDE = 4  # of the crash points of a life
MOMENTS = (0.05, 0.3, 0.6, 1.4, 2.5)  # seconds; see stories.py
Patch = pytest.MonkeyPatch
Mutant = Callable[[Patch], None]
MUTANTS: list[Mutant] = []
Hunt = Callable[[World], Any]
FIRST: dict[Mutant, list[Hunt]] = {}


def mutant(fault: Mutant) -> Mutant:
    MUTANTS.append(fault)
    return fault


def likely(*first: Story | list[Hunt]) -> Callable[[Mutant], Mutant]:
    """Name what is likely to find it; only the order of the hunts depends on that."""

    def named(fault: Mutant) -> Mutant:
        FIRST[fault] = [hunt for each in first for hunt in (each if isinstance(each, list) else at_moments(each))]
        return mutant(fault)

    return named


def at_moments(*stories: Story) -> list[Hunt]:
    return [
        lambda world, story=story, moment=moment, kept=kept: (story(world, moment), world.cut(kept), recover(world))
        for moment, kept in zip(MOMENTS, (1.0, 0.0, 1.0, 0.0, 1.0), strict=True)
        for story in stories
    ]


def hunts(first: list[Hunt]) -> Iterator[Hunt]:
    """Yield everything that may find a fault: what is likely to, then the quickest first."""
    yield from first
    yield lambda world: (live(world), recover(world))
    yield from at_moments(*STORIES)
    yield from at_moments(*PERSONA_STORIES)
    yield from at_moments(*COPY_STORIES)
    yield from at_moments(*SNAPSHOT_STORIES)
    yield from at_moments(*aistories.AI_STORIES)
    yield from at_moments(*grantstories.GRANT_STORIES)
    yield from RECONCILES
    with World() as world:
        live(world)
        seams = world.seams
    for at in range(1, seams, STRIDE):
        for rest in (0.0, 1.0):
            yield lambda world, at=at, rest=rest: (live(world, LIFE, at, rest), recover(world))


def _reconcile(kind: str, state: str, what: str, says: str) -> Callable[[World], None]:
    def walk(_world: World) -> None:
        with Bench() as bench:
            case = (kind, state, what, says)
            prepare(bench, *case)
            try:
                recovered(bench, case)
                is_over(bench, case)
            except AssertionError as broken:
                raise Broken(str(broken)) from broken

    return walk


FOUND = [("persona", "stopped"), ("persona", "running"), ("persona", UNKNOWN), ("server", "stopped"), ("server", "ready")]
RECONCILES = [_reconcile(kind, state, what, says) for kind, state in FOUND for what in SMALL for says in ONCE]


def hunt(first: list[Hunt]) -> tuple[int, str] | None:
    """Return how many hunts it took and what was broken, or None."""
    for count, act in enumerate(hunts(first), 1):
        with World() as world:
            try:
                act(world)
            except Broken as broken:
                return count, str(broken)
    return None


# ---- the database


class _Forgetful(list[str]):
    def append(self, _why: str) -> None:
        pass


@likely(stories.a_log_that_lost_something_is_not_copied_as_the_disk_is_closed)
def a_log_whose_sync_failed_is_copied_into_the_database(patch: Patch) -> None:
    patch.setattr(db, "_unsynced", _Forgetful())


@likely(stories.a_log_that_lost_something_is_not_copied_as_the_disk_is_closed)
def sqlite_makes_a_checkpoint_of_its_own_as_it_closes(patch: Patch) -> None:
    patch.setattr(db, "_let_go", lambda: database.close())


@likely(stories.a_sync_fails_and_memory_shows_what_was_lost)
def no_transaction_around_a_commit(patch: Patch) -> None:
    patch.setattr(database, "atomic", lambda *_: contextlib.nullcontext())


@mutant
def a_nack_is_not_forced_to_the_disk(patch: Patch) -> None:
    patch.setattr(nack.db, "forced", contextlib.nullcontext)


@mutant
def a_nack_is_answered_before_the_disk_has_it(patch: Patch) -> None:
    def hasty(port: StatePort, done: Callable[[bool], None], digest: str, *, why: str = "", nacked: bool = True) -> None:
        port.tell("nack_put", 1, lambda _answer: None, digest=digest, why=why, at=1, boot_id="x")
        done(True)

    patch.setattr(nackverbs, "write_nack_registry", hasty)


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


@likely(stories.retry_a_wedged_disk)
def a_flush_is_not_idempotent(patch: Patch) -> None:
    _reword(patch, lambda sql: sql.replace("INSERT OR IGNORE INTO journal", "INSERT INTO journal"))


@mutant
def a_step_that_is_there_is_written_over(patch: Patch) -> None:
    renumbered = iter(range(10_000, 99_999))
    put = db._put
    patch.setattr(db, "_put", lambda step: put({**step, "seq": next(renumbered)}))


@likely(stories.one_write_fails_with_more_behind_it)
def what_waits_behind_a_commit_that_failed_counts_as_kept(patch: Patch) -> None:
    answer = StatePort._answer
    patch.setattr(StatePort, "_answer", lambda self, numbers, told: answer(self, numbers, Answer() if told.code == FAULT else told))


@likely(stories.one_write_fails_near_a_promise)
def a_failure_after_the_commit_is_told_as_a_failure_of_the_commit(patch: Patch) -> None:
    patch.setattr(worker, "contextlib", SimpleNamespace(suppress=lambda *_: contextlib.nullcontext()))  # around the pruning


@likely(stories.a_sync_fails_and_memory_shows_what_was_lost, stories.what_was_not_promised_is_lost_before_a_promise)
def a_new_worker_believes_the_cache(patch: Patch) -> None:
    _without(patch, db, "_forget_cached")


@likely(stories.a_sync_fails_and_memory_shows_what_was_lost)
def of_a_commit_whose_sync_failed_it_is_said_that_nothing_was_changed(patch: Patch) -> None:
    patch.setattr(db, "transaction", lambda: database.atomic("IMMEDIATE"))


@likely(stories.what_was_not_promised_is_lost_before_a_promise)
def what_was_committed_without_a_sync_is_forgotten(patch: Patch) -> None:
    patch.setattr(Unwritten, "committed", lambda self, numbers, full: self.forget(numbers))


@likely(stories.what_was_lost_is_told_to_who_moves_a_long_log)
def who_moves_a_long_log_says_nothing_of_what_was_lost(patch: Patch) -> None:
    """As SQLite does, when it moves it by itself."""
    trim = db.trim

    def silent() -> None:
        with contextlib.suppress(StorageError):
            trim()

    patch.setattr(db, "trim", silent)


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


@mutant
def the_row_of_a_removed_persona_stays(patch: Patch) -> None:
    patch.setattr(db, "NO_ROW", ())


@mutant
def the_row_of_a_stopped_persona_goes_too(patch: Patch) -> None:
    patch.setattr(db, "NO_ROW", (("persona", "stopped"), *db.NO_ROW))


@likely(stories.a_monitor_is_killed)
def the_end_of_a_monitor_goes_unnoticed(patch: Patch) -> None:
    patch.setattr(Personas, "_watch_monitor", lambda *_: None)


@mutant
def all_personas_have_one_uid_range(patch: Patch) -> None:
    patch.setattr(PersonaVerbs, "_free_slot", lambda _self, _there: 0)


# ---- the state port and its link


@likely(stories.one_write_fails_with_more_behind_it)
def a_promise_is_acknowledged_before_it_is_durable(patch: Patch) -> None:
    def commit(self: StatePort, step: Any, row: Row, done: Callable[[Acceptance], None]) -> None:
        self._unwritten.remember(step)
        self._flush_soon()
        done(Acceptance.DURABLE if row.promised else Acceptance.VOLATILE)

    patch.setattr(StatePort, "commit", commit)


@likely(stories.a_promise_to_a_wedged_disk)
def a_commit_without_an_answer_counts_as_durable(patch: Patch) -> None:
    accept = StatePort._accept
    told = lambda verdict: Acceptance.DURABLE if verdict is Acceptance.UNKNOWN else verdict
    patch.setattr(StatePort, "_accept", lambda self, step, row, answer: told(accept(self, step, row, answer)))


@mutant
def what_the_disk_did_not_take_is_forgotten(patch: Patch) -> None:
    accept = StatePort._accept

    def forgetful(self: StatePort, step: Any, row: Row, answer: Any) -> Acceptance:
        verdict = accept(self, step, row, answer)
        self._unwritten.forget([step.n])
        return verdict

    patch.setattr(StatePort, "_accept", forgetful)


@mutant
def the_memory_journal_is_not_written_out(patch: Patch) -> None:
    def dropped(self: StatePort) -> Any:
        self._unwritten.forget(list(self.memory))
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


@likely(stories.a_commit_whose_answer_is_lost)
def the_end_of_an_abandoned_worker_is_not_heard(patch: Patch) -> None:
    patch.setattr(WorkerLink, "replace_later", lambda self: None)


@likely(stories.stop_at)
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
            self._ports[instance.definition.kind].start(instance, busy, made.n)
        return made

    patch.setattr(Engine, "_step", eager)


@likely(stories.one_write_fails_with_more_behind_it)
def a_refused_step_is_taken_all_the_same(patch: Patch) -> None:
    committed = Engine._committed
    told = lambda verdict: Acceptance.DURABLE if verdict is Acceptance.REFUSED else verdict
    patch.setattr(Engine, "_committed", lambda self, i, o, r, s, accepted: committed(self, i, o, r, s, told(accepted)))


@likely(stories.the_spine_is_not_well_and_a_container_ends)
def time_outs_are_swallowed(patch: Patch) -> None:
    outcome = Engine.outcome
    patch.setattr(Engine, "outcome", lambda self, n, t, event, why="": None if event.name == "TIMED_OUT" else outcome(self, n, t, event, why))


@mutant
def a_boot_does_not_replay_what_is_stored(patch: Patch) -> None:
    _replan(patch, lambda _plan, _there: reconcile.Plan((), ()))


@mutant
def a_stored_running_is_trusted(patch: Patch) -> None:
    planning = reconcile.planning
    doubted = lambda rows: [row for row in rows if row["state"] != "running"]
    patch.setattr(reconcile, "planning", lambda rows, definitions, containers=(): planning(doubted(rows), definitions, containers))


# ---- personas


def _without(patch: Patch, owner: Any, name: str) -> None:
    patch.setattr(owner, name, lambda *_args, **_keys: None)


def _replan(patch: Patch, changed: Callable[[reconcile.Plan, set[str]], reconcile.Plan]) -> None:
    planning = reconcile.planning

    def replanned(rows: Any, definitions: Any, containers: Any = ()) -> Generator[None, None, reconcile.Plan]:
        there = set(containers)
        return changed((yield from planning(rows, definitions, there)), there)

    patch.setattr(reconcile, "planning", replanned)


@likely(RECONCILES)
def containers_of_nobody_are_not_swept(patch: Patch) -> None:
    _replan(patch, lambda plan, _: evolve(plan, sweep=()))
    _without(patch, Audit, "sweep")


@likely(stories.containers_by_hand)
def containers_of_somebody_else_are_swept(patch: Patch) -> None:
    _replan(patch, lambda plan, there: evolve(plan, sweep=tuple(there), foreign=()))


@likely(RECONCILES)
def a_stored_stopped_is_trusted_though_there_is_a_container(patch: Patch) -> None:
    trusted = lambda replay: evolve(replay, converge=replay.converge and replay.stored["state"] != "stopped")
    _replan(patch, lambda plan, _: evolve(plan, replays=tuple(map(trusted, plan.replays))))


@likely(stories.a_rollback)
def a_program_that_cannot_read_the_database_clears_away_what_it_finds(patch: Patch) -> None:
    begin = Replay.stage

    def rash(self: Replay, instance: Any, token: int) -> None:
        if self.state.stored is None:
            self.state._opening.stored = []
        begin(self, instance, token)

    patch.setattr(Replay, "stage", rash)


@likely(stories.a_crash_loop)
def attempts_are_not_counted(patch: Patch) -> None:
    after = Tries.after
    patch.setattr(Tries, "after", lambda self, attempts: attempts if self is Tries.COUNT else after(self, attempts))


@likely(stories.a_crash_loop)
def attempts_of_earlier_boots_are_forgotten(patch: Patch) -> None:
    adopt = Engine.adopt
    patch.setattr(Engine, "adopt", lambda self, definition, stored: adopt(self, definition, {**stored, "attempts": 0}))


@likely(stories.a_crash_loop)
def what_a_machine_is_made_of_is_lost_over_a_boot(patch: Patch) -> None:
    adopt = Engine.adopt
    patch.setattr(Engine, "adopt", lambda self, definition, stored: adopt(self, definition, {**stored, "config": ""}))


@mutant
def what_is_wanted_is_forgotten(patch: Patch) -> None:
    move = Engine._move

    def forgetful(self: Engine, instance: Any, step: Any) -> None:
        wanted = instance.desired
        move(self, instance, step)
        instance.desired = wanted

    patch.setattr(Engine, "_move", forgetful)


@likely(RECONCILES)
def a_container_is_said_to_be_gone_without_a_look(patch: Patch) -> None:
    patch.setattr(Clearing, "clear", lambda self, _name, done: self.reactor.call_soon(lambda: done(Cleared(gone=True, why=""))))


@likely(RECONCILES)
def a_removal_that_failed_counts_as_one(patch: Patch) -> None:
    def hopeful(self: Clearing, wanted: list[str]) -> Any:
        yield lambda resume: self.podman.remove(wanted, 0, resume)
        return {}

    patch.setattr(Clearing, "_remove", hopeful)


@likely(RECONCILES)
def a_listing_that_failed_counts_as_an_empty_one(patch: Patch) -> None:
    listing = Podman.list
    empty = Verdict(Outcome.OK, "", ())
    hopeful = lambda done: lambda verdict: done(verdict if verdict.ok else empty)
    patch.setattr(Podman, "list", lambda self, done, **keys: listing(self, hopeful(done), **keys))
    patch.setattr(Podman, "remove", lambda _self, _names, _stop_s, done: done(Verdict(Outcome.OK, "", ())))


@likely(stories.a_full_disk_is_emptied)
def a_full_disk_is_tried_again_by_the_clock_only(patch: Patch) -> None:
    _without(patch, StatePort, "look_for_room")


@likely(stories.a_home_is_full_of_empty_directories)
def a_sweep_looks_at_the_clock_at_files_only(patch: Patch) -> None:
    def heedless(seconds: float = homes.SWEEP_S) -> bool:
        end = homes.time.monotonic() + seconds
        for folder, directories, others in homes.os.walk(homes.TRASH, topdown=False):
            for name in others:
                homes.os.unlink(f"{folder}/{name}")
                if homes.time.monotonic() > end:
                    return True
            for name in directories:
                homes.os.rmdir(f"{folder}/{name}")
        return False

    patch.setattr(homes, "sweep", heedless)


@likely(stories.a_home_is_full_of_empty_directories)
def a_sweep_stops_at_its_first_piece(patch: Patch) -> None:
    sweep = homes.sweep
    patch.setattr(homes, "sweep", lambda: sweep() and False)


@likely(*stories.HANGS)
def nobody_looks_again(patch: Patch) -> None:
    _without(patch, Audit, "_look")


@likely(*stories.HANGS)
def processes_unknown_to_podman_are_left_alone(patch: Patch) -> None:
    _without(patch, Audit, "_end_ghosts")


@mutant
def a_start_is_not_promised(patch: Patch) -> None:
    cell = (S.STOPPED, E.START)
    patch.setitem(PERSONA._by_cell, cell, evolve(PERSONA._by_cell[cell], promised=False))


def _for_one_kind(patch: Patch, group: str, name: str, fault: Callable[..., Any]) -> None:
    """Break the life of the containers in `group`, and of no others."""
    sound = getattr(Life, name)

    def one_of_two(self: Life, *args: Any, **keys: Any) -> Any:
        return (fault if self.kind.group == group else sound)(self, *args, **keys)

    patch.setattr(Life, name, one_of_two)


def _freezing(patch: Patch, fault: Callable[..., Any]) -> None:
    sound = Freezer.change

    def one_of_two(self: Freezer, name: str, live: Any, *, frozen: bool) -> Any:
        if self.group == PERSONA_GROUP:
            return (yield from fault(self, name, live, frozen, sound))
        return (yield from sound(self, name, live, frozen=frozen))

    patch.setattr(Freezer, "change", one_of_two)


@likely(stories.a_freeze_is_slow, stories.a_freeze_never_ends)
def a_freeze_is_believed_before_the_kernel_says_so(patch: Patch) -> None:
    def hasty(_self: Freezer, _name: str, live: Any, frozen: bool, _sound: Any) -> Any:
        yield flow.at_once
        cgroup.freeze(live.directory, frozen=frozen)
        return (E.PAUSED if frozen else E.RESUMED), ""

    _freezing(patch, hasty)


@likely(stories.what_is_paused_is_told_to_end)
def podman_is_believed_over_the_kernel(patch: Patch) -> None:
    def trusting(self: Freezer, name: str, live: Any, frozen: bool, sound: Any) -> Any:
        if frozen:
            return (yield from sound(self, name, live, frozen=True))
        done: Verdict = yield lambda resume: self.means.podman.unpause(names.parse(name).podman, resume)
        said = done.outcome in (Outcome.OK, Outcome.WRONG_STATE)  # "it is not paused": then it must run
        return (E.RESUMED if said else E.FAULT), done.why

    _freezing(patch, trusting)


@likely(stories.a_freeze_that_cannot_be_written_is_overtaken_by_a_stop)
def a_freeze_that_was_overtaken_is_written_all_the_same(patch: Patch) -> None:
    def heedless(self: Freezer, name: str, live: Any, frozen: bool, sound: Any) -> Any:
        sequence, value = sound(self, name, live, frozen=frozen), None
        while True:
            try:
                waitable = sequence.send(value)
            except StopIteration as end:
                return end.value
            value = None if waitable is flow.at_once else (yield waitable)

    _freezing(patch, heedless)


@likely(stories.what_is_paused_is_told_to_end)
def what_is_frozen_is_told_to_end_and_not_thawed(patch: Patch) -> None:
    patch.setattr(cgroup, "thaw", lambda _directory: "")


@likely(stories.all_are_frozen_from_above)
def a_freeze_from_above_is_taken_for_a_failure(patch: Patch) -> None:
    patch.setattr(Freezer, "above", lambda _self: False)


@likely(stories.somebody_pauses_by_podman)
def podman_is_not_told_that_what_it_calls_paused_runs(patch: Patch) -> None:
    patch.setattr(Freezer, "tell_podman", lambda *_: None)


@likely(stories.somebody_pauses_by_podman)
def what_podman_calls_paused_is_not_looked_for(patch: Patch) -> None:
    patch.setattr(Life, "paused_by_podman", lambda *_: None)


@likely(stories.a_focus_moves_on)
def a_switch_asks_everybody_to_stand_still(patch: Patch) -> None:
    patch.setattr(Personas, "runs_behind", lambda *_: False)


@likely(stories.a_focus_moves_on)
def a_switch_ends_before_the_others_stand_still(patch: Patch) -> None:
    patch.setattr(switch, "_there", lambda *_: True)


@likely(stories.a_container_ends_as_something_is_asked_of_it)
def what_is_wanted_stopped_is_started_again(patch: Patch) -> None:
    after_end = reconcile.after_end
    patch.setattr(reconcile, "after_end", lambda end, *, desired, **keys: after_end(end, desired="running", **{**keys, "restart": "always"}))


@likely(stories.a_container_ends_while_it_is_started)
def the_end_of_a_container_is_not_noticed(patch: Patch) -> None:
    patch.setattr(SimWatch, "add", lambda *_: False)
    _for_one_kind(patch, PERSONA_GROUP, "look", lambda *_: None)


@likely(stories.somebody_else_freezes_and_thaws)
def a_freeze_of_somebody_else_is_not_noticed(patch: Patch) -> None:
    def only_ends(self: Life, name: str, live: Any) -> None:
        if self.current(name) is live and not cgroup.populated(live.directory):
            self.send(name, self.kind.words.events.ENDED, "")

    patch.setattr(Life, "look", only_ends)


@likely(stories.starts_wait_for_their_turn_and_some_are_taken_back)
def a_start_that_has_begun_is_taken_back_without_podman(patch: Patch) -> None:
    patch.setattr(Personas, "_cancelled", lambda _self, _name: True)


@likely(stories.a_monitor_is_killed)
def a_turn_is_never_given_back(patch: Patch) -> None:
    patch.setattr(Line, "_over", lambda *_: None)


@likely(stories.storage_is_damaged_while_it_runs)
def podmans_storage_is_mended_at_a_boot_only(patch: Patch) -> None:
    patch.setattr(Mending, "noticed", lambda *_: None)


@likely(stories.storage_is_damaged_while_it_runs)
def podmans_storage_is_set_aside_under_those_who_run(patch: Patch) -> None:
    patch.setattr(Life, "lives", lambda _self: False)


@likely(stories.who_is_copied_does_not_stand_still)
def who_is_copied_may_change(patch: Patch) -> None:
    patch.setattr(Copies, "_changed", lambda *_: None)


@likely(stories.a_copy_of_who_runs_leaves_it_running)
def who_was_frozen_to_be_copied_stays_frozen(patch: Patch) -> None:
    patch.setattr(Copies, "_thaw", lambda *_: None)


@likely(stories.a_copy_is_cut_short)
def what_is_left_of_a_copy_that_was_given_up_is_kept(patch: Patch) -> None:
    patch.setattr(staging, "clear", lambda _wanted: [])


@likely(stories.a_copy_is_cut_short)
def a_copy_is_taken_for_whole_while_it_is_made(patch: Patch) -> None:
    process = Copies._process

    def early(self: Copies, work: Any, source: str, name: str, resume: Callable[[Any], None]) -> None:
        process(self, work, source, name, lambda _copied: None)
        resume(copying.Copied("", 1, 1))

    patch.setattr(Copies, "_process", early)


@likely(stories.a_copy_is_cut_short, stories.a_copy_is_cut_short_and_the_next_boot_too)
def a_copy_is_put_in_its_place_before_it_is_kept_that_it_is_whole(patch: Patch) -> None:
    make = copier.copy

    def early(job: copier.Job) -> object:
        made = make(job)
        staging.place(job.name)
        return made

    patch.setattr(copier, "copy", early)


@likely(stories.going_back_is_cut_between_two_moves)
def what_takes_the_place_of_a_home_is_moved_away_as_the_old_one_was(patch: Patch) -> None:
    look = files.look
    patch.setattr(staging.files, "look", lambda path: None if path.endswith(f"/{staging.OLD}") else look(path))


@likely(stories.going_back_is_cut_short, stories.one_that_went_back_lives_on)
def who_goes_back_keeps_the_manifest_that_it_has(patch: Patch) -> None:
    made = kept.becomes
    patch.setattr(kept, "becomes", lambda instance, *more: None if instance.definition.kind == "persona" else made(instance, *more))


@likely(stories.others_are_copied_while_one_goes_back)
def the_copy_of_who_goes_back_is_taken_for_given_up(patch: Patch) -> None:
    patch.setitem(trash.COPIED, "persona", persona.MADE)


@likely(stories.a_snapshot_is_deleted, stories.snapshots_follow_each_other)
def the_files_of_a_snapshot_stay_when_it_is_deleted(patch: Patch) -> None:
    patch.setattr(staging, "delete", lambda _name: True)


@likely(stories.others_are_copied_while_a_snapshot_is_taken)
def the_copy_that_becomes_a_snapshot_is_taken_for_given_up(patch: Patch) -> None:
    patch.setitem(trash.COPIED, "snapshot", ())


@likely(stories.a_snapshot_is_cut_short)
def half_a_snapshot_is_put_in_its_place(patch: Patch) -> None:
    process = Copies._process

    def early(self: Copies, work: Any, source: str, name: str, resume: Callable[[Any], None]) -> None:
        process(self, work, source, name, lambda _copied: None)
        resume(copying.Copied("", 1, 1, home=True))

    patch.setattr(Copies, "_process", early)


@likely(stories.an_archive_is_not_whole)
def the_checksum_of_an_archive_is_not_waited_for(patch: Patch) -> None:
    following = tarstream.Reader.next

    def heedless(self: tarstream.Reader) -> Any:
        try:
            return following(self)
        except RefusedError:
            return None

    patch.setattr(tarstream.Reader, "next", heedless)


@likely(stories.an_archive_is_brought_in_and_the_power_goes)
def an_archive_is_unpacked_in_its_place(patch: Patch) -> None:
    make = unpack.unpack

    def at_once(job: unpack.Job) -> object:
        made = make(job)
        staging.place(job.name)
        return made

    patch.setattr(unpack, "unpack", at_once)


@likely(stories.a_home_is_to_be_emptied)
def a_reset_empties_the_home_too(patch: Patch) -> None:
    act = PersonaVerbs.act
    patch.setattr(PersonaVerbs, "act", lambda self, event, params, reply: act(self, event, {**params, "home": event in (E.RESET, E.REMOVE)}, reply))


@likely(stories.a_container_ends_while_it_is_started)
def a_home_is_made_anew_for_each_start(patch: Patch) -> None:
    prepare_home = homes.prepare
    patch.setattr(homes, "prepare", lambda name, *, home: (homes.empty(name), prepare_home(name, home=home))[1])


@likely(*stories.HANGS)
def a_verb_waits_as_long_as_it_takes(patch: Patch) -> None:
    def patient(self: Outcomes, instance: Any, *, wait: bool, then: Callable[[bool], None]) -> None:
        self._waiters.append(Waiter(instance, then))

    patch.setattr(Outcomes, "when_rested", patient)


@likely(stories.one_write_fails_with_more_behind_it)
def a_boot_goes_on_with_what_was_wanted_before(patch: Patch) -> None:
    autostart = Personas.autostart

    def loyal(self: Personas) -> None:
        self._waiting.update(i.name for i in self.engine.of_kind("persona") if i.now is S.STOPPED)
        autostart(self)

    patch.setattr(Personas, "autostart", loyal)


# ---- the AI


def _cells(patch: Patch, *cells: tuple[ServerS, ServerE], **changes: Any) -> None:
    for cell in cells:
        patch.setitem(SERVER._by_cell, cell, evolve(SERVER._by_cell[cell], **changes))


@likely(stories.it_is_changed_and_the_power_goes)
def a_persona_is_changed_without_a_promise(patch: Patch) -> None:
    for state in (S.STOPPED, S.FAILED, S.RUNNING, S.PAUSED):
        cell = (state, E.CONFIGURE)
        patch.setitem(PERSONA._by_cell, cell, evolve(PERSONA._by_cell[cell], promised=False))


@likely(stories.it_is_changed_and_the_power_goes)
def a_change_of_a_persona_is_told_before_it_is_durable(patch: Patch) -> None:
    configure = Changing.configure

    def hasty(self: Changing, params: Any, reply: Any) -> None:
        configure(self, params, lambda _answer: None)
        reply({"changed": {}, "failed": ""})

    patch.setattr(Changing, "configure", hasty)


@likely(stories.it_is_changed_and_the_power_goes)
def a_change_of_a_persona_takes_its_uid_range(patch: Patch) -> None:
    text = personas.Config.text
    patch.setattr(personas.Config, "text", lambda self: text(evolve(self, slot=self.slot + ("1073741824" in text(self)))))


@likely(stories.a_restart_meets_a_stop)
def a_stop_of_a_persona_does_not_end_its_restart(patch: Patch) -> None:
    patch.setattr(Restarts, "not_wanted", lambda _self, _name: None)
    stepped = Restarts._stepped

    def stubborn(self: Restarts, instance: Any, step: Any) -> None:
        wanted = self._under_way.get(instance.name)
        stepped(self, instance, step)
        if wanted is not None and step.event == E.STOP.value:
            self._under_way[instance.name] = step.n

    patch.setattr(Restarts, "_stepped", stubborn)


@likely(aistories.its_start_is_cut_short)
def the_ai_is_said_to_be_gone_and_its_container_stays(patch: Patch) -> None:
    def careless(self: Life, instance: Any) -> Any:
        self._unwatch(instance.name)
        self._live.pop(instance.name, None)
        return self.kind.after_end(instance, reconcile.End("cleared"))
        yield

    _for_one_kind(patch, TENANTS, "_clear", careless)


@likely(aistories.it_takes_each_boot_down)
def attempts_of_the_ai_are_counted_when_they_have_failed(patch: Patch) -> None:
    _cells(patch, (ServerS.STOPPED, ServerE.AUTOSTART), (ServerS.WAITING, ServerE.WAITED), tries=Tries.KEEP)
    _cells(patch, (ServerS.CONVERGING, ServerE.RETRY), tries=Tries.COUNT)


@likely(aistories.it_takes_each_boot_down)
def a_failing_start_of_the_ai_forgets_its_attempts(patch: Patch) -> None:
    _cells(patch, (ServerS.STARTING, ServerE.STARTED), tries=Tries.FORGET)


@likely(aistories.it_is_configured_and_the_power_goes)
def the_ai_is_configured_without_a_promise(patch: Patch) -> None:
    _cells(patch, *((state, ServerE.CONFIGURE) for state in (ServerS.STOPPED, ServerS.READY, ServerS.PAUSED)), promised=False)


@likely(aistories.it_is_configured_and_the_power_goes)
def a_configuration_is_answered_before_it_is_durable(patch: Patch) -> None:
    keep = TenantVerbs._keep

    def hasty(self: TenantVerbs, instance: Any, changes: Any, reply: Any) -> None:
        reply({**self._facts(instance), **changes})
        keep(self, instance, changes, lambda _answer: None)

    patch.setattr(TenantVerbs, "_keep", hasty)


@likely(aistories.it_is_configured_and_the_power_goes)
def a_configuration_is_a_change_to_what_was_there_when_it_was_asked_for(patch: Patch) -> None:
    def at_once(self: TenantVerbs, instance: Any, changes: Any, reply: Any) -> None:
        self._changing.append(lambda: None)
        self._keep_now(instance, changes, reply)

    patch.setattr(TenantVerbs, "_keep", at_once)


@likely(aistories.a_restart_is_overtaken)
def a_restart_is_remembered_for_ever(patch: Patch) -> None:
    stepped = Servers._stepped

    def loyal(self: Servers, instance: Any, step: Any) -> None:
        wanted = self._restarts
        stepped(self, instance, step)
        self._restarts = self._restarts or wanted

    patch.setattr(Servers, "_stepped", loyal)


@likely(aistories.a_restart_is_overtaken)
def a_stop_of_the_ai_does_not_end_its_restart(patch: Patch) -> None:
    _without(patch, Servers, "no_start")


@likely(aistories.it_is_configured_and_the_power_goes)
def the_ai_starts_with_the_spine_whatever_is_configured(patch: Patch) -> None:
    def eager(self: Servers, _images: Any) -> None:
        (ai,) = self.engine.of_kind("server")
        if ai.now is ServerS.STOPPED:
            self._wait_for_rest(ai)

    patch.setattr(Servers, "autostart", eager)


@likely(aistories.it_ends_again_and_again)
def the_end_of_the_ai_is_not_noticed(patch: Patch) -> None:
    _for_one_kind(patch, TENANTS, "look", lambda *_: None)
    _without(patch, Servers, "_monitor_ended")


@likely(aistories.the_kernel_does_not_confirm_it)
def the_envelope_of_the_ai_is_not_read_back(patch: Patch) -> None:
    patch.setattr(Servers, "_compared", lambda *_: ("", 7))


# ---- the ways to the AI


@likely(grantstories.a_manifest_is_edited)
def a_door_is_not_closed_at_a_stop(patch: Patch) -> None:
    _without(patch, Personas, "_leaves")


@likely(grantstories.a_manifest_is_edited)
def one_that_was_not_granted_the_ai_gets_a_door(patch: Patch) -> None:
    spec = Personas._spec

    def generous(self: Personas, instance: Any, name: Any, config: Any) -> Any:
        return spec(self, instance, name, evolve(config, manifest=evolve(config.manifest, ai=True)))

    patch.setattr(Personas, "_spec", generous)


@likely(grantstories.a_manifest_is_edited)
def two_personas_share_a_door(patch: Patch) -> None:
    prepare = Umbilical.prepare

    def thrifty(self: Umbilical, name: str) -> str:
        other = next((door for each, door in self._doors.items() if each not in ("console", name)), None)
        if other is not None:
            self._doors[name] = evolve(other, name=name)
        return prepare(self, name) if other is None else other.path.rpartition("/")[0]

    patch.setattr(Umbilical, "prepare", thrifty)


@likely(grantstories.a_forwarder_ends_as_doors_open_and_close)
def doors_are_not_handed_to_the_next_forwarder(patch: Patch) -> None:
    hello = Umbilical._hello

    def forgetful(self: Umbilical, message: Any) -> None:
        first, doors = not self.pid, self._doors
        self._doors = doors if first else {}
        hello(self, message)
        self._doors = doors

    patch.setattr(Umbilical, "_hello", forgetful)


@likely(grantstories.a_forwarder_ends_as_doors_open_and_close)
def the_forwarder_does_not_hear_of_a_door_that_is_closed(patch: Patch) -> None:
    send = Link.send
    patch.setattr(Link, "send", lambda self, message, *rest: None if message["op"] == "revoke" else send(self, message, *rest))


@likely(grantstories.a_start_is_overtaken)
def a_start_that_was_overtaken_opens_a_door(patch: Patch) -> None:
    as_long_as = flow.as_long_as

    def heedless(sequence: Any) -> Any:
        value = None
        while True:
            try:
                waitable = sequence.send(value)
            except StopIteration as end:
                return end.value
            value = None if waitable is flow.at_once else (yield waitable)

    patch.setattr(flow, "as_long_as", lambda true, sequence: as_long_as(true, heedless(sequence)))


@likely(grantstories.a_boot_finds_the_forwarder_of_an_earlier_one)
def a_forwarder_whose_machine_was_on_its_way_to_rest_is_not_started(patch: Patch) -> None:
    _without(patch, Umbilical, "_stopped")


@likely(grantstories.a_forwarder_hangs)
def a_forwarder_that_never_speaks_is_waited_for(patch: Patch) -> None:
    lend = Link.lend
    patch.setattr(Link, "lend", lambda self, _bound_s: lend(self, 1e6))


@likely(grantstories.one_that_outlives_its_container_does_not_find_the_next_door)
def the_next_door_is_in_the_old_directory(patch: Patch) -> None:
    patch.setattr(umbilicalport, "_remove", lambda path: os.path.exists(path) and os.unlink(path))



@pytest.mark.parametrize("fault", MUTANTS, ids=lambda fault: fault.__name__)
def test_the_suite_sees_that(fault: Mutant, monkeypatch: Patch) -> None:
    fault(monkeypatch)
    found = hunt(FIRST.get(fault, []))
    assert found is not None, "nothing noticed it"
    print(f"hunt {found[0]}: {found[1][:160]}")


def test_the_hunts_find_nothing_in_the_program_itself(size: Size) -> None:
    if not size.whole:
        pytest.skip("the other tests of this folder run all of it; nightly runs it as it is here")
    assert hunt([]) is None
