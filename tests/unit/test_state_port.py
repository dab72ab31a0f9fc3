"""What a commit means now: on disk while storage is healthy, else in memory until it is; and how storage opens, wedges and comes back."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from kit import E, HandClock, Launcher, Log, PlayedWorker, S, small

from bay0.base.bounds import Bounds
from bay0.base.errors import RefusedError
from bay0.machines.engine import WHY_MAX, Engine
from bay0.machines.instance import Step
from bay0.machines.storage import E as Storage
from bay0.machines.storage import S as Health
from bay0.personas.manifest import WIRE_MAX, Manifest
from bay0.personas.port import Config
from bay0.state import link, unwritten, worker
from bay0.state.port import LAZY_FLUSH_S, StatePort
from bay0.state.unwritten import CHUNK, MEMORY_MAX, UNSYNCED_MAX

BOOT = {"boot_id": "b1", "version": "0.1.0", "kernel": "6.18", "started_wall": 1}
FINE: dict[str, Any] = {
    "hello": 1, "find": ["/dev/vda"], "mount": "/dev/vda", "open": {"version": 1}, "migrate": {"ran": 0, "version": 1}, "machines": [[], False],
    "prefer": {}, "time_load": {"seconds": None, "why": "", "read": True}, "time_save": 1, "farewell": {"time": 1, "seed": "new", "failed": []},
    "seed_use": {"found": "none", "mixed": False, "credited": False, "why": ""}, "seed_renew": {"written": True, "state": "new", "why": ""},
    "stage": 0, "flush": 0, "commit": 1, "genesis": True, "probe": {"bytes": 9},
    "room": {"bytes_free": 0, "files_free": 0}, "close": {"checkpointed": True},
}  # fmt: skip


class Bench:
    """The real engine, port and link; the worker is played, the clock moved by hand."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.launcher = Launcher()
        self.log = Log()
        self.answers: list[Any] = []
        self.bounds = Bounds()
        self.engine = Engine("b1", self.clock.reactor, lambda: int(self.clock.now * 1000), self.log)
        self.saved = SimpleNamespace(found=lambda _found: None, good=lambda: None)
        self.held: list[str] = []
        self.port = StatePort(
            self.engine, self.clock.reactor, self.bounds, self.log, self.launcher, BOOT, self.saved, held=lambda: self.held.append("held"),
        )  # fmt: skip
        self.engine.keep_with(self.port)
        self.engine.serve("storage", self.port)
        self.engine.serve("small", self)
        self.storage = self.port.storage
        self.one = self.engine.add("one", small())
        self.effects: list[str] = []

    def start(self, instance: Any, effect: Any, token: int) -> None:
        """The effect port of others than storage."""
        self.effects.append(f"{instance.name} {effect.value}")

    def send(self, event: E, machine: str = "one") -> None:
        self.engine.send(machine, event, reply=self.answers.append)

    def serve(self, *unanswered: str, failing: dict[str, str] | None = None, **answers: Any) -> list[str]:
        """Let the worker answer everything that is asked, and say what that was."""
        seen = []
        asked = True
        while asked:
            self.clock.wait()
            asked = self.launcher.workers and not self.launcher.last.killed and self.launcher.last.requests()
            for request in asked or ():
                seen.append(request["op"])
                if request["op"] in (failing or {}):
                    self.launcher.last.fail(request, (failing or {})[request["op"]])
                elif request["op"] not in unanswered:
                    self.launcher.last.answer(request, {**FINE, **answers}[request["op"]])
        return seen

    def attach(self, **answers: Any) -> Bench:
        self.engine.send("storage:b1", Storage.ATTACH)
        self.serve(**answers)
        return self

    @property
    def health(self) -> Health:
        return self.storage.now  # type: ignore[return-value]

    @property
    def worker(self) -> PlayedWorker:
        return self.launcher.last

    def journaled(self, op: str = "commit") -> list[int]:
        """The numbers of the steps that were sent with `op`, in order."""
        return [step["n"] for request in self.worker.seen if request["op"] == op for step in request["steps"]]

    def wedge(self) -> None:
        """Miss the bound of a commit."""
        self.send(E.WORK)
        self.clock.wait(self.bounds.commit + 0.01)


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def healthy() -> Bench:
    made = Bench().attach()
    assert made.health is Health.DURABLE
    made.clock.wait(LAZY_FLUSH_S + 0.1)
    made.serve()
    assert made.port.memory == {}
    return made


