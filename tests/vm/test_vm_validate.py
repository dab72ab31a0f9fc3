"""`bay0 --validate` in a spine (Gate C): what it says of a healthy one, and that each check is red for just the thing that is broken.

One boot, many cases; each mends what it broke. Two more boots in the full tier: the command as the handoff runs it, and a plug pulled in the middle.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any

import drawn
import harness
import pytest
from harness import PODMAN, Result, Vm

pytestmark = pytest.mark.vm

LIFE_S = 1800
WHOLE_S = 400  # one waits for at most two runs of 30 s, times a patience of 5, on a busy machine
PROBES = "/sys/fs/cgroup/tenants/validate"
# The shell waits until there is a probe. An answer before that is none, and is shown.
BEGIN = f"""bay0 --validate --json >/tmp/found 2>&1 & echo $! >/tmp/asker
until ls -d {PROBES}/libpod-* >/dev/null 2>&1; do kill -0 $(cat /tmp/asker) || {{ cat /tmp/found; exit 1; }}; sleep 0.1; done
"""
OVERDONE = "dd if=/dev/urandom of={0} bs=4096 seek=1 count=$(($(stat -c %s {0}) / 4096 - 1)) conv=notrunc status=none"
AI = "/run/bay0/ai/ai.sock"
NOT_INSTALLED = "not installed: no AI image is on this machine, and it needs none"
WAYLAND = "/run/compositor/run/wayland-1"
# podman's own API server is the one program of the image that listens where it is told to
IMPOSTOR = "(podman system service --time=0 unix://{0} >/dev/null 2>&1 & echo $! >/tmp/impostor); until [ -S {0} ]; do sleep 0.1; done"
THAWS = f"""touch /tmp/thaws
(while [ -e /tmp/thaws ]; do for each in {PROBES}/libpod-*/cgroup.freeze; do echo 0 >$each; done; sleep 0.01; done) >/dev/null 2>&1 &
"""
# a script in podman's place, read-only, so that it is no hole in the root
REPLACE = "mount -o bind /tmp/podman /usr/bin/podman && mount -o remount,bind,ro /usr/bin/podman"
BROKEN = "#!/bin/sh\necho 'Error: it is broken' >&2\nexit 125\n"


@pytest.fixture(scope="module")
def disk(folder: str) -> str:
    return harness.make_disk(f"{folder}/validate.img", "2G")


@pytest.fixture(scope="module")
def spine(disk: str) -> Iterator[Vm]:
    with harness.vm(disk, life_s=LIFE_S) as machine:
        machine.wait_console(harness.COMPLETE)
        machine.wait_durable()
        yield machine


def validate(spine: Vm, *only: str) -> tuple[int, dict[str, Any]]:
    done = spine.sh("bay0 --validate --json " + " ".join(f"--only {name}" for name in only), WHOLE_S)
    return done.status, json.loads(done.stdout)


def bad(found: dict[str, Any]) -> dict[str, str]:
    return {row["name"]: f"{row['level']}: {row['why']}" for row in found["checks"] if row["level"] != "green"}


def red(spine: Vm, name: str) -> str:
    """The check is red; return why. The command's status is in the cases that are about the command."""
    found = spine.call("validate", WHOLE_S, only=[name])
    assert found["verdict"] == "red", found
    return str(found["checks"][0]["why"])


def green(spine: Vm, *names: str) -> None:
    found = spine.call("validate", WHOLE_S, only=list(names))
    assert found["verdict"] == "green", found


def replace_podman(spine: Vm, text: str) -> None:
    """Mount a script in podman's place."""
    spine.out(f"cat >/tmp/podman <<'END'\n{text}END\nchmod +x /tmp/podman")
    spine.out(REPLACE)


def nothing_left(spine: Vm) -> None:
    assert spine.out(f"{PODMAN} ps -a -q") == ""
    assert spine.sh(f"test -e {PROBES}").status == 1
    assert spine.sh("test -e /run/bay0/validate.log").status == 1


# ---- a healthy one


def test_a_healthy_spine_is_green_and_says_of_an_ai_that_nobody_installed_that_it_is_not(spine: Vm) -> None:
    status, found = validate(spine)
    assert (status, found["verdict"], len(found["checks"]), bad(found)) == (0, "green", 14, {})
    assert {row["name"]: row["why"] for row in found["checks"] if row["why"]} == {"umbilical": NOT_INSTALLED}
    assert spine.out(f"{PODMAN} images -q") == "", "this boot's first one has loaded nothing"
    nothing_left(spine)


