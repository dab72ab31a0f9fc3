"""A disk that was made larger: seen, said, and grown into by a process of its own. What the kernel makes of it: tests/vm/test_vm_mending.py."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_state_port import Bench

from bay0.base.errors import RefusedError, StorageError
from bay0.cli import doctor, report
from bay0.effects.spawn import Ending, Result
from bay0.state import device, growth, resize

SBIN = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
MKFS = shutil.which("mkfs.ext4", path=SBIN)
GIB = 1 << 30
EXTENT = {"device": "/dev/vda", "bytes": 4 * GIB, "filesystem_bytes": 2 * GIB, "unused": 2 * GIB, "behind": 0}
GROWN = {"device": "/dev/vda", "from_bytes": 2 * GIB, "to_bytes": 4 * GIB}


# ---- how large it is


@pytest.mark.skipif(MKFS is None, reason="mkfs.ext4 (Debian's e2fsprogs) is not installed")
@pytest.mark.parametrize(("options", "block"), [((), 4096), (("-b", "1024"), 1024), (("-O", "^64bit"), 4096)])
def test_the_size_of_a_filesystem_is_read_from_its_superblock(tmp_path: Path, options: tuple[str, ...], block: int) -> None:
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(600 << 20)
    subprocess.run([str(MKFS), "-q", "-F", "-b", "4096", *options, str(image)], check=True)
    found = device.superblock(str(image))
    assert (found.bytes, found.block, found.group) == (600 << 20, block, 8 * block)


def test_what_is_no_filesystem_has_no_size(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(4096))
    with pytest.raises(StorageError, match="no ext4 superblock"):
        device.superblock(str(tmp_path / "disk"))


@pytest.fixture
def disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """What sysfs says of a disk of so many MiB and its partitions (first, last MiB), and what is then found of the one that is mounted."""

    def made(name: str, filesystem: int, whole: int, **partitions: tuple[int, int]) -> dict[str, Any]:
        top = tmp_path / "devices/vda"
        top.mkdir(parents=True)
        (top / "size").write_text(f"{whole << 11}\n")
        (tmp_path / "class").mkdir()
        (tmp_path / "class/vda").symlink_to(top)
        for part, (first, last) in partitions.items():
            (top / part).mkdir()
            for key, value in (("start", first << 11), ("size", last - first << 11), ("partition", 1)):
                (top / part / key).write_text(f"{value}\n")
            (tmp_path / "class" / part).symlink_to(top / part)
        monkeypatch.setattr(device, "SYS_BLOCK", str(tmp_path / "class"))
        monkeypatch.setattr(device, "_mounted", lambda: (f"/dev/{name}", "rw"))
        monkeypatch.setattr(device, "superblock", lambda _device: device.Superblock(filesystem << 8, 4096, 32768))
        found = device.extent()
        return {key: found[key] >> 20 for key in ("bytes", "filesystem_bytes", "unused", "behind")}

    return made


def test_a_disk_that_was_made_larger_has_unused_room(disks: Callable[..., dict[str, Any]]) -> None:
    assert disks("vda", 2048, 4096) == {"bytes": 4096, "filesystem_bytes": 2048, "unused": 2048, "behind": 0}


def test_a_piece_too_small_for_a_group_is_no_room(disks: Callable[..., dict[str, Any]]) -> None:
    assert disks("vda", 2048, 2055)["unused"] == 0


def test_of_a_partition_the_room_is_behind_it(disks: Callable[..., dict[str, Any]]) -> None:
    found = disks("vda2", 1500, 4000, vda1=(1, 512), vda2=(512, 2012))
    assert (found["unused"], found["behind"]) == (0, 1988)


def test_a_partition_with_another_one_behind_it_has_no_room(disks: Callable[..., dict[str, Any]]) -> None:
    found = disks("vda1", 511, 4000, vda1=(1, 512), vda2=(512, 2012))
    assert (found["unused"], found["behind"]) == (0, 0)


def test_a_partition_that_was_enlarged_by_hand_can_be_grown_into(disks: Callable[..., dict[str, Any]]) -> None:
    assert disks("vda1", 511, 4000, vda1=(1, 2012))["unused"] == 1500


# ---- the process


def test_it_is_grown_in_steps_that_end_with_a_group_and_with_the_disk() -> None:
    for block in (1024, 4096):
        group = 8 * block
        found = list(resize.steps(device.Superblock(50_000, block, group), 5_000_001))
        assert found[-1] == 5_000_001
        assert all(size % group == 0 for size in found[:-1])
        assert max(after - before for before, after in zip([50_000, *found], found, strict=False)) * block <= resize.STEP
        assert list(resize.steps(device.Superblock(5_000_001, block, group), 5_000_001)) == []


def test_the_process_says_why_it_could_not(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_mounted", lambda: None)
    assert resize.main() == 1
    assert "nothing is mounted" in capsys.readouterr().err


# ---- PID 1's end


class Desk(Bench):
    """The real port with a played worker; the process is played too."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[tuple[Any, ...]] = []
        self.told: list[Any] = []
        self.attach()

    def grow(self, **extent: Any) -> None:
        growth.grow(self.port, lambda *words: self.ran.append(words), self.told.append)
        self.serve(extent={**EXTENT, **extent})

    def ends(self, status: int = 0, out: str = "", err: str = "", ending: Ending = Ending.EXITED) -> None:
        self.ran[-1][-1](Result(ending, status, out, err, 0, 1.0))
        self.serve()


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_larger_disk_is_grown_into_by_a_process_with_a_deadline(desk: Desk) -> None:
    desk.grow()
    name, argv, deadline_s, _ = desk.ran[0]
    assert (name, argv[-1], deadline_s) == ("grow-persist", "--grow-persist", desk.bounds.grow)
    desk.ends(out=json.dumps(GROWN))
    assert desk.told == [GROWN]
    assert not desk.port.growing


