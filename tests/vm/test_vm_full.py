"""The slow rest of the full tier: each way out, each panic policy, other disks, hot-plugging, and a person at the console."""

from __future__ import annotations

import re

import harness
import pytest

pytestmark = [pytest.mark.vm, pytest.mark.full]

EXIT_0 = 'echo "exit 0" >"$BAY0_EXEC_STATUS"; '
WATCHDOG_S = 30


@pytest.mark.parametrize(
    ("way", "end"),
    [
        ("bay0 poweroff", "reboot: Power down"),
        ("bay0 reboot", "reboot: Restarting system"),
        ("kill -PWR 1", "reboot: Power down"),
        ("kill -TERM 1; kill -INT 1; kill -PWR 1; bay0 reboot; bay0 poweroff", "reboot: (Power down|Restarting system)"),
    ],
)
def test_every_way_out_leaves_a_clean_disk_and_a_checkpointed_database(way: str, end: str, tmp_path):
    disk = harness.make_disk(f"{tmp_path}/persist.img")
    with harness.vm(disk) as machine:
        machine.wait_console(harness.COMPLETE)
        boot_id = machine.status()["boot_id"]
        machine.send(EXIT_0 + way)
        done = machine.wait()
    assert done.status == 0
    assert re.search(end, done.console)
    harness.check_clean(disk)
    harness.check_checkpointed(disk)
    found = harness.stored(disk)
    assert (found.integrity, found.boot(boot_id)[-2:], found.machines[f"boot:{boot_id[:8]}"]) == ("ok", ["stopping", "leaving"], "leaving")


def test_ctrl_alt_del_on_the_keyboard_reboots_in_order(tmp_path):
    disk = harness.make_disk(f"{tmp_path}/persist.img")
    with harness.vm(disk) as machine:
        machine.wait_console(harness.COMPLETE)
        machine.out('echo "exit 0" >"$BAY0_EXEC_STATUS"')
        machine.qmp("send-key", keys=[{"type": "qcode", "data": key} for key in ("ctrl", "alt", "delete")])
        done = machine.wait()
    assert "asked to reboot: SIGINT" in done.console
    harness.check_clean(disk)


def test_a_storm_of_signals_stops_nothing(tmp_path):
    with harness.vm(harness.make_disk(f"{tmp_path}/persist.img")) as machine:
        machine.wait_console(harness.COMPLETE)
        machine.out("for i in $(seq 3000); do kill -HUP 1; kill -USR1 1; kill -USR2 1; kill -CHLD 1; done", 240)
        requests = [{"jsonrpc": "2.0", "id": i, "method": "run", "params": {"argv": ["sh", "-c", f"exit {i}"]}} for i in range(20)]
        assert all(answer["result"]["status"] == number for number, answer in machine.rpc(requests).items())
        status = machine.status()
        assert (status["boot"], status["storage"]["state"], status["pid1"]["rss_kib"] < 32 << 10) == ("complete", "durable", True)


def test_panic_halt_stays_halted_with_its_last_words():
    with harness.vm(append="bay0.debug bay0.panic=halt") as machine:
        machine.wait_console(harness.COMPLETE)
        machine.send("bay0 debug crash")
        machine.wait_console("policy: halt", 60)
        machine.wait_console("reboot: System halted", 60)
        with pytest.raises(harness.VmError, match="did not end"):  # the watchdog must not end what the policy keeps
            machine.wait(2 * WATCHDOG_S)


def test_a_pid_1_that_stands_still_is_ended_by_the_watchdog():
    with harness.vm() as machine:
        machine.wait_console(harness.COMPLETE)
        assert machine.status()["watchdog"]["armed"]
        machine.send("echo 1 >/sys/fs/cgroup/init/cgroup.freeze")
        done = machine.wait(6 * WATCHDOG_S)
    assert done.status == 125, "a reset, which ends QEMU"
    assert "reboot:" not in done.console


def test_panic_shell_gives_a_shell_and_reboots_when_it_is_left():
    with harness.vm(append="bay0.debug bay0.panic=shell", console=True) as machine:
        machine.wait_console("spine:.*# ")
        machine.type("\nbay0 debug crash\n")
        machine.wait_console("policy: shell", 60)
        machine.wait_console("panic# ", 60)
        machine.type("echo $((6 * 7)) is the answer\r")  # the key a terminal sends
        machine.wait_console("42 is the answer", 60)
        machine.type(f"sleep {WATCHDOG_S + 15}; echo still $((40 + 2))\r")
        machine.wait_console("still 42", 3 * WATCHDOG_S)  # the watchdog does not end a person's work
        machine.type("exit\r")
        machine.wait_console("reboot: Restarting system", 60)


