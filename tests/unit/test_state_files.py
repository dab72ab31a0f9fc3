"""The genesis log and the persist disk: what the state worker does with files and devices."""

from __future__ import annotations

import errno
import io
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bay0.base.errors import StorageError
from bay0.state import device, genesis, paths

MKFS = shutil.which("mkfs.ext4", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


# ---- the genesis log


def test_lines_are_appended(tmp_path: Path) -> None:
    path = str(tmp_path / "genesis.log")
    genesis.append(path, ["one", "two"])
    genesis.append(path, ["thrée"])
    assert Path(path).read_text() == "one\ntwo\nthrée\n"
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_each_append_is_made_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    real_write, real_fsync = os.write, os.fsync
    monkeypatch.setattr(os, "write", lambda fd, data: (order.append("write"), real_write(fd, data))[1])
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("fsync"), real_fsync(fd))[1])
    genesis.append(str(tmp_path / "g"), ["x"])
    assert order == ["write", "fsync"]


def test_the_log_is_bounded_and_one_older_one_is_kept(tmp_path: Path) -> None:
    path = str(tmp_path / "genesis.log")
    for number in range(200):
        genesis.append(path, [f"line {number:04}"], limit=500)
    assert sorted(os.listdir(tmp_path)) == ["genesis.log", "genesis.log.1"]
    assert all(os.path.getsize(tmp_path / name) <= 500 for name in os.listdir(tmp_path))
    lines = Path(path + ".1").read_text().splitlines() + Path(path).read_text().splitlines()
    assert lines[-1] == "line 0199"
    assert lines == [f"line {number:04}" for number in range(200 - len(lines), 200)]


def test_the_tail_is_the_last_lines(tmp_path: Path) -> None:
    path = str(tmp_path / "genesis.log")
    assert genesis.tail(path, 5) == []
    genesis.append(path, [f"line {number}" for number in range(100)])
    assert genesis.tail(path, 3) == ["line 97", "line 98", "line 99"]
    assert len(genesis.tail(path, 1000)) == 100


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        genesis.append(str(tmp_path / "g"), ["x" * 100], limit=300)
    assert len(os.listdir("/proc/self/fd")) == before


# ---- labels


def superblock(label: bytes, magic: bytes = b"\x53\xef") -> bytes:
    block = bytearray(1024)
    block[0x38:0x3A] = magic
    block[0x78 : 0x78 + len(label)] = label
    return bytes(1024) + bytes(block)


