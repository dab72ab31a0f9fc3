"""Whole boots of bay0 as an ordinary process: the real wiring, reactor, worker, database, control socket and services.

What only a kernel can give is played: mounts, modules, cgroups, the power. /persist is a directory of the test's.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kit import in_child, until, zombies

import bay0
from bay0 import cmdline, init, log, net, personas
from bay0.bounds import Bounds
from bay0.effects import modules, mounts, power, shield, spawn
from bay0.effects.service import ServiceSpec
from bay0.effects.shield import Watchdog
from bay0.errors import RefusedError, StorageError
from bay0.machines.boot import E, S
from bay0.machines.storage import S as Health
from bay0.state import device, entropy, homes, paths, worker

GENEROUS = Bounds(worker_start=20, find=20, mount=20, open=20, migrate=20, read=20, commit=20, flush=20, genesis=20, close=20, term_grace=0.5)
THING = "sys://thing"


class Machine:
    """A machine that can be booted again and again; use it inside `in_child` only."""

    def __init__(self, top: Path, **bounds: float) -> None:
        self.top = top
        self.short_ways = 0
        self.bounds = Bounds(**{**{name: getattr(GENEROUS, name) for name in Bounds.__slots__ if name != "__weakref__"}, **bounds})
        (top / "run").mkdir()
        (top / "persist").mkdir()
        (top / "bin").mkdir()
        # modprobe as it is when a device needs no module; podman without any container, or the machine's own would be asked
        for name, script in (("modprobe", "exit 1"), ("podman", """echo '{"end":true}'""")):
            (top / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
            (top / "bin" / name).chmod(0o755)
        self._play_kernel()
        self._play_disk()

    def _play_kernel(self) -> None:
        spawn.ENVIRONMENT["PATH"] = f"{self.top}/bin:/usr/bin:/bin"
        mounts.mount_kernel_filesystems = list  # type: ignore[assignment]  # this process ends with the test
        modules.wanted = lambda: modules.Wanted((), ())  # type: ignore[assignment]
        net.violations = list  # type: ignore[assignment]
        shield.unkillable = shield.ctrl_alt_del_is_a_signal = lambda: None  # type: ignore[assignment]
        socket.sethostname = lambda _name: None  # type: ignore[assignment]
        init.Bounds = lambda: self.bounds  # type: ignore[assignment,misc]
        init._disks = lambda: frozenset({"vda"})  # type: ignore[assignment]
        personas.write_config = lambda _files: None

    def _play_disk(self) -> None:
        root = str(self.top / "persist")
        places = ("ROOT", "SPINE", "DATABASE", "GENESIS", "ALIVE", "TIME", "SEED", "MARKER", "HOMES", "LOGS", "CONTAINERS", "TRASH")
        for module in (paths, device, worker, homes):
            for name in places:
                if hasattr(module, name):
                    setattr(module, name, getattr(module, name).replace("/persist", root, 1))
        device.find = lambda wanted: [wanted or "/dev/vda"]  # type: ignore[assignment]
        device.mount_first = lambda devices: devices[0]  # type: ignore[assignment]
        entropy.RNG = os.devnull
        device.unmount = lambda: None  # type: ignore[assignment]

    def boot(self, words: str = "", boot_id: str = "11111111-aaaa", begin: bool = True) -> init.Spine:
        init.read_text = lambda _path: boot_id  # type: ignore[assignment]
        console = self.top / "console"
        console.touch()
        sinks = log.Sinks(console=log.Console(str(console)), file=log.RunLog(str(self.top / "run" / f"{boot_id[:4]}.jsonl")))
        spine = init.build(cmdline.parse(words), sinks, log.make(sinks), Watchdog(str(self.top / "no-watchdog")))
        spine.control.path = str(self.top / "run" / f"{boot_id[:4]}.sock")
        spine.control.uids = frozenset({os.getuid()})
        spine.stages.ending = self.power
        spine.stages.at_once = self._short_way
        spine.stages.wanted = lambda: {THING: ServiceSpec(("sleep", "100"))}
        init._take_signals(spine)
        if begin:
            spine.engine.send(spine.boot.name, E.BEGIN)
        return spine

    def power(self, how: str) -> int:
        """Runs in a fork, as the real one does, and like it does not come back."""
        with (self.top / "powered").open("a") as file:
            file.write(f"{how}\n")
        time.sleep(600)
        return 0

    @property
    def powered(self) -> list[str]:
        file = self.top / "powered"
        return file.read_text().split() if file.exists() else []

    def _short_way(self) -> None:
        self.short_ways += 1

    def turn_until(self, spine: init.Spine, true: Callable[[], Any], what: str = "the condition") -> None:
        until(
            true, f"{what} (boot {spine.boot.now}, storage {spine.state.storage and spine.state.storage.now})", 40.0, lambda: spine.reactor.turn(0.05)
        )

    def complete(self, spine: init.Spine) -> init.Spine:
        self.turn_until(spine, lambda: spine.boot.now is S.COMPLETE, "init complete")
        self.turn_until(spine, lambda: spine.engine.instances[THING].now.value == "running", "the tenant")
        return spine

    def leave(self, spine: init.Spine, how: str = "poweroff") -> None:
        spine.stop(how, "the test is over")
        self.turn_until(spine, lambda: self.powered, "the power")

    def crash(self, spine: init.Spine) -> None:
        """Lose the power: nothing is closed; every process ends."""
        self.turn_until(spine, lambda: not spine.state.memory, "an empty memory journal")
        for child in (pid for pid in list(spine.reaper._owned)):
            os.kill(child, signal.SIGKILL)
        until(lambda: len(zombies()) >= len(spine.reaper._owned))
        spine.reaper._owned.clear()
        spine.reaper.drain()

    def stored(self) -> dict[str, str]:
        with contextlib.closing(sqlite3.connect(f"file:{self.top}/persist/spine/state.db?mode=ro", uri=True)) as base:
            return dict(base.execute("SELECT name, state FROM machine").fetchall())

    def logged(self, boot_id: str = "11111111-aaaa") -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.top / "run" / f"{boot_id[:4]}.jsonl").read_text().splitlines()]


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
    assert set(spine.engine.instances) == {"boot:22222222", "storage:22222222", "focus", "sys://ai", THING}, "an earlier boot's machines are put away"
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
    assert call("history", machine="nobody") == []
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
