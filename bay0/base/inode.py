"""Which file a path leads to."""

from __future__ import annotations

import os

File = tuple[int, int]  # device and inode number


def which(path: str) -> File | None:
    """Return which file `path` leads to, without following a link; None if there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
