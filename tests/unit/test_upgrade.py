"""An upgrade over whole boots: the real wiring, worker and database, slots on files, a loader as EFI Boot Guard is one (upgradekit.py)."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit import in_child
from slotkit import digest
from upgradekit import NEW, Computer, PowerCut

from bay0.base.errors import StorageError
from bay0.cli import doctor
from bay0.machines import upgrade
from bay0.machines.upgrade import S
from bay0.state import device, slots
from bay0.state.bootenv import UState


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
