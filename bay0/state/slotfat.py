"""The FAT32 of a slot: what a new one is made of, byte for byte, and where the files of one that is there lie.

Pure: bytes and numbers; who reads and writes the disk is slots.py. A new one has a fixed layout, so that
nothing ever needs to mount it: EFILABEL, BGENV.DAT and spine.efi lie one behind the other, each in one
piece. So a boot environment is one write at one place, and the first sector alone decides whether there is
a filesystem at all. One that another program made (mformat, mkfs.vfat) is read by walking its chains, as
far as a file of the expected size can reach and no further.

The format is Microsoft's "FAT32 File System Specification" 1.03. Needs nothing but the standard library and
our errors: scripts/lib/slots.py makes the slots of a new disk with it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from bay0.base.errors import SlotError
from bay0.state import bootenv

SECTOR = 512
FATS, ROOT_CLUSTER, BACKUP = 2, 2, 6  # copies, the root's first cluster, the sector of the boot sector's copy
FAT32_CLUSTERS = 65525  # fewer are no FAT32 to whoever goes by their number
CLUSTERS_MAX = 0x0FFFFFF0
CLUSTER_MAX = 4096  # bytes: enough for 512 MiB and more, and a page
PAGE = 4096  # every file begins at a multiple of it, and so can be read past the page cache
RESERVED = 32  # sectors before the first FAT, at least
END = 0x0FFFFFFF  # of a chain
MEDIA = 0xF8  # a fixed disk
ENTRY = 32  # bytes of a directory entry
ROOT_MAX = 1 << 16  # bytes of a root directory that are looked through
LOWER = 0x18  # both parts of the name are in lower case: what everybody but the specification calls NTRes
LABEL, ARCHIVE, LONG_NAME, DIRECTORY = 0x08, 0x20, 0x0F, 0x10
DAY = 0x21  # 1980-01-01: the same bytes whenever it is made
_BPB = struct.Struct("<3s8sHBHBHHBHHHIIIHHIHH12sBBBI11s8s")
_ENTRY = struct.Struct("<11sBBBHHHHHHHI")
_INFO = struct.Struct("<I480sIII12sI")

Read = Callable[[int, int], bytes]  # (offset, count): bytes of the partition


class Layout(NamedTuple):
    """Where things are in a slot of `size` bytes. Offsets in bytes from its start."""

    size: int
    cluster: int
    reserved: int  # sectors before the first FAT
    fat: int  # sectors of one
    data: int  # where cluster 2, the root directory, lies
    clusters: int

    def at(self, cluster: int) -> int:
        """Return where a cluster lies."""
        return self.data + (cluster - ROOT_CLUSTER) * self.cluster


class Found(NamedTuple):
    """A file: its size, and its pieces (offset, bytes), the last one cut to its size."""

    size: int
    pieces: tuple[tuple[int, int], ...]


def _up(number: int, to: int) -> int:
    return -(-number // to)


def layout(size: int) -> Layout:
    """Return the layout of a new FAT32 in so many bytes. `SlotError` if they are too few, or too many."""
    sectors = size // SECTOR
    for cluster in (CLUSTER_MAX, 2048, 1024, SECTOR):
        per = cluster // SECTOR
        fat = _up((_up(sectors, per) + ROOT_CLUSTER) * 4, SECTOR)  # a little more than are needed
        reserved = RESERVED + -(RESERVED + FATS * fat) % (PAGE // SECTOR)
        clusters = (sectors - reserved - FATS * fat) // per
        if FAT32_CLUSTERS <= clusters < CLUSTERS_MAX:
            return Layout(size, cluster, reserved, fat, (reserved + FATS * fat) * SECTOR, clusters)
    raise SlotError(f"a slot of {size} bytes cannot be a FAT32: from 40 MiB to 1 TiB it can")


def _places(plan: Layout) -> tuple[int, int, int]:
    """Return where EFILABEL, BGENV.DAT and spine.efi begin."""
    label = plan.data + PAGE  # the root directory has a page
    env = label + PAGE
    return label, env, env + _up(bootenv.SIZE, PAGE) * PAGE


def spine_at(plan: Layout) -> int:
    """Return where spine.efi begins in a slot of our layout."""
    return _places(plan)[2]


def room(plan: Layout) -> int:
    """Return how many bytes spine.efi may have."""
    return plan.at(ROOT_CLUSTER + plan.clusters) - spine_at(plan)


def front(slot: str, plan: Layout, env: bootenv.BootEnv, spine: int, *, hidden: int, serial: int) -> bytes:
    """Return everything of a slot before spine.efi, from its first sector on.

    `hidden`: sectors of the disk before the slot; `spine`: bytes of the UKI; `serial`: the volume's number.
    `SlotError` if it does not fit.
    """
    if not 0 < spine <= room(plan):
        raise SlotError(f"an image of {spine} bytes does not fit into the {room(plan)} that a slot has for it")
    label, at, behind = _places(plan)
    files = (
        (b"EFILABEL   ", 0, label, bootenv.label(slot)),
        (b"BGENV   DAT", 0, at, bootenv.encode(env)),
        (b"SPINE   EFI", LOWER, behind, spine),
    )
    data = bytearray(behind)
    fat = bytearray(plan.fat * SECTOR)
    struct.pack_into("<III", fat, 0, 0x0FFFFF00 | MEDIA, END, END)
    root = [_ENTRY.pack(f"{slot:<11}".encode(), LABEL, 0, 0, 0, 0, 0, 0, 0, DAY, 0, 0)]
    used = 1
    for name, case, where, content in files:
        size = content if isinstance(content, int) else len(content)
        first, count = ROOT_CLUSTER + (where - plan.data) // plan.cluster, _up(size, plan.cluster)
        chain = (*range(first + 1, first + count), END)
        struct.pack_into(f"<{count}I", fat, first * 4, *chain)
        root.append(_ENTRY.pack(name, ARCHIVE, case, 0, 0, DAY, DAY, first >> 16, 0, DAY, first & 0xFFFF, size))
        used += count
        if not isinstance(content, int):
            data[where : where + size] = content
    boot, info = _boot_sector(slot, plan, hidden, serial), _info(plan.clusters - used)
    for sector in (0, BACKUP):
        data[sector * SECTOR : (sector + 2) * SECTOR] = boot + info
    for copy in range(FATS):
        begin = (plan.reserved + copy * plan.fat) * SECTOR
        data[begin : begin + len(fat)] = fat
    data[plan.data : plan.data + len(root) * ENTRY] = b"".join(root)
    return bytes(data)


def _boot_sector(slot: str, plan: Layout, hidden: int, serial: int) -> bytes:
    body = _BPB.pack(
        b"\xeb\x58\x90", b"SPINE   ", SECTOR, plan.cluster // SECTOR, plan.reserved, FATS, 0, 0, MEDIA, 0, 63, 255,
        hidden, plan.size // SECTOR, plan.fat, 0, 0, ROOT_CLUSTER, 1, BACKUP, b"", 0x80, 0, 0x29, serial,
        f"{slot:<11}".encode(), b"FAT32   ",
    )  # fmt: skip
    return body + bytes(SECTOR - 2 - len(body)) + b"\x55\xaa"


def _info(free: int) -> bytes:
    return _INFO.pack(0x41615252, b"", 0x61417272, free, 0xFFFFFFFF, b"", 0xAA550000)


# ---- one that is there


def geometry(sector: bytes, size: int) -> Layout:
    """Return the layout that a boot sector states. `SlotError` if it is none of a FAT32 that fits into `size` bytes."""
    if len(sector) < SECTOR or sector[SECTOR - 2 : SECTOR] != b"\x55\xaa":
        raise SlotError("there is no filesystem in it")
    _, _, unit, per, reserved, fats, roots, small, _, old, _, _, _, total, fat, _, _, root, *_ = _BPB.unpack_from(sector)
    if unit != SECTOR or per not in (1, 2, 4, 8, 16, 32, 64, 128) or fats != FATS or roots or small or old or not fat:
        raise SlotError("its filesystem is no FAT32 with sectors of 512 bytes and two FATs")
    data = reserved + fats * fat
    clusters = min((total - data) // per, fat * SECTOR // 4 - ROOT_CLUSTER)
    if not reserved or total * SECTOR > size or clusters < 1 or not ROOT_CLUSTER <= root < ROOT_CLUSTER + clusters:
        raise SlotError("its filesystem does not fit into it")
    if root != ROOT_CLUSTER:
        raise SlotError("the root directory of its FAT is not at its beginning")
    return Layout(total * SECTOR, per * SECTOR, reserved, fat, data * SECTOR, clusters)


def find(read: Read, plan: Layout, name: str, most: int) -> Found | None:
    """Return where a file of the root directory lies, None if there is none. `name`: BGENV.DAT.

    `SlotError` if it has more than `most` bytes, or its chain makes no sense.
    """
    stem, _, ending = name.upper().partition(".")
    wanted = f"{stem:<8}{ending:<3}".encode()
    for at, count in _pieces(read, plan, ROOT_CLUSTER, ROOT_MAX, whole=False):
        data = read(at, count)
        for place in range(0, len(data) - ENTRY + 1, ENTRY):
            raw, kind, _, _, _, _, _, high, _, _, low, size = _ENTRY.unpack_from(data, place)
            if raw[0] == 0:
                return None
            if raw == wanted and not kind & (LABEL | DIRECTORY):
                if not 0 < size <= most:
                    raise SlotError(f"{name} has {size} bytes, and may have 1 to {most}")
                return Found(size, tuple(_pieces(read, plan, high << 16 | low, size)))
    return None


def _pieces(read: Read, plan: Layout, cluster: int, size: int, *, whole: bool = True) -> list[tuple[int, int]]:
    """Return the pieces of a chain, at most `size` bytes. `SlotError` if it is broken, or (`whole`) is shorter than that."""
    found: list[tuple[int, int]] = []
    left, begin, fat = size, -1, b""
    while left > 0:
        if not ROOT_CLUSTER <= cluster < ROOT_CLUSTER + plan.clusters:
            if not whole and found and cluster >= CLUSTERS_MAX:
                break
            raise SlotError("a chain of its FAT leads nowhere")
        at, count = plan.at(cluster), min(left, plan.cluster)
        if found and sum(found[-1]) == at:
            found[-1] = (found[-1][0], found[-1][1] + count)
        else:
            found.append((at, count))
        left -= count
        place = cluster * 4
        if not 0 <= place - begin < len(fat):
            begin = place // PAGE * PAGE
            fat = read(plan.reserved * SECTOR + begin, min(PAGE, plan.fat * SECTOR - begin))
        cluster = int.from_bytes(fat[place - begin : place - begin + 4], "little") & END
    return found
