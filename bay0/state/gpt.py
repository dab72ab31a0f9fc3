"""A GUID partition table: read without trusting it, and its last partition grown into room that came behind it.

Pure: bytes come from a `Read`, and what is to be written is returned as `Write`s, each to be on the disk (fsync) before the
next one is begun. Format: UEFI specification 2.10, 5.3.

A cut must leave a table that everybody can read. Linux looks for a second header only behind a good first one
(block/partitions/efi.c, unless `gpt` is given), so the first one is never half written: new entries go where nothing is,
the header that names them is one sector, and only that sector switches. The order, for entries at sector 2:

 1. entries and header of the backup at the disk's new end (the first header still names the old backup, which stays);
 2. the new entries in front of the first partition, behind the old ones;
 3. the first header: names those, the new backup, the new end;
 4. the new entries at sector 2, which no header names now;
 5. the first header: names sector 2 again.

A header that is torn itself (1 to 511 bytes of the new one) has a wrong CRC; by then the backup at the disk's end is good,
and UEFI firmware puts the first one right from it before anything boots.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Callable, Iterator

from attrs import evolve, frozen

from bay0.base.errors import GptError

Read = Callable[[int, int], bytes]  # offset, length -> bytes; fewer only at the end

SECTORS = (512, 4096)  # sizes that there are
MAX_ENTRIES, MAX_ARRAY = 1024, 1 << 18  # entries, and bytes of all of them
USUAL = 2  # the sector at which the entries begin
MIB = 1 << 20
_MBR_TABLE, _MBR_ENTRY, _PROTECTIVE, _MBR_MAX = 446, 16, 0xEE, 0xFFFFFFFF
_HEADER = struct.Struct("<8s4sIIIQQQQ16sQIII")
_CRC_AT, _SIGNATURE, _REVISION = 16, b"EFI PART", b"\0\0\1\0"
_ENTRY = struct.Struct("<16s16sQQ")
_LAST_AT = 40  # of a partition's last sector in its entry
_UNUSED = bytes(16)


@frozen
class Write:
    """Bytes that go to an offset of the disk, and must be on it before the next `Write` is begun."""

    offset: int
    data: bytes


@frozen
class Partition:
    """A partition by its number (from 1), its first and last sector."""

    number: int
    first: int
    last: int


@frozen
class Table:
    """A disk's table, as its first header tells. Places are numbers of sectors."""

    sector: int  # bytes
    sectors: int  # of the disk as it is now
    mbr: bytes
    header: bytes  # the first one, as long as it says
    alternate: int  # where the other header should be
    first_usable: int
    last_usable: int
    entries_at: int
    entry: int  # bytes of one
    entries: bytes
    partitions: tuple[Partition, ...]  # by their first sector

    @property
    def array(self) -> int:
        """Sectors of all entries."""
        return -(-len(self.entries) // self.sector)

    @property
    def last_possible(self) -> int:
        """The last sector that a partition can have on this disk, before the backup at its very end."""
        return self.sectors - 2 - self.array


def parse(read: Read, sector: int, sectors: int) -> Table:
    """Return the table of a disk with so many sectors of so many bytes. `GptError` says why there is none to work with."""
    if sector not in SECTORS or sectors < 64:  # noqa: PLR2004 - less than the two tables
        raise GptError(f"a disk of {sectors} sectors of {sector} bytes has no room for a partition table")
    mbr, data = _part(read, 0, sector), _part(read, sector, sector)
    if mbr[510:512] != b"\x55\xaa" or not any(_protective(mbr)):
        raise GptError("it has no GUID partition table (its first sector does not say so)")
    signature, revision, length, crc, _, here, alternate, first, last, _, at, count, entry, array_crc = _HEADER.unpack_from(data)
    if signature != _SIGNATURE or revision != _REVISION or not _HEADER.size <= length <= sector:
        raise GptError("the partition table's header is none")
    if _crc(data[:length]) != crc or here != 1:
        raise GptError("the partition table's header is damaged: mend it with `sgdisk -e` on another machine")
    if entry < 128 or entry & (entry - 1) or not 0 < count <= MAX_ENTRIES or entry * count > MAX_ARRAY:  # noqa: PLR2004 - the format's least
        raise GptError(f"the partition table has {count} entries of {entry} bytes, and that is not understood")
    size = -(-entry * count // sector)
    if not ((at == USUAL or at >= USUAL + size) and at + size <= first <= last < sectors and alternate < sectors):
        raise GptError("the partition table's places lie in each other, or outside of the disk")
    entries = _part(read, at * sector, entry * count)
    if zlib.crc32(entries) != array_crc:
        raise GptError("the partition table's entries are damaged: mend it with `sgdisk -e` on another machine")
    partitions = tuple(sorted(_partitions(entries, entry, first, last), key=lambda each: each.first))
    for one, other in itertools.pairwise(partitions):
        if one.last >= other.first:
            raise GptError(f"partitions {one.number} and {other.number} overlap")
    return Table(sector, sectors, mbr, data[:length], alternate, first, last, at, entry, entries, partitions)


def grow(table: Table, number: int) -> tuple[Write, ...]:
    """Return what grows partition `number` to the end of the disk, in this order; nothing if it is there already.

    `GptError` if it is not the last one, or there is no place for a second copy of the entries while the first one changes.
    """
    found = next((each for each in table.partitions if each.number == number), None)
    if found is None:
        raise GptError(f"the partition table has no partition {number}")
    if found is not table.partitions[-1]:
        raise GptError(f"partition {number} is not the last one on its disk: partition {table.partitions[-1].number} lies behind it")
    last, moved = table.sectors - 1, table.alternate != table.sectors - 1
    if moved and max(table.alternate, found.last) > table.last_possible:
        raise GptError("the disk is too little larger than its partition table for a second one at its end")
    unit = MIB // table.sector
    end = max(found.last, (table.last_possible + 1) // unit * unit - 1)
    mbr = _mbr(table.mbr, table.sectors)
    if end == found.last and not moved and table.entries_at == USUAL and mbr == table.mbr:
        return ()
    entries = bytearray(table.entries)
    struct.pack_into("<Q", entries, (number - 1) * table.entry + _LAST_AT, end)
    kept_short = table.entries_at != USUAL and table.first_usable == table.entries_at + table.array  # by a cut between 3 and 5
    usable = USUAL + table.array if kept_short else table.first_usable
    grown = evolve(table, entries=bytes(entries), last_usable=table.last_possible, first_usable=usable)
    writes = [
        _array(grown, last - grown.array),
        _one_sector(grown, last, _header(grown, last, 1, last - grown.array)),
    ]
    for place in (_spare(table), USUAL) if table.entries_at == USUAL else (USUAL,):
        now = evolve(grown, first_usable=max(usable, place + grown.array))
        writes += [_array(now, place), _one_sector(now, 1, _header(now, 1, last, place))]
    return (*writes, Write(0, mbr))


def _array(table: Table, place: int) -> Write:
    return Write(place * table.sector, table.entries.ljust(table.array * table.sector, b"\0"))


def _one_sector(table: Table, place: int, header: bytes) -> Write:
    return Write(place * table.sector, header.ljust(table.sector, b"\0"))


def _spare(table: Table) -> int:
    """Return where a second copy of the entries can stand: in front of the first partition, behind the usual place."""
    place = USUAL + table.array
    if place + table.array > table.partitions[0].first:
        raise GptError(
            f"its first partition begins at sector {table.partitions[0].first}, and there is no room for a second copy of the "
            f"table in front of it: grow it with `sgdisk` on another machine"
        )
    return place


def _header(table: Table, here: int, other: int, entries_at: int) -> bytes:
    """Return a header that stands at one sector, its other one elsewhere; all else is as in the first header of `table`."""
    old = _HEADER.unpack_from(table.header)
    fields = (
        *old[:3], 0, old[4], here, other, table.first_usable, table.last_usable, old[9], entries_at, *old[11:13],
        zlib.crc32(table.entries),
    )  # fmt: skip
    data = bytearray(_HEADER.pack(*fields) + table.header[_HEADER.size :])
    struct.pack_into("<I", data, _CRC_AT, _crc(bytes(data)))
    return bytes(data)


def _crc(header: bytes) -> int:
    """Return a header's CRC32, which is of itself with zeros in its own place."""
    return zlib.crc32(header[:_CRC_AT] + bytes(4) + header[_CRC_AT + 4 :])


def _partitions(entries: bytes, size: int, first_usable: int, last_usable: int) -> Iterator[Partition]:
    for number, at in enumerate(range(0, len(entries), size), start=1):
        kind, _, first, last = _ENTRY.unpack_from(entries, at)
        if kind == _UNUSED:
            continue
        if not first_usable <= first <= last <= last_usable:
            raise GptError(f"partition {number} is said to be at sectors {first} to {last}, outside of {first_usable} to {last_usable}")
        yield Partition(number, first, last)


def _protective(mbr: bytes) -> list[bool]:
    """Tell of each entry of an MBR whether it protects a GUID table."""
    entries = [mbr[at : at + _MBR_ENTRY] for at in range(_MBR_TABLE, 510, _MBR_ENTRY)]
    return [each[4] == _PROTECTIVE and each[8:12] == b"\1\0\0\0" for each in entries]


def _mbr(mbr: bytes, sectors: int) -> bytes:
    """Return the first sector with the protective entry as long as the disk."""
    changed = bytearray(mbr)
    at = _MBR_TABLE + _protective(mbr).index(True) * _MBR_ENTRY
    struct.pack_into("<I", changed, at + 12, min(sectors - 1, _MBR_MAX))
    return bytes(changed)


def _part(read: Read, offset: int, length: int) -> bytes:
    data = read(offset, length)
    if len(data) != length:
        raise GptError(f"the disk ends within its partition table, at {offset + len(data)}")
    return data