def test_a_label_is_read_from_the_superblock(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(superblock(b"SPINE-PERSIST"))
    assert device.label_of(str(disk)) == paths.LABEL
    disk.write_bytes(superblock(b"sixteen-bytes-xx"))
    assert device.label_of(str(disk)) == "sixteen-bytes-xx"


@pytest.mark.parametrize("content", [b"", b"x" * 512, bytes(4096), superblock(b"SPINE-PERSIST", magic=b"\0\0"), superblock(b"x")[:1040]])
def test_what_is_no_ext4_has_no_label(tmp_path: Path, content: bytes) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(content)
    assert device.label_of(str(disk)) is None


def test_a_disk_that_cannot_be_read_has_no_label(tmp_path: Path) -> None:
    assert device.label_of(str(tmp_path / "none")) is None
    assert device.label_of(str(tmp_path)) is None


@pytest.mark.skipif(MKFS is None, reason="mkfs.ext4 (Debian's e2fsprogs) is not installed")
@pytest.mark.parametrize("label", ["SPINE-PERSIST", "other", ""])
def test_the_label_of_a_real_ext4_is_the_one_mkfs_wrote(tmp_path: Path, label: str) -> None:
    disk = tmp_path / "disk"
    with open(disk, "wb") as file:
        file.truncate(8 << 20)
    subprocess.run([str(MKFS), "-q", "-L", label, str(disk)], check=True)
    assert device.label_of(str(disk)) == label


# ---- which device


@pytest.fixture
def disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Plain files play the disks: `disks(vda="label", sda=None)`."""
    block, dev = tmp_path / "block", tmp_path / "dev"
    block.mkdir()
    dev.mkdir()
    monkeypatch.setattr(device, "SYS_BLOCK", str(block))
    monkeypatch.setattr(device, "FALLBACK_DEVICE", str(dev / "vda"))
    monkeypatch.setattr(device, "APPEAR_S", 0.2)

    def make(**labels: str | None) -> Path:
        for name, label in labels.items():
            (block / name).touch()
            (dev / name).write_bytes(bytes(2048) if label is None else superblock(label.encode()))
        return dev

    real = device.label_of
    monkeypatch.setattr(device, "label_of", lambda path: real(path.replace("/dev/", f"{dev}/")))
    real_find = device._candidates
    monkeypatch.setattr(
        device, "_candidates", lambda wanted: [name.replace("/dev/", f"{dev}/") if name.startswith("/dev/") else name for name in real_find(wanted)]
    )
    return make


def test_labelled_disks_come_first_then_the_fallback(disks: Callable[..., Path]) -> None:
    dev = disks(vda=None, vdb="SPINE-PERSIST", sda1="SPINE-PERSIST", sdb="other", loop0="SPINE-PERSIST", ram0="SPINE-PERSIST")
    assert device.find(None) == [f"{dev}/sda1", f"{dev}/vdb", f"{dev}/vda"]


def test_a_fallback_that_is_labelled_is_tried_once(disks: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    dev = disks(vda="SPINE-PERSIST")
    monkeypatch.setattr(device, "FALLBACK_DEVICE", "/dev/vda")
    assert f"{dev}/vda" in device.find(None)
    assert len([name for name in device.find(None) if name.endswith("vda")]) == 1


def test_the_command_lines_device_is_the_only_one(disks: Callable[..., Path]) -> None:
    dev = disks(vda="SPINE-PERSIST", vdb=None)
    assert device.find(f"{dev}/vdb") == [f"{dev}/vdb"]


def test_a_stick_is_waited_for_longer_than_a_disk_that_is_not_there(
    disks: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dev = disks()
    monkeypatch.setattr(device, "USB", str(tmp_path / "usb"))
    (tmp_path / "usb").mkdir()
    threading.Timer(0.5, lambda: disks_make(tmp_path, dev)).start()
    for name in ("usb1", "1-0:1.0"):  # the host's own hub: nothing is plugged in
        (tmp_path / "usb" / name).touch()
    with pytest.raises(StorageError):
        device.find(None)
    (tmp_path / "usb" / "1-3").touch()
    assert device.find(None) == [f"{dev}/sda2"]


def disks_make(tmp_path: Path, dev: Path) -> None:
    (dev / "sda2").write_bytes(superblock(b"SPINE-PERSIST"))
    (tmp_path / "block" / "sda2").touch()


def test_no_disk_is_said_after_a_short_wait(disks: Callable[..., Path]) -> None:
    disks()
    with pytest.raises(StorageError, match=r"no disk labelled SPINE-PERSIST, and no .*vda") as error:
        device.find(None)
    assert error.value.code == "no_device"
    with pytest.raises(StorageError, match="no disk /dev/none-such"):
        device.find("/dev/none-such")


def test_a_disk_that_shows_up_within_the_wait_is_taken(disks: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device.time, "sleep", lambda _s: disks(vdb="SPINE-PERSIST"))
    monkeypatch.setattr(device, "APPEAR_S", 5.0)
    disks()
    assert device.find(None)[0].endswith("vdb")


def test_none_means_none() -> None:
    with pytest.raises(StorageError, match="persist=none") as error:
        device.find("none")
    assert error.value.code == "no_device"


# ---- mounting


class Kernel:
    """Plays mount(2), umount2(2) and /proc/self/mountinfo."""

    def __init__(self, mounted: list[tuple[str, str, str]] | None = None, bad: tuple[str, ...] = (), busy: tuple[str, ...] = ()) -> None:
        self.mounted = mounted or []
        self.bad, self.busy = bad, busy
        self.calls: list[str] = []

    def mount(self, source: str, target: str, _kind: str, flags: int = 0, options: str = "") -> None:
        self.calls.append(f"mount {source} {target} {flags:#x} {options}".strip())
        if source in self.bad:
            raise OSError(22, "Invalid argument")
        if source == "none":
            self.mounted = [(s, t, "ro") if t == target else (s, t, o) for s, t, o in self.mounted]
        else:
            self.mounted.append((source, target, "rw"))

    def umount(self, target: str, _flags: int = 0) -> None:
        self.calls.append(f"umount {target}")
        if target in self.busy:
            raise OSError(16, "Device or resource busy")
        self.mounted = [line for line in self.mounted if line[1] != target]

    def open(self, _path: str, **_more: Any) -> io.StringIO:
        lines = ["22 1 0:20 / / ro - erofs /dev/loop0 ro\n"]
        lines += [f"36 22 254:0 / {t} {o},noatime shared:1 - ext4 {s} {o},errors=remount-ro\n" for s, t, o in self.mounted]
        return io.StringIO("".join(lines))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Kernel]:
    monkeypatch.setattr(device, "SYS_EXT4", "/nowhere")  # this machine may have a vda of its own

    def install(*args: Any, **kwargs: Any) -> Kernel:
        played = Kernel(*args, **kwargs)
        monkeypatch.setattr(device, "mount", played.mount)
        monkeypatch.setattr(device, "umount", played.umount)
        monkeypatch.setattr(device, "open", played.open, raising=False)
        return played

    return install


def test_the_first_disk_that_mounts_is_taken(kernel: Callable[..., Kernel]) -> None:
    played = kernel(bad=("/dev/vdb",))
    assert device.mount_first(["/dev/vdb", "/dev/vda", "/dev/vdc"]) == "/dev/vda"
    assert [call.split()[1] for call in played.calls] == ["/dev/vdb", "/dev/vda"]
    assert played.calls[-1] == f"mount /dev/vda {paths.ROOT} 0x406 {device.OPTIONS}"


def test_when_none_mounts_each_reason_is_said(kernel: Callable[..., Kernel]) -> None:
    kernel(bad=("/dev/vda", "/dev/vdb"))
    with pytest.raises(StorageError, match="/dev/vda: Invalid argument; /dev/vdb: Invalid argument") as error:
        device.mount_first(["/dev/vda", "/dev/vdb"])
    assert error.value.code == "unmountable"


def test_what_is_mounted_and_writable_stays(kernel: Callable[..., Kernel]) -> None:
    """An abandoned worker's mount may appear after all; the next worker takes it."""
    played = kernel([("/dev/vdx", paths.ROOT, "rw")])
    assert device.mount_first(["/dev/vda"]) == "/dev/vdx"
    assert played.calls == []


def test_what_is_mounted_read_only_is_mounted_anew(kernel: Callable[..., Kernel]) -> None:
    played = kernel([("/dev/vda", paths.ROOT, "ro")])
    assert device.mount_first(["/dev/vda"]) == "/dev/vda"
    assert [call.split()[0] for call in played.calls] == ["umount", "mount"]


def test_a_read_only_mount_that_somebody_holds_is_said_to_be_busy(kernel: Callable[..., Kernel]) -> None:
    kernel([("/dev/vda", paths.ROOT, "ro")], busy=(paths.ROOT,))
    with pytest.raises(StorageError, match="read-only and busy") as error:
        device.mount_first(["/dev/vda"])
    assert error.value.code == "busy"


def test_what_a_container_left_mounted_on_a_dead_filesystem_does_not_hold_it(kernel: Callable[..., Kernel]) -> None:
    played = kernel([("/dev/vda", paths.ROOT, "rw,shutdown"), ("overlay", f"{paths.ROOT}/containers/merged", "rw")])
    assert device.mount_first(["/dev/vda"]) == "/dev/vda"
    assert [call.split()[0] for call in played.calls] == ["umount", "umount", "mount"]


def test_nested_mounts_go_before_what_they_stand_on(kernel: Callable[..., Kernel]) -> None:
    root = paths.ROOT
    played = kernel(
        [("/dev/vda", root, "rw"), ("overlay", f"{root}/spine/a", "rw"), ("overlay", f"{root}/spine/a/b", "rw"), ("tmpfs", f"{root}ent", "rw")]
    )
    device.unmount()
    assert played.calls == [f"umount {root}/spine/a/b", f"umount {root}/spine/a", f"umount {root}"]
    assert played.mounted == [("tmpfs", f"{root}ent", "rw")]


def test_what_cannot_be_unmounted_becomes_read_only(kernel: Callable[..., Kernel]) -> None:
    played = kernel([("/dev/vda", paths.ROOT, "rw")], busy=(paths.ROOT,))
    device.unmount()
    assert played.calls[-1] == f"mount none {paths.ROOT} 0x21"
    assert played.mounted == [("/dev/vda", paths.ROOT, "ro")]


@pytest.fixture
def sysfs(kernel: Callable[..., Kernel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "vda").mkdir()
    monkeypatch.setattr(device, "SYS_EXT4", str(tmp_path))
    monkeypatch.setattr(device, "RELEASED_S", 0.1)
    return tmp_path


def test_what_somebody_elses_namespace_keeps_alive_becomes_read_only_for_all(kernel: Callable[..., Kernel], sysfs: Path) -> None:
    played = kernel([("/dev/vda", paths.ROOT, "rw")])
    device.unmount()
    assert (sysfs / "vda").exists()
    assert played.calls == [f"umount {paths.ROOT}", f"mount /dev/vda {paths.ROOT} 0x406", f"mount none {paths.ROOT} 0x21"]


def test_what_the_kernel_lets_go_a_moment_later_stays_unmounted(
    kernel: Callable[..., Kernel], sysfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = kernel([("/dev/vda", paths.ROOT, "rw")])
    monkeypatch.setattr(device.time, "sleep", lambda _seconds: (sysfs / "vda").rmdir())
    device.unmount()
    assert played.calls == [f"umount {paths.ROOT}"]


def test_the_end_of_another_namespace_is_waited_for_until_the_disk_is_free(
    kernel: Callable[..., Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its filesystem has left sysfs, and its journal has not been ended yet."""
    kernel([("/dev/vda", paths.ROOT, "rw")])
    slept: list[float] = []
    real = os.open

    def held(path: Any, flags: int, *more: Any, **words: Any) -> int:
        if path != "/dev/vda":
            return real(path, flags, *more, **words)
        if flags & os.O_EXCL and len(slept) < 3:
            raise OSError(errno.EBUSY, "it is in use")
        return real("/dev/null", os.O_RDONLY)

    with monkeypatch.context() as patch:
        patch.setattr(device.time, "sleep", slept.append)
        patch.setattr(device.os, "open", held)
        device.unmount()
    assert len(slept) == 3


def test_without_a_mount_there_is_nothing_to_unmount(kernel: Callable[..., Kernel]) -> None:
    played = kernel()
    device.unmount()
    assert played.calls == []
