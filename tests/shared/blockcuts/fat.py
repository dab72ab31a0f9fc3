"""A FAT32 as UEFI firmware reads it (EDK2, FatPkg): no more than that, and apart from bay0/state/slotfat.py, which it judges."""

from __future__ import annotations

import struct

from attrs import frozen

from blockcuts.image import Image

ENTRY, PAGE = 32, 4096


class FatError(Exception):
    """What the firmware would call a corrupted volume."""


@frozen(eq=False)
class Fat:
    """A volume within an image."""

    image: Image
    start: int  # bytes
    cluster: int  # bytes
    fat: int  # where the first FAT is, bytes from `start`
    data: int  # where cluster 2 is
    clusters: int
    root: int

    def file(self, name: str) -> list[tuple[int, int]] | None:
        """Return where a file of the root lies, in pieces (offset in the image, bytes); None if there is none. `FatError`."""
        stem, _, ending = name.upper().partition(".")
        wanted = f"{stem:<8}{ending:<3}".encode()
        for at, length in self._chain(self.root, None):
            data = self.image.read(at, length)
            for place in range(0, length, ENTRY):
                entry = data[place : place + ENTRY]
                if entry[0] == 0:
                    return None
                if entry[:11] == wanted and not entry[11] & 0x18:
                    high, low, size = (struct.unpack_from(form, entry, where)[0] for form, where in (("<H", 20), ("<H", 26), ("<I", 28)))
                    return self._chain(high << 16 | low, size)
        return None

    def read(self, name: str) -> bytes | None:
        """Return a file of the root, None if there is none or it cannot be read to its end."""
        try:
            pieces = self.file(name)
        except FatError:
            return None
        return None if pieces is None else b"".join(self.image.read(at, length) for at, length in pieces)

    def has(self, name: str) -> bool:
        """Tell whether the root names such a file, readable or not."""
        try:
            return self.file(name) is not None
        except FatError:
            return True

    def _chain(self, cluster: int, size: int | None) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        left, steps, page, table = size, 0, -1, b""
        while left is None or left > 0:
            steps += 1
            if steps > self.clusters or not 2 <= cluster < self.clusters + 2:
                if size is None and found:
                    return found
                raise FatError(f"a chain leads to {cluster}")
            length = self.cluster if left is None else min(left, self.cluster)
            at = self.start + self.data + (cluster - 2) * self.cluster
            if found and sum(found[-1]) == at:
                found[-1] = (found[-1][0], found[-1][1] + length)
            else:
                found.append((at, length))
            left = None if left is None else left - length
            if cluster * 4 // PAGE != page:
                page = cluster * 4 // PAGE
                table = self.image.read(self.start + self.fat + page * PAGE, PAGE)
            cluster = struct.unpack_from("<I", table, cluster * 4 % PAGE)[0] & 0x0FFFFFFF
        return found


def mount(image: Image, start: int, size: int) -> Fat | None:
    """Return the volume that begins at a byte of an image, None if the firmware takes it for none. It does not ask for 55 AA."""
    sector = image.read(start, 512)
    unit, per, reserved, fats, roots, small, media, old = struct.unpack_from("<HBHBHHBH", sector, 11)
    total, fat, _, _, root = struct.unpack_from("<IIHHI", sector, 32)
    if unit != 512 or not per or per & (per - 1) or not reserved or not fats or small or old or roots or not fat:
        return None
    if not (media >= 0xF8 or media == 0xF0) or total * unit > size:
        return None
    data = (reserved + fats * fat) * unit
    clusters = (total * unit - data) // (per * unit)
    return Fat(image, start, per * unit, reserved * unit, data, clusters, root) if clusters > 0 else None
