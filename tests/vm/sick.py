"""Disks that fall sick: the modes, how a VM's disk gets into one and out of it, and what is to be seen of PID 1 meanwhile.

With SPINE_RECORD=FILE each case appends its figures to FILE, a JSON object a line; scripts/bench/wedge.py makes a table of them.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
from collections.abc import Iterator
from typing import Any

import harness
import nbd
from attrs import define, field
from harness import Vm, VmError
from nbd import FLUSH, READ, WRITE, Fault

UNPLUGGED, FULL = "unplugged", "full"
MODES = {
    "silent": Fault(hold=True),
    "silent to reads": Fault(frozenset({READ}), hold=True),
    "silent to writes": Fault(frozenset({WRITE}), hold=True),
    "silent to flushes": Fault(frozenset({FLUSH}), hold=True),
    "150 ms late": Fault(delay_s=0.15),
    "250 ms late": Fault(delay_s=0.25),
    "5000 ms late": Fault(delay_s=5.0),
    "one request a second": Fault(pace_s=1.0),
    "flapping": Fault(hold=True, flap_s=4.0),
    "failing reads": Fault(frozenset({READ}), error=errno.EIO),
    "failing writes": Fault(frozenset({WRITE}), error=errno.EIO),
    "failing flushes": Fault(frozenset({FLUSH}), error=errno.EIO),
    "writes without space": Fault(frozenset({WRITE}), error=errno.ENOSPC),  # of the host; virtio knows only "error"
    FULL: None,
    UNPLUGGED: None,
}
NOTICED = {  # others may hide in a cache or a bound
    "silent", "silent to writes", "silent to flushes", "failing writes", "failing flushes", "writes without space", FULL, UNPLUGGED,
}  # fmt: skip
SPOILS = {"failing reads", "failing writes", "failing flushes", "writes without space", UNPLUGGED}  # the kernel notes an error in the superblock
DONE_S = 300
LEFT_MAX = 2
SLOW_MS = 40.0
ORPHANS = "for i in 1 2 3 4 5 6 7 8 9 10; do ( sleep 0.1 & ) ; done; exit 7"
STUCK = "ps -e -o stat=,comm= | grep '^D' | grep -v -e '\\[' -e kworker -e jbd2 -e ext4 | wc -l"  # not the kernel's own
FILL = (  # the most of it by allocation alone: writing a gigabyte takes minutes without KVM
    "fallocate -l $(( $(stat -f -c '%f * %S' /persist) - (8 << 20) )) /persist/big; cat /dev/zero >/persist/rest; sync"
)
RECORD = os.environ.get("SPINE_RECORD")
_digests = itertools.count(1)


@define(eq=False)
class Case:
    """One time of trouble."""

    mode: str
    moment: str
    since_ms: float
    rss_kib: int
    left: int = 0
    stuck: int = 0
    seen: set[str] = field(factory=set)
    refused: int = 0


@define(eq=False)
class Patient:
    """A VM and its disk, which is served by `nbd.disk`. `promised`: digests whose NACK was acknowledged."""

    machine: Vm
    disk: nbd.Disk
    mode: str
    promised: set[str] = field(factory=set)
    _node: str = ""

    # ---- the disk

    def fall_sick(self) -> None:
        """Let the mode begin."""
        if self.mode == UNPLUGGED:
            self.machine.qmp("device_del", id="disk")
            harness.until(self._unplugged, 60, "the disk is unplugged")
        elif self.mode == FULL:
            self.machine.sh(FILL)
        else:
            self.disk.set(MODES[self.mode])

    def fall_sick_at_a_write(self) -> None:
        """Let the mode begin with the next write; what has no such moment begins now."""
        fault = MODES[self.mode]
        if fault is not None:
            self.disk.arm(WRITE, fault)

    @contextlib.contextmanager
    def sick(self) -> Iterator[None]:
        """Fall sick, and get well whatever comes of it: the next case wants a disk."""
        self.fall_sick()
        try:
            yield
        finally:
            self.get_well()

    def get_well(self) -> None:
        """Let the mode end."""
        if self.mode == UNPLUGGED:
            if not self._node:  # the first one went with its device; ours stays, and keeps its connection
                self._node = "again"
                server = {"type": "unix", "path": self.disk.uri.removeprefix("nbd:unix:")}
                self.machine.qmp("blockdev-add", driver="nbd", server=server, **{"node-name": self._node})
            self.machine.qmp("device_add", driver="virtio-blk-pci", drive=self._node, id="disk")
        elif self.mode == FULL:
            self.machine.sh("rm -f /persist/big /persist/rest; sync")
        else:
            self.disk.clear()

    def _unplugged(self) -> bool:
        found = self.machine.qmp("qom-list", path="/machine/peripheral")
        return all(each["name"] != "disk" for each in found)

    def mended(self) -> dict[str, Any]:
        """Wait for storage that is well again; where bay0 looks only now and then, ask it to look."""

        def look() -> bool:
            state = self.machine.status()["storage"]["state"]
            if state in {"detached", "readonly"}:
                self.machine.ask("storage.retry")
            return state == "durable"

        harness.until(look, 180, "storage is durable again", every_s=1)
        return self.machine.wait_durable()

    # ---- what is to be seen

    def begin(self, moment: str) -> Case:
        """Note how it is before the trouble."""
        status = self.machine.status()
        return Case(self.mode, moment, status["up_ms"], status["pid1"]["rss_kib"])

    def begin_with_the_boot(self, moment: str) -> Case:
        """The trouble began with the boot's way to its disk."""
        found = self.machine.call("boots", previous=0)["this"]
        began = next(step["at_ms"] for step in found["steps"] if step["dest"] == "attaching")
        case = self.begin(moment)
        case.since_ms = began
        return case

    def look(self, case: Case) -> dict[str, Any]:
        """PID 1 answers, runs a command, reaps, says one line, and promises only what it keeps; return the status."""
        digest = f"sha256:{next(_digests):064x}"
        before = self.machine.status()
        ran = self.machine.call("run", argv=["sh", "-c", ORPHANS], deadline_s=30)
        assert ran["status"] == 7
        self.try_a_promise(case, digest)
        status = harness.until(
            lambda: (now := self.machine.status())["pid1"]["orphans"] - before["pid1"]["orphans"] >= 10 and now, 60, "ten orphans are reaped"
        )
        self.count(case, status)
        assert status["boot"] == "complete"
        assert (status["dirty"] is None) == (status["storage"]["state"] == "durable"), status["dirty"]
        assert "\n" not in (status["dirty"] or "")
        return status

    def try_a_promise(self, case: Case, digest: str) -> None:
        """Ask for something that must be kept: it is, or it is refused with a reason."""
        answer = self.machine.ask("nack.add", digest=digest, why=case.mode)
        if "result" in answer:
            self.promised.add(digest)
        else:
            case.refused += 1
            assert any(word in answer["error"]["message"] for word in ("storage", "answer", "disk", "full", "error")), answer

    def count(self, case: Case, status: dict[str, Any]) -> None:
        """Note what hangs."""
        case.seen.add(status["storage"]["state"])
        assert status["storage"]["workers_left_behind"] <= 1
        case.left = max(case.left, status["storage"]["workers_left_behind"] + status["pid1"]["commands_left_behind"])
        case.stuck = max(case.stuck, int(self.machine.out(STUCK)))

    def end(self, case: Case) -> None:
        """After the disk is well again: nothing acknowledged is lost, nothing is left behind; note the figures."""
        status = self.mended()
        assert (status["dirty"], status["storage"]["lost"]) == (None, 0)
        listed = {row["digest"] for row in self.machine.call("nack.list")["entries"]}
        assert self.promised <= listed, self.promised - listed
        harness.until(self._nothing_left, 120, "nothing is left behind", every_s=0.5)
        self.note(case, self.machine.status())

    def note(self, case: Case, status: dict[str, Any]) -> None:
        """Keep the figures of a case that is over."""
        turns = self.machine.call("turns", since_ms=case.since_ms)
        slow = [[span["longest_ms"], span["longest_cpu_ms"], span["longest_sleeps"], span["longest"]] for span in turns["spans"]]
        found = {
            "mode": case.mode, "moment": case.moment, "longest_ms": turns["longest_ms"], "longest_cpu_ms": turns["longest_cpu_ms"],
            "sleeps": turns["longest_sleeps"], "about": turns["longest"], "mean_ms": turns["mean_ms"], "turns": turns["turns"],
            "rss_kib": status["pid1"]["rss_kib"] - case.rss_kib, "left": case.left, "stuck": case.stuck, "seen": sorted(case.seen),
            "refused": case.refused, "promised": len(self.promised), "slow": [each for each in slow if each[0] > SLOW_MS],
        }  # fmt: skip
        record(found)
        assert case.left <= LEFT_MAX

    def _nothing_left(self) -> bool:
        status = self.machine.status()
        if status["storage"]["workers_left_behind"] or status["pid1"]["commands_left_behind"]:
            return False
        return len(self.machine.out("cat /sys/fs/cgroup/services/state/cgroup.procs").split()) == 1


def record(found: dict[str, Any]) -> None:
    """Keep a case's figures, and show them under `pytest -s`."""
    print(f"\n{json.dumps(found)}", end="")
    if RECORD:
        with open(RECORD, "a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")


def check_disk(path: str, *, spoilt: bool) -> harness.Stored:
    """Assert that a disk no VM uses any more is whole, after a repair where errors were noted in it, and return what is stored."""
    if spoilt:
        assert harness.tool("e2fsck", "-fy", path, check=False).returncode in {0, 1}
    else:
        harness.check_clean(path)
    found = harness.stored(path)
    assert found.integrity == "ok"
    return found


__all__ = ["DONE_S", "FILL", "FULL", "MODES", "NOTICED", "SPOILS", "UNPLUGGED", "Case", "Patient", "VmError", "check_disk", "record"]