# ---- opening


def test_opening_goes_through_its_stages_in_order(bench: Bench) -> None:
    bench.engine.send("storage:b1", Storage.ATTACH)
    assert bench.serve() == ["hello", "find", "mount", "prefer", "time_load", "open", "migrate", "machines", "stage", "flush"]
    assert bench.health is Health.DURABLE
    assert bench.port.device == "/dev/vda"
    assert [event for event in bench.log.events() if "persist" in event or "state db" in event] == [
        "persist mount attempt",
        "persist mounted",
        "state db open/migrate",
    ]


@pytest.mark.parametrize(
    ("op", "code", "health"),
    [
        ("find", "no_device", Health.DETACHED),
        ("mount", "unmountable", Health.DETACHED),
        ("mount", "unwritable", Health.READONLY),
        ("open", "newer", Health.READONLY),
        ("open", "damaged", Health.READONLY),
        ("migrate", "full", Health.FULL),
        ("open", "fault", Health.WEDGED),
        ("machines", "fault", Health.WEDGED),
        ("flush", "full", Health.FULL),
    ],
)
def test_a_stage_that_fails_ends_the_opening_with_what_it_means(bench: Bench, op: str, code: str, health: Health) -> None:
    bench.engine.send("storage:b1", Storage.ATTACH)
    seen = bench.serve(failing={op: code})
    assert [each for each in seen if each != "room"][-1] == op
    assert bench.health is health


@pytest.mark.parametrize("op", ["hello", "find", "mount", "open", "migrate", "machines", "flush"])
def test_each_stage_has_its_own_bound_and_missing_it_wedges(bench: Bench, op: str) -> None:
    bench.engine.send("storage:b1", Storage.ATTACH)
    bench.serve(op)
    bound = {"hello": "worker_start", "machines": "read"}.get(op, op)
    bench.clock.wait(getattr(bench.bounds, bound) - 0.01)
    assert bench.health is Health.OPENING
    bench.clock.wait(0.02)
    assert bench.health is Health.WEDGED
    assert bench.worker.killed == 1


def test_a_worker_that_cannot_be_started_is_tried_again(bench: Bench) -> None:
    bench.launcher.failing = 2
    bench.engine.send("storage:b1", Storage.ATTACH)
    bench.clock.wait()
    assert bench.health is Health.WEDGED
    for _ in range(40):
        bench.clock.wait(0.1)
        bench.serve()
    assert bench.health is Health.DURABLE


def test_what_was_stored_is_read_once_and_without_this_boots_own(bench: Bench) -> None:
    rows = [{"name": "a", "boot_id": "b0"}, {"name": "storage:b1", "boot_id": "b1"}]
    bench.attach(machines=[rows, False])
    assert bench.port.stored == [rows[0]]


# ---- what a commit means


def test_before_the_disk_is_there_a_commit_is_volatile_and_written_out_when_it_comes(bench: Bench) -> None:
    bench.send(E.WORK)
    assert bench.one.now is S.WORKING
    assert bench.effects == ["one do"]
    bench.send(E.CONVERGE)
    bench.attach()
    assert bench.journaled("stage") == sorted(bench.journaled("stage")) == [1, 2, 3], "the machine's two steps and storage's own"
    bench.clock.wait(LAZY_FLUSH_S + 0.1)
    bench.serve()
    assert bench.port.memory == {}