@pytest.mark.full
def test_two_at_once_both_tell_the_truth_and_leave_nothing_and_people_get_one_line_and_what_is_not_there(spine: Vm) -> None:
    script = "bay0 --validate --json >/tmp/one & bay0 --validate >/tmp/two; echo $?; wait; cat /tmp/two; echo ---; cat /tmp/one"
    text, found = spine.out(script, WHOLE_S).split("---")
    status, first, *rest = text.splitlines()
    assert bad(json.loads(found)) == {}
    assert status == "0"
    assert re.fullmatch(r"GREEN: 14 checks, all green \([0-9.]+ s\)", first)
    assert rest == [f"GREEN  umbilical (sys://ai): {NOT_INSTALLED}"]
    nothing_left(spine)


def test_who_asks_for_some_checks_gets_those(spine: Vm) -> None:
    done = spine.sh("bay0 validate --only freezer --only persist --only log", WHOLE_S)
    assert (done.status, done.stdout.startswith("GREEN: 3 checks, all green")) == (0, True)


def test_a_red_check_is_the_commands_status(spine: Vm) -> None:
    spine.out("mount -t tmpfs none /proc/pressure")
    try:
        assert validate(spine, "psi")[0] == 2
    finally:
        spine.out("umount /proc/pressure")


def test_its_marker_and_its_line_are_on_the_disk(spine: Vm) -> None:
    spine.call("validate", WHOLE_S, only=["persist", "log"])
    boot_id = spine.status()["boot_id"]
    assert spine.out("cat /persist/spine/validate.marker").startswith(f"{boot_id} +")
    assert re.fullmatch(rf"{boot_id} \+\d+ ms: validate", spine.out("tail -n 1 /persist/spine/genesis.log"))


def test_without_the_word_for_it_a_suspend_flushes_and_says_that_it_stays_awake(spine: Vm) -> None:
    done = spine.sh("bay0 suspend --reason lid", WHOLE_S)
    assert (done.status, done.stdout) == (1, "flushed, but not suspended: bay0.suspend=on is not on the kernel command line\n")
    shown = spine.call("inhibit")
    assert (shown["state"], shown["sleeps"], shown["last"]["flushed"]) == ("free", False, True)


# ---- each red by breaking just that thing

LIMBO = "nsenter --net=/proc/2/ns/net"  # where the kernel makes network cards


@pytest.mark.parametrize(
    ("name", "breaks", "mends", "said"),
    drawn.params([
        ("psi", "mount -t tmpfs none /proc/pressure", "umount /proc/pressure", "no pressure of cpu, memory, io"),
        ("network", "modprobe dummy numdummies=0 && ip link add dummy0 type dummy", "ip link del dummy0", "interface dummy0 exists"),
        (
            "network", f"{LIMBO} sh -c 'ip link add d1 type dummy && ip link set d1 up'", f"{LIMBO} ip link del d1",
            "interface d1 is up in the kernel's namespace",
        ),
        (
            "network", f"{LIMBO} sleep 1000 >/dev/null 2>&1 & echo $! >/tmp/there", "kill $(cat /tmp/there)",
            "in the kernel's network namespace: sleep",
        ),
        ("root", "mount -t tmpfs none /root", "umount /root", "writable: /root"),
        (
            "cgroups", "echo -pids >/sys/fs/cgroup/personas/cgroup.subtree_control", "echo +pids >/sys/fs/cgroup/personas/cgroup.subtree_control",
            "/personas does not hand on pids",
        ),
        ("pid1", "echo 0 >/proc/1/oom_score_adj", "echo -1000 >/proc/1/oom_score_adj", "oom_score_adj is 0, not -1000"),
        ("pid1", "echo 1 >/sys/fs/cgroup/cgroup.procs", "echo 1 >/sys/fs/cgroup/init/cgroup.procs", "its cgroup is /, not /init"),
        ("clock", "date +%s >/tmp/now; date -s @1000000", "date -s @$(cat /tmp/now)", "it says 1970-01-12"),
        ("log", "chattr +i /persist/spine/genesis.log", "chattr -i /persist/spine/genesis.log", "Operation not permitted"),
        (
            "persist", "cd /persist/spine && rm -f validate.marker && mkdir validate.marker && chattr +i validate.marker",
            "cd /persist/spine && chattr -i validate.marker && rmdir validate.marker", "validate.marker is a directory",
        ),
    ], 4),
)  # fmt: skip
def test_a_check_is_red_for_just_what_is_broken_and_green_again(spine: Vm, name: str, breaks: str, mends: str, said: str) -> None:
    spine.out(breaks)
    try:
        assert said in red(spine, name)
    finally:
        spine.out(mends)
    green(spine, name)


