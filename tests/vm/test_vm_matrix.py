"""Wedge modes x moments: two boots of one disk for each mode.

The default tier has a sample in one boot: a disk that is silent before the mount, then one more moment, drawn by SPINE_SEED: silent while it
is used, or sick in a drawn mode while the spine powers off with a persona that runs. The full tier has all of it, for that pair and each mode.

The first boot finds its disk sick before the mount, then while it is used, then while a persona starts and while it stops; then the plug is
pulled while that persona runs. The second finds it sick during the mount, then in the reconcile, which has the persona stored as running and
podman's container to clear, then while it powers off. There is no upgrade yet: the persona's start and stop stand for that moment.
The contract is the same for each, see `sick.Patient`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

import drawn
import harness
import nbd
import pytest
import sick
from harness import NAP
from sick import FULL, MODES, NOTICED, UNPLUGGED, Patient

pytestmark = pytest.mark.vm

DRAWN = random.Random(drawn.SEED).choice(list(MODES))
MOMENT = drawn.Some(1, "in use", "powers off")
STORIES = [
    pytest.param(("silent", DRAWN), id=f"silent then {DRAWN}"),
    *(pytest.param((mode, mode), id=mode, marks=pytest.mark.full) for mode in MODES),
]
END_S = 300  # stop, close, reboot(2) and the watchdog, each with its bound and patience 5
SETTLE_S = 240  # of a persona
WAY_OUT = 'echo "exit 0" >"$BAY0_EXEC_STATUS"; bay0 poweroff'
LIFE_S = 1500
NAME = "p://nap"


@pytest.fixture(scope="module", params=STORIES)
def modes(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


@pytest.fixture(scope="module")
def image(modes: tuple[str, str], folder: str) -> str:
    return harness.make_disk(f"{folder}/{modes[0]}-{modes[1]}.img".replace(" ", "-"), "1G")


@pytest.fixture(scope="module")
def first(modes: tuple[str, str], image: str) -> Iterator[Patient]:
    """A boot whose disk is sick from the kernel's start on. Earlier the firmware would wait for it."""
    with nbd.disk(image) as disk, harness.vm(disk.uri, life_s=LIFE_S) as machine:
        patient = Patient(machine, disk, modes[0])
        machine.wait_console("stage0: ")
        if modes[0] != FULL:
            patient.fall_sick()
        machine.wait_console(harness.COMPLETE)
        yield patient


@pytest.fixture(scope="module")
def second(first: Patient, modes: tuple[str, str], image: str) -> Iterator[Patient]:
    """A boot of that disk, which was in use when the plug was pulled; sick from the mount's first write on."""
    if modes[1] == FULL:
        first.machine.sh(sick.FILL)
    first.machine.pull_the_plug()
    first.disk.close()
    with nbd.disk(image) as disk, harness.vm(disk.uri, life_s=LIFE_S) as machine:
        patient = Patient(machine, disk, modes[1], first.promised)
        patient.fall_sick_at_a_write()
        machine.wait_console("stage0: ")
        if modes[1] == UNPLUGGED:
            machine.wait_console("attaching", harness.BOOT_S)
            patient.fall_sick()
        machine.wait_console(harness.COMPLETE)
        yield patient


@pytest.fixture
def leaver(request: pytest.FixtureRequest, first: Patient, modes: tuple[str, str]) -> Patient:
    """Who is to power off: the second boot, or in the default tier, which has none, the first one in the second's mode."""
    if first.machine.process.poll() is None:
        return Patient(first.machine, first.disk, modes[1], first.promised)
    found: Patient = request.getfixturevalue("second")
    return found


def test_before_the_mount(first: Patient):
    case = first.begin_with_the_boot("before the mount")
    status = first.look(case)
    assert first.mode == FULL or first.mode not in {"silent", "silent to reads", UNPLUGGED} or status["dirty"]
    if first.mode == "silent":
        hints(first)
    first.get_well()
    first.end(case)
    if status["dirty"]:  # every step of the boot was kept in memory until there was a disk
        rows = first.machine.call("history", machine=f"boot:{status['boot_id'][:8]}")
        assert [row["dest"] for row in rows][:1] + [row["dest"] for row in rows][-1:] == ["mounting", "complete"]


def hints(patient: Patient) -> None:
    """While it is wedged, earlier boots are said to be unread, and a retry is refused with its reason."""
    assert patient.machine.call("boots")["unread"]
    refused = patient.machine.sh("bay0 storage retry")
    assert (refused.status, "still hangs on the disk" in refused.stderr) == (1, True)
    assert "dirty:" in patient.machine.out("bay0 status")


