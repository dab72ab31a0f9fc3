"""Sleeping: a request waits for what is being written and for a flush, holds the writers back, and says what became of it.

Whole boots on the machine of bootkit.py; its worker can be made slow. The word that puts a machine to sleep goes to a file of the test's.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bootkit import Machine
from kit import Log, Timers, in_child
from parts import Steps

from bay0.base.errors import RefusedError, StorageError
from bay0.cli import inhibit as inhibitcli
from bay0.control.answers import Listing
from bay0.effects import sleep
from bay0.machines.inhibit import NAME, S
from bay0.machines.storage import S as Health
from bay0.state import device, worker
from bay0.state.link import WorkerLink

ON = "bay0.suspend=on"
STEPS = [("free", "pending"), ("pending", "suspending"), ("suspending", "free")]


class Bed:
    """A spine that can be asked to sleep. `asleep` and `awake` are files of the play's kernel: it sleeps from the one to the other."""

    def __init__(self, top: Path, words: str = "", offers: str = "freeze mem", **bounds: float) -> None:
        self.top, self.machine = top, Machine(top, **bounds)
        self.asleep, self.awake = top / "asleep", top / "awake"
        (top / "state").write_text(offers)
        sleep.states.__defaults__ = (str(top / "state"),)
        sleep.ARGV = ("/bin/sh", "-c", f"echo mem >{top}/word; mv {top}/word {self.asleep}; while [ ! -e {self.awake} ]; do sleep 0.02; done")
        self.words = words

    def boot(self) -> Bed:
        self.spine = self.machine.complete(self.machine.boot(self.words))
        self.turn(lambda: not self.spine.state.memory and not self.spine.state.link.under_way(), "all is written")
        return self

    def turn(self, true: Callable[[], Any], what: str = "the condition") -> None:
        self.machine.turn_until(self.spine, true, what)

    def ask(self, method: str, **params: Any) -> list[Any]:
        answers: list[Any] = []
        self.spine.control.methods[method](params, answers.append)
        return answers

    def answer(self, answers: list[Any]) -> Any:
        self.turn(lambda: answers, "an answer")
        assert len(answers) == 1
        return answers[0].whole() if isinstance(answers[0], Listing) else answers[0]

    def show(self) -> dict[str, Any]:
        return self.answer(self.ask("inhibit"))

    def steps(self) -> list[tuple[str, str]]:
        self.turn(lambda: not self.spine.state.memory, "all is kept")
        return [(row["source"], row["dest"]) for row in self.answer(self.ask("history", machine=NAME))]

    @property
    def log_bytes(self) -> int:
        return os.stat(self.top / "persist/spine/state.db-wal").st_size


def slow(op: str, top: Path) -> None:
    """Make the worker stop at `op` until the file `go` is there."""
    real = worker.OPS[op]

    def waits(**arguments: Any) -> Any:
        (top / "begun").touch()
        while not (top / "go").exists():
            time.sleep(0.01)
        return real(**arguments)

    worker.OPS[op] = waits


# ---- a request


@in_child
def test_without_the_word_everything_is_flushed_and_it_says_that_it_stays_awake(tmp_path: Path) -> None:
    bed = Bed(tmp_path).boot()
    for file in ("time", "seed"):
        with contextlib.suppress(FileNotFoundError):
            (tmp_path / "persist/spine" / file).unlink()
    done = bed.answer(bed.ask("suspend", reason="lid"))
    assert done == {
        "suspended": False, "flushed": True, "reason": "lid",
        "why": "flushed, but not suspended: bay0.suspend=on is not on the kernel command line",
    }  # fmt: skip
    assert not bed.asleep.exists()
    assert (tmp_path / "persist/spine/time").exists()
    assert (tmp_path / "persist/spine/seed").exists()
    assert bed.steps() == STEPS
    assert [line["reason"] for line in bed.machine.logged() if line["event"] == "would suspend"] == ["lid"]


@in_child
def test_a_machine_without_a_sleep_state_says_so_and_asks_no_kernel(tmp_path: Path) -> None:
    bed = Bed(tmp_path, ON, offers="").boot()
    assert "this machine has no sleep state" in bed.answer(bed.ask("suspend"))["why"]
    assert not bed.asleep.exists()
    assert (bed.show()["sleeps"], bed.spine.engine.instances[NAME].now) == (False, S.FREE)


