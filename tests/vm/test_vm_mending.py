"""Databases and disks that cannot be used: each is a dirty boot with one clear line, and can be mended from inside."""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
from collections.abc import Iterator

import harness
import pytest
from harness import Vm

pytestmark = pytest.mark.vm
DB = "/persist/spine/state.db"


def boots_dirty(machine: Vm, *words: str) -> dict:
    """Assert that a boot completed dirty, and why in one line of the console; return its status."""
    line = machine.wait_console(harness.COMPLETE).group()
    status = machine.status()
    assert status["boot"] == "complete"
    for word in words:
        assert word in line
        assert word in status["dirty"]
    return status


def mends(machine: Vm, script: str) -> None:
    """Assert that after `script` a retry makes storage durable, with all that was kept in memory."""
    machine.out(script)
    machine.out("bay0 storage retry")
    assert machine.wait_durable()["dirty"] is None


@pytest.fixture(scope="module")
def disk(folder: str) -> str:
    """A small disk whose database is garbage, beside one from a program of the future."""
    path = harness.make_disk(f"{folder}/mended.img", "32M")
    with open(f"{folder}/garbage", "wb") as file:
        file.write(os.urandom(64 << 10))
    harness.put(path, f"{folder}/garbage", harness.DATABASE)
    base = sqlite3.connect(f"{folder}/newer.db")
    base.execute("CREATE TABLE future (answer)")
    base.execute("INSERT INTO future VALUES (42)")
    base.execute("PRAGMA user_version=999")
    base.commit()
    base.close()
    harness.put(path, f"{folder}/newer.db", "/spine/newer.db")
    return path


@pytest.fixture(scope="module")
def locked(folder: str) -> tuple[str, str]:
    """A good disk and the hash of it, for a device that cannot be written."""
    path = harness.make_disk(f"{folder}/locked.img")
    return path, _digest(path)


@pytest.fixture(scope="module")
def diskless(locked: tuple[str, str], disk: str) -> Iterator[Vm]:
    """A boot whose only disk is a device that cannot be written; the other one waits to be plugged in."""
    extra = ["-drive", f"file={locked[0]},format=raw,if=none,id=locked,readonly=on", "-device", "virtio-blk-pci,drive=locked"]
    extra += ["-drive", f"file={disk},format=raw,if=none,id=late"]
    with harness.vm(qemu=extra) as machine:
        yield machine


@pytest.fixture(scope="module")
def corrupt(diskless: Vm) -> Vm:
    """The same boot, with the disk that came late."""
    diskless.wait_console(harness.COMPLETE)
    diskless.qmp("device_add", driver="virtio-blk-pci", drive="late", id="late")
    diskless.wait_storage("readonly")
    return diskless


@pytest.fixture(scope="module")
def newer(corrupt: Vm) -> Vm:
    """The same boot, its database replaced by the newer one."""
    corrupt.out(f"cp {DB} /persist/garbage && cp /persist/spine/newer.db {DB} && bay0 storage retry")
    corrupt.wait_storage("readonly")
    return corrupt


@pytest.fixture(scope="module")
def fifo(newer: Vm) -> Vm:
    """The same boot, with a FIFO in the database's place."""
    newer.out(f"rm {DB}; mkfifo {DB}; bay0 storage retry")
    return newer


@pytest.fixture(scope="module")
def filled(fifo: Vm) -> Vm:
    """The same boot, its disk mended and then filled to the last block."""
    mends(fifo, f"rm {DB}")
    fifo.sh("dd if=/dev/zero of=/persist/big bs=64k; dd if=/dev/zero of=/persist/rest bs=512; sync")
    return fifo


@pytest.fixture(scope="module")
def full(filled: Vm, disk: str) -> Iterator[Vm]:
    """A boot from a disk that is full."""
    assert filled.quit().status == 0
    harness.check_clean(disk)
    with harness.vm(disk) as machine:
        yield machine


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def test_a_read_only_device_is_a_dirty_boot_with_one_clear_line(diskless: Vm):
    boots_dirty(diskless, "no disk could be mounted")


