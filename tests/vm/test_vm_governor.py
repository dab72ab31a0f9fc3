"""The governor against real pressure, the doctor and the bundle: one boot of a machine with little memory."""

from __future__ import annotations

import json
from collections.abc import Iterator

import harness
import pytest
from harness import Vm

pytestmark = pytest.mark.vm

SECRET = "correct-horse-battery"
LIFE_S = 1500
ACTS_S = 300  # from the first byte to an action: memory has to fill first
VERB_S = 150
THERMAL = "/sys/class/thermal"
# reads a file again and again: as long as it stays in memory, that waits for nothing
FRONT = """image = "localhost/alpine:3.23"
command = ["/bin/sh", "-c", "dd if=/dev/zero of=data bs=1M count=96 2>/dev/null; while :; do cat data >/dev/null; sleep 0.2; done"]
home = "/home/front"
memory = "256M"
stop_s = 0
"""
# takes so many MiB and keeps them; its own limit is far above what the machine has
HOG = f"""image = "localhost/alpine:3.23"
command = ["/usr/bin/awk", '''BEGIN {{ c = sprintf("%1048576s", ""); while (n < @MIB@) a[n++] = c n; while (1) system("sleep 1") }}''']
memory = "2G"
stop_s = 0

[environment]
TOKEN = "{SECRET}"
"""


@pytest.fixture(scope="module")
def spine(folder: str) -> Iterator[Vm]:
    disk = harness.make_disk(f"{folder}/governed.img", "1G")
    with harness.vm(disk, qemu=("-m", "768"), life_s=LIFE_S) as machine:
        machine.wait_console(harness.COMPLETE)
        machine.wait_durable()
        yield machine


@pytest.fixture(scope="module")
def front(spine: Vm) -> str:
    """The persona in front, for all cases."""
    spine.create("front", FRONT)
    start(spine, "front")
    return "front"


def start(spine: Vm, name: str) -> None:
    spine.act("start", name, VERB_S)
    harness.until(lambda: state(spine, name) == "running", VERB_S, f"{name} runs")


def state(spine: Vm, name: str) -> str:
    return spine.show(name)["state"]


def governor(spine: Vm) -> dict:
    found: dict = spine.call("governor")
    return found


def acted(spine: Vm, cause: str, after: int = 0) -> dict | None:
    return next((a for a in governor(spine)["actions"][after:] if a["cause"] == cause), None)


def test_a_healthy_spine_gives_the_doctor_nothing_to_find(spine: Vm):
    harness.until(lambda: spine.sh("bay0 governor").status == 0, 60, "the governor has begun", every_s=1)
    done = spine.sh("bay0 doctor")
    assert (done.status, done.stdout) == (0, "nothing wrong found\n"), done.stdout + done.stderr
    seen = governor(spine)
    assert seen["psi"] is True
    assert (seen["virtual"], seen["blind"], seen["tenants"], seen["actions"]) == (True, False, [], [])
    assert "pressure information is there" in spine.out("bay0 log")


def test_under_memory_pressure_the_one_behind_is_frozen_or_stopped_and_the_one_in_front_is_not_touched(spine: Vm, front: str):
    together = governor(spine)["personas_limit"] >> 20
    assert 64 <= together < 768 - 96
    spine.create("hog", HOG.replace("@MIB@", str(together - 40)))  # which leaves the one in front less than half of its file
    spine.call("focus", VERB_S, name=f"p://{front}")
    before = spine.show(front)
    start(spine, "hog")
    action = harness.until(lambda: acted(spine, "memory"), ACTS_S, "the governor acts for want of memory")
    assert (action["persona"], action["dest"]) == ("p://hog", "frozen")
    assert "for want of memory" in action["why"]
    harness.until(lambda: state(spine, "hog") in ("paused", "stopped"), VERB_S, "hog is frozen or stopped")
    assert all(each["persona"] == "p://hog" for each in governor(spine)["actions"])
    after = spine.show(front)
    assert (after["state"], after["container"]) == ("running", before["container"])
    assert {step["dest"] for step in after["steps"] if step["seq"] > before["seq"]} <= {"running"}, "it went on all the time"
    limits = spine.out(f"cat /sys/fs/cgroup/personas/libpod-{after['container']}/cpu.max")
    assert limits == "100000 100000"


