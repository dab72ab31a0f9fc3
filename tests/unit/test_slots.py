"""The slots of a disk, on files: written so that what is not whole is not believed, and what runs is not touched."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diskkit
import pytest
from slotkit import MIB, SIZE, Disk, digest, image, refused

from bay0.effects.spawn import Ending, Result
from bay0.state import bootenv, slotcalls, slotfat, slots, slotwork
from bay0.state.bootenv import BootEnv, UState

NEW = image("2.0")
QUIET: Callable[..., None] = lambda *_: None


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "new.efi").write_bytes(NEW)
    return tmp_path / "new.efi"


def stage(disk: Disk, source: Path, name: str = "SLOTB", wanted: str = "") -> None:
    fd = os.open(source, os.O_RDONLY)
    try:
        slots.stage(disk.slots, name, fd, wanted or digest(NEW), QUIET)
    finally:
        os.close(fd)


def test_a_new_disk_starts_its_first_slot_and_the_other_may_be_written(disk: Disk) -> None:
    assert slots.next_up(slots.environments(disk.slots)) == "SLOTA"
    assert disk.load() == "SLOTA"
    found = slots.describe(disk.slots["SLOTB"])
    assert (found["env"]["state"], found["env"]["revision"], found["uki"]["version"]) == ("failed", 0, "1.0")


def test_what_is_staged_is_whole_and_not_offered_to_the_loader(disk: Disk, source: Path) -> None:
    before = disk.bytes_of("SLOTA")
    stage(disk, source)
    assert slots.digest(disk.slots["SLOTB"], QUIET) == (digest(NEW), len(NEW))
    assert disk.env("SLOTB") == BootEnv("C:SLOTB:spine.efi", in_progress=True)
    assert slots.describe(disk.slots["SLOTB"])["uki"]["version"] == "2.0"
    assert disk.load() == "SLOTA"
    assert disk.bytes_of("SLOTA") == before, "the good slot is not written to"


def test_a_try_that_is_committed_is_what_boots_from_then_on(disk: Disk, source: Path) -> None:
    stage(disk, source)
    slots.arm(disk.slots, "SLOTB", 150)
    assert disk.env("SLOTB") == BootEnv("C:SLOTB:spine.efi", ustate=UState.INSTALLED, watchdog_s=150, revision=2)
    assert disk.load() == "SLOTB"
    slots.commit(disk.slots, "SLOTB")
    assert disk.env("SLOTB") == BootEnv("C:SLOTB:spine.efi", ustate=UState.OK, watchdog_s=0, revision=2)
    assert [disk.load(), disk.load()] == ["SLOTB", "SLOTB"]
    slots.favour(disk.slots, "SLOTA")
    assert disk.load() == "SLOTA"


def test_a_try_that_is_not_committed_is_one_boot(disk: Disk, source: Path) -> None:
    stage(disk, source)
    slots.arm(disk.slots, "SLOTB", 0)
    assert [disk.load(), disk.load(), disk.load()] == ["SLOTB", "SLOTA", "SLOTA"]
    assert (disk.env("SLOTB").ustate, disk.env("SLOTB").revision, disk.env("SLOTB").in_progress) == (UState.FAILED, 0, False)


def test_a_try_is_armed_again_by_the_one_that_runs(disk: Disk, source: Path) -> None:
    stage(disk, source)
    slots.arm(disk.slots, "SLOTB", 150)
    assert disk.load() == "SLOTB"
    slots.arm(disk.slots, "SLOTB", 150)
    assert [disk.load(), disk.load()] == ["SLOTB", "SLOTA"]


def test_what_runs_and_the_only_way_back_are_never_written(disk: Disk, source: Path) -> None:
    assert "SLOTA is what starts next" in refused(slots.wipe, disk.slots, "SLOTA")
    assert "SLOTA is what starts next" in refused(stage, disk, source, "SLOTA")
    stage(disk, source)
    slots.arm(disk.slots, "SLOTB", 0)
    assert "no way back" in refused(slots.wipe, disk.slots, "SLOTA")
    assert disk.load() == "SLOTB"
    assert "SLOTB is what starts next" in refused(slots.wipe, disk.slots, "SLOTB"), "it runs"
    assert "no way back" in refused(stage, disk, source, "SLOTA"), "the old one is where a bad try ends"


def test_what_was_found_good_is_not_tried_and_what_never_was_is_not_gone_back_to(disk: Disk) -> None:
    assert "not tried" in refused(slots.arm, disk.slots, "SLOTA", 0)
    assert "never found good" in refused(slots.favour, disk.slots, "SLOTB")
    assert "cannot become the good one" in refused(slots.commit, disk.slots, "SLOTB")


def test_an_armed_slot_can_be_wiped_and_is_nothing_then(disk: Disk, source: Path) -> None:
    stage(disk, source)
    slots.arm(disk.slots, "SLOTB", 150)
    slots.wipe(disk.slots, "SLOTB")
    assert disk.load() == "SLOTA"
    assert "no filesystem" in slots.describe(disk.slots["SLOTB"])["why"]
    stage(disk, source)
    assert slots.digest(disk.slots["SLOTB"], QUIET)[0] == digest(NEW)


def test_a_file_that_is_another_than_was_looked_at_leaves_a_slot_that_nothing_starts(disk: Disk, source: Path) -> None:
    assert "was changed while it was read" in refused(stage, disk, source, "SLOTB", "sha256:" + "0" * 64)
    assert "no filesystem" in slots.describe(disk.slots["SLOTB"])["why"]
    assert disk.load() == "SLOTA"


def test_a_disk_that_does_not_give_back_what_was_written_is_found(disk: Disk, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = slots._write

    def lossy(fd: int, at: int, data: bytes) -> None:
        write(fd, at, bytes([data[0] ^ 4]) + bytes(data[1:]) if at == slotfat.spine_at(slotfat.layout(SIZE)) else data)

    monkeypatch.setattr(slots, "_write", lossy)
    assert "does not give back" in refused(stage, disk, source)
    assert "no filesystem" in slots.describe(disk.slots["SLOTB"])["why"]


def test_wherever_staging_is_cut_the_good_one_boots_and_what_is_not_whole_has_no_filesystem(
    disk: Disk, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write may be the last one that reaches the disk."""
    write, left = slots._write, [0]

    class Cut(Exception):  # noqa: N818 - it is a power cut
        pass

    def cutting(fd: int, at: int, data: bytes) -> None:
        if left[0] == 0:
            raise Cut
        left[0] -= 1
        write(fd, at, data)

    monkeypatch.setattr(slots, "_write", cutting)
    ended = False
    for count in range(40):
        left[0] = count
        try:
            stage(disk, source)
            ended = True
        except Cut:
            pass
        env = slots.environments(disk.slots)["SLOTB"]
        assert slots.next_up(slots.environments(disk.slots)) == "SLOTA"
        if env is not None and not ended and count:
            whole = slots.digest(disk.slots["SLOTB"], QUIET)[0] in (digest(NEW), digest(image("1.0")))
            assert whole or env.in_progress
        if ended:
            break
    assert ended


