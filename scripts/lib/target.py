#!/usr/bin/env python3
"""May this disk or image file be overwritten? And what would be lost? The judge behind scripts/genesis-flash.sh.

Prints JSON: either `refused`, one sentence, or what the target is and what is on it. Opens it for reading only, but for one look whether
the kernel would give it to us alone (O_EXCL), which is how a mount or a device mapper anywhere, also in another mount namespace, is seen.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from typing import Any

SECTOR = 512
_GPT_HEADER, _GPT_ENTRY = 92, 128  # bytes, at least (UEFI specification, chapter 5)
_NO_DISK = {  # by the first letters of the kernel's name
    "dm-": "belongs to the device mapper (LVM, LUKS): name the disk below it",
    "md": "is a RAID: name a disk of it",
    "ram": "is a RAM disk", "zram": "is compressed memory", "sr": "is an optical drive", "fd": "is a floppy drive",
    "mtdblock": "is raw flash",
}  # fmt: skip


class RefusedError(Exception):
    """It must not be overwritten; the message completes 'PATH ...'."""


def human(size: int) -> str:
    """Return a size as people say it (powers of 1024)."""
    for unit, name in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} bytes"


def words(path: str) -> str:
    """Return what a small file of sysfs says, nothing if it does not."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


class Machine:
    """Block devices as /sys and /proc know them; a test may show others."""

    def __init__(self, sys_root: str, proc_root: str) -> None:
        self.block = f"{sys_root}/class/block"
        self.by_number = f"{sys_root}/dev/block"
        self.proc = proc_root

    def name(self, number: str) -> str:
        """Return the kernel's name of the block device MAJOR:MINOR. `RefusedError` if sysfs has none."""
        link = f"{self.by_number}/{number}"
        if not os.path.exists(link):
            raise RefusedError("is a block device that the kernel does not know")
        return os.path.basename(os.path.realpath(link))

    def disk_of(self, name: str) -> str:
        """Return the disk that `name` is, or is a partition of."""
        entry = os.path.realpath(f"{self.block}/{name}")
        return os.path.basename(os.path.dirname(entry)) if os.path.exists(f"{entry}/partition") else name

    def family(self, disk: str) -> list[str]:
        """Return the disk and its partitions."""
        entry = os.path.realpath(f"{self.block}/{disk}")
        return [disk, *sorted(name for name in os.listdir(entry) if os.path.exists(f"{entry}/{name}/partition"))]

    def number(self, name: str) -> str:
        """Return MAJOR:MINOR."""
        return words(f"{self.block}/{name}/dev")

    def below(self, name: str) -> set[str]:
        """Return the disks that a device stands on: of its device mapper, its RAID, its partition."""
        slaves = f"{self.block}/{name}/slaves"
        found = {self.disk_of(name)}
        for slave in os.listdir(slaves) if os.path.isdir(slaves) else ():
            found |= self.below(slave)
        return found

    def mounts(self) -> Iterator[tuple[str, str, str]]:
        """Yield MAJOR:MINOR, mount point and source of each mount."""
        for line in words(f"{self.proc}/self/mountinfo").splitlines():
            left, _, right = line.partition(" - ")
            yield left.split(" ")[2], left.split(" ")[4].replace("\\040", " "), right.split(" ")[1]

    def swaps(self) -> list[str]:
        """Return the devices and files that are swapped to."""
        return [line.split()[0] for line in words(f"{self.proc}/swaps").splitlines()[1:]]

    def loops(self) -> Iterator[tuple[str, str]]:
        """Yield the loop devices and what lies behind them."""
        for name in sorted(os.listdir(self.block)) if os.path.isdir(self.block) else ():
            backing = words(f"{self.block}/{name}/loop/backing_file")
            if backing:
                yield name, backing


# ---- what must not be overwritten


def check_disk(machine: Machine, path: str, number: str) -> str:
    """Return the kernel's name of a block device that may be overwritten. `RefusedError`."""
    name = machine.name(number)
    entry = os.path.realpath(f"{machine.block}/{name}")
    if os.path.exists(f"{entry}/partition"):
        raise RefusedError(f"is a partition: name the whole disk, /dev/{machine.disk_of(name)}")
    for start, what in _NO_DISK.items():
        if name.startswith(start):
            raise RefusedError(what)
    if re.fullmatch(r"mmcblk\d+(boot\d+|rpmb)", name):
        raise RefusedError("is a part of a flash chip that firmware keeps for itself")
    if words(f"{entry}/size") in ("", "0"):
        raise RefusedError("holds no medium")
    if words(f"{entry}/ro") == "1":
        raise RefusedError("is read-only")
    block = words(f"{entry}/queue/logical_block_size") or str(SECTOR)
    if block != str(SECTOR):
        raise RefusedError(f"has sectors of {block} bytes: only 512 are known here")
    check_use(machine, name)
    for loop, backing in machine.loops():
        if os.path.realpath(backing) == os.path.realpath(path):
            raise RefusedError(f"is in use by /dev/{loop}: detach that first (losetup -d)")
    return name