def test_of_a_partition_the_room_behind_it_is_enough(desk: Desk) -> None:
    desk.grow(device="/dev/vda4", unused=0, behind=GIB)
    assert len(desk.ran) == 1


def test_where_there_is_nothing_to_grow_into_it_says_why_and_starts_nothing(desk: Desk) -> None:
    desk.grow(unused=0)
    assert desk.ran == []
    with pytest.raises(RefusedError, match=r"make the disk larger first.*nothing was changed"):
        raise desk.told[0]
    desk.grow()
    assert len(desk.ran) == 1, "and it can be asked again"


def test_one_that_ends_early_says_that_what_was_added_stays(desk: Desk) -> None:
    desk.grow()
    desk.ends(-15, ending=Ending.TIMED_OUT)
    assert "timed_out after" in str(desk.told[0])
    assert "what was added stays" in str(desk.told[0])
    desk.grow()
    desk.ends(1, err="[Errno 1] Operation not permitted\n")
    assert "Operation not permitted" in str(desk.told[1])


def test_two_do_not_grow_at_once(desk: Desk) -> None:
    desk.grow()
    with pytest.raises(RefusedError, match="being grown already"):
        desk.grow()


def test_nothing_is_grown_while_storage_is_not_durable(desk: Desk) -> None:
    desk.wedge()
    with pytest.raises(RefusedError, match="storage is wedged; nothing was changed"):
        desk.grow()


def test_a_size_that_cannot_be_read_is_a_refusal(desk: Desk) -> None:
    growth.grow(desk.port, lambda *words: desk.ran.append(words), desk.told.append)
    desk.serve(failing={"extent": "unwritable"})
    assert "cannot be read" in str(desk.told[0])
    assert not desk.port.growing


# ---- what people are told


def test_a_larger_disk_is_said_with_the_command_that_helps() -> None:
    assert report.beyond({"unused": 0, "behind": 0}) == report.beyond({}) == []
    assert report.beyond({"unused": 2 * GIB}) == ["the disk is 2 GiB larger than its filesystem: `bay0 storage grow`"]
    assert report.beyond({"behind": GIB}) == ["1 GiB of the disk lie behind its last partition: `bay0 storage grow`"]
    room = {"bytes": GIB, "bytes_free": GIB, "bytes_for_others": GIB, "files": 100, "files_free": 100}
    found = list(doctor._room({**room, "unused": 2 * GIB, "behind": GIB}))
    assert [each.help for each in found] == ["`bay0 storage grow`"] * 2
