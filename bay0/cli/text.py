"""How facts are written for people: ages, sizes, tables, and text that a terminal may be shown."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
STEP = 1024
WHOLE_FROM = 100  # of a unit no tenths are shown from here on
# what a terminal would act on: all control characters but the tab, and all escape sequences but colours
_ACTS = "\x1b(?!\\[[0-9;]*m)|[\x00-\x08\x0a-\x1a\x1c-\x1f\x7f-\x9f]"


def age(since_ms: int, now_ms: int | None = None) -> str:
    """Return how long ago `since_ms` (milliseconds on the kernel's clock) was, as `duration` has it."""
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000_000 if now_ms is None else now_ms
    return duration(max(0, now - since_ms) // 1000)


def duration(seconds: int) -> str:
    """Return whole seconds as people write them, in two units at most: 12 s, 4 min 10 s, 3 h, 2 d 4 h."""
    for unit, length, below, smaller in (
        ("d", 86400, "h", 3600),
        ("h", 3600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if seconds >= length:
            rest = seconds % length // smaller
            return f"{seconds // length} {unit}" + (f" {rest} {below}" if rest else "")
    return f"{seconds} s"


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as an aligned table; the first row is its head."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def on_terminal(text: str) -> str:
    r"""Make text of a persona harmless to the terminal of root: colours pass, everything else that would act is shown as \x1b and the like."""
    if text.isprintable():
        return text
    import re

    return re.sub(_ACTS, lambda found: f"\\x{ord(found[0]):02x}", text)


def size(count: float) -> str:
    """Return bytes as people write them: 512 bytes, 1.5 GiB, 200 MiB."""
    unit = 0
    while count >= STEP and unit + 1 < len(UNITS):
        count, unit = count / STEP, unit + 1
    shown = f"{count:.0f}" if unit == 0 or count >= WHOLE_FROM else f"{count:.1f}".removesuffix(".0")
    return f"{shown} {UNITS[unit]}"
