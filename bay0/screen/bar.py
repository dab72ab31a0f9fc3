"""The bar at the top of the screen: swaybar reads a FIFO, into which PID 1 writes who is in front (swaybar-protocol(7))."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING

from attrs import define

if TYPE_CHECKING:
    from bay0.screen.places import Places

INK, DIM = "#e8edf2", "#9fb0c0"
ROWS_MAX = 4096  # bytes of one line: PIPE_BUF, which is written whole or not at all
HEADER = '{"version":1}\n[\n'  # "[" is never closed


def line(blocks: list[tuple[str, str]]) -> str:
    """Return a line of the bar: texts with their colours. They are shown as they are: no markup."""
    shown = [
        {"full_text": f" {text} ", "color": color, "separator": False, "markup": "none"}
        for text, color in blocks
    ]
    return json.dumps(shown) + ",\n"


def in_front(persona: str | None) -> list[tuple[str, str]]:
    """Return what the bar says of who is in front."""
    return [("Alpine-Spline", DIM), (persona, INK) if persona else ("no persona is in front", INK)]


@define(eq=False, repr=False)
class Bar:
    """The writing end: kept open, so that the bar never sees an end."""

    _fd: int = -1

    def begin(self, places: Places) -> None:
        """Begin anew, for a new bar. `OSError` if its FIFO is not there."""
        self.close()
        self._fd = os.open(places.bar, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        self.write(HEADER)

    def say(self, persona: str | None) -> None:
        """Say who is in front; harmless while there is no bar."""
        self.write(line(in_front(persona)))

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
