"""Grow the filesystem of /persist to the size of its disk, while it is used: a process of its own, `bay0 --grow-persist`.

A partition is enlarged first, into the room behind it (partition.py).

A command under the spawner's rules, since it may take minutes and the state worker answers in seconds. The kernel does the
work (ext4's EXT4_IOC_RESIZE_FS): each call is a few transactions of ext4's journal, so a power cut leaves a sound filesystem
of one size between the old and the new. It is grown in steps because ext4 holds its journal up during each, and the worker's
commits wait for that; a process that is ended in between has lost nothing. Prints what was done as JSON.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import sys
from collections.abc import Iterator

from bay0.base.errors import GptError, StorageError
from bay0.state import device, partition
from bay0.state.paths import ROOT

RESIZE_FS = 0x40086610  # linux/ext4.h: _IOW('f', 16, __u64), the new number of blocks
STEP = 512 << 20  # bytes; they bring some 8 MiB of inode tables, to be zeroed


def steps(before: device.Superblock, wanted: int) -> Iterator[int]:
    """Yield the sizes in blocks on the way to `wanted`, each but the last at the end of a group."""
    blocks, stride = before.blocks, max(1, STEP // (before.group * before.block))
    while blocks < wanted:
        blocks = min(wanted, (blocks // before.group + stride) * before.group)
        yield blocks


def grow(source: str) -> tuple[int, int]:
    """Grow the mounted filesystem on `source`; return its size in bytes before and after. `OSError` if the kernel refuses."""
    before = device.superblock(source)
    fd = os.open(ROOT, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for blocks in steps(before, device.size(source) // before.block):
            fcntl.ioctl(fd, RESIZE_FS, struct.pack("=Q", blocks))
    finally:
        os.close(fd)
    return before.bytes, device.superblock(source).bytes


def main() -> int:
    """Grow what is mounted and say how far; exit status 1 and a reason if it could not be done."""
    source = device.mounted_device()
    try:
        if source is None:
            raise StorageError("no_device", f"nothing is mounted on {ROOT}")
        partition.enlarge(source)
        before, after = grow(source)
    except (OSError, StorageError, GptError) as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps({"device": source, "from_bytes": before, "to_bytes": after}))
    return 0