def test_a_person_at_the_console_has_job_control_and_can_turn_it_off(tmp_path):
    disk = harness.make_disk(f"{tmp_path}/persist.img")
    with harness.vm(disk, console=True) as machine:
        machine.wait_console("spine:.*# ")
        machine.type("sleep 1000\n")
        machine.wait_console("sleep 1000\n", 60)
        machine.type("\x1a")
        machine.wait_console(r"\[1\]\+ +Stopped +sleep 1000", 60)
        machine.type("jobs; kill %1; bay0 status\n")
        machine.wait_console(r"storage +durable on /dev/vda", 60)
        machine.type("exit\n")
        machine.wait_console(r"(?s)bay0 status.*spine's console.*spine:.*# ", 60)  # it came back
        machine.type("bay0 poweroff\n")
        done = machine.wait()
    assert done.status == 0
    harness.check_clean(disk)


def test_the_named_disk_is_taken_whatever_its_label_and_however_small(tmp_path):
    first = harness.make_disk(f"{tmp_path}/first.img")
    named = harness.make_disk(f"{tmp_path}/named.img", "16M")
    harness.tool("tune2fs", "-L", "OTHER", named)
    extra = ["-drive", f"file={named},format=raw,if=none,id=named", "-device", "virtio-blk-pci,drive=named"]
    with harness.vm(first, "bay0.persist=/dev/vdb", extra) as machine:
        machine.wait_console(harness.COMPLETE)
        assert machine.wait_durable()["storage"]["device"] == "/dev/vdb"
        assert machine.quit().status == 0
    harness.check_clean(named)
    assert len(harness.stored(named).boots) == 1
    with pytest.raises(harness.VmError, match="holds no database"):
        harness.stored(first)


def test_persist_none_leaves_a_good_disk_alone(tmp_path):
    disk = harness.make_disk(f"{tmp_path}/persist.img")
    done = harness.run("bay0 status", disk, "bay0.persist=none")
    assert done.status == 0
    assert "bay0.persist=none" in done.stdout
    with pytest.raises(harness.VmError, match="holds no database"):
        harness.stored(disk)


def test_a_disk_that_is_pulled_out_and_put_back_is_taken_again(tmp_path):
    image = harness.make_disk(f"{tmp_path}/pulled.img")
    extra = ["-drive", f"file={image},format=raw,if=none,id=pulled", "-device", "virtio-blk-pci,drive=pulled,id=plug"]
    with harness.vm(qemu=extra) as machine:
        machine.wait_console(harness.COMPLETE)
        machine.wait_durable()
        machine.qmp("device_del", id="plug")
        harness.until(lambda: not re.search(r"\bvd[a-z]\b", machine.out("ls /sys/class/block")), 60, "the disk is gone")
        machine.out("pkill -KILL -t ttyS0; true")
        harness.until(lambda: machine.status()["storage"]["state"] != "durable", 120, "its absence is noticed")
        assert machine.status()["dirty"]
        again = f"{tmp_path}/again.img"
        harness.make_disk(again)
        machine.qmp("blockdev-add", driver="raw", **{"node-name": "again", "file": {"driver": "file", "filename": again}})
        machine.qmp("device_add", driver="virtio-blk-pci", drive="again", id="plug2")
        harness.until(lambda: re.search(r"\bvd[a-z]\b", machine.out("ls /sys/class/block")), 60, "another disk is there")
        machine.sh("bay0 storage retry")
        machine.wait_durable(180)
        assert machine.quit().status == 0
    harness.check_clean(again)


def test_twenty_starts_at_once_run_in_their_order_and_a_stop_overtakes_those_that_wait(tmp_path):
    names = [f"p://n{number}" for number in range(20)]

    def all_of(machine: harness.Vm, method: str, **params: object) -> None:
        for answer in machine.rpc([{"id": name, "method": method, "params": {"name": name, **params}} for name in names]).values():
            assert "result" in answer, answer

    def steps(machine: harness.Vm, *words: str) -> list[str]:
        found = [line for line in machine.out("cat /run/bay0/log.jsonl").splitlines() if '"p://n' in line]
        return [line for line in found if all(word in line for word in words)]

    with harness.vm(harness.make_disk(f"{tmp_path}/persist.img", "2G"), life_s=1200) as machine:
        machine.wait_console(harness.COMPLETE)
        machine.wait_durable()
        all_of(machine, "persona.create", manifest={"image": "localhost/alpine:3.23", "command": ["/bin/sleep", "infinity"], "stop_s": 0})
        all_of(machine, "persona.start", wait=False)
        harness.until(lambda: len(steps(machine, '"step"', "podman says it runs")) == 20, 300, "all run", every_s=2)
        order = [re.search(r'"(p://n[0-9]+)"', line)[1] for line in steps(machine, '"step"', "podman says it runs")]  # type: ignore[index]
        assert all(abs(order.index(name) - at) <= 1 for at, name in enumerate(names)), "two have their turn at a time"
        assert not steps(machine, '"step"', "timed_out")
        all_of(machine, "persona.stop", wait=False)
        harness.until(lambda: not [1 for name in names if machine.show(name[4:])["state"] != "stopped"], 300, "all stopped", every_s=2)
        all_of(machine, "persona.start", wait=False)
        all_of(machine, "persona.stop", wait=False)
        assert len(steps(machine, "podman was not called")) >= 10
        harness.until(lambda: not [1 for name in names if machine.show(name[4:])["state"] != "stopped"], 120, "all stopped again", every_s=2)
