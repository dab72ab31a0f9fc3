"""Copy a tree of files as it is: owners, modes, times, extended attributes, hard links, holes.

A tree is somebody's home, and what is in it is a persona's doing: links that lead out, FIFOs that nobody writes to, a million
entries, a million directories inside each other. So everything is reached by the descriptor of its directory and one name
(openat(2) with O_NOFOLLOW): no link is ever followed, and only what was seen to be a regular file is opened for reading. A
link is copied as a link, a FIFO and a socket as what they are; a device node is refused, since a copy would be a second way
to that device. Memory does not grow with the tree: the names that a file has besides its first are found through a
directory of links, which the caller gives and deletes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import Any

from attrs import define, field, frozen

from bay0.base.errors import RefusedError
from bay0.effects import shield

DEPTH_MAX = 1000  # directories inside each other: two descriptors each
CHUNK = 8 << 20  # bytes that are copied in one call
SMALL = 128 << 10  # a file up to this size, without holes, is read and written at once
SYNC_EVERY = 16 << 20  # bytes of one file, so that no sync on the disk has to wait long behind ours
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
KINDS = {stat.S_IFBLK: "a block device", stat.S_IFCHR: "a character device"}
_NO_RANGE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)  # copy_file_range(2) cannot do it between these two


@frozen
class Size:
    """What is in a tree: how many entries, and how many bytes they take on the disk."""

    entries: int
    bytes: int


@define(eq=False, repr=False)
class _Level:
    """A directory that is gone through. `target`: the descriptor of its copy, -1 while it is only measured."""

    name: str
    source: int
    target: int
    found: os.stat_result
    entries: Any  # what os.scandir returns, an iterator that is closed

    def close(self) -> None:
        self.entries.close()
        for fd in (self.source, self.target):
            if fd >= 0:
                os.close(fd)


def _open(name: str, above: int, target: int, device: int) -> _Level:
    fd = os.open(name, DIRECTORY, dir_fd=above)
    try:
        found = os.fstat(fd)
        if found.st_dev != device:
            raise RefusedError("another filesystem is mounted there")
        return _Level(name, fd, target, found, os.scandir(fd))
    except BaseException:
        os.close(fd)
        raise


def _where(levels: list[_Level], name: str = "") -> str:
    return "/".join([*(level.name for level in levels[1:]), name] if name else [level.name for level in levels[1:]]) or "."


def _need_depth(levels: list[_Level], depth: int) -> None:
    if depth > DEPTH_MAX:
        raise RefusedError(f"directories lie more than {DEPTH_MAX} deep in it, at {_where(levels)[:80]}...: no copy is made of such a tree")


def walk(source: int) -> Iterator[tuple[list[_Level], str, os.stat_result]]:
    """Yield each entry below the directory `source`: the directories it is in, its name, what it is. A directory comes before what is in it."""
    top = os.fstat(source)
    levels = [_open(".", source, -1, top.st_dev)]
    try:
        while levels:
            entry = next(levels[-1].entries, None)
            if entry is None:
                levels.pop().close()
                continue
            found = os.lstat(entry.name, dir_fd=levels[-1].source)
            yield levels, entry.name, found
            if stat.S_ISDIR(found.st_mode):
                _need_depth(levels, len(levels))
                levels.append(_open(entry.name, levels[-1].source, -1, top.st_dev))
    finally:
        for level in levels:
            level.close()


def measure(source: int, look: Callable[[], None] = lambda: None) -> Size:
    """Return what is in the directory `source`. `look` is called at each entry, and may raise to end it."""
    entries = used = 0
    for _levels, _name, found in walk(source):
        look()
        entries += 1
        used += found.st_blocks * 512 // max(1, found.st_nlink if not stat.S_ISDIR(found.st_mode) else 1)
    return Size(entries, used)


@define(eq=False, repr=False)
class Copy:
    """One copy. `links`: a descriptor of an empty directory beside the copy. `look` is called often, and may raise to end it."""

    links: int
    look: Callable[[Copy], None] = lambda _copy: None
    entries: int = field(init=False, default=0)
    bytes: int = field(init=False, default=0)
    _ranges: bool = field(init=False, default=True)  # copy_file_range(2) works here

    def tree(self, source: int, target: int) -> None:
        """Copy what is in the directory `source` into the empty directory `target`, and make `target` itself like it.

        `RefusedError` names what no copy is made of; `OSError` names what could not be read or written.
        """
        device = os.fstat(source).st_dev
        levels = [_open(".", source, os.dup(target), device)]
        try:
            while levels:
                level = levels[-1]
                entry = next(level.entries, None)
                if entry is None:
                    _like(level.source, level.target, level.found)
                    levels.pop().close()
                    continue
                self.entries += 1
                self.look(self)
                try:
                    below = self._entry(level, entry.name, device)
                except OSError as error:
                    raise OSError(error.errno, f"{_where(levels, entry.name)}: {error.strerror}") from error
                except RefusedError as error:
                    raise RefusedError(f"{_where(levels, entry.name)}: {error}") from error
                if below is not None:
                    levels.append(below)
                    _need_depth(levels, len(levels) - 1)
        finally:
            for level in levels:
                level.close()

    def _entry(self, level: _Level, name: str, device: int) -> _Level | None:
        """Copy one entry; return it if it is a directory, to be gone through next."""
        found = os.lstat(name, dir_fd=level.source)
        kind = stat.S_IFMT(found.st_mode)
        if kind == stat.S_IFDIR:
            os.mkdir(name, 0o700, dir_fd=level.target)
            target = os.open(name, DIRECTORY, dir_fd=level.target)
            try:
                return _open(name, level.source, target, device)
            except BaseException:
                os.close(target)
                raise
        if found.st_nlink > 1 and self._linked(found, level, name):
            return None
        if kind == stat.S_IFREG:
            self._file(level, name, found)
        elif kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=level.source), name, dir_fd=level.target)
            _named_like(level, name, found)
        elif kind in KINDS and found.st_rdev:
            raise RefusedError(f"it is {KINDS[kind]}, and no copy is made of one: delete it first")
        else:  # a FIFO, a socket, the whiteout of an overlay (device 0:0): names without contents
            os.mknod(name, found.st_mode, found.st_rdev, dir_fd=level.target)
            _named_like(level, name, found)
        if found.st_nlink > 1:
            os.link(name, str(found.st_ino), src_dir_fd=level.target, dst_dir_fd=self.links, follow_symlinks=False)
        return None

    def _linked(self, found: os.stat_result, level: _Level, name: str) -> bool:
        """Give the file's copy another name, if there is a copy yet."""
        try:
            os.link(str(found.st_ino), name, src_dir_fd=self.links, dst_dir_fd=level.target, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def _file(self, level: _Level, name: str, seen: os.stat_result) -> None:
        source = os.open(name, READ, dir_fd=level.source)
        try:
            found = os.fstat(source)
            if (found.st_dev, found.st_ino, stat.S_IFMT(found.st_mode)) != (seen.st_dev, seen.st_ino, stat.S_IFREG):
                raise RefusedError("it was replaced while it was copied")
            target = os.open(name, WRITE, 0o600, dir_fd=level.target)
            try:
                self._data(source, target, found)
                _like(source, target, found)
            finally:
                os.close(target)
        finally:
            os.close(source)

    def _data(self, source: int, target: int, found: os.stat_result) -> None:
        size = found.st_size
        whole = found.st_blocks * 512 >= size
        if whole and size <= SMALL:
            data = os.read(source, size) if size else b""
            if len(data) != size or (data and os.write(target, data) != size):
                raise RefusedError("it changed while it was copied, or the disk is full")
            self.bytes += size
            return
        at = end = synced = 0
        while at < size:
            if at >= end:
                at, end = (0, size) if whole else piece(source, at, size)
                continue
            count = self._range(source, target, at, min(CHUNK, end - at))
            if not count:
                raise RefusedError("it became shorter while it was copied")
            at += count
            self.bytes += count
            if at - synced >= SYNC_EVERY:
                os.fdatasync(target)
                synced = at
            self.look(self)
        os.ftruncate(target, size)

    def _range(self, source: int, target: int, at: int, count: int) -> int:
        """Copy up to `count` bytes at the offset `at`; return how many."""
        if self._ranges:
            try:
                return os.copy_file_range(source, target, count, at, at)
            except OSError as error:
                if error.errno not in _NO_RANGE:
                    raise
                self._ranges = False
        data = os.pread(source, min(count, 1 << 20), at)
        written = 0
        while written < len(data):
            written += os.pwrite(target, data[written:], at + written)
        return written


def piece(source: int, at: int, size: int) -> tuple[int, int]:
    """Return the beginning and the end of the next data of a file with holes; (size, size) if there is no more."""
    try:
        start = os.lseek(source, at, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return size, size
    return min(start, size), min(os.lseek(source, start, os.SEEK_HOLE), size)


def _like(source: int, target: int, found: os.stat_result) -> None:
    """Give what is open as `target` the owner, mode, attributes and times of `source`.

    In this order: chown(2) takes set-user-ID and capabilities away, an access list changes the mode, each of them the times.
    """
    made = os.fstat(target)
    if (made.st_uid, made.st_gid) != (found.st_uid, found.st_gid):
        os.fchown(target, found.st_uid, found.st_gid)
    os.fchmod(target, stat.S_IMODE(found.st_mode))
    for attribute in os.listxattr(source):
        os.setxattr(target, attribute, os.getxattr(source, attribute))
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


def _named_like(level: _Level, name: str, found: os.stat_result) -> None:
    """Do as `_like` does for what is not opened: a link, a FIFO, a socket."""
    made = os.lstat(name, dir_fd=level.target)
    if (made.st_uid, made.st_gid) != (found.st_uid, found.st_gid):
        os.chown(name, found.st_uid, found.st_gid, dir_fd=level.target, follow_symlinks=False)
    if not stat.S_ISLNK(found.st_mode):  # the mode of a link means nothing, and cannot be set
        os.chmod(name, stat.S_IMODE(found.st_mode), dir_fd=level.target)
    source, target = (f"/proc/self/fd/{fd}/{name}" for fd in (level.source, level.target))
    for attribute in os.listxattr(source, follow_symlinks=False):
        os.setxattr(target, attribute, os.getxattr(source, attribute, follow_symlinks=False), follow_symlinks=False)
    os.utime(name, ns=(found.st_atime_ns, found.st_mtime_ns), dir_fd=level.target, follow_symlinks=False)


def forget_links(links: int) -> None:
    """Delete what `Copy` left in its directory of links."""
    with os.scandir(links) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(entry.name, dir_fd=links)


def prepare() -> None:
    """Have this process be the last at the disk, and able to go as deep as a tree may be: two descriptors for each level."""
    import resource  # noqa: PLC0415 - nothing else in the program needs it

    shield.last_at_the_disk()
    wanted = 2 * DEPTH_MAX + 64
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
