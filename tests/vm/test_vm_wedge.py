"""A disk that stops answering, before the mount and after it, and comes back: one boot of it all."""

from __future__ import annotations

from collections.abc import Iterator

import harness
import pytest
from harness import PausedDisk, Vm

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def disk(folder: str) -> str:
    return harness.make_disk(f"{folder}/wedged.img")


@pytest.fixture(scope="module")
def export(disk: str) -> Iterator[PausedDisk]:
    with harness.pausable(disk) as export:
        yield export


@pytest.fixture(scope="module")
def before_mount(export: PausedDisk) -> Iterator[Vm]:
    """A boot whose disk gave no answer from the kernel's start on. Earlier the firmware would wait for it."""
    with harness.vm(export.uri) as machine:
        machine.wait_console("stage0: ")
        export.pause()
        machine.wait_console(harness.COMPLETE)
        yield machine


@pytest.fixture(scope="module")
def back(before_mount: Vm, export: PausedDisk) -> Vm:
    export.resume()
    before_mount.wait_durable()
    return before_mount


@pytest.fixture(scope="module")
def after_mount(back: Vm, export: PausedDisk) -> Vm:
    """The same boot, its disk gone silent while it was in use. Caches are dropped: a warm one hides bugs."""
    back.out("sync; echo 3 >/proc/sys/vm/drop_caches")
    export.pause()
    back.wait_storage("wedged")
    return back


@pytest.fixture(scope="module")
def back_again(after_mount: Vm, export: PausedDisk) -> Vm:
    export.resume()
    after_mount.wait_durable()
    return after_mount


def responsive(machine: Vm) -> None:
    """PID 1 answers, runs commands and reaps orphans."""
    before = machine.status()
    assert before["boot"] == "complete"
    assert before["storage"]["workers_left_behind"] <= 1
    assert machine.sh("bay0 run --deadline 30 -- sh -c 'exit 7'").status == 7
    machine.out("sh -c 'for i in 1 2 3 4 5 6 7 8 9 10; do ( sleep 0.1 & ) ; done'")
    harness.until(lambda: machine.status()["pid1"]["orphans"] - before["pid1"]["orphans"] >= 10, 30, "ten orphans are reaped")


def test_a_disk_silent_before_the_mount_gives_a_dirty_boot_that_completes(before_mount: Vm):
    assert "dirty=no" not in before_mount.wait_console(harness.COMPLETE).group()
    status = before_mount.status()
    assert status["dirty"]
    assert status["storage"]["state"] in {"detached", "opening", "wedged"}
    assert "dirty:" in before_mount.out("bay0 status")


def test_pid_1_serves_while_the_disk_is_silent_before_the_mount(before_mount: Vm):
    responsive(before_mount)


def test_its_return_is_logged_and_every_earlier_step_written_out(back: Vm):
    status = back.status()
    assert (status["dirty"], status["storage"]["in_memory"], status["storage"]["lost"]) == (None, 0, 0)
    assert "memory journal written out" in back.out("bay0 log")
    back.wait_console(r"-> durable: ", 30)
    rows = back.json(f"bay0 history --json boot:{status['boot_id'][:8]}")
    assert [row["dest"] for row in rows] == ["mounting", "shielding", "loading", "attaching", "reconciling", "serving", "complete"]


def test_a_disk_silent_after_the_mount_is_one_clear_line_and_leaves_one_worker_behind(after_mount: Vm):
    status = after_mount.status()
    assert "gave no answer" in status["dirty"]
    assert status["storage"]["workers_left_behind"] == 1
    assert len(after_mount.out("cat /sys/fs/cgroup/services/state/cgroup.procs").split()) == 1
    assert "-> wedged: the disk did not answer within its bound" in after_mount.console


def test_pid_1_serves_while_the_disk_is_silent_after_the_mount(after_mount: Vm):
    responsive(after_mount)


def test_while_wedged_earlier_boots_are_said_to_be_unread_and_a_retry_is_refused_with_its_reason(after_mount: Vm):
    assert after_mount.json("bay0 boot --json")["unread"]
    refused = after_mount.sh("bay0 storage retry")
    assert (refused.status, "still hangs on the disk" in refused.stderr) == (1, True)


def test_its_second_return_leaves_no_worker_behind(back_again: Vm):
    assert "abandoned state worker has ended" in back_again.out("bay0 log")
    assert back_again.status()["storage"]["workers_left_behind"] == 0
    assert len(back_again.out("cat /sys/fs/cgroup/services/state/cgroup.procs").split()) == 1


def test_the_disk_is_clean_in_the_end_and_no_step_is_missing(back_again: Vm, disk: str):
    boot_id = back_again.status()["boot_id"]
    assert back_again.quit().status == 0
    harness.check_clean(disk)
    harness.check_checkpointed(disk)
    found = harness.stored(disk)
    assert (found.integrity, found.boots, found.boot(boot_id)[-2:]) == ("ok", [boot_id], ["stopping", "leaving"])
    found.check_numbers()
