"""Small files that are replaced whole, so that a crash leaves the old one or the new one. Runs in the state worker.

Write beside it, fsync, rename, fsync of the directory: only when all four have worked is the new one promised. A failure in between
raises `OSError` and leaves it open which of the two a later boot finds; a `.new` that a crash left behind is never read.
"""

from __future__ import annotations

import errno
import os

BESIDE = ".new"
LIMIT = 4096  # bytes that are read of such a file


def read(path: str) -> bytes | None:
    """Return the file's first `LIMIT` bytes, None if there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        return os.read(fd, LIMIT)
    finally:
        os.close(fd)


def replace(path: str, data: bytes) -> None:
    """Put `data` in place of the file, durably when it returns."""
    fd = os.open(path + BESIDE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if os.write(fd, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(path + BESIDE, path)
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