def test_a_damaged_database_is_red_and_bay0_goes_on(spine: Vm) -> None:
    files = "state.db state.db-wal"
    spine.out(f"cd /persist/spine; for f in {files}; do cp $f /run/$f; {OVERDONE.format('$f')}; done; sync")
    try:
        assert "state.db is damaged" in red(spine, "database")
    finally:
        spine.out(f"cd /persist/spine; for f in {files}; do dd if=/run/$f of=$f bs=64k conv=notrunc status=none; done; sync")
    green(spine, "database")
    assert spine.status()["storage"]["state"] == "durable"


@pytest.mark.parametrize(
    ("name", "path", "said"),
    drawn.params([("umbilical", AI, "an impostor answers"), ("compositor", WAYLAND, "not ready: an impostor answers")], 1),
)
def test_an_impostor_on_a_socket_is_red_and_so_is_what_he_leaves(spine: Vm, name: str, path: str, said: str) -> None:
    spine.out(f"mkdir -p {os.path.dirname(path)}; {IMPOSTOR.format(path)}")
    assert said in (why := red(spine, name))
    assert f"pid {spine.out('cat /tmp/impostor')} (podman)" in why
    spine.out("kill -9 $(cat /tmp/impostor)")
    harness.until(lambda: "nobody answers" in red(spine, name), 30, "his socket is there and nobody behind it")
    spine.out(f"rm {path}; ln -s /run/bay0/control.sock {path}")
    assert "it is no socket" in red(spine, name), "PID 1's own socket is not the tenant's"
    spine.out(f"rm {path}")


@pytest.mark.parametrize(
    ("breaks", "mends", "said"),
    drawn.params([
        (f"{REPLACE}\n", "umount /usr/bin/podman", "it is broken"),
        (THAWS, "rm /tmp/thaws", "does not say frozen 1|frozen, and it used"),
    ], 1),
    ids=["podman fails", "the freeze does not last"],
)  # fmt: skip
def test_a_podman_that_fails_and_a_freeze_that_does_not_last_make_the_freezer_red(spine: Vm, breaks: str, mends: str, said: str) -> None:
    spine.out(f"cat >/tmp/podman <<'END'\n{BROKEN}END\nchmod +x /tmp/podman")
    spine.out(breaks)
    try:
        found = spine.call("validate", WHOLE_S, only=["freezer", "root"])
    finally:
        spine.out(mends)
    assert (found["verdict"], list(bad(found))) == ("red", ["freezer"])
    assert re.search(said, bad(found)["freezer"])
    green(spine, "freezer")
    nothing_left(spine)


@pytest.mark.full
def test_a_persona_that_podman_cannot_clear_is_a_finding(spine: Vm) -> None:
    spine.out("bay0 persona create work && bay0 persona start work", WHOLE_S)
    replace_podman(spine, BROKEN)
    try:
        spine.sh("bay0 persona stop work", WHOLE_S)
        harness.until(lambda: validate(spine, "machines")[0] == 2, 120, "p://work is stuck")
    finally:
        spine.out("umount /usr/bin/podman")
    harness.until(lambda: validate(spine, "machines")[0] == 0, 180, "podman has cleared it")
    assert spine.show("work")["state"] == "stopped"


# ---- killed in the middle

KILLED = drawn.Some(1, "asker", "podman")


@KILLED("asker")
def test_an_asker_who_is_killed_leaves_nothing(spine: Vm) -> None:
    spine.out(f"{BEGIN} kill -9 $(cat /tmp/asker)", WHOLE_S)
    harness.until(lambda: spine.sh(f"test -e {PROBES}").status == 1, WHOLE_S, "the probe is gone")
    harness.until(lambda: spine.status()["pid1"]["commands_running"] == 0, 60, "podman has ended")
    nothing_left(spine)


