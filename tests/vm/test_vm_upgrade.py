"""Upgrades by firmware (OVMF), the real loader and a watchdog: a newer spine is good, or the old one is back.

One machine lives through all cases: whatever a newer spine does, the old one must come up again by itself, and
is then given the next. SPINE_RECORD=FILE keeps how long each way back took, for docs/BENCHMARKS.md
(`scripts/bench/wayback.py`).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import harness
import newer
import pytest
from attrs import define, field, frozen
from harness import Vm
from test_vm_efi import ENFORCED, KEY, NEEDED, OVMF, STUB, Keys, flash, keys, pack, starts

from bay0.machines.upgrade import TRIES
from bay0.state import bootenv, slotfat

pytestmark = [pytest.mark.vm, pytest.mark.full]
__all__ = ["keys"]  # a fixture

SLOT = 256 << 20  # bytes
SIZES = ("--size", "1300M", "--slot", "256M")  # /persist takes an image that comes through a pipe, twice
WORDS = "bay0.patience=5 bay0.prove=20 bay0.exec"
RESETS = ("-action", "reboot=reset")
ROOM = 200 << 20  # bytes of the second disk, on which a newer spine comes
BOOT_S, WATCHDOG_S, STAGE_S, LIFE_S = 400, 500, 400, 5400
CANARY = "sha256:" + "7" * 64
STARTING = "Starting C:{}:spine.efi"


@pytest.fixture(scope="module", autouse=True)
def _needs() -> None:
    absent = [tool for tool in NEEDED if shutil.which(tool, path=harness.ENVIRONMENT["PATH"]) is None]
    absent += [path for path in (STUB, OVMF, KEY) if not os.path.exists(path)]
    if absent:
        harness.skip_or_fail(f"host tools are missing: {', '.join(absent)}; scripts/test.sh installs them")


@pytest.fixture(scope="module")
def first(folder: str) -> str:
    return pack(f"{folder}/v1.efi", words=WORDS)


@define(eq=False)
class Computer:
    """A machine that boots again and again: each wait on its console begins where the last one ended."""

    vm: Vm
    disk: str
    second: str  # the file of the disk on which newer spines come
    first: str  # the spine that it was made with
    at: int = 0
    refused: list[str] = field(factory=list)  # digests that must be refused for good
    failed: bool = False
    made_so_far: int = 0
    version: str = ""  # of the last one that was made: no two are the same, since one may be refused by now

    def see(self, pattern: str, bound_s: float = BOOT_S) -> re.Match[str]:
        found = self.vm.wait_console(pattern, bound_s, after=self.at)
        self.at = found.end()
        return found

    def up(self, slot: str, bound_s: float = BOOT_S) -> None:
        """Wait until the spine of that slot is up, and answers."""
        self.see(STARTING.format(slot), bound_s)
        self.see(harness.COMPLETE)
        harness.until(self.answers, 120, "the agent of this boot answers")

    def answers(self) -> bool:
        """Tell whether the spine that runs answers."""
        with contextlib.suppress(harness.VmError):
            return self.vm.sh("true", 3).status == 0
        return False

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.vm.call("upgrade.status")
        return found

    def until(self, *states: str, bound_s: float = 240) -> dict[str, Any]:
        return harness.until(
            lambda: (found := self.status())["state"] in states and found,
            bound_s,
            f"the upgrade is {' or '.join(states)}",
        )  # type: ignore[no-any-return]

    def made(self, *, key: tuple[str, str] | None = None, **how: str) -> str:
        """Put a newer spine on the second disk; return the words that stage it."""
        path, self.version = f"{self.second}.efi", f"9.0.{self.made_so_far}"
        self.made_so_far += 1
        shutil.rmtree(f"{path}.parts", ignore_errors=True)
        digest = newer.newer(self.first, path, self.version, key=key, **how)
        data = Path(path).read_bytes()
        os.unlink(path)
        with open(self.second, "r+b") as file:
            file.write(data)
        return f"head -c {len(data)} /dev/vdb | bay0 upgrade stage - --digest {digest}"

    def staged(self, words: str) -> str:
        """Stage it; return its digest."""
        self.vm.out(f"echo 3 >/proc/sys/vm/drop_caches; {words}", STAGE_S)
        assert self.status()["state"] == "staged"
        return words.rpartition(" ")[2]

    def tries(self) -> None:
        self.at = len(self.vm.console)
        self.vm.send("bay0 upgrade try")

    @contextlib.contextmanager
    def off(self) -> Iterator[int]:
        """Hold the machine once it is armed, before the loader reads anything; yield where slot B begins."""
        self.see("the machine restarts")
        self.vm.qmp("stop")
        yield starts(self.disk)[2]
        self.vm.qmp("cont")

    def whole(self, canary: str) -> None:
        """Nothing was lost: /persist is durable, has what it had, and refuses what was refused."""
        assert self.vm.wait_durable()["storage"]["state"] == "durable"
        assert self.vm.out("cat /persist/kept") == canary
        for digest in (CANARY, *self.refused):
            assert self.vm.call("nack.check", digest=digest)["nacked"], digest

    def back(self, begin: float, what: str) -> float:
        """Wait for the way back to its end; return its seconds from the start of the newer spine."""
        self.up("SLOTA", WATCHDOG_S)
        seconds = time.monotonic() - begin
        record(what, seconds)
        self.whole("precious")
        return seconds


def record(what: str, seconds: float) -> None:
    """Keep a figure, where somebody wants it."""
    if path := os.environ.get("SPINE_RECORD"):
        with open(path, "a", encoding="ascii") as file:
            file.write(json.dumps({"what": what, "seconds": round(seconds, 1)}) + "\n")


@contextlib.contextmanager
def computer(
    folder: str, first: str, key: tuple[str, str] | None = None, efi: tuple[str, ...] = ()
) -> Iterator[Computer]:
    """A machine whose first spine is up, with something on /persist."""
    disk, second = f"{folder}/upgrade.img", f"{folder}/second.img"
    flash(disk, first, *SIZES, key=key)
    with open(second, "wb") as file:
        file.truncate(ROOM)
    drive = ("-drive", f"file={second},format=raw,if=virtio,readonly=on")
    try:
        with harness.vm(efi=("--efi", disk, *efi), qemu=(*RESETS, *drive), life_s=LIFE_S) as vm:
            pc = Computer(vm, disk, second, first)
            pc.up("SLOTA")
            vm.wait_durable()
            vm.out(f"echo precious >/persist/kept; sync; bay0 nack add {CANARY} --why 'to be kept'")
            yield pc
    finally:
        for path in (disk, second):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


class Machines:
    """The one machine, made anew when a case has failed in it."""

    def __init__(self, make: Callable[[], contextlib.AbstractContextManager[Computer]]) -> None:
        self.make, self.stack, self.now = make, contextlib.ExitStack(), None

    def get(self) -> Computer:
        if self.now is None or self.now.failed:
            self.stack.close()
            self.now = self.stack.enter_context(self.make())
        return self.now


@pytest.fixture(scope="module")
def machines(folder: str, first: str) -> Iterator[Machines]:
    all_of_them = Machines(lambda: computer(folder, first))
    with all_of_them.stack:
        yield all_of_them


@pytest.fixture
def pc(machines: Machines) -> Iterator[Computer]:
    """The machine with the first spine up and nothing staged."""
    found = machines.get()
    found.failed = True  # until the case is through
    yield found
    if not found.answers():
        return
    if found.status()["state"] in ("staged", "trying"):
        found.vm.out("bay0 upgrade cancel")
    found.failed = found.status()["state"] not in ("idle", "nacked") or found.status()["runs"] != "SLOTA"


def test_a_newer_spine_is_staged_tried_and_is_the_good_one_until_somebody_goes_back(pc: Computer) -> None:
    digest = pc.staged(pc.made())
    shown = pc.status()
    assert (shown["runs"], shown["next"], shown["image"]["version"]) == ("SLOTA", "SLOTA", pc.version)
    pc.tries()
    pc.up("SLOTB")
    begin = time.monotonic()
    assert pc.vm.out("sed -n s/^VERSION_ID=//p /etc/os-release") == pc.version
    pc.until("good")
    pc.whole("precious")
    refused = pc.vm.sh("bay0 upgrade stage /etc/hostname")
    assert (refused.status, "one more boot" in refused.stderr) == (1, True), refused
    pc.vm.send("bay0 reboot")
    pc.up("SLOTB")
    record("an ordered restart, from good to up again", time.monotonic() - begin)
    pc.until("idle")
    begin = time.monotonic()
    pc.vm.send("bay0 upgrade rollback")
    pc.back(begin, "rolled back by somebody")
    pc.until("nacked")
    pc.refused.append(digest)
    pc.whole("precious")


@frozen
class Bad:
    """A newer spine that is bad: how it is made, what the console shows of it, whether that is a verdict."""

    how: dict[str, str]
    shows: str
    verdict: str = ""  # what the NACK says; without one it is armed again


BAD = {
    "red": Bad({"stage0": newer.NO_PODMAN}, r"the upgrade is not well", "podman"),
    "hangs in the kernel": Bad({"words": newer.NOTHING_TO_START}, r"Kernel panic - not syncing"),
    "hangs in stage 0": Bad({"stage0": newer.HANGS}, r"hangs now"),
    "hangs in bay0": Bad({"stage0": newer.FREEZES}, r"bay0: starting"),
    "panics": Bad({"stage0": newer.PANICS}, r"Attempted to kill init"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_newer_spine_that_is_bad_leaves_the_old_one_up_again_by_itself(pc: Computer, what: str) -> None:
    bad = BAD[what]
    words = pc.made(**bad.how)
    digest = pc.staged(words)
    pc.tries()
    pc.see(STARTING.format("SLOTB"))
    begin = time.monotonic()
    pc.see(bad.shows)
    pc.back(begin, what)
    if bad.verdict:
        is_refused(pc, words, bad.verdict)
    else:
        is_armed_again(pc, digest, 2)


def is_refused(pc: Computer, words: str, why: str) -> None:
    """It has its verdict: it is refused from now on, and its slot is nothing."""
    assert why in str(pc.until("nacked")["why"])
    digest = words.rpartition(" ")[2]
    pc.refused.append(digest)
    pc.whole("precious")
    again = pc.vm.sh(words, STAGE_S)
    assert (again.status, "is refused" in again.stderr) == (1, True), again
    assert pc.status()["slots"]["SLOTB"]["uki"] is None


def is_armed_again(pc: Computer, digest: str, attempts: int) -> None:
    """It has none: the next boot that somebody makes tries it again; this one goes on."""
    assert pc.until("trying")["attempts"] == attempts
    assert not pc.vm.call("nack.check", digest=digest)["nacked"]
    assert pc.vm.status()["boot"] == "complete"


def test_after_three_tries_without_a_verdict_it_is_refused(pc: Computer) -> None:
    words = pc.made(stage0=newer.RESETS)
    digest = pc.staged(words)
    for attempt in range(1, TRIES + 1):
        if attempt == 1:
            pc.tries()
        else:
            pc.vm.send("bay0 reboot")
        pc.see(STARTING.format("SLOTB"))
        begin = time.monotonic()
        pc.back(begin, "reboots at once")
        if attempt < TRIES:
            is_armed_again(pc, digest, attempt + 1)
    is_refused(pc, words, f"{TRIES} tries")


def test_a_newer_spine_that_hangs_after_it_was_green_and_before_the_commit_is_not_committed(
    pc: Computer,
) -> None:
    digest = pc.staged(pc.made(words="bay0.prove=300"))
    pc.tries()
    pc.up("SLOTB")
    pc.until("proving")
    assert pc.vm.sh("bay0 validate", 240).status in (0, 1), "GREEN, or YELLOW for want of an AI"
    begin = time.monotonic()
    pc.vm.send("echo 1 >/sys/fs/cgroup/init/cgroup.freeze")
    pc.back(begin, "hangs after its first GREEN")
    is_armed_again(pc, digest, 2)


def test_a_newer_spine_of_which_half_is_missing_is_not_started_and_the_old_one_comes_up(pc: Computer) -> None:
    words = pc.made()
    digest = pc.staged(words)
    size = int(words.split()[2])
    pc.tries()
    with pc.off() as slot, open(pc.disk, "r+b") as file:
        file.seek(slot + slotfat.spine_at(slotfat.layout(SLOT)) + size // 2)
        file.write(bytes(size - size // 2))
    pc.see(STARTING.format("SLOTB"))
    begin = time.monotonic()
    pc.back(begin, "torn: half of it is zeros")
    is_armed_again(pc, digest, 2)


def test_a_bit_that_flips_between_arming_and_the_try_is_found_by_the_newer_spine_itself(pc: Computer) -> None:
    words = pc.made()
    digest = pc.staged(words)
    at = slotfat.spine_at(slotfat.layout(SLOT)) + Path(pc.second).read_bytes().index(newer.UNUSED)
    pc.tries()
    with pc.off() as slot, open(pc.disk, "r+b") as file:
        file.seek(slot + at)
        (byte,) = file.read(1)
        file.seek(slot + at)
        file.write(bytes([byte ^ 1]))
    pc.see(STARTING.format("SLOTB"))
    begin = time.monotonic()
    pc.see("the upgrade is not well")
    pc.back(begin, "one bit flipped")
    assert "does not hold what was staged" in str(pc.until("nacked")["why"])
    pc.refused.append(digest)


def test_with_secure_boot_what_a_strange_key_signed_is_not_started_and_what_none_signed_not_staged(
    folder: str, keys: Keys
) -> None:
    signed = pack(f"{folder}/signed.efi", keys.trusted, WORDS)
    with computer(folder, signed, keys.trusted, ENFORCED) as pc:
        unsigned = pc.vm.sh(pc.made(), STAGE_S)
        assert (unsigned.status, "it is not signed, and Secure Boot is on" in unsigned.stderr) == (1, True), (
            unsigned
        )
        digest = pc.staged(pc.made(key=keys.foreign))
        pc.tries()
        pc.see(STARTING.format("SLOTB"))
        begin = time.monotonic()
        pc.see(r"Cannot load specified kernel image")
        pc.back(begin, "signed by nobody, under Secure Boot")
        is_armed_again(pc, digest, 2)
        pc.vm.out("bay0 upgrade cancel")
        pc.staged(pc.made(key=keys.trusted))
        pc.tries()
        pc.up("SLOTB")
        pc.until("good")
    os.unlink(signed)


def test_the_environment_is_the_one_that_the_loader_was_given(pc: Computer) -> None:
    """As the host reads the disk, at the end of all that: A is good, B is not offered."""
    path = f"{pc.disk}.env"
    found = {}
    for name, start in zip(bootenv.SLOTS, starts(pc.disk)[1:3], strict=True):
        done = harness.tool(
            "mcopy", "-D", "o", "-n", "-i", f"{pc.disk}@@{start}", f"::/{bootenv.FILE}", path, check=False
        )
        found[name] = bootenv.parse(Path(path).read_bytes()) if done.returncode == 0 else None
    os.unlink(path)
    assert found["SLOTA"] is not None
    assert found["SLOTA"].ustate is bootenv.UState.OK
    assert found["SLOTB"] is None or found["SLOTB"].revision == 0
