"""Find the persist disk and mount it. Runs in the state worker: every call here may hang on a dead disk."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from typing import Any

from attrs import frozen

from bay0.base.errors import StorageError
from bay0.base.syscalls import MS_NODEV, MS_NOSUID, ioprio_get, mount, umount
from bay0.state import files
from bay0.state.paths import FALLBACK_DEVICE, LABEL, ROOT, SPINE

MS_NOATIME = 0x400
FLAGS = MS_NOATIME | MS_NOSUID | MS_NODEV  # whoever writes the disk elsewhere must not gain rights or devices here
SYS_BLOCK = "/sys/class/block"
OPTIONS = "errors=remount-ro,journal_ioprio=0"  # a sync waits for ext4's journal thread: it goes before any persona's writes
SYS_EXT4 = "/sys/fs/ext4"  # a directory for each that is in use
RELEASED_S = 0.5
SCHEDULER = "mq-deadline"
IOPRIO = ("none", "real-time", "best-effort", "idle")
APPEAR_S = 0.5  # how long a disk may take to show up when none is there
USB_APPEAR_S = 1.7  # and one on USB, where something is plugged in; within the bound of `find`
USB = "/sys/bus/usb/devices"
SECTOR = 512  # bytes, the unit of sysfs whatever the disk's own is
WORTH_GROWING = 16 << 20  # bytes
INCOMPAT_64BIT = 0x80
# ext4 superblock (kernel: Documentation/filesystems/ext4/super.rst), relative to the device's start
_SUPER, _MAGIC_AT, _MAGIC, _LABEL_AT, _LABEL_LEN = 1024, 0x38, b"\x53\xef", 0x78, 16


def label_of(device: str) -> str | None:
    """Return the ext4 label of `device`, or None if it is not ext4 or cannot be read."""
    try:
        with open(device, "rb", buffering=0) as disk:
            disk.seek(_SUPER)
            block = disk.read(1024)
    except OSError:
        return None
    if block[_MAGIC_AT : _MAGIC_AT + 2] != _MAGIC:
        return None
    return block[_LABEL_AT : _LABEL_AT + _LABEL_LEN].split(b"\0")[0].decode("utf-8", "replace")


def find(wanted: str | None) -> list[str]:
    """Return the devices to try, best first: `bay0.persist=`, else those labelled SPINE-PERSIST, else /dev/vda.

    `StorageError("no_device")` if there is none.
    """
    if wanted == "none":
        raise StorageError("no_device", "bay0.persist=none")
    begin = time.monotonic()
    while True:
        found = _candidates(wanted)
        if found:
            return found
        if time.monotonic() - begin > (USB_APPEAR_S if _usb() else APPEAR_S):
            what = wanted or f"labelled {LABEL}, and no {FALLBACK_DEVICE}"
            raise StorageError("no_device", f"no disk {what}")
        time.sleep(0.05)


def _usb() -> bool:
    """Tell whether anything is plugged into USB; a host's own hubs are called usb1, usb2 ..."""
    try:
        return any(name[0].isdigit() and ":" not in name for name in os.listdir(USB))
    except OSError:
        return False


def _candidates(wanted: str | None) -> list[str]:
    if wanted is not None:
        return [wanted] if os.path.exists(wanted) else []
    devices = [f"/dev/{name}" for name in sorted(os.listdir(SYS_BLOCK)) if not name.startswith(("loop", "ram", "zram"))]
    labelled = [device for device in devices if label_of(device) == LABEL]
    if os.path.exists(FALLBACK_DEVICE) and FALLBACK_DEVICE not in labelled:
        labelled.append(FALLBACK_DEVICE)
    return labelled


def mount_first(devices: list[str]) -> str:
    """Mount the first of `devices` that mounts; return it. What is mounted and writable already stays."""
    current = _mounted()
    if current is not None:
        device, options = current
        words = options.split(",")
        # since Linux 6.12 ext4 stays "rw" in name after errors=remount-ro, and says emergency_ro or shutdown instead
        if "rw" in words and not {"emergency_ro", "shutdown"} & set(words):
            return device
        _unmount_readonly()
    failures = []
    for device in devices:
        try:
            mount(device, ROOT, "ext4", FLAGS, OPTIONS)
        except OSError as error:
            failures.append(f"{device}: {error.strerror}")
        else:
            return device
    raise StorageError("unmountable", "no disk could be mounted: " + "; ".join(failures))


