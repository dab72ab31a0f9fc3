"""Upgrades by firmware (OVMF), the real loader and a watchdog: the newer spine is good, or the one before is up again by itself."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import harness
import newer
import pytest
from harness import Vm
from test_vm_efi import NEEDED, OVMF, STUB, flash, pack, starts

from bay0.state import slotfat

pytestmark = [pytest.mark.vm, pytest.mark.full]

SIZES = ("--size", "1300M", "--slot", "256M")  # /persist takes an image that comes through a pipe, twice
WORDS = "bay0.patience=5 bay0.prove=20"
RESETS = ("-action", "reboot=reset")
BOOT_S, PROMPT = 400, r"spine:/# "


@pytest.fixture(scope="module", autouse=True)
def _needs() -> None:
    absent = [tool for tool in NEEDED if shutil.which(tool, path=harness.ENVIRONMENT["PATH"]) is None]
    absent += [path for path in (STUB, OVMF) if not os.path.exists(path)]
    if absent:
        harness.skip_or_fail(f"host tools are missing: {', '.join(absent)}; scripts/test.sh installs them")


@pytest.fixture(scope="module")
def first(folder: str) -> str:
    return pack(f"{folder}/v1.efi", words=WORDS)


@pytest.fixture
def disk(folder: str, first: str) -> Iterator[str]:
    path = flash(f"{folder}/upgrade.img", first, *SIZES)
    yield path
    os.unlink(path)


class Talk:
    """Words on the serial console of a machine that boots again and again: each wait begins where the last one ended."""

    def __init__(self, machine: Vm) -> None:
        self.machine, self.at = machine, 0

    def see(self, pattern: str, bound_s: float = BOOT_S) -> re.Match[str]:
        found = self.machine.wait_console(pattern, bound_s, after=self.at)
        self.at = found.end()
        return found

    def say(self, line: str, wanted: str, bound_s: float = BOOT_S) -> re.Match[str]:
        self.machine.type(f"{line}\r")
        return self.see(wanted, bound_s)

    def booted(self, slot: str) -> None:
        self.see(rf"Starting C:{slot}:spine.efi")
        self.see(harness.COMPLETE)
        self.see(PROMPT)

    def status(self, pattern: str, times: int = 60) -> None:
        """Ask until the state is the wanted one."""
        look = f"bay0 upgrade status | grep -E '{pattern}'"
        self.say(f"n=0; until {look} || [ $n -gt {times} ]; do n=$((n+1)); sleep 2; done; echo SEEN$n", r"SEEN\d+\s")
        assert re.search(pattern, self.machine.console[-3000:])

    def staged(self, image: str, digest: str) -> None:
        size = os.path.getsize(image)
        self.say(f"head -c {size} /dev/vdb | bay0 upgrade stage - --digest {digest}; echo END$?", r"END0", BOOT_S)


def with_image(path: str) -> tuple[str, ...]:
    """Return QEMU's words for a file as a second disk, in whole sectors."""
    os.truncate(path, -(-os.path.getsize(path) // 512) * 512)
    return ("-drive", f"file={path},format=raw,if=virtio,readonly=on")


def made(folder: str, first: str, **how: str) -> tuple[str, str]:
    path = f"{folder}/v2.efi"
    for left in (path, f"{path}.parts"):
        shutil.rmtree(left, ignore_errors=True) if os.path.isdir(left) else Path(left).unlink(missing_ok=True)
    digest = newer.newer(first, path, "9.0.0", **how)
    assert os.path.getsize(path) % 512 == 0, "a file of whole sectors, as PE files are"
    return path, digest


def test_a_newer_spine_is_staged_tried_and_is_the_good_one(disk: str, folder: str, first: str) -> None:
    image, digest = made(folder, first)
    with harness.vm(efi=("--efi", disk), qemu=(*RESETS, *with_image(image)), console=True) as machine:
        talk = Talk(machine)
        talk.booted("SLOTA")
        talk.staged(image, digest)
        talk.machine.type("bay0 upgrade try\r")
        talk.booted("SLOTB")
        talk.status("upgrade +good")
        talk.machine.type("bay0 reboot\r")
        talk.booted("SLOTB")
        talk.status("upgrade +idle")
        machine.type("bay0 poweroff\r")
        assert machine.wait().status == 0


@pytest.mark.parametrize(
    ("how", "verdict"),
    [
        ({"stage0": newer.NO_PODMAN}, True),
        ({"stage0": newer.HANGS}, False),
        ({"stage0": newer.RESETS}, False),
        ({"stage0": newer.PANICS}, False),
    ],
    ids=["red", "hangs in stage 0", "reboots at once", "panics"],
)
def test_a_newer_spine_that_is_bad_leaves_the_old_one_up_again_by_itself(
    disk: str, folder: str, first: str, how: dict[str, str], verdict: bool
) -> None:
    image, digest = made(folder, first, **how)
    with harness.vm(efi=("--efi", disk), qemu=(*RESETS, *with_image(image)), console=True, life_s=900) as machine:
        talk = Talk(machine)
        talk.booted("SLOTA")
        talk.staged(image, digest)
        talk.machine.type("bay0 upgrade try\r")
        talk.see(r"Starting C:SLOTB:spine.efi")
        talk.booted("SLOTA")
        if verdict:
            talk.status("upgrade +nacked")
            talk.say(f"bay0 nack check {digest}; echo END$?", "END1")
        else:
            talk.status("upgrade +trying, try 2")
        machine.type("bay0 poweroff\r")
        assert machine.wait().status == 0


def test_a_bit_that_flips_between_arming_and_the_try_is_found_by_the_newer_spine_itself(disk: str, folder: str, first: str) -> None:
    image, digest = made(folder, first)
    with harness.vm(efi=("--efi", disk), qemu=(*with_image(image), "-no-reboot"), console=True) as machine:
        talk = Talk(machine)
        talk.booted("SLOTA")
        talk.staged(image, digest)
        machine.type("bay0 upgrade try\r")
        machine.wait()
    at = starts(disk)[2] + slotfat.spine_at(slotfat.layout(256 << 20)) + os.path.getsize(image) // 2
    with open(disk, "r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    with harness.vm(efi=("--efi", disk), qemu=RESETS, console=True) as machine:
        talk = Talk(machine)
        talk.see(r"Starting C:SLOTB:spine.efi")
        talk.booted("SLOTA")
        talk.status("upgrade +(nacked|trying)")
        machine.type("bay0 poweroff\r")
        assert machine.wait().status == 0