def test_it_says_why_to_whoever_asks_and_in_the_log_and_in_the_journal(spine: Vm):
    text = spine.out("bay0 governor")
    assert "p://hog" in text
    assert "memory" in text
    assert "for want of memory" in text
    assert "restrained" in spine.out("bay0 log")
    assert any("the governor: memory" in row["why"] for row in spine.call("history", machine="p://hog"))


def test_the_bundle_holds_what_helps_and_no_secret(spine: Vm):
    assert SECRET in json.dumps(spine.show("hog"))
    spine.out("bay0 support /tmp/support.tar.gz", VERB_S)
    names = spine.out("cd /tmp && tar -xzf support.tar.gz && ls bay0-support").split()
    wanted = {"status", "boots", "personas", "journal", "manifest", "governor"}
    assert {*(f"{name}.json" for name in wanted), "log.jsonl", "cmdline.txt", "dmesg.txt", "doctor.txt", "contents.txt"} <= set(names)
    assert spine.sh(f"grep -r {SECRET} /tmp/bay0-support").status == 1
    assert "Linux version" in spine.out("head -c 2000 /tmp/bay0-support/dmesg.txt")
    assert [p["name"] for p in json.loads(spine.out("cat /tmp/bay0-support/personas.json"))] == ["p://front", "p://hog"]
    assert spine.sh("bay0 support /tmp/support.tar.gz").status == 2, "nothing is overwritten"


@pytest.mark.full
def test_heat_throttles_who_is_behind_and_a_sensor_that_goes_away_leaves_a_cap(spine: Vm):
    spine.sh("bay0 persona stop hog", VERB_S)
    harness.until(lambda: state(spine, "hog") == "stopped", VERB_S, "hog is stopped", every_s=1)
    spine.out("bay0 persona create burn")
    start(spine, "burn")
    before = len(governor(spine)["actions"])
    zone = f"{THERMAL}/thermal_zone0"
    spine.out(f"mount -t tmpfs none {THERMAL} && mkdir {zone} && cd {zone} && echo x86_pkg_temp >type && echo 91000 >temp")
    spine.out(f"cd {zone} && echo passive >trip_point_0_type && echo 90000 >trip_point_0_temp")
    action = harness.until(lambda: acted(spine, "heat", before), 120, "the governor acts on heat", every_s=2)
    assert action["persona"] == "p://burn"
    container = spine.show("burn")["container"]
    assert spine.out(f"cat /sys/fs/cgroup/personas/libpod-{container}/cpu.max") in ("25000 100000", "12500 100000", "10000 100000")
    found = spine.sh("bay0 doctor")
    assert found.status == 1
    assert "heat: the machine is near its trip" in found.stdout
    assert "p://burn: restrained by the governor" in found.stdout
    spine.out(f"rm -r {zone}")
    harness.until(lambda: governor(spine)["blind"], 60, "no temperature is believed", every_s=2)
    assert spine.sh("bay0 doctor").stdout.count("no temperature can be believed") == 1
    assert "HOT" not in spine.out("bay0 governor")
    spine.out(f"umount {THERMAL}")


def found_by_the_doctor(spine: Vm) -> list[dict]:
    return json.loads(spine.sh("bay0 doctor --json", VERB_S).stdout)  # type: ignore[no-any-return]


