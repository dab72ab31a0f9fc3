"""The genesis log: a few lines a boot, for people who find a disk and want to know its story. Bounded: one older file is kept."""

from __future__ import annotations

import os

from bay0.state import files

APPENDED = os.O_WRONLY | os.O_CREAT | os.O_APPEND
LIMIT = 1 << 20  # bytes


def append(path: str, lines: list[str], limit: int = LIMIT) -> None:
    """Append `lines` and make them durable."""
    text = "".join(f"{line}\n" for line in lines).encode()
    fd = files.side_file(path, APPENDED)
    try:
        if os.fstat(fd).st_size + len(text) > limit:
            files.clear(path + ".1", written=False)
            files.rename(path, path + ".1", named=path)
            new = files.side_file(path, APPENDED)
            os.close(fd)
            fd = new
        os.write(fd, text)
        os.fsync(fd)
    finally:
        os.close(fd)


def tail(path: str, count: int) -> list[str]:
    """Return the last `count` lines."""
    try:
        with open(files.side_file(path), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 200 * count))
            return file.read().decode("utf-8", "replace").splitlines()[-count:]
    except FileNotFoundError:
        return []