@KILLED("podman")
def test_a_podman_that_is_killed_while_it_makes_the_probe_leaves_nothing(spine: Vm) -> None:
    spine.out(f"{BEGIN} pkill -9 -f 'podman run'; wait $(cat /tmp/asker); true", WHOLE_S)
    nothing_left(spine)
    green(spine, "freezer")


def test_pid_1_is_still_small_and_waited_for_nothing(spine: Vm) -> None:
    status = spine.status()
    assert status["pid1"]["rss_kib"] < 32 << 10
    assert status["pid1"]["longest_turn_ms"] < 5000
    assert status["pid1"]["commands_left_behind"] == 0
    assert status["dirty"] is None


def test_a_watchdog_that_cannot_be_fed_is_red(spine: Vm) -> None:
    green(spine, "watchdog")
    drivers = "/sys/bus/pci/drivers/i6300ESB*"
    spine.out(f"cd {drivers}; basename $(ls -d 0000:*) >unbind")
    harness.until(lambda: spine.call("validate", WHOLE_S, only=["watchdog"])["verdict"] == "red", 60, "the next feeding fails")
    assert "it cannot be fed: No such device" in red(spine, "watchdog")


def test_a_power_off_in_the_middle_takes_the_probe_with_it_and_the_disk_is_clean(spine: Vm, disk: str) -> None:
    spine.out(BEGIN, WHOLE_S)
    assert spine.quit().status == 0
    harness.check_clean(disk)
    harness.check_checkpointed(disk)


# ---- boots of their own


@pytest.mark.full
def test_gate_c_by_exec_is_green(folder: str) -> None:
    done: Result = harness.run("bay0 --validate", harness.make_disk(f"{folder}/gate-c.img", "2G"), bound_s=600)
    assert done.status == 0
    assert re.fullmatch(r"GREEN: 14 checks, all green .*\nGREEN  umbilical \(sys://ai\): not installed: .*\n", done.stdout)


@pytest.mark.full
def test_without_a_disk_it_is_red_and_what_needs_one_is_not_tried() -> None:
    done = harness.run("bay0 --validate --json", "none", bound_s=600)
    found = bad(json.loads(done.stdout))
    assert done.status == 2
    assert found["persist"].startswith("red: degraded, nothing is kept: storage is detached")
    assert [name for name, said in found.items() if said.startswith("yellow: cannot be checked")] == ["freezer", "log", "database"]
    assert set(found) == {"persist", "freezer", "log", "database", "umbilical"}


@pytest.mark.full
def test_a_plug_pulled_in_the_middle_leaves_nothing_to_the_next_boot(folder: str) -> None:
    disk = harness.make_disk(f"{folder}/plug.img", "2G")
    with harness.vm(disk) as machine:
        machine.wait_console(harness.COMPLETE)
        machine.wait_durable()
        machine.out(f"{BEGIN} sync", WHOLE_S)
        machine.pull_the_plug()
    with harness.vm(disk) as machine:
        machine.wait_console(harness.COMPLETE)
        machine.wait_durable()
        harness.until(lambda: machine.out(f"{PODMAN} ps -a -q") == "", 120, "the next boot has swept it")
        assert "containers=sys__validate" in machine.out("bay0 log")
        assert bad(validate(machine)[1]) == {}


@pytest.mark.full
def test_a_disk_that_stops_answering_is_red_within_the_bound_and_all_is_well_when_it_is_back(folder: str) -> None:
    with harness.pausable(harness.make_disk(f"{folder}/paused.img", "2G")) as paused, harness.vm(paused.uri, life_s=LIFE_S) as machine:
        machine.wait_console(harness.COMPLETE)
        machine.wait_durable()
        assert bad(validate(machine)[1]) == {}
        paused.pause()
        status, found = validate(machine)
        assert status == 2
        assert "persist" in bad(found)
        assert found["took_ms"] <= harness.patience() * 30_000 + harness.slow(5_000)
        paused.resume()
        machine.wait_durable()
        harness.until(lambda: bad(validate(machine)[1]) == {}, 600, "it is well again", every_s=5)
        harness.until(lambda: machine.status()["pid1"]["commands_left_behind"] == 0, 120, "podman has ended")