@pytest.mark.full  # test_vm_validate.py has one that cannot be fed in the default tier
def test_a_watchdog_whose_device_is_removed_is_said_everywhere_and_armed_anew_when_it_is_back(spine: Vm):
    assert spine.status()["watchdog"]["armed"] is True
    spine.out('for d in "/sys/bus/pci/drivers/i6300ESB timer"/0000:*; do echo 1 >"$d/remove"; done')
    failing = harness.until(lambda: spine.status()["watchdog"]["failing"], 60, "PID 1 notices")
    assert spine.status()["watchdog"]["armed"] is False
    assert "watchdog  FAILS: " in spine.out("bay0 status")
    found = spine.call("validate", VERB_S, only=["watchdog"])
    assert (found["verdict"], failing in found["checks"][0]["why"] or "is gone" in found["checks"][0]["why"]) == ("red", True)
    said = [each for each in found_by_the_doctor(spine) if each["component"] == "hardware"]
    assert [(each["level"], each["what"].startswith("it cannot be fed: ")) for each in said] == [("error", True)]
    assert "watchdog fails" in spine.out("bay0 log")
    spine.out("echo 1 >/sys/bus/pci/rescan; modprobe i6300esb")
    harness.until(lambda: spine.status()["watchdog"]["armed"], 60, "it is armed anew")
    assert [each for each in found_by_the_doctor(spine) if each["component"] == "hardware"] == []


@pytest.mark.full
def test_a_limit_that_somebody_changes_by_hand_is_set_right_if_it_is_the_spines_and_said_if_it_is_a_personas(spine: Vm, front: str):
    together = spine.out("cat /sys/fs/cgroup/personas/memory.max")
    container = spine.show(front)["container"]
    spine.out(f"echo max >/sys/fs/cgroup/personas/memory.max; echo 300M >/sys/fs/cgroup/personas/libpod-{container}/memory.max")
    harness.until(lambda: spine.out("cat /sys/fs/cgroup/personas/memory.max") == together, 120, "the governor's next look")
    said = [each["what"] for each in found_by_the_doctor(spine)]
    assert any("personas/memory.max was max" in what for what in said), said
    assert "300 MiB, and its manifest says 256 MiB: somebody changed it by hand" in said
    assert spine.out(f"cat /sys/fs/cgroup/personas/libpod-{container}/memory.max") == str(300 << 20), "it is theirs to change"


@pytest.mark.full  # a minute or more of a processor
def test_a_root_fork_bomb_on_the_console_ends_in_its_own_group_and_the_spine_goes_on(spine: Vm, front: str):
    console = "/sys/fs/cgroup/services/console"
    spine.out(f"""setsid bash -c 'echo 0 >{console}/cgroup.procs; bomb() {{ bomb | bomb & }}; bomb' >/dev/null 2>&1 </dev/null &""")
    harness.until(lambda: spine.out(f"grep -v 'max 0' {console}/pids.events || true"), 120, "it is full")
    status = spine.status()
    assert (status["boot"], status["storage"]["state"]) == ("complete", "durable")
    assert state(spine, front) == "running"
    assert spine.sh("bay0 run -- true", VERB_S).status == 0
    harness.until(lambda: "limit of processes met" in spine.out("bay0 log"), 120, "the governor's next look")
    assert any(each["what"].startswith("services/console had all the") for each in found_by_the_doctor(spine))
    spine.out(f"echo 1 >{console}/cgroup.kill")
    harness.until(lambda: spine.out(f"wc -l <{console}/cgroup.procs") == "1", 120, "the console is back, and alone")


def test_files_in_memory_leave_half_of_it(spine: Vm):
    rooms = [int(size) for size in spine.out("stat -f -c '%b' /dev /dev/shm /run /tmp /var").split()]
    assert sum(rooms) * 4096 <= 768 << 19
    spine.sh("dd if=/dev/zero of=/tmp/full bs=1M 2>/dev/null", VERB_S)
    said = found_by_the_doctor(spine)
    spine.out("rm /tmp/full")
    assert any(each["what"].startswith("/tmp is full: ") for each in said), said
    assert spine.status()["boot"] == "complete"


def test_the_spine_goes_down_in_order_with_all_that(spine: Vm):
    done = spine.quit()
    assert done.status == 0, done.console[-3000:]
    assert "checkpointed and unmounted" in done.console
