"""A disk image as a base and the sectors that were written over it: any number of them share one base, and none is a copy of it."""

from __future__ import annotations

import os
import subprocess
from typing import Protocol

from attrs import define, field

SECTOR = 512  # bytes; what a disk writes whole or not at all is never less


class Base(Protocol):
    """What is below an image."""

    size: int  # bytes

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes; fewer at the end only."""


@define(eq=False)
class File:
    """A file as a base. `size` may be larger than the file, as of a disk that was enlarged: zeros follow."""

    path: str
    size: int = 0
    _fd: int = -1

    def __attrs_post_init__(self) -> None:
        self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = self.size or os.fstat(self._fd).st_size

    def read(self, offset: int, length: int) -> bytes:
        length = max(0, min(length, self.size - offset))
        return os.pread(self._fd, length, offset).ljust(length, b"\0")

    def close(self) -> None:
        os.close(self._fd)


@define(eq=False)
class Image:
    """A disk: what was written over a base, sector by sector. Data is kept where it came from (a log that is mapped, say), not copied."""

    base: Base
    sectors: dict[int, tuple[memoryview, int]] = field(factory=dict)  # number -> buffer, and where in it

    @property
    def size(self) -> int:
        return self.base.size

    def read(self, offset: int, length: int) -> bytes:
        length = max(0, min(length, self.size - offset))
        first, end = offset // SECTOR, -(-(offset + length) // SECTOR)
        if end - first <= len(self.sectors):
            here = [number for number in range(first, end) if number in self.sectors]
        else:
            here = [number for number in self.sectors if first <= number < end]
        if not here:
            return self.base.read(offset, length)
        data = bytearray(self.base.read(first * SECTOR, (end - first) * SECTOR))
        for number in here:
            buffer, at = self.sectors[number]
            data[(number - first) * SECTOR : (number - first + 1) * SECTOR] = buffer[at : at + SECTOR]
        return bytes(data[offset - first * SECTOR :][:length])

    def write(self, offset: int, data: memoryview | bytes) -> None:
        """Write anywhere; whole sectors are kept by reference."""
        view, at = memoryview(data), 0
        while at < len(view):
            number, skip = divmod(offset + at, SECTOR)
            part = min(SECTOR - skip, len(view) - at)
            if part == SECTOR:
                self.sectors[number] = (view, at)
            else:
                whole = bytearray(self.read(number * SECTOR, SECTOR).ljust(SECTOR, b"\0"))
                whole[skip : skip + part] = view[at : at + part]
                self.sectors[number] = (memoryview(bytes(whole)), 0)
            at += part

    def save(self, path: str) -> None:
        """Make a file of it, with the base's holes: for what must be booted."""
        if not isinstance(self.base, File):
            raise TypeError("only what lies on a file directly can be saved")
        subprocess.run(["cp", "--sparse=always", self.base.path, path], check=True)
        os.truncate(path, self.size)
        with open(path, "r+b") as file:
            for number in sorted(self.sectors):
                buffer, at = self.sectors[number]
                file.seek(number * SECTOR)
                file.write(buffer[at : at + SECTOR])


def merged(image: Image, more: Image) -> Image:
    """Return the same as `more`, an image over `image`, as one over the base of `image`: so that layers do not pile up."""
    return Image(image.base, image.sectors | more.sectors)


def over(below: Image) -> Image:
    """Return an image over another one, which must not change meanwhile."""
    return Image(below)
