"""What is large, on a real kernel: a home with a million files that is emptied, and a disk that grows and loses its power meanwhile."""

from __future__ import annotations

import os

import harness
import pytest
from harness import Vm

pytestmark = [pytest.mark.vm, pytest.mark.full]

FILES = int(os.environ.get("SPINE_FILES", "1000000"))
MAKE_S, SWEEP_S = 3000, 3000  # seconds, of a machine without KVM


def test_a_home_with_a_million_files_and_directories_is_emptied_while_storage_stays_durable(folder: str):
    disk = harness.make_disk(f"{folder}/million.img", "8G")
    harness.tool("mkfs.ext4", "-q", "-F", "-L", "SPINE-PERSIST", "-N", str(FILES + 100_000), disk)
    with harness.vm(disk, life_s=MAKE_S + SWEEP_S) as machine:
        machine.wait_console(harness.COMPLETE)
        machine.wait_durable()
        machine.create("work", 'image = "localhost/alpine:3.23"\nhome = "/root"\n')
        home = "/persist/homes/p__work"
        machine.out(f"mkdir -p {home}/f && cd {home} && seq 1 {FILES // 2} | xargs mkdir && cd f && seq 1 {FILES // 2} | xargs touch", MAKE_S)
        machine.out("bay0 persona reset work --home --yes")
        harness.until(lambda: machine.sh("test -e /persist/spine/trash").status == 1, SWEEP_S, "the trash is gone", every_s=5)
        status = machine.status()
        assert (status["storage"]["state"], status["dirty"]) == ("durable", None)
        assert "wedged" not in machine.out("bay0 log")
        assert machine.quit().status == 0
    harness.check_clean(disk)


def test_a_disk_that_loses_its_power_while_it_grows_is_whole_and_grows_on(folder: str):
    disk = harness.make_disk(f"{folder}/growing.img", "1G")
    with harness.vm(disk) as machine:
        booted(machine)
        machine.qmp("block_resize", device="persist", size=24 << 30)
        harness.until(lambda: room(machine).get("unused"), 60, "the probe sees a larger disk")
        machine.out("setsid bay0 storage grow </dev/null >/dev/null 2>&1 &")  # or what is asked next would wait for its end
        harness.until(lambda: int(machine.out("df -k /persist | awk 'END {print $2}'")) > 3 << 20, 120, "some of it is there", every_s=0.1)
        machine.kill_qemu()
    checked = harness.tool("e2fsck", "-fy", disk, check=False)
    assert checked.returncode in (0, 1), checked.stdout
    with harness.vm(disk) as machine:
        booted(machine)
        harness.until(lambda: room(machine).get("unused") is not None, 60, "the first probe")
        machine.sh("bay0 storage grow", 600)  # refused only if the plug was pulled too late
        harness.until(lambda: room(machine)["unused"] == 0 and room(machine)["bytes"] > 22 << 30, 60, "all of it is there")
        assert machine.quit().status == 0
    harness.check_clean(disk)


def booted(machine: Vm) -> None:
    machine.wait_console(harness.COMPLETE)
    machine.wait_durable()


def room(machine: Vm) -> dict:
    return machine.status()["storage"]["room"] or {}