def prefer(device: str) -> dict[str, Any]:
    """Let the disk's scheduler put us first; tell which one it has now, and our own priority.

    With `none`, the default of fast disks, nobody's priority means anything. The kernel waits for the disk when it changes.
    """
    try:
        path = _scheduler_of(device)
        with open(path, encoding="ascii") as listing:
            offered = listing.read()
        if SCHEDULER in offered.split():  # the one in use stands in brackets
            with open(path, "w", encoding="ascii") as choice:
                choice.write(SCHEDULER)
            with open(path, encoding="ascii") as listing:
                offered = listing.read()
        current = offered.partition("[")[2].partition("]")[0] or offered.strip()  # one alone has no brackets
    except OSError as error:
        current = f"unknown: {error.strerror}"
    return {"scheduler": current, "priority": IOPRIO[ioprio_get()[0]], "level": ioprio_get()[1]}


def _scheduler_of(device: str) -> str:
    """Return the file of the disk that `device` is, or is a partition of."""
    entry = os.path.realpath(f"{SYS_BLOCK}/{os.path.basename(device)}")
    whole = os.path.dirname(entry) if os.path.exists(f"{entry}/partition") else entry
    return f"{whole}/queue/scheduler"


def prepare() -> None:
    """Make the spine's own directory."""
    files.directory(SPINE, 0o700, anew=False)


def room(where: int | str | None = None) -> dict[str, int]:
    """Return the filesystem's size in bytes, what is free for the spine and what for everybody else; and the same of files.

    statvfs(3): the kernel has these numbers in memory: the disk is not asked.
    """
    found = os.statvfs(ROOT if where is None else where)
    return {
        "bytes": found.f_blocks * found.f_frsize, "bytes_free": found.f_bfree * found.f_frsize, "bytes_for_others": found.f_bavail * found.f_frsize,
        "files": found.f_files, "files_free": found.f_favail,
    }  # fmt: skip


@frozen
class Superblock:
    """What an ext4 filesystem says of its own size."""

    blocks: int
    block: int  # bytes of one
    group: int  # blocks of a group

    @property
    def bytes(self) -> int:
        """Its size."""
        return self.blocks * self.block


def superblock(device: str) -> Superblock:
    """Read the size of the filesystem on `device`. Of one that is mounted the kernel keeps this block in memory."""
    with open(device, "rb", buffering=0) as disk:
        disk.seek(_SUPER)
        data = disk.read(1024)
    if data[_MAGIC_AT : _MAGIC_AT + 2] != _MAGIC:
        raise StorageError("damaged", f"{device} has no ext4 superblock")
    low, log, group, incompat, high = (int.from_bytes(data[at : at + 4], "little") for at in (0x4, 0x18, 0x20, 0x60, 0x150))
    return Superblock(low + (high << 32 if incompat & INCOMPAT_64BIT else 0), 1024 << log, group)


def size(device: str) -> int:
    """Return the size of a block device in bytes, as the kernel knows it now."""
    return _sectors(_entry(device), "size") * SECTOR


def extent() -> dict[str, Any]:
    """Return the mounted device, its size and its filesystem's, and what of the disk is used by neither.

    `unused`: bytes of the device that the filesystem does not reach; `behind`: of a partition, bytes of its disk that no
    partition reaches. Less than `WORTH_GROWING` is nothing: a filesystem may leave a piece too small for a group, and a
    partition table has a copy at the disk's end.
    """
    source = mounted_device()
    if source is None:
        raise StorageError("no_device", f"nothing is mounted on {ROOT}")
    entry, total, filesystem = _entry(source), size(source), superblock(source).bytes
    behind = _behind(entry) if os.path.exists(f"{entry}/partition") else 0
    spare = {key: n if n >= WORTH_GROWING else 0 for key, n in (("unused", total - filesystem), ("behind", behind))}
    return {"device": source, "bytes": total, "filesystem_bytes": filesystem, **spare}


@frozen
class Place:
    """Where a partition is: its disk's device, its number on it, the disk's sectors and its own start, both in bytes."""

    disk: str
    number: int
    sector: int
    start: int


