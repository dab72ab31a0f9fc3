"""Enlarge the partition of /persist into the room behind it, while it is mounted: the table on the disk, then the kernel's idea of it.

Part of `bay0 --grow-persist` (resize.py). What is written, and in which order, is gpt.py's.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
from collections.abc import Callable

from bay0.base.errors import GptError
from bay0.state import device, gpt

BLKPG, BLKPG_RESIZE_PARTITION = 0x1269, 3  # linux/blkpg.h


class _Arguments(ctypes.Structure):
    """struct blkpg_ioctl_arg."""

    _fields_ = (("op", ctypes.c_int), ("flags", ctypes.c_int), ("datalen", ctypes.c_int), ("data", ctypes.c_void_p))


class _Partition(ctypes.Structure):
    """struct blkpg_partition; bytes."""

    _fields_ = (
        ("start", ctypes.c_longlong), ("length", ctypes.c_longlong), ("number", ctypes.c_int),
        ("device", ctypes.c_char * 64), ("volume", ctypes.c_char * 64),
    )  # fmt: skip


def enlarge(source: str) -> int:
    """Enlarge the partition `source` to the end of its disk; return its bytes then. Of a whole disk nothing is changed.

    `GptError` if its table does not allow that, `OSError`. A cut leaves the old size or the new one; to call it again goes on.
    """
    place = device.partition(source)
    if place is None:
        return device.size(source)
    fd = os.open(place.disk, os.O_RDWR | os.O_CLOEXEC)
    try:
        found = write(fd, place.number, place.sector, place.start, lambda: os.fsync(fd))
        length = (found.last - found.first + 1) * place.sector
        if length != device.size(source):
            _tell_kernel(fd, place.number, place.start, length)
    finally:
        os.close(fd)
    return length


def write(fd: int, number: int, sector: int, start: int, settle: Callable[[], None]) -> gpt.Partition:
    """Grow partition `number`, which begins at byte `start`, on the disk (or image) behind `fd`; return it as it is then on the disk.

    `settle` is called after each write and returns once it is on the platter.
    """
    sectors = os.lseek(fd, 0, os.SEEK_END) // sector

    def read() -> gpt.Table:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # or memory would answer for the disk
        return gpt.parse(lambda offset, length: os.pread(fd, length, offset), sector, sectors)

    table = read()
    known = [each.first * sector for each in table.partitions if each.number == number]
    if known != [start]:
        raise GptError(f"partition {number} does not begin where the kernel has it ({start}): the table was changed, reboot first")
    for each in gpt.grow(table, number):
        if os.pwrite(fd, each.data, each.offset) != len(each.data):
            raise OSError(f"the partition table was written in part, at {each.offset}")
        settle()
    return next(each for each in read().partitions if each.number == number)


def _tell_kernel(fd: int, number: int, start: int, length: int) -> None:
    """Say the new size to the kernel, which does not read the table of a disk that is used."""
    what = _Partition(start, length, number, b"", b"")
    fcntl.ioctl(fd, BLKPG, bytes(_Arguments(BLKPG_RESIZE_PARTITION, 0, ctypes.sizeof(what), ctypes.addressof(what))))
