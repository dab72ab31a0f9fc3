"""The genesis log: a few lines a boot, for people who find a disk and want to know its story. Bounded: one older file is kept."""

from __future__ import annotations

import os

LIMIT = 1 << 20  # bytes


def append(path: str, lines: list[str], limit: int = LIMIT) -> None:
    """Append `lines` and make them durable."""
    text = "".join(f"{line}\n" for line in lines).encode()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(fd).st_size + len(text) > limit:
            os.replace(path, path + ".1")
            new = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            os.close(fd)
            fd = new
        os.write(fd, text)
        os.fsync(fd)
    finally:
        os.close(fd)


def tail(path: str, count: int) -> list[str]:
    """Return the last `count` lines."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 200 * count))
            return file.read().decode("utf-8", "replace").splitlines()[-count:]
    except FileNotFoundError:
        return []