@pytest.mark.parametrize("cut", [0, 1, 512, 1020, 1024, 4096, bootenv.SIZE - 4, bootenv.SIZE - 1])
@pytest.mark.parametrize("act", ["arm", "commit"])
def test_a_torn_environment_is_none_and_the_good_slot_boots(disk: Disk, source: Path, monkeypatch: pytest.MonkeyPatch, cut: int, act: str) -> None:
    stage(disk, source)
    if act == "commit":
        slots.arm(disk.slots, "SLOTB", 150)
        assert disk.load() == "SLOTB"
    write = slots._write
    monkeypatch.setattr(slots, "_write", lambda fd, at, data: write(fd, at, data[:cut]))
    refused(slots.arm, disk.slots, "SLOTB", 150) if act == "arm" else refused(slots.commit, disk.slots, "SLOTB")
    monkeypatch.undo()
    assert disk.load() == "SLOTA"


def test_a_flipped_bit_is_found_by_reading_back(disk: Disk, source: Path) -> None:
    stage(disk, source)
    disk.flip("SLOTB", 100_000)
    assert slots.digest(disk.slots["SLOTB"], QUIET)[0] != digest(NEW)


# ---- as a process


@pytest.fixture
def work(disk: Disk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    monkeypatch.setattr(slots, "on_disk", lambda: disk.slots)
    monkeypatch.setattr(slotwork.device, "mounted_device", lambda: "/dev/vda4")
    monkeypatch.setattr(slotwork.Progress.__init__, "__defaults__", (str(tmp_path / "progress"),))
    return lambda op, **arguments: slotwork.answer(op, arguments)


def test_a_look_says_what_is_where(work: Callable[..., dict[str, Any]]) -> None:
    found = work("look")["ok"]
    assert found["next"] == "SLOTA"
    assert {name: slot["uki"]["build_id"] for name, slot in found["slots"].items()} == dict.fromkeys(bootenv.SLOTS, "1.0-0123456789")
    assert found["slots"]["SLOTB"]["room"] > 30 * MIB


def test_the_whole_way_by_the_process(work: Callable[..., dict[str, Any]], disk: Disk, source: Path) -> None:
    seen = work("inspect", path=str(source))["ok"]
    assert (seen["digest"], seen["file"]["version"], seen["file"]["schema"], seen["file"]["signed"]) == (digest(NEW), "2.0", 3, False)
    which = {"slot": "SLOTB", "digest": seen["digest"]}
    assert work("stage", path=str(source), **which) == {"ok": {"slot": "SLOTB"}}
    assert work("arm", watchdog_s=150, verify=True, **which) == {"ok": {"slot": "SLOTB"}}
    assert disk.load() == "SLOTB"
    assert work("verify", **which) == {"ok": {"slot": "SLOTB"}}
    assert work("commit", **which) == {"ok": {"slot": "SLOTB"}}
    assert work("look")["ok"]["next"] == "SLOTB"
    assert work("commit", **which) == {"ok": {"slot": "SLOTB"}}, "a second time, after a crash"
    assert work("favour", slot="SLOTA") == {"ok": {"slot": "SLOTA"}}
    assert work("wipe", slot="SLOTB") == {"ok": {"slot": "SLOTB"}}


@pytest.mark.parametrize("op", ["arm", "verify", "commit"])
def test_a_slot_that_is_not_as_it_was_staged_is_neither_armed_nor_committed(
    work: Callable[..., dict[str, Any]], disk: Disk, source: Path, op: str
) -> None:
    which = {"slot": "SLOTB", "digest": digest(NEW)}
    work("stage", path=str(source), **which)
    if op == "commit":
        work("arm", watchdog_s=0, verify=True, **which)
        assert disk.load() == "SLOTB"
    disk.flip("SLOTB", 200_000)
    before = disk.env("SLOTB")
    answer = work(op, **which, **({"watchdog_s": 0, "verify": True} if op == "arm" else {}))
    assert answer["damaged"]
    assert "does not hold what was staged" in answer["error"]
    assert disk.env("SLOTB") == before


@pytest.mark.parametrize("what", ["nothing", "a directory", "a fifo", "an empty file", "no UKI"])
def test_a_file_that_is_none_is_refused_and_nothing_is_written(work: Callable[..., dict[str, Any]], disk: Disk, tmp_path: Path, what: str) -> None:
    path = tmp_path / "given"
    if what == "a directory":
        path.mkdir()
    elif what == "a fifo":
        os.mkfifo(path)
    elif what != "nothing":
        path.write_bytes(b"" if what == "an empty file" else b"MZ" + bytes(5000))
    before = [disk.bytes_of(name) for name in bootenv.SLOTS]
    answer = work("inspect", path=str(path))
    assert answer["error"]
    assert [disk.bytes_of(name) for name in bootenv.SLOTS] == before


@pytest.mark.parametrize(
    ("result", "value", "why", "known"),
    [
        (Result(Ending.EXITED, 0, '{"ok": {"slot": "SLOTB"}}', "", 0, 1.0), {"slot": "SLOTB"}, "", True),
        (Result(Ending.EXITED, 0, '{"error": "no way back", "damaged": false}', "", 0, 1.0), None, "no way back", True),
        (Result(Ending.TIMED_OUT, -9, "", "", 0, 1.0), None, "timed_out after 1.0 s", False),
        (Result(Ending.EXITED, 0, "[1]", "", 0, 1.0), None, "its answer makes no sense: AttributeError", False),
        (Result(Ending.EXITED, 0, "", "", 0, 1.0), None, "its answer makes no sense: JSONDecodeError", False),
    ],
)
def test_what_the_process_says_is_taken_as_it_is_meant(result: Result, value: Any, why: str, known: bool) -> None:
    got: list[slotcalls.Answer] = []
    argvs: list[tuple[str, ...]] = []

    def run(_name: str, argv: tuple[str, ...], _deadline: float, done: Callable[[Any], None]) -> None:
        argvs.append(argv)
        done(result)

    slotcalls.call(run, "wipe", 5, got.append, slot="SLOTB")
    assert (got[0].value, got[0].why, got[0].known) == (value, why, known)
    assert argvs[0][-2:] == ("wipe", json.dumps({"slot": "SLOTB"}))


def test_the_firmware_says_whether_it_wants_signatures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slotwork, "EFI", str(tmp_path / "efi"))
    variable = tmp_path / "efi/efivars/SecureBoot"
    monkeypatch.setattr(slotwork, "SECURE_BOOT", str(variable))
    assert slotwork.secure_boot() is False, "no UEFI, no Secure Boot"
    (tmp_path / "efi").mkdir()
    assert slotwork.secure_boot() is None, "its variables cannot be had"
    variable.parent.mkdir(parents=True)
    (variable.parent / "Boot0001").write_bytes(b"x")
    assert slotwork.secure_boot() is False
    for value, wanted in ((b"\6\0\0\0\1", True), (b"\6\0\0\0\0", False)):
        variable.write_bytes(value)
        assert slotwork.secure_boot() is wanted