def check_use(machine: Machine, name: str) -> None:
    """Refuse a disk that is mounted, swapped to, below something, or that the running system stands on."""
    family = machine.family(name)
    numbers = {machine.number(member): member for member in family}
    root = os.stat("/").st_dev
    with contextlib.suppress(RefusedError):
        if name in machine.below(machine.name(f"{os.major(root)}:{os.minor(root)}")):
            raise _RootDiskError
    for number, point, source in machine.mounts():
        used = numbers.get(number) or (os.path.basename(os.path.realpath(source)) if source.startswith("/dev/") else "")
        if used in family:
            if point == "/":
                raise _RootDiskError
            raise RefusedError(f"is in use: {used} is mounted on {point}. Unmount it first")
    for swap in machine.swaps():
        if os.path.basename(os.path.realpath(swap)) in family:
            raise RefusedError(f"is in use: {os.path.basename(swap)} is swap. Run swapoff {swap} first")
    for member in family:
        holders = f"{machine.block}/{member}/holders"
        held = sorted(os.listdir(holders)) if os.path.isdir(holders) else []
        if held:
            raise RefusedError(f"is in use: {held[0]} stands on {member} (LVM, LUKS or RAID). Take that down first")


class _RootDiskError(Exception):
    """The running system stands on it."""


def check_exclusive(path: str) -> None:
    """Refuse a block device that the kernel does not give to us alone."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise RefusedError("is in use: the kernel does not give it to us alone. Something holds it, perhaps in a container") from error
        raise RefusedError(f"cannot be opened for writing ({error.strerror}): root may, or whoever owns it") from error


def check_file(machine: Machine, path: str, inputs: list[str]) -> None:
    """Refuse an image file that something uses, or that is one of our own inputs."""
    for given in inputs:
        if os.path.exists(given) and os.path.samefile(given, path):
            raise RefusedError("is what would be written: name another file as the target")
    for loop, backing in machine.loops():
        if os.path.realpath(backing) == os.path.realpath(path):
            raise RefusedError(f"is in use by /dev/{loop}: detach that first (losetup -d)")
    if os.path.realpath(path) in map(os.path.realpath, machine.swaps()):
        raise RefusedError("is in use as swap")
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise RefusedError(f"cannot be opened for writing ({error.strerror})") from error
    try:
        if not os.access(path, os.W_OK) or not os.stat(path).st_mode & 0o222:
            raise RefusedError("is write-protected (chmod u+w, if you mean it)")
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # QEMU locks the images of its guests
    except OSError as error:
        raise RefusedError("is in use: another program holds a lock on it, perhaps a VM that runs from it") from error
    finally:
        os.close(file)


# ---- what would be lost


def partitions(path: str) -> list[dict[str, Any]]:
    """Return the partitions that a disk's GPT or MBR names; nothing if it cannot be read."""
    try:
        with open(path, "rb") as disk:
            start = disk.read(34 * SECTOR)
    except OSError:
        return []
    header = start[SECTOR : 2 * SECTOR]
    if header[:8] == b"EFI PART" and _whole(header):
        size = struct.unpack_from("<I", header, 84)[0]
        entries = (start[at : at + size] for at in range(2 * SECTOR, len(start) - size + 1, size))
        return [_gpt_entry(number, entry) for number, entry in enumerate(entries, 1) if entry[:16] != bytes(16)]
    if start[510:512] != b"\x55\xaa":
        return []
    found = []
    for number in range(1, 5):
        status, kind, first, count = struct.unpack_from("<B3xB3xII", start, 446 + (number - 1) * 16)
        if status & 0x7F:
            return []  # code of another kind of boot sector, not a table
        if kind:
            found.append({"number": number, "start": first * SECTOR, "bytes": count * SECTOR, "name": f"type {kind:02x}"})
    return found


def _whole(header: bytes) -> bool:
    size, crc = struct.unpack_from("<II", header, 12)
    fits = _GPT_HEADER <= size <= SECTOR and struct.unpack_from("<I", header, 84)[0] >= _GPT_ENTRY
    return fits and zlib.crc32(header[:16] + bytes(4) + header[20:size]) == crc


def _gpt_entry(number: int, entry: bytes) -> dict[str, Any]:
    first, last = struct.unpack_from("<QQ", entry, 32)
    name = entry[56:128].decode("utf-16-le", "replace").split("\0")[0]
    return {"number": number, "start": first * SECTOR, "bytes": (last - first + 1) * SECTOR, "name": name}