def partition(device: str) -> Place | None:
    """Return where a partition is, as the kernel has it; None of a whole disk."""
    entry = _entry(device)
    if not os.path.exists(f"{entry}/partition"):
        return None
    whole = os.path.dirname(entry)
    sector = _sectors(f"{whole}/queue", "logical_block_size")
    return Place(f"/dev/{os.path.basename(whole)}", _sectors(entry, "partition"), sector, _sectors(entry, "start") * SECTOR)


def _behind(entry: str) -> int:
    """Return how much of a disk is left behind the partition at `entry`; 0 if another one comes after it."""
    whole = os.path.dirname(entry)
    ends = {name: _sectors(f"{whole}/{name}", "start") + _sectors(f"{whole}/{name}", "size") for name in _partitions(whole)}
    ours = ends[os.path.basename(entry)]
    return (_sectors(whole, "size") - ours) * SECTOR if ours == max(ends.values()) else 0


def _partitions(whole: str) -> list[str]:
    return [name for name in os.listdir(whole) if os.path.exists(f"{whole}/{name}/partition")]


def _entry(device: str) -> str:
    """Return the kernel's directory of a block device; that of a partition is below its disk's."""
    return os.path.realpath(f"{SYS_BLOCK}/{os.path.basename(os.path.realpath(device))}")


def _sectors(entry: str, name: str) -> int:
    with open(f"{entry}/{name}", encoding="ascii") as file:
        return int(file.read())


def mounted_device() -> str | None:
    """Return the device that is mounted on /persist."""
    mounted = _mounted()
    return None if mounted is None else mounted[0]


def _mounted() -> tuple[str, str] | None:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as info:
        for line in info:
            left, _, right = line.rstrip("\n").partition(" - ")
            if left.split(" ")[4] == ROOT:
                _, source, options = right.split(" ", 2)
                return source, options
    return None


def _unmount_readonly() -> None:
    """Unmount what is below /persist and then /persist, so that it can be mounted anew. `StorageError("busy")` while somebody holds it."""
    _unmount_below()
    try:
        umount(ROOT)
    except OSError as error:
        why = f"{ROOT} is read-only and busy ({error.strerror}): personas on it are ended; if it stays so, power off and check the disk"
        raise StorageError("busy", why) from error


def _unmount_below() -> None:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as info:
        below = [point for line in info if (point := line.split(" ")[4]).startswith(ROOT + "/")]
    for point in sorted(below, key=len, reverse=True):
        with contextlib.suppress(OSError):
            umount(point)


def unmount() -> None:
    """Unmount what is nested below /persist, innermost first, then /persist; read-only is the second best.

    Another mount namespace (of a container's process that is not quite gone) keeps the filesystem alive when it is unmounted here, and then it is not
    clean. It is mounted once more, since read-only is a matter of the whole filesystem.
    """
    _unmount_below()
    mounted = _mounted()
    if mounted is not None:
        with contextlib.suppress(OSError):
            umount(ROOT)
        if _mounted() is None and _lives(mounted[0]):
            with contextlib.suppress(OSError):
                mount(mounted[0], ROOT, "ext4", FLAGS, "")
    if _mounted() is not None:
        mount("none", ROOT, "", 0x20 | 0x1, "")  # MS_REMOUNT | MS_RDONLY: the filesystem is clean after it


def _lives(device: str) -> bool:
    """Tell whether the kernel has the filesystem still, `RELEASED_S` after it was unmounted (Documentation/ABI/testing/sysfs-fs-ext4)."""
    end = time.monotonic() + RELEASED_S
    while os.path.exists(f"{SYS_EXT4}/{os.path.basename(os.path.realpath(device))}"):
        if time.monotonic() > end:
            return True
        time.sleep(0.02)
    _wait_until_free(device)
    return False


def _wait_until_free(device: str) -> None:
    """Wait, `RELEASED_S` at most, until the kernel has let a disk go: the end of another mount namespace may be what closes the filesystem.

    It leaves sysfs as the first thing of its end (fs/ext4/super.c, ext4_put_super), its journal is ended after that. Without that
    time a power-off overtook it, and the next boot had a journal to replay. The disk can be opened exclusively once all is done.
    """
    end = time.monotonic() + RELEASED_S
    while time.monotonic() < end:
        try:
            os.close(os.open(device, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC | os.O_NONBLOCK))
        except OSError as error:
            if error.errno != errno.EBUSY:
                return
            time.sleep(0.01)
        else:
            return
