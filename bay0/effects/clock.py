"""The machine's clock: moved forward to where it must be, never back, and by PID 1 alone."""

from __future__ import annotations

import contextlib
import os
import re
import time

MANIFEST = "/usr/lib/bay0/manifest.json"


def build_time(path: str = MANIFEST) -> int | None:
    """Return when the image was built (seconds since the epoch), None where there is no manifest. Looked for, not parsed: the file is long."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            found = re.search(r'"source_date_epoch": *([0-9]{1,12})', file.read())
    except OSError:
        return None
    return int(found[1]) if found else None


def now() -> int:
    """Return the machine's idea of the time, seconds since the epoch."""
    return int(time.time())


def forward(floor: int) -> int:
    """Set the clock to `floor` if it is behind it; return by how many seconds it was moved, 0 if not (clock_settime(2))."""
    behind = floor - time.time()
    if behind <= 0 or os.getpid() != 1:
        return 0  # a developer's machine is not ours to set
    with contextlib.suppress(OSError):
        time.clock_settime(time.CLOCK_REALTIME, floor)
        return max(1, int(behind))
    return 0
