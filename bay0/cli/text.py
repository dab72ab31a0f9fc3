"""How facts are written for people: ages, tables, and text that a terminal may be shown."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

# what a terminal would act on: all control characters but the tab, and all escape sequences but colours
_ACTS = re.compile("\x1b(?!\\[[0-9;]*m)|[\x00-\x08\x0a-\x1a\x1c-\x1f\x7f-\x9f]")


def age(since_ms: int, now_ms: int | None = None) -> str:
    """Return how long ago `since_ms` (milliseconds on the kernel's clock) was: 12s, 4m10s, 3h05m, 2d04h."""
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000_000 if now_ms is None else now_ms
    seconds = max(0, now - since_ms) // 1000
    for unit, size, below, smaller in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if seconds >= size:
            return f"{seconds // size}{unit}{seconds % size // smaller:02}{below}"
    return f"{seconds}s"


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as an aligned table; the first row is its head."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def on_terminal(text: str) -> str:
    r"""Make text of a persona harmless to the terminal of root: colours pass, everything else that would act is shown as \x1b and the like."""
    return _ACTS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
