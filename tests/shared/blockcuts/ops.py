"""A log of what a disk was told to do, in that order.

The format is dm-log-writes (kernel: Documentation/admin-guide/device-mapper/log-writes.rst), as QEMU's driver `blklogwrites` writes it:
a superblock, then an entry for each request, its data behind it, all in units of the log's sector.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Sequence

from attrs import frozen

MAGIC, VERSION = 0x6A736677736872, 1
FLUSH_FLAG, FUA_FLAG, DISCARD_FLAG, MARK_FLAG = 1, 2, 4, 8
_SUPER, _ENTRY = struct.Struct("<QQQI"), struct.Struct("<QQQQ")
MAX_ENTRIES = 1 << 22


@frozen(eq=False)
class Write:
    """Bytes that were written. `settled`: the request itself was answered only once they were on the disk (FUA)."""

    offset: int
    data: memoryview
    settled: bool = False


@frozen(eq=False)
class Discard:
    """Bytes that nobody wants any more; they may read as zeros from now on, or as they were."""

    offset: int
    length: int


@frozen(eq=False)
class Flush:
    """All that was answered before is on the disk."""


Op = Write | Discard | Flush


class LogError(Exception):
    """Not a log of this format; says why."""


def read(path: str) -> list[Op]:
    """Return what a log tells. The data stays in the file, which is mapped."""
    with open(path, "rb") as file:
        return list(parse(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))))


def parse(log: memoryview) -> Iterator[Op]:
    """Yield what a log tells. `LogError` where it is none or cut short."""
    if len(log) < _SUPER.size:
        raise LogError(f"a log has a superblock, and this has {len(log)} bytes")
    magic, version, entries, sector = _SUPER.unpack_from(log)
    if (magic, version) != (MAGIC, VERSION) or sector < _SUPER.size or sector & (sector - 1):
        raise LogError(f"no log of dm-log-writes: {magic:#x}, version {version}, sectors of {sector} bytes")
    if entries > MAX_ENTRIES:
        raise LogError(f"it is said to have {entries} entries")
    at = sector
    for number in range(entries):
        if at + _ENTRY.size > len(log):
            raise LogError(f"it ends within entry {number} of {entries}")
        where, count, flags, _ = _ENTRY.unpack_from(log, at)
        at += sector
        if flags & MARK_FLAG:
            continue
        if flags & FLUSH_FLAG:
            yield Flush()
        if flags & DISCARD_FLAG:
            yield Discard(where * sector, count * sector)
            continue
        length = count * sector
        if at + length > len(log):
            raise LogError(f"it ends within the data of entry {number} of {entries}")
        if length:
            yield Write(where * sector, log[at : at + length], bool(flags & FUA_FLAG))
        at += length


def within(ops: Sequence[Op], start: int, end: int) -> list[Op]:
    """Return the flushes, and what was done within these bytes of the disk. `ValueError` if something crosses an edge."""
    found: list[Op] = []
    for op in ops:
        if isinstance(op, Flush):
            found.append(op)
            continue
        last = op.offset + (len(op.data) if isinstance(op, Write) else op.length)
        if start <= op.offset and last <= end:
            found.append(op)
        elif op.offset < end and last > start:
            raise ValueError(f"a request of bytes {op.offset} to {last} crosses the edge of {start} to {end}")
    return found
