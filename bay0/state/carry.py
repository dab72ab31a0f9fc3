"""Carry a file into a home or out of one, for the command line in its own process, while its persona may do what it likes there.

Paths are resolved by the kernel as if the home were the root of all (openat2(2), RESOLVE_IN_ROOT): a link leads no further than the home, however
it is swapped meanwhile. What is opened is looked at before it is read, and nobody is waited for. What is brought in is a new file beside its place,
of the owner of its folder, and has its name by one rename: whoever reads there sees the old one or the new one, and a link in its place is replaced.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import BinaryIO

from bay0.base.errors import RefusedError
from bay0.base.syscalls import open_in_root
from bay0.state import export

TRIES = 20  # at a path on which something is moved all the time
CHUNK = 1 << 20
SYNC_EVERY = 16 << 20  # bytes, so that no sync on the disk has to wait long behind ours
SPARE = 64 << 20  # bytes that stay free
READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def _within(home: int, path: str, flags: int) -> int:
    for _ in range(TRIES):
        try:
            return open_in_root(home, path, flags)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise
    raise RefusedError(f"{path}: something on the way to it is moved all the time")


@contextlib.contextmanager
def _home(name: str) -> Iterator[int]:
    home = export.open_home(name)
    if home is None:
        raise RefusedError("it has no home yet: start it once")
    try:
        yield home
    finally:
        os.close(home)


def _copied(source: Callable[[int], bytes], out: Callable[[bytes], object], look: Callable[[int], None] = lambda _size: None) -> int:
    size = 0
    while data := source(CHUNK):
        out(data)
        size += len(data)
        look(size)
    return size


def fetch(name: str, path: str, out: BinaryIO) -> int:
    """Write a file of the home called `name` to `out`; return its size. `RefusedError`: it is no file; `OSError`."""
    with _home(name) as home:
        fd = _within(home, path, READ)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise RefusedError(f"{path} is no file")
            return _copied(lambda most: os.read(fd, most), out.write)
        finally:
            os.close(fd)


def bring(name: str, path: str, source: BinaryIO, called: str, mode: int) -> int:
    """Put what `source` gives into a home, at `path`, or as `called` into that folder; return its size. `RefusedError`, `OSError`: nothing is."""
    with _home(name) as home, contextlib.ExitStack() as opened:
        if os.fstat(home).st_mode & stat.S_ISVTX:
            raise RefusedError("its home is new and has no user yet: start it once")
        folder, last = _folder(home, path, called)
        opened.callback(os.close, folder)
        owner = os.fstat(folder)
        beside = f".{last[:100]}.{os.getpid()}.new"
        fd = os.open(beside, NEW, 0o600, dir_fd=folder)
        opened.callback(os.close, fd)
        try:
            synced = [0]

            def look(size: int) -> None:
                free = os.fstatvfs(fd)
                if free.f_bavail * free.f_frsize < SPARE:
                    raise RefusedError(f"no room: less than {SPARE >> 20} MiB are free on /persist")
                if size - synced[0] >= SYNC_EVERY:
                    os.fdatasync(fd)
                    synced[0] = size

            size = _copied(source.read, lambda data: _write(fd, data), look)
            os.fchown(fd, owner.st_uid, owner.st_gid)
            os.fchmod(fd, mode & 0o777)
            os.fsync(fd)
            os.rename(beside, last, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(beside, dir_fd=folder)
            raise
    return size


def _folder(home: int, path: str, called: str) -> tuple[int, str]:
    """Return the folder where something is to be, and its name there."""
    if not path.endswith("/"):
        try:
            return _within(home, path, FOLDER), _name(called, path)
        except FileNotFoundError:
            pass
        except NotADirectoryError:
            pass
        above, _, last = path.rpartition("/")
        return _within(home, above or ".", FOLDER), _name(last, path)
    return _within(home, path, FOLDER), _name(called, path)


def _name(name: str, path: str) -> str:
    if name in ("", ".", "..") or "/" in name:
        raise RefusedError(f"{path}: say what it is to be called there")
    return name


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
