"""A log of what a program of ours writes to a file, or to files that stand for the partitions of one disk: through `os`, no VM."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from blockcuts.ops import Flush, Op, Write


@contextmanager
def recorded(*files: str, at: tuple[int, ...] = (0,)) -> Iterator[list[Op]]:
    """Collect what is written to `files` within, in this process: `os.pwrite`, `os.pwritev`, `os.write`, `os.fsync`, `os.fdatasync`.

    Each is done as well. `at`: where on the disk each file begins. Whatever else writes to them (a mapping, another process)
    is not seen: compare the files with the log's end.
    """
    log: list[Op] = []
    places = {(os.stat(path).st_dev, os.stat(path).st_ino): start for path, start in zip(files, at, strict=True)}
    real = {name: getattr(os, name) for name in ("pwrite", "pwritev", "write", "fsync", "fdatasync")}

    def start_of(fd: int) -> int | None:
        status = os.fstat(fd)
        return places.get((status.st_dev, status.st_ino))

    def note(fd: int, offset: int, data: Any) -> None:
        start = start_of(fd)
        if start is not None and len(data):
            log.append(Write(start + offset, memoryview(bytes(data))))

    def pwrite(fd: int, data: Any, offset: int) -> int:
        done: int = real["pwrite"](fd, data, offset)
        note(fd, offset, memoryview(data)[:done])
        return done

    def pwritev(fd: int, buffers: Any, offset: int, *flags: int) -> int:
        done: int = real["pwritev"](fd, buffers, offset, *flags)
        note(fd, offset, b"".join(bytes(each) for each in buffers)[:done])
        return done

    def write(fd: int, data: Any) -> int:
        offset = os.lseek(fd, 0, os.SEEK_CUR) if start_of(fd) is not None else 0
        done = int(real["write"](fd, data))
        note(fd, offset, memoryview(data)[:done])
        return done

    def settled(name: str, fd: int) -> None:
        real[name](fd)
        if start_of(fd) is not None:
            log.append(Flush())

    with (
        mock.patch.object(os, "pwrite", pwrite), mock.patch.object(os, "pwritev", pwritev), mock.patch.object(os, "write", write),
        mock.patch.object(os, "fsync", lambda fd: settled("fsync", fd)), mock.patch.object(os, "fdatasync", lambda fd: settled("fdatasync", fd)),
    ):  # fmt: skip
        yield log
