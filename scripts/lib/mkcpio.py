#!/usr/bin/env python3
"""Write the initramfs: a newc cpio whose bytes depend on its contents alone.

Usage: mkcpio.py OUT ENTRY...
  ENTRY is  dir:NAME  |  file:NAME:MODE:SOURCE  |  node:NAME:MODE:MAJOR:MINOR
Owners, times and inode numbers are fixed and device nodes need no mknod, so neither
root nor a clock has a say. The kernel's Documentation/driver-api/early-userspace/buffer-format
is the format's description.
"""

import os
import shutil
import stat
import sys
from typing import BinaryIO


def header(name: str, ino: int, mode: int, size: int, rdev: tuple[int, int] = (0, 0)) -> bytes:
    """Return the 110 bytes in front of a member, its name, and padding to four bytes."""
    fields = (ino, mode, 0, 0, 1, 0, size, 0, 0, rdev[0], rdev[1], len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return head + b"\0" * (-len(head) % 4)


def add(out: BinaryIO, ino: int, entry: str) -> None:
    """Append one member."""
    kind, name, *rest = entry.split(":")
    if kind == "dir":
        out.write(header(name, ino, stat.S_IFDIR | 0o755, 0))
    elif kind == "node":
        mode, major, minor = rest
        out.write(header(name, ino, stat.S_IFCHR | int(mode, 8), 0, (int(major), int(minor))))
    elif kind == "file":
        mode, source = rest
        size = os.path.getsize(source)
        out.write(header(name, ino, stat.S_IFREG | int(mode, 8), size))
        with open(source, "rb") as data:
            shutil.copyfileobj(data, out, 1 << 20)
        out.write(b"\0" * (-size % 4))
    else:
        raise SystemExit(f"mkcpio.py: unknown entry {entry!r}: want dir:, file: or node:")


def main(arguments: list[str]) -> None:
    """Write the archive, members sorted by name."""
    if not arguments or arguments[0].startswith("-"):
        raise SystemExit(__doc__)
    target, *entries = arguments
    entries.sort(key=lambda entry: entry.split(":")[1])
    with open(target, "wb") as out:
        for ino, entry in enumerate(entries, start=1):
            add(out, ino, entry)
        out.write(header("TRAILER!!!", 0, 0, 0))
        out.write(b"\0" * (-out.tell() % 512))


if __name__ == "__main__":
    main(sys.argv[1:])