@MOMENT("in use")
def test_in_use(first: Patient):
    first.mended()
    first.machine.out("sync; echo 3 >/proc/sys/vm/drop_caches")  # a warm cache hides bugs
    case = first.begin("in use")
    before = len(first.machine.console)
    with first.sick():
        first.look(case)  # its promise is what notices
        first.look(case)
        noticed = first.mode in NOTICED
        assert not noticed or case.seen != {"durable"}
        assert not noticed or case.refused
        if first.mode == "silent":
            hints(first)
            assert first.machine.console[before:].count("-> wedged") == 1
    first.end(case)


@pytest.mark.full
def test_while_a_persona_starts(first: Patient):
    first.mended()
    machine = first.machine
    made(first)
    machine.out("bay0 persona start nap && bay0 persona stop nap", SETTLE_S)  # its image is there from now on
    case = first.begin("persona starts")
    machine.call("persona.start", name=NAME, wait=False)
    with first.sick():
        first.look(case)
        first.look(case)
    settles(first)
    first.end(case)


@pytest.mark.full
def test_while_a_persona_stops(first: Patient):
    first.mended()
    runs(first)
    case = first.begin("persona stops")
    first.machine.call("persona.stop", name=NAME, wait=False)
    with first.sick():
        first.look(case)
        first.look(case)
    settles(first)
    first.end(case)
    runs(first)


def made(patient: Patient) -> None:
    """Create the persona, unless it is there."""

    def known() -> dict[str, Any] | None:
        found = patient.machine.ask("persona.show", name=NAME)
        return None if "is not known in this boot" in found.get("error", {}).get("message", "") else found

    if "error" in harness.until(known, SETTLE_S, "what is stored is known", every_s=1):
        patient.machine.create("nap", NAP)


def settles(patient: Patient) -> str:
    """Wait until the persona rests somewhere."""

    def look() -> str | None:
        if patient.machine.status()["storage"]["state"] in {"detached", "readonly"}:
            patient.machine.ask("storage.retry")
        found = patient.machine.ask("persona.show", name=NAME)  # refused until what is stored is known
        state: str = found.get("result", {}).get("state", "")
        return state if state in {"running", "stopped", "failed"} else None

    found: str = harness.until(look, SETTLE_S, "the persona rests", every_s=1)
    return found


def runs(patient: Patient) -> None:
    """Make the persona run, whatever it is now."""
    made(patient)
    if settles(patient) == "failed":
        patient.machine.sh("bay0 persona stop nap", SETTLE_S)
    if settles(patient) != "running":
        patient.machine.out("bay0 persona start nap", SETTLE_S)


@pytest.mark.full
def test_during_the_mount_and_in_reconcile(second: Patient):
    case = second.begin_with_the_boot("during the mount")
    second.look(case)
    second.get_well()
    second.machine.wait_console("-> durable", 180)
    # no `end` yet: now the reconcile begins, podman's side of it takes seconds, and the disk falls sick again
    if second.mode not in {UNPLUGGED, FULL}:  # those have their moment in the boot itself
        second.fall_sick()
        second.note(case, second.machine.status())
        case = second.begin("in reconcile")
        second.look(case)
        second.look(case)
        second.get_well()
    second.end(case)
    assert settles(second) == "stopped"


@MOMENT("powers off")
def test_while_it_powers_off(leaver: Patient, image: str):
    leaver.mended()
    runs(leaver)
    machine = leaver.machine
    boot_id = machine.status()["boot_id"]
    machine.out("sync")
    leaver.fall_sick()
    began = time.monotonic()
    machine.send(WAY_OUT)
    machine.wait_console("leaving -> powering", END_S)
    if leaver.mode not in {UNPLUGGED, FULL}:
        leaver.disk.clear()  # the kernel now resets its devices, and QEMU does not reset a disk that holds requests: no vCPU runs until then
    machine.wait_console("reboot: Power down|reboot: Restarting|sysrq: Resetting", END_S)
    assert machine.wait().status == 0
    sick.record({"mode": leaver.mode, "moment": "powers off", "gone_s": round(time.monotonic() - began, 1)})
    found = sick.check_disk(image, spoilt=True)
    assert found.boots[-1] == boot_id
    assert "complete" in found.boot(boot_id)
