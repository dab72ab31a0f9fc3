"""Whole boots of bay0 as an ordinary process, on the machine of bootkit.py."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import evolve
from bootkit import THING, Machine
from kit import Log, in_child, no_descriptor_left

import bay0
from bay0 import init, log
from bay0.base.bounds import Bounds
from bay0.base.errors import RefusedError, SpawnError, StorageError
from bay0.boot import autostart, diskwatch, runfiles
from bay0.boot.powersignals import PowerSignals
from bay0.control import server as control
from bay0.effects import modules, power, spawn
from bay0.effects.spawn import Spawner
from bay0.init import lateport
from bay0.init.spine import Spine
from bay0.machines.boot import E, S
from bay0.machines.persona import E as PersonaEvent
from bay0.machines.server import E as ServerEvent
from bay0.machines.storage import E as StorageEvent
from bay0.machines.storage import S as Health
from bay0.pid1.reactor import Reactor
from bay0.state import device
from bay0.tenants.port import ServiceSpec
from bay0.thermal import governing
from bay0.umbilical import doors as umbilicalport


def governor(spine: Spine) -> Any:
    return spine.governing.keeper.made


@in_child
def test_a_boot_goes_through_its_stages_to_the_end_and_leaves_when_asked(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    spine = machine.complete(machine.boot())
    assert spine.state.storage is not None
    assert (spine.state.storage.now, spine.state.dirty) == (Health.DURABLE, None)
    stages = [line["dest"] for line in machine.logged() if line["event"] == "step" and line["machine"].startswith("boot")]
    assert stages == ["mounting", "shielding", "loading", "attaching", "reconciling", "serving", "complete"]
    machine.leave(spine)
    assert machine.powered == ["poweroff"]
    assert spine.boot.now is S.POWERING
    assert not (tmp_path / "persist" / "spine" / "state.db-wal").exists(), "the log is in the database"
    assert machine.stored() == {"boot:11111111": "leaving", "storage:11111111": "closing", THING: "stopped"}
    assert "persist closed" in [line["event"] for line in machine.logged()]


@in_child
def test_the_reference_of_the_socket_names_exactly_the_methods_that_there_are(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "socket.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`([a-z_.]+)`", row)]
    assert sorted(named) == sorted(Machine(tmp_path).boot().control.methods)


@in_child
def test_drivers_of_what_shows_up_after_the_boot_are_loaded_once(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    (tmp_path / "bin" / "modprobe").write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/loaded\n')
    modules.wanted = lambda _found: modules.Wanted(("pci:old",), ("usb:ic08old",))  # type: ignore[assignment]
    spine = machine.complete(machine.boot())
    before = (tmp_path / "loaded").read_text()
    modules.wanted = lambda _found: modules.Wanted(("pci:old", "hid:new"), ("usb:ic08old", "scsi:new"))  # type: ignore[assignment]
    spine.stages.load_new()
    machine.turn_until(spine, lambda: (tmp_path / "loaded").read_text() != before, "the new drivers")
    modules.newest = lambda: ""  # type: ignore[assignment]  # a kernel that does not say is asked each time
    spine.stages.load_new()
    for _ in range(10):
        spine.reactor.turn(0.05)
    assert (tmp_path / "loaded").read_text() == before + "-a -q hid:new scsi:new\n"


@in_child
def test_devices_are_asked_again_only_when_the_kernel_has_said_something_of_one(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    spine = machine.complete(machine.boot())
    walks: list[str] = []
    said = ["7"]
    modules.newest = lambda: said[0]  # type: ignore[assignment]
    modules.aliases = lambda: iter(walks.append(said[0]) or ())  # type: ignore[assignment,func-returns-value]
    for said[0] in ("7", "7", "8", "8", "", ""):
        spine.stages.load_new()
    assert walks == ["7", "8", "", ""], "a kernel that does not say is asked each time"


@in_child
def test_no_turn_asks_all_devices_of_a_large_machine(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    spine = machine.complete(machine.boot())
    in_turns: Counter[int] = Counter()

    def devices() -> Iterator[str]:
        for number in range(300):
            in_turns[spine.reactor.turns] += 1
            yield f"pci:{number}"

    modules.aliases, modules.newest = devices, lambda: ""  # type: ignore[assignment]
    spine.stages.load_new()
    machine.turn_until(spine, lambda: sum(in_turns.values()) == 300, "the end of the walk")
    assert max(in_turns.values()) <= 20


@in_child
def test_the_handoffs_log_lines_come_in_their_order(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.complete(machine.boot())
    text = (tmp_path / "console").read_text()
    wanted = ["mounted proc/sys/dev", "persist mount attempt", "persist mounted", "state db open/migrate", "init complete"]
    places = [text.index(words) for words in wanted]
    assert places == sorted(places)


@in_child
def test_the_next_boot_finds_that_the_last_one_left_as_asked(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.leave(machine.complete(machine.boot()))
    spine = machine.complete(machine.boot(boot_id="22222222-bbbb"))
    machine.turn_until(spine, lambda: not spine.state.memory)
    left = {"boot:22222222", "storage:22222222", "focus", "inhibit", "net", "sys://ai", "upgrade", THING}
    assert set(spine.engine.instances) == left, "an earlier boot's machines are put away"
    (tmp_path / "powered").unlink()
    machine.leave(spine)
    assert machine.stored()["boot:11111111"] == "ended"
    assert machine.stored()["storage:11111111"] == "detached"


@in_child
def test_the_next_boot_finds_that_the_last_one_died_and_converges_all_of_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.crash(machine.complete(machine.boot()))
    assert machine.stored()[THING] == "running"
    spine = machine.boot(boot_id="22222222-bbbb")
    machine.complete(spine)
    steps = [(line["machine"], line["source"], line["dest"]) for line in machine.logged("22222222-bbbb") if line["event"] == "step"]
    assert ("boot:11111111", "complete", "died") in steps
    thing = [step[1:] for step in steps if step[0] == THING]
    assert thing[:2] == [("running", "converging"), ("converging", "stopped")]
    assert thing[-1] == ("starting", "running")
    machine.leave(spine)
    assert machine.stored()["boot:11111111"] == "died"


@in_child
def test_a_stored_state_and_a_kind_that_nobody_knows_do_not_stop_a_boot(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.leave(machine.complete(machine.boot()))
    (tmp_path / "powered").unlink()
    base = sqlite3.connect(tmp_path / "persist" / "spine" / "state.db")
    base.execute("UPDATE machine SET state='levitating' WHERE name=?", [THING])
    base.execute("UPDATE machine SET state='dreaming' WHERE name='boot:11111111'")
    base.execute("INSERT INTO machine VALUES ('x://work', 'teapot', 'running', 4, 'stopped', 0, 'x', '')")
    base.commit()
    base.close()
    spine = machine.complete(machine.boot(boot_id="22222222-bbbb"))
    events = [line["event"] for line in machine.logged("22222222-bbbb")]
    assert events.count("unknown state converged") == 2
    assert "machine of an unknown kind or name left alone" in events
    machine.leave(spine)
    assert machine.stored()["x://work"] == "running"
    assert machine.stored()[THING] == "stopped"


@in_child
def test_without_a_disk_the_boot_is_dirty_and_complete(tmp_path: Path) -> None:
    machine = Machine(tmp_path)

    def no_disk(_wanted: str | None) -> list[str]:
        raise StorageError("no_device", "no disk labelled SPINE-PERSIST")

    device.find = no_disk
    spine = machine.complete(machine.boot())
    assert spine.state.storage is not None
    assert spine.state.storage.now is Health.DETACHED
    assert "no disk" in str(spine.state.dirty)
    assert "reconciled" not in [line["event"] for line in machine.logged()], "nothing is swept by a boot that could not read"
    machine.leave(spine, "reboot")
    assert machine.powered == ["reboot"]


@in_child
def test_a_disk_that_takes_the_place_of_one_between_two_looks_is_taken(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    diskwatch.LOOK_EVERY_S = 0.05
    number = tmp_path / "block" / "vda" / "diskseq"
    number.parent.mkdir(parents=True)
    number.write_text("9\n")

    def find(_wanted: str | None) -> list[str]:  # in the worker
        if not (tmp_path / "there").exists():
            raise StorageError("no_device", "it has just been unplugged")
        return ["/dev/vda"]

    device.find = find
    spine = machine.boot(begin=False, disks=lambda: diskwatch.disks(str(tmp_path / "block")))
    spine.engine.send(spine.boot.name, E.BEGIN)
    machine.complete(spine)
    spine.disk_watch._look()
    (tmp_path / "there").touch()
    for _ in range(20):
        spine.reactor.turn(0.01)
    assert spine.state.storage is not None
    assert spine.state.storage.now is Health.DETACHED, "it is the one that was tried"
    number.write_text("10\n")
    machine.turn_until(spine, lambda: spine.state.storage is not None and spine.state.storage.now is Health.DURABLE, "the new one is taken")


@in_child
def test_a_disk_that_hangs_makes_a_dirty_boot_and_is_taken_when_it_answers(tmp_path: Path) -> None:
    machine = Machine(tmp_path, mount=0.4)

    def mount(devices: list[str]) -> str:
        if not (tmp_path / "answers").exists():
            os.kill(os.getpid(), signal.SIGSTOP)
        return devices[0]

    device.mount_first = mount  # type: ignore[assignment]
    spine = machine.complete(machine.boot())
    assert "mount gave no answer" in str(spine.state.dirty)
    assert spine.chronicle.complete_ms is not None
    (tmp_path / "answers").touch()
    machine.turn_until(spine, lambda: spine.state.storage is not None and spine.state.storage.now is Health.DURABLE, "recovery")
    assert spine.state.dirty is None
    machine.turn_until(spine, lambda: not spine.state.memory)
    machine.turn_until(spine, lambda: "reconciled" in [line["event"] for line in machine.logged()], "the reconcile, which comes late as well")
    machine.leave(spine)
    assert machine.stored()["boot:11111111"] == "leaving"


@pytest.mark.parametrize("damage", ["damaged", "newer"])
def test_a_database_that_cannot_be_used_makes_a_dirty_boot_and_is_left_as_it_is(tmp_path: Path, damage: str) -> None:
    @in_child
    def inside() -> None:
        machine = Machine(tmp_path)
        base = tmp_path / "persist" / "spine" / "state.db"
        base.parent.mkdir()
        if damage == "newer":
            made = sqlite3.connect(base)
            made.execute("PRAGMA user_version=99")
            made.commit()
            made.close()
        else:
            base.write_bytes(b"garbage" * 1000)
        before = base.read_bytes()
        spine = machine.complete(machine.boot())
        assert spine.state.storage is not None
        assert spine.state.storage.now is Health.READONLY
        assert ("version 99" if damage == "newer" else "damaged") in str(spine.state.dirty)
        machine.leave(spine)
        assert base.read_bytes() == before

    inside()


@pytest.mark.parametrize("name", ["state.db", "state.db-wal"])
def test_a_fifo_where_the_database_belongs_makes_a_dirty_boot_that_names_it(tmp_path: Path, name: str) -> None:
    @in_child
    def inside() -> None:
        machine = Machine(tmp_path)
        path = tmp_path / "persist" / "spine" / name
        path.parent.mkdir()
        os.mkfifo(path)
        spine = machine.complete(machine.boot())
        assert spine.state.storage is not None
        assert spine.state.storage.now is Health.READONLY
        assert f"{path} is a FIFO" in str(spine.state.dirty)
        assert "bay0 storage retry" in str(spine.state.dirty)
        path.unlink()
        spine.engine.send(spine.state.storage.name, StorageEvent.RETRY)
        machine.turn_until(spine, lambda: spine.state.storage is not None and spine.state.storage.now is Health.DURABLE, "it is mended")
        assert spine.state.dirty is None
        machine.leave(spine)

    inside()


@in_child
def test_side_files_that_somebody_put_other_things_in_place_of_cost_nothing_and_are_named(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    folder = tmp_path / "persist" / "spine"
    folder.mkdir()
    os.mkfifo(folder / "time")
    (folder / "seed").symlink_to("/dev/zero")
    (folder / "genesis.log").mkdir()
    (folder / "alive").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "persist" / "logs").symlink_to(tmp_path)
    spine = machine.complete(machine.boot())
    assert spine.state.dirty is None
    spine.state.probe("x")
    machine.turn_until(spine, lambda: (folder / "alive").is_file(), "the probe")
    machine.leave(spine)
    said = {line["path"] for line in machine.logged() if line["event"] == "set aside on /persist"}
    assert said == {str(path) for path in (*(folder / name for name in ("time", "seed", "genesis.log", "alive")), folder.parent / "logs")}
    assert not (tmp_path / "elsewhere").exists()
    assert "init complete" in (folder / "genesis.log").read_text()
    assert (folder / "time").is_file()
    assert (folder / "seed").is_file()
    assert [line["event"] for line in machine.logged() if line["event"] == "persist timeout"] == []


@in_child
def test_the_control_socket_answers_while_the_spine_runs(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    spine = machine.complete(machine.boot("bay0.debug"))

    def call(method: str, **params: Any) -> Any:
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        peer.connect(spine.control.path)
        peer.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode() + b"\n")
        peer.setblocking(False)
        heard = bytearray()

        def look() -> bool:
            try:
                heard.extend(peer.recv(1 << 20))
            except BlockingIOError:
                return False
            return heard.endswith(b"\n")

        machine.turn_until(spine, look, f"the answer to {method}")
        answer = json.loads(heard)
        return answer.get("result", answer.get("error"))

    status = call("status")
    assert (status["boot"], status["storage"]["state"], status["dirty"]) == ("complete", "durable", None)
    assert status["version"] == bay0.__version__
    assert status["pid1"]["pid"] == os.getpid()
    assert [m["name"] for m in call("machines")] == sorted(spine.engine.instances)
    boots = call("boots", previous=3)
    assert [step["dest"] for step in boots["this"]["steps"] if step["kind"] == "boot"][-1] == "complete"
    assert boots["previous"] == []
    assert [row["dest"] for row in call("history", machine=THING)] == ["starting", "running"]
    assert call("history", machine="nobody")["message"] == "no machine is or was called 'nobody'; `bay0 machines` lists those there are"
    assert call("history", machine="focus") == [], "it is there, and has done nothing yet"
    assert call("run", argv=["sh", "-c", "echo out; exit 7"], deadline_s=20)["status"] == 7
    for wrong in (
        {},
        {"argv": []},
        {"argv": "ls"},
        {"argv": ["a\0b"]},
        {"argv": [1]},
        {"argv": ["ls"], "deadline_s": 0},
        {"argv": ["ls"], "deadline_s": 1e9},
        {"argv": ["ls"], "deadline_s": "x"},
    ):
        assert call("run", **wrong)["code"] == -32602, wrong
    assert "storage is healthy" in call("storage.retry")["message"]
    assert call("power", how="sideways")["message"] == "how must be poweroff or reboot, not 'sideways'"
    assert call("debug.crash") == {"accepted": True}
    with pytest.raises(AssertionError, match="asked to crash"):
        machine.turn_until(spine, lambda: False)
    assert call("power", how="poweroff") == {"accepted": "poweroff"}
    assert "going down" in call("power", how="reboot")["message"]
    machine.turn_until(spine, lambda: machine.powered)


@in_child
def test_the_crash_method_is_only_there_when_the_command_line_says_so(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert "debug.crash" not in machine.boot(begin=False).control.methods
    assert "debug.crash" in machine.boot("bay0.debug", begin=False).control.methods


@in_child
def test_the_governor_begins_after_the_boot_and_ends_with_the_spine(tmp_path: Path) -> None:
    governing.AFTER_S = governing.PART_S = 0.0
    machine = Machine(tmp_path)
    spine = machine.complete(machine.boot())
    machine.turn_until(spine, lambda: governor(spine) is not None and governor(spine).seen is not None, "the governor's first look")
    answers: list[Any] = []
    spine.control.methods["governor"]({}, answers.append)
    assert answers[0]["tenants"] == []
    machine.leave(spine)
    assert governor(spine)._closed


@in_child
def test_the_governor_can_be_turned_off_and_that_is_said(tmp_path: Path) -> None:
    governing.AFTER_S = 0.0
    machine = Machine(tmp_path)
    spine = machine.complete(machine.boot("bay0.governor=off"))
    assert [line["level"] for line in machine.logged() if line["event"] == "nobody is governed"] == ["warning"]
    with pytest.raises(RefusedError, match="governor=off"):
        spine.control.methods["governor"]({}, lambda _answer: None)
    kept = "memory of all personas together"
    machine.turn_until(spine, lambda: kept in [line["event"] for line in machine.logged()], "the share of memory that is kept all the same")
    assert governor(spine) is None
    machine.leave(spine)


@pytest.mark.parametrize(("number", "how"), [(signal.SIGTERM, "poweroff"), (signal.SIGPWR, "poweroff"), (signal.SIGINT, "reboot")])
def test_a_signal_ends_the_spine_in_order(tmp_path: Path, number: int, how: str) -> None:
    @in_child
    def inside() -> None:
        machine = Machine(tmp_path)
        spine = machine.complete(machine.boot())
        os.kill(os.getpid(), number)
        machine.turn_until(spine, lambda: machine.powered)
        assert machine.powered == [how]
        assert spine.engine.instances[THING].now.value == "stopped"

    inside()


@in_child
def test_other_signals_are_noted(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    spine = machine.complete(machine.boot())
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        os.kill(os.getpid(), number)
    noted: list[str] = []

    def look() -> bool:
        noted[:] = [line["signal"] for line in machine.logged() if line["event"] == "signal noted, nothing to do"]
        return len(noted) == 3

    machine.turn_until(spine, look)
    assert spine.boot.now is S.COMPLETE


@in_child
def test_asked_to_stop_in_the_middle_of_a_boot_it_stops(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    spine = machine.boot()
    machine.turn_until(spine, lambda: spine.boot.now is S.ATTACHING)
    machine.leave(spine)
    assert machine.powered == ["poweroff"]
    assert THING not in spine.engine.instances


@in_child
def test_a_reboot_that_fails_is_tried_again(tmp_path: Path) -> None:
    machine = Machine(tmp_path)

    def stubborn(how: str) -> int:
        with (tmp_path / "tries").open("a") as file:
            file.write(f"{how}\n")
        return machine.power(how) if len((tmp_path / "tries").read_text().split()) == 3 else 1

    spine = machine.boot(begin=False, calls=power.Calls(stubborn, machine.sync, machine.sysrq, lambda: True))
    machine.leave(spine)
    assert (tmp_path / "tries").read_text().split() == ["poweroff"] * 3
    assert machine.sysrq.words == ["b", "b"], "the first try is the polite one"
    assert (tmp_path / "console").read_text().count("power-off cannot be had: the machine restarts instead") == 2


@in_child
def test_where_reboot_2_would_only_halt_it_is_not_asked_to_power_off(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    spine = machine.complete(machine.boot(calls=power.Calls(machine.power, machine.sync, machine.sysrq, lambda: False)))
    machine.leave(spine)
    assert machine.sysrq.words == ["o", "b"], "which comes back, if it is in vain"
    assert machine.powered == ["reboot"], "should even that be refused"
    assert (tmp_path / "console").read_text().count("power-off cannot be had: the machine restarts instead") == 1


# ---- by force


@in_child
def test_by_force_everything_is_killed_what_answers_is_synced_and_sysrq_ends_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    spine = machine.complete(machine.boot())
    answers: list[Any] = []
    spine.control.methods["power"]({"how": "reboot", "force": True}, answers.append)
    machine.turn_until(spine, lambda: machine.sysrq.words)
    assert answers == [{"accepted": "reboot"}]
    assert machine.sysrq.words == ["b"]
    assert (tmp_path / "synced").exists()
    assert machine.powered == [], "reboot(2) may not return on a dead disk"
    assert spine.engine.instances[THING].now.value in ("stopped", "stopping", "converging")
    with pytest.raises(RefusedError, match="how must be"):
        spine.control.methods["power"]({"how": "halt", "force": True}, answers.append)
    with pytest.raises(RefusedError, match="force"):
        spine.control.methods["power"]({"how": "reboot", "force": 1}, answers.append)


@in_child
def test_a_power_off_by_force_that_cannot_be_had_becomes_a_restart_and_that_is_said(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    spine = machine.complete(machine.boot())
    spine.control.methods["power"]({"how": "poweroff", "force": True}, lambda _answer: None)
    machine.turn_until(spine, lambda: len(machine.sysrq.words) > 1)
    assert machine.sysrq.words == ["o", "b"]
    assert [line["level"] for line in machine.logged() if "restarts instead" in line["event"]] == ["warning"]


@in_child
def test_a_sync_that_never_ends_does_not_hold_up_the_end_by_force(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    never = lambda: time.sleep(600) or 0  # type: ignore[func-returns-value]
    spine = machine.complete(machine.boot(calls=power.Calls(machine.power, never, machine.sysrq, lambda: True)))
    spine.control.methods["power"]({"how": "reboot", "force": True}, lambda _answer: None)
    machine.turn_until(spine, lambda: machine.sysrq.words)
    assert [step.why for step in spine.chronicle.steps][-1].startswith("the sync gave no answer")


@in_child
def test_without_a_process_for_the_sync_the_end_by_force_goes_on(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    spine = machine.complete(machine.boot())

    def no_fork(*_arguments: Any, **_more: Any) -> Any:
        raise SpawnError("fork: Cannot allocate memory")

    Spawner.fork = no_fork  # type: ignore[method-assign]
    spine.control.methods["power"]({"how": "reboot", "force": True}, lambda _answer: None)
    machine.turn_until(spine, lambda: machine.sysrq.words)


@in_child
def test_force_overtakes_a_stop_that_hangs_and_the_console_has_named_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.bounds = evolve(machine.bounds, slow_stop=0.1, term_grace=600.0)
    deaf = tmp_path / "deaf"
    stubborn = ServiceSpec(("sh", "-c", f"trap '' TERM HUP; : >{deaf}; while :; do sleep 1; done"))
    spine = machine.boot(services=lambda _words: {THING: stubborn})
    machine.complete(spine)
    machine.turn_until(spine, deaf.exists, "it hears no TERM")
    spine.power_signals.stop("poweroff", "the test")
    machine.turn_until(spine, lambda: [line for line in machine.logged() if line["event"] == "the stop takes longer than usual"])
    (first, *_) = [line for line in machine.logged() if line["event"] == "the stop takes longer than usual"]
    assert (first["level"], first["waits_for"]) == ("warning", THING)
    assert "bay0 poweroff --force" in first["way_out"]
    spine.control.methods["power"]({"how": "poweroff", "force": True}, lambda _answer: None)
    machine.turn_until(spine, lambda: machine.sysrq.words)
    assert machine.sysrq.words == ["o"]
    assert machine.powered == []


@pytest.mark.parametrize(("gaps", "forced"), [((2.9,), True), ((0.5,), True), ((3.1,), False), ((0.25, *[0.033] * 90), False), ((3.1, 1.0), True)])
def test_ctrl_alt_del_twice_is_force_and_a_key_that_is_held_is_one_press(gaps: tuple[float, ...], forced: bool) -> None:
    now = [1000.0]
    asked: list[Any] = []
    engine: Any = SimpleNamespace(send=lambda _name, event, _why, how: asked.append((event.value, how)))
    reactor: Any = SimpleNamespace(clock=lambda: now[0])
    signals = PowerSignals(engine, reactor, Log(), SimpleNamespace(name="boot:x"))  # type: ignore[arg-type]
    for gap in (0.0, *gaps):
        now[0] += gap
        signals.ctrl_alt_del()
    assert asked[0] == ("reboot", "reboot")
    assert ("force", "reboot") in asked if forced else all(each == ("reboot", "reboot") for each in asked)


@in_child
def test_the_next_boot_says_that_the_last_one_was_ended_by_force(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    spine = machine.complete(machine.boot())
    spine.control.methods["power"]({"how": "reboot", "force": True}, lambda _answer: None)
    machine.turn_until(spine, lambda: machine.sysrq.words and not spine.state.memory)
    machine.crash(spine)
    machine.complete(machine.boot(boot_id="22222222-bbbb"))
    whys = [line.get("why") for line in machine.logged("22222222-bbbb") if line["event"] == "step"]
    assert "an earlier boot was ended by force" in whys


# ---- init() itself


@in_child
def test_whatever_escapes_from_the_reactor_ends_in_the_last_resort(tmp_path: Path) -> None:
    ends: list[Any] = []
    sinks = log.Sinks(console=log.Console(None), file=log.RunLog(str(tmp_path / "log")))
    log.Sinks = lambda: sinks  # type: ignore[assignment,misc]
    init.read_text = lambda _path: "bay0.panic=halt bay0.nonsense"  # type: ignore[assignment]
    power.last_resort = lambda error, policy, _say, sync_s: ends.append((str(error), policy, sync_s))  # type: ignore[assignment]

    def broken(*_parts: Any) -> Any:
        raise MemoryError("no more")

    init.build = broken  # type: ignore[assignment]
    init.init(0.0)
    assert ends == [("no more", "halt", Bounds().panic_sync)]
    text = b"".join(sinks.file._early).decode()
    assert '"starting"' in text
    assert "bay0.nonsense: no such word" in text


@in_child
def test_even_leaving_the_reactor_in_peace_is_a_panic(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    ends: list[str] = []
    power.last_resort = lambda error, policy, _say, _sync_s: ends.append(f"{policy}: {error}")  # type: ignore[assignment]
    spine = machine.boot(begin=False)
    sinks = log.Sinks(console=log.Console(None), file=log.RunLog(str(tmp_path / "log")))
    log.Sinks = lambda: sinks  # type: ignore[assignment,misc]
    init.build = lambda *_parts: spine  # type: ignore[assignment]
    spine.reactor.call_soon(spine.reactor.stop)
    init.init(0.0)
    assert ends == ["reboot: the reactor of PID 1 has stopped"]


@in_child
def test_closed_standard_descriptors_get_something_harmless() -> None:
    for fd in (0, 1, 2):
        os.close(fd)
    init._ensure_descriptors()
    assert [os.readlink(f"/proc/self/fd/{fd}") for fd in (0, 1, 2)] == ["/dev/null"] * 3


def test_a_small_kernel_file_that_is_not_there_reads_as_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text(" text\n")
    assert init.read_text(str(tmp_path / "file")) == "text"
    assert init.read_text(str(tmp_path / "none")) == ""


@in_child
def test_what_pid1_keeps_on_run_is_made_anew_when_somebody_removes_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    spine = machine.complete(machine.boot())
    files = spine.run_files
    shutil.rmtree(tmp_path / "run")
    files.look()
    made = [(line["what"], line["why"]) for line in machine.logged() if line["event"] == "made anew on /run"]
    assert made == [("the run log", "somebody removed it"), ("the control socket", "somebody removed it")]
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.connect(spine.control.path)
    files.look()
    assert len([line for line in machine.logged() if line["event"] == "made anew on /run"]) == 2
    machine.leave(spine)


@in_child
def test_ctrl_alt_del_leaves_in_order_when_everything_on_run_is_gone(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    spine = machine.complete(machine.boot())
    shutil.rmtree(tmp_path / "run")
    os.kill(os.getpid(), signal.SIGINT)
    machine.turn_until(spine, lambda: machine.powered, "the power")
    assert machine.powered == ["reboot"]


@in_child
def test_a_running_spine_looks_after_its_files_by_itself(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    runfiles.LOOK_EVERY_S = 0.05
    spine = machine.boot(begin=False)
    Reactor.run = lambda _self: None  # type: ignore[method-assign,misc,assignment]
    init.run(spine)
    machine.complete(spine)
    shutil.rmtree(tmp_path / "run")
    machine.turn_until(spine, lambda: os.path.exists(spine.control.path), "the socket is there again")


@in_child
def test_without_a_free_descriptor_pid1_lives_and_goes_on_when_there_are_some_again(tmp_path: Path) -> None:
    governing.AFTER_S = governing.PART_S = 0.01
    machine = Machine(tmp_path)
    spine = machine.complete(machine.boot())
    machine.turn_until(spine, lambda: governor(spine) is not None and spine.servers.made is not None, "the late parts")
    ended: list[Any] = []
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with no_descriptor_left():
        peer.connect(spine.control.path)
        for name in sorted(spine.control.methods.keys() - {"power", "suspend"}):
            spine.control._perform({"method": name}, {}, lambda _result: None, lambda _what, _value: None)
        governor(spine).poll()
        spine.run_files.look()
        spine.disk_watch._look()
        spine.disk_watch._probe()
        spine.spawner.run("true", ["true"], 10, ended.append)
        spine.stages.load_new()
        spine.servers()
        for number in range(200):
            spine.engine.log.info("line", number=number, text="x" * 20_000)
        for _ in range(50):
            spine.reactor.turn(0.01)
    assert ended[0].status == 127
    spine.spawner.run("true", ["true"], 10, ended.append)
    peer.setblocking(False)
    peer.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "status"}).encode() + b"\n")
    heard = bytearray()

    def answered() -> bool:
        with contextlib.suppress(BlockingIOError):
            heard.extend(peer.recv(1 << 20))
        return b"\n" in heard

    machine.turn_until(spine, answered, "who came meanwhile is served")
    machine.turn_until(spine, lambda: len(ended) == 2, "a command")
    assert ended[1].ok
    kept = (tmp_path / "run" / "1111.jsonl.1").read_text() + (tmp_path / "run" / "1111.jsonl").read_text()
    numbers = [line["number"] for line in map(json.loads, kept.splitlines()) if line["event"] == "line"]
    assert numbers == list(range(200))
    machine.leave(spine)


@in_child
def test_a_governor_that_cannot_be_loaded_now_is_loaded_later(tmp_path: Path) -> None:
    governing.AFTER_S, governing.AGAIN_S, governing.PART_S = 1000, 0.01, 0.01
    machine = Machine(tmp_path)
    spine = machine.complete(machine.boot())
    forget_modules(("bay0.thermal.governor", "bay0.thermal.reserve", "bay0.thermal.sensors"))
    with no_descriptor_left():
        spine.governing._loaded(None)
    assert governor(spine) is None
    machine.turn_until(spine, lambda: governor(spine) is not None, "the governor")
    assert {line["event"] for line in machine.logged() if line["level"] == "error"} == {"governor not loaded"}


def forget_modules(names: Sequence[str]) -> None:
    """Let modules be as in a program that has not loaded them yet."""
    for name in names:
        sys.modules.pop(name, None)
        holder, _, attribute = name.rpartition(".")
        if holder in sys.modules:
            vars(sys.modules[holder]).pop(attribute, None)


@in_child
def test_an_ai_whose_part_of_the_program_cannot_be_loaded_now_is_started_when_it_can(tmp_path: Path) -> None:
    autostart.SERVERS_AFTER_S, lateport.AGAIN_S = 1000.0, 0.05
    machine = Machine(tmp_path)
    spine = machine.complete(machine.boot())
    forget_modules(("bay0.ai.port", "bay0.umbilical.doors"))
    said: list[Any] = []
    ai = spine.engine.instances["sys://ai"]
    with no_descriptor_left():
        spine.engine.send("sys://ai", ServerEvent.START, "", said.append)
        for _ in range(40):
            spine.reactor.turn(0.05)
        spine.control._perform({"method": "tenant.show"}, {"name": "sys://ai"}, said.append, lambda _what, _value: None)
    assert (ai.now.value, spine.servers.made) == ("starting", None)
    assert isinstance(said[-1], RefusedError)
    assert "cannot be loaded now: " in str(said[-1])
    machine.turn_until(spine, lambda: spine.servers.made is not None and ai.now.value != "starting", "its start")
    assert "an effect waits for its part of the program" in {line["event"] for line in machine.logged()}


@in_child
def test_a_persona_whose_way_to_the_ai_cannot_be_loaded_now_does_not_start_and_says_so(tmp_path: Path) -> None:
    autostart.SERVERS_AFTER_S = 1000.0
    machine = Machine(tmp_path)
    spine = machine.complete(machine.boot())
    made: list[Any] = []
    manifest = {"image": "localhost/none:1", "ai": True, "retries": 0}
    spine.control.methods["persona.create"]({"name": "p://work", "manifest": manifest}, made.append)
    machine.turn_until(spine, lambda: made, "the persona")
    forget_modules(("bay0.ai.port", "bay0.umbilical.doors"))
    work = spine.engine.instances["p://work"]
    with no_descriptor_left():
        spine.engine.send("p://work", PersonaEvent.START, "")
        for _ in range(60):
            spine.reactor.turn(0.05)
    machine.turn_until(spine, lambda: work.now.value in ("stopped", "failed", "waiting"), "its end")
    assert any("cannot be loaded now: " in line.get("why", "") for line in machine.logged() if line.get("machine") == "p://work")


def test_all_that_pid1_may_hold_open_at_once_fits_under_its_limit_of_descriptors() -> None:
    """The kernel gives init 1,024 (INR_OPEN_CUR). A bound that is raised must be weighed against this."""
    spare = 100  # standard descriptors, epoll, inotify, timers, the worker's socket, the forwarder's, files read in a turn
    assert control.CLIENTS_MAX + 1 + 2 * spawn.RUNNING_MAX + umbilicalport.DOORS_MAX + spare < 1024