def test_while_healthy_a_commit_is_durable_before_memory_moves(healthy: Bench) -> None:
    healthy.send(E.WORK)
    assert healthy.one.now is S.IDLE
    healthy.serve()
    assert healthy.one.now is S.WORKING
    assert healthy.log.of("step")[-1]["kept"] == "durable"
    assert healthy.port.memory == {}


def test_only_a_promise_is_synced_to_the_disk(healthy: Bench) -> None:
    healthy.send(E.STORE)
    healthy.serve()
    assert [request["full"] for request in healthy.worker.seen if request["op"] == "commit"][-1] is True
    healthy.send(E.CONVERGE)
    healthy.serve()
    assert [request["full"] for request in healthy.worker.seen if request["op"] == "commit"][-1] is False


def test_storages_own_steps_never_wait_for_the_disk_and_are_written_out_soon(healthy: Bench) -> None:
    healthy.engine.send("storage:b1", Storage.UNWRITABLE)
    assert healthy.health is Health.READONLY
    made = Bench().attach()
    opened = made.log.of("step")[-1]
    assert (opened["dest"], opened["kept"]) == ("durable", "volatile")
    assert made.port.memory != {}
    made.clock.wait(LAZY_FLUSH_S + 0.1)
    made.serve()
    assert made.port.memory == {}


def test_a_commit_that_times_out_is_volatile_unless_it_was_promised(healthy: Bench) -> None:
    healthy.wedge()
    assert healthy.health is Health.WEDGED
    assert healthy.one.now is S.WORKING
    assert healthy.effects == ["one do"]
    assert healthy.log.of("step")[-2]["kept"] == "volatile" or healthy.log.of("step")[-1]["kept"] == "volatile"


def test_a_promise_that_times_out_is_unknown_and_converged_without_effect(healthy: Bench) -> None:
    healthy.send(E.STORE)
    healthy.clock.wait(healthy.bounds.commit + 0.01)
    assert healthy.one.now is S.ENDING
    assert healthy.effects == ["one end"]
    assert isinstance(healthy.answers[0], RefusedError)
    assert "did not say whether it kept this" in str(healthy.answers[0])


def test_a_promise_the_worker_died_over_is_unknown_too(healthy: Bench) -> None:
    healthy.send(E.STORE)
    healthy.worker.die()
    healthy.clock.wait()
    assert healthy.one.now is S.ENDING
    assert healthy.effects == ["one end"]


def test_a_promise_whose_sync_failed_is_unknown_too_since_it_may_be_there(healthy: Bench) -> None:
    healthy.send(E.STORE)
    healthy.serve(failing={"commit": "unsure"})
    assert healthy.one.now is S.ENDING
    assert healthy.effects == ["one end"]
    assert "did not say whether it kept this" in str(healthy.answers[0])
    assert "one" in [step.machine for step in healthy.port.memory.values()], "it is written again, under its number"
    assert healthy.worker.killed


def test_a_promise_the_disk_declined_changes_nothing_and_is_not_kept_for_later(healthy: Bench) -> None:
    healthy.send(E.STORE)
    healthy.serve(failing={"commit": "full"})
    assert healthy.one.now is S.IDLE
    assert "the disk did not take it; nothing was changed" in str(healthy.answers[0])
    assert [step.machine for step in healthy.port.memory.values()] == ["storage:b1"]
    assert healthy.health is Health.FULL


@pytest.mark.parametrize("health", ["detached", "opening", "wedged", "full", "readonly"])
def test_a_promise_is_refused_at_once_while_storage_is_not_durable(health: str) -> None:
    bench = Bench()
    if health == "opening":
        bench.engine.send("storage:b1", Storage.ATTACH)
    elif health in ("wedged", "full", "readonly"):
        bench.attach()
        bench.engine.send("storage:b1", {"wedged": Storage.MISSED, "full": Storage.FULL, "readonly": Storage.UNWRITABLE}[health])
    bench.send(E.STORE)
    assert str(bench.answers[0]) == f"storage is {health}; nothing was changed"
    assert bench.one.now is S.IDLE
    bench.send(E.WORK)
    assert bench.one.now is S.WORKING, "what leads to stopped or promises nothing goes on"


