"""The last good time, kept for machines whose own clock forgets. Runs in the state worker.

One line with a checksum, replaced whole (files.py). What cannot be understood is not a time: it is said and ignored, and the next save
replaces it. Whether a time makes sense is judged by PID 1 (continuity.py), which knows when the image was built.
"""

from __future__ import annotations

import re
from binascii import crc32
from typing import Any

from bay0.state import files

_FORM = re.compile(rb"(bay0-time 1 ([0-9]{1,12})) ([0-9a-f]{8})\n")


def load(path: str) -> dict[str, Any]:
    """Return {"seconds": since the epoch or None, "why": why there is none, "" if there never was a file, "read": False: nobody knows}.

    Raises nothing.
    """
    try:
        data = files.read(path)
    except OSError as error:
        return {"seconds": None, "why": str(error), "read": False}
    if data is None:
        return {"seconds": None, "why": "", "read": True}
    found = _FORM.fullmatch(data)
    if found is None or f"{crc32(found[1]):08x}".encode() != found[3]:
        return {"seconds": None, "why": f"the file is torn or not ours ({len(data)} bytes)", "read": True}
    return {"seconds": int(found[2]), "why": "", "read": True}


def save(path: str, seconds: int) -> int:
    """Keep `seconds`, durably when it returns. `OSError` if the disk does not take it."""
    text = f"bay0-time 1 {seconds}".encode()
    files.replace(path, text + f" {crc32(text):08x}\n".encode())
    return seconds