@in_child
def test_it_sleeps_and_is_free_again_when_it_wakes(tmp_path: Path) -> None:
    bed = Bed(tmp_path, ON).boot()
    asked = bed.ask("suspend", reason="lid")
    bed.turn(bed.asleep.exists, "it sleeps")
    assert bed.asleep.read_text() == "mem\n"
    assert (bed.show()["state"], bed.show()["waiting"], asked) == ("suspending", "lid", [])
    bed.awake.touch()
    done = bed.answer(asked)
    assert done["suspended"]
    assert done["why"].startswith("it has slept and is awake: ")
    assert bed.steps() == STEPS
    assert bed.show()["last"] == done
    assert bed.answer(bed.ask("suspend"))["suspended"], "and it may sleep again"


@in_child
def test_the_database_is_in_its_file_when_it_falls_asleep_and_nothing_is_written_while_it_sleeps(tmp_path: Path) -> None:
    bed = Bed(tmp_path, ON).boot()
    asked = bed.ask("suspend")
    bed.turn(bed.asleep.exists, "it sleeps")
    assert bed.log_bytes == 0, "the log is in the database"
    nack = bed.ask("nack.add", digest="sha256:" + "a" * 64)
    bed.spine.state.probe("while it sleeps")
    for _ in range(10):
        bed.spine.reactor.turn(0.01)
    assert (nack, bed.log_bytes, bed.spine.state.link.under_way()) == ([], 0, {})
    assert bed.show()["held_back"] >= 2  # the spine's own probe may be one more
    bed.awake.touch()
    assert bed.answer(asked)["suspended"]
    assert bed.answer(nack)["changed"], "what was held back is done"


@in_child
def test_a_request_waits_for_what_is_being_written_and_status_answers_meanwhile(tmp_path: Path) -> None:
    slow("genesis", tmp_path)
    (tmp_path / "go").touch()
    bed = Bed(tmp_path, ON).boot()
    (tmp_path / "begun").unlink()
    (tmp_path / "go").unlink()
    bed.spine.state.append_genesis(["a long line"])
    asked = bed.ask("suspend")
    bed.turn((tmp_path / "begun").exists, "it is being written")
    for _ in range(20):
        bed.spine.reactor.turn(0.01)
    assert "genesis" in [each["op"] for each in bed.show()["held_by"]]
    assert (bed.show()["state"] in ("free", "pending"), asked, bed.asleep.exists()) == (True, [], False)
    assert bed.answer(bed.ask("status"))["boot"] == "complete"
    (tmp_path / "go").touch()
    bed.turn(bed.asleep.exists, "it sleeps")
    bed.awake.touch()
    assert bed.answer(asked)["suspended"]


@in_child
def test_one_request_at_a_time(tmp_path: Path) -> None:
    bed = Bed(tmp_path, ON).boot()
    asked = bed.ask("suspend")
    bed.turn(bed.asleep.exists, "it sleeps")
    assert "under way already" in str(bed.answer(bed.ask("suspend")))
    bed.awake.touch()
    assert bed.answer(asked)["suspended"]


@in_child
def test_commits_cost_no_step_of_the_lock(tmp_path: Path) -> None:
    bed = Bed(tmp_path).boot()
    bed.answer(bed.ask("nack.add", digest="sha256:" + "a" * 64))
    bed.show()
    assert bed.steps() == []


# ---- what goes wrong


@in_child
def test_a_flush_that_misses_its_bound_refuses_the_request(tmp_path: Path) -> None:
    slow("settle", tmp_path)
    bed = Bed(tmp_path, ON, settle=0.5).boot()
    done = bed.answer(bed.ask("suspend"))
    assert done["why"] == "not suspended, it could not be flushed: settle gave no answer in 0.5 s"
    assert (done["suspended"], done["flushed"], bed.asleep.exists()) == (False, False, False)
    assert bed.spine.engine.instances[NAME].now is S.FREE