def test_a_disk_plugged_in_later_is_taken_and_its_corrupt_database_is_one_clear_line(corrupt: Vm):
    status = corrupt.status()
    assert (status["storage"]["state"], status["boot"]) == ("readonly", "complete")
    assert "state.db is damaged" in status["dirty"]
    assert len(re.findall(r"ERROR: .*damaged", corrupt.console)) == 1
    assert "bay0 storage retry" in corrupt.out("bay0 status")


def test_a_retry_before_it_is_mended_changes_nothing(corrupt: Vm):
    before = corrupt.out(f"sha256sum {DB}")
    corrupt.call("storage.retry")
    corrupt.wait_storage("readonly")
    assert corrupt.out(f"sha256sum {DB}") == before


def test_a_newer_database_is_left_as_it_is_and_told_what_to_do(newer: Vm):
    status = newer.status()
    assert "state.db has version 999" in status["dirty"]
    assert "boot the newer image" in status["dirty"]
    newer.call("storage.retry")
    newer.wait_storage("readonly")
    mine, theirs = newer.out(f"sha256sum <{DB}; sha256sum </persist/spine/newer.db").splitlines()
    assert mine == theirs
    assert newer.sh(f"test -e {DB}-wal").status == 1


def test_a_fifo_in_the_databases_place_is_named_by_storage_and_the_doctor_and_nothing_hangs(fifo: Vm):
    said = f"{DB} is a FIFO, where a file belongs"
    status = harness.until(lambda: (found := fifo.status()) and said in (found["dirty"] or "") and found, 60, said)
    assert status["storage"]["state"] == "readonly"
    assert status["storage"]["workers_left_behind"] == 0
    assert said in fifo.sh("bay0 doctor").stdout


def test_a_disk_that_fills_up_while_it_is_used_is_said_and_the_spine_goes_on(filled: Vm):
    def look() -> dict | None:
        filled.sh("pkill -KILL -t ttyS0")  # its end and its return are steps that want to be kept
        status = filled.status()
        return status if status["storage"]["state"] == "full" else None

    status = harness.until(look, 120, "storage is full")
    assert "full" in status["dirty"] or "No space" in status["dirty"]
    assert filled.sh("bay0 run -- true").status == 0


@pytest.mark.full
def test_a_full_disk_is_a_dirty_boot_with_one_clear_line(full: Vm):
    status = boots_dirty(full)
    assert status["storage"]["state"] == "full"
    assert "the disk is full" in status["dirty"]
    assert "make room" in full.out("bay0 storage")


@pytest.mark.full
def test_a_full_disk_recovers_by_itself_when_there_is_room_again(full: Vm, disk: str):
    full.out("rm /persist/big /persist/rest")
    assert full.wait_durable()["dirty"] is None
    assert "there is more room on it" in full.out("bay0 log")


@pytest.mark.full
def test_a_disk_that_is_made_larger_is_said_and_grown_into_while_it_is_used(full: Vm):
    before = full.wait_durable()["storage"]["room"]["bytes"]
    full.qmp("block_resize", device="persist", size=1 << 30)
    harness.until(lambda: full.status()["storage"]["room"].get("unused"), 60, "the probe sees a larger disk")
    assert "`bay0 storage grow`" in full.out("bay0 storage")
    grown = full.json("bay0 storage grow --json", 120)
    assert (grown["device"], grown["to_bytes"]) == ("/dev/vda", 1 << 30)
    harness.until(lambda: full.status()["storage"]["room"]["bytes"] > 20 * before, 60, "there is room")
    status = full.status()
    assert (status["storage"]["state"], status["storage"]["room"]["unused"], status["dirty"]) == ("durable", 0, None)
    refused = full.sh("bay0 storage grow")
    assert (refused.status, "is used to its end" in refused.stderr) == (1, True)


@pytest.mark.full
def test_a_disk_that_was_full_and_grown_is_whole(full: Vm, disk: str):
    boot_id = full.status()["boot_id"]
    assert full.quit().status == 0
    harness.check_clean(disk)
    found = harness.stored(disk)
    assert (found.integrity, found.boots[-1], found.boot(boot_id)[-1]) == ("ok", boot_id, "leaving")
    found.check_numbers()


def test_a_read_only_device_is_as_it_was(filled: Vm, locked: tuple[str, str]):
    path, digest = locked
    assert _digest(path) == digest