# ---- which disk


def plugged(top: Path, disk: str, *names: str) -> None:
    """Make what sysfs says of a disk and its partitions, by the names that its GPT gives them; of 64 MiB each, from the first one on."""
    (top / "class").mkdir(exist_ok=True)
    whole = top / "devices" / disk
    whole.mkdir(parents=True)
    (top / "class" / disk).symlink_to(whole)
    for number, name in enumerate(names, 1):
        part = whole / f"{disk}{number}"
        part.mkdir()
        (top / "class" / part.name).symlink_to(part)
        uevent = f"MAJOR=254\nDEVNAME={part.name}\nPARTN={number}\n" + (f"PARTNAME={name}\n" if name else "")
        for key, value in (("partition", number), ("start", number * 131072), ("size", 131072), ("uevent", uevent)):
            (part / key).write_text(f"{value}\n")


TWO_SLOTS = ("SPINE-ESP", "SLOTA", "SLOTB", "SPINE-PERSIST")


@pytest.mark.parametrize(
    ("disks", "mounted", "found"),
    [
        ({"vda": TWO_SLOTS}, "/dev/vda4", ["/dev/vda2", "/dev/vda3"]),
        ({"vda": TWO_SLOTS, "vdb": TWO_SLOTS}, "/dev/vdb4", ["/dev/vdb2", "/dev/vdb3"]),
        ({"vda": ("SPINE-ESP", "SPINE-PERSIST")}, "/dev/vda2", []),
        ({"vda": ("SPINE-ESP", "SLOTA", "", "SPINE-PERSIST")}, "/dev/vda4", []),
        ({"vda": TWO_SLOTS, "vdb": ()}, "/dev/vdb", []),
        ({"vda": TWO_SLOTS, "vdb": ("other",)}, "/dev/vdb1", []),
        ({"vda": TWO_SLOTS}, None, ["/dev/vda2", "/dev/vda3"]),
        ({"vda": TWO_SLOTS, "vdb": TWO_SLOTS}, None, []),
        ({}, None, []),
    ],
)
def test_the_slots_are_those_of_the_disk_of_persist_and_without_it_of_the_only_one(
    disks: dict[str, tuple[str, ...]], mounted: str | None, found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "class").mkdir()
    for disk, names in disks.items():
        plugged(tmp_path, disk, *names)
    monkeypatch.setattr(slots.device, "SYS_BLOCK", str(tmp_path / "class"))
    monkeypatch.setattr(slots.device, "mounted_device", lambda: mounted)
    got = slots.on_disk()
    assert [slot.path for slot in got.values()] == found
    if found:
        assert (got["SLOTB"].size, got["SLOTB"].hidden) == (64 * MIB, 3 * 131072)


