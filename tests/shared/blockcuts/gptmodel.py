"""Who reads a GUID partition table, by their own rules: Linux (block/partitions/efi.c) and EDK2's firmware (PartitionDxe, Gpt.c).

Written apart from bay0/state/gpt.py on purpose: it judges what that leaves.
"""

from __future__ import annotations

import struct
import uuid
import zlib

from attrs import frozen

from blockcuts.image import SECTOR, Image


@frozen
class Part:
    """A partition: number, first and last sector, name."""

    number: int
    first: int
    last: int
    name: str


def _header(image: Image, at: int) -> tuple[dict[str, int], bytes, bytes] | None:
    """Return a valid header with its bytes and its entries, None if it is not valid (as both readers test it)."""
    sectors = image.size // SECTOR
    if not 0 < at < sectors:
        return None
    data = image.read(at * SECTOR, SECTOR)
    size, crc = struct.unpack_from("<II", data, 12)
    if data[:8] != b"EFI PART" or not 92 <= size <= SECTOR:
        return None
    if zlib.crc32(data[:16] + bytes(4) + data[20:size]) != crc:
        return None
    my, other, first, last = struct.unpack_from("<QQQQ", data, 24)
    where, count, entry, array_crc = struct.unpack_from("<QIII", data, 72)
    if my != at or last < first or last >= sectors or entry != 128 or count * entry > 1 << 20:
        return None
    entries = image.read(where * SECTOR, count * entry)
    if zlib.crc32(entries) != array_crc:
        return None
    return {"other": other, "first": first, "last": last, "where": where, "count": count}, data, entries


def _parts(entries: bytes) -> tuple[Part, ...]:
    found = []
    for at in range(0, len(entries), 128):
        entry = entries[at : at + 128]
        if entry[:16] != bytes(16):
            first, last = struct.unpack_from("<QQ", entry, 32)
            found.append(Part(at // 128 + 1, first, last, entry[56:128].decode("utf-16-le").rstrip("\0")))
    return tuple(found)


def _protected(image: Image) -> bool:
    mbr = image.read(0, SECTOR)
    return mbr[510:512] == b"\x55\xaa" and any(mbr[at + 4] == 0xEE and mbr[at + 8 : at + 12] == b"\1\0\0\0" for at in range(446, 510, 16))


def linux(image: Image) -> tuple[Part, ...] | None:
    """Return what Linux finds: by the first header, and by nothing else while `gpt` is not on its command line."""
    found = _header(image, 1) if _protected(image) else None
    return None if found is None else _parts(found[2])


def firmware(image: Image) -> tuple[Part, ...] | None:
    """Return what firmware finds, after it has put the first header right from the one at the disk's end, or the other way round."""
    if not _protected(image):
        return None
    first, last = _header(image, 1), image.size // SECTOR - 1
    if first is None:
        backup = _header(image, last)
        if backup is None:
            return None
        _restore(image, backup, 1, 2)
    elif _header(image, first[0]["other"]) is None:
        _restore(image, first, first[0]["other"], first[0]["last"] + 1)
    return linux(image)


def _restore(image: Image, source: tuple[dict[str, int], bytes, bytes], to: int, entries_at: int) -> None:
    """Write a header and its entries anew (PartitionRestoreGptTable)."""
    _, data, entries = source
    (size,) = struct.unpack_from("<I", data, 12)
    (here,) = struct.unpack_from("<Q", data, 24)
    made = bytearray(data)
    struct.pack_into("<QQ", made, 24, to, here)
    struct.pack_into("<Q", made, 72, entries_at)
    made[16:20] = bytes(4)
    struct.pack_into("<I", made, 16, zlib.crc32(bytes(made[:size])))
    image.write(entries_at * SECTOR, entries)
    image.write(to * SECTOR, bytes(made))


def disk_id(image: Image) -> uuid.UUID:
    """Return the disk's GUID, of the first header."""
    return uuid.UUID(bytes_le=image.read(SECTOR + 56, 16))