@in_child
def test_the_last_flush_that_misses_its_bound_lets_the_writers_go_on(tmp_path: Path) -> None:
    bed = Bed(tmp_path, ON, settle=0.5)
    real = worker.OPS["settle"]

    def second_hangs(**arguments: Any) -> Any:
        if (tmp_path / "settled").exists() and not (tmp_path / "hung").exists():
            (tmp_path / "hung").touch()
            os.kill(os.getpid(), signal.SIGSTOP)
        (tmp_path / "settled").touch()
        return real(**arguments)

    worker.OPS["settle"] = second_hangs
    bed.boot()
    done = bed.answer(bed.ask("suspend"))
    assert done["why"] == "not suspended: settle gave no answer in 0.5 s"
    assert bed.spine.state.link.held_back == 0
    bed.turn(lambda: bed.spine.state.healthy, "a new worker")
    assert bed.answer(bed.ask("nack.add", digest="sha256:" + "a" * 64))["changed"]


@in_child
def test_a_wedged_disk_refuses_the_request_at_once(tmp_path: Path) -> None:
    bed = Bed(tmp_path, ON, genesis=0.2).boot()
    there: Any = bed.spine.state.link._current
    pid = there.process.pid
    os.kill(pid, signal.SIGSTOP)
    there.process = SimpleNamespace(kill=lambda: None)  # as on a dead disk, it does not end
    bed.spine.state.append_genesis(["never written"])
    bed.turn(lambda: bed.spine.state.storage.now is Health.WEDGED, "it is wedged")
    done = bed.answer(bed.ask("suspend"))
    assert done["why"] == "not suspended, it could not be flushed: storage is wedged: what was written may not be on the disk"
    os.kill(pid, signal.SIGKILL)


@in_child
def test_without_a_disk_there_is_nothing_to_flush_and_it_sleeps(tmp_path: Path) -> None:
    def no_disk(_wanted: str | None) -> list[str]:
        raise StorageError("no_device", "no disk")

    bed = Bed(tmp_path, ON)
    device.find = no_disk
    bed.awake.touch()
    bed.spine = bed.machine.complete(bed.machine.boot(ON))
    assert bed.answer(bed.ask("suspend"))["suspended"]
    assert "storage is detached: there was nothing to flush" in json.dumps(bed.machine.logged())


@in_child
def test_a_kernel_that_does_not_take_the_word_is_said_and_everything_goes_on(tmp_path: Path) -> None:
    bed = Bed(tmp_path, ON)
    sleep.ARGV = ("/bin/sh", "-c", "echo 'write error: Device or resource busy' >&2; exit 1")
    bed.boot()
    done = bed.answer(bed.ask("suspend"))
    assert done["why"] == "not suspended: the kernel did not take it: exit status 1: write error: Device or resource busy"
    assert bed.answer(bed.ask("nack.add", digest="sha256:" + "a" * 64))["changed"]


@in_child
def test_a_kernel_that_hangs_with_it_is_given_up(tmp_path: Path) -> None:
    bed = Bed(tmp_path, ON, suspend=0.3).boot()
    assert "timed_out" in bed.answer(bed.ask("suspend"))["why"].replace(" ", "_")
    assert bed.spine.state.link.held_back == 0


@in_child
def test_a_spine_that_goes_down_does_not_sleep(tmp_path: Path) -> None:
    slow("settle", tmp_path)
    bed = Bed(tmp_path, ON).boot()
    asked = bed.ask("suspend")
    bed.turn((tmp_path / "begun").exists, "the flush has begun")
    bed.spine.power_signals.stop("poweroff", "asked")
    for _ in range(20):
        bed.spine.reactor.turn(0.01)
    (tmp_path / "go").touch()
    done = bed.answer(asked)
    assert (done["suspended"], bed.asleep.exists()) == (False, False)
    bed.turn(lambda: bed.machine.powered, "the power")
    assert bed.machine.stored()["boot:11111111"] == "leaving"


@in_child
def test_a_crash_while_it_sleeps_leaves_a_machine_that_is_free(tmp_path: Path) -> None:
    bed = Bed(tmp_path, ON).boot()
    bed.ask("suspend")
    bed.turn(bed.asleep.exists, "it sleeps")
    bed.machine.crash(bed.spine)
    assert bed.machine.stored()[NAME] == "suspending"
    spine = bed.machine.complete(bed.machine.boot(boot_id="22222222-bbbb"))
    bed.machine.turn_until(spine, lambda: spine.engine.instances[NAME].now is S.FREE, "it is free")
    bed.machine.leave(spine)
    assert bed.machine.stored()[NAME] == "free"