def probe(path: str, start: int, size: int) -> dict[str, str]:
    """Return TYPE and LABEL of what begins at an offset, as far as blkid is here and knows it."""
    tool = shutil.which("blkid", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if tool is None:
        return {}
    argv = [tool, "-p", "-o", "export", "-O", str(start), *(("-S", str(size)) if size else ()), path]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=30, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    pairs = (line.partition("=") for line in done.stdout.splitlines())
    return {key: value for key, _, value in pairs if key in ("TYPE", "LABEL")}


def contents(path: str) -> list[str]:
    """Return lines that tell what is on it."""
    found = partitions(path)
    lines = []
    for part in found:
        known = probe(path, part["start"], part["bytes"])
        kind, label = known.get("TYPE", "unknown content"), known.get("LABEL")
        named = f" \"{part['name']}\"" if part["name"] else ""
        lines.append(f"partition {part['number']}{named}: {human(part['bytes'])}, {kind}" + (f" labelled {label}" if label else ""))
    if found:
        return lines
    whole = probe(path, 0, 0)
    if "TYPE" in whole:
        label = f" labelled {whole['LABEL']}" if "LABEL" in whole else ""
        return [f"no partitions; {whole['TYPE']}{label}"]
    return ["no partitions and no filesystem that is known"]


def resolve(given: str) -> str:
    """Return the path that is meant. `RefusedError` for a symbolic link that is not one of udev's."""
    path = os.path.abspath(given)
    if os.path.islink(path):
        target = os.path.realpath(path)
        if not path.startswith(("/dev/disk/", "/dev/mapper/")):
            raise RefusedError(f"is a symbolic link to {target}: name that itself")
        return target
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def judge(options: argparse.Namespace) -> dict[str, Any]:
    """Return what the target is. `RefusedError`."""
    machine = Machine(options.sys, options.proc)
    path = resolve(options.path)
    try:
        mode = os.stat(path)
    except OSError as error:
        raise RefusedError(f"cannot be looked at ({error.strerror}). A new image file takes --size") from error
    facts: dict[str, Any] = {"path": path}
    if stat.S_ISBLK(mode.st_mode) or options.number:
        number = options.number or f"{os.major(mode.st_rdev)}:{os.minor(mode.st_rdev)}"
        name = check_disk(machine, path, number)
        entry = os.path.realpath(f"{machine.block}/{name}")
        model = " ".join(filter(None, (words(f"{entry}/device/vendor"), words(f"{entry}/device/model")))) or "no model stated"
        kind = "removable" if words(f"{entry}/removable") == "1" else "built in"
        facts |= {"kind": "disk", "bytes": int(words(f"{entry}/size")) * SECTOR, "model": f"{model}, {kind}"}
    elif stat.S_ISREG(mode.st_mode):
        check_file(machine, path, options.input)
        facts |= {"kind": "image", "bytes": mode.st_size, "model": "an image file"}
    else:
        what = "a directory" if stat.S_ISDIR(mode.st_mode) else "neither a disk nor a file"
        raise RefusedError(f"is {what}: name a whole disk, or an image file")
    if facts["bytes"] % SECTOR:
        raise RefusedError("is not a whole number of sectors long")
    if facts["bytes"] < options.least:
        raise RefusedError(f"is too small: {human(facts['bytes'])}, and {human(options.least)} are needed")
    if stat.S_ISBLK(mode.st_mode):
        check_exclusive(path)
    return facts | {"size": human(facts["bytes"]), "contents": contents(path)}


def main() -> int:
    """Judge; the verdict is JSON, or with --lines for a shell: path, kind, bytes, then text for people."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path")
    parser.add_argument("--least", type=int, default=0, help="bytes that are needed")
    parser.add_argument("--input", action="append", default=[], help="a file that must not be the target")
    parser.add_argument("--sys", default="/sys")
    parser.add_argument("--proc", default="/proc")
    parser.add_argument("--number", help="judge it as the block device MAJOR:MINOR of --sys; nothing can be written then (for tests)")
    parser.add_argument("--lines", action="store_true")
    options = parser.parse_args()
    try:
        facts = judge(options)
    except _RootDiskError:
        facts = {"refused": f"{options.path} holds the system that is running"}
    except RefusedError as error:
        facts = {"refused": f"{options.path} {error}"}
    if not options.lines:
        json.dump(facts, sys.stdout, indent=1)
        print()
    elif "refused" in facts:
        print(facts["refused"])
    else:
        about = [f"{facts['path']}: {facts['size']}, {facts['model']}", *facts["contents"]]
        print("\n".join([facts["path"], facts["kind"], str(facts["bytes"]), *about]))
    return 1 if "refused" in facts else 0


if __name__ == "__main__":
    sys.exit(main())
