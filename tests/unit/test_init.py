"""Whole boots of bay0 as an ordinary process, on the machine of bootkit.py."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bootkit import THING, Machine
from kit import in_child

import bay0
from bay0 import init, log
from bay0.bounds import Bounds
from bay0.effects import modules, power
from bay0.errors import RefusedError, StorageError
from bay0.machines.boot import E, S
from bay0.machines.storage import S as Health
from bay0.state import device


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
    left = {"boot:22222222", "storage:22222222", "focus", "inhibit", "sys://ai", THING}
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
    disks, read_text = init._disks, init.read_text
    machine = Machine(tmp_path)
    init._disks = disks
    init.SYS_BLOCK = str(tmp_path / "block")  # type: ignore[misc]
    init.LOOK_EVERY_S = 0.05  # type: ignore[misc]
    number = tmp_path / "block" / "vda" / "diskseq"
    number.parent.mkdir(parents=True)
    number.write_text("9\n")

    def find(_wanted: str | None) -> list[str]:  # in the worker
        if not (tmp_path / "there").exists():
            raise StorageError("no_device", "it has just been unplugged")
        return ["/dev/vda"]

    device.find = find
    spine = machine.boot(begin=False)
    init.read_text = read_text
    spine.engine.send(spine.boot.name, E.BEGIN)
    machine.complete(spine)
    spine._look_for_disk()
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
    assert spine.complete_ms is not None
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
    init.GOVERN_AFTER_S = init.GOVERN_PART_S = 0.0
    machine = Machine(tmp_path)
    spine = machine.complete(machine.boot())
    machine.turn_until(spine, lambda: spine.governor is not None and spine.governor.seen is not None, "the governor's first look")
    answers: list[Any] = []
    spine.control.methods["governor"]({}, answers.append)
    assert answers[0]["tenants"] == []
    machine.leave(spine)
    assert spine.governor is not None
    assert spine.governor._closed


@in_child
def test_the_governor_can_be_turned_off_and_that_is_said(tmp_path: Path) -> None:
    init.GOVERN_AFTER_S = 0.0
    machine = Machine(tmp_path)
    spine = machine.complete(machine.boot("bay0.governor=off"))
    assert [line["level"] for line in machine.logged() if line["event"] == "nobody is governed"] == ["warning"]
    with pytest.raises(RefusedError, match="governor=off"):
        spine.control.methods["governor"]({}, lambda _answer: None)
    kept = "memory of all personas together"
    machine.turn_until(spine, lambda: kept in [line["event"] for line in machine.logged()], "the share of memory that is kept all the same")
    assert spine.governor is None
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

    spine = machine.boot(begin=False)
    spine.stages.ending = stubborn
    machine.leave(spine)
    assert (tmp_path / "tries").read_text().split() == ["poweroff"] * 3
    assert machine.short_ways == 2, "the first try is the polite one"


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
