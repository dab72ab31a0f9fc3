"""An upgrade over whole boots: the real wiring, worker and database, slots on files, a loader as EFI Boot Guard is one.

What is played: the process at the slots runs in this one, validation says what the test wants, and the machine's build is the slot's that booted.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from bootkit import Machine
from diskkit import quick_digest
from kit import in_child
from slotkit import Disk, digest, image

from bay0.base.errors import StorageError
from bay0.cli import doctor
from bay0.effects.spawn import Ending, Result, Spawner
from bay0.init.spine import Spine
from bay0.machines import upgrade
from bay0.machines.upgrade import S
from bay0.state import bootenv, device, slots, slotwork
from bay0.state.bootenv import UState

NEW = image("2.0")
WORDS = "bay0.prove=5"


class PowerCut(Exception):  # noqa: N818 - it is one
    """The machine loses its power now."""


class Computer:
    """A machine with two slots. `boot` asks the loader; what boots is of the build that the slot holds."""

    def __init__(self, folder: Path) -> None:
        (folder / "disk").mkdir()
        self.disk = Disk(folder / "disk")
        self.machine = Machine(folder)
        self.folder = folder
        self.count = 0
        self.verdict = "green"
        self.cut_before: str | None = None  # an op at whose begin the power goes
        self.cut_after: str | None = None
        self.hold: str | None = None  # an op that takes its time, until somebody calls what is `held`
        self.held: list[Callable[[], None]] = []
        self.asked: list[str] = []
        self.runs: str | None = None
        slots.on_disk = lambda: self.disk.slots  # type: ignore[assignment]  # this process ends with the test
        slotwork.device.mounted_device = lambda: "/dev/vda4"  # type: ignore[assignment]
        slotwork.secure_boot = lambda: False  # type: ignore[assignment]
        slotwork.stated = self._stated  # type: ignore[assignment]
        (folder / "new.efi").write_bytes(NEW)

    def _stated(self, word: str) -> str:
        found = slots.describe(self.disk.slots[str(self.runs)])["uki"]
        return str({"BUILD_ID": found["build_id"], "VERSION_ID": found["version"], "BAY0_SCHEMA": 3}[word])

    def boot(self, words: str = WORDS, *, runs: str | None = None) -> Spine:
        self.runs = runs or self.disk.load()
        assert self.runs is not None, "nothing boots"
        self.count += 1
        computer = self

        class Played(Spawner):
            def run(self, name: str, argv: Any, deadline_s: float, done: Any, env: Any = None, *, capture: int = 0) -> None:
                if not name.startswith("slots-"):
                    super().run(name, argv, deadline_s, done, env, capture=capture or 65536)
                    return
                if argv[-2] == computer.hold:
                    computer.held.append(lambda: done(computer.work(*argv[-2:])))
                else:
                    self.reactor.call_soon(lambda: done(computer.work(*argv[-2:])))

        spine = self.machine.boot(words, boot_id=f"{self.count:04d}0000-aaaa", spawner=Played)
        spine.validation.made = self  # type: ignore[assignment]
        self.spine = spine
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.folder / "powered")
        return self.machine.complete(spine)

    def work(self, op: str, arguments: str) -> Result:
        self.asked.append(op)
        if op == self.cut_before:
            raise PowerCut
        answer = json.dumps(slotwork.answer(op, json.loads(arguments)))
        if op == self.cut_after:
            raise PowerCut
        return Result(Ending.EXITED, 0, answer, "", 0, 0.1)

    def ask(self, _params: Mapping[str, Any], reply: Callable[[Any], None]) -> None:
        """Be the validation."""
        checks = [{"name": "persist", "level": self.verdict, "why": "as the test says"}]
        reply({"verdict": self.verdict, "checks": checks})

    def call(self, spine: Spine, method: str, **params: Any) -> Any:
        got: list[Any] = []
        try:
            spine.control.methods[method](params, got.append)
        except Exception as error:  # as the control server answers it
            return error
        self.machine.turn_until(spine, lambda: got, method)
        return got[0]

    def until(self, spine: Spine, *states: S) -> None:
        live = spine.engine.instances
        self.machine.turn_until(spine, lambda: live[upgrade.NAME].now in states and live[upgrade.NAME].pending is None, f"{states}")

    def staged(self, spine: Spine) -> None:
        answer = self.call(spine, "upgrade.stage", path=str(self.folder / "new.efi"))
        assert answer["state"] == "staging", answer
        self.until(spine, S.STAGED)

    def tried(self, spine: Spine) -> None:
        answer = self.call(spine, "upgrade.try", no_watchdog=True)
        assert answer["state"] == "trying", answer
        self.ends(spine)

    def ends(self, spine: Spine) -> None:
        """Wait for the end of the boot that the program itself has asked for."""
        self.machine.turn_until(spine, lambda: self.machine.powered, "the restart")
        assert self.machine.powered == ["reboot"]

    def cut(self, spine: Spine) -> None:
        self.machine.crash(spine)

    def state(self) -> str:
        return self.machine.stored()[upgrade.NAME]


@in_child
def test_a_newer_spine_is_staged_tried_proved_and_is_the_good_one(tmp_path: Path) -> None:
    pc = Computer(tmp_path)
    spine = pc.boot()
    before = pc.disk.bytes_of("SLOTA")
    pc.staged(spine)
    shown = pc.call(spine, "upgrade.status")
    assert (shown["state"], shown["image"]["version"], shown["runs"], shown["next"]) == ("staged", "2.0", "SLOTA", "SLOTA")
    pc.tried(spine)
    assert pc.disk.bytes_of("SLOTA") == before, "the way back is not written to"
    spine = pc.boot()
    assert pc.runs == "SLOTB"
    pc.until(spine, S.PROVING)
    assert pc.disk.env("SLOTB").ustate is UState.TESTING
    pc.until(spine, S.GOOD)
    assert (pc.disk.env("SLOTB").ustate, pc.disk.env("SLOTB").watchdog_s) == (UState.OK, 0)
    refused = pc.call(spine, "upgrade.stage", path=str(tmp_path / "new.efi"))
    assert "one more boot" in str(refused), refused
    pc.machine.leave(spine, "reboot")
    spine = pc.boot()
    assert pc.runs == "SLOTB"
    pc.until(spine, S.IDLE)
    pc.machine.leave(spine)


@in_child
def test_a_newer_spine_that_is_red_is_taken_back_and_refused_from_then_on(tmp_path: Path) -> None:
    pc = Computer(tmp_path)
    spine = pc.boot()
    pc.staged(spine)
    pc.tried(spine)
    pc.verdict = "red"
    spine = pc.boot()
    assert pc.runs == "SLOTB"
    pc.ends(spine)
    assert pc.state() == "condemned"
    pc.verdict = "green"
    spine = pc.boot()
    assert pc.runs == "SLOTA"
    pc.until(spine, S.NACKED)
    listed = pc.call(spine, "nack.check", digest=digest(NEW))
    assert listed["nacked"]
    assert "as the test says" in listed["why"]
    assert "no filesystem" in slots.describe(pc.disk.slots["SLOTB"])["why"]
    refused = pc.call(spine, "upgrade.stage", path=str(tmp_path / "new.efi"))
    assert "is refused" in str(refused)
    log = pc.machine.logged(f"{pc.count:04d}0000-aaaa")
    assert any(line["event"] == "an upgrade was taken back" for line in log)
    assert "an upgrade was taken back" in (tmp_path / "console").read_text()
    told = pc.call(spine, "boots", previous=1).whole()
    assert "nacked" in [step["dest"] for step in told["this"]["steps"] if step["kind"] == "upgrade"]
    assert "condemned" in [step["dest"] for step in told["previous"][0]["steps"] if step["kind"] == "upgrade"]
    found = doctor.findings(pc.call(spine, "status").whole(), log=log)
    assert [each.what for each in found if each.component == "upgrade"] == [
        "version 2.0 was found bad, and is refused from now on: persist: as the test says"
    ]
    pc.machine.leave(spine)


@in_child
def test_a_power_cut_in_the_proof_is_no_verdict_and_after_three_tries_it_is_refused(tmp_path: Path) -> None:
    pc = Computer(tmp_path)
    spine = pc.boot()
    pc.staged(spine)
    pc.tried(spine)
    for attempt in (1, 2, 3):
        spine = pc.boot()
        assert pc.runs == "SLOTB", attempt
        pc.until(spine, S.PROVING)
        pc.cut(spine)
        spine = pc.boot()
        assert pc.runs == "SLOTA", attempt
        if attempt < upgrade.TRIES:
            pc.until(spine, S.TRYING)
            assert spine.engine.instances[upgrade.NAME].attempts == attempt + 1
            pc.machine.leave(spine, "reboot")
        else:
            pc.until(spine, S.NACKED)
    assert pc.call(spine, "nack.check", digest=digest(NEW))["nacked"]
    pc.machine.leave(spine)


@in_child
def test_an_ordered_reboot_in_the_proof_is_another_boot_of_the_same_try(tmp_path: Path) -> None:
    pc = Computer(tmp_path)
    spine = pc.boot()
    pc.staged(spine)
    pc.tried(spine)
    for _ in range(5):
        spine = pc.boot()
        assert pc.runs == "SLOTB"
        pc.until(spine, S.PROVING)
        pc.machine.leave(spine, "reboot")
        assert (pc.state(), pc.disk.env("SLOTB").ustate) == ("trying", UState.INSTALLED)
    spine = pc.boot()
    pc.until(spine, S.GOOD)
    pc.machine.leave(spine)


@in_child
def test_a_flipped_bit_is_found_by_the_candidate_itself(tmp_path: Path) -> None:
    pc = Computer(tmp_path)
    spine = pc.boot()
    pc.staged(spine)
    pc.tried(spine)
    pc.disk.flip("SLOTB", 150_000)
    spine = pc.boot()
    assert pc.runs == "SLOTB"
    pc.ends(spine)
    spine = pc.boot()
    assert pc.runs == "SLOTA"
    pc.until(spine, S.NACKED)
    assert "does not hold what was staged" in pc.call(spine, "nack.check", digest=digest(NEW))["why"]
    pc.machine.leave(spine)


@in_child
def test_a_flipped_bit_before_the_try_is_found_by_the_good_one_and_is_not_the_images_fault(tmp_path: Path) -> None:
    pc = Computer(tmp_path)
    spine = pc.boot()
    pc.staged(spine)
    pc.disk.flip("SLOTB", 150_000)
    pc.call(spine, "upgrade.try", no_watchdog=True)
    pc.until(spine, S.IDLE)
    assert not pc.call(spine, "nack.check", digest=digest(NEW))["nacked"]
    pc.staged(spine)
    pc.machine.leave(spine)


@in_child
@pytest.mark.parametrize("act", ["accept", "rollback"])
def test_somebody_ends_the_proof(tmp_path: Path, act: str) -> None:
    pc = Computer(tmp_path)
    spine = pc.boot()
    pc.staged(spine)
    pc.tried(spine)
    spine = pc.boot("bay0.prove=600")
    pc.until(spine, S.PROVING)
    pc.call(spine, f"upgrade.{act}")
    if act == "accept":
        pc.until(spine, S.GOOD)
        answer = pc.call(spine, "upgrade.rollback")
        assert answer["state"] == "condemned", answer
    pc.ends(spine)
    spine = pc.boot()
    assert pc.runs == "SLOTA"
    pc.until(spine, S.NACKED)
    assert pc.call(spine, "nack.check", digest=digest(NEW))["nacked"]
    pc.machine.leave(spine)


@in_child
@pytest.mark.parametrize("armed", [False, True])
def test_what_is_staged_can_be_forgotten(tmp_path: Path, armed: bool) -> None:
    pc = Computer(tmp_path)
    spine = pc.boot()
    pc.staged(spine)
    if armed:
        pc.tried(spine)
        spine = pc.boot()
        pc.until(spine, S.PROVING)
        pc.cut(spine)
        spine = pc.boot()
        pc.until(spine, S.TRYING)
    assert pc.call(spine, "upgrade.cancel")["state"] == "idle"
    pc.machine.leave(spine, "reboot")
    spine = pc.boot()
    assert pc.runs == "SLOTA"
    pc.machine.leave(spine)


@in_child
def test_what_may_not_be_staged_is_refused_and_nothing_is_changed(tmp_path: Path) -> None:
    pc = Computer(tmp_path)
    spine = pc.boot()
    new, given = tmp_path / "new.efi", tmp_path / "given.efi"
    pc.call(spine, "nack.add", digest=digest(NEW), why="it ate the cat")

    def everything() -> list[Any]:
        pc.machine.turn_until(spine, lambda: not spine.state.memory, "an empty memory journal")
        kept = [quick_digest(tmp_path / f"persist/spine/state.db{suffix}") for suffix in ("", "-wal")]
        return [*(pc.disk.bytes_of(name) for name in bootenv.SLOTS), *kept, spine.engine.instances[upgrade.NAME].seq]

    def refused(path: Path, **params: Any) -> str:
        before = everything()
        answer = pc.call(spine, "upgrade.stage", path=str(path), **params)
        assert isinstance(answer, Exception), answer
        assert everything() == before
        return str(answer)

    assert "No such file" in refused(tmp_path / "none")
    given.write_bytes(b"MZ" + bytes(100))
    assert "it is" in refused(given)
    assert "it ate the cat" in refused(new)
    given.write_bytes(image("1.0"))
    assert "the build that runs" in refused(given)
    given.write_bytes(image("3.0"))
    assert "and not sha256:" in refused(given, digest="sha256:" + "1" * 64)
    for change, why in (
        (lambda: setattr(slotwork, "secure_boot", lambda: True), "Secure Boot is on"),
        (lambda: setattr(slotwork, "secure_boot", lambda: None), "cannot be read"),
    ):
        change()
        assert why in refused(given)
    slotwork.secure_boot = lambda: False  # type: ignore[assignment]
    facts = slots.facts
    for key, value, why in (
        ("schema", 1, "databases up to version 1"), ("architecture", "arm64", "it is for arm64"), ("size", 1 << 33, "larger slots"),
    ):  # fmt: skip
        slots.facts = lambda found, key=key, value=value: {**facts(found), key: value}  # type: ignore[assignment, misc]
        assert why in refused(given)
    slots.facts = facts  # type: ignore[assignment]
    slots.on_disk = dict  # type: ignore[assignment]
    assert "--one-slot" in refused(given)
    slots.on_disk = lambda: pc.disk.slots  # type: ignore[assignment]
    pc.machine.leave(spine)


@in_child
def test_a_candidate_that_cannot_read_what_it_is_to_prove_goes_back(tmp_path: Path) -> None:
    pc = Computer(tmp_path)
    spine = pc.boot()
    pc.staged(spine)
    pc.tried(spine)
    find = device.find

    def none(_wanted: object) -> list[str]:
        raise StorageError("no_device", "no disk")

    device.find = none
    spine = pc.boot()
    assert pc.runs == "SLOTB"
    assert not spine.replay.known
    pc.ends(spine)
    device.find = find
    spine = pc.boot()
    assert pc.runs == "SLOTA"
    pc.until(spine, S.TRYING)
    assert spine.engine.instances[upgrade.NAME].attempts == 2, "no verdict"
    pc.machine.leave(spine)


@in_child
def test_a_good_spine_that_cannot_read_its_disk_stays(tmp_path: Path) -> None:
    pc = Computer(tmp_path)

    def none(_wanted: object) -> list[str]:
        raise StorageError("no_device", "no disk")

    device.find = none
    spine = pc.boot()
    pc.machine.turn_until(spine, lambda: "look" in pc.asked, "a look at the slots")
    for _ in range(20):
        spine.reactor.turn(0.05)
    assert spine.boot.now.value == "complete"
    pc.machine.leave(spine)


@in_child
def test_the_machine_does_not_sleep_while_a_slot_is_written(tmp_path: Path) -> None:
    pc = Computer(tmp_path)
    spine = pc.boot()
    pc.hold = "stage"
    assert pc.call(spine, "upgrade.stage", path=str(tmp_path / "new.efi"))["state"] == "staging"
    pc.machine.turn_until(spine, lambda: pc.held, "the copy to begin")
    assert "upgrade staging" in [each["op"] for each in pc.call(spine, "inhibit")["held_by"]]
    answer = pc.call(spine, "suspend", reason="lid")
    assert not answer["suspended"]
    assert "a slot of the disk is being written" in answer["why"]
    assert pc.call(spine, "upgrade.status")["slots"] is None, "nobody looks at what is being written"
    pc.held[0]()
    pc.until(spine, S.STAGED)
    assert not [each for each in pc.call(spine, "inhibit")["held_by"] if each["op"].startswith("upgrade")]
    assert "a slot" not in pc.call(spine, "suspend", reason="lid")["why"]
    pc.machine.leave(spine)


@in_child
def test_going_back_after_more_boots_is_a_verdict_of_somebody(tmp_path: Path) -> None:
    pc = Computer(tmp_path)
    spine = pc.boot()
    assert "nothing to go back to" in str(pc.call(spine, "upgrade.rollback"))
    pc.staged(spine)
    pc.tried(spine)
    spine = pc.boot()
    pc.until(spine, S.GOOD)
    pc.machine.leave(spine, "reboot")
    spine = pc.boot()
    pc.until(spine, S.IDLE)
    assert pc.call(spine, "upgrade.rollback")["state"] == "condemned"
    pc.ends(spine)
    spine = pc.boot()
    assert pc.runs == "SLOTA"
    pc.until(spine, S.NACKED)
    assert pc.call(spine, "nack.check", digest=digest(NEW))["nacked"]
    pc.machine.leave(spine)


@in_child
def test_without_a_watchdog_a_try_wants_a_word(tmp_path: Path) -> None:
    pc = Computer(tmp_path)
    spine = pc.boot()
    assert "nothing is staged" in str(pc.call(spine, "upgrade.try", no_watchdog=True))
    pc.staged(spine)
    assert "--no-watchdog" in str(pc.call(spine, "upgrade.try"))
    assert spine.engine.instances[upgrade.NAME].now is S.STAGED
    pc.machine.leave(spine)


CUTS = [(op, when) for op in ("stage", "arm", "look", "verify", "commit", "wipe") for when in ("before", "after")]


@in_child
@pytest.mark.parametrize(("op", "when"), CUTS)
def test_a_power_cut_at_any_call_leaves_a_good_slot_that_boots_and_an_upgrade_that_can_be_had(tmp_path: Path, op: str, when: str) -> None:
    pc = Computer(tmp_path)
    setattr(pc, f"cut_{when}", op)
    cuts = 0
    for _ in range(12):
        try:
            spine = pc.boot()
            live = spine.engine.instances[upgrade.NAME]
            if live.now in (S.TRIED, S.TORN, S.JUDGING, S.WIPING):
                pc.machine.turn_until(spine, lambda live=live: live.now not in (S.TRIED, S.TORN, S.JUDGING, S.WIPING), "a look")
            if live.now is S.IDLE and pc.runs == "SLOTA":
                if op == "wipe" and cuts == 0:
                    pc.staged(spine)
                    pc.call(spine, "upgrade.cancel")
                pc.staged(spine)
            if live.now is S.STAGED:
                pc.tried(spine)
                continue
            if live.now in (S.PROVING, S.COMMITTING):
                pc.until(spine, S.GOOD)
            if live.now is S.GOOD:
                break
            pc.machine.leave(spine, "reboot")
        except PowerCut:
            cuts += 1
            setattr(pc, f"cut_{when}", None)
            pc.cut(pc.spine)
    assert cuts == 1
    assert live.now is S.GOOD, pc.asked
    assert slots.digest(pc.disk.slots["SLOTB"], lambda *_: None)[0] == digest(NEW)
    assert pc.disk.env("SLOTB").ustate is UState.OK
    pc.machine.leave(spine)
