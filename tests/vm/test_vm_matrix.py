"""Wedge modes x moments. The full tier runs all of it; the default tier one case, drawn by SPINE_SEED (default 1).

The contract is the same for each: init complete is reached, PID 1 answers, runs commands and reaps, at most one worker is left behind;
when the disk is well again storage becomes durable with nothing lost; and the database is whole in the end.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
from collections.abc import Iterator

import harness
import nbd
import pytest
from harness import Vm
from nbd import FLUSH, READ, WRITE, Fault
from test_vm_wedge import responsive

pytestmark = pytest.mark.vm

MODES = {
    "silent": Fault(hold=True),
    "silent to reads": Fault(frozenset({READ}), hold=True),
    "silent to writes": Fault(frozenset({WRITE}), hold=True),
    "silent to flushes": Fault(frozenset({FLUSH}), hold=True),
    "150 ms late": Fault(delay_s=0.15),
    "250 ms late": Fault(delay_s=0.25),
    "5000 ms late": Fault(delay_s=5.0),
    "failing reads": Fault(frozenset({READ}), error=errno.EIO),
    "failing writes": Fault(frozenset({WRITE}), error=errno.EIO),
    "failing flushes": Fault(frozenset({FLUSH}), error=errno.EIO),
    "one request a second": Fault(pace_s=1.0),
    "flapping": Fault(hold=True, flap_s=4.0),
}
MOMENTS = ("from the kernel's start", "from the mount's first write on", "while it powers off")
SEED = int(os.environ.get("SPINE_SEED", "1"))
CASES = list(itertools.product(MODES, MOMENTS))
DRAWN = random.Random(SEED).choice(CASES)
NOTICED = {"silent", "silent to writes", "silent to flushes", "failing writes", "failing flushes"}  # others may hide in a cache or a bound
SPOILS = {"failing writes", "failing flushes", "failing reads"}  # the kernel notes an error in the superblock
END_S = 300  # stop, close, reboot(2) and the watchdog, each with its bound and patience 5
WAY_OUT = 'echo "exit 0" >"$BAY0_EXEC_STATUS"; bay0 poweroff'


def mended(machine: Vm) -> dict:
    """Wait for storage that is well again; where a person must say so, say so."""

    def look() -> bool:
        state = machine.status()["storage"]["state"]
        if state in {"detached", "readonly"}:
            machine.sh("bay0 storage retry")
        return state == "durable"

    harness.until(look, 180, "storage is durable again", every_s=2)
    return machine.wait_durable()


def check_disk(path: str, mode: str) -> harness.Stored:
    if mode in SPOILS:
        assert harness.tool("e2fsck", "-fy", path, check=False).returncode in {0, 1}
    else:
        harness.check_clean(path)
    found = harness.stored(path)
    assert found.integrity == "ok"
    return found


@pytest.mark.parametrize(
    ("mode", "moment"), [case if case == DRAWN else pytest.param(*case, marks=pytest.mark.full) for case in CASES]
)
def test_a_sick_disk(mode: str, moment: str, tmp_path):
    image = harness.make_disk(f"{tmp_path}/sick.img")
    with nbd.disk(image) as disk, harness.vm(disk.uri) as machine:
        machine.wait_console("stage0: ")
        if moment == MOMENTS[0]:
            disk.set(MODES[mode])
        elif moment == MOMENTS[1]:
            disk.arm(WRITE, MODES[mode])
        machine.wait_console(harness.COMPLETE)
        if moment == MOMENTS[2]:
            leave_sick(machine, disk, mode, image)
            return
        responsive(machine)
        assert mode != "silent" or machine.status()["dirty"]
        disk.clear()
        boot_id = mended(machine)["boot_id"]
        assert machine.quit().status == 0
    found = check_disk(image, mode)
    assert found.boot(boot_id)[:1] + found.boot(boot_id)[-1:] == ["mounting", "leaving"]
    found.check_numbers()


def leave_sick(machine: Vm, disk: nbd.Disk, mode: str, image: str) -> None:
    """Power off with a sick disk: the guest goes within its bounds, and what was committed before is there."""
    boot_id = machine.wait_durable()["boot_id"]
    machine.out("sync")
    disk.set(MODES[mode])
    machine.send(WAY_OUT)
    machine.wait_console("leaving -> powering", END_S)
    disk.clear()  # the kernel now resets its devices, and QEMU does not reset a disk that holds requests: no vCPU runs until then
    machine.wait_console("reboot: Power down|reboot: Restarting|sysrq: Resetting", END_S)
    assert machine.wait().status == 0
    assert harness.tool("e2fsck", "-fy", image, check=False).returncode in {0, 1}
    found = harness.stored(image)
    assert (found.integrity, found.boots) == ("ok", [boot_id])
    assert "complete" in found.boot(boot_id)


@pytest.fixture(scope="module")
def in_use(folder: str) -> Iterator[tuple[Vm, nbd.Disk]]:
    image = harness.make_disk(f"{folder}/in-use.img")
    with nbd.disk(image) as disk, harness.vm(disk.uri) as machine:
        machine.wait_console(harness.COMPLETE)
        machine.wait_durable()
        yield machine, disk


@pytest.mark.full
@pytest.mark.parametrize("mode", sorted(MODES, key=SPOILS.__contains__))
def test_a_disk_that_falls_sick_while_it_is_used(mode: str, in_use: tuple[Vm, nbd.Disk]):
    machine, disk = in_use
    machine.out("sync; echo 3 >/proc/sys/vm/drop_caches")
    disk.set(MODES[mode])
    seen = set()
    for _ in range(4):
        machine.sh("pkill -KILL -t ttyS0; sleep 4")  # its end and its return are steps that want to be kept
        health = machine.status()["storage"]
        assert health["workers_left_behind"] <= 1
        seen.add(health["state"])
    assert mode not in NOTICED or seen != {"durable"}
    responsive(machine)
    disk.clear()
    assert mended(machine)["storage"]["lost"] == 0