@pytest.mark.host
@pytest.mark.skipif(not diskkit.have("mformat", "mcopy", "mdel"), reason="mtools is not installed")
@pytest.mark.parametrize("scattered", [False, True])
def test_a_slot_that_another_program_made_is_read_and_staged_anew(disk: Disk, source: Path, tmp_path: Path, scattered: bool) -> None:
    """As mformat and mcopy make it, which earlier disks have; or with its environment in two pieces."""
    path = disk.slots["SLOTB"].path
    os.truncate(path, 0)
    os.truncate(path, SIZE)
    environment = os.environ | {"MTOOLSRC": "/dev/null", "PATH": diskkit.SBIN}

    def tool(*words: object) -> None:
        done = diskkit.run(*(str(word) for word in words), env=environment)
        assert done.returncode == 0, done.stderr

    tool("mformat", "-i", path, "-F", "-v", "SLOTB", "-T", SIZE // 512, "-h", 255, "-s", 63, "::")
    env = BootEnv("C:SLOTB:spine.efi", ustate=UState.FAILED)
    for name, data in (("hole", bytes(4096)), ("wall", bytes(4096)), ("BGENV.DAT", bootenv.encode(env)), ("spine.efi", image("1.0"))):
        (tmp_path / name).write_bytes(data)
        if name in ("BGENV.DAT", "spine.efi") or scattered:
            tool("mcopy", "-i", path, tmp_path / name, "::/")
        if name == "wall" and scattered:
            tool("mdel", "-i", path, "::/hole")
    found = slots.describe(disk.slots["SLOTB"])
    assert (found["env"]["state"], found["uki"]["version"]) == ("failed", "1.0")
    assert slots.digest(disk.slots["SLOTB"], QUIET)[0] == digest(image("1.0"))
    stage(disk, source)
    slots.arm(disk.slots, "SLOTB", 0)
    assert disk.load() == "SLOTB"
