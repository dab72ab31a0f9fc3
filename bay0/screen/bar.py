"""The bar at the top of the screen: swaybar reads a FIFO, into which PID 1 writes who is in front (swaybar-protocol(7))."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import define, frozen

from bay0.screen.tree import WHITE, colour

if TYPE_CHECKING:
    from bay0.screen.places import Places

INK, DIM = "#e8edf2", "#9fb0c0"
DIGITS = 9  # keys that bring a persona to the front
ROWS_MAX = 4096  # bytes of one line: PIPE_BUF, which is written whole or not at all
HEADER = '{"version":1}\n[\n'  # "[" is never closed


@frozen
class Block:
    """A text in the bar, and its colours."""

    text: str
    ink: str
    ground: str = ""

    def behind(self) -> dict[str, str]:
        """Return what the bar's protocol says of the ground."""
        return {"background": self.ground} if self.ground else {}


def line(blocks: Sequence[Block]) -> str:
    """Return a line of the bar. Texts are shown as they are: no markup."""
    shown = [
        {"full_text": f" {each.text} ", "color": each.ink, "separator": False, "markup": "none", **each.behind()}
        for each in blocks
    ]
    return json.dumps(shown) + ",\n"


def in_front(persona: str | None, others: Sequence[str] = ()) -> list[Block]:
    """Return what the bar says: who is in front, in his colour, and which key brings whom there."""
    said = Block(persona, WHITE, colour(persona)) if persona else Block("no persona is in front", INK)
    keys = [
        Block(f"{number} {name}", INK if name == persona else DIM)
        for number, name in enumerate(others[:DIGITS], start=1)
    ]
    return [Block("Alpine-Spline", DIM), said, *keys]


@define(eq=False, repr=False)
class Bar:
    """The writing end: kept open, so that the bar never sees an end."""

    _fd: int = -1

    def begin(self, places: Places) -> None:
        """Begin anew, for a new bar. `OSError` if its FIFO is not there."""
        self.close()
        self._fd = os.open(places.bar, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        self.write(HEADER)

    def say(self, persona: str | None, others: Sequence[str]) -> None:
        """Say who is in front, and whom the keys bring there; harmless while there is no bar."""
        self.write(line(in_front(persona, others)))

    def write(self, text: str) -> bool:
        """Write whole lines; tell whether there was room.

        One who does not read misses a line, and nobody waits for him.
        """
        data = text.encode()
        if self._fd >= 0 and len(data) <= ROWS_MAX:
            with contextlib.suppress(OSError):
                return os.write(self._fd, data) == len(data)
        return False

    def close(self) -> None:
        """Let go of it; harmless when that is done."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