def test_a_commit_that_failed_is_sent_again_with_the_next_one(healthy: Bench) -> None:
    healthy.send(E.WORK)
    healthy.serve("commit")
    lost = healthy.worker.seen[-1]
    healthy.worker.fail(lost, "damaged")
    healthy.clock.wait()
    assert healthy.health is Health.READONLY
    healthy.engine.send("storage:b1", Storage.RETRY)
    old = healthy.worker
    old.die()
    healthy.serve()
    assert healthy.health is Health.DURABLE
    assert lost["steps"][0]["n"] in healthy.journaled("stage")


def test_a_long_memory_is_committed_in_packets_and_the_answer_waits_for_all(healthy: Bench) -> None:
    steps = [Step("b1", 1000 + n, "two", "small", n, "idle", "work", "working", "a reason of some length, as they are" * 2, 0) for n in range(1500)]
    for step in steps:
        healthy.port._unwritten.remember(step)
    healthy.send(E.WORK)
    healthy.serve()
    assert healthy.one.now is S.WORKING
    assert healthy.health is Health.DURABLE
    sizes = [len(request["steps"]) for request in healthy.worker.seen if request["op"] == "commit"]
    assert max(sizes) <= CHUNK
    numbers = healthy.journaled()
    assert set(numbers) >= {step.n for step in steps}
    assert healthy.port.memory == {}


# ---- the memory journal


