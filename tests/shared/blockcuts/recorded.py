"""A log of what a program of ours writes to a file: pwrite(2) and fsync(2) through `os`, no VM."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from blockcuts.ops import Flush, Op, Write


@contextmanager
def recorded(path: str) -> Iterator[list[Op]]:
    """Collect what is written to the file at `path` within, in this process: `os.pwrite`, `os.write`, `os.fsync`, `os.fdatasync`.

    Each is done as well. Whatever else writes to it (a mapping, another process) is not seen: compare the file with the log's end.
    """
    log: list[Op] = []
    identity = (os.stat(path).st_dev, os.stat(path).st_ino)
    real = {name: getattr(os, name) for name in ("pwrite", "pwritev", "write", "fsync", "fdatasync")}

    def ours(fd: int) -> bool:
        status = os.fstat(fd)
        return (status.st_dev, status.st_ino) == identity

    def pwrite(fd: int, data: Any, offset: int) -> int:
        done: int = real["pwrite"](fd, data, offset)
        if ours(fd):
            log.append(Write(offset, memoryview(bytes(memoryview(data)[:done]))))
        return done

    def pwritev(fd: int, buffers: Any, offset: int, *flags: int) -> int:
        done: int = real["pwritev"](fd, buffers, offset, *flags)
        if ours(fd):
            log.append(Write(offset, memoryview(b"".join(bytes(each) for each in buffers)[:done])))
        return done

    def write(fd: int, data: Any) -> int:
        if not ours(fd):
            return int(real["write"](fd, data))
        at = os.lseek(fd, 0, os.SEEK_CUR)
        done = int(real["write"](fd, data))
        log.append(Write(at, memoryview(bytes(memoryview(data)[:done]))))
        return done

    def settled(name: str, fd: int) -> None:
        real[name](fd)
        if ours(fd):
            log.append(Flush())

    with (
        mock.patch.object(os, "pwrite", pwrite), mock.patch.object(os, "pwritev", pwritev), mock.patch.object(os, "write", write),
        mock.patch.object(os, "fsync", lambda fd: settled("fsync", fd)), mock.patch.object(os, "fdatasync", lambda fd: settled("fdatasync", fd)),
    ):  # fmt: skip
        yield log
