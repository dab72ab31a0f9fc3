"""What a verb reads from files that a person names: regular files only, never more than a bound, and UTF-8 where it is text."""

from __future__ import annotations

import os
import stat
import sys

from bay0.base.errors import RefusedError

STDIN = "-"
KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFDIR: "a folder", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}


def text(path: str, most: int, what: str) -> str:
    """Return the text in `path`, or of stdin for `-`: a `what` of at most `most` bytes. `RefusedError`; `OSError` if it cannot be opened.

    A byte order mark at its beginning is no part of it: editors on Windows write one.
    """
    data = sys.stdin.buffer.read(most + 1) if path == STDIN else _bytes(path, most, what)
    if len(data) > most:
        bound = f"{most >> 10} KiB" if most >> 10 else f"{most} bytes"
        raise RefusedError(f"{shown(path)}: more than {bound}, which no {what} needs; nothing was sent")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RefusedError(f"{shown(path)}: not UTF-8 text ({error.reason} at byte {error.start}); nothing was sent") from error


def shown(path: str) -> str:
    """Return a path as messages name it."""
    return "stdin" if path == STDIN else path


def regular(path: str, what: str) -> int:
    """Open `path` for reading, which waits for nobody, and return the descriptor. `RefusedError` if it is no regular file; `OSError`."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except ValueError as error:  # a NUL
        raise RefusedError(f"no {what} at {path!r}: a path has no NUL in it") from error
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        raise RefusedError(f"{path} is {KINDS.get(stat.S_IFMT(mode), 'no file')}, and a {what} is a file. Nothing was sent")
    return fd


def _bytes(path: str, most: int, what: str) -> bytes:
    with os.fdopen(regular(path, what), "rb") as file:
        return file.read(most + 1)