def test_memory_is_bounded_and_what_it_loses_is_counted(bench: Bench) -> None:
    for _ in range((MEMORY_MAX + 100) // 2):
        bench.engine.send("one", E.WORK)
        bench.engine.send("one", E.CONVERGE)
        bench.engine.outcome("one", bench.one.committed.n if bench.one.committed else 0, E.DONE)
    assert len(bench.port.memory) == MEMORY_MAX
    assert bench.port._unwritten.lost > 0
    numbers = list(bench.port.memory)
    assert numbers == list(range(numbers[0], numbers[0] + MEMORY_MAX)), "the newest are kept, in order"


def test_the_flush_writes_everything_in_order_of_number_in_one_transaction(healthy: Bench) -> None:
    healthy.wedge()
    for _ in range(CHUNK):
        healthy.send(E.CONVERGE)
        healthy.clock.wait()
    healthy.worker.die()
    healthy.clock.wait(1)
    seen = healthy.serve()
    assert healthy.health is Health.DURABLE
    assert seen.count("stage") > 1
    assert seen.count("flush") == 1
    numbers = healthy.journaled("stage")
    assert numbers == sorted(set(numbers))
    assert healthy.log.of("memory journal written out")[-1]["steps"] == len(numbers)


def test_steps_taken_while_the_flush_is_under_way_are_not_lost(healthy: Bench) -> None:
    healthy.wedge()
    healthy.worker.die()
    healthy.clock.wait(1)
    healthy.serve("flush")
    assert healthy.health is Health.REATTACHING
    healthy.send(E.CONVERGE)
    number = healthy.one.committed.n if healthy.one.committed else 0
    healthy.worker.answer(healthy.worker.seen[-1], 1)
    healthy.clock.wait()
    assert healthy.health is Health.DURABLE
    assert number in healthy.port.memory
    healthy.clock.wait(LAZY_FLUSH_S + 0.1)
    healthy.serve()
    assert number in healthy.journaled()
    assert healthy.port.memory == {}


def test_what_was_committed_without_a_sync_is_written_again_by_the_next_worker_in_its_place(healthy: Bench) -> None:
    """The disk may have failed to write it after all, and later steps would stand in the journal behind a gap."""
    healthy.serve()
    before = healthy.one.seq
    healthy.send(E.WORK)
    healthy.serve()
    number = healthy.one.committed.n if healthy.one.committed else 0
    assert (healthy.one.seq, healthy.port.memory) == (before + 1, {})
    healthy.worker.die()
    healthy.clock.wait(1)
    healthy.serve()
    assert number in healthy.journaled("stage")
    assert healthy.journaled("stage") == sorted(healthy.journaled("stage"))


def test_what_a_sync_has_vouched_for_is_not_written_again(healthy: Bench) -> None:
    healthy.clock.wait(LAZY_FLUSH_S + 0.1)
    healthy.serve()
    assert healthy.port._unwritten.unsynced != {}, "storage's own step is no promise"
    healthy.send(E.STORE)
    healthy.serve()
    promised = healthy.one.committed.n if healthy.one.committed else 0
    healthy.worker.die()
    healthy.clock.wait(1)
    healthy.serve()
    assert min(healthy.journaled("stage")) > promised


def test_now_and_then_a_sync_vouches_for_what_nobody_was_promised(healthy: Bench) -> None:
    for _ in range(UNSYNCED_MAX):
        healthy.send(E.WORK)
        healthy.serve()
        healthy.send(E.CONVERGE)
        healthy.serve()
    commits = [request["full"] for request in healthy.worker.seen if request["op"] == "commit"]
    assert any(commits)
    assert len(healthy.port._unwritten.unsynced) <= UNSYNCED_MAX


def test_a_promise_that_waits_as_storage_is_closed_is_refused_and_not_written_all_the_same(healthy: Bench) -> None:
    two = healthy.engine.add("two", small())
    healthy.engine.on("small", of=healthy.one, call=lambda _instance, _step: healthy.engine.send("storage:b1", Storage.CLOSE))
    healthy.send(E.WORK)
    healthy.send(E.STORE, "two")
    promised = two.pending.n if two.pending else 0
    healthy.serve()
    assert healthy.health is Health.CLOSED
    assert "nothing was changed" in str(healthy.answers[-1])
    assert promised not in healthy.journaled() + healthy.journaled("stage")


def test_a_flush_that_fails_keeps_the_memory(healthy: Bench) -> None:
    healthy.wedge()
    kept = set(healthy.port.memory)
    healthy.worker.die()
    healthy.clock.wait(1)
    healthy.serve(failing={"flush": "full"})
    assert healthy.health is Health.FULL
    assert kept <= set(healthy.port.memory)


# ---- wedged and back


def test_a_new_worker_starts_only_after_the_old_one_has_ended(healthy: Bench) -> None:
    healthy.wedge()
    healthy.clock.wait(1000)
    assert len(healthy.launcher.workers) == 1
    assert healthy.port.link.left_behind == 1
    healthy.worker.die()
    healthy.clock.wait(1)
    assert len(healthy.launcher.workers) == 2
    healthy.serve()
    assert healthy.health is Health.DURABLE


def test_an_operators_retry_is_refused_while_the_old_worker_hangs(healthy: Bench) -> None:
    healthy.wedge()
    healthy.engine.send("storage:b1", Storage.RETRY, reply=healthy.answers.append)
    assert "still hangs on the disk" in str(healthy.answers[-1])


def test_a_worker_with_a_fault_is_replaced(healthy: Bench) -> None:
    healthy.send(E.WORK)
    healthy.serve(failing={"commit": "fault"})
    assert healthy.health is Health.WEDGED
    assert healthy.worker.killed == 1
    healthy.worker.die()
    healthy.clock.wait(1)
    healthy.serve()
    assert healthy.health is Health.DURABLE


def test_a_worker_that_dies_is_replaced_and_nothing_is_lost(healthy: Bench) -> None:
    healthy.worker.die()
    healthy.send(E.WORK)
    assert healthy.one.now is S.WORKING
    healthy.clock.wait(1)
    healthy.serve()
    assert healthy.health is Health.DURABLE
    assert any(step["machine"] == "one" for request in healthy.worker.seen if request["op"] == "stage" for step in request["steps"])


def test_a_dead_disk_that_flaps_always_comes_back(healthy: Bench) -> None:
    for _ in range(10):
        healthy.send(E.WORK if healthy.one.now is S.IDLE else E.CONVERGE)
        healthy.clock.wait(healthy.bounds.commit + 0.1)
        assert healthy.health is Health.WEDGED
        healthy.worker.die()
        healthy.clock.wait(31)
        healthy.serve()
        assert healthy.health is Health.DURABLE


def test_a_worker_that_hangs_while_it_is_replaced_is_still_waited_for_after_the_deadline(healthy: Bench) -> None:
    """READONLY, asked to try again, and the old worker does not die: the deadline of REATTACHING passes, then the disk comes back."""
    healthy.engine.send("storage:b1", Storage.UNWRITABLE)
    healthy.engine.send("storage:b1", Storage.RETRY)
    healthy.clock.wait(26)
    assert healthy.health is Health.WEDGED
    healthy.worker.die()
    for _ in range(70):
        healthy.clock.wait(1)
        healthy.serve()
    assert healthy.health is Health.DURABLE
    assert healthy.port.link.left_behind == 0


def test_an_opening_that_outlives_its_deadline_is_given_up_and_tried_anew(healthy: Bench) -> None:
    """Each stage within its bound, but all together too long: the worker must not live on under a state that waits for its end."""
    healthy.wedge()
    for _ in range(60 * CHUNK // 2):
        healthy.engine.send("one", E.CONVERGE)
    healthy.worker.die()
    healthy.clock.wait(1)
    for _ in range(100):  # each answer takes nearly its bound
        if healthy.health is not Health.REATTACHING:
            break
        for request in healthy.worker.requests():
            healthy.clock.wait(0.15 if request["op"] == "machines" else 0.9)
            if not healthy.worker.killed:
                healthy.worker.answer(request, {**FINE}[request["op"]])
        healthy.clock.wait()
    assert healthy.health is Health.WEDGED, "25 s are over"
    healthy.serve()
    assert healthy.worker.killed == 1
    healthy.worker.die()
    for _ in range(40):
        healthy.clock.wait(1)
        healthy.serve()
    assert healthy.health is Health.DURABLE


def test_nothing_is_opened_any_more_once_storage_is_closed(healthy: Bench) -> None:
    healthy.engine.send("storage:b1", Storage.UNWRITABLE)
    healthy.engine.send("storage:b1", Storage.RETRY)
    healthy.clock.wait(26)
    healthy.engine.send("storage:b1", Storage.CLOSE)
    assert healthy.health is Health.CLOSED
    healthy.worker.die()
    for _ in range(40):
        healthy.clock.wait(1)
        healthy.serve()
    assert len(healthy.launcher.workers) == 1
    assert healthy.health is Health.CLOSED


# ---- read-only, probes, closing


def test_who_holds_a_dead_filesystem_is_told_to_go_and_it_is_looked_at_again(bench: Bench) -> None:
    told: list[int] = []
    bench.port.held = lambda: told.append(1)
    bench.engine.send("storage:b1", Storage.ATTACH)
    bench.serve(failing={"mount": "busy"})
    assert (bench.health, told) == (Health.READONLY, [1])
    bench.clock.wait(bench.bounds.storage_retry + 0.1)
    assert bench.port.worth_retrying()


def test_a_disk_that_could_not_be_mounted_is_looked_at_again_after_a_while_and_none_at_all_is_not(bench: Bench) -> None:
    bench.engine.send("storage:b1", Storage.ATTACH)
    bench.serve(failing={"mount": "unmountable"})
    bench.clock.wait(bench.bounds.storage_retry + 0.1)
    assert bench.port.worth_retrying()
    other = Bench()
    other.engine.send("storage:b1", Storage.ATTACH)
    other.serve(failing={"find": "no_device"})
    other.clock.wait(other.bounds.storage_retry + 0.1)
    assert not other.port.worth_retrying()


def test_a_full_disk_is_looked_at_again_after_a_while_and_a_newer_database_is_not(bench: Bench) -> None:
    bench.engine.send("storage:b1", Storage.ATTACH)
    bench.serve(failing={"migrate": "full"})
    assert not bench.port.worth_retrying()
    bench.clock.wait(bench.bounds.storage_retry + 0.1)
    assert bench.port.worth_retrying()
    assert not bench.port.worth_retrying(), "once a while"
    other = Bench()
    other.engine.send("storage:b1", Storage.ATTACH)
    other.serve(failing={"open": "newer"})
    other.clock.wait(1000)
    assert not other.port.worth_retrying()


def test_room_on_a_full_disk_is_noticed_without_writing_to_it_and_a_little_is_not_worth_a_try(healthy: Bench) -> None:
    freed: list[int] = []

    def look(**free: int) -> list[str]:
        healthy.port.look_for_room(lambda: freed.append(1))
        return healthy.serve(room={"bytes_free": 0, "files_free": 0} | free)

    assert look() == [], "it is not full"
    healthy.send(E.STORE)
    healthy.serve(failing={"commit": "full"}, room={"bytes_free": 4096, "files_free": 3})
    assert healthy.health is Health.FULL
    assert look(bytes_free=4096, files_free=3) == ["room"]
    look(bytes_free=100_000)
    assert freed == []
    look(bytes_free=2 << 20)
    assert freed == [1]
    look(files_free=500)
    assert freed == [1, 1]
    assert healthy.port.room.last == {"bytes_free": 0, "files_free": 500}, "`bay0 storage` shows it"


def test_a_full_disk_that_does_not_say_how_full_it_is_is_wedged(healthy: Bench) -> None:
    healthy.send(E.STORE)
    healthy.serve(failing={"commit": "full"})
    healthy.port.look_for_room(lambda: None)
    healthy.clock.wait(healthy.bounds.commit + 0.01)
    assert healthy.health is Health.WEDGED


def test_a_probe_that_is_not_answered_wedges(healthy: Bench) -> None:
    healthy.port.probe("x")
    healthy.clock.wait(healthy.bounds.commit + 0.01)
    assert healthy.health is Health.WEDGED


def test_a_probe_brings_the_room_there_is(healthy: Bench) -> None:
    assert healthy.port.room.last is None
    healthy.port.probe("x")
    healthy.serve()
    assert healthy.port.room.last == {"bytes": 9}


def test_probes_and_genesis_lines_are_not_sent_to_a_disk_that_is_not_healthy(bench: Bench) -> None:
    bench.port.probe("x")
    bench.port.append_genesis(["x"])
    bench.clock.wait()
    assert bench.launcher.workers == []


def test_something_in_the_way_of_one_file_is_said_once_and_is_no_trouble_of_the_disks(healthy: Bench) -> None:
    for _ in range(3):
        healthy.port.append_genesis(["x"])
        healthy.port.probe("x")
        healthy.serve(failing={"genesis": "misplaced", "probe": "misplaced"})
    assert healthy.health is Health.DURABLE
    assert len(healthy.log.of("not written on /persist")) == 1, "the reason of both is the same here"
    healthy.send(E.WORK)
    healthy.serve()
    assert healthy.one.committed is not None
    assert healthy.journaled()[-1:] == [healthy.one.committed.n], "and steps are kept"


def test_a_database_that_is_no_file_is_read_only_with_its_reason_and_no_worker_is_replaced(bench: Bench) -> None:
    bench.engine.send("storage:b1", Storage.ATTACH)
    bench.serve(failing={"open": "misplaced"})
    assert bench.health is Health.READONLY
    assert bench.storage.committed is not None
    assert "cannot be written: because" in bench.storage.committed.why
    assert len(bench.launcher.workers) == 1
    bench.clock.wait(1000)
    assert not bench.port.worth_retrying(), "it does not mend itself"


def test_what_a_worker_found_in_the_way_is_logged_with_its_path(healthy: Bench) -> None:
    healthy.port.probe("x")
    healthy.clock.wait()
    (request,) = healthy.worker.requests()
    aside = {"path": "/persist/spine/alive", "found": "a FIFO", "now": "/persist/spine/alive.set-aside"}
    left = {"path": "/persist/images/spine-ai.tar", "found": "a FIFO", "now": ""}
    healthy.worker.answer(request, {"bytes": 9}, misplaced=[aside, left])
    healthy.clock.wait()
    assert healthy.log.of("set aside on /persist") == [aside]
    assert healthy.log.of("left alone on /persist") == [left]


def test_a_genesis_line_that_the_disk_refuses_is_storages_business(healthy: Bench) -> None:
    healthy.port.append_genesis(["x"])
    healthy.serve(failing={"genesis": "full"})
    assert healthy.health is Health.FULL


def test_closing_writes_what_is_in_memory_then_closes(healthy: Bench) -> None:
    healthy.engine.send("storage:b1", Storage.CLOSE)
    seen = healthy.serve()
    assert seen[-1] == "close"
    sent = [step for request in healthy.worker.seen[-len(seen) :] for step in request.get("steps", ())]
    assert [(step["machine"], step["dest"]) for step in sent] == [("storage:b1", "closing")]
    assert healthy.health is Health.CLOSED
    assert healthy.log.of("persist closed") == [{"checkpointed": True}]


def test_a_close_that_hangs_is_over_at_its_bound(healthy: Bench) -> None:
    healthy.engine.send("storage:b1", Storage.CLOSE)
    healthy.serve("close")
    healthy.clock.wait(healthy.bounds.close + 0.01)
    assert healthy.health is Health.CLOSED


def test_a_close_that_fails_is_over_too(healthy: Bench) -> None:
    healthy.engine.send("storage:b1", Storage.CLOSE)
    healthy.serve(failing={"close": "fault"})
    assert healthy.health is Health.CLOSED


def test_after_closing_a_commit_is_volatile_and_asks_nobody(healthy: Bench) -> None:
    healthy.engine.send("storage:b1", Storage.CLOSE)
    healthy.serve()
    healthy.send(E.WORK)
    assert healthy.one.now is S.WORKING
    assert healthy.serve() == []


def test_both_ends_agree_on_how_much_fits_into_a_packet() -> None:
    assert link.REQUEST_MAX == worker.PACKET_MAX
    assert link.PACKET_MAX >= worker.PACKET_MAX
    assert unwritten.CHUNK_BYTES < worker.PACKET_MAX


@pytest.mark.parametrize("char", ['"', "\\", "x"])
def test_the_largest_manifests_are_committed_in_packets_that_fit(healthy: Bench, char: str) -> None:
    """A configuration is kept as JSON and sent as JSON in JSON: each quote in it becomes four characters."""
    size = WIRE_MAX // len(json.dumps(char * 1000)) * 1000 - 1000
    config = Config(Manifest(image="localhost/work:latest", command=("/bin/sh", char * size)), 7).text()
    steps = [
        Step("b1", 100 + n, "one", "small", n, "idle", "work", "working", "\U0001f600" * WHY_MAX, 1, config=config) for n in range(6)
    ]
    for step in steps:
        healthy.port.commit(step, small().rows[0], healthy.answers.append)
    healthy.serve()
    assert healthy.health is Health.DURABLE
    sent = [request for request in healthy.worker.seen if request["op"] == "commit"]
    assert [n for n in healthy.journaled() if n >= 100] == [step.n for step in steps]
    assert max(len(json.dumps(request)) for request in sent) <= link.REQUEST_MAX
    assert len(healthy.answers) == len(steps)


def test_everything_in_memory_is_written_at_the_end_however_many_packets_it_takes(healthy: Bench) -> None:
    for n in range(3 * CHUNK):
        healthy.port._unwritten.remember(Step("b1", 100 + n, "one", "small", n, "idle", "work", "working", "", 1))
    healthy.engine.send("storage:b1", Storage.CLOSE)
    seen = healthy.serve()
    assert seen.count("stage") > 3
    assert set(healthy.journaled("stage")) >= set(range(100, 100 + 3 * CHUNK))
