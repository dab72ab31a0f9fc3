"""Moments at which a plug is pulled: QEMU is killed while a persona is created, started, paused, stopped, reset, or cleared by a boot.

After each cut the next boot must have every persona stopped, no container of ours, every persona that was acknowledged, its home as it was, and a
log that says what was repaired.
"""

from __future__ import annotations

import os
import random
import time

import harness
from attrs import frozen
from harness import PODMAN, Vm

SEED = int(os.environ.get("SPINE_SEED", "1"))
HOME = "/persist/homes/p__work"
SETTLE_S = 180


@frozen
class Point:
    """Send `verb` (after `before`), wait for `line` on the console, then `delay_s`, and cut. Without a verb the cut is in the boot itself."""

    verb: str
    line: str
    delay_s: float = 0.0
    before: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.verb or 'a boot'}, {self.line or 'sent'}, +{self.delay_s:g} s"


STARTED = ("start work",)
POINTS = (
    Point("create spare --file /usr/share/spine-personas/burn/persona.toml", ""),
    Point("create spare --file /usr/share/spine-personas/burn/persona.toml", "p://spare: absent -> stopped"),
    Point("start work", ""),
    Point("start work", "p://work: stopped -> starting"),
    Point("start work", "p://work: stopped -> starting", 0.5),
    Point("start work", "p://work: stopped -> starting", 1.5),
    Point("start work", "p://work: starting -> running"),
    Point("start work", "p://work: starting -> running", 2.0),
    Point("pause work", "p://work: running -> pausing", 0.0, STARTED),
    Point("pause work", "p://work: running -> pausing", 0.4, STARTED),
    Point("pause work", "p://work: pausing -> paused", 0.0, STARTED),
    Point("stop work", "p://work: running -> stopping", 0.0, STARTED),
    Point("stop work", "p://work: running -> stopping", 1.0, STARTED),
    Point("stop work", "p://work: stopping -> stopped", 0.0, STARTED),
    Point("reset work", "p://work: running -> converging", 0.0, STARTED),
    Point("reset work", "p://work: running -> converging", 1.0, STARTED),
    Point("reset work", "p://work: converging -> stopped", 0.0, STARTED),
    Point("", "attaching -> reconciling", 0.2, STARTED),
    Point("", "attaching -> reconciling", 1.5, STARTED),
    Point("", r"p://work: \w+ -> converging", 0.5, STARTED),  # what NORMAL had not synced is lost: it may be found starting
)


def drawn() -> Point:
    """Return the default tier's point, which is not one in a boot: SPINE_SEED (default 1) draws it."""
    return random.Random(SEED).choice([point for point in POINTS if point.verb])


def personas(machine: Vm) -> dict[str, str]:
    return {each["name"]: each["state"] for each in machine.call("persona.list")}


def prepare(machine: Vm) -> None:
    """Create the persona that lives through all, with something in its home."""
    machine.out("bay0 persona create work && bay0 persona start work && bay0 persona stop work", SETTLE_S)
    machine.out(f"echo precious >{HOME}/letter && sync")


def check_converged(machine: Vm, point: Point) -> None:
    """What every boot after a cut owes."""
    what = f"after {point}"
    harness.until(lambda: set(personas(machine).values()) <= {"stopped"}, SETTLE_S, f"every persona is stopped {what}")
    kept = {"p://work", "p://spare"} if point.line.startswith("p://spare") else {"p://work"}  # its step was kept before the line was there
    assert kept <= set(personas(machine)), f"{what}: acknowledged and lost"
    assert machine.out(f"{PODMAN} ps -a -q", SETTLE_S) == "", f"{what}: a container is left"
    assert machine.out(f"cat {HOME}/letter") == "precious", what
    assert machine.out("find /sys/fs/cgroup/personas -name 'libpod-*' -type d") == "", f"{what}: a cgroup is left"
    rows = machine.call("history", machine="p://work")
    assert rows[-1]["dest"] == "stopped", f"{what}: {rows[-1]}"
    if rows[-1]["source"] == "converging":
        assert any("it was found" in row["why"] for row in rows), f"{what}: the journal does not say what was repaired"


def cut_at(machine: Vm, point: Point) -> None:
    """Get there and pull the plug; a point inside a boot needs what runs when the plug is pulled, and then that boot."""
    for verb in point.before:
        machine.out(f"bay0 persona {verb}", SETTLE_S)
    if point.verb:
        start = len(machine.console)
        machine.send(f"bay0 persona {point.verb}")
        if point.line:
            machine.wait_console(point.line, SETTLE_S, after=start)
        time.sleep(point.delay_s)
    machine.pull_the_plug()


def cut_in_boot(machine: Vm, point: Point) -> None:
    machine.wait_console(point.line, SETTLE_S)
    time.sleep(point.delay_s)
    machine.pull_the_plug()