@in_child
def test_the_watchdog_is_stopped_while_it_sleeps_and_armed_when_it_wakes(tmp_path: Path) -> None:
    bed = Bed(tmp_path, ON).boot()
    dog = bed.spine.watchdog
    dog.path = str(tmp_path / "dog")
    (tmp_path / "dog").touch()
    dog.open()
    asked = bed.ask("suspend")
    bed.turn(bed.asleep.exists, "it sleeps")
    assert not dog.armed
    assert (tmp_path / "dog").read_bytes().endswith(b"V"), "the magic close"
    bed.awake.touch()
    assert bed.answer(asked)["suspended"]
    assert (dog.armed, dog.failing) == (True, "")


@in_child
def test_a_clock_that_woke_behind_what_was_saved_is_put_forward_and_saved(tmp_path: Path) -> None:
    bed = Bed(tmp_path, ON).boot()
    bed.turn(lambda: bed.spine.continuity.clock.saved, "the time is saved")
    saved = bed.spine.continuity.clock.saved
    moved: list[int] = []
    bed.spine.continuity.clock.forward = lambda floor: moved.append(floor) or 0  # type: ignore[func-returns-value]
    bed.awake.touch()
    assert bed.answer(bed.ask("suspend"))["suspended"]
    assert moved == [saved]


def test_a_reason_is_short_and_printable() -> None:
    from bay0.boot.sleep import Inhibit

    none: list[Any] = [None] * 8
    for reason in ("x" * 81, "two\nlines", "\x1b[2J"):
        with pytest.raises(ValueError, match="printable"):
            Inhibit(Steps(), *none).suspend({"reason": reason}, lambda _answer: None)  # type: ignore[arg-type]


def test_before_there_is_a_machine_to_ask_it_is_refused() -> None:
    from bay0.boot.sleep import Inhibit

    none: list[Any] = [None] * 8
    with pytest.raises(RefusedError, match="not that far"):
        Inhibit(Steps(), *none).suspend({}, lambda _answer: None)  # type: ignore[arg-type]


# ---- the link's half


def test_what_is_held_back_keeps_its_order_and_its_bound_begins_with_the_release() -> None:
    timers, seen = Timers(), []
    reactor: Any = timers
    link = WorkerLink(reactor, Log(), lambda *_: None, lambda _why: None, lambda _why: None, lambda: None)  # type: ignore[arg-type,return-value]
    link.hold()
    for op in ("one", "two"):
        link.ask(op, 1.0, lambda answer, op=op: seen.append((op, answer.code)))
    timers.advance(100)
    assert (seen, link.held_back) == ([], 2)
    link.release()
    timers.advance(0)
    assert (seen, link.held_back) == ([("one", "gone"), ("two", "gone")], 0), "there is no worker, and each is told"


# ---- for people


def test_people_read_who_holds_it_and_what_waits() -> None:
    found = {
        "state": "suspending", "held_by": [{"op": "commit", "for_ms": 12}], "held_back": 3, "waiting": "lid", "sleeps": False,
        "hook": "bay0.suspend=on is not on the kernel command line", "last": {"reason": "asked", "why": "it has slept and is awake: 4.0 s"},
    }  # fmt: skip
    assert inhibitcli.text(found).splitlines() == [
        "lock:     held by commit for 12 ms",
        "request:  lid, suspending",
        "waiting:  3 requests of the state are held back until it is awake",
        "sleep:    it would stay awake: bay0.suspend=on is not on the kernel command line",
        "last:     asked: it has slept and is awake: 4.0 s",
    ]
    calm = {"state": "free", "held_by": [], "held_back": 0, "waiting": None, "sleeps": True, "hook": "mem to /sys/power/state", "last": None}
    assert inhibitcli.text(calm).splitlines() == [
        "lock:     free, nothing is being written", "request:  none", "sleep:    mem to /sys/power/state",
    ]  # fmt: skip
