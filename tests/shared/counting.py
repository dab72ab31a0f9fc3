"""The count in a picture of the sample persona `counter`: 16 squares, the highest bit first, between a magenta and a cyan one."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

FIRST, LAST, ONE, ZERO = b"\xff\x00\xff", b"\x00\xff\xff", b"\xff\xff\xff", b"\x00\x00\x00"
BITS = 16
SIDE_MIN = 4  # pixels: a shorter run of the first colour is no square


@frozen
class Counter:
    """One that is to be seen whole. `colour`: of its window, RRGGBB; `x`, `y`: of the first square's corner, in pixels."""

    count: int
    colour: str
    x: int
    y: int


def counters(width: int, height: int, rgb: bytes) -> list[Counter]:
    """Return all that are in a picture (three bytes a pixel, row by row). `ValueError`: one is there, but not as it is painted."""
    picture = _Picture(width, height, rgb)
    return [
        picture.read(x, y, side) for y in range(height) for x, side in picture.runs(y)
        if side >= SIDE_MIN and (not y or picture.at(x, y - 1) != FIRST)
    ]  # fmt: skip


@frozen
class _Picture:
    width: int
    height: int
    rgb: bytes

    def at(self, x: int, y: int) -> bytes:
        if x >= self.width or y >= self.height:
            raise ValueError(f"{x}, {y} is beyond the picture")
        start = 3 * (y * self.width + x)
        return self.rgb[start : start + 3]

    def runs(self, y: int) -> Iterator[tuple[int, int]]:
        """Yield start and length of each run of the first square's colour in a row."""
        row, at = self.rgb[3 * self.width * y : 3 * self.width * (y + 1)], 0
        while (at := row.find(FIRST, at)) >= 0:
            if at % 3:
                at += 1
                continue
            end = at
            while row[end : end + 3] == FIRST:
                end += 3
            yield at // 3, (end - at) // 3
            at = end

    def read(self, x: int, y: int, side: int) -> Counter:
        """Read the squares whose first one begins at `x`, `y`."""
        pitch, bits = side + side // 4, []
        for number in range(BITS + 2):
            left = x + number * pitch
            spots = [(left + dx, y + dy) for dx in (0, side - 1) for dy in (0, side - 1)]
            seen = {self.at(*spot) for spot in (*spots, (left + side // 2, y + side // 2))}
            wanted = {FIRST} if number == 0 else {LAST} if number == BITS + 1 else {ONE} if ONE in seen else {ZERO}
            if seen != wanted:
                raise ValueError(f"square {number} at {left}, {y} has the colours {sorted(colour.hex() for colour in seen)}")
            bits.append(seen == {ONE})
        return Counter(sum(bit << BITS - 1 - place for place, bit in enumerate(bits[1:-1])), self.at(x + side, y).hex(), x, y)
